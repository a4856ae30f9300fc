// SPDX-License-Identifier: GPL-2.0
/* C3, C4, C6, C10: into a domain, out of it, interrupted in it. */
#include <atomic>
#include <thread>

#include "domain_world.h"
#include "slots.h"

using namespace redoubt;

namespace {

constexpr u32 user = RDT_DOM_USER;

/* The ways in that a domain of this kind has. */
std::vector<bool> doors(const DomPlan &p)
{
	return p.flags & RDT_DOM_USER ? std::vector<bool>{false} : std::vector<bool>{false, true};
}

bool enter(Cpu &c, const DomPlan &p, s64 id, bool call)
{
	if (!call)
		return DomWorld::enter_gate(c, p) == RDT_V_RESUME && DomWorld::in(c, id);
	DomWorld::at_caller(c, p);
	c.regs.gpr[rbx] = static_cast<u64>(id);
	return c.call(RDT_HC_DOM_ENTER, static_cast<u64>(id), c.regs.gpr[rcx], c.regs.gpr[rdx],
		      c.regs.gpr[rsi])
		.switched;
}

} // namespace

TEST(C3, CR3AndViewChangeTogetherAndOnlyArgumentsGetIn)
{
	for (u32 flags : {user, user | RDT_DOM_VECTOR, 0u, u32{RDT_DOM_VECTOR}})
		for (bool call : doors(DomPlan::nr(0, flags)))
			for (bool short_way : {false, true}) {
				SCOPED_TRACE(std::to_string(flags) + (call ? " call" : " gate"));
				DomWorld w;
				const DomPlan p = DomPlan::nr(0, flags);
				const s64 id = w.make(p);
				Cpu &c = w[1];

				c.short_way = short_way;
				c.regs = Regs::numbered(0x1234);
				c.regs.rflags = 0xfffff7; /* TF, DF, AC, NT, IF... */
				c.hv.vector = 0x7e57;
				const Regs caller = c.regs;

				ASSERT_TRUE(enter(c, p, id, call));
				Regs want;

				for (unsigned r : {rcx, rdx, rsi, rdi})
					want.gpr[r] = caller.gpr[r];
				want.rip = p.gate_gva();
				want.rsp = p.stack(1); /* vCPU 1 begins to look there */
				want.cr3 = gpa_of(p.tables());
				want.rflags = 0x202;
				EXPECT_TRUE(c.regs == want);
				EXPECT_EQ(c.regs.gpr[rsp_stale], 0xdeadu);
				EXPECT_EQ(c.hv.vector, flags & RDT_DOM_VECTOR ? 0u : 0x7e57u);
				EXPECT_EQ(w[0].view(), RDT_VIEW_ROOT);
				EXPECT_EQ(w.info(2).enters, 1u);
				EXPECT_EQ(w.info(2).slots_busy, 1u);
				EXPECT_TRUE(w.host.take_events().empty());
			}
}

TEST(C4, LeavingIsTheMirror)
{
	for (u32 flags : {user, user | RDT_DOM_VECTOR, 0u, u32{RDT_DOM_VECTOR}})
		for (bool in_call : doors(DomPlan::nr(0, flags)))
			for (bool out_call : {false, true}) {
				DomWorld w;
				const DomPlan p = DomPlan::nr(0, flags);
				const s64 id = w.make(p);
				Cpu &c = w[1];

				c.regs = Regs::numbered(0x1234);
				c.hv.vector = 0x7e57;
				DomWorld::at_caller(c, p);
				c.regs.gpr[rbx] = in_call ? static_cast<u64>(id) : c.regs.gpr[rbx];
				const Regs caller = c.regs;

				ASSERT_TRUE(enter(c, p, id, in_call));
				c.regs = Regs::numbered(0xabc);
				c.regs.rflags = 0x4d7;
				if (flags & RDT_DOM_VECTOR)
					c.hv.vector = 0x5ec2e7;
				if (out_call)
					EXPECT_TRUE(c.leave_call(77));
				else
					EXPECT_EQ(DomWorld::leave_gate(c, p, 77), RDT_V_RESUME);
				Regs want;

				want.gpr[rax] = 77;
				for (unsigned r : {rbx, rbp, r12, r13, r14, r15})
					want.gpr[r] = caller.gpr[r];
				want.rip = lay::back;
				want.rsp = caller.rsp;
				want.cr3 = caller.cr3;
				want.rflags = caller.rflags;
				EXPECT_TRUE(c.regs == want);
				EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
				EXPECT_EQ(c.hv.vector, 0x7e57u);
				EXPECT_EQ(w.info(2).slots_busy, 0u);
				EXPECT_TRUE(w.host.take_events().empty());
			}
}

