// SPDX-License-Identifier: GPL-2.0
/*
 * B5, bad input: the driver's descriptor. Each field wrong in each way, then a fuzz
 * of a right one: it is refused, or what was taken over satisfies every invariant.
 */
#include <algorithm>
#include <cstddef>
#include <map>
#include <random>

#include "driver.h"
#include "vm_world.h"

using namespace redoubt;

namespace {

struct Spoil {
	const char *what;
	void (*by)(rdt_driver_desc &);
};

const Spoil spoils[] = {
	{"size one less", [](rdt_driver_desc &d) { d.size--; }},
	{"size one more", [](rdt_driver_desc &d) { d.size++; }},
	{"size 0", [](rdt_driver_desc &d) { d.size = 0; }},
	{"flags", [](rdt_driver_desc &d) { d.flags = 1; }},
	{"high flag", [](rdt_driver_desc &d) { d.flags = 1u << 31; }},
	{"first reserved", [](rdt_driver_desc &d) { d.reserved[0] = 1; }},
	{"last reserved", [](rdt_driver_desc &d) { d.reserved[4] = 1ul << 63; }},
	{"no slots", [](rdt_driver_desc &d) { d.slots = 0; }},
	{"a slot too many", [](rdt_driver_desc &d) { d.slots = RDT_DRV_MAX_SLOTS + 1; }},
	{"2^32 - 1 slots", [](rdt_driver_desc &d) { d.slots = ~0u; }},
	{"no regions", [](rdt_driver_desc &d) { d.regions = 0; }},
	{"a region too many", [](rdt_driver_desc &d) { d.regions = RDT_DRV_MAX_REGIONS + 1; }},
	{"2^32 - 1 regions", [](rdt_driver_desc &d) { d.regions = ~0u; }},
	{"cr3 unaligned", [](rdt_driver_desc &d) { d.cr3 |= 8; }},
	{"cr3 with a PCID", [](rdt_driver_desc &d) { d.cr3 |= 1; }},
	{"cr3 with bit 63", [](rdt_driver_desc &d) { d.cr3 |= 1ul << 63; }},
	{"cr3 in text", [](rdt_driver_desc &d) { d.cr3 = gpa_of(lay::text); }},
	{"cr3 in the gate", [](rdt_driver_desc &d) { d.cr3 = gpa_of(lay::gate); }},
	{"cr3 in plain RAM", [](rdt_driver_desc &d) { d.cr3 = gpa_of(lay::plain); }},
	{"cr3 behind the data", [](rdt_driver_desc &d) { d.cr3 = gpa_of(lay::data_end); }},
	{"IDT unaligned", [](rdt_driver_desc &d) { d.idt_gpa += 16; }},
	{"IDT address unaligned", [](rdt_driver_desc &d) { d.idt_gva += 16; }},
	{"IDT in the text", [](rdt_driver_desc &d) { d.idt_gpa = gpa_of(lay::text); }},
	{"IDT in the data", [](rdt_driver_desc &d) { d.idt_gpa = gpa_of(lay::data_end - 1); }},
	{"IDT beyond physical addresses", [](rdt_driver_desc &d) { d.idt_gpa = 1ul << 52; }},
	{"IDT at the highest address", [](rdt_driver_desc &d) { d.idt_gpa = ~0ul << 12; }},
	{"IDT not canonical", [](rdt_driver_desc &d) { d.idt_gva = 1ul << 48; }},
	{"gate not canonical", [](rdt_driver_desc &d) { d.gate_gva = 1ul << 47; }},
	{"exit not canonical", [](rdt_driver_desc &d) { d.exit_gva ^= 1ul << 63; }},
	{"call not canonical", [](rdt_driver_desc &d) { d.call_gva ^= 1ul << 50; }},
	{"stub not canonical", [](rdt_driver_desc &d) { d.resume_gva &= ~(1ul << 60); }},
	{"stub canonical with five levels only", [](rdt_driver_desc &d) { d.resume_gva = 0xff12345678901000; }},
	{"call in the data", [](rdt_driver_desc &d) { d.call_gpa = gpa_of(lay::data) + 0x43; }},
	{"call in plain RAM", [](rdt_driver_desc &d) { d.call_gpa = gpa_of(lay::plain) + 0x43; }},
	{"call at 0", [](rdt_driver_desc &d) { d.call_gpa = 0; d.call_gva &= ~0xffful; }},
	{"call at 2: the instruction would be at -1", [](rdt_driver_desc &d) { d.call_gpa = 2; d.call_gva = (d.call_gva & ~0xffful) | 2; }},
	{"call's two offsets differ", [](rdt_driver_desc &d) { d.call_gpa++; }},
	{"call beyond physical addresses", [](rdt_driver_desc &d) { d.call_gpa |= 1ul << 52; }},
	{"a stack unaligned", [](rdt_driver_desc &d) { d.stack_top[0] += 8; }},
	{"the last stack unaligned", [](rdt_driver_desc &d) { d.stack_top[1] += 1; }},
	{"a stack not canonical", [](rdt_driver_desc &d) { d.stack_top[1] = 1ul << 47; }},
	{"region unaligned", [](rdt_driver_desc &d) { d.region[2].gpa |= 1; }},
	{"region without pages", [](rdt_driver_desc &d) { d.region[2].pages = 0; }},
	{"region too long, and nothing else", [](rdt_driver_desc &d) { d.region[d.regions++] = {gpa_of(1 << 20), (1 << 20) + 1, RDT_DRV_DATA}; }},
	{"region of 2^32 - 1 pages", [](rdt_driver_desc &d) { d.region[3].pages = ~0u; }},
	{"region beyond physical addresses", [](rdt_driver_desc &d) { d.region[2].gpa = 1ul << 52; }},
	{"region reaching beyond", [](rdt_driver_desc &d) { d.region[2] = {(1ul << 52) - 4096, 2, RDT_DRV_EXIT}; }},
	{"region at the highest address", [](rdt_driver_desc &d) { d.region[2].gpa = ~0ul << 12; }},
	{"kind 0", [](rdt_driver_desc &d) { d.region[0].kind = 0; }},
	{"kind 5, the core's own", [](rdt_driver_desc &d) { d.region[0].kind = 5; }},
	{"kind 256 + 1", [](rdt_driver_desc &d) { d.region[0].kind = 257; }},
	{"two gates", [](rdt_driver_desc &d) { d.region[d.regions++] = {gpa_of(lay::plain), 1, RDT_DRV_GATE}; }},
	{"a gate of two pages", [](rdt_driver_desc &d) { d.region[2] = {gpa_of(lay::plain), 1, RDT_DRV_EXIT}; d.region[1].pages = 2; }},
	{"two exits", [](rdt_driver_desc &d) { d.region[d.regions++] = {gpa_of(lay::plain), 1, RDT_DRV_EXIT}; }},
	{"an exit of 2^20 pages", [](rdt_driver_desc &d) { d.region[2] = {gpa_of(1 << 20), 1 << 20, RDT_DRV_EXIT}; }},
	{"the same region twice", [](rdt_driver_desc &d) { d.region[d.regions++] = d.region[1]; }},
	{"overlap at the front", [](rdt_driver_desc &d) { d.region[d.regions++] = {gpa_of(lay::data - 2), 3, RDT_DRV_DATA}; }},
	{"overlap at the end", [](rdt_driver_desc &d) { d.region[d.regions++] = {gpa_of(lay::data_end - 1), 3, RDT_DRV_DATA}; }},
	{"overlap in the middle", [](rdt_driver_desc &d) { d.region[d.regions++] = {gpa_of(lay::data + 3), 1, RDT_DRV_DATA}; }},
	{"overlap all round", [](rdt_driver_desc &d) { d.region[d.regions++] = {gpa_of(1), 500, RDT_DRV_DATA}; }},
};

/* What holds of a driver that was accepted, found out in ways of our own. */
void check_invariants(const rdt_driver_desc &d, const Driver &drv)
{
	u64 frames = 0;
	unsigned gates = 0, exits = 0;

	ASSERT_GE(d.slots, 1u);
	ASSERT_LE(d.slots, unsigned{RDT_DRV_MAX_SLOTS});
	ASSERT_GE(d.regions, 1u);
	ASSERT_LE(d.regions, unsigned{RDT_DRV_MAX_REGIONS});
	ASSERT_EQ(drv.slots, d.slots);
	ASSERT_EQ(drv.regions(), d.regions + 1);
	ASSERT_EQ(drv.idt_gfn, d.idt_gpa >> page_shift);
	/* Sorted, disjoint, inside physical memory. */
	for (unsigned i = 0; i < drv.regions(); i++) {
		const Driver::Region &r = drv.region(i);

		ASSERT_TRUE(valid_frames(r.first, r.count));
		if (i)
			ASSERT_GE(r.first, drv.region(i - 1).first + drv.region(i - 1).count);
	}
	/* Each region of the descriptor is there, with its kind at both ends and not around. */
	for (unsigned i = 0; i < d.regions; i++) {
		const gfn_t first = d.region[i].gpa >> page_shift, last = first + d.region[i].pages - 1;

		ASSERT_EQ(static_cast<u32>(drv.kind(first)), d.region[i].kind);
		ASSERT_EQ(static_cast<u32>(drv.kind(last)), d.region[i].kind);
		frames += d.region[i].pages;
		gates += d.region[i].kind == RDT_DRV_GATE;
		exits += d.region[i].kind == RDT_DRV_EXIT;
	}
	/* The doors are one page each, and known by number. */
	ASSERT_LE(gates, 1u);
	ASSERT_LE(exits, 1u);
	ASSERT_EQ(drv.gate_gfn == ~0ul, gates == 0);
	ASSERT_EQ(drv.exit_gfn == ~0ul, exits == 0);
	ASSERT_EQ(drv.kind(drv.gate_gfn), gates ? FrameKind::Gate : FrameKind::None);
	ASSERT_EQ(drv.kind(drv.exit_gfn), exits ? FrameKind::Exit : FrameKind::None);
	ASSERT_EQ(drv.frames(), frames);
	ASSERT_EQ(drv.kind(drv.idt_gfn), FrameKind::Idt);
	ASSERT_EQ(drv.kind(drv.cr3 >> page_shift), FrameKind::Data);
	ASSERT_EQ(drv.cr3 & 0xfff, 0u);
	ASSERT_EQ(drv.kind((drv.call_gpa - 3) >> page_shift), FrameKind::Text);
	/* Addresses that a VM entry takes. */
	for (u64 va : {drv.idt_gva, drv.gate_gva, drv.exit_gva, drv.call_gva, drv.resume_gva})
		ASSERT_TRUE(canonical(va, drv.va_bits));
	for (unsigned i = 0; i < drv.slots; i++) {
		ASSERT_TRUE(canonical(drv.stack_top[i], drv.va_bits));
		ASSERT_EQ(drv.stack_top[i] % 16, 0u);
	}
}

/* Interesting numbers: borders of every check, and what wraps. */
u64 number(std::mt19937_64 &rng)
{
	switch (rng() % 8) {
	case 0:
		return rng();
	case 1:
		return 1ul << (rng() % 64);
	case 2:
		return (1ul << (rng() % 64)) - 1;
	case 3:
		return ~0ul << (rng() % 64);
	case 4:
		return rng() % 600 << page_shift;
	case 5:
		return (rng() % 600 << page_shift) + rng() % 5 - 2;
	case 6:
		return rng() % 300;
	default:
		return 0;
	}
}

/* One field as a whole, a byte, or a bit. */
void mutate(rdt_driver_desc &d, std::mt19937_64 &rng)
{
	u64 *words = reinterpret_cast<u64 *>(&d);
	u8 *bytes = reinterpret_cast<u8 *>(&d);
	/* Most of a descriptor is unused room: aim at what is looked at. */
	constexpr usize head = offsetof(rdt_driver_desc, stack_top) / 8,
			tail = offsetof(rdt_driver_desc, region) / 8;
	const usize at = rng() % 3 == 0 ? tail + rng() % 10 : rng() % (head + 3);

	switch (rng() % 8) {
	case 0:
	case 1:
		words[at] = number(rng);
		break;
	case 2:
		bytes[at * 8 + rng() % 8] = static_cast<u8>(rng());
		break;
	case 3:
		words[at] ^= 1ul << (rng() % 64);
		break;
	case 4:
		words[at] += rng() % 33 - 16;
		break;
	case 5: { /* another region, perhaps a right one */
		if (d.regions >= 1 && d.regions < RDT_DRV_MAX_REGIONS)
			d.region[d.regions++] = {gpa_of(rng() % 600), static_cast<u32>(rng() % 12 + 1),
						 static_cast<u32>(rng() % 8 ? rng() % 2 + 1 : rng() % 6)};
		break;
	}
	case 6:
		d.regions = static_cast<u32>(rng() % 203);
		break;
	default:
		d.slots = static_cast<u32>(rng() % 67);
		break;
	}
}

} // namespace

