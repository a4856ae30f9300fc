// SPDX-License-Identifier: GPL-2.0
/*
 * An NVMe controller's admin commands. A command that is not known here does not reach the device: it may
 * carry state that could not be carried on. What is hidden from the guest, and why: Documentation/migration.md.
 */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

namespace {

void clear(u8 *p, u32 from, u32 bytes)
{
	__builtin_memset(p + from, 0, bytes);
}

} // namespace

bool Nvme::known_feature(u32 fid)
{
	switch (fid) {
	case feat_arbitration:
	case feat_power:
	case feat_temperature:
	case feat_error_recovery:
	case feat_write_cache:
	case feat_queues:
	case feat_coalescing:
	case feat_vector_config:
	case feat_atomicity:
	case feat_async_events:
	case feat_thermal:
	case feat_nops:
		return true;
	default:
		return false;
	}
}

/*
 * Identify Controller as the guest sees it: without what cannot be carried on, and what needs commands
 * that are not known here.
 */
void Nvme::hide(u8 *id) const
{
	if (id[idc_mdts] == 0 || id[idc_mdts] > mdts_pages_log2)
		id[idc_mdts] = mdts_pages_log2;
	id[idc_cmic] &= 7;		    /* no asymmetric access */
	id[idc_oaes] = 0;
	id[idc_oaes + 1] &= 1;		    /* of the notices that of changed namespaces */
	clear(id, idc_oaes + 2, 2);
	clear(id, idc_ctratt, 4);
	clear(id, idc_crdt, 6);
	clear(id, idc_oacs, 2);		    /* format, firmware, namespaces... */
	id[idc_oacs + 1] = 1;		    /* but doorbell buffers, which are the model's own */
	if (id[idc_aerl] >= max_aers)
		id[idc_aerl] = max_aers - 1;
	id[idc_lpa] &= 7;		    /* no telemetry */
	id[idc_apsta] = 0;
	clear(id, idc_hmpre, 8);	    /* host memory buffer */
	clear(id, idc_edstt, 4);	    /* self-test */
	clear(id, idc_kas, 2);
	clear(id, idc_sanicap, 4);
	clear(id, idc_anacap, 1);
	id[idc_sqes] = 0x66;
	id[idc_cqes] = 0x44;
	id[idc_oncs] &= 0x8f;		    /* no saved features, reservations, timestamp */
	id[idc_oncs + 1] &= 1;
	clear(id, idc_fuses, 2);

	/* Direct queues' SGLs are the device's to walk, others' the model's: what both can. */
	u32 sgls = le32(id + idc_sgls);
	const u32 support = sgls & sgls_support;

	sgls &= sgls_support | sgls_bit_bucket | sgls_byte_meta | sgls_longer;
	if (support != sgls_bytes && support != sgls_dwords)
		sgls = sgls_none;
	__builtin_memcpy(id + idc_sgls, &sgls, sizeof(sgls));
}

Nvme::Sc Nvme::admin(Sqe &e)
{
	if (e.flags != 0)
		return sc_invalid_field | sc_dnr;
	switch (e.opcode) {
	case adm_delete_sq:
		return admin_delete_sq(e.cid, e.cdw10 & 0xffff);
	case adm_create_sq:
		return admin_create_sq(e);
	case adm_delete_cq:
		return admin_delete_cq(e.cid, e.cdw10 & 0xffff);
	case adm_create_cq:
		return admin_create_cq(e);
	case adm_identify:
		return admin_identify(e);
	case adm_get_log: {
		const u8 page = e.cdw10 & 0xff;
		const u64 dwords = (e.cdw10 >> 16 | static_cast<u64>(e.cdw11 & 0xffff) << 16) + 1;

		/* errors, health, firmware slots, changed namespaces, effects */
		if (page == 0 || page > 5)
			return sc_invalid_log | sc_dnr;
		return forward(0, e, {Dir::FromDevice, dwords * 4, 0}, true);
	}
	case adm_abort:
		/* "Not aborted": the command will come to its end as every other. */
		post(0, 0, e.cid, sc_ok, 1);
		return sc_ok;
	case adm_set_features:
	case adm_get_features:
		return admin_features(e);
	case adm_async_event:
		return admin_aer(e.cid);
	case adm_dbbuf:
		return admin_dbbuf(e);
	default:
		refuse("the guest sends an admin command that it was told there is not: opcode", e.opcode);
		return sc_invalid_opcode | sc_dnr;
	}
}

