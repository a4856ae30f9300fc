// SPDX-License-Identifier: GPL-2.0
#include <cstring>

#include <cpuid.h>
#include <gtest/gtest.h>

#include "layout.h"
#include "vcpu.h"

namespace redoubt::crash {
namespace {

TEST(Layout, F1_what_was_printed_is_read)
{
	const Layout l = Layout::parse("release 6.1.0\nkvm 0 39848 0 0\nkvm.arch.x 12 8 3 1\n");
	EXPECT_EQ(l.release(), "6.1.0");
	EXPECT_EQ(l.at("kvm.arch.x").offset, 12u);
	EXPECT_EQ(l.at("kvm.arch.x").bit, 3u);
	EXPECT_EQ(Layout::parse(l.text()).text(), l.text());
	EXPECT_TRUE(l.has("kvm"));
	EXPECT_FALSE(l.has("kvm.y"));
	EXPECT_THROW(l.at("kvm.y"), std::runtime_error);
}

TEST(Layout, F3_a_file_that_is_none)
{
	for (const char *text : {"", "release", "x 6.1\n", "release 6\nkvm 0\n", "release 6\nkvm 0 9999999 0 0\n", "release 6\nkvm -1 8 0 0\n", "release 6\nkvm 0 8\n",
				 "release 6\nkvm 0 4 31 2\n"})
		EXPECT_THROW(Layout::parse(text), std::runtime_error) << text;
}

struct Xsave : testing::Test {
	std::vector<uint8_t> area = std::vector<uint8_t>(4096);
	unsigned int ymm_at = 0, ymm_bytes = 0;

	Xsave()
	{
		unsigned int c, d;
		if (__get_cpuid_max(0, nullptr) >= 0xd)
			__cpuid_count(0xd, 2, ymm_bytes, ymm_at, c, d);
		for (size_t i = 0; i < 512; i++)
			area[i] = static_cast<uint8_t>(i * 3 + 1);
	}
	void head(uint64_t have, uint64_t layout)
	{
		memcpy(&area[512], &have, 8);
		memcpy(&area[520], &layout, 8);
	}
	static uint64_t get(const std::vector<uint8_t> &v, size_t at)
	{
		uint64_t x;
		memcpy(&x, &v[at], 8);
		return x;
	}
};

TEST_F(Xsave, F1_legacy_parts)
{
	head(3, 0);
	const auto out = uabi_xsave(area, 3, 0, 4096);
	EXPECT_EQ(get(out, 512), 3u);
	EXPECT_EQ(memcmp(&out[0], &area[0], 24), 0);
	EXPECT_EQ(memcmp(&out[24], &area[24], 8), 0);
	EXPECT_EQ(memcmp(&out[32], &area[32], 384), 0);
}

TEST_F(Xsave, F1_a_kernel_without_xsave)
{
	const std::vector<uint8_t> fxsave(area.begin(), area.begin() + 512);
	const auto out = uabi_xsave(fxsave, 3, 0, 4096);
	EXPECT_EQ(get(out, 512), 3u);
	EXPECT_EQ(memcmp(&out[0], &area[0], 24), 0);
	EXPECT_EQ(memcmp(&out[160], &area[160], 256), 0);
	EXPECT_EQ(uabi_xsave(fxsave, 0x203, 7, 4096), out);
	EXPECT_EQ(uabi_xsave(fxsave, 0, 0, 4096), out);
}

TEST_F(Xsave, F1_a_part_in_its_initial_state)
{
	head(0, 0);
	const auto out = uabi_xsave(area, 3, 0, 4096);
	EXPECT_EQ(get(out, 512), 0u);
	EXPECT_EQ(out[0], 0x7f);
	EXPECT_EQ(out[1], 0x03);
	EXPECT_EQ(out[24], 0x80);
	EXPECT_EQ(out[25], 0x1f);
	EXPECT_EQ(get(out, 160), 0u);
}

TEST_F(Xsave, F1_standard_and_compacted_alike)
{
	if (!ymm_at)
		GTEST_SKIP() << "this CPU has no AVX";
	const std::vector<uint8_t> ymm(ymm_bytes, 0x5a);
	head(7, 0);
	memcpy(&area[ymm_at], ymm.data(), ymm.size());
	const auto standard = uabi_xsave(area, 7, 0, 4096);
	EXPECT_EQ(memcmp(&standard[ymm_at], ymm.data(), ymm.size()), 0);
	memset(&area[ymm_at], 0, ymm.size());
	head(7, 1ull << 63 | 7);
	memcpy(&area[576], ymm.data(), ymm.size());
	EXPECT_EQ(uabi_xsave(area, 7, 0, 4096), standard);
	// What the guest may not have is not told.
	EXPECT_EQ(get(uabi_xsave(area, 3, 0, 4096), 512), 3u);
}

TEST_F(Xsave, F3_areas_that_contradict_themselves)
{
	EXPECT_THROW(uabi_xsave(std::vector<uint8_t>(500), 3, 0, 4096), std::runtime_error);
	EXPECT_THROW(uabi_xsave(area, 3, 0, 500), std::runtime_error);
	head(7, 1ull << 63 | 3);
	EXPECT_THROW(uabi_xsave(area, 7, 0, 4096), std::runtime_error);
	if (!ymm_at)
		return;
	head(7, 0);
	area.resize(600);
	EXPECT_THROW(uabi_xsave(area, 7, 0, 4096), std::runtime_error);
	area.resize(4096);
	EXPECT_THROW(uabi_xsave(area, 7, 0, 600), std::runtime_error);
}

} // namespace
} // namespace redoubt::crash
