// SPDX-License-Identifier: GPL-2.0
#include "frame_map.h"

namespace redoubt {

FrameMap::~FrameMap()
{
	for (u64 word : top_)
		drop(word, levels);
}

void FrameMap::drop(u64 word, unsigned level)
{
	auto *t = reinterpret_cast<Table *>(word);

	if (!t)
		return;
	for (unsigned i = 0; level && i < 1u << bits; i++)
		drop(t->word[i], level - 1); /* as deep as there are levels: four */
	rdt_port_free(t);
}

FrameMap::Table *FrameMap::ensure(u64 &slot)
{
	if (slot)
		return reinterpret_cast<Table *>(slot);
	if (max_bytes_ - bytes_ < sizeof(Table))
		return nullptr;

	auto *t = static_cast<Table *>(rdt_port_alloc(sizeof(Table)));

	if (!t)
		return nullptr;
	write_once(bytes_, bytes_ + sizeof(Table));
	store_release(slot, reinterpret_cast<u64>(t)); /* pairs with word_of() */
	return t;
}

Status FrameMap::reserve(gfn_t first, u64 count)
{
	if (!valid_frames(first, count))
		return Status::Inval;
	for (gfn_t g = first; g < first + count; g = (g | ((1u << bits) - 1)) + 1) {
		Table *t = ensure(top_[g >> top_shift]);

		for (unsigned level = levels; t && level; level--)
			t = ensure(t->word[slot_of(g, level)]);
		if (!t)
			return Status::NoMem;
	}
	return Status::Ok;
}

void FrameMap::set(gfn_t gfn, Owner o)
{
	store_release(*const_cast<u64 *>(word_of(gfn)), o.word_);
}

gfn_t FrameMap::next(gfn_t from, gfn_t limit) const
{
	const gfn_t end = min_of(limit, gfn_limit);
	gfn_t g = from;

	while (g < end) {
		u64 skip = 1ull << top_shift;
		const u64 *word = word_of(g, &skip);

		if (!word) {
			g = (g | (skip - 1)) + 1;
			continue;
		}
		if (load_acquire(*word))
			return g;
		g++;
	}
	return limit;
}

} // namespace redoubt
