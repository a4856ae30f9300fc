// SPDX-License-Identifier: GPL-2.0
/*
 * From an image to a sealed domain.
 *
 * A frame is the guest's no more from the moment the host was given it: any touch is #GP, by
 * whatever mapping. So nothing that was given is freed before the host has said that
 * it is the guest's again (rdt_domain_end()).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/processor-flags.h>
#include <asm/special_insns.h>
#include "domain.h"

static_assert(sizeof(struct rdt_domain_desc) <= PAGE_SIZE);

/* Not at the price of a process that the OOM killer would choose. */
#define GFP_DOMAIN	(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN | __GFP_RETRY_MAYFAIL)
#define MAX_ORDER_USED	9	/* RDT_DOM_ADD_MAX pages */

/* The image's pointers are a process's, or this kernel's. */
static int copy_in(void *to, u64 from, size_t n, bool user)
{
	if (user)
		return copy_from_user(to, u64_to_user_ptr(from), n) ? -EFAULT : 0;
	memcpy(to, (const void *)(uintptr_t)from, n);
	return 0;
}

struct build {
	struct rdt_image *image;
	struct rdt_image_segment *seg;
	unsigned long tables;
	unsigned long pages;	/* frames, tables included, and windows */
	bool user;
};

void rdt_pages_free(struct rdt_pages *p)
{
	while (p->nr)
		__free_page(p->page[--p->nr]);
	kvfree(p->page);
	p->page = NULL;
}

/* In pieces as large as memory yields: the host takes neighbours at once. */
static int pages_alloc(struct rdt_pages *p, unsigned long nr)
{
	unsigned int order = MAX_ORDER_USED, i;

	p->page = kvmalloc_array(nr, sizeof(*p->page), GFP_KERNEL_ACCOUNT);
	if (!p->page)
		return -ENOMEM;
	while (nr) {
		struct page *page;

		if (fatal_signal_pending(current))
			return -EINTR;
		while (order && 1ul << order > nr)
			order--;
		page = alloc_pages(order ? GFP_DOMAIN | __GFP_NORETRY : GFP_DOMAIN, order);
		if (!page) {
			if (!order--)
				return -ENOMEM;
			continue;
		}
		split_page(page, order);
		for (i = 0; i < 1u << order; i++)
			p->page[p->nr++] = page + i;
		nr -= 1ul << order;
		cond_resched();
	}
	return 0;
}

/* How many pages from @at on are neighbours in memory, at most @max. */
static unsigned long run(const struct rdt_pages *p, unsigned long at, unsigned long max)
{
	unsigned long n = 1;

	while (n < max && page_to_pfn(p->page[at + n]) == page_to_pfn(p->page[at]) + n)
		n++;
	return n;
}

/* ---- what the image says -------------------------------------------------- */

static int bad(const char *what)
{
	pr_info_ratelimited("a domain's image is refused: %s\n", what);
	return -EINVAL;
}

static bool fits(u64 gva, u64 pages)
{
	return PAGE_ALIGNED(gva) && pages && pages <= RDT_IMAGE_MAX_PAGES &&
	       gva <= ~0ull - (pages << PAGE_SHIFT);
}

/*
 * What keeps this kernel's numbers right; the host checks the rest, and everything again. Counts the
 * pages of a domain as they come.
 */
static int check(struct build *b)
{
	const struct rdt_image *im = b->image;
	u64 end = 0;
	u32 i;

	for (i = 0; i < im->segments; i++) {
		const struct rdt_image_segment *s = &b->seg[i];

		if (!fits(s->gva, s->pages) || s->gva < end)
			return bad("a segment's address or size, or their order");
		if (s->kind < RDT_DOM_TEXT || s->kind > RDT_DOM_EXIT)
			return bad("a segment's kind");
		if (s->len > (u64)s->pages << PAGE_SHIFT)
			return bad("more data than a segment has room");
		end = s->gva + ((u64)s->pages << PAGE_SHIFT);
		b->pages += s->pages;
	}
	for (i = 0, end = 0; i < RDT_DOM_MAX_WINDOWS; i++) {
		const struct rdt_domain_window *w = &im->window[i];

		if (i >= im->windows ? w->gva || w->pages : !fits(w->gva, w->pages) || w->gva < end)
			return bad("a window");
		end = w->gva + (w->pages << PAGE_SHIFT);
		b->pages += w->pages;
	}
	if (im->windows && !(im->flags & RDT_DOM_USER) && im->window[0].pages < im->slots)
		return bad("window 0 has less than a page for each slot");
	return b->pages > rdt_domain_pages ? -E2BIG : 0;
}

