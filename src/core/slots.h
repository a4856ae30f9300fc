// SPDX-License-Identifier: GPL-2.0
/*
 * Slots: one thread of execution inside a view, with its private stack.
 *
 *            claim              aexit
 *   Free ------------> Running ------> Exited
 *   | ^                |    ^            |  |
 *   | +---- release ---+    +-- resume --+  |
 *   +------> Closed <-----------------------+
 *     close            close, and the thread is lost
 *
 * A slot belongs to a thread of the guest: Running on one vCPU, Exited on none.
 * State and token are one word: the token is the state Exited. So resume is one
 * compare-and-swap, of two vCPUs that race for a token one wins, and a token that
 * was read before somebody else used it up fits no later exit. Whoever made a
 * slot Running owns its fields.
 *
 * Likewise Free holds the epoch of the inside that the slot belongs to. Who looked up a
 * door, and comes to claim when another domain has its view, finds another epoch.
 * When all slots are Closed, nobody is inside and nobody gets in.
 *
 * Each transition is a compare-and-swap from the one state that it leaves. False:
 * the slot was in another, and is as it was.
 */
#pragma once

#include <linux/redoubt_guest.h>
#include <redoubt/types.h>

#ifdef RDT_UNIT_TEST
/* In front of each access to a slot's word: the model check's scheduler. */
extern "C" void rdt_test_slot_step(const redoubt::u64 *word);
#define RDT_SLOT_STEP() rdt_test_slot_step(&word_)
#else
#define RDT_SLOT_STEP()
#endif

namespace redoubt {

struct Context {
	u64 gpr[16]; /* hardware order; [4] is RSP */
	u64 rip;
	u64 rflags;
	u64 cr3;
	u8 view;
};

/* What the caller gets back on the way out. */
struct Caller {
	u64 rip, rsp, cr3, rflags;
	u64 rbx, rbp, r12, r13, r14, r15;
};

class Slot {
public:
	enum class State : u32 { Free, Running, Exited, Closed };

	/* Every token has it: no other state can be asked for as one. */
	static constexpr u64 token_bit = 1ull << 63;

	[[nodiscard]] State state() const
	{
		RDT_SLOT_STEP();
		return state_of(load_acquire(word_));
	}
	[[nodiscard]] bool claim(u64 epoch = 0)
	{
		RDT_SLOT_STEP();
		/* Looked at first: a locked instruction on a slot in use would disturb its user. */
		return load_acquire(word_) == free(epoch) && move(free(epoch), running);
	}
	[[nodiscard]] bool release(u64 epoch = 0)
	{
		return move(running, free(epoch));
	}
	/* The context is complete; from here on another vCPU may resume it. */
	[[nodiscard]] bool aexit(u64 token)
	{
		return move(running, token | token_bit);
	}
	/* One caller wins, with the one token. */
	[[nodiscard]] bool resume(u64 token)
	{
		return token & token_bit && move(token, running);
	}
	/* kill: an Exited thread is lost. True: it is Closed now. */
	[[nodiscard]] bool close(bool kill)
	{
		for (;;) {
			RDT_SLOT_STEP();

			u64 word = load_acquire(word_);
			State s = state_of(word);

			if (s == State::Closed)
				return true;
			if (s == State::Running || (s == State::Exited && !kill))
				return false;
			/* Lost to a vCPU that made a step of its own. */
			if (move(word, closed))
				return true;
		}
	}
	/* From Closed, or anew; nobody else knows the slot, or its epoch. */
	void open(u64 epoch)
	{
		RDT_SLOT_STEP();
		store_release(word_, free(epoch));
	}

	Context context;
	Caller caller;
	u64 entered; /* a secret: where its caller has the gate */
	u64 stack_top;
	/* The host's room for what it swaps; nullptr: it passes. */
	void *vector, *segments;

private:
	/* Free is any word without these bits. */
	static constexpr u64 running = 1, closed = 2;

	/* Epochs are counted: none has the two bits that this takes. */
	static constexpr u64 free(u64 epoch)
	{
		return epoch << 2;
	}
	static constexpr State state_of(u64 word)
	{
		return word & token_bit	 ? State::Exited
		       : word == running ? State::Running
		       : word == closed	 ? State::Closed
					 : State::Free;
	}
	bool move(u64 from, u64 to)
	{
		RDT_SLOT_STEP();
		return __atomic_compare_exchange_n(&word_, &from, to, false, __ATOMIC_ACQ_REL,
						   __ATOMIC_RELAXED);
	}

	u64 word_ = free(0);
};

/*
 * A view's slots. Tokens carry the slot's number in their low bits, the view's
 * above it.
 */
class Slots {
public:
	static constexpr unsigned max = RDT_DRV_MAX_SLOTS;
	static_assert((max & (max - 1)) == 0 && max >= RDT_DOM_MAX_SLOTS);

	void init(unsigned n, u8 view = 1, u64 epoch = 0)
	{
		view_ = view;
		write_once(n_, n);
		for (unsigned i = 0; i < n; i++)
			slot_[i].open(epoch);
	}
	/* A free slot, now Running; nullptr: none. Starts at a hint, so that vCPUs
	 * do not fight over the first. */
	Slot *claim(unsigned hint, u64 epoch = 0)
	{
		const unsigned n = read_once(n_);

		for (unsigned i = 0; i < n; i++) {
			unsigned at = hint + i;

			if (at >= n)
				at %= n;
			if (slot_[at].claim(epoch))
				return &slot_[at];
		}
		return nullptr;
	}
	Slot *resume(u64 token)
	{
		Slot &s = slot_[token % max];

		return s.resume(token) ? &s : nullptr;
	}
	/* How many are not Closed after it. Whoever releases one meanwhile makes it Free. */
	unsigned close(bool kill)
	{
		unsigned left = 0;

		for (unsigned i = 0; i < n_; i++)
			left += !slot_[i].close(kill);
		return left;
	}
	/* What close() has closed is Free again. */
	void reopen(u64 epoch = 0)
	{
		for (unsigned i = 0; i < n_; i++)
			if (slot_[i].state() == Slot::State::Closed)
				slot_[i].open(epoch);
	}
	[[nodiscard]] unsigned index(const Slot *s) const
	{
		return static_cast<unsigned>(s - slot_);
	}
	[[nodiscard]] Slot &operator[](unsigned i)
	{
		return slot_[i];
	}
	/* A token for a slot that never was one before, as far as 52 random bits go. */
	[[nodiscard]] u64 token(const Slot *s, u64 random) const
	{
		return Slot::token_bit | (random & ~u64{32 * max - 1}) | u64{view_} * max | index(s);
	}
	/* The view that a token, right or wrong, speaks of. */
	static constexpr u8 view_of(u64 token)
	{
		return static_cast<u8>(token / max % 32);
	}
	[[nodiscard]] unsigned size() const
	{
		return n_;
	}
	[[nodiscard]] unsigned busy() const
	{
		unsigned n = 0;

		for (unsigned i = 0; i < n_; i++) {
			Slot::State s = slot_[i].state();

			n += s == Slot::State::Running || s == Slot::State::Exited;
		}
		return n;
	}

private:
	unsigned n_ = 0;
	u8 view_ = 1;
	Slot slot_[max];
};

} // namespace redoubt
