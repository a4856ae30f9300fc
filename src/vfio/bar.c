// SPDX-License-Identifier: GPL-2.0
/* BAR 0: the guest's accesses go to the model, the model's to the device. */
#include "device.h"

#include <linux/io.h>
#include <linux/msi.h>
#include <linux/uaccess.h>

/*
 * Does the device answer? core.memory_lock is held. A guest that switches its memory off must not make the
 * host touch it: that is an error on the bus.
 */
static bool answers(struct rdt_device *d)
{
	return d->forced || ((__force int)d->core.pdev->current_state < (__force int)PCI_D3hot &&
			     (le16_to_cpu(*(__le16 *)&d->core.vconfig[PCI_COMMAND]) & PCI_COMMAND_MEMORY));
}

rdt_u32 rdt_dma_reg_read(void *host, rdt_u32 off)
{
	struct rdt_device *d = host;
	u32 v = ~0;

	lockdep_assert_held(&d->lock);
	down_read(&d->core.memory_lock);
	if (off <= d->bar_bytes - 4 && answers(d))
		v = readl(d->bar + off);
	up_read(&d->core.memory_lock);
	return v;
}

void rdt_dma_reg_write(void *host, rdt_u32 off, rdt_u32 value)
{
	struct rdt_device *d = host;

	lockdep_assert_held(&d->lock);
	down_read(&d->core.memory_lock);
	if (off <= d->bar_bytes - 4 && answers(d)) {
		/*
		 * A reset has emptied the table of interrupts. The kernel restores it, but in vain when the
		 * guest had the device's memory switched off then, as VMMs do.
		 */
		if (d->table_lost) {
			d->table_lost = false;
			pci_restore_msi_state(d->core.pdev);
		}
		writel(value, d->bar + off);
	}
	up_read(&d->core.memory_lock);
}

/* The widest access at an offset that is aligned, within @left bytes. */
static u32 width(u64 off, size_t left)
{
	u32 n = 8;

	while (n > left || off % n)
		n /= 2;
	return n;
}

ssize_t rdt_bar_read(struct rdt_device *d, char __user *buf, size_t count, loff_t *ppos)
{
	u64 off = *ppos & VFIO_PCI_OFFSET_MASK;
	size_t done = 0;

	if (off >= d->bar_bytes)
		return -EINVAL;
	count = min_t(u64, count, d->bar_bytes - off);
	while (done < count) {
		u32 n = width(off + done, count - done);
		u64 v;

		rdt_lock(d);
		v = rdt_model_read(d->model, off + done, n);
		rdt_unlock(d);
		if (copy_to_user(buf + done, &v, n))
			return -EFAULT;
		done += n;
	}
	*ppos += done;
	return done;
}

ssize_t rdt_bar_write(struct rdt_device *d, const char __user *buf, size_t count, loff_t *ppos)
{
	u64 off = *ppos & VFIO_PCI_OFFSET_MASK;
	size_t done = 0;

	if (off >= d->bar_bytes)
		return -EINVAL;
	count = min_t(u64, count, d->bar_bytes - off);
	while (done < count) {
		u32 n = width(off + done, count - done);
		u64 v = 0;

		if (copy_from_user(&v, buf + done, n))
			return -EFAULT;
		rdt_lock(d);
		rdt_model_write(d->model, off + done, n, v);
		rdt_unlock(d);
		done += n;
	}
	*ppos += done;
	return done;
}
