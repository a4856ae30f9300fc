// SPDX-License-Identifier: GPL-2.0
/*
 * Private pages of a device, one by one: what stands between it and guest memory. Taken from
 * the driver in chunks when they are wanted, given back when the pool is drained.
 */
#pragma once

#include <redoubt/dma.h>
#include <redoubt/types.h>

namespace redoubt::dma {

class Pool : Pinned {
public:
	using Ref = u16;
	static constexpr Ref none = 0xffff;
	static constexpr u32 chunk_pages = 64, max_chunks = 128; /* 32 MiB */

	struct Page {
		u8 *va;
		u64 iova;
		u64 guest;  /* whose bytes these are, when it holds data */
		u16 off;    /* where in the page they begin */
		u16 len;
		Ref next;   /* of a chain, or of the free ones */
	};

	explicit Pool(void *host) : host_(host)
	{
	}
	/* A page with next == none. none: there are no more just now. Not zeroed. */
	[[nodiscard]] Ref take();
	/* A whole chain, by next. */
	void give(Ref chain);
	[[nodiscard]] Page &operator[](Ref r)
	{
		return chunk_[r / chunk_pages]->page[r % chunk_pages];
	}
	[[nodiscard]] u32 used() const
	{
		return used_;
	}
	/* No page is used: all memory goes back. */
	void drain();

private:
	struct Chunk {
		void *va;
		u64 iova;
		Page page[chunk_pages];
	};
	bool grow();

	void *host_;
	Chunk *chunk_[max_chunks] = {};
	u32 chunks_ = 0, used_ = 0;
	Ref free_ = none;
};

} // namespace redoubt::dma
