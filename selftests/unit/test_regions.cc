// SPDX-License-Identifier: GPL-2.0
/* A1: the operator's list of ranges, in pieces of any size, against what each frame says. */
#include <map>
#include <random>

#include "vm_world.h"

using namespace redoubt;

namespace {

struct Piece {
	u64 pages;
	u8 action, cls;

	bool operator==(const Piece &o) const
	{
		return pages == o.pages && action == o.action && cls == o.cls;
	}
};

std::map<gfn_t, Piece> list(World &w, gpa_t from, u32 room)
{
	std::map<gfn_t, Piece> out;
	std::vector<rdt_region> buf(room + 1);
	rdt_u64 next = from;
	gpa_t before = 0;

	for (unsigned calls = 0; calls < 10000; calls++) {
		std::memset(buf.data(), 0xee, buf.size() * sizeof(buf[0]));
		const int n = rdt_core_regions(w.vm, next, buf.data(), room, &next);

		EXPECT_GE(n, 0);
		EXPECT_LE(n, static_cast<int>(room));
		EXPECT_EQ(buf[static_cast<usize>(n)].flags, 0xeeee) << "no more was written than said";
		for (int i = 0; i < n; i++) {
			const rdt_region &r = buf[static_cast<usize>(i)];

			EXPECT_GE(r.gpa, before) << "ascending";
			EXPECT_EQ(r.gpa % page_size, 0u);
			EXPECT_GT(r.pages, 0u);
			EXPECT_EQ(r.flags, 0);
			EXPECT_EQ(r.reserved, 0u);
			before = r.gpa + r.pages * page_size;
			EXPECT_TRUE(out.insert({r.gpa >> page_shift, {r.pages, r.action, r.cls}}).second);
		}
		if (n < static_cast<int>(room))
			return out;
		EXPECT_EQ(next, before);
	}
	ADD_FAILURE() << "the list has no end";
	return out;
}

} // namespace

TEST(A1, ListOfRanges)
{
	World w;

	EXPECT_TRUE(list(w, 0, 10).empty());
	w.start();
	ASSERT_EQ(w.protect(100, 10, RDT_ACT_LOG, RDT_CLS_TEXT), 0);
	ASSERT_EQ(w.protect(110, 1, RDT_ACT_DENY, RDT_CLS_RODATA), 0);
	ASSERT_EQ(w.protect(0, 1, RDT_ACT_FREEZE, RDT_CLS_OTHER), 0);
	ASSERT_EQ(w.protect(lay::frames - 1, 1, RDT_ACT_FREEZE, RDT_CLS_OTHER), 0);

	const std::map<gfn_t, Piece> want = {
		{0, {1, RDT_ACT_FREEZE, RDT_CLS_OTHER}},
		{lay::text, {2, RDT_ACT_DENY, RDT_CLS_DRV_TEXT}},
		{lay::gate, {1, RDT_ACT_DENY, RDT_CLS_DRV_GATE}},
		{lay::exit, {1, RDT_ACT_DENY, RDT_CLS_DRV_EXIT}},
		{lay::data, {8, RDT_ACT_DENY, RDT_CLS_DRV_DATA}},
		{lay::idt, {1, RDT_ACT_DENY, RDT_CLS_IDT}},
		{lay::nodes, {1, RDT_ACT_DENY, RDT_CLS_NODE}},
		{100, {10, RDT_ACT_LOG, RDT_CLS_TEXT}},
		{110, {1, RDT_ACT_DENY, RDT_CLS_RODATA}},
		{lay::frames - 1, {1, RDT_ACT_FREEZE, RDT_CLS_OTHER}},
	};
	for (u32 room : {1u, 2u, 3u, 9u, 10u, 11u, 100u})
		EXPECT_TRUE(list(w, 0, room) == want) << room;

	/* From the middle of a range: that range as a whole, and what follows. */
	EXPECT_TRUE(list(w, gpa_of(105), 5).count(100));
	EXPECT_EQ(list(w, gpa_of(105) + 77, 5).size(), 3u);
	EXPECT_TRUE(list(w, gpa_of(lay::text + 1), 50).count(lay::text));
	EXPECT_EQ(list(w, gpa_of(111), 5).size(), 1u);
	EXPECT_TRUE(list(w, gpa_of(lay::frames), 5).empty());
	EXPECT_TRUE(list(w, gpa_of(gfn_limit), 5).empty());
	EXPECT_TRUE(list(w, ~gpa_t{0}, 5).empty());
}

/* An IDT inside a larger range is in the list once. */
TEST(A1, TheIdtIsListedOnce)
{
	World w;

	w.give_nodes();
	ASSERT_EQ(w.protect(lay::idt - 2, 5, RDT_ACT_DENY, RDT_CLS_IDT), 0);
	ASSERT_EQ(w.seal(good_desc()), 0);
	for (gfn_t from = lay::idt - 3; from < lay::idt + 4; from++) {
		const auto l = list(w, gpa_of(from), 4);
		const bool in = from < lay::idt + 3;

		EXPECT_EQ(l.count(lay::idt - 2), in ? 1u : 0u) << from;
		EXPECT_EQ(l.size(), in ? 2u : 1u) << from;
	}
}

