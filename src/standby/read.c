// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of the VMM's memory, held one by one and read through the kernel's own mapping. What is there is found without a
 * lock and without a fault; what is not is faulted in with no lock of KVM's held, however long that takes, and can be told
 * to stop. A hole of a shared memory file stays one: a read fault would fill it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>
#include <linux/version.h>
#include <linux/xarray.h>

/*
 * How many frames from @addr on, at most @most, a mapped file of tmpfs (memfd, shared anonymous memory) does not have. Not
 * those that a userfaultfd is to bring: they are somewhere else. What is behind the file's end is no hole.
 */
static u32 holes(struct mm_struct *mm, unsigned long addr, u32 most)
{
	const struct vm_area_struct *vma = vma_lookup(mm, addr);
	unsigned long first, last, next, size;
	struct address_space *mapping;

	mmap_assert_locked(mm);
	if (!vma || !vma->vm_file || !(vma->vm_flags & VM_MAYSHARE) || !(vma->vm_flags & VM_READ) ||
	    userfaultfd_missing((struct vm_area_struct *)vma))
		return 0;
	mapping = vma->vm_file->f_mapping;
	if (mapping->host->i_sb->s_magic != TMPFS_MAGIC)
		return 0;
	first = vma->vm_pgoff + ((addr - vma->vm_start) >> PAGE_SHIFT);
	size = DIV_ROUND_UP(i_size_read(mapping->host), PAGE_SIZE);
	if (first >= size)
		return 0;
	last = first + min_t(unsigned long, most, (vma->vm_end - addr) >> PAGE_SHIFT) - 1;
	last = min(last, size - 1);
	next = first;
	/* What is swapped out has an entry, too. */
	if (!xa_find(&mapping->i_pages, &next, last, XA_PRESENT))
		return last - first + 1;
	return next > first ? next - first : 0;
}

/* As rdt_sb_read(), of an address where the first page is not to be had at once. */
static long fault_in(struct mm_struct *mm, unsigned long addr, const struct rdt_sb_most *most, struct page **pages,
		     u32 *zero)
{
	const struct vm_area_struct *vma;
	unsigned long nr = 1;
	int locked = 1;
	long got;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	*zero = holes(mm, addr, most->zero);
	if (*zero) {
		mmap_read_unlock(mm);
		return 0;
	}
	/* Of a file no more than the one: behind it may be a hole. */
	vma = vma_lookup(mm, addr);
	if (vma && vma_is_anonymous((struct vm_area_struct *)vma))
		nr = min_t(unsigned long, most->pages, (vma->vm_end - addr) >> PAGE_SHIFT);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
	got = get_user_pages_remote(mm, addr, nr, 0, pages, NULL, &locked);
#else
	got = get_user_pages_remote(mm, addr, nr, 0, pages, &locked);
#endif
	if (locked)
		mmap_read_unlock(mm);
	return got ?: -EFAULT;
}

/* Where KVM has this frame now, and how many are behind one another there; pages that are there, or -ENXIO: no slot. */
struct place {
	unsigned long addr;
	u64 generation;			/* of the slots */
	struct rdt_sb_most most;
};

/*
 * kvm->srcu is held until the pages are, so that what is held was the slot's: who takes a slot away waits for that, and
 * unmaps or maps something else there only then.
 */
static long hold_gfns(struct kvm *kvm, gfn_t gfn, const struct rdt_sb_most *most, struct page **pages, struct place *at)
{
	const struct kvm_memory_slot *slot;
	struct kvm_memslots *slots;
	long got = -ENXIO;
	int idx;

	idx = srcu_read_lock(&kvm->srcu);
	slots = kvm_memslots(kvm);
	slot = __gfn_to_memslot(slots, gfn);
	if (slot && slot->id < KVM_USER_MEM_SLOTS && !(slot->flags & KVM_MEMSLOT_INVALID)) {
		const u64 left = slot->base_gfn + slot->npages - gfn;

		at->addr = __gfn_to_hva_memslot(slot, gfn);
		at->generation = slots->generation;
		at->most.pages = min_t(u64, most->pages, left);
		at->most.zero = min_t(u64, most->zero, left);
		got = max(get_user_pages_fast_only(at->addr, at->most.pages, 0, pages), 0);
	}
	srcu_read_unlock(&kvm->srcu, idx);
	return got;
}

/* No slot has changed since: each change has a number of its own. */
static bool unmoved(struct kvm *kvm, u64 generation)
{
	const int idx = srcu_read_lock(&kvm->srcu);
	const bool same = kvm_memslots(kvm)->generation == generation;

	srcu_read_unlock(&kvm->srcu, idx);
	return same;
}

long rdt_sb_read(const struct rdt_sb_stream *s, u64 frame, const struct rdt_sb_most *most, struct page **pages, u32 *zero)
{
	struct place at = { .addr = frame << PAGE_SHIFT, .most = *most };
	long got, i;

	for (;;) {
		if (s->space == RDT_SB_SPACE_GFN)
			got = hold_gfns(s->kvm, frame, most, pages, &at);
		else
			got = max(get_user_pages_fast_only(at.addr, most->pages, 0, pages), 0);
		if (got)
			return got;
		got = fault_in(s->mm->mm, at.addr, &at.most, pages, zero);
		if (signal_pending(current)) {
			for (i = 0; i < got; i++)
				put_page(pages[i]);
			return -EINTR;
		}
		if (s->space != RDT_SB_SPACE_GFN || unmoved(s->kvm, at.generation))
			return got;
		/* It may have been another slot's, or nobody's, by then. */
		for (i = 0; i < got; i++)
			put_page(pages[i]);
		cond_resched();
	}
}
