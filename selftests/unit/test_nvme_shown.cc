// SPDX-License-Identifier: GPL-2.0
/* E1, E4: the other assignment: while the device writes to the guest's own pages its CPUs see a copy of them. */
#include "nvme_lists.h"

namespace {

struct Shown : Lists {
	static constexpr u32 blocks = 24, pages = 3; /* a transfer; 4 KiB a page */
	u64 list = 0;

	void start()
	{
		up();
		a.slow = b.slow = true;
		list = g.page();
		fill();
		memory.dirty.clear();
	}
	/* Three pages that do not follow each other, from @lba on. */
	Sqe rw(u8 opcode, u32 lba, u64 off = 0)
	{
		Sqe e = command(opcode, lba, blocks, {});

		e.flags = 0;
		e.prp1 = place(0) + off;
		e.prp2 = list;
		for (u32 i = 1; i < pages + (off != 0); i++) {
			const u64 p = place(i);

			std::memcpy(at(list + 8 * (i - 1)), &p, sizeof(p));
		}
		return e;
	}
	u64 place(u32 i) const
	{
		return data + i * 3 * 4096;
	}
	void give(const Sqe &e)
	{
		g.put(g.io[0], e);
		g.ring(g.io[0]);
	}
	/* -1: there is none. */
	int answer()
	{
		NvmeGuest::Cqe c = {};

		g.w->work();
		g.w->interrupts();
		if (!g.next(g.io[0], c))
			return -1;
		g.ack(g.io[0]);
		return c.status >> 1 & 0x7ff;
	}
	bool is_dirty(u32 i) const
	{
		return memory.dirty.contains(place(i) / 4096);
	}
	/* The CPUs have the guest's pages, and what was written to them is dirty. */
	void expect_over()
	{
		EXPECT_TRUE(a.seen.empty() && b.seen.empty());
		for (u32 i = 0; i < pages; i++)
			EXPECT_TRUE(is_dirty(i)) << i;
	}
	void TearDown() override
	{
		Lists::TearDown();
		EXPECT_TRUE(a.seen.empty() && b.seen.empty());
		EXPECT_EQ(a.hidden_twice + b.hidden_twice, 0u);
	}
};

INSTANTIATE_TEST_SUITE_P(Nvme, Shown, testing::Values(way_shows | way_armed, way_shows | way_armed | way_direct | way_shadow));

} // namespace

TEST_P(Shown, E1_E4_the_device_has_the_page_and_the_cpus_a_copy)
{
	start();
	const auto before = buffers();

	give(rw(nvm_read, 8));
	ASSERT_EQ(a.seen.size(), pages);
	/* The device writes, and has not said so yet: its interrupt has not come. */
	a.work();
	for (u32 i = 0; i < pages; i++) {
		EXPECT_EQ(std::memcmp(at(place(i)), disk.data.data() + (8 + 8 * i) * 512, 4096), 0) << i;
		ASSERT_TRUE(a.seen.contains(place(i)));
		EXPECT_EQ(std::memcmp(a.seen[place(i)].data(), before.data() + (place(i) - data), 4096), 0) << i;
		EXPECT_FALSE(is_dirty(i));
	}
	EXPECT_EQ(answer(), 0);
	EXPECT_EQ(a.seen_at_write, 0u) << "the completion was there before the data";
	expect_over();
	EXPECT_EQ(a.private_data, 0u);
	rdt_model_stats s = {};

	rdt_model_get_stats(a.model, &s);
	EXPECT_EQ(s.shown, pages);
	EXPECT_EQ(s.bounced, 0u);
}

/* The device reads from a copy of its own then: the guest may write to a page that it has on its way to the disk. */
TEST_P(Shown, E1_writes_have_the_devices_copy)
{
	start();
	const auto before = buffers();

	give(rw(nvm_write, 8));
	EXPECT_TRUE(a.seen.empty());
	std::memset(at(place(1)), 0xee, 4096);
	EXPECT_EQ(answer(), 0);
	for (u32 i = 0; i < pages; i++)
		EXPECT_EQ(std::memcmp(disk.data.data() + (8 + 8 * i) * 512, before.data() + (place(i) - data), 4096), 0) << i;
}

