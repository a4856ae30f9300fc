// SPDX-License-Identifier: GPL-2.0
/*
 * What KVM writes for a guest that makes guests.
 *
 * Most of it goes through __kvm_write_guest_page(): VMCS, MSR areas, PML. Not so what
 * KVM maps into the kernel, by kvm_vcpu_map(): the VMCB, SVM's host save area, VMX's
 * virtual-APIC page and posted-interrupt descriptor; nor the shadow VMCS, by an address
 * that KVM remembers. None of these may be in a protected frame, and a frame that is one
 * of them now cannot be protected.
 */
#include "redoubt.h"

#include "hook.h"

RDT_REPLACE(kvm, kvm_vcpu_map, RDT_ANY, false);

static bool within(gfn_t first, u64 count, gfn_t gfn)
{
	return gfn - first < count;
}

static bool in_map(gfn_t first, u64 count, const struct kvm_host_map *map)
{
	return READ_ONCE(map->hva) && within(first, count, READ_ONCE(map->gfn));
}

/* By what KVM itself remembers of a nested guest that runs. */
static bool in_use(struct kvm_vcpu *vcpu, gfn_t first, u64 count)
{
	struct gfn_to_hva_cache *ghc;

	if (!rdt_is_vmx)
		return READ_ONCE(vcpu->arch.hflags) & HF_GUEST_MASK &&
		       within(first, count, gpa_to_gfn(READ_ONCE(rdt_member(vcpu, vcpu_svm, nested__vmcb12_gpa))));
	ghc = &rdt_member(vcpu, vcpu_vmx, nested__shadow_vmcs12_cache);
	return in_map(first, count, &rdt_member(vcpu, vcpu_vmx, nested__virtual_apic_map)) ||
	       in_map(first, count, &rdt_member(vcpu, vcpu_vmx, nested__pi_desc_map)) ||
	       in_map(first, count, &rdt_member(vcpu, vcpu_vmx, nested__hv_evmcs_map)) ||
	       /* It is kept, and written with no question asked, for as long as it is the same. */
	       (READ_ONCE(ghc->memslot) && within(first, count, gpa_to_gfn(READ_ONCE(ghc->gpa))));
}

bool rdt_nested_holds(struct rdt_vm *vm, struct kvm_vcpu *vcpu, gfn_t first, u64 count)
{
	struct rdt_vcpu *rv = rdt_vcpu_peek(vm, vcpu);
	int i;

	/* In this order: a nested guest that exits is mapped before it is not in use any more. */
	if (in_use(vcpu, first, count))
		return true;
	smp_rmb();
	for (i = 0; rv && i < ARRAY_SIZE(rv->mapped); i++) {
		gfn_t mapped = READ_ONCE(rv->mapped[i]);

		if (mapped && within(first, count, mapped - 1))
			return true;
	}
	return false;
}

/* To KVM's callers -EINVAL is an address without memory: #GP, a failed entry. */
static int map_frame(struct rdt_vm *vm, struct kvm_vcpu *vcpu, gfn_t gfn, struct kvm_host_map *map)
{
	struct rdt_vcpu *rv = rdt_vcpu_get(vm, vcpu);
	gfn_t *slot, *end;
	int r = -EINVAL;
	bool held;

	if (!rv)
		return r;
	/*
	 * What is in use is not protected, and nobody manages to: the bit of one who tries is
	 * not to be taken seriously, and L2 could not exit.
	 */
	held = in_use(vcpu, gfn, 1);
	end = rv->mapped + ARRAY_SIZE(rv->mapped);
	for (slot = rv->mapped; slot < end && *slot; slot++)
		;
	if (slot == end)
		return r;
	WRITE_ONCE(*slot, gfn + 1);
	/* Either we see the frame's bit or rdt_port_holds_pv() sees this. */
	smp_mb();
	if (held || rdt_core_may_hold_pv(vm->core, gfn_to_gpa(gfn), PAGE_SIZE))
		r = rdt_orig(kvm_vcpu_map)(vcpu, gfn, map);
	if (r)
		WRITE_ONCE(*slot, 0);
	return r;
}

static int hook_kvm_vcpu_map(struct kvm_vcpu *vcpu, gfn_t gfn, struct kvm_host_map *map)
{
	struct rdt_vm *vm;
	int r;

	rdt_hook_enter(&rdt_hook_kvm_vcpu_map);
	vm = rdt_vm_find(vcpu->kvm);
	r = vm ? map_frame(vm, vcpu, gfn, map) : rdt_orig(kvm_vcpu_map)(vcpu, gfn, map);
	rdt_hook_leave();
	return r;
}

RDT_REPLACE(kvm, kvm_vcpu_unmap, RDT_ANY, false);

static void hook_kvm_vcpu_unmap(struct kvm_vcpu *vcpu, struct kvm_host_map *map, bool dirty)
{
	gfn_t mapped = map && map->hva ? map->gfn + 1 : 0;
	struct rdt_vcpu *rv;
	struct rdt_vm *vm;
	int i;

	rdt_hook_enter(&rdt_hook_kvm_vcpu_unmap);
	rdt_orig(kvm_vcpu_unmap)(vcpu, map, dirty);
	/* Not always in kvm->srcu: this is what keeps the VM, see rdt_vm_detach(). */
	rcu_read_lock();
	vm = mapped ? rdt_vm_find(vcpu->kvm) : NULL;
	rv = vm ? rdt_vcpu_peek(vm, vcpu) : NULL;
	/* There is none if it was mapped before the VM was attached. */
	for (i = 0; rv && i < ARRAY_SIZE(rv->mapped); i++)
		if (rv->mapped[i] == mapped) {
			/* Behind KVM's last write. */
			smp_store_release(&rv->mapped[i], 0);
			break;
		}
	rcu_read_unlock();
	rdt_hook_leave();
}
