// SPDX-License-Identifier: GPL-2.0
/*
 * D3, D4: a secret in rewind mode (redoubt_tag) under timers. Who is interrupted stands at the gate, with
 * what it was called with and the erasure constant, and begins again: results must be right all the same,
 * and there must be some.
 */
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/delay.h>
#include <linux/static_call.h>
#include <asm/irq_regs.h>
#include "tag.h"
#include "tests.h"

#define ARGUMENT	0x1234567890abcdef
#define CALLS		400

static long no_tag(unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	return -ENOENT;
}
DEFINE_STATIC_CALL(secret_tag, no_tag);

const char *no_rewind(void)
{
	return symbol("redoubt_tag:rdt_tag_call") ? NULL : "redoubt_tag is not loaded";
}

static struct {
	struct hrtimer timer;
	unsigned long gate, rounds;
	u64 period;
	unsigned int fired, rewound, leaks;
	unsigned int calls, wrong;
	long expected;
	bool done;
} storm;

static enum hrtimer_restart look(struct hrtimer *t)
{
	const struct pt_regs *r = get_irq_regs();

	storm.fired++;
	if (r && r->ip == storm.gate) {
		storm.rewound++;
		storm.leaks += r->ax != TAG_ERASURE || r->cx != TAG_ERASURE || r->dx != TAG_ERASURE ||
			       r->di != ARGUMENT || r->si != storm.rounds;
	}
	/* Now and then long enough for a whole call: nothing else lets one end. */
	hrtimer_forward_now(t, ns_to_ktime(storm.period / 2 + storm.fired * 7919 * 64 % (2 * storm.period)));
	return HRTIMER_RESTART;
}

static int work(void *arg)
{
	hrtimer_init(&storm.timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	storm.timer.function = look;
	hrtimer_start(&storm.timer, ns_to_ktime(storm.period), HRTIMER_MODE_REL_PINNED_HARD);
	while (storm.calls < CALLS || storm.rewound < 20) {
		storm.wrong += static_call(secret_tag)(ARGUMENT, storm.rounds, 0, 0) != storm.expected;
		if (++storm.calls >= 20 * CALLS)
			break;
		cond_resched();
	}
	hrtimer_cancel(&storm.timer);
	WRITE_ONCE(storm.done, true);
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

void test_secret_rewind(struct seq_file *m)
{
	struct task_struct *task;
	u64 took = 0;

	memset(&storm, 0, sizeof(storm));
	storm.gate = symbol("redoubt_tag:rdt_tag_main");
	static_call_update(secret_tag, (void *)symbol("redoubt_tag:rdt_tag_call"));
	if (!storm.gate)
		return report(m, false, "no gate");

	/*
	 * As many rounds as take 400 us, by the shortest of some calls: well below the period of the guest's own
	 * tick, also in an emulator of 50 million instructions a second. What takes longer than that is
	 * made to begin again by each tick, and never ends.
	 */
	for (storm.rounds = 128; took < 400000 && storm.rounds < 65536; ) {
		storm.rounds *= 2;
		took = U64_MAX;
		for (storm.calls = 0; storm.calls < 5; storm.calls++) {
			const ktime_t began = ktime_get();
			const long ret = static_call(secret_tag)(ARGUMENT, storm.rounds, 0, 0);

			took = min_t(u64, took, ktime_to_ns(ktime_sub(ktime_get(), began)));
			if (ret < 0 || (storm.calls && ret != storm.expected))
				return report(m, false, "call %u: %lx, the one before %lx", storm.calls, ret,
					      storm.expected);
			storm.expected = ret;
		}
	}
	report(m, static_call(secret_tag)(ARGUMENT + 1, storm.rounds, 0, 0) != storm.expected,
	       "it computes, %lu rounds in %llu us", storm.rounds, took / 1000);

	storm.calls = 0;
	storm.period = max_t(u64, took, 20000);
	task = kthread_create(work, NULL, "rdt-rewind");
	if (IS_ERR(task))
		return report(m, false, "no thread");
	kthread_bind(task, raw_smp_processor_id());
	wake_up_process(task);
	while (!READ_ONCE(storm.done))
		msleep(1);
	kthread_stop(task);
	report(m, storm.rewound >= 20 && !storm.wrong,
	       "timer: %u fired, %u calls made to begin again, %u calls, %u wrong results", storm.fired, storm.rewound,
	       storm.calls, storm.wrong);
	report(m, !storm.leaks, "a handler finds the call as it began and the erasure constant: %u times not", storm.leaks);
}
