// SPDX-License-Identifier: GPL-2.0
/* The guest's hypercalls; uapi/linux/redoubt_guest.h. */
#include "redoubt.h"

#include <linux/kvm_para.h>

#include "hook.h"

static s64 self_attach(struct kvm_vcpu *vcpu, struct rdt_vm *vm)
{
	int r;

	if (vm)
		return -EEXIST;
	if (!(READ_ONCE(rdt_policy) & RDT_POLICY_SELF_ATTACH))
		return -KVM_EPERM;
	r = rdt_vm_attach(vcpu->kvm, true, &vm);
	if (!r)
		rdt_vm_put(vm);
	return r;
}

static s64 status(struct rdt_vm *vm)
{
	return (rdt_is_vmx ? RDT_ST_EPT : 0) |
	       (READ_ONCE(rdt_policy) & RDT_POLICY_SELF_ATTACH ? RDT_ST_SELF_ATTACH : 0) |
	       (vm ? RDT_ST_ATTACHED | rdt_core_status(vm->core) : 0);
}

/* Those that a VM need not be attached for. */
static s64 general(struct kvm_vcpu *vcpu, struct rdt_vm *vm, u32 nr, const rdt_u64 arg[4],
		   const struct rdt_cpu *cpu)
{
	if (cpu->cpl || !cpu->va_bits)
		return -KVM_EPERM;
	if (nr <= RDT_HC_ATTACH && (arg[0] || arg[1] || arg[2] || arg[3]))
		return -KVM_EINVAL;
	switch (nr) {
	case RDT_HC_VERSION:
		return RDT_ABI_VERSION;
	case RDT_HC_STATUS:
		return status(vm);
	case RDT_HC_ATTACH:
		return self_attach(vcpu, vm);
	}
	return -KVM_EPERM;
}

static int ours(struct kvm_vcpu *vcpu, u32 nr)
{
	unsigned long *regs = vcpu->arch.regs;
	const rdt_u64 arg[4] = { regs[VCPU_REGS_RBX], regs[VCPU_REGS_RCX], regs[VCPU_REGS_RDX],
				 regs[VCPU_REGS_RSI] };
	struct rdt_vm *vm = rdt_vm_find(vcpu->kvm);
	struct rdt_vcpu *rv = vm ? rdt_vcpu_get(vm, vcpu) : NULL;
	rdt_s64 result = -KVM_EPERM;
	struct rdt_cpu cpu;

	rdt_cpu_load(vcpu, rv ? rdt_core_vcpu_view(rv->core) : RDT_VIEW_ROOT, &cpu);
	if (vm && !rv) {
		result = -ENOMEM;
	} else if (!vm || (nr <= RDT_HC_ATTACH && !rdt_is_domain(cpu.view))) {
		result = general(vcpu, vm, nr, arg, &cpu);
	} else if (vcpu->arch.mmu == &vcpu->arch.root_mmu) {
		enum rdt_hc_end end = rdt_core_hypercall(vm->core, rv->core, nr, arg, &cpu, &result);

		if (nr == RDT_HC_DOM_DESTROY && result == -EAGAIN)
			rdt_domain_kick(vm->kvm);
		if (end == RDT_HC_END_SWITCHED) {
			rdt_cpu_store(vcpu, &cpu);
			return 1;
		}
	}
	regs[VCPU_REGS_RAX] = result;
	return kvm_skip_emulated_instruction(vcpu);
}

RDT_REPLACE(kvm, kvm_emulate_hypercall, RDT_ANY, true);

static noinline int our_hypercall(struct kvm_vcpu *vcpu, u32 nr)
{
	int r;

	rdt_hook_enter(&rdt_hook_kvm_emulate_hypercall);
	r = ours(vcpu, nr);
	rdt_hook_leave();
	return r;
}

static int hook_kvm_emulate_hypercall(struct kvm_vcpu *vcpu)
{
	unsigned long nr = vcpu->arch.regs[VCPU_REGS_RAX];

	rdt_hook_fired(&rdt_hook_kvm_emulate_hypercall);
	if (nr >= RDT_HC_BASE && nr <= RDT_HC_LAST)
		return our_hypercall(vcpu, nr);
	return rdt_orig(kvm_emulate_hypercall)(vcpu);
}
