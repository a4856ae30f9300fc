// SPDX-License-Identifier: GPL-2.0
/* Of KVM's insides, what redoubt_vfio_pci needs. */
#include "redoubt.h"

#include <linux/module.h>
#include <redoubt/kvm.h>

#include "hook.h"

RDT_IMPORT(kvm, kvm_io_bus_register_dev, RDT_ANY);
RDT_IMPORT(kvm, kvm_io_bus_unregister_dev, RDT_ANY);

static int add(struct kvm *kvm, gpa_t gpa, int len, struct kvm_io_device *dev)
{
	int r;

	mutex_lock(&kvm->slots_lock);
	r = rdt_call(kvm_io_bus_register_dev)(kvm, KVM_MMIO_BUS, gpa, len, dev);
	mutex_unlock(&kvm->slots_lock);
	return r;
}

static void del(struct kvm *kvm, struct kvm_io_device *dev)
{
	mutex_lock(&kvm->slots_lock);
	/* Without memory for a smaller bus KVM takes the whole bus away: ours is gone as well. */
	rdt_call(kvm_io_bus_unregister_dev)(kvm, KVM_MMIO_BUS, dev);
	mutex_unlock(&kvm->slots_lock);
}

static bool monitored(struct kvm *kvm)
{
	bool found;

	rcu_read_lock();
	found = rdt_vm_find(kvm);
	rcu_read_unlock();
	return found;
}

const struct rdt_kvm_services rdt_kvm_services = {
	.get = kvm_get_kvm_safe,
	.put = kvm_put_kvm,
	.add = add,
	.del = del,
	.monitored = monitored,
};
EXPORT_SYMBOL_GPL(rdt_kvm_services);
