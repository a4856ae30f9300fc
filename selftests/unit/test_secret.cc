// SPDX-License-Identifier: GPL-2.0
/* D1, D2, D7: what a secret is made of, its value, and whose frames are whose. */
#include <openssl/sha.h>

#include "secret_world.h"

using namespace redoubt;

namespace {

std::string measured(SecWorld &w, s64 id)
{
	const rdt_domain_info i = w.info(DomWorld::view_of(id));

	return std::string(reinterpret_cast<const char *>(i.measurement), sizeof(i.measurement));
}

/* As Documentation/domains.md has it, put together by hand. Frames filled, not given yet. */
std::string expected(SecWorld &w, const SecPlan &p)
{
	std::string m = "redoubt-domain-1";
	auto le = [&](u64 v, unsigned bytes) {
		for (unsigned i = 0; i < bytes; i++)
			m += static_cast<char>(v >> 8 * i);
	};
	const u64 from = p.base + 0x2000;

	le(p.flags, 4), le(p.slots, 4), le(0, 8), le(0x10, 8), le(p.exit_gva() - from, 8);
	le(p.results, 4), le(p.rewind() ? p.erased : 0, 4), le(p.rewind() ? p.erasure : 0, 8);
	for (unsigned i = 0; i < p.slots; i++)
		le(0, 8);
	for (unsigned i = 0; i < SecPlan::frames; i++) {
		le(p.base + i * page_size - from, 8);
		le(i == 2 ? RDT_DOM_GATE : i == 3 ? RDT_DOM_EXIT : RDT_DOM_TEXT, 8);
		m.append(reinterpret_cast<const char *>(w.byte(p.first + i)), page_size);
	}
	m += "sealed";

	unsigned char sha[32];

	SHA256(reinterpret_cast<const unsigned char *>(m.data()), m.size(), sha);
	return std::string(reinterpret_cast<const char *>(sha), sizeof(sha));
}

constexpr u8 R = RDT_ACC_R, W = RDT_ACC_W, X = RDT_ACC_X;

} // namespace

TEST(D1, NobodyGetsInBeforeThereIsAValue)
{
	for (u32 more : {0u, u32{RDT_DOM_REWIND}}) {
		SecWorld w;
		const SecPlan p = SecPlan::nr(0, more);
		const s64 id = w.build(p);

		EXPECT_EQ(w.put(id), enoent) << "not sealed";
		ASSERT_EQ(w.seal_domain(id), 0);
		w.quiet();
		EXPECT_EQ(SecWorld::enter(w[0], p), RDT_V_RESUME);
		EXPECT_EQ(static_cast<s64>(w[0].regs.gpr[rax]), enokey);
		EXPECT_EQ(w[0].regs.rip, lay::back);
		EXPECT_EQ(w[0].view(), RDT_VIEW_ROOT);
		EXPECT_FALSE(w[0].no_idt);
		EXPECT_TRUE(w.host.take_events().empty()) << "it does nobody harm";
		EXPECT_EQ(w.info(2).installs, 0u);

		EXPECT_EQ(w.put(id), 0);
		w.expect_event(RDT_EV_DOMAIN, RDT_DOM_EV_INSTALLED);
		EXPECT_EQ(w.info(2).installs, 1u);
		EXPECT_EQ(SecWorld::enter(w[0], p), RDT_V_RESUME);
		EXPECT_TRUE(DomWorld::in(w[0], id));
		EXPECT_EQ(w[1].hc(RDT_HC_DOM_DESTROY, static_cast<u64>(id)), eagain);
		EXPECT_TRUE(w[0].no_idt);
		SecWorld::leave(w[0], p);
		EXPECT_EQ(w.destroy(id), 0);
	}
	/* One that never got its value goes, too. */
	SecWorld w;
	const s64 id = w.build(SecPlan::nr(0));

	ASSERT_EQ(w.seal_domain(id), 0);
	EXPECT_EQ(w.destroy(id), 0);
}

