/* SPDX-License-Identifier: GPL-2.0 */
/* What redoubt.ko, which knows KVM's insides, does for redoubt_vfio_pci.ko. */
#ifndef REDOUBT_KVM_H
#define REDOUBT_KVM_H

#include <linux/kvm_types.h>
#include <kvm/iodev.h>

struct kvm;
struct page;

/**
 * struct rdt_kvm_bell - registers that a guest writes often.
 * @dev: what KVM's emulator has of them; its write() is called for any access that is not @ring's.
 * @ring: a store of 32 bits to @gpa, wholly among them, that KVM has not emulated. Not 0: KVM is to emulate it.
 *
 * Both are called in the vCPU's thread, in kvm->srcu, and may sleep: so who calls add() or del() holds no lock
 * that they take.
 */
struct rdt_kvm_bell {
	struct kvm_io_device dev;
	int (*ring)(struct rdt_kvm_bell *bell, gpa_t gpa, u32 value);
};

/**
 * struct rdt_kvm_services - found by symbol_get(rdt_kvm_services), which keeps the module loaded; there need be
 * none. All may sleep.
 * @get: keep the VM's structure until @put; false: the VM is ending.
 * @add: from now on a vCPU's accesses to @bytes bytes (4 or more) at @gpa that no memslot has come to @bell. 0,
 *	-ENOMEM or -ENOSPC.
 * @del: they do not any more, and none is under way. Nothing happens if they did not.
 * @monitored: is the VM attached to Redoubt?
 * @copy_get: copies may be shown until @copy_put, when none is any more; between get() and put(). 0 or -ENOMEM.
 * @show: from now on the VM's vCPUs see @page, of one reference that goes over, where the guest has @gfn; what else looks at
 *	its memory (VMM, devices, KVM itself) does not. 0; -EBUSY: there is one already, or the VM is attached; -EINVAL: the VMM
 *	has another frame there than @pfn; -ENOMEM. In the VMM's thread, or one that has its mm.
 *	Takes kvm->mmu_lock; may be called in kvm->srcu.
 * @hide: they do not any more; @page is freed. Likewise.
 */
struct rdt_kvm_services {
	bool (*get)(struct kvm *kvm);
	void (*put)(struct kvm *kvm);
	int (*add)(struct kvm *kvm, gpa_t gpa, u32 bytes, struct rdt_kvm_bell *bell);
	void (*del)(struct kvm *kvm, struct rdt_kvm_bell *bell);
	bool (*monitored)(struct kvm *kvm);
	int (*copy_get)(struct kvm *kvm);
	void (*copy_put)(struct kvm *kvm);
	int (*show)(struct kvm *kvm, gfn_t gfn, unsigned long pfn, struct page *page);
	void (*hide)(struct kvm *kvm, gfn_t gfn);
};
extern const struct rdt_kvm_services rdt_kvm_services;

#endif
