/* SPDX-License-Identifier: GPL-2.0 */
/* What known.S leaves in a vCPU's registers. */
#ifndef KNOWN_H
#define KNOWN_H

#define KNOWN_RAX	0xa0a1a2a3a4a5a6a7
#define KNOWN_RBX	0xb0b1b2b3b4b5b6b7
#define KNOWN_RCX	0xc0c1c2c3c4c5c6c7
#define KNOWN_RDX	0xd0d1d2d3d4d5d6d7
#define KNOWN_RSI	0x5051525354555657
#define KNOWN_RBP	0x6061626364656667
#define KNOWN_R(n)	(0x0123456789abcd00 + (n))
#define KNOWN_DR0	0x12345678
#define KNOWN_KGS	0xffff8123456789ab	/* MSR_KERNEL_GS_BASE */
#define KNOWN_STAR	0x0023001000000000	/* MSR_STAR */
#define COUNT_PORT	0xf2

#ifndef __ASSEMBLER__
#include <stdint.h>

extern const uint8_t known_xmm[16][16];
extern const char known_spin[], known_spin_end[], known_halt[], known_halted[];
/* For vcpu_start(): fill the registers, set *@flag, and spin, or halt with interrupts off. */
void g_known_spin(volatile uint32_t *flag);
void g_known_halt(volatile uint32_t *flag);
/* Counts in RBX and MSR_KERNEL_GS_BASE, with an exit to the VMM each time. */
void g_count(void);
#endif

#endif
