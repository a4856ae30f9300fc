// SPDX-License-Identifier: GPL-2.0
/*
 * redoubt_vfio_pci: a vfio-pci variant driver for devices that are to move with their VM
 * (Documentation/migration.md). Not made migratable it is vfio-pci: the guest has the BARs mapped, its
 * interrupts are KVM's, and nothing here is on the way of an I/O. Else a model stands before the device.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "device.h"

#include <linux/module.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
#include <linux/iommufd.h>
#endif

void rdt_lock(struct rdt_device *d)
{
	mutex_lock(&d->lock);
	if (d->model && xchg(&d->was_reset, false)) {
		d->table_lost = true;
		rdt_model_reset(d->model);
		rdt_mig_reset(d);
	}
}

void rdt_unlock(struct rdt_device *d)
{
	mutex_unlock(&d->lock);
}

int rdt_force(struct rdt_device *d)
{
	struct pci_dev *pdev = d->core.pdev;
	u16 cmd;

	lockdep_assert_held(&d->lock);
	down_write(&d->core.memory_lock);
	if ((__force int)pdev->current_state >= (__force int)PCI_D3hot) {
		up_write(&d->core.memory_lock);
		return -EIO;
	}
	pci_read_config_word(pdev, PCI_COMMAND, &cmd);
	pci_write_config_word(pdev, PCI_COMMAND, cmd | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	d->forced = true;
	up_write(&d->core.memory_lock);
	return 0;
}

/* The device behind a model. On failure nothing of it is left. */
static int model_open(struct rdt_device *d)
{
	struct pci_dev *pdev = d->core.pdev;
	struct rdt_dma_info info = {
		.class_code = pdev->class,
		.vendor = pdev->vendor,
		.device = pdev->device,
		.bar_bytes = pci_resource_len(pdev, 0),
		.window_bytes = RDT_WINDOW_BYTES,
		.direct = READ_ONCE(d->direct),
		.shows = READ_ONCE(d->vcpu_copy),
	};
	const char *why = NULL;
	int err;

	d->bar_bytes = info.bar_bytes;
	d->bar = pci_iomap(pdev, 0, 0);
	if (!d->bar)
		return -ENOMEM;
	err = rdt_window_open(d);
	if (err)
		goto bar;
	err = rdt_irq_open(d);
	if (err)
		goto window;
	info.window = d->window;
	info.vectors = d->vectors;
	info.irqs = d->irqs;
	mutex_lock(&d->lock);
	d->was_reset = d->table_lost = d->master = false;
	err = rdt_force(d);
	if (!err) {
		d->model = rdt_model_create(d, &info, &why);
		if (!d->model)
			err = -EOPNOTSUPP;
	}
	d->forced = false;
	mutex_unlock(&d->lock);
	if (err)
		goto irq;
	rdt_mig_open(d);
	rdt_doorbell_open(d);
	return 0;
irq:
	rdt_irq_close(d);
window:
	rdt_window_close(d);
bar:
	pci_iounmap(pdev, d->bar);
	d->bar = NULL;
	rdt_dev_info(d, "cannot be made migratable: %s (%d)\n", why ?: "interrupts or bus addresses", err);
	return err;
}

static void model_close(struct rdt_device *d)
{
	if (!d->model)
		return;
	rdt_doorbell_close(d);
	rdt_lock(d);
	rdt_mig_close(d);
	/* The guest may have switched its memory off with the device at work. */
	rdt_force(d);
	rdt_model_destroy(d->model);
	d->model = NULL;
	d->forced = false;
	rdt_unlock(d);
	rdt_irq_close(d);
	rdt_window_close(d);
	pci_iounmap(d->core.pdev, d->bar);
	d->bar = NULL;
}

static int open_device(struct vfio_device *vdev)
{
	struct rdt_device *d = to_rdt(vdev);
	int err = vfio_pci_core_enable(&d->core);

	if (err)
		return err;
	if (READ_ONCE(d->migratable)) {
		err = model_open(d);
		if (err) {
			vfio_pci_core_disable(&d->core);
			return err;
		}
	}
	vfio_pci_core_finish_enable(&d->core);
	if (d->model) {
		/* Now: finish_enable() sets it. The guest's accesses come to rdt_bar_read() and _write(). */
		d->core.bar_mmap_supported[0] = false;
		d->core.vconfig[PCI_INTERRUPT_PIN] = 0;
	}
	return 0;
}

static void close_device(struct vfio_device *vdev)
{
	model_close(to_rdt(vdev));
	vfio_pci_core_close_device(vdev);
}

static long reset(struct rdt_device *d, unsigned int cmd, unsigned long arg)
{
	long err;

	/* Nobody rings the device while it is reset. reset_done() leaves word for who takes the lock next. */
	rdt_lock(d);
	err = vfio_pci_core_ioctl(&d->core.vdev, cmd, arg);
	rdt_unlock(d);
	return err;
}

