// SPDX-License-Identifier: GPL-2.0
//
// What arch/x86/kvm/x86.c and svm/svm.c answer to the GETs, from the same fields. The VMCB is the CPU's own structure
// (AMD64 manual, volume 2, appendix B).
#include "vcpu.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include <linux/kvm.h>

#include "object.h"

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
constexpr uint8_t handling_nmi = 2;			// KVM_HANDLING_NMI
constexpr unsigned int request_triple_fault = 8 + 2;	// KVM_REQ_TRIPLE_FAULT
constexpr uint64_t deadline_mode = 2u << 17;		// APIC_LVT_TIMER_TSCDEADLINE
constexpr uint32_t debugregs_wont_exit = 2;		// KVM_DEBUGREG_WONT_EXIT
constexpr uint64_t flag_tf = 1 << 8, flag_rf = 1 << 16;

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

class Reader {
public:
	Reader(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index)
		: layout_(layout), root_(root), vm_(vm), index_(index), space_(memory, vm.pgd, vm.levels),
		  svm_(layout, space_, vm.vcpus.at(index), "vcpu_svm"),
		  vmcb_(space_, svm_.num("vmcb"), page_bytes, "the VMCB"), kvm_(layout, space_, vm.kvm, "kvm")
	{
	}
	Vcpu all();

private:
	uint64_t arch(const std::string &field) const { return svm_.num("vcpu.arch." + field); }
	void put(const char *name, const void *data, size_t bytes);
	template <typename T> void put(const char *name, const T &data) { put(name, &data, sizeof(data)); }
	std::string place() const;
	bool in_run() const;
	bool has_worked() const;
	void end_pv_eoi(std::vector<uint8_t> &page);
	bool on_a_cpu() const;
	const Cpu *its_cpu() const;
	void fpu_is_known() const;
	uint64_t rflags() const;
	uint8_t tpr() const;
	bool nmi_masked() const;

	void regs();
	void sregs();
	void events();
	void debugregs();
	void mp_state();
	void lapic();
	void xsave();
	void msrs();

	const Layout &layout_;
	const Root &root_;
	const Vm &vm_;
	const unsigned int index_;
	Space space_;
	const Object svm_;
	const Bytes vmcb_;
	const Object kvm_;
	bool in_guest_ = false;		// the panic's NMI took it out of the guest: KVM has not looked at the exit yet
	Vcpu out_;
};

void Reader::put(const char *name, const void *data, size_t bytes)
{
	const auto *at = static_cast<const uint8_t *>(data);

	out_.items.push_back({name, {at, at + bytes}});
}

// Was a CPU in its KVM_RUN? The task has the guest's FPU state for as long as that takes.
bool Reader::on_a_cpu() const
{
	return std::any_of(root_.cpus.begin(), root_.cpus.end(),
			   [this](const auto &c) { return c.second.head.fpstate == arch("guest_fpu.fpstate"); });
}

// The CPU whose FPU registers were this vCPU's when it stopped; nobody: they are in memory.
const Cpu *Reader::its_cpu() const
{
	for (const auto &[number, cpu] : root_.cpus)
		if (cpu.head.fpstate == arch("guest_fpu.fpstate") && !(cpu.head.flags & RDT_CRASH_FPU_IN_MEMORY))
			return &cpu;
	return nullptr;
}

// Inside KVM_RUN: what is said about its last exit is of this one, and nobody else changes it meanwhile.
bool Reader::in_run() const
{
	return Object(layout_, const_cast<Space &>(space_), arch("guest_fpu.fpstate"), "fpstate", layout_.at("fpstate.regs").offset).num("in_use");
}

// KVM was through with the last exit, and there has been none since. So it sleeps between that and the guest: what KVM does there to what is read
// here it does without sleeping.
bool Reader::has_worked() const
{
	const uint64_t vcpu = vm_.vcpus.at(index_), check = vcpu * RDT_CRASH_WORK_FACTOR ^ svm_.num("vcpu.stat.exits");

	return std::any_of(root_.works.begin(), root_.works.end(), [&](const rdt_crash_work &w) { return w.vcpu == vcpu && w.check == check; });
}

