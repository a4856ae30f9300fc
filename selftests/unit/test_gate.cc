// SPDX-License-Identifier: GPL-2.0
/* B6, B9, B10, B12: ways into integrity mode and out of it, one vCPU at a time. */
#include "vm_world.h"

using namespace redoubt;

namespace {

/* The state after a refusal is the state before it, and one alert says why. */
void expect_refused(World &w, u8 code)
{
	const rdt_event ev = w.one_event();

	EXPECT_EQ(ev.type, RDT_EV_GATE);
	EXPECT_EQ(ev.code, code);
	EXPECT_EQ(ev.action, RDT_ACT_DENY);
}

struct Door {
	const char *name;
	bool fault;
	bool short_way = false;
};
constexpr Door doors[] = {{"hypercall", false}, {"fault", true}, {"fault, the short way", true, true}};

bool enter(Cpu &c, const Door &d)
{
	c.short_way = d.short_way;
	if (d.fault) {
		const rdt_verdict v = c.enter_fault();

		return v == RDT_V_RESUME && c.inside();
	}
	return c.enter_call();
}

bool leave(Cpu &c, const Door &d, u64 result)
{
	c.short_way = d.short_way;
	if (d.fault) {
		const rdt_verdict v = c.leave_fault(result);

		return v == RDT_V_RESUME && !c.inside();
	}
	return c.leave_call(result);
}

} // namespace

/* In by each door: own stack, own page tables, all other registers the caller's. */
TEST(B6, EnterGivesTheDriversStackAndTables)
{
	for (const Door &d : doors) {
		SCOPED_TRACE(d.name);
		World w;
		Cpu &c = w[0];

		w.start();
		Regs want = c.regs;

		ASSERT_TRUE(enter(c, d));
		want.rip = d.fault ? lay::gate_gva : lay::call_gva;
		want.rsp = lay::stack(0);
		want.cr3 = lay::cr3;
		EXPECT_TRUE(c.regs == want);
		EXPECT_EQ(c.view(), RDT_VIEW_INTEGRITY);
		EXPECT_EQ(w[1].view(), RDT_VIEW_ROOT) << "B7: only this vCPU";
		EXPECT_TRUE(w.host.take_events().empty());
	}
}

/* Out by each door, whatever the way in: the result, the caller's own, and zeros. */
TEST(B6, LeaveGivesTheCallerItsOwnAndNothingElse)
{
	for (const Door &in : doors)
		for (const Door &out : doors) {
			SCOPED_TRACE(std::string(in.name) + " in, " + out.name + " out");
			World w;
			Cpu &c = w[0];

			w.start();
			const Regs caller = c.regs;

			ASSERT_TRUE(enter(c, in));
			c.regs = Regs::numbered(0xabc); /* the inside used them all */
			c.regs.rflags = 0x400 | 0xd7;	/* DF, status flags, IF off */
			ASSERT_TRUE(leave(c, out, 0x1122334455667788));

			Regs want;

			want.gpr[rax] = 0x1122334455667788;
			for (unsigned k : {rbx, rbp, r12, r13, r14, r15})
				want.gpr[k] = caller.gpr[k];
			want.rip = lay::back;
			want.rsp = caller.rsp;
			want.rflags = caller.rflags;
			want.cr3 = caller.cr3;
			EXPECT_TRUE(c.regs == want);
			EXPECT_EQ(c.view(), RDT_VIEW_ROOT);
			EXPECT_TRUE(w.host.take_events().empty());
		}
}

