// SPDX-License-Identifier: GPL-2.0
#include "nvme_world.h"

#include <algorithm>
#include <cstdlib>

#include <redoubt/types.h>

using namespace redoubt::dma::nvme;

namespace {

constexpr u64 page_bytes = 4096;

} // namespace

/* ---- the port ---------------------------------------------------------------------------- */

static NvmeWorld *the_world; /* whose allocations fail, for the functions that have no cookie */

void *rdt_dma_alloc(unsigned long bytes)
{
	return the_world && !the_world->may_alloc() ? nullptr : std::calloc(1, bytes);
}

void rdt_dma_free(void *p)
{
	std::free(p);
}

int rdt_dma_read(void *host, rdt_u64 iova, void *to, rdt_u32 len)
{
	auto *w = static_cast<NvmeWorld *>(host);

	w->window_asks += iova < NvmeWorld::window + NvmeWorld::window_bytes && NvmeWorld::window < iova + len;
	if (iova + len < iova || iova + len > w->memory.bytes.size())
		return -1;
	std::memcpy(to, w->memory.bytes.data() + iova, len);
	return 0;
}

int rdt_dma_write(void *host, rdt_u64 iova, const void *from, rdt_u32 len)
{
	auto *w = static_cast<NvmeWorld *>(host);

	w->window_asks += iova < NvmeWorld::window + NvmeWorld::window_bytes && NvmeWorld::window < iova + len;
	if (iova + len < iova || iova + len > w->memory.bytes.size())
		return -1;
	std::memcpy(w->memory.bytes.data() + iova, from, len);
	w->seen_at_write = w->seen.size();
	for (u64 at = iova / page_bytes; at <= (iova + len - 1) / page_bytes; at++)
		w->memory.dirty.insert(at);
	return 0;
}

int rdt_dma_show(void *host, rdt_u64 iova)
{
	auto *w = static_cast<NvmeWorld *>(host);
	std::vector<u8> page(page_bytes);

	if (!w->shows || w->seen.contains(iova) || (w->fail_show_in != 0 && --w->fail_show_in == 0) ||
	    rdt_dma_read(host, iova, page.data(), page_bytes) != 0)
		return -1;
	w->seen[iova] = page;
	w->shown++;
	return 0;
}

void rdt_dma_hide(void *host, rdt_u64 iova)
{
	auto *w = static_cast<NvmeWorld *>(host);

	w->hidden_twice += w->seen.erase(iova) == 0;
}

int rdt_dma_touch(void *host, rdt_u64 iova)
{
	u8 byte = 0;

	return rdt_dma_read(host, iova, &byte, 1) ?: rdt_dma_write(host, iova, &byte, 1);
}

rdt_u32 rdt_dma_reg_read(void *host, rdt_u32 off)
{
	return static_cast<NvmeWorld *>(host)->reg_read(off);
}

void rdt_dma_reg_write(void *host, rdt_u32 off, rdt_u32 value)
{
	static_cast<NvmeWorld *>(host)->reg_write(off, value);
}

void *rdt_dma_pages_alloc(void *host, rdt_u32 pages, int writes, rdt_u64 *iova)
{
	return static_cast<NvmeWorld *>(host)->pages_alloc(pages, writes != 0, iova);
}

void rdt_dma_pages_free(void *host, void *va, rdt_u64 iova, rdt_u32 pages)
{
	static_cast<NvmeWorld *>(host)->pages_free(va, iova, pages);
}

void rdt_dma_signal(void *host, rdt_u32 vector)
{
	static_cast<NvmeWorld *>(host)->signals.push_back(vector);
}

void rdt_dma_route(void *host, rdt_u32 vector, int to_guest, int to_model)
{
	static_cast<NvmeWorld *>(host)->routes[vector] = {to_guest != 0, to_model != 0};
}

void rdt_dma_pause(void *host)
{
	static_cast<NvmeWorld *>(host)->pause();
}

void rdt_dma_later(void *host)
{
	static_cast<NvmeWorld *>(host)->wants_later = true;
}

rdt_u64 rdt_dma_ms(void *host)
{
	return static_cast<NvmeWorld *>(host)->ms;
}

void rdt_dma_log(void *host, const char *what, rdt_u64, rdt_u64)
{
	static_cast<NvmeWorld *>(host)->log.emplace_back(what);
}

/* ---- the host and the controller --------------------------------------------------------- */

