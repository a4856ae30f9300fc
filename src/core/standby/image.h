// SPDX-License-Identifier: GPL-2.0
/*
 * An image of a VM: which of its frames and of its device state have arrived, and the digest over them.
 *
 * The same class on both sides: the sender notes what it has sent, the receiver what it has stored, and the digests
 * are equal only if both have the same frames in the same slots, and the same device state. Nothing is whole but by
 * check(). The bytes themselves are the caller's, who hashes each frame when it is sent, or once it is *stored*
 * (page_leaf()). A frame may come twice: the later one counts.
 *
 * digest = H(2 | frames | slots | each slot's first, count | root | state bytes | H(3 | state))
 * root: Merkle tree over the leaves in ascending order of gfn; leaf = H(0 | page), node = H(1 | left | right); what is
 * odd at the end of a level goes up as it is. H is SHA-256; numbers are u64, little endian; 0 to 3 are one byte.
 *
 * The core links no library: the caller brings SHA-256 and memory (bytes_for()). One thread.
 */
#pragma once

#include "wire.h"

namespace redoubt::standby {

/* A piece of what is hashed. */
struct Piece {
	const void *p;
	u64 n;
};

/**
 * struct Sha256 - SHA-256 of the pieces one after the other.
 * @hash: at most 4 pieces; @out may be one of them. False: the library failed; what was asked for has not happened.
 */
struct Sha256 {
	bool (*hash)(void *ctx, const Piece *pieces, unsigned n, u8 out[digest_bytes]);
	void *ctx;
};

class Image : Pinned {
public:
	explicit Image(const Sha256 &sha) : sha_(sha)
	{
	}

	/* Memory that begin() wants for so many frames: 32 bytes and a bit for each. */
	static u64 bytes_for(u64 frames)
	{
		return frames * digest_bytes + (frames + 63) / 64 * 8;
	}

	/**
	 * begin() - a new image: nothing has arrived.
	 * @slots: ascending, disjoint, valid_frames(); 1 to max_slots. Gaps are no memory.
	 * @mem: bytes_for() the sum of their frames, aligned to 8. @bytes: what there is of it.
	 * @keep: @mem holds the leaves of an image before in the same slots, whose frames lie where they lay: for same().
	 *
	 * Ok, Inval, NoMem (@bytes is too little).
	 */
	Status begin(const Run *slots, unsigned n, void *mem, u64 bytes, bool keep);

	/* Frames of all slots. */
	[[nodiscard]] u64 frames() const
	{
		return frames_;
	}
	/* Frames that have arrived. */
	[[nodiscard]] u64 have() const
	{
		return have_;
	}
	/*
	 * The number of a frame among all frames, which is also where it lies in a RAM file that has the slots one
	 * behind the other. None: no memory there.
	 */
	Status index(gfn_t gfn, u64 *out) const;
	/* All of the run is memory: what PAGES and SAME must pass first. */
	[[nodiscard]] bool covers(gfn_t first, u64 count) const;
	[[nodiscard]] bool arrived(gfn_t gfn) const;

	/* The leaf of a page; of a zero page. False: no hash. */
	bool page_leaf(const void *page, u8 out[digest_bytes]) const;
	bool zero_leaf(u8 out[digest_bytes]);

	/* A frame was sent, or stored: its leaf. Ok; Inval: no memory there. */
	Status page(gfn_t gfn, const u8 leaf[digest_bytes]);
	/* It is to be sent, or asked for, once more. */
	Status forget(gfn_t gfn);
	/* SAME: arrived if the leaf is the one that was kept. Ok; None: it is another: remains lacking; Inval. */
	Status same(gfn_t gfn, const u8 leaf[digest_bytes]);
	/* The leaf that is noted, also of an image before (@keep); nullptr: no memory there, or none. */
	[[nodiscard]] const u8 *leaf(gfn_t gfn) const;

	/*
	 * The device state: @n bytes at @offset of @total. In order; offset 0 begins it anew. Ok, Inval. The caller
	 * keeps the bytes.
	 */
	Status state(u64 total, u64 offset, u64 n);
	[[nodiscard]] bool state_whole() const
	{
		return state_total_ != 0 && state_have_ == state_total_;
	}
	[[nodiscard]] u64 state_bytes() const
	{
		return state_total_;
	}

	/*
	 * The first run that has not arrived, at @from or later, of one slot. None: there is none. To list all: go on
	 * from first + count.
	 */
	Status lacks(gfn_t from, Run *out) const;

	/**
	 * digest() - over all.
	 * @state: the device state, state_bytes().
	 * Ok; None: not all has arrived; Corrupt: no hash.
	 */
	Status digest(const void *state, Digest *out);

	/**
	 * check() - is it whole, and what the sender's END says?
	 * @frames, @state_bytes: of END. @state: the device state as it was stored.
	 * @mine: the digest; zero unless all has arrived.
	 *
	 * Fills Event::whole and Event::mine. True only if every frame and all of the device state have arrived,
	 * and the counts are END's. The machine compares the digests.
	 */
	bool check(u64 frames, u64 state_bytes, const void *state, Digest *mine);

private:
	/* More levels have more frames than there can be. */
	static constexpr unsigned max_levels = gfn_bits + 1;

	bool tree_add(const u8 *leaf, u64 i);
	bool tree_root(u64 leaves, u8 *out);

	Sha256 sha_;
	Run slot_[max_slots] = {};
	u64 base_[max_slots] = {}; /* frames in slots before it */
	unsigned slots_ = 0;
	u64 frames_ = 0, have_ = 0;
	u8 *leaf_ = nullptr;
	u64 *bit_ = nullptr;
	bool kept_ = false, zero_known_ = false;
	u8 zero_[digest_bytes] = {};
	u64 state_total_ = 0, state_have_ = 0;
	/* digest() at work: nodes that wait for their right neighbour, one a level; the layout as bytes */
	u8 node_[max_levels][digest_bytes] = {};
	u8 layout_[16 + max_slots * 16] = {};
};

} // namespace redoubt::standby
