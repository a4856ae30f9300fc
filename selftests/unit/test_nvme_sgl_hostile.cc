// SPDX-License-Identifier: GPL-2.0
/* E8: SGLs that a guest should not send, and destinations that do less with them. */
#include "nvme_lists.h"

namespace {

struct Plain : Lists {}; /* not armed from the start */

INSTANTIATE_TEST_SUITE_P(Nvme, Lists, testing::Range(0u, 2 * way_armed));
INSTANTIATE_TEST_SUITE_P(Nvme, Plain, testing::Range(0u, way_armed));

} // namespace

TEST_P(Lists, E8_what_is_no_list)
{
	up();
	const u64 seg = g.page(40), seg2 = g.page();
	const auto list = [&](u64 where, std::vector<Sgl> v) {
		std::memcpy(at(where), v.data(), v.size() * 16);
		return static_cast<u32>(v.size() * 16);
	};
	const Sgl half = desc(sgl_data, data, 256), whole = desc(sgl_data, data, 512);
	const auto memory_before = buffers();
	const auto disk_before = disk.data;

	for (const u8 opcode : {nvm_read, nvm_write, nvm_compare}) {
		/* @models: of the model's own bounds, or of the window, which a device finds otherwise */
		const auto try_it = [&](const char *what, u16 status, const Sgl &first, bool models = false) {
			const u64 commands = a.io_commands;

			if (models && !mediated())
				return;
			memory.dirty.clear();
			EXPECT_EQ(status_of(command(opcode, 1, 1, first)), status) << what << " " << u32{opcode};
			EXPECT_EQ(std::memcmp(disk_before.data(), disk.data.data(), disk.data.size()), 0) << what;
			expect_data(memory_before, {}, what);
			if (mediated())
				EXPECT_EQ(a.io_commands, commands) << what << ": the device does not hear of it";
		};

		try_it("too short", sc_sgl_length, desc(sgl_data, data, 511));
		try_it("too long", sc_sgl_length, desc(sgl_data, data, 513));
		try_it("far too long", sc_sgl_length, desc(sgl_data, data, ~0u));
		try_it("nothing", sc_sgl_length, desc(sgl_data, data, 0));
		try_it("half", sc_sgl_length, desc(sgl_last_segment, seg, list(seg, {half})));
		try_it("three halves", sc_sgl_length, desc(sgl_last_segment, seg, list(seg, {half, half, half})));
		for (u32 id = 0; id < 0x100; id++) {
			if (id == sgl_data || id == sgl_bit_bucket || id == sgl_segment || id == sgl_last_segment)
				continue;
			try_it("type", sc_sgl_type, desc(static_cast<u8>(id), data, 512));
			try_it("type in a list", sc_sgl_type,
			       desc(sgl_last_segment, seg, list(seg, {half, desc(static_cast<u8>(id), data, 256)})));
		}
		list(seg, {half, half});
		for (const u8 id : {sgl_segment, sgl_last_segment}) {
			try_it("no segment", sc_sgl_segment, desc(id, seg, 0));
			try_it("not of whole descriptors", sc_sgl_segment, desc(id, seg, 31));
			try_it("less than one", sc_sgl_segment, desc(id, seg, 8));
			try_it("not aligned", sc_sgl_segment, desc(id, seg + 4, 32));
			try_it("huge", sc_sgl_count, desc(id, seg, 0xfffffff0), true);
			try_it("over the end", sc_sgl_type, desc(id, ~0ull - 15, 32), true);
			try_it("private", sc_invalid_field, desc(id, NvmeWorld::window, 32), true);
			try_it("up to private", sc_invalid_field, desc(id, NvmeWorld::window - 16, 32), true);
		}
		/* A pointer where it must not be */
		list(seg2, {half});
		try_it("on from the last", sc_sgl_segment,
		       desc(sgl_last_segment, seg, list(seg, {half, desc(sgl_last_segment, seg2, 16)})));
		try_it("on from the last, more", sc_sgl_segment,
		       desc(sgl_last_segment, seg, list(seg, {half, desc(sgl_segment, seg2, 16)})));
		try_it("in the middle", sc_sgl_count,
		       desc(sgl_segment, seg, list(seg, {half, desc(sgl_last_segment, seg2, 16), half})));
		try_it("at the front", sc_sgl_count,
		       desc(sgl_segment, seg, list(seg, {desc(sgl_segment, seg2, 16), half})));
		std::vector<Sgl> many(70, desc(sgl_data, data, 0));

		many[63] = desc(sgl_segment, seg2, 16); /* at the end of what is read at once */
		try_it("in the middle of many", sc_sgl_count, desc(sgl_segment, seg, list(seg, many)));
		/* Loops: segments that lead to themselves, or to each other */
		try_it("a loop", sc_sgl_count, desc(sgl_segment, seg, list(seg, {desc(sgl_segment, seg, 16)})));
		list(seg2, {desc(sgl_data, data, 0), desc(sgl_segment, seg, 32)});
		try_it("a loop of two", sc_sgl_count,
		       desc(sgl_segment, seg, list(seg, {desc(sgl_data, data, 0), desc(sgl_segment, seg2, 32)})));
		if (opcode == nvm_read)
			try_it("a loop with an end", sc_sgl_length,
			       desc(sgl_segment, seg, list(seg, {desc(sgl_bit_bucket, 0, 100), desc(sgl_segment, seg, 32)})));
		/* More descriptors than anybody needs: each of them alone is good. */
		many.assign(2049, desc(sgl_data, data, 0));
		many[2000] = whole;
		list(seg, many);
		try_it("too many", sc_sgl_count, desc(sgl_last_segment, seg, 2049 * 16), true);
		/* Where nothing of the guest's is */
		try_it("private data", sc_invalid_field, desc(sgl_data, NvmeWorld::window + 4096, 512), true);
		try_it("all of it but the last byte", sc_invalid_field, desc(sgl_data, NvmeWorld::window - 511, 512), true);
		try_it("behind a good one", sc_invalid_field,
		       desc(sgl_last_segment, seg, list(seg, {half, desc(sgl_data, NvmeWorld::window, 256)})), true);
		try_it("around", sc_sgl_type, desc(sgl_data, ~0ull - 100, 512), true);
		a.faults = 0;
		try_it("no memory", sc_transfer_error, desc(sgl_last_segment, 1ull << 33, 32));
		if (opcode != nvm_read)
			try_it("no memory for data", sc_transfer_error, desc(sgl_data, 1ull << 33, 512));
	}
	/* A hole is found when data have come. */
	EXPECT_EQ(status_of(command(nvm_read, 1, 1, desc(sgl_data, 1ull << 33, 512))), sc_transfer_error);
	if (mediated())
		EXPECT_EQ(a.faults, 0u);
	/* and what is on the brink is good */
	list(seg, std::vector<Sgl>(2048, desc(sgl_data, data, 0)));
	list(seg + 2000 * 16, {whole});
	EXPECT_EQ(status_of(command(nvm_read, 1, 1, desc(sgl_last_segment, seg, 2048 * 16))), 0);
	list(seg2, {half});
	EXPECT_EQ(status_of(command(nvm_read, 1, 1, desc(sgl_segment, seg, list(seg, {half, desc(sgl_last_segment, seg2, 16)})))), 0);
	/* A segment that leads nowhere is the last, whatever was said of it. */
	EXPECT_EQ(status_of(command(nvm_read, 1, 1, desc(sgl_segment, seg, list(seg, {half, half})))), 0);
}

