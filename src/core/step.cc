// SPDX-License-Identifier: GPL-2.0
/* Which frames a step may write, and what it has written. */
#include "vm.h"

namespace redoubt {

namespace {

using Frame = StepFrames::Frame;

constexpr unsigned words = page_size / sizeof(u64);
constexpr u64 pte_ad = 1u << 5 | 1u << 6;

void copy_page(u64 *to, const u64 *from)
{
	u64 n = words;

	asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

/* The first word from @i on that has changed; words: none. */
unsigned next_change(const Frame &f, unsigned i)
{
	for (; i % 8 && i < words; i++)
		if (read_once(f.now[i]) != f.before[i])
			return i;
	for (; i < words; i += 8) {
		const u64 *a = f.now + i, *b = f.before + i;
		u64 d = (read_once(a[0]) ^ b[0]) | (read_once(a[1]) ^ b[1]) |
			(read_once(a[2]) ^ b[2]) | (read_once(a[3]) ^ b[3]) |
			(read_once(a[4]) ^ b[4]) | (read_once(a[5]) ^ b[5]) |
			(read_once(a[6]) ^ b[6]) | (read_once(a[7]) ^ b[7]);

		if (!d)
			continue;
		while (i < words && read_once(f.now[i]) == f.before[i])
			i++;
		return i;
	}
	return words;
}

/* What a page walk does to an entry: it sets accessed and dirty, nothing else. */
bool is_walk(u64 was, u64 is)
{
	return (is & ~pte_ad) == (was & ~pte_ad) && (was & ~is & pte_ad) == 0;
}

unsigned next_write(const Frame &f, unsigned i)
{
	while ((i = next_change(f, i)) < words && is_walk(f.before[i], read_once(f.now[i])))
		i++;
	return i;
}

/* Up to eight bytes at an offset, not beyond the page. */
u64 bytes_at(const u64 *page, u64 offset)
{
	u64 v = 0;

	__builtin_memcpy(&v, reinterpret_cast<const u8 *>(page) + offset,
			 min_of<u64>(sizeof(v), page_size - offset));
	return v;
}

} // namespace

/*
 * May a write to a restricted frame go on in a step? LOG: yes, it will be recorded.
 * A page walk: if the guest declared the frame to be a page table. Anywhere else
 * its accessed and dirty bits would be a way to set bits in a denied page.
 * Node pages and the driver's frames have classes of their own, and DENY.
 */
bool Vm::steppable(const rdt_fault &f, const Rule &rule, u8 action)
{
	if (f.access != RDT_ACC_W || action == RDT_ACT_NONE)
		return false;
	return action == RDT_ACT_LOG || (f.walk && rule.cls == RDT_CLS_PGTABLE);
}

bool Vm::step_hold(Frame &f)
{
	if (!f.before)
		f.before = static_cast<u64 *>(rdt_port_alloc(page_size));
	if (!f.before)
		return false;
	f.now = static_cast<const u64 *>(rdt_port_hold(host_, f.gfn, &f.cookie));
	if (!f.now)
		return false;
	copy_page(f.before, f.now);
	f.held = true;
	f.data = false;
	return true;
}

bool Vm::step_grant(const rdt_fault &f)
{
	gfn_t gfn = f.gpa >> page_shift;
	Frame *fr = step_.find(gfn);

	if (!fr) {
		fr = step_.free();
		if (!fr)
			return false;
		fr->gfn = gfn;
		fr->logged = false;
		if (!step_hold(*fr)) {
			fr->gfn = StepFrames::none;
			return false;
		}
	}
	/*
	 * First grant, then look at the rule; who changes it first changes it and then
	 * revokes. So one of the two sees the other.
	 */
	write_once(fr->granted, gfn);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);

	Rule rule = {};

