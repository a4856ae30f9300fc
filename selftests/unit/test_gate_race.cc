// SPDX-License-Identifier: GPL-2.0
/* B9, B10: several vCPUs at the gate at once; detaching at the same time. */
#include <atomic>
#include <thread>

#include "vm_world.h"

using namespace redoubt;

namespace {

/* All threads start a round at once. */
class Gong {
public:
	explicit Gong(unsigned n) : n_(n)
	{
	}
	void wait()
	{
		const unsigned round = round_;

		if (++waiting_ == n_) {
			waiting_ = 0;
			round_++;
		}
		while (round_ == round)
			std::this_thread::yield();
	}

private:
	unsigned n_;
	std::atomic<unsigned> waiting_{0}, round_{0};
};

u64 busy(World &w)
{
	rdt_vm_info info = {};

	rdt_core_info(w.vm, &info);
	return info.slots_busy;
}

template <class F> void run(unsigned n, F f)
{
	std::vector<std::thread> threads;

	for (unsigned t = 0; t < n; t++)
		threads.emplace_back([&f, t] { f(t); });
	for (std::thread &t : threads)
		t.join();
}

} // namespace

/* Two vCPUs resume with one token: exactly one gets the thread, the other an error. */
TEST(B9, TwoVcpusRaceForOneToken)
{
	constexpr unsigned rounds = 20000;
	World w(3);
	Gong gong(2);
	std::atomic<u64> token{0};
	std::atomic<unsigned> wins{0};
	unsigned by[2] = {};

	w.start(2);
	run(2, [&](unsigned t) {
		for (unsigned i = 0; i < rounds; i++) {
			if (t == 0) {
				if (!w[2].enter_call())
					ADD_FAILURE() << "no slot";
				w[2].regs = Regs::numbered(i);
				token = w[2].strike();
				wins = 0;
			}
			gong.wait();
			const Cpu::Result r = w[t].resume(token);

			if (r.switched) {
				wins++;
				by[t]++;
				if (!(w[t].regs == Regs::numbered(i)))
					ADD_FAILURE() << "not the thread";
			} else {
				EXPECT_EQ(r.value, -22);
			}
			gong.wait();
			EXPECT_EQ(wins, 1u);
			if (r.switched && !w[t].leave_call(0))
				ADD_FAILURE() << "cannot leave";
			w[t].regs = Regs::numbered(t + 1);
			gong.wait();
			if (t == 0) {
				const auto ev = w.host.take_events();

				ASSERT_EQ(ev.size(), 1u);
				EXPECT_EQ(ev[0].code, RDT_GATE_BAD_TOKEN);
				w[2].regs = Regs::numbered(3);
				w[2].regs.gpr[r11] = lay::back;
			}
		}
	});
	EXPECT_EQ(by[0] + by[1], rounds);
	EXPECT_EQ(busy(w), 0u);
}

/* More threads than slots: never two with one stack, and every one comes out. */
TEST(B10, FourVcpusTwoSlots)
{
	constexpr unsigned rounds = 20000;
	World w(4);
	std::atomic<int> on_stack[2] = {};
	std::atomic<u64> entered{0}, refused{0};

	w.start(2);
	run(4, [&](unsigned t) {
		Cpu &c = w[t];

		for (unsigned i = 0; i < rounds; i++) {
			c.regs = Regs::numbered(t * rounds + i);
			c.regs.gpr[r11] = lay::back + t * 64;
			const Regs caller = c.regs;
			const bool in = (i & 1) ? c.enter_call() : c.enter_fault() == RDT_V_RESUME && c.inside();

			if (!in) {
				EXPECT_EQ(static_cast<s64>(c.regs.gpr[rax]), -11);
				refused++;
				continue;
			}
			const unsigned slot = c.regs.rsp == lay::stack(0) ? 0 : 1;

			EXPECT_EQ(c.regs.rsp, lay::stack(slot));
			if (on_stack[slot]++ != 0)
				ADD_FAILURE() << "two threads on one stack";
			if (i % 16 == 0)
				std::this_thread::yield();
			on_stack[slot]--;
			if (!c.leave_call(i))
				ADD_FAILURE() << "cannot leave";
			EXPECT_EQ(c.regs.rip, lay::back + t * 64);
			EXPECT_EQ(c.regs.rsp, caller.rsp);
			EXPECT_EQ(c.regs.cr3, caller.cr3);
			EXPECT_EQ(c.regs.gpr[r15], caller.gpr[r15]);
			entered++;
		}
	});
	EXPECT_EQ(entered + refused, 4u * rounds);
	EXPECT_EQ(busy(w), 0u);
	rdt_vm_info info = {};

	rdt_core_info(w.vm, &info);
	EXPECT_EQ(info.enters, entered) << "no crossing lost in the count";
	/* Each refusal is an alert. */
	const auto ev = w.host.take_events();

	EXPECT_EQ(ev.size(), refused);
	for (const rdt_event &e : ev)
		EXPECT_EQ(e.code, RDT_GATE_NO_SLOT);
}

