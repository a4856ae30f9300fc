// SPDX-License-Identifier: GPL-2.0
//
// What the crash kernel's first program does: finds the VMs of the kernel that has panicked, and gives them to the standby.
#pragma once

#include <chrono>
#include <string>

namespace redoubt::crash {

struct RescueOptions {
	std::string vmcore = "/proc/vmcore", layout = "/etc/redoubt/crash.layout", config = "/etc/redoubt/standby.json", way;
	uint64_t root = 0;
	// Without any progress. There is nothing here but what is to be sent, and nothing to go back to.
	std::chrono::seconds patience{600};
};

// 0: the standby runs all VMs that had left a note. 1: not all, and it was said why. Throws if there is nothing to read.
int rescue(const RescueOptions &options);

// The address of the root on this kernel's command line; throws.
uint64_t root_address();

// As the first program of the crash kernel. Does not return: reboots.
[[noreturn]] void init();

// For "load": an initramfs that does all that, of this host's agent's configuration.
std::string make_initramfs(const std::string &config, const std::string &release);

} // namespace redoubt::crash
