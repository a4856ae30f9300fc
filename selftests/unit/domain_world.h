// SPDX-License-Identifier: GPL-2.0
/* A guest that builds protection domains, with what it gave them to compare with. */
#pragma once

#include <array>

#include "vm_world.h"

namespace redoubt {

/* Where things lie in domain n; all that has an address is in one 2 MiB region. */
struct DomPlan {
	static constexpr unsigned frames = 11;
	static constexpr u64 user_base = 0x70000000, kernel_base = 0xffffa00070000000;

	gfn_t first;
	u64 base = user_base;
	u32 flags = RDT_DOM_USER;
	u32 slots = 2;
	u32 windows = 0;

	[[nodiscard]] gfn_t text() const { return first; }
	[[nodiscard]] gfn_t gate() const { return first + 2; }
	[[nodiscard]] gfn_t exit() const { return first + 3; }
	[[nodiscard]] gfn_t data() const { return first + 4; }
	[[nodiscard]] gfn_t tables() const { return first + 7; }
	[[nodiscard]] u64 text_gva() const { return base; }
	[[nodiscard]] u64 gate_gva() const { return base + 0x2010; }
	[[nodiscard]] u64 exit_gva() const { return base + 0x3020; }
	[[nodiscard]] u64 data_gva() const { return base + 0x4000; }
	[[nodiscard]] u64 window_gva(unsigned i) const { return base + 0x10000 + 0x4000 * i; }
	[[nodiscard]] u64 stub() const { return 0x400100; }
	[[nodiscard]] u64 stack(unsigned i) const { return data_gva() + 0x1000 * (i % 3 + 1); }

