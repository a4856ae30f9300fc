// SPDX-License-Identifier: GPL-2.0
/* B10: the slots' state machine, each transition legal and illegal, and its races. */
#include <atomic>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "vm.h"
#include "vm_world.h"

namespace redoubt {

/* White-box access: the C face's object begins with the class's. */
struct VmTester {
	static Slot &slot(rdt_core_vm *vm, unsigned n)
	{
		Slots &slots = reinterpret_cast<Vm *>(vm)->integrity_->slots;
		std::vector<Slot *> taken;
		Slot *s;

		/* All that are free, to get at their addresses, and back. */
		while ((s = slots.claim(0)))
			taken.push_back(s);
		for (Slot *t : taken)
			EXPECT_TRUE(t->release());
		/* One that is in use lies at a distance of its number from any other. */
		EXPECT_FALSE(taken.empty());
		return *(taken[0] - slots.index(taken[0]) + n);
	}
};

} // namespace redoubt

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
		ASSERT_TRUE(s.aexit(right));
}

} // namespace

TEST(B10_Slot, EachTransition)
{
	/* What a slot in each state answers, and what it is then: six operations each. */
	struct Row {
		State from;
		const char *op;
		bool ok;
		State to;
	} rows[] = {
		{State::Free, "claim", true, State::Running},
		{State::Free, "release", false, State::Free},
		{State::Free, "aexit", false, State::Free},
		{State::Free, "aexit 0", false, State::Free},
		{State::Free, "resume right", false, State::Free},
		{State::Free, "resume wrong", false, State::Free},
		{State::Free, "resume 0", false, State::Free},
		{State::Free, "resume 1", false, State::Free},
		{State::Running, "claim", false, State::Running},
		{State::Running, "release", true, State::Free},
		{State::Running, "aexit", true, State::Exited},
		{State::Running, "aexit 0", true, State::Exited},
		{State::Running, "resume right", false, State::Running},
		{State::Running, "resume wrong", false, State::Running},
		{State::Running, "resume 0", false, State::Running},
		{State::Running, "resume 1", false, State::Running},
		{State::Exited, "claim", false, State::Exited},
		{State::Exited, "release", false, State::Exited},
		{State::Exited, "aexit", false, State::Exited},
		{State::Exited, "aexit 0", false, State::Exited},
		{State::Exited, "resume right", true, State::Running},
		{State::Exited, "resume wrong", false, State::Exited},
		{State::Exited, "resume 0", false, State::Exited},
		{State::Exited, "resume 1", false, State::Exited},
	};

	for (const Row &r : rows) {
		Slot s{};
		const std::string op = r.op;
		bool ok = false;

		SCOPED_TRACE(op + " in state " + std::to_string(static_cast<int>(r.from)));
		bring(s, r.from);
		ASSERT_EQ(s.state(), r.from);
		if (op == "claim")
			ok = s.claim();
		else if (op == "release")
			ok = s.release();
		else if (op == "aexit")
			ok = s.aexit(right);
		else if (op == "aexit 0")
			ok = s.aexit(0);
		else if (op == "resume right")
			ok = s.resume(right);
		else if (op == "resume wrong")
			ok = s.resume(right ^ 0x40);
		else
			ok = s.resume(op.back() == '1');
		EXPECT_EQ(ok, r.ok);
		EXPECT_EQ(s.state(), r.to);
		/* Refused: not only the state, the token too is as before. */
		if (r.from == State::Exited && !r.ok)
			EXPECT_TRUE(s.resume(right));
	}
}

