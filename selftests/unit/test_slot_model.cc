// SPDX-License-Identifier: GPL-2.0
/*
 * C8, C10: the slots' state machine, by model checking. Two vCPUs and two slots; each
 * vCPU, whenever it is idle, does any of enter, leave, asynchronous exit, resume (with any token
 * that there ever was), destroy, create. The code is the real one; it is interrupted
 * in front of each access to a slot's word, to the epoch and to the domain's state, and every
 * order of those accesses is tried, until no new state comes up (breadth first, each
 * state reached by executing the way to it again).
 *
 * Two states are one if the words, and all that a vCPU in the middle of an operation has seen, are the same
 * up to names: the code compares tokens and epochs for equality and nothing else.
 * What is explored is sequentially consistent; each access is an atomic one with acquire and
 * release order, and every transition a locked instruction.
 */
#include <deque>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include <ucontext.h>

#include <gtest/gtest.h>

#include "slots.h"
#include "support.h"

using namespace redoubt;

namespace {

constexpr unsigned nr_slots = 2, nr_cpus = 2;
constexpr u8 view = 7;
enum DomState : u64 { gone, sealed, dying };
enum Op : u8 { idle, enter, leave, aexit, drop, resume_last, resume_before, destroy, create, nr_ops };
constexpr const char *op_names[] = {"idle", "enter", "leave", "aexit", "drop", "resume",
				    "resume-stale", "destroy", "create"};

struct Choice {
	u8 cpu, op, slot; /* op idle: go on */
};

/* One execution, from the beginning, of a list of choices. */
template <class S> class Run {
public:
	Run()
	{
		for (Cpu &c : cpu_)
			c.stack.resize(256 << 10);
	}

	void reset()
	{
		slots_.~S();
		new (&slots_) S;
		state_ = sealed;
		epoch_ = 1;
		locked_ = false;
		tokens_ = 0;
		issued_.clear();
		for (unsigned i = 0; i < nr_slots; i++)
			last_[i] = before_[i] = 0;
		test_on_slot_step(nullptr);
		slots_.init(nr_slots, view, epoch_);
		test_on_slot_step(on_step);
		self_ = this;
		for (unsigned i = 0; i < nr_cpus; i++)
			start(i);
	}
	~Run()
	{
		test_on_slot_step(nullptr);
	}

	[[nodiscard]] std::vector<Choice> choices() const
	{
		std::vector<Choice> out;

		for (u8 i = 0; i < nr_cpus; i++) {
			const Cpu &c = cpu_[i];

			if (c.op != idle) {
				out.push_back({i, idle, 0});
				continue;
			}
			if (c.slot) {
				out.push_back({i, leave, 0});
				out.push_back({i, aexit, 0});
				continue;
			}
			out.push_back({i, enter, 0});
			for (u8 s = 0; s < nr_slots; s++) {
				if (last_[s]) {
					out.push_back({i, resume_last, s});
					out.push_back({i, drop, s});
				}
				/* One that is no good any more is like another. */
				if (before_[s] && live(last_[s]))
					out.push_back({i, resume_before, s});
			}
			if (!locked_)
				out.push_back({i, state_ == gone ? create : destroy, 0});
		}
		return out;
	}

	/* To the next access, or to the end of the operation. */
	void step(const Choice &ch)
	{
		Cpu &c = cpu_[ch.cpu];

		if (c.op == idle) {
			c.op = ch.op;
			c.arg = ch.slot;
			c.token = ch.op == resume_last || ch.op == drop ? last_[ch.slot]
				  : ch.op == resume_before		? before_[ch.slot]
									: 0;
			c.seen.clear();
		} else {
			c.seen.push_back({c.at, *c.at});
		}
		current_ = &c;
		swapcontext(&scheduler_, &c.context);
		current_ = nullptr;
	}

	/* All that can make a difference from here on. */
	[[nodiscard]] std::string key() const
	{
		std::string k;

		k += static_cast<char>('0' + state_);
		k += locked_ ? 'L' : '-';
		for (unsigned s = 0; s < nr_slots; s++) {
			k += name(word(s), *word(s));
			k += !last_[s] ? '-' : live(last_[s]) ? 'T' : 't';
			k += before_[s] ? 'b' : '-';
		}
		for (const Cpu &c : cpu_) {
			k += static_cast<char>('a' + c.op);
			k += static_cast<char>('0' + c.arg);
			k += !c.slot ? '-' : static_cast<char>('0' + slots_.index(c.slot));
			k += c.op == idle || !c.token ? '-' : live(c.token) ? 'T' : 't';
			if (c.op == idle)
				continue;
			k += c.epoch == epoch_ ? '=' : '/';
			for (const Seen &s : c.seen) {
				k += which(s.at);
				k += name(s.at, s.value);
			}
			k += which(c.at);
		}
		return k;
	}
	[[nodiscard]] bool is_gone() const
	{
		return state_ == gone;
	}
	/* What was broken, if something was. */
	std::string wrong;
	unsigned entered = 0, resumed = 0, killed_runs = 0;

private:
	struct Seen {
		const u64 *at;
		u64 value;
	};
	struct Cpu {
		ucontext_t context;
		std::vector<char> stack;
		Slot *slot;
		u8 op, arg;
		u64 token, epoch;
		const u64 *at;
		std::vector<Seen> seen;
	};

	/* --- what a vCPU does; vm.h, gate.cc and domain.cc without what is not of the protocol --- */

	void body(Cpu &c)
	{
		for (;;) {
			switch (c.op) {
			case enter:
				c.epoch = load(&epoch_);
				if (load(&state_) != sealed)
					break;
				if (Slot *s = slots_.claim(index(c), c.epoch))
					got(c, s, c.epoch == epoch_, "enter");
				break;
			case leave: {
				Slot *s = c.slot;

				c.slot = nullptr;
				check(s->release(epoch_), "leave: its own slot");
				break;
			}
			case aexit: {
				Slot *s = c.slot;
				const unsigned n = slots_.index(s);
				const u64 token = slots_.token(s, ++tokens_ << 16);

				/* From the exchange on it may be another's; it knows the token then. */
				c.slot = nullptr;
				c.token = token;
				check(s->aexit(token), "aexit: its own slot");
				before_[n] = last_[n];
				last_[n] = token;
				issued_[token] = epoch_;
				break;
			}
			case resume_last:
			case resume_before:
			case drop:
				if (load(&state_) != sealed)
					break;
				if (Slot *s = slots_.resume(c.token)) {
					check(issued_.count(c.token) && issued_[c.token] == epoch_,
					      "resume: the token was used, or of another domain");
					issued_.erase(c.token);
					check(slots_.index(s) == c.token % Slots::max, "resume: the slot");
					if (c.op == drop) {
						check(!owned(s), "drop: somebody runs on it");
						check(s->release(epoch_), "drop: its own slot");
						break;
					}
					got(c, s, true, "resume");
				}
				break;
			case destroy:
				locked_ = true;
				store(&state_, dying);
				if (slots_.close(true) == 0) {
					for (const Cpu &o : cpu_)
						check(!o.slot, "destroy: somebody is inside");
					for (unsigned s = 0; s < nr_slots; s++)
						check(slots_[s].state() == Slot::State::Closed,
						      "destroy: a slot is open");
					issued_.clear();
					store(&state_, gone);
				}
				locked_ = false;
				break;
			case create:
				locked_ = true;
				store(&epoch_, epoch_ + 1);
				slots_.init(nr_slots, view, epoch_);
				store(&state_, sealed);
				locked_ = false;
				break;
			default:
				break;
			}
			c.op = idle;
			c.token = 0;
			swapcontext(&c.context, &scheduler_);
		}
	}

	void got(Cpu &c, Slot *s, bool of_this_domain, const char *how)
	{
		check(of_this_domain, std::string(how) + ": another domain's door");
		check(state_ != gone, std::string(how) + ": the domain is dead");
		check(!owned(s), std::string(how) + ": two vCPUs on one slot");
		c.slot = s;
		(c.op == enter ? entered : resumed)++;
	}
	[[nodiscard]] bool owned(const Slot *s) const
	{
		for (const Cpu &o : cpu_)
			if (o.slot == s)
				return true;
		return false;
	}
	void check(bool ok, const std::string &what)
	{
		if (!ok && wrong.empty())
			wrong = what;
	}

	u64 load(const u64 *at)
	{
		on_step(at);
		return *at;
	}
	void store(u64 *at, u64 v)
	{
		on_step(at);
		*at = v;
	}

	/* --- scheduling --- */

	static void on_step(const u64 *at)
	{
		Run &r = *self_;
		Cpu *c = r.current_;

		if (!c)
			return;
		c->at = at;
		swapcontext(&c->context, &r.scheduler_);
	}
	static void trampoline(unsigned i)
	{
		self_->body(self_->cpu_[i]);
	}
	void start(unsigned i)
	{
		Cpu &c = cpu_[i];

		c.slot = nullptr;
		c.op = idle;
		c.arg = 0;
		c.token = c.epoch = 0;
		c.at = nullptr;
		c.seen.clear();
		getcontext(&c.context);
		c.context.uc_stack.ss_sp = c.stack.data();
		c.context.uc_stack.ss_size = c.stack.size();
		c.context.uc_link = nullptr;
		makecontext(&c.context, reinterpret_cast<void (*)()>(trampoline), 1, i);
	}
	[[nodiscard]] unsigned index(const Cpu &c) const
	{
		return static_cast<unsigned>(&c - cpu_);
	}

	/* --- names --- */

	/* Where a slot's state is: what the real code tells the hook. */
	[[nodiscard]] const u64 *word(unsigned s) const
	{
		static const u64 *found;

		auto *was = current_;
		auto &self = const_cast<Run &>(*this);

		self.current_ = nullptr;
		test_on_slot_step([](const u64 *at) { found = at; });
		(void)self.slots_[s].state();
		test_on_slot_step(on_step);
		self.current_ = was;
		return found;
	}
	[[nodiscard]] bool live(u64 token) const
	{
		for (unsigned s = 0; s < nr_slots; s++)
			if (*word(s) == token)
				return true;
		return false;
	}
	[[nodiscard]] char which(const u64 *at) const
	{
		return at == &epoch_ ? 'E' : at == &state_ ? 'S' : at == word(0) ? '0' : '1';
	}
	[[nodiscard]] char name(const u64 *at, u64 value) const
	{
		if (at == &epoch_)
			return value == epoch_ ? '=' : '/';
		if (at == &state_)
			return static_cast<char>('0' + value);
		if (value & Slot::token_bit)
			return live(value) ? 'T' : 't';
		/* Free of this epoch, or of one before; Running; Closed. */
		return value & 3 ? static_cast<char>('q' + value) : value >> 2 == epoch_ ? 'f' : 'o';
	}

	inline static Run *self_;
	ucontext_t scheduler_;
	Cpu cpu_[nr_cpus];
	Cpu *current_ = nullptr;
	S slots_;
	u64 state_, epoch_, tokens_;
	bool locked_;
	u64 last_[nr_slots], before_[nr_slots];
	std::map<u64, u64> issued_; /* tokens that are good once, and the epoch of each */
};

struct Explored {
	std::string wrong, path;
	usize states = 0, steps = 0, depth = 0;
	usize gone = 0;	  /* states in which the domain is */
	usize stuck = 0;  /* from which it cannot come to that */
	bool seen[nr_ops] = {};
};

template <class S> Explored explore(usize max_states = 5000000)
{
	struct Node {
		u32 parent;
		Choice how;
		u32 depth;
		bool gone = false;
	};
	std::deque<Node> nodes;
	std::unordered_map<std::string, u32> known;
	std::vector<std::vector<u32>> before; /* edges, backwards */
	auto run = std::make_unique<Run<S>>();
	Explored e;
	auto path_to = [&](u32 n) {
		std::vector<Choice> p;

		for (; n; n = nodes[n].parent)
			p.insert(p.begin(), nodes[n].how);
		return p;
	};

	run->reset();
	nodes.push_back({0, {}, 0});
	before.emplace_back();
	known[run->key()] = 0;
	for (u32 n = 0; n < nodes.size() && nodes.size() < max_states; n++) {
		const std::vector<Choice> path = path_to(n);

		run->reset();
		for (const Choice &c : path)
			run->step(c);
		const std::vector<Choice> next = run->choices();

		for (usize i = 0; i < next.size(); i++) {
			if (i) {
				run->reset();
				for (const Choice &c : path)
					run->step(c);
			}
			run->step(next[i]);
			e.steps++;
			e.seen[next[i].op] = true;
			if (!run->wrong.empty()) {
				e.wrong = run->wrong;
				for (const Choice &c : path)
					e.path += std::to_string(c.cpu) + " " + op_names[c.op] + "; ";
				e.path += std::to_string(next[i].cpu) + " " + op_names[next[i].op];
				return e;
			}
			const auto [at, is_new] = known.try_emplace(run->key(), static_cast<u32>(nodes.size()));

			if (is_new) {
				nodes.push_back({n, next[i], nodes[n].depth + 1, run->is_gone()});
				before.emplace_back();
			}
			before[at->second].push_back(n);
		}
	}
	e.states = nodes.size();
	e.depth = nodes.back().depth;

	/* From where can it come to an end? */
	std::vector<bool> ends(nodes.size());
	std::vector<u32> todo;

	for (u32 n = 0; n < nodes.size(); n++)
		if (nodes[n].gone) {
			e.gone++;
			ends[n] = true;
			todo.push_back(n);
		}
	while (!todo.empty()) {
		const u32 n = todo.back();

		todo.pop_back();
		for (u32 b : before[n])
			if (!ends[b]) {
				ends[b] = true;
				todo.push_back(b);
			}
	}
	for (bool b : ends)
		e.stuck += !b;
	return e;
}

/* --- what the check must find --------------------------------------------------- */

/* Does not look at the epoch. */
struct NoEpoch : Slots {
	u64 now = 0;