/*
 * An IDT that the inside's page tables lead to would be one that the CPU can use there: each event
 * a way in to wherever it says. Not at the gate, not at the resume.
 */
TEST(C6, NoIdtWithinTheDomain)
{
	for (u32 flags : {user, 0u})
		for (bool by_call : doors(DomPlan::nr(0, flags))) {
			DomWorld w;
			DomPlan p = DomPlan::nr(0, flags);

			p.windows = 1;
			const s64 id = w.build(p);
			ASSERT_EQ(w.share(id, lay::plain, p.window_gva(0), 2), 0);
			ASSERT_EQ(w.seal_domain(id), 0);
			w.quiet();
			Cpu &c = w[1];
			const u64 low = p.text_gva(), high = p.window_gva(0) + 2 * page_size;
			const struct {
				u64 base;
				bool fits;
			} idts[] = {
				{low, false},	       {p.data_gva(), false},	 {p.window_gva(0), false},
				{high - 1, false},     {high, true},		 {low - 0x10000, true},
				{low - 0xffff, false}, {low - page_size, false}, {0, true},
				{~0ull - 0x7fff, false}, /* its end is at 0 */
			};
			const auto enter_with = [&](u64 idt) {
				DomWorld::at_caller(c, p);
				c.idt_base = idt;
				c.regs.gpr[rbx] = by_call ? static_cast<u64>(id) : c.regs.gpr[rbx];
				c.regs.rip = 0x7f0000000010;
				if (by_call)
					c.call(RDT_HC_DOM_ENTER, static_cast<u64>(id));
				else
					c.fault(gpa_of(p.gate()) + 0x10, RDT_ACC_X);
				return DomWorld::in(c, id);
			};

			for (const auto &idt : idts) {
				SCOPED_TRACE(testing::Message() << std::hex << idt.base);
				EXPECT_EQ(enter_with(idt.base), idt.fits);
				if (!idt.fits) {
					w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_IDT);
					ASSERT_TRUE(enter_with(0x1234000));
				}
				const u64 token = DomWorld::strike_domain(c);

				c.idt_base = idt.base;
				EXPECT_EQ(c.resume(token).switched, idt.fits);
				if (!idt.fits) {
					w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_IDT);
					c.idt_base = 0x1234000;
					EXPECT_TRUE(c.resume(token).switched);
				}
				DomWorld::leave_gate(c, p, 0);
				EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
				w.quiet();
			}
		}
}

/* Each byte of each page of the domain as a target of a jump from outside: one is the way in. */
TEST(C6, EntryAtEveryByte)
{
	for (bool short_way : {false, true}) {
		DomWorld w;
		const DomPlan p = DomPlan::nr(0);
		const s64 id = w.make(p);
		Cpu &c = w[1];
		unsigned entered = 0;

		c.short_way = short_way;
		for (unsigned page = 0; page < DomPlan::frames; page++)
			for (u64 at = 0; at < page_size; at++) {
				DomWorld::at_caller(c, p);
				c.regs.rip = 0x7f0000000000 + at;
				const rdt_verdict v = c.fault(gpa_of(p.first + page) + at, RDT_ACC_X);

				if (v == RDT_V_RESUME) {
					entered++;
					EXPECT_EQ(p.first + page, p.gate());
					EXPECT_EQ(at, p.gate_gva() & 0xfff);
					EXPECT_TRUE(DomWorld::in(c, id));
					DomWorld::leave_gate(c, p, 0);
				} else {
					ASSERT_EQ(v, RDT_V_GP);
					ASSERT_EQ(c.view(), RDT_VIEW_ROOT);
				}
			}
		EXPECT_EQ(entered, 1u);
		EXPECT_EQ(w.host.take_events().size(), DomPlan::frames * page_size - 1);
	}
}

