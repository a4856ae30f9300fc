// SPDX-License-Identifier: GPL-2.0
/*
 * Slots: one thread of execution inside a view, with its private stack.
 *
 *            claim              aexit
 *   Free ------------> Running ------> Exited
 *     ^                |    ^            |
 *     +---- release ---+    +-- resume --+
 *     +----------------- drop -----------+
 *
 * A slot belongs to a thread of the guest: Running on one vCPU, Exited on none.
 * State and token are one word: the token is the state Exited. So resume is one
 * compare-and-swap, of two vCPUs that race for a token one wins, and a token that
 * was read before somebody else used it up fits no later exit. Whoever made a
 * slot Running owns its fields.
 *
 * Each transition is a compare-and-swap from the one state that it leaves. False:
 * the slot was in another, and is as it was.
 */
#pragma once

#include <linux/redoubt_guest.h>
#include <redoubt/types.h>

namespace redoubt {

struct Context {
	u64 gpr[16]; /* hardware order; [4] is RSP */
	u64 rip;
	u64 rflags;
	u64 cr3;
};

/* What the caller gets back on the way out. */
struct Caller {
	u64 rip, rsp, cr3, rflags;
	u64 rbx, rbp, r12, r13, r14, r15;
};

class Slot {
public:
	enum class State : u32 { Free, Running, Exited };

	/* Every token has it: no other state can be asked for as one. */
	static constexpr u64 token_bit = 1ull << 63;

	[[nodiscard]] State state() const
	{
		u64 word = load_acquire(word_);

		return word & token_bit ? State::Exited
		       : word		? State::Running
					: State::Free;
	}
	[[nodiscard]] bool claim()
	{
		return move(free, running);
	}
	[[nodiscard]] bool release()
	{
		return move(running, free);
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

	/* Its thread will not come back. False: nobody's, or on its way. */
	bool drop()
	{
		u64 word = load_acquire(word_);

		return word & token_bit && move(word, free);
	}

	Context context;
	Caller caller;

private:
	static constexpr u64 free = 0, running = 1;

	bool move(u64 from, u64 to)
	{
		return __atomic_compare_exchange_n(&word_, &from, to, false, __ATOMIC_ACQ_REL,
						   __ATOMIC_RELAXED);
	}

	u64 word_ = free;
};

/* A view's slots. Tokens carry the slot's number in their low bits. */
class Slots {
public:
	static constexpr unsigned max = RDT_DRV_MAX_SLOTS;
	static_assert((max & (max - 1)) == 0);

	void init(unsigned n)
	{
		n_ = n;
	}
	/* A free slot, now Running; nullptr: none. Starts at a hint, so that vCPUs
	 * do not fight over the first. */
	Slot *claim(unsigned hint)
	{
		for (unsigned i = 0; i < n_; i++) {
			Slot &s = slot_[(hint + i) % n_];

			if (s.state() == Slot::State::Free && s.claim())
				return &s;
		}
		return nullptr;
	}
	Slot *resume(u64 token)
	{
		Slot &s = slot_[token % max];

		return s.resume(token) ? &s : nullptr;
	}
	/* Every thread that is Exited. */
	void drop()
	{
		for (unsigned i = 0; i < n_; i++)
			(void)slot_[i].drop();
	}
	[[nodiscard]] unsigned index(const Slot *s) const
	{
		return static_cast<unsigned>(s - slot_);
	}
	/* A token for a slot that never was one before, as far as 57 random bits go. */
	[[nodiscard]] u64 token(const Slot *s, u64 random) const
	{
		return Slot::token_bit | (random & ~u64{max - 1}) | index(s);
	}
	[[nodiscard]] unsigned size() const
	{
		return n_;
	}
	[[nodiscard]] unsigned busy() const
	{
		unsigned n = 0;

		for (unsigned i = 0; i < n_; i++)
			n += slot_[i].state() != Slot::State::Free;
		return n;
	}

private:
	unsigned n_ = 0;
	Slot slot_[max];
};

} // namespace redoubt
