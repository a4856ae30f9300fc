// SPDX-License-Identifier: GPL-2.0
/*
 * A stream: a thread in the VMM's address space that sends what it was asked for to a netlink socket, and sleeps while the
 * receiver's buffer is full. What makes it leave a sleep (the socket's, a userfaultfd's) is SIGKILL, sent by this file
 * only: it means that the stream is over, because its receiver has gone or it is closed. There are sleeps that no signal
 * ends: a page that a FUSE server, an NFS server or a swap device does not bring. So who closes a stream waits for its
 * thread a second, no longer; the thread has references of its own to what it uses, the module among them, and ends when
 * it comes back.
 *
 * The socket is held by its file. Nobody hears then of a receiver's death, so a work looks ten times a second whether
 * that file has another user than us. One stream a socket: two would take each other for the receiver.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/file.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netlink.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#define WATCH_PERIOD	(HZ / 10)

/* Protects held: the streams that have a socket. Innermost. */
static DEFINE_SPINLOCK(held_lock);
static LIST_HEAD(held);

struct rdt_sb_batch *rdt_sb_batch_alloc(u32 nr)
{
	struct rdt_sb_batch *batch = kvmalloc(struct_size(batch, range, nr), GFP_KERNEL_ACCOUNT);

	if (batch)
		batch->nr = nr;
	return batch;
}

/* ---- the thread ------------------------------------------------------------- */

/* What there is to do. A batch in *@batch; or only an end is owed; or nothing. */
static bool take(struct rdt_sb_stream *s, struct rdt_sb_batch **batch)
{
	bool any;

	spin_lock(&s->lock);
	*batch = list_first_entry_or_null(&s->queue, struct rdt_sb_batch, entry);
	if (*batch) {
		list_del(&(*batch)->entry);
		s->queued -= (*batch)->nr;
	}
	any = *batch || s->owes_end;
	if (!*batch)
		s->owes_end = false;
	if (any)
		WRITE_ONCE(s->state, RDT_SB_STREAM_RUNS);
	spin_unlock(&s->lock);
	return any;
}

static int send_batch(struct rdt_sb_stream *s, struct rdt_sb_batch *batch)
{
	int err = 0;
	u32 i;

	kthread_use_mm(s->mm->mm);
	for (i = 0; i < batch->nr && !err; i++) {
		while (batch->range[i].count && !err) {
			const u64 before = batch->range[i].count;

			err = rdt_sb_send_pages(s, &batch->range[i]);
			spin_lock(&s->lock);
			s->left -= before - batch->range[i].count;
			spin_unlock(&s->lock);
			if (signal_pending(current))
				err = -EINTR;
			cond_resched();
		}
	}
	kthread_unuse_mm(s->mm->mm);
	return err;
}

/* Until it is over. */
static int work(struct rdt_sb_stream *s)
{
	struct rdt_sb_batch *batch;
	int err = 0;

	while (!err) {
		batch = NULL;
		if (wait_event_interruptible(s->wait, take(s, &batch)))
			return -EINTR;
		err = batch ? send_batch(s, batch) : rdt_sb_send_end(s);
		kvfree(batch);
		spin_lock(&s->lock);
		if (!err && list_empty(&s->queue) && !s->owes_end)
			WRITE_ONCE(s->state, RDT_SB_STREAM_IDLE);
		spin_unlock(&s->lock);
	}
	return err;
}

/*
 * Nothing is sent any more: let the port go, and what waits there to be received, and the VM. The watch uses the file. Not in
 * the VMM's address space: see vm.c.
 */
static void let_go(struct rdt_sb_stream *s)
{
	cancel_delayed_work_sync(&s->watch);
	spin_lock(&held_lock);
	list_del(&s->held);
	spin_unlock(&held_lock);
	fput(s->data);
	fput(s->file);
	rdt_sb_mm_put(s->mm);
}

static void free_stream(struct kref *kref)
{
	struct rdt_sb_stream *s = container_of(kref, struct rdt_sb_stream, kref);
	struct rdt_sb_batch *batch, *next;

	list_for_each_entry_safe(batch, next, &s->queue, entry)
		kvfree(batch);
	put_task_struct(s->task);
	kfree(s);
}