/* And from inside as a way out: one, with what the inside may execute none. */
TEST(C6, ExitAtEveryByte)
{
	DomWorld w;
	const DomPlan p = DomPlan::nr(0), q = DomPlan::nr(1);
	const s64 id = w.make(p);

	w.make(q);
	Cpu &c = w[1];
	unsigned left = 0, thrown_out = 0;

	for (gfn_t g : {p.exit(), p.data(), p.tables(), q.gate(), q.text(), q.exit(), gfn_t{5}})
		for (u64 at = 0; at < page_size; at += g == p.exit() ? 1 : 16) {
			ASSERT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
			c.regs.rip = p.base + 0x3000 + at;
			c.regs.gpr[rax] = 99;
			ASSERT_EQ(c.fault(gpa_of(g) + at, RDT_ACC_X), RDT_V_RESUME);
			ASSERT_EQ(c.view(), RDT_VIEW_ROOT);
			EXPECT_EQ(c.regs.rip, lay::back);
			/* On another frame at the address of the exit: its tables say so, no matter. */
			if (c.regs.gpr[rax] == 99) {
				left++;
				EXPECT_EQ(g, p.exit());
				EXPECT_EQ(at, p.exit_gva() & 0xfff);
			} else {
				EXPECT_EQ(c.regs.gpr[rax], static_cast<u64>(eperm));
				thrown_out++;
			}
		}
	EXPECT_EQ(left, 1u);
	EXPECT_EQ(w.host.take_events().size(), thrown_out);
	/* What it may execute is no fault of ours. */
	ASSERT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
	for (gfn_t g : {p.text(), p.gate()})
		EXPECT_EQ(c.fault(gpa_of(g), RDT_ACC_X), RDT_V_PASS);
	EXPECT_TRUE(DomWorld::in(c, id));
	c.fault(0, RDT_ACC_X);
}

TEST(C6, EnterRefuses)
{
	for (u32 flags : {user, 0u}) {
		DomWorld w;

		w.start();
		const DomPlan p = DomPlan::nr(0, flags), q = DomPlan::nr(1, flags);
		const s64 id = w.make(p);

		w.make(q);
		Cpu &c = w[1];
		auto refused = [&](u8 code, s64 error) {
			DomWorld::at_caller(c, p);
			return [&w, &c, code, error, p] {
				c.regs.rip = 0x7f0000000010;
				const Regs before = c.regs;

				EXPECT_EQ(c.fault(gpa_of(p.gate()) + 0x10, RDT_ACC_X), RDT_V_RESUME);
				EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
				EXPECT_EQ(c.regs.gpr[rax], static_cast<u64>(error));
				EXPECT_EQ(c.regs.rip, lay::back);
				EXPECT_EQ(c.regs.rsp, before.rsp);
				EXPECT_EQ(c.regs.cr3, before.cr3);
				w.expect_event(RDT_EV_GATE, code);
			};
		};
		auto bad_cpl = refused(RDT_GATE_BAD_CPL, eperm);

		for (u8 cpl : {u8{0}, u8{1}, u8{2}, u8{3}}) {
			c.cpl = cpl;
			if (cpl != (flags & user ? 3 : 0))
				bad_cpl();
		}
		auto bad_state = refused(RDT_GATE_BAD_STATE, eperm);

		c.va_bits = 57;
		bad_state();
		c.va_bits = 48;
		/* Nowhere to go back to. */
		DomWorld::at_caller(c, p);
		for (u8 bits : {u8{0}, u8{48}}) {
			c.va_bits = bits;
			c.regs.rip = 0x7f0000000010;
			c.regs.gpr[r11] = bits ? 0x800000000000 : lay::back;
			EXPECT_EQ(c.fault(gpa_of(p.gate()) + 0x10, RDT_ACC_X), RDT_V_GP);
			w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_STATE);
		}
		/* No slot: two are in. */
		ASSERT_EQ(DomWorld::enter_gate(w[0], p), RDT_V_RESUME);
		Cpu third(w.vm, w.host, 7);

		ASSERT_EQ(DomWorld::enter_gate(third, p), RDT_V_RESUME);
		refused(RDT_GATE_NO_SLOT, eagain)();
		DomWorld::leave_gate(third, p, 0);
		DomWorld::leave_gate(w[0], p, 0);

		/* The hypercall: a number that names no sealed domain. */
		c.cpl = 0;
		for (u64 bad : {u64{0}, u64{1}, u64{2}, u64{0x101}, static_cast<u64>(id) + 0x100,
				static_cast<u64>(id) ^ 8, ~u64{0}}) {
			EXPECT_EQ(c.hc(RDT_HC_DOM_ENTER, bad), enoent) << bad;
			w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_STATE);
		}
		/* Ring 3 has no hypercall to enter, whatever the domain is. */
		c.cpl = 3;
		EXPECT_EQ(c.hc(RDT_HC_DOM_ENTER, static_cast<u64>(id)), eperm);
		w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_CPL);
		if (flags & user) {
			c.cpl = 0;
			EXPECT_EQ(c.hc(RDT_HC_DOM_ENTER, static_cast<u64>(id)), eperm);
			w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_CPL);
		} else {
			/* From where somebody is inside already. */
			ASSERT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
			EXPECT_EQ(c.call(RDT_HC_DOM_ENTER, static_cast<u64>(id)).value, eperm);
			w.expect_event(RDT_EV_GATE, RDT_GATE_INSIDE);
			EXPECT_EQ(c.call(RDT_HC_ENTER).value, eperm);
			EXPECT_TRUE(DomWorld::in(c, id));
			DomWorld::leave_gate(c, p, 0);
			c.idt_base = lay::idt_gva;
			ASSERT_TRUE(c.enter_call());
			w.quiet();
			EXPECT_EQ(c.call(RDT_HC_DOM_ENTER, static_cast<u64>(id)).value, eperm);
			w.expect_event(RDT_EV_GATE, RDT_GATE_INSIDE);
			EXPECT_TRUE(c.inside());
			/* A jump from there to a domain's gate is a jump to what is not executable. */
			EXPECT_EQ(c.fault(gpa_of(p.gate()) + 0x10, RDT_ACC_X), RDT_V_RESUME);
			w.expect_event(RDT_EV_EXEC, 0);
			EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
		}
	}
}

