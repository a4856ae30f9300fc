// SPDX-License-Identifier: GPL-2.0
/*
 * While no migration runs the device has the guest's I/O queues as they are: only their doorbells pass through here, and
 * are counted. That is enough to know, when the model has to step in between, how far the guest and the device are in
 * them. The admin queue is the model's always.
 *
 * And shadow doorbells (Doorbell Buffer Config): the guest writes them to memory, and rings only when
 * it would pass an index that the model has set. So it rings for submissions, each time, and hardly ever for completions.
 */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

/* A pair of queues that belong to each other and have not been used. */
bool Nvme::may_be_direct(u16 qid) const
{
	const Sq &q = sq_[qid];
	const Cq &c = cq_[q.cqid];

	return info_.direct && !armed_ && running_ && q.cqid == qid && c.users == 0 && c.fresh() && c.size >= q.size &&
	       (!c.ien || c.vector < info_.irqs);
}

Nvme::Sc Nvme::direct_queues(u16 qid)
{
	Sq &q = sq_[qid];
	Cq &c = cq_[qid];
	const Sc sc = create_queues(qid, c.base, c.size, 1u | (c.ien ? 2u : 0u) | static_cast<u32>(c.vector) << 16, q.base,
				    q.size);

	q.direct = c.direct = sc == sc_ok;
	return sc;
}

/* The guest's tail becomes the device's. */
void Nvme::pass_on(u16 qid)
{
	Sq &q = sq_[qid];
	const u16 n = static_cast<u16>((q.tail + q.size - q.head) % q.size);

	q.submitted += n;
	commands_ += n;
	q.head = q.tail;
	/* What the guest wrote before its doorbell is in memory: it came by an exit. */
	rdt_dma_reg_write(host_, doorbell_reg(qid, false), q.tail);
	mind_overflow(qid);
}

/*
 * A device stops at a full completion queue until it is told of the guest's head. The guest does not ring for that; it
 * will when it might come to it. (With as many commands as entries, as drivers have, it never does.)
 */
