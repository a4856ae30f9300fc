// SPDX-License-Identifier: GPL-2.0
/* Adding and lifting protection, and what must be refused (A5, A7, bad input). */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/io.h>
#include "redoubt_driver.h"
#include "tests.h"

#define DENY	RDT_ATTR(RDT_ACT_DENY, RDT_CLS_OTHER)
#define LOG	RDT_ATTR(RDT_ACT_LOG, RDT_CLS_OTHER)

static int store(u64 *at, u64 val)
{
	int err = 0;

	asm volatile("1: movq %[val], %[at]\n"
		     "2:\n"
		     _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %[err])
		     : [err] "+r" (err), [at] "+m" (*at) : [val] "r" (val));
	return err;
}

static void flush_tlb_here(volatile void *va)
{
	asm volatile("invlpg (%0)" : : "r" (va) : "memory");
}

static void expect(struct seq_file *m, const char *what, long got, long want)
{
	report(m, got == want, "%s: %ld, expected %ld", what, got, want);
}

void test_policy(struct seq_file *m)
{
	u64 *va = (u64 *)get_zeroed_page(GFP_KERNEL), *fixed = (u64 *)symbol("__start_rodata");
	phys_addr_t gpa = virt_to_phys(va), rodata = slow_virt_to_phys(fixed);

	expect(m, "a page of our own, DENY", redoubt_protect(gpa, 1, DENY, RDT_F_REMOVABLE), 0);
	expect(m, "the same again", redoubt_protect(gpa, 1, DENY, RDT_F_REMOVABLE), -EEXIST);
	expect(m, "host: how is it protected", hypercall(RDT_HC_QUERY, gpa, 0, 0), DENY);
	expect(m, "inside: how is it protected", redoubt_call(RDT_OP_LOOKUP, gpa + 8, 0, 0), DENY);
	expect(m, "a store to it", store(va, 1), -EFAULT);
	expect(m, "its value", va[0], 0);
	expect(m, "host, from normal mode: made LOG", hypercall(RDT_HC_PROTECT, gpa, 1, LOG), -EPERM);
	expect(m, "host, from normal mode: lifted", hypercall(RDT_HC_UNPROTECT, gpa, 1, 0), -EPERM);
	expect(m, "a store to it still", store(va, 1), -EFAULT);
	expect(m, "lifted together with its neighbour", redoubt_unprotect(gpa, 2), -EPERM);
	expect(m, "lifted", redoubt_unprotect(gpa, 1), 0);
	expect(m, "lifted again", redoubt_unprotect(gpa, 1), -ENOENT);
	expect(m, "host: how is it protected", hypercall(RDT_HC_QUERY, gpa, 0, 0), 0);
	expect(m, "a store to it", store(va, 2), 0);
	expect(m, "its value", va[0], 2);
	expect(m, "rodata lifted", redoubt_unprotect(rodata & PAGE_MASK, 1), -EPERM);
	expect(m, "a store to rodata by its direct map", store(phys_to_virt(rodata), 0), -EFAULT);
	expect(m, "policy table", redoubt_call_wait(RDT_OP_CHECK, 0, 0, 0), 0);
	free_page((unsigned long)va);
}

/* More ranges than the node pages at load hold, each apart, added and removed. */
#define MANY	900

void test_many(struct seq_file *m)
{
	void **page = kcalloc(MANY, sizeof(*page), GFP_KERNEL);
	int i, n, err = 0, wrong = 0;

	for (n = 0; page && n < MANY; n++) {
		page[n] = (void *)get_zeroed_page(GFP_KERNEL);
		if (!page[n])
			break;
		err = redoubt_protect(virt_to_phys(page[n]), 1, RDT_ATTR(RDT_ACT_DENY, n & 7),
				      RDT_F_REMOVABLE);
		if (err) {
			free_page((unsigned long)page[n]);
			break;
		}
	}
	report(m, n == MANY, "%d ranges of a page: %d, last error %d", MANY, n, err);
	for (i = 0; i < n; i++)
		wrong += hypercall(RDT_HC_QUERY, virt_to_phys(page[i]), 0, 0) !=
			 RDT_ATTR(RDT_ACT_DENY, i & 7) || store(page[i], 1) != -EFAULT;
	report(m, !wrong, "all are protected, each with its class: %d are not", wrong);
	/* Odd ones first: the tree is cut up, not merely emptied. */
	for (i = 1; i < n; i += 2)
		wrong += redoubt_unprotect(virt_to_phys(page[i]), 1) || store(page[i], 1);
	for (i = 0; i < n; i += 2)
		wrong += store(page[i], 1) != -EFAULT;
	for (i = 0; i < n; i += 2)
		wrong += redoubt_unprotect(virt_to_phys(page[i]), 1) || store(page[i], 1);
	report(m, !wrong, "all are lifted again, odd ones first: %d are not", wrong);
	expect(m, "policy table", redoubt_call_wait(RDT_OP_CHECK, 0, 0, 0), 0);
	for (i = 0; i < n; i++)
		free_page((unsigned long)page[i]);
	kfree(page);
}

