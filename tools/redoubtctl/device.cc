// SPDX-License-Identifier: GPL-2.0
//
// Devices that are passed through and are to migrate with their VM: what redoubt_vfio_pci shows and takes in sysfs.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string_view>

#include "commands.h"
#include "../lib/parse.h"
#include "print.h"

namespace redoubt::ctl {

using namespace client;
namespace fs = std::filesystem;

namespace {

const char *const our_driver = "redoubt_vfio_pci";

// enum vfio_device_mig_state
constexpr std::array states{"error", "stopped", "running", "stop-copy", "resuming", "running-p2p", "pre-copy", "pre-copy-p2p"};

std::string first_line(const fs::path &path)
{
	std::ifstream in(path);
	std::string line;

	std::getline(in, line);
	return line;
}

// sysfs takes a value in one write, and the errno is that one's.
void put(const fs::path &path, const std::string &value)
{
	std::ofstream out(path);

	errno = 0;
	out << value << std::flush;
	if (!out)
		throw Error("cannot write '" + value + "' to " + path.string(), errno ? errno : EIO);
}

// A file of lines: a name, a space, a value
struct Values : std::map<std::string, std::string> {
	Values() = default;
	explicit Values(const fs::path &path)
	{
		std::ifstream in(path);

		for (std::string line; std::getline(in, line);) {
			const size_t space = line.find(' ');

			if (space != std::string::npos)
				(*this)[line.substr(0, space)] = line.substr(space + 1);
		}
	}
	std::string value(const std::string &name) const
	{
		const auto it = find(name);

		return it == end() ? "" : it->second;
	}
	uint64_t number(const std::string &name) const
	{
		return parse_number(value(name)).value_or(0);
	}
};

struct Device {
	fs::path dir;
	std::string bdf, cls, driver;	// driver: empty: none
	std::string migratable, direct, vcpu_copy;	// of ours
	Values status, migration;

