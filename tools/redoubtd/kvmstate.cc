// SPDX-License-Identifier: GPL-2.0

#include "kvmstate.h"

#include <algorithm>
#include <cstring>

#include <linux/kvm.h>

namespace redoubt::agent {

namespace {

template <typename T> T at(std::span<const uint8_t> bytes, size_t offset)
{
	T out;

	if (offset > bytes.size() || sizeof(T) > bytes.size() - offset)
		throw Error("KVM's XSAVE area ends before what its CPUID says is in it");
	memcpy(&out, &bytes[offset], sizeof(T));
	return out;
}

void append(std::vector<uint8_t> &out, uint64_t value, size_t bytes)
{
	while (bytes--)
		out.push_back(static_cast<uint8_t>(value >> 8 * bytes));
}

// A subsection of one number: it is in the stream only if QEMU found that it matters.
void put_optional(QSection &cpu, const std::string &subsection, const std::string &field, size_t bytes, uint64_t value, uint64_t otherwise)
{
	if (cpu.has(subsection + "/" + field)) {
		cpu.set(subsection + "/" + field, value);
	} else if (value != otherwise) {
		std::vector<uint8_t> out;

		append(out, value, bytes);
		cpu.add(subsection, 1, field, out);
	}
}

// ---- registers -------------------------------------------------------------------

void put_regs(QSection &cpu, const kvm_regs &r)
{
	const uint64_t regs[] = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};