static const char *why(int err)
{
	return err == -EINTR || err == -ECONNREFUSED ? "lost its receiver" : "cannot go on";
}

static int stream_thread(void *arg)
{
	struct rdt_sb_stream *s = arg;
	bool closing;
	int err;

	allow_kernel_signal(SIGKILL);
	/* A signal sent before that was dropped. Pairs with tell_to_end(), by the lock of our signals. */
	err = READ_ONCE(s->closing) ? -EINTR : work(s);
	spin_lock(&s->lock);
	WRITE_ONCE(s->state, RDT_SB_STREAM_LOST);
	closing = s->closing;	/* then its end is no loss */
	spin_unlock(&s->lock);
	let_go(s);
	if (!closing) {
		pr_notice_ratelimited("VM %u, stream %u: %s (%d)\n", s->vm_id, s->number, why(err), err);
		rdt_sb_event(&(struct rdt_sb_event){ .event = RDT_SB_EVENT_STREAM_LOST, .vm = s->vm_id, .stream = &s->number });
	}
	complete(&s->done);
	kref_put(&s->kref, free_stream);
	module_put_and_kthread_exit(0);
}

/* Until the thread takes it away: a signal may come before the thread can hear it. */
static void watch(struct work_struct *work)
{
	struct rdt_sb_stream *s = container_of(to_delayed_work(work), struct rdt_sb_stream, watch);

	if (file_count(s->data) == 1)
		send_sig(SIGKILL, s->task, 1);
	schedule_delayed_work(&s->watch, WATCH_PERIOD);
}

/* ---- requests ---------------------------------------------------------------- */

/*
 * A generic netlink socket of the caller's, in our namespace; its port. A socket that failed to bind has the number of a
 * port that is another's: to bind it once more to what it says it has succeeds only if it has.
 */
static struct file *hold_socket(int fd, u32 *portid)
{
	struct sockaddr_nl addr = {};
	struct socket *sock;
	struct file *file = fget(fd);
	int err;

	if (!file)
		return ERR_PTR(-EBADF);
	sock = sock_from_file(file);
	err = -EBADF;
	if (!sock || !sock->sk || sock->sk->sk_family != PF_NETLINK || sock->sk->sk_protocol != NETLINK_GENERIC)
		goto fail;
	if (!net_eq(sock_net(sock->sk), &init_net))
		goto fail;
	err = kernel_getsockname(sock, (struct sockaddr *)&addr);
	if (err < 0)
		goto fail;
	err = -EBADF;
	if (!addr.nl_pid || kernel_bind(sock, (struct sockaddr *)&addr, sizeof(addr)))
		goto fail;	/* not bound */
	*portid = addr.nl_pid;
	return file;
fail:
	fput(file);
	return ERR_PTR(err);
}

/* -EBUSY: another stream has this socket, of whatever VM. */
static int enlist(struct rdt_sb_stream *s)
{
	const struct rdt_sb_stream *other;
	int err = 0;

	spin_lock(&held_lock);
	list_for_each_entry(other, &held, held) {
		if (other->data == s->data)
			err = -EBUSY;
	}
	if (!err)
		list_add(&s->held, &held);
	spin_unlock(&held_lock);
	return err;
}

struct rdt_sb_stream *rdt_sb_stream_find(struct rdt_sb_vm *vm, u32 number)
{
	struct rdt_sb_stream *s;

	lockdep_assert_held(&vm->lock);
	list_for_each_entry(s, &vm->streams, entry) {
		if (s->number == number)
			return s;
	}
	return NULL;
}

int rdt_sb_stream_again(struct rdt_sb_stream *s, struct rdt_sb_batch *batch)
{
	u64 frames = 0;
	int err = 0;
	u32 i;

	lockdep_assert_held(&s->vm->lock);
	for (i = 0; batch && i < batch->nr; i++)
		frames += batch->range[i].count;
	spin_lock(&s->lock);
	if (s->state == RDT_SB_STREAM_LOST) {
		err = -EPIPE;
	} else if (batch && s->queued + batch->nr > RDT_SB_MAX_QUEUED) {
		err = -ENOSPC;
	} else {
		if (batch) {
			list_add_tail(&batch->entry, &s->queue);
			s->queued += batch->nr;
			s->left += frames;
			batch = NULL;
		}
		s->owes_end = true;
		WRITE_ONCE(s->state, RDT_SB_STREAM_RUNS);
	}
	spin_unlock(&s->lock);
	kvfree(batch);
	wake_up(&s->wait);
	return err;
}