// Its task was on a CPU, and not in the guest: are its FPU registers in that CPU, or in memory? Both are wrong for the moment that moving
// them takes. In the CPU: not in a switch, where the task is the next one already and its registers are not (two locks are held there),
// nor in fpu_swap_kvm_fpstate() (softirqs are off). In memory: not in kernel_fpu_begin(), which says so before it has saved them.
void Reader::fpu_is_known() const
{
	for (const auto &[number, cpu] : root_.cpus) {
		if (cpu.head.fpstate != arch("guest_fpu.fpstate"))
			continue;
		const bool in_memory = cpu.head.flags & RDT_CRASH_FPU_IN_MEMORY;
		if (in_memory ? cpu.head.context != 0 : cpu.head.context & RDT_CRASH_SOFTIRQ || (cpu.head.context & RDT_CRASH_PREEMPT) > 1)
			lost("its FPU registers were between CPU and memory, or may have been");
	}
}

std::string Reader::place() const
{
	const bool hflags_of_61 = !svm_.has("nmi_masked");

	if (svm_.num("vcpu.kvm") != vm_.kvm)
		lost("the VM has another vCPU there");
	if (arch("guest_state_protected"))
		lost("its state is encrypted");
	if (svm_.num("vmcb") != svm_.num("vmcb01.ptr"))
		lost("it runs a nested guest");
	if (arch("hflags") & (hflags_of_61 ? 1 << 6 : 1 << 1))
		lost("it is in system management mode");
	if (arch("complete_userspace_io") || svm_.num("vcpu.mmio_needed"))
		lost("an I/O of it was not complete");
	if (arch("handling_intr_from_guest") == handling_nmi && vmcb_.at<uint64_t>(vmcb_exit_code) == exit_nmi)
		return "guest";
	if (!svm_.num("vcpu.mutex.owner"))
		return "user";
	// In KVM_SET_REGS, or on the way into KVM_RUN or out of it
	if (!in_run())
		lost("KVM was at work for it, outside of KVM_RUN");
	// On a CPU it may be in the middle of an INIT.
	if (arch("mp_state") != KVM_MP_STATE_RUNNABLE && !on_a_cpu())
		return "halted";
	if (arch("at_instruction_boundary") && !svm_.num("vcpu.mode") && arch("mp_state") == KVM_MP_STATE_RUNNABLE)
		return "interrupted";
	if (has_worked() && !on_a_cpu() && !svm_.num("vcpu.mode") && arch("mp_state") == KVM_MP_STATE_RUNNABLE)
		return "waiting";
	lost("KVM was at work for it");
}

uint64_t Reader::rflags() const
{
	uint64_t flags = vmcb_.at<uint64_t>(vmcb_rflags);

	if (svm_.num("nmi_singlestep"))
		flags &= svm_.num("nmi_singlestep_guest_rflags") | ~(flag_tf | flag_rf);
	if (svm_.num("vcpu.guest_debug") & KVM_GUESTDBG_SINGLESTEP)
		flags &= ~flag_tf;
	return flags;
}

void Reader::regs()
{
	kvm_regs r{};
	__u64 *const to[] = {&r.rax, &r.rcx, &r.rdx, &r.rbx, &r.rsp, &r.rbp, &r.rsi, &r.rdi, &r.r8,
			     &r.r9,  &r.r10, &r.r11, &r.r12, &r.r13, &r.r14, &r.r15, &r.rip};

	for (size_t i = 0; i < std::size(to); i++)
		*to[i] = svm_.num("vcpu.arch.regs", i, 8);
	r.rflags = rflags();
	put("REGS", r);
}

// The task priority; KVM takes it from the VMCB into the APIC behind each exit.
uint8_t Reader::tpr() const
{
	constexpr uint32_t cr8_write = 1u << (16 + 8);
	const Object apic(layout_, const_cast<Space &>(space_), arch("apic"), "kvm_lapic");
	const Bytes page(const_cast<Space &>(space_), apic.num("regs"), 1024, "the APIC");

	if (in_guest_ && !(vmcb_.at<uint32_t>(vmcb_cr_intercepts) & cr8_write))
		return static_cast<uint8_t>(vmcb_.at<uint32_t>(vmcb_int_ctl) << 4 | (page.at<uint32_t>(0x80) & 15));
	return page.at<uint8_t>(0x80);
}

