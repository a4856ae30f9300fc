// SPDX-License-Identifier: GPL-2.0
/*
 * A domain's end, and what the driver offers to other modules.
 *
 * Three things end apart from each other. The host's domain: by destroy(), or by the operator.
 * The frames: when the host has said that they are the guest's again. The object, and
 * the windows with it: with the last reference, of which destroy() takes one away.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/module.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "domain.h"

unsigned int rdt_domain_pages = 4096;
module_param_named(domain_pages, rdt_domain_pages, uint, 0644);
MODULE_PARM_DESC(domain_pages, "pages that one protection domain may have, windows included (default 4096)");

unsigned int rdt_domain_pages_total = 16384;
module_param_named(domain_pages_total, rdt_domain_pages_total, uint, 0644);
MODULE_PARM_DESC(domain_pages_total, "pages that all protection domains may have (default 16384)");

/* Threads are brought out by the host in no time; a vCPU that does not run takes until it does. */
#define RETRY		(HZ / 100 + 1)
#define RETRY_SLOWLY	HZ
#define TRIES_QUICK	100

static atomic_long_t reserved;

/* All that there are, also those that are waiting for their end. */
static DEFINE_MUTEX(all_lock);
static LIST_HEAD(all);

int rdt_domain_reserve(unsigned long pages)
{
	if (atomic_long_add_return(pages, &reserved) <= READ_ONCE(rdt_domain_pages_total))
		return 0;
	atomic_long_sub(pages, &reserved);
	return -ENOSPC;
}

void rdt_domain_unreserve(unsigned long pages)
{
	atomic_long_sub(pages, &reserved);
}

static void end_work(struct work_struct *work);

/* A host without Redoubt answers -KVM_ENOSYS; one that has forgotten the domain, -ENOENT. */
static bool is_gone(long host)
{
	return host == -ENOENT || host == -ENODEV || host == -1000;
}

/* What the host answered to a call that is not a thread's way in. */
int rdt_domain_errno(long host)
{
	if (is_gone(host))
		return -ENODEV;
	return host < -MAX_ERRNO ? -EIO : host;
}

static void release(struct kref *ref)
{
	struct redoubt_domain *d = container_of(ref, struct redoubt_domain, ref);
	unsigned int i;

	mutex_lock(&all_lock);
	list_del(&d->all);
	mutex_unlock(&all_lock);
	vunmap(d->parts);
	for (i = 0; i < RDT_DOM_MAX_WINDOWS; i++)
		rdt_pages_free(&d->window[i]);
	rdt_domain_unreserve(d->reserved);
	kfree(d);
}

void rdt_domain_put(struct redoubt_domain *d)
{
	kref_put(&d->ref, release);
}

/* A domain to be; has one reference. NULL: no memory. */
struct redoubt_domain *rdt_domain_new(void)
{
	struct redoubt_domain *d = kzalloc(sizeof(*d), GFP_KERNEL_ACCOUNT);

	if (!d)
		return NULL;
	kref_init(&d->ref);
	INIT_LIST_HEAD(&d->list);
	INIT_DELAYED_WORK(&d->end, end_work);
	mutex_lock(&all_lock);
	list_add(&d->all, &all);
	mutex_unlock(&all_lock);
	return d;
}

/**
 * rdt_domain_end() - take the frames back.
 * @d: nobody else ends it
 *
 * Return: false: a thread is inside, the work is queued to try again.
 */
