/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest of the test guest: L2. It runs functions of the same program at the same
 * addresses, in ring 0, with L1's IDT, GS and (if not told otherwise) page tables, so it
 * takes its own exceptions and guest_try() works in it. What L1 gives it is up to the
 * test: struct l2_conf is set at the host.
 */
#ifndef L2_H
#define L2_H

#include "vmm.h"

#define L2_AREA		0x1800000
#define L2_VMCB		L2_AREA			/* or VMCS */
#define L2_HSAVE	(L2_AREA + 0x1000)
#define L2_VMXON	(L2_AREA + 0x2000)
#define L2_STACK	(L2_AREA + 0x8000)	/* its end */
#define L2_NPT		(L2_AREA + 0x10000)	/* PML4, PDPT, PD, PT: NPT or EPT */
#define L2_CR3		(L2_AREA + 0x20000)	/* a PML4 of its own */
/* By L1's nested tables these are the frames of l2_npt_make(), and nothing by its own. */
#define L2_ALIAS	0x30000000ul

#define MSR_VMX_PROC		0x482
#define MSR_VMX_PROC2		0x48b
#define PROC_TPR_SHADOW		(1u << 21)
#define PROC2_SHADOW_VMCS	(1u << 14)
#define PROC2_APIC_ACCESS	(1u << 0)
#define PROC_MSR_BITMAP		(1u << 28)
#define PROC_SECONDARY		(1u << 31)

struct l2_conf {
	u64 vmcb, hsave;	/* SVM; the VMCS is vmcb too */
	u64 npt;		/* root of L1's nested tables, 0: none; EPT: with its low bits */
	u64 cr3;
	u64 calls;		/* SVM: L1 wants L2's hypercalls; on VMX it always does */
	u64 vapic;		/* VMX: the virtual-APIC page, 0: none */
	u64 apic_access;	/* VMX: the APIC-access page, 0: none */
	u64 msr_bitmap;		/* VMX: 0: none */
	u64 msr_store;		/* VMX: where to store an MSR at exit, 0: none */
	u64 link;		/* VMX: a shadow VMCS to link, 0: none */
};
extern struct l2_conf l2_conf;

struct l2_exit {
	s64 entered;		/* 0; SVM: the vector of VMRUN; VMX: VM-instruction error */
	u64 code, info1, info2, rip;
	u64 result;		/* with L2_HLT: of the function */
};
extern struct l2_exit l2_exit;

#define L2_HLT		(guest_is_intel ? 12u : 0x78u)
#define L2_VMCALL	(guest_is_intel ? 18u : 0x81u)

/* In the guest. Each vCPU once: SVME, or VMXON; 0 or what went wrong. */
u64 g_l2_on(void);
/* A VMCB, or the current VMCS, by l2_conf, that calls the function. */
u64 g_l2_make(u64 fn, u64 a, u64 b);
/* Enter it, until its next exit; the function's result, all else in l2_exit. */
u64 g_l2_enter(void);
u64 g_l2(u64 fn, u64 a, u64 b);		/* both */
/* The vector, or -1. */
u64 g_vmload(u64 gpa);
u64 g_vmsave(u64 gpa);
/* 0, or 1: VMfailInvalid, 2: VMfailValid */
u64 g_vmptrld(u64 gpa);
u64 g_vmclear(u64 gpa);
u64 g_vmread_to(u64 gva);		/* a field; the vector, or -1 */
u64 g_l2_has(u64 msr, u64 control);	/* may a VMX control be set? */

/* At the host: an identity of 1 GiB in large pages, and the alias of @n frames. */
void l2_npt_make(struct vm *vm, const uint64_t *frame, int n);
/* Can a guest of this host nest? */
bool l2_possible(void);

#endif
