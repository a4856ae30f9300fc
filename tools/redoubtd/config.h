// SPDX-License-Identifier: GPL-2.0
//
// /etc/redoubt/standby.json. Read once, at the start; whatever is not understood
// is an error with the place and the reason, never left aside.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace redoubt::agent {

using Uuid = std::array<uint8_t, 16>;
std::string to_string(const Uuid &uuid);

enum class Role { primary, standby };
enum class Source { netlink, map };
enum class Compress { automatic, off, lz4 };
enum class Mode { post_fail, bounded };
enum class Tracker { module, compare };

struct VmConfig {
	std::string name;
	Uuid uuid;
	std::string qmp;		// path of QEMU's monitor socket
	std::string ram;		// the memory backend's file
	Role role;			// where the VM runs when all is well
	Source pages = Source::map;
	unsigned priority = 1;		// of several: the lowest number goes first
	Mode mode = Mode::post_fail;
	Tracker tracker = Tracker::module;
	uint64_t budget_min = 0;	// bytes of the host's budget that it must have
	unsigned weight = 100;		// its part of the rest
	std::chrono::seconds watchdog{0};	// how long QEMU may not answer before it is killed; 0: for ever
};

struct PeerConfig {
	std::string name;
	std::string address;		// a number, no name: a frozen path asks no resolver
	uint16_t port;
	std::string certificate;
};

// What keeps this host running when the mains fail.
struct PowerConfig {
	std::string ups;		// NUT's: UPS@HOST[:PORT]; empty: nobody is asked
	bool resume = true;		// on-return: what has not gone is asked back when the mains are
	std::chrono::seconds rated{0};	// of a full battery; 0: not known
	unsigned health = 100;		// percent: what it is worth of that
	std::chrono::seconds margin{10};
	std::chrono::seconds fixed{5};	// a hand-over, beside its pages, before one was seen
	uint64_t rate = 0;		// bytes a second, before any was seen
};

struct Config {
	std::string me;
	std::string state;		// directory of the journals
	std::string socket;
	std::string listen_address;
	uint16_t listen_port;
	std::string key, certificate;
	PeerConfig peer;
	std::vector<VmConfig> vms;
	PowerConfig power;
	Compress compress = Compress::automatic;
	std::chrono::seconds link_patience{10};	// a frozen VM resumes after so long without its standby
	std::chrono::seconds prepare_limit{30};	// for QEMU to stop and to write its state
	std::chrono::minutes refresh{10};	// of the device state kept for QEMU's death; 0: none is kept

	// What may be dirty on this host: so many bytes; or 0: what the battery is good for
	uint64_t budget_bytes = 0;
	std::chrono::seconds battery{0}, fixed{10}, margin{5};

	// Who calls whom is decided by the names: one of the two, never both.
	bool caller() const { return me < peer.name; }
};

// Both throw client::Error.
Config parse_config(const std::string &text);
Config read_config(const std::string &path);

} // namespace redoubt::agent
