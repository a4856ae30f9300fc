// SPDX-License-Identifier: GPL-2.0
/*
 * The model of an NVMe controller. The guest's registers, queues and admin commands end here;
 * behind, the model is the controller's only driver, with queues in private memory. So where the
 * device's rings stand means nothing to the guest, and any device that can do the same work can go on.
 *
 *	guest's SQ --copy, check--> Pair's SQ --> device --> Pair's CQ --> guest's CQ
 *
 * Each guest's SQ has a Pair of the device's queues to itself. A guest's CQ exists only here. A command is
 * taken from the guest only when there is room for its completion: nothing has to be kept back.
 */
#pragma once

#include "model.h"
#include "nvme_spec.h"
#include "pool.h"

namespace redoubt::dma {

class Nvme final : public Model {
public:
	static constexpr u32 max_queues = 65; /* the admin queue and 64 more */
	static constexpr u32 max_io_0based = max_queues - 2; /* as Number of Queues counts them */
	static constexpr u32 max_depth = 1024, admin_depth = 64;
	static constexpr u32 own_slots = 2;   /* of the admin queue, for the model's own commands */
	static constexpr u32 max_aers = 16;
	static constexpr u32 max_features = 64;
	static constexpr u32 max_ns = 1024;
	static constexpr u32 mdts_pages_log2 = 8; /* 1 MiB a command */
	static constexpr u64 max_bytes = page_size << mdts_pages_log2;
	static constexpr u32 max_sgl = 2048;	    /* descriptors a command, of all kinds */
	static constexpr u32 max_pieces = 1u << 16; /* of all commands under way */
	static constexpr u64 stop_ms = 10000, command_ms = 10000;
	static constexpr u64 direct_ms = 200; /* for all queues to become direct again */

	/* *why when nullptr */
	static Nvme *create(void *host, const rdt_dma_info &info, const char **why);

	u64 read(u64 off, u32 len) override;
	void write(u64 off, u32 len, u64 value) override;
	u32 doorbells(u64 &off) override;
	void interrupt(u32 vector) override;
	void unshow() override;
	void later() override;
	void reset() override;
	int stop() override;
	int run(bool still) override;
	u64 state_max() override;
	s64 save(void *buf, u64 room) override;
	int load(const void *buf, u64 len) override;
	void arm(bool on) override;
	const char *blocker() override;
	[[nodiscard]] rdt_model_stats stats() const override;
	void destroy() override;

private:
	using Sqe = nvme::Sqe;
	using Cqe = nvme::Cqe;
	using Sc = u16;
	static constexpr Sc sc_wait = 0xffff; /* not now: leave it in the guest's queue */

	enum class Kind : u8 { Free, Guest, Aer, Own };
	enum class Dir : u8 { None, ToDevice, FromDevice };

	/* Metadata of a command, in private memory. */
	struct Meta {
		u8 *va;
		u64 iova, guest;
		u32 len, pages;
	};

	/* What an SGL has said, and was checked. The kernel's memory: the device reaches it nowhere. */
	struct Piece {
		u64 guest;
		u32 len;
		u32 nowhere; /* a bit bucket */
	};

	/* A command that the device has. */
	struct Slot {
		Kind kind;
		Dir dir;
		u8 opcode;
		u16 cid; /* the guest's */
		u16 next;
		Pool::Ref list; /* its PRP list */
		Pool::Ref data; /* private copies of its data, in order */
		u64 *shown; /* or the guest's own pages, which its CPUs have a copy of until the command's end */
		u32 shows;
		bool hidden; /* which the CPUs have not any more */
		Meta *meta;
		Piece *piece; /* with an SGL: where in the guest the data are, in order */
		u32 pieces;
		u32 nsid, cdw10, cdw11;
	};

	/* A submission and a completion queue of the device's, of the same depth. */
	struct Pair {
		Sqe *sqe = nullptr;
		Cqe *cqe = nullptr;
		Slot *slot = nullptr;
		u64 sq_iova = 0, cq_iova = 0;
		u32 depth = 0;
		u16 tail = 0, head = 0;
		u16 free = 0, used = 0;
		u16 phase = 1;
	};

	struct Cq {
		bool live = false, ien = false, signal = false;
		bool direct = false; /* the device's: of what follows only head and consumed count */
		u16 phase = 1; /* of the next entry */
		u16 vector = 0;
		u32 size = 0;
		u16 head = 0, tail = 0;
		u16 owed = 0; /* entries that commands under way will take */
		u16 users = 0;
		u64 base = 0;
		u64 consumed = 0; /* by the guest, since it was created */

		[[nodiscard]] bool fresh() const
		{
			return head == 0 && tail == 0 && phase == 1 && consumed == 0;
		}
		[[nodiscard]] u32 filled() const
		{
			return (tail + size - head) % size;
		}
		[[nodiscard]] bool room() const
		{
			return filled() + owed < size - 1;
		}
	};

