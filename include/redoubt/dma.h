/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The boundary between a device's model (src/core/dma, C++, decides) and the driver that
 * has the device (src/vfio, C, carries out). Plain C, as in port.h; Documentation/dma-models.md.
 *
 * A model stands between a guest and a device that was passed through to it: the guest's
 * registers and rings are the model's, the device's rings are in private memory. What the guest
 * wrote is copied before it is looked at, and goes on to the device only when it is found good.
 *
 * All functions are called with the device's lock held, in a context that may sleep.
 */
#ifndef REDOUBT_DMA_H
#define REDOUBT_DMA_H

#include "port.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what a model asks of its driver: @host is the cookie given to rdt_model_create() ---- */

/* Zeroed memory of the kernel's. NULL: none. */
void *rdt_dma_alloc(unsigned long bytes);
void rdt_dma_free(void *p);

/*
 * The guest's memory at a bus address. 0, or -1: not all of it is memory, and some of it may have been
 * copied. What is written is dirty to a migration.
 */
int rdt_dma_read(void *host, rdt_u64 iova, void *to, rdt_u32 len);
int rdt_dma_write(void *host, rdt_u64 iova, const void *from, rdt_u32 len);

/*
 * The other assignment of the two buffers: the guest's CPUs see a copy of the page at @iova as it is now, and the page itself is
 * the device's until rdt_dma_hide(). Only for a page that nobody but the device writes meanwhile: what the guest writes to its copy
 * is lost, and what the VMM reads is the device's. 0, or -1: not here, not now, or not such a page.
 */
int rdt_dma_show(void *host, rdt_u64 iova);
/* The CPUs see the page again. It was shown, since then once. */
void rdt_dma_hide(void *host, rdt_u64 iova);
/* The device has written the page: it is dirty to a migration. 0, or -1: it is no memory. */
int rdt_dma_touch(void *host, rdt_u64 iova);

/* The device's own registers (BAR 0), offset and width aligned; the width is 4. */
rdt_u32 rdt_dma_reg_read(void *host, rdt_u32 off);
void rdt_dma_reg_write(void *host, rdt_u32 off, rdt_u32 value);

/*
 * Private memory: the device reaches it at *iova, in the window of struct rdt_dma_info, and the
 * guest does not. Whole pages, zeroed, one range for both. @writes: the device may write there, too: it
 * is kept from the rest, as a guest with direct queues could tell it to. NULL: none.
 */
void *rdt_dma_pages_alloc(void *host, rdt_u32 pages, int writes, rdt_u64 *iova);
void rdt_dma_pages_free(void *host, void *va, rdt_u64 iova, rdt_u32 pages);

/* The guest's interrupt. Nothing happens for a vector that it has not set up. */
void rdt_dma_signal(void *host, rdt_u32 vector);

/*
 * Whose the device's interrupt of a vector is: the guest's vector of that number is signalled, the model is called, or
 * both. Before the first call it is the model's.
 */
void rdt_dma_route(void *host, rdt_u32 vector, int to_guest, int to_model);

/* For a loop that waits for the device: sleep a moment. And time that goes on, in ms. */
void rdt_dma_pause(void *host);
rdt_u64 rdt_dma_ms(void *host);

/* Asks for rdt_model_later(), in some ms. While that is still to come, asking again is nothing. */
void rdt_dma_later(void *host);

/* One rate-limited line to the host's log, with the device named. */
void rdt_dma_log(void *host, const char *what, rdt_u64 a, rdt_u64 b);

/* ---- what the driver asks of a model ------------------------------------------------------ */

/**
 * struct rdt_dma_info - a device, when its model is made.
 * @class_code: of its configuration space, 24 bits.
 * @vendor, @device: likewise.
 * @vectors: interrupts that the guest may have. @irqs: those of the device that the driver has taken, 1 at least;
 *	they are numbered from 0 likewise.
 * @direct: the device may be given queues in the guest's memory, and addresses that nobody has checked: as
 *	with any passthrough, the IOMMU is what keeps it to the guest's memory and the window.
 * @shows: rdt_dma_show() is to be tried.
 * @bar_bytes: size of BAR 0.
 * @window, @window_bytes: bus addresses of private memory; the guest's end below them or are above.
 */
struct rdt_dma_info {
	rdt_u32 class_code;
	rdt_u16 vendor;
	rdt_u16 device;
	rdt_u32 vectors;
	rdt_u32 irqs;
	rdt_u32 direct;
	rdt_u32 shows;
	rdt_u64 bar_bytes;
	rdt_u64 window;
	rdt_u64 window_bytes;
};

