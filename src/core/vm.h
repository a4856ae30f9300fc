// SPDX-License-Identifier: GPL-2.0
/*
 * One attached VM: who may do what to which frame, and what is done about the
 * rest. All policy of systems A, B and C is behind this class; api.cc gives it
 * its C face (include/redoubt/port.h).
 *
 * Enforcement hangs on `restricted_`, `integrity_` and `domains_`, all in host memory. The tree
 * lies in guest pages and is only asked which action a refused write calls for.
 *
 * Locking: the host's policy lock (port) serializes everything that changes policy.
 * access(), max_level() and fault() run on any vCPU without it.
 */
#pragma once

#include "domain.h"
#include "driver.h"
#include "frame_bitmap.h"
#include "step.h"
#include "tree.h"

#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>
#include <redoubt/port.h>

namespace redoubt {

inline constexpr u8 view_root = RDT_VIEW_ROOT;
inline constexpr u8 view_integrity = RDT_VIEW_INTEGRITY;
inline constexpr u8 view_step = RDT_VIEW_STEP;

struct Vcpu {
	void *hv;
	u8 view = view_root;
	/* Set exactly while the vCPU is in integrity mode or a domain; the slot is Running. */
	Inside *inside = nullptr;
	Slot *slot = nullptr;
	/* Where at_door() found it; nullptr: at integrity mode's. */
	Domain *door = nullptr;
	u64 door_epoch = 0;
	Rule stepped = {};    /* the rule that RDT_V_STEP was answered by */
};

/* Everything that exists only once a driver is registered. */
struct Integrity : Inside {
	Driver driver;
};

/* The policy lock, for a scope. */
struct PolicyLock : Pinned {
	explicit PolicyLock(void *h) : host(h)
	{
		rdt_port_lock(host);
	}
	~PolicyLock()
	{
		rdt_port_unlock(host);
	}
	void *host;
};

class Vm : Pinned {
public:
	Vm(void *host, const MonitorTree::TagKey &key) : host_(host), tree_(key)
	{
	}
	~Vm();

	/* fault.cc */
	[[nodiscard]] u8 access(u8 view, gfn_t gfn) const;
	[[nodiscard]] int max_level(u8 view, gfn_t gfn, int level) const;
	rdt_verdict fault(Vcpu *v, const rdt_fault &f, rdt_cpu &cpu);
	rdt_verdict kvm_write(const rdt_fault &f, const rdt_cpu *cpu);
	void stored(const Vcpu &v, const rdt_fault &f, const rdt_cpu &cpu);
	[[nodiscard]] u32 policy_seq() const
	{
		return load_acquire(policy_seq_);
	}
	bool may_hold_pv(gpa_t gpa, u64 len);
	bool walk_may_set(gfn_t gfn);
	void mapping_changed(gfn_t first, u64 count);

	/* gate.cc */
	s64 enter(Vcpu &v, rdt_cpu &cpu, Inside &in, u64 epoch, const u64 &rip_inside);
	s64 leave(Vcpu &v, rdt_cpu &cpu, u64 result);
	/* The call ends, with an error and nothing else of the inside. */
	void cut_short(Vcpu &v, rdt_cpu &cpu, s64 err);
	s64 resume(Vcpu &v, rdt_cpu &cpu, u64 token, u64 flags);
	bool aexit(Vcpu &v, rdt_cpu &cpu, u8 soft_len);
	bool put(Vcpu &v, rdt_cpu &cpu, u8 soft_len, bool io);
	u32 read_inside(const Vcpu &v, u64 gva, void *to, u32 n) const;
	s64 hypercall_enter(Vcpu &v, rdt_cpu &cpu);
	void report_gate(const rdt_cpu &cpu, u8 code);
	[[nodiscard]] rdt_door at_door(Vcpu &v, gfn_t gfn) const;
	[[nodiscard]] rdt_door domain_door(Vcpu &v, gfn_t gfn) const;
	rdt_verdict door(Vcpu &v, rdt_door door, rdt_cpu &cpu);

