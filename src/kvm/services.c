// SPDX-License-Identifier: GPL-2.0
/* Of KVM's insides, what redoubt_vfio_pci needs. */
#include "redoubt.h"

#include <linux/module.h>
#include <redoubt/kvm.h>

#include "hook.h"

RDT_IMPORT(kvm, kvm_io_bus_register_dev, RDT_ANY);
RDT_IMPORT(kvm, kvm_io_bus_unregister_dev, RDT_ANY);

/*
 * The hook looks for doorbells while somebody may have some, not only while there are some: a guest that moves its
 * device to and fro must not have the host's code patched each time.
 */
static bool get(struct kvm *kvm)
{
	if (!kvm_get_kvm_safe(kvm))
		return false;
	if (!rdt_is_vmx)
		static_branch_inc(&rdt_doorbells);
	return true;
}

static void put(struct kvm *kvm)
{
	if (!rdt_is_vmx)
		static_branch_dec(&rdt_doorbells);
	kvm_put_kvm(kvm);
}

static int add(struct kvm *kvm, gpa_t gpa, u32 bytes, struct rdt_kvm_bell *bell)
{
	int r;

	mutex_lock(&kvm->slots_lock);
	r = rdt_call(kvm_io_bus_register_dev)(kvm, KVM_MMIO_BUS, gpa, bytes, &bell->dev);
	mutex_unlock(&kvm->slots_lock);
	/* Without it each is slower, and comes all the same. */
	if (!r && rdt_doorbell_add(kvm, gpa, bytes, bell))
		pr_warn_ratelimited("no memory for a doorbell: KVM emulates its stores\n");
	return r;
}

static void del(struct kvm *kvm, struct rdt_kvm_bell *bell)
{
	rdt_doorbell_del(kvm, bell);
	mutex_lock(&kvm->slots_lock);
	/* Without memory for a smaller bus KVM takes the whole bus away: ours is gone as well. */
	rdt_call(kvm_io_bus_unregister_dev)(kvm, KVM_MMIO_BUS, &bell->dev);
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
	.get = get,
	.put = put,
	.add = add,
	.del = del,
	.monitored = monitored,
	.copy_get = rdt_copy_get,
	.copy_put = rdt_copy_put,
	.show = rdt_copy_show,
	.hide = rdt_copy_hide,
};
EXPORT_SYMBOL_GPL(rdt_kvm_services);
