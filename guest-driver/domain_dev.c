// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/redoubt-domain, where a process makes its domain, and /dev/redoubt/NAME, where others
 * call one that was published.
 *
 * A published domain has a reference of its device's; each open file has one. What ends the
 * domain is its owner's file, or who may take the device away.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/ctype.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include "domain.h"

/* All published domains. Outside of the kernel's lock of misc devices. */
static DEFINE_MUTEX(lock);
static LIST_HEAD(published);

/**
 * struct owner - an open /dev/redoubt-domain.
 * @create: one thread of the process makes the domain.
 * @domain: set once; what has it has it until the file is released.
 */
struct owner {
	struct mutex create;
	struct redoubt_domain *domain;
};

/* ---- calls, which both devices have ------------------------------------------- */

/*
 * The process's memory is copied before a slot is taken and after it is given back: a page
 * fault can take as long as its owner likes.
 */
static int call_it(struct redoubt_domain *d, void __user *arg)
{
	struct rdt_call call;
	u64 out;
	u32 room;
	void *buf;
	int err;

	if (d->flags & RDT_DOM_USER)
		return -EOPNOTSUPP;
	if (copy_from_user(&call, arg, sizeof(call)))
		return -EFAULT;
	if (call.in_len > d->part)
		return -EMSGSIZE;
	room = min(call.out_len, d->part);
	buf = kvmalloc(max3(call.in_len, room, 1u), GFP_KERNEL_ACCOUNT);
	if (!buf)
		return -ENOMEM;
	err = -EFAULT;
	if (copy_from_user(buf, u64_to_user_ptr(call.in), call.in_len))
		goto out;
	out = call.out;
	call.in = call.out = (uintptr_t)buf;
	call.out_len = room;
	err = redoubt_domain_call(d, &call);
	if (err)
		goto out;
	if (call.result > 0 && copy_to_user(u64_to_user_ptr(out), buf, call.result))
		err = -EFAULT;
	else if (put_user(call.result, &((struct rdt_call __user *)arg)->result))
		err = -EFAULT;
out:
	/* Others' keys and plain text do not lie about in free memory. */
	memzero_explicit(buf, max(call.in_len, room));
	kvfree(buf);
	return err;
}

static int about_it(struct redoubt_domain *d, void __user *arg)
{
	struct rdt_domain_about about = {
		.id = d->id, .flags = d->flags, .slots = d->slots, .part = d->part, .pages = d->pages,
		.state = test_bit(0, &d->dying) ? RDT_DOMAIN_IS_DYING : RDT_DOMAIN_IS_SEALED,
	};
	int err = redoubt_domain_measure(d, about.measurement);

	if (err)
		return err;
	mutex_lock(&lock);
	if (!list_empty(&d->list))
		strscpy(about.name, d->name, sizeof(about.name));
	mutex_unlock(&lock);
	return copy_to_user(arg, &about, sizeof(about)) ? -EFAULT : 0;
}

/* ---- published --------------------------------------------------------------- */

static int shared_open(struct inode *inode, struct file *file)
{
	/* Its device is registered, and has a reference, while misc_open() is here. */
	struct redoubt_domain *d = container_of(file->private_data, struct redoubt_domain, misc);

	kref_get(&d->ref);
	file->private_data = d;
	return nonseekable_open(inode, file);
}

static int shared_release(struct inode *inode, struct file *file)
{
	rdt_domain_put(file->private_data);
	return 0;
}

/* Under the lock. */
static int withdraw(struct redoubt_domain *d)
{
	if (list_empty(&d->list))
		return -ENOENT;
	list_del_init(&d->list);
	misc_deregister(&d->misc);
	rdt_domain_put(d);
	return 0;
}

static int shared_unpublish(struct redoubt_domain *d)
{
	int err;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	mutex_lock(&lock);
	err = withdraw(d);
	mutex_unlock(&lock);
	if (err)
		return err;
	/* This file's own reference stays. */
	kref_get(&d->ref);
	redoubt_domain_destroy(d);
	return 0;
}