/*
 * Page tables of one level that the domain needs: how many different addresses >> @shift there
 * are. Segments and windows ascend, each for itself.
 */
static unsigned long tables_of(const struct build *b, unsigned int shift)
{
	unsigned long n = 0;
	u32 i = 0, w = 0;
	u64 last = 0;

	while (i < b->image->segments || w < b->image->windows) {
		const struct rdt_domain_window *win = &b->image->window[w];
		const struct rdt_image_segment *seg = &b->seg[i];
		u64 gva, pages, first;

		if (w == b->image->windows || (i < b->image->segments && seg->gva < win->gva)) {
			gva = seg->gva;
			pages = seg->pages;
			i++;
		} else {
			gva = win->gva;
			pages = win->pages;
			w++;
		}
		first = gva >> shift;
		n -= n && first <= last;
		last = (gva + (pages << PAGE_SHIFT) - 1) >> shift;
		n += last - first + 1;
	}
	return n;
}

static void count_tables(struct build *b)
{
	unsigned int level, levels = native_read_cr4() & X86_CR4_LA57 ? 5 : 4;

	b->tables = 1;
	for (level = 1; level < levels; level++)
		b->tables += tables_of(b, PAGE_SHIFT + 9 * level);
	b->pages += b->tables;
}

/* ---- memory ---------------------------------------------------------------- */

static int fill(const struct build *b, struct redoubt_domain *d)
{
	unsigned long at = 0;
	u32 i;

	for (i = 0; i < b->image->segments; i++) {
		const struct rdt_image_segment *s = &b->seg[i];
		u64 done;

		for (done = 0; done < s->len; done += PAGE_SIZE) {
			void *to = page_address(d->frames.page[at + (done >> PAGE_SHIFT)]);
			int err = copy_in(to, s->data + done, min_t(u64, s->len - done, PAGE_SIZE),
					      b->user);

			if (err)
				return err;
			cond_resched();
		}
		if (s->kind == RDT_DOM_GATE)
			d->gate = d->frames.page[at];
		at += s->pages;
	}
	return 0;
}

static int allocate(const struct build *b, struct redoubt_domain *d)
{
	const struct rdt_image *im = b->image;
	unsigned long frames = b->tables;
	int err;
	u32 i;

	for (i = 0; i < im->segments; i++)
		frames += b->seg[i].pages;
	d->pages = frames;
	err = pages_alloc(&d->frames, frames);
	for (i = 0; !err && i < im->windows; i++)
		err = pages_alloc(&d->window[i], im->window[i].pages);
	if (err)
		return err;
	if (im->windows && !(im->flags & RDT_DOM_USER)) {
		d->part = rounddown(im->window[0].pages / im->slots * PAGE_SIZE, PAGE_SIZE);
		d->parts_gva = im->window[0].gva;
		d->parts = vmap(d->window[0].page, d->window[0].nr, VM_MAP, PAGE_KERNEL);
		if (!d->parts)
			return -ENOMEM;
	}
	return fill(b, d);
}

/* ---- the host ----------------------------------------------------------------- */

static long add(struct redoubt_domain *d, unsigned long at, u64 gva, unsigned long pages, u32 kind)
{
	while (pages) {
		unsigned long n = run(&d->frames, at, min_t(unsigned long, pages, RDT_DOM_ADD_MAX));
		long ret = rdt_hypercall4(RDT_HC_DOM_ADD, d->id, page_to_phys(d->frames.page[at]), gva,
					  RDT_DOM_PAGES(n, kind));

		if (ret)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		if (kind != RDT_DOM_TABLE)
			gva += n << PAGE_SHIFT;
		at += n;
		pages -= n;
	}
	return 0;
}

static long share(struct redoubt_domain *d, const struct rdt_pages *w, u64 gva)
{
	unsigned long at, n;

	for (at = 0; at < w->nr; at += n) {
		long ret;

		n = run(w, at, w->nr - at);
		ret = rdt_hypercall4(RDT_HC_DOM_SHARE, d->id, page_to_phys(w->page[at]),
				     gva + (at << PAGE_SHIFT), n);
		if (ret)
			/* Memory is in too many pieces for the host to remember. */
			return ret == -E2BIG ? -ENOMEM : ret;
	}
	return 0;
}

