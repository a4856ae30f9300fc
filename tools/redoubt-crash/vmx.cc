// SPDX-License-Identifier: GPL-2.0
//
// A vCPU of kvm_intel: what vmx/vmx.c takes from the VMCS, which a CPU has to read (Intel SDM, volume 3, chapter 25 and appendix B).
#include "reader.h"

#include <algorithm>
#include <map>

namespace redoubt::crash {
namespace {

// Fields of the VMCS. Segments: ES, CS, SS, DS, FS, GS, LDTR, TR, each 2 further on
enum : uint32_t {
	selectors = 0x800, limits = 0x4800, rights = 0x4814, bases = 0x6806,
	gdtr_limit = 0x4810, idtr_limit = 0x4812, gdtr_base = 0x6816, idtr_base = 0x6818,
	guest_cr0 = 0x6800, guest_cr3 = 0x6802, guest_cr4 = 0x6804, guest_dr7 = 0x681a, guest_rsp = 0x681c, guest_rip = 0x681e,
	guest_rflags = 0x6820, pending_debug = 0x6822, sysenter_esp = 0x6824, sysenter_eip = 0x6826, sysenter_cs = 0x482a,
	interruptibility = 0x4824, activity = 0x4826, debugctl = 0x2802, bndcfgs = 0x2812,
	pin_controls = 0x4000, cpu_controls = 0x4002, exit_reason = 0x4402, exit_info = 0x4404, idt_info = 0x4408, idt_error = 0x440a,
	host_cr3 = 0x6c02, host_rsp = 0x6c14,
};
enum Segment : uint32_t { es, cs, ss, ds, fs, gs, ldtr, tr, nr_segments };

constexpr uint32_t reason_exception_nmi = 0, reason_interrupt = 1, entry_failed = 1u << 31;
constexpr uint32_t info_valid = 1u << 31, info_has_error = 1 << 11, info_unblocked = 1 << 12;
constexpr uint32_t blocked_by_sti = 1, blocked_by_mov_ss = 2, blocked_by_nmi = 8;
constexpr uint32_t virtual_nmis = 1 << 5, cr3_load_exits = 1 << 15;
constexpr uint32_t activity_halted = 1;
constexpr size_t regs_rsp = 4, regs_rip = 16, dirty_cr3 = 19;		// enum kvm_reg
constexpr uint64_t freeze_in_smm = 1 << 14;				// the host's own in DEBUGCTL
constexpr uint64_t cr4_pke = 1 << 22, xcr0_pkru = 1 << 9, xcr0_amx = 3 << 17;
constexpr size_t max_return_msrs = 16;

const std::vector<uint32_t> &all_fields()
{
	static const std::vector<uint32_t> all = [] {
		std::vector<uint32_t> out = {
			gdtr_limit, idtr_limit, gdtr_base, idtr_base, guest_cr0, guest_cr3, guest_cr4, guest_dr7, guest_rsp, guest_rip, guest_rflags,
			pending_debug, sysenter_esp, sysenter_eip, sysenter_cs, interruptibility, activity, debugctl, bndcfgs, pin_controls,
			cpu_controls, exit_reason, exit_info, idt_info, idt_error, host_cr3, host_rsp};
		for (uint32_t i = 0; i < nr_segments; i++)
			for (const uint32_t field : {selectors, limits, rights, bases})
				out.push_back(field + 2 * i);
		return out;
	}();

	return all;
}

class Vmx : public Reader {
public:
	Vmx(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index)
		: Reader(layout, memory, root, vm, index, "vcpu_vmx"), loaded_(layout, space_, vcpu_.num("loaded_vmcs"), "loaded_vmcs")
	{
		const auto at = space_.physical(loaded_.num("vmcs"));

		if (!at || *at % page_bytes)
			lost("its VMCS is not in memory");
		fields_ = memory.vmcs(*at, all_fields());
	}

private:
	uint64_t vmcs(uint32_t field) const
	{
		const auto it = fields_.find(field);

		if (it == fields_.end())
			lost("its VMCS has no field " + std::to_string(field));
		return it->second;
	}
	uint32_t vmcs32(uint32_t field) const { return static_cast<uint32_t>(vmcs(field)); }
	bool dirty(size_t reg) const { return arch("regs_dirty") >> reg & 1; }
	uint32_t reason() const { return static_cast<uint32_t>(vcpu_.num("exit_reason")); }
	bool left_for(uint32_t what) const { return (reason() & 0xffff) == what && !(reason() & entry_failed); }
	kvm_segment segment(Segment which) const;
	uint64_t kernel_gs_base() const;

