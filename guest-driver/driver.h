/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the ordinary (normal mode) part of the driver. */
#ifndef _REDOUBT_GUEST_DRIVER_H
#define _REDOUBT_GUEST_DRIVER_H

#include <linux/io.h>
#include <linux/mm.h>
#include <linux/redoubt_guest.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include "redoubt_driver.h"
#include "inside.h"

/*
 * The extable entry is for a hypervisor that does not take the instruction at
 * all: it is #UD then, and RAX still holds the call's number.
 */
static __always_inline long rdt_hypercall4(unsigned long nr, unsigned long a, unsigned long b,
					   unsigned long c, unsigned long d)
{
	long ret;

	asm volatile("1: " ALTERNATIVE("vmcall", "vmmcall", X86_FEATURE_VMMCALL) "\n"
		     "2:\n"
		     _ASM_EXTABLE(1b, 2b)
		     : "=a" (ret) : "a" (nr), "b" (a), "c" (b), "d" (c), "S" (d) : "memory");
	return ret;
}

static __always_inline long rdt_hypercall(unsigned long nr, unsigned long a, unsigned long b,
					  unsigned long c)
{
	return rdt_hypercall4(nr, a, b, c, 0);
}

/* kernel_map.c */
typedef int (*rdt_run_fn)(phys_addr_t gpa, unsigned long pages, void *arg);
int rdt_kallsyms_init(void);
unsigned long rdt_symbol(const char *name);
phys_addr_t rdt_phys(const void *va);
int rdt_for_each_run(const void *start, size_t len, rdt_run_fn fn, void *arg);
int rdt_protect_kernel(unsigned int text_action);
int rdt_protect_module(unsigned int text_action);

/* protect.c */
extern unsigned int rdt_node_pages;
int rdt_donate(unsigned int pages);

/* tables.c */
struct rdt_chunk {
	struct page *page;
	unsigned int order;
};

#define RDT_MAX_CHUNKS	96

/**
 * struct rdt_space - the inside's address space and the frames that make it.
 * @chunk: frames for tables and stacks, for good once the driver is registered.
 * @used: pages given out of the last chunk.
 */
struct rdt_space {
	phys_addr_t cr3;
	unsigned int levels;
	unsigned int chunks;
	unsigned int used;
	struct rdt_chunk chunk[RDT_MAX_CHUNKS];
};

#define RDT_MAP_W	(1u << 0)
#define RDT_MAP_X	(1u << 1)

int rdt_space_init(struct rdt_space *s, unsigned int pages);
void rdt_space_free(struct rdt_space *s);
struct page *rdt_space_page(struct rdt_space *s);
int rdt_space_map(struct rdt_space *s, unsigned long va, phys_addr_t pa, unsigned int flags);

/* integrity.c */
extern bool rdt_sealed;
extern unsigned int rdt_slots;
extern const char *rdt_door_name;
extern void *rdt_test_page;
int rdt_seal(unsigned int slots, const char *door, unsigned int test_action);

/* domain_dev.c */
int rdt_domain_dev_init(void);

/* status.c */
int rdt_status_init(void);
void rdt_status_exit(void);

#endif /* _REDOUBT_GUEST_DRIVER_H */
