// SPDX-License-Identifier: GPL-2.0
#include "budget.h"

namespace redoubt::standby {

namespace {

/* a * b / c, c != 0, without overflow on the way; saturates. 128 bits by hand: the compiler's division is a library's. */
constexpr u64 scale(u64 a, u64 b, u64 c)
{
	u64 q = 0, r = 0;

	/* Long multiplication from b's top bit; (q, r) is a * (b's bits so far) / c and the rest. */
	for (unsigned i = 64; i-- != 0;) {
		const u64 aq = a / c, ar = a % c;
		const bool bit = (b >> i & 1) != 0;

		if (q > ~0ull / 2)
			return ~0ull;
		q *= 2;
		/* r < c: 2 r may not fit. */
		if (r >= c - r) {
			r -= c - r;
			if (q++ == ~0ull)
				return ~0ull;
		} else {
			r *= 2;
		}
		if (!bit)
			continue;
		if (q > ~0ull - aq)
			return ~0ull;
		q += aq;
		if (r >= c - ar) {
			r -= c - ar;
			if (q++ == ~0ull)
				return ~0ull;
		} else {
			r += ar;
		}
	}
	return q;
}
static_assert(scale(7, 3, 2) == 10 && scale(~0ull, ~0ull, ~0ull) == ~0ull && scale(~0ull, 2, 1) == ~0ull &&
	      scale(1ull << 63, 1ull << 40, 1ull << 60) == 1ull << 43 && scale(~0ull - 1, 3, ~0ull) == 2);

constexpr u64 add(u64 a, u64 b)
{
	return a > ~0ull - b ? ~0ull : a + b;
}

constexpr u64 sub(u64 a, u64 b)
{
	return a > b ? a - b : 0;
}

} // namespace

u64 hold_up_ms(const Battery &b)
{
	const u64 health = min_of(b.health, 100u);
	u64 t = b.runtime_ms;

	if (b.on_line)
		return scale(scale(b.rated_ms, 80, 100), health, 100);
	if (b.low)
		return 0;
	/* Nothing says how long: nothing is left. */
	const bool measured = b.in_ms != 0 && b.fell != 0;

	if (t == ~0ull && !measured)
		return 0;
	if (measured)
		t = min_of(t, scale(sub(min_of(b.charge, 10000u), b.charge_low), b.in_ms, b.fell));
	return scale(t, health, 100);
}

u64 fixed_ms(const Costs &c)
{
	return add(add(add(c.poll_ms, c.stop_ms), add(c.state_ms, c.journal_ms)), add(add(c.trip_ms, c.trip_ms), c.load_ms));
}

u64 budget_bytes(u64 hold_up_ms, u64 fixed_ms, u64 margin_ms, u64 rate)
{
	return scale(sub(hold_up_ms, add(fixed_ms, margin_ms)), rate, 1000);
}

u64 rate_of(u64 *window, unsigned n)
{
	if (n == 0)
		return 0;
	/* Some hundred windows at most: insertion. */
	for (unsigned i = 1; i < n; i++) {
		const u64 v = window[i];
		unsigned k = i;

		for (; k != 0 && window[k - 1] > v; k--)
			window[k] = window[k - 1];
		window[k] = v;
	}
	return window[n / 10 == 0 ? 0 : (n + 9) / 10 - 1];
}

bool must_go(const Battery &b, u64 dirty, u64 fixed_ms, u64 margin_ms, u64 rate)
{
	if (b.on_line)
		return false;
	return b.low || dirty >= budget_bytes(hold_up_ms(b), fixed_ms, margin_ms, rate);
}

u64 divide(Share *vm, unsigned n, u64 budget)
{
	for (unsigned i = 0; i < n; i++) {
		vm[i].limit = 0;
		vm[i].fits = false;
	}

	const unsigned count = min_of(n, max_shares);
	u64 seen = 0;

	/* Mins, by priority. A VM that does not fit leaves room to those behind it. */
	for (unsigned turn = 0; turn < count; turn++) {
		unsigned best = count;

		for (unsigned i = 0; i < count; i++)
			if ((seen >> i & 1) == 0 && (best == count || vm[i].priority < vm[best].priority))
				best = i;
		seen |= 1ull << best;
		if (vm[best].min > budget || vm[best].min > vm[best].max)
			continue;
		vm[best].fits = true;
		vm[best].limit = vm[best].min;
		budget -= vm[best].min;
	}
	/*
	 * The rest, by weight; what a VM has no use for is divided again. Each turn fills one up or is the last, but
	 * for the bytes that the division leaves.
	 */
	for (unsigned turn = 0; turn < count && budget != 0; turn++) {
		u64 weights = 0, given = 0;
		bool full = false;

		for (unsigned i = 0; i < count; i++)
			if (vm[i].fits && vm[i].limit < vm[i].max)
				weights += vm[i].weight;
		if (weights == 0)
			break;
		for (unsigned i = 0; i < count; i++) {
			const u64 wants = vm[i].max - vm[i].limit;

			if (!vm[i].fits || wants == 0)
				continue;

			const u64 part = min_of(scale(budget, vm[i].weight, weights), wants);

			full |= part == wants;
			vm[i].limit += part;
			given += part;
		}
		budget -= given;
		if (!full)
			break;
	}
	return budget;
}

u64 allowed_rate(u64 dirty, u64 limit, u64 clean)
{
	if (limit == 0 || dirty >= scale(limit, 98, 100))
		return 0;
	if (dirty < limit / 2)
		return ~0ull;
	return scale(scale(clean, 10, 1), limit - dirty, limit);
}

Ramp ramp(u64 base, u64 dirty, u64 limit, u64 clean)
{
	/* What the module takes at most, 64 TB */
	const u64 most = min_of(limit / page_size, u64{1} << 34), now = add(dirty, page_size - 1) / page_size;
	const u64 half = most / 2, hold = scale(most, 98, 100), from = max_of(half, now);
	const u64 rate = from < most ? scale(scale(clean / page_size, 10, 1), most - from, most) : 0;

	return {.free = add(base, sub(half, now)),
		.stop = add(base, sub(hold, now)),
		.end = add(base, sub(most, now)),
		.rate = min_of(max_of(rate, u64{1}), max_fault_rate)};
}

Ramp ramp_flat(u64 base, u64 clean)
{
	const u64 far = add(base, 1ull << 34);

	return {.free = base, .stop = far, .end = far, .rate = min_of(max_of(clean / page_size / 2, u64{1}), max_fault_rate)};
}

u64 next_interval_ms(u64 interval_ms, u64 dirty, u64 limit)
{
	if (dirty < limit / 4)
		interval_ms = add(interval_ms, interval_ms);
	else if (dirty > limit / 2)
		interval_ms /= 2;
	return min_of(max_of(interval_ms, u64{100}), u64{10000});
}

} // namespace redoubt::standby
