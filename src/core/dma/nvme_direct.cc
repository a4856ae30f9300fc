// SPDX-License-Identifier: GPL-2.0
/*
 * While no migration runs the device has the guest's I/O queues as they are: only their doorbells pass through here, and
 * are counted. That is enough to know, when the model has to step in between, how far the guest and the device are in
 * them. The admin queue is the model's always.
 *
 * And shadow doorbells (Doorbell Buffer Config): the guest writes them to memory, and rings only when
 * it would pass an index that the model has set. So it rings for submissions, each time, and hardly ever for completions. The
 * device learns of these with the next submission; but one may hold its next interrupt back until it has been told how far
 * the last was heard. So while more than one command is under way, the model looks from time to time.
 */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

/* A submission and a completion queue for each other only, as the device could have them. */
bool Nvme::belong(u16 qid) const
{
	const Sq &q = sq_[qid];
	const Cq &c = cq_[q.cqid];

	return info_.direct && !armed_ && running_ && q.cqid == qid && c.size >= q.size && (!c.ien || c.vector < info_.irqs);
}

bool Nvme::may_be_direct(u16 qid) const
{
	const Cq &c = cq_[sq_[qid].cqid];

	return belong(qid) && c.users == 0 && c.fresh();
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

/*
 * The guest's tail becomes the device's, as far as there is room for the completions: at a full queue the device would wait for
 * the guest, and stop() for both. (With no more commands than entries, as drivers have it, there always is.)
 */
void Nvme::pass_on(u16 qid)
{
	Sq &q = sq_[qid];
	const Cq &c = cq_[qid];
	const auto room = [&] { return c.size - 1 - static_cast<u32>(q.submitted - c.consumed); };
	const u32 wanted = (q.tail + q.size - q.head) % q.size;

	look_at_head(qid);
	if (room() < wanted)
		watch_head(qid);
	const u32 n = min_of(wanted, room());

	if (n == 0)
		return;
	q.submitted += n;
	commands_ += n;
	q.head = static_cast<u16>((q.head + n) % q.size);
	/* What the guest wrote before its doorbell is in memory: it came by an exit. */
	rdt_dma_reg_write(host_, doorbell_reg(qid, false), q.head);
	look_later(qid);
}

void Nvme::look_later(u16 qid)
{
	if (dbbuf_ && sq_[qid].submitted - cq_[qid].consumed > 1)
		rdt_dma_later(host_);
}

void Nvme::later()
{
	for (u32 i = 1; i < queues_; i++) {
		const u16 qid = static_cast<u16>(i);

		if (!sq_[i].live || !sq_[i].direct)
			continue;
		look_at_head(qid);
		take(qid);
		look_later(qid);
	}
}

/* Has the device put its @at-th entry, from 0, into the guest's queue? By its phase. -1: that is not in the guest's memory. */
int Nvme::has_entry(const Cq &c, u64 at) const
{
	const u16 phase = !(at / c.size & 1);
	u16 status = 0;

	if (rdt_dma_read(host_, c.base + at % c.size * sizeof(Cqe) + __builtin_offsetof(Cqe, status), &status, 2) != 0)
		return -1;
	return (status & 1) == phase;
}

/* How many entries the device has put into the guest's queue. */
u64 Nvme::produced(const Cq &c) const
{
	u64 at = c.consumed;

	for (u32 n = 1; n < c.size && has_entry(c, at) > 0; n++)
		at++;
	return at;
}

/* Commands that the device has not finished, in all queues. */
u64 Nvme::under_way() const
{
	u64 n = inflight_;

	for (u32 i = 1; i < queues_; i++) {
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
bool Nvme::is_idle(u16 qid)
{
	look_at_head(qid);
	return produced(cq_[qid]) >= sq_[qid].submitted;
}

bool Nvme::direct_idle()
{
	for (u32 i = 1; i < queues_; i++) {
		if (sq_[i].live && sq_[i].direct && !is_idle(static_cast<u16>(i)))
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
	/* Its last interrupt may not have come to the host's handler yet, and will not go to the guest. */
	c.signal = c.ien && c.filled() != 0;
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

/* Another submission queue wants a direct one's completion queue: then it has to be the model's, which waits for the device. */
bool Nvme::take_back(u16 qid)
{
	const u64 until = rdt_dma_ms(host_) + command_ms;

	while (!is_idle(qid)) {
		if (rdt_dma_ms(host_) > until)
			return false;
		rdt_dma_pause(host_);
	}
	const int err = make_mediated(qid);

	route();
	return err == 0;
}

int Nvme::make_all_mediated()
{
	int err = 0;

	for (u32 i = 1; i < queues_ && err == 0; i++) {
		if (sq_[i].live && sq_[i].direct)
			err = make_mediated(static_cast<u16>(i));
	}
	route();
	return err;
}

/*
 * After how many commands a device's new queues stand where the guest's do, by the completion queue's tail and phase and the
 * submission queue's head. That is easy while the pair had none but each other; 0: not soon, or they are new.
 */
u32 Nvme::commands_to(u16 qid) const
{
	const Sq &q = sq_[qid];
	const Cq &c = cq_[qid];
	u32 n = c.tail + (c.phase ? 0 : c.size);

	/* What the guest has not taken yet are the last of them. */
	if (n < c.filled())
		n += 2 * c.size;
	for (u32 i = 0; i < 4; i++, n += 2 * c.size) {
		if (n % q.size == q.head)
			return n;
	}
	return 0;
}

/* The device, with the guest's rings since just now, comes to their @n-th command by doing nothing so often. */
bool Nvme::advance(u16 qid, u32 n, u32 nsid, u64 until)
{
	const Sq &q = sq_[qid];
	const Cq &c = cq_[qid];
	const u32 taken = n - c.filled();
	Sqe e = {};
	u32 done = 0, head = 0, batch = 1; /* what a slow device still has when the time is over takes no longer than that */

	if (!q.size || !c.size)
		return false;
	e.opcode = nvm_flush;
	e.nsid = nsid;
	for (; done < n; batch = min_of(batch * 2, q.size)) {
		const u32 end = done + min_of(min_of(min_of(q.size - 1, c.size - 1 - (done - head)), n - done), batch);

		for (u32 i = done; i < end; i++) {
			e.cid = static_cast<u16>(i);
			if (rdt_dma_write(host_, q.base + i % q.size * sizeof(e), &e, sizeof(e)) != 0)
				return false;
		}
		/* As in ring(). */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		rdt_dma_reg_write(host_, doorbell_reg(qid, false), end % q.size);
		while (done < end) {
			if (const int has = has_entry(c, done); has > 0) {
				done++;
				continue;
			} else if (has < 0 || rdt_dma_ms(host_) > until) {
				return false;
			}
			rdt_dma_pause(host_);
		}
		if (const u32 to = min_of(done, taken); to != head) {
			head = to;
			rdt_dma_reg_write(host_, doorbell_reg(qid, true), head % c.size);
		}
	}
	return true;
}

/*
 * The device gets the guest's rings back. Nobody can tell it where to begin in them, so it is led there, with commands that do
 * nothing, in the rings' own memory: the guest stands still, and finds what was there. On failure they stay the model's.
 */
void Nvme::make_direct(u16 qid, u32 nsid, u64 until)
{
	Sq &q = sq_[qid];
	Cq &c = cq_[qid];
	const u32 n = commands_to(qid), sq_bytes = q.size * sizeof(Sqe), cq_bytes = c.size * sizeof(Cqe);

	if (n == 0 && !(c.tail == 0 && c.phase == 1 && c.filled() == 0 && q.head == 0))
		return;
	auto *was = static_cast<u8 *>(rdt_dma_alloc(sq_bytes + cq_bytes));
	auto *zero = static_cast<u8 *>(rdt_dma_alloc(cq_bytes));

	if (was && zero && rdt_dma_read(host_, q.base, was, sq_bytes) == 0 &&
	    rdt_dma_read(host_, c.base, was + sq_bytes, cq_bytes) == 0 && delete_queues(qid)) {
		free_pair(q.pair);
		if (rdt_dma_write(host_, c.base, zero, cq_bytes) == 0 && direct_queues(qid) == sc_ok && !advance(qid, n, nsid, until)) {
			delete_queues(qid);
			q.direct = c.direct = false;
		}
		if (rdt_dma_write(host_, q.base, was, sq_bytes) != 0 || rdt_dma_write(host_, c.base, was + sq_bytes, cq_bytes) != 0)
			fail("the guest's queues are not in its memory any more: queue", qid);
		if (q.direct) {
			c.consumed = n - c.filled();
			q.submitted = n;
		} else if (!failed_ && device_queues(qid) != sc_ok) {
			fail("the device does not make a queue: queue", qid);
		}
	}
	rdt_dma_free(was);
	rdt_dma_free(zero);
}

void Nvme::make_all_direct()
{
	const u64 until = rdt_dma_ms(host_) + direct_ms;
	u32 nsid = 0;

	for (u32 i = 1; i < queues_ && !failed_ && inflight_ == 0 && rdt_dma_ms(host_) <= until; i++) {
		const u16 qid = static_cast<u16>(i);

		if (!sq_[qid].live || sq_[qid].direct || !belong(qid) || cq_[qid].users != 1)
			continue;
		if (nsid == 0)
			nsid = identify(cns_active_ns, 0) ? max_of(le32(own_page_), 1u) : 1;
		make_direct(qid, nsid, until);
	}
	route();
}

/* Whose the device's interrupts are. */
void Nvme::route()
{
	for (u32 v = 0; v < info_.irqs; v++) {
		bool guest = false, model = v == 0;

		for (u32 i = 1; i < queues_; i++) {
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
	for (u32 i = 0; i < queues_; i++) {
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

	if (!c.live || value >= c.size)
		return false;
	const u32 by = (value + c.size - c.head) % c.size;

	/* Of a direct one it is known only what there could be. */
	if (by > (c.direct ? sq_[qid].submitted - c.consumed : c.filled()))
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

/* From here on the guest rings when it takes completions. */
void Nvme::watch_head(u16 qid)
{
	want_ring(qid, true, cq_[qid].head);
	/* It may have taken some before it saw that. Pairs with the guest's barrier between shadow and index. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	look_at_head(qid);
}

bool Nvme::has_room(u16 cqid)
{
	Cq &c = cq_[cqid];

	if (c.room())
		return true;
	look_at_head(cqid);
	if (c.room())
		return true;
	watch_head(cqid);
	return c.room();
}

} // namespace redoubt::dma
