/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Redoubt: the interface between a guest kernel and the host module.
 *
 * A hypercall is `vmcall` (Intel) or `vmmcall` (AMD) from CPL 0 in 64-bit mode
 * with its number in RAX and arguments in RBX, RCX, RDX, RSI, KVM's own
 * convention; the result comes back in RAX, errors as KVM's negative codes.
 * A host without Redoubt answers every number here with -KVM_ENOSYS (-1000).
 * Reserved bits and unused arguments must be zero.
 */
#ifndef _UAPI_LINUX_REDOUBT_GUEST_H
#define _UAPI_LINUX_REDOUBT_GUEST_H

#include <linux/types.h>

#define RDT_HC_BASE		0x52440000u
#define RDT_HC_LAST		0x524400ffu

/**
 * RDT_HC_VERSION - () -> ABI version (positive).
 * Works on any VM of a host with Redoubt, attached or not.
 */
#define RDT_HC_VERSION		(RDT_HC_BASE + 0)
#define RDT_ABI_VERSION		1

/** RDT_HC_STATUS - () -> RDT_ST_* bits. Works attached or not. */
#define RDT_HC_STATUS		(RDT_HC_BASE + 1)
#define RDT_ST_ATTACHED		(1u << 0)	/* the host watches this VM */
#define RDT_ST_SEALED		(1u << 1)	/* an integrity driver is registered */
#define RDT_ST_TREE_CORRUPT	(1u << 2)	/* the tree was found corrupt: all actions are DENY */
#define RDT_ST_EPT		(1u << 3)	/* Intel host (else AMD) */
#define RDT_ST_SELF_ATTACH	(1u << 4)	/* RDT_HC_ATTACH would be honoured */

/**
 * RDT_HC_ATTACH - (flags = 0) -> 0.
 * Asks the host to watch this VM. -EPERM unless the operator's policy allows
 * guests to attach themselves; -EEXIST when attached already.
 */
#define RDT_HC_ATTACH		(RDT_HC_BASE + 2)

/**
 * RDT_HC_NODE_ADD - (gpa) -> number of node pages the tree has now.
 * Donates one page-aligned RAM page to hold tree nodes. From then on the guest
 * can read it and cannot write it. -EINVAL unaligned, -EFAULT not RAM, -EBUSY
 * restricted already or as below, -E2BIG too many (RDT_MAX_NODE_PAGES), -ENOMEM
 * the host has none. Once the tree is corrupt, this and each call that would change
 * policy: -EPERM.
 */
#define RDT_HC_NODE_ADD		(RDT_HC_BASE + 3)
#define RDT_MAX_NODE_PAGES	4096

/**
 * RDT_HC_PROTECT - (gpa, pages, attr) -> 0.
 * Restricts writes to [gpa, gpa + pages * 4096). @attr is RDT_ATTR(action, class).
 * From normal mode it may add, and replace by a stronger action; any other change
 * of a range is refused with -EPERM and an alert. From integrity mode it may replace
 * ranges that are not the driver's own. What the host's operator protects is the
 * operator's alone to change. -EINVAL bad range or attr, -EFAULT a frame is not
 * RAM, -ENOMEM (-12) no free node: donate one and repeat; nothing was changed.
 * -EBUSY: a frame holds a structure that KVM itself writes (kvmclock, steal
 * time, async #PF, PV EOI), or held one last: KVM would go back there unasked.
 */
