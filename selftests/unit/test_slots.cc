// SPDX-License-Identifier: GPL-2.0
/* B10: the slots' state machine, each transition legal and illegal, and its races. */
#include <atomic>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "slots.h"

using namespace redoubt;

namespace {

using State = Slot::State;

constexpr u64 right = Slot::token_bit | 0x1234500;

void bring(Slot &s, State to)
{
	if (to == State::Free)
		return;
	ASSERT_TRUE(s.claim());
	if (to == State::Exited)
		s.aexit(right);
}

} // namespace

TEST(B10_Slot, EachTransition)
{
	/* What a slot in each state answers, and what it is then. */
	struct Row {
		State from;
		const char *op;
		bool ok;
		State to;
	} rows[] = {
		{State::Free, "claim", true, State::Running},
		{State::Free, "resume right", false, State::Free},
		{State::Free, "resume wrong", false, State::Free},
		{State::Free, "resume 0", false, State::Free},
		{State::Free, "resume 1", false, State::Free},
		{State::Running, "claim", false, State::Running},
		{State::Running, "release", true, State::Free},
		{State::Running, "aexit", true, State::Exited},
		{State::Running, "resume right", false, State::Running},
		{State::Running, "resume wrong", false, State::Running},
		{State::Running, "resume 0", false, State::Running},
		{State::Running, "resume 1", false, State::Running},
		{State::Exited, "claim", false, State::Exited},
		{State::Exited, "resume right", true, State::Running},
		{State::Exited, "resume wrong", false, State::Exited},
		{State::Exited, "resume 0", false, State::Exited},
		{State::Exited, "resume 1", false, State::Exited},
	};

	for (const Row &r : rows) {
		Slot s{};
		const std::string op = r.op;
		bool ok = true;

		SCOPED_TRACE(op + " in state " + std::to_string(static_cast<int>(r.from)));
		bring(s, r.from);
		ASSERT_EQ(s.state(), r.from);
		if (op == "claim")
			ok = s.claim();
		else if (op == "release")
			s.release();
		else if (op == "aexit")
			s.aexit(right);
		else if (op == "resume right")
			ok = s.resume(right);
		else if (op == "resume wrong")
			ok = s.resume(right ^ 0x40);
		else
			ok = s.resume(op.back() == '1');
		EXPECT_EQ(ok, r.ok);
		EXPECT_EQ(s.state(), r.to);
	}
}

TEST(B10_Slot, TokenIsGoodOnce)
{
	Slot s{};

	ASSERT_TRUE(s.claim());
	for (u64 i = 0; i < 1000; i++) {
		const u64 token = Slot::token_bit | i << 6;

		s.aexit(token);
		if (i)
			EXPECT_FALSE(s.resume(token - 64)) << "the one before";
		EXPECT_FALSE(s.resume(token & ~Slot::token_bit));
		EXPECT_TRUE(s.resume(token));
		EXPECT_FALSE(s.resume(token));
	}
	s.release();
	EXPECT_FALSE(s.resume(Slot::token_bit | 999 << 6));
}

TEST(B10_Slots, ClaimedOnceEachAndNoMore)
{
	for (unsigned n = 1; n <= Slots::max; n++)
		for (unsigned hint : {0u, 1u, n - 1, n, 77u}) {
			auto slots = std::make_unique<Slots>();
			std::set<Slot *> seen;

			slots->init(n);
			for (unsigned i = 0; i < n; i++) {
				Slot *s = slots->claim(hint);

				ASSERT_TRUE(s);
				EXPECT_TRUE(seen.insert(s).second);
				EXPECT_LT(slots->index(s), n);
				EXPECT_EQ(slots->busy(), i + 1);
			}
			EXPECT_EQ(slots->claim(hint), nullptr);
		}
}

/* Whatever the random numbers are, a token names its slot and is no plain state. */
TEST(B10_Slots, TokensOfAnyRandomNumber)
{
	auto slots = std::make_unique<Slots>();
	std::vector<Slot *> all;

	slots->init(Slots::max);
	while (Slot *s = slots->claim(0))
		all.push_back(s);
	for (u64 random : {u64{0}, ~u64{0}, u64{1}, u64{63}, u64{64}, u64{1} << 63}) {
		std::vector<u64> token;

		for (Slot *s : all) {
			token.push_back(slots->token(s, random));
			s->aexit(token.back());
			EXPECT_EQ(s->state(), State::Exited);
		}
		for (usize i = 0; i < all.size(); i++) {
			EXPECT_EQ(slots->resume(token[i] ^ 64), nullptr);
			EXPECT_EQ(slots->resume(token[i]), all[i]);
			EXPECT_EQ(slots->resume(token[i]), nullptr);
		}
	}
}

TEST(B10_Slots, SlotsThatTheDriverDoesNotHave)
{
	auto slots = std::make_unique<Slots>();

	slots->init(3);
	for (u64 i = 0; i < Slots::max; i++)
		EXPECT_EQ(slots->resume(Slot::token_bit | i), nullptr);
}

/*
 * One thread keeps exiting and resuming the slot, another presents tokens that it
 * has seen go by. Only the newest may ever be accepted, and by one of them.
 */
TEST(B10_Slot, RaceForOneToken)
{
	constexpr u64 rounds = 6000000;
	Slot s{};
	std::atomic<u64> published{0}, thief_won{0}, owner_won{0};
	std::atomic<bool> stop{false};

	ASSERT_TRUE(s.claim());
	std::thread thief([&] {
		std::mt19937_64 rng(3);

		while (!stop) {
			const u64 newest = published.load();
			/* Mostly used up by the time it is presented. */
			const u64 try_it = newest - (rng() & 3) * 64;

			if (!newest || !s.resume(try_it))
				continue;
			/* Ours: it must be what the owner waits to see gone. */
			if (try_it != published.load())
				ADD_FAILURE() << "a used token was accepted";
			thief_won++;
			s.aexit(try_it + (1ull << 62)); /* hand it back under another name */
		}
	});
	for (u64 i = 1; i <= rounds; i++) {
		const u64 token = Slot::token_bit | i << 6;

		published = token;
		s.aexit(token);
		if (s.resume(token)) {
			owner_won++;
			continue;
		}
		/* The thief has it, or had it and gave it back. */
		while (!s.resume(token + (1ull << 62)))
			std::this_thread::yield();
	}
	stop = true;
	thief.join();
	EXPECT_EQ(owner_won + thief_won, rounds);
	EXPECT_EQ(s.state(), State::Running);
}

TEST(B10_Slots, RaceForFreeSlots)
{
	auto slots = std::make_unique<Slots>();
	std::atomic<int> inside[Slots::max] = {};
	std::atomic<u64> claimed{0}, refused{0};
	std::vector<std::thread> threads;

	slots->init(2);
	for (unsigned t = 0; t < 4; t++)
		threads.emplace_back([&, t] {
			for (unsigned i = 0; i < 500000; i++) {
				Slot *s = slots->claim(t);

				if (!s) {
					refused++;
					continue;
				}
				claimed++;
				if (inside[slots->index(s)]++ != 0)
					ADD_FAILURE() << "two threads in one slot";
				if (i % 64 == 0)
					std::this_thread::yield();
				inside[slots->index(s)]--;
				s->release();
			}
		});
	for (std::thread &t : threads)
		t.join();
	EXPECT_EQ(claimed + refused, 2000000u);
	EXPECT_GT(claimed, 0u);
	EXPECT_EQ(slots->busy(), 0u);
}