Nvme::Sc Nvme::admin_identify(Sqe &e)
{
	switch (e.cdw10 & 0xff) {
	case cns_ctrl: /* the answer is exchanged in admin_done() */
	case cns_ns:
	case cns_active_ns:
	case cns_ns_desc:
		return forward(0, e, {Dir::FromDevice, page_size, 0}, true);
	default:
		return sc_invalid_field | sc_dnr;
	}
}

Nvme::Sc Nvme::admin_features(Sqe &e)
{
	const u8 fid = e.cdw10 & 0xff;

	if (!known_feature(fid))
		return sc_invalid_field | sc_dnr;
	if (e.opcode == adm_get_features)
		return forward(0, e, {}, true);
	if (e.cdw10 >> 31)
		return sc_not_saveable | sc_dnr;
	if (fid == feat_queues) {
		/* Asked for again after queues were made it is an error; and no more than there is room for. */
		if ((e.cdw11 & 0xffff) == 0xffff || e.cdw11 >> 16 == 0xffff)
			return sc_invalid_field | sc_dnr;
		const u32 nsq = min_of(e.cdw11 & 0xffff, max_io_0based), ncq = min_of(e.cdw11 >> 16, max_io_0based);

		/* Each of the guest's submission queues needs a completion queue of the device's. */
		e.cdw11 = nsq | max_of(nsq, ncq) << 16;
	}
	return forward(0, e, {}, true);
}

/* The set that a feature's value belongs to: values of one set replace each other. */
void Nvme::keep_feature(const Slot &s)
{
	const u8 fid = s.cdw10 & 0xff;
	u32 mask = 0; /* what of CDW11 says which value it is */

	if (fid == feat_temperature)
		mask = 0x3f0000;
	else if (fid == feat_vector_config)
		mask = 0xffff;
	for (u32 i = 0; i < features_; i++) {
		FeatureSet &f = feature_[i];

		if (f.fid == fid && f.nsid == s.nsid && (f.cdw11 & mask) == (s.cdw11 & mask)) {
			f.cdw11 = s.cdw11;
			return;
		}
	}
	if (features_ == max_features) {
		features_lost_ = true;
		return;
	}
	feature_[features_++] = {fid, s.nsid, s.cdw11};
}

/* An admin command has come to its end; its data are still private. */
void Nvme::admin_done(Slot &s, Cqe &c)
{
	if ((c.status & 0x7ff) != sc_ok)
		return;
	const u8 low = s.cdw10 & 0xff;

	if (s.opcode == adm_identify && low == cns_ctrl) {
		/* What the guest was told first it is told again, on whichever device it is. */
		u32 done = 0;

		for (Pool::Ref r = s.data; r != Pool::none && done < page_size; r = pool_[r].next) {
			const Pool::Page &p = pool_[r];

			__builtin_memcpy(p.va + p.off, ident_ + done, p.len);
			done += p.len;
		}
	} else if ((s.opcode == adm_set_features || s.opcode == adm_get_features) && low == feat_queues) {
		const u32 ncq = min_of(c.dw0 >> 16, max_io_0based);
		const u32 nsq = min_of(c.dw0 & 0xffff, ncq);

		if (s.opcode == adm_set_features) {
			nsq_ = nsq + 1;
			ncq_ = ncq + 1;
		}
		c.dw0 = nsq | ncq << 16;
	}
	if (s.opcode == adm_set_features)
		keep_feature(s);
}