#define RDT_HC_PROTECT		(RDT_HC_BASE + 4)
#define RDT_ACT_NONE		0
#define RDT_ACT_LOG		1	/* the write happens and is recorded */
#define RDT_ACT_DENY		2	/* #GP(0), nothing changes */
#define RDT_ACT_FREEZE		3	/* the vCPU stops before the write, the VMM is told */
#define RDT_ATTR(action, cls)	((__u64)(action) | ((__u64)(cls) << 8))
#define RDT_ATTR_ACTION(a)	((a) & 0xff)
#define RDT_ATTR_CLASS(a)	(((a) >> 8) & 0xff)
/* Classes are labels for reports, the guest's choice; 0x80 and up are Redoubt's own. */
#define RDT_CLS_OTHER		0
#define RDT_CLS_TEXT		1
#define RDT_CLS_RODATA		2
#define RDT_CLS_IDT		3
#define RDT_CLS_SYSCALL		4
#define RDT_CLS_PGTABLE		5	/* the CPU still updates accessed and dirty here, silently */
#define RDT_CLS_MODULE		6
#define RDT_CLS_GUEST_MAX	0x7f
#define RDT_CLS_NODE		0x80	/* a node page of the tree */
#define RDT_CLS_DRV_TEXT	0x81
#define RDT_CLS_DRV_DATA	0x82
#define RDT_CLS_DRV_GATE	0x83
#define RDT_CLS_DRV_EXIT	0x84
#define RDT_CLS_DOMAIN		0x90	/* a frame of a protection domain */

/**
 * RDT_HC_UNPROTECT - (gpa, pages) -> 0. Integrity mode only.
 * From normal mode: -EPERM, an alert, nothing changes (A5). The driver's own
 * frames, node pages, the IDT and what the operator protects cannot be unprotected
 * (-EPERM, an alert). -EINVAL bad range, -ENOENT no frame of it is protected, -ENOMEM
 * it would cut a range in two and there is no free node.
 */
#define RDT_HC_UNPROTECT	(RDT_HC_BASE + 5)

/** RDT_HC_QUERY - (gpa) -> RDT_ATTR() of the frame, 0 when not restricted. */
#define RDT_HC_QUERY		(RDT_HC_BASE + 6)

/**
 * RDT_HC_DRIVER - (gpa of struct rdt_driver_desc) -> 0.
 * Registers the integrity driver, once: from then on its frames are protected
 * in every view and integrity mode exists. The descriptor is copied before it
 * is checked. -EEXIST a driver is registered; -EINVAL names are in the host log;
 * -EFAULT a frame is not RAM; -EBUSY a frame is restricted already or holds a
 * structure of KVM's; -ENOMEM no free node or no memory of the host's; -EPERM the
 * operator has the IDT under LOG.
 */
#define RDT_HC_DRIVER		(RDT_HC_BASE + 7)

/**
 * RDT_HC_ENTER - from the gate instruction only. On success execution goes on
 * behind the instruction in integrity mode: RSP is a free slot's stack top,
 * CR3 the driver's. All other registers are the caller's.
 * -EPERM (alert): CPL, RIP, IDT or state is wrong. -EAGAIN: no free slot.
 */
#define RDT_HC_ENTER		(RDT_HC_BASE + 8)
/**
 * RDT_HC_LEAVE - (result) -> result, in normal mode, at the instruction behind
 * the gate call's return address; see struct rdt_driver_desc.
 */
#define RDT_HC_LEAVE		(RDT_HC_BASE + 9)
/**
 * RDT_HC_RESUME - (token, flags) does not return: the slot goes on where an event
 * interrupted it. A token is good once. -EINVAL (alert): stale or forged; unknown
 * flags. With RDT_RESUME_DROP the thread does not go on: its slot is free again and
 * the call returns 0 in normal mode (the event was an exception of the inside
 * that nobody will mend). LEAVE and RESUME serve domains, too; -ENOENT: the domain
 * is being destroyed.
 */
#define RDT_HC_RESUME		(RDT_HC_BASE + 10)
#define RDT_RESUME_DROP		1

/* Kinds of driver frames. */
#define RDT_DRV_TEXT		1	/* view 0: R-X, integrity: R-X */
#define RDT_DRV_DATA		2	/* view 0: R--, integrity: RW- (data, stacks, page tables) */
#define RDT_DRV_GATE		3	/* view 0: R-- (a jump faults: the door), integrity: R-X */
#define RDT_DRV_EXIT		4	/* view 0: R-X, integrity: R-- (a jump faults: the way out) */

