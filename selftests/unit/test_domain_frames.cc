// SPDX-License-Identifier: GPL-2.0
/* C5, D1: whose frame is whose, and who may touch it. */
#include "domain_world.h"

using namespace redoubt;

/* --- frames ------------------------------------------------------------------------ */

TEST(C5, ContentMovesAndTheVmmSeesZeros)
{
	DomWorld w;
	const DomPlan p = DomPlan::nr(2);

	w.fill(p);
	std::vector<u8> before(w.byte(p.first), w.byte(p.first) + 7 * page_size);
	const s64 id = w.make(p);
	const u8 view = DomWorld::view_of(id);

	EXPECT_TRUE(w.all_zero(p.first, DomPlan::frames));
	for (unsigned i = 0; i < 7; i++) {
		ASSERT_TRUE(w.own(view, p.first + i));
		EXPECT_EQ(std::memcmp(w.own(view, p.first + i), &before[i * page_size], page_size), 0) << i;
	}
	EXPECT_EQ(w.host.pages(), DomPlan::frames);
	EXPECT_EQ(w.vm_info().domain_frames, DomPlan::frames);
	EXPECT_EQ(w.vm_info().domains, 1u);
	EXPECT_EQ(w.info(view).frames, DomPlan::frames);
}

/* Before its content moves nobody in the guest has the frame any more. */
TEST(C5, FramesAreTakenBeforeTheyAreRead)
{
	DomWorld w;
	const DomPlan p = DomPlan::nr(2);
	bool right = false;

	w.fill(p);
	const s64 id = w.create(p.desc());

	for (u8 view : {u8{RDT_VIEW_ROOT}, u8{RDT_VIEW_INTEGRITY}})
		ASSERT_TRUE(w.touch(view, p.text()));
	w.host.on_zap = [&] {
		right = w.byte(p.text())[0] != 0 && w.access(RDT_VIEW_ROOT, p.text()) == 0 &&
			w.access(RDT_VIEW_INTEGRITY, p.text()) == 0;
	};
	ASSERT_EQ(w.add(id, p.text(), p.text_gva(), 1, RDT_DOM_TEXT), 0);
	EXPECT_TRUE(right);
	EXPECT_TRUE(w.host.spt.empty());
}

TEST(C5, RightsOfEveryViewOnEveryKind)
{
	DomWorld w;

	w.start();
	DomPlan a = DomPlan::nr(0), b = DomPlan::nr(1);

	a.windows = b.windows = 1;
	const s64 ida = w.build(a), idb = w.build(b);

	ASSERT_EQ(w.share(ida, lay::plain, a.window_gva(0), 2), 0);
	ASSERT_EQ(w.share(idb, lay::plain + 1, b.window_gva(0), 2), 0); /* one frame is both's */
	ASSERT_EQ(w.seal_domain(ida), 0);
	ASSERT_EQ(w.seal_domain(idb), 0);

	constexpr u8 R = RDT_ACC_R, W = RDT_ACC_W, X = RDT_ACC_X;
	const u8 kinds[DomPlan::frames] = {R | X, R | X, R | X, R,     R | W, R | W,
					   R | W, R | W, R | W, R | W, R | W};

	for (int v = 0; v < 40; v++) {
		const u8 view = static_cast<u8>(v);
		const bool in_a = view == DomWorld::view_of(ida), in_b = view == DomWorld::view_of(idb);

		SCOPED_TRACE("view " + std::to_string(v));
		for (unsigned i = 0; i < DomPlan::frames; i++) {
			EXPECT_EQ(w.access(view, a.first + i), in_a ? kinds[i] : 0) << i;
			EXPECT_EQ(w.access(view, b.first + i), in_b ? kinds[i] : 0) << i;
			EXPECT_EQ(w.own(view, a.first + i) != nullptr, in_a) << i;
			EXPECT_EQ(w.own(view, b.first + i) != nullptr, in_b) << i;
		}
		if (view < 2 || view == RDT_VIEW_STEP)
			continue;
		EXPECT_EQ(w.access(view, lay::plain), in_a ? R | W : 0);
		EXPECT_EQ(w.access(view, lay::plain + 1), in_a || in_b ? R | W : 0);
		EXPECT_EQ(w.access(view, lay::plain + 2), in_b ? R | W : 0);
		for (gfn_t g : {gfn_t{0}, lay::text, lay::data, lay::gate, lay::exit, lay::idt, lay::nodes,
				gfn_t{lay::frames}, gfn_limit, ~0ul})
			EXPECT_EQ(w.access(view, g), 0) << g;
		if (in_a || in_b)
			EXPECT_EQ(rdt_core_max_level(w.vm, view, 1 << 20, 3), 1) << "nothing near";
	}
	EXPECT_EQ(rdt_core_max_level(w.vm, 0, 1 << 20, 3), 3);
	for (u8 view : {u8{0}, u8{RDT_VIEW_STEP}})
		EXPECT_EQ(w.access(view, lay::plain + 1), RDT_ACC_RWX);
	EXPECT_EQ(w.access(1, lay::plain + 1), RDT_ACC_R | RDT_ACC_W);
}