/* B9: all the thread's registers go, all come back, on whichever vCPU. */
TEST(B9, AsynchronousExitAndResume)
{
	for (unsigned back_on : {0u, 1u})
		for (int len : {0, 1, 2, 15}) {
			const u8 soft_len = static_cast<u8>(len);

			SCOPED_TRACE("resumed on vCPU " + std::to_string(back_on) + ", soft event of " +
				     std::to_string(soft_len) + " bytes");
			World w;
			Cpu &c = w[0];

			w.start();
			const Regs caller = c.regs;

			ASSERT_TRUE(c.enter_call());
			Regs thread = Regs::numbered(0xdef);

			thread.rip = lay::inside + 0x1234;
			thread.rflags = 0xad7; /* IF, TF... */
			c.regs = thread;

			const u64 token = c.strike(soft_len);
			Regs stub;

			stub.gpr[rdi] = token;
			stub.rip = lay::resume_gva;
			stub.rsp = caller.rsp;
			stub.cr3 = caller.cr3;
			stub.rflags = 0x202;
			EXPECT_TRUE(c.regs == stub) << "scrubbed, at the stub, on the caller's stack";
			EXPECT_EQ(c.regs.gpr[rsp_stale], 0u);
			EXPECT_EQ(c.view(), RDT_VIEW_ROOT);

			Cpu &other = w[back_on];

			other.regs = Regs::numbered(0x777); /* where the stub is now */
			const u64 stub_rsp = other.regs.rsp, stub_cr3 = other.regs.cr3;

			ASSERT_TRUE(other.resume(token).switched);
			thread.rip += soft_len;
			EXPECT_TRUE(other.regs == thread);
			EXPECT_EQ(other.view(), RDT_VIEW_INTEGRITY);

			/* Leaving goes where the stub was, with the caller's registers. */
			ASSERT_TRUE(other.leave_call(5));
			EXPECT_EQ(other.regs.rip, lay::back);
			EXPECT_EQ(other.regs.rsp, stub_rsp);
			EXPECT_EQ(other.regs.cr3, stub_cr3);
			EXPECT_EQ(other.regs.rflags, caller.rflags);
			EXPECT_EQ(other.regs.gpr[rax], 5u);
			for (unsigned k : {rbx, rbp, r12, r13, r14, r15})
				EXPECT_EQ(other.regs.gpr[k], caller.gpr[k]);
			for (unsigned k : {rcx, rdx, rsi, rdi, r8, r9, r10, r11})
				EXPECT_EQ(other.regs.gpr[k], 0u);
			EXPECT_TRUE(w.host.take_events().empty());
		}
}

TEST(B9, InterruptFlagOfTheInsideIsKeptForTheHandler)
{
	for (u64 rflags : {0x2ul, 0x202ul, 0xffffful}) {
		World w;

		w.start();
		ASSERT_TRUE(w[0].enter_call());
		w[0].regs.rflags = rflags;
		w[0].strike();
		EXPECT_EQ(w[0].regs.rflags, 2 | (rflags & 0x200));
	}
}

/* Interrupted again and again, resumed in turn: it comes back each time the same. */
TEST(B9, ManyEvents)
{
	World w;

	w.start();
	ASSERT_TRUE(w[0].enter_fault() == RDT_V_RESUME);
	Regs thread = Regs::numbered(0x31337);
	u64 last = 0;

	thread.rip = lay::inside;
	w[0].regs = thread;
	for (unsigned i = 0; i < 1000; i++) {
		Cpu &here = w[i % 2], &next = w[(i + 1) % 2];
		const u64 token = here.strike();

		EXPECT_NE(token, last) << "a token is never given twice";
		last = token;
		ASSERT_TRUE(next.resume(token).switched);
		ASSERT_TRUE(next.regs == thread) << i;
	}
	EXPECT_TRUE(w[0].leave_call(0));
	rdt_vm_info info = {};

	rdt_core_info(w.vm, &info);
	EXPECT_EQ(info.enters, 1u);
	EXPECT_EQ(info.aexits, 1000u);
	EXPECT_EQ(info.slots_busy, 0u);
}

