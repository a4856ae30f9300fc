// SPDX-License-Identifier: GPL-2.0
/*
 * One bit per guest frame: "is this frame restricted at all?"
 *
 * A radix of pointers over page-sized leaves of 32768 bits, so a VM pays a bit
 * for each frame only where something is set. The top level sits in the object
 * and the answer for a frame costs at most three pointer loads and one bit test;
 * with nothing set nearby, one load.
 *
 * Concurrency: any number of readers (test, any, next_set) without locks, one
 * writer at a time (the caller's mutex). Tables are published with release and
 * stay until the object is destroyed, so a reader needs no grace period.
 * A reader beside a writer sees each bit before or after, nothing else.
 */
#pragma once

#include <redoubt/port.h>
#include <redoubt/types.h>

namespace redoubt {

class FrameBitmap : Pinned {
public:
	/* max_bytes: host memory that the tables may take, for quotas. */
	constexpr explicit FrameBitmap(u64 max_bytes = ~0ull) : max_bytes_(max_bytes)
	{
	}
	~FrameBitmap();

	/* A frame that cannot exist is not set. */
	[[nodiscard]] bool test(gfn_t gfn) const
	{
		const Leaf *leaf = leaf_of(gfn);

		return leaf && (load_word(leaf->word[word_of(gfn)]) & mask_of(gfn));
	}

	/*
	 * Inval (empty, wrapping or too high), NoMem. On NoMem no bit has changed;
	 * tables allocated so far stay, empty, for the next try.
	 */
	Status set_range(gfn_t first, u64 count);
	/* Inval. Never allocates. */
	Status clear_range(gfn_t first, u64 count);

	[[nodiscard]] bool any(gfn_t first, u64 count) const;
	/* The first set frame in [from, limit), or limit when there is none. */
	[[nodiscard]] gfn_t next_set(gfn_t from, gfn_t limit = gfn_limit) const;

	/* Frames set. */
	[[nodiscard]] u64 weight() const
	{
		return read_once(weight_);
	}

	[[nodiscard]] u64 host_bytes() const
	{
		return read_once(bytes_);
	}

private:
	static constexpr unsigned leaf_bits = 15, dir_bits = 9, dir_levels = 2;
	static constexpr unsigned top_shift = leaf_bits + dir_levels * dir_bits;
	static constexpr unsigned top_slots = 1u << (gfn_bits - top_shift);
	static constexpr unsigned dir_slots = 1u << dir_bits;
	static constexpr unsigned leaf_words = 1u << (leaf_bits - 6);

	struct Leaf {
		u64 word[leaf_words];
	};
	struct LowDir {
		Leaf *slot[dir_slots];
	};
	struct Dir {
		LowDir *slot[dir_slots];
	};
	static_assert(sizeof(Leaf) == page_size && sizeof(LowDir) == page_size &&
		      sizeof(Dir) == page_size);
	static_assert(top_slots == 128);

	static constexpr unsigned top_of(gfn_t g)
	{
		return static_cast<unsigned>(g >> top_shift);
	}
	static constexpr unsigned dir_of(gfn_t g)
	{
		return static_cast<unsigned>(g >> (leaf_bits + dir_bits)) % dir_slots;
	}
	static constexpr unsigned low_of(gfn_t g)
	{
		return static_cast<unsigned>(g >> leaf_bits) % dir_slots;
	}
	static constexpr unsigned word_of(gfn_t g)
	{
		return static_cast<unsigned>(g >> 6) % leaf_words;
	}
	static constexpr u64 mask_of(gfn_t g)
	{
		return 1ull << (g & 63);
	}
	/* Bits of a word from g on, and up to and with g. */
	static constexpr u64 mask_from(gfn_t g)
	{
		return ~0ull << (g & 63);
	}
	static constexpr u64 mask_to(gfn_t g)
	{
		return ~0ull >> (63 - (g & 63));
	}

	/* Pairs with the release in write_bits(). */
	static u64 load_word(const u64 &w)
	{
		return load_acquire(w);
	}

	const Leaf *leaf_of(gfn_t gfn) const
	{
		if (gfn >= gfn_limit)
			return nullptr;
		const Dir *dir = load_acquire(top_[top_of(gfn)]);
		if (!dir)
			return nullptr;
		const LowDir *low = load_acquire(dir->slot[dir_of(gfn)]);
		return low ? load_acquire(low->slot[low_of(gfn)]) : nullptr;
	}

	template <class T> bool ensure(T *&slot);
	bool ensure_leaf(gfn_t gfn);
	void write_bits(gfn_t first, gfn_t last, bool value);

	Dir *top_[top_slots] = {};
	u64 weight_ = 0;
	u64 bytes_ = 0;
	u64 max_bytes_;
};

} // namespace redoubt
