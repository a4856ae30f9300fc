/* SPDX-License-Identifier: GPL-2.0 */
/* What exits.c and domains.c share: measuring in the guest, in instructions. */
#ifndef BENCH_H
#define BENCH_H

#include "../host/guest.h"
#include "../host/rdt.h"
#include "../host/vmm.h"

enum { WARM = 20, MAX_RUNS = 2000 };

extern unsigned int runs;
/* Costs of one run each; the guest's copy is what counts. */
extern u32 cost[MAX_RUNS];

static inline u64 tsc(void)
{
	u32 lo, hi;

	asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (u64)hi << 32 | lo;
}

#define MEASURE(n, what)					\
	for (u64 i = 0; i < WARM + (n); i++) {			\
		u64 t = tsc();					\
		what;						\
		t = tsc() - t;					\
		if (i >= WARM)					\
			cost[i - WARM] = t;			\
	}

/* The median of what a guest's function has measured; it returns how often something was wrong. */
double measure(struct vm *vm, u64 (*fn)(u64, u64), u64 arg, const char *name);
void put(const char *name, double value);
void must(struct vm *vm, s64 result, const char *what);

/* domains.c; the VM is attached. */
void bench_domains(struct vm *vm, struct rdt *r);
void bench_signing(void);

#endif
