// SPDX-License-Identifier: GPL-2.0
/* E2, E5, E7: commands whose data an SGL describes, while nothing goes wrong. */
#include "nvme_lists.h"

namespace {

struct Plain : Lists {}; /* not armed from the start */

INSTANTIATE_TEST_SUITE_P(Nvme, Lists, testing::Range(0u, 2 * way_armed));
INSTANTIATE_TEST_SUITE_P(Nvme, Plain, testing::Range(0u, way_armed));

} // namespace

TEST_P(Plain, E7_the_guest_is_told_of_what_the_device_and_the_model_can)
{
	const struct {
		u32 device, guest;
	} cases[] = {
		{0, 0},
		{1, 1},
		{2, 2},
		{3, 0},
		{~0u & ~3u, 0},
		{~0u & ~2u, 1 | 7 << 16},
		{~0u & ~1u, 2 | 7 << 16},
		{1 | 1 << 16, 1 | 1 << 16},
		{1 | 1 << 17, 1 | 1 << 17},
		{1 | 1 << 18, 1 | 1 << 18},
		{1 | 1 << 2 | 1 << 19 | 1 << 20 | 1 << 21 | 0xff00, 1},
	};

	for (const auto &c : cases) {
		g.forget();
		a.sgls = c.device;
		up();
		EXPECT_EQ(told(), c.guest) << c.device;
		a.destroy();
		b.destroy();
	}
}

TEST_P(Lists, E2_data_in_pieces_of_every_kind)
{
	for (const unsigned per_segment : {2u, 3u, 65u, 2048u}) {
		for (const u32 blocks : {1u, 2u, 9u, 64u, 200u}) {
			if (blocks > 64 && per_segment < 17)
				continue;
			g.forget();
			up();
			there_and_back(blocks, 1, per_segment);
			a.destroy();
			b.destroy();
		}
	}
}

TEST_P(Lists, E2_words_for_who_wants_words)
{
	a.sgls = sgls_dwords;
	up();
	there_and_back(64, 4, 17);
	EXPECT_EQ(status_of(command(nvm_read, 0, 1, desc(sgl_data, data + 2, 512))), sc_sgl_granularity);
	EXPECT_EQ(status_of(command(nvm_read, 0, 1, build({desc(sgl_data, data, 2), desc(sgl_data, data + 4, 510)}, 9))),
		  sc_sgl_granularity);
	EXPECT_EQ(status_of(command(nvm_read, 0, 1, desc(sgl_bit_bucket, 0, 512))), sc_sgl_type) << "it has none";
}

/* One descriptor, in the command itself; as drivers send it most. And as much as a command can have. */
TEST_P(Lists, E2_one_piece)
{
	up();
	for (const u32 blocks : {1u, 8u, 100u, 2048u}) {
		for (const u32 off : {0u, 1u, 4095u}) {
			const u64 len = blocks * 512;

			for (u64 i = 0; i < len; i++)
				*at(data + off + i) = static_cast<u8>(a.rng());
			ASSERT_EQ(status_of(command(nvm_write, 7, blocks, desc(sgl_data, data + off, blocks * 512))), 0);
			ASSERT_EQ(std::memcmp(disk.data.data() + 7 * 512, at(data + off), len), 0);
			memory.dirty.clear();
			std::vector<u8> should = buffers();

			std::memset(at(data + off), 0, len);
			ASSERT_EQ(status_of(command(nvm_read, 7, blocks, desc(sgl_data, data + off, blocks * 512))), 0);
			expect_data(should, {{data + off, blocks * 512}}, "one piece");
		}
	}
	memory.dirty.clear();
	const std::vector<u8> should = buffers();

	EXPECT_EQ(status_of(command(nvm_read, 0, 1, desc(sgl_bit_bucket, 0, 512))), 0);
	expect_data(should, {}, "nothing of it was wanted");
}

TEST_P(Lists, E2_what_a_bit_bucket_is_not_for)
{
	up();
	std::memset(at(data), 0x5a, 1024);
	/* Written data are not thrown away: it counts as nothing. */
	EXPECT_EQ(status_of(command(nvm_write, 3, 1,
				    build({desc(sgl_data, data, 256), desc(sgl_bit_bucket, 0, 700), desc(sgl_data, data + 512, 256)}, 9))),
		  0);
	EXPECT_EQ(std::count(disk.data.begin() + 3 * 512, disk.data.begin() + 4 * 512, 0x5a), 512);
	EXPECT_EQ(status_of(command(nvm_write, 3, 1, build({desc(sgl_data, data, 256), desc(sgl_bit_bucket, 0, 256)}, 9))),
		  sc_sgl_length);
}

