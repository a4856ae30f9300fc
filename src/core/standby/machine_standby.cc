// SPDX-License-Identifier: GPL-2.0
/* The machine of who does not run the VM: Void, Claiming, Empty, Receiving, Verifying, Complete, and Starting. */
#include "machine_inside.h"

namespace redoubt::standby {

/*
 * An answer that is a promise: nothing up to @epoch will ever be run here. In the journal before it is said; a record
 * that says as much is there if the journal is past it.
 */
void Step::nothing_of(u64 epoch, Msg answer)
{
	if (m.high < epoch) {
		journal(Kind::Discarded, epoch, false);
		m.gone = false;
		enter(m.state == State::Receiving && m.epoch > epoch ? State::Receiving : State::Empty,
		      max_of(m.epoch, epoch));
	}
	send(answer, answer == Msg::Empty ? m.high : epoch);
}

void Step::discard_asked(u64 epoch)
{
	const bool mine = (m.state == State::Receiving || m.state == State::Complete) && m.epoch <= epoch;

	if (m.state == State::Verifying || m.state == State::Starting)
		return;
	if (mine) {
		journal(Kind::Discarded, epoch, false);
		out_.add(Act::ImageDrop);
		m.digest = {};
		enter(State::Empty, epoch);
		return send(Msg::Discarded, epoch);
	}
	nothing_of(epoch, Msg::Discarded);
}

/*
 * END: is the image whole, and is it what was sent? Only then there is a promise. What is not whole has no digest, so
 * that the digests are equal says it all.
 */
void Step::image_end(const Event &ev)
{
	const bool equal = ev.whole && ev.mine == ev.digest;

	if (!equal && !off(Guard::EndWhole) && !(ev.whole && off(Guard::EndDigest))) {
		if (ev.whole)
			report(Report::DigestDiffers);
		out_.add(Act::SendLacks).epoch = m.epoch;
		return;
	}
	m.digest = ev.digest;
	journal(Kind::Complete, m.epoch, false, 0, m.digest);
	enter(State::Complete, m.epoch);
	send(Msg::Prepared, m.epoch, m.digest);
}

/* The right to run is here: the image is whole, and nobody else has it. */
void Step::take_over()
{
	const u64 e = m.epoch + 1;

	journal(Kind::Run, e, true, rec_image, m.digest);
	m.how = rec_image;
	m.failed = false;
	enter(State::Starting, e);
	out_.add(Act::VmLoad).epoch = e - 1;
}

/* STARTED: from here on the image is older than the VM. For the agent's own restart: no sync. */
void Step::loaded()
{
	journal(Kind::Started, m.epoch, false);
	if (m.how == rec_image)
		out_.add(Act::VmCont);
	m.vm = Vm::Running;
	m.digest = {};
	enter(State::Active, m.epoch);
	send(Msg::Running, m.epoch);
	report(m.how == rec_image ? Report::TookOver : Report::ColdStart);
}

/* The right to run it stays here. */
void Step::load_failed()
{
	m.failed = true;
	report(Report::LoadFailed);
}

void Step::verified(const Event &ev)
{
	const bool good = ev.whole && ev.digest == m.digest;

	if (m.state == State::Verifying) {
		if (good) {
			enter(State::Complete, m.epoch);
			return send(Msg::Ask, m.epoch, m.digest);
		}
		journal(Kind::Discarded, m.epoch, false);
		out_.add(Act::ImageDrop);
		m.digest = {};
		enter(State::Empty, m.epoch);
		send(Msg::Empty, m.epoch);
		return report(Report::ImageLost);
	}
	if (m.state != State::Starting || m.how != rec_image)
		return;
	if (good) {
		out_.add(Act::VmLoad).epoch = m.epoch - 1;
		return;
	}
	/* The right to run it stays here, but there is nothing to run. */
	journal(Kind::Started, m.epoch, false);
	m.vm = Vm::None;
	enter(State::Active, m.epoch);
	report(Report::Crashed);
}

void Step::standby_message(const Event &ev)
{
	const bool this_epoch = ev.epoch == m.epoch;

	/* What was promised before the agent died is looked at first. */
	if (m.state == State::Verifying || m.state == State::Starting)
		return;
	switch (ev.msg) {
	case Msg::Begin:
		if (!guard(Guard::BeginEpoch, ev.epoch > m.high))
			return m.state == State::Complete ? void() : send(Msg::Empty, m.high);
		if (m.state == State::Receiving && ev.epoch <= m.epoch)
			return;
		m.gone = false;
		enter(State::Receiving, ev.epoch);
		out_.add(Act::ImageNew).epoch = ev.epoch;
		return;
	case Msg::End:
		/* An END of an epoch before, late, is no reason to say anything: EMPTY would be a lie. */
		if (m.state == State::Complete && ev.epoch <= m.epoch)
			return this_epoch ? send(Msg::Prepared, m.epoch, m.digest) : void();
		if (m.state == State::Receiving && guard(Guard::EndEpoch, this_epoch))
			return image_end(ev);
		if (m.state != State::Receiving || ev.epoch > m.epoch)
			nothing_of(ev.epoch, Msg::Empty);
		return;
	case Msg::Commit:
		if ((m.state == State::Complete || off(Guard::CommitState)) && guard(Guard::CommitEpoch, this_epoch))
			return take_over();
		/* It ran here, and is gone. */
		if (m.gone && ev.epoch < m.epoch)
			return send(Msg::Gone, m.epoch);
		if (m.state != State::Complete && m.state != State::Receiving)
			nothing_of(ev.epoch, Msg::Empty);
		return;
	case Msg::Gone:
		if (m.state == State::Complete && guard(Guard::GoneEpoch, this_epoch))
			return take_over();
		if (m.gone)
			report(Report::BothVoid);
		return;
	case Msg::Discard:
		return discard_asked(ev.epoch);
	case Msg::Ask:
		/* An image of an epoch that this host had gone on from is no answer to what is gone. */
		if (m.gone && ev.epoch < m.epoch)
			return send(Msg::Discard, ev.epoch);
		if (m.gone)
			send(Msg::Gone, m.epoch);
		return;
	case Msg::Running:
		if ((m.gone || m.state == State::Claiming) && ev.epoch >= m.high) {
			m.gone = false;
			journal(Kind::Discarded, max_of(m.high, ev.epoch - 1), false);
			enter(State::Empty, m.high);
		}
		return;
	case Msg::Empty:
		m.floor = max_of(m.floor, ev.epoch);
		if (m.state == State::Claiming && m.floor >= m.claim) {
			m.claim = next_epoch();
			send(Msg::Claim, m.claim);
		}
		return;
	case Msg::Claim:
		return claimed(ev);
	case Msg::Yield:
		if (guard(Guard::YieldEpoch, ev.epoch == m.claim) && m.claim != 0)
			cold_start(m.claim);
		return;
	default:
		return;
	}
}

/* The peer would start the VM from its disk. Who has an image, or the right to run, does not yield. */
void Step::claimed(const Event &ev)
{
	if (m.state == State::Complete)
		return send(Msg::Ask, m.epoch, m.digest);
	if (ev.epoch <= m.high)
		return send(Msg::Empty, m.high);
	/* Both claim: the higher one, else that of the higher boot. */
	if (m.state == State::Claiming && (ev.epoch < m.claim || (ev.epoch == m.claim && ev.from < boot_)))
		return;
	if (m.state == State::Receiving)
		out_.add(Act::ImageDrop);
	/* Void stays Void until somebody is seen to run: the claim may come to nothing. */
	journal(m.gone ? Kind::Void : Kind::Discarded, ev.epoch, false);
	enter(m.gone ? State::Void : State::Empty, ev.epoch);
	send(Msg::Yield, ev.epoch);
}

void Step::cold_start(u64 epoch)
{
	m.gone = m.barred = false;
	m.how = rec_cold;
	m.digest = {};
	m.failed = false;
	journal(Kind::Run, epoch, true, rec_cold);
	enter(State::Starting, epoch);
	out_.add(Act::VmBoot).epoch = epoch;
}

/* "Run it", says the cluster. It may be wrong about what it knows, so each state has its own answer. */
void Step::promote(u64 from)
{
	/* In a boot of this host that has not met the peer any proof is of a boot that could have been told nothing. */
	const bool proof = guard(Guard::ColdProof, from != 0) && guard(Guard::ColdBoot, m.peer == 0 || from == m.peer);

	switch (m.state) {
	case State::Active:
		if (m.vm == Vm::None)
			cold_start(next_epoch());
		return;
	case State::Starting:
		if (!m.failed)
			return;
		m.failed = false;
		if (m.how == rec_cold)
			out_.add(Act::VmBoot).epoch = m.epoch;
		else
			out_.add(Act::Verify).epoch = m.epoch - 1;
		return;
	case State::Frozen:
		return abort();
	case State::Sealed:
	case State::Aborting:
		return from != 0 ? fenced(from) : abort();
	case State::Complete:
		if (from != 0)
			return fenced(from);
		send(Msg::Ask, m.epoch, m.digest);
		return report(Report::NotFenced);
	case State::Void:
	case State::Empty:
	case State::Claiming:
		if (proof) {
			peer_dead(from);
			return cold_start(next_epoch());
		}
		if (from != 0)
			return report(Report::StaleProof);
		m.state = State::Claiming;
		m.claim = next_epoch();
		send(Msg::Claim, m.claim);
		return;
	case State::Receiving:
	case State::Released:
		if (!proof)
			return report(from != 0 ? Report::StaleProof : Report::NotFenced);
		peer_dead(from);
		out_.add(m.state == State::Receiving ? Act::ImageDrop : Act::VmDrop);
		return cold_start(next_epoch());
	default:
		return report(Report::NotFenced);
	}
}

} // namespace redoubt::standby
