// SPDX-License-Identifier: GPL-2.0
#include "disks.h"

#include <fstream>
#include <stdexcept>

#include <unistd.h>

namespace redoubt::crash {

namespace fs = std::filesystem;

bool was_reset(const fs::path &pci)
{
	std::error_code none;
	const std::string driver = fs::read_symlink(pci / "driver", none).filename();

	if (driver == "virtio-pci") {
		for (const auto &entry : fs::directory_iterator(pci, none))
			if (entry.path().filename().string().starts_with("virtio"))
				return true;
	} else if (driver == "nvme") {
		for (const auto &controller : fs::directory_iterator(pci / "nvme", none)) {
			std::string state;

			if (std::ifstream(controller.path() / "state") >> state && state == "live")
				return true;
		}
	}
	return false;
}

void wait_until_at_rest(const std::vector<std::string> &devices, std::chrono::milliseconds limit, const fs::path &all)
{
	const auto end = std::chrono::steady_clock::now() + limit;

	for (const std::string &device : devices) {
		while (!was_reset(all / device)) {
			if (std::chrono::steady_clock::now() >= end)
				throw std::runtime_error("disk " + device + " has not been reset: what was on its way may still come");
			usleep(100'000);
		}
	}
}

} // namespace redoubt::crash
