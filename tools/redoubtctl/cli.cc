// SPDX-License-Identifier: GPL-2.0
//
// The command line.

#include "commands.h"

#include <climits>
#include <functional>

#include <CLI/CLI.hpp>

#include "../lib/names.h"
#include "../lib/parse.h"

namespace redoubt::ctl {

using namespace client;

namespace {

const char *const footer =
	"VM is a VM's number or pid:PID, the process that runs it. Numbers are decimal,\n"
	"or hexadecimal behind 0x.\n"
	"Exit status: 0 done, 1 error, 2 wrong usage, 3 the module is not loaded.";

CLI::Validator number_check(uint64_t least, uint64_t most)
{
	return CLI::Validator(
		[=](std::string &text) {
			const auto value = parse_number(text);

			if (!value)
				return "'" + text + "' is not a number";
			if (*value < least || *value > most)
				return "'" + text + "' is not in " + std::to_string(least) + ".." + std::to_string(most);
			return std::string();
		},
		"");
}

CLI::Validator name_check(const Names &names)
{
	return CLI::Validator(
		[&names](std::string &text) {
			return names.value(text) ? "" : "'" + text + "' is none of: " + names.list();
		},
		"");
}

// A class is a label of the guest's choice, so one without a name is as good.
std::optional<unsigned> class_value(const std::string &text)
{
	if (const auto named = classes.value(text))
		return named;
	const auto value = parse_number(text);
	return value && *value <= 0xff ? std::optional(static_cast<unsigned>(*value)) : std::nullopt;
}

CLI::Validator class_check()
{
	return CLI::Validator(
		[](std::string &text) {
			return class_value(text) ? "" : "'" + text + "' is no number and none of: " + classes.list();
		},
		"");
}

CLI::Validator vm_check()
{
	return CLI::Validator(
		[](std::string &text) {
			const bool by_pid = text.starts_with("pid:");
			const auto value = parse_number(by_pid ? std::string_view(text).substr(4) : text);

			if (value && *value && *value <= uint64_t(by_pid ? INT_MAX : UINT_MAX))
				return std::string();
			return "'" + text + "' is neither a VM's number nor pid:PID";
		},
		"");
}

CLI::Validator switch_check()
{
	return CLI::IsMember({"on", "off"});
}

// What a command was given, still as text; the validators above have seen it.
struct Arguments {
	bool json = false;
	bool all = false, force = false;
	std::string pid, vm_fd, vm, gpa, pages, action, cls = "other", self_attach;
	std::string since, count, type;
	double timeout = 0, wait = 0;
	std::string domains, frames, total, may_export;
	std::string id, address, value, key, file;
	bool any_mode = false;
	std::vector<std::string> manifests, values;
	std::string bdf, on, direct, copy;
	StandbyOptions standby;
	PlanOptions plan;
};

uint64_t number(const std::string &text)
{
	return parse_number(text).value();
}

std::optional<uint64_t> optional_number(const std::string &text)
{
	return text.empty() ? std::nullopt : parse_number(text);
}

std::optional<bool> optional_switch(const std::string &text)
{
	return text.empty() ? std::nullopt : std::optional(text == "on");
}

QuotaOptions quota_options(const Arguments &args)
{
	QuotaOptions options;

	if (!args.domains.empty())
		options.domains = static_cast<uint32_t>(number(args.domains));
	options.frames = optional_number(args.frames);
	options.total = optional_number(args.total);
	options.may_export = optional_switch(args.may_export);
	return options;
}

SecretOptions secret_options(const Arguments &args)
{
	SecretOptions options;

	options.vm = args.vm;
	options.manifests = args.manifests;
	options.values = args.values;
	options.id = optional_number(args.id);
	options.any_mode = args.any_mode;
	options.wait_s = args.wait;
	options.count = optional_number(args.count);
	if (args.timeout > 0)
		options.timeout_s = args.timeout;
	return options;
}

int run_checked(Sys &sys, int argc, const char *const *argv, std::ostream &out, std::ostream &err)
{
	CLI::App app("redoubtctl: what Redoubt's host module watches, and how", "redoubtctl");
	Arguments args;
	std::function<int(Context &)> command;

	app.require_subcommand(1);
	app.footer(footer);

	const auto add_to = [&](CLI::App &parent, const char *name, const char *text,
				std::function<int(Context &)> action) {
		CLI::App *sub = parent.add_subcommand(name, text);

		sub->add_flag("--json", args.json, "output for programs");
		sub->callback([&command, action] { command = action; });
		return sub;
	};
	const auto add = [&](const char *name, const char *text, std::function<int(Context &)> action) {
		return add_to(app, name, text, std::move(action));
	};
	const auto add_group = [&](const char *name, const char *text) {
		CLI::App *group = app.add_subcommand(name, text);

		group->require_subcommand(1);
		return group;
	};
	const auto add_vm = [&](CLI::App *sub) {
		return sub->add_option("VM", args.vm, "the VM's number, or pid:PID")->check(vm_check());
	};

	const auto add_id = [&](CLI::App *sub, const char *name) {
		return sub->add_option(name, args.id, "which domain, as the command domains shows it")
			->check(number_check(1, INT64_MAX));
	};
	const auto add_quota = [&](CLI::App *sub) {
		sub->add_option("--domains", args.domains, "how many; 0: none")->check(number_check(0, RDT_DOM_MAX));
		sub->add_option("--frames", args.frames, "private pages of one")->check(number_check(0, UINT64_MAX));
		sub->add_option("--total", args.total, "of all together; default: of as many, each as large as it may be")
			->check(number_check(0, UINT64_MAX));
		sub->add_option("--export", args.may_export, "on|off: may content leave, encrypted")
			->check(switch_check());
	};
	const auto add_any_mode = [&](CLI::App *sub) {
		sub->add_flag("--any-mode", args.any_mode, "take files that others than their owner have rights to, too");
	};
	const auto add_wait = [&](CLI::App *sub) {
		sub->add_option("--wait", args.wait, "SECONDS to go on asking while a thread is inside")
			->check(CLI::Range(0.0, 1e9));
	};

	add("status", "the module, the policy, the VMs and their counters", status);

	CLI::App *sub = add("attach", "watch the VM of a running process", [&](Context &ctx) {
		const auto fd = optional_number(args.vm_fd);

		return attach(ctx, static_cast<int>(number(args.pid)),
			      fd ? std::optional<int>(static_cast<int>(*fd)) : std::nullopt, quota_options(args));
	});
	add_quota(sub);
	sub->add_option("--pid", args.pid, "the process, an unmodified QEMU for example")
		->required()->check(number_check(1, INT_MAX));
	sub->add_option("--vm-fd", args.vm_fd, "which descriptor, if the process has several VMs")
		->check(number_check(0, INT_MAX));

	sub = add("detach", "stop watching: lift every restriction",
		  [&](Context &ctx) { return detach(ctx, args.vm, args.force); });
	sub->add_flag("--force", args.force, "drop threads that were interrupted inside and do not come back");
	add_vm(sub)->required();

	sub = add("regions", "what is protected, and how", [&](Context &ctx) { return regions(ctx, args.vm); });
	add_vm(sub)->required();

	sub = add("watch", "events as they happen, until the VM ends", [&](Context &ctx) {
		WatchOptions options;

		options.vm = args.vm;
		options.since = optional_number(args.since);
		options.count = optional_number(args.count);
		if (args.timeout > 0)
			options.timeout_s = args.timeout;
		if (!args.type.empty())
			options.type = event_types.value(args.type);
		return watch(ctx, options);
	});
	CLI::Option *vm = add_vm(sub);
	CLI::Option *all = sub->add_flag("--all", args.all, "all VMs, also those attached later; does not end by itself");
	vm->excludes(all);
	sub->add_option("--since", args.since, "begin behind event SEQ; 0: with the oldest there is. Default: from now on")
		->check(number_check(0, UINT64_MAX));
	sub->add_option("--count", args.count, "end after N events, with status 1 if there are fewer")
		->check(number_check(1, UINT64_MAX));
	sub->add_option("--timeout", args.timeout, "end after S seconds")->check(CLI::Range(0.001, 1e9));
	sub->add_option("--type", args.type, "show this type of event only")->check(name_check(event_types));
	CLI::App *watch_command = sub;

	sub = add("protect", "restrict writes to guest frames", [&](Context &ctx) {
		return protect(ctx, args.vm, number(args.gpa), number(args.pages), *actions.value(args.action),
			       *class_value(args.cls));
	});
	add_vm(sub)->required();
	sub->add_option("GPA", args.gpa, "guest-physical address of the first page")
		->required()->check(number_check(0, UINT64_MAX));
	sub->add_option("PAGES", args.pages, "how many pages of 4096 bytes")
		->required()->check(number_check(1, UINT64_MAX));
	sub->add_option("--action", args.action, actions.list() + "; none lifts the restriction")
		->required()->check(name_check(actions));
	sub->add_option("--class", args.cls, "a label for reports")->check(class_check());

	sub = add("policy", "the host's policy for all VMs", [&](Context &ctx) {
		return policy(ctx, optional_switch(args.self_attach));
	});
	sub->add_option("--self-attach", args.self_attach, "on|off: may a guest attach itself")
		->check(switch_check());

	sub = add("domains", "the protection domains of a VM", [&](Context &ctx) { return domains(ctx, args.vm); });
	add_vm(sub)->required();

	sub = add("quota", "what a VM's guest may have of protection domains",
		  [&](Context &ctx) { return quota(ctx, args.vm, quota_options(args)); });
	add_vm(sub)->required();
	add_quota(sub);

	sub = add("destroy", "end a protection domain: its pages are overwritten",
		  [&](Context &ctx) { return destroy(ctx, args.vm, number(args.id), args.wait); });
	add_vm(sub)->required();
	add_id(sub, "ID")->required();
	add_wait(sub);

	sub = add("install", "put a value into a sealed domain", [&](Context &ctx) {
		return install(ctx, args.vm, number(args.id), number(args.address), args.value, args.any_mode, args.wait);
	});
	add_vm(sub)->required();
	add_id(sub, "--domain")->required();
	sub->add_option("--at", args.address, "the first byte's linear address in the domain")
		->required()->check(number_check(0, UINT64_MAX));
	sub->add_option("--value", args.value, "where the value is: a file, fd:N, or - for standard input")->required();
	add_any_mode(sub);
	add_wait(sub);

	CLI::App *group = add_group("secret", "values for the placeholders of a build");
	sub = add_to(*group, "install", "put them into the domain that is what the build made",
		     [&](Context &ctx) { return secret_install(ctx, secret_options(args)); });
	add_vm(sub)->required();
	sub->add_option("--manifest", args.manifests, "what the build says of it")->required()->expected(1)->allow_extra_args(false);
	sub->add_option("VALUE", args.values, "NAME=FILE; fd:N and - are files, too")->required();
	add_id(sub, "--id");
	add_any_mode(sub);
	add_wait(sub);

	sub = add_to(*group, "serve", "wait for such domains, and put them in",
		     [&](Context &ctx) { return secret_serve(ctx, secret_options(args)); });
	sub->add_option("--vm", args.vm, "in this VM only; default: in all, also those attached later")->check(vm_check());
	sub->add_option("--manifest", args.manifests, "what the build says of it; may be given several times")
		->required()->allow_extra_args(false);
	sub->add_option("VALUE", args.values, "NAME=FILE; fd:N and - are files, too")->required();
	add_any_mode(sub);
	sub->add_option("--count", args.count, "end after N installs, with status 1 if there are fewer")
		->check(number_check(1, UINT64_MAX));
	sub->add_option("--timeout", args.timeout, "end after S seconds")->check(CLI::Range(0.001, 1e9));

	group = add_group("domain", "a domain's content on its way to another VM");
	sub = add_to(*group, "export", "to standard output, encrypted", [&](Context &ctx) {
		return export_domain(ctx, args.vm, number(args.id), args.key, args.any_mode, args.file);
	});
	CLI::App *export_command = sub;
	add_vm(sub)->required();
	add_id(sub, "ID")->required();
	sub->add_option("--key", args.key, "32 bytes: a file, fd:N, or - for standard input")->required();
	sub->add_option("--output", args.file, "to this file, which must not exist");
	add_any_mode(sub);

	sub = add_to(*group, "import", "into the domain of equal measurement, before anybody has been in it", [&](Context &ctx) {
		return import_domain(ctx, args.vm, optional_number(args.id), args.key, args.any_mode, args.file);
	});
	CLI::App *import_command = sub;
	add_vm(sub)->required();
	add_id(sub, "--id");
	sub->add_option("--key", args.key, "as with export")->required();
	sub->add_option("--input", args.file, "from this file; default: standard input");
	add_any_mode(sub);

	group = add_group("device", "devices that are passed through and are to migrate with their VM");
	const auto add_bdf = [&](CLI::App *to) { return to->add_option("DEVICE", args.bdf, "its PCI address, 0000:03:00.0")->required(); };
	add_to(*group, "list", "those of our driver, and NVMe controllers that could be", device_list);
	add_bdf(add_to(*group, "status", "can it migrate, and what it has done", [&](Context &ctx) { return device_status(ctx, args.bdf); }));
	add_bdf(add_to(*group, "bind", "give it to redoubt_vfio_pci", [&](Context &ctx) { return device_bind(ctx, args.bdf); }));
	add_bdf(add_to(*group, "unbind", "give it back", [&](Context &ctx) { return device_unbind(ctx, args.bdf); }));
	sub = add_to(*group, "migratable", "is the VM that opens it next to migrate with it", [&](Context &ctx) {
		return device_migratable(ctx, args.bdf, optional_switch(args.on).value(), optional_switch(args.direct), args.copy);
	});
	add_bdf(sub);
	sub->add_option("on|off", args.on)->required()->check(switch_check());
	sub->add_option("--direct", args.direct, "on|off: has the device the guest's queues until a migration begins")
		->check(switch_check());
	sub->add_option("--copy", args.copy, "device|vcpu: who has the copy while a migration runs, of pages that the device writes")
		->check(CLI::IsMember({"device", "vcpu"}));

	group = add_group("standby", "VMs whose memory another host takes over; by redoubtd");
	StandbyOptions &standby = args.standby;
	group->add_option("--socket", standby.socket, "redoubtd's, " + standby.socket);
	const auto add_standby = [&](const char *name, const char *text, int (*action)(Context &, const StandbyOptions &), bool vm_needed = true) {
		CLI::App *to = add_to(*group, name, text, [&standby, action](Context &ctx) { return action(ctx, standby); });

		if (action != standby_list && action != standby_pair)
			to->add_option("VM", standby.vm, "its name in redoubtd's configuration")->required(vm_needed);
		return to;
	};
	const auto add_boot = [&](CLI::App *to) {
		return to->add_option("BOOT", standby.boot, "of the peer, as status shows it: proven dead")->check([](const std::string &text) {
			return text.size() == 16 && parse_number("0x" + text) ? "" : "'" + text + "' is not 16 hexadecimal digits";
		});
	};
	add_standby("list", "all of them, a line each", standby_list);
	add_standby("status", "how far it is, and what it waits for", standby_status, false);
	sub = add_standby("go", "hand it over now", standby_go);
	sub->add_flag("--force", standby.force, "freeze it also when the standby cannot be reached");
	sub->add_option("--wait", standby.wait_s, "SECONDS until it runs again, on either host")->check(CLI::Range(0.0, 1e9));
	add_standby("abort", "let it go on here, if the standby has not been told to run it", standby_abort);
	add_standby("check", "can it be handed over; if not, for which device or option", standby_check);
	add_boot(add_standby("fenced", "the peer is dead: its power was cut, or it was reset", standby_fenced))->required();
	add_boot(add_standby("promote", "run it here, if nothing speaks against it", standby_promote));
	sub = add_to(*group, "plan", "what fits into a battery and a link, post-fail", [&](Context &ctx) { return standby_plan(ctx, args.plan); });
	sub->add_option("--battery", args.plan.battery_s, "SECONDS that the full battery is rated for, at the host's load")
		->required()->check(CLI::Range(1.0, 1e7));
	sub->add_option("--rate", args.plan.rate_mib, "MIB a second that the link carries, measured")->required()->check(CLI::Range(0.001, 1e7));
	sub->add_option("--fixed", args.plan.fixed_s, "SECONDS that a hand-over takes beside the pages (5)")->check(CLI::Range(0.0, 1e7));
	sub->add_option("--margin", args.plan.margin_s, "SECONDS to be left over (5)")->check(CLI::Range(0.0, 1e7));
	sub->add_option("VM", args.plan.vms, "NAME:MIB[:PRIORITY], MIB of memory that is not zero")->required();
	sub = add_standby("pair", "make this host's key and certificate, print its fingerprint", standby_pair);
	CLI::Option *own_name = sub->add_option("NAME", standby.name, "this host's, as \"me\" in the configuration")->check([](const std::string &text) {
		return text.find('/') == std::string::npos && text[0] != '.' ? "" : "'" + text + "' is no name for a file";
	});
	sub->add_option("--directory", standby.directory, standby.directory)->check(CLI::ExistingDirectory);
	own_name->excludes(sub->add_option("--show", standby.show, "only print the fingerprint of this certificate, the peer's"));
	CLI::App *pair_command = sub;

	try {
		app.parse(argc, argv);
		if (pair_command->parsed() && standby.name.empty() && standby.show.empty())
			throw CLI::RequiredError("NAME or --show");
		if (export_command->parsed() && args.json && args.file.empty())
			throw CLI::RequiredError("--json goes with --output, which");
		if (import_command->parsed() && args.key == "-" && args.file.empty())
			throw CLI::RequiredError("a key on standard input goes with --input, which");
		if (watch_command->parsed() && !args.all && args.vm.empty())
			throw CLI::RequiredError("VM or --all");
	} catch (const CLI::Success &help) {
		app.exit(help, out, err);
		return exit_ok;
	} catch (const CLI::ParseError &error) {
		err << "redoubtctl: " << error.what() << "; see redoubtctl --help" << std::endl;
		return exit_usage;
	}
	Context ctx{sys, out, args.json};
	const int status = command(ctx);
	if (!out.flush())
		throw Error("cannot write the output");
	return status;
}

} // namespace

int run(Sys &sys, int argc, const char *const *argv, std::ostream &out, std::ostream &err)
{
	try {
		return run_checked(sys, argc, argv, out, err);
	} catch (const NoModule &error) {
		err << "redoubtctl: " << error.what() << std::endl;
		return exit_no_module;
	} catch (const std::exception &error) {
		err << "redoubtctl: " << error.what() << std::endl;
		return exit_error;
	}
}

} // namespace redoubt::ctl
