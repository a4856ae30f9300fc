// SPDX-License-Identifier: GPL-2.0
//
// Values for the placeholders that a build left, in domains that are what it made.

#include "commands.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <list>
#include <map>
#include <set>
#include <thread>

#include "../lib/manifest.h"
#include "print.h"
#include "stop.h"

namespace redoubt::ctl {

using namespace client;

namespace {

constexpr size_t max_value = 4096;

std::map<std::string, Secret> read_values(const std::vector<std::string> &given, bool any_mode)
{
	std::map<std::string, Secret> values;

	for (const std::string &pair : given) {
		const size_t at = pair.find('=');

		if (at == std::string::npos || !at || at + 1 == pair.size())
			throw Error("'" + pair + "' is not NAME=FILE");
		if (!values.emplace(pair.substr(0, at), read_secret(pair.substr(at + 1), max_value, any_mode)).second)
			throw Error("'" + pair.substr(0, at) + "' is given twice");
	}
	return values;
}

// What may be installed, ready to be.
struct Ready {
	Manifest manifest;
	Package package;

	bool fits(const rdt_domain_info &info) const
	{
		return info.state == RDT_DOM_SEALED &&
		       std::equal(manifest.measurement.begin(), manifest.measurement.end(), info.measurement);
	}
};

std::vector<Ready> prepare(const SecretOptions &options)
{
	std::vector<Manifest> manifests;
	std::vector<Ready> all;
	std::set<std::string> named;

	for (const std::string &path : options.manifests) {
		Manifest manifest = read_manifest(path);

		for (const Manifest &other : manifests)
			if (other.measurement == manifest.measurement)
				throw Error(path + ": another manifest has the same measurement");
		for (const auto &[name, length] : manifest.values)
			named.insert(name);
		manifests.push_back(std::move(manifest));
	}
	// No secret is read before it is known to be wanted.
	const std::map<std::string, Secret> values = read_values(options.values, options.any_mode);
	for (size_t i = 0; i < manifests.size(); i++) {
		try {
			Package package = pack(manifests[i], values);

			all.push_back({std::move(manifests[i]), std::move(package)});
		} catch (const Error &error) {
			throw Error(options.manifests[i] + ": " + error.what());
		}
	}
	// A value that goes nowhere is a mistake in a name.
	for (const auto &[name, value] : values)
		if (!named.contains(name))
			throw Error("no manifest has a placeholder '" + name + "'");
	return all;
}

void tell(Context &ctx, const Vm &vm, const rdt_domain_info &info, const Ready &ready)
{
	const Manifest &manifest = ready.manifest;

	if (ctx.json) {
		Json names = Json::array();

		for (const auto &[name, length] : manifest.values)
			names.push_back(name);
		Json json{{"kind", "installed"}, {"vm_id", vm.id()}, {"domain", hex(info.id)},
			  {"measurement", hex_bytes(manifest.measurement)}, {"values", names},
			  {"places", manifest.pieces.size()}};
		if (!manifest.name.empty())
			json["name"] = manifest.name;
		ctx.out << json << std::endl;
		return;
	}
	ctx.out << "vm " << vm.id() << ": domain " << hex(info.id)
		<< (manifest.name.empty() ? "" : " (" + manifest.name + ")") << " has " << plural(manifest.values.size(), "value")
		<< " in " << plural(manifest.pieces.size(), "place") << std::endl;
}

class Serve {
public:
	Serve(Context &ctx, const SecretOptions &options)
		: ctx_(ctx), options_(options), ready_(prepare(options)), device_(ctx.sys)
	{
		if (options.timeout_s)
			deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
						std::chrono::duration<double>(*options.timeout_s));
		if (!options.vm.empty())
			add(device_.find(options.vm));
	}

	int run();

private:
	using Clock = std::chrono::steady_clock;

	struct Served {
		explicit Served(Vm &&opened) : vm(std::move(opened)), ring(vm.events()) {}

		Vm vm;
		EventRing ring;
		std::optional<uint64_t> looked;	// how many events of domains there were then
		std::set<uint64_t> refused;	// told once
		bool ended = false;
	};

	void add(Vm &&vm) { vms_.emplace_back(std::move(vm)); }
	void adopt();
	void look(Served &served);
	void wait();
	bool enough() const { return options_.count && done_ >= *options_.count; }
	int finish(const char *why);