/* A rule over a shared frame takes it from those it is shared with. */
TEST(C5, ARuleEndsSharing)
{
	DomWorld w;

	w.start();
	DomPlan p = DomPlan::nr(0);

	p.windows = 1;
	const s64 id = w.build(p);
	const u8 view = DomWorld::view_of(id);

	ASSERT_EQ(w.share(id, lay::plain, p.window_gva(0), 2), 0);
	ASSERT_EQ(w.seal_domain(id), 0);
	ASSERT_TRUE(w.touch(view, lay::plain));
	for (u8 action : {u8{RDT_ACT_LOG}, u8{RDT_ACT_DENY}}) {
		ASSERT_EQ(w.protect(lay::plain, 1, action, 0), 0);
		EXPECT_TRUE(w.host.spt.empty());
		EXPECT_EQ(w.access(view, lay::plain), 0);
	}
	EXPECT_EQ(w.access(view, lay::plain + 1), RDT_ACC_R | RDT_ACC_W);
	/* and so does another domain */
	const s64 other = w.create(DomPlan::nr(1).desc());

	ASSERT_EQ(w.add(other, lay::plain + 1, DomPlan::user_base, 1, RDT_DOM_DATA), 0);
	EXPECT_EQ(w.access(view, lay::plain + 1), 0);
	EXPECT_EQ(w.own(view, lay::plain + 1), nullptr);
}

/* No frame has two owners, whichever of them comes first. */
TEST(C5, FramesOfOthersAreNotTaken)
{
	DomWorld w;

	w.start();
	ASSERT_EQ(w.protect(300, 2, RDT_ACT_LOG, 0), 0);
	ASSERT_EQ(rdt_core_protect(w.vm, gpa_of(310), 1, RDT_ACT_DENY, 0), 0);
	w.host.pv = {{gpa_of(320) + 8, 32}};
	w.host.memslots = {{0, 400}, {410, 102}};
	const DomPlan a = DomPlan::nr(0);
	const s64 ida = w.make(a);
	const s64 idb = w.create(DomPlan::nr(9).desc());

	struct {
		gfn_t gfn;
		u64 pages;
		s64 error;
	} rows[] = {
		{300, 1, ebusy},       {301, 1, ebusy},	     {299, 2, ebusy},	    {310, 1, ebusy},
		{320, 1, ebusy},       {319, 2, ebusy},	     {405, 1, efault},	    {399, 2, efault},
		{lay::text, 1, ebusy}, {lay::data, 1, ebusy}, {lay::gate, 1, ebusy}, {lay::exit, 1, ebusy},
		{lay::idt, 1, ebusy},  {lay::nodes, 1, ebusy}, {a.text(), 1, ebusy}, {a.tables(), 1, ebusy},
		{a.first - 1, 2, ebusy}, {lay::frames, 1, efault},
	};

	for (const auto &r : rows)
		for (u64 kind : {RDT_DOM_DATA, RDT_DOM_TEXT, RDT_DOM_TABLE}) {
			SCOPED_TRACE("frame " + std::to_string(r.gfn));
			const Snapshot before = w.snapshot();
			const usize blocks = test_alloc_blocks();

			EXPECT_EQ(w.add(idb, r.gfn, kind == RDT_DOM_TABLE ? 0 : DomPlan::user_base, r.pages,
					kind),
				  r.error);
			EXPECT_EQ(before.diff(w.snapshot()), "");
			/* Tables of the owners' map may stay. */
			EXPECT_LE(test_alloc_blocks(), blocks + 4);
			EXPECT_EQ(w.host.pages(), DomPlan::frames);
		}
	/* and shared no more than owned; KVM's own structure can be looked at */
	for (const auto &r : rows)
		if (r.gfn < 319 || r.gfn > 320)
			EXPECT_NE(w.share(idb, r.gfn, DomPlan::user_base, r.pages), 0);
	EXPECT_EQ(w.destroy(ida), 0);
}