	/* step.cc; by the vCPU that owns the step, but for step_stop() */
	bool step_begin(Vcpu &v, const rdt_fault &f, const rdt_cpu &cpu);
	bool step_grant(const rdt_fault &f);
	u8 step_end(Vcpu &v, bool done, bool event);

	/* domain.cc; cpu: nullptr for the operator. Results as below. */
	s64 domain_create(gpa_t desc, const rdt_cpu &cpu);
	s64 domain_add(u64 id, gpa_t gpa, u64 gva, u64 what, const rdt_cpu &cpu);
	s64 domain_share(u64 id, gpa_t gpa, u64 gva, u64 pages, const rdt_cpu &cpu);
	s64 domain_seal(u64 id, const rdt_cpu &cpu);
	s64 domain_destroy(u64 id, const rdt_cpu *cpu);
	s64 domain_enter(Vcpu &v, rdt_cpu &cpu, u64 id);
	s64 domain_measure(const Vcpu &v, rdt_cpu &cpu, u64 id);
	s64 domain_install(u64 id, const void *value, u32 len, const rdt_fixup *fixups, u32 nr);
	s64 domain_set_quota(const rdt_domain_quota &q);
	void domain_quota(rdt_domain_quota &q);
	s64 domain_info(u32 view, rdt_domain_info &out);
	/* domain_export.cc; the operator's. Results are 0 or more, or -errno */
	s64 domain_blob_bytes(u64 id);
	s64 domain_export(u64 id, const u8 *key, u8 *blob, u64 bytes);
	s64 domain_import(u64 id, const u8 *key, u8 *blob, u64 bytes);
	bool evict(Vcpu &v, rdt_cpu &cpu);
	[[nodiscard]] void *private_page(u8 view, gfn_t gfn) const;
	/* Whose a restricted frame is, if a domain's. */
	[[nodiscard]] Owner owner(gfn_t gfn) const
	{
		const Domains *ds = domains();

		return ds ? ds->map.find(gfn) : Owner();
	}
	/* What a token names; nullptr: nothing that is there. */
	[[nodiscard]] Inside *inside_of(u64 token);

	/* policy.cc; results are 0 or more, or -KVM_E* */
	s64 node_add(gpa_t gpa);
	s64 protect(gpa_t gpa, u64 pages, u64 attr, const rdt_cpu *cpu);
	s64 unprotect(gpa_t gpa, u64 pages, const rdt_cpu *cpu);
	s64 query(gpa_t gpa);
	s64 seal(gpa_t desc, const rdt_cpu &cpu);
	s64 detach(bool force);
	void end();
	void info(rdt_vm_info &out);
	s64 regions(gpa_t from, rdt_region *out, u32 room, gpa_t *next);
	[[nodiscard]] u32 status() const;

private:
	s64 out(Vcpu &v, rdt_cpu &cpu, u64 result);
	s64 out_of_domain(Vcpu &v, rdt_cpu &cpu, u64 result);
	s64 leave_secret(Vcpu &v, rdt_cpu &cpu, u64 result);
	bool rewind(Vcpu &v, rdt_cpu &cpu);
	bool rule_of(gfn_t gfn, Rule *out);
	u8 find_action(gfn_t gfn, Rule *out);
	[[nodiscard]] const Integrity *integrity() const
	{
		/* Pairs with the release in seal(). */
		return load_acquire(integrity_);
	}
	[[nodiscard]] FrameKind kind(gfn_t gfn) const
	{
		const Integrity *i = integrity();

		return i ? i->driver.kind(gfn) : FrameKind::None;
	}
	[[nodiscard]] const Domains *domains() const
	{
		/* Pairs with the release in domain_slot(). */
		return load_acquire(domains_);
	}
	[[nodiscard]] bool has_domain_frames(gfn_t first, u64 count) const
	{
		return domains_ && domains_->map.any(first, count);
	}
	u8 domain_access(u8 view, gfn_t gfn) const;
	u8 secret_access(const Domain &d, u8 view, gfn_t gfn) const;
	bool other_half(Vcpu &v, gfn_t gfn, rdt_cpu &cpu) const;
	[[nodiscard]] u8 free_view(unsigned from) const;
	Domain *domain_slot(u8 view);
	Domain *domain_by_id(u64 id) const;
	s64 may_move(u64 id, Domain **out) const;
	s64 may_build(u64 id, const rdt_cpu &cpu, Domain **out);
	Domain::Run *take_pages(const Domain &d, gfn_t first, u64 gva, u32 count, u32 kind, s64 *err);
	void drop_run(Domain::Run *r);
	void bury(Domain &d, bool ended);
	void drop_domains();
	bool only_root(const rdt_cpu &cpu);
	void report_border(const rdt_fault &f, const rdt_cpu *cpu);
	void report_domain(u8 code, const Domain *d, const rdt_cpu *cpu);