	[[nodiscard]] rdt_domain_desc desc() const
	{
		rdt_domain_desc d = {};

		d.size = sizeof(d);
		d.flags = flags;
		d.gate_gva = gate_gva();
		d.exit_gva = exit_gva();
		d.resume_gva = stub();
		d.slots = slots;
		d.windows = windows;
		for (unsigned i = 0; i < slots; i++)
			d.stack_top[i] = stack(i);
		for (unsigned i = 0; i < windows; i++)
			d.window[i] = {window_gva(i), 2};
		return d;
	}
	static DomPlan nr(unsigned n, u32 flags = RDT_DOM_USER)
	{
		DomPlan p = {128 + n * frames};

		p.flags = flags;
		if (!(flags & RDT_DOM_USER))
			p.base = kernel_base;
		return p;
	}
};

/* KVM's hypercall errors, as the guest sees them. */
inline constexpr s64 einval = -22, eperm = -1, ebusy = -16, efault = -14, enoent = -2, enomem = -12,
		     enospc = -28, edquot = -122, e2big = -7, eagain = -11, enodev = -19;

class DomWorld : public World {
public:
	explicit DomWorld(unsigned cpus = 2, u64 ram = lay::frames) : World(cpus, ram)
	{
		rdt_domain_quota q = {RDT_DOM_MAX, 0, 1000, 10000};

		EXPECT_EQ(rdt_core_domain_set_quota(vm, &q), 0);
	}
	u8 *byte(gfn_t gfn)
	{
		return host.page(gfn);
	}
	/* What is in the frames before they are given: each byte its own. */
	void fill(const DomPlan &p)
	{
		for (unsigned i = 0; i < DomPlan::frames; i++)
			for (unsigned k = 0; k < page_size; k++)
				byte(p.first + i)[k] = static_cast<u8>(1 + (i * 37 + k * 11 + k / 256) % 255);
	}
	s64 create(const rdt_domain_desc &d)
	{
		host.at<rdt_domain_desc>(gpa_of(lay::desc)) = d;
		return cpu[0]->hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc));
	}
	s64 add(s64 id, gfn_t gfn, u64 gva, u64 pages, u64 kind)
	{
		return cpu[0]->hc(RDT_HC_DOM_ADD, static_cast<u64>(id), gpa_of(gfn), gva,
				  RDT_DOM_PAGES(pages, kind));
	}
	s64 share(s64 id, gfn_t gfn, u64 gva, u64 pages)
	{
		return cpu[0]->hc(RDT_HC_DOM_SHARE, static_cast<u64>(id), gpa_of(gfn), gva, pages);
	}
	s64 seal_domain(s64 id)
	{
		return cpu[0]->hc(RDT_HC_DOM_SEAL, static_cast<u64>(id));
	}
	s64 destroy(s64 id)
	{
		return cpu[0]->hc(RDT_HC_DOM_DESTROY, static_cast<u64>(id));
	}
	/* All but the seal. */
	s64 build(const DomPlan &p)
	{
		fill(p);

		const s64 id = create(p.desc());

		EXPECT_GT(id, 0);
		EXPECT_EQ(add(id, p.text(), p.text_gva(), 2, RDT_DOM_TEXT), 0);
		EXPECT_EQ(add(id, p.gate(), p.base + 0x2000, 1, RDT_DOM_GATE), 0);
		EXPECT_EQ(add(id, p.exit(), p.base + 0x3000, 1, RDT_DOM_EXIT), 0);
		EXPECT_EQ(add(id, p.data(), p.data_gva(), 3, RDT_DOM_DATA), 0);
		EXPECT_EQ(add(id, p.tables(), 0, 4, RDT_DOM_TABLE), 0);
		return id;
	}
	s64 make(const DomPlan &p)
	{
		const s64 id = build(p);

		EXPECT_EQ(seal_domain(id), 0);
		quiet();
		return id;
	}
	static u8 view_of(s64 id)
	{
		return static_cast<u8>(id);
	}
	void *own(u8 view, gfn_t gfn) const
	{
		return rdt_core_private(vm, view, gfn);
	}
	/* A vCPU in that view touches the frame: as far as it may, it has it mapped then. */
	bool touch(u8 view, gfn_t gfn)
	{
		const u8 a = access(view, gfn);

		if (a)
			host.spt[{view, gfn}] = own(view, gfn) ? own(view, gfn) : host.page(gfn);
		return a != 0;
	}
	rdt_domain_info info(u32 view)
	{
		rdt_domain_info i = {};

		EXPECT_EQ(rdt_core_domain_info(vm, view, &i), 0);
		EXPECT_EQ(i.view, view);
		return i;
	}
	rdt_vm_info vm_info()
	{
		rdt_vm_info i = {};

		rdt_core_info(vm, &i);
		return i;
	}
	bool all_zero(gfn_t first, unsigned n)
	{
		for (u64 i = 0; i < n * page_size; i++)
			if (byte(first)[i])
				return false;
		return true;
	}

	/* There was one event, and it was this. */
	void expect_event(u16 type, u8 code)
	{
		const rdt_event ev = one_event();

		EXPECT_EQ(ev.type, type);
		EXPECT_EQ(ev.code, code);
	}

	/* --- crossing; registers as the caller's code has them --- */

	static void at_caller(Cpu &c, const DomPlan &p)
	{
		c.cpl = p.flags & RDT_DOM_USER ? 3 : 0;
		c.idt_base = 0x1234000; /* any */
		c.regs.gpr[r11] = lay::back;
	}
	/* By the gate page, mapped wherever the caller has it. */
	static rdt_verdict enter_gate(Cpu &c, const DomPlan &p, u64 offset = 0x10)
	{
		at_caller(c, p);
		c.regs.rip = 0x7f0000000000 + offset;
		return c.fault(gpa_of(p.gate()) + offset, RDT_ACC_X);
	}
	static rdt_verdict leave_gate(Cpu &c, const DomPlan &p, u64 result)
	{
		c.regs.rip = p.exit_gva();
		c.regs.gpr[rax] = result;
		return c.fault(gpa_of(p.exit()) + (p.exit_gva() & 0xfff), RDT_ACC_X);
	}
	static bool in(const Cpu &c, s64 id)
	{
		return c.view() == view_of(id);
	}
	/* An event strikes in a domain: its delivery reads the IDT, which is not there. */
	static u64 strike_domain(Cpu &c, u8 soft_len = 0)
	{
		FaultOpts o;

		o.vectoring = true;
		o.soft_len = soft_len;
		EXPECT_EQ(c.fault(gpa_of(lay::idt) + 14 * 16, RDT_ACC_R, o), RDT_V_AEX);
		return c.regs.gpr[rdi];
	}
};

} // namespace redoubt
