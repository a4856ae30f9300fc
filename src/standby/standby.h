/* SPDX-License-Identifier: GPL-2.0 */
/*
 * redoubt_standby.ko: hold a VM whose VMM may die, read it, send what it has in memory. Exported symbols only.
 *
 * main.c   the module; /dev/redoubt-standby: a descriptor is a registration
 * vm.c     what a registration holds, and how it is let go
 * genl.c   the netlink family; request.c its requests about streams; event.c what is told unasked
 * stream.c a stream: its thread, what it has still to send, how it ends
 * pages.c  a stream's messages
 * read.c   pages of the VMM's memory
 * ask.c    a thread in the VMM's address space that calls KVM's ioctls
 * vcpu.c   KVM's GET ioctls, an item each
 * scan.c   which pages were written since the last look
 * limit.c  vCPUs that write faster than they may
 * panic.c  what a crash kernel finds
 *
 * Locks, in the order in which they are taken: vm->lock, event_lock (genl.c); vms_lock (vm.c), in which no other is taken;
 * limits_lock (limit.c) under vm->lock; innermost, each alone: stream->lock, held_lock (stream.c), mms_lock (vm.c),
 * limiter->lock (limit.c), slots_lock (panic.c). A stream's thread holds none while it reads,
 * sends or sleeps; kvm->srcu while it takes hold of pages that are there.
 */
#ifndef REDOUBT_STANDBY_H
#define REDOUBT_STANDBY_H

#include <linux/completion.h>
#include <linux/kvm_host.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>

#include <linux/redoubt_standby.h>

/* How long what is told to end is waited for. */
#define RDT_SB_GRACE	HZ

/* A VMM's address space: one mm_users of it for all that we have there, so that it is not torn down. */
struct rdt_sb_mm {
	struct list_head entry;
	struct mm_struct *mm;
	unsigned int refs;
};

struct rdt_crash_vm;
struct rdt_sb_note;
struct rdt_sb_live;

/* A registered VM. What is held stays from rdt_sb_vm_register() to rdt_sb_vm_end(), and is used under @lock. */
struct rdt_sb_vm {
	struct kref kref;		/* of this structure only: the descriptor, and requests under way */
	u32 id;
	u8 uuid[16];
	struct file *file;		/* KVM's, keeps @kvm */
	struct kvm *kvm;
	struct rdt_sb_mm *mm;		/* the VMM's */
	u32 nr_vcpus;
	struct file **vcpus;

	/* One request at a time; protects @ended and @streams. Held while a stream is stopped and while KVM is asked. */
	struct mutex lock;
	bool ended;			/* nothing above is held any more */
	struct {
		int slot;		/* of the root's; -1: none */
		u64 change;
		struct rdt_crash_vm *record;
		struct rdt_sb_note *note;
		struct rdt_sb_live *live;
	} crash;
	struct list_head streams;
	unsigned int nr_streams;
	struct rdt_sb_limiter *limiter;	/* NULL: none */
	struct rdt_sb_ask *late;	/* a scan that has taken too long, our reference; NULL: none */
};

/* Ranges that a request asked for, and wait. */
struct rdt_sb_batch {
	struct list_head entry;
	u32 nr;
	struct rdt_sb_range range[];
};

struct rdt_sb_stream {
	struct kref kref;		/* of this structure: vm->streams', and the thread's until its end */
	struct list_head entry;		/* of vm->streams */
	struct rdt_sb_vm *vm;		/* for requests only: the thread may be there longer */
	struct task_struct *task;
	struct completion done;		/* the thread uses nothing of this any more */

	/* The thread's, until its end. */
	struct file *data;		/* the receiver's socket: held, or another process could come to own @portid */
	struct list_head held;
	struct file *file;		/* KVM's, keeps @kvm */
	struct kvm *kvm;
	struct rdt_sb_mm *mm;

	u32 vm_id;
	u32 number;
	u32 portid;
	u32 flags;
	u8 space;
	struct delayed_work watch;	/* is there still a receiver? */

	/* Protects what requests and the thread share: from @queue to @left, and writes of @state. Innermost. */
	spinlock_t lock;
	struct list_head queue;
	u32 queued;			/* ranges in @queue */
	bool owes_end;
	bool closing;			/* its end is no loss: set before the thread is told to end; READ_ONCE without the lock */
	u64 left;			/* frames still to be sent */
	u32 state;			/* RDT_SB_STREAM_*; READ_ONCE without the lock */
	wait_queue_head_t wait;		/* for @queue or @owes_end */