TEST(D1, ValuesLieOnTheGatePageOnly)
{
	SecWorld w;
	const SecPlan p = SecPlan::nr(0);
	const s64 id = w.make(p);
	const u8 *own = static_cast<const u8 *>(w.own(2, p.gate()));

	EXPECT_EQ(*reinterpret_cast<const u64 *>(own + 0x100), SecWorld::value);
	EXPECT_TRUE(w.all_zero(p.first, SecPlan::frames)) << "the VMM has nothing of it";
	EXPECT_EQ(w.put(id, -0x1000), efault) << "TEXT";
	EXPECT_EQ(w.put(id, 0x1000), efault) << "EXIT";
	EXPECT_EQ(w.put(id, 0x2000), efault) << "TEXT";
	EXPECT_EQ(w.put(id, 0xffc), efault) << "beyond it";
	EXPECT_EQ(w.put(id, -4), efault) << "before it";
	EXPECT_EQ(w.put(id, 0x8000), efault) << "nowhere";
	EXPECT_EQ(w.put(id, static_cast<s64>(1ull << 63)), efault);
	w.quiet();

	/* All places at once, or none. */
	const u64 v[2] = {0x1111, 0x2222};
	const rdt_fixup f[] = {{0x200, 0, 8}, {0x300, 8, 8}, {0x400, 4, 8}, {0x1000, 0, 1}};
	auto all = [&](u32 n) { return rdt_core_domain_install(w.vm, static_cast<u64>(id), v, 16, f, n); };

	EXPECT_EQ(all(4), efault);
	EXPECT_NE(*reinterpret_cast<const u64 *>(own + 0x200), 0x1111u);
	EXPECT_EQ(w.info(2).installs, 1u);
	EXPECT_EQ(all(3), 0);
	EXPECT_EQ(*reinterpret_cast<const u64 *>(own + 0x200), 0x1111u);
	EXPECT_EQ(*reinterpret_cast<const u64 *>(own + 0x300), 0x2222u);
	EXPECT_EQ(*reinterpret_cast<const u64 *>(own + 0x400), 0x222200000000u);
	w.quiet();
}

/* Nobody executes half a value, nor one half of this and one of that. */
TEST(D1, NotWhileSomebodyIsInside)
{
	SecWorld w;
	const SecPlan p = SecPlan::nr(0);
	const s64 id = w.make(p);

	ASSERT_EQ(SecWorld::enter(w[0], p), RDT_V_RESUME);
	EXPECT_EQ(w.put(id), eagain);
	EXPECT_EQ(SecWorld::enter(w[1], p), RDT_V_RESUME) << "the other slot is as it was";
	EXPECT_TRUE(DomWorld::in(w[1], id));
	SecWorld::leave(w[1], p);
	ASSERT_TRUE(w[0].event());
	EXPECT_EQ(w.put(id), eagain) << "he will go on with what he has loaded";
	EXPECT_TRUE(w[0].resume(w[0].regs.gpr[rdi]).switched);
	SecWorld::leave(w[0], p);
	EXPECT_EQ(w.put(id), 0);

	const SecPlan q = SecPlan::nr(1, RDT_DOM_REWIND);
	const s64 again = w.make(q);

	ASSERT_EQ(SecWorld::enter(w[0], q), RDT_V_RESUME);
	EXPECT_EQ(w.put(again), eagain);
	ASSERT_TRUE(w[0].event());
	EXPECT_EQ(w.put(again), 0) << "a call that is forgotten has nothing loaded";
}

