// SPDX-License-Identifier: GPL-2.0
#include <random>

#include <gtest/gtest.h>
#include <zlib.h>

#include "root.h"
#include "testing.h"

namespace redoubt::crash {
namespace {

constexpr uint64_t at_root = 0x5000, at_vm = 0x23408, at_cpus = 0x8000, at_cpu = 0x9000, at_note = 0x40000, at_live = 0x60000;

uint32_t sum(const void *data, size_t bytes)
{
	return static_cast<uint32_t>(crc32_z(0, static_cast<const Bytef *>(data), bytes));
}

// As the module leaves it: a VM of two vCPUs and two ranges, with a note of a page and a bit
struct Left : testing::Test {
	Frames memory;
	rdt_crash_root root{};
	std::vector<uint8_t> record, note;

	Left()
	{
		root.magic = RDT_CRASH_ROOT_MAGIC;
		root.version = RDT_CRASH_VERSION;
		root.self = at_root;
		root.levels = 4;
		root.nr_cpus = 3;
		root.cpus = at_cpus;
		root.cpu_bytes = sizeof(rdt_crash_cpu) + 1024;
		strcpy(root.release, "6.1.0-test");
		root.vms[7] = at_vm;
		for (uint64_t i = 0; i < 3; i++) {
			memory.put(at_cpus + i * 8, i == 1 ? 0 : at_cpu + i * 2 * page_bytes);
			rdt_crash_cpu c{};
			c.magic = RDT_CRASH_CPU_MAGIC;
			c.cpu = static_cast<uint32_t>(i);
			c.online = 2;
			memory.put(at_cpu + i * 2 * page_bytes, c);
			memory.write(at_cpu + i * 2 * page_bytes + sizeof(c), std::vector<uint8_t>(1024).data(), 1024);
		}
		note.resize(page_bytes + 10);
		for (size_t i = 0; i < note.size(); i++)
			note[i] = static_cast<uint8_t>(i * 13);
		memory.write(at_note, note.data(), page_bytes);
		memory.write(at_note + 0x7000, note.data() + page_bytes, 10);
		memory.write(at_live, std::vector<uint8_t>(page_bytes, 0x5a).data(), page_bytes);
		put_record();
		put_root();
	}
	void put_root()
	{
		root.crc = 0;
		root.crc = sum(&root, RDT_CRASH_ROOT_HEAD);
		memory.put(at_root, root);
	}
	void put_record(uint32_t nr_vcpus = 2, uint32_t nr_ranges = 2)
	{
		rdt_crash_vm head{};
		const uint64_t vcpus[] = {0xffff888000001000, 0xffff888000002000}, pages[] = {at_note, at_note + 0x7000, at_live};
		const rdt_crash_range ranges[] = {{0, 16, 0x7f0000000000}, {0x40000, 8, 0x7f0100000000}};

		record.assign(sizeof(head) + sizeof(vcpus) + sizeof(ranges) + sizeof(pages), 0);
		head.magic = RDT_CRASH_VM_MAGIC;
		head.version = RDT_CRASH_VERSION;
		head.self = at_vm;
		head.bytes = record.size();
		memcpy(head.uuid, "redoubt standby", 16);
		head.pgd = 0x77000;
		head.nr_vcpus = nr_vcpus;
		head.nr_ranges = nr_ranges;
		head.note_bytes = static_cast<uint32_t>(note.size());
		head.note_crc = sum(note.data(), note.size());
		head.live_bytes = page_bytes;
		memcpy(record.data(), &head, sizeof(head));
		memcpy(&record[sizeof(head)], vcpus, sizeof(vcpus));
		memcpy(&record[sizeof(head) + sizeof(vcpus)], ranges, sizeof(ranges));
		memcpy(&record[sizeof(head) + sizeof(vcpus) + sizeof(ranges)], pages, sizeof(pages));
		seal();
	}
	// With a sum that is right, whatever is in it
	void seal()
	{
		memset(&record[offsetof(rdt_crash_vm, crc)], 0, 4);
		const uint32_t crc = sum(record.data(), record.size());
		memcpy(&record[offsetof(rdt_crash_vm, crc)], &crc, 4);
		memory.write(at_vm, record.data(), record.size());
	}
};

TEST_F(Left, F1_a_vm_is_found)
{
	const Root r = read_root(memory, at_root);
	ASSERT_EQ(r.vms.size(), 1u);
	EXPECT_TRUE(r.refused.empty());
	EXPECT_EQ(r.release, "6.1.0-test");
	EXPECT_EQ(r.vms[0].name(), "7265646f-7562-7420-7374-616e64627900");
	EXPECT_EQ(r.vms[0].vcpus, (std::vector<uint64_t>{0xffff888000001000, 0xffff888000002000}));
	ASSERT_EQ(r.vms[0].ranges.size(), 2u);
	EXPECT_EQ(r.vms[0].ranges[1].hva, 0x7f0100000000u);
	EXPECT_EQ(r.vms[0].note, note);
	EXPECT_EQ(r.vms[0].live, std::vector<uint8_t>(page_bytes, 0x5a));
	EXPECT_EQ(r.cpus.size(), 2u);
	EXPECT_TRUE(r.all_stopped());
}

TEST_F(Left, F3_a_cpu_that_left_nothing_has_not_stopped)
{
	memory.put(at_cpu, uint64_t{0});
	EXPECT_FALSE(read_root(memory, at_root).all_stopped());
	memory.put(at_cpu + 4 * page_bytes, uint64_t{0});
	EXPECT_FALSE(read_root(memory, at_root).all_stopped());
}

TEST_F(Left, F3_no_root)
{
	EXPECT_THROW(read_root(memory, 0), std::runtime_error);
	EXPECT_THROW(read_root(memory, at_root + 8), std::runtime_error);
	EXPECT_THROW(read_root(memory, ~0ull << 12), std::runtime_error);
	root.version = RDT_CRASH_VERSION + 1;
	put_root();
	EXPECT_THROW(read_root(memory, at_root), std::runtime_error);
}

TEST_F(Left, F3_any_bit_of_the_roots_head_may_be_wrong)
{
	for (size_t i = 0; i < RDT_CRASH_ROOT_HEAD; i++) {
		rdt_crash_root bad = root;
		reinterpret_cast<uint8_t *>(&bad)[i] ^= static_cast<uint8_t>(1 << i % 8);
		memory.put(at_root, bad);
		EXPECT_THROW(read_root(memory, at_root), std::runtime_error) << i;
	}
}

TEST_F(Left, F3_any_bit_of_a_record_or_its_note_may_be_wrong)
{
	for (size_t i = 0; i < record.size(); i++) {
		std::vector<uint8_t> bad = record;
		bad[i] = static_cast<uint8_t>(bad[i] ^ 1 << i % 8);
		memory.write(at_vm, bad.data(), bad.size());
		const Root r = read_root(memory, at_root);
		EXPECT_TRUE(r.vms.empty()) << i;
		EXPECT_EQ(r.refused.size(), 1u) << i;
	}
	memory.write(at_vm, record.data(), record.size());
	memory.put(at_note + 0x7009, uint8_t{0});
	EXPECT_TRUE(read_root(memory, at_root).vms.empty());
}

TEST_F(Left, F3_counts_that_are_sealed_and_lie)
{
	for (const auto &[vcpus, ranges] : {std::pair<uint32_t, uint32_t>{~0u, 2}, {2, ~0u}, {3, 2}, {1u << 31, 1u << 31}}) {
		put_record(vcpus, ranges);
		EXPECT_EQ(read_root(memory, at_root).refused.size(), 1u);
	}
	put_record();
	const size_t range = sizeof(rdt_crash_vm) + 16;
	for (const auto &[at, value] : {std::pair<size_t, uint64_t>{8, 0}, {8, 1ull << 36}, {16, 1}, {16, 1ull << 57}, {0, ~0ull}}) {
		put_record();
		memcpy(&record[range + at], &value, 8);
		seal();
		EXPECT_EQ(read_root(memory, at_root).refused.size(), 1u);
	}
}

TEST_F(Left, F3_one_vm_less_is_not_all)
{
	root.vms[200] = 0x666000;	// nothing there
	put_root();
	const Root r = read_root(memory, at_root);
	EXPECT_EQ(r.vms.size(), 1u);
	EXPECT_EQ(r.refused.size(), 1u);
}

TEST_F(Left, F3_any_root_that_is_sealed)
{
	std::mt19937_64 random(11);
	for (int i = 0; i < 300; i++) {
		rdt_crash_root was = root;
		root.nr_cpus = static_cast<uint32_t>(random() >> random() % 64);
		root.cpu_bytes = random() >> random() % 64;
		root.cpus = random() % 2 ? at_cpus : random();
		root.vms[random() % RDT_CRASH_MAX_VMS] = random() >> random() % 64;
		put_root();
		try {
			read_root(memory, at_root);
		} catch (const std::runtime_error &) {
		}
		root = was;
	}
}

} // namespace
} // namespace redoubt::crash
