// SPDX-License-Identifier: GPL-2.0

#include "ring.h"

#include <algorithm>
#include <cstring>

#include "sys.h"

namespace redoubt::client {

namespace {

constexpr size_t words = sizeof(rdt_event) / sizeof(__u64);

static_assert(sizeof(rdt_event) == 128 && offsetof(rdt_event, seq) == 0);
static_assert(sizeof(rdt_ring) <= 4096 && offsetof(rdt_ring, head) % sizeof(__u64) == 0);

__u64 load_acquire(const __u64 *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

} // namespace

size_t EventRing::mapping_size(const void *first_page)
{
	rdt_ring ring;

	memcpy(&ring, first_page, sizeof(ring));
	if (ring.magic != RDT_RING_MAGIC)
		throw Error("event ring: wrong magic");
	if (ring.version != RDT_UAPI_VERSION || ring.record_size != sizeof(rdt_event))
		throw Error("event ring: version " + std::to_string(ring.version) + " with records of " +
			    std::to_string(ring.record_size) + " bytes is not known");
	// The upper bounds only keep the sum below from wrapping.
	if (!ring.records || (ring.records & (ring.records - 1)) || ring.records > 1u << 28 ||
	    ring.data_offset < sizeof(rdt_ring) || ring.data_offset > 1u << 28 ||
	    ring.data_offset % sizeof(__u64))
		throw Error("event ring: broken header");
	return ring.data_offset + size_t{ring.records} * sizeof(rdt_event);
}

EventRing::EventRing(std::shared_ptr<const void> map, size_t size)
	: map_(std::move(map)), ring_(static_cast<const rdt_ring *>(map_.get())), records_(ring_->records),
	  data_offset_(ring_->data_offset)
{
	if (mapping_size(map_.get()) > size)
		throw Error("event ring: mapping is too small");
}

const __u64 *EventRing::record(uint64_t seq) const
{
	const auto *data = static_cast<const unsigned char *>(map_.get()) + data_offset_;

	return reinterpret_cast<const __u64 *>(data + ((seq - 1) & (records_ - 1)) * sizeof(rdt_event));
}

uint64_t EventRing::head() const
{
	return load_acquire(&ring_->head);
}

uint64_t EventRing::count(unsigned type) const
{
	return type < RDT_EV_NR ? load_acquire(&ring_->count[type]) : 0;
}

void EventRing::seek(uint64_t seq)
{
	next_ = seq + 1;
	last_ = seq;
	gap_ = lost_ = 0;
}

bool EventRing::next(rdt_event &event)
{
	// A writer that laps us all the time must not keep us here for ever.
	for (int tries = 0; tries < 1000; tries++) {
		// Not before head has reached it, though the record may be complete:
		// the module lets nobody have seen more than head. From then on
		// another number in the record means that it is overwritten.
		if (head() < next_)
			return false;
		const __u64 *rec = record(next_);

		if (load_acquire(rec) == next_) {
			__u64 copy[words];

			for (size_t i = 0; i < words; i++)
				copy[i] = __atomic_load_n(rec + i, __ATOMIC_RELAXED);
			// The copy's loads before the second look. Pairs with the
			// writer's barrier between clearing seq and writing the rest.
			__atomic_thread_fence(__ATOMIC_ACQUIRE);
			if (__atomic_load_n(rec, __ATOMIC_RELAXED) == next_) {
				memcpy(&event, copy, sizeof(event));
				event.seq = next_;
				gap_ = next_ - last_ - 1;
				lost_ += gap_;
				last_ = next_++;
				return true;
			}
		}

		// Overwritten. Go on at the oldest that may still be there.
		const uint64_t now = head();
		next_ = std::max(next_ + 1, now >= records_ ? now - records_ + 1 : 1);
	}
	return false;
}

} // namespace redoubt::client