	if (!steppable(f, rule, find_action(gfn, &rule))) {
		/* The vCPU has not been in the view since: there is nothing to zap. */
		write_once(fr->granted, StepFrames::none);
		return false;
	}
	if (!f.walk && !fr->data) {
		fr->data = fr->logged = true;
		fr->fault = f;
		fr->rule = rule;
	}
	return true;
}

bool Vm::step_begin(Vcpu &v, const rdt_fault &f, const rdt_cpu &cpu)
{
	gfn_t gfn = f.gpa >> page_shift;
	unsigned tables = 0, drop = 0;

	for (const Frame &fr : step_)
		tables += fr.gfn != StepFrames::none && !fr.logged;

	/*
	 * What earlier steps left writable is not worth a zap each time. But a write
	 * to a logged frame must fault, so that it is known even if it changes
	 * nothing: only the frame that faulted just now may stay.
	 */
	for (Frame &fr : step_) {
		if (fr.gfn == StepFrames::none)
			continue;

		bool stay = fr.logged ? fr.gfn == gfn && !f.walk : tables <= StepFrames::keep;

		if (stay && read_once(fr.granted) != StepFrames::none && step_hold(fr))
			continue;
		write_once(fr.granted, StepFrames::none);
		drop++;
	}
	if (drop) {
		rdt_port_lock(host_);
		for (Frame &fr : step_)
			if (fr.gfn != StepFrames::none && !fr.held) {
				rdt_port_zap(host_, fr.gfn, 1);
				fr.gfn = StepFrames::none;
				fr.logged = false;
			}
		rdt_port_unlock(host_);
	}
	if (!step_grant(f)) {
		step_release();
		return false;
	}
	writer_ = cpu;
	writer_.gpr = nullptr;
	v.view = view_step;
	write_once(steps_, read_once(steps_) + 1);
	return true;
}

void Vm::report_step(const Frame &f, unsigned word, u8 action, bool event)
{
	rdt_event ev = event_for(RDT_EV_WRITE, &writer_);
	u64 offset = f.data ? f.fault.gpa & (page_size - 1) : word * sizeof(u64);

	ev.action = action;
	ev.cls = f.rule.cls;
	ev.gpa = (f.gfn << page_shift) + offset;
	ev.range_gpa = f.rule.first << page_shift;
	ev.range_pages = f.rule.count;
	if (f.data && f.fault.gva_valid) {
		ev.gva = f.fault.gva;
		ev.flags |= RDT_EVF_GVA;
	}
	ev.old_val = bytes_at(f.before, offset);
	ev.new_val = bytes_at(f.now, offset);
	ev.flags |= RDT_EVF_OLD | RDT_EVF_NEW;
	if (event)
		ev.flags |= RDT_EVF_EVENT;
	raise(ev);
}

/* Not more than the step wrote: someone else may write the same page by DMA. */
void Vm::step_undo(Frame &f)
{
	for (unsigned i = 0; (i = next_write(f, i)) < words; i++) {
		u64 is = read_once(f.now[i]);

		__atomic_compare_exchange_n(const_cast<u64 *>(f.now) + i, &is, f.before[i], false,
					    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	}
}

u8 Vm::step_end(Vcpu &v, bool done, bool event)
{
	u8 out = 0;

	for (Frame &f : step_) {
		if (!f.held)
			continue;
		if (f.data) {
			unsigned word = done ? 0 : next_change(f, 0);

			if (word < words)
				report_step(f, word, RDT_ACT_LOG, event);
			continue;
		}

		unsigned word = next_write(f, 0);

		if (word == words)
			continue;
		switch (find_action(f.gfn, &f.rule)) {
		case RDT_ACT_NONE:
			break;
		case RDT_ACT_LOG:
			report_step(f, word, RDT_ACT_LOG, event);
			break;
		case RDT_ACT_FREEZE:
			report_step(f, word, RDT_ACT_FREEZE, event);
			step_undo(f);
			out |= RDT_STEP_UNDONE | RDT_STEP_FREEZE;
			break;
		default:
			report_step(f, word, RDT_ACT_DENY, event);
			step_undo(f);
			out |= RDT_STEP_UNDONE;
			break;
		}
	}
	step_release();
	v.view = view_root;
	return out;
}

void Vm::step_release()
{
	for (Frame &f : step_) {
		if (f.held)
			rdt_port_release(host_, f.cookie);
		f.held = false;
	}
}

/* No vCPU is left to step. */
void Vm::step_stop()
{
	step_release();
	for (Frame &f : step_) {
		write_once(f.granted, StepFrames::none);
		f.gfn = StepFrames::none;
		rdt_port_free(f.before);
		f.before = nullptr;
	}
}

} // namespace redoubt
