// SPDX-License-Identifier: GPL-2.0

#include "agent.h"

#include <algorithm>

#include "../lib/parse.h"
#include "log.h"

namespace redoubt::agent {

namespace {

constexpr milliseconds share_every{500};

} // namespace

Agent::Agent(Loop &loop, const Config &config, uint64_t boot)
	: loop_(loop), config_(config), directory_(config.state), budget_(config),
	  peer_(loop, config, boot, {
		[this](uint64_t peer_boot) {
			for (const auto &keeper : keepers_)
				keeper->link_up(peer_boot);
			probe();
		},
		[this](const std::string &) {
			for (const auto &keeper : keepers_)
				keeper->link_down();
		},
		[this](const sb::Header &h, const sb::Body &body) {
			if (Keeper *keeper = find(h.vm))
				keeper->message(h, body);
			else
				say("the peer speaks of a VM that is not in the configuration");
		},
		[this] { pump(); },
	  }),
	  control_(loop, config.socket, [this](const Json &request, const ControlSocket::Reply &reply) { command(request, reply); })
{
	for (const VmConfig &vm : config.vms)
		keepers_.push_back(std::make_unique<Keeper>(loop, config, vm, directory_, boot, peer_, budget_));
	std::stable_sort(keepers_.begin(), keepers_.end(), [](const auto &a, const auto &b) { return a->vm().priority < b->vm().priority; });
}

void Agent::start()
{
	for (const auto &keeper : keepers_)
		keeper->start();
	peer_.start();
	start_power();
	share();
}

// The host's budget among those that are copied now.
void Agent::share()
{
	std::vector<sb::Share> shares;
	std::vector<Keeper *> whose;
	uint64_t hash_ms = 0;

	(void)loop_.after(share_every, [this] { share(); });
	for (const auto &keeper : keepers_) {
		if (const auto share = keeper->bounded_share()) {
			shares.push_back(*share);
			whose.push_back(keeper.get());
			hash_ms += keeper->bounded_hash_ms();
		}
	}
	if (shares.empty())
		return;
	sb::divide(shares.data(), static_cast<unsigned>(shares.size()), budget_.bytes(hash_ms));
	for (size_t i = 0; i < shares.size(); i++)
		whose[i]->set_limit(shares[i]);
}

Keeper *Agent::find(const sb::Uuid &uuid)
{
	for (const auto &keeper : keepers_) {
		if (keeper->wire_uuid() == uuid)
			return keeper.get();
	}
	return nullptr;
}

Keeper *Agent::find(const std::string &name)
{
	for (const auto &keeper : keepers_) {
		if (keeper->vm().name == name)
			return keeper.get();
	}
	return nullptr;
}

// One after the other at full rate: the first by priority is through before the next begins.
void Agent::pump()
{
	for (const auto &keeper : keepers_) {
		if (!peer_.has_room())
			return;
		if (keeper->sending() && !keeper->pump())
			return;
	}
	for (const auto &keeper : keepers_) {
		if (!peer_.has_room())
			return;
		if (keeper->copying() && !keeper->pump())
			return;
	}
}

Json Agent::status() const
{
	Json out{{"me", config_.me}, {"peer", config_.peer.name}, {"link", peer_.state_text()}, {"refused", peer_.refused()}};

	if (power_)
		out["power"] = power_->status(Loop::Clock::now());
	return out;
}

void Agent::command(const Json &request, const ControlSocket::Reply &reply)
{
	const std::string name = request["command"], vm = request.contains("vm") && request["vm"].is_string() ? request["vm"].get<std::string>() : "";
	const auto fail = [&reply](const std::string &error) { reply({{"ok", false}, {"error", error}}); };

	if (name == "list" || (name == "status" && vm.empty())) {
		Json out = status();

		out["ok"] = true;
		out["vms"] = Json::array();
		for (const auto &keeper : keepers_)
			out["vms"].push_back(keeper->status());
		return reply(out);
	}
	Keeper *keeper = find(vm);
	if (!keeper)
		return fail(vm.empty() ? "'" + name + "' is no command, or wants a VM" : "there is no VM '" + vm + "' in the configuration");
	vm_command(name, *keeper, request, reply);
}

void Agent::vm_command(const std::string &name, Keeper &keeper, const Json &request, const ControlSocket::Reply &reply)
{
	const auto answer = [reply, &keeper, name](const std::string &error) {
		if (!error.empty()) {
			say(keeper.vm().name, name + " is refused: " + error);
			reply({{"ok", false}, {"error", keeper.vm().name + ": " + error}});
			return;
		}
		Json out = keeper.status();
		out["ok"] = true;
		reply(out);
	};
	const auto boot = [&request]() -> std::optional<uint64_t> {
		const auto found = request.find("boot");
		return found != request.end() && found->is_string() ? client::parse_number("0x" + found->get<std::string>()) : std::nullopt;
	}();

	if (name == "status")
		return answer("");
	if (name == "go")
		return keeper.go(request.value("force", Json(false)) == Json(true), answer);
	if (name == "abort")
		return keeper.abort(answer);
	if (name == "fenced")
		return boot ? keeper.fenced(*boot, answer) : answer("which boot of the peer? status shows it");
	if (name == "promote" && request.contains("boot") && !boot)
		return answer("that is no boot of the peer: status shows it");
	if (name == "promote")
		return keeper.promote(boot.value_or(0), answer);
	if (name != "check")
		return reply({{"ok", false}, {"error", "'" + name + "' is no command"}});
	keeper.check([reply, &keeper](const std::string &error, const std::vector<Obstacle> &all) {
		Json out{{"ok", error.empty()}, {"name", keeper.vm().name}};
		bool carried = true;

		if (!error.empty()) {
			out["error"] = keeper.vm().name + ": " + error;
			return reply(out);
		}
		out["obstacles"] = Json::array();
		for (const Obstacle &o : all) {
			carried &= o.death_only || o.panic_only;
			out["obstacles"].push_back({{"what", o.what}, {"why", o.why}, {"vmm_death_only", o.death_only}, {"panic_only", o.panic_only}});
		}
		out["carried"] = carried;
		reply(out);
	});
}

} // namespace redoubt::agent
