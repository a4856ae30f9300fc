// SPDX-License-Identifier: GPL-2.0
/*
 * VFIO's migration protocol (include/uapi/linux/vfio.h, "v2") for devices with a model.
 *
 * What goes over the wire is struct rdt_mig_head and the model's state behind it.
 */
#include "device.h"

#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/iova_bitmap.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

/* 6.1's header does not have it yet; QEMU asks for it all the same, and cannot do without. */
#ifndef VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
#define VFIO_DEVICE_FEATURE_MIG_DATA_SIZE 9
struct vfio_device_feature_mig_data_size {
	__aligned_u64 stop_copy_length;
};
#endif

/*
 * DMA logging needs iova_bitmap_set(): in VFIO itself in 6.1, in iommufd since, which Debian's 6.12 is
 * built without. There the container's own log serves: see arm().
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0) || IS_ENABLED(CONFIG_IOMMUFD_DRIVER)
#define RDT_DMA_LOGGING
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#define RDT_PRE_COPY
#endif

#define RDT_MIG_MAGIC	0x3247494d54445244ull	/* "DRDTMIG2" */

struct rdt_mig_head {
	u64 magic;
	u64 bytes;	/* of the state behind it */
	u64 bar;	/* where the guest has BAR 0; 0: not known */
};

/**
 * struct rdt_mig_file - the VMM's end of a state. All of it is under the device's lock.
 * @d: the device's memory is there as long as the file is; the device need not be open.
 * @dead: the device has left the state that this file is for.
 * @buf: head and state.
 * @room: what there is memory for.
 * @len: bytes that are there.
 * @pos: bytes of them that were read.
 */
struct rdt_mig_file {
	struct rdt_device *d;
	bool dead;
	u8 *buf;
	u64 room, len, pos;
};

static ssize_t mig_read(struct file *filp, char __user *to, size_t count, loff_t *pos)
{
	struct rdt_mig_file *f = filp->private_data;
	ssize_t n;

	if (pos)
		return -ESPIPE;
	rdt_lock(f->d);
	if (f->dead) {
		n = -ENODEV;
	} else if (!f->len) {
		n = -ENOMSG;	/* before the device is stopped there is nothing */
	} else {
		n = min_t(u64, count, f->len - f->pos);
		if (copy_to_user(to, f->buf + f->pos, n))
			n = -EFAULT;
		else
			f->pos += n;
		f->d->record.bytes_done = f->pos;
		if (f->pos == f->len)
			rdt_record_end(f->d, RDT_MIG_COMPLETED, 0);
	}
	rdt_unlock(f->d);
	return n;
}

static int load(struct rdt_device *d, const struct rdt_mig_head *head, const void *state)
{
	const ktime_t from = ktime_get();
	int err = rdt_force(d);

	if (!err)
		err = rdt_model_load(d->model, state, head->bytes);
	d->record.load_us = ktime_us_delta(ktime_get(), from);
	if (err)
		return err;
	rdt_doorbell_set_bar(d, head->bar);
	d->loaded = true;
	return 0;
}

/* The last byte loads the state: the VMM is told at once when this device cannot take it. */
static ssize_t mig_write(struct file *filp, const char __user *from, size_t count, loff_t *pos)
{
	struct rdt_mig_file *f = filp->private_data;
	struct rdt_device *d = f->d;
	struct rdt_mig_head *head = (void *)f->buf;
	struct rdt_record *r = &d->record;
	ssize_t n = count;
	int err;

	if (pos)
		return -ESPIPE;
	rdt_lock(d);
	if (f->dead) {
		n = -ENODEV;
		goto out;
	}
	if (count > f->room - f->len) {
		n = -ENOSPC;
		goto out;
	}
	if (copy_from_user(f->buf + f->len, from, count)) {
		n = -EFAULT;
		goto out;
	}
	f->len += count;
	if (!r->stop.at)
		r->stop.at = ktime_get();
	r->bytes_done = f->len;
	if (f->len < sizeof(*head))
		goto out;
	if (head->magic != RDT_MIG_MAGIC || head->bytes > f->room - sizeof(*head) ||
	    f->len > sizeof(*head) + head->bytes) {
		rdt_dev_warn(d, "what comes is not the state of a device\n");
		n = -EINVAL;
		goto failed;
	}
	r->bytes = sizeof(*head) + head->bytes;
	if (f->len != r->bytes)
		goto out;
	err = load(d, head, f->buf + sizeof(*head));
	if (!err)
		goto out;
	n = err;
failed:
	rdt_record_end(d, RDT_MIG_FAILED, n);
out:
	rdt_unlock(d);
	return n;
}

