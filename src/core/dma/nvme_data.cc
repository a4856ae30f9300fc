// SPDX-License-Identifier: GPL-2.0
/*
 * Where an NVMe command's data are. The guest's PRPs are copied and checked, and the device gets either
 * the checked copy, or private pages in place of the guest's: then data are copied, to the device before
 * it has the command, back before the guest has the completion.
 */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

/* The @n pages behind the first into prp_[]. */
Nvme::Sc Nvme::guest_prps(u64 prp2, u32 n)
{
	if (n == 1) {
		prp_[0] = prp2;
	} else {
		u32 have = 0;
		u64 at = prp2;

		/* Each turn of a list takes one page of it; the last entry of a full page is the next list. */
		while (have < n) {
			if (at % 8 != 0)
				return sc_invalid_prp_offset | sc_dnr;
			const u32 room = static_cast<u32>((page_size - at % page_size) / 8);
			const u32 want = n - have, get = min_of(room, want);

			if (mine(at, get * 8ull))
				return sc_invalid_field | sc_dnr;
			if (rdt_dma_read(host_, at, prp_ + have, get * 8) != 0)
				return sc_transfer_error | sc_dnr;
			if (want <= room) {
				have += get;
			} else {
				have += get - 1;
				at = prp_[have];
				/* A list of one entry that only leads on would be a loop without an end. */
				if (at % page_size != 0)
					return sc_invalid_prp_offset | sc_dnr;
			}
		}
	}
	for (u32 i = 0; i < n; i++) {
		if (prp_[i] % page_size != 0)
			return sc_invalid_prp_offset | sc_dnr;
		if (mine(prp_[i], page_size))
			return sc_invalid_field | sc_dnr;
	}
	return sc_ok;
}

Nvme::Sc Nvme::map(Slot &s, Sqe &e, const Transfer &t, bool bounce)
{
	const u64 dptr[] = {e.prp1, e.prp2}, mptr = e.mptr;
	const bool sgl = e.flags == sqe_sgl;
	const u32 meta_align = sgl && (sgls() & sgls_byte_meta) ? 1 : 4;

	/* What the command does not transfer it has no address for; and the device gets PRPs. */
	e.prp1 = e.prp2 = e.mptr = 0;
	e.flags = 0;
	if (t.dir == Dir::None)
		return sc_ok;
	if (t.bytes > max_bytes || t.meta > max_bytes || mptr % meta_align != 0)
		return sc_invalid_field | sc_dnr;
	if (t.meta != 0 && mine(mptr, t.meta))
		return sc_invalid_field | sc_dnr;

	Sc sc = sc_ok;

	if (sgl) {
		Sgl d;

		__builtin_memcpy(&d, dptr, sizeof(d));
		sc = map_sgl(s, e, d, t);
	} else {
		sc = map_prps(s, e, dptr[0], dptr[1], t, bounce);
	}
	if (sc == sc_ok && t.meta != 0)
		sc = map_meta(s, e, mptr, t, bounce || sgl);
	return sc;
}

Nvme::Sc Nvme::map_prps(Slot &s, Sqe &e, u64 first, u64 prp2, const Transfer &t, bool bounce)
{
	const u64 off = first % page_size;
	const u32 pages = pages_of(off + t.bytes);
	Sc sc = sc_ok;

	if (first % 4 != 0 || mine(first, min_of(t.bytes, page_size - off)))
		return sc_invalid_field | sc_dnr;
	if (pages > 1)
		sc = guest_prps(prp2, pages - 1);
	if (sc != sc_ok)
		return sc;
	if (!bounce)
		return set_prps(s, e, first, pages);
	if (t.shows && t.bytes == pages * page_size) {
		/* Before anything is shown: a command that waits for its list is tried again and again. */
		sc = set_prps(s, e, first, pages);
		if (sc != sc_ok || show(s, first, pages))
			return sc;
		pool_.give(s.list);
		s.list = Pool::none;
		e.prp1 = e.prp2 = 0;
	}
	return map_copy(s, e, first, pages, t);
}

/*
 * E1's other assignment, if the driver has it: the device's buffer is the guest's memory, the CPUs' the copy. Only for whole pages
 * that the device writes: nobody else's data are in them, so nothing need be merged, and a VMM, which has no view
 * of its own, does not read what the guest does not either. false: not for this command; nothing is shown then.
 */
bool Nvme::show(Slot &s, u64 first, u32 pages)
{
	/* No more memory than the copies of the other kind may take. */
	if (showing_ + pages > Pool::chunk_pages * Pool::max_chunks)
		return false;
	s.shown = static_cast<u64 *>(rdt_dma_alloc(pages * sizeof(u64)));
	if (!s.shown)
		return false;
	s.hidden = false;
	for (u32 i = 0; i < pages; i++) {
		const u64 guest = i == 0 ? first : prp_[i - 1];

		if (rdt_dma_show(host_, guest) != 0) {
			end_show(s, false);
			return false;
		}
		s.shown[s.shows++] = guest;
		showing_++;
	}
	shown_ += pages;
	return true;
}

/*
 * The device writes to them no more, for whatever reason; @touch: it has, and they are the device's still. false: they are
 * no memory any more.
 */
