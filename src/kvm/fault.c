// SPDX-License-Identifier: GPL-2.0
/*
 * Nested page faults: what a view grants (make_spte and the hooks that keep its
 * answer from being widened) and what happens to what it refuses.
 */
#include "redoubt.h"

#include "cpu.h"
#include "hook.h"
#include "step.h"

/* KVM's mmu.h, not public: access bits of make_spte(). */
#define ACC_EXEC	1u
#define ACC_WRITE	2u
#define ACC_USER	4u	/* on EPT: readable */
/* KVM's spte.h */
#define SPTE_PRESENT	BIT_ULL(11)

RDT_REPLACE(kvm, kvm_mmu_page_fault, RDT_ANY, true);
RDT_REPLACE(kvm, x86_emulate_instruction, RDT_ANY, true);
RDT_IMPORT(kvm, kvm_read_guest_virt, RDT_ANY);

/* ---- what a view grants ------------------------------------------------------ */

RDT_REPLACE(kvm, make_spte, RDT_ANY, true);

static bool hook_make_spte(struct kvm_vcpu *vcpu, struct kvm_mmu_page *sp,
			   const struct kvm_memory_slot *slot, unsigned int pte_access, gfn_t gfn,
			   kvm_pfn_t pfn, u64 old_spte, bool prefetch, bool can_unsync,
			   bool host_writable, u64 *new_spte)
{
	struct rdt_vm *vm;
	u8 view, grant = RDT_ACC_RWX;
	union kvm_mmu_page_role role = rdt_member(sp, kvm_mmu_page, role);
	struct page *copy;
	void *page = NULL;
	bool wrprot;

	rdt_hook_enter(&rdt_hook_make_spte);
	vm = rdt_vm_find(vcpu->kvm);
	if (vm) {
		view = rdt_role_view(role);
		grant = rdt_core_access(vm->core, view, gfn);
		page = rdt_core_private(vm->core, view, gfn);
	} else if (static_branch_unlikely(&rdt_copies) && role.level == PG_LEVEL_4K) {
		copy = rdt_copy_find(vcpu->kvm, gfn);
		if (copy)
			pfn = page_to_pfn(copy);
	}
	/* A domain's own, in place of the VMM's, which is zeros. */
	if (page) {
		pfn = page_to_pfn(virt_to_page(page));
		host_writable = true;
	}
	/*
	 * Another vCPU was faster, and what is to be there has changed since: KVM must not change a leaf's frame (that is a
	 * BUG() of its). The zap that the change will bring waits for us.
	 */
	if (role.level == PG_LEVEL_4K && (old_spte & SPTE_PRESENT))
		pfn = (old_spte & PTE_PFN_MASK) >> PAGE_SHIFT;
	if (!(grant & RDT_ACC_W))
		pte_access &= ~ACC_WRITE;
	if (!(grant & RDT_ACC_X))
		pte_access &= ~ACC_EXEC;
	wrprot = rdt_orig(make_spte)(vcpu, sp, slot, pte_access, gfn, pfn, old_spte, prefetch,
				     can_unsync, host_writable, new_spte);
	/*
	 * KVM itself cannot express "present, no access", nor make an entry that can be
	 * executed and not read: that is a secret's, on EPT.
	 */
	if (!(grant & RDT_ACC_R))
		*new_spte &= ~(!rdt_is_vmx ? (u64)_PAGE_USER : grant & RDT_ACC_X ? 3ull : 7ull);
	rdt_hook_leave();
	/* A write by a nested guest gets no further than KVM's emulator, see write.c. */
	return wrprot || !(grant & RDT_ACC_W);
}

RDT_EDIT(kvm, kvm_mmu_hugepage_adjust, RDT_ANY, true);

