// SPDX-License-Identifier: GPL-2.0
/*
 * The split virtqueue of a device that died: which requests has the driver made available that the device has not
 * given back?
 *
 * A device that completes in order has exactly those between used.idx and avail.idx. One that does not (virtio-blk)
 * leaves that only their number: rings remember the last entries, and a request may be older than these. So somebody
 * looks at the rings while the device lives (RingWatch::look()), often enough that neither ring goes round between two looks.
 *
 * All is read from memory that a guest may write: nothing here goes beyond what it was given, whatever is in there. Pure
 * functions of that memory; trivially copyable, no allocation; one thread.
 */
#pragma once

#include "bytes.h"

namespace redoubt::standby {

/* VIRTQUEUE_MAX_SIZE of QEMU's */
constexpr u32 max_ring = 1024;

/**
 * struct Ring - where a split virtqueue of @num entries lies in the caller's memory. @num: 1 to max_ring, a power of
 * two. @avail: 4 + 2 x num bytes, @used: 4 + 8 x num bytes.
 */
struct Ring {
	u8 *avail;
	const u8 *used;
	u32 num;

	static constexpr u64 avail_bytes(u32 n)
	{
		return 4 + u64{2} * n;
	}
	static constexpr u64 used_bytes(u32 n)
	{
		return 4 + u64{8} * n;
	}
	[[nodiscard]] u16 avail_idx() const
	{
		return __atomic_load_n(reinterpret_cast<const u16 *>(avail + 2), __ATOMIC_ACQUIRE);
	}
	[[nodiscard]] u16 used_idx() const
	{
		return __atomic_load_n(reinterpret_cast<const u16 *>(used + 2), __ATOMIC_ACQUIRE);
	}
	[[nodiscard]] u16 avail_entry(u16 at) const
	{
		return get16(avail + 4 + u64{2} * (at & (num - 1)));
	}
	[[nodiscard]] u32 used_entry(u16 at) const
	{
		return get32(used + 4 + u64{8} * (at & (num - 1)));
	}
	void set_avail_entry(u16 at, u16 head) const
	{
		put16(avail + 4 + u64{2} * (at & (num - 1)), head);
	}
};

enum class Looked : u8 {
	Good,
	Lost,	 /* more came since the last look than a ring remembers */
	Garbage, /* a head that there is not, or one that was given back and never made available: not these rings any more */
};

class RingWatch {
public:
	/*
	 * The device is known to have given back all that it has taken, and to have taken all before @next (it stands, and
	 * was drained): what is available from there on is outstanding. False: the ring says otherwise.
	 */
	bool begin(const Ring &ring, u16 next);
	/* While driver and device live; @dead: neither does, so that nothing is written under our eyes. */
	Looked look(const Ring &ring, bool dead = false);
	/* What is outstanding is known as of the last look. It is again, after Lost, when a look finds nothing outstanding. */
	[[nodiscard]] bool known() const
	{
		return known_;
	}
	/* Entries of avail since the look before the last one. */
	[[nodiscard]] u32 came() const
	{
		return came_;
	}
	/*
	 * Behind a look with @dead: writes what is outstanding, the oldest first, into the avail ring from used.idx on, so that a
	 * device that begins there finds each request once. Avail entries are the driver's to write and it does not read them. False: not known.
	 */
	bool rewrite(const Ring &ring) const;

private:
	void settle(const Ring &ring, u16 avail, u16 used);

	u16 avail_ = 0, used_ = 0;	/* up to there all is counted */
	u32 came_ = 0;
	bool known_ = false;
	/* More than one for a moment: a look counts what was made available before it counts what was given back. */
	u16 count_[max_ring] = {};
	u32 age_[max_ring] = {};	/* when it was made available: grows */
	u32 now_ = 0;
};

} // namespace redoubt::standby