TEST(B9, ATokenIsGoodOnceAndForItsThreadOnly)
{
	World w;

	w.start();
	ASSERT_TRUE(w[0].enter_call());
	const u64 first = w[0].strike();

	ASSERT_TRUE(w[1].enter_call());
	w[1].regs.rip = 0x1111;
	const u64 second = w[1].strike();

	EXPECT_NE(first, second);
	w.quiet();
	for (u64 bad : {u64{0}, ~u64{0}, u64{1}, first ^ 1, first ^ 64, first ^ (1ul << 63), second ^ 2}) {
		EXPECT_EQ(w[0].resume(bad).value, -22);
		expect_refused(w, RDT_GATE_BAD_TOKEN);
	}
	ASSERT_TRUE(w[0].resume(second).switched);
	EXPECT_EQ(w[0].regs.rip, 0x1111u);
	EXPECT_EQ(w[1].resume(second).value, -22) << "used";
	expect_refused(w, RDT_GATE_BAD_TOKEN);
	ASSERT_TRUE(w[0].leave_call(0));
	EXPECT_EQ(w[1].resume(second).value, -22) << "of a slot that is free";
	expect_refused(w, RDT_GATE_BAD_TOKEN);
	EXPECT_TRUE(w[1].resume(first).switched) << "the other was not disturbed";
}

/* The host's random numbers may be bad; a token still is one. */
TEST(B9, TokensFromPoorRandomNumbers)
{
	World w;

	w.start();
	for (u64 random : {u64{0}, ~u64{0}, u64{1}, u64{63}}) {
		ASSERT_TRUE(w[0].enter_call());
		mock_random({random});
		const u64 token = w[0].strike();

		EXPECT_NE(token, 0u);
		EXPECT_FALSE(w[1].resume(0).switched);
		ASSERT_TRUE(w[1].resume(token).switched);
		ASSERT_TRUE(w[1].leave_call(0));
	}
}

TEST(B9, ADroppedThreadFreesItsSlot)
{
	World w;

	w.start(1);
	ASSERT_TRUE(w[0].enter_call());
	const u64 token = w[0].strike();

	w.quiet();
	EXPECT_FALSE(w[1].enter_call());
	expect_refused(w, RDT_GATE_NO_SLOT);
	for (u64 flags : {u64{2}, u64{3}, u64{1} << 63}) {
		EXPECT_EQ(w[0].resume(token, flags).value, -22);
		EXPECT_TRUE(w.host.take_events().empty());
	}
	EXPECT_EQ(w[0].resume(token ^ 64, RDT_RESUME_DROP).value, -22);
	expect_refused(w, RDT_GATE_BAD_TOKEN);

	const Cpu::Result r = w[0].resume(token, RDT_RESUME_DROP);

	EXPECT_EQ(r.value, 0);
	EXPECT_FALSE(r.switched);
	EXPECT_EQ(w[0].resume(token, RDT_RESUME_DROP).value, -22) << "once";
	expect_refused(w, RDT_GATE_BAD_TOKEN);
	EXPECT_TRUE(w[1].enter_call());
}

/* B10: a stack for each slot, and no more threads than slots. */
TEST(B10, EachThreadHasAStackOfItsOwn)
{
	constexpr unsigned n = RDT_DRV_MAX_SLOTS;
	World w(n + 1);
	std::set<u64> stacks;

	w.start(n);
	for (unsigned i = 0; i < n; i++) {
		ASSERT_TRUE(w[i].enter_call());
		EXPECT_TRUE(stacks.insert(w[i].regs.rsp).second);
	}
	w[n].regs.gpr[rbx] = 0x77;
	EXPECT_EQ(w[n].call(RDT_HC_ENTER).value, -1) << "from the wrong place";
	expect_refused(w, RDT_GATE_BAD_RIP);
	EXPECT_FALSE(w[n].enter_call());
	EXPECT_EQ(static_cast<s64>(w[n].regs.gpr[rax]), -11);
	expect_refused(w, RDT_GATE_NO_SLOT);
	/* By the fault door the error comes back at the return address. */
	EXPECT_EQ(w[n].enter_fault(), RDT_V_RESUME);
	EXPECT_FALSE(w[n].inside());
	EXPECT_EQ(static_cast<s64>(w[n].regs.gpr[rax]), -11);
	EXPECT_EQ(w[n].regs.rip, lay::back);
	expect_refused(w, RDT_GATE_NO_SLOT);
	ASSERT_TRUE(w[5].leave_call(0));
	EXPECT_TRUE(w[n].enter_call()) << "the one that was given back";
}