TEST(B10_Slot, TokenIsGoodOnce)
{
	Slot s{};

	ASSERT_TRUE(s.claim());
	for (u64 i = 0; i < 1000; i++) {
		const u64 token = Slot::token_bit | i << 6;

		EXPECT_TRUE(s.aexit(token));
		if (i)
			EXPECT_FALSE(s.resume(token - 64)) << "the one before";
		EXPECT_FALSE(s.resume(token & ~Slot::token_bit));
		EXPECT_TRUE(s.resume(token));
		EXPECT_FALSE(s.resume(token));
	}
	EXPECT_TRUE(s.release());
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
			EXPECT_TRUE(s->aexit(token.back()));
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
			/* hand it back under another name */
			if (!s.aexit(try_it + (1ull << 62)))
				ADD_FAILURE() << "its own slot";
		}
	});
	for (u64 i = 1; i <= rounds; i++) {
		const u64 token = Slot::token_bit | i << 6;

		published = token;
		ASSERT_TRUE(s.aexit(token));
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
				if (!s->release())
					ADD_FAILURE() << "its own slot";
			}
		});
	for (std::thread &t : threads)
		t.join();
	EXPECT_EQ(claimed + refused, 2000000u);
	EXPECT_GT(claimed, 0u);
	EXPECT_EQ(slots->busy(), 0u);
}

/* ---- what becomes of a vCPU whose slot is not what it must be ------------------------ */

namespace {

/* The one event: a refusal at the gate, for the state. */
void expect_reported(World &w)
{
	const std::vector<rdt_event> events = w.host.take_events();

	ASSERT_EQ(events.size(), 1u);
	EXPECT_EQ(events[0].type, RDT_EV_GATE);
	EXPECT_EQ(events[0].code, RDT_GATE_BAD_STATE);
	EXPECT_EQ(events[0].action, RDT_ACT_DENY);
}

} // namespace

/* Out it gets, as that is where it can do less; its result is an error. */
TEST(B10_Slots, LeavingASlotThatIsNotItsOwn)
{
	for (bool by_fault : {false, true})
		for (State is : {State::Free, State::Exited}) {
			SCOPED_TRACE(by_fault);
			World w;
			Cpu &c = w[0];

			w.start(3);
			const Regs caller = c.regs;

			ASSERT_TRUE(c.enter_call());
			Slot &s = VmTester::slot(w.vm, 0);

			ASSERT_EQ(s.state(), State::Running);
			ASSERT_TRUE(is == State::Free ? s.release() : s.aexit(right));
			w.quiet();
			if (by_fault)
				EXPECT_EQ(c.leave_fault(5), RDT_V_RESUME);
			else
				EXPECT_TRUE(c.leave_call(5));
			EXPECT_FALSE(c.inside());
			EXPECT_EQ(c.regs.rip, lay::back);
			EXPECT_EQ(c.regs.rsp, caller.rsp);
			EXPECT_EQ(c.regs.gpr[rax], static_cast<u64>(hc_eperm));
			EXPECT_EQ(c.regs.gpr[rdx], 0u);
			EXPECT_EQ(s.state(), is) << "whoever has it keeps it";
			expect_reported(w);
		}
}

/* An event inside cannot be delivered: the vCPU stops there, with all of its state. */
TEST(B10_Slots, AnEventInASlotThatIsNotItsOwn)
{
	for (State is : {State::Free, State::Exited}) {
		World w;
		Cpu &c = w[0];
		FaultOpts o;

		w.start(3);
		ASSERT_TRUE(c.enter_call());
		Slot &s = VmTester::slot(w.vm, 0);

		ASSERT_TRUE(is == State::Free ? s.release() : s.aexit(right));
		w.quiet();
		o.vectoring = true;
		for (int again = 0; again < 2; again++) {
			/* fault() sees to it that no register changes. */
			EXPECT_EQ(c.fault(gpa_of(lay::idt) + 14 * 16, RDT_ACC_R, o), RDT_V_FREEZE);
			EXPECT_TRUE(c.inside());
			EXPECT_EQ(s.state(), is);
			expect_reported(w);
		}
		if (is == State::Exited)
			EXPECT_TRUE(s.resume(right)) << "the token is the one it was";
	}
}
