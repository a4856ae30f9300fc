// SPDX-License-Identifier: GPL-2.0
#include "layout.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace redoubt::crash {
namespace {

// What is read of KVM's structures, in each kernel. "?": not in each.
const char *const fields[] = {
	"kvm", "kvm.online_vcpus", "kvm.arch.exception_payload_enabled", "kvm.arch.triple_fault_event", "kvm.arch.wall_clock",
	"kvm.arch.kvmclock_offset", "kvm.arch.vpic", "kvm.arch.vioapic", "kvm.arch.vpit", "?kvm.arch.apic_bus_cycle_ns",
	"kvm_lapic.lapic_timer.period", "kvm_lapic.lapic_timer.target_expiration", "kvm_lapic.divide_count", "kvm_lapic", "kvm_lapic.regs",
	"kvm_lapic.lapic_timer.timer.state", "kvm_lapic.lapic_timer.pending", "kvm_lapic.lapic_timer.hv_timer_in_use",
	"kvm_lapic.lapic_timer.tscdeadline", "kvm_lapic.lapic_timer.timer_mode", "fpstate", "fpstate.size", "fpstate.user_xfeatures",
	"fpstate.in_use", "fpstate.regs",
};

// Of the vCPU's, behind "vcpu_svm." or "vcpu_vmx."
const char *const vcpu_fields[] = {
	"vcpu.kvm", "vcpu.vcpu_id", "vcpu.mode", "vcpu.requests", "vcpu.arch.guest_supported_xcr0", "vcpu.guest_debug", "vcpu.mutex.owner",
	"vcpu.mmio_needed", "vcpu.stat.exits", "vcpu.arch.regs", "vcpu.arch.cr0", "vcpu.arch.cr2", "vcpu.arch.cr3", "vcpu.arch.cr4",
	"vcpu.arch.cr8", "vcpu.arch.pkru", "vcpu.arch.hflags", "vcpu.arch.efer", "vcpu.arch.apic_base", "vcpu.arch.apic",
	"vcpu.arch.mp_state", "vcpu.arch.at_instruction_boundary", "vcpu.arch.handling_intr_from_guest", "vcpu.arch.guest_state_protected",
	"vcpu.arch.complete_userspace_io", "vcpu.arch.pv.pv_unhalted", "vcpu.arch.apic_attention", "vcpu.arch.pv_eoi.data.hva",
	"vcpu.arch.guest_fpu.fpstate", "vcpu.arch.guest_fpu.uabi_size", "vcpu.arch.xcr0", "vcpu.arch.ia32_xss",
	"vcpu.arch.exception.pending", "vcpu.arch.exception.injected", "vcpu.arch.exception.has_error_code", "vcpu.arch.exception.vector",
	"vcpu.arch.exception.error_code", "vcpu.arch.exception.has_payload", "vcpu.arch.exception.payload", "vcpu.arch.interrupt.injected",
	"vcpu.arch.interrupt.soft", "vcpu.arch.interrupt.nr", "vcpu.arch.nmi_queued", "vcpu.arch.nmi_pending", "vcpu.arch.nmi_injected",
	"vcpu.arch.smi_pending", "vcpu.arch.smbase", "vcpu.arch.switch_db_regs", "vcpu.arch.db", "vcpu.arch.dr6", "vcpu.arch.dr7",
	"vcpu.arch.ia32_misc_enable_msr", "vcpu.arch.ia32_tsc_adjust_msr", "vcpu.arch.l1_tsc_offset", "vcpu.arch.virtual_tsc_khz",
	"vcpu.arch.tsc_scaling_ratio", "vcpu.arch.pat", "vcpu.arch.time", "vcpu.arch.st.msr_val", "vcpu.arch.apf.msr_en_val",
	"vcpu.arch.apf.msr_int_val", "vcpu.arch.pv_eoi.msr_val", "vcpu.arch.msr_kvm_poll_control", "vcpu.arch.mcg_status",
	"vcpu.arch.mcg_ctl",
};

const char *const amd_fields[] = {
	"vcpu_svm", "vcpu_svm.vmcb", "vcpu_svm.vmcb01.ptr", "vcpu_svm.sysenter_esp_hi", "vcpu_svm.sysenter_eip_hi", "vcpu_svm.tsc_aux",
	"vcpu_svm.spec_ctrl", "vcpu_svm.virt_spec_ctrl", "vcpu_svm.nmi_singlestep", "vcpu_svm.nmi_singlestep_guest_rflags",
	"?vcpu_svm.nmi_masked",
};

const char *const intel_fields[] = {
	"vcpu_vmx", "vcpu_vmx.loaded_vmcs", "vcpu_vmx.vmcs01", "vcpu_vmx.exit_reason", "vcpu_vmx.guest_state_loaded",
	"vcpu_vmx.msr_guest_kernel_gs_base", "vcpu_vmx.guest_uret_msrs", "vcpu_vmx.spec_ctrl", "vcpu_vmx.msr_ia32_umwait_control",
	"vcpu_vmx.msr_ia32_feature_control", "vcpu_vmx.rmode.vm86_active", "vcpu_vmx.emulation_required", "vcpu_vmx.pi_desc.pir",
	"vcpu_vmx.vcpu.arch.regs_dirty", "vcpu_vmx.vcpu.arch.cr0_guest_owned_bits", "vcpu_vmx.vcpu.arch.cr4_guest_owned_bits",
	"vmx_uret_msr", "vmx_uret_msr.data", "loaded_vmcs", "loaded_vmcs.vmcs", "loaded_vmcs.cpu", "loaded_vmcs.soft_vnmi_blocked",
	"loaded_vmcs.host_state.rsp", "loaded_vmcs.host_state.cr3",
};

// Variables of kvm.ko that are read on Intel
const char *const intel_symbols[] = {"kvm_uret_msrs_list"};

// Likewise, in kvm.ko only
const char *const device_fields[] = {
	"kvm_pic", "kvm_pic.pics", "kvm_kpic_state", "kvm_ioapic", "kvm_ioapic.irr", "kvm_ioapic.irr_delivered",
	"kvm_pit", "kvm_pit.pit_state.channels", "kvm_pit.pit_state.flags",
};

struct FreeBtf {
	void operator()(btf *b) const { btf__free(b); }
};
using Btf = std::unique_ptr<btf, FreeBtf>;

Btf take(btf *b, const char *what)
{
	if (!b)
		throw std::runtime_error(std::string(what) + ": no BTF: " + strerror(errno));
	return Btf(b);
}

const btf_type *plain(const btf *b, uint32_t &id)
{
	const btf_type *t = btf__type_by_id(b, id);

	while (t && (btf_is_mod(t) || btf_is_typedef(t))) {
		id = t->type;
		t = btf__type_by_id(b, id);
	}
	return t;
}

// The member of this name, also in a member that has none; its type's number, or 0. @bits: where in it, if it is a bitfield.
uint32_t member(const btf *b, const btf_type *t, const std::string &name, uint32_t &offset, Field &bits)
{
	const btf_member *m = btf_members(t);

	for (uint16_t i = 0; i < btf_vlen(t); i++) {
		const char *const its = btf__name_by_offset(b, m[i].name_off);
		const uint32_t bit = btf_member_bit_offset(t, i), at = bit / 8;
		uint32_t id = m[i].type;

		if (const uint32_t size = btf_member_bitfield_size(t, i); name == its && size) {
			// As a number of its type's width, which it does not cross
			const auto width = static_cast<uint32_t>(btf__resolve_size(b, id));
			bits.bit = bit % (width * 8);
			bits.bits = size;
			offset += bit / 8 / width * width;
			return id;
		}
		if (name == its) {
			offset += at;
			return id;
		}
		if (*its)
			continue;
		const btf_type *const inner = plain(b, id);
		uint32_t in = offset + at;
		if (!inner || !btf_is_composite(inner))
			continue;
		if (const uint32_t found = member(b, inner, name, in, bits)) {
			offset = in;
			return found;
		}
	}
	return 0;
}

bool find(const btf *b, const std::string &path, Field &field)
{
	std::istringstream parts(path);
	std::string part;
	uint32_t offset = 0;
	Field bits{};

	std::getline(parts, part, '.');
	const int first = btf__find_by_name_kind(b, part.c_str(), BTF_KIND_STRUCT);
	uint32_t id = first < 0 ? 0 : static_cast<uint32_t>(first);
	while (id && std::getline(parts, part, '.')) {
		const btf_type *const t = plain(b, id);
		id = t && btf_is_composite(t) ? member(b, t, part, offset, bits) : 0;
	}
	const int64_t bytes = id ? btf__resolve_size(b, id) : -1;
	if (bytes <= 0)
		return false;
	field = {offset, static_cast<uint32_t>(bytes), bits.bit, bits.bits};
	return true;
}

} // namespace

