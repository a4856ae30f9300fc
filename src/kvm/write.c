// SPDX-License-Identifier: GPL-2.0
/*
 * Writes to guest memory that no nested page table sees: KVM makes them itself, for
 * an instruction it emulates or for a structure that the guest asked it to keep.
 *
 * write_emulate() and __kvm_write_guest_page() are given the guest-physical address
 * that is written, so a guest that changes its page tables under the emulator
 * gains nothing.
 */
#include "redoubt.h"

#include <linux/cache.h>
#include <linux/pagemap.h>
#include <linux/uaccess.h>

#include <asm/apicdef.h>

#include "hook.h"

/* KVM's kvm_emulate.h, not public. */
#define X86EMUL_CONTINUE	0
#define X86EMUL_UNHANDLEABLE	1
#define X86EMUL_PROPAGATE_FAULT 2
#define X86EMUL_CMPXCHG_FAILED	4

/* May these bytes be written for this vCPU? Reported either way, as the rule says. */
static bool may_write(struct rdt_vm *vm, struct kvm_vcpu *vcpu, gpa_t gpa, const void *val,
		      u32 bytes)
{
	struct rdt_vcpu *rv = rdt_vcpu_peek(vm, vcpu);
	u8 view = rv ? rdt_core_vcpu_view(rv->core) : RDT_VIEW_ROOT;
	struct rdt_fault f = {
		.gpa = gpa,
		.access = RDT_ACC_W,
		.emulated = !(rv && rv->emulating),
		.size = min(bytes, 255u),
		.new_val = val,
	};
	struct rdt_cpu cpu;

	/* In a domain's view W is no leave: KVM would write the VMM's page, not the domain's. */
	if (likely(!rdt_is_domain(view) && rdt_core_access(vm->core, view, gpa_to_gfn(gpa)) & RDT_ACC_W))
		return true;
	rdt_cpu_load(vcpu, view, &cpu);
	return rdt_core_kvm_write(vm->core, &f, &cpu) == RDT_V_PASS;
}

/* ---- the store itself ----------------------------------------------------------- */

static int copy_user(unsigned long hva, const void *new, unsigned int bytes)
{
	return __copy_to_user_inatomic((void __user *)hva, new, bytes) ? -EFAULT : 0;
}

/* 1: it was not @old. */
static int exchange_user(unsigned long hva, const void *old, const void *new, unsigned int bytes)
{
#define RDT_CMPXCHG(type)							\
	({									\
		type __user *p = (type __user *)hva;				\
		type o = *(const type *)old;					\
		int res = -EFAULT;						\
		if (user_access_begin(p, sizeof(type))) {			\
			res = 0;						\
			if (!unsafe_try_cmpxchg_user(p, &o, *(const type *)new, fault))	\
				res = 1;					\
			user_access_end();					\
		}								\
		res;								\
	})
	switch (bytes) {
	case 1:
		return RDT_CMPXCHG(u8);
	case 2:
		return RDT_CMPXCHG(u16);
	case 4:
		return RDT_CMPXCHG(u32);
	case 8:
		return RDT_CMPXCHG(u64);
	}
	return -EFAULT;
fault:
	user_access_end();
	return -EFAULT;
}

/* Of a guest that changes its policy all the time, or a VMM that takes the page away. */
#define STORE_TRIES	16

/*
 * Store, in one page, what was allowed when the policy had the number @seq; with @old, if it
 * is there. KVM's own copy would sleep for a page that the VMM has not got, and be made
 * when a rule has come meanwhile. Here a rule is either seen, or its zap, which takes
 * mmu_lock for writing, waits. -EAGAIN: the policy is another one.
 */
static int store_under(struct rdt_vm *vm, u32 seq, unsigned long hva, const void *old,
		       const void *new, unsigned int bytes)
{
	int i, r = -EFAULT;

	for (i = 0; i < STORE_TRIES; i++) {
		read_lock(&vm->kvm->mmu_lock);
		if (rdt_core_policy_seq(vm->core) == seq) {
			pagefault_disable();
			r = old ? exchange_user(hva, old, new, bytes) : copy_user(hva, new, bytes);
			pagefault_enable();
		} else {
			r = -EAGAIN;
		}
		read_unlock(&vm->kvm->mmu_lock);
		if (r != -EFAULT || fault_in_safe_writeable((const char __user *)hva, bytes))
			break;
	}
	return r;
}

/* ---- KVM's emulator ---------------------------------------------------------------- */

/* Never crosses a page: the emulator splits before. */
RDT_REPLACE(kvm, write_emulate, RDT_ANY, true);

