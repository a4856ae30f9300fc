// SPDX-License-Identifier: GPL-2.0
/*
 * Doorbells of another module's devices, on AMD. A store to where no memslot is costs most by KVM's emulator; the
 * one that drivers ring with, a plain mov of 32 bits, is read and carried out here. Whatever is not that, or is in
 * doubt, is left to KVM, which knows the same device by its MMIO bus: nothing is done by then.
 *
 * What is read as the instruction decides only which of the guest's registers its device is told of, and where the
 * guest goes on: a guest that changes its code or its page tables meanwhile harms itself.
 */
#include "redoubt.h"

#include <linux/hashtable.h>
#include <linux/jump_label.h>

#include <asm/apicdef.h>
#include <redoubt/kvm.h>

#include "cpu.h"
#include "step.h"

struct window {
	struct hlist_node node;
	struct kvm *kvm;
	gpa_t first;
	u32 bytes;
	struct rdt_kvm_bell *bell;
	struct rcu_head rcu;
};

/* Read in RCU; a window's bell is used in its VM's kvm->srcu. */
static DEFINE_HASHTABLE(windows, 6);
/* Protects changes of @windows only; innermost. */
static DEFINE_SPINLOCK(windows_lock);
DEFINE_STATIC_KEY_FALSE(rdt_doorbells);

int rdt_doorbell_add(struct kvm *kvm, gpa_t gpa, u32 bytes, struct rdt_kvm_bell *bell)
{
	struct window *w;

	/* KVM asks the local APIC before its bus. */
	if (rdt_is_vmx || (gpa < APIC_DEFAULT_PHYS_BASE + PAGE_SIZE && gpa + bytes > APIC_DEFAULT_PHYS_BASE))
		return 0;
	w = kmalloc(sizeof(*w), GFP_KERNEL_ACCOUNT);
	if (!w)
		return -ENOMEM;
	*w = (struct window){ .kvm = kvm, .first = gpa, .bytes = bytes, .bell = bell };
	spin_lock(&windows_lock);
	hash_add_rcu(windows, &w->node, (unsigned long)kvm);
	spin_unlock(&windows_lock);
	return 0;
}

static struct window *take(struct kvm *kvm, struct rdt_kvm_bell *bell)
{
	struct window *w;

	spin_lock(&windows_lock);
	hash_for_each_possible(windows, w, node, (unsigned long)kvm) {
		if (w->kvm == kvm && w->bell == bell) {
			hash_del_rcu(&w->node);
			break;
		}
	}
	spin_unlock(&windows_lock);
	return w;
}

void rdt_doorbell_del(struct kvm *kvm, struct rdt_kvm_bell *bell)
{
	struct window *w = take(kvm, bell);

	if (!w)
		return;
	/* KVM's own wait is not made when its bus has gone before. */
	synchronize_srcu_expedited(&kvm->srcu);
	kfree_rcu(w, rcu);
}

static struct rdt_kvm_bell *find(struct kvm *kvm, gpa_t gpa)
{
	struct rdt_kvm_bell *bell = NULL;
	struct window *w;

	rcu_read_lock();
	hash_for_each_possible_rcu(windows, w, node, (unsigned long)kvm) {
		if (w->kvm == kvm && gpa >= w->first && gpa - w->first <= w->bytes - sizeof(u32)) {
			bell = w->bell;
			break;
		}
	}
	rcu_read_unlock();
	return bell;
}

/* The guest's own store; its registers are there to be read, and @gpa is what it looks like. */
static bool is_plain(struct kvm_vcpu *vcpu, u64 ec)
{
	struct kvm_vcpu_arch *a = &vcpu->arch;

	return (ec & (PFERR_WRITE_MASK | PFERR_FETCH_MASK | PFERR_GUEST_PAGE_MASK)) == PFERR_WRITE_MASK &&
	       a->mmu == &a->root_mmu && a->mmu->root_role.direct &&
	       !(a->hflags & (HF_GUEST_MASK | HF_SMM_MASK)) && !rdt_delivers_event(vcpu) &&
	       !rdt_vm_is_encrypted(vcpu->kvm);
}

bool rdt_doorbell_rung(struct kvm_vcpu *vcpu, gpa_t gpa, u64 ec, const u8 *insn, int insn_len, int *r)
{
	struct rdt_kvm_bell *bell = find(vcpu->kvm, gpa);
	struct rdt_store store;
	struct rdt_cpu cpu;

	/* A memslot comes before KVM's bus. */
	if (!bell || !is_plain(vcpu, ec) || gfn_to_memslot(vcpu->kvm, gpa_to_gfn(gpa)))
		return false;
	rdt_cpu_load(vcpu, RDT_VIEW_ROOT, &cpu);
	/* The code may be another by now, as it may for KVM's emulator: it must store there at least. */
	if (!rdt_decode(vcpu, &cpu, insn, insn_len, &store) || store.size != sizeof(u32) ||
	    offset_in_page(store.address) != offset_in_page(gpa))
		return false;
	if (bell->ring(bell, gpa, store.value))
		return false;
	/* As KVM skips an instruction whose end the CPU has told: with the interrupt shadow, and what counts them. */
	vmcb_of(vcpu)->save.rflags &= ~(u64)X86_EFLAGS_RF;
	rdt_member(vcpu, vcpu_svm, next_rip) = cpu.rip + store.len;
	*r = kvm_skip_emulated_instruction(vcpu);
	rdt_member(vcpu, vcpu_svm, next_rip) = 0;
	return true;
}
