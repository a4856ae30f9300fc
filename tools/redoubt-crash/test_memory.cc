// SPDX-License-Identifier: GPL-2.0
#include <random>
#include <string>

#include <elf.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "testing.h"

namespace redoubt::crash {
namespace {

constexpr uint64_t top = 0x10000, present = 1, big = 1 << 7, prot_none = 1 << 8, no_execute = 1ull << 63;
constexpr uint64_t frame_bits = 0x000ffffffffff000;

struct Tables : testing::Test {
	Frames memory;
	uint64_t next = top + page_bytes;

	// Tables down to @level, the entry there
	void map(uint64_t address, unsigned int level, uint64_t entry, unsigned int levels = 4)
	{
		uint64_t table = top;

		for (unsigned int i = levels - 1; i > level; i--) {
			const uint64_t at = table + (address >> (12 + 9 * i) & 511) * 8;
			uint64_t e = 0;
			memory.read(at, &e, sizeof(e));
			if (!e) {
				e = next | present;
				memory.put(next, uint64_t{0});
				next += page_bytes;
				memory.put(at, e);
			}
			table = e & frame_bits;
		}
		memory.put(table + (address >> (12 + 9 * level) & 511) * 8, entry);
	}
};

TEST_F(Tables, F1_small_big_and_huge_pages)
{
	map(0x7f0000001000, 0, 0x1234000 | present | no_execute);
	map(0x7f0000200000, 1, 0x4000000 | present | big);
	map(0x7f0040000000, 2, 0x80000000 | present | big);
	Space space(memory, top | 0xfff, 4);	// the low bits are flags
	EXPECT_EQ(space.physical(0x7f0000001abc), 0x1234abcu);
	EXPECT_EQ(space.physical(0x7f00002fffff), 0x40fffffu);
	EXPECT_EQ(space.physical(0x7f0055555555), 0x95555555u);
	EXPECT_FALSE(space.physical(0x7f0000002000));
	EXPECT_FALSE(space.physical(0x7e0000001000));
}

TEST_F(Tables, F1_five_levels_and_the_kernels_half)
{
	map(0xff11000000001000, 0, 0x1234000 | present, 5);
	map(0x00ab000000001000, 0, 0x5678000 | present, 5);
	Space space(memory, top, 5);
	EXPECT_EQ(space.physical(0xff11000000001004), 0x1234004u);
	EXPECT_EQ(space.physical(0x00ab000000001004), 0x5678004u);
}

TEST_F(Tables, F3_what_is_not_there_is_lost)
{
	map(0x1000, 0, 0x55000 & ~present);		// swapped out
	map(0x2000, 0, 0);
	map(0x200000, 1, 0x400000 | big);		// a big page under way
	map(0x3000, 0, (~uint64_t{0x77000} & frame_bits) | prot_none);
	Space space(memory, top, 4);
	EXPECT_FALSE(space.physical(0x1000));
	EXPECT_FALSE(space.physical(0x2000));
	EXPECT_FALSE(space.physical(0x200000));
	EXPECT_EQ(space.physical(0x3010), 0x77010u);	// there, but not to be touched: NUMA balancing
	EXPECT_FALSE(space.physical(0x800000000000));	// not canonical
	EXPECT_FALSE(space.physical(0xffff7fffffffffff));
}

TEST_F(Tables, F3_a_size_that_no_page_has_is_refused)
{
	map(0x8000000000, 3, 0x1000000 | present | big);
	Space space(memory, top, 4);
	EXPECT_FALSE(space.physical(0x8000000000));
}

TEST_F(Tables, F3_tables_that_point_at_themselves_end)
{
	Frames::Frame self{};
	for (size_t i = 0; i < page_bytes; i += 8) {
		const uint64_t e = top | present;
		memcpy(&self[i], &e, sizeof(e));
	}
	memory.frames[top / page_bytes] = self;
	Space space(memory, top, 4);
	EXPECT_EQ(space.physical(0x123456789abc), top | 0xabc);
	EXPECT_LE(memory.reads, 4u);
}

TEST_F(Tables, F3_any_tables_and_any_address_end)
{
	std::mt19937_64 random(4711);
	for (uint64_t f = 0; f < 8; f++)
		for (size_t i = 0; i < page_bytes; i += 8) {
			// Some of it near, some of it anywhere
			const uint64_t e = random() % 3 ? ((random() % 10) << 12 | (random() & 0x1ff)) : random();
			memory.put(top + f * page_bytes + i, e);
		}
	unsigned int found = 0;
	for (int i = 0; i < 20000; i++) {
		Space space(memory, top + random() % 8 * page_bytes, 4 + i % 2);
		uint8_t bytes[100];
		found += space.read(random() % 2 ? random() : random() >> 17, bytes, sizeof(bytes));
	}
	EXPECT_GE(found, 0u);
}

TEST_F(Tables, F1_a_read_over_pages_that_are_apart)
{
	map(0x1000, 0, 0x90000 | present);
	map(0x2000, 0, 0x50000 | present);
	memory.write(0x90ffc, "abcd", 4);
	memory.write(0x50000, "efgh", 4);
	Space space(memory, top, 4);
	char got[9] = {};
	EXPECT_TRUE(space.read(0x1ffc, got, 8));
	EXPECT_STREQ(got, "abcdefgh");
	EXPECT_FALSE(space.read(0x2ffc, got, 8));
}

struct CoreFile : testing::Test {
	std::string path = testing::TempDir() + "vmcore." + std::to_string(getpid());

