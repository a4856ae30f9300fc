// SPDX-License-Identifier: GPL-2.0
//
// E6: redoubtctl device, against a sysfs made of files. Nobody binds there: what the kernel does by itself the test does.

#include <filesystem>
#include <fstream>

#include <stdlib.h>

#include "ctl_world.h"

namespace redoubt::client {

namespace {

namespace fs = std::filesystem;

class CtlDevice : public Ctl {
protected:
	CtlDevice()
	{
		std::string name = (fs::temp_directory_path() / "redoubt-sysfs-XXXXXX").string();

		module.sysfs_root = mkdtemp(name.data());
		for (const char *driver : {"nvme", "redoubt_vfio_pci"})
			fs::create_directories(bus() / "drivers" / driver);
	}
	~CtlDevice() override { fs::remove_all(module.sysfs_root); }

	fs::path bus() const { return fs::path(module.sysfs_root) / "bus/pci"; }
	fs::path dir(const std::string &bdf) const { return bus() / "devices" / bdf; }
	static void write(const fs::path &path, const std::string &text) { std::ofstream(path) << text; }
	static std::string read(const fs::path &path)
	{
		std::ifstream in(path);

		return {std::istreambuf_iterator<char>(in), {}};
	}
	void add(const std::string &bdf, const std::string &cls, const std::string &driver)
	{
		fs::create_directories(dir(bdf));
		write(dir(bdf) / "class", cls + "\n");
		write(dir(bdf) / "driver_override", "(null)\n");
		if (!driver.empty())
			fs::create_directory_symlink(bus() / "drivers" / driver, dir(bdf) / "driver");
	}
	void add_ours(const std::string &bdf, const std::string &migratable, const std::string &status)
	{
		add(bdf, "0x010802", "redoubt_vfio_pci");
		fs::create_directories(dir(bdf) / "redoubt");
		write(dir(bdf) / "redoubt/migratable", migratable + "\n");
		write(dir(bdf) / "redoubt/direct", "1\n");
		write(dir(bdf) / "redoubt/status", status);
		write(dir(bdf) / "redoubt/migration", "outcome none\n");
	}
	Result run(std::vector<const char *> args)
	{
		args.insert(args.begin(), "device");
		return Ctl::run(std::move(args));
	}