TEST(D1, MeasuredAsOneWhereverItLies)
{
	std::set<std::string> seen;
	unsigned n = 0;
	auto one = [&](auto change) {
		SecWorld w;
		SecPlan p = SecPlan::nr(0);

		change(p);
		w.fill(p);
		const std::string want = expected(w, p);
		const s64 id = w.build(p);

		ASSERT_EQ(w.seal_domain(id), 0);
		EXPECT_EQ(measured(w, id), want);
		EXPECT_EQ(w.put(id), 0);
		EXPECT_EQ(measured(w, id), want) << "the value does not count";
		EXPECT_EQ(w.info(2).gate_gva, p.gate_gva());
		w.quiet();
		seen.insert(want);
		n++;
	};

	one([](SecPlan &) {});
	one([](SecPlan &p) { p.slots = 1; });
	one([](SecPlan &p) { p.results = bit(rax); });
	one([](SecPlan &p) { p.flags |= RDT_DOM_VECTOR; });
	one([](SecPlan &p) { p.flags |= RDT_DOM_REWIND; });
	one([](SecPlan &p) { p.flags |= RDT_DOM_REWIND, p.erased = bit(rax); });
	EXPECT_EQ(seen.size(), n);
	one([](SecPlan &p) { p.base += 0x1234000; });
	one([](SecPlan &p) { p.base = 0xffff888000000000; });
	EXPECT_EQ(seen.size(), n - 2) << "where it lies does not count";
}

TEST(D1, DescriptorsThatAreWrong)
{
	struct {
		u32 more;
		std::function<void(rdt_domain_desc &)> bad;
	} all[] = {
		{0, [](auto &d) { d.results = bit(4); }},
		{0, [](auto &d) { d.results = bit(16); }},
		{0, [](auto &d) { d.erased = bit(0); }},
		{0, [](auto &d) { d.erasure = 1; }},
		{0, [](auto &d) { d.windows = 1, d.window[0] = {0x10000, 1}; }},
		{0, [](auto &d) { d.window[0] = {0x10000, 1}; }},
		{0, [](auto &d) { d.stack_top[0] = 0x10000; }},
		{0, [](auto &d) { d.resume_gva = 1ull << 63; }},
		{0, [](auto &d) { d.exit_gva = d.gate_gva ^ 0x800; }},
		{0, [](auto &d) { d.gate_gva = 1ull << 63; }},
		{0, [](auto &d) { d.slots = 0; }},
		{0, [](auto &d) { d.slots = RDT_DOM_MAX_SLOTS + 1; }},
		{0, [](auto &d) { d.reserved[1] = 1; }},
		{0, [](auto &d) { d.flags |= 1u << 4; }},
		{RDT_DOM_REWIND, [](auto &d) { d.flags &= ~u32{RDT_DOM_SECRET}; }},
		{RDT_DOM_REWIND, [](auto &d) { d.erased = 0; }},
		{RDT_DOM_REWIND, [](auto &d) { d.erased |= bit(4); }},
		{RDT_DOM_REWIND, [](auto &d) { d.erased |= bit(11); }},
		{RDT_DOM_REWIND, [](auto &d) { d.erased |= bit(16); }},
		{RDT_DOM_REWIND, [](auto &d) { d.resume_gva = 0x1000; }},
	};

	for (usize i = 0; i < std::size(all); i++)
		for (bool execute_only : {true, false}) {
			SecWorld w(execute_only);
			rdt_domain_desc d = SecPlan::nr(0, all[i].more).desc();
			const Snapshot before = w.snapshot();

			all[i].bad(d);
			EXPECT_EQ(w.create(d), einval) << i;
			EXPECT_EQ(w.host.take_log().size(), 1u) << i;
			EXPECT_EQ(before.diff(w.snapshot()), "");
			EXPECT_EQ(w.vm_info().domains, 0u);
		}
}

TEST(D1, PagesThatAreNotASecrets)
{
	SecWorld w;
	const SecPlan p = SecPlan::nr(0);
	const s64 id = w.create(p.desc());

	ASSERT_GT(id, 0);
	EXPECT_EQ(w.add(id, p.text(), p.base, 1, RDT_DOM_DATA), einval);
	EXPECT_EQ(w.add(id, p.text(), 0, 1, RDT_DOM_TABLE), einval);
	EXPECT_EQ(w.add(id, p.gate(), p.base, 1, RDT_DOM_GATE), einval);
	EXPECT_EQ(w.share(id, 300, p.base + 0x10000, 1), einval);
	EXPECT_EQ(w.seal_domain(id), einval) << "no gate";
	EXPECT_EQ(w.add(id, p.gate(), p.base + 0x2000, 1, RDT_DOM_GATE), 0);
	EXPECT_EQ(w.seal_domain(id), einval) << "no exit";
	EXPECT_EQ(w.add(id, p.exit(), p.base + 0x3000, 1, RDT_DOM_EXIT), 0);
	EXPECT_EQ(w.seal_domain(id), 0) << "it need not have more";
	w.host.take_log();
	w.quiet();
}

