// SPDX-License-Identifier: GPL-2.0
/* C7, C8, C9: states, the end of a domain, and bounds. */
#include "domain_world.h"
#include "vm.h"

namespace redoubt {

/* White-box access: the C face's object begins with the class's. */
struct VmTester {
	static Domain &domain(rdt_core_vm *vm, u8 view)
	{
		return *reinterpret_cast<Vm *>(vm)->domains_->at[view];
	}
};

} // namespace redoubt

using namespace redoubt;

/* --- states ------------------------------------------------------------------------ */

/* Every call in every state of a domain: what it answers, and what the state is then. */
TEST(C7, EveryCallInEveryState)
{
	enum St { Gone, Building, Sealed, Dying };
	struct Row {
		St state;
		const char *call;
		s64 answer;
		St then;
	} rows[] = {
		{Gone, "add", enoent, Gone},		{Building, "add", 0, Building},
		{Sealed, "add", eperm, Sealed},		{Dying, "add", eperm, Dying},
		{Gone, "table", enoent, Gone},		{Building, "table", 0, Building},
		{Sealed, "table", eperm, Sealed},	{Dying, "table", eperm, Dying},
		{Gone, "share", enoent, Gone},		{Building, "share", 0, Building},
		{Sealed, "share", eperm, Sealed},	{Dying, "share", eperm, Dying},
		{Gone, "seal", enoent, Gone},		{Building, "seal", 0, Sealed},
		{Sealed, "seal", eperm, Sealed},	{Dying, "seal", eperm, Dying},
		{Gone, "enter", enoent, Gone},		{Building, "enter", enoent, Building},
		{Sealed, "enter", 1, Sealed},		{Dying, "enter", enoent, Dying},
		{Gone, "gate", 1, Gone},		{Building, "gate", -1000, Building},
		{Sealed, "gate", 2, Sealed},		{Dying, "gate", -1000, Dying},
		{Gone, "measure", enoent, Gone},	{Building, "measure", eperm, Building},
		{Sealed, "measure", 0, Sealed},		{Dying, "measure", 0, Dying},
		{Gone, "destroy", enoent, Gone},	{Building, "destroy", 0, Gone},
		{Sealed, "destroy", 0, Gone},		{Dying, "destroy", eagain, Dying},
		{Gone, "op destroy", enoent, Gone},	{Building, "op destroy", 0, Gone},
		{Sealed, "op destroy", 0, Gone},	{Dying, "op destroy", eagain, Dying},
		{Gone, "install", enoent, Gone},	{Building, "install", enoent, Building},
		{Sealed, "install", 0, Sealed},		{Dying, "install", enoent, Dying},
	};

	for (const Row &r : rows) {
		SCOPED_TRACE(std::string(r.call) + " in state " + std::to_string(r.state));
		DomWorld w(3);
		DomPlan p = DomPlan::nr(0, 0);
		const std::string call = r.call;
		s64 id;

		p.windows = 1;
		id = w.build(p);
		/* What "share" gives is one of two; "seal" needs both. */
		ASSERT_EQ(w.share(id, 300, p.window_gva(0), call == "share" ? 1 : 2), 0);
		if (r.state != Building && call == "share")
			ASSERT_EQ(w.share(id, 301, p.window_gva(0) + 0x1000, 1), 0);
		if (r.state != Building)
			ASSERT_EQ(w.seal_domain(id), 0);
		if (r.state == Dying) {
			/* somebody is in there */
			ASSERT_EQ(DomWorld::enter_gate(w[2], p), RDT_V_RESUME);
			ASSERT_EQ(w.destroy(id), eagain);
		} else if (r.state == Gone) {
			ASSERT_EQ(w.destroy(id), 0);
		}
		w.quiet();

		Cpu &c = w[1];
		s64 got;
		u8 x = 0x5a;
		const rdt_fixup data = {static_cast<s64>(p.data_gva() - p.base - 0x2000), 0, 1};

		DomWorld::at_caller(c, p);
		if (call == "add")
			got = w.add(id, 400, p.base + 0x20000, 1, RDT_DOM_DATA);
		else if (call == "table")
			got = w.add(id, 400, 0, 1, RDT_DOM_TABLE);
		else if (call == "share")
			got = w.share(id, 302, p.window_gva(0) + 0x1000, 1);
		else if (call == "seal")
			got = w.seal_domain(id);
		else if (call == "enter") {
			const Cpu::Result e = c.call(RDT_HC_DOM_ENTER, static_cast<u64>(id));

			got = e.switched ? 1 : e.value;
			EXPECT_EQ(e.switched, DomWorld::in(c, id));
		} else if (call == "gate") {
			const rdt_verdict v = DomWorld::enter_gate(c, p);

			/* Gone: the frame is ordinary. */
			got = v == RDT_V_PASS ? 1 : v == RDT_V_RESUME ? 2 : -1000;
			EXPECT_EQ(got == 2, DomWorld::in(c, id));
			if (got == -1000)
				EXPECT_EQ(v, RDT_V_GP);
		} else if (call == "measure")
			got = c.hc(RDT_HC_DOM_MEASURE, static_cast<u64>(id));
		else if (call == "destroy")
			got = w.destroy(id);
		else if (call == "op destroy")
			got = rdt_core_domain_destroy(w.vm, static_cast<u64>(id));
		else
			got = rdt_core_domain_install(w.vm, static_cast<u64>(id), &x, 1, &data, 1);
		EXPECT_EQ(got, r.answer);

		rdt_domain_info i = {};
		const int e = rdt_core_domain_info(w.vm, 0, &i);

		if (r.then == Gone)
			EXPECT_EQ(e, enoent);
		else
			EXPECT_EQ(static_cast<u32>(i.state), static_cast<u32>(r.then));
		/* A try to change what is sealed is an alert; so is an entry that is none. */
		if (r.answer == eperm && call != "measure")
			w.expect_event(RDT_EV_DOMAIN, RDT_DOM_EV_CALLER);
		if (r.answer == -1000 || (call == "enter" && r.answer != 1))
			EXPECT_EQ(w.one_event().type, RDT_EV_GATE);
		/* Who is in a dying domain gets out by evict, and then it can go. */
		if (r.state == Dying) {
			rdt_cpu cpu = w[2].load();

			EXPECT_EQ(rdt_core_evict(w.vm, w[2].core, &cpu), 1);
			EXPECT_EQ(w[2].view(), RDT_VIEW_ROOT);
			EXPECT_EQ(w.destroy(id), 0);
		}
	}
}

