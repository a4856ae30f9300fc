// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>

#include "../lib/client.h"

namespace redoubt::ctl {

// Exit statuses, documented in Documentation/redoubtctl.md.
enum Exit { exit_ok = 0, exit_error = 1, exit_usage = 2, exit_no_module = 3 };

// Where a command does its work.
struct Context {
	client::Sys &sys;
	std::ostream &out;
	bool json = false;
};

struct WatchOptions {
	std::string vm;				// empty: all
	std::optional<uint64_t> since;		// without: what happens from now on
	std::optional<uint64_t> count;
	std::optional<double> timeout_s;
	std::optional<unsigned> type;		// RDT_EV_*
};

int status(Context &ctx);
int attach(Context &ctx, int pid, std::optional<int> vm_fd);
int detach(Context &ctx, const std::string &vm, bool force);
int regions(Context &ctx, const std::string &vm);
int watch(Context &ctx, const WatchOptions &options);
int protect(Context &ctx, const std::string &vm, uint64_t gpa, uint64_t pages, unsigned action, unsigned cls);
int policy(Context &ctx, std::optional<bool> self_attach);

// The whole program: parses the arguments, runs the command, maps what goes
// wrong to one line on @err and an exit status.
int run(client::Sys &sys, int argc, const char *const *argv, std::ostream &out, std::ostream &err);

} // namespace redoubt::ctl