static long mig_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
#ifdef RDT_PRE_COPY
	struct rdt_mig_file *f = filp->private_data;
	struct vfio_precopy_info info;
	long err = 0;

	if (cmd != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)arg, sizeof(info)))
		return -EFAULT;
	if (info.argsz < sizeof(info))
		return -EINVAL;
	rdt_lock(f->d);
	if (f->dead)
		err = -ENODEV;
	else if (f->d->state != VFIO_DEVICE_STATE_PRE_COPY && f->d->state != VFIO_DEVICE_STATE_PRE_COPY_P2P)
		err = -EINVAL;
	rdt_unlock(f->d);
	if (err)
		return err;
	info.initial_bytes = info.dirty_bytes = 0;
	return copy_to_user((void __user *)arg, &info, sizeof(info)) ? -EFAULT : 0;
#else
	return -ENOTTY;
#endif
}

static int mig_release(struct inode *inode, struct file *filp)
{
	struct rdt_mig_file *f = filp->private_data;
	struct rdt_device *d = f->d;

	rdt_lock(d);
	if (d->file == f)
		d->file = NULL;
	rdt_unlock(d);
	kvfree(f->buf);
	kfree(f);
	put_device(&d->core.vdev.device);
	return 0;
}

static const struct file_operations save_fops = {
	.owner = THIS_MODULE,
	.read = mig_read,
	.unlocked_ioctl = mig_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = mig_release,
};

static const struct file_operations resume_fops = {
	.owner = THIS_MODULE,
	.write = mig_write,
	.release = mig_release,
};

static struct file *open_file(struct rdt_device *d, bool resuming)
{
	struct rdt_mig_file *f = kzalloc(sizeof(*f), GFP_KERNEL_ACCOUNT);
	struct file *filp;

	if (!f)
		return ERR_PTR(-ENOMEM);
	f->d = d;
	f->room = sizeof(struct rdt_mig_head) + rdt_model_state_max(d->model);
	f->buf = kvzalloc(f->room, GFP_KERNEL_ACCOUNT);
	if (!f->buf) {
		kfree(f);
		return ERR_PTR(-ENOMEM);
	}
	filp = anon_inode_getfile("redoubt-migration", resuming ? &resume_fops : &save_fops, f,
				  resuming ? O_WRONLY : O_RDONLY);
	if (IS_ERR(filp)) {
		kvfree(f->buf);
		kfree(f);
		return filp;
	}
	stream_open(file_inode(filp), filp);
	get_device(&d->core.vdev.device);
	d->file = f;
	return filp;
}

static void end_file(struct rdt_device *d)
{
	if (d->file)
		d->file->dead = true;
	d->file = NULL;
}

/* What stands against a migration, or NULL. Under the lock. */
const char *rdt_mig_blocker(struct rdt_device *d)
{
	return rdt_monitored(d) ? "Redoubt protects the VM, and that does not travel" : rdt_model_blocker(d->model);
}

/* The length of the state, or -errno: the host's log says why. */
static s64 save_to(struct rdt_device *d, void *buf, u64 room)
{
	const char *why = rdt_mig_blocker(d);

	if (why) {
		rdt_dev_warn(d, "the VM cannot migrate: %s\n", why);
		return -EOPNOTSUPP;
	}
	return rdt_model_save(d->model, buf, room);
}

static int save(struct rdt_device *d)
{
	struct rdt_mig_file *f = d->file;
	struct rdt_mig_head *head;
	s64 n;

	if (!f)
		return -ENODEV;	/* the VMM has closed it */
	head = (void *)f->buf;
	n = save_to(d, f->buf + sizeof(*head), f->room - sizeof(*head));
	if (n < 0)
		return n;
	head->magic = RDT_MIG_MAGIC;
	head->bytes = n;
	head->bar = rdt_doorbell_bar(d);
	f->len = sizeof(*head) + n;
	d->record.bytes = f->len;
	return 0;
}

