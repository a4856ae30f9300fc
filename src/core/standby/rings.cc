// SPDX-License-Identifier: GPL-2.0
#include "rings.h"

namespace redoubt::standby {

bool RingWatch::begin(const Ring &ring, u16 next)
{
	const u16 avail = ring.avail_idx(), used = ring.used_idx();

	known_ = false;
	came_ = 0;
	for (u32 i = 0; i < max_ring; i++)
		count_[i] = 0;
	avail_ = avail;
	used_ = used;
	if (used != next || static_cast<u16>(avail - next) > ring.num)
		return false;
	for (u16 at = next; at != avail; at++) {
		const u16 head = ring.avail_entry(at);

		if (head >= ring.num || count_[head] != 0)
			return false;
		count_[head] = 1;
		age_[head] = now_++;
	}
	known_ = true;
	return true;
}

/*
 * used.idx is read first: whatever was given back up to there was made available before, and avail.idx, read later, has
 * it. An entry is good if its slot was not written again meanwhile. The slot of entry p is written for entry p + num,
 * when avail.idx is p + num at the latest: so avail.idx, read once more behind the entries, must be less for the oldest.
 */
Looked RingWatch::look(const Ring &ring, bool dead)
{
	const u16 used = ring.used_idx(), avail = ring.avail_idx();
	const u32 new_avail = static_cast<u16>(avail - avail_), new_used = static_cast<u16>(used - used_);
	bool garbage = false;

	came_ = new_avail;
	if (static_cast<u16>(avail - used) > ring.num) {
		/* The device is between the two reads, or these are no rings any more. */
		known_ = known_ && !dead;
		return dead ? Looked::Garbage : Looked::Good;
	}
	if (known_ && new_avail <= ring.num && new_used <= ring.num) {
		for (u16 at = avail_; at != avail && !garbage; at++) {
			const u16 head = ring.avail_entry(at);

			garbage = head >= ring.num;
			if (!garbage) {
				count_[head]++;
				age_[head] = now_++;
			}
		}
		for (u16 at = used_; at != used && !garbage; at++) {
			const u32 head = ring.used_entry(at);

			garbage = head >= ring.num || count_[head] == 0;
			if (!garbage)
				count_[head]--;
		}
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		const u32 room = dead ? ring.num + 1 : ring.num;
		if (static_cast<u16>(ring.avail_idx() - avail_) >= room || static_cast<u16>(ring.used_idx() - used_) >= room) {
			known_ = garbage = false;
		} else if (garbage) {
			known_ = false;
		}
	} else {
		known_ = false;
	}
	avail_ = avail;
	used_ = used;
	if (known_)
		return Looked::Good;
	settle(ring, avail, used);
	return known_ ? Looked::Good : garbage ? Looked::Garbage : Looked::Lost;
}

/* With nothing outstanding all is known again. */
void RingWatch::settle(const Ring &ring, u16 avail, u16 used)
{
	if (avail != used || ring.used_idx() != used)
		return;
	for (u32 i = 0; i < max_ring; i++)
		count_[i] = 0;
	known_ = true;
}

bool RingWatch::rewrite(const Ring &ring) const
{
	u32 n = 0, below = 0;

	if (!known_)
		return false;
	for (u32 head = 0; head < ring.num; head++) {
		if (count_[head] > 1)
			return false;
		n += count_[head];
	}
	if (n != static_cast<u16>(avail_ - used_) || n > ring.num)
		return false;
	/* At most num of them, and once in a VM's life: by selection. Ages go round, differences do not. */
	for (u32 i = 0; i < n; i++) {
		u32 oldest = max_ring;

		for (u32 head = 0; head < ring.num; head++) {
			const u32 back = now_ - age_[head];

			if (count_[head] != 0 && (i == 0 || back < below) &&
			    (oldest == max_ring || back > now_ - age_[oldest]))
				oldest = head;
		}
		if (oldest == max_ring)
			return false;
		below = now_ - age_[oldest];
		ring.set_avail_entry(static_cast<u16>(used_ + i), static_cast<u16>(oldest));
	}
	return true;
}

} // namespace redoubt::standby
