// SPDX-License-Identifier: GPL-2.0
/* The bitmap in front of the tree, against a std::set. */
#include <atomic>
#include <memory>
#include <random>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "frame_bitmap.h"
#include "support.h"

using namespace redoubt;

namespace {

constexpr gfn_t leaf = 32768, low_dir = leaf * 512, dir = low_dir * 512;

TEST(A7_Bitmap, EmptyHasNothing)
{
	FrameBitmap b;

	for (gfn_t gfn : {gfn_t{0}, leaf, low_dir, dir, gfn_limit - 1, gfn_limit, ~gfn_t{0}})
		EXPECT_FALSE(b.test(gfn));
	EXPECT_FALSE(b.any(0, gfn_limit));
	EXPECT_EQ(b.next_set(0), gfn_limit);
	EXPECT_EQ(b.next_set(5, 10), 10u);
	EXPECT_EQ(b.host_bytes(), 0u);
	EXPECT_EQ(b.weight(), 0u);
	EXPECT_EQ(b.clear_range(0, gfn_limit), Status::Ok);
}

TEST(A7_Bitmap, BadInputChangesNothing)
{
	FrameBitmap b;

	ASSERT_EQ(b.set_range(7, 3), Status::Ok);
	const std::pair<gfn_t, u64> bad[] = {
		{0, 0},	      {gfn_limit, 1},	  {gfn_limit - 1, 2}, {~0ull, 1}, {~0ull, 2},
		{1, ~0ull},   {1, gfn_limit},	  {~0ull, ~0ull},	  {7, 0},
	};
	for (const auto &[first, count] : bad) {
		EXPECT_EQ(b.set_range(first, count), Status::Inval);
		EXPECT_EQ(b.clear_range(first, count), Status::Inval);
	}
	EXPECT_EQ(b.weight(), 3u);
	EXPECT_EQ(b.next_set(0), 7u);
	/* Questions may wrap: they are about the frames that exist. */
	EXPECT_TRUE(b.any(8, ~0ull));
	EXPECT_FALSE(b.any(10, ~0ull));
	EXPECT_FALSE(b.any(~0ull, 2));
	EXPECT_FALSE(b.any(8, 0));
	EXPECT_EQ(b.next_set(10, ~0ull), ~0ull);
	EXPECT_EQ(b.next_set(~0ull, 5), 5u);
}

/* Each range ends exactly where it should, on both sides of every kind of border. */
TEST(A7_Bitmap, Borders)
{
	for (gfn_t border : {gfn_t{64}, gfn_t{4096}, leaf, low_dir, dir, 2 * dir, gfn_limit - leaf})
		for (u64 before : {0, 1, 63, 64, 65})
			for (u64 after : {1, 63, 64, 65, 200}) {
				FrameBitmap b;
				const gfn_t first = border - std::min(border, before);
				const u64 count = border + after - first;

				ASSERT_EQ(b.set_range(first, count), Status::Ok);
				EXPECT_EQ(b.weight(), count);
				EXPECT_EQ(b.next_set(0), first);
				EXPECT_TRUE(first == 0 || !b.test(first - 1));
				EXPECT_FALSE(b.test(first + count));
				for (gfn_t g = first; g < first + count; g++)
					ASSERT_TRUE(b.test(g));
				EXPECT_FALSE(b.any(first + count, 1000));
				EXPECT_EQ(b.next_set(first + count), gfn_limit);
				/* a hole in the middle */
				ASSERT_EQ(b.clear_range(border, 1), Status::Ok);
				EXPECT_EQ(b.weight(), count - 1);
				EXPECT_FALSE(b.test(border));
				if (before)
					EXPECT_TRUE(b.test(border - 1));
				if (after > 1)
					EXPECT_EQ(b.next_set(border), border + 1);
				ASSERT_EQ(b.clear_range(0, gfn_limit), Status::Ok);
				EXPECT_EQ(b.weight(), 0u);
				EXPECT_FALSE(b.any(0, gfn_limit));
			}
}

TEST(A7_Bitmap, LastFrame)
{
	FrameBitmap b;

	ASSERT_EQ(b.set_range(gfn_limit - 1, 1), Status::Ok);
	EXPECT_TRUE(b.test(gfn_limit - 1));
	EXPECT_FALSE(b.test(gfn_limit));
	EXPECT_EQ(b.next_set(0), gfn_limit - 1);
	EXPECT_EQ(b.next_set(0, gfn_limit - 1), gfn_limit - 1);
	EXPECT_TRUE(b.any(gfn_limit - 1, 1));
	EXPECT_TRUE(b.any(0, gfn_limit));
	EXPECT_FALSE(b.any(0, gfn_limit - 1));
}

TEST(A7_Bitmap, MatchesStdSet)
{
	/* windows that straddle a word, a leaf, the levels above, and the end */
	for (gfn_t base : {gfn_t{0}, leaf - 500, low_dir - 500, dir - 500, gfn_limit - 1000}) {
		std::mt19937_64 rng(base + 1);
		std::set<gfn_t> model;
		FrameBitmap b;

		for (unsigned i = 0; i < 20000; i++) {
			const gfn_t first = base + rng() % 1000;
			const u64 count = 1 + rng() % std::min<u64>(base + 1000 - first, 1 + rng() % 150);

			switch (rng() % 4) {
			case 0:
				ASSERT_EQ(b.set_range(first, count), Status::Ok);
				for (gfn_t g = first; g < first + count; g++)
					model.insert(g);
				break;
			case 1:
				ASSERT_EQ(b.clear_range(first, count), Status::Ok);
				model.erase(model.lower_bound(first), model.lower_bound(first + count));
				break;
			case 2: {
				auto it = model.lower_bound(first);

				ASSERT_EQ(b.any(first, count), it != model.end() && *it < first + count);
				ASSERT_EQ(b.next_set(first), it == model.end() ? gfn_limit : *it);
				ASSERT_EQ(b.next_set(first, first + count),
					  it == model.end() ? first + count :
							      std::min(*it, first + count));
				break;
			}
			case 3:
				ASSERT_EQ(b.test(first), model.count(first) == 1);
				break;
			}
			ASSERT_EQ(b.weight(), model.size());
		}
	}
}

TEST(A7_Bitmap, EveryFailedAllocationChangesNothing)
{
	const std::size_t blocks = test_alloc_blocks();
	/* over a border of every level: two leaves, two low tables, two high ones */
	const gfn_t first = dir - 10;

	for (long allowed = 0;; allowed++) {
		FrameBitmap b;

		ASSERT_EQ(b.set_range(dir - 1, 1), Status::Ok);
		test_alloc_limit(allowed);
		const Status s = b.set_range(first, 2 * leaf);

		test_alloc_limit(-1);
		if (s == Status::Ok) {
			EXPECT_EQ(allowed, 4); /* two tables and two leaves beyond the border */
			EXPECT_EQ(b.weight(), 2 * leaf);
			break;
		}
		ASSERT_EQ(s, Status::NoMem);
		EXPECT_EQ(b.weight(), 1u);
		EXPECT_EQ(b.next_set(0), dir - 1);
		EXPECT_EQ(b.next_set(dir), gfn_limit);
		EXPECT_EQ(b.set_range(first, 2 * leaf), Status::Ok);
		EXPECT_EQ(b.weight(), 2 * leaf);
	}
	EXPECT_EQ(test_alloc_blocks(), blocks);
}

TEST(A7_Bitmap, HostMemory)
{
	const std::size_t blocks = test_alloc_blocks(), bytes = test_alloc_bytes();
	{
		FrameBitmap b;

		ASSERT_EQ(b.set_range(0, 1000000), Status::Ok);
		EXPECT_LE(b.host_bytes(), 1000000 / 8 + 4 * page_size);
		EXPECT_LE(b.host_bytes(), test_alloc_bytes() - bytes);
		EXPECT_GE(b.host_bytes() + 64 * 16, test_alloc_bytes() - bytes);
		const u64 full = b.host_bytes();

		ASSERT_EQ(b.clear_range(0, 1000000), Status::Ok);
		ASSERT_EQ(b.set_range(0, 1000000), Status::Ok);
		EXPECT_EQ(b.host_bytes(), full);
	}
	EXPECT_EQ(test_alloc_blocks(), blocks);
}

TEST(A7_Bitmap, QuotaHolds)
{
	FrameBitmap b(5 * page_size); /* two tables, three leaves */

	EXPECT_EQ(b.set_range(0, 3 * leaf), Status::Ok);
	EXPECT_EQ(b.set_range(3 * leaf, 1), Status::NoMem);
	EXPECT_EQ(b.set_range(0, gfn_limit), Status::NoMem);
	EXPECT_EQ(b.weight(), 3 * leaf);
	EXPECT_EQ(b.host_bytes(), 5 * page_size);
}

/* Bits that stay set are never seen clear while their neighbours change. */
TEST(A7_Bitmap, ReadersBesideAWriter)
{
	FrameBitmap b;
	std::atomic<bool> stop{false};
	std::atomic<u64> wrong{0}, reads{0};

	for (gfn_t g = 0; g < 4 * leaf; g += 3)
		ASSERT_EQ(b.set_range(g, 1), Status::Ok);
	std::thread reader([&] {
		std::mt19937_64 rng(1);

		while (!stop) {
			const gfn_t g = rng() % (4 * leaf) / 3 * 3;

			wrong += !b.test(g);
			wrong += b.next_set(g) != g;
			wrong += b.test(4 * leaf + rng() % leaf * 2 + 1 + 20 * leaf);
			reads++;
		}
	});
	std::mt19937_64 rng(2);

	for (unsigned i = 0; i < 200000; i++) {
		const gfn_t g = rng() % (4 * leaf) / 3 * 3;

		if (i % 2)
			ASSERT_EQ(b.set_range(g + 1, 2), Status::Ok);
		else
			ASSERT_EQ(b.clear_range(g + 1, 2), Status::Ok);
		if (i % 1000 == 0) /* a leaf that was not there */
			ASSERT_EQ(b.set_range((4 + i / 1000) * leaf * 40, 1), Status::Ok);
	}
	stop = true;
	reader.join();
	EXPECT_EQ(wrong, 0u);
	EXPECT_GT(reads, 1000u);
}

} // namespace
