// SPDX-License-Identifier: GPL-2.0
/*
 * For `make bench` only: have KVM's own page tracking watch one frame of a VM, which
 * is what a user without Redoubt has (KVMGT uses it). The write is emulated by
 * KVM and the notifier told of it.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include <asm/kvm_page_track.h>

static struct kvm *kvm;
static struct file *vm_file;
static struct kvm_page_track_notifier_node node;
static unsigned long writes;
static u64 frame;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
static void track_write(gpa_t gpa, const u8 *new, int bytes,
			struct kvm_page_track_notifier_node *n)
{
	writes++;
}

static int track(bool on)
{
	return on ? kvm_write_track_add_gfn(kvm, frame) : kvm_write_track_remove_gfn(kvm, frame);
}
#else
static void track_write(struct kvm_vcpu *vcpu, gpa_t gpa, const u8 *new, int bytes,
			struct kvm_page_track_notifier_node *n)
{
	writes++;
}

static int track(bool on)
{
	struct kvm_memory_slot *slot;
	int idx = srcu_read_lock(&kvm->srcu);

	slot = gfn_to_memslot(kvm, frame);
	if (slot) {
		write_lock(&kvm->mmu_lock);
		if (on)
			kvm_slot_page_track_add_page(kvm, slot, frame, KVM_PAGE_TRACK_WRITE);
		else
			kvm_slot_page_track_remove_page(kvm, slot, frame, KVM_PAGE_TRACK_WRITE);
		write_unlock(&kvm->mmu_lock);
	}
	srcu_read_unlock(&kvm->srcu, idx);
	return slot ? 0 : -EFAULT;
}
#endif

static void stop(void)
{
	if (!kvm)
		return;
	track(false);
	kvm_page_track_unregister_notifier(kvm, &node);
	fput(vm_file);
	kvm = NULL;
}

/* Write { s32 vm_fd; u32 0; u64 gfn } to start; read the number of writes seen. */
static ssize_t dev_write(struct file *f, const char __user *buf, size_t len, loff_t *pos)
{
	struct {
		s32 fd;
		u32 zero;
		u64 gfn;
	} arg;
	int r;

	if (len != sizeof(arg) || copy_from_user(&arg, buf, len))
		return -EINVAL;
	if (kvm)
		return -EBUSY;
	vm_file = fget(arg.fd);
	if (!vm_file)
		return -EBADF;
	if (!file_is_kvm(vm_file)) {
		fput(vm_file);
		return -EBADF;
	}
	kvm = vm_file->private_data;
	frame = arg.gfn;
	writes = 0;
	memset(&node, 0, sizeof(node));
	node.track_write = track_write;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	r = kvm_page_track_register_notifier(kvm, &node);
#else
	kvm_page_track_register_notifier(kvm, &node);
	r = 0;
#endif
	if (!r)
		r = track(true);
	if (r) {
		fput(vm_file);
		kvm = NULL;
	}
	return r ? r : len;
}

static ssize_t dev_read(struct file *f, char __user *buf, size_t len, loff_t *pos)
{
	if (len != sizeof(writes))
		return -EINVAL;
	return copy_to_user(buf, &writes, sizeof(writes)) ? -EFAULT : len;
}

static int dev_release(struct inode *inode, struct file *f)
{
	stop();
	return 0;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.write = dev_write,
	.read = dev_read,
	.release = dev_release,
};

static struct miscdevice dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "rdt_bench_track",
	.fops = &fops,
	.mode = 0600,
};
module_misc_device(dev);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KVM's page tracking on one frame, for comparison");
