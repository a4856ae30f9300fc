// SPDX-License-Identifier: GPL-2.0
#include "wire.h"
#include "bytes.h"

namespace redoubt::standby {

namespace {

constexpr u32 hello_bytes = 4 + name_bytes, ping_bytes = 16, begin_bytes = 8, pages_bytes = 24, same_bytes = 16,
	      state_bytes = 16, end_bytes = digest_bytes + 16, lacks_bytes = 8, run_bytes = 16,
	      ready_bytes = 16;
static_assert(pages_bytes + max_frames * page_size == max_body);
static_assert(same_bytes + max_same * digest_bytes <= max_body && lacks_bytes + max_ranges * run_bytes <= max_body);
static_assert(state_bytes + max_chunk <= max_body && ping_bytes + max_chunk <= max_body);

struct Bounds {
	u32 min, max;
};

/* What a body of the type can be long. max < min: there is no such type. */
constexpr Bounds bounds(Msg m)
{
	switch (m) {
	case Msg::Hello: return {hello_bytes, hello_bytes};
	case Msg::Ping: return {ping_bytes, ping_bytes + max_chunk};
	case Msg::Begin: return {begin_bytes + run_bytes, begin_bytes + max_slots * run_bytes};
	case Msg::Pages: return {pages_bytes, max_body};
	case Msg::Same: return {same_bytes + digest_bytes, same_bytes + max_same * digest_bytes};
	case Msg::State: return {state_bytes + 1, state_bytes + max_chunk};
	case Msg::End: return {end_bytes, end_bytes};
	case Msg::Lacks: return {lacks_bytes, lacks_bytes + max_ranges * run_bytes};
	case Msg::Prepared:
	case Msg::Commit: return {digest_bytes, digest_bytes};
	case Msg::Running:
	case Msg::Discard:
	case Msg::Discarded:
	case Msg::Empty:
	case Msg::Ask:
	case Msg::Gone:
	case Msg::Claim:
	case Msg::Yield: return {0, 0};
	case Msg::Ready: return {ready_bytes, ready_bytes};
	case Msg::None: break;
	}
	return {1, 0};
}

u32 put_runs(u8 *to, const Run *run, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		put64(to + usize{i} * run_bytes, run[i].first);
		put64(to + usize{i} * run_bytes + 8, run[i].count);
	}
	return n * run_bytes;
}

/* BEGIN's slots and LACKS' ranges: as many as fit the body exactly, frames that exist, ascending, disjoint. */
Status get_runs(const u8 *p, u32 body, Body *b)
{
	gfn_t from = 0;

	b->flags = get32(p);
	b->ranges = get32(p + 4);
	b->list = p + 8;
	if (b->ranges != (body - 8) / run_bytes || (body - 8) % run_bytes != 0)
		return Status::Inval;
	for (u32 i = 0; i < b->ranges; i++) {
		const Run r = b->range(i);

		if (!valid_frames(r.first, r.count) || r.first < from)
			return Status::Inval;
		from = r.first + r.count;
	}
	return Status::Ok;
}

Status get_pages(const u8 *p, u32 body, Body *b)
{
	b->first = get64(p);
	b->zero = get64(p + 8);
	b->data_bytes = get32(p + 16);
	b->frames = get16(p + 20);
	b->codec = static_cast<Codec>(p[22]);
	b->data = p + pages_bytes;
	if (b->frames == 0 || b->frames > max_frames || !valid_frames(b->first, b->frames) || p[23] != 0 ||
	    b->codec > Codec::Zstd || b->data_bytes != body - pages_bytes)
		return Status::Inval;
	if (b->frames < 64 && b->zero >> b->frames != 0)
		return Status::Inval;

	const u64 plain = (b->frames - popcount(b->zero)) * page_size;

	if (b->codec == Codec::None ? b->data_bytes != plain : b->data_bytes > plain || (b->data_bytes == 0) != (plain == 0))
		return Status::Inval;
	return Status::Ok;
}

Status get_same(const u8 *p, u32 body, Body *b)
{
	b->first = get64(p);
	b->frames = get32(p + 8);
	b->data = p + same_bytes;
	b->data_bytes = body - same_bytes;
	if (b->frames == 0 || b->frames > max_same || !valid_frames(b->first, b->frames) || get32(p + 12) != 0 ||
	    b->data_bytes != b->frames * digest_bytes)
		return Status::Inval;
	return Status::Ok;
}

Status get_state(const u8 *p, u32 body, Body *b)
{
	b->total = get64(p);
	b->offset = get64(p + 8);
	b->data = p + state_bytes;
	b->data_bytes = body - state_bytes;
	if (b->total > max_state || b->offset >= b->total || b->data_bytes > b->total - b->offset)
		return Status::Inval;
	return Status::Ok;
}

Status get_hello(const u8 *p, Body *b)
{
	b->min = get16(p);
	b->max = get16(p + 2);
	if (b->min == 0 || b->min > b->max)
		return Status::Inval;

	bool ended = false;

	/* It goes into a log. */
	for (u32 i = 0; i < name_bytes; i++) {
		const u8 ch = p[4 + i];

		ended |= ch == 0;
		if (ended ? ch != 0 : ch <= ' ' || ch >= 127)
			return Status::Inval;
		b->name[i] = static_cast<char>(ch);
	}
	return Status::Ok;
}

} // namespace