TEST(B5, EachFieldOfTheDescriptor)
{
	World w;

	w.give_nodes();
	w.quiet();
	const Snapshot before = w.snapshot();

	for (const Spoil &s : spoils) {
		SCOPED_TRACE(s.what);
		rdt_driver_desc d = good_desc();

		s.by(d);
		EXPECT_NE(Driver().init(d, 48), nullptr);
		EXPECT_EQ(w.seal(d), -22);
		EXPECT_EQ(w.host.take_log().size(), 1u) << "its name is in the host's log";
		EXPECT_TRUE(w.host.take_events().empty());
		EXPECT_EQ(before.diff(w.snapshot()), "");
	}
	EXPECT_EQ(w.seal(good_desc()), 0) << "and the right one is right";
}

/* The other side of each border. */
TEST(B5, DescriptorsThatAreJustRight)
{
	const Spoil right[] = {
		{"most slots", [](rdt_driver_desc &d) {
			 d.slots = RDT_DRV_MAX_SLOTS;
			 for (unsigned i = 0; i < d.slots; i++)
				 d.stack_top[i] = lay::stack(i);
		 }},
		{"most regions", [](rdt_driver_desc &d) {
			 for (unsigned i = 4; i < RDT_DRV_MAX_REGIONS; i++)
				 d.region[i] = {gpa_of(1000 + i), 1, i % 2 + 1};
			 d.regions = RDT_DRV_MAX_REGIONS;
		 }},
		{"most regions, from the top", [](rdt_driver_desc &d) {
			 for (unsigned i = 4; i < RDT_DRV_MAX_REGIONS; i++)
				 d.region[i] = {gpa_of(1000 - i), 1, i % 2 + 1};
			 d.regions = RDT_DRV_MAX_REGIONS;
		 }},
		{"the longest region", [](rdt_driver_desc &d) { d.region[4] = {gpa_of(1 << 20), 1 << 20, RDT_DRV_DATA}; d.regions = 5; }},
		{"a region that ends where memory can end", [](rdt_driver_desc &d) { d.region[4] = {(1ul << 52) - 8192, 2, RDT_DRV_DATA}; d.regions = 5; }},
		{"IDT in the last frame", [](rdt_driver_desc &d) { d.idt_gpa = (1ul << 52) - 4096; }},
		{"IDT in frame 0", [](rdt_driver_desc &d) { d.idt_gpa = 0; }},
		{"IDT between two regions", [](rdt_driver_desc &d) { d.idt_gpa = gpa_of(lay::data_end); d.region[4] = {gpa_of(lay::data_end + 1), 1, RDT_DRV_DATA}; d.regions = 5; }},
		{"the call at the start of its page", [](rdt_driver_desc &d) { d.call_gpa = gpa_of(lay::text) + 3; d.call_gva = (d.call_gva & ~0xffful) + 3; }},
		{"the call at the end of its page", [](rdt_driver_desc &d) { d.call_gpa = gpa_of(lay::call + 1); d.call_gva = (d.call_gva & ~0xffful) + 4096; }},
		{"lower half", [](rdt_driver_desc &d) { d.gate_gva = (1ul << 47) - 0x1000 + 0x10; }},
		{"no gate, for who enters by hypercall only", [](rdt_driver_desc &d) { d.region[1].kind = RDT_DRV_TEXT; }},
		{"no exit", [](rdt_driver_desc &d) { d.region[2].kind = RDT_DRV_DATA; }},
		{"unused stacks are not looked at", [](rdt_driver_desc &d) { d.stack_top[2] = 1; }},
		{"unused regions are not looked at", [](rdt_driver_desc &d) { d.region[4].kind = 77; }},
	};

	for (const Spoil &s : right) {
		SCOPED_TRACE(s.what);
		rdt_driver_desc d = good_desc();
		Driver drv;

		s.by(d);
		const char *wrong = drv.init(d, 48);

		ASSERT_EQ(wrong, nullptr) << wrong;
		check_invariants(d, drv);
	}
	/* Five levels: more addresses, and none in a mode that is not 64-bit. */
	rdt_driver_desc d = good_desc();

	d.resume_gva = 0xff12345678901000;
	EXPECT_NE(Driver().init(d, 48), nullptr);
	EXPECT_EQ(Driver().init(d, 57), nullptr);
	EXPECT_NE(Driver().init(good_desc(), 0), nullptr);
}