/* Each frame is in the list exactly if it is restricted, under the rule that QUERY gives. */
TEST(A1, TheListSaysWhatEachFrameSays)
{
	std::mt19937_64 rng(1);

	for (unsigned round = 0; round < 50; round++) {
		World w;

		w.start();
		for (unsigned i = 0; i < 60; i++)
			(void)rdt_core_protect(w.vm, gpa_of(rng() % 500), rng() % 20 + 1,
					       static_cast<u8>(rng() % 4), static_cast<u8>(rng() % 3));
		std::vector<s64> says(lay::frames);

		for (const auto &[first, p] : list(w, 0, static_cast<u32>(rng() % 20 + 1)))
			for (u64 k = 0; k < p.pages; k++)
				says.at(first + k) = static_cast<s64>(RDT_ATTR(p.action, p.cls));
		for (gfn_t g = 0; g < lay::frames; g++) {
			EXPECT_EQ(says[g], w[0].hc(RDT_HC_QUERY, gpa_of(g))) << g;
			EXPECT_EQ(says[g] != 0, w.access(RDT_VIEW_ROOT, g) != RDT_ACC_RWX) << g;
		}
		rdt_vm_info info = {};
		u64 frames = 0;

		rdt_core_info(w.vm, &info);
		for (s64 s : says)
			frames += s != 0;
		EXPECT_EQ(info.frames, frames);
	}
}

/* The highest frames that there can be. */
TEST(A7, TheEndOfMemory)
{
	World w;

	w.host.memslots.push_back({gfn_limit - 1000, 1000});
	w.give_nodes();
	ASSERT_EQ(w.protect(gfn_limit - 10, 10, RDT_ACT_DENY, 3), 0);
	for (u32 room : {1u, 2u, 5u}) {
		const auto l = list(w, 0, room);

		ASSERT_EQ(l.size(), 2u);
		EXPECT_TRUE((l.at(gfn_limit - 10) == Piece{10, RDT_ACT_DENY, 3}));
	}
	EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(gfn_limit - 1) + 4095), s64{RDT_ACT_DENY | 3 << 8});
	EXPECT_EQ(w[0].fault(gpa_of(gfn_limit - 1) + 4095, RDT_ACC_W), RDT_V_GP);
	EXPECT_EQ(w.access(RDT_VIEW_ROOT, gfn_limit - 1), RDT_ACC_R | RDT_ACC_X);
	EXPECT_EQ(rdt_core_max_level(w.vm, 0, gfn_limit - 1, 3), 1);
	ASSERT_EQ(rdt_core_protect(w.vm, gpa_of(gfn_limit - 5), 5, RDT_ACT_NONE, 0), 0);
	EXPECT_EQ(w.access(RDT_VIEW_ROOT, gfn_limit - 1), RDT_ACC_RWX);
}

/* A7: a whole kernel's worth through the C face: a million frames in 10,000 ranges. */
TEST(A7, AMillionFrames)
{
	constexpr u64 ranges = 10000, pages = 100, stride = 128;
	World w(1, ranges * stride + 4096);

	for (unsigned i = 0; i < 80; i++)
		ASSERT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(i)), i + 1);
	for (u64 i = 0; i < ranges; i++)
		ASSERT_EQ(w.protect(4096 + i * stride, pages, RDT_ACT_DENY, static_cast<u8>(i % 5)), 0);
	rdt_vm_info info = {};

	rdt_core_info(w.vm, &info);
	EXPECT_EQ(info.ranges, ranges);
	EXPECT_EQ(info.frames, ranges * pages + 80);
	EXPECT_LE(info.host_bytes, (1u << 20) + (ranges * stride + 4096) / 8) << "1 MiB and a bit a frame";
	EXPECT_EQ(list(w, 0, 4096).size(), ranges + 80);

	std::mt19937_64 rng(7);

	for (unsigned i = 0; i < 20000; i++) {
		const u64 k = rng() % ranges, in = rng() % stride;
		const gpa_t gpa = gpa_of(4096 + k * stride + in);

		ASSERT_EQ(w[0].hc(RDT_HC_QUERY, gpa), in < pages ? static_cast<s64>(RDT_ATTR(RDT_ACT_DENY, k % 5)) : 0);
	}
	/* All at once, and the request that is refused as a whole, take no walk by frame. */
	ASSERT_EQ(w.protect(4096, ranges * stride, RDT_ACT_LOG, 1), -1);
	rdt_core_info(w.vm, &info);
	EXPECT_EQ(info.frames, ranges * pages + 80);
	ASSERT_EQ(rdt_core_protect(w.vm, gpa_of(4096), ranges * stride, RDT_ACT_NONE, 0), 0);
	info = {};
	rdt_core_info(w.vm, &info);
	EXPECT_EQ(info.frames, 80u);
	EXPECT_EQ(info.ranges, 0u);
}
