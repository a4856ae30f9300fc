/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Redoubt guest driver: what it offers to other kernel modules of the guest.
 */
#ifndef _REDOUBT_DRIVER_H
#define _REDOUBT_DRIVER_H

#include <linux/types.h>
#include <linux/redoubt_domain.h>
#include <linux/redoubt_guest.h>

/* Operations of the inside: the first argument of redoubt_call(). */
enum rdt_op {
	RDT_OP_NOP,		/* () -> 0 */
	RDT_OP_COUNTER_INC,	/* (index) -> the counter's new value */
	RDT_OP_PROTECT,		/* (gpa, pages | flags << 32, attr) -> 0 */
	RDT_OP_UNPROTECT,	/* (gpa, pages) -> 0 */
	RDT_OP_LOOKUP,		/* (gpa) -> attr of the policy entry, or 0 */
	RDT_OP_CHECK,		/* () -> 0, -EUCLEAN: the policy table was changed behind its back */
	RDT_OP_SELFTEST,	/* (seed, rounds, use_sse) -> checksum over all registers */
	RDT_OP_WRITE_TEST,	/* (offset, value) -> 0; writes to the test page */
	RDT_OP_READ_TEST,	/* (offset) -> value in the test page */
	RDT_OP_FAULT_TEST,	/* (vector) raises #DE 0, #UD 6 or #PF 14; only with a test page */
	RDT_OP_NR
};

#define RDT_USER_COUNTERS	8	/* for RDT_OP_COUNTER_INC */

/* Flags of a protected range. */
#define RDT_F_REMOVABLE		(1u << 0)	/* redoubt_unprotect() will be honoured */

long redoubt_call(unsigned long op, unsigned long a, unsigned long b, unsigned long c);
long redoubt_call_wait(unsigned long op, unsigned long a, unsigned long b, unsigned long c);
int redoubt_protect(phys_addr_t gpa, unsigned long pages, u64 attr, unsigned int flags);
int redoubt_protect_virt(const void *start, size_t len, u64 attr, unsigned int flags);
int redoubt_unprotect(phys_addr_t gpa, unsigned long pages);

/* Protection domains: Documentation/guest-driver.md. Pointers in these structs are the kernel's. */
struct redoubt_domain;
struct redoubt_domain *redoubt_domain_create(struct rdt_image *image);
int redoubt_domain_call(struct redoubt_domain *d, struct rdt_call *call);
int redoubt_domain_enter(struct redoubt_domain *d, const u64 arg[4], s64 *result);
int redoubt_domain_measure(struct redoubt_domain *d, u8 out[32]);
void redoubt_domain_destroy(struct redoubt_domain *d);

/**
 * struct redoubt_secret - a secret in code (redoubt_secret.h, Documentation/secrets.md).
 * @name: of the secret, as in its section's name.
 * @flags: RDT_DOM_VECTOR, RDT_DOM_REWIND.
 * @slots: threads that can be inside at once. It is measured: a constant.
 * @results: general registers that carry a result, see struct rdt_domain_desc.
 * @erased: registers that an event finds @erasure in; with RDT_DOM_REWIND.
 * @erasure: the erasure constant.
 * @gate: first page.
 * @exit: last page.
 * @end: behind it.
 * @id: of the host's domain, 0: it is not registered.
 *
 * Made by RDT_SECRET_MODULE(): scripts/secret-manifest reads it up to @erasure.
 */
struct redoubt_secret {
	char name[64];
	__u32 flags;
	__u32 slots;
	__u32 results;
	__u32 erased;
	__u64 erasure;
	char *gate;
	char *exit;
	char *end;
	__u64 id;
	__u64 reserved;
};

#define RDT_REG_RAX	(1u << 0)	/* for @results and @erased */
#define RDT_REG_RCX	(1u << 1)
#define RDT_REG_RDX	(1u << 2)

#define RDT_SECRET_MODULE(secret, ...)						\
	struct redoubt_secret secret##_secret __used __section(".redoubt.secret") = {	\
		.name = #secret, .gate = secret##_gate, .exit = secret##_exit,	\
		.end = secret##_end, __VA_ARGS__ }

int redoubt_secret_register(struct redoubt_secret *s);
void redoubt_secret_unregister(struct redoubt_secret *s);

#endif /* _REDOUBT_DRIVER_H */
