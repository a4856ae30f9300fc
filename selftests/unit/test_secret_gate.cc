// SPDX-License-Identifier: GPL-2.0
/* D2-D7: into a secret, out of it, interrupted in it in both modes. */
#include "secret_world.h"
#include "slots.h"

using namespace redoubt;

namespace {

constexpr u32 rewind_mode = RDT_DOM_REWIND, vector = RDT_DOM_VECTOR, user = RDT_DOM_USER;

/* A caller of whom each register is known. */
void caller(Cpu &c)
{
	c.regs = Regs::numbered(0x1234);
	c.regs.rflags = 0x7d7;
	c.hv.vector = 0x7e57;
}

/* Everything that the inside has is the secret. */
void soak(Cpu &c, const SecPlan &p)
{
	for (u64 &g : c.regs.gpr)
		g = SecWorld::value;
	c.regs.rflags = 0xad7;
	if (p.flags & RDT_DOM_VECTOR)
		c.hv.vector = SecWorld::value;
}

bool clean(const Cpu &c)
{
	bool none = c.hv.vector != SecWorld::value && c.regs.rip != SecWorld::value;

	for (unsigned n = 0; n < 16; n++)
		none &= n == rsp_stale || c.regs.gpr[n] != SecWorld::value;
	return none;
}

} // namespace

TEST(D2, EntryAtEveryByte)
{
	for (bool execute_only : {true, false})
		for (bool short_way : {false, true}) {
			SecWorld w(execute_only);
			const SecPlan p = SecPlan::nr(0);
			const s64 id = w.make(p);
			Cpu &c = w[1];
			unsigned in = 0;

			c.short_way = short_way;
			for (unsigned page = 0; page < SecPlan::frames; page++)
				for (u64 at = 0; at < page_size; at++) {
					c.regs = Regs::numbered(7);
					c.regs.gpr[r11] = lay::back;
					c.regs.rip = p.base + page * page_size + at;
					const rdt_verdict v = c.fault(gpa_of(p.first + page) + at, RDT_ACC_X);

					if (page == 2 && at == 0x10) {
						EXPECT_EQ(v, RDT_V_RESUME);
						in += DomWorld::in(c, id);
						SecWorld::leave(c, p);
						w.quiet();
						continue;
					}
					EXPECT_EQ(v, RDT_V_GP) << page << " " << at;
					if (page == 2)
						w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_RIP);
					else
						w.expect_event(RDT_EV_DOMAIN_ACCESS, RDT_ACC_X);
				}
			EXPECT_EQ(in, 1u);
			EXPECT_EQ(c.hc(RDT_HC_DOM_ENTER, static_cast<u64>(id)), eperm);
			w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_RIP);
			EXPECT_EQ(w.info(2).slots_busy, 0u);
		}
}

/* Wherever its caller has it mapped; what is not the exit does not let out. */
TEST(D2, ByAnyMapping)
{
	SecWorld w;
	const SecPlan p = SecPlan::nr(0);
	const s64 id = w.make(p);
	Cpu &c = w[0];
	const u64 elsewhere = 0x5000000;

	ASSERT_EQ(SecWorld::enter(c, p, elsewhere), RDT_V_RESUME);
	EXPECT_EQ(c.regs.rip, p.gate_gva() + elsewhere) << "it goes on there";
	c.regs.gpr[rax] = 42;
	EXPECT_EQ(SecWorld::leave(c, p, elsewhere), RDT_V_RESUME);
	EXPECT_EQ(c.regs.gpr[rax], 42u);
	EXPECT_EQ(c.regs.rip, lay::back);
	EXPECT_TRUE(w.host.take_events().empty());

	for (s64 off : {-1, 1, 0x100}) {
		ASSERT_EQ(SecWorld::enter(c, p), RDT_V_RESUME);
		soak(c, p);
		EXPECT_EQ(SecWorld::leave(c, p, static_cast<u64>(off)), RDT_V_RESUME);
		EXPECT_EQ(static_cast<s64>(c.regs.gpr[rax]), eperm) << "another place of the exit page";
		EXPECT_TRUE(clean(c));
		EXPECT_FALSE(w.host.take_events().empty());
	}
	EXPECT_EQ(w.info(2).slots_busy, 0u);
	(void)id;
}

