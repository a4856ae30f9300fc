// SPDX-License-Identifier: GPL-2.0
/*
 * For tests of commands whose data an SGL describes: a guest that makes lists of all shapes, on one of two controllers. While
 * queues are direct the device walks them, else the model.
 */
#pragma once

#include <algorithm>

#include <gtest/gtest.h>

#include "nvme_world.h"

using namespace redoubt::dma::nvme;

inline constexpr u64 bucket = ~0ull; /* the place of a part that is nowhere */

struct Part {
	u64 at;
	u32 len;
};

struct Lists : testing::TestWithParam<unsigned> {
	GuestMemory memory;
	NvmeDisk disk;
	NvmeWorld a{memory, disk}, b{memory, disk};
	NvmeGuest g{memory, a};
	u16 cid = 0x100;
	u64 data = 0; /* where in guest memory the tests' buffers are */
	static constexpr u64 data_bytes = 3 << 20;

	void SetUp() override
	{
		for (NvmeWorld *w : {&a, &b}) {
			w->direct = GetParam() & way_direct;
			w->sgls = sgls_bytes | sgls_bit_bucket;
			w->shows = GetParam() & way_shows;
		}
		g.shadow = GetParam() & way_shadow;
		b.serial = "two";
	}
	void up(u32 entries = 64, unsigned queues = 2)
	{
		ASSERT_TRUE(a.create());
		ASSERT_TRUE(b.create());
		ASSERT_TRUE(g.enable());
		ASSERT_TRUE(g.make_queues(queues, entries));
		data = g.page(data_bytes / 4096);
		for (u64 i = 0; i < disk.data.size(); i++)
			disk.data[i] = static_cast<u8>(a.rng());
		if (GetParam() & way_armed)
			arm();
	}
	void arm()
	{
		ASSERT_EQ(rdt_model_stop(g.w->model), 0);
		rdt_model_arm(g.w->model, 1);
		ASSERT_EQ(rdt_model_run(g.w->model, 1), 0);
	}
	/* The model walks them, not the device. */
	bool mediated() const
	{
		return !(GetParam() & way_direct) || (GetParam() & way_armed);
	}
	void move()
	{
		NvmeWorld &from = *g.w, &to = g.w == &a ? b : a;
		std::vector<u8> state(rdt_model_state_max(from.model));

		ASSERT_EQ(rdt_model_stop(from.model), 0);
		const long n = rdt_model_save(from.model, state.data(), state.size());

		ASSERT_GT(n, 0);
		ASSERT_EQ(rdt_model_load(to.model, state.data(), static_cast<u64>(n)), 0) << to.log.back();
		g.w = &to;
		ASSERT_EQ(rdt_model_run(to.model, 1), 0);
		from.function_reset();
	}
	void TearDown() override
	{
		EXPECT_EQ(a.trespass + b.trespass + a.window_asks + b.window_asks, 0u);
		EXPECT_EQ(a.hidden_twice + b.hidden_twice, 0u);
		a.destroy();
		b.destroy();
		EXPECT_EQ(a.private_bytes() + b.private_bytes(), 0u);
	}
	u8 *at(u64 gpa)
	{
		return memory.bytes.data() + gpa;
	}
	static Sgl desc(u8 id, u64 addr, u32 len)
	{
		Sgl d = {};

		d.addr = addr;
		d.len = len;
		d.id = id;
		return d;
	}
	/* A bucket has no address; who takes what is there for one is found out. */
	Sgl desc(const Part &p)
	{
		return p.at == bucket ? desc(sgl_bit_bucket, data + data_bytes - 65536, p.len) : desc(sgl_data, p.at, p.len);
	}
	Sqe command(u8 opcode, u64 lba, u32 blocks, const Sgl &first)
	{
		Sqe e = {};
		u64 dptr[2];

		std::memcpy(dptr, &first, 16);
		e.opcode = opcode;
		e.flags = sqe_sgl;
		e.cid = ++cid;
		e.nsid = 1;
		e.prp1 = dptr[0];
		e.prp2 = dptr[1];
		e.cdw10 = static_cast<u32>(lba);
		e.cdw12 = blocks - 1;
		return e;
	}
	/* Descriptors into memory, in segments of so many each; what leads there. */
	Sgl build(std::vector<Sgl> list, unsigned per_segment)
	{
		if (list.size() == 1 && per_segment == 0)
			return list[0];
		per_segment = std::max(per_segment, 2u);

		u64 next = 0;
		u32 next_bytes = 0;
		const std::size_t in_last = (list.size() - 1) % (per_segment - 1) + 1;

		/* From the last on; each but that one ends with what leads to the one behind it. */
		for (std::size_t end = list.size(), n = in_last; end != 0; end -= n, n = per_segment - 1) {
			std::vector<Sgl> segment(list.begin() + static_cast<long>(end - n), list.begin() + static_cast<long>(end));

			if (next != 0)
				segment.push_back(desc(end + in_last == list.size() ? sgl_last_segment : sgl_segment, next, next_bytes));
			next_bytes = static_cast<u32>(segment.size() * 16);
			next = g.page(next_bytes / 4096 + 2) + 8 * (a.rng() % 500); /* over pages' ends, too */
			std::memcpy(at(next), segment.data(), next_bytes);
		}
		return desc(list.size() <= in_last ? sgl_last_segment : sgl_segment, next, next_bytes);
	}
	/* Bytes cut into parts with gaps between them, in no order of addresses. */
	std::vector<Part> cut(u64 from, u32 bytes, u32 grain, bool buckets)
	{
		constexpr u32 some[] = {1, 3, 4, 511, 512, 513, 4095, 4096, 4097, 9000};
		std::vector<Part> parts;
		std::vector<u64> places;
		u64 place = from;

		while (bytes != 0) {
			u32 n = a.rng() % 4 ? some[a.rng() % 10] : 1 + static_cast<u32>(a.rng() % 3000);

			n = std::min(std::max(n / grain * grain, grain), bytes);
			if (a.rng() % 8 == 0)
				parts.push_back({place, 0});
			place += a.rng() % 300 / grain * grain;
			parts.push_back({buckets && a.rng() % 5 == 0 ? bucket : place, n});
			place += n;
			bytes -= n;
		}
		std::shuffle(parts.begin(), parts.end(), a.rng);
		return parts;
	}
	std::vector<Sgl> descs(const std::vector<Part> &parts)
	{
		std::vector<Sgl> v;

		for (const Part &p : parts)
			v.push_back(desc(p));
		return v;
	}
	/* The buffers as they should be, and the frames that somebody has written to */
	void expect_data(const std::vector<u8> &should, const std::vector<Part> &written, const char *what)
	{
		std::set<u64> frames, dirty(memory.dirty.lower_bound(data / 4096), memory.dirty.lower_bound((data + data_bytes) / 4096));

		EXPECT_EQ(std::memcmp(should.data(), at(data), data_bytes), 0) << what;
		for (const Part &p : written) {
			for (u64 f = p.at / 4096; p.at != bucket && p.len != 0 && f <= (p.at + p.len - 1) / 4096; f++)
				frames.insert(f);
		}
		if (mediated())
			EXPECT_EQ(dirty, frames) << what;
	}
	void fill()
	{
		u64 x = a.rng() | 1;

		for (u64 i = 0; i < data_bytes; i += 8, x = x * 6364136223846793005 + 1)
			std::memcpy(at(data + i), &x, 8);
	}
	std::vector<u8> buffers()
	{
		return {at(data), at(data + data_bytes)};
	}
	/* A write by one list, and a read by another. */
	void there_and_back(u32 blocks, u32 grain, unsigned per_segment)
	{
		const u32 len = blocks * 512, lba = static_cast<u32>(a.rng() % 1000);
		const auto from = cut(data, len, grain, false);
		auto to = cut(data + data_bytes / 2, len, grain, a.sgls & sgls_bit_bucket);
		std::vector<u8> wanted;

		fill();
		for (const Part &p : from)
			wanted.insert(wanted.end(), at(p.at), at(p.at + p.len));
		auto should = buffers();

		memory.dirty.clear();
		ASSERT_EQ(g.io_command(0, command(nvm_write, lba, blocks, build(descs(from), per_segment))), 0);
		ASSERT_TRUE(std::equal(wanted.begin(), wanted.end(), disk.data.data() + lba * 512));
		expect_data(should, {}, "written");
		ASSERT_EQ(g.io_command(0, command(nvm_compare, lba, blocks, build(descs(from), per_segment))), 0);
		u64 done = 0;

		for (const Part &p : to) {
			if (p.at != bucket)
				std::copy_n(wanted.begin() + static_cast<long>(done), p.len, should.begin() + static_cast<long>(p.at - data));
			done += p.len;
		}
		ASSERT_EQ(g.io_command(1, command(nvm_read, lba, blocks, build(descs(to), per_segment))), 0);
		expect_data(should, to, "read");
	}
	u16 status_of(const Sqe &e)
	{
		const u16 s = g.io_command(0, e);

		return s >= 0xfffe ? s : s & 0x7ff;
	}
	u32 told()
	{
		Sqe e = {};

		e.opcode = adm_identify;
		e.prp1 = g.page();
		e.cdw10 = cns_ctrl;
		return g.admin_command(e) == 0 ? le32(at(e.prp1 + idc_sgls)) : ~0u;
	}
};
