/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One table of hooks into KVM's functions (hooks.c). Two kinds:
 *
 * RDT_REPLACE(name): KVM's callers reach hook_<name>() in place of <name>(). ftrace
 *   calls a trampoline of ours directly (no registers saved, which would cost
 *   some hundred instructions an exit); it drops its return address and jumps
 *   to the hook with <name>()'s arguments and caller in place. The original is
 *   called with rdt_orig(name)(...): a static call behind ftrace's own call
 *   instruction, so it cannot recurse, costs no indirect branch and works where
 *   IBT has sealed the function.
 * RDT_EDIT(name): hook_<name>() sees the arguments before <name>() runs and may change
 *   them. Leaves room for a livepatch of the same function.
 *
 * Each hook runs between rdt_hook_enter() and rdt_hook_leave(), which is what
 * unloading waits for; one that only jumps to the original needs neither.
 */
#ifndef RDT_KVM_HOOK_H
#define RDT_KVM_HOOK_H

#include <linux/ftrace.h>
#include <linux/percpu.h>
#include <linux/static_call.h>

#include <asm/ibt.h>
#include <asm/unwind_hints.h>

#include <generated/kvm_layout.h>

#include "compat.h"

enum rdt_vendor { RDT_ANY, RDT_VMX, RDT_SVM };

struct rdt_hook {
	const char *module;	/* as kallsyms spells it */
	const char *name;
	enum rdt_vendor vendor;
	bool selftest;		/* must have fired in the self-test */
	u8 fentry;		/* offset of ftrace's call in the function */
	bool fired;		/* racy on purpose: it only ever becomes true */
	bool installed;
	ftrace_func_t func;		/* RDT_EDIT */
	void (*direct)(void);		/* RDT_REPLACE: the trampoline */
	struct static_call_key *key;	/* RDT_REPLACE: the original */
	void *tramp;
	unsigned long addr;
	struct ftrace_ops ops;
};

/* A function of KVM that is only called. */
struct rdt_import {
	const char *module;
	const char *name;
	enum rdt_vendor vendor;
	struct static_call_key *key;
	void *tramp;
};

DECLARE_PER_CPU(long, rdt_inside);

static __always_inline void rdt_hook_fired(struct rdt_hook *h)
{
	if (unlikely(!READ_ONCE(h->fired)))
		WRITE_ONCE(h->fired, true);
}

static __always_inline void rdt_hook_enter(struct rdt_hook *h)
{
	this_cpu_inc(rdt_inside);
	rdt_hook_fired(h);
}

static __always_inline void rdt_hook_leave(void)
{
	this_cpu_dec(rdt_inside);
}

/* In the file that implements it. */
#define RDT_REPLACE(_mod, _name, _vendor, _selftest)					\
	DEFINE_STATIC_CALL_NULL(rdt_orig_##_name, rdt_##_name##_fn);			\
	static __used rdt_##_name##_fn hook_##_name;					\
	extern void rdt_direct_##_name(void);						\
	asm(".pushsection .text, \"ax\"\n"						\
	    ".p2align 4\n"								\
	    ".type rdt_direct_" #_name ", @function\n"					\
	    "rdt_direct_" #_name ":\n\t"						\
	    ASM_ENDBR									\
	    "addq $8, %rsp\n\t"								\
	    UNWIND_HINT_FUNC								\
	    "jmp hook_" #_name "\n"							\
	    ".size rdt_direct_" #_name ", .-rdt_direct_" #_name "\n"			\
	    ".popsection");								\
	struct rdt_hook rdt_hook_##_name = {						\
		.module = #_mod, .name = #_name, .vendor = _vendor,			\
		.selftest = _selftest, .fentry = RDT_FENTRY_##_name,			\
		.direct = rdt_direct_##_name, .key = &STATIC_CALL_KEY(rdt_orig_##_name),\
		.tramp = STATIC_CALL_TRAMP_ADDR(rdt_orig_##_name),			\
	}

#define RDT_EDIT(_mod, _name, _vendor, _selftest)					\
	static void hook_##_name(struct pt_regs *args);					\
	static void notrace rdt_cb_##_name(unsigned long ip, unsigned long parent,	\
					   struct ftrace_ops *op,			\
					   struct ftrace_regs *fregs)			\
	{										\
		rdt_hook_enter(&rdt_hook_##_name);					\
		hook_##_name(rdt_args(fregs));						\
		rdt_hook_leave();							\
	}										\
	struct rdt_hook rdt_hook_##_name = {						\
		.module = #_mod, .name = #_name, .vendor = _vendor,			\
		.selftest = _selftest, .fentry = RDT_FENTRY_##_name,			\
		.func = rdt_cb_##_name,							\
	}