/* B6: the physical address counts, at the moment of the call. */
TEST(B6, TheHypercallDoorIsAPhysicalAddress)
{
	struct Row {
		const char *what;
		u64 rip;	/* of the instruction */
		gpa_t gpa;	/* of its page; ~0: not mapped */
		bool ok;
	} rows[] = {
		{"where it is registered", lay::call_gva - 3, lay::call_gpa, true},
		{"an alias of the page", 0xffffc90000000000 + (lay::call_gpa & 0xfff) - 3, lay::call_gpa, true},
		{"another page at that address", lay::call_gva - 3, gpa_of(lay::plain), false},
		{"another offset", lay::call_gva - 2, lay::call_gpa, false},
		{"behind it", lay::call_gva, lay::call_gpa, false},
		{"another frame of the driver's text", lay::call_gva - 3, gpa_of(lay::text), false},
		{"not mapped", lay::call_gva - 3, ~u64{0}, false},
		{"RIP 0", 0, lay::call_gpa, false},
		{"the highest RIP", ~u64{0}, lay::call_gpa, false},
	};

	for (const Row &r : rows) {
		SCOPED_TRACE(r.what);
		World w;
		Cpu &c = w[0];

		w.start();
		c.hv.pages.clear();
		if (r.gpa != ~u64{0})
			c.hv.map(r.rip, r.gpa);
		c.regs.rip = r.rip;
		const Cpu::Result res = c.call(RDT_HC_ENTER, 1, 2, 3, 4);

		EXPECT_EQ(res.switched, r.ok);
		EXPECT_EQ(c.inside(), r.ok);
		if (r.ok) {
			EXPECT_EQ(c.regs.rip, lay::call_gva) << "an alias gets in where the driver is";
		} else {
			EXPECT_EQ(res.value, -1);
			expect_refused(w, RDT_GATE_BAD_RIP);
		}
	}
}

TEST(B6, TheFaultDoorIsAPhysicalAddress)
{
	struct Row {
		const char *what;
		u64 rip;
		gpa_t gpa;
		bool vectoring, walk;
		bool ok;
		u16 event;
	} rows[] = {
		{"the gate", lay::gate_gva, lay::gate, false, false, true, 0},
		{"an alias of it", 0x5555000000000010, lay::gate, false, false, true, 0},
		{"its page, elsewhere", lay::gate_gva + 1, lay::gate, false, false, false, RDT_EV_GATE},
		{"its page, at 0", lay::gate_gva & ~0xffful, lay::gate, false, false, false, RDT_EV_GATE},
		{"data at that offset", lay::gate_gva, lay::data, false, false, false, RDT_EV_EXEC},
		{"while an event is delivered", lay::gate_gva, lay::gate, true, false, false, RDT_EV_GATE},
		{"by a page walk", lay::gate_gva, lay::gate, false, true, false, RDT_EV_GATE},
	};

	for (unsigned n = 0; n < 2 * std::size(rows); n++) {
		const Row &r = rows[n / 2];
		const bool short_way = n % 2;

		SCOPED_TRACE(r.what);
		World w;
		FaultOpts o;

		w.start();
		w[0].short_way = short_way;
		o.vectoring = r.vectoring;
		o.walk = r.walk;
		w[0].regs.rip = r.rip;
		const rdt_verdict v = w[0].fault(gpa_of(r.gpa) + (r.rip & 0xfff), RDT_ACC_X, o);

		EXPECT_EQ(w[0].inside(), r.ok);
		EXPECT_EQ(v, r.ok ? RDT_V_RESUME : RDT_V_GP);
		if (!r.ok) {
			const rdt_event ev = w.one_event();

			EXPECT_EQ(ev.type, r.event);
			EXPECT_EQ(ev.rip, r.rip);
			if (r.event == RDT_EV_GATE)
				EXPECT_EQ(ev.code, RDT_GATE_BAD_RIP);
		}
	}
}