u32 put_header(u8 *to, const Header &h)
{
	put32(to, wire_magic);
	to[4] = wire_version;
	to[5] = static_cast<u8>(h.msg);
	put16(to + 6, 0);
	put32(to + 8, h.body);
	put32(to + 12, 0);
	copy_bytes(to + 16, h.vm.byte, sizeof(h.vm.byte));
	put64(to + 32, h.epoch);
	put64(to + 40, h.from);
	put64(to + 48, h.to);
	put64(to + 56, h.seq);
	return header_bytes;
}

u32 put_hello(u8 *to, const char *name)
{
	put16(to, wire_version);
	put16(to + 2, wire_version);
	for (u32 i = 0; i < name_bytes; i++) {
		to[4 + i] = static_cast<u8>(*name);
		if (*name != 0)
			name++;
	}
	return hello_bytes;
}

u32 put_ping(u8 *to, u64 cookie, bool answer)
{
	put64(to, cookie);
	put64(to + 8, answer);
	return ping_bytes;
}

u32 put_begin(u8 *to, u32 flags, const Run *slots, u32 n)
{
	put32(to, flags);
	put32(to + 4, n);
	return begin_bytes + put_runs(to + begin_bytes, slots, n);
}

u32 put_pages(u8 *to, gfn_t first, u32 frames, u64 zero, Codec codec, u32 data)
{
	put64(to, first);
	put64(to + 8, zero);
	put32(to + 16, data);
	put16(to + 20, static_cast<u16>(frames));
	to[22] = static_cast<u8>(codec);
	to[23] = 0;
	return pages_bytes;
}

u32 put_same(u8 *to, gfn_t first, u32 frames)
{
	put64(to, first);
	put64(to + 8, frames);
	return same_bytes;
}

u32 put_state(u8 *to, u64 total, u64 offset)
{
	put64(to, total);
	put64(to + 8, offset);
	return state_bytes;
}

u32 put_end(u8 *to, const Digest &digest, u64 frames, u64 state)
{
	put_digest(to, digest);
	put64(to + digest_bytes, frames);
	put64(to + digest_bytes + 8, state);
	return end_bytes;
}

u32 put_lacks(u8 *to, u32 flags, const Run *ranges, u32 n)
{
	put32(to, flags);
	put32(to + 4, n);
	return lacks_bytes + put_runs(to + lacks_bytes, ranges, n);
}

