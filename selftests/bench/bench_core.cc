// SPDX-License-Identifier: GPL-2.0
/*
 * What a fault costs in the core: 1,000,000 monitored frames in 10,000 ranges,
 * looked up at random, against std::map over the same ranges.
 */
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "tree.h"

namespace redoubt {

struct TreeTester {
	/* What a lookup costs when the hints are no help. */
	static void drop_memo(MonitorTree &t)
	{
		rdt_port_free(t.small_);
		rdt_port_free(t.large_);
		t.small_ = t.large_ = nullptr;
	}
};

} // namespace redoubt

using namespace redoubt;

namespace {

constexpr unsigned range_count = 10000, frames_per_range = 100;
constexpr unsigned query_count = 1u << 20;

struct World {
	MonitorTree tree{{{0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb,
			   0xd6e8feb86659fd93, 0xa0761d6478bd642f, 0xe7037ed1a0b428db,
			   0x8ebc6af09c88c6e3, 0x589965cc75374cc3, 0x1d8e4e27c47d124f}}};
	FrameBitmap bitmap;
	std::map<gfn_t, Range> map;
	std::vector<std::unique_ptr<char[]>> pages;
	std::vector<gfn_t> hits, misses;

	World()
	{
		std::mt19937_64 rng(1);
		std::vector<Range> ranges;
		gfn_t gfn = 0x100;

		for (unsigned i = 0; i < range_count; i++) {
			ranges.push_back({gfn, frames_per_range, static_cast<u8>(i % 7),
					  Action::Deny, 0});
			gfn += frames_per_range + 1 + rng() % 100;
		}
		std::shuffle(ranges.begin(), ranges.end(), rng);
		for (const Range &r : ranges) {
			Status s = tree.insert(r);

			if (s == Status::NoNodes) {
				pages.emplace_back(new char[page_size]);
				check(tree.add_node_page(pages.back().get(),
							 gfn + pages.size()));
				s = tree.insert(r);
			}
			check(s);
			check(bitmap.set_range(r.first, r.count));
			map.emplace(r.first, r);
		}
		for (unsigned i = 0; i < query_count; i++) {
			const Range &r = ranges[rng() % range_count];

			hits.push_back(r.first + rng() % r.count);
			misses.push_back(r.last() + 1); /* the gaps are at least one wide */
		}
	}

	static void check(Status s)
	{
		if (s == Status::Ok)
			return;
		std::fprintf(stderr, "bench: status %d\n", static_cast<int>(s));
		std::abort();
	}
};

World &world()
{
	static World w;
	return w;
}

World &world_without_memo()
{
	static World w;

	TreeTester::drop_memo(w.tree);
	return w;
}

void tree_find(benchmark::State &state)
{
	World &w = world();
	unsigned i = 0;
	Range r;

	for (auto _ : state) {
		if (w.tree.find(w.hits[i++ % query_count], &r) != Status::Ok)
			state.SkipWithError("not found");
		benchmark::DoNotOptimize(r);
	}
	state.counters["ranges"] = static_cast<double>(w.tree.ranges());
	state.counters["frames"] = static_cast<double>(w.tree.frames());
	state.counters["host_bytes"] =
		static_cast<double>(w.tree.host_bytes() + w.bitmap.host_bytes());
}

void tree_find_no_memo(benchmark::State &state)
{
	World &w = world_without_memo();
	unsigned i = 0;
	Range r;

	for (auto _ : state) {
		if (w.tree.find(w.hits[i++ % query_count], &r) != Status::Ok)
			state.SkipWithError("not found");
		benchmark::DoNotOptimize(r);
	}
}

/* Each key depends on the last answer, as in a fault that waits for its verdict. */
void tree_find_serial(benchmark::State &state)
{
	World &w = world();
	unsigned i = 0;
	Range r = {};

	for (auto _ : state) {
		if (w.tree.find(w.hits[(i++ + (r.flags & 1)) % query_count], &r) != Status::Ok)
			state.SkipWithError("not found");
	}
	benchmark::DoNotOptimize(r);
}

void map_find_serial(benchmark::State &state)
{
	const World &w = world();
	unsigned i = 0;
	Range r = {};

	for (auto _ : state) {
		const gfn_t gfn = w.hits[(i++ + (r.flags & 1)) % query_count];
		auto it = w.map.upper_bound(gfn);

		if (it == w.map.begin() || gfn - (--it)->first >= it->second.count)
			state.SkipWithError("not found");
		r = it->second;
	}
	benchmark::DoNotOptimize(r);
}

void map_find(benchmark::State &state)
{
	const World &w = world();
	unsigned i = 0;

	for (auto _ : state) {
		const gfn_t gfn = w.hits[i++ % query_count];
		auto it = w.map.upper_bound(gfn);

		if (it == w.map.begin() || gfn - (--it)->first >= it->second.count)
			state.SkipWithError("not found");
		Range r = it->second;
		benchmark::DoNotOptimize(r);
	}
}

void bitmap_hit(benchmark::State &state)
{
	const World &w = world();
	unsigned i = 0;

	for (auto _ : state)
		benchmark::DoNotOptimize(w.bitmap.test(w.hits[i++ % query_count]));
}

void bitmap_miss(benchmark::State &state)
{
	const World &w = world();
	unsigned i = 0;

	for (auto _ : state)
		benchmark::DoNotOptimize(w.bitmap.test(w.misses[i++ % query_count]));
}

/* A VM that is attached and protects nothing. */
void bitmap_empty(benchmark::State &state)
{
	const World &w = world();
	FrameBitmap none;
	unsigned i = 0;

	for (auto _ : state)
		benchmark::DoNotOptimize(none.test(w.misses[i++ % query_count]));
}

void medians(benchmark::internal::Benchmark *b)
{
	b->Repetitions(11)->ReportAggregatesOnly(true)->MinTime(0.1);
}

BENCHMARK(tree_find)->Apply(medians);
BENCHMARK(map_find)->Apply(medians);
BENCHMARK(tree_find_serial)->Apply(medians);
BENCHMARK(map_find_serial)->Apply(medians);
BENCHMARK(tree_find_no_memo)->Apply(medians);
BENCHMARK(bitmap_hit)->Apply(medians);
BENCHMARK(bitmap_miss)->Apply(medians);
BENCHMARK(bitmap_empty)->Apply(medians);

} // namespace

BENCHMARK_MAIN();
