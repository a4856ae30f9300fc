// SPDX-License-Identifier: GPL-2.0
//
// How many bytes of this host's VMs may be dirty: from the power source and the measured
// link, or as the configuration says; and how the VMs share them.
#pragma once

#include <deque>
#include <optional>

#include <standby/budget.h>

#include "config.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;

class Budget {
public:
	explicit Budget(const Config &config) : config_(config) {}

	// What the power source says now; none: it is not asked, or has not answered yet.
	struct Supply {
		uint64_t hold_up_ms, fixed_ms, margin_ms;
		bool battery = false;	// it is falling
	};
	void supply(const std::optional<Supply> &supply) { supply_ = supply; }
	bool on_battery() const { return supply_ && supply_->battery; }
	// So many bytes of memory were taken in by the standby in this time.
	void goodput(uint64_t bytes, uint64_t us);
	// R, bytes a second: the 10th percentile. 0: not measured.
	uint64_t rate() const { return rate_; }
	// B. @hash_ms: the pass over all memory that a go begins with.
	uint64_t bytes(uint64_t hash_ms) const;

private:
	const Config &config_;
	std::optional<Supply> supply_;
	std::deque<uint64_t> windows_;
	uint64_t rate_ = 0, window_bytes_ = 0, window_us_ = 0;
};

} // namespace redoubt::agent
