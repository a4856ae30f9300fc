/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The leak hunt's domain and its handlers in the guest. The domain has a secret of 64
 * bytes in its data, and while it works all registers, flags and its stack hold pieces of
 * it. The same code runs outside, too, to show that the hunt finds what there is.
 */
#ifndef LEAK_H
#define LEAK_H

#define LEAK_GATE_AT	0x40
#define LEAK_EXIT_AT	0x1080
#define LEAK_CODE_PAGES	5
#define LEAK_DATA	0x5000		/* from the code's start */
#define LEAK_SECRET	64		/* bytes, at the start of its data */
#define LEAK_LEVEL	(LEAK_DATA + 0x40)	/* dword: which vector registers there are */
#define LEAK_DONE	(LEAK_DATA + 0x48)	/* rounds ever done, a counter for each slot's stack */

#define LEAK_SSE	1
#define LEAK_AVX	2
#define LEAK_AVX512	3

/* RDI; arguments in RSI, RDX; result in RAX. */
#define LEAK_WORK	0	/* RSI rounds, a multiple of 8; RDX: LEAK_* below; 0: all was as it should */
#define LEAK_LOAD	1	/* *RSI */
#define LEAK_STORE	2	/* *RSI = RDX */
#define LEAK_RDMSR	3	/* RSI */
#define LEAK_RDDR	4	/* DR0-3, 6, 7, or'ed */
#define LEAK_SEGMENTS	5	/* DS, ES, FS, GS, SS, 12 bits each */
#define LEAK_STOP	6	/* to the host, as DOM_STOP; then RSI + RDX */
#define LEAK_COUNT	7	/* RSI rounds of one addition, interrupts on; RDX: where to count in data */
#define LEAK_HYPERCALL	8	/* RAX, RBX, RCX, RDX, RSI from the five words at RSI; RDX: by vmcall */
#define LEAK_JUMP	9	/* to RSI */
#define LEAK_OPS	10

/* With everything full of the secret, behind the rounds. */
#define LEAK_TF		1	/* not behind: single-stepped all the time */
#define LEAK_PF		2	/* a write to its own code */
#define LEAK_UD		4
#define LEAK_INT3	8
#define LEAK_INT	0x10	/* int 0x90 */
#define LEAK_CPUID	0x20
#define LEAK_OUT	0x40	/* an I/O port: to the VMM */
#define LEAK_DE		0x80
#define LEAK_CR4	0x100	/* not behind: CR4.SMEP changed all the time */

#define LEAK_LOG	0x1000000	/* in guest memory */
#define LEAK_LOGS	256
#define LEAK_LOG_SIZE	4096

#define LEAK_TIMER	0x40
#define LEAK_MSI	0x41
#define LEAK_IPI	0x43

#ifndef __ASSEMBLER__
#include "guest.h"

extern const char leak_code[], leak_gadget[];

/* A struct cell_image of it: pages of data, then .slots and .flags. */
#define LEAK_IMAGE(data, ...) {				\
		.code = leak_code,				\
		.code_pages = LEAK_CODE_PAGES,			\
		.data_pages = (data),				\
		.gate_at = LEAK_GATE_AT,			\
		.exit_at = LEAK_EXIT_AT,			\
		.resume = (uint64_t)drv_resume,			\
		__VA_ARGS__					\
	}

/* What a handler of the guest's sees. */
struct leak_log {
	struct trap_frame f;
	u64 cr2, cr3, dr[6], msr[10];
	u8 vectors[LEAK_LOG_SIZE - 320] __attribute__((aligned(64)));
};
_Static_assert(sizeof(struct leak_log) == LEAK_LOG_SIZE, "a page");

struct leak_guest {
	u64 events;		/* that struck inside, by all vCPUs */
	u64 by_vector[256];
	u64 stray;		/* not at the stub though struck inside, or inside's flags */
	u64 outside;		/* others */
	u64 stop_every;		/* events; 0: never */
	u64 period;		/* of the timer, in ns; longer.. */
	u64 streak;		/* ..the more events strike one call */
	u64 xsave;		/* the guest may use it */
	u64 quiet;		/* IPIs: stop */
	u64 soft;		/* int3 and int n of one call */
};
extern struct leak_guest leak_guest;

u64 g_leak_setup(u64 timer_period);
u64 g_leak_timer(u64 period);
u64 g_leak_call(u64 op, u64 a, u64 b, u64 gate);
u64 g_leak_ipis(u64 apic_id, u64 vector, u64 pause);
u64 g_leak_watch(u64 gva, u64 dr7);	/* DR0 */
#endif
#endif
