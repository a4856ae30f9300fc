// SPDX-License-Identifier: GPL-2.0
/*
 * Writers are slowed (F5). The first write to a page that a scan has made read-only is a fault, and KVM tells of its faults by a
 * tracepoint that it exports: here they are counted, and a vCPU that is too fast is made to sleep. Not in the tracepoint, where
 * KVM's locks are held, but by a task work, which KVM does before it goes on in the guest, outside its srcu. How fast is too
 * fast the agent says; there is no policy here.
 *
 * Who sleeps holds nothing up but its vCPU: a signal ends the sleep, and so does the end of the limiter. On its way out of KVM_RUN
 * a thread is not put to sleep at all, lest a VMM wait for it that has just kicked it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/hashtable.h>
#include <linux/hrtimer.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/task_work.h>
#include <linux/tracepoint.h>

/* Sleeps that are shorter are put together: faults until then are let through, and paid for by the next. */
#define SLACK_NS	NSEC_PER_MSEC
#define WRITE_FAULT	BIT_ULL(1)	/* of both vendors' codes */
#define RSVD_FAULT	BIT_ULL(3)	/* AMD: KVM's mark of MMIO. In Intel's qualification it says "readable". */

/* Of a vCPU, which has one thread that runs it: so one work of it is under way at most. */
struct sleeper {
	struct callback_head work;
	struct rdt_sb_limiter *limiter;
	struct kvm_vcpu *vcpu;		/* compared only */
	u64 number;			/* of the fault */
	u64 due;			/* ns of ktime_get(); U64_MAX: not before another LIMIT */
	u32 generation;			/* of the limit that @due is by */
	bool last;			/* all else that its thread was asked for is done */
	unsigned long busy;		/* bit 0: the work is under way, and the fields above are its */
};

struct rdt_sb_limiter {
	struct kref kref;		/* the VM's, and one for each work under way */
	struct rcu_head rcu;
	struct hlist_node entry;	/* of limits */
	const struct kvm *kvm;		/* compared only */
	atomic64_t faults;
	/* Protects what follows, up to @ended. Taken in the tracepoint: innermost. */
	spinlock_t lock;
	struct rdt_sb_limit limit;	/* @free: READ_ONCE without the lock */
	u64 next;			/* ns: when the next page may be dirtied */
	u32 generation;			/* READ_ONCE without the lock */
	bool ended;			/* READ_ONCE without the lock */
	wait_queue_head_t wait;
	atomic64_t sleeps, slept_ns;
	atomic_t asleep;
	u32 nr;
	struct sleeper sleeper[];	/* by the vCPU's index */
};

/* Protects changes of limits and whether the probe is there. Readers: RCU. Taken under vm->lock. */
static DEFINE_MUTEX(limits_lock);
static DEFINE_HASHTABLE(limits, 6);
static unsigned int nr_limits;

/*
 * KVM's, exported for this; its header is not installed. The same on 6.1 and 6.12: `scripts/gen-layout --show
 * __traceiter_kvm_page_fault` has the signature that on_fault() must have.
 */
extern struct tracepoint __tracepoint_kvm_page_fault;

static void free_limiter(struct kref *kref)
{
	struct rdt_sb_limiter *l = container_of(kref, struct rdt_sb_limiter, kref);

	kfree_rcu(l, rcu);
}

/* ns until the next page may be dirtied behind fault @number; U64_MAX: not at all */
static u64 pause_of(const struct rdt_sb_limit *limit, u64 number)
{
	u64 rate;

	if (number <= limit->free)
		return 0;
	if (number >= limit->stop)
		return U64_MAX;
	/* At most 2^28 * 2^35 */
	rate = div64_u64(limit->rate * (limit->end - number), limit->end - limit->free);
	return NSEC_PER_SEC / max(rate, 1ull);
}

/* ---- asleep ------------------------------------------------------------------------ */

/* When it may go on, as the limit is now: a wait's condition, so it may not sleep. */
static bool may_go(struct sleeper *s)
{
	struct rdt_sb_limiter *l = s->limiter;
	const u64 now = ktime_get_ns();
	bool go;

	spin_lock(&l->lock);
	if (l->ended || s->number <= l->limit.free)
		s->due = 0;
	else if (s->number >= l->limit.stop)
		s->due = U64_MAX;
	else if (s->due == U64_MAX)
		s->due = l->next = max(l->next, now) + pause_of(&l->limit, s->number);
	else if (s->generation != l->generation)	/* a faster one wakes earlier; a slower one is for faults to come */
		s->due = min(s->due, max(l->next, now) + pause_of(&l->limit, s->number));
	s->generation = l->generation;
	go = s->due <= now;
	spin_unlock(&l->lock);
	return go;
}