	void check_kind() const override;
	void check_whole() const override;
	bool left_by_nmi() const override
	{
		const uint32_t info = vmcs32(exit_info);

		return arch("handling_intr_from_guest") == handling_nmi && left_for(reason_exception_nmi) && info & info_valid &&
		       (info >> 8 & 7) == Vectoring::nmi;
	}
	// vmx_handle_exit_irqoff() calls the interrupt's handler, at_instruction_boundary is not set yet.
	bool left_by_interrupt() const override { return arch("handling_intr_from_guest") == handling_irq && left_for(reason_interrupt); }
	// 6.12 takes the NMI in vmx_vcpu_enter_exit(), with nothing else done; 6.1 in vmx_handle_exit_irqoff(), with all done that is done there.
	// vcpu->mode is left in between.
	bool unseen() const override { return in_guest() && vcpu_.num("vcpu.mode"); }

	uint64_t reg(size_t index) const override
	{
		const bool in_vmcs = (index == regs_rsp || index == regs_rip) && !dirty(index);

		return !in_vmcs ? arch_reg(index) : vmcs(index == regs_rsp ? guest_rsp : guest_rip);
	}
	uint64_t cpu_rflags() const override { return vmcs(guest_rflags); }
	void segments(kvm_sregs &s) const override;
	uint64_t cr0() const override { return merged("cr0", guest_cr0); }
	uint64_t cr3() const override { return dirty(dirty_cr3) || vmcs32(cpu_controls) & cr3_load_exits ? arch("cr3") : vmcs(guest_cr3); }
	uint64_t cr4() const override { return merged("cr4", guest_cr4); }
	uint64_t merged(const std::string &name, uint32_t field) const
	{
		const uint64_t owned = arch(name + "_guest_owned_bits");

		return (arch(name) & ~owned) | (vmcs(field) & owned);
	}
	Vectoring vectoring() const override
	{
		const uint32_t info = vmcs32(idt_info);

		return {(info & info_valid) != 0, (info & info_has_error) != 0, info >> 8 & 7, info & 255, vmcs32(idt_error)};
	}
	uint8_t interrupt_shadow() const override
	{
		const uint32_t by = vmcs32(interruptibility);

		return static_cast<uint8_t>((by & blocked_by_sti ? KVM_X86_SHADOW_INT_STI : 0) | (by & blocked_by_mov_ss ? KVM_X86_SHADOW_INT_MOV_SS : 0));
	}
	bool nmi_masked() const override;
	uint64_t live_dr6(const Cpu &cpu) const override { return cpu.head.dr6; }
	uint64_t live_dr7() const override { return vmcs(guest_dr7); }
	void merge_posted(std::vector<uint8_t> &page) const override;
	uint32_t pkru(const Cpu *cpu, uint64_t features) const override;
	void own_msrs(std::vector<kvm_msr_entry> &msrs) const override;

