// SPDX-License-Identifier: GPL-2.0
/*
 * Crossing between the root view and integrity mode or a domain. Every way in or out is
 * here; each refusal is reported and changes nothing.
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
constexpr u64 insn_len = 3; /* vmcall, vmmcall */

/* What the host swaps on each crossing of a domain, besides general registers and flags. */
void swap_state(Vcpu &v, const Slot &s, rdt_vector op)
{
	if (s.vector)
		rdt_port_vector(v.hv, s.vector, op);
	if (s.segments)
		rdt_port_segments(v.hv, s.segments, op);
}

/*
 * IF in ring 3 is its kernel's to say. What the inside has of it is not: SYSCALL in there
 * clears it, and touches no memory that would be refused.
 */
u64 flags_of(u64 rflags, u8 cpl, u64 callers)
{
	return cpl ? (rflags & ~rflags_if) | (callers & rflags_if) : rflags;
}

void go(rdt_cpu &cpu, u8 view, u64 rip, u64 sp, u64 cr3)
{
	cpu.view = view;
	cpu.rip = rip;
	cpu.rsp = sp;
	cpu.cr3 = cr3;
	cpu.dirty |= RDT_CPU_VIEW | RDT_CPU_RIP | RDT_CPU_RSP | RDT_CPU_CR3;
}

/*
 * What gets into a domain: four arguments, and of the flags what is the guest's to
 * say, IF. (Not inline, here and below: integrity mode is not to pay for it.)
 */
[[gnu::noinline]] void only_arguments(Vcpu &v, rdt_cpu &cpu, const Slot &s)
{
	u64 *g = cpu.gpr;

	g[rax] = g[rbx] = g[rbp] = 0;
	for (unsigned n = r8; n <= r15; n++)
		g[n] = 0;
	cpu.rflags = rflags_fixed | (cpu.rflags & rflags_if);
	cpu.dirty |= RDT_CPU_RFLAGS;
	swap_state(v, s, RDT_VEC_ENTER);
}

/*
 * A secret has its caller's registers. They are kept for a call that is forgotten: in the room of
 * the context that it does not have.
 */
[[gnu::noinline]] void into_secret(Vcpu &v, rdt_cpu &cpu, Slot &s, const Gate &gate)
{
	Context &c = s.context;

	for (unsigned n = 0; n < 16; n++)
		c.gpr[n] = cpu.gpr[n];
	c.rip = s.entered = cpu.rip;
	c.rflags = cpu.rflags;
	cpu.rflags = rflags_fixed | (cpu.rflags & rflags_if);
	swap_state(v, s, RDT_VEC_ENTER);
	cpu.view = gate.view;
	cpu.dirty |= RDT_CPU_RFLAGS | RDT_CPU_VIEW | RDT_CPU_SECRET;
}

} // namespace

/*
 * Into a view, execution to go on at rip_inside. The caller has proved where the vCPU
 * is, and has read epoch before anything else of @in; rip_inside is looked at when the slot
 * is ours. R11 holds the return address.
 */
s64 Vm::enter(Vcpu &v, rdt_cpu &cpu, Inside &in, u64 epoch, const u64 &rip_inside)
{
	const Gate &gate = in.gate;
	u64 *g = cpu.gpr;
	u8 refuse = 0;

	if (cpu.cpl != gate.cpl)
		refuse = RDT_GATE_BAD_CPL;
	else if (v.view != view_root)
		refuse = RDT_GATE_INSIDE;
	else if (!idt_fits(gate, cpu.idt_base))
		refuse = RDT_GATE_BAD_IDT;
	/* In another paging mode the inside's tables would mean other translations. */
	else if (cpu.va_bits != gate.va_bits || !canonical(g[r11], cpu.va_bits))
		refuse = RDT_GATE_BAD_STATE;
	if (refuse) {
		report_gate(cpu, refuse);
		return hc_eperm;
	}

	Slot *s = in.slots.claim(cpu.vcpu, epoch);

	if (!s) {
		if (gate.secret && !read_once(static_cast<Domain &>(in).installs))
			return hc_enokey;
		if (!read_once(closing_))
			report_gate(cpu, RDT_GATE_NO_SLOT);
		return hc_eagain;
	}
	s->caller = {g[r11], cpu.rsp, cpu.cr3, cpu.rflags, g[rbx],
		     g[rbp], g[r12],  g[r13],  g[r14],	   g[r15]};
	v.inside = &in;
	v.slot = s;
	v.view = gate.view;
	if (gate.secret) {
		into_secret(v, cpu, *s, gate);
	} else {
		if (gate.domain)
			only_arguments(v, cpu, *s);
		go(cpu, gate.view, rip_inside, s->stack_top, gate.cr3);
	}
	__atomic_fetch_add(&in.enters, 1, __ATOMIC_RELAXED);
	return 0;
}

