// SPDX-License-Identifier: GPL-2.0
//
// F2: a device state of a real QEMU (TCG, made here), read, changed, written, and loaded by another one. What KVM
// would have said is made up, and must come out of that QEMU again.

#include <csignal>
#include <cstring>
#include <iterator>
#include <random>

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmstate.h"
#include "qstream.h"
#include "testing.h"
#include "virtioblob.h"
#include "vmm.h"

namespace redoubt::agent {

namespace {

constexpr milliseconds patience{60'000};

// A QEMU and its monitor; it ends with the test.
class Qemu {
public:
	Qemu(Loop &loop, Directory &dir, const std::string &name, bool waits, const std::string &more = "")
		: loop_(loop), vmm(loop, name, dir / name + ".qmp", {[] {}, [] {}})
	{
		const std::string ram = dir / name + ".ram", qmp = dir / name + ".qmp";
		const std::string text = "qemu-system-x86_64 -no-user-config -nodefaults -display none -vga none -accel tcg -cpu qemu64 -m 16"
			" -machine q35,memory-backend=ram,hpet=off -object memory-backend-file,id=ram,size=16M,share=on,mem-path=" + ram +
			" -device virtio-serial-pci -chardev null,id=c -device virtconsole,chardev=c"
			" -drive driver=null-co,if=none,id=d,size=1048576 -device virtio-blk-pci,drive=d"
			" -qmp unix:" + qmp + ",server=on,wait=off" + (waits ? " -incoming defer " : " ") + more;
		pid_ = fork();
		if (!pid_) {
			const int null = open("/dev/null", O_RDWR);

			dup2(null, 0);
			dup2(null, 1);
			execl("/bin/sh", "sh", "-c", ("exec " + text).c_str(), nullptr);
			_exit(127);
		}
		vmm.start();
	}
	~Qemu()
	{
		kill(pid_, SIGKILL);
		waitpid(pid_, nullptr, 0);
	}
	bool is(VmmState state) { return run_until(loop_, [&] { return vmm.state() == state; }, patience); }
	std::vector<uint8_t> state()
	{
		std::vector<uint8_t> out;
		std::string error = "stop";

		vmm.stop([&](const std::string &e) { error = e; });
		EXPECT_TRUE(run_until(loop_, [&] { return error != "stop"; }, patience));
		EXPECT_EQ(error, "");
		error = "save";
		vmm.save(out, [&](const std::string &e) { error = e; }, patience);
		EXPECT_TRUE(run_until(loop_, [&] { return error != "save"; }, patience));
		EXPECT_EQ(error, "");
		return out;
	}
	std::string load(const std::vector<uint8_t> &in)
	{
		std::string error = "load";

		vmm.load(in, [&](const std::string &e) { error = e; }, patience);
		EXPECT_TRUE(run_until(loop_, [&] { return error != "load"; }, patience));
		return error;
	}

private:
	Loop &loop_;
	pid_t pid_;

public:
	Vmm vmm;
};

class Stream : public testing::Test {
protected:
	static void SetUpTestSuite()
	{
		if (system("qemu-system-x86_64 --version >/dev/null 2>&1"))
			return;
		Loop loop;
		Directory dir;
		Qemu qemu(loop, dir, "a", false);

		ASSERT_TRUE(qemu.is(VmmState::running));
		bytes = qemu.state();
		std::ifstream ram(dir / "a.ram", std::ios::binary);
		memory.assign(std::istreambuf_iterator<char>(ram), {});
	}
	void SetUp() override
	{
		if (bytes.empty())
			GTEST_SKIP() << "there is no QEMU here";
	}
	static inline std::vector<uint8_t> bytes;
	static inline std::string memory;
};

template <typename T> std::vector<uint8_t> bytes_of(const T &value)
{
	const auto *at = reinterpret_cast<const uint8_t *>(&value);

	return {at, at + sizeof(value)};
}

// What KVM might say: no two fields alike.
struct Made {
	kvm_regs regs{};
	kvm_sregs sregs{};
	kvm_lapic_state lapic{};
	std::vector<uint8_t> xsave = std::vector<uint8_t>(4096);
	uint64_t tsc = 0x123456789a, tsc_offset = 0;

	// That with this APIC
	KvmItems vcpu(uint32_t apic = 0)
	{
		KvmItems out;
		uint64_t next = 0x1111 + (uint64_t{apic} << 40);
		kvm_vcpu_events events{};
		kvm_xcrs xcrs{};
		kvm_cpuid_entry2 cpuid[2]{};

		for (auto *r : {&regs.rax, &regs.rbx, &regs.rcx, &regs.rdx, &regs.rsi, &regs.rdi, &regs.rsp, &regs.rbp, &regs.r8, &regs.r9,
				    &regs.r10, &regs.r11, &regs.r12, &regs.r13, &regs.r14, &regs.r15, &regs.rip})
			*r = next += 0x100000001;
		regs.rflags = 0x246;
		const auto segment = [&next](uint8_t type, uint16_t selector) {
			return kvm_segment{.base = next += 0x1000, .limit = 0xfffff, .selector = selector, .type = type, .present = 1, .dpl = 3,
					   .db = 0, .s = 1, .l = type == 11, .g = 1, .avl = 1, .unusable = 0, .padding = 0};
		};
		sregs.cs = segment(11, 0x33);
		sregs.ds = segment(3, 0x2b);
		sregs.es = segment(3, 0x2c);
		sregs.fs = segment(3, 0x2d);
		sregs.gs = segment(3, 0x2e);
		sregs.ss = segment(3, 0x2f);
		sregs.tr = segment(11, 0x40);
		sregs.ldt = segment(2, 0);
		sregs.gdt = {.base = 0xfffffe0000001000, .limit = 0x7f, .padding = {}};
		sregs.idt = {.base = 0xfffffe0000000000, .limit = 0xfff, .padding = {}};
		sregs.cr0 = 0x80050033;
		sregs.cr2 = 0x7ffff123;
		sregs.cr3 = 0x5000;
		sregs.cr4 = 0x6f0;
		sregs.efer = 0xd01;
		sregs.apic_base = 0xfee00900;
		for (unsigned i = 0; i < 8; i++) {
			const uint32_t irr = (0x01000000u >> i) + apic;

			memcpy(lapic.regs + (0x20 + i) * 16, &irr, 4);
		}
		const uint32_t id = apic << 24, log = 1u << apic << 24, flat = ~0u, on = 0x1ff;
		memcpy(lapic.regs + 0x2 * 16, &id, 4);
		memcpy(lapic.regs + 0xd * 16, &log, 4);
		memcpy(lapic.regs + 0xe * 16, &flat, 4);
		memcpy(lapic.regs + 0xf * 16, &on, 4);
		for (size_t i = 0; i < 416; i++)
			xsave[i] = static_cast<uint8_t>(i * 7);
		xsave[0] = 0x7f;
		xsave[1] = 0x03;
		xsave[24] = 0x80;
		xsave[25] = 0x1f;
		xsave[26] = xsave[27] = 0;
		xsave[512] = 3;
		cpuid[0].function = 1;
		cpuid[0].ebx = id | 0x800;
		cpuid[1] = {.function = 0xd, .index = 2, .flags = 0, .eax = 256, .ebx = 576, .ecx = 0, .edx = 0, .padding = {}};
		for (size_t i = 0; i < 256; i++)
			xsave[576 + i] = static_cast<uint8_t>(i * 5 + 1);
		events.interrupt = {.injected = 1, .nr = 0x31, .soft = 0, .shadow = 0};
		events.nmi.masked = 1;
		xcrs.nr_xcrs = 1;
		xcrs.xcrs[0] = {.xcr = 0, .reserved = 0, .value = 7};
		const kvm_msr_entry msrs[] = {
			{.index = 0xc0000082, .reserved = 0, .data = 0xffffffff81c00000}, {.index = 0x10, .reserved = 0, .data = tsc},
			{.index = 0x12, .reserved = 0, .data = 0x7f01001}, {.index = 0x4b564d03, .reserved = 0, .data = 0x7e03001},
			{.index = 0x4b564d05, .reserved = 0, .data = 0}, {.index = 0x268, .reserved = 0, .data = 0x0606060606060606},
			{.index = 0x200, .reserved = 0, .data = 0xc0000000}, {.index = 0x201, .reserved = 0, .data = 0xffc0000800},
		};
		out.data["REGS"] = bytes_of(regs);
		out.data["SREGS"] = bytes_of(sregs);
		out.data["LAPIC"] = bytes_of(lapic);
		out.data["XSAVE"] = xsave;
		out.data["CPUID2"] = bytes_of(cpuid);
		out.data["TSC_OFFSET"] = bytes_of(tsc_offset);
		out.data["VCPU_EVENTS"] = bytes_of(events);
		out.data["XCRS"] = bytes_of(xcrs);
		out.data["DEBUGREGS"] = bytes_of(kvm_debugregs{.db = {1, 2, 3, 4}, .dr6 = 0xffff0ff0, .dr7 = 0x400, .flags = 0, .reserved = {}});
		out.data["MP_STATE"] = bytes_of(kvm_mp_state{.mp_state = KVM_MP_STATE_RUNNABLE});
		out.data["MSRS"] = std::vector<uint8_t>(reinterpret_cast<const uint8_t *>(msrs), reinterpret_cast<const uint8_t *>(msrs) + sizeof(msrs));
		kvm_nested_state nested{};
		nested.format = KVM_STATE_NESTED_FORMAT_SVM;
		out.data["NESTED_STATE"] = bytes_of(nested);
		return out;
	}
};

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
