// SPDX-License-Identifier: GPL-2.0
/*
 * One instruction in a view of its own: Documentation/step.md.
 *
 * begin() arms a trap and switches to RDT_VIEW_STEP; faults in there grant frames;
 * the trap, or anything else that ends the instruction, comes to the exit hooks,
 * which report, disarm and switch back. If the thread is scheduled out or leaves
 * for user space meanwhile, the put hook disarms and parks the step.
 */
#include "step.h"

#include <linux/delay.h>

#include <asm/debugreg.h>

#include "cpu.h"

#define DB_EXIT		(SVM_EXIT_EXCP_BASE + DB_VECTOR)
#define INTN_BIT	BIT(INTERCEPT_INTn % 32)
/* Clean bits of KVM's svm.h, not public. */
#define CLEAN_INTERCEPTS	BIT(0)
#define CLEAN_CR		BIT(5)
#define CLEAN_SEG		BIT(8)

/* Those that are exceptions: no guest handler may run in the step's view. */
#define EXCEPTIONS (BIT(DE_VECTOR) | BIT(DB_VECTOR) | BIT(BP_VECTOR) | BIT(OF_VECTOR) |		\
		    BIT(BR_VECTOR) | BIT(UD_VECTOR) | BIT(NM_VECTOR) | BIT(DF_VECTOR) |		\
		    BIT(TS_VECTOR) | BIT(NP_VECTOR) | BIT(SS_VECTOR) | BIT(GP_VECTOR) |		\
		    BIT(PF_VECTOR) | BIT(MF_VECTOR) | BIT(AC_VECTOR) | BIT(XM_VECTOR) |		\
		    BIT(20) | BIT(21))
#define WITH_ERROR (BIT(DF_VECTOR) | BIT(TS_VECTOR) | BIT(NP_VECTOR) | BIT(SS_VECTOR) |		\
		    BIT(GP_VECTOR) | BIT(PF_VECTOR) | BIT(AC_VECTOR) | BIT(21))

/*
 * Steps under way or parked, on the whole host: while it is zero the hooks cost
 * this look.
 */
static atomic_t stepping;

/* rdt_vm::step_owner of a VM that begins no more. */
#define CLOSED ((struct rdt_vcpu *)1)

/* ---- the instruction --------------------------------------------------------- */

/* Stepping by TF, SVM's way and VMX's in need: how that shows in an instruction. */
enum insn {
	INSN_PLAIN,
	INSN_POPF,	/* TF afterwards is the instruction's */
	INSN_IRET,	/* likewise; and NMIs are unblocked */
	INSN_EMULATE,	/* pushf, syscall: stores TF; mov ss: delays the trap; VMX: sti, cli */
	INSN_SYSRET,	/* takes TF from R11, and KVM cannot emulate it */
	INSN_INTN,	/* stores TF, and is intercepted */
};

static unsigned long code_base(struct kvm_vcpu *vcpu, bool code64)
{
	return code64 ? 0 : rdt_is_vmx ? vmread(GUEST_CS_BASE) : vmcb_of(vcpu)->save.cs.base;
}

static enum insn classify(struct kvm_vcpu *vcpu, const struct rdt_cpu *cpu, bool *rex_w)
{
	bool code64 = cpu->va_bits;
	u8 insn[15], *p = insn, *end;
	int n = rdt_fetch(vcpu, cpu->rip + code_base(vcpu, code64), insn, sizeof(insn));

	*rex_w = false;
	for (end = insn + n; p < end; p++)
		switch (*p) {
		case 0x40 ... 0x4f:
			if (!code64)
				return INSN_PLAIN;
			*rex_w = *p & 8;
			continue;
		case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64 ... 0x67:
		case 0xf0: case 0xf2: case 0xf3:
			*rex_w = false;
			continue;
		case 0x9d:
			return INSN_POPF;
		case 0xcf:
			return INSN_IRET;
		case 0xcd:
			return INSN_INTN;
		case 0xfa: case 0xfb:
			return rdt_is_vmx ? INSN_EMULATE : INSN_PLAIN;
		case 0x9c:
			return INSN_EMULATE;
		case 0x17:
			return code64 ? INSN_PLAIN : INSN_EMULATE;
		case 0x8e:
			return p + 1 < end && (p[1] & 0x38) == 0x10 ? INSN_EMULATE : INSN_PLAIN;
		case 0x0f:
			if (p + 1 >= end)
				return INSN_PLAIN;
			switch (p[1]) {
			case 0x05: case 0x34: case 0x35: case 0xb2:
				return INSN_EMULATE;
			case 0x07:
				return INSN_SYSRET;
			}
			return INSN_PLAIN;
		default:
			return INSN_PLAIN;
		}
	return INSN_PLAIN;
}

