// SPDX-License-Identifier: GPL-2.0
/*
 * Attached VMs: found by hooks, made and ended here.
 *
 * An attached VM pins this module. Two ways out: the operator detaches (every vCPU
 * is waited for, by KVM's own srcu), or the VM ends (its vCPUs are gone by then).
 */
#include "redoubt.h"

#include <linux/hash.h>
#include <linux/module.h>
#include <linux/pid_namespace.h>

#include "hook.h"
#include "step.h"

#define RDT_MAX_VMS	(1u << (RDT_TABLE_BITS - 1))
#define RDT_GONE	((struct kvm *)1)

struct rdt_entry rdt_table[1 << RDT_TABLE_BITS];
/* Writers of the table, of next_id and of rdt_attached. Outermost lock: see struct rdt_vm. */
static DEFINE_MUTEX(rdt_vms_lock);
static u32 next_id = 1;
u32 rdt_attached;			/* rdt_vms_lock; read racily */

u32 rdt_policy;

static void publish(struct rdt_vm *vm)
{
	u32 i = hash_ptr(vm->kvm, RDT_TABLE_BITS);

	lockdep_assert_held(&rdt_vms_lock);
	/* RDT_MAX_VMS: there is room. One that is RDT_GONE with a VM is still waited for. */
	while (rdt_table[i % ARRAY_SIZE(rdt_table)].vm)
		i++;
	vm->entry = &rdt_table[i % ARRAY_SIZE(rdt_table)];
	vm->entry->vm = vm;
	smp_store_release(&vm->entry->kvm, vm->kvm);
	WRITE_ONCE(rdt_attached, rdt_attached + 1);
}

struct rdt_vcpu *rdt_vcpu_get(struct rdt_vm *vm, struct kvm_vcpu *vcpu)
{
	struct rdt_vcpu *rv = rdt_vcpu_peek(vm, vcpu);

	if (rv)
		return rv;
	rv = rdt_port_alloc(sizeof(*rv));
	if (!rv)
		return NULL;
	rv->kvcpu = vcpu;
	rv->core = rdt_core_vcpu_create(vm->core, vcpu);
	if (!rv->core) {
		rdt_port_free(rv);
		return NULL;
	}
	/* Pairs with the address dependency in rdt_vcpu_peek(). */
	smp_store_release(&vm->vcpu[vcpu->vcpu_idx], rv);
	return rv;
}

static void release(struct kref *ref)
{
	struct rdt_vm *vm = container_of(ref, struct rdt_vm, ref);
	int i;

	rdt_core_vm_destroy(vm->core);
	for (i = 0; i < KVM_MAX_VCPUS; i++)
		if (vm->vcpu[i]) {
			rdt_step_forget(vm->vcpu[i]);
			rdt_core_vcpu_destroy(vm->vcpu[i]->core);
			rdt_port_free(vm->vcpu[i]);
		}
	rdt_ring_exit(&vm->ring);
	put_pid(vm->vmm);
	mutex_destroy(&vm->lock);
	rdt_port_free(vm);
}

void rdt_vm_put(struct rdt_vm *vm)
{
	kref_put(&vm->ref, release);
}

static struct pid *creator(struct kvm *kvm)
{
	struct task_struct *task;
	struct pid *pid = NULL;

	rcu_read_lock();
	task = pid_task(find_pid_ns(kvm->userspace_pid, &init_pid_ns), PIDTYPE_PID);
	if (task)
		pid = get_pid(task_tgid(task));
	rcu_read_unlock();
	return pid;
}

/* A name for what cannot be attached, or NULL. */
static const char *unfit(struct kvm *kvm)
{
	if (!rdt_tdp_mmu_enabled(kvm))
		return "the TDP MMU is off";
	if (rdt_vm_is_encrypted(kvm))
		return "its memory is encrypted";
	return NULL;
}

