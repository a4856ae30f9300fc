// SPDX-License-Identifier: GPL-2.0
/*
 * A question to KVM when there is no VMM to ask it. KVM answers only who has its VM's address space, and writes to user
 * addresses: so a thread in the kept address space calls the file's own ioctl handler, with its arguments in pages that it
 * maps there for the time being. No field of KVM's is touched.
 *
 * The pages are shared ones: those are still given out when the OOM killer has had the VMM. The thread has references to
 * all it uses: one that does not come back in time is left alone with them.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/file.h>
#include <linux/kthread.h>
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

long rdt_sb_kvm_call(const struct rdt_sb_ask *a, struct file *file, unsigned int ioctl, unsigned long arg)
{
	return signal_pending(current) ? -EINTR : file->f_op->unlocked_ioctl(file, ioctl, arg);
}

/* ---- does it run? ---------------------------------------------------------------- */

/* KVM_RUN holds the mutex. We cannot: KVM's own handlers take it. */
static int add_exits(struct kvm_vcpu *vcpu, u64 *exits)
{
	if (!mutex_trylock(&vcpu->mutex))
		return -EBUSY;
	*exits += vcpu->stat.exits;
	mutex_unlock(&vcpu->mutex);
	return 0;
}

/* -EBUSY, or how often those that were asked about have left the guest, ever. */
static int still(const struct rdt_sb_ask *a, u64 *exits)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;
	int err = 0;

	*exits = 0;
	if (!a->still)
		return 0;
	if (a->vcpu)
		return add_exits(a->vcpu->private_data, exits);
	kvm_for_each_vcpu(i, vcpu, a->kvm) {
		err = err ?: add_exits(vcpu, exits);
	}
	return err;
}

/* Several calls make one state only if the vCPU has been in the guest at no time between the first and the last. */
static int ask_still(struct rdt_sb_ask *a)
{
	u64 before, after;
	int err = still(a, &before);

	if (!err)
		err = a->ask(a);
	if (!err)
		err = still(a, &after);
	return err ?: before == after ? 0 : -EBUSY;
}

/* ---- the thread -------------------------------------------------------------------- */

static void free_ask(struct kref *kref)
{
	struct rdt_sb_ask *a = container_of(kref, struct rdt_sb_ask, kref);

	if (a->task)
		put_task_struct(a->task);
	if (a->vcpu)
		fput(a->vcpu);
	fput(a->file);
	rdt_sb_mm_put(a->mm);
	nlmsg_free(a->skb);
	rdt_sb_scan_free(a->scan);
	kfree(a->msrs);
	kfree(a);
}

void rdt_sb_ask_put(struct rdt_sb_ask *a)
{
	kref_put(&a->kref, free_ask);
}

static int ask_thread(void *arg)
{
	struct rdt_sb_ask *a = arg;

	allow_kernel_signal(SIGKILL);
	kthread_use_mm(a->mm->mm);
	/* A signal sent before it was allowed was dropped. Pairs with rdt_sb_ask(), by the lock of our signals. */
	if (READ_ONCE(a->closing))
		a->arg = -EINTR;
	else if (!a->bare)
		a->arg = vm_mmap(NULL, 0, RDT_SB_ARG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, 0);
	if (IS_ERR_VALUE(a->arg)) {
		a->err = (long)a->arg;
	} else {
		a->err = ask_still(a);
	}
	if (!IS_ERR_VALUE(a->arg) && !a->bare) {
		/* Our pages must not stay; to wait for the lock behind a signal fails. */
		do
			flush_signals(current);
		while (vm_munmap(a->arg, RDT_SB_ARG_BYTES) == -EINTR);
	}
	kthread_unuse_mm(a->mm->mm);
	complete(&a->done);
	rdt_sb_ask_put(a);
	module_put_and_kthread_exit(0);
}

/* ---- who asks ------------------------------------------------------------------------ */

struct rdt_sb_ask *rdt_sb_ask_new(struct rdt_sb_vm *vm, struct file *vcpu, int (*ask)(struct rdt_sb_ask *a))
{
	struct rdt_sb_ask *a = kzalloc(sizeof(*a), GFP_KERNEL);

	if (!a)
		return NULL;
	kref_init(&a->kref);
	init_completion(&a->done);
	a->ask = ask;
	a->file = get_file(vm->file);
	a->kvm = vm->kvm;
	a->vcpu = vcpu ? get_file(vcpu) : NULL;
	a->mm = vm->mm;
	rdt_sb_mm_get(a->mm);
	return a;
}

int rdt_sb_ask(struct rdt_sb_ask *a, bool *ended)
{
	struct task_struct *task = kthread_create(ask_thread, a, "redoubt-sb-get");

	*ended = true;
	if (IS_ERR(task))
		return PTR_ERR(task);
	a->task = task;
	get_task_struct(task);
	kref_get(&a->kref);
	__module_get(THIS_MODULE);
	wake_up_process(task);
	/* KVM waits for a vCPU that runs, but not behind a fatal signal. Other sleeps may not end by one. */
	if (!wait_for_completion_timeout(&a->done, RDT_SB_GRACE)) {
		WRITE_ONCE(a->closing, true);
		send_sig(SIGKILL, task, 1);
		if (!wait_for_completion_timeout(&a->done, RDT_SB_GRACE)) {
			*ended = false;
			return -EBUSY;
		}
	}
	kthread_stop(task);	/* it has left our code */
	return a->err == -EINTR ? -EBUSY : a->err;
}

/* ---- encrypted? ----------------------------------------------------------------------- */

/* -ENOTTY is KVM's answer for VMs, and machines, that have nothing to do with it. */
static int ask_sev(struct rdt_sb_ask *a)
{
	const struct kvm_sev_cmd cmd = {
		.id = KVM_SEV_GUEST_STATUS,
		.data = a->arg + sizeof(cmd),
		.sev_fd = (u32)-1,
	};
	long ret;

	if (copy_to_user((void __user *)a->arg, &cmd, sizeof(cmd)))
		return -EFAULT;
	ret = rdt_sb_kvm_call(a, a->file, KVM_MEMORY_ENCRYPT_OP, a->arg);
	if (ret == -ENOTTY)
		return 0;
	return ret == -EIO || ret == -EINTR ? ret : -EOPNOTSUPP;
}

int rdt_sb_encrypted(struct rdt_sb_vm *vm)
{
	struct rdt_sb_ask *a = rdt_sb_ask_new(vm, NULL, ask_sev);
	bool ended;
	int err;

	if (!a)
		return -ENOMEM;
	err = rdt_sb_ask(a, &ended);
	rdt_sb_ask_put(a);
	return err;
}
