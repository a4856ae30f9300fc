// SPDX-License-Identifier: GPL-2.0
/*
 * F3, F4: the tables of Documentation/standby.md, section 5, row by row: what a machine does, in which order. That
 * this is enough is for test_standby_model.cc.
 */
#include <string>

#include <gtest/gtest.h>

#include "standby/machine.h"

using namespace redoubt;
using namespace redoubt::standby;

namespace {

constexpr u64 us = 1, peer = 2, again = 3;

Digest digest(u8 x)
{
	Digest d{};

	d.byte[0] = x;
	return d;
}

/* One side, its peer played by the test. "J" is a record that is synced, "j" one that is not. */
struct Side {
	Machine m{{.repeat_ms = 1000, .report_ms = 60000, .link_ms = 30000}, us};
	Record last = {};
	u64 now = 0;
	u64 from = peer;
	std::string reports;

	std::string words(const Actions &acts)
	{
		static const char *kinds[] = {"?", "run", "started", "frozen", "sealed", "aborting", "released", "void",
					      "complete", "discarded"};
		static const char *names[] = {"J", "send", "stream", "copy", "resend", "stop", "cont", "load", "boot", "drop",
					      "image-new", "image-drop", "verify", "lacks", "report"};
		std::string s;

		for (const Action &a : acts) {
			if (a.act == Act::Report) {
				reports = report_text(a.report);
				continue;
			}
			s += s.empty() ? "" : " ";
			if (a.act == Act::Journal) {
				s += std::string(a.sync ? "J:" : "j:") + kinds[unsigned(a.rec.kind)] +
				     std::to_string(a.rec.epoch);
				last = a.rec;
				EXPECT_EQ(a.rec.boot, us);
			} else if (a.act == Act::Send) {
				s += std::string(msg_name(a.msg)) + std::to_string(a.epoch);
				EXPECT_EQ(a.from, us);
				EXPECT_EQ(a.to, from);
			} else {
				s += names[unsigned(a.act)];
			}
		}
		return s;
	}
	std::string step(const Event &ev)
	{
		Actions acts;

		reports.clear();
		m.step(ev, now, acts);
		return words(acts);
	}
	std::string got(Msg msg, u64 epoch, u8 d = 0)
	{
		return step({.ev = Ev::Message, .msg = msg, .from = from, .to = us, .epoch = epoch, .digest = digest(d)});
	}
	std::string end(u64 epoch, u8 theirs, u8 ours, bool whole = true)
	{
		return step({.ev = Ev::Message, .msg = Msg::End, .whole = whole, .from = from, .to = us, .epoch = epoch,
			     .digest = digest(theirs), .mine = digest(ours)});
	}
	std::string sent(u64 epoch, u8 d)
	{
		return step({.ev = Ev::Sent, .epoch = epoch, .digest = digest(d)});
	}
	std::string link(u64 boot = peer)
	{
		from = boot;
		return step({.ev = Ev::LinkUp, .from = boot});
	}
	std::string fenced(u64 boot)
	{
		return step({.ev = Ev::Fenced, .from = boot});
	}
	std::string promote(u64 boot)
	{
		return step({.ev = Ev::Promote, .from = boot});
	}
	std::string begin(const Record *r, Vm vm, bool primary = false)
	{
		Actions acts;

		reports.clear();
		m.start(r, vm, primary, now, acts);
		return words(acts);
	}
	/* As if only the agent, or the host, had died. */
	std::string restart(Vm vm, u64 boot = us)
	{
		const Record r = last;

		m = Machine({.repeat_ms = 1000, .report_ms = 60000, .link_ms = 30000}, us);
		last.boot = boot == us ? us : 99;
		Record was = r;
		was.boot = last.boot;
		return begin(&was, vm);
	}

