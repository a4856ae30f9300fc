// SPDX-License-Identifier: GPL-2.0
/* B11: the end of a VM, at any moment: guest memory is let go of and not touched again. */
#include <thread>

#include "vm_world.h"

using namespace redoubt;

namespace {

constexpr int e_nodev = -19;

/* A VM in the middle of everything: ranges, a thread inside, one interrupted. */
void busy(World &w)
{
	w.give_nodes(3);
	ASSERT_EQ(w.seal(good_desc()), 0);
	for (gfn_t g = 100; g < 300; g += 4)
		ASSERT_EQ(w.protect(g, 2, static_cast<u8>(g / 4 % 3 + 1), 1), 0);
	ASSERT_TRUE(w[0].enter_call());
	ASSERT_TRUE(w[1].enter_call());
	w[1].strike();
	w.quiet();
}

} // namespace

TEST(B11, AfterTheEndNothingIsTouched)
{
	World w;

	busy(w);
	EXPECT_EQ(w.host.pins(), 3u);
	rdt_core_end(w.vm);
	EXPECT_EQ(w.host.pins(), 0u) << "guest pages are let go of";
	w.host.unmap_ram();

	rdt_region r[10];
	rdt_u64 next = 77;
	rdt_vm_info info = {};

	EXPECT_EQ(rdt_core_regions(w.vm, 0, r, 10, &next), e_nodev);
	for (u8 action : {u8{RDT_ACT_NONE}, u8{RDT_ACT_LOG}, u8{RDT_ACT_DENY}})
		for (gfn_t g : {gfn_t{50}, gfn_t{100}, lay::text, lay::nodes})
			EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(g), 1, action, 0), e_nodev);
	EXPECT_EQ(rdt_core_detach(w.vm, 0), e_nodev);
	rdt_core_info(w.vm, &info);
	(void)rdt_core_status(w.vm);
	rdt_core_mapping_changed(w.vm, 0, lay::frames);
	(void)rdt_core_may_hold_pv(w.vm, gpa_of(100), 8);
	for (gfn_t g = 0; g < lay::frames; g++)
		(void)w.access(RDT_VIEW_ROOT, g);
	EXPECT_TRUE(w.host.take_zaps().empty());
	w.end();
}

/* Twice is once; and destroyed without an end is the same. */
TEST(B11, EndsOfEveryKind)
{
	const u64 blocks = test_alloc_blocks();

	for (int how = 0; how < 4; how++) {
		World w;

		busy(w);
		if (how & 1)
			rdt_core_end(w.vm);
		if (how == 3)
			rdt_core_end(w.vm);
		w.end();
		EXPECT_EQ(w.host.pins(), 0u);
		EXPECT_EQ(test_alloc_blocks(), blocks);
	}
	/* One that never did anything. */
	World w;

	rdt_core_end(w.vm);
	w.end();
	EXPECT_EQ(test_alloc_blocks(), blocks);
}

/* A hypercall that a vCPU made while its VM was taken down finds the door closed. */
TEST(B11, HypercallsThatCameTooLate)
{
	World w;

	w.give_nodes();
	ASSERT_EQ(w.protect(100, 1, RDT_ACT_DENY, 0), 0);
	rdt_core_end(w.vm);
	w.host.unmap_ram();
	EXPECT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(50)), e_nodev);
	EXPECT_EQ(w.protect(50, 1, RDT_ACT_DENY, 0), e_nodev);
	EXPECT_EQ(w[0].hc(RDT_HC_DRIVER, gpa_of(lay::desc)), e_nodev);
	EXPECT_EQ(w[0].hc(RDT_HC_UNPROTECT, gpa_of(100), 1), -1);
	w.end();
}

/* The operator's calls from other threads while the VM ends. */
TEST(B11, TheOperatorWhileTheVmEnds)
{
	for (unsigned round = 0; round < 100; round++) {
		World w;
		std::atomic<bool> stop{false};

		w.give_nodes(2);
		ASSERT_EQ(w.seal(good_desc()), 0);
		std::thread op([&] {
			rdt_region r[10];
			rdt_u64 next;
			rdt_vm_info info = {};
			bool ended = false;

			for (unsigned i = 0; !stop; i++) {
				const int p = rdt_core_protect(w.vm, gpa_of(100 + i % 50), 3, static_cast<u8>(i % 4), 0);

				EXPECT_TRUE(p == 0 || p == -2 || p == e_nodev) << p;
				if (ended)
					EXPECT_EQ(p, e_nodev) << "it came back to life";
				ended |= p == e_nodev;
				const int n = rdt_core_regions(w.vm, 0, r, 10, &next);

				EXPECT_TRUE(n >= 0 || n == e_nodev) << n;
				rdt_core_info(w.vm, &info);
			}
		});
		for (unsigned i = 0; i < round % 7; i++)
			std::this_thread::yield();
		rdt_core_end(w.vm);
		w.host.unmap_ram();
		std::this_thread::yield();
		stop = true;
		op.join();
		w.end();
	}
}
