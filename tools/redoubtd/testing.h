// SPDX-License-Identifier: GPL-2.0
//
// What the agent's tests share: a directory that goes away, a loop with an end.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <standby/wire.h>
#include <stdlib.h>

#include "loop.h"

namespace redoubt::agent {

class Directory {
public:
	Directory()
	{
		std::string name = (std::filesystem::temp_directory_path() / "redoubtd-test-XXXXXX").string();

		path_ = mkdtemp(name.data());
	}
	~Directory() { std::filesystem::remove_all(path_); }
	std::string operator/(const std::string &name) const { return path_ + "/" + name; }
	const std::string &path() const { return path_; }

private:
	std::string path_;
};

inline void write_file(const std::string &path, const std::string &text)
{
	std::ofstream(path) << text;
}

// Rounds of the loop until @done, or for so long.
inline bool run_until(Loop &loop, const std::function<bool()> &done, milliseconds most = milliseconds(5'000))
{
	const auto end = Loop::Clock::now() + most;

	while (!done()) {
		if (Loop::Clock::now() > end)
			return false;
		loop.step(milliseconds(10));
	}
	return true;
}

// A message as the link brings it: bytes out of @head and @data, and its header
inline standby::Header as_bytes(standby::Msg msg, std::span<const uint8_t> head, std::span<const uint8_t> data, std::vector<uint8_t> *bytes)
{
	bytes->assign(head.begin(), head.end());
	bytes->insert(bytes->end(), data.begin(), data.end());
	return {.msg = msg, .body = static_cast<uint32_t>(bytes->size()), .vm = {{1}}, .epoch = 1, .from = 1, .to = 2, .seq = 1};
}

inline std::string error_of(const std::function<void()> &what)
{
	try {
		what();
	} catch (const Error &error) {
		return error.what();
	}
	return "";
}

inline bool has(const std::string &text, const std::string &part)
{
	return text.find(part) != std::string::npos;
}

} // namespace redoubt::agent