	const std::string busy = "model nvme\nstate 6\ncommands 7\ndoorbells 9\nemulated_doorbells 4\nbounced 3\nrefused 0\n"
				 "inflight 2\nqueues 5\nblocker none\n";
};

} // namespace

TEST_F(CtlDevice, E6_list_says_why_a_device_cannot_migrate)
{
	add("0000:00:01.0", "0x020000", "nvme");	// of no interest
	add("0000:00:02.0", "0x010802", "nvme");
	add_ours("0000:00:03.0", "1", busy);
	add_ours("0000:00:04.0", "0", "model none\n");
	add_ours("0000:00:05.0", "1", "model nvme\nstate 2\nblocker the controller has failed\n");
	add_ours("0000:00:06.0", "1", "model none\n");
	const Result r = run({"list"});
	const auto lines = r.lines();

	ASSERT_EQ(r.status, 0) << r.err;
	ASSERT_EQ(lines.size(), 5u);
	EXPECT_TRUE(has(lines[0], "cannot migrate: not bound to redoubt_vfio_pci")) << lines[0];
	EXPECT_EQ(lines[1], "0000:00:03.0  redoubt_vfio_pci  can migrate, pre-copy");
	EXPECT_TRUE(has(lines[2], "not made migratable")) << lines[2];
	EXPECT_TRUE(has(lines[3], "the controller has failed")) << lines[3];
	EXPECT_TRUE(has(lines[4], "no VM has it")) << lines[4];

	const auto all = run({"list", "--json"}).objects();
	ASSERT_EQ(all.size(), 5u);
	EXPECT_EQ(all[1]["can_migrate"], true);
	EXPECT_EQ(all[1]["state"], "pre-copy");
	EXPECT_EQ(all[1]["bounced"], 3);
	EXPECT_EQ(all[1].count("why_not"), 0u);
	EXPECT_EQ(all[3]["why_not"], "the controller has failed");
}

TEST_F(CtlDevice, E6_status_of_one)
{
	add_ours("0000:00:03.0", "1", busy);
	const Result r = run({"status", "00:03.0"});

	EXPECT_EQ(r.status, 0) << r.err;
	EXPECT_TRUE(has(r.out, "commands 7\n") && has(r.out, "direct on") && has(r.out, "  emulated_doorbells 4\n")) << r.out;
	for (const char *bad : {"0000:00:03.8", "3.0", "../../x", "0000:00:03.0/..", ""})
		EXPECT_EQ(run({"status", bad}).status, 1) << bad;
	EXPECT_TRUE(has(run({"status", "0000:00:09.0"}).err, "there is no PCI device"));
}

TEST_F(CtlDevice, E6_status_has_the_figures_of_the_last_migration)
{
	const std::string source =
		"role source\nerrno 95\nbegan_ms_ago 61250\nended_ms_ago 1999\narmed_ms 3120\narm_commands 5\narm_us 1234\n"
		"pages 777\nlog_reads 1\nlog_pages 345\nstop_commands 1\nstop_us 99\nstopped_us 45678\nbytes 9120\nbytes_done 4096\n";
	const auto figures = [&](const std::string &outcome, const std::string &rest) {
		write(dir("0000:00:03.0") / "redoubt/migration", "outcome " + outcome + "\n" + rest);
	};
	const auto status = [&] { return run({"status", "0000:00:03.0"}).out; };
	const auto as_json = [&] { return run({"status", "0000:00:03.0", "--json"}).objects().at(0); };

	add_ours("0000:00:03.0", "1", busy);
	EXPECT_FALSE(has(status(), "migration")) << "there was none";
	EXPECT_EQ(as_json().count("migration"), 0u);

	figures("running", source);
	EXPECT_TRUE(has(status(), "can migrate, pre-copy")) << "how far it is";
	EXPECT_TRUE(has(status(), "\n  migration from this device: runs for 61.2 s\n"
				  "    armed for 3.1 s, 777 pages written; log read 1 time, 345 pages\n"
				  "    drained when armed 5 commands in 1234 us, when stopped 1 command in 99 us\n"
				  "    stopped for 45678 us, state 4096 of 9120 bytes\n"))
		<< status();
	EXPECT_EQ(as_json()["migration"]["outcome"], "running");
	EXPECT_EQ(as_json()["migration"].count("ended_ms_ago"), 0u);

	for (const char *outcome : {"completed", "cancelled", "abandoned"}) {
		figures(outcome, source);
		EXPECT_TRUE(has(status(), std::string("from this device: ") + outcome + " 1.9 s ago\n")) << status();
		EXPECT_EQ(as_json()["migration"].count("error"), 0u);
	}
	// The VMM has gone; what it has done has not.
	write(dir("0000:00:03.0") / "redoubt/status", "model none\n");
	EXPECT_EQ(as_json()["migration"]["pages"], 777);
	EXPECT_EQ(as_json()["migration"]["role"], "source");
	EXPECT_EQ(as_json()["can_migrate"], false);

	figures("failed", source);
	EXPECT_TRUE(has(status(), "failed 1.9 s ago: Operation not supported\n")) << status();
	EXPECT_EQ(as_json()["migration"]["error"], "Operation not supported");

	figures("resumed", "role destination\nerrno 0\nbegan_ms_ago 900\nended_ms_ago 50\nload_us 3456\nstopped_us 7890\nbytes 9120\nbytes_done 9120\n");
	EXPECT_TRUE(has(status(), "  migration to this device: resumed 0.0 s ago\n"
				  "    stopped for 7890 us, state 9120 of 9120 bytes, loaded in 3456 us\n"))
		<< status();
	EXPECT_EQ(as_json()["migration"]["load_us"], 3456);

	// A driver that does not tell
	fs::remove(dir("0000:00:03.0") / "redoubt/migration");
	EXPECT_EQ(as_json().count("migration"), 0u);
}

TEST_F(CtlDevice, E6_bind_overrides_unbinds_and_probes)
{
	add("0000:00:02.0", "0x010802", "nvme");
	// The kernel does nothing here: so it must say that the driver has not taken it.
	const Result r = run({"bind", "0000:00:02.0"});

	EXPECT_EQ(r.status, 1);
	EXPECT_TRUE(has(r.err, "does not take 0000:00:02.0")) << r.err;
	EXPECT_EQ(read(dir("0000:00:02.0") / "driver_override"), "redoubt_vfio_pci");
	EXPECT_EQ(read(bus() / "drivers/nvme/unbind"), "0000:00:02.0");
	EXPECT_EQ(read(bus() / "drivers_probe"), "0000:00:02.0");

	fs::remove(dir("0000:00:02.0") / "driver");
	fs::create_directory_symlink(bus() / "drivers/redoubt_vfio_pci", dir("0000:00:02.0") / "driver");
	EXPECT_EQ(run({"bind", "0000:00:02.0"}).status, 0);
	EXPECT_EQ(run({"unbind", "0000:00:02.0"}).status, 0);
	EXPECT_EQ(read(dir("0000:00:02.0") / "driver_override"), "\n");
	fs::remove_all(bus() / "drivers/redoubt_vfio_pci");
	fs::remove(dir("0000:00:02.0") / "driver");
	EXPECT_EQ(run({"bind", "0000:00:02.0"}).status, 3) << "the module is not loaded";
}

TEST_F(CtlDevice, E6_migratable)
{
	add("0000:00:02.0", "0x010802", "nvme");
	add_ours("0000:00:03.0", "0", "model none\n");
	EXPECT_TRUE(has(run({"migratable", "0000:00:02.0", "on"}).err, "device bind 0000:00:02.0"));
	EXPECT_EQ(run({"migratable", "0000:00:03.0", "maybe"}).status, 2);
	EXPECT_EQ(run({"migratable", "0000:00:03.0", "on", "--direct", "off"}).status, 0);
	EXPECT_EQ(read(dir("0000:00:03.0") / "redoubt/migratable"), "1");
	EXPECT_EQ(read(dir("0000:00:03.0") / "redoubt/direct"), "0");
}

} // namespace redoubt::client