/*
 * Would the state be there? Asked when a migration begins, with the device stopped but the guest at work: what is not
 * going to succeed is refused then. It is asked again at its end: the VM may be protected since.
 */
static int try_save(struct rdt_device *d)
{
	const u64 room = rdt_model_state_max(d->model);
	void *buf = kvmalloc(room, GFP_KERNEL_ACCOUNT);
	s64 n;

	if (!buf)
		return -ENOMEM;
	n = save_to(d, buf, room);
	kvfree(buf);
	return n < 0 ? n : 0;
}

static int drain(struct rdt_device *d, struct rdt_drain *out)
{
	struct rdt_model_stats s = {};
	const ktime_t from = ktime_get();
	const int err = rdt_model_stop(d->model);

	rdt_model_get_stats(d->model, &s);
	out->us = ktime_us_delta(ktime_get(), from);
	out->commands = s.drained;
	out->at = err ? 0 : from;
	return err;
}

static int stop(struct rdt_device *d)
{
	const int err = drain(d, &d->stopped);

	if (rdt_record_runs(d)) {
		d->record.stop = d->stopped;
		d->record.ran = 0;
	}
	return err;
}

/* In no state in which the model is stopped. */
static bool at_work(struct rdt_device *d)
{
#ifdef RDT_PRE_COPY
	if (d->state == VFIO_DEVICE_STATE_PRE_COPY)
		return true;
#endif
	return d->state == VFIO_DEVICE_STATE_RUNNING;
}

/*
 * From here on all that the device has written to guest memory is known. What it has under way is let
 * finish first: that goes straight there.
 */
static int arm(struct rdt_device *d)
{
	struct rdt_record *r = &d->record;
	const bool works = at_work(d);
	int err;

#ifndef RDT_DMA_LOGGING
	struct page *page;
#endif

	rdt_record_begin(d, false);
#ifndef RDT_DMA_LOGGING
	/*
	 * Without a log of the device's own, VFIO's container takes all of the memory for dirty, unless the device has
	 * once pinned a page by itself: then only what it has pinned or written by vfio_dma_rw(). It
	 * is at address 0 of every PC.
	 */
	err = vfio_pin_pages(&d->core.vdev, 0, 1, IOMMU_READ, &page);
	if (err < 0) {
		rdt_dev_warn(d, "cannot say which pages are dirty: %d\n", err);
		return err;
	}
	vfio_unpin_pages(&d->core.vdev, 0, 1);
	d->scoped = true;
#endif
	err = works ? drain(d, &r->arm) : 0;
	if (err)
		return err;
	err = try_save(d);
	rdt_model_arm(d->model, !err);
	if (!err)
		r->armed = ktime_get();
	/* Of a VM that is paused the device stays stopped. */
	return (works ? rdt_model_run(d->model, false) : 0) ?: err;
}

/* Unless the log is still read. */
static void disarm(struct rdt_device *d)
{
	if (!d->logging)
		rdt_model_arm(d->model, 0);
}

/*
 * The VM goes on. Where the container's log serves, nobody tells us that it is on: a VM whose migration began while it was paused
 * comes here in the middle. Before the first time that did not matter, all was dirty.
 */
static void disarm_running(struct rdt_device *d)
{
	if (d->scoped && d->still)
		rdt_model_arm(d->model, 1);
	else
		disarm(d);
}

#define ARC(from, to) (d->state == VFIO_DEVICE_STATE_##from && next == VFIO_DEVICE_STATE_##to)

