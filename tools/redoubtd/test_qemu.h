// SPDX-License-Identifier: GPL-2.0
//
// For tests of a QEMU's device state: a real QEMU (TCG), and what KVM might say.
#pragma once

#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmstate.h"
#include "qstream.h"
#include "testing.h"
#include "vmm.h"

namespace redoubt::agent {

inline constexpr milliseconds patience{60'000};

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

} // namespace redoubt::agent
