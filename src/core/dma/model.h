// SPDX-License-Identifier: GPL-2.0
/*
 * What a device model is: see Documentation/dma-models.md for how to write one, and
 * include/redoubt/dma.h for what each function means to the driver.
 */
#pragma once

#include <redoubt/dma.h>
#include <redoubt/types.h>

namespace redoubt::dma {

class Model : Pinned {
public:
	virtual u64 read(u64 off, u32 len) = 0;
	virtual void write(u64 off, u32 len, u64 value) = 0;
	virtual u32 doorbells(u64 &off) = 0;
	virtual void interrupt(u32 vector) = 0;
	virtual void unshow() = 0;
	virtual void later() = 0;
	virtual void reset() = 0;
	/* 0 or -errno */
	virtual int stop() = 0;
	virtual int run(bool still) = 0;
	virtual u64 state_max() = 0;
	virtual s64 save(void *buf, u64 room) = 0;
	virtual int load(const void *buf, u64 len) = 0;
	virtual void arm(bool on) = 0;
	virtual const char *blocker() = 0;
	[[nodiscard]] virtual rdt_model_stats stats() const = 0;
	/* Gives all memory back, its own too. */
	virtual void destroy() = 0;

protected:
	constexpr Model() = default;
	~Model() = default;
};

/* errno values, which a freestanding compiler does not bring along */
enum : int {
	err_inval = -22,
	err_xdev = -18,
	err_proto = -71,
	err_timedout = -110,
	err_io = -5,
	err_nomem = -12,
	err_nospc = -28,
};

} // namespace redoubt::dma