rdt_door Vm::at_door(Vcpu &v, gfn_t gfn) const
{
	if (v.inside)
		return gfn == v.inside->gate.exit_gfn ? RDT_DOOR_OUT : RDT_DOOR_NONE;
	if (v.view != view_root)
		return RDT_DOOR_NONE;
	if (const Integrity *i = integrity(); i && gfn == i->gate.gate_gfn) {
		v.door = nullptr;
		return RDT_DOOR_IN;
	}

	return domains() ? domain_door(v, gfn) : RDT_DOOR_NONE;
}

[[gnu::noinline]] rdt_door Vm::domain_door(Vcpu &v, gfn_t gfn) const
{
	const Domains *ds = domains();

	if (!restricted_.test(gfn))
		return RDT_DOOR_NONE;

	const Owner o = ds->map.find(gfn);

	if (o.kind() != RDT_DOM_GATE)
		return RDT_DOOR_NONE;
	/* The view may have gone to another domain since; see Inside::epoch. */
	v.door = load_acquire(ds->at[o.view()]);
	v.door_epoch = load_acquire(v.door->epoch);
	if (v.door->state() != Domain::State::Sealed || v.door->gate.gate_gfn != gfn)
		return RDT_DOOR_NONE;
	return RDT_DOOR_IN;
}

/*
 * The fault door: the hardware has named the physical page that RIP is in, only
 * the place in the page is left to check.
 */
rdt_verdict Vm::door(Vcpu &v, rdt_door door, rdt_cpu &cpu)
{
	if (door == RDT_DOOR_OUT) {
		const Gate &gate = v.inside->gate;

		/* The frame is right; a secret runs wherever its caller has it mapped. */
		if (cpu.rip != gate.exit_gva &&
		    (!gate.secret || (cpu.rip ^ gate.exit_gva) & (page_size - 1)))
			return RDT_V_PASS;
		leave(v, cpu, cpu.gpr[rax]);
		return RDT_V_RESUME;
	}

	Inside &in = v.door ? static_cast<Inside &>(*v.door) : *load_acquire(integrity_);

	if ((cpu.rip ^ in.gate.gate_gva) & (page_size - 1))
		return RDT_V_PASS;

	s64 err = enter(v, cpu, in, v.door ? v.door_epoch : 0, in.gate.gate_gva);

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
	Integrity *i = load_acquire(integrity_);

	if (!i) {
		report_gate(cpu, RDT_GATE_BAD_STATE);
		return hc_eperm;
	}
	if (((cpu.rip + insn_len) ^ i->gate.call_gva) & (page_size - 1) ||
	    rdt_port_gva_to_gpa(v.hv, cpu.rip) != i->gate.call_gpa - insn_len) {
		report_gate(cpu, RDT_GATE_BAD_RIP);
		return hc_eperm;
	}
	return enter(v, cpu, *i, 0, i->gate.call_gva);
}

/*
 * A domain's hypercall door, for ring 0. From anywhere: where execution goes on is the
 * domain's to say, so nothing follows from where it came from.
 */
s64 Vm::domain_enter(Vcpu &v, rdt_cpu &cpu, u64 id)
{
	const Domains *ds = domains();
	u8 view = static_cast<u8>(id);
	Domain *d = ds && is_domain(view) ? load_acquire(ds->at[view]) : nullptr;
	u64 epoch = d ? load_acquire(d->epoch) : 0;

	if (!d || epoch != id >> 8 || d->state() != Domain::State::Sealed) {
		report_gate(cpu, RDT_GATE_BAD_STATE);
		return hc_enoent;
	}
	/* Its caller would be anywhere, and it where the caller is. */
	if (d->gate.secret) {
		report_gate(cpu, RDT_GATE_BAD_RIP);
		return hc_eperm;
	}
	return enter(v, cpu, *d, epoch, d->gate.gate_gva);
}

