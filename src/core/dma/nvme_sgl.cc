// SPDX-License-Identifier: GPL-2.0
/*
 * An NVMe command's data where the guest's SGL says (section 4.4). The device never sees the SGL, whether a migration
 * runs or not: it gets private pages, with the pieces one behind the other. They are gathered there before it
 * has the command, and scattered from there before the guest has the completion.
 */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

u32 Nvme::sgls() const
{
	return le32(ident_ + idc_sgls);
}

/* A data block or bit bucket, behind those before it. */
Nvme::Sc Nvme::add_piece(const Sgl &d, SglWalk &w)
{
	const bool bucket = d.id == sgl_bit_bucket;
	u32 len = d.len;

	if (bucket ? !(sgls() & sgls_bit_bucket) : d.id != sgl_data)
		return sc_sgl_type | sc_dnr;
	if (bucket) {
		/* What the host gives is never thrown away: then it has no length. */
		if (w.dir == Dir::ToDevice)
			return sc_ok;
	} else {
		if ((sgls() & sgls_support) != sgls_bytes && (d.addr % 4 != 0 || len % 4 != 0))
			return sc_sgl_granularity | sc_dnr;
		/* The specification has it so: what goes beyond the address space is a wrong type. */
		if (len != 0 && d.addr + (len - 1) < d.addr)
			return sc_sgl_type | sc_dnr;
		if (len != 0 && mine(d.addr, len))
			return sc_invalid_field | sc_dnr;
	}
	if (len > w.rest) {
		if (!(sgls() & sgls_longer))
			return sc_sgl_length | sc_dnr;
		len = static_cast<u32>(w.rest);
	}
	if (len != 0) {
		piece_[w.pieces++] = {d.addr, len, bucket};
		w.rest -= len;
	}
	return sc_ok;
}

/* What @d leads to, and all behind it, into piece_[]. Each turn takes one descriptor at least, and of those max_sgl. */
Nvme::Sc Nvme::walk_sgl(Sgl d, SglWalk &w)
{
	const auto leads_on = [](const Sgl &x) { return x.id == sgl_segment || x.id == sgl_last_segment; };
	u32 left = max_sgl;

	if (!leads_on(d))
		return add_piece(d, w);
	for (bool more = true; more;) {
		const bool last = d.id == sgl_last_segment;
		u64 at = d.addr;
		u32 n = d.len / static_cast<u32>(sizeof(Sgl));

		more = false;
		if (n == 0 || d.len % sizeof(Sgl) != 0 || at % 8 != 0)
			return sc_sgl_segment | sc_dnr;
		if (at + (d.len - 1) < at)
			return sc_sgl_type | sc_dnr;
		if (mine(at, d.len))
			return sc_invalid_field | sc_dnr;
		if (n > left)
			return sc_sgl_count | sc_dnr;
		left -= n;
		while (n != 0) {
			const u32 get = min_of(n, sgl_chunk), bytes = get * static_cast<u32>(sizeof(Sgl));

			if (rdt_dma_read(host_, at, sgl_, bytes) != 0)
				return sc_transfer_error | sc_dnr;
			at += bytes;
			n -= get;
			for (u32 i = 0; i < get; i++) {
				if (leads_on(sgl_[i])) {
					if (last)
						return sc_sgl_segment | sc_dnr;
					if (n != 0 || i + 1 != get)
						return sc_sgl_count | sc_dnr;
					d = sgl_[i];
					more = true;
				} else if (const Sc sc = add_piece(sgl_[i], w); sc != sc_ok) {
					return sc;
				}
			}
		}
	}
	return sc_ok;
}

/* They are needed until the command has come to its end. */
Nvme::Sc Nvme::keep_pieces(Slot &s, u32 n)
{
	if (n > max_pieces - pieces_)
		return sc_wait;
	s.piece = static_cast<Piece *>(rdt_dma_alloc(n * sizeof(Piece)));
	if (!s.piece)
		return sc_internal;
	__builtin_memcpy(s.piece, piece_, n * sizeof(Piece));
	s.pieces = n;
	pieces_ += n;
	return sc_ok;
}

Nvme::Sc Nvme::map_sgl(Slot &s, Sqe &e, const Sgl &first, const Transfer &t)
{
	SglWalk w = {t.dir, t.bytes, 0};
	Sc sc = walk_sgl(first, w);

	if (sc == sc_ok && w.rest != 0)
		sc = sc_sgl_length | sc_dnr;
	if (sc == sc_ok)
		sc = keep_pieces(s, w.pieces);
	if (sc != sc_ok)
		return sc;

	const u32 pages = pages_of(t.bytes);
	Pool::Ref last = Pool::none;
	u64 data = 0;

	for (u32 i = 0; i < pages; i++) {
		const Pool::Page *const p = add_page(s, last);

		if (!p)
			return sc_wait;
		(i == 0 ? data : prp_[i - 1]) = p->iova;
	}
	sc = set_prps(s, e, data, pages);
	if (sc == sc_ok && t.dir == Dir::ToDevice && !copy_pieces(s, Dir::ToDevice))
		sc = sc_transfer_error | sc_dnr;
	return sc;
}

/* Between the guest's pieces and the private pages. false: a piece is no memory. */
bool Nvme::copy_pieces(const Slot &s, Dir dir)
{
	Pool::Ref r = s.data;
	u32 off = 0; /* in that page */

	for (u32 i = 0; i < s.pieces; i++) {
		const Piece &p = s.piece[i];

		/* The pages have as many bytes as the pieces: map_sgl(). */
		for (u32 done = 0, n = 0; done < p.len; done += n) {
			u8 *const va = pool_[r].va + off;

			n = min_of(p.len - done, static_cast<u32>(page_size) - off);
			if (!p.nowhere && (dir == Dir::ToDevice ? rdt_dma_read(host_, p.guest + done, va, n)
								: rdt_dma_write(host_, p.guest + done, va, n)) != 0)
				return false;
			bounced_ += off == 0;
			off += n;
			if (off == page_size) {
				off = 0;
				r = pool_[r].next;
			}
		}
	}
	return true;
}

} // namespace redoubt::dma
