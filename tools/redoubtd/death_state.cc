// SPDX-License-Identifier: GPL-2.0
//
// Behind QEMU's end: the device state that it would have written.

#include "death.h"
#include "held.h"
#include "kvmstate.h"
#include "qstream.h"
#include "virtioblob.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;

std::vector<uint8_t> DeathWatch::make_state(const Hold &hold)
{
	loop_.cancel(sampler_);
	if (!armed_)
		throw Error(obstacle());
	const auto ran = Loop::Clock::now() - refreshed_;
	QStream stream(state_);

	put_kvm(stream, hold);
	put_time(stream, static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(ran).count()));
	for (QSection &section : stream.sections()) {
		if (!section.has("virtio"))
			continue;
		VirtioBlob blob(section.raw("virtio"), section.name);

		for (Queue &q : queues_) {
			if (q.section != section.name)
				continue;
			if (q.watch) {
				const sb::Looked looked = q.watch->look(q.ring, true);

				if (looked != sb::Looked::Good || !q.watch->rewrite(q.ring))
					throw Error(q.section + ": which requests were under way is not known: " +
						    (looked == sb::Looked::Garbage ? "its ring is none any more" : "more came than the ring remembers"));
			}
			// What is available from there on is taken once more; nothing was told to the guest of that.
			blob.set_last_avail(q.index, q.ring.used_idx());
			// What was given back may not have been told yet. Drivers take one too many for what it is.
			if (const auto message = blob.interrupt(q.index))
				put_message(stream, message->address, message->data);
		}
	}
	return stream.bytes();
}

void DeathWatch::put_kvm(QStream &stream, const Hold &hold)
{
	Held held(hold.id());

	for (uint32_t i = 0; i < hold.vcpus(); i++) {
		const KvmItems items = held.vcpu(i, msrs_);

		if (items.get<uint32_t>("PENDING_IO")) {
			if (const std::string why = pending_access(hold.vcpu_fds()[i]); !why.empty())
				throw Error("vCPU " + std::to_string(i) + ": " + why);
		}
		put_vcpu(stream, i, items);
	}
	put_machine(stream, held.machine());
}

// The VM stands, and QEMU has just said what it is: what KVM says must be the same, but for the time, and must have a place. So what is
// not carried is found out now, not behind QEMU's death.
void DeathWatch::rehearse()
{
	QStream said(state_), made = said;

	put_kvm(made, *hold_);
	differs_.clear();
	for (size_t i = 0; i < said.sections().size(); i++) {
		const auto names = said.sections()[i].differences(made.sections()[i]);

		differs_.insert(differs_.end(), names.begin(), names.end());
	}
}

} // namespace redoubt::agent
