// SPDX-License-Identifier: GPL-2.0
//
// A command as a test gives it, and what comes of it.
#pragma once

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "../redoubtctl/commands.h"
#include "fake.h"

namespace redoubt::client {

using nlohmann::json;

struct Result {
	int status;
	std::string out;
	std::string err;

	std::vector<std::string> lines() const
	{
		std::vector<std::string> all;
		std::istringstream in(out);

		for (std::string line; std::getline(in, line);)
			all.push_back(line);
		return all;
	}
	std::vector<json> objects() const
	{
		std::vector<json> all;

		for (const std::string &line : lines())
			all.push_back(json::parse(line));
		return all;
	}
};

inline bool has(const std::string &text, const std::string &part)
{
	return text.find(part) != std::string::npos;
}

class Ctl : public testing::Test {
protected:
	Result run(std::vector<const char *> args)
	{
		std::ostringstream out, err;

		args.insert(args.begin(), "redoubtctl");
		const int status = ctl::run(module, static_cast<int>(args.size()), args.data(), out, err);
		// What goes wrong is said in one line, and only then.
		const std::string said = err.str();
		EXPECT_EQ(status != 0, !said.empty()) << said;
		EXPECT_LE(std::count(said.begin(), said.end(), '\n'), 1) << said;
		return {status, out.str(), said};
	}

	void expect_error(std::vector<const char *> args, int status, const std::string &part)
	{
		const Result result = run(std::move(args));

		EXPECT_EQ(result.status, status) << result.err;
		EXPECT_TRUE(has(result.err, part)) << result.err;
	}

	static rdt_event write_event(uint64_t gpa)
	{
		rdt_event event{};

		event.time_ns = 12'345'678'901;
		event.type = RDT_EV_WRITE;
		event.action = RDT_ACT_DENY;
		event.cls = RDT_CLS_SYSCALL;
		event.vcpu = 1;
		event.size = 4;
		event.gpa = gpa;
		event.gva = 0xffffffff82000300;
		event.rip = 0xffffffffc0001000;
		event.cr3 = 0x1234000;
		event.range_gpa = gpa & ~0xfffull;
		event.range_pages = 2;
		event.old_val = 0xab;
		event.new_val = 0xdeadbeef;
		event.flags = RDT_EVF_GVA | RDT_EVF_SIZE | RDT_EVF_OLD | RDT_EVF_NEW;
		return event;
	}

	FakeModule module;
};

} // namespace redoubt::client