TEST_P(Lists, E8_flags_that_nobody_was_told_of)
{
	for (const u32 has : {0u, 1u}) {
		g.forget();
		a.sgls = b.sgls = has;
		up();
		for (const u32 flags : {0x01u, 0x02u, 0x04u, 0x20u, 0x40u, 0x41u, 0x44u, 0x80u, 0xc0u, 0xffu}) {
			const bool good = flags == 0x40 && has;
			Sqe e = command(nvm_read, 1, 1, desc(sgl_data, data, 512));

			e.flags = static_cast<u8>(flags);
			EXPECT_EQ(status_of(e), good ? sc_ok : sc_invalid_field) << flags;
			e = {};
			e.opcode = adm_identify;
			e.prp1 = data;
			e.prp2 = 4096;
			e.cdw10 = cns_ctrl;
			e.flags = static_cast<u8>(flags);
			EXPECT_EQ(g.admin_command(e), sc_invalid_field | sc_dnr) << "not for the admin queue";
		}
		a.destroy();
		b.destroy();
	}
}

/* What is checked is what is used. */
TEST_P(Lists, E8_a_list_that_changes_behind_its_command)
{
	if (!mediated())
		return;
	up();
	const u64 seg = g.page();
	Sgl v[] = {desc(sgl_data, data, 256), desc(sgl_data, data + 1000, 256)};
	std::vector<u8> should = buffers();

	std::memcpy(at(seg), v, sizeof(v));
	g.put(g.io[0], command(nvm_read, 2, 1, desc(sgl_last_segment, seg, sizeof(v))));
	g.ring(g.io[0]);
	memory.dirty.clear();
	std::memset(at(seg), 0xff, sizeof(v));
	a.work();
	a.interrupts();
	NvmeGuest::Cqe c = {};

	ASSERT_TRUE(g.next(g.io[0], c));
	g.ack(g.io[0]);
	EXPECT_EQ(c.status >> 1, 0);
	std::copy_n(disk.data.begin() + 2 * 512, 256, should.begin());
	std::copy_n(disk.data.begin() + 2 * 512 + 256, 256, should.begin() + 1000);
	expect_data(should, {{data, 256}, {data + 1000, 256}}, "the first list");

	/* Likewise data: what they were when the command was taken. */
	std::memset(at(data), 0x11, 512);
	g.put(g.io[0], command(nvm_write, 2, 1, desc(sgl_data, data, 512)));
	g.ring(g.io[0]);
	std::memset(at(data), 0x22, 512);
	a.work();
	EXPECT_EQ(std::count(disk.data.begin() + 2 * 512, disk.data.begin() + 3 * 512, 0x11), 512);
}

