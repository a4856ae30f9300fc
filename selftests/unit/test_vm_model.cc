// SPDX-License-Identifier: GPL-2.0
/*
 * Random hypercalls, faults and operator's calls of a guest with two vCPUs against
 * a model that knows the rules and nothing of how the core keeps them: a map from
 * frame to rule, a list of threads. After each step the answer, the events, the
 * zaps and the registers must be the model's; now and then every frame.
 */
#include <map>
#include <optional>
#include <random>

#include "vm_world.h"

using namespace redoubt;

namespace {

enum class Kind { None, Node, Text, Data, Gate, Exit, Idt };

struct Entry {
	u8 action, cls;
	bool op; /* the operator's */
};

/* The rules of the house, said in the plainest way. */
struct Model {
	std::map<gfn_t, Entry> rule;
	std::map<gfn_t, Kind> kind;
	std::set<gfn_t> pv;
	u64 ram = lay::frames;
	bool sealed = false;

	Kind kind_of(gfn_t g) const
	{
		auto it = kind.find(g);

		return it == kind.end() ? Kind::None : it->second;
	}
	bool restricted(gfn_t g) const
	{
		return kind_of(g) != Kind::None || rule.count(g);
	}
	bool own(gfn_t g) const /* Redoubt's own: not to be changed by anybody */
	{
		return kind_of(g) != Kind::None && kind_of(g) != Kind::Idt;
	}
	u8 access(bool inside, gfn_t g) const
	{
		const Kind k = kind_of(g);

		if (!inside) {
			if (!restricted(g))
				return RDT_ACC_RWX;
			return k == Kind::Data || k == Kind::Gate ? RDT_ACC_R : RDT_ACC_R | RDT_ACC_X;
		}
		if (k == Kind::Idt)
			return 0;
		if (k == Kind::Text || k == Kind::Gate)
			return RDT_ACC_R | RDT_ACC_X;
		if (k == Kind::Data || !restricted(g))
			return RDT_ACC_R | RDT_ACC_W;
		return RDT_ACC_R;
	}
	/* Action and class of a refused write. */
	Entry answer(gfn_t g) const
	{
		switch (kind_of(g)) {
		case Kind::Node:
			return {RDT_ACT_DENY, RDT_CLS_NODE, false};
		case Kind::Text:
			return {RDT_ACT_DENY, RDT_CLS_DRV_TEXT, false};
		case Kind::Data:
			return {RDT_ACT_DENY, RDT_CLS_DRV_DATA, false};
		case Kind::Gate:
			return {RDT_ACT_DENY, RDT_CLS_DRV_GATE, false};
		case Kind::Exit:
			return {RDT_ACT_DENY, RDT_CLS_DRV_EXIT, false};
		default:
			return rule.count(g) ? rule.at(g) : Entry{0, 0, false};
		}
	}
	s64 check(gpa_t gpa, u64 n) const
	{
		if (gpa % page_size || n == 0 || gpa >> 52 || n > (1ul << 40) - (gpa >> 12))
			return -22;
		return (gpa >> 12) + n > ram ? -14 : 0;
	}
	enum Who { normal, within, op };
	/* PROTECT; *event: an alert is due. */
	s64 protect(gpa_t gpa, u64 n, u64 attr, Who who, bool *event)
	{
		const u8 action = static_cast<u8>(attr), cls = static_cast<u8>(attr >> 8);
		const gfn_t first = gpa >> 12;

		if (attr >> 16 || action < 1 || action > 3 || cls > 0x7f)
			return -22;
		if (s64 e = check(gpa, n))
			return e;
		for (gfn_t g = first; g < first + n; g++)
			if (own(g)) {
				*event = who != op;
				return -1;
			}
		for (gfn_t g = first; g < first + n; g++)
			if (pv.count(g))
				return -16;
		for (gfn_t g = first; g < first + n; g++) {
			auto it = rule.find(g);

			if (it == rule.end() || who == op)
				continue;
			const Entry &e = it->second;
			const bool same = e.action == action && e.cls == cls && !e.op;

			if (same || (!e.op && (who == within || action > e.action)))
				continue;
			*event = true;
			return -1;
		}
		for (gfn_t g = first; g < first + n; g++)
			rule[g] = {action, cls, who == op};
		return 0;
	}
	s64 unprotect(gpa_t gpa, u64 n, Who who, bool *event)
	{
		const gfn_t first = gpa >> 12;
		bool any = false;

		if (who == normal) {
			*event = true;
			return -1;
		}
		if (gpa % page_size || n == 0 || gpa >> 52 || n > (1ul << 40) - first)
			return -22;
		for (const auto &[g, k] : kind)
			if (g >= first && g - first < n) {
				*event = who != op;
				return -1;
			}
		for (auto it = rule.lower_bound(first); it != rule.end() && it->first - first < n; ++it) {
			any = true;
			if (it->second.op && who != op) {
				*event = true;
				return -1;
			}
		}
		if (!any)
			return -2;
		rule.erase(rule.lower_bound(first), n > ram ? rule.end() : rule.lower_bound(first + n));
		return 0;
	}
	/* Ranges the tree must have: the longest runs of one rule. */
	u64 ranges() const
	{
		u64 n = 0;
		gfn_t end = ~gfn_t{0};
		Entry last = {};

		for (const auto &[g, e] : rule) {
			n += g != end || e.action != last.action || e.cls != last.cls || e.op != last.op;
			end = g + 1;
			last = e;
		}
		return n;
	}
};

struct Thread {
	Regs regs;    /* as it left the CPU */
	Regs caller;  /* what it goes back to */
	u64 token;
	unsigned slot;
};

class Sim {
public:
	Sim(u64 seed, u32 slots) : rng(seed), slots_(slots)
	{
		busy_.resize(slots);
	}

