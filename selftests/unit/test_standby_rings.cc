// SPDX-License-Identifier: GPL-2.0
/*
 * F2: a device that died at any instruction, completing in any order, leaves rings from which each request that was not
 * given back is found once, and no other. A driver and a device in software; whoever looks, looks between two of their steps.
 */
#include <algorithm>
#include <deque>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "standby/rings.h"

using namespace redoubt;
using namespace redoubt::standby;

namespace {

struct Random {
	explicit Random(u32 seed) : engine(seed)
	{
	}
	u32 operator()()
	{
		return static_cast<u32>(engine());
	}
	std::mt19937 engine;
};

struct Queue {
	explicit Queue(u32 n) : num(n), avail(Ring::avail_bytes(n) / 2), used(Ring::used_bytes(n) / 4)
	{
		for (u32 i = 0; i < n; i++)
			free.push_back(static_cast<u16>(i));
	}
	Ring ring()
	{
		return {.avail = reinterpret_cast<u8 *>(avail.data()), .used = reinterpret_cast<u8 *>(used.data()), .num = num};
	}
	u8 *a()
	{
		return reinterpret_cast<u8 *>(avail.data());
	}
	u8 *u()
	{
		return reinterpret_cast<u8 *>(used.data());
	}
	/* The driver: an entry, then the index, which may come a step later. Heads are used again at once, the last first, or not. */
	void write_avail(Random &rng)
	{
		const size_t at = rng() % 3 != 0 ? free.size() - 1 : rng() % free.size();

		half_avail = free[at];
		free.erase(free.begin() + static_cast<long>(at));
		put16(a() + 4 + 2 * (avail_idx % num), half_avail);
		in_avail = true;
	}
	void publish_avail()
	{
		outstanding.insert(half_avail);
		order.push_back(half_avail);
		put16(a() + 2, ++avail_idx);
		in_avail = false;
	}
	/* The device: takes, works on several, gives one of them back, in two steps likewise. */
	void take()
	{
		work.push_back(get16(a() + 4 + 2 * (taken++ % num)));
	}
	void write_used(Random &rng)
	{
		const size_t at = in_order ? 0 : rng() % work.size();

		half_used = work[at];
		work.erase(work.begin() + static_cast<long>(at));
		put32(u() + 4 + 8 * (used_idx % num), half_used);
		in_used = true;
	}
	void publish_used()
	{
		put16(u() + 2, ++used_idx);
		outstanding.erase(half_used);
		order.erase(std::find(order.begin(), order.end(), half_used));
		/* The driver may see it at once. */
		free.push_back(half_used);
		in_used = false;
	}
	void step(Random &rng)
	{
		switch (rng() % 4) {
		case 0:
			if (in_avail)
				publish_avail();
			else if (!free.empty() && outstanding.size() < limit)
				write_avail(rng);
			return;
		case 1:
			if (taken != avail_idx)
				take();
			return;
		default:
			if (in_used)
				publish_used();
			else if (!work.empty() && (work.size() > lazy || rng() % 4 == 0))
				write_used(rng);
			return;
		}
	}
	/* The device stands and has given back all that it took: what a refresh waits for. */
	void drain(Random &rng)
	{
		if (in_used)
			publish_used();
		while (!work.empty()) {
			write_used(rng);
			publish_used();
		}
	}

