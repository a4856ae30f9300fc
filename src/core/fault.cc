// SPDX-License-Identifier: GPL-2.0
/* Permissions, and what is done about an access that they refuse. */
#include "vm.h"

namespace redoubt {

/*
 * The permission tables of the views; DESIGN: "permission = core(view, gfn)".
 * An unrestricted frame costs the bit test and nothing else.
 */
u8 Vm::access(u8 view, gfn_t gfn) const
{
	bool restricted = restricted_.test(gfn);

	if (view == view_root || view == view_step) {
		if (!restricted)
			return RDT_ACC_RWX;

		u8 w = view == view_step && step_.granted(gfn) ? RDT_ACC_W : 0;

		switch (kind(gfn)) {
		case FrameKind::Gate: /* a jump to it is the fault door */
		case FrameKind::Data:
			return RDT_ACC_R;
		default:
			return owner(gfn) ? u8{0} : RDT_ACC_R | RDT_ACC_X | w;
		}
	}
	if (view != view_integrity)
		return domain_access(view, gfn);
	if (!restricted)
		return RDT_ACC_R | RDT_ACC_W;
	switch (kind(gfn)) {
	case FrameKind::Text:
	case FrameKind::Gate:
		return RDT_ACC_R | RDT_ACC_X;
	case FrameKind::Data:
		return RDT_ACC_R | RDT_ACC_W;
	case FrameKind::Idt: /* an event delivered inside ends here: asynchronous exit */
		return 0;
	default: /* Exit: a jump to it leaves. Others: monitored inside as outside. */
		return owner(gfn) ? 0 : RDT_ACC_R;
	}
}

/* Its own frames, and of the guest's those that are shared with it while under no rule. */
u8 Vm::domain_access(u8 view, gfn_t gfn) const
{
	const Domains *ds = domains();
	const Domain *d = ds && is_domain(view) ? load_acquire(ds->at[ds->home(view)]) : nullptr;

	if (!d)
		return 0;
	if (d->gate.secret)
		return secret_access(*d, view, gfn);
	if (!restricted_.test(gfn))
		return d->shares(gfn) ? RDT_ACC_R | RDT_ACC_W : 0;

	const Owner o = ds->map.find(gfn);

	if (o.view() != view)
		return 0;
	switch (o.kind()) {
	case RDT_DOM_TEXT:
	case RDT_DOM_GATE:
		return RDT_ACC_R | RDT_ACC_X;
	case RDT_DOM_EXIT: /* a jump to it leaves */
		return RDT_ACC_R;
	default:
		return RDT_ACC_R | RDT_ACC_W;
	}
}

/* In its caller's address space: all that is the guest's, not to execute; its own code. */
u8 Vm::secret_access(const Domain &d, u8 view, gfn_t gfn) const
{
	const Gate &gate = d.gate;

	if (!restricted_.test(gfn))
		return RDT_ACC_R | RDT_ACC_W;

	const Owner o = owner(gfn);

	if (!o)
		return RDT_ACC_R;
	if (o.view() != gate.view)
		return 0;
	switch (o.kind()) {
	case RDT_DOM_GATE:
		return view == gate.view ? gate.text : 0;
	case RDT_DOM_TEXT:
		return view == gate.work_view ? gate.text : 0;
	default: /* EXIT: a jump to it leaves. */
		return 0;
	}
}

/*
 * A secret's caller chooses its page tables, and can change them at any time: what an address leads to is his
 * to say. So a secret has two views, one with the GATE page and one with TEXT, and a jump from one to the
 * other comes by here: the page must be as far from the gate as it was measured. (RIP: neither
 * does an instruction lie across.) And where code cannot be executed without being readable, what works
 * on the caller's memory cannot be given the GATE page, where the value is, to work on.
 */
bool Vm::other_half(Vcpu &v, gfn_t gfn, rdt_cpu &cpu) const
{
	const Gate &gate = v.inside->gate;
	const Owner o = gate.work_view ? owner(gfn) : Owner();
	u64 gva;

	if (o.view() != gate.view || (o.kind() != RDT_DOM_GATE && o.kind() != RDT_DOM_TEXT) ||
	    !static_cast<Domain *>(v.inside)->address(gfn, &gva) ||
	    (cpu.rip - v.slot->entered + gate.gate_gva) >> page_shift != gva >> page_shift)
		return false;
	v.view = cpu.view = o.kind() == RDT_DOM_GATE ? gate.view : gate.work_view;
	cpu.dirty |= RDT_CPU_VIEW | RDT_CPU_SECRET;
	return true;
}

void *Vm::private_page(u8 view, gfn_t gfn) const
{
	const Owner o = is_domain(view) && restricted_.test(gfn) ? owner(gfn) : Owner();

	return o && o.view() == domains()->home(view) ? o.page() : nullptr;
}

int Vm::max_level(u8 view, gfn_t gfn, int level) const
{
	/* Next to a domain's frame there may be anything. */
	if (is_domain(view))
		return 1;
	while (level > 1) {
		u64 frames = 1ull << (9 * (level - 1));

		if (!restricted_.any(gfn & ~(frames - 1), frames))
			break;
		level--;
	}
	return level;
}

/* The rule that holds for a restricted frame. False: there is none (any more). */
bool Vm::rule_of(gfn_t gfn, Rule *out)
{
	/* Node pages first, then the ranges. */
	if (tree_.is_node_page(gfn)) {
		*out = {gfn, 1, RDT_CLS_NODE, RDT_ACT_DENY};
		return true;
	}

	FrameKind k = kind(gfn);

	if (k != FrameKind::None && k != FrameKind::Idt) {
		*out = {gfn, 1, class_of(k), RDT_ACT_DENY};
		return true;
	}

	if (owner(gfn)) {
		*out = {gfn, 1, RDT_CLS_DOMAIN, RDT_ACT_DENY};
		return true;
	}

	Range r;

	switch (tree_.find(gfn, &r)) {
	case Status::Ok:
		*out = {r.first, r.count, r.cls, static_cast<u8>(r.action)};
		return true;
	case Status::None:
	case Status::Busy:
		return false;
	default:
		tree_corrupt();
		*out = {gfn, 1, RDT_CLS_OTHER, RDT_ACT_DENY};
		return true;
	}
}

/*
 * The action for a write, RDT_ACT_NONE when the frame is not restricted. A frame
 * whose bit is set while no rule is found is one that a writer of the policy is
 * working on: ask again when it is done. Still no rule then: fail closed.
 */
u8 Vm::find_action(gfn_t gfn, Rule *out)
{
	if (!restricted_.test(gfn))
		return RDT_ACT_NONE;
	if (rule_of(gfn, out))
		return out->action;

	rdt_port_lock(host_);

	u8 action = RDT_ACT_NONE;

	if (rule_of(gfn, out)) {
		action = out->action;
	} else if (restricted_.test(gfn)) {
		*out = {gfn, 1, RDT_CLS_OTHER, RDT_ACT_DENY};
		action = RDT_ACT_DENY;
	}
	rdt_port_unlock(host_);
	return action;
}

rdt_verdict Vm::fault(Vcpu *v, const rdt_fault &f, rdt_cpu &cpu)
{
	gfn_t gfn = f.gpa >> page_shift;
	u8 view = v ? v->view : view_root;

	/* A write in the root view is find_action()'s to judge. */
	if ((view != view_root || f.access != RDT_ACC_W) && access(view, gfn) & f.access && !f.mmio)
		return RDT_V_PASS;

	if (v && f.access == RDT_ACC_X && !f.vectoring && !f.walk)
		if (rdt_door at = at_door(*v, gfn)) {
			rdt_verdict verdict = door(*v, at, cpu);

			if (verdict != RDT_V_PASS)
				return verdict;
		}

	if (v && v->inside && f.access == RDT_ACC_X && !f.vectoring && !f.walk && other_half(*v, gfn, cpu))
		return RDT_V_RESUME;

	if (v && v->inside) {
		/* A domain has nothing that the delivery of an event could use. */
		if (f.vectoring && (v->inside->gate.domain || kind(gfn) == FrameKind::Idt))
			return aexit(*v, cpu, f.soft_len) ? RDT_V_AEX : RDT_V_FREEZE;
		/*
		 * The inside reached for what is not its own. Nothing of it happens and
		 * the call ends: the caller gets an error, the slot is free again.
		 */
		if (f.access == RDT_ACC_X) {
			report_refused(RDT_EV_EXEC, &cpu, f.gpa, 1);
		} else if (is_domain(view)) {
			report_border(f, &cpu);
		} else {
			Rule rule = {gfn, 1, RDT_CLS_OTHER, RDT_ACT_DENY};

			(void)find_action(gfn, &rule);
			report_write(f, &cpu, rule, RDT_ACT_DENY);
		}
		cut_short(*v, cpu, hc_eperm);
		return RDT_V_RESUME;
	}

	if (f.access == RDT_ACC_X) {
		const Owner o = owner(gfn);

		if (kind(gfn) == FrameKind::Gate || o.kind() == RDT_DOM_GATE)
			report_gate(cpu, RDT_GATE_BAD_RIP);
		else if (o)
			report_border(f, &cpu);
		else
			report_refused(RDT_EV_EXEC, &cpu, f.gpa, 1);
		return RDT_V_GP;
	}

	Rule rule = {};
	u8 action = find_action(gfn, &rule);

	if (steppable(f, rule, action)) {
		if (v)
			v->stepped = rule;
		return RDT_V_STEP;
	}
	switch (action) {
	case RDT_ACT_NONE:
		return RDT_V_PASS;
	case RDT_ACT_FREEZE:
		report_write(f, &cpu, rule, RDT_ACT_FREEZE);
		return RDT_V_FREEZE;
	default:
		report_write(f, &cpu, rule, RDT_ACT_DENY);
		return RDT_V_GP;
	}
}

void Vm::stored(const Vcpu &v, const rdt_fault &f, const rdt_cpu &cpu)
{
	report_write(f, &cpu, v.stepped, RDT_ACT_LOG);
}

rdt_verdict Vm::kvm_write(const rdt_fault &f, const rdt_cpu *cpu)
{
	gfn_t gfn = f.gpa >> page_shift;
	const u8 view = cpu ? cpu->view : view_root;

	/* It would write the VMM's page, not the domain's. */
	if (access(view, gfn) & RDT_ACC_W && !private_page(view, gfn))
		return RDT_V_PASS;

	Rule rule;
	u8 action = find_action(gfn, &rule);

	/* From inside a domain what is not its own is refused, rule or not. */
	if (action == RDT_ACT_NONE && is_domain(view)) {
		report_border(f, cpu);
		return RDT_V_GP;
	}
	if (action == RDT_ACT_NONE)
		return RDT_V_PASS;
	/*
	 * FREEZE cannot stop an emulation half-way: the write is refused. From inside
	 * LOG is refused too, as fault() does.
	 */
	if (action != RDT_ACT_LOG || (view != view_root && view != view_step))
		action = RDT_ACT_DENY;
	report_write(f, cpu, rule, action);
	return action == RDT_ACT_LOG ? RDT_V_PASS : RDT_V_GP;
}

bool Vm::walk_may_set(gfn_t gfn)
{
	Rule rule;

	return !restricted_.test(gfn) || (rule_of(gfn, &rule) && rule.cls == RDT_CLS_PGTABLE);
}

bool Vm::may_hold_pv(gpa_t gpa, u64 len)
{
	gfn_t first = gpa >> page_shift;
	gpa_t end = gpa + (len ? len - 1 : 0);
	gfn_t last = end >> page_shift;

	if (end >= gpa && !restricted_.any(first, last - first + 1))
		return true;
	report_refused(RDT_EV_PV_STRUCT, nullptr, gpa, last - first + 1);
	return false;
}

void Vm::mapping_changed(gfn_t first, u64 count)
{
	gfn_t at = restricted_.next_set(first, first + count);

	if (at == first + count)
		return;

	rdt_event ev = event_for(RDT_EV_MAPPING_CHANGED, nullptr);

	ev.gpa = at << page_shift;
	ev.range_gpa = first << page_shift;
	ev.range_pages = count;
	raise(ev);
}

} // namespace redoubt