	/* To a state of the primary. */
	void active()
	{
		EXPECT_EQ(begin(nullptr, Vm::Running, true), "J:run1");
		EXPECT_EQ(link(), "running1");
	}
	void frozen()
	{
		active();
		EXPECT_EQ(step({.ev = Ev::Trigger}), "j:frozen1 stop begin1 stream");
	}
	void sealed()
	{
		frozen();
		EXPECT_EQ(sent(1, 5), "j:sealed1 end1");
	}
	void aborting()
	{
		sealed();
		EXPECT_EQ(step({.ev = Ev::Abort}), "j:aborting1 discard1");
	}
	void released()
	{
		sealed();
		EXPECT_EQ(got(Msg::Prepared, 1, 5), "j:released1 commit1");
	}
	/* And of the standby. */
	void receiving()
	{
		EXPECT_EQ(begin(nullptr, Vm::None), "");
		EXPECT_EQ(link(), "");
		EXPECT_EQ(got(Msg::Begin, 1), "image-new");
	}
	void complete()
	{
		receiving();
		EXPECT_EQ(end(1, 5, 5), "j:complete1 prepared1");
	}
	void running()
	{
		complete();
		EXPECT_EQ(got(Msg::Commit, 1), "J:run2 load");
		EXPECT_EQ(step({.ev = Ev::Loaded}), "j:started2 cont running2");
	}
};

TEST(StandbyMachine, F2_the_way_from_one_to_the_other)
{
	Side a, b;

	a.released();
	EXPECT_EQ(a.m.state(), State::Released);
	b.running();
	EXPECT_EQ(b.m.state(), State::Active);
	EXPECT_TRUE(b.m.runs());
	EXPECT_EQ(b.m.epoch(), 2u);
	/* The old primary is the new one's standby. */
	EXPECT_EQ(a.got(Msg::Running, 2), "drop j:discarded1");
	EXPECT_EQ(a.m.state(), State::Empty);
	EXPECT_EQ(b.step({.ev = Ev::Trigger}), "j:frozen2 stop begin2 stream");
	EXPECT_EQ(a.got(Msg::Begin, 2), "image-new");
}

TEST(StandbyMachine, F4_frozen)
{
	Side s;

	s.frozen();
	EXPECT_EQ(s.step({.ev = Ev::Abort}), "J:run2 cont discard1");
	EXPECT_EQ(s.m.state(), State::Active);
	s.frozen();
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "");
	/* The VMM is dead: it cannot go on, and is sent all the same. */
	EXPECT_EQ(s.step({.ev = Ev::VmDied}), "");
	EXPECT_EQ(s.step({.ev = Ev::Abort}), "");
	EXPECT_NE(s.reports, "");
	EXPECT_EQ(s.sent(1, 5), "j:sealed1 end1");
	s.frozen();
	EXPECT_EQ(s.step({.ev = Ev::VmLost}), "j:void1");
	EXPECT_EQ(s.m.state(), State::Void);
	/* Without a link it goes on here after a while. */
	s.frozen();
	EXPECT_EQ(s.step({.ev = Ev::LinkDown}), "");
	s.now = 29999;
	EXPECT_EQ(s.step({.ev = Ev::Tick}), "");
	s.now = 30000;
	EXPECT_EQ(s.step({.ev = Ev::Tick}), "J:run2 cont");
	/* The standby knows the epoch as used up. */
	s.now = 0;
	s.frozen();
	EXPECT_EQ(s.got(Msg::Empty, 4), "J:frozen5 begin5 stream");
	EXPECT_EQ(s.sent(1, 5), "");
	EXPECT_EQ(s.sent(5, 5), "j:sealed5 end5");
}

TEST(StandbyMachine, F4_sealed)
{
	Side s;

	s.sealed();
	EXPECT_EQ(s.got(Msg::Prepared, 2, 5), "");
	EXPECT_EQ(s.got(Msg::Lacks, 1), "resend");
	EXPECT_EQ(s.sent(1, 5), "end1");
	EXPECT_EQ(s.step({.ev = Ev::LinkDown}), "");
	EXPECT_EQ(s.link(), "begin1 end1");
	s.now = 1000;
	EXPECT_EQ(s.step({.ev = Ev::Tick}), "end1");
	s.now = 60000;
	EXPECT_EQ(s.step({.ev = Ev::Tick}), "end1");
	EXPECT_NE(s.reports.find("fencing"), std::string::npos);
	/* Of another image: thrown away there, and sent anew. */
	EXPECT_EQ(s.got(Msg::Prepared, 1, 6), "j:aborting1 discard1");
	EXPECT_EQ(s.got(Msg::Discarded, 1), "J:frozen2 begin2 stream");
	s.now = 0;
	s.sealed();
	EXPECT_EQ(s.got(Msg::Empty, 0), "");
	EXPECT_EQ(s.got(Msg::Discarded, 2), "");
	EXPECT_EQ(s.got(Msg::Empty, 1), "J:frozen2 begin2 stream");
	/* Only the boot that has the image: and then it goes on here. */
	s.sealed();
	EXPECT_EQ(s.fenced(again), "");
	EXPECT_NE(s.reports, "");
	EXPECT_EQ(s.fenced(0), "");
	EXPECT_EQ(s.fenced(peer), "J:run2 cont");
	EXPECT_EQ(s.link(peer), "");
	EXPECT_FALSE(s.m.link());
	/* The standby reboots: which boot may have the image is noted before it is told of it. */
	s.sealed();
	EXPECT_EQ(s.link(again), "j:sealed1 begin1 end1");
	EXPECT_EQ(s.last.peer, again);
	EXPECT_EQ(s.fenced(peer), "");
	/* The standby's image is the only one left. */
	s.sealed();
	EXPECT_EQ(s.step({.ev = Ev::VmLost}), "");
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "j:released1 commit1");
	s.sealed();
	EXPECT_EQ(s.step({.ev = Ev::VmLost}), "");
	EXPECT_EQ(s.got(Msg::Lacks, 1), "j:void1");
}

