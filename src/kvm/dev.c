// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/redoubt and the descriptors of attached VMs: the operator's door.
 *
 * Everything is copied in first and checked after, so user space cannot change
 * it in between. A descriptor holds a reference to its VM; the core behind it
 * stays allocated for as long, and answers -ENODEV once the VM has ended.
 */
#include "redoubt.h"

#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>

#define RDT_MAX_ENTRIES		4096	/* of a list, as the uAPI says */

/* A descriptor of a VM. */
struct rdt_file {
	struct rdt_vm *vm;		/* NULL until it is handed out */
	u64 seen;			/* RDT_VM_SEEN; READ_ONCE */
};

/* The caller gets an errno that says little: the log says which field it was. */
long rdt_refuse(const char *request, const char *why)
{
	pr_notice_ratelimited("%s[%d]: %s: %s\n", current->comm, task_tgid_nr(current),
			      request, why);
	return -EINVAL;
}

/* In the caller's pid namespace; 0 once it has gone, its number may be reused. */
static s32 rdt_vmm_pid(const struct rdt_vm *vm)
{
	s32 nr = 0;

	rcu_read_lock();
	if (vm->vmm && pid_task(vm->vmm, PIDTYPE_TGID))
		nr = pid_vnr(vm->vmm);
	rcu_read_unlock();
	return nr;
}

/* ---- a VM's descriptor ------------------------------------------------------ */

static long rdt_fd_info(struct rdt_vm *vm, struct rdt_vm_info __user *arg)
{
	struct rdt_vm_info info = {};
	int i;

	rdt_core_info(vm->core, &info);
	info.vm_id = vm->id;
	for (i = 0; i < KVM_MAX_VCPUS; i++)
		info.vcpus += !!READ_ONCE(vm->vcpu[i]);
	info.vmm_pid = rdt_vmm_pid(vm);
	if (READ_ONCE(vm->dead))
		info.flags |= RDT_VM_DEAD;
	info.faults = atomic64_read(&vm->faults);
	info.events = rdt_ring_head(&vm->ring);
	info.host_bytes += vm->ring.size;
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static long rdt_fd_regions(struct rdt_vm *vm, struct rdt_regions __user *arg)
{
	struct rdt_regions list;
	struct rdt_region *out;
	rdt_u64 next;
	long ret;

	if (copy_from_user(&list, arg, sizeof(list)))
		return -EFAULT;
	if (list.reserved)
		return rdt_refuse("RDT_VM_REGIONS", "reserved is not zero");
	if (!list.nr || list.nr > RDT_MAX_ENTRIES)
		return rdt_refuse("RDT_VM_REGIONS", "nr is not 1..4096");

	out = kvcalloc(list.nr, sizeof(*out), GFP_KERNEL_ACCOUNT);
	if (!out)
		return -ENOMEM;
	ret = rdt_core_regions(vm->core, list.start, out, list.nr, &next);
	if (ret < 0)
		goto free;
	list.nr = ret;
	list.start = next;
	ret = 0;
	if (copy_to_user(u64_to_user_ptr(list.entries), out, list.nr * sizeof(*out)) ||
	    copy_to_user(arg, &list, sizeof(list)))
		ret = -EFAULT;
free:
	kvfree(out);
	return ret;
}

static long rdt_fd_protect(struct rdt_vm *vm, const struct rdt_protect __user *arg)
{
	struct rdt_protect p;

	if (copy_from_user(&p, arg, sizeof(p)))
		return -EFAULT;
	if (p.flags || p.reserved)
		return rdt_refuse("RDT_VM_PROTECT", "flags or reserved is not zero");
	return rdt_core_protect(vm->core, p.gpa, p.pages, p.action, p.cls);
}

static long rdt_fd_seen(struct rdt_file *file, const u64 __user *arg)
{
	u64 seq;

	if (copy_from_user(&seq, arg, sizeof(seq)))
		return -EFAULT;
	/* Or the events up to there would go unreported. */
	if (seq > rdt_ring_head(&file->vm->ring))
		return rdt_refuse("RDT_VM_SEEN", "there is no such event yet");
	WRITE_ONCE(file->seen, seq);
	return 0;
}

static long rdt_fd_ioctl(struct file *f, unsigned int cmd, unsigned long param)
{
	struct rdt_file *file = f->private_data;
	struct rdt_vm *vm = file->vm;
	void __user *arg = (void __user *)param;
	struct kvm *kvm;
	long ret;

	switch (cmd) {
	case RDT_VM_INFO:
		return rdt_fd_info(vm, arg);
	case RDT_VM_SEEN:
		return rdt_fd_seen(file, arg);
	case RDT_VM_REGIONS:
	case RDT_VM_PROTECT:
	case RDT_VM_DETACH:
	case RDT_VM_DOM_QUOTA:
	case RDT_VM_DOM_GET_QUOTA:
	case RDT_VM_DOMAIN:
	case RDT_VM_DOM_DESTROY:
	case RDT_VM_DOM_INSTALL:
	case RDT_VM_DOM_EXPORT:
	case RDT_VM_DOM_IMPORT:
		break;
	default:
		return -ENOTTY;
	}

	kvm = rdt_vm_hold(vm);
	if (!kvm)
		return -ENODEV;
	switch (cmd) {
	case RDT_VM_REGIONS:
		ret = rdt_fd_regions(vm, arg);
		break;
	case RDT_VM_PROTECT:
		ret = rdt_fd_protect(vm, arg);
		break;
	case RDT_VM_DETACH:
		ret = param & ~(unsigned long)RDT_DETACH_FORCE ?
			      rdt_refuse("RDT_VM_DETACH", "unknown flags") : rdt_vm_detach(vm, param);
		break;
	default:
		ret = rdt_domain_ioctl(vm, cmd, arg);
	}
	kvm_put_kvm(kvm);
	return ret;
}

static __poll_t rdt_fd_poll(struct file *f, poll_table *table)
{
	struct rdt_file *file = f->private_data;
	__poll_t mask = 0;

	if (rdt_ring_poll(&file->vm->ring, f, table) > READ_ONCE(file->seen))
		mask |= EPOLLIN | EPOLLRDNORM;
	/* Set before the last event is pushed, which wakes. */
	if (READ_ONCE(file->vm->dead))
		mask |= EPOLLHUP;
	return mask;
}

static int rdt_fd_mmap(struct file *f, struct vm_area_struct *vma)
{
	struct rdt_file *file = f->private_data;

	return rdt_ring_mmap(&file->vm->ring, vma);
}

static int rdt_fd_release(struct inode *inode, struct file *f)
{
	struct rdt_file *file = f->private_data;

	if (file->vm)
		rdt_vm_put(file->vm);
	kfree(file);
	return 0;
}

static const struct file_operations rdt_fd_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = rdt_fd_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.poll = rdt_fd_poll,
	.mmap = rdt_fd_mmap,
	.release = rdt_fd_release,
	.llseek = noop_llseek,
};

