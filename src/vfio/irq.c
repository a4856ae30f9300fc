// SPDX-License-Identifier: GPL-2.0
/*
 * Interrupts of a device with a model. The device's are ours; the guest's are eventfds that the model has
 * signalled when the guest's rings have news. Only MSI-X: INTx and MSI are hidden.
 */
#include "device.h"

#include <linux/cpumask.h>
#include <linux/eventfd.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/task_work.h>
#include <linux/uaccess.h>

/* From anywhere, an interrupt's handler as well. */
static void signal_guest(struct rdt_irq *v)
{
	unsigned long flags;

	spin_lock_irqsave(&v->lock, flags);
	if (v->trigger) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
		eventfd_signal(v->trigger);
#else
		eventfd_signal(v->trigger, 1);
#endif
	}
	spin_unlock_irqrestore(&v->lock, flags);
}

void rdt_dma_signal(void *host, rdt_u32 vector)
{
	struct rdt_device *d = host;

	lockdep_assert_held(&d->lock);
	if (vector < d->vectors)
		signal_guest(&d->vector[vector]);
}

static bool only_guests(bool to_guest, bool to_model)
{
	return to_guest && !to_model;
}

/*
 * KVM finds the guest's interrupt by the eventfd, and has the device's posted to the vCPU where the hardware can:
 * then it does not come to handler(). That is for vectors in which the model has no part, so never for vector 0.
 * Who has irqbypass's lock, KVM's part of it too, waits for nobody who may want rdt_device.lock.
 */
static void bypass_end(struct rdt_irq *v)
{
	lockdep_assert_held(&v->d->lock);
	/* By the token one finds what another may have registered. */
	if (v->producer.token)
		irq_bypass_unregister_producer(&v->producer);
	v->producer.token = NULL;
}

/* The trigger stays as it is meanwhile: set_trigger() has the same lock. */
static void bypass_begin(struct rdt_irq *v)
{
	struct pci_dev *pdev = v->d->core.pdev;
	int err;

	lockdep_assert_held(&v->d->lock);
	if (v->producer.token || !v->trigger || !only_guests(v->to_guest, v->to_model))
		return;
	v->producer.token = v->trigger;
	v->producer.irq = pci_irq_vector(pdev, v - v->d->vector);
	err = irq_bypass_register_producer(&v->producer);
	if (err) {
		/* The interrupt goes by handler(). A VMM that has one eventfd for two vectors sees this. */
		v->producer.token = NULL;
		dev_info_ratelimited(&pdev->dev, "vector %td: no interrupt bypass: %d\n", v - v->d->vector, err);
	}
}

void rdt_dma_route(void *host, rdt_u32 vector, int to_guest, int to_model)
{
	struct rdt_device *d = host;
	struct rdt_irq *v = &d->vector[vector];

	lockdep_assert_held(&d->lock);
	/* First: when the model counts on the interrupts they come to handler() again, not to a vCPU. */
	if (!only_guests(to_guest, to_model))
		bypass_end(v);
	/* An interrupt that comes just now may go either way; both look at what there is. */
	WRITE_ONCE(v->to_guest, to_guest);
	WRITE_ONCE(v->to_model, to_model);
	bypass_begin(v);
}

/* A kernel thread at the model. With the VMM's memory: else vfio_dma_rw() would take that on for each access by itself. */
static bool enter(struct rdt_device *d)
{
	const bool mm = mmget_not_zero(d->mm);

	if (mm)
		kthread_use_mm(d->mm);
	rdt_lock(d);
	return mm;
}

static void leave(struct rdt_device *d, bool mm)
{
	rdt_unlock(d);
	if (mm) {
		kthread_unuse_mm(d->mm);
		mmput(d->mm);
	}
}

static irqreturn_t thread(int irq, void *data)
{
	struct rdt_irq *v = data;
	struct rdt_device *d = v->d;
	const bool mm = enter(d);

	if (d->model)
		rdt_model_interrupt(d->model, v - d->vector);
	leave(d, mm);
	return IRQ_HANDLED;
}

