// SPDX-License-Identifier: GPL-2.0
//
// What the mains' failure means for the VMs here.

#include "agent.h"

#include <algorithm>
#include <utility>

#include <linux/redoubt_standby.h>

#include "log.h"

namespace redoubt::agent {

namespace {

// At pairing: enough to see a link's rate, and no burden for it.
constexpr uint64_t probe_bytes = 4 << 20;

} // namespace

void Agent::start_power()
{
	if (config_.power.ups.empty())
		return;
	power_ = std::make_unique<Power>(config_.power, Power::Handlers{
		[this] {
			std::vector<PowerNeed> out;

			for (const auto &keeper : keepers_)
				if (keeper->active())
					out.push_back({keeper->vm().name, keeper->need(), keeper->vm().priority, keeper->bounded_hash_ms()});
			return out;
		},
		[this](const std::string &why) { power_go(why); },
		[this] { power_back(); },
		[this](uint8_t power, uint32_t seconds, uint64_t budget) { power_event(power, seconds, budget); },
	});
	ups_ = std::make_unique<Ups>(loop_, config_.power.ups, [this](const UpsReading &reading) { power_->heard(reading, Loop::Clock::now()); });
	power_tick();
}

void Agent::power_tick()
{
	uint64_t sent = 0;
	bool sending = false;

	power_timer_ = loop_.after(milliseconds(1'000), [this] { power_tick(); });
	for (const auto &keeper : keepers_) {
		sent += keeper->sent_bytes();
		sending |= keeper->sending();
		if (const uint64_t ms = keeper->fixed_ms())
			power_->fixed_seen(ms);
	}
	// Only of a second that was all sending; a new attempt counts from nothing.
	if (sending && sending_before_ && sent > sent_before_)
		power_->rate_seen(sent - sent_before_);
	sent_before_ = sent;
	sending_before_ = sending;
	power_->tick(Loop::Clock::now());
	// Bounded mode's limits follow within share()'s time.
	budget_.supply(power_->supply(Loop::Clock::now()));
}

void Agent::probe()
{
	// Not in the way of what is being sent.
	if (!power_ || std::any_of(keepers_.begin(), keepers_.end(), [](const auto &keeper) { return keeper->may_resume(); }))
		return;
	peer_.probe(probe_bytes, [this](uint64_t rate) {
		say("the link carries " + std::to_string(rate >> 20) + " MiB a second");
		power_->rate_seen(rate);
	});
}

// All at once, and pump() sends the first by priority first: what each takes beside its pages (stop, device state) is then one time and
// not a time each.
void Agent::power_go(const std::string &why)
{
	for (const auto &keeper : keepers_) {
		if (!keeper->active())
			continue;
		const std::string name = keeper->vm().name;

		keeper->go(false, [this, name, why](const std::string &error) {
			std::string &said = power_said_[name];

			// It is asked again in a second: a standby may yet be ready.
			if (error != said)
				say(name, error.empty() ? "goes: " + why : why + ", and it does not go: " + error);
			said = error;
			if (error.empty())
				power_sent_.insert(name);
		});
	}
}

void Agent::power_back()
{
	const std::set<std::string> sent = std::exchange(power_sent_, {});

	power_said_.clear();
	for (const auto &keeper : keepers_) {
		const std::string name = keeper->vm().name;

		// What an operator has sent is his.
		if (!keeper->may_resume() || !sent.contains(name))
			continue;

		keeper->abort([name](const std::string &error) {
			say(name, error.empty() ? "is asked back: the mains are there" : "is not asked back: " + error);
		});
	}
}

// For scripts and power tools, by the module's multicast group. Without the module nobody listens there.
void Agent::power_event(uint8_t power, uint32_t seconds, uint64_t budget)
{
	try {
		Genl().request(RDT_SB_CMD_POWER, {{RDT_SB_A_POWER, &power, sizeof(power)}, {RDT_SB_A_RUNTIME, &seconds, sizeof(seconds)},
						 {RDT_SB_A_BUDGET, &budget, sizeof(budget)}});
	} catch (const Error &error) {
		if (Hold::available())
			say(std::string("power: the module does not tell it: ") + error.what());
	}
}

} // namespace redoubt::agent
