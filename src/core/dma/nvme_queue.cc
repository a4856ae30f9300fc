// SPDX-License-Identifier: GPL-2.0
/* An NVMe controller's rings: the guest's on one side, the device's on the other. */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

bool Nvme::make_pair(Pair &p, u32 depth)
{
	p = {};
	p.depth = depth;
	p.slot = static_cast<Slot *>(rdt_dma_alloc(depth * sizeof(Slot)));
	p.sqe = static_cast<Sqe *>(rdt_dma_pages_alloc(host_, pages_of(depth * sizeof(Sqe)), 0, &p.sq_iova));
	p.cqe = static_cast<Cqe *>(rdt_dma_pages_alloc(host_, pages_of(depth * sizeof(Cqe)), 1, &p.cq_iova));
	for (u32 i = 0; p.slot && i < depth; i++) {
		p.slot[i].next = static_cast<u16>(i + 1);
		p.slot[i].list = p.slot[i].data = Pool::none;
	}
	if (p.slot && p.sqe && p.cqe)
		return true;
	free_pair(p);
	return false;
}

void Nvme::free_pair(Pair &p)
{
	for (u32 i = 0; p.slot && i < p.depth; i++)
		free_data(p.slot[i]);
	rdt_dma_free(p.slot);
	if (p.sqe)
		rdt_dma_pages_free(host_, p.sqe, p.sq_iova, pages_of(p.depth * sizeof(Sqe)));
	if (p.cqe)
		rdt_dma_pages_free(host_, p.cqe, p.cq_iova, pages_of(p.depth * sizeof(Cqe)));
	p = {};
}

/* A free slot, if more than @keep are. The device's ring has room then, too: it has depth entries. */
Nvme::Slot *Nvme::slot_for(u16 qid, u32 keep)
{
	Pair &p = sq_[qid].pair;

	if (!p.slot || p.used + keep + 1 >= p.depth)
		return nullptr;
	Slot &s = p.slot[p.free];

	p.free = s.next;
	p.used++;
	s.kind = Kind::Own;
	s.dir = Dir::None;
	return &s;
}

void Nvme::release(Pair &p, Slot &s)
{
	free_data(s);
	s.kind = Kind::Free;
	s.next = p.free;
	p.free = static_cast<u16>(&s - p.slot);
	p.used--;
}

void Nvme::place(u16 qid, Slot &s, const Sqe &e)
{
	Pair &p = sq_[qid].pair;
	Sqe &to = p.sqe[p.tail];

	to = e;
	to.cid = static_cast<u16>(&s - p.slot);
	p.tail = static_cast<u16>((p.tail + 1) % p.depth);
}

u32 Nvme::doorbell_reg(u16 qid, bool completion) const
{
	return reg_doorbells + (2u * qid + completion) * (4u << cap_dstrd(dev_cap_));
}

void Nvme::ring(u16 qid)
{
	/* The entries are in memory before the device is told. The MMIO write is ordered behind them. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	rdt_dma_reg_write(host_, doorbell_reg(qid, false), sq_[qid].pair.tail);
}

void Nvme::doorbell(u32 index, u32 value)
{
	const u16 qid = static_cast<u16>(index / 2);

	if (!enabled_ || failed_ || shut_)
		return;
	if (index % 2 == 0) {
		Sq &q = sq_[qid];

		if (!q.live || value >= q.size) {
			refuse("a tail that the guest's submission queue does not have: queue, tail", qid, value);
			return;
		}
		q.tail = static_cast<u16>(value);
		want_ring(qid, false, q.tail);
		/* An admin command may have made another queue the model's. */
		if (qid == 0)
			take_all();
		else
			take(qid);
	} else {
		const bool full = cq_[qid].live && !cq_[qid].room();

		if (!head_moved(qid, value)) {
			refuse("a head that the guest's completion queue does not have: queue, head", qid, value);
			return;
		}
		/* Only who has been waiting for room has anything to do now. */
		if (cq_[qid].direct)
			take(qid);
		else if (full)
			take_all();
		if (qid == 0) /* rung each time, as the spec's words allow a guest to use a shadow for it */
			want_ring(0, true, static_cast<u16>(value));
	}
	flush();
}

