// SPDX-License-Identifier: GPL-2.0
//
// What the agent leaves for a crash kernel of a VM that runs here, should the host panic (RDT_SB_CRASH): the note, which is
// written anew with each record of the journal and each refresh; and the live area, in which the agent goes on writing down
// which requests are outstanding in rings that complete out of order.
#pragma once

#include <filesystem>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <standby/journal.h>
#include <standby/rings.h>

#include "../lib/sys.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;
using client::Error;

struct Note {
	struct Queue {
		std::string section;		// of the device state
		unsigned index, num;
		uint64_t avail, used;		// bytes into the image
		bool watched;			// it is in the live area, the next one there
	};

	std::string vm;
	sb::Record record{};			// the journal's last
	uint64_t frames = 0;			// of the image
	// @state is that of the VM as it stands. Else it is a refresh's, with what follows; KVM and the rings know the rest.
	bool whole = false;
	std::vector<uint8_t> state;
	uint64_t taken = 0;			// the refresh: CLOCK_MONOTONIC, ns
	std::vector<std::vector<uint8_t>> cpuid;	// KVM_GET_CPUID2's entries, of each vCPU
	std::vector<Queue> queues;
	uint64_t live = 0;			// the live area's number; 0: none
	// What must have been reset before anybody else writes to the VM's disks: PCI devices, "0000:00:05.0"
	std::vector<std::string> disks;
};

std::vector<uint8_t> write_note(const Note &note);
// Throws: it is none.
Note read_note(std::span<const uint8_t> bytes);

// Written twice, by turns: a panic in the middle of one finds the other. What the CPUs have stored is in memory when they have stopped, in
// their order; so there is nothing but the order to be kept.
class LiveArea {
public:
	// @number: never 0, never twice in an agent's life. Throws.
	LiveArea(uint64_t number, size_t queues);
	~LiveArea();
	LiveArea(const LiveArea &) = delete;

	// As many as there are queues
	void publish(const std::vector<const sb::RingWatch *> &watches);
	uint64_t number() const;
	const void *memory() const { return at_; }
	size_t bytes() const { return bytes_; }

private:
	void *at_;
	size_t bytes_, queues_;
};

// Throws: it is not that one, or was overwritten.
std::vector<sb::RingWatch> read_live(std::span<const uint8_t> bytes, uint64_t number, size_t queues);

// The PCI devices that a VM's disk is behind, if they are of a kind whose reset is known to end what they still had to write; throws why not.
std::vector<std::string> disk_devices(const std::string &path, const std::string &sys = "/sys");
// The same, of a block device's directory in sysfs; @path: what it is called.
std::vector<std::string> devices_behind(const std::filesystem::path &block, const std::string &path);

} // namespace redoubt::agent
