// SPDX-License-Identifier: GPL-2.0
/*
 * A6: somebody who can write the node pages behind the core's back (a VMM, a device)
 * rewrites them. Then no frame may ever gain a right, no write to a restricted frame
 * may pass, an answer is the right one or DENY, and one event says what happened.
 */
#include <random>

#include "vm_world.h"

using namespace redoubt;

namespace {

constexpr gfn_t first_monitored = 100, last_monitored = 400;

struct Victim {
	World w;
	std::vector<u8> action, cls; /* by frame; 0: not monitored */
	std::vector<u8> rights;	     /* access, two views a frame */
	unsigned corrupt_events = 0;

	explicit Victim(std::mt19937_64 &rng) : w(2)
	{
		w.give_nodes(2);
		EXPECT_EQ(w.seal(good_desc()), 0);
		action.resize(lay::frames);
		cls.resize(lay::frames);
		for (gfn_t g = first_monitored; g < last_monitored;) {
			const u64 n = rng() % 4 + 1;
			const u8 a = static_cast<u8>(rng() % 4), c = static_cast<u8>(rng() % 3);

			if (a) {
				EXPECT_EQ(w.protect(g, n, a, c), 0);
				for (u64 i = 0; i < n; i++) {
					action[g + i] = a;
					cls[g + i] = c;
				}
			}
			g += n;
		}
		w.quiet();
		rights = current();
	}
	std::vector<u8> current()
	{
		std::vector<u8> r;

		for (gfn_t g = 0; g < lay::frames; g++)
			for (u8 view : {u8{RDT_VIEW_ROOT}, u8{RDT_VIEW_INTEGRITY}})
				r.push_back(w.access(view, g));
		return r;
	}
	void check_rights()
	{
		const std::vector<u8> now = current();

		for (usize i = 0; i < now.size(); i++)
			ASSERT_EQ(now[i] & ~rights[i], 0) << "frame " << i / 2 << " gained a right";
	}
	void collect()
	{
		for (const rdt_event &e : w.host.take_events())
			corrupt_events += e.type == RDT_EV_TREE_CORRUPT;
	}
	bool poisoned()
	{
		return rdt_core_status(w.vm) & RDT_ST_TREE_CORRUPT;
	}
	void check_fault(gfn_t g)
	{
		const rdt_verdict v = w[0].fault(gpa_of(g), RDT_ACC_W);
		const bool restricted = rights[2 * g] != RDT_ACC_RWX;

		if (!restricted) {
			EXPECT_EQ(v, RDT_V_PASS) << g;
			return;
		}
		const rdt_verdict right = action[g] == RDT_ACT_LOG	? RDT_V_STEP
					  : action[g] == RDT_ACT_FREEZE ? RDT_V_FREEZE
									: RDT_V_GP;

		if (v != right) {
			EXPECT_EQ(v, RDT_V_GP) << g;
			EXPECT_TRUE(poisoned());
		}
		/* The emulator's way is no weaker. */
		const rdt_verdict e = w[0].kvm_write(gpa_of(g));

		if (action[g] != RDT_ACT_LOG)
			EXPECT_EQ(e, RDT_V_GP) << g;
	}
	void check_query(gfn_t g)
	{
		const s64 q = w[1].hc(RDT_HC_QUERY, gpa_of(g));

		if (action[g] == 0)
			return;
		if (q != static_cast<s64>(RDT_ATTR(action[g], cls[g])))
			EXPECT_EQ(q, s64{RDT_ATTR(RDT_ACT_DENY, RDT_CLS_OTHER)}) << g;
	}
	void check_regions()
	{
		rdt_region out[128];
		rdt_u64 next = 0;

		for (;;) {
			const int n = rdt_core_regions(w.vm, next, out, 128, &next);

			if (n < 0) {
				EXPECT_EQ(n, -117);
				EXPECT_TRUE(poisoned());
				return;
			}
			for (int i = 0; i < n; i++)
				for (u64 k = 0; k < out[i].pages; k++) {
					const gfn_t g = (out[i].gpa >> page_shift) + k;

					if (out[i].cls >= RDT_CLS_NODE || g == lay::idt)
						continue;
					ASSERT_LT(g, lay::frames);
					EXPECT_EQ(out[i].action, action[g]);
					EXPECT_EQ(out[i].cls, cls[g]);
				}
			if (n < 128)
				return;
		}
	}
	u64 &word(std::mt19937_64 &rng)
	{
		return w.host.at<u64>(gpa_of(lay::nodes + rng() % 2) + rng() % 512 * 8);
	}
};

/* One word, many words, a whole page; zeros, ones, noise, a bit, another node's words. */
void scribble(Victim &v, std::mt19937_64 &rng)
{
	const u64 how = rng() % 6;

	if (how == 0) {
		std::memset(v.w.host.page(lay::nodes + rng() % 2), rng() & 1 ? 0xff : 0, page_size);
		return;
	}
	for (u64 n = how == 1 ? 200 : rng() % 4 + 1; n > 0; n--) {
		u64 &to = v.word(rng);

		switch (how) {
		case 1:
		case 2:
			to = rng();
			break;
		case 3:
			to ^= 1ul << (rng() % 64);
			break;
		case 4:
			to = v.word(rng);
			break;
		default:
			to = rng() & 1 ? 0 : rng() % 512;
			break;
		}
	}
}

} // namespace

