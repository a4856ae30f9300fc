/* SPDX-License-Identifier: GPL-2.0 */
/* Every event of the ring as a tracepoint, for perf, trace-cmd and bpftrace. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM redoubt

#if !defined(RDT_KVM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define RDT_KVM_TRACE_H

#include <linux/tracepoint.h>
#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>

#define rdt_show_type(type) __print_symbolic(type,		\
	{ RDT_EV_WRITE,			"write" },		\
	{ RDT_EV_TREE_WRITE,		"tree_write" },		\
	{ RDT_EV_DRIVER_WRITE,		"driver_write" },	\
	{ RDT_EV_GATE,			"gate" },		\
	{ RDT_EV_UNPROTECT,		"unprotect" },		\
	{ RDT_EV_PROTECT_REFUSED,	"protect_refused" },	\
	{ RDT_EV_TREE_CORRUPT,		"tree_corrupt" },	\
	{ RDT_EV_MAPPING_CHANGED,	"mapping_changed" },	\
	{ RDT_EV_KVM_WRITE,		"kvm_write" },		\
	{ RDT_EV_PV_STRUCT,		"pv_struct" },		\
	{ RDT_EV_EXEC,			"exec" },		\
	{ RDT_EV_ATTACH,		"attach" },		\
	{ RDT_EV_DETACH,		"detach" },		\
	{ RDT_EV_SEALED,		"sealed" },		\
	{ RDT_EV_VM_DEAD,		"vm_dead" })

#define rdt_show_action(action) __print_symbolic(action,	\
	{ RDT_ACT_NONE,			"none" },		\
	{ RDT_ACT_LOG,			"log" },		\
	{ RDT_ACT_DENY,			"deny" },		\
	{ RDT_ACT_FREEZE,		"freeze" })

TRACE_EVENT(redoubt_event,

	TP_PROTO(const struct rdt_event *ev),

	TP_ARGS(ev),

	TP_STRUCT__entry(
		__field(u64, seq)
		__field(u64, gpa)
		__field(u64, gva)
		__field(u64, rip)
		__field(u64, cr3)
		__field(u64, range_gpa)
		__field(u64, range_pages)
		__field(u64, old_val)
		__field(u64, new_val)
		__field(u32, vm_id)
		__field(u32, vcpu)
		__field(u32, flags)
		__field(u16, type)
		__field(u8, action)
		__field(u8, cls)
		__field(u8, cpl)
		__field(u8, view)
		__field(u8, size)
		__field(u8, code)
	),

	TP_fast_assign(
		__entry->seq = ev->seq;
		__entry->gpa = ev->gpa;
		__entry->gva = ev->gva;
		__entry->rip = ev->rip;
		__entry->cr3 = ev->cr3;
		__entry->range_gpa = ev->range_gpa;
		__entry->range_pages = ev->range_pages;
		__entry->old_val = ev->old_val;
		__entry->new_val = ev->new_val;
		__entry->vm_id = ev->vm_id;
		__entry->vcpu = ev->vcpu;
		__entry->flags = ev->flags;
		__entry->type = ev->type;
		__entry->action = ev->action;
		__entry->cls = ev->cls;
		__entry->cpl = ev->cpl;
		__entry->view = ev->view;
		__entry->size = ev->size;
		__entry->code = ev->code;
	),

	TP_printk("vm %u seq %llu %s action %s code %u vcpu %u cpl %u view %u rip %llx cr3 %llx gpa %llx gva %llx size %u old %llx new %llx range %llx+%llu class %u flags %x",
		  __entry->vm_id, __entry->seq, rdt_show_type(__entry->type),
		  rdt_show_action(__entry->action), __entry->code, __entry->vcpu,
		  __entry->cpl, __entry->view, __entry->rip, __entry->cr3,
		  __entry->gpa, __entry->gva, __entry->size, __entry->old_val,
		  __entry->new_val, __entry->range_gpa, __entry->range_pages,
		  __entry->cls, __entry->flags)
);

#endif

/* Relative to include/, which is on the search path. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH ../src/kvm
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
