// SPDX-License-Identifier: GPL-2.0

#include "hang.h"

namespace redoubt::agent {

namespace {

// More between two ticks: this process stood still, and with it what it would have heard.
constexpr milliseconds held_up{2'000};

} // namespace

bool HangWatch::tick()
{
	const auto now = Loop::Clock::now();

	if (now - ticked_ > held_up || !vmm_.qmp().is_ready())
		end();
	ticked_ = now;
	// Four times within the limit: the answer to the next one comes in time.
	if (limit_.count() && vmm_.qmp().is_ready() && !question_ && now - asked_ >= limit_ / 4)
		ask();
	return hangs_;
}

void HangWatch::end()
{
	question_.reset();
	hangs_ = false;
}

void HangWatch::ask()
{
	asked_ = Loop::Clock::now();
	question_ = std::make_shared<bool>();
	vmm_.qmp().command("query-status", {}, [this, question = std::weak_ptr<bool>(question_)](const QmpReply &reply) {
		if (question.expired())
			return;
		question_.reset();
		hangs_ = !reply.ok && vmm_.qmp().is_ready();
	}, limit_);
}

} // namespace redoubt::agent
