// SPDX-License-Identifier: GPL-2.0
/* Protection domains, the host's part: Documentation/domains.md. */
#include "redoubt.h"

#include <linux/capability.h>
#include <linux/uaccess.h>

#include "cpu.h"

/* ---- who is inside of one that is to go ------------------------------------------ */

void rdt_domain_kick(struct kvm *kvm)
{
	/* Out of the guest, and by rdt_domain_evict() before they go in again. */
	kvm_make_all_cpus_request(kvm, KVM_REQ_MMU_FREE_OBSOLETE_ROOTS);
}

/*
 * The vCPU, if it is inside of one, and its VM. By the core, not by root_role: after a write to CR0 or
 * CR4 that has no view until kvm_mmu_load().
 */
static struct rdt_vcpu *in_domain(struct kvm_vcpu *vcpu, struct rdt_vm **vm)
{
	struct rdt_vcpu *rv;

	*vm = rdt_vm_find(vcpu->kvm);
	rv = *vm ? rdt_vcpu_peek(*vm, vcpu) : NULL;
	return rv && rdt_is_domain(rdt_core_vcpu_view(rv->core)) ? rv : NULL;
}

void rdt_domain_evict(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_arch *a = &vcpu->arch;
	struct rdt_vm *vm;
	struct rdt_vcpu *rv = in_domain(vcpu, &vm);
	struct rdt_cpu cpu;

	/* An event on its way in takes the vCPU out by itself; a nested guest is not inside. */
	if (!rv || a->mmu != &a->root_mmu || a->exception.injected || a->interrupt.injected ||
	    a->nmi_injected)
		return;
	rdt_cpu_load(vcpu, rdt_core_vcpu_view(rv->core), &cpu);
	if (!rdt_core_evict(vm->core, rv->core, &cpu))
		return;
	rdt_cpu_store(vcpu, &cpu);
	rdt_cpu_clear_shadow(vcpu);
}

bool rdt_domain_cut_short(struct kvm_vcpu *vcpu, bool ud)
{
	struct rdt_vm *vm;
	struct rdt_vcpu *rv = in_domain(vcpu, &vm);
	struct rdt_cpu cpu;

	if (!rv || vcpu->arch.mmu != &vcpu->arch.root_mmu)
		return false;
	if (ud) {
		kvm_queue_exception(vcpu, UD_VECTOR);
		return true;
	}
	rdt_cpu_load(vcpu, rdt_core_vcpu_view(rv->core), &cpu);
	if (!rdt_core_put(vm->core, rv->core, 0, true, &cpu))
		return false;
	rdt_cpu_store(vcpu, &cpu);
	rdt_cpu_clear_shadow(vcpu);
	return true;
}

/*
 * KVM_RUN is about to return: what it and KVM_GET_REGS show then must not be the registers of
 * the inside. So the thread is interrupted, by nothing, and goes on at its resume stub. KVM puts
 * the guest's vector registers away at that time, before it copies any register for the VMM;
 * no function of its own that could be hooked is called there.
 */
#define RDT_FENTRY_fpu_swap_kvm_fpstate 0 /* ftrace finds its call itself */
RDT_EDIT(vmlinux, fpu_swap_kvm_fpstate, RDT_ANY, true);

static void hook_fpu_swap_kvm_fpstate(struct pt_regs *args)
{
	struct kvm_vcpu *vcpu = container_of((struct fpu_guest *)args->di, struct kvm_vcpu,
					     arch.guest_fpu);
	const bool enter = args->si;
	struct rdt_vcpu *rv;
	struct rdt_cpu cpu;
	struct rdt_vm *vm;
	u8 soft_len;
	bool io;
	int idx;

	if (enter || !READ_ONCE(rdt_attached))
		return;
	idx = srcu_read_lock(&vcpu->kvm->srcu);
	rv = in_domain(vcpu, &vm);
	if (likely(!rv))
		goto out;
	rdt_cpu_load(vcpu, rdt_core_vcpu_view(rv->core), &cpu);
	/* An IN or the like that the VMM is to finish: it would go on in the stub's registers. */
	io = vcpu->arch.complete_userspace_io;
	soft_len = rdt_soft_event_len(vm, rv, cpu.rip);
	if (!rdt_core_put(vm->core, rv->core, soft_len, io, &cpu))
		goto out;
	if (io) {
		vcpu->arch.complete_userspace_io = NULL;
		vcpu->arch.pio.count = 0;
		vcpu->mmio_needed = 0;
	}
	rdt_event_to_stub(vcpu, &cpu, soft_len);
out:
	srcu_read_unlock(&vcpu->kvm->srcu, idx);
}

/* ---- the operator ------------------------------------------------------------------ */

long rdt_domain_ioctl(struct rdt_vm *vm, unsigned int cmd, void __user *arg)
{
	struct rdt_domain_quota quota;
	struct rdt_domain_info info;
	struct rdt_install in;
	struct rdt_fixup *fixups;
	void *value;
	long ret;
	u64 id;

	switch (cmd) {
	case RDT_VM_DOM_QUOTA:
		if (!capable(CAP_SYS_ADMIN))
			return -EPERM;
		if (copy_from_user(&quota, arg, sizeof(quota)))
			return -EFAULT;
		if (quota.flags & ~RDT_DOM_Q_EXPORT)
			return rdt_refuse("RDT_VM_DOM_QUOTA", "unknown flags");
		return rdt_core_domain_set_quota(vm->core, &quota);
	case RDT_VM_DOM_GET_QUOTA:
		memset(&quota, 0, sizeof(quota));
		rdt_core_domain_quota(vm->core, &quota);
		return copy_to_user(arg, &quota, sizeof(quota)) ? -EFAULT : 0;
	case RDT_VM_DOMAIN:
		if (copy_from_user(&info, arg, sizeof(info)))
			return -EFAULT;
		id = info.view;
		memset(&info, 0, sizeof(info));
		ret = rdt_core_domain_info(vm->core, id, &info);
		if (!ret && copy_to_user(arg, &info, sizeof(info)))
			ret = -EFAULT;
		return ret;
	case RDT_VM_DOM_DESTROY:
		if (copy_from_user(&id, arg, sizeof(id)))
			return -EFAULT;
		ret = rdt_core_domain_destroy(vm->core, id);
		if (ret == -EAGAIN)
			rdt_domain_kick(vm->kvm);
		return ret;
	case RDT_VM_DOM_INSTALL:
		if (!capable(CAP_SYS_ADMIN))
			return -EPERM;
		if (copy_from_user(&in, arg, sizeof(in)))
			return -EFAULT;
		if (in.reserved || !in.len || in.len > PAGE_SIZE || !in.nr || in.nr > RDT_MAX_FIXUPS)
			return rdt_refuse("RDT_VM_DOM_INSTALL", "len, nr, or reserved is not zero");
		fixups = memdup_user(u64_to_user_ptr(in.fixups), in.nr * sizeof(*fixups));
		if (IS_ERR(fixups))
			return PTR_ERR(fixups);
		value = memdup_user(u64_to_user_ptr(in.value), in.len);
		if (IS_ERR(value)) {
			ret = PTR_ERR(value);
		} else {
			ret = rdt_core_domain_install(vm->core, in.id, value, in.len, fixups, in.nr);
			kfree_sensitive(value);
		}
		kfree(fixups);
		return ret;
	case RDT_VM_DOM_EXPORT:
	case RDT_VM_DOM_IMPORT:
		return rdt_domain_move(vm, cmd, arg);
	}
	return -ENOTTY;
}
