// SPDX-License-Identifier: GPL-2.0
//
// For commands that go on until they are told to stop.
#pragma once

#include <csignal>

namespace redoubt::ctl {

// No descriptor tells of a new VM, so look round now and then.
inline constexpr int look_round_ms = 200;

// ^C ends the watching, not the program: the closing count is still printed.
class StopSignals {
public:
	StopSignals();
	~StopSignals();
	StopSignals(const StopSignals &) = delete;

	// Since the object was made.
	static bool requested();

private:
	struct sigaction old_int_, old_term_;
};

} // namespace redoubt::ctl
