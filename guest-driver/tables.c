// SPDX-License-Identifier: GPL-2.0
/*
 * The inside's own page tables: built in normal mode before the driver is registered,
 * unchangeable from there afterwards. They map the inside and nothing else.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <asm/processor-flags.h>
#include <asm/special_insns.h>
#include "driver.h"

#define ENTRIES		512

/*
 * Accessed and dirty are set from the start, so a walk writes nothing; not
 * global, since a global translation would outlive the switch of CR3.
 */
#define TABLE_FLAGS	(_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED)
#define LEAF_FLAGS	(_PAGE_PRESENT | _PAGE_ACCESSED | _PAGE_DIRTY)

/* Takes @pages frames in pieces as large as memory yields: each is a region of the driver. */
static int reserve(struct rdt_space *s, unsigned int pages)
{
	unsigned int order = min_t(unsigned int, order_base_2(pages), 8);

	while (pages) {
		struct rdt_chunk *c = &s->chunk[s->chunks];

		while (order && 1u << order > pages)
			order--;
		if (s->chunks == RDT_MAX_CHUNKS)
			return -ENOMEM;
		c->page = alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN, order);
		if (!c->page) {
			if (!order--)
				return -ENOMEM;
			continue;
		}
		c->order = order;
		s->chunks++;
		pages -= 1u << order;
	}
	return 0;
}

/* The next unused frame of the reserve, zeroed; NULL when there is none. */
struct page *rdt_space_page(struct rdt_space *s)
{
	unsigned int at = s->used, i;

	for (i = 0; i < s->chunks; i++) {
		if (at < 1u << s->chunk[i].order) {
			s->used++;
			return s->chunk[i].page + at;
		}
		at -= 1u << s->chunk[i].order;
	}
	return NULL;
}

int rdt_space_init(struct rdt_space *s, unsigned int pages)
{
	struct page *top;
	int err;

	memset(s, 0, sizeof(*s));
	s->levels = native_read_cr4() & X86_CR4_LA57 ? 5 : 4;
	err = reserve(s, pages);
	if (err)
		return err;
	top = rdt_space_page(s);
	if (!top)
		return -ENOMEM;
	s->cr3 = page_to_phys(top);
	return 0;
}

/* Only before the driver is registered: afterwards these frames cannot be written. */
void rdt_space_free(struct rdt_space *s)
{
	while (s->chunks--)
		__free_pages(s->chunk[s->chunks].page, s->chunk[s->chunks].order);
	s->chunks = 0;
}

int rdt_space_map(struct rdt_space *s, unsigned long va, phys_addr_t pa, unsigned int flags)
{
	u64 *table = phys_to_virt(s->cr3);
	unsigned int level;
	u64 *e;

	for (level = s->levels; level > 1; level--) {
		e = &table[va >> (3 + 9 * level) & (ENTRIES - 1)];
		if (!*e) {
			struct page *page = rdt_space_page(s);

			if (!page)
				return -ENOMEM;
			*e = page_to_phys(page) | TABLE_FLAGS;
		}
		table = phys_to_virt(*e & PHYSICAL_PAGE_MASK);
	}
	e = &table[va >> PAGE_SHIFT & (ENTRIES - 1)];
	if (*e)
		return -EEXIST;
	*e = pa | LEAF_FLAGS;
	if (flags & RDT_MAP_W)
		*e |= _PAGE_RW;
	if (!(flags & RDT_MAP_X) && boot_cpu_has(X86_FEATURE_NX))
		*e |= _PAGE_NX;
	return 0;
}
