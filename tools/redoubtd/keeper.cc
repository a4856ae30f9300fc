// SPDX-License-Identifier: GPL-2.0
//
// The machine's driver: events in, actions out. What the actions do is in acts.cc.

#include "keeper.h"

#include <algorithm>
#include <cstring>

#include "log.h"

namespace redoubt::agent {

namespace {

constexpr milliseconds tick_every{250};
constexpr size_t max_events = 1024;
// An agent that is started again with its VM there finds it in less.
constexpr milliseconds look_for_vm{3'000};

} // namespace

Keeper::Keeper(Loop &loop, const Config &config, const VmConfig &vm, const StateDirectory &directory, uint64_t boot, Peer &peer,
	       Budget &budget)
	: loop_(loop), config_(config), vm_(vm), boot_(boot), peer_(peer), budget_(budget), journal_(directory, vm.name),
	  machine_({.link_ms = static_cast<uint64_t>(config.link_patience.count()) * 1000}, boot),
	  vmm_(loop, vm.name, vm.qmp,
	       {[this] { vmm_changed(); }, [this] { vmm_died(); }}),
	  watch_(loop, config, vm, vmm_,
		 // Frozen: the machine's stop waits for the refresh to end.
		 [this] { return machine_.state() == sb::State::Active || (machine_.state() == sb::State::Frozen && acting_); },
		 [this] { leave_note(); }),
	  hang_(vmm_, vm.watchdog)
{
	// Not on a frozen VM's way
	state_.reserve(16u << 20);
}

Keeper::~Keeper()
{
	loop_.cancel(tick_);
	loop_.cancel(begin_);
	loop_.cancel(retry_);
}

sb::Uuid Keeper::wire_uuid() const
{
	sb::Uuid out;

	memcpy(out.byte, vm_.uuid.data(), sizeof(out.byte));
	return out;
}

uint64_t Keeper::now() const
{
	return static_cast<uint64_t>(
		std::chrono::duration_cast<milliseconds>(Loop::Clock::now().time_since_epoch()).count());
}

void Keeper::start()
{
	vmm_.start();
	begin_later();
}

void Keeper::begin_later()
{
	loop_.cancel(begin_);
	begin_ = loop_.after(look_for_vm, [this] {
		begin_ = 0;
		begin();
	});
}

// The machine's start: when QEMU was found, or has not been for a while.
void Keeper::begin()
{
	read_state();
	if (std::string why = unknown_vmm(); !why.empty()) {
		why += ": nothing is decided until it answers or has ended";
		if (trouble_ != why)
			say(vm_.name, why);
		trouble_ = why;
		return begin_later();
	}
	trouble_.clear();
	// Of no use to anybody. If its unit starts another one, that is given the image.
	if (vmm_.state() == VmmState::spoiled) {
		say(vm_.name, "QEMU has failed to load an image, for an agent before this one: ended, for another to be started");
		vmm_.quit([](const std::string &) {});
	}
	const sb::Vm there = what_is_there();
	const bool primary = vm_.role == Role::primary;

	// A VM that was never here, and is to run here: nothing to begin with, and nothing promised.
	if (!journal_.last() && primary && there != sb::Vm::Running && there != sb::Vm::Stopped) {
		say(vm_.name, there == sb::Vm::Waiting ? "is to run here, but its QEMU waits for an image (-incoming): start it without" :
							 "is to run here: waits for its QEMU");
		return;
	}
	begun_ = true;
	if (open_kept())
		state_saved_ = true;
	if (saved_.is(vmm_.pid()) && vmm_.state() == VmmState::stopped && vmm_.status() == "postmigrate")
		state_saved_ = true;
	restart();
}

void Keeper::tick()
{
	tick_ = loop_.after(tick_every, [this] { tick(); });
	begin_anew();
	boot_fresh();
	mind_peer();
	watch_death();
	watch_hang();
	want_copy();
	// One that waits says as much as many.
	if (events_.empty())
		hand_in({.ev = sb::Ev::Tick, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
}

void Keeper::hand_in(sb::Event event)
{
	if (!begun_)
		return;
	events_.push_back(event);
	// What an action has for us waits until the step is done.
	if (!stepping_)
		next_event();
}

void Keeper::next_event()
{
	while (!acting_ && actions_.empty() && !events_.empty()) {
		const sb::Event event = events_.front();
		const sb::State before = machine_.state();
		sb::Actions out;

		events_.pop_front();
		if (event.ev == sb::Ev::Message && event.msg == sb::Msg::Lacks)
			lacks_runs_.swap(lacks_next_);
		machine_.step(event, now(), out);
		if (machine_.state() != before)
			say(vm_.name, std::string(sb::state_name(before)) + " -> " + sb::state_name(machine_.state()) + ", epoch " +
					      std::to_string(machine_.epoch()));
		actions_.assign(out.begin(), out.end());
		next_action();
	}
}

// Goes on until an action has to wait for QEMU; its end calls here again.
void Keeper::next_action()
{
	stepping_ = true;
	while (!acting_ && !actions_.empty()) {
		const sb::Action a = actions_.front();

		actions_.pop_front();
		act(a);
	}
	stepping_ = false;
	if (acting_)
		return;
	settle();
	if (!events_.empty())
		loop_.soon([this] { next_event(); });
}

// Behind a step: what the new state does not want any more.
void Keeper::settle()
{
	const sb::State state = machine_.state();

	if (bounded_ && state != sb::State::Active)
		bounded_->end();
	answer_live();
	if (state != sb::State::Frozen && state != sb::State::Sealed) {
		if (sender_ && !(bounded_ && bounded_->active()))
			sender_->cancel();
		unconfirmed_.reset();
		resends_ = 0;
		if (state != sb::State::Aborting && state != sb::State::Released)
			forget_state();
	}
	if (state == sb::State::Active)
		attempts_ = 0;
	drop_kept();
	if (state != sb::State::Starting)
		booting_ = boot_asked_ = false;
}

void Keeper::act(const sb::Action &a)
{
	switch (a.act) {
	case sb::Act::Journal:
		return write_journal(a);
	case sb::Act::Send:
		return send(a);
	case sb::Act::Stream:
		return stream(a.epoch);
	case sb::Act::Resend:
		return resend();
	case sb::Act::Copy:
		return copy(a.epoch);
	case sb::Act::VmStop:
		acting_ = true;
		return vm_stop();
	case sb::Act::VmCont:
		acting_ = true;
		state_saved_ = false;
		return vm_cont();
	case sb::Act::VmLoad:
		return vm_load();
	case sb::Act::VmBoot:
		return vm_boot();
	case sb::Act::VmDrop:
		state_saved_ = false;
		drop_kept();
		// It has a VM that goes on elsewhere; its unit may start one that waits.
		if (vmm_.state() == VmmState::stopped || vmm_.state() == VmmState::running)
			vmm_.quit([](const std::string &) {});
		return;
	case sb::Act::ImageNew:
		began_ = Loop::Clock::now();
		stages_.clear();
		try {
			// Its file may have gone since BEGIN came.
			if (!make_receiver())
				throw Error(trouble_);
			receiver_->begin();
			image_pid_ = vmm_.pid();
		} catch (const Error &error) {
			trouble_ = error.what();
			say(vm_.name, trouble_);
		}
		return;
	case sb::Act::ImageDrop:
		if (receiver_)
			receiver_->drop();
		return;
	case sb::Act::Verify:
		image_pid_ = vmm_.pid();
		if (!make_receiver()) {
			hand_in({.ev = sb::Ev::Verified, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
			return;
		}
		verifying_ = true;
		return receiver_->verify([this](bool whole, const sb::Digest &digest) {
			verifying_ = false;
			hand_in({.ev = sb::Ev::Verified, .msg = {}, .whole = whole, .from = 0, .to = 0, .epoch = 0, .digest = digest, .mine = {}});
		});
	case sb::Act::SendLacks:
		return send_lacks(a.epoch);
	case sb::Act::Report:
		return report(a.report);
	}
}

// ---- the link ------------------------------------------------------------------

void Keeper::link_up(uint64_t boot)
{
	link_ = boot;
	peer_ready_.reset();
	told_ready_.reset();
	tell_ready();
	hand_in({.ev = sb::Ev::LinkUp, .msg = {}, .whole = false, .from = boot, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
}

void Keeper::link_down()
{
	link_.reset();
	early_.reset();
	peer_ready_.reset();
	if (bounded_)
		bounded_->link_down();
	// What was on its way is lost with the link; END asks what lacks.
	if (machine_.state() == sb::State::Sealed) {
		if (sender_)
			sender_->cancel();
		unconfirmed_.reset();
	}
	hand_in({.ev = sb::Ev::LinkDown, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
}

void Keeper::message(const sb::Header &h, const sb::Body &body)
{
	sb::Event event = sb::to_event(h, body);

	if (h.msg == sb::Msg::Ready)
		return hear_ready(h, body);
	// Whatever it has said of a QEMU that waits was of the one that runs now.
	if (h.msg == sb::Msg::Running) {
		peer_ready_.reset();
		if (!begun_)
			early_ = event;
	}
	// Everything else is said again. A peer that says more while QEMU is waited for is not kept in memory.
	if (!begun_ || events_.size() > max_events)
		return;
	try {
		switch (h.msg) {
		case sb::Msg::Pages:
		case sb::Msg::Same:
		case sb::Msg::State:
			// Not behind events that wait: then it is none of this attempt.
			if (receiver_ && events_.empty() && machine_.receives(h.epoch, h.from, h.to))
				receiver_->take(h.msg, body);
			return;
		case sb::Msg::Begin: {
			// A frame that cannot be stored is not asked for.
			std::string why = make_receiver() ? receiver_->fits(body) : trouble_;
			if (why.empty())
				why = unfit();
			if (!why.empty()) {
				trouble_ = why;
				if (trouble_said_ != why)
					say(vm_.name, "the primary would send: " + why);
				trouble_said_ = why;
				return;
			}
			trouble_said_.clear();
			live_begun_ = body.flags & sb::begin_live;
			if (live_begun_)
				live_epoch_ = h.epoch;
			// The go: the primary hashes what it has, and so do we.
			else if (live_epoch_ == h.epoch && receiver_ && machine_.receives(h.epoch, h.from, h.to))
				receiver_->look_again([this] {
					// END has come before.
					if (const auto end = std::exchange(late_end_, std::nullopt))
						message(end->first, end->second);
				});
			break;
		}
		case sb::Msg::End:
			if (receiver_ && machine_.receives(h.epoch, h.from, h.to)) {
				if (receiver_->looking()) {
					late_end_ = {h, body};
					return;
				}
				if (!fit_for_end())
					return;
				event.whole = receiver_->check(body, &event.mine);
				stage(event.whole ? "complete" : "lacks");
			}
			break;
		case sb::Msg::Lacks:
			if (live_lacks(h, body))
				return;
			// An answer to an END from before what is being sent now
			if (sending() || unconfirmed_)
				return;
			lacks_next_.clear();
			for (uint32_t i = 0; i < body.ranges; i++)
				lacks_next_.push_back(body.range(i));
			lacks_flags_ = body.flags;
			break;
		case sb::Msg::Prepared:
			stage("prepared");
			return prepared(event);
		case sb::Msg::Running:
			stage("running");
			break;
		default:
			break;
		}
	} catch (const Error &error) {
		// It is lacking then, and END will say so.
		trouble_ = error.what();
		say(vm_.name, std::string(sb::msg_name(h.msg)) + ": " + trouble_);
		return;
	}
	hand_in(event);
}

// COMMIT is for a VM that has not run since it was saved: what the monitor knows of that is heard first.
void Keeper::prepared(const sb::Event &event)
{
	if (!vmm_.refresh([this, event] { hand_in(event); })) {
		trouble_ = "QEMU cannot be asked whether the VM has stood still: it is not released";
		say(vm_.name, trouble_);
	}
}

} // namespace redoubt::agent