/* The calls that build and end, from where they must not come. */
TEST(C7, OnlyTheRootDomainBuilds)
{
	DomWorld w;

	w.start();
	const DomPlan p = DomPlan::nr(0, 0), q = DomPlan::nr(1, 0);
	const s64 id = w.make(p), other = w.build(q);

	for (bool domain : {false, true}) {
		Cpu &c = w[1];

		if (domain) {
			ASSERT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
		} else {
			c.regs.gpr[r11] = lay::back;
			ASSERT_TRUE(c.enter_call());
		}
		w.quiet();
		const u8 view = c.view();
		const u64 o = static_cast<u64>(other);
		const u64 call[][5] = {
			{RDT_HC_DOM_CREATE, gpa_of(lay::desc), 0, 0, 0},
			{RDT_HC_DOM_ADD, o, gpa_of(400), q.base + 0x20000, RDT_DOM_PAGES(1, RDT_DOM_DATA)},
			{RDT_HC_DOM_SHARE, o, gpa_of(400), q.base, 1},
			{RDT_HC_DOM_SEAL, o, 0, 0, 0},
			{RDT_HC_DOM_MEASURE, o, 0, 0, 0},
			{RDT_HC_DOM_DESTROY, o, 0, 0, 0},
			{RDT_HC_DOM_DESTROY, static_cast<u64>(id), 0, 0, 0},
		};

		for (const auto &a : call) {
			const u64 rip = c.regs.rip;
			const Cpu::Result r = c.call(static_cast<u32>(a[0]), a[1], a[2], a[3], a[4]);

			EXPECT_EQ(c.view(), view);
			EXPECT_EQ(r.value, eperm) << a[0];
			w.expect_event(RDT_EV_DOMAIN, RDT_DOM_EV_CALLER);
			/* KVM cannot skip an instruction of a domain's: the core does. */
			EXPECT_EQ(r.switched, domain);
			EXPECT_EQ(c.regs.rip, domain ? rip + 3 : rip);
			EXPECT_EQ(c.regs.gpr[rax], static_cast<u64>(eperm));
		}
		/* Calls of the monitored guest's are for others, too. */
		EXPECT_NE(c.call(RDT_HC_UNPROTECT, gpa_of(300), 1).value, 0);
		c.fault(gpa_of(1), RDT_ACC_X);
		ASSERT_EQ(c.view(), RDT_VIEW_ROOT);
	}
}