/* In a vCPU's thread, before it is in the guest again. */
static void in_vcpu(struct callback_head *work)
{
	struct rdt_irq *v = container_of(work, struct rdt_irq, work);
	struct rdt_device *d = v->d;

	rdt_lock(d);
	if (d->model)
		rdt_model_interrupt(d->model, v - d->vector);
	rdt_unlock(d);
	clear_and_wake_up_bit(0, &v->asked);	/* pairs with wait_on_bit() in rdt_irq_close(): nothing of @v behind it */
}

/*
 * Has the interrupt taken this thread out of the VM? Then it does what thread() would, and has the VMM's memory: two switches of tasks
 * and two of address spaces fewer. PF_VCPU is set while the guest runs, and still when its exit's interrupt is handled; before the
 * guest is entered again, and before a signal ends the thread, its works are done, at once: src/standby/limit.c, which lets a
 * vCPU's thread sleep, is the last of them. Another's, or that which is still busy with the one before: false.
 */
static bool ask_vcpu(struct rdt_irq *v)
{
	if (!(current->flags & PF_VCPU) || current->mm != v->d->mm || test_and_set_bit_lock(0, &v->asked))
		return false;
	init_task_work(&v->work, in_vcpu);
	if (!task_work_add(current, &v->work, TWA_RESUME))
		return true;
	clear_bit_unlock(0, &v->asked);
	return false;
}

static irqreturn_t handler(int irq, void *data)
{
	struct rdt_irq *v = data;

	if (READ_ONCE(v->to_guest))
		signal_guest(v);
	if (!READ_ONCE(v->to_model) || ask_vcpu(v))
		return IRQ_HANDLED;
	return IRQ_WAKE_THREAD;
}

static void later(struct work_struct *work)
{
	struct rdt_device *d = container_of(to_delayed_work(work), struct rdt_device, later);
	const bool mm = enter(d);

	if (d->model)
		rdt_model_later(d->model);
	leave(d, mm);
}

void rdt_dma_later(void *host)
{
	struct rdt_device *d = host;

	lockdep_assert_held(&d->lock);
	schedule_delayed_work(&d->later, 1);
}

static void free_irqs(struct rdt_device *d, int n)
{
	int i;

	for (i = 0; i < n; i++)
		free_irq(pci_irq_vector(d->core.pdev, i), &d->vector[i]);
	/* Nobody asks a vCPU any more. One that was asked is not this thread: it would have been through before it left KVM. */
	for (i = 0; i < n; i++)
		wait_on_bit(&d->vector[i].asked, 0, TASK_UNINTERRUPTIBLE);
	pci_free_irq_vectors(d->core.pdev);
	mmdrop(d->mm);
}

/*
 * One for each CPU that could have a queue, and the admin queue's: a guest may have more of them than this host has. All at
 * once: 6.12 wants no more of them later.
 */
int rdt_irq_open(struct rdt_device *d)
{
	struct pci_dev *pdev = d->core.pdev;
	int table = pci_msix_vec_count(pdev), n, i, err = 0;

	if (table <= 0)
		return -ENODEV;
	d->vector = kvcalloc(table, sizeof(*d->vector), GFP_KERNEL_ACCOUNT);
	if (!d->vector)
		return -ENOMEM;
	d->vectors = table;
	for (i = 0; i < table; i++) {
		d->vector[i].d = d;
		d->vector[i].to_model = true;
		spin_lock_init(&d->vector[i].lock);
	}
	n = pci_alloc_irq_vectors(pdev, 1, min_t(int, table, max_t(int, num_online_cpus() + 1, 17)), PCI_IRQ_MSIX);
	if (n < 0) {
		err = n;
		goto free;
	}
	INIT_DELAYED_WORK(&d->later, later);
	d->mm = current->mm;
	mmgrab(d->mm);
	for (i = 0; i < n; i++) {
		snprintf(d->vector[i].name, sizeof(d->vector[i].name), "rdt-%s-%d", pci_name(pdev), i);
		err = request_threaded_irq(pci_irq_vector(pdev, i), handler, thread, 0, d->vector[i].name, &d->vector[i]);
		if (err)
			goto undo;
	}
	d->irqs = n;
	return 0;
undo:
	free_irqs(d, i);
free:
	kvfree(d->vector);
	d->vector = NULL;
	d->vectors = 0;
	return err;
}