	Context &ctx_;
	const SecretOptions &options_;
	const std::vector<Ready> ready_;
	Device device_;
	std::list<Served> vms_;
	std::optional<Clock::time_point> deadline_;
	uint64_t done_ = 0;
};

void Serve::adopt()
{
	for (const rdt_list_entry &entry : device_.list()) {
		if (std::any_of(vms_.begin(), vms_.end(), [&](const Served &s) { return s.vm.id() == entry.vm_id; }))
			continue;
		try {
			add(device_.open(entry.vm_id));
		} catch (const Error &error) {
			if (error.code() != ENOENT && error.code() != ENODEV)
				throw;
		}
	}
}

// An event says that it is time to look, but what there is decides: events can be lost, and
// a domain may have been sealed before we came.
void Serve::look(Served &served)
{
	const uint64_t events = served.ring.count(RDT_EV_DOMAIN);
	bool again = false;

	try {
		served.ended = served.vm.info().flags & RDT_VM_DEAD;
		if (served.ended)
			return;
		served.vm.seen(served.ring.head());
		if (served.looked == events)
			return;
		for (const rdt_domain_info &info : served.vm.domains())
			for (const Ready &ready : ready_) {
				if (enough())
					return;
				if (info.installs || !ready.fits(info) || served.refused.contains(info.id))
					continue;
				try {
					// A thread inside: at the next look.
					if (!served.vm.install(info.id, ready.package.value, ready.package.fixups)) {
						again = true;
						continue;
					}
				} catch (const Error &error) {
					if (error.code() == ENOENT || error.code() == ENODEV)
						continue;
					if (error.code() != EFAULT && error.code() != EINVAL)
						throw;
					// The build's mistake, for this domain for good. The others are served.
					served.refused.insert(info.id);
					if (ctx_.json)
						ctx_.out << Json{{"kind", "refused"}, {"vm_id", served.vm.id()},
								 {"domain", hex(info.id)}, {"why", error.what()}} << std::endl;
					else
						ctx_.out << error.what() << std::endl;
					continue;
				}
				tell(ctx_, served.vm, info, ready);
				done_++;
			}
		if (!again)
			served.looked = events;
	} catch (const Error &error) {
		if (error.code() != ENODEV)
			throw;
		served.ended = true;
	}
}

void Serve::wait()
{
	int ms = look_round_ms;
	std::vector<pollfd> fds;

	for (const Served &served : vms_)
		fds.push_back({served.vm.fd(), POLLIN, 0});
	if (deadline_) {
		const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - Clock::now()).count();

		ms = static_cast<int>(std::clamp<long long>(left, 0, ms));
	}
	if (ctx_.sys.poll(fds.data(), fds.size(), ms) < 0 && errno != EINTR)
		throw Error("poll", errno);
	// A guest that raises one event after the other does not keep us busy.
	std::this_thread::sleep_for(std::chrono::milliseconds(std::min(ms, 5)));
}

int Serve::finish(const char *why)
{
	if (options_.count && !enough())
		throw Error("secret serve: " + std::string(why) + " after " + std::to_string(done_) + " of " +
			    plural(*options_.count, "install"));
	if (ctx_.json)
		ctx_.out << Json{{"kind", "end"}, {"reason", why}, {"installs", done_}} << std::endl;
	else
		ctx_.out << "end (" << why << "), " << plural(done_, "install") << std::endl;
	return exit_ok;
}

int Serve::run()
{
	for (;;) {
		const bool stop = StopSignals::requested(), late = deadline_ && Clock::now() >= *deadline_;

		if (options_.vm.empty())
			adopt();
		for (Served &served : vms_)
			look(served);
		if (enough())
			return finish("count");
		vms_.remove_if([](const Served &served) { return served.ended; });
		if (!options_.vm.empty() && vms_.empty())
			return finish("gone");
		if (stop)
			return finish("signal");
		if (late)
			return finish("timeout");
		wait();
	}
}

} // namespace

int secret_install(Context &ctx, const SecretOptions &options)
{
	const std::vector<Ready> all = prepare(options);
	const Ready &ready = all.at(0);
	const Vm vm = Device(ctx.sys).find(options.vm);
	const rdt_domain_info info = find_domain(vm, ready.manifest.measurement, options.id);

	if (!insist([&] { return vm.install(info.id, ready.package.value, ready.package.fixups); }, options.wait_s))
		throw Error("vm " + std::to_string(vm.id()) + ": domain " + hex(info.id) +
			    ": a thread is inside, or was interrupted there; ask again (--wait SECONDS)", EAGAIN);
	tell(ctx, vm, info, ready);
	return exit_ok;
}

int secret_serve(Context &ctx, const SecretOptions &options)
{
	StopSignals signals;

	return Serve(ctx, options).run();
}

} // namespace redoubt::ctl
