// SPDX-License-Identifier: GPL-2.0
//
// QEMU is dead and the VM is not: what a keeper does about it.

#include "keeper.h"
#include "log.h"

namespace redoubt::agent {

bool Keeper::undisturbed() const
{
	return machine_.state() == sb::State::Active && !acting_ && actions_.empty() && !booting_;
}

void Keeper::watch_death()
{
	if (hold_ && ram_ && undisturbed() && vmm_.state() == VmmState::running)
		watch_.tick(*hold_, *ram_);
}

// Killed, it goes on elsewhere; where that is not known for certain it is left alone, for it may come to itself.
void Keeper::watch_hang()
{
	// In a refresh it stands, and must answer all the same: what the one before has taken is good until there is the next.
	if (!undisturbed() || (vmm_.state() != VmmState::running && !watch_.busy()))
		return hang_.end();
	if (!hang_.tick()) {
		if (!hang_said_.empty() && trouble_ == hang_said_)
			trouble_.clear();
		hang_said_.clear();
		return;
	}
	std::string why = hold_ ? watch_.obstacle() : "redoubt_standby.ko does not hold it";
	if (why.empty())
		why = peer_unready();
	const std::string text = "QEMU has not answered for " + std::to_string(vm_.watchdog.count()) + " s" +
				 (why.empty() ? ": it is killed, and the VM is to go on elsewhere" : ", and is not killed: " + why);
	if (text != hang_said_)
		say(vm_.name, text);
	hang_said_ = trouble_ = text;
	if (why.empty()) {
		hang_.end();
		vmm_.kill();
	}
}

bool Keeper::keep_dead()
{
	const sb::State state = machine_.state();
	const bool ours = state == sb::State::Active || state == sb::State::Frozen;

	// The file itself, not what a unit has put in its place.
	if (!sender_ || !ram_ || (!ours && state != sb::State::Sealed && state != sb::State::Aborting && state != sb::State::Released))
		return false;
	if (vmm_.ended_itself()) {
		say(vm_.name, "it was ended: nothing of it is kept");
		return false;
	}
	if (!state_saved_) {
		if (!ours || !hold_)
			return false;
		stages_.clear();
		began_ = Loop::Clock::now();
		try {
			// What a crash kernel would find is of rings that nobody has written to.
			hold_->leave();
			state_ = watch_.make_state(*hold_);
		} catch (const Error &error) {
			trouble_ = std::string("QEMU was killed, and the VM cannot go on: ") + error.what();
			say(vm_.name, trouble_);
			return false;
		}
		state_saved_ = true;
		stage("state");
	}
	saving_ = stale_ = boot_asked_ = false;
	kept_ = true;
	watch_.end();
	note_state();
	leave_note();
	say(vm_.name, "QEMU was killed; the VM's memory, its vCPUs and its rings are kept (" + std::to_string(state_.size()) + " bytes of state)");
	hand_in({.ev = sb::Ev::VmDied, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
	// One that was being stopped, or asked for its state, when it died
	if (state == sb::State::Frozen)
		loop_.soon([this] {
			if (kept_ && machine_.state() == sb::State::Frozen && !acting_ && link_)
				stream(machine_.epoch());
		});
	return true;
}

// An agent that is started again: the one before has left the state, and the memory is a file.
bool Keeper::open_kept()
{
	if (!held_record() || !saved_.inode || saved_.lives() || state_.empty())
		return false;
	try {
		ram_ = std::make_unique<RamFile>(vm_.ram);
		if (ram_->inode() != saved_.inode || ram_->frames() != saved_.frames) {
			say(vm_.name, "the RAM file is not that of the VM whose QEMU was killed");
			ram_.reset();
			return false;
		}
		source_ = std::make_unique<FileSource>(*ram_);
	} catch (const Error &error) {
		trouble_ = error.what();
		say(vm_.name, trouble_);
		return false;
	}
	new_sender();
	kept_ = true;
	return true;
}

// Nobody will send it any more: elsewhere it goes on, or it is lost.
void Keeper::drop_kept()
{
	const sb::State state = machine_.state();

	if (state != sb::State::Active && state != sb::State::Frozen)
		watch_.end();
	if (!kept_ || state == sb::State::Active || state == sb::State::Frozen || state == sb::State::Sealed || state == sb::State::Aborting ||
	    state == sb::State::Released)
		return;
	kept_ = state_saved_ = false;
	drop_sender();
	// All that reads the file goes before it.
	receiver_.reset();
	ram_.reset();
}

void Keeper::check(Checked answer)
{
	check_vm(vmm_.qmp(), vmm_.pid(), vm_, [this, answer](const std::string &error, const std::vector<Obstacle> &all) {
		std::vector<Obstacle> out = all;

		if (error.empty() && machine_.state() == sb::State::Active) {
			if (!hold_)
				out.push_back({"redoubt_standby.ko", Hold::available() ? "does not hold the VM" : "is not loaded", true});
			else if (std::string why = watch_.obstacle(); !why.empty())
				out.push_back({"now", why, true});
			panic_obstacles(out);
		}
		answer(error, out);
	});
}

} // namespace redoubt::agent
