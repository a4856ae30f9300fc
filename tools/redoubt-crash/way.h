// SPDX-License-Identifier: GPL-2.0
//
// How the standby is reached: found out on the host that runs, and opened again in its crash kernel, where there are no bridges, no bonds and
// no names of interfaces.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace redoubt::crash {

struct Way {
	std::string mac;			// of the card, as it was made
	std::string address, gateway;		// IPv4; no gateway: the peer is on the same network
	unsigned int prefix = 0;
	std::vector<std::string> modules;	// files, in the order in which they are loaded
};

// Throws std::runtime_error, with what is not known of the way. @peer: an address.
Way find_way(const std::string &peer, const std::string &release);
// In the crash kernel: loads the modules, waits for the card, gives it its address. Throws.
void open_way(const Way &way);

void to_json(nlohmann::json &j, const Way &way);
void from_json(const nlohmann::json &j, Way &way);

} // namespace redoubt::crash