TEST(C5, FramesOfADomainAreNotTaken)
{
	DomWorld w;

	w.give_nodes();
	const DomPlan a = DomPlan::nr(0);
	const s64 id = w.make(a);
	const Snapshot before = w.snapshot();
	rdt_driver_desc d = good_desc();

	for (unsigned i = 0; i < DomPlan::frames; i++) {
		const gfn_t g = a.first + i;

		EXPECT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(g)), ebusy);
		EXPECT_EQ(w.protect(g, 1, RDT_ACT_FREEZE, 0), eperm);
		EXPECT_EQ(w.protect(g - 1, 3, RDT_ACT_LOG, 0), eperm);
		EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(g), 1, RDT_ACT_DENY, 0), eperm);
		EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(g), 1, RDT_ACT_NONE, 0), eperm);
		EXPECT_EQ(rdt_core_may_hold_pv(w.vm, gpa_of(g) + 8, 16), 0);
		EXPECT_EQ(rdt_core_walk_may_set(w.vm, g), 0);
		for (u32 kind : {RDT_DRV_TEXT, RDT_DRV_DATA}) {
			d.region[0] = {gpa_of(g), 1, kind};
			EXPECT_NE(w.seal(d), 0);
		}
		d = good_desc();
		d.idt_gpa = gpa_of(g);
		EXPECT_EQ(w.seal(d), ebusy);
		d = good_desc();
		EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(g)), RDT_ATTR(RDT_ACT_DENY, RDT_CLS_DOMAIN));
	}
	EXPECT_EQ(before.diff(w.snapshot()), "");
	EXPECT_EQ(w.destroy(id), 0);
	EXPECT_EQ(w.seal(d), 0);
}

/* Taking back rules around a domain leaves the domain's frames alone. */
TEST(C5, RulesAroundADomain)
{
	DomWorld w;

	w.start();
	const DomPlan a = DomPlan::nr(0);

	ASSERT_EQ(w.protect(a.first - 2, 2, RDT_ACT_LOG, 0), 0);
	w.make(a);
	ASSERT_EQ(w.protect(a.first + DomPlan::frames, 2, RDT_ACT_LOG, 0), 0);
	/* Neither takes the operator's broad strokes. */
	EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(a.first - 2), 20, RDT_ACT_NONE, 0), eperm);
	EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(a.first - 2), 2, RDT_ACT_NONE, 0), 0);
	EXPECT_EQ(w.access(0, a.first - 1), RDT_ACC_RWX);
	EXPECT_EQ(w.access(0, a.first), 0);
	rdt_region r[16];
	rdt_u64 next;
	const int n = rdt_core_regions(w.vm, gpa_of(a.first), r, 16, &next);

	ASSERT_EQ(n, 2);
	EXPECT_EQ(r[0].gpa, gpa_of(a.first));
	EXPECT_EQ(r[0].pages, DomPlan::frames);
	EXPECT_EQ(r[0].cls, RDT_CLS_DOMAIN);
	EXPECT_EQ(r[0].action, RDT_ACT_DENY);
	EXPECT_EQ(r[1].gpa, gpa_of(a.first + DomPlan::frames));
}

