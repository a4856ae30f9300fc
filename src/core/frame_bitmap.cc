// SPDX-License-Identifier: GPL-2.0
#include "frame_bitmap.h"

namespace redoubt {

namespace {

/* The last frame of the naturally aligned block of 1 << bits that holds g. */
constexpr gfn_t block_last(gfn_t g, unsigned bits)
{
	return g | ((1ull << bits) - 1);
}

} // namespace

FrameBitmap::~FrameBitmap()
{
	for (Dir *dir : top_) {
		if (!dir)
			continue;
		for (LowDir *low : dir->slot) {
			if (!low)
				continue;
			for (Leaf *leaf : low->slot)
				rdt_port_free(leaf);
			rdt_port_free(low);
		}
		rdt_port_free(dir);
	}
}

template <class T> bool FrameBitmap::ensure(T *&slot)
{
	if (slot)
		return true;
	if (max_bytes_ - bytes_ < sizeof(T))
		return false;
	T *table = static_cast<T *>(rdt_port_alloc(sizeof(T)));
	if (!table)
		return false;
	write_once(bytes_, bytes_ + sizeof(T));
	store_release(slot, table); /* pairs with the acquires in leaf_of() */
	return true;
}

bool FrameBitmap::ensure_leaf(gfn_t gfn)
{
	Dir *&dir = top_[top_of(gfn)];

	return ensure(dir) && ensure(dir->slot[dir_of(gfn)]) &&
	       ensure(dir->slot[dir_of(gfn)]->slot[low_of(gfn)]);
}

/* Where there is no leaf there is nothing to clear; set_range() made its own. */
void FrameBitmap::write_bits(gfn_t first, gfn_t last, bool value)
{
	u64 weight = weight_;

	for (gfn_t g = first; g <= last;) {
		Leaf *leaf = const_cast<Leaf *>(leaf_of(g));
		const gfn_t leaf_end = min_of(last, block_last(g, leaf_bits));

		if (!leaf) {
			g = next_set(leaf_end + 1, last + 1);
			continue;
		}
		while (g <= leaf_end) {
			u64 &word = leaf->word[word_of(g)];
			const gfn_t end = min_of(leaf_end, block_last(g, 6));
			const u64 mask = mask_from(g) & mask_to(end);
			const u64 old = value ? __atomic_fetch_or(&word, mask, __ATOMIC_RELEASE) :
						__atomic_fetch_and(&word, ~mask, __ATOMIC_RELEASE);

			if (value)
				weight += popcount(mask & ~old);
			else
				weight -= popcount(mask & old);
			g = end + 1;
		}
	}
	write_once(weight_, weight);
}

Status FrameBitmap::set_range(gfn_t first, u64 count)
{
	if (!valid_frames(first, count))
		return Status::Inval;

	const gfn_t last = first + count - 1;

	for (gfn_t g = first; g <= last; g = block_last(g, leaf_bits) + 1)
		if (!ensure_leaf(g))
			return Status::NoMem;
	write_bits(first, last, true);
	return Status::Ok;
}

Status FrameBitmap::clear_range(gfn_t first, u64 count)
{
	if (!valid_frames(first, count))
		return Status::Inval;
	write_bits(first, first + count - 1, false);
	return Status::Ok;
}

bool FrameBitmap::any(gfn_t first, u64 count) const
{
	if (first >= gfn_limit)
		return false;

	const gfn_t end = first + min_of(count, gfn_limit - first);

	return next_set(first, end) != end;
}

gfn_t FrameBitmap::next_set(gfn_t from, gfn_t limit) const
{
	const gfn_t end = min_of(limit, gfn_limit);

	for (gfn_t g = from; g < end;) {
		const Dir *dir = load_acquire(top_[top_of(g)]);
		if (!dir) {
			g = block_last(g, top_shift) + 1;
			continue;
		}
		const LowDir *low = load_acquire(dir->slot[dir_of(g)]);
		if (!low) {
			g = block_last(g, leaf_bits + dir_bits) + 1;
			continue;
		}
		const Leaf *leaf = load_acquire(low->slot[low_of(g)]);
		if (!leaf) {
			g = block_last(g, leaf_bits) + 1;
			continue;
		}
		const u64 word = load_word(leaf->word[word_of(g)]) & mask_from(g);
		if (word) {
			g = (g & ~63ull) + static_cast<unsigned>(__builtin_ctzll(word));
			return g < end ? g : limit;
		}
		g = block_last(g, 6) + 1;
	}
	return limit;
}

} // namespace redoubt
