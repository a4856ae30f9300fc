// SPDX-License-Identifier: GPL-2.0
/*
 * redoubt_test: tests that need the guest's kernel. cat /proc/redoubt_test/<group>
 * runs one and yields TAP. The driver must be loaded.
 */
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <asm/alternative.h>
#include <asm/cpufeatures.h>
#include <asm/io.h>
#include "redoubt_driver.h"
#include "tap_proc.h"
#include "tests.h"

long hypercall(unsigned long nr, unsigned long a, unsigned long b, unsigned long c)
{
	long ret;

	asm volatile(ALTERNATIVE("vmcall", "vmmcall", X86_FEATURE_VMMCALL)
		     : "=a" (ret) : "a" (nr), "b" (a), "c" (b), "d" (c), "S" (0ul) : "memory");
	return ret;
}

/* Then there is nothing to call, and no protection is lifted again. */
static const char *no_inside(void)
{
	return redoubt_call(RDT_OP_NOP, 0, 0, 0) == -ENODEV ? "no integrity mode" : NULL;
}

int guard_pages(struct seq_file *m, const void *start, unsigned int pages, unsigned int action)
{
	unsigned int i;
	int err;

	for (i = 0; i < pages; i++) {
		phys_addr_t gpa = page_to_phys(vmalloc_to_page(start + i * PAGE_SIZE));

		err = redoubt_protect(gpa, 1, RDT_ATTR(action, RDT_CLS_OTHER), RDT_F_REMOVABLE);
		if (err) {
			report(m, false, "page %u cannot be protected: %d", i, err);
			unguard_pages(m, start, i);
			return err;
		}
	}
	return 0;
}

void unguard_pages(struct seq_file *m, const void *start, unsigned int pages)
{
	unsigned int i;
	int err;

	for (i = 0; i < pages; i++) {
		err = redoubt_unprotect(page_to_phys(vmalloc_to_page(start + i * PAGE_SIZE)), 1);
		if (err)
			report(m, false, "page %u cannot be let go: %d", i, err);
	}
}

static const struct tap_group groups[] = {
	{ "A10", "log", test_log, no_inside },
	{ "A3", "deny", test_deny, no_inside },
	{ "A10", "pagetable", test_pagetable, no_inside },
	{ "A5", "policy", test_policy, no_inside },
	{ "A7", "many", test_many, no_inside },
	{ "A5", "badinput", test_badinput, no_inside },
	{ "B1", "calls", test_calls, no_inside },
	{ "B1", "threads", test_threads, no_inside },
	{ "B9", "storm", test_storm, no_inside },
	{ "B9", "migrate", test_migrate, no_inside },
	{ "B9", "hotplug", test_hotplug, no_inside },
	{ "B9", "nmi", test_nmi, no_inside },
	{ "B9", "watch", test_watch, no_inside },
	{ "B3", "foreign", test_foreign, no_inside },
	{ "C5", "domain", test_domain },
	{ "A3", "freeze", test_freeze, no_frozen_page },
	{ "A9", "balloon", test_balloon, no_balloon },
	{ "D5", "secret-storm", test_secret_storm, no_secret },
	{ "D6", "secret-nmi", test_secret_nmi, no_secret },
	{ "D6", "secret-watch", test_secret_watch, no_secret },
	{ "D3", "secret-rewind", test_secret_rewind, no_rewind },
};

static int __init test_init(void)
{
	return tap_init("redoubt_test", groups, ARRAY_SIZE(groups));
}

static void __exit test_exit(void)
{
	remove_proc_subtree("redoubt_test", NULL);
}

module_init(test_init);
module_exit(test_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Redoubt: tests in the guest's kernel");
