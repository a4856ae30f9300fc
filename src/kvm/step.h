/* SPDX-License-Identifier: GPL-2.0 */
/* One instruction in a view of its own; Documentation/step.md. */
#ifndef RDT_KVM_STEP_H
#define RDT_KVM_STEP_H

#include "redoubt.h"

/*
 * Let the vCPU run the instruction that faulted (or the delivery of an event that
 * did) in RDT_VIEW_STEP. 1: re-enter the guest, it is on its way or another vCPU's
 * turn; 0: not possible here, take KVM's emulator.
 */
int rdt_step_begin(struct rdt_vm *vm, struct rdt_vcpu *rv, const struct rdt_fault *f,
		   const struct rdt_cpu *cpu);
/*
 * A fault of a vCPU that steps. True: granted, KVM is to map it. False: the step has
 * ended and the vCPU is in the root view; *@r is what its exit handler returns, or
 * -EAGAIN: decide on the fault there.
 */
bool rdt_step_fault(struct rdt_vm *vm, struct rdt_vcpu *rv, const struct rdt_fault *f, int *r);
/* KVM has emulated the instruction. Gives back @r, or what is to be returned in its place. */
int rdt_step_emulated(struct rdt_vm *vm, struct rdt_vcpu *rv, int r);

/*
 * The right to write to a frame under LOG: while one vCPU steps the others wait. True:
 * it is ours, and no step of ours is under way; to be given back without sleeping.
 */
bool rdt_step_claim(struct rdt_vm *vm, struct rdt_vcpu *rv);
void rdt_step_unclaim(struct rdt_vm *vm);

/*
 * store.c: carry out the store that @f was answered with RDT_V_STEP for. @seq:
 * rdt_core_policy_seq() from before. @insn: the instruction's bytes, if the CPU told.
 * 1: done or to be tried again, re-enter the guest; 0: not one of the simple kind.
 */
int rdt_store(struct rdt_vm *vm, struct rdt_vcpu *rv, const struct rdt_fault *f, u32 seq,
	      struct rdt_cpu *cpu, const u8 *insn, int insn_len);

/*
 * store.c: the plain store that the vCPU is at, wholly in one page. @insn: as above. False: it is none, or
 * something else wants to have its say.
 */
bool rdt_decode(struct kvm_vcpu *vcpu, const struct rdt_cpu *cpu, const u8 *insn, int insn_len,
		struct rdt_store *store);

/* KVM's emulator drops a debugger's TF with RFLAGS: put it back. */
void rdt_step_keep_trap(struct kvm_vcpu *vcpu);

/* At load: VMX without virtual NMIs cannot. */
bool rdt_step_possible(void);
/* Wait for the step under way; there is none after it. May sleep. */
void rdt_step_close(struct rdt_vm *vm);
/* A vCPU of a VM without vCPUs. */
void rdt_step_forget(struct rdt_vcpu *rv);

/* fault.c: stop the vCPU and tell the VMM; what an exit handler returns then. */
int rdt_freeze(struct kvm_vcpu *vcpu);
/* fault.c: refuse what the vCPU does. */
void rdt_inject_gp(struct kvm_vcpu *vcpu);
/* fault.c: read code; how many bytes there are. */
int rdt_fetch(struct kvm_vcpu *vcpu, unsigned long addr, u8 *insn, int len);

#endif
