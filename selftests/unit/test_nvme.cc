// SPDX-License-Identifier: GPL-2.0
/* E2, E4, E5: the NVMe model between a guest and a device, while nothing goes wrong. */
#include <gtest/gtest.h>

#include "nvme_world.h"

using namespace redoubt::dma::nvme;

namespace {

struct Fixture : testing::TestWithParam<unsigned> {
	GuestMemory memory;
	NvmeDisk disk;
	NvmeWorld w{memory, disk};
	NvmeGuest g{memory, w};

	void SetUp() override
	{
		w.direct = GetParam() & way_direct;
		g.shadow = GetParam() & way_shadow;
	}
	void up(unsigned queues = 2, u32 entries = 64)
	{
		ASSERT_TRUE(w.create()) << w.why;
		ASSERT_TRUE(g.enable());
		ASSERT_TRUE(g.make_queues(queues, entries));
	}
	void TearDown() override
	{
		EXPECT_EQ(w.faults, 0u);
		EXPECT_EQ(w.trespass, 0u);
		w.destroy();
		EXPECT_EQ(w.private_bytes(), 0u);
	}
	u8 *at(u64 gpa)
	{
		return memory.bytes.data() + gpa;
	}
	/* A read or write of whole blocks at any 4-byte boundary of fresh guest memory. */
	Sqe rw(u8 opcode, u64 lba, u32 blocks, u64 gpa)
	{
		Sqe e = {};
		const u64 len = static_cast<u64>(blocks) << disk.lba_shift, end = gpa + len;
		const u64 second = (gpa / 4096 + 1) * 4096;

		e.opcode = opcode;
		e.cid = ++cid;
		e.nsid = 1;
		e.prp1 = gpa;
		e.cdw10 = static_cast<u32>(lba);
		e.cdw12 = blocks - 1;
		if (end > second + 4096) {
			/* near the end of a page, so that long lists go on in another */
			u64 list = g.page() + list_offset;

			e.prp2 = list;
			for (u64 p = second; p < end; p += 4096) {
				if (list % 4096 == 4088 && p + 4096 < end) {
					const u64 more = g.page();

					std::memcpy(at(list), &more, 8);
					list = more;
				}
				std::memcpy(at(list), &p, 8);
				list += 8;
			}
		} else if (end > second) {
			e.prp2 = second;
		}
		return e;
	}
	u16 cid = 0x100;
	u64 list_offset = 0;
};

} // namespace

/* Some devices do not interrupt again before they have been told how far the guest has come. */
TEST_P(Fixture, E4_no_interrupt_is_lost)
{
	w.strict = true;
	w.reorder = false;
	up();
	auto &q = g.io[0];
	Sqe e = {};
	Cqe c = {};

	e.opcode = nvm_write_zeroes;
	e.nsid = 1;
	for (unsigned turn = 0; turn < 40; turn++) {
		for (u16 i = 0; i < 5; i++) {
			e.cid = i;
			g.put(q, e);
		}
		g.ring(q);
		for (unsigned seen = 0; seen < 5;) {
			w.signals.clear();
			ASSERT_NE(w.work(1 + turn % 3), 0u);
			w.interrupts();
			if (w.signals.empty()) {
				EXPECT_TRUE(w.later()) << turn;
				w.interrupts();
			}
			ASSERT_NE(std::count(w.signals.begin(), w.signals.end(), q.id), 0) << turn << ": nobody tells the guest";
			for (; g.next(q, c); seen++)
				EXPECT_EQ(c.cid, seen);
			g.ack(q);
		}
	}
}

