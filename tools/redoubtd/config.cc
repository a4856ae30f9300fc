// SPDX-License-Identifier: GPL-2.0

#include "config.h"

#include <cerrno>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include <arpa/inet.h>
#include <nlohmann/json.hpp>

#include "../lib/parse.h"
#include "../lib/sys.h"

namespace redoubt::agent {

using client::Error;
using client::parse_number;
using Json = nlohmann::json;

namespace {

// An object whose members are all taken, by name and type.
class Reader {
public:
	Reader(const Json &json, std::string place) : json_(json), place_(std::move(place))
	{
		if (!json_.is_object())
			fail("", "must be an object");
	}

	const Json *find(const char *name)
	{
		known_.insert(name);
		const auto found = json_.find(name);
		return found == json_.end() ? nullptr : &*found;
	}
	const Json &get(const char *name)
	{
		const Json *value = find(name);

		if (!value)
			fail(name, "is missing");
		return *value;
	}
	std::string text(const char *name)
	{
		const Json &value = get(name);

		if (!value.is_string() || value.get<std::string>().empty())
			fail(name, "must be a text");
		return value;
	}
	std::string path(const char *name)
	{
		const std::string value = text(name);

		if (value[0] != '/')
			fail(name, "must be an absolute path");
		return value;
	}
	// Becomes part of file names and of one-line messages.
	std::string name(const char *name)
	{
		const std::string value = text(name);

		if (value.size() > 32 || value[0] == '.' ||
		    value.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != std::string::npos)
			fail(name, "must be 1 to 32 of letters, digits, '.', '_', '-', not beginning with '.'");
		return value;
	}
	uint64_t number(const char *name, uint64_t least, uint64_t most, std::optional<uint64_t> without = {})
	{
		const Json *value = without ? find(name) : &get(name);

		if (!value)
			return *without;
		if (!value->is_number_unsigned() || *value < least || *value > most)
			fail(name, "must be a number in " + std::to_string(least) + ".." + std::to_string(most));
		return *value;
	}
	// One of @names; its place there.
	size_t choice(const char *name, std::initializer_list<const char *> names, std::optional<size_t> without = {})
	{
		const Json *value = without ? find(name) : &get(name);
		std::string list;
		size_t i = 0;

		if (!value)
			return *without;
		for (const char *one : names) {
			if (*value == one)
				return i;
			list += (i++ ? ", " : "") + std::string(one);
		}
		fail(name, "must be one of: " + list);
	}
	void finish() const
	{
		for (const auto &[name, value] : json_.items()) {
			if (!known_.contains(name))
				fail(name.c_str(), "is not known");
		}
	}
	[[noreturn]] void fail(const char *name, const std::string &what) const
	{
		throw Error(place_ + (*name && !place_.empty() ? "." : "") + name + " " + what);
	}

private:
	const Json &json_;
	std::string place_;
	std::set<std::string> known_;
};

bool is_address(const std::string &text)
{
	unsigned char out[16];

	return inet_pton(AF_INET, text.c_str(), out) == 1 || inet_pton(AF_INET6, text.c_str(), out) == 1;
}

Uuid parse_uuid(Reader &in, const char *name)
{
	const std::string text = in.text(name);
	Uuid uuid{};
	size_t digits = 0;

	for (size_t i = 0; i < text.size(); i++) {
		const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		const auto value = dash ? std::optional<uint64_t>(0) : parse_number("0x" + text.substr(i, 1));

		if (text.size() != 36 || dash != (text[i] == '-') || !value)
			in.fail(name, "must be a UUID, like 6f1c9a1e-6b5c-4d53-9a05-0c1d2e3f4a5b");
		if (!dash) {
			uuid[digits / 2] = static_cast<uint8_t>(uuid[digits / 2] << 4 | *value);
			digits++;
		}
	}
	if (digits != 32 || uuid == Uuid{})
		in.fail(name, "must be a UUID, and not of zeros only");
	return uuid;
}

VmConfig parse_vm(const Json &json, const std::string &place)
{
	Reader in(json, place);
	VmConfig vm;

	vm.name = in.name("name");
	vm.uuid = parse_uuid(in, "uuid");
	vm.qmp = in.path("qmp");
	vm.ram = in.path("ram");
	vm.role = static_cast<Role>(in.choice("role", {"primary", "standby"}));
	vm.mode = static_cast<Mode>(in.choice("mode", {"post-fail", "bounded"}, 0));
	vm.tracker = static_cast<Tracker>(in.choice("tracker", {"module", "compare"}, 0));
	vm.budget_min = in.number("budget-min-bytes", 0, uint64_t{1} << 46, 0);
	vm.weight = static_cast<unsigned>(in.number("weight", 1, 1000, 100));
	vm.pages = static_cast<Source>(in.choice("pages", {"netlink", "map"}, 1));
	vm.priority = static_cast<unsigned>(in.number("priority", 0, 1000, 1));
	vm.watchdog = std::chrono::seconds(in.number("watchdog-seconds", 0, 3600, 0));
	in.finish();
	return vm;
}

PowerConfig parse_power(const Json &json)
{
	Reader in(json, "power");
	PowerConfig power;

	power.ups = in.text("ups");
	power.resume = in.choice("on-return", {"resume", "stay"}, 0) == 0;
	power.rated = std::chrono::seconds(in.number("rated-seconds", 0, 86400, 0));
	power.health = static_cast<unsigned>(in.number("health-percent", 0, 100, 100));
	power.margin = std::chrono::seconds(in.number("margin-seconds", 0, 3600, 10));
	power.fixed = std::chrono::seconds(in.number("fixed-seconds", 0, 3600, 5));
	power.rate = in.number("rate-mib", 0, 1 << 20, 0) << 20;
	in.finish();
	return power;
}

// ADDRESS:PORT, [ADDRESS]:PORT
void parse_listen(Reader &in, const char *name, Config &config)
{
	const std::string text = in.text(name);
	const size_t colon = text.rfind(':');
	std::string address = colon == std::string::npos ? "" : text.substr(0, colon);
	const auto port = parse_number(colon == std::string::npos ? "" : text.substr(colon + 1));

	if (address.size() > 2 && address.front() == '[' && address.back() == ']')
		address = address.substr(1, address.size() - 2);
	else if (address.find(':') != std::string::npos)
		address.clear();
	if (!is_address(address) || !port || !*port || *port > 65535)
		in.fail(name, "must be ADDRESS:PORT, like 0.0.0.0:7071 or [::]:7071");
	config.listen_address = address;
	config.listen_port = static_cast<uint16_t>(*port);
}

} // namespace

std::string to_string(const Uuid &uuid)
{
	std::string out;

	for (size_t i = 0; i < uuid.size(); i++) {
		char digits[3];

		snprintf(digits, sizeof(digits), "%02x", uuid[i]);
		out += (i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "") + std::string(digits);
	}
	return out;
}

Config parse_config(const std::string &text)
{
	Json json;
	Config config;

	try {
		// Names that come twice would hide one another.
		std::vector<std::set<std::string>> open;
		json = Json::parse(text, [&open](int, Json::parse_event_t event, Json &value) {
			if (event == Json::parse_event_t::object_start)
				open.emplace_back();
			else if (event == Json::parse_event_t::object_end)
				open.pop_back();
			else if (event == Json::parse_event_t::key && !open.back().insert(value.get<std::string>()).second)
				throw Error(value.get<std::string>() + " is there twice");
			return true;
		});
	} catch (const Json::parse_error &error) {
		throw Error("no JSON at byte " + std::to_string(error.byte));
	}
	Reader in(json, "");
	config.me = in.name("me");
	config.state = in.path("state");
	config.socket = in.path("socket");
	parse_listen(in, "listen", config);
	config.key = in.path("key");
	config.certificate = in.path("certificate");
	config.compress = static_cast<Compress>(in.choice("compress", {"auto", "off", "lz4"}, 0));
	config.link_patience = std::chrono::seconds(in.number("link-patience-seconds", 1, 3600, 10));
	config.prepare_limit = std::chrono::seconds(in.number("prepare-limit-seconds", 1, 3600, 30));
	config.refresh = std::chrono::minutes(in.number("refresh-minutes", 0, 1440, 10));

	config.budget_bytes = in.number("budget-bytes", 1 << 20, uint64_t{1} << 46, 0);
	config.battery = std::chrono::seconds(in.number("battery-seconds", 1, 86400, 0));
	config.fixed = std::chrono::seconds(in.number("fixed-seconds", 1, 3600, 10));
	config.margin = std::chrono::seconds(in.number("margin-seconds", 0, 3600, 5));

	Reader peer(in.get("peer"), "peer");
	config.peer.name = peer.name("name");
	config.peer.address = peer.text("address");
	if (!is_address(config.peer.address))
		peer.fail("address", "must be an IP address: a frozen VM does not wait for a resolver");
	config.peer.port = static_cast<uint16_t>(peer.number("port", 1, 65535));
	config.peer.certificate = peer.path("certificate");
	peer.finish();
	if (config.peer.name == config.me)
		peer.fail("name", "must not be ours");

	if (const Json *power = in.find("power"))
		config.power = parse_power(*power);

	const Json &vms = in.get("vms");
	if (!vms.is_array())
		in.fail("vms", "must be an array");
	std::set<std::string> unique;
	for (size_t i = 0; i < vms.size(); i++) {
		const std::string place = "vms[" + std::to_string(i) + "]";

		config.vms.push_back(parse_vm(vms[i], place));
		const VmConfig &vm = config.vms.back();
		for (const std::string &value : {"name " + vm.name, "uuid " + to_string(vm.uuid), "qmp " + vm.qmp, "ram " + vm.ram}) {
			if (!unique.insert(value).second)
				throw Error(place + ": another VM has this " + value);
		}
	}
	in.finish();
	for (const VmConfig &vm : config.vms) {
		if (vm.mode == Mode::bounded && vm.tracker == Tracker::module && !config.budget_bytes && !config.battery.count() &&
		    !config.power.rated.count())
			throw Error("a VM is bounded, but nothing says by what: budget-bytes, power.rated-seconds or battery-seconds");
	}
	return config;
}

Config read_config(const std::string &path)
{
	std::ifstream file(path);
	std::ostringstream text;

	if (!file)
		throw Error("open " + path, errno);
	text << file.rdbuf();
	try {
		return parse_config(text.str());
	} catch (const Error &error) {
		throw Error(path + ": " + error.what());
	}
}

} // namespace redoubt::agent