	for (size_t i = 0; i < std::size(regs); i++)
		cpu.set(element("env.regs", i), regs[i]);
	cpu.set("env.eip", r.rip);
	cpu.set("env.eflags", r.rflags);
}

// A descriptor's second word, as QEMU keeps it
uint32_t flags_of(const kvm_segment &s)
{
	return uint32_t{s.type} << 8 | uint32_t{s.s} << 12 | uint32_t{s.dpl} << 13 | uint32_t{s.present && !s.unusable} << 15 | uint32_t{s.avl} << 20 |
	       uint32_t{s.l} << 21 | uint32_t{s.db} << 22 | uint32_t{s.g} << 23;
}

void put_segment(QSection &cpu, const std::string &field, const kvm_segment &s)
{
	cpu.set(field + ".selector", s.selector);
	cpu.set(field + ".base", s.base);
	cpu.set(field + ".limit", s.limit);
	cpu.set(field + ".flags", flags_of(s));
}

// What of it QEMU keeps twice, for its translator; of a VM under KVM CPL and SMM count.
void put_hflags(QSection &cpu, const kvm_sregs &s, uint64_t rflags, bool smm)
{
	constexpr uint32_t cs32 = 1 << 4, ss32 = 1 << 5, addseg = 1 << 6, pe = 1 << 7, lma = 1 << 14, cs64 = 1 << 15, osfxsr = 1 << 22, smm_flag = 1 << 19;
	constexpr uint32_t mp_em_ts = 7 << 9, of_rflags = 1 << 8 | 1 << 17 | 3 << 12, own = 3 | cs32 | ss32 | addseg | pe | lma | cs64 | osfxsr | smm_flag |
									 mp_em_ts | of_rflags;
	auto h = static_cast<uint32_t>(cpu.get("env.hflags")) & ~own;

	h |= s.ss.dpl;
	h |= (s.cr0 & 1) ? pe : 0;
	h |= static_cast<uint32_t>(s.cr0 << 8) & mp_em_ts;
	h |= static_cast<uint32_t>(rflags) & of_rflags;
	h |= (s.cr4 >> 9 & 1) ? osfxsr : 0;
	h |= smm ? smm_flag : 0;
	if (s.efer >> 10 & 1)
		h |= lma;
	if ((h & lma) && s.cs.l) {
		h |= cs32 | ss32 | cs64;
	} else {
		h |= (s.cs.db ? cs32 : 0) | (s.ss.db ? ss32 : 0);
		if (!(h & pe) || (rflags >> 17 & 1) || !(h & cs32) || s.ds.base || s.es.base || s.ss.base)
			h |= addseg;
	}
	cpu.set("env.hflags", h);
}

void put_sregs(QSection &cpu, QSection &apic, const kvm_sregs &s)
{
	const kvm_segment segments[] = {s.es, s.cs, s.ss, s.ds, s.fs, s.gs};

	for (size_t i = 0; i < std::size(segments); i++)
		put_segment(cpu, element("env.segs", i), segments[i]);
	put_segment(cpu, "env.ldt", s.ldt);
	put_segment(cpu, "env.tr", s.tr);
	cpu.set("env.gdt.base", s.gdt.base);
	cpu.set("env.gdt.limit", s.gdt.limit);
	cpu.set("env.idt.base", s.idt.base);
	cpu.set("env.idt.limit", s.idt.limit);
	cpu.set("env.cr[0]", s.cr0);
	cpu.set("env.cr[2]", s.cr2);
	cpu.set("env.cr[3]", s.cr3);
	cpu.set("env.cr[4]", s.cr4);
	cpu.set("env.efer", s.efer);
	apic.set("apicbase", s.apic_base & 0xffffffff);
}

void put_debug(QSection &cpu, const kvm_debugregs &d)
{
	for (size_t i = 0; i < 4; i++)
		cpu.set(element("env.dr", i), d.db[i]);
	cpu.set(element("env.dr", 4), d.dr6);
	cpu.set(element("env.dr", 6), d.dr6);
	cpu.set(element("env.dr", 5), d.dr7);
	cpu.set(element("env.dr", 7), d.dr7);
}

// ---- FPU -------------------------------------------------------------------------

// Where a component lies in XSAVE's standard form; 0: this guest has none
size_t offset_of(const KvmItems &items, uint32_t component)
{
	const auto &bytes = items.bytes("CPUID2");

	for (size_t i = 0; i + sizeof(kvm_cpuid_entry2) <= bytes.size(); i += sizeof(kvm_cpuid_entry2)) {
		const auto entry = at<kvm_cpuid_entry2>(bytes, i);

		if (entry.function == 0xd && entry.index == component && entry.eax)
			return entry.ebx;
	}
	return 0;
}

void put_avx512(QSection &cpu, std::span<const uint8_t> x, size_t opmask, size_t zmm, size_t hi16)
{
	std::vector<uint8_t> out;
	bool any = false;

	const auto put = [&](uint64_t value) {
		any |= value != 0;
		append(out, value, 8);
	};
	for (size_t i = 0; i < 8; i++)
		put(at<uint64_t>(x, opmask + 8 * i));
	for (size_t i = 0; i < 16 * 4; i++)
		put(at<uint64_t>(x, zmm + 8 * i));
	for (size_t i = 0; i < 16 * 8; i++)
		put(at<uint64_t>(x, hi16 + 8 * i));
	if (!cpu.has("cpu/avx512/env.opmask_regs#0")) {
		if (any)
			cpu.add("cpu/avx512", 1, "all", out);
		return;
	}
	// In one piece behind the first field
	const size_t begin = cpu.place("cpu/avx512/env.opmask_regs#0").at;
	if (begin + out.size() > cpu.bytes().size())
		throw Error("the device state's cpu/avx512 is too short");
	std::copy(out.begin(), out.end(), cpu.bytes().begin() + static_cast<ptrdiff_t>(begin));
}

void put_fpu(QSection &cpu, const KvmItems &items)
{
	const std::span<const uint8_t> x = items.bytes("XSAVE");
	const uint64_t components = at<uint64_t>(x, 512);

	cpu.set("env.fpuc", at<uint16_t>(x, 0));
	cpu.set("env.fpus_vmstate", at<uint16_t>(x, 2));
	cpu.set("env.fptag_vmstate", at<uint8_t>(x, 4));
	cpu.set("env.mxcsr", at<uint32_t>(x, 24));
	const uint64_t op = at<uint16_t>(x, 6), ip = at<uint64_t>(x, 8), dp = at<uint64_t>(x, 16);
	if (cpu.has("cpu/fpop_ip_dp/env.fpop") || op || ip || dp) {
		if (!cpu.has("cpu/fpop_ip_dp/env.fpop")) {
			std::vector<uint8_t> out;

			append(out, op, 2);
			append(out, ip, 8);
			append(out, dp, 8);
			cpu.add("cpu/fpop_ip_dp", 1, "all", out);
		} else {
			cpu.set("cpu/fpop_ip_dp/env.fpop", op);
			cpu.set("cpu/fpop_ip_dp/env.fpip", ip);
			cpu.set("cpu/fpop_ip_dp/env.fpdp", dp);
		}
	}
	for (size_t i = 0; i < 8; i++) {
		const auto place = cpu.raw(element("env.fpregs", i));
		std::vector<uint8_t> out;

		append(out, at<uint64_t>(x, 32 + 16 * i), 8);
		append(out, at<uint16_t>(x, 40 + 16 * i), 2);
		if (place.size() != out.size())
			throw Error("the device state's FPU registers have another size");
		std::copy(out.begin(), out.end(), place.begin());
	}
	for (size_t i = 0; i < 16; i++) {
		cpu.set(element("env.xmm_regs[0]", i) + "._q_ZMMReg[0]", at<uint64_t>(x, 160 + 16 * i));
		cpu.set(element("env.xmm_regs[0]", i) + "._q_ZMMReg[1]", at<uint64_t>(x, 168 + 16 * i));
	}
	cpu.set("env.xstate_bv", components);
	if (const size_t ymm = offset_of(items, 2)) {
		for (size_t i = 0; i < 16; i++) {
			cpu.set(element("env.xmm_regs[1]", i) + "._q_ZMMReg[2]", at<uint64_t>(x, ymm + 16 * i));
			cpu.set(element("env.xmm_regs[1]", i) + "._q_ZMMReg[3]", at<uint64_t>(x, ymm + 8 + 16 * i));
		}
	}
	const size_t opmask = offset_of(items, 5), zmm = offset_of(items, 6), hi16 = offset_of(items, 7);
	if (opmask && zmm && hi16)
		put_avx512(cpu, x, opmask, zmm, hi16);
	if (const size_t pkru = offset_of(items, 9))
		put_optional(cpu, "cpu/pkru", "env.pkru", 4, at<uint32_t>(x, pkru), 0);
	// MPX and AMX, if the guest has used them
	if (components & (3u << 3 | 3u << 17))
		throw Error("the guest uses MPX or AMX: their registers are not carried when QEMU is killed");
}

// ---- events ----------------------------------------------------------------------

void put_events(QSection &cpu, const kvm_vcpu_events &e)
{
	// As QEMU does for a VM that is moved, outside of a nested guest
	const bool pending = (e.flags & KVM_VCPUEVENT_VALID_PAYLOAD) && e.exception.pending, exception = pending || e.exception.injected;

	cpu.set("env.exception_nr", exception ? e.exception.nr : 0xffffffff);
	// Of the last one, if there is none
	cpu.set("env.has_error_code", e.exception.has_error_code);
	put_optional(cpu, "cpu/error_code", "env.error_code", 4, e.exception.error_code, 0);
	if (pending && e.exception_has_payload && e.exception.nr == 1)
		cpu.set(element("env.dr", 6), e.exception_payload);
	if (pending && e.exception_has_payload && e.exception.nr == 14)
		cpu.set("env.cr[2]", e.exception_payload);
	cpu.set("env.interrupt_injected", e.interrupt.injected ? e.interrupt.nr : 0xffffffff);
	cpu.set("env.soft_interrupt", e.interrupt.soft);
	cpu.set("env.nmi_injected", e.nmi.injected);
	cpu.set("env.nmi_pending", e.nmi.pending);
	cpu.set("env.sipi_vector", e.sipi_vector);
	constexpr uint32_t nmi_mask = 1 << 2, smm_inside_nmi = 1 << 4;
	uint32_t hflags2 = static_cast<uint32_t>(cpu.get("env.hflags2")) & ~(nmi_mask | smm_inside_nmi);
	hflags2 |= e.nmi.masked ? nmi_mask : 0;
	hflags2 |= e.smi.smm_inside_nmi ? smm_inside_nmi : 0;
	cpu.set("env.hflags2", hflags2);
	if (e.smi.pending || e.smi.latched_init || ((e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) && e.triple_fault.pending))
		throw Error("the vCPU has an SMI, an INIT or a triple fault pending: this is not carried when QEMU is killed");
}

// ---- MSRs ------------------------------------------------------------------------

struct Msr {
	uint32_t index;
	const char *field;
};
constexpr Msr plain_msrs[] = {
	{0x10, "env.tsc"}, {0x174, "env.sysenter_cs"}, {0x175, "env.sysenter_esp"}, {0x176, "env.sysenter_eip"}, {0xc0000081, "env.star"},
	{0xc0000082, "env.lstar"}, {0xc0000083, "env.cstar"}, {0xc0000084, "env.fmask"}, {0xc0000102, "env.kernelgsbase"}, {0x277, "env.pat"},
	{0xc0010117, "env.vm_hsave"}, {0x2ff, "env.mtrr_deftype"}, {0x17a, "env.mcg_status"}, {0x17b, "env.mcg_ctl"}, {0xc0000103, "env.tsc_aux"},
	{0x11, "env.wall_clock_msr"}, {0x12, "env.system_time_msr"}, {0x9e, "env.smbase"},
};
constexpr uint32_t fixed_mtrrs[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

struct Optional {
	uint32_t index;
	const char *subsection, *field;
	size_t bytes;
	uint64_t otherwise;
};
constexpr Optional optional_msrs[] = {
	{0x4b564d02, "cpu/async_pf_msr", "env.async_pf_en_msr", 8, 0}, {0x4b564d06, "cpu/async_pf_int_msr", "env.async_pf_int_msr", 8, 0},
	{0x4b564d04, "cpu/async_pv_eoi_msr", "env.pv_eoi_en_msr", 8, 0}, {0x4b564d03, "cpu/steal_time_msr", "env.steal_time_msr", 8, 0},
	{0x4b564d05, "cpu/poll_control_msr", "env.poll_control_msr", 8, 1}, {0x3b, "cpu/msr_tsc_adjust", "env.tsc_adjust", 8, 0},
	{0x6e0, "cpu/msr_tscdeadline", "env.tsc_deadline", 8, 0}, {0x1a0, "cpu/msr_ia32_misc_enable", "env.msr_ia32_misc_enable", 8, 1},
	{0x3a, "cpu/msr_ia32_feature_control", "env.msr_ia32_feature_control", 8, 0}, {0xda0, "cpu/xss", "env.xss", 8, 0},
	{0xe1, "cpu/umwait", "env.umwait", 4, 0}, {0x48, "cpu/spec_ctrl", "env.spec_ctrl", 8, 0}, {0xc001011f, "cpu/virt_ssbd", "env.virt_ssbd", 8, 0},
	{0x122, "cpu/msr_tsx_ctrl", "env.tsx_ctrl", 4, 0},
};
// With more than one field in their subsections: not put in, so they must not matter
struct Refused {
	uint32_t first, last;
	const char *subsection, *what;
};
constexpr Refused refused_msrs[] = {
	{0x40000000, 0x40000001, "cpu/msr_hyperv_hypercall", "Hyper-V's interface"},
	{0x570, 0x572, "cpu/intel_pt", "Intel PT"},
	{0x1c4, 0x1c5, "cpu/msr_xfd", "AMX"},
	{0x38d, 0x38f, "cpu/msr_architectural_pmu", "performance counters"},
};

bool has_subsection(const QSection &cpu, const std::string &name)
{
	return std::string_view(reinterpret_cast<const char *>(cpu.bytes().data()), cpu.bytes().size()).find(name) != std::string_view::npos;
}

void put_msrs(QSection &cpu, const KvmItems &items)
{
	const auto &bytes = items.bytes("MSRS");

	for (size_t i = 0; i + sizeof(kvm_msr_entry) <= bytes.size(); i += sizeof(kvm_msr_entry)) {
		const auto m = at<kvm_msr_entry>(bytes, i);

		for (const Msr &p : plain_msrs) {
			if (p.index == m.index)
				cpu.set(p.field, m.data);
		}
		for (const Optional &o : optional_msrs) {
			if (o.index == m.index)
				put_optional(cpu, o.subsection, o.field, o.bytes, m.data, o.otherwise);
		}
		for (size_t k = 0; k < std::size(fixed_mtrrs); k++) {
			if (fixed_mtrrs[k] == m.index)
				cpu.set(element("env.mtrr_fixed", k), m.data);
		}
		if (m.index >= 0x200 && m.index < 0x210)
			cpu.set(element("env.mtrr_var", (m.index - 0x200) / 2) + (m.index & 1 ? ".mask" : ".base"), m.data);
		if (m.index >= 0x400 && m.index < 0x428 && cpu.has(element("env.mce_banks", m.index - 0x400)))
			cpu.set(element("env.mce_banks", m.index - 0x400), m.data);
		for (const Refused &r : refused_msrs) {
			if (m.index >= r.first && m.index <= r.last && m.data && !has_subsection(cpu, r.subsection))
				throw Error("the guest uses " + std::string(r.what) + ": not carried when QEMU is killed");
		}
	}
}

QSection &nth(QStream &stream, const char *name, size_t rank)
{
	const auto all = stream.all(name);

	if (rank >= all.size())
		throw Error("the device state has no section " + std::string(name) + " for vCPU " + std::to_string(rank));
	return *all[rank];
}

// As CPUID tells it to the guest
uint32_t apic_id(const KvmItems &items)
{
	const auto &bytes = items.bytes("CPUID2");

	for (size_t i = 0; i + sizeof(kvm_cpuid_entry2) <= bytes.size(); i += sizeof(kvm_cpuid_entry2)) {
		if (const auto entry = at<kvm_cpuid_entry2>(bytes, i); entry.function == 1)
			return entry.ebx >> 24;
	}
	throw Error("KVM does not tell a vCPU's APIC");
}

} // namespace

const std::vector<uint8_t> &KvmItems::bytes(const std::string &name) const
{
	const auto found = data.find(name);
	const auto error = errors.find(name);

	if (found == data.end())
		throw Error("KVM does not give " + name, error == errors.end() ? 0 : error->second);
	return found->second;
}

void KvmItems::copy(const std::string &name, void *to, size_t size) const
{
	const auto &from = bytes(name);

	if (from.size() < size)
		throw Error("KVM's " + name + " is too short");
	memcpy(to, from.data(), size);
}

void put_vcpu(QStream &stream, size_t rank, const KvmItems &items)
{
	QSection &cpu = nth(stream, "cpu", rank), &common = nth(stream, "cpu_common", rank), &apic = nth(stream, "apic", rank);
	const auto regs = items.get<kvm_regs>("REGS");
	const auto sregs = items.get<kvm_sregs>("SREGS");
	const auto events = items.get<kvm_vcpu_events>("VCPU_EVENTS");

	if (items.has("NESTED_STATE")) {
		const auto nested = items.get<kvm_nested_state>("NESTED_STATE");

		if (nested.flags & (KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING))
			throw Error("the vCPU runs a guest of its own: this is not carried when QEMU is killed");
		if (nested.format == KVM_STATE_NESTED_FORMAT_VMX && nested.hdr.vmx.vmxon_pa != ~0ull)
			throw Error("the guest is a hypervisor (VMXON): this is not carried when QEMU is killed");
	}
	// QEMU numbers an APIC's section by the APIC, and tells the guest that number.
	if (const uint32_t id = apic_id(items); id != (apic.instance & 0xff))
		throw Error("vCPU " + std::to_string(rank) + " has APIC " + std::to_string(id) + ", and the device state's " + std::to_string(apic.instance));
	put_regs(cpu, regs);
	put_sregs(cpu, apic, sregs);
	put_debug(cpu, items.get<kvm_debugregs>("DEBUGREGS"));
	put_fpu(cpu, items);
	put_msrs(cpu, items);
	put_events(cpu, events);
	put_hflags(cpu, sregs, regs.rflags, events.smi.smm);
	if (items.has("XCRS")) {
		const auto xcrs = items.get<kvm_xcrs>("XCRS");

		for (uint32_t i = 0; i < std::min<uint32_t>(xcrs.nr_xcrs, KVM_MAX_XCRS); i++) {
			if (xcrs.xcrs[i].xcr == 0)
				cpu.set("env.xcr0", xcrs.xcrs[i].value);
		}
	}
	const auto mp = items.get<kvm_mp_state>("MP_STATE");
	cpu.set("env.mp_state", mp.mp_state);
	common.set("halted", mp.mp_state == KVM_MP_STATE_HALTED);
	put_apic(apic, items.get<kvm_lapic_state>("LAPIC"), sregs.apic_base >> 10 & 1);
}

std::string contradiction(const std::vector<std::string> &differences)
{
	const auto found = std::ranges::find_if(differences, [](const std::string &d) { return d.starts_with("cpu") && !d.ends_with(" env.tsc"); });

	return found == differences.end() ? "" : *found;
}

void put_vcpus(QStream &stream, const std::vector<KvmItems> &vcpus)
{
	for (const char *name : {"cpu", "cpu_common", "apic"}) {
		if (const size_t n = stream.all(name).size(); n != vcpus.size())
			throw Error("KVM has " + std::to_string(vcpus.size()) + " vCPUs, and the device state " + std::to_string(n) +
				    ": vCPUs that were unplugged are not carried when QEMU is killed");
	}
	for (size_t i = 0; i < vcpus.size(); i++)
		put_vcpu(stream, i, vcpus[i]);
	if (vcpus.size() < 2)
		return;
	// What the host's counter was when the last one was asked: TSC less offset. Both wrap.
	uint64_t host = 0;
	for (size_t i = 0; i < vcpus.size(); i++) {
		const uint64_t then = stream.all("cpu")[i]->get("env.tsc") - vcpus[i].get<uint64_t>("TSC_OFFSET");

		if (!i || static_cast<int64_t>(then - host) > 0)
			host = then;
	}
	for (size_t i = 0; i < vcpus.size(); i++)
		stream.all("cpu")[i]->set("env.tsc", host + vcpus[i].get<uint64_t>("TSC_OFFSET"));
}

} // namespace redoubt::agent
