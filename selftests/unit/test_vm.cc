// SPDX-License-Identifier: GPL-2.0
/* A3, B3: what is done about a write, by who writes, in which mode, to what. */
#include <chrono>
#include <thread>

#include "vm.h"
#include "vm_world.h"

namespace redoubt {

/* White-box access: the C face's object begins with the class's. */
struct VmTester {
	static void lose_rule(rdt_core_vm *vm, gfn_t gfn)
	{
		ASSERT_EQ(reinterpret_cast<Vm *>(vm)->restricted_.set_range(gfn, 1), Status::Ok);
	}
};

} // namespace redoubt

using namespace redoubt;

namespace {

void monitored(World &w)
{
	w.start();
	ASSERT_EQ(w.protect(100, 4, RDT_ACT_LOG, RDT_CLS_TEXT), 0);
	ASSERT_EQ(w.protect(110, 4, RDT_ACT_DENY, RDT_CLS_RODATA), 0);
	ASSERT_EQ(w.protect(120, 4, RDT_ACT_FREEZE, RDT_CLS_SYSCALL), 0);
	w.quiet();
}

bool granted(World &w, Cpu &c, gfn_t gfn)
{
	return w.access(c.view(), gfn) & RDT_ACC_W;
}

} // namespace

/*
 * B3, the decision table of the claims, row by row: (writer, mode, page) -> reported?
 * A write that the view grants never reaches us, and is not reported.
 */
TEST(B3, DriverInIntegrityModeOnItsOwnData)
{
	World w;

	monitored(w);
	ASSERT_TRUE(w[0].enter_call());
	for (gfn_t g = lay::data; g < lay::data_end; g++) {
		EXPECT_TRUE(granted(w, w[0], g));
		EXPECT_EQ(w[0].fault(gpa_of(g), RDT_ACC_W), RDT_V_PASS);
		EXPECT_EQ(w[0].kvm_write(gpa_of(g)), RDT_V_PASS);
	}
	EXPECT_TRUE(w[0].inside());
	EXPECT_TRUE(w.host.take_events().empty()) << "not reported";
}

TEST(B3, DriverInIntegrityModeOnAnyOtherProtectedPage)
{
	const gfn_t others[] = {100, 110, 120, lay::nodes, lay::text, lay::gate, lay::exit, lay::idt};

	for (gfn_t g : others)
		for (bool by_kvm : {false, true}) {
			SCOPED_TRACE(g);
			World w;

			monitored(w);
			ASSERT_TRUE(w[0].enter_call());
			EXPECT_FALSE(granted(w, w[0], g));
			if (by_kvm)
				EXPECT_EQ(w[0].kvm_write(gpa_of(g)), RDT_V_GP);
			else
				EXPECT_EQ(w[0].fault(gpa_of(g), RDT_ACC_W), RDT_V_RESUME);
			const rdt_event ev = w.one_event();

			EXPECT_EQ(ev.action, RDT_ACT_DENY) << "reported, and not done";
			EXPECT_EQ(ev.view, RDT_VIEW_INTEGRITY);
		}
}

