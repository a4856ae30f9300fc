// SPDX-License-Identifier: GPL-2.0
//
// F2: a device state of a real QEMU (TCG, made here), read, changed, written, and loaded by another one. What KVM
// would have said is made up, and must come out of that QEMU again.

#include <optional>
#include <random>

#include "test_qemu.h"
#include "virtioblob.h"

namespace redoubt::agent {

namespace {

TEST_F(Stream, F2ComesOutAsItWas)
{
	QStream stream(bytes);

	EXPECT_EQ(stream.bytes(), bytes);
	EXPECT_EQ(stream.get("cpu").get("env.segs#1.selector"), 0xf000u) << "a BIOS";
	EXPECT_TRUE(stream.get("i8259", 1).has("imr"));
	EXPECT_TRUE(has(error_of([&] { (void)stream.get("cpu", 1); }), "no section cpu"));
	EXPECT_TRUE(has(error_of([&] { (void)stream.get("cpu").get("env.eipp"); }), "no env.eipp"));
	EXPECT_TRUE(has(error_of([&] { stream.get("ioapic").set("id", 256); }), "so many bits"));
	EXPECT_TRUE(has(error_of([&] { (void)stream.get("virtio").name; }), "no section"));
	QStream other(bytes);
	QSection &cpu = other.get("cpu");
	EXPECT_TRUE(stream.get("cpu").differences(cpu).empty());
	cpu.set("env.segs#3.base", 1);
	cpu.add("cpu/xss", 1, "env.xss", std::vector<uint8_t>(8, 1));
	EXPECT_EQ(stream.get("cpu").differences(cpu), (std::vector<std::string>{"cpu cpu/xss/env.xss", "cpu env.segs#3.base"}));
}

TEST_F(Stream, F2AnotherQemuHasWhatKvmHasSaid)
{
	Loop loop;
	Directory dir;
	Made made;
	QStream stream(bytes);
	kvm_irqchip pic{}, ioapic{};
	KvmItems machine;

	put_vcpu(stream, 0, made.vcpu());
	pic.chip.pic.imr = 0xfb;
	ioapic.chip.ioapic.redirtbl[4].bits = 0x10931;
	machine.data["IRQCHIP0"] = machine.data["IRQCHIP1"] = bytes_of(pic);
	machine.data["IRQCHIP2"] = bytes_of(ioapic);
	machine.data["PIT2"] = bytes_of(kvm_pit_state2{});
	put_machine(stream, machine);
	put_message(stream, 0xfee00000, 0x4041);
	const uint64_t before = stream.get("timer").get("cpu_clock_offset");
	put_time(stream, 5'000'000'000);

	write_file(dir / "b.ram", memory);
	Qemu qemu(loop, dir, "b", true);
	ASSERT_TRUE(qemu.is(VmmState::waiting));
	ASSERT_EQ(qemu.load(stream.bytes()), "");
	ASSERT_TRUE(qemu.is(VmmState::stopped));
	const std::vector<uint8_t> again = qemu.state();
	QStream out(again);
	// All of it: QEMU writes what it was told. (Its translator has its own idea of the APIC's timer and of unused FPU parts.)
	QSection &cpu = out.get("cpu"), &apic = out.get("apic");
	EXPECT_EQ(cpu.get("env.regs#0"), made.regs.rax);
	EXPECT_EQ(cpu.get("env.regs#1"), made.regs.rcx);
	EXPECT_EQ(cpu.get("env.regs#4"), made.regs.rsp);
	EXPECT_EQ(cpu.get("env.regs#15"), made.regs.r15);
	EXPECT_EQ(cpu.get("env.eip"), made.regs.rip);
	for (const char *field : {"env.eflags", "env.segs#0.selector", "env.segs#1.base", "env.segs#2.flags", "env.segs#5.limit", "env.tr.base",
				  "env.gdt.base", "env.idt.limit", "env.cr[0]", "env.cr[2]", "env.cr[3]", "env.cr[4]", "env.efer", "env.lstar",
				  "env.hflags", "env.xmm_regs[0]#15._q_ZMMReg[1]", "env.xmm_regs[1]#3._q_ZMMReg[2]", "env.fpuc", "env.mxcsr",
				  "env.interrupt_injected", "env.hflags2", "env.system_time_msr", "env.mtrr_fixed#3", "env.mtrr_var#0.mask", "env.xcr0",
				  "cpu/steal_time_msr/env.steal_time_msr", "cpu/poll_control_msr/env.poll_control_msr"})
		EXPECT_EQ(cpu.get(field), stream.get("cpu").get(field)) << field;
	EXPECT_TRUE(std::ranges::equal(cpu.raw("env.fpregs#5"), stream.get("cpu").raw("env.fpregs#5")));
	uint64_t fpip;
	memcpy(&fpip, &made.xsave[8], sizeof(fpip));
	EXPECT_EQ(cpu.get("cpu/fpop_ip_dp/env.fpip"), fpip);
	EXPECT_EQ(cpu.get("env.lstar"), 0xffffffff81c00000u);
	EXPECT_EQ(cpu.get("cpu/steal_time_msr/env.steal_time_msr"), 0x7e03001u) << "a subsection that was not there";
	EXPECT_EQ(cpu.get("env.segs#1.flags") >> 21 & 1, 1u);
	EXPECT_EQ(apic.get("irr#2"), 0x01000000u >> 2 | 2) << "0x41 was fired";
	EXPECT_EQ(apic.get("irr#3"), 0x01000000u >> 3);
	EXPECT_EQ(out.get("i8259", 1).get("imr"), 0xfbu);
	EXPECT_EQ(out.get("ioapic").get("ioredtbl#4"), 0x10931u);
	EXPECT_EQ(out.get("timer").get("cpu_clock_offset"), before + 5'000'000'000);
}

TEST_F(Stream, F2VirtioQueues)
{
	QStream stream(bytes);
	unsigned seen = 0;

	for (QSection &section : stream.sections()) {
		if (!section.has("virtio"))
			continue;
		VirtioBlob blob(section.raw("virtio"), section.name);
		seen++;
		EXPECT_FALSE(blob.packed());
		EXPECT_FALSE(blob.msix_enabled()) << "SeaBIOS";
		for (unsigned i = 0; i < blob.queues().size(); i++) {
			blob.set_last_avail(i, static_cast<uint16_t>(0x1234 + i));
			EXPECT_FALSE(blob.interrupt(i));
		}
		VirtioBlob once_more(section.raw("virtio"), section.name);
		for (unsigned i = 0; i < once_more.queues().size(); i++)
			EXPECT_EQ(once_more.queues()[i].last_avail, 0x1234 + i);
		// A byte too few, or too many
		std::vector<uint8_t> copy(section.raw("virtio").begin(), section.raw("virtio").end());
		copy.pop_back();
		EXPECT_TRUE(has(error_of([&] { VirtioBlob cut(copy, section.name); }), "not what virtio-pci writes"));
		copy.push_back(0);
		copy.push_back(0);
		EXPECT_TRUE(has(error_of([&] { VirtioBlob more(copy, section.name); }), "not what virtio-pci writes"));
	}
	EXPECT_EQ(seen, 2u);
}

// Where a guest has its interrupt messages, asked of a QEMU that lives
TEST_F(Stream, F2InterruptMessagesWhereTheGuestSeesThem)
{
	Loop loop;
	Directory dir;
	std::map<uint64_t, std::vector<uint8_t>> tables;	// by their addresses
	std::vector<uint8_t> state;
	{
		Qemu qemu(loop, dir, "a", false);
		ASSERT_TRUE(qemu.is(VmmState::running));
		// Until the BIOS has set up PCI
		for (unsigned tries = 0; tries < 100 && tables.size() < 2; tries++) {
			std::string error = "resume";

			run_until(loop, [] { return false; }, milliseconds(300));
			tables.clear();
			state = qemu.state();
			QStream stream(state);
			for (QSection &section : stream.sections()) {
				if (!section.has("virtio"))
					continue;
				VirtioBlob blob(section.raw("virtio"), section.name);
				std::vector<uint8_t> table(blob.msix_table().size());

				for (size_t i = 0; i < table.size(); i++)
					table[i] = i % 16 >= 12 ? i % 16 == 12 : static_cast<uint8_t>(i * 3 + tables.size());
				blob.set_msix_table(table);
				EXPECT_TRUE(has(error_of([&] { blob.set_msix_table(std::vector<uint8_t>(table.size() + 16)); }), "another number"));
				if (error_of([&] { (void)blob.msix_address(); }).empty())
					tables[blob.msix_address()] = table;
			}
			state = stream.bytes();
			qemu.vmm.resume([&](const std::string &e) { error = e; });
			ASSERT_TRUE(run_until(loop, [&] { return error != "resume"; }, patience));
		}
		ASSERT_EQ(tables.size(), 2u);
	}
	std::ifstream ram(dir / "a.ram", std::ios::binary);
	write_file(dir / "b.ram", std::string(std::istreambuf_iterator<char>(ram), {}));
	Qemu qemu(loop, dir, "b", true);
	ASSERT_TRUE(qemu.is(VmmState::waiting));
	ASSERT_EQ(qemu.load(state), "");
	for (const auto &[address, table] : tables) {
		const std::string command = "xp /" + std::to_string(table.size() / 4) + "wx " + std::to_string(address);
		std::optional<std::string> text;

		qemu.vmm.qmp().command("human-monitor-command", {{"command-line", command}}, [&](const QmpReply &reply) {
			text = reply.ok && reply.value.is_string() ? reply.value.get<std::string>() : reply.error;
		});
		ASSERT_TRUE(run_until(loop, [&] { return text.has_value(); }, patience));
		EXPECT_EQ(words_of(*text), table) << *text;
	}
	EXPECT_EQ(words_of("0000: 0x1 0x2\r\n0008: Cannot access memory\r\n").size(), 8u);
	EXPECT_EQ(words_of("unknown command: 'xp'\r\n").size(), 0u);
}

TEST_F(Stream, F3WhatIsNotCarriedIsRefusedByName)
{
	const auto refused = [&](const std::function<void(KvmItems &)> &change) {
		Made made;
		KvmItems items = made.vcpu();
		QStream stream(bytes);

		change(items);
		return error_of([&] { put_vcpu(stream, 0, items); });
	};

	EXPECT_EQ(refused([](KvmItems &) {}), "");
	EXPECT_TRUE(has(refused([](KvmItems &i) { i.data.erase("REGS"); i.errors["REGS"] = EIO; }), "does not give REGS"));
	EXPECT_TRUE(has(refused([](KvmItems &i) { i.data["SREGS"].pop_back(); }), "too short"));
	EXPECT_TRUE(has(refused([](KvmItems &i) { i.data["XSAVE"].resize(600); }), "XSAVE"));
	EXPECT_TRUE(has(refused([](KvmItems &i) { i.data["NESTED_STATE"][0] = KVM_STATE_NESTED_GUEST_MODE; }), "guest of its own"));
	EXPECT_TRUE(has(refused([](KvmItems &i) { i.data["XSAVE"][512] |= 0x18; }), "MPX"));
	EXPECT_TRUE(has(refused([](KvmItems &i) {
		i.data["MSRS"] = bytes_of(kvm_msr_entry{.index = 0x40000000, .reserved = 0, .data = 1});
	}), "Hyper-V"));
	for (const auto &[address, data] : {std::pair<uint64_t, uint32_t>{0xfee00000, 0x5}, {0xfed00000, 0x41}, {0xfee00000, 0x441}, {0xfee05000, 0x41}}) {
		QStream stream(bytes);
		EXPECT_NE(error_of([&] { put_message(stream, address, data); }), "") << std::hex << address << " " << data;
	}
}

// Never more than an Error, and never beyond the bytes (ASan's run of this)
TEST_F(Stream, F3Fuzz)
{
	std::mt19937 rng(7);
	unsigned read = 0;
	const size_t json = bytes.size() - 24'000;

	for (unsigned run = 0; run < 150; run++) {
		std::vector<uint8_t> bad = bytes;

		if (run % 5 == 0)
			bad.resize(rng() % bad.size());
		for (unsigned i = 1 + rng() % 8; i && !bad.empty(); i--) {
			// Where sections' heads are, in the JSON, anywhere
			const size_t at = run % 3 == 0 ? rng() % bad.size() : run % 3 == 1 ? json + rng() % 24'000 : rng() % 2'000;
			if (at < bad.size())
				bad[at] = rng() % 4 ? static_cast<uint8_t>(rng()) : static_cast<uint8_t>("0123456789\"{}[],"[rng() % 16]);
		}
		(void)error_of([&] {
			QStream stream(bad);
			for (QSection &section : stream.sections()) {
				if (section.has("virtio"))
					VirtioBlob blob(section.raw("virtio"), section.name);
			}
			Made made;
			put_vcpu(stream, 0, made.vcpu());
			(void)stream.bytes();
			read++;
		});
	}
	EXPECT_GT(read, 0u);
	EXPECT_LT(read, 150u);
	QStream whole(bytes);
	for (QSection &section : whole.sections()) {
		for (unsigned run = 0; section.has("virtio") && run < 300; run++) {
			std::vector<uint8_t> bad(section.raw("virtio").begin(), section.raw("virtio").end());

			if (run % 2)
				bad.resize(rng() % bad.size());
			for (unsigned i = 1 + rng() % 4; i && !bad.empty(); i--)
				bad[rng() % std::min<size_t>(bad.size(), 1500)] = static_cast<uint8_t>(rng());
			(void)error_of([&] {
				VirtioBlob blob(bad, section.name);
				for (unsigned i = 0; i < blob.queues().size(); i++)
					(void)blob.interrupt(i);
			});
		}
	}
}

} // namespace

} // namespace redoubt::agent