/* --- destroy ------------------------------------------------------------------------ */

TEST(C8, DestroyScrubsBeforeTheRootSees)
{
	for (bool sealed : {false, true})
		for (bool op : {false, true}) {
			DomWorld w;
			DomPlan p = DomPlan::nr(4);

			p.windows = 1;
			const s64 id = w.build(p);
			const u8 view = DomWorld::view_of(id);

			ASSERT_EQ(w.share(id, 300, p.window_gva(0), 2), 0);
			if (sealed)
				ASSERT_EQ(w.seal_domain(id), 0);
			for (unsigned i = 0; i < DomPlan::frames; i++)
				ASSERT_TRUE(w.touch(view, p.first + i));
			ASSERT_TRUE(w.touch(view, 300));
			ASSERT_TRUE(w.touch(view, 301));
			std::vector<const u8 *> pages;

			for (unsigned i = 0; i < DomPlan::frames; i++)
				pages.push_back(static_cast<const u8 *>(w.own(view, p.first + i)));
			bool early = false;

			/* While frames are being taken out of the view the root still has none. */
			w.host.on_zap = [&] { early |= w.access(0, p.first) != 0; };
			/* MockHost looks at each page that comes back: zero, and in no table. */
			EXPECT_EQ(op ? rdt_core_domain_destroy(w.vm, static_cast<u64>(id)) : w.destroy(id), 0);
			EXPECT_FALSE(early);
			EXPECT_TRUE(w.host.spt.empty()) << "a successor has the same root";
			EXPECT_EQ(w.host.pages(), 0u);
			EXPECT_EQ(w.host.pins(), 0u);
			EXPECT_TRUE(w.all_zero(p.first, DomPlan::frames));
			for (unsigned i = 0; i < DomPlan::frames; i++) {
				EXPECT_EQ(w.access(0, p.first + i), RDT_ACC_RWX);
				EXPECT_EQ(w.access(view, p.first + i), 0);
				EXPECT_EQ(w.own(view, p.first + i), nullptr);
			}
			EXPECT_EQ(w.access(view, 300), 0);
			EXPECT_EQ(w.vm_info().frames, 0u);
			EXPECT_EQ(w.vm_info().domain_frames, 0u);
			/* and all can be had again */
			EXPECT_GT(w.make(p = DomPlan::nr(4)), 0);
		}
}

/* Registers of the inside lie in its slots; the host's memory goes to others one day. */
TEST(C8, DestroyScrubsContextsAndTheMeasurement)
{
	DomWorld w;
	const DomPlan p = DomPlan::nr(0);
	const s64 id = w.make(p);

	ASSERT_EQ(DomWorld::enter_gate(w[1], p), RDT_V_RESUME);
	w[1].regs = Regs::numbered(0x5ec2e7);
	DomWorld::strike_domain(w[1]);
	Slots &slots = VmTester::domain(w.vm, 2).slots;
	auto all_zero_in = [&] {
		for (unsigned i = 0; i < p.slots; i++) {
			for (u64 r : slots[i].context.gpr)
				if (r)
					return false;
			if (slots[i].context.rip || slots[i].caller.rip || slots[i].caller.rbx)
				return false;
		}
		return true;
	};

	ASSERT_FALSE(all_zero_in());
	ASSERT_EQ(w.destroy(id), 0);
	EXPECT_TRUE(all_zero_in());
	w.create(p.desc());
	for (u8 b : w.info(2).measurement)
		EXPECT_EQ(b, 0);
}

