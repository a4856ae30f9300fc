// SPDX-License-Identifier: GPL-2.0
/* E5, E7, E8: an NVMe controller's state goes to another controller, or is refused there. */
#include <algorithm>

#include <gtest/gtest.h>

#include "nvme_world.h"

using namespace redoubt::dma::nvme;

namespace {

struct Pair : testing::TestWithParam<unsigned> {
	GuestMemory memory;
	NvmeDisk disk;
	NvmeWorld a{memory, disk}, b{memory, disk};
	NvmeGuest g{memory, a};
	std::vector<u8> state;

	void SetUp() override
	{
		a.direct = b.direct = GetParam() & way_direct;
		g.shadow = GetParam() & way_shadow;
	}
	void up(unsigned queues = 2, u32 entries = 64, u32 cq_entries = 0)
	{
		b.serial = "two";
		ASSERT_TRUE(a.create());
		ASSERT_TRUE(b.create());
		ASSERT_TRUE(g.enable());
		ASSERT_TRUE(g.make_queues(queues, entries, cq_entries));
	}
	void TearDown() override
	{
		a.destroy();
		b.destroy();
		EXPECT_EQ(a.private_bytes() + b.private_bytes(), 0u);
		EXPECT_EQ(a.faults + b.faults + a.trespass + b.trespass, 0u);
	}
	NvmeWorld &other()
	{
		return g.w == &a ? b : a;
	}
	/* 0, or where and why it ended; the source is stopped then. */
	int save()
	{
		state.resize(rdt_model_state_max(g.w->model));
		if (const int err = rdt_model_stop(g.w->model))
			return err;
		const long n = rdt_model_save(g.w->model, state.data(), state.size());

		if (n < 0)
			return static_cast<int>(n);
		state.resize(static_cast<std::size_t>(n));
		return 0;
	}
	int load()
	{
		return rdt_model_load(other().model, state.data(), state.size());
	}
	void go_on()
	{
		NvmeWorld &old = *g.w;

		g.w = &other();
		ASSERT_EQ(rdt_model_run(g.w->model, 1), 0);
		old.function_reset();
	}
	void move()
	{
		ASSERT_EQ(save(), 0) << g.w->log.back();
		ASSERT_EQ(load(), 0) << other().log.back();
		go_on();
	}
	u16 command(unsigned q, u8 opcode, u64 lba, u64 gpa)
	{
		Sqe e = {};

		e.opcode = opcode;
		e.nsid = 1;
		e.prp1 = gpa;
		e.cdw10 = static_cast<u32>(lba);
		return g.io_command(q, e);
	}
};

} // namespace

INSTANTIATE_TEST_SUITE_P(Nvme, Pair, testing::Range(0u, way_armed));

TEST_P(Pair, E7_there_and_back_at_rest)
{
	up();
	const u64 page = g.page(), id = g.page();
	Sqe e = {};

	for (unsigned i = 0; i < 6; i++) {
		memory.bytes[page] = static_cast<u8>(i + 1);
		EXPECT_EQ(command(i % 2, nvm_write, i, page), 0);
		move();
		EXPECT_EQ(g.read(reg_csts, 4), 1u);
		memory.bytes[page] = 0;
		EXPECT_EQ(command(i % 2, nvm_read, i, page), 0);
		EXPECT_EQ(memory.bytes[page], i + 1);
		e.opcode = adm_identify;
		e.prp1 = id;
		e.cdw10 = cns_ctrl;
		EXPECT_EQ(g.admin_command(e), 0);
		EXPECT_EQ(std::memcmp(&memory.bytes[id + idc_serial], "one", 3), 0) << "it is still the one it was";
	}
}

