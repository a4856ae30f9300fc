// SPDX-License-Identifier: GPL-2.0
/*
 * redoubt_vfio_pci: a vfio-pci variant driver for devices that are to move with their VM
 * (Documentation/migration.md). As long as no migration runs it is vfio-pci: the guest has the BARs
 * mapped, its interrupts are KVM's, and nothing here is on the way of an I/O.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/pci.h>
#include <linux/version.h>
#include <linux/vfio_pci_core.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
#include <linux/iommufd.h>
#endif

/**
 * struct rdt_device - a device that is bound to this driver.
 * @core: vfio-pci's part; first, as vfio allocates and frees the whole by it.
 */
struct rdt_device {
	struct vfio_pci_core_device core;
};

static int open_device(struct vfio_device *vdev)
{
	struct rdt_device *d = container_of(vdev, struct rdt_device, core.vdev);
	int err = vfio_pci_core_enable(&d->core);

	if (err)
		return err;
	vfio_pci_core_finish_enable(&d->core);
	return 0;
}

static const struct vfio_device_ops ops = {
	.name		= "redoubt-vfio-pci",
	.init		= vfio_pci_core_init_dev,
	.release	= vfio_pci_core_release_dev,
	.open_device	= open_device,
	.close_device	= vfio_pci_core_close_device,
	.ioctl		= vfio_pci_core_ioctl,
	.device_feature	= vfio_pci_core_ioctl_feature,
	.read		= vfio_pci_core_read,
	.write		= vfio_pci_core_write,
	.mmap		= vfio_pci_core_mmap,
	.request	= vfio_pci_core_request,
	.match		= vfio_pci_core_match,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	.bind_iommufd	= vfio_iommufd_physical_bind,
	.unbind_iommufd	= vfio_iommufd_physical_unbind,
	.attach_ioas	= vfio_iommufd_physical_attach_ioas,
	.detach_ioas	= vfio_iommufd_physical_detach_ioas,
#endif
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
	.err_handler		= &vfio_pci_core_err_handlers,
	.driver_managed_dma	= true,
};
module_pci_driver(rdt_vfio_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("vfio-pci for devices that migrate with their VM");
