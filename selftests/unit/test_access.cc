// SPDX-License-Identifier: GPL-2.0
/* Permissions: what each view grants on each kind of frame, and where pages are small. */
#include "vm_world.h"

using namespace redoubt;

namespace {

constexpr u8 R = RDT_ACC_R, RW = RDT_ACC_R | RDT_ACC_W, RX = RDT_ACC_R | RDT_ACC_X,
	     RWX = RDT_ACC_RWX;

struct Row {
	const char *what;
	gfn_t gfn;
	u8 root, inside;
};

void check(World &w, const Row &r)
{
	SCOPED_TRACE(r.what);
	EXPECT_EQ(w.access(RDT_VIEW_ROOT, r.gfn), r.root);
	EXPECT_EQ(w.access(RDT_VIEW_INTEGRITY, r.gfn), r.inside);
}

} // namespace

TEST(B1, TwoViewsWithTablesOfTheirOwn)
{
	World w;

	w.start();
	ASSERT_EQ(w.protect(lay::plain, 1, RDT_ACT_LOG, RDT_CLS_TEXT), 0);
	ASSERT_EQ(w.protect(lay::plain + 1, 1, RDT_ACT_DENY, RDT_CLS_TEXT), 0);
	ASSERT_EQ(w.protect(lay::plain + 2, 1, RDT_ACT_FREEZE, RDT_CLS_TEXT), 0);

	const Row rows[] = {
		{"RAM", lay::plain + 3, RWX, RW},
		{"a frame that is no RAM", lay::frames + 3, RWX, RW},
		{"a frame that cannot be", gfn_limit, RWX, RW},
		{"the highest number", ~u64{0}, RWX, RW},
		{"LOG", lay::plain, RX, R},
		{"DENY", lay::plain + 1, RX, R},
		{"FREEZE", lay::plain + 2, RX, R},
		{"node page", lay::nodes, RX, R},
		{"driver's text", lay::text, RX, RX},
		{"driver's second page of text", lay::call, RX, RX},
		{"gate", lay::gate, R, RX},
		{"exit", lay::exit, RX, R},
		{"driver's data", lay::data, R, RW},
		{"driver's last data", lay::data_end - 1, R, RW},
		{"behind the driver's data", lay::data_end, RWX, RW},
		{"IDT", lay::idt, RX, 0},
	};
	for (const Row &r : rows)
		check(w, r);
}

/* Whatever the policy: no view but the two grants anything. */
TEST(B1, OtherViewsGrantNothing)
{
	World w;

	w.start();
	for (unsigned view = 2; view < 256; view++) {
		if (view == 31)
			continue; /* stepping, not a view of the guest's */
		for (gfn_t g : {gfn_t{0}, lay::plain, lay::text, lay::data, lay::idt, lay::nodes})
			EXPECT_EQ(w.access(static_cast<u8>(view), g), 0) << view << " " << g;
	}
}

/* Each frame in any state: nowhere W in root but on free RAM, nowhere X inside but on text. */
TEST(B4, NothingButTheDriversTextExecutesInside)
{
	World w;

	w.start();
	ASSERT_EQ(w.protect(200, 50, RDT_ACT_LOG, RDT_CLS_TEXT), 0);
	for (gfn_t g = 0; g < lay::frames + 100; g++) {
		const bool text = g >= lay::text && g <= lay::gate;

		EXPECT_EQ((w.access(RDT_VIEW_INTEGRITY, g) & RDT_ACC_X) != 0, text) << g;
	}
}

TEST(B5, DriversTextIsWritableInNeitherView)
{
	World w;

	w.start();
	for (gfn_t g = lay::text; g <= lay::exit; g++) {
		EXPECT_FALSE(w.access(RDT_VIEW_ROOT, g) & RDT_ACC_W) << g;
		EXPECT_FALSE(w.access(RDT_VIEW_INTEGRITY, g) & RDT_ACC_W) << g;
	}
}