NvmeWorld::~NvmeWorld()
{
	destroy();
	if (the_world == this)
		the_world = nullptr;
}

bool NvmeWorld::create()
{
	rdt_dma_info info = {};

	the_world = this;
	info.class_code = 0x010802;
	info.vectors = vectors;
	info.irqs = irqs;
	info.direct = direct;
	info.shows = shows;
	info.bar_bytes = 16384;
	info.window = window;
	info.window_bytes = window_bytes;
	model = rdt_model_create(this, &info, &why);
	return model != nullptr;
}

void NvmeWorld::destroy()
{
	if (model)
		rdt_model_destroy(model);
	model = nullptr;
}

void NvmeWorld::function_reset()
{
	reset_queues();
	cc_ = csts_ = aqa_ = 0;
	rdt_model_reset(model);
}

bool NvmeWorld::may_alloc()
{
	return fail_alloc_in == 0 || --fail_alloc_in != 0;
}

u64 NvmeWorld::private_bytes() const
{
	u64 n = 0;

	for (const auto &[iova, bytes] : private_)
		n += bytes->size();
	return n;
}

void *NvmeWorld::pages_alloc(u32 pages, bool writes, u64 *iova)
{
	if (!may_alloc())
		return nullptr;
	auto room = std::make_unique<std::vector<u8>>(pages * page_bytes);
	void *va = room->data();

	*iova = next_iova_;
	private_[next_iova_] = std::move(room);
	if (!writes)
		read_only_.insert(next_iova_);
	/* A page of nothing behind each range, and never the same address twice: a stale one is found. */
	next_iova_ += (pages + 1) * page_bytes;
	return va;
}

void NvmeWorld::pages_free(void *va, u64 iova, u32 pages)
{
	auto it = private_.find(iova);

	if (it == private_.end() || it->second->data() != va || it->second->size() != pages * page_bytes)
		std::abort();
	read_only_.erase(iova);
	private_.erase(it);
}

void NvmeWorld::pause()
{
	ms++;
	/* What takes its time is done when somebody waits. */
	if (!deaf && !slow)
		work(1 + rng() % 4);
}

u32 NvmeWorld::reg_read(u32 off)
{
	if (gone)
		return ~0u;
	switch (off) {
	case reg_cap:
		return static_cast<u32>(cap);
	case reg_cap + 4:
		return static_cast<u32>(cap >> 32);
	case reg_vs:
		return 0x10400;
	case reg_cc:
		return cc_;
	case reg_csts:
		return csts_;
	default:
		return 0;
	}
}

void NvmeWorld::reset_queues()
{
	sq_.clear();
	cq_.clear();
	todo_.clear();
	aer_.clear();
	raised_.clear();
	features.clear();
}

void NvmeWorld::reg_write(u32 off, u32 v)
{
	if (off == reg_cc) {
		if ((v & 1) && !(cc_ & 1)) {
			if ((v >> 16 & 15) != 6 || (v >> 20 & 15) != 4)
				std::abort();
			reset_queues();
			sq_[0] = {.base = asq_, .size = (aqa_ & 0xfff) + 1};
			cq_[0] = {.base = acq_, .size = (aqa_ >> 16) + 1};
			csts_ = 1;
		} else if (!(v & 1)) {
			reset_queues();
			csts_ = 0;
		}
		if ((v >> 14 & 3) != 0)
			csts_ |= csts_shst_done;
		cc_ = v;
	} else if (off == reg_aqa) {
		aqa_ = v;
	} else if (off == reg_asq) {
		asq_ = (asq_ & ~0xffffffffull) | v;
	} else if (off == reg_asq + 4) {
		asq_ = (asq_ & 0xffffffff) | static_cast<u64>(v) << 32;
	} else if (off == reg_acq) {
		acq_ = (acq_ & ~0xffffffffull) | v;
	} else if (off == reg_acq + 4) {
		acq_ = (acq_ & 0xffffffff) | static_cast<u64>(v) << 32;
	} else if (off >= reg_doorbells) {
		const u32 index = (off - reg_doorbells) / (4u << cap_dstrd(cap));
		const u16 qid = static_cast<u16>(index / 2);

		/* The model is the only driver: it makes no mistakes with doorbells. */
		if (index % 2 == 0) {
			if (!sq_.count(qid) || v >= sq_[qid].size)
				std::abort();
			sq_[qid].tail = static_cast<u16>(v);
			fetch(qid);
		} else if (cq_.count(qid)) {
			if (v >= cq_[qid].size)
				std::abort();
			cq_[qid].head = static_cast<u16>(v);
			if (strict && cq_[qid].ien && v != cq_[qid].tail)
				raised_.insert(cq_[qid].vector);
		}
	}
}

