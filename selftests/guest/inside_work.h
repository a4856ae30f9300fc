/* SPDX-License-Identifier: GPL-2.0 */
/* Work to do in integrity mode, and what must come of it. */
#ifndef _REDOUBT_INSIDE_WORK_H
#define _REDOUBT_INSIDE_WORK_H

#include <linux/cpumask.h>
#include <linux/kthread.h>
#include <asm/fpu/api.h>
#include "redoubt_driver.h"
#include "selftest.h"

static inline int nth_cpu(unsigned int n)
{
	int cpu = cpumask_first(cpu_online_mask);

	for (n %= num_online_cpus(); n; n--)
		cpu = cpumask_next(cpu, cpu_online_mask);
	return cpu;
}

/* What RDT_OP_SELFTEST must say, computed here, outside. */
static inline u64 expected(u64 seed, u64 rounds, bool sse)
{
	struct rdt_selftest st;

	rdt_selftest_init(&st, seed);
	rdt_selftest_ref(&st, rounds, sse);
	return rdt_selftest_sum(&st);
}

/* With vector registers the kernel may not be preempted; interrupts still come. */
static inline long selftest(u64 seed, u64 rounds, bool sse)
{
	long ret;

	do {
		if (sse)
			kernel_fpu_begin();
		ret = redoubt_call(RDT_OP_SELFTEST, seed, rounds, sse);
		if (sse)
			kernel_fpu_end();
		if (ret == -EAGAIN)
			cond_resched();
	} while (ret == -EAGAIN && !kthread_should_stop());
	return ret;
}

#endif
