// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>
#include <vector>

namespace redoubt::crash {

struct CrashKernel {
	std::string kernel;			// a bzImage
	std::vector<std::string> initramfs;	// archives, one behind the other
	std::string line;			// its command line
};

// Puts it where a panic finds it; throws std::runtime_error.
void load(const CrashKernel &what);
void unload();

} // namespace redoubt::crash
