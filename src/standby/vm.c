// SPDX-License-Identifier: GPL-2.0
/*
 * What a registration holds: KVM's file of the VM (and by it struct kvm), the files of its vCPUs, and a user reference to
 * the VMM's address space. With that a killed VMM's memory is not torn down, its page tables stay, KVM's mmu notifier is
 * not released, and a kernel thread in that address space is KVM's rightful caller.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/file.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/xarray.h>

/* Protects vms, last_id, and who is registered: a VM is in vms from its registration to its end. */
static DEFINE_MUTEX(vms_lock);
static DEFINE_XARRAY(vms);
static u32 last_id;

/* Protects mms and their refs: all address spaces that are held, once each. Innermost. */
static DEFINE_SPINLOCK(mms_lock);
static LIST_HEAD(mms);

static int refuse(int err, const char *why)
{
	pr_notice_ratelimited("%s[%d]: register: %s\n", current->comm, task_tgid_nr(current), why);
	return err;
}

/* -ESRCH: it is gone. KVM keeps the structure (mm_count); what is in it only we do. */
static struct rdt_sb_mm *hold_mm(struct mm_struct *mm)
{
	struct rdt_sb_mm *new = kzalloc(sizeof(*new), GFP_KERNEL), *m;

	if (!new)
		return ERR_PTR(-ENOMEM);
	spin_lock(&mms_lock);
	list_for_each_entry(m, &mms, entry) {
		if (m->mm == mm) {
			m->refs++;
			goto out;
		}
	}
	m = ERR_PTR(-ESRCH);
	if (mmget_not_zero(mm)) {
		m = new;
		m->mm = mm;
		m->refs = 1;
		list_add(&m->entry, &mms);
		new = NULL;
	}
out:
	spin_unlock(&mms_lock);
	kfree(new);
	return m;
}

void rdt_sb_mm_get(struct rdt_sb_mm *m)
{
	spin_lock(&mms_lock);
	m->refs++;
	spin_unlock(&mms_lock);
}

void rdt_sb_mm_put(struct rdt_sb_mm *m)
{
	bool last;

	spin_lock(&mms_lock);
	last = !--m->refs;
	if (last)
		list_del(&m->entry);
	spin_unlock(&mms_lock);
	if (!last)
		return;
	/* Tearing down a VM's memory takes its time; no caller of ours has to wait for it. */
	mmput_async(m->mm);
	kfree(m);
}

static bool private_memory(struct kvm *kvm)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	if (kvm_arch_has_private_mem(kvm))
		return true;
#endif
	return false;
}

/*
 * Is this KVM's file of a vCPU of @kvm? Its private_data is compared before it is followed; the statistics descriptor has
 * the same one, but takes no ioctls. Which vCPU: its index, or -1.
 */
static int vcpu_of(struct kvm *kvm, const struct file *file)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	if (!file->f_op->unlocked_ioctl || !file->f_op->mmap)
		return -1;
	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (vcpu == file->private_data)
			return i;
	}
	return -1;
}

static int hold_vcpus(struct rdt_sb_vm *vm, const s32 __user *fds, u32 nr)
{
	unsigned long *seen;
	int err = 0;
	u32 i;

	if (nr != atomic_read(&vm->kvm->online_vcpus))
		return refuse(-EINVAL, "the VM has another number of vCPUs");
	vm->vcpus = kvcalloc(nr, sizeof(*vm->vcpus), GFP_KERNEL);
	seen = bitmap_zalloc(nr, GFP_KERNEL);
	if (!vm->vcpus || !seen) {
		err = -ENOMEM;
		goto out;
	}
	for (i = 0; i < nr && !err; i++) {
		struct file *file;
		int index;
		s32 fd;

		if (get_user(fd, fds + i)) {
			err = -EFAULT;
			break;
		}
		file = fget(fd);
		index = file ? vcpu_of(vm->kvm, file) : -1;
		if (!file) {
			err = refuse(-EBADF, "a vCPU's descriptor is not open");
		} else if (index < 0 || index >= nr) {
			fput(file);
			err = refuse(-EBADF, "a descriptor is not of a vCPU of this VM");
		} else {
			vm->vcpus[vm->nr_vcpus++] = file;
			if (__test_and_set_bit(index, seen))
				err = refuse(-EINVAL, "a vCPU is there twice");
			else if (((struct kvm_vcpu *)file->private_data)->arch.guest_state_protected)
				err = refuse(-EOPNOTSUPP, "the vCPUs' state is encrypted");
		}
	}
out:
	bitmap_free(seen);
	return err;
}

