/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of src/kvm share. Data goes one way: a hook (fault.c,
 * hypercall.c, write.c) asks the core and carries out its verdict; events leave
 * through ring.c; dev.c is the operator's door; vm.c owns the lifetimes.
 */
#ifndef RDT_KVM_REDOUBT_H
#define RDT_KVM_REDOUBT_H

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/hash.h>
#include <linux/kref.h>
#include <linux/irq_work.h>
#include <linux/jump_label.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>
#include <redoubt/port.h>

#include <generated/kvm_layout.h>

/* ---- ring.c: events of one VM ------------------------------------------- */

struct rdt_ring_buf {
	struct rdt_ring *hdr;		/* vmalloc_user: header page, then records */
	struct rdt_event *rec;
	size_t size;
	raw_spinlock_t lock;		/* writers; innermost lock, irqs off */
	wait_queue_head_t wait;
	struct irq_work wake;		/* writers may hold any lock: wake from here */
};

int rdt_ring_init(struct rdt_ring_buf *ring);
void rdt_ring_exit(struct rdt_ring_buf *ring);
/* Fills seq and time, overwrites the oldest. Any context. */
void rdt_ring_push(struct rdt_ring_buf *ring, struct rdt_event *ev);
u64 rdt_ring_head(struct rdt_ring_buf *ring);
u64 rdt_ring_poll(struct rdt_ring_buf *ring, struct file *file, poll_table *table);
int rdt_ring_mmap(struct rdt_ring_buf *ring, struct vm_area_struct *vma);

/* ---- vm.c: attached VMs --------------------------------------------------- */

/* step.c: what a vCPU's step must put back. */
enum rdt_step_state { RDT_STEP_NONE, RDT_STEP_ON, RDT_STEP_BUSY, RDT_STEP_PARKED, RDT_STEP_STOLEN,
		      RDT_STEP_DONE };
struct rdt_step {
	int state;			/* enum rdt_step_state; how it changes: step.c */
	bool armed;
	bool event;			/* an event's delivery is what steps */
	bool moved;			/* valid when parked */
	u8 insn;			/* enum insn */
	u8 outcome;			/* RDT_STEP_* of rdt_core_step_end(), when stolen */
	bool intn, sce, shadow, tf, window; /* what arming changed, or found */
	bool nmi, nmi_blocked;		/* VMX */
	u32 exceptions;
	u32 intr_state;			/* VMX */
	u32 tries;
	/* The CPU as the step began, for a write that is undone. */
	unsigned long gpr[16], rip, rsp, rflags;
};

/**
 * struct rdt_vcpu - a vCPU that has needed state of its own.
 * Made by its own thread at its first hypercall or restricted fault.
 */
struct rdt_vcpu {
	struct kvm_vcpu *kvcpu;
	struct rdt_core_vcpu *core;
	/* Set while KVM's emulator carries out a LOG write; that vCPU's thread only. */
	bool emulating;
	/* Set round a store that emulated_store() has asked about; likewise. */
	bool checked;
	u32 checked_seq;		/* the policy's number then.. */
	bool overtaken;			/* ..and it was another one at the store */
	struct rdt_step step;
	/* Frames that KVM has mapped for a nested guest of this vCPU: gfn + 1, 0: none. */
	gfn_t mapped[8];
	/* What a nested guest of this vCPU has fetched from and must not: gfn + 1. */
	gfn_t fetched;
	/* secret.c: no event is delivered by the IDT; what it is outside. */
	bool no_idt;
	bool gp_exits;
	u32 idt_limit;
};

/**
 * struct rdt_vm - an attached VM.
 *
 * Lifetime: the table holds one reference until detach or the VM's end, each
 * descriptor one. A hook uses it without a reference: hooks run in a vCPU's
 * kvm->srcu read section, and detach waits for that before the core goes.
 */
struct rdt_vm {
	struct kvm *kvm;		/* valid while published */
	struct rdt_entry *entry;	/* vm.c's table */
	struct rdt_core_vm *core;
	struct rdt_ring_buf ring;
	struct kref ref;
	u32 id;
	struct pid *vmm;		/* thread group that created it */
	/*
	 * Serializes changes of policy against each other and against the VM's
	 * end. Order: rdt_vms_lock > lock > kvm->slots_lock > kvm->mmu_lock.
	 * Taken in a vCPU's exit (inside kvm->srcu): never wait for that srcu
	 * under it.
	 */
	struct mutex lock;
	bool dead;			/* lock; the core must not be asked any more */
	struct list_head waiting;	/* lock; private pages to be freed: port.c */
	unsigned int nr_waiting;	/* lock */
	struct work_struct reap;	/* frees them */
	atomic64_t faults;
	struct rdt_vcpu *step_owner;	/* one steps at a time; compare-and-swap */
	struct rdt_vcpu *vcpu[];	/* by vcpu_idx; each written once, by its own thread */
};

