// SPDX-License-Identifier: GPL-2.0
/* The machine of who runs the VM, until it has given it away: Active, Frozen, Sealed, Aborting, Released. */
#include "machine_inside.h"

namespace redoubt::standby {

/* Stop, and begin to send. FROZEN needs no sync: after a reboot RUN of another boot says as much, of the same epoch. */
void Step::go()
{
	if (m.vm != Vm::Running && m.vm != Vm::Stopped && m.vm != Vm::Kept)
		return report(Report::NoVm);

	const u64 e = m.floor >= m.epoch ? next_epoch() : m.epoch;

	journal(Kind::Frozen, e, e != m.epoch, bar());
	if (m.vm == Vm::Running) {
		out_.add(Act::VmStop);
		m.vm = Vm::Stopped;
	}
	m.copying = m.ran = false;
	m.abort = false;
	m.digest = {};
	enter(State::Frozen, e);
	begin_again();
	report(Report::Go);
}

void Step::begin_again()
{
	send(Msg::Begin, m.epoch);
	if (m.link)
		out_.add(Act::Stream).epoch = m.epoch;
}

/* Bounded mode: the standby may have most of it already when the VM is stopped. */
void Step::copy()
{
	send(Msg::Begin, m.epoch);
	if (m.link)
		out_.add(Act::Copy).epoch = m.epoch;
}

/* The standby has nothing of this epoch and never will: the same memory, as a new one. */
void Step::anew()
{
	if (m.vm != Vm::Stopped && m.vm != Vm::Kept)
		return lost();

	const u64 e = next_epoch();

	m.ran = false;
	journal(Kind::Frozen, e, true, bar());
	m.digest = {};
	enter(State::Frozen, e);
	begin_again();
}

/*
 * Somebody has let the VM run, at its monitor: what was sent is older than the VM, and its disk has moved on. Sealed:
 * the image may be whole at the standby and is discarded. That is on the disk before the VM is stopped, or an agent
 * or a host that dies now would find a VM that has stood all the time.
 */
void Step::ran()
{
	switch (m.state) {
	case State::Active:
	case State::Stuck:
		return;
	case State::Frozen:
		/* END was never sent. Another epoch: what is on its way is not of this memory. */
		out_.add(Act::VmStop);
		m.vm = m.vm == Vm::Kept ? Vm::None : Vm::Stopped;
		return anew();
	case State::Sealed:
	case State::Aborting:
		if (off(Guard::RanSealed)) {
			out_.add(Act::VmStop);
			return;
		}
		m.ran = true;
		journal(Kind::Aborting, m.epoch, true, bar(), m.digest);
		out_.add(Act::VmStop);
		/* With None it was another VM, which a unit has started; but on the same disk. */
		if (m.vm != Vm::None)
			m.vm = m.vm == Vm::Kept ? Vm::None : Vm::Stopped;
		enter(State::Aborting, m.epoch);
		return send(Msg::Discard, m.epoch);
	case State::Released:
		out_.add(Act::VmStop);
		return report(Report::TwoRun);
	case State::Starting:
		/* From its disk it is what is waited for. */
		if (m.how == rec_image)
			out_.add(Act::VmStop);
		return;
	default:
		out_.add(Act::VmStop);
		return;
	}
}

/* In the journal: a VMM that is started here later must not be taken for the VM. */
void Step::lost()
{
	m.vm = Vm::None;
	m.gone = true;
	m.digest = {};
	m.barred = m.ran = false;
	journal(Kind::Void, m.epoch, false);
	enter(State::Void, m.epoch);
	report(Report::Lost);
}

void Step::sent(const Event &ev)
{
	/* A late one of an attempt before would only bring LACKS. */
	if (ev.epoch != m.epoch)
		return;
	if (m.state == State::Frozen || (m.state == State::Sealed && !(ev.digest == m.digest))) {
		m.digest = ev.digest;
		journal(Kind::Sealed, m.epoch, false, bar(), m.digest);
		enter(State::Sealed, m.epoch);
	}
	if (m.state == State::Sealed)
		send(Msg::End, m.epoch, m.digest);
}

/* Nobody else can run it: the VM goes on here. */
void Step::resume(bool say_discard)
{
	const u64 old = m.epoch, e = next_epoch();

	journal(Kind::Run, e, true);
	out_.add(Act::VmCont);
	m.vm = Vm::Running;
	m.abort = m.ran = false;
	m.digest = {};
	enter(State::Active, e);
	if (say_discard)
		send(Msg::Discard, old);
	report(Report::Resumed);
}

/*
 * The record is for the agent's own restart: behind DISCARD no COMMIT of this epoch is ever sent,
 * or the two could pass each other and the image be thrown away that was just given the right to run.
 */
void Step::discard()
{
	journal(Kind::Aborting, m.epoch, false, bar(), m.digest);
	enter(State::Aborting, m.epoch);
	send(Msg::Discard, m.epoch);
}

void Step::abort()
{
	switch (m.state) {
	case State::Active:
	case State::Stuck:
		return;
	case State::Frozen:
		/* END was never sent: the standby cannot be complete. */
		return can_resume() ? resume(true) : report(Report::CannotResume);
	case State::Sealed:
		if (!can_resume())
			return report(Report::CannotResume);
		if (off(Guard::SealedNoResume))
			return resume(true);
		m.abort = true;
		return discard();
	case State::Aborting:
		m.abort = true;
		return;
	case State::Released:
		if (off(Guard::ReleasedNoResume) && can_resume())
			return resume(true);
		return report(Report::AlreadyReleased);
	default:
		return;
	}
}

void Step::vm_gone(bool kept)
{
	m.vm = kept ? Vm::Kept : Vm::None;
	if (m.state == State::Active)
		return kept ? go() : report(Report::Crashed);
	if (m.state == State::Frozen && !kept)
		return lost();
	/* Sealed, Aborting, Released: the standby's image may be the only one; only a wish to send anew finds nothing. */
	if (m.state == State::Starting) {
		/* The VMM that should load the image. */
		m.vm = Vm::None;
		load_failed();
	}
}

/* What it has said before must not be heard any more. The boot stays known: another proof of it is a proof still. */
void Step::peer_dead(u64 boot)
{
	m.dead = boot;
	m.link = false;
	m.down_ms = now_;
}

/* The peer's boot is dead, and what was in its memory. */
void Step::fenced(u64 from)
{
	const bool mine = from != 0 && from == m.peer;

	if (m.state == State::Sealed || m.state == State::Aborting) {
		if (!guard(Guard::FencedBoot, mine))
			return report(Report::StaleProof);
		peer_dead(from);
		return can_resume() ? resume(false) : report(Report::CannotResume);
	}
	if (m.state == State::Frozen)
		return abort();
	if (m.state == State::Complete) {
		if (!guard(Guard::TakeFencedBoot, mine))
			return report(Report::StaleProof);
		peer_dead(from);
		return take_over();
	}
	if (m.state == State::Receiving)
		report(Report::Incomplete);
}

/* Frozen, Sealed, Aborting. */
void Step::primary_message(const Event &ev)
{
	const bool this_epoch = ev.epoch == m.epoch;

	switch (ev.msg) {
	case Msg::Prepared:
		if (m.state == State::Aborting && !off(Guard::AbortNoRelease))
			return send(Msg::Discard, m.epoch);
		if (m.state == State::Frozen || !guard(Guard::PreparedEpoch, this_epoch))
			return;
		/* Out of the model's reach: a standby that has hashed wrongly. */
		if (!(ev.digest == m.digest)) {
			report(Report::DigestDiffers);
			return discard();
		}
		journal(Kind::Released, m.epoch, false, bar(), m.digest);
		enter(State::Released, m.epoch);
		return send(Msg::Commit, m.epoch, m.digest);
	case Msg::Lacks:
		if (m.state != State::Sealed || !this_epoch)
			return;
		if (m.vm != Vm::Stopped && m.vm != Vm::Kept)
			return lost();
		out_.add(Act::Resend).epoch = m.epoch;
		return;
	case Msg::Ask:
		/* It is Complete and has not heard: END brings PREPARED. Of an epoch before: that is no image any more. */
		if (ev.epoch < m.epoch)
			return send(Msg::Discard, ev.epoch);
		return say_again();
	case Msg::Discarded:
		if (!guard(Guard::DiscardedEpoch, this_epoch))
			return;
		break;
	case Msg::Empty:
		if (!guard(Guard::EmptyEpoch, ev.epoch >= m.epoch))
			return;
		break;
	case Msg::Running:
		if (ev.epoch > m.epoch)
			handed_over(m.epoch, Report::TwoRun);
		return;
	default:
		return;
	}
	/* It has nothing of this epoch and, that is on its disk, will never have. */
	m.floor = max_of(m.floor, ev.epoch);
	if (m.state == State::Aborting && m.abort && can_resume())
		return resume(false);
	anew();
}

void Step::active_message(const Event &ev)
{
	switch (ev.msg) {
	case Msg::Commit:
	case Msg::Begin:
	case Msg::End:
	case Msg::Discard:
	case Msg::Claim:
		return send(Msg::Running, m.epoch);
	case Msg::Ask:
		/* An image of an epoch that this host has gone on from. */
		return send(Msg::Discard, ev.epoch);
	case Msg::Empty:
		if (ev.epoch > m.floor)
			m.floor = ev.epoch;
		if (m.copying && ev.epoch >= m.epoch) {
			const u64 e = next_epoch();

			journal(Kind::Run, e, true);
			enter(State::Active, e);
			copy();
		}
		return;
	case Msg::Running:
		if (ev.epoch < m.epoch)
			return;
		/* Both: cannot be, unless someone vouched for a fencing that was none. Then rather none. */
		out_.add(Act::VmStop);
		m.vm = Vm::Stopped;
		/* Or the agent, begun again, would let it go on. */
		journal(Kind::Void, m.epoch, false);
		m.state = State::Stuck;
		return report(Report::TwoRun);
	default:
		return;
	}
}

/* The peer runs the VM: what is here of it is of no use, and this host its standby. */
void Step::handed_over(u64 epoch, Report why)
{
	out_.add(Act::VmDrop);
	m.vm = Vm::None;
	m.barred = m.abort = m.ran = false;
	m.digest = {};
	journal(Kind::Discarded, epoch, false);
	enter(State::Empty, epoch);
	report(why);
}

void Step::released_message(const Event &ev)
{
	switch (ev.msg) {
	case Msg::Ask:
	case Msg::Prepared:
	case Msg::Claim:
		return send(Msg::Commit, m.epoch, m.digest);
	case Msg::Running:
		if (guard(Guard::RunningEpoch, ev.epoch > m.epoch))
			handed_over(m.epoch, Report::HandedOver);
		return;
	case Msg::Begin:
	case Msg::End:
	case Msg::Commit:
	case Msg::Discard:
		/* It has run already and gives it back; RUNNING was lost, or what this host had noted of it. */
		if (!guard(Guard::RunningEpoch, ev.epoch > m.epoch))
			return;
		handed_over(m.epoch, Report::HandedOver);
		return standby_message(ev);
	case Msg::Gone:
		/* It ran, and its host went down. */
		if (ev.epoch > m.epoch)
			handed_over(m.epoch, Report::BothVoid);
		return;
	case Msg::Empty:
	case Msg::Discarded:
		/* The image did not survive there, and never ran: a host that has run it is Void. */
		if (!guard(Guard::CommitBeforeAnew, ev.epoch >= m.epoch))
			return;
		m.barred = true;
		report(Report::ImageLost);
		m.floor = max_of(m.floor, ev.epoch);
		return anew();
	default:
		return;
	}
}

} // namespace redoubt::standby