TEST(B3, OtherCodeInNormalModeOnAnyProtectedPage)
{
	struct Row {
		gfn_t gfn;
		rdt_verdict verdict;
		u16 type;
		u8 action;
	} rows[] = {
		{110, RDT_V_GP, RDT_EV_WRITE, RDT_ACT_DENY},
		{120, RDT_V_FREEZE, RDT_EV_WRITE, RDT_ACT_FREEZE},
		{lay::idt, RDT_V_GP, RDT_EV_WRITE, RDT_ACT_DENY},
		{lay::nodes, RDT_V_GP, RDT_EV_TREE_WRITE, RDT_ACT_DENY},
		{lay::text, RDT_V_GP, RDT_EV_DRIVER_WRITE, RDT_ACT_DENY},
		{lay::gate, RDT_V_GP, RDT_EV_DRIVER_WRITE, RDT_ACT_DENY},
		{lay::exit, RDT_V_GP, RDT_EV_DRIVER_WRITE, RDT_ACT_DENY},
		{lay::data, RDT_V_GP, RDT_EV_DRIVER_WRITE, RDT_ACT_DENY},
	};
	World w;

	monitored(w);
	for (const Row &r : rows) {
		SCOPED_TRACE(r.gfn);
		EXPECT_FALSE(granted(w, w[0], r.gfn));
		EXPECT_EQ(w[0].fault(gpa_of(r.gfn) + 16, RDT_ACC_W), r.verdict);

		const rdt_event ev = w.one_event();

		EXPECT_EQ(ev.type, r.type);
		EXPECT_EQ(ev.action, r.action);
		EXPECT_EQ(ev.gpa, gpa_of(r.gfn) + 16);
	}
	/* LOG: the write is let through and recorded with what it wrote. */
	EXPECT_EQ(w[0].fault(gpa_of(100), RDT_ACC_W), RDT_V_STEP);
	EXPECT_TRUE(w.host.take_events().empty()) << "not before it is done";
}

/* The last row: the driver's own code has no right in normal mode. The mode decides. */
TEST(B3, DriverInNormalModeOnItsOwnData)
{
	World w;

	monitored(w);
	w[0].regs.rip = lay::inside + gpa_of(lay::text);
	w[0].regs.cr3 = lay::cr3;
	EXPECT_EQ(w[0].fault(gpa_of(lay::data), RDT_ACC_W), RDT_V_GP);
	EXPECT_EQ(w.one_event().type, RDT_EV_DRIVER_WRITE);
}

/* B7: what one vCPU may inside, another may not meanwhile. */
TEST(B7, TheModeIsAVcpusOwn)
{
	World w;

	monitored(w);
	ASSERT_TRUE(w[0].enter_call());
	EXPECT_EQ(w[0].fault(gpa_of(lay::data), RDT_ACC_W), RDT_V_PASS);
	EXPECT_EQ(w[1].fault(gpa_of(lay::data), RDT_ACC_W), RDT_V_GP);
	EXPECT_EQ(w.one_event().vcpu, 1u);
	w[0].strike();
	EXPECT_EQ(w[0].fault(gpa_of(lay::data), RDT_ACC_W), RDT_V_GP) << "nor itself, while it is interrupted";
	EXPECT_EQ(w.one_event().vcpu, 0u);
}

/* A3: node pages first, then the driver, then the ranges; each with its own action. */
TEST(A3, EachRangesOwnAction)
{
	World w;

	w.give_nodes();
	for (unsigned i = 0; i < 30; i++)
		ASSERT_EQ(w.protect(100 + i, 1, static_cast<u8>(i % 3 + 1), static_cast<u8>(i)), 0);
	w.quiet();
	for (unsigned i = 0; i < 30; i++) {
		const u8 action = static_cast<u8>(i % 3 + 1);
		const rdt_verdict v = w[0].fault(gpa_of(100 + i) + 4000, RDT_ACC_W);

		EXPECT_EQ(v, action == RDT_ACT_LOG ? RDT_V_STEP : action == RDT_ACT_DENY ? RDT_V_GP : RDT_V_FREEZE);
		if (action != RDT_ACT_LOG) {
			const rdt_event ev = w.one_event();

			EXPECT_EQ(ev.cls, i);
			EXPECT_EQ(ev.action, action);
			EXPECT_EQ(ev.range_gpa, gpa_of(100 + i));
			EXPECT_EQ(ev.range_pages, 1u);
		}
	}
}

/* What is not restricted is none of our business, whatever the access. */
TEST(A3, UnrestrictedFramesPass)
{
	World w;

	monitored(w);
	for (gpa_t gpa : {gpa_t{0}, gpa_of(104), gpa_of(lay::frames), gpa_of(gfn_limit), ~gpa_t{0}})
		for (u8 access : {u8{RDT_ACC_R}, u8{RDT_ACC_W}, u8{RDT_ACC_X}}) {
			EXPECT_EQ(w[0].fault(gpa, access), RDT_V_PASS);
			EXPECT_EQ(w[0].kvm_write(gpa), RDT_V_PASS);
		}
	EXPECT_TRUE(w.host.take_events().empty());
}

