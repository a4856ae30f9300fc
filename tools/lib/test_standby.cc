// SPDX-License-Identifier: GPL-2.0
//
// F1: redoubtctl standby, against an agent that says what the test wants.

#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl_world.h"

namespace redoubt::client {

namespace {

class CtlStandby : public Ctl {
protected:
	CtlStandby()
	{
		std::string name = (std::filesystem::temp_directory_path() / "redoubt-agent-XXXXXX").string();
		sockaddr_un address{};

		dir = mkdtemp(name.data());
		path = dir + "/sock";
		address.sun_family = AF_UNIX;
		memcpy(address.sun_path, path.c_str(), path.size());
		listener = Fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
		EXPECT_EQ(bind(listener.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
		EXPECT_EQ(listen(listener.get(), 4), 0);
		server = std::thread([this] { serve(); });
	}
	~CtlStandby() override
	{
		shutdown(listener.get(), SHUT_RDWR);
		server.join();
		std::filesystem::remove_all(dir);
	}
	void serve()
	{
		for (;;) {
			const Fd fd(accept(listener.get(), nullptr, nullptr));
			std::string line;
			char c;

			if (!fd)
				return;
			while (read(fd.get(), &c, 1) == 1 && c != '\n')
				line += c;
			heard.push_back(json::parse(line, nullptr, false));
			const std::string text = answer(heard.back()) + "\n";
			(void)!write(fd.get(), text.data(), text.size());
		}
	}
	Result run(std::vector<const char *> args)
	{
		args.insert(args.begin(), {"standby", "--socket", path.c_str()});
		return Ctl::run(std::move(args));
	}
	static std::string vm(const char *state)
	{
		return json{{"ok", true}, {"name", "db"}, {"state", state}, {"epoch", 3}, {"vmm", "running"}, {"link", true}, {"peer_boot", "00000000000000ab"},
			    {"trouble", "the link was cut"}, {"us", {{"sent", 9000}, {"stopped", 1000}}}}.dump();
	}

	std::string dir, path;
	std::function<std::string(const json &)> answer;
	std::vector<json> heard;
	Fd listener;
	std::thread server;
};

} // namespace

TEST_F(CtlStandby, F1_list_and_status)
{
	answer = [](const json &request) {
		if (request["command"] == "status" && request.contains("vm"))
			return vm("active");
		return json{{"ok", true}, {"me", "a"}, {"peer", "b"}, {"link", "up"}, {"refused", 2}, {"vms", {json::parse(vm("frozen"))}}}.dump();
	};
	const Result list = run({"list"}), status = run({"status", "db"});

	EXPECT_EQ(list.out, "a, link to b up, 2 connections refused\ndb  frozen, epoch 3, QEMU running, link up\n");
	EXPECT_TRUE(has(status.out, "db  active, epoch 3")) << status.out;
	EXPECT_TRUE(has(status.out, "stopped 1 sent 9\n")) << "by time: " << status.out;
	EXPECT_EQ(run({"status", "db", "--json"}).objects().at(0)["state"], "active");
	EXPECT_TRUE(has(run({"status"}).out, "db  frozen"));
}

TEST_F(CtlStandby, F9_power_and_whether_the_standby_is_ready)
{
	json one = json::parse(vm("active"));
	json power{{"ups", "ups@localhost"}, {"line", "battery"}, {"status", "OB DISCHRG"}, {"charge_percent", 80}, {"hold_up_s", 300},
		   {"budget_bytes", 3u << 20}, {"need_bytes", 1u << 20}};

	answer = [&](const json &request) {
		if (request.contains("vm"))
			return one.dump();
		return json{{"ok", true}, {"me", "a"}, {"peer", "b"}, {"link", "up"}, {"refused", 0}, {"power", power}, {"vms", {one}}}.dump();
	};
	one["standby"] = "ready";
	EXPECT_EQ(run({"list"}).out, "a, link to b up, 0 connections refused\n"
				     "power: battery (ups@localhost: OB DISCHRG), 80 %, 300 s; 3.0 MiB can be sent, 1.0 MiB would have to be\n"
				     "db  active, epoch 3, QEMU running, link up, standby ready\n");
	one["standby"] = "b is not ready: no QEMU waits";
	power["error"] = "Data stale";
	EXPECT_TRUE(has(run({"list"}).out, "upsd does not answer: Data stale\ndb  active, epoch 3, QEMU running, link up, standby not ready\n"));
	EXPECT_TRUE(has(run({"status", "db"}).out, "  b is not ready: no QEMU waits\n"));
}

TEST_F(CtlStandby, F1_go_waits_and_tells_what_came_of_it)
{
	unsigned n = 0;
	std::vector<const char *> states{"frozen", "sealed", "released", "empty"};

	answer = [&](const json &) { return vm(states[std::min<size_t>(n++, states.size() - 1)]); };
	EXPECT_EQ(run({"go", "db", "--wait", "5", "--force"}).status, 0);
	EXPECT_EQ(heard[0]["command"], "go");
	EXPECT_EQ(heard[0]["force"], true);
	n = 0;
	states = {"frozen", "active"};
	const Result back = run({"go", "db", "--wait", "5"});
	EXPECT_EQ(back.status, 1);
	EXPECT_TRUE(has(back.err, "was not handed over: the link was cut")) << back.err;
	n = 0;
	states = {"sealed"};
	EXPECT_TRUE(has(run({"go", "db", "--wait", "0.1"}).err, "is sealed after"));
	EXPECT_EQ(run({"go", "db"}).status, 0) << "without --wait it is enough that it has begun";
}

TEST_F(CtlStandby, F2_check_and_refusals)
{
	answer = [](const json &request) {
		if (request["command"] != "check")
			return std::string("{\"ok\": false, \"error\": \"db: does not run here\"}");
		return json{{"ok", true}, {"carried", false}, {"obstacles", {{{"what", "vfio-pci x"}, {"why", "no"}, {"vmm_death_only", false}},
									      {{"what", "hpet"}, {"why", "old"}, {"vmm_death_only", true}},
									      {{"what", "memory"}, {"why", "not locked"}, {"panic_only", true}}}}}.dump();
	};
	const Result check = run({"check", "db"});

	EXPECT_EQ(check.status, 1);
	EXPECT_EQ(check.out, "refused: vfio-pci x: no\nif QEMU is killed: hpet: old\nif the host panics: memory: not locked\n");
	EXPECT_TRUE(has(run({"abort", "db"}).err, "db: does not run here"));
	EXPECT_TRUE(has(run({"fenced", "db", "00000000000000ab"}).err, "db: does not run here"));
	EXPECT_EQ(heard.back()["boot"], "00000000000000ab");
}

TEST_F(CtlStandby, F1_an_agent_that_is_not_there_or_not_one)
{
	answer = [](const json &) { return std::string("hello"); };
	expect_error({"standby", "--socket", "/nonexistent/sock", "list"}, 1, "redoubtd does not answer at /nonexistent/sock");
	EXPECT_TRUE(has(run({"list"}).err, "is not redoubtd"));
	for (const std::vector<const char *> &wrong : std::vector<std::vector<const char *>>{
		     {"go"}, {"fenced", "db"}, {"fenced", "db", "12"}, {"fenced", "db", "00000000000000zz"}, {"pair"}, {"pair", "a/b"}, {"nothing"}})
		EXPECT_EQ(run(wrong).status, 2) << wrong[0];
}

TEST_F(CtlStandby, F5_plan)
{
	const Result two = run({"plan", "--battery", "300", "--rate", "100", "web:20000:2", "db:8192"});

	// 300 s less 20 %, less 5 and 5: 230 s at 100 MiB
	EXPECT_EQ(two.status, 1);
	EXPECT_TRUE(two.out.starts_with("23000 MiB can be sent")) << two.out;
	EXPECT_TRUE(has(two.out, "db  8192 MiB, priority 1: through after 87 s\nweb  20000 MiB, priority 2: does not fit\n")) << two.out;
	const Result one = run({"plan", "--battery", "300", "--rate", "100", "db:8192", "--json"});
	EXPECT_EQ(one.status, 0);
	EXPECT_EQ(one.objects().at(0)["budget_bytes"], 23000ull << 20);
	EXPECT_EQ(run({"plan", "--battery", "300", "--rate", "100", "db"}).status, 1);
	EXPECT_EQ(run({"plan", "--rate", "100", "db:1"}).status, 2);
}

} // namespace redoubt::client
