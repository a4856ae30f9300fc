// SPDX-License-Identifier: GPL-2.0
//
// One line a thing, to stderr: systemd puts it into the journal of the host. The same
// line again within a second is left out.
#pragma once

#include <string>

namespace redoubt::agent {

void say(const std::string &line);
// "db: ..."
void say(const std::string &vm, const std::string &line);

} // namespace redoubt::agent
