// SPDX-License-Identifier: GPL-2.0
#include "carrier.h"

#include <chrono>
#include <cstring>

#include "../redoubtd/log.h"

namespace redoubt::crash {
namespace {

constexpr unsigned max_resends = 8;

sb::Event event_of(sb::Ev ev)
{
	return {.ev = ev, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}};
}

uint64_t now()
{
	using namespace std::chrono;

	return static_cast<uint64_t>(duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count());
}

} // namespace

// A VM that was Active goes to Frozen, as one does whose VMM was killed; from there on as it was.
Carrier::Carrier(const agent::Config &config, agent::Peer &peer, Salvage &vm, const uint8_t (&uuid)[16])
	: peer_(peer), vm_(vm), uuid_(), boot_(vm.note().record.boot), source_(vm),
	  sender_(vm.frames(), source_, config.compress,
		  {[this](sb::Msg msg, std::span<const uint8_t> head, std::span<const uint8_t> data) {
			   peer_.send(agent::Channel::pages, {.msg = msg, .body = 0, .vm = uuid_, .epoch = stream_epoch_, .from = boot_,
							      .to = machine_.peer_boot(), .seq = 0}, head, data);
		   },
		   [this] { return peer_.has_room(); },
		   [this] { return peer_.idle(); },
		   [this](const sb::Digest &digest) {
			   unconfirmed_ = digest;
			   confirm();
		   },
		   [this](const std::string &why) { fail(why); }, {},
		   [this] { peer_.go_on(); }}),
	  machine_({.link_ms = 0}, boot_)
{
	sb::Actions out;

	memcpy(uuid_.byte, uuid, sizeof(uuid_.byte));
	machine_.start(&vm.note().record, sb::Vm::Kept, true, now(), out);
	for (const sb::Action &a : out)
		act(a);
	if (machine_.state() != sb::State::Frozen && machine_.state() != sb::State::Sealed && machine_.state() != sb::State::Aborting &&
	    machine_.state() != sb::State::Released)
		fail(std::string("it is ") + state() + " here: there is nothing to give away");
}

void Carrier::say(const std::string &line) const
{
	agent::say(name(), line);
}

void Carrier::fail(const std::string &why)
{
	if (done_)
		return;
	done_ = true;
	failed_ = why;
	sender_.cancel();
	say(why);
}

// The actions of one to their end before the next
void Carrier::step(const sb::Event &event)
{
	events_.push_back(event);
	if (stepping_)
		return;
	stepping_ = true;
	while (!events_.empty() && !done_) {
		const sb::State before = machine_.state();
		const sb::Event next = events_.front();
		sb::Actions out;

		events_.pop_front();
		machine_.step(next, now(), out);
		if (machine_.state() != before)
			say(std::string(sb::state_name(before)) + " -> " + state() + ", epoch " + std::to_string(machine_.epoch()));
		for (const sb::Action &a : out)
			if (!done_)
				act(a);
	}
	stepping_ = false;
}

void Carrier::act(const sb::Action &a)
{
	switch (a.act) {
	case sb::Act::Journal:		// see the head of carrier.h
		return;
	case sb::Act::Send:
		return send(a);
	case sb::Act::Stream:
		return stream(a.epoch);
	case sb::Act::Resend:
		return resend();
	case sb::Act::VmStop:		// it has stopped, with its host
		return;
	case sb::Act::VmDrop:
		done_ = true;
		return say("the peer runs it");
	case sb::Act::Report:
		return say(sb::report_text(a.report));
	default:
		return fail(std::string("what is asked for in the state ") + state() + " a crash kernel does not do");
	}
}

void Carrier::send(const sb::Action &a)
{
	const sb::Run all{0, vm_.frames()};
	agent::Channel channel = agent::Channel::control;
	uint8_t head[512];
	uint32_t size = 0;

	switch (a.msg) {
	case sb::Msg::Begin:
		size = sb::put_begin(head, 0, &all, 1);
		channel = agent::Channel::pages;
		break;
	case sb::Msg::End:
		if (sender_.busy() || unconfirmed_)
			return;
		size = sb::put_end(head, a.digest, vm_.frames(), vm_.state().size());
		channel = agent::Channel::pages;
		break;
	case sb::Msg::Commit:
		size = sb::put_digest(head, a.digest);
		break;
	default:
		break;
	}
	peer_.send(channel, sb::to_header(a, uuid_, 0), {head, size});
}

void Carrier::stream(uint64_t epoch)
{
	const bool same = stream_epoch_ == epoch;

	// What nobody takes in is not sent; hear_ready() begins again.
	deferred_ = !ready_;
	if (deferred_)
		return;
	stream_epoch_ = epoch;
	if (!same)
		resends_ = 0;
	if (same && sender_.busy()) {
		sender_.pump();
		return;
	}
	if (same && unconfirmed_)
		return confirm();
	unconfirmed_.reset();
	sender_.begin(vm_.state());
}

void Carrier::confirm()
{
	peer_.barrier([this, epoch = stream_epoch_] {
		if (!unconfirmed_ || epoch != stream_epoch_)
			return;
		sb::Event event = event_of(sb::Ev::Sent);
		event.epoch = epoch;
		event.digest = *unconfirmed_;
		unconfirmed_.reset();
		step(event);
	});
}

void Carrier::resend()
{
	if (++resends_ > max_resends)
		return fail("the standby has asked for frames " + std::to_string(max_resends) + " times and still lacks some");
	if ((lacks_flags_ & sb::lacks_more) && !lacks_.empty() && lacks_.back().first < vm_.frames())
		lacks_.back().count = vm_.frames() - lacks_.back().first;
	stream_epoch_ = machine_.epoch();
	// What the agent had sent
	if (!sender_.begun())
		return sender_.begin(vm_.state());
	sender_.again(lacks_, lacks_flags_ & sb::lacks_state);
}

void Carrier::link_up(uint64_t boot)
{
	sb::Event event = event_of(sb::Ev::LinkUp);

	link_ = boot;
	ready_ = false;
	event.from = boot;
	step(event);
}

void Carrier::link_down()
{
	link_.reset();
	if (machine_.state() == sb::State::Sealed) {
		sender_.cancel();
		unconfirmed_.reset();
	}
	step(event_of(sb::Ev::LinkDown));
}

void Carrier::tick()
{
	step(event_of(sb::Ev::Tick));
}

void Carrier::hear_ready(const sb::Header &h, const sb::Body &body)
{
	if (!link_ || h.from != *link_ || h.to != boot_)
		return;
	ready_ = body.unready == sb::Unready::No && body.ram_frames == vm_.frames();
	const std::string why = body.unready != sb::Unready::No ? sb::unready_text(body.unready) : ready_ ? "" : "its RAM file has another size";
	if (unready_ != why && !why.empty())
		say("the standby is not ready: " + why);
	unready_ = why;
	if (ready_ && deferred_) {
		// As if the link had just come up: BEGIN, and all that is to be sent
		sb::Event event = event_of(sb::Ev::LinkUp);
		deferred_ = false;
		event.from = *link_;
		step(event);
	}
}

void Carrier::message(const sb::Header &h, const sb::Body &body)
{
	if (h.msg == sb::Msg::Ready)
		return hear_ready(h, body);
	if (h.msg == sb::Msg::Lacks) {
		// An answer to an END from before what is being sent now
		if (sender_.busy() || unconfirmed_)
			return;
		lacks_.clear();
		for (uint32_t i = 0; i < body.ranges; i++)
			lacks_.push_back(body.range(i));
		lacks_flags_ = body.flags;
	}
	step(sb::to_event(h, body));
}

} // namespace redoubt::crash
