// SPDX-License-Identifier: GPL-2.0
/* E4, E5, E7, E8: where direct queues begin and end, one case at a time. */
#include <algorithm>

#include <gtest/gtest.h>

#include "nvme_world.h"

using namespace redoubt::dma::nvme;

namespace {

struct Edges : testing::Test {
	GuestMemory memory;
	NvmeDisk disk;
	NvmeWorld a{memory, disk}, b{memory, disk};
	NvmeGuest g{memory, a};

	void SetUp() override
	{
		a.direct = b.direct = true;
		b.serial = "two";
	}
	void up(unsigned queues, u32 entries, u32 cq_entries = 0)
	{
		ASSERT_TRUE(a.create());
		ASSERT_TRUE(b.create());
		ASSERT_TRUE(g.enable());
		ASSERT_TRUE(g.make_queues(queues, entries, cq_entries));
	}
	Sqe flush(u16 cid)
	{
		Sqe e = {};

		e.opcode = nvm_flush;
		e.nsid = 1;
		e.cid = cid;
		return e;
	}
};

} // namespace

/* Two submission queues share a completion queue: the first is direct. */
TEST_F(Edges, E5_two_submission_queues_of_one_completion_queue)
{
	up(3, 16);
	/* queue 3's submission queue anew, with completion queue 1 */
	Sqe e = {};

	e.opcode = adm_delete_sq;
	e.cdw10 = 3;
	ASSERT_EQ(g.admin_command(e), 0);
	e = {};
	e.opcode = adm_create_sq;
	e.prp1 = g.page();
	e.cdw10 = 3 | 15u << 16;
	e.cdw11 = 1 | 1u << 16;
	ASSERT_EQ(g.admin_command(e), 0);
	NvmeGuest::Queue &one = g.io[0], three = {.id = 3, .sq = e.prp1, .cq = one.cq, .size = 16, .cq_size = 16};

	std::vector<u16> seen;
	Cqe c = {};

	for (u16 i = 0; i < 20; i++) {
		NvmeGuest::Queue &q = i % 2 ? three : one;

		g.put(q, flush(i));
		g.ring(q);
		a.work();
		a.interrupts();
		while (g.next(one, c)) {
			seen.push_back(c.cid);
			g.ack(one);
		}
	}
	EXPECT_EQ(seen.size(), 20u);
	std::sort(seen.begin(), seen.end());
	EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
}

/* The device has finished, its interrupt is on its way to the host's CPU; then a migration begins. */
TEST_F(Edges, E4_an_interrupt_on_its_way_when_armed)
{
	up(1, 16);
	Cqe c = {};

	g.put(g.io[0], flush(7));
	g.ring(g.io[0]);
	a.work();
	a.signals.clear();
	ASSERT_EQ(rdt_model_stop(a.model), 0);
	rdt_model_arm(a.model, 1);
	ASSERT_EQ(rdt_model_run(a.model, 0), 0);
	a.interrupts();
	EXPECT_EQ(std::count(a.signals.begin(), a.signals.end(), 1u), 1);
	EXPECT_TRUE(g.next(g.io[0], c)) << "there is something to be told of";
}

/* The completion queue is larger than the other, has just gone round twice, and not all is taken. */
TEST_F(Edges, E7_direct_again_at_the_beginning_of_a_lap)
{
	a.reorder = false;
	up(1, 13, 63);
	NvmeGuest::Queue &q = g.io[0];
	Cqe c = {};
	unsigned n = 0, seen = 0;
	const unsigned all = 63 * 2 * 13;

	for (; n < all; n++) {
		g.put(q, flush(static_cast<u16>(n)));
		g.ring(q);
		a.work();
		a.interrupts();
		if (n < all - 3) {
			ASSERT_TRUE(g.next(q, c));
			ASSERT_EQ(c.cid, static_cast<u16>(n));
			g.ack(q);
			seen++;
		}
	}
	ASSERT_EQ(rdt_model_stop(a.model), 0);
	ASSERT_EQ(rdt_model_run(a.model, 1), 0);
	/* Some more, and a stop while the device has them. */
	a.slow = true;
	for (unsigned i = 0; i < 4; i++, n++)
		g.put(q, flush(static_cast<u16>(n)));
	g.ring(q);
	a.slow = false;
	ASSERT_EQ(rdt_model_stop(a.model), 0);
	EXPECT_EQ(a.pending(), 0u);
	ASSERT_EQ(rdt_model_run(a.model, 0), 0);
	for (unsigned i = 0; i < 10; i++) {
		a.work();
		a.interrupts();
		while (g.next(q, c)) {
			EXPECT_EQ(c.cid, static_cast<u16>(seen));
			EXPECT_EQ(c.status >> 1, 0) << seen;
			seen++;
			g.ack(q);
		}
	}
	EXPECT_EQ(seen, n);
}

/* A state whose controller is ready, and not enabled. */
TEST_F(Edges, E8_ready_but_not_enabled)
{
	up(2, 16);
	std::vector<u8> state(rdt_model_state_max(a.model));

	ASSERT_EQ(rdt_model_stop(a.model), 0);
	const long n = rdt_model_save(a.model, state.data(), state.size());

	ASSERT_GT(n, 0);
	/* Head: magic, version, bytes, cap, asq, acq, shadow, event, flags, reserved, vs, cc */
	u32 cc;

	std::memcpy(&cc, &state[68], 4);
	ASSERT_EQ(cc & 1, 1u);
	cc = 0;
	std::memcpy(&state[68], &cc, 4);
	if (rdt_model_load(b.model, state.data(), static_cast<u64>(n)) == 0) {
		g.w = &b;
		ASSERT_EQ(rdt_model_run(b.model, 0), 0);
		g.write(reg_cc, 6 << 16 | 4 << 20 | 1);
		g.write(reg_cc, 6 << 16 | 4 << 20);
	}
	b.destroy();
	EXPECT_EQ(b.private_bytes(), 0u) << "the host: WARN in rdt_window_close()";
}
