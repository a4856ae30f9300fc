// SPDX-License-Identifier: GPL-2.0
/*
 * A vCPU's registers and its view, on both vendors. The vendor's control block is
 * reached through offsets that were proved at build time (layout.list), VMCS
 * fields by VMREAD: a vCPU's VMCS is loaded while its thread runs.
 */
#include "redoubt.h"

#include "cpu.h"
#include "hook.h"

bool rdt_is_vmx __ro_after_init;

static unsigned long cr3_read(struct kvm_vcpu *vcpu)
{
	if (test_bit(VCPU_EXREG_CR3, (unsigned long *)&vcpu->arch.regs_avail))
		return vcpu->arch.cr3;
	/* With paging on it is the guest's own. */
	if (rdt_is_vmx && vcpu->arch.efer & EFER_LMA)
		vcpu->arch.cr3 = vmread(GUEST_CR3);
	else
		static_call(kvm_x86_cache_reg)(vcpu, VCPU_EXREG_CR3);
	__set_bit(VCPU_EXREG_CR3, (unsigned long *)&vcpu->arch.regs_avail);
	return vcpu->arch.cr3;
}

/* What hooks below have kept waiting: KVM is to look again. */
static void take_held(struct kvm_vcpu *vcpu)
{
	struct kvm_lapic *apic = vcpu->arch.apic;

	if (unlikely(vcpu->arch.smi_pending ||
		     (apic && READ_ONCE(rdt_member(apic, kvm_lapic, pending_events)))))
		kvm_make_request(KVM_REQ_EVENT, vcpu);
}

void rdt_cpu_set_view(struct kvm_vcpu *vcpu, u8 view)
{
	struct kvm_mmu *mmu = &vcpu->arch.root_mmu;

	mmu->root_role.word = rdt_role_word(mmu->root_role.word, view);
	kvm_mmu_new_pgd(vcpu, mmu->root.pgd);
	if (view == RDT_VIEW_ROOT)
		take_held(vcpu);
	/*
	 * EPT tags translations with the root. NPT tags them with the ASID only,
	 * which the views of a vCPU share.
	 */
	if (!rdt_is_vmx)
		kvm_make_request(KVM_REQ_TLB_FLUSH_CURRENT, vcpu);
}

/*
 * RFLAGS as the control block has them: KVM's own functions cost more, and asking
 * KVM to look for events to inject, as they do, is needed only when interrupts
 * were off and now are on. While something single-steps the vCPU they know
 * whose TF it is.
 */
static bool is_stepped(struct kvm_vcpu *vcpu)
{
	return vcpu->guest_debug || (!rdt_is_vmx && rdt_member(vcpu, vcpu_svm, nmi_singlestep));
}

static unsigned long get_rflags(struct kvm_vcpu *vcpu)
{
	if (unlikely(is_stepped(vcpu)))
		return kvm_get_rflags(vcpu);
	return rdt_is_vmx ? vmread(GUEST_RFLAGS) : vmcb_of(vcpu)->save.rflags;
}

static void set_rflags(struct kvm_vcpu *vcpu, unsigned long value)
{
	unsigned long old = get_rflags(vcpu);

	if (old == value)
		return;
	if (unlikely(is_stepped(vcpu) || (~old & value & X86_EFLAGS_IF))) {
		kvm_set_rflags(vcpu, value);
	} else if (rdt_is_vmx) {
		/* Not the copy that KVM may have. */
		__clear_bit(VCPU_EXREG_RFLAGS, (unsigned long *)&vcpu->arch.regs_avail);
		vmwrite(GUEST_RFLAGS, value);
	} else {
		vmcb_of(vcpu)->save.rflags = value;
	}
}

