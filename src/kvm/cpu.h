/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A view is a number in bits 19..23 of kvm_mmu_page_role.word, which neither 6.1 nor
 * 6.12 uses: roots that differ in it are different roots to the TDP MMU, and
 * child pages inherit it.
 */
#ifndef RDT_KVM_CPU_H
#define RDT_KVM_CPU_H

#include <linux/kvm_host.h>

#define RDT_ROLE_SHIFT	19
#define RDT_ROLE_MASK	(31u << RDT_ROLE_SHIFT)

static inline u32 rdt_role_word(u32 word, u8 view)
{
	return (word & ~RDT_ROLE_MASK) | (u32)view << RDT_ROLE_SHIFT;
}

static inline u8 rdt_role_view(union kvm_mmu_page_role role)
{
	return (role.word & RDT_ROLE_MASK) >> RDT_ROLE_SHIFT;
}

/* The vCPU stands somewhere else now: nothing that blocked events there holds. */
void rdt_cpu_clear_shadow(struct kvm_vcpu *vcpu);

#endif
