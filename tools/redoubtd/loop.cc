// SPDX-License-Identifier: GPL-2.0

#include "loop.h"

#include <algorithm>
#include <cerrno>

#include <sys/epoll.h>

namespace redoubt::agent {

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC))
{
	if (!epoll_)
		throw Error("epoll_create1", errno);
}

void Loop::watch(int fd, uint32_t events, Handler handler)
{
	forget(fd);
	const uint64_t id = next_++;
	epoll_event event{.events = events, .data = {.u64 = id}};

	if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event))
		throw Error("epoll_ctl", errno);
	watches_[id] = std::make_shared<Watch>(Watch{fd, events, std::move(handler)});
	by_fd_[fd] = id;
}

void Loop::change(int fd, uint32_t events)
{
	const auto found = by_fd_.find(fd);

	if (found == by_fd_.end())
		return;
	Watch &watch = *watches_.at(found->second);
	if (watch.events == events)
		return;
	epoll_event event{.events = events, .data = {.u64 = found->second}};
	if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event))
		throw Error("epoll_ctl", errno);
	watch.events = events;
}

void Loop::forget(int fd)
{
	const auto found = by_fd_.find(fd);

	if (found == by_fd_.end())
		return;
	// The descriptor may be closed already; then epoll has forgotten it itself.
	epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
	watches_.erase(found->second);
	by_fd_.erase(found);
}

Loop::Timer Loop::after(milliseconds delay, Action action)
{
	const Timer id = next_++;
	const auto when = Clock::now() + delay;

	timers_.emplace(std::pair(when, id), std::move(action));
	due_[id] = when;
	return id;
}

void Loop::cancel(Timer &timer)
{
	const auto found = due_.find(timer);

	if (found != due_.end()) {
		timers_.erase({found->second, timer});
		due_.erase(found);
	}
	timer = 0;
}

void Loop::soon(Action action)
{
	soon_.push_back(std::move(action));
}

void Loop::step(milliseconds most)
{
	epoll_event events[64];
	auto wait = most;

	if (!soon_.empty())
		wait = milliseconds(0);
	else if (!timers_.empty())
		wait = std::clamp(std::chrono::ceil<milliseconds>(timers_.begin()->first.first - Clock::now()), milliseconds(0), most);

	int count = epoll_wait(epoll_.get(), events, std::size(events), static_cast<int>(wait.count()));
	if (count < 0 && errno != EINTR)
		throw Error("epoll_wait", errno);
	for (int i = 0; i < count; i++) {
		const auto found = watches_.find(events[i].data.u64);

		if (found == watches_.end())
			continue;
		// Kept while it runs: it may forget itself.
		const std::shared_ptr<Watch> watch = found->second;
		watch->handler(events[i].events);
	}
	const auto now = Clock::now();
	while (!timers_.empty() && timers_.begin()->first.first <= now) {
		auto node = timers_.extract(timers_.begin());

		due_.erase(node.key().second);
		node.mapped()();
	}
	// Only those that are there now: what they add is for the next round.
	for (size_t n = soon_.size(); n; n--) {
		const Action action = std::move(soon_.front());

		soon_.pop_front();
		action();
	}
}

void Loop::run()
{
	while (!stopped_)
		step(milliseconds(60'000));
}

} // namespace redoubt::agent