bool Nvme::end_show(Slot &s, bool touch)
{
	bool ok = true;

	for (u32 i = 0; i < s.shows; i++) {
		/* Dirty before the guest sees it. */
		if (touch)
			ok &= rdt_dma_touch(host_, s.shown[i]) == 0;
		if (!s.hidden)
			rdt_dma_hide(host_, s.shown[i]);
	}
	rdt_dma_free(s.shown);
	s.shown = nullptr;
	showing_ -= s.shows;
	s.shows = 0;
	return ok;
}

/* The guest has its device stopped in a way that no command's end comes of: its memory is its own again. */
void Nvme::unshow()
{
	for (const Sq &q : sq_) {
		for (u32 i = 0; q.pair.slot && i < q.pair.depth; i++) {
			Slot &s = q.pair.slot[i];

			for (u32 page = 0; page < s.shows && !s.hidden; page++) {
				rdt_dma_touch(host_, s.shown[page]);
				rdt_dma_hide(host_, s.shown[page]);
			}
			s.hidden = s.shows != 0;
		}
	}
}

/* prp_[] is the pages behind the first, checked. The device gets them as it would from the guest. */
Nvme::Sc Nvme::set_prps(Slot &s, Sqe &e, u64 first, u32 pages)
{
	e.prp1 = first;
	if (pages == 2) {
		e.prp2 = prp_[0];
	} else if (pages > 2) {
		s.list = pool_.take();
		if (s.list == Pool::none)
			return sc_wait;
		/* At most 256: one page holds them all. */
		__builtin_memcpy(pool_[s.list].va, prp_, (pages - 1) * sizeof(prp_[0]));
		e.prp2 = pool_[s.list].iova;
	}
	return sc_ok;
}

/* One more private page for a command's data. nullptr: there is none just now. */
Pool::Page *Nvme::add_page(Slot &s, Pool::Ref &last)
{
	const Pool::Ref r = pool_.take();

	if (r == Pool::none)
		return nullptr;
	if (last == Pool::none)
		s.data = r;
	else
		pool_[last].next = r;
	last = r;
	return &pool_[r];
}

/* A private page for each of the guest's, with the data at the same offset. */
Nvme::Sc Nvme::map_copy(Slot &s, Sqe &e, u64 first, u32 pages, const Transfer &t)
{
	Pool::Ref last = Pool::none;
	u64 rest = t.bytes;

	for (u32 i = 0; i < pages; i++) {
		Pool::Page *const page = add_page(s, last);

		if (!page)
			return sc_wait;
		Pool::Page &p = *page;
		const u64 guest = i == 0 ? first : prp_[i - 1];

		p.guest = guest;
		p.off = static_cast<u16>(guest % page_size);
		p.len = static_cast<u16>(min_of(rest, page_size - p.off));
		rest -= p.len;
		if (t.dir == Dir::ToDevice) {
			if (rdt_dma_read(host_, guest, p.va + p.off, p.len) != 0)
				return sc_transfer_error | sc_dnr;
			bounced_++;
		}
		if (i == 0)
			first = p.iova + p.off;
		else
			prp_[i - 1] = p.iova;
	}
	return set_prps(s, e, first, pages);
}

/* Metadata of their own: one range for the device, of any length. */
Nvme::Sc Nvme::map_meta(Slot &s, Sqe &e, u64 mptr, const Transfer &t, bool bounce)
{
	e.mptr = mptr;
	if (!bounce)
		return sc_ok;

	auto *m = static_cast<Meta *>(rdt_dma_alloc(sizeof(Meta)));

	if (!m)
		return sc_internal;
	s.meta = m;
	m->guest = mptr;
	m->len = static_cast<u32>(t.meta);
	m->pages = pages_of(t.meta);
	m->va = static_cast<u8 *>(rdt_dma_pages_alloc(host_, m->pages, 1, &m->iova));
	if (!m->va)
		return sc_internal;
	if (t.dir == Dir::ToDevice && rdt_dma_read(host_, mptr, m->va, m->len) != 0)
		return sc_transfer_error | sc_dnr;
	e.mptr = m->iova;
	return sc_ok;
}

/* What the device has written, if it wrote to private pages. false: the guest's are no memory. */
bool Nvme::copy_back(const Slot &s)
{
	if (s.piece && !copy_pieces(s, Dir::FromDevice))
		return false;
	for (Pool::Ref r = s.piece ? Pool::none : s.data; r != Pool::none; r = pool_[r].next) {
		const Pool::Page &p = pool_[r];

		if (rdt_dma_write(host_, p.guest, p.va + p.off, p.len) != 0)
			return false;
		bounced_++;
	}
	return !s.meta || rdt_dma_write(host_, s.meta->guest, s.meta->va, s.meta->len) == 0;
}

/* All that a command has of private memory; the guest's CPUs have theirs again. */
void Nvme::free_data(Slot &s)
{
	/* What the guest has again may be anything of its by now. */
	end_show(s, !s.hidden);
	pool_.give(s.list);
	pool_.give(s.data);
	s.list = s.data = Pool::none;
	rdt_dma_free(s.piece);
	pieces_ -= s.pieces;
	s.piece = nullptr;
	s.pieces = 0;
	if (s.meta) {
		if (s.meta->va)
			rdt_dma_pages_free(host_, s.meta->va, s.meta->iova, s.meta->pages);
		rdt_dma_free(s.meta);
		s.meta = nullptr;
	}
}

} // namespace redoubt::dma
