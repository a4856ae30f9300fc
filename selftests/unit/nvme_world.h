// SPDX-License-Identifier: GPL-2.0
/*
 * A machine for the NVMe model: a guest's memory, an NVMe controller made of software that does real
 * queues, real PRPs and real blocks, and the port between. Two controllers may share a disk.
 */
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <redoubt/dma.h>

#include "dma/nvme_spec.h"

using redoubt::u16;
using redoubt::u32;
using redoubt::u64;
using redoubt::u8;

struct NvmeDisk {
	unsigned lba_shift = 9;
	unsigned meta = 0; /* metadata, bytes a block */
	bool extended = false; /* they stand behind each block's data, not at MPTR */
	explicit NvmeDisk(std::size_t bytes = 4 << 20) : data(bytes), metadata(bytes)
	{
	}
	std::vector<u8> data, metadata;
	u8 nguid[16] = {0xd1, 0x5c};
	u64 blocks() const
	{
		return data.size() >> lba_shift;
	}
};

/* A guest's memory, from 0 on. */
struct GuestMemory {
	std::vector<u8> bytes = std::vector<u8>(8 << 20);
	std::set<u64> dirty; /* frames that the port wrote */
};

/* One controller, the model on it, and the host between them. */
class NvmeWorld {
public:
	NvmeWorld(GuestMemory &guest_memory, NvmeDisk &nvme_disk) : memory(guest_memory), disk(nvme_disk)
	{
	}
	~NvmeWorld();

	/* Makes the model; false, and why. */
	bool create();
	void destroy();
	void function_reset(); /* from outside, as the VMM does it */

	/* The controller finishes up to n of its commands, in an order of its own; then interrupts are taken. */
	unsigned work(unsigned n = ~0u);
	void interrupts();

	GuestMemory &memory;
	NvmeDisk &disk;
	rdt_model *model = nullptr;
	const char *why = nullptr;
	std::vector<std::string> log;
	std::vector<u32> signals; /* by vector */
	std::mt19937 rng{1};

	/* Of the controller, to be set before create() */
	u64 cap = 255 | 4ull << 24 | 1ull << 37;
	u32 queues = 64; /* I/O queues it has */
	std::string model_name = "software";
	std::string serial = "one";
	u8 vwc = 0;
	u32 sgls = 0; /* what it can do with SGLs */
	u32 vectors = 65, irqs = 3;
	bool direct = false; /* the model may give the guest's queues to the device */
	bool reorder = true;
	bool instant = true;   /* commands of the admin queue are done at once */
	bool deaf = false;     /* takes no command any more */
	bool gone = false;     /* all registers read as ones */
	bool strict = false;   /* an interrupt only when all that the last one was for has been taken, as told by doorbell */
	bool shows = false;    /* the guest's CPUs can be shown copies of pages */
	unsigned fail_show_in = 0;
	bool slow = false;     /* I/O commands are done by work() only, not when somebody waits */

	std::map<u64, std::vector<u8>> seen; /* by address: what the CPUs have in place of a page */
	u64 shown = 0, hidden_twice = 0;
	std::size_t seen_at_write = 0; /* how many, when the port wrote to guest memory last */

	/* What it has done */
	u64 faults = 0;	 /* addresses that are nowhere */
	u64 trespass = 0; /* data to where its rings are */
	u64 io_commands = 0, flushes = 0;
	u64 window_asks = 0; /* the model takes an address of private memory for the guest's */
	u64 private_data = 0; /* accesses to private memory for an I/O command's data */
	std::map<u32, u32> features;
	struct Route {
		bool guest, model;
	};
	std::map<u32, Route> routes;
	unsigned pending() const;
	bool is_direct(u16 qid) const; /* a queue in the guest's memory */
	void notice(u32 dw0); /* an asynchronous event */
	unsigned aers() const
	{
		return static_cast<unsigned>(aer_.size());
	}
	u64 private_bytes() const;

	static constexpr u64 window = 1ull << 40, window_bytes = 64 << 20;

