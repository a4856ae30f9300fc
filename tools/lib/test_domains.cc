// SPDX-License-Identifier: GPL-2.0
//
// The commands for domains and their secrets, whole, against a model of the module.

#include <csignal>
#include <fstream>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl_world.h"
#include "manifest.h"
#include "secret.h"

namespace redoubt::client {

namespace {

class Domains : public Ctl {
protected:
	Domains()
	{
		char name[] = "/tmp/redoubtctl-test-XXXXXX";

		dir_ = mkdtemp(name);
		module.add_vm(500);
	}
	~Domains()
	{
		for (const std::string &path : files_)
			unlink(path.c_str());
		rmdir(dir_.c_str());
	}

	std::string path(const std::string &name)
	{
		files_.push_back(dir_ + "/" + name);
		return files_.back();
	}
	std::string file(const std::string &name, const std::string &content, mode_t mode = 0600)
	{
		const std::string at = path(name);

		std::ofstream(at, std::ios::binary) << content;
		chmod(at.c_str(), mode);
		return at;
	}
	static std::string read(const std::string &at)
	{
		std::ifstream in(at, std::ios::binary);

		return {std::istreambuf_iterator<char>(in), {}};
	}
	// What a domain has there.
	static std::string at(FakeDomain &domain, int64_t offset, size_t bytes)
	{
		std::string out;

		for (size_t i = 0; i < bytes; i++)
			out += static_cast<char>(domain.memory[offset + static_cast<int64_t>(i)]);
		return out;
	}
	// measured: of which byte it is 32 times
	static json manifest(int measured = 0x22)
	{
		char hex[3];

		snprintf(hex, sizeof(hex), "%02x", measured);
		std::string all;
		for (int i = 0; i < 32; i++)
			all += hex;
		return json{{"redoubt_manifest", 1},
			    {"name", "test code"},
			    {"measurement", all},
			    {"placeholders",
			     {{{"name", "key"}, {"offset", "0x42"}, {"length", 8}},
			      {{"name", "key"}, {"offset", 0x100}, {"length", 8}, {"from", 8}},
			      {{"name", "salt"}, {"offset", "0x1fff"}, {"length", "0x3"}}}}};
	}
	void expect_bad(const json &text, const std::string &why)
	{
		const std::string at = file("bad.json", text.is_string() ? text.get<std::string>() : text.dump());

		expect_error({"secret", "install", "1", "--manifest", at.c_str(), "key=/dev/null"}, 1, why);
	}

private:
	std::string dir_;
	std::vector<std::string> files_;
};

} // namespace

TEST_F(Domains, List)
{
	EXPECT_EQ(run({"domains", "1"}).out, "vm 1: 0 domains, 0 frames\n");
	EXPECT_EQ(run({"domains", "1", "--json"}).objects().at(0), json({{"vm_id", 1}, {"domains", json::array()}}));

	module.add_domain(1, 2, 0);
	rdt_domain_info &info = module.add_domain(1, 30, 0xab, RDT_DOM_VECTOR | RDT_DOM_EXPORTABLE).info;
	info.slots_busy = 1;
	info.shared = 3;
	info.enters = 7;
	info.aexits = 1;
	info.installs = 2;
	const std::string measured = [] {
		std::string text;
		for (int i = 0; i < 32; i++)
			text += "ab";
		return text;
	}();
	EXPECT_EQ(run({"domains", "pid:500"}).lines(),
		  (std::vector<std::string>{
			  "0x102    building view 2   11 frames, 0 shared  slots 0 of 2 busy  0 enters, 0 asynchronous exits, "
			  "0 installs",
			  "0x11e    sealed   view 30  11 frames, 3 shared  slots 1 of 2 busy  7 enters, 1 asynchronous exit, "
			  "2 installs  [vector exportable]  " + measured,
			  "vm 1: 2 domains, 22 frames"}));
	const json list = run({"domains", "1", "--json"}).objects().at(0)["domains"];
	ASSERT_EQ(list.size(), 2u);
	EXPECT_FALSE(list[0].contains("measurement")) << "there is none before the seal";
	EXPECT_EQ(list[1], json({{"id", "0x11e"}, {"state", "sealed"}, {"flags", {"vector", "exportable"}}, {"view", 30},
				 {"frames", 11}, {"shared", 3}, {"slots", 2}, {"slots_busy", 1}, {"enters", 7},
				 {"aexits", 1}, {"installs", 2}, {"gate_gva", "0xffffffffc0002010"},
				 {"measurement", measured}}));
	expect_error({"domains", "2"}, 1, "no such VM is attached");
	const json all = run({"status", "--json"}).objects().at(0)["vms"][0];
	EXPECT_EQ(all["domains"], 2);
	EXPECT_EQ(all["domain_frames"], 22);
	EXPECT_TRUE(has(run({"status"}).out, "domains     2 with 22 frames"));
}

TEST_F(Domains, Usage)
{
	module.open_error = ENOENT;
	for (const std::vector<const char *> &args : std::vector<std::vector<const char *>>{
		     {"domains"},
		     {"quota", "1", "--domains", "30"},
		     {"quota", "1", "--frames", "-1"},
		     {"quota", "1", "--export", "maybe"},
		     {"destroy", "1"},
		     {"destroy", "1", "0"},
		     {"destroy", "1", "0x102", "--wait", "-1"},
		     {"install", "1", "--domain", "0x102", "--at", "0x1000"},
		     {"install", "1", "--at", "0x1000", "--value", "x"},
		     {"install", "1", "--domain", "0x102", "--value", "x"},
		     {"secret"},
		     {"secret", "install", "1", "key=x"},
		     {"secret", "install", "1", "--manifest", "x"},
		     {"secret", "install", "1", "--manifest", "x", "--manifest", "y", "k=v"},
		     {"secret", "serve", "k=v"},
		     {"secret", "serve", "--manifest", "x"},
		     {"secret", "serve", "--manifest", "x", "k=v", "--vm", "all"},
		     {"domain"},
		     {"domain", "export", "1", "0x102"},
		     {"domain", "export", "1", "--key", "x"},
		     {"domain", "export", "1", "0x102", "--key", "x", "--json"},
		     {"domain", "import", "1"},
		     {"domain", "import", "1", "--key", "-"},
	     })
		EXPECT_EQ(run(args).status, 2) << args[0];
}

TEST_F(Domains, Quota)
{
	EXPECT_EQ(run({"quota", "1"}).out, "vm 1: 0 domains, 0 frames in each, 0 in all, export off\n");
	// As many, each as large as it may be.
	EXPECT_EQ(run({"quota", "1", "--domains", "3", "--frames", "100"}).out,
		  "vm 1: 3 domains, 100 frames in each, 300 in all, export off\n");
	EXPECT_EQ(run({"quota", "1", "--total", "120", "--json"}).objects().at(0),
		  json({{"vm_id", 1}, {"domains", 3}, {"frames", 100}, {"total", 120}, {"export", false}}));
	EXPECT_EQ(run({"quota", "1", "--export", "on"}).out,
		  "vm 1: 3 domains, 100 frames in each, 120 in all, export on\n");
	EXPECT_EQ(run({"quota", "1", "--domains", "29", "--frames", "0xffffffffffffffff"}).status, 0);
	EXPECT_EQ(module.vm(1).quota.frames, UINT64_MAX) << "not wrapped";
	EXPECT_EQ(run({"quota", "1", "--domains", "0", "--export", "off"}).status, 0);
	module.may_set_policy = false;
	expect_error({"quota", "1", "--domains", "1"}, 1, "vm 1: set quota: needs CAP_SYS_ADMIN: Operation not permitted");
	EXPECT_EQ(run({"quota", "1"}).status, 0);
	EXPECT_EQ(module.vm(1).quota.domains, 0u);
}

TEST_F(Domains, QuotaAtAttach)
{
	module.link = "anon_inode:[eventfd]";
	const std::string self = std::to_string(getpid());
	const Fd fd(eventfd(0, 0));
	const Result done = run({"attach", "--pid", self.c_str(), "--domains", "2", "--frames", "50", "--json"});

	EXPECT_EQ(done.status, 0) << done.err;
	EXPECT_EQ(done.objects().at(0)["quota"],
		  json({{"domains", 2}, {"frames", 50}, {"total", 100}, {"export", false}}));
	EXPECT_EQ(module.vm(2).quota.domains, 2u);
	EXPECT_EQ(run({"detach", "2"}).status, 0);
	EXPECT_TRUE(has(run({"attach", "--pid", self.c_str(), "--domains", "1", "--frames", "9"}).out,
			"; quota 1 domain, 9 frames in each, 9 in all, export off\n"));
	EXPECT_EQ(run({"detach", "3"}).status, 0);
	module.may_set_policy = false;
	expect_error({"attach", "--pid", self.c_str(), "--domains", "1"}, 1, "attached, but vm 4: set quota: needs CAP_SYS_ADMIN");
	EXPECT_TRUE(module.vm(4).listed);
}

TEST_F(Domains, Destroy)
{
	module.add_domain(1, 2, 1).busy = 3;
	module.add_domain(1, 3, 1);
	expect_error({"destroy", "1", "0x202"}, 1, "vm 1: there is no domain 0x202");
	expect_error({"destroy", "1", "0x102"}, 1, "a thread is inside; nobody new gets in, so ask again");
	EXPECT_EQ(run({"destroy", "1", "0x102", "--wait", "10"}).out,
		  "vm 1: domain 0x102 destroyed: 11 frames overwritten\n");
	EXPECT_EQ(run({"destroy", "1", "259", "--json"}).objects().at(0),
		  json({{"vm_id", 1}, {"domain", "0x103"}, {"destroyed", true}}));
	EXPECT_TRUE(module.vm(1).domains.empty());
	module.add_domain(1, 2, 1).busy = 1000;
	expect_error({"destroy", "1", "0x102", "--wait", "0.1"}, 1, "Resource temporarily unavailable");
}

TEST_F(Domains, Install)
{
	FakeDomain &domain = module.add_domain(1, 2, 1);
	const std::string value = file("value", "sixteen bytes...");

	// The gate is at ...2010, so the page at ...2000 is where offsets begin.
	EXPECT_EQ(run({"install", "1", "--domain", "0x102", "--at", "0xffffffffc0003ff8", "--value", value.c_str()}).out,
		  "vm 1: domain 0x102 has 16 bytes at 0xffffffffc0003ff8\n");
	EXPECT_EQ(at(domain, 0x1ff8, 16), "sixteen bytes...");
	EXPECT_EQ(domain.memory.size(), 16u);
	expect_error({"install", "1", "--domain", "0x102", "--at", "0xffffffffc0001ff8", "--value", value.c_str()}, 1,
		     "a place is on no page of the domain that takes values: Bad address");
	expect_error({"install", "1", "--domain", "0x104", "--at", "0", "--value", value.c_str()}, 1,
		     "there is no domain 0x104");
	module.add_domain(1, 3, 0);
	expect_error({"install", "1", "--domain", "0x103", "--at", "0", "--value", value.c_str()}, 1, "no such domain is sealed");
	domain.busy = 2;
	expect_error({"install", "1", "--domain", "0x102", "--at", "0xffffffffc0002000", "--value", value.c_str()}, 1,
		     "a thread is inside, or was interrupted there");
	EXPECT_EQ(run({"install", "1", "--domain", "0x102", "--at", "0xffffffffc0002000", "--value", value.c_str(),
		       "--wait", "10", "--json"}).objects().at(0),
		  json({{"vm_id", 1}, {"domain", "0x102"}, {"installed", true}}));
	module.may_set_policy = false;
	expect_error({"install", "1", "--domain", "0x102", "--at", "0xffffffffc0002000", "--value", value.c_str()}, 1,
		     "needs CAP_SYS_ADMIN");
}

// What a value is read from.
TEST_F(Domains, ValueFiles)
{
	FakeDomain &domain = module.add_domain(1, 2, 1);
	const auto args = [](const std::string &value, std::vector<const char *> more = {}) {
		std::vector<const char *> all{"install", "1", "--domain", "0x102", "--at", "0xffffffffc0002000", "--value",
					      value.c_str()};
		all.insert(all.end(), more.begin(), more.end());
		return all;
	};
	std::string where;

	for (const mode_t mode : {0640, 0604, 0620, 0601}) {
		where = file("open", "value", mode);
		expect_error(args(where), 1, "others than its owner have rights to it");
	}
	EXPECT_TRUE(domain.memory.empty());
	EXPECT_EQ(run(args(where, {"--any-mode"})).status, 0);
	if (geteuid() == 0) {
		where = file("another's", "value");
		ASSERT_EQ(chown(where.c_str(), 12345, 0), 0);
		expect_error(args(where), 1, "belongs to user 12345");
		EXPECT_EQ(run(args(where, {"--any-mode"})).status, 0);
	}
	where = file("none", "");
	expect_error(args(where), 1, "is empty");
	where = file("most", std::string(4096, 'x'));
	EXPECT_EQ(run(args(where)).status, 0);
	where = file("more", std::string(4097, 'x'));
	expect_error(args(where), 1, "has more than 4096 bytes");
	where = "/";
	expect_error(args(where, {"--any-mode"}), 1, "read /: Is a directory");
	where = path("missing");
	expect_error(args(where), 1, "No such file");

	// A descriptor; what comes in pieces, too.
	int ends[2];
	ASSERT_EQ(pipe(ends), 0);
	ASSERT_EQ(write(ends[1], "from a ", 7), 7);
	ASSERT_EQ(write(ends[1], "pipe", 4), 4);
	close(ends[1]);
	where = "fd:" + std::to_string(ends[0]);
	EXPECT_EQ(run(args(where)).status, 0);
	EXPECT_EQ(at(domain, 0, 11), "from a pipe");
	expect_error(args(where), 1, "is empty");
	close(ends[0]);
	expect_error(args(where), 1, "is not an open descriptor");
	where = "fd:x";
	expect_error(args(where), 1, "is not an open descriptor");
	const Fd open(::open(file("by-fd", "by fd", 0644).c_str(), O_RDONLY));
	where = "fd:" + std::to_string(open.get());
	expect_error(args(where), 1, "others than its owner");
}

// Locked while it lives, and so never on a disk.
TEST(Secret, IsLocked)
{
	const auto locked = [] {
		std::ifstream in("/proc/self/status");
		std::string word;

		while (in >> word && word != "VmLck:") {
		}
		long kib = -1;
		in >> kib;
		return kib;
	};
#ifdef __SANITIZE_ADDRESS__
	const long pages = 0; /* its mlock() does nothing */
#else
	const long pages = 8;
#endif
	const long before = locked();
	{
		Secret secret(5000), moved(std::move(secret));

		EXPECT_EQ(locked(), before + pages);
		EXPECT_EQ(moved.size(), 5000u);
	}
	EXPECT_EQ(locked(), before);
}

TEST_F(Domains, SecretInstall)
{
	FakeDomain &domain = module.add_domain(1, 2, 0x22);
	const std::string m = file("m.json", manifest().dump(2), 0644), key = "key=" + file("key", "0123456789abcdef"),
			  salt = "salt=" + file("salt", "xyz"), other = "other=" + file("other", "abc"),
			  small = "key=" + file("small", "0123456789abcde");
	const auto install = [&](std::vector<std::string> values, std::vector<const char *> more = {}) {
		std::vector<const char *> args{"secret", "install", "1", "--manifest", m.c_str()};
		// Not left to die with this function.
		static std::vector<std::string> kept;

		kept = std::move(values);
		for (const std::string &value : kept)
			args.push_back(value.c_str());
		args.insert(args.end(), more.begin(), more.end());
		return args;
	};

	module.add_domain(1, 3, 0x23);
	module.add_domain(1, 4, 0);
	EXPECT_EQ(run(install({key, salt})).out, "vm 1: domain 0x102 (test code) has 2 values in 3 places\n");
	EXPECT_EQ(at(domain, 0x42, 8), "01234567");
	EXPECT_EQ(at(domain, 0x100, 8), "89abcdef");
	EXPECT_EQ(at(domain, 0x1fff, 3), "xyz");
	EXPECT_EQ(domain.memory.size(), 19u) << "and nothing else";
	EXPECT_EQ(domain.info.installs, 1u) << "all in one";
	EXPECT_EQ(run(install({salt, key}, {"--json"})).objects().at(0),
		  json({{"kind", "installed"}, {"vm_id", 1}, {"domain", "0x102"},
			{"measurement", manifest()["measurement"]}, {"values", {"key", "salt"}}, {"places", 3},
			{"name", "test code"}}));

	expect_error(install({key}), 1, "the manifest wants a value for 'salt' (salt=FILE)");
	expect_error(install({key, salt, other}), 1, "no manifest has a placeholder 'other'");
	expect_error(install({small, salt}), 1, "'key' has 15 bytes, the manifest wants 16");
	expect_error(install({key, salt, key}), 1, "'key' is given twice");
	expect_error(install({key, "salt"}), 1, "'salt' is not NAME=FILE");
	expect_error(install({key, "salt="}), 1, "is not NAME=FILE");
	EXPECT_EQ(domain.info.installs, 2u);

	// Which domain it is, the measurement says, and nothing else.
	FakeDomain &twin = module.add_domain(1, 5, 0x22);
	expect_error(install({key, salt}), 1, "several domains were measured so, choose one with --id: 0x102, 0x105");
	EXPECT_EQ(run(install({key, salt}, {"--id", "0x105"})).status, 0);
	EXPECT_EQ(twin.info.installs, 1u);
	expect_error(install({key, salt}, {"--id", "0x103"}), 1, "domain 0x103 was measured as 2323");
	expect_error(install({key, salt}, {"--id", "0x104"}), 1, "domain 0x104 is not sealed");
	expect_error(install({key, salt}, {"--id", "0x109"}), 1, "there is no domain 0x109");
	twin.busy = 2;
	expect_error(install({key, salt}, {"--id", "0x105"}), 1, "a thread is inside");
	EXPECT_EQ(run(install({key, salt}, {"--id", "0x105", "--wait", "9"})).status, 0);
	twin.end = 0x1000;
	expect_error(install({key, salt}, {"--id", "0x105"}), 1, "on no page of the domain that takes values");
	module.vm(1).domains.clear();
	expect_error(install({key, salt}), 1, "no sealed domain was measured as 2222");
}

TEST_F(Domains, BadManifests)
{
	json m = manifest();
	const auto with = [&](const char *field, json value) {
		json changed = m;
		changed["placeholders"][0][field] = std::move(value);
		return changed;
	};

	expect_bad("{", "not JSON");
	expect_bad("[]", "is not an object");
	expect_bad("{} x", "not JSON");
	expect_bad(R"({"redoubt_manifest": 2})", "format 2, this program knows 1");
	expect_bad(R"({"redoubt_manifest": 1, "redoubt_manifest": 1})", "'redoubt_manifest' is there twice");
	for (const char *field : {"redoubt_manifest", "measurement", "placeholders"}) {
		json less = m;
		less.erase(field);
		expect_bad(less, std::string("the manifest has no '") + field + "'");
	}
	for (const char *field : {"name", "offset", "length"}) {
		json less = m;
		less["placeholders"][0].erase(field);
		expect_bad(less, std::string("placeholder 1 has no '") + field + "'");
	}
	expect_bad(with("size", 3), "placeholder 1 has the field 'size', which means nothing");
	json more = m;
	more["comment"] = "";
	expect_bad(more, "the manifest has the field 'comment'");
	m["measurement"] = std::string(63, 'a');
	expect_bad(m, "measurement is not 64 hexadecimal digits");
	m["measurement"] = std::string(63, 'a') + "g";
	expect_bad(m, "measurement is not 64 hexadecimal digits");
	m["measurement"] = 17;
	expect_bad(m, "measurement is not a string");
	m = manifest();
	m["name"] = std::string(65, 'a');
	expect_bad(m, "more than 64 characters");
	m["name"] = "a\nb";
	expect_bad(m, "cannot be shown");
	m = manifest();
	m["placeholders"] = json::array();
	expect_bad(m, "placeholders is not a list of 1 to 512");
	m = manifest();
	expect_bad(with("name", "9"), "'9' is not a name");
	expect_bad(with("name", "a=b"), "'a=b' is not a name");
	expect_bad(with("name", ""), "'' is not a name");
	expect_bad(with("length", 0), "length is not in 1..4096");
	expect_bad(with("length", 4097), "length is not in 1..4096");
	expect_bad(with("length", -8), "length is not in");
	expect_bad(with("length", 8.0), "length is not an integer");
	expect_bad(with("length", "eight"), "length is not a number");
	expect_bad(with("length", 18446744073709551615u), "length is not in");
	expect_bad(with("from", 4089), "from is not in 0..4088");
	expect_bad(with("from", "-1"), "from is not in");
	expect_bad(with("offset", "--1"), "offset is not a number");
	expect_bad(with("offset", "9223372036854775807"), "offset is not in");
	expect_bad(with("offset", "-0x8000000000000000"), "offset is not in");
	expect_bad(with("offset", nullptr), "offset is not an integer");
	// A byte that would be lost, and two for one place.
	expect_bad(with("length", 7), "byte 7 of 'key' goes nowhere");
	expect_bad(with("from", 1), "byte 0 of 'key' goes nowhere");
	expect_bad(with("offset", 0xf9), "two placeholders overlap at offset 256");
	m["placeholders"].push_back({{"name", "big"}, {"offset", "-0x1000"}, {"length", 4096}});
	expect_bad(m, "the values have 4115 bytes, more than 4096");
	expect_error({"secret", "install", "1", "--manifest", path("nowhere").c_str(), "key=/dev/zero"}, 1, "No such file");
	EXPECT_EQ(parse_manifest(manifest().dump(), "").pieces.size(), 3u) << "the one that all of these were made of is right";
}

// One value at several places, places before the gate's page, each byte used twice.
TEST_F(Domains, PlacesAsOneLikes)
{
	FakeDomain &domain = module.add_domain(1, 2, 0x22);
	json m = manifest();

	domain.first = -0x1000;
	m["placeholders"] = {{{"name", "a"}, {"offset", -4096}, {"length", 4}},
			     {{"name", "a"}, {"offset", "-0xffc"}, {"length", 4}},
			     {{"name", "a"}, {"offset", 8}, {"length", 2}, {"from", 1}}};
	const std::string path = file("m", m.dump()), value = "a=" + file("a", "abcd");
	EXPECT_EQ(run({"secret", "install", "1", "--manifest", path.c_str(), value.c_str()}).status, 0);
	EXPECT_EQ(at(domain, -4096, 8), "abcdabcd");
	EXPECT_EQ(at(domain, 8, 2), "bc");
}

TEST_F(Domains, SecretServe)
{
	const std::string m1 = file("m1", manifest().dump()), m2 = file("m2", [] {
		json m = manifest(0x33);
		m.erase("name");
		m["placeholders"] = {{{"name", "pin"}, {"offset", 0}, {"length", 4}}};
		return m.dump();
	}()), key = "key=" + file("key", "0123456789abcdef"), salt = "salt=" + file("salt", "xyz"), pin = "pin=" + file("pin", "1234");
	int round = 0;

	module.add_domain(1, 2, 0x22);		// was sealed before we came
	module.add_domain(1, 3, 0x44);		// nobody's
	module.on_poll = [&] {
		switch (++round) {
		case 1:		// sealed now; a thread is inside at first
			module.add_domain(1, 4, 0x33).busy = 1;
			break;
		case 3:		// a VM attached meanwhile
			module.add_vm(501);
			module.add_domain(2, 2, 0x22);
			break;
		case 4:		// values are not installed again
			module.kill(2);
			break;
		case 6:
			raise(SIGTERM);
		}
	};
	const auto shown = run({"secret", "serve", "--manifest", m1.c_str(), "--manifest", m2.c_str(), key.c_str(),
				salt.c_str(), pin.c_str(), "--json"}).objects();
	ASSERT_EQ(shown.size(), 4u);
	EXPECT_EQ(shown[0], json({{"kind", "installed"}, {"vm_id", 1}, {"domain", "0x102"},
				  {"measurement", manifest()["measurement"]}, {"values", {"key", "salt"}}, {"places", 3},
				  {"name", "test code"}}));
	EXPECT_EQ(shown[1]["domain"], "0x104");
	EXPECT_EQ(shown[1]["values"], json({"pin"}));
	EXPECT_EQ(shown[2]["vm_id"], 2);
	EXPECT_EQ(shown[3], json({{"kind", "end"}, {"reason", "signal"}, {"installs", 3}}));
	EXPECT_EQ(at(module.vm(1).domains[4], 0, 4), "1234");
	EXPECT_EQ(at(module.vm(2).domains[2], 0x42, 8), "01234567");
	EXPECT_TRUE(module.vm(1).domains[3].memory.empty());
	EXPECT_EQ(module.vm(1).domains[2].info.installs, 1u);
}

TEST_F(Domains, SecretServeEnds)
{
	const std::string m = file("m", manifest().dump()), key = "key=" + file("key", "0123456789abcdef"),
			  salt = "salt=" + file("salt", "xyz");
	const auto serve = [&](std::vector<const char *> more) {
		std::vector<const char *> args{"secret", "serve", "--manifest", m.c_str(), key.c_str(), salt.c_str()};
		args.insert(args.end(), more.begin(), more.end());
		return args;
	};

	EXPECT_EQ(run(serve({"--timeout", "0.05"})).out, "end (timeout), 0 installs\n");
	expect_error(serve({"--timeout", "0.05", "--count", "1"}), 1, "secret serve: timeout after 0 of 1 install");
	module.add_vm(501);
	module.add_domain(2, 2, 0x22);
	expect_error(serve({"--vm", "1", "--timeout", "0.05", "--count", "1"}), 1, "timeout");
	EXPECT_EQ(module.vm(2).domains[2].info.installs, 0u) << "in this VM only";
	EXPECT_EQ(run(serve({"--vm", "2", "--count", "1"})).out,
		  "vm 2: domain 0x102 (test code) has 2 values in 3 places\nend (count), 1 install\n");
	// One that does not take them is told of once; the others are served.
	module.add_domain(1, 2, 0x22).end = 0x1000;
	module.add_domain(1, 3, 0x22);
	int round = 0;
	module.on_poll = [&] {
		if (++round == 3)
			module.kill(1);
	};
	const Result result = run(serve({"--vm", "1"}));
	ASSERT_EQ(result.lines().size(), 3u) << result.out;
	EXPECT_TRUE(has(result.lines()[0], "vm 1: domain 0x102: install: a place is on no page")) << result.out;
	EXPECT_TRUE(has(result.lines()[1], "vm 1: domain 0x103 (test code) has 2 values"));
	EXPECT_EQ(result.lines()[2], "end (gone), 1 install");
	// One measurement, two manifests: which would it be?
	const std::string twin = file("twin", manifest().dump());
	expect_error(serve({"--manifest", twin.c_str()}), 1, "another manifest has the same measurement");
	module.may_set_policy = false;
	module.add_domain(2, 3, 0x22);
	expect_error(serve({"--vm", "2"}), 1, "needs CAP_SYS_ADMIN");
}

TEST_F(Domains, ExportAndImport)
{
	const std::string key = file("key", "a key of the operator's, 32 byte"), wrong = file("wrong", std::string(32, 'x')),
			  small = file("small", std::string(31, 'x')), to = path("blob");
	FakeDomain &from = module.add_domain(1, 2, 0x22, RDT_DOM_EXPORTABLE);

	from.memory[7] = 0x77;
	expect_error({"domain", "export", "1", "0x102", "--key", key.c_str()}, 1, "the VM's quota does not allow it");
	EXPECT_EQ(run({"quota", "1", "--export", "on"}).status, 0);
	expect_error({"domain", "export", "1", "0x102", "--key", small.c_str()}, 1, "a key has 32 bytes, this has 31");
	expect_error({"domain", "export", "1", "0x103", "--key", key.c_str()}, 1, "there is no domain 0x103");
	from.busy = 2;
	expect_error({"domain", "export", "1", "0x102", "--key", key.c_str()}, 1, "a thread is inside");
	from.busy = 0;
	const std::string blob = run({"domain", "export", "1", "0x102", "--key", key.c_str()}).out;
	EXPECT_EQ(blob.size(), sizeof(rdt_domain_blob) + 4096 + RDT_DOM_BLOB_TAG);
	EXPECT_EQ(blob.substr(0, 8), "RDTDOMB1");
	EXPECT_EQ(run({"domain", "export", "1", "0x102", "--key", key.c_str(), "--output", to.c_str(), "--json"}).objects().at(0),
		  json({{"vm_id", 1}, {"domain", "0x102"}, {"exported", true}}));
	EXPECT_EQ(read(to), blob);
	struct stat st;
	ASSERT_EQ(stat(to.c_str(), &st), 0);
	EXPECT_EQ(st.st_mode & 07777, 0600u);
	expect_error({"domain", "export", "1", "0x102", "--key", key.c_str(), "--output", to.c_str()}, 1, "File exists");

	module.add_vm(501);
	const auto import = [&](std::vector<const char *> more) {
		std::vector<const char *> args{"domain", "import", "2"};
		args.insert(args.end(), more.begin(), more.end());
		return args;
	};
	expect_error(import({"--key", key.c_str(), "--input", to.c_str()}), 1, "no sealed domain was measured as 2222");
	FakeDomain &there = module.add_domain(2, 5, 0x22, RDT_DOM_EXPORTABLE);
	module.add_domain(2, 6, 0x23, RDT_DOM_EXPORTABLE);
	expect_error(import({"--key", wrong.c_str(), "--input", to.c_str()}), 1, "another key, or the blob was changed: Bad message");
	expect_error(import({"--id", "0x106", "--key", key.c_str(), "--input", to.c_str()}), 1, "was measured as 2323");
	for (size_t n : {size_t{0}, size_t{20}, blob.size() - 1}) {
		const std::string cut = file("cut", blob.substr(0, n));
		expect_error(import({"--key", key.c_str(), "--input", cut.c_str()}), 1, "no blob of a domain, or not whole");
	}
	const std::string other = file("other", "X" + blob.substr(1));
	expect_error(import({"--key", key.c_str(), "--input", other.c_str()}), 1, "no blob of a domain");
	EXPECT_TRUE(there.memory.empty());
	EXPECT_EQ(run(import({"--key", key.c_str(), "--input", to.c_str()})).out,
		  "vm 2: domain 0x105 has what was exported: 1 page\n");
	EXPECT_EQ(there.memory[7], 0x77);
	there.info.enters = 1;
	expect_error(import({"--key", key.c_str(), "--input", to.c_str()}), 1, "a thread is or has been inside");
	module.may_set_policy = false;
	expect_error(import({"--key", key.c_str(), "--input", to.c_str()}), 1, "needs CAP_SYS_ADMIN");
}

TEST_F(Domains, Events)
{
	rdt_event event{};

	event.type = RDT_EV_DOMAIN;
	event.code = RDT_DOM_EV_SEALED;
	event.domain = 4;
	event.range_pages = 11;
	event.flags = RDT_EVF_HOST;
	module.raise(1, event);
	event.type = RDT_EV_DOMAIN_ACCESS;
	event.code = 2;
	event.action = RDT_ACT_DENY;
	event.cls = RDT_CLS_DOMAIN;
	event.gpa = 0x5008;
	event.range_pages = 0;
	event.flags = 0;
	event.rip = 0x1000;
	module.raise(1, event);
	event.type = RDT_EV_DOMAIN;
	event.code = RDT_DOM_EV_CALLER;
	event.gpa = 0;
	event.domain = 0;
	module.raise(1, event);
	EXPECT_EQ(run({"watch", "1", "--since", "0", "--count", "3"}).lines(),
		  (std::vector<std::string>{
			  "    0.000000s vm 1 #1 domain sealed domain of view 4 11 pages [host]",
			  "    0.000000s vm 1 #2 domain_access deny write domain of view 4 gpa 0x5008 by vcpu 0 cpl 0 view 0 "
			  "rip 0x1000 cr3 0x0",
			  "    0.000000s vm 1 #3 domain deny caller by vcpu 0 cpl 0 view 0 rip 0x1000 cr3 0x0",
			  "vm 1: end (count), 3 events shown, 0 lost"}));
	const auto shown = run({"watch", "1", "--since", "0", "--count", "3", "--json"}).objects();
	EXPECT_EQ(shown[0]["code_name"], "sealed");
	EXPECT_EQ(shown[0]["domain"], 4);
	EXPECT_EQ(shown[1]["code_name"], "write");
	EXPECT_EQ(shown[1]["domain"], 4);
	EXPECT_EQ(shown[2]["code_name"], "caller");
	EXPECT_FALSE(shown[2].contains("domain"));
}

} // namespace redoubt::client
