/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of redoubt_vfio_pci know of each other. */
#ifndef RDT_VFIO_DEVICE_H
#define RDT_VFIO_DEVICE_H

#include <linux/iommu.h>
#include <linux/irqbypass.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/version.h>
#include <linux/vfio_pci_core.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include <redoubt/dma.h>
#include <redoubt/kvm.h>

struct kvm;
struct rdt_mig_file;
struct eventfd_ctx;

#define RDT_WINDOW_BYTES	(64ull << 20)
#define RDT_WINDOW_PAGES	(RDT_WINDOW_BYTES >> PAGE_SHIFT)

/**
 * struct rdt_irq - one interrupt of the guest's and, where the device has it, of the device's.
 * @lock: @trigger, and nothing else. Taken by the interrupt's handler, with rdt_device.lock and without; behind it
 *	come only the spinlocks of the eventfd and of KVM's end of it.
 * @trigger: what the VMM wants signalled.
 * @to_guest, @to_model: whose the device's interrupt is; rdt_dma_route(). Changed under rdt_device.lock.
 * @producer: under rdt_device.lock; while it has a token, which is @trigger, KVM may have the interrupt. So it is taken
 *	back before @trigger changes.
 */
struct rdt_irq {
	struct rdt_device *d;
	spinlock_t lock;
	struct eventfd_ctx *trigger;
	bool to_guest;
	bool to_model;
	unsigned long asked;		/* bit 0: @work is under way, or to come */
	struct callback_head work;	/* of the vCPU's thread that the interrupt came to */
	struct irq_bypass_producer producer;
	char name[24];
};

/**
 * struct rdt_doorbell - the way from a vCPU to the model without the VMM.
 * @bell: what redoubt.ko and KVM have of it.
 * @lock: @bar and who has @bell. Taken before kvm->slots_lock; vCPUs in @bell take rdt_device.lock,
 *	so it is not taken under that one.
 * @kvm: held; NULL: there is no such way, redoubt.ko is not loaded or the VMM has no KVM.
 * @bar: where they have @bell for the guest's BAR 0; 0: nowhere.
 * @written: bytes of BAR 0 and 1 that the VMM has written; under rdt_device.lock, as are the counts.
 * @shows: vCPUs may be shown copies; under rdt_device.lock.
 * @rings: how often it was rung; @emulated: of these, by stores that KVM has emulated.
 */
struct rdt_doorbell {
	struct rdt_kvm_bell bell;
	const struct rdt_kvm_services *kvm_ops;
	struct kvm *kvm;
	struct mutex lock;
	u64 bar;
	u8 written;
	bool shows;
	u64 rings, emulated;
};

/**
 * struct rdt_drain - the device was stopped: it has finished what it had.
 * @at: when it was given no more; 0: it was not stopped.
 * @us: how long that took, with the taking of its queues.
 * @commands: what it had.
 */
struct rdt_drain {
	ktime_t at;
	u64 us;
	u64 commands;
};

enum rdt_outcome {
	RDT_MIG_NONE,
	RDT_MIG_RUNNING,
	RDT_MIG_COMPLETED,	/* the VMM has all of the state */
	RDT_MIG_CANCELLED,	/* the VM runs on here */
	RDT_MIG_FAILED,
	RDT_MIG_RESUMED,	/* the VM that has come runs */
	RDT_MIG_ABANDONED,	/* the VMM has closed the device in the middle of it */
};

/**
 * struct rdt_record - the migration that runs, or the last one, for the operator: Documentation/migration.md. Under
 *	rdt_device.lock, like the migration itself.
 * @incoming: the VM comes; else it goes.
 * @closed: the VMM that it was about has closed the device.
 * @err: if it failed.
 * @began, @ended: @ended goes with @outcome; 0: it runs.
 * @armed: when the model began to write for the device; 0: it did not.
 * @ran: when the device ran after @stop.
 * @arm: the stop for a moment when it was armed. @stop: the one before the state was made; to one that
 *	comes, @at is when its first byte was there.
 * @pages: of guest memory, that the model has written since, one as often as it was written.
 * @log_reads, @log_pages: calls that ask for dirty pages, and what they were told.
 * @bytes, @bytes_done: of the state; read or written by the VMM.
 * @load_us: how long the model took to load it.
 */
struct rdt_record {
	enum rdt_outcome outcome;
	bool incoming;
	bool closed;
	int err;
	ktime_t began, armed, ran, ended;
	struct rdt_drain arm, stop;
	u64 pages;
	u64 log_reads, log_pages;
	u64 bytes, bytes_done;
	u64 load_us;
};