struct rdt_drv_region {
	__u64 gpa;		/* page aligned */
	__u32 pages;		/* 1..2^20 */
	__u32 kind;		/* RDT_DRV_* */
};

#define RDT_DRV_MAX_REGIONS	200
#define RDT_DRV_MAX_SLOTS	64

/**
 * struct rdt_driver_desc - what the integrity driver is. Fits one page and must
 * not cross one.
 *
 * The inside may use the general registers only. Vector and x87 registers hold what
 * belongs to somebody outside (a process); they pass untouched both ways, also
 * through an asynchronous exit, whose handler may save them as that process's.
 *
 * @size: sizeof(struct rdt_driver_desc).
 * @flags: must be zero.
 * @cr3: the driver's own page tables (gpa of the PML4, flags bits zero); every
 *	frame they use must be in a DATA region.
 * @idt_gva: IDTR.base that every vCPU must have when it enters.
 * @idt_gpa: the frame behind it. Unreadable in integrity mode, which is what
 *	makes each event an asynchronous exit.
 * @gate_gva: address, in the driver's tables, of the fault door. The frame behind
 *	it must be of kind GATE. A jump to it in view 0 with R11 = return
 *	address and RAX, RBX, RCX, RDX, RSI, RDI as arguments enters; execution
 *	goes on at @gate_gva.
 * @exit_gva: address, in the driver's tables, on a frame of kind EXIT. A jump to it
 *	in integrity mode leaves: RIP = the caller's R11, RSP and CR3 the
 *	caller's, RAX the result, all other registers zero but RBX, RBP, R12-R15,
 *	which are the caller's again.
 * @call_gva: the hypercall door: address behind the RDT_HC_ENTER instruction; the
 *	frame behind it must be of kind TEXT. R11 = return address as above.
 * @call_gpa: the guest-physical address behind @call_gva.
 * @resume_gva: resume stub, ordinary (view 0) code on a TEXT frame: calls
 *	RDT_HC_RESUME with the token it finds in RDI. At least 16 NOPs precede it.
 * @slots: 1..RDT_DRV_MAX_SLOTS
 * @regions: 1..RDT_DRV_MAX_REGIONS
 * @stack_top: per slot, address in the driver's tables, 16-byte aligned.
 * @region: must not overlap. At most one page of kind GATE and one of kind EXIT.
 */
struct rdt_driver_desc {
	__u32 size;
	__u32 flags;
	__u64 cr3;
	__u64 idt_gva;
	__u64 idt_gpa;
	__u64 gate_gva;
	__u64 exit_gva;
	__u64 call_gva;
	__u64 call_gpa;
	__u64 resume_gva;
	__u32 slots;
	__u32 regions;
	__u64 reserved[5];
	__u64 stack_top[RDT_DRV_MAX_SLOTS];
	struct rdt_drv_region region[RDT_DRV_MAX_REGIONS];
};

/* ---- protection domains ------------------------------------------------
 * Documentation/domains.md. The calls up to SEAL, and DESTROY, are for CPL 0 in the
 * root view; from elsewhere -EPERM and an alert. An id is good for one domain and
 * never used again: -ENOENT when that is gone. After an error nothing has changed.
 */

/**
 * RDT_HC_DOM_CREATE - (gpa of struct rdt_domain_desc) -> id (positive).
 * -EINVAL the descriptor, the reason is in the host's log; -EFAULT it is not RAM;
 * -ENOSPC a VM has RDT_DOM_MAX domains and no more; -EDQUOT the operator allows
 * fewer; -ENOMEM the host has none.
 */
#define RDT_HC_DOM_CREATE	(RDT_HC_BASE + 16)
#define RDT_DOM_MAX		29
#define RDT_DOM_MAX_SLOTS	16
#define RDT_DOM_MAX_WINDOWS	8
#define RDT_DOM_MAX_SHARED	64	/* ranges of frames */

