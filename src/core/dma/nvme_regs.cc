// SPDX-License-Identifier: GPL-2.0
/* An NVMe controller's registers, and the device's way up and down. */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

namespace {

constexpr u32 gone = 0xffffffff; /* a device that does not answer reads so */

} // namespace

Nvme::Nvme(void *host, const rdt_dma_info &info, u64 cap)
    : host_(host), info_(info), dev_cap_(cap),
      /* One page size, contiguous queues, a fixed stride, no memory buffers, no reset of the subsystem. */
      cap_((cap & 0xff00ffff) | cap_cqr | cap_css_nvm), vs_(rdt_dma_reg_read(host, reg_vs)),
      pool_(host)
{
}

Nvme *Nvme::create(void *host, const rdt_dma_info &info, const char **why)
{
	const u64 cap = rdt_dma_reg_read(host, reg_cap) | static_cast<u64>(rdt_dma_reg_read(host, reg_cap + 4)) << 32;

	*why = nullptr;
	if (info.bar_bytes < reg_doorbells + 16)
		*why = "its registers are too few for an NVMe controller";
	else if (cap == ~0ull)
		*why = "the controller does not answer";
	else if (cap_mpsmin(cap) != 0)
		*why = "the controller does not know pages of 4 KiB";
	else if ((cap & cap_css_nvm) == 0)
		*why = "the controller has no NVM command set";
	else if (cap_mqes(cap) < 1)
		*why = "the controller's queues have one entry";
	else if (info.vectors == 0 || info.irqs == 0)
		*why = "the controller has no MSI-X";
	if (*why)
		return nullptr;

	void *mem = rdt_dma_alloc(sizeof(Nvme));

	if (!mem) {
		*why = "no memory";
		return nullptr;
	}
	return new (mem) Nvme(host, info, cap);
}

void Nvme::destroy()
{
	disable();
	pool_.drain();
	this->~Nvme();
	rdt_dma_free(this);
}

bool Nvme::mine(u64 iova, u64 len) const
{
	return iova + len < iova || (iova < info_.window + info_.window_bytes && info_.window < iova + len);
}

void Nvme::refuse(const char *what, u64 a, u64 b)
{
	refused_++;
	rdt_dma_log(host_, what, a, b);
}

void Nvme::fail(const char *what, u64 a, u64 b)
{
	if (!failed_)
		rdt_dma_log(host_, what, a, b);
	failed_ = true;
}

rdt_model_stats Nvme::stats() const
{
	rdt_model_stats s = {commands_, bounced_, shown_, refused_, drained_, inflight_, 0, 0};

	for (const Sq &q : sq_) {
		s.queues += q.live;
		s.direct += q.live && q.direct;
	}
	return s;
}

u64 Nvme::reg64(u32 off) const
{
	const auto pair = [](u32 low, u32 high) { return low | static_cast<u64>(high) << 32; };

	switch (off) {
	case reg_cap:
		return cap_;
	case reg_vs:
		return pair(vs_, 0);
	case reg_cc & ~7u:
		return pair(0, cc_);
	case reg_csts & ~7u: {
		u32 csts = enabled_ ? csts_rdy : 0;

		if (device_up_) {
			const u32 real = rdt_dma_reg_read(host_, reg_csts);

			csts |= real == gone ? csts_cfs : real & (csts_cfs | csts_shst);
		}
		if (shut_)
			csts = (csts & ~csts_shst) | csts_shst_done;
		return pair(0, failed_ ? csts | csts_cfs : csts);
	}
	case reg_nssr & ~7u:
		return pair(0, aqa_);
	case reg_asq:
		return asq_;
	case reg_acq:
		return acq_;
	default:
		return 0;
	}
}

u64 Nvme::read(u64 off, u32 len)
{
	if (off >= reg_doorbells)
		return 0;
	const u64 v = reg64(static_cast<u32>(off) & ~7u) >> (off & 7) * 8;

	return len >= 8 ? v : v & ((1ull << len * 8) - 1);
}

