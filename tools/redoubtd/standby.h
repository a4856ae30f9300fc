// SPDX-License-Identifier: GPL-2.0
//
// The standby's half: what comes goes into the RAM file of a QEMU that waits, is
// hashed as it lies there, and counts only when all of it is there.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <standby/image.h>

#include "loop.h"
#include "memory.h"

namespace redoubt::agent {

class Receiver {
public:
	// @state_path: where the device state lies for an agent that is started again; beside
	// the RAM file, and gone with it when the host goes down.
	Receiver(Loop &loop, RamFile &ram, std::string state_path);
	~Receiver();

	// Can this be the VM of the RAM file? Empty: yes.
	std::string fits(const sb::Body &begin) const;
	// Throws.
	void begin();
	void drop();

	// PAGES, STATE. Throws if it cannot be stored: the link is of no use then. What the VM
	// cannot have is an error, too.
	void take(sb::Msg msg, const sb::Body &body);
	// At END: whole and digest for the machine. The device state is put down first; throws.
	bool check(const sb::Body &end, sb::Digest *mine);
	// A live image lies there for long before it is to be run: what has come is hashed once more,
	// beside what still comes; check() waits for the end of it. What is another by now is lacking.
	void look_again(std::function<void()> looked = {});
	bool looking() const { return look_ < ram_.frames(); }
	// What is lacking, for LACKS; everything if nothing is.
	struct Lacking {
		std::vector<sb::Run> runs;
		uint32_t flags = 0;
	};
	Lacking lacking();

	// Hashes what lies in the RAM file and in the state's file, in slices between other
	// work. Not called if the receiver goes on to something else.
	void verify(std::function<void(bool whole, const sb::Digest &)> done);

	const std::vector<uint8_t> &state() const { return state_; }
	uint64_t have() const { return image_.have(); }
	uint64_t frames() const { return ram_.frames(); }
	uint64_t bytes() const { return bytes_; }

private:
	void take_pages(const sb::Body &body);
	void note(uint64_t first, uint32_t count, uint64_t zero);
	void save_state() const;
	bool load_state();
	void slice();
	void look_slice();
	void look_at(uint64_t frame);

	Loop &loop_;
	RamFile &ram_;
	std::string state_path_;
	Hasher hasher_;
	sb::Image image_;
	std::vector<uint64_t> image_memory_;
	std::vector<uint8_t> state_, plain_, back_;
	uint64_t bytes_ = 0;
	// Of verify()
	std::function<void(bool, const sb::Digest &)> verified_;
	uint64_t at_ = 0;
	Loop::Timer next_slice_ = 0;
	// Of look_again(): the next frame; frames(): done
	uint64_t look_ = UINT64_MAX;
	Loop::Timer next_look_ = 0;
	std::function<void()> looked_;
};

} // namespace redoubt::agent