/* A view's next domain has nothing of the last one's. */
TEST(C8, SuccessorOfAView)
{
	DomWorld w;
	DomPlan a = DomPlan::nr(0), b = DomPlan::nr(1);

	a.windows = 1;
	const s64 ida = w.build(a);

	ASSERT_EQ(w.share(ida, 300, a.window_gva(0), 2), 0);
	ASSERT_EQ(w.seal_domain(ida), 0);
	ASSERT_EQ(DomWorld::enter_gate(w[1], a), RDT_V_RESUME);
	const u64 token = DomWorld::strike_domain(w[1]);

	ASSERT_EQ(w.destroy(ida), 0);
	const s64 idb = w.make(b);

	ASSERT_EQ(DomWorld::view_of(ida), DomWorld::view_of(idb));
	EXPECT_EQ(w.access(DomWorld::view_of(idb), 300), 0);
	EXPECT_EQ(w[1].resume(token).value, einval);
	EXPECT_EQ(w.one_event().code, RDT_GATE_BAD_TOKEN);
	EXPECT_EQ(w.info(2).enters, 0u);
	w[1].cpl = 0;
	EXPECT_EQ(w[1].hc(RDT_HC_DOM_MEASURE, static_cast<u64>(ida)), enoent);
	EXPECT_EQ(DomWorld::enter_gate(w[1], a), RDT_V_PASS) << "the old gate is ordinary memory";
	EXPECT_EQ(DomWorld::enter_gate(w[1], b), RDT_V_RESUME);
	EXPECT_TRUE(DomWorld::in(w[1], idb));
	EXPECT_EQ(w.destroy(idb), eagain);
	DomWorld::leave_gate(w[1], b, 0);
	EXPECT_EQ(w.destroy(idb), 0);
}

TEST(C8, TheVmsEndScrubsEverything)
{
	for (int inside = 0; inside < 3; inside++) {
		DomWorld w;
		const DomPlan p = DomPlan::nr(0), q = DomPlan::nr(1, RDT_DOM_VECTOR);

		w.make(p);
		w.make(q);
		w.build(DomPlan::nr(2));
		if (inside)
			ASSERT_EQ(DomWorld::enter_gate(w[1], q), RDT_V_RESUME);
		if (inside == 2)
			DomWorld::strike_domain(w[1]);
		if (inside == 1) {
			rdt_core_end(w.vm);
			EXPECT_EQ(w.host.pages(), 0u);
			EXPECT_EQ(w.host.rooms(), 0u);
			rdt_domain_info i;
			rdt_domain_quota quota = {};
			const rdt_fixup first = {0, 0, 1};

			EXPECT_EQ(rdt_core_domain_info(w.vm, 0, &i), enodev);
			EXPECT_EQ(rdt_core_domain_destroy(w.vm, 0x102), enodev);
			EXPECT_EQ(rdt_core_domain_set_quota(w.vm, &quota), enodev);
			EXPECT_EQ(rdt_core_domain_install(w.vm, 0x102, &quota, 1, &first, 1), enodev);
		}
		w.end();
		EXPECT_EQ(w.host.pages(), 0u);
		EXPECT_EQ(w.host.rooms(), 0u);
		EXPECT_EQ(mock_hashes(), 0);
	}
	EXPECT_EQ(test_alloc_blocks(), 0u);
}

