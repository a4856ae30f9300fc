// SPDX-License-Identifier: GPL-2.0
//
// Reader of a VM's event ring, by the protocol at struct rdt_ring. The writer
// never waits for readers, so each record is read like under a seqlock: its
// number before and after the copy. One thread reads with one EventRing; any
// number of them may read the same ring.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <linux/redoubt.h>

namespace redoubt::client {

class EventRing {
public:
	// @map: the whole mapping, @size bytes. Throws Error if it is no ring.
	EventRing(std::shared_ptr<const void> map, size_t size);

	// Bytes to map, by the header in the first page. Throws Error if it is none.
	static size_t mapping_size(const void *first_page);

	// Go on behind @seq. A new reader starts at 0: at the oldest event there is.
	void seek(uint64_t seq);

	// The next event, or false if there is none yet.
	[[nodiscard]] bool next(rdt_event &event);

	// Events overwritten before they were read: those right before the event
	// that next() gave last, and all since seek().
	uint64_t gap() const { return gap_; }
	uint64_t lost() const { return lost_; }

	uint64_t head() const;			// number of the newest event
	uint64_t count(unsigned type) const;	// events of a type since attach
	uint32_t records() const { return records_; }

private:
	const __u64 *record(uint64_t seq) const;

	std::shared_ptr<const void> map_;
	const rdt_ring *ring_;
	// Read once: the geometry never changes, and must not under our feet.
	uint32_t records_;
	uint64_t data_offset_;
	uint64_t next_ = 1;	// number to read next
	uint64_t last_ = 0;	// number that next() gave last
	uint64_t gap_ = 0;
	uint64_t lost_ = 0;
};

} // namespace redoubt::client
