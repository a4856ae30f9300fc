// SPDX-License-Identifier: GPL-2.0
/*
 * How much may be dirty, Documentation/standby.md section 6. Integers only; what is not known counts as nothing left.
 * Pure functions; times in ms, rates in bytes a second.
 */
#pragma once

#include <redoubt/types.h>

namespace redoubt::standby {

/**
 * struct Battery - what the UPS says.
 * @on_line: mains are there. @low: LB, the UPS' own alarm: nothing is left to wait for.
 * @runtime_ms: battery.runtime; ~0: not known. @rated_ms: the full battery's, by configuration: the budget on mains.
 * @charge, @charge_low: battery.charge and battery.charge.low, 1/100 of a percent, 0 to 10000.
 * @fell, @in_ms: the charge fell so much in the time since OB; in_ms 0, or fell 0: not measured yet.
 * @health: 0 to 100 percent: what the battery is worth of its rating.
 */
struct Battery {
	bool on_line;
	bool low;
	u64 runtime_ms;
	u64 rated_ms;
	u32 charge;
	u32 charge_low;
	u32 fell;
	u64 in_ms;
	u32 health;
};

/* T: how long the host will have power. On mains: the rated time less 20 %. */
u64 hold_up_ms(const Battery &b);

/**
 * struct Costs - F, what a handover takes beside the pages, ms: the worst of the last rehearsals.
 */
struct Costs {
	u64 poll_ms = 2000;
	u64 stop_ms;
	u64 state_ms;
	u64 journal_ms; /* four writes */
	u64 trip_ms;	/* one round trip: two are needed */
	u64 load_ms;
};

u64 fixed_ms(const Costs &c);

/* B: bytes that may be dirty on this host; @rate: R. Saturates. */
u64 budget_bytes(u64 hold_up_ms, u64 fixed_ms, u64 margin_ms, u64 rate);

/*
 * R: the 10th percentile of @n windows' goodput (the least for n < 10), bytes a second. @window is sorted. 0: none.
 */
u64 rate_of(u64 *window, unsigned n);

/* When there is no time to lose: LB, or what is dirty takes as long as is left. */
bool must_go(const Battery &b, u64 dirty, u64 fixed_ms, u64 margin_ms, u64 rate);

/**
 * struct Share - one VM's part of the budget.
 * @min: bytes it must have. @max: more is of no use to it: all its memory. @weight: of the rest, 1 to 1000.
 * @priority: the smallest number first: gets its min first and is sent first.
 * @limit: out: bytes that may be dirty in it. @fits: out: it has its min.
 */
struct Share {
	u64 min;
	u64 max;
	u32 weight;
	u32 priority;
	u64 limit;
	bool fits;
};

/*
 * Each min by priority (of equals the earlier in the list), as long as it fits whole; then the rest among those by
 * weight, none above its max. A VM whose min does not fit gets nothing. The limits' sum is never above @budget.
 * Return: bytes left over. At most max_shares; more: the last of the list get nothing.
 */
inline constexpr unsigned max_shares = 64;
u64 divide(Share *vm, unsigned n, u64 budget);

/**
 * allowed_rate() - bounded mode's controller: how fast the VM may dirty memory.
 * @dirty, @limit: bytes. @clean: r, the rate at which the copy cleans.
 *
 * ~0: no limit (less than half is dirty). Else 10 r (1 - x), x = dirty / limit; 0 from x >= 0.98: all vCPUs are held.
 */
u64 allowed_rate(u64 dirty, u64 limit, u64 clean);

/**
 * struct Ramp - the controller as the module's LIMIT takes it: numbers of a count of write faults, which only grows, a frame each.
 * @free: up to here nobody is slowed; then @rate faults a second, falling to 0 at @end; from @stop on none.
 */
struct Ramp {
	u64 free;
	u64 stop;
	u64 end;
	u64 rate;
};
inline constexpr u64 max_fault_rate = 1ull << 28;

/* allowed_rate()'s curve over the count. @base: the count when @dirty bytes were dirty. */
Ramp ramp(u64 base, u64 dirty, u64 limit, u64 clean);
/* The same rate for long: half of what is cleaned, so that the dirty set shrinks at all. */
Ramp ramp_flat(u64 base, u64 clean);

/* The next round's interval, ms: doubled below a quarter of the limit, halved above a half; 100 to 10000. */
u64 next_interval_ms(u64 interval_ms, u64 dirty, u64 limit);

} // namespace redoubt::standby