void Reader::sregs()
{
	constexpr uint32_t cr0_write = 1u << 16;
	kvm_sregs s{};

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
	// What the guest may change without an exit KVM takes from the VMCB behind the next one.
	s.cr0 = in_guest_ && !(vmcb_.at<uint32_t>(vmcb_cr_intercepts) & cr0_write) ? vmcb_.at<uint64_t>(vmcb_cr0) : arch("cr0");
	s.cr2 = arch("cr2");
	s.cr3 = in_guest_ ? vmcb_.at<uint64_t>(vmcb_cr3) : arch("cr3");
	s.cr4 = arch("cr4");
	s.cr8 = arch("apic") ? tpr() >> 4 : arch("cr8");
	s.efer = arch("efer");
	s.apic_base = arch("apic_base");
	if (const auto nr = static_cast<uint8_t>(arch("interrupt.nr"));
	    arch("interrupt.injected") && !arch("interrupt.soft") && !in_guest_)
		s.interrupt_bitmap[nr / 64] |= 1ull << (nr % 64);
	if (const auto info = vmcb_.at<uint32_t>(vmcb_exit_int_info); in_guest_ && info >> 31 && (info >> 8 & 7) == 0)
		s.interrupt_bitmap[(info & 255) / 64] |= 1ull << (info & 63);
	put("SREGS", s);
}

bool Reader::nmi_masked() const
{
	return svm_.has("nmi_masked") ? svm_.num("nmi_masked") : arch("hflags") & 1 << 3;
}

void Reader::events()
{
	const auto info = vmcb_.at<uint32_t>(vmcb_exit_int_info);
	kvm_vcpu_events e{};

	e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
	if (in_guest_) {
		// What was being delivered when it left, as svm_complete_interrupts() takes it up.
		const unsigned int type = info >> 31 ? info >> 8 & 7 : 1;
		if (type == 4)
			lost("a software interrupt was being delivered");
		e.interrupt.injected = type == 0;
		e.nmi.injected = type == 2;
		e.exception.injected = type == 3;
		e.interrupt.nr = type == 0 ? info & 255 : 0;
		e.exception.nr = type == 3 ? info & 255 : 0;
		e.exception.has_error_code = type == 3 && info >> 11 & 1;
		e.exception.error_code = e.exception.has_error_code ? vmcb_.at<uint32_t>(vmcb_exit_int_info + 4) : 0;
	} else {
		const auto vector = static_cast<uint8_t>(arch("exception.vector"));
		if (vector != 3 && vector != 4) {
			e.exception.injected = arch("exception.injected");
			e.exception.pending = arch("exception.pending");
			if (!kvm_.num("arch.exception_payload_enabled"))
				e.exception.injected |= e.exception.pending;
		}
		e.exception.nr = vector;
		e.exception.has_error_code = arch("exception.has_error_code");
		e.exception.error_code = static_cast<uint32_t>(arch("exception.error_code"));
		e.exception_has_payload = arch("exception.has_payload");
		e.exception_payload = arch("exception.payload");
		e.interrupt.injected = arch("interrupt.injected") && !arch("interrupt.soft");
		e.interrupt.nr = static_cast<uint8_t>(arch("interrupt.nr"));
		e.nmi.injected = arch("nmi_injected");
	}
	if (vmcb_.at<uint32_t>(vmcb_int_state) & 1)
		e.interrupt.shadow = KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS;
	e.nmi.pending = static_cast<uint8_t>(std::min<uint64_t>(arch("nmi_pending") + arch("nmi_queued"), 2));
	e.nmi.masked = nmi_masked();
	e.smi.pending = arch("smi_pending");
	if (kvm_.num("arch.exception_payload_enabled"))
		e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (kvm_.num("arch.triple_fault_event")) {
		e.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
		e.triple_fault.pending = svm_.num("vcpu.requests") >> request_triple_fault & 1;
	}
	put("VCPU_EVENTS", e);
}

void Reader::debugregs()
{
	kvm_debugregs d{};
	const bool live = in_guest_ && arch("switch_db_regs") & debugregs_wont_exit;
	const Cpu *const cpu = its_cpu();

	if (live && !cpu)
		lost("its debug registers were in a CPU that left nothing");
	for (size_t i = 0; i < 4; i++)
		d.db[i] = live ? cpu->head.dr[i] : svm_.num("vcpu.arch.db", i, 8);
	d.dr6 = live ? vmcb_.at<uint64_t>(vmcb_dr6) : arch("dr6");
	d.dr7 = live ? vmcb_.at<uint64_t>(vmcb_dr7) : arch("dr7");
	put("DEBUGREGS", d);
}

void Reader::mp_state()
{
	kvm_mp_state s{};

	s.mp_state = static_cast<uint32_t>(arch("mp_state"));
	if ((s.mp_state == KVM_MP_STATE_HALTED || s.mp_state == KVM_MP_STATE_AP_RESET_HOLD) && arch("pv.pv_unhalted"))
		s.mp_state = KVM_MP_STATE_RUNNABLE;
	put("MP_STATE", s);
}