/**
 * struct rdt_device - a device that is bound to this driver.
 * @core: vfio-pci's part; first, as vfio allocates and frees the whole by it.
 * @migratable, @direct, @vcpu_copy: the operator's wishes; looked at when the device is opened.
 * @lock: the model, whose the interrupts are, the private window, the migration state and its file. Taken by
 *	vCPUs at the registers, by the device's interrupt threads and by the VMM's ioctls. It is taken
 *	before core.memory_lock (read), before VFIO's container lock (vfio_dma_rw()) and before irqbypass's lock;
 *	so it must not be taken where one of these is held: .reset_done and .dma_unmap.
 * @model: NULL: this is plain vfio-pci.
 * @was_reset: the device was reset, by our ioctl or otherwise; the model is told by the next who takes
 *	@lock.
 * @table_lost: the interrupt table has to be written again before the device is told anything.
 * @master: the guest lets its device be bus master.
 * @forced: memory and bus mastering are on by us, whatever the guest's command register says: its
 *	configuration space has not come yet.
 * @loaded: in RESUMING, all of a state has come and the model has taken it.
 * @still: in RUNNING_P2P, it came there from STOP: the VMM starts its vCPUs only when the device runs.
 * @scoped: the container takes only what we write for dirty, for as long as it lives.
 * @later: rdt_dma_later().
 * @mm: the VMM's, for interrupt threads and @later.
 * @dirty: frames written since the log was read last, while @logging; @dirty_all: there was no
 *	memory to keep them.
 * @stopped: the last stop, whatever it was for.
 */
struct rdt_device {
	struct vfio_pci_core_device core;
	bool migratable;
	bool direct;
	bool vcpu_copy;

	struct mutex lock;
	struct rdt_model *model;
	void __iomem *bar;
	u64 bar_bytes;
	bool was_reset;
	bool table_lost;
	bool master;
	bool forced;
	bool loaded;
	bool still;
	bool scoped;

	struct rdt_doorbell bell;

	struct iommu_domain *domain;
	u64 window;
	unsigned long *window_used;
	struct list_head window_entry;

	struct delayed_work later;
	struct mm_struct *mm;
	struct rdt_irq *vector;
	u32 vectors;
	u32 irqs;

	enum vfio_device_mig_state state;
	struct rdt_mig_file *file;
	bool logging;
	bool dirty_all;
	struct xarray dirty;
	struct rdt_drain stopped;
	struct rdt_record record;
};

static inline struct rdt_device *to_rdt(struct vfio_device *vdev)
{
	return container_of(vdev, struct rdt_device, core.vdev);
}

#define rdt_dev_warn(d, fmt, ...)	dev_warn_ratelimited(&(d)->core.pdev->dev, fmt, ##__VA_ARGS__)
#define rdt_dev_info(d, fmt, ...)	dev_info(&(d)->core.pdev->dev, fmt, ##__VA_ARGS__)

/* main.c */
void rdt_lock(struct rdt_device *d);	/* and tells the model of resets */
void rdt_unlock(struct rdt_device *d);
int rdt_force(struct rdt_device *d);	/* memory and bus mastering on, until the model runs */

/* bar.c: the guest's accesses to BAR 0, @d->model set */
ssize_t rdt_bar_read(struct rdt_device *d, char __user *buf, size_t count, loff_t *ppos);
ssize_t rdt_bar_write(struct rdt_device *d, const char __user *buf, size_t count, loff_t *ppos);

/* doorbell.c */
void rdt_doorbell_open(struct rdt_device *d);
void rdt_doorbell_close(struct rdt_device *d);
void rdt_doorbell_config(struct rdt_device *d, u64 off, size_t count);
void rdt_doorbell_update(struct rdt_device *d);
u64 rdt_doorbell_bar(struct rdt_device *d);	/* where the guest has BAR 0; 0: not known */
void rdt_doorbell_set_bar(struct rdt_device *d, u64 gpa);
bool rdt_monitored(struct rdt_device *d);	/* by Redoubt */

/* irq.c */
int rdt_irq_open(struct rdt_device *d);
void rdt_irq_close(struct rdt_device *d);
long rdt_irq_info(struct rdt_device *d, void __user *arg);
long rdt_irq_set(struct rdt_device *d, void __user *arg);

/* memory.c */
int rdt_window_open(struct rdt_device *d);
void rdt_window_close(struct rdt_device *d);
int rdt_memory_write(struct rdt_device *d, u64 iova, const void *from, u32 len);	/* rdt_dma_write(), always */

/* show.c: between rdt_doorbell_open() and _close() */
void rdt_show_open(struct rdt_device *d);
void rdt_show_close(struct rdt_device *d);

/* migrate.c */
void rdt_mig_open(struct rdt_device *d);
void rdt_mig_close(struct rdt_device *d);
void rdt_mig_reset(struct rdt_device *d);
const char *rdt_mig_blocker(struct rdt_device *d);
int rdt_mig_feature(struct rdt_device *d, u32 flags, void __user *arg, size_t argsz);

/* record.c: figures; all under the lock */
void rdt_record_begin(struct rdt_device *d, bool incoming);	/* if it has not yet */
void rdt_record_end(struct rdt_device *d, enum rdt_outcome outcome, int err);	/* likewise */
void rdt_record_ran(struct rdt_device *d);
void rdt_record_reset(struct rdt_device *d);
void rdt_record_close(struct rdt_device *d);
ssize_t rdt_record_show(struct rdt_device *d, char *buf);
static inline bool rdt_record_runs(struct rdt_device *d)
{
	lockdep_assert_held(&d->lock);
	return d->record.outcome == RDT_MIG_RUNNING;
}

#endif