/* From ring 0 in 64-bit mode. False: let the CPU find out what is wrong with it. */
static bool sysret(struct kvm_vcpu *vcpu, const struct rdt_cpu *cpu, bool rex_w)
{
	unsigned long rip = vcpu->arch.regs[VCPU_REGS_RCX];
	struct vmcb *vmcb = vmcb_of(vcpu);
	u16 cs, ss;
	u64 star;

	if (cpu->cpl || !cpu->va_bits || !(vcpu->arch.efer & EFER_SCE) ||
	    kvm_get_msr(vcpu, MSR_STAR, &star))
		return false;
	cs = ((star >> 48) + (rex_w ? 16 : 0)) | 3;
	ss = ((star >> 48) + 8) | 3;
	/* Flat, present, DPL 3: code and writable data. */
	vmcb->save.cs = (struct vmcb_seg){
		.selector = cs, .attrib = rex_w ? 0xafb : 0xcfb, .limit = ~0u,
	};
	vmcb->save.ss = (struct vmcb_seg){
		.selector = ss, .attrib = 0xcf3, .limit = ~0u,
	};
	vmcb->save.cpl = 3;
	vmcb->control.clean &= ~CLEAN_SEG;
	vmcb->control.int_state &= ~SVM_INTERRUPT_SHADOW_MASK;
	reg_write(vcpu, VCPU_REGS_RIP, rex_w ? rip : (u32)rip);
	kvm_set_rflags(vcpu, (vcpu->arch.regs[VCPU_REGS_R11] & 0x3c7fd7) | X86_EFLAGS_FIXED);
	return true;
}

/* ---- the trap ------------------------------------------------------------------ */

/*
 * SVM: TF, by way of KVM's own single-stepping, which keeps it out of what KVM shows
 * as RFLAGS and out of an event's frame: with an event to inject, svm_vcpu_run()
 * drops it and has the CPU exit right after the delivery.
 */
static void svm_point(struct rdt_vcpu *rv)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;

	rdt_member(vcpu, vcpu_svm, nmi_singlestep_guest_rflags) = rv->step.rflags;
	rdt_member(vcpu, vcpu_svm, nmi_singlestep) = true;
	if (!rv->step.event)
		vmcb_of(vcpu)->save.rflags |= X86_EFLAGS_TF;
}

static void svm_arm(struct rdt_vcpu *rv)
{
	struct vmcb *vmcb = vmcb_of(rv->kvcpu);
	struct vmcb_control_area *c = &vmcb->control;
	struct rdt_step *s = &rv->step;

	s->exceptions = c->intercepts[INTERCEPT_EXCEPTION];
	c->intercepts[INTERCEPT_EXCEPTION] |= EXCEPTIONS;
	/* It would push TF and run the handler. */
	s->intn = c->intercepts[INTERCEPT_WORD3] & INTN_BIT;
	c->intercepts[INTERCEPT_WORD3] |= INTN_BIT;
	/*
	 * SYSCALL and SYSRET look at TF when they are done with it. classify() keeps
	 * them away; if another vCPU changes the code under it, they are #UD.
	 */
	s->sce = vmcb->save.efer & EFER_SCE;
	vmcb->save.efer &= ~(u64)EFER_SCE;
	c->clean &= ~(CLEAN_INTERCEPTS | CLEAN_CR);
	s->shadow = !s->event && !(c->int_state & SVM_INTERRUPT_SHADOW_MASK);
	if (s->shadow)
		c->int_state |= SVM_INTERRUPT_SHADOW_MASK;
	s->tf = vmcb->save.rflags & X86_EFLAGS_TF;
	svm_point(rv);
}

static void svm_disarm(struct rdt_vcpu *rv, bool done)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	struct vmcb *vmcb = vmcb_of(vcpu);
	struct vmcb_control_area *c = &vmcb->control;
	struct rdt_step *s = &rv->step;

	c->intercepts[INTERCEPT_EXCEPTION] = s->exceptions;
	if (!s->intn)
		c->intercepts[INTERCEPT_WORD3] &= ~INTN_BIT;
	if (s->sce)
		vmcb->save.efer |= EFER_SCE;
	c->clean &= ~(CLEAN_INTERCEPTS | CLEAN_CR);
	if (s->shadow && !done)
		c->int_state &= ~SVM_INTERRUPT_SHADOW_MASK;
	if (rdt_member(vcpu, vcpu_svm, nmi_singlestep)) {
		rdt_member(vcpu, vcpu_svm, nmi_singlestep) = false;
		if (!s->tf && !(done && (s->insn == INSN_POPF || s->insn == INSN_IRET)))
			vmcb->save.rflags &= ~(u64)X86_EFLAGS_TF;
		/* KVM may be stepping towards an NMI window: let it look again. */
		if (vcpu->arch.nmi_pending)
			kvm_make_request(KVM_REQ_EVENT, vcpu);
	}
}

RDT_IMPORT(kvm_intel, vmx_set_nmi_mask, RDT_VMX);

/* A plain VMWRITE would leave what KVM remembers of it behind. */
static void vmx_block_nmi(struct kvm_vcpu *vcpu, bool block)
{
	rdt_call(vmx_set_nmi_mask)(vcpu, block);
}

static bool vmx_nmi_blocked(void)
{
	return vmread(GUEST_INTERRUPTIBILITY_INFO) & GUEST_INTR_STATE_NMI;
}

/*
 * Were NMIs blocked before the instruction that faulted? By bit 12 of the exit's
 * qualification it is an IRET that has unblocked them, and KVM has blocked them again for
 * the next try. Bochs sets it for any instruction behind an IRET that faulted; then
 * what KVM noted at the exit counts.
 */
static bool vmx_nmi_was_blocked(struct rdt_vcpu *rv)
{
	struct loaded_vmcs *lv = rdt_member(rv->kvcpu, vcpu_vmx, loaded_vmcs);

	if (!rv->step.event && vmread(EXIT_QUALIFICATION) & INTR_INFO_UNBLOCK_NMI)
		return rv->step.insn == INSN_IRET || !rdt_member(lv, loaded_vmcs, nmi_known_unmasked);
	return vmx_nmi_blocked();
}

