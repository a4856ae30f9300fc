// SPDX-License-Identifier: GPL-2.0
/*
 * One step of the machine: what machine*.cc share. A Step lives for one event.
 *
 * Guards: each condition that keeps two from running has a name here, and the tests switch them off one by one: the
 * model check must find what then goes wrong. In the agent's build off() is the constant false.
 */
#pragma once

#include "machine.h"

namespace redoubt::standby {

enum class Guard : u8 {
	None,
	/* messages */
	Linked,		/* only on a connection */
	FromBoot,	/* only from the boot that the last LinkUp named */
	ToBoot,		/* only to this boot */
	DeadPeer,	/* nothing from a boot that was proven dead */
	/* primary */
	PreparedEpoch,
	DiscardedEpoch,
	EmptyEpoch,
	FencedBoot,	/* primary resumes: it was the boot that has the image */
	BarredResume,
	SealedNoResume, /* Sealed: an abort asks the standby first */
	AbortNoRelease, /* Aborting: PREPARED is answered with DISCARD */
	ReleasedNoResume,
	RunningEpoch,
	RanSealed,	/* a VM that somebody let run: its image is discarded, */
	RanRebooted,	/* ... also if this host goes down behind that */
	CommitBeforeAnew, /* Released: only EMPTY of this epoch frees it */
	/* standby */
	BeginEpoch,
	EndWhole,	/* all of it is there */
	EndDigest,	/* and it is what was sent */
	EndEpoch,
	CommitState,	/* only a Complete image runs */
	CommitEpoch,
	GoneEpoch,
	TakeFencedBoot, /* standby starts: it was the primary's boot */
	VerifyImage,	/* after a restart of the agent the image is hashed anew */
	/* from the disk */
	ColdProof,
	ColdBoot,	/* ... of the right boot */
	YieldEpoch,
	/* records: written at all, */
	WriteRun,
	WriteFrozen,
	WriteSealed,
	WriteAborting,
	WriteReleased,
	WriteVoid,
	WriteComplete,
	WriteDiscarded,
	WriteStarted,
	WritePeer,	/* anew when the peer has rebooted */
	/* on disk before what follows, */
	SyncRun,
	SyncFrozen,	/* when the epoch is above that of RUN */
	/* and read well */
	RebootRun,	/* Run is void after a reboot */
	Nr,
};

#ifdef RDT_UNIT_TEST
extern Guard guard_off;
inline bool off(Guard g)
{
	return guard_off == g;
}
#else
constexpr bool off(Guard)
{
	return false;
}
#endif
/* A guarded condition: holds, or is switched off. */
constexpr bool guard(Guard g, bool ok)
{
	return ok || off(g);
}

class Step {
public:
	Step(const Machine::Config &config, u64 boot, Machine::Memory &memory, u64 now, Actions &out)
		: c(config), boot_(boot), m(memory), now_(now), out_(out)
	{
	}
	void start(const Record *last, Vm vm, bool primary);
	void event(const Event &ev);

private:
	/* machine.cc */
	void message(const Event &ev);
	void link_up(u64 from);
	void tick();
	void same_boot(const Record &r, Vm vm);
	void other_boot(const Record &r);

	/* machine_primary.cc: Active to Released */
	void go();
	void anew();
	void begin_again();
	void copy();
	void sent(const Event &ev);
	void abort();
	void resume(bool say_discard);
	void discard();
	void lost();
	void ran();
	void vm_gone(bool kept);
	void say_again();
	void fenced(u64 from);
	void peer_dead(u64 boot);
	void primary_message(const Event &ev);
	void active_message(const Event &ev);
	void released_message(const Event &ev);
	void handed_over(u64 epoch, Report why);

	/* machine_standby.cc: Void to Starting */
	void standby_message(const Event &ev);
	void image_end(const Event &ev);
	void discard_asked(u64 epoch);
	void nothing_of(u64 epoch, Msg answer);
	void claimed(const Event &ev);
	void take_over();
	void loaded();
	void load_failed();
	void verified(const Event &ev);
	void promote(u64 from);
	void cold_start(u64 epoch);

	void journal(Kind kind, u64 epoch, bool sync, u8 flags = 0, const Digest &digest = {});
	void send(Msg msg, u64 epoch, const Digest &digest = {});
	void report(Report r);
	void enter(State s, u64 epoch);
	[[nodiscard]] u64 next_epoch() const
	{
		return max_of(m.high, m.floor) + 1;
	}
	[[nodiscard]] bool can_resume() const
	{
		return m.vm == Vm::Stopped && guard(Guard::BarredResume, !m.barred);
	}
	/* Frozen, Sealed, Aborting */
	[[nodiscard]] bool holding() const
	{
		return m.state == State::Frozen || m.state == State::Sealed || m.state == State::Aborting;
	}
	[[nodiscard]] u8 bar() const
	{
		return static_cast<u8>((m.barred ? rec_barred : 0) | (m.ran ? rec_ran : 0));
	}

	const Machine::Config &c;
	u64 boot_;
	Machine::Memory &m;
	u64 now_;
	Actions &out_;
};

} // namespace redoubt::standby