TEST(C8, DetachWaitsForDomains)
{
	DomWorld w;
	const s64 id = w.build(DomPlan::nr(0));

	EXPECT_EQ(rdt_core_detach(w.vm, 0), ebusy);
	EXPECT_EQ(w.seal_domain(id), 0);
	EXPECT_EQ(rdt_core_detach(w.vm, 0), ebusy);
	EXPECT_EQ(rdt_core_domain_destroy(w.vm, static_cast<u64>(id)), 0);
	EXPECT_EQ(rdt_core_detach(w.vm, 0), 0);
	EXPECT_EQ(w.create(DomPlan::nr(0).desc()), enodev) << "nothing begins any more";
}

/* --- bounds ------------------------------------------------------------------------- */

TEST(C9, TheThirtiethDomain)
{
	DomWorld w;
	std::set<u8> views;
	std::vector<s64> ids;

	for (unsigned n = 0; n < RDT_DOM_MAX; n++) {
		ids.push_back(w.make(DomPlan::nr(n)));
		EXPECT_TRUE(views.insert(DomWorld::view_of(ids.back())).second);
	}
	EXPECT_EQ(*views.begin(), 2);
	EXPECT_EQ(*views.rbegin(), 30);
	EXPECT_EQ(w.create(DomPlan::nr(0).desc()), enospc);
	EXPECT_EQ(w.vm_info().domains, 29u);
	/* The list is complete, and each is itself. */
	unsigned n = 0;
	rdt_domain_info i = {};

	for (u32 view = 0; rdt_core_domain_info(w.vm, view, &i) == 0; view = i.view + 1)
		EXPECT_EQ(i.id, static_cast<u64>(ids[n++]));
	EXPECT_EQ(n, 29u);
	/* One goes, one comes: in its place. */
	EXPECT_EQ(w.destroy(ids[17]), 0);
	const s64 again = w.make(DomPlan::nr(17));

	EXPECT_EQ(DomWorld::view_of(again), DomWorld::view_of(ids[17]));
	EXPECT_EQ(w.create(DomPlan::nr(0).desc()), enospc);
	/* Nobody's frames are anybody else's. */
	for (unsigned a = 0; a < RDT_DOM_MAX; a++)
		for (unsigned b = 0; b < RDT_DOM_MAX; b++)
			EXPECT_EQ(w.own(static_cast<u8>(2 + a), DomPlan::nr(b).data()) != nullptr, a == b);
}

TEST(C9, Quotas)
{
	DomWorld w;
	rdt_domain_quota q = {30, 0, 0, 0};

	EXPECT_EQ(rdt_core_domain_set_quota(w.vm, &q), einval);
	q = {1, RDT_DOM_Q_EXPORT << 1, 0, 0};
	EXPECT_EQ(rdt_core_domain_set_quota(w.vm, &q), einval);
	q = {2, 0, 12, 20};
	EXPECT_EQ(rdt_core_domain_set_quota(w.vm, &q), 0);
	rdt_domain_quota got = {};

	rdt_core_domain_quota(w.vm, &got);
	EXPECT_EQ(std::memcmp(&got, &q, sizeof(q)), 0);

	const s64 a = w.make(DomPlan::nr(0)), b = w.create(DomPlan::nr(1).desc());

	EXPECT_EQ(w.create(DomPlan::nr(2).desc()), edquot);
	EXPECT_EQ(w.add(b, 300, DomPlan::user_base, 10, RDT_DOM_DATA), edquot) << "21 in all";
	EXPECT_EQ(w.add(b, 300, DomPlan::user_base, 9, RDT_DOM_DATA), 0);
	EXPECT_EQ(w.add(b, 320, 0, 1, RDT_DOM_TABLE), edquot);
	EXPECT_EQ(w.destroy(a), 0);
	EXPECT_EQ(w.add(b, 320, 0, 4, RDT_DOM_TABLE), edquot) << "13 in one";
	EXPECT_EQ(w.add(b, 320, 0, 3, RDT_DOM_TABLE), 0);
	/* Less than there is: it stays, nothing comes. */
	q = {0, 0, 0, 0};
	EXPECT_EQ(rdt_core_domain_set_quota(w.vm, &q), 0);
	EXPECT_EQ(w.info(DomWorld::view_of(b)).frames, 12u);
	EXPECT_EQ(w.add(b, 330, 0, 1, RDT_DOM_TABLE), edquot);
	EXPECT_EQ(w.create(DomPlan::nr(2).desc()), edquot);
	EXPECT_EQ(w.destroy(b), 0);
}