/* Every number with arguments it must refuse; nothing may change. */
void test_badinput(struct seq_file *m)
{
	u64 *va = (u64 *)get_zeroed_page(GFP_KERNEL);
	phys_addr_t gpa = virt_to_phys(va), text = slow_virt_to_phys((void *)symbol("_stext"));
	u64 beyond = 1ull << 51;
	const struct {
		const char *what;
		unsigned long nr, a, b, c;
		long want;
	} bad[] = {
		{ "ATTACH when attached", RDT_HC_ATTACH, 0, 0, 0, -EEXIST },
		{ "ATTACH with a flag", RDT_HC_ATTACH, 1, 0, 0, -EINVAL },
		{ "NODE_ADD unaligned", RDT_HC_NODE_ADD, gpa + 8, 0, 0, -EINVAL },
		{ "NODE_ADD beyond RAM", RDT_HC_NODE_ADD, beyond, 0, 0, -EFAULT },
		{ "NODE_ADD of an address that wraps", RDT_HC_NODE_ADD, -PAGE_SIZE, 0, 0, -EINVAL },
		{ "NODE_ADD of kernel text", RDT_HC_NODE_ADD, text & PAGE_MASK, 0, 0, -EBUSY },
		{ "NODE_ADD with a second argument", RDT_HC_NODE_ADD, gpa, 1, 0, -EINVAL },
		{ "PROTECT unaligned", RDT_HC_PROTECT, gpa + 1, 1, DENY, -EINVAL },
		{ "PROTECT of no pages", RDT_HC_PROTECT, gpa, 0, DENY, -EINVAL },
		{ "PROTECT of too many pages", RDT_HC_PROTECT, gpa, ~0ul, DENY, -EINVAL },
		{ "PROTECT that wraps", RDT_HC_PROTECT, gpa, 1ul << 52, DENY, -EINVAL },
		{ "PROTECT beyond RAM", RDT_HC_PROTECT, beyond, 1, DENY, -EFAULT },
		{ "PROTECT from RAM to beyond", RDT_HC_PROTECT, gpa, 1ul << 30, DENY, -EFAULT },
		{ "PROTECT without action", RDT_HC_PROTECT, gpa, 1, RDT_ACT_NONE, -EINVAL },
		{ "PROTECT with an unknown action", RDT_HC_PROTECT, gpa, 1, 4, -EINVAL },
		{ "PROTECT with a class of Redoubt's own", RDT_HC_PROTECT, gpa, 1,
		  RDT_ATTR(RDT_ACT_DENY, RDT_CLS_NODE), -EINVAL },
		{ "PROTECT with reserved bits", RDT_HC_PROTECT, gpa, 1, DENY | 1 << 16, -EINVAL },
		{ "UNPROTECT from normal mode", RDT_HC_UNPROTECT, gpa, 1, 0, -EPERM },
		{ "QUERY of an unrestricted page", RDT_HC_QUERY, gpa, 0, 0, 0 },
		{ "DRIVER a second time", RDT_HC_DRIVER, gpa, 0, 0, -EEXIST },
		{ "ENTER from here", RDT_HC_ENTER, 0, 0, 0, -EPERM },
		{ "LEAVE from here", RDT_HC_LEAVE, 0, 0, 0, -EPERM },
		{ "RESUME without a thread inside", RDT_HC_RESUME, 12345, 0, 0, -EINVAL },
		{ "the first unknown number", RDT_HC_RESUME + 1, 0, 0, 0, -1000 },
		{ "the last number", RDT_HC_LAST, 0, 0, 0, -1000 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		expect(m, bad[i].what, hypercall(bad[i].nr, bad[i].a, bad[i].b, bad[i].c),
		       bad[i].want);
	expect(m, "the page used for all that is free to write", store(va, 7), 0);
	expect(m, "inside: an unknown operation", redoubt_call(RDT_OP_NR, 0, 0, 0), -EINVAL);
	expect(m, "inside: operation ~0", redoubt_call(~0ul, 0, 0, 0), -EINVAL);
	expect(m, "inside: PROTECT unaligned", redoubt_call(RDT_OP_PROTECT, gpa + 8, 1, DENY), -EINVAL);
	expect(m, "inside: PROTECT of no pages", redoubt_call(RDT_OP_PROTECT, gpa, 0, DENY), -EINVAL);
	expect(m, "inside: PROTECT that wraps",
	       redoubt_call(RDT_OP_PROTECT, ~0ul & PAGE_MASK, 2, DENY), -EINVAL);
	expect(m, "inside: PROTECT with an unknown flag",
	       redoubt_call(RDT_OP_PROTECT, gpa, 1 | 1ul << 40, DENY), -EINVAL);
	expect(m, "inside: UNPROTECT of node pages", redoubt_call(RDT_OP_UNPROTECT, gpa, 1, 0), -ENOENT);
	expect(m, "inside: counter out of range", redoubt_call(RDT_OP_COUNTER_INC, 8, 0, 0), -EINVAL);
	free_page((unsigned long)va);
}

/*
 * A page that holds page table entries, under LOG and under DENY: the CPU's own
 * updates of accessed and dirty go on, without an end. 4 MiB of addresses hold one
 * table that maps nothing but ours.
 */
#define SPAN	1024

static void one_pagetable(struct seq_file *m, struct page **pages, unsigned int action)
{
	void *area = vmap(pages, SPAN, VM_MAP, PAGE_KERNEL);
	volatile u64 *va = PTR_ALIGN(area, PMD_SIZE);
	u64 *first = page_address(pages[0]), *second = page_address(pages[1]);
	const char *name = action == RDT_ACT_LOG ? "LOG" : "DENY";
	u64 flags = pgprot_val(PAGE_KERNEL) & ~_PAGE_GLOBAL;
	phys_addr_t table;
	unsigned int level;
	pte_t *pte;
	int err;

	if (!area)
		return report(m, false, "no memory");
	pte = lookup_address((unsigned long)va, &level);
	table = virt_to_phys(pte) & PAGE_MASK;
	*first = 111;
	*second = 222;
	/* Neither accessed nor dirty, so that the next access must update the entry. */
	store((u64 *)pte, page_to_phys(pages[0]) | (flags & ~(_PAGE_ACCESSED | _PAGE_DIRTY)));
	err = redoubt_protect(table, 1, RDT_ATTR(action, RDT_CLS_PGTABLE), RDT_F_REMOVABLE);
	expect(m, "a page of page table entries protected", err, 0);
	if (err) {
		vunmap(area);
		return;
	}
	flush_tlb_here(va);
	report(m, *va == 111, "%s: a read through the table", name);
	report(m, READ_ONCE(*(u64 *)pte) & _PAGE_ACCESSED, "%s: accessed was set", name);
	*va = 333;
	report(m, *first == 333, "%s: a write through the table", name);
	report(m, READ_ONCE(*(u64 *)pte) & _PAGE_DIRTY, "%s: dirty was set", name);

	err = store((u64 *)pte, page_to_phys(pages[1]) | flags);
	flush_tlb_here(va);
	if (action == RDT_ACT_LOG)
		report(m, !err && *va == 222, "LOG: a changed entry holds: err %d", err);
	else
		report(m, err == -EFAULT && *va == 333, "DENY: the entry was kept: err %d", err);
	expect(m, "lifted", redoubt_unprotect(table, 1), 0);
	vunmap(area);
}

void test_pagetable(struct seq_file *m)
{
	struct page *two[2] = { alloc_page(GFP_KERNEL), alloc_page(GFP_KERNEL) };
	struct page **pages = kmalloc_array(SPAN, sizeof(*pages), GFP_KERNEL);
	int i;

	for (i = 0; i < SPAN; i++)
		pages[i] = two[i & 1];
	one_pagetable(m, pages, RDT_ACT_LOG);
	one_pagetable(m, pages, RDT_ACT_DENY);
	kfree(pages);
	__free_page(two[0]);
	__free_page(two[1]);
}
