// SPDX-License-Identifier: GPL-2.0
//
// The whole of it: the link, a keeper a VM, the socket.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "control.h"
#include "keeper.h"

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
	void command(const Json &request, const ControlSocket::Reply &reply);
	void vm_command(const std::string &name, Keeper &keeper, const Json &request, const ControlSocket::Reply &reply);
	Json status() const;

	Loop &loop_;
	const Config &config_;
	StateDirectory directory_;
	Peer peer_;
	std::vector<std::unique_ptr<Keeper>> keepers_;	// by priority
	ControlSocket control_;
};

} // namespace redoubt::agent