	struct Sq {
		bool live = false;
		bool direct = false; /* the device's; then head is the tail that it has been told */
		u16 cqid = 0;
		u32 size = 0;
		u16 head = 0, tail = 0;
		u64 base = 0;
		u64 submitted = 0; /* while direct */
		Pair pair = {};
	};

	struct Aer {
		u16 cid;
		u16 status;
		u32 dw0;
		bool done;
	};

	struct FeatureSet {
		u8 fid;
		u32 nsid, cdw11;
	};

	/* What is known of a namespace; valid until the device says that something changed. */
	struct Ns {
		u32 nsid = 0; /* 0: not known */
		u8 lba_shift = 0;
		u8 extended = 0; /* metadata stand behind each block's data */
		u16 meta = 0;	 /* bytes a block */
		u8 pi = 0;	 /* protection information is all of the metadata */
	};

	struct Transfer {
		Dir dir = Dir::None;
		u64 bytes = 0;
		u64 meta = 0; /* at MPTR */
		bool shows = false; /* the data are nobody's business but the guest's: whole pages of them may be its own, shown */
	};

	/* An SGL, on its way into piece_[] */
	struct SglWalk {
		Dir dir;
		u64 rest; /* bytes that nothing has described yet */
		u32 pieces;
	};

	/* Whole pages that bytes take */
	static constexpr u32 pages_of(u64 bytes)
	{
		return static_cast<u32>((bytes + page_size - 1) >> page_shift);
	}

	Nvme(void *host, const rdt_dma_info &info, u64 cap);

	/* nvme_regs.cc: registers and the device as a whole */
	[[nodiscard]] u64 reg64(u32 off) const;
	void set_cc(u32 cc);
	bool enable();
	void disable();
	void shut_down();
	void drop();
	bool start_device();
	void stop_device();
	bool wait_ready(bool ready);
	void fail(const char *what, u64 a = 0, u64 b = 0);
	void refuse(const char *what, u64 a = 0, u64 b = 0);
	[[nodiscard]] bool mine(u64 iova, u64 len) const; /* touches private memory, or wraps */

	/* nvme_queue.cc: rings */
	void doorbell(u32 index, u32 value);
	void take(u16 qid);
	void take_all();
	void have_queue(u32 qid) { queues_ = queues_ > qid ? queues_ : qid + 1; }
	void reap(u16 qid);
	void reap_all();
	void complete(u16 qid, const Cqe &c);
	void post(u16 cqid, u16 sqid, u16 cid, Sc status, u32 dw0 = 0);
	void flush();
	bool make_pair(Pair &p, u32 depth);
	void free_pair(Pair &p);
	void release(Pair &p, Slot &s);
	void place(u16 qid, Slot &s, const Sqe &e);
	[[nodiscard]] u32 doorbell_reg(u16 qid, bool completion) const;
	void ring(u16 qid);
	Slot *slot_for(u16 qid, u32 keep);
	Sc forward(u16 qid, Sqe &e, const Transfer &t, bool bounce);
	/* A command of the model's own, and its answer. What it transfers is one page, in own_page_. */
	Sc exec(Sqe &e, u32 *dw0 = nullptr);

	/* nvme_direct.cc: queues that the device has from the guest, and shadow doorbells */
	[[nodiscard]] bool belong(u16 qid) const;
	[[nodiscard]] bool may_be_direct(u16 qid) const;
	Sc direct_queues(u16 qid);
	void pass_on(u16 qid);
	void look_later(u16 qid);
	[[nodiscard]] int has_entry(const Cq &c, u64 at) const;
	[[nodiscard]] u64 produced(const Cq &c) const;
	[[nodiscard]] u64 under_way() const;
	[[nodiscard]] bool any_direct() const;
	bool is_idle(u16 qid);
	bool direct_idle();
	void settle(Cq &c);
	int make_mediated(u16 qid);
	bool take_back(u16 qid);
	int make_all_mediated();
	[[nodiscard]] u32 commands_to(u16 qid) const;
	bool advance(u16 qid, u32 n, u32 nsid, u64 until);
	void make_direct(u16 qid, u32 nsid, u64 until);
	void make_all_direct();
	void route();
	Sc admin_dbbuf(const Sqe &e);
	void want_ring(u16 qid, bool completion, u16 at);
	bool head_moved(u16 qid, u32 value);
	void look_at_head(u16 qid);
	void watch_head(u16 qid);
	bool has_room(u16 cqid);

	/* nvme_io.cc: commands of I/O queues */
	Sc io(u16 qid, Sqe &e);
	Sc describe_rw(const Sqe &e, Dir dir, Transfer &t);
	const Ns *ns(u32 nsid);
	bool identify(u8 cns, u32 nsid);