TEST_P(Lists, E8_without_memory_it_says_so_and_goes_on)
{
	if (!mediated())
		return;
	up();
	unsigned failed = 0;

	for (unsigned n = 1; n < 6; n++) {
		/* so many that the pool has to grow */
		const Sqe e = command(nvm_read, 1, 2048, desc(sgl_data, data + 1, 1 << 20));

		a.fail_alloc_in = n;
		const u16 status = status_of(e);

		a.fail_alloc_in = 0;
		EXPECT_TRUE(status == sc_ok || status == sc_internal) << n << " " << status;
		failed += status != sc_ok;
		EXPECT_EQ(status_of(command(nvm_read, 1, 1, desc(sgl_data, data + 1, 512))), 0);
	}
	EXPECT_GT(failed, 1u);
}

TEST_P(Plain, E8_a_destination_that_does_less_with_lists)
{
	const struct {
		u32 here, there;
		const char *says;
	} cases[] = {
		{0, 0, nullptr},
		{0, 1 | 7 << 16, nullptr},
		{1, 1, nullptr},
		{1, 1 | 7 << 16, nullptr},
		{2, 2, nullptr},
		{2, 1, nullptr},
		{1, 0, "no SGLs"},
		{2, 0, "no SGLs"},
		{1, 3, "no SGLs"},
		{1, 2, "aligned"},
		{1 | 1 << 16, 1, "less with SGLs"},
		{1 | 1 << 16, 1 | 1 << 17, "less with SGLs"},
		{2 | 1 << 17, 1 | 1 << 16, "less with SGLs"},
		{1 | 1 << 18, 1 | 3 << 16, "less with SGLs"},
		{1 | 1 << 19, 1, nullptr}, /* nobody was told */
	};

	for (const auto &c : cases) {
		std::vector<u8> state;

		g.forget();
		a.sgls = c.here;
		b.sgls = c.there;
		up();
		state.resize(rdt_model_state_max(a.model));
		ASSERT_EQ(rdt_model_stop(a.model), 0);
		const long n = rdt_model_save(a.model, state.data(), state.size());

		ASSERT_GT(n, 0);
		EXPECT_EQ(rdt_model_load(b.model, state.data(), static_cast<u64>(n)), c.says ? -18 : 0) << c.here << " " << c.there;
		if (c.says) {
			ASSERT_FALSE(b.log.empty());
			EXPECT_NE(b.log.back().find(c.says), std::string::npos) << b.log.back();
			EXPECT_EQ(b.private_bytes(), 0u);
			g.w = &a;
		} else {
			g.w = &b;
		}
		ASSERT_EQ(rdt_model_run(g.w->model, 0), 0);
		EXPECT_EQ(told(), c.here & ~(1u << 19)) << "the same as before, wherever it is";
		EXPECT_EQ(status_of(command(nvm_read, 1, 1, desc(sgl_data, data, 512))), c.here ? sc_ok : sc_invalid_field);
		g.w = &a;
		a.destroy();
		b.destroy();
	}
}