void Nvme::write(u64 off, u32 len, u64 value)
{
	if (off >= reg_doorbells) {
		const u64 index = (off - reg_doorbells) / 4;

		if (len == 4 && off % 4 == 0 && index < 2ull * max_queues)
			doorbell(static_cast<u32>(index), static_cast<u32>(value));
		else
			refuse("a doorbell there is not: offset, width", off, len);
		return;
	}
	if ((len != 4 && len != 8) || off % len != 0) {
		refuse("a register is written in a way that it cannot be: offset, width", off, len);
		return;
	}

	const auto low = [](u64 &reg, u64 v) { reg = (reg & ~0xffffffffull) | (v & 0xffffffff); };
	const auto high = [](u64 &reg, u64 v) { reg = (reg & 0xffffffff) | v << 32; };

	for (u32 done = 0; done < len; done += 4, value >>= 32) {
		switch (off + done) {
		case reg_cc:
			set_cc(static_cast<u32>(value));
			break;
		case reg_aqa:
			aqa_ = static_cast<u32>(value) & 0x0fff0fff;
			break;
		case reg_asq:
			low(asq_, value & ~(page_size - 1));
			break;
		case reg_asq + 4:
			high(asq_, value);
			break;
		case reg_acq:
			low(acq_, value & ~(page_size - 1));
			break;
		case reg_acq + 4:
			high(acq_, value);
			break;
		default: /* read-only, or without a meaning with MSI-X */
			break;
		}
	}
}

u32 Nvme::doorbells(u64 &off)
{
	off = reg_doorbells;
	return static_cast<u32>(min_of(info_.bar_bytes - reg_doorbells, max_queues * u64{8}));
}

void Nvme::set_cc(u32 cc)
{
	const u32 old = cc_;

	cc_ = cc & (cc_en | cc_css | cc_mps | cc_ams | cc_shn | cc_entry_mask);
	if ((cc_ & cc_en) && !(old & cc_en)) {
		enabled_ = enable();
		if (enabled_)
			take_all();
		flush();
	} else if (!(cc_ & cc_en) && (old & cc_en)) {
		disable();
	}
	if (device_up_ && (cc_ & cc_en) && ((cc_ ^ old) & cc_shn))
		shut_down();
}

/*
 * The guest ends its work with the controller, and may use its queues' memory for other things as soon as
 * the device has said that it is done: what is not finished by then never will be. Only a reset begins anew.
 */
void Nvme::shut_down()
{
	const u64 until = rdt_dma_ms(host_) + command_ms;
	const bool running = running_;

	running_ = false;
	rdt_dma_reg_write(host_, reg_cc, cc_entry_sizes | cc_en | (cc_ & cc_shn));
	while ((cc_ & cc_shn) && (inflight_ != 0 || any_direct()) && !failed_ && rdt_dma_ms(host_) < until) {
		reap_all();
		if ((rdt_dma_reg_read(host_, reg_csts) & csts_shst) == csts_shst_done)
			break;
		rdt_dma_pause(host_);
	}
	running_ = running;
	flush();
	shut_ = true;
	drop();
}

/* What the device has is forgotten: it has no place in the guest any more. Its rings stay until it is stopped. */
void Nvme::drop()
{
	unshow();
	for (Sq &q : sq_)
		q.live = false;
	for (Cq &q : cq_)
		q = {};
	aers_ = inflight_ = 0;
}

bool Nvme::wait_ready(bool ready)
{
	/* What the device says it needs at most, and a second */
	const u64 until = rdt_dma_ms(host_) + cap_to(dev_cap_) * u64{500} + 1000;

	for (;;) {
		const u32 csts = rdt_dma_reg_read(host_, reg_csts);

		if (csts != gone && !!(csts & csts_rdy) == ready)
			return true;
		if (csts == gone || (ready && (csts & csts_cfs)) || rdt_dma_ms(host_) > until)
			return false;
		rdt_dma_pause(host_);
	}
}

