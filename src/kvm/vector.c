// SPDX-License-Identifier: GPL-2.0
/*
 * Vector registers at a domain's border: Documentation/domains.md.
 *
 * In a vCPU's exit the guest's registers are in the CPU, as those of a process in a system
 * call are, and belong to its fpstate in the same way. So they are exchanged there, by one
 * XSAVE and one XRSTOR, with interrupts off: kernel_fpu_begin() and the scheduler are
 * what could put them away meanwhile.
 *
 * XSAVE and nothing newer: XSAVEOPT leaves out what it believes to be in the buffer, which
 * another CPU may have written since; the others' formats are not the one that KVM exports
 * a way to and from its own memory for.
 */
#include "redoubt.h"

#include <asm/cpufeature.h>
#include <asm/fpu/api.h>
#include <asm/fpu/xstate.h>
#include <asm/processor.h>

enum { NOBODY = -1, CALLER, INSIDE };

/* In KVM_GET_XSAVE's format: the standard one. */
struct vectors {
	u32 size;
	u32 pkru[2];
	union fpregs_state *state[2];
	void *room;
};

/* As after a reset. */
static const union fpregs_state initial = {
	.xsave = {
		.i387 = { .cwd = 0x37f, .mxcsr = MXCSR_DEFAULT },
		.header.xfeatures = XFEATURE_MASK_FPSSE,
	},
};

void *rdt_port_vector_alloc(void *host)
{
	struct rdt_vm *vm = host;
	struct kvm_vcpu *vcpu = kvm_get_vcpu(vm->kvm, 0);
	struct vectors *v;
	u32 size;

	/* Whatever has nested paging has FXSR; the kernel may have been told not to use it. */
	if (!vcpu || !boot_cpu_has(X86_FEATURE_FXSR))
		return NULL;
	v = rdt_port_alloc(sizeof(*v));
	if (!v)
		return NULL;
	/* More than any vCPU needs: all that this CPU has (SDM vol. 1, 13.2). */
	size = max_t(u32, vcpu->arch.guest_fpu.uabi_size, sizeof(struct xregs_state));
	if (boot_cpu_has(X86_FEATURE_XSAVE))
		size = max(size, cpuid_ecx(0xd));
	v->size = ALIGN(size, 64);
	v->room = rdt_port_alloc(2 * v->size + 63);
	if (!v->room) {
		rdt_port_free(v);
		return NULL;
	}
	v->state[CALLER] = PTR_ALIGN(v->room, 64);
	v->state[INSIDE] = (void *)v->state[CALLER] + v->size;
	return v;
}

void rdt_port_vector_free(void *host, void *p)
{
	struct vectors *v = p;

	memzero_explicit(v->state[CALLER], 2 * v->size);
	rdt_port_free(v->room);
	rdt_port_free(v);
}

/* PKRU is KVM's to exchange: in an exit the CPU has the host's. */
static u64 features(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.guest_fpu.fpstate->user_xfeatures & ~(u64)XFEATURE_MASK_PKRU;
}

/*
 * AMX's tiles are not kept, and so initial afterwards: on another vCPU the guest may have them
 * switched off, and a state that has some cannot be loaded.
 */
static u64 kept(struct kvm_vcpu *vcpu)
{
	return features(vcpu) & ~(u64)XFEATURE_MASK_XTILE;
}

static void save_live(struct kvm_vcpu *vcpu, union fpregs_state *to)
{
	u64 mask = kept(vcpu);

	if (!static_cpu_has(X86_FEATURE_XSAVE)) {
		asm volatile("fxsave64 %0" : "=m"(to->fxsave));
		return;
	}
	asm volatile("xsave64 %0" : "+m"(to->xsave) : "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
	/* MXCSR is there, whether the registers that it is kept with are initial or not. */
	to->xsave.header.xfeatures |= XFEATURE_MASK_FPSSE;
}

static void load_live(struct kvm_vcpu *vcpu, const union fpregs_state *from)
{
	u64 mask = features(vcpu);

	/*
	 * AMD's restore the x87's last instruction and operand only with an exception pending:
	 * have others there than those of the inside.
	 */
	if (static_cpu_has_bug(X86_BUG_FXSAVE_LEAK))
		asm volatile("fnclex; emms; fildl %0" : : "m"(initial.xsave.i387.mxcsr));
	if (static_cpu_has(X86_FEATURE_XSAVE))
		asm volatile("xrstor64 %0" : : "m"(from->xsave), "a"((u32)mask),
			     "d"((u32)(mask >> 32)) : "memory");
	else
		asm volatile("fxrstor64 %0" : : "m"(from->fxsave) : "memory");
}

/*
 * Outside of KVM_RUN the guest's registers are in its fpstate, and the CPU has the
 * VMM's.
 */
static void exchange_stored(struct kvm_vcpu *vcpu, struct vectors *v, int keep,
			    const union fpregs_state *from)
{
	struct fpu_guest *fpu = &vcpu->arch.guest_fpu;

	if (keep != NOBODY)
		fpu_copy_guest_fpstate_to_uabi(fpu, v->state[keep], v->size, kept(vcpu), 0);
	/* What it refuses is none of what these two make. */
	WARN_ON_ONCE(fpu_copy_uabi_to_guest_fpstate(fpu, from, features(vcpu), NULL));
}

static void exchange(struct kvm_vcpu *vcpu, struct vectors *v, int keep, int load)
{
	const union fpregs_state *from = load == NOBODY ? &initial : v->state[load];
	unsigned long flags;

	local_irq_save(flags);
	if (likely(current->thread.fpu.fpstate == vcpu->arch.guest_fpu.fpstate)) {
		/* Put away, for somebody else who has used the CPU's. */
		if (unlikely(test_thread_flag(TIF_NEED_FPU_LOAD)))
			switch_fpu_return();
		if (keep != NOBODY)
			save_live(vcpu, v->state[keep]);
		load_live(vcpu, from);
	} else {
		exchange_stored(vcpu, v, keep, from);
	}
	local_irq_restore(flags);
	if (keep != NOBODY)
		v->pkru[keep] = vcpu->arch.pkru;
	vcpu->arch.pkru = load == NOBODY ? 0 : v->pkru[load];
}

void rdt_port_vector(void *hv, void *p, enum rdt_vector op)
{
	switch (op) {
	case RDT_VEC_ENTER:
		exchange(hv, p, CALLER, NOBODY);
		break;
	case RDT_VEC_LEAVE:
		exchange(hv, p, NOBODY, CALLER);
		break;
	case RDT_VEC_AEX:
		exchange(hv, p, INSIDE, CALLER);
		break;
	case RDT_VEC_RESUME:
		exchange(hv, p, CALLER, INSIDE);
		break;
	}
}
