// SPDX-License-Identifier: GPL-2.0
#include "layout.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <sstream>
#include <stdexcept>

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <sys/utsname.h>

namespace redoubt::crash {
namespace {

// What is read of KVM's structures. "?": not in each kernel.
const char *const fields[] = {
	"kvm", "kvm.online_vcpus", "kvm.arch.exception_payload_enabled", "kvm.arch.triple_fault_event", "kvm.arch.wall_clock",
	"kvm.arch.kvmclock_offset",
	"vcpu_svm", "vcpu_svm.vmcb", "vcpu_svm.vmcb01.ptr", "vcpu_svm.sysenter_esp_hi", "vcpu_svm.sysenter_eip_hi",
	"vcpu_svm.tsc_aux", "vcpu_svm.spec_ctrl", "vcpu_svm.virt_spec_ctrl", "vcpu_svm.nmi_singlestep",
	"vcpu_svm.nmi_singlestep_guest_rflags", "?vcpu_svm.nmi_masked",
	"vcpu_svm.vcpu.kvm", "vcpu_svm.vcpu.vcpu_id", "vcpu_svm.vcpu.mode", "vcpu_svm.vcpu.requests", "vcpu_svm.vcpu.arch.guest_supported_xcr0", "vcpu_svm.vcpu.guest_debug",
	"vcpu_svm.vcpu.mutex.owner", "vcpu_svm.vcpu.mmio_needed", "vcpu_svm.vcpu.stat.exits",
	"vcpu_svm.vcpu.arch.regs", "vcpu_svm.vcpu.arch.cr0", "vcpu_svm.vcpu.arch.cr2", "vcpu_svm.vcpu.arch.cr3",
	"vcpu_svm.vcpu.arch.cr4", "vcpu_svm.vcpu.arch.cr8", "vcpu_svm.vcpu.arch.pkru", "vcpu_svm.vcpu.arch.hflags",
	"vcpu_svm.vcpu.arch.efer", "vcpu_svm.vcpu.arch.apic_base", "vcpu_svm.vcpu.arch.apic", "vcpu_svm.vcpu.arch.mp_state",
	"vcpu_svm.vcpu.arch.at_instruction_boundary", "vcpu_svm.vcpu.arch.handling_intr_from_guest",
	"vcpu_svm.vcpu.arch.guest_state_protected", "vcpu_svm.vcpu.arch.complete_userspace_io",
	"vcpu_svm.vcpu.arch.pv.pv_unhalted", "vcpu_svm.vcpu.arch.apic_attention", "vcpu_svm.vcpu.arch.pv_eoi.data.hva",
	"vcpu_svm.vcpu.arch.guest_fpu.fpstate", "vcpu_svm.vcpu.arch.guest_fpu.uabi_size",
	"vcpu_svm.vcpu.arch.xcr0", "vcpu_svm.vcpu.arch.ia32_xss",
	"vcpu_svm.vcpu.arch.exception.pending", "vcpu_svm.vcpu.arch.exception.injected",
	"vcpu_svm.vcpu.arch.exception.has_error_code", "vcpu_svm.vcpu.arch.exception.vector",
	"vcpu_svm.vcpu.arch.exception.error_code", "vcpu_svm.vcpu.arch.exception.has_payload",
	"vcpu_svm.vcpu.arch.exception.payload",
	"vcpu_svm.vcpu.arch.interrupt.injected", "vcpu_svm.vcpu.arch.interrupt.soft", "vcpu_svm.vcpu.arch.interrupt.nr",
	"vcpu_svm.vcpu.arch.nmi_queued", "vcpu_svm.vcpu.arch.nmi_pending", "vcpu_svm.vcpu.arch.nmi_injected",
	"vcpu_svm.vcpu.arch.smi_pending", "vcpu_svm.vcpu.arch.smbase",
	"vcpu_svm.vcpu.arch.switch_db_regs", "vcpu_svm.vcpu.arch.db", "vcpu_svm.vcpu.arch.dr6", "vcpu_svm.vcpu.arch.dr7",
	"vcpu_svm.vcpu.arch.ia32_misc_enable_msr", "vcpu_svm.vcpu.arch.ia32_tsc_adjust_msr", "vcpu_svm.vcpu.arch.l1_tsc_offset",
	"vcpu_svm.vcpu.arch.virtual_tsc_khz", "vcpu_svm.vcpu.arch.tsc_scaling_ratio", "vcpu_svm.vcpu.arch.pat",
	"vcpu_svm.vcpu.arch.time", "vcpu_svm.vcpu.arch.st.msr_val", "vcpu_svm.vcpu.arch.apf.msr_en_val",
	"vcpu_svm.vcpu.arch.apf.msr_int_val", "vcpu_svm.vcpu.arch.pv_eoi.msr_val", "vcpu_svm.vcpu.arch.msr_kvm_poll_control",
	"vcpu_svm.vcpu.arch.mcg_status", "vcpu_svm.vcpu.arch.mcg_ctl",
	"kvm.arch.vpic", "kvm.arch.vioapic", "kvm.arch.vpit", "?kvm.arch.apic_bus_cycle_ns",
	"kvm_lapic.lapic_timer.period", "kvm_lapic.lapic_timer.target_expiration", "kvm_lapic.divide_count",
	"kvm_lapic", "kvm_lapic.regs", "kvm_lapic.lapic_timer.timer.state", "kvm_lapic.lapic_timer.pending",
	"kvm_lapic.lapic_timer.tscdeadline", "kvm_lapic.lapic_timer.timer_mode",
	"fpstate", "fpstate.size", "fpstate.user_xfeatures", "fpstate.in_use", "fpstate.regs",
};

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

std::vector<std::string> Layout::needed()
{
	std::vector<std::string> out;

	for (const char *name : fields)
		if (*name != '?')
			out.emplace_back(name);
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
	const Btf base = take(btf__load_vmlinux_btf(), "the kernel");
	const Btf amd = take(btf__load_module_btf("kvm_amd", base.get()), "kvm_amd (Intel: not supported)");
	const Btf kvm = take(btf__load_module_btf("kvm", base.get()), "kvm");
	const auto add = [&out](const btf *b, const char *name) {
		const bool may_lack = *name == '?';
		Field f;
		if (find(b, name + may_lack, f))
			out.fields_[name + may_lack] = f;
		else if (!may_lack)
			throw std::runtime_error(std::string(name) + ": this kernel's KVM has no such field");
	};
	for (const char *name : fields)
		add(amd.get(), name);
	for (const char *name : device_fields)
		add(kvm.get(), name);
	return out;
}

std::string Layout::text() const
{
	std::ostringstream out;

	out << "release " << release_ << '\n';
	for (const auto &[name, f] : fields_)
		out << name << ' ' << f.offset << ' ' << f.bytes << ' ' << f.bit << ' ' << f.bits << '\n';
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

} // namespace redoubt::crash
