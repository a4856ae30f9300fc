// SPDX-License-Identifier: GPL-2.0
/* What the operator is told. */
#include "vm.h"

namespace redoubt {

rdt_event Vm::event_for(u16 type, const rdt_cpu *cpu) const
{
	rdt_event ev = {};

	ev.type = type;
	if (cpu) {
		ev.vcpu = cpu->vcpu;
		ev.cpl = cpu->cpl;
		ev.view = domains() ? domains()->home(cpu->view) : cpu->view;
		ev.rip = cpu->rip;
		ev.cr3 = cpu->cr3;
	} else {
		ev.flags |= RDT_EVF_HOST;
	}
	return ev;
}

/* From or to a domain. What is there is nobody's business, the operator's included. */
void Vm::report_border(const rdt_fault &f, const rdt_cpu *cpu)
{
	rdt_event ev = event_for(RDT_EV_DOMAIN_ACCESS, cpu);
	const Owner o = owner(f.gpa >> page_shift);

	ev.action = RDT_ACT_DENY;
	ev.cls = o ? RDT_CLS_DOMAIN : RDT_CLS_OTHER;
	ev.code = f.access;
	ev.domain = o.view();
	ev.gpa = f.gpa;
	ev.range_gpa = f.gpa & ~(page_size - 1);
	ev.range_pages = 1;
	if (f.gva_valid) {
		ev.gva = f.gva;
		ev.flags |= RDT_EVF_GVA;
	}
	if (f.emulated)
		ev.flags |= RDT_EVF_EMULATED;
	if (f.vectoring)
		ev.flags |= RDT_EVF_EVENT;
	raise(ev);
}

void Vm::report_domain(u8 code, const Domain *d, const rdt_cpu *cpu)
{
	rdt_event ev = event_for(RDT_EV_DOMAIN, cpu);

	ev.code = code;
	if (code == RDT_DOM_EV_CALLER)
		ev.action = RDT_ACT_DENY;
	if (d) {
		ev.domain = d->gate.view;
		ev.range_pages = d->frames;
	}
	raise(ev);
}

void Vm::report_write(const rdt_fault &f, const rdt_cpu *cpu, const Rule &rule, u8 action)
{
	if (rule.cls == RDT_CLS_DOMAIN)
		return report_border(f, cpu);

	u16 type = f.host			  ? RDT_EV_KVM_WRITE
		   : rule.cls == RDT_CLS_NODE	  ? RDT_EV_TREE_WRITE
		   : rule.cls >= RDT_CLS_DRV_TEXT ? RDT_EV_DRIVER_WRITE
						  : RDT_EV_WRITE;
	rdt_event ev = event_for(type, cpu);
	u64 room = page_size - (f.gpa & (page_size - 1));
	u32 n = static_cast<u32>(min_of<u64>(f.size && f.size < 8 ? f.size : 8, room));
	u64 old_val = 0;

	ev.action = action;
	ev.cls = rule.cls;
	ev.gpa = f.gpa;
	ev.range_gpa = rule.first << page_shift;
	ev.range_pages = rule.count;
	if (f.gva_valid) {
		ev.gva = f.gva;
		ev.flags |= RDT_EVF_GVA;
	}
	if (f.size) {
		ev.size = f.size;
		ev.flags |= RDT_EVF_SIZE;
	}
	if (f.old_val)
		__builtin_memcpy(&old_val, f.old_val, n);
	if (f.old_val || !rdt_port_peek(host_, f.gpa, &old_val, n) ||
	    !rdt_port_read(host_, f.gpa, &old_val, n)) {
		ev.old_val = old_val;
		ev.flags |= RDT_EVF_OLD;
	}
	if (f.new_val && f.size) {
		__builtin_memcpy(&ev.new_val, f.new_val, n);
		ev.flags |= RDT_EVF_NEW;
	}
	if (f.emulated)
		ev.flags |= RDT_EVF_EMULATED;
	if (f.vectoring)
		ev.flags |= RDT_EVF_EVENT;
	raise(ev);
}

void Vm::report_gate(const rdt_cpu &cpu, u8 code)
{
	rdt_event ev = event_for(RDT_EV_GATE, &cpu);

	ev.code = code;
	ev.action = RDT_ACT_DENY;
	raise(ev);
}

void Vm::report_refused(u16 type, const rdt_cpu *cpu, gpa_t gpa, u64 pages)
{
	rdt_event ev = event_for(type, cpu);

	ev.action = RDT_ACT_DENY;
	ev.gpa = gpa;
	ev.range_gpa = gpa;
	ev.range_pages = pages;
	raise(ev);
}

/* Said once: from then on every refused write is an alert of its own. */
void Vm::tree_corrupt()
{
	if (__atomic_exchange_n(&corrupt_reported_, true, __ATOMIC_RELAXED))
		return;

	rdt_event ev = event_for(RDT_EV_TREE_CORRUPT, nullptr);

	ev.action = RDT_ACT_DENY;
	raise(ev);
	rdt_port_log(host_, "monitored-page tree is corrupt: all protected frames stay denied", 0,
		     0);
}

} // namespace redoubt