TEST_P(Lists, E2_other_commands)
{
	up();
	Sqe e = command(nvm_dsm, 3, 1, build({desc(sgl_data, data + 1, 30), desc(sgl_data, data + 4090, 34)}, 9));

	EXPECT_EQ(status_of(e), 0);
	e = command(nvm_copy, 0, 2, desc(sgl_data, data + 9, 64));
	EXPECT_EQ(status_of(e), 0);
	/* Without data there is nothing to look at. */
	EXPECT_EQ(status_of(command(nvm_flush, 0, 1, desc(0xff, ~0ull, ~0u))), 0);
	EXPECT_EQ(status_of(command(nvm_write_zeroes, 0, 1, desc(0xff, ~0ull, ~0u))), 0);
	/* Queues of both kinds of commands */
	e = command(nvm_read, 5, 1, {});
	e.flags = 0;
	e.prp1 = data;
	e.prp2 = 0;
	EXPECT_EQ(status_of(e), 0);
	EXPECT_EQ(std::memcmp(at(data), disk.data.data() + 5 * 512, 512), 0);
}

TEST_P(Lists, E2_metadata_are_where_MPTR_says)
{
	disk.meta = 8;
	a.sgls = b.sgls = sgls_bytes | sgls_byte_meta;
	up();
	const u64 meta = g.page(2) + 5, back = g.page(2) + 7;

	for (u32 i = 0; i < 32 * 8; i++)
		*at(meta + i) = static_cast<u8>(i * 7);
	Sqe e = command(nvm_write, 10, 32, desc(sgl_data, data + 3, 32 * 512));

	e.mptr = meta;
	ASSERT_EQ(status_of(e), 0);
	e = command(nvm_read, 10, 32, build({desc(sgl_data, data + 100001, 511), desc(sgl_data, data + 70001, 31 * 512 + 1)}, 9));
	e.mptr = back;
	memory.dirty.clear();
	ASSERT_EQ(status_of(e), 0);
	EXPECT_EQ(std::memcmp(at(meta), at(back), 32 * 8), 0);
	EXPECT_EQ(std::memcmp(at(data + 100001), at(data + 3), 511), 0);
	EXPECT_EQ(std::memcmp(at(data + 70001), at(data + 3 + 511), 31 * 512 + 1), 0);
	EXPECT_EQ(memory.dirty.count(back / 4096) != 0, mediated());
	if (mediated()) {
		e.mptr = NvmeWorld::window;
		EXPECT_EQ(status_of(e), sc_invalid_field);
	}
}

TEST_P(Lists, E2_metadata_between_the_data)
{
	disk.meta = 8;
	disk.extended = true;
	up();
	for (u32 i = 0; i < 9 * 520; i++)
		*at(data + 1 + i) = static_cast<u8>(i * 7);
	ASSERT_EQ(status_of(command(nvm_write, 10, 9, desc(sgl_data, data + 1, 9 * 520))), 0);
	ASSERT_EQ(status_of(command(nvm_read, 10, 9, build({desc(sgl_data, data + 20000, 4000), desc(sgl_data, data + 9999, 680)}, 9))), 0);
	EXPECT_EQ(std::memcmp(at(data + 20000), at(data + 1), 4000), 0);
	EXPECT_EQ(std::memcmp(at(data + 9999), at(data + 4001), 680), 0);
	EXPECT_EQ(status_of(command(nvm_read, 10, 9, desc(sgl_data, data, 9 * 512))), sc_sgl_length);
}

/* Some devices take lists that describe more than is transferred; the rest stays as it was. */
TEST_P(Lists, E2_longer_than_the_data)
{
	const std::vector<Part> parts = {{4096 + 100, 300}, {100, 300}, {10000, 50}};

	for (const bool may : {false, true}) {
		g.forget();
		a.sgls = b.sgls = sgls_bytes | (may ? sgls_longer : 0);
		up();
		std::vector<Part> there;

		for (const Part &p : parts)
			there.push_back({data + p.at, p.len});
		auto should = buffers();

		if (may) {
			std::copy_n(disk.data.begin() + 512, 300, should.begin() + 4196);
			std::copy_n(disk.data.begin() + 812, 212, should.begin() + 100);
		}
		memory.dirty.clear();
		EXPECT_EQ(status_of(command(nvm_read, 1, 1, build(descs(there), 9))), may ? sc_ok : sc_sgl_length);
		there.resize(may ? 2 : 0);
		expect_data(should, there, "no more than there is");
		a.destroy();
		b.destroy();
	}
}

/* An error of the device's: nothing is copied. */
TEST_P(Lists, E2_what_failed_is_not_copied)
{
	up();
	const auto should = buffers();

	memory.dirty.clear();
	EXPECT_EQ(status_of(command(nvm_read, 1 << 20, 1, desc(sgl_data, data, 512))), 0x080);
	expect_data(should, {}, "failed");
}