	bool ours() const { return driver == our_driver; }
	std::string value(const char *name) const { return status.value(name); }
	// The one that runs, or the last one
	bool has_migration() const
	{
		return !migration.value("outcome").empty() && migration.value("outcome") != "none";
	}
	// Whose buffer is the copy of what the device writes
	const char *copy() const
	{
		return vcpu_copy == "1" ? "vcpu" : "device";
	}
	std::string state() const
	{
		const std::string number = value("state");

		return number.size() == 1 && number[0] >= '0' && number[0] < '0' + int(states.size()) ? states[number[0] - '0'] : "";
	}
};

Device look(const fs::path &dir)
{
	Device d;
	std::error_code none;

	d.dir = dir;
	d.bdf = dir.filename();
	d.cls = first_line(dir / "class");
	d.driver = fs::read_symlink(dir / "driver", none).filename();
	if (!d.ours())
		return d;
	d.migratable = first_line(dir / "redoubt/migratable");
	d.direct = first_line(dir / "redoubt/direct");
	d.vcpu_copy = first_line(dir / "redoubt/vcpu_copy");
	d.status = Values(dir / "redoubt/status");
	d.migration = Values(dir / "redoubt/migration");
	return d;
}

fs::path bus(Context &ctx)
{
	return fs::path(ctx.sys.sysfs()) / "bus/pci";
}

bool is_address(std::string_view text)
{
	constexpr std::string_view shape = "xxxx:xx:xx.7";

	return std::equal(text.begin(), text.end(), shape.begin(), shape.end(), [](char c, char like) {
		switch (like) {
		case 'x':
			return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
		case '7':
			return c >= '0' && c <= '7';
		default:
			return c == like;
		}
	});
}

// @bdf as lspci prints it; the domain may be left out.
Device find(Context &ctx, std::string bdf)
{
	if (bdf.size() == 7)
		bdf = "0000:" + bdf;
	if (!is_address(bdf))
		throw Error("'" + bdf + "' is no PCI address, like 0000:03:00.0");
	const fs::path dir = bus(ctx) / "devices" / bdf;

	if (!fs::exists(dir))
		throw Error("there is no PCI device " + bdf);
	return look(dir);
}

Device find_ours(Context &ctx, const std::string &bdf)
{
	Device d = find(ctx, bdf);

	if (!d.ours())
		throw Error(d.bdf + " is " + (d.driver.empty() ? "without a driver" : d.driver + "'s") + ", not " + our_driver +
			    "'s: redoubtctl device bind " + d.bdf);
	return d;
}

// Why its VM could not migrate now; empty: it could.
std::string obstacle(const Device &d)
{
	if (!d.ours())
		return "not bound to " + std::string(our_driver);
	if (d.migratable != "1")
		return "not made migratable";
	if (d.value("model") == "none" || d.value("model").empty())
		return "no VM has it, or it had it before it was made migratable";
	return d.value("blocker") == "none" ? "" : d.value("blocker");
}

// A number, where it is one
Json value_json(const std::string &value)
{
	const auto number = parse_number(value);

	return number ? Json(*number) : Json(value);
}

std::string error_text(const Values &migration)
{
	return strerror(static_cast<int>(migration.number("errno")));
}

Json migration_json(const Values &m)
{
	const bool ended = m.value("outcome") != "running";
	Json j;

	for (const auto &[name, value] : m) {
		if (name != "errno" && (ended || name != "ended_ms_ago"))
			j[name] = value_json(value);
	}
	if (m.value("outcome") == "failed")
		j["error"] = error_text(m);
	return j;
}

std::string seconds(uint64_t ms)
{
	return std::to_string(ms / 1000) + "." + std::to_string(ms / 100 % 10) + " s";
}

// This device's share of it; Documentation/migration.md says what each figure is.
std::string migration_lines(const Values &m)
{
	const auto n = [&m](const char *name) { return std::to_string(m.number(name)); };
	const bool incoming = m.value("role") == "destination";
	const std::string outcome = m.value("outcome");
	std::string out = incoming ? "  migration to this device: " : "  migration from this device: ";

	if (outcome == "running")
		out += "runs for " + seconds(m.number("began_ms_ago"));
	else
		out += outcome + " " + seconds(m.number("ended_ms_ago")) + " ago";
	if (outcome == "failed")
		out += ": " + error_text(m);
	out += "\n";
	if (!incoming)
		out += "    armed for " + seconds(m.number("armed_ms")) + ", " + plural(m.number("pages"), "page") + " written; log read " +
		       plural(m.number("log_reads"), "time") + ", " + plural(m.number("log_pages"), "page") + "\n    drained when armed " +
		       plural(m.number("arm_commands"), "command") + " in " + n("arm_us") + " us, when stopped " +
		       plural(m.number("stop_commands"), "command") + " in " + n("stop_us") + " us\n";
	out += "    stopped for " + n("stopped_us") + " us, state " + n("bytes_done") + " of " + n("bytes") + " bytes";
	return out + (incoming ? ", loaded in " + n("load_us") + " us\n" : "\n");
}

Json to_json(const Device &d)
{
	Json j{{"device", d.bdf}, {"class", d.cls}, {"driver", d.driver.empty() ? Json() : Json(d.driver)}};
	const std::string why = obstacle(d);

	if (d.ours()) {
		j["migratable"] = d.migratable == "1";
		j["direct"] = d.direct == "1";
		j["copy"] = d.copy();
	}
	for (const auto &[name, value] : d.status) {
		if (name == "state")
			j[name] = d.state();
		else if (name != "blocker")
			j[name] = value_json(value);
	}
	if (d.has_migration())
		j["migration"] = migration_json(d.migration);
	j["can_migrate"] = why.empty();
	if (!why.empty())
		j["why_not"] = why;
	return j;
}

std::string line(const Device &d)
{
	const std::string why = obstacle(d);

	return d.bdf + "  " + (d.driver.empty() ? "no driver" : d.driver) + "  " +
	       (why.empty() ? "can migrate, " + d.state() : "cannot migrate: " + why);
}

void wait_for_driver(const Device &d, const std::string &driver)
{
	if (look(d.dir).driver != driver)
		throw Error(driver + " does not take " + d.bdf + "; the kernel's log says why");
}

} // namespace

int device_list(Context &ctx)
{
	std::vector<Device> all;

	for (const auto &entry : fs::directory_iterator(bus(ctx) / "devices")) {
		const Device d = look(entry.path());

		// NVMe controllers are what there is a model for.
		if (d.ours() || d.cls == "0x010802")
			all.push_back(d);
	}
	std::sort(all.begin(), all.end(), [](const Device &a, const Device &b) { return a.bdf < b.bdf; });
	for (const Device &d : all)
		ctx.out << (ctx.json ? to_json(d).dump() : line(d)) << "\n";
	return exit_ok;
}

int device_status(Context &ctx, const std::string &bdf)
{
	const Device d = find(ctx, bdf);

	if (ctx.json) {
		ctx.out << to_json(d).dump() << "\n";
		return exit_ok;
	}
	ctx.out << line(d) << "\n";
	if (!d.ours())
		return exit_ok;
	ctx.out << "  migratable " << on_off(d.migratable == "1") << ", direct " << on_off(d.direct == "1") << ", copy " << d.copy() << "\n";
	for (const char *name : {"commands", "doorbells", "emulated_doorbells", "bounced", "shown", "refused", "inflight", "queues",
				 "direct_queues"}) {
		if (!d.value(name).empty())
			ctx.out << "  " << name << " " << d.value(name) << "\n";
	}
	if (d.has_migration())
		ctx.out << migration_lines(d.migration);
	return exit_ok;
}

int device_bind(Context &ctx, const std::string &bdf)
{
	const Device d = find(ctx, bdf);

	if (!fs::exists(bus(ctx) / "drivers" / our_driver))
		throw NoModule(std::string(our_driver) + " is not loaded");
	if (d.ours())
		return exit_ok;
	put(d.dir / "driver_override", our_driver);
	if (!d.driver.empty())
		put(d.dir / "driver/unbind", d.bdf);
	put(bus(ctx) / "drivers_probe", d.bdf);
	wait_for_driver(d, our_driver);
	ctx.out << (ctx.json ? to_json(look(d.dir)).dump() : d.bdf + " bound to " + our_driver) << "\n";
	return exit_ok;
}

int device_unbind(Context &ctx, const std::string &bdf)
{
	const Device d = find_ours(ctx, bdf);

	put(d.dir / "driver/unbind", d.bdf);
	put(d.dir / "driver_override", "\n");
	put(bus(ctx) / "drivers_probe", d.bdf);
	const Device now = look(d.dir);
	ctx.out << (ctx.json ? to_json(now).dump() : now.bdf + (now.driver.empty() ? " has no driver" : " given to " + now.driver))
		<< "\n";
	return exit_ok;
}

int device_migratable(Context &ctx, const std::string &bdf, bool on, std::optional<bool> direct, const std::string &copy)
{
	const Device d = find_ours(ctx, bdf);

	put(d.dir / "redoubt/migratable", on ? "1" : "0");
	if (direct)
		put(d.dir / "redoubt/direct", *direct ? "1" : "0");
	if (!copy.empty())
		put(d.dir / "redoubt/vcpu_copy", copy == "vcpu" ? "1" : "0");
	const Device now = look(d.dir);
	if (ctx.json)
		ctx.out << to_json(now).dump() << "\n";
	else
		ctx.out << now.bdf << " migratable " << on_off(on) << ", direct " << on_off(now.direct == "1") << ", copy " << now.copy()
			<< ", for the VM that opens it next\n";
	return exit_ok;
}

} // namespace redoubt::ctl