/*
 * Attached VMs by struct kvm: open addressing, and nothing that a reader could see
 * freed, so a look-up takes no lock and costs next to nothing. An entry whose VM
 * has gone keeps its place (key RDT_GONE) so that probing goes on behind it; it
 * is used again only after every reader that could have met its VM is done.
 */
#define RDT_TABLE_BITS	12

struct rdt_entry {
	struct kvm *kvm;
	struct rdt_vm *vm;
};
extern struct rdt_entry rdt_table[1 << RDT_TABLE_BITS];
extern u32 rdt_attached;

/* The caller is in kvm->srcu or in RCU, or holds the VM otherwise. */
static __always_inline struct rdt_vm *rdt_vm_find(struct kvm *kvm)
{
	u32 i, n;

	/* No VM attached anywhere: the price of a loaded module ends here. */
	if (!READ_ONCE(rdt_attached))
		return NULL;
	i = hash_ptr(kvm, RDT_TABLE_BITS);
	for (n = 0; n < ARRAY_SIZE(rdt_table); n++, i++) {
		struct rdt_entry *e = &rdt_table[i % ARRAY_SIZE(rdt_table)];
		/* Pairs with the release in publish(), vm.c. */
		struct kvm *key = smp_load_acquire(&e->kvm);

		if (key == kvm)
			return e->vm;
		if (!key)
			break;
	}
	return NULL;
}

/* The rest is in vm.c. */
struct rdt_vcpu *rdt_vcpu_get(struct rdt_vm *vm, struct kvm_vcpu *vcpu);	/* may sleep, NULL: no memory */
static inline struct rdt_vcpu *rdt_vcpu_peek(struct rdt_vm *vm, struct kvm_vcpu *vcpu)
{
	return READ_ONCE(vm->vcpu[vcpu->vcpu_idx]);
}
/* 0 or -errno; *out has a reference for the caller. @self: by hypercall. */
int rdt_vm_attach(struct kvm *kvm, bool self, struct rdt_vm **out);
/* The caller holds the VM. */
int rdt_vm_detach(struct rdt_vm *vm, u32 flags);
/* Keep the VM from ending: kvm_put_kvm() what it gives. NULL: it has ended. */
struct kvm *rdt_vm_hold(struct rdt_vm *vm);
struct rdt_vm *rdt_vm_get_by_id(u32 id);
/* The attached VM with the smallest number above @after, with a reference. */
struct rdt_vm *rdt_vm_get_next(u32 after);
void rdt_vm_put(struct rdt_vm *vm);
u32 rdt_vm_count(void);

extern u32 rdt_policy;			/* RDT_POLICY_*; READ_ONCE */

/* ---- nested.c ---------------------------------------------------------------- */
/* Does KVM keep anything there for a nested guest of this vCPU? */
bool rdt_nested_holds(struct rdt_vm *vm, struct kvm_vcpu *vcpu, gfn_t first, u64 count);

/* ---- domain.c ---------------------------------------------------------------- */
static inline bool rdt_is_domain(u8 view)
{
	return view >= RDT_VIEW_DOMAIN && view < RDT_VIEW_STEP;
}
/* Have every vCPU look whether the domain it is in is to go. */
void rdt_domain_kick(struct kvm *kvm);
/* Before an entry, in the vCPU's thread: it looks. */
void rdt_domain_evict(struct kvm_vcpu *vcpu);
/*
 * End the call of a vCPU that is in a domain, with an alert; @ud: it has only raised #UD, which is
 * the guest's to see. False: it is in none.
 */
bool rdt_domain_cut_short(struct kvm_vcpu *vcpu, bool ud);
/* RDT_VM_DOM*; the VM is held. */
long rdt_domain_ioctl(struct rdt_vm *vm, unsigned int cmd, void __user *arg);

