// SPDX-License-Identifier: GPL-2.0
/*
 * Frames that a VM's vCPUs see in place of the VMM's, for another module's device: while it writes to the guest's
 * memory they have a copy. Of VMs that are not attached; those have views, and do not migrate.
 */
#include "redoubt.h"

#include <linux/hashtable.h>
#include <linux/jump_label.h>
#include <linux/xarray.h>

#define MAX_WAITING	4096	/* pages; no guest makes more of them wait */

/**
 * struct copies - of one VM.
 * @node: in @all.
 * @kvm: held by the users.
 * @users: how often it was asked for; under @all_lock.
 * @pages: by gfn. Changed by rdt_copy_show() and _hide(), and the nested page table after it: what is made there
 *	looks it up under kvm->mmu_lock, which the zap takes, so no entry of before it stays.
 * @lock: protects the next two; innermost.
 * @waiting: pages that KVM may yet mark as dirty, see rdt_port_page_free().
 * @nr_waiting: how many.
 * @reap: frees them.
 * @rcu: when it has gone from @all.
 */
struct copies {
	struct hlist_node node;
	struct kvm *kvm;
	u32 users;
	struct xarray pages;
	spinlock_t lock;
	struct list_head waiting;
	u32 nr_waiting;
	struct work_struct reap;
	struct rcu_head rcu;
};

/* Read in RCU. */
static DEFINE_HASHTABLE(all, 6);
/* Protects changes of @all and @users; innermost. */
static DEFINE_SPINLOCK(all_lock);
DEFINE_STATIC_KEY_FALSE(rdt_copies);

static struct copies *of(struct kvm *kvm)
{
	struct copies *c;

	hash_for_each_possible_rcu(all, c, node, (unsigned long)kvm, lockdep_is_held(&all_lock)) {
		if (c->kvm == kvm)
			return c;
	}
	return NULL;
}

static void reap(struct work_struct *work)
{
	struct copies *c = container_of(work, struct copies, reap);
	struct page *page, *next;
	LIST_HEAD(free);

	spin_lock(&c->lock);
	list_splice_init(&c->waiting, &free);
	c->nr_waiting = 0;
	spin_unlock(&c->lock);
	/* Nobody has it who had it when they were put on the list. */
	mutex_lock(&c->kvm->slots_lock);
	mutex_unlock(&c->kvm->slots_lock);
	list_for_each_entry_safe(page, next, &free, lru)
		__free_page(page);
}

static struct copies *make(struct kvm *kvm)
{
	struct copies *c = kzalloc(sizeof(*c), GFP_KERNEL_ACCOUNT);

	if (c) {
		c->kvm = kvm;
		xa_init(&c->pages);
		spin_lock_init(&c->lock);
		INIT_LIST_HEAD(&c->waiting);
		INIT_WORK(&c->reap, reap);
	}
	return c;
}

int rdt_copy_get(struct kvm *kvm)
{
	struct copies *made = make(kvm), *c;

	if (!made)
		return -ENOMEM;
	spin_lock(&all_lock);
	c = of(kvm);
	if (!c) {
		c = made;
		made = NULL;
		hash_add_rcu(all, &c->node, (unsigned long)kvm);
	}
	c->users++;
	spin_unlock(&all_lock);
	kfree(made);
	static_branch_inc(&rdt_copies);
	return 0;
}

static void drop(struct kvm *kvm)
{
	struct copies *c;
	bool last;

	spin_lock(&all_lock);
	c = of(kvm);
	last = !--c->users;
	if (last)
		hash_del_rcu(&c->node);
	spin_unlock(&all_lock);
	if (!last)
		return;
	flush_work(&c->reap);
	if (WARN_ON(!xa_empty(&c->pages)))
		xa_destroy(&c->pages);
	kfree_rcu(c, rcu);
}

void rdt_copy_put(struct kvm *kvm)
{
	drop(kvm);
	static_branch_dec(&rdt_copies);
}

struct page *rdt_copy_find(struct kvm *kvm, gfn_t gfn)
{
	struct page *page = NULL;
	struct copies *c;

	rcu_read_lock();
	c = of(kvm);
	if (c)
		page = xa_load(&c->pages, gfn);
	rcu_read_unlock();
	return page;
}

bool rdt_copy_within(struct kvm *kvm, gfn_t gfn, unsigned long count)
{
	unsigned long at = gfn;
	bool found = false;
	struct copies *c;

	rcu_read_lock();
	c = of(kvm);
	if (c)
		found = xa_find(&c->pages, &at, gfn + count - 1, XA_PRESENT);
	rcu_read_unlock();
	return found;
}

static void zap(struct kvm *kvm, gfn_t gfn)
{
	int idx = srcu_read_lock(&kvm->srcu);

	rdt_zap(kvm, gfn, 1);
	srcu_read_unlock(&kvm->srcu, idx);
}

/* The caller is one of the users: it does not go away. */
static struct copies *mine(struct kvm *kvm)
{
	struct copies *c;

	rcu_read_lock();
	c = of(kvm);
	rcu_read_unlock();
	return c;
}

/* Is that frame where the VMM has the guest's? Nothing else may be replaced. Its thread, or one that has its mm. */
static bool is_guests(struct kvm *kvm, gfn_t gfn, unsigned long pfn)
{
	int idx = srcu_read_lock(&kvm->srcu);
	unsigned long hva = gfn_to_hva(kvm, gfn);
	struct page *page;
	bool same = false;

	if (!kvm_is_error_hva(hva) && current->mm == kvm->mm && get_user_pages_fast_only(hva, 1, FOLL_WRITE, &page) == 1) {
		same = page_to_pfn(page) == pfn;
		put_page(page);
	}
	srcu_read_unlock(&kvm->srcu, idx);
	return same;
}

int rdt_copy_show(struct kvm *kvm, gfn_t gfn, unsigned long pfn, struct page *page)
{
	struct copies *c = mine(kvm);
	bool attached;
	int err;

	rcu_read_lock();
	attached = rdt_vm_find(kvm);
	rcu_read_unlock();
	if (attached || READ_ONCE(c->nr_waiting) >= MAX_WAITING)
		return -EBUSY;
	if (!is_guests(kvm, gfn, pfn))
		return -EINVAL;
	err = xa_insert(&c->pages, gfn, page, GFP_KERNEL_ACCOUNT);
	if (!err)
		zap(kvm, gfn);
	return err;
}

/* From now on rdt_vm_find() has it, so no entry with a copy is made any more; none of before may stay beside those without. */
void rdt_copy_attached(struct kvm *kvm)
{
	unsigned long gfn;
	struct copies *c;
	void *page;

	spin_lock(&all_lock);
	c = of(kvm);
	if (c)
		c->users++;
	spin_unlock(&all_lock);
	if (!c)
		return;
	xa_for_each(&c->pages, gfn, page)
		zap(kvm, gfn);
	drop(kvm);
}

void rdt_copy_hide(struct kvm *kvm, gfn_t gfn)
{
	struct copies *c = mine(kvm);
	struct page *page = xa_erase(&c->pages, gfn);

	if (WARN_ON(!page))
		return;
	zap(kvm, gfn);
	if (mutex_trylock(&kvm->slots_lock)) {
		mutex_unlock(&kvm->slots_lock);
		__free_page(page);
		return;
	}
	spin_lock(&c->lock);
	list_add(&page->lru, &c->waiting);
	c->nr_waiting++;
	spin_unlock(&c->lock);
	schedule_work(&c->reap);
}
