// SPDX-License-Identifier: GPL-2.0
//
// What the machine asks for, done; and what people ask for.

#include "keeper.h"
#include "log.h"

namespace redoubt::agent {

namespace {

constexpr milliseconds try_again{200};
constexpr unsigned ready_tries = 10;
// A VM that must not run, and that nobody wants to send, is not asked for longer.
constexpr std::chrono::seconds stop_patience{10};
// Epochs in a row that the standby has had nothing of.
constexpr unsigned max_attempts = 8;
// An image that does not become whole with so many tries does not with one more.
constexpr unsigned max_resends = 8;

std::string hex_text(uint64_t value)
{
	char text[20];

	snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
	return text;
}

sb::Event event_of(sb::Ev ev, uint64_t from = 0)
{
	return {.ev = ev, .msg = {}, .whole = false, .from = from, .to = 0, .epoch = 0, .digest = {}, .mine = {}};
}

} // namespace

void Keeper::write_journal(const sb::Action &a)
{
	try {
		journal_.write(a.rec, a.sync);
		// Before the word goes out, or the VM is let run
		leave_note();
	} catch (const Error &error) {
		trouble_ = error.what();
		say(vm_.name, "journal: " + trouble_);
		actions_.clear();
		events_.push_front(event_of(sb::Ev::JournalFailed));
	}
}

void Keeper::send(const sb::Action &a)
{
	uint8_t head[512];
	uint32_t size = 0;
	// What belongs behind the pages goes with them; the answers do not wait behind them.
	Channel channel = Channel::control;

	switch (a.msg) {
	case sb::Msg::Begin: {
		if (!ram_)
			return;
		const sb::Run all{0, ram_->frames()};
		size = sb::put_begin(head, machine_.state() == sb::State::Active ? sb::begin_live : 0, &all, 1);
		channel = Channel::pages;
		break;
	}
	case sb::Msg::End:
		// With frames still on their way the answer is known. It is sent behind them.
		if (sending() || unconfirmed_)
			return;
		// A VMM that is dead has left no file, but a standby that has all of it wants to be asked.
		size = sb::put_end(head, a.digest, ram_ ? ram_->frames() : saved_.frames, state_.size());
		channel = Channel::pages;
		break;
	case sb::Msg::Prepared:
	case sb::Msg::Commit:
		size = sb::put_digest(head, a.digest);
		stage(sb::msg_name(a.msg));
		break;
	default:
		break;
	}
	peer_.send(channel, sb::to_header(a, wire_uuid(), 0), {head, size});
}

void Keeper::vm_stop()
{
	if (watch_.busy())
		return watch_.when_idle([this] { vm_stop(); });
	if (stages_.empty() || machine_.state() == sb::State::Frozen) {
		began_ = Loop::Clock::now();
		stages_.clear();
		fixed_told_ = false;
	}
	if (!stop_since_)
		stop_since_ = Loop::Clock::now();
	vmm_.stop([this](const std::string &error) {
		const sb::State state = machine_.state();

		if (error.empty()) {
			stop_since_.reset();
			stage("stopped");
			acting_ = false;
			next_action();
			return;
		}
		// It is alive and may run: nothing behind this may be done.
		if (trouble_ != error)
			say(vm_.name, "the VM cannot be stopped: " + error);
		trouble_ = error;
		// Whose memory is the VM is never killed.
		if (Loop::Clock::now() - *stop_since_ > stop_patience && state != sb::State::Frozen && state != sb::State::Sealed &&
		    state != sb::State::Aborting) {
			say(vm_.name, "it must not run here and cannot be stopped: its QEMU is killed");
			vmm_.kill();
		}
		retry_ = loop_.after(try_again, [this] {
			retry_ = 0;
			vm_stop();
		});
	});
}

void Keeper::vm_cont()
{
	if (watch_.busy())
		return watch_.when_idle([this] { vm_cont(); });
	if (sender_)
		sender_->cancel();
	vmm_.resume([this](const std::string &error) {
		if (error.empty() || vmm_.state() == VmmState::gone) {
			acting_ = false;
			next_action();
			return;
		}
		// A migration that is being given up takes its time.
		trouble_ = error;
		say(vm_.name, "the VM does not go on yet: " + error);
		retry_ = loop_.after(try_again, [this] {
			retry_ = 0;
			vm_cont();
		});
	});
}

void Keeper::vm_load()
{
	const auto failed = [this](const std::string &why) {
		trouble_ = why;
		say(vm_.name, "the image is not loaded: " + why);
		hand_in(event_of(sb::Ev::LoadFailed));
	};

	stage("commit");
	if (!receiver_ || receiver_->state().empty())
		return failed("there is no device state");
	if (const std::string why = unfit(); !why.empty())
		return failed(why);
	vmm_.load(receiver_->state(), [this, failed](const std::string &error) {
		if (!error.empty() || vmm_.state() != VmmState::stopped)
			return failed(error.empty() ? "QEMU has taken it, and does not say that it stands" : error);
		stage("loaded");
		hand_in(event_of(sb::Ev::Loaded));
	}, config_.prepare_limit);
}

// From its disk. A QEMU is started by its unit, not by us: with one that stands there
// ready it is a matter of letting it run, else of waiting for it.
void Keeper::vm_boot()
{
	if (vmm_.state() == VmmState::running) {
		hand_in(event_of(sb::Ev::Loaded));
		return;
	}
	booting_ = true;
	if (vmm_.state() == VmmState::stopped || vmm_.state() == VmmState::waiting || vmm_.state() == VmmState::spoiled)
		trouble_ = "its QEMU has run before, or waits for an image: end it, and start it anew, without -incoming";
	else
		trouble_ = "may be started from its disk now: start its QEMU, without -incoming";
	if (vmm_.state() != VmmState::fresh)
		say(vm_.name, trouble_);
	if (vmm_.state() == VmmState::stopped && vmm_.status() == "postmigrate")
		vmm_.quit([](const std::string &) {});
	boot_fresh();
}

// What has run once knows another disk than the one that there is now.
void Keeper::boot_fresh()
{
	if (!booting_ || boot_asked_ || vmm_.state() != VmmState::fresh)
		return;
	boot_asked_ = true;
	vmm_.resume([this](const std::string &error) {
		if (error.empty())
			return;
		// The next tick tries again.
		boot_asked_ = false;
		if (trouble_ != error)
			say(vm_.name, "the VM is not started: " + error);
		trouble_ = error;
	});
}

void Keeper::stream(uint64_t epoch)
{
	const bool same = stream_epoch_ == epoch;

	// Frozen by force. What nobody takes in is not sent; hear_ready() begins again.
	deferred_ = link_ && peer_ready_ && peer_ready_->why != sb::Unready::NotBegun && !peer_unready().empty();
	if (deferred_)
		return;
	stream_epoch_ = epoch;
	if (!same) {
		resends_ = 0;
		if (++attempts_ > max_attempts && !machine_.memory().barred)
			return give_up("the standby has taken nothing of " + std::to_string(max_attempts) + " attempts");
	}
	if (saving_)
		return;		// it goes on from there
	make_sender();
	if (!sender_)
		return give_up(trouble_);
	if (sender_->live_epoch() && sender_->live_epoch() != epoch)
		sender_->live(0);
	// What was on its way when the link went is known, and is another only to who hashes anew.
	if (same && sender_->live_epoch() && (sender_->busy() || unconfirmed_)) {
		unconfirmed_.reset();
		return sender_->begin(state_);
	}
	if (same && sender_->busy()) {
		sender_->pump();
		return;
	}
	if (same && unconfirmed_)
		return confirm();
	unconfirmed_.reset();
	if (state_saved_)
		return sender_->begin(state_);
	// The memory is read behind this: what QEMU and KVM write into it when they are
	// asked for their state is in it.
	saving_ = true;
	stale_ = false;
	vmm_.save(state_, [this](const std::string &error) {
		saving_ = false;
		if (machine_.state() != sb::State::Frozen)
			return;
		// Its end is told next, and what becomes of the VM decided there.
		if (vmm_.state() == VmmState::gone)
			return;
		if (!error.empty() && !stale_)
			return give_up("no device state: " + error);
		// It has run behind that. The machine may not have got to it yet.
		if (stale_)
			return loop_.soon([this] {
				if (machine_.state() == sb::State::Frozen && !acting_ && !saving_ && !state_saved_)
					stream(machine_.epoch());
			});
		state_saved_ = true;
		note_state();
		leave_note();
		stage("saved");
		sender_->begin(state_);
	}, config_.prepare_limit);
}

void Keeper::confirm()
{
	peer_.barrier([this, epoch = stream_epoch_] {
		if (!unconfirmed_ || epoch != stream_epoch_)
			return;
		const sb::Digest digest = *unconfirmed_;

		unconfirmed_.reset();
		stage("taken");
		hand_in({.ev = sb::Ev::Sent, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = epoch, .digest = digest, .mine = {}});
	});
}

void Keeper::resend()
{
	if (!sender_ || !state_saved_)
		return give_up("there is nothing to send anew");
	if (++resends_ > max_resends)
		return give_up("the standby has asked for frames " + std::to_string(max_resends) + " times and still lacks some");
	say(vm_.name, "the standby lacks " + std::to_string(lacks_runs_.size()) + " ranges" +
			      (lacks_flags_ & sb::lacks_state ? " and the device state" : ""));
	// It lacks more than one message names.
	if ((lacks_flags_ & sb::lacks_more) && !lacks_runs_.empty() && lacks_runs_.back().first < ram_->frames())
		lacks_runs_.back().count = ram_->frames() - lacks_runs_.back().first;
	// An agent before this one has sent it. Or a live image: what a lost link has made unknown is hashed anew, too.
	if (!sender_->begun() || sender_->live_epoch()) {
		std::erase_if(lacks_runs_, [n = ram_->frames()](const sb::Run &r) { return r.first >= n || r.count > n - r.first; });
		if (sender_->begun())
			sender_->forget(lacks_runs_);
		stream_epoch_ = machine_.epoch();
		return sender_->begin(state_);
	}
	sender_->again(lacks_runs_, lacks_flags_ & sb::lacks_state);
}

void Keeper::send_lacks(uint64_t epoch)
{
	if (!receiver_)
		return;
	const Receiver::Lacking lacking = receiver_->lacking();
	std::vector<uint8_t> head(8 + lacking.runs.size() * sizeof(sb::Run) + 16);
	const uint32_t size = sb::put_lacks(head.data(), lacking.flags, lacking.runs.data(), static_cast<uint32_t>(lacking.runs.size()));

	peer_.send(Channel::control, {.msg = sb::Msg::Lacks, .body = 0, .vm = wire_uuid(), .epoch = epoch, .from = boot_,
				      .to = machine_.peer_boot(), .seq = 0}, {head.data(), size});
}

void Keeper::report(sb::Report r)
{
	last_report_ = r;
	reported_ = Loop::Clock::now();
	say(vm_.name, std::string(sb::report_text(r)) + (receiver_ && r == sb::Report::Incomplete ?
			      " (" + std::to_string(receiver_->have()) + " of " + std::to_string(receiver_->frames()) + " frames)" : ""));
}

void Keeper::give_up(const std::string &why)
{
	trouble_ = why;
	say(vm_.name, why);
	// Not in the middle of a step
	loop_.soon([this] { hand_in(event_of(sb::Ev::Abort)); });
}

// ---- commands ------------------------------------------------------------------

void Keeper::go(bool force, Answer answer)
{
	const std::string state = sb::state_name(machine_.state());

	if (!begun_ || machine_.state() != sb::State::Active)
		return answer("does not run here (" + (begun_ ? state : "not begun") + ")");
	if (vmm_.state() != VmmState::running && vmm_.state() != VmmState::stopped)
		return answer(std::string("its QEMU is ") + vmm_state_name(vmm_.state()));
	make_sender();
	if (!sender_)
		return answer(trouble_);
	check([this, force, answer](const std::string &error, const std::vector<Obstacle> &all) {
		if (!error.empty())
			return answer(error);
		for (const Obstacle &o : all) {
			if (!o.death_only && !o.panic_only)
				return answer("cannot be handed over: " + o.what + ": " + o.why);
		}
		trigger(force, ready_tries, answer);
	});
}

// A link that has just come up may not have said READY yet: a moment is left to it.
void Keeper::trigger(bool force, unsigned tries, const Answer &answer)
{
	if (machine_.state() != sb::State::Active)
		return answer("does not run here any more");
	const std::string unready = peer_unready();

	if (link_ && !peer_ready_ && !force && tries) {
		(void)loop_.after(try_again, [this, force, tries, answer] { trigger(force, tries - 1, answer); });
		return;
	}
	if (!unready.empty() && !force)
		return answer(unready + "; --force freezes it all the same");
	trouble_ = unready;
	if (!unready.empty())
		say(vm_.name, "frozen by force: " + unready);
	forced_ = force;
	hand_in(event_of(sb::Ev::Trigger));
	answer("");
}

void Keeper::abort(Answer answer)
{
	const sb::State state = machine_.state();

	switch (begun_ ? state : sb::State::Void) {
	case sb::State::Frozen:
	case sb::State::Sealed:
	case sb::State::Aborting:
		if (vmm_.state() == VmmState::gone)
			return answer(sb::report_text(sb::Report::CannotResume));
		hand_in(event_of(sb::Ev::Abort));
		return answer("");
	case sb::State::Active:
		return answer("runs here: there is nothing to abort");
	case sb::State::Released:
		return answer(sb::report_text(sb::Report::AlreadyReleased));
	default:
		return answer(std::string("is not being handed over from here (") + (begun_ ? sb::state_name(state) : "not begun") + ")");
	}
}

void Keeper::fenced(uint64_t boot, Answer answer)
{
	if (!begun_ || boot != machine_.peer_boot())
		return answer("the peer's boot that counts here is " + (begun_ ? hex_text(machine_.peer_boot()) : std::string("not known")));
	hand_in(event_of(sb::Ev::Fenced, boot));
	answer("");
}

void Keeper::promote(uint64_t boot, Answer answer)
{
	if (!begun_)
		return answer("not begun");
	hand_in(event_of(sb::Ev::Promote, boot));
	// The machine says no by a report.
	answer(machine_.runs() || machine_.state() == sb::State::Claiming ? "" : sb::report_text(last_report_));
}

Json Keeper::status() const
{
	Json out{{"name", vm_.name}, {"uuid", to_string(vm_.uuid)}, {"role", vm_.role == Role::primary ? "primary" : "standby"},
		 {"state", begun_ ? sb::state_name(machine_.state()) : "not begun"}, {"epoch", machine_.epoch()},
		 {"runs", begun_ && machine_.runs()}, {"vmm", vmm_state_name(vmm_.state())}, {"pid", vmm_.pid()}, {"stuck", vmm_.stuck()},
		 {"link", link_.has_value()}, {"peer_boot", hex_text(machine_.peer_boot())}};

	if (begun_ && machine_.state() == sb::State::Active)
		out["standby"] = peer_unready().empty() ? "ready" : peer_unready();
	if (last_report_ != sb::Report::None) {
		out["report"] = sb::report_text(last_report_);
		out["report_seconds_ago"] = std::chrono::duration_cast<std::chrono::seconds>(Loop::Clock::now() - reported_).count();
	}
	if (!trouble_.empty())
		out["trouble"] = trouble_;
	if (hold_ && !kept_)
		out["if_killed"] = watch_.status();
	if (hold_)
		out["if_panicked"] = panic_status();
	if (kept_)
		out["kept"] = true;
	const Progress &p = sender_ && sender_->progress().frames ? sender_->progress() : sent_;
	if (p.frames) {

		out["sent"] = {{"frames", p.frames}, {"data", p.data}, {"zero", p.zero}, {"again", p.again}, {"same", p.same}, {"bytes", p.raw},
			       {"packed", p.wire}, {"state_bytes", p.state}};
	}
	if (receiver_ && receiver_->have())
		out["received"] = {{"frames", receiver_->frames()}, {"have", receiver_->have()}, {"bytes", receiver_->bytes()},
				   {"state_bytes", receiver_->state().size()}};
	if (bounded_)
		out["bounded"] = bounded_->status();
	for (const auto &[name, us] : stages_)
		out["us"][name] = us;
	return out;
}

} // namespace redoubt::agent
