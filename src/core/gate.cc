// SPDX-License-Identifier: GPL-2.0
/*
 * Crossing between the root view and integrity mode. Every way in or out is here;
 * each refusal is reported and changes nothing.
 *
 * On the vCPU's own thread only. The slot's compare-and-swaps are what two
 * vCPUs can race for. Who is inside has a Running slot, nobody else touches it: should
 * one be found otherwise, that is reported and the vCPU gets no further inside.
 */
#include "vm.h"

namespace redoubt {

namespace {

enum Gpr { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };

constexpr u64 rflags_fixed = 1u << 1, rflags_if = 1u << 9;

void go(rdt_cpu &cpu, u8 view, u64 rip, u64 sp, u64 cr3)
{
	cpu.view = view;
	cpu.rip = rip;
	cpu.rsp = sp;
	cpu.cr3 = cr3;
	cpu.dirty |= RDT_CPU_VIEW | RDT_CPU_RIP | RDT_CPU_RSP | RDT_CPU_CR3;
}

} // namespace

/*
 * Into integrity mode, execution to go on at rip_inside. The caller has proved
 * where the vCPU is. R11 holds the return address.
 */
s64 Vm::enter(Vcpu &v, rdt_cpu &cpu, u64 rip_inside)
{
	Integrity *i = load_acquire(integrity_); /* there is one: the caller found its door */
	u8 refuse = 0;

	if (cpu.cpl != 0)
		refuse = RDT_GATE_BAD_CPL;
	else if (v.view != view_root)
		refuse = RDT_GATE_INSIDE;
	else if (cpu.idt_base != i->driver.idt_gva)
		refuse = RDT_GATE_BAD_IDT;
	/* In another paging mode the driver's tables would mean other translations. */
	else if (cpu.va_bits != i->driver.va_bits || !canonical(cpu.gpr[r11], cpu.va_bits))
		refuse = RDT_GATE_BAD_STATE;
	if (refuse) {
		report_gate(cpu, refuse);
		return hc_eperm;
	}

	Slot *s = i->slots.claim(cpu.vcpu);

	if (!s) {
		report_gate(cpu, RDT_GATE_NO_SLOT);
		return hc_eagain;
	}
	/* Pairs with detach(). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (read_once(closing_)) {
		if (!s->release())
			report_gate(cpu, RDT_GATE_BAD_STATE);
		return hc_eagain;
	}
	s->caller = {cpu.gpr[r11], cpu.rsp,	 cpu.cr3,      cpu.rflags,   cpu.gpr[rbx],
		     cpu.gpr[rbp], cpu.gpr[r12], cpu.gpr[r13], cpu.gpr[r14], cpu.gpr[r15]};
	v.slot = s;
	v.view = view_integrity;
	go(cpu, view_integrity, rip_inside, i->driver.stack_top[i->slots.index(s)], i->driver.cr3);
	__atomic_fetch_add(&enters_, 1, __ATOMIC_RELAXED);
	return 0;
}

rdt_door Vm::at_door(const Vcpu &v, gfn_t gfn) const
{
	const Integrity *i = integrity();

	if (!i)
		return RDT_DOOR_NONE;
	if (v.view == view_root && gfn == i->driver.gate_gfn)
		return RDT_DOOR_IN;
	if (v.view == view_integrity && gfn == i->driver.exit_gfn)
		return RDT_DOOR_OUT;
	return RDT_DOOR_NONE;
}

/*
 * The fault door: the hardware has named the physical page that RIP is in, only
 * the place in the page is left to check.
 */
rdt_verdict Vm::door(Vcpu &v, rdt_door door, rdt_cpu &cpu)
{
	const Driver &d = integrity()->driver;

	if (door == RDT_DOOR_OUT) {
		if (cpu.rip != d.exit_gva)
			return RDT_V_PASS;
		leave(v, cpu, cpu.gpr[rax]);
		return RDT_V_RESUME;
	}
	if ((cpu.rip ^ d.gate_gva) & (page_size - 1))
		return RDT_V_PASS;

	s64 err = enter(v, cpu, d.gate_gva);

	if (!err)
		return RDT_V_RESUME;
	/* Refused at the door: back to the caller with the error. */
	if (!canonical(cpu.gpr[r11], cpu.va_bits))
		return RDT_V_GP;
	cpu.gpr[rax] = static_cast<u64>(err);
	cpu.rip = cpu.gpr[r11];
	cpu.dirty |= RDT_CPU_RIP;
	return RDT_V_RESUME;
}

/* The hypercall door: RIP must be the registered instruction, by physical address. */
s64 Vm::hypercall_enter(Vcpu &v, rdt_cpu &cpu)
{
	const Integrity *i = integrity();

	if (!i) {
		report_gate(cpu, RDT_GATE_BAD_STATE);
		return hc_eperm;
	}
	constexpr u64 insn_len = 3; /* vmcall, vmmcall */

	if (((cpu.rip + insn_len) ^ i->driver.call_gva) & (page_size - 1) ||
	    rdt_port_gva_to_gpa(v.hv, cpu.rip) != i->driver.call_gpa - insn_len) {
		report_gate(cpu, RDT_GATE_BAD_RIP);
		return hc_eperm;
	}
	return enter(v, cpu, i->driver.call_gva);
}

/* Out, to the caller's return address. Nothing of the inside but the result is left. */
s64 Vm::leave(Vcpu &v, rdt_cpu &cpu, u64 result)
{
	Slot *s = v.slot;

	if (v.view != view_integrity || !s) {
		report_gate(cpu, RDT_GATE_NOT_INSIDE);
		return hc_eperm;
	}

	const Caller &c = s->caller;
	u64 *g = cpu.gpr;

	g[rax] = result;
	g[rcx] = g[rdx] = g[rsi] = g[rdi] = 0;
	g[r8] = g[r9] = g[r10] = g[r11] = 0;
	g[rbx] = c.rbx;
	g[rbp] = c.rbp;
	g[r12] = c.r12;
	g[r13] = c.r13;
	g[r14] = c.r14;
	g[r15] = c.r15;
	/* Cut short in the middle of the inside, too, its DF or IF is not the caller's. */
	cpu.rflags = c.rflags;
	cpu.dirty |= RDT_CPU_RFLAGS;
	go(cpu, view_root, c.rip, c.rsp, c.cr3);
	v.slot = nullptr;
	v.view = view_root;
	/* Behind the last look at c. */
	if (!s->release()) {
		cpu.cpl = 0; /* the fault door's host does not say */
		report_gate(cpu, RDT_GATE_BAD_STATE);
		g[rax] = static_cast<u64>(hc_eperm);
	}
	return 0;
}

/*
 * An event is being delivered inside: put the thread's registers away and stand
 * as if it had struck the resume stub. soft_len: the event is an instruction of
 * that length, which is done when the thread goes on.
 */
bool Vm::aexit(Vcpu &v, rdt_cpu &cpu, u8 soft_len)
{
	Integrity *i = load_acquire(integrity_);
	Slot *s = v.slot;

	if (!i || !s)
		return false;

	Context &c = s->context;

	for (unsigned n = 0; n < 16; n++) {
		c.gpr[n] = cpu.gpr[n];
		cpu.gpr[n] = 0;
	}
	c.gpr[rsp] = cpu.rsp;
	c.rip = cpu.rip + soft_len;
	c.rflags = cpu.rflags;
	c.cr3 = cpu.cr3;

	u64 token = i->slots.token(s, rdt_port_random());
	u64 caller_rsp = s->caller.rsp, caller_cr3 = s->caller.cr3;

	/* From here on the slot may be another vCPU's. */
	if (!s->aexit(token)) {
		for (unsigned n = 0; n < 16; n++)
			cpu.gpr[n] = c.gpr[n];
		report_gate(cpu, RDT_GATE_BAD_STATE);
		return false;
	}
	cpu.gpr[rdi] = token;
	cpu.rflags = rflags_fixed | (cpu.rflags & rflags_if);
	cpu.dirty |= RDT_CPU_RFLAGS;
	go(cpu, view_root, i->driver.resume_gva, caller_rsp, caller_cr3);
	v.slot = nullptr;
	v.view = view_root;
	__atomic_fetch_add(&aexits_, 1, __ATOMIC_RELAXED);
	return true;
}

/*
 * The stub asks for its thread back, perhaps on another vCPU. The address space
 * it now runs in is the one to return to: the kernel may have moved it.
 */
s64 Vm::resume(Vcpu &v, rdt_cpu &cpu, u64 token, u64 flags)
{
	if (flags & ~u64{RDT_RESUME_DROP})
		return hc_einval;

	Integrity *i = load_acquire(integrity_);
	u8 refuse = 0;

	if (!i)
		refuse = RDT_GATE_BAD_STATE;
	else if (cpu.cpl != 0)
		refuse = RDT_GATE_BAD_CPL;
	else if (v.view != view_root)
		refuse = RDT_GATE_INSIDE;
	else if (cpu.idt_base != i->driver.idt_gva)
		refuse = RDT_GATE_BAD_IDT;
	else if (cpu.va_bits != i->driver.va_bits)
		refuse = RDT_GATE_BAD_STATE;
	if (refuse) {
		report_gate(cpu, refuse);
		return hc_eperm;
	}

	Slot *s = i->slots.resume(token);

	if (!s) {
		report_gate(cpu, RDT_GATE_BAD_TOKEN);
		return hc_einval;
	}

	if (flags & RDT_RESUME_DROP) {
		if (s->release())
			return 0;
		report_gate(cpu, RDT_GATE_BAD_STATE);
		return hc_eperm;
	}

	const Context &c = s->context;

	s->caller.rsp = cpu.rsp;
	s->caller.cr3 = cpu.cr3;
	for (unsigned n = 0; n < 16; n++)
		cpu.gpr[n] = c.gpr[n];
	cpu.rflags = c.rflags;
	cpu.dirty |= RDT_CPU_RFLAGS;
	go(cpu, view_integrity, c.rip, c.gpr[rsp], c.cr3);
	v.slot = s;
	v.view = view_integrity;
	return 0;
}

} // namespace redoubt
