// SPDX-License-Identifier: GPL-2.0
//
// The whole of it: the link, a keeper a VM, the socket.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "control.h"
#include "keeper.h"
#include "power.h"

namespace redoubt::agent {

class Agent {
public:
	// @boot: this host's, boot_number(). Throws.
	Agent(Loop &loop, const Config &config, uint64_t boot);

	void start();

private:
	Keeper *find(const sb::Uuid &uuid);
	Keeper *find(const std::string &name);
	// Who sends next: of those with something to send the first by priority.
	void pump();
	// Power's half of the agent, agent_power.cc
	void start_power();
	void power_tick();
	void power_go(const std::string &why);
	void power_back();
	void power_event(uint8_t power, uint32_t seconds, uint64_t budget);
	void probe();
	void share();
	void command(const Json &request, const ControlSocket::Reply &reply);
	void vm_command(const std::string &name, Keeper &keeper, const Json &request, const ControlSocket::Reply &reply);
	Json status() const;

	Loop &loop_;
	const Config &config_;
	StateDirectory directory_;
	Budget budget_;
	Peer peer_;
	std::vector<std::unique_ptr<Keeper>> keepers_;	// by priority
	ControlSocket control_;
	std::unique_ptr<Power> power_;
	std::unique_ptr<Ups> ups_;
	Loop::Timer power_timer_ = 0;
	uint64_t sent_before_ = 0;		// a second ago
	bool sending_before_ = false;
	std::map<std::string, std::string> power_said_;	// why a VM does not go, once each
	std::set<std::string> power_sent_;	// since the mains failed
};

} // namespace redoubt::agent