u32 put_digest(u8 *to, const Digest &digest)
{
	copy_bytes(to, digest.byte, digest_bytes);
	return digest_bytes;
}

u32 put_ready(u8 *to, Unready why, u64 frames)
{
	put32(to, static_cast<u32>(why));
	put32(to + 4, 0);
	put64(to + 8, frames);
	return ready_bytes;
}

Status get_header(const u8 *p, Header *h)
{
	*h = {};
	if (get32(p) != wire_magic)
		return Status::Inval;
	if (p[4] != wire_version)
		return Status::Refused;
	h->msg = static_cast<Msg>(p[5]);
	h->body = get32(p + 8);
	copy_bytes(h->vm.byte, p + 16, sizeof(h->vm.byte));
	h->epoch = get64(p + 32);
	h->from = get64(p + 40);
	h->to = get64(p + 48);
	h->seq = get64(p + 56);

	const Bounds b = bounds(h->msg);
	const bool link = h->msg == Msg::Hello || h->msg == Msg::Ping;

	if (get16(p + 6) != 0 || get32(p + 12) != 0 || h->body < b.min || h->body > b.max || h->from == 0)
		return Status::Inval;
	if (link ? !h->vm.none() || h->epoch != 0 : h->vm.none())
		return Status::Inval;
	/* An epoch that could not be counted on from would end the VM's moves for good. */
	if (h->epoch >> 63 != 0)
		return Status::Inval;
	return Status::Ok;
}

Run Body::range(u32 i) const
{
	return {get64(list + u64{i} * run_bytes), get64(list + u64{i} * run_bytes + 8)};
}

Status get_body(const Header &h, const u8 *p, Body *b)
{
	*b = {};
	switch (h.msg) {
	case Msg::Hello:
		return get_hello(p, b);
	case Msg::Ping:
		b->cookie = get64(p);
		b->answer = p[8] != 0;
		return get64(p + 8) <= 1 ? Status::Ok : Status::Inval;
	case Msg::Begin: {
		const Status s = get_runs(p, h.body, b);

		return s == Status::Ok && (b->flags & ~begin_live) == 0 ? Status::Ok : Status::Inval;
	}
	case Msg::Lacks: {
		const Status s = get_runs(p, h.body, b);

		return s == Status::Ok && (b->flags & ~(lacks_state | lacks_more)) == 0 ? Status::Ok : Status::Inval;
	}
	case Msg::Pages:
		return get_pages(p, h.body, b);
	case Msg::Same:
		return get_same(p, h.body, b);
	case Msg::State:
		return get_state(p, h.body, b);
	case Msg::End:
		copy_bytes(b->digest.byte, p, digest_bytes);
		b->end_frames = get64(p + digest_bytes);
		b->end_state = get64(p + digest_bytes + 8);
		return b->end_frames <= gfn_limit && b->end_state <= max_state ? Status::Ok : Status::Inval;
	case Msg::Prepared:
	case Msg::Commit:
		copy_bytes(b->digest.byte, p, digest_bytes);
		return Status::Ok;
	case Msg::Ready:
		b->unready = static_cast<Unready>(p[0]);
		b->ram_frames = get64(p + 8);
		return h.epoch == 0 && get32(p) <= static_cast<u32>(Unready::Memory) && get32(p + 4) == 0 && b->ram_frames <= gfn_limit ?
			       Status::Ok : Status::Inval;
	default:
		return Status::Ok;
	}
}

Event to_event(const Header &h, const Body &b)
{
	return {.ev = Ev::Message, .msg = h.msg, .whole = false, .from = h.from, .to = h.to, .epoch = h.epoch,
		.digest = b.digest, .mine = {}};
}

Header to_header(const Action &a, const Uuid &vm, u64 seq)
{
	return {.msg = a.msg, .body = 0, .vm = vm, .epoch = a.epoch, .from = a.from, .to = a.to, .seq = seq};
}

} // namespace redoubt::standby
