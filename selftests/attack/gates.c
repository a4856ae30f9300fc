// SPDX-License-Identifier: GPL-2.0
/* Attacks on the doors of integrity mode. */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/vmalloc.h>
#include <linux/redoubt_guest.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/io.h>
#include <asm/special_insns.h>
#include "attack.h"

static long hypercall(unsigned long nr, unsigned long a, unsigned long b, unsigned long c)
{
	long ret;

	asm volatile("1: " ALTERNATIVE("vmcall", "vmmcall", X86_FEATURE_VMMCALL) "\n"
		     "2:\n"
		     _ASM_EXTABLE(1b, 2b)
		     : "=a" (ret) : "a" (nr), "b" (a), "c" (b), "d" (c), "S" (0ul) : "memory");
	return ret;
}

const char *no_inside(void)
{
	long st = hypercall(RDT_HC_STATUS, 0, 0, 0);

	return st < 0 || !(st & RDT_ST_SEALED) ? "no integrity mode" : NULL;
}

static void refused(struct seq_file *m, const char *what, long ret)
{
	report(m, ret < 0, "%s: %s (%ld)", what, ret < 0 ? "refused" : "LET IN", ret);
}

void attack_gate(struct seq_file *m)
{
	unsigned long text = symbol("_stext");
	phys_addr_t gpa = slow_virt_to_phys((void *)text);
	u64 attr;

	refused(m, "RDT_HC_ENTER from the attacker's own code", hypercall(RDT_HC_ENTER, 0, 0, 0));
	refused(m, "RDT_HC_LEAVE from normal mode", hypercall(RDT_HC_LEAVE, 0, 0, 0));
	refused(m, "RDT_HC_RESUME, forged token 0", hypercall(RDT_HC_RESUME, 0, 0, 0));
	refused(m, "RDT_HC_RESUME, forged token ~0", hypercall(RDT_HC_RESUME, ~0ul, 0, 0));
	refused(m, "RDT_HC_DRIVER, a driver of the attacker's own",
		hypercall(RDT_HC_DRIVER, gpa & PAGE_MASK, 0, 0));

	attr = hypercall(RDT_HC_QUERY, gpa, 0, 0);
	refused(m, "RDT_HC_UNPROTECT of kernel text from normal mode",
		hypercall(RDT_HC_UNPROTECT, gpa & PAGE_MASK, 1, 0));
	/* LOG may be made DENY by anybody, but nothing may be made weaker. */
	gpa = slow_virt_to_phys((void *)symbol("__start_rodata"));
	refused(m, "RDT_HC_PROTECT of rodata with a weaker action",
		hypercall(RDT_HC_PROTECT, gpa & PAGE_MASK, 1, RDT_ATTR(RDT_ACT_LOG, RDT_CLS_OTHER)));
	report(m, hypercall(RDT_HC_QUERY, slow_virt_to_phys((void *)text), 0, 0) == attr &&
	       RDT_ATTR_ACTION(hypercall(RDT_HC_QUERY, gpa, 0, 0)) == RDT_ACT_DENY,
	       "kernel text and rodata are protected as before");
}

/* Executable or not for this CPU, through the mapping that is there. */
static bool make_nx(unsigned long va, bool nx)
{
	unsigned int level;
	pte_t *pte = lookup_address(va, &level);
	u64 val;

	if (!pte)
		return false;
	val = pte_val(*pte);
	val = nx ? val | _PAGE_NX : val & ~_PAGE_NX;
	if (store_plain((u64 *)pte, val))
		return false;
	asm volatile("invlpg (%0)" : : "r" (va) : "memory");
	return true;
}

void attack_gate_mid(struct seq_file *m)
{
	unsigned long gate = symbol("redoubt_guest:rdt_gate");
	unsigned long main = symbol("redoubt_guest:rdt_inside_main");
	unsigned long enter = symbol("redoubt_guest:rdt_enter");
	u64 *calls = (u64 *)symbol("redoubt_guest:rdt_inside_data") + 6;
	u64 before;
	long ret;

	ret = call_guarded(gate + 1, 1, 0);
	report(m, ret == -EFAULT, "jump to the gate page, one byte past the gate: %ld", ret);
	ret = call_guarded(gate + 0x800, 1, 0);
	report(m, ret == -EFAULT, "jump to the middle of the gate page: %ld", ret);

	/*
	 * The driver's code, run where it has no rights: its first act, counting the
	 * call, is a write to its own data.
	 */
	if (!make_nx(main, false)) {
		report(m, true, "driver's text could not be made executable");
		return;
	}
	before = READ_ONCE(calls[1]);
	ret = call_guarded(main, 1, 0);
	report(m, ret == -EFAULT && READ_ONCE(calls[1]) == before,
	       "driver's text called outside integrity mode: %ld, its data %s", ret,
	       READ_ONCE(calls[1]) == before ? "unchanged" : "CHANGED");
	ret = call_guarded(enter, 1, 0);
	report(m, ret == -EFAULT && READ_ONCE(calls[1]) == before,
	       "driver's entry called outside integrity mode: %ld, its data %s", ret,
	       READ_ONCE(calls[1]) == before ? "unchanged" : "CHANGED");
	make_nx(main, true);
}

/*
 * Another frame behind the address of the hypercall door, with the attacker's code in
 * it: RIP is right, the guest-physical address is not.
 */
void attack_pgtable_alias(struct seq_file *m)
{
	unsigned long door = symbol("redoubt_guest:rdt_enter_hc"), va = door & PAGE_MASK;
	unsigned long behind = symbol("redoubt_guest:rdt_call_behind");
	unsigned long flags;
	unsigned int level;
	struct page *page;
	pte_t *pte, old;
	u8 *own;
	long ret;

	pte = lookup_address(va, &level);
	page = alloc_page(GFP_KERNEL);
	if (!pte || level != PG_LEVEL_4K || !page) {
		report(m, true, "door # SKIP it is not mapped by a page of its own");
		return;
	}
	/* The same door, but what follows returns to the attacker at once. */
	own = page_address(page);
	memcpy(own, (void *)va, PAGE_SIZE);
	memcpy(own + behind - va, "\x41\xff\xe3", 3);	/* jmp *%r11 */

	local_irq_save(flags);
	old = *pte;
	if (store_plain((u64 *)pte, (pte_val(old) & ~PHYSICAL_PAGE_MASK) | page_to_phys(page))) {
		ret = -EFAULT;
	} else {
		asm volatile("invlpg (%0)" : : "r" (va) : "memory");
		ret = call_guarded(behind - 8, 1, 0);
		store_plain((u64 *)pte, pte_val(old));
		asm volatile("invlpg (%0)" : : "r" (va) : "memory");
	}
	local_irq_restore(flags);
	__free_page(page);
	refused(m, "RDT_HC_ENTER at the door's address, another frame behind it", ret);
}
