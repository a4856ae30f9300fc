// SPDX-License-Identifier: GPL-2.0
//
// What the module has left: uapi/linux/redoubt_crash.h, read with suspicion.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <linux/redoubt_crash.h>

#include "memory.h"

namespace redoubt::crash {

struct Vm {
	uint8_t uuid[16];
	uint64_t pgd, kvm;
	unsigned int levels;
	std::vector<uint64_t> vcpus;
	std::vector<rdt_crash_range> ranges;
	std::vector<uint8_t> note, live;
	std::string name() const;	// the UUID, as text
};

// What a CPU had in its registers
struct Cpu {
	rdt_crash_cpu head;
	std::vector<uint8_t> xsave;
};

struct Root {
	std::string release;
	std::vector<Vm> vms;
	std::map<unsigned int, Cpu> cpus;
	std::vector<rdt_crash_work> works;
	std::vector<std::string> refused;	// a line each: what was there and not whole
	// Has every CPU that was online stopped? A vCPU may still run else.
	bool all_stopped() const;
};

// Throws std::runtime_error: there is no root. A VM whose record is not whole is left out, and told in refused.
Root read_root(Physical &memory, uint64_t address);

} // namespace redoubt::crash
