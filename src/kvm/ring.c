// SPDX-License-Identifier: GPL-2.0
/*
 * The event ring of a VM: written here, read by user space through a read-only
 * mapping. The protocol is at struct rdt_ring; the reader is tools/lib/ring.cc.
 *
 * Writers are serialized by the ring's lock and never wait for a reader: they
 * overwrite the oldest record. A reader takes a record like under a seqlock,
 * its seq before and after the copy.
 */
#include "redoubt.h"

#include <linux/build_bug.h>
#include <linux/irq_work.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/poll.h>
#include <linux/vmalloc.h>

#include "compat.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static_assert(sizeof(struct rdt_event) == 128);
static_assert(sizeof(struct rdt_ring) <= PAGE_SIZE);
static_assert((RDT_RING_RECORDS & (RDT_RING_RECORDS - 1)) == 0);

static void rdt_ring_wake(struct irq_work *work)
{
	struct rdt_ring_buf *ring = container_of(work, struct rdt_ring_buf, wake);

	wake_up_interruptible_poll(&ring->wait, EPOLLIN | EPOLLRDNORM);
}

int rdt_ring_init(struct rdt_ring_buf *ring)
{
	struct rdt_ring *hdr;

	ring->size = PAGE_SIZE + PAGE_ALIGN(RDT_RING_RECORDS * sizeof(struct rdt_event));
	hdr = vmalloc_user(ring->size);
	if (!hdr)
		return -ENOMEM;

	hdr->magic = RDT_RING_MAGIC;
	hdr->version = RDT_UAPI_VERSION;
	hdr->record_size = sizeof(struct rdt_event);
	hdr->records = RDT_RING_RECORDS;
	hdr->data_offset = PAGE_SIZE;
	ring->hdr = hdr;
	ring->rec = (void *)hdr + PAGE_SIZE;
	raw_spin_lock_init(&ring->lock);
	init_waitqueue_head(&ring->wait);
	init_irq_work(&ring->wake, rdt_ring_wake);
	return 0;
}

/* No writer is left. A mapping holds its descriptor and so the VM: none is left either. */
void rdt_ring_exit(struct rdt_ring_buf *ring)
{
	irq_work_sync(&ring->wake);
	vfree(ring->hdr);
	ring->hdr = NULL;
	ring->rec = NULL;
}

void rdt_ring_push(struct rdt_ring_buf *ring, struct rdt_event *ev)
{
	struct rdt_ring *hdr = ring->hdr;
	struct rdt_event *rec;
	unsigned long flags;

	raw_spin_lock_irqsave(&ring->lock, flags);
	/* Under the lock, so that times ascend as the numbers do. */
	ev->time_ns = ktime_get_ns();
	ev->seq = hdr->head + 1;

	rec = &ring->rec[(ev->seq - 1) & (RDT_RING_RECORDS - 1)];
	WRITE_ONCE(rec->seq, 0);
	/*
	 * The record is marked before its old contents change: pairs with the
	 * reader's fence between its copy and its second look at seq.
	 */
	smp_wmb();
	memcpy((u8 *)rec + sizeof(rec->seq), (u8 *)ev + sizeof(ev->seq),
	       sizeof(*ev) - sizeof(ev->seq));
	/* Pairs with the reader's acquire of seq ahead of its copy. */
	smp_store_release(&rec->seq, ev->seq);

	if (!WARN_ON_ONCE(ev->type >= RDT_EV_NR))
		WRITE_ONCE(hdr->count[ev->type], hdr->count[ev->type] + 1);
	/*
	 * Pairs with the acquire of head by readers and rdt_ring_head(): the
	 * record and the counters are at least as new as head.
	 */
	smp_store_release(&hdr->head, ev->seq);
	raw_spin_unlock_irqrestore(&ring->lock, flags);

	trace_redoubt_event(ev);

	/*
	 * Nobody polls, no interrupt: on the way of a denied write it would be
	 * the dearest part. The barrier in wq_has_sleeper() pairs with the one
	 * in rdt_ring_poll(): either we see the poller or it sees head.
	 */
	if (wq_has_sleeper(&ring->wait))
		irq_work_queue(&ring->wake);
}

u64 rdt_ring_head(struct rdt_ring_buf *ring)
{
	return smp_load_acquire(&ring->hdr->head);
}

/* The head to judge by, once the caller is sure to be woken for a newer one. */
u64 rdt_ring_poll(struct rdt_ring_buf *ring, struct file *file, poll_table *table)
{
	poll_wait(file, &ring->wait, table);
	/* Queued before head is read, see rdt_ring_push(). */
	smp_mb();
	return rdt_ring_head(ring);
}

/* The header page, which tells the size of all, or all. Never writable. */
int rdt_ring_mmap(struct rdt_ring_buf *ring, struct vm_area_struct *vma)
{
	unsigned long size = vma->vm_end - vma->vm_start;

	if (vma->vm_flags & (VM_WRITE | VM_EXEC))
		return -EPERM;
	if (vma->vm_pgoff || (size != PAGE_SIZE && size != ring->size))
		return -EINVAL;
	/* Nor by mprotect() later. */
	rdt_vma_clear_flags(vma, VM_MAYWRITE | VM_MAYEXEC);
	return remap_vmalloc_range(vma, ring->hdr, 0);
}