/* Not in the VMM's address space: then the last put would take KVM's own slots off it. */
static void let_go(struct rdt_sb_vm *vm)
{
	u32 i;

	rdt_sb_crash_remove(vm);
	for (i = 0; i < vm->nr_vcpus; i++)
		fput(vm->vcpus[i]);
	kvfree(vm->vcpus);
	vm->vcpus = NULL;
	vm->nr_vcpus = 0;
	if (vm->file)
		fput(vm->file);
	vm->file = NULL;
	vm->kvm = NULL;
	if (vm->mm)
		rdt_sb_mm_put(vm->mm);
	vm->mm = NULL;
}

static void free_vm(struct kref *kref)
{
	struct rdt_sb_vm *vm = container_of(kref, struct rdt_sb_vm, kref);

	mutex_destroy(&vm->lock);
	kfree(vm);
}

/* The VM is in the list, with a number of its own, or was there before. */
static int enlist(struct rdt_sb_vm *vm)
{
	struct rdt_sb_vm *other;
	unsigned long i;
	int err = 0;

	mutex_lock(&vms_lock);
	xa_for_each(&vms, i, other) {
		if (other->kvm == vm->kvm)
			err = refuse(-EBUSY, "the VM is registered");
	}
	if (!err && last_id == U32_MAX)
		err = refuse(-ENOSPC, "no numbers are left");
	if (!err) {
		vm->id = last_id + 1;
		err = xa_err(xa_store(&vms, vm->id, vm, GFP_KERNEL));
	}
	if (!err)
		last_id = vm->id;
	mutex_unlock(&vms_lock);
	return err;
}

/* Requests that are under way end first; those that wait for vm->lock find it ended. */
static void retire(struct rdt_sb_vm *vm)
{
	mutex_lock(&vms_lock);
	xa_erase(&vms, vm->id);
	mutex_unlock(&vms_lock);

	mutex_lock(&vm->lock);
	vm->ended = true;
	rdt_sb_stream_close_all(vm);
	rdt_sb_limit_end(vm);
	rdt_sb_scan_late_end(vm);
	let_go(vm);
	mutex_unlock(&vm->lock);
}

int rdt_sb_vm_register(struct rdt_sb_register *reg, struct rdt_sb_vm **out)
{
	struct rdt_sb_vm *vm;
	u64 frames;
	int err;

	if (reg->flags || reg->reserved)
		return refuse(-EINVAL, "flags or reserved are not 0");
	if (!reg->nr_vcpus || reg->nr_vcpus > RDT_SB_MAX_VCPUS)
		return refuse(-EINVAL, "nr_vcpus");
	if (!memchr_inv(reg->uuid, 0, sizeof(reg->uuid)))
		return refuse(-EINVAL, "no UUID");
	vm = kzalloc(sizeof(*vm), GFP_KERNEL);
	if (!vm)
		return -ENOMEM;
	kref_init(&vm->kref);
	mutex_init(&vm->lock);
	INIT_LIST_HEAD(&vm->streams);
	vm->crash.slot = -1;
	memcpy(vm->uuid, reg->uuid, sizeof(vm->uuid));

	vm->file = fget(reg->vm_fd);
	if (!vm->file || !file_is_kvm(vm->file)) {
		err = refuse(-EBADF, "vm_fd is not a VM");
		goto fail;
	}
	vm->kvm = vm->file->private_data;
	if (private_memory(vm->kvm)) {
		err = refuse(-EOPNOTSUPP, "the VM's memory is encrypted");
		goto fail;
	}
	vm->mm = hold_mm(vm->kvm->mm);
	if (IS_ERR(vm->mm)) {
		err = PTR_ERR(vm->mm);
		vm->mm = NULL;
		if (err == -ESRCH)
			refuse(err, "the VMM's memory is gone");
		goto fail;
	}
	err = hold_vcpus(vm, u64_to_user_ptr(reg->vcpu_fds), reg->nr_vcpus);
	if (err)
		goto fail;
	err = rdt_sb_encrypted(vm);
	if (err) {
		refuse(err, err == -EOPNOTSUPP ? "the VM is encrypted" : "KVM does not say whether the VM is encrypted");
		goto fail;
	}
	reg->slots = rdt_sb_vm_slots(vm, NULL, 0, &frames);
	err = enlist(vm);
	if (err)
		goto fail;
	mutex_lock(&vm->lock);
	err = rdt_sb_crash_add(vm);
	mutex_unlock(&vm->lock);
	if (err) {
		retire(vm);
		kref_put(&vm->kref, free_vm);
		return err;
	}
	reg->id = vm->id;
	*out = vm;
	return 0;
fail:
	let_go(vm);
	kref_put(&vm->kref, free_vm);
	return err;
}

