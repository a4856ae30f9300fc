// SPDX-License-Identifier: GPL-2.0
/*
 * libFuzzer plays the peer and the disk: a stream of bytes is taken as messages, fed to an image and a machine as the
 * agent does, and as a journal. No byte beyond what was given is read, what passes keeps the promises of wire.h, and
 * no image is whole that lacks a frame.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "standby/image.h"
#include "standby/wire.h"

using namespace redoubt;
using namespace redoubt::standby;

namespace {

[[noreturn]] void fail(const char *what)
{
	std::fprintf(stderr, "fuzz_standby_wire: %s\n", what);
	std::abort();
}

/* No SHA-256 here: what is looked at is the bookkeeping. */
bool mix(void *, const Piece *pieces, unsigned n, u8 out[digest_bytes])
{
	u64 h = 0xcbf29ce484222325ull;

	for (unsigned i = 0; i < n; i++)
		for (u64 k = 0; k < pieces[i].n; k++)
			h = (h ^ static_cast<const u8 *>(pieces[i].p)[k]) * 0x100000001b3ull;
	for (unsigned i = 0; i < digest_bytes; i++)
		out[i] = u8(h >> 8 * (i % 8));
	return true;
}

struct Standby {
	static constexpr u64 most = 4096; /* frames that this one has */
	Image image{{mix, nullptr}};
	std::vector<u64> mem = std::vector<u64>(Image::bytes_for(most) / 8);
	std::vector<bool> came = std::vector<bool>(most);
	std::vector<u8> state;
	Machine machine{{}, 2};
	bool begun = false;

	Standby()
	{
		Actions a;
		machine.start(nullptr, Vm::None, false, 0, a);
		machine.step({.ev = Ev::LinkUp, .from = 1}, 0, a);
	}
	void frame(gfn_t g, const u8 *leaf)
	{
		u64 i;

		if (image.index(g, &i) != Status::Ok || image.page(g, leaf) != Status::Ok)
			fail("a frame that is covered is not taken");
		came[i] = true;
	}
	void take(const Header &h, const Body &b)
	{
		const bool mine = machine.receives(h.epoch, h.from, h.to) && begun;
		u8 leaf[digest_bytes];

		switch (h.msg) {
		case Msg::Begin: {
			Actions a;
			machine.step(to_event(h, b), 0, a);
			for (const Action &x : a) {
				if (x.act != Act::ImageNew)
					continue;
				Run slots[max_slots];
				for (u32 i = 0; i < b.ranges; i++)
					slots[i] = b.range(i);
				begun = image.begin(slots, b.ranges, mem.data(), mem.size() * 8, false) == Status::Ok;
				came.assign(most, false);
				state.clear();
			}
			return;
		}
		case Msg::Pages: {
			if (!mine || !image.covers(b.first, b.frames))
				return;
			const u8 *data = b.data;
			for (u32 i = 0; i < b.frames; i++) {
				if (b.zero >> i & 1)
					image.zero_leaf(leaf);
				else if (b.codec != Codec::None)
					return;
				else if (data + page_size > b.data + b.data_bytes)
					fail("fewer pages than were promised");
				else if (image.page_leaf(data, leaf))
					data += page_size;
				frame(b.first + i, leaf);
			}
			return;
		}
		case Msg::Same:
			if (mine && image.covers(b.first, b.frames))
				for (u32 i = 0; i < b.frames; i++)
					if (image.same(b.first + i, b.data + usize{i} * digest_bytes) == Status::Ok &&
					    !image.arrived(b.first + i))
						fail("taken as the same, but not there");
			return;
		case Msg::State:
			/* So large a buffer is of no interest. */
			if (!mine || b.total > 1 << 16 || image.state(b.total, b.offset, b.data_bytes) != Status::Ok)
				return;
			state.resize(b.total);
			std::memcpy(state.data() + b.offset, b.data, b.data_bytes);
			return;
		case Msg::End: {
			Event ev = to_event(h, b);
			Actions a;
			u64 n = 0;

			if (begun)
				ev.whole = image.check(b.end_frames, b.end_state, state.data(), &ev.mine);
			for (bool c : came)
				n += c;
			if (ev.whole && (n != image.frames() || b.end_frames != n || b.end_state != state.size()))
				fail("whole, but something is lacking");
			machine.step(ev, 0, a);
			if (machine.state() == State::Complete && ev.msg == Msg::End && ev.epoch == machine.epoch() &&
			    h.from == 1 && h.to == 2 && !begun)
				fail("complete without an image");
			return;
		}
		default: {
			Actions a;
			machine.step(to_event(h, b), 0, a);
			for (const Action &x : a)
				if (x.act == Act::VmLoad && !(begun && image.have() == image.frames() && image.state_whole()))
					fail("runs what is not whole");
		}
		}
	}
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Journal j;
	const Status s = j.load(data, size);

	if (s == Status::Ok) {
		u8 rec[Journal::record_bytes];
		std::vector<u8> file(data, data + min_of(size, usize{Journal::file_bytes}));
		const Record last = j.last();
		file.resize(Journal::file_bytes);
		std::memcpy(file.data() + j.next({.kind = Kind::Run, .flags = 0, .epoch = 5, .boot = 1, .peer = 0, .digest = {}},
						 rec), rec, sizeof(rec));
		Journal k;
		if (k.load(file.data(), file.size()) != Status::Ok || k.last().epoch != 5)
			fail("a record that was written is not the last");
		Machine m({}, last.boot);
		Actions a;
		m.start(&last, Vm::Stopped, false, 0, a);
	}

	Standby standby;
	/* The first byte of each message picks its type and its length's form: else most inputs end at the header. */
	while (size >= 4) {
		const u32 n = min_of<u32>(data[1] | u32{data[2]} << 8, u32(size - 4));
		const std::vector<u8> body(data + 4, data + 4 + n);
		const bool link = Msg(data[0]) == Msg::Hello || Msg(data[0]) == Msg::Ping;
		u8 head[header_bytes];
		Header h;

		put_header(head, {.msg = Msg(data[0]), .body = n, .vm = {{u8(!link)}}, .epoch = link ? 0u : u32(data[3] & 3),
				  .from = 1 + u64{data[3]} / 128, .to = 2, .seq = 0});
		/* Sometimes the header, too, is the input's own. */
		if ((data[3] & 64) && n != 0)
			std::memcpy(head, body.data(), min_of<usize>(n, sizeof(head)));
		if (get_header(head, &h) == Status::Ok && h.body <= n) {
			Body b;
			const std::vector<u8> exact(body.begin(), body.begin() + h.body);
			if (get_body(h, exact.data(), &b) == Status::Ok)
				standby.take(h, b);
		}
		data += 4 + n;
		size -= 4 + n;
	}
	return 0;
}
