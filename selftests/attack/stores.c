// SPDX-License-Identifier: GPL-2.0
/* Ways to write where the guest's own page tables say no, and to survive a refusal. */
#include <linux/kallsyms.h>
#include <linux/kdebug.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/ibt.h>
#include <asm/io.h>
#include <asm/nospec-branch.h>
#include <asm/processor-flags.h>
#include <asm/special_insns.h>
#include <asm/tlbflush.h>
#include "attack.h"

int store_plain(u64 *at, u64 val)
{
	int err = 0;

	asm volatile("1: movq %[val], %[at]\n"
		     "2:\n"
		     _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %[err])
		     : [err] "+r" (err), [at] "+m" (*at) : [val] "r" (val));
	return err;
}

static void set_cr0(unsigned long val)
{
	/* Not write_cr0(), which puts WP back. */
	asm volatile("mov %0, %%cr0" : : "r" (val) : "memory");
}

int store_wp_clear(u64 *at, u64 val)
{
	unsigned long flags, cr0;
	int err;

	local_irq_save(flags);
	cr0 = read_cr0();
	set_cr0(cr0 & ~X86_CR0_WP);
	err = store_plain(at, val);
	set_cr0(cr0);
	local_irq_restore(flags);
	return err;
}

static void flush_here(void)
{
	unsigned long cr4 = native_read_cr4();

	/* Global translations too; on this CPU only, where the store follows. */
	asm volatile("mov %0, %%cr4; mov %1, %%cr4"
		     : : "r" (cr4 & ~X86_CR4_PGE), "r" (cr4) : "memory");
}

int store_pte(u64 *at, u64 val)
{
	unsigned int level;
	pte_t *pte = lookup_address((unsigned long)at, &level);
	unsigned long flags;
	pte_t old;
	int err;

	if (!pte)
		return -ENOENT;
	old = *pte;
	local_irq_save(flags);
	err = store_plain((u64 *)pte, pte_val(old) | _PAGE_RW | _PAGE_DIRTY);
	if (!err) {
		flush_here();
		err = store_plain(at, val);
		store_plain((u64 *)pte, pte_val(old));
		flush_here();
	}
	local_irq_restore(flags);
	return err;
}

struct page *page_of(const void *va)
{
	unsigned long addr = (unsigned long)va;

	if (is_vmalloc_addr(va) || (addr >= MODULES_VADDR && addr < MODULES_END))
		return vmalloc_to_page(va);
	return pfn_to_page(slow_virt_to_phys((void *)va) >> PAGE_SHIFT);
}

int store_alias(u64 *at, u64 val)
{
	struct page *page = page_of(at);
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	int err;

	if (!alias)
		return -ENOMEM;
	err = store_plain(alias + offset_in_page(at), val);
	vunmap(alias);
	return err;
}

/*
 * A call into code that may fault anywhere: the die notifier leads it back here, as
 * an exception table would if the address were known.
 */
static struct task_struct *guarded, *leaf_guarded, *step_guarded;
static unsigned long guarded_sp, guarded_ip;
static unsigned int leaf_faults;
unsigned long guard_resume_stub;
static bool (*on_step)(struct pt_regs *regs);

/* A function that calls nobody returns 0 at once. Only for those that keep nothing on the stack. */
static bool let_off(struct pt_regs *regs)
{
	char name[KSYM_SYMBOL_LEN];

	sprint_symbol_no_offset(name, regs->ip);
	if (!strstr(name, "memcpy") && !strstr(name, "memcmp"))
		return false;
	leaf_faults++;
	regs->ip = *(unsigned long *)regs->sp;
	regs->sp += 8;
	regs->ax = 0;
	return true;
}

static int on_die(struct notifier_block *nb, unsigned long event, void *data)
{
	struct pt_regs *regs = ((struct die_args *)data)->regs;

	if (user_mode(regs))
		return NOTIFY_DONE;
	if (event == DIE_DEBUG && current == step_guarded && on_step(regs))
		return NOTIFY_STOP;
	if (event == DIE_GPF && current == leaf_guarded && let_off(regs))
		return NOTIFY_STOP;
	if (current != guarded || (event != DIE_GPF && event != DIE_TRAP))
		return NOTIFY_DONE;
	/* A thread that was inside: the stub has an entry for that, which gives its slot back. */
	if (regs->ip == guard_resume_stub)
		return NOTIFY_DONE;
	regs->flags &= ~X86_EFLAGS_TF;
	regs->ip = guarded_ip;
	regs->ax = -EFAULT;
	return NOTIFY_STOP;
}

static struct notifier_block nb = { .notifier_call = on_die, .priority = INT_MAX };

/*
 * Behind the call R11 and the return address mean the same place, so this suits
 * functions and the driver's gate alike; RSP is restored since the gate pops nothing.
 */
noinline long call_guarded4(unsigned long target, u64 op, u64 a, u64 b, u64 c)
{
	long ret;

	guarded = current;
	asm volatile("movq %%rsp, %[sp]\n"
		     "leaq 1f(%%rip), %%r11\n"
		     "movq %%r11, %[ip]\n"
		     ANNOTATE_RETPOLINE_SAFE
		     "call *%%rax\n"
		     "1:\n"
		     ANNOTATE_NOENDBR
		     "movq %[sp], %%rsp\n"
		     : "=a" (ret), "+D" (op), "+S" (a), "+d" (b), "+c" (c), [sp] "+m" (guarded_sp),
		       [ip] "+m" (guarded_ip), ASM_CALL_CONSTRAINT
		     : "a" (target)
		     : "rbx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
		       "r15", "memory", "cc");
	guarded = NULL;
	return ret;
}

/* From on to off, #GP in memcpy() and memcmp() of this thread is not one: how many there were. */
unsigned int leaf_guard(bool on)
{
	if (on)
		leaf_faults = 0;
	leaf_guarded = on ? current : NULL;
	return leaf_faults;
}

/* #DB of this thread is @fn's from now on; NULL: no more. */
void step_guard(bool (*fn)(struct pt_regs *regs))
{
	on_step = fn;
	step_guarded = fn ? current : NULL;
}

int guard_init(void)
{
	return register_die_notifier(&nb);
}

void guard_exit(void)
{
	unregister_die_notifier(&nb);
}
