// SPDX-License-Identifier: GPL-2.0
/*
 * A6: node pages that somebody rewrites, before an operation and during it.
 *
 * Two attackers. One writes what he likes: every answer must then be the model's
 * or Corrupt. The other has guessed every tag as well (reseal): answers may be
 * wrong, but every operation still ends and stays inside the pages.
 */
#include <atomic>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "tree_world.h"

using namespace redoubt;

namespace {

/* Counts loads of nodes, and rewrites pages in the middle of a walk. */
struct Probe {
	TreeWorld &w;
	u64 loads = 0, strike_at = ~0ull;
	unsigned kind = 0;
	bool flip = false; /* at every load: the tampered pages, the right ones, ... */
	TreeWorld::Snapshot good, bad;

	explicit Probe(TreeWorld &world) : w(world)
	{
		test_on_node_load(hook, this);
	}
	~Probe()
	{
		test_on_node_load(nullptr, nullptr);
	}
	static void hook(void *ctx)
	{
		Probe *p = static_cast<Probe *>(ctx);

		if (++p->loads == p->strike_at)
			p->w.attack(p->kind);
		if (p->flip)
			p->w.restore(p->loads % 2 ? p->bad : p->good);
	}
};

constexpr u64 depth = MonitorTree::max_depth;
/* memo, fast walk and its verdict, sure walk; four loads a node */
constexpr u64 find_bound = 4 + depth + 4 + 4 * depth;

u64 writer_bound(const TreeWorld &w)
{
	/* for every range at most: a survey, a search, a way down, a repair */
	return (w.tree.ranges() + 4) * 4 * depth * 8;
}

/* One operation of any kind. True while the tree is alive. */
bool operate(TreeWorld &w, Probe &p, bool sealed)
{
	constexpr gfn_t space = 2000;
	const Range r = w.random_range(0, space, 50);
	const u64 from = p.loads;
	u64 bound = writer_bound(w);
	Status got = Status::Ok, want = Status::Ok;
	Range out = {};

	switch (w.pick(12)) {
	default: {
		bound = find_bound;
		got = w.tree.find(r.first, &out);
		if (sealed && got != Status::Corrupt) {
			const Range *expected = w.model.find(r.first);

			want = expected ? Status::Ok : Status::None;
			if (expected)
				EXPECT_EQ(out, *expected);
		} else {
			want = got;
		}
		break;
	}
	case 6: {
		bound = 4 * depth;
		got = w.tree.next(r.first, &out);
		if (sealed && got != Status::Corrupt) {
			const Range *expected = w.model.next(r.first);

			want = expected ? Status::Ok : Status::None;
			if (expected)
				EXPECT_EQ(out, *expected);
		} else {
			want = got;
		}
		break;
	}
	case 7:
		want = sealed ? w.expect_insert(r) : want;
		got = w.tree.insert(r);
		break;
	case 8:
		want = sealed ? w.expect_remove(r.first, r.count) : want;
		got = w.tree.remove(r.first, r.count);
		break;
	case 9:
		want = sealed ? w.expect_protect(r) : want;
		got = w.tree.protect(r);
		break;
	case 10: /* all at once */
		want = sealed ? w.expect_remove(0, gfn_limit) : want;
		got = w.tree.remove(0, gfn_limit);
		break;
	case 11:
		if (w.pick(2)) {
			got = w.tree.verify();
		} else {
			const gfn_t gfn = w.pages.begin()->first;

			if (sealed && w.model.map.size() > w.capacity() - MonitorTree::nodes_per_page)
				want = Status::NoNodes;
			/* the page stays mapped: a hostile walk may still want it */
			got = w.tree.remove_node_page(gfn);
			if (got == Status::Ok)
				EXPECT_EQ(w.tree.add_node_page(w.pages.begin()->second.get(), gfn),
					  Status::Ok);
		}
		break;
	}
	EXPECT_LE(p.loads - from, bound);
	if (got == Status::Corrupt) {
		EXPECT_TRUE(w.tree.poisoned());
		return false;
	}
	EXPECT_FALSE(w.tree.poisoned());
	if (sealed)
		EXPECT_EQ(got, want);
	else
		EXPECT_NE(got, Status::Busy);
	return true;
}

void expect_dead(TreeWorld &w)
{
	alignas(8) static char page[page_size];
	Range out;

	EXPECT_TRUE(w.tree.poisoned());
	EXPECT_EQ(w.tree.find(w.pick(2000), &out), Status::Corrupt);
	EXPECT_EQ(w.tree.next(0, &out), Status::Corrupt);
	EXPECT_EQ(w.tree.insert({5000, 1, 1, Action::Log, 0}), Status::Corrupt);
	EXPECT_EQ(w.tree.protect({0, 1, 1, Action::Log, 0}), Status::Corrupt);
	EXPECT_EQ(w.tree.remove(0, 2000), Status::Corrupt);
	EXPECT_EQ(w.tree.verify(), Status::Corrupt);
	EXPECT_EQ(w.tree.add_node_page(page, 5), Status::Corrupt);
	EXPECT_EQ(w.tree.remove_node_page(w.pages.begin()->first), Status::Corrupt);
	/* Which frames hold nodes is not forgotten. */
	EXPECT_TRUE(w.tree.is_node_page(w.pages.begin()->first));
}

void populate(TreeWorld &w, unsigned pages, u64 ranges)
{
	for (unsigned i = 0; i < pages; i++)
		ASSERT_EQ(w.add_page(), Status::Ok);
	for (u64 i = 0; i < ranges; i++) {
		const Range r = w.random_range(0, 2000, 20);
		const Status want = w.expect_protect(r);

		ASSERT_EQ(w.tree.protect(r), want);
	}
}

struct Tally {
	u64 cases = 0, detected = 0;
};

/* One case from one number: which tree, which attack, when, which operations. */
void hostile_case(u64 seed, Tally (&tally)[TreeWorld::attacks])
{
	TreeWorld w(seed);
	const bool large = w.pick(200) == 0;
	const unsigned kind = static_cast<unsigned>(w.pick(TreeWorld::attacks));

	ASSERT_NO_FATAL_FAILURE(populate(w, large ? 6 : 1 + static_cast<unsigned>(w.pick(2)),
					 large ? 400 : 2 + w.pick(30)));

	Probe p(w);
	bool sealed = true;
	const auto good = w.snapshot();

	p.kind = kind;
	switch (w.pick(4)) {
	case 0: /* before */
		w.attack(kind);
		break;
	case 1: /* before, with every tag guessed */
		w.attack(kind);
		if (w.pick(2))
			w.attack(static_cast<unsigned>(w.pick(TreeWorld::attacks)));
		TreeTester::reseal(w.tree);
		sealed = false;
		break;
	case 2: /* in the middle of a walk */
		p.strike_at = 1 + w.pick(400);
		break;
	case 3: /* there and back at every load */
		p.good = good;
		w.attack(kind);
		p.bad = w.snapshot();
		p.flip = true;
		break;
	}

	bool alive = true;

	for (unsigned i = 0; i < 12 && alive; i++) {
		alive = operate(w, p, sealed);
		if (p.flip && w.pick(2)) { /* what legal writes have made of the pages */
			p.flip = false;
			w.restore(p.good);
		}
		if (testing::Test::HasFailure())
			return;
	}
	p.flip = false;
	p.strike_at = ~0ull;
	tally[kind].cases += sealed;
	tally[kind].detected += sealed && !alive;
	if (!alive) {
		expect_dead(w);
		w.restore(good); /* too late */
		expect_dead(w);
	}
}

void run_cases(u64 first, u64 cases)
{
	Tally tally[TreeWorld::attacks];

	for (u64 i = first; i < first + cases; i++) {
		hostile_case(i, tally);
		ASSERT_FALSE(testing::Test::HasFailure()) << "hostile_case(" << i << ")";
	}
	for (unsigned kind = 0; kind < TreeWorld::attacks; kind++) {
		testing::Test::RecordProperty("detected_" + std::to_string(kind),
					      static_cast<int>(tally[kind].detected));
		EXPECT_GT(tally[kind].detected, tally[kind].cases / 4) << "attack " << kind;
	}
}

TEST(A6_Hostile, HundredThousandCases)
{
	run_cases(1, 110000);
}

/* Each kind on its own, on a large tree, against every frame. */
class A6_Attack : public testing::TestWithParam<unsigned> {};

TEST_P(A6_Attack, EveryFrameRightOrCorrupt)
{
	for (u64 seed = 0; seed < 20; seed++) {
		TreeWorld w(seed);

		ASSERT_NO_FATAL_FAILURE(populate(w, 4, 300));
		const auto good = w.snapshot();

		w.attack(GetParam());
		for (gfn_t gfn = 0; gfn < 2000; gfn++) {
			const Range *expected = w.model.find(gfn);
			Range out;
			const Status s = w.tree.find(gfn, &out);

			if (s == Status::Corrupt)
				continue;
			ASSERT_EQ(s, expected ? Status::Ok : Status::None);
			if (expected) {
				ASSERT_EQ(out, *expected);
			}
		}
		if (w.snapshot() != good && !w.tree.poisoned()) {
			/* Nothing on the way of a lookup: then the full check sees it, or it
			 * lies in slots that hold no node. */
			if (w.tree.verify() == Status::Ok) {
				for (const auto &[first, r] : w.model.map) {
					Range out;

					ASSERT_EQ(w.tree.find(first, &out), Status::Ok);
					ASSERT_EQ(out, r);
				}
			}
		}
	}
}

INSTANTIATE_TEST_SUITE_P(Kinds, A6_Attack, testing::Range(0u, TreeWorld::attacks));

/* A rule made weaker by one well-formed byte, or an old page put back. */
TEST(A6_Hostile, WeakerRuleIsNotBelieved)
{
	TreeWorld w(1);
	Range out;

	ASSERT_EQ(w.add_page(), Status::Ok);
	ASSERT_EQ(w.tree.insert({10, 10, 1, Action::Deny, 0}), Status::Ok);
	ASSERT_EQ(w.tree.find(15, &out), Status::Ok);
	w.pages.begin()->second.get()[1].action = static_cast<u8>(Action::Log);
	EXPECT_EQ(w.tree.find(15, &out), Status::Corrupt);
	expect_dead(w);
}

TEST(A6_Hostile, OldPageIsNotBelieved)
{
	TreeWorld w(2);
	Range out;

	ASSERT_EQ(w.add_page(), Status::Ok);
	ASSERT_EQ(w.tree.insert({10, 10, 1, Action::Log, 0}), Status::Ok);
	const auto old = w.snapshot();

	ASSERT_EQ(w.tree.protect({10, 10, 1, Action::Deny, 0}), Status::Ok);
	w.restore(old);
	EXPECT_EQ(w.tree.find(15, &out), Status::Corrupt);
	expect_dead(w);
}

/* None is an answer too: a walk led astray must not say it. */
TEST(A6_Hostile, RangeCutOffIsNotAbsent)
{
	TreeWorld w(3);
	Range out;

	ASSERT_EQ(w.add_page(), Status::Ok);
	for (unsigned i = 0; i < 3; i++)
		ASSERT_EQ(w.tree.insert({i * 10, 5, 1, Action::Deny, 0}), Status::Ok);
	TreeNode *root = TreeTester::node(w.tree, TreeTester::root(w.tree));

	ASSERT_NE(root->left, 0u);
	root->left = 0;
	EXPECT_EQ(w.tree.find(2, &out), Status::Corrupt);
}

TEST(A6_Hostile, EmptySlotsDoNotMatter)
{
	TreeWorld w(4);
	Range out;

	ASSERT_EQ(w.add_page(), Status::Ok);
	ASSERT_EQ(w.tree.insert({10, 10, 1, Action::Deny, 0}), Status::Ok);
	TreeNode *page = w.pages.begin()->second.get();

	std::memset(static_cast<void *>(page), 0xff, sizeof(*page)); /* the header */
	std::memset(static_cast<void *>(page + 2), 0xff, page_size - 2 * sizeof(*page));
	EXPECT_EQ(w.tree.find(15, &out), Status::Ok);
	for (unsigned i = 1; i < MonitorTree::nodes_per_page; i++)
		EXPECT_EQ(w.tree.insert({i * 100, 10, 1, Action::Deny, 0}), Status::Ok);
	EXPECT_EQ(w.tree.verify(), Status::Ok);
}

/*
 * No loop, every key in order, every tag right, and far too deep: a list of 100. What
 * goes down it must stop by counting, also the search for the node of a page to move.
 */
TEST(A6_Hostile, TooDeepIsCorrupt)
{
	for (unsigned operation = 0; operation < 7; operation++) {
		TreeWorld w(6);
		Range out;
		Status s = Status::Ok;

		ASSERT_EQ(w.add_page(), Status::Ok);
		ASSERT_EQ(w.add_page(), Status::Ok);
		for (unsigned i = 0; i < 100; i++)
			ASSERT_EQ(w.tree.insert({i * 10, 5, 1, Action::Deny, 0}), Status::Ok);

		/* ascending to the right, from the root on */
		std::vector<u32> order{TreeTester::root(w.tree)};

		for (u32 i = 1; i <= 100; i++)
			if (i != order[0])
				order.push_back(i);
		for (unsigned i = 0; i < 100; i++) {
			TreeNode *n = TreeTester::node(w.tree, order[i]);

			n->first = i * 10;
			n->left = 0;
			n->right = i + 1 < 100 ? order[i + 1] : 0;
		}
		TreeTester::reseal(w.tree);

		Probe p(w);

		switch (operation) {
		case 0:
			s = w.tree.find(993, &out);
			break;
		case 1:
			s = w.tree.next(995, &out);
			break;
		case 2:
			s = w.tree.insert({996, 1, 1, Action::Deny, 0});
			break;
		case 3:
			s = w.tree.protect({991, 1, 1, Action::Log, 0});
			break;
		case 4:
			s = w.tree.remove(991, 1);
			break;
		case 5:
			s = w.tree.remove_node_page(w.pages.begin()->first);
			break;
		case 6:
			s = w.tree.verify();
			break;
		}
		EXPECT_EQ(s, Status::Corrupt) << "operation " << operation;
		EXPECT_LE(p.loads, operation < 2 ? find_bound : 100 * 4 * depth);
		expect_dead(w);
	}
}

/* verify() itself, on trees whose tags are right and whose shape is not. */
TEST(A6_Verify, SeesEachBrokenInvariant)
{
	const std::function<void(TreeNode &, TreeNode &)> breakages[] = {
		[](TreeNode &, TreeNode &child) { child.red = !child.red; },
		[](TreeNode &root, TreeNode &) { root.red = 1; },
		[](TreeNode &root, TreeNode &) { std::swap(root.left, root.right); },
		[](TreeNode &root, TreeNode &) { root.left = 0; },
		[](TreeNode &, TreeNode &child) { child.count += 100; },
		[](TreeNode &, TreeNode &child) { child.count -= 1; },
		[](TreeNode &, TreeNode &child) { child.count = 0; },
		[](TreeNode &, TreeNode &child) { child.action = 0; },
		[](TreeNode &, TreeNode &child) { child.red = 2; },
		[](TreeNode &, TreeNode &child) { child.first = gfn_limit; },
		[](TreeNode &root, TreeNode &child) { child.left = root.right; },
	};

	for (const auto &breakage : breakages)
		for (unsigned nodes : {3u, 7u, 40u}) {
			TreeWorld w(5);

			ASSERT_EQ(w.add_page(), Status::Ok);
			for (unsigned i = 0; i < nodes; i++)
				ASSERT_EQ(w.tree.insert({i * 10, 5, 1, Action::Deny, 0}), Status::Ok);
			ASSERT_EQ(w.tree.verify(), Status::Ok);
			TreeNode *root = TreeTester::node(w.tree, TreeTester::root(w.tree));
			TreeNode *child = TreeTester::node(w.tree, root->left);

			breakage(*root, *child);
			TreeTester::reseal(w.tree);
			EXPECT_EQ(w.tree.verify(), Status::Corrupt)
				<< "breakage " << &breakage - breakages << ", " << nodes << " nodes";
			EXPECT_TRUE(w.tree.poisoned());
		}
}

/*
 * A device that scribbles on the pages all the time while vCPUs look up and a writer
 * works. In even rounds what is written stays and must be noticed; in odd rounds it
 * is put back at once, and may be.
 */
TEST(A6_Hostile, PagesRewrittenByAnotherThread)
{
	u64 answered = 0;

	for (u64 round = 0; round < 300; round++) {
		TreeWorld w(round);
		std::atomic<bool> stop{false};
		std::atomic<unsigned> running{0};
		std::atomic<u64> wrong{0}, right{0};

		ASSERT_NO_FATAL_FAILURE(populate(w, 3, 150));
		/* Frames that the writer leaves alone. */
		const Model frozen = w.model;

		std::thread device([&] {
			Rng rng(round);

			running++;
			while (!stop) {
				auto it = std::next(w.pages.begin(), static_cast<long>(rng() % 3));
				u64 *word = reinterpret_cast<u64 *>(it->second.get()) + rng() % 512;
				const u64 was = __atomic_load_n(word, __ATOMIC_RELAXED);

				__atomic_store_n(word, was ^ (1ull << rng() % 64), __ATOMIC_RELAXED);
				if (round % 2)
					__atomic_store_n(word, was, __ATOMIC_RELAXED);
			}
		});
		std::thread vcpu([&] {
			Rng rng(~round);
			Range r;

			running++;
			while (!stop) {
				const gfn_t gfn = rng() % 2000;
				const Range *expected = frozen.find(gfn);
				const Status s = w.tree.find(gfn, &r);

				if (s == Status::Corrupt || s == Status::Busy)
					continue;
				right++;
				if (s != (expected ? Status::Ok : Status::None) ||
				    (expected && !(r == *expected)))
					wrong++;
			}
		});
		while (running != 2)
			std::this_thread::yield();

		const auto give_up = std::chrono::steady_clock::now() +
				     (round % 2 ? std::chrono::milliseconds(5) :
						  std::chrono::milliseconds(20000));

		while (!w.tree.poisoned() && std::chrono::steady_clock::now() < give_up) {
			const Range r = {3000 + w.pick(1000), 1 + w.pick(20), 3, Action::Log, 0};

			(void)w.tree.protect(r);
			(void)w.tree.remove(3000 + w.pick(1000), 5);
		}
		stop = true;
		device.join();
		vcpu.join();
		ASSERT_EQ(wrong, 0u) << "round " << round;
		if (round % 2 == 0)
			ASSERT_TRUE(w.tree.poisoned()) << "round " << round;
		answered += right;
		if (w.tree.poisoned())
			expect_dead(w);
	}
	EXPECT_GT(answered, 1000u);
}

} // namespace