/* What was reset is the guest's again, without waiting for who takes the lock next. */
static void look_at_reset(struct rdt_device *d)
{
	if (d->model && READ_ONCE(d->was_reset)) {
		rdt_lock(d);
		rdt_unlock(d);
	}
}

static long ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	struct rdt_device *d = to_rdt(vdev);
	long err = -ENOTTY;

	if (d->model) {
		switch (cmd) {
		case VFIO_DEVICE_GET_IRQ_INFO:
			err = rdt_irq_info(d, (void __user *)arg);
			break;
		case VFIO_DEVICE_SET_IRQS:
			err = rdt_irq_set(d, (void __user *)arg);
			break;
		case VFIO_DEVICE_RESET:
			return reset(d, cmd, arg);
		case VFIO_DEVICE_IOEVENTFD:
			return -EINVAL;		/* it would go round the model */
		}
	}
	if (err == -ENOTTY) {
		err = vfio_pci_core_ioctl(vdev, cmd, arg);
		look_at_reset(d);	/* by a slot's reset */
	}
	return err;
}

static int feature(struct vfio_device *vdev, u32 flags, void __user *arg, size_t argsz)
{
	int ret = rdt_mig_feature(to_rdt(vdev), flags, arg, argsz);

	return ret == -ENOTTY ? vfio_pci_core_ioctl_feature(vdev, flags, arg, argsz) : ret;
}

static bool for_model(struct rdt_device *d, loff_t pos)
{
	return d->model && VFIO_PCI_OFFSET_TO_INDEX(pos) == VFIO_PCI_BAR0_REGION_INDEX;
}

static ssize_t read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	struct rdt_device *d = to_rdt(vdev);

	return for_model(d, *ppos) ? rdt_bar_read(d, buf, count, ppos) : vfio_pci_core_read(vdev, buf, count, ppos);
}

/* What the command register or BAR 0 say may be another thing now. */
static void config_written(struct rdt_device *d, u64 off, size_t count)
{
	u16 cmd = 0;

	pci_read_config_word(d->core.pdev, PCI_COMMAND, &cmd);
	WRITE_ONCE(d->master, cmd & PCI_COMMAND_MASTER);
	if (!(cmd & PCI_COMMAND_MASTER)) {
		rdt_lock(d);
		rdt_model_unshow(d->model);
		rdt_unlock(d);
	}
	rdt_doorbell_config(d, off, count);
}

static ssize_t write(struct vfio_device *vdev, const char __user *buf, size_t count, loff_t *ppos)
{
	struct rdt_device *d = to_rdt(vdev);
	const loff_t pos = *ppos;
	ssize_t n;

	if (for_model(d, pos))
		return rdt_bar_write(d, buf, count, ppos);
	n = vfio_pci_core_write(vdev, buf, count, ppos);
	if (n > 0 && d->model && VFIO_PCI_OFFSET_TO_INDEX(pos) == VFIO_PCI_CONFIG_REGION_INDEX &&
	    (pos & VFIO_PCI_OFFSET_MASK) < PCI_BASE_ADDRESS_2)
		config_written(d, pos & VFIO_PCI_OFFSET_MASK, n);
	look_at_reset(d);	/* by a capability */
	return n;
}

/* Nothing is pinned longer than a moment; but VFIO lets only those pin that have this. */
static void dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
}

static int init(struct vfio_device *vdev)
{
	struct rdt_device *d = to_rdt(vdev);

	d->direct = true;
	mutex_init(&d->lock);
	mutex_init(&d->bell.lock);
	xa_init(&d->dirty);
	INIT_LIST_HEAD(&d->window_entry);
	return vfio_pci_core_init_dev(vdev);
}

static void release(struct vfio_device *vdev)
{
	struct rdt_device *d = to_rdt(vdev);

	xa_destroy(&d->dirty);
	mutex_destroy(&d->bell.lock);
	mutex_destroy(&d->lock);
	vfio_pci_core_release_dev(vdev);
}

static const struct vfio_device_ops ops = {
	.name		= "redoubt-vfio-pci",
	.init		= init,
	.release	= release,
	.open_device	= open_device,
	.close_device	= close_device,
	.ioctl		= ioctl,
	.device_feature	= feature,
	.read		= read,
	.write		= write,
	.mmap		= vfio_pci_core_mmap,
	.request	= vfio_pci_core_request,
	.match		= vfio_pci_core_match,
	.dma_unmap	= dma_unmap,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	.bind_iommufd	= vfio_iommufd_physical_bind,
	.unbind_iommufd	= vfio_iommufd_physical_unbind,
	.attach_ioas	= vfio_iommufd_physical_attach_ioas,
	.detach_ioas	= vfio_iommufd_physical_detach_ioas,
#endif
};

