// SPDX-License-Identifier: GPL-2.0
//
// A vCPU in a memory made by hand, by a layout made by hand: for tests. What is KVM's is here, VMCB and VMCS are the tests' own.
#pragma once

#include <functional>
#include <map>
#include <string>

#include <gtest/gtest.h>
#include <linux/kvm.h>

#include "testing.h"
#include "vcpu.h"

namespace redoubt::crash {

constexpr uint64_t kernel = 0xffff888000000000;		// where physical memory is mapped
constexpr uint64_t at_vcpu = 0x100000, at_kvm = 0x120000, at_apic = 0x130000, at_apic_page = 0x140000,
		   at_fpu = 0x150000, at_pic = 0x160000, at_ioapic = 0x170000, at_pit = 0x180000, at_msr_list = 0x1a0000, top = 0x1000, second = 0x2000;
constexpr uint64_t table_present = 1, table_big = 1 << 7;

struct World : testing::Test {
	const bool intel;
	const std::string its = intel ? "vcpu_vmx" : "vcpu_svm";
	Frames memory;
	Layout layout = made();
	Root root;
	Vm vm{};

	// A place for each name, 8 bytes wide but where it is an array; the structures have 4 KiB
	Layout made() const
	{
		const std::map<std::string, unsigned int> wide = {
			{its + ".vcpu.arch.regs", 17 * 8}, {its + ".vcpu.arch.db", 32}, {"kvm_pic.pics", 64},
			{"kvm_pit.pit_state.channels", 72}, {"kvm_kpic_state", 32}, {"fpstate.regs", 1024},
			{"vcpu_vmx.guest_uret_msrs", 7 * 24}, {"vmx_uret_msr", 24}, {"vcpu_vmx.pi_desc.pir", 32}, {"vcpu_vmx.vmcs01", 64}};
		std::map<std::string, unsigned int> end;
		std::string text = "release test\n";

		for (const std::string &name : Layout::needed(intel)) {
			const auto w = wide.find(name);
			const std::string type = name.substr(0, name.find('.'));
			const unsigned int bytes = w != wide.end() ? w->second : type == name ? 4096 : 8;
			// An IOAPIC begins with what KVM_GET_IRQCHIP gives.
			const unsigned int at = type == name ? 0 : end.try_emplace(type, type == "kvm_ioapic" ? 512 : 0).first->second;
			if (type != name)
				end[type] = at + bytes;
			text += name + " " + std::to_string(at) + " " + std::to_string(bytes) + (name == "fpstate.in_use" ? " 3 1\n" : " 0 0\n");
		}
		if (intel)
			text += "@kvm_uret_msrs_list " + std::to_string(kernel + at_msr_list) + "\n";
		return Layout::parse(text);
	}
	void set(uint64_t at, const std::string &field, uint64_t value) { memory.put(at + layout.at(field).offset, value); }
	void arch(const std::string &field, uint64_t value) { set(at_vcpu, its + ".vcpu.arch." + field, value); }

	explicit World(bool is_intel) : intel(is_intel)
	{
		memory.put(top + (kernel >> 39 & 511) * 8, second | table_present);
		memory.put(second, uint64_t{0} | table_present | table_big);
		for (const uint64_t at : {at_vcpu, at_kvm, at_apic, at_apic_page, at_fpu, at_pic, at_ioapic, at_pit, at_msr_list})
			memory.write(at, std::vector<uint8_t>(page_bytes).data(), page_bytes);
		vm.pgd = top;
		vm.levels = 4;
		vm.kvm = kernel + at_kvm;
		vm.vcpus = {kernel + at_vcpu};
		set(at_vcpu, its + ".vcpu.kvm", kernel + at_kvm);
		set(at_kvm, "kvm.online_vcpus", 1);
		set(at_kvm, "kvm.arch.vpic", kernel + at_pic);
		set(at_kvm, "kvm.arch.vioapic", kernel + at_ioapic);
		set(at_kvm, "kvm.arch.vpit", kernel + at_pit);
		set(at_kvm, "kvm.arch.kvmclock_offset", 100);
		arch("apic", kernel + at_apic);
		set(at_apic, "kvm_lapic.regs", kernel + at_apic_page);
		set(at_apic, "kvm_lapic.divide_count", 1);
		arch("guest_fpu.fpstate", kernel + at_fpu);
		arch("guest_fpu.uabi_size", 4096);
		set(at_fpu, "fpstate.size", 1024);
		set(at_fpu, "fpstate.user_xfeatures", 3);
		memory.put(at_fpu + layout.at("fpstate.regs").offset + 512, uint64_t{3});
		memory.put(at_fpu + layout.at("fpstate.regs").offset + 160, uint64_t{0x11});
		for (unsigned int i = 0; i < 17; i++)
			memory.put(at_vcpu + layout.at(its + ".vcpu.arch.regs").offset + i * 8, uint64_t{0x100} + i);
		arch("cr3", 0x3000);

		Cpu cpu{};
		cpu.head.online = 1;
		cpu.head.xcr0 = 3;
		cpu.head.clock = 5000;
		cpu.head.monotonic = 1000;
		cpu.head.dr[0] = 0xd0;
		cpu.xsave.assign(1024, 0);
		cpu.xsave[512] = 3;
		cpu.xsave[160] = 0x22;
		root.cpus[0] = cpu;
	}
	// KVM_RUN is under way
	void runs()
	{
		set(at_vcpu, its + ".vcpu.mutex.owner", 0xffff888000777000);
		set(at_fpu, "fpstate.in_use", 1 << 3);
	}
	// ...and the panic's NMI took it out of the guest
	void nmi()
	{
		runs();
		set(at_vcpu, its + ".vcpu.mode", 1);
		arch("handling_intr_from_guest", 2);
		root.cpus[0].head.fpstate = kernel + at_fpu;
	}
	Vcpu read() { return read_vcpu(layout, memory, root, vm, 0); }
	std::string why()
	{
		try {
			return "whole: " + read().where;
		} catch (const std::runtime_error &e) {
			return e.what();
		}
	}
	// Each change alone, and what is said of it
	void each(const std::vector<std::pair<std::string, std::function<void()>>> &cases)
	{
		const Frames memory_was = memory;
		const Root root_was = root;

		for (const auto &[expected, change] : cases) {
			change();
			EXPECT_EQ(why(), expected);
			restore(memory_was);
			root = root_was;
		}
	}
	// In place: a VMCS's user has a reference to it.
	void restore(const Frames &was)
	{
		memory.frames = was.frames;
		for (const auto &[at, fields] : was.vmcss)
			memory.vmcss.at(at) = fields;
	}
	template <typename T> static T item(const std::vector<Item> &items, const std::string &name)
	{
		T out{};
		for (const Item &i : items)
			if (i.name == name && i.data.size() >= sizeof(T))
				memcpy(&out, i.data.data(), sizeof(T));
		return out;
	}
};

} // namespace redoubt::crash
