// SPDX-License-Identifier: GPL-2.0
/* The step view: what is granted in it, and what is told of what was written there. */
#include "vm_world.h"

using namespace redoubt;

namespace {

constexpr u8 R = RDT_ACC_R, W = RDT_ACC_W, RX = RDT_ACC_R | RDT_ACC_X, RWX = RDT_ACC_RWX;
constexpr gfn_t log_at = lay::plain, table = lay::plain + 8, deny = lay::plain + 16;
constexpr u64 accessed = 0x20, dirty = 0x40;

struct StepWorld : World {
	StepWorld()
	{
		start();
		EXPECT_EQ(protect(log_at, 4, RDT_ACT_LOG, RDT_CLS_OTHER), 0);
		EXPECT_EQ(protect(table, 4, RDT_ACT_DENY, RDT_CLS_PGTABLE), 0);
		EXPECT_EQ(protect(deny, 2, RDT_ACT_DENY, RDT_CLS_OTHER), 0);
		quiet();
	}
	static rdt_fault at(gpa_t gpa, bool walk = false)
	{
		FaultOpts o;

		o.walk = walk;
		return Cpu::fault_of(gpa, W, o);
	}
	bool begin(gpa_t gpa, bool walk = false, unsigned who = 0)
	{
		const rdt_fault f = at(gpa, walk);
		const rdt_cpu c = cpu[who]->load();

		return rdt_core_step_begin(vm, cpu[who]->core, &f, &c);
	}
	bool grant(gpa_t gpa, bool walk = false)
	{
		const rdt_fault f = at(gpa, walk);

		return rdt_core_step_grant(vm, &f);
	}
	u8 finish(bool done = true, bool event = false, unsigned who = 0)
	{
		const u8 out = rdt_core_step_end(vm, cpu[who]->core, done, event);

		EXPECT_EQ(cpu[who]->view(), RDT_VIEW_ROOT);
		EXPECT_EQ(host.holds(), 0u);
		return out;
	}
	u64 &word(gpa_t gpa)
	{
		return host.at<u64>(gpa);
	}
	u8 step_access(gfn_t gfn) const
	{
		return access(RDT_VIEW_STEP, gfn);
	}
};

} // namespace

TEST(A10, FaultsThatAreSteppedAndThoseThatAreNot)
{
	StepWorld w;
	FaultOpts walk;

	walk.walk = true;
	EXPECT_EQ(w[0].fault(gpa_of(log_at), W), RDT_V_STEP);
	EXPECT_EQ(w[0].fault(gpa_of(log_at), W, walk), RDT_V_STEP);
	EXPECT_EQ(w[0].fault(gpa_of(table), W, walk), RDT_V_STEP);
	EXPECT_TRUE(w.host.take_events().empty());
	EXPECT_EQ(w[0].fault(gpa_of(table), W), RDT_V_GP);
	/* Only what the guest called a page table is one. */
	for (gfn_t g : {deny, lay::nodes, lay::text, lay::data, lay::gate, lay::idt})
		EXPECT_EQ(w[0].fault(gpa_of(g), W, walk), RDT_V_GP) << g;
	EXPECT_EQ(w.host.take_events().size(), 7u);
}

TEST(A10, NothingIsGrantedButWhatFaulted)
{
	StepWorld w;

	for (gfn_t g : {log_at, table, deny, lay::nodes, lay::text})
		EXPECT_EQ(w.step_access(g), RX) << g;
	EXPECT_EQ(w.step_access(lay::data), R);
	EXPECT_EQ(w.step_access(lay::frames - 1), RWX);

	ASSERT_TRUE(w.begin(gpa_of(log_at) + 8));
	EXPECT_EQ(w[0].view(), RDT_VIEW_STEP);
	EXPECT_EQ(w.step_access(log_at), RWX);
	EXPECT_EQ(w.access(RDT_VIEW_ROOT, log_at), RX);
	EXPECT_EQ(w.step_access(log_at + 1), RX);
	EXPECT_TRUE(w.grant(gpa_of(log_at + 1)));
	EXPECT_TRUE(w.grant(gpa_of(table), true));
	EXPECT_FALSE(w.grant(gpa_of(table + 1)));
	for (gfn_t g : {deny, lay::nodes, lay::text, lay::data, lay::gate, lay::idt}) {
		EXPECT_FALSE(w.grant(gpa_of(g))) << g;
		EXPECT_FALSE(w.grant(gpa_of(g), true)) << g;
		EXPECT_FALSE(w.step_access(g) & W) << g;
	}
	EXPECT_EQ(w.finish(false), 0);
	EXPECT_TRUE(w.host.take_events().empty());
}

