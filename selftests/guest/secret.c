// SPDX-License-Identifier: GPL-2.0
/*
 * D3, D5, D6: events while a secret in code is at work (redoubt_aes): timers, NMIs, watched data. Every
 * block must come out right, and a handler must see nothing of what is in the registers.
 */
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/hw_breakpoint.h>
#include <linux/kthread.h>
#include <linux/perf_event.h>
#include <linux/slab.h>
#include <linux/static_call.h>
#include <asm/apic.h>
#include <asm/fpu/api.h>
#include <asm/irq_regs.h>
#include <asm/nmi.h>
#include "redoubt_aes.h"
#include "tests.h"

#define BATCHES		16
#define BYTES		(BATCHES * RDT_AES_BATCH_XMM)

static unsigned long resume_stub;
static u8 plain[BYTES], first[BYTES];

static long no_cipher(unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	return -ENOENT;
}
DEFINE_STATIC_CALL(secret_cipher, no_cipher);

const char *no_secret(void)
{
	return symbol("redoubt_aes:rdt_aes_call") ? NULL : "redoubt_aes is not loaded";
}

static bool ready(struct seq_file *m)
{
	long ret;

	resume_stub = symbol("redoubt_guest:rdt_resume");
	static_call_update(secret_cipher, (void *)symbol("redoubt_aes:rdt_aes_call"));
	ret = static_call(secret_cipher)((unsigned long)first, (unsigned long)plain, BATCHES, 0);
	if (ret || !memcmp(first, plain, BYTES))
		report(m, false, "the cipher does not work: %ld", ret);
	return !ret;
}

/* What a handler sees of a thread that was inside: the general registers, and the live vector registers. */
static bool was_inside(const struct pt_regs *r, u64 *left)
{
	u64 x[12][2], any = 0;
	unsigned int i;

	if (!r || r->ip != resume_stub)
		return false;
	/* RDI is the token. RF comes and goes with the CPU's way of delivering. */
	*left = r->ax | r->bx | r->cx | r->dx | r->si | r->bp | r->r8 | r->r9 | r->r10 | r->r11 |
		r->r12 | r->r13 | r->r14 | r->r15 |
		(r->flags & ~(X86_EFLAGS_IF | X86_EFLAGS_RF | X86_EFLAGS_FIXED));
	asm volatile(".irp i, 0,1,2,3,4,5,6,7,8,9,10,11\n"
		     "movdqu %%xmm\\i, 16 * \\i(%0)\n"
		     ".endr" : : "r" (x) : "memory");
	/* worker() has left ones in all of them. */
	for (i = 0; i < ARRAY_SIZE(x); i++)
		any |= ~x[i][0] | ~x[i][1];
	*left |= any;
	return true;
}

struct worker {
	struct task_struct *task;
	unsigned int rounds, wrong, went_wrong;
	u8 *out;
	bool done;
};

/* In the caller's vector registers there is something, which must be there again. */
static long call_with_ones(struct worker *w)
{
	long ret;

	kernel_fpu_begin();
	asm volatile(".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
		     "pcmpeqd %%xmm\\i, %%xmm\\i\n"
		     ".endr" : : : "memory");
	ret = static_call(secret_cipher)((unsigned long)w->out, (unsigned long)plain, BATCHES, 0);
	kernel_fpu_end();
	return ret;
}