/* @flags */
#define RDT_DOM_USER		(1u << 0)	/* callers and inside are in ring 3, else ring 0 */
#define RDT_DOM_VECTOR		(1u << 1)	/* the inside uses vector registers */
#define RDT_DOM_SECRET		(1u << 2)	/* code with a secret in it, see below */
#define RDT_DOM_REWIND		(1u << 3)	/* a secret whose interrupted calls begin again */
#define RDT_DOM_EXPORTABLE	(1u << 8)	/* the operator may move its content, encrypted */

struct rdt_domain_window {
	__u64 gva;		/* page aligned */
	__u64 pages;		/* 1..2^15 */
};

/**
 * struct rdt_domain_desc - what a domain is, but for its pages. Must not cross a page.
 * Addresses are linear ones of the domain, canonical and in the lower half for a
 * domain of ring 3, but for @resume_gva.
 *
 * @size: sizeof(struct rdt_domain_desc).
 * @flags: RDT_DOM_*.
 * @gate_gva: entry point, on the page of kind GATE. A jump, by any mapping, to that
 *	offset of the page's frame enters: R11 = return address, RCX, RDX, RSI, RDI =
 *	arguments, all other registers are zero inside.
 * @exit_gva: on the page of kind EXIT. A jump to it leaves, as with the driver's.
 * @resume_gva: resume stub, code of the caller's side. At least 16 NOPs precede it.
 * @slots: threads that can be inside at once, 1..RDT_DOM_MAX_SLOTS.
 * @windows: 0..RDT_DOM_MAX_WINDOWS.
 * @stack_top: per slot, 16-byte aligned, 0 for the rest.
 * @window: where it takes shared frames, ascending, not overlapping; 0 for the rest.
 * @results: bit n: general register n, in the hardware's order, carries a result out.
 *	RSP never. A secret only, else 0.
 * @erased: likewise: the registers that an event finds @erasure in. Not RSP, R11. At least
 *	one with RDT_DOM_REWIND, else 0.
 * @erasure: the erasure constant; 0 without RDT_DOM_REWIND.
 *
 * A **secret** (RDT_DOM_SECRET, D1-D7) is code in which the operator has put a value that
 * nobody else ever has. It runs in its caller's address space: CR3 and RSP are the caller's,
 * @stack_top, @windows and @window 0; ordinary frames can be read and written, and not executed.
 * Its pages are one of kind GATE, one of kind EXIT, and TEXT, none of TABLE or DATA. They are executed, EXIT
 * but jumped to; on EPT they cannot be read, not by themselves either. What they have to keep to:
 *	- the placeholders of the value are immediate operands on the GATE page, nowhere else
 *	  can a value be installed;
 *	- code of the GATE page touches no memory: it loads registers, and computes in
 *	  them. What works on memory is on TEXT pages. Between both one jumps (which costs an
 *	  exit); no instruction lies across.
 *	- the caller's page tables say which of its pages an address is, even while it
 *	  runs. What is an instruction on one page is a trap (int3) at that place of the others.
 *	- nothing of the value is written to memory, the stack included: no CALL, no PUSH.
 * @gate_gva, @exit_gva and the pages' addresses are where the code is now, a module's or a
 * process's mapping. Only where they are from the gate page on is measured, and only their offset in
 * the page is compared: whoever maps it elsewhere may call it there.
 *
 * A secret takes two of the views that there are for domains.
 *
 * The only way in is the jump to the gate: with DOM_ENTER it is -EPERM and an alert. All
 * general registers are the caller's inside, RFLAGS is IF and fixed bits only. Until
 * a value is installed the gate answers -ENOKEY. The way out is the
 * jump to the exit page (or LEAVE): registers in @results are the inside's, the rest of
 * RAX, RCX, RDX, RSI, RDI, R8-R11 is 0, RBX, RBP, R12-R15, RFLAGS are the caller's. RAX too has
 * to be named. A call that is refused or cut short has the error in RAX and no results.
 *
 * An event inside is an asynchronous exit: @resume_gva and RESUME as with a domain. With
 * RDT_DOM_REWIND (@resume_gva 0) the call is forgotten instead: the event strikes at the
 * gate, all registers are as they were there when the call began, but those in @erased hold @erasure; who
 * returns from the handler calls again. The registers in @erased are the caller's no more.
 */