static void hook_kvm_mmu_hugepage_adjust(struct pt_regs *args)
{
	struct kvm_vcpu *vcpu = (struct kvm_vcpu *)args->di;
	struct kvm_page_fault *fault = (struct kvm_page_fault *)args->si;
	struct rdt_vm *vm = rdt_vm_find(vcpu->kvm);
	gfn_t gfn = rdt_member(fault, kvm_page_fault, gfn);
	u8 *max = &rdt_member(fault, kvm_page_fault, max_level);
	struct rdt_vcpu *rv;

	if (!vm) {
		if (static_branch_unlikely(&rdt_copies))
			while (*max > PG_LEVEL_4K &&
			       rdt_copy_within(vcpu->kvm, gfn & -KVM_PAGES_PER_HPAGE(*max), KVM_PAGES_PER_HPAGE(*max)))
				--*max;
		return;
	}
	if (*max > PG_LEVEL_4K)
		*max = rdt_core_max_level(vm->core, rdt_role_view(vcpu->arch.mmu->root_role), gfn, *max);
	/* Only here the frame is known that a nested guest fetches from. */
	if (unlikely(vcpu->arch.mmu != &vcpu->arch.root_mmu) && rdt_member(fault, kvm_page_fault, exec) &&
	    !(rdt_core_access(vm->core, RDT_VIEW_ROOT, gfn) & RDT_ACC_X)) {
		rv = rdt_vcpu_peek(vm, vcpu);
		if (rv)
			rv->fetched = gfn + 1;
	}
}

/*
 * When KVM splits a huge page under nx_huge_pages it makes the small pages
 * executable if the table's role says so, which in our views is not its to say.
 */
/* Not in the self-test: whether the host has a huge page for that VM is not ours to say. */
RDT_EDIT(kvm, make_huge_page_split_spte, RDT_ANY, false);

static void hook_make_huge_page_split_spte(struct pt_regs *args)
{
	union kvm_mmu_page_role role = { .word = args->dx };

	if (rdt_role_view(role) == RDT_VIEW_ROOT)
		return;
	role.access &= ~ACC_EXEC;
	args->dx = role.word;
}

/* ---- what it refuses --------------------------------------------------------- */

/*
 * An instruction that faulted while it pushed an event's frame: the event is what
 * goes. For an interrupt or NMI that is what hardware does too when delivery
 * faults; an exception turns into a double fault by KVM's own rules.
 */
void rdt_inject_gp(struct kvm_vcpu *vcpu)
{
	vcpu->arch.interrupt.injected = false;
	vcpu->arch.nmi_injected = false;
	kvm_queue_exception_e(vcpu, GP_VECTOR, 0);
}

int rdt_freeze(struct kvm_vcpu *vcpu)
{
	/* The VMM hears that the guest is not to go on; RIP is at the write. */
	vcpu->run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	vcpu->run->system_event.type = KVM_SYSTEM_EVENT_CRASH;
	vcpu->run->system_event.ndata = 0;
	return 0;
}

int rdt_fetch(struct kvm_vcpu *vcpu, unsigned long addr, u8 *insn, int len)
{
	struct x86_exception_room {
		u8 room[64];
	} e;
	int n = min_t(int, len, PAGE_SIZE - offset_in_page(addr));

	BUILD_BUG_ON(sizeof(e) < RDT_SIZE_x86_exception);
	if (rdt_call(kvm_read_guest_virt)(vcpu, addr, insn, n, (struct x86_exception *)&e))
		return 0;
	if (n < len && !rdt_call(kvm_read_guest_virt)(vcpu, addr + n, insn + n, len - n,
						      (struct x86_exception *)&e))
		n = len;
	return n;
}

/* Length of the int n, int3 or into at RIP; 0 when it is none (int1 included). */
static u8 soft_insn_len(struct rdt_vm *vm, struct rdt_vcpu *rv, unsigned long rip)
{
	u8 insn[15];
	int i, n;

	/* KVM's walk would end in the VMM's page, which is zeros. */
	if (rdt_is_domain(rdt_core_vcpu_view(rv->core)))
		n = rdt_core_read_inside(vm->core, rv->core, rip, insn, sizeof(insn));
	else
		n = rdt_fetch(rv->kvcpu, rip, insn, sizeof(insn));
	for (i = 0; i < n; i++)
		switch (insn[i]) {
		case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x40 ... 0x4f:
		case 0x64 ... 0x67: case 0xf0: case 0xf2: case 0xf3:
			continue;
		case 0xcc:
			return i + 1;
		case 0xcd:
			return i + 2;
		default:
			return 0;
		}
	return 0;
}