u8 *NvmeWorld::bus(u64 iova, u64 len, bool write)
{
	if (len <= memory.bytes.size() && iova <= memory.bytes.size() - len)
		return memory.bytes.data() + iova;
	auto it = private_.upper_bound(iova);

	if (it == private_.begin())
		return nullptr;
	--it;
	if (iova - it->first + len > it->second->size() || (write && read_only_.count(it->first)))
		return nullptr;
	return it->second->data() + (iova - it->first);
}

bool NvmeWorld::dma(u64 iova, void *buf, u64 len, bool to_memory)
{
	u8 *p = bus(iova, len, to_memory);

	if (!p) {
		faults++;
		return false;
	}
	private_data += in_io_ && !in_guests_ && iova >= window;
	const auto in = [&](const Ring &r, u64 bytes) { return iova < r.base + r.size * bytes && r.base < iova + len; };

	for (const auto &[id, r] : sq_)
		trespass += r.base >= window && in(r, 64) && !in_guests_;
	for (const auto &[id, r] : cq_)
		trespass += r.base >= window && in(r, 16) && !in_guests_;
	if (to_memory)
		std::memcpy(p, buf, len);
	else
		std::memcpy(buf, p, len);
	return true;
}

/* As the specification has it; written apart from the model's own walk. All is looked at before any byte moves. */
u16 NvmeWorld::transfer_sgl(const Sqe &e, u8 *buf, u64 len, bool to_memory)
{
	struct Part {
		u64 at, n;
		bool bucket;
	};
	std::vector<Part> parts;
	std::vector<Sgl> segment(1);
	u64 left = len;
	bool first = true, is_last = false;

	const u64 dptr[] = {e.prp1, e.prp2};

	std::memcpy(segment.data(), dptr, 16);
	for (unsigned turns = 0; !segment.empty(); turns++) {
		std::vector<Sgl> next;
		bool next_last = false;

		if (turns == 5000)
			return sc_sgl_count;
		for (std::size_t i = 0; i < segment.size(); i++) {
			const Sgl d = segment[i];
			const int type = d.id >> 4;

			if ((d.id & 15) != 0 || type > 3 || (type == 1 && !(sgls & sgls_bit_bucket)))
				return sc_sgl_type;
			if (type >= 2) {
				if (is_last)
					return sc_sgl_segment;
				if (!first && i + 1 != segment.size())
					return sc_sgl_count;
				if (d.len == 0 || d.len % 16 || d.addr % 8)
					return sc_sgl_segment;
				if (d.len > 16 * 2048) /* more than that it does not want to know */
					return sc_sgl_count;
				u8 *p = bus(d.addr, d.len);

				if (!p)
					return sc_transfer_error;
				next.resize(d.len / 16);
				std::memcpy(next.data(), p, d.len);
				next_last = type == 3;
				continue;
			}
			if (type == 0 && (sgls & sgls_support) == sgls_dwords && (d.addr | d.len) % 4)
				return sc_sgl_granularity;
			if (type == 1 && !to_memory)
				continue;
			const u64 n = std::min<u64>(d.len, left);

			if (n != d.len && !(sgls & sgls_longer))
				return sc_sgl_length;
			if (n != 0)
				parts.push_back({d.addr, n, type == 1});
			left -= n;
		}
		segment = next;
		is_last = next_last;
		first = false;
	}
	if (left != 0)
		return sc_sgl_length;
	for (const Part &p : parts) {
		if (!p.bucket && !dma(p.at, buf, p.n, to_memory))
			return sc_transfer_error;
		buf += p.n;
	}
	return 0;
}

