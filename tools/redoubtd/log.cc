// SPDX-License-Identifier: GPL-2.0

#include "log.h"

#include <chrono>
#include <cstdio>
#include <map>

namespace redoubt::agent {

void say(const std::string &line)
{
	using Clock = std::chrono::steady_clock;
	static std::map<std::string, Clock::time_point> recent;
	const auto now = Clock::now();

	if (recent.size() > 256)
		recent.clear();
	auto &last = recent[line];
	if (last != Clock::time_point() && now - last < std::chrono::seconds(1))
		return;
	last = now;
	fprintf(stderr, "redoubtd: %s\n", line.c_str());
}

void say(const std::string &vm, const std::string &line)
{
	say(vm + ": " + line);
}

} // namespace redoubt::agent
