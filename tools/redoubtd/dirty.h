// SPDX-License-Identifier: GPL-2.0
//
// Bounded mode's eyes and its brake: which frames of a VM were written since the last
// look, and how fast its vCPUs may write. Both are redoubt_standby.ko's.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <standby/budget.h>

#include "genl.h"

namespace redoubt::agent {

// Frames, and how many they are.
class FrameSet {
public:
	explicit FrameSet(uint64_t frames) : frames_(frames), words_((frames + 63) / 64) {}

	uint64_t count() const { return count_; }
	bool has(uint64_t frame) const { return words_[frame / 64] >> frame % 64 & 1; }
	void add(uint64_t frame)
	{
		count_ += !has(frame);
		words_[frame / 64] |= uint64_t{1} << frame % 64;
	}
	void add(const sb::Run &run)
	{
		for (uint64_t i = 0; i < run.count; i++)
			add(run.first + i);
	}
	void remove(uint64_t frame)
	{
		count_ -= has(frame);
		words_[frame / 64] &= ~(uint64_t{1} << frame % 64);
	}
	void add(const FrameSet &other);
	void remove(const FrameSet &other);
	void fill() { add({0, frames_}); }
	void clear();
	// Some runs from @from on, round the end, of @most frames together: taken out.
	std::vector<sb::Run> take(uint64_t &from, uint64_t most);

private:
	uint64_t next(uint64_t from) const;

	uint64_t frames_, count_ = 0;
	std::vector<uint64_t> words_;
};

class DirtyTracker {
public:
	virtual ~DirtyTracker() = default;
	// From here on; before it everything counts as written. Throws.
	virtual void arm() = 0;
	// A part of a pass over all frames: adds what was written since the pass before, to be copied
	// behind this; @found: how many. True: that was the last part. Throws: then it may be all of
	// them, and the pass is over.
	virtual bool scan(FrameSet &out, uint64_t &found) = 0;
	// The next part is the first one.
	virtual void rewind() {}
	// Write faults of the vCPUs as they were before the last pass, or the one under way.
	virtual uint64_t faults() const { return 0; }
};

// By the VMM's page tables, redoubt_standby.ko's SCAN.
class ModuleTracker : public DirtyTracker {
public:
	ModuleTracker(const RamFile &ram, pid_t pid, uint32_t vm);
	void arm() override;
	bool scan(FrameSet &out, uint64_t &found) override;
	void rewind() override { mapping_ = at_ = 0; }
	uint64_t faults() const override { return faults_; }

private:
	uint32_t scan_some(uint64_t hva, uint64_t page, uint32_t frames, FrameSet &out, uint64_t &found);

	pid_t pid_;
	uint32_t vm_;
	std::vector<Mapping> mappings_;
	Genl genl_;
	uint64_t faults_ = 0;
	uint64_t mapping_ = 0, at_ = 0;	// of the pass under way
};

// Nobody tells: everything is looked at each time, and compared by its hash. Exact, for any
// memory, and as dear as it sounds. Nothing can be bounded by it.
class CompareTracker : public DirtyTracker {
public:
	explicit CompareTracker(uint64_t frames) : frames_(frames) {}
	void arm() override {}
	bool scan(FrameSet &out, uint64_t &found) override
	{
		out.fill();
		found = frames_;
		return true;
	}

private:
	uint64_t frames_;
};

class Limiter {
public:
	explicit Limiter(uint32_t vm) : vm_(vm) {}
	~Limiter();

	struct Said {
		uint64_t faults = 0;
		rdt_sb_limit_info info{};
	};
	// nullptr: only counted. Throws.
	Said limit(const sb::Ramp *ramp);

private:
	uint32_t vm_;
	Genl genl_;
};

} // namespace redoubt::agent
