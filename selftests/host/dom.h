/* SPDX-License-Identifier: GPL-2.0 */
/* A small domain, made and called by a guest that does what it is told. */
#ifndef DOM_H
#define DOM_H

#include <stdint.h>

#include "domain.h"
#include "rdt.h"
#include "vmm.h"

/* Pages in both address spaces: code, data, of which the last one is the stack; then its tables. */
#define DOM_GVA		0x7e8000000000ul	/* of the gate page, in its own address space */
#define DOM_DATA	(DOM_CODE_PAGES * PAGE_SIZE)
#define DOM_DATA_PAGES	3
#define DOM_PAGES	(DOM_CODE_PAGES + DOM_DATA_PAGES)
#define DOM_WINDOW	(DOM_GVA + 0x1000000)	/* one page */
#define DOM_TABLES	0x20000ul
#define DOM_TABLE_PAGES	8

struct dom {
	struct vm *vm;
	uint64_t gpa;
	uint64_t shared;	/* the page in its window */
	uint64_t id;
};

/* On vCPU 0: a hypercall with its result. */
int64_t dom_hc(struct vm *vm, uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
/*
 * Domain number @nr (0..15) of the VM, sealed; @word is what its data begins with. Bails
 * out when that fails.
 */
struct dom dom_make(struct vm *vm, int nr, uint32_t flags, uint64_t word);
/* DOM_* with its arguments, on vCPU 0. */
int64_t dom_call(const struct dom *d, uint64_t op, uint64_t a, uint64_t b);
/* A thread that stays inside until it is told to come: then its result is 42. */
void dom_stay(const struct dom *d, struct vcpu *who);
int64_t dom_come(const struct dom *d, struct vcpu *who);

#endif