/* Where the guest wants a queue to be. */
Nvme::Sc Nvme::check_ring(const Sqe &e, u64 bytes) const
{
	if (!(e.cdw11 & 1)) /* in pieces */
		return sc_invalid_field | sc_dnr;
	if (e.prp1 % page_size != 0)
		return sc_invalid_prp_offset | sc_dnr;
	return mine(e.prp1, bytes) ? sc_invalid_field | sc_dnr : sc_ok;
}

Nvme::Sc Nvme::admin_create_cq(const Sqe &e)
{
	const u32 qid = e.cdw10 & 0xffff, size = (e.cdw10 >> 16) + 1, vector = e.cdw11 >> 16;

	if (qid == 0 || qid > ncq_ || cq_[qid].live)
		return sc_invalid_qid | sc_dnr;
	if (size < 2 || size > cap_mqes(cap_) + 1)
		return sc_invalid_qsize | sc_dnr;
	if (vector >= info_.vectors)
		return sc_invalid_vector | sc_dnr;
	if (const Sc sc = check_ring(e, size * sizeof(Cqe)); sc != sc_ok)
		return sc;
	have_queue(qid);
	cq_[qid] = {.live = true,
		    .ien = !!(e.cdw11 & 2),
		    .vector = static_cast<u16>(vector),
		    .size = size,
		    .base = e.prp1};
	want_ring(static_cast<u16>(qid), true, 0);
	post(0, 0, e.cid, sc_ok);
	return sc_ok;
}

/* A completion and a submission queue of one number. On failure there are neither. */
Nvme::Sc Nvme::create_queues(u16 qid, u64 cq_base, u32 cq_size, u32 cq_flags, u64 sq_base, u32 sq_size)
{
	Sqe cq = {}, sq = {};

	cq.opcode = adm_create_cq;
	cq.prp1 = cq_base;
	cq.cdw10 = qid | (cq_size - 1) << 16;
	cq.cdw11 = cq_flags;
	sq.opcode = adm_create_sq;
	sq.prp1 = sq_base;
	sq.cdw10 = qid | (sq_size - 1) << 16;
	sq.cdw11 = 1u | static_cast<u32>(qid) << 16;

	Sc sc = exec(cq);

	if (sc == sc_ok) {
		sc = exec(sq);
		if (sc != sc_ok) {
			cq = {};
			cq.opcode = adm_delete_cq;
			cq.cdw10 = qid;
			/* If that fails the device may still have the ring: it must not be given back. */
			if (exec(cq) != sc_ok)
				fail("the device keeps a completion queue: queue", qid);
		}
	}
	return sc;
}

/* The device has finished or dropped all that was in them when it says so. */
bool Nvme::delete_queues(u16 qid)
{
	constexpr u8 ops[] = {adm_delete_sq, adm_delete_cq};

	for (const u8 op : ops) {
		Sqe e = {};

		e.opcode = op;
		e.cdw10 = qid;
		if (exec(e) != sc_ok) {
			fail("the device keeps a queue: queue", qid);
			return false;
		}
		reap(qid);
	}
	return true;
}

u32 Nvme::pair_depth(const Sq &q) const
{
	return min_of(min_of(q.size, max_depth), cap_mqes(dev_cap_) + 1);
}

Nvme::Sc Nvme::attach_pair(u16 qid)
{
	Pair &p = sq_[qid].pair;
	const Sc sc = create_queues(qid, p.cq_iova, p.depth, 3 | (qid % info_.irqs) << 16, p.sq_iova, p.depth);

	if (sc != sc_ok && !failed_)
		free_pair(p);
	return sc;
}

Nvme::Sc Nvme::device_queues(u16 qid)
{
	return make_pair(sq_[qid].pair, pair_depth(sq_[qid])) ? attach_pair(qid) : static_cast<Sc>(sc_internal);
}