TEST(D6, InAndOut)
{
	for (u32 more : {0u, vector, rewind_mode, rewind_mode | vector}) {
		SCOPED_TRACE(more);
		SecWorld w;
		const SecPlan p = SecPlan::nr(0, more);
		const s64 id = w.make(p);

		for (bool short_way : {false, true})
			for (bool by_call : {false, true}) {
				Cpu &c = w[1];

				c.short_way = short_way;
				caller(c);
				c.regs.gpr[r11] = lay::back;
				c.regs.rip = p.gate_gva();
				Regs want = c.regs;

				ASSERT_EQ(SecWorld::enter(c, p), RDT_V_RESUME);
				ASSERT_TRUE(DomWorld::in(c, id));
				EXPECT_TRUE(c.no_idt);
				want.rflags = 0x202;
				EXPECT_TRUE(c.regs == want) << "all registers are the caller's but the flags";
				EXPECT_EQ(c.hv.vector, more & vector ? 0u : 0x7e57u);

				soak(c, p);
				c.regs.gpr[rax] = 77, c.regs.gpr[r10] = 78, c.regs.gpr[r12] = 79;
				c.regs.rsp = 0x1000;
				if (by_call)
					EXPECT_TRUE(c.leave_call(77));
				else
					EXPECT_EQ(SecWorld::leave(c, p), RDT_V_RESUME);
				EXPECT_FALSE(c.no_idt);
				for (unsigned n : {rcx, rdx, rsi, rdi, r8, r9, r11})
					want.gpr[n] = 0;
				want.gpr[rax] = 77, want.gpr[r10] = 78, want.gpr[r12] = 79;
				want.rip = lay::back;
				want.rflags = 0x7d7;
				EXPECT_TRUE(c.regs == want);
				EXPECT_EQ(c.hv.vector, 0x7e57u);
				EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
			}
		EXPECT_TRUE(w.host.take_events().empty());
		EXPECT_EQ(w.info(2).enters, 4u);
	}
	/* Without RAX among them there is no result. */
	SecWorld w;
	SecPlan p = SecPlan::nr(0);

	p.results = 0;
	w.make(p);
	ASSERT_EQ(SecWorld::enter(w[0], p), RDT_V_RESUME);
	soak(w[0], p);
	EXPECT_EQ(SecWorld::leave(w[0], p), RDT_V_RESUME);
	EXPECT_EQ(w[0].regs.gpr[rax], 0u);
	EXPECT_TRUE(clean(w[0]));
}

