// SPDX-License-Identifier: GPL-2.0
//
// What an agent that is started again must know of a VM that is being handed over:
// whose process it is, and the device state that QEMU gives only once. In a file
// beside the RAM file; it means nothing in another boot.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../lib/sys.h"

namespace redoubt::agent {

using client::Error;
using client::Fd;

// When the process was started, in ticks since the host's boot; 0: there is no such process.
uint64_t start_time(pid_t pid);

struct Saved {
	pid_t pid = 0;			// 0: nothing
	uint64_t started = 0, boot = 0, frames = 0;
	uint64_t inode = 0;		// of the RAM file, if the process is dead and the state is all that is left of it; else 0
	std::vector<uint8_t> state;

	bool is(pid_t other) const { return pid && pid == other && started == start_time(other); }
	bool lives() const { return pid && started == start_time(pid); }
};

// A file of our own at @path, only we can read it, in the place of the old one. Throws.
void write_private(const std::string &path, const std::string &head, const std::vector<uint8_t> &bytes);
void write_saved(const std::string &path, const Saved &saved);
// Of this boot, whole, and written by us; else nothing.
Saved read_saved(const std::string &path, uint64_t boot);

} // namespace redoubt::agent
