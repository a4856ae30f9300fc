// SPDX-License-Identifier: GPL-2.0
/* What a domain is made of: its descriptor, pages, windows and measurement. */
#include "domain.h"

namespace redoubt {

namespace {

bool page_aligned(u64 a)
{
	return (a & (page_size - 1)) == 0;
}

constexpr u64 page_of(u64 a)
{
	return a & ~(page_size - 1);
}

/* Behind the last page there is nothing: no aligned address is as high. */
constexpr u64 end_of(u64 gva, u64 pages)
{
	u64 end = gva + (pages << page_shift);

	return end ? end : ~0ull;
}

constexpr u64 max_window = 1u << 15;

} // namespace

/* All of it canonical, in one half; the lower one for ring 3. Pages are not so many as to wrap to it. */
bool Domain::in_domain(u64 gva, u64 pages) const
{
	u64 last = gva + (pages << page_shift) - 1;

	return canonical(gva, gate.va_bits) && canonical(last, gate.va_bits) &&
	       gva >> 63 == last >> 63 && (gate.cpl == 0 || gva >> 63 == 0);
}

/* What a domain has and a secret has not, and the other way round. */
static const char *wrong_for_secret(const rdt_domain_desc &d)
{
	constexpr u32 rsp = 1u << 4, r11 = 1u << 11, all = 0xffff;
	const bool secret = d.flags & RDT_DOM_SECRET, rewind = d.flags & RDT_DOM_REWIND;

	if (rewind && !secret)
		return "domain: a call that begins again is a secret's";
	if (!secret && d.results)
		return "domain: results are a secret's";
	if (d.results & ~(all & ~rsp))
		return "secret: which registers are results";
	if (rewind ? !d.erased || d.erased & ~(all & ~rsp & ~r11) : d.erased || d.erasure)
		return "secret: which registers are erased";
	if (rewind && d.resume_gva)
		return "secret: a call that begins again has no stub";
	if (secret && d.windows)
		return "secret: it has no windows";
	if (secret && d.flags & RDT_DOM_EXPORTABLE)
		return "secret: it does not travel";
	return nullptr;
}

/* A secret may be loaded anywhere; what it is does not depend on it. */
u64 Domain::measured_from() const
{
	return gate.secret ? page_of(gate.gate_gva) : 0;
}

const char *Domain::create(const rdt_domain_desc &d, u8 view, u8 work_view, u8 va_bits, u64 new_epoch,
			   void *sha)
{
	/* Of a domain that is Gone nothing is believed: it may be half made after an error. */
	gate.view = view;
	gate.work_view = work_view;
	gate.cpl = d.flags & RDT_DOM_USER ? 3 : 0;
	gate.va_bits = va_bits;
	gate.domain = true;
	gate.idt_gva = 1ull << 63; /* none */
	gate.own_first = ~0ull;
	gate.own_last = 0;
	gate.cr3 = 0;
	gate.gate_gva = d.gate_gva;
	gate.exit_gva = d.exit_gva;
	gate.resume_gva = d.resume_gva;
	gate.gate_gfn = gate.exit_gfn = ~0ull;
	gate.secret = false; /* an access() that is late asks nothing else */
	gate.rewind = d.flags & RDT_DOM_REWIND;
	gate.text = RDT_ACC_X | (rdt_port_execute_only() ? 0 : RDT_ACC_R);
	gate.results = static_cast<u16>(d.results);
	gate.erased = static_cast<u16>(d.erased);
	gate.erasure = d.erasure;

	if (d.size != sizeof(d) || d.flags & ~u32{RDT_DOM_USER | RDT_DOM_VECTOR | RDT_DOM_SECRET |
						  RDT_DOM_REWIND | RDT_DOM_EXPORTABLE})
		return "domain: size or flags";
	if (const char *wrong = wrong_for_secret(d))
		return wrong;
	for (u64 r : d.reserved)
		if (r)
			return "domain: reserved fields";
	if (d.slots < 1 || d.slots > RDT_DOM_MAX_SLOTS)
		return "domain: number of slots";
	if (d.windows > RDT_DOM_MAX_WINDOWS)
		return "domain: number of windows";
	if (!in_domain(page_of(d.gate_gva), 1) || !in_domain(page_of(d.exit_gva), 1) ||
	    !canonical(d.resume_gva, va_bits))
		return "domain: an address is not canonical, or in the wrong half";
	if (page_of(d.gate_gva) == page_of(d.exit_gva))
		return "domain: GATE and EXIT on one page";
	for (unsigned i = 0; i < RDT_DOM_MAX_SLOTS; i++) {
		u64 top = d.stack_top[i];

		/* Its first push goes below. */
		if (i < d.slots && !(d.flags & RDT_DOM_SECRET)
			    ? top & 15 || top < page_size || !in_domain(page_of(top - 8), 1)
			    : top)
			return "domain: a stack top";
		gate.stack_top[i] = top;
	}

	u64 above = 0;

	for (unsigned i = 0; i < RDT_DOM_MAX_WINDOWS; i++) {
		const rdt_domain_window &w = d.window[i];

		if (i >= d.windows ? w.gva || w.pages
				   : !page_aligned(w.gva) || w.gva < above || w.pages < 1 ||
					     w.pages > max_window || !in_domain(w.gva, w.pages))
			return "domain: a window";
		window_[i] = w;
		above = end_of(w.gva, w.pages);
		if (i < d.windows)
			owns(w.gva, above - 1);
	}

	gate.secret = d.flags & RDT_DOM_SECRET;
	gate.slots = d.slots;
	nwindows_ = d.windows;
	flags = d.flags;
	frames = 0;
	next_gva_ = 0;
	enters = aexits = 0;
	installs = 0;
	write_once(nshared_, 0u);
	sha_ = sha;

	const struct {
		char tag[16];
		u32 flags, slots, windows, zero;
		u64 gate_gva, exit_gva;
	} head = {{'r', 'e', 'd', 'o', 'u', 'b', 't', '-', 'd', 'o', 'm', 'a', 'i', 'n', '-', '1'},
		  d.flags,
		  d.slots,
		  d.windows,
		  0,
		  d.gate_gva - measured_from(),
		  d.exit_gva - measured_from()};
	const struct {
		u32 results, erased;
		u64 erasure;
	} secret = {d.results, d.erased, d.erasure};

	static_assert(sizeof(head) == 48 && sizeof(secret) == 16);
	hash(&head, sizeof(head));
	if (gate.secret)
		hash(&secret, sizeof(secret));
	hash(d.stack_top, d.slots * sizeof(d.stack_top[0]));
	hash(d.window, d.windows * sizeof(d.window[0]));
	/* Before anything else is of the new epoch, nothing is to be found by it. */
	store_release(epoch, new_epoch);
	set_state(State::Building);
	return nullptr;
}

void Domain::hash(const void *data, usize bytes)
{
	if (bytes)
		rdt_port_sha256_update(sha_, data, bytes);
}

bool Domain::fits(u64 gva, u64 pages, u64 kind) const
{
	if (gate.secret && (kind == RDT_DOM_TABLE || kind == RDT_DOM_DATA))
		return false;
	if (kind == RDT_DOM_TABLE)
		return gva == 0;
	if (kind < RDT_DOM_TEXT || kind > RDT_DOM_EXIT || !page_aligned(gva) || gva < next_gva_ ||
	    !in_domain(gva, pages))
		return false;
	if (kind == RDT_DOM_GATE)
		return pages == 1 && gva == page_of(gate.gate_gva);
	if (kind == RDT_DOM_EXIT)
		return pages == 1 && gva == page_of(gate.exit_gva);
	return true;
}

void Domain::owns(u64 first, u64 last)
{
	gate.own_first = min_of(gate.own_first, first);
	if (gate.own_last < last)
		gate.own_last = last;
}

void Domain::add(Run *r)
{
	r->next = runs;
	runs = r;
	frames += r->count;
	if (r->kind == RDT_DOM_TABLE)
		return;
	next_gva_ = end_of(r->gva, r->count);
	owns(r->gva, next_gva_ - 1);
	if (r->kind == RDT_DOM_GATE)
		gate.gate_gfn = r->first;
	else if (r->kind == RDT_DOM_EXIT)
		gate.exit_gfn = r->first;
	for (u32 i = 0; i < r->count; i++) {
		const u64 head[2] = {r->gva + (u64{i} << page_shift) - measured_from(), r->kind};

		hash(head, sizeof(head));
		hash(r->page[i].own, page_size);
	}
}

bool Domain::address(gfn_t gfn, u64 *gva) const
{
	for (const Run *r = runs; r; r = r->next)
		if (gfn - r->first < r->count) {
			*gva = r->gva + ((gfn - r->first) << page_shift);
			return true;
		}
	return false;
}

Domain::Run *Domain::run_at(u64 gva) const
{
	for (Run *r = runs; r; r = r->next)
		if (r->kind != RDT_DOM_TABLE && gva >= r->gva && (gva - r->gva) >> page_shift < r->count)
			return r;
	return nullptr;
}

static u8 *byte_of(const Domain::Run &r, u64 gva)
{
	return static_cast<u8 *>(r.page[(gva - r.gva) >> page_shift].own) + (gva & (page_size - 1));
}

/* By what was measured: an inside may have changed its tables. */
u8 *Domain::installable(u64 gva) const
{
	const Run *r = run_at(gva);

	if (!r || (gate.secret ? r->kind != RDT_DOM_GATE : r->kind != RDT_DOM_TEXT && r->kind != RDT_DOM_DATA))
		return nullptr;
	return byte_of(*r, gva);
}

Status Domain::share(gfn_t first, u64 gva, u64 pages)
{
	bool inside = false;

	if (!page_aligned(gva) || pages < 1 || pages > max_window || !in_domain(gva, pages))
		return Status::Inval;
	for (u32 i = 0; i < nwindows_; i++) {
		u64 at = (gva - window_[i].gva) >> page_shift;

		inside |= gva >= window_[i].gva && at < window_[i].pages && pages <= window_[i].pages - at;
	}
	for (u32 i = 0; i < nshared_; i++) {
		const Shared &s = shared_[i];

		inside &= gva >= end_of(s.gva, s.count) || s.gva >= end_of(gva, pages);
	}
	if (!inside)
		return Status::Inval;
	if (nshared_ == RDT_DOM_MAX_SHARED)
		return Status::NoMem;
	shared_[nshared_] = {first, pages, gva};
	store_release(nshared_, nshared_ + 1); /* pairs with shares() */
	return Status::Ok;
}

void Domain::measured()
{
	hash("sealed", 6);
	rdt_port_sha256_end(sha_, measurement);
	sha_ = nullptr;
}

bool Domain::make_room(Slot &s, void *host) const
{
	if (flags & RDT_DOM_VECTOR && !s.vector)
		s.vector = rdt_port_vector_alloc(host);
	if (flags & RDT_DOM_USER && !s.segments)
		s.segments = rdt_port_segments_alloc(host);
	return (s.vector || !(flags & RDT_DOM_VECTOR)) && (s.segments || !(flags & RDT_DOM_USER));
}

void Domain::bury(void *host)
{
	for (u32 i = 0; i < gate.slots; i++) {
		Slot &s = slots[i];

		scrub(&s.context, sizeof(s.context));
		scrub(&s.caller, sizeof(s.caller));
		if (s.vector)
			rdt_port_vector_free(host, s.vector);
		if (s.segments)
			rdt_port_segments_free(host, s.segments);
		s.vector = s.segments = nullptr;
	}
	if (sha_)
		rdt_port_sha256_end(sha_, nullptr);
	sha_ = nullptr;
	write_once(nshared_, 0u);
	scrub(measurement, sizeof(measurement));
	gate.gate_gfn = gate.exit_gfn = ~0ull;
	gate.secret = false;
	set_state(State::Gone);
}

} // namespace redoubt