TEST(StandbyMachine, F4_aborting)
{
	Side s;

	s.aborting();
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "discard1");
	EXPECT_EQ(s.got(Msg::Discarded, 0), "");
	EXPECT_EQ(s.got(Msg::Discarded, 1), "J:run2 cont");
	s.aborting();
	EXPECT_EQ(s.got(Msg::Empty, 3), "J:run4 cont");
	s.aborting();
	EXPECT_EQ(s.fenced(peer), "J:run2 cont");
	/* The power goes again. */
	s.aborting();
	EXPECT_EQ(s.step({.ev = Ev::Trigger}), "");
	EXPECT_EQ(s.got(Msg::Discarded, 1), "J:frozen2 begin2 stream");
	s.aborting();
	EXPECT_EQ(s.restart(Vm::Stopped), "");
	EXPECT_EQ(s.m.state(), State::Aborting);
	EXPECT_EQ(s.link(), "discard1");
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "discard1");
}

TEST(StandbyMachine, F4_released_never_runs_again)
{
	Side s;

	s.released();
	EXPECT_EQ(s.step({.ev = Ev::Abort}), "");
	EXPECT_EQ(s.fenced(peer), "");
	EXPECT_EQ(s.promote(0), "");
	EXPECT_EQ(s.got(Msg::Ask, 1), "commit1");
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "commit1");
	EXPECT_EQ(s.got(Msg::Running, 1), "");
	EXPECT_EQ(s.restart(Vm::Stopped), "");
	EXPECT_EQ(s.link(), "commit1");
	/* The image is lost there: it may have it again, but nothing runs here. */
	EXPECT_EQ(s.got(Msg::Empty, 1), "J:frozen2 begin2 stream");
	EXPECT_EQ(s.last.flags & rec_barred, rec_barred);
	EXPECT_EQ(s.step({.ev = Ev::Abort}), "");
	EXPECT_EQ(s.restart(Vm::Stopped), "");
	EXPECT_EQ(s.step({.ev = Ev::Abort}), "");
	EXPECT_EQ(s.m.state(), State::Frozen);
	EXPECT_EQ(s.link(), "begin2 stream");
	EXPECT_EQ(s.sent(2, 5), "j:sealed2 end2");
	EXPECT_EQ(s.fenced(peer), "");
	/* After a reboot it is still what it was. */
	s.released();
	EXPECT_EQ(s.restart(Vm::None, 99), "");
	EXPECT_EQ(s.m.state(), State::Released);
	EXPECT_EQ(s.link(), "commit1");
	EXPECT_EQ(s.got(Msg::Empty, 1), "j:void1");
	/* It has run there and comes back, or is gone there. */
	s.released();
	EXPECT_EQ(s.got(Msg::Begin, 2), "drop j:discarded1 image-new");
	s.released();
	EXPECT_EQ(s.got(Msg::Gone, 2), "drop j:discarded1");
}

