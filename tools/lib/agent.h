// SPDX-License-Identifier: GPL-2.0
//
// The client of redoubtd's socket: a line of JSON there, a line back.
#pragma once

#include <string>

#include "sys.h"

namespace redoubt::client {

class AgentClient {
public:
	// Throws if nobody listens.
	explicit AgentClient(const std::string &path);

	// One line without its end, and the answer likewise. Throws if there is none in @timeout_ms.
	std::string ask(const std::string &line, int timeout_ms = 30'000);

private:
	std::string path_;
	Fd socket_;
};

} // namespace redoubt::client