TEST_P(Pair, E7_features_and_event_requests_go_along)
{
	up();
	Sqe e = {};
	Cqe c = {};
	u32 dw0 = 0;

	e.opcode = adm_set_features;
	e.cdw10 = feat_async_events;
	e.cdw11 = 0x11f;
	EXPECT_EQ(g.admin_command(e), 0);
	e.cdw11 = 0x100;
	EXPECT_EQ(g.admin_command(e), 0);
	e = {};
	e.opcode = adm_async_event;
	for (u16 i = 0; i < 3; i++) {
		e.cid = static_cast<u16>(0xae00 + i);
		g.put(g.admin, e);
	}
	g.ring(g.admin);
	EXPECT_EQ(a.aers(), 3u);
	/* One comes while the device is stopped: it is told on the other side. */
	ASSERT_EQ(rdt_model_stop(a.model), 0);
	a.notice(0x402);
	a.interrupts();
	EXPECT_FALSE(g.next(g.admin, c));
	move();
	EXPECT_EQ(b.aers(), 2u);
	EXPECT_EQ(b.features[feat_async_events], 0x100u);
	ASSERT_TRUE(g.next(g.admin, c));
	EXPECT_EQ(c.dw0, 0x402u);
	g.ack(g.admin);
	b.notice(0x1);
	b.interrupts();
	ASSERT_TRUE(g.next(g.admin, c));
	EXPECT_EQ(c.cid & 0xff00, 0xae00);
	g.ack(g.admin);
	e.opcode = adm_get_features;
	e.cdw10 = feat_async_events;
	EXPECT_EQ(g.admin_command(e, &dw0), 0);
	EXPECT_EQ(dw0, 0x100u);
}

TEST_P(Pair, E7_before_the_guest_has_a_driver)
{
	b.serial = "two";
	ASSERT_TRUE(a.create());
	ASSERT_TRUE(b.create());
	move();
	ASSERT_TRUE(g.enable());
	ASSERT_TRUE(g.make_queues(2));
	EXPECT_EQ(command(0, nvm_write, 0, g.page()), 0);
}

/* The memory of its queues may be anything by then. */
TEST_P(Pair, E7_shut_down_nothing_is_written_to_the_guest)
{
	for (const bool moved : {false, true}) {
		g.forget();
		up();
		Sqe e = {};

		e.opcode = nvm_read;
		e.nsid = 1;
		for (u16 i = 0; i < 8; i++) {
			e.cid = i;
			e.prp1 = g.page();
			g.put(g.io[0], e);
		}
		e.opcode = adm_async_event;
		g.put(g.admin, e);
		g.ring(g.admin);
		g.ring(g.io[0]);
		a.deaf = true; /* they are not finished when the shutdown is */
		g.write(reg_cc, 6 << 16 | 4 << 20 | 1 | 1 << 14);
		a.deaf = false;
		EXPECT_EQ(g.read(reg_csts, 4) & csts_shst, csts_shst_done);
		const std::vector<u8> before = memory.bytes;

		a.notice(1);
		a.work();
		a.interrupts();
		if (moved)
			move();
		EXPECT_EQ(g.read(reg_csts, 4) & csts_shst, csts_shst_done);
		g.ring(g.io[0]);
		g.w->work();
		g.w->interrupts();
		EXPECT_TRUE(memory.bytes == before);
		g.disable();
		EXPECT_EQ(g.read(reg_csts, 4), 0u);
		g.forget();
		ASSERT_TRUE(g.enable());
		ASSERT_TRUE(g.make_queues(2));
		EXPECT_EQ(command(0, nvm_write, 0, g.page()), 0);
		a.destroy();
		b.destroy();
	}
}

