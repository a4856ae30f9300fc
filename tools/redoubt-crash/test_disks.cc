// SPDX-License-Identifier: GPL-2.0
//
// F3: a VM goes on elsewhere only when nothing of it is on its way to a disk here.

#include "disks.h"

#include <fstream>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include "../redoubtd/testing.h"

namespace redoubt::crash {

namespace {

namespace fs = std::filesystem;

class Disks : public testing::Test {
protected:
	void driver(const std::string &pci, const std::string &name) const
	{
		fs::create_directories(all / pci);
		fs::remove(all / pci / "driver");
		fs::create_symlink("../../../bus/pci/drivers/" + name, all / pci / "driver");
	}
	void state(const std::string &pci, const std::string &text) const
	{
		fs::create_directories(all / pci / "nvme/nvme0");
		std::ofstream(all / pci / "nvme/nvme0/state") << text << '\n';
	}
	std::string why(const std::vector<std::string> &devices, int ms = 0) const
	{
		try {
			wait_until_at_rest(devices, std::chrono::milliseconds(ms), all);
			return "";
		} catch (const std::runtime_error &e) {
			return e.what();
		}
	}
	agent::Directory dir;
	const fs::path all = dir.path();
};

TEST_F(Disks, F3VirtioIsAtRestWhenItIsShown)
{
	EXPECT_EQ(why({}), "");
	EXPECT_NE(why({"0000:00:01.0"}), "") << "it is not there";
	fs::create_directories(all / "0000:00:01.0");
	EXPECT_NE(why({"0000:00:01.0"}), "") << "no driver";
	driver("0000:00:01.0", "virtio-pci");
	EXPECT_NE(why({"0000:00:01.0"}), "") << "not registered yet";
	fs::create_directories(all / "0000:00:01.0/virtio3");
	EXPECT_EQ(why({"0000:00:01.0"}), "");
	driver("0000:00:01.0", "vfio-pci");
	EXPECT_NE(why({"0000:00:01.0"}), "") << "a driver that resets nothing";
}

TEST_F(Disks, F3NvmeIsAtRestWhenItIsLive)
{
	driver("0000:00:02.0", "nvme");
	EXPECT_NE(why({"0000:00:02.0"}), "");
	for (const char *text : {"new", "resetting", "connecting", "deleting", "dead", ""}) {
		state("0000:00:02.0", text);
		EXPECT_EQ(why({"0000:00:02.0"}), "disk 0000:00:02.0 has not been reset: what was on its way may still come") << text;
	}
	state("0000:00:02.0", "live");
	EXPECT_EQ(why({"0000:00:02.0"}), "");
}

TEST_F(Disks, F3AllOfThemAndNotTooEarly)
{
	driver("0000:00:02.0", "nvme");
	driver("0000:00:03.0", "nvme");
	state("0000:00:02.0", "live");
	state("0000:00:03.0", "resetting");
	EXPECT_NE(why({"0000:00:02.0", "0000:00:03.0"}, 200).find("0000:00:03.0"), std::string::npos);
	std::thread later([this] {
		std::this_thread::sleep_for(std::chrono::milliseconds(300));
		state("0000:00:03.0", "live");
	});
	EXPECT_EQ(why({"0000:00:02.0", "0000:00:03.0"}, 60'000), "");
	later.join();
}

} // namespace

} // namespace redoubt::crash
