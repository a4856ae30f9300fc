// SPDX-License-Identifier: GPL-2.0
//
// What a crash kernel finds of the agent's: the note and the live area.

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include <gtest/gtest.h>
#include <unistd.h>

#include "note.h"
#include "testing.h"

namespace redoubt::agent {
namespace {

Note some_note()
{
	Note n;

	n.vm = "db";
	n.record = {.kind = sb::Kind::Started, .flags = sb::rec_image, .epoch = 7, .boot = 0xb007, .peer = 0x9ee4, .digest = {}};
	n.record.digest.byte[31] = 9;
	n.frames = 100;
	n.state = {1, 2, 3, 255};
	n.taken = 123456789012345;
	n.cpuid = {{4, 5}, {}};
	n.queues = {{.section = "0000:00:02.0/virtio-blk", .index = 0, .num = 256, .avail = 4096, .used = 8192, .watched = true},
		    {.section = "0000:00:03.0/virtio-net", .index = 1, .num = 64, .avail = 100 * 4096 - 132, .used = 0, .watched = false}};
	n.live = 3;
	n.disks = {"0000:00:05.0"};
	return n;
}

std::string refused(const Note &n)
{
	try {
		read_note(write_note(n));
		return "";
	} catch (const Error &e) {
		return e.what();
	}
}

TEST(Note, F1_what_was_written_is_read)
{
	const Note was = some_note(), is = read_note(write_note(was));

	EXPECT_EQ(is.vm, "db");
	EXPECT_EQ(is.record.kind, sb::Kind::Started);
	EXPECT_EQ(is.record.flags, sb::rec_image);
	EXPECT_EQ(is.record.epoch, 7u);
	EXPECT_EQ(is.record.boot, 0xb007u);
	EXPECT_EQ(is.record.peer, 0x9ee4u);
	EXPECT_TRUE(is.record.digest == was.record.digest);
	EXPECT_EQ(is.frames, 100u);
	EXPECT_FALSE(is.whole);
	EXPECT_EQ(is.state, was.state);
	EXPECT_EQ(is.taken, was.taken);
	EXPECT_EQ(is.cpuid, was.cpuid);
	ASSERT_EQ(is.queues.size(), 2u);
	EXPECT_EQ(is.queues[0].section, was.queues[0].section);
	EXPECT_EQ(is.queues[1].avail, was.queues[1].avail);
	EXPECT_TRUE(is.queues[0].watched && !is.queues[1].watched);
	EXPECT_EQ(is.live, 3u);
	EXPECT_EQ(is.disks, was.disks);
}

TEST(Note, F3_rings_outside_of_the_image)
{
	const auto with = [](auto &&change) {
		Note n = some_note();
		change(n);
		return refused(n);
	};

	EXPECT_EQ(with([](Note &) {}), "");
	EXPECT_NE(with([](Note &n) { n.queues[1].avail++; }), "");
	EXPECT_NE(with([](Note &n) { n.queues[0].used = 100 * 4096 - 8; }), "");
	EXPECT_NE(with([](Note &n) { n.queues[0].used = ~0ull; }), "");
	EXPECT_NE(with([](Note &n) { n.queues[0].num = 0; }), "");
	EXPECT_NE(with([](Note &n) { n.queues[0].num = 100; }), "");
	EXPECT_NE(with([](Note &n) { n.queues[0].num = 2048; }), "");
	EXPECT_NE(with([](Note &n) { n.frames = 0; }), "");
	EXPECT_NE(with([](Note &n) { n.record.kind = sb::Kind::None; }), "");
}

// Whatever it is: read, or said to be none
TEST(Note, F3_any_byte_may_be_wrong)
{
	std::mt19937 random(7);
	const std::vector<uint8_t> good = write_note(some_note());

	for (size_t i = 0; i < good.size(); i++) {
		std::vector<uint8_t> bad = good;
		bad[i] = static_cast<uint8_t>(random());
		try {
			read_note(bad);
		} catch (const Error &) {
		}
		bad.assign(good.begin(), good.begin() + static_cast<ptrdiff_t>(i));
		EXPECT_THROW(read_note(bad), Error) << i;
	}
}

struct Live : testing::Test {
	std::vector<uint8_t> ring_memory = std::vector<uint8_t>(4096);
	sb::Ring ring{.avail = ring_memory.data(), .used = ring_memory.data() + 2048, .num = 8};
	sb::RingWatch first, second;
	LiveArea area{5, 2};

