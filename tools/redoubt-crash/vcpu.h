// SPDX-License-Identifier: GPL-2.0
//
// The state of a vCPU as KVM's GET ioctls would have given it, out of the memory of the kernel that has panicked.
//
// A vCPU is whole only where it is known to stand between two instructions: not in KVM_RUN; halted; back from the guest
// because of an interrupt, or through with an exit, and waiting for its turn; or stopped right out of the guest by the panic's NMI. KVM in the middle of an instruction that
// it emulates has registers that are half of before and half of behind it: such a vCPU is refused.
#pragma once

#include <string>
#include <vector>

#include "layout.h"
#include "root.h"

namespace redoubt::crash {

// As RDT_SB_A_ITEM: KVM's structure, by its ioctl's name.
struct Item {
	std::string name;
	std::vector<uint8_t> data;
};

struct Vcpu {
	uint32_t id;
	std::string where;		// "user", "halted", "interrupted", "waiting", "guest"
	std::vector<Item> items;
	// What KVM would still have written into the VM's memory: bytes, by the VMM's addresses
	std::vector<std::pair<uint64_t, uint8_t>> writes;
};

// Throws std::runtime_error: why it is not whole.
Vcpu read_vcpu(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index);

// What the VM has besides: PICs, IOAPIC, PIT, clock. Throws likewise.
std::vector<Item> read_devices(const Layout &layout, Physical &memory, const Root &root, const Vm &vm);

// XSAVE's area, compacted or not, or FXSAVE's (512 bytes), as KVM_GET_XSAVE2 gives it: standard format, parts in their initial state told as such.
// @bytes: how much of it the guest has. Throws std::runtime_error.
std::vector<uint8_t> uabi_xsave(const std::vector<uint8_t> &area, uint64_t features, uint32_t pkru, size_t bytes);

// PKRU as an XSAVE area of the standard format has it. Throws std::runtime_error.
uint32_t saved_pkru(const std::vector<uint8_t> &area);

} // namespace redoubt::crash