	void run(unsigned steps)
	{
		start();
		for (step_ = 0; step_ < steps; step_++) {
			SCOPED_TRACE("step " + std::to_string(step_));
			one();
			if (step_ % 2500 == 0)
				compare_all();
			if (::testing::Test::HasFailure())
				return;
		}
		compare_all();
		/* Rare ones, too: nothing that can be done was left out. */
		for (const char *what : {"protect ok", "protect -1", "protect -22", "protect -14", "protect -16",
					 "unprotect ok", "unprotect -1", "unprotect -2", "operator ok", "enter",
					 "enter refused", "leave", "aexit", "resume", "resume refused", "drop",
					 "violation", "denied", "frozen", "logged", "node"})
			EXPECT_GT(count_[what], 0u) << what;
	}

private:
	std::mt19937_64 rng;
	World w{2};
	Model m;
	u32 slots_;
	unsigned step_ = 0;
	std::vector<bool> busy_;
	std::optional<Thread> in_[2]; /* who is inside on which vCPU */
	std::vector<Thread> out_;     /* interrupted */
	std::vector<u64> stale_;
	std::map<std::string, unsigned> count_;

	u64 pick(u64 n)
	{
		return rng() % n;
	}
	bool often(unsigned percent)
	{
		return pick(100) < percent;
	}

