// SPDX-License-Identifier: GPL-2.0
//
// F2: what cannot be carried is refused by its name. The facts are those of a QEMU 10.

#include "check.h"
#include "testing.h"

namespace redoubt::agent {

namespace {

class Check : public testing::Test {
protected:
	Check()
	{
		vm.uuid = {0x6f, 0x1c};
		vm.ram = "/dev/shm/db.ram";
		file = {.bytes = 32 << 20, .same = true, .native_aio = false};
		facts["query-uuid"] = {{"UUID", to_string(vm.uuid)}};
		facts["query-migrate"] = Json::object();
		facts["query-memdev"] = {{{"id", "ram"}, {"share", true}, {"size", 32 << 20}}};
		facts["query-memory-size-summary"] = {{"base-memory", 32 << 20}, {"plugged-memory", 0}};
		facts["query-pci"] = {{{"bus", 0}, {"devices", {{{"class_info", {{"class", 0x100}}}}}}}};
		facts["query-named-block-nodes"] = {{{"drv", "file"}, {"file", "/disk"}, {"ro", false}, {"cache", {{"direct", true}, {"no-flush", false}}}}};
		facts["qom-get /machine memory-backend"] = "/objects/ram";
		facts["type of /objects/ram"] = "memory-backend-file";
		facts["qom-list /objects"] = {{{"name", "ram"}, {"type", "child<memory-backend-file>"}}};
		facts["qom-list /machine/peripheral"] = Json::array();
		facts["qom-list /machine/peripheral-anon"] = {{{"name", "type"}, {"type", "string"}}, {{"name", "device[0]"}, {"type", "child<virtio-blk-pci>"}}};
		facts["qom-list /machine/unattached"] = {{{"name", "device[0]"}, {"type", "child<host-x86_64-cpu>"}}};
	}
	// One line an obstacle
	std::string obstacles() const
	{
		std::string out;

		for (const Obstacle &o : find_obstacles(facts, file, vm))
			out += (o.death_only ? "death: " : "") + o.what + ": " + o.why + "\n";
		return out;
	}
	void add_device(const std::string &type)
	{
		facts["qom-list /machine/peripheral"].push_back({{"name", "dev0"}, {"type", "child<" + type + ">"}});
	}

	Facts facts;
	FileFacts file;
	VmConfig vm;
};

} // namespace

TEST_F(Check, F2_a_VM_that_can_be_carried)
{
	EXPECT_EQ(obstacles(), "");
}

TEST_F(Check, F2_what_was_not_answered_is_no_yes)
{
	for (const char *name : {"query-uuid", "query-migrate", "query-memdev", "query-memory-size-summary", "query-pci",
				 "query-named-block-nodes", "qom-get /machine memory-backend", "type of /objects/ram", "qom-list /machine/peripheral",
				 "qom-list /machine/peripheral-anon", "qom-list /machine/unattached", "qom-list /objects"}) {
		const Json was = facts[name];

		facts.erase(name);
		EXPECT_NE(obstacles(), "") << name;
		facts[name] = was;
	}
	EXPECT_EQ(obstacles(), "");
}

TEST_F(Check, F2_devices_by_name)
{
	for (const char *type : {"vfio-pci", "vhost-user-blk-pci", "vhost-user-fs-pci", "VGA", "qxl-vga", "virtio-vga", "pc-dimm", "virtio-mem-pci",
				 "ivshmem-plain", "virtio-9p-pci", "virtio-gpu-pci"}) {
		facts["qom-list /machine/peripheral"] = Json::array();
		add_device(type);
		EXPECT_TRUE(obstacles().starts_with(std::string(type) + " dev0: ")) << type << ": " << obstacles();
	}
	for (const char *type : {"isa-serial", "hpet", "vhost-vsock-pci", "virtio-scsi-pci", "nvme", "e1000e"}) {
		facts["qom-list /machine/peripheral"] = Json::array();
		add_device(type);
		EXPECT_TRUE(obstacles().starts_with("death: " + std::string(type) + " dev0: ")) << obstacles();
	}
	facts["qom-list /machine/peripheral"] = Json::array();
	facts["query-pci"][0]["devices"].push_back({{"class_info", {{"class", 0x300}}}});
	EXPECT_TRUE(has(obstacles(), "a display")) << obstacles();
}

TEST_F(Check, F2_memory_that_is_not_the_RAM_file)
{
	const Facts all = facts;
	const auto with = [&](const char *name, const Json &value) {
		facts = all;
		facts[name] = value;
		return obstacles();
	};

	EXPECT_TRUE(has(with("query-memdev", Json::array()), "must be one -object memory-backend-file"));
	EXPECT_TRUE(has(with("query-memdev", {{{"id", "ram"}, {"share", false}, {"size", 32 << 20}}}), "share=on"));
	EXPECT_TRUE(has(with("query-memdev", {{{"id", "ram"}, {"share", true}, {"size", 16 << 20}}}), "another size"));
	EXPECT_TRUE(has(with("type of /objects/ram", "memory-backend-memfd"), "must be a memory-backend-file"));
	EXPECT_TRUE(has(with("qom-get /machine memory-backend", ""), "is not the machine's memory"));
	EXPECT_TRUE(has(with("query-memory-size-summary", {{"base-memory", 64 << 20}, {"plugged-memory", 0}}), "there is more of it"));
	EXPECT_TRUE(has(with("query-memory-size-summary", {{"base-memory", 32 << 20}, {"plugged-memory", 4096}}), "there is more of it"));
	facts = all;
	file.same = false;
	EXPECT_TRUE(has(obstacles(), "its mem-path is not the RAM file"));
}

TEST_F(Check, F2_disks_and_what_QEMU_says)
{
	const Facts all = facts;

	facts["query-named-block-nodes"][0]["cache"]["direct"] = false;
	EXPECT_TRUE(has(obstacles(), "disk /disk: goes through this host's page cache"));
	facts["query-named-block-nodes"][0]["ro"] = true;
	EXPECT_EQ(obstacles(), "") << "what is only read is the same on both";
	facts = all;
	facts["query-migrate"] = {{"blocked-reasons", {"a device of no migration"}}};
	EXPECT_EQ(obstacles(), "QEMU: a device of no migration\n");
	facts = all;
	facts["query-uuid"] = {{"UUID", "00000000-0000-0000-0000-000000000001"}};
	EXPECT_TRUE(has(obstacles(), "-uuid"));
	facts = all;
	file.native_aio = true;
	EXPECT_TRUE(has(obstacles(), "death: aio=native")) << obstacles();
	facts["query-sev"] = {{"enabled", true}};
	EXPECT_TRUE(has(obstacles(), "confidential-guest-support"));
}

} // namespace redoubt::agent