static long shared_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct redoubt_domain *d = file->private_data;

	switch (cmd) {
	case RDT_DOMAIN_CALL:
		return call_it(d, (void __user *)arg);
	case RDT_DOMAIN_INFO:
		return about_it(d, (void __user *)arg);
	case RDT_DOMAIN_UNPUBLISH:
		return shared_unpublish(d);
	}
	return -ENOTTY;
}

static const struct file_operations shared_fops = {
	.owner = THIS_MODULE,
	.open = shared_open,
	.release = shared_release,
	.unlocked_ioctl = shared_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static bool good_name(const char *name)
{
	size_t n = strnlen(name, RDT_PUBLISH_NAME), i;

	for (i = 0; i < n; i++)
		if (!isascii(name[i]) || (!isalnum(name[i]) && name[i] != '_' && name[i] != '-'))
			return false;
	return n && n < RDT_PUBLISH_NAME;
}

static bool is_taken(const char *name)
{
	const struct redoubt_domain *d;

	list_for_each_entry(d, &published, list)
		if (!strcmp(d->name, name))
			return true;
	return false;
}

static int publish(struct redoubt_domain *d, const void __user *arg)
{
	struct rdt_publish p;
	int err;

	if (copy_from_user(&p, arg, sizeof(p)))
		return -EFAULT;
	if (!good_name(p.name) || p.mode & ~0666u || p.flags & ~RDT_PUBLISH_STAY || p.reserved)
		return -EINVAL;
	if (p.flags & RDT_PUBLISH_STAY && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (d->flags & RDT_DOM_USER)
		return -EOPNOTSUPP;

	mutex_lock(&lock);
	err = -EEXIST;
	if (!list_empty(&d->list) || is_taken(p.name))
		goto out;
	err = -ENODEV;
	if (test_bit(0, &d->dying))
		goto out;
	strscpy(d->name, p.name, sizeof(d->name));
	snprintf(d->node, sizeof(d->node), "redoubt/%s", d->name);
	snprintf(d->device, sizeof(d->device), "redoubt!%s", d->name);
	d->stay = p.flags & RDT_PUBLISH_STAY;
	d->misc = (struct miscdevice){
		.minor = MISC_DYNAMIC_MINOR, .name = d->device, .nodename = d->node,
		.fops = &shared_fops, .mode = p.mode,
	};
	kref_get(&d->ref);
	err = misc_register(&d->misc);
	if (err)
		rdt_domain_put(d);
	else
		list_add(&d->list, &published);
out:
	mutex_unlock(&lock);
	return err;
}

/* ---- the owner ------------------------------------------------------------------- */

static int owner_open(struct inode *inode, struct file *file)
{
	struct owner *o = kzalloc(sizeof(*o), GFP_KERNEL_ACCOUNT);

	if (!o)
		return -ENOMEM;
	mutex_init(&o->create);
	file->private_data = o;
	return nonseekable_open(inode, file);
}

static int owner_release(struct inode *inode, struct file *file)
{
	struct owner *o = file->private_data;
	struct redoubt_domain *d = o->domain;
	bool stays = false;

	kfree(o);
	if (!d)
		return 0;
	mutex_lock(&lock);
	if (!list_empty(&d->list)) {
		stays = d->stay;
		if (!stays)
			withdraw(d);
	}
	mutex_unlock(&lock);
	if (stays)
		rdt_domain_put(d);
	else
		redoubt_domain_destroy(d);
	return 0;
}

/* Code for ring 0 is code for the kernel, whatever the device's permissions say. */
static int may_create(const struct rdt_image *image)
{
	if (image->flags & RDT_DOM_USER)
		return 0;
	if (!capable(CAP_SYS_MODULE))
		return -EPERM;
	return security_locked_down(LOCKDOWN_MODULE_SIGNATURE);
}

static int owner_create(struct owner *o, struct rdt_image __user *arg)
{
	struct rdt_image *image = memdup_user(arg, sizeof(*image));
	struct redoubt_domain *d;
	int err;

	if (IS_ERR(image))
		return PTR_ERR(image);
	err = may_create(image);
	if (err)
		goto out;
	err = -EINTR;
	if (mutex_lock_killable(&o->create))
		goto out;
	err = -EEXIST;
	if (!o->domain) {
		d = rdt_domain_build(image, true);
		err = PTR_ERR_OR_ZERO(d);
		if (!err && copy_to_user(arg, image, sizeof(*image))) {
			redoubt_domain_destroy(d);
			err = -EFAULT;
		}
		if (!err)
			/* Pairs with smp_load_acquire() of those who use it without the mutex. */
			smp_store_release(&o->domain, d);
	}
	mutex_unlock(&o->create);
out:
	kfree(image);
	return err;
}

static long owner_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct owner *o = file->private_data;
	struct redoubt_domain *d;
	int err;

	if (cmd == RDT_DOMAIN_CREATE)
		return owner_create(o, (void __user *)arg);
	d = smp_load_acquire(&o->domain);
	switch (cmd) {
	case RDT_DOMAIN_PUBLISH:
		return d ? publish(d, (void __user *)arg) : -ENXIO;
	case RDT_DOMAIN_CALL:
		return d ? call_it(d, (void __user *)arg) : -ENXIO;
	case RDT_DOMAIN_INFO:
		return d ? about_it(d, (void __user *)arg) : -ENXIO;
	case RDT_DOMAIN_UNPUBLISH:
		if (!d)
			return -ENXIO;
		mutex_lock(&lock);
		err = withdraw(d);
		mutex_unlock(&lock);
		return err;
	}
	return -ENOTTY;
}

/* ---- mmap: domains of ring 3 ------------------------------------------------------- */

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static void vm_flags_mod(struct vm_area_struct *vma, vm_flags_t set, vm_flags_t clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#endif

/*
 * By frame number, not by page: nobody is to look it up and touch it (a core dump, ptrace). A
 * child of fork() has no resume stub at work.
 */
static int map_gate(struct redoubt_domain *d, struct vm_area_struct *vma)
{
	if (vma->vm_end - vma->vm_start != PAGE_SIZE)
		return -EINVAL;
	if (vma->vm_flags & VM_WRITE)
		return -EACCES;
	vm_flags_mod(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY, VM_MAYWRITE);
	return remap_pfn_range(vma, vma->vm_start, page_to_pfn(d->gate), PAGE_SIZE, vma->vm_page_prot);
}

static int map_window(const struct rdt_pages *w, struct vm_area_struct *vma)
{
	unsigned long pages = vma_pages(vma);

	if (pages > w->nr)
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EACCES;
	vm_flags_mod(vma, VM_DONTEXPAND, VM_MAYEXEC);
	return vm_insert_pages(vma, vma->vm_start, w->page, &pages);
}

static int owner_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct owner *o = file->private_data;
	struct redoubt_domain *d = smp_load_acquire(&o->domain);
	u64 at = (u64)vma->vm_pgoff << PAGE_SHIFT;
	unsigned int i;

	if (!d)
		return -ENXIO;
	if (!(d->flags & RDT_DOM_USER))
		return -EOPNOTSUPP;
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (at == RDT_DOMAIN_MAP_GATE)
		return map_gate(d, vma);
	for (i = 0; i < d->windows; i++)
		if (at == RDT_DOMAIN_MAP_WINDOW(i))
			return map_window(&d->window[i], vma);
	return -EINVAL;
}

static const struct file_operations owner_fops = {
	.owner = THIS_MODULE,
	.open = owner_open,
	.release = owner_release,
	.unlocked_ioctl = owner_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = owner_mmap,
};

static struct miscdevice owner_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "redoubt-domain",
	.fops = &owner_fops,
	.mode = 0600,
};

int rdt_domain_dev_init(void)
{
	return rdt_domain_life_init() ?: rdt_domain_call_init() ?: misc_register(&owner_dev);
}
