// SPDX-License-Identifier: GPL-2.0
/*
 * B9: events while a thread is in integrity mode: timers, NMIs, data breakpoints,
 * migration, CPUs going and coming. Every computation must come out right, and a
 * handler must see nothing of it.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <linux/slab.h>
#include <linux/stacktrace.h>
#include <asm/apic.h>
#include <asm/irq_regs.h>
#include <asm/nmi.h>
#include "inside.h"
#include "inside_work.h"
#include "tests.h"

static unsigned long resume_stub;

/* Is this a thread that was inside? Then what is left of it in @r? */
static bool was_inside(const struct pt_regs *r, u64 *left)
{
	if (!r || r->ip != resume_stub)
		return false;
	/* RDI is the token. RF comes and goes with the CPU's way of delivering. */
	*left = r->ax | r->bx | r->cx | r->dx | r->si | r->bp | r->r8 | r->r9 | r->r10 | r->r11 |
		r->r12 | r->r13 | r->r14 | r->r15 |
		(r->flags & ~(X86_EFLAGS_IF | X86_EFLAGS_RF | X86_EFLAGS_FIXED));
	return true;
}

/* ---- timers ------------------------------------------------------------- */

struct storm {
	struct hrtimer timer;
	struct task_struct *task;
	u64 period, leaked;
	unsigned int rounds, wrong, inside, leaks, fired;
	bool sse, done, unwound;
};

/* Does a stack trace lead from here through the stub to whoever called inside? */
static bool unwinds(void)
{
	unsigned long trace[48];
	unsigned int i, n = stack_trace_save(trace, ARRAY_SIZE(trace), 0);
	char name[KSYM_SYMBOL_LEN];

	for (i = 0; i < n; i++) {
		sprint_symbol(name, trace[i]);
		if (!strncmp(name, "work_inside+", 12))
			return true;
	}
	return false;
}

/* What an interrupt handler sees of a thread that was inside: the stub, and nothing else. */
static enum hrtimer_restart look(struct hrtimer *t)
{
	struct storm *s = container_of(t, struct storm, timer);
	struct pt_regs *r = get_irq_regs();
	u64 left;

	s->fired++;
	if (was_inside(r, &left)) {
		if (!s->inside++)
			s->unwound = unwinds();
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
	bool unwound = true;
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
		unwound &= s[cpu].unwound || !s[cpu].inside;
	}
	cpus_read_unlock();
	report(m, !wrong && !leaks && inside,
	       "timer every %llu us%s: %u fired, %u inside, %u wrong results, %u leaks (%llx)",
	       period / 1000, sse ? ", vector registers in use" : "", fired, inside, wrong, leaks,
	       leaked);
	report(m, unwound, "stack traces lead through the stub to the caller");
	kfree(s);
}

