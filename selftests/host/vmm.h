/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A small VMM on /dev/kvm for tests: a VM whose guest runs functions of the test
 * program itself, one call at a time or as long as it likes, on up to eight
 * vCPUs. Errors of set-up end the program; what the guest does is returned.
 */
#ifndef VMM_H
#define VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>

#include <linux/kvm.h>

#include "guest.h"

#define VM_IRQCHIP	1	/* LAPIC and the rest in the kernel */
#define VM_THP		2	/* memory in huge pages where possible */
#define VM_SMALL	4	/* no huge pages */

#define VM_MAX_SLOTS	16

struct vm;

struct vcpu {
	struct vm *vm;
	int id, fd;
	bool xsave;		/* the guest may use XSAVE, AVX... */
	struct kvm_run *run;
	size_t run_size;
	uint32_t exit;		/* KVM_EXIT_* of the last stop */
	int error;		/* errno of KVM_RUN, 0 */
	uint8_t stop;		/* STOP_* when exit is KVM_EXIT_IO on PORT_STOP, else 0 */
	uint64_t value;		/* with STOP_DONE, STOP_SYNC */
	pthread_t thread;
	struct {
		void *fn;
		uint64_t arg[4];
	} call;			/* of vcpu_start() */
};

struct vm_slot {
	uint64_t gpa, size;
	uint8_t *host;
	uint32_t flags;
};

struct vm {
	int fd;
	struct vm_slot slot[VM_MAX_SLOTS];	/* 0: RAM from gpa 0 on */
	struct vcpu vcpu[GUEST_MAX_VCPUS];
	int vcpus;
	uint64_t tables;			/* next free page table */
	void *map;
	size_t map_size;
};

int kvm_dev(void);
/* RAM of @size bytes at gpa 0, the program in it, @vcpus vCPUs. */
struct vm *vm_create(uint64_t size, int vcpus, unsigned int flags);
void vm_destroy(struct vm *vm);

/* Where a guest-physical address is in this process. */
void *vm_host(struct vm *vm, uint64_t gpa);
/* The guest's own copy of a variable of this program. */
#define vm_var(vm, x)	((__typeof__(&(x)))vm_host(vm, (uint64_t)&(x)))
static inline uint64_t vm_u64(struct vm *vm, uint64_t gpa)
{
	return *(volatile uint64_t *)vm_host(vm, gpa);
}

/* Set, move (new gpa), resize or delete (size 0) a slot; 0 or -errno. */
int vm_set_slot(struct vm *vm, int nr, uint64_t gpa, uint64_t size, void *host, uint32_t flags);
/* Anonymous memory, aligned to 2 MiB. */
void *vm_alloc(uint64_t size, unsigned int flags);
/* Pages dirtied since last asked; one bit each. */
void vm_dirty_log(struct vm *vm, int slot, uint64_t *bitmap);
/* A counter of the VM as KVM names it (KVM_GET_STATS_FD); -1: there is none. */
int64_t vm_stat(struct vm *vm, const char *name);

/* Let the guest see @gpa at @gva, in 4 KiB pages. Flags: PTE bits besides present. */
void vm_map(struct vm *vm, uint64_t gva, uint64_t gpa, uint64_t bytes, uint64_t flags);
/* The entry that maps a page of vm_map(): its gpa. */
uint64_t vm_pte(struct vm *vm, uint64_t gva);
#define PTE_P	1ull
#define PTE_W	2ull
#define PTE_U	4ull
#define PTE_A	0x20ull
#define PTE_D	0x40ull
#define PTE_PS	0x80ull
#define PTE_NX	(1ull << 63)

/*
 * Call a function of this program in the guest; its result. Look at v->stop when
 * it may end in another way: then the result is 0.
 */
#define vcpu_call(v, fn, ...) vcpu_call4(v, (void *)(fn), VCPU_ARGS(__VA_ARGS__))
#define VCPU_ARGS(...) (uint64_t[4]){ __VA_ARGS__ }
uint64_t vcpu_call4(struct vcpu *v, void *fn, const uint64_t arg[4]);
/* A hypercall with all its arguments; its result, as vcpu_call()'s. */
int64_t vcpu_hc(struct vcpu *v, uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
/* The same on a thread of its own; join returns the result. */
#define vcpu_start(v, fn, ...) vcpu_start4(v, (void *)(fn), VCPU_ARGS(__VA_ARGS__))
void vcpu_start4(struct vcpu *v, void *fn, const uint64_t arg[4]);
uint64_t vcpu_join(struct vcpu *v);
/* Make it ready to run the function with vcpu_run(). */
#define vcpu_prepare(v, fn, ...) vcpu_prepare4(v, (void *)(fn), VCPU_ARGS(__VA_ARGS__))
void vcpu_prepare4(struct vcpu *v, void *fn, const uint64_t arg[4]);
/* Go on after STOP_SYNC or another exit. */
uint64_t vcpu_resume(struct vcpu *v);
/* One KVM_RUN. */
void vcpu_run(struct vcpu *v);
bool vcpu_done(const struct vcpu *v);
/* TAP diagnostics: how the guest stopped. */
void vcpu_explain(struct vcpu *v);
/* vcpu_done(); if not, a failed result that says where it stands. */
bool vcpu_must_end(struct vcpu *v, const char *what);

void vcpu_regs(struct vcpu *v, struct kvm_regs *regs);
void vcpu_sregs(struct vcpu *v, struct kvm_sregs *sregs);

#endif
