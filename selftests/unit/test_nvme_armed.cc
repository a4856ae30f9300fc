// SPDX-License-Identifier: GPL-2.0
/* E2, E5, E7: what guests do with a controller now and then, and do while it is about to move, too. */
#include "nvme_lists.h"

namespace {

/* Lists are of PRPs here. */
struct Busy : Lists {
	Sqe rw(u8 opcode, u64 lba, u32 blocks, u64 gpa, u64 second = 0)
	{
		Sqe e = command(opcode, lba, blocks, {});

		e.flags = 0;
		e.prp1 = gpa;
		e.prp2 = second;
		return e;
	}
	void TearDown() override
	{
		EXPECT_EQ(a.faults + b.faults, 0u);
		Lists::TearDown();
	}
};

INSTANTIATE_TEST_SUITE_P(Nvme, Busy, testing::Range(0u, 2 * way_shows));

} // namespace

TEST_P(Busy, E5_all_the_queues_there_are)
{
	constexpr u32 queues = 64, each = 3;

	up(8, queues);
	for (unsigned round = 0; round < 3; round++) {
		memory.dirty.clear();
		for (u32 i = 0; i < queues * each; i++) {
			const u64 page = data + i * 4096ull;

			std::memset(at(page), static_cast<int>(i + round), 512);
			g.put(g.io[i % queues], rw(i % 3 ? nvm_read : nvm_write, i, 1, page));
			if (i >= queues * (each - 1))
				g.ring(g.io[i % queues]);
		}
		g.w->work(queues);
		move();
		for (unsigned i = 0; i < 10; i++) {
			g.w->work();
			g.w->interrupts();
		}
		for (auto &q : g.io) {
			NvmeGuest::Cqe c = {};
			unsigned done = 0;

			for (; g.next(q, c); done++)
				EXPECT_EQ(c.status >> 1, 0);
			g.ack(q);
			EXPECT_EQ(done, each) << q.id;
		}
		for (u32 i = 0; i < queues * each; i++) {
			EXPECT_EQ(std::memcmp(at(data + i * 4096ull), disk.data.data() + i * 512, 512), 0) << i;
			if (i % 3 == 0)
				EXPECT_EQ(disk.data[i * 512], static_cast<u8>(i + round));
		}
	}
}

/* Whose queues have no interrupts looks for completions by itself, and is not disturbed. */
TEST_P(Busy, E4_a_guest_that_polls)
{
	g.polled = true;
	up();
	for (unsigned round = 0; round < 4; round++) {
		g.w->signals.clear();
		for (unsigned i = 0; i < 100; i++) {
			EXPECT_EQ(status_of(rw(nvm_read, i, 1, data)), 0);
			EXPECT_EQ(std::memcmp(at(data), disk.data.data() + i * 512, 512), 0);
		}
		EXPECT_EQ(std::count_if(g.w->signals.begin(), g.w->signals.end(), [](u32 v) { return v != 0; }), 0);
		move();
	}
}

/* What the model knew of a namespace's format is wrong from the moment that the device has told of a change. */
TEST_P(Busy, E2_a_namespace_is_formatted_meanwhile)
{
	up();
	Sqe e = {};
	NvmeGuest::Cqe c = {};

	e.opcode = adm_async_event;
	e.cid = 0xae;
	g.put(g.admin, e);
	g.ring(g.admin);
	ASSERT_EQ(status_of(rw(nvm_read, 0, 1, data)), 0);
	disk.lba_shift = 12;
	disk.meta = 8;
	a.notice(0x040002);
	a.interrupts();
	ASSERT_TRUE(g.next(g.admin, c));
	EXPECT_EQ(c.cid, 0xae);
	g.ack(g.admin);

	const u64 meta = g.page();

	for (u32 i = 0; i < 4096; i++)
		*at(data + 2048 + i) = static_cast<u8>(a.rng());
	std::memset(at(meta), 0x3e, 8);
	e = rw(nvm_write, 5, 1, data + 2048, data + 4096);
	e.mptr = meta;
	ASSERT_EQ(status_of(e), 0);
	EXPECT_EQ(std::memcmp(disk.data.data() + 5 * 4096, at(data + 2048), 4096), 0);
	EXPECT_EQ(std::count(disk.metadata.begin() + 40, disk.metadata.begin() + 48, 0x3e), 8);
	const auto should = buffers();

	std::memset(at(data + 2048), 0, 4096);
	memory.dirty.clear();
	e.opcode = nvm_read;
	ASSERT_EQ(status_of(e), 0);
	if (GetParam() & way_armed)
		expect_data(should, {{data + 2048, 4096}}, "read");
	move();
	std::memset(at(data + 2048), 0, 4096);
	ASSERT_EQ(status_of(e), 0);
	EXPECT_EQ(std::memcmp(disk.data.data() + 5 * 4096, at(data + 2048), 4096), 0);
}