TEST(B5, KindAgainstAMapOfEveryFrame)
{
	std::mt19937_64 rng(8);

	for (unsigned round = 0; round < 300; round++) {
		rdt_driver_desc d = good_desc();
		std::map<gfn_t, u32> model;
		Driver drv;

		for (unsigned i = 0; i < 60; i++)
			d.region[d.regions++] = {gpa_of(60 + i * 7 + rng() % 3), static_cast<u32>(rng() % 4 + 1),
						 static_cast<u32>(rng() % 2 + 1)};
		std::shuffle(d.region, d.region + d.regions, rng);
		for (unsigned i = 0; i < d.regions; i++)
			for (u64 k = 0; k < d.region[i].pages; k++)
				model[(d.region[i].gpa >> page_shift) + k] = d.region[i].kind;
		model[lay::idt] = static_cast<u32>(FrameKind::Idt);
		ASSERT_EQ(drv.init(d, 48), nullptr);
		for (gfn_t g = 0; g < 600; g++)
			ASSERT_EQ(static_cast<u32>(drv.kind(g)), model.count(g) ? model[g] : 0) << g;
		for (gfn_t g : {gfn_limit - 1, gfn_limit, ~gfn_t{0}})
			ASSERT_EQ(drv.kind(g), FrameKind::None);
	}
}

