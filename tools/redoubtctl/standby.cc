// SPDX-License-Identifier: GPL-2.0
//
// What redoubtd does with its VMs, and the words that an operator has for it.

#include <cerrno>
#include <chrono>
#include <climits>
#include <map>
#include <thread>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/agent.h"
#include "commands.h"
#include "print.h"

extern char **environ;

namespace redoubt::ctl {

using namespace client;

namespace {

Json ask(const std::string &socket, const Json &request)
{
	const Json answer = Json::parse(AgentClient(socket).ask(request.dump()), nullptr, false);

	if (!answer.is_object())
		throw Error("what answers at " + socket + " is not redoubtd");
	if (!answer.value("ok", false))
		throw Error(answer.value("error", "redoubtd says no"));
	return answer;
}

Json ask_vm(const StandbyOptions &options, const char *command)
{
	Json request{{"command", command}, {"vm", options.vm}};

	if (options.force)
		request["force"] = true;
	if (!options.boot.empty())
		request["boot"] = options.boot;
	return ask(options.socket, request);
}

std::string line(const Json &vm)
{
	return vm.value("name", "") + "  " + vm.value("state", "") + ", epoch " + std::to_string(vm.value("epoch", uint64_t{0})) + ", QEMU " +
	       vm.value("vmm", "") + (vm.value("stuck", false) ? " (does not answer)" : "") + ", link " +
	       (vm.value("link", false) ? "up" : "down") +
	       (vm.contains("standby") ? std::string(", standby ") + (vm["standby"] == "ready" ? "ready" : "not ready") : "");
}

std::string mebibytes(uint64_t bytes)
{
	return std::to_string(bytes >> 20) + "." + std::to_string((bytes >> 10) % 1024 * 10 / 1024) + " MiB";
}

std::string lines(const Json &vm)
{
	std::string out = line(vm) + "\n";

	if (vm.contains("report"))
		out += "  " + vm.value("report", "") + " (" + std::to_string(vm.value("report_seconds_ago", 0)) + " s ago)\n";
	if (vm.contains("standby") && vm["standby"] != "ready")
		out += "  " + vm.value("standby", "") + "\n";
	if (vm.contains("trouble"))
		out += "  " + vm.value("trouble", "") + "\n";
	if (vm.contains("sent")) {
		const Json &sent = vm["sent"];
		const auto number = [&sent](const char *name) { return sent.value(name, uint64_t{0}); };

		out += "  sent " + std::to_string(number("data") + number("zero")) + " of " + plural(number("frames"), "frame") + ", " +
		       std::to_string(number("zero")) + " of them zero, " + std::to_string(number("again")) + " again; " +
		       mebibytes(number("bytes")) + " as " + mebibytes(number("packed")) + "\n";
	}
	if (vm.contains("bounded")) {
		const Json &b = vm["bounded"];
		const auto number = [&b](const char *name) { return b.value(name, uint64_t{0}); };

		out += "  copied while it runs (" + b.value("state", "") + "): " + mebibytes(number("dirty")) + " are not at the standby yet, of " +
		       mebibytes(number("limit")) + "; slept " + std::to_string(number("slept_ms")) + " ms\n";
		if (b.contains("trouble"))
			out += "  " + b.value("trouble", "") + "\n";
	}
	if (vm.contains("received")) {
		const Json &got = vm["received"];

		out += "  has " + std::to_string(got.value("have", uint64_t{0})) + " of " + plural(got.value("frames", uint64_t{0}), "frame") +
		       "\n";
	}
	if (vm.contains("us")) {
		out += "  ms since its begin:";
		std::multimap<uint64_t, std::string> by_time;

		for (const auto &[name, us] : vm["us"].items())
			by_time.emplace(us.get<uint64_t>(), name);
		for (const auto &[us, name] : by_time)
			out += " " + name + " " + std::to_string(us / 1000);
		out += "\n";
	}
	out += "  the peer's boot: " + vm.value("peer_boot", "") + "\n";
	return out;
}

// Of what keeps this host running
std::string power_line(const Json &all)
{
	if (!all.contains("power"))
		return "";
	const Json &power = all["power"];
	std::string out = "power: " + power.value("line", "") + " (" + power.value("ups", "") + ": " + power.value("status", "") + ")";

	if (power.contains("charge_percent"))
		out += ", " + std::to_string(power.value("charge_percent", 0)) + " %";
	out += ", " + std::to_string(power.value("hold_up_s", uint64_t{0})) + " s; " + mebibytes(power.value("budget_bytes", uint64_t{0})) +
	       " can be sent, " + mebibytes(power.value("need_bytes", uint64_t{0})) + " would have to be\n";
	if (power.contains("error"))
		out += "  upsd does not answer: " + power.value("error", "") + "\n";
	return out;
}

void show(Context &ctx, const Json &vm)
{
	ctx.out << (ctx.json ? vm.dump() + "\n" : lines(vm));
}

// redoubtd is where OpenSSL is. It is the one beside this program, or the one in the PATH.
int run_redoubtd(std::vector<std::string> args)
{
	char self[PATH_MAX];
	const ssize_t size = readlink("/proc/self/exe", self, sizeof(self));
	const std::string path(self, size > 0 ? static_cast<size_t>(size) : 0);
	const std::string dir = path.substr(0, path.rfind('/'));
	std::vector<char *> argv;
	pid_t pid;
	int status, error = ENOENT;

	args.insert(args.begin(), "redoubtd");
	for (std::string &arg : args)
		argv.push_back(arg.data());
	argv.push_back(nullptr);
	for (const std::string &program : {dir + "/redoubtd", dir + "/../sbin/redoubtd"}) {
		if (error)
			error = posix_spawn(&pid, program.c_str(), nullptr, nullptr, argv.data(), environ);
	}
	if (error)
		error = posix_spawnp(&pid, "redoubtd", nullptr, nullptr, argv.data(), environ);
	if (error)
		throw Error("redoubtd", error);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? exit_ok : exit_error;
}

} // namespace

int standby_list(Context &ctx, const StandbyOptions &options)
{
	const Json all = ask(options.socket, {{"command", "list"}});

	if (ctx.json) {
		ctx.out << all.dump() << "\n";
		return exit_ok;
	}
	ctx.out << all.value("me", "") << ", link to " << all.value("peer", "") << " " << all.value("link", "") << ", "
		<< plural(all.value("refused", uint64_t{0}), "connection") << " refused\n" << power_line(all);
	for (const Json &vm : all.value("vms", Json::array()))
		ctx.out << line(vm) << "\n";
	return exit_ok;
}

int standby_status(Context &ctx, const StandbyOptions &options)
{
	if (!options.vm.empty()) {
		show(ctx, ask_vm(options, "status"));
		return exit_ok;
	}
	const Json all = ask(options.socket, {{"command", "status"}});
	if (ctx.json) {
		ctx.out << all.dump() << "\n";
		return exit_ok;
	}
	for (const Json &vm : all.value("vms", Json::array()))
		show(ctx, vm);
	return exit_ok;
}

// Frozen is not where it ends: with --wait until the VM runs again, there or here.
int standby_go(Context &ctx, const StandbyOptions &options)
{
	using Clock = std::chrono::steady_clock;
	const auto end = Clock::now() + std::chrono::duration<double>(options.wait_s);
	Json vm = ask_vm(options, "go");
	const auto under_way = [&vm] {
		const std::string state = vm.value("state", "");
		return state == "frozen" || state == "sealed" || state == "aborting" || state == "released";
	};

	while (under_way() && Clock::now() < end) {
		std::this_thread::sleep_for(std::chrono::milliseconds(50));
		vm = ask_vm(options, "status");
	}
	show(ctx, vm);
	if (options.wait_s > 0 && under_way())
		throw Error(options.vm + " is " + vm.value("state", "") + " after " + std::to_string(static_cast<int>(options.wait_s)) + " s");
	if (options.wait_s > 0 && vm.value("state", "") == "active")
		throw Error(options.vm + " was not handed over: " + vm.value("trouble", "it runs here"));
	return exit_ok;
}

int standby_abort(Context &ctx, const StandbyOptions &options)
{
	show(ctx, ask_vm(options, "abort"));
	return exit_ok;
}

int standby_fenced(Context &ctx, const StandbyOptions &options)
{
	show(ctx, ask_vm(options, "fenced"));
	return exit_ok;
}

int standby_promote(Context &ctx, const StandbyOptions &options)
{
	show(ctx, ask_vm(options, "promote"));
	return exit_ok;
}

int standby_check(Context &ctx, const StandbyOptions &options)
{
	const Json answer = ask_vm(options, "check");
	const bool carried = answer.value("carried", false);

	if (ctx.json) {
		ctx.out << answer.dump() << "\n";
		return carried ? exit_ok : exit_error;
	}
	for (const Json &o : answer.value("obstacles", Json::array()))
		ctx.out << (o.value("vmm_death_only", false) ? "if QEMU is killed: " : o.value("panic_only", false) ? "if the host panics: " : "refused: ")
			<< o.value("what", "") << ": "
			<< o.value("why", "") << "\n";
	if (!carried)
		throw Error(options.vm + " cannot be handed over");
	ctx.out << options.vm << " can be handed over while its QEMU lives\n";
	return exit_ok;
}

int standby_pair(Context &ctx, const StandbyOptions &options)
{
	ctx.out << std::flush;
	if (!options.show.empty())
		return run_redoubtd({"fingerprint", options.show});
	const std::string base = options.directory + "/" + options.name;
	return run_redoubtd({"make-key", base + ".key", base + ".crt", options.name});
}

} // namespace redoubt::ctl
