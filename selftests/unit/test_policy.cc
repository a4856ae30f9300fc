// SPDX-License-Identifier: GPL-2.0
/*
 * A5 and bad input: who may change what, and that a request that is refused for any
 * reason gives its documented error and changes nothing at all.
 */
#include "vm_world.h"

using namespace redoubt;

namespace {

constexpr s64 e_perm = -1, e_noent = -2, e_2big = -7, e_again = -11, e_nomem = -12, e_fault = -14,
	      e_busy = -16, e_exist = -17, e_nodev = -19, e_inval = -22, e_uclean = -117,
	      e_nosys = -1000;

constexpr u64 attr(u8 action, u8 cls = RDT_CLS_OTHER)
{
	return RDT_ATTR(action, cls);
}

struct Call {
	const char *what;
	u32 nr;
	u64 arg[4];
	s64 error;
	u16 event = 0; /* 0: none */
};

/* A guest with everything in it: ranges of each action, holes in RAM, KVM's structures. */
void furnish(World &w)
{
	w.host.memslots = {{0, 256}, {256, 44}, {320, lay::frames - 320}}; /* a hole at 300 */
	w.give_nodes(2);
	ASSERT_EQ(w.seal(good_desc()), 0);
	ASSERT_EQ(w.protect(100, 10, RDT_ACT_LOG, RDT_CLS_TEXT), 0);
	ASSERT_EQ(w.protect(120, 10, RDT_ACT_DENY, RDT_CLS_RODATA), 0);
	ASSERT_EQ(w.protect(140, 10, RDT_ACT_FREEZE, RDT_CLS_SYSCALL), 0);
	ASSERT_EQ(rdt_core_protect(w.vm, gpa_of(160), 10, RDT_ACT_LOG, RDT_CLS_OTHER), 0);
	w.host.pv = {{gpa_of(200) + 64, 32}, {gpa_of(210) + 4090, 8}};
	w.quiet();
}

/* One refused call: error, alert if there is to be one, and no other trace. */
void expect_refused(World &w, Cpu &c, const Call &call, const Snapshot &before)
{
	SCOPED_TRACE(call.what);
	const u64 blocks = test_alloc_blocks(), pins = w.host.pins();
	const Cpu::Result r = c.call(call.nr, call.arg[0], call.arg[1], call.arg[2], call.arg[3]);

	EXPECT_FALSE(r.switched);
	EXPECT_EQ(r.value, call.error);

	const auto ev = w.host.take_events();

	EXPECT_EQ(ev.size(), call.event ? 1u : 0u);
	for (const rdt_event &e : ev) {
		EXPECT_EQ(e.type, call.event);
		EXPECT_EQ(e.action, RDT_ACT_DENY);
		EXPECT_EQ(e.gpa, call.arg[0]);
		EXPECT_EQ(e.range_pages, call.arg[1]);
	}
	EXPECT_TRUE(w.host.take_zaps().empty());
	EXPECT_EQ(before.diff(w.snapshot()), "");
	EXPECT_EQ(w.host.pins(), pins);
	/* Tables of the bitmap may stay, see its header; here none is new. */
	EXPECT_EQ(test_alloc_blocks(), blocks);
	w.quiet();
}

constexpr u64 top = 1ull << 52;

} // namespace

