/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels we build for, in the public headers.
 * (KVM's private parts: layout.list.)
 */
#ifndef RDT_KVM_COMPAT_H
#define RDT_KVM_COMPAT_H

#include <linux/ftrace.h>
#include <linux/mm.h>
#include <linux/version.h>

/* 6.3 locks the VMA behind vm_flags_clear(); before, the flags are plain. */
static inline void rdt_vma_clear_flags(struct vm_area_struct *vma, vm_flags_t flags)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_clear(vma, flags);
#else
	vma->vm_flags &= ~flags;
#endif
}

/* 6.4: a gfn-to-pfn cache knows its VM. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define RDT_GPC_HAS_KVM
#endif

/* 6.8: VMs have a type. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#define RDT_KVM_HAS_VM_TYPE
#endif

/* 6.4 renames what calls a function straight from another's entry. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define rdt_register_direct(ops, addr)		register_ftrace_direct(ops, addr)
#define rdt_unregister_direct(ops, addr)	unregister_ftrace_direct(ops, addr, false)
#else
#define rdt_register_direct(ops, addr)		register_ftrace_direct_multi(ops, addr)
#define rdt_unregister_direct(ops, addr)	unregister_ftrace_direct_multi(ops, addr)
#endif

/* 6.12 hides the registers in struct ftrace_regs. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define rdt_args(fregs)		(&arch_ftrace_regs(fregs)->regs)
#else
#define rdt_args(fregs)		(&(fregs)->regs)
#endif

#endif
