// SPDX-License-Identifier: GPL-2.0
/*
 * Memory, for a device's model: the guest's, by way of VFIO's container, and private pages that the
 * device reaches in a window of bus addresses far above the guest's.
 */
#include "device.h"

#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

/* 6.3: iommu_map() is told how to allocate. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#define map_page(domain, iova, phys, prot) iommu_map(domain, iova, phys, PAGE_SIZE, prot, GFP_KERNEL_ACCOUNT)
#else
#define map_page(domain, iova, phys, prot) iommu_map(domain, iova, phys, PAGE_SIZE, prot)
#endif

/* Which windows are taken: devices of one VM share a domain. Protects the list only; innermost. */
static DEFINE_MUTEX(windows_lock);
static LIST_HEAD(windows);

static bool window_taken(struct iommu_domain *domain, u64 window)
{
	struct rdt_device *d;

	list_for_each_entry(d, &windows, window_entry) {
		if (d->domain == domain && d->window == window)
			return true;
	}
	return false;
}

/*
 * The highest window that nobody has. The guest's memory and its BARs are mapped where they are in its
 * physical address space: far below.
 */
int rdt_window_open(struct rdt_device *d)
{
	u64 end, low;
	int err = -ENOSPC;

	d->domain = iommu_get_domain_for_dev(&d->core.pdev->dev);
	if (!d->domain)
		return -ENODEV;
	d->window_used = bitmap_zalloc(RDT_WINDOW_PAGES, GFP_KERNEL_ACCOUNT);
	if (!d->window_used)
		return -ENOMEM;
	/* What one IOMMU has and the other has not; more than anybody needs. */
	end = min_t(u64, d->domain->geometry.aperture_end, (1ull << 47) - 1) + 1;
	low = max_t(u64, d->domain->geometry.aperture_start, 1ull << 38);
	mutex_lock(&windows_lock);
	for (d->window = end - RDT_WINDOW_BYTES; d->window >= low && d->window < end; d->window -= RDT_WINDOW_BYTES) {
		if (!window_taken(d->domain, d->window) && !iommu_iova_to_phys(d->domain, d->window)) {
			list_add(&d->window_entry, &windows);
			err = 0;
			break;
		}
	}
	mutex_unlock(&windows_lock);
	if (err) {
		bitmap_free(d->window_used);
		d->window_used = NULL;
	}
	return err;
}

void rdt_window_close(struct rdt_device *d)
{
	if (!d->window_used)
		return;
	WARN_ON(!bitmap_empty(d->window_used, RDT_WINDOW_PAGES));
	mutex_lock(&windows_lock);
	list_del(&d->window_entry);
	mutex_unlock(&windows_lock);
	bitmap_free(d->window_used);
	d->window_used = NULL;
	d->domain = NULL;
}

/* Charged to the VMM: a guest can make a model allocate, within the model's bounds. */
void *rdt_dma_alloc(unsigned long bytes)
{
	return kvzalloc(bytes, GFP_KERNEL_ACCOUNT);
}

void rdt_dma_free(void *p)
{
	kvfree(p);
}

static void unmap(struct rdt_device *d, u64 iova, u32 pages)
{
	if (pages)
		iommu_unmap(d->domain, iova, (size_t)pages << PAGE_SHIFT);
}

void *rdt_dma_pages_alloc(void *host, rdt_u32 pages, int writes, rdt_u64 *iova)
{
	const int prot = IOMMU_READ | IOMMU_CACHE | (writes ? IOMMU_WRITE : 0);
	struct rdt_device *d = host;
	unsigned long at = bitmap_find_next_zero_area(d->window_used, RDT_WINDOW_PAGES, 0, pages, 0);
	u8 *va;
	u32 i;

	lockdep_assert_held(&d->lock);
	if (at >= RDT_WINDOW_PAGES)
		return NULL;
	va = __vmalloc(array_size(pages, PAGE_SIZE), GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!va)
		return NULL;
	*iova = d->window + ((u64)at << PAGE_SHIFT);
	for (i = 0; i < pages; i++) {
		if (map_page(d->domain, *iova + ((u64)i << PAGE_SHIFT), page_to_phys(vmalloc_to_page(va + i * PAGE_SIZE)), prot)) {
			unmap(d, *iova, i);
			vfree(va);
			return NULL;
		}
	}
	bitmap_set(d->window_used, at, pages);
	return va;
}

void rdt_dma_pages_free(void *host, void *va, rdt_u64 iova, rdt_u32 pages)
{
	struct rdt_device *d = host;

	lockdep_assert_held(&d->lock);
	/* The device is kept from the pages before they are another's. */
	unmap(d, iova, pages);
	bitmap_clear(d->window_used, (iova - d->window) >> PAGE_SHIFT, pages);
	vfree(va);
}

/*
 * The container knows the guest's memory, and marks what is written. It wants a buffer that is not const. A guest
 * that has taken bus mastering from its device may count on it that nobody writes for it.
 */
int rdt_dma_read(void *host, rdt_u64 iova, void *to, rdt_u32 len)
{
	struct rdt_device *d = host;

	return READ_ONCE(d->master) && !vfio_dma_rw(&d->core.vdev, iova, to, len, false) ? 0 : -1;
}

int rdt_dma_write(void *host, rdt_u64 iova, const void *from, rdt_u32 len)
{
	struct rdt_device *d = host;

	return READ_ONCE(d->master) ? rdt_memory_write(d, iova, from, len) : -1;
}

/* A page is dirty when it was written: what is no memory is not remembered, a guest could name any number of such. */
int rdt_memory_write(struct rdt_device *d, u64 iova, const void *from, u32 len)
{
	u32 n;

	lockdep_assert_held(&d->lock);
	for (; len; iova += n, from += n, len -= n) {
		n = min_t(u32, len, PAGE_SIZE - offset_in_page(iova));
		if (vfio_dma_rw(&d->core.vdev, iova, (void *)from, n, true))
			return -1;
		if (rdt_record_runs(d) && d->record.armed)
			d->record.pages++;
		if (d->logging && xa_is_err(xa_store(&d->dirty, iova >> PAGE_SHIFT, xa_mk_value(1), GFP_KERNEL_ACCOUNT)))
			d->dirty_all = true;
	}
	return 0;
}

void rdt_dma_pause(void *host)
{
	usleep_range(20, 100);
}

rdt_u64 rdt_dma_ms(void *host)
{
	return ktime_to_ms(ktime_get());
}

void rdt_dma_log(void *host, const char *what, rdt_u64 a, rdt_u64 b)
{
	rdt_dev_warn((struct rdt_device *)host, "%s (%#llx, %#llx)\n", what, (u64)a, (u64)b);
}