/* While the guest runs on and its memory is copied. */
static int precopy_step(struct rdt_device *d, u32 next, struct file **filp)
{
#ifdef RDT_PRE_COPY
	int err;

	if (ARC(RUNNING, PRE_COPY)) {
		err = arm(d);
		if (err)
			return err;
		*filp = open_file(d, false);
		if (IS_ERR(*filp))
			disarm(d);
		return PTR_ERR_OR_ZERO(*filp);
	}
	if (ARC(PRE_COPY, RUNNING)) {
		end_file(d);
		disarm(d);
		rdt_record_ran(d);
		return 0;
	}
	if (ARC(PRE_COPY, PRE_COPY_P2P))
		return stop(d);
	if (ARC(PRE_COPY_P2P, PRE_COPY)) {
		d->record.ran = ktime_get();
		return rdt_model_run(d->model, false);
	}
	if (ARC(PRE_COPY_P2P, RUNNING_P2P)) {
		end_file(d);
		d->still = false;
		return 0;
	}
	if (ARC(RUNNING_P2P, PRE_COPY_P2P)) {
		err = arm(d);
		if (!err)
			err = stop(d);
		if (err)
			return err;
		*filp = open_file(d, false);
		return PTR_ERR_OR_ZERO(*filp);
	}
	if (ARC(PRE_COPY_P2P, STOP_COPY))
		return save(d);
#endif
	return -EINVAL;
}

static int step(struct rdt_device *d, u32 next, struct file **filp)
{
	int err;

	if (ARC(RUNNING, RUNNING_P2P)) {
		d->still = false;
		return stop(d);
	}
	if (ARC(RUNNING_P2P, STOP))
		return 0;
	if (ARC(STOP, RUNNING_P2P)) {
		d->still = true;
		return 0;
	}
	if (ARC(RUNNING_P2P, RUNNING)) {
		disarm_running(d);
		d->forced = false;
		err = rdt_model_run(d->model, d->still);
		if (!err)
			rdt_record_ran(d);
		return err;
	}
	if (ARC(STOP, STOP_COPY)) {
		/* Nobody may have told us before. */
		rdt_record_begin(d, false);
		d->record.stop = d->stopped;
		*filp = open_file(d, false);
		if (IS_ERR(*filp))
			return PTR_ERR(*filp);
		return save(d);
	}
	if (ARC(STOP_COPY, STOP)) {
		end_file(d);
		return 0;
	}
	if (ARC(STOP, RESUMING)) {
		d->loaded = false;
		rdt_record_begin(d, true);
		*filp = open_file(d, true);
		return PTR_ERR_OR_ZERO(*filp);
	}
	if (ARC(RESUMING, STOP)) {
		/* The VMM may have closed the file by now. */
		if (!d->loaded)
			rdt_dev_warn(d, "the state has not come whole\n");
		end_file(d);
		return d->loaded ? 0 : -EIO;
	}
	return precopy_step(d, next, filp);
}
#undef ARC

static struct file *set_state(struct vfio_device *vdev, enum vfio_device_mig_state wanted)
{
	struct rdt_device *d = to_rdt(vdev);
	struct file *filp = NULL;
	int err = 0;

	rdt_lock(d);
	while (d->state != wanted) {
		enum vfio_device_mig_state next;

		err = vfio_mig_get_next_state(vdev, d->state, wanted, &next);
		if (!err)
			err = step(d, next, &filp);
		if (err) {
			rdt_record_end(d, RDT_MIG_FAILED, err);
			break;
		}
		d->state = next;
	}
	if (err && !IS_ERR_OR_NULL(filp)) {
		end_file(d);
		fput(filp);
	}
	rdt_unlock(d);
	if (!err && wanted == VFIO_DEVICE_STATE_RUNNING)
		rdt_doorbell_update(d);	/* the guest may have come with its BARs */
	return err ? ERR_PTR(err) : filp;
}

static int get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct rdt_device *d = to_rdt(vdev);

	rdt_lock(d);
	*state = d->state;
	rdt_unlock(d);
	return 0;
}

