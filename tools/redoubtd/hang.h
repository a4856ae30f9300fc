// SPDX-License-Identifier: GPL-2.0
//
// The watchdog of a VM (F1): a QEMU whose main loop stands still runs no disk and answers nobody, and does not die of it.
#pragma once

#include <memory>

#include "vmm.h"

namespace redoubt::agent {

class HangWatch {
public:
	// @limit: how long QEMU may not answer; 0: it is not asked.
	HangWatch(Vmm &vmm, std::chrono::seconds limit) : vmm_(vmm), limit_(limit) {}

	// To be called often. True: QEMU was asked, and has not answered for @limit. A monitor that has gone says nothing of QEMU, and a
	// time in which this process was held up itself does not count.
	bool tick();
	// What it was asked counts no more.
	void end();

private:
	void ask();

	Vmm &vmm_;
	const milliseconds limit_;
	Loop::Clock::time_point ticked_, asked_;
	bool hangs_ = false;
	// That is out; gone when its answer has come, or is not wanted any more
	std::shared_ptr<bool> question_;
};

} // namespace redoubt::agent
