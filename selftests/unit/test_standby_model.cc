// SPDX-License-Identifier: GPL-2.0
/*
 * F3, F4: never two, by exhausting the very classes of src/core/standby (standby_world.h): breadth first, until no new
 * state comes up. In each state
 *   N1 at most one host runs the VM
 *   N2 what begins to run is the last state of the VM, N3 whole and of its epoch
 *   N4 the primary never runs what it has released
 *   N5 if nobody runs, a side is in a state that reports what it waits for
 *   N6 from there, once nothing fails any more, one runs, or a side is void
 *   N7 an image that was released is not thrown away
 * and each guard of the machine, switched off, must be found by this.
 *
 * RDT_STANDBY_DEEP=1: more failures, messages and epochs at once; minutes to hours, gigabytes.
 * States are known by 64 bits of hash: of 10^7 states two are mistaken for one with a chance of 3 in a million.
 */
#include <cstdlib>
#include <iostream>

#include <gtest/gtest.h>

#include "standby/machine_inside.h"
#include "standby_world.h"

using namespace standby_world;

namespace {

u64 hash_of(const World &w)
{
	const unsigned char *p = reinterpret_cast<const unsigned char *>(&w);
	u64 h = 0x9e3779b97f4a7c15ull;
	std::size_t n = sizeof(w) - sizeof(w.ch) + w.nr * sizeof(Message);

	for (; n >= 8; n -= 8, p += 8) {
		u64 x;
		std::memcpy(&x, p, 8);
		h = (h ^ x) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	for (; n != 0; n--, p++)
		h = (h ^ *p) * 0x100000001b3ull;
	h ^= h >> 29;
	h *= 0xc4ceb9fe1a85ec53ull;
	h ^= h >> 32;
	return h != 0 ? h : 1;
}

/* A set of hashes, open addressing. */
class Seen {
public:
	bool add(u64 h)
	{
		if (2 * n_ >= slot_.size())
			grow();
		u64 &s = find(h);
		if (s == h)
			return false;
		s = h;
		n_++;
		return true;
	}
	[[nodiscard]] std::size_t size() const
	{
		return n_;
	}

private:
	u64 &find(u64 h)
	{
		std::size_t i = h & (slot_.size() - 1);

		while (slot_[i] != 0 && slot_[i] != h)
			i = (i + 1) & (slot_.size() - 1);
		return slot_[i];
	}
	void grow()
	{
		std::vector<u64> old(std::max<std::size_t>(slot_.size() * 2, 1 << 16));

		old.swap(slot_);
		for (u64 h : old)
			if (h != 0)
				find(h) = h;
	}
	std::vector<u64> slot_;
	std::size_t n_ = 0;
};

bool runs(const World &w)
{
	return w.h[0].vm == u8(Vm::Running) || w.h[1].vm == u8(Vm::Running);
}

/* N5: a side that is up says what is the matter (at each tick, or when it came to be so). */
bool explained(const World &w)
{
	for (const Host &h : w.h) {
		const State s = State(h.m.state);

		if (!h.up || (s != State::Empty && s != State::Receiving && s != State::Verifying))
			return true;
	}
	return false;
}

/* N6: as good as it gets without the cluster. */
bool settled(const World &w)
{
	if (runs(w))
		return true;
	/* A whole image, and nobody who lets it run: not at rest. */
	for (const Host &h : w.h)
		if (!h.up || h.m.state == u8(State::Complete))
			return false;
	for (const Host &h : w.h) {
		const State s = State(h.m.state);

		/* The flag: a VMM refused the image, and the operator was told. */
		if (h.up && s == State::Starting && (h.m.flags & 32))
			return true;
		if (h.up && (s == State::Void || s == State::Claiming || (s == State::Active && h.m.vm == u8(Vm::None))))
			return true;
	}
	return false;
}

/* Nothing fails any more, and everything happens in its turn: does it come to rest? */
bool comes_to_rest(World w, const Bounds &bounds, std::string *how)
{
	Bounds fair = bounds;

	fair.room = max_room;
	fair.cluster = false;
	Runner r(fair);
	const auto go = [&](Do what, u8 host, u8 arg = 0) {
		World next = w;
		bool able;

		if (what == Do::Deliver && w.nr <= arg)
			return false;
		r.step(next, {what, host, arg, 0, 0, 1}, &able);
		if (able && how)
			*how += "    " + Runner::text(w, {what, host, arg, 0, 0, 1}) + "\n" + Runner::text(next) + "\n";
		if (able)
			w = next;
		return able;
	};

	for (u8 i = 0; i < 2; i++)
		w.h[i].proof = 0;
	for (unsigned round = 0; round < 12; round++) {
		if (settled(w))
			return true;
		for (u8 i = 0; i < 2; i++) {
			go(Do::Start, i);
			go(Do::Verified, i);
		}
		for (u8 i = 0; i < 2; i++)
			if (!(w.h[i].m.flags & 1) || w.h[i].m.peer != boot_of(1 - i, w.h[1 - i].boot))
				go(Do::LinkUp, i);
		/* Each once, then it is gone. */
		for (unsigned n = w.nr; n-- != 0;) {
			const Message m = w.ch[0];

			go(Do::Deliver, u8(1 - m.src), 0);
			for (unsigned k = 0; k < w.nr; k++) {
				if (w.ch[k] != m)
					continue;
				for (; k + 1 < w.nr; k++)
					w.ch[k] = w.ch[k + 1];
				w.nr--;
			}
		}
		for (u8 i = 0; i < 2; i++) {
			go(Do::Part, i, 0);
			go(Do::Part, i, 1);
			go(Do::Sent, i);
			go(Do::VmmLoaded, i);
			go(Do::Loaded, i);
			go(Do::Tick, i);
		}
	}
	return settled(w);
}

struct Result {
	std::size_t states = 0, steps = 0;
	bool all = false; /* no new state is left */
	std::string bad, trace;
};

/* Where a search begins: much is found sooner in the middle of a handover. */
enum class From : u8 { New, Linked, Complete, Released, Void, OldProof, OldGone, OldCommit, Claimed };
struct Scripted {
	Do what;
	u8 host, arg;
	Msg msg; /* of Deliver */
};
using Script = std::vector<Scripted>;

Script operator+(Script a, const Script &b)
{
	a.insert(a.end(), b.begin(), b.end());
	return a;
}
Scripted on(u8 host, Do what, u8 arg = 0)
{
	return {what, host, arg, Msg::None};
}
Scripted gets(u8 host, Msg msg)
{
	return {Do::Deliver, host, 0, msg};
}
/* Host i sends, and the other gets it all. */
Script sends(u8 i)
{
	return {gets(u8(1 - i), Msg::Begin), on(i, Do::Part, 0), on(i, Do::Part, 1), on(i, Do::Sent), gets(u8(1 - i), Msg::End)};
}
const Script linked = {on(0, Do::LinkUp), on(1, Do::LinkUp)};
const Script taken = {gets(1, Msg::Commit), on(1, Do::VmmLoaded), on(1, Do::Loaded)};

const Script scripts[] = {
	{},
	linked,
	linked + Script{on(0, Do::Trigger)} + sends(0),
	linked + Script{on(0, Do::Trigger)} + sends(0) + Script{gets(0, Msg::Prepared)},
	Script{on(0, Do::HostDies), on(0, Do::Start)} + linked,
	/* The standby is fenced and comes back; then it gets the image. The proof has not arrived. */
	linked + Script{on(0, Do::Trigger), on(0, Do::Sent), on(1, Do::Fence), on(1, Do::Start)} + linked + sends(0),
	/* Host 0 says GONE(1), comes back as the standby, as the primary, and is Sealed(3): its GONE still lies there. */
	linked + Script{on(0, Do::Trigger)} + sends(0) + Script{on(0, Do::HostDies), on(0, Do::Start)} + linked +
		Script{gets(0, Msg::Ask), gets(1, Msg::Gone), on(1, Do::VmmLoaded), on(1, Do::Loaded), on(1, Do::Trigger)} +
		sends(1) + Script{gets(1, Msg::Prepared), gets(0, Msg::Commit), on(0, Do::VmmLoaded), on(0, Do::Loaded),
				  gets(1, Msg::Running), on(0, Do::Trigger)} + sends(0),
	/* The VM goes to host 1 and back, and is Sealed(3): the first COMMIT still lies there. */
	linked + Script{on(0, Do::Trigger)} + sends(0) + Script{gets(0, Msg::Prepared)} + taken +
		Script{gets(0, Msg::Running), on(1, Do::Trigger)} + sends(1) +
		Script{gets(1, Msg::Prepared), gets(0, Msg::Commit), on(0, Do::VmmLoaded), on(0, Do::Loaded),
		       gets(1, Msg::Running), on(0, Do::Trigger)} + sends(0),
	/* Host 0 is fenced, comes back, claims, and sends. The proof has not arrived. */
	linked + Script{on(0, Do::Fence), on(0, Do::Start)} + linked +
		Script{on(0, Do::Promote), gets(1, Msg::Claim), gets(0, Msg::Yield), on(0, Do::Loaded), on(0, Do::Trigger),
		       gets(1, Msg::Begin), gets(0, Msg::Empty)} + sends(0),
};

void follow(World &w, const Scripted &x)
{
	Bounds wide{};
	bool able = false;

	wide.room = max_room;
	wide.cluster = wide.bounded = true;
	Runner r(wide);
	const u8 crashes = w.crashes, fences = w.fences;
	w.crashes = w.fences = 1;
	Choice c{x.what, x.host, x.arg, 0, 0, 1};
	bool found = x.what != Do::Deliver;
	/* The one of the highest epoch. */
	for (u8 k = 0; x.what == Do::Deliver && k < w.nr; k++)
		if (w.ch[k].src != x.host && w.ch[k].msg == u8(x.msg) && (!found || w.ch[k].epoch > w.ch[c.arg].epoch)) {
			c.arg = k;
			found = true;
		}
	const char *bad = found ? r.step(w, c, &able) : "no such message";
	w.crashes = crashes;
	w.fences = fences;
	if (bad != nullptr || !able)
		std::cerr << "script: " << (bad ? bad : "not able") << ": " << Runner::text(w, c) << std::endl;
}

class Search {
public:
	explicit Search(const Bounds &b, From begin) : b_(b), r_(b)
	{
		first_state_ = r_.first();
		for (const Scripted &x : scripts[unsigned(begin)])
			follow(first_state_, x);
		/* What was under way is lost, but for what the search is about. */
		u8 n = 0;
		for (unsigned k = 0; k < first_state_.nr; k++)
			if ((begin == From::OldGone && first_state_.ch[k].msg == u8(Msg::Gone)) ||
			    (begin == From::OldCommit && first_state_.ch[k].msg == u8(Msg::Commit) && first_state_.ch[k].src == 0))
				first_state_.ch[n++] = first_state_.ch[k];
		for (unsigned k = n; k < first_state_.nr; k++)
			first_state_.ch[k] = {};
		first_state_.nr = n;
	}
	/* @rest_every: N6 of each so-many-th state. */
	Result run(std::size_t max_states, unsigned rest_every)
	{
		std::vector<Choice> choices;

		visit(first_state_, 0, {});
		for (std::size_t at = 0; at < from_.size() && out_.bad.empty(); at++) {
			if (from_.size() > max_states)
				return finish();
			const World w = front();

			r_.choices(w, choices);
			for (const Choice &c : choices) {
				expand(w, at, c);
				if (!out_.bad.empty())
					break;
			}
			if (out_.bad.empty() && !runs(w)) {
				if (w.h[0].up && w.h[1].up && !explained(w))
					fail("N5: nobody runs, and nobody says why", at);
				else if (rest_every && hash_of(w) % rest_every == 0 && !comes_to_rest(w, b_, nullptr)) {
					std::string how;
					comes_to_rest(w, b_, &how);
					fail("N6: all is well again, and nobody runs", at);
					out_.trace += "  then, without faults:\n" + how;
				}
			}
		}
		out_.all = out_.bad.empty();
		return finish();
	}

private:
	struct Parent {
		u32 state;
		Choice c;
	};
	/* The frontier, in blocks that are given back when they are done. */
	World front()
	{
		if (first_ == queue_.front().size()) {
			queue_.erase(queue_.begin());
			first_ = 0;
		}
		return queue_.front()[first_++];
	}
	void visit(const World &w, std::size_t from, const Choice &c)
	{
		if (!seen_.add(hash_of(w)))
			return;
		if (queue_.empty() || queue_.back().size() == 65536) {
			queue_.emplace_back();
			queue_.back().reserve(65536);
		}
		queue_.back().push_back(w);
		from_.push_back({u32(from), c});
	}
	/* One choice; then the same with each message lost that it would push out; then with death in the middle. */
	void expand(const World &w, std::size_t at, Choice c)
	{
		World next = w;
		bool able;

		if (!take(next, w, at, c, &able) || !able)
			return;
		const unsigned acts = r_.actions();
		const bool machine = c.what <= Do::VmLost || c.what == Do::Start;

		if (r_.overflowed())
			for (u8 k = 1; k <= b_.room; k++) {
				Choice x = c;
				x.evict = k;
				next = w;
				if (!take(next, w, at, x, &able))
					return;
			}
		if (!machine || w.crashes == 0)
			return;
		for (u8 k = 0; k < acts; k++)
			for (u8 host = 0; host < 4; host++) {
				/* Behind the last action: the death is a step of its own. */
				Choice x = c;
				x.dies = u8(k + 1);
				x.host_dies = host;
				if (host > 1 && host - 1u > w.h[c.host].unsynced + 1u)
					break;
				next = w;
				if (!take(next, w, at, x, &able))
					return;
			}
	}
	bool take(World &next, const World &w, std::size_t at, const Choice &c, bool *able)
	{
		const char *bad = r_.step(next, c, able);

		if (!*able)
			return true;
		out_.steps++;
		if (bad != nullptr) {
			from_.push_back({u32(at), c});
			fail(bad, from_.size() - 1);
			return false;
		}
		/* As far as is looked. */
		for (const Host &h : next.h)
			if (h.m.high > b_.epochs || h.m.claim > b_.epochs || h.m.floor > b_.epochs)
				return true;
		if (std::memcmp(&next, &w, sizeof(w)) != 0)
			visit(next, at, c);
		return true;
	}
	void fail(const char *what, std::size_t at)
	{
		std::vector<Choice> way;

		out_.bad = what;
		for (; at != 0; at = from_[at].state)
			way.push_back(from_[at].c);
		World w = first_state_;
		out_.trace += Runner::text(w) + "\n";
		for (; !way.empty(); way.pop_back()) {
			bool able;

			out_.trace += "  " + Runner::text(w, way.back()) + "\n";
			r_.step(w, way.back(), &able);
			out_.trace += Runner::text(w) + "\n";
		}
	}
	Result finish()
	{
		out_.states = seen_.size();
		return out_;
	}

	Bounds b_;
	Runner r_;
	World first_state_;
	Seen seen_;
	std::vector<std::vector<World>> queue_;
	std::size_t first_ = 0;
	std::vector<Parent> from_;
	Result out_;
};

Result search(const Bounds &b, Guard off_guard = Guard::None, std::size_t max = ~std::size_t{0}, unsigned rest = 16,
	      From begin = From::New)
{
	guard_off = off_guard;
	Result r = Search(b, begin).run(max, rest);
	guard_off = Guard::None;
	return r;
}

/* crashes, fences, faults, room, epochs, bounded mode, cluster */
struct Space {
	const char *name;
	From begin;
	Bounds bounds;
};

class StandbyModel : public testing::TestWithParam<Space> {};
class StandbyModelDeep : public testing::TestWithParam<Space> {};

void exhausts(const Space &s, unsigned rest)
{
	const Result r = search(s.bounds, Guard::None, ~std::size_t{0}, rest, s.begin);

	std::cout << "# " << r.states << " states, " << r.steps << " steps" << std::endl;
	EXPECT_EQ(r.bad, "") << r.trace;
	EXPECT_TRUE(r.all);
}

TEST_P(StandbyModel, F4_never_two)
{
	exhausts(GetParam(), 4);
}

TEST_P(StandbyModelDeep, F4_never_two)
{
	if (std::getenv("RDT_STANDBY_DEEP") == nullptr)
		GTEST_SKIP() << "RDT_STANDBY_DEEP=1";
	exhausts(GetParam(), 16);
}

const auto name_of = [](const auto &info) {
	return std::string(info.param.name);
};

INSTANTIATE_TEST_SUITE_P(F4, StandbyModel, testing::Values(
	Space{"messages", From::New, {0, 0, 0, 3, 2, false, false}},
	Space{"messages_two_attempts", From::New, {0, 0, 0, 2, 3, false, false}},
	Space{"crash", From::New, {1, 0, 0, 2, 2, false, false}},
	Space{"crash_when_released", From::Released, {1, 0, 0, 2, 3, false, false}},
	Space{"fencing_and_cluster", From::Complete, {0, 1, 0, 2, 2, false, true}},
	Space{"vmm_dies", From::New, {0, 0, 1, 2, 2, true, false}},
	Space{"crash_and_vmm_dies", From::Released, {1, 0, 1, 2, 2, false, false}},
	Space{"bounded", From::Linked, {0, 0, 0, 3, 2, true, false}},
	Space{"disk", From::Void, {0, 0, 0, 2, 3, false, true}},
	Space{"let_run", From::Linked, {0, 0, 1, 2, 3, false, false, true}},
	Space{"let_run_and_crash", From::Complete, {1, 0, 1, 2, 2, false, false, true}},
	Space{"late_proof", From::OldProof, {0, 1, 0, 2, 2, false, false}},
	Space{"late_gone", From::OldGone, {0, 1, 0, 2, 4, false, false}},
	Space{"late_proof_at_standby", From::Claimed, {0, 1, 0, 2, 4, false, false}}), name_of);

INSTANTIATE_TEST_SUITE_P(F4, StandbyModelDeep, testing::Values(
	Space{"messages", From::New, {0, 0, 0, 3, 4, false, false}},
	Space{"crash", From::New, {1, 0, 0, 2, 3, false, false}},
	Space{"two_crashes", From::Linked, {2, 0, 0, 2, 2, false, false}},
	Space{"crash_and_fencing", From::Linked, {1, 1, 0, 2, 2, false, false}},
	Space{"fencing_and_cluster", From::New, {0, 1, 0, 2, 3, false, true}},
	Space{"two_fencings", From::Linked, {0, 2, 0, 2, 2, false, true}},
	Space{"crash_fencing_and_cluster", From::Linked, {1, 1, 0, 2, 2, false, true}},
	Space{"bounded_crash_and_vmm_dies", From::Linked, {1, 0, 1, 2, 2, true, false}},
	Space{"fencing_and_vmm_dies", From::Linked, {0, 1, 1, 2, 2, false, false}},
	Space{"disk_and_crash", From::Void, {1, 0, 0, 2, 4, false, true}},
	Space{"late_proof_and_crash", From::OldProof, {1, 1, 0, 2, 2, false, false}},
	Space{"let_run_and_crash", From::Complete, {1, 0, 1, 2, 3, false, false, true}},
	Space{"all", From::Linked, {1, 1, 1, 2, 2, true, true}}), name_of);

/* A guard, and where its absence shows. */
struct Mutant {
	const char *name;
	Guard guard;
	From begin;
	Bounds bounds;
};

class StandbyMutant : public testing::TestWithParam<Mutant> {};

TEST_P(StandbyMutant, F4_is_found)
{
	const Mutant &m = GetParam();
	const Result r = search(m.bounds, m.guard, 2000000, 4, m.begin);

	EXPECT_NE(r.bad, "") << r.states << " states, and nothing is wrong without it";
	std::cout << "# " << r.states << " states: " << r.bad << std::endl;
	/* And it is the guard's absence that shows. */
	const Result whole = search(m.bounds, Guard::None, 2 * r.states, 4, m.begin);
	EXPECT_EQ(whole.bad, "") << whole.trace;
}

/* Every one has its search. */
const Mutant mutants[] = {
	{"Linked", Guard::Linked, From::Linked, {0, 1, 0, 2, 3, false, true}},
	{"FromBoot", Guard::FromBoot, From::Linked, {0, 1, 0, 2, 3, false, true}},
	{"ToBoot", Guard::ToBoot, From::Void, {0, 1, 0, 2, 3, false, true}},
	{"DeadPeer", Guard::DeadPeer, From::Linked, {0, 1, 0, 2, 3, false, true}},
	{"PreparedEpoch", Guard::PreparedEpoch, From::New, {0, 0, 0, 2, 2, false, false}},
	{"DiscardedEpoch", Guard::DiscardedEpoch, From::Complete, {0, 1, 0, 2, 3, false, false}},
	{"EmptyEpoch", Guard::EmptyEpoch, From::Complete, {0, 1, 0, 2, 3, false, false}},
	{"FencedBoot", Guard::FencedBoot, From::OldProof, {0, 1, 0, 2, 2, false, false}},
	{"BarredResume", Guard::BarredResume, From::Released, {1, 0, 0, 2, 2, false, false}},
	{"SealedNoResume", Guard::SealedNoResume, From::Complete, {0, 1, 0, 2, 2, false, false}},
	{"AbortNoRelease", Guard::AbortNoRelease, From::Complete, {0, 0, 0, 2, 2, false, false}},
	{"ReleasedNoResume", Guard::ReleasedNoResume, From::Released, {0, 0, 0, 2, 2, false, false}},
	{"RunningEpoch", Guard::RunningEpoch, From::New, {0, 0, 0, 2, 2, false, false}},
	{"RanSealed", Guard::RanSealed, From::Complete, {0, 0, 1, 2, 3, false, false, true}},
	{"RanRebooted", Guard::RanRebooted, From::Complete, {1, 0, 1, 2, 4, false, false, true}},
	{"CommitBeforeAnew", Guard::CommitBeforeAnew, From::Linked, {0, 0, 0, 2, 3, true, false}},
	{"BeginEpoch", Guard::BeginEpoch, From::Linked, {0, 0, 0, 2, 2, false, false}},
	{"EndWhole", Guard::EndWhole, From::Linked, {0, 0, 0, 2, 2, false, false}},
	{"EndDigest", Guard::EndDigest, From::Linked, {0, 0, 0, 2, 3, true, false}},
	{"EndEpoch", Guard::EndEpoch, From::Linked, {0, 0, 0, 2, 2, false, false}},
	{"CommitState", Guard::CommitState, From::Linked, {1, 0, 0, 2, 2, false, false}},
	{"CommitEpoch", Guard::CommitEpoch, From::OldCommit, {0, 1, 0, 2, 4, false, false}},
	{"GoneEpoch", Guard::GoneEpoch, From::OldGone, {0, 1, 0, 2, 4, false, false}},
	{"TakeFencedBoot", Guard::TakeFencedBoot, From::Claimed, {0, 1, 0, 2, 4, false, false}},
	{"VerifyImage", Guard::VerifyImage, From::Complete, {1, 0, 1, 2, 2, false, false}},
	{"ColdProof", Guard::ColdProof, From::New, {0, 0, 0, 2, 2, false, true}},
	{"ColdBoot", Guard::ColdBoot, From::Linked, {0, 1, 0, 2, 3, false, true}},
	{"YieldEpoch", Guard::YieldEpoch, From::Void, {0, 0, 0, 2, 4, false, true}},
	{"WriteRun", Guard::WriteRun, From::Complete, {1, 0, 0, 2, 2, false, false}},
	{"WriteFrozen", Guard::WriteFrozen, From::Linked, {1, 1, 0, 2, 2, false, false}},
	{"WriteSealed", Guard::WriteSealed, From::Complete, {1, 1, 0, 2, 2, false, false}},
	{"WriteAborting", Guard::WriteAborting, From::Complete, {1, 0, 0, 2, 2, false, false}},
	{"WriteReleased", Guard::WriteReleased, From::Released, {1, 0, 0, 2, 2, false, false}},
	{"WriteVoid", Guard::WriteVoid, From::Linked, {1, 0, 1, 2, 2, false, false}},
	{"WriteComplete", Guard::WriteComplete, From::Complete, {1, 0, 0, 2, 2, false, false}},
	{"WriteDiscarded", Guard::WriteDiscarded, From::Complete, {1, 1, 0, 2, 2, false, false}},
	{"WriteStarted", Guard::WriteStarted, From::Released, {1, 0, 1, 2, 2, false, false}},
	{"WritePeer", Guard::WritePeer, From::OldProof, {1, 1, 0, 2, 2, false, false}},
	{"SyncRun", Guard::SyncRun, From::Released, {1, 0, 0, 2, 3, false, false}},
	{"SyncFrozen", Guard::SyncFrozen, From::Linked, {1, 0, 0, 2, 2, false, false}},
	{"RebootRun", Guard::RebootRun, From::Linked, {0, 1, 0, 2, 3, false, true}},
};
static_assert(sizeof(mutants) / sizeof(mutants[0]) == unsigned(Guard::Nr) - 1);

INSTANTIATE_TEST_SUITE_P(F4, StandbyMutant, testing::ValuesIn(mutants), name_of);

} // namespace
