// SPDX-License-Identifier: GPL-2.0
/* F5: how much may be dirty, and who may have it. */
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "standby/budget.h"

using namespace redoubt;
using namespace redoubt::standby;

namespace {

constexpr u64 mb = 1 << 20, never = ~0ull;

constexpr Battery on_battery = {.on_line = false, .low = false, .runtime_ms = 300000, .rated_ms = 600000,
				.charge = 8000, .charge_low = 2000, .fell = 0, .in_ms = 0, .health = 100};

TEST(StandbyBudget, F5_the_shorter_of_what_the_ups_says_and_what_was_measured)
{
	Battery b = on_battery;

	EXPECT_EQ(hold_up_ms(b), 300000u);
	/* 10 % in 20 s: 60 % are 120 s. */
	b.fell = 1000;
	b.in_ms = 20000;
	EXPECT_EQ(hold_up_ms(b), 120000u);
	b.runtime_ms = 100000;
	EXPECT_EQ(hold_up_ms(b), 100000u);
	b.runtime_ms = never;
	EXPECT_EQ(hold_up_ms(b), 120000u);
	b.health = 50;
	EXPECT_EQ(hold_up_ms(b), 60000u);
	b.health = 200;
	EXPECT_EQ(hold_up_ms(b), 120000u);
	b.charge = 1999;
	EXPECT_EQ(hold_up_ms(b), 0u);
	b = on_battery;
	b.low = true;
	EXPECT_EQ(hold_up_ms(b), 0u);
	/* Nothing known is nothing left. */
	b = on_battery;
	b.runtime_ms = never;
	EXPECT_EQ(hold_up_ms(b), 0u);
	b.on_line = true;
	EXPECT_EQ(hold_up_ms(b), 480000u);
	b.low = true;
	EXPECT_EQ(hold_up_ms(b), 480000u);
	b.rated_ms = 0;
	EXPECT_EQ(hold_up_ms(b), 0u);
}

TEST(StandbyBudget, F5_budget_is_seconds_less_fixed_costs_times_rate)
{
	const Costs c = {.poll_ms = 2000, .stop_ms = 300, .state_ms = 400, .journal_ms = 100, .trip_ms = 50, .load_ms = 200};

	EXPECT_EQ(fixed_ms(c), 3100u);
	EXPECT_EQ(budget_bytes(60000, 3100, 5000, 100 * mb), 51900 * 100 * mb / 1000);
	EXPECT_EQ(budget_bytes(8100, 3100, 5000, 100 * mb), 0u);
	EXPECT_EQ(budget_bytes(0, 3100, 5000, 100 * mb), 0u);
	EXPECT_EQ(budget_bytes(60000, never, never, 100 * mb), 0u);
	EXPECT_EQ(budget_bytes(never, 0, 0, never), never);
	EXPECT_EQ(budget_bytes(never, 0, 0, 1000), never);
	EXPECT_EQ(fixed_ms({.poll_ms = never, .stop_ms = 1, .state_ms = 1, .journal_ms = 1, .trip_ms = 1, .load_ms = 1}), never);
}

TEST(StandbyBudget, RateIsTheTenthPercentile)
{
	std::vector<u64> w;

	EXPECT_EQ(rate_of(nullptr, 0), 0u);
	w = {50, 10, 40};
	EXPECT_EQ(rate_of(w.data(), 3), 10u);
	w.clear();
	for (u64 i = 0; i < 100; i++)
		w.push_back((i * 37 % 100) + 1);
	EXPECT_EQ(rate_of(w.data(), 100), 10u);
	/* One stall in ten windows is one in ten; in twenty it is not. */
	w.assign(10, 100);
	w[3] = 1;
	EXPECT_EQ(rate_of(w.data(), 10), 1u);
	w.assign(20, 100);
	w[3] = 1;
	EXPECT_EQ(rate_of(w.data(), 20), 100u);
}

TEST(StandbyBudget, F1_go_when_it_takes_as_long_as_is_left)
{
	Battery b = on_battery;

	/* 300 s, 5 s for fixed costs and margin: 295 s at 1 MB/s. */
	EXPECT_FALSE(must_go(b, 294 * mb, 3000, 2000, mb));
	EXPECT_TRUE(must_go(b, 295 * mb, 3000, 2000, mb));
	b.low = true;
	EXPECT_TRUE(must_go(b, 0, 3000, 2000, mb));
	b.on_line = true;
	EXPECT_FALSE(must_go(b, never, 3000, 2000, mb));
	b = on_battery;
	EXPECT_TRUE(must_go(b, 1, 3000, 2000, 0));
}

Share vm(u64 min, u64 max, u32 weight, u32 priority)
{
	return {.min = min, .max = max, .weight = weight, .priority = priority, .limit = 77, .fits = true};
}

TEST(StandbyBudget, F5_mins_by_priority_then_the_rest_by_weight)
{
	Share v[] = {vm(30, 1000, 1, 2), vm(40, 1000, 3, 1), vm(50, 1000, 1, 3)};

	EXPECT_EQ(divide(v, 3, 200), 0u);
	EXPECT_EQ(v[0].limit, 30 + 16u);
	EXPECT_EQ(v[1].limit, 40 + 48u);
	EXPECT_EQ(v[2].limit, 50 + 16u);
	/* The last by priority does not fit: it gets nothing, its room goes to the others. */
	EXPECT_EQ(divide(v, 3, 110), 0u);
	EXPECT_EQ(v[0].limit, 40u);
	EXPECT_EQ(v[1].limit, 70u);
	EXPECT_FALSE(v[2].fits);
	EXPECT_EQ(v[2].limit, 0u);
	/* One that is too large leaves room to a smaller one behind it. */
	Share w[] = {vm(100, 100, 1, 1), vm(10, 20, 1, 2)};
	EXPECT_EQ(divide(w, 2, 50), 30u);
	EXPECT_FALSE(w[0].fits);
	EXPECT_EQ(w[1].limit, 20u);
	/* What one has no use for goes to the others. */
	Share x[] = {vm(0, 10, 1, 1), vm(0, 1000, 1, 1), vm(0, 1000, 3, 1)};
	EXPECT_EQ(divide(x, 3, 410), 0u);
	EXPECT_EQ(x[0].limit, 10u);
	EXPECT_EQ(x[1].limit, 100u);
	EXPECT_EQ(x[2].limit, 300u);
	EXPECT_EQ(divide(x, 0, 5), 5u);
}

TEST(StandbyBudget, F5_never_more_than_there_is)
{
	std::mt19937_64 rnd(3);

	for (unsigned round = 0; round < 20000; round++) {
		std::vector<Share> v(rnd() % 9);
		const u64 budget = rnd() >> rnd() % 64;

		for (Share &s : v) {
			const u64 a = rnd() >> rnd() % 64, b = rnd() >> rnd() % 64;
			s = vm(std::min(a, b), std::max(a, b), u32(rnd() % 4 ? 1 + rnd() % 1000 : 0), u32(rnd() % 3));
		}
		const u64 left = divide(v.data(), unsigned(v.size()), budget);
		u64 sum = left;

		for (const Share &s : v) {
			ASSERT_LE(s.limit, s.max);
			ASSERT_TRUE(s.fits ? s.limit >= s.min : s.limit == 0);
			ASSERT_GE(sum + s.limit, sum);
			sum += s.limit;
			/* Left out only if it would not have fitted behind those that go first. */
			u64 before = 0;
			for (const Share &o : v)
				if (o.fits && (o.priority < s.priority || (o.priority == s.priority && &o < &s)))
					before += o.min;
			ASSERT_EQ(s.fits, s.min <= budget - before);
		}
		ASSERT_EQ(sum, budget);
	}
	/* More than it can sort: the last get nothing. */
	std::vector<Share> many(max_shares + 3, vm(1, 10, 1, 1));
	EXPECT_EQ(divide(many.data(), unsigned(many.size()), 1000), 1000 - max_shares * 10u);
	EXPECT_EQ(many[max_shares].limit, 0u);
}

TEST(StandbyBudget, F5_the_curve_falls_to_nothing_before_the_limit)
{
	const u64 limit = 1000 * mb, r = 50 * mb;

	EXPECT_EQ(allowed_rate(0, limit, r), never);
	EXPECT_EQ(allowed_rate(limit / 2 - 1, limit, r), never);
	EXPECT_EQ(allowed_rate(limit / 2, limit, r), 5 * r);
	/* Where an endless writer settles: as fast as the copy cleans. */
	EXPECT_EQ(allowed_rate(limit / 10 * 9, limit, r), r);
	EXPECT_NEAR(double(allowed_rate(limit / 100 * 97, limit, r)), 0.3 * double(r), double(r) / 1000);
	EXPECT_EQ(allowed_rate(limit / 100 * 98, limit, r), 0u);
	EXPECT_EQ(allowed_rate(limit, limit, r), 0u);
	EXPECT_EQ(allowed_rate(never, limit, r), 0u);
	EXPECT_EQ(allowed_rate(0, 0, r), 0u);
	EXPECT_EQ(allowed_rate(limit / 2, limit, 0), 0u);
	for (u64 x = limit / 2, last = never; x < limit; x += limit / 1000) {
		const u64 now = allowed_rate(x, limit, r);
		ASSERT_LE(now, last);
		last = now;
	}
}

TEST(StandbyBudget, F5_an_endless_writer_stays_under_the_limit)
{
	/* A writer that takes all it is allowed and a copy that cleans at r, 10 ms at a time, from empty. */
	const u64 limit = 100 * mb, r = 20 * mb;
	u64 dirty = 0, most = 0;

	for (unsigned ms = 0; ms < 60000; ms += 10) {
		dirty += std::min(allowed_rate(dirty, limit, r), 1000 * mb) / 100;
		dirty -= std::min(dirty, r / 100);
		most = std::max(most, dirty);
	}
	EXPECT_LT(most, limit);
	EXPECT_NEAR(double(dirty), 0.9 * double(limit), 0.01 * double(limit));
}

TEST(StandbyBudget, TheIntervalFollowsTheDirtySet)
{
	EXPECT_EQ(next_interval_ms(1000, 10, 100), 2000u);
	EXPECT_EQ(next_interval_ms(1000, 30, 100), 1000u);
	EXPECT_EQ(next_interval_ms(1000, 60, 100), 500u);
	EXPECT_EQ(next_interval_ms(8000, 0, 100), 10000u);
	EXPECT_EQ(next_interval_ms(150, 60, 100), 100u);
	EXPECT_EQ(next_interval_ms(never, 0, 100), 10000u);
	EXPECT_EQ(next_interval_ms(0, 0, 0), 100u);
}

TEST(StandbyBudget, F5_the_module_s_ramp_is_the_curve)
{
	const u64 limit = 1000 * mb, r = 40 * mb, frame = 4096, frames = limit / frame;

	for (const u64 dirty : {u64{0}, limit / 4, limit / 2, limit / 10 * 7, limit / 100 * 97}) {
		const Ramp p = ramp(5000, dirty, limit, r);

		ASSERT_LE(5000u, p.free);
		ASSERT_LE(p.free, p.stop);
		ASSERT_LE(p.stop, p.end);
		/* As many faults more, and so much is dirty. */
		EXPECT_EQ(p.stop - 5000, frames * 98 / 100 - (dirty + frame - 1) / frame);
		EXPECT_EQ(p.end - 5000, frames - (dirty + frame - 1) / frame);
		for (const u64 n : {p.free + 1, (p.free + p.stop) / 2, p.stop - 1}) {
			const u64 then = dirty + (n - 5000) * frame;
			const double rate = double(p.rate) * double(p.end - n) / double(p.end - p.free) * frame;

			EXPECT_NEAR(rate, double(allowed_rate(then, limit, r)), double(r) / 100) << dirty << " " << n;
		}
	}
	/* Nothing more */
	for (const u64 dirty : {limit / 100 * 99, limit, 2 * limit, never}) {
		const Ramp p = ramp(77, dirty, limit, r);

		EXPECT_EQ(p.free, 77u);
		EXPECT_EQ(p.stop, 77u);
	}
	EXPECT_EQ(ramp(1, 0, 0, 0).stop, 1u);
	/* What the module would refuse is not asked for. */
	for (const Ramp &p : {ramp(0, 0, never, never), ramp(never, 1, never, 1), ramp(1ull << 40, 0, 1ull << 60, never), ramp_flat(9, never), ramp_flat(9, 0)}) {
		EXPECT_LE(p.free, p.stop);
		EXPECT_LE(p.stop, p.end);
		EXPECT_LE(p.end - p.free, 1ull << 35);
		EXPECT_GE(p.rate, 1u);
		EXPECT_LE(p.rate, 1ull << 28);
	}
	EXPECT_EQ(ramp_flat(9, 8 * mb).rate, 8 * mb / frame / 2);
}

} // namespace
