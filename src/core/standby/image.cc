// SPDX-License-Identifier: GPL-2.0
#include "image.h"
#include "bytes.h"

namespace redoubt::standby {

namespace {

enum : u8 { tag_page, tag_node, tag_image, tag_state };

bool hash2(const Sha256 &sha, u8 tag, const void *a, u64 an, const void *b, u64 bn, u8 *out)
{
	const Piece piece[] = {{&tag, 1}, {a, an}, {b, bn}};

	return sha.hash(sha.ctx, piece, 3, out);
}

} // namespace

Status Image::begin(const Run *slots, unsigned n, void *mem, u64 bytes, bool keep)
{
	gfn_t from = 0;
	u64 frames = 0;

	slots_ = 0;
	frames_ = have_ = 0;
	state_total_ = state_have_ = 0;
	leaf_ = nullptr;
	bit_ = nullptr;
	if (n == 0 || n > max_slots)
		return Status::Inval;
	for (unsigned i = 0; i < n; i++) {
		if (!valid_frames(slots[i].first, slots[i].count) || slots[i].first < from)
			return Status::Inval;
		from = slots[i].first + slots[i].count;
		slot_[i] = slots[i];
		base_[i] = frames;
		frames += slots[i].count;
	}
	if (bytes < bytes_for(frames))
		return Status::NoMem;
	slots_ = n;
	frames_ = frames;
	bit_ = static_cast<u64 *>(mem);
	leaf_ = static_cast<u8 *>(mem) + (frames + 63) / 64 * 8;
	kept_ = keep;
	__builtin_memset(bit_, 0, (frames + 63) / 64 * 8);
	/* No page has the leaf 0: same() finds none. */
	if (!keep)
		__builtin_memset(leaf_, 0, frames * digest_bytes);
	return Status::Ok;
}

Status Image::index(gfn_t gfn, u64 *out) const
{
	for (unsigned i = 0; i < slots_; i++) {
		if (gfn < slot_[i].first)
			break;
		if (gfn - slot_[i].first < slot_[i].count) {
			*out = base_[i] + (gfn - slot_[i].first);
			return Status::Ok;
		}
	}
	return Status::None;
}

/* Slots may touch, so a run may lie in several. */
bool Image::covers(gfn_t first, u64 count) const
{
	if (!valid_frames(first, count))
		return false;
	for (unsigned i = 0; i < slots_ && count != 0; i++) {
		const Run &s = slot_[i];

		if (first < s.first)
			return false;
		if (first - s.first >= s.count)
			continue;

		const u64 n = min_of(count, s.count - (first - s.first));

		first += n;
		count -= n;
	}
	return count == 0;
}

bool Image::arrived(gfn_t gfn) const
{
	u64 i;

	return index(gfn, &i) == Status::Ok && (bit_[i / 64] >> i % 64 & 1) != 0;
}

bool Image::page_leaf(const void *page, u8 out[digest_bytes]) const
{
	return hash2(sha_, tag_page, page, page_size, nullptr, 0, out);
}

bool Image::zero_leaf(u8 out[digest_bytes])
{
	static constexpr u8 zero[page_size] = {};

	if (!zero_known_)
		zero_known_ = page_leaf(zero, zero_);
	copy_bytes(out, zero_, digest_bytes);
	return zero_known_;
}

Status Image::page(gfn_t gfn, const u8 leaf[digest_bytes])
{
	u64 i;

	if (index(gfn, &i) != Status::Ok)
		return Status::Inval;
	copy_bytes(leaf_ + i * digest_bytes, leaf, digest_bytes);
	have_ += (bit_[i / 64] >> i % 64 & 1) == 0;
	bit_[i / 64] |= 1ull << i % 64;
	return Status::Ok;
}

Status Image::forget(gfn_t gfn)
{
	u64 i;

	if (index(gfn, &i) != Status::Ok)
		return Status::Inval;
	have_ -= (bit_[i / 64] >> i % 64 & 1) != 0;
	bit_[i / 64] &= ~(1ull << i % 64);
	return Status::Ok;
}

Status Image::same(gfn_t gfn, const u8 leaf[digest_bytes])
{
	const u8 *mine = this->leaf(gfn);

	if (!covers(gfn, 1))
		return Status::Inval;
	static constexpr u8 none[digest_bytes] = {};

	if (mine == nullptr || __builtin_memcmp(mine, leaf, digest_bytes) != 0 ||
	    __builtin_memcmp(mine, none, digest_bytes) == 0)
		return Status::None;
	return page(gfn, leaf);
}

const u8 *Image::leaf(gfn_t gfn) const
{
	u64 i;

	if (index(gfn, &i) != Status::Ok || (!kept_ && (bit_[i / 64] >> i % 64 & 1) == 0))
		return nullptr;
	return leaf_ + i * digest_bytes;
}

Status Image::state(u64 total, u64 offset, u64 n)
{
	if (total == 0 || total > max_state || offset > total || n == 0 || n > total - offset)
		return Status::Inval;
	if (offset != 0 && (total != state_total_ || offset != state_have_))
		return Status::Inval;
	state_total_ = total;
	state_have_ = offset + n;
	return Status::Ok;
}

Status Image::lacks(gfn_t from, Run *out) const
{
	for (unsigned s = 0; s < slots_; s++) {
		const Run &slot = slot_[s];
		u64 i = from > slot.first ? from - slot.first : 0;
		const auto has = [&](u64 k) {
			return (bit_[(base_[s] + k) / 64] >> (base_[s] + k) % 64 & 1) != 0;
		};

		for (; i < slot.count; i++) {
			/* 64 at once where they are all there. */
			if ((base_[s] + i) % 64 == 0 && bit_[(base_[s] + i) / 64] == ~0ull) {
				i += 63;
				continue;
			}
			if (!has(i))
				break;
		}
		if (i >= slot.count)
			continue;
		out->first = slot.first + i;
		out->count = 1;
		while (i + out->count < slot.count && !has(i + out->count))
			out->count++;
		return Status::Ok;
	}
	return Status::None;
}

/* Leaf i completes as many nodes as i + 1 has trailing zeroes; of each level at most one waits for its neighbour. */
bool Image::tree_add(const u8 *leaf, u64 i)
{
	u8 up[digest_bytes];
	unsigned level = 0;

	copy_bytes(up, leaf, digest_bytes);
	for (; (i >> level & 1) != 0; level++)
		if (!hash2(sha_, tag_node, node_[level], digest_bytes, up, digest_bytes, up))
			return false;
	copy_bytes(node_[level], up, digest_bytes);
	return true;
}

/* What still waits has no neighbour: it goes up, and is the right one of the next that waits. */
bool Image::tree_root(u64 leaves, u8 *out)
{
	bool any = false;

	for (unsigned level = 0; level < max_levels; level++) {
		if ((leaves >> level & 1) == 0)
			continue;
		if (!any)
			copy_bytes(out, node_[level], digest_bytes);
		else if (!hash2(sha_, tag_node, node_[level], digest_bytes, out, digest_bytes, out))
			return false;
		any = true;
	}
	return any;
}

Status Image::digest(const void *state, Digest *out)
{
	*out = {};
	if (frames_ == 0 || have_ != frames_ || !state_whole())
		return Status::None;

	u8 sums[2 * digest_bytes + 8];

	for (u64 i = 0; i < frames_; i++)
		if (!tree_add(leaf_ + i * digest_bytes, i))
			return Status::Corrupt;
	put64(layout_, frames_);
	put64(layout_ + 8, slots_);
	for (unsigned i = 0; i < slots_; i++) {
		put64(layout_ + 16 + u64{i} * 16, slot_[i].first);
		put64(layout_ + 24 + u64{i} * 16, slot_[i].count);
	}
	put64(sums + digest_bytes, state_total_);
	if (!tree_root(frames_, sums) ||
	    !hash2(sha_, tag_state, state, state_total_, nullptr, 0, sums + digest_bytes + 8) ||
	    !hash2(sha_, tag_image, layout_, 16 + u64{slots_} * 16, sums, sizeof(sums), out->byte)) {
		*out = {};
		return Status::Corrupt;
	}
	return Status::Ok;
}

bool Image::check(u64 frames, u64 state_bytes, const void *state, Digest *mine)
{
	return digest(state, mine) == Status::Ok && frames == frames_ && state_bytes == state_total_;
}

} // namespace redoubt::standby
