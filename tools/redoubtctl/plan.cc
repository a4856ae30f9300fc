// SPDX-License-Identifier: GPL-2.0
//
// What can be handed over on a battery: the agent's own arithmetic, src/core/standby/budget.h, with what is given.

#include <algorithm>

#include <standby/budget.h>

#include "../lib/parse.h"
#include "commands.h"
#include "print.h"

namespace redoubt::ctl {

using namespace client;
namespace sb = redoubt::standby;

namespace {

struct Planned {
	std::string name;
	sb::Share share{};
	uint64_t after_ms = 0;		// on battery until it is through
};

Planned parse_vm(const std::string &text)
{
	const size_t first = text.find(':'), second = text.find(':', first == std::string::npos ? first : first + 1);
	const auto mib = parse_number(first == std::string::npos ? "" : text.substr(first + 1, second - first - 1));
	const auto priority = second == std::string::npos ? std::optional<uint64_t>(1) : parse_number(text.substr(second + 1));

	if (!first || !mib || !*mib || *mib > 1u << 30 || !priority || *priority > 1000)
		throw Error("'" + text + "' is not NAME:MIB[:PRIORITY]");
	Planned vm{text.substr(0, first)};
	vm.share.min = vm.share.max = *mib << 20;
	vm.share.weight = 1;
	vm.share.priority = static_cast<uint32_t>(*priority);
	return vm;
}

uint64_t ms(double seconds)
{
	return static_cast<uint64_t>(seconds * 1000);
}

std::string mib_text(uint64_t bytes)
{
	return std::to_string(bytes >> 20) + " MiB";
}

} // namespace

int standby_plan(Context &ctx, const PlanOptions &options)
{
	const sb::Battery battery{.on_line = true, .low = false, .runtime_ms = ~0ull, .rated_ms = ms(options.battery_s), .charge = 10000,
				  .charge_low = 0, .fell = 0, .in_ms = 0, .health = 100};
	const uint64_t rate = static_cast<uint64_t>(options.rate_mib * (1 << 20)), hold_up = sb::hold_up_ms(battery);
	const uint64_t budget = sb::budget_bytes(hold_up, ms(options.fixed_s), ms(options.margin_s), rate);
	std::vector<Planned> vms;
	std::vector<sb::Share> shares;
	uint64_t sent = 0;
	bool all = true;

	for (const std::string &text : options.vms)
		vms.push_back(parse_vm(text));
	if (vms.size() > sb::max_shares)
		throw Error("more than " + std::to_string(sb::max_shares) + " VMs");
	std::stable_sort(vms.begin(), vms.end(), [](const Planned &a, const Planned &b) { return a.share.priority < b.share.priority; });
	for (const Planned &vm : vms)
		shares.push_back(vm.share);
	(void)sb::divide(shares.data(), static_cast<unsigned>(shares.size()), budget);
	for (size_t i = 0; i < vms.size(); i++) {
		vms[i].share = shares[i];
		all &= shares[i].fits;
		// One after the other at full rate
		if (shares[i].fits) {
			sent += shares[i].min;
			vms[i].after_ms = ms(options.fixed_s) + sent / std::max<uint64_t>(rate / 1000, 1);
		}
	}
	if (ctx.json) {
		Json out{{"budget_bytes", budget}, {"hold_up_ms", hold_up}, {"fits", all}, {"vms", Json::array()}};

		for (const Planned &vm : vms) {
			Json j{{"name", vm.name}, {"bytes", vm.share.min}, {"priority", vm.share.priority}, {"fits", vm.share.fits}};
			if (vm.share.fits)
				j["after_ms"] = vm.after_ms;
			out["vms"].push_back(j);
		}
		ctx.out << out.dump() << "\n";
		return all ? exit_ok : exit_error;
	}
	ctx.out << mib_text(budget) << " can be sent: " << hold_up / 1000 << " s of battery (80 % of what it is rated for), less "
		<< ms(options.fixed_s) / 1000 << " s and " << ms(options.margin_s) / 1000 << " s, at " << mib_text(rate) << " a second\n";
	for (const Planned &vm : vms)
		ctx.out << vm.name << "  " << mib_text(vm.share.min) << ", priority " << vm.share.priority << ": "
			<< (vm.share.fits ? "through after " + std::to_string((vm.after_ms + 999) / 1000) + " s" : "does not fit") << "\n";
	if (!all)
		throw Error("not all of them can be handed over on this battery");
	return exit_ok;
}

} // namespace redoubt::ctl