/* What shares a page with something else is never shown. */
TEST_P(Shown, E1_parts_of_pages_have_the_devices_copy)
{
	start();
	give(rw(nvm_read, 8, 512));
	EXPECT_EQ(a.shown, 0u);
	EXPECT_EQ(answer(), 0);
	Sqe e = rw(nvm_read, 8);

	e.cdw12 = 6; /* seven blocks */
	give(e);
	EXPECT_EQ(a.shown, 0u);
	EXPECT_EQ(answer(), 0);
}

TEST_P(Shown, E1_a_page_twice_has_the_devices_copy)
{
	start();
	give(rw(nvm_read, 8));
	give(rw(nvm_read, 100));
	EXPECT_EQ(a.shown, pages);
	Sqe e = rw(nvm_read, 200);
	const u64 same = place(7);

	/* Twice in one. */
	e.prp1 = same;
	for (u32 i = 0; i < 2; i++)
		std::memcpy(at(list + 8 * i), &same, 8);
	give(e);
	EXPECT_FALSE(a.seen.contains(same));
	EXPECT_EQ(answer(), 0);
	EXPECT_EQ(answer(), 0);
	EXPECT_EQ(answer(), 0);
	expect_over();
}

TEST_P(Shown, E1_none_is_shown_where_not_all_can_be)
{
	start();
	for (u32 k = 1; k <= pages; k++) {
		a.fail_show_in = k;
		give(rw(nvm_read, 8));
		EXPECT_TRUE(a.seen.empty()) << k;
		EXPECT_EQ(answer(), 0);
		EXPECT_EQ(std::memcmp(at(place(2)), disk.data.data() + 24 * 512, 4096), 0);
	}
	for (u32 k = 1; k < 4; k++) {
		b.fail_alloc_in = a.fail_alloc_in = k;
		give(rw(nvm_read, 8));
		b.fail_alloc_in = a.fail_alloc_in = 0;
		EXPECT_GE(answer(), 0);
		EXPECT_TRUE(a.seen.empty()) << k;
	}
	/* Not in the guest's memory at all. */
	Sqe e = rw(nvm_read, 8);

	e.prp1 = memory.bytes.size();
	give(e);
	EXPECT_GT(answer(), 0);
	EXPECT_TRUE(a.seen.empty());
}

/* What was hidden once is no word about what is shown next. */
TEST_P(Shown, E4_bus_mastering_and_then_not_all_pages)
{
	start();
	give(rw(nvm_read, 8));
	rdt_model_unshow(a.model);
	EXPECT_EQ(answer(), 0);
	a.fail_show_in = 3;
	give(rw(nvm_read, 8));
	EXPECT_TRUE(a.seen.empty());
	EXPECT_EQ(answer(), 0);
	a.fail_show_in = 0;
	give(rw(nvm_read, 8));
	EXPECT_EQ(a.seen.size(), pages);
	EXPECT_EQ(answer(), 0);
	EXPECT_EQ(a.seen_at_write, 0u);
}

/* Behind a reset the guest has its pages, and nobody else writes to them. */
TEST_P(Shown, E4_nothing_is_written_to_what_was_given_back)
{
	start();
	a.deaf = false;
	give(rw(nvm_read, 8));
	rdt_model_unshow(a.model);
	memory.dirty.clear();
	g.disable();
	for (u32 i = 0; i < pages; i++)
		EXPECT_FALSE(is_dirty(i)) << i;
}

/* What the model has to hide in it is not shown by the device. */
TEST_P(Shown, E2_identify_goes_by_the_model)
{
	start();
	for (u32 cns : {cns_ns, cns_ctrl}) {
		Sqe e = {};

		e.opcode = adm_identify;
		e.nsid = cns == cns_ns;
		e.prp1 = g.page();
		e.cdw10 = cns;
		a.shown = 0;
		ASSERT_EQ(g.admin_command(e), 0);
		EXPECT_EQ(a.shown, 0u);
	}
}

