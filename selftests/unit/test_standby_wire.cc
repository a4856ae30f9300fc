// SPDX-License-Identifier: GPL-2.0
/* F8, F3: the link's messages, from a peer that may say anything. */
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "standby/wire.h"

using namespace redoubt;
using namespace redoubt::standby;

namespace {

constexpr Uuid uuid = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

struct Bytes {
	std::vector<u8> b = std::vector<u8>(header_bytes + max_body);
	u32 n = 0;
	u64 epoch = 7;

	u8 *body()
	{
		return b.data() + header_bytes;
	}
	void seal(Msg msg, u32 body_bytes, bool link = false)
	{
		n = body_bytes;
		put_header(b.data(), {.msg = msg, .body = n, .vm = link ? Uuid{} : uuid, .epoch = link ? 0 : epoch, .from = 11,
				      .to = 22, .seq = 33});
	}
	/* Exactly sized copies: a byte too far is the sanitizer's. */
	Status get(Header *h, Body *body_out) const
	{
		const std::vector<u8> head(b.begin(), b.begin() + header_bytes);
		const Status s = get_header(head.data(), h);

		if (s != Status::Ok)
			return s;
		EXPECT_LE(h->body, max_body);
		last.assign(b.begin() + header_bytes, b.begin() + header_bytes + h->body);
		last.shrink_to_fit();
		return get_body(*h, last.data(), body_out);
	}
	mutable std::vector<u8> last;
};

Digest digest(u8 x)
{
	Digest d;

	std::memset(d.byte, x, sizeof(d.byte));
	return d;
}

TEST(StandbyWire, EachMessageComesBackAsItWas)
{
	Bytes m;
	Header h;
	Body b;

	m.seal(Msg::Hello, put_hello(m.body(), "host-b"), true);
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(h.msg, Msg::Hello);
	EXPECT_EQ(h.from, 11u);
	EXPECT_STREQ(b.name, "host-b");
	EXPECT_EQ(b.min, wire_version);

	m.seal(Msg::Ping, put_ping(m.body(), 99, true) + 5, true);
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(b.cookie, 99u);
	EXPECT_TRUE(b.answer);

	const standby::Run slots[] = {{0, 160}, {256, 1000}};
	m.seal(Msg::Begin, put_begin(m.body(), begin_live, slots, 2));
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(h.vm, uuid);
	EXPECT_EQ(h.epoch, 7u);
	EXPECT_EQ(h.to, 22u);
	EXPECT_EQ(h.seq, 33u);
	ASSERT_EQ(b.ranges, 2u);
	EXPECT_EQ(b.range(1).first, 256u);
	EXPECT_EQ(b.range(1).count, 1000u);
	EXPECT_EQ(b.flags, begin_live);

	m.seal(Msg::Pages, put_pages(m.body(), 0x1234, 3, 2, Codec::None, 2 * page_size) + 2 * u32(page_size));
	m.body()[24] = 0xab;
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(b.first, 0x1234u);
	EXPECT_EQ(b.frames, 3u);
	EXPECT_EQ(b.zero, 2u);
	EXPECT_EQ(b.data_bytes, 2 * page_size);
	EXPECT_EQ(b.data[0], 0xab);

	m.seal(Msg::Pages, put_pages(m.body(), 0, 64, ~0ull, Codec::None, 0));
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	m.seal(Msg::Pages, put_pages(m.body(), 0, 64, 0, Codec::Zstd, 100) + 100);
	ASSERT_EQ(m.get(&h, &b), Status::Ok);

	m.seal(Msg::Same, put_same(m.body(), 5, 2) + 2 * digest_bytes);
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(b.frames, 2u);

	m.seal(Msg::State, put_state(m.body(), 100, 60) + 40);
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(b.total, 100u);
	EXPECT_EQ(b.offset, 60u);
	EXPECT_EQ(b.data_bytes, 40u);

	m.seal(Msg::End, put_end(m.body(), digest(9), 1160, 100));
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(b.digest, digest(9));
	EXPECT_EQ(b.end_frames, 1160u);
	EXPECT_EQ(b.end_state, 100u);
	const Event ev = to_event(h, b);
	EXPECT_EQ(ev.ev, Ev::Message);
	EXPECT_EQ(ev.msg, Msg::End);
	EXPECT_EQ(ev.epoch, 7u);
	EXPECT_EQ(ev.from, 11u);
	EXPECT_EQ(ev.to, 22u);
	EXPECT_EQ(ev.digest, digest(9));
	EXPECT_FALSE(ev.whole);
	EXPECT_TRUE(ev.mine.none());

	m.seal(Msg::Lacks, put_lacks(m.body(), lacks_state | lacks_more, slots, 2));
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(b.range(0).count, 160u);
	m.seal(Msg::Lacks, put_lacks(m.body(), lacks_state, slots, 0));
	ASSERT_EQ(m.get(&h, &b), Status::Ok);

	for (Msg x : {Msg::Prepared, Msg::Commit}) {
		m.seal(x, put_digest(m.body(), digest(4)));
		ASSERT_EQ(m.get(&h, &b), Status::Ok);
		EXPECT_EQ(b.digest, digest(4));
	}
	for (Msg x : {Msg::Running, Msg::Discard, Msg::Discarded, Msg::Empty, Msg::Ask, Msg::Gone, Msg::Claim, Msg::Yield}) {
		m.seal(x, 0);
		EXPECT_EQ(m.get(&h, &b), Status::Ok);
		m.seal(x, 1);
		EXPECT_EQ(m.get(&h, &b), Status::Inval);
	}
	m.seal(Msg::Ready, put_ready(m.body(), Unready::Memory, 32768));
	EXPECT_EQ(m.get(&h, &b), Status::Inval); /* of an epoch */
	m.epoch = 0;
	m.seal(Msg::Ready, put_ready(m.body(), Unready::Memory, 32768));
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(b.unready, Unready::Memory);
	EXPECT_EQ(b.ram_frames, 32768u);
	for (unsigned at : {0, 1, 4}) { /* a reason that is none */
		m.seal(Msg::Ready, put_ready(m.body(), Unready::No, 1));
		m.body()[at] = 7;
		EXPECT_EQ(m.get(&h, &b), Status::Inval);
	}
	m.seal(Msg::Ready, put_ready(m.body(), Unready::No, gfn_limit + 1));
	EXPECT_EQ(m.get(&h, &b), Status::Inval);
	m.epoch = 7;
	for (unsigned i = 0; i <= unsigned(Unready::Memory); i++)
		EXPECT_STRNE(unready_text(Unready(i)), "?");
	const Action a = {.act = Act::Send, .msg = Msg::Commit, .report = Report::None, .sync = false, .epoch = 5, .from = 1,
			  .to = 2, .digest = digest(3), .rec = {}};
	h = to_header(a, uuid, 8);
	EXPECT_EQ(h.msg, Msg::Commit);
	EXPECT_EQ(h.epoch, 5u);
	EXPECT_EQ(h.from, 1u);
	EXPECT_EQ(h.to, 2u);
	EXPECT_EQ(h.seq, 8u);
}

TEST(StandbyWire, F8_headers_that_are_none)
{
	Bytes good, m;
	Header h;
	Body b;

	good.seal(Msg::End, put_end(good.body(), digest(9), 1, 1));
	ASSERT_EQ(good.get(&h, &b), Status::Ok);
	const auto with = [&](unsigned at, u8 value) {
		m = good;
		m.b[at] = value;
		return m.get(&h, &b);
	};
	EXPECT_EQ(with(0, 'X'), Status::Inval);
	EXPECT_EQ(with(4, 2), Status::Refused);
	EXPECT_EQ(with(5, 0), Status::Inval);
	EXPECT_EQ(with(5, 20), Status::Inval);
	EXPECT_EQ(with(5, 255), Status::Inval);
	EXPECT_EQ(with(6, 1), Status::Inval);
	EXPECT_EQ(with(12, 1), Status::Inval);
	EXPECT_EQ(with(8, 47), Status::Inval);
	EXPECT_EQ(with(8, 49), Status::Inval);
	EXPECT_EQ(with(11, 0xff), Status::Inval);
	EXPECT_EQ(with(39, 0x80), Status::Inval); /* an epoch that leaves no room */
	EXPECT_EQ(with(40, 0), Status::Inval);	  /* from no boot */
	m = good;
	std::memset(&m.b[16], 0, 16);
	EXPECT_EQ(m.get(&h, &b), Status::Inval); /* of no VM */
	m.seal(Msg::Hello, put_hello(m.body(), "x"));
	EXPECT_EQ(m.get(&h, &b), Status::Inval); /* HELLO of a VM */
}

TEST(StandbyWire, F8_bodies_that_lie)
{
	Bytes m;
	Header h;
	Body b;
	const auto bad = [&](Msg msg, u32 n) {
		m.seal(msg, n, msg == Msg::Hello);
		return m.get(&h, &b) == Status::Inval;
	};
	const auto runs = [&](std::vector<standby::Run> r) {
		return bad(Msg::Begin, put_begin(m.body(), 0, r.data(), u32(r.size())));
	};

	EXPECT_FALSE(runs({{0, 1}, {1, 5}}));
	EXPECT_TRUE(runs({{0, 2}, {1, 5}}));
	EXPECT_TRUE(runs({{9, 2}, {1, 5}}));
	EXPECT_TRUE(runs({{0, 0}}));
	EXPECT_TRUE(runs({{gfn_limit - 1, 2}}));
	EXPECT_TRUE(runs({{1, ~0ull}}));
	EXPECT_TRUE(runs({{~0ull, 1}}));
	/* More or fewer than fit. */
	const standby::Run one = {0, 1};
	u32 n = put_begin(m.body(), 0, &one, 1);
	m.body()[4] = 2;
	EXPECT_TRUE(bad(Msg::Begin, n));
	n = put_begin(m.body(), 0, &one, 1);
	EXPECT_TRUE(bad(Msg::Begin, n + 1));
	n = put_begin(m.body(), 2, &one, 1);
	EXPECT_TRUE(bad(Msg::Begin, n));
	n = put_lacks(m.body(), 4, &one, 1);
	EXPECT_TRUE(bad(Msg::Lacks, n));

	const auto pages = [&](gfn_t first, u32 frames, u64 zero, Codec codec, u32 data, int more = 0) {
		return bad(Msg::Pages, put_pages(m.body(), first, frames, zero, codec, data) + u32(int(data) + more));
	};
	EXPECT_FALSE(pages(0, 1, 0, Codec::None, 4096));
	EXPECT_TRUE(pages(0, 0, 0, Codec::None, 0));
	EXPECT_TRUE(pages(0, 1, 0, Codec::None, 4095));
	EXPECT_TRUE(pages(0, 1, 0, Codec::None, 0));
	EXPECT_TRUE(pages(0, 1, 1, Codec::None, 4096));
	EXPECT_TRUE(pages(0, 1, 2, Codec::None, 4096)); /* a zero frame beyond its run */
	EXPECT_TRUE(pages(0, 2, 1, Codec::None, 8192));
	EXPECT_TRUE(pages(gfn_limit - 1, 2, 0, Codec::None, 8192));
	EXPECT_TRUE(pages(0, 1, 0, Codec::Lz4, 0));
	EXPECT_TRUE(pages(0, 1, 0, Codec::Lz4, 4097));
	EXPECT_TRUE(pages(0, 1, 1, Codec::Lz4, 7));
	EXPECT_FALSE(pages(0, 1, 0, Codec::Lz4, 7));
	EXPECT_TRUE(pages(0, 1, 0, Codec(3), 7));
	EXPECT_TRUE(pages(0, 1, 0, Codec::None, 4096, 1));
	EXPECT_TRUE(pages(0, 65, 0, Codec::None, 4096));

	EXPECT_TRUE(bad(Msg::Same, put_same(m.body(), 0, 0) + 32));
	EXPECT_TRUE(bad(Msg::Same, put_same(m.body(), 0, 2) + 32));
	EXPECT_TRUE(bad(Msg::Same, put_same(m.body(), gfn_limit - 1, 2) + 64));
	EXPECT_TRUE(bad(Msg::Same, put_same(m.body(), 0, 1) + 33));
	EXPECT_FALSE(bad(Msg::Same, put_same(m.body(), 0, max_same) + max_same * 32));

	EXPECT_TRUE(bad(Msg::State, put_state(m.body(), 100, 61) + 40));
	EXPECT_TRUE(bad(Msg::State, put_state(m.body(), 100, ~0ull) + 40));
	EXPECT_TRUE(bad(Msg::State, put_state(m.body(), max_state + 1, 0) + 40));
	EXPECT_TRUE(bad(Msg::State, put_state(m.body(), 100, 0)));
	EXPECT_TRUE(bad(Msg::State, put_state(m.body(), ~0ull, ~0ull - 5) + 4));
	EXPECT_TRUE(bad(Msg::End, put_end(m.body(), digest(1), gfn_limit + 1, 1)));
	EXPECT_TRUE(bad(Msg::End, put_end(m.body(), digest(1), 1, max_state + 1)));

	/* A name goes into logs. */
	EXPECT_TRUE(bad(Msg::Hello, put_hello(m.body(), "a\nb")));
	EXPECT_TRUE(bad(Msg::Hello, put_hello(m.body(), "a\x1b[2J")));
	n = put_hello(m.body(), "ab");
	m.body()[4 + 5] = 'x';
	EXPECT_TRUE(bad(Msg::Hello, n));
	n = put_hello(m.body(), "ab");
	m.body()[0] = 0;
	EXPECT_TRUE(bad(Msg::Hello, n));
	n = put_hello(m.body(), std::string(name_bytes, 'n').c_str());
	m.seal(Msg::Hello, n, true);
	ASSERT_EQ(m.get(&h, &b), Status::Ok);
	EXPECT_EQ(std::string(b.name), std::string(name_bytes, 'n'));
}

/* Whatever comes: within the bytes (the sanitizers watch), and what passes keeps get_body()'s promises. */
TEST(StandbyWire, F8_noise)
{
	std::mt19937_64 rnd(4);
	unsigned passed = 0;

	Bytes m;

	for (unsigned round = 0; round < 100000; round++) {
		Header h;
		Body b;
		const Msg msg = Msg(rnd() % 21);
		const u32 n = u32(rnd() % 3 ? rnd() % 4 * 16 : rnd() % 200);

		for (u32 i = 0; i < n; i++)
			m.body()[i] = u8(rnd() % 2 ? 0 : rnd() >> rnd() % 8);
		m.seal(msg, n, msg == Msg::Hello || msg == Msg::Ping);
		if (rnd() % 4 == 0)
			m.b[rnd() % header_bytes] = u8(rnd());
		if (m.get(&h, &b) != Status::Ok)
			continue;
		passed++;
		if (h.msg == Msg::Begin || h.msg == Msg::Lacks)
			for (u32 i = 0; i < b.ranges; i++)
				ASSERT_TRUE(valid_frames(b.range(i).first, b.range(i).count));
		if (b.data != nullptr) {
			ASSERT_GE(b.data, m.last.data());
			ASSERT_LE(b.data + b.data_bytes, m.last.data() + m.last.size());
		}
	}
	EXPECT_GT(passed, 1000u);
}

} // namespace
