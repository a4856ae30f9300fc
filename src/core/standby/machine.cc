// SPDX-License-Identifier: GPL-2.0
/* The machine: how it begins, what is the same in all states, and who gets an event. */
#include "machine_inside.h"

namespace redoubt::standby {

#ifdef RDT_UNIT_TEST
Guard guard_off = Guard::None;
#endif

namespace {

struct Written {
	Kind kind;
	Guard write, sync;
};
constexpr Written written[] = {
	{Kind::Run, Guard::WriteRun, Guard::SyncRun},
	{Kind::Frozen, Guard::WriteFrozen, Guard::SyncFrozen},
	{Kind::Sealed, Guard::WriteSealed, Guard::None},
	{Kind::Aborting, Guard::WriteAborting, Guard::None},
	{Kind::Released, Guard::WriteReleased, Guard::None},
	{Kind::Void, Guard::WriteVoid, Guard::None},
	{Kind::Complete, Guard::WriteComplete, Guard::None},
	{Kind::Discarded, Guard::WriteDiscarded, Guard::None},
	{Kind::Started, Guard::WriteStarted, Guard::None},
};

} // namespace

/*
 * Only the right to run must be on the disk before anything follows: a host that has run the VM must know it after a
 * reboot. All other records are for the agent's own restart, which the page cache outlives: a reboot takes the memory
 * that they are about with it, and the boots in the messages make void what was said before. (And the epoch of an
 * attempt, when it is above RUN's: or VOID would answer GONE of another.)
 */
void Step::journal(Kind kind, u64 epoch, bool sync, u8 flags, const Digest &digest)
{
	m.high = max_of(m.high, epoch);
	for (const Written &w : written) {
		if (w.kind != kind)
			continue;
		if (off(w.write) && w.write != Guard::None)
			return;
		if (off(w.sync) && w.sync != Guard::None)
			sync = false;
	}

	Action &a = out_.add(Act::Journal);

	a.sync = sync;
	a.epoch = epoch;
	a.rec = {.kind = kind, .flags = flags, .epoch = epoch, .boot = boot_, .peer = m.peer, .digest = digest};
}

/* Without a link it would be lost: it is said again when there is one. */
void Step::send(Msg msg, u64 epoch, const Digest &digest)
{
	m.said_ms = now_;
	if (!m.link)
		return;

	Action &a = out_.add(Act::Send);

	a.msg = msg;
	a.epoch = epoch;
	a.from = boot_;
	a.to = m.peer;
	a.digest = digest;
}

void Step::report(Report r)
{
	m.told_ms = now_;
	out_.add(Act::Report).report = r;
}

void Step::enter(State s, u64 epoch)
{
	m.state = s;
	m.epoch = epoch;
	m.claim = 0;
	m.said_ms = m.told_ms = now_;
}

/* ---- beginning -------------------------------------------------------------------------------------------------- */

void Step::start(const Record *last, Vm vm, bool primary)
{
	m = {};
	m.vm = vm;
	m.down_ms = now_;
	if (last == nullptr) {
		enter(State::Empty, 0);
		if (!primary)
			return;
		journal(Kind::Run, 1, true);
		enter(State::Active, 1);
		if (vm == Vm::Stopped) {
			out_.add(Act::VmCont);
			m.vm = Vm::Running;
		}
		return;
	}
	m.high = last->epoch;
	m.barred = (last->flags & rec_barred) != 0;
	m.ran = (last->flags & rec_ran) != 0;
	m.digest = last->digest;
	if (last->boot == boot_) {
		m.peer = last->peer;
		same_boot(*last, vm);
	} else {
		other_boot(*last);
	}
}

/* Only the agent has died: the VM and what is in memory may be there. */
void Step::same_boot(const Record &r, Vm vm)
{
	const bool image = (r.flags & rec_image) != 0, cold = (r.flags & rec_cold) != 0;

	switch (r.kind) {
	case Kind::Run:
	case Kind::Started:
		enter(State::Active, r.epoch);
		if (vm == Vm::Running)
			return;
		if (vm == Vm::Kept && !(image && r.kind == Kind::Run))
			return go();
		/* An image that has run is older than the VM was: it is not loaded again. */
		if (r.kind == Kind::Run && (image || cold)) {
			m.how = cold ? rec_cold : rec_image;
			enter(State::Starting, r.epoch);
			/* It has been loaded. From the disk, Act::VmBoot knows whether it ever ran. */
			if (vm == Vm::Stopped && image)
				return loaded();
			out_.add(cold ? Act::VmBoot : Act::Verify);
			return;
		}
		if (vm == Vm::Stopped) {
			out_.add(Act::VmCont);
			m.vm = Vm::Running;
			return;
		}
		m.vm = Vm::None;
		return report(Report::Crashed);
	case Kind::Frozen:
	case Kind::Sealed:
	case Kind::Aborting:
		enter(r.kind == Kind::Frozen ? State::Frozen :
		      r.kind == Kind::Sealed ? State::Sealed : State::Aborting, r.epoch);
		/* Frozen: died behind the record, before it had stopped the VM. Else nobody here has let it run. */
		if (vm == Vm::Running && m.state != State::Frozen)
			return ran();
		if (vm == Vm::Running) {
			out_.add(Act::VmStop);
			m.vm = Vm::Stopped;
		}
		if (vm == Vm::Waiting)
			m.vm = Vm::None;
		/* A standby that has it all may still be told to go on; nothing else can come of it. */
		if (m.vm == Vm::None && m.state == State::Frozen)
			lost();
		return;
	case Kind::Released:
		if (vm == Vm::Waiting)
			m.vm = Vm::None;
		return enter(State::Released, r.epoch);
	case Kind::Complete:
		enter(State::Verifying, r.epoch);
		if (off(Guard::VerifyImage))
			return enter(State::Complete, r.epoch);
		out_.add(Act::Verify);
		return;
	case Kind::Void:
		m.gone = true;
		return enter(State::Void, r.epoch);
	case Kind::Discarded:
		return enter(State::Empty, r.epoch);
	case Kind::None:
		break;
	}
	enter(State::Stuck, r.epoch);
	report(Report::JournalBad);
}

/* The host went down: nothing of what was in memory is left, here. */
void Step::other_boot(const Record &r)
{
	m.barred = false;
	switch (r.kind) {
	case Kind::Run:
	case Kind::Started:
		if (off(Guard::RebootRun))
			return same_boot(r, m.vm);
		break;
	case Kind::Frozen:
	case Kind::Sealed:
	case Kind::Aborting:
	case Kind::Void:
		break;
	case Kind::Released:
		m.vm = Vm::None;
		return enter(State::Released, r.epoch);
	case Kind::Complete:
		journal(Kind::Discarded, r.epoch, false);
		enter(State::Empty, r.epoch);
		return report(Report::ImageLost);
	case Kind::Discarded:
		return enter(State::Empty, r.epoch);
	case Kind::None:
		enter(State::Stuck, r.epoch);
		return report(Report::JournalBad);
	}
	m.vm = Vm::None;
	m.gone = true;
	m.ran = false;
	/* GONE names the epoch whose image may run. */
	const u64 e = (r.flags & rec_ran) != 0 && !off(Guard::RanRebooted) ? next_epoch() : r.epoch;

	journal(Kind::Void, e, false);
	enter(State::Void, e);
	report(Report::HostRebooted);
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

/* A connection. What waits for an answer is said again. */
void Step::link_up(u64 from)
{
	const bool rebooted = m.peer != from;

	/* Its HELLO has lain here since before it was fenced. */
	if (!guard(Guard::DeadPeer, from != m.dead))
		return;
	m.link = true;
	m.peer = from;
	/*
	 * A proof of fencing counts for the peer's boot that may have the image; which that is must outlive the agent.
	 */
	if (rebooted && (m.state == State::Sealed || m.state == State::Aborting) && !off(Guard::WritePeer)) {
		journal(m.state == State::Sealed ? Kind::Sealed : Kind::Aborting, m.epoch, false, bar(), m.digest);
	}
	if (rebooted && m.state == State::Receiving)
		report(Report::Incomplete);
	if (m.state == State::Active) {
		send(Msg::Running, m.epoch);
		if (m.copying)
			copy();
	} else if (m.state == State::Frozen) {
		begin_again();
	} else {
		/* A standby whose agent has died knows nothing of this epoch. */
		if (m.state == State::Sealed)
			send(Msg::Begin, m.epoch);
		say_again();
	}
}

/* What this state waits for. */
void Step::say_again()
{
	switch (m.state) {
	case State::Sealed:
		return send(Msg::End, m.epoch, m.digest);
	case State::Aborting:
		return send(Msg::Discard, m.epoch);
	case State::Released:
		return send(Msg::Commit, m.epoch, m.digest);
	case State::Complete:
		return send(Msg::Ask, m.epoch, m.digest);
	case State::Claiming:
		return send(Msg::Claim, m.claim);
	/* A host that was rebooted, by its crash kernel, say, is Void until it hears that; and does not ask. */
	case State::Active:
		return send(Msg::Running, m.epoch);
	default:
		return;
	}
}

void Step::tick()
{
	const bool waits = holding() || m.state == State::Released || m.state == State::Complete ||
			   (m.state == State::Starting && m.failed);

	if (m.state == State::Frozen && !m.link && c.link_ms != 0 && now_ - m.down_ms >= c.link_ms && can_resume())
		return resume(false);
	if (m.link && now_ - m.said_ms >= c.repeat_ms)
		say_again();
	if (waits && now_ - m.told_ms >= c.report_ms)
		report(m.state == State::Starting ? Report::LoadFailed :
		       m.state == State::Complete ? Report::WaitsForPrimary : Report::WaitsForPeer);
}

void Step::message(const Event &ev)
{
	/* What comes without a connection was sent to an agent before this one, or by a peer that is dead. */
	if (!guard(Guard::Linked, m.link) || !guard(Guard::FromBoot, ev.from == m.peer) ||
	    !guard(Guard::ToBoot, ev.to == boot_))
		return;
	if (m.state == State::Active)
		active_message(ev);
	else if (holding())
		primary_message(ev);
	else if (m.state == State::Released)
		released_message(ev);
	else
		standby_message(ev);
}

void Step::event(const Event &ev)
{
	if (m.state == State::Stuck)
		return;
	switch (ev.ev) {
	case Ev::Tick:
		return tick();
	case Ev::LinkUp:
		return link_up(ev.from);
	case Ev::LinkDown:
		if (m.link)
			m.down_ms = now_;
		m.link = false;
		if (m.state == State::Receiving)
			report(Report::Incomplete);
		return;
	case Ev::Message:
		return message(ev);
	case Ev::Trigger:
		m.abort = false;
		if (m.state == State::Active)
			go();
		return;
	case Ev::Abort:
		return abort();
	case Ev::Copy:
		if (m.state != State::Active || m.copying)
			return;
		m.copying = true;
		return copy();
	case Ev::Sent:
		return sent(ev);
	case Ev::VmDied:
		return vm_gone(true);
	case Ev::VmLost:
		return vm_gone(false);
	case Ev::VmUp:
		if (m.state == State::Active && m.vm == Vm::None)
			m.vm = Vm::Running;
		return;
	case Ev::VmRan:
		return ran();
	case Ev::Loaded:
		if (m.state == State::Starting)
			loaded();
		return;
	case Ev::LoadFailed:
		if (m.state == State::Starting)
			load_failed();
		return;
	case Ev::Verified:
		return verified(ev);
	case Ev::Fenced:
		return fenced(ev.from);
	case Ev::Promote:
		return promote(ev.from);
	case Ev::JournalFailed:
		m.state = State::Stuck;
		return report(Report::JournalBad);
	}
}

void Machine::start(const Record *last, Vm vm, bool primary, u64 now, Actions &out)
{
	out.clear();
	Step(config_, boot_, m_, now, out).start(last, vm, primary);
}

void Machine::step(const Event &ev, u64 now, Actions &out)
{
	out.clear();
	Step(config_, boot_, m_, now, out).event(ev);
}

} // namespace redoubt::standby
