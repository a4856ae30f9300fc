/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What tests put into their domains: three pages of code, which run wherever they
 * are mapped one behind the other. Like the driver's inside it does what it is told.
 */
#ifndef DOMAIN_H
#define DOMAIN_H

#define DOM_GATE_AT	0x40	/* of the first page */
#define DOM_EXIT_AT	0x80	/* of the second */
#define DOM_CODE_PAGES	3

/* Arguments in RSI, RDX; result in RAX. */
#define DOM_ADD		0	/* RSI + RDX */
#define DOM_STORE	1	/* *RSI = RDX; 0 */
#define DOM_LOAD	2	/* *RSI */
#define DOM_JUMP	3	/* jump to RSI */
#define DOM_REGS	4	/* all registers that are no arguments, or'ed */
#define DOM_SPIN	5	/* RSI rounds with DOM_SECRET in all registers */
#define DOM_IO		6	/* OUT, which is the VMM's to finish; RSI + RDX if it goes on */
#define DOM_EVENT	7	/* ud2 */
#define DOM_MEASURE	8	/* of itself: the first 8 bytes */
#define DOM_RSP		9
#define DOM_CR3		10
#define DOM_LEAVE_HC	11	/* leave by hypercall with RSI + RDX */
#define DOM_VECTORS	12	/* as DOM_SPIN, in SSE registers; what was in them, or'ed */
#define DOM_WAIT	13	/* *RSI = 1, until *RSI is 2; RDX */
#define DOM_INT3	14	/* int3; RSI + RDX */
#define DOM_INT		15	/* int $0x90; RSI + RDX */
#define DOM_SYSCALL	16
#define DOM_SYSENTER	17
#define DOM_SEGMENTS	18	/* FS.base | GS.base, and RSI into both (CR4.FSGSBASE) */
#define DOM_OPS		19

#define DOM_SECRET	0x5ec2e75ec2e7	/* in registers while it spins */

#define DOM_PATTERN	0x0ca11e50	/* in the caller's SSE registers */

#ifndef __ASSEMBLER__
#include "guest.h"

/* drv_call() with DOM_PATTERN in all SSE registers; bit 62: not so afterwards. */
u64 dom_vector_call(u64 op, u64 a, u64 b, u64 c, u64 door);
extern char dom_code[];
/* In dom_code, for the host to set: vmcall; the domain is one of ring 3. */
extern char dom_intel, dom_user;
#endif
#endif