/* In the vCPU's thread. */
static void sleep(struct callback_head *work)
{
	struct sleeper *s = container_of(work, struct sleeper, work);
	struct rdt_sb_limiter *l = s->limiter;
	const u64 began = ktime_get_ns();

	/* The newest work comes first: a device's interrupt that the thread has to answer (src/vfio/irq.c) would wait for a slow writer. */
	if (!s->last) {
		s->last = true;
		if (!task_work_add(current, work, TWA_NONE))
			return;
	}
	/* Loaded: in KVM_RUN, on the way into the guest. Not loaded: on the way out of it, or of this world. */
	if (kvm_get_running_vcpu() == s->vcpu && !may_go(s)) {
		atomic64_inc(&l->sleeps);
		atomic_inc(&l->asleep);
		while (!signal_pending(current) && !may_go(s)) {
			/* Till another LIMIT: it wakes us. The second is for one that looks at the clock. */
			const u64 most = s->due == U64_MAX ? NSEC_PER_SEC : s->due - min(s->due, ktime_get_ns());

			wait_event_interruptible_hrtimeout(l->wait, may_go(s), ns_to_ktime(most));
		}
		atomic_dec(&l->asleep);
		atomic64_add(ktime_get_ns() - began, &l->slept_ns);
	}
	clear_bit_unlock(0, &s->busy);	/* pairs with test_and_set_bit_lock() in too_fast() */
	kref_put(&l->kref, free_limiter);
	module_put(THIS_MODULE);	/* rdt_sb_exit() waits for the rest of this function */
}

/* ---- the tracepoint: no sleep, KVM's locks may be held ------------------------------ */

/* In the vCPU's thread, RCU read lock held. */
static void too_fast(struct rdt_sb_limiter *l, struct kvm_vcpu *vcpu, u64 number, u64 due)
{
	struct sleeper *s = &l->sleeper[vcpu->vcpu_idx];

	if (test_and_set_bit_lock(0, &s->busy))
		return;
	if (!kref_get_unless_zero(&l->kref)) {
		clear_bit_unlock(0, &s->busy);
		return;
	}
	/* The registration holds the module. */
	__module_get(THIS_MODULE);
	s->limiter = l;
	s->vcpu = vcpu;
	s->number = number;
	s->due = due;
	s->last = false;
	s->generation = READ_ONCE(l->generation);
	init_task_work(&s->work, sleep);
	if (task_work_add(current, &s->work, TWA_RESUME)) {
		/* It is exiting. */
		clear_bit_unlock(0, &s->busy);
		kref_put(&l->kref, free_limiter);
		module_put(THIS_MODULE);
	}
}

static void on_fault(void *unused, struct kvm_vcpu *vcpu, u64 address, u64 code)
{
	struct rdt_sb_limiter *l;
	u64 number, pause, due = 0, now;

	if (!(code & WRITE_FAULT) || (boot_cpu_has(X86_FEATURE_SVM) && (code & RSVD_FAULT)))
		return;
	rcu_read_lock();
	hash_for_each_possible_rcu(limits, l, entry, (unsigned long)vcpu->kvm) {
		if (l->kvm != vcpu->kvm)
			continue;
		number = atomic64_inc_return(&l->faults);
		/* Who came later cannot be slowed, and is no debt of the others. */
		if (number <= READ_ONCE(l->limit.free) || vcpu->vcpu_idx < 0 || vcpu->vcpu_idx >= l->nr)
			break;
		now = ktime_get_ns();
		spin_lock(&l->lock);
		pause = l->ended ? 0 : pause_of(&l->limit, number);
		if (pause == U64_MAX)
			due = U64_MAX;
		else if (pause)
			due = l->next = max(l->next, now) + pause;
		spin_unlock(&l->lock);
		if (due > now + SLACK_NS)
			too_fast(l, vcpu, number, due);
		break;
	}
	rcu_read_unlock();
}

/* ---- requests ---------------------------------------------------------------------------- */

static struct rdt_sb_limiter *begin(struct rdt_sb_vm *vm, const struct rdt_sb_limit *limit)
{
	struct rdt_sb_limiter *l = kzalloc(struct_size(l, sleeper, vm->nr_vcpus), GFP_KERNEL);
	int err = 0;

	if (!l)
		return ERR_PTR(-ENOMEM);
	kref_init(&l->kref);
	spin_lock_init(&l->lock);
	init_waitqueue_head(&l->wait);
	l->kvm = vm->kvm;
	l->limit = *limit;
	l->nr = vm->nr_vcpus;
	mutex_lock(&limits_lock);
	if (!nr_limits)
		err = tracepoint_probe_register(&__tracepoint_kvm_page_fault, (void *)on_fault, NULL);
	if (!err) {
		nr_limits++;
		hash_add_rcu(limits, &l->entry, (unsigned long)l->kvm);
	}
	mutex_unlock(&limits_lock);
	if (!err)
		return l;
	kfree(l);
	return ERR_PTR(err);
}