struct rdt_domain_desc {
	__u32 size;
	__u32 flags;
	__u64 gate_gva;
	__u64 exit_gva;
	__u64 resume_gva;
	__u32 slots;
	__u32 windows;
	__u32 results;
	__u32 erased;
	__u64 erasure;
	__u64 reserved[2];
	__u64 stack_top[RDT_DOM_MAX_SLOTS];
	struct rdt_domain_window window[RDT_DOM_MAX_WINDOWS];
};

/**
 * RDT_HC_DOM_ADD - (id, gpa, gva, RDT_DOM_PAGES(pages, kind)) -> 0.
 * The frames become the domain's, with what is in them; outside they are absent from
 * now on. Ascending in @gva, and above what was added before. Of kind TABLE: any time, @gva
 * 0; their content is not used. -EINVAL arguments, order, a second GATE or EXIT, or one
 * that is not where the descriptor says; -EFAULT not RAM; -EBUSY a frame is restricted,
 * somebody else's, or holds a structure of KVM's; -EPERM the domain is not being
 * built any more; -EDQUOT; -ENOMEM.
 */
#define RDT_HC_DOM_ADD		(RDT_HC_BASE + 17)
#define RDT_DOM_TEXT		1
#define RDT_DOM_DATA		2
#define RDT_DOM_GATE		3
#define RDT_DOM_EXIT		4
#define RDT_DOM_TABLE		5	/* for the domain's page tables */
#define RDT_DOM_ADD_MAX		512	/* pages in a call */
#define RDT_DOM_PAGES(pages, kind)	((__u64)(pages) | ((__u64)(kind) << 32))

/**
 * RDT_HC_DOM_SHARE - (id, gpa, gva, pages) -> 0.
 * Ordinary frames of the guest appear inside at @gva, which is in one window of the domain's.
 * -EINVAL arguments, not in a window, or given already; -EFAULT not RAM; -EBUSY a
 * frame is restricted; -EPERM not being built; -E2BIG RDT_DOM_MAX_SHARED ranges.
 */
#define RDT_HC_DOM_SHARE	(RDT_HC_BASE + 18)

/**
 * RDT_HC_DOM_SEAL - (id) -> 0.
 * Makes the page tables and the measurement final, and opens the gate. -EINVAL: GATE, EXIT or
 * frames for a window are missing, a page lies in a window, or a stack top is not on a DATA
 * page; -ENOMEM: give more frames of kind TABLE, or the host has no memory;
 * -EPERM not being built.
 */
#define RDT_HC_DOM_SEAL		(RDT_HC_BASE + 19)

/**
 * RDT_HC_DOM_ENTER - (id) -> what the inside leaves with. CPL 0 only; ring 3 has the
 * gate page. Registers as at the gate, RBX is @id. -ENOENT no such domain is sealed;
 * -EPERM (alert) CPL, view or state is wrong, or it is a secret; -EAGAIN no free slot.
 */
#define RDT_HC_DOM_ENTER	(RDT_HC_BASE + 20)

/**
 * RDT_HC_DOM_MEASURE - (id) -> 0, and the SHA-256 in RBX, RCX, RDX, RSI.
 * The first byte is the lowest of RBX. @id 0: of the domain that asks. From inside
 * only 0. -ENOENT none such; -EPERM not sealed.
 */
#define RDT_HC_DOM_MEASURE	(RDT_HC_BASE + 21)

/**
 * RDT_HC_DOM_DESTROY - (id) -> 0: its pages are overwritten, the guest's frames are
 * the guest's again, all zero. -EAGAIN: a thread is inside; nobody new gets in, and who was
 * interrupted does not come back. Ask again.
 */
#define RDT_HC_DOM_DESTROY	(RDT_HC_BASE + 22)

#endif /* _UAPI_LINUX_REDOUBT_GUEST_H */