TEST_P(Fixture, E7_what_cannot_be_carried_on_is_hidden)
{
	w.cap = ~0ull & ~(15ull << 48);
	w.sgls = ~0u;
	up();
	const u64 cap = g.read(reg_cap);

	EXPECT_EQ(cap_mpsmin(cap), 0u);
	EXPECT_EQ(cap >> 38, 0u) << "memory buffers, other page sizes, command sets";
	EXPECT_EQ(cap_dstrd(cap), 0u);
	EXPECT_TRUE(cap & cap_cqr);

	Sqe e = {};

	e.opcode = adm_identify;
	e.prp1 = g.page();
	e.cdw10 = cns_ctrl;
	ASSERT_EQ(g.admin_command(e), 0);
	const u8 *id = at(e.prp1);

	EXPECT_EQ(id[idc_oacs], 0);
	EXPECT_EQ(id[idc_oacs + 1], 1) << "doorbell buffers are the model's own";
	EXPECT_EQ(id[idc_mdts], 8);
	EXPECT_EQ(id[idc_hmpre] | id[idc_kas] | id[idc_fuses] | id[idc_ctratt], 0);
	EXPECT_EQ(le32(id + idc_sgls), 0u) << "of a kind that nobody knows";
	EXPECT_EQ(std::memcmp(id + idc_model, "software", 8), 0);
	/* and what was hidden does not reach the device, which would abort */
	for (const u32 op : {0x0d, 0x10, 0x11, 0x14, 0x15, 0x18, 0x19, 0x1a, 0x1c, 0x1d, 0x80, 0x81, 0x82, 0x84, 0x86, 0xc0}) {
		e.opcode = static_cast<u8>(op);
		EXPECT_EQ(g.admin_command(e), sc_invalid_opcode | sc_dnr) << op;
	}
	for (const u32 op : {0x0d, 0x0e, 0x11, 0x15, 0x79, 0x7d, 0x80}) {
		e.opcode = static_cast<u8>(op);
		if (!w.direct) /* then they are the device's to answer */
			EXPECT_EQ(g.io_command(0, e), sc_invalid_opcode | sc_dnr) << op;
	}
}

/* Once straight into the guest's memory, once by way of private pages. */
struct Armed : Fixture {
	void go(unsigned queues)
	{
		up(queues);
		if (!armed())
			return;
		ASSERT_EQ(rdt_model_stop(w.model), 0);
		rdt_model_arm(w.model, 1);
		ASSERT_EQ(rdt_model_run(w.model, 0), 0);
	}
	static bool armed()
	{
		return GetParam() & way_armed;
	}
	u64 bounced()
	{
		rdt_model_stats s = {};

		rdt_model_get_stats(w.model, &s);
		return s.bounced;
	}
};
INSTANTIATE_TEST_SUITE_P(Nvme, Fixture, testing::Range(0u, way_armed));
INSTANTIATE_TEST_SUITE_P(Nvme, Armed, testing::Range(0u, 2 * way_armed));

TEST_P(Armed, E2_data_of_every_length_and_place)
{
	for (const u32 blocks : {1u, 2u, 7u, 8u, 9u, 16u, 17u, 63u, 64u, 255u}) {
		for (const u32 off : {0u, 4u, 512u, 3584u, 4092u}) {
			g.forget();
			go(2);
			const u64 len = blocks * 512ull, from = g.page(36) + off, to = g.page(36) + 4096 + off;

			list_offset = blocks == 64 ? 4096 - 8 * 3 : 0;
			for (u64 i = 0; i < len; i++)
				*at(from + i) = static_cast<u8>(w.rng());
			*at(to - 1) = *at(to + len) = 0x77;
			memory.dirty.clear();
			const u64 before = bounced();

			ASSERT_EQ(g.io_command(0, rw(nvm_write, 100, blocks, from)), 0) << blocks << " " << off;
			ASSERT_EQ(std::memcmp(disk.data.data() + 51200, at(from), len), 0);
			ASSERT_EQ(g.io_command(1, rw(nvm_read, 100, blocks, to)), 0) << blocks << " " << off;
			ASSERT_EQ(std::memcmp(at(to), at(from), len), 0) << blocks << " " << off;
			EXPECT_EQ(*at(to - 1), 0x77);
			EXPECT_EQ(*at(to + len), 0x77);
			EXPECT_EQ(g.io_command(0, rw(nvm_compare, 100, blocks, to)), 0);
			for (u64 p = to / 4096; armed() && p <= (to + len - 1) / 4096; p++)
				EXPECT_TRUE(memory.dirty.count(p)) << "E3: the migration knows it";
			EXPECT_FALSE(memory.dirty.count(from / 4096));
			EXPECT_EQ(bounced() != before, armed());
			w.destroy();
		}
	}
}