TEST(A6, RewrittenNodePagesNeverOpenAFrame)
{
	std::mt19937_64 rng(6);
	unsigned poisoned = 0;

	for (unsigned round = 0; round < 300; round++) {
		SCOPED_TRACE(round);
		Victim v(rng);

		scribble(v, rng);
		for (unsigned i = 0; i < 60; i++) {
			v.check_fault(rng() % lay::frames);
			v.check_query(rng() % lay::frames);
			if (rng() % 16 == 0)
				v.check_regions();
			if (rng() % 8 == 0)
				scribble(v, rng);
		}
		v.check_rights();
		v.collect();
		EXPECT_EQ(v.corrupt_events, v.poisoned() ? 1u : 0u);
		poisoned += v.poisoned();
		if (HasFailure())
			return;
	}
	EXPECT_GT(poisoned, 200u) << "the attack did not attack";
}

/* Changes of policy that meet the damage: refused, or done right; never a right more. */
TEST(A6, PolicyChangesOnARewrittenTree)
{
	std::mt19937_64 rng(66);

	for (unsigned round = 0; round < 300; round++) {
		SCOPED_TRACE(round);
		Victim v(rng);
		World &w = v.w;

		scribble(v, rng);
		for (unsigned i = 0; i < 6; i++) {
			const gfn_t g = first_monitored + rng() % 250;
			const u64 n = rng() % 40 + 1;
			const bool was = v.poisoned();
			/* Not before it is known: looking would be what finds it. */
			const Snapshot before = was ? w.snapshot() : Snapshot();
			s64 r;

			switch (rng() % 4) {
			case 0:
				r = w.protect(g, n, RDT_ACT_FREEZE, 5);
				if (r == 0)
					for (u64 k = g; k < g + n; k++) {
						v.action[k] = RDT_ACT_FREEZE;
						v.cls[k] = 5;
						v.rights[2 * k] = RDT_ACC_R | RDT_ACC_X;
						v.rights[2 * k + 1] = RDT_ACC_R;
					}
				else if (!was && v.poisoned())
					/* Found just now: which of the frames were free nobody knows. */
					for (u64 k = g; k < g + n; k++) {
						v.rights[2 * k] &= w.access(RDT_VIEW_ROOT, k);
						v.rights[2 * k + 1] &= w.access(RDT_VIEW_INTEGRITY, k);
					}
				break;
			case 1:
				r = w[0].hc(RDT_HC_UNPROTECT, gpa_of(g), n);
				EXPECT_EQ(r, -1) << "normal mode";
				break;
			case 2:
				r = rdt_core_protect(w.vm, gpa_of(g), n, RDT_ACT_NONE, 0);
				if (r == 0)
					for (u64 k = g; k < g + n; k++) {
						v.action[k] = v.cls[k] = 0;
						v.rights[2 * k] = RDT_ACC_RWX;
						v.rights[2 * k + 1] = RDT_ACC_R | RDT_ACC_W;
					}
				break;
			default:
				r = w[0].hc(RDT_HC_NODE_ADD, gpa_of(50 + rng() % 4));
				EXPECT_TRUE(r > 0 || r == -1 || r == -16) << r;
				if (r > 0)
					v.rights = v.current(); /* one more, checked by A2 */
				r = 0;
				break;
			}
			EXPECT_TRUE(r == 0 || r == -1 || r == -2) << r;
			if (was) {
				/* Known to be corrupt: nothing changes at all any more. */
				EXPECT_EQ(before.diff(w.snapshot()), "");
			}
			v.check_rights();
			v.check_fault(rng() % lay::frames);
			if (HasFailure())
				return;
		}
		v.collect();
		EXPECT_LE(v.corrupt_events, 1u);
	}
}