/* Out, to the caller's return address. Nothing of the inside but the result is left. */
s64 Vm::leave(Vcpu &v, rdt_cpu &cpu, u64 result)
{
	if (!v.inside) {
		report_gate(cpu, RDT_GATE_NOT_INSIDE);
		return hc_eperm;
	}
	if (v.inside->gate.secret)
		return leave_secret(v, cpu, result);
	return v.inside->gate.domain ? out_of_domain(v, cpu, result) : out(v, cpu, result);
}

void Vm::cut_short(Vcpu &v, rdt_cpu &cpu, s64 err)
{
	const u64 result = static_cast<u64>(err);

	if (v.inside->gate.secret)
		cpu.dirty |= RDT_CPU_SECRET;
	(void)(v.inside->gate.domain ? out_of_domain(v, cpu, result) : out(v, cpu, result));
}

/* With the registers that carry results. */
[[gnu::noinline]] s64 Vm::leave_secret(Vcpu &v, rdt_cpu &cpu, u64 result)
{
	const u16 results = v.inside->gate.results;
	u64 inside[16];

	for (unsigned n = 0; n < 16; n++)
		inside[n] = cpu.gpr[n];
	cut_short(v, cpu, results & 1u << rax ? static_cast<s64>(result) : 0);
	for (unsigned n = rcx; n < 16; n++)
		if (results & 1u << n)
			cpu.gpr[n] = inside[n];
	scrub(inside, sizeof(inside));
	return 0;
}

[[gnu::noinline]] s64 Vm::out_of_domain(Vcpu &v, rdt_cpu &cpu, u64 result)
{
	swap_state(v, *v.slot, RDT_VEC_LEAVE);
	return out(v, cpu, result);
}