namespace {

// With their marks
std::vector<std::string> names_of(bool intel)
{
	std::vector<std::string> out(std::begin(fields), std::end(fields));

	for (const char *name : vcpu_fields)
		out.push_back(std::string(intel ? "vcpu_vmx." : "vcpu_svm.") + name);
	if (intel)
		out.insert(out.end(), std::begin(intel_fields), std::end(intel_fields));
	else
		out.insert(out.end(), std::begin(amd_fields), std::end(amd_fields));
	return out;
}

// As root sees it; a name that kvm has once
uint64_t address_of(const std::string &symbol)
{
	std::ifstream in("/proc/kallsyms");
	uint64_t found = 0;

	for (std::string line; std::getline(in, line);) {
		std::istringstream words(line);
		std::string kind, name, module;
		uint64_t address;
		if (!(words >> std::hex >> address >> kind >> name >> module) || name != symbol || module != "[kvm]")
			continue;
		if (found)
			throw std::runtime_error(symbol + ": kvm has two of that name");
		found = address;
	}
	if (!found)
		throw std::runtime_error(symbol + ": not in /proc/kallsyms, or its address is hidden");
	return found;
}

} // namespace

std::vector<std::string> Layout::needed(bool intel)
{
	std::vector<std::string> out;

	for (const std::string &name : names_of(intel))
		if (name.front() != '?')
			out.push_back(name);
	out.insert(out.end(), std::begin(device_fields), std::end(device_fields));
	return out;
}