/* A page that is rewritten between two loads of one walk. */
TEST(A6, RewrittenInTheMiddleOfAWalk)
{
	std::mt19937_64 rng(666);
	struct Ctx {
		Victim *v;
		std::mt19937_64 *rng;
		u64 fuse;
		u64 loads;
	};

	for (unsigned round = 0; round < 400; round++) {
		SCOPED_TRACE(round);
		Victim v(rng);
		Ctx ctx = {&v, &rng, 0, 0};

		test_on_node_load(
			[](void *p) {
				Ctx *c = static_cast<Ctx *>(p);

				c->loads++;
				if (c->fuse && --c->fuse == 0)
					scribble(*c->v, *c->rng);
			},
			&ctx);
		for (unsigned i = 0; i < 10; i++) {
			const u64 loads = ctx.loads;

			ctx.fuse = rng() % 40 + 1;
			v.check_fault(rng() % lay::frames);
			v.check_query(rng() % lay::frames);
			EXPECT_LT(ctx.loads - loads, 4000u) << "a walk without an end";
		}
		test_on_node_load(nullptr, nullptr);
		v.check_rights();
		if (HasFailure())
			return;
	}
}

/* What holds without the tree goes on without it. */
TEST(A6, WhatDoesNotNeedTheTree)
{
	std::mt19937_64 rng(1);
	Victim v(rng);
	World &w = v.w;

	std::memset(w.host.page(lay::nodes), 0xff, page_size);
	std::memset(w.host.page(lay::nodes + 1), 0xff, page_size);
	for (gfn_t g = first_monitored; g < last_monitored; g++)
		v.check_fault(g);
	ASSERT_TRUE(v.poisoned());
	w.quiet();

	/* Node pages and the driver keep their own answers; gates work. */
	EXPECT_EQ(w[0].fault(gpa_of(lay::nodes), RDT_ACC_W), RDT_V_GP);
	EXPECT_EQ(w.one_event().type, RDT_EV_TREE_WRITE);
	EXPECT_EQ(w[0].fault(gpa_of(lay::data), RDT_ACC_W), RDT_V_GP);
	EXPECT_EQ(w.one_event().type, RDT_EV_DRIVER_WRITE);
	w[0].regs.gpr[r11] = lay::back;
	ASSERT_TRUE(w[0].enter_call());
	EXPECT_EQ(w[0].fault(gpa_of(lay::data), RDT_ACC_W), RDT_V_PASS);
	ASSERT_TRUE(w[0].resume(w[0].strike()).switched);
	/* Not even from inside is anything lifted. */
	EXPECT_EQ(w[0].hc(RDT_HC_UNPROTECT, gpa_of(first_monitored), 300), -1);
	ASSERT_TRUE(w[0].leave_call(0));
	v.check_rights();
	EXPECT_EQ(w.protect(50, 1, RDT_ACT_DENY, 0), -1);
	EXPECT_EQ(w.access(RDT_VIEW_ROOT, 50), RDT_ACC_RWX);
	rdt_vm_info info = {};

	rdt_core_info(w.vm, &info);
	EXPECT_TRUE(info.flags & RDT_VM_TREE_CORRUPT);
	EXPECT_EQ(rdt_core_detach(w.vm, 0), 0);
}

/* A corrupt tree before the driver comes: it is refused, and leaves nothing. */
TEST(A6, NoDriverOnACorruptTree)
{
	World w;

	w.give_nodes(1);
	ASSERT_EQ(w.protect(100, 1, RDT_ACT_DENY, 1), 0);
	const Snapshot before = w.snapshot();

	std::memset(w.host.page(lay::nodes), 0xff, page_size);
	EXPECT_EQ(w.seal(good_desc()), -1);
	EXPECT_EQ(w.seal(good_desc()), -1);
	for (gfn_t g = 0; g < lay::frames; g++)
		EXPECT_EQ(w.access(RDT_VIEW_ROOT, g), before.access[g * 5]) << g;
	EXPECT_FALSE(rdt_core_status(w.vm) & RDT_ST_SEALED);
	unsigned corrupt = 0;

	for (const rdt_event &e : w.host.take_events())
		corrupt += e.type == RDT_EV_TREE_CORRUPT;
	EXPECT_EQ(corrupt, 1u);
}
