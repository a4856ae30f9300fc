// SPDX-License-Identifier: GPL-2.0
/*
 * A guest with its vCPUs on a mock host, driven through the core's C face as src/kvm
 * drives it: registers are written back only where the core says that it changed
 * them, and a verdict that changes nothing is held to it.
 */
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <linux/redoubt_guest.h>

#include "mock_host.h"
#include "support.h"

namespace redoubt {

enum Gpr { rax, rcx, rdx, rbx, rsp_stale, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };

/* Where things lie in the guests of the tests. Frames not named are plain RAM. */
namespace lay {
inline constexpr u64 frames = 512;
inline constexpr gfn_t text = 16, call = 17, gate = 18, exit = 19, data = 20, data_end = 28;
inline constexpr gfn_t idt = 40, desc = 50, nodes = 60, plain = 100;
inline constexpr u64 kernel = 0xffffffff81000000; /* gfn 0 in the kernel's tables */
inline constexpr u64 inside = 0xffffff8000000000; /* and in the driver's */
inline constexpr u64 call_gva = inside + (call << page_shift) + 0x43;
inline constexpr u64 call_gpa = (call << page_shift) + 0x43;
inline constexpr u64 gate_gva = inside + (gate << page_shift) + 0x10;
inline constexpr u64 exit_gva = inside + (exit << page_shift) + 0x20;
inline constexpr u64 resume_gva = kernel + (call << page_shift) + 0x80;
inline constexpr u64 idt_gva = 0xfffffe0000000000;
inline constexpr u64 cr3 = data << page_shift;
inline constexpr u64 back = kernel + 0x5000; /* the caller's R11 */
inline constexpr u64 stack(unsigned slot)
{
	return inside + ((data + 1) << page_shift) + 0x100 * (slot + 1);
}
} // namespace lay

inline constexpr gpa_t gpa_of(gfn_t gfn)
{
	return gfn << page_shift;
}

inline rdt_driver_desc good_desc(u32 slots = 2)
{
	rdt_driver_desc d = {};

	d.size = sizeof(d);
	d.cr3 = lay::cr3;
	d.idt_gva = lay::idt_gva;
	d.idt_gpa = gpa_of(lay::idt);
	d.gate_gva = lay::gate_gva;
	d.exit_gva = lay::exit_gva;
	d.call_gva = lay::call_gva;
	d.call_gpa = lay::call_gpa;
	d.resume_gva = lay::resume_gva;
	d.slots = slots;
	for (unsigned i = 0; i < slots; i++)
		d.stack_top[i] = lay::stack(i);
	d.regions = 4;
	d.region[0] = {gpa_of(lay::text), 2, RDT_DRV_TEXT};
	d.region[1] = {gpa_of(lay::gate), 1, RDT_DRV_GATE};
	d.region[2] = {gpa_of(lay::exit), 1, RDT_DRV_EXIT};
	d.region[3] = {gpa_of(lay::data), lay::data_end - lay::data, RDT_DRV_DATA};
	return d;
}

struct Regs {
	u64 gpr[16] = {}; /* [4] is not used */
	u64 rip = 0, rsp = 0, rflags = 2, cr3 = 0;

	bool operator==(const Regs &o) const
	{
		for (unsigned i = 0; i < 16; i++)
			if (i != rsp_stale && gpr[i] != o.gpr[i])
				return false;
		return rip == o.rip && rsp == o.rsp && rflags == o.rflags && cr3 == o.cr3;
	}
	/* Every register a value of its own. */
	static Regs numbered(u64 seed)
	{
		Regs r;

		for (unsigned i = 0; i < 16; i++)
			r.gpr[i] = seed << 32 | (i + 1);
		r.rip = lay::kernel + (seed << 4);
		r.rsp = lay::kernel + 0x100000 + (seed << 4);
		r.rflags = 0x202 | (seed & 1);
		r.cr3 = seed << page_shift;
		return r;
	}
};

struct FaultOpts {
	bool walk = false, vectoring = false, emulated = false, host = false;
	bool mmio = false;
	u8 soft_len = 0, size = 0;
	const void *new_val = nullptr;
	bool gva_valid = false;
	u64 gva = 0;
};

class Cpu : Pinned {
public:
	Cpu(rdt_core_vm *vm, MockHost &host, u32 index) : vm_(vm), host_(host), index_(index)
	{
		core = rdt_core_vcpu_create(vm, &hv);
		regs = Regs::numbered(index + 1);
		regs.gpr[r11] = lay::back;
		hv.map(lay::call_gva, lay::call_gpa);
		hv.map(lay::kernel + gpa_of(lay::call), lay::call_gpa);
	}
	~Cpu()
	{
		rdt_core_vcpu_destroy(core);
	}

