/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels we build for, in the public headers.
 * (KVM's private parts: layout.list.)
 */
#ifndef RDT_KVM_COMPAT_H
#define RDT_KVM_COMPAT_H

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

#endif