	Status next_rule(gfn_t from, Rule *out);
	/* After a rule has changed: no vCPU keeps a right that it had before. */
	void zap(gfn_t first, u64 count)
	{
		/* Policy lock. Who has not seen this has its store waited for by the zap. */
		write_once(policy_seq_, policy_seq_ + 1);
		/* Pairs with the fence in step_grant(). */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		step_.revoke(first, count);
		rdt_port_zap(host_, first, count);
	}
	s64 guest_error(Status s);
	s64 check_ram(gpa_t gpa, u64 pages) const;
	s64 set_bits(gfn_t first, u64 count);
	void lift(gfn_t first, u64 count);
	void tree_corrupt();
	void drop_guest_policy();

	rdt_event event_for(u16 type, const rdt_cpu *cpu) const;
	void raise(rdt_event &ev) const
	{
		rdt_port_event(host_, &ev);
	}
	void report_write(const rdt_fault &f, const rdt_cpu *cpu, const Rule &rule, u8 action);
	static bool steppable(const rdt_fault &f, const Rule &rule, u8 action);
	bool step_hold(StepFrames::Frame &f);
	void step_undo(StepFrames::Frame &f);
	void step_release();
	void step_stop();
	void report_step(const StepFrames::Frame &f, unsigned word, u8 action, bool event);
	void report_refused(u16 type, const rdt_cpu *cpu, gpa_t gpa, u64 pages);

	static bool may_only_add(const Range &existing, const Range *wanted, void *ctx);

	void *host_;
	FrameBitmap restricted_;
	MonitorTree tree_;
	Integrity *integrity_ = nullptr;
	Domains *domains_ = nullptr;
	rdt_domain_quota quota_ = {};
	bool corrupt_reported_ = false;
	bool closing_ = false; /* nobody gets in; see detach() */
	bool ended_ = false;   /* policy lock */
	u32 policy_seq_ = 0;   /* rules that took a right away; wraps */

	struct NodePage {
		NodePage *next;
		gfn_t gfn;
		void *pin;
	};
	NodePage *node_pages_ = nullptr;

	/* Counters for info(); relaxed. Of integrity mode: what a driver that is gone had. */
	u64 enters_ = 0, aexits_ = 0, steps_ = 0;

	StepFrames step_;
	rdt_cpu writer_ = {}; /* the step's, as it began */

	friend struct VmTester;
};

/* KVM's hypercall error numbers (arch-independent ABI, linux/kvm_para.h). */
enum : s64 {
	hc_enosys = -1000,
	hc_efault = -14,
	hc_einval = -22,
	hc_e2big = -7,
	hc_eperm = -1,
	hc_enomem = -12,
	hc_ebusy = -16,
	hc_eexist = -17,
	hc_enoent = -2,
	hc_eagain = -11,
	hc_enodev = -19,
	hc_euclean = -117,
	hc_enospc = -28,
	hc_edquot = -122,
	hc_enokey = -126,
	hc_eacces = -13,
	hc_exdev = -18,
};

} // namespace redoubt
