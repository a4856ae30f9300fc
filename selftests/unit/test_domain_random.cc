// SPDX-License-Identifier: GPL-2.0
/*
 * C1, C5, C8, C9: a guest that tries everything. Random calls with arguments that are
 * nearly right, from the root view and from inside of domains, faults, events and resumes,
 * against a model that knows who owns what. After each step the rights of every view on
 * every frame that anybody touched are those of the model.
 */
#include <optional>
#include <random>

#include "domain_world.h"

using namespace redoubt;

namespace {

enum Kind : u8 { none, text, data, gate, exit_, table };

struct Model {
	struct Dom {
		u64 id;
		bool sealed = false, dying = false;
		std::map<gfn_t, Kind> frames;
		std::set<gfn_t> shared;
		unsigned inside = 0;
	};
	std::map<u8, Dom> dom; /* by view */
	std::set<gfn_t> rule;

	const Dom *owner(gfn_t g) const
	{
		for (const auto &[view, d] : dom)
			if (d.frames.count(g))
				return &d;
		return nullptr;
	}
	u8 access(u8 view, gfn_t g) const
	{
		const u8 R = RDT_ACC_R, W = RDT_ACC_W, X = RDT_ACC_X;
		const Dom *o = owner(g);

		if (view == RDT_VIEW_ROOT)
			return o ? 0 : rule.count(g) ? R | X : R | W | X;
		if (view == RDT_VIEW_INTEGRITY)
			return o ? 0 : rule.count(g) ? R : R | W;
		auto it = dom.find(view);

		if (it == dom.end())
			return 0;
		if (o)
			return o != &it->second				   ? 0
			       : o->frames.at(g) == text || o->frames.at(g) == gate ? R | X
			       : o->frames.at(g) == exit_			   ? R
										   : R | W;
		return it->second.shared.count(g) && !rule.count(g) ? R | W : 0;
	}
};

class Guest {
public:
	explicit Guest(u32 seed) : w(vcpus), rng(seed)
	{
		const rdt_domain_quota q = {most, 0, 40, 100};

		EXPECT_EQ(rdt_core_domain_set_quota(w.vm, &q), 0);
		w.give_nodes();
		w.quiet();
	}

	void run(unsigned steps)
	{
		for (unsigned i = 0; i < steps && !testing::Test::HasFailure(); i++) {
			SCOPED_TRACE("step " + std::to_string(i));
			step();
			/* Each frame that can be in play, in every view. */
			for (gfn_t g = first; g < first + frames; g++)
				for (u8 view = 0; view < RDT_VIEW_STEP; view++)
					ASSERT_EQ(w.access(view, g), m.access(view, g))
						<< "view " << +view << " frame " << g;
			usize owned = 0;

			for (const auto &[view, d] : m.dom)
				owned += d.frames.size();
			ASSERT_EQ(w.host.pages(), owned);
			ASSERT_EQ(w.vm_info().domains, m.dom.size());
			ASSERT_EQ(w.vm_info().domain_frames, owned);
			w.quiet();
		}
	}
	unsigned made = 0, sealed = 0, entered = 0, resumed = 0, ended = 0, refused = 0;

private:
	static constexpr unsigned vcpus = 3, most = 3;
	static constexpr gfn_t first = 128, frames = 96;
	static constexpr u64 base = 0x70000000;

	u64 upto(u64 n)
	{
		return rng() % n;
	}
	/* Mostly one that is there. */
	u64 some_id()
	{
		if (m.dom.empty() || upto(16) == 0)
			return last_id ^ (upto(2) << 8);
		auto it = m.dom.begin();

		std::advance(it, static_cast<long>(upto(m.dom.size())));
		return it->second.id;
	}
	Model::Dom *find(u64 id)
	{
		auto it = m.dom.find(static_cast<u8>(id));

		return it != m.dom.end() && it->second.id == id ? &it->second : nullptr;
	}
	Model::Dom &of(Cpu &c)
	{
		return m.dom.at(c.view());
	}

	void step()
	{
		Cpu &c = w[upto(vcpus)];

		c.cpl = 0;
		c.regs.gpr[r11] = lay::back;
		if (c.view() == RDT_VIEW_ROOT)
			from_root(c);
		else
			from_inside(c);
	}