	rdt_core_vcpu *core;
	MockHv hv;
	Regs regs;
	u64 idt_base = lay::idt_gva;
	u8 cpl = 0, va_bits = 48;
	bool no_idt = false; /* in a secret, as the core told */

	[[nodiscard]] u8 view() const
	{
		return rdt_core_vcpu_view(core);
	}
	[[nodiscard]] bool inside() const
	{
		return view() == RDT_VIEW_INTEGRITY;
	}

	struct Result {
		s64 value;
		bool switched;
	};
	Result call(u32 nr, u64 a = 0, u64 b = 0, u64 c = 0, u64 d = 0)
	{
		const u64 arg[4] = {a, b, c, d};
		const Regs before = regs;
		rdt_cpu cpu = load();
		rdt_s64 value = 0x5a5a5a5a;
		const bool switched = rdt_core_hypercall(vm_, core, nr, arg, &cpu, &value) ==
				      RDT_HC_END_SWITCHED;

		check_unlocked();
		if (switched) {
			store(cpu);
		} else {
			Regs want = before;

			/* The one result that does not fit RAX. */
			if (nr == RDT_HC_DOM_MEASURE && value == 0)
				for (unsigned r : {rbx, rcx, rdx, rsi})
					want.gpr[r] = regs.gpr[r];
			expect_untouched(cpu, want);
			regs.gpr[rax] = static_cast<u64>(value);
		}
		return {value, switched};
	}
	/* A hypercall that only has a result. */
	s64 hc(u32 nr, u64 a = 0, u64 b = 0, u64 c = 0, u64 d = 0)
	{
		const Result r = call(nr, a, b, c, d);

		EXPECT_FALSE(r.switched) << "hypercall " << nr - RDT_HC_BASE;
		return r.value;
	}

	static rdt_fault fault_of(gpa_t gpa, u8 access, const FaultOpts &o)
	{
		rdt_fault f = {};

		f.gpa = gpa;
		f.gva = o.gva;
		f.gva_valid = o.gva_valid;
		f.access = access;
		f.walk = o.walk;
		f.vectoring = o.vectoring;
		f.soft_len = o.soft_len;
		f.emulated = o.emulated;
		f.host = o.host;
		f.mmio = o.mmio;
		f.size = o.size;
		f.new_val = o.new_val;
		return f;
	}
	/* Fetches are taken to the doors first, as src/kvm does. */
	bool short_way = false;

	rdt_verdict fault(gpa_t gpa, u8 access, const FaultOpts &o = {})
	{
		const rdt_fault f = fault_of(gpa, access, o);
		const Regs before = regs;

		if (short_way && access == RDT_ACC_X && !o.vectoring && !o.walk) {
			const rdt_verdict v = door(gpa);

			if (v != RDT_V_PASS)
				return v;
		}
		rdt_cpu cpu = load();
		const rdt_verdict v = rdt_core_fault(vm_, core, &f, &cpu);

		check_unlocked();
		if (v == RDT_V_RESUME || v == RDT_V_AEX)
			store(cpu);
		else
			expect_untouched(cpu, before);
		return v;
	}
	/* KVM writes in this vCPU's name. */
	rdt_verdict kvm_write(gpa_t gpa, const FaultOpts &o = {})
	{
		const rdt_fault f = fault_of(gpa, RDT_ACC_W, o);
		const rdt_cpu cpu = load();
		const rdt_verdict v = rdt_core_kvm_write(vm_, &f, &cpu);

		check_unlocked();
		return v;
	}

	/* --- the ways in and out, with registers as the guest driver has them --- */

