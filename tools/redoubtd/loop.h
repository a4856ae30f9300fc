// SPDX-License-Identifier: GPL-2.0
//
// One thread, one epoll: descriptors, timers, and what is to be done next.
// Handlers may add and forget anything, also themselves.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>

#include "../lib/sys.h"

namespace redoubt::agent {

using client::Error;
using client::Fd;
using std::chrono::milliseconds;

class Loop {
public:
	using Clock = std::chrono::steady_clock;
	using Handler = std::function<void(uint32_t events)>;
	using Action = std::function<void()>;
	using Timer = uint64_t;			// 0: none
	// What may take long does so much of it, and lets others go before the rest.
	static constexpr milliseconds turn{20};

	Loop();

	// @events: EPOLLIN | EPOLLOUT; errors and hang-ups come anyway. One handler a descriptor.
	void watch(int fd, uint32_t events, Handler handler);
	void change(int fd, uint32_t events);
	void forget(int fd);

	[[nodiscard]] Timer after(milliseconds delay, Action action);
	// Cancels, and clears @timer; one that has fired or is 0 is no error.
	void cancel(Timer &timer);
	// In this round's end: for what must not run inside its caller.
	void soon(Action action);

	void run();
	void stop() { stopped_ = true; }
	// One round: waits for @most at longest.
	void step(milliseconds most);

private:
	struct Watch {
		int fd;
		uint32_t events;
		Handler handler;
	};

	Fd epoll_;
	uint64_t next_ = 1;
	// By a number that is never used again: an event of this round may be for a
	// descriptor that was closed in this round and came back as another's.
	std::map<uint64_t, std::shared_ptr<Watch>> watches_;
	std::map<int, uint64_t> by_fd_;
	std::map<std::pair<Clock::time_point, Timer>, Action> timers_;
	std::map<Timer, Clock::time_point> due_;
	std::deque<Action> soon_;
	bool stopped_ = false;
};

} // namespace redoubt::agent
