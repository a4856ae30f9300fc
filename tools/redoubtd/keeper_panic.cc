// SPDX-License-Identifier: GPL-2.0
//
// Should the host panic, a crash kernel goes on from what is left here: Documentation/panic.md.

#include "keeper.h"

#include <fstream>

#include "log.h"

namespace redoubt::agent {

namespace {

constexpr const char *loaded_path = "/sys/kernel/kexec_crash_loaded", *root_path = "/sys/module/redoubt_standby/parameters/crash_root",
		     *ours_path = "/run/redoubt/crash.root";

std::string first_word(const std::string &path)
{
	std::string word;

	std::ifstream(path) >> word;
	return word;
}

} // namespace

// With each record of the journal, and when what is known of the VM has changed. What cannot be left must not stay as it was: a VM
// that has run on is another than the note's.
void Keeper::leave_note()
{
	if (!hold_)
		return;
	try {
		const std::optional<Note> note = make_note();
		std::vector<rdt_crash_range> ranges;

		if (!note)
			return hold_->leave();
		for (const Mapping &m : mappings_)
			ranges.push_back({.first = m.page, .count = m.frames, .hva = m.hva * page_bytes});
		const LiveArea *const live = note->live ? watch_.live() : nullptr;
		hold_->leave(ranges, write_note(*note), live ? live->memory() : nullptr, live ? live->bytes() : 0);
		note_trouble_.clear();
	} catch (const Error &error) {
		note_trouble_ = error.what();
		say(vm_.name, "if the host panics the VM is lost: " + note_trouble_);
		try {
			hold_->leave();
		} catch (const Error &) {
			hold_.reset();
		}
	}
}

// None: there is no VM here that could go on elsewhere.
std::optional<Note> Keeper::make_note()
{
	const sb::Record *const last = journal_.last();
	Note note;

	note_trouble_ = "there is nothing to go on from yet";
	if (!begun_ || !last || last->boot != boot_ || !ram_)
		return std::nullopt;
	note.vm = vm_.name;
	note.record = *last;
	note.frames = ram_->frames();
	switch (last->kind) {
	case sb::Kind::Run:
	case sb::Kind::Started:
		break;
	case sb::Kind::Frozen:
	case sb::Kind::Sealed:
	case sb::Kind::Aborting:
	case sb::Kind::Released:
		if (state_saved_) {
			// It has given up its disks: nothing is on the way.
			note.whole = true;
			note.state = state_;
			if (!kept_)
				mappings_ = find_mappings(vmm_.pid(), *ram_);
			return note;
		}
		break;
	default:
		return std::nullopt;
	}
	if (!watch_.describe(note)) {
		note_trouble_ = watch_.obstacle();
		return std::nullopt;
	}
	if (!watch_.disks_unknown().empty()) {
		note_trouble_ = watch_.disks_unknown();
		return std::nullopt;
	}
	mappings_ = watch_.mappings();
	return note;
}

void Keeper::panic_obstacles(std::vector<Obstacle> &out) const
{
	const auto add = [&out](const char *what, const std::string &why) { out.push_back({what, why, false, true}); };

	if (!hold_)
		return;		// said of QEMU's death
	if (first_word(loaded_path) != "1")
		add("crash kernel", "none is loaded: redoubt-crash load");
	else if (const std::string root = first_word(root_path); root.empty() || root != first_word(ours_path))
		add("crash kernel", "the one that is loaded is not redoubt-crash's, or of before redoubt_standby.ko was loaded: redoubt-crash load");
	if (!note_trouble_.empty() && note_trouble_ != watch_.obstacle())
		add("now", note_trouble_);
	// A page that the VMM has not mapped cannot be found.
	if (ram_ && locked_bytes(vmm_.pid()) < ram_->frames() * page_bytes)
		add("memory", "is not locked: -overcommit mem-lock=on");
}

Json Keeper::panic_status() const
{
	std::vector<Obstacle> all;

	panic_obstacles(all);
	if (const std::string why = watch_.obstacle(); !why.empty() && !kept_)
		all.push_back({"now", why});
	Json out{{"ready", all.empty()}};
	if (!all.empty())
		out["why_not"] = all.front().what + ": " + all.front().why;
	return out;
}

} // namespace redoubt::agent
