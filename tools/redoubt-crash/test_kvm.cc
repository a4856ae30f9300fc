// SPDX-License-Identifier: GPL-2.0
//
// vCPUs in a memory made by hand: which of them are whole, and what of them is taken from where. On AMD; Intel's own: test_vmx.cc.
#include <functional>
#include <random>

#include "world.h"

namespace redoubt::crash {
namespace {

constexpr uint64_t at_vmcb = 0x110000;

struct Amd : World {
	Amd() : World(false)
	{
		memory.write(at_vmcb, std::vector<uint8_t>(page_bytes).data(), page_bytes);
		set(at_vcpu, "vcpu_svm.vmcb", kernel + at_vmcb);
		set(at_vcpu, "vcpu_svm.vmcb01.ptr", kernel + at_vmcb);
		memory.put(at_vmcb + 0x550, uint64_t{0x4000});
	}
	void in_vmcb(size_t at, uint32_t value) { memory.put(at_vmcb + at, value); }
	void out_of_the_guest()
	{
		nmi();
		memory.put(at_vmcb + 0x70, uint64_t{0x61});
	}
};

TEST_F(Amd, F1_in_user_space)
{
	const Vcpu v = read();
	EXPECT_EQ(v.where, "user");
	const auto r = item<kvm_regs>(v.items, "REGS");
	EXPECT_EQ(r.rax, 0x100u);
	EXPECT_EQ(r.rcx, 0x101u);
	EXPECT_EQ(r.rsp, 0x104u);
	EXPECT_EQ(r.rdi, 0x107u);
	EXPECT_EQ(r.r15, 0x10fu);
	EXPECT_EQ(r.rip, 0x110u);
	EXPECT_EQ(item<kvm_sregs>(v.items, "SREGS").cr3, 0x3000u);
	EXPECT_EQ((item<std::array<uint8_t, 4096>>(v.items, "XSAVE")[160]), 0x11);
}

TEST_F(Amd, F1_halted_or_waiting_for_its_turn)
{
	runs();
	arch("mp_state", KVM_MP_STATE_HALTED);
	EXPECT_EQ(why(), "whole: halted");
	root.cpus[0].head.fpstate = kernel + at_fpu;	// on a CPU: in the middle of an INIT?
	EXPECT_EQ(why(), "KVM was at work for it");
	root.cpus[0].head.fpstate = 0;
	arch("mp_state", KVM_MP_STATE_RUNNABLE);
	arch("at_instruction_boundary", 1);
	EXPECT_EQ(why(), "whole: interrupted");
	set(at_vcpu, "vcpu_svm.vcpu.mode", 1);	// on its way into the guest, or out of it
	EXPECT_EQ(why(), "KVM was at work for it");
}

TEST_F(Amd, F1_stopped_right_out_of_the_guest)
{
	out_of_the_guest();
	in_vmcb(0x88, 0x80000021);		// interrupt 0x21 was being delivered
	in_vmcb(0x60, 5);			// V_TPR
	arch("switch_db_regs", 2);
	const Vcpu v = read();
	EXPECT_EQ(v.where, "guest");
	EXPECT_EQ(item<kvm_sregs>(v.items, "SREGS").cr3, 0x4000u);
	EXPECT_EQ(item<kvm_sregs>(v.items, "SREGS").interrupt_bitmap[0], 1ull << 0x21);
	EXPECT_EQ(item<kvm_sregs>(v.items, "SREGS").cr8, 5u);
	EXPECT_TRUE(item<kvm_vcpu_events>(v.items, "VCPU_EVENTS").interrupt.injected);
	EXPECT_EQ(item<kvm_vcpu_events>(v.items, "VCPU_EVENTS").interrupt.nr, 0x21);
	EXPECT_EQ((item<std::array<uint8_t, 4096>>(v.items, "XSAVE")[160]), 0x22);
	EXPECT_EQ(item<kvm_debugregs>(v.items, "DEBUGREGS").db[0], 0xd0u);
	in_vmcb(0x88, 0x80000b0e);		// page fault, with an error code
	in_vmcb(0x8c, 6);
	const auto e = item<kvm_vcpu_events>(read().items, "VCPU_EVENTS");
	EXPECT_TRUE(e.exception.injected && e.exception.has_error_code && !e.interrupt.injected);
	EXPECT_EQ(e.exception.nr, 14);
	EXPECT_EQ(e.exception.error_code, 6u);
	in_vmcb(0x88, 0x80000480);
	EXPECT_EQ(why(), "a software interrupt was being delivered");
}

TEST_F(Amd, F1_fpu_registers_in_the_cpu_or_in_memory)
{
	auto &cpu = root.cpus[0].head;
	const auto from = [this] { return (item<std::array<uint8_t, 4096>>(read().items, "XSAVE")[160]); };

	runs();
	arch("at_instruction_boundary", 1);
	cpu.fpstate = kernel + at_fpu;
	cpu.context = 0x10001;			// in an interrupt, behind the exit
	EXPECT_EQ(from(), 0x22);
	cpu.flags = RDT_CRASH_FPU_IN_MEMORY;
	cpu.context = 0;
	EXPECT_EQ(from(), 0x11);
	cpu.fpstate = 0;			// another task's CPU
	cpu.context = 0x10102;
	EXPECT_EQ(from(), 0x11);
}

TEST_F(Amd, F3_fpu_registers_between_cpu_and_memory)
{
	auto &cpu = root.cpus[0].head;

	runs();
	arch("at_instruction_boundary", 1);
	cpu.fpstate = kernel + at_fpu;
	for (const uint64_t context : {0x100, 0x201, 2, 0x10002}) {	// fpregs_lock(), or a switch
		cpu.context = context;
		EXPECT_EQ(why(), "its FPU registers were between CPU and memory, or may have been") << context;
	}
	cpu.flags = RDT_CRASH_FPU_IN_MEMORY;
	for (const uint64_t context : {1, 0x10000, 0x100}) {		// kernel_fpu_begin()
		cpu.context = context;
		EXPECT_EQ(why(), "its FPU registers were between CPU and memory, or may have been") << context;
	}
}

TEST_F(Amd, F1_through_with_an_exit_and_waiting_for_its_turn)
{
	const uint64_t vcpu = vm.vcpus[0];

	runs();
	set(at_vcpu, "vcpu_svm.vcpu.stat.exits", 4711);
	EXPECT_EQ(why(), "KVM was at work for it");
	root.works = {{1, 2}, {vcpu, vcpu * RDT_CRASH_WORK_FACTOR ^ 4711}};
	EXPECT_EQ(why(), "whole: waiting");
	root.cpus[0].head.fpstate = kernel + at_fpu;		// its turn has come
	EXPECT_EQ(why(), "KVM was at work for it");
	root.cpus[0].head.fpstate = 0;
	set(at_vcpu, "vcpu_svm.vcpu.stat.exits", 4712);		// another exit since
	EXPECT_EQ(why(), "KVM was at work for it");
	root.works = {{vcpu + 64, vcpu * RDT_CRASH_WORK_FACTOR ^ 4712}};
	EXPECT_EQ(why(), "KVM was at work for it");
}

TEST_F(Amd, F1_an_interrupt_that_was_ended_by_a_bit_in_memory)
{
	const uint64_t at_offer = 0x190000;
	const auto isr = [](const Vcpu &v) { return item<std::array<uint32_t, 256>>(v.items, "LAPIC")[0x110 / 4]; };

	memory.put(at_offer, uint64_t{1});
	memory.put(at_apic_page + 0x110, uint32_t{0x82});
	arch("pv_eoi.data.hva", kernel + at_offer);
	EXPECT_TRUE(read().writes.empty());			// none was offered
	EXPECT_EQ(isr(read()), 0x82u);
	arch("apic_attention", 2);
	EXPECT_EQ(isr(read()), 0x82u);				// not yet: the offer is taken back
	EXPECT_EQ(read().writes, (std::vector<std::pair<uint64_t, uint8_t>>{{kernel + at_offer, 0}}));
	memory.put(at_offer, uint64_t{0});
	EXPECT_EQ(isr(read()), 0x02u);
	EXPECT_TRUE(read().writes.empty());
	arch("pv_eoi.data.hva", 0x1000);
	EXPECT_EQ(why(), "whether it has ended its interrupt is not in memory");
	arch("apic_attention", 1);
	EXPECT_EQ(why(), "its task priority is in a page of the guest's");
}

TEST_F(Amd, F3_a_boundary_that_is_of_the_last_run)
{
	runs();
	arch("at_instruction_boundary", 1);
	EXPECT_EQ(why(), "whole: interrupted");
	set(at_fpu, "fpstate.in_use", 1 << 2);		// its neighbour
	EXPECT_EQ(why(), "KVM was at work for it, outside of KVM_RUN");
	arch("mp_state", KVM_MP_STATE_HALTED);
	EXPECT_EQ(why(), "KVM was at work for it, outside of KVM_RUN");
}

TEST_F(Amd, F3_not_whole)
{
	each({
		{"KVM was at work for it", [this] { runs(); }},
		{"KVM was at work for it", [this] { out_of_the_guest(); memory.put(at_vmcb + 0x70, uint64_t{0x60}); }},
		{"its FPU registers were in a CPU that left nothing", [this] { out_of_the_guest(); root.cpus[0].head.flags = RDT_CRASH_FPU_IN_MEMORY; }},
		{"an I/O of it was not complete", [this] { arch("complete_userspace_io", 0xffffffff81000000); }},
		{"an I/O of it was not complete", [this] { set(at_vcpu, "vcpu_svm.vcpu.mmio_needed", 1); }},
		{"it runs a nested guest", [this] { set(at_vcpu, "vcpu_svm.vmcb01.ptr", kernel); }},
		{"its state is encrypted", [this] { arch("guest_state_protected", 1); }},
		{"the VM has another vCPU there", [this] { set(at_vcpu, "vcpu_svm.vcpu.kvm", kernel); }},
		{"the VM has got more vCPUs since it was registered", [this] { set(at_kvm, "kvm.online_vcpus", 2); }},
		{"its APIC is in its VMM", [this] { arch("apic", 0); }},
		{"it is in system management mode", [this] { arch("hflags", 1 << 6); }},
		{"a CPU has not stopped, or has left nothing: it may run on", [this] { root.cpus[0].head.online = 2; }},
		{"a CPU has not stopped, or has left nothing: it may run on", [this] { root.cpus.clear(); }},
		{"its FPU state is not in memory", [this] { set(at_fpu, "fpstate.size", 60000); }},
		{"its FPU state contradicts itself", [this] { set(at_fpu, "fpstate.size", 1 << 20); }},
		{"the VMCB is not in memory", [this] { memory.frames.erase(at_vmcb / page_bytes); }},
		{"vcpu_svm is not in memory", [this] { memory.frames.erase(at_vcpu / page_bytes); }},
		{"kvm_lapic is not in memory", [this] { arch("apic", 0x1000); }},
	});
}

TEST_F(Amd, F1_an_apic_timer_goes_on_with_what_was_left)
{
	const auto count = [this] { return item<std::array<uint32_t, 256>>(read().items, "LAPIC")[0x390 / 4]; };

	memory.put(at_apic_page + 0x380, uint32_t{1000});
	set(at_apic, "kvm_lapic.lapic_timer.period", 16000);
	set(at_apic, "kvm_lapic.divide_count", 16);
	set(at_apic, "kvm_lapic.lapic_timer.target_expiration", 1000 + 8000);
	EXPECT_EQ(count(), 500u);
	set(at_apic, "kvm_lapic.lapic_timer.target_expiration", 10);	// over; nobody has been told
	set(at_apic, "kvm_lapic.lapic_timer.pending", 1);
	EXPECT_EQ(count(), 1u);
	set(at_apic, "kvm_lapic.lapic_timer.pending", 0);
	EXPECT_EQ(count(), 0u);
	set(at_apic, "kvm_lapic.lapic_timer.hv_timer_in_use", 1);	// Intel: the CPU's own had it
	EXPECT_EQ(count(), 1u);
	set(at_apic, "kvm_lapic.divide_count", 0);
	EXPECT_EQ(why(), "its APIC's timer contradicts itself");
}

TEST_F(Amd, F1_devices)
{
	memory.put(at_pic + layout.at("kvm_pic.pics").offset + 32 + 1, uint8_t{0x77});
	memory.put(at_ioapic, uint64_t{0xfec00000});
	memory.put(at_ioapic + 16, uint32_t{7});
	set(at_ioapic, "kvm_ioapic.irr_delivered", 2);
	memory.put(at_pit + layout.at("kvm_pit.pit_state.channels").offset, uint32_t{1193});
	const auto items = read_devices(layout, memory, root, vm);
	EXPECT_EQ(item<kvm_irqchip>(items, "IRQCHIP1").chip.pic.irr, 0x77);
	EXPECT_EQ(item<kvm_irqchip>(items, "IRQCHIP2").chip.ioapic.base_address, 0xfec00000u);
	EXPECT_EQ(item<kvm_irqchip>(items, "IRQCHIP2").chip.ioapic.irr, 5u);
	EXPECT_EQ(item<kvm_pit_state2>(items, "PIT2").channels[0].count, 1193u);
	EXPECT_EQ(item<kvm_clock_data>(items, "CLOCK").clock, 5100u);
	set(at_kvm, "kvm.arch.vpic", 0);
	EXPECT_THROW(read_devices(layout, memory, root, vm), std::runtime_error);
}

TEST_F(Amd, F3_whatever_the_old_kernel_has_written_there)
{
	std::mt19937_64 random(31);
	const Frames as_it_was = memory;

	for (int i = 0; i < 3000; i++) {
		for (const uint64_t at : {at_vcpu, at_vmcb, at_kvm, at_apic, at_apic_page, at_fpu})
			for (int k = static_cast<int>(random() % 40); k > 0; k--)
				memory.put(at + random() % 500 * 8, random() >> random() % 64);
		if (random() % 2)
			out_of_the_guest();
		try {
			read();
		} catch (const std::runtime_error &) {
		}
		try {
			read_devices(layout, memory, root, vm);
		} catch (const std::runtime_error &) {
		}
		memory.frames = as_it_was.frames;
	}
}

} // namespace
} // namespace redoubt::crash