	/* nvme_data.cc: PRPs */
	Sc map(Slot &s, Sqe &e, const Transfer &t, bool bounce);
	Sc map_prps(Slot &s, Sqe &e, u64 first, u64 prp2, const Transfer &t, bool bounce);
	Sc guest_prps(u64 prp2, u32 n);
	Pool::Page *add_page(Slot &s, Pool::Ref &last);
	Sc set_prps(Slot &s, Sqe &e, u64 first, u32 pages);
	Sc map_copy(Slot &s, Sqe &e, u64 first, u32 pages, const Transfer &t);
	Sc map_meta(Slot &s, Sqe &e, u64 mptr, const Transfer &t, bool bounce);
	bool copy_back(const Slot &s);
	bool show(Slot &s, u64 first, u32 pages);
	bool end_show(Slot &s, bool touch);
	void free_data(Slot &s);

	/* nvme_sgl.cc */
	[[nodiscard]] u32 sgls() const; /* what the guest was told: Identify's SGLS */
	Sc walk_sgl(nvme::Sgl d, SglWalk &w);
	Sc add_piece(const nvme::Sgl &d, SglWalk &w);
	Sc keep_pieces(Slot &s, u32 n);
	Sc map_sgl(Slot &s, Sqe &e, const nvme::Sgl &first, const Transfer &t);
	bool copy_pieces(const Slot &s, Dir dir);

	/* nvme_admin.cc */
	Sc admin(Sqe &e);
	[[nodiscard]] Sc check_ring(const Sqe &e, u64 bytes) const;
	Sc admin_create_cq(const Sqe &e);
	Sc admin_create_sq(const Sqe &e);
	Sc admin_delete_sq(u16 cid, u16 qid);
	Sc admin_delete_cq(u16 cid, u16 qid);
	Sc admin_identify(Sqe &e);
	Sc admin_features(Sqe &e);
	Sc admin_aer(u16 cid);
	bool forward_aer(u16 cid);
	Sc create_queues(u16 qid, u64 cq, u32 cq_size, u32 cq_flags, u64 sq, u32 sq_size); /* on the device */
	bool delete_queues(u16 qid);
	[[nodiscard]] u32 pair_depth(const Sq &q) const;
	Sc attach_pair(u16 qid);   /* the device gets the pair, or it is given back */
	Sc device_queues(u16 qid); /* a new one */
	void admin_done(Slot &s, Cqe &c);
	void hide(u8 *idc) const; /* what the guest must not use */
	static bool known_feature(u32 fid); /* what the guest may set, and another host may say that it has */
	void keep_feature(const Slot &s);
	void flush_aers();

	/* nvme_state.cc */
	friend struct NvmeState;

	void *host_;
	rdt_dma_info info_;
	u64 dev_cap_, cap_; /* the device's, and what the guest is told */
	u32 vs_;
	u32 cc_ = 0, aqa_ = 0;
	u64 asq_ = 0, acq_ = 0;
	bool enabled_ = false; /* RDY for the guest */
	bool device_up_ = false;
	bool failed_ = false; /* CFS: only a reset helps */
	bool shut_ = false;   /* shut down by the guest: nothing is written to it */
	bool running_ = true;
	bool armed_ = false;
	bool loaded_ = false;
	bool have_ident_ = false;
	bool dbbuf_ = false;
	u64 db_shadow_ = 0, db_event_ = 0;
	u32 inflight_ = 0; /* of the guest's, without AERs */
	u32 showing_ = 0; /* pages that the CPUs have copies of, or had until a command's end that is to come */
	u64 commands_ = 0, bounced_ = 0, shown_ = 0, refused_ = 0, drained_ = 0; /* rdt_model_stats */
	u32 nsq_ = 0, ncq_ = 0; /* queues that the guest was given, without the admin's */
	Pool pool_;
	u32 pieces_ = 0; /* that slots have */

	Cq cq_[max_queues];
	Sq sq_[max_queues];
	u32 queues_ = 1; /* behind the last that there was since the controller was enabled: no other is looked at */
	Aer aer_[max_aers] = {};
	u32 aers_ = 0;
	FeatureSet feature_[max_features] = {};
	u32 features_ = 0;
	bool features_lost_ = false; /* more than there is room for: it cannot migrate */
	Ns ns_[max_ns + 1];

	bool own_done_ = false;
	Sc own_status_ = 0;
	u32 own_dw0_ = 0;
	u8 *own_page_ = nullptr;
	u64 own_iova_ = 0;

	static constexpr u32 fetch_max = 16;
	Sqe fetch_[fetch_max];
	u64 prp_[1u << mdts_pages_log2]; /* of the command being mapped, without its first */
	static constexpr u32 sgl_chunk = 64;
	nvme::Sgl sgl_[sgl_chunk];
	Piece piece_[max_sgl]; /* likewise */
	u8 ident_[page_size]; /* Identify Controller, as the guest has seen it */
};

} // namespace redoubt::dma