// Behind each exit KVM looks whether the guest has ended its interrupt by a bit in its memory, and takes the offer back: nobody else knows of it.
void Reader::end_pv_eoi(std::vector<uint8_t> &page)
{
	constexpr uint64_t check_vapic = 1 << 0, pv_eoi_pending = 1 << 1;
	constexpr size_t reg_isr = 0x100;
	uint8_t offer;

	if (arch("apic_attention") & check_vapic)
		lost("its task priority is in a page of the guest's");
	if (!(arch("apic_attention") & pv_eoi_pending))
		return;
	if (!space_.read(arch("pv_eoi.data.hva"), &offer, sizeof(offer)))
		lost("whether it has ended its interrupt is not in memory");
	if (offer) {
		out_.writes.emplace_back(arch("pv_eoi.data.hva"), 0);
		return;
	}
	for (size_t i = 8; i-- > 0;) {
		uint32_t isr;
		memcpy(&isr, &page[reg_isr + i * 16], sizeof(isr));
		if (!isr)
			continue;
		isr &= ~(1u << (31 - __builtin_clz(isr)));
		memcpy(&page[reg_isr + i * 16], &isr, sizeof(isr));
		return;
	}
}

// The timer's current count is what was left of it when the CPUs stopped; not 0 where it still has to fire.
void Reader::lapic()
{
	constexpr size_t reg_id = 0x20, reg_tpr = 0x80, reg_icr = 0x300, reg_icr2 = 0x310, reg_initial = 0x380, reg_current = 0x390;
	constexpr uint64_t x2apic = 1 << 10;
	const Object apic(layout_, space_, arch("apic"), "kvm_lapic");
	std::vector<uint8_t> page = Bytes(space_, apic.num("regs"), 1024, "the APIC").all();
	const auto set = [&page](size_t at, uint32_t value) { memcpy(&page[at], &value, sizeof(value)); };

	end_pv_eoi(page);
	page[reg_tpr] = tpr();
	if (arch("apic_base") & x2apic) {
		uint64_t icr;
		memcpy(&icr, &page[reg_icr], sizeof(icr));
		set(reg_icr2, static_cast<uint32_t>(icr >> 32));
		set(reg_id, static_cast<uint32_t>(svm_.num("vcpu.vcpu_id")) << 24);
	}
	uint32_t initial;
	memcpy(&initial, &page[reg_initial], sizeof(initial));
	const uint64_t period = apic.num("lapic_timer.period");
	uint64_t left = 0;
	if (initial && period && apic.num("lapic_timer.timer_mode") != deadline_mode) {
		const uint64_t cycle = kvm_.has("arch.apic_bus_cycle_ns") ? kvm_.num("arch.apic_bus_cycle_ns") : 1;
		const uint64_t now = root_.cpus.begin()->second.head.monotonic, then = apic.num("lapic_timer.target_expiration");
		const uint64_t unit = cycle * apic.num("divide_count");
		if (!unit)
			lost("its APIC's timer contradicts itself");
		left = then > now ? (then - now) % period / unit : 0;
		if (!left && (apic.num("lapic_timer.timer.state") & 1 || apic.num("lapic_timer.pending")))
			left = 1;
	}
	set(reg_current, static_cast<uint32_t>(left));
	put("LAPIC", page.data(), page.size());
}

void Reader::xsave()
{
	const uint64_t address = arch("guest_fpu.fpstate");
	// The registers are its last member, with as many bytes as there are.
	const Object state(layout_, space_, address, "fpstate", layout_.at("fpstate.regs").offset);
	const Cpu *const cpu = its_cpu();
	std::vector<uint8_t> area;

	if (cpu) {
		if (!cpu->head.xcr0)
			lost("its FPU registers were saved without XSAVE");
		area = cpu->xsave;
	} else {
		const uint64_t bytes = state.num("size");
		if (bytes > 64 << 10)
			lost("its FPU state contradicts itself");
		area = Bytes(space_, address + layout_.at("fpstate.regs").offset, bytes, "its FPU state").all();
	}
	const uint64_t bytes = arch("guest_fpu.uabi_size");
	if (bytes > 64 << 10)
		lost("its FPU state contradicts itself");
	const uint64_t features = state.num("user_xfeatures") & (arch("guest_supported_xcr0") | 3);
	const auto out = uabi_xsave(area, features, static_cast<uint32_t>(arch("pkru")), bytes);
	put("XSAVE", out.data(), out.size());

	kvm_xcrs x{};
	x.nr_xcrs = 1;
	x.xcrs[0].value = arch("xcr0");
	put("XCRS", x);
}