#define rdt_orig(_name)	static_call(rdt_orig_##_name)

#define RDT_IMPORT(_mod, _name, _vendor)						\
	DEFINE_STATIC_CALL_NULL(rdt_import_##_name, rdt_##_name##_fn);			\
	struct rdt_import rdt_import_desc_##_name = {					\
		.module = #_mod, .name = #_name, .vendor = _vendor,			\
		.key = &STATIC_CALL_KEY(rdt_import_##_name),				\
		.tramp = STATIC_CALL_TRAMP_ADDR(rdt_import_##_name),			\
	}
#define rdt_call(_name)	static_call(rdt_import_##_name)

/* The table: every hook, with the reason. Each is defined in the file named. */
extern struct rdt_hook
	rdt_hook_kvm_mmu_page_fault,	   /* fault.c: the accesses that a view refuses */
	rdt_hook_x86_emulate_instruction,  /* fault.c: nothing of a domain's is emulated */
	rdt_hook_make_spte,		   /* fault.c: what a view grants */
	rdt_hook_kvm_mmu_hugepage_adjust,  /* fault.c: no huge page over a restricted frame */
	rdt_hook_make_huge_page_split_spte,/* fault.c: a split must not give X back */
	rdt_hook_kvm_mmu_load,		   /* cpu.c: a new root is one of the vCPU's view */
	rdt_hook_svm_smi_allowed,	   /* cpu.c: no SMI takes the registers of the inside along */
	rdt_hook_vmx_smi_allowed,	   /* cpu.c */
	rdt_hook_svm_apic_init_signal_blocked, /* cpu.c: nor starts INIT anew in there */
	rdt_hook_vmx_apic_init_signal_blocked, /* cpu.c */
	rdt_hook_kvm_emulate_hypercall,	   /* hypercall.c */
	rdt_hook_gp_interception,	   /* secret.c: no event is delivered in there */
	rdt_hook_handle_exception_nmi,	   /* secret.c */
	rdt_hook_svm_handle_exit,	   /* step.c: every exit of a vCPU that steps */
	rdt_hook_vmx_handle_exit,	   /* step.c */
	rdt_hook_kvm_arch_vcpu_put,	   /* step.c: it does not go on stepping elsewhere */
	rdt_hook_kvm_mmu_free_obsolete_roots, /* step.c: the way back from there */
	rdt_hook_fpu_swap_kvm_fpstate,	   /* domain.c: no VMM sees a vCPU inside */
	rdt_hook_write_emulate,		   /* write.c: KVM's emulator stores */
	rdt_hook_emulator_cmpxchg_emulated,/* write.c: and its atomics */
	rdt_hook___kvm_write_guest_page,   /* write.c: everything else that KVM copies in */
	rdt_hook_kvm_gfn_to_hva_cache_init,/* write.c: steal time, async PF, PV EOI */
	rdt_hook_kvm_gpc_activate,	   /* write.c: kvmclock */
	rdt_hook_kvm_vcpu_gfn_to_hva_prot, /* write.c: KVM's walker sets A and D bits (6.1) */
	rdt_hook_gfn_to_hva_memslot_prot,  /* write.c: likewise (6.12) */
	rdt_hook_kvm_vcpu_map,		   /* nested.c: VMCBs and the like, mapped by KVM */
	rdt_hook_kvm_vcpu_unmap,	   /* nested.c */
	rdt_hook_kvm_arch_commit_memory_region, /* vm.c: memslot changes */
	rdt_hook_kvm_arch_destroy_vm;	   /* vm.c: the VM ends */

#define RDT_IMPORT_EXTERN(_name) extern struct rdt_import rdt_import_desc_##_name;
RDT_CALLS(RDT_IMPORT_EXTERN)


#ifdef RDT_HAVE_tdp_mmu_enabled
extern bool *rdt_data_tdp_mmu_enabled;
#endif

/* The name of a hook that the self-test had to reach and did not, or NULL. */
const char *rdt_hooks_silent(void);

#endif
