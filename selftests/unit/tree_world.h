// SPDX-License-Identifier: GPL-2.0
/*
 * A tree with its node pages, a model of what it must hold, and the attacker's
 * side: everything that a hostile VMM or device could do to the pages.
 */
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "support.h"
#include "tree.h"

namespace redoubt {

inline bool operator==(const Range &a, const Range &b)
{
	return a.first == b.first && a.count == b.count && a.same_rule(b);
}

/* White-box access. */
struct TreeTester {
	/* Make what is in the pages now pass for ours: the attacker guessed every tag. */
	static void reseal(MonitorTree &t)
	{
		for (u32 page = 0; page < t.page_end_; page++)
			for (u32 i = 1; i < MonitorTree::slots_per_page; i++) {
				const u32 at = page << MonitorTree::slot_bits | i;
				const MonitorTree::Words *w = t.slot(at);

				if (w)
					*t.tag(at) = t.tag_of(*w);
			}
	}
	static u32 root(const MonitorTree &t)
	{
		return t.root_;
	}
	static TreeNode *node(MonitorTree &t, u32 at)
	{
		return reinterpret_cast<TreeNode *>(const_cast<MonitorTree::Words *>(t.slot(at)));
	}
	/* A writer is at work; it may have been preempted. */
	static void writer_begins(MonitorTree &t)
	{
		t.begin();
	}
	static Status writer_ends(MonitorTree &t)
	{
		return t.end();
	}
	static bool has_memo(const MonitorTree &t)
	{
		return t.small_ != nullptr;
	}
};

/* The ranges that the tree must hold: disjoint, no two neighbours of one rule. */
class Model {
public:
	std::map<gfn_t, Range> map;

	const Range *find(gfn_t gfn) const
	{
		auto it = map.upper_bound(gfn);

		if (it == map.begin() || gfn - std::prev(it)->first >= std::prev(it)->second.count)
			return nullptr;
		return &std::prev(it)->second;
	}
	const Range *next(gfn_t from) const
	{
		if (const Range *r = find(from))
			return r;
		auto it = map.lower_bound(from);

		return it == map.end() ? nullptr : &it->second;
	}
	bool overlaps(gfn_t first, u64 count) const
	{
		const Range *r = next(first);

		return r && r->first < first + count;
	}
	void cut(gfn_t first, u64 count)
	{
		const gfn_t end = first + count;

		for (const Range *p = next(first); p && p->first < end; p = next(first)) {
			const Range r = *p;

			map.erase(r.first);
			if (r.first < first)
				put({r.first, first - r.first, r.cls, r.action, r.flags});
			if (r.first + r.count > end)
				put({end, r.first + r.count - end, r.cls, r.action, r.flags});
		}
	}
	void add(Range r)
	{
		const Range *low = r.first ? find(r.first - 1) : nullptr;

		if (low && low->same_rule(r)) {
			const Range l = *low;

			map.erase(l.first);
			r = {l.first, l.count + r.count, r.cls, r.action, r.flags};
		}
		const Range *high = find(r.first + r.count);

		if (high && high->same_rule(r)) {
			const u64 more = high->count;

			map.erase(high->first);
			r.count += more;
		}
		put(r);
	}
	u64 frames() const
	{
		u64 n = 0;

		for (const auto &[first, r] : map)
			n += r.count;
		return n;
	}

private:
	void put(const Range &r)
	{
		map[r.first] = r;
	}
};

using Rng = std::mt19937_64;

inline MonitorTree::TagKey random_key(Rng &rng)
{
	MonitorTree::TagKey key;

	for (u64 &w : key.word)
		w = rng();
	return key;
}

struct TreeWorld {
	/* Exactly a page of heap each: a step outside meets AddressSanitizer's red zone. */
	struct Free {
		void operator()(void *p) const
		{
			std::free(p);
		}
	};
	using Page = std::unique_ptr<TreeNode, Free>;

	Rng rng;
	std::map<gfn_t, Page> pages;
	MonitorTree tree;
	Model model;
	gfn_t next_page = gfn_t{1} << 36;

	explicit TreeWorld(u64 seed) : rng(seed), tree(random_key(rng))
	{
	}

	u64 pick(u64 limit)
	{
		return rng() % limit;
	}

	Status add_page()
	{
		Page page(static_cast<TreeNode *>(std::malloc(page_size)));

		std::memset(static_cast<void *>(page.get()), 0xa5, page_size);
		const Status s = tree.add_node_page(page.get(), next_page);

		if (s == Status::Ok)
			pages.emplace(next_page++, std::move(page));
		return s;
	}
	Status remove_page(gfn_t gfn)
	{
		const Status s = tree.remove_node_page(gfn);

		if (s == Status::Ok)
			pages.erase(gfn); /* a later access is a use after free */
		return s;
	}
	u64 capacity() const
	{
		return pages.size() * MonitorTree::nodes_per_page;
	}
	Range random_range(gfn_t base, u64 space, u64 longest)
	{
		const gfn_t first = base + pick(space);
		const u64 count = 1 + pick(std::min(longest, base + space - first));

		return {first, count, static_cast<u8>(pick(2)),
			pick(4) ? Action::Deny : Action::Log, 0};
	}

	/* Each does the same to the model and says what the tree should have said. */
	Status expect_insert(const Range &r)
	{
		if (model.overlaps(r.first, r.count))
			return Status::Overlap;
		return commit(r.first, r.count, [&](Model &m) { m.add(r); });
	}
	Status expect_protect(const Range &r)
	{
		return commit(r.first, r.count, [&](Model &m) {
			m.cut(r.first, r.count);
			m.add(r);
		});
	}
	Status expect_remove(gfn_t first, u64 count)
	{
		if (!model.overlaps(first, count))
			return Status::None;
		return commit(first, count, [&](Model &m) { m.cut(first, count); });
	}

