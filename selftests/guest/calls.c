// SPDX-License-Identifier: GPL-2.0
/*
 * B: calling into integrity mode, from everywhere, interrupted at all times, on all
 * CPUs at once, on other CPUs than where it began.
 */
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/version.h>
#include <asm/fpu/api.h>
#include <asm/io.h>
#include <asm/irq_regs.h>
#include "redoubt_driver.h"
#include "selftest.h"
#include "tests.h"

static int nth_cpu(unsigned int n)
{
	int cpu = cpumask_first(cpu_online_mask);

	for (n %= num_online_cpus(); n; n--)
		cpu = cpumask_next(cpu, cpu_online_mask);
	return cpu;
}

/* What RDT_OP_SELFTEST must say, computed here, outside. */
static u64 expected(u64 seed, u64 rounds, bool sse)
{
	struct rdt_selftest st;

	rdt_selftest_init(&st, seed);
	rdt_selftest_ref(&st, rounds, sse);
	return rdt_selftest_sum(&st);
}

/* With vector registers the kernel may not be preempted; interrupts still come. */
static long selftest(u64 seed, u64 rounds, bool sse)
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

/* ---- interrupts ------------------------------------------------------- */

struct storm {
	struct hrtimer timer;
	struct task_struct *task;
	u64 period, leaked;
	unsigned long resume;	/* the stub's address */
	unsigned int rounds, wrong, inside, leaks, fired;
	bool sse, done;
};

/* What an interrupt handler sees of a thread that was inside: the stub, and nothing else. */
static enum hrtimer_restart look(struct hrtimer *t)
{
	struct storm *s = container_of(t, struct storm, timer);
	struct pt_regs *r = get_irq_regs();
	u64 left;

	s->fired++;
	if (r && r->ip == s->resume) {
		s->inside++;
		left = r->ax | r->bx | r->cx | r->dx | r->si | r->bp | r->r8 | r->r9 |
		       r->r10 | r->r11 | r->r12 | r->r13 | r->r14 | r->r15 |
		       (r->flags & ~(X86_EFLAGS_IF | X86_EFLAGS_RF | X86_EFLAGS_FIXED));
		s->leaks += !!left;
		s->leaked |= left;
	}
	/* From now, not from when it was due: the inside must get on. */
	hrtimer_forward_now(t, ns_to_ktime(s->period + (s->fired * 7919) % s->period));
	return HRTIMER_RESTART;
}

static int work_inside(void *arg)
{
	struct storm *s = arg;
	unsigned int i;

	hrtimer_init(&s->timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	s->timer.function = look;
	hrtimer_start(&s->timer, ns_to_ktime(s->period), HRTIMER_MODE_REL_PINNED_HARD);
	for (i = 0; i < s->rounds; i++) {
		u64 seed = i * 1000003ull + smp_processor_id();

		s->wrong += selftest(seed, 20000, s->sse) != expected(seed, 20000, s->sse);
		cond_resched();
	}
	hrtimer_cancel(&s->timer);
	WRITE_ONCE(s->done, true);
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

static void storm(struct seq_file *m, bool sse, u64 period)
{
	unsigned int wrong = 0, inside = 0, leaks = 0, fired = 0;
	u64 leaked = 0;
	struct storm *s;
	int cpu;

	s = kcalloc(nr_cpu_ids, sizeof(*s), GFP_KERNEL);
	if (!s)
		return report(m, false, "no memory");
	cpus_read_lock();
	for_each_online_cpu(cpu) {
		s[cpu].rounds = 60;
		s[cpu].period = period;
		s[cpu].resume = symbol("redoubt_guest:rdt_resume");
		s[cpu].sse = sse;
		s[cpu].task = kthread_create(work_inside, &s[cpu], "rdt-storm/%d", cpu);
		if (IS_ERR(s[cpu].task)) {
			s[cpu].task = NULL;
			continue;
		}
		kthread_bind(s[cpu].task, cpu);
		wake_up_process(s[cpu].task);
	}
	for_each_online_cpu(cpu) {
		if (!s[cpu].task)
			continue;
		while (!READ_ONCE(s[cpu].done))
			msleep(1);
		kthread_stop(s[cpu].task);
		wrong += s[cpu].wrong;
		inside += s[cpu].inside;
		leaks += s[cpu].leaks;
		fired += s[cpu].fired;
		leaked |= s[cpu].leaked;
	}
	cpus_read_unlock();
	report(m, !wrong && !leaks && inside,
	       "timer every %llu us%s: %u fired, %u inside, %u wrong results, %u leaks (%llx)",
	       period / 1000, sse ? ", vector registers in use" : "", fired, inside, wrong, leaks,
	       leaked);
	kfree(s);
}

void test_storm(struct seq_file *m)
{
	storm(m, false, 2000 * 1000);
	storm(m, true, 2000 * 1000);
	storm(m, false, 700 * 1000);
	storm(m, true, 700 * 1000);
}

/* ---- on another CPU --------------------------------------------------- */

struct mover {
	struct task_struct *task;
	unsigned int moved, wrong, rounds;
	bool done;
};

static int work_moving(void *arg)
{
	struct mover *v = arg;
	unsigned int i;

	for (i = 0; i < v->rounds; i++) {
		int cpu = raw_smp_processor_id();

		v->wrong += selftest(i, 30000, false) != expected(i, 30000, false);
		v->moved += cpu != raw_smp_processor_id();
		cond_resched();
	}
	WRITE_ONCE(v->done, true);
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

void test_migrate(struct seq_file *m)
{
	struct mover v[2] = { { .rounds = 100 }, { .rounds = 100 } };
	unsigned int i, turn = 0;

	if (num_online_cpus() < 2)
		return report(m, true, "moved to another CPU # SKIP there is one only");
	if (!preempt_model_full())
		return report(m, true, "moved to another CPU # SKIP needs preempt=full on the kernel line");
	for (i = 0; i < ARRAY_SIZE(v); i++) {
		v[i].task = kthread_run(work_moving, &v[i], "rdt-move/%u", i);
		if (IS_ERR(v[i].task)) {
			report(m, false, "no thread");
			v[i].task = NULL;
			v[i].done = true;
		}
	}
	/* Two threads chase each other round the CPUs. */
	while (!READ_ONCE(v[0].done) || !READ_ONCE(v[1].done)) {
		for (i = 0; i < ARRAY_SIZE(v); i++)
			if (v[i].task)
				set_cpus_allowed_ptr(v[i].task,
						     cpumask_of(nth_cpu(turn + i)));
		turn++;
		usleep_range(500, 1500);
	}
	for (i = 0; i < ARRAY_SIZE(v); i++) {
		if (!v[i].task)
			continue;
		kthread_stop(v[i].task);
		report(m, !v[i].wrong && v[i].moved,
		       "%u computations inside, %u went on on another CPU, %u wrong", v[i].rounds,
		       v[i].moved, v[i].wrong);
	}
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