/* What ring 3 may call: nothing, but where it is inside. */
TEST(C6, HypercallsOfRing3)
{
	DomWorld w;

	w.start();
	const DomPlan p = DomPlan::nr(0);
	const s64 id = w.make(p);
	Cpu &c = w[1];

	c.cpl = 3;
	for (u32 nr = RDT_HC_VERSION; nr <= RDT_HC_DOM_DESTROY + 3; nr++)
		EXPECT_EQ(c.hc(nr, nr == RDT_HC_RESUME ? 5 : 0), eperm) << nr - RDT_HC_BASE;
	w.quiet();
	ASSERT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
	for (u32 nr = RDT_HC_VERSION; nr <= RDT_HC_DOM_DESTROY + 3; nr++) {
		const u64 rip = c.regs.rip;

		if (nr == RDT_HC_LEAVE)
			continue;
		const Cpu::Result r = c.call(nr);

		EXPECT_TRUE(r.switched);
		EXPECT_EQ(c.regs.rip, rip + 3);
		if (nr == RDT_HC_DOM_MEASURE) {
			const rdt_domain_info i = w.info(2);

			EXPECT_EQ(r.value, 0);
			EXPECT_EQ(std::memcmp(&c.regs.gpr[rbx], i.measurement, 8), 0);
			EXPECT_EQ(std::memcmp(&c.regs.gpr[rcx], i.measurement + 8, 8), 0);
			EXPECT_EQ(std::memcmp(&c.regs.gpr[rdx], i.measurement + 16, 8), 0);
			EXPECT_EQ(std::memcmp(&c.regs.gpr[rsi], i.measurement + 24, 8), 0);
		} else {
			EXPECT_EQ(r.value, eperm) << nr - RDT_HC_BASE;
		}
		ASSERT_TRUE(DomWorld::in(c, id));
	}
	EXPECT_TRUE(c.leave_call(3));
	EXPECT_EQ(c.regs.gpr[rax], 3u);
	EXPECT_EQ(c.hc(RDT_HC_LEAVE, 3), eperm);

	/* What is ring 0's is not ring 3's, should an inside have gone there. */
	const DomPlan k = DomPlan::nr(1, 0);
	const s64 idk = w.make(k);

	ASSERT_EQ(DomWorld::enter_gate(c, k), RDT_V_RESUME);
	c.cpl = 3;
	EXPECT_EQ(c.call(RDT_HC_LEAVE, 3).value, eperm);
	w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_CPL);
	EXPECT_EQ(c.call(RDT_HC_DOM_MEASURE).value, eperm);
	EXPECT_TRUE(DomWorld::in(c, idk));
	c.cpl = 0;
	ASSERT_TRUE(c.leave_call(0));
	c.idt_base = lay::idt_gva;
	ASSERT_TRUE(c.enter_call());
	c.cpl = 3;
	EXPECT_EQ(c.hc(RDT_HC_LEAVE, 3), eperm);
	EXPECT_TRUE(c.inside());
	c.cpl = 0;
	EXPECT_TRUE(c.leave_call(3));
}