/* However it ends: an error, and nothing of the inside. */
TEST(D6, CutShort)
{
	SecWorld w;

	w.give_nodes();
	ASSERT_EQ(w.protect(lay::plain, 1, RDT_ACT_LOG, 0), 0);
	for (u32 more : {0u, rewind_mode}) {
		const SecPlan p = SecPlan::nr(more ? 1 : 0, more | vector);
		const s64 id = w.make(p);
		Cpu &c = w[0];
		auto cut = [&](const char *what, gpa_t gpa, u8 access, FaultOpts o = {}) {
			caller(c);
			ASSERT_EQ(SecWorld::enter(c, p), RDT_V_RESUME) << what;
			soak(c, p);
			EXPECT_EQ(c.fault(gpa, access, o), RDT_V_RESUME) << what;
			EXPECT_EQ(static_cast<s64>(c.regs.gpr[rax]), eperm) << what;
			EXPECT_EQ(c.regs.rip, lay::back) << what;
			EXPECT_EQ(c.regs.rflags, 0x7d7u) << what;
			EXPECT_TRUE(clean(c)) << what;
			EXPECT_FALSE(c.no_idt) << what;
			EXPECT_FALSE(w.host.take_events().empty()) << what;
		};
		FaultOpts walk, mmio;

		walk.walk = true;
		mmio.mmio = true;
		cut("ordinary code", gpa_of(300), RDT_ACC_X);
		cut("its value", gpa_of(p.gate()) + 0x100, RDT_ACC_R);
		cut("its code", gpa_of(p.text()), RDT_ACC_W);
		cut("its exit", gpa_of(p.exit()), RDT_ACC_R);
		cut("a rule", gpa_of(lay::plain), RDT_ACC_W);
		cut("page tables under a rule", gpa_of(lay::plain), RDT_ACC_W, walk);
		cut("a device", gpa_of(300), RDT_ACC_R, mmio);
		cut("a device", gpa_of(300), RDT_ACC_W, mmio);
		EXPECT_EQ(w.info(DomWorld::view_of(id)).slots_busy, 0u);

		/* Destroyed while somebody is inside. */
		caller(c);
		ASSERT_EQ(SecWorld::enter(c, p), RDT_V_RESUME);
		soak(c, p);
		EXPECT_EQ(w[1].hc(RDT_HC_DOM_DESTROY, static_cast<u64>(id)), eagain);
		rdt_cpu cpu = c.load();

		EXPECT_EQ(rdt_core_evict(w.vm, c.core, &cpu), 1);
		EXPECT_TRUE(cpu.dirty & RDT_CPU_SECRET);
		EXPECT_EQ(static_cast<s64>(c.regs.gpr[rax]), enoent);
		EXPECT_TRUE(clean(c));
		EXPECT_EQ(w[1].hc(RDT_HC_DOM_DESTROY, static_cast<u64>(id)), 0);
		c.no_idt = false;
		w.quiet();
	}
}

TEST(D3, HandlersSeeTheErasureConstant)
{
	for (u32 more : {rewind_mode, rewind_mode | vector})
		for (u8 soft_len : {u8{0}, u8{2}}) {
			SecWorld w;
			const SecPlan p = SecPlan::nr(0, more);
			const s64 id = w.make(p);
			Cpu &c = w[0];

			caller(c);
			c.regs.gpr[r11] = lay::back;
			c.regs.rip = p.gate_gva() + 0x7000000;
			Regs want = c.regs;

			ASSERT_EQ(SecWorld::enter(c, p, 0x7000000), RDT_V_RESUME);
			soak(c, p);
			c.regs.rip = p.gate_gva() + 0x7000044;
			c.regs.rsp -= 8;
			ASSERT_TRUE(c.event(soft_len));
			for (unsigned n : {rax, rbx, r9})
				want.gpr[n] = SecPlan::erasure;
			EXPECT_TRUE(c.regs == want) << "at the gate, as it was called, but for the constant";
			EXPECT_EQ(c.hv.vector, 0x7e57u);
			EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
			EXPECT_FALSE(c.no_idt);
			EXPECT_EQ(w.info(2).slots_busy, 0u) << "nothing of it is kept";
			EXPECT_EQ(w.info(2).aexits, 1u);
			EXPECT_TRUE(w.host.take_events().empty());

			/* D4: who returns from the handler calls again, on whatever vCPU. */
			w[1].regs = c.regs;
			EXPECT_EQ(SecWorld::enter(w[1], p, 0x7000000), RDT_V_RESUME);
			EXPECT_TRUE(DomWorld::in(w[1], id));
			w[1].regs.gpr[rax] = 5;
			SecWorld::leave(w[1], p);
			EXPECT_EQ(w[1].regs.gpr[rax], 5u);
			/* No token names it. */
			for (unsigned slot = 0; slot < 4; slot++)
				EXPECT_EQ(c.hc(RDT_HC_RESUME, Slot::token_bit | 2 * Slots::max | slot), einval);
			w.quiet();
		}
}