/* Its length is what the thread goes on behind. */
u8 rdt_soft_event_len(struct rdt_vm *vm, struct rdt_vcpu *rv, unsigned long rip)
{
	struct kvm_vcpu_arch *a = &rv->kvcpu->arch;
	bool soft = (a->interrupt.injected && a->interrupt.soft) ||
		    (a->exception.injected &&
		     (a->exception.vector == BP_VECTOR || a->exception.vector == OF_VECTOR));

	if (!soft)
		return 0;
	return rdt_is_vmx ? a->event_exit_inst_len : soft_insn_len(vm, rv, rip);
}

/* Make the event come again, at the stub, as if it had struck there. */
static void redeliver_soft(struct kvm_vcpu *vcpu, struct rdt_cpu *cpu, u8 len)
{
	struct kvm_vcpu_arch *a = &vcpu->arch;

	if (rdt_is_vmx) {
		/* The CPU will add the length to RIP: the stub has NOPs in front. */
		cpu->rip -= len;
		return;
	}
	/* As an event of its own: SVM would look for the instruction at RIP. */
	if (a->exception.injected) {
		a->interrupt.nr = a->exception.vector;
		a->interrupt.injected = true;
		a->exception.injected = false;
	}
	a->interrupt.soft = false;
}

void rdt_event_to_stub(struct kvm_vcpu *vcpu, struct rdt_cpu *cpu, u8 soft_len)
{
	if (soft_len)
		redeliver_soft(vcpu, cpu, soft_len);
	rdt_cpu_store(vcpu, cpu);
	rdt_cpu_clear_shadow(vcpu);
}

static int emulate(struct rdt_vcpu *rv, const struct rdt_fault *f, void *insn, int insn_len)
{
	struct kvm_vcpu *vcpu = rv->kvcpu;
	int r;

	/*
	 * The store goes through write.c's hooks, which report it. A walk's
	 * address is not the instruction's: let the emulator find its own.
	 */
	rv->emulating = true;
	if (f->walk)
		r = rdt_orig(x86_emulate_instruction)(vcpu, 0, 0, NULL, 0);
	else
		r = rdt_orig(x86_emulate_instruction)(vcpu, f->gpa, EMULTYPE_PF, insn, insn_len);
	rv->emulating = false;
	return r;
}

/*
 * What KVM would emulate or skip in a domain is not there: its walk ends in the VMM's page. Nor is it
 * the VMM's business which instruction that was (KVM_EXIT_INTERNAL_ERROR has its bytes).
 */
static int hook_x86_emulate_instruction(struct kvm_vcpu *vcpu, gpa_t gpa, int type, void *insn, int len)
{
	int r;

	rdt_hook_enter(&rdt_hook_x86_emulate_instruction);
	if (rdt_domain_cut_short(vcpu, type & EMULTYPE_TRAP_UD))
		r = 1;
	else
		r = rdt_orig(x86_emulate_instruction)(vcpu, gpa, type, insn, len);
	rdt_hook_leave();
	return r;
}

/* It happened while an event was delivered, and no instruction could do that again. */
static int stuck(struct kvm_vcpu *vcpu)
{
	vcpu->run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	vcpu->run->internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
	vcpu->run->internal.ndata = 0;
	return 0;
}

/* Record what the instruction, or the event's delivery, writes: in its own way each. */
static int recorded(struct rdt_vm *vm, struct rdt_vcpu *rv, const struct rdt_fault *f, u32 seq,
		    struct rdt_cpu *cpu, void *insn, int insn_len)
{
	int r;

	if (!f->walk && !f->vectoring && rdt_store(vm, rv, f, seq, cpu, insn, insn_len))
		return 1;
	if (rdt_step_begin(vm, rv, f, cpu))
		return 1;
	if (f->vectoring)
		return stuck(rv->kvcpu);
	r = emulate(rv, f, insn, insn_len);
	rdt_step_keep_trap(rv->kvcpu);
	return r;
}

/* No RAM there, or none to write: KVM will emulate the instruction. */
static bool is_mmio(struct kvm *kvm, gpa_t gpa, u64 ec)
{
	struct kvm_memory_slot *slot;

	if (ec & PFERR_RSVD_MASK)
		return true;
	slot = gfn_to_memslot(kvm, gpa_to_gfn(gpa));
	return !slot || (ec & PFERR_WRITE_MASK && slot->flags & KVM_MEM_READONLY);
}

