// SPDX-License-Identifier: GPL-2.0
#include "driver.h"

namespace redoubt {

namespace {

bool page_aligned(u64 a)
{
	return (a & (page_size - 1)) == 0;
}

} // namespace

const char *Driver::init(const rdt_driver_desc &d, u8 bits)
{
	if (d.size != sizeof(d) || d.flags)
		return "size or flags";
	for (u64 r : d.reserved)
		if (r)
			return "reserved fields";
	if (d.slots < 1 || d.slots > RDT_DRV_MAX_SLOTS)
		return "number of slots";
	if (d.regions < 1 || d.regions > RDT_DRV_MAX_REGIONS)
		return "number of regions";
	if (!page_aligned(d.cr3) || !page_aligned(d.idt_gpa) || !page_aligned(d.idt_gva))
		return "alignment of cr3 or the IDT";
	const u64 addresses[] = {d.idt_gva, d.gate_gva, d.exit_gva, d.call_gva, d.resume_gva};
	for (u64 va : addresses)
		if (!canonical(va, bits))
			return "an address is not canonical";
	for (unsigned i = 0; i < d.slots; i++)
		if (!canonical(d.stack_top[i], bits) || d.stack_top[i] & 15)
			return "a stack top";

	/* Insertion keeps them sorted; at most 201 of them. */
	auto add = [this](gfn_t first, u32 count, FrameKind k) {
		unsigned at = regions_;

		while (at && region_[at - 1].first > first)
			at--;
		if (at && region_[at - 1].first + region_[at - 1].count > first)
			return false;
		if (at < regions_ && first + count > region_[at].first)
			return false;
		for (unsigned i = regions_; i > at; i--)
			region_[i] = region_[i - 1];
		region_[at] = {first, count, k};
		regions_++;
		frames_ += k == FrameKind::Idt ? 0 : count;
		return true;
	};

	for (unsigned i = 0; i < d.regions; i++) {
		const rdt_drv_region &r = d.region[i];
		gfn_t first = r.gpa >> page_shift;

		if (!page_aligned(r.gpa) || !valid_frames(first, r.pages) || r.pages > 1u << 20)
			return "a region's range";
		if (r.kind < RDT_DRV_TEXT || r.kind > RDT_DRV_EXIT)
			return "a region's kind";

		gfn_t *door = r.kind == RDT_DRV_GATE   ? &gate_gfn
			      : r.kind == RDT_DRV_EXIT ? &exit_gfn
						       : nullptr;

		if (door) {
			if (*door != ~0ull || r.pages != 1)
				return "more than one GATE or EXIT page";
			*door = first;
		}
		if (!add(first, r.pages, static_cast<FrameKind>(r.kind)))
			return "regions overlap";
	}
	if (!valid_frames(d.idt_gpa >> page_shift, 1) ||
	    !add(d.idt_gpa >> page_shift, 1, FrameKind::Idt))
		return "the IDT's frame";
	if (kind(d.cr3 >> page_shift) != FrameKind::Data)
		return "cr3 is not on a DATA frame";
	if (d.call_gpa < 3 || kind((d.call_gpa - 3) >> page_shift) != FrameKind::Text ||
	    ((d.call_gva ^ d.call_gpa) & (page_size - 1)))
		return "the call gate is not on a TEXT frame";

	cr3 = d.cr3;
	idt_gfn = d.idt_gpa >> page_shift;
	idt_gva = d.idt_gva;
	gate_gva = d.gate_gva;
	exit_gva = d.exit_gva;
	call_gva = d.call_gva;
	call_gpa = d.call_gpa;
	resume_gva = d.resume_gva;
	slots = d.slots;
	va_bits = bits;
	for (unsigned i = 0; i < d.slots; i++)
		stack_top[i] = d.stack_top[i];
	return nullptr;
}

int Driver::below(gfn_t gfn) const
{
	unsigned lo = 0, hi = regions_;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (region_[mid].first <= gfn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return static_cast<int>(lo) - 1;
}

FrameKind Driver::kind(gfn_t gfn) const
{
	int i = below(gfn);

	if (i < 0 || gfn - region_[i].first >= region_[i].count)
		return FrameKind::None;
	return region_[i].kind;
}

} // namespace redoubt
