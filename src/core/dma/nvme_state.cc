// SPDX-License-Identifier: GPL-2.0
/*
 * An NVMe controller's state on its way to another. It has the guest's side only: no ring of the device's, no
 * position in one, no command under way. The other device gets rings of its own.
 *
 * What is read in load() comes from another host. Everything is checked before the device is touched.
 */
#include "nvme.h"

namespace redoubt::dma {

using namespace nvme;

namespace {

constexpr u64 state_magic = 0x31656d764e544452; /* "RDTNvme1" */
constexpr u32 state_version = 2;
constexpr u32 state_ns = 64;
constexpr u16 state_enabled = 1, state_shut = 2;
constexpr u32 state_dbbuf = 1;

struct Head {
	u64 magic;
	u32 version;
	u32 bytes; /* of all */
	u64 cap;
	u64 asq, acq;
	u64 db_shadow, db_event; /* with state_dbbuf */
	u32 flags, reserved;
	u32 vs, cc, aqa;
	u16 nsq, ncq;
	u16 cqs, sqs, aers, features, namespaces;
	u16 enabled; /* state_enabled, state_shut */
	u8 ident[page_size];
};

struct StateCq {
	u64 base;
	u32 size;
	u16 id, head, tail, vector;
	u8 phase, ien;
	u16 reserved;
};

struct StateSq {
	u64 base;
	u32 size;
	u16 id, head, tail, cqid;
	u32 reserved;
};

struct StateAer {
	u32 dw0;
	u16 cid, status;
	u8 done, reserved[7];
};

struct StateFeature {
	u32 fid, nsid, cdw11, reserved;
};

/* What makes a namespace the same one. */
struct StateNs {
	u64 blocks;
	u32 nsid;
	u16 meta;
	u8 lba_shift, dps, flbas, reserved[7];
	u8 nguid[16], eui64[8], uuid[16];
};

static_assert(sizeof(Head) == 96 + page_size && sizeof(StateCq) == 24 && sizeof(StateSq) == 24 &&
	      sizeof(StateAer) == 16 && sizeof(StateFeature) == 16 && sizeof(StateNs) == 64);

constexpr u64 most_bytes = sizeof(Head) + Nvme::max_queues * (sizeof(StateCq) + sizeof(StateSq)) +
			   Nvme::max_aers * sizeof(StateAer) + Nvme::max_features * sizeof(StateFeature) +
			   state_ns * sizeof(StateNs);

bool same(const void *a, const void *b, u32 n)
{
	return __builtin_memcmp(a, b, n) == 0;
}

/* A word for each way in which the other device does less than the guest was told. */
const char *lacks(const u8 *was, const u8 *is)
{
	if (!same(was + idc_vid, is + idc_vid, 4) || !same(was + idc_model, is + idc_model, 40))
		return "the destination is another model of controller";
	if (is[idc_mdts] < was[idc_mdts])
		return "the destination's controller takes less data a command";
	if ((was[idc_oncs] & ~is[idc_oncs]) || (was[idc_oncs + 1] & ~is[idc_oncs + 1]))
		return "the destination's controller lacks optional commands";
	if (was[idc_oaes + 1] & ~is[idc_oaes + 1])
		return "the destination's controller lacks notices";
	if (was[idc_lpa] & ~is[idc_lpa])
		return "the destination's controller lacks logs";
	if (is[idc_aerl] < was[idc_aerl])
		return "the destination's controller takes fewer event requests";
	if (!(was[idc_vwc] & 1) && (is[idc_vwc] & 1))
		return "the destination's controller has a volatile cache, the source's had none";
	if (le32(is + idc_nn) < le32(was + idc_nn))
		return "the destination's controller has fewer namespaces";

	const u32 sgls_was = le32(was + idc_sgls), sgls_is = le32(is + idc_sgls);

	if ((sgls_was & sgls_support) && !(sgls_is & sgls_support))
		return "the destination's controller has no SGLs";
	if ((sgls_was & sgls_support) == sgls_bytes && (sgls_is & sgls_support) != sgls_bytes)
		return "the destination's controller wants what SGLs describe aligned";
	if (sgls_was & ~sgls_is & ~sgls_support)
		return "the destination's controller does less with SGLs";
	return nullptr;
}

} // namespace

/* The reader and writer of the model's members. */
struct NvmeState {
	explicit NvmeState(Nvme &model, u8 *to = nullptr) : m(model), out(to)
	{
	}