static int worker(void *arg)
{
	struct worker *w = arg;
	unsigned int i;

	for (i = 0; i < w->rounds; i++) {
		memset(w->out, 0, BYTES);
		w->went_wrong += !!call_with_ones(w);
		w->wrong += !!memcmp(w->out, first, BYTES);
		cond_resched();
	}
	WRITE_ONCE(w->done, true);
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

static bool start(struct worker *w, unsigned int rounds, int cpu)
{
	*w = (struct worker){ .rounds = rounds, .out = kzalloc(BYTES, GFP_KERNEL) };
	if (!w->out)
		return false;
	w->task = kthread_create(worker, w, "rdt-secret");
	if (IS_ERR(w->task)) {
		kfree(w->out);
		return false;
	}
	kthread_bind(w->task, cpu);
	wake_up_process(w->task);
	return true;
}

static void stop(struct worker *w)
{
	while (!READ_ONCE(w->done))
		msleep(1);
	kthread_stop(w->task);
	kfree(w->out);
}

/* ---- timers --------------------------------------------------------------------- */

static struct {
	struct hrtimer timer;
	u64 period, leaked;
	unsigned int fired, inside, leaks;
} storm;

static enum hrtimer_restart look(struct hrtimer *t)
{
	u64 left;

	storm.fired++;
	if (was_inside(get_irq_regs(), &left)) {
		storm.inside++;
		storm.leaks += !!left;
		storm.leaked |= left;
	}
	/* From now, not from when it was due: the inside must get on. */
	hrtimer_forward_now(t, ns_to_ktime(storm.period + (storm.fired * 7919) % storm.period));
	return HRTIMER_RESTART;
}

static int timed(void *arg)
{
	hrtimer_init(&storm.timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	storm.timer.function = look;
	hrtimer_start(&storm.timer, ns_to_ktime(storm.period), HRTIMER_MODE_REL_PINNED_HARD);
	worker(arg);
	hrtimer_cancel(&storm.timer);
	return 0;
}

void test_secret_storm(struct seq_file *m)
{
	struct worker w = { .rounds = 600 };

	if (!ready(m))
		return;
	memset(&storm, 0, sizeof(storm));
	storm.period = 700 * 1000;
	w.out = kzalloc(BYTES, GFP_KERNEL);
	w.task = kthread_create(timed, &w, "rdt-secret");
	if (!w.out || IS_ERR(w.task))
		return report(m, false, "no memory");
	kthread_bind(w.task, raw_smp_processor_id());
	wake_up_process(w.task);
	stop(&w);
	report(m, storm.inside && !storm.leaks && !w.wrong && !w.went_wrong,
	       "timer: %u fired, %u inside, %u leaks (%llx), %u wrong results, %u errors", storm.fired,
	       storm.inside, storm.leaks, storm.leaked, w.wrong, w.went_wrong);
}

/* ---- NMI ------------------------------------------------------------------------ */

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

void test_secret_nmi(struct seq_file *m)
{
	struct worker w;
	unsigned int i;

	if (num_online_cpus() != 2)
		return report(m, true, "NMI # SKIP needs two CPUs");
	if (!ready(m))
		return;
	if (register_nmi_handler(NMI_LOCAL, on_nmi, 0, "redoubt_test_secret"))
		return report(m, false, "no NMI handler");
	migrate_disable();
	if (!start(&w, 400, cpumask_any_but(cpu_online_mask, smp_processor_id()))) {
		report(m, false, "no thread");
		goto out;
	}
	while (!READ_ONCE(w.done)) {
		if (atomic_read(&nmi.sent) < 1500) {
			atomic_inc(&nmi.sent);
			nmi_to_others();
		}
		for (i = 0; i < 1000 && atomic_read(&nmi.seen) != atomic_read(&nmi.sent); i++)
			usleep_range(50, 100);
		usleep_range(500, 1000);
	}
	stop(&w);
	report(m, !w.wrong && !w.went_wrong && atomic_read(&nmi.inside) && !atomic_read(&nmi.leaks) &&
	       atomic_read(&nmi.seen) == atomic_read(&nmi.sent),
	       "%d NMIs sent, %d seen, %d inside, %d leaks, %u wrong results, %u errors",
	       atomic_read(&nmi.sent), atomic_read(&nmi.seen), atomic_read(&nmi.inside),
	       atomic_read(&nmi.leaks), w.wrong, w.went_wrong);
out:
	migrate_enable();
	unregister_nmi_handler(NMI_LOCAL, "redoubt_test_secret");
}

/* ---- data breakpoint -------------------------------------------------------------- */

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

/* A debug register watches what the secret writes: #DB in there, right behind the store. */
void test_secret_watch(struct seq_file *m)
{
	struct perf_event * __percpu *bp;
	struct perf_event_attr attr;
	unsigned int i, wrong = 0;
	struct worker w = {};

	if (!ready(m))
		return;
	w.out = kzalloc(BYTES, GFP_KERNEL);
	if (!w.out)
		return report(m, false, "no memory");
	hw_breakpoint_init(&attr);
	attr.bp_addr = (unsigned long)w.out + 64;
	attr.bp_len = HW_BREAKPOINT_LEN_8;
	attr.bp_type = HW_BREAKPOINT_W;
	bp = register_wide_hw_breakpoint(&attr, on_hit, NULL);
	if (IS_ERR((void __force *)bp)) {
		kfree(w.out);
		return report(m, false, "no breakpoint: %ld", PTR_ERR((void __force *)bp));
	}
	for (i = 0; i < 100; i++)
		wrong += call_with_ones(&w) || memcmp(w.out, first, BYTES);
	unregister_wide_hw_breakpoint(bp);
	report(m, !wrong && atomic_read(&hits) == 100 && atomic_read(&hits_inside) == 100 &&
	       !atomic_read(&hits_leaks),
	       "100 stores inside to watched data: %d hits, %d inside, %d leaks, %u wrong results",
	       atomic_read(&hits), atomic_read(&hits_inside), atomic_read(&hits_leaks), wrong);
	kfree(w.out);
	atomic_set(&hits, 0);
	atomic_set(&hits_inside, 0);
}