/* The host's memory for it has an end, however many commands a guest has under way. */
TEST_P(Shown, E10_copies_have_an_end)
{
	constexpr u32 most = 8192, each = 256;

	memory.bytes.resize(64 << 20);
	start();
	for (u32 n = 0; n < 40; n++) {
		const u64 lists_page = g.page(), base = (16 << 20) + n * (1ull << 20);
		Sqe e = rw(nvm_read, 0);

		e.prp1 = base;
		e.prp2 = lists_page;
		for (u32 i = 1; i < each; i++) {
			const u64 p = base + i * 4096;

			std::memcpy(at(lists_page + 8 * (i - 1)), &p, sizeof(p));
		}
		e.cdw12 = 2047;
		give(e);
		EXPECT_LE(a.seen.size(), most);
	}
	EXPECT_EQ(a.seen.size(), most);
	for (u32 n = 0; n < 40; n++)
		EXPECT_EQ(answer(), 0) << n;
	EXPECT_TRUE(a.seen.empty());
	give(rw(nvm_read, 8));
	EXPECT_EQ(a.seen.size(), pages) << "and all are there again";
	EXPECT_EQ(answer(), 0);
}

/* A read that fails may have come to the guest's memory in part. */
TEST_P(Shown, E3_a_failed_read_is_dirty_too)
{
	start();
	give(rw(nvm_read, static_cast<u32>(disk.blocks()) - 8));
	EXPECT_EQ(a.seen.size(), pages);
	EXPECT_GT(answer(), 0);
	expect_over();
}

TEST_P(Shown, E4_a_guest_that_stops_its_device_has_its_pages)
{
	start();
	give(rw(nvm_read, 8));
	ASSERT_EQ(a.seen.size(), pages);
	g.disable();
	expect_over();
}

TEST_P(Shown, E4_a_function_reset)
{
	start();
	give(rw(nvm_read, 8));
	ASSERT_EQ(a.seen.size(), pages);
	a.function_reset();
	expect_over();
}

TEST_P(Shown, E4_a_shutdown)
{
	start();
	give(rw(nvm_read, 8));
	EXPECT_EQ(answer(), 0);
	a.deaf = true;
	give(rw(nvm_read, 8));
	ASSERT_EQ(a.seen.size(), pages);
	g.write(0x14, static_cast<u32>(g.read(0x14, 4)) | 1u << 14);
	EXPECT_TRUE(a.seen.empty());
	a.deaf = false;
	g.disable();
	expect_over();
}

/* The guest takes bus mastering away: what it writes from then on is not to be lost. Dirty it is at the command's end. */
TEST_P(Shown, E4_without_bus_mastering)
{
	start();
	give(rw(nvm_read, 8));
	ASSERT_EQ(a.seen.size(), pages);
	rdt_model_unshow(a.model);
	EXPECT_TRUE(a.seen.empty());
	rdt_model_unshow(a.model);
	EXPECT_EQ(answer(), 0);
	expect_over();
	give(rw(nvm_read, 8));
	EXPECT_EQ(a.seen.size(), pages);
	EXPECT_EQ(answer(), 0);
	expect_over();
}

TEST_P(Shown, E7_it_moves)
{
	start();
	for (u32 i = 0; i < 5; i++) {
		give(rw(nvm_read, 8 + i));
		EXPECT_EQ(g.w->seen.size(), pages);
		a.slow = b.slow = false;
		move();
		EXPECT_EQ(answer(), 0);
		EXPECT_EQ(std::memcmp(at(place(0)), disk.data.data() + (8 + i) * 512, 4096), 0);
		expect_over();
		memory.dirty.clear();
		a.slow = b.slow = true;
		arm();
	}
}
