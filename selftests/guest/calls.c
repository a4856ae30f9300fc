// SPDX-License-Identifier: GPL-2.0
/*
 * B: calling into integrity mode from every context and from all CPUs at once, and
 * what the inside may not do.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <asm/io.h>
#include "inside_work.h"
#include "tests.h"

static void call_remote(void *ret)
{
	*(long *)ret = redoubt_call(RDT_OP_NOP, 0, 0, 0);
}

struct one_shot {
	struct hrtimer timer;
	struct completion done;
	long ret;
};

static enum hrtimer_restart call_from_timer(struct hrtimer *t)
{
	struct one_shot *o = container_of(t, struct one_shot, timer);

	o->ret = redoubt_call(RDT_OP_NOP, 0, 0, 0);
	complete(&o->done);
	return HRTIMER_NORESTART;
}

void test_calls(struct seq_file *m)
{
	struct one_shot o = { .ret = -1 };
	unsigned long flags;
	long ret, was;
	bool off;
	int cpu, i;

	ret = redoubt_call(RDT_OP_NOP, 0, 0, 0);
	report(m, !ret, "nothing done inside: %ld", ret);
	was = redoubt_call(RDT_OP_COUNTER_INC, 1, 0, 0);
	for (i = 0; i < 1000; i++)
		ret = redoubt_call(RDT_OP_COUNTER_INC, 1, 0, 0);
	report(m, was > 0 && ret == was + 1000, "a counter inside, 1000 times: %ld to %ld", was, ret);

	local_irq_save(flags);
	ret = redoubt_call(RDT_OP_COUNTER_INC, 1, 0, 0);
	off = irqs_disabled();
	local_irq_restore(flags);
	report(m, ret == was + 1001 && off && !irqs_disabled(), "with interrupts off, which stay off");

	for_each_online_cpu(cpu) {
		ret = -1;
		smp_call_function_single(cpu, call_remote, &ret, 1);
		report(m, !ret, "from another CPU's request on CPU %d: %ld", cpu, ret);
	}

	init_completion(&o.done);
	hrtimer_init_on_stack(&o.timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	o.timer.function = call_from_timer;
	hrtimer_start(&o.timer, ms_to_ktime(1), HRTIMER_MODE_REL_HARD);
	/* Busy inside when it fires: the handler enters while this thread is half-way. */
	ret = selftest(1, 200000, false);
	wait_for_completion(&o.done);
	hrtimer_cancel(&o.timer);
	destroy_hrtimer_on_stack(&o.timer);
	report(m, !o.ret && ret == expected(1, 200000, false),
	       "from a timer, perhaps while a thread of this CPU is inside: %ld", o.ret);

	for (i = 0; i < 4; i++) {
		ret = selftest(i, 100 * i, i & 1);
		report(m, ret == expected(i, 100 * i, i & 1), "%d rounds over all registers%s", 100 * i,
		       i & 1 ? ", vector registers too" : "");
	}
}

/* ---- many threads ---------------------------------------------------- */

#define INCS	2000

struct worker {
	struct task_struct *task;
	long last;
	unsigned int full;	/* no slot was free */
	int bad;
};

static int count_up(void *arg)
{
	struct worker *w = arg;
	long prev = 0, ret;
	int i;

	for (i = 0; i < INCS; i++) {
		while ((ret = redoubt_call(RDT_OP_COUNTER_INC, 2, 0, 0)) == -EAGAIN) {
			w->full++;
			cond_resched();
		}
		/* Nobody else's count, and never one twice. */
		w->bad += ret <= prev;
		prev = ret;
		if (!(i & 63))
			cond_resched();
	}
	w->last = prev;
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

void test_threads(struct seq_file *m)
{
	unsigned int n = 3 * num_online_cpus(), i, started = 0, full = 0;
	struct worker *w = kcalloc(n, sizeof(*w), GFP_KERNEL);
	long before = redoubt_call(RDT_OP_COUNTER_INC, 2, 0, 0), after;
	int bad = 0;

	for (i = 0; w && i < n; i++) {
		w[i].task = kthread_create(count_up, &w[i], "rdt-count/%u", i);
		if (IS_ERR(w[i].task))
			break;
		kthread_bind(w[i].task, nth_cpu(i));
		started++;
	}
	for (i = 0; i < started; i++)
		wake_up_process(w[i].task);
	for (i = 0; i < started; i++) {
		while (!READ_ONCE(w[i].last))
			msleep(1);
		kthread_stop(w[i].task);
		bad += w[i].bad;
		full += w[i].full;
	}
	after = redoubt_call(RDT_OP_COUNTER_INC, 2, 0, 0);
	report(m, started == n && after == before + (long)n * INCS + 1 && !bad,
	       "%u threads on %u CPUs, %d calls each: counter %ld to %ld, %d wrong, %u times full",
	       started, num_online_cpus(), INCS, before, after, bad, full);
	kfree(w);
}

/* ---- a foreign page --------------------------------------------------- */

/* B3: integrity mode is no licence to write other protected pages. Needs test_page=. */
void test_foreign(struct seq_file *m)
{
	u64 *page = *(u64 **)(symbol("redoubt_guest:rdt_test_page") ?: (unsigned long)&(u64 *){ NULL });
	static const u8 vectors[] = { 0, 6, 14 };
	unsigned int i;
	long ret;

	if (!page)
		return report(m, true, "foreign page # SKIP the driver was loaded without test_page=");
	/* Whatever its action, LOG too: the inside has no business there. */
	for (i = 0; i < 3; i++) {
		ret = redoubt_call(RDT_OP_WRITE_TEST, i * 8, 0x1111, 0);
		report(m, ret == -EPERM && !READ_ONCE(page[i]),
		       "inside writes a foreign protected page: %ld, %llx", ret, READ_ONCE(page[i]));
		ret = redoubt_call(RDT_OP_READ_TEST, i * 8, 0, 0);
		report(m, !ret, "inside reads it: %ld", ret);
	}
	ret = redoubt_call(RDT_OP_WRITE_TEST, 4096, 1, 0);
	report(m, ret == -EINVAL, "inside: an offset beyond the page: %ld", ret);
	/* More often than there are slots: each must come back. */
	for (i = 0; i < 100 * ARRAY_SIZE(vectors); i++) {
		ret = redoubt_call(RDT_OP_FAULT_TEST, vectors[i % ARRAY_SIZE(vectors)], 0, 0);
		if (ret != -EFAULT)
			break;
	}
	report(m, i == 100 * ARRAY_SIZE(vectors),
	       "exceptions raised inside, 100 of each: %u ended the call, last %ld", i, ret);
	ret = redoubt_call(RDT_OP_NOP, 0, 0, 0);
	report(m, !ret, "integrity mode goes on: %ld", ret);
}