/* B6, B12: each thing about the caller that must be right, one wrong at a time. */
TEST(B6, TheCallersStateIsChecked)
{
	struct Row {
		const char *what;
		u8 cpl, va_bits;
		u64 idt, r11_value;
		u8 code;
		bool back; /* fault door: the error is given back at R11 */
	} rows[] = {
		{"ring 3", 3, 48, lay::idt_gva, lay::back, RDT_GATE_BAD_CPL, true},
		{"ring 1", 1, 48, lay::idt_gva, lay::back, RDT_GATE_BAD_CPL, true},
		{"another IDT", 0, 48, lay::idt_gva + 4096, lay::back, RDT_GATE_BAD_IDT, true},
		{"IDT off by one", 0, 48, lay::idt_gva + 1, lay::back, RDT_GATE_BAD_IDT, true},
		{"no IDT", 0, 48, 0, lay::back, RDT_GATE_BAD_IDT, true},
		{"not in 64-bit mode", 0, 0, lay::idt_gva, lay::back, RDT_GATE_BAD_STATE, false},
		{"five levels", 0, 57, lay::idt_gva, lay::back, RDT_GATE_BAD_STATE, true},
		{"return address: lowest bad", 0, 48, lay::idt_gva, 1ul << 47, RDT_GATE_BAD_STATE, false},
		{"return address: highest bad", 0, 48, lay::idt_gva, ~0ul << 47 ^ 1ul << 47, RDT_GATE_BAD_STATE, false},
		{"return address: bit 63 alone", 0, 48, lay::idt_gva, 1ul << 63, RDT_GATE_BAD_STATE, false},
	};

	for (const Row &r : rows)
		for (const Door &d : doors) {
			SCOPED_TRACE(std::string(r.what) + " by the " + d.name + " door");
			World w;
			Cpu &c = w[0];

			w.start();
			const Snapshot before = w.snapshot();

			c.short_way = d.short_way;
			c.cpl = r.cpl;
			c.va_bits = r.va_bits;
			c.idt_base = r.idt;
			c.regs.gpr[r11] = r.r11_value;
			if (d.fault) {
				Regs want = c.regs;
				const rdt_verdict v = c.enter_fault();

				EXPECT_EQ(v, r.back ? RDT_V_RESUME : RDT_V_GP);
				if (r.back) {
					want.rip = r.r11_value;
					want.gpr[rax] = static_cast<u64>(-1l);
					EXPECT_TRUE(c.regs == want);
				}
			} else {
				EXPECT_FALSE(c.enter_call());
				EXPECT_EQ(static_cast<s64>(c.regs.gpr[rax]), -1);
			}
			EXPECT_FALSE(c.inside());
			expect_refused(w, r.code);
			EXPECT_EQ(before.diff(w.snapshot()), "");
		}
}

/* Which frames are doors, by view and by driver. */
TEST(B6, Doors)
{
	World w;

	for (gfn_t g = 0; g < lay::frames; g++)
		EXPECT_EQ(rdt_core_at_door(w.vm, w[0].core, g), RDT_DOOR_NONE) << "no driver";
	w.start();
	ASSERT_TRUE(w[1].enter_call());
	for (gfn_t g : {lay::gate, lay::exit, lay::text, lay::data, lay::plain, gfn_t{0}, gfn_limit, ~gpa_t{0} >> page_shift}) {
		EXPECT_EQ(rdt_core_at_door(w.vm, w[0].core, g), g == lay::gate ? RDT_DOOR_IN : RDT_DOOR_NONE);
		EXPECT_EQ(rdt_core_at_door(w.vm, w[1].core, g), g == lay::exit ? RDT_DOOR_OUT : RDT_DOOR_NONE);
	}

	/* A driver may do without: then no number is a door. */
	World v;
	rdt_driver_desc d = good_desc();

	d.region[1].kind = RDT_DRV_TEXT;
	d.region[2].kind = RDT_DRV_TEXT;
	v.give_nodes();
	ASSERT_EQ(v.seal(d), 0);
	ASSERT_TRUE(v[1].enter_call());
	for (gfn_t g : {lay::gate, lay::exit, gfn_t{0}, gfn_limit, ~gpa_t{0} >> page_shift})
		for (unsigned i : {0u, 1u})
			EXPECT_EQ(rdt_core_at_door(v.vm, v[i].core, g), RDT_DOOR_NONE) << g;
}