Nvme::Sc Nvme::admin_create_sq(const Sqe &e)
{
	const u32 qid = e.cdw10 & 0xffff, size = (e.cdw10 >> 16) + 1, cqid = e.cdw11 >> 16;

	if (qid == 0 || qid > nsq_ || sq_[qid].live)
		return sc_invalid_qid | sc_dnr;
	if (cqid == 0 || cqid > ncq_ || !cq_[cqid].live)
		return sc_cq_invalid | sc_dnr;
	if (size < 2 || size > cap_mqes(cap_) + 1)
		return sc_invalid_qsize | sc_dnr;
	if (const Sc bad = check_ring(e, size * sizeof(Sqe)); bad != sc_ok)
		return bad;

	if (cq_[cqid].direct && !take_back(static_cast<u16>(cqid)))
		return sc_internal;

	Sq &q = sq_[qid];

	have_queue(qid);
	q = {.cqid = static_cast<u16>(cqid), .size = size, .base = e.prp1};
	Sc sc = may_be_direct(static_cast<u16>(qid)) ? direct_queues(static_cast<u16>(qid)) : static_cast<Sc>(sc_internal);

	/* The device may want them otherwise than the guest has them. */
	if (sc != sc_ok && !failed_)
		sc = device_queues(static_cast<u16>(qid));
	if (sc != sc_ok)
		return sc;
	q.live = true;
	cq_[cqid].users++;
	route();
	want_ring(static_cast<u16>(qid), false, 0);
	post(0, 0, e.cid, sc_ok);
	return sc_ok;
}

Nvme::Sc Nvme::admin_delete_sq(u16 cid, u16 qid)
{
	if (qid == 0 || qid >= max_queues || !sq_[qid].live)
		return sc_invalid_qid | sc_dnr;

	Sq &q = sq_[qid];
	Cq &cq = cq_[q.cqid];

	q.live = false; /* nothing more is taken */
	if (!delete_queues(qid))
		return sc_internal;
	if (q.direct)
		settle(cq);
	for (u32 i = 0; i < q.pair.depth; i++) {
		if (q.pair.slot[i].kind == Kind::Guest) {
			cq.owed--;
			inflight_--;
		}
	}
	free_pair(q.pair);
	cq.users--;
	q = {};
	route();
	post(0, 0, cid, sc_ok);
	return sc_ok;
}

Nvme::Sc Nvme::admin_delete_cq(u16 cid, u16 qid)
{
	if (qid == 0 || qid >= max_queues || !cq_[qid].live)
		return sc_invalid_qid | sc_dnr;
	if (cq_[qid].users != 0)
		return sc_invalid_delete | sc_dnr;
	cq_[qid] = {};
	post(0, 0, cid, sc_ok);
	return sc_ok;
}

/* ---- asynchronous events: the device has one request for each that the guest has ---- */

bool Nvme::forward_aer(u16 cid)
{
	Slot *s = slot_for(0, own_slots);
	Sqe e = {};

	if (!s)
		return false;
	s->kind = Kind::Aer;
	s->cid = cid;
	e.opcode = adm_async_event;
	place(0, *s, e);
	return true;
}

Nvme::Sc Nvme::admin_aer(u16 cid)
{
	if (aers_ > ident_[idc_aerl] || aers_ == max_aers)
		return sc_too_many_aers | sc_dnr;
	if (!forward_aer(cid))
		return sc_wait;
	aer_[aers_++] = {cid, 0, 0, false};
	return sc_ok;
}

/* Events that have come, as far as the guest has room for them. They are owed no room: they may never come. */
void Nvme::flush_aers()
{
	u32 kept = 0;

	if (!running_)
		return;
	for (u32 i = 0; i < aers_; i++) {
		const Aer a = aer_[i];

		if (a.done && enabled_ && !failed_ && cq_[0].room())
			post(0, 0, a.cid, a.status, a.dw0);
		else
			aer_[kept++] = a;
	}
	aers_ = kept;
}

} // namespace redoubt::dma
