// SPDX-License-Identifier: GPL-2.0
/* Attacks on the doors of integrity mode. */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/vmalloc.h>
#include <linux/redoubt_guest.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/desc.h>
#include <asm/ibt.h>
#include <asm/io.h>
#include <asm/nospec-branch.h>
#include <asm/special_insns.h>
#include "attack.h"

/* What an attack needs, or the result says that it was not made. */
static unsigned long needed(struct seq_file *m, const char *name)
{
	unsigned long addr = symbol(name);

	if (!addr)
		report(m, false, "%s: not found", name);
	return addr;
}

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

/* Through the gate with a return address that no return may go to; RDI is the gate. */
asm(".pushsection .text\n"
    ".type attack_noncanonical, @function\n"
    "attack_noncanonical:\n"
    ANNOTATE_NOENDBR
    "	movabsq $0x8000000000000000, %r11\n"
    ANNOTATE_RETPOLINE_SAFE
    "	jmp *%rdi\n"
    "	int3\n"
    ".size attack_noncanonical, . - attack_noncanonical\n"
    ".popsection\n");
extern char attack_noncanonical[];

/* Where an interrupt inside leads to is the IDT's to say. */
static long gate_with_own_idt(unsigned long gate)
{
	struct desc_ptr idt, own = { .size = PAGE_SIZE - 1 };
	void *copy = (void *)get_zeroed_page(GFP_KERNEL);
	unsigned long flags;
	long ret;

	if (!copy)
		return -ENOMEM;
	local_irq_save(flags);
	store_idt(&idt);
	memcpy(copy, (void *)idt.address, PAGE_SIZE);
	own.address = (unsigned long)copy;
	native_load_idt(&own);
	ret = call_guarded(gate, 0, 0, 0);
	native_load_idt(&idt);
	local_irq_restore(flags);
	free_page((unsigned long)copy);
	return ret;
}

void attack_gate(struct seq_file *m)
{
	unsigned long text = needed(m, "_stext"), rodata = needed(m, "__start_rodata");
	unsigned long gate = needed(m, "redoubt_guest:rdt_gate");
	phys_addr_t gpa;
	long ret;
	u64 attr;

	if (!text || !rodata || !gate)
		return;
	gpa = slow_virt_to_phys((void *)text);
	refused(m, "RDT_HC_ENTER from the attacker's own code", hypercall(RDT_HC_ENTER, 0, 0, 0));
	refused(m, "RDT_HC_LEAVE from normal mode", hypercall(RDT_HC_LEAVE, 0, 0, 0));
	refused(m, "RDT_HC_RESUME, forged token 0", hypercall(RDT_HC_RESUME, 0, 0, 0));
	refused(m, "RDT_HC_RESUME, forged token ~0", hypercall(RDT_HC_RESUME, ~0ul, 0, 0));
	refused(m, "RDT_HC_DRIVER, a driver of the attacker's own",
		hypercall(RDT_HC_DRIVER, gpa & PAGE_MASK, 0, 0));

	attr = hypercall(RDT_HC_QUERY, gpa, 0, 0);
	refused(m, "RDT_HC_UNPROTECT of kernel text from normal mode",
		hypercall(RDT_HC_UNPROTECT, gpa & PAGE_MASK, 1, 0));
	refused(m, "the driver itself, asked through its gate to lift kernel text",
		call_guarded(gate, 3, gpa & PAGE_MASK, 1));
	ret = gate_with_own_idt(gate);
	report(m, ret == -EPERM, "the gate, with an IDT of the attacker's own: %ld", ret);
	ret = call_guarded((unsigned long)attack_noncanonical, gate, 0, 0);
	report(m, ret == -EFAULT, "the gate, with a return address that is none: %ld", ret);
	/* LOG may be made DENY by anybody, but nothing may be made weaker. */
	gpa = slow_virt_to_phys((void *)rodata);
	refused(m, "RDT_HC_PROTECT of rodata with a weaker action",
		hypercall(RDT_HC_PROTECT, gpa & PAGE_MASK, 1, RDT_ATTR(RDT_ACT_LOG, RDT_CLS_OTHER)));
	report(m, hypercall(RDT_HC_QUERY, slow_virt_to_phys((void *)text), 0, 0) == attr &&
	       RDT_ATTR_ACTION(hypercall(RDT_HC_QUERY, gpa, 0, 0)) == RDT_ACT_DENY,
	       "kernel text and rodata are protected as before");
}