/* By PRPs, likewise. */
u16 NvmeWorld::transfer(const Sqe &e, u8 *buf, u64 len, bool to_memory)
{
	if (e.flags != 0) {
		if (!in_guests_)
			std::abort(); /* the model makes PRPs of all */
		if (!in_io_ || e.flags != sqe_sgl || (sgls & sgls_support) == sgls_none)
			return sc_invalid_field;
		return transfer_sgl(e, buf, len, to_memory);
	}
	u64 at = e.prp1, done = 0, list = 0;
	unsigned left_in_list = 0;

	for (;;) {
		const u64 n = std::min(len - done, page_bytes - at % page_bytes);

		if (!dma(at, buf + done, n, to_memory))
			return sc_transfer_error;
		done += n;
		if (done == len)
			return 0;
		if (list == 0) {
			if (len - done <= page_bytes) {
				at = e.prp2;
				if (at % page_bytes)
					return sc_invalid_prp_offset;
				continue;
			}
			list = e.prp2;
			left_in_list = static_cast<unsigned>((page_bytes - list % page_bytes) / 8);
		}
		u8 *p = bus(list, 8);

		if (!p)
			return faults++, static_cast<u16>(sc_transfer_error);
		std::memcpy(&at, p, 8);
		if (left_in_list == 1 && len - done > page_bytes) {
			list = at;
			left_in_list = 512;
			p = bus(list, 8);
			if (!p)
				return faults++, static_cast<u16>(sc_transfer_error);
			std::memcpy(&at, p, 8);
		}
		list += 8;
		left_in_list--;
		if (at % page_bytes)
			return sc_invalid_prp_offset;
	}
}

void NvmeWorld::fetch(u16 qid)
{
	Ring &q = sq_[qid];

	while (q.head != q.tail) {
		u8 *p = bus(q.base + q.head * 64u, 64);

		if (!p) {
			if (q.base >= window)
				std::abort();
			faults++; /* the guest's own ring */
			q.head = q.tail;
			return;
		}
		Command c = {qid, {}};

		std::memcpy(&c.e, p, 64);
		q.head = static_cast<u16>((q.head + 1) % q.size);
		for (const Command &other : todo_) {
			if (q.base >= window && other.qid == qid && other.e.cid == c.e.cid)
				std::abort(); /* two of one number */
		}
		if (qid == 0 && c.e.opcode == adm_async_event)
			aer_.push_back(c);
		else
			todo_.push_back(c);
	}
	if (qid == 0 && instant && !deaf) {
		for (unsigned i = 0; i < todo_.size();) {
			if (todo_[i].qid != 0) {
				i++;
				continue;
			}
			const Command c = todo_[i];
			u32 dw0 = 0;

			todo_.erase(todo_.begin() + i);
			const u16 status = execute(0, c.e, dw0);

			finish(c, status, dw0);
		}
	}
}

bool NvmeWorld::later()
{
	if (!wants_later)
		return false;
	wants_later = false;
	rdt_model_later(model);
	return true;
}

bool NvmeWorld::is_direct(u16 qid) const
{
	const auto it = sq_.find(qid);

	return it != sq_.end() && it->second.base < window;
}

unsigned NvmeWorld::pending() const
{
	return static_cast<unsigned>(todo_.size());
}

bool NvmeWorld::is_full(u16 sqid)
{
	const Ring &q = cq_[sq_[sqid].cq];

	/* Of private ones finish() says that it must not be. */
	return q.base < window && (q.tail + 1u) % q.size == q.head;
}

unsigned NvmeWorld::work(unsigned n)
{
	unsigned done = 0;

	for (; done < n && !todo_.empty(); done++) {
		unsigned i = reorder ? static_cast<unsigned>(rng() % todo_.size()) : 0, tried = 0;

		/* One whose completion queue is full has to wait. */
		while (is_full(todo_[i].qid) && tried++ < todo_.size())
			i = (i + 1) % static_cast<unsigned>(todo_.size());
		if (is_full(todo_[i].qid))
			break;
		const Command c = todo_[i];
		u32 dw0 = 0;

		todo_.erase(todo_.begin() + i);
		const u16 status = execute(c.qid, c.e, dw0);

		finish(c, status, dw0);
	}
	return done;
}

void NvmeWorld::interrupts()
{
	while (!raised_.empty()) {
		const u32 v = *raised_.begin();

		raised_.erase(v);
		const Route r = routes.count(v) ? routes[v] : Route{false, true};

		if (r.guest)
			signals.push_back(v);
		if (r.model && model)
			rdt_model_interrupt(model, v);
	}
}

void NvmeWorld::notice(u32 dw0)
{
	if (aer_.empty())
		return;
	const Command c = aer_.front();

	aer_.pop_front();
	finish(c, 0, dw0);
}