	std::vector<uint8_t> bytes() const
	{
		const auto *at = static_cast<const uint8_t *>(area.memory());
		return {at, at + area.bytes()};
	}
	void publish() { area.publish({&first, &second}); }
	std::string why(const std::vector<uint8_t> &b, uint64_t number = 5, size_t queues = 2)
	{
		try {
			read_live(b, number, queues);
			return "";
		} catch (const Error &e) {
			return e.what();
		}
	}
	Live()
	{
		EXPECT_TRUE(first.begin(ring, 0) && second.begin(ring, 0));
	}
};

TEST_F(Live, F1_the_last_that_was_published_is_read)
{
	EXPECT_NE(why(bytes()), "");		// nothing yet
	publish();
	EXPECT_EQ(why(bytes()), "");
	// The driver makes head 3 available; the watch has seen it, and a crash kernel goes on from there.
	ring.set_avail_entry(0, 3);
	ring.avail[2] = 1;
	EXPECT_EQ(first.look(ring), sb::Looked::Good);
	publish();
	std::vector<sb::RingWatch> found = read_live(bytes(), 5, 2);
	ring.set_avail_entry(0, 7);		// that entry is not looked at again
	EXPECT_EQ(found[0].look(ring, true), sb::Looked::Good);
	EXPECT_TRUE(found[0].rewrite(ring));
	EXPECT_EQ(ring.avail_entry(0), 3);
	EXPECT_EQ(area.bytes() % 4096, 0u);
}

TEST_F(Live, F3_a_panic_in_the_middle_of_it_finds_the_one_before)
{
	publish();
	const std::vector<uint8_t> before = bytes();
	publish();
	const std::vector<uint8_t> after = bytes();

	// As many of its stores as there may have been; the turn is the last one.
	std::vector<size_t> changed;
	for (size_t i = 0; i < before.size(); i++)
		if (before[i] != after[i])
			changed.push_back(i);
	ASSERT_GT(changed.size(), 8u);
	std::vector<uint8_t> middle = before;
	for (size_t i = changed.size(); i-- > 1;) {
		if (changed[i] < 64)
			continue;	// the head
		middle[changed[i]] = after[changed[i]];
		EXPECT_EQ(why(middle), "");
	}
}

TEST_F(Live, F3_another_area_or_one_that_was_overwritten)
{
	publish();
	EXPECT_NE(why(bytes(), 6), "");
	EXPECT_NE(why(bytes(), 5, 1), "");
	EXPECT_NE(why(bytes(), 5, 1000), "");
	EXPECT_NE(why({}), "");
	std::vector<uint8_t> bad = bytes();
	size_t caught = 0;
	for (size_t i = 0; i < bad.size(); i++) {
		bad = bytes();
		bad[i] ^= 0x10;
		caught += !why(bad).empty();
	}
	EXPECT_GE(caught, 2 * sizeof(sb::RingWatch));
}

// As sysfs has them
class Disk : public testing::Test {
protected:
	using path = std::filesystem::path;

