/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Protection domains for tests that attack them: any code as a domain, made by any vCPU,
 * anywhere. A domain's pages lie one behind the other, in the guest and in its own
 * address space: code (GATE, EXIT, TEXT...), data, stacks; then frames for its tables.
 */
#ifndef CELL_H
#define CELL_H

#include "rdt.h"
#include "vmm.h"

#define CELL_DESC	(GUEST_FREE + 0x10000)		/* a page each vCPU */
#define CELL_NODES	GUEST_FREE
#define CELL_TABLES	8				/* frames for them */
#define CELL_GVA		0x7e8000000000ul
#define CELL_WINDOW	(CELL_GVA + 0x1000000)		/* of one page, if it has one */
#define CELL_NONE	0xdeadul			/* vcpu_call() could not say */

struct cell_image {
	const void *code;
	unsigned int code_pages, data_pages, slots;
	uint32_t flags;
	uint64_t gate_at, exit_at;	/* from the code's start */
	uint64_t resume;
};

struct cell {
	struct vm *vm;
	const struct cell_image *image;
	uint64_t gpa;		/* of its first frame */
	uint64_t shared;	/* frame in its window; 0: it has none */
	int64_t id;
	const char *failed;	/* what cell_make() could not do */
};

/* A hypercall with four arguments on this vCPU; CELL_NONE: the guest did not come back. */
int64_t cell_hc(struct vcpu *v, uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d);

static inline uint64_t cell_data(const struct cell *d)
{
	return d->image->code_pages * PAGE_SIZE;
}
static inline uint64_t cell_stacks(const struct cell *d)
{
	return cell_data(d) + d->image->data_pages * PAGE_SIZE;
}
static inline uint64_t cell_pages(const struct cell *d)
{
	return d->image->code_pages + d->image->data_pages + d->image->slots;
}
static inline uint64_t cell_gate(const struct cell *d)
{
	return d->gpa + d->image->gate_at;
}
/* Bytes from one domain to the next. */
static inline uint64_t cell_size(const struct cell_image *im)
{
	return (im->code_pages + im->data_pages + im->slots + CELL_TABLES) * PAGE_SIZE;
}

void cell_describe(const struct cell *d, struct rdt_domain_desc *desc);
/* Image and zeroed data into the guest's memory. */
void cell_place(struct cell *d, struct vm *vm, const struct cell_image *im, uint64_t gpa);
/* Of what is placed: a domain that is not sealed yet; 0 or the call's error. */
int64_t cell_build(struct vcpu *v, struct cell *d);
int64_t cell_seal(struct vcpu *v, struct cell *d);
/* All of it; ends the program when it cannot be. */
void cell_make(struct vcpu *v, struct cell *d, const struct cell_image *im, uint64_t gpa);
/* Asks until it is gone, at most a second. */
int64_t cell_destroy(struct vcpu *v, const struct cell *d);
/* By the operator: bytes that the guest has never had. */
int cell_install(struct rdt *r, const struct cell *d, uint64_t offset, const void *value, uint32_t len);
/* The operator's leave; a node page. */
void cell_allow(struct vcpu *v, struct rdt *r);

#endif