/* Each way to touch a domain's frame from the root view: refused, one alert. */
TEST(C5, TouchedFromOutside)
{
	DomWorld w;

	w.start();
	const DomPlan a = DomPlan::nr(0);
	const s64 id = w.make(a);

	for (bool inside : {false, true})
		for (unsigned i = 0; i < DomPlan::frames; i++)
			for (u8 acc : {u8{RDT_ACC_R}, u8{RDT_ACC_W}, u8{RDT_ACC_X}}) {
				SCOPED_TRACE(i * 10 + acc);
				if (inside) {
					w[0].regs.gpr[r11] = lay::back;
					ASSERT_TRUE(w[0].enter_call());
				}
				w.quiet();
				w[0].regs.rip = lay::kernel + 0x123;
				const rdt_verdict v = w[0].fault(gpa_of(a.first + i) + 0x123, acc);

				EXPECT_EQ(v, inside ? RDT_V_RESUME : RDT_V_GP);
				EXPECT_EQ(w[0].view(), RDT_VIEW_ROOT);
				const rdt_event ev = w.one_event();

				EXPECT_EQ(ev.action, RDT_ACT_DENY);
				if (acc == RDT_ACC_X && (inside || a.first + i == a.gate())) {
					EXPECT_EQ(ev.type, inside ? RDT_EV_EXEC : RDT_EV_GATE);
				} else {
					EXPECT_EQ(ev.type, RDT_EV_DOMAIN_ACCESS);
					EXPECT_EQ(ev.code, acc);
					EXPECT_EQ(ev.domain, DomWorld::view_of(id));
					EXPECT_EQ(ev.gpa, gpa_of(a.first + i) + 0x123);
					EXPECT_EQ(ev.flags & (RDT_EVF_OLD | RDT_EVF_NEW), 0u);
				}
			}
	/* KVM's emulator, KVM itself, page walks */
	FaultOpts o;

	o.walk = true;
	EXPECT_EQ(w[0].fault(gpa_of(a.data()), RDT_ACC_W, o), RDT_V_GP);
	o.walk = false;
	o.vectoring = true;
	EXPECT_EQ(w[0].fault(gpa_of(a.data()), RDT_ACC_W, o), RDT_V_GP);
	w.quiet();
	EXPECT_EQ(w[0].kvm_write(gpa_of(a.data())), RDT_V_GP);
	EXPECT_EQ(w.one_event().type, RDT_EV_DOMAIN_ACCESS);
	const rdt_fault f = Cpu::fault_of(gpa_of(a.data()), RDT_ACC_W, {.host = true});

	EXPECT_EQ(rdt_core_kvm_write(w.vm, &f, nullptr), RDT_V_GP);
	EXPECT_EQ(w.one_event().type, RDT_EV_DOMAIN_ACCESS);
}

/* --- installing ----------------------------------------------------------------------- */

