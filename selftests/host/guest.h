/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For the code that runs in the guest: 64-bit, ring 0, interrupts off, memory one
 * to one. It may use its own globals (the guest has its own copy of the whole
 * program) and nothing of libc.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/redoubt_guest.h>

#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

/* As trap.S pushes it. */
struct trap_frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

/* One a vCPU, at GS. */
struct guest_cpu {
	struct guest_cpu *self;
	u64 recover;		/* where an expected exception goes on; 0: none is */
	u64 user_rsp;		/* ring 0's stack while in ring 3 */
	u64 id;
	s64 vector;		/* of the last exception, -1: none since guest_try() */
	u64 error, rip, cr2;
	u64 count[256];		/* by vector */
	u64 (*on_trap)(struct trap_frame *f);	/* 1: dealt with */
};

extern struct guest_cpu guest_cpus[GUEST_MAX_VCPUS];
extern bool guest_is_intel;	/* the host sets both before it makes a VM */

static inline struct guest_cpu *this_cpu(void)
{
	struct guest_cpu *cpu;

	asm volatile("movq %%gs:0, %0" : "=r"(cpu));
	return cpu;
}

/*
 * Run instructions that may fault; the vector, or -1. They are skipped as a whole
 * at the first fault. R11 is theirs no more.
 */
#define guest_try(insns, ...)						\
	({								\
		this_cpu()->vector = -1;				\
		asm volatile("leaq 99f(%%rip), %%r11\n\t"		\
			     "movq %%r11, %%gs:8\n\t"			\
			     insns "\n"					\
			     "99:\n\t"					\
			     "movq $0, %%gs:8"				\
			     : : __VA_ARGS__ : "r11", "memory", "cc");	\
		this_cpu()->vector;					\
	})

static inline s64 guest_hc(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	s64 ret;

	if (guest_is_intel)
		asm volatile("vmcall" : "=a"(ret)
			     : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	else
		asm volatile("vmmcall" : "=a"(ret)
			     : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return ret;
}

/* Let the host look; it goes on with vcpu_resume(). */
static inline void guest_sync(u64 value)
{
	asm volatile("outb %%al, %%dx" : : "a"(STOP_SYNC), "d"(PORT_STOP), "D"(value) : "memory");
}

static inline void guest_wrmsr(u32 msr, u64 value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
}

static inline u64 guest_rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (u64)hi << 32 | lo;
}

static inline u64 guest_cr3(void)
{
	u64 v;

	asm volatile("movq %%cr3, %0" : "=r"(v));
	return v;
}

static inline void guest_flush_tlb(void)
{
	asm volatile("movq %0, %%cr3" : : "r"(guest_cr3()) : "memory");
}

static inline u64 guest_load(u64 gva)
{
	return *(volatile u64 *)gva;
}

static inline void guest_store(u64 gva, u64 value)
{
	*(volatile u64 *)gva = value;
}

/* The vector that a store raised, or -1. */
static inline s64 guest_try_store(u64 gva, u64 value)
{
	return guest_try("movq %1, (%0)", "r"(gva), "r"(value));
}

static inline void guest_zero(void *p, u64 bytes)
{
	asm volatile("rep stosb" : "+D"(p), "+c"(bytes) : "a"(0) : "memory");
}

/* Call in ring 3; what the function returns. */
u64 guest_user_call(u64 (*fn)(u64), u64 arg);

/* guest.c: functions for vcpu_call(). */
u64 g_hc(u64 nr, u64 a, u64 b, u64 c);		/* fourth argument 0 */
extern u64 guest_hc_args[GUEST_MAX_VCPUS][5];	/* by vCPU, of.. */
u64 g_hc_args(void);				/* ..one argument more than vcpu_call() passes */
u64 g_load(u64 gva);
u64 g_read_all(u64 gva, u64 pages);		/* read each */
u64 g_store(u64 gva, u64 value);		/* the vector or -1 */
u64 g_node_add(u64 gpa, u64 count);		/* last result */
u64 g_gp_count(void);				/* #GP so far on this vCPU */
u64 g_rdmsr(u64 msr);
u64 g_wrmsr(u64 msr, u64 value);		/* the vector or -1 */

#endif