void NvmeWorld::finish(const Command &c, u16 status, u32 dw0)
{
	if (!sq_.count(c.qid))
		return;
	const Ring &s = sq_[c.qid];
	Ring &q = cq_[s.cq];

	if ((q.tail + 1u) % q.size == q.head) {
		if (q.base >= window)
			std::abort(); /* the model has let the ring run over */
		return;		      /* the guest has */
	}
	if (q.base < window && (csts_ & csts_shst))
		return;
	const bool quiet = strict && q.tail != q.head;
	const Cqe e = {dw0, 0, s.head, c.qid, c.e.cid, static_cast<u16>(status << 1 | q.phase)};

	if (u8 *p = bus(q.base + q.tail * 16u, 16, true))
		std::memcpy(p, &e, 16);
	else
		faults++;
	q.tail = static_cast<u16>((q.tail + 1) % q.size);
	if (q.tail == 0)
		q.phase ^= 1;
	if (q.ien && !quiet)
		raised_.insert(q.vector);
}

u16 NvmeWorld::execute(u16 qid, const Sqe &e, u32 &dw0)
{
	in_io_ = qid != 0;
	in_guests_ = sq_[qid].base < window && in_io_;
	return qid == 0 ? admin(e, dw0) : io(e);
}

u16 NvmeWorld::admin(const Sqe &e, u32 &dw0)
{
	const u16 qid = e.cdw10 & 0xffff;
	u8 page[page_bytes] = {};

	switch (e.opcode) {
	case adm_create_cq:
		if (qid == 0 || qid > queues || cq_.count(qid) || !(e.cdw11 & 1))
			return sc_invalid_qid;
		cq_[qid] = {.base = e.prp1, .size = (e.cdw10 >> 16) + 1, .vector = static_cast<u16>(e.cdw11 >> 16),
			    .ien = !!(e.cdw11 & 2)};
		return 0;
	case adm_create_sq:
		if (qid == 0 || qid > queues || sq_.count(qid) || !cq_.count(static_cast<u16>(e.cdw11 >> 16)))
			return sc_invalid_qid;
		sq_[qid] = {.base = e.prp1, .size = (e.cdw10 >> 16) + 1, .cq = static_cast<u16>(e.cdw11 >> 16)};
		return 0;
	case adm_delete_sq:
		if (!sq_.count(qid))
			return sc_invalid_qid;
		for (unsigned i = 0; i < todo_.size();) {
			if (todo_[i].qid == qid) {
				finish(todo_[i], 0x008, 0); /* aborted, the queue is deleted */
				todo_.erase(todo_.begin() + i);
			} else {
				i++;
			}
		}
		sq_.erase(qid);
		return 0;
	case adm_delete_cq:
		if (!cq_.erase(qid))
			return sc_invalid_qid;
		return 0;
	case adm_set_features:
		features[e.cdw10 & 0xff] = e.cdw11;
		if ((e.cdw10 & 0xff) == feat_queues)
			dw0 = (queues - 1) | (queues - 1) << 16;
		return 0;
	case adm_get_features:
		dw0 = (e.cdw10 & 0xff) == feat_queues ? (queues - 1) | (queues - 1) << 16 : features[e.cdw10 & 0xff];
		return 0;
	case adm_get_log: {
		std::vector<u8> log_page(((e.cdw10 >> 16) + 1) * 4, 0x1c);

		return transfer(e, log_page.data(), log_page.size(), true);
	}
	case adm_identify:
		if ((e.cdw10 & 0xff) == cns_ctrl) {
			std::memset(page, 0xff, page_bytes);
			std::memset(page + idc_serial, ' ', 60);
			std::memcpy(page + idc_serial, serial.data(), serial.size());
			std::memcpy(page + idc_model, model_name.data(), model_name.size());
			page[idc_vwc] = vwc;
			page[idc_aerl] = 3;
			std::memcpy(page + idc_sgls, &sgls, 4);
		} else if ((e.cdw10 & 0xff) == cns_ns) {
			if (e.nsid != 1)
				return transfer(e, page, page_bytes, true);
			const u64 n = disk.blocks();

			std::memcpy(page + idn_nsze, &n, 8);
			std::memcpy(page + idn_nguid, disk.nguid, 16);
			page[idn_flbas] = disk.extended ? 16 : 0;
			page[idn_lbaf] = static_cast<u8>(disk.meta);
			page[idn_lbaf + 2] = static_cast<u8>(disk.lba_shift);
		} else if ((e.cdw10 & 0xff) == cns_active_ns) {
			page[0] = e.nsid < 1;
		}
		return transfer(e, page, page_bytes, true);
	default:
		std::abort(); /* the model has let something through */
	}
}

