// SPDX-License-Identifier: GPL-2.0
//
// Bounded mode of one VM that runs here: round after round what was written is copied to
// the standby, and writers are slowed so that what the standby does not have yet stays
// below a limit. The copy is a cache: at a go every frame is hashed anew, and what the
// standby has is only not sent.
#pragma once

#include <deque>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "budget.h"
#include "dirty.h"
#include "loop.h"
#include "primary.h"

namespace redoubt::agent {

using Json = nlohmann::json;

class Bounded {
public:
	struct Handlers {
		// When the peer has all that was sent. Never, if the link ends before.
		std::function<void(std::function<void()>)> barrier;
		std::function<void()> begin;			// BEGIN to the standby, once more
		std::function<void(const std::string &)> log;
	};

	// Between looks, where there is no limit to go by; tests have less.
	static inline milliseconds unbounded_interval{1'000};

	// @limiter may be null: then nothing is bounded.
	Bounded(Loop &loop, Sender &sender, uint64_t frames, std::unique_ptr<DirtyTracker> tracker, std::unique_ptr<Limiter> limiter,
		Budget &budget, Handlers handlers);
	~Bounded();
	Bounded(const Bounded &) = delete;

	// BEGIN of the epoch was sent, on a new connection perhaps.
	void begin(uint64_t epoch);
	bool active() const { return epoch_ != 0; }
	// The standby lacks these. Of frames behind the last of them, too, if there are @more.
	void lacks(std::span<const sb::Run> runs, bool more);
	void link_down();
	// The VM is stopped, or not ours any more: nobody is slowed.
	void end();
	// Sender's copy() has ended.
	void copied();
	// ... or failed: what of it the standby has is not known.
	void copy_failed(const std::string &why);
	// Bytes that may be dirty; 0: no limit can be held.
	void set_limit(uint64_t bytes);
	// Bytes that the standby lacks, with what was written since the last look; none: there is no copy that holds yet.
	std::optional<uint64_t> missing() const;
	uint64_t dirty() const { return (todo_.count() + pending_) * page_bytes; }
	Json status() const;

private:
	void tick();
	void scan();
	void scan_on();
	void scanned(uint64_t faults);
	void next();
	void brake();
	uint64_t others_share() const;
	// Bytes by write faults since the last scan
	uint64_t unseen() const { return counted_ > base_ ? (counted_ - base_) * page_bytes : 0; }
	void confirmed(uint64_t mark);
	void failed(const std::string &why);

	struct Batch {
		uint64_t mark, frames, raw;
		Loop::Clock::time_point began;
	};

	Loop &loop_;
	Sender &sender_;
	uint64_t frames_;
	std::unique_ptr<DirtyTracker> tracker_;
	std::unique_ptr<Limiter> limiter_;
	Budget &budget_;
	Handlers handlers_;

	uint64_t epoch_ = 0, limit_ = 0;
	bool ready_ = false;		// the standby has said what it lacks
	bool synced_ = false;		// the dirty set has been below the limit once
	bool lowered_ = false;		// the limit has fallen below what was dirty; nobody writes until that is copied
	bool first_ = true;		// the first pass over everything
	bool scanning_ = false;		// a scan is under way
	FrameSet todo_;			// to be sent
	FrameSet look_;			// told by the scan before: DMA may have been under way
	FrameSet found_;
	bool looking_ = false;		// the batch under way is of look_
	uint64_t at_ = 0, look_at_ = 0;
	uint64_t pending_ = 0;		// taken out of todo_, not confirmed
	uint64_t batch_ = 0, batch_raw_ = 0, batch_same_ = 0;
	std::deque<Batch> batches_;
	Loop::Clock::time_point batch_began_, last_confirmed_, last_scan_, asked_;
	milliseconds interval_{100};
	uint64_t base_ = 0;		// faults as they were before the last scan
	uint64_t finding_ = 0;		// frames found by the one under way
	uint64_t counted_ = 0;		// as they are
	std::deque<uint64_t> others_;	// frames that the last scans found beyond the faults: the VMM's
	Loop::Timer tick_ = 0;
	std::shared_ptr<bool> life_ = std::make_shared<bool>(true);

	// For people
	std::string trouble_;
	rdt_sb_limit_info slowed_{};
	uint64_t scans_ = 0, scan_us_ = 0, scan_most_us_ = 0, found_last_ = 0, over_ = 0, most_ = 0, missed_ = 0;
};

} // namespace redoubt::agent