static int refused(struct rdt_vm *vm, struct rdt_vcpu *rv, struct kvm_vcpu *vcpu, gpa_t gpa, u64 ec,
		   void *insn, int insn_len, u8 access)
{
	struct rdt_fault f = {
		.gpa = gpa,
		.access = access,
		.walk = !!(ec & PFERR_GUEST_PAGE_MASK),
		.vectoring = rdt_delivers_event(vcpu),
	};
	bool stepped = false;
	struct rdt_cpu cpu;
	u32 seq;
	int r;

	if (!rv)
		rv = rdt_vcpu_get(vm, vcpu);
	if (!rv)
		return -ENOMEM;
	atomic64_inc(&vm->faults);
	f.gva_valid = rdt_cpu_fault_gva(&f.gva);
	if (rdt_core_vcpu_view(rv->core) == RDT_VIEW_STEP) {
		if (rdt_step_fault(vm, rv, &f, &r))
			return rdt_orig(kvm_mmu_page_fault)(vcpu, gpa, ec, insn, insn_len);
		if (r != -EAGAIN)
			return r;
		/* It faulted in another root than the vCPU has now. */
		if (rdt_core_access(vm->core, rdt_core_vcpu_view(rv->core), gpa_to_gfn(gpa)) & access)
			return 1;
		stepped = true;
	}
	rdt_cpu_load(vcpu, rdt_core_vcpu_view(rv->core), &cpu);
	if (f.vectoring)
		f.soft_len = rdt_soft_event_len(vm, rv, cpu.rip);
	/* In a domain nothing is emulated: KVM would read and write the VMM's pages. */
	f.mmio = rdt_is_domain(cpu.view) && is_mmio(vcpu->kvm, gpa, ec);

	seq = rdt_core_policy_seq(vm->core);
	switch (rdt_core_fault(vm->core, rv->core, &f, &cpu)) {
	case RDT_V_PASS:
		/* After a step the root is another one than it faulted in. */
		return stepped ? 1 : rdt_orig(kvm_mmu_page_fault)(vcpu, gpa, ec, insn, insn_len);
	case RDT_V_RESUME:
		rdt_cpu_store(vcpu, &cpu);
		return 1;
	case RDT_V_AEX:
		rdt_event_to_stub(vcpu, &cpu, f.soft_len);
		return 1;
	case RDT_V_GP:
		rdt_inject_gp(vcpu);
		return 1;
	case RDT_V_STEP:
		return recorded(vm, rv, &f, seq, &cpu, insn, insn_len);
	case RDT_V_FREEZE:
		return rdt_freeze(vcpu);
	}
	return -EIO;
}

/*
 * The fault door, in and out: what a call into integrity mode costs is spent
 * here. False: it is no crossing, or not a right one.
 */
static bool crossed(struct rdt_vm *vm, struct rdt_vcpu *rv, struct kvm_vcpu *vcpu, gpa_t gpa, u8 view)
{
	enum rdt_door door = rdt_core_at_door(vm->core, rv->core, gpa_to_gfn(gpa));
	struct rdt_cpu cpu;

	if (door == RDT_DOOR_NONE || rdt_delivers_event(vcpu) || vcpu->arch.hflags & HF_GUEST_MASK)
		return false;
	if (door == RDT_DOOR_IN) {
		rdt_cpu_load(vcpu, view, &cpu);
	} else {
		cpu.gpr = vcpu->arch.regs;
		cpu.rip = reg_read(vcpu, VCPU_REGS_RIP);
		cpu.vcpu = vcpu->vcpu_idx;
		cpu.view = view;
		cpu.dirty = 0;
	}
	switch (rdt_core_door(vm->core, rv->core, door, &cpu)) {
	case RDT_V_RESUME:
		rdt_cpu_store(vcpu, &cpu);
		return true;
	case RDT_V_GP:
		rdt_inject_gp(vcpu);
		return true;
	default:
		return false;
	}
}

/*
 * By the tables that L1 has made for a nested guest: make_spte() refuses, and what KVM does
 * then is right for a write, which it emulates. A fetch it would let happen for ever.
 */