/* Loads of commands in all queues, and the VM moves now and then: each is done once, and the data are right. */
TEST_P(Pair, E5_E9_moves_under_load)
{
	struct Op {
		bool write;
		u64 lba, gpa;
		u8 tag;
	};
	up(4, 32);
	std::map<std::pair<u16, u16>, Op> under_way;
	std::vector<u8> disk_should(1000);
	std::set<u64> busy;
	std::vector<u64> pages;
	unsigned done = 0, moves = 0;
	u16 cid = 0;

	for (unsigned i = 0; i < 128; i++)
		pages.push_back(g.page());
	for (unsigned turn = 0; turn < 6000; turn++) {
		NvmeWorld &w = *g.w;
		auto &q = g.io[w.rng() % 4];

		for (unsigned n = w.rng() % 8; n != 0 && (q.tail + 1u) % q.size != q.sq_head && !pages.empty(); n--) {
			Op op = {w.rng() % 2 == 0, w.rng() % 1000, pages.back(), static_cast<u8>(w.rng())};

			if (busy.count(op.lba))
				continue;
			pages.pop_back();
			busy.insert(op.lba);
			Sqe e = {};

			e.opcode = op.write ? nvm_write : nvm_read;
			e.cid = ++cid;
			e.nsid = 1;
			e.prp1 = op.gpa;
			e.cdw10 = static_cast<u32>(op.lba);
			std::memset(&memory.bytes[op.gpa], op.write ? op.tag : 0xee, 512);
			if (op.write)
				disk_should[op.lba] = op.tag;
			under_way[{q.id, e.cid}] = op;
			g.put(q, e);
		}
		if (w.rng() % 4 != 0)
			g.ring(q);
		w.work(static_cast<unsigned>(w.rng() % 6));
		if (w.rng() % 2)
			w.interrupts();
		auto &r = g.io[w.rng() % 4];
		Cqe c;

		while (g.next(r, c)) {
			const auto it = under_way.find({r.id, c.cid});

			ASSERT_NE(it, under_way.end()) << "a completion too many";
			ASSERT_EQ(c.status >> 1, 0);
			if (!it->second.write) {
				EXPECT_EQ(memory.bytes[it->second.gpa], disk_should[it->second.lba]);
				EXPECT_EQ(memory.bytes[it->second.gpa + 511], disk_should[it->second.lba]);
			}
			busy.erase(it->second.lba);
			pages.push_back(it->second.gpa);
			under_way.erase(it);
			done++;
		}
		g.ack(r);
		if (w.rng() % 40 == 0)
			rdt_model_arm(w.model, w.rng() % 2);
		if (w.rng() % 60 == 0) {
			if (w.rng() % 3 == 0) { /* cancelled */
				ASSERT_EQ(save(), 0);
				ASSERT_EQ(rdt_model_run(w.model, w.rng() % 2), 0);
			} else {
				move();
				moves++;
			}
		}
	}
	for (auto &q : g.io)
		g.ring(q);
	for (unsigned i = 0; i < 200 && !under_way.empty(); i++) {
		g.w->work();
		g.w->interrupts();
		for (auto &q : g.io) {
			Cqe c;

			while (g.next(q, c))
				done += static_cast<unsigned>(under_way.erase({q.id, c.cid}));
			g.ack(q);
		}
	}
	EXPECT_TRUE(under_way.empty());
	EXPECT_EQ(done, a.io_commands + b.io_commands) << "as many as the devices did";
	EXPECT_GT(moves, 20u);
	EXPECT_GT(done, 3000u);
	for (unsigned lba = 0; lba < 1000; lba++)
		EXPECT_EQ(disk.data[lba * 512], disk_should[lba]);
}

/* Wherever the guest is in its rings, and with completions that it has not taken and commands that nobody has. */
TEST_P(Pair, E6_E7_queues_are_direct_again)
{
	const bool direct = GetParam() & way_direct;
	Sqe e = {};
	Cqe c = {};
	u16 cid = 0;

	e.opcode = nvm_write_zeroes;
	e.nsid = 1;
	for (const auto &[entries, cq_entries] : {std::pair{16u, 16u}, {16u, 32u}, {8u, 24u}, {12u, 16u}, {2u, 2u}}) {
		g.forget();
		up(2, entries, cq_entries);
		for (unsigned n = 0; n < 150; n++) {
			auto &q = g.io[0];
			const unsigned many = static_cast<unsigned>(a.rng() % entries);
			const unsigned late = many ? static_cast<unsigned>(a.rng() % many) : 0;
			u16 next = cid;

			for (unsigned i = 0; i < many; i++) {
				e.cid = cid++;
				g.put(q, e);
			}
			g.ring(q);
			g.w->reorder = false;
			g.w->work();
			g.w->interrupts();
			for (unsigned i = 0; i < many - late; i++, next++) {
				ASSERT_TRUE(g.next(q, c));
				ASSERT_EQ(c.cid, next);
			}
			g.ack(q);
			/* One is put in that nobody takes any more. */
			ASSERT_EQ(rdt_model_stop(g.w->model), 0);
			e.cid = cid;
			if (many < entries - 1) {
				g.put(q, e);
				g.ring(q);
				cid++;
			}
			ASSERT_EQ(save(), 0);
			const std::vector<u8> before(memory.bytes.begin() + static_cast<long>(q.sq),
						     memory.bytes.begin() + static_cast<long>(q.cq + q.cq_size * 16));

			ASSERT_EQ(load(), 0);
			NvmeWorld &old = *g.w;

			g.w = &other();
			ASSERT_EQ(rdt_model_run(g.w->model, 1), 0);
			old.function_reset();
			EXPECT_EQ(g.w->is_direct(q.id), direct);
			EXPECT_TRUE(std::equal(before.begin(), before.end(), memory.bytes.begin() + static_cast<long>(q.sq)));
			g.w->reorder = false;
			g.w->work();
			g.w->interrupts();
			while (g.next(q, c)) {
				ASSERT_EQ(c.cid, next++);
				ASSERT_EQ(c.status >> 1, 0);
				g.ack(q);
				g.w->work();
				g.w->interrupts();
			}
			ASSERT_EQ(next, cid);
		}
		EXPECT_EQ(a.flushes + b.flushes != 0, direct);
		a.destroy();
		b.destroy();
	}
}