/* --- whose frames are whose ---------------------------------------------------------- */

TEST(D7, Rights)
{
	for (bool execute_only : {true, false}) {
		SCOPED_TRACE(execute_only);
		SecWorld w(execute_only);

		w.give_nodes();
		ASSERT_EQ(w.seal(good_desc()), 0);
		ASSERT_EQ(w.protect(lay::plain, 1, RDT_ACT_LOG, 0), 0);
		const SecPlan p = SecPlan::nr(0), q = SecPlan::nr(1);
		const s64 id = w.make(p), other = w.make(q);
		const u8 view = DomWorld::view_of(id), work = static_cast<u8>(view + 1);
		const u8 text = execute_only ? X : R | X;

		for (u8 v = 0; v <= RDT_VIEW_STEP; v++)
			for (unsigned i = 0; i < SecPlan::frames; i++) {
				const bool gate = i == 2, exit = i == 3;
				const u8 want = exit ? 0 : gate ? (v == view ? text : 0) : v == work ? text : 0;

				EXPECT_EQ(w.access(v, p.first + i), want) << +v << " " << i;
				EXPECT_EQ(w.own(v, p.first + i) != nullptr, v == view || v == work) << +v << " " << i;
			}
		for (u8 v : {view, work}) {
			EXPECT_EQ(w.access(v, 300), R | W) << "the caller's memory";
			EXPECT_EQ(w.own(v, 300), nullptr);
			EXPECT_EQ(w.access(v, lay::plain), R) << "under a rule";
			EXPECT_EQ(w.access(v, lay::nodes), R);
			EXPECT_EQ(w.access(v, lay::idt), R);
			for (gfn_t g = lay::text; g < lay::data_end; g++)
				EXPECT_EQ(w.access(v, g), R) << "the integrity driver's";
			for (unsigned i = 0; i < SecPlan::frames; i++)
				EXPECT_EQ(w.access(v, q.first + i), 0) << "another's";
		}
		EXPECT_EQ(w.destroy(other), 0);
		EXPECT_EQ(w.access(view, q.first), R | W) << "the guest's again";
		w.quiet();
	}
}

TEST(D7, TwoViews)
{
	SecWorld w;
	std::vector<s64> id;

	for (unsigned n = 0; n < RDT_DOM_MAX / 2; n++)
		id.push_back(w.make(SecPlan::nr(n)));
	EXPECT_EQ(w.vm_info().domains, RDT_DOM_MAX / 2u);
	EXPECT_EQ(w.create(SecPlan::nr(20).desc()), enospc) << "one view is left";
	const s64 last = w.create(DomPlan::nr(30).desc());

	EXPECT_GT(last, 0) << "enough for a domain";
	EXPECT_EQ(w.create(DomPlan::nr(31).desc()), enospc);
	w.host.take_log();
	/* Listed once each. */
	unsigned n = 0;
	rdt_domain_info i;

	for (u32 v = 0; !rdt_core_domain_info(w.vm, v, &i); v = i.view + 1)
		n++;
	EXPECT_EQ(n, RDT_DOM_MAX / 2 + 1u);
	/* Both come back; in the second one nothing of the first is left. */
	w.host.take_zaps();
	w.touch(3, 300);
	EXPECT_EQ(w.host.spt.size(), 1u);
	EXPECT_EQ(w.destroy(id[0]), 0);
	EXPECT_TRUE(w.host.spt.empty()) << "what a secret saw is everything";
	EXPECT_EQ(w.access(3, 300), 0);
	const s64 a = w.create(DomPlan::nr(32).desc()), b = w.create(DomPlan::nr(33).desc());

	EXPECT_EQ(DomWorld::view_of(a), 2);
	EXPECT_EQ(DomWorld::view_of(b), 3);
	w.quiet();
}