static long create(struct redoubt_domain *d, const struct rdt_image *im)
{
	struct rdt_domain_desc *desc = (void *)get_zeroed_page(GFP_KERNEL);
	long id;

	if (!desc)
		return -ENOMEM;
	*desc = (struct rdt_domain_desc){
		.size = sizeof(*desc),
		.flags = im->flags,
		.gate_gva = im->gate_gva,
		.exit_gva = im->exit_gva,
		.resume_gva = im->flags & RDT_DOM_USER ? im->resume_gva : (u64)rdt_domain_resume,
		.slots = im->slots,
		.windows = im->windows,
	};
	memcpy(desc->stack_top, im->stack_top, sizeof(desc->stack_top));
	memcpy(desc->window, im->window, sizeof(desc->window));
	id = rdt_hypercall(RDT_HC_DOM_CREATE, virt_to_phys(desc), 0, 0);
	free_page((unsigned long)desc);
	if (id <= 0)
		return id ?: -EIO;
	d->id = id;
	return 0;
}

/* From create() on the frames are the host's to give back. */
static long hand_over(const struct build *b, struct redoubt_domain *d)
{
	const struct rdt_image *im = b->image;
	unsigned long at = 0;
	long ret;
	u32 i;

	ret = create(d, im);
	for (i = 0; !ret && i < im->segments; i++) {
		ret = add(d, at, b->seg[i].gva, b->seg[i].pages, b->seg[i].kind);
		at += b->seg[i].pages;
	}
	ret = ret ?: add(d, at, 0, b->tables, RDT_DOM_TABLE);
	for (i = 0; !ret && i < im->windows; i++)
		ret = share(d, &d->window[i], im->window[i].gva);
	ret = ret ?: rdt_hypercall(RDT_HC_DOM_SEAL, d->id, 0, 0);
	ret = ret ?: redoubt_domain_measure(d, d->measurement);
	return ret;
}

/* Sealed, or an error and nothing is left of it. */
static struct redoubt_domain *make(const struct build *b)
{
	struct redoubt_domain *d;
	long ret = rdt_domain_reserve(b->pages);

	if (ret)
		return ERR_PTR(ret);
	d = rdt_domain_new();
	if (!d) {
		rdt_domain_unreserve(b->pages);
		return ERR_PTR(-ENOMEM);
	}
	sema_init(&d->free, b->image->slots);
	d->flags = b->image->flags;
	d->slots = b->image->slots;
	d->windows = b->image->windows;
	d->tables = b->tables;
	d->reserved = b->pages;

	ret = allocate(b, d);
	ret = ret ?: hand_over(b, d);
	if (!ret)
		return d;
	redoubt_domain_destroy(d);
	return ERR_PTR(rdt_domain_errno(ret));
}

/**
 * rdt_domain_build() - make, fill and seal a domain.
 * @image: what it is to be; gets the id and the measurement
 * @user: its pointers are a process's
 *
 * May sleep. Return: the domain, with one reference, or one of RDT_DOMAIN_CREATE's errors.
 */
struct redoubt_domain *rdt_domain_build(struct rdt_image *image, bool user)
{
	struct build b = { .image = image, .user = user };
	struct redoubt_domain *d;
	int err;

	if (image->flags & ~(RDT_DOM_USER | RDT_DOM_VECTOR) || image->reserved[0] || image->reserved[1])
		return ERR_PTR(bad("flags or reserved fields"));
	if (image->slots < 1 || image->slots > RDT_DOM_MAX_SLOTS ||
	    image->windows > RDT_DOM_MAX_WINDOWS || image->segments < 1 ||
	    image->segments > RDT_IMAGE_MAX_SEGMENTS)
		return ERR_PTR(bad("number of slots, windows or segments"));
	if (!(image->flags & RDT_DOM_USER) && image->resume_gva)
		return ERR_PTR(bad("a resume stub, and ring 0"));
	b.seg = kvmalloc_array(image->segments, sizeof(*b.seg), GFP_KERNEL_ACCOUNT);
	if (!b.seg)
		return ERR_PTR(-ENOMEM);
	err = copy_in(b.seg, image->segment, image->segments * sizeof(*b.seg), user);
	err = err ?: check(&b);
	if (err) {
		d = ERR_PTR(err);
	} else {
		count_tables(&b);
		d = make(&b);
	}
	kvfree(b.seg);
	if (!IS_ERR(d)) {
		image->id = d->id;
		memcpy(image->measurement, d->measurement, sizeof(image->measurement));
	}
	return d;
}