TEST(A5, BadRequestsFromNormalMode)
{
	World w;

	furnish(w);
	const Snapshot before = w.snapshot();
	const u64 good = attr(RDT_ACT_DENY, RDT_CLS_TEXT);
	const u32 add = RDT_HC_NODE_ADD, prot = RDT_HC_PROTECT, unprot = RDT_HC_UNPROTECT,
		  query = RDT_HC_QUERY, drv = RDT_HC_DRIVER;
	const Call calls[] = {
		{"node: unaligned", add, {gpa_of(50) + 1}, e_inval},
		{"node: unaligned, high bit", add, {gpa_of(50) + 2048}, e_inval},
		{"node: beyond physical addresses", add, {top}, e_inval},
		{"node: the highest address", add, {~0ul & ~0xffful}, e_inval},
		{"node: not RAM", add, {gpa_of(300)}, e_fault},
		{"node: behind RAM", add, {gpa_of(lay::frames)}, e_fault},
		{"node: a node page", add, {gpa_of(lay::nodes)}, e_busy},
		{"node: monitored", add, {gpa_of(105)}, e_busy},
		{"node: the driver's", add, {gpa_of(lay::data)}, e_busy},
		{"node: the IDT", add, {gpa_of(lay::idt)}, e_busy},
		{"node: holds a structure", add, {gpa_of(200)}, e_busy},
		{"node: second argument", add, {gpa_of(50), 1}, e_inval},
		{"node: third argument", add, {gpa_of(50), 0, 1}, e_inval},
		{"node: fourth argument", add, {gpa_of(50), 0, 0, 1ul << 63}, e_inval},

		{"protect: unaligned", prot, {gpa_of(50) + 8, 1, good}, e_inval},
		{"protect: no pages", prot, {gpa_of(50), 0, good}, e_inval},
		{"protect: wraps", prot, {gpa_of(50), ~0ul, good}, e_inval},
		{"protect: wraps in bytes", prot, {gpa_of(50), 1ul << 52, good}, e_inval},
		{"protect: bytes are 0 modulo 2^64", prot, {gpa_of(50), 1ul << 63, good}, e_inval},
		{"protect: beyond physical addresses", prot, {top, 1, good}, e_inval},
		{"protect: one page too many", prot, {top - 4096, 2, good}, e_inval},
		{"protect: last frame, not RAM", prot, {top - 4096, 1, good}, e_fault},
		{"protect: the highest address", prot, {~0ul & ~0xffful, 1, good}, e_inval},
		{"protect: all that can be", prot, {0, 1ul << 40, good}, e_fault},
		{"protect: not RAM", prot, {gpa_of(300), 1, good}, e_fault},
		{"protect: into a hole", prot, {gpa_of(299), 2, good}, e_fault},
		{"protect: over a hole", prot, {gpa_of(290), 40, good}, e_fault},
		{"protect: behind RAM", prot, {gpa_of(lay::frames - 1), 2, good}, e_fault},
		{"protect: no action", prot, {gpa_of(50), 1, attr(0)}, e_inval},
		{"protect: action 4", prot, {gpa_of(50), 1, attr(4)}, e_inval},
		{"protect: action 255", prot, {gpa_of(50), 1, attr(255)}, e_inval},
		{"protect: class 0x80", prot, {gpa_of(50), 1, attr(1, 0x80)}, e_inval},
		{"protect: class 0xff", prot, {gpa_of(50), 1, attr(1, 0xff)}, e_inval},
		{"protect: reserved bit 16", prot, {gpa_of(50), 1, good | 1 << 16}, e_inval},
		{"protect: reserved bit 63", prot, {gpa_of(50), 1, good | 1ul << 63}, e_inval},
		{"protect: fourth argument", prot, {gpa_of(50), 1, good, 1}, e_inval},
		{"protect: holds a structure", prot, {gpa_of(200), 1, good}, e_busy},
		{"protect: a structure at its end", prot, {gpa_of(205), 6, good}, e_busy},
		{"protect: the structure's second page", prot, {gpa_of(211), 1, good}, e_busy},
		{"protect: weaker", prot, {gpa_of(120), 1, attr(RDT_ACT_LOG, RDT_CLS_RODATA)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: another class", prot, {gpa_of(120), 10, attr(RDT_ACT_DENY, RDT_CLS_TEXT)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: weaker at the end", prot, {gpa_of(110), 11, attr(RDT_ACT_LOG)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: across all", prot, {gpa_of(90), 100, attr(RDT_ACT_DENY)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: FREEZE to DENY", prot, {gpa_of(145), 1, attr(RDT_ACT_DENY)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: the operator's, stronger", prot, {gpa_of(165), 1, attr(RDT_ACT_DENY)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: the operator's, the same", prot, {gpa_of(160), 10, attr(RDT_ACT_LOG)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: a node page", prot, {gpa_of(lay::nodes), 1, attr(3)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: node pages in the middle", prot, {gpa_of(50), 20, attr(3)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: the driver's text", prot, {gpa_of(lay::text), 1, attr(3)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: the driver's last frame", prot, {gpa_of(lay::data_end - 1), 3, attr(1)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: IDT weaker", prot, {gpa_of(lay::idt), 1, attr(RDT_ACT_LOG, RDT_CLS_IDT)}, e_perm, RDT_EV_PROTECT_REFUSED},

		/* Who asks comes first, whatever the question. */
		{"unprotect", unprot, {gpa_of(100), 10}, e_perm, RDT_EV_UNPROTECT},
		{"unprotect: nothing protected", unprot, {gpa_of(50), 1}, e_perm, RDT_EV_UNPROTECT},
		{"unprotect: unaligned", unprot, {gpa_of(100) + 4, 1}, e_perm, RDT_EV_UNPROTECT},
		{"unprotect: everything", unprot, {0, 1ul << 40}, e_perm, RDT_EV_UNPROTECT},
		{"unprotect: the driver", unprot, {gpa_of(lay::text), 1}, e_perm, RDT_EV_UNPROTECT},
		{"unprotect: third argument", unprot, {gpa_of(100), 1, 1}, e_inval},

		{"query: beyond physical addresses", query, {top}, e_inval},
		{"query: the highest address", query, {~0ul}, e_inval},
		{"query: second argument", query, {gpa_of(100), 1}, e_inval},

		{"driver: a second one", drv, {gpa_of(lay::desc)}, e_exist},
		{"driver: unaligned", drv, {gpa_of(lay::desc) + 4}, e_inval},
		{"driver: crosses a page", drv, {gpa_of(lay::desc) + 272}, e_inval},
		{"driver: second argument", drv, {gpa_of(lay::desc), 1}, e_inval},

		{"leave: outside", RDT_HC_LEAVE, {1, 1}, e_inval},
		{"resume: third argument", RDT_HC_RESUME, {1, 1, 1}, e_inval},
		{"version is the host's", RDT_HC_VERSION, {}, e_nosys},
		{"version: argument", RDT_HC_VERSION, {1}, e_inval},
		{"status: argument", RDT_HC_STATUS, {0, 1}, e_inval},
		{"attach: flags and more", RDT_HC_ATTACH, {0, 0, 1}, e_inval},
		{"an unused number", RDT_HC_RESUME + 1, {}, e_nosys},
		{"the last number", RDT_HC_LAST, {1, 2, 3, 4}, e_nosys},
		{"a number below", RDT_HC_BASE - 1, {}, e_nosys},
	};

	for (const Call &c : calls)
		expect_refused(w, w[0], c, before);
}

TEST(A5, BadRequestsFromIntegrityMode)
{
	World w;

	furnish(w);
	ASSERT_TRUE(w[0].enter_call());
	const Snapshot before = w.snapshot();
	const u32 prot = RDT_HC_PROTECT, unprot = RDT_HC_UNPROTECT;
	const Call calls[] = {
		{"protect: unaligned", prot, {gpa_of(50) + 8, 1, attr(1)}, e_inval},
		{"protect: not RAM", prot, {gpa_of(300), 1, attr(1)}, e_fault},
		{"protect: holds a structure", prot, {gpa_of(200), 1, attr(1)}, e_busy},
		{"protect: no action", prot, {gpa_of(100), 1, attr(0)}, e_inval},
		{"protect: the operator's", prot, {gpa_of(165), 1, attr(RDT_ACT_FREEZE)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: its own text", prot, {gpa_of(lay::text), 1, attr(1)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: its own data", prot, {gpa_of(lay::data), 1, attr(1)}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"protect: a node page", prot, {gpa_of(lay::nodes), 1, attr(1)}, e_perm, RDT_EV_PROTECT_REFUSED},

		{"unprotect: unaligned", unprot, {gpa_of(100) + 8, 1}, e_inval},
		{"unprotect: no pages", unprot, {gpa_of(100), 0}, e_inval},
		{"unprotect: wraps", unprot, {gpa_of(100), ~0ul}, e_inval},
		{"unprotect: beyond physical addresses", unprot, {top, 1}, e_inval},
		{"unprotect: the highest address", unprot, {~0ul & ~0xffful, 1}, e_inval},
		{"unprotect: nothing protected", unprot, {gpa_of(50), 5}, e_noent},
		{"unprotect: where no RAM is", unprot, {gpa_of(lay::frames), 5}, e_noent},
		{"unprotect: the operator's", unprot, {gpa_of(160), 10}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"unprotect: the operator's among others", unprot, {gpa_of(100), 100}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"unprotect: a node page", unprot, {gpa_of(lay::nodes), 1}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"unprotect: its own text", unprot, {gpa_of(lay::text), 1}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"unprotect: its own last data", unprot, {gpa_of(lay::data_end - 1), 100}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"unprotect: the IDT", unprot, {gpa_of(lay::idt), 1}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"unprotect: everything", unprot, {0, 1ul << 40}, e_perm, RDT_EV_PROTECT_REFUSED},
		{"unprotect: fourth argument", unprot, {gpa_of(100), 1, 0, 1}, e_inval},
		{"driver: a second one", RDT_HC_DRIVER, {gpa_of(lay::desc)}, e_exist},
	};

	for (const Call &c : calls)
		expect_refused(w, w[0], c, before);
	EXPECT_TRUE(w[0].inside());
	/* B7: it was vCPU 0 that is inside. */
	expect_refused(w, w[1], {"unprotect by the other vCPU", unprot, {gpa_of(100), 1}, e_perm, RDT_EV_UNPROTECT}, before);
}

/* No call is for ring 3, nor for a mode that is not 64-bit; at the gates it is an alert. */
TEST(A5, CallsThatAreNotTheKernels)
{
	World w;

	furnish(w);
	const Snapshot before = w.snapshot();

	for (int cpl : {0, 1, 2, 3})
		for (int bits : {48, 0}) {
			if (cpl == 0 && bits)
				continue;
			w[0].cpl = static_cast<u8>(cpl);
			w[0].va_bits = static_cast<u8>(bits);
			for (u32 nr = RDT_HC_NODE_ADD; nr <= RDT_HC_RESUME; nr++) {
				SCOPED_TRACE("ring " + std::to_string(cpl) + ", call " + std::to_string(nr - RDT_HC_BASE));
				/* Good arguments of each: of a caller who may, they would be done. */
				const u64 a = nr == RDT_HC_DRIVER ? gpa_of(lay::desc) : gpa_of(50);
				const bool gate = nr >= RDT_HC_ENTER;

				EXPECT_EQ(w[0].hc(nr, a, nr == RDT_HC_PROTECT || nr == RDT_HC_UNPROTECT,
						  nr == RDT_HC_PROTECT ? attr(RDT_ACT_DENY) : 0), e_perm);
				const auto ev = w.host.take_events();

				ASSERT_EQ(ev.size(), gate ? 1u : 0u);
				if (gate) {
					EXPECT_EQ(ev[0].type, RDT_EV_GATE);
					EXPECT_EQ(ev[0].code, cpl ? RDT_GATE_BAD_CPL : RDT_GATE_BAD_STATE);
				}
			}
			EXPECT_EQ(before.diff(w.snapshot()), "");
		}
}

/* What normal mode may do: add, and make stronger. */
TEST(A5, NormalModeAddsAndStrengthens)
{
	World w;

	w.start();
	ASSERT_EQ(w.protect(100, 10, RDT_ACT_LOG, RDT_CLS_TEXT), 0);
	EXPECT_EQ(w.protect(100, 10, RDT_ACT_LOG, RDT_CLS_TEXT), 0) << "again";
	EXPECT_EQ(w.protect(103, 2, RDT_ACT_LOG, RDT_CLS_TEXT), 0) << "a part again";
	EXPECT_EQ(w.protect(95, 10, RDT_ACT_LOG, RDT_CLS_TEXT), 0) << "more of it";
	EXPECT_EQ(w.protect(105, 2, RDT_ACT_DENY, RDT_CLS_RODATA), 0) << "stronger";
	EXPECT_EQ(w.protect(106, 1, RDT_ACT_FREEZE, RDT_CLS_SYSCALL), 0) << "stronger still";
	for (gfn_t g = 90; g < 115; g++)
		EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(g) + g), g < 95 || g >= 110 ? 0
					       : g == 105   ? attr(RDT_ACT_DENY, RDT_CLS_RODATA)
					       : g == 106   ? attr(RDT_ACT_FREEZE, RDT_CLS_SYSCALL)
							    : attr(RDT_ACT_LOG, RDT_CLS_TEXT))
			<< g;
	EXPECT_TRUE(w.host.take_events().empty());
}

TEST(A5, IntegrityModeReplacesAndRemoves)
{
	World w;

	w.start();
	ASSERT_EQ(w.protect(100, 10, RDT_ACT_FREEZE, RDT_CLS_TEXT), 0);
	ASSERT_TRUE(w[0].enter_call());
	EXPECT_EQ(w.protect(102, 3, RDT_ACT_LOG, RDT_CLS_OTHER), 0);
	EXPECT_EQ(w[1].hc(RDT_HC_QUERY, gpa_of(103)), attr(RDT_ACT_LOG));
	EXPECT_EQ(w[0].hc(RDT_HC_UNPROTECT, gpa_of(101), 2), 0);
	for (gfn_t g : {101, 102}) {
		EXPECT_EQ(w.access(RDT_VIEW_ROOT, g), RDT_ACC_RWX);
		EXPECT_EQ(w[1].hc(RDT_HC_QUERY, gpa_of(g)), 0);
	}
	EXPECT_EQ(w[1].hc(RDT_HC_QUERY, gpa_of(100)), attr(RDT_ACT_FREEZE, RDT_CLS_TEXT));
	EXPECT_EQ(w[0].hc(RDT_HC_UNPROTECT, 0, lay::text), e_noent);
	EXPECT_EQ(w[0].hc(RDT_HC_UNPROTECT, gpa_of(90), 200), 0) << "with holes";
	EXPECT_TRUE(w.host.take_events().empty());
}

/* What the operator may do, and what not even the operator. */
TEST(A5, TheOperator)
{
	World w;

	furnish(w);
	Snapshot before = w.snapshot();
	struct Row {
		const char *what;
		gpa_t gpa;
		u64 pages;
		u8 action, cls;
		int error;
	} bad[] = {
		{"unaligned", gpa_of(50) + 1, 1, 2, 0, -22},
		{"no pages", gpa_of(50), 0, 2, 0, -22},
		{"wraps", gpa_of(50), ~0ul, 2, 0, -22},
		{"beyond physical addresses", top, 1, 2, 0, -22},
		{"not RAM", gpa_of(300), 1, 2, 0, -14},
		{"a structure", gpa_of(200), 1, 2, 0, -16},
		{"action", gpa_of(50), 1, 4, 0, -22},
		{"class", gpa_of(50), 1, 2, 0x80, -22},
		{"node page", gpa_of(lay::nodes), 1, 2, 0, -1},
		{"driver", gpa_of(lay::gate), 1, 3, 0, -1},
		{"remove: node page", gpa_of(lay::nodes), 1, 0, 0, -1},
		{"remove: driver", gpa_of(lay::exit), 1, 0, 0, -1},
		{"remove: IDT", gpa_of(lay::idt), 1, 0, 0, -1},
		{"remove: nothing", gpa_of(50), 5, 0, 0, -2},
		{"remove: unaligned", gpa_of(100) + 1, 1, 0, 0, -22},
		{"remove: no pages", gpa_of(100), 0, 0, 0, -22},
		{"remove: wraps", gpa_of(100), ~0ul, 0, 0, -22},
	};

	for (const Row &r : bad) {
		SCOPED_TRACE(r.what);
		EXPECT_EQ(rdt_core_protect(w.vm, r.gpa, r.pages, r.action, r.cls), r.error);
		EXPECT_TRUE(w.host.take_events().empty()) << "no guest did anything";
		EXPECT_TRUE(w.host.take_zaps().empty());
		EXPECT_EQ(before.diff(w.snapshot()), "");
	}

	/* Weaker, stronger, removed: the guest's ranges and the operator's own. */
	EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(145), 1, RDT_ACT_LOG, 0), 0);
	EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(165), 1, RDT_ACT_FREEZE, 0), 0);
	EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(100), 50, RDT_ACT_NONE, 0), 0);
	for (gfn_t g = 100; g < 150; g++)
		EXPECT_EQ(w.access(RDT_VIEW_ROOT, g), RDT_ACC_RWX) << g;
	EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(165)), attr(RDT_ACT_FREEZE));
}