	/* The thread's own; others READ_ONCE them. */
	u64 seq;
	u64 sent;
	u32 dropped;
};

/* vm.c */
int rdt_sb_vm_register(struct rdt_sb_register *reg, struct rdt_sb_vm **out);
void rdt_sb_vm_end(struct rdt_sb_vm *vm);
/* The VM of this number, its lock held; NULL: there is none. */
struct rdt_sb_vm *rdt_sb_vm_get(u32 id);
/* The first from this number on. */
struct rdt_sb_vm *rdt_sb_vm_next(u32 id);
void rdt_sb_vm_put(struct rdt_sb_vm *vm);
void rdt_sb_mm_get(struct rdt_sb_mm *mm);
void rdt_sb_mm_put(struct rdt_sb_mm *mm);
/* It has vCPUs that it had not when it was registered. */
bool rdt_sb_vm_has_grown(const struct rdt_sb_vm *vm);
bool rdt_sb_vm_orphan(const struct rdt_sb_vm *vm);
/*
 * The user slots of address space 0, ascending: at most @max of them into @slots; how many there are, and their @frames.
 * They may change as soon as it returns.
 */
u32 rdt_sb_vm_slots(const struct rdt_sb_vm *vm, struct rdt_sb_slot *slots, u32 max, u64 *frames);

/* stream.c: vm->lock is held for all of them */
struct rdt_sb_stream_args {
	u32 number;
	u32 flags;
	u8 space;
	int data_fd;
	struct rdt_sb_batch *first;	/* taken over, or freed; NULL: none */
};
int rdt_sb_stream_open(struct rdt_sb_vm *vm, struct rdt_sb_stream_args *args);
struct rdt_sb_stream *rdt_sb_stream_find(struct rdt_sb_vm *vm, u32 number);
/* These too, and an end behind them. @batch is taken over, or freed; NULL: the end only. */
int rdt_sb_stream_again(struct rdt_sb_stream *s, struct rdt_sb_batch *batch);
/*
 * Stops it and takes it off the VM: when this returns its thread is gone; or, after RDT_SB_GRACE, will send nothing and end
 * when the page comes that it waits for.
 */
void rdt_sb_stream_close(struct rdt_sb_stream *s);
void rdt_sb_stream_close_all(struct rdt_sb_vm *vm);
struct rdt_sb_batch *rdt_sb_batch_alloc(u32 nr);

/* pages.c: in the stream's thread, in the VMM's address space */
/* Sends the first frames of the range in one message and takes them off it. Errors: the stream is over. */
int rdt_sb_send_pages(struct rdt_sb_stream *s, struct rdt_sb_range *range);
int rdt_sb_send_end(struct rdt_sb_stream *s);

/* read.c: in the stream's thread, in the VMM's address space */
struct rdt_sb_most {
	u32 pages;			/* at least 1 */
	u32 zero;			/* likewise */
};
/*
 * What is there from @frame on. > 0: that many pages, @most->pages at most, held (put_page()). 0: *@zero frames, @most->zero
 * at most, are holes. -EINTR: told to end. Another error: the first frame cannot be read.
 */
long rdt_sb_read(const struct rdt_sb_stream *s, u64 frame, const struct rdt_sb_most *most, struct page **pages, u32 *zero);

/* ask.c: a question to KVM, asked by a thread that uses nothing but this structure */
#define RDT_SB_ARG_BYTES	(32 * 1024)
struct rdt_sb_ask {
	int (*ask)(struct rdt_sb_ask *a);	/* in the VMM's address space; the answer */
	bool still;			/* the vCPU, or all of them, must not run meanwhile: -EBUSY */
	struct file *file;		/* KVM's of the VM, held */
	struct kvm *kvm;
	struct file *vcpu;		/* held; NULL: the VM */
	struct rdt_sb_mm *mm;
	u32 *msrs;			/* freed with it */
	u32 nr_msrs;
	struct sk_buff *skb;		/* likewise */
	struct rdt_sb_scan *scan;	/* likewise */
	bool bare;			/* it needs no user memory: @arg is 0 */
	unsigned long arg;		/* RDT_SB_ARG_BYTES of user memory */
	int err;

