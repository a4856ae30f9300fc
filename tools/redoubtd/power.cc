// SPDX-License-Identifier: GPL-2.0

#include "power.h"

#include <algorithm>
#include <sstream>

#include <linux/redoubt_standby.h>

#include "log.h"

namespace redoubt::agent {

namespace {

using std::chrono::duration_cast;
using std::chrono::seconds;

// A charge comes in whole percent: how fast it falls is not to be seen before.
constexpr uint64_t measured_after_ms = 30'000;
// Without a word from upsd for so long its last one is counted down. Two of its polls.
constexpr seconds silence{4};
constexpr seconds tell_every{30};
// Between a power failure and our knowing of it: the driver's poll, and ours.
constexpr uint64_t poll_ms = 2000;

uint64_t ms_between(Power::Time from, Power::Time to)
{
	return to > from ? static_cast<uint64_t>(duration_cast<milliseconds>(to - from).count()) : 0;
}

bool has_word(const char *status, const char *word)
{
	std::istringstream words(status);
	std::string one;

	while (words >> one)
		if (one == word)
			return true;
	return false;
}

std::string mib(uint64_t bytes)
{
	return std::to_string(bytes >> 20) + " MiB";
}

} // namespace

sb::Battery Power::battery(Time now) const
{
	// Since it was said; and for how long it had been on battery then.
	const uint64_t silent = ms_between(heard_, now), on_it = ms_between(since_, heard_);
	sb::Battery b{.on_line = line_ != Line::battery, .low = low_ || shutdown_, .runtime_ms = ~0ull,
		      .rated_ms = static_cast<uint64_t>(config_.rated.count()) * 1000, .charge = 0, .charge_low = 0, .fell = 0, .in_ms = 0,
		      .health = config_.health};

	if (last_.runtime_s != UpsReading::unknown) {
		const uint64_t said = uint64_t{last_.runtime_s} * 1000;

		// It was said a while ago.
		b.runtime_ms = said > silent ? said - silent : 0;
	}
	if (last_.charge == UpsReading::unknown || charge_then_ == UpsReading::unknown || on_it < measured_after_ms)
		return b;
	b.charge_low = last_.charge_low == UpsReading::unknown ? 0 : last_.charge_low;
	b.charge = last_.charge;
	b.fell = charge_then_ > last_.charge ? charge_then_ - last_.charge : 0;
	b.in_ms = on_it;
	if (b.fell && silent) {
		// It goes on falling as it has.
		const uint64_t more = silent * b.fell / b.in_ms;

		b.charge -= static_cast<uint32_t>(std::min<uint64_t>(more, b.charge));
	}
	return b;
}

uint64_t Power::fixed() const
{
	const uint64_t seen = *std::max_element(costs_.begin(), costs_.end());
	sb::Costs costs{.poll_ms = poll_ms, .stop_ms = std::max(seen, static_cast<uint64_t>(config_.fixed.count()) * 1000), .state_ms = 0,
			.journal_ms = 0, .trip_ms = 0, .load_ms = 0};

	return sb::fixed_ms(costs);
}

uint64_t Power::rate() const
{
	std::array<uint64_t, 64> sorted = windows_;
	const auto n = static_cast<unsigned>(std::min(window_, windows_.size()));

	return n ? sb::rate_of(sorted.data(), n) : config_.rate;
}

void Power::rate_seen(uint64_t bytes_per_second)
{
	windows_[window_++ % windows_.size()] = bytes_per_second;
}

void Power::fixed_seen(uint64_t ms)
{
	costs_[cost_++ % costs_.size()] = ms;
}

std::optional<Budget::Supply> Power::supply(Time now) const
{
	// On mains only its rating says anything.
	if (line_ == Line::unknown || (line_ == Line::mains && !config_.rated.count()))
		return std::nullopt;
	return Budget::Supply{sb::hold_up_ms(battery(now)), fixed(), static_cast<uint64_t>(config_.margin.count()) * 1000, line_ == Line::battery};
}

uint64_t Power::budget(Time now) const
{
	return sb::budget_bytes(sb::hold_up_ms(battery(now)), fixed(), static_cast<uint64_t>(config_.margin.count()) * 1000, rate());
}

// What there is, what it is enough for, and for which VMs it is not.
void Power::tell_budget(Time now)
{
	const std::vector<PowerNeed> needs = handlers_.needs();
	const uint64_t b = budget(now), left = sb::hold_up_ms(battery(now));
	std::vector<sb::Share> shares;
	uint64_t sum = 0;

	for (const PowerNeed &need : needs) {
		shares.push_back({.min = need.bytes, .max = need.bytes, .weight = 1, .priority = need.priority, .limit = 0, .fits = false});
		sum += need.bytes;
	}
	told_ = now;
	say("power: " + std::to_string(left / 1000) + " s left" + (line_ == Line::battery ? "" : " on a battery") + ", " + mib(b) +
	    " can be sent; " + mib(sum) + " would have to be");
	(void)sb::divide(shares.data(), static_cast<unsigned>(shares.size()), b);
	for (size_t i = 0; i < needs.size(); i++) {
		if (!shares[i].fits)
			say(needs[i].name, "does not fit on this battery: " + mib(needs[i].bytes) + ", priority " + std::to_string(needs[i].priority));
	}
}

void Power::set_line(Line line, Time now)
{
	const Line before = line_;

	line_ = line;
	if (line == before)
		return;
	if (line == Line::battery) {
		since_ = now;
		charge_then_ = last_.charge;
		say(std::string("power: on battery (") + last_.status + ")");
	} else {
		low_ = shutdown_ = false;
		say(std::string("power: on mains (") + last_.status + ")");
	}
	if (line == Line::battery || config_.rated.count())
		tell_budget(now);
	handlers_.event(line == Line::battery ? RDT_SB_POWER_BATTERY : RDT_SB_POWER_ONLINE,
			static_cast<uint32_t>(std::min<uint64_t>(sb::hold_up_ms(battery(now)) / 1000, ~0u)), budget(now));
	if (line == Line::mains && before == Line::battery) {
		going_ = false;
		if (config_.resume)
			handlers_.back();
	}
}

void Power::lost(const std::string &why, Time now)
{
	if (!lost_ || error_ != why)
		say("power: upsd does not answer: " + why +
		    (line_ == Line::battery ? "; on battery, " + std::to_string(sb::hold_up_ms(battery(now)) / 1000) + " s are left by its last word" : ""));
	lost_ = true;
	error_ = why;
}

void Power::heard(const UpsReading &reading, Time now)
{
	if (!reading.answered)
		return lost(reading.error, now);
	if (lost_)
		say("power: upsd answers again");
	lost_ = false;
	error_.clear();
	last_ = reading;
	heard_ = now;
	const char *status = reading.status;
	// A calibration runs on battery with the mains there. What says neither (OFF, an empty word) is what it was before.
	const bool battery = has_word(status, "OB") && !has_word(status, "CAL"), mains = has_word(status, "OL") || has_word(status, "CAL") ||
			     has_word(status, "BYPASS");
	if (battery || mains)
		set_line(battery ? Line::battery : Line::mains, now);
	const bool low = line_ == Line::battery && has_word(status, "LB"), fsd = has_word(status, "FSD");
	if ((low && !low_) || (fsd && !shutdown_)) {
		say(std::string("power: ") + (fsd ? "the shutdown is announced (" : "the battery is low (") + status + ")");
		handlers_.event(RDT_SB_POWER_LOW, 0, 0);
	}
	low_ = low;
	shutdown_ = fsd;
	if (line_ == Line::mains && !fsd)
		going_ = false;
	tick(now);
}

void Power::tick(Time now)
{
	if (heard_ != Time() && now - heard_ > silence && !lost_)
		lost("nothing for " + std::to_string(silence.count()) + " s", now);
	if (line_ != Line::battery && !shutdown_)
		return;
	sb::Battery b = battery(now);
	uint64_t sum = 0, hash_ms = 0;

	b.on_line = false;
	for (const PowerNeed &need : handlers_.needs()) {
		sum += need.bytes;
		hash_ms += need.hash_ms;
	}
	if (!going_ && sb::must_go(b, sum, fixed() + hash_ms, static_cast<uint64_t>(config_.margin.count()) * 1000, rate())) {
		going_ = true;
		if (b.low) {
			say("power: it is time: the battery is low");
		} else {
			say("power: it is time: " + std::to_string(sb::hold_up_ms(b) / 1000) + " s are left, and " + mib(sum) + " take as long");
			tell_budget(now);
		}
	}
	if (now - told_ > tell_every) {
		tell_budget(now);
		handlers_.event(b.low ? RDT_SB_POWER_LOW : RDT_SB_POWER_BATTERY, static_cast<uint32_t>(std::min<uint64_t>(sb::hold_up_ms(b) / 1000, ~0u)),
				budget(now));
	}
	if (going_)
		handlers_.go(b.low ? "the battery is low" : "the battery's time is up");
}

nlohmann::json Power::status(Time now) const
{
	nlohmann::json out{{"ups", config_.ups}, {"line", line_ == Line::unknown ? "not known" : line_ == Line::mains ? "mains" : "battery"},
			   {"status", last_.status}, {"low", low_}, {"going", going_}, {"hold_up_s", sb::hold_up_ms(battery(now)) / 1000},
			   {"budget_bytes", budget(now)}, {"rate", rate()}, {"fixed_ms", fixed()}};
	uint64_t sum = 0;

	for (const PowerNeed &need : handlers_.needs())
		sum += need.bytes;
	out["need_bytes"] = sum;
	if (last_.charge != UpsReading::unknown)
		out["charge_percent"] = last_.charge / 100;
	if (lost_)
		out["error"] = error_;
	return out;
}

} // namespace redoubt::agent