void rdt_cpu_load(struct kvm_vcpu *vcpu, u8 view, struct rdt_cpu *cpu)
{
	bool code64;

	cpu->gpr = vcpu->arch.regs;
	cpu->rip = reg_read(vcpu, VCPU_REGS_RIP);
	cpu->rsp = reg_read(vcpu, VCPU_REGS_RSP);
	cpu->rflags = get_rflags(vcpu);
	cpu->cr3 = cr3_read(vcpu);
	if (rdt_is_vmx) {
		cpu->idt_base = vmread(GUEST_IDTR_BASE);
		cpu->cpl = rdt_cpu_cpl(vcpu);
		code64 = vmread(GUEST_CS_AR_BYTES) & BIT(13);
	} else {
		struct vmcb_save_area *save = &vmcb_of(vcpu)->save;

		cpu->idt_base = save->idtr.base;
		cpu->cpl = rdt_cpu_cpl(vcpu);
		code64 = save->cs.attrib & SVM_SELECTOR_L_MASK;
	}
	code64 = code64 && (vcpu->arch.efer & EFER_LMA);
	/* A nested guest is not the guest, whatever mode it is in: no door is open to it. */
	if (vcpu->arch.hflags & HF_GUEST_MASK)
		code64 = false;
	cpu->va_bits = !code64 ? 0 : vcpu->arch.cr4 & X86_CR4_LA57 ? 57 : 48;
	cpu->vcpu = vcpu->vcpu_idx;
	cpu->view = view;
	cpu->dirty = 0;
}

void rdt_cpu_store(struct kvm_vcpu *vcpu, const struct rdt_cpu *cpu)
{
	if (cpu->dirty & RDT_CPU_RIP)
		reg_write(vcpu, VCPU_REGS_RIP, cpu->rip);
	if (cpu->dirty & RDT_CPU_RSP)
		reg_write(vcpu, VCPU_REGS_RSP, cpu->rsp);
	if (cpu->dirty & RDT_CPU_RFLAGS)
		set_rflags(vcpu, cpu->rflags);
	if (cpu->dirty & RDT_CPU_CR3 && vcpu->arch.cr3 != cpu->cr3) {
		vcpu->arch.cr3 = cpu->cr3;
		__set_bit(VCPU_EXREG_CR3, (unsigned long *)&vcpu->arch.regs_avail);
		/* Loaded into the guest with the root, by the request that rdt_cpu_set_view() makes. */
		__set_bit(VCPU_EXREG_CR3, (unsigned long *)&vcpu->arch.regs_dirty);
	}
	if (cpu->dirty & RDT_CPU_VIEW)
		rdt_cpu_set_view(vcpu, cpu->view);
	if (unlikely(cpu->dirty & RDT_CPU_SECRET))
		rdt_secret_cross(vcpu, cpu->view != RDT_VIEW_ROOT);
}

u8 rdt_cpu_cpl(struct kvm_vcpu *vcpu)
{
	return rdt_is_vmx ? (vmread(GUEST_SS_AR_BYTES) >> 5) & 3 : vmcb_of(vcpu)->save.cpl;
}

/* FS and GS. The CPU takes their bases as they are here, whatever is in the selectors. */
void rdt_cpu_get_bases(struct kvm_vcpu *vcpu, u64 base[2])
{
	if (rdt_is_vmx) {
		base[0] = vmread(GUEST_FS_BASE);
		base[1] = vmread(GUEST_GS_BASE);
	} else {
		base[0] = vmcb_of(vcpu)->save.fs.base;
		base[1] = vmcb_of(vcpu)->save.gs.base;
	}
}

void rdt_cpu_set_bases(struct kvm_vcpu *vcpu, const u64 base[2])
{
	if (rdt_is_vmx) {
		vmwrite(GUEST_FS_BASE, base[0]);
		vmwrite(GUEST_GS_BASE, base[1]);
		/* Not the copies that KVM may have. */
		__clear_bit(VCPU_EXREG_SEGMENTS, (unsigned long *)&vcpu->arch.regs_avail);
	} else {
		vmcb_of(vcpu)->save.fs.base = base[0];
		vmcb_of(vcpu)->save.gs.base = base[1];
	}
}

bool rdt_cpu_fault_gva(rdt_u64 *gva)
{
	if (!rdt_is_vmx || !(vmread(EXIT_QUALIFICATION) & EPT_VIOLATION_GVA_IS_VALID))
		return false;
	*gva = vmread(GUEST_LINEAR_ADDRESS);
	return true;
}

/* ---- what a VM is ----------------------------------------------------------- */

bool rdt_tdp_mmu_enabled(struct kvm *kvm)
{
#ifdef RDT_HAVE_tdp_mmu_enabled
	return *rdt_data_tdp_mmu_enabled;
#else
	return kvm->arch.tdp_mmu_enabled;
#endif
}