void Nvme::take_all()
{
	if (!enabled_ || !running_ || shut_)
		return;
	flush_aers();
	for (u32 i = 0; i < queues_; i++)
		take(static_cast<u16>(i));
}

/* What the guest has put into a queue, as far as there is room for it. */
void Nvme::take(u16 qid)
{
	Sq &q = sq_[qid];
	const u16 before = q.pair.tail;
	bool wait = false;

	if (q.direct) {
		if (q.live && running_ && !failed_ && q.head != q.tail)
			pass_on(qid);
		return;
	}
	while (q.live && running_ && !failed_ && !wait && q.head != q.tail) {
		const u32 n = min_of((q.tail > q.head ? q.tail : q.size) - q.head, fetch_max);

		if (rdt_dma_read(host_, q.base + q.head * sizeof(Sqe), fetch_, n * static_cast<u32>(sizeof(Sqe))) != 0) {
			fail("the guest's submission queue is not in its memory: queue, address", qid, q.base);
			break;
		}
		for (u32 i = 0; i < n && !failed_; i++) {
			if (!has_room(q.cqid)) {
				wait = true;
				break;
			}
			Sqe &e = fetch_[i];
			const u16 cid = e.cid;
			const u16 head = q.head;

			/* As the device does: the entry is the guest's again once it is fetched. */
			q.head = static_cast<u16>((q.head + 1) % q.size);
			const Sc sc = qid == 0 ? admin(e) : io(qid, e);

			if (sc == sc_wait) {
				q.head = head;
				wait = true;
				break;
			}
			commands_++;
			if (sc != sc_ok) {
				refused_++;
				post(q.cqid, qid, cid, sc);
			}
		}
	}
	if (q.pair.sqe && q.pair.tail != before)
		ring(qid);
}

/*
 * Hands a command to the device. sc_ok: it has it, and the entry in the guest's CQ is owed. Else nothing
 * has happened.
 */
Nvme::Sc Nvme::forward(u16 qid, Sqe &e, const Transfer &t, bool bounce)
{
	Slot *s = slot_for(qid, qid == 0 ? own_slots + max_aers : 0);

	if (!s)
		return sc_wait;
	s->kind = Kind::Guest;
	s->dir = t.dir;
	s->opcode = e.opcode;
	s->cid = e.cid;
	s->nsid = e.nsid;
	s->cdw10 = e.cdw10;
	s->cdw11 = e.cdw11;
	if (const Sc sc = map(*s, e, t, bounce); sc != sc_ok) {
		release(sq_[qid].pair, *s);
		/* Nothing is under way that could give pages back: to wait for them would be for ever. */
		return sc == sc_wait && inflight_ == 0 ? static_cast<Sc>(sc_internal) : sc;
	}
	cq_[sq_[qid].cqid].owed++;
	inflight_++;
	place(qid, *s, e);
	return sc_ok;
}

/* What the device has finished in a queue. */
void Nvme::reap(u16 qid)
{
	Pair &p = sq_[qid].pair;
	u32 n = 0;

	for (; p.cqe && !shut_ && n < p.depth; n++) {
		const Cqe &at = p.cqe[p.head];

		/* The phase is written last; pairs with the device's own order of writes. */
		if ((load_acquire(at.status) & 1) != p.phase)
			break;
		const Cqe c = at;

		p.head = static_cast<u16>((p.head + 1) % p.depth);
		if (p.head == 0)
			p.phase ^= 1;
		complete(qid, c);
	}
	if (n != 0)
		rdt_dma_reg_write(host_, doorbell_reg(qid, true), p.head);
}

void Nvme::reap_all()
{
	for (u32 i = 0; i < queues_; i++)
		reap(static_cast<u16>(i));
}

