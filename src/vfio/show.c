// SPDX-License-Identifier: GPL-2.0
/*
 * The other assignment of E1's two buffers: the device has the guest's page, its CPUs a copy, by way of the nested page
 * table, which is redoubt.ko's business. Where a bus address is not the guest's physical address (a guest with an
 * IOMMU) redoubt.ko finds another frame there than the device has, and refuses.
 */
#include "device.h"

#include <linux/gfp.h>

int rdt_dma_show(void *host, rdt_u64 iova)
{
	struct rdt_device *d = host;
	phys_addr_t phys;
	struct page *page;

	lockdep_assert_held(&d->lock);
	if (!d->bell.shows)
		return -1;
	phys = iommu_iova_to_phys(d->domain, iova);
	if (!phys)
		return -1;
	page = alloc_page(GFP_KERNEL_ACCOUNT);
	if (!page)
		return -1;
	if (rdt_dma_read(host, iova, page_address(page), PAGE_SIZE) ||
	    d->bell.kvm_ops->show(d->bell.kvm, iova >> PAGE_SHIFT, phys >> PAGE_SHIFT, page)) {
		__free_page(page);
		return -1;
	}
	return 0;
}

void rdt_dma_hide(void *host, rdt_u64 iova)
{
	struct rdt_device *d = host;

	lockdep_assert_held(&d->lock);
	d->bell.kvm_ops->hide(d->bell.kvm, iova >> PAGE_SHIFT);
}

/* A byte is written as it is: the container takes for dirty what was written by its means. Also without bus mastering, which went later. */
int rdt_dma_touch(void *host, rdt_u64 iova)
{
	struct rdt_device *d = host;
	u8 byte;

	if (vfio_dma_rw(&d->core.vdev, iova, &byte, 1, false))
		return -1;
	return rdt_memory_write(d, iova, &byte, 1);
}

void rdt_show_open(struct rdt_device *d)
{
	struct rdt_doorbell *b = &d->bell;

	b->shows = READ_ONCE(d->vcpu_copy) && b->kvm && !b->kvm_ops->copy_get(b->kvm);
	if (READ_ONCE(d->vcpu_copy) && !b->shows)
		rdt_dev_info(d, "without redoubt.ko, or memory, the copy is the device's\n");
}

/* No vCPU rings any more; what is shown is not by the end. */
void rdt_show_close(struct rdt_device *d)
{
	struct rdt_doorbell *b = &d->bell;

	if (!b->shows)
		return;
	rdt_lock(d);
	b->shows = false;
	rdt_model_unshow(d->model);
	rdt_unlock(d);
	b->kvm_ops->copy_put(b->kvm);
}