/* ---- fault.c ----------------------------------------------------------------- */
/* The event under way is an instruction (int n, int3) of this length; 0: it is none. */
u8 rdt_soft_event_len(struct rdt_vm *vm, struct rdt_vcpu *rv, unsigned long rip);
/* An asynchronous exit: what @cpu says, and if an event is under way it strikes there. */
void rdt_event_to_stub(struct kvm_vcpu *vcpu, struct rdt_cpu *cpu, u8 soft_len);
static inline bool rdt_delivers_event(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_arch *a = &vcpu->arch;

	return a->exception.injected || a->interrupt.injected || a->nmi_injected;
}
int rdt_freeze(struct kvm_vcpu *vcpu);

/* ---- doorbell.c -------------------------------------------------------------- */
struct rdt_kvm_bell;
DECLARE_STATIC_KEY_FALSE(rdt_doorbells);	/* some VM may have one; see services.c */
/* Besides KVM's MMIO bus, which has to know it too. May sleep; -ENOMEM. */
int rdt_doorbell_add(struct kvm *kvm, gpa_t gpa, u32 bytes, struct rdt_kvm_bell *bell);
/* It is not rung any more. Nothing happens if it was not there. */
void rdt_doorbell_del(struct kvm *kvm, struct rdt_kvm_bell *bell);
/* A nested page fault, of a VM that is not attached. True: it was rung, and *@r is for KVM. */
bool rdt_doorbell_rung(struct kvm_vcpu *vcpu, gpa_t gpa, u64 ec, const u8 *insn, int insn_len, int *r);

/* ---- copy.c ------------------------------------------------------------------ */
DECLARE_STATIC_KEY_FALSE(rdt_copies);	/* some VM may have one */
/* Of struct rdt_kvm_services; see there. */
int rdt_copy_get(struct kvm *kvm);
void rdt_copy_put(struct kvm *kvm);
int rdt_copy_show(struct kvm *kvm, gfn_t gfn, unsigned long pfn, struct page *page);
void rdt_copy_hide(struct kvm *kvm, gfn_t gfn);
/* The VM has just been attached; may sleep. */
void rdt_copy_attached(struct kvm *kvm);
/* What its vCPUs see in place of a frame, or NULL; and whether there is any among @count of them. Under kvm->mmu_lock. */
struct page *rdt_copy_find(struct kvm *kvm, gfn_t gfn);
bool rdt_copy_within(struct kvm *kvm, gfn_t gfn, unsigned long count);

/* ---- secret.c ---------------------------------------------------------------- */
/* The vCPU goes into a secret, or comes out of one. */
void rdt_secret_cross(struct kvm_vcpu *vcpu, bool in);

/* ---- export.c ---------------------------------------------------------------- */
/* RDT_VM_DOM_EXPORT and _IMPORT; the VM is held. */
long rdt_domain_move(struct rdt_vm *vm, unsigned int cmd, void __user *arg);

/* ---- dev.c ------------------------------------------------------------------ */
/* -EINVAL, and a line in the log that says why. */
long rdt_refuse(const char *request, const char *why);
int rdt_dev_init(void);
void rdt_dev_exit(void);

/* ---- port.c ------------------------------------------------------------------ */
/* Allocations and pins not given back yet. */
long rdt_port_held(void);
/* Nested page tables have no entry of these frames any more, and TLBs neither. In kvm->srcu; takes kvm->mmu_lock. */
void rdt_zap(struct kvm *kvm, gfn_t gfn, gfn_t count);
/* Work of a VM: frees the private pages that wait for slots_lock. */
void rdt_port_reap(struct work_struct *work);
/* Read the VMM's memory without waiting for it; false: it is not there now. */
bool rdt_peek(unsigned long hva, void *to, u32 len);

/* ---- cpu.c: registers and views of a vCPU -------------------------------- */
extern bool rdt_is_vmx;
void rdt_cpu_load(struct kvm_vcpu *vcpu, u8 view, struct rdt_cpu *cpu);
/* Write back what @cpu->dirty names and switch the view. */
void rdt_cpu_store(struct kvm_vcpu *vcpu, const struct rdt_cpu *cpu);

bool rdt_tdp_mmu_enabled(struct kvm *kvm);
bool rdt_vm_is_encrypted(struct kvm *kvm);
/* The linear address of an EPT violation, where the CPU tells it. */
bool rdt_cpu_fault_gva(rdt_u64 *gva);

/* ---- hooks.c, selftest.c ------------------------------------------------------ */
int rdt_hooks_install(void);
void rdt_hooks_remove(void);
/* Boots a tiny VM of our own; every hook in the table must have fired. */
int rdt_selftest(void);

#endif
