// SPDX-License-Identifier: GPL-2.0
//
// A vCPU of kvm_amd: what svm/svm.c takes from the VMCB, which is the CPU's own structure (AMD64 manual, volume 2, appendix B).
#include "reader.h"

namespace redoubt::crash {
namespace {

// VMCB: control area, then the save area at 0x400
enum : size_t {
	vmcb_cr_intercepts = 0x000, vmcb_int_ctl = 0x060, vmcb_int_state = 0x068, vmcb_exit_code = 0x070,
	vmcb_exit_int_info = 0x088, vmcb_es = 0x400, vmcb_cs = 0x410, vmcb_ss = 0x420, vmcb_ds = 0x430, vmcb_fs = 0x440,
	vmcb_gs = 0x450, vmcb_gdtr = 0x460, vmcb_ldtr = 0x470, vmcb_idtr = 0x480, vmcb_tr = 0x490, vmcb_cpl = 0x4cb,
	vmcb_cr3 = 0x550, vmcb_cr0 = 0x558, vmcb_dr7 = 0x560, vmcb_dr6 = 0x568, vmcb_rflags = 0x570, vmcb_star = 0x600,
	vmcb_lstar = 0x608, vmcb_cstar = 0x610, vmcb_sfmask = 0x618, vmcb_kernel_gs_base = 0x620, vmcb_sysenter_cs = 0x628,
	vmcb_sysenter_esp = 0x630, vmcb_sysenter_eip = 0x638, vmcb_dbgctl = 0x670,
	vmcb_spec_ctrl = 0x6e0,
};
constexpr uint64_t exit_nmi = 0x61;

kvm_segment segment(const Bytes &vmcb, size_t at)
{
	const auto attrib = vmcb.at<uint16_t>(at + 2);
	kvm_segment s{};

	s.selector = vmcb.at<uint16_t>(at);
	s.limit = vmcb.at<uint32_t>(at + 4);
	s.base = vmcb.at<uint64_t>(at + 8);
	s.type = attrib & 15;
	s.s = attrib >> 4 & 1;
	s.dpl = attrib >> 5 & 3;
	s.present = attrib >> 7 & 1;
	s.avl = attrib >> 8 & 1;
	s.l = attrib >> 9 & 1;
	s.db = attrib >> 10 & 1;
	s.g = s.limit > 0xfffff;
	s.unusable = !s.present;
	return s;
}

kvm_dtable table(const Bytes &vmcb, size_t at)
{
	kvm_dtable t{};

	t.limit = static_cast<uint16_t>(vmcb.at<uint32_t>(at + 4));
	t.base = vmcb.at<uint64_t>(at + 8);
	return t;
}

kvm_segment data_segment(const Bytes &vmcb, size_t at)
{
	kvm_segment s = segment(vmcb, at);

	s.type |= !s.unusable;
	return s;
}

class Svm : public Reader {
public:
	Svm(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index)
		: Reader(layout, memory, root, vm, index, "vcpu_svm"), vmcb_(space_, vcpu_.num("vmcb"), page_bytes, "the VMCB")
	{
	}

private:
	void check_kind() const override;
	bool left_by_nmi() const override
	{
		return arch("handling_intr_from_guest") == handling_nmi && vmcb_.at<uint64_t>(vmcb_exit_code) == exit_nmi;
	}
	bool unseen() const override { return in_guest(); }
	uint64_t cpu_rflags() const override;
	void segments(kvm_sregs &s) const override;
	uint64_t cr0() const override;
	uint64_t cr3() const override { return in_guest() ? vmcb_.at<uint64_t>(vmcb_cr3) : arch("cr3"); }
	uint64_t cr4() const override { return arch("cr4"); }
	Vectoring vectoring() const override;
	uint8_t interrupt_shadow() const override
	{
		return vmcb_.at<uint32_t>(vmcb_int_state) & 1 ? KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS : 0;
	}
	bool nmi_masked() const override { return vcpu_.has("nmi_masked") ? vcpu_.num("nmi_masked") : arch("hflags") & 1 << 3; }
	uint64_t live_dr6(const Cpu &) const override { return vmcb_.at<uint64_t>(vmcb_dr6); }
	uint64_t live_dr7() const override { return vmcb_.at<uint64_t>(vmcb_dr7); }
	uint8_t tpr(const Bytes &page) const override;
	void own_msrs(std::vector<kvm_msr_entry> &msrs) const override;

