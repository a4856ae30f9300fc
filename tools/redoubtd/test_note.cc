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

TEST(Disk, F3_only_kinds_that_are_known)
{
	namespace fs = std::filesystem;
	const fs::path sys = fs::temp_directory_path() / ("redoubt-note-" + std::to_string(getpid()));
	const std::string file = sys / "file";

	fs::create_directories(sys);
	std::ofstream(file) << "x";
	EXPECT_THROW(disk_device(file, sys), Error);
	EXPECT_THROW(disk_device(sys / "none", sys), Error);
	EXPECT_THROW(disk_device("/dev/null", sys), Error);
	fs::remove_all(sys);
}

} // namespace
} // namespace redoubt::agent
