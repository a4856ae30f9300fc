/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A vCPU's registers and its control block; views.
 *
 * A view is a number in bits 19..23 of kvm_mmu_page_role.word, which neither 6.1 nor
 * 6.12 uses: roots that differ in it are different roots to the TDP MMU, and
 * child pages inherit it.
 */
#ifndef RDT_KVM_CPU_H
#define RDT_KVM_CPU_H

#include <linux/kvm_host.h>

#include <asm/svm.h>
#include <asm/vmx.h>

#include "hook.h"

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

static inline unsigned long vmread(unsigned long field)
{
	unsigned long value = 0;

	asm volatile("vmread %1, %0" : "=rm"(value) : "r"(field) : "cc");
	return value;
}

static inline void vmwrite(unsigned long field, unsigned long value)
{
	asm volatile("vmwrite %1, %0" : : "r"(field), "rm"(value) : "cc");
}

static inline struct vmcb *vmcb_of(struct kvm_vcpu *vcpu)
{
	/* struct kvm_vcpu is the first member of struct vcpu_svm. */
	return rdt_member(vcpu, vcpu_svm, vmcb);
}

/*
 * What KVM's own kvm_cache_regs.h does; it is not among the public headers. Only
 * VMX has registers that are not there after an exit: RIP and RSP.
 */
static inline unsigned long reg_read(struct kvm_vcpu *vcpu, enum kvm_reg reg)
{
	if (!test_bit(reg, (unsigned long *)&vcpu->arch.regs_avail)) {
		vcpu->arch.regs[reg] = vmread(reg == VCPU_REGS_RIP ? GUEST_RIP : GUEST_RSP);
		__set_bit(reg, (unsigned long *)&vcpu->arch.regs_avail);
	}
	return vcpu->arch.regs[reg];
}

static inline void reg_write(struct kvm_vcpu *vcpu, enum kvm_reg reg, unsigned long value)
{
	vcpu->arch.regs[reg] = value;
	__set_bit(reg, (unsigned long *)&vcpu->arch.regs_avail);
	__set_bit(reg, (unsigned long *)&vcpu->arch.regs_dirty);
}

u8 rdt_cpu_cpl(struct kvm_vcpu *vcpu);
void rdt_cpu_get_bases(struct kvm_vcpu *vcpu, u64 base[2]);
void rdt_cpu_set_bases(struct kvm_vcpu *vcpu, const u64 base[2]);

/* From the next entry on the vCPU is in a view. */
void rdt_cpu_set_view(struct kvm_vcpu *vcpu, u8 view);

/* The vCPU stands somewhere else now: nothing that blocked events there holds. */
void rdt_cpu_clear_shadow(struct kvm_vcpu *vcpu);

#endif