/* What the inside reaches for, and may not have, ends the call. */
TEST(C5, TheInsideStaysInside)
{
	DomWorld w;

	w.start();
	DomPlan p = DomPlan::nr(0), q = DomPlan::nr(1);

	p.windows = 1;
	const s64 id = w.build(p);

	ASSERT_EQ(w.share(id, 300, p.window_gva(0), 2), 0);
	ASSERT_EQ(w.seal_domain(id), 0);
	const s64 other = w.make(q);
	Cpu &c = w[1];

	for (gfn_t g : {gfn_t{1}, lay::plain, q.data(), q.text(), q.gate(), lay::data, lay::text, lay::nodes,
			lay::idt, gfn_t{lay::frames + 5}})
		for (u8 acc : {u8{RDT_ACC_R}, u8{RDT_ACC_W}, u8{RDT_ACC_X}})
			for (bool walk : {false, true}) {
				SCOPED_TRACE("frame " + std::to_string(g));
				FaultOpts o;

				o.walk = walk;
				ASSERT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
				w.quiet();
				EXPECT_EQ(c.fault(gpa_of(g) + 8, acc, o), RDT_V_RESUME);
				EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
				EXPECT_EQ(c.regs.gpr[rax], static_cast<u64>(eperm));
				EXPECT_EQ(c.regs.rip, lay::back);
				const rdt_event ev = w.one_event();

				EXPECT_EQ(ev.type, acc == RDT_ACC_X ? RDT_EV_EXEC : RDT_EV_DOMAIN_ACCESS);
				EXPECT_EQ(ev.view, DomWorld::view_of(id));
				EXPECT_EQ(ev.flags & RDT_EVF_OLD, 0u);
				if (acc != RDT_ACC_X && g >= q.first && g < q.first + DomPlan::frames)
					EXPECT_EQ(ev.domain, DomWorld::view_of(other));
			}
	/* What it may have is KVM's to map; what KVM would write for it is not its own page. */
	ASSERT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
	for (gfn_t g : {p.data(), p.tables(), gfn_t{300}, gfn_t{301}}) {
		EXPECT_EQ(c.fault(gpa_of(g), RDT_ACC_R), RDT_V_PASS);
		EXPECT_EQ(c.fault(gpa_of(g), RDT_ACC_W), RDT_V_PASS);
	}
	EXPECT_EQ(c.kvm_write(gpa_of(300)), RDT_V_PASS);
	EXPECT_TRUE(w.host.take_events().empty());
	EXPECT_EQ(c.kvm_write(gpa_of(p.data())), RDT_V_GP);
	w.expect_event(RDT_EV_DOMAIN_ACCESS, RDT_ACC_W);
	EXPECT_EQ(c.kvm_write(gpa_of(lay::plain)), RDT_V_GP);
	w.expect_event(RDT_EV_DOMAIN_ACCESS, RDT_ACC_W);
	/* W^X: its own text. */
	EXPECT_EQ(c.fault(gpa_of(p.text()), RDT_ACC_W), RDT_V_RESUME);
	EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
}

/* --- events ------------------------------------------------------------------------- */

TEST(C10, AsynchronousExitAndResume)
{
	for (u32 flags : {user | RDT_DOM_VECTOR, u32{RDT_DOM_VECTOR}, user})
		for (unsigned back_on : {0u, 1u})
			for (gfn_t hit : {lay::idt, gfn_t{1}, DomPlan::nr(0).text(), gfn_t{400}}) {
				SCOPED_TRACE(std::to_string(flags) + " frame " + std::to_string(hit));
				DomWorld w;
				const DomPlan p = DomPlan::nr(0, flags);
				const s64 id = w.make(p);
				const bool vec = flags & RDT_DOM_VECTOR;
				Cpu &c = w[0], &o = w[back_on];

				c.hv.vector = 0xca11e4;
				c.hv.segments = 0x33;
				ASSERT_EQ(DomWorld::enter_gate(c, p), RDT_V_RESUME);
				const Regs caller = Regs::numbered(1); /* vCPU 0's, as made */
				Regs thread = Regs::numbered(0xdef);

				thread.rip = p.text_gva() + 7;
				thread.rflags = 0xad7;
				c.regs = thread;
				/* SYSCALL in there, its handler nowhere: an event strikes in ring 0. */
				c.hv.segments = 0x10;
				if (flags & RDT_DOM_USER)
					c.regs.rflags &= ~0x200ull;
				if (vec)
					c.hv.vector = 0x5ec2e7;
				FaultOpts f;

				f.vectoring = true;
				f.soft_len = 2;
				ASSERT_EQ(c.fault(gpa_of(hit), hit == p.text() ? RDT_ACC_W : RDT_ACC_R, f), RDT_V_AEX);
				const u64 token = c.regs.gpr[rdi];
				Regs stub;

				stub.gpr[rdi] = token;
				stub.rip = p.stub();
				stub.rsp = caller.rsp;
				stub.cr3 = caller.cr3;
				stub.rflags = 0x202;
				EXPECT_TRUE(c.regs == stub);
				EXPECT_EQ(c.hv.vector, 0xca11e4u) << "the process's, to be switched away with it";
				EXPECT_EQ(c.hv.segments, flags & RDT_DOM_USER ? 0x33u : 0x10u);
				EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
				EXPECT_EQ(w.info(2).aexits, 1u);

				DomWorld::at_caller(o, p);
				o.regs = Regs::numbered(0x777);
				const Regs where = o.regs;

				o.hv.vector = 0xca11e5;
				ASSERT_TRUE(o.resume(token).switched);
				thread.rip += 2;
				EXPECT_TRUE(o.regs == thread);
				EXPECT_TRUE(DomWorld::in(o, id));
				EXPECT_EQ(o.hv.vector, vec ? 0x5ec2e7u : 0xca11e5u);
				/* once */
				Cpu &other = w[1 - back_on];

				DomWorld::at_caller(other, p);
				w.quiet();
				EXPECT_EQ(other.resume(token).value, einval);
				w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_TOKEN);
				EXPECT_EQ(DomWorld::leave_gate(o, p, 5), RDT_V_RESUME);
				EXPECT_EQ(o.regs.rsp, where.rsp);
				EXPECT_EQ(o.regs.cr3, where.cr3);
				EXPECT_EQ(o.regs.gpr[rbx], caller.gpr[rbx]);
				EXPECT_EQ(o.hv.vector, 0xca11e5u);
			}
}