TEST(StandbyMachine, F3_receiving_never_starts)
{
	Side s;

	s.receiving();
	EXPECT_EQ(s.got(Msg::Commit, 1), "");
	EXPECT_EQ(s.got(Msg::Gone, 1), "");
	EXPECT_EQ(s.fenced(peer), "");
	EXPECT_EQ(s.step({.ev = Ev::LinkDown}), "");
	EXPECT_NE(s.reports.find("incomplete"), std::string::npos);
	EXPECT_EQ(s.link(), "");
	EXPECT_EQ(s.end(1, 5, 0, false), "lacks");
	EXPECT_EQ(s.end(1, 5, 6), "lacks");
	EXPECT_EQ(s.m.state(), State::Receiving);
	EXPECT_TRUE(s.m.receives(1, peer, us));
	EXPECT_FALSE(s.m.receives(2, peer, us));
	EXPECT_FALSE(s.m.receives(1, again, us));
	EXPECT_FALSE(s.m.receives(1, peer, again));
	EXPECT_EQ(s.got(Msg::Begin, 1), "");
	EXPECT_EQ(s.got(Msg::Begin, 3), "image-new");
	EXPECT_EQ(s.end(2, 5, 5), "");
	EXPECT_EQ(s.got(Msg::Discard, 2), "j:discarded2 discarded2");
	EXPECT_EQ(s.m.state(), State::Receiving);
	EXPECT_EQ(s.got(Msg::Discard, 3), "j:discarded3 image-drop discarded3");
	EXPECT_EQ(s.got(Msg::Begin, 3), "empty3");
	EXPECT_EQ(s.end(4, 5, 5), "j:discarded4 empty4");
}

TEST(StandbyMachine, F4_complete)
{
	Side s;

	s.complete();
	EXPECT_EQ(s.end(1, 5, 5), "prepared1");
	EXPECT_EQ(s.got(Msg::Commit, 2), "");
	EXPECT_EQ(s.got(Msg::Gone, 2), "");
	EXPECT_EQ(s.promote(0), "ask1");
	EXPECT_EQ(s.fenced(again), "");
	EXPECT_EQ(s.got(Msg::Claim, 5), "ask1");
	EXPECT_EQ(s.step({.ev = Ev::LinkDown}), "");
	EXPECT_EQ(s.link(), "ask1");
	EXPECT_EQ(s.fenced(peer), "J:run2 load");
	s.complete();
	EXPECT_EQ(s.link(again), "ask1");
	EXPECT_EQ(s.got(Msg::Gone, 1), "J:run2 load");
	EXPECT_EQ(s.last.flags, rec_image);
	EXPECT_EQ(s.last.digest, digest(5));
	s.complete();
	EXPECT_EQ(s.got(Msg::Discard, 1), "j:discarded1 image-drop discarded1");
	EXPECT_EQ(s.got(Msg::Commit, 1), "empty1");
	/* Only while it is still what it was. */
	s.complete();
	EXPECT_EQ(s.restart(Vm::None), "verify");
	EXPECT_EQ(s.link(), "");
	EXPECT_EQ(s.got(Msg::Commit, 1), "");
	EXPECT_EQ(s.step({.ev = Ev::Verified, .whole = true, .digest = digest(5)}), "ask1");
	EXPECT_EQ(s.got(Msg::Commit, 1), "J:run2 load");
	s.complete();
	EXPECT_EQ(s.restart(Vm::None), "verify");
	EXPECT_EQ(s.step({.ev = Ev::Verified, .whole = true, .digest = digest(6)}), "j:discarded1 image-drop");
	s.complete();
	EXPECT_EQ(s.restart(Vm::None, 99), "j:discarded1");
	EXPECT_EQ(s.link(), "");
	EXPECT_EQ(s.got(Msg::Commit, 1), "empty1");
}