TEST(B5, FuzzedDescriptors)
{
	constexpr unsigned cases = 400000;
	std::mt19937_64 rng(2026);
	unsigned accepted = 0;
	std::set<std::string> reasons;

	for (unsigned i = 0; i < cases; i++) {
		rdt_driver_desc d = good_desc(static_cast<u32>(rng() % 4 + 1));
		Driver drv;

		for (u64 n = rng() % 4 + 1; n > 0; n--)
			mutate(d, rng);

		const rdt_driver_desc copy = d;
		const u8 bits = rng() % 16 ? 48 : rng() % 2 ? 57 : 0;
		const char *wrong = drv.init(d, bits);

		ASSERT_EQ(std::memcmp(&copy, &d, sizeof(d)), 0);
		if (wrong) {
			ASSERT_NE(*wrong, 0);
			reasons.insert(wrong);
			continue;
		}
		accepted++;
		check_invariants(d, drv);
		if (HasFatalFailure())
			return;
	}
	/* Both outcomes, and every reason there is, were met. */
	EXPECT_GT(accepted, cases / 100);
	EXPECT_LT(accepted, cases / 2);
	EXPECT_EQ(reasons.size(), 14u);
}

/* The same against a whole VM: an error that changes nothing, or a driver that works. */
TEST(B5, FuzzedDescriptorsAgainstAVm)
{
	std::mt19937_64 rng(77);
	unsigned accepted = 0;

	for (unsigned i = 0; i < 3000; i++) {
		World w(1);
		rdt_driver_desc d = good_desc();

		w.give_nodes();
		mutate(d, rng);
		w.quiet();
		const s64 r = w.seal(d);

		if (r) {
			EXPECT_TRUE(r == -22 || r == -14 || r == -16) << r;
			for (gfn_t g = 0; g < lay::frames; g++)
				ASSERT_EQ(w.access(0, g), g == lay::nodes ? RDT_ACC_R | RDT_ACC_X : RDT_ACC_RWX);
			EXPECT_TRUE(w.host.take_events().empty());
			continue;
		}
		accepted++;
		for (unsigned k = 0; k < d.regions; k++)
			for (u64 p = 0; p < d.region[k].pages; p++)
				ASSERT_FALSE(w.access(0, (d.region[k].gpa >> page_shift) + p) & RDT_ACC_W);
		EXPECT_EQ(w.access(1, d.idt_gpa >> page_shift), 0);
	}
	EXPECT_GT(accepted, 100u);
}
