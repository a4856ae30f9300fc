// SPDX-License-Identifier: GPL-2.0

#include "budget.h"

#include <vector>

namespace redoubt::agent {

namespace {

// Time in which something was under way, not of the clock.
constexpr uint64_t window_us = 1'000'000, first_window_us = 100'000;
constexpr size_t max_windows = 300;

} // namespace

void Budget::goodput(uint64_t bytes, uint64_t us)
{
	window_bytes_ += bytes;
	window_us_ += us;
	// The first is needed early.
	if (window_us_ < (windows_.empty() ? first_window_us : window_us))
		return;
	windows_.push_back(static_cast<uint64_t>(static_cast<double>(window_bytes_) * 1e6 / static_cast<double>(window_us_)));
	if (windows_.size() > max_windows)
		windows_.pop_front();
	window_bytes_ = window_us_ = 0;
	std::vector<uint64_t> sorted(windows_.begin(), windows_.end());
	rate_ = sb::rate_of(sorted.data(), static_cast<unsigned>(sorted.size()));
}

uint64_t Budget::bytes(uint64_t hash_ms) const
{
	const auto ms = [](std::chrono::seconds s) { return static_cast<uint64_t>(s.count()) * 1000; };

	if (config_.budget_bytes)
		return config_.budget_bytes;
	if (supply_)
		return sb::budget_bytes(supply_->hold_up_ms, supply_->fixed_ms + hash_ms, supply_->margin_ms, rate_);
	sb::Battery full{};
	full.on_line = true;
	full.rated_ms = ms(config_.battery);
	full.health = 100;
	return sb::budget_bytes(sb::hold_up_ms(full), ms(config_.fixed) + hash_ms, ms(config_.margin), rate_);
}

} // namespace redoubt::agent