	~CoreFile() override { unlink(path.c_str()); }
	void write(const std::string &bytes)
	{
		FILE *f = fopen(path.c_str(), "wb");
		fwrite(bytes.data(), 1, bytes.size(), f);
		fclose(f);
	}
	static std::string core(uint64_t phnum = 3)
	{
		Elf64_Ehdr h{};
		Elf64_Phdr p[3]{};
		Elf64_Nhdr n{5, 4, NT_PRSTATUS};
		std::string notes;

		memcpy(h.e_ident, ELFMAG, SELFMAG);
		h.e_ident[EI_CLASS] = ELFCLASS64;
		h.e_machine = EM_X86_64;
		h.e_phoff = sizeof(h);
		h.e_phnum = static_cast<uint16_t>(phnum);
		h.e_phentsize = sizeof(p[0]);
		for (int i = 0; i < 2; i++)
			notes += std::string(reinterpret_cast<char *>(&n), sizeof(n)) + std::string("CORE\0\0\0\0", 8) + "regs";
		p[0] = {PT_NOTE, 0, sizeof(h) + sizeof(p), 0, 0, notes.size(), 0, 0};
		p[1] = {PT_LOAD, 0, p[0].p_offset + notes.size(), 0, 0x1000, 8, 8, 0};
		p[2] = {PT_LOAD, 0, p[1].p_offset + 8, 0, 0x1008, 8, 8, 0};
		return std::string(reinterpret_cast<char *>(&h), sizeof(h)) + std::string(reinterpret_cast<char *>(p), sizeof(p)) +
		       notes + "01234567abcdefgh";
	}
};

TEST_F(CoreFile, F1_segments_and_notes)
{
	write(core());
	Vmcore memory(path);
	char got[9] = {};
	EXPECT_EQ(memory.stopped_cpus(), 2u);
	EXPECT_TRUE(memory.read(0x1004, got, 8));	// over the border of two
	EXPECT_STREQ(got, "4567abcd");
	EXPECT_FALSE(memory.read(0xfff, got, 8));
	EXPECT_FALSE(memory.read(0x100c, got, 8));
	EXPECT_FALSE(memory.read(~0ull - 3, got, 8));
}

TEST_F(CoreFile, F3_a_file_that_is_none_is_refused)
{
	EXPECT_THROW(Vmcore{path}, std::runtime_error);
	write("");
	EXPECT_THROW(Vmcore{path}, std::runtime_error);
	write(core().substr(0, 100));
	EXPECT_THROW(Vmcore{path}, std::runtime_error);
	write(core(60000));
	EXPECT_THROW(Vmcore{path}, std::runtime_error);
	write(core().substr(0, core().size() - 4));	// its last bytes are not there
	Vmcore memory(path);
	char got[8];
	EXPECT_FALSE(memory.read(0x1008, got, 8));
}

TEST_F(CoreFile, F3_any_byte_of_it_may_be_wrong)
{
	const std::string good = core();
	for (size_t i = 0; i < good.size() - 16; i++) {
		std::string bad = good;
		bad[i] = static_cast<char>(bad[i] ^ 0xff);
		write(bad);
		try {
			Vmcore memory(path);
			char got[16];
			memory.read(0x1000, got, sizeof(got));
		} catch (const std::runtime_error &) {
		}
	}
}

} // namespace
} // namespace redoubt::crash
