// SPDX-License-Identifier: GPL-2.0
/* F3, F4: what a host has promised, on a disk that tears and forgets. */
#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "standby/journal.h"

using namespace redoubt;
using namespace redoubt::standby;

namespace {

Record record(u64 n)
{
	Record r{.kind = Kind(1 + n % 9), .flags = u8(n % 8), .epoch = n, .boot = n * 7 + 1, .peer = n % 3, .digest = {}};

	for (unsigned i = 0; i < digest_bytes; i++)
		r.digest.byte[i] = u8(n + i);
	return r;
}

bool same(const Record &a, const Record &b)
{
	return a.kind == b.kind && a.flags == b.flags && a.epoch == b.epoch && a.boot == b.boot && a.peer == b.peer &&
	       a.digest == b.digest;
}

struct File {
	std::vector<u8> bytes = std::vector<u8>(Journal::file_bytes);
	Journal journal;

	u64 write(u64 n)
	{
		u8 rec[Journal::record_bytes];
		const u64 at = journal.next(record(n), rec);

		EXPECT_LE(at + sizeof(rec), bytes.size());
		std::memcpy(bytes.data() + at, rec, sizeof(rec));
		return at;
	}
	Status load(Journal &j) const
	{
		return j.load(bytes.data(), bytes.size());
	}
};

TEST(StandbyJournal, Crc32cIsCastagnoli)
{
	/* RFC 3720, B.4. */
	std::array<u8, 32> zero{}, ones, up;
	for (unsigned i = 0; i < 32; i++) {
		ones[i] = 0xff;
		up[i] = u8(i);
	}
	EXPECT_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
	EXPECT_EQ(crc32c(0, zero.data(), 32), 0x8a9136aau);
	EXPECT_EQ(crc32c(0, ones.data(), 32), 0x62a8ab43u);
	EXPECT_EQ(crc32c(0, up.data(), 32), 0x46dd794eu);
	EXPECT_EQ(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}

TEST(StandbyJournal, NoFileIsNoneAndRubbishIsCorrupt)
{
	Journal j;
	std::vector<u8> f(Journal::file_bytes);

	EXPECT_EQ(j.load(nullptr, 0), Status::None);
	EXPECT_EQ(j.load(f.data(), f.size()), Status::None);
	EXPECT_EQ(j.load(f.data(), 10), Status::None);
	f[5000 % f.size()] = 1;
	EXPECT_EQ(j.load(f.data(), f.size()), Status::Corrupt);
	std::memset(f.data(), 0xff, f.size());
	EXPECT_EQ(j.load(f.data(), f.size()), Status::Corrupt);
}

TEST(StandbyJournal, TheLastCountsAlsoWhenSequenceNumbersWrap)
{
	File f;

	for (u64 n = 1; n < 70000; n++) {
		f.write(n);
		if (n % 61 != 0 && n != 65535 && n != 65536 && n != 65537)
			continue;
		Journal j;
		ASSERT_EQ(f.load(j), Status::Ok);
		ASSERT_TRUE(same(j.last(), record(n))) << n;
	}
	/* It goes on where the one before it was. */
	Journal j;
	ASSERT_EQ(f.load(j), Status::Ok);
	f.journal = j;
	f.write(70000);
	ASSERT_EQ(f.load(j), Status::Ok);
	EXPECT_TRUE(same(j.last(), record(70000)));
}

TEST(StandbyJournal, ATornRecordLeavesTheOneBefore)
{
	std::mt19937 rnd(1);

	for (u64 before = 1; before < 140; before++) {
		File f;
		for (u64 n = 1; n <= before; n++)
			f.write(n);
		const std::vector<u8> old = f.bytes;
		const u64 at = f.write(before + 1);
		const std::vector<u8> done = f.bytes;

		/* Cut at any byte, from either side; the rest is what lay there, or noise. */
		for (unsigned cut = 0; cut <= Journal::record_bytes; cut++)
			for (unsigned how = 0; how < 3; how++) {
				f.bytes = how == 1 ? done : old;
				for (unsigned i = 0; i < Journal::record_bytes; i++) {
					if (how == 2 && i >= cut)
						f.bytes[at + i] = u8(rnd());
					else if (how == 1 ? i >= Journal::record_bytes - cut : i < cut)
						f.bytes[at + i] = how == 1 ? old[at + i] : done[at + i];
				}
				Journal j;
				const bool whole = std::memcmp(&f.bytes[at], &done[at], Journal::record_bytes) == 0;
				ASSERT_EQ(f.load(j), Status::Ok);
				ASSERT_TRUE(same(j.last(), record(whole ? before + 1 : before))) << before << " " << cut;
			}
	}
}

TEST(StandbyJournal, AnyBitThatFlipsUndoesItsRecord)
{
	File f;

	f.write(1);
	f.write(2);
	for (unsigned bit = 0; bit < Journal::record_bytes * 8; bit++) {
		File g = f;
		Journal j;
		g.bytes[Journal::record_bytes + bit / 8] ^= u8(1u << bit % 8);
		ASSERT_EQ(g.load(j), Status::Ok);
		ASSERT_TRUE(same(j.last(), record(1))) << bit;
	}
}

/* A newer agent has been here: what it promised last is not known, and the record before it is no answer. */
TEST(StandbyJournal, ALastRecordOfANewerVersionIsCorrupt)
{
	const auto reseal = [](File &f, u64 at, unsigned byte, u8 value) {
		u8 *p = f.bytes.data() + at;

		p[byte] = value;
		const u32 crc = crc32c(0x42534452, p + 4, Journal::record_bytes - 4);
		for (unsigned i = 0; i < 4; i++)
			p[i] = u8(crc >> 8 * i);
	};
	for (const bool last : {true, false})
		for (unsigned n = 2; n < 140; n++)
			for (const bool kind : {true, false}) {
				File f;
				Journal j;
				u64 at = 0;
				for (u64 i = 1; i <= n; i++) {
					const u64 here = f.write(i);
					if (i == n || (!last && i == n - 1))
						at = i == n && !last ? at : here;
				}
				reseal(f, at, kind ? 5 : 4, kind ? 15 : 2);
				ASSERT_EQ(f.load(j), last ? Status::Corrupt : Status::Ok) << n;
			}
}

TEST(StandbyJournal, AShortFileIsReadAsFarAsItGoes)
{
	File f;
	Journal j;

	for (u64 n = 1; n <= 3; n++)
		f.write(n);
	EXPECT_EQ(j.load(f.bytes.data(), 3 * Journal::record_bytes), Status::Ok);
	EXPECT_TRUE(same(j.last(), record(3)));
	EXPECT_EQ(j.load(f.bytes.data(), 3 * Journal::record_bytes - 1), Status::Ok);
	EXPECT_TRUE(same(j.last(), record(2)));
	EXPECT_EQ(j.load(f.bytes.data(), 20), Status::Corrupt);
}

TEST(StandbyJournal, BootsAreNamedByTheirIdAndNeverZero)
{
	u8 a[16] = {}, b[16] = {};

	EXPECT_NE(boot_number(a), 0u);
	for (unsigned i = 0; i < 16; i++)
		a[i] = u8(i * 37 + 1);
	for (unsigned i = 0; i < 128; i++) {
		std::memcpy(b, a, 16);
		b[i / 8] ^= u8(1u << i % 8);
		EXPECT_NE(boot_number(a), boot_number(b));
	}
}

} // namespace
