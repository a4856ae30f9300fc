// SPDX-License-Identifier: GPL-2.0
/* C9, bad input: host memory runs out at the n-th allocation, for every n. */
#include "vm_world.h"

using namespace redoubt;

namespace {

constexpr s64 e_nomem = -12;

struct Operation {
	const char *what;
	std::function<void(World &)> before;
	std::function<s64(World &)> run;
	s64 good;
};

void seventeen_nodes(World &w)
{
	w.give_nodes(16); /* with the next one, the tree's large memo is due */
}

void nothing(World &)
{
}

void one_node(World &w)
{
	w.give_nodes(1);
}

void full_chunk(World &w)
{
	w.give_nodes(64);
}

/* Far from everything: each level of the bitmap's tables is new. */
constexpr gfn_t far_away = 1ull << 38;

const Operation operations[] = {
	{"first node page", nothing, [](World &w) { return w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes)); }, 1},
	{"second node page", one_node, [](World &w) { return w[0].hc(RDT_HC_NODE_ADD, gpa_of(300)); }, 2},
	{"node page with a larger memo", seventeen_nodes, [](World &w) { return w[0].hc(RDT_HC_NODE_ADD, gpa_of(300)); }, 17},
	{"node page of a new chunk", full_chunk, [](World &w) { return w[0].hc(RDT_HC_NODE_ADD, gpa_of(300)); }, 65},
	{"protect nearby", one_node, [](World &w) { return w.protect(100, 10, RDT_ACT_DENY, 0); }, 0},
	{"protect far away",
	 [](World &w) {
		 w.give_nodes(1);
		 w.host.memslots.push_back({far_away, 1 << 20});
	 },
	 [](World &w) { return w.protect(far_away + 5, 200000, RDT_ACT_DENY, 0); }, 0},
	{"the operator protects", one_node,
	 [](World &w) { return rdt_core_protect(w.vm, gpa_of(100), 10, RDT_ACT_LOG, 0); }, 0},
	{"driver", one_node, [](World &w) { return w.seal(good_desc()); }, 0},
	{"driver with distant regions",
	 [](World &w) {
		 w.give_nodes(1);
		 w.host.memslots.push_back({far_away, 1 << 20});
	 },
	 [](World &w) {
		 rdt_driver_desc d = good_desc();

		 d.region[4] = {gpa_of(far_away), 40000, RDT_DRV_DATA};
		 d.region[5] = {gpa_of(far_away + 80000), 100000, RDT_DRV_TEXT};
		 d.regions = 6;
		 return w.seal(d);
	 },
	 0},
};

} // namespace

TEST(C9, NoMemoryAtAnyPoint)
{
	for (const Operation &op : operations) {
		SCOPED_TRACE(op.what);
		const u64 baseline = test_alloc_blocks();
		unsigned failures = 0;

		for (long n = 0;; n++) {
			SCOPED_TRACE("allocation " + std::to_string(n));
			World w;

			op.before(w);
			w.quiet();
			const Snapshot before = w.snapshot();
			const u64 pins = w.host.pins();

			test_alloc_limit(n);
			const s64 r = op.run(w);

			test_alloc_limit(-1);
			if (r == op.good) {
				w.end();
				EXPECT_EQ(test_alloc_blocks(), baseline);
				break;
			}
			failures++;
			ASSERT_EQ(r, e_nomem);
			EXPECT_EQ(before.diff(w.snapshot()), "");
			EXPECT_EQ(w.access(RDT_VIEW_ROOT, far_away + 5), RDT_ACC_RWX);
			EXPECT_EQ(w.access(RDT_VIEW_ROOT, far_away + 200000), RDT_ACC_RWX);
			EXPECT_EQ(w.host.pins(), pins);
			EXPECT_TRUE(w.host.take_events().empty());

			/* Nothing is left half-done: with memory it works. */
			EXPECT_EQ(op.run(w), op.good);
			w.end();
			EXPECT_EQ(test_alloc_blocks(), baseline) << "leak";
		}
		if (std::string(op.what) != "protect nearby" && std::string(op.what) != "the operator protects")
			EXPECT_GT(failures, 0u) << "no allocation was refused";
	}
}

TEST(C9, NoMemoryForTheVmItself)
{
	MockHost host(16);
	const u64 baseline = test_alloc_blocks();

	test_alloc_limit(0);
	EXPECT_EQ(rdt_core_vm_create(&host), nullptr);
	test_alloc_limit(-1);

	rdt_core_vm *vm = rdt_core_vm_create(&host);
	MockHv hv;

	ASSERT_TRUE(vm);
	test_alloc_limit(0);
	EXPECT_EQ(rdt_core_vcpu_create(vm, &hv), nullptr);
	test_alloc_limit(-1);
	rdt_core_vm_destroy(vm);
	EXPECT_EQ(test_alloc_blocks(), baseline);
}

/* What a guest can make the host allocate is bounded by its RAM, and it is told. */
TEST(C9, HostMemoryIsAccountedFor)
{
	const u64 baseline = test_alloc_bytes();
	World w;
	rdt_vm_info info = {};
	auto check = [&](const char *what) {
		info = {};
		rdt_core_info(w.vm, &info);
		/* vCPUs are the host's to count; malloc rounds. */
		const double held = static_cast<double>(test_alloc_bytes() - baseline);

		EXPECT_GT(static_cast<double>(info.host_bytes), held * 0.95 - 200) << what;
		EXPECT_LT(static_cast<double>(info.host_bytes), held * 1.05 + 200) << what;
	};

	check("at first");
	w.give_nodes(40);
	check("node pages");
	for (gfn_t g = 100; g < 400; g += 3)
		ASSERT_EQ(w.protect(g, 1, RDT_ACT_DENY, 0), 0);
	check("ranges");
	ASSERT_EQ(w.seal(good_desc()), 0);
	check("driver");
}

/* Asking for the same again and again takes no more memory. */
TEST(C9, RepeatedRequestsTakeNoMore)
{
	World w;

	w.start();
	auto round = [&] {
		for (gfn_t g = 100; g < 160; g++)
			EXPECT_EQ(w.protect(g, 10, RDT_ACT_DENY, RDT_CLS_TEXT), 0);
		(void)w[0].hc(RDT_HC_UNPROTECT, gpa_of(100), 1);
		(void)w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes));
		(void)w.seal(good_desc());
		EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(100), 100, RDT_ACT_NONE, 0), 0);
		w.quiet();
	};

	round();
	const u64 blocks = test_alloc_blocks();

	for (unsigned i = 0; i < 100; i++)
		round();
	EXPECT_EQ(test_alloc_blocks(), blocks);
}