void Reader::msrs()
{
	// The time at which it stopped: of its CPU, or of any
	const uint64_t offset = arch("l1_tsc_offset");
	const uint64_t tsc = (its_cpu() ? its_cpu() : &root_.cpus.begin()->second)->head.tsc;
	const Object apic(layout_, space_, arch("apic"), "kvm_lapic");
	const bool deadline = apic.num("lapic_timer.timer_mode") == deadline_mode;
	const kvm_msr_entry list[] = {
		{0x10, 0, tsc + offset},
		{0x11, 0, kvm_.num("arch.wall_clock")},
		{0x12, 0, arch("time")},
		{0x3b, 0, arch("ia32_tsc_adjust_msr")},
		{0x9e, 0, arch("smbase")},
		{0x48, 0, svm_.num("spec_ctrl") ? svm_.num("spec_ctrl") : vmcb_.at<uint64_t>(vmcb_spec_ctrl)},
		{0x174, 0, vmcb_.at<uint32_t>(vmcb_sysenter_cs)},
		{0x175, 0, vmcb_.at<uint32_t>(vmcb_sysenter_esp) | svm_.num("sysenter_esp_hi") << 32},
		{0x176, 0, vmcb_.at<uint32_t>(vmcb_sysenter_eip) | svm_.num("sysenter_eip_hi") << 32},
		{0x17a, 0, arch("mcg_status")},
		{0x17b, 0, arch("mcg_ctl")},
		{0x1a0, 0, arch("ia32_misc_enable_msr")},
		{0x1d9, 0, vmcb_.at<uint64_t>(vmcb_dbgctl)},
		{0x277, 0, arch("pat")},
		{0x6e0, 0, deadline ? apic.num("lapic_timer.tscdeadline") : 0},
		{0xda0, 0, arch("ia32_xss")},
		{0xc0000081, 0, vmcb_.at<uint64_t>(vmcb_star)},
		{0xc0000082, 0, vmcb_.at<uint64_t>(vmcb_lstar)},
		{0xc0000083, 0, vmcb_.at<uint64_t>(vmcb_cstar)},
		{0xc0000084, 0, vmcb_.at<uint64_t>(vmcb_sfmask)},
		{0xc0000102, 0, vmcb_.at<uint64_t>(vmcb_kernel_gs_base)},
		{0xc0000103, 0, svm_.num("tsc_aux")},
		{0xc001011f, 0, svm_.num("virt_spec_ctrl")},
		{0x4b564d00, 0, kvm_.num("arch.wall_clock")},
		{0x4b564d01, 0, arch("time")},
		{0x4b564d02, 0, arch("apf.msr_en_val")},
		{0x4b564d03, 0, arch("st.msr_val")},
		{0x4b564d04, 0, arch("pv_eoi.msr_val")},
		{0x4b564d05, 0, arch("msr_kvm_poll_control")},
		{0x4b564d06, 0, arch("apf.msr_int_val")},
	};

	put("MSRS", list, sizeof(list));
	put("TSC_OFFSET", offset);
	put("TSC_KHZ", static_cast<uint32_t>(arch("virtual_tsc_khz")));
}

Vcpu Reader::all()
{
	if (!root_.all_stopped())
		lost("a CPU has not stopped, or has left nothing: it may run on");
	if (kvm_.num("online_vcpus") != vm_.vcpus.size())
		lost("the VM has got more vCPUs since it was registered");
	if (!arch("apic"))
		lost("its APIC is in its VMM");
	out_.id = static_cast<uint32_t>(svm_.num("vcpu.vcpu_id"));
	out_.where = place();
	in_guest_ = out_.where == "guest";
	if (in_guest_ && !its_cpu())
		lost("its FPU registers were in a CPU that left nothing");
	if (!in_guest_)
		fpu_is_known();
	regs();
	sregs();
	events();
	debugregs();
	mp_state();
	lapic();
	xsave();
	msrs();
	return out_;
}

} // namespace

Vcpu read_vcpu(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index)
{
	return Reader(layout, memory, root, vm, index).all();
}

} // namespace redoubt::crash
