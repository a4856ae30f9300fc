// SPDX-License-Identifier: GPL-2.0
//
// A vCPU of kvm_intel in a memory made by hand, and its VMCS: what is the VMCS's, what KVM's, what the CPU's.
#include <functional>
#include <random>

#include "world.h"

namespace redoubt::crash {
namespace {

constexpr uint64_t at_vmcs = 0x110000, at_loaded = 0x1b0000;
constexpr uint32_t star = 0xc0000081, lstar = 0xc0000082, cstar = 0xc0000083, sfmask = 0xc0000084, efer = 0xc0000080, tsc_aux = 0xc0000103,
		   kernel_gs = 0xc0000102, tsx_ctrl = 0x122;

struct Intel : World {
	std::map<uint32_t, uint64_t> &vmcs;

	Intel() : World(true), vmcs(memory.vmcss[at_vmcs])
	{
		const std::vector<uint32_t> list = {sfmask, lstar, cstar, efer, tsc_aux, star, tsx_ctrl};

		memory.write(at_loaded, std::vector<uint8_t>(page_bytes).data(), page_bytes);
		// vmcs01 is in the vCPU itself.
		const uint64_t loaded = at_vcpu + layout.at("vcpu_vmx.vmcs01").offset;
		memory.write(at_vcpu + page_bytes, std::vector<uint8_t>(page_bytes).data(), page_bytes);
		set(at_vcpu, "vcpu_vmx.loaded_vmcs", kernel + loaded);
		set(loaded, "loaded_vmcs.vmcs", kernel + at_vmcs);
		set(loaded, "loaded_vmcs.host_state.rsp", 0xffffc90000aa0000);
		set(loaded, "loaded_vmcs.host_state.cr3", 0x123000);
		memory.put(at_vmcs, uint64_t{0});
		for (uint32_t i = 0; i < 8; i++)
			for (const uint32_t field : {0x800u, 0x4800u, 0x4814u, 0x6806u})
				vmcs[field + 2 * i] = 0;
		for (const uint32_t field : {0x4810, 0x4812, 0x6816, 0x6818, 0x6800, 0x6802, 0x6804, 0x681a, 0x681c, 0x681e, 0x6820, 0x6822, 0x6824, 0x6826,
					     0x482a, 0x4824, 0x4826, 0x2802, 0x4000, 0x4002, 0x4402, 0x4404, 0x4408, 0x440a, 0x6c02, 0x6c14})
			vmcs[field] = 0;
		vmcs[0x6c14] = 0xffffc90000aa0000;
		vmcs[0x6c02] = 0x123000;
		vmcs[0x681c] = 0x7001;			// RSP
		vmcs[0x681e] = 0x7002;			// RIP
		vmcs[0x6802] = 0x4000;			// CR3
		for (size_t i = 0; i < list.size(); i++) {
			memory.put(at_msr_list + i * 4, list[i]);
			memory.put(at_vcpu + layout.at("vcpu_vmx.guest_uret_msrs").offset + i * 24 + layout.at("vmx_uret_msr.data").offset, uint64_t{0x9000} + i);
		}
		set(at_vcpu, "vcpu_vmx.msr_guest_kernel_gs_base", 0x6005);
		root.cpus[0].head.kernel_gs_base = 0x6006;
		root.cpus[0].head.dr6 = 0xd6;
	}
	void reason(uint32_t value)
	{
		set(at_vcpu, "vcpu_vmx.exit_reason", value);
		vmcs[0x4402] = value;
	}
	// As 6.12 does it: KVM has not looked yet. As 6.1: it has.
	void out_of_the_guest(bool unseen = true)
	{
		nmi();
		set(at_vcpu, "vcpu_vmx.vcpu.mode", unseen);
		reason(0);
		vmcs[0x4404] = 0x80000202;
		set(at_vcpu, "vcpu_vmx.guest_state_loaded", 1);
	}
	uint64_t msr(uint32_t index)
	{
		const Vcpu v = read();
		for (const Item &i : v.items) {
			if (i.name != "MSRS")
				continue;
			for (size_t at = 0; at < i.data.size(); at += sizeof(kvm_msr_entry)) {
				kvm_msr_entry e;
				memcpy(&e, &i.data[at], sizeof(e));
				if (e.index == index)
					return e.data;
			}
		}
		return ~0ull;
	}
	kvm_regs regs() { return item<kvm_regs>(read().items, "REGS"); }
	kvm_sregs sregs() { return item<kvm_sregs>(read().items, "SREGS"); }
	kvm_vcpu_events events() { return item<kvm_vcpu_events>(read().items, "VCPU_EVENTS"); }
};

TEST_F(Intel, F1_registers_of_the_vmcs_and_newer_ones_in_memory)
{
	EXPECT_EQ(why(), "whole: user");
	EXPECT_EQ(regs().rax, 0x100u);
	EXPECT_EQ(regs().r15, 0x10fu);
	EXPECT_EQ(regs().rsp, 0x7001u);
	EXPECT_EQ(regs().rip, 0x7002u);
	arch("regs_dirty", 1 << 16);
	EXPECT_EQ(regs().rsp, 0x7001u);
	EXPECT_EQ(regs().rip, 0x110u);
	arch("regs_dirty", 1 << 4);
	EXPECT_EQ(regs().rsp, 0x104u);
	EXPECT_EQ(regs().rip, 0x7002u);
	vmcs[0x6820] = 0x302;
	EXPECT_EQ(regs().rflags, 0x302u);
	set(at_vcpu, "vcpu_vmx.vcpu.guest_debug", KVM_GUESTDBG_SINGLESTEP);
	EXPECT_EQ(regs().rflags, 0x202u);
}

TEST_F(Intel, F1_control_registers_and_who_owns_their_bits)
{
	EXPECT_EQ(sregs().cr3, 0x4000u);
	arch("regs_dirty", 1 << 19);
	EXPECT_EQ(sregs().cr3, 0x3000u);
	arch("regs_dirty", 0);
	vmcs[0x4002] = 1 << 15;				// it is not the guest's that is loaded
	EXPECT_EQ(sregs().cr3, 0x3000u);
	arch("cr0", 0x80000031);
	arch("cr0_guest_owned_bits", 8);
	vmcs[0x6800] = 0x80050039;
	EXPECT_EQ(sregs().cr0, 0x80000039u);
	arch("cr4", 0x6f0);
	arch("cr4_guest_owned_bits", 0x80);
	vmcs[0x6804] = 0x2000;
	EXPECT_EQ(sregs().cr4, 0x670u);
}

TEST_F(Intel, F1_segments)
{
	vmcs[0x802] = 0x10;
	vmcs[0x4802] = 0xffffffff;
	vmcs[0x4816] = 0xa09b;
	vmcs[0x6808] = 0x5000;
	vmcs[0x4820] = 0x10000;				// LDTR: unusable
	vmcs[0x80e] = 0x40;
	vmcs[0x4822] = 0x8b;
	vmcs[0x4810] = 0x7f;
	vmcs[0x6816] = 0x1234;
	const kvm_sregs s = sregs();
	EXPECT_EQ(s.cs.selector, 0x10);
	EXPECT_EQ(s.cs.limit, 0xffffffffu);
	EXPECT_EQ(s.cs.base, 0x5000u);
	EXPECT_TRUE(s.cs.present && s.cs.l && s.cs.g && s.cs.s && !s.cs.db && !s.cs.unusable);
	EXPECT_EQ(s.cs.type, 11);
	EXPECT_TRUE(s.ldt.unusable && !s.ldt.present);
	EXPECT_EQ(s.tr.selector, 0x40);
	EXPECT_EQ(s.tr.type, 11);
	EXPECT_EQ(s.gdt.limit, 0x7f);
	EXPECT_EQ(s.gdt.base, 0x1234u);
}

TEST_F(Intel, F1_msrs)
{
	vmcs[0x482a] = 0x10;
	vmcs[0x2802] = 0x4001;
	set(at_vcpu, "vcpu_vmx.spec_ctrl", 4);
	EXPECT_EQ(msr(sfmask), 0x9000u);
	EXPECT_EQ(msr(lstar), 0x9001u);
	EXPECT_EQ(msr(cstar), 0x9002u);
	EXPECT_EQ(msr(tsc_aux), 0x9004u);
	EXPECT_EQ(msr(star), 0x9005u);
	EXPECT_EQ(msr(tsx_ctrl), 0x9006u);
	EXPECT_EQ(msr(0x174), 0x10u);
	EXPECT_EQ(msr(0x48), 4u);
	EXPECT_EQ(msr(0x1d9), 1u);
	EXPECT_EQ(msr(kernel_gs), 0x6005u);
	memory.put(at_msr_list + 4, uint32_t{0x1234});
	EXPECT_EQ(why(), "its STAR, LSTAR, CSTAR and SFMASK are not where they should be");
}

TEST_F(Intel, F1_kernel_gs_base_in_the_cpu_or_in_memory)
{
	runs();
	reason(1);
	arch("at_instruction_boundary", 1);
	EXPECT_EQ(why(), "whole: interrupted");
	EXPECT_EQ(msr(kernel_gs), 0x6005u);
	set(at_vcpu, "vcpu_vmx.guest_state_loaded", 1);
	EXPECT_EQ(why(), "its KERNEL_GS_BASE was in a CPU that has not left it");
	root.cpus[0].head.fpstate = kernel + at_fpu;
	EXPECT_EQ(msr(kernel_gs), 0x6006u);
	root.cpus[0].head.context = 1;
	EXPECT_EQ(why(), "its KERNEL_GS_BASE was between CPU and memory, or may have been");
	root.cpus[0].head.context = 0;
	root.cpus[0].head.cpu = 1;
	EXPECT_EQ(why(), "its KERNEL_GS_BASE was in a CPU that has not left it");
}

TEST_F(Intel, F1_stopped_right_out_of_the_guest_before_kvm_has_looked)
{
	out_of_the_guest();
	arch("interrupt.injected", 1);			// of the exit before
	arch("interrupt.nr", 0x55);
	vmcs[0x4408] = 0x80000021;
	vmcs[0x681a] = 0x401;
	arch("switch_db_regs", 2);
	const Vcpu v = read();
	EXPECT_EQ(v.where, "guest");
	EXPECT_EQ(item<kvm_sregs>(v.items, "SREGS").interrupt_bitmap[0], 1ull << 0x21);
	EXPECT_EQ(item<kvm_sregs>(v.items, "SREGS").interrupt_bitmap[1], 0u);
	EXPECT_TRUE(events().interrupt.injected);
	EXPECT_EQ(events().interrupt.nr, 0x21);
	const auto d = item<kvm_debugregs>(v.items, "DEBUGREGS");
	EXPECT_EQ(d.db[0], 0xd0u);
	EXPECT_EQ(d.dr6, 0xd6u);
	EXPECT_EQ(d.dr7, 0x401u);
	EXPECT_EQ((item<std::array<uint8_t, 4096>>(v.items, "XSAVE")[160]), 0x22);
	EXPECT_EQ(msr(kernel_gs), 0x6006u);
	vmcs[0x4408] = 0x80000b0e;
	vmcs[0x440a] = 6;
	EXPECT_TRUE(events().exception.injected && events().exception.has_error_code && !events().interrupt.injected);
	EXPECT_EQ(events().exception.error_code, 6u);
	for (const uint32_t soft : {0x80000480, 0x80000501, 0x80000603}) {
		vmcs[0x4408] = soft;
		EXPECT_EQ(why(), "a software interrupt was being delivered");
	}
}

TEST_F(Intel, F1_stopped_right_out_of_the_guest_behind_what_kvm_does)
{
	out_of_the_guest(false);
	arch("interrupt.injected", 1);
	arch("interrupt.nr", 0x55);
	vmcs[0x4408] = 0x80000021;			// KVM has taken it up, it says
	EXPECT_EQ(why(), "whole: guest");
	EXPECT_EQ(events().interrupt.nr, 0x55);
	EXPECT_EQ(sregs().interrupt_bitmap[0], 0u);
	EXPECT_EQ(sregs().interrupt_bitmap[1], 1ull << (0x55 - 64));
	EXPECT_EQ((item<std::array<uint8_t, 4096>>(read().items, "XSAVE")[160]), 0x22);
}

TEST_F(Intel, F1_an_interrupts_handler_was_running)
{
	runs();
	reason(1);
	arch("handling_intr_from_guest", 1);
	root.cpus[0].head.fpstate = kernel + at_fpu;
	root.cpus[0].head.context = 0x10001;
	set(at_vcpu, "vcpu_vmx.guest_state_loaded", 1);
	EXPECT_EQ(why(), "whole: interrupted");
	EXPECT_EQ(msr(kernel_gs), 0x6006u);
	reason(12);					// it left for something else, and an interrupt came then
	EXPECT_EQ(why(), "KVM was at work for it");
}

TEST_F(Intel, F1_nmis_and_what_blocks_them)
{
	EXPECT_FALSE(events().nmi.masked);
	vmcs[0x4824] = 8;
	EXPECT_FALSE(events().nmi.masked);		// without virtual NMIs KVM counts itself
	vmcs[0x4000] = 1 << 5;
	EXPECT_TRUE(events().nmi.masked);
	out_of_the_guest();
	EXPECT_TRUE(events().nmi.masked);
	vmcs[0x4408] = 0x80000202;			// it was being delivered: it will be once more
	EXPECT_TRUE(events().nmi.injected);
	EXPECT_FALSE(events().nmi.masked);
	vmcs[0x4408] = 0;
	vmcs[0x4824] = 0;
	EXPECT_FALSE(events().nmi.masked);
	vmcs[0x4404] = 0x80001202;			// IRET had unblocked them, and was not through
	EXPECT_TRUE(events().nmi.masked);
	vmcs[0x4824] = 3;
	EXPECT_EQ(events().interrupt.shadow, KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS);
}

TEST_F(Intel, F1_posted_interrupts_are_there)
{
	memory.put(at_apic_page + 0x210, uint32_t{1});
	memory.put(at_vcpu + layout.at("vcpu_vmx.pi_desc.pir").offset + 4, uint32_t{0x80});
	EXPECT_EQ((item<std::array<uint32_t, 256>>(read().items, "LAPIC")[0x210 / 4]), 0x81u);
}

TEST_F(Intel, F3_fpu_registers_that_xcr0_hides)
{
	arch("guest_supported_xcr0", 7);
	set(at_fpu, "fpstate.user_xfeatures", 7);
	out_of_the_guest(false);			// the host's XCR0 is loaded again
	EXPECT_EQ(why(), "whole: guest");
	out_of_the_guest();
	EXPECT_EQ(why(), "its XCR0 hides FPU registers that it may have");
	root.cpus[0].head.xcr0 = 7;
	EXPECT_EQ(why(), "whole: guest");
	arch("cr4", 1 << 22);
	EXPECT_EQ(why(), "its XCR0 hides PKRU");
}

TEST_F(Intel, F3_not_whole)
{
	each({
		{"KVM was at work for it", [this] { runs(); }},
		{"KVM was at work for it", [this] { out_of_the_guest(); vmcs[0x4404] = 0x8000030e; }},
		{"KVM was at work for it", [this] { out_of_the_guest(); vmcs[0x4404] = 0x202; }},
		{"KVM was at work for it", [this] { out_of_the_guest(); reason(0x80000000); }},
		{"KVM was at work for it", [this] { out_of_the_guest(); arch("handling_intr_from_guest", 0); }},
		{"its VMCS is not as KVM has left it", [this] { out_of_the_guest(); vmcs[0x4402] = 1; }},
		{"its VMCS is not as KVM has left it", [this] { vmcs[0x6c14]++; }},
		{"its VMCS is not as KVM has left it", [this] { vmcs[0x6c02]++; }},
		{"it is shut down, or waits to be started", [this] { vmcs[0x4826] = 2; }},
		{"a debug trap was pending", [this] { vmcs[0x6822] = 0x4000; }},
		{"it has MPX, whose state is not read", [this] { vmcs[0x2812] = 1; }},
		{"it has AMX, whose state is not read", [this] { arch("guest_supported_xcr0", 0x60007); }},
		{"it runs a nested guest", [this] { set(at_vcpu, "vcpu_vmx.loaded_vmcs", kernel + at_loaded); set(at_loaded, "loaded_vmcs.vmcs", kernel + at_vmcs); }},
		{"it runs a nested guest, or is in system management mode", [this] { arch("hflags", 2); }},
		{"it is in real mode, which this CPU cannot run", [this] { set(at_vcpu, "vcpu_vmx.rmode.vm86_active", 1); }},
		{"its VMCS is not in memory", [this] { set(at_vcpu + layout.at("vcpu_vmx.vmcs01").offset, "loaded_vmcs.vmcs", 0x1000); }},
		{"no VMCS there", [this] { set(at_vcpu + layout.at("vcpu_vmx.vmcs01").offset, "loaded_vmcs.vmcs", kernel + at_kvm); }},
		{"its VMCS has no field 26654", [this] { vmcs.erase(0x681e); }},
		{"a CPU has not stopped, or has left nothing: it may run on", [this] { root.cpus[0].head.online = 2; }},
		{"KVM's list of MSRs is not in memory", [this] { memory.frames.erase(at_msr_list / page_bytes); }},
		{"its FPU registers were in a CPU that left nothing", [this] { out_of_the_guest(); root.cpus[0].head.flags = RDT_CRASH_FPU_IN_MEMORY; }},
	});
}

TEST_F(Intel, F3_whatever_the_old_kernel_has_written_there)
{
	std::mt19937_64 random(31);
	const Frames as_it_was = memory;

	for (int i = 0; i < 3000; i++) {
		if (random() % 2)
			out_of_the_guest(random() % 2);
		for (const uint64_t at : {at_vcpu, at_kvm, at_apic, at_apic_page, at_fpu, at_msr_list})
			for (int k = static_cast<int>(random() % 40); k > 0; k--)
				memory.put(at + random() % 500 * 8, random() >> random() % 64);
		for (auto &[field, value] : vmcs)
			if (random() % 16 == 0)
				value = random() >> random() % 64;
		try {
			read();
		} catch (const std::runtime_error &) {
		}
		restore(as_it_was);
	}
}

} // namespace
} // namespace redoubt::crash