	void init(unsigned n, u8 v, u64 epoch)
	{
		now = epoch;
		Slots::init(n, v, epoch);
	}
	Slot *claim(unsigned hint, u64)
	{
		return Slots::claim(hint, now);
	}
};

/* Says that all are closed when one still runs. */
struct ForgetsRunning : Slots {
	unsigned close(bool kill)
	{
		unsigned left = 0;

		(void)Slots::close(kill);
		for (unsigned i = 0; i < size(); i++)
			left += (*this)[i].state() == Slot::State::Exited;
		return left;
	}
};

/* Looks first and acts then, and a token may have gone in between. */
struct LooksFirst : Slots {
	Slot *resume(u64 token)
	{
		Slot &s = (*this)[static_cast<unsigned>(token % max % size())];

		if (s.state() != Slot::State::Exited)
			return nullptr;
		/* Whatever token it has now. */
		for (u64 t = 1; t < 64; t++)
			if (s.resume(this->token(&s, t << 16)))
				return &s;
		return nullptr;
	}
};

/* Leaves what was interrupted: its token is good in the next domain. */
struct SparesExited : Slots {
	unsigned close(bool)
	{
		unsigned left = Slots::close(false);

		for (unsigned i = 0; i < size(); i++)
			left -= (*this)[i].state() == Slot::State::Exited;
		return left;
	}
};

} // namespace

