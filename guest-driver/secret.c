// SPDX-License-Identifier: GPL-2.0
/*
 * Secrets in code: giving a module's pages to the host, and taking them back.
 *
 * From then on they are the host's. Nothing in this kernel can read or write them, the kernel
 * itself included; a jump to the gate is all that is left.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/module.h>
#include "driver.h"

static_assert(sizeof(struct redoubt_secret) == 128);	/* scripts/secret-manifest counts on it */
static_assert(sizeof(struct rdt_domain_desc) <= PAGE_SIZE);

static long hypercall4(unsigned long nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	long ret;

	asm volatile(ALTERNATIVE("vmcall", "vmmcall", X86_FEATURE_VMMCALL)
		     : "=a" (ret) : "a" (nr), "b" (a), "c" (b), "d" (c), "S" (d) : "memory");
	return ret;
}

static long create(struct redoubt_secret *s)
{
	struct rdt_domain_desc *d = (void *)get_zeroed_page(GFP_KERNEL);
	long id;

	if (!d)
		return -ENOMEM;
	d->size = sizeof(*d);
	d->flags = s->flags | RDT_DOM_SECRET;
	d->gate_gva = (unsigned long)s->gate;
	d->exit_gva = (unsigned long)s->exit;
	/* Who is made to begin again stands at the gate. */
	d->resume_gva = s->flags & RDT_DOM_REWIND ? 0 : (unsigned long)rdt_resume;
	d->slots = s->slots;
	d->results = s->results;
	d->erased = s->erased;
	d->erasure = s->erasure;
	id = rdt_hypercall(RDT_HC_DOM_CREATE, virt_to_phys(d), 0, 0);
	free_page((unsigned long)d);
	if (id <= 0)
		return id ?: -EIO;
	s->id = id;
	return 0;
}

static long add(struct redoubt_secret *s, char *page)
{
	u32 kind = page == s->gate ? RDT_DOM_GATE : page == s->exit ? RDT_DOM_EXIT : RDT_DOM_TEXT;

	return hypercall4(RDT_HC_DOM_ADD, s->id, rdt_phys(page), (unsigned long)page,
			  RDT_DOM_PAGES(1, kind));
}

/* A host without Redoubt says -KVM_ENOSYS. */
static int to_errno(long host)
{
	return host == -1000 ? -ENODEV : host < -MAX_ERRNO ? -EIO : host;
}

/**
 * redoubt_secret_register() - give a secret to the host, which measures it and opens its gate.
 * @s: of a module that is loaded; not to be changed as long as it is registered
 *
 * May sleep. Then the host's operator puts the values in (redoubtctl secret install); until then the
 * gate answers -ENOKEY. After an error that is not -EINVAL the secret's code may be gone: the
 * module cannot do without, nor try again.
 *
 * Return: 0; -EINVAL it is not whole pages; what RDT_HC_DOM_CREATE, ADD and SEAL say.
 */
int redoubt_secret_register(struct redoubt_secret *s)
{
	char *page;
	long ret;

	if (s->id || offset_in_page(s->gate) || offset_in_page(s->end) || s->exit <= s->gate ||
	    s->exit + PAGE_SIZE != s->end)
		return -EINVAL;
	ret = create(s);
	if (ret) {
		pr_err("secret %s: the host does not take it: %ld\n", s->name, ret);
		return to_errno(ret);
	}
	for (page = s->gate; !ret && page < s->end; page += PAGE_SIZE)
		ret = add(s, page);
	ret = ret ?: rdt_hypercall(RDT_HC_DOM_SEAL, s->id, 0, 0);
	if (ret) {
		pr_err("secret %s: the host refuses it: %ld (its log says why)\n", s->name, ret);
		redoubt_secret_unregister(s);
		return to_errno(ret);
	}
	pr_info("secret %s: sealed, domain %#llx\n", s->name, s->id);
	return 0;
}
EXPORT_SYMBOL_GPL(redoubt_secret_register);

/**
 * redoubt_secret_unregister() - end a secret: its pages are the guest's again, all zero.
 * @s: nobody calls it any more
 *
 * May sleep. Returns when the pages can be freed, and not before: whoever got a page
 * that the host still has would die of it.
 */
void redoubt_secret_unregister(struct redoubt_secret *s)
{
	long ret;

	while (s->id) {
		ret = rdt_hypercall(RDT_HC_DOM_DESTROY, s->id, 0, 0);
		if (!ret || ret == -ENOENT || ret == -ENODEV || ret == -1000) {
			s->id = 0;
			break;
		}
		if (ret != -EAGAIN)
			pr_err_ratelimited("secret %s cannot be destroyed: %ld\n", s->name, ret);
		msleep(10);
	}
}
EXPORT_SYMBOL_GPL(redoubt_secret_unregister);