static int emulated_store(struct rdt_vm *vm, struct kvm_vcpu *vcpu, gpa_t gpa, void *val, int bytes)
{
	struct rdt_vcpu *rv = rdt_vcpu_get(vm, vcpu);
	int i, r;

	if (!rv)
		return 1;
	for (i = 0; i < STORE_TRIES; i++) {
		rv->checked_seq = rdt_core_policy_seq(vm->core);
		if (!may_write(vm, vcpu, gpa, val, bytes))
			break;
		rv->checked = true;
		rv->overtaken = false;
		r = rdt_orig(write_emulate)(vcpu, gpa, val, bytes);
		rv->checked = false;
		if (!rv->overtaken)
			return r;
	}
	/* "Done": anything else would send the write to the VMM as MMIO. */
	return 1;
}

static int hook_write_emulate(struct kvm_vcpu *vcpu, gpa_t gpa, void *val, int bytes)
{
	struct rdt_vm *vm;
	int r;

	rdt_hook_enter(&rdt_hook_write_emulate);
	vm = rdt_vm_find(vcpu->kvm);
	r = vm ? emulated_store(vm, vcpu, gpa, val, bytes) :
		 rdt_orig(write_emulate)(vcpu, gpa, val, bytes);
	rdt_hook_leave();
	return r;
}

RDT_IMPORT(kvm, emulator_write_emulated, RDT_ANY);
#ifdef RDT_HAVE_kvm_mmu_track_write
RDT_IMPORT(kvm, kvm_mmu_track_write, RDT_ANY);
#define track_write	rdt_call(kvm_mmu_track_write)
#else
RDT_IMPORT(kvm, kvm_page_track_write, RDT_ANY);
#define track_write	rdt_call(kvm_page_track_write)
#endif

/* The local APIC; a lock across cache lines, for which a host that detects those dies. */
static bool plain_store(struct kvm_vcpu *vcpu, gpa_t gpa, unsigned int bytes)
{
	gpa_t line = boot_cpu_has(X86_FEATURE_SPLIT_LOCK_DETECT) ? cache_line_size() : PAGE_SIZE;

	return (gpa & PAGE_MASK) == APIC_DEFAULT_PHYS_BASE ||
	       ((gpa ^ (gpa + bytes - 1)) & ~(line - 1));
}

/*
 * KVM's own version walks the guest's page tables once more, and a guest that
 * changes them in between would have it write elsewhere than where we looked.
 * For an attached VM this one does it all, with one walk.
 */
static int exchange(struct rdt_vm *vm, struct x86_emulate_ctxt *ctxt, unsigned long addr,
		    const void *old, const void *new, unsigned int bytes, struct x86_exception *e)
{
	struct kvm_vcpu *vcpu = rdt_member(ctxt, x86_emulate_ctxt, vcpu);
	gpa_t gpa = kvm_mmu_gva_to_gpa_write(vcpu, addr, NULL);
	int i, r = -EAGAIN;
	unsigned long hva;
	u32 seq;

	/* Where KVM stores instead, without comparing: hook_write_emulate() has a look. */
	if (gpa == INVALID_GPA || plain_store(vcpu, gpa, bytes))
		return rdt_call(emulator_write_emulated)(ctxt, addr, new, bytes, e);
	hva = kvm_vcpu_gfn_to_hva(vcpu, gpa_to_gfn(gpa));
	if (kvm_is_error_hva(hva))
		return rdt_call(emulator_write_emulated)(ctxt, addr, new, bytes, e);
	for (i = 0; i < STORE_TRIES && r == -EAGAIN; i++) {
		seq = rdt_core_policy_seq(vm->core);
		if (!may_write(vm, vcpu, gpa, new, bytes)) {
			memset(e, 0, RDT_SIZE_x86_exception);
			rdt_member(e, x86_exception, vector) = GP_VECTOR;
			rdt_member(e, x86_exception, error_code_valid) = true;
			return X86EMUL_PROPAGATE_FAULT;
		}
		r = store_under(vm, seq, hva + offset_in_page(gpa), old, new, bytes);
	}
	if (r < 0)
		return X86EMUL_UNHANDLEABLE;
	kvm_vcpu_mark_page_dirty(vcpu, gpa_to_gfn(gpa));
	if (r)
		return X86EMUL_CMPXCHG_FAILED;
	/* It may be a page table of a nested guest, which KVM shadows. */
	track_write(vcpu, gpa, new, bytes);
	return X86EMUL_CONTINUE;
}

RDT_REPLACE(kvm, emulator_cmpxchg_emulated, RDT_ANY, true);

static int hook_emulator_cmpxchg_emulated(struct x86_emulate_ctxt *ctxt, unsigned long addr,
					  const void *old, const void *new, unsigned int bytes,
					  struct x86_exception *exception)
{
	struct kvm_vcpu *vcpu = rdt_member(ctxt, x86_emulate_ctxt, vcpu);
	struct rdt_vm *vm;
	int r;

