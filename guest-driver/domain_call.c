// SPDX-License-Identifier: GPL-2.0
/* Calling a domain of ring 0. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jiffies.h>
#include <linux/kdebug.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include "domain.h"

static_assert(RDT_HC_DOM_ENTER == RDT_ASM_HC_DOM_ENTER);
static_assert(RDT_HC_RESUME == RDT_ASM_HC_RESUME);
static_assert(RDT_RESUME_DROP == RDT_ASM_RESUME_DROP);

static unsigned int grace_ms = 200;
module_param_named(domain_grace_ms, grace_ms, uint, 0644);
MODULE_PARM_DESC(domain_grace_ms, "how long a thread that was killed inside a domain may still go on, so that it leaves nothing half done (default 200)");

#define GRACE_MAX_MS	10000

/**
 * rdt_domain_may_go_on() - is a thread that was interrupted inside to go back?
 * @x: its crossing
 *
 * From the resume stub, on the caller's stack. Long work inside is not preempted by
 * itself in a kernel that preempts at certain points only: here is one.
 */
int rdt_domain_may_go_on(struct rdt_crossing *x)
{
	/* An NMI in a stretch of the inside with interrupts off. */
	if (irqs_disabled())
		return true;
	cond_resched();
	if (likely(!fatal_signal_pending(current)))
		return true;
	if (!x->give_up)
		x->give_up = (jiffies + msecs_to_jiffies(min(READ_ONCE(grace_ms), GRACE_MAX_MS + 0u))) | 1;
	return time_before(jiffies, x->give_up);
}

/*
 * An exception of the inside finds the stub's exception table, but for two. Where the CPU has SMAP (or
 * SMEP), Linux does not look there for #PF at an address of a process's half: the oops that it makes of it
 * ends here, with the message. And not for #BP; that it asks about before. (6.1 with kprobes does not even ask, but runs
 * the byte before the stub, a nop: the inside goes on behind its INT3.)
 */
static int oops(struct notifier_block *nb, unsigned long event, void *data)
{
	struct die_args *args = data;

	if ((event != DIE_OOPS && event != DIE_INT3) || args->regs->ip != (unsigned long)rdt_domain_resume || user_mode(args->regs))
		return NOTIFY_DONE;
	args->regs->ip = (unsigned long)rdt_domain_fault;
	return NOTIFY_STOP;
}
static struct notifier_block oops_nb = { .notifier_call = oops };

int rdt_domain_call_init(void)
{
	return register_die_notifier(&oops_nb);
}

/* 0: it was inside and left by itself. */
static int cross(struct redoubt_domain *d, u64 c, u64 dx, u64 si, u64 di, s64 *result)
{
	struct rdt_crossing x = {};
	u64 id = d->id;
	long ret;
	register unsigned long out asm("r11");

	/*
	 * When a resume fails the callee-saved registers do not come back: so the compiler is told
	 * that all are lost. The stub finds x above the return address.
	 */
	asm volatile("pushq %[x]\n\t"
		     "call rdt_domain_enter\n\t"
		     "addq $8, %%rsp"
		     : "=a" (ret), "=r" (out), "+b" (id), "+c" (c), "+d" (dx), "+S" (si), "+D" (di),
		       ASM_CALL_CONSTRAINT
		     : [x] "r" (&x)
		     : "rbp", "r8", "r9", "r10", "r12", "r13", "r14", "r15", "memory", "cc");
	switch (out) {
	case 0:
		*result = ret;
		return 0;
	case RDT_OUT_KILLED:
		return -EINTR;
	case RDT_OUT_FAULT:
		return -ENOTRECOVERABLE;
	case RDT_OUT_LOST:
		return -ENODEV;
	default:
		return rdt_domain_errno(ret);
	}
}

static int enter(struct redoubt_domain *d, u64 c, u64 dx, u64 si, u64 di, s64 *result)
{
	int err;

	might_sleep();
	if (test_bit(0, &d->dying))
		return -ENODEV;
	err = cross(d, c, dx, si, di, result);
	/* Brought out, or an error of the inside's own. */
	return test_bit(0, &d->dying) && !err && *result == -ENOENT ? -ENODEV : err;
}

/**
 * redoubt_domain_enter() - run the inside with four arguments.
 * @d: of ring 0
 * @arg: RCX, RDX, RSI, RDI
 * @result: what the inside returns; -EPERM also when it reached for what is not its own
 *
 * In a process, with interrupts on. The inside may be interrupted, preempted and go on on another
 * CPU. Waits, killably, while all slots are taken.
 *
 * Return: 0, and @result is set; -EINTR a fatal signal; -ENOTRECOVERABLE the inside raised an
 * exception; -ENODEV the domain is gone; -EAGAIN a slot was lost (to a vCPU that was reset).
 */
int redoubt_domain_enter(struct redoubt_domain *d, const u64 arg[4], s64 *result)
{
	int err;

	if (d->flags & RDT_DOM_USER)
		return -EOPNOTSUPP;
	if (down_killable(&d->free))
		return -EINTR;
	err = enter(d, arg[0], arg[1], arg[2], arg[3], result);
	up(&d->free);
	return err;
}
EXPORT_SYMBOL_GPL(redoubt_domain_enter);

/* There is one: there are as many parts as the semaphore counts. */
static unsigned int take_part(struct redoubt_domain *d)
{
	unsigned int i;

	do {
		i = find_first_zero_bit(&d->used, d->slots);
	} while (i >= d->slots || test_and_set_bit(i, &d->used));
	return i;
}

static int call_with(struct redoubt_domain *d, struct rdt_call *call, unsigned int part)
{
	u32 room = min(call->out_len, d->part), dirty = d->part;
	void *at = d->parts + (size_t)part * d->part;
	s64 result;
	int err;

	memcpy(at, (const void *)(uintptr_t)call->in, call->in_len);
	err = enter(d, call->op, d->part ? d->parts_gva + (u64)part * d->part : 0, call->in_len,
		    room, &result);
	if (!err && (result > (s64)room || result < -MAX_ERRNO))
		err = -EBADMSG;
	if (!err) {
		if (result > 0)
			memcpy((void *)(uintptr_t)call->out, at, result);
		call->result = result;
		dirty = max_t(s64, call->in_len, result);
	}
	/* The next caller is another process. */
	memset(at, 0, dirty);
	return err;
}

/**
 * redoubt_domain_call() - one call by the convention of RDT_DOMAIN_CALL.
 * @d: of ring 0
 * @call: see struct rdt_call; its pointers are the kernel's
 *
 * Context and errors: as redoubt_domain_enter(), and -EMSGSIZE and -EBADMSG as RDT_DOMAIN_CALL.
 */
int redoubt_domain_call(struct redoubt_domain *d, struct rdt_call *call)
{
	unsigned int part;
	int err;

	if (d->flags & RDT_DOM_USER)
		return -EOPNOTSUPP;
	if (call->reserved)
		return -EINVAL;
	if (call->in_len > d->part)
		return -EMSGSIZE;
	if (down_killable(&d->free))
		return -EINTR;
	part = take_part(d);
	err = call_with(d, call, part);
	clear_bit_unlock(part, &d->used);
	up(&d->free);
	return err;
}
EXPORT_SYMBOL_GPL(redoubt_domain_call);
