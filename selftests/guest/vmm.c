// SPDX-License-Identifier: GPL-2.0
/*
 * What needs the VMM's part, from the guest's side: a frame under FREEZE, and a frame
 * that is given to the balloon. vmm-test on the host does the rest.
 */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <asm/asm.h>
#include <asm/io.h>
#include "redoubt_driver.h"
#include "tests.h"

#define PATTERN	0x5245444f55425421ull

static int store(u64 *at, u64 val)
{
	int err = 0;

	asm volatile("1: movq %[val], %[at]\n"
		     "2:\n"
		     _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %[err])
		     : [err] "+r" (err), [at] "+m" (*at) : [val] "r" (val));
	return err;
}

/* ---- FREEZE ---------------------------------------------------------------- */

const char *no_frozen_page(void)
{
	u64 **page = (u64 **)symbol("redoubt_guest:rdt_test_page");

	if (page && *page && (hypercall(RDT_HC_QUERY, virt_to_phys(*page), 0, 0) & 0xff) == RDT_ACT_FREEZE)
		return NULL;
	return "the driver was loaded without test_page=3";
}

/* The store ends only when the operator has lifted the protection. */
void test_freeze(struct seq_file *m)
{
	u64 *page = *(u64 **)symbol("redoubt_guest:rdt_test_page");
	int err;

	/* To the console, for the host: nobody reads us before we end. */
	pr_emerg("redoubt_test: frozen page at gpa %llx\n", (u64)virt_to_phys(page));
	err = store(page, PATTERN);
	report(m, !err && READ_ONCE(*page) == PATTERN,
	       "let go, the store takes place: %d, %llx", err, READ_ONCE(*page));
}

/* ---- the balloon ------------------------------------------------------------- */

static struct page *victim;	/* given away once */
static bool given;

/* A rootkit's: the balloon's driver gets our page in the place of a free one. */
static int swap_page(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	if (regs->ax && !cmpxchg(&given, false, true))
		regs->ax = (unsigned long)victim;
	return 0;
}
NOKPROBE_SYMBOL(swap_page);

const char *no_balloon(void)
{
	return symbol("virtio_balloon:virtballoon_probe") ? NULL : "no virtio_balloon";
}

void test_balloon(struct seq_file *m)
{
	struct kretprobe probe = {
		.kp.symbol_name = "balloon_page_alloc",
		.handler = swap_page,
	};
	unsigned long end = jiffies + 90 * HZ;
	phys_addr_t gpa;
	u64 *va;
	int err;

	victim = alloc_page(GFP_KERNEL);
	if (!victim || given)
		return report(m, false, "no memory, or not the first time");
	va = page_address(victim);
	gpa = page_to_phys(victim);
	va[0] = PATTERN;
	va[511] = PATTERN;
	/* The balloon drops a reference when it is deflated; the page stays ours. */
	get_page(victim);
	err = redoubt_protect(gpa, 1, RDT_ATTR(RDT_ACT_DENY, RDT_CLS_SYSCALL), RDT_F_REMOVABLE);
	report(m, !err, "a page under DENY: %d", err);
	err = register_kretprobe(&probe);
	if (err)
		return report(m, false, "no probe: %d", err);
	report(m, store(va, 0) == -EFAULT && va[0] == PATTERN, "it cannot be written");

	pr_emerg("redoubt_test: ready for the balloon, page at gpa %llx\n", (u64)gpa);
	while (READ_ONCE(va[0]) == PATTERN && time_before(jiffies, end))
		msleep(20);
	unregister_kretprobe(&probe);
	report(m, given, "the balloon's driver took it for a free page");
	/* What is promised: nothing but zeros, which the VMM brought; and the rule. */
	report(m, !READ_ONCE(va[0]) && !READ_ONCE(va[511]),
	       "the VMM has thrown its contents away: %llx %llx", READ_ONCE(va[0]), READ_ONCE(va[511]));
	report(m, hypercall(RDT_HC_QUERY, gpa, 0, 0) == RDT_ATTR(RDT_ACT_DENY, RDT_CLS_SYSCALL),
	       "the rule is still there");
	err = store(va, PATTERN);
	report(m, err == -EFAULT && !READ_ONCE(va[0]), "it cannot be written: %d, %llx", err, READ_ONCE(va[0]));
	err = redoubt_unprotect(gpa, 1);
	report(m, !err && !store(va, PATTERN) && READ_ONCE(va[0]) == PATTERN, "lifted, it can: %d", err);
}
