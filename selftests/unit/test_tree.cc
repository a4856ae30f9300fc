// SPDX-License-Identifier: GPL-2.0
/* The monitored-page tree against a model, with pages that nobody tampers with. */
#include <atomic>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "tree_world.h"

using namespace redoubt;

namespace {

void expect_same(TreeWorld &w)
{
	ASSERT_EQ(w.tree.verify(), Status::Ok);
	ASSERT_EQ(w.tree.ranges(), w.model.map.size());
	ASSERT_EQ(w.tree.frames(), w.model.frames());
	ASSERT_EQ(w.tree.node_pages(), w.pages.size());
	ASSERT_EQ(w.tree.free_nodes(), w.capacity() - w.model.map.size());

	gfn_t at = 0;
	Range r;

	for (const auto &[first, range] : w.model.map) {
		ASSERT_EQ(w.tree.next(at, &r), Status::Ok);
		ASSERT_EQ(r, range);
		at = r.last() + 1;
	}
	ASSERT_EQ(w.tree.next(at, &r), Status::None);
}

struct Shape {
	const char *name;
	gfn_t base;
	u64 space, longest;
	unsigned max_pages;
};

/* Dense: much splitting and merging. Sparse: many nodes. Top: the last frames. */
const Shape shapes[] = {
	{"dense", 0, 300, 20, 2},
	{"middle", 0x100000, 20000, 60, 6},
	{"sparse", 0x12345, 1u << 22, 2000, 20},
	{"top", gfn_limit - 5000, 5000, 40, 4},
};

class A7_Model : public testing::TestWithParam<Shape> {};

TEST_P(A7_Model, RandomOperationsMatchStdMap)
{
	constexpr unsigned operations = 260000; /* four shapes: more than a million */
	const Shape &s = GetParam();
	TreeWorld w(s.space);
	unsigned applied = 0, refused = 0;

	for (unsigned i = 0; i < operations;) {
		const Range r = w.random_range(s.base, s.space, s.longest);
		Status got, want;

		switch (w.pick(16)) {
		default:
			want = w.expect_insert(r);
			got = w.tree.insert(r);
			break;
		case 6 ... 9:
			want = w.expect_remove(r.first, r.count);
			got = w.tree.remove(r.first, r.count);
			break;
		case 10 ... 13:
			want = w.expect_protect(r);
			got = w.tree.protect(r);
			break;
		case 14: /* now and then a large hole */
			if (w.pick(50) != 0)
				continue;
			want = w.expect_remove(r.first, s.base + s.space - r.first);
			got = w.tree.remove(r.first, s.base + s.space - r.first);
			break;
		case 15: /* node pages come and go */
			if (w.pick(50) != 0)
				continue;
			if (w.pages.size() < s.max_pages && w.pick(3) != 0) {
				want = Status::Ok;
				got = w.add_page();
			} else if (!w.pages.empty()) {
				const gfn_t gfn = std::next(w.pages.begin(),
							    static_cast<long>(w.pick(w.pages.size())))
							  ->first;

				want = w.model.map.size() > w.capacity() - MonitorTree::nodes_per_page ?
					       Status::NoNodes :
					       Status::Ok;
				got = w.remove_page(gfn);
			} else {
				continue;
			}
			break;
		}
		ASSERT_EQ(got, want) << "operation " << i << " on " << r.first << "+" << r.count;
		applied += got == Status::Ok;
		refused += got == Status::NoNodes;

		const gfn_t gfn = s.base + w.pick(s.space);
		const Range *expected = w.model.find(gfn);
		Range found;

		ASSERT_EQ(w.tree.find(gfn, &found), expected ? Status::Ok : Status::None);
		if (expected) {
			ASSERT_EQ(found, *expected);
		}
		if (i++ % 2000 == 0) {
			ASSERT_NO_FATAL_FAILURE(expect_same(w));
		}
	}
	expect_same(w);
	/* The run must have been worth it. */
	EXPECT_GT(applied, operations / 20);
	EXPECT_GT(refused, 100u);
}

INSTANTIATE_TEST_SUITE_P(Shapes, A7_Model, testing::ValuesIn(shapes),
			 [](const auto &shape) { return shape.param.name; });

TEST(A1_NodePages, NodesLieInDonatedPagesAndNameEveryRange)
{
	TreeWorld w(1);

	for (unsigned i = 0; i < 3; i++)
		ASSERT_EQ(w.add_page(), Status::Ok);
	for (unsigned i = 0; i < 300; i++)
		ASSERT_EQ(w.tree.insert({i * 10, 5, 7, Action::Freeze, 9}), Status::Ok);

	/* As the guest sees it: bytes of its pages and nothing else. */
	std::map<u32, const TreeNode *> page_of;
	std::set<gfn_t> seen;

	for (const auto &[gfn, page] : w.pages) {
		TreePageHeader h;

		std::memcpy(&h, page.get(), sizeof(h));
		EXPECT_EQ(h.magic, MonitorTree::page_magic);
		EXPECT_EQ(h.slots, 128u);
		EXPECT_EQ(h.gfn, gfn);
		page_of[h.page] = page.get();
	}
	std::vector<u32> todo{TreeTester::root(w.tree)};

	while (!todo.empty()) {
		const u32 at = todo.back();

		todo.pop_back();
		if (at == 0)
			continue;
		ASSERT_TRUE(page_of.count(at >> 7));
		const TreeNode &n = page_of[at >> 7][at & 127];

		EXPECT_TRUE(seen.insert(n.first).second);
		EXPECT_EQ(n.count, 5u);
		EXPECT_EQ(n.cls, 7);
		EXPECT_EQ(n.action, 3);
		EXPECT_EQ(n.flags, 9);
		todo.push_back(n.left);
		todo.push_back(n.right);
	}
	EXPECT_EQ(seen.size(), 300u);
	EXPECT_EQ(*seen.rbegin(), 2990u);
}

TEST(A2_NodePages, AreKnownByFrame)
{
	TreeWorld w(2);

	EXPECT_EQ(w.tree.next_node_page(0), gfn_limit);
	ASSERT_EQ(w.add_page(), Status::Ok);
	ASSERT_EQ(w.add_page(), Status::Ok);
	const gfn_t first = w.pages.begin()->first;

	EXPECT_TRUE(w.tree.is_node_page(first));
	EXPECT_TRUE(w.tree.is_node_page(first + 1));
	EXPECT_FALSE(w.tree.is_node_page(first + 2));
	EXPECT_EQ(w.tree.next_node_page(first + 1), first + 1);
	ASSERT_EQ(w.remove_page(first), Status::Ok);
	EXPECT_FALSE(w.tree.is_node_page(first));
	EXPECT_EQ(w.tree.next_node_page(0), first + 1);
	EXPECT_EQ(w.remove_page(first), Status::None);
}

/* Nothing of the tree stays behind in a page that the guest gets back. */
TEST(A2_NodePages, AreEmptyWhenGivenBack)
{
	TreeWorld w(13);
	Range out;

	ASSERT_EQ(w.add_page(), Status::Ok);
	ASSERT_EQ(w.add_page(), Status::Ok);
	for (unsigned i = 0; i < 127; i++)
		ASSERT_EQ(w.tree.insert({i * 10, 5, 7, Action::Freeze, 9}), Status::Ok);
	for (const auto &[gfn, page] : w.pages) {
		const TreeNode nothing = {};

		ASSERT_EQ(w.tree.remove_node_page(gfn), Status::Ok);
		EXPECT_EQ(w.tree.verify(), Status::Ok);
		EXPECT_EQ(w.tree.find(634, &out), Status::Ok);
		for (unsigned i = 1; i < MonitorTree::slots_per_page; i++)
			ASSERT_EQ(std::memcmp(page.get() + i, &nothing, sizeof(nothing)), 0);
		ASSERT_EQ(w.tree.add_node_page(page.get(), gfn), Status::Ok);
	}
}

TEST(A2_NodePages, BadInputChangesNothing)
{
	TreeWorld w(3);
	alignas(8) static char page[page_size + 8];

	EXPECT_EQ(w.tree.add_node_page(nullptr, 1), Status::Inval);
	EXPECT_EQ(w.tree.add_node_page(page + 4, 1), Status::Inval);
	EXPECT_EQ(w.tree.add_node_page(page, gfn_limit), Status::Inval);
	EXPECT_EQ(w.tree.add_node_page(page, ~0ull), Status::Inval);
	EXPECT_EQ(w.tree.node_pages(), 0u);
	ASSERT_EQ(w.tree.add_node_page(page, 1), Status::Ok);
	EXPECT_EQ(w.tree.add_node_page(page, 1), Status::Overlap);
	EXPECT_EQ(w.tree.node_pages(), 1u);
	EXPECT_EQ(w.tree.free_nodes(), 127u);
	for (unsigned i = 0; i < 8; i++)
		EXPECT_EQ(page[page_size + i], 0);
}

TEST(A7_Ranges, BadInputChangesNothing)
{
	TreeWorld w(4);
	Range out;

	ASSERT_EQ(w.add_page(), Status::Ok);
	ASSERT_EQ(w.tree.insert({100, 10, 1, Action::Deny, 0}), Status::Ok);

	const std::pair<gfn_t, u64> bad[] = {
		{5, 0},		{gfn_limit, 1},	    {gfn_limit - 1, 2}, {~0ull, 1},
		{~0ull, ~0ull}, {1, ~0ull},	    {1, gfn_limit},	{gfn_limit - 1, ~0ull},
		{0, 0},		{1ull << 63, 1ull << 63},
	};
	for (const auto &[first, count] : bad) {
		EXPECT_EQ(w.tree.insert({first, count, 0, Action::Log, 0}), Status::Inval);
		EXPECT_EQ(w.tree.protect({first, count, 0, Action::Log, 0}), Status::Inval);
		EXPECT_EQ(w.tree.remove(first, count), Status::Inval);
	}
	for (unsigned action : {0u, 4u, 255u}) {
		const Range r = {1, 1, 0, static_cast<Action>(action), 0};

		EXPECT_EQ(w.tree.insert(r), Status::Inval);
		EXPECT_EQ(w.tree.protect(r), Status::Inval);
	}
	EXPECT_EQ(w.tree.find(gfn_limit, &out), Status::None);
	EXPECT_EQ(w.tree.find(~0ull, &out), Status::None);
	EXPECT_EQ(w.tree.next(gfn_limit, &out), Status::None);
	EXPECT_EQ(w.tree.ranges(), 1u);
	EXPECT_EQ(w.tree.verify(), Status::Ok);

	/* The whole key space is one range. */
	EXPECT_EQ(w.tree.protect({0, gfn_limit, 2, Action::Log, 0}), Status::Ok);
	EXPECT_EQ(w.tree.find(gfn_limit - 1, &out), Status::Ok);
	EXPECT_EQ(w.tree.ranges(), 1u);
	EXPECT_EQ(w.tree.frames(), gfn_limit);
	EXPECT_EQ(w.tree.remove(0, gfn_limit), Status::Ok);
	EXPECT_EQ(w.tree.ranges(), 0u);
	EXPECT_EQ(w.tree.verify(), Status::Ok);
}

TEST(A7_Ranges, SplitNeedsANodeAndSaysSoFirst)
{
	TreeWorld w(5);
	Range out;

	EXPECT_EQ(w.tree.insert({0, 1, 0, Action::Deny, 0}), Status::NoNodes);
	ASSERT_EQ(w.add_page(), Status::Ok);
	for (unsigned i = 0; i < MonitorTree::nodes_per_page; i++)
		ASSERT_EQ(w.tree.insert({i * 100, 50, 0, Action::Deny, 0}), Status::Ok);
	EXPECT_EQ(w.tree.free_nodes(), 0u);

	EXPECT_EQ(w.tree.insert({75, 1, 0, Action::Deny, 0}), Status::NoNodes);
	EXPECT_EQ(w.tree.remove(10, 10), Status::NoNodes);
	EXPECT_EQ(w.tree.protect({10, 10, 1, Action::Deny, 0}), Status::NoNodes);
	EXPECT_EQ(w.tree.protect({0, 10, 1, Action::Deny, 0}), Status::NoNodes);
	EXPECT_EQ(w.tree.find(15, &out), Status::Ok);
	EXPECT_EQ(out, (Range{0, 50, 0, Action::Deny, 0}));
	/* These need none: joined, cut at an end, replaced, overwritten by itself. */
	EXPECT_EQ(w.tree.insert({50, 10, 0, Action::Deny, 0}), Status::Ok);
	EXPECT_EQ(w.tree.remove(0, 10), Status::Ok);
	EXPECT_EQ(w.tree.protect({100, 50, 1, Action::Deny, 0}), Status::Ok);
	EXPECT_EQ(w.tree.protect({120, 10, 1, Action::Deny, 0}), Status::Ok);
	/* Two go, one comes: then there is room for one. */
	EXPECT_EQ(w.tree.protect({200, 150, 1, Action::Deny, 0}), Status::Ok);
	EXPECT_EQ(w.tree.free_nodes(), 1u);
	EXPECT_EQ(w.tree.protect({410, 10, 1, Action::Deny, 0}), Status::NoNodes);
	EXPECT_EQ(w.tree.remove(410, 10), Status::Ok);
	EXPECT_EQ(w.tree.verify(), Status::Ok);
	EXPECT_EQ(w.remove_page(w.pages.begin()->first), Status::NoNodes);
}

/* `ctx` counts; ranges of class 9 belong to somebody else. */
bool not_class_9(const Range &existing, const Range *, void *ctx)
{
	++*static_cast<unsigned *>(ctx);
	return existing.cls != 9;
}

TEST(A5_Policy, AVetoOnOneRangeChangesNothing)
{
	TreeWorld w(6);
	Range out;
	unsigned asked = 0;

	ASSERT_EQ(w.add_page(), Status::Ok);
	ASSERT_EQ(w.tree.insert({10, 10, 1, Action::Log, 0}), Status::Ok);
	ASSERT_EQ(w.tree.insert({20, 10, 9, Action::Deny, 0}), Status::Ok);
	ASSERT_EQ(w.tree.insert({30, 10, 1, Action::Log, 0}), Status::Ok);

	EXPECT_EQ(w.tree.protect({5, 30, 2, Action::Log, 0}, not_class_9, &asked), Status::Refused);
	EXPECT_EQ(w.tree.remove(29, 2, not_class_9, &asked), Status::Refused);
	EXPECT_EQ(asked, 3u);
	EXPECT_EQ(w.tree.ranges(), 3u);
	EXPECT_EQ(w.tree.frames(), 30u);
	EXPECT_EQ(w.tree.find(15, &out), Status::Ok);
	EXPECT_EQ(out.cls, 1);

	EXPECT_EQ(w.tree.protect({5, 15, 2, Action::Log, 0}, not_class_9, &asked), Status::Ok);
	EXPECT_EQ(w.tree.remove(30, 100, not_class_9, &asked), Status::Ok);
	EXPECT_EQ(asked, 5u);
	EXPECT_EQ(w.tree.ranges(), 2u);
	EXPECT_EQ(w.tree.find(20, &out), Status::Ok);
	EXPECT_EQ(out.cls, 9);
	EXPECT_EQ(w.tree.verify(), Status::Ok);
}

TEST(A7_Scale, MillionFramesInTenThousandRanges)
{
	const std::size_t blocks = test_alloc_blocks();
	{
		auto bitmap = std::make_unique<FrameBitmap>();
		TreeWorld w(7);
		const std::size_t before = test_alloc_bytes() - bitmap->host_bytes();
		std::vector<gfn_t> starts;
		Range out;

		for (unsigned i = 0; i < 10000; i++)
			starts.push_back(i * 150);
		std::shuffle(starts.begin(), starts.end(), w.rng);
		for (gfn_t first : starts) {
			const Range r = {first, 100, 1, Action::Deny, 0};

			if (w.tree.free_nodes() == 0) {
				ASSERT_EQ(w.add_page(), Status::Ok);
			}
			ASSERT_EQ(w.tree.insert(r), Status::Ok);
			ASSERT_EQ(bitmap->set_range(r.first, r.count), Status::Ok);
		}
		EXPECT_EQ(w.tree.ranges(), 10000u);
		EXPECT_EQ(w.tree.frames(), 1000000u);
		EXPECT_EQ(bitmap->weight(), 1000000u);
		EXPECT_EQ(w.tree.node_pages(), 79u); /* 10000 / 127 */
		EXPECT_EQ(w.tree.verify(), Status::Ok);

		/* What it says it takes, and what malloc says: both within the bound. */
		const u64 bound = (1u << 20) + 1000000 / 8;

		EXPECT_LE(w.tree.host_bytes() + bitmap->host_bytes(), bound);
		EXPECT_LE(test_alloc_bytes() - before + sizeof(MonitorTree) + sizeof(FrameBitmap),
			  bound);

		for (unsigned i = 0; i < 10000; i++) /* split each */
			while (w.tree.remove(i * 150 + 50, 1) == Status::NoNodes)
				ASSERT_EQ(w.add_page(), Status::Ok);
		EXPECT_EQ(w.tree.ranges(), 20000u);
		EXPECT_EQ(w.tree.verify(), Status::Ok);
		for (unsigned i = 0; i < 10000; i++) /* and mend it */
			ASSERT_EQ(w.tree.insert({i * 150 + 50, 1, 1, Action::Deny, 0}), Status::Ok);
		EXPECT_EQ(w.tree.ranges(), 10000u);
		EXPECT_EQ(w.tree.verify(), Status::Ok);
		for (unsigned i = 0; i + 1 < 10000; i++) /* merge all into one */
			ASSERT_EQ(w.tree.insert({i * 150 + 100, 50, 1, Action::Deny, 0}), Status::Ok);
		EXPECT_EQ(w.tree.ranges(), 1u);
		EXPECT_EQ(w.tree.find(777777, &out), Status::Ok);
		EXPECT_EQ(out.count, 9999u * 150 + 100);
		EXPECT_EQ(w.tree.verify(), Status::Ok);
	}
	EXPECT_EQ(test_alloc_blocks(), blocks);
}

TEST(A7_Scale, AsManyRangesAsNodesCanBe)
{
	TreeWorld w(8);
	Range out;

	for (unsigned i = 0; i < MonitorTree::max_pages; i++)
		ASSERT_EQ(w.add_page(), Status::Ok);
	EXPECT_EQ(w.add_page(), Status::Refused);
	/* Ascending keys make the deepest red-black tree there is. */
	for (u64 i = 0; i < MonitorTree::max_nodes; i++)
		ASSERT_EQ(w.tree.insert({i * 2, 1, 0, Action::Deny, 0}), Status::Ok);
	EXPECT_EQ(w.tree.insert({gfn_limit - 1, 1, 0, Action::Deny, 0}), Status::NoNodes);
	EXPECT_EQ(w.tree.verify(), Status::Ok);
	for (u64 i = 0; i < MonitorTree::max_nodes; i += 97)
		ASSERT_EQ(w.tree.find(i * 2, &out), Status::Ok);
	EXPECT_EQ(w.tree.find((MonitorTree::max_nodes - 1) * 2, &out), Status::Ok);
	for (u64 i = 0; i < MonitorTree::max_nodes; i += 2)
		ASSERT_EQ(w.tree.remove(i * 2, 1), Status::Ok);
	EXPECT_EQ(w.tree.verify(), Status::Ok);
	EXPECT_EQ(w.tree.remove(0, gfn_limit), Status::Ok);
	EXPECT_EQ(w.tree.frames(), 0u);
	EXPECT_EQ(w.tree.verify(), Status::Ok);
}

TEST(A7_Memory, EveryFailedAllocationChangesNothing)
{
	const std::size_t blocks = test_alloc_blocks();

	/* A new tree at each try, so that each allocation in turn is the one to fail. */
	for (long allowed = 0;; allowed++) {
		TreeWorld w(9);

		test_alloc_limit(allowed);
		const Status s = w.add_page();

		test_alloc_limit(-1);
		if (s == Status::Ok) {
			EXPECT_GE(allowed, 5); /* chunk, tags, three levels of bitmap */
			EXPECT_FALSE(TreeTester::has_memo(w.tree)); /* that one it can do without */
			EXPECT_EQ(w.tree.insert({1, 1, 1, Action::Log, 0}), Status::Ok);
			Range out;
			EXPECT_EQ(w.tree.find(1, &out), Status::Ok);
			break;
		}
		ASSERT_EQ(s, Status::NoMem);
		EXPECT_EQ(w.tree.node_pages(), 0u);
		EXPECT_EQ(w.tree.free_nodes(), 0u);
		EXPECT_EQ(w.tree.next_node_page(0), gfn_limit);
		EXPECT_EQ(w.tree.insert({1, 1, 1, Action::Log, 0}), Status::NoNodes);
		EXPECT_EQ(w.tree.verify(), Status::Ok);
		ASSERT_EQ(w.add_page(), Status::Ok);
		EXPECT_EQ(w.tree.insert({1, 1, 1, Action::Log, 0}), Status::Ok);
		EXPECT_EQ(w.tree.verify(), Status::Ok);
	}
	/* Operations on ranges need no host memory at all. */
	{
		TreeWorld w(10);

		ASSERT_EQ(w.add_page(), Status::Ok);
		test_alloc_limit(0);
		for (unsigned i = 0; i < 100; i++)
			EXPECT_EQ(w.tree.insert({i * 10, 5, 1, Action::Log, 0}), Status::Ok);
		EXPECT_EQ(w.tree.protect({0, 500, 2, Action::Log, 0}), Status::Ok);
		EXPECT_EQ(w.tree.remove(250, 10), Status::Ok);
		EXPECT_EQ(w.tree.verify(), Status::Ok);
		test_alloc_limit(-1);
	}
	EXPECT_EQ(test_alloc_blocks(), blocks);
}

TEST(A7_Readers, BusyWhileAWriterStandsStill)
{
	TreeWorld w(11);
	Range out;

	ASSERT_EQ(w.add_page(), Status::Ok);
	ASSERT_EQ(w.tree.insert({1, 1, 1, Action::Log, 0}), Status::Ok);
	TreeTester::writer_begins(w.tree);
	EXPECT_EQ(w.tree.find(1, &out), Status::Busy);
	EXPECT_EQ(w.tree.next(0, &out), Status::Busy);
	EXPECT_EQ(TreeTester::writer_ends(w.tree), Status::Ok);
	EXPECT_EQ(w.tree.find(1, &out), Status::Ok);
}

/*
 * Two readers beside a writer that replaces, splits, merges and moves nodes: a frame
 * that is under a rule all the time is never seen without one, nor the tree corrupt.
 */
TEST(A7_Readers, NeverSeeAGapNorCorruptionBesideAWriter)
{
	TreeWorld w(12);
	std::atomic<bool> stop{false};
	std::atomic<u64> wrong{0}, answered{0}, busy{0};

	for (unsigned i = 0; i < 4; i++)
		ASSERT_EQ(w.add_page(), Status::Ok);
	for (unsigned i = 0; i < 200; i++)
		ASSERT_EQ(w.tree.insert({i * 20, 10, 1, Action::Deny, 0}), Status::Ok);

	auto reader = [&](u64 seed) {
		Rng rng(seed);
		Range r;

		while (!stop) {
			const gfn_t gfn = rng() % 200 * 20 + rng() % 10;
			const Status s = w.tree.find(gfn, &r);

			if (s == Status::Busy)
				busy++;
			else if (s != Status::Ok || gfn < r.first || gfn > r.last() ||
				 (r.cls != 1 && r.cls != 2))
				wrong++;
			else
				answered++;
			const Status n = w.tree.next(rng() % 4000, &r);

			if (n != Status::Ok && n != Status::None && n != Status::Busy)
				wrong++;
		}
	};
	std::thread a(reader, 1), b(reader, 2);

	for (unsigned i = 0; i < 30000; i++) {
		const gfn_t at = w.pick(200) * 20;
		const u64 from = w.pick(10);
		const Range part = {at + from, 1 + w.pick(10 - from), static_cast<u8>(1 + w.pick(2)),
				    Action::Deny, 0};

		ASSERT_NE(w.tree.protect(part), Status::Corrupt);
		const Range gap = {at + 10, 10, 3, Action::Log, 0};

		const Status s = w.pick(2) ? w.tree.protect(gap) :
					     w.tree.remove(gap.first, gap.count);

		ASSERT_NE(s, Status::Corrupt);
		if (i % 64 == 0) {
			/* Not unmapped: readers are under way. */
			const gfn_t page = w.pages.begin()->first + w.pick(4);
			const Status gone = w.tree.remove_node_page(page);

			ASSERT_TRUE(gone == Status::Ok || gone == Status::NoNodes);
			if (gone == Status::Ok) {
				ASSERT_EQ(w.tree.add_node_page(w.pages[page].get(), page),
					  Status::Ok);
			}
		}
	}
	stop = true;
	a.join();
	b.join();
	EXPECT_EQ(wrong, 0u);
	EXPECT_GT(answered, 1000u);
	EXPECT_FALSE(w.tree.poisoned());
	EXPECT_EQ(w.tree.verify(), Status::Ok);
}

} // namespace
