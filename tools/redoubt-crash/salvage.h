// SPDX-License-Identifier: GPL-2.0
//
// A VM of the host that has panicked, made ready to be sent: its memory, frame by frame, and the device state that its QEMU would have written.
#pragma once

#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "../redoubtd/note.h"
#include "../redoubtd/primary.h"
#include "../redoubtd/qstream.h"
#include "layout.h"
#include "root.h"

namespace redoubt::crash {

namespace sb = redoubt::standby;

// Physical, @root and @layout stay as long as this.
class Salvage {
public:
	// Throws std::exception: why it cannot go on. Nothing of the VM is lost then that was not before.
	Salvage(const Layout &layout, Physical &memory, const Root &root, const Vm &vm);

	const agent::Note &note() const { return note_; }
	uint64_t frames() const { return note_.frames; }
	const std::vector<uint8_t> &state() const { return state_; }
	// Where the vCPUs were: "guest, halted"
	const std::string &where() const { return where_; }
	// Throws.
	void frame(uint64_t number, uint8_t *to);

private:
	using Page = std::array<uint8_t, page_bytes>;

	void all_there();
	void make_state(const Layout &layout, const Root &root);
	void put_rings(agent::QStream &stream);
	std::vector<uint8_t> bytes(uint64_t from, uint64_t size);
	uint64_t place_of(uint64_t hva) const;
	void change(uint64_t from, const std::vector<uint8_t> &what);

	Physical &memory_;
	const Vm &vm_;
	Space space_;
	agent::Note note_;
	std::map<uint64_t, rdt_crash_range> ranges_;	// by their first frame
	std::map<uint64_t, Page> changed_;		// the old memory is not ours to write to
	std::vector<uint8_t> state_;
	std::string where_;
};

// For agent::Sender
class SalvageSource : public agent::PageSource {
public:
	explicit SalvageSource(Salvage &vm) : vm_(vm), buffer_(sb::max_frames * page_bytes) {}
	void want(std::span<const sb::Run> runs) override { runs_.insert(runs_.end(), runs.begin(), runs.end()); }
	void cancel() override { runs_.clear(); }
	bool produce(const Take &take) override;
	bool finished() const override { return runs_.empty(); }

private:
	Salvage &vm_;
	std::deque<sb::Run> runs_;
	std::vector<uint8_t> buffer_;
};

} // namespace redoubt::crash