	void start()
	{
		/* Enough nodes for the worst of these ranges. */
		for (unsigned i = 0; i < 6; i++) {
			ASSERT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes + i)), i + 1);
			m.kind[lay::nodes + i] = Kind::Node;
		}
		ASSERT_EQ(w.seal(good_desc(slots_)), 0);
		m.kind[lay::text] = m.kind[lay::call] = Kind::Text;
		m.kind[lay::gate] = Kind::Gate;
		m.kind[lay::exit] = Kind::Exit;
		for (gfn_t g = lay::data; g < lay::data_end; g++)
			m.kind[g] = Kind::Data;
		m.kind[lay::idt] = Kind::Idt;
		m.rule[lay::idt] = {RDT_ACT_DENY, RDT_CLS_IDT, false};
		m.pv = {250, 251};
		w.host.pv = {{gpa_of(250) + 4000, 200}};
		w.quiet();
	}

	gfn_t frame()
	{
		switch (pick(8)) {
		case 0:
			return pick(70); /* Redoubt's own neighbourhood */
		case 1:
			return 245 + pick(10);
		case 2:
			return lay::frames - 4 + pick(6);
		default:
			return 100 + pick(60);
		}
	}
	u64 length()
	{
		return often(90) ? pick(8) + 1 : often(50) ? pick(200) : rng();
	}
	gpa_t address()
	{
		const gpa_t gpa = gpa_of(frame());

		return often(95) ? gpa : often(50) ? gpa + pick(4096) : rng();
	}
	u64 attribute()
	{
		const u64 a = RDT_ATTR(pick(3) + 1, pick(2));

		return often(95) ? a : often(50) ? RDT_ATTR(pick(6), pick(256)) : rng();
	}

	void expect_events(unsigned n, u16 type = 0)
	{
		const auto ev = w.host.take_events();

		ASSERT_EQ(ev.size(), n);
		for (const rdt_event &e : ev)
			EXPECT_EQ(e.type, type);
	}
	void expect_zap(bool due, gpa_t gpa, u64 n)
	{
		const auto z = w.host.take_zaps();

		ASSERT_EQ(z.size(), due ? 1u : 0u);
		if (due) {
			EXPECT_EQ(z[0].first, gpa >> 12);
			EXPECT_EQ(z[0].count, n);
		}
	}
	void tally(const char *what, s64 r)
	{
		count_[std::string(what) + (r >= 0 ? " ok" : " " + std::to_string(r))]++;
	}

	void protect(unsigned v)
	{
		const gpa_t gpa = address();
		const u64 n = length(), attr = attribute();
		bool event = false;
		const s64 want = m.protect(gpa, n, attr, in_[v] ? Model::within : Model::normal, &event);

		EXPECT_EQ(w[v].hc(RDT_HC_PROTECT, gpa, n, attr), want);
		expect_events(event, RDT_EV_PROTECT_REFUSED);
		expect_zap(want == 0, gpa, n);
		tally("protect", want);
	}
	void unprotect(unsigned v)
	{
		const gpa_t gpa = address();
		const u64 n = length();
		bool event = false;
		const s64 want = m.unprotect(gpa, n, in_[v] ? Model::within : Model::normal, &event);

		EXPECT_EQ(w[v].hc(RDT_HC_UNPROTECT, gpa, n), want);
		expect_events(event, in_[v] ? RDT_EV_PROTECT_REFUSED : RDT_EV_UNPROTECT);
		expect_zap(false, 0, 0);
		tally("unprotect", want);
	}
	void as_operator()
	{
		const gpa_t gpa = address();
		const u64 n = length();
		const u8 action = static_cast<u8>(often(50) ? 0 : pick(5)), cls = static_cast<u8>(pick(3));
		bool event = false;
		const s64 want = action ? m.protect(gpa, n, RDT_ATTR(action, cls), Model::op, &event)
					: m.unprotect(gpa, n, Model::op, &event);

		EXPECT_EQ(rdt_core_protect(w.vm, gpa, n, action, cls), want);
		expect_events(0);
		expect_zap(action && want == 0, gpa, n);
		tally("operator", want);
	}
	void query(unsigned v)
	{
		const gpa_t gpa = often(95) ? gpa_of(frame()) + pick(4096) : rng();
		s64 want = -22;

		if (gpa >> 52 == 0) {
			const Entry e = m.answer(gpa >> 12);

			want = static_cast<s64>(RDT_ATTR(e.action, e.cls));
		}
		EXPECT_EQ(w[v].hc(RDT_HC_QUERY, gpa), want);
		expect_events(0);
	}
	void node_add(unsigned v)
	{
		const gpa_t gpa = address();
		const gfn_t g = gpa >> 12;
		s64 want = m.check(gpa, 1);

		if (!want && (m.restricted(g) || m.pv.count(g)))
			want = -16;
		/* A few more only, or there is no RAM left to play with. */
		if (!want) {
			u64 nodes = 0;

			for (const auto &[f, k] : m.kind)
				nodes += k == Kind::Node;
			if (nodes >= 10)
				return;
			want = static_cast<s64>(nodes + 1);
			m.kind[g] = Kind::Node;
			count_["node"]++;
		}
		EXPECT_EQ(w[v].hc(RDT_HC_NODE_ADD, gpa), want);
		expect_events(0);
		expect_zap(want > 0, gpa, 1);
	}

	void went_back(unsigned v, u64 result)
	{
		Regs want;
		const Regs &c = in_[v]->caller;

		want.gpr[rax] = result;
		for (unsigned k : {rbx, rbp, r12, r13, r14, r15})
			want.gpr[k] = c.gpr[k];
		want.rip = c.gpr[r11];
		want.rsp = c.rsp;
		want.cr3 = c.cr3;
		want.rflags = c.rflags;
		EXPECT_TRUE(w[v].regs == want);
		EXPECT_FALSE(w[v].inside());
		busy_[in_[v]->slot] = false;
		in_[v].reset();
	}

	void enter(unsigned v)
	{
		Cpu &c = w[v];
		const bool by_fault = often(50);
		unsigned wrong = often(85) ? 0 : static_cast<unsigned>(pick(4)) + 1;
		u8 code = 0;

		if (in_[v])
			return leave(v);
		c.short_way = often(50);
		c.regs = Regs::numbered(rng() & 0xffffff);
		c.regs.gpr[r11] = lay::back + pick(1000);
		switch (wrong) {
		case 1:
			c.cpl = 3;
			code = RDT_GATE_BAD_CPL;
			break;
		case 2:
			c.idt_base ^= 4096;
			code = RDT_GATE_BAD_IDT;
			break;
		case 3:
			c.va_bits = 57;
			code = RDT_GATE_BAD_STATE;
			break;
		case 4:
			c.regs.gpr[r11] = 1ul << 60;
			code = RDT_GATE_BAD_STATE;
			break;
		}
		const Regs before = c.regs;
		bool free = false;

		for (bool b : busy_)
			free |= !b;
		if (by_fault)
			(void)c.enter_fault();
		else
			(void)c.enter_call();
		c.cpl = 0;
		c.va_bits = 48;
		c.idt_base = lay::idt_gva;
		if (!code && free) {
			ASSERT_TRUE(c.inside());
			unsigned slot = ~0u;

			for (unsigned i = 0; i < slots_; i++)
				if (c.regs.rsp == lay::stack(i))
					slot = i;
			ASSERT_LT(slot, slots_);
			EXPECT_FALSE(busy_[slot]) << "a stack in use";
			EXPECT_EQ(c.regs.cr3, lay::cr3);
			EXPECT_EQ(c.regs.rip, by_fault ? lay::gate_gva : lay::call_gva);
			busy_[slot] = true;
			in_[v] = Thread{{}, before, 0, slot};
			c.regs = Regs::numbered(rng() & 0xffffff);
			c.regs.rip = lay::inside + pick(8192);
			expect_events(0);
			count_["enter"]++;
			return;
		}
		EXPECT_FALSE(c.inside());
		const auto ev = w.host.take_events();

		ASSERT_EQ(ev.size(), 1u);
		EXPECT_EQ(ev[0].type, RDT_EV_GATE);
		EXPECT_EQ(ev[0].code, code ? code : u8{RDT_GATE_NO_SLOT});
		count_["enter refused"]++;
	}
	void leave(unsigned v)
	{
		const u64 result = rng();

		if (!in_[v]) {
			EXPECT_EQ(w[v].call(RDT_HC_LEAVE, result).value, -1);
			expect_events(1, RDT_EV_GATE);
			return;
		}
		w[v].short_way = often(50);
		if (often(50))
			EXPECT_EQ(w[v].leave_fault(result), RDT_V_RESUME);
		else
			EXPECT_TRUE(w[v].leave_call(result));
		went_back(v, result);
		expect_events(0);
		count_["leave"]++;
	}
	void strike(unsigned v)
	{
		Cpu &c = w[v];

		if (!in_[v])
			return;
		Thread t = *in_[v];

		t.regs = c.regs;
		const u8 len = static_cast<u8>(often(20) ? pick(16) : 0);

		t.regs.rip += len;
		t.token = c.strike(len);
		EXPECT_EQ(c.regs.rip, lay::resume_gva);
		EXPECT_EQ(c.regs.rsp, t.caller.rsp);
		EXPECT_EQ(c.regs.cr3, t.caller.cr3);
		for (unsigned i = 0; i < 16; i++)
			if (i != rdi && i != rsp_stale)
				EXPECT_EQ(c.regs.gpr[i], 0u);
		in_[v].reset();
		out_.push_back(t);
		expect_events(0);
		count_["aexit"]++;
	}
	void resume(unsigned v)
	{
		Cpu &c = w[v];
		const bool good = !out_.empty() && often(80);
		const u64 which = out_.empty() ? 0 : pick(out_.size());
		const u64 token = good ? out_[which].token
				  : !stale_.empty() && often(50) ? stale_[pick(stale_.size())]
								 : rng();
		const bool drop = often(5);

		if (in_[v]) {
			EXPECT_EQ(c.resume(token).value, -1);
			expect_events(1, RDT_EV_GATE);
			return;
		}
		c.regs = Regs::numbered(rng() & 0xffffff);
		c.regs.gpr[r11] = lay::back;
		const Regs stub = c.regs;
		const Cpu::Result r = c.resume(token, drop);

		if (!good) {
			EXPECT_EQ(r.value, -22);
			expect_events(1, RDT_EV_GATE);
			count_["resume refused"]++;
			return;
		}
		Thread t = out_[which];

		out_.erase(out_.begin() + static_cast<long>(which));
		stale_.push_back(token);
		expect_events(0);
		if (drop) {
			EXPECT_FALSE(r.switched);
			EXPECT_EQ(r.value, 0);
			busy_[t.slot] = false;
			count_["drop"]++;
			return;
		}
		ASSERT_TRUE(r.switched);
		EXPECT_TRUE(c.regs == t.regs);
		t.caller.rsp = stub.rsp;
		t.caller.cr3 = stub.cr3;
		in_[v] = t;
		count_["resume"]++;
	}

	void access(unsigned v)
	{
		Cpu &c = w[v];
		const gfn_t g = frame();
		const gpa_t gpa = gpa_of(g) + pick(4096);
		const u8 access = static_cast<u8>(often(70) ? RDT_ACC_W : often(50) ? RDT_ACC_R : RDT_ACC_X);
		const bool inside = in_[v].has_value();
		const Entry e = m.answer(g);

		EXPECT_EQ(w.access(inside, g), m.access(inside, g)) << g;
		/* The doors and the IDT have their own steps. */
		if (access == RDT_ACC_X && (g == lay::gate || g == lay::exit))
			return;
		c.short_way = often(50);
		const rdt_verdict verdict = c.fault(gpa, access);

		if (m.access(inside, g) & access) {
			EXPECT_EQ(verdict, RDT_V_PASS);
			expect_events(0);
			return;
		}
		if (inside) {
			EXPECT_EQ(verdict, RDT_V_RESUME);
			went_back(v, static_cast<u64>(-1l));
			EXPECT_EQ(w.host.take_events().size(), 1u);
			count_["violation"]++;
			return;
		}
		if (access == RDT_ACC_X) {
			EXPECT_EQ(verdict, RDT_V_GP);
			expect_events(1, RDT_EV_EXEC);
			return;
		}
		EXPECT_EQ(verdict, e.action == RDT_ACT_LOG    ? RDT_V_STEP
				   : e.action == RDT_ACT_DENY ? RDT_V_GP
							      : RDT_V_FREEZE);
		if (e.action == RDT_ACT_LOG) {
			expect_events(0);
			count_["logged"]++;
			return;
		}
		const auto ev = w.host.take_events();

		ASSERT_EQ(ev.size(), 1u);
		EXPECT_EQ(ev[0].cls, e.cls);
		EXPECT_EQ(ev[0].action, e.action);
		EXPECT_EQ(ev[0].gpa, gpa);
		EXPECT_LE(ev[0].range_gpa, gpa);
		EXPECT_GT(ev[0].range_gpa + ev[0].range_pages * page_size, gpa);
		count_[e.action == RDT_ACT_DENY ? "denied" : "frozen"]++;
	}
	void kvm_writes(unsigned v)
	{
		const gfn_t g = frame();
		const bool inside = in_[v].has_value();
		const Entry e = m.answer(g);
		const bool granted = m.access(inside, g) & RDT_ACC_W;
		const bool pass = granted || (e.action == RDT_ACT_LOG && !inside);

		EXPECT_EQ(w[v].kvm_write(gpa_of(g)), pass ? RDT_V_PASS : RDT_V_GP);
		EXPECT_EQ(w.host.take_events().size(), granted ? 0u : 1u);
	}
	void others()
	{
		const gfn_t g = frame();
		const u64 n = pick(5) + 1;
		bool hit = false;

		for (gfn_t f = g; f < g + n; f++)
			hit |= m.restricted(f);
		if (often(50)) {
			EXPECT_EQ(rdt_core_may_hold_pv(w.vm, gpa_of(g), n * page_size), !hit);
			expect_events(hit, RDT_EV_PV_STRUCT);
		} else {
			rdt_core_mapping_changed(w.vm, g, n);
			expect_events(hit, RDT_EV_MAPPING_CHANGED);
		}
		EXPECT_EQ(w.seal(good_desc()), -17);
		w.quiet();
	}

	void one()
	{
		const unsigned v = static_cast<unsigned>(pick(2));

		switch (pick(20)) {
		case 0: case 1: case 2:
			return protect(v);
		case 3:
			return unprotect(v);
		case 4: case 5:
			return as_operator();
		case 6:
			return query(v);
		case 7:
			return often(20) ? node_add(v) : others();
		case 8: case 9: case 10:
			return enter(v);
		case 11:
			return leave(v);
		case 12: case 13:
			return strike(v);
		case 14: case 15:
			return resume(v);
		case 16:
			return kvm_writes(v);
		default:
			return access(v);
		}
	}

	void compare_all()
	{
		rdt_vm_info info = {};
		u64 restricted = 0, busy = 0;

		for (gfn_t g = 0; g < lay::frames + 8; g++) {
			ASSERT_EQ(w.access(RDT_VIEW_ROOT, g), m.access(false, g)) << g;
			ASSERT_EQ(w.access(RDT_VIEW_INTEGRITY, g), m.access(true, g)) << g;
			restricted += m.restricted(g);
		}
		for (bool b : busy_)
			busy += b;
		rdt_core_info(w.vm, &info);
		EXPECT_EQ(info.frames, restricted);
		EXPECT_EQ(info.ranges, m.ranges());
		EXPECT_EQ(info.slots_busy, busy);
		EXPECT_FALSE(info.flags & RDT_VM_TREE_CORRUPT);
		EXPECT_EQ(rdt_core_detach(w.vm, 0), busy ? -16 : 0);
		if (!busy) {
			/* It was let go: a refused detach opens it again, and so does nothing else. */
			EXPECT_FALSE(w[0].enter_call());
			reopen();
		}
		w.quiet();
	}
	/* There is no way back from a detach but the end: start a new guest. */
	void reopen()
	{
		w.end();
		w.host.memslots = {{0, lay::frames}};
		w.host.pv.clear();
		w.vm = rdt_core_vm_create(&w.host);
		for (unsigned i = 0; i < 2; i++)
			w.cpu.push_back(std::make_unique<Cpu>(w.vm, w.host, i));
		m = Model();
		out_.clear();
		stale_.clear();
		start();
	}
};

} // namespace

TEST(A5, ModelOfThePolicyTwoSlots)
{
	Sim(1, 2).run(300000);
}

TEST(A5, ModelOfThePolicyOneSlot)
{
	Sim(2, 1).run(150000);
}

TEST(A5, ModelOfThePolicyManySlots)
{
	Sim(3, 12).run(150000);
}