static u64 data_size(struct rdt_device *d)
{
	u64 n;

	rdt_lock(d);
	n = sizeof(struct rdt_mig_head) + rdt_model_state_max(d->model);
	rdt_unlock(d);
	return n;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
static int get_data_size(struct vfio_device *vdev, unsigned long *bytes)
{
	*bytes = data_size(to_rdt(vdev));
	return 0;
}
#endif

static const struct vfio_migration_ops mig_ops = {
	.migration_set_state = set_state,
	.migration_get_state = get_state,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	.migration_get_data_size = get_data_size,
#endif
};

/* -ENOTTY: it is vfio-pci's. */
int rdt_mig_feature(struct rdt_device *d, u32 flags, void __user *arg, size_t argsz)
{
	struct vfio_device_feature_mig_data_size size;
	int ret;

	if (!d->model || (flags & VFIO_DEVICE_FEATURE_MASK) != VFIO_DEVICE_FEATURE_MIG_DATA_SIZE)
		return -ENOTTY;
	ret = vfio_check_feature(flags, argsz, VFIO_DEVICE_FEATURE_GET, sizeof(size));
	if (ret != 1)
		return ret;
	size.stop_copy_length = data_size(d);
	return copy_to_user(arg, &size, sizeof(size)) ? -EFAULT : 0;
}

/* The device was reset, and the model with it. Under the lock. */
void rdt_mig_reset(struct rdt_device *d)
{
	end_file(d);
	rdt_record_reset(d);
	d->state = VFIO_DEVICE_STATE_RUNNING;
	d->forced = false;
	rdt_model_arm(d->model, d->logging);
}

#ifdef RDT_DMA_LOGGING
static int log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes, u64 *page_size)
{
	struct rdt_device *d = to_rdt(vdev);
	int err = -EBUSY;

	rdt_lock(d);
	if (!d->logging) {
		d->dirty_all = false;
		d->logging = true;
		*page_size = PAGE_SIZE;
		err = arm(d);
		if (err) {
			d->logging = false;
			rdt_record_end(d, RDT_MIG_FAILED, err);
		}
	}
	rdt_unlock(d);
	return err;
}

static int log_stop(struct vfio_device *vdev)
{
	struct rdt_device *d = to_rdt(vdev);

	rdt_lock(d);
	d->logging = d->dirty_all = false;
	xa_destroy(&d->dirty);
	disarm(d);
	/* The VMM stops the log when the state is read, or when it has given up: then the device may not have been stopped. */
	if (d->state == VFIO_DEVICE_STATE_RUNNING)
		rdt_record_end(d, RDT_MIG_CANCELLED, 0);
	rdt_unlock(d);
	return 0;
}

static int log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
			      struct iova_bitmap *dirty)
{
	struct rdt_device *d = to_rdt(vdev);
	unsigned long frame, last = (iova + length - 1) >> PAGE_SHIFT;
	void *entry;
	u64 pages = 0;
	int err = 0;

	if (!length)
		return 0;
	rdt_lock(d);
	if (!d->logging) {
		err = -EINVAL;
	} else if (d->dirty_all) {
		iova_bitmap_set(dirty, iova, length);
		pages = last - (iova >> PAGE_SHIFT) + 1;
	} else {
		xa_for_each_range(&d->dirty, frame, entry, iova >> PAGE_SHIFT, last) {
			iova_bitmap_set(dirty, frame << PAGE_SHIFT, PAGE_SIZE);
			xa_erase(&d->dirty, frame);
			pages++;
		}
	}
	if (!err && rdt_record_runs(d)) {
		d->record.log_reads++;
		d->record.log_pages += pages;
	}
	rdt_unlock(d);
	return err;
}

static const struct vfio_log_ops log_ops = {
	.log_start = log_start,
	.log_stop = log_stop,
	.log_read_and_clear = log_read_and_clear,
};
#endif

/*
 * VFIO takes these for properties of the device that never change. Ours depend on how it was opened, and
 * change only while nobody has it open.
 */
void rdt_mig_open(struct rdt_device *d)
{
	struct vfio_device *vdev = &d->core.vdev;

	d->state = VFIO_DEVICE_STATE_RUNNING;
	d->still = d->scoped = false;
	vdev->mig_ops = &mig_ops;
	vdev->migration_flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P;
#ifdef RDT_PRE_COPY
	vdev->migration_flags |= VFIO_MIGRATION_PRE_COPY;
#endif
#ifdef RDT_DMA_LOGGING
	vdev->log_ops = &log_ops;
#endif
}

/* Under the lock. */
void rdt_mig_close(struct rdt_device *d)
{
	struct vfio_device *vdev = &d->core.vdev;

	end_file(d);
	rdt_record_close(d);
	d->state = VFIO_DEVICE_STATE_RUNNING;
	d->logging = d->dirty_all = d->forced = false;
	xa_destroy(&d->dirty);
	vdev->mig_ops = NULL;
	vdev->log_ops = NULL;
	vdev->migration_flags = 0;
}
