// SPDX-License-Identifier: GPL-2.0
//
// Bounded mode in a keeper: when the background copy begins and ends, on both sides.

#include "keeper.h"
#include "log.h"

namespace redoubt::agent {

// In the states in which it makes sense; the machine asks for the rest by Act::Copy.
void Keeper::want_copy()
{
	if (vm_.mode != Mode::bounded || machine_.state() != sb::State::Active || !link_ || vmm_.state() != VmmState::running)
		return;
	if (machine_.memory().copying) {
		// Another VMM, or what was missing is there now.
		if (!bounded_ || !bounded_->active())
			copy(machine_.epoch());
		return;
	}
	hand_in({.ev = sb::Ev::Copy, .msg = {}, .whole = false, .from = 0, .to = 0, .epoch = 0, .digest = {}, .mine = {}});
}

void Keeper::make_bounded()
{
	if (bounded_ || !sender_)
		return;
	try {
		std::unique_ptr<DirtyTracker> tracker;
		std::unique_ptr<Limiter> limiter;

		if (vm_.tracker == Tracker::compare) {
			tracker = std::make_unique<CompareTracker>(ram_->frames());
		} else if (hold_) {
			tracker = std::make_unique<ModuleTracker>(*ram_, vmm_.pid(), hold_->id());
			limiter = std::make_unique<Limiter>(hold_->id());
		} else {
			throw Error("bounded mode wants redoubt_standby.ko: what is written is not seen without; nothing is copied");
		}
		bounded_ = std::make_unique<Bounded>(loop_, *sender_, ram_->frames(), std::move(tracker), std::move(limiter), budget_, Bounded::Handlers{
			[this](std::function<void()> then) { peer_.barrier(std::move(then)); },
			[this] { send_begin(); },
			[this](const std::string &text) { say(vm_.name, text); },
		});
	} catch (const Error &error) {
		if (trouble_ != error.what())
			say(vm_.name, error.what());
		trouble_ = error.what();
	}
}

void Keeper::send_begin()
{
	uint8_t head[64];
	const sb::Run all{0, ram_->frames()};
	const uint32_t size = sb::put_begin(head, sb::begin_live, &all, 1);

	peer_.send(Channel::pages, {.msg = sb::Msg::Begin, .body = 0, .vm = wire_uuid(), .epoch = machine_.epoch(), .from = boot_,
				    .to = machine_.peer_boot(), .seq = 0}, {head, size});
}

void Keeper::copy(uint64_t epoch)
{
	make_sender();
	make_bounded();
	if (!bounded_)
		return;
	stream_epoch_ = epoch;
	attempts_ = 0;
	try {
		bounded_->begin(epoch);
	} catch (const Error &error) {
		trouble_ = error.what();
		say(vm_.name, trouble_);
	}
}

// What the standby lacks, as it answers BEGIN. Not an answer to END, which is the machine's.
bool Keeper::live_lacks(const sb::Header &h, const sb::Body &body)
{
	std::vector<sb::Run> runs;

	if (machine_.state() != sb::State::Active)
		return false;
	if (!bounded_ || !bounded_->active() || !link_ || h.from != machine_.peer_boot() || h.to != boot_ || h.epoch != stream_epoch_)
		return true;
	for (uint32_t i = 0; i < body.ranges; i++)
		runs.push_back(body.range(i));
	bounded_->lacks(runs, body.flags & sb::lacks_more);
	return true;
}

// The other side: a live image begins, or goes on, and the primary asks what there is of it.
void Keeper::answer_live()
{
	if (!live_begun_ || machine_.state() != sb::State::Receiving || !receiver_)
		return;
	live_begun_ = false;
	send_lacks(machine_.epoch());
}

uint64_t Keeper::bounded_hash_ms() const
{
	return bounded_ && sender_ && ram_ ? ram_->frames() * sender_->ns_a_frame() / 1000000 : 0;
}

std::optional<sb::Share> Keeper::bounded_share() const
{
	if (!bounded_ || !bounded_->active())
		return std::nullopt;
	return sb::Share{.min = vm_.budget_min, .max = ram_->frames() * page_bytes, .weight = vm_.weight, .priority = vm_.priority,
			 .limit = 0, .fits = false};
}

// Less than this is no limit that a VM could live with.
static constexpr uint64_t least_limit = 1 << 20;

void Keeper::set_limit(const sb::Share &share)
{
	const bool held = share.fits && share.limit >= least_limit;

	if (!bounded_)
		return;
	// On battery the budget ends in nothing: who was held stays held.
	if (!held && !unheld_ && budget_.on_battery())
		return bounded_->set_limit(least_limit);
	if (!held && !unheld_ && vm_.tracker == Tracker::module)
		say(vm_.name, "does not fit into the budget: it is copied, and not bounded");
	unheld_ = !held;
	bounded_->set_limit(held ? share.limit : 0);
}

} // namespace redoubt::agent