static int nested_fault(struct rdt_vm *vm, struct kvm_vcpu *vcpu, gpa_t gpa, u64 ec, void *insn,
			int insn_len)
{
	struct rdt_vcpu *rv = rdt_vcpu_get(vm, vcpu);
	struct rdt_fault f = { .access = RDT_ACC_X };
	struct rdt_cpu cpu;
	int r;

	if (!rv)
		return -ENOMEM;
	rv->fetched = 0;
	r = rdt_orig(kvm_mmu_page_fault)(vcpu, gpa, ec, insn, insn_len);
	if (likely(!rv->fetched) || r != 1)
		return r;
	atomic64_inc(&vm->faults);
	f.gpa = gfn_to_gpa(rv->fetched - 1);
	f.vectoring = rdt_delivers_event(vcpu);
	rdt_cpu_load(vcpu, RDT_VIEW_ROOT, &cpu);
	/* The rule may have gone meanwhile. */
	if (rdt_core_fault(vm->core, rv->core, &f, &cpu) != RDT_V_PASS)
		rdt_inject_gp(vcpu);
	return 1;
}

static noinline int attached_fault(struct rdt_vm *vm, struct kvm_vcpu *vcpu, gpa_t gpa, u64 ec,
				   void *insn, int insn_len)
{
	struct rdt_vcpu *rv;
	u8 view, access;
	int r;

	rdt_hook_enter(&rdt_hook_kvm_mmu_page_fault);
	if (vcpu->arch.mmu != &vcpu->arch.root_mmu) {
		r = nested_fault(vm, vcpu, gpa, ec, insn, insn_len);
		goto out;
	}
	rv = rdt_vcpu_peek(vm, vcpu);
	view = rv ? rdt_core_vcpu_view(rv->core) : RDT_VIEW_ROOT;
	if (rv && (ec & (PFERR_FETCH_MASK | PFERR_GUEST_PAGE_MASK | PFERR_RSVD_MASK)) == PFERR_FETCH_MASK &&
	    crossed(vm, rv, vcpu, gpa, view)) {
		r = 1;
		goto out;
	}
	if (unlikely(view == RDT_VIEW_STEP) && is_mmio(vcpu->kvm, gpa, ec)) {
		r = rdt_orig(kvm_mmu_page_fault)(vcpu, gpa, ec, insn, insn_len);
		r = rdt_step_emulated(vm, rv, r);
		goto out;
	}
	access = ec & PFERR_FETCH_MASK ? RDT_ACC_X : ec & PFERR_WRITE_MASK ? RDT_ACC_W : RDT_ACC_R;
	if (unlikely(rdt_is_domain(view) && is_mmio(vcpu->kvm, gpa, ec)))
		goto refuse;
	/* Not ours either: MMIO. */
	if (ec & PFERR_RSVD_MASK)
		goto pass;
	if (likely(rdt_core_access(vm->core, view, gpa_to_gfn(gpa)) & access))
		goto pass;
refuse:
	r = refused(vm, rv, vcpu, gpa, ec, insn, insn_len, access);
	goto out;
pass:
	r = rdt_orig(kvm_mmu_page_fault)(vcpu, gpa, ec, insn, insn_len);
out:
	rdt_hook_leave();
	return r;
}

static noinline int doorbell_fault(struct kvm_vcpu *vcpu, gpa_t gpa, u64 ec, void *insn, int insn_len)
{
	int r;

	rdt_hook_enter(&rdt_hook_kvm_mmu_page_fault);
	if (!rdt_doorbell_rung(vcpu, gpa, ec, insn, insn_len, &r))
		r = rdt_orig(kvm_mmu_page_fault)(vcpu, gpa, ec, insn, insn_len);
	rdt_hook_leave();
	return r;
}

static int hook_kvm_mmu_page_fault(struct kvm_vcpu *vcpu, gpa_t gpa, u64 ec, void *insn,
				   int insn_len)
{
	struct rdt_vm *vm = rdt_vm_find(vcpu->kvm);

	rdt_hook_fired(&rdt_hook_kvm_mmu_page_fault);
	if (vm)
		return attached_fault(vm, vcpu, gpa, ec, insn, insn_len);
	if (static_branch_unlikely(&rdt_doorbells))
		return doorbell_fault(vcpu, gpa, ec, insn, insn_len);
	return rdt_orig(kvm_mmu_page_fault)(vcpu, gpa, ec, insn, insn_len);
}