void rdt_sb_limit_end(struct rdt_sb_vm *vm)
{
	struct rdt_sb_limiter *l = vm->limiter;

	lockdep_assert_held(&vm->lock);
	if (!l)
		return;
	vm->limiter = NULL;
	mutex_lock(&limits_lock);
	hash_del_rcu(&l->entry);
	if (!--nr_limits) {
		tracepoint_probe_unregister(&__tracepoint_kvm_page_fault, (void *)on_fault, NULL);
		tracepoint_synchronize_unregister();
	}
	mutex_unlock(&limits_lock);
	spin_lock(&l->lock);
	l->ended = true;
	spin_unlock(&l->lock);
	wake_up_all(&l->wait);
	kref_put(&l->kref, free_limiter);
}

u64 rdt_sb_faults(const struct rdt_sb_vm *vm)
{
	return vm->limiter ? atomic64_read(&vm->limiter->faults) : 0;
}

static bool valid(const struct rdt_sb_limit *l)
{
	if (l->free == U64_MAX)
		return l->stop == U64_MAX && l->end == U64_MAX;
	return l->free <= l->stop && l->stop <= l->end && l->end - l->free <= 1ull << 35 && l->rate && l->rate <= 1u << 28;
}

/* Its numbers are absolute: what was counted before it came is part of them. */
static void change(struct rdt_sb_limiter *l, const struct rdt_sb_limit *limit)
{
	spin_lock(&l->lock);
	l->limit = *limit;
	WRITE_ONCE(l->generation, l->generation + 1);
	/* A pause by the limit before, or long ago, is none by this one. */
	l->next = ktime_get_ns();
	spin_unlock(&l->lock);
	wake_up_all(&l->wait);
}

int rdt_sb_put_limit(struct sk_buff *skb, const struct rdt_sb_vm *vm)
{
	const struct rdt_sb_limiter *l = vm->limiter;
	struct rdt_sb_limit_info said = {};

	if (l) {
		said.sleeps = atomic64_read(&l->sleeps);
		said.slept_ns = atomic64_read(&l->slept_ns);
		said.asleep = atomic_read(&l->asleep);
	}
	return nla_put_u64_64bit(skb, RDT_SB_A_FAULTS, rdt_sb_faults(vm), RDT_SB_A_PAD) ||
	       nla_put(skb, RDT_SB_A_LIMIT_INFO, sizeof(said), &said) ? -EMSGSIZE : 0;
}

static int answer(struct genl_info *info, const struct rdt_sb_vm *vm)
{
	struct sk_buff *skb = nlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *hdr;

	if (!skb)
		return -ENOMEM;
	hdr = genlmsg_put_reply(skb, info, &rdt_sb_family, 0, RDT_SB_CMD_LIMIT);
	if (!hdr || nla_put_u32(skb, RDT_SB_A_VM, vm->id) || rdt_sb_put_limit(skb, vm)) {
		nlmsg_free(skb);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return genlmsg_reply(skb, info);
}

int rdt_sb_do_limit(struct sk_buff *req, struct genl_info *info)
{
	const struct nlattr *a = info->attrs[RDT_SB_A_LIMIT];
	struct rdt_sb_limit limit = {};
	struct rdt_sb_limiter *l;
	struct rdt_sb_vm *vm;
	int err = rdt_sb_may_read(req, info);

	if (err)
		return err;
	if (a)
		memcpy(&limit, nla_data(a), sizeof(limit));
	if (a && !valid(&limit))
		return rdt_sb_refuse(info, -EINVAL, "limit: its numbers do not fit one another");
	vm = rdt_sb_vm_of(info);
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	if (!a) {
		rdt_sb_limit_end(vm);
	} else if (rdt_sb_vm_has_grown(vm)) {
		/* Numbers that cannot be changed any more must not hold anybody. */
		rdt_sb_limit_end(vm);
		err = rdt_sb_refuse(info, -ESTALE, "limit: the VM has got more vCPUs since it was registered");
	} else if (vm->limiter) {
		change(vm->limiter, &limit);
	} else {
		l = begin(vm, &limit);
		if (IS_ERR(l))
			err = PTR_ERR(l);
		else
			vm->limiter = l;
	}
	if (!err)
		err = answer(info, vm);
	rdt_sb_vm_put(vm);
	return err;
}
