// SPDX-License-Identifier: GPL-2.0
/* What the core asks of its host; include/redoubt/port.h. */
#include "redoubt.h"

#include <linux/mm.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include <asm/msr.h>
#include <asm/vmx.h>
#include <crypto/sha2.h>

#include "hook.h"

RDT_IMPORT(kvm, kvm_zap_gfn_range, RDT_ANY);

/* What the VMs have: memory, and pins of guest pages. None is left when the module goes. */
static atomic_long_t held;

long rdt_port_held(void)
{
	return atomic_long_read(&held);
}

/* Guests can make the core allocate, within quotas: charge it to the VMM. */
void *rdt_port_alloc(unsigned long bytes)
{
	void *p = kvzalloc(bytes, GFP_KERNEL_ACCOUNT);

	if (p)
		atomic_long_inc(&held);
	return p;
}

void rdt_port_free(void *p)
{
	if (p)
		atomic_long_dec(&held);
	kvfree(p);
}

void rdt_port_lock(void *host)
{
	struct rdt_vm *vm = host;

	mutex_lock(&vm->lock);
}

void rdt_port_unlock(void *host)
{
	struct rdt_vm *vm = host;

	mutex_unlock(&vm->lock);
}

int rdt_port_is_ram(void *host, rdt_u64 gfn, rdt_u64 count)
{
	struct rdt_vm *vm = host;
	gfn_t end = gfn + count;
	int idx, ok = 1;

	lockdep_assert_held(&vm->lock);
	if (vm->dead)
		return 0;
	idx = srcu_read_lock(&vm->kvm->srcu);
	while (gfn < end) {
		struct kvm_memory_slot *slot = gfn_to_memslot(vm->kvm, gfn);

		if (!kvm_is_visible_memslot(slot)) {
			ok = 0;
			break;
		}
		gfn = slot->base_gfn + slot->npages;
	}
	srcu_read_unlock(&vm->kvm->srcu, idx);
	return ok;
}

void rdt_zap(struct kvm *kvm, gfn_t gfn, gfn_t count)
{
	rdt_call(kvm_zap_gfn_range)(kvm, gfn, gfn + count);
}

void rdt_port_zap(void *host, rdt_u64 gfn, rdt_u64 count)
{
	struct rdt_vm *vm = host;

	lockdep_assert_held(&vm->lock);
	if (!vm->dead)
		rdt_zap(vm->kvm, gfn, count);
}

void *rdt_port_pin(void *host, rdt_u64 gfn, void **pin)
{
	struct rdt_vm *vm = host;
	struct page *page;
	unsigned long hva;

	/* The VMM's memory: only its own thread, a vCPU's, can pin it. */
	if (current->mm != vm->kvm->mm)
		return NULL;
	hva = gfn_to_hva(vm->kvm, gfn);
	if (kvm_is_error_hva(hva) ||
	    pin_user_pages_fast(hva, 1, FOLL_WRITE | FOLL_LONGTERM, &page) != 1)
		return NULL;
	atomic_long_inc(&held);
	*pin = page;
	return page_address(page);
}

void *rdt_port_pinned(void *host, void *pin)
{
	return page_address(pin);
}

void rdt_port_unpin(void *host, void *pin)
{
	struct page *page = pin;

	unpin_user_pages_dirty_lock(&page, 1, true);
	atomic_long_dec(&held);
}

void *rdt_port_hold(void *host, rdt_u64 gfn, void **cookie)
{
	struct rdt_vm *vm = host;
	unsigned long hva = gfn_to_hva(vm->kvm, gfn);
	struct page *page;

	/* For writing: a copy-on-write is done now, not between copy and comparison. */
	if (kvm_is_error_hva(hva) || get_user_pages_fast(hva, 1, FOLL_WRITE, &page) != 1)
		return NULL;
	atomic_long_inc(&held);
	*cookie = page;
	return page_address(page);
}

void rdt_port_release(void *host, void *cookie)
{
	put_page(cookie);
	atomic_long_dec(&held);
}

int rdt_port_read(void *host, rdt_u64 gpa, void *to, rdt_u32 len)
{
	struct rdt_vm *vm = host;
	int idx, r;

	if (current->mm != vm->kvm->mm)
		return -1;
	idx = srcu_read_lock(&vm->kvm->srcu);
	r = kvm_read_guest(vm->kvm, gpa, to, len);
	srcu_read_unlock(&vm->kvm->srcu, idx);
	return r ? -1 : 0;
}