	Nvme &m;
	u8 *out;
	u64 at = 0;
	StateNs now = {}; /* of the namespace last looked at */

	template <class T> void put(const T &v)
	{
		__builtin_memcpy(out + at, &v, sizeof(v));
		at += sizeof(v);
	}
	/* The active namespace behind @after, into now. 1; 0: there is none; -errno. */
	int next_ns(u32 after);
	int describe(u32 nsid);
	int write();

	const Head *head = nullptr;
	const StateCq *cq = nullptr;
	const StateSq *sq = nullptr;
	const StateAer *aer = nullptr;
	const StateFeature *feature = nullptr;
	const StateNs *ns = nullptr;

	bool parse(const u8 *buf, u64 len);
	bool sound();
	int compare();
	int adopt();
	bool put_back(const StateFeature &f);
	int check_namespaces();
};

int NvmeState::describe(u32 nsid)
{
	now = {};
	if (!m.identify(cns_ns, nsid))
		return err_io;

	const u8 *id = m.own_page_;
	const u8 *lbaf = lba_format(id);

	now.nsid = nsid;
	__builtin_memcpy(&now.blocks, id + idn_nsze, 8);
	now.flbas = id[idn_flbas];
	now.dps = id[idn_dps];
	now.lba_shift = lbaf[2];
	now.meta = static_cast<u16>(lbaf[0] | lbaf[1] << 8);
	__builtin_memcpy(now.nguid, id + idn_nguid, 16);
	__builtin_memcpy(now.eui64, id + idn_eui64, 8);
	if (!m.identify(cns_ns_desc, nsid))
		return err_io;
	/* Descriptors: type, length, two reserved, the identifier; type 0 ends them. */
	for (u32 i = 0; i + 4 < page_size && id[i] != 0;) {
		const u32 len = id[i + 1];

		if (id[i] == 3 && len == 16 && i + 4 + len <= page_size)
			__builtin_memcpy(now.uuid, id + i + 4, 16);
		if (len == 0)
			break;
		i += 4 + len;
	}
	return 1;
}

int NvmeState::next_ns(u32 after)
{
	if (!m.identify(cns_active_ns, after))
		return err_io;
	const u32 nsid = le32(m.own_page_);

	return nsid == 0 ? 0 : nsid <= after ? err_io : describe(nsid);
}

u64 Nvme::state_max()
{
	return most_bytes;
}

int NvmeState::write()
{
	Head *h = reinterpret_cast<Head *>(out);
	constexpr StateNs nobody = {};

	*h = {};
	h->magic = state_magic;
	h->version = state_version;
	h->cap = m.cap_;
	h->vs = m.vs_;
	h->cc = m.cc_;
	h->aqa = m.aqa_;
	h->asq = m.asq_;
	h->acq = m.acq_;
	h->flags = m.dbbuf_ ? state_dbbuf : 0;
	h->db_shadow = m.db_shadow_;
	h->db_event = m.db_event_;
	h->enabled = m.shut_ ? state_shut : m.enabled_ ? state_enabled : 0;
	h->nsq = static_cast<u16>(m.nsq_);
	h->ncq = static_cast<u16>(m.ncq_);
	__builtin_memcpy(h->ident, m.ident_, page_size);
	at = sizeof(Head);
	for (u16 i = 0; i < Nvme::max_queues; i++) {
		const Nvme::Cq &q = m.cq_[i];

		if (!q.live)
			continue;
		put(StateCq{q.base, q.size, i, q.head, q.tail, q.vector, static_cast<u8>(q.phase), q.ien, 0});
		h->cqs++;
	}
	for (u16 i = 0; i < Nvme::max_queues; i++) {
		const Nvme::Sq &q = m.sq_[i];

		if (!q.live)
			continue;
		put(StateSq{q.base, q.size, i, q.head, q.tail, q.cqid, 0});
		h->sqs++;
	}
	for (u32 i = 0; i < m.aers_; i++, h->aers++)
		put(StateAer{m.aer_[i].dw0, m.aer_[i].cid, m.aer_[i].status, m.aer_[i].done, {}});
	for (u32 i = 0; i < m.features_; i++, h->features++)
		put(StateFeature{m.feature_[i].fid, m.feature_[i].nsid, m.feature_[i].cdw11, 0});
	for (u32 nsid = 0; h->enabled == state_enabled; nsid = now.nsid, h->namespaces++) {
		const int there = next_ns(nsid);

		if (there == 0)
			break;
		if (there < 0) {
			rdt_dma_log(m.host_, "the device does not say which namespaces it has", 0, 0);
			return there;
		}
		if (h->namespaces == state_ns) {
			rdt_dma_log(m.host_, "the device has more namespaces than can be carried on", state_ns, 0);
			return err_nospc;
		}
		if (same(now.nguid, nobody.nguid, 16) && same(now.eui64, nobody.eui64, 8) &&
		    same(now.uuid, nobody.uuid, 16)) {
			rdt_dma_log(m.host_, "a namespace has nothing that tells it from another: namespace", now.nsid, 0);
			return err_xdev;
		}
		put(now);
	}
	h->bytes = static_cast<u32>(at);
	return 0;
}

s64 Nvme::save(void *buf, u64 room)
{
	if (room < most_bytes)
		return err_nospc;
	if (running_ || inflight_ != 0 || failed_) {
		rdt_dma_log(host_, "the device is not at rest, or has failed", inflight_, failed_);
		return err_io;
	}
	if (features_lost_) {
		rdt_dma_log(host_, blocker(), 0, 0);
		return err_xdev;
	}
	NvmeState s(*this, static_cast<u8 *>(buf));
	const int err = s.write();

	return err != 0 ? err : static_cast<s64>(s.at);
}

const char *Nvme::blocker()
{
	if (failed_)
		return "the controller has failed; the guest has to reset it";
	if (features_lost_)
		return "the guest has set more features than can be carried on";
	return nullptr;
}

/* ---- the other side ---------------------------------------------------------------------- */

/* The parts, if their lengths add up. */
bool NvmeState::parse(const u8 *buf, u64 len)
{
	if (len < sizeof(Head) || len > most_bytes)
		return false;
	head = reinterpret_cast<const Head *>(buf);
	if (head->magic != state_magic || head->version != state_version || head->bytes != len)
		return false;
	if (head->cqs > Nvme::max_queues || head->sqs > Nvme::max_queues || head->aers > Nvme::max_aers ||
	    head->features > Nvme::max_features || head->namespaces > state_ns)
		return false;
	const u8 *p = buf + sizeof(Head);

	cq = reinterpret_cast<const StateCq *>(p);
	p += head->cqs * sizeof(StateCq);
	sq = reinterpret_cast<const StateSq *>(p);
	p += head->sqs * sizeof(StateSq);
	aer = reinterpret_cast<const StateAer *>(p);
	p += head->aers * sizeof(StateAer);
	feature = reinterpret_cast<const StateFeature *>(p);
	p += head->features * sizeof(StateFeature);
	ns = reinterpret_cast<const StateNs *>(p);
	p += head->namespaces * sizeof(StateNs);
	return p == buf + len;
}

/* Could such a guest be? What the guest side's own checks would refuse is refused here. */
bool NvmeState::sound()
{
	bool has_cq[Nvme::max_queues] = {};

	if (head->enabled > state_shut || head->nsq >= Nvme::max_queues || head->ncq >= Nvme::max_queues)
		return false;
	if ((head->enabled != 0) != !!(head->cc & cc_en))
		return false;
	if (head->flags > state_dbbuf || head->db_shadow % page_size != 0 || head->db_event % page_size != 0)
		return false;
	if (head->enabled != state_enabled)
		return head->cqs == 0 && head->sqs == 0 && head->aers == 0;
	if (head->cqs == 0 || head->sqs == 0 || cq[0].id != 0 || sq[0].id != 0 || cq[0].base != head->acq ||
	    sq[0].base != head->asq)
		return false;
	for (u32 i = 0; i < head->cqs; i++) {
		const StateCq &q = cq[i];

		if (q.id > head->ncq || (i != 0 && q.id <= cq[i - 1].id) || q.size < 2 || q.size > 0x10000 ||
		    q.head >= q.size || q.tail >= q.size || q.phase > 1 || q.ien > 1 || q.base % page_size != 0)
			return false;
		has_cq[q.id] = true;
	}
	for (u32 i = 0; i < head->sqs; i++) {
		const StateSq &q = sq[i];

		if (q.id > head->nsq || (i != 0 && q.id <= sq[i - 1].id) || q.size < 2 || q.size > 0x10000 ||
		    q.head >= q.size || q.tail >= q.size || q.base % page_size != 0 || (q.cqid == 0) != (q.id == 0) ||
		    q.cqid >= Nvme::max_queues || !has_cq[q.cqid])
			return false;
	}
	for (u32 i = 0; i < head->aers; i++) {
		if (aer[i].done > 1)
			return false;
	}
	for (u32 i = 0; i < head->features; i++) {
		if (!Nvme::known_feature(feature[i].fid))
			return false;
	}
	return true;
}

/* Can this device take the place of that one? It is up. */
int NvmeState::compare()
{
	const auto no = [this](const char *what, u64 a = 0, u64 b = 0) {
		rdt_dma_log(m.host_, what, a, b);
		return err_xdev;
	};

	if (const char *what = lacks(head->ident, m.ident_))
		return no(what);
	for (u32 i = 0; i < head->cqs; i++) {
		if (cq[i].vector >= m.info_.vectors)
			return no("the destination's controller has fewer interrupts: wanted, has", cq[i].vector + 1u,
				  m.info_.vectors);
		if (m.mine(cq[i].base, cq[i].size * sizeof(Cqe)))
			return no("the guest's memory is where private memory is", cq[i].base);
	}
	for (u32 i = 0; i < head->sqs; i++) {
		if (m.mine(sq[i].base, sq[i].size * sizeof(Sqe)))
			return no("the guest's memory is where private memory is", sq[i].base);
	}
	if (m.mine(head->db_shadow, page_size) || m.mine(head->db_event, page_size))
		return no("the guest's memory is where private memory is", head->db_shadow);
	return check_namespaces();
}

int NvmeState::check_namespaces()
{
	u32 nsid = 0;

	for (u32 i = 0; i <= head->namespaces; i++, nsid = now.nsid) {
		const int there = next_ns(nsid);

		if (there < 0) {
			rdt_dma_log(m.host_, "the destination's device does not say which namespaces it has", 0, 0);
			return there;
		}
		if (there != (i < head->namespaces) || (there && !same(&now, &ns[i], sizeof(now)))) {
			rdt_dma_log(m.host_, "the destination's device has another namespace, or one more or less: namespace",
				    there ? now.nsid : ns[i].nsid, 0);
			return err_xdev;
		}
		if (!there)
			break;
	}
	return 0;
}

bool NvmeState::put_back(const StateFeature &f)
{
	Sqe e = {};

	e.opcode = adm_set_features;
	e.nsid = f.nsid;
	e.cdw10 = f.fid;
	e.cdw11 = f.cdw11;
	u32 got = 0;

	if (m.exec(e, &got) != sc_ok)
		return false;
	return f.fid != feat_queues ||
	       ((got & 0xffff) + 1 >= head->nsq && (got >> 16) + 1 >= max_of(head->nsq, head->ncq));
}

/* The guest's side becomes the model's, and the device is set up for it. */
int NvmeState::adopt()
{
	for (u32 i = 0; i < head->features; i++) {
		const StateFeature &f = feature[i];

		if (!put_back(f)) {
			rdt_dma_log(m.host_, "the destination's device does not take a feature: feature, value", f.fid, f.cdw11);
			return err_xdev;
		}
		m.feature_[m.features_++] = {static_cast<u8>(f.fid), f.nsid, f.cdw11};
	}
	m.dbbuf_ = head->flags & state_dbbuf;
	m.db_shadow_ = head->db_shadow;
	m.db_event_ = head->db_event;
	m.nsq_ = head->nsq;
	m.ncq_ = head->ncq;
	for (u32 i = 0; i < head->cqs; i++) {
		const StateCq &q = cq[i];
		Nvme::Cq &to = m.cq_[q.id];

		m.have_queue(q.id);
		to = {};
		to.live = true;
		to.ien = q.ien;
		to.phase = q.phase;
		to.vector = q.vector;
		to.size = q.size;
		to.head = q.head;
		to.tail = q.tail;
		to.base = q.base;
	}
	for (u32 i = 0; i < head->sqs; i++) {
		const StateSq &q = sq[i];
		Nvme::Sq &to = m.sq_[q.id];

		m.have_queue(q.id);
		to.cqid = q.cqid;
		to.size = q.size;
		to.head = q.head;
		to.tail = q.tail;
		to.base = q.base;
		if (q.id != 0 && m.device_queues(q.id) != sc_ok) {
			rdt_dma_log(m.host_, "the destination's device does not make a queue: queue, entries", q.id, q.size);
			return err_xdev;
		}
		to.live = true;
		m.cq_[q.cqid].users++;
	}
	for (u32 i = 0; i < head->aers; i++)
		m.aer_[m.aers_++] = {aer[i].cid, aer[i].status, aer[i].dw0, aer[i].done != 0};
	m.route();
	return 0;
}

int Nvme::load(const void *buf, u64 len)
{
	NvmeState s(*this);

	if (!s.parse(static_cast<const u8 *>(buf), len) || !s.sound()) {
		rdt_dma_log(host_, "what came is not the state of an NVMe controller: bytes", len, 0);
		return err_inval;
	}
	disable();
	reset();
	running_ = false;
	if (s.head->enabled == state_enabled) {
		int err = err_io;

		if (start_device())
			err = s.compare();
		if (err == 0)
			err = s.adopt();
		if (err != 0) {
			disable();
			return err;
		}
		enabled_ = true;
	} else if (s.head->enabled == state_shut) {
		enabled_ = shut_ = true;
	}
	cap_ = s.head->cap;
	vs_ = s.head->vs;
	cc_ = s.head->cc;
	aqa_ = s.head->aqa;
	asq_ = s.head->asq;
	acq_ = s.head->acq;
	__builtin_memcpy(ident_, s.head->ident, page_size);
	have_ident_ = true;
	loaded_ = true;
	return 0;
}

int Nvme::run(bool still)
{
	running_ = true;
	if (loaded_) {
		loaded_ = false;
		for (u32 i = 0; i < aers_; i++) {
			if (!aer_[i].done && !forward_aer(aer_[i].cid))
				return err_io;
		}
		if (aers_ != 0)
			ring(0);
		/* An interrupt may have been lost on the way; one too many does no harm. */
		for (Cq &q : cq_)
			q.signal = q.live && q.ien;
	}
	if (still)
		make_all_direct();
	take_all();
	flush();
	return 0;
}

void Nvme::arm(bool on)
{
	armed_ = on;
}

} // namespace redoubt::dma
