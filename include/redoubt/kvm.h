/* SPDX-License-Identifier: GPL-2.0 */
/* What redoubt.ko, which knows KVM's insides, does for redoubt_vfio_pci.ko. */
#ifndef REDOUBT_KVM_H
#define REDOUBT_KVM_H

#include <linux/kvm_types.h>

struct kvm;
struct kvm_io_device;

/**
 * struct rdt_kvm_services - found by symbol_get(rdt_kvm_services), which keeps the module loaded; there need be
 * none. All may sleep.
 * @get: keep the VM's structure until @put; false: the VM is ending.
 * @add: from now on a vCPU's accesses to @len bytes at @gpa that no memslot has come to @dev. It is
 *	called in the vCPU's thread, in kvm->srcu: so who calls @add or @del holds no lock that @dev takes. 0, -ENOMEM
 *	or -ENOSPC.
 * @del: they do not any more, and none is under way. Nothing happens if they did not.
 * @monitored: is the VM attached to Redoubt?
 */
struct rdt_kvm_services {
	bool (*get)(struct kvm *kvm);
	void (*put)(struct kvm *kvm);
	int (*add)(struct kvm *kvm, gpa_t gpa, int len, struct kvm_io_device *dev);
	void (*del)(struct kvm *kvm, struct kvm_io_device *dev);
	bool (*monitored)(struct kvm *kvm);
};
extern const struct rdt_kvm_services rdt_kvm_services;

#endif
