// SPDX-License-Identifier: GPL-2.0
//
// READY: the host that would take the VM says whether a QEMU waits for it, so that the one that has it is asked for
// nothing that must come to nothing. It is no promise: what was true when it was said may not be when the VM comes.

#include "keeper.h"

#include <algorithm>

#include <sys/stat.h>

#include "log.h"

namespace redoubt::agent {

namespace {

constexpr std::chrono::seconds say_again{1};

} // namespace

sb::Unready Keeper::unready()
{
	if (!begun_)
		return sb::Unready::NotBegun;
	if (machine_.state() == sb::State::Stuck)
		return sb::Unready::Stuck;
	if (vmm_.state() == VmmState::gone)
		return sb::Unready::NoVmm;
	if (vmm_.state() != VmmState::waiting)
		return sb::Unready::NotWaiting;
	if (!vmm_.refuses().empty())
		return sb::Unready::Refuses;
	// While an image comes in nobody asks, and there is better to do than to read through /proc.
	if (machine_.state() == sb::State::Receiving)
		return sb::Unready::No;
	return make_receiver() && unfit().empty() ? sb::Unready::No : sb::Unready::Memory;
}

// Behind a change, and again: what is said before the peer has seen both connections is lost. Who runs the VM has nothing to say.
void Keeper::tell_ready()
{
	if (!link_ || (begun_ && machine_.runs()))
		return;
	const sb::Unready why = unready();
	const std::pair<sb::Unready, uint64_t> say{why, ram_ ? ram_->frames() : 0};

	if (told_ready_ == say && Loop::Clock::now() - told_at_ < say_again)
		return;
	told_ready_ = say;
	told_at_ = Loop::Clock::now();
	uint8_t body[16];
	const uint32_t size = sb::put_ready(body, say.first, say.second);
	peer_.send(Channel::control, {.msg = sb::Msg::Ready, .body = 0, .vm = wire_uuid(), .epoch = 0, .from = boot_, .to = *link_, .seq = 0},
		   {body, size});
}

void Keeper::hear_ready(const sb::Header &h, const sb::Body &body)
{
	if (!link_ || h.from != *link_ || h.to != boot_)
		return;
	if (!peer_ready_ || peer_ready_->why != body.unready)
		unready_since_ = Loop::Clock::now();
	peer_ready_ = {body.unready, body.ram_frames};
	if (deferred_ && peer_unready().empty() && machine_.state() == sb::State::Frozen) {
		deferred_ = false;
		hand_in({.ev = sb::Ev::LinkUp, .msg = {}, .whole = false, .from = *link_, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
	}
}

// Why the peer would not take the VM; empty: it would.
std::string Keeper::peer_unready() const
{
	if (!link_)
		return "no link to " + config_.peer.name + " (" + peer_.state_text() + ")";
	if (!peer_ready_)
		return config_.peer.name + " has not said yet whether a QEMU waits there";
	if (peer_ready_->why != sb::Unready::No)
		return config_.peer.name + " is not ready: " + sb::unready_text(peer_ready_->why);
	if (ram_ && peer_ready_->frames != ram_->frames())
		return config_.peer.name + " is not ready: its RAM file has " + std::to_string(peer_ready_->frames) + " frames, this one " +
		       std::to_string(ram_->frames());
	return "";
}

// Stopped for a QEMU that has gone since: as long as a link is waited for. Whoever has forced it waits for as long as he likes.
void Keeper::mind_peer()
{
	const sb::State state = machine_.state();

	tell_ready();
	if (kept_ || !link_ || (state != sb::State::Frozen && state != sb::State::Sealed) || forced_ || machine_.memory().barred ||
	    vmm_.state() == VmmState::gone || !peer_ready_ || peer_ready_->why == sb::Unready::No || peer_ready_->why == sb::Unready::NotBegun)
		return;
	if (Loop::Clock::now() - unready_since_ > config_.link_patience && Loop::Clock::now() - began_ > config_.link_patience)
		give_up(peer_unready());
}

// END is there. An image that no QEMU would take is not promised: END comes again. One that was begun for another QEMU is begun anew: that
// one may have written to the file.
bool Keeper::fit_for_end()
{
	const Receiver *before = receiver_.get();
	const std::string why = make_receiver() ? unfit() : trouble_;

	if (!why.empty()) {
		if (trouble_ != why)
			say(vm_.name, "the image is not promised: " + why);
		trouble_ = why;
		return false;
	}
	if (vmm_.pid() != image_pid_ || receiver_.get() != before) {
		say(vm_.name, "another QEMU waits than the one that the image was begun for: all of it is asked for again");
		receiver_->begin();
		image_pid_ = vmm_.pid();
	}
	return true;
}

// ---- for the power's arithmetic ------------------------------------------------

uint64_t Keeper::need() const
{
	struct stat st;

	if (const auto missing = bounded_ ? bounded_->missing() : std::nullopt)
		return *missing;
	// A hole is zero, and needs no bytes.
	if (stat(vm_.ram.c_str(), &st))
		return ~0ull >> 8;	// more than there is time for; of many the sum is still a number
	return static_cast<uint64_t>(st.st_blocks) * 512;
}

uint64_t Keeper::sent_bytes() const
{
	// A live image's go is hashing most of the time: it says nothing of the link.
	return sender_ && !sender_->live_epoch() ? sender_->progress().raw : 0;
}

uint64_t Keeper::fixed_ms()
{
	const auto at = [this](const char *name) {
		const auto found = std::find_if(stages_.rbegin(), stages_.rend(), [name](const auto &stage) { return stage.first == name; });

		return found == stages_.rend() ? 0 : found->second;
	};
	const uint64_t saved = at("saved"), sent = at("sent"), end = at("running");

	if (fixed_told_ || !end || !saved || sent < saved || end < sent)
		return 0;
	fixed_told_ = true;
	return (end - (sent - saved)) / 1000 + 1;
}

} // namespace redoubt::agent
