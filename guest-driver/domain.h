/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Protection domains, the guest's side: shared by the files domain*.[cS].
 *
 *   domain_build.c   from an image to a sealed domain
 *   domain_life.c       its life and end, and the kernel API
 *   domain_call.c    calling it
 *   domain_dev.c     /dev/redoubt-domain and /dev/redoubt/NAME
 */
#ifndef _REDOUBT_GUEST_DOMAIN_H
#define _REDOUBT_GUEST_DOMAIN_H

/* For assembly; proved equal in domain_call.c. */
#define RDT_ASM_HC_DOM_ENTER	0x52440014
#define RDT_ASM_HC_RESUME	0x5244000a
#define RDT_ASM_RESUME_DROP	1

/* What R11 says of a thread that has not come out by itself. */
#define RDT_OUT_KILLED		1	/* it was to die; its slot was given back */
#define RDT_OUT_FAULT		2	/* the inside raised an exception; likewise */
#define RDT_OUT_LOST		3	/* the host does not have it any more */

#ifndef __ASSEMBLY__

#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/semaphore.h>
#include <linux/workqueue.h>
#include <linux/redoubt_domain.h>
#include "driver.h"

/* Frames, each of them one allocation. */
struct rdt_pages {
	struct page **page;
	unsigned long nr;
};

/**
 * struct redoubt_domain - a domain of this guest.
 * @ref: the object. Its frames go when the host has let go of them, its windows with the
 *	object: who maps them or copies to them holds a reference.
 * @dying: bit 0: destroy() was called. Read without a lock: then a call fails sooner.
 * @pages: how many @frames there are, as long as it lives; the last @tables are for page tables.
 * @reserved: pages that count for the driver's bound.
 * @gate: the frame to jump to.
 * @parts: window 0 in the kernel's address space, one part for each slot; NULL: none.
 * @part: bytes of one. @free: counts the slots that are, @used says which parts are not.
 * @end: asks the host again until nobody is inside.
 * @list, @misc, @name, @stay: as published; under domain_dev.c's lock.
 */
struct redoubt_domain {
	struct kref ref;
	struct list_head all;
	unsigned long dying;
	u64 id;
	u32 flags;
	u32 slots;
	u32 windows;
	u32 part;
	u64 parts_gva;
	void *parts;
	struct rdt_pages frames;
	struct rdt_pages window[RDT_DOM_MAX_WINDOWS];
	unsigned long tables;
	unsigned long pages;
	unsigned long reserved;
	struct page *gate;
	struct semaphore free;
	unsigned long used;
	unsigned int tries;
	struct delayed_work end;
	u8 measurement[32];

	struct list_head list;
	struct miscdevice misc;
	bool stay;
	char name[RDT_PUBLISH_NAME];
	char node[RDT_PUBLISH_NAME + 8];
	char device[RDT_PUBLISH_NAME + 8];
};

/**
 * struct rdt_crossing - of a thread that is inside.
 * @give_up: jiffies; set when it is to die: so long it may still come out by itself.
 */
struct rdt_crossing {
	unsigned long give_up;
};

/* domain_entry.S */
extern char rdt_domain_resume[], rdt_domain_fault[];
long rdt_domain_enter(void);	/* C does not know its convention */
int rdt_domain_may_go_on(struct rdt_crossing *x);

/* domain_build.c */
struct redoubt_domain *rdt_domain_build(struct rdt_image *image, bool user);
void rdt_pages_free(struct rdt_pages *p);

/* domain_call.c */
int rdt_domain_call_init(void);

/* domain_life.c */
extern unsigned int rdt_domain_pages, rdt_domain_pages_total;
int rdt_domain_errno(long host);
int rdt_domain_reserve(unsigned long pages);
void rdt_domain_unreserve(unsigned long pages);
struct redoubt_domain *rdt_domain_new(void);
int rdt_domain_life_init(void);
void rdt_domain_put(struct redoubt_domain *d);
bool rdt_domain_end(struct redoubt_domain *d);

#endif /* __ASSEMBLY__ */
#endif /* _REDOUBT_GUEST_DOMAIN_H */