/* At first there are none at all: a guest cannot have what nobody has allowed it. */
TEST(C9, NoQuotaNoDomain)
{
	World w;

	w.host.at<rdt_domain_desc>(gpa_of(lay::desc)) = DomPlan::nr(0).desc();
	const usize blocks = test_alloc_blocks();

	EXPECT_EQ(w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc)), edquot);
	EXPECT_EQ(test_alloc_blocks(), blocks);
}

/* Frames far apart cost tables; they end somewhere, and creating again costs none. */
TEST(C9, HostMemoryIsBounded)
{
	/* In numbers only, no RAM behind: memslots reach far. */
	FrameMap map(64 * page_size);
	unsigned n = 0;

	while (map.reserve(static_cast<gfn_t>(n) << 27, 1) == Status::Ok)
		n++;
	EXPECT_EQ(n, (64 - 1) / 3u) << "a table of the top's and three for each";
	EXPECT_LE(map.host_bytes(), 64 * page_size);

	DomWorld w;
	const s64 first = w.make(DomPlan::nr(0));

	EXPECT_EQ(w.destroy(first), 0);
	const usize blocks = test_alloc_blocks();
	const u64 bytes = w.vm_info().host_bytes;

	for (int i = 0; i < 100; i++)
		EXPECT_EQ(w.destroy(w.make(DomPlan::nr(0))), 0);
	EXPECT_EQ(test_alloc_blocks(), blocks);
	EXPECT_EQ(w.vm_info().host_bytes, bytes);
}

/* The host's memory ends at each point of each call: an error, and nothing has changed. */
TEST(C9, NoMemoryAnywhere)
{
	bool done = false;

	for (long limit = 0; !done; limit++) {
		DomWorld w;
		const DomPlan p = DomPlan::nr(0, RDT_DOM_VECTOR);

		ASSERT_LT(limit, 200);
		w.fill(p);
		std::vector<u8> before(w.byte(p.first), w.byte(p.first) + DomPlan::frames * page_size);
		const u64 frames = w.vm_info().frames;

		test_alloc_limit(limit);
		const s64 id = w.create(p.desc());
		const s64 e = id < 0 ? id : w.add(id, p.text(), p.text_gva(), 2, RDT_DOM_TEXT);

		test_alloc_limit(-1);
		if (e == 0) {
			done = true;
			EXPECT_EQ(w.destroy(id), 0);
			continue;
		}
		EXPECT_EQ(e, enomem) << limit;
		EXPECT_EQ(w.host.pages(), 0u);
		EXPECT_EQ(w.host.pins(), 0u);
		EXPECT_EQ(w.vm_info().frames, frames);
		EXPECT_EQ(std::memcmp(w.byte(p.first), before.data(), before.size()), 0);
		EXPECT_EQ(mock_hashes(), id < 0 ? 0 : 1);
		EXPECT_EQ(w.access(0, p.text()), RDT_ACC_RWX);
		/* It works when there is memory again. */
		if (id > 0)
			EXPECT_EQ(w.destroy(id), 0);
		EXPECT_EQ(w.destroy(w.make(p)), 0);
	}
	/* No room for vector state: not sealed; later it is. */
	DomWorld w;
	const s64 id = w.build(DomPlan::nr(0, RDT_DOM_VECTOR));

	w.host.fail_vector = true;
	EXPECT_EQ(w.seal_domain(id), enomem);
	EXPECT_EQ(w.info(2).state, u32{RDT_DOM_BUILDING});
	w.host.fail_vector = false;
	EXPECT_EQ(w.seal_domain(id), 0);
	EXPECT_EQ(w.host.rooms(), 2u);
	EXPECT_EQ(w.destroy(id), 0);
	EXPECT_EQ(w.host.rooms(), 0u);
}