/*
 * A descriptor on its way: reserved and filled in where failing is easy to undo,
 * visible to the process only with rdt_new_fd_install(), which cannot fail.
 */
struct rdt_new_fd {
	int fd;
	struct file *file;
};

static int rdt_new_fd_reserve(struct rdt_new_fd *new)
{
	struct rdt_file *file;
	int ret;

	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	new->file = anon_inode_getfile("[redoubt-vm]", &rdt_fd_fops, file, O_RDWR);
	if (IS_ERR(new->file)) {
		kfree(file);
		return PTR_ERR(new->file);
	}
	ret = get_unused_fd_flags(O_CLOEXEC);
	if (ret < 0) {
		fput(new->file);
		return ret;
	}
	new->fd = ret;
	return 0;
}

/* Takes over the caller's reference to @vm, also if the descriptor is dropped. */
static void rdt_new_fd_set_vm(struct rdt_new_fd *new, struct rdt_vm *vm)
{
	struct rdt_file *file = new->file->private_data;

	file->vm = vm;
}

static void rdt_new_fd_drop(struct rdt_new_fd *new)
{
	put_unused_fd(new->fd);
	fput(new->file);
}

static void rdt_new_fd_install(struct rdt_new_fd *new)
{
	fd_install(new->fd, new->file);
}

/* ---- /dev/redoubt ----------------------------------------------------------- */