int rdt_vm_attach(struct kvm *kvm, bool self, struct rdt_vm **out)
{
	const char *why = unfit(kvm);
	struct rdt_event ev = { .type = RDT_EV_ATTACH, .code = self, .flags = RDT_EVF_HOST };
	struct rdt_vm *vm;
	int r;

	if (why) {
		pr_notice_ratelimited("cannot attach: %s\n", why);
		return -EOPNOTSUPP;
	}
	vm = rdt_port_alloc(struct_size(vm, vcpu, KVM_MAX_VCPUS));
	if (!vm)
		return -ENOMEM;
	r = rdt_ring_init(&vm->ring);
	if (r)
		goto free;
	r = -ENOMEM;
	vm->core = rdt_core_vm_create(vm);
	if (!vm->core)
		goto ring;
	vm->kvm = kvm;
	vm->vmm = creator(kvm);
	mutex_init(&vm->lock);
	INIT_LIST_HEAD(&vm->waiting);
	INIT_WORK(&vm->reap, rdt_port_reap);
	kref_init(&vm->ref);

	mutex_lock(&rdt_vms_lock);
	r = -EEXIST;
	if (rdt_vm_find(kvm))
		goto core;
	r = -ENOSPC;
	if (next_id == U32_MAX || rdt_attached == RDT_MAX_VMS)
		goto core;
	r = -ENODEV;
	if (!try_module_get(THIS_MODULE))
		goto core;
	vm->id = next_id++;
	kref_get(&vm->ref);	/* the caller's */
	publish(vm);
	mutex_unlock(&rdt_vms_lock);
	rdt_copy_attached(kvm);
	rdt_port_event(vm, &ev);
	*out = vm;
	return 0;
core:
	mutex_unlock(&rdt_vms_lock);
	put_pid(vm->vmm);
	rdt_core_vm_destroy(vm->core);
ring:
	rdt_ring_exit(&vm->ring);
free:
	rdt_port_free(vm);
	return r;
}

/* Under vm->lock, alive: from here on hooks no longer find it. */
static void unpublish(struct rdt_vm *vm, u16 type)
{
	struct rdt_event ev = { .type = type, .flags = RDT_EVF_HOST };

	lockdep_assert_held(&rdt_vms_lock);
	lockdep_assert_held(&vm->lock);
	WRITE_ONCE(vm->dead, true);
	rdt_port_event(vm, &ev);
	WRITE_ONCE(vm->entry->kvm, RDT_GONE);
}

/* No reader can have the VM in hand any more. */
static void retire(struct rdt_vm *vm)
{
	u32 i = vm->entry - rdt_table;

	mutex_lock(&rdt_vms_lock);
	vm->entry->vm = NULL;
	WRITE_ONCE(rdt_attached, rdt_attached - 1);
	/* Nothing to probe for behind it: nor is it, and what is before it, a way there. */
	if (!rdt_table[(i + 1) % ARRAY_SIZE(rdt_table)].kvm)
		for (; rdt_table[i % ARRAY_SIZE(rdt_table)].kvm == RDT_GONE &&
		       !rdt_table[i % ARRAY_SIZE(rdt_table)].vm; i--)
			WRITE_ONCE(rdt_table[i % ARRAY_SIZE(rdt_table)].kvm, NULL);
	mutex_unlock(&rdt_vms_lock);
	/* It is dead: nothing makes it work again. struct kvm is still there. */
	flush_work(&vm->reap);
	rdt_core_end(vm->core);
	rdt_vm_put(vm);
	module_put(THIS_MODULE);
}

/*
 * From its last reference on KVM counts on nobody to change the VM's tables, and the
 * hook that tells us of its end comes only after that. So whoever does on behalf of
 * an operator holds it. Put it without any lock: that may be the end of the VM.
 */
struct kvm *rdt_vm_hold(struct rdt_vm *vm)
{
	struct kvm *kvm = NULL;

	mutex_lock(&vm->lock);
	if (!vm->dead && kvm_get_kvm_safe(vm->kvm))
		kvm = vm->kvm;
	mutex_unlock(&vm->lock);
	return kvm;
}

