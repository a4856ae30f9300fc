/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VMM in a process of its own, to be killed: a raw VM of two vCPUs and two slots, RAM and DATA, whose memory the test
 * knows. The test, as the agent would, has a pidfd of it and copies of its descriptors.
 */
#ifndef VMM_CHILD_H
#define VMM_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CHILD_VCPUS	2
#define CHILD_SLOTS	2
#define RAM_BYTES	(16ul << 20)
#define DATA_GPA	0x40000000ul

/* What the VMM tells of itself; shared with it. */
struct child_box {
	int vm_fd, vcpu_fd[CHILD_VCPUS], stats_fd;
	struct {
		uint64_t gfn, frames, hva;
	} slot[CHILD_SLOTS];
	uint64_t flags[CHILD_VCPUS];	/* gpa of each vCPU's flag */
	int vm2_fd, vcpu2_fd;		/* of CHILD_SECOND_VM */
	struct {
		int fd;			/* the memfd, or the userfaultfd */
		uint64_t hva;
	} sparse, awaited, fuse;
};

struct child {
	pid_t pid;
	int pidfd, to, from;		/* commands and answers */
	int vm_fd, vcpu_fd[CHILD_VCPUS], stats_fd;
	struct child_box *box;
};

/*
 * Frame i of DATA by i % 4: zero, the same for all, random by i and @seed, zero but for its last byte.
 * Its children start nothing: set-up errors end the program.
 */
void child_start(struct child *c, uint64_t data_bytes, uint32_t seed);
bool child_frame_is_zero(uint64_t i);
/* vCPU 0 spins, vCPU 1 has halted, both with the registers of known.h. */
void child_run(struct child *c);
void child_leave(struct child *c);		/* vCPU 0 has left for an OUT, and is not run again */
void child_slot(struct child *c, bool there);	/* DATA's slot, away and back */

/* What else it can be told. */
#define CHILD_SECOND_VM	'v'	/* a VM more, of one vCPU */
#define CHILD_MORE_VCPU	'p'	/* that has then two */
#define CHILD_SPARSE	'm'	/* slot 2 at SPARSE_GPA: a memfd with a page in each 8 (sparse_page()), else holes */
#define CHILD_AWAITED	'u'	/* slot 3 at AWAITED_GPA: what nobody brings, though a userfaultfd says so */
#define CHILD_TAKE	'x'	/* slot 3 away */
#define CHILD_COUNT	'c'	/* vCPU 0 runs g_count, until the end */
#define CHILD_FUSE	'f'	/* maps FUSE_FILE's first page */
#define CHILD_LOCK	'l'	/* mlockall(): all its memory is there, and stays */
#define FUSE_FILE	"/tmp/page-that-does-not-come"
#define SPARSE_GPA	0x50000000ul
#define SPARSE_PAGES	1024
#define AWAITED_GPA	0x60000000ul
#define AWAITED_PAGES	16
void child_tell(struct child *c, char what);
void child_tell_only(struct child *c, char what);	/* does not wait until it has done it */
int child_copy_fd(struct child *c, int fd);
static inline bool sparse_has(uint64_t page) { return page % 8 == 3; }

/* Its memory as it is now, while it lives. */
void child_read(struct child *c, int slot, void *to);
void child_kill(struct child *c);		/* SIGKILL; returns when it is gone */
/* Ends it, if it lives, and closes what we have of it. */
void child_end(struct child *c);

/* Registers it; the descriptor, or -1 and errno. @fd: an open one of the device, -1: one is opened. */
int child_register(struct child *c, int fd, uint32_t *id);

#endif