TEST(B2, AProtectedFrameIsProtectedInBothViews)
{
	World w;

	w.start();
	ASSERT_EQ(w.protect(300, 100, RDT_ACT_DENY, RDT_CLS_RODATA), 0);
	for (gfn_t g = 290; g < 410; g++) {
		const bool in = g >= 300 && g < 400;

		EXPECT_EQ(w.access(RDT_VIEW_ROOT, g), in ? RX : RWX) << g;
		EXPECT_EQ(w.access(RDT_VIEW_INTEGRITY, g), in ? R : RW) << g;
	}
}

/* Without a driver there is no integrity view to be in, and no frame has a special kind. */
TEST(B2, BeforeTheDriver)
{
	World w;

	w.give_nodes();
	for (gfn_t g = 0; g < lay::frames; g++) {
		EXPECT_EQ(w.access(RDT_VIEW_ROOT, g), g == lay::nodes ? RX : RWX) << g;
		EXPECT_EQ(w.access(RDT_VIEW_INTEGRITY, g), g == lay::nodes ? R : RW) << g;
	}
}

/* A8: only the huge page that holds a restricted frame is mapped small. */
TEST(A8, HugePagesAreClampedOnlyWhereNeeded)
{
	constexpr u64 ram = 3 << 18; /* 3 GiB of numbers; nothing is touched */
	World w(1, ram);

	w.give_nodes();
	for (gfn_t g : {gfn_t{0}, gfn_t{511}, gfn_t{512}, gfn_t{1} << 18, ram - 1}) {
		const bool near = g < 512; /* the node page is in the first 2 MiB */

		EXPECT_EQ(rdt_core_max_level(w.vm, 0, g, 3), near	     ? 1
							      : g < 1 << 18 ? 2
									     : 3)
			<< g;
	}

	/* One frame, in turn at the borders of its 2 MiB. */
	for (gfn_t frame : {gfn_t{0x40000}, gfn_t{0x401ff}, gfn_t{0x4abcd}}) {
		ASSERT_EQ(rdt_core_protect(w.vm, gpa_of(frame), 1, RDT_ACT_DENY, 0), 0);
		for (gfn_t g = frame & ~gfn_t{511}; g < (frame | 511) + 1; g++)
			for (int level : {1, 2, 3})
				EXPECT_EQ(rdt_core_max_level(w.vm, 0, g, level), 1) << g;
		for (gfn_t g : {(frame | 511) + 1, (frame & ~gfn_t{511}) + 1024})
			for (int level : {1, 2, 3})
				EXPECT_EQ(rdt_core_max_level(w.vm, 1, g, level), min_of(level, 2)) << g;
		EXPECT_EQ(rdt_core_max_level(w.vm, 0, 2 << 18, 3), 3) << "another GiB";
		ASSERT_EQ(rdt_core_protect(w.vm, gpa_of(frame), 1, RDT_ACT_NONE, 0), 0);
		EXPECT_EQ(rdt_core_max_level(w.vm, 0, frame, 3), 3) << "given back";
	}
}

/* The last huge page that numbers allow; beyond it there is nothing to clamp. */
TEST(A8, HugePagesAtTheEndOfNumbers)
{
	World w(1);

	for (gfn_t g : {gfn_limit - 1, gfn_limit, gfn_limit + 511, ~u64{0}})
		for (int level : {1, 2, 3})
			EXPECT_EQ(rdt_core_max_level(w.vm, 0, g, level), level) << g;
}

/* Every frame that is granted W at a huge level is granted W at each small one. */
TEST(A8, AHugePageNeverHoldsARestrictedFrame)
{
	World w(1, 8192);

	w.give_nodes(2);
	for (unsigned i = 0; i < 40; i++)
		(void)w.protect(i * 199 + 1000, i % 7 + 1, RDT_ACT_DENY, static_cast<u8>(i % 3));
	for (gfn_t g = 0; g < 8192; g++)
		for (int level : {2, 3})
			if (rdt_core_max_level(w.vm, 0, g, level) == level)
				for (gfn_t k = g & ~((1ull << (9 * (level - 1))) - 1), n = 0;
				     n < 1ull << (9 * (level - 1)); n++)
					ASSERT_EQ(w.access(0, k + n), RWX) << g << " level " << level;
}

