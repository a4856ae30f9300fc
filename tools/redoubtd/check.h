// SPDX-License-Identifier: GPL-2.0
//
// Can this VM be handed over? Asked of QEMU itself, answered by the name of the device
// or option that cannot be carried. Documentation/redoubtd.md has the list.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "config.h"
#include "qmp.h"

namespace redoubt::agent {

struct Obstacle {
	std::string what;	// a device or option
	std::string why;
	// Stands in the way only when the VMM is dead: a VM whose QEMU lives is carried.
	bool death_only = false;
	// Likewise, only when the host panics
	bool panic_only = false;
};

// What QEMU has answered, by command; qom-list and qom-get by command and path.
using Facts = std::map<std::string, Json>;

// A function of the facts alone. @ram_file: frames of the RAM file, its device and inode as "dev:ino" of the file at
// the backend's mem-path, and of the configured one.
struct FileFacts {
	uint64_t bytes = 0;		// of the configured file
	bool same = false;		// the backend's mem-path is that file
	bool native_aio = false;	// the process has a context of io_setup(2)
};
std::vector<Obstacle> find_obstacles(const Facts &facts, const FileFacts &file, const VmConfig &vm);

// Asks. @done: with an error if QEMU does not answer.
using Checked = std::function<void(const std::string &error, const std::vector<Obstacle> &)>;
void check_vm(Qmp &qmp, pid_t pid, const VmConfig &vm, Checked done);

} // namespace redoubt::agent
