// SPDX-License-Identifier: GPL-2.0
//
// F2: likewise of several vCPUs: each has its own, and a device's message goes to the one that is meant.

#include "test_qemu.h"

namespace redoubt::agent {

namespace {

// Six places for CPUs, four CPUs, APICs 0, 1, 2 and 4
constexpr char four[] = "-smp 4,maxcpus=6,sockets=2,cores=3";
constexpr uint32_t apics[] = {0, 1, 2, 4};

TEST_F(Stream, F2EachVcpuHasItsOwn)
{
	Loop loop;
	Directory dir;
	std::vector<uint8_t> before, after;
	{
		Qemu qemu(loop, dir, "a", false, four);
		ASSERT_TRUE(qemu.is(VmmState::running));
		before = qemu.state();
	}
	QStream stream(before);
	EXPECT_EQ(stream.get("apic", 4).get("apicbase") >> 8 & 1, 0u) << "not the first CPU";
	EXPECT_TRUE(has(error_of([&] { (void)stream.get("cpu", 4); }), "no section cpu")) << "which QEMU counts without holes";

	// Asked one after the other, a million of the host's ticks between; the last one is ahead by an offset of its own.
	std::vector<Made> made(4);
	std::vector<KvmItems> vcpus;
	for (size_t i = 0; i < 4; i++) {
		made[i].tsc_offset = i == 3 ? -5'000'000'000 + 77 : -5'000'000'000;
		made[i].tsc = 9'000'000'000 + i * 1'000'000 + made[i].tsc_offset;
		vcpus.push_back(made[i].vcpu(apics[i]));
	}
	put_vcpus(stream, vcpus);
	EXPECT_NE(contradiction(QStream(before).differences(stream)), "");
	QStream later = stream;
	later.get("cpu", 2).set("env.tsc", 7);
	later.get("apic", 4).set("irr#3", 7);
	EXPECT_EQ(stream.differences(later), (std::vector<std::string>{"cpu#2 env.tsc", "apic#4 irr#3"}));
	EXPECT_EQ(contradiction(stream.differences(later)), "") << "time goes on";
	later.get("cpu_common", 3).set("halted", 1);
	EXPECT_EQ(contradiction(stream.differences(later)), "cpu_common#3 halted");
	put_message(stream, 0xfee04000, 0x4061);
	std::ifstream ram(dir / "a.ram", std::ios::binary);
	write_file(dir / "b.ram", std::string(std::istreambuf_iterator<char>(ram), {}));
	Qemu qemu(loop, dir, "b", true, four);
	ASSERT_TRUE(qemu.is(VmmState::waiting));
	ASSERT_EQ(qemu.load(stream.bytes()), "");
	ASSERT_TRUE(qemu.is(VmmState::stopped));
	after = qemu.state();
	QStream out(after);
	for (uint32_t i = 0; i < 4; i++) {
		const QSection &cpu = out.get("cpu", i), &apic = out.get("apic", apics[i]);

		EXPECT_EQ(cpu.get("env.eip"), made[i].regs.rip) << i;
		EXPECT_EQ(cpu.get("env.regs#3"), made[i].regs.rbx) << i;
		EXPECT_EQ(cpu.get("env.gdt.base"), made[i].sregs.gdt.base) << i;
		EXPECT_EQ(cpu.get("env.tsc"), 4'003'000'000u + (i == 3 ? 77 : 0)) << i;
		EXPECT_EQ(apic.get("id"), apics[i]) << i;
		EXPECT_EQ(apic.get("irr#3"), (0x01000000u >> 3) + apics[i] + (i == 3 ? 2 : 0)) << i << ": 0x61 was fired at APIC 4";
		EXPECT_EQ(apic.get("log_dest"), 1u << apics[i]) << i;
	}
}

TEST_F(Stream, F3AnotherVcpusIsNotTaken)
{
	Loop loop;
	Directory dir;
	Qemu qemu(loop, dir, "a", false, four);
	ASSERT_TRUE(qemu.is(VmmState::running));
	const std::vector<uint8_t> state = qemu.state();
	const auto refused = [&](std::vector<uint32_t> ids, const std::function<void(KvmItems &)> &change = {}) {
		QStream stream(state);
		std::vector<KvmItems> vcpus;

		for (const uint32_t id : ids)
			vcpus.push_back(Made().vcpu(id));
		if (change)
			change(vcpus.back());
		return error_of([&] { put_vcpus(stream, vcpus); });
	};

	EXPECT_EQ(refused({0, 1, 2, 4}), "");
	EXPECT_TRUE(has(refused({0, 1, 2}), "unplugged"));
	EXPECT_TRUE(has(refused({0, 1, 2, 4, 5}), "unplugged"));
	EXPECT_TRUE(has(refused({0, 2, 1, 4}), "vCPU 1 has APIC 2"));
	EXPECT_TRUE(has(refused({0, 1, 2, 3}), "vCPU 3 has APIC 3"));
	EXPECT_TRUE(has(refused({0, 1, 2, 4}, [](KvmItems &i) { i.data["CPUID2"].clear(); }), "does not tell a vCPU's APIC"));
	EXPECT_TRUE(has(refused({0, 1, 2, 4}, [](KvmItems &i) { i.data.erase("TSC_OFFSET"); i.errors["TSC_OFFSET"] = ENXIO; }), "does not give TSC_OFFSET"));

	// Who a message is for
	const auto sent = [&](uint64_t address, uint32_t data, const std::function<void(QStream &)> &change = {}) {
		QStream stream(state);
		std::vector<KvmItems> vcpus;
		uint32_t got = 0;

		for (const uint32_t id : apics)
			vcpus.push_back(Made().vcpu(id));
		put_vcpus(stream, vcpus);
		if (change)
			change(stream);
		QStream after = stream;
		put_message(after, address, data);
		for (const uint32_t id : apics)
			got |= after.get("apic", id).get("irr#2") != stream.get("apic", id).get("irr#2") ? 1u << id : 0;
		return got;
	};
	const auto x2apic = [](QStream &stream) {
		for (QSection *apic : stream.all("apic"))
			apic->set("apicbase", apic->get("apicbase") | 0x400);
	};
	const auto off = [](QStream &stream) { stream.get("apic", 2).set("spurious_vec", 0xff); };
	const auto clusters = [](QStream &stream) {
		for (QSection *apic : stream.all("apic")) {
			apic->set("dest_mode", 0);
			apic->set("log_dest", (apic->instance / 4) << 4 | 1u << apic->instance % 4);
		}
	};
	EXPECT_EQ(sent(0xfee02000, 0x45), 1u << 2);
	EXPECT_EQ(sent(0xfee04000, 0x45), 1u << 4);
	EXPECT_EQ(sent(0xfeeff000, 0x45), 0x17u) << "all";
	EXPECT_EQ(sent(0xfee06004, 0x45), 1u << 1 | 1u << 2) << "by logical names";
	EXPECT_EQ(sent(0xfee06004, 0x145), 1u << 1) << "one of them";
	EXPECT_EQ(sent(0xfee11004, 0x45, clusters), 1u << 4);
	EXPECT_EQ(sent(0xfee04000, 0x45, x2apic), 1u << 4);
	EXPECT_EQ(sent(0xfee14004, 0x45, x2apic), 1u << 2 | 1u << 4);
	EXPECT_EQ(sent(0xfee02000, 0x45, off), 0u) << "a CPU that is offline takes none";
	EXPECT_EQ(sent(0xfeeff000, 0x45, off), 0x13u);
	QStream stream(state);
	EXPECT_TRUE(has(error_of([&] { put_message(stream, 0xfee03000, 0x45); }), "for no vCPU"));
	EXPECT_TRUE(has(error_of([&] { put_message(stream, 0xfee00020, 0x45); }), "not known here")) << "beyond 255";
}

} // namespace

} // namespace redoubt::agent