TEST_P(Armed, E2_metadata)
{
	disk.meta = 8;
	go(1);
	for (const u32 blocks : {1u, 32u, 1024u}) {
		const u64 from = g.page(130), to = g.page(130), meta = g.page(3), back = g.page(3);
		Sqe e = rw(nvm_write, 10, blocks, from);

		for (u32 i = 0; i < blocks * 8; i++)
			*at(meta + i) = static_cast<u8>(i * 7);
		e.mptr = meta;
		ASSERT_EQ(g.io_command(0, e), 0);
		e = rw(nvm_read, 10, blocks, to);
		e.mptr = back;
		ASSERT_EQ(g.io_command(0, e), 0);
		EXPECT_EQ(std::memcmp(at(meta), at(back), blocks * 8), 0);
	}
}

/* A guest's queue longer than it takes, more commands than the device's ring has, a small CQ. */
TEST_P(Fixture, E5_each_command_once_however_deep)
{
	w.cap = (w.cap & ~0xffffull) | 15; /* 16 entries a queue */
	ASSERT_TRUE(w.create());
	ASSERT_TRUE(g.enable());
	ASSERT_TRUE(g.make_queues(4, 16));
	std::map<std::pair<u16, u16>, unsigned> seen;
	unsigned sent = 0, done = 0;

	for (unsigned turn = 0; turn < 2000; turn++) {
		auto &q = g.io[w.rng() % 4];

		for (unsigned n = w.rng() % 16; n != 0 && (q.tail + 1) % 16 != q.sq_head; n--) {
			Sqe e = rw(nvm_write_zeroes, w.rng() % 1000, 1, 0);

			seen[{q.id, e.cid}] = 0;
			g.put(q, e);
			sent++;
		}
		g.ring(q);
		w.work(static_cast<unsigned>(w.rng() % 9));
		w.interrupts();
		auto &r = g.io[w.rng() % 4];
		Cqe c;

		for (unsigned n = w.rng() % 16; n != 0 && g.next(r, c); n--, done++)
			EXPECT_EQ((seen[{r.id, c.cid}]++), 0u);
		g.ack(r);
	}
	for (unsigned turn = 0; turn < 200; turn++) {
		w.work();
		w.interrupts();
		for (auto &r : g.io) {
			Cqe c;

			for (; g.next(r, c); done++)
				EXPECT_EQ((seen[{r.id, c.cid}]++), 0u);
			g.ack(r);
		}
	}
	EXPECT_EQ(done, sent);
	EXPECT_GT(sent, 2000u);
	for (const auto &[id, n] : seen)
		EXPECT_EQ(n, 1u);
}

TEST_P(Fixture, E9_the_counts_that_the_operator_is_told)
{
	const auto stats = [this] {
		rdt_model_stats s = {};

		rdt_model_get_stats(w.model, &s);
		return s;
	};

	up(3);
	const auto before = stats();

	EXPECT_EQ(before.queues, 4u) << "the admin queue is one";
	EXPECT_EQ(before.inflight, 0u);
	for (unsigned i = 0; i < 5; i++)
		g.put(g.io[1], rw(nvm_write, i, 1, g.page()));
	g.ring(g.io[1]);
	EXPECT_EQ(stats().inflight, w.direct ? 0u : 5u) << "with queues of its own the device tells nobody";
	EXPECT_EQ(stats().commands, before.commands + 5);
	w.work(3);
	w.interrupts();
	EXPECT_EQ(stats().inflight, w.direct ? 0u : 2u);
	EXPECT_EQ(stats().bounced, before.bounced);
	EXPECT_EQ(stats().refused, before.refused);
	ASSERT_EQ(rdt_model_stop(w.model), 0);
	EXPECT_EQ(stats().drained, 2u) << "whoever has told of them";
	EXPECT_EQ(stats().inflight, 0u);
}

TEST_P(Fixture, E4_a_signal_for_the_queues_that_have_news)
{
	up(3);
	w.signals.clear();
	g.io_command(1, rw(nvm_write_zeroes, 0, 1, 0));
	EXPECT_EQ(w.signals, std::vector<u32>{2});
}

