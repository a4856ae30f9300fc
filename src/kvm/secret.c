// SPDX-License-Identifier: GPL-2.0
/*
 * Events while a vCPU is in a secret: Documentation/domains.md. Its caller's page tables say
 * what the IDT is, and another vCPU can change them at any time: an event could be sent into
 * the middle of the secret's code. So there is no IDT in there: its limit is zero, each delivery
 * ends in #GP before memory is touched, and #GP comes to us with the event that it
 * struck. That holds for what KVM injects, what the CPU raises and what a device posts.
 *
 * Should KVM drop the intercept meanwhile, the guest ends by a triple fault.
 */
#include "redoubt.h"

#include "cpu.h"
#include "hook.h"

/* Clean bits of KVM's svm.h, not public. */
#define CLEAN_INTERCEPTS	BIT(0)
#define CLEAN_DT		BIT(7)

static u32 set_idt_limit(struct kvm_vcpu *vcpu, u32 limit)
{
	struct vmcb *vmcb;
	u32 old;

	if (rdt_is_vmx) {
		old = vmread(GUEST_IDTR_LIMIT);
		vmwrite(GUEST_IDTR_LIMIT, limit);
		return old;
	}
	vmcb = vmcb_of(vcpu);
	old = vmcb->save.idtr.limit;
	vmcb->save.idtr.limit = limit;
	vmcb->control.clean &= ~CLEAN_DT;
	return old;
}

static bool set_gp_exits(struct kvm_vcpu *vcpu, bool on)
{
	unsigned long old;
	struct vmcb *vmcb;
	u32 *word;

	if (rdt_is_vmx) {
		old = vmread(EXCEPTION_BITMAP);
		vmwrite(EXCEPTION_BITMAP, on ? old | BIT(GP_VECTOR) : old & ~BIT(GP_VECTOR));
		return old & BIT(GP_VECTOR);
	}
	vmcb = vmcb_of(vcpu);
	word = &vmcb->control.intercepts[INTERCEPT_EXCEPTION];
	old = *word;
	*word = on ? old | BIT(GP_VECTOR) : old & ~BIT(GP_VECTOR);
	vmcb->control.clean &= ~CLEAN_INTERCEPTS;
	return old & BIT(GP_VECTOR);
}

void rdt_secret_cross(struct kvm_vcpu *vcpu, bool in)
{
	struct rdt_vm *vm = rdt_vm_find(vcpu->kvm);
	struct rdt_vcpu *rv = vm ? rdt_vcpu_peek(vm, vcpu) : NULL;

	/* From one view of a secret to its other: nothing changes. */
	if (WARN_ON_ONCE(!rv) || rv->no_idt == in)
		return;
	rv->no_idt = in;
	if (in) {
		rv->idt_limit = set_idt_limit(vcpu, 0);
		rv->gp_exits = set_gp_exits(vcpu, true);
	} else {
		set_idt_limit(vcpu, rv->idt_limit);
		set_gp_exits(vcpu, rv->gp_exits);
	}
}

/* A #GP in a secret: the delivery of an event has failed, or the inside is at fault. */
static int gp_inside(struct rdt_vm *vm, struct rdt_vcpu *rv, u32 error)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	bool event = rdt_delivers_event(vcpu);
	struct rdt_cpu cpu;
	u8 soft_len;

	rdt_cpu_load(vcpu, rdt_core_vcpu_view(rv->core), &cpu);
	soft_len = event ? rdt_soft_event_len(vm, rv, cpu.rip) : 0;
	if (!rdt_core_aexit(vm->core, rv->core, &cpu, soft_len))
		return rdt_freeze(vcpu);
	rdt_event_to_stub(vcpu, &cpu, soft_len);
	if (!event)
		kvm_queue_exception_e(vcpu, GP_VECTOR, error);
	return 1;
}

static struct rdt_vcpu *without_idt(struct kvm_vcpu *vcpu, struct rdt_vm **vm)
{
	struct rdt_vcpu *rv;

	*vm = rdt_vm_find(vcpu->kvm);
	rv = *vm ? rdt_vcpu_peek(*vm, vcpu) : NULL;
	return rv && rv->no_idt ? rv : NULL;
}

/* Not in the self-test: without a secret KVM takes no #GP. */
RDT_REPLACE(kvm_amd, gp_interception, RDT_SVM, false);

static int hook_gp_interception(struct kvm_vcpu *vcpu)
{
	struct rdt_vcpu *rv;
	struct rdt_vm *vm;
	int r;

	rdt_hook_enter(&rdt_hook_gp_interception);
	rv = without_idt(vcpu, &vm);
	r = rv ? gp_inside(vm, rv, vmcb_of(vcpu)->control.exit_info_1)
	       : rdt_orig(gp_interception)(vcpu);
	rdt_hook_leave();
	return r;
}

RDT_REPLACE(kvm_intel, handle_exception_nmi, RDT_VMX, false);

static int hook_handle_exception_nmi(struct kvm_vcpu *vcpu)
{
	struct rdt_vcpu *rv;
	struct rdt_vm *vm;
	u32 info;
	int r;

	rdt_hook_enter(&rdt_hook_handle_exception_nmi);
	rv = without_idt(vcpu, &vm);
	info = rv ? vmread(VM_EXIT_INTR_INFO) : 0;
	if ((info & (INTR_INFO_VALID_MASK | INTR_INFO_INTR_TYPE_MASK | INTR_INFO_VECTOR_MASK)) ==
	    (INTR_INFO_VALID_MASK | INTR_TYPE_HARD_EXCEPTION | GP_VECTOR))
		r = gp_inside(vm, rv, vmread(VM_EXIT_INTR_ERROR_CODE));
	else
		r = rdt_orig(handle_exception_nmi)(vcpu);
	rdt_hook_leave();
	return r;
}
