// SPDX-License-Identifier: GPL-2.0
/*
 * A plain store to a logged frame, carried out here: the short way, which nearly all
 * of them go. Anything out of the ordinary is refused, and stepped.
 *
 * That the guest may store there, the CPU has found out: the fault is the last thing
 * it meets. What is left to make sure of is that the instruction read now is the
 * one that faulted, as far as that matters (it stores to the very address), that the
 * page table says dirty already, and that the rule is still the one decided by.
 *
 * Reading the instruction serves doorbell.c as well.
 */
#include "step.h"

#include <linux/uaccess.h>

#include "cpu.h"

#define PTE_P	BIT_ULL(0)
#define PTE_A	BIT_ULL(5)
#define PTE_D	BIT_ULL(6)
#define PTE_PS	BIT_ULL(7)
#define PTE_PFN	GENMASK_ULL(51, 12)

/* What is not there now is left to the slow ways. */
static bool peek(struct kvm_vcpu *vcpu, gpa_t gpa, void *to, int len)
{
	return rdt_peek(kvm_vcpu_gfn_to_hva(vcpu, gpa_to_gfn(gpa)) + offset_in_page(gpa), to, len);
}

/*
 * The guest's page tables in 64-bit mode, for an address that the CPU has just
 * translated: no rights are looked at. False: it needs @want and has not all of it.
 */
static bool translate(struct kvm_vcpu *vcpu, const struct rdt_cpu *cpu, u64 addr, u64 want,
		      gpa_t *gpa)
{
	gpa_t table = cpu->cr3 & PTE_PFN;
	int shift = cpu->va_bits - 9;
	u64 entry, offset;

	/* Not canonical: the CPU would not have come as far as this. */
	if ((s64)(addr << (64 - cpu->va_bits)) >> (64 - cpu->va_bits) != (s64)addr)
		return false;
	for (;; shift -= 9) {
		if (!peek(vcpu, table + (addr >> shift & 511) * 8, &entry, sizeof(entry)) ||
		    !(entry & PTE_P) || !(entry & PTE_A))
			return false;
		if (shift == 12 || (entry & PTE_PS && shift <= 30))
			break;
		table = entry & PTE_PFN;
	}
	if ((entry & want) != want)
		return false;
	offset = addr & (BIT_ULL(shift) - 1);
	*gpa = (entry & PTE_PFN & ~(BIT_ULL(shift) - 1)) | offset;
	return true;
}

static int fetch(struct kvm_vcpu *vcpu, const struct rdt_cpu *cpu, u8 *insn, int len)
{
	int n = min_t(int, len, PAGE_SIZE - offset_in_page(cpu->rip));
	gpa_t gpa;

	/* One that goes on in the next page is rare enough. */
	return translate(vcpu, cpu, cpu->rip, 0, &gpa) && peek(vcpu, gpa, insn, n) ? n : 0;
}

static u64 segment_base(struct kvm_vcpu *vcpu, u8 seg)
{
	if (rdt_is_vmx)
		return vmread(seg == RDT_SEG_FS ? GUEST_FS_BASE : GUEST_GS_BASE);
	return seg == RDT_SEG_FS ? vmcb_of(vcpu)->save.fs.base : vmcb_of(vcpu)->save.gs.base;
}

#define RDT_SWAP(type)							\
	({								\
		type __user *p = (type __user *)hva;			\
		type was, is = value;					\
		int fault = __get_user(was, p) || __put_user(is, p);	\
		*old = was;						\
		fault;							\
	})

/* One store of the CPU's, so that nobody sees half of it. */
static int put(unsigned long hva, u8 size, u64 value, u64 *old)
{
	switch (size) {
	case 1:
		return RDT_SWAP(u8);
	case 2:
		return RDT_SWAP(u16);
	case 4:
		return RDT_SWAP(u32);
	default:
		return RDT_SWAP(u64);
	}
}

bool rdt_decode(struct kvm_vcpu *vcpu, const struct rdt_cpu *cpu, const u8 *insn, int insn_len,
		struct rdt_store *store)
{
	u8 bytes[15];

	/* Single steps and breakpoints have their say after an instruction. */
	if (vcpu->guest_debug || vcpu->arch.dr7 & 0xff || cpu->rflags & X86_EFLAGS_TF ||
	    vcpu->arch.hflags & HF_GUEST_MASK)
		return false;
	/* Page tables of another kind are not what translate() knows: it might not come to an end. */
	if (!cpu->va_bits)
		return false;
	if (!insn || !insn_len) {
		insn = bytes;
		insn_len = fetch(vcpu, cpu, bytes, sizeof(bytes));
	}
	if (!rdt_core_decode_store(insn, insn_len, cpu, store))
		return false;
	if (store->seg)
		store->address += segment_base(vcpu, store->seg);
	return offset_in_page(store->address) + store->size <= PAGE_SIZE;
}

int rdt_store(struct rdt_vm *vm, struct rdt_vcpu *rv, const struct rdt_fault *f, u32 seq,
	      struct rdt_cpu *cpu, const u8 *insn, int insn_len)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	struct rdt_fault written = *f;
	struct rdt_store store;
	unsigned long hva;
	u64 old = 0;
	gpa_t gpa;
	int r;

	/* KVM would not see a nested guest's page table change. */
	if (READ_ONCE(vcpu->kvm->arch.indirect_shadow_pages))
		return 0;
	if (!rdt_decode(vcpu, cpu, insn, insn_len, &store) ||
	    !translate(vcpu, cpu, store.address, PTE_D, &gpa) || gpa != f->gpa)
		return 0;
	hva = kvm_vcpu_gfn_to_hva(vcpu, gpa_to_gfn(gpa));
	if (kvm_is_error_hva(hva))
		return 0;

	/* A step under way compares memory: it must find only what it wrote itself. */
	if (!rdt_step_claim(vm, rv))
		return 0;
	/* A rule that forbids it comes before this, and is seen; or its zap waits for us. */
	read_lock(&vcpu->kvm->mmu_lock);
	r = -EAGAIN;
	if (rdt_core_policy_seq(vm->core) == seq) {
		pagefault_disable();
		r = put(hva + offset_in_page(gpa), store.size, store.value, &old) ? -EFAULT : 1;
		pagefault_enable();
	}
	read_unlock(&vcpu->kvm->mmu_lock);
	rdt_step_unclaim(vm);
	if (r < 0)
		return r == -EAGAIN;
	kvm_vcpu_mark_page_dirty(vcpu, gpa_to_gfn(gpa));

	written.gva = store.address;
	written.gva_valid = true;
	written.size = store.size;
	written.old_val = &old;
	written.new_val = &store.value;
	rdt_core_stored(vm->core, rv->core, &written, cpu);
	cpu->rip += store.len;
	cpu->rflags &= ~(unsigned long)X86_EFLAGS_RF;
	cpu->dirty = RDT_CPU_RIP | RDT_CPU_RFLAGS;
	rdt_cpu_store(vcpu, cpu);
	rdt_cpu_clear_shadow(vcpu);
	return 1;
}