/*
 * By that bit 12 KVM may have blocked NMIs behind a fault in the step: the window would
 * stay shut, and the step go on.
 */
static void vmx_keep_window(struct rdt_vcpu *rv)
{
	struct rdt_step *s = &rv->step;

	/* The put hook disarms, and may have blocked them for good. */
	preempt_disable();
	if (s->armed && !s->tf && s->insn != INSN_IRET && vmx_nmi_blocked())
		vmx_block_nmi(rv->kvcpu, false);
	preempt_enable();
}

/* Is the trap flag in the step's way of trapping nobody's but ours? */
static bool vmx_own_tf(struct rdt_vcpu *rv)
{
	return !(rv->step.rflags & X86_EFLAGS_TF) &&
	       !(rv->kvcpu->guest_debug & KVM_GUESTDBG_SINGLESTEP);
}

static u32 *vmx_exec(struct kvm_vcpu *vcpu)
{
	struct loaded_vmcs *lv = rdt_member(vcpu, vcpu_vmx, loaded_vmcs);

	/* KVM's copy: it writes the field from there. */
	return &rdt_member(lv, loaded_vmcs, controls_shadow__exec);
}

static void vmx_set_flags(struct kvm_vcpu *vcpu, unsigned long flags)
{
	vmwrite(GUEST_RFLAGS, flags);
	__clear_bit(VCPU_EXREG_RFLAGS, (unsigned long *)&vcpu->arch.regs_avail);
}

/* VMX: is the vCPU single-stepped already, by itself or by a debugger? */
static bool vmx_traps(struct kvm_vcpu *vcpu)
{
	return vmread(GUEST_RFLAGS) & X86_EFLAGS_TF || vcpu->guest_debug & KVM_GUESTDBG_SINGLESTEP;
}

static void vmx_set_exec(struct kvm_vcpu *vcpu, u32 set, u32 clear)
{
	u32 *exec = vmx_exec(vcpu);

	*exec = (*exec & ~clear) | set;
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, *exec);
}

void rdt_step_keep_trap(struct kvm_vcpu *vcpu)
{
	if (rdt_is_vmx && vcpu->guest_debug & KVM_GUESTDBG_SINGLESTEP)
		vmx_set_flags(vcpu, vmread(GUEST_RFLAGS) | X86_EFLAGS_TF);
}

#define SHADOWS	(GUEST_INTR_STATE_STI | GUEST_INTR_STATE_MOV_SS)

/* A fault, or an instruction that exits, has no trap behind it. Bochs says it has. */
static void vmx_forget_trap(void)
{
	vmwrite(GUEST_PENDING_DBG_EXCEPTIONS, 0);
}

static void vmx_forget_single_step(void)
{
	vmwrite(GUEST_PENDING_DBG_EXCEPTIONS,
		vmread(GUEST_PENDING_DBG_EXCEPTIONS) & ~(unsigned long)DR6_BS);
}

/* VMX: how to step this instruction, or the delivery. False: not at all. */
static bool vmx_plan(struct rdt_vcpu *rv, const struct rdt_cpu *cpu)
{
	struct rdt_step *s = &rv->step;
	bool traps = !s->event && vmx_traps(rv->kvcpu), rex_w;

	s->insn = INSN_PLAIN;
	if (!s->event && (traps || vmx_nmi_blocked()))
		s->insn = classify(rv->kvcpu, cpu, &rex_w);
	s->nmi_blocked = vmx_nmi_was_blocked(rv);
	s->tf = traps || (!s->event && s->nmi_blocked && s->insn != INSN_IRET);
	if (s->tf)
		return s->insn == INSN_PLAIN;
	if (!s->nmi_blocked)
		s->insn = INSN_PLAIN;
	return true;
}

/*
 * VMX: the NMI window, which opens before any instruction while NMIs are not blocked.
 * A shadow keeps it shut, and all events off, for one instruction. An event to inject
 * goes without: there the window opens behind the delivery. An IRET from an NMI opens it
 * itself.
 *
 * In an NMI's handler the trap is TF's: interrupts are kept off by IF then, and what would
 * show these is for the emulator. So it is when the vCPU is single-stepped anyway, by itself
 * or a debugger, as VM entry takes no shadow together with TF; NMIs are blocked for it.
 */
static void vmx_arm(struct rdt_vcpu *rv)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	struct rdt_step *s = &rv->step;
	unsigned long state = vmread(GUEST_INTERRUPTIBILITY_INFO);
	unsigned long flags = vmread(GUEST_RFLAGS);

	s->exceptions = vmread(EXCEPTION_BITMAP);
	vmwrite(EXCEPTION_BITMAP, s->exceptions | EXCEPTIONS);
	s->intr_state = state;
	s->window = *vmx_exec(vcpu) & CPU_BASED_NMI_WINDOW_EXITING;
	s->nmi = false;
	if (s->tf) {
		vmx_set_flags(vcpu, (flags | X86_EFLAGS_TF) & ~(unsigned long)X86_EFLAGS_IF);
		vmwrite(GUEST_INTERRUPTIBILITY_INFO, (state & ~SHADOWS) | GUEST_INTR_STATE_NMI);
		vmx_forget_trap();
		return;
	}
	vmx_set_exec(vcpu, CPU_BASED_NMI_WINDOW_EXITING, 0);
	if (s->insn != INSN_IRET)
		state &= ~GUEST_INTR_STATE_NMI;
	if (!s->event)
		state = (state & ~SHADOWS) | GUEST_INTR_STATE_MOV_SS;
	vmwrite(GUEST_INTERRUPTIBILITY_INFO, state);
	/* Behind an NMI the window would stay shut: it goes as an exception. */
	s->nmi = s->event && vcpu->arch.nmi_injected;
	if (s->nmi) {
		vcpu->arch.nmi_injected = false;
		vcpu->arch.exception.injected = true;
		vcpu->arch.exception.vector = NMI_VECTOR;
		vcpu->arch.exception.has_error_code = false;
	}
}

