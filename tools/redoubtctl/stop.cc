// SPDX-License-Identifier: GPL-2.0

#include "stop.h"

namespace redoubt::ctl {

static volatile sig_atomic_t stop_requested;

StopSignals::StopSignals()
{
	struct sigaction action {};

	stop_requested = 0;
	action.sa_handler = [](int) { stop_requested = 1; };
	sigaction(SIGINT, &action, &old_int_);
	sigaction(SIGTERM, &action, &old_term_);
}

StopSignals::~StopSignals()
{
	sigaction(SIGINT, &old_int_, nullptr);
	sigaction(SIGTERM, &old_term_, nullptr);
}

bool StopSignals::requested()
{
	return stop_requested;
}

} // namespace redoubt::ctl