void Nvme::complete(u16 qid, const Cqe &c)
{
	Pair &p = sq_[qid].pair;

	if (c.cid >= p.depth || p.slot[c.cid].kind == Kind::Free) {
		fail("the device finishes what it was not given: queue, command", qid, c.cid);
		return;
	}
	Slot &s = p.slot[c.cid];
	Cqe answer = c;

	answer.status = c.status >> 1;
	switch (s.kind) {
	case Kind::Own:
		own_done_ = true;
		own_status_ = answer.status;
		own_dw0_ = c.dw0;
		break;
	case Kind::Aer:
		for (u32 i = 0; i < aers_; i++) {
			if (aer_[i].cid == s.cid && !aer_[i].done) {
				aer_[i] = {s.cid, answer.status, c.dw0, true};
				break;
			}
		}
		/* It may be about a namespace: all that is known of them is asked for again. */
		for (Ns &n : ns_)
			n = {};
		flush_aers();
		break;
	default:
		if (qid == 0)
			admin_done(s, answer);
		/* A failed one may have come to the guest's own pages in part. */
		if (const bool there = end_show(s, true); s.dir == Dir::FromDevice && (answer.status & 0x7ff) == sc_ok && !(there && copy_back(s))) {
			refuse("data for an address that is not in the guest's memory: queue, command", qid, s.cid);
			answer.status = sc_transfer_error | sc_dnr;
		}
		inflight_--;
		cq_[sq_[qid].cqid].owed--;
		post(sq_[qid].cqid, qid, s.cid, answer.status, answer.dw0);
		break;
	}
	release(p, s);
}

/* There is room: the command was not taken otherwise. */
void Nvme::post(u16 cqid, u16 sqid, u16 cid, Sc status, u32 dw0)
{
	Cq &q = cq_[cqid];
	const Cqe e = {dw0, 0, sq_[sqid].head, sqid, cid, static_cast<u16>(status << 1 | !q.phase)};
	const u64 at = q.base + q.tail * sizeof(Cqe);
	const u8 last = static_cast<u8>(status << 1 | q.phase);

	/* A guest that polls takes the entry by the phase bit: that byte goes last, and alone. */
	if (rdt_dma_write(host_, at, &e, sizeof(e)) != 0 ||
	    rdt_dma_write(host_, at + __builtin_offsetof(Cqe, status), &last, 1) != 0) {
		fail("the guest's completion queue is not in its memory: queue, address", cqid, q.base);
		return;
	}
	q.tail = static_cast<u16>((q.tail + 1) % q.size);
	if (q.tail == 0)
		q.phase ^= 1;
	q.signal = q.ien;
}

void Nvme::flush()
{
	for (u32 i = 0; i < queues_; i++) {
		Cq &q = cq_[i];

		if (q.signal) {
			q.signal = false;
			rdt_dma_signal(host_, q.vector);
		}
	}
}

void Nvme::interrupt(u32 vector)
{
	if (!device_up_)
		return;
	for (u32 i = 0; i < queues_; i++) {
		if (i % info_.irqs == vector)
			reap(static_cast<u16>(i));
	}
	take_all();
	flush();
}

Nvme::Sc Nvme::exec(Sqe &e, u32 *dw0)
{
	Slot *s = slot_for(0, 0);
	const u64 until = rdt_dma_ms(host_) + command_ms;

	if (!s || !device_up_)
		return sc_internal;
	own_done_ = false;
	place(0, *s, e);
	ring(0);
	for (;;) {
		reap(0);
		if (own_done_)
			break;
		if (failed_ || rdt_dma_ms(host_) > until) {
			fail("the device does not answer a command: opcode", e.opcode);
			return sc_internal;
		}
		rdt_dma_pause(host_);
	}
	if (dw0)
		*dw0 = own_dw0_;
	return own_status_;
}

int Nvme::stop()
{
	const u64 until = rdt_dma_ms(host_) + stop_ms;

	running_ = false;
	reap_all();
	drained_ = under_way();
	int err = 0;

	for (;;) {
		reap_all();
		if ((inflight_ == 0 && direct_idle()) || failed_)
			break;
		if (rdt_dma_ms(host_) > until) {
			rdt_dma_log(host_, "the device does not finish its commands: how many", under_way(), 0);
			err = err_timedout;
			break;
		}
		rdt_dma_pause(host_);
	}
	if (err == 0 && !failed_)
		err = make_all_mediated();
	if (err != 0) {
		running_ = true;
		take_all();
	}
	flush();
	return err;
}

} // namespace redoubt::dma