TEST(A10, AWriteIsToldOnceWithBothValues)
{
	StepWorld w;
	const gpa_t at = gpa_of(log_at) + 0x128;

	w.word(at) = 1;
	ASSERT_TRUE(w.begin(at));
	w.word(at) = 2;
	EXPECT_EQ(w.finish(), 0);

	rdt_event ev = w.one_event();

	EXPECT_EQ(ev.type, RDT_EV_WRITE);
	EXPECT_EQ(ev.action, RDT_ACT_LOG);
	EXPECT_EQ(ev.gpa, at);
	EXPECT_EQ(ev.old_val, 1u);
	EXPECT_EQ(ev.new_val, 2u);
	EXPECT_EQ(ev.range_gpa, gpa_of(log_at));
	EXPECT_EQ(ev.range_pages, 4u);
	EXPECT_EQ(ev.view, RDT_VIEW_ROOT);
	EXPECT_EQ(ev.rip, w[0].regs.rip);

	/* The same value again, and the same but not executed. */
	ASSERT_TRUE(w.begin(at));
	w.finish();
	EXPECT_EQ(w.one_event().new_val, 2u);
	ASSERT_TRUE(w.begin(at));
	w.finish(false);
	EXPECT_TRUE(w.host.take_events().empty());
	/* Not to the end, but it has written. */
	ASSERT_TRUE(w.begin(at));
	w.word(at + 512) = 7;
	w.finish(false, true);
	EXPECT_TRUE(w.one_event().flags & RDT_EVF_EVENT);
}

/* At the page's end, and an instruction over two pages. */
TEST(A10, AWriteAcrossABorderIsOneEventAPage)
{
	StepWorld w;
	const gpa_t end = gpa_of(log_at + 1) - 3;

	ASSERT_TRUE(w.begin(end));
	ASSERT_TRUE(w.grant(gpa_of(log_at + 1)));
	for (u64 i = 0; i < 8; i++)
		w.host.at<u8>(end + i) = static_cast<u8>(i + 1);
	w.finish();

	std::vector<rdt_event> ev = w.host.take_events();

	ASSERT_EQ(ev.size(), 2u);
	EXPECT_EQ(ev[0].new_val, 0x030201u);
	EXPECT_EQ(ev[1].gpa, gpa_of(log_at + 1));
	EXPECT_EQ(ev[1].new_val, 0x0807060504u);
}

/* A frame under LOG must fault again unless it is the one that faulted. */
TEST(A10, OneLoggedFrameStaysWritable)
{
	StepWorld w;

	ASSERT_TRUE(w.begin(gpa_of(log_at)));
	w.finish();
	ASSERT_TRUE(w.begin(gpa_of(log_at)));
	w.finish();
	EXPECT_TRUE(w.host.take_zaps().empty());
	ASSERT_TRUE(w.begin(gpa_of(log_at + 1)));
	EXPECT_EQ(w.step_access(log_at), RX);
	w.finish();
	EXPECT_EQ(w.host.take_zaps().size(), 1u);
	/* Nor in a step for a walk. */
	ASSERT_TRUE(w.begin(gpa_of(table), true));
	EXPECT_EQ(w.step_access(log_at + 1), RX);
	w.finish();
	EXPECT_EQ(w.host.take_zaps().size(), 1u);
	/* A table does. */
	ASSERT_TRUE(w.begin(gpa_of(log_at)));
	EXPECT_EQ(w.step_access(table), RWX);
	w.finish();
	EXPECT_TRUE(w.host.take_zaps().empty());
}

TEST(A10, AWalkIsNoWrite)
{
	StepWorld w;
	u64 &pte = w.word(gpa_of(table) + 0x10);

	pte = 0x8000000012345007;
	for (u64 bits : {accessed, accessed | dirty}) {
		ASSERT_TRUE(w.begin(gpa_of(table) + 0x10, true));
		pte |= bits;
		EXPECT_EQ(w.finish(), 0);
	}
	EXPECT_EQ(pte, 0x8000000012345067u);
	EXPECT_TRUE(w.host.take_events().empty());
}

TEST(A10, AWriteToATableIsUndone)
{
	const struct {
		u64 was, is;
	} writes[] = {
		{0x5067, 0x5047}, {0x5067, 0x5027}, {0x5007, 0x5005}, {0x5007, 0x5027 | 0x100},
		{0, 0x6067},	  {0x5067, 0},
	};

	for (auto [was, is] : writes) {
		StepWorld w;
		const gpa_t at = gpa_of(table + 1) + 0xff8;

		w.word(at) = was;
		ASSERT_TRUE(w.begin(gpa_of(table), true));
		ASSERT_TRUE(w.grant(gpa_of(table + 1), true));
		w.word(gpa_of(table) + 8) |= accessed;
		w.word(at) = is;
		EXPECT_EQ(w.finish(), RDT_STEP_UNDONE);
		EXPECT_EQ(w.word(at), was);
		EXPECT_EQ(w.word(gpa_of(table) + 8), accessed);

		rdt_event ev = w.one_event();

		EXPECT_EQ(ev.action, RDT_ACT_DENY);
		EXPECT_EQ(ev.gpa, at);
		EXPECT_EQ(ev.old_val, was);
		EXPECT_EQ(ev.new_val, is);
	}
}

