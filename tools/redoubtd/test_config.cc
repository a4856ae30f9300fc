// SPDX-License-Identifier: GPL-2.0
//
// F1: a configuration is understood wholly, or refused with the place and the reason.

#include <nlohmann/json.hpp>

#include "config.h"
#include "testing.h"

namespace redoubt::agent {

namespace {

using Json = nlohmann::json;

Json good()
{
	return Json::parse(R"({
		"me": "a", "state": "/var/lib/x", "socket": "/run/x.sock", "listen": "0.0.0.0:7071", "key": "/k", "certificate": "/c",
		"peer": {"name": "b", "address": "10.0.0.2", "port": 7071, "certificate": "/p"},
		"vms": [{"name": "db", "uuid": "6f1c9a1e-6b5c-4d53-9a05-0c1d2e3f4a5b", "qmp": "/run/db.qmp", "ram": "/dev/shm/db",
			 "role": "primary", "mode": "post-fail", "pages": "netlink", "priority": 3, "watchdog-seconds": 20}]})");
}

std::string refusal(const std::function<void(Json &)> &change)
{
	Json json = good();

	change(json);
	return error_of([&] { parse_config(json.dump()); });
}

} // namespace

TEST(Config, F1_everything_that_may_be_there)
{
	const Config c = parse_config(good().dump());

	EXPECT_EQ(c.me, "a");
	EXPECT_TRUE(c.caller());
	EXPECT_EQ(c.listen_address, "0.0.0.0");
	EXPECT_EQ(c.listen_port, 7071);
	ASSERT_EQ(c.vms.size(), 1u);
	EXPECT_EQ(to_string(c.vms[0].uuid), "6f1c9a1e-6b5c-4d53-9a05-0c1d2e3f4a5b");
	EXPECT_EQ(c.vms[0].pages, Source::netlink);
	EXPECT_EQ(c.vms[0].priority, 3u);
	EXPECT_EQ(c.vms[0].watchdog, std::chrono::seconds(20));
	EXPECT_EQ(c.refresh, std::chrono::minutes(10));
	Json six = good();
	six["listen"] = "[::]:1";
	six["peer"]["address"] = "fe80::1";
	EXPECT_EQ(parse_config(six.dump()).listen_address, "::");
}

TEST(Config, F1_what_is_missing_unknown_or_of_a_wrong_kind)
{
	for (const char *name : {"me", "state", "socket", "listen", "key", "certificate", "peer", "vms"})
		EXPECT_EQ(refusal([&](Json &j) { j.erase(name); }), std::string(name) + " is missing");
	for (const char *name : {"name", "uuid", "qmp", "ram", "role"})
		EXPECT_EQ(refusal([&](Json &j) { j["vms"][0].erase(name); }), "vms[0]." + std::string(name) + " is missing");
	EXPECT_TRUE(has(refusal([](Json &j) { j["refresh-minutes"] = 1441; }), "refresh-minutes must be"));
	EXPECT_EQ(refusal([](Json &j) { j["vms"][0]["colour"] = 1; }), "vms[0].colour is not known");
	EXPECT_EQ(refusal([](Json &j) { j["peer"]["address"] = "host-b"; }), "peer.address must be an IP address: a frozen VM does not wait for a resolver");
	EXPECT_EQ(refusal([](Json &j) { j["peer"]["name"] = "a"; }), "peer.name must not be ours");
	EXPECT_EQ(refusal([](Json &j) { j["vms"] = 3; }), "vms must be an array");
	EXPECT_TRUE(has(refusal([](Json &j) { j["vms"][0]["role"] = "both"; }), "vms[0].role must be one of: primary, standby"));
	EXPECT_TRUE(has(refusal([](Json &j) { j["vms"][0]["mode"] = "bounded"; }), "nothing says by what"));
	EXPECT_TRUE(has(refusal([](Json &j) { j["vms"][0]["weight"] = 0; }), "vms[0].weight must be a number in 1..1000"));
	EXPECT_TRUE(has(refusal([](Json &j) { j["budget-bytes"] = 5; }), "budget-bytes must be a number in"));
	EXPECT_TRUE(has(refusal([](Json &j) { j["vms"][0]["qmp"] = "db.qmp"; }), "absolute path"));
	for (const Json &port : {Json(0), Json(65536), Json(-1), Json("7071"), Json(1.5)})
		EXPECT_TRUE(has(refusal([&](Json &j) { j["peer"]["port"] = port; }), "peer.port must be a number in 1..65535")) << port;
	for (const char *name : {"", "a/b", ".x", "a b", "123456789012345678901234567890123"})
		EXPECT_TRUE(has(refusal([&](Json &j) { j["me"] = name; }), "me must be")) << name;
	for (const char *uuid : {"6f1c9a1e6b5c4d539a050c1d2e3f4a5b", "00000000-0000-0000-0000-000000000000", "6f1c9a1e-6b5c-4d53-9a05-0c1d2e3f4a5g",
				 "6f1c9a1e-6b5c-4d53-9a05-0c1d2e3f4a5bb"})
		EXPECT_TRUE(has(refusal([&](Json &j) { j["vms"][0]["uuid"] = uuid; }), "vms[0].uuid must be a UUID")) << uuid;
	for (const char *listen : {"7071", ":7071", "0.0.0.0:0", "0.0.0.0:65536", "::1:7071", "[::1]", "host:1"})
		EXPECT_TRUE(has(refusal([&](Json &j) { j["listen"] = listen; }), "listen must be ADDRESS:PORT")) << listen;
}