/* A fault that is late: the range went while the vCPU was on its way. */
TEST(A3, AFaultOnAFrameThatWasReleased)
{
	World w;

	monitored(w);
	ASSERT_EQ(rdt_core_protect(w.vm, gpa_of(110), 4, RDT_ACT_NONE, 0), 0);
	EXPECT_EQ(w[0].fault(gpa_of(110), RDT_ACC_W), RDT_V_PASS);
	EXPECT_TRUE(w.host.take_events().empty());
}

/* A vCPU of which the core knows nothing yet is one in the root view. */
TEST(A3, AVcpuWithoutState)
{
	World w;

	monitored(w);
	rdt_cpu cpu = w[0].load();
	rdt_fault f = Cpu::fault_of(gpa_of(110), RDT_ACC_W, {});

	EXPECT_EQ(rdt_core_fault(w.vm, nullptr, &f, &cpu), RDT_V_GP);
	EXPECT_EQ(w.one_event().type, RDT_EV_WRITE);
	f = Cpu::fault_of(gpa_of(lay::gate) + 0x10, RDT_ACC_X, {});
	cpu.rip = lay::gate_gva;
	EXPECT_EQ(rdt_core_fault(w.vm, nullptr, &f, &cpu), RDT_V_GP);
	EXPECT_EQ(w.one_event().code, RDT_GATE_BAD_RIP);
	EXPECT_EQ(cpu.dirty, 0);
}

/* KVM's own writes, for an instruction that it emulates or on its own account. */
TEST(A9, WritesThatKvmMakes)
{
	struct Row {
		const char *what;
		gfn_t gfn;
		rdt_verdict verdict;
		u8 action;
		u16 type; /* of an emulated write */
	} rows[] = {
		{"LOG", 100, RDT_V_PASS, RDT_ACT_LOG, RDT_EV_WRITE},
		{"DENY", 110, RDT_V_GP, RDT_ACT_DENY, RDT_EV_WRITE},
		{"FREEZE", 120, RDT_V_GP, RDT_ACT_DENY, RDT_EV_WRITE},
		{"node page", lay::nodes, RDT_V_GP, RDT_ACT_DENY, RDT_EV_TREE_WRITE},
		{"driver's text", lay::text, RDT_V_GP, RDT_ACT_DENY, RDT_EV_DRIVER_WRITE},
		{"driver's data", lay::data, RDT_V_GP, RDT_ACT_DENY, RDT_EV_DRIVER_WRITE},
		{"IDT", lay::idt, RDT_V_GP, RDT_ACT_DENY, RDT_EV_WRITE},
	};
	World w;

	monitored(w);
	for (const Row &r : rows) {
		SCOPED_TRACE(r.what);
		const u64 val = 0x1122334455667788;
		FaultOpts o;

		o.emulated = true;
		o.size = 4;
		o.new_val = &val;
		EXPECT_EQ(w[1].kvm_write(gpa_of(r.gfn) + 8, o), r.verdict);
		rdt_event ev = w.one_event();

		EXPECT_EQ(ev.type, r.type);
		EXPECT_EQ(ev.action, r.action);
		EXPECT_EQ(ev.vcpu, 1u);
		EXPECT_EQ(ev.new_val, 0x55667788u);
		EXPECT_EQ(ev.flags, RDT_EVF_EMULATED | RDT_EVF_NEW | RDT_EVF_OLD | RDT_EVF_SIZE);

		/* On its own: no vCPU's registers to report. */
		rdt_fault f = Cpu::fault_of(gpa_of(r.gfn) + 8, RDT_ACC_W, {});

		f.host = true;
		EXPECT_EQ(rdt_core_kvm_write(w.vm, &f, nullptr), r.verdict);
		ev = w.one_event();
		EXPECT_EQ(ev.type, RDT_EV_KVM_WRITE);
		EXPECT_EQ(ev.action, r.action);
		EXPECT_EQ(ev.flags, RDT_EVF_HOST | RDT_EVF_OLD);
		EXPECT_EQ(ev.rip, 0u);
		EXPECT_EQ(ev.cr3, 0u);
	}
}