bool make_nx(unsigned long va, bool nx)
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
	unsigned long gate = needed(m, "redoubt_guest:rdt_gate");
	unsigned long main = needed(m, "redoubt_guest:rdt_inside_main");
	unsigned long enter = needed(m, "redoubt_guest:rdt_enter");
	unsigned long data = needed(m, "redoubt_guest:rdt_inside_data");
	u64 *calls = (u64 *)data + 6, before;
	long ret;

	if (!gate || !main || !enter || !data)
		return;
	ret = call_guarded(gate + 1, 1, 0, 0);
	report(m, ret == -EFAULT, "jump to the gate page, one byte past the gate: %ld", ret);
	ret = call_guarded(gate + 0x800, 1, 0, 0);
	report(m, ret == -EFAULT, "jump to the middle of the gate page: %ld", ret);

	/* What the driver keeps is never code, whatever the guest's own tables say. */
	if (!make_nx(data, false)) {
		report(m, false, "driver's data could not be made executable: no jump was tried");
	} else {
		ret = call_guarded(data + 0x800, 1, 0, 0);
		report(m, ret == -EFAULT, "jump into the driver's data: %ld", ret);
		make_nx(data, true);
	}

	/*
	 * The driver's code, run where it has no rights: its first act, counting the
	 * call, is a write to its own data.
	 */
	if (!make_nx(main, false)) {
		report(m, false, "driver's text could not be made executable: its calls were not tried");
		return;
	}
	before = READ_ONCE(calls[1]);
	ret = call_guarded(main, 1, 0, 0);
	report(m, ret == -EFAULT && READ_ONCE(calls[1]) == before,
	       "driver's text called outside integrity mode: %ld, its data %s", ret,
	       READ_ONCE(calls[1]) == before ? "unchanged" : "CHANGED");
	ret = call_guarded(enter, 1, 0, 0);
	report(m, ret == -EFAULT && READ_ONCE(calls[1]) == before,
	       "driver's entry called outside integrity mode: %ld, its data %s", ret,
	       READ_ONCE(calls[1]) == before ? "unchanged" : "CHANGED");
	make_nx(main, true);
}

/*
 * Puts another frame behind @va, whose text is the page's with @code at @at, and calls
 * @target. Interrupts are off: nobody else runs through this page meanwhile.
 */
static long call_remapped(unsigned long va, unsigned long at, const char *code, unsigned int len,
			  unsigned long target, u64 arg)
{
	unsigned long flags;
	unsigned int level;
	pte_t *pte = lookup_address(va, &level), old;
	struct page *page = alloc_page(GFP_KERNEL);
	long ret = -ENOENT;
	u8 *own;

	if (!pte || level != PG_LEVEL_4K || !page)
		goto out;
	own = page_address(page);
	memcpy(own, (void *)(va & PAGE_MASK), PAGE_SIZE);
	memcpy(own + offset_in_page(at), code, len);

	local_irq_save(flags);
	old = *pte;
	ret = store_plain((u64 *)pte, (pte_val(old) & ~PHYSICAL_PAGE_MASK) | page_to_phys(page));
	if (!ret) {
		asm volatile("invlpg (%0)" : : "r" (va) : "memory");
		ret = call_guarded(target, arg, 0, 0);
		store_plain((u64 *)pte, pte_val(old));
		asm volatile("invlpg (%0)" : : "r" (va) : "memory");
	}
	local_irq_restore(flags);
out:
	if (page)
		__free_page(page);
	return ret;
}

void attack_pgtable_alias(struct seq_file *m)
{
	unsigned long behind = needed(m, "redoubt_guest:rdt_call_behind");
	unsigned long gate = needed(m, "redoubt_guest:rdt_gate");
	u64 *counter = (u64 *)needed(m, "redoubt_guest:rdt_inside_data"), before;
	struct page *page;
	void *alias;
	long ret;

	if (!behind || !gate || !counter)
		return;
	counter += 6 + 10 + 1 + 4;
	before = READ_ONCE(*counter);
	/* The same door, but what follows returns to the attacker: jmp *%r11 */
	ret = call_remapped(behind - 8, behind, "\x41\xff\xe3", 3, behind - 8, 1);
	report(m, ret == -EPERM,
	       "RDT_HC_ENTER at the door's address, another frame behind it: %ld", ret);

	/* The attacker's code at the gate's address: incq (%rdi); jmp *%r11 */
	ret = call_remapped(gate, gate, "\x48\xff\x07\x41\xff\xe3", 6, gate, (u64)counter);
	report(m, ret == -EFAULT && READ_ONCE(*counter) == before,
	       "the attacker's code at the gate's address: %ld, the driver's data %s", ret,
	       READ_ONCE(*counter) == before ? "unchanged" : "CHANGED");

	/* The gate's frame at another address: it may lead in, but only to the gate itself. */
	page = page_of((void *)gate);
	alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	if (!alias || !make_nx((unsigned long)alias, false))
		return report(m, false, "no executable alias");
	ret = call_guarded((unsigned long)alias + 8, 1, 4, 0);
	report(m, ret < 0 && READ_ONCE(*counter) == before,
	       "jump to the gate page by an alias, past the gate: %ld, the driver's data %s", ret,
	       READ_ONCE(*counter) == before ? "unchanged" : "CHANGED");
	vunmap(alias);
}