	/* the port */
	u32 reg_read(u32 off);
	void reg_write(u32 off, u32 v);
	void *pages_alloc(u32 pages, bool writes, u64 *iova);
	void pages_free(void *va, u64 iova, u32 pages);
	void pause();
	u64 ms = 0;
	bool wants_later = false;
	bool later(); /* the model is called, if it has asked */
	unsigned fail_alloc_in = 0; /* the n-th allocation from now on fails */
	bool may_alloc();

private:
	struct Ring {
		u64 base = 0;
		u32 size = 0;
		u16 head = 0, tail = 0, cq = 0, vector = 0;
		u16 phase = 1;
		bool ien = true;
	};
	struct Command {
		u16 qid;
		redoubt::dma::nvme::Sqe e;
	};
	u8 *bus(u64 iova, u64 len, bool write = false); /* nullptr: nothing there, or not to be written */
	bool dma(u64 iova, void *buf, u64 len, bool to_memory);
	u16 transfer(const redoubt::dma::nvme::Sqe &e, u8 *buf, u64 len, bool to_memory);
	u16 transfer_sgl(const redoubt::dma::nvme::Sqe &e, u8 *buf, u64 len, bool to_memory);
	u16 transfer_blocks(const redoubt::dma::nvme::Sqe &e, u8 *data, u8 *meta, u64 blocks, bool to_memory);
	u16 execute(u16 qid, const redoubt::dma::nvme::Sqe &e, u32 &dw0);
	u16 admin(const redoubt::dma::nvme::Sqe &e, u32 &dw0);
	u16 io(const redoubt::dma::nvme::Sqe &e);
	void fetch(u16 qid);
	bool is_full(u16 sqid);
	void finish(const Command &c, u16 status, u32 dw0);
	void reset_queues();

	bool in_io_ = false, in_guests_ = false; /* the command under way is of an I/O queue, in the guest's memory */
	u32 cc_ = 0, csts_ = 0, aqa_ = 0;
	u64 asq_ = 0, acq_ = 0;
	std::map<u16, Ring> sq_, cq_;
	std::vector<Command> todo_;
	std::deque<Command> aer_;
	std::set<u32> raised_;
	std::map<u64, std::unique_ptr<std::vector<u8>>> private_; /* by bus address */
	std::set<u64> read_only_;
	u64 next_iova_ = window;
};

/* The driver in the guest: as little as a driver can be. */
inline constexpr unsigned way_direct = 1, way_shadow = 2, way_armed = 4, way_shows = 8; /* tests' parameter */

class NvmeGuest {
public:
	using Sqe = redoubt::dma::nvme::Sqe;
	using Cqe = redoubt::dma::nvme::Cqe;

	NvmeGuest(GuestMemory &guest_memory, NvmeWorld &first) : memory(guest_memory), w(&first)
	{
	}
	bool shadow = false;	/* it uses doorbell buffers, from make_queues() on */
	bool polled = false;	/* its I/O queues have no interrupts */
	unsigned rings = 0;	/* doorbells that it has rung */

	GuestMemory &memory;
	NvmeWorld *w; /* where it runs */

	u64 page(unsigned n = 1); /* fresh guest memory */
	void forget();		  /* all of it is fresh again */
	u64 read(u32 off, u32 len = 8);
	void write(u32 off, u64 v, u32 len = 4);
	bool enable(u32 entries = 32);
	void disable();

	struct Queue {
		u16 id = 0;
		u64 sq = 0, cq = 0;
		u32 size = 0, cq_size = 0;
		u16 tail = 0, head = 0, phase = 1;
		u16 sq_head = 0; /* as the completions say */
	};
	/* Puts a command into a queue; the doorbell is another step. */
	void put(Queue &q, const Sqe &e);
	void ring(Queue &q);
	/* The next completion, if there is one; the doorbell is another step. */
	bool next(Queue &q, Cqe &out);
	void ack(Queue &q);
	/* One admin command, to its end. The status. */
	u16 admin_command(Sqe e, u32 *dw0 = nullptr);
	/* One command of io[q], to its end. The status; or 0xffff: there is none, 0xfffe: of another command. */
	u16 io_command(unsigned q, const Sqe &e);
	/* Set Features 7, and queues of so many entries each; 0: the completion queue's likewise. */
	bool make_queues(unsigned n, u32 entries = 64, u32 cq_entries = 0);

	Queue admin;
	std::vector<Queue> io;

private:
	void doorbell(const Queue &q, bool completion, u16 value);

	static constexpr u64 first_page = 0x10000;
	u64 shadow_page_ = 0, event_page_ = 0;
	u64 next_page_ = first_page;
	u16 cid_ = 0;
};
