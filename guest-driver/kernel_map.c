// SPDX-License-Identifier: GPL-2.0
/*
 * Where the guest kernel's parts lie in guest-physical memory, and which of them
 * are put under protection with what action.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/static_call.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <asm/desc.h>
#include "driver.h"

/*
 * kallsyms_lookup_name() is not exported. A kprobe that is never armed tells its
 * address; a static call reaches it: a direct branch needs no ENDBR, which IBT
 * kernels have removed there.
 */
static unsigned long no_lookup(const char *name)
{
	return 0;
}
DEFINE_STATIC_CALL(rdt_lookup, no_lookup);

int rdt_kallsyms_init(void)
{
	struct kprobe kp = {
		.symbol_name = "kallsyms_lookup_name",
		.flags = KPROBE_FLAG_DISABLED,
	};
	int err = register_kprobe(&kp);

	if (err) {
		pr_err("cannot find kallsyms_lookup_name by kprobe: %d\n", err);
		return err;
	}
	static_call_update(rdt_lookup, (void *)kp.addr);
	unregister_kprobe(&kp);
	return 0;
}

unsigned long rdt_symbol(const char *name)
{
	unsigned long addr = static_call(rdt_lookup)(name);

	if (!addr)
		pr_warn("this kernel has no symbol %s\n", name);
	return addr;
}

/* Works for the kernel image, its direct map, and module or vmalloc addresses. */
phys_addr_t rdt_phys(const void *va)
{
	unsigned long addr = (unsigned long)va;

	if (is_vmalloc_addr(va) || (addr >= MODULES_VADDR && addr < MODULES_END))
		return page_to_phys(vmalloc_to_page(va)) + offset_in_page(va);
	return slow_virt_to_phys((void *)va);
}

/**
 * rdt_for_each_run() - call @fn for each run of adjacent frames.
 * @start: first address, rounded down to a page
 * @len: bytes, the end is rounded up to a page
 * @fn: gets the first frame's address and their number; an error ends the walk
 * @arg: passed to @fn
 */
int rdt_for_each_run(const void *start, size_t len, rdt_run_fn fn, void *arg)
{
	unsigned long va = (unsigned long)start & PAGE_MASK;
	unsigned long end = PAGE_ALIGN((unsigned long)start + len);
	phys_addr_t first = 0;
	unsigned long pages = 0;
	int err;

	for (; va < end; va += PAGE_SIZE) {
		phys_addr_t pa = rdt_phys((void *)va);

		if (pages && pa == first + pages * PAGE_SIZE) {
			pages++;
			continue;
		}
		if (pages) {
			err = fn(first, pages, arg);
			if (err)
				return err;
		}
		first = pa;
		pages = 1;
	}
	return pages ? fn(first, pages, arg) : 0;
}

static int protect(const char *what, unsigned long start, unsigned long end, unsigned int action,
		   unsigned int cls)
{
	int err;

	if (start >= end)
		return 0;
	err = redoubt_protect_virt((void *)start, end - start, RDT_ATTR(action, cls), 0);
	if (err)
		pr_err("cannot protect the %s: %d\n", what, err);
	return err;
}

/*
 * The system call table is a part of rodata with a label of its own, so that a
 * report can name it. Debian's kernels no longer call through it (x64_sys_call() in
 * the text does that), tracing reads it, and rootkits go on writing to it.
 */
static int protect_rodata(unsigned long start, unsigned long end)
{
	unsigned long sys = rdt_symbol("sys_call_table");
	unsigned long sys_end;
	int err, ret;

	if (sys < start || sys >= end)
		return protect("kernel's rodata", start, end, RDT_ACT_DENY, RDT_CLS_RODATA);
	sys_end = PAGE_ALIGN(sys + NR_syscalls * sizeof(long));
	sys &= PAGE_MASK;
	ret = protect("system call table", sys, sys_end, RDT_ACT_DENY, RDT_CLS_SYSCALL);
	err = protect("kernel's rodata", start, sys, RDT_ACT_DENY, RDT_CLS_RODATA);
	ret = ret ?: err;
	err = protect("kernel's rodata", sys_end, end, RDT_ACT_DENY, RDT_CLS_RODATA);
	return ret ?: err;
}

/*
 * Protects what a stock kernel has no business writing: rodata (with __ro_after_init
 * and the exception, jump label and static call tables in it) and the IDT, and
 * records writes to the text, which the kernel patches itself.
 */
int rdt_protect_kernel(unsigned int text_action)
{
	unsigned long text = rdt_symbol("_stext"), etext = rdt_symbol("_etext");
	unsigned long ro = rdt_symbol("__start_rodata"), ero = rdt_symbol("__end_rodata");
	struct desc_ptr idt;
	int ret = 0, err;

	if (!text || !etext || !ro || !ero)
		return -ENOENT;
	ret = protect("kernel's text", text & PAGE_MASK, PAGE_ALIGN(etext), text_action,
		      RDT_CLS_TEXT);
	err = protect_rodata(ro & PAGE_MASK, PAGE_ALIGN(ero));
	ret = ret ?: err;

	/* IDTR points to a read-only alias of idt_table in the CPU entry area. */
	store_idt(&idt);
	err = protect("IDT", idt.address, idt.address + PAGE_SIZE, RDT_ACT_DENY, RDT_CLS_IDT);
	return ret ?: err;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
static void module_parts(struct module *mod, unsigned long part[4])
{
	part[0] = (unsigned long)mod->mem[MOD_TEXT].base;
	part[1] = part[0] + mod->mem[MOD_TEXT].size;
	part[2] = (unsigned long)mod->mem[MOD_RODATA].base;
	part[3] = part[2] + mod->mem[MOD_RODATA].size;
}
#else
static void module_parts(struct module *mod, unsigned long part[4])
{
	part[0] = (unsigned long)mod->core_layout.base;
	part[1] = part[0] + mod->core_layout.text_size;
	part[2] = part[1];
	part[3] = part[0] + mod->core_layout.ro_size;
}
#endif

/* Protects [start, end) but the pages [lo, hi), which the host protects as the driver's. */
static int protect_but(const char *what, unsigned long start, unsigned long end, unsigned long lo,
		       unsigned long hi, unsigned int action)
{
	int err;

	if (hi <= start || lo >= end)
		return protect(what, start, end, action, RDT_CLS_MODULE);
	err = protect(what, start, lo, action, RDT_CLS_MODULE);
	return err ?: protect(what, hi, end, action, RDT_CLS_MODULE);
}

/*
 * The rest of this module: the ordinary code around the inside. The frames that the
 * driver was registered with are protected already.
 */
int rdt_protect_module(unsigned int text_action)
{
	unsigned long part[4];
	unsigned long gate = (unsigned long)rdt_gate, call = (unsigned long)rdt_call_start;
	unsigned long first = min(gate, call);
	unsigned long last = max((unsigned long)rdt_gate_end, (unsigned long)rdt_call_end);
	int ret, err;

	module_parts(THIS_MODULE, part);
	ret = protect_but("driver's ordinary text", part[0], PAGE_ALIGN(part[1]),
			  rdt_sealed ? first : 0, rdt_sealed ? last : 0, text_action);
	err = protect_but("driver's rodata", part[2], PAGE_ALIGN(part[3]),
			  rdt_sealed ? (unsigned long)rdt_text_start : 0,
			  rdt_sealed ? (unsigned long)rdt_exit_end : 0, RDT_ACT_DENY);
	return ret ?: err;
}
