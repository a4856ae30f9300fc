// SPDX-License-Identifier: GPL-2.0
/*
 * The figures of a migration: the one that runs, or the last one. They are of this device only: how long the guest stood
 * still the two VMMs know. They outlast the VMM, to be read when it has gone.
 */
#include "device.h"

#include <linux/ktime.h>
#include <linux/sysfs.h>

void rdt_record_begin(struct rdt_device *d, bool incoming)
{
	struct rdt_record *r = &d->record;

	/* On 6.1 it begins with the log, and goes on with the state. */
	if (rdt_record_runs(d) && r->incoming == incoming)
		return;
	*r = (struct rdt_record){ .outcome = RDT_MIG_RUNNING, .incoming = incoming, .began = ktime_get() };
}

void rdt_record_end(struct rdt_device *d, enum rdt_outcome outcome, int err)
{
	struct rdt_record *r = &d->record;

	if (!rdt_record_runs(d))
		return;
	r->outcome = outcome;
	r->err = err;
	r->ended = ktime_get();
}

/* The device runs. Of a VM that has gone already it does so when the other host would not have it. */
void rdt_record_ran(struct rdt_device *d)
{
	struct rdt_record *r = &d->record;

	lockdep_assert_held(&d->lock);
	if (r->closed)
		return;
	if (r->stop.at && !r->ran)
		r->ran = ktime_get();
	if (r->incoming) {
		rdt_record_end(d, RDT_MIG_RESUMED, 0);
	} else if (r->outcome == RDT_MIG_COMPLETED) {
		r->outcome = RDT_MIG_CANCELLED;
		r->ended = ktime_get();
	} else if (!d->logging) {
		/* While the log is read the VMM may stop the VM and go on with both. */
		rdt_record_end(d, RDT_MIG_CANCELLED, 0);
	}
}

void rdt_record_reset(struct rdt_device *d)
{
	if (!d->logging)
		rdt_record_end(d, RDT_MIG_CANCELLED, 0);
}

void rdt_record_close(struct rdt_device *d)
{
	rdt_record_end(d, RDT_MIG_ABANDONED, 0);
	d->record.closed = true;
}

static const char *const outcomes[] = {
	[RDT_MIG_NONE] = "none", [RDT_MIG_RUNNING] = "running", [RDT_MIG_COMPLETED] = "completed",
	[RDT_MIG_CANCELLED] = "cancelled", [RDT_MIG_FAILED] = "failed", [RDT_MIG_RESUMED] = "resumed",
	[RDT_MIG_ABANDONED] = "abandoned",
};

/* From one moment to the first of the others that there was. 0: there was no first one. */
static u64 us(ktime_t from, ktime_t to, ktime_t or, ktime_t now)
{
	return from ? ktime_us_delta(to ?: or ?: now, from) : 0;
}

ssize_t rdt_record_show(struct rdt_device *d, char *buf)
{
	const struct rdt_record *r = &d->record;
	const ktime_t now = ktime_get();
	ssize_t n;

	lockdep_assert_held(&d->lock);
	n = sysfs_emit(buf, "outcome %s\n", outcomes[r->outcome]);
	if (r->outcome == RDT_MIG_NONE)
		return n;
	n += sysfs_emit_at(buf, n, "role %s\nerrno %d\nbegan_ms_ago %llu\nended_ms_ago %llu\n",
			   r->incoming ? "destination" : "source", -r->err, us(r->began, 0, 0, now) / 1000,
			   us(r->ended, 0, 0, now) / 1000);
	if (r->incoming)
		n += sysfs_emit_at(buf, n, "load_us %llu\n", r->load_us);
	else
		n += sysfs_emit_at(buf, n, "armed_ms %llu\narm_commands %llu\narm_us %llu\npages %llu\n"
				   "log_reads %llu\nlog_pages %llu\nstop_commands %llu\nstop_us %llu\n",
				   us(r->armed, r->stop.at, r->ended, now) / 1000, r->arm.commands, r->arm.us, r->pages,
				   r->log_reads, r->log_pages, r->stop.commands, r->stop.us);
	return n + sysfs_emit_at(buf, n, "stopped_us %llu\nbytes %llu\nbytes_done %llu\n",
				 us(r->stop.at, r->ran, r->ended, now), r->bytes, r->bytes_done);
}
