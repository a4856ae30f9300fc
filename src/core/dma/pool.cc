// SPDX-License-Identifier: GPL-2.0
#include "pool.h"

namespace redoubt::dma {

bool Pool::grow()
{
	if (chunks_ == max_chunks)
		return false;
	auto *c = static_cast<Chunk *>(rdt_dma_alloc(sizeof(Chunk)));

	if (!c)
		return false;
	c->va = rdt_dma_pages_alloc(host_, chunk_pages, 1, &c->iova);
	if (!c->va) {
		rdt_dma_free(c);
		return false;
	}
	for (u32 i = chunk_pages; i-- > 0;) {
		c->page[i].va = static_cast<u8 *>(c->va) + i * page_size;
		c->page[i].iova = c->iova + i * page_size;
		c->page[i].next = free_;
		free_ = static_cast<Ref>(chunks_ * chunk_pages + i);
	}
	chunk_[chunks_++] = c;
	return true;
}

Pool::Ref Pool::take()
{
	if (free_ == none && !grow())
		return none;
	const Ref r = free_;
	Page &p = (*this)[r];

	free_ = p.next;
	p.next = none;
	used_++;
	return r;
}

void Pool::give(Ref chain)
{
	while (chain != none) {
		Page &p = (*this)[chain];
		const Ref next = p.next;

		p.next = free_;
		free_ = chain;
		used_--;
		chain = next;
	}
}

void Pool::drain()
{
	while (chunks_ != 0) {
		Chunk *c = chunk_[--chunks_];

		rdt_dma_pages_free(host_, c->va, c->iova, chunk_pages);
		rdt_dma_free(c);
		chunk_[chunks_] = nullptr;
	}
	free_ = none;
	used_ = 0;
}

} // namespace redoubt::dma