TEST(A9, StructuresOfKvmAreRefusedInRestrictedFrames)
{
	World w;

	w.start();
	ASSERT_EQ(w.protect(lay::plain, 2, RDT_ACT_LOG, 0), 0);
	w.quiet();

	const gpa_t start = gpa_of(lay::plain), end = gpa_of(lay::plain + 2);
	struct Row {
		gpa_t gpa;
		u64 len;
		bool ok;
	} rows[] = {
		{start, 64, false},
		{end - 1, 1, false},
		{start - 1, 1, true},
		{start - 1, 2, false}, /* reaches in */
		{start - 64, 64, true},
		{end, 64, true},
		{start - 4096, 3 * 4096 + 2, false}, /* covers it */
		{start, 0, false},		     /* no bytes are taken for one */
		{end, 0, true},
		{gpa_of(lay::nodes), 32, false},
		{gpa_of(lay::data), 32, false},
		{gpa_of(lay::idt) + 4095, 1, false},
		{0, 64, true},
		{~u64{0} - 31, 32, true}, /* the last bytes of all: not RAM, KVM's to refuse */
		{~u64{0} - 31, 64, false}, /* wraps */
		{~u64{0}, ~u64{0}, false},
		{1ull << 52, 8, true},
	};

	for (const Row &r : rows) {
		SCOPED_TRACE(std::to_string(r.gpa) + "+" + std::to_string(r.len));
		EXPECT_EQ(rdt_core_may_hold_pv(w.vm, r.gpa, r.len), r.ok);

		const std::vector<rdt_event> ev = w.host.take_events();

		ASSERT_EQ(ev.size(), r.ok ? 0u : 1u);
		if (!r.ok) {
			EXPECT_EQ(ev[0].type, RDT_EV_PV_STRUCT);
			EXPECT_EQ(ev[0].gpa, r.gpa);
			EXPECT_EQ(ev[0].action, RDT_ACT_DENY);
			EXPECT_TRUE(ev[0].flags & RDT_EVF_HOST);
		}
	}
}

/* A7: protection is by frame number, so a changed memslot is an alert, never a loss. */
TEST(A7, MappingChanged)
{
	World w;

	w.start();
	ASSERT_EQ(w.protect(lay::plain, 4, RDT_ACT_DENY, 0), 0);
	w.quiet();

	const Snapshot before = w.snapshot();
	struct Row {
		gfn_t first;
		u64 count;
		gfn_t hit; /* ~0: no event */
	} rows[] = {
		{lay::plain - 10, 10, ~u64{0}},
		{lay::plain - 10, 11, lay::plain},
		{lay::plain + 3, 100, lay::plain + 3},
		{lay::plain + 4, 100, ~u64{0}},
		{0, lay::frames, lay::text},
		{lay::idt, 1, lay::idt},
		{gfn_limit - 1, 1, ~u64{0}},
		{gfn_limit - 1, 100, ~u64{0}},
		{1ull << 41, 1, ~u64{0}},
	};

	for (const Row &r : rows) {
		SCOPED_TRACE(std::to_string(r.first) + "+" + std::to_string(r.count));
		rdt_core_mapping_changed(w.vm, r.first, r.count);

		const std::vector<rdt_event> ev = w.host.take_events();

		ASSERT_EQ(ev.size(), r.hit == ~u64{0} ? 0u : 1u);
		if (!ev.empty()) {
			EXPECT_EQ(ev[0].type, RDT_EV_MAPPING_CHANGED);
			EXPECT_EQ(ev[0].gpa, gpa_of(r.hit));
			EXPECT_EQ(ev[0].range_gpa, gpa_of(r.first));
			EXPECT_EQ(ev[0].range_pages, r.count);
			EXPECT_TRUE(ev[0].flags & RDT_EVF_HOST);
		}
	}
	EXPECT_EQ(before.diff(w.snapshot()), "");
}