/* A device that takes too long for it: the rings are as they were, and the model goes on with them. */
TEST_P(Pair, E7_direct_again_does_not_come_about)
{
	up();
	for (unsigned i = 0; i < 5; i++)
		EXPECT_EQ(command(0, nvm_write, i, g.page()), 0);
	ASSERT_EQ(save(), 0);
	ASSERT_EQ(load(), 0);
	const std::vector<u8> before(memory.bytes.begin() + static_cast<long>(g.io[0].sq),
				     memory.bytes.begin() + static_cast<long>(g.io[0].cq + g.io[0].cq_size * 16));

	b.slow = true;
	go_on();
	b.slow = false;
	EXPECT_FALSE(b.is_direct(1));
	EXPECT_TRUE(std::equal(before.begin(), before.end(), memory.bytes.begin() + static_cast<long>(g.io[0].sq)));
	for (unsigned i = 0; i < 100; i++)
		EXPECT_EQ(command(0, nvm_write, i, 0x100000), 0);
	/* Stopped and started, it is tried again. */
	ASSERT_EQ(rdt_model_stop(b.model), 0);
	ASSERT_EQ(rdt_model_run(b.model, 1), 0);
	EXPECT_EQ(b.is_direct(1), bool(GetParam() & way_direct));
	for (unsigned i = 0; i < 100; i++)
		EXPECT_EQ(command(0, nvm_write, i, 0x100000), 0);
}

TEST_P(Pair, E5_stopped_nothing_is_written_to_the_guest)
{
	up();
	Sqe e = {};

	e.opcode = nvm_read;
	e.nsid = 1;
	for (u16 i = 0; i < 20; i++) {
		e.cid = i;
		e.prp1 = g.page();
		g.put(g.io[0], e);
	}
	g.ring(g.io[0]);
	ASSERT_EQ(rdt_model_stop(a.model), 0);
	EXPECT_EQ(a.pending(), 0u);
	e.cid = 99;
	g.put(g.io[1], e);
	g.ring(g.io[1]);
	const std::vector<u8> with_entry = memory.bytes;

	a.notice(1);
	a.work();
	a.interrupts();
	EXPECT_TRUE(memory.bytes == with_entry);
	EXPECT_EQ(rdt_model_run(a.model, 0), 0);
	a.work();
	a.interrupts();
	Cqe c = {};

	ASSERT_TRUE(g.next(g.io[1], c));
	EXPECT_EQ(c.cid, 99);
}

TEST_P(Pair, E8_a_device_that_does_not_finish_keeps_the_guest)
{
	up();
	Sqe e = {};
	Cqe c = {};

	e.opcode = nvm_write_zeroes;
	e.nsid = 1;
	g.put(g.io[0], e);
	g.ring(g.io[0]);
	a.deaf = true;
	EXPECT_EQ(rdt_model_stop(a.model), -110);
	a.deaf = false;
	a.work();
	a.interrupts();
	EXPECT_TRUE(g.next(g.io[0], c));
}