/* A2: every page that holds nodes is restricted the moment it does, and reported. */
TEST(A2, EveryNodePageIsProtected)
{
	constexpr unsigned k = 64;
	World w;

	for (unsigned i = 0; i < k; i++) {
		std::memset(w.host.page(lay::nodes + i), 0xee, page_size);
		w.host.on_zap = [&w, i] {
			/* Still the guest's content: the right to write goes first. */
			EXPECT_EQ(w.host.page(lay::nodes + i)[5], 0xee);
			EXPECT_EQ(w.access(RDT_VIEW_ROOT, lay::nodes + i), RDT_ACC_R | RDT_ACC_X);
		};
		ASSERT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes + i)), i + 1);

		const auto zaps = w.host.take_zaps();

		ASSERT_EQ(zaps.size(), 1u);
		EXPECT_EQ(zaps[0].first, lay::nodes + i);
		EXPECT_EQ(zaps[0].count, 1u);
	}
	w.host.on_zap = nullptr;
	EXPECT_EQ(w.host.pins(), k);
	ASSERT_EQ(w.seal(good_desc()), 0);
	w.quiet();
	for (unsigned i = 0; i < k; i++) {
		const gpa_t gpa = gpa_of(lay::nodes + i);

		for (u8 view : {u8{RDT_VIEW_ROOT}, u8{RDT_VIEW_INTEGRITY}})
			EXPECT_FALSE(w.access(view, lay::nodes + i) & RDT_ACC_W);
		EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa), attr(RDT_ACT_DENY, RDT_CLS_NODE));
		EXPECT_EQ(w[0].fault(gpa + 40, RDT_ACC_W), RDT_V_GP);

		rdt_event ev = w.one_event();

		EXPECT_EQ(ev.type, RDT_EV_TREE_WRITE);
		EXPECT_EQ(ev.gpa, gpa + 40);
		EXPECT_EQ(ev.cls, RDT_CLS_NODE);
		EXPECT_EQ(ev.action, RDT_ACT_DENY);
		EXPECT_EQ(ev.range_gpa, gpa);
		EXPECT_EQ(ev.range_pages, 1u);
		/* By KVM's emulator too. */
		FaultOpts o;

		o.emulated = true;
		EXPECT_EQ(w[0].kvm_write(gpa + 40, o), RDT_V_GP);
		EXPECT_EQ(w.one_event().type, RDT_EV_TREE_WRITE);
	}
	/* And from inside. */
	ASSERT_TRUE(w[0].enter_call());
	EXPECT_EQ(w[0].fault(gpa_of(lay::nodes), RDT_ACC_W), RDT_V_RESUME);
	EXPECT_EQ(w.one_event().type, RDT_EV_TREE_WRITE);
}