	rdt_hook_enter(&rdt_hook_emulator_cmpxchg_emulated);
	vm = rdt_vm_find(vcpu->kvm);
	/* KVM turns what crosses a page or is too wide into a plain store: write_emulate(). */
	if (vm && bytes <= 8 && is_power_of_2(bytes) && offset_in_page(addr) + bytes <= PAGE_SIZE)
		r = exchange(vm, ctxt, addr, old, new, bytes, exception);
	else
		r = rdt_orig(emulator_cmpxchg_emulated)(ctxt, addr, old, new, bytes, exception);
	rdt_hook_leave();
	return r;
}

/* ---- everything that KVM copies in --------------------------------------------------- */

RDT_REPLACE(kvm, __kvm_write_guest_page, RDT_ANY, true);

static int write_page(struct rdt_vm *vm, struct kvm_memory_slot *slot, gfn_t gfn, const void *data,
		      int offset, int len)
{
	struct kvm_vcpu *vcpu = kvm_get_running_vcpu();
	struct rdt_vcpu *rv = vcpu && vcpu->kvm == vm->kvm ? rdt_vcpu_peek(vm, vcpu) : NULL;
	unsigned long hva = gfn_to_hva_memslot(slot, gfn);
	struct rdt_fault f = {
		.gpa = gfn_to_gpa(gfn) + offset,
		.access = RDT_ACC_W,
		.host = true,
		.size = min(len, 255),
		.new_val = len >= 8 ? data : NULL,
	};
	int i, r = -EAGAIN;
	u32 seq;

	if (kvm_is_error_hva(hva))
		return -EFAULT;
	/* emulated_store() has asked already. */
	if (rv && rv->checked) {
		r = store_under(vm, rv->checked_seq, hva + offset, NULL, data, len);
		rv->overtaken = r == -EAGAIN;
	} else {
		for (i = 0; i < STORE_TRIES && r == -EAGAIN; i++) {
			seq = rdt_core_policy_seq(vm->core);
			if (!(rdt_core_access(vm->core, RDT_VIEW_ROOT, gfn) & RDT_ACC_W) &&
			    rdt_core_kvm_write(vm->core, &f, NULL) != RDT_V_PASS)
				return -EFAULT;
			r = store_under(vm, seq, hva + offset, NULL, data, len);
		}
	}
	if (r)
		return -EFAULT;
	mark_page_dirty_in_slot(vm->kvm, slot, gfn);
	return 0;
}

static int hook___kvm_write_guest_page(struct kvm *kvm, struct kvm_memory_slot *slot, gfn_t gfn,
				       const void *data, int offset, int len)
{
	struct rdt_vm *vm;
	int r;

	rdt_hook_enter(&rdt_hook___kvm_write_guest_page);
	vm = rdt_vm_find(kvm);
	r = vm ? write_page(vm, slot, gfn, data, offset, len) :
		 rdt_orig(__kvm_write_guest_page)(kvm, slot, gfn, data, offset, len);
	rdt_hook_leave();
	return r;
}

/*
 * KVM walks the guest's page tables itself, for an instruction that it emulates, and
 * sets accessed and dirty bits as the CPU does, by a compare-and-exchange of its own.
 * It leaves them alone where it is told that the slot cannot be written.
 */
static void judge_walk(struct kvm_vcpu *vcpu, gfn_t gfn, bool *writable)
{
	struct rdt_vm *vm = vcpu ? rdt_vm_find(vcpu->kvm) : NULL;

	if (vm && !rdt_core_walk_may_set(vm->core, gfn))
		*writable = false;
}

#ifdef RDT_HAVE_kvm_vcpu_gfn_to_hva_prot
RDT_REPLACE(kvm, kvm_vcpu_gfn_to_hva_prot, RDT_ANY, true);

static unsigned long hook_kvm_vcpu_gfn_to_hva_prot(struct kvm_vcpu *vcpu, gfn_t gfn, bool *writable)
{
	unsigned long hva;

	rdt_hook_enter(&rdt_hook_kvm_vcpu_gfn_to_hva_prot);
	hva = rdt_orig(kvm_vcpu_gfn_to_hva_prot)(vcpu, gfn, writable);
	if (writable)
		judge_walk(vcpu, gfn, writable);
	rdt_hook_leave();
	return hva;
}
#else
RDT_REPLACE(kvm, gfn_to_hva_memslot_prot, RDT_ANY, true);