void rdt_sb_vm_end(struct rdt_sb_vm *vm)
{
	retire(vm);
	rdt_sb_event(&(struct rdt_sb_event){ .event = RDT_SB_EVENT_RELEASED, .vm = vm->id });
	kref_put(&vm->kref, free_vm);
}

static struct rdt_sb_vm *lock_vm(struct rdt_sb_vm *vm)
{
	if (!vm)
		return NULL;
	mutex_lock(&vm->lock);
	if (!vm->ended)
		return vm;
	rdt_sb_vm_put(vm);
	return NULL;
}

struct rdt_sb_vm *rdt_sb_vm_get(u32 id)
{
	struct rdt_sb_vm *vm;

	mutex_lock(&vms_lock);
	vm = xa_load(&vms, id);
	if (vm)
		kref_get(&vm->kref);
	mutex_unlock(&vms_lock);
	return lock_vm(vm);
}

struct rdt_sb_vm *rdt_sb_vm_next(u32 id)
{
	unsigned long index = id;
	struct rdt_sb_vm *vm, *locked;

	do {
		mutex_lock(&vms_lock);
		vm = xa_find(&vms, &index, U32_MAX, XA_PRESENT);
		if (vm)
			kref_get(&vm->kref);
		mutex_unlock(&vms_lock);
		locked = lock_vm(vm);
	} while (vm && !locked);
	return locked;
}

void rdt_sb_vm_put(struct rdt_sb_vm *vm)
{
	mutex_unlock(&vm->lock);
	kref_put(&vm->kref, free_vm);
}

/* Whoever looks at the memory through /proc has a reference too, for a moment. */
bool rdt_sb_vm_orphan(const struct rdt_sb_vm *vm)
{
	return atomic_read(&vm->mm->mm->mm_users) == 1;
}

bool rdt_sb_vm_has_grown(const struct rdt_sb_vm *vm)
{
	return atomic_read(&vm->kvm->online_vcpus) != vm->nr_vcpus;
}

u32 rdt_sb_vm_slots(const struct rdt_sb_vm *vm, struct rdt_sb_slot *out, u32 max, u64 *frames)
{
	struct kvm_memslots *slots;
	struct rb_node *node;
	u32 nr = 0;
	int idx;

	*frames = 0;
	idx = srcu_read_lock(&vm->kvm->srcu);
	slots = kvm_memslots(vm->kvm);
	for (node = rb_first(&slots->gfn_tree); node; node = rb_next(node)) {
		const struct kvm_memory_slot *slot =
			container_of(node, struct kvm_memory_slot, gfn_node[slots->node_idx]);

		if (slot->id >= KVM_USER_MEM_SLOTS)
			continue;	/* KVM's own */
		if (nr < max)
			out[nr] = (struct rdt_sb_slot) {
				.gfn = slot->base_gfn,
				.frames = slot->npages,
				.hva = slot->userspace_addr,
				.id = slot->id,
				.flags = slot->flags & ~(u32)KVM_MEMSLOT_INVALID,
			};
		*frames += slot->npages;
		nr++;
	}
	srcu_read_unlock(&vm->kvm->srcu, idx);
	return nr;
}