/* A4: no answer of any hypercall shows where the root or a page is in the host. */
TEST(A4, NodePagesShowNoHostAddress)
{
	World w;

	w.start();
	for (unsigned i = 0; i < 50; i++)
		ASSERT_EQ(w.protect(100 + 3 * i, 2, RDT_ACT_DENY, RDT_CLS_TEXT), 0);

	const u64 ram = reinterpret_cast<u64>(w.host.page(0)) >> 21, core = reinterpret_cast<u64>(w.vm) >> 21;

	for (unsigned i = 0; i < page_size / 8; i++) {
		const u64 word = w.host.at<u64>(gpa_of(lay::nodes) + i * 8);

		EXPECT_NE(word >> 21, ram);
		EXPECT_NE(word >> 21, core);
	}
}

TEST(A2, TooManyNodePages)
{
	World w(1, 8192);

	for (unsigned i = 0; i < RDT_MAX_NODE_PAGES; i++)
		ASSERT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(1000 + i)), i + 1);
	const u64 pins = w.host.pins();

	w.quiet();
	EXPECT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(7000)), e_2big);
	EXPECT_EQ(w.access(RDT_VIEW_ROOT, 7000), RDT_ACC_RWX);
	EXPECT_EQ(w.host.pins(), pins);
	EXPECT_TRUE(w.host.take_zaps().empty());
	EXPECT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(1000)), e_busy) << "restricted comes first";
}