	void SetUp() override { std::filesystem::create_directories(sys); }
	static void file(const path &at, const std::string &text)
	{
		std::filesystem::create_directories(at.parent_path());
		std::ofstream(at) << text << '\n';
	}
	static void link(const path &at, const path &to)
	{
		std::filesystem::create_directories(at.parent_path());
		std::filesystem::create_directories(to);
		std::filesystem::create_directory_symlink(to, at);
	}
	path pci(const std::string &name, const std::string &driver) const
	{
		link(sys / "devices/pci0000:00" / name / "driver", sys / "bus/pci/drivers" / driver);
		return sys / "devices/pci0000:00" / name;
	}
	path controller(const std::string &name, const path &device, const std::string &transport) const
	{
		const path at = device / "nvme" / name;

		file(at / "transport", transport);
		link(at / "device", device);
		return at;
	}
	static std::string why(const path &block)
	{
		try {
			(void)devices_behind(block, "it");
			return "";
		} catch (const Error &e) {
			return e.what();
		}
	}
	Directory dir;
	const path sys = std::filesystem::canonical(dir.path()) / "sys";
	using Names = std::vector<std::string>;
};

TEST_F(Disk, F3_only_kinds_that_are_known)
{
	const std::string file_name = sys / "file";

	file(file_name, "x");
	EXPECT_THROW(disk_devices(file_name, sys), Error);
	EXPECT_THROW(disk_devices(sys / "none", sys), Error);
	EXPECT_THROW(disk_devices("/dev/null", sys), Error);
	// dm, md, loop
	std::filesystem::create_directories(sys / "devices/virtual/block/dm-0");
	EXPECT_NE(why(sys / "devices/virtual/block/dm-0").find("no disk of its own"), std::string::npos);
	// SCSI
	const path lun = pci("0000:00:02.0", "megaraid_sas") / "host0/target0:0:0/0:0:0:0", sda = lun / "block/sda";
	link(lun / "driver", sys / "bus/scsi/drivers/sd");
	link(sda / "device", lun);
	EXPECT_NE(why(sda).find("of the kind sd ends its writes has not been shown"), std::string::npos);
}

TEST_F(Disk, F3_virtio)
{
	const path device = pci("0000:00:03.0", "virtio-pci") / "virtio1", vda = device / "block/vda";

	link(device / "driver", sys / "bus/virtio/drivers/virtio_blk");
	link(vda / "device", device);
	file(vda / "vda1/partition", "1");
	EXPECT_EQ(devices_behind(vda, ""), (Names{"0000:00:03.0"}));
	EXPECT_EQ(devices_behind(vda / "vda1", ""), (Names{"0000:00:03.0"}));
}

TEST_F(Disk, F3_NVMe_all_its_controllers)
{
	const path first = controller("nvme0", pci("0000:00:04.0", "nvme"), "pcie");

	// Without multipath its controller has it.
	link(first / "nvme0n1/device", first);
	file(first / "nvme0n1/nvme0n1p2/partition", "2");
	EXPECT_EQ(devices_behind(first / "nvme0n1", ""), (Names{"0000:00:04.0"}));
	EXPECT_EQ(devices_behind(first / "nvme0n1/nvme0n1p2", ""), (Names{"0000:00:04.0"}));
	// With it, the subsystem.
	const path subsystem = sys / "devices/virtual/nvme-subsystem/nvme-subsys0", disk = subsystem / "nvme0n1";
	link(disk / "device", subsystem);
	link(sys / "class/nvme-subsystem/nvme-subsys0", subsystem);
	link(disk / "slaves/nvme0c0n1", first / "nvme0c0n1");
	EXPECT_NE(why(disk), "") << "no controller";
	link(subsystem / "nvme0", first);
	EXPECT_EQ(devices_behind(disk, ""), (Names{"0000:00:04.0"}));
	link(subsystem / "nvme1", controller("nvme1", pci("0000:00:05.0", "nvme"), "pcie"));
	EXPECT_EQ(devices_behind(disk, ""), (Names{"0000:00:04.0", "0000:00:05.0"}));
	// One way of it by a network
	link(subsystem / "nvme2", controller("nvme2", sys / "devices/virtual/nvme-fabrics/ctl", "tcp"));
	EXPECT_EQ(why(disk), "it: NVMe over tcp: a target may still have what this host has sent");
}

} // namespace

} // namespace redoubt::agent