bool rdt_peek(unsigned long hva, void *to, u32 len)
{
	u64 word;
	int r;

	if (kvm_is_error_hva(hva))
		return false;
	pagefault_disable();
	if (len == sizeof(word)) {
		r = __get_user(word, (u64 __user *)hva);
		memcpy(to, &word, sizeof(word));
	} else {
		r = __copy_from_user_inatomic(to, (void __user *)hva, len);
	}
	pagefault_enable();
	return !r;
}

int rdt_port_peek(void *host, rdt_u64 gpa, void *to, rdt_u32 len)
{
	struct rdt_vm *vm = host;

	if (current->mm != vm->kvm->mm ||
	    !rdt_peek(gfn_to_hva(vm->kvm, gpa_to_gfn(gpa)) + offset_in_page(gpa), to, len))
		return -1;
	return 0;
}

rdt_u64 rdt_port_gva_to_gpa(void *hv, rdt_u64 gva)
{
	return kvm_mmu_gva_to_gpa_read(hv, gva, NULL);
}

/*
 * Private pages of domains. 6.12's kvm_zap_gfn_range() leaves invalid roots alone, those of a memory slot
 * that is going: no vCPU can use their entries any more, but KVM marks the pages accessed or dirty when
 * it comes to them, before it lets go of slots_lock. Such a page must still be ours then. A vCPU's exit
 * cannot wait for slots_lock, whose holder may wait for its kvm->srcu.
 */
#define MAX_WAITING	4096		/* no guest makes more of them wait */

void *rdt_port_page_alloc(void *host)
{
	struct rdt_vm *vm = host;
	void *p;

	lockdep_assert_held(&vm->lock);
	if (vm->nr_waiting >= MAX_WAITING)
		return NULL;
	p = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (p)
		atomic_long_inc(&held);
	return p;
}

static void free_private(struct page *page)
{
	__free_page(page);
	atomic_long_dec(&held);
}

void rdt_port_page_free(void *host, void *p)
{
	struct page *page = virt_to_page(p);
	struct rdt_vm *vm = host;

	lockdep_assert_held(&vm->lock);
	if (vm->dead) {			/* KVM has zapped all of its roots */
		free_private(page);
	} else if (mutex_trylock(&vm->kvm->slots_lock)) {
		mutex_unlock(&vm->kvm->slots_lock);
		free_private(page);
	} else {
		list_add(&page->lru, &vm->waiting);
		vm->nr_waiting++;
		schedule_work(&vm->reap);
	}
}

void rdt_port_reap(struct work_struct *work)
{
	struct rdt_vm *vm = container_of(work, struct rdt_vm, reap);
	struct page *page, *next;
	LIST_HEAD(free);

	mutex_lock(&vm->lock);
	list_splice_init(&vm->waiting, &free);
	vm->nr_waiting = 0;
	mutex_unlock(&vm->lock);
	/* Nobody has it who had it when they were put on the list. */
	mutex_lock(&vm->kvm->slots_lock);
	mutex_unlock(&vm->kvm->slots_lock);
	list_for_each_entry_safe(page, next, &free, lru)
		free_private(page);
}

int rdt_port_execute_only(void)
{
	u64 cap;

	return rdt_is_vmx && !rdmsrl_safe(MSR_IA32_VMX_EPT_VPID_CAP, &cap) &&
	       cap & VMX_EPT_EXECUTE_ONLY_BIT;
}

void *rdt_port_sha256_begin(void)
{
	struct sha256_state *sha = rdt_port_alloc(sizeof(*sha));

	if (sha)
		sha256_init(sha);
	return sha;
}

void rdt_port_sha256_update(void *sha, const void *data, unsigned long len)
{
	sha256_update(sha, data, len);
}

void rdt_port_sha256_end(void *sha, rdt_u8 out[32])
{
	if (out)
		sha256_final(sha, out);
	rdt_port_free(sha);
}

rdt_u64 rdt_port_random(void)
{
	return get_random_u64();
}

void rdt_port_event(void *host, struct rdt_event *ev)
{
	struct rdt_vm *vm = host;

	ev->vm_id = vm->id;
	rdt_ring_push(&vm->ring, ev);
}

void rdt_port_log(void *host, const char *what, rdt_u64 a, rdt_u64 b)
{
	struct rdt_vm *vm = host;

	pr_warn_ratelimited("vm %u: %s (%#lx, %#lx)\n", vm->id, what, a, b);
}