static void vmx_disarm(struct rdt_vcpu *rv, bool done)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	struct rdt_step *s = &rv->step;
	unsigned long state = vmread(GUEST_INTERRUPTIBILITY_INFO);

	vmwrite(EXCEPTION_BITMAP, s->exceptions);
	if (!s->tf && !s->window)
		vmx_set_exec(vcpu, 0, CPU_BASED_NMI_WINDOW_EXITING);
	if (s->tf && vmx_own_tf(rv)) {
		vmx_set_flags(vcpu, vmread(GUEST_RFLAGS) & ~(unsigned long)X86_EFLAGS_TF);
		vmx_forget_single_step();
	}
	if (s->tf)
		vmx_set_flags(vcpu, vmread(GUEST_RFLAGS) | (s->rflags & X86_EFLAGS_IF));
	if (s->nmi && !done && vcpu->arch.exception.injected) {
		vcpu->arch.exception.injected = false;
		vcpu->arch.nmi_injected = true;
	}
	if (!s->event && !done)
		vmwrite(GUEST_INTERRUPTIBILITY_INFO,
			(state & ~SHADOWS) | (s->intr_state & SHADOWS));
	/* An NMI delivered, as an exception that blocks nothing; an IRET executed. */
	if (done && s->nmi)
		s->nmi_blocked = true;
	else if (done && s->insn == INSN_IRET)
		s->nmi_blocked = false;
	vmx_block_nmi(vcpu, s->nmi_blocked);
	/* What was kept off may come now, and KVM may have asked for that window too. */
	kvm_make_request(KVM_REQ_EVENT, vcpu);
}

static void disarm(struct rdt_vcpu *rv, bool done)
{
	if (!rv->step.armed)
		return;
	rv->step.armed = false;
	if (rdt_is_vmx)
		vmx_disarm(rv, done);
	else
		svm_disarm(rv, done);
}

/* An instruction that stays where it is and counts down is one of the REP kind. */
static bool moved(struct rdt_vcpu *rv)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;

	return reg_read(vcpu, VCPU_REGS_RIP) != rv->step.rip ||
	       vcpu->arch.regs[VCPU_REGS_RCX] != rv->step.gpr[VCPU_REGS_RCX];
}

/* ---- whose turn it is ------------------------------------------------------------ */

/*
 * rdt_vcpu::step.state:
 *
 *	NONE -> ON <-> BUSY -> NONE	its own thread
 *	        ON -> PARKED		its own thread, when it is scheduled out
 *	              PARKED -> BUSY	its own thread, back
 *	              PARKED -> STOLEN -> DONE	another, which wants to step
 *	                                  DONE -> NONE	its own thread, back
 */

/* The step is this vCPU's, as it was left; false: it has been ended meanwhile. */
static bool reclaim(struct rdt_vcpu *rv)
{
	int *state = &rv->step.state;

	for (;;) {
		if (cmpxchg(state, RDT_STEP_ON, RDT_STEP_BUSY) == RDT_STEP_ON ||
		    cmpxchg(state, RDT_STEP_PARKED, RDT_STEP_BUSY) == RDT_STEP_PARKED)
			return true;
		/* Pairs with the release in rdt_step_claim(). */
		if (smp_load_acquire(state) == RDT_STEP_DONE)
			return false;
		cond_resched();
	}
}

bool rdt_step_claim(struct rdt_vm *vm, struct rdt_vcpu *rv)
{
	struct rdt_vcpu *owner = READ_ONCE(vm->step_owner);

	if (!owner)
		return !cmpxchg(&vm->step_owner, NULL, rv);
	if (owner == CLOSED ||
	    cmpxchg(&owner->step.state, RDT_STEP_PARKED, RDT_STEP_STOLEN) != RDT_STEP_PARKED)
		return false;
	/* Its thread sleeps. What it wrote must be known before anyone else writes. */
	owner->step.outcome = rdt_core_step_end(vm->core, owner->core, owner->step.moved,
						owner->step.event);
	WRITE_ONCE(vm->step_owner, rv);
	smp_store_release(&owner->step.state, RDT_STEP_DONE);
	return true;
}

void rdt_step_unclaim(struct rdt_vm *vm)
{
	smp_store_release(&vm->step_owner, NULL);
}

/*
 * End the step; the vCPU is in the root view. Gives back RDT_STEP_*, carried out but
 * for RDT_STEP_FREEZE.
 */