/* The borders of what a return address may be. */
TEST(B6, ReturnAddressesThatAreCanonical)
{
	for (u64 rip : {0ul, (1ul << 47) - 1, ~0ul << 47, ~0ul}) {
		World w;

		w.start();
		w[0].regs.gpr[r11] = rip;
		ASSERT_TRUE(w[0].enter_call());
		ASSERT_TRUE(w[0].leave_call(0));
		EXPECT_EQ(w[0].regs.rip, rip);
	}
}

TEST(B12, AResumingVcpuIsCheckedToo)
{
	World w;
	Cpu &c = w[1];

	w.start();
	ASSERT_TRUE(w[0].enter_call());
	const u64 token = w[0].strike();

	c.cpl = 3;
	EXPECT_EQ(c.resume(token).value, -1);
	expect_refused(w, RDT_GATE_BAD_CPL);
	c.cpl = 0;
	c.idt_base += 4096;
	EXPECT_EQ(c.resume(token).value, -1);
	expect_refused(w, RDT_GATE_BAD_IDT);
	c.idt_base = lay::idt_gva;
	for (int bits : {0, 57}) {
		c.va_bits = static_cast<u8>(bits);
		EXPECT_EQ(c.resume(token).value, -1);
		expect_refused(w, RDT_GATE_BAD_STATE);
	}
	c.va_bits = 48;
	EXPECT_TRUE(c.resume(token).switched) << "the token was not used up by the refusals";
}

TEST(B6, WithoutADriver)
{
	World w;

	w.give_nodes();
	EXPECT_EQ(w[0].call(RDT_HC_ENTER, 1, 2, 3, 4).value, -1);
	expect_refused(w, RDT_GATE_BAD_STATE);
	EXPECT_EQ(w[0].call(RDT_HC_LEAVE, 1).value, -1);
	expect_refused(w, RDT_GATE_NOT_INSIDE);
	EXPECT_EQ(w[0].call(RDT_HC_RESUME, 1).value, -1);
	expect_refused(w, RDT_GATE_BAD_STATE);
}

/*
 * Each operation in each state of a vCPU, with another thread exited all the
 * while: what it answers, what it reports, and that a refusal changes nothing.
 */