static struct rdt_device *of(struct device *dev)
{
	return container_of((struct vfio_pci_core_device *)dev_get_drvdata(dev), struct rdt_device, core);
}

static ssize_t store_bool(bool *to, const char *buf, size_t count)
{
	bool on;
	int err = kstrtobool(buf, &on);

	if (err)
		return err;
	WRITE_ONCE(*to, on);
	return count;
}

static ssize_t migratable_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", READ_ONCE(of(dev)->migratable));
}

static ssize_t migratable_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	return store_bool(&of(dev)->migratable, buf, count);
}
static DEVICE_ATTR_RW(migratable);

static ssize_t direct_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", READ_ONCE(of(dev)->direct));
}

static ssize_t direct_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	return store_bool(&of(dev)->direct, buf, count);
}
static DEVICE_ATTR_RW(direct);

static ssize_t vcpu_copy_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", READ_ONCE(of(dev)->vcpu_copy));
}

static ssize_t vcpu_copy_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	return store_bool(&of(dev)->vcpu_copy, buf, count);
}
static DEVICE_ATTR_RW(vcpu_copy);

static ssize_t status_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct rdt_device *d = of(dev);
	struct rdt_model_stats s = {};
	const char *blocker = NULL;
	u64 rings = 0, emulated = 0;
	bool model;
	u32 state;

	rdt_lock(d);
	model = d->model;
	state = d->state;
	if (model) {
		rdt_model_get_stats(d->model, &s);
		blocker = rdt_mig_blocker(d);
		rings = d->bell.rings;
		emulated = d->bell.emulated;
	}
	rdt_unlock(d);
	if (!model)
		return sysfs_emit(buf, "model none\n");
	return sysfs_emit(buf, "model nvme\nstate %u\ncommands %llu\ndoorbells %llu\nemulated_doorbells %llu\nbounced %llu\nshown %llu\nrefused %llu\ninflight %u\nqueues %u\ndirect_queues %u\nblocker %s\n",
			  state, (u64)s.commands, rings, emulated, (u64)s.bounced, (u64)s.shown, (u64)s.refused, s.inflight, s.queues, s.direct, blocker ?: "none");
}
static DEVICE_ATTR_RO(status);

static ssize_t migration_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct rdt_device *d = of(dev);
	ssize_t n;

	rdt_lock(d);
	n = rdt_record_show(d, buf);
	rdt_unlock(d);
	return n;
}
static DEVICE_ATTR_RO(migration);

static struct attribute *attrs[] = {
	&dev_attr_migratable.attr, &dev_attr_direct.attr, &dev_attr_vcpu_copy.attr, &dev_attr_status.attr, &dev_attr_migration.attr, NULL
};
static const struct attribute_group group = { .name = "redoubt", .attrs = attrs };
static const struct attribute_group *groups[] = { &group, NULL };

/* core.memory_lock may be held: see struct rdt_device. */
static void reset_done(struct pci_dev *pdev)
{
	WRITE_ONCE(of(&pdev->dev)->was_reset, true);
}

static const struct pci_error_handlers err_handlers = {
	.error_detected	= vfio_pci_core_aer_err_detected,
	.reset_done	= reset_done,
};

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct rdt_device *d = vfio_alloc_device(rdt_device, core.vdev, &pdev->dev, &ops);
	int err;

	if (IS_ERR(d))
		return PTR_ERR(d);
	/* vfio-pci-core finds its device there, for its error handlers. */
	dev_set_drvdata(&pdev->dev, &d->core);
	err = vfio_pci_core_register_device(&d->core);
	if (err)
		vfio_put_device(&d->core.vdev);
	return err;
}

static void remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

/* Never by itself: by driver_override only. */
static const struct pci_device_id ids[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_ANY_ID, PCI_ANY_ID) },
	{}
};
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver rdt_vfio_driver = {
	.name			= "redoubt_vfio_pci",
	.id_table		= ids,
	.probe			= probe,
	.remove			= remove,
	.err_handler		= &err_handlers,
	.driver_managed_dma	= true,
	.dev_groups		= groups,
};

static int __init rdt_vfio_init(void)
{
	return pci_register_driver(&rdt_vfio_driver);
}

static void __exit rdt_vfio_exit(void)
{
	pci_unregister_driver(&rdt_vfio_driver);
	/* A vCPU's thread that irq.c has asked has let its device go, and has a few instructions of this module still to do. */
	synchronize_rcu_tasks();
}

module_init(rdt_vfio_init);
module_exit(rdt_vfio_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("vfio-pci for devices that migrate with their VM");