int rdt_vm_detach(struct rdt_vm *vm, u32 flags)
{
	struct kvm *kvm = vm->kvm;
	int r;

	/* Refuses while a thread of the guest is inside, and lets none in any more. */
	r = rdt_core_detach(vm->core, flags);
	if (r)
		return r;

	rdt_step_close(vm);
	mutex_lock(&rdt_vms_lock);
	mutex_lock(&vm->lock);
	if (vm->dead) {
		mutex_unlock(&vm->lock);
		mutex_unlock(&rdt_vms_lock);
		return -ENODEV;
	}
	unpublish(vm, RDT_EV_DETACH);
	mutex_unlock(&vm->lock);
	mutex_unlock(&rdt_vms_lock);
	/*
	 * Hooks run inside kvm->srcu: when this returns none has the VM in hand. Not
	 * under vm->lock, for which a vCPU may be waiting in there.
	 */
	synchronize_srcu_expedited(&kvm->srcu);
	/* But the one at kvm_arch_vcpu_put(). */
	synchronize_rcu();
	retire(vm);
	return 0;
}

static void rdt_vm_gone(struct kvm *kvm)
{
	struct rdt_vm *vm;

	mutex_lock(&rdt_vms_lock);
	vm = rdt_vm_find(kvm);
	if (vm) {
		mutex_lock(&vm->lock);
		unpublish(vm, RDT_EV_VM_DEAD);
		mutex_unlock(&vm->lock);
	}
	mutex_unlock(&rdt_vms_lock);
	if (vm)
		retire(vm);
}

struct rdt_vm *rdt_vm_get_next(u32 after)
{
	struct rdt_vm *best = NULL;
	int i;

	mutex_lock(&rdt_vms_lock);
	for (i = 0; i < ARRAY_SIZE(rdt_table); i++) {
		struct rdt_vm *vm = rdt_table[i].vm;

		if (vm && rdt_table[i].kvm != RDT_GONE && vm->id > after &&
		    (!best || vm->id < best->id))
			best = vm;
	}
	if (best)
		kref_get(&best->ref);
	mutex_unlock(&rdt_vms_lock);
	return best;
}

struct rdt_vm *rdt_vm_get_by_id(u32 id)
{
	struct rdt_vm *vm = id ? rdt_vm_get_next(id - 1) : NULL;

	if (vm && vm->id != id) {
		rdt_vm_put(vm);
		vm = NULL;
	}
	return vm;
}

u32 rdt_vm_count(void)
{
	return READ_ONCE(rdt_attached);
}

/* Its vCPUs and its memory mappings are gone; nothing else can find it. */
RDT_REPLACE(kvm, kvm_arch_destroy_vm, RDT_ANY, true);

static void hook_kvm_arch_destroy_vm(struct kvm *kvm)
{
	rdt_hook_enter(&rdt_hook_kvm_arch_destroy_vm);
	if (READ_ONCE(rdt_attached))
		rdt_vm_gone(kvm);
	rdt_orig(kvm_arch_destroy_vm)(kvm);
	rdt_hook_leave();
}

/*
 * Protection is kept by frame number, so a slot that goes and comes back is
 * protected as before; but what lies there may be something else now.
 */
RDT_EDIT(kvm, kvm_arch_commit_memory_region, RDT_ANY, true);

static void hook_kvm_arch_commit_memory_region(struct pt_regs *args)
{
	const struct kvm_memory_slot *old = (void *)args->si;
	const struct kvm_memory_slot *new = (void *)args->dx;
	enum kvm_mr_change change = args->cx;
	struct rdt_vm *vm;

	if (change == KVM_MR_FLAGS_ONLY)
		return;
	/* Outside kvm->srcu, in an ioctl of the VM: what detach waits for here is RCU. */
	rcu_read_lock();
	vm = rdt_vm_find((struct kvm *)args->di);
	if (!vm)
		goto out;
	if (old && old->npages)
		rdt_core_mapping_changed(vm->core, old->base_gfn, old->npages);
	if (new && new->npages && change != KVM_MR_DELETE &&
	    !(old && old->base_gfn == new->base_gfn && old->npages == new->npages))
		rdt_core_mapping_changed(vm->core, new->base_gfn, new->npages);
out:
	rcu_read_unlock();
}
