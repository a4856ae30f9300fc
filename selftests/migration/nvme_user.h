/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A program in the guest that drives the NVMe controller itself: no driver of the kernel's has it then, and
 * none gets it back. Queues of its own, one command after the other. TAP.
 */
#ifndef NVME_USER_H
#define NVME_USER_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE	4096ull
#define PAGES	64
#define DEPTH	32

struct sqe {
	uint8_t opcode, flags;
	uint16_t cid;
	uint32_t nsid, cdw2, cdw3;
	uint64_t mptr, prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};

struct cqe {
	uint32_t dw0, dw1;
	uint16_t sqhd, sqid, cid, status;
};

struct queue {
	uint16_t id, tail, head, phase;
	volatile struct sqe *sq;
	volatile struct cqe *cq;
	uint64_t sq_gpa, cq_gpa;
};

extern volatile uint8_t *bar;		/* registers, and a page of doorbells behind */
extern uint8_t *memory;			/* PAGES pages, which stay where they are.. */
extern uint64_t gpa[PAGES];		/* ..there */
extern struct queue admin, io;
extern unsigned int tests, bad, rung;	/* rung: by set() */
extern const char *requirement;		/* what the tests' names begin with */

__attribute__((format(printf, 2, 3))) void report(bool good, const char *what, ...);
/* Both end the program if there is none. */
void find_controller(void);
void find_memory(void);

void set(uint32_t off, uint32_t v);	/* a register, by a plain store */
bool wait_csts(uint32_t mask, uint32_t value);
/* A reset, and the admin queue there; is it ready? */
bool enable_at(uint64_t asq, uint64_t acq, uint32_t cc);
bool restart(void);			/* with queues of ours, and it works */
bool make_io(void);

void submit(struct queue *q, struct sqe e);	/* not told yet */
void ring(struct queue *q);
int completion(struct queue *q, double seconds);	/* its status field, -1: none came */
int command(struct queue *q, struct sqe e);	/* all three */
int identify(uint64_t prp1, uint64_t prp2);
bool works(void);			/* Identify tells something */
struct sqe rw(uint8_t opcode, uint64_t prp1, uint64_t prp2, unsigned int blocks);

#endif
