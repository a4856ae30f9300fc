// SPDX-License-Identifier: GPL-2.0
//
// The mains fail: what the UPS says, what can be sent before the battery is empty, and when it is time. Documentation/standby.md, section 6;
// the arithmetic is src/core/standby/budget.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <standby/budget.h>

#include "budget.h"
#include "config.h"
#include "ups.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;

// A VM that runs here, and what a hand-over of it would have to send now.
struct PowerNeed {
	std::string name;
	uint64_t bytes;
	unsigned priority;
	uint64_t hash_ms = 0;	// bounded mode: little is sent, and all of it is hashed
};

class Power {
public:
	using Time = Loop::Clock::time_point;
	struct Handlers {
		std::function<std::vector<PowerNeed>()> needs;	// by priority
		std::function<void(const std::string &why)> go;	// all that run here; again each second until the mains are back
		std::function<void()> back;			// the mains are: what is on its way may be asked back
		std::function<void(uint8_t power, uint32_t seconds, uint64_t budget)> event;	// RDT_SB_POWER_*
	};

	Power(const PowerConfig &config, Handlers handlers) : config_(config), handlers_(std::move(handlers)) {}

	void heard(const UpsReading &reading, Time now);
	// Each second, whether something was heard or not.
	void tick(Time now);
	// Goodput, bytes a second: of a second of a hand-over, or of a probe.
	void rate_seen(uint64_t bytes_per_second);
	// What a hand-over took beside the pages, ms.
	void fixed_seen(uint64_t ms);
	nlohmann::json status(Time now) const;

	bool on_battery() const { return line_ == Line::battery; }
	// Of the whole host, by what was seen of hand-overs and probes
	uint64_t budget(Time now) const;
	// None: upsd has not answered yet.
	std::optional<Budget::Supply> supply(Time now) const;

private:
	enum class Line { unknown, mains, battery };

	sb::Battery battery(Time now) const;
	uint64_t fixed() const;
	uint64_t rate() const;
	void set_line(Line line, Time now);
	void tell_budget(Time now);
	void lost(const std::string &why, Time now);

	const PowerConfig &config_;
	Handlers handlers_;
	Line line_ = Line::unknown;
	bool low_ = false, shutdown_ = false;	// LB; FSD
	bool going_ = false;			// until the mains are back
	bool lost_ = false;			// upsd does not answer
	UpsReading last_;			// the last that was answered
	Time heard_{}, since_{};		// when; and since when it is on battery
	Time told_{};				// the budget, to people
	uint32_t charge_then_ = 0;		// at that moment
	std::string error_;
	std::vector<std::string> unfit_;	// named already
	std::array<uint64_t, 64> windows_{};
	std::array<uint64_t, 20> costs_{};
	size_t window_ = 0, cost_ = 0;		// how many were seen
};

} // namespace redoubt::agent