TEST(A2, APageThatCannotBePinned)
{
	World w;

	w.host.fail_pin = true;
	const Snapshot before = w.snapshot();

	EXPECT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes)), e_fault);
	EXPECT_EQ(before.diff(w.snapshot()), "");
	w.host.fail_pin = false;
	EXPECT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes)), 1);
}

/* Without a node, nothing; with full pages, what needs none still works. */
TEST(A1, OutOfNodes)
{
	World w;
	unsigned n = 0;

	EXPECT_EQ(w.protect(100, 1, RDT_ACT_DENY, 0), e_nomem);
	EXPECT_EQ(w.access(RDT_VIEW_ROOT, 100), RDT_ACC_RWX);
	w.give_nodes();
	while (w.protect(100 + 2 * n, 1, RDT_ACT_DENY, 0) == 0)
		n++;
	EXPECT_EQ(n, 127u);
	w.quiet();

	const Snapshot before = w.snapshot();

	EXPECT_EQ(w.protect(100 + 2 * n, 1, RDT_ACT_DENY, 0), e_nomem);
	EXPECT_EQ(w.protect(50, 8, RDT_ACT_DENY, 0), e_nomem);
	EXPECT_EQ(before.diff(w.snapshot()), "");
	EXPECT_TRUE(w.host.take_zaps().empty());
	EXPECT_EQ(w.protect(101, 1, RDT_ACT_DENY, 0), 0) << "joins two";
	EXPECT_EQ(w.protect(100 + 2 * n, 1, RDT_ACT_DENY, 0), 0) << "the node that this gave";
	/* Cutting a hole into a range needs one: none is left. */
	EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(101), 1, RDT_ACT_NONE, 0), e_nomem);
	EXPECT_EQ(w.access(RDT_VIEW_ROOT, 101), RDT_ACC_R | RDT_ACC_X);
	EXPECT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::nodes + 1)), 2);
	EXPECT_EQ(rdt_core_protect(w.vm, gpa_of(101), 1, RDT_ACT_NONE, 0), 0);
}