/* A10: page walks set accessed and dirty where the guest says that tables are. */
TEST(A10, PageWalksInMonitoredTables)
{
	World w;
	FaultOpts walk;

	w.start();
	walk.walk = true;
	for (u8 action = RDT_ACT_LOG; action <= RDT_ACT_FREEZE; action++) {
		ASSERT_EQ(w.protect(100 + action, 1, action, RDT_CLS_PGTABLE), 0);
		ASSERT_EQ(w.protect(110 + action, 1, action, RDT_CLS_RODATA), 0);
	}
	w.quiet();
	for (u8 action = RDT_ACT_LOG; action <= RDT_ACT_FREEZE; action++) {
		SCOPED_TRACE(+action);
		EXPECT_EQ(w[0].fault(gpa_of(100 + action) + 8, RDT_ACC_W, walk), RDT_V_STEP);
		EXPECT_TRUE(w.host.take_events().empty()) << "no alert";
		/* A page that only looks like a table. */
		EXPECT_EQ(w[0].fault(gpa_of(110 + action) + 8, RDT_ACC_W, walk),
			  action == RDT_ACT_LOG	   ? RDT_V_STEP
			  : action == RDT_ACT_DENY ? RDT_V_GP
						   : RDT_V_FREEZE);
		EXPECT_EQ(w.host.take_events().size(), action == RDT_ACT_LOG ? 0u : 1u);
		/* An ordinary store is what it always was. */
		EXPECT_EQ(w[0].fault(gpa_of(100 + action) + 8, RDT_ACC_W),
			  action == RDT_ACT_LOG	   ? RDT_V_STEP
			  : action == RDT_ACT_DENY ? RDT_V_GP
						   : RDT_V_FREEZE);
		w.quiet();
	}
	/* Neither node pages nor the driver's page tables are walked from outside. */
	for (gfn_t g : {lay::nodes, lay::data, lay::text, lay::idt}) {
		EXPECT_EQ(w[0].fault(gpa_of(g), RDT_ACC_W, walk), RDT_V_GP);
		EXPECT_EQ(w.host.take_events().size(), 1u);
	}
}

/* Reads are nobody's business in the root view, not even of the driver's data. */
TEST(A3, ReadsAndFetchesOfMonitoredFrames)
{
	World w;

	monitored(w);
	for (gfn_t g : {gfn_t{100}, gfn_t{110}, gfn_t{120}, lay::nodes, lay::text, lay::exit, lay::idt}) {
		EXPECT_EQ(w[0].fault(gpa_of(g), RDT_ACC_R), RDT_V_PASS) << g;
		EXPECT_EQ(w[0].fault(gpa_of(g), RDT_ACC_X), RDT_V_PASS) << g;
	}
	EXPECT_EQ(w[0].fault(gpa_of(lay::data), RDT_ACC_R), RDT_V_PASS);
	EXPECT_TRUE(w.host.take_events().empty());
	EXPECT_EQ(w[0].fault(gpa_of(lay::data), RDT_ACC_X), RDT_V_GP);
	EXPECT_EQ(w.one_event().type, RDT_EV_EXEC);
}

/* No lock is taken for what needs none. */
TEST(A3, FaultsTakeNoLock)
{
	World w;

	monitored(w);
	w.host.take_locked();
	for (gfn_t g = 90; g < 130; g++) {
		(void)w[0].fault(gpa_of(g), RDT_ACC_W);
		(void)w.access(RDT_VIEW_ROOT, g);
	}
	(void)w[0].enter_fault();
	(void)w[0].resume(w[0].strike());
	(void)w[0].leave_fault(0);
	EXPECT_FALSE(w.host.take_locked());
}

/*
 * A frame whose bit is set while its rule is not there yet: whoever faults waits
 * for the writer of the policy, and then has one answer or the other.
 */
