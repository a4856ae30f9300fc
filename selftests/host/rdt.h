/* SPDX-License-Identifier: GPL-2.0 */
/* /dev/redoubt from a test: descriptors and a reader of the event ring. */
#ifndef RDT_H
#define RDT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>

/* An attached VM as seen through one descriptor. */
struct rdt {
	int fd;
	uint32_t id;
	const struct rdt_ring *ring;	/* mapped whole */
	size_t size;
	uint64_t next;			/* seq to read next */
	uint64_t lost;
};

int rdt_dev(void);			/* opened once; bails out if there is none */
int rdt_attach_fd(int vm_fd);		/* descriptor, or -1 and errno */

/* Attach and map; bail out when that fails. Reading starts behind the newest event. */
struct rdt *rdt_attach(int vm_fd);
struct rdt *rdt_wrap(int fd, uint32_t id);
void rdt_close(struct rdt *r);

/* By the protocol at struct rdt_ring. False: no new event. */
bool rdt_next(struct rdt *r, struct rdt_event *ev);
/* Skip to the next event of a type; false: there is none. */
bool rdt_find(struct rdt *r, unsigned int type, struct rdt_event *ev);
/* Is there none? Those there are are printed, and gone. */
bool rdt_quiet(struct rdt *r);
/* Forget all events so far. */
void rdt_drain(struct rdt *r);
uint64_t rdt_count(struct rdt *r, unsigned int type);
uint64_t rdt_head(struct rdt *r);

struct rdt_vm_info rdt_info(struct rdt *r);
/* 0 or -errno. */
int rdt_protect(struct rdt *r, uint64_t gpa, uint64_t pages, unsigned int action, unsigned int cls);
void rdt_print(const struct rdt_event *ev);

#endif