static u8 finish(struct rdt_vm *vm, struct rdt_vcpu *rv, bool done)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	struct rdt_step *s = &rv->step;
	bool mine = reclaim(rv);
	u8 out;
	int i;

	disarm(rv, done);
	out = mine ? rdt_core_step_end(vm->core, rv->core, done, s->event) : s->outcome;
	rdt_cpu_set_view(vcpu, RDT_VIEW_ROOT);
	atomic_dec(&stepping);
	WRITE_ONCE(s->state, RDT_STEP_NONE);
	if (mine)
		rdt_step_unclaim(vm);
	if (!(out & RDT_STEP_UNDONE))
		return 0;

	/* As if the instruction had faulted. Nobody may use what it wrote to a page table. */
	for (i = 0; i < 16; i++)
		if (i != VCPU_REGS_RSP)
			vcpu->arch.regs[i] = s->gpr[i];
	reg_write(vcpu, VCPU_REGS_RSP, s->rsp);
	reg_write(vcpu, VCPU_REGS_RIP, s->rip);
	kvm_set_rflags(vcpu, s->rflags);
	kvm_make_all_cpus_request(vcpu->kvm, KVM_REQ_TLB_FLUSH_GUEST);
	if (!(out & RDT_STEP_FREEZE))
		rdt_inject_gp(vcpu);
	return out;
}

int rdt_step_begin(struct rdt_vm *vm, struct rdt_vcpu *rv, const struct rdt_fault *f,
		   const struct rdt_cpu *cpu)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	struct rdt_step *s = &rv->step;
	bool rex_w;

	if (vcpu->arch.hflags & HF_GUEST_MASK)
		return 0;
	/* kvm_intel.vnmi=0 */
	if (rdt_is_vmx && !(vmread(PIN_BASED_VM_EXEC_CONTROL) & PIN_BASED_VIRTUAL_NMIS))
		return 0;
	s->event = f->vectoring;
	if (rdt_is_vmx) {
		if (!vmx_plan(rv, cpu))
			return 0;
	} else {
		s->insn = s->event ? INSN_PLAIN : classify(vcpu, cpu, &rex_w);
	}
	if (s->insn == INSN_EMULATE)
		return 0;
	if (s->insn == INSN_SYSRET && sysret(vcpu, cpu, rex_w))
		return 1;
	if (!rdt_step_claim(vm, rv)) {
		/*
		 * Its owner runs, and is done before long. If it does not (it was preempted in
		 * our code) it may be by us that it waits for.
		 */
		if (++s->tries % 64 == 0)
			usleep_range(20, 50);
		return 1;
	}
	s->tries = 0;
	if (!rdt_core_step_begin(vm->core, rv->core, f, cpu)) {
		rdt_step_unclaim(vm);
		return 0;
	}
	s->rip = cpu->rip;
	s->rsp = cpu->rsp;
	s->rflags = cpu->rflags;
	memcpy(s->gpr, vcpu->arch.regs, sizeof(s->gpr));
	if (rdt_is_vmx)
		vmx_arm(rv);
	else
		svm_arm(rv);
	s->armed = true;
	rdt_cpu_set_view(vcpu, RDT_VIEW_STEP);
	atomic_inc(&stepping);
	/* From here on the put hook may park it. */
	smp_store_release(&s->state, RDT_STEP_ON);
	return 1;
}

bool rdt_step_fault(struct rdt_vm *vm, struct rdt_vcpu *rv, const struct rdt_fault *f, int *r)
{
	struct rdt_step *s = &rv->step;
	u8 out;

	/* Parked meanwhile: it is not armed any more, and cannot go on. */
	if (cmpxchg(&s->state, RDT_STEP_ON, RDT_STEP_BUSY) == RDT_STEP_ON) {
		if ((!rdt_is_vmx || s->event == f->vectoring) && rdt_core_step_grant(vm->core, f)) {
			s->event = f->vectoring;
			if (!rdt_is_vmx)
				svm_point(rv);
			smp_store_release(&s->state, RDT_STEP_ON);
			return true;
		}
		smp_store_release(&s->state, RDT_STEP_ON);
	}
	out = finish(vm, rv, false);
	*r = out & RDT_STEP_FREEZE ? rdt_freeze(rv->kvcpu) : out ? 1 : -EAGAIN;
	return false;
}

int rdt_step_emulated(struct rdt_vm *vm, struct rdt_vcpu *rv, int r)
{
	/* What it wrote to granted frames was written without a fault of the step's. */
	return finish(vm, rv, moved(rv)) & RDT_STEP_FREEZE && r > 0 ? rdt_freeze(rv->kvcpu) : r;
}

/* ---- exits ------------------------------------------------------------------------- */

enum seen {
	SEEN_HOST,	/* nothing of the guest's: go on */
	SEEN_FAULT,	/* a nested page fault: go on, the fault hook knows */
	SEEN_TRAP,	/* the instruction was executed */
	SEEN_DELIVERED,	/* the event was delivered */
	SEEN_EXCEPTION,	/* an exception that only the step wanted to see */
	SEEN_OTHER,	/* KVM's to handle, in the root view */
};

static void requeue(struct kvm_vcpu *vcpu, u8 vector, u32 error, unsigned long cr2)
{
	if (vector == PF_VECTOR)
		vcpu->arch.cr2 = cr2;
	if (WITH_ERROR & BIT(vector))
		kvm_queue_exception_e(vcpu, vector, error);
	else
		kvm_queue_exception(vcpu, vector);
}

RDT_IMPORT(kvm, kvm_mmu_gva_to_gpa_system, RDT_ANY);