TEST(D1, InstallReachesOnlyTheDomainsOwnPages)
{
	DomWorld w;
	DomPlan p = DomPlan::nr(0);

	p.windows = 1;
	const s64 id = w.build(p);
	const u8 view = DomWorld::view_of(id);

	ASSERT_EQ(w.share(id, 300, p.window_gva(0), 2), 0);
	ASSERT_EQ(w.seal_domain(id), 0);
	w.quiet();
	const u64 i = static_cast<u64>(id);
	u8 value[page_size];

	std::memset(value, 0xa5, sizeof(value));
	auto put_as = [&](u64 as, u64 gva, u32 len) {
		const rdt_fixup f = {static_cast<s64>(gva - (p.base + 0x2000)), 0, len};

		return rdt_core_domain_install(w.vm, as, value, len, &f, 1);
	};
	auto put = [&](u64 gva, u32 len) { return put_as(i, gva, len); };

	EXPECT_EQ(put(p.text_gva() + 0xffc, 8), 0) << "across two pages";
	const u8 *t0 = static_cast<const u8 *>(w.own(view, p.text()));
	const u8 *t1 = static_cast<const u8 *>(w.own(view, p.text() + 1));

	EXPECT_NE(t0[0xffb], 0xa5);
	for (int k = 0; k < 4; k++) {
		EXPECT_EQ(t0[0xffc + k], 0xa5);
		EXPECT_EQ(t1[k], 0xa5);
	}
	EXPECT_NE(t1[4], 0xa5);
	w.expect_event(RDT_EV_DOMAIN, RDT_DOM_EV_INSTALLED);
	EXPECT_TRUE(w.all_zero(p.first, DomPlan::frames)) << "the VMM has nothing of it";

	EXPECT_EQ(put(p.text_gva() + 0x1ffc, 8), efault) << "into the gate";
	EXPECT_NE(t1[0xffc], 0xa5) << "all or nothing";
	EXPECT_EQ(put(p.exit_gva(), 1), efault);
	EXPECT_EQ(put(p.window_gva(0), 1), efault) << "everybody could read it";
	EXPECT_EQ(put(p.base - 1, 1), efault);
	EXPECT_EQ(put(0x800000000000, 1), efault);
	EXPECT_EQ(put(p.data_gva(), 0), einval);
	EXPECT_EQ(put(p.data_gva(), page_size + 1), einval);
	EXPECT_EQ(put(~0ull, 2), efault);
	EXPECT_EQ(put(p.data_gva() + 0x2000, page_size), 0);
	EXPECT_EQ(put_as(i + 0x100, p.data_gva(), 1), enoent);
	EXPECT_EQ(put_as(1, p.data_gva(), 1), enoent);
	EXPECT_EQ(put_as(0x11f, p.data_gva(), 1), enoent);
	EXPECT_EQ(w.info(view).installs, 2u);
	/* Two places, one of them not the domain's: neither is written. */
	const rdt_fixup two[] = {{static_cast<s64>(p.data_gva() - p.base - 0x2000), 0, 1}, {0, 1, 1}};

	value[0] = 0x11;
	EXPECT_EQ(rdt_core_domain_install(w.vm, i, value, 2, two, 2), efault);
	EXPECT_EQ(rdt_core_domain_install(w.vm, i, value, 1, two, 2), einval) << "not within the value";
	EXPECT_EQ(rdt_core_domain_install(w.vm, i, value, 2, two, 0), einval);
	EXPECT_EQ(rdt_core_domain_install(w.vm, i, value, 2, two, RDT_MAX_FIXUPS + 1), einval);
	EXPECT_NE(*static_cast<u8 *>(w.own(view, p.data())), 0x11);
	value[0] = 0xa5;
	/* An inside that rewrites its tables leads it nowhere else. */
	u64 *root = static_cast<u64 *>(w.own(view, p.tables()));

	for (int k = 0; k < 512; k++)
		root[k] = gpa_of(300) | 7;
	EXPECT_EQ(put(p.data_gva(), 1), 0);
	EXPECT_EQ(*static_cast<u8 *>(w.own(view, p.data())), 0xa5);
	EXPECT_NE(*w.byte(300), 0xa5);
	for (int k = 0; k < 512; k++)
		root[k] = ~0ull;
	EXPECT_EQ(put(p.data_gva(), 1), 0);
	/* Not while somebody is inside, or is to come back. */
	Cpu &c = *w.cpu[0];

	EXPECT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
	EXPECT_EQ(put(p.data_gva(), 1), eagain);
	const u64 token = DomWorld::strike_domain(c);

	EXPECT_EQ(put(p.data_gva(), 1), eagain);
	EXPECT_TRUE(c.resume(token).switched);
	EXPECT_EQ(DomWorld::leave_gate(c, p, 0), RDT_V_RESUME);
	EXPECT_EQ(put(p.data_gva(), 1), 0);
	EXPECT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME) << "and it can be entered again";
	EXPECT_EQ(DomWorld::leave_gate(c, p, 0), RDT_V_RESUME);
}
