/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A small integrity driver for a test guest: the doors and the inside are in
 * driver.S, on pages of the program's image; its data, stacks and page tables at
 * fixed places of guest memory. The inside does what it is told, so that a test can
 * make it misbehave.
 */
#ifndef DRIVER_H
#define DRIVER_H

#define DRV_TABLES	0x1000000	/* PML4, PDPT, PD, PTs */
#define DRV_TABLES_PAGES 6
#define DRV_STACKS	0x1010000	/* a page each */
#define DRV_SLOTS	4
#define DRV_DATA	0x1020000	/* 2 pages */
#define DRV_ARGS	(DRV_DATA + 0xfd0) /* three */
#define DRV_VENDOR	(DRV_DATA + 0xff0) /* guest_is_intel */
#define DRV_OUTSIDE	0x1040000	/* 6 pages of others that the inside can see.. */
#define DRV_UNMAPPED	(DRV_OUTSIDE + 0x8000) /* ..and one only if it asks */
#define DRV_AFTER_SIZE	64

/* What the inside does; arguments in RSI, RDX, RCX, result in RAX. */
#define IN_ECHO		0	/* RSI + RDX */
#define IN_STORE	1	/* *RSI = RDX; 0 */
#define IN_LOAD		2	/* *RSI */
#define IN_JUMP		3	/* jump to RSI */
#define IN_HYPERCALL	4	/* RSI, arguments at DRV_ARGS */
#define IN_COMPUTE	5	/* RSI rounds over all registers */
#define IN_STOP		6	/* to the host, inside; then echo */
#define IN_EVENT	7	/* RSI: which */
#define IN_CR3		8
#define IN_LEAVE_HC	9	/* echo, and leave by hypercall */
#define IN_LEAVE_WRONG	10	/* jump to the exit page, not to the exit */
#define IN_STACK	11	/* RSP */
#define IN_EXEC_DATA	12	/* jump to the driver's own data */
#define IN_STOP_STORE	13	/* to the host, inside; then *RSI = RDX; *RSI */

/* IN_EVENT */
#define EV_DIV		0
#define EV_UD2		1
#define EV_INT3		2
#define EV_INT		3	/* int 0x90 */
#define EV_PF		4	/* load from RDX */
#define EV_STEP		5	/* eleven instructions with TF */
#define EV_NR		6

#ifndef __ASSEMBLER__
#include "vmm.h"

extern char drv_text[], drv_text_end[];		/* TEXT: inside, hypercall door, stub */
extern char drv_gate[], drv_gate_end[];		/* GATE */
extern char drv_exit[], drv_exit_end[];		/* EXIT */
extern char drv_behind_vmcall[], drv_behind_vmmcall[], drv_resume[];

/* What drv_call() notes on the way back, besides the result; by vCPU. */
struct drv_after {
	u64 rbx, rbp, r12, r13, r14;	/* the caller's again: 0xb8, 0xb9, 0xc1.. */
	u64 rsp_moved;			/* 0 */
	u64 scrubbed;			/* all others, or'ed */
	u64 rflags;
};
extern struct drv_after drv_after[GUEST_MAX_VCPUS];

/* What the guest's handlers saw of events that struck inside; by vCPU. */
struct drv_seen {
	u64 count, vector, error, cr2;
	u64 wrong_rip;			/* not at the stub */
	u64 leaked;			/* registers that were not zero, or'ed */
	u64 wrong_flags;
	u64 xmm;			/* what the handler found in XMM3, or'ed */
	u64 cs, ss, fs_base;		/* of the last */
	u64 token;			/* of the last */
	u64 park;			/* set: the handler stops with it, see g_take_over() */
};
extern struct drv_seen drv_seen[GUEST_MAX_VCPUS];

/* In the guest: this vCPU's exceptions and interrupts are looked at from now on. */
u64 g_watch_events(void);
u64 g_drv_call(u64 op, u64 a, u64 b, u64 door);
/* One-shot timer interrupts at random, every @period ns about; interrupts on to take them. */
u64 g_timer_on(u64 period);
u64 g_timer_off(void);

/* In the guest. @door: 0 the fault door, 1 the hypercall door, else where a domain's gate is. */
u64 drv_call(u64 op, u64 a, u64 b, u64 c, u64 door);
extern char drv_back[], drv_drop[], drv_compute[], drv_store[];

/* At the host: the descriptor that a correct driver registers, into guest memory. */
void drv_describe(struct rdt_driver_desc *d);
/* Page tables for the inside, and what it must know. */
void drv_make(struct vm *vm);
/* One entry of the inside's tables, as gpa. */
uint64_t drv_pte(uint64_t gva);
#endif
#endif