	struct kref kref;		/* who asks, and the thread */
	struct task_struct *task;
	bool closing;			/* as a stream's */
	struct completion done;
};
/* @vcpu may be NULL. vm->lock is held, or nobody else has the VM. NULL: no memory. */
struct rdt_sb_ask *rdt_sb_ask_new(struct rdt_sb_vm *vm, struct file *vcpu, int (*ask)(struct rdt_sb_ask *a));
/*
 * Its answer; -EBUSY if there is none in a second. Then the thread has ended, or nothing of @a may be touched any more but
 * by rdt_sb_ask_put(): *@ended.
 */
int rdt_sb_ask(struct rdt_sb_ask *a, bool *ended);
void rdt_sb_ask_put(struct rdt_sb_ask *a);
long rdt_sb_kvm_call(const struct rdt_sb_ask *a, struct file *file, unsigned int ioctl, unsigned long arg);
/* 0: its memory and registers are what KVM shows; -EOPNOTSUPP: encrypted; -EIO: KVM answers this VM nothing. */
int rdt_sb_encrypted(struct rdt_sb_vm *vm);

/*
 * vcpu.c: vm->lock held; the state of a vCPU, of the VM for @vcpu NULL, as ITEM attributes behind what is in *@skb, which
 * is taken, and given back if there is an answer.
 */
int rdt_sb_state(struct rdt_sb_vm *vm, struct file *vcpu, const u32 *msrs, u32 nr_msrs, struct sk_buff **skb);

/* scan.c */
struct rdt_sb_scan {
	u64 first;			/* frame of the VMM's addresses */
	u32 frames;			/* to be looked at; then, that were */
	u32 told;			/* end of the last large folio that was made read-only */
	unsigned long *dirty;		/* bitmap of frames */
};
int rdt_sb_do_scan(struct sk_buff *req, struct genl_info *info);
void rdt_sb_scan_free(struct rdt_sb_scan *scan);
/* vm->lock held: vm->late is forgotten. */
void rdt_sb_scan_late_end(struct rdt_sb_vm *vm);

/* limit.c */
int rdt_sb_do_limit(struct sk_buff *req, struct genl_info *info);
/* vm->lock held: FAULTS and LIMIT_INFO */
int rdt_sb_put_limit(struct sk_buff *skb, const struct rdt_sb_vm *vm);
/* vm->lock held: write faults counted so far; 0: not counted. */
u64 rdt_sb_faults(const struct rdt_sb_vm *vm);
/* vm->lock held. Who sleeps is woken, and its thread still uses what it has of the limiter. */
void rdt_sb_limit_end(struct rdt_sb_vm *vm);

/* panic.c */
int rdt_sb_crash_init(void);
void rdt_sb_crash_exit(void);
/* While the VM is registered: it is held. Nobody else has it, or vm->lock is held. */
int rdt_sb_crash_add(struct rdt_sb_vm *vm);
void rdt_sb_crash_remove(struct rdt_sb_vm *vm);
/* Takes vm->lock. */
int rdt_sb_crash_set(struct rdt_sb_vm *vm, const struct rdt_sb_crash *arg);

/* genl.c */
extern struct genl_family rdt_sb_family;
/* Says why, to the caller and in the log; @err. */
int rdt_sb_refuse(const struct genl_info *info, int err, const char *why);
/* The VM that a request names, locked, or an error. */
struct rdt_sb_vm *rdt_sb_vm_of(const struct genl_info *info);
/* 0, if the sender may have guest state. */
int rdt_sb_may_read(struct sk_buff *skb, const struct genl_info *info);

/* request.c */
int rdt_sb_do_stream(struct sk_buff *req, struct genl_info *info);
int rdt_sb_do_again(struct sk_buff *req, struct genl_info *info);
int rdt_sb_do_cancel(struct sk_buff *req, struct genl_info *info);

/* event.c: to all that listen; -ENOMEM leaves a gap in the numbers, which is what they are for */
enum { RDT_SB_GROUP_NR_EVENTS, RDT_SB_GROUP_NR_POWER };
struct rdt_sb_event {
	u8 event;
	u8 reason;			/* 0: none */
	u32 vm;				/* 0: none */
	const u32 *stream;		/* NULL: none */
};
int rdt_sb_event(const struct rdt_sb_event *event);
int rdt_sb_power(struct nlattr *const *attrs);

#endif