TEST_P(Busy, E2_metadata_between_the_blocks)
{
	disk.meta = 8;
	disk.extended = true;
	up();
	/* Nine blocks of 520 bytes: in two pages, or in three */
	for (const u64 off : {0u, 4000u}) {
		const u64 from = data + off, to = data + 0x10000 + off;
		const auto list_of = [&](u64 gpa) {
			const u64 second = (gpa / 4096 + 1) * 4096, more = g.page();
			const u64 pages[] = {second, second + 4096};

			std::memcpy(at(more), pages, 16);
			return gpa + 9 * 520 > second + 4096 ? more : second;
		};

		fill();
		ASSERT_EQ(status_of(rw(nvm_write, 10, 9, from, list_of(from))), 0);
		EXPECT_EQ(std::memcmp(disk.data.data() + 10 * 512, at(from), 512), 0);
		EXPECT_EQ(std::memcmp(disk.metadata.data() + 10 * 8, at(from + 512), 8), 0);
		EXPECT_EQ(std::memcmp(disk.metadata.data() + 18 * 8, at(from + 9 * 520 - 8), 8), 0);
		memory.dirty.clear();
		auto should = buffers();

		std::copy_n(at(from), 9 * 520, should.begin() + static_cast<long>(to - data));
		ASSERT_EQ(status_of(rw(nvm_read, 10, 9, to, list_of(to))), 0);
		EXPECT_EQ(std::memcmp(should.data(), at(data), data_bytes), 0);
		if (GetParam() & way_armed)
			expect_data(should, {{to, 9 * 520}}, "read");
	}
}

/* A megabyte at no page's begin has 256 entries; their list begins at a page's end and goes on in another. */
TEST_P(Busy, E2_lists_of_pages_that_go_on_elsewhere)
{
	up();
	fill();
	for (const u64 in_first : {1u, 2u, 3u, 255u}) {
		const u64 from = data + 4, to = data + (1 << 20) + 8192 + 4092;
		const auto list_of = [&](u64 gpa) {
			const u64 list = g.page() + 4096 - 8 * in_first, more = g.page();
			u64 at_entry = list;

			for (u64 i = 1; i <= 256; i++) {
				const u64 page = (gpa / 4096 + i) * 4096;

				if (at_entry == list + 8 * (in_first - 1) && i != 256) {
					std::memcpy(at(at_entry), &more, 8);
					at_entry = more;
				}
				std::memcpy(at(at_entry), &page, 8);
				at_entry += 8;
			}
			return list;
		};

		*at(from + 7 * in_first) ^= 0xff;
		ASSERT_EQ(status_of(rw(nvm_write, 100, 2048, from, list_of(from))), 0) << in_first;
		ASSERT_EQ(std::memcmp(disk.data.data() + 51200, at(from), 1 << 20), 0) << in_first;
		memory.dirty.clear();
		ASSERT_EQ(status_of(rw(nvm_read, 100, 2048, to, list_of(to))), 0) << in_first;
		ASSERT_EQ(std::memcmp(at(to), at(from), 1 << 20), 0) << in_first;
		if (GetParam() & way_armed)
			expect_data(buffers(), {{to, 1 << 20}}, "read");
	}
}

/* As kexec does, or a driver whose commands take too long: queues are not deleted, the controller is begun anew. */
TEST_P(Busy, E5_another_driver_takes_over)
{
	up();
	for (unsigned round = 1; round < 6; round++) {
		for (u16 i = 0; i < 10; i++)
			g.put(g.io[i % 2], rw(nvm_read, i, 1, data + i * 4096));
		g.put(g.io[1], command(nvm_read, 77, 1, desc(sgl_data, data + 0x20000, 512)));
		g.ring(g.io[0]);
		g.ring(g.io[1]);
		g.w->work(3);
		g.disable();
		EXPECT_EQ(g.read(reg_csts, 4), 0u);
		EXPECT_EQ(g.w->private_bytes(), 0u);
		memory.dirty.clear();
		const auto before = memory.bytes;

		g.w->work();
		g.w->interrupts();
		EXPECT_TRUE(before == memory.bytes) << "nobody is there to be written to";
		EXPECT_TRUE(memory.dirty.empty());
		ASSERT_TRUE(g.enable(16));
		ASSERT_TRUE(g.make_queues(round, 8 << round % 3));
		for (unsigned q = 0; q < round; q++) {
			memory.dirty.clear();
			std::memset(at(data), static_cast<int>(0x40 + q + round), 512);
			ASSERT_EQ(g.io_command(q, rw(nvm_write, q, 1, data)), 0);
			ASSERT_EQ(g.io_command(q, rw(nvm_read, q, 1, data + 4096)), 0);
			EXPECT_EQ(*at(data + 4096), 0x40 + q + round);
			if (GetParam() & way_armed)
				EXPECT_TRUE(memory.dirty.count(data / 4096 + 1));
		}
		if (round % 2 == 0) {
			move();
			if (GetParam() & way_armed)
				arm();
			EXPECT_EQ(g.io_command(0, rw(nvm_read, 1, 1, data)), 0);
			EXPECT_EQ(*at(data), 0x41 + round);
		}
		while (g.io.size() < 2) {
			g.disable();
			ASSERT_TRUE(g.enable());
			ASSERT_TRUE(g.make_queues(2));
		}
	}
}

/* Requests for events are of the controller where the guest is, wherever they were made. */
TEST_P(Busy, E7_events_after_moves)
{
	up();
	Sqe e = {};
	NvmeGuest::Cqe c = {};
	std::set<u16> seen;

	e.opcode = adm_async_event;
	for (u16 i = 0; i < 4; i++) {
		e.cid = static_cast<u16>(0xae00 + i);
		g.put(g.admin, e);
	}
	g.ring(g.admin);
	for (u32 i = 0; i < 4; i++) {
		EXPECT_EQ(g.w->aers(), 4 - i);
		EXPECT_FALSE(g.next(g.admin, c));
		move();
		EXPECT_EQ(g.w->aers(), 4 - i);
		if (GetParam() & way_armed)
			arm();
		g.w->notice(0x2 | i << 8);
		g.w->interrupts();
		ASSERT_TRUE(g.next(g.admin, c));
		g.ack(g.admin);
		EXPECT_EQ(c.dw0, 0x2 | i << 8);
		EXPECT_TRUE(seen.insert(c.cid).second);
	}
}
