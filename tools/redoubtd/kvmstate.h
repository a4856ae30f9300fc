// SPDX-License-Identifier: GPL-2.0
//
// What KVM says of a VM whose QEMU is dead, put in the place of what QEMU said of it when
// it lived: kvm.c's and the irqchips' kvm_get_*(), into a device state.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <linux/kvm.h>

#include "qstream.h"

namespace redoubt::agent {

// By KVM's names, as redoubt_standby.ko gives them (enum rdt_sb_item); KVM's own structures.
class KvmItems {
public:
	std::map<std::string, std::vector<uint8_t>> data;
	std::map<std::string, int> errors;

	bool has(const std::string &name) const { return data.contains(name); }
	// Throws: it is not there, or is shorter than KVM's structure.
	template <typename T> T get(const std::string &name) const
	{
		T out;

		copy(name, &out, sizeof(out));
		return out;
	}
	const std::vector<uint8_t> &bytes(const std::string &name) const;

private:
	void copy(const std::string &name, void *to, size_t size) const;
};

// Of one vCPU: put_vcpu() does that.
void put_apic(QSection &apic, const kvm_lapic_state &lapic, bool x2apic);
// The sections of one vCPU, the @rank-th by its APIC's number, as which QEMU numbers them, too. Throws, by name: something that
// the device state has no place for.
void put_vcpu(QStream &stream, size_t rank, const KvmItems &items);
// All of them, in that order. Each was asked at a moment of its own: their TSCs are told for one.
void put_vcpus(QStream &stream, const std::vector<KvmItems> &vcpus);
// Of QStream::differences() between what QEMU and what KVM have said of a VM that stands: the first that must not be; empty: none. vCPUs stand,
// but for their TSCs; clocks, timers and so interrupt controllers may go on.
std::string contradiction(const std::vector<std::string> &differences);
// PICs, IOAPIC, PIT and the clock.
void put_machine(QStream &stream, const KvmItems &items);
// An edge at the local APICs, as a device's message would be. Throws: what it means cannot be told.
void put_message(QStream &stream, uint64_t address, uint32_t data);
// QEMU's own clock went on by so many ns while the VM ran: RTC and PM timer count by it.
void put_time(QStream &stream, uint64_t ns);

} // namespace redoubt::agent
