/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The inside: the part of the driver that runs in integrity mode, and its data.
 * Shared between the inside, the assembly around it and the ordinary driver.
 *
 * The inside is an island. It is compiled apart, calls nothing of the kernel, and
 * lies in sections of its own that share no page with anything else:
 *
 *   .redoubt.text        a   the code; the kernel maps it read-only and not executable.
 *                            Its last page is the exit page.
 *   .text..redoubt.gate  ax  one page, the fault door
 *   .text..redoubt.call  ax  one page, the hypercall door and the resume stub
 *   .redoubt.data        aw  struct rdt_inside
 *
 * Code of the inside needs no execute right in the kernel's page tables: only the
 * inside's own tables are in force when it runs. Not being executable also
 * keeps objtool, alternatives, static calls and call-depth patching off it.
 */
#ifndef _REDOUBT_INSIDE_H
#define _REDOUBT_INSIDE_H

/* For assembly, which cannot read the uapi header; proved equal in integrity.c. */
#define RDT_ASM_HC_ENTER	0x52440008
#define RDT_ASM_HC_LEAVE	0x52440009
#define RDT_ASM_HC_RESUME	0x5244000a
#define RDT_ASM_RESUME_DROP	1

/*
 * The inside's stacks lie at addresses that no kernel uses, with 4 or with 5 levels of
 * tables: the hole below the CPU entry area. So RSP tells where a CPU is.
 */
#define RDT_STACK_VA		0xfffffc0000000000
#define RDT_STACK_SHIFT		41
#define RDT_STACK_TAG		0x7ffffe	/* RDT_STACK_VA >> RDT_STACK_SHIFT */

/* Offsets into struct rdt_inside, proved equal in inside.c. */
#define RDT_INSIDE_VMMCALL	0
#define RDT_INSIDE_LEAVE_HC	4

#ifndef __ASSEMBLY__

#include <linux/types.h>
#include <linux/redoubt_guest.h>
#include "redoubt_driver.h"

#define RDT_POLICY_MAX		1024

/* One range the driver protects. Free when pages is 0. */
struct rdt_policy {
	__u64 gpa;
	__u32 pages;
	__u8 action;
	__u8 cls;
	__u16 flags;		/* RDT_F_* */
};

/**
 * struct rdt_inside - all data of the inside. After sealing it can be read in normal
 * mode and written in integrity mode only.
 * @vmmcall: hypercall instruction of this CPU: 1 vmmcall, 0 vmcall.
 * @leave_hc: leave by hypercall instead of by a jump to the exit page.
 * @busy: lock of the policy table. Tried, never spun on: its holder may be an
 *	interrupted thread of this very CPU.
 * @key, @digest: SipHash-2-4 over the table, kept up to date by each change.
 * @test: address, in the inside's tables, of the test page; 0 none.
 */
struct rdt_inside {
	__u32 vmmcall;
	__u32 leave_hc;
	__u32 busy;
	__u32 nr;
	__u64 key[2];
	__u64 digest;
	__u64 test;
	__u64 calls[RDT_OP_NR];
	__u64 refused;
	__u64 counter[RDT_USER_COUNTERS];
	struct rdt_policy policy[RDT_POLICY_MAX];
} __attribute__((aligned(4096)));

extern struct rdt_inside rdt_inside_data;

/* gate.S. The pages from start to end are whole: nothing else lies on them. */
extern char rdt_text_start[], rdt_exit[], rdt_exit_end[];
extern char rdt_gate[], rdt_gate_end[], rdt_call_start[], rdt_call_end[];
extern char rdt_call_behind[], rdt_resume[];
long rdt_enter_fault(void);	/* C does not know their convention: */
long rdt_enter_hc(void);	/* see redoubt_call() */

#endif /* __ASSEMBLY__ */
#endif /* _REDOUBT_INSIDE_H */
