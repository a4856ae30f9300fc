// SPDX-License-Identifier: GPL-2.0
/*
 * Asking for protection. Sealed, each request goes through the inside, which
 * writes it down in its policy table; without integrity mode it goes to the host
 * directly and the table is a mere list.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/mutex.h>
#include "driver.h"

unsigned int rdt_node_pages;
static LIST_HEAD(rdt_nodes);	/* the pages themselves, for whoever debugs a dump */

/* Serializes users of the table outside integrity mode, and donations. */
static DEFINE_MUTEX(lock);

/*
 * Gives frames to the host to keep its tree in: the guest can read them from
 * now on and not write them. There is no taking back, so they are never freed.
 */
static int donate_locked(unsigned int pages)
{
	while (pages--) {
		struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);
		long ret;

		if (!page)
			return -ENOMEM;
		ret = rdt_hypercall(RDT_HC_NODE_ADD, page_to_phys(page), 0, 0);
		if (ret < 0) {
			__free_page(page);
			return ret;
		}
		list_add_tail(&page->lru, &rdt_nodes);
		rdt_node_pages = ret;
	}
	return 0;
}

int rdt_donate(unsigned int pages)
{
	int err;

	mutex_lock(&lock);
	err = donate_locked(pages);
	mutex_unlock(&lock);
	return err;
}

static struct rdt_policy *find(phys_addr_t gpa, unsigned long pages)
{
	struct rdt_inside *in = &rdt_inside_data;
	unsigned int i;

	for (i = 0; i < in->nr; i++) {
		struct rdt_policy *p = &in->policy[i];

		if (p->pages && gpa < p->gpa + p->pages * PAGE_SIZE &&
		    p->gpa < gpa + pages * PAGE_SIZE)
			return p;
	}
	return NULL;
}

/* The ordinary way: what op_protect() of inside.c does, without the inside's guarantee. */
static long protect_plain(phys_addr_t gpa, unsigned long pages, u64 attr, unsigned int flags)
{
	struct rdt_inside *in = &rdt_inside_data;
	struct rdt_policy *p;
	long ret;

	if (find(gpa, pages))
		return -EEXIST;
	if (in->nr == RDT_POLICY_MAX)
		return -ENOSPC;
	ret = rdt_hypercall(RDT_HC_PROTECT, gpa, pages, attr);
	if (ret)
		return ret;
	p = &in->policy[in->nr++];
	p->gpa = gpa;
	p->pages = pages;
	p->action = RDT_ATTR_ACTION(attr);
	p->cls = RDT_ATTR_CLASS(attr);
	p->flags = flags;
	return 0;
}

/**
 * redoubt_protect() - restrict writes to guest-physical frames.
 * @gpa: first frame, page aligned
 * @pages: number of frames, less than 2^32
 * @attr: RDT_ATTR(action, class)
 * @flags: RDT_F_REMOVABLE, or 0: for as long as the guest runs
 *
 * Tops up the node pages when the host has run out of tree nodes. May sleep.
 *
 * Return: 0; -EEXIST when a frame is protected by an earlier call; -ENOSPC when the policy
 * table is full; -ENOMEM when the host has no memory; the errors of RDT_HC_PROTECT.
 */
int redoubt_protect(phys_addr_t gpa, unsigned long pages, u64 attr, unsigned int flags)
{
	int tries = 0, err = 0;
	long ret;

	if (offset_in_page(gpa) || !pages || pages > U32_MAX || flags & ~RDT_F_REMOVABLE)
		return -EINVAL;
	mutex_lock(&lock);
	do {
		if (rdt_sealed)
			ret = redoubt_call_wait(RDT_OP_PROTECT, gpa, pages | (u64)flags << 32, attr);
		else
			ret = protect_plain(gpa, pages, attr, flags);
		/* One page holds the nodes of many ranges: if two do not help, it is the host. */
		if (ret == -ENOMEM && tries < 2)
			err = donate_locked(1);
	} while (ret == -ENOMEM && !err && tries++ < 2);
	mutex_unlock(&lock);
	return ret;
}
EXPORT_SYMBOL_GPL(redoubt_protect);

struct virt_args {
	u64 attr;
	unsigned int flags;
};

static int protect_run(phys_addr_t gpa, unsigned long pages, void *arg)
{
	struct virt_args *v = arg;

	return redoubt_protect(gpa, pages, v->attr, v->flags);
}

/**
 * redoubt_protect_virt() - restrict writes to the frames behind kernel addresses.
 * @start: first address: kernel image, direct map, vmalloc or module
 * @len: bytes; every page touched is protected whole
 * @attr: RDT_ATTR(action, class)
 * @flags: as for redoubt_protect()
 *
 * One request for each run of adjacent frames. After an error earlier runs stay
 * protected. The memory must never be freed while it is protected.
 */
int redoubt_protect_virt(const void *start, size_t len, u64 attr, unsigned int flags)
{
	struct virt_args v = { .attr = attr, .flags = flags };

	return rdt_for_each_run(start, len, protect_run, &v);
}
EXPORT_SYMBOL_GPL(redoubt_protect_virt);

/**
 * redoubt_unprotect() - lift a range that was declared removable.
 * @gpa: first frame, as given to redoubt_protect()
 * @pages: number of frames, as given to redoubt_protect()
 *
 * Only the inside may lift protection, so without integrity mode this is -EPERM.
 */
int redoubt_unprotect(phys_addr_t gpa, unsigned long pages)
{
	long ret;

	if (!rdt_sealed)
		return -EPERM;
	mutex_lock(&lock);
	ret = redoubt_call_wait(RDT_OP_UNPROTECT, gpa, pages, 0);
	mutex_unlock(&lock);
	return ret;
}
EXPORT_SYMBOL_GPL(redoubt_unprotect);