TEST(C8, EveryInterleavingOfTwoVcpusAndTwoSlots)
{
	const Explored e = explore<Slots>();

	EXPECT_EQ(e.wrong, "") << e.path;
	std::cout << e.states << " states, " << e.steps << " steps, " << e.depth << " deep, " << e.gone
		  << " without the domain\n";
	RecordProperty("states", static_cast<int>(e.states));
	EXPECT_LT(e.states, 5000000u) << "not all of them were seen";
	EXPECT_GT(e.states, 1000u);
	EXPECT_GT(e.gone, 0u);
	EXPECT_EQ(e.stuck, 0u) << "a domain that cannot be destroyed";
	for (unsigned op = 1; op < nr_ops; op++)
		EXPECT_TRUE(e.seen[op]) << op_names[op];
}

/* A check that finds nothing in these finds nothing. */
TEST(C8, TheModelCheckFindsMistakes)
{
	EXPECT_EQ(explore<NoEpoch>().wrong, "enter: another domain's door");
	EXPECT_EQ(explore<ForgetsRunning>().wrong, "destroy: somebody is inside");
	EXPECT_EQ(explore<LooksFirst>().wrong, "resume: the token was used, or of another domain");
	EXPECT_EQ(explore<SparesExited>().wrong, "destroy: a slot is open");
}
