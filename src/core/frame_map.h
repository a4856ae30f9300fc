// SPDX-License-Identifier: GPL-2.0
/*
 * Whose is this frame, and where is its content? One word for each frame that a
 * domain owns, in a radix of page-sized tables: five loads, whatever the domains
 * are. A leaf serves 2 MiB of frames.
 *
 * Concurrency: as FrameBitmap's. One writer at a time, readers without locks; a
 * word is there or not, and tables stay until the object is destroyed.
 */
#pragma once

#include <linux/redoubt_guest.h>
#include <redoubt/port.h>
#include <redoubt/types.h>

namespace redoubt {

/* Address of the private page, and in the bits that a page's address has free: */
class Owner {
public:
	constexpr Owner() = default;
	Owner(void *page, u8 view, u8 kind)
	    : word_(reinterpret_cast<u64>(page) | u64{kind} << 5 | view)
	{
	}
	/* nullptr: nobody's. */
	[[nodiscard]] void *page() const
	{
		return reinterpret_cast<void *>(word_ & ~(page_size - 1));
	}
	[[nodiscard]] u8 view() const
	{
		return word_ & 31;
	}
	/* RDT_DOM_TEXT... */
	[[nodiscard]] u8 kind() const
	{
		return word_ >> 5 & 7;
	}
	explicit operator bool() const
	{
		return word_ != 0;
	}

private:
	friend class FrameMap;

	u64 word_ = 0;
};

class FrameMap : Pinned {
public:
	constexpr explicit FrameMap(u64 max_bytes = ~0ull) : max_bytes_(max_bytes)
	{
	}
	~FrameMap();

	[[nodiscard]] Owner find(gfn_t gfn) const
	{
		const u64 *word = word_of(gfn);
		Owner o;

		if (word)
			o.word_ = load_acquire(*word); /* pairs with set() */
		return o;
	}
	/* Tables for these frames; set() of them cannot fail then. Inval, NoMem. */
	Status reserve(gfn_t first, u64 count);
	/* Reserved before. Owner{}: nobody's. */
	void set(gfn_t gfn, Owner o);

	/* The first frame from `from` on that is somebody's; limit: none before. */
	[[nodiscard]] gfn_t next(gfn_t from, gfn_t limit = gfn_limit) const;
	[[nodiscard]] bool any(gfn_t first, u64 count) const
	{
		return next(first, first + count) != first + count;
	}
	[[nodiscard]] u64 host_bytes() const
	{
		return read_once(bytes_);
	}

private:
	static constexpr unsigned bits = 9, levels = 3; /* of tables above the leaves */
	static constexpr unsigned top_shift = (levels + 1) * bits;
	static constexpr unsigned top_slots = 1u << (gfn_bits - top_shift);

	/* Of tables, or of owners in a leaf. */
	struct Table {
		u64 word[1u << bits];
	};
	static_assert(sizeof(Table) == page_size);

	static constexpr unsigned slot_of(gfn_t gfn, unsigned level)
	{
		return static_cast<unsigned>(gfn >> level * bits) % (1u << bits);
	}
	/* skip: where there is no table, set to the frames it would have had. */
	const u64 *word_of(gfn_t gfn, u64 *skip = nullptr) const
	{
		if (gfn >= gfn_limit)
			return nullptr;

		const Table *t = reinterpret_cast<const Table *>(load_acquire(top_[gfn >> top_shift]));

		for (unsigned level = levels; t && level; level--) {
			if (skip)
				*skip = 1ull << level * bits;
			t = reinterpret_cast<const Table *>(load_acquire(t->word[slot_of(gfn, level)]));
		}
		return t ? &t->word[slot_of(gfn, 0)] : nullptr;
	}
	Table *ensure(u64 &slot);
	void drop(u64 word, unsigned level);

	u64 top_[top_slots] = {};
	u64 bytes_ = 0;
	u64 max_bytes_;
};

} // namespace redoubt
