// SPDX-License-Identifier: GPL-2.0
//
// What a keeper knows of its VM's QEMU: which one it is, what it does, and where its memory is.

#include "keeper.h"

#include <unistd.h>

#include "log.h"

namespace redoubt::agent {

bool Keeper::held_record() const
{
	const sb::Record *last = journal_.last();

	return last && last->boot == boot_ && (last->kind == sb::Kind::Frozen || last->kind == sb::Kind::Sealed ||
					      last->kind == sb::Kind::Aborting || last->kind == sb::Kind::Released);
}

sb::Vm Keeper::what_is_there() const
{
	const sb::Record *last = journal_.last();
	if (kept_)
		return sb::Vm::Kept;
	// A unit that has started another: on the way of the old one that is none.
	const bool other = held_record() && saved_.pid && !saved_.is(vmm_.pid());

	switch (vmm_.state()) {
	case VmmState::running:
		return other ? sb::Vm::None : sb::Vm::Running;
	case VmmState::fresh:
		// Only Act::VmBoot lets it run, or the start of a VM that was never here.
		return last ? sb::Vm::None : sb::Vm::Stopped;
	case VmmState::stopped:
		if (other)
			return sb::Vm::None;
		// QEMU has been through its migration then. What is stopped in another way has run since, unseen.
		if (held_record() && last->kind == sb::Kind::Sealed && vmm_.status() != "postmigrate")
			return sb::Vm::Running;
		return sb::Vm::Stopped;
	case VmmState::waiting:
		return sb::Vm::Waiting;
	default:
		return sb::Vm::None;
	}
}

// A VMM that cannot be asked is not none: what it does decides what may be given up. Empty: it is known.
std::string Keeper::unknown_vmm() const
{
	if (vmm_.state() != VmmState::gone)
		return "";
	if (vmm_.pid())
		return "QEMU, process " + std::to_string(vmm_.pid()) + ", is there and does not answer";
	if (saved_.lives())
		return "the VM's QEMU, process " + std::to_string(saved_.pid) + ", is there, and its monitor is not";
	return vmm_.absent() ? "" : "the monitor is there and takes no connection";
}

void Keeper::read_state()
{
	// One that was left behind is of an attempt that has ended.
	if (!held_record())
		unlink((vm_.ram + ".saved").c_str());
	saved_ = held_record() ? read_saved(vm_.ram + ".saved", boot_) : Saved{};
	state_ = std::move(saved_.state);
	saved_.state.clear();
}

// QEMU gives the state of a VM that stands only once, and an agent may die.
void Keeper::note_state()
{
	saved_ = {.pid = vmm_.pid(), .started = start_time(vmm_.pid()), .boot = boot_, .frames = ram_->frames(),
		  .inode = kept_ ? ram_->inode() : 0, .state = {}};
	// Only that there is one: it is dead.
	if (kept_)
		saved_.pid = held_;
	Saved out = saved_;
	out.state = state_;
	try {
		write_saved(vm_.ram + ".saved", out);
	} catch (const Error &error) {
		say(vm_.name, std::string("the device state is not kept for another agent: ") + error.what());
	}
}

void Keeper::forget_state()
{
	if (saved_.pid)
		unlink((vm_.ram + ".saved").c_str());
	saved_ = {};
}

// Behind a change of QEMU: what is promised is looked at once more, as if the agent had died.
void Keeper::begin_anew()
{
	if (!anew_ || acting_ || !actions_.empty())
		return;
	anew_ = false;
	if (takes_image())
		restart();
}

bool Keeper::takes_image() const
{
	const sb::State state = machine_.state();

	return state == sb::State::Complete || state == sb::State::Verifying ||
	       (state == sb::State::Starting && machine_.memory().how == sb::rec_image);
}

void Keeper::restart()
{
	sb::Actions out;

	machine_.start(journal_.last(), what_is_there(), vm_.role == Role::primary, now(), out);
	actions_.assign(out.begin(), out.end());
	say(vm_.name, std::string("begins as ") + sb::state_name(machine_.state()) + ", epoch " + std::to_string(machine_.epoch()) + ", QEMU " +
			      vmm_state_name(vmm_.state()));
	if (link_)
		events_.push_back({.ev = sb::Ev::LinkUp, .msg = {}, .whole = false, .from = *link_, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
	if (early_)
		events_.push_back(*early_);
	early_.reset();
	if (!tick_)
		tick();
	next_action();
	vmm_changed();
}

void Keeper::vmm_changed()
{
	const VmmState state = vmm_.state();

	if (state == VmmState::gone)
		return;
	if (!begun_) {
		loop_.soon([this] {
			if (begun_)
				return;
			loop_.cancel(begin_);
			begin();
		});
		return;
	}
	const sb::State is = machine_.state();
	// Released, and an agent that was away has not ended it: nobody may let it go on.
	if (state == VmmState::stopped && vmm_.status() == "postmigrate" && (is == sb::State::Empty || booting_))
		vmm_.quit([](const std::string &) {});
	if (state == VmmState::waiting && takes_image() && image_pid_ != vmm_.pid()) {
		say(vm_.name, "another QEMU waits than the one that the image was put together for");
		anew_ = true;
		loop_.soon([this] { begin_anew(); });
	}
	boot_fresh();
	// What the way of a frozen VM needs is there before.
	if (state == VmmState::waiting && !kept_)
		receive_by_this_one();
	else if (machine_.state() != sb::State::Starting)
		make_sender();
	if (state != VmmState::running)
		return;
	if (booting_) {
		booting_ = boot_asked_ = false;
		hand_in({.ev = sb::Ev::Loaded, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
	} else if (watch_.busy()) {
		// A refresh is through, and the stop waits for that.
	} else if (is == sb::State::Active) {
		hand_in({.ev = sb::Ev::VmUp, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
	} else {
		let_run();
	}
}

// Another QEMU than the one that a live image was begun for may have written to the file: asked for again now, and not behind END.
void Keeper::receive_by_this_one()
{
	if (make_receiver() && machine_.state() == sb::State::Receiving && image_pid_ != vmm_.pid())
		(void)ask_for_all();
}

// For the QEMU that is there now
bool Keeper::ask_for_all()
{
	try {
		receiver_->begin();
		image_pid_ = vmm_.pid();
		send_lacks(machine_.epoch());
		return true;
	} catch (const Error &error) {
		trouble_ = error.what();
		return false;
	}
}

void Keeper::let_run()
{
	say(vm_.name, std::string("the VM runs here, and must not (") + sb::state_name(machine_.state()) + "): stopped");
	// What was sent is of another moment than what lies there now.
	state_saved_ = false;
	leave_note();
	stale_ = saving_;
	if (sender_)
		sender_->cancel();
	unconfirmed_.reset();
	if (machine_.state() == sb::State::Stuck)
		vmm_.stop([this](const std::string &error) {
			if (!error.empty())
				say(vm_.name, "cannot stop it: " + error);
		});
	else
		hand_in({.ev = sb::Ev::VmRan, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
}

void Keeper::vmm_died()
{
	// Not the VM's: that one has died before, and is kept.
	if (kept_) {
		boot_asked_ = false;
		return;
	}
	const bool waited = machine_.vm() == sb::Vm::None || machine_.vm() == sb::Vm::Waiting;

	if (begun_ && !waited && keep_dead())
		return;
	watch_.end();
	state_saved_ = false;
	saving_ = false;
	drop_sender();
	boot_asked_ = false;
	if (begun_ && !waited)
		hand_in({.ev = sb::Ev::VmLost, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
}

// What has read the VM's memory. Bounded mode uses the sender, and goes before it.
void Keeper::drop_sender()
{
	if (sender_)
		sent_ = sender_->progress();
	bounded_.reset();
	sender_.reset();
	source_.reset();
	hold_.reset();
	unconfirmed_.reset();
	held_ = 0;
}

bool Keeper::open_memory()
{
	try {
		if (!ram_ || !ram_->changed().empty()) {
			watch_.end();
			bounded_.reset();
			sender_.reset();
			receiver_.reset();
			source_.reset();
			// Nobody else tells that what was being looked at is not there any more.
			if (verifying_)
				hand_in({.ev = sb::Ev::Verified, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
			verifying_ = false;
			ram_ = std::make_unique<RamFile>(vm_.ram);
		}
		return true;
	} catch (const Error &error) {
		trouble_ = error.what();
		return false;
	}
}

// With the module, once a VMM. Without it a VM that lives can still be handed over, by its RAM file.
void Keeper::hold()
{
	if (kept_ || !vmm_.pid() || held_ == vmm_.pid() || (vm_.pages == Source::map && !Hold::available()))
		return;
	held_ = vmm_.pid();
	hold_.reset();
	try {
		hold_ = std::make_unique<Hold>(vmm_.pid(), vm_.uuid);
		say(vm_.name, "held by redoubt_standby as VM " + std::to_string(hold_->id()) + ", vCPUs: " + std::to_string(hold_->vcpus()));
	} catch (const Error &error) {
		say(vm_.name, error.what());
		if (vm_.pages == Source::netlink)
			trouble_ = error.what();
	}
}

void Keeper::make_sender()
{
	// What is left of a dead one has its sender, and the file may not be at the path any more.
	if (kept_)
		return;
	hold();
	if ((sender_ && ram_->changed().empty()) || !open_memory())
		return;
	try {
		// A file at the path is not yet the VM's memory.
		(void)find_mappings(vmm_.pid(), *ram_);
		if (vm_.pages == Source::map)
			source_ = std::make_unique<FileSource>(*ram_);
		else if (hold_)
			source_ = std::make_unique<NetlinkSource>(loop_, *ram_, vmm_.pid(), hold_->id(), [this] {
				if (sender_)
					sender_->pump();
			});
		else
			return;
	} catch (const Error &error) {
		trouble_ = error.what();
		say(vm_.name, trouble_);
		return;
	}
	new_sender();
}

void Keeper::new_sender()
{
	bounded_.reset();
	sender_ = std::make_unique<Sender>(ram_->frames(), *source_, config_.compress, Sender::Handlers{
		[this](sb::Msg msg, std::span<const uint8_t> head, std::span<const uint8_t> data) {
			peer_.send(Channel::pages, {.msg = msg, .body = 0, .vm = wire_uuid(), .epoch = stream_epoch_, .from = boot_,
						    .to = machine_.peer_boot(), .seq = 0}, head, data);
		},
		[this] { return peer_.has_room(); },
		[this] { return peer_.idle(); },
		[this](const sb::Digest &digest) {
			stage("sent");
			if (source_->lost())
				say(vm_.name, std::to_string(source_->lost()) + " messages of the module's stream were lost, and asked for again");
			unconfirmed_ = digest;
			confirm();
		},
		[this](const std::string &why) {
			if (bounded_ && bounded_->active())
				bounded_->copy_failed(why);
			else
				give_up(why);
		},
		[this] {
			if (bounded_)
				bounded_->copied();
		},
		[this] { peer_.go_on(); },
	});
}

bool Keeper::make_receiver()
{
	// The open file is the VM of a QEMU that was killed; what is at its path by now is another's.
	if (kept_) {
		trouble_ = "the VM of a QEMU that was killed is still kept here";
		return false;
	}
	const bool there = receiver_ && ram_->changed().empty();
	if (!there && !open_memory())
		return false;
	ram_->keep_pages(locked_bytes(vmm_.pid()) >= ram_->frames() * page_bytes);
	if (there)
		return true;
	receiver_ = std::make_unique<Receiver>(loop_, *ram_, vm_.ram + ".state");
	// In the middle of an image: what came until now went into another file.
	if (machine_.state() == sb::State::Receiving && !ask_for_all())
		receiver_.reset();
	return receiver_ != nullptr;
}

std::string Keeper::unfit() const
{
	if (vmm_.state() != VmmState::waiting)
		return std::string("no QEMU waits for it (it is ") + vmm_state_name(vmm_.state()) + ")";
	if (!vmm_.refuses().empty())
		return vmm_.refuses();
	if (const std::string changed = ram_->changed(); !changed.empty())
		return changed;
	try {
		(void)find_mappings(vmm_.pid(), *ram_);
	} catch (const Error &error) {
		return error.what();
	}
	return "";
}

// Outside of an attempt nothing is of interest.
void Keeper::stage(const char *name)
{
	if (began_ == Loop::Clock::time_point())
		return;
	stages_.emplace_back(name, static_cast<uint64_t>(
		std::chrono::duration_cast<std::chrono::microseconds>(Loop::Clock::now() - began_).count()));
	if (stages_.size() > 64)
		stages_.erase(stages_.begin());
}

} // namespace redoubt::agent