static void queue_intn(struct kvm_vcpu *vcpu, u8 vector, int len)
{
	struct kvm_vcpu_arch *a = &vcpu->arch;
	struct vmcb_save_area *save;
	bool soft = boot_cpu_has(X86_FEATURE_NRIPS);
	unsigned int gate = a->efer & EFER_LMA ? 16 : 8;
	u8 type;
	gpa_t gpa;

	/*
	 * A CPU that does not tell the next RIP has KVM look for the instruction again,
	 * which it does not recognize from vector 128 on. As an interrupt then, and the
	 * gate's DPL is ours to check.
	 */
	if (!soft) {
		save = &vmcb_of(vcpu)->save;
		gpa = rdt_call(kvm_mmu_gva_to_gpa_system)(vcpu, save->idtr.base + vector * gate + 5,
							  NULL);
		if (save->idtr.limit < vector * gate + gate - 1 || gpa == INVALID_GPA ||
		    kvm_read_guest(vcpu->kvm, gpa, &type, 1) || (type >> 5 & 3) < save->cpl) {
			kvm_queue_exception_e(vcpu, GP_VECTOR, vector * 8 + 2);
			return;
		}
		reg_write(vcpu, VCPU_REGS_RIP, a->regs[VCPU_REGS_RIP] + len);
	}
	a->interrupt.injected = true;
	a->interrupt.soft = soft;
	a->interrupt.nr = vector;
	kvm_make_request(KVM_REQ_EVENT, vcpu);
}

/* An int n, int3 or into: it is an event now. */
static void requeue_intn(struct kvm_vcpu *vcpu)
{
	bool code64 = vcpu->arch.efer & EFER_LMA &&
		      vmcb_of(vcpu)->save.cs.attrib & SVM_SELECTOR_L_MASK;
	u8 insn[15];
	int i, n = rdt_fetch(vcpu, reg_read(vcpu, VCPU_REGS_RIP) + code_base(vcpu, code64), insn,
			     sizeof(insn));

	for (i = 0; i < n; i++)
		switch (insn[i]) {
		case 0x40 ... 0x4f:
			if (!code64)
				return;
			continue;
		case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64 ... 0x67:
		case 0xf0: case 0xf2: case 0xf3:
			continue;
		case 0xcc:
			kvm_queue_exception(vcpu, BP_VECTOR);
			return;
		case 0xce:
			kvm_queue_exception(vcpu, OF_VECTOR);
			return;
		case 0xcd:
			if (i + 1 == n)
				return;
			queue_intn(vcpu, insn[i + 1], i + 2);
			return;
		default:
			return;
		}
}

/* What of a #DB by our trap is the guest's. */
static unsigned long guest_db(struct rdt_vcpu *rv, unsigned long dr6)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	int i;

	if (!(rv->step.rflags & X86_EFLAGS_TF))
		dr6 &= ~(unsigned long)DR6_BS;
	for (i = 0; i < 4; i++)
		if (!(vcpu->arch.dr7 >> (2 * i) & 3))
			dr6 &= ~BIT(i);
	return dr6 & (DR_TRAP_BITS | DR6_BS | DR6_BD | DR6_BT);
}

static enum seen svm_seen(struct rdt_vcpu *rv)
{
	struct vmcb *vmcb = vmcb_of(rv->kvcpu);
	struct rdt_step *s = &rv->step;
	u32 code = vmcb->control.exit_code, vector = code - SVM_EXIT_EXCP_BASE;
	bool host = code == SVM_EXIT_INTR || code == SVM_EXIT_NMI || code == SVM_EXIT_SMI;
	bool delivering = vmcb->control.exit_int_info & SVM_EXITINTINFO_VALID;

	if (code == DB_EXIT && vmcb->save.dr6 & DR6_BS && !s->event)
		return SEEN_TRAP;
	if (vector < 32 && !(s->exceptions & BIT(vector)))
		return SEEN_EXCEPTION;
	if (code == SVM_EXIT_SWINT && !s->intn)
		return SEEN_EXCEPTION;
	if (s->armed && s->event && !delivering)
		return host ? SEEN_DELIVERED : SEEN_OTHER;
	/* KVM has taken the trap away, to inject something. */
	if (s->armed && !s->event && !rdt_member(rv->kvcpu, vcpu_svm, nmi_singlestep))
		return SEEN_OTHER;
	return host ? SEEN_HOST : code == SVM_EXIT_NPF ? SEEN_FAULT : SEEN_OTHER;
}

RDT_REPLACE(kvm_amd, svm_handle_exit, RDT_SVM, true);