static unsigned long hook_gfn_to_hva_memslot_prot(struct kvm_memory_slot *slot, gfn_t gfn,
						  bool *writable)
{
	unsigned long hva;

	rdt_hook_enter(&rdt_hook_gfn_to_hva_memslot_prot);
	hva = rdt_orig(gfn_to_hva_memslot_prot)(slot, gfn, writable);
	if (writable)
		judge_walk(kvm_get_running_vcpu(), gfn, writable);
	rdt_hook_leave();
	return hva;
}
#endif

/* ---- structures that KVM keeps for the guest ---------------------------------- */

RDT_REPLACE(kvm, kvm_gfn_to_hva_cache_init, RDT_ANY, true);

static int hook_kvm_gfn_to_hva_cache_init(struct kvm *kvm, struct gfn_to_hva_cache *ghc, gpa_t gpa,
					  unsigned long len)
{
	struct rdt_vm *vm;
	int r;

	rdt_hook_enter(&rdt_hook_kvm_gfn_to_hva_cache_init);
	vm = rdt_vm_find(kvm);
	r = rdt_orig(kvm_gfn_to_hva_cache_init)(kvm, ghc, gpa, len);
	if (vm) {
		/* Either we see the frame's bit or rdt_port_holds_pv() sees the cache. */
		smp_mb();
		if (!rdt_core_may_hold_pv(vm->core, gpa, len)) {
			/* KVM may use it all the same: it must lead nowhere. */
			ghc->gpa = INVALID_GPA;
			ghc->hva = KVM_HVA_ERR_BAD;
			ghc->memslot = NULL;
			r = -EINVAL;
		}
	}
	rdt_hook_leave();
	return r;
}

RDT_REPLACE(kvm, kvm_gpc_activate, RDT_ANY, true);
RDT_IMPORT(kvm, kvm_gpc_deactivate, RDT_ANY);

#ifdef RDT_GPC_HAS_KVM
static int hook_kvm_gpc_activate(struct gfn_to_pfn_cache *gpc, gpa_t gpa, unsigned long len)
{
	struct kvm *kvm = gpc->kvm;
#define RDT_GPC_ONLY gpc
#define RDT_GPC_ARGS gpc, gpa, len
#else
static int hook_kvm_gpc_activate(struct kvm *kvm, struct gfn_to_pfn_cache *gpc,
				 struct kvm_vcpu *vcpu, enum pfn_cache_usage usage, gpa_t gpa,
				 unsigned long len)
{
#define RDT_GPC_ONLY kvm, gpc
#define RDT_GPC_ARGS kvm, gpc, vcpu, usage, gpa, len
#endif
	struct rdt_vm *vm;
	int r;

	rdt_hook_enter(&rdt_hook_kvm_gpc_activate);
	vm = rdt_vm_find(kvm);
	if (vm && !rdt_core_may_hold_pv(vm->core, gpa, len)) {
		r = -EINVAL;
	} else {
		r = rdt_orig(kvm_gpc_activate)(RDT_GPC_ARGS);
		/* As above; KVM writes only behind this. */
		smp_mb();
		if (vm && !rdt_core_may_hold_pv(vm->core, gpa, len)) {
			rdt_call(kvm_gpc_deactivate)(RDT_GPC_ONLY);
			r = -EINVAL;
		}
	}
	rdt_hook_leave();
	return r;
}

static bool touches(gfn_t first, u64 count, gpa_t gpa)
{
	gfn_t gfn = gpa_to_gfn(gpa);

	return gfn >= first && gfn - first < count;
}

/* Also what was switched off: KVM keeps the address, and asks nobody when it is on again. */
static bool cached(gfn_t first, u64 count, struct gfn_to_hva_cache *ghc)
{
	return READ_ONCE(ghc->memslot) && touches(first, count, READ_ONCE(ghc->gpa));
}

int rdt_port_holds_pv(void *host, rdt_u64 gfn, rdt_u64 count)
{
	struct rdt_vm *vm = host;
	struct kvm_vcpu *vcpu;
	unsigned long i;

	/*
	 * Read without the vCPUs' locks. Pairs with the barriers in the hooks above: they
	 * see the frame's bit, which is set by now, or we see what they have set up.
	 */
	smp_mb();
	kvm_for_each_vcpu(i, vcpu, vm->kvm) {
		struct kvm_vcpu_arch *a = &vcpu->arch;

		if ((READ_ONCE(a->pv_time.active) && touches(gfn, count, a->pv_time.gpa)) ||
		    cached(gfn, count, &a->st.cache) || cached(gfn, count, &a->apf.data) ||
		    cached(gfn, count, &a->pv_eoi.data) ||
		    rdt_nested_holds(vm, vcpu, gfn, count))
			return 1;
	}
	return 0;
}
