// SPDX-License-Identifier: GPL-2.0
/* Commands of an NVMe controller's I/O queues: which of them there are and what they transfer. */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

/* Identify, into the model's own page. */
bool Nvme::identify(u8 cns, u32 nsid)
{
	Sqe e = {};

	e.opcode = adm_identify;
	e.nsid = nsid;
	e.prp1 = own_iova_;
	e.cdw10 = cns;
	return exec(e) == sc_ok;
}

/* nullptr: there is no such namespace, or the device does not say. */
const Nvme::Ns *Nvme::ns(u32 nsid)
{
	if (nsid == 0 || nsid > max_ns)
		return nullptr;
	Ns &n = ns_[nsid];

	if (n.nsid == nsid)
		return &n;
	if (!identify(cns_ns, nsid))
		return nullptr;

	const u8 *id = own_page_;
	const u8 *lbaf = lba_format(id);
	const u8 pi = id[idn_dps] & 7;

	/* All zero for one that is not active. LBADS below 9 is reserved, and above 16 nobody has it. */
	if (lbaf[2] < 9 || lbaf[2] > 16)
		return nullptr;
	n.lba_shift = lbaf[2];
	n.meta = static_cast<u16>(lbaf[0] | lbaf[1] << 8);
	n.extended = n.meta && (id[idn_flbas] & 16);
	n.pi = pi && n.meta == 8;
	n.nsid = nsid;
	return &n;
}

Nvme::Sc Nvme::describe_rw(const Sqe &e, Dir dir, Transfer &t)
{
	const Ns *n = ns(e.nsid);

	if (!n)
		return sc_invalid_ns | sc_dnr;
	const u64 blocks = (e.cdw12 & 0xffff) + 1;
	/* PRACT: the device makes the protection information, nobody transfers it. */
	const u64 meta = n->pi && (e.cdw12 & 1u << 29) ? 0 : n->meta * blocks;

	t.dir = dir;
	t.bytes = (blocks << n->lba_shift) + (n->extended ? meta : 0);
	t.meta = n->extended ? 0 : meta;
	return sc_ok;
}

Nvme::Sc Nvme::io(u16 qid, Sqe &e)
{
	Transfer t;
	Sc sc = sc_ok;

	/* Of fused commands the guest was told that there are none; of SGLs, if the device has none. */
	if (e.flags != 0 && (e.flags != sqe_sgl || !(sgls() & sgls_support)))
		return sc_invalid_field | sc_dnr;
	switch (e.opcode) {
	case nvm_flush:
	case nvm_write_uncorrectable:
	case nvm_write_zeroes:
	case nvm_verify:
		break;
	case nvm_write:
	case nvm_compare:
		sc = describe_rw(e, Dir::ToDevice, t);
		break;
	case nvm_read:
		sc = describe_rw(e, Dir::FromDevice, t);
		t.shows = info_.shows;
		break;
	case nvm_dsm:
		t = {Dir::ToDevice, ((e.cdw10 & 0xff) + 1) * u64{16}, 0};
		break;
	case nvm_copy:
		t = {Dir::ToDevice, ((e.cdw12 & 0xff) + 1) * u64{32}, 0};
		break;
	default:
		return sc_invalid_opcode | sc_dnr;
	}
	return sc != sc_ok ? sc : forward(qid, e, t, armed_);
}

} // namespace redoubt::dma