	bool enter_call()
	{
		regs.rip = lay::kernel + gpa_of(lay::call) + (lay::call_gva & 0xfff) - 3;
		return call(RDT_HC_ENTER, regs.gpr[rbx], regs.gpr[rcx], regs.gpr[rdx], regs.gpr[rsi])
			.switched;
	}
	rdt_verdict enter_fault()
	{
		regs.rip = lay::kernel + gpa_of(lay::gate) + (lay::gate_gva & 0xfff);
		return fault(gpa_of(lay::gate) + (lay::gate_gva & 0xfff), RDT_ACC_X);
	}
	bool leave_call(u64 result)
	{
		return call(RDT_HC_LEAVE, result).switched;
	}
	rdt_verdict leave_fault(u64 result)
	{
		regs.rip = lay::exit_gva;
		regs.gpr[rax] = result;
		return fault(gpa_of(lay::exit) + (lay::exit_gva & 0xfff), RDT_ACC_X);
	}
	/* An event strikes inside; gives the token. */
	u64 strike(u8 soft_len = 0)
	{
		FaultOpts o;

		o.vectoring = true;
		o.soft_len = soft_len;
		EXPECT_EQ(fault(gpa_of(lay::idt) + 14 * 16, RDT_ACC_R, o), RDT_V_AEX);
		return regs.gpr[rdi];
	}
	Result resume(u64 token, u64 flags = 0)
	{
		return call(RDT_HC_RESUME, token, flags);
	}

	rdt_cpu load()
	{
		rdt_cpu cpu = {};

		regs.gpr[rsp_stale] = 0xdead;
		cpu.gpr = reinterpret_cast<rdt_u64 *>(regs.gpr);
		cpu.rip = regs.rip;
		cpu.rsp = regs.rsp;
		cpu.rflags = regs.rflags;
		cpu.cr3 = regs.cr3;
		cpu.idt_base = idt_base;
		cpu.vcpu = index_;
		cpu.cpl = cpl;
		cpu.va_bits = va_bits;
		cpu.view = view();
		return cpu;
	}

	/* An event is to be delivered in a secret: there is no IDT to be read. */
	bool event(u8 soft_len = 0)
	{
		rdt_cpu cpu = load();
		const bool out = rdt_core_aexit(vm_, core, &cpu, soft_len);

		if (out)
			store(cpu);
		return out;
	}

private:
	rdt_verdict door(gpa_t gpa)
	{
		const rdt_door d = rdt_core_at_door(vm_, core, gpa >> page_shift);
		const Regs before = regs;
		rdt_cpu cpu = load();

		if (d == RDT_DOOR_NONE)
			return RDT_V_PASS;
		if (d == RDT_DOOR_OUT) {
			/* What port.h does not promise is rubbish. */
			cpu.rsp = cpu.rflags = cpu.cr3 = cpu.idt_base = 0xbadbadbadbad;
			cpu.cpl = 3;
			cpu.va_bits = 99;
		}
		const rdt_verdict v = rdt_core_door(vm_, core, d, &cpu);

		check_unlocked();
		if (v == RDT_V_RESUME)
			store(cpu);
		else
			expect_untouched(cpu, before);
		return v;
	}
	void store(const rdt_cpu &cpu)
	{
		if (cpu.dirty & RDT_CPU_RIP)
			regs.rip = cpu.rip;
		if (cpu.dirty & RDT_CPU_RSP)
			regs.rsp = cpu.rsp;
		if (cpu.dirty & RDT_CPU_RFLAGS)
			regs.rflags = cpu.rflags;
		if (cpu.dirty & RDT_CPU_CR3)
			regs.cr3 = cpu.cr3;
		if (cpu.dirty & RDT_CPU_VIEW)
			EXPECT_EQ(cpu.view, view());
		if (cpu.dirty & RDT_CPU_SECRET) {
			EXPECT_TRUE(cpu.dirty & RDT_CPU_VIEW);
			no_idt = cpu.view != RDT_VIEW_ROOT;
		}
	}
	void expect_untouched(const rdt_cpu &cpu, const Regs &before)
	{
		EXPECT_EQ(cpu.dirty, 0);
		EXPECT_TRUE(regs == before) << "registers changed";
	}
	void check_unlocked()
	{
		EXPECT_FALSE(host_.locked_by_me());
	}

	rdt_core_vm *vm_;
	MockHost &host_;
	u32 index_;
};

/* All that a guest or an operator can tell of the policy. */
struct Snapshot {
	std::vector<u8> access;
	std::vector<s64> query;
	std::vector<std::string> regions;
	std::string info;