bool rdt_vm_is_encrypted(struct kvm *kvm)
{
#ifdef RDT_KVM_HAS_VM_TYPE
	if (kvm->arch.vm_type != KVM_X86_DEFAULT_VM)
		return true;
#endif
	/* struct kvm is the first member of struct kvm_svm. */
	return !rdt_is_vmx && rdt_member(kvm, kvm_svm, sev_info__active);
}

void rdt_cpu_clear_shadow(struct kvm_vcpu *vcpu)
{
	if (rdt_is_vmx) {
		unsigned long state = vmread(GUEST_INTERRUPTIBILITY_INFO);

		if (state & (GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS))
			vmwrite(GUEST_INTERRUPTIBILITY_INFO,
				state & ~(GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS));
		/* A single-step trap of the inside is not the stub's. */
		vmwrite(GUEST_PENDING_DBG_EXCEPTIONS, 0);
	} else {
		vmcb_of(vcpu)->control.int_state &= ~SVM_INTERRUPT_SHADOW_MASK;
	}
}

/* Every root that KVM loads while the vCPU is in a view is a root of that view. */
RDT_EDIT(kvm, kvm_mmu_load, RDT_ANY, true);

static void hook_kvm_mmu_load(struct pt_regs *args)
{
	struct kvm_vcpu *vcpu = (struct kvm_vcpu *)args->di;
	struct kvm_mmu *mmu = &vcpu->arch.root_mmu;
	struct rdt_vm *vm = rdt_vm_find(vcpu->kvm);
	struct rdt_vcpu *rv;

	if (!vm || vcpu->arch.mmu != mmu)
		return;
	rv = rdt_vcpu_peek(vm, vcpu);
	mmu->root_role.word = rdt_role_word(mmu->root_role.word,
					    rv ? rdt_core_vcpu_view(rv->core) : RDT_VIEW_ROOT);
}

/*
 * SMI and INIT take no gate of an IDT, so no asynchronous exit comes before them: SMM's
 * save area in guest memory would get the registers of the inside, and its handler could
 * send them elsewhere. Both wait until the vCPU is outside, as they do for SMM, VMX
 * operation and GIF=0; take_held() has KVM look again then.
 */
static bool inside(struct kvm_vcpu *vcpu)
{
	struct rdt_vcpu *rv;
	struct rdt_vm *vm;
	bool is;

	/* A vCPU that is blocked is not in kvm->srcu: see rdt_vm_detach(). */
	rcu_read_lock();
	vm = rdt_vm_find(vcpu->kvm);
	rv = vm ? rdt_vcpu_peek(vm, vcpu) : NULL;
	is = rv && rdt_core_vcpu_view(rv->core) != RDT_VIEW_ROOT;
	rcu_read_unlock();
	return is;
}

#define RDT_HOLDS(_vendor, _mod, _V)							\
	/* Not in the self-test: its guest is sent neither. */				\
	RDT_REPLACE(_mod, _vendor##_smi_allowed, _V, false);				\
	static int hook_##_vendor##_smi_allowed(struct kvm_vcpu *vcpu, bool for_injection)	\
	{										\
		int r = 0;								\
											\
		rdt_hook_enter(&rdt_hook_##_vendor##_smi_allowed);			\
		if (!inside(vcpu))							\
			r = rdt_orig(_vendor##_smi_allowed)(vcpu, for_injection);	\
		rdt_hook_leave();							\
		return r;								\
	}										\
	RDT_REPLACE(_mod, _vendor##_apic_init_signal_blocked, _V, false);		\
	static bool hook_##_vendor##_apic_init_signal_blocked(struct kvm_vcpu *vcpu)	\
	{										\
		bool r = true;								\
											\
		rdt_hook_enter(&rdt_hook_##_vendor##_apic_init_signal_blocked);		\
		if (!inside(vcpu))							\
			r = rdt_orig(_vendor##_apic_init_signal_blocked)(vcpu);		\
		rdt_hook_leave();							\
		return r;								\
	}

RDT_HOLDS(svm, kvm_amd, RDT_SVM)
RDT_HOLDS(vmx, kvm_intel, RDT_VMX)