TEST(Config, F9_power)
{
	EXPECT_EQ(parse_config(good().dump()).power.ups, "");
	Json json = good();
	json["power"] = {{"ups", "ups@localhost"}};
	const PowerConfig least = parse_config(json.dump()).power;
	EXPECT_TRUE(least.resume);
	EXPECT_EQ(least.rate, 0u);
	EXPECT_EQ(least.health, 100u);
	json["power"] = {{"ups", "u@h:1"}, {"on-return", "stay"}, {"rated-seconds", 600}, {"health-percent", 80}, {"margin-seconds", 0},
			 {"fixed-seconds", 1}, {"rate-mib", 3}};
	const PowerConfig all = parse_config(json.dump()).power;
	EXPECT_FALSE(all.resume);
	EXPECT_EQ(all.rated.count(), 600);
	EXPECT_EQ(all.health, 80u);
	EXPECT_EQ(all.margin.count(), 0);
	EXPECT_EQ(all.fixed.count(), 1);
	EXPECT_EQ(all.rate, 3u << 20);
	EXPECT_EQ(refusal([](Json &j) { j["power"] = Json::object(); }), "power.ups is missing");
	EXPECT_EQ(refusal([](Json &j) { j["power"] = 1; }), "power must be an object");
	EXPECT_TRUE(has(refusal([](Json &j) { j["power"] = {{"ups", "u"}, {"on-return", "go"}}; }), "power.on-return must be one of: resume, stay"));
	EXPECT_TRUE(has(refusal([](Json &j) { j["power"] = {{"ups", "u"}, {"health-percent", 101}}; }), "power.health-percent must be"));
	EXPECT_EQ(refusal([](Json &j) { j["power"] = {{"ups", "u"}, {"watts", 1}}; }), "power.watts is not known");
}

TEST(Config, F5_bounded_mode)
{
	Json json = good();

	json["budget-bytes"] = 64 << 20;
	json["vms"][0]["mode"] = "bounded";
	json["vms"][0]["budget-min-bytes"] = 1 << 20;
	json["vms"][0]["weight"] = 7;
	const Config c = parse_config(json.dump());
	EXPECT_EQ(c.vms[0].mode, Mode::bounded);
	EXPECT_EQ(c.vms[0].tracker, Tracker::module);
	EXPECT_EQ(c.vms[0].budget_min, 1u << 20);
	EXPECT_EQ(c.vms[0].weight, 7u);
	EXPECT_EQ(c.budget_bytes, 64u << 20);
	json.erase("budget-bytes");
	json["battery-seconds"] = 300;
	EXPECT_EQ(parse_config(json.dump()).battery.count(), 300);
}

TEST(Config, F1_two_VMs_that_are_one)
{
	for (const char *name : {"name", "uuid", "qmp", "ram"})
		EXPECT_TRUE(has(refusal([&](Json &j) {
			Json second = {{"name", "x"}, {"uuid", "6f1c9a1e-6b5c-4d53-9a05-000000000001"}, {"qmp", "/q"}, {"ram", "/r"}, {"role", "standby"}};

			second[name] = j["vms"][0][name];
			j["vms"].push_back(second);
		}), "vms[1]: another VM has this " + std::string(name)));
}

TEST(Config, F1_what_is_no_JSON)
{
	EXPECT_TRUE(has(error_of([] { parse_config("{\"me\": "); }), "no JSON at byte"));
	EXPECT_TRUE(has(error_of([] { parse_config("[]"); }), "must be an object"));
	EXPECT_TRUE(has(error_of([] { parse_config("{\"me\": \"a\", \"me\": \"b\"}"); }), "me is there twice"));
	EXPECT_TRUE(has(error_of([] { read_config("/nonexistent/standby.json"); }), "No such file"));
}

} // namespace redoubt::agent