	std::string diff(const Snapshot &o) const
	{
		std::ostringstream s;

		for (usize i = 0; i < access.size(); i++)
			if (access[i] != o.access[i])
				s << "access, frame " << i / 5 << ", column " << i % 5 << ": " << +access[i]
				  << " -> " << +o.access[i] << "\n";
		for (usize i = 0; i < query.size(); i++)
			if (query[i] != o.query[i])
				s << "query, frame " << i << ": " << query[i] << " -> " << o.query[i]
				  << "\n";
		if (regions != o.regions) {
			for (const std::string &r : regions)
				s << "- " << r << "\n";
			for (const std::string &r : o.regions)
				s << "+ " << r << "\n";
		}
		if (info != o.info)
			s << "- " << info << "\n+ " << o.info << "\n";
		return s.str();
	}
};

class World : Pinned {
public:
	explicit World(unsigned cpus = 2, u64 frames = lay::frames) : host(frames)
	{
		vm = rdt_core_vm_create(&host);
		for (unsigned i = 0; i < cpus; i++)
			cpu.push_back(std::make_unique<Cpu>(vm, host, i));
	}
	~World()
	{
		end();
	}
	/* As src/kvm ends a VM. */
	void end()
	{
		if (vm)
			rdt_core_vm_destroy(vm);
		vm = nullptr;
		cpu.clear();
	}

	MockHost host;
	rdt_core_vm *vm;
	std::vector<std::unique_ptr<Cpu>> cpu;

	Cpu &operator[](usize i)
	{
		return *cpu[i];
	}
	void give_nodes(unsigned pages = 1)
	{
		for (unsigned i = 0; i < pages; i++)
			ASSERT_EQ(cpu[0]->hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes + i)), i + 1);
	}
	s64 seal(const rdt_driver_desc &d)
	{
		host.at<rdt_driver_desc>(gpa_of(lay::desc)) = d;
		return cpu[0]->hc(RDT_HC_DRIVER, gpa_of(lay::desc));
	}
	/* A node page and the driver, what most tests begin with. */
	void start(u32 slots = 2)
	{
		give_nodes();
		ASSERT_EQ(seal(good_desc(slots)), 0);
		quiet();
	}
	void quiet()
	{
		host.take_events();
		host.take_zaps();
		host.take_log();
	}
	s64 protect(gfn_t first, u64 count, u8 action, u8 cls, unsigned by = 0)
	{
		return cpu[by]->hc(RDT_HC_PROTECT, gpa_of(first), count, RDT_ATTR(action, cls));
	}
	u8 access(u8 view, gfn_t gfn) const
	{
		return rdt_core_access(vm, view, gfn);
	}
	rdt_event one_event()
	{
		std::vector<rdt_event> ev = host.take_events();

		EXPECT_EQ(ev.size(), 1u);
		return ev.empty() ? rdt_event{} : ev[0];
	}

	/* Asks through a vCPU of its own, so that nobody's registers change. */
	Snapshot snapshot()
	{
		Snapshot s;
		Cpu asker(vm, host, 99);
		rdt_region r[7];
		rdt_u64 next = 0;
		rdt_vm_info i = {};
		std::ostringstream info;

		for (gfn_t g = 0; g < host.frames() + 8; g++) {
			for (u8 view : {u8{RDT_VIEW_ROOT}, u8{RDT_VIEW_INTEGRITY}, u8{2}})
				s.access.push_back(access(view, g));
			for (int level : {2, 3})
				s.access.push_back(static_cast<u8>(rdt_core_max_level(vm, 0, g, level)));
			s.query.push_back(asker.hc(RDT_HC_QUERY, gpa_of(g)));
		}
		for (;;) {
			int n = rdt_core_regions(vm, next, r, 7, &next);

			if (n < 0) {
				s.regions.push_back("error " + std::to_string(n));
				break;
			}
			for (int k = 0; k < n; k++) {
				std::ostringstream line;

				line << r[k].gpa / page_size << "+" << r[k].pages << " action "
				     << +r[k].action << " class " << +r[k].cls << " flags " << r[k].flags;
				s.regions.push_back(line.str());
			}
			if (n < 7)
				break;
		}
		rdt_core_info(vm, &i);
		info << "flags " << i.flags << " frames " << i.frames << " ranges " << i.ranges << " nodes "
		     << i.node_pages << " driver " << i.driver_frames << " slots " << i.slots << " busy "
		     << i.slots_busy << " enters " << i.enters << " aexits " << i.aexits << " status "
		     << rdt_core_status(vm);
		s.info = info.str();
		return s;
	}
};

} // namespace redoubt
