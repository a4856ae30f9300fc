// SPDX-License-Identifier: GPL-2.0
//
// A KVM VM of a running process that knows nothing of Redoubt: its descriptor is
// found in /proc and copied with pidfd_getfd(2), which needs ptrace rights over
// the process.
#pragma once

#include <optional>
#include <vector>

#include <sys/types.h>

#include "sys.h"

namespace redoubt::client {

struct ProcessVm {
	Fd fd;		// our copy
	int number;	// its number in the process
};

// @number: which descriptor; without it the process must have exactly one VM.
ProcessVm take_vm(Sys &sys, pid_t pid, std::optional<int> number);

// All vCPUs of a process with one VM, in the order of their numbers.
std::vector<Fd> take_vcpus(pid_t pid);

} // namespace redoubt::client
