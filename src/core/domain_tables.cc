// SPDX-License-Identifier: GPL-2.0
/*
 * A domain's guest page tables, made of its list of pages in its TABLE frames. Only
 * private pages are read and written here: nothing of it is the guest's word.
 */
#include "domain.h"

namespace redoubt {

namespace {

/* Intel SDM, AMD APM: 4 KiB paging entries. */
constexpr u64 pte_present = 1, pte_write = 1u << 1, pte_user = 1u << 2, pte_accessed = 1u << 5,
	      pte_dirty = 1u << 6, pte_nx = 1ull << 63;
constexpr unsigned level_bits = 9;
/* Accessed and dirty already, so that a walk has nothing to write. */
constexpr u64 absent_entry = absent_gfn << page_shift | pte_present | pte_write | pte_accessed | pte_dirty;

constexpr unsigned slot_of(u64 gva, unsigned level)
{
	return static_cast<unsigned>(gva >> (page_shift + level * level_bits)) % (1u << level_bits);
}

constexpr gfn_t gfn_of(u64 pte)
{
	return (pte & ~pte_nx) >> page_shift;
}

u64 *table(const FrameMap &map, gfn_t gfn)
{
	return static_cast<u64 *>(map.find(gfn).page());
}

} // namespace

/* The next blank TABLE frame; nullptr: none is left. */
u64 *Domain::take_table(u64 *gpa)
{
	while (table_run_ && (table_run_->kind != RDT_DOM_TABLE || table_at_ == table_run_->count)) {
		table_run_ = table_run_->next;
		table_at_ = 0;
	}
	if (!table_run_)
		return nullptr;
	*gpa = (table_run_->first + table_at_) << page_shift;
	return static_cast<u64 *>(table_run_->page[table_at_++].own);
}

void Domain::blank_tables()
{
	for (Run *r = runs; r; r = r->next)
		for (u32 i = 0; r->kind == RDT_DOM_TABLE && i < r->count; i++)
			scrub(r->page[i].own, page_size);
}

/*
 * An access that leads nowhere is to be a nested page fault: a #PF would go to the guest's kernel,
 * which finds that the process has the page, and so on for ever. In a ring 3 domain that takes the user bit,
 * but not for what the CPU does as the kernel: to read the IDT (under SMAP) and fetch the handler of a
 * SYSCALL (under SMEP). So it is set in the lower half: a kernel with SMAP has its IDT in the upper one, or
 * comes to its end by an event inside.
 */
void Domain::fill_half(const FrameMap &map, u64 *t, unsigned level, unsigned entries)
{
	for (unsigned n = 0; n < entries; n++) {
		if (!t[n])
			t[n] = absent_entry | pte_user;
		else if (level)
			fill_half(map, table(map, gfn_of(t[n])), level - 1, 1u << level_bits);
	}
}

void Domain::fill_tables(const FrameMap &map)
{
	const unsigned top = gate.va_bits == 57 ? 4 : 3;

	if (gate.cpl == 3)
		fill_half(map, table(map, gate.cr3 >> page_shift), top, 1u << (level_bits - 1));
	for (Run *r = runs; r; r = r->next)
		for (u32 i = 0; r->kind == RDT_DOM_TABLE && i < r->count; i++)
			for (unsigned n = 0; n < 1u << level_bits; n++) {
				u64 &e = static_cast<u64 *>(r->page[i].own)[n];

				if (!e)
					e = absent_entry;
			}
}

bool Domain::map_page(const FrameMap &map, u64 gva, gfn_t gfn, u64 bits, Status *why)
{
	const unsigned top = gate.va_bits == 57 ? 4 : 3;
	u64 *t = table(map, gate.cr3 >> page_shift);

	for (unsigned level = top; level; level--) {
		u64 &e = t[slot_of(gva, level)];

		if (!e) {
			u64 gpa = 0;

			if (!take_table(&gpa)) {
				*why = Status::NoNodes;
				return false;
			}
			e = gpa | pte_present | pte_write | pte_accessed | (bits & pte_user);
		}
		t = table(map, gfn_of(e));
	}

	u64 &e = t[slot_of(gva, 0)];

	if (e) {
		*why = Status::Inval;
		return false;
	}
	/* Set already, so that a walk has nothing to write. */
	e = gfn << page_shift | bits | pte_present | pte_accessed | pte_dirty;
	return true;
}

Status Domain::build(const FrameMap &map)
{
	const u64 user = gate.cpl == 3 ? pte_user : 0;
	u64 wanted = 0, given = 0;
	Status why = Status::NoNodes;
	bool ok = true;
	gfn_t gfn;

	for (u32 i = 0; i < nwindows_; i++)
		wanted += window_[i].pages;
	for (u32 i = 0; i < nshared_; i++)
		given += shared_[i].count;
	if (gate.gate_gfn == ~0ull || gate.exit_gfn == ~0ull || given != wanted)
		return Status::Inval;
	if (gate.secret)
		return Status::Ok;

	/* A try that failed before has left nothing. */
	table_run_ = runs;
	table_at_ = 0;
	ok = take_table(&gate.cr3) != nullptr;

	for (Run *r = runs; ok && r; r = r->next) {
		u64 bits = user | (r->kind == RDT_DOM_DATA ? pte_write | pte_nx : 0);

		for (u32 i = 0; ok && r->kind != RDT_DOM_TABLE && i < r->count; i++)
			ok = map_page(map, r->gva + (u64{i} << page_shift), r->first + i, bits, &why);
	}
	for (u32 i = 0; ok && i < nshared_; i++)
		for (u64 n = 0; ok && n < shared_[i].count; n++)
			ok = map_page(map, shared_[i].gva + (n << page_shift), shared_[i].first + n,
				      user | pte_write | pte_nx, &why);
	/* What is pushed is the domain's alone. */
	for (u32 i = 0; ok && i < gate.slots; i++) {
		why = Status::Inval;
		ok = walk(map, gate.stack_top[i] - 8, &gfn) && map.find(gfn).kind() == RDT_DOM_DATA &&
		     map.find(gfn).view() == gate.view;
	}
	if (ok) {
		fill_tables(map);
		return Status::Ok;
	}
	blank_tables();
	gate.cr3 = 0;
	return why;
}

/* An inside may have changed its tables: what they lead to is for the caller to check. */
bool Domain::walk(const FrameMap &map, u64 gva, gfn_t *gfn) const
{
	gfn_t at = gate.cr3 >> page_shift;

	if (!canonical(gva, gate.va_bits))
		return false;
	for (unsigned level = gate.va_bits == 57 ? 5 : 4; level--;) {
		const Owner o = map.find(at);

		if (o.view() != gate.view || o.kind() != RDT_DOM_TABLE)
			return false;

		u64 e = read_once(static_cast<const u64 *>(o.page())[slot_of(gva, level)]);

		if (!(e & pte_present))
			return false;
		at = gfn_of(e);
	}
	*gfn = at;
	return true;
}

} // namespace redoubt
