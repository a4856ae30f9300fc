// SPDX-License-Identifier: GPL-2.0
//
// What arch/x86/kvm/x86.c answers to the GETs, from the same fields.
#include "reader.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace redoubt::crash {
namespace {

constexpr unsigned int request_triple_fault = 8 + 2;	// KVM_REQ_TRIPLE_FAULT
constexpr uint64_t deadline_mode = 2u << 17;		// APIC_LVT_TIMER_TSCDEADLINE

} // namespace

Reader::Reader(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index, const char *type)
	: layout_(layout), root_(root), vm_(vm), index_(index), space_(memory, vm.pgd, vm.levels),
	  vcpu_(layout, space_, vm.vcpus.at(index), type), kvm_(layout, space_, vm.kvm, "kvm")
{
	// A CPU that runs on still writes here, and what it has of a VMCS is not in memory.
	if (!root.all_stopped())
		lost("a CPU has not stopped, or has left nothing: it may run on");
}

void Reader::put(const char *name, const void *data, size_t bytes)
{
	const auto *at = static_cast<const uint8_t *>(data);

	out_.items.push_back({name, {at, at + bytes}});
}

// The task has the guest's FPU state for as long as KVM_RUN takes.
const Cpu *Reader::task_cpu() const
{
	for (const auto &[number, cpu] : root_.cpus)
		if (cpu.head.fpstate == arch("guest_fpu.fpstate"))
			return &cpu;
	return nullptr;
}

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
	return Object(layout_, space_, arch("guest_fpu.fpstate"), "fpstate", layout_.at("fpstate.regs").offset).num("in_use");
}

// KVM was through with the last exit, and there has been none since. So it sleeps between that and the guest: what KVM does there to what is read
// here it does without sleeping.
bool Reader::has_worked() const
{
	const uint64_t vcpu = vm_.vcpus.at(index_), check = vcpu * RDT_CRASH_WORK_FACTOR ^ vcpu_.num("vcpu.stat.exits");

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
	const bool runnable = arch("mp_state") == KVM_MP_STATE_RUNNABLE, outside = !vcpu_.num("vcpu.mode");

	if (vcpu_.num("vcpu.kvm") != vm_.kvm)
		lost("the VM has another vCPU there");
	if (arch("guest_state_protected"))
		lost("its state is encrypted");
	check_kind();
	if (arch("complete_userspace_io") || vcpu_.num("vcpu.mmio_needed"))
		lost("an I/O of it was not complete");
	if (left_by_nmi())
		return "guest";
	if (!vcpu_.num("vcpu.mutex.owner"))
		return "user";
	// In KVM_SET_REGS, or on the way into KVM_RUN or out of it
	if (!in_run())
		lost("KVM was at work for it, outside of KVM_RUN");
	// On a CPU it may be in the middle of an INIT.
	if (!runnable && !task_cpu())
		return "halted";
	if ((arch("at_instruction_boundary") || left_by_interrupt()) && outside && runnable)
		return "interrupted";
	if (has_worked() && !task_cpu() && outside && runnable)
		return "waiting";
	lost("KVM was at work for it");
}

void Reader::regs()
{
	kvm_regs r{};
	__u64 *const to[] = {&r.rax, &r.rcx, &r.rdx, &r.rbx, &r.rsp, &r.rbp, &r.rsi, &r.rdi, &r.r8,
			     &r.r9,  &r.r10, &r.r11, &r.r12, &r.r13, &r.r14, &r.r15, &r.rip};

	for (size_t i = 0; i < std::size(to); i++)
		*to[i] = reg(i);
	r.rflags = cpu_rflags();
	if (vcpu_.num("vcpu.guest_debug") & KVM_GUESTDBG_SINGLESTEP)
		r.rflags &= ~flag_tf;
	put("REGS", r);
}

void Reader::sregs()
{
	kvm_sregs s{};

	segments(s);
	s.cr0 = cr0();
	s.cr2 = arch("cr2");
	s.cr3 = cr3();
	s.cr4 = cr4();
	const Object apic(layout_, space_, arch("apic"), "kvm_lapic");
	s.cr8 = tpr(Bytes(space_, apic.num("regs"), 1024, "the APIC")) >> 4;
	s.efer = arch("efer");
	s.apic_base = arch("apic_base");
	if (const auto nr = static_cast<uint8_t>(arch("interrupt.nr"));
	    arch("interrupt.injected") && !arch("interrupt.soft") && !unseen_)
		s.interrupt_bitmap[nr / 64] |= 1ull << (nr % 64);
	if (const Vectoring v = vectoring(); unseen_ && v.valid && v.type == Vectoring::interrupt)
		s.interrupt_bitmap[v.vector / 64] |= 1ull << (v.vector % 64);
	put("SREGS", s);
}