void Nvme::mind_overflow(u16 qid)
{
	const Cq &c = cq_[qid];

	if (!dbbuf_ || sq_[qid].submitted - c.consumed < c.size)
		return;
	want_ring(qid, true, c.head);
	/* As in has_room(). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	look_at_head(qid);
}

/* How many entries the device has put into the guest's queue: by their phase, from the guest's head on. */
u64 Nvme::produced(const Cq &c) const
{
	u64 at = c.consumed;

	for (u32 n = 1; n < c.size; n++, at++) {
		const u16 phase = !(at / c.size & 1);
		u16 status = 0;

		if (rdt_dma_read(host_, c.base + at % c.size * sizeof(Cqe) + __builtin_offsetof(Cqe, status), &status, 2) != 0 ||
		    (status & 1) != phase)
			break;
	}
	return at;
}

/* Commands that the device has not finished, in all queues. */
u64 Nvme::under_way() const
{
	u64 n = inflight_;

	for (u32 i = 1; i < max_queues; i++) {
		if (!sq_[i].live || !sq_[i].direct)
			continue;
		const u64 done = produced(cq_[i]);

		n += sq_[i].submitted > done ? sq_[i].submitted - done : 0;
	}
	return n;
}

bool Nvme::any_direct() const
{
	for (const Sq &q : sq_) {
		if (q.live && q.direct)
			return true;
	}
	return false;
}

/* Has the device finished all that it was given? A guest that writes to its completions gets what it asks for. */
bool Nvme::direct_idle()
{
	for (u32 i = 1; i < max_queues; i++) {
		if (!sq_[i].live || !sq_[i].direct)
			continue;
		look_at_head(static_cast<u16>(i));
		if (produced(cq_[i]) < sq_[i].submitted)
			return false;
	}
	return true;
}

/* The completion queue is the model's from now on. The device has none of that number any more. */
void Nvme::settle(Cq &c)
{
	const u64 all = produced(c);

	c.tail = static_cast<u16>(all % c.size);
	c.phase = !(all / c.size & 1);
	c.direct = false;
}

/* The device gets queues in private memory instead, and the model goes on where it was. It is idle. */
int Nvme::make_mediated(u16 qid)
{
	Sq &q = sq_[qid];

	if (!make_pair(q.pair, pair_depth(q)))
		return err_nomem;
	if (!delete_queues(qid))
		return err_io;
	settle(cq_[qid]);
	q.direct = false;
	if (attach_pair(qid) != sc_ok) {
		fail("the device does not make a queue: queue", qid);
		return err_io;
	}
	return 0;
}

int Nvme::make_all_mediated()
{
	int err = 0;

	for (u32 i = 1; i < max_queues && err == 0; i++) {
		if (sq_[i].live && sq_[i].direct)
			err = make_mediated(static_cast<u16>(i));
	}
	route();
	return err;
}

/* Whose the device's interrupts are. */
void Nvme::route()
{
	for (u32 v = 0; v < info_.irqs; v++) {
		bool guest = false, model = v == 0;

		for (u32 i = 1; i < max_queues; i++) {
			const Sq &q = sq_[i];

			if (q.live && q.direct)
				guest |= cq_[i].ien && cq_[i].vector == v;
			else if (q.live)
				model |= i % info_.irqs == v;
		}
		rdt_dma_route(host_, v, guest, model);
	}
}

/* ---- shadow doorbells -------------------------------------------------------------------- */

Nvme::Sc Nvme::admin_dbbuf(const Sqe &e)
{
	if (e.prp1 % page_size != 0 || e.prp2 % page_size != 0)
		return sc_invalid_prp_offset | sc_dnr;
	if (mine(e.prp1, page_size) || mine(e.prp2, page_size))
		return sc_invalid_field | sc_dnr;
	dbbuf_ = true;
	db_shadow_ = e.prp1;
	db_event_ = e.prp2;
	for (u32 i = 0; i < max_queues; i++) {
		if (sq_[i].live)
			want_ring(static_cast<u16>(i), false, sq_[i].tail);
		if (cq_[i].live)
			want_ring(static_cast<u16>(i), true, cq_[i].head);
	}
	post(0, 0, e.cid, sc_ok);
	return sc_ok;
}

/* The guest rings when it goes on from @at; from elsewhere it does not, until it comes by there. */
void Nvme::want_ring(u16 qid, bool completion, u16 at)
{
	const u32 index = at;

	if (dbbuf_)
		rdt_dma_write(host_, db_event_ + (2u * qid + completion) * sizeof(index), &index, sizeof(index));
}

/* false: there is no such head. */
bool Nvme::head_moved(u16 qid, u32 value)
{
	Cq &c = cq_[qid];
	const u32 by = c.live && value < c.size ? (value + c.size - c.head) % c.size : 0;

	if (!c.live || value >= c.size || (!c.direct && by > c.filled()))
		return false;
	c.head = static_cast<u16>(value);
	if (c.direct && by != 0) {
		c.consumed += by;
		rdt_dma_reg_write(host_, doorbell_reg(qid, true), value);
	}
	return true;
}

/* How far the guest is in a completion queue, if it only wrote that to memory. The admin queue's is always rung. */
void Nvme::look_at_head(u16 qid)
{
	u32 value = 0;

	if (dbbuf_ && qid != 0 &&
	    rdt_dma_read(host_, db_shadow_ + (2u * qid + 1) * sizeof(value), &value, sizeof(value)) == 0)
		head_moved(qid, value);
}

bool Nvme::has_room(u16 cqid)
{
	Cq &c = cq_[cqid];

	if (c.room())
		return true;
	look_at_head(cqid);
	if (c.room())
		return true;
	want_ring(cqid, true, c.head);
	/* It may have moved before the guest saw that. Pairs with the guest's barrier between shadow and index. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	look_at_head(cqid);
	return c.room();
}

} // namespace redoubt::dma