TEST(B10, EveryOperationInEveryState)
{
	enum Where { root, inside };
	enum Op {
		enter_hc, enter_door, leave_hc, leave_door,
		resume_good, resume_stale, resume_forged, event, wander
	};
	struct Row {
		Where where;
		Op op;
		bool ok;
		s64 error;   /* hypercalls, when refused */
		u16 type;    /* event raised; 0: none */
		u8 code;
		Where then;
	} rows[] = {
		{root, enter_hc, true, 0, 0, 0, inside},
		{root, enter_door, true, 0, 0, 0, inside},
		{root, leave_hc, false, -1, RDT_EV_GATE, RDT_GATE_NOT_INSIDE, root},
		/* The exit page is ordinary text outside: nothing of ours happens. */
		{root, leave_door, true, 0, 0, 0, root},
		{root, resume_good, true, 0, 0, 0, inside},
		{root, resume_stale, false, -22, RDT_EV_GATE, RDT_GATE_BAD_TOKEN, root},
		{root, resume_forged, false, -22, RDT_EV_GATE, RDT_GATE_BAD_TOKEN, root},
		/* So is the IDT. */
		{root, event, true, 0, 0, 0, root},
		{root, wander, false, 0, RDT_EV_EXEC, 0, root},

		{inside, enter_hc, false, -1, RDT_EV_GATE, RDT_GATE_INSIDE, inside},
		/* The gate page is executable inside: the driver may run it. */
		{inside, enter_door, true, 0, 0, 0, inside},
		{inside, leave_hc, true, 0, 0, 0, root},
		{inside, leave_door, true, 0, 0, 0, root},
		{inside, resume_good, false, -1, RDT_EV_GATE, RDT_GATE_INSIDE, inside},
		{inside, resume_stale, false, -1, RDT_EV_GATE, RDT_GATE_INSIDE, inside},
		{inside, resume_forged, false, -1, RDT_EV_GATE, RDT_GATE_INSIDE, inside},
		{inside, event, true, 0, 0, 0, root},
		/* Leaving the driver's text ends the call with an error. */
		{inside, wander, false, 0, RDT_EV_EXEC, 0, root},
	};

	for (unsigned n = 0; n < 2 * std::size(rows); n++) {
		const Row &r = rows[n / 2];
		const bool short_way = n % 2;

		SCOPED_TRACE("row " + std::to_string(&r - rows));
		World w(3);
		Cpu &c = w[0];

		w.start(3);
		c.short_way = short_way;
		/* A used token, and a good one of a thread that waits. */
		ASSERT_TRUE(w[1].enter_call());
		const u64 stale = w[1].strike();
		ASSERT_TRUE(w[1].resume(stale).switched);
		const u64 good = w[1].strike();

		if (r.where == inside)
			ASSERT_TRUE(c.enter_call());
		w.quiet();

		const Regs regs = c.regs;
		const Snapshot before = w.snapshot();
		Cpu::Result res = {0, false};
		rdt_verdict v = RDT_V_PASS;
		FaultOpts o;

		switch (r.op) {
		case enter_hc:
			c.enter_call();
			res.switched = c.regs.rsp != regs.rsp;
			res.value = static_cast<s64>(c.regs.gpr[rax]);
			break;
		case enter_door:
			v = c.enter_fault();
			break;
		case leave_hc:
			res = c.call(RDT_HC_LEAVE, 9);
			break;
		case leave_door:
			v = c.leave_fault(9);
			break;
		case resume_good:
			res = c.resume(good);
			break;
		case resume_stale:
			res = c.resume(stale);
			break;
		case resume_forged:
			res = c.resume(good ^ 0x12340000);
			break;
		case event:
			o.vectoring = true;
			v = c.fault(gpa_of(lay::idt) + 32, RDT_ACC_R, o);
			EXPECT_EQ(v, r.where == inside ? RDT_V_AEX : RDT_V_PASS);
			break;
		case wander:
			/* To data outside, to ordinary RAM inside: no X there. */
			v = c.fault(gpa_of(r.where == inside ? lay::plain : lay::data), RDT_ACC_X);
			EXPECT_EQ(v, r.where == inside ? RDT_V_RESUME : RDT_V_GP);
			break;
		}
		EXPECT_EQ(c.inside(), r.then == inside);
		if (r.error)
			EXPECT_EQ(res.value, r.error);
		if (r.type) {
			const rdt_event ev = w.one_event();

			EXPECT_EQ(ev.type, r.type);
			EXPECT_EQ(ev.code, r.code);
			EXPECT_EQ(ev.view, r.where);
		} else {
			EXPECT_TRUE(w.host.take_events().empty());
		}
		if (r.then == r.where)
			EXPECT_EQ(before.diff(w.snapshot()), "");
		if (r.op == wander && r.where == inside) {
			EXPECT_EQ(c.regs.rip, lay::back);
			EXPECT_EQ(static_cast<s64>(c.regs.gpr[rax]), -1);
			EXPECT_EQ(c.regs.gpr[rdi], 0u);
		}
		/* The thread that waits was not touched, unless it was the one resumed. */
		if (!(r.op == resume_good && r.ok))
			EXPECT_TRUE(w[2].resume(good).switched);
	}
}