TEST(C10, ResumeRefuses)
{
	DomWorld w;

	w.start();
	const DomPlan p = DomPlan::nr(0), k = DomPlan::nr(1, 0);
	const s64 idp = w.make(p), idk = w.make(k);

	ASSERT_EQ(DomWorld::enter_gate(w[0], p), RDT_V_RESUME);
	const u64 tp = DomWorld::strike_domain(w[0]);

	ASSERT_EQ(DomWorld::enter_gate(w[0], k), RDT_V_RESUME);
	const u64 tk = DomWorld::strike_domain(w[0]);
	Cpu &c = w[1];
	struct {
		u8 cpl, bits;
		u64 token, flags;
		s64 error;
		u8 code;
	} rows[] = {
		{0, 48, tp, 0, eperm, RDT_GATE_BAD_CPL},   {3, 48, tk, 0, eperm, RDT_GATE_BAD_CPL},
		{3, 57, tp, 0, eperm, RDT_GATE_BAD_STATE}, {0, 57, tk, 0, eperm, RDT_GATE_BAD_STATE},
		{0, 48, tk ^ (1ull << 40), 0, einval, RDT_GATE_BAD_TOKEN},
		{0, 48, tk ^ 1, 0, einval, RDT_GATE_BAD_TOKEN},
		{0, 48, tk & ~Slot::token_bit, 0, einval, RDT_GATE_BAD_TOKEN},
		{3, 48, tp ^ (1ull << 40), 0, einval, RDT_GATE_BAD_TOKEN},
		{3, 48, tp ^ 1, 1, einval, RDT_GATE_BAD_TOKEN},
		{0, 48, tk ^ tp ^ tk ^ (3 << 6), 0, einval, RDT_GATE_BAD_TOKEN}, /* a view without a domain */
	};

	for (usize i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		w.quiet();
		c.cpl = rows[i].cpl;
		c.va_bits = rows[i].bits;
		/* To the last of them integrity mode answers, which looks at the IDT first. */
		c.idt_base = lay::idt_gva;
		EXPECT_EQ(c.hc(RDT_HC_RESUME, rows[i].token, rows[i].flags), rows[i].error) << i;
		w.expect_event(RDT_EV_GATE, rows[i].code);
	}
	c.va_bits = 48;
	c.cpl = 0;
	EXPECT_EQ(c.hc(RDT_HC_RESUME, tk, 2), einval);
	EXPECT_EQ(w.info(DomWorld::view_of(idp)).slots_busy, 1u);
	EXPECT_EQ(w.info(DomWorld::view_of(idk)).slots_busy, 1u);
	/* Given up: the slot is free, the token void. */
	EXPECT_EQ(c.hc(RDT_HC_RESUME, tk, RDT_RESUME_DROP), 0);
	EXPECT_EQ(w.info(DomWorld::view_of(idk)).slots_busy, 0u);
	EXPECT_EQ(c.hc(RDT_HC_RESUME, tk, RDT_RESUME_DROP), einval);
	c.cpl = 3;
	EXPECT_EQ(c.hc(RDT_HC_RESUME, tp, RDT_RESUME_DROP), 0);
	EXPECT_EQ(w.info(DomWorld::view_of(idp)).slots_busy, 0u);
}

