// SPDX-License-Identifier: GPL-2.0
/*
 * redoubt_standby: the module, and /dev/redoubt-standby. An open descriptor keeps the module loaded, and with it whatever
 * a registration has; a thread that has not ended yet does, too. So there is nothing to stop when it is unloaded.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/uaccess.h>

static long busy(void)
{
	pr_notice_ratelimited("%s[%d]: register: this descriptor has a VM\n", current->comm, task_tgid_nr(current));
	return -EBUSY;
}

static long do_register(struct file *file, struct rdt_sb_register __user *arg)
{
	struct rdt_sb_register reg;
	struct rdt_sb_vm *vm;
	long err;

	if (!capable(CAP_SYS_PTRACE)) {
		pr_notice_ratelimited("%s[%d]: register: not without CAP_SYS_PTRACE\n", current->comm, task_tgid_nr(current));
		return -EPERM;
	}
	if (copy_from_user(&reg, arg, sizeof(reg)))
		return -EFAULT;
	err = rdt_sb_vm_register(&reg, &vm);
	if (err)
		return err;
	/* Another thread may have been here with the same descriptor. */
	if (cmpxchg(&file->private_data, NULL, vm)) {
		rdt_sb_vm_end(vm);
		return busy();
	}
	rdt_sb_event(&(struct rdt_sb_event){ .event = RDT_SB_EVENT_REGISTERED, .vm = reg.id });
	/* It is registered, whether the caller hears of it or not: the descriptor ends it. */
	return copy_to_user(arg, &reg, sizeof(reg)) ? -EFAULT : 0;
}

static long do_crash(struct file *file, struct rdt_sb_crash __user *arg)
{
	/* Another thread's registration is whole before it is there: pairs with do_register()'s cmpxchg(). */
	struct rdt_sb_vm *vm = smp_load_acquire((struct rdt_sb_vm **)&file->private_data);
	struct rdt_sb_crash crash;

	if (!vm) {
		pr_notice_ratelimited("%s[%d]: crash: this descriptor has no VM\n", current->comm, task_tgid_nr(current));
		return -ENXIO;
	}
	if (copy_from_user(&crash, arg, sizeof(crash)))
		return -EFAULT;
	return rdt_sb_crash_set(vm, &crash);
}

static long rdt_sb_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case RDT_SB_REGISTER:
		if (READ_ONCE(file->private_data))
			return busy();
		return do_register(file, (struct rdt_sb_register __user *)arg);
	case RDT_SB_CRASH:
		return do_crash(file, (struct rdt_sb_crash __user *)arg);
	default:
		return -ENOTTY;
	}
}

static int rdt_sb_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;	/* misc_open() has left itself there */
	return 0;
}

static int rdt_sb_release(struct inode *inode, struct file *file)
{
	struct rdt_sb_vm *vm = file->private_data;

	if (vm)
		rdt_sb_vm_end(vm);
	return 0;
}

static const struct file_operations fops = {
	.owner		= THIS_MODULE,
	.open		= rdt_sb_open,
	.release	= rdt_sb_release,
	.unlocked_ioctl	= rdt_sb_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "redoubt-standby",
	.fops	= &fops,
	.mode	= 0600,
};

static int __init rdt_sb_init(void)
{
	int err = rdt_sb_crash_init();

	if (err)
		return err;
	err = genl_register_family(&rdt_sb_family);
	if (err)
		goto no_family;
	err = misc_register(&misc);
	if (err)
		goto no_device;
	return 0;
no_device:
	genl_unregister_family(&rdt_sb_family);
no_family:
	rdt_sb_crash_exit();
	return err;
}

static void __exit rdt_sb_exit(void)
{
	misc_deregister(&misc);
	genl_unregister_family(&rdt_sb_family);
	/* A vCPU's thread that limit.c had put to sleep has let the module go, and has a few instructions of it still to do. */
	synchronize_rcu_tasks();
	rdt_sb_crash_exit();
}

module_init(rdt_sb_init);
module_exit(rdt_sb_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Keeps and streams what a VM has in memory when its VMM is gone");
MODULE_ALIAS_GENL_FAMILY(RDT_SB_GENL_NAME);