static int svm_exit(struct rdt_vm *vm, struct rdt_vcpu *rv, fastpath_t fastpath)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	struct vmcb_control_area *c = &vmcb_of(vcpu)->control;
	struct rdt_step *s = &rv->step;
	enum seen seen = svm_seen(rv);
	u32 code = c->exit_code;
	unsigned long dr6;
	u8 out;
	int r;

	if (s->armed && (seen == SEEN_HOST || seen == SEEN_FAULT))
		return rdt_orig(svm_handle_exit)(vcpu, fastpath);

	out = finish(vm, rv, seen == SEEN_TRAP || seen == SEEN_DELIVERED ||
			     (seen != SEEN_EXCEPTION && moved(rv)));
	if (out)
		seen = SEEN_HOST;
	switch (seen) {
	case SEEN_TRAP:
		if (vcpu->guest_debug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP))
			break;
		dr6 = guest_db(rv, vmcb_of(vcpu)->save.dr6 ^ DR6_ACTIVE_LOW);
		if (dr6)
			kvm_queue_exception_p(vcpu, DB_VECTOR, dr6);
		c->exit_code = SVM_EXIT_INTR;
		break;
	case SEEN_EXCEPTION:
		if (code == SVM_EXIT_SWINT)
			requeue_intn(vcpu);
		else
			requeue(vcpu, code - SVM_EXIT_EXCP_BASE, c->exit_info_1, c->exit_info_2);
		c->exit_code = SVM_EXIT_INTR;
		break;
	case SEEN_OTHER:
		/* The root of the view it happened in is gone: let it happen again. */
		if (code == SVM_EXIT_NPF)
			c->exit_code = SVM_EXIT_INTR;
		break;
	default:
		c->exit_code = SVM_EXIT_INTR;
		break;
	}
	/* With nothing left to handle it still takes over CR0 and CR3. */
	r = rdt_orig(svm_handle_exit)(vcpu, fastpath);
	return out & RDT_STEP_FREEZE ? rdt_freeze(vcpu) : r;
}

static struct rdt_vcpu *stepper(struct kvm_vcpu *vcpu, struct rdt_vm **vm)
{
	struct rdt_vcpu *rv;

	*vm = rdt_vm_find(vcpu->kvm);
	rv = *vm ? rdt_vcpu_peek(*vm, vcpu) : NULL;
	return rv && READ_ONCE(rv->step.state) != RDT_STEP_NONE ? rv : NULL;
}

static noinline int svm_exit_stepping(struct kvm_vcpu *vcpu, fastpath_t fastpath)
{
	struct rdt_vm *vm;
	struct rdt_vcpu *rv;
	int r;

	rdt_hook_enter(&rdt_hook_svm_handle_exit);
	rv = stepper(vcpu, &vm);
	r = rv ? svm_exit(vm, rv, fastpath) : rdt_orig(svm_handle_exit)(vcpu, fastpath);
	rdt_hook_leave();
	return r;
}

static int hook_svm_handle_exit(struct kvm_vcpu *vcpu, fastpath_t fastpath)
{
	rdt_hook_fired(&rdt_hook_svm_handle_exit);
	/* Every exit of every VM comes by: no frame, no count (tasks RCU covers a jump). */
	if (likely(!atomic_read(&stepping)))
		return rdt_orig(svm_handle_exit)(vcpu, fastpath);
	return svm_exit_stepping(vcpu, fastpath);
}

RDT_REPLACE(kvm_intel, vmx_handle_exit, RDT_VMX, true);

static enum seen vmx_seen(struct rdt_vcpu *rv, u32 info)
{
	u32 reason = vmread(VM_EXIT_REASON);

	if (reason & VMX_EXIT_REASONS_FAILED_VMENTRY)
		return SEEN_OTHER;
	switch ((u16)reason) {
	case EXIT_REASON_NMI_WINDOW:
		return rv->step.event ? SEEN_DELIVERED : rv->step.tf ? SEEN_OTHER : SEEN_TRAP;
	case EXIT_REASON_EPT_VIOLATION:
	case EXIT_REASON_EPT_MISCONFIG:		/* MMIO: kvm_mmu_page_fault() */
		return SEEN_FAULT;
	case EXIT_REASON_EXTERNAL_INTERRUPT:
	case EXIT_REASON_PREEMPTION_TIMER:
	case EXIT_REASON_PML_FULL:
		return SEEN_HOST;
	case EXIT_REASON_EXCEPTION_NMI:
		if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_NMI_INTR)
			return SEEN_HOST;
		if (rv->step.tf && (info & 31) == DB_VECTOR && vmread(EXIT_QUALIFICATION) & DR6_BS)
			return SEEN_TRAP;
		return rv->step.exceptions & BIT(info & 31) ? SEEN_OTHER : SEEN_EXCEPTION;
	}
	return SEEN_OTHER;
}

static int vmx_exit(struct rdt_vm *vm, struct rdt_vcpu *rv, fastpath_t fastpath)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	struct rdt_step *s = &rv->step;
	u32 info = vmread(VM_EXIT_INTR_INFO);
	enum seen seen = vmx_seen(rv, info);
	bool done;
	u8 out;
	int r;

	if (s->armed && (seen == SEEN_HOST || seen == SEEN_FAULT)) {
		if (seen == SEEN_FAULT && s->tf)
			vmx_forget_trap();
		r = rdt_orig(vmx_handle_exit)(vcpu, fastpath);
		vmx_keep_window(rv);
		return r;
	}

	if (seen == SEEN_OTHER && s->armed && s->tf)
		vmx_forget_trap();
	/* An IRET that faults has unblocked NMIs. */
	if (seen == SEEN_EXCEPTION && s->insn == INSN_IRET)
		s->nmi_blocked = false;
	done = seen == SEEN_TRAP || seen == SEEN_DELIVERED || (seen != SEEN_EXCEPTION && moved(rv));
	out = finish(vm, rv, done);
	if (out)
		return out & RDT_STEP_FREEZE ? rdt_freeze(vcpu) : 1;
	if (seen == SEEN_EXCEPTION) {
		/* For int3 and into. */
		vcpu->arch.event_exit_inst_len = vmread(VM_EXIT_INSTRUCTION_LEN);
		requeue(vcpu, info & 31, vmread(VM_EXIT_INTR_ERROR_CODE),
			vmread(EXIT_QUALIFICATION));
		return 1;
	}
	if (seen == SEEN_TRAP && s->tf) {
		unsigned long dr6 = vmread(EXIT_QUALIFICATION);

		if (vmx_own_tf(rv) && !(dr6 & DR_TRAP_BITS))
			return 1;
		if (!(vcpu->guest_debug & (KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP))) {
			dr6 = guest_db(rv, dr6);
			if (dr6)
				kvm_queue_exception_p(vcpu, DB_VECTOR, dr6);
			return 1;
		}
	}
	/* The root of the view it happened in is gone: let it happen again. */
	if (seen == SEEN_FAULT)
		return 1;
	return rdt_orig(vmx_handle_exit)(vcpu, fastpath);
}