Layout Layout::of_running_kernel()
{
	Layout out;
	utsname u;

	uname(&u);
	out.release_ = u.release;
	libbpf_set_print(nullptr);
	const bool intel = !access("/sys/module/kvm_intel", F_OK);
	const char *const module = intel ? "kvm_intel" : "kvm_amd";
	const Btf base = take(btf__load_vmlinux_btf(), "the kernel");
	const Btf cpu = take(btf__load_module_btf(module, base.get()), module);
	const Btf kvm = take(btf__load_module_btf("kvm", base.get()), "kvm");
	const auto add = [&out](const btf *b, const std::string &marked) {
		const bool may_lack = marked.front() == '?';
		const std::string name = marked.substr(may_lack);
		Field f;
		if (find(b, name, f))
			out.fields_[name] = f;
		else if (!may_lack)
			throw std::runtime_error(name + ": this kernel's KVM has no such field");
	};
	for (const std::string &name : names_of(intel))
		add(cpu.get(), name);
	for (const char *name : device_fields)
		add(kvm.get(), name);
	if (intel)
		for (const char *name : intel_symbols)
			out.symbols_[name] = address_of(name);
	return out;
}

std::string Layout::text() const
{
	std::ostringstream out;

	out << "release " << release_ << '\n';
	for (const auto &[name, f] : fields_)
		out << name << ' ' << f.offset << ' ' << f.bytes << ' ' << f.bit << ' ' << f.bits << '\n';
	for (const auto &[name, address] : symbols_)
		out << '@' << name << ' ' << address << '\n';
	return out.str();
}

Layout Layout::parse(const std::string &text)
{
	std::istringstream in(text);
	std::string word;
	Layout out;
	Field f;

	if (!(in >> word >> out.release_) || word != "release")
		throw std::runtime_error("a layout that is none");
	while (in >> word) {
		if (word.front() == '@') {
			if (!(in >> out.symbols_[word.substr(1)]))
				throw std::runtime_error("a layout that is none");
			continue;
		}
		if (!(in >> f.offset >> f.bytes >> f.bit >> f.bits) || f.offset > 1 << 20 || f.bytes > 1 << 20 || f.bit > 63 || f.bits > 63 ||
		    f.bit + f.bits > f.bytes * 8)
			throw std::runtime_error("a layout that is none");
		out.fields_[word] = f;
	}
	return out;
}

Field Layout::at(const std::string &name) const
{
	const auto it = fields_.find(name);

	if (it == fields_.end())
		throw std::runtime_error(name + ": the layout has no such field");
	return it->second;
}

uint64_t Layout::symbol(const std::string &name) const
{
	const auto it = symbols_.find(name);

	if (it == symbols_.end())
		throw std::runtime_error(name + ": the layout has no such variable");
	return it->second;
}

} // namespace redoubt::crash