/* A restriction is complete before the call returns: bit, rule, then zap. */
TEST(A8, ZapComesLastAndCoversTheRange)
{
	World w;
	unsigned zaps = 0;

	w.start();
	w.host.on_zap = [&] {
		zaps++;
		for (gfn_t g = 100; g < 110; g++)
			EXPECT_EQ(w.access(RDT_VIEW_ROOT, g), RDT_ACC_R | RDT_ACC_X);
	};
	ASSERT_EQ(w.protect(100, 10, RDT_ACT_DENY, 0), 0);
	EXPECT_EQ(zaps, 1u);
	const auto z = w.host.take_zaps();

	ASSERT_EQ(z.size(), 1u);
	EXPECT_EQ(z[0].first, 100u);
	EXPECT_EQ(z[0].count, 10u);
}

/*
 * KVM's structures are looked for when the bits are set: one that is set up at that
 * very moment is either found, or its own question answers no.
 */
TEST(A9, AStructureSetUpWhileItsFrameIsProtected)
{
	for (int what = 0; what < 3; what++) {
		World w;

		w.give_nodes(1);
		const Snapshot before = w.snapshot();

		w.host.on_holds_pv = [&] {
			EXPECT_FALSE(rdt_core_may_hold_pv(w.vm, gpa_of(lay::plain) + 64, 32));
			w.host.take_events();
		};
		switch (what) {
		case 0:
			EXPECT_EQ(w.protect(lay::plain, 1, RDT_ACT_DENY, 0), 0);
			break;
		case 1:
			EXPECT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::plain)), 2);
			break;
		default:
			/* Found: it was there before. */
			w.host.on_holds_pv = [&] { w.host.pv = {{gpa_of(lay::plain), 8}}; };
			EXPECT_EQ(w.protect(lay::plain, 1, RDT_ACT_DENY, 0), e_busy);
			w.host.on_holds_pv = nullptr;
			w.host.pv.clear();
			EXPECT_EQ(before.diff(w.snapshot()), "");
		}
		w.host.on_holds_pv = nullptr;
	}
}