TEST(StandbyMachine, F4_running)
{
	Side s;

	s.running();
	EXPECT_EQ(s.got(Msg::Commit, 1), "running2");
	EXPECT_EQ(s.end(1, 5, 5), "running2");
	EXPECT_EQ(s.got(Msg::Begin, 1), "running2");
	EXPECT_EQ(s.got(Msg::Claim, 7), "running2");
	EXPECT_EQ(s.got(Msg::Ask, 1), "discard1");
	/* The image has run: it is never loaded again. */
	EXPECT_EQ(s.restart(Vm::Running), "");
	EXPECT_EQ(s.restart(Vm::Stopped), "cont");
	EXPECT_EQ(s.restart(Vm::None), "");
	EXPECT_NE(s.reports.find("not there"), std::string::npos);
	EXPECT_EQ(s.restart(Vm::Kept), "j:frozen2");
	s.running();
	EXPECT_EQ(s.restart(Vm::None, 99), "j:void2");
	EXPECT_EQ(s.m.state(), State::Void);
	/* It has not yet. */
	s.complete();
	EXPECT_EQ(s.got(Msg::Commit, 1), "J:run2 load");
	EXPECT_EQ(s.restart(Vm::None), "verify");
	EXPECT_EQ(s.step({.ev = Ev::Verified, .whole = true, .digest = digest(5)}), "load");
	EXPECT_EQ(s.step({.ev = Ev::LoadFailed}), "");
	EXPECT_EQ(s.got(Msg::Commit, 1), "");
	EXPECT_EQ(s.promote(0), "verify");
	EXPECT_EQ(s.step({.ev = Ev::Verified, .whole = false, .digest = {}}), "j:started2");
	EXPECT_NE(s.reports.find("not there"), std::string::npos);
	EXPECT_EQ(s.promote(0), "J:run3 boot");
	EXPECT_EQ(s.step({.ev = Ev::Loaded}), "j:started3");
	/* Both: then none. */
	s.running();
	EXPECT_EQ(s.got(Msg::Running, 2), "stop j:void2");
	EXPECT_EQ(s.m.state(), State::Stuck);
	EXPECT_EQ(s.step({.ev = Ev::Trigger}), "");
	/* An agent that is begun again does not let it go on. */
	EXPECT_EQ(s.restart(Vm::Stopped), "");
	EXPECT_EQ(s.m.state(), State::Void);
}

/* A monitor's cont while the VM is being handed over. */
TEST(StandbyMachine, F4_somebody_lets_it_run)
{
	const Event ran = {.ev = Ev::VmRan};
	Side s;

	s.active();
	EXPECT_EQ(s.step(ran), "");
	s.frozen();
	EXPECT_EQ(s.step(ran), "stop J:frozen2 begin2 stream");
	EXPECT_EQ(s.sent(1, 5), "") << "of before";
	s.sealed();
	EXPECT_EQ(s.step(ran), "J:aborting1 stop discard1");
	EXPECT_EQ(s.last.flags, rec_ran);
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "discard1") << "never COMMIT";
	EXPECT_EQ(s.got(Msg::Discarded, 1), "J:frozen2 begin2 stream");
	EXPECT_EQ(s.last.flags, 0);
	/* The agent dies, and finds it running; then the host. */
	s.sealed();
	EXPECT_EQ(s.restart(Vm::Running), "J:aborting1 stop");
	EXPECT_EQ(s.restart(Vm::None, 99), "j:void2");
	EXPECT_EQ(s.link(), "");
	EXPECT_EQ(s.got(Msg::Ask, 1), "discard1") << "GONE would let the image run";
	/* Another VM in its place, on its disk: the image is stale, and there is nothing else. */
	s.sealed();
	EXPECT_EQ(s.step({.ev = Ev::VmLost}), "");
	EXPECT_EQ(s.step(ran), "J:aborting1 stop discard1");
	EXPECT_EQ(s.got(Msg::Discarded, 1), "j:void1");
	s.released();
	EXPECT_EQ(s.step(ran), "stop");
	EXPECT_NE(s.reports, "");
	EXPECT_EQ(s.m.state(), State::Released);
	s.complete();
	EXPECT_EQ(s.step(ran), "stop");
	EXPECT_EQ(s.m.state(), State::Complete);
	EXPECT_EQ(s.got(Msg::Commit, 1), "J:run2 load");
	EXPECT_EQ(s.step(ran), "stop");
	/* Stopped, not begun from the disk: whether it has run before is the agent's to know. */
	s.active();
	EXPECT_EQ(s.step({.ev = Ev::VmLost}), "");
	EXPECT_EQ(s.promote(0), "J:run2 boot");
	EXPECT_EQ(s.restart(Vm::Stopped), "boot");
	EXPECT_EQ(s.step(ran), "");
}

