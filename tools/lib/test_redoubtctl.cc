// SPDX-License-Identifier: GPL-2.0
//
// The commands, whole, against a model of the module.

#include <csignal>
#include <fstream>
#include <thread>

#include <sys/eventfd.h>
#include <unistd.h>

#include "ctl_world.h"

namespace redoubt::client {

namespace {

TEST_F(Ctl, NoModule)
{
	for (int code : {ENOENT, ENODEV, ENXIO}) {
		module.open_error = code;
		module.in_sysfs = false;
		const Result human = run({"status"});
		EXPECT_EQ(human.status, 3);
		EXPECT_TRUE(has(human.err, "not loaded"));
		EXPECT_EQ(human.out, "");
		const Result js = run({"status", "--json"});
		EXPECT_EQ(js.status, 3);
		EXPECT_EQ(js.objects().at(0), json({{"loaded", false}}));
		expect_error({"watch", "1"}, 3, "not loaded");
	}
	// Loaded, but no device node; and no right to open it: not "not loaded".
	module.open_error = ENOENT;
	module.in_sysfs = true;
	expect_error({"status"}, 1, "cannot be reached by /dev/redoubt: No such file");
	module.open_error = EACCES;
	expect_error({"status"}, 1, "/dev/redoubt: Permission denied");
	module.open_error = 0;
	module.version++;
	expect_error({"status"}, 1, "interface version 2, this program has 1");
}

TEST_F(Ctl, Usage)
{
	module.open_error = ENOENT;	// usage is judged before anything is tried
	for (const std::vector<const char *> &args : std::vector<std::vector<const char *>>{
		     {},
		     {"bogus"},
		     {"status", "extra"},
		     {"status", "--bogus"},
		     {"attach"},
		     {"attach", "--pid", "0"},
		     {"attach", "--pid", "abc"},
		     {"attach", "--pid", "4294967297"},
		     {"attach", "--pid", "1", "--vm-fd", "-1"},
		     {"detach"},
		     {"detach", "0"},
		     {"detach", "pid:"},
		     {"detach", "4294967296"},
		     {"regions", "vm1"},
		     {"watch"},
		     {"watch", "1", "--all"},
		     {"watch", "1", "--type", "nonsense"},
		     {"watch", "1", "--count", "0"},
		     {"watch", "1", "--timeout", "-1"},
		     {"watch", "1", "--timeout", "0"},
		     {"protect", "1", "0x1000"},
		     {"protect", "1", "0x1000", "1"},
		     {"protect", "1", "0x1000", "0", "--action", "deny"},
		     {"protect", "1", "1000h", "1", "--action", "deny"},
		     {"protect", "1", "0x1000", "1", "--action", "allow"},
		     {"protect", "1", "0x1000", "1", "--action", "deny", "--class", "kernel"},
		     {"protect", "1", "0x1000", "1", "--action", "deny", "--class", "256"},
		     {"policy", "--self-attach", "maybe"},
	     })
		EXPECT_EQ(run(args).status, 2) << (args.empty() ? "" : args[0]);
	EXPECT_EQ(run({"--help"}).status, 0);
	EXPECT_EQ(run({"watch", "--help"}).status, 0);
}

TEST_F(Ctl, Status)
{
	EXPECT_TRUE(has(run({"status"}).out, "redoubt is loaded: npt, kernel 6.1.0-test"));

	const uint32_t id = module.add_vm(4711);
	module.vm(id).flags = RDT_VM_SEALED;
	module.vm(id).regions[0x1000] = {0x1000, 3, RDT_ACT_DENY, RDT_CLS_TEXT, 0, 0};
	module.raise(id, write_event(0x1008));
	module.raise(id, write_event(0x1010));
	const Result human = run({"status"});
	EXPECT_TRUE(has(human.out, "1 VM attached")) << human.out;
	EXPECT_TRUE(has(human.out, "vm 1  vmm pid 4711  2 vcpus  [sealed]")) << human.out;
	EXPECT_TRUE(has(human.out, "3 frames in 1 range,")) << human.out;
	EXPECT_TRUE(has(human.out, "events      2, write 2")) << human.out;

	const json all = run({"status", "--json"}).objects().at(0);
	EXPECT_EQ(all["loaded"], true);
	EXPECT_EQ(all["arch"], "npt");
	EXPECT_EQ(all["policy"], json({{"self_attach", false}}));
	EXPECT_EQ(all["vms"].size(), 1u);
	EXPECT_EQ(all["vms"][0]["vm_id"], id);
	EXPECT_EQ(all["vms"][0]["flags"], json({"sealed"}));
	EXPECT_EQ(all["vms"][0]["events_by_type"], json({{"write", 2}}));
}

// More VMs than one RDT_LIST of the client has room for.
TEST_F(Ctl, StatusOfManyVms)
{
	for (int i = 0; i < 200; i++)
		module.add_vm(1000 + i, 2);
	const json vms = run({"status", "--json"}).objects().at(0)["vms"];

	ASSERT_EQ(vms.size(), 200u);
	for (unsigned i = 0; i < 200; i++)
		EXPECT_EQ(vms[i]["vm_id"], i + 1);
}

TEST_F(Ctl, Attach)
{
	module.link = "anon_inode:[eventfd]";
	const std::string self = std::to_string(getpid());
	expect_error({"attach", "--pid", self.c_str()}, 1, "has no KVM VM");

	const Fd vm(eventfd(0, 0));
	const Result done = run({"attach", "--pid", self.c_str(), "--json"});
	EXPECT_EQ(done.status, 0);
	EXPECT_EQ(done.objects().at(0), json({{"vm_id", 1}, {"pid", getpid()}, {"vm_fd", vm.get()}}));
	// It stays attached when the program is gone.
	EXPECT_EQ(run({"status", "--json"}).objects().at(0)["vms"].size(), 1u);

	expect_error({"attach", "--pid", self.c_str()}, 1, "attached already: File exists");
	EXPECT_EQ(run({"detach", ("pid:" + self).c_str()}).out, "vm 1 detached\n");
	EXPECT_EQ(run({"attach", "--pid", self.c_str()}).out,
		  "vm 2 attached: descriptor " + std::to_string(vm.get()) + " of process " + self + "\n");
	const Fd second(eventfd(0, 0));
	expect_error({"attach", "--pid", self.c_str()}, 1, "choose one with --vm-fd");
}

// A full disk behind the output is no success.
TEST_F(Ctl, OutputFails)
{
	const char *args[] = {"redoubtctl", "status"};
	std::ostringstream err;
	std::ofstream full("/dev/full");

	EXPECT_EQ(ctl::run(module, 2, args, full, err), 1);
	EXPECT_TRUE(has(err.str(), "cannot write the output")) << err.str();
}

TEST_F(Ctl, FindAndDetach)
{
	const uint32_t one = module.add_vm(500), two = module.add_vm(500);

	expect_error({"detach", "9"}, 1, "vm 9: no such VM is attached: No such file or directory");
	expect_error({"detach", "pid:77"}, 1, "no VM of process 77 is attached");
	expect_error({"detach", "pid:500"}, 1, "has several VMs, give one by number: 1, 2");
	module.vm(one).inside = true;
	expect_error({"detach", "1"}, 1, "vm 1: detach: the guest is in integrity mode, or has domains: Device or resource busy");
	EXPECT_EQ(run({"detach", "2", "--json"}).objects().at(0), json({{"vm_id", two}, {"detached", true}}));
	expect_error({"detach", "2"}, 1, "no such VM");
	EXPECT_TRUE(has(run({"regions", "pid:500"}).out, "vm 1: 0 regions"));
}

TEST_F(Ctl, ProtectAndRegions)
{
	module.add_vm(500);
	EXPECT_EQ(run({"protect", "1", "0x200000", "512", "--action", "deny", "--class", "text"}).status, 0);
	EXPECT_EQ(run({"protect", "1", "4096", "1", "--action", "log"}).out,
		  "vm 1: 0x000000001000-0x000000001fff   1 page  other    log\n");
	EXPECT_EQ(run({"regions", "1"}).out, "0x000000001000-0x000000001fff   1 page  other    log\n"
					     "0x000000200000-0x0000003fffff 512 pages  text     deny\n"
					     "vm 1: 2 regions, 513 pages\n");
	const json list = run({"regions", "1", "--json"}).objects().at(0);
	EXPECT_EQ(list["regions"][1],
		  json({{"gpa", "0x200000"}, {"pages", 512}, {"class", "text"}, {"action", "deny"}}));

	EXPECT_TRUE(has(run({"protect", "1", "0x9000", "1", "--action", "log", "--class", "0x7f"}).out, "class_127"));
	EXPECT_EQ(run({"protect", "1", "0x9000", "1", "--action", "none"}).status, 0);
	EXPECT_EQ(run({"protect", "1", "0x1000", "1", "--action", "none"}).status, 0);
	expect_error({"protect", "1", "0x1000", "1", "--action", "none"}, 1, "no frame of the range is protected");
	expect_error({"protect", "1", "0x1001", "1", "--action", "deny"}, 1, "not valid: Invalid argument");
	expect_error({"protect", "1", "0x1000", "1", "--action", "deny", "--class", "node"}, 1, "not valid");
	expect_error({"protect", "1", "0x100000000", "1", "--action", "deny"}, 1, "not RAM of the guest: Bad address");
	module.vm(1).regions[0x5000] = {0x5000, 1, RDT_ACT_DENY, RDT_CLS_NODE, 0, 0};
	expect_error({"protect", "1", "0x5000", "1", "--action", "none"}, 1, "Operation not permitted");
	module.vm(1).flags = RDT_VM_TREE_CORRUPT;
	expect_error({"regions", "1"}, 1, "tree of monitored pages is corrupt: Structure needs cleaning");
}

// More regions than one RDT_VM_REGIONS of the client has room for, up to an
// exact multiple of it.
TEST_F(Ctl, ManyRegions)
{
	module.add_vm(500);
	for (uint64_t count : {1023u, 1024u, 1025u, 2048u, 5000u}) {
		module.vm(1).regions.clear();
		for (uint64_t i = 0; i < count; i++)
			module.vm(1).regions[i * 8192] = {i * 8192, 1, RDT_ACT_DENY, RDT_CLS_TEXT, 0, 0};
		const json list = run({"regions", "1", "--json"}).objects().at(0)["regions"];

		ASSERT_EQ(list.size(), count);
		EXPECT_EQ(list.back()["gpa"].get<std::string>(), [&] {
			char text[32];
			snprintf(text, sizeof(text), "0x%lx", (count - 1) * 8192);
			return std::string(text);
		}());
	}
}

TEST_F(Ctl, Policy)
{
	EXPECT_EQ(run({"policy"}).out, "self-attach off\n");
	EXPECT_EQ(run({"policy", "--self-attach", "on"}).out, "self-attach on\n");
	EXPECT_EQ(run({"policy", "--json"}).objects().at(0), json({{"self_attach", true}}));
	EXPECT_TRUE(has(run({"status"}).out, "policy self-attach on"));
	EXPECT_EQ(run({"policy", "--self-attach", "off"}).out, "self-attach off\n");
	module.may_set_policy = false;
	expect_error({"policy", "--self-attach", "on"}, 1, "needs CAP_SYS_ADMIN: Operation not permitted");
	EXPECT_EQ(module.policy, 0u);
}

TEST_F(Ctl, WatchLine)
{
	module.add_vm(500);
	module.raise(1, write_event(0x1a00300));
	EXPECT_EQ(run({"watch", "1", "--since", "0", "--count", "1"}).lines().at(0),
		  "   12.345678s vm 1 #1 write deny gpa 0x1a00300 gva 0xffffffff82000300 4 bytes old 0x000000ab "
		  "new 0xdeadbeef in syscall 0x1a00000+2 pages by vcpu 1 cpl 0 view 0 rip 0xffffffffc0001000 "
		  "cr3 0x1234000");
	EXPECT_EQ(run({"watch", "1", "--since", "0", "--count", "1", "--json"}).objects().at(0),
		  json({{"kind", "event"}, {"vm_id", 1}, {"seq", 1}, {"time_ns", 12345678901}, {"type", "write"},
			{"action", "deny"}, {"class", "syscall"}, {"code", 0}, {"gpa", "0x1a00300"},
			{"range_gpa", "0x1a00000"}, {"range_pages", 2}, {"gva", "0xffffffff82000300"}, {"size", 4},
			{"old", "0x000000ab"}, {"new", "0xdeadbeef"}, {"vcpu", 1}, {"cpl", 0}, {"view", 0},
			{"rip", "0xffffffffc0001000"}, {"cr3", "0x1234000"}, {"flags", json::array()}}));
}

// A field whose flag is not set is not shown, whatever it holds.
TEST_F(Ctl, WatchUnknownFields)
{
	rdt_event event = write_event(0x1000);

	module.add_vm(500);
	event.type = 30;
	event.flags = RDT_EVF_HOST | RDT_EVF_EMULATED | 1u << 20;
	module.raise(1, event);
	const json shown = run({"watch", "1", "--since", "0", "--count", "1", "--json"}).objects().at(0);
	for (const char *key : {"gva", "size", "old", "new", "vcpu", "cpl", "view", "rip", "cr3"})
		EXPECT_FALSE(shown.contains(key)) << key;
	EXPECT_EQ(shown["type"], "event_30");
	EXPECT_EQ(shown["flags"], json({"emulated", "host", "flag_1048576"}));
	const std::string line = run({"watch", "1", "--since", "0", "--count", "1"}).lines().at(0);
	EXPECT_TRUE(has(line, "event_30 deny gpa 0x1000 in syscall")) << line;
	EXPECT_FALSE(has(line, "rip")) << line;
}

// An event that is about no place in memory names none.
TEST_F(Ctl, WatchSealed)
{
	rdt_event event{};

	module.add_vm(500);
	event.type = RDT_EV_SEALED;
	event.range_pages = 44;
	event.flags = RDT_EVF_HOST;
	module.raise(1, event);
	EXPECT_EQ(run({"watch", "1", "--since", "0", "--count", "1"}).lines().at(0),
		  "    0.000000s vm 1 #1 sealed 44 pages [host]");
}

TEST_F(Ctl, WatchGateCode)
{
	rdt_event event{};

	module.add_vm(500);
	event.type = RDT_EV_GATE;
	event.code = RDT_GATE_BAD_RIP;
	event.rip = 0x1;
	module.raise(1, event);
	EXPECT_TRUE(has(run({"watch", "1", "--since", "0", "--count", "1"}).out, "gate bad_rip by vcpu 0"));
	EXPECT_EQ(run({"watch", "1", "--since", "0", "--count", "1", "--json"}).objects().at(0)["code_name"], "bad_rip");
}

// Without --since: what happens from now on.
TEST_F(Ctl, WatchFromNow)
{
	module.add_vm(500);
	module.raise(1, write_event(0x1000));
	module.on_poll = [this] { module.raise(1, write_event(0x2000)); };
	const auto shown = run({"watch", "1", "--count", "1", "--json"}).objects();
	EXPECT_EQ(shown.at(0)["seq"], 2);
	EXPECT_EQ(shown.at(1), json({{"kind", "end"}, {"vm_id", 1}, {"reason", "count"}, {"events", 1}, {"lost", 0}}));
}

TEST_F(Ctl, WatchSinceAndLost)
{
	module.add_vm(500, 8);
	for (int i = 0; i < 20; i++)
		module.raise(1, write_event(0x1000));
	const Result human = run({"watch", "1", "--since", "3", "--count", "8"});
	EXPECT_EQ(human.lines().at(0), "vm 1: lost 9 events (#4-#12)");
	EXPECT_TRUE(has(human.lines().at(1), "#13 ")) << human.out;
	EXPECT_EQ(human.lines().at(9), "vm 1: end (count), 8 events shown, 9 lost");
	EXPECT_EQ(human.lines().size(), 10u);
	EXPECT_EQ(run({"watch", "1", "--since", "3", "--count", "8", "--json"}).objects().at(0),
		  json({{"kind", "lost"}, {"vm_id", 1}, {"lost", 9}, {"first_seq", 4}, {"last_seq", 12}}));
}

TEST_F(Ctl, WatchType)
{
	rdt_event gate{};

	module.add_vm(500);
	gate.type = RDT_EV_GATE;
	for (int i = 0; i < 3; i++) {
		module.raise(1, write_event(0x1000));
		module.raise(1, gate);
	}
	module.on_poll = [this] { module.kill(1); };
	const auto shown = run({"watch", "1", "--since", "0", "--type", "gate", "--json"}).objects();
	ASSERT_EQ(shown.size(), 4u);
	for (unsigned i = 0; i < 3; i++)
		EXPECT_EQ(shown[i]["seq"], 2 * (i + 1));
	// The VM's end is noticed though its event is filtered out.
	EXPECT_EQ(shown[3]["reason"], "vm_dead");
	EXPECT_EQ(shown[3]["events"], 3);
}

TEST_F(Ctl, WatchTimeout)
{
	module.add_vm(500);
	const Result quiet = run({"watch", "1", "--timeout", "0.05"});
	EXPECT_EQ(quiet.status, 0);
	EXPECT_EQ(quiet.out, "vm 1: end (timeout), 0 events shown, 0 lost\n");
	module.raise(1, write_event(0x1000));
	expect_error({"watch", "1", "--since", "0", "--count", "2", "--timeout", "0.05"}, 1,
		     "watch: timeout after 1 of 2 events");
}

TEST_F(Ctl, WatchEndsWithTheVm)
{
	module.add_vm(500);
	int round = 0;
	module.on_poll = [&] {
		if (++round < 3)
			module.raise(1, write_event(0x1000));
		else
			module.kill(1);
	};
	const Result result = run({"watch", "1"});
	EXPECT_EQ(result.status, 0);
	ASSERT_EQ(result.lines().size(), 4u) << result.out;
	EXPECT_TRUE(has(result.lines()[2], "#3 vm_dead [host]")) << result.out;
	EXPECT_EQ(result.lines()[3], "vm 1: end (vm_dead), 3 events shown, 0 lost");
	expect_error({"watch", "1"}, 1, "no such VM is attached");

	module.add_vm(501);
	module.on_poll = [&] { module.kill(2); };
	expect_error({"watch", "2", "--count", "9"}, 1, "watch: vm_dead after 1 of 9 events");
}

TEST_F(Ctl, WatchEndsWithDetach)
{
	module.add_vm(500);
	module.on_poll = [this] { module.detach(1); };
	const Result result = run({"watch", "1"});
	EXPECT_EQ(result.status, 0);
	EXPECT_EQ(result.lines().back(), "vm 1: end (detach), 1 event shown, 0 lost");
}

// The descriptor tells of the end before the last event is there: it is awaited,
// and without hurry.
TEST_F(Ctl, WatchAwaitsTheLastEvent)
{
	module.add_vm(500);
	int round = 0;
	module.on_poll = [&] {
		round++;
		module.vm(1).flags |= RDT_VM_DEAD;
		if (round == 3)
			module.kill(1);
	};
	EXPECT_EQ(run({"watch", "1"}).lines().back(), "vm 1: end (vm_dead), 1 event shown, 0 lost");

	// Should it never come, we do not wait for ever.
	module.add_vm(501);
	module.on_poll = [this] { module.vm(2).flags |= RDT_VM_DEAD; };
	EXPECT_EQ(run({"watch", "2"}).out, "vm 2: end (gone), 0 events shown, 0 lost\n");
}

TEST_F(Ctl, WatchAll)
{
	module.add_vm(500);
	module.add_vm(501);
	int round = 0;
	module.on_poll = [&] {
		rdt_event event = write_event(0x1000);

		switch (++round) {
		case 1:		// two VMs at once are shown in the order of time
			event.time_ns = 300;
			module.raise(1, event);
			event.time_ns = 200;
			module.raise(2, event);
			break;
		case 2:
			module.kill(2);
			break;
		case 4:		// one attached meanwhile is shown from its beginning
			module.add_vm(502);
			module.raise(3, event);
			break;
		case 6:
			raise(SIGTERM);
		}
	};
	const auto shown = run({"watch", "--all", "--json"}).objects();
	std::vector<std::string> story;
	for (const json &line : shown)
		story.push_back(line["kind"].get<std::string>() + " " + std::to_string(line["vm_id"].get<int>()) +
				(line.contains("reason") ? " " + line["reason"].get<std::string>() : ""));
	EXPECT_EQ(story, (std::vector<std::string>{"event 2", "event 1", "event 2", "end 2 vm_dead", "event 3",
						   "end 1 signal", "end 3 signal"}));
}

// A guest that raises events faster than they can be shown: none unaccounted.
TEST_F(Ctl, WatchUnderLoad)
{
	constexpr uint64_t produced = 200'000;

	module.add_vm(500, 256);
	std::thread guest;
	// Not before it is watched: a VM that has ended cannot be opened.
	module.on_poll = [&] {
		if (guest.joinable())
			return;
		guest = std::thread([&] {
			for (uint64_t i = 0; i < produced - 1; i++)
				module.vm(1).ring.push(write_event(0x1000));
			module.kill(1);
		});
	};
	const Result result = run({"watch", "1", "--since", "0", "--json"});
	guest.join();
	EXPECT_EQ(result.status, 0) << result.err;
	uint64_t events = 0, lost = 0, next = 1;
	for (const json &line : result.objects()) {
		if (line["kind"] == "event") {
			EXPECT_EQ(line["seq"], next);
			next++;
			events++;
		} else if (line["kind"] == "lost") {
			EXPECT_EQ(line["first_seq"], next);
			lost += line["lost"].get<uint64_t>();
			next = line["last_seq"].get<uint64_t>() + 1;
		} else {
			EXPECT_EQ(line["reason"], "vm_dead");
			EXPECT_EQ(line["events"], events);
			EXPECT_EQ(line["lost"], lost);
		}
	}
	EXPECT_EQ(events + lost, produced);
	EXPECT_GT(lost, 0u);
}

} // namespace

} // namespace redoubt::client
