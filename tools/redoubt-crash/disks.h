// SPDX-License-Identifier: GPL-2.0
//
// In the crash kernel: do the disks of a VM still do what the old kernel had told them?
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace redoubt::crash {

// Has this kernel reset the PCI device @pci (its directory in sysfs)? What it has reset has ended what it did. Virtio's registration
// resets a device before it shows it. An NVMe controller is "live" to this kernel only behind CC.EN = 0 and CSTS.RDY = 0 (or a reset of
// the function): it has then given up all that it was told.
bool was_reset(const std::filesystem::path &pci);

// Until all of these (by their names, 0000:00:05.0) were; throws which was not, behind @limit.
void wait_until_at_rest(const std::vector<std::string> &devices, std::chrono::milliseconds limit,
			const std::filesystem::path &all = "/sys/bus/pci/devices");

} // namespace redoubt::crash
