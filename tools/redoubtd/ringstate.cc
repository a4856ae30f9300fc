// SPDX-License-Identifier: GPL-2.0

#include "ringstate.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;

void put_ring(QStream &stream, VirtioBlob &blob, unsigned index, const sb::Ring &ring, sb::RingWatch *watch)
{
	if (watch) {
		const sb::Looked looked = watch->look(ring, true);

		if (looked != sb::Looked::Good || !watch->rewrite(ring))
			throw Error(blob.device() + ": which requests were under way is not known: " +
				    (looked == sb::Looked::Garbage ? "its ring is none any more" : "more came than the ring remembers"));
	}
	// What is available from there on is taken once more; nothing was told to the guest of that.
	blob.set_last_avail(index, ring.used_idx());
	// What was given back may not have been told yet. Drivers take one too many for what it is.
	if (const auto message = blob.interrupt(index))
		put_message(stream, message->address, message->data);
}

} // namespace redoubt::agent