	void from_root(Cpu &c)
	{
		const u64 id = some_id();
		Model::Dom *d = find(id);
		const gfn_t g = first + upto(frames);

		switch (upto(12)) {
		case 0: {
			rdt_domain_desc desc = {};

			desc.size = sizeof(desc);
			desc.gate_gva = base + 0x1000;
			desc.exit_gva = base + 0x2000;
			desc.slots = 1 + static_cast<u32>(upto(2));
			for (unsigned i = 0; i < desc.slots; i++)
				desc.stack_top[i] = base + 0x4000;
			desc.windows = static_cast<u32>(upto(2));
			desc.window[0] = {desc.windows ? base + 0x8000 : 0, desc.windows};
			if (upto(8) == 0)
				desc.slots = 0;
			w.host.at<rdt_domain_desc>(gpa_of(lay::desc)) = desc;
			const s64 r = c.hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc));

			ASSERT_EQ(r > 0, desc.slots != 0 && m.dom.size() < most) << r;
			if (r > 0) {
				made++;
				last_id = static_cast<u64>(r);
				ASSERT_EQ(m.dom.count(static_cast<u8>(r)), 0u) << "a view of somebody's";
				m.dom[static_cast<u8>(r)] = {};
				m.dom[static_cast<u8>(r)].id = last_id;
			}
			break;
		}
		case 1:
		case 2:
		case 3:
		case 4: {
			/* What this domain lacks, more often than not. */
			const Kind order[] = {text, gate, exit_, data, table};
			Kind k = order[upto(5)];

			if (d && upto(4))
				for (Kind want : order) {
					bool has = false;

					for (const auto &[f, kind] : d->frames)
						has |= kind == want;
					if (!has) {
						k = want;
						break;
					}
				}
			const u64 gva = k == table ? 0 : base + (k == text ? 0 : k == gate ? 1 : k == exit_ ? 2 : 3) * 0x1000;
			const u64 n = k == table ? 4 : 1, kinds[] = {0, 1, 2, 3, 4, 5};
			const s64 r = c.hc(RDT_HC_DOM_ADD, id, gpa_of(g), gva, RDT_DOM_PAGES(n, kinds[k]));

			if (r) {
				refused++;
				break;
			}
			ASSERT_TRUE(d && !d->sealed && !d->dying);
			for (u64 i = 0; i < n; i++) {
				ASSERT_FALSE(m.owner(g + i)) << "two owners";
				ASSERT_FALSE(m.rule.count(g + i));
				d->frames[g + i] = k;
			}
			break;
		}
		case 5: {
			const s64 r = c.hc(RDT_HC_DOM_SHARE, id, gpa_of(g), base + 0x8000, 1);

			if (r == 0) {
				ASSERT_TRUE(d && !d->sealed && !m.owner(g) && !m.rule.count(g));
				d->shared.insert(g);
			}
			break;
		}
		case 6: {
			const s64 r = c.hc(RDT_HC_DOM_SEAL, id);

			if (r == 0) {
				ASSERT_TRUE(d && !d->sealed);
				d->sealed = true;
				sealed++;
			}
			break;
		}
		case 7:
			if (upto(3) == 0) {
				const s64 r = c.hc(RDT_HC_DOM_DESTROY, id);

				ASSERT_EQ(r, !d ? enoent : d->inside ? eagain : 0);
				if (r == 0) {
					m.dom.erase(static_cast<u8>(id));
					ended++;
				} else if (d) {
					d->dying = true;
				}
			}
			break;
		case 8: {
			/* Few, or there is nothing left for domains. */
			if (m.rule.size() > 16)
				break;

			/* By a vCPU that is in the root view. */
			const s64 r = c.hc(RDT_HC_PROTECT, gpa_of(g), 1, RDT_ATTR(RDT_ACT_DENY, 0));

			ASSERT_EQ(r, m.owner(g) ? eperm : 0);
			if (r == 0)
				m.rule.insert(g);
			break;
		}
		case 9: {
			const int r = rdt_core_protect(w.vm, gpa_of(g), 1, RDT_ACT_NONE, 0);

			ASSERT_EQ(r, m.owner(g) ? eperm : m.rule.count(g) ? 0 : enoent);
			m.rule.erase(g);
			break;
		}
		case 10: {
			const Cpu::Result r = c.call(RDT_HC_DOM_ENTER, id);

			if (r.switched) {
				ASSERT_TRUE(d && d->sealed && !d->dying);
				ASSERT_EQ(c.view(), static_cast<u8>(id));
				d->inside++;
				entered++;
			}
			break;
		}
		default: {
			if (tokens.empty())
				break;
			auto it = tokens.begin();

			std::advance(it, static_cast<long>(upto(tokens.size())));
			const auto [token, of_id] = *it;
			Model::Dom *owner = find(of_id);
			const Cpu::Result r = c.call(RDT_HC_RESUME, token);

			ASSERT_EQ(r.switched, owner && !owner->dying) << "once, and while the domain is there";
			tokens.erase(it);
			if (r.switched) {
				owner->inside++;
				resumed++;
				ASSERT_FALSE(c.call(RDT_HC_LEAVE, 0, 1).value == 0);
				ASSERT_EQ(c.view(), static_cast<u8>(of_id));
			}
			break;
		}
		}
	}

	void from_inside(Cpu &c)
	{
		Model::Dom &d = of(c);
		const u8 view = c.view();
		const gfn_t g = first + upto(frames);

		switch (upto(6)) {
		case 0:
			ASSERT_TRUE(c.leave_call(1));
			d.inside--;
			break;
		case 1: {
			const u64 token = DomWorld::strike_domain(c);

			tokens[token] = d.id;
			d.inside--;
			break;
		}
		case 2:
		case 3: {
			const u8 acc = static_cast<u8>(1 << upto(3));
			const bool may = m.access(view, g) & acc;
			const bool out = d.frames.count(g) && d.frames.at(g) == exit_ && acc == RDT_ACC_X;

			c.regs.rip = base + 0x2000;
			const rdt_verdict v = c.fault(gpa_of(g), acc);

			ASSERT_EQ(v, may ? RDT_V_PASS : RDT_V_RESUME);
			ASSERT_EQ(c.view(), may ? view : u8{RDT_VIEW_ROOT});
			ASSERT_EQ(w.host.take_events().empty(), may || out);
			if (!may)
				d.inside--;
			break;
		}
		default: {
			/* Every call of the root domain's, with what would be right there. */
			const u64 id = some_id();
			const u32 nr = static_cast<u32>(RDT_HC_DOM_CREATE + upto(8));
			const Cpu::Result r = c.call(nr, nr == RDT_HC_DOM_CREATE ? gpa_of(lay::desc) : id,
						     nr == RDT_HC_DOM_ADD ? gpa_of(g) : 0, 0,
						     nr == RDT_HC_DOM_ADD ? RDT_DOM_PAGES(1, RDT_DOM_TABLE) : 0);

			ASSERT_NE(r.value, 0);
			ASSERT_LT(r.value, 0);
			ASSERT_EQ(c.view(), view);
			break;
		}
		}
	}

	DomWorld w;
	std::mt19937_64 rng;
	Model m;
	std::map<u64, u64> tokens; /* and the domain of each */
	u64 last_id = 2;
};

} // namespace

TEST(C5, AGuestThatTriesEverything)
{
	unsigned made = 0, sealed = 0, entered = 0, resumed = 0, ended = 0, refused = 0;

	for (u32 seed = 1; seed <= 10 && !HasFailure(); seed++) {
		SCOPED_TRACE("seed " + std::to_string(seed));
		Guest g(seed);

		g.run(2000);
		made += g.made;
		sealed += g.sealed;
		entered += g.entered;
		resumed += g.resumed;
		ended += g.ended;
		refused += g.refused;
	}
	std::cout << made << " made, " << sealed << " sealed, " << entered << " entered, " << resumed
		  << " resumed, " << ended << " ended, " << refused << " adds refused\n";
	EXPECT_GT(sealed, 50u);
	EXPECT_GT(entered, 200u);
	EXPECT_GT(resumed, 50u);
	EXPECT_GT(ended, 100u);
	EXPECT_GT(refused, 500u);
}