[[gnu::always_inline]] inline s64 Vm::out(Vcpu &v, rdt_cpu &cpu, u64 result)
{
	Slot *s = v.slot;
	const u64 epoch = v.inside->epoch;
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
	v.inside = nullptr;
	v.slot = nullptr;
	v.view = view_root;
	/* Behind the last look at c. */
	if (!s->release(epoch)) {
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
	Inside *in = v.inside;
	Slot *s = v.slot;

	if (!in)
		return false;
	if (in->gate.rewind)
		return rewind(v, cpu);

	Context &c = s->context;

	for (unsigned n = 0; n < 16; n++) {
		c.gpr[n] = cpu.gpr[n];
		cpu.gpr[n] = 0;
	}
	c.gpr[rsp] = cpu.rsp;
	c.view = v.view;
	c.rip = cpu.rip + soft_len;
	c.rflags = cpu.rflags;
	c.cr3 = cpu.cr3;

	u64 token = in->slots.token(s, rdt_port_random()), stub = in->gate.resume_gva;
	u64 caller_rsp = s->caller.rsp, caller_cr3 = s->caller.cr3;
	u64 flags = flags_of(cpu.rflags, in->gate.cpl, s->caller.rflags);

	swap_state(v, *s, RDT_VEC_AEX);
	__atomic_fetch_add(&in->aexits, 1, __ATOMIC_RELAXED);
	/* From here on the slot may be another vCPU's. */
	if (!s->aexit(token)) {
		swap_state(v, *s, RDT_VEC_RESUME);
		__atomic_fetch_sub(&in->aexits, 1, __ATOMIC_RELAXED);
		for (unsigned n = 0; n < 16; n++)
			cpu.gpr[n] = c.gpr[n];
		report_gate(cpu, RDT_GATE_BAD_STATE);
		return false;
	}
	if (in->gate.secret)
		cpu.dirty |= RDT_CPU_SECRET;
	cpu.gpr[rdi] = token;
	cpu.rflags = rflags_fixed | (flags & rflags_if);
	cpu.dirty |= RDT_CPU_RFLAGS;
	go(cpu, view_root, stub, caller_rsp, caller_cr3);
	v.inside = nullptr;
	v.slot = nullptr;
	v.view = view_root;
	return true;
}

/*
 * Nothing of a call is kept: the event strikes at the gate, before the call, and the named registers have
 * the constant already.
 */
[[gnu::noinline]] bool Vm::rewind(Vcpu &v, rdt_cpu &cpu)
{
	Inside *in = v.inside;
	Slot *s = v.slot;
	const Context &c = s->context;
	const u64 epoch = in->epoch;

	for (unsigned n = 0; n < 16; n++)
		cpu.gpr[n] = in->gate.erased & 1u << n ? in->gate.erasure : c.gpr[n];
	swap_state(v, *s, RDT_VEC_LEAVE);
	/* An interrupt cannot have struck where they are off: VM entry would fail. */
	cpu.rflags = c.rflags | (cpu.rflags & rflags_if);
	cpu.dirty |= RDT_CPU_RFLAGS | RDT_CPU_SECRET;
	go(cpu, view_root, c.rip, s->caller.rsp, s->caller.cr3);
	__atomic_fetch_add(&in->aexits, 1, __ATOMIC_RELAXED);
	v.inside = nullptr;
	v.slot = nullptr;
	v.view = view_root;
	/* Behind the last look at what it holds. */
	if (!s->release(epoch))
		report_gate(cpu, RDT_GATE_BAD_STATE);
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

	Inside *in = inside_of(token);
	u8 refuse = 0;

	/* Who is in the middle of destroying it voids the token sooner or later. */
	if (in && in->gate.domain && static_cast<Domain *>(in)->state() != Domain::State::Sealed) {
		report_gate(cpu, RDT_GATE_BAD_TOKEN);
		return hc_enoent;
	}
	if (!in)
		refuse = RDT_GATE_BAD_STATE;
	else if (cpu.cpl != in->gate.cpl)
		refuse = RDT_GATE_BAD_CPL;
	else if (v.view != view_root)
		refuse = RDT_GATE_INSIDE;
	else if (!idt_fits(in->gate, cpu.idt_base))
		refuse = RDT_GATE_BAD_IDT;
	else if (cpu.va_bits != in->gate.va_bits)
		refuse = RDT_GATE_BAD_STATE;
	if (refuse) {
		report_gate(cpu, refuse);
		return hc_eperm;
	}

	Slot *s = in->slots.resume(token);

	if (!s) {
		report_gate(cpu, RDT_GATE_BAD_TOKEN);
		return hc_einval;
	}

	if (flags & RDT_RESUME_DROP) {
		if (s->release(in->epoch))
			return 0;
		report_gate(cpu, RDT_GATE_BAD_STATE);
		return hc_eperm;
	}

	const Context &c = s->context;

	s->caller.rsp = cpu.rsp;
	s->caller.cr3 = cpu.cr3;
	for (unsigned n = 0; n < 16; n++)
		cpu.gpr[n] = c.gpr[n];
	cpu.rflags = flags_of(c.rflags, in->gate.cpl, cpu.rflags);
	cpu.dirty |= RDT_CPU_RFLAGS;
	/* A secret's address space is the caller's as it is now. */
	go(cpu, c.view, c.rip, c.gpr[rsp], in->gate.secret ? cpu.cr3 : c.cr3);
	if (in->gate.secret)
		cpu.dirty |= RDT_CPU_SECRET;
	swap_state(v, *s, RDT_VEC_RESUME);
	v.inside = in;
	v.slot = s;
	v.view = c.view;
	return 0;
}

/* A token that names no domain that is there is integrity mode's to refuse. */
Inside *Vm::inside_of(u64 token)
{
	const u8 view = Slots::view_of(token);
	const Domains *ds = domains();
	Domain *d = ds && is_domain(view) ? load_acquire(ds->at[view]) : nullptr;

	return d ? static_cast<Inside *>(d) : load_acquire(integrity_);
}

/* What the VMM sees of a vCPU is not the inside of a domain. */
bool Vm::put(Vcpu &v, rdt_cpu &cpu, u8 soft_len, bool io)
{
	if (!v.inside || !v.inside->gate.domain)
		return false;
	if (!io)
		return aexit(v, cpu, soft_len);
	report_gate(cpu, RDT_GATE_IO);
	cut_short(v, cpu, hc_eperm);
	return true;
}

/* The domain is to go: so is whoever is in it. */
bool Vm::evict(Vcpu &v, rdt_cpu &cpu)
{
	if (!v.inside || !v.inside->gate.domain ||
	    static_cast<Domain *>(v.inside)->state() == Domain::State::Sealed)
		return false;
	cut_short(v, cpu, hc_enoent);
	return true;
}

} // namespace redoubt
