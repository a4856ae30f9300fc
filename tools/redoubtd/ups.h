// SPDX-License-Identifier: GPL-2.0
//
// The UPS, as NUT's upsd tells it: libupsclient, which waits for its answers, in a thread of its own. That thread touches
// nothing of the agent's but a pipe.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include <pthread.h>

#include "loop.h"

namespace redoubt::agent {

// One look. What upsd does not say is "not known".
struct UpsReading {
	static constexpr uint32_t unknown = ~0u;

	bool answered = false;		// else: error
	char status[64] = "";		// ups.status, NUT's words: "OB DISCHRG LB"
	uint32_t charge = unknown, charge_low = unknown;	// 1/100 of a percent
	uint32_t runtime_s = unknown;
	char error[128] = "";
};

class Ups {
public:
	// @name: UPS[@HOST[:PORT]]. Throws if that is none. @heard: each second, or when upsd has answered at last.
	Ups(Loop &loop, const std::string &name, std::function<void(const UpsReading &)> heard);
	~Ups();
	Ups(const Ups &) = delete;

private:
	static void *thread(void *self);
	void run();
	UpsReading read();
	bool connect(UpsReading &out);
	void drop();
	// False: upsd does not say it. Throws what upsd or the network says instead.
	bool get(const char *variable, std::string &value);

	Loop &loop_;
	std::function<void(const UpsReading &)> heard_;
	std::string name_, host_;
	uint16_t port_ = 0;
	Fd readings_, tell_;		// a pipe: whole readings
	Fd wake_;			// eventfd: the end
	std::atomic<bool> stop_{false};
	std::mutex lock_;		// of socket_, between who closes it and who wakes who reads from it; nothing is taken inside
	int socket_ = -1;
	void *upsd_ = nullptr;		// UPSCONN_t; the thread's
	pthread_t thread_{};
};

} // namespace redoubt::agent