/* Data, and metadata if there are. */
u16 NvmeWorld::transfer_blocks(const Sqe &e, u8 *data, u8 *meta, u64 blocks, bool to_memory)
{
	const u64 block = 1ull << disk.lba_shift;

	if (!disk.extended) {
		const u16 status = transfer(e, data, blocks * block, to_memory);

		return status == 0 && disk.meta && !dma(e.mptr, meta, blocks * disk.meta, to_memory) ?
			       static_cast<u16>(sc_transfer_error) : status;
	}
	std::vector<u8> mixed;

	for (u64 i = 0; i < blocks; i++) {
		mixed.insert(mixed.end(), data + i * block, data + (i + 1) * block);
		mixed.insert(mixed.end(), meta + i * disk.meta, meta + (i + 1) * disk.meta);
	}
	const u16 status = transfer(e, mixed.data(), mixed.size(), to_memory);

	for (u64 i = 0; i < blocks && status == 0; i++) {
		const u8 *from = mixed.data() + i * (block + disk.meta);

		std::memcpy(data + i * block, from, block);
		std::memcpy(meta + i * disk.meta, from + block, disk.meta);
	}
	return status;
}

u16 NvmeWorld::io(const Sqe &e)
{
	const u64 lba = e.cdw10 | static_cast<u64>(e.cdw11) << 32;
	const u64 blocks = (e.cdw12 & 0xffff) + 1, len = blocks << disk.lba_shift;
	u8 *at = disk.data.data() + (lba << disk.lba_shift);
	u8 *meta = disk.metadata.data() + lba * disk.meta;
	u16 status = 0;

	if (e.opcode == nvm_flush)
		return flushes++, static_cast<u16>(0);
	io_commands++;
	if (e.nsid != 1)
		return sc_invalid_ns;
	if (e.opcode == nvm_dsm) {
		std::vector<u8> ranges(((e.cdw10 & 0xff) + 1) * 16);

		return transfer(e, ranges.data(), ranges.size(), false);
	}
	if (lba >= disk.blocks() || blocks > disk.blocks() - lba)
		return 0x080;
	switch (e.opcode) {
	case nvm_write:
	case nvm_read:
		status = transfer_blocks(e, at, meta, blocks, e.opcode == nvm_read);
		break;
	case nvm_compare: {
		std::vector<u8> other(len);

		status = transfer(e, other.data(), len, false);
		if (status == 0 && std::memcmp(other.data(), at, len) != 0)
			status = 0x285;
		break;
	}
	case nvm_write_zeroes:
		std::memset(at, 0, len);
		break;
	case nvm_write_uncorrectable:
	case nvm_verify:
		break;
	case nvm_copy: {
		std::vector<u8> ranges(((e.cdw12 & 0xff) + 1) * 32);

		return transfer(e, ranges.data(), ranges.size(), false);
	}
	default:
		if (!in_guests_)
			std::abort(); /* what is hidden does not get here */
		return sc_invalid_opcode;
	}
	return status;
}

/* ---- the guest's driver ------------------------------------------------------------------ */

u64 NvmeGuest::page(unsigned n)
{
	const u64 at = next_page_;

	next_page_ += n * page_bytes;
	if (next_page_ > memory.bytes.size())
		std::abort();
	return at;
}

void NvmeGuest::forget()
{
	next_page_ = first_page;
	std::fill(memory.bytes.begin(), memory.bytes.end(), u8{0});
}

u64 NvmeGuest::read(u32 off, u32 len)
{
	return rdt_model_read(w->model, off, len);
}

void NvmeGuest::write(u32 off, u64 v, u32 len)
{
	rdt_model_write(w->model, off, len, v);
}

bool NvmeGuest::enable(u32 entries)
{
	admin = {.sq = page((entries * 64 + 4095) / 4096), .cq = page((entries * 16 + 4095) / 4096), .size = entries, .cq_size = entries};
	io.clear();
	shadow_page_ = event_page_ = 0;
	write(reg_aqa, (entries - 1) << 16 | (entries - 1));
	write(reg_asq, admin.sq, 8);
	write(reg_acq, admin.cq, 8);
	write(reg_cc, 6 << 16 | 4 << 20 | 1);
	return (read(reg_csts, 4) & 3) == 1;
}