/* Not under the lock: it waits for the threads. The model is gone, or never was. */
void rdt_irq_close(struct rdt_device *d)
{
	u32 i;

	/* There is no model any more that could ask for it again. */
	if (d->irqs)
		cancel_delayed_work_sync(&d->later);
	/* KVM is done with the interrupts before they are freed, and with the eventfds before they are put. */
	mutex_lock(&d->lock);
	for (i = 0; i < d->vectors; i++)
		bypass_end(&d->vector[i]);
	mutex_unlock(&d->lock);
	if (d->irqs)
		free_irqs(d, d->irqs);
	for (i = 0; i < d->vectors; i++) {
		if (d->vector[i].trigger)
			eventfd_ctx_put(d->vector[i].trigger);
	}
	kvfree(d->vector);
	d->vector = NULL;
	d->vectors = d->irqs = 0;
}

/* VFIO_DEVICE_GET_IRQ_INFO for INTx, MSI and MSI-X. -ENOTTY: another, which is vfio-pci's. */
long rdt_irq_info(struct rdt_device *d, void __user *arg)
{
	struct vfio_irq_info info;

	if (copy_from_user(&info, arg, sizeof(info)))
		return -EFAULT;
	if (info.argsz < sizeof(info) || info.index > VFIO_PCI_MSIX_IRQ_INDEX)
		return -ENOTTY;
	info.flags = VFIO_IRQ_INFO_EVENTFD;
	info.count = info.index == VFIO_PCI_MSIX_IRQ_INDEX ? d->vectors : 0;
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static int set_trigger(struct rdt_irq *v, int fd)
{
	struct eventfd_ctx *ctx = fd < 0 ? NULL : eventfd_ctx_fdget(fd);

	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	/* For the producer: it goes with the trigger. */
	rdt_lock(v->d);
	bypass_end(v);
	spin_lock_irq(&v->lock);
	swap(v->trigger, ctx);
	spin_unlock_irq(&v->lock);
	bypass_begin(v);
	rdt_unlock(v->d);
	if (ctx)
		eventfd_ctx_put(ctx);
	return 0;
}

/* VFIO_DEVICE_SET_IRQS, likewise. */
long rdt_irq_set(struct rdt_device *d, void __user *arg)
{
	struct vfio_irq_set hdr;
	size_t size = 0;
	u8 *data = NULL;
	long err;
	u32 i;

	if (copy_from_user(&hdr, arg, offsetofend(struct vfio_irq_set, count)))
		return -EFAULT;
	if (hdr.index > VFIO_PCI_MSIX_IRQ_INDEX)
		return -ENOTTY;
	if (hdr.index != VFIO_PCI_MSIX_IRQ_INDEX)
		return -EINVAL;
	err = vfio_set_irqs_validate_and_prepare(&hdr, d->vectors, VFIO_PCI_NUM_IRQS, &size);
	if (err)
		return err;
	if ((hdr.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -EINVAL;
	if (size) {
		data = memdup_user(arg + offsetofend(struct vfio_irq_set, count), size);
		if (IS_ERR(data))
			return PTR_ERR(data);
	}
	/* None of them: all are taken away. */
	if (!hdr.count && !size) {
		for (i = 0; i < d->vectors; i++)
			set_trigger(&d->vector[i], -1);
	}
	for (i = 0; i < hdr.count && !err; i++) {
		struct rdt_irq *v = &d->vector[hdr.start + i];

		switch (hdr.flags & VFIO_IRQ_SET_DATA_TYPE_MASK) {
		case VFIO_IRQ_SET_DATA_EVENTFD:
			err = set_trigger(v, ((s32 *)data)[i]);
			break;
		case VFIO_IRQ_SET_DATA_BOOL:
			if (!data[i])
				break;
			fallthrough;
		default:
			signal_guest(v);
			break;
		}
	}
	/* All or none, as with vfio-pci. */
	while (err && i-- > 0 && size)
		set_trigger(&d->vector[hdr.start + i], -1);
	kfree(data);
	return err;
}
