/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What test_secret.c has a secret in: a GATE, an EXIT and a TEXT page, which run wherever they
 * are mapped one behind the other. The secret is two numbers, K1 and K2. From the third
 * instruction to the last both are in nearly all registers.
 */
#ifndef SECRET_H
#define SECRET_H

#define SEC_GATE_AT	0x40	/* of the first page */
#define SEC_EXIT_AT	0x80	/* of the second */
#define SEC_PAGES	3

/* Arguments in RSI, RDX; result in RAX. */
#define SEC_MAC		0	/* sec_mac(RSI), and to *RDX */
#define SEC_SPIN	1	/* RSI rounds with interrupts on; 0: the registers are as they were */
#define SEC_LOAD	2	/* *RSI, by code on TEXT */
#define SEC_STORE	3	/* *RSI = RDX, likewise; 0 */
#define SEC_LOAD_GATE	4	/* *RSI, by code on GATE */
#define SEC_WAIT	5	/* *RSI = 1, until it is 2; then RDX */
#define SEC_UD2		6
#define SEC_INT3	7
#define SEC_INT		8	/* int 0x90 */
#define SEC_JUMP	9	/* jump to RSI */
#define SEC_RESULTS	10	/* SEC_MARK + its number in each register */
#define SEC_REGS	11	/* the sum of all registers but RSP, R11 */
#define SEC_GP		12	/* a jump that is not canonical */
#define SEC_VECTORS	13	/* as SEC_SPIN, with K1 in SSE registers, too; what was in them, or'ed */
#define SEC_LEAVE_HC	14	/* leave by hypercall with RSI */
#define SEC_LEAVE_WRONG	15	/* jump to the exit page, not to the exit */

#define SEC_MARK	0x7000
#define SEC_PLACE1	0x1111111111111111	/* the placeholders */
#define SEC_PLACE2	0x2222222222222223
#define SEC_PATTERN	0x0ca11e50		/* in the caller's SSE registers */

/* What sec_call() has in registers besides the arguments: SEC_CALLER + their number. */
#define SEC_CALLER	0xca00
#define SEC_FLAGS	0x47
#define SEC_AFTER	17	/* what it notes: sixteen registers and RFLAGS */

#ifndef __ASSEMBLER__
#include "guest.h"

extern char sec_code[], sec_place1[], sec_place2[], sec_place3[], sec_intel[];
/* The instructions of SEC_MAC, in order. */
extern u64 sec_steps[], sec_steps_end[];

u64 sec_call(u64 op, u64 a, u64 b, u64 gate);
extern char sec_back[], sec_give_up[], sec_drop[];
extern u64 sec_after[SEC_AFTER];
#endif
#endif