TEST(D5, InterruptedCallsGoOn)
{
	for (u32 more : {0u, vector, user})
		for (u8 soft_len : {u8{0}, u8{1}}) {
			SecWorld w;
			const SecPlan p = SecPlan::nr(0, more);
			const s64 id = w.make(p);
			Cpu &c = w[0];

			caller(c);
			const Regs from = c.regs;

			ASSERT_EQ(SecWorld::enter(c, p), RDT_V_RESUME);
			soak(c, p);
			c.regs.rip = p.gate_gva() + 0x44;
			Regs inside = c.regs;

			ASSERT_TRUE(c.event(soft_len));
			EXPECT_TRUE(clean(c));
			for (unsigned n = 0; n < 16; n++)
				if (n != rsp_stale && n != rdi)
					EXPECT_EQ(c.regs.gpr[n], 0u) << n;
			EXPECT_EQ(c.regs.rip, p.stub());
			EXPECT_EQ(c.regs.rsp, from.rsp);
			EXPECT_EQ(c.regs.cr3, from.cr3);
			EXPECT_EQ(c.hv.vector, 0x7e57u);
			EXPECT_FALSE(c.no_idt);

			/* The kernel moves the thread to another vCPU and another PCID. */
			Cpu &d = w[1];

			d.cpl = c.cpl;
			d.regs = c.regs;
			d.regs.cr3 = 0x77000;
			d.hv.vector = 0xd0d0;
			EXPECT_TRUE(d.resume(c.regs.gpr[rdi]).switched);
			inside.rip += soft_len;
			inside.cr3 = 0x77000;
			EXPECT_TRUE(d.regs == inside) << "but for the address space, which is its caller's now";
			EXPECT_EQ(d.hv.vector, more & vector ? SecWorld::value : 0xd0d0);
			EXPECT_TRUE(d.no_idt);
			EXPECT_TRUE(DomWorld::in(d, id));
			d.regs.gpr[rax] = 9;
			SecWorld::leave(d, p);
			EXPECT_EQ(d.regs.gpr[rax], 9u);
			EXPECT_EQ(d.regs.cr3, 0x77000u);
			EXPECT_EQ(w.info(2).slots_busy, 0u);
			EXPECT_TRUE(w.host.take_events().empty());
		}
}

/* --- its two halves --------------------------------------------------------------------- */

TEST(D7, WhatLoadsTheValueIsNotWhatWorksOnMemory)
{
	for (u32 more : {0u, rewind_mode}) {
		SecWorld w(more);
		const SecPlan p = SecPlan::nr(0, more);
		const s64 id = w.make(p);
		const u8 home = DomWorld::view_of(id);
		const u8 work = home + 1;
		Cpu &c = w[0];

		caller(c);
		ASSERT_EQ(SecWorld::enter(c, p), RDT_V_RESUME);
		EXPECT_EQ(c.view(), home);
		soak(c, p);
		Regs before = c.regs;

		/* There and back, as often as it likes. */
		for (unsigned page : {0u, 1u, 4u, 2u, 4u, 2u, 1u}) {
			const u8 then = page == 2 ? home : work;
			const bool there = c.view() == then;

			EXPECT_EQ(SecWorld::fetch(c, p, page), there ? RDT_V_PASS : RDT_V_RESUME) << page;
			EXPECT_EQ(c.view(), then);
			EXPECT_TRUE(c.no_idt);
			before.rip = c.regs.rip;
			EXPECT_TRUE(c.regs == before);
		}
		EXPECT_EQ(c.view(), work);
		EXPECT_EQ(w.access(c.view(), p.gate()), 0) << "here nobody reads the value";
		EXPECT_TRUE(w.host.take_events().empty());

		/* Interrupted there, it goes on there, or begins again. */
		ASSERT_TRUE(c.event());
		EXPECT_TRUE(clean(c));
		if (more) {
			EXPECT_EQ(SecWorld::enter(c, p), RDT_V_RESUME);
			EXPECT_EQ(c.view(), home);
		} else {
			EXPECT_TRUE(c.resume(c.regs.gpr[rdi]).switched);
			EXPECT_EQ(c.view(), work);
		}
		EXPECT_EQ(SecWorld::leave(c, p), RDT_V_RESUME);
		EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
		EXPECT_EQ(w.info(home).slots_busy, 0u);
		EXPECT_TRUE(w.host.take_events().empty());
	}
}