bool rdt_domain_end(struct redoubt_domain *d)
{
	long ret = d->id ? rdt_hypercall(RDT_HC_DOM_DESTROY, d->id, 0, 0) : 0;

	if (ret == -EAGAIN) {
		if (d->tries++ == TRIES_QUICK)
			pr_warn("domain %#llx: a thread is inside that does not come out; %lu frames wait for it\n",
				d->id, d->frames.nr);
		queue_delayed_work(system_unbound_wq, &d->end,
				   d->tries < TRIES_QUICK ? RETRY : RETRY_SLOWLY);
		return false;
	}
	if (ret && !is_gone(ret)) {
		/* They are absent for all we know: whoever got one of them would meet #GP. */
		pr_err("domain %#llx cannot be destroyed: %ld; its %lu frames are LOST to this guest\n",
		       d->id, ret, d->frames.nr);
		d->reserved -= d->frames.nr;
		kvfree(d->frames.page);
		d->frames = (struct rdt_pages){};
		return true;
	}
	rdt_pages_free(&d->frames);
	return true;
}

static void end_work(struct work_struct *work)
{
	struct redoubt_domain *d = container_of(to_delayed_work(work), struct redoubt_domain, end);

	if (rdt_domain_end(d))
		rdt_domain_put(d);
}

/*
 * The next kernel would run into absent frames: the host does not see a reboot. Who has a domain
 * still finds it dead.
 */
static int reboot(struct notifier_block *nb, unsigned long event, void *data)
{
	struct redoubt_domain *d;
	int tries;

	mutex_lock(&all_lock);
	list_for_each_entry(d, &all, all)
		for (tries = 0; d->id && tries < TRIES_QUICK; tries++) {
			if (rdt_hypercall(RDT_HC_DOM_DESTROY, d->id, 0, 0) != -EAGAIN)
				break;
			usleep_range(1000, 2000);
		}
	mutex_unlock(&all_lock);
	return NOTIFY_DONE;
}
static struct notifier_block reboot_nb = { .notifier_call = reboot };

int rdt_domain_life_init(void)
{
	return register_reboot_notifier(&reboot_nb);
}

/**
 * redoubt_domain_create() - make a protection domain of ring 0 and seal it.
 * @image: see struct rdt_image; its pointers are the kernel's. Gets id and measurement.
 *
 * May sleep. What runs in a domain of ring 0 is trusted by this kernel like a module.
 *
 * Return: the domain, or the errors of RDT_DOMAIN_CREATE.
 */
struct redoubt_domain *redoubt_domain_create(struct rdt_image *image)
{
	if (image->flags & RDT_DOM_USER)
		return ERR_PTR(-EOPNOTSUPP);
	return rdt_domain_build(image, false);
}
EXPORT_SYMBOL_GPL(redoubt_domain_create);

/**
 * redoubt_domain_destroy() - end a domain.
 * @d: from redoubt_domain_create(); not to be used again
 *
 * May sleep. Threads inside are brought out: their calls end with -ENODEV. Does not wait for them:
 * the memory comes back later then.
 */
void redoubt_domain_destroy(struct redoubt_domain *d)
{
	if (!test_and_set_bit(0, &d->dying)) {
		kref_get(&d->ref);
		if (rdt_domain_end(d))
			rdt_domain_put(d);
	}
	rdt_domain_put(d);
}
EXPORT_SYMBOL_GPL(redoubt_domain_destroy);

/**
 * redoubt_domain_measure() - what the host measured when the domain was sealed.
 * @d: a domain
 * @out: SHA-256
 *
 * Return: 0; -ENODEV the domain is gone.
 */
int redoubt_domain_measure(struct redoubt_domain *d, u8 out[32])
{
	u64 w[4];
	long ret;

	asm volatile(ALTERNATIVE("vmcall", "vmmcall", X86_FEATURE_VMMCALL)
		     : "=a" (ret), "=b" (w[0]), "=c" (w[1]), "=d" (w[2]), "=S" (w[3])
		     : "a" (RDT_HC_DOM_MEASURE), "b" (d->id), "c" (0ul), "d" (0ul), "S" (0ul)
		     : "memory");
	if (ret)
		return rdt_domain_errno(ret);
	memcpy(out, w, sizeof(w));
	return 0;
}
EXPORT_SYMBOL_GPL(redoubt_domain_measure);