/* Threads that are interrupted go from vCPU to vCPU; none is lost, none is run twice. */
TEST(B9, ThreadsWanderBetweenVcpus)
{
	constexpr unsigned vcpus = 4, threads = 3, hops = 20000;
	World w(vcpus);
	std::atomic<u64> token[threads] = {};
	std::atomic<u64> hops_of[threads] = {};
	std::atomic<unsigned> total{0};

	w.start(threads);
	for (unsigned t = 0; t < threads; t++) {
		ASSERT_TRUE(w[0].enter_call());
		w[0].regs = Regs::numbered(1000 + t);
		w[0].regs.gpr[rbx] = 0;
		token[t] = w[0].strike();
		w[0].regs.gpr[r11] = lay::back;
	}
	w.quiet();
	run(vcpus, [&](unsigned t) {
		Cpu &c = w[t];

		for (unsigned i = t; total < hops; i++) {
			const unsigned which = i % threads;
			const u64 mine = token[which];

			if (!c.resume(mine).switched)
				continue;
			/* RBX counts the hops: a lost or doubled one shows. */
			if (c.regs.gpr[rbx] != hops_of[which] || c.regs.gpr[rax] != Regs::numbered(1000 + which).gpr[rax])
				ADD_FAILURE() << "not the thread as it was";
			c.regs.gpr[rbx]++;
			hops_of[which]++;
			total++;
			token[which] = c.strike();
		}
	});
	EXPECT_EQ(busy(w), threads);
	for (unsigned t = 0; t < threads; t++) {
		ASSERT_TRUE(w[0].resume(token[t]).switched);
		EXPECT_EQ(w[0].regs.gpr[rbx], hops_of[t]);
		ASSERT_TRUE(w[0].leave_call(0));
	}
	EXPECT_EQ(busy(w), 0u);
}

/* Detach succeeds only with nobody inside, and from then on nobody gets in. */
TEST(B11, DetachAgainstEntry)
{
	unsigned detached = 0, was_busy = 0;

	for (unsigned round = 0; round < 300; round++) {
		World w(3);
		std::atomic<int> inside{0};
		std::atomic<bool> gone{false};

		w.start(2);
		run(4, [&](unsigned t) {
			if (t < 3) {
				Cpu &c = w[t];

				for (unsigned i = 0; i < 60; i++) {
					c.regs.gpr[r11] = lay::back;
					const bool after = gone;

					if (!(i & 1 ? c.enter_call() : c.enter_fault() == RDT_V_RESUME && c.inside()))
						continue;
					inside++;
					if (gone || after)
						ADD_FAILURE() << "inside a VM that was detached";
					u64 token = 0;

					if (i % 4 == 3) {
						token = c.strike();
						std::this_thread::yield();
						if (!c.resume(token).switched)
							ADD_FAILURE() << "a thread was lost";
					}
					inside--;
					if (!c.leave_call(0))
						ADD_FAILURE() << "cannot leave";
				}
				return;
			}
			for (unsigned i = 0; i < 50; i++) {
				const int r = rdt_core_detach(w.vm, 0);

				if (r == 0) {
					gone = true;
					if (inside != 0)
						ADD_FAILURE() << "detached with a thread inside";
					detached++;
					return;
				}
				EXPECT_EQ(r, -16);
				was_busy++;
				std::this_thread::yield();
			}
		});
	}
	/* Both must have been met, or nothing was raced. */
	EXPECT_GT(detached, 0u);
	RecordProperty("detached", static_cast<int>(detached));
	RecordProperty("busy", static_cast<int>(was_busy));
}

/* By force: who was interrupted inside is dropped, who runs there is not. */
TEST(B11, AForcedDetachDropsWhoDoesNotComeBack)
{
	World w;

	w.start(2);
	ASSERT_TRUE(w[0].enter_call());
	const u64 token = w[0].strike();

	w[1].regs.gpr[r11] = lay::back;
	ASSERT_TRUE(w[1].enter_call());
	EXPECT_EQ(rdt_core_detach(w.vm, RDT_DETACH_FORCE), -16) << "another runs inside";
	EXPECT_FALSE(w[0].resume(token).switched) << "but this one was dropped";
	ASSERT_TRUE(w[1].leave_call(0));
	EXPECT_EQ(rdt_core_detach(w.vm, RDT_DETACH_FORCE), 0);
	w.quiet();
}

/* The same without a race: each thing that keeps a VM attached. */
TEST(B11, WhatKeepsAVmAttached)
{
	World w;

	w.start(2);
	ASSERT_TRUE(w[0].enter_call());
	EXPECT_EQ(rdt_core_detach(w.vm, 0), -16) << "running inside";
	const u64 token = w[0].strike();

	EXPECT_EQ(rdt_core_detach(w.vm, 0), -16) << "interrupted inside";
	ASSERT_TRUE(w[1].resume(token).switched);
	EXPECT_EQ(rdt_core_detach(w.vm, 0), -16);
	w[0].regs.gpr[r11] = lay::back;
	ASSERT_TRUE(w[0].enter_call()) << "a refused detach closes nothing";
	ASSERT_TRUE(w[0].leave_call(0));
	ASSERT_TRUE(w[1].leave_call(0));
	EXPECT_EQ(rdt_core_detach(w.vm, 0), 0);

	w[0].regs.gpr[r11] = lay::back;
	w.quiet();
	EXPECT_FALSE(w[0].enter_call());
	EXPECT_EQ(static_cast<s64>(w[0].regs.gpr[rax]), -11);
	EXPECT_EQ(w[0].enter_fault(), RDT_V_RESUME);
	EXPECT_FALSE(w[0].inside());
	EXPECT_EQ(static_cast<s64>(w[0].regs.gpr[rax]), -11);
	EXPECT_EQ(w[0].resume(token).value, -22);
	EXPECT_EQ(busy(w), 0u);
}