	/* --- the attacker --- */

	TreeNode &any_node()
	{
		auto it = std::next(pages.begin(), static_cast<long>(pick(pages.size())));

		return it->second.get()[1 + pick(MonitorTree::nodes_per_page)];
	}
	/* An index that the tree could have handed out: slots fill from the first on. */
	u32 any_index()
	{
		const u64 nodes = std::max<u64>(1, model.map.size());
		const u64 n = pick(nodes);

		return static_cast<u32>(n / MonitorTree::nodes_per_page << 7 |
					(1 + n % MonitorTree::nodes_per_page));
	}
	TreeNode &used_node()
	{
		TreeNode *n = TreeTester::node(tree, any_index());

		return n ? *n : any_node();
	}

	static constexpr unsigned attacks = 14;
	void attack(unsigned kind);
	using Snapshot = std::vector<std::vector<unsigned char>>;
	Snapshot snapshot() const
	{
		Snapshot s;

		for (const auto &[gfn, page] : pages) {
			const auto *p = reinterpret_cast<const unsigned char *>(page.get());

			s.emplace_back(p, p + page_size);
		}
		return s;
	}
	void restore(const Snapshot &s)
	{
		auto from = s.begin();

		for (auto &[gfn, page] : pages) {
			if (from == s.end())
				break;
			std::memcpy(static_cast<void *>(page.get()), from++->data(), page_size);
		}
	}

private:
	/* Only a change that ends with more ranges than nodes may be refused. */
	template <class F> Status commit(gfn_t first, u64 count, F change)
	{
		/* Try it on a copy of what it can touch: overlaps and neighbours. */
		auto from = model.map.lower_bound(first), to = model.map.upper_bound(first + count);
		Model part;

		if (from != model.map.begin())
			--from;
		part.map.insert(from, to);
		const u64 others = model.map.size() - part.map.size();

		change(part);
		if (others + part.map.size() > capacity())
			return Status::NoNodes;
		change(model);
		return Status::Ok;
	}
};

inline void TreeWorld::attack(unsigned kind)
{
	static constexpr u32 wild[] = {0xffffffff, 0x80000000, 0x00080000, 0x0007ffff, 0x80,
				       0x100,	   0x7fffffff, 0x1fff,	   0x2000};

	switch (kind % attacks) {
	case 0: /* zeros */
		for (auto &[gfn, page] : pages)
			std::memset(static_cast<void *>(page.get()), 0, page_size);
		break;
	case 1: /* ones */
		for (auto &[gfn, page] : pages)
			std::memset(static_cast<void *>(page.get()), 0xff, page_size);
		break;
	case 2: { /* a node that is its own child */
		const u32 at = any_index();

		if (TreeNode *n = TreeTester::node(tree, at))
			(pick(2) ? n->left : n->right) = at;
		break;
	}
	case 3: /* every node its own children */
		for (u64 i = 0; i < model.map.size(); i++) {
			const u32 at = static_cast<u32>(i / MonitorTree::nodes_per_page << 7 |
							(1 + i % MonitorTree::nodes_per_page));

			if (TreeNode *n = TreeTester::node(tree, at))
				n->left = n->right = at;
		}
		break;
	case 4: /* cycles: links to the root or to anywhere */
		for (unsigned i = 0; i < 4; i++)
			(pick(2) ? used_node().left : used_node().right) =
				pick(2) ? TreeTester::root(tree) : any_index();
		break;
	case 5: /* every link to the root: the densest graph */
		for (u64 i = 0; i < model.map.size(); i++)
			used_node().left = used_node().right = TreeTester::root(tree);
		break;
	case 6: /* indices of no page, of a header, one too far */
		(pick(2) ? used_node().left : used_node().right) = wild[pick(std::size(wild))];
		break;
	case 7: /* unsorted */
		std::swap(used_node().first, used_node().first);
		break;
	case 8: /* ranges that are empty, wrap, or swallow the rest */
		if (pick(2))
			used_node().count = pick(2) ? 0 : ~pick(4);
		else
			used_node().first = pick(2) ? ~pick(4) : gfn_limit - pick(2);
		break;
	case 9: /* colours */
		for (unsigned i = 0; i < 8; i++)
			used_node().red = static_cast<u8>(pick(3));
		break;
	case 10: /* a weaker rule, well formed */
		used_node().action = static_cast<u8>(pick(2) ? 1 : pick(256));
		break;
	case 11: /* bits */
		for (u64 i = 1 + pick(16); i > 0; i--)
			reinterpret_cast<unsigned char *>(&used_node())[pick(sizeof(TreeNode))] ^=
				static_cast<unsigned char>(1u << pick(8));
		break;
	case 12: { /* two nodes change places, or one appears twice */
		TreeNode &a = used_node(), &b = used_node();
		const TreeNode t = a;

		a = b;
		if (pick(2))
			b = t;
		break;
	}
	case 13: /* noise */
		for (auto &[gfn, page] : pages)
			for (unsigned i = 1; i < MonitorTree::slots_per_page; i++) {
				u64 noise[4] = {rng(), rng(), rng(), rng()};

				std::memcpy(static_cast<void *>(page.get() + i), noise, sizeof(noise));
			}
		break;
	}
}

} // namespace redoubt