TEST(A10, AWriteToATableUnderLogOrFreeze)
{
	StepWorld w;
	const gpa_t at = gpa_of(table + 5);

	ASSERT_EQ(w.protect(table + 5, 1, RDT_ACT_LOG, RDT_CLS_PGTABLE), 0);
	ASSERT_TRUE(w.begin(at, true));
	w.word(at) = 0x1003;
	EXPECT_EQ(w.finish(), 0);
	EXPECT_EQ(w.word(at), 0x1003u);
	EXPECT_EQ(w.one_event().action, RDT_ACT_LOG);
	ASSERT_EQ(w.protect(table + 5, 1, RDT_ACT_FREEZE, RDT_CLS_PGTABLE), 0);
	EXPECT_EQ(w.step_access(table + 5), RX);
	ASSERT_TRUE(w.begin(at, true));
	w.word(at) = 0x2003;
	EXPECT_EQ(w.finish(), RDT_STEP_UNDONE | RDT_STEP_FREEZE);
	EXPECT_EQ(w.word(at), 0x1003u);
	EXPECT_EQ(w.one_event().action, RDT_ACT_FREEZE);
}

/* A rule that changes takes the right away before its zap, between steps and in one. */
TEST(A10, ANewRuleTakesTheGrantAway)
{
	StepWorld w;

	ASSERT_TRUE(w.begin(gpa_of(log_at)));
	w.finish();
	EXPECT_EQ(w.step_access(log_at), RWX);
	w.host.on_zap = [&] { EXPECT_EQ(w.step_access(log_at), RX); };
	ASSERT_EQ(w.protect(log_at, 1, RDT_ACT_DENY, RDT_CLS_OTHER), 0);
	EXPECT_EQ(w.step_access(log_at), RX);
	EXPECT_FALSE(w.begin(gpa_of(log_at)));
	EXPECT_EQ(w[0].view(), RDT_VIEW_ROOT);
	EXPECT_EQ(w.host.holds(), 0u);

	w.host.on_zap = nullptr;
	w.quiet();
	ASSERT_TRUE(w.begin(gpa_of(log_at + 1)));
	w.word(gpa_of(log_at + 1)) = 5;
	ASSERT_EQ(w.protect(log_at + 1, 1, RDT_ACT_DENY, RDT_CLS_OTHER, 1), 0);
	EXPECT_EQ(w.step_access(log_at + 1), RX);
	EXPECT_FALSE(w.grant(gpa_of(log_at + 1)));
	w.finish();
	/* It was written while that was allowed. */
	EXPECT_EQ(w.one_event().new_val, 5u);
}

/* More frames than a step can have: it ends, it does not spill. */
TEST(A10, ASetThatIsFull)
{
	StepWorld w;
	unsigned n = 1;

	ASSERT_EQ(w.protect(200, 100, RDT_ACT_LOG, RDT_CLS_PGTABLE), 0);
	ASSERT_TRUE(w.begin(gpa_of(200), true));
	while (n < 100 && w.grant(gpa_of(200 + n), true))
		n++;
	EXPECT_EQ(n, 40u);
	EXPECT_EQ(w.step_access(200 + n), RX);
	w.finish();
	/* Too many to keep. */
	w.quiet();
	ASSERT_TRUE(w.begin(gpa_of(250), true));
	EXPECT_EQ(w.host.take_zaps().size(), 40u);
	w.finish();
}

TEST(A10, NoMemoryNoStep)
{
	StepWorld w;

	test_alloc_limit(0);
	EXPECT_FALSE(w.begin(gpa_of(log_at)));
	test_alloc_limit(-1);
	w.host.fail_hold = true;
	EXPECT_FALSE(w.begin(gpa_of(log_at)));
	EXPECT_EQ(w[0].view(), RDT_VIEW_ROOT);
	w.host.fail_hold = false;
	EXPECT_EQ(w.step_access(log_at), RX);
	EXPECT_TRUE(w.begin(gpa_of(log_at)));
	/* The VM ends in the middle: nothing stays held. */
	w.end();
	EXPECT_EQ(w.host.holds(), 0u);
}