static long rdt_dev_info(struct rdt_info __user *arg)
{
	struct rdt_info info = {
		.version = RDT_UAPI_VERSION,
		.arch = rdt_is_vmx ? RDT_ARCH_EPT : RDT_ARCH_NPT,
		.flags = READ_ONCE(rdt_policy),
		.vms = rdt_vm_count(),
		.views = RDT_VIEW_STEP,
	};

	strscpy(info.kernel, init_utsname()->release, sizeof(info.kernel));
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static long rdt_dev_attach(struct rdt_attach __user *arg)
{
	struct rdt_attach a;
	struct rdt_new_fd new;
	struct file *kvm_file;
	struct rdt_vm *vm;
	long ret;

	if (copy_from_user(&a, arg, sizeof(a)))
		return -EFAULT;
	if (a.flags)
		return rdt_refuse("RDT_ATTACH", "unknown flags");
	if (a.reserved[0] || a.reserved[1])
		return rdt_refuse("RDT_ATTACH", "reserved is not zero");

	kvm_file = fget(a.vm_fd);
	if (!kvm_file)
		return -EBADF;
	ret = -EBADF;
	if (!file_is_kvm(kvm_file))
		goto put;
	ret = rdt_new_fd_reserve(&new);
	if (ret)
		goto put;
	ret = rdt_vm_attach(kvm_file->private_data, false, &vm);
	if (ret)
		goto drop;
	rdt_new_fd_set_vm(&new, vm);
	a.fd = new.fd;
	a.vm_id = vm->id;
	if (copy_to_user(arg, &a, sizeof(a))) {
		ret = -EFAULT;
		/* Fails only if the guest was that quick to go inside. */
		if (rdt_vm_detach(vm, 0))
			pr_notice("vm %u stays attached: %s[%d] lost its descriptor\n",
				  vm->id, current->comm, task_tgid_nr(current));
		goto drop;
	}
	rdt_new_fd_install(&new);
	fput(kvm_file);
	return 0;

drop:
	rdt_new_fd_drop(&new);
put:
	fput(kvm_file);
	return ret;
}

static long rdt_dev_open_vm(struct rdt_open __user *arg)
{
	struct rdt_open o;
	struct rdt_new_fd new;
	struct rdt_vm *vm;
	long ret;

	if (copy_from_user(&o, arg, sizeof(o)))
		return -EFAULT;
	if (o.flags || o.reserved)
		return rdt_refuse("RDT_OPEN", "flags or reserved is not zero");

	ret = rdt_new_fd_reserve(&new);
	if (ret)
		return ret;
	ret = -ENOENT;
	vm = rdt_vm_get_by_id(o.vm_id);
	if (!vm)
		goto drop;
	rdt_new_fd_set_vm(&new, vm);
	o.fd = new.fd;
	ret = -EFAULT;
	if (copy_to_user(arg, &o, sizeof(o)))
		goto drop;
	rdt_new_fd_install(&new);
	return 0;

drop:
	rdt_new_fd_drop(&new);
	return ret;
}

static long rdt_dev_list(struct rdt_list __user *arg)
{
	struct rdt_list list;
	struct rdt_list_entry __user *to;
	u32 room;

	if (copy_from_user(&list, arg, sizeof(list)))
		return -EFAULT;
	if (!list.nr || list.nr > RDT_MAX_ENTRIES)
		return rdt_refuse("RDT_LIST", "nr is not 1..4096");

	to = u64_to_user_ptr(list.entries);
	room = list.nr;
	for (list.nr = 0; list.nr < room; list.nr++) {
		struct rdt_vm *vm = rdt_vm_get_next(list.after);
		struct rdt_list_entry entry;

		if (!vm)
			break;
		entry.vm_id = vm->id;
		entry.vmm_pid = rdt_vmm_pid(vm);
		rdt_vm_put(vm);
		if (copy_to_user(&to[list.nr], &entry, sizeof(entry)))
			return -EFAULT;
		list.after = entry.vm_id;
	}
	return put_user(list.nr, &arg->nr);
}

static long rdt_dev_get_policy(struct rdt_policy __user *arg)
{
	struct rdt_policy p = { .flags = READ_ONCE(rdt_policy) };

	return copy_to_user(arg, &p, sizeof(p)) ? -EFAULT : 0;
}

static long rdt_dev_set_policy(const struct rdt_policy __user *arg)
{
	struct rdt_policy p;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(&p, arg, sizeof(p)))
		return -EFAULT;
	if (p.flags & ~RDT_POLICY_SELF_ATTACH)
		return rdt_refuse("RDT_SET_POLICY", "unknown flags");
	if (p.reserved[0] || p.reserved[1] || p.reserved[2])
		return rdt_refuse("RDT_SET_POLICY", "reserved is not zero");
	WRITE_ONCE(rdt_policy, p.flags);
	return 0;
}

static long rdt_dev_ioctl(struct file *f, unsigned int cmd, unsigned long param)
{
	void __user *arg = (void __user *)param;

	switch (cmd) {
	case RDT_INFO:
		return rdt_dev_info(arg);
	case RDT_ATTACH:
		return rdt_dev_attach(arg);
	case RDT_OPEN:
		return rdt_dev_open_vm(arg);
	case RDT_LIST:
		return rdt_dev_list(arg);
	case RDT_GET_POLICY:
		return rdt_dev_get_policy(arg);
	case RDT_SET_POLICY:
		return rdt_dev_set_policy(arg);
	}
	return -ENOTTY;
}

static const struct file_operations rdt_dev_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = rdt_dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice rdt_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "redoubt",
	.fops = &rdt_dev_fops,
	.mode = 0660,
};

int rdt_dev_init(void)
{
	return misc_register(&rdt_dev);
}

void rdt_dev_exit(void)
{
	misc_deregister(&rdt_dev);
}