	const Bytes vmcb_;
};

void Svm::check_kind() const
{
	const bool hflags_of_61 = !vcpu_.has("nmi_masked");

	if (vcpu_.num("vmcb") != vcpu_.num("vmcb01.ptr"))
		lost("it runs a nested guest");
	if (arch("hflags") & (hflags_of_61 ? 1 << 6 : 1 << 1))
		lost("it is in system management mode");
}

uint64_t Svm::cpu_rflags() const
{
	uint64_t flags = vmcb_.at<uint64_t>(vmcb_rflags);

	if (vcpu_.num("nmi_singlestep"))
		flags &= vcpu_.num("nmi_singlestep_guest_rflags") | ~(flag_tf | flag_rf);
	return flags;
}

void Svm::segments(kvm_sregs &s) const
{
	s.cs = segment(vmcb_, vmcb_cs);
	s.ds = data_segment(vmcb_, vmcb_ds);
	s.es = data_segment(vmcb_, vmcb_es);
	s.fs = data_segment(vmcb_, vmcb_fs);
	s.gs = data_segment(vmcb_, vmcb_gs);
	s.ss = segment(vmcb_, vmcb_ss);
	if (s.ss.unusable)
		s.ss.db = 0;
	s.ss.dpl = vmcb_.at<uint8_t>(vmcb_cpl);
	s.tr = segment(vmcb_, vmcb_tr);
	s.tr.type |= 2;
	s.ldt = segment(vmcb_, vmcb_ldtr);
	s.gdt = table(vmcb_, vmcb_gdtr);
	s.idt = table(vmcb_, vmcb_idtr);
}

// What the guest may change without an exit KVM takes from the VMCB behind the next one.
uint64_t Svm::cr0() const
{
	constexpr uint32_t cr0_write = 1u << 16;

	return in_guest() && !(vmcb_.at<uint32_t>(vmcb_cr_intercepts) & cr0_write) ? vmcb_.at<uint64_t>(vmcb_cr0) : arch("cr0");
}

// As svm_complete_interrupts() takes it up
Vectoring Svm::vectoring() const
{
	const auto info = vmcb_.at<uint32_t>(vmcb_exit_int_info);

	return {info >> 31 != 0, (info >> 11 & 1) != 0, info >> 8 & 7, info & 255, vmcb_.at<uint32_t>(vmcb_exit_int_info + 4)};
}

// The task priority; KVM takes it from the VMCB into the APIC behind each exit.
uint8_t Svm::tpr(const Bytes &page) const
{
	constexpr uint32_t cr8_write = 1u << (16 + 8);

	if (in_guest() && !(vmcb_.at<uint32_t>(vmcb_cr_intercepts) & cr8_write))
		return static_cast<uint8_t>(vmcb_.at<uint32_t>(vmcb_int_ctl) << 4 | (page.at<uint32_t>(0x80) & 15));
	return Reader::tpr(page);
}

void Svm::own_msrs(std::vector<kvm_msr_entry> &msrs) const
{
	const kvm_msr_entry list[] = {
		{0x48, 0, vcpu_.num("spec_ctrl") ? vcpu_.num("spec_ctrl") : vmcb_.at<uint64_t>(vmcb_spec_ctrl)},
		{0x174, 0, vmcb_.at<uint32_t>(vmcb_sysenter_cs)},
		{0x175, 0, vmcb_.at<uint32_t>(vmcb_sysenter_esp) | vcpu_.num("sysenter_esp_hi") << 32},
		{0x176, 0, vmcb_.at<uint32_t>(vmcb_sysenter_eip) | vcpu_.num("sysenter_eip_hi") << 32},
		{0x1d9, 0, vmcb_.at<uint64_t>(vmcb_dbgctl)},
		{0xc0000081, 0, vmcb_.at<uint64_t>(vmcb_star)},
		{0xc0000082, 0, vmcb_.at<uint64_t>(vmcb_lstar)},
		{0xc0000083, 0, vmcb_.at<uint64_t>(vmcb_cstar)},
		{0xc0000084, 0, vmcb_.at<uint64_t>(vmcb_sfmask)},
		{0xc0000102, 0, vmcb_.at<uint64_t>(vmcb_kernel_gs_base)},
		{0xc0000103, 0, vcpu_.num("tsc_aux")},
		{0xc001011f, 0, vcpu_.num("virt_spec_ctrl")},
	};

	msrs.insert(msrs.end(), std::begin(list), std::end(list));
}

} // namespace

std::unique_ptr<Reader> svm_reader(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index)
{
	return std::make_unique<Svm>(layout, memory, root, vm, index);
}

} // namespace redoubt::crash