/* The caller's page tables have no say in which page comes next. */
TEST(D7, PagesInTheirPlaceOnly)
{
	SecWorld w;
	const SecPlan p = SecPlan::nr(0), q = SecPlan::nr(1);

	w.make(p), w.make(q);
	Cpu &c = w[0];
	auto cut = [&](const char *what, unsigned page, u64 delta, const SecPlan &of) {
		caller(c);
		ASSERT_EQ(SecWorld::enter(c, p), RDT_V_RESUME);
		soak(c, p);
		c.regs.rip = p.base + page * page_size + 0x30 + delta;
		EXPECT_EQ(c.fault(gpa_of(of.first + page) + 0x30, RDT_ACC_X), RDT_V_RESUME) << what;
		EXPECT_EQ(c.view(), RDT_VIEW_ROOT) << what;
		EXPECT_EQ(static_cast<s64>(c.regs.gpr[rax]), eperm) << what;
		EXPECT_TRUE(clean(c)) << what;
		EXPECT_FALSE(w.host.take_events().empty()) << what;
	};

	cut("the page behind", 0, page_size, p);
	cut("the page before", 4, 0 - page_size, p);
	cut("far away", 4, 1ull << 40, p);
	cut("an instruction that lies across", 4, 0 - u64{0x31}, p);
	cut("another secret's", 0, 0, q);
	/* Where the whole of it is mapped elsewhere it is in its place there. */
	ASSERT_EQ(SecWorld::enter(c, p, 0x9000000), RDT_V_RESUME);
	EXPECT_EQ(SecWorld::fetch(c, p, 4, 0x9000000), RDT_V_RESUME);
	EXPECT_EQ(c.view(), DomWorld::view_of(w.info(2).id & 0xff) + 1);
	EXPECT_EQ(SecWorld::leave(c, p, 0x9000000), RDT_V_RESUME);
	EXPECT_EQ(c.regs.rip, lay::back);
}

/* What KVM needs to know of an int3 inside is in its code, not in the VMM's page. */
TEST(D6, SoftEventsAreReadFromItsOwnCode)
{
	SecWorld w;
	const SecPlan p = SecPlan::nr(0);

	w.make(p);
	Cpu &c = w[0];
	u8 code[8];

	EXPECT_EQ(rdt_core_read_inside(w.vm, c.core, p.gate_gva(), code, 8), 0u) << "not inside";
	for (unsigned page = 0; page < SecPlan::frames; page++)
		c.hv.map(p.base + 0x9000000 + page * page_size, gpa_of(p.first + page));
	c.hv.map(0x1000, gpa_of(300));
	ASSERT_EQ(SecWorld::enter(c, p, 0x9000000), RDT_V_RESUME);
	const u8 *gate = static_cast<const u8 *>(w.own(2, p.gate()));

	EXPECT_EQ(rdt_core_read_inside(w.vm, c.core, p.gate_gva() + 0x9000000, code, 8), 8u);
	EXPECT_EQ(std::memcmp(code, gate + 0x10, 8), 0);
	EXPECT_EQ(rdt_core_read_inside(w.vm, c.core, 0x1000, code, 8), 0u) << "not its own";
	/* Where its caller's tables say, not where it should be. */
	c.hv.map(p.base + 0x9000000, gpa_of(p.gate()));
	EXPECT_EQ(rdt_core_read_inside(w.vm, c.core, p.base + 0x9000000 + 0x10, code, 8), 8u);
	EXPECT_EQ(std::memcmp(code, gate + 0x10, 8), 0);
	EXPECT_EQ(rdt_core_read_inside(w.vm, c.core, p.gate_gva(), code, 8), 0u) << "it is not there";
	SecWorld::leave(c, p, 0x9000000);
}