TEST(A3, AFaultInTheMiddleOfAPolicyChange)
{
	for (bool refused : {false, true}) {
		World w;
		std::thread other;
		rdt_verdict verdict = RDT_V_AEX;
		std::atomic<bool> waiting{false};

		w.start();
		ASSERT_EQ(w.protect(104, 1, RDT_ACT_FREEZE, RDT_CLS_TEXT), 0);
		w.quiet();
		w.host.on_holds_pv = [&] {
			/* Bits are set, the tree knows nothing. */
			EXPECT_EQ(w.access(RDT_VIEW_ROOT, 100), RDT_ACC_R | RDT_ACC_X);
			other = std::thread([&] {
				waiting = true;
				verdict = w[1].fault(gpa_of(100), RDT_ACC_W);
			});
			while (!waiting)
				std::this_thread::yield();
			std::this_thread::sleep_for(std::chrono::milliseconds(5));
		};
		EXPECT_EQ(w.protect(100, 10, refused ? RDT_ACT_DENY : RDT_ACT_FREEZE, RDT_CLS_TEXT), refused ? -1 : 0);
		other.join();
		w.host.on_holds_pv = nullptr;
		EXPECT_EQ(verdict, refused ? RDT_V_PASS : RDT_V_FREEZE);
	}
}

/* A restricted frame whose rule nobody knows: that must not happen, and if it does, no. */
TEST(A3, ARestrictedFrameWithoutARule)
{
	World w;

	monitored(w);
	VmTester::lose_rule(w.vm, 300);
	EXPECT_EQ(w[0].fault(gpa_of(300), RDT_ACC_W), RDT_V_GP);
	const rdt_event ev = w.one_event();

	EXPECT_EQ(ev.action, RDT_ACT_DENY);
	EXPECT_EQ(ev.range_gpa, gpa_of(300));
	EXPECT_EQ(w[0].kvm_write(gpa_of(300)), RDT_V_GP);
	EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(300)), s64{RDT_ACT_DENY});
}

/* Policy that changes under faults: an answer is the old rule's or the new one's. */
TEST(A3, FaultsRaceWithPolicyChanges)
{
	World w(3);
	std::atomic<bool> stop{false};
	std::atomic<u64> seen[8] = {};

	w.give_nodes(2);
	ASSERT_EQ(w.seal(good_desc()), 0);
	ASSERT_EQ(w.protect(200, 1, RDT_ACT_DENY, 9), 0);
	w.quiet();
	std::vector<std::thread> writers;

	for (unsigned t = 1; t < 3; t++)
		writers.emplace_back([&, t] {
			while (!stop) {
				const rdt_verdict v = w[t].fault(gpa_of(100 + t), RDT_ACC_W);

				seen[v]++;
				if (v != RDT_V_PASS && v != RDT_V_GP && v != RDT_V_FREEZE)
					ADD_FAILURE() << "verdict " << v;
				if (w[t].fault(gpa_of(lay::data), RDT_ACC_W) != RDT_V_GP)
					ADD_FAILURE() << "the driver's data";
				if (w[t].fault(gpa_of(200), RDT_ACC_W) != RDT_V_GP)
					ADD_FAILURE() << "a range that always stood";
				if (w[t].hc(RDT_HC_QUERY, gpa_of(200)) != s64{RDT_ATTR(RDT_ACT_DENY, 9)})
					ADD_FAILURE() << "its rule";
			}
		});
	for (unsigned i = 0; i < 4000; i++) {
		/* Ranges that come, go, are split and joined around those that are asked for. */
		EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(95), 20, i & 1 ? RDT_ACT_DENY : RDT_ACT_FREEZE, 1), 0);
		EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(95 + i % 10), 3, RDT_ACT_DENY, 2), 0);
		EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(95), 20, RDT_ACT_NONE, 0), 0);
		if (i % 64 == 0)
			w.quiet();
	}
	stop = true;
	for (std::thread &t : writers)
		t.join();
	EXPECT_GT(seen[RDT_V_PASS] + seen[RDT_V_GP] + seen[RDT_V_FREEZE], 0u);
}