int rdt_sb_stream_open(struct rdt_sb_vm *vm, struct rdt_sb_stream_args *args)
{
	struct rdt_sb_stream *s = NULL;
	struct file *data;
	u32 portid;
	int err;

	lockdep_assert_held(&vm->lock);
	data = hold_socket(args->data_fd, &portid);
	if (IS_ERR(data)) {
		err = PTR_ERR(data);
		goto fail;
	}
	err = -ENOMEM;
	s = kzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	if (!s)
		goto put;
	s->vm = vm;
	s->vm_id = vm->id;
	s->kvm = vm->kvm;
	s->data = data;
	s->number = args->number;
	s->portid = portid;
	s->flags = args->flags;
	s->space = args->space;
	s->state = RDT_SB_STREAM_IDLE;
	INIT_DELAYED_WORK(&s->watch, watch);
	init_completion(&s->done);
	spin_lock_init(&s->lock);
	INIT_LIST_HEAD(&s->queue);
	init_waitqueue_head(&s->wait);
	err = enlist(s);
	if (err)
		goto put;
	s->task = kthread_create(stream_thread, s, "redoubt-sb/%u.%u", vm->id, s->number);
	if (IS_ERR(s->task)) {
		err = PTR_ERR(s->task);
		goto unlist;
	}
	/* Ours and the thread's; what the thread uses is the thread's. */
	kref_init(&s->kref);
	kref_get(&s->kref);
	get_task_struct(s->task);
	s->file = get_file(vm->file);
	s->mm = vm->mm;
	rdt_sb_mm_get(s->mm);
	__module_get(THIS_MODULE);
	list_add_tail(&s->entry, &vm->streams);
	vm->nr_streams++;
	err = rdt_sb_stream_again(s, args->first);
	WARN_ON_ONCE(err);	/* one batch always fits */
	/* Before the thread runs: it may be at its end at once, and takes the watch away. */
	schedule_delayed_work(&s->watch, WATCH_PERIOD);
	wake_up_process(s->task);
	return 0;
unlist:
	spin_lock(&held_lock);
	list_del(&s->held);
	spin_unlock(&held_lock);
put:
	kfree(s);
	fput(data);
fail:
	kvfree(args->first);
	return err;
}

static void tell_to_end(struct rdt_sb_stream *s)
{
	/* Before the signal: pairs with stream_thread(). */
	spin_lock(&s->lock);
	WRITE_ONCE(s->closing, true);
	spin_unlock(&s->lock);
	send_sig(SIGKILL, s->task, 1);
}

static void forget(struct rdt_sb_stream *s, unsigned long deadline)
{
	const long left = deadline - jiffies;

	list_del(&s->entry);
	s->vm->nr_streams--;
	if (wait_for_completion_timeout(&s->done, max(left, 1L)))
		kthread_stop(s->task);	/* it has left our code */
	else
		pr_notice_ratelimited("VM %u, stream %u: ends when the page comes that it waits for\n", s->vm_id, s->number);
	kref_put(&s->kref, free_stream);
}

void rdt_sb_stream_close(struct rdt_sb_stream *s)
{
	lockdep_assert_held(&s->vm->lock);
	tell_to_end(s);
	forget(s, jiffies + RDT_SB_GRACE);
}

void rdt_sb_stream_close_all(struct rdt_sb_vm *vm)
{
	const unsigned long deadline = jiffies + RDT_SB_GRACE;
	struct rdt_sb_stream *s, *next;

	lockdep_assert_held(&vm->lock);
	list_for_each_entry(s, &vm->streams, entry)
		tell_to_end(s);
	list_for_each_entry_safe(s, next, &vm->streams, entry)
		forget(s, deadline);
}