void NvmeGuest::disable()
{
	write(reg_cc, 6 << 16 | 4 << 20);
}

void NvmeGuest::put(Queue &q, const Sqe &e)
{
	std::memcpy(memory.bytes.data() + q.sq + q.tail * 64u, &e, 64);
	q.tail = static_cast<u16>((q.tail + 1) % q.size);
}

/* As the specification has it: a shadow is written always, the doorbell when the index is passed. */
void NvmeGuest::doorbell(const Queue &q, bool completion, u16 value)
{
	const u32 index = 2u * q.id + completion;

	if (shadow_page_ != 0 && q.id != 0) {
		u32 old, event;
		const u32 now = value;
		u8 *at = memory.bytes.data() + shadow_page_ + index * 4;

		std::memcpy(&old, at, 4);
		std::memcpy(at, &now, 4);
		std::memcpy(&event, memory.bytes.data() + event_page_ + index * 4, 4);
		if (static_cast<u16>(now - event - 1) >= static_cast<u16>(now - old))
			return;
	}
	rings++;
	write(reg_doorbells + index * 4, value);
}

void NvmeGuest::ring(Queue &q)
{
	doorbell(q, false, q.tail);
}

bool NvmeGuest::next(Queue &q, Cqe &out)
{
	std::memcpy(&out, memory.bytes.data() + q.cq + q.head * 16u, 16);
	if ((out.status & 1) != q.phase)
		return false;
	q.head = static_cast<u16>((q.head + 1) % q.cq_size);
	if (q.head == 0)
		q.phase ^= 1;
	q.sq_head = out.sqhd;
	return true;
}

void NvmeGuest::ack(Queue &q)
{
	doorbell(q, true, q.head);
}

u16 NvmeGuest::admin_command(Sqe e, u32 *dw0)
{
	Cqe c = {};

	e.cid = ++cid_;
	put(admin, e);
	ring(admin);
	for (unsigned i = 0; i < 100; i++) {
		w->work();
		w->interrupts();
		while (next(admin, c)) {
			ack(admin);
			if (c.cid == e.cid) {
				if (dw0)
					*dw0 = c.dw0;
				return c.status >> 1;
			}
		}
	}
	return 0xffff;
}

u16 NvmeGuest::io_command(unsigned q, const Sqe &e)
{
	Cqe c = {};

	put(io[q], e);
	ring(io[q]);
	w->work();
	w->interrupts();
	if (!next(io[q], c))
		return 0xffff;
	ack(io[q]);
	if (c.cid != e.cid || c.sqid != io[q].id)
		return 0xfffe;
	return c.status >> 1;
}

bool NvmeGuest::make_queues(unsigned n, u32 entries, u32 cq_entries)
{
	Sqe e = {};
	u32 got = 0;

	e.opcode = adm_set_features;
	e.cdw10 = feat_queues;
	e.cdw11 = (n - 1) | (n - 1) << 16;
	if (admin_command(e, &got) != 0 || (got & 0xffff) + 1 < n)
		return false;
	for (u16 i = 1; i <= n; i++) {
		Queue q = {.id = i, .size = entries, .cq_size = cq_entries ? cq_entries : entries};

		q.sq = page((entries * 64 + 4095) / 4096);
		q.cq = page((q.cq_size * 16 + 4095) / 4096);
		e = {};
		e.opcode = adm_create_cq;
		e.prp1 = q.cq;
		e.cdw10 = i | (q.cq_size - 1) << 16;
		e.cdw11 = (polled ? 1 : 3) | static_cast<u32>(i) << 16;
		if (admin_command(e) != 0)
			return false;
		e.opcode = adm_create_sq;
		e.prp1 = q.sq;
		e.cdw10 = i | (entries - 1) << 16;
		e.cdw11 = 1 | static_cast<u32>(i) << 16;
		if (admin_command(e) != 0)
			return false;
		io.push_back(q);
	}
	if (shadow) {
		const u64 pages = page(2);

		e = {};
		e.opcode = adm_dbbuf;
		e.prp1 = pages;
		e.prp2 = pages + page_bytes;
		if (admin_command(e) != 0)
			return false;
		shadow_page_ = pages;
		event_page_ = pages + page_bytes;
	}
	return true;
}