void Reader::events()
{
	kvm_vcpu_events e{};

	e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
	if (unseen_) {
		const Vectoring v = vectoring();
		if (v.valid && v.type >= Vectoring::software)
			lost("a software interrupt was being delivered");
		e.interrupt.injected = v.valid && v.type == Vectoring::interrupt;
		e.nmi.injected = v.valid && v.type == Vectoring::nmi;
		e.exception.injected = v.valid && v.type == Vectoring::exception;
		e.interrupt.nr = e.interrupt.injected ? static_cast<uint8_t>(v.vector) : 0;
		e.exception.nr = e.exception.injected ? static_cast<uint8_t>(v.vector) : 0;
		e.exception.has_error_code = e.exception.injected && v.has_error;
		e.exception.error_code = e.exception.has_error_code ? v.error : 0;
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
	e.interrupt.shadow = interrupt_shadow();
	e.nmi.pending = static_cast<uint8_t>(std::min<uint64_t>(arch("nmi_pending") + arch("nmi_queued"), 2));
	e.nmi.masked = nmi_masked();
	e.smi.pending = arch("smi_pending");
	if (kvm_.num("arch.exception_payload_enabled"))
		e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (kvm_.num("arch.triple_fault_event")) {
		e.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
		e.triple_fault.pending = vcpu_.num("vcpu.requests") >> request_triple_fault & 1;
	}
	put("VCPU_EVENTS", e);
}

void Reader::debugregs()
{
	kvm_debugregs d{};
	const bool live = unseen_ && arch("switch_db_regs") & debugregs_wont_exit;
	const Cpu *const cpu = its_cpu();

	if (live && !cpu)
		lost("its debug registers were in a CPU that left nothing");
	for (size_t i = 0; i < 4; i++)
		d.db[i] = live ? cpu->head.dr[i] : vcpu_.num("vcpu.arch.db", i, 8);
	d.dr6 = live ? live_dr6(*cpu) : arch("dr6");
	d.dr7 = live ? live_dr7() : arch("dr7");
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

// What was left of it when the CPUs stopped; not 0 where it still has to fire.
uint32_t Reader::timer_count(const Object &apic, uint32_t initial) const
{
	const uint64_t period = apic.num("lapic_timer.period");

	if (!initial || !period || apic.num("lapic_timer.timer_mode") == deadline_mode)
		return 0;
	const uint64_t cycle = kvm_.has("arch.apic_bus_cycle_ns") ? kvm_.num("arch.apic_bus_cycle_ns") : 1;
	const uint64_t now = root_.cpus.begin()->second.head.monotonic, then = apic.num("lapic_timer.target_expiration");
	const uint64_t unit = cycle * apic.num("divide_count");
	if (!unit)
		lost("its APIC's timer contradicts itself");
	const uint64_t left = then > now ? (then - now) % period / unit : 0;
	// The kernel's timer has it, or (Intel) the CPU's own, or it has fired and nobody has been told.
	const bool armed = apic.num("lapic_timer.timer.state") & 1 || apic.num("lapic_timer.hv_timer_in_use") || apic.num("lapic_timer.pending");
	return left || !armed ? static_cast<uint32_t>(left) : 1;
}

void Reader::lapic()
{
	constexpr size_t reg_id = 0x20, reg_tpr = 0x80, reg_icr = 0x300, reg_icr2 = 0x310, reg_initial = 0x380, reg_current = 0x390;
	constexpr uint64_t x2apic = 1 << 10;
	const Object apic(layout_, space_, arch("apic"), "kvm_lapic");
	const Bytes old(space_, apic.num("regs"), 1024, "the APIC");
	std::vector<uint8_t> page = old.all();
	const auto set = [&page](size_t at, uint32_t value) { memcpy(&page[at], &value, sizeof(value)); };

	end_pv_eoi(page);
	merge_posted(page);
	page[reg_tpr] = tpr(old);
	if (arch("apic_base") & x2apic) {
		uint64_t icr;
		memcpy(&icr, &page[reg_icr], sizeof(icr));
		set(reg_icr2, static_cast<uint32_t>(icr >> 32));
		set(reg_id, static_cast<uint32_t>(vcpu_.num("vcpu.vcpu_id")) << 24);
	}
	set(reg_current, timer_count(apic, old.at<uint32_t>(reg_initial)));
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
		area = cpu->xsave;
		if (!cpu->head.xcr0)
			area.resize(512);	// FXSAVE's
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
	const auto out = uabi_xsave(area, features, pkru(cpu, features), bytes);
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
	std::vector<kvm_msr_entry> list = {
		{0x10, 0, tsc + offset},
		{0x11, 0, kvm_.num("arch.wall_clock")},
		{0x12, 0, arch("time")},
		{0x3b, 0, arch("ia32_tsc_adjust_msr")},
		{0x9e, 0, arch("smbase")},
		{0x17a, 0, arch("mcg_status")},
		{0x17b, 0, arch("mcg_ctl")},
		{0x1a0, 0, arch("ia32_misc_enable_msr")},
		{0x277, 0, arch("pat")},
		{0x6e0, 0, deadline ? apic.num("lapic_timer.tscdeadline") : 0},
		{0xda0, 0, arch("ia32_xss")},
		{0x4b564d00, 0, kvm_.num("arch.wall_clock")},
		{0x4b564d01, 0, arch("time")},
		{0x4b564d02, 0, arch("apf.msr_en_val")},
		{0x4b564d03, 0, arch("st.msr_val")},
		{0x4b564d04, 0, arch("pv_eoi.msr_val")},
		{0x4b564d05, 0, arch("msr_kvm_poll_control")},
		{0x4b564d06, 0, arch("apf.msr_int_val")},
	};

	own_msrs(list);
	put("MSRS", list.data(), list.size() * sizeof(list[0]));
	put("TSC_OFFSET", offset);
	put("TSC_KHZ", static_cast<uint32_t>(arch("virtual_tsc_khz")));
}

Vcpu Reader::all()
{
	if (kvm_.num("online_vcpus") != vm_.vcpus.size())
		lost("the VM has got more vCPUs since it was registered");
	if (!arch("apic"))
		lost("its APIC is in its VMM");
	out_.id = static_cast<uint32_t>(vcpu_.num("vcpu.vcpu_id"));
	out_.where = place();
	in_guest_ = out_.where == "guest";
	unseen_ = unseen();
	check_whole();
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

Vcpu read_vcpu(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index)
{
	return (layout.is_intel() ? vmx_reader : svm_reader)(layout, memory, root, vm, index)->all();
}

} // namespace redoubt::crash
