// SPDX-License-Identifier: GPL-2.0
#include <linux/file.h>
#include <linux/kvm_host.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include <redoubt/kvm.h>

#include "copier.h"

/* @lock protects all of it. */
struct copier {
	struct mutex lock;
	const struct rdt_kvm_services *ops;
	struct kvm *kvm;
	struct xarray shown;
};

static int copier_open(struct inode *inode, struct file *file)
{
	struct copier *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return -ENOMEM;
	mutex_init(&c->lock);
	xa_init(&c->shown);
	file->private_data = c;
	return 0;
}

static int take(struct copier *c, int fd)
{
	struct file *vm = fget(fd);
	int err = -EINVAL;

	if (!vm)
		return -EBADF;
	c->ops = symbol_get(rdt_kvm_services);
	if (!c->ops) {
		err = -ENODEV;
		goto out;
	}
	if (!file_is_kvm(vm) || !c->ops->get(vm->private_data))
		goto put_symbol;
	c->kvm = vm->private_data;
	err = c->ops->copy_get(c->kvm);
	if (!err)
		goto out;
	c->ops->put(c->kvm);
	c->kvm = NULL;
put_symbol:
	symbol_put(rdt_kvm_services);
out:
	fput(vm);
	return err;
}

static int show(struct copier *c, const void __user *arg)
{
	struct copier_show s;
	struct page *page, *guests;
	int err = -EFAULT;

	if (copy_from_user(&s, arg, sizeof(s)))
		return -EFAULT;
	page = alloc_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	if (!copy_from_user(page_address(page), u64_to_user_ptr(s.page), PAGE_SIZE) &&
	    get_user_pages_fast(s.page, 1, FOLL_WRITE, &guests) == 1) {
		err = c->ops->show(c->kvm, s.gfn, page_to_pfn(guests), page);
		put_page(guests);
	}
	if (err)
		__free_page(page);
	else
		xa_store(&c->shown, s.gfn, xa_mk_value(1), GFP_KERNEL | __GFP_NOFAIL);
	return err;
}

static int hide(struct copier *c, unsigned long gfn)
{
	if (!xa_erase(&c->shown, gfn))
		return -ENOENT;
	c->ops->hide(c->kvm, gfn);
	return 0;
}

static long copier_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct copier *c = file->private_data;
	long ret = -EINVAL;

	mutex_lock(&c->lock);
	if (cmd == COPIER_VM)
		ret = c->kvm ? -EBUSY : take(c, arg);
	else if (c->kvm && cmd == COPIER_SHOW)
		ret = show(c, (void __user *)arg);
	else if (c->kvm && cmd == COPIER_HIDE)
		ret = hide(c, arg);
	mutex_unlock(&c->lock);
	return ret;
}

static int copier_release(struct inode *inode, struct file *file)
{
	struct copier *c = file->private_data;
	unsigned long gfn;
	void *entry;

	xa_for_each(&c->shown, gfn, entry)
		hide(c, gfn);
	if (c->kvm) {
		c->ops->copy_put(c->kvm);
		c->ops->put(c->kvm);
		symbol_put(rdt_kvm_services);
	}
	xa_destroy(&c->shown);
	mutex_destroy(&c->lock);
	kfree(c);
	return 0;
}

static const struct file_operations fops = {
	.owner		= THIS_MODULE,
	.open		= copier_open,
	.unlocked_ioctl	= copier_ioctl,
	.release	= copier_release,
};

static struct miscdevice device = { .minor = MISC_DYNAMIC_MINOR, .name = "redoubt-copier", .fops = &fops, .mode = 0600 };
module_misc_device(device);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Redoubt: shows vCPUs copies of pages, for tests");