TEST_P(Fixture, events_come_when_they_happen_and_there_is_room)
{
	up();
	Sqe e = {};
	Cqe c = {};

	e.opcode = adm_async_event;
	for (u16 i = 0; i < 4; i++) {
		e.cid = static_cast<u16>(0xae00 + i);
		g.put(g.admin, e);
	}
	g.ring(g.admin);
	EXPECT_EQ(w.aers(), 4u);
	EXPECT_FALSE(g.next(g.admin, c));
	e.cid = 0xaeff;
	g.put(g.admin, e);
	g.ring(g.admin);
	ASSERT_TRUE(g.next(g.admin, c));
	EXPECT_EQ(c.status >> 1, sc_too_many_aers | sc_dnr);
	w.notice(0x000402);
	w.interrupts();
	ASSERT_TRUE(g.next(g.admin, c));
	EXPECT_EQ(c.cid, 0xae00);
	EXPECT_EQ(c.dw0, 0x000402u);
	g.ack(g.admin);
}

TEST_P(Fixture, queues_are_deleted_with_commands_in_them)
{
	up();
	for (unsigned i = 0; i < 5; i++)
		g.put(g.io[0], rw(nvm_write_zeroes, i, 1, 0));
	g.ring(g.io[0]);
	w.work(2);
	Sqe e = {};

	e.cdw10 = 1;
	e.opcode = adm_delete_cq;
	EXPECT_EQ(g.admin_command(e), sc_invalid_delete | sc_dnr);
	e.opcode = adm_delete_sq;
	EXPECT_EQ(g.admin_command(e), 0);
	e.opcode = adm_delete_cq;
	EXPECT_EQ(g.admin_command(e), 0);
	EXPECT_EQ(g.admin_command(e), sc_invalid_qid | sc_dnr);
	EXPECT_EQ(g.io_command(1, rw(nvm_write_zeroes, 0, 1, 0)), 0) << "the other goes on";
}

TEST_P(Fixture, the_guest_resets_its_controller_in_the_middle)
{
	up();
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 20; i++)
			g.put(g.io[0], rw(nvm_write_zeroes, i, 1, 0));
		g.ring(g.io[0]);
		w.work(7);
		g.disable();
		EXPECT_EQ(g.read(reg_csts, 4), 0u);
		EXPECT_EQ(w.private_bytes(), 0u);
		ASSERT_TRUE(g.enable());
		ASSERT_TRUE(g.make_queues(2));
		EXPECT_EQ(g.io_command(0, rw(nvm_write_zeroes, 0, 1, 0)), 0);
	}
}

TEST_P(Fixture, a_device_that_is_gone_is_told)
{
	up();
	w.gone = true;
	EXPECT_TRUE(g.read(reg_csts, 4) & csts_cfs);
	w.gone = false;
}

TEST_P(Fixture, without_memory_it_says_so_and_goes_on)
{
	for (unsigned n = 1; n < 40; n++) {
		ASSERT_TRUE(w.create());
		w.fail_alloc_in = n;
		const bool enabled = g.enable();
		const bool queues = enabled && g.make_queues(2);

		w.fail_alloc_in = 0;
		if (enabled && !queues) {
			g.disable();
			g.forget();
			ASSERT_TRUE(g.enable());
			ASSERT_TRUE(g.make_queues(2));
		} else if (!enabled) {
			g.disable();
			g.forget();
			ASSERT_TRUE(g.enable()) << "a later try works";
			ASSERT_TRUE(g.make_queues(2));
		}
		EXPECT_EQ(g.io_command(0, rw(nvm_write_zeroes, 0, 1, 0)), 0);
		w.destroy();
		EXPECT_EQ(w.private_bytes(), 0u);
		g.forget();
	}
}

TEST(Nvme, what_has_no_model)
{
	GuestMemory memory;
	NvmeDisk disk;

	for (const u64 cap : {~0ull, 255ull, 1ull << 37, 255 | 1ull << 37 | 1ull << 48}) {
		NvmeWorld w(memory, disk);

		w.cap = cap;
		EXPECT_FALSE(w.create());
		EXPECT_NE(w.why, nullptr);
	}
}
