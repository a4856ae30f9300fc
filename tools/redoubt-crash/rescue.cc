// SPDX-License-Identifier: GPL-2.0
#include "rescue.h"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "../redoubtd/log.h"
#include "carrier.h"
#include "disks.h"
#include "layout.h"
#include "way.h"

namespace redoubt::crash {
namespace {

using agent::Config;
using agent::milliseconds;
using agent::say;
using Clock = agent::Loop::Clock;

constexpr milliseconds tick_every{250};
constexpr std::chrono::seconds disk_limit{130};	// an NVMe controller may take 127.5 s (CAP.TO)

std::string slurp(const std::string &path)
{
	std::ifstream in(path, std::ios::binary);
	std::ostringstream out;

	if (!in)
		throw std::runtime_error(path + ": cannot be read");
	out << in.rdbuf();
	return out.str();
}

struct Rescued {
	const Vm *vm;
	std::unique_ptr<Salvage> salvage;
	std::unique_ptr<Carrier> carrier;
	unsigned priority = 0;
};

class Rescue {
public:
	Rescue(const Config &config, std::vector<Rescued> vms, std::chrono::seconds patience)
		: vms_(std::move(vms)), patience_(patience),
		  peer_(loop_, config, vms_.front().salvage->note().record.boot,
			{[this](uint64_t boot) { each([boot](Carrier &c) { c.link_up(boot); }); },
			 [this](const std::string &) { each([](Carrier &c) { c.link_down(); }); },
			 [this](const sb::Header &h, const sb::Body &body) {
				 each([&](Carrier &c) {
					 if (c.uuid() == h.vm)
						 c.message(h, body);
				 });
			 },
			 [this] { pump(); }})
	{
		for (Rescued &r : vms_)
			r.carrier = std::make_unique<Carrier>(config, peer_, *r.salvage, r.vm->uuid);
	}
	// How many the standby runs
	size_t run()
	{
		moved_ = Clock::now();
		peer_.start();
		tick();
		loop_.run();
		return static_cast<size_t>(std::count_if(vms_.begin(), vms_.end(), [](const Rescued &r) {
			return r.carrier->done() && r.carrier->failed().empty();
		}));
	}

private:
	template <typename F> void each(const F &what)
	{
		for (Rescued &r : vms_)
			if (!r.carrier->done())
				what(*r.carrier);
	}
	// One after the other, the first by priority
	void pump()
	{
		bool turn = true;

		each([this, &turn](Carrier &c) {
			if (turn && c.sending() && peer_.has_room())
				turn = c.pump();
		});
	}
	void tick()
	{
		std::string now = peer_.state_text();
		bool any = false;

		(void)loop_.after(tick_every, [this] { tick(); });
		each([&](Carrier &c) {
			any = true;
			c.tick();
			now += c.state() + std::to_string(c.progress().data + c.progress().zero);
		});
		if (now != seen_) {
			moved_ = Clock::now();
			seen_ = now;
			// Should this loop stand still: init()'s
			alarm(static_cast<unsigned>(patience_.count()) + 60);
		}
		if (!any)
			loop_.stop();
		if (Clock::now() - moved_ > patience_) {
			each([](Carrier &c) { say(c.name(), std::string("given up: it is ") + c.state() + ", and nothing has moved for too long"); });
			loop_.stop();
		}
	}

	agent::Loop loop_;
	std::vector<Rescued> vms_;
	std::chrono::seconds patience_;
	agent::Peer peer_;
	std::string seen_;
	Clock::time_point moved_;
};

} // namespace

uint64_t root_address()
{
	constexpr const char *parameter = "redoubt.root=";
	std::istringstream line(slurp("/proc/cmdline"));
	std::string word;

	while (line >> word)
		if (word.rfind(parameter, 0) == 0)
			return std::stoull(word.substr(strlen(parameter)), nullptr, 16);
	throw std::runtime_error(std::string("no ") + parameter + " on the command line");
}

int rescue(const RescueOptions &o)
{
	const Config config = agent::read_config(o.config);
	const Layout layout = Layout::parse(slurp(o.layout));
	Vmcore memory(o.vmcore);
	const Root root = read_root(memory, o.root ? o.root : root_address());
	std::vector<Rescued> vms;
	bool all = root.refused.empty();

	if (root.release != layout.release())
		throw std::runtime_error("the layout is of " + layout.release() + ", the kernel that panicked was " + root.release);
	say(std::to_string(root.vms.size()) + " VMs, " + std::to_string(root.cpus.size()) + " CPUs" + (root.all_stopped() ? "" : ", NOT ALL STOPPED"));
	for (const std::string &why : root.refused)
		say(why);
	const Way way = o.way.empty() ? Way() : nlohmann::json::parse(slurp(o.way)).get<Way>();
	// Before anything is read: it resets the disks, too.
	if (!o.way.empty() && !root.vms.empty())
		open_way(way);
	for (const Vm &vm : root.vms) {
		try {
			Rescued r{.vm = &vm, .salvage = nullptr, .carrier = nullptr};
			const auto it = std::find_if(config.vms.begin(), config.vms.end(), [&](const agent::VmConfig &c) { return agent::to_string(c.uuid) == vm.name(); });
			if (it == config.vms.end())
				throw std::runtime_error("it is not in the configuration");
			r.priority = it->priority;
			r.salvage = std::make_unique<Salvage>(layout, memory, root, vm);
			wait_until_at_rest(r.salvage->note().disks, disk_limit);
			if (!vms.empty() && vms.front().salvage->note().record.boot != r.salvage->note().record.boot)
				throw std::runtime_error("its note is of another boot");
			say(vm.name() + ": whole: " + r.salvage->where() + ", " + std::to_string(r.salvage->state().size()) + " bytes of state");
			vms.push_back(std::move(r));
		} catch (const std::exception &e) {
			say(vm.name() + " lost: " + e.what());
			all = false;
		}
	}
	if (vms.empty())
		return root.vms.empty() && all ? 0 : 1;
	std::stable_sort(vms.begin(), vms.end(), [](const Rescued &a, const Rescued &b) { return a.priority < b.priority; });
	const size_t n = vms.size();
	return Rescue(config, std::move(vms), o.patience).run() == n && all ? 0 : 1;
}

} // namespace redoubt::crash