/* Three domains and integrity mode at once, on four vCPUs, each its own. */
TEST(C1, ThreeDomainsAtOnce)
{
	DomWorld w(4);

	w.start();
	const DomPlan p[3] = {DomPlan::nr(0), DomPlan::nr(1, 0), DomPlan::nr(2, user | RDT_DOM_VECTOR)};
	s64 id[3];
	u64 token[3];

	for (int i = 0; i < 3; i++)
		id[i] = w.make(p[i]);
	ASSERT_TRUE(w[3].enter_call());
	for (u32 i = 0; i < 3; i++)
		ASSERT_EQ(DomWorld::enter_gate(w[i], p[i]), RDT_V_RESUME);
	for (u32 i = 0; i < 3; i++) {
		EXPECT_TRUE(DomWorld::in(w[i], id[i]));
		w[i].regs = Regs::numbered(100 + i);
		token[i] = DomWorld::strike_domain(w[i]);
	}
	const u64 driver = w[3].strike();

	/* Each goes on elsewhere, in the other order. */
	w[0].idt_base = lay::idt_gva;
	w[0].cpl = 0;
	ASSERT_TRUE(w[0].resume(driver).switched);
	EXPECT_TRUE(w[0].inside());
	for (u32 i = 0; i < 3; i++) {
		Cpu &c = w[3 - i];

		DomWorld::at_caller(c, p[i]);
		ASSERT_TRUE(c.resume(token[i]).switched);
		EXPECT_TRUE(DomWorld::in(c, id[i]));
		EXPECT_TRUE(c.regs == Regs::numbered(100 + i));
		EXPECT_EQ(w.destroy(id[i]), eperm) << "vCPU 0 is in integrity mode";
	}
	w[0].leave_call(0);
	for (u32 i = 0; i < 3; i++) {
		EXPECT_EQ(w.destroy(id[i]), eagain);
		EXPECT_EQ(DomWorld::leave_gate(w[3 - i], p[i], 1), RDT_V_RESUME);
		EXPECT_EQ(w.destroy(id[i]), 0);
	}
	EXPECT_EQ(w.host.rooms(), 0u);
}

/* --- destroying beside all this ------------------------------------------------------------ */

TEST(C8, WhoIsInsideGetsOutAndNobodyGetsIn)
{
	DomWorld w(3);
	const DomPlan p = DomPlan::nr(0, RDT_DOM_VECTOR);
	const s64 id = w.make(p);
	Cpu &a = w[1], &b = w[2];
	rdt_cpu cpu;

	ASSERT_EQ(DomWorld::enter_gate(a, p), RDT_V_RESUME);
	ASSERT_EQ(DomWorld::enter_gate(b, p), RDT_V_RESUME);
	const u64 token = DomWorld::strike_domain(b);

	cpu = a.load();
	EXPECT_EQ(rdt_core_evict(w.vm, a.core, &cpu), 0) << "not while it lives";
	EXPECT_EQ(w.destroy(id), eagain);
	EXPECT_EQ(w.info(2).state, u32{RDT_DOM_DYING});
	EXPECT_EQ(w.info(2).slots_busy, 1u) << "who was interrupted is lost";
	w.quiet();
	EXPECT_EQ(b.hc(RDT_HC_RESUME, token), enoent);
	w.expect_event(RDT_EV_GATE, RDT_GATE_BAD_TOKEN);
	EXPECT_EQ(DomWorld::enter_gate(b, p), RDT_V_GP);
	EXPECT_EQ(w.destroy(id), eagain);
	/* Its next event brings it out, and it does not come back. */
	const u64 last = DomWorld::strike_domain(a);

	EXPECT_EQ(a.hc(RDT_HC_RESUME, last), enoent);
	EXPECT_EQ(w.destroy(id), 0);
	EXPECT_EQ(a.hc(RDT_HC_RESUME, last), enoent);
	cpu = a.load();
	EXPECT_EQ(rdt_core_evict(w.vm, a.core, &cpu), 0);

	/* Or the host brings it out. */
	const s64 again = w.make(p);
	const Regs caller = a.regs;

	ASSERT_EQ(DomWorld::enter_gate(a, p), RDT_V_RESUME);
	EXPECT_EQ(rdt_core_domain_destroy(w.vm, static_cast<u64>(again)), eagain);
	cpu = a.load();
	EXPECT_EQ(rdt_core_evict(w.vm, a.core, &cpu), 1);
	EXPECT_EQ(cpu.view, RDT_VIEW_ROOT);
	EXPECT_EQ(cpu.rip, lay::back);
	EXPECT_EQ(cpu.rsp, caller.rsp);
	EXPECT_EQ(cpu.cr3, caller.cr3);
	EXPECT_EQ(cpu.gpr[rax], static_cast<u64>(enoent));
	EXPECT_EQ(rdt_core_domain_destroy(w.vm, static_cast<u64>(again)), 0);
}