/* --- the driver's registration --- */

namespace {

struct Sealing {
	const char *what;
	std::function<void(World &, rdt_driver_desc &)> spoil;
	s64 error;
};

const Sealing sealings[] = {
	{"slots", [](World &, rdt_driver_desc &d) { d.slots = 0; }, e_inval},
	{"a region is no RAM", [](World &w, rdt_driver_desc &) { w.host.memslots = {{0, 19}, {20, 400}}; }, e_fault},
	{"the IDT is no RAM", [](World &w, rdt_driver_desc &) { w.host.memslots = {{0, 40}, {41, 400}}; }, e_fault},
	{"a region is monitored", [](World &w, rdt_driver_desc &) { ASSERT_EQ(w.protect(lay::data_end - 1, 1, 1, 0), 0); }, e_busy},
	{"a region has a node page", [](World &w, rdt_driver_desc &) { ASSERT_EQ(w[0].hc(RDT_HC_NODE_ADD, gpa_of(lay::data)), 2); }, e_busy},
	{"a region holds a structure", [](World &w, rdt_driver_desc &) { w.host.pv = {{gpa_of(lay::data_end) - 1, 1}}; }, e_busy},
	{"the IDT holds a structure", [](World &w, rdt_driver_desc &) { w.host.pv = {{gpa_of(lay::idt), 1}}; }, e_busy},
	{"the operator logs the IDT", [](World &w, rdt_driver_desc &) { ASSERT_EQ(rdt_core_protect(w.vm, gpa_of(lay::idt), 1, RDT_ACT_LOG, 0), 0); }, e_perm},
	{"the descriptor cannot be read", [](World &w, rdt_driver_desc &) { w.host.fail_read = true; }, e_fault},
};

} // namespace

TEST(B5, ADriverThatIsRefusedLeavesNoTrace)
{
	for (const Sealing &s : sealings) {
		SCOPED_TRACE(s.what);
		World w;
		rdt_driver_desc d = good_desc();

		w.give_nodes();
		s.spoil(w, d);
		w.quiet();
		const u64 blocks = test_alloc_blocks();
		const Snapshot before = w.snapshot();

		EXPECT_EQ(w.seal(d), s.error);
		w.host.fail_read = false;
		EXPECT_EQ(before.diff(w.snapshot()), "");
		EXPECT_TRUE(w.host.take_events().empty());
		EXPECT_TRUE(w.host.take_zaps().empty());
		/* One leaf of the bitmap may be new. */
		EXPECT_LE(test_alloc_blocks(), blocks + 3);
		EXPECT_FALSE(rdt_core_status(w.vm) & RDT_ST_SEALED);
	}
}