struct rdt_model;

/*
 * rdt_model_create - the model for such a device; *why is set when there is none (or no memory): what
 * stands against it, for the operator. The device is not touched but read.
 */
struct rdt_model *rdt_model_create(void *host, const struct rdt_dma_info *info, const char **why) RDT_NOEXCEPT;
/* The device is at rest (it was reset, or its bus mastering is off): private memory is given back. */
void rdt_model_destroy(struct rdt_model *m) RDT_NOEXCEPT;

/* The guest's accesses to BAR 0: @len 1, 2, 4 or 8, within the BAR, not over a multiple of 8. */
rdt_u64 rdt_model_read(struct rdt_model *m, rdt_u64 off, rdt_u32 len) RDT_NOEXCEPT;
void rdt_model_write(struct rdt_model *m, rdt_u64 off, rdt_u32 len, rdt_u64 value) RDT_NOEXCEPT;
/*
 * rdt_model_doorbells - where in BAR 0 the guest writes with each command: @off, and how many bytes (0: nowhere). Such
 * writes of 4 bytes may come straight from a vCPU.
 */
rdt_u32 rdt_model_doorbells(struct rdt_model *m, rdt_u64 *off) RDT_NOEXCEPT;
/* The guest has taken bus mastering from its device: no copy of a page is shown any more. */
void rdt_model_unshow(struct rdt_model *m) RDT_NOEXCEPT;
/* The device has raised a vector. */
void rdt_model_interrupt(struct rdt_model *m, rdt_u32 vector) RDT_NOEXCEPT;
/* As asked for by rdt_dma_later(). */
void rdt_model_later(struct rdt_model *m) RDT_NOEXCEPT;
/* The device was reset from outside (FLR): the model begins anew. */
void rdt_model_reset(struct rdt_model *m) RDT_NOEXCEPT;

/**
 * rdt_model_stop - take no more work, wait for what is under way. 0, or -errno: -ETIMEDOUT, and
 * the device goes on. When it returns 0 nothing will write to guest memory until rdt_model_run().
 */
int rdt_model_stop(struct rdt_model *m) RDT_NOEXCEPT;
/**
 * rdt_model_run - go on: after rdt_model_stop(), or after rdt_model_load() on the device it was loaded for. 0 or -errno.
 * @still: the guest's CPUs do not run yet: the model may use memory of its rings for a moment, and puts back what was there.
 */
int rdt_model_run(struct rdt_model *m, int still) RDT_NOEXCEPT;

/* While it is stopped. How large the state is at most; and the state: its length, or -errno. */
rdt_u64 rdt_model_state_max(struct rdt_model *m) RDT_NOEXCEPT;
rdt_s64 rdt_model_save(struct rdt_model *m, void *buf, rdt_u64 room) RDT_NOEXCEPT;
/*
 * rdt_model_load - take over a state; @buf is another host's: not trusted. The model is stopped after it. -EINVAL:
 * it is none; -EPROTO: of another kind of device; -EXDEV: this device cannot take the place of that one. Each has
 * said in the log what differs.
 */
int rdt_model_load(struct rdt_model *m, const void *buf, rdt_u64 len) RDT_NOEXCEPT;

/* While a migration runs, data go through private memory as well. */
void rdt_model_arm(struct rdt_model *m, int on) RDT_NOEXCEPT;

/**
 * struct rdt_model_stats - since the model was made.
 * @commands: taken from the guest. @bounced: pages copied; @shown: pages of which the
 * guest's CPUs had the copy. @refused: commands and doorbells that
 * were answered with an error by the model, not the device.
 * @drained: commands that the device had when it was stopped last.
 * @inflight: of the commands, those that the device has now by the model. @queues: submission queues that the guest has;
 * @direct: of them, those that the device has itself.
 */
struct rdt_model_stats {
	rdt_u64 commands;
	rdt_u64 bounced;
	rdt_u64 shown;
	rdt_u64 refused;
	rdt_u64 drained;
	rdt_u32 inflight;
	rdt_u32 queues;
	rdt_u32 direct;
};
void rdt_model_get_stats(struct rdt_model *m, struct rdt_model_stats *out) RDT_NOEXCEPT;
/* NULL: it could migrate now. Else what stands against it. */
const char *rdt_model_blocker(struct rdt_model *m) RDT_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
