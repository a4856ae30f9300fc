/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The boundary between the core (C++, decides) and its host (C, carries out).
 * The host is src/kvm in the kernel module and a mock in the unit tests.
 * Plain C: no KVM type and no C++ type crosses it.
 */
#ifndef REDOUBT_PORT_H
#define REDOUBT_PORT_H

#ifdef __cplusplus
extern "C" {
#define RDT_NOEXCEPT noexcept
#else
#define RDT_NOEXCEPT
#endif

struct rdt_event;
struct rdt_region;
struct rdt_vm_info;

typedef unsigned char rdt_u8;
typedef unsigned short rdt_u16;
typedef unsigned int rdt_u32;
/* x86-64 only: the type of the general registers in struct kvm_vcpu_arch. */
typedef unsigned long rdt_u64;
typedef long rdt_s64;

/* ---- what the core asks of its host ---------------------------------------
 * @host is the cookie given to rdt_core_vm_create(), @hv the one given to
 * rdt_core_vcpu_create(). "May sleep" functions are called with the VM's
 * policy lock held or from create/destroy.
 */

/* Zeroed memory, may sleep. NULL: none. */
void *rdt_port_alloc(unsigned long bytes);
void rdt_port_free(void *p);

/* Serializes the writers of a VM's policy. May sleep. Outermost lock of the core. */
void rdt_port_lock(void *host);
void rdt_port_unlock(void *host);

/* Are all frames RAM of a memslot that the guest sees now? Bounded by memslots. */
int rdt_port_is_ram(void *host, rdt_u64 gfn, rdt_u64 count);
/* Does KVM itself keep a structure (kvmclock, steal time...) in one of the frames? */
int rdt_port_holds_pv(void *host, rdt_u64 gfn, rdt_u64 count);
/*
 * Drop the nested mappings of the frames in every view and flush all vCPUs; when
 * it returns no vCPU can use a right it had before. May sleep.
 */
void rdt_port_zap(void *host, rdt_u64 gfn, rdt_u64 count);
/* Map a guest page for good. *pin is handed back to unpin. NULL: not RAM. May sleep. */
void *rdt_port_pin(void *host, rdt_u64 gfn, void **pin);
/* Where the pinned page is; as rdt_port_pin() gave it. */
void *rdt_port_pinned(void *host, void *pin);
void rdt_port_unpin(void *host, void *pin);
/* The same for the length of one step, on a vCPU's thread; the page is about to be written. */
void *rdt_port_hold(void *host, rdt_u64 gfn, void **cookie);
/* Any thread. Does not sleep. */
void rdt_port_release(void *host, void *cookie);
/* Copy guest memory. 0 or -1. May sleep. */
int rdt_port_read(void *host, rdt_u64 gpa, void *to, rdt_u32 len);

/*
 * The same for up to 8 bytes in one page, in an exit of a vCPU or inside kvm->srcu. -1 also
 * when they are not in memory just now. Does not sleep.
 */
int rdt_port_peek(void *host, rdt_u64 gpa, void *to, rdt_u32 len);

/* Walk the vCPU's current page tables for a supervisor fetch; ~0 when not mapped. */
rdt_u64 rdt_port_gva_to_gpa(void *hv, rdt_u64 gva);

rdt_u64 rdt_port_random(void);

/*
 * A page of the host's own, zeroed, page aligned, for a frame of a domain. NULL: none. May
 * sleep. The core has overwritten it when it gives it back.
 */
void *rdt_port_page_alloc(void *host);
void rdt_port_page_free(void *host, void *page);

/* Can a page be executed that cannot be read? Else a secret's code is readable to itself. */
int rdt_port_execute_only(void);

/* A hash in the making; NULL: no memory. May sleep. end() frees it; @out NULL: nothing else. */
void *rdt_port_sha256_begin(void);
void rdt_port_sha256_update(void *sha, const void *data, unsigned long len);
void rdt_port_sha256_end(void *sha, rdt_u8 out[32]);

/*
 * AES-256-GCM in place: @aad bytes at @blob are authenticated, the @len behind them encrypted or
 * decrypted, and behind those are the 16 bytes of the tag. 0; -EBADMSG: the tag is another's, and
 * what is in the blob is nothing; -ENOPKG, -ENOMEM. May sleep.
 */
int rdt_port_seal(const rdt_u8 key[32], const rdt_u8 nonce[12], void *blob, rdt_u64 aad, rdt_u64 len);
int rdt_port_unseal(const rdt_u8 key[32], const rdt_u8 nonce[12], void *blob, rdt_u64 aad, rdt_u64 len);

/*
 * Room for two vector states (with x87 and PKRU) of one slot: its caller's and the
 * inside's. NULL: no memory, or the host cannot do it. May sleep. free() overwrites.
 */
void *rdt_port_vector_alloc(void *host);
void rdt_port_vector_free(void *host, void *room);
/*
 * Keep the vCPU's live state and load another, in its exit. Does not sleep. The slot
 * is the vCPU's while this runs, and not any longer.
 */
enum rdt_vector {
	RDT_VEC_ENTER,		/* keep the caller's, load the initial one */
	RDT_VEC_LEAVE,		/* load the caller's */
	RDT_VEC_AEX,		/* keep the inside's, load the caller's */
	RDT_VEC_RESUME,		/* keep the caller's, load the inside's */
};
void rdt_port_vector(void *hv, void *room, enum rdt_vector op);

/*
 * The same for CS and SS, and the bases of FS and GS, of a domain of ring 3: initial is CS and SS
 * as they are, bases of 0. Inside, CS and SS change by SYSCALL and SYSENTER, which touch no memory: so
 * the vCPU may be in ring 0 when it is brought out, and what is loaded takes it back to ring 3.
 */
void *rdt_port_segments_alloc(void *host);
void rdt_port_segments_free(void *host, void *room);
void rdt_port_segments(void *hv, void *room, enum rdt_vector op);

/* Raise an event; the host fills in seq, time and vm. Any context that may not sleep too. */
void rdt_port_event(void *host, struct rdt_event *ev);

/* One rate-limited line to the host's log, with the VM named. */
void rdt_port_log(void *host, const char *what, rdt_u64 a, rdt_u64 b);

/* ---- what the host asks of the core ---------------------------------------- */

#define RDT_ACC_R	1
#define RDT_ACC_W	2
#define RDT_ACC_X	4
#define RDT_ACC_RWX	7

#define RDT_VIEW_ROOT		0
#define RDT_VIEW_INTEGRITY	1
#define RDT_VIEW_DOMAIN		2	/* and up to RDT_VIEW_STEP: protection domains */
#define RDT_VIEW_STEP		31	/* one vCPU, one instruction; see rdt_core_step_begin() */

/**
 * struct rdt_cpu - a vCPU at an exit.
 * @gpr: its general registers in hardware order, live; [4] (RSP) is stale, use @rsp.
 * @dirty: RDT_CPU_* that the core changed; the host writes them back.
 * @va_bits: linear address bits of the guest's paging mode, 48 or 57; 0 when
 *	the vCPU is not in 64-bit mode, or in a nested guest.
 */
struct rdt_cpu {
	rdt_u64 *gpr;
	rdt_u64 rip;
	rdt_u64 rsp;
	rdt_u64 rflags;
	rdt_u64 cr3;
	rdt_u64 idt_base;
	rdt_u32 vcpu;		/* index, for events */
	rdt_u8 cpl;
	rdt_u8 va_bits;
	rdt_u8 view;		/* in: current; out with RDT_CPU_VIEW: wanted */
	rdt_u8 dirty;
};
#define RDT_CPU_RIP	1
#define RDT_CPU_RSP	2
#define RDT_CPU_RFLAGS	4
#define RDT_CPU_CR3	8
#define RDT_CPU_VIEW	16
/*
 * With RDT_CPU_VIEW: into a secret's view, or, when @view is the root, out of one. Who calls a secret
 * controls the page tables, so its IDT may be anything: the host sees to it that in
 * there no event is delivered by it, but rdt_core_aexit() is called.
 */
#define RDT_CPU_SECRET	32

/**
 * struct rdt_fault - an access that the nested tables refused.
 * @access: RDT_ACC_* wanted, one bit.
 * @walk: the access was the guest's page walk at a paging-structure entry.
 * @vectoring: it happened while an event was delivered.
 * @soft_len: instruction length of a soft event (int n, int3, into), else 0.
 */
struct rdt_fault {
	rdt_u64 gpa;
	rdt_u64 gva;
	rdt_u8 gva_valid;
	rdt_u8 access;
	rdt_u8 walk;
	rdt_u8 vectoring;
	rdt_u8 soft_len;
	rdt_u8 emulated;	/* KVM's emulator or KVM itself is the writer */
	rdt_u8 host : 1;	/* no instruction of a vCPU: KVM on its own */
	rdt_u8 mmio : 1;	/* no RAM, or none to write: KVM would emulate the instruction */
	rdt_u8 size;		/* bytes, 0 unknown */
	const void *new_val;	/* up to 8 bytes, NULL unknown */
	const void *old_val;	/* likewise; NULL: the core reads it */
};

/**
 * struct rdt_store - a plain store, as rdt_core_decode_store() reads it.
 * @address: linear, but for the base of @seg (RDT_SEG_*).
 * @value: the low @size bytes.
 * @size: 1, 2, 4 or 8. @len: of the instruction.
 */
struct rdt_store {
	rdt_u64 address;
	rdt_u64 value;
	rdt_u8 size;
	rdt_u8 len;
	rdt_u8 seg;
};
#define RDT_SEG_NONE	0
#define RDT_SEG_FS	1
#define RDT_SEG_GS	2

enum rdt_verdict {
	RDT_V_PASS,		/* KVM goes on as if we were not there */
	RDT_V_RESUME,		/* re-enter the guest (registers as @cpu says) */
	RDT_V_GP,		/* nothing changes; #GP(0) */
	RDT_V_STEP,		/* let the instruction happen and record what it writes:
				 * rdt_core_stored(), or rdt_core_step_begin(), or KVM's
				 * emulator where that fails */
	RDT_V_FREEZE,		/* nothing changes; stop, tell the VMM */
	RDT_V_AEX,		/* an asynchronous exit was made: see rdt_core_aex() */
};

struct rdt_core_vm;
struct rdt_core_vcpu;

/* May sleep. NULL: no memory. */
struct rdt_core_vm *rdt_core_vm_create(void *host) RDT_NOEXCEPT;
/* No vCPU is inside any core function any more. May sleep. */
void rdt_core_vm_destroy(struct rdt_core_vm *vm) RDT_NOEXCEPT;
struct rdt_core_vcpu *rdt_core_vcpu_create(struct rdt_core_vm *vm, void *hv) RDT_NOEXCEPT;
void rdt_core_vcpu_destroy(struct rdt_core_vcpu *vcpu) RDT_NOEXCEPT;
rdt_u8 rdt_core_vcpu_view(const struct rdt_core_vcpu *vcpu) RDT_NOEXCEPT;

/**
 * rdt_core_access - RDT_ACC_* that @view grants on a frame.
 * Lock-free, any context. This is the one place where permissions come from.
 */
rdt_u8 rdt_core_access(const struct rdt_core_vm *vm, rdt_u8 view, rdt_u64 gfn) RDT_NOEXCEPT;
/**
 * rdt_core_max_level - largest page level (1: 4K, 2: 2M, 3: 1G) up to @level at
 * which the page that holds @gfn has no restricted frame. A page that is restricted
 * throughout is mapped small too: then a frame that is released while its fault is
 * under way cannot open the rest of the page.
 */
int rdt_core_max_level(const struct rdt_core_vm *vm, rdt_u8 view, rdt_u64 gfn, int level) RDT_NOEXCEPT;

/**
 * rdt_core_private - the page to map for a frame in a view instead of the VMM's; NULL:
 * the VMM's. Only while a vCPU is in @view: it stays until rdt_port_zap() of the frame has
 * returned. Lock-free, any context.
 */
void *rdt_core_private(const struct rdt_core_vm *vm, rdt_u8 view, rdt_u64 gfn) RDT_NOEXCEPT;

/**
 * rdt_core_walk_may_set - may KVM's walk of the guest's page tables set accessed and
 * dirty bits in this frame? In those of a restricted frame only if it is known to
 * hold page tables, as for the CPU's own walks. Lock-free.
 */
int rdt_core_walk_may_set(struct rdt_core_vm *vm, rdt_u64 gfn) RDT_NOEXCEPT;

/**
 * rdt_core_at_door - would a fetch from this frame cross into or out of integrity
 * mode or a domain? If so, rdt_core_door() is the next to be asked for this vCPU.
 * The two checks that the dearest path can afford before it knows more.
 */
enum rdt_door { RDT_DOOR_NONE, RDT_DOOR_IN, RDT_DOOR_OUT };
enum rdt_door rdt_core_at_door(const struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu,
			       rdt_u64 gfn) RDT_NOEXCEPT;
/**
 * rdt_core_door - the vCPU fetched from a door, no event was being delivered.
 * @cpu: for RDT_DOOR_OUT only @gpr, @rip, @vcpu, @view and @dirty are set. RESUME, GP,
 * or PASS: it is not at the door after all, ask rdt_core_fault().
 */
enum rdt_verdict rdt_core_door(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu,
			       enum rdt_door door, struct rdt_cpu *cpu) RDT_NOEXCEPT;

/**
 * rdt_core_fault - decide on a refused access; raises the events.
 * Called only when rdt_core_access() does not grant it, or in a view other than
 * root. @vcpu may be NULL while a vCPU has never left the root view.
 */
enum rdt_verdict rdt_core_fault(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu,
				const struct rdt_fault *f, struct rdt_cpu *cpu) RDT_NOEXCEPT;

/**
 * rdt_core_policy_seq - changes with each rule that takes a right away, before
 * rdt_port_zap() is called for it. Any context.
 */
rdt_u32 rdt_core_policy_seq(const struct rdt_core_vm *vm) RDT_NOEXCEPT;
/**
 * rdt_core_decode_store - the instruction is a mov of a register or an immediate to
 * memory: 1, and *@out. 0: another, or one that is not read whole.
 * @insn: @n bytes at @cpu->rip, the guest's.
 */
int rdt_core_decode_store(const rdt_u8 *insn, rdt_u32 n, const struct rdt_cpu *cpu,
			  struct rdt_store *out) RDT_NOEXCEPT;
/**
 * rdt_core_stored - the host has carried out a store that RDT_V_STEP answered.
 * @f: the fault, with the values.
 */
void rdt_core_stored(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu, const struct rdt_fault *f,
		     const struct rdt_cpu *cpu) RDT_NOEXCEPT;

/**
 * rdt_core_step_begin - the vCPU is to run one instruction in RDT_VIEW_STEP.
 * One vCPU of a VM at a time; the host sees to that, and to it that the vCPU leaves
 * the view after one instruction or one event's delivery.
 * @f: the fault that RDT_V_STEP answered. @cpu: the writer, for events.
 * Returns 1, or 0: no memory, or the rule has changed; nothing was begun. May sleep.
 */
int rdt_core_step_begin(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu,
			const struct rdt_fault *f, const struct rdt_cpu *cpu) RDT_NOEXCEPT;
/* Another fault in the step: 1 the access is granted now, 0 it is not the step's to grant. */
int rdt_core_step_grant(struct rdt_core_vm *vm, const struct rdt_fault *f) RDT_NOEXCEPT;
/**
 * rdt_core_step_end - report what the step has written; the vCPU's view is root.
 * @done: the instruction was executed (or one iteration, or the event delivered):
 * a write that changed nothing is reported too. @event: it was an event.
 * Any thread, while the vCPU does not run.
 */
#define RDT_STEP_UNDONE	1	/* it wrote what it must not: memory is as before, the CPU must be */
#define RDT_STEP_FREEZE	2	/* and the vCPU stops there */
rdt_u8 rdt_core_step_end(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu, int done,
			 int event) RDT_NOEXCEPT;

/**
 * rdt_core_kvm_write - KVM itself is about to write for the guest: its emulator
 * or a structure that it keeps (f->emulated, f->host). Returns PASS (do it, it
 * is recorded) or GP (do not).
 */
enum rdt_verdict rdt_core_kvm_write(struct rdt_core_vm *vm, const struct rdt_fault *f,
				    const struct rdt_cpu *cpu) RDT_NOEXCEPT;
/* The guest asks KVM to keep a structure in these bytes: 1 = fine, 0 = refused, event raised. */
int rdt_core_may_hold_pv(struct rdt_core_vm *vm, rdt_u64 gpa, rdt_u64 len) RDT_NOEXCEPT;
/* A memslot over these frames is created, deleted or moved. */
void rdt_core_mapping_changed(struct rdt_core_vm *vm, rdt_u64 gfn, rdt_u64 count) RDT_NOEXCEPT;

/*
 * The VM has ended or was detached: no vCPU comes any more. Lets go of guest pages;
 * from here on the operator's calls answer -ENODEV. May sleep.
 */
void rdt_core_end(struct rdt_core_vm *vm) RDT_NOEXCEPT;

/* What a hypercall did with the vCPU besides its result. */
enum rdt_hc_end {
	RDT_HC_END_RESULT,	/* RAX = result, go on behind the instruction */
	RDT_HC_END_SWITCHED,	/* registers are as @cpu says; nothing is skipped or written */
};
/**
 * rdt_core_hypercall - RDT_HC_* of an attached VM; VERSION, STATUS and ATTACH of
 * an unattached one are the host's. May sleep.
 * @arg: RBX, RCX, RDX, RSI.
 */
enum rdt_hc_end rdt_core_hypercall(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu, rdt_u32 nr,
				   const rdt_u64 arg[4], struct rdt_cpu *cpu,
				   rdt_s64 *result) RDT_NOEXCEPT;
/* RDT_ST_* that the core knows. */
rdt_u32 rdt_core_status(const struct rdt_core_vm *vm) RDT_NOEXCEPT;

/* The operator's side; 0 or -errno. May sleep. */
int rdt_core_protect(struct rdt_core_vm *vm, rdt_u64 gpa, rdt_u64 pages, rdt_u8 action,
		     rdt_u8 cls) RDT_NOEXCEPT;
/* 0: nobody is inside and nobody gets in any more. -EBUSY. @flags: RDT_DETACH_*. */
int rdt_core_detach(struct rdt_core_vm *vm, rdt_u32 flags) RDT_NOEXCEPT;
void rdt_core_info(struct rdt_core_vm *vm, struct rdt_vm_info *info) RDT_NOEXCEPT;
/* Ranges from @gpa on; returns how many, or -errno; *next is where to go on. */
int rdt_core_regions(struct rdt_core_vm *vm, rdt_u64 gpa, struct rdt_region *out, rdt_u32 room,
		     rdt_u64 *next) RDT_NOEXCEPT;

/* ---- protection domains; Documentation/domains.md --------------------------- */

struct rdt_domain_quota;
struct rdt_domain_info;
struct rdt_fixup;

/* The operator's side; 0 or -errno. May sleep. A VM begins with a quota of nothing. */
int rdt_core_domain_set_quota(struct rdt_core_vm *vm, const struct rdt_domain_quota *q) RDT_NOEXCEPT;
void rdt_core_domain_quota(struct rdt_core_vm *vm, struct rdt_domain_quota *q) RDT_NOEXCEPT;
int rdt_core_domain_info(struct rdt_core_vm *vm, rdt_u32 view, struct rdt_domain_info *info) RDT_NOEXCEPT;
/*
 * -EAGAIN, here and as the hypercall's result: a vCPU is inside. The host may have each vCPU
 * exit and call rdt_core_evict(), then ask again.
 */
int rdt_core_domain_destroy(struct rdt_core_vm *vm, rdt_u64 id) RDT_NOEXCEPT;
/* @value, @fixups: copies of the host's. -EAGAIN: a thread is inside, or was interrupted there. */
int rdt_core_domain_install(struct rdt_core_vm *vm, rdt_u64 id, const void *value, rdt_u32 len,
			    const struct rdt_fixup *fixups, rdt_u32 nr) RDT_NOEXCEPT;
/**
 * rdt_core_domain_blob_bytes - how large a domain's blob is, see struct rdt_domain_blob. Or -errno.
 */
rdt_s64 rdt_core_domain_blob_bytes(struct rdt_core_vm *vm, rdt_u64 id) RDT_NOEXCEPT;
/**
 * rdt_core_domain_export - fill the host's @blob of exactly that size. After an error there is nothing
 * in it that is anybody's secret.
 */
int rdt_core_domain_export(struct rdt_core_vm *vm, rdt_u64 id, const rdt_u8 key[32], void *blob,
			   rdt_u64 bytes) RDT_NOEXCEPT;
/* @blob: a copy of the host's; it is used up. */
int rdt_core_domain_import(struct rdt_core_vm *vm, rdt_u64 id, const rdt_u8 key[32], void *blob,
			   rdt_u64 bytes) RDT_NOEXCEPT;
/**
 * rdt_core_evict - bring the vCPU out of a domain that is being destroyed. 1: it was in one, and
 * is at its caller's return address with an error; 0: nothing was to be done. On its own
 * thread, no event being delivered.
 */
int rdt_core_evict(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu, struct rdt_cpu *cpu) RDT_NOEXCEPT;
/**
 * rdt_core_put - the VMM is about to see the vCPU. 1: it was in a domain, and is at its resume stub
 * (asynchronous exit), or its call has ended with -EPERM and an alert, for @io: there is something
 * that the VMM is to finish. 0: nothing was to be done. On its own thread; does not sleep.
 * @soft_len: as in struct rdt_fault, of the event that is under way.
 */
int rdt_core_put(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu, rdt_u8 soft_len, int io,
		 struct rdt_cpu *cpu) RDT_NOEXCEPT;
/* Bytes at an address of the domain that the vCPU is in, for its own thread; how many there are. */
rdt_u32 rdt_core_read_inside(const struct rdt_core_vm *vm, const struct rdt_core_vcpu *vcpu,
			     rdt_u64 gva, void *to, rdt_u32 n) RDT_NOEXCEPT;

/**
 * rdt_core_aexit - an event is to be delivered to a vCPU that is inside: asynchronous exit. 1: done, the
 * event is to strike where @cpu says. 0: it is not inside, or cannot be brought out.
 * @soft_len: as in struct rdt_fault.
 */
int rdt_core_aexit(struct rdt_core_vm *vm, struct rdt_core_vcpu *vcpu, struct rdt_cpu *cpu,
		   rdt_u8 soft_len) RDT_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif /* REDOUBT_PORT_H */