TEST(B5, NoNodeForTheIdtsRule)
{
	World w;
	const Snapshot before = w.snapshot();

	EXPECT_EQ(w.seal(good_desc()), e_nomem);
	EXPECT_EQ(before.diff(w.snapshot()), "");
	w.give_nodes();
	EXPECT_EQ(w.seal(good_desc()), 0);
}

TEST(B5, ARegisteredDriver)
{
	World w;

	w.give_nodes();
	w.quiet();
	ASSERT_EQ(w.seal(good_desc()), 0);

	const rdt_event ev = w.one_event();

	EXPECT_EQ(ev.type, RDT_EV_SEALED);
	EXPECT_EQ(ev.range_pages, 12u);
	EXPECT_EQ(rdt_core_status(w.vm), u32{RDT_ST_SEALED});
	/* Every frame whose rights shrank was zapped. */
	std::set<gfn_t> zapped;

	for (const MockHost::Zap &z : w.host.take_zaps())
		for (u64 i = 0; i < z.count; i++)
			zapped.insert(z.first + i);
	for (gfn_t g = 0; g < lay::frames; g++)
		if (g != lay::nodes && w.access(RDT_VIEW_ROOT, g) != RDT_ACC_RWX)
			EXPECT_TRUE(zapped.count(g)) << g;
	EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(lay::text)), attr(RDT_ACT_DENY, RDT_CLS_DRV_TEXT));
	EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(lay::data)), attr(RDT_ACT_DENY, RDT_CLS_DRV_DATA));
	EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(lay::gate)), attr(RDT_ACT_DENY, RDT_CLS_DRV_GATE));
	EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(lay::exit)), attr(RDT_ACT_DENY, RDT_CLS_DRV_EXIT));
	EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(lay::idt)), attr(RDT_ACT_DENY, RDT_CLS_IDT));
	rdt_vm_info info = {};

	rdt_core_info(w.vm, &info);
	EXPECT_EQ(info.flags, u32{RDT_VM_SEALED});
	EXPECT_EQ(info.driver_frames, 12u);
	EXPECT_EQ(info.slots, 2u);
}

/* An IDT that the guest protects already keeps its rule, unless that was weaker. */
TEST(B5, TheIdtsOwnRule)
{
	struct Row {
		u8 action;
		u64 want;
	} rows[] = {
		{RDT_ACT_LOG, attr(RDT_ACT_DENY, RDT_CLS_IDT)},
		{RDT_ACT_DENY, attr(RDT_ACT_DENY, RDT_CLS_SYSCALL)},
		{RDT_ACT_FREEZE, attr(RDT_ACT_FREEZE, RDT_CLS_SYSCALL)},
	};

	for (const Row &r : rows) {
		World w;

		w.give_nodes();
		ASSERT_EQ(w.protect(lay::idt - 1, 3, r.action, RDT_CLS_SYSCALL), 0);
		ASSERT_EQ(w.seal(good_desc()), 0);
		EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(lay::idt)), r.want);
		EXPECT_EQ(w[0].hc(RDT_HC_QUERY, gpa_of(lay::idt + 1)), attr(r.action, RDT_CLS_SYSCALL));
		EXPECT_EQ(w.access(RDT_VIEW_INTEGRITY, lay::idt), 0);
	}
}

/* The descriptor is copied before it is checked: a change while it is read is harmless. */
TEST(B5, TheDescriptorIsCopiedFirst)
{
	World w;

	w.give_nodes();
	w.host.on_holds_pv = [&] {
		w.host.at<rdt_driver_desc>(gpa_of(lay::desc)).gate_gva = lay::kernel;
		w.host.at<rdt_driver_desc>(gpa_of(lay::desc)).stack_top[0] = 0;
		w.host.at<rdt_driver_desc>(gpa_of(lay::desc)).region[3].kind = RDT_DRV_TEXT;
	};
	ASSERT_EQ(w.seal(good_desc()), 0);
	w.host.on_holds_pv = nullptr;
	EXPECT_EQ(w.access(RDT_VIEW_INTEGRITY, lay::data), RDT_ACC_R | RDT_ACC_W);
	ASSERT_EQ(w[0].enter_fault(), RDT_V_RESUME);
	EXPECT_EQ(w[0].regs.rip, lay::gate_gva);
	EXPECT_EQ(w[0].regs.rsp, lay::stack(0));
}