/* A vCPU looks up a door, sleeps, and another domain has the view when it goes through. */
TEST(C8, ADoorThatIsAnotherDomainsByNow)
{
	for (bool same_gate : {false, true})
		for (bool rebuilt : {false, true}) {
			DomWorld w;
			const DomPlan p = DomPlan::nr(0);
			DomPlan q = same_gate ? p : DomPlan::nr(1);
			const s64 id = w.make(p);
			Cpu &c = w[1];

			q.base += 0x400000; /* another entry */
			DomWorld::at_caller(c, p);
			c.regs.rip = 0x7f0000000010;
			ASSERT_EQ(rdt_core_at_door(w.vm, c.core, p.gate()), RDT_DOOR_IN);
			ASSERT_EQ(w.destroy(id), 0);
			if (rebuilt)
				ASSERT_EQ(DomWorld::view_of(w.make(q)), DomWorld::view_of(id));
			rdt_cpu cpu = c.load();

			EXPECT_EQ(rdt_core_door(w.vm, c.core, RDT_DOOR_IN, &cpu), RDT_V_RESUME);
			EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
			EXPECT_EQ(cpu.gpr[rax], static_cast<u64>(eagain));
			EXPECT_EQ(cpu.rip, lay::back);
			EXPECT_EQ(cpu.dirty & RDT_CPU_VIEW, 0);
		}
}

/* Threads: some call in and are interrupted, one makes and destroys. What must not be aborts. */
TEST(C8, DestroyBesideCallers)
{
	constexpr unsigned callers = 3, rounds = 1500;
	DomWorld w(callers + 1);
	const DomPlan p = DomPlan::nr(0, RDT_DOM_VECTOR);
	std::atomic<bool> stop{false};
	std::atomic<u64> entered{0}, resumed{0}, refused{0};
	std::vector<std::thread> threads;

	for (unsigned t = 1; t <= callers; t++)
		threads.emplace_back([&, t] {
			Cpu &c = w[t];

			DomWorld::at_caller(c, p);
			for (u64 n = 0; !stop; n++) {
				c.regs = Regs::numbered(t);
				c.regs.gpr[r11] = lay::back;
				c.regs.rip = 0x7f0000000010;
				c.hv.vector = t;
				const u64 stack = c.regs.rsp;
				rdt_cpu cpu = c.load();

				if (rdt_core_at_door(w.vm, c.core, p.gate()) != RDT_DOOR_IN ||
				    rdt_core_door(w.vm, c.core, RDT_DOOR_IN, &cpu) != RDT_V_RESUME ||
				    c.view() == RDT_VIEW_ROOT) {
					refused++;
					std::this_thread::yield();
					continue;
				}
				entered++;
				c.regs.rsp = cpu.rsp;
				c.regs.cr3 = cpu.cr3;
				c.regs.rip = cpu.rip;
				c.regs.rflags = cpu.rflags;
				/* All of what it got is of one domain, and that one is there. */
				EXPECT_EQ(c.regs.rip, p.gate_gva());
				EXPECT_EQ(c.regs.cr3, gpa_of(p.tables()));
				if (!w.own(c.view(), p.data()))
					ADD_FAILURE() << "inside of what is gone";
				c.hv.vector = 100 + t;
				if (n % 3 == 0) {
					const u64 token = DomWorld::strike_domain(c);

					EXPECT_EQ(c.hv.vector, t);
					if (!c.resume(token).switched)
						continue;
					resumed++;
					EXPECT_EQ(c.hv.vector, 100 + t);
				}
				if (n % 5 == 0)
					std::this_thread::yield();
				DomWorld::leave_gate(c, p, 0);
				EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
				EXPECT_EQ(c.regs.rsp, stack);
				EXPECT_EQ(c.hv.vector, t);
			}
		});
	for (unsigned i = 0; i < rounds; i++) {
		const s64 id = w.make(p);

		for (int k = 0; k < 50; k++)
			std::this_thread::yield();
		while (w.destroy(id) == eagain)
			std::this_thread::yield();
		w.quiet();
	}
	stop = true;
	for (std::thread &t : threads)
		t.join();
	std::cout << entered << " entered, " << resumed << " resumed, " << refused << " refused\n";
	EXPECT_GT(entered, 100u);
	EXPECT_GT(resumed, 10u);
	EXPECT_GT(refused, 0u);
	EXPECT_EQ(w.host.pages(), 0u);
	EXPECT_EQ(w.host.rooms(), 0u);
}
