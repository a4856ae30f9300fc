// SPDX-License-Identifier: GPL-2.0
/* Protection domains, the host's part: Documentation/domains.md. */
#include "redoubt.h"

#include <linux/capability.h>
#include <linux/uaccess.h>

#include <asm/fpu/api.h>
#include <asm/fpu/xstate.h>
#include <asm/processor.h>

#include "cpu.h"

/* ---- who is inside of one that is to go ------------------------------------------ */

void rdt_domain_kick(struct kvm *kvm)
{
	/* Out of the guest, and by rdt_domain_evict() before they go in again. */
	kvm_make_all_cpus_request(kvm, KVM_REQ_MMU_FREE_OBSOLETE_ROOTS);
}

void rdt_domain_evict(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_arch *a = &vcpu->arch;
	struct rdt_vcpu *rv;
	struct rdt_cpu cpu;
	struct rdt_vm *vm;

	if (likely(!rdt_is_domain(rdt_role_view(a->root_mmu.root_role))))
		return;
	vm = rdt_vm_find(vcpu->kvm);
	rv = vm ? rdt_vcpu_peek(vm, vcpu) : NULL;
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

	if (likely(enter || !rdt_is_domain(rdt_role_view(vcpu->arch.root_mmu.root_role))))
		return;
	idx = srcu_read_lock(&vcpu->kvm->srcu);
	vm = rdt_vm_find(vcpu->kvm);
	rv = vm ? rdt_vcpu_peek(vm, vcpu) : NULL;
	if (!rv)
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

/* ---- vector registers -------------------------------------------------------------- */

enum { CALLER, INSIDE };

/* In KVM_GET_XSAVE's format, which is what KVM exports a way to and from. */
struct vectors {
	u32 size;
	u32 pkru[2];
	u8 *state[2];
};

void *rdt_port_vector_alloc(void *host)
{
	struct rdt_vm *vm = host;
	struct kvm_vcpu *vcpu = kvm_get_vcpu(vm->kvm, 0);
	struct vectors *room;

	if (!vcpu)
		return NULL;
	room = rdt_port_alloc(sizeof(*room));
	if (!room)
		return NULL;
	/* More than any vCPU needs: all that this CPU has (SDM vol. 1, 13.2). */
	room->size = vcpu->arch.guest_fpu.uabi_size;
	if (boot_cpu_has(X86_FEATURE_XSAVE))
		room->size = max(room->size, cpuid_ecx(0xd));
	room->state[CALLER] = rdt_port_alloc(room->size);
	room->state[INSIDE] = rdt_port_alloc(room->size);
	if (room->state[CALLER] && room->state[INSIDE])
		return room;
	rdt_port_vector_free(host, room);
	return NULL;
}

void rdt_port_vector_free(void *host, void *p)
{
	struct vectors *room = p;
	int i;

	for (i = 0; i < 2; i++)
		if (room->state[i]) {
			memzero_explicit(room->state[i], room->size);
			rdt_port_free(room->state[i]);
		}
	rdt_port_free(room);
}

/*
 * AMX's tiles are not kept, and so initial afterwards: on another vCPU the guest may have them
 * switched off, which the kernel's function takes amiss (WARN).
 */
static void keep(struct kvm_vcpu *vcpu, struct vectors *room, int whose)
{
	room->pkru[whose] = vcpu->arch.pkru;
	fpu_copy_guest_fpstate_to_uabi(&vcpu->arch.guest_fpu, room->state[whose], room->size,
				       ~(u64)XFEATURE_MASK_USER_DYNAMIC, vcpu->arch.pkru);
}

static void load(struct kvm_vcpu *vcpu, const void *state, u32 pkru)
{
	u32 ignored;

	vcpu->arch.pkru = pkru;
	/* What it refuses is none of what keep() makes. */
	WARN_ON_ONCE(fpu_copy_uabi_to_guest_fpstate(&vcpu->arch.guest_fpu, state, ~0ull, &ignored));
}

/* As after a reset: nothing is in use but what this says. */
static void load_initial(struct kvm_vcpu *vcpu)
{
	static const union fpregs_state initial = {
		.xsave = {
			.i387 = { .cwd = 0x37f, .mxcsr = MXCSR_DEFAULT },
			.header.xfeatures = XFEATURE_MASK_FPSSE,
		},
	};

	load(vcpu, &initial, 0);
}

void rdt_port_vector(void *hv, void *p, enum rdt_vector op)
{
	struct kvm_vcpu *vcpu = hv;
	struct vectors *room = p;

	/* KVM has the guest's in the CPU: into guest_fpu with them, to be loaded again from there. */
	kernel_fpu_begin();
	kernel_fpu_end();
	switch (op) {
	case RDT_VEC_ENTER:
		keep(vcpu, room, CALLER);
		load_initial(vcpu);
		break;
	case RDT_VEC_AEX:
		keep(vcpu, room, INSIDE);
		fallthrough;
	case RDT_VEC_LEAVE:
		load(vcpu, room->state[CALLER], room->pkru[CALLER]);
		break;
	case RDT_VEC_RESUME:
		keep(vcpu, room, CALLER);
		load(vcpu, room->state[INSIDE], room->pkru[INSIDE]);
		break;
	}
}

/* ---- the operator ------------------------------------------------------------------ */

long rdt_domain_ioctl(struct rdt_vm *vm, unsigned int cmd, void __user *arg)
{
	struct rdt_domain_quota quota;
	struct rdt_domain_info info;
	struct rdt_install in;
	void *value;
	long ret;
	u64 id;

	switch (cmd) {
	case RDT_VM_DOM_QUOTA:
		if (!capable(CAP_SYS_ADMIN))
			return -EPERM;
		if (copy_from_user(&quota, arg, sizeof(quota)))
			return -EFAULT;
		if (quota.reserved)
			return rdt_refuse("RDT_VM_DOM_QUOTA", "reserved is not zero");
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
		if (in.reserved || !in.len || in.len > PAGE_SIZE)
			return rdt_refuse("RDT_VM_DOM_INSTALL", "len is not 1..4096, or reserved not zero");
		value = memdup_user(u64_to_user_ptr(in.value), in.len);
		if (IS_ERR(value))
			return PTR_ERR(value);
		ret = rdt_core_domain_install(vm->core, in.id, in.gva, value, in.len);
		kfree_sensitive(value);
		return ret;
	}
	return -ENOTTY;
}