	const Object loaded_;
	std::map<uint32_t, uint64_t> fields_;
};

void Vmx::check_kind() const
{
	if (vcpu_.num("loaded_vmcs") != vm_.vcpus.at(index_) + layout_.at("vcpu_vmx.vmcs01").offset)
		lost("it runs a nested guest");
	// Those of nested guests and SMM, at other places in each kernel; on Intel there are no others.
	if (arch("hflags"))
		lost("it runs a nested guest, or is in system management mode");
	if (vcpu_.num("rmode.vm86_active") || vcpu_.num("emulation_required"))
		lost("it is in real mode, which this CPU cannot run");
	if (arch("guest_supported_xcr0") & xcr0_amx)
		lost("it has AMX, whose state is not read");
}

// That the VMCS is the one that KVM left the guest with: what KVM has written down of it is there.
void Vmx::check_whole() const
{
	if (reason() != vmcs32(exit_reason) || loaded_.num("host_state.rsp") != vmcs(host_rsp) || loaded_.num("host_state.cr3") != vmcs(host_cr3))
		lost("its VMCS is not as KVM has left it");
	if (vmcs32(activity) > activity_halted)
		lost("it is shut down, or waits to be started");
	if (vmcs(pending_debug))
		lost("a debug trap was pending");
	if (fields_.count(bndcfgs) && vmcs(bndcfgs))
		lost("it has MPX, whose state is not read");
}

kvm_segment Vmx::segment(Segment which) const
{
	const uint32_t attrib = vmcs32(rights + 2 * which);
	kvm_segment s{};

	s.selector = static_cast<uint16_t>(vmcs(selectors + 2 * which));
	s.limit = vmcs32(limits + 2 * which);
	s.base = vmcs(bases + 2 * which);
	s.unusable = attrib >> 16 & 1;
	s.type = attrib & 15;
	s.s = attrib >> 4 & 1;
	s.dpl = attrib >> 5 & 3;
	s.present = !s.unusable;
	s.avl = attrib >> 12 & 1;
	s.l = attrib >> 13 & 1;
	s.db = attrib >> 14 & 1;
	s.g = attrib >> 15 & 1;
	return s;
}

void Vmx::segments(kvm_sregs &s) const
{
	s.cs = segment(cs);
	s.ds = segment(ds);
	s.es = segment(es);
	s.fs = segment(fs);
	s.gs = segment(gs);
	s.ss = segment(ss);
	s.tr = segment(tr);
	s.ldt = segment(ldtr);
	s.gdt.base = vmcs(gdtr_base);
	s.gdt.limit = static_cast<uint16_t>(vmcs(gdtr_limit));
	s.idt.base = vmcs(idtr_base);
	s.idt.limit = static_cast<uint16_t>(vmcs(idtr_limit));
}

// As vmx_recover_nmi_blocking() and __vmx_complete_interrupts() leave it
bool Vmx::nmi_masked() const
{
	const Vectoring v = vectoring();

	if (!(vmcs32(pin_controls) & virtual_nmis))
		return loaded_.num("soft_vnmi_blocked");
	if (unseen() && v.valid && v.type == Vectoring::nmi)
		return false;
	if (unseen() && !v.valid && vmcs32(exit_info) & info_unblocked)
		return true;
	return vmcs32(interruptibility) & blocked_by_nmi;
}

void Vmx::merge_posted(std::vector<uint8_t> &page) const
{
	constexpr size_t reg_irr = 0x200;

	for (size_t i = 0; i < 8; i++) {
		uint32_t irr;
		memcpy(&irr, &page[reg_irr + i * 16], sizeof(irr));
		irr |= static_cast<uint32_t>(vcpu_.num("pi_desc.pir", i, sizeof(irr)));
		memcpy(&page[reg_irr + i * 16], &irr, sizeof(irr));
	}
}

// Before KVM has looked at the exit the CPU has the guest's XCR0 and PKRU, if the guest has set them; behind that, the host's.
uint32_t Vmx::pkru(const Cpu *cpu, uint64_t features) const
{
	if (!unseen() || !cpu || !cpu->head.xcr0)
		return Reader::pkru(cpu, features);
	if (features & ~cpu->head.xcr0 & ~xcr0_pkru)
		lost("its XCR0 hides FPU registers that it may have");
	if (cpu->head.xcr0 & xcr0_pkru)
		return features & xcr0_pkru ? saved_pkru(cpu->xsave) : 0;
	if (cr4() & cr4_pke)
		lost("its XCR0 hides PKRU");
	return Reader::pkru(cpu, features);
}

// In the CPU while KVM has the guest's state loaded, which it has at most while the vCPU's thread is on that CPU. KVM moves it
// (vcpu_put()) with preemption off, and says so behind that.
uint64_t Vmx::kernel_gs_base() const
{
	const Cpu *const cpu = task_cpu();

	if (!vcpu_.num("guest_state_loaded"))
		return vcpu_.num("msr_guest_kernel_gs_base");
	if (!cpu || cpu->head.cpu != loaded_.num("cpu"))
		lost("its KERNEL_GS_BASE was in a CPU that has not left it");
	if (!in_guest() && !left_by_interrupt() && cpu->head.context & RDT_CRASH_PREEMPT)
		lost("its KERNEL_GS_BASE was between CPU and memory, or may have been");
	return cpu->head.kernel_gs_base;
}

void Vmx::own_msrs(std::vector<kvm_msr_entry> &msrs) const
{
	constexpr uint32_t wanted[] = {0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000103, 0x122};
	const kvm_msr_entry list[] = {
		{0x3a, 0, vcpu_.num("msr_ia32_feature_control")},
		{0x48, 0, vcpu_.num("spec_ctrl")},
		{0xe1, 0, vcpu_.num("msr_ia32_umwait_control")},
		{0x174, 0, vmcs32(sysenter_cs)},
		{0x175, 0, vmcs(sysenter_esp)},
		{0x176, 0, vmcs(sysenter_eip)},
		{0x1d9, 0, vmcs(debugctl) & ~freeze_in_smm},
		{0xc0000102, 0, kernel_gs_base()},
	};
	// Which of KVM's "user return MSRs" has which place is known at KVM's start only; their values are always in memory.
	const Bytes names(space_, layout_.symbol("kvm_uret_msrs_list"), max_return_msrs * sizeof(uint32_t), "KVM's list of MSRs");
	size_t found = 0;

	msrs.insert(msrs.end(), std::begin(list), std::end(list));
	for (size_t i = 0; i < max_return_msrs; i++) {
		const auto index = names.at<uint32_t>(i * sizeof(uint32_t));
		if (std::find(std::begin(wanted), std::end(wanted), index) == std::end(wanted))
			continue;
		msrs.push_back({index, 0, vcpu_.element("guest_uret_msrs", i, "vmx_uret_msr", "data")});
		found += (index & ~3u) == 0xc0000080 || index == 0xc0000084;
	}
	// A list that is none: KVM was loaded anew since the layout was made.
	if (found != 4)
		lost("its STAR, LSTAR, CSTAR and SFMASK are not where they should be");
}

} // namespace

std::unique_ptr<Reader> vmx_reader(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index)
{
	return std::make_unique<Vmx>(layout, memory, root, vm, index);
}

} // namespace redoubt::crash