/* What the driver reaches for inside that is not its own: refused, and the call ends. */
TEST(B3, TheDriverBeyondItsOwn)
{
	struct Row {
		const char *what;
		gfn_t gfn;
		u8 access;
		u16 type;
		u8 cls;
	} rows[] = {
		{"writes monitored text", lay::plain, RDT_ACC_W, RDT_EV_WRITE, RDT_CLS_TEXT},
		{"writes a node page", lay::nodes, RDT_ACC_W, RDT_EV_TREE_WRITE, RDT_CLS_NODE},
		{"writes its own text", lay::text, RDT_ACC_W, RDT_EV_DRIVER_WRITE, RDT_CLS_DRV_TEXT},
		{"writes the gate", lay::gate, RDT_ACC_W, RDT_EV_DRIVER_WRITE, RDT_CLS_DRV_GATE},
		{"writes the exit", lay::exit, RDT_ACC_W, RDT_EV_DRIVER_WRITE, RDT_CLS_DRV_EXIT},
		{"writes the IDT", lay::idt, RDT_ACC_W, RDT_EV_WRITE, RDT_CLS_IDT},
		{"runs RAM", lay::plain + 9, RDT_ACC_X, RDT_EV_EXEC, 0},
		{"runs its data", lay::data, RDT_ACC_X, RDT_EV_EXEC, 0},
		{"runs monitored text", lay::plain, RDT_ACC_X, RDT_EV_EXEC, 0},
		{"runs the exit elsewhere", lay::exit, RDT_ACC_X, RDT_EV_EXEC, 0},
	};

	for (int action : {RDT_ACT_LOG, RDT_ACT_DENY, RDT_ACT_FREEZE})
		for (const Row &r : rows) {
			SCOPED_TRACE(std::string(r.what) + ", action " + std::to_string(action));
			World w;
			Cpu &c = w[0];

			w.start();
			ASSERT_EQ(w.protect(lay::plain, 1, static_cast<u8>(action), RDT_CLS_TEXT), 0);
			const Regs caller = c.regs;

			ASSERT_TRUE(c.enter_call());
			c.regs = Regs::numbered(0x99);
			EXPECT_EQ(c.fault(gpa_of(r.gfn) + 8, r.access), RDT_V_RESUME);

			const rdt_event ev = w.one_event();

			EXPECT_EQ(ev.type, r.type);
			EXPECT_EQ(ev.view, RDT_VIEW_INTEGRITY);
			EXPECT_EQ(ev.rip, Regs::numbered(0x99).rip);
			EXPECT_EQ(ev.action, RDT_ACT_DENY);
			EXPECT_EQ(ev.cls, r.cls);
			EXPECT_FALSE(c.inside());
			EXPECT_EQ(c.regs.rip, lay::back);
			EXPECT_EQ(c.regs.rsp, caller.rsp);
			EXPECT_EQ(c.regs.rflags, caller.rflags);
			EXPECT_EQ(static_cast<s64>(c.regs.gpr[rax]), -1);
			EXPECT_TRUE(c.enter_call()) << "the slot is free again";
		}
}

/* Inside, the other hypercalls work as the policy says and change no register. */
TEST(B10, OtherHypercallsInside)
{
	World w;
	Cpu &c = w[0];

	w.start();
	ASSERT_TRUE(c.enter_call());
	c.regs = Regs::numbered(0x42);
	EXPECT_EQ(c.hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes + 1)), 2);
	EXPECT_EQ(c.hc(RDT_HC_PROTECT, gpa_of(lay::plain), 4, RDT_ATTR(RDT_ACT_DENY, 1)), 0);
	EXPECT_EQ(c.hc(RDT_HC_QUERY, gpa_of(lay::plain)), RDT_ATTR(RDT_ACT_DENY, 1));
	EXPECT_EQ(c.hc(RDT_HC_UNPROTECT, gpa_of(lay::plain), 4), 0);
	EXPECT_EQ(c.hc(RDT_HC_DRIVER, gpa_of(lay::desc)), -17);
	EXPECT_TRUE(c.inside());
	EXPECT_TRUE(w.host.take_events().empty());
	ASSERT_TRUE(c.leave_call(0));
}
