// SPDX-License-Identifier: GPL-2.0

#include "commands.h"

#include <cerrno>

#include "../lib/names.h"
#include "../lib/process.h"
#include "print.h"

namespace redoubt::ctl {

using namespace client;

int status(Context &ctx)
{
	std::optional<Device> opened;
	try {
		opened.emplace(ctx.sys);
	} catch (const NoModule &) {
		if (ctx.json)
			ctx.out << Json{{"loaded", false}} << std::endl;
		throw;
	}
	const Device &device = *opened;
	const rdt_info &info = device.info();
	Json vms = Json::array();
	std::string lines;
	unsigned shown = 0;

	for (const rdt_list_entry &entry : device.list()) {
		try {
			const Vm vm = device.open(entry.vm_id);
			const EventRing ring = vm.events();
			const rdt_vm_info vm_info = vm.info();

			vms.push_back(vm_json(vm_info, ring));
			lines += vm_lines(vm_info, ring) + "\n";
			shown++;
		} catch (const Error &error) {
			// It ended or was detached between the list and now.
			if (error.code() != ENOENT && error.code() != ENODEV)
				throw;
		}
	}

	if (ctx.json) {
		ctx.out << Json{
			{"loaded", true},
			{"version", info.version},
			{"arch", archs.name(info.arch)},
			{"kernel", info.kernel},
			{"views", info.views},
			{"policy", policy_json(info.flags)},
			{"vms", vms},
		} << std::endl;
	} else {
		ctx.out << "redoubt is loaded: " << archs.name(info.arch) << ", kernel " << info.kernel << ", "
			<< plural(info.views, "view") << " a VM, policy " << policy_text(info.flags) << ", "
			<< plural(shown, "VM") << " attached\n"
			<< lines << std::flush;
	}
	return exit_ok;
}

int attach(Context &ctx, int pid, std::optional<int> vm_fd, const QuotaOptions &quota)
{
	const Device device(ctx.sys);
	const ProcessVm process = take_vm(ctx.sys, pid, vm_fd);
	const std::string what = "descriptor " + std::to_string(process.number) + " of process " + std::to_string(pid);

	try {
		const Vm vm = device.attach(process.fd.get());

		Json json{{"vm_id", vm.id()}, {"pid", pid}, {"vm_fd", process.number}};
		std::string text;

		if (quota.any()) {
			try {
				change_quota(vm, quota);
			} catch (const Error &error) {
				throw Error(std::string("attached, but ") + error.what());
			}
			json["quota"] = quota_json(vm.quota());
			text = "; quota " + quota_text(vm.quota());
		}
		if (ctx.json)
			ctx.out << json << std::endl;
		else
			ctx.out << "vm " << vm.id() << " attached: " << what << text << std::endl;
	} catch (const Error &error) {
		throw Error(what + ": " + error.what());
	}
	return exit_ok;
}

int detach(Context &ctx, const std::string &name, bool force)
{
	const Vm vm = Device(ctx.sys).find(name);

	vm.detach(force);
	if (ctx.json)
		ctx.out << Json{{"vm_id", vm.id()}, {"detached", true}} << std::endl;
	else
		ctx.out << "vm " << vm.id() << " detached" << std::endl;
	return exit_ok;
}

int regions(Context &ctx, const std::string &name)
{
	const Vm vm = Device(ctx.sys).find(name);
	const std::vector<rdt_region> all = vm.regions();

	if (ctx.json) {
		Json list = Json::array();

		for (const rdt_region &region : all)
			list.push_back(region_json(region));
		ctx.out << Json{{"vm_id", vm.id()}, {"regions", list}} << std::endl;
		return exit_ok;
	}
	uint64_t pages = 0;
	for (const rdt_region &region : all) {
		ctx.out << region_line(region) << "\n";
		pages += region.pages;
	}
	ctx.out << "vm " << vm.id() << ": " << plural(all.size(), "region") << ", " << plural(pages, "page") << std::endl;
	return exit_ok;
}

int protect(Context &ctx, const std::string &name, uint64_t gpa, uint64_t pages, unsigned action, unsigned cls)
{
	const Vm vm = Device(ctx.sys).find(name);
	rdt_region region{};

	vm.protect(gpa, pages, action, cls);
	region.gpa = gpa;
	region.pages = pages;
	region.action = static_cast<__u8>(action);
	region.cls = static_cast<__u8>(cls);
	if (ctx.json) {
		Json json{{"vm_id", vm.id()}};

		json.update(region_json(region));
		ctx.out << json << std::endl;
	} else {
		ctx.out << "vm " << vm.id() << ": " << region_line(region) << std::endl;
	}
	return exit_ok;
}

int policy(Context &ctx, std::optional<bool> self_attach)
{
	const Device device(ctx.sys);
	uint32_t flags = device.policy();

	if (self_attach) {
		flags = *self_attach ? flags | RDT_POLICY_SELF_ATTACH : flags & ~RDT_POLICY_SELF_ATTACH;
		device.set_policy(flags);
		flags = device.policy();
	}
	if (ctx.json)
		ctx.out << policy_json(flags) << std::endl;
	else
		ctx.out << policy_text(flags) << std::endl;
	return exit_ok;
}

} // namespace redoubt::ctl