bool Nvme::start_device()
{
	Pair &p = sq_[0].pair;

	rdt_dma_reg_write(host_, reg_cc, 0);
	if (!wait_ready(false)) {
		fail("the device does not stop");
		return false;
	}
	if (!own_page_)
		own_page_ = static_cast<u8 *>(rdt_dma_pages_alloc(host_, 1, 1, &own_iova_));
	if (!own_page_ || !make_pair(p, admin_depth)) {
		fail("no memory for the device's admin queue");
		return false;
	}
	rdt_dma_reg_write(host_, reg_aqa, (p.depth - 1) << 16 | (p.depth - 1));
	rdt_dma_reg_write(host_, reg_asq, static_cast<u32>(p.sq_iova));
	rdt_dma_reg_write(host_, reg_asq + 4, static_cast<u32>(p.sq_iova >> 32));
	rdt_dma_reg_write(host_, reg_acq, static_cast<u32>(p.cq_iova));
	rdt_dma_reg_write(host_, reg_acq + 4, static_cast<u32>(p.cq_iova >> 32));
	device_up_ = true;
	rdt_dma_reg_write(host_, reg_cc, cc_entry_sizes | cc_en);
	if (!wait_ready(true)) {
		fail("the device does not start");
		return false;
	}
	if (!have_ident_) {
		if (!identify(cns_ctrl, 0)) {
			fail("the device does not say what it is");
			return false;
		}
		__builtin_memcpy(ident_, own_page_, page_size);
		hide(ident_);
		have_ident_ = true;
	}
	return true;
}

void Nvme::stop_device()
{
	if (device_up_) {
		rdt_dma_reg_write(host_, reg_cc, 0);
		if (!wait_ready(false))
			rdt_dma_log(host_, "the device does not stop", 0, 0);
	}
	device_up_ = false;
	for (Sq &q : sq_)
		free_pair(q.pair);
	if (own_page_)
		rdt_dma_pages_free(host_, own_page_, own_iova_, 1);
	own_page_ = nullptr;
	if (pool_.used() == 0)
		pool_.drain();
}

bool Nvme::enable()
{
	const u32 asqs = (aqa_ & 0xfff) + 1, acqs = (aqa_ >> 16) + 1;

	if (failed_)
		return false;
	if ((cc_ & (cc_css | cc_mps | cc_ams)) || asqs < 2 || acqs < 2 || mine(asq_, asqs * sizeof(Sqe)) ||
	    mine(acq_, acqs * sizeof(Cqe))) {
		refuse("the guest enables the controller in a way that it cannot be: CC, AQA", cc_, aqa_);
		failed_ = true;
		return false;
	}
	if (!start_device()) {
		stop_device();
		return false;
	}
	queues_ = 1;
	cq_[0] = {.live = true, .ien = true, .size = acqs, .users = 1, .base = acq_};
	sq_[0].live = true;
	sq_[0].size = asqs;
	sq_[0].head = sq_[0].tail = 0;
	sq_[0].base = asq_;
	return true;
}

void Nvme::disable()
{
	stop_device();
	for (Cq &q : cq_)
		q = {};
	for (Sq &q : sq_)
		q = {};
	for (Ns &n : ns_)
		n = {};
	aers_ = features_ = inflight_ = 0;
	nsq_ = ncq_ = 0;
	features_lost_ = dbbuf_ = false;
	route();
	enabled_ = failed_ = shut_ = false;
}

void Nvme::reset()
{
	device_up_ = false; /* already: nothing has to be stopped */
	disable();
	cc_ = aqa_ = 0;
	asq_ = acq_ = 0;
	have_ident_ = loaded_ = false;
	running_ = true;
}

} // namespace redoubt::dma