void test_storm(struct seq_file *m)
{
	resume_stub = symbol("redoubt_guest:rdt_resume");
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

/* ---- CPUs going and coming ---------------------------------------------- */

void test_hotplug(struct seq_file *m)
{
	struct mover v[2] = { { .rounds = 150 }, { .rounds = 150 } };
	unsigned int i, cycles = 0;
	int err = 0;

	if (num_online_cpus() < 2)
		return report(m, true, "CPU taken away # SKIP there is one only");
	for (i = 0; i < ARRAY_SIZE(v); i++) {
		v[i].task = kthread_run(work_moving, &v[i], "rdt-plug/%u", i);
		if (IS_ERR(v[i].task))
			return report(m, false, "no thread");
	}
	/* The thread on it is moved away, whether it is inside or not. */
	while (!err && (!READ_ONCE(v[0].done) || !READ_ONCE(v[1].done))) {
		err = remove_cpu(1) ?: add_cpu(1);
		cycles++;
	}
	report(m, !err && cycles > 1, "CPU 1 taken away and given back %u times: %d", cycles, err);
	for (i = 0; i < ARRAY_SIZE(v); i++) {
		kthread_stop(v[i].task);
		report(m, v[i].done && !v[i].wrong, "%u computations inside meanwhile, %u wrong",
		       v[i].rounds, v[i].wrong);
	}
}

/* ---- NMI ------------------------------------------------------------------ */

static struct {
	atomic_t sent, seen, inside, leaks;
} nmi;

static int on_nmi(unsigned int cmd, struct pt_regs *regs)
{
	u64 left;

	if (atomic_read(&nmi.seen) >= atomic_read(&nmi.sent))
		return NMI_DONE;
	atomic_inc(&nmi.seen);
	if (was_inside(regs, &left)) {
		atomic_inc(&nmi.inside);
		if (left)
			atomic_inc(&nmi.leaks);
	}
	return NMI_HANDLED;
}

static void nmi_to_others(void)
{
	u32 icr = APIC_DEST_ALLBUT | APIC_DM_NMI | APIC_INT_ASSERT;

	if (x2apic_enabled())
		wrmsrl(APIC_BASE_MSR + (APIC_ICR >> 4), icr);
	else
		*(volatile u32 *)(APIC_BASE + APIC_ICR) = icr;
}

void test_nmi(struct seq_file *m)
{
	struct mover v = { .rounds = 100 };
	unsigned int i;
	int here;

	if (num_online_cpus() != 2)
		return report(m, true, "NMI # SKIP needs two CPUs");
	resume_stub = symbol("redoubt_guest:rdt_resume");
	if (register_nmi_handler(NMI_LOCAL, on_nmi, 0, "redoubt_test"))
		return report(m, false, "no NMI handler");
	migrate_disable();
	here = smp_processor_id();
	v.task = kthread_create(work_moving, &v, "rdt-nmi");
	if (!IS_ERR(v.task)) {
		kthread_bind(v.task, cpumask_any_but(cpu_online_mask, here));
		wake_up_process(v.task);
		while (!READ_ONCE(v.done)) {
			/*
			 * One under way at a time, and time between them to get on. By the
			 * clock that is little on a slow machine: enough is enough.
			 */
			if (atomic_read(&nmi.sent) < 1500) {
				atomic_inc(&nmi.sent);
				nmi_to_others();
			}
			for (i = 0; i < 1000 && atomic_read(&nmi.seen) != atomic_read(&nmi.sent); i++)
				usleep_range(50, 100);
			usleep_range(1000, 2000);
		}
		kthread_stop(v.task);
	}
	migrate_enable();
	unregister_nmi_handler(NMI_LOCAL, "redoubt_test");
	report(m, v.done && !v.wrong && atomic_read(&nmi.inside) && !atomic_read(&nmi.leaks) &&
	       atomic_read(&nmi.seen) == atomic_read(&nmi.sent),
	       "%d NMIs sent, %d seen, %d inside, %d leaks, %u wrong results",
	       atomic_read(&nmi.sent), atomic_read(&nmi.seen), atomic_read(&nmi.inside),
	       atomic_read(&nmi.leaks), v.wrong);
}

/* ---- data breakpoint ------------------------------------------------------ */

static atomic_t hits, hits_inside, hits_leaks;

static void on_hit(struct perf_event *bp, struct perf_sample_data *data, struct pt_regs *regs)
{
	u64 left;

	atomic_inc(&hits);
	if (was_inside(regs, &left)) {
		atomic_inc(&hits_inside);
		if (left)
			atomic_inc(&hits_leaks);
	}
}

/* The kernel's debugger watches data of the inside: #DB in there, once a write. */
void test_watch(struct seq_file *m)
{
	struct perf_event_attr attr;
	struct perf_event * __percpu *bp;
	long was, now = 0;
	int i;

	resume_stub = symbol("redoubt_guest:rdt_resume");
	hw_breakpoint_init(&attr);
	attr.bp_addr = (unsigned long)&((struct rdt_inside *)symbol("redoubt_guest:rdt_inside_data"))->counter[3];
	attr.bp_len = HW_BREAKPOINT_LEN_8;
	attr.bp_type = HW_BREAKPOINT_W;
	bp = register_wide_hw_breakpoint(&attr, on_hit, NULL);
	if (IS_ERR((void __force *)bp))
		return report(m, false, "no breakpoint: %ld", PTR_ERR((void __force *)bp));
	was = redoubt_call(RDT_OP_COUNTER_INC, 3, 0, 0);
	for (i = 0; i < 99; i++)
		now = redoubt_call(RDT_OP_COUNTER_INC, 3, 0, 0);
	unregister_wide_hw_breakpoint(bp);
	report(m, now == was + 99 && atomic_read(&hits) == 100 && atomic_read(&hits_inside) == 100 &&
	       !atomic_read(&hits_leaks),
	       "100 writes inside to watched data: counter up by %ld, %d hits, %d inside, %d leaks",
	       now - was + 1, atomic_read(&hits), atomic_read(&hits_inside), atomic_read(&hits_leaks));
	atomic_set(&hits, 0);
	atomic_set(&hits_inside, 0);
}