	u32 num;
	std::vector<u16> avail;
	std::vector<u32> used;
	std::vector<u16> free, work;
	std::deque<u16> order;
	std::set<u16> outstanding;
	u16 avail_idx = 0, used_idx = 0, taken = 0, half_avail = 0, half_used = 0;
	bool in_avail = false, in_used = false, in_order = false;
	size_t limit = ~size_t{0}, lazy = 3;
};

/* What another device would take that begins at used.idx. */
std::vector<u16> taken_anew(Queue &q)
{
	std::vector<u16> out;

	for (u16 at = q.ring().used_idx(); at != q.ring().avail_idx(); at++)
		out.push_back(q.ring().avail_entry(at));
	return out;
}

void expect_exact(Queue &q, const RingWatch &watch)
{
	ASSERT_TRUE(watch.rewrite(q.ring()));
	const std::vector<u16> again = taken_anew(q);
	EXPECT_EQ(std::set<u16>(again.begin(), again.end()), q.outstanding);
	EXPECT_EQ(again.size(), q.outstanding.size());
	/* The oldest first */
	EXPECT_TRUE(std::equal(again.begin(), again.end(), q.order.begin(), q.order.end()));
}

TEST(StandbyRings, F2KilledAnywhereOutOfOrder)
{
	Random rng(4711);

	for (unsigned run = 0; run < 3000; run++) {
		Queue q(1u << (1 + rng() % 7));
		RingWatch watch;

		q.lazy = rng() % 8;
		q.limit = 1 + rng() % q.num;
		q.avail_idx = q.used_idx = q.taken = static_cast<u16>(rng());	/* indices go round */
		put16(q.a() + 2, q.avail_idx);
		put16(q.u() + 2, q.used_idx);
		for (unsigned i = rng() % 200; i; i--)
			q.step(rng);
		q.drain(rng);
		ASSERT_TRUE(watch.begin(q.ring(), q.taken));
		for (unsigned looks = rng() % 20; looks; looks--) {
			/* Less than the ring has room for, on either side */
			for (unsigned i = rng() % q.num; i; i--)
				q.step(rng);
			ASSERT_EQ(watch.look(q.ring()), Looked::Good);
		}
		for (unsigned i = rng() % q.num; i; i--)
			q.step(rng);
		/* SIGKILL: between any two stores of either */
		ASSERT_EQ(watch.look(q.ring(), true), Looked::Good);
		expect_exact(q, watch);
	}
}

TEST(StandbyRings, F2InOrderNeedsNobodyWhoLooks)
{
	Random rng(1);

	for (unsigned run = 0; run < 500; run++) {
		Queue q(16);

		q.in_order = true;
		for (unsigned i = 500 + rng() % 500; i; i--)
			q.step(rng);
		const std::vector<u16> again = taken_anew(q);
		EXPECT_TRUE(std::equal(again.begin(), again.end(), q.order.begin(), q.order.end()));
	}
}

/* Out of order, used.idx alone is not enough: if this does not fail, the tests above show nothing. */
TEST(StandbyRings, OutOfOrderIsNotInOrder)
{
	Random rng(2);
	unsigned wrong = 0;

	for (unsigned run = 0; run < 500; run++) {
		Queue q(16);

		for (unsigned i = 500 + rng() % 500; i; i--)
			q.step(rng);
		const std::vector<u16> again = taken_anew(q);
		wrong += std::set<u16>(again.begin(), again.end()) != q.outstanding;
	}
	EXPECT_GT(wrong, 100u);
}

TEST(StandbyRings, F2TooManyBetweenTwoLooksAreNotGuessed)
{
	Random rng(3);
	Queue q(8);
	RingWatch watch;
	unsigned lost = 0, again = 0;

	ASSERT_TRUE(watch.begin(q.ring(), q.taken));
	for (unsigned run = 0; run < 400; run++) {
		for (unsigned i = 200; i; i--)
			q.step(rng);
		/* One that nobody knows of is never called known. */
		const Looked looked = watch.look(q.ring());
		EXPECT_EQ(watch.known(), looked == Looked::Good);
		lost += looked == Looked::Lost;
		if (!watch.known()) {
			EXPECT_FALSE(watch.rewrite(q.ring()));
			/* Nothing outstanding: known again */
			while (q.taken != q.avail_idx)
				q.take();
			q.drain(rng);
			ASSERT_EQ(watch.look(q.ring()), Looked::Good);
			again++;
		}
		for (unsigned i = rng() % 7; i; i--)
			q.step(rng);
		RingWatch last = watch;
		ASSERT_EQ(last.look(q.ring(), true), Looked::Good);
		Queue dead = q;
		expect_exact(dead, last);
	}
	EXPECT_GT(lost, 100u);
	EXPECT_EQ(again, lost);
}

/* An indexed look: the entry of a slot that is being written again is not believed. */
TEST(StandbyRings, F2ASlotThatIsWrittenAgainIsNotBelieved)
{
	Random rng(4);
	Queue q(4);
	RingWatch watch;

	ASSERT_TRUE(watch.begin(q.ring(), 0));
	for (unsigned i = 0; i < 4; i++) {
		q.write_avail(rng);
		q.publish_avail();
	}
	/* All four since the last look: the driver may be writing the first one's slot now. */
	EXPECT_EQ(watch.look(q.ring()), Looked::Lost);
	/* Dead it is not. */
	RingWatch other;
	Queue r(4);
	ASSERT_TRUE(other.begin(r.ring(), 0));
	for (unsigned i = 0; i < 4; i++) {
		r.write_avail(rng);
		r.publish_avail();
	}
	EXPECT_EQ(other.look(r.ring(), true), Looked::Good);
	expect_exact(r, other);
}

TEST(StandbyRings, F3GarbageIsNoRing)
{
	Random rng(5);
	unsigned good = 0;

	for (unsigned run = 0; run < 20000; run++) {
		Queue q(16);
		RingWatch watch;

		ASSERT_TRUE(watch.begin(q.ring(), 0));
		if (rng() % 2) {
			for (unsigned i = rng() % 16; i; i--)
				q.step(rng);
			ASSERT_EQ(watch.look(q.ring()), Looked::Good);
		}
		/* A guest, or what has become of the memory */
		for (unsigned i = 1 + rng() % 4; i; i--) {
			if (rng() % 2)
				q.avail[rng() % q.avail.size()] = static_cast<u16>(rng() % 3 ? rng() % 20 : rng());
			else
				q.used[rng() % q.used.size()] = static_cast<u32>(rng() % 3 ? rng() % 20 : rng());
		}
		if (rng() % 2)
			(void)watch.look(q.ring());
		/* Whatever it says: heads that there are, each once, as many as the indices say */
		if (watch.look(q.ring(), true) == Looked::Good && watch.rewrite(q.ring())) {
			const std::vector<u16> again = taken_anew(q);
			EXPECT_LE(again.size(), 16u);
			EXPECT_EQ(std::set<u16>(again.begin(), again.end()).size(), again.size());
			for (const u16 head : again)
				EXPECT_LT(head, 16);
			good++;
		}
	}
	EXPECT_GT(good, 10u);
	RingWatch watch;
	Queue q(16);
	EXPECT_FALSE(watch.begin(q.ring(), 1)) << "a device that holds one back";
	put16(q.a() + 2, 3);
	EXPECT_FALSE(watch.begin(q.ring(), 0)) << "one head three times";
	EXPECT_FALSE(watch.rewrite(q.ring()));
}

} // namespace