TEST(StandbyMachine, F4_void_and_the_disk)
{
	Side s;

	s.frozen();
	EXPECT_EQ(s.restart(Vm::None, 99), "j:void1");
	EXPECT_EQ(s.link(), "");
	EXPECT_EQ(s.got(Msg::Ask, 1), "gone1");
	EXPECT_EQ(s.promote(again), "");
	EXPECT_EQ(s.promote(0), "claim2");
	EXPECT_EQ(s.got(Msg::Yield, 1), "");
	EXPECT_EQ(s.got(Msg::Ask, 1), "gone1");
	EXPECT_EQ(s.got(Msg::Empty, 6), "claim7");
	EXPECT_EQ(s.got(Msg::Yield, 2), "");
	EXPECT_EQ(s.got(Msg::Yield, 7), "J:run7 boot");
	EXPECT_EQ(s.step({.ev = Ev::Loaded}), "j:started7 running7");
	/* With a proof, of the right boot; in a boot that has met nobody, of any. */
	s.frozen();
	EXPECT_EQ(s.restart(Vm::None, 99), "j:void1");
	EXPECT_EQ(s.promote(again), "J:run2 boot");
	/* The other way round: it yields what it does not have. */
	s.frozen();
	EXPECT_EQ(s.restart(Vm::None, 99), "j:void1");
	EXPECT_EQ(s.link(), "");
	EXPECT_EQ(s.got(Msg::Claim, 1), "empty1");
	EXPECT_EQ(s.got(Msg::Claim, 4), "j:void4 yield4");
	EXPECT_EQ(s.got(Msg::Ask, 1), "discard1");
	/* Two claim: the higher boot's counts. */
	EXPECT_EQ(s.promote(0), "claim5");
	EXPECT_EQ(s.got(Msg::Claim, 4), "empty4");
	EXPECT_EQ(s.got(Msg::Claim, 5), "j:void5 yield5");
	EXPECT_EQ(s.got(Msg::Yield, 5), "");
	EXPECT_EQ(s.got(Msg::Running, 5), "j:discarded5");
	EXPECT_EQ(s.got(Msg::Claim, 6), "j:discarded6 yield6");
	EXPECT_EQ(s.m.state(), State::Empty);
	/* Who holds a VM or an image does not yield. */
	s.frozen();
	EXPECT_EQ(s.got(Msg::Claim, 9), "");
	s.released();
	EXPECT_EQ(s.got(Msg::Claim, 9), "commit1");
}

TEST(StandbyMachine, F8_messages_of_other_boots_are_dropped)
{
	Side s;

	s.sealed();
	s.from = again;
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "");
	s.from = peer;
	EXPECT_EQ(s.step({.ev = Ev::Message, .msg = Msg::Prepared, .from = peer, .to = again, .epoch = 1,
			  .digest = digest(5)}), "");
	EXPECT_EQ(s.m.state(), State::Sealed);
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "j:released1 commit1");
}

TEST(StandbyMachine, F4_a_journal_that_cannot_be_written_ends_it)
{
	Side s;

	s.sealed();
	EXPECT_EQ(s.step({.ev = Ev::JournalFailed}), "");
	EXPECT_NE(s.reports, "");
	EXPECT_EQ(s.m.state(), State::Stuck);
	EXPECT_EQ(s.got(Msg::Prepared, 1, 5), "");
	EXPECT_EQ(s.link(), "");
	EXPECT_EQ(s.fenced(peer), "");
}

TEST(StandbyMachine, F5_bounded_mode_copies_while_it_runs)
{
	Side s;

	s.active();
	EXPECT_EQ(s.step({.ev = Ev::Copy}), "begin1 copy");
	EXPECT_EQ(s.step({.ev = Ev::Copy}), "");
	EXPECT_EQ(s.sent(1, 5), "");
	EXPECT_EQ(s.got(Msg::Empty, 3), "J:run4 begin4 copy");
	EXPECT_EQ(s.step({.ev = Ev::LinkDown}), "");
	EXPECT_EQ(s.link(), "running4 begin4 copy");
	EXPECT_EQ(s.step({.ev = Ev::VmDied}), "j:frozen4 begin4 stream");
	EXPECT_EQ(s.sent(4, 5), "j:sealed4 end4");
}

TEST(StandbyMachine, EachStateAndReportHasWords)
{
	for (unsigned i = 0; i <= unsigned(State::Stuck); i++)
		EXPECT_STRNE(state_name(State(i)), "?");
	for (unsigned i = 0; i <= unsigned(Report::NoVm); i++)
		EXPECT_STRNE(report_text(Report(i)), "?");
	for (unsigned i = 0; i <= unsigned(Msg::Ready); i++)
		EXPECT_STRNE(msg_name(Msg(i)), "?");
	EXPECT_STREQ(msg_name(Msg(77)), "?");
	EXPECT_STREQ(state_name(State(77)), "?");
}

} // namespace