TEST_P(Pair, E8_the_destination_refuses_and_the_source_goes_on)
{
	struct Case {
		const char *says;
		std::function<void(NvmeWorld &)> make;
	};
	NvmeDisk elsewhere;

	elsewhere.nguid[0] = 1;
	const Case cases[] = {
		{"another model", [](NvmeWorld &w) { w.model_name = "hardware"; }},
		{"fewer interrupts", [](NvmeWorld &w) { w.vectors = 2; }},
		{"feature", [](NvmeWorld &w) { w.queues = 1; }},
		{"volatile cache", [](NvmeWorld &w) { w.vwc = 1; }},
	};
	const u64 page = g.page();

	up(2);
	for (const Case &c : cases) {
		NvmeWorld there(memory, disk);

		c.make(there);
		ASSERT_TRUE(there.create());
		ASSERT_EQ(save(), 0);
		EXPECT_EQ(rdt_model_load(there.model, state.data(), state.size()), -18) << c.says;
		ASSERT_FALSE(there.log.empty()) << c.says;
		EXPECT_NE(there.log.back().find(c.says), std::string::npos) << there.log.back();
		EXPECT_EQ(there.private_bytes(), 0u);
		ASSERT_EQ(rdt_model_run(a.model, 0), 0);
		EXPECT_EQ(command(0, nvm_write, 0, page), 0);
	}
	NvmeWorld there(memory, elsewhere);

	ASSERT_TRUE(there.create());
	ASSERT_EQ(save(), 0);
	EXPECT_EQ(rdt_model_load(there.model, state.data(), state.size()), -18);
	EXPECT_NE(there.log.back().find("another namespace"), std::string::npos) << there.log.back();
	ASSERT_EQ(rdt_model_run(a.model, 0), 0);
}

TEST_P(Pair, E7_the_other_has_shorter_queues_and_it_does_not_matter)
{
	b.cap = (b.cap & ~0xffffull) | 7;
	up(2, 64);
	move();
	Sqe e = {};
	Cqe c = {};
	unsigned n = 0;

	e.opcode = nvm_write_zeroes;
	e.nsid = 1;
	for (u16 i = 0; i < 60; i++) {
		e.cid = i;
		g.put(g.io[0], e);
	}
	g.ring(g.io[0]);
	for (unsigned i = 0; i < 60; i++) {
		b.work();
		b.interrupts();
		for (; g.next(g.io[0], c); n++)
			g.ack(g.io[0]);
	}
	EXPECT_EQ(n, 60u);
}

TEST_P(Pair, E8_a_namespace_that_cannot_be_told_from_others_stays)
{
	disk.nguid[0] = disk.nguid[1] = 0;
	up();
	EXPECT_EQ(save(), -18);
	ASSERT_EQ(rdt_model_run(a.model, 0), 0);
	EXPECT_EQ(command(0, nvm_write, 0, g.page()), 0);
}

/* Every length that is not the right one, and every byte another: no crash, and what is taken can run. */
TEST_P(Pair, E8_what_came_over_the_wire_is_not_trusted)
{
	up();
	ASSERT_EQ(save(), 0);
	const std::vector<u8> good = state;

	for (std::size_t n = 0; n < good.size(); n += n < 200 || n > 4100 ? 1 : 100)
		EXPECT_LT(rdt_model_load(b.model, good.data(), n), 0) << n;
	unsigned refused = 0, taken = 0;

	for (std::size_t i = 0; i < good.size(); i++) {
		if (i > 1000 && i < 4150)
			continue;
		for (const u32 x : {0x01u, 0x80u, 0xffu}) {
			state = good;
			state[i] = static_cast<u8>(state[i] ^ x);
			if (load() != 0) {
				refused++;
				continue;
			}
			taken++;
			rdt_model_run(b.model, 0);
			b.function_reset();
		}
	}
	EXPECT_GT(refused, 300u);
	EXPECT_GT(taken, 100u);
	b.faults = b.trespass = 0;
	state = good;
	ASSERT_EQ(load(), 0);
	go_on();
	EXPECT_EQ(command(0, nvm_write, 0, g.page()), 0);
}

/* A feature that the guest could not have set: here host memory that the device is to use. */
TEST_P(Pair, E8_a_feature_that_no_guest_has)
{
	up();
	ASSERT_EQ(save(), 0);
	const struct {
		u32 fid, nsid, cdw11, reserved;
	} queues = {feat_queues, 0, 1 | 1 << 16, 0};
	const auto at = std::search(state.begin(), state.end(), reinterpret_cast<const u8 *>(&queues),
				    reinterpret_cast<const u8 *>(&queues + 1));

	ASSERT_NE(at, state.end());
	*at = 0x0d;
	EXPECT_EQ(load(), -22);
	EXPECT_TRUE(b.features.empty());
	*at = feat_queues;
	EXPECT_EQ(load(), 0);
	go_on();
}
