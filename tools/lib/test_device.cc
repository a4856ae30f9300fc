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
	}
	Result run(std::vector<const char *> args)
	{
		args.insert(args.begin(), "device");
		return Ctl::run(std::move(args));
	}

	const std::string busy = "model nvme\nstate 6\ncommands 7\ndoorbells 9\nbounced 3\nrefused 0\ninflight 2\nqueues 5\nblocker none\n";
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
	EXPECT_TRUE(has(r.out, "commands 7\n") && has(r.out, "direct on")) << r.out;
	for (const char *bad : {"0000:00:03.8", "3.0", "../../x", "0000:00:03.0/..", ""})
		EXPECT_EQ(run({"status", bad}).status, 1) << bad;
	EXPECT_TRUE(has(run({"status", "0000:00:09.0"}).err, "there is no PCI device"));
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
