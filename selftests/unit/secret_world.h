// SPDX-License-Identifier: GPL-2.0
/* A guest with secrets: what test_secret*.cc have in common. */
#pragma once

#include "domain_world.h"

namespace redoubt {

inline constexpr s64 enokey = -126;
inline constexpr u32 bit(unsigned n)
{
	return 1u << n;
}

/* Two pages of TEXT, GATE, EXIT, one more of TEXT: wherever base is. */
struct SecPlan {
	static constexpr unsigned frames = 5;
	static constexpr u64 kernel_base = 0xffffffffc0100000;
	static constexpr u64 erasure = 0xe5a5ec0de;

	gfn_t first;
	u64 base = kernel_base;
	u32 flags = RDT_DOM_SECRET;
	u32 slots = 2;
	u32 results = bit(rax) | bit(r10) | bit(r12);
	u32 erased = bit(rax) | bit(rbx) | bit(r9);

	[[nodiscard]] bool rewind() const { return flags & RDT_DOM_REWIND; }
	[[nodiscard]] gfn_t text() const { return first; }
	[[nodiscard]] gfn_t gate() const { return first + 2; }
	[[nodiscard]] gfn_t exit() const { return first + 3; }
	[[nodiscard]] gfn_t text2() const { return first + 4; }
	[[nodiscard]] u64 gate_gva() const { return base + 0x2010; }
	[[nodiscard]] u64 exit_gva() const { return base + 0x3020; }
	[[nodiscard]] u64 stub() const { return base + 0x8100; }

	[[nodiscard]] rdt_domain_desc desc() const
	{
		rdt_domain_desc d = {};

		d.size = sizeof(d);
		d.flags = flags;
		d.gate_gva = gate_gva();
		d.exit_gva = exit_gva();
		d.resume_gva = rewind() ? 0 : stub();
		d.slots = slots;
		d.results = results;
		d.erased = rewind() ? erased : 0;
		d.erasure = rewind() ? erasure : 0;
		return d;
	}
	static SecPlan nr(unsigned n, u32 more = 0)
	{
		SecPlan p = {128 + n * 16};

		p.flags |= more;
		if (more & RDT_DOM_USER)
			p.base = 0x70000000;
		p.base += n * 0x100000;
		return p;
	}
};

class SecWorld : public DomWorld {
public:
	static constexpr u64 value = 0x5ec2e75ec2e75ec2;

	explicit SecWorld(bool execute_only = true, unsigned cpus = 2) : DomWorld(cpus)
	{
		mock_execute_only = execute_only;
	}
	~SecWorld()
	{
		mock_execute_only = true;
	}
	void fill(const SecPlan &p)
	{
		for (unsigned i = 0; i < SecPlan::frames; i++)
			for (unsigned k = 0; k < page_size; k++)
				byte(p.first + i)[k] = static_cast<u8>(1 + (i * 37 + k * 11 + k / 256) % 255);
	}
	s64 build(const SecPlan &p)
	{
		fill(p);

		const s64 id = create(p.desc());

		EXPECT_GT(id, 0);
		EXPECT_EQ(add(id, p.text(), p.base, 2, RDT_DOM_TEXT), 0);
		EXPECT_EQ(add(id, p.gate(), p.base + 0x2000, 1, RDT_DOM_GATE), 0);
		EXPECT_EQ(add(id, p.exit(), p.base + 0x3000, 1, RDT_DOM_EXIT), 0);
		EXPECT_EQ(add(id, p.text2(), p.base + 0x4000, 1, RDT_DOM_TEXT), 0);
		return id;
	}
	int put(s64 id, s64 offset = 0x100, u64 v = value)
	{
		const rdt_fixup f = {offset, 0, 8};

		return rdt_core_domain_install(vm, static_cast<u64>(id), &v, 8, &f, 1);
	}
	s64 make(const SecPlan &p)
	{
		const s64 id = build(p);

		EXPECT_EQ(seal_domain(id), 0);
		EXPECT_EQ(put(id), 0);
		quiet();
		return id;
	}
	/* delta: mapped elsewhere than it was described. */
	static rdt_verdict enter(Cpu &c, const SecPlan &p, u64 delta = 0)
	{
		c.cpl = p.flags & RDT_DOM_USER ? 3 : 0;
		c.idt_base = 0x1234000; /* any */
		c.regs.gpr[r11] = lay::back;
		c.regs.rip = p.gate_gva() + delta;
		return c.fault(gpa_of(p.gate()) + 0x10, RDT_ACC_X);
	}
	static rdt_verdict leave(Cpu &c, const SecPlan &p, u64 delta = 0)
	{
		c.regs.rip = p.exit_gva() + delta;
		return c.fault(gpa_of(p.exit()) + 0x20, RDT_ACC_X);
	}
	/* To another page of its code. */
	static rdt_verdict fetch(Cpu &c, const SecPlan &p, unsigned page, u64 delta = 0)
	{
		c.regs.rip = p.base + page * page_size + 0x30 + delta;
		return c.fault(gpa_of(p.first + page) + 0x30, RDT_ACC_X);
	}
};

} // namespace redoubt