/* More pieces than are kept at a time: some wait for others. */
TEST_P(Lists, E5_many_pieces_at_once)
{
	up();
	for (u32 i = 0; i < 2000; i++) /* what is done is not kept */
		ASSERT_EQ(status_of(command(nvm_read, 0, 1, desc(sgl_data, data, 512))), 0);
	/* 63 commands of 2001 pieces each are nearly twice what is kept. */
	std::vector<Sgl> v;
	unsigned done = 0;

	for (u32 k = 0; k < 2000; k++)
		v.push_back(desc(sgl_data, data + 3 * k, 2));
	v.push_back(desc(sgl_data, data + 6000, 96));
	for (u32 i = 0; i < 63; i++) {
		g.put(g.io[0], command(nvm_write, 8 * i, 8, build(v, 2048)));
		std::memset(at(data), 'a', 6096);
	}
	g.ring(g.io[0]);
	if (mediated()) {
		rdt_model_stats s = {};

		rdt_model_get_stats(a.model, &s);
		EXPECT_EQ(s.inflight, 65536u / 2001);
	}
	for (unsigned i = 0; i < 500 && done < 63; i++) {
		NvmeGuest::Cqe c = {};

		a.work(5);
		a.interrupts();
		for (; g.next(g.io[0], c); done++) {
			EXPECT_EQ(c.status >> 1, 0);
			g.ack(g.io[0]);
		}
	}
	EXPECT_EQ(done, 63u);
	EXPECT_EQ(std::count(disk.data.begin(), disk.data.begin() + 63 * 4096, 'a'), 63 * 4096);
}

TEST_P(Lists, E7_moves_with_lists_under_way)
{
	struct Op {
		bool write;
		u64 lba;
		std::vector<Part> parts;
		std::vector<u8> bytes;
	};
	up(32);
	std::map<std::pair<u16, u16>, Op> under_way;
	std::vector<u8> should = disk.data;
	std::set<u64> busy; /* areas: of the disk and of memory alike */
	unsigned done = 0, moves = 0;
	const u64 lists = g.page(300);

	for (unsigned turn = 0; turn < 1500 || !under_way.empty(); turn++) {
		ASSERT_LT(turn, 3000u);
		NvmeWorld &w = *g.w;
		auto &q = g.io[a.rng() % 2];

		for (u64 n = turn < 1500 ? a.rng() % 6 : 0; n != 0 && (q.tail + 1u) % q.size != q.sq_head; n--) {
			const u64 area = a.rng() % 100, list = lists + area * 3 * 4096;
			Op op = {a.rng() % 2 == 0, area * 40, {}, {}};

			if (!busy.insert(area).second)
				continue;
			const u32 blocks = 1 + static_cast<u32>(a.rng() % 30);

			op.parts = cut(data + area * 28000, blocks * 512, 1, !op.write);
			auto v = descs(op.parts);

			for (const Part &p : op.parts) {
				for (u32 i = 0; i < p.len && p.at != bucket; i++)
					*at(p.at + i) = static_cast<u8>(a.rng());
				if (op.write)
					op.bytes.insert(op.bytes.end(), at(p.at), at(p.at + p.len));
			}
			if (op.write)
				std::copy(op.bytes.begin(), op.bytes.end(), should.begin() + static_cast<long>(op.lba * 512));
			else
				op.bytes.assign(should.begin() + static_cast<long>(op.lba * 512),
						should.begin() + static_cast<long>((op.lba + blocks) * 512));
			/* Two segments, if there are enough */
			Sgl first = desc(sgl_last_segment, list, static_cast<u32>(v.size() * 16));

			ASSERT_LT(v.size(), 250u);
			if (v.size() > 3) {
				std::memcpy(at(list + 4096), &v[2], (v.size() - 2) * 16);
				v[2] = desc(sgl_last_segment, list + 4096, static_cast<u32>((v.size() - 2) * 16));
				v.resize(3);
				first = desc(sgl_segment, list, 48);
			}
			std::memcpy(at(list), v.data(), v.size() * 16);
			const Sqe e = command(op.write ? nvm_write : nvm_read, op.lba, blocks, first);

			g.put(q, e);
			under_way[{q.id, e.cid}] = op;
		}
		if (a.rng() % 4 != 0 || turn >= 1500)
			g.ring(q);
		w.work(static_cast<unsigned>(a.rng() % 6));
		w.interrupts();
		auto &r = g.io[a.rng() % 2];
		NvmeGuest::Cqe c;

		while (g.next(r, c)) {
			const auto it = under_way.find({r.id, c.cid});

			ASSERT_NE(it, under_way.end()) << "a completion too many";
			ASSERT_EQ(c.status >> 1, 0);
			u64 off = 0;

			for (const Part &p : it->second.parts) {
				if (p.at != bucket)
					EXPECT_EQ(std::memcmp(at(p.at), it->second.bytes.data() + off, p.len), 0);
				off += p.len;
			}
			busy.erase(it->second.lba / 40);
			under_way.erase(it);
			done++;
		}
		g.ack(r);
		if (a.rng() % 40 == 0)
			rdt_model_arm(w.model, a.rng() % 2);
		if (a.rng() % 50 == 0) {
			move();
			moves++;
		}
	}
	EXPECT_EQ(done, a.io_commands + b.io_commands);
	EXPECT_GT(moves, 20u);
	EXPECT_GT(done, 1000u);
	EXPECT_TRUE(should == disk.data);
}
