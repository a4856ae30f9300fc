// SPDX-License-Identifier: GPL-2.0
//
// What QEMU's virtio_save() has written of one virtio-pci device: one field, "virtio", in the
// device state, whose inside the stream's description does not tell. It is read to its end,
// strictly: what does not come out even is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../lib/sys.h"

namespace redoubt::agent {

using client::Error;

class VirtioBlob {
public:
	struct Queue {
		uint32_t num;
		uint64_t desc, avail, used;	// guest-physical; 0: not set up
		uint16_t last_avail;
		uint16_t vector;		// 0xffff: none
		size_t last_avail_at;		// in the blob
	};
	// An interrupt message as the device would send it.
	struct Message {
		uint64_t address;
		uint32_t data;
	};

	// Throws. @device: QEMU's name of it, for what is behind the queues.
	VirtioBlob(std::span<uint8_t> blob, std::string device);

	const std::string &device() const { return device_; }
	const std::vector<Queue> &queues() const { return queues_; }
	bool driver_ok() const { return status_ & 4; }
	bool packed() const { return features_ >> 34 & 1; }
	// Interrupts by messages, and not by a line
	bool msix_enabled() const;
	// The table of messages, as the guest has written it, and where the guest sees it. It is written anew whenever the guest moves an
	// interrupt to another of its CPUs.
	std::span<const uint8_t> msix_table() const { return std::span(blob_).subspan(table_at_, vectors_ * size_t{16}); }
	uint64_t msix_address() const;		// throws: nowhere
	void set_msix_table(std::span<const uint8_t> table);	// throws: another size

	void set_last_avail(unsigned queue, uint16_t index);
	// The queue's message, if it is enabled and not masked. If it is masked: its pending bit is set.
	std::optional<Message> interrupt(unsigned queue);

private:
	bool read(size_t config_size);
	uint32_t little(size_t at, size_t bytes) const;

	std::span<uint8_t> blob_;
	std::string device_;
	std::vector<Queue> queues_;
	uint8_t status_ = 0;
	uint64_t features_ = 0;
	size_t config_at_ = 0, msix_cap_ = 0, table_at_ = 0, pending_at_ = 0;
	uint32_t vectors_ = 0;
};

// The monitor's "xp": "00000000fe000000: 0xfee01000 0x00000000...", in the guest's byte order. What is none ends it.
std::vector<uint8_t> words_of(const std::string &text);

} // namespace redoubt::agent