static noinline int vmx_exit_stepping(struct kvm_vcpu *vcpu, fastpath_t fastpath)
{
	struct rdt_vm *vm;
	struct rdt_vcpu *rv;
	int r;

	rdt_hook_enter(&rdt_hook_vmx_handle_exit);
	rv = stepper(vcpu, &vm);
	r = rv ? vmx_exit(vm, rv, fastpath) : rdt_orig(vmx_handle_exit)(vcpu, fastpath);
	rdt_hook_leave();
	return r;
}

static int hook_vmx_handle_exit(struct kvm_vcpu *vcpu, fastpath_t fastpath)
{
	rdt_hook_fired(&rdt_hook_vmx_handle_exit);
	/* Every exit of every VM comes by: no frame, no count (tasks RCU covers a jump). */
	if (likely(!atomic_read(&stepping)))
		return rdt_orig(vmx_handle_exit)(vcpu, fastpath);
	return vmx_exit_stepping(vcpu, fastpath);
}

/* ---- a thread that goes away in the middle -------------------------------------------- */

/*
 * Scheduled out (with the run queue locked), or on the way to user space. Nothing may
 * sleep here; the view is left by a request, before the next entry.
 */
RDT_EDIT(kvm, kvm_arch_vcpu_put, RDT_ANY, true);

static void hook_kvm_arch_vcpu_put(struct pt_regs *args)
{
	struct kvm_vcpu *vcpu = (struct kvm_vcpu *)args->di;
	struct rdt_vcpu *rv;
	struct rdt_vm *vm;

	if (likely(!atomic_read(&stepping)))
		return;
	/* Not always in kvm->srcu: this is what keeps the VM, see rdt_vm_detach(). */
	rcu_read_lock();
	rv = stepper(vcpu, &vm);
	if (rv && READ_ONCE(rv->step.state) == RDT_STEP_ON) {
		rv->step.moved = moved(rv);
		disarm(rv, rv->step.moved);
		kvm_make_request(KVM_REQ_MMU_FREE_OBSOLETE_ROOTS, vcpu);
		smp_store_release(&rv->step.state, RDT_STEP_PARKED);
	}
	rcu_read_unlock();
}

/* The first thing of an entry that KVM does on that request, in the vCPU's thread. */
RDT_REPLACE(kvm, kvm_mmu_free_obsolete_roots, RDT_ANY, true);

static void hook_kvm_mmu_free_obsolete_roots(struct kvm_vcpu *vcpu)
{
	struct rdt_vcpu *rv;
	struct rdt_vm *vm;

	rdt_hook_enter(&rdt_hook_kvm_mmu_free_obsolete_roots);
	if (unlikely(atomic_read(&stepping))) {
		rv = stepper(vcpu, &vm);
		if (rv && READ_ONCE(rv->step.state) != RDT_STEP_ON)
			/* FREEZE is for the next time that the instruction is tried. */
			(void)finish(vm, rv, rv->step.moved);
	}
	/* Parked, and then the VM was detached; perhaps attached anew. */
	if (unlikely(rdt_role_view(vcpu->arch.root_mmu.root_role) == RDT_VIEW_STEP)) {
		vm = rdt_vm_find(vcpu->kvm);
		rv = vm ? rdt_vcpu_peek(vm, vcpu) : NULL;
		if (!rv || rdt_core_vcpu_view(rv->core) != RDT_VIEW_STEP)
			rdt_cpu_set_view(vcpu, RDT_VIEW_ROOT);
	}
	rdt_domain_evict(vcpu);
	rdt_orig(kvm_mmu_free_obsolete_roots)(vcpu);
	rdt_hook_leave();
}

/* ---- lifetimes --------------------------------------------------------------------- */

bool rdt_step_possible(void)
{
	u32 low, high;

	/* The high half is what may be set. */
	return !rdt_is_vmx || (!rdmsr_safe(MSR_IA32_VMX_PINBASED_CTLS, &low, &high) &&
			       high & PIN_BASED_VIRTUAL_NMIS);
}

void rdt_step_close(struct rdt_vm *vm)
{
	/* A vCPU takes as long as one instruction does, or is parked. */
	while (!rdt_step_claim(vm, CLOSED) && READ_ONCE(vm->step_owner) != CLOSED)
		schedule_timeout_uninterruptible(1);
}

void rdt_step_forget(struct rdt_vcpu *rv)
{
	if (rv->step.state != RDT_STEP_NONE)
		atomic_dec(&stepping);
}
