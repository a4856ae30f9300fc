// SPDX-License-Identifier: GPL-2.0
//
// What redoubt_standby.ko answers of a VM that it holds: vCPUs, irqchips, slots.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "genl.h"
#include "kvmstate.h"

namespace redoubt::agent {

// The MSRs that this host's KVM has, at most so many as are read at once. Throws: no /dev/kvm.
std::vector<uint32_t> kvm_msrs();

class Held {
public:
	// Throws.
	explicit Held(uint32_t vm) : vm_(vm) {}

	// All of these throw. Of a VM whose vCPUs stand.
	KvmItems vcpu(uint32_t index, const std::vector<uint32_t> &msrs);
	KvmItems machine();
	std::vector<rdt_sb_slot> slots();

private:
	KvmItems ask(std::initializer_list<Genl::Attribute> attributes);

	Genl genl_;
	uint32_t vm_;
};

// Why the vCPU's last exit to its VMM cannot be made good; empty: it can. @vcpu: its descriptor, nothing runs it.
//
// KVM has not completed that access (PENDING_IO). An IN, an OUT or a read of memory is done again: the registers are those
// before the instruction. Registers that do not mind are named here. A write to memory is behind its instruction: it may have been lost.
std::string pending_access(const Fd &vcpu);

} // namespace redoubt::agent
