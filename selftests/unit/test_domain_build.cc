// SPDX-License-Identifier: GPL-2.0
/* C2, C7: making domains: what each call takes and refuses, and the measurement. */
#include <openssl/sha.h>

#include "domain_world.h"

using namespace redoubt;

namespace {

using Digest = std::array<u8, 32>;

/* The measurement as Documentation/domains.md has it, put together by hand. */
class Image {
public:
	void bytes(const void *p, usize n)
	{
		const u8 *b = static_cast<const u8 *>(p);

		all_.insert(all_.end(), b, b + n);
	}
	void u32le(u32 v)
	{
		for (int i = 0; i < 4; i++)
			all_.push_back(static_cast<u8>(v >> 8 * i));
	}
	void u64le(u64 v)
	{
		for (int i = 0; i < 8; i++)
			all_.push_back(static_cast<u8>(v >> 8 * i));
	}
	void page(u64 gva, u64 kind, const u8 *content)
	{
		u64le(gva);
		u64le(kind);
		bytes(content, page_size);
	}
	Digest digest()
	{
		Digest d;

		bytes("sealed", 6);
		SHA256(all_.data(), all_.size(), d.data());
		return d;
	}

private:
	std::vector<u8> all_;
};

/* Of a plan whose frames are filled and not given yet. */
Digest expected(DomWorld &w, const DomPlan &p)
{
	Image m;

	m.bytes("redoubt-domain-1", 16);
	m.u32le(p.flags);
	m.u32le(p.slots);
	m.u32le(p.windows);
	m.u32le(0);
	m.u64le(p.gate_gva());
	m.u64le(p.exit_gva());
	for (unsigned i = 0; i < p.slots; i++)
		m.u64le(p.stack(i));
	for (unsigned i = 0; i < p.windows; i++) {
		m.u64le(p.window_gva(i));
		m.u64le(2);
	}
	m.page(p.base, 1, w.byte(p.text()));
	m.page(p.base + 0x1000, 1, w.byte(p.text() + 1));
	m.page(p.base + 0x2000, 3, w.byte(p.gate()));
	m.page(p.base + 0x3000, 4, w.byte(p.exit()));
	for (unsigned i = 0; i < 3; i++)
		m.page(p.data_gva() + i * 0x1000, 2, w.byte(p.data() + i));
	return m.digest();
}

Digest measured(DomWorld &w, s64 id)
{
	Digest d;

	EXPECT_EQ(w[0].hc(RDT_HC_DOM_MEASURE, static_cast<u64>(id)), 0);
	const u64 word[4] = {w[0].regs.gpr[rbx], w[0].regs.gpr[rcx], w[0].regs.gpr[rdx],
			     w[0].regs.gpr[rsi]};

	std::memcpy(d.data(), word, sizeof(word));
	const rdt_domain_info i = w.info(DomWorld::view_of(id));

	EXPECT_EQ(std::memcmp(i.measurement, d.data(), 32), 0) << "the operator reads the same";
	return d;
}

std::string hex(const Digest &d)
{
	std::string s;
	char two[3];

	for (u8 b : d) {
		std::snprintf(two, sizeof(two), "%02x", b);
		s += two;
	}
	return s;
}

} // namespace

/* --- measurement ---------------------------------------------------------------- */

TEST(C7, MeasurementIsTheIndependentlyComputedOne)
{
	for (u32 flags : {u32{RDT_DOM_USER}, 0u, u32{RDT_DOM_VECTOR}})
		for (u32 windows : {0u, 2u}) {
			DomWorld w;
			DomPlan p = DomPlan::nr(3, flags);

			p.windows = windows;
			w.fill(p);
			const Digest want = expected(w, p);
			const s64 id = w.build(p);

			for (unsigned i = 0; i < windows; i++)
				ASSERT_EQ(w.share(id, lay::plain + 2 * i, p.window_gva(i), 2), 0);
			ASSERT_EQ(w.seal_domain(id), 0);
			EXPECT_EQ(hex(measured(w, id)), hex(want));
		}
}

/* Computed by another program, Python's hashlib, from the text of domains.md. */
TEST(C7, MeasurementIsAKnownNumber)
{
	DomWorld w;

	EXPECT_EQ(hex(measured(w, w.make(DomPlan::nr(0)))),
		  "6f4c98c14ce9927fa7b823577c6455022b9a2c7890ae71a55a32a61e38374bed");
}

TEST(C7, MeasurementDoesNotDependOnFrames)
{
	DomWorld w;

	EXPECT_EQ(hex(measured(w, w.make(DomPlan::nr(0)))), hex(measured(w, w.make(DomPlan::nr(5)))));
}

TEST(C7, MeasurementDependsOnEverythingElse)
{
	std::set<std::string> seen;
	unsigned n = 0;
	auto one = [&](auto change_plan, auto change_memory) {
		DomWorld w;
		DomPlan p = DomPlan::nr(0);

		change_plan(p);
		w.fill(p);
		const s64 id = w.create(p.desc());

		change_memory(w, p);
		ASSERT_EQ(w.add(id, p.text(), p.text_gva(), 2, RDT_DOM_TEXT), 0);
		ASSERT_EQ(w.add(id, p.gate(), p.base + 0x2000, 1, RDT_DOM_GATE), 0);
		ASSERT_EQ(w.add(id, p.exit(), p.base + 0x3000, 1, RDT_DOM_EXIT), 0);
		ASSERT_EQ(w.add(id, p.data(), p.data_gva(), 3, RDT_DOM_DATA), 0);
		ASSERT_EQ(w.add(id, p.tables(), 0, 4, RDT_DOM_TABLE), 0);
		for (unsigned i = 0; i < p.windows; i++)
			ASSERT_EQ(w.share(id, lay::plain + 2 * i, p.window_gva(i), 2), 0);
		ASSERT_EQ(w.seal_domain(id), 0);
		seen.insert(hex(measured(w, id)));
		n++;
	};
	auto same = [](auto &...) {};

	one(same, same);
	one([](DomPlan &p) { p.base += 0x200000; }, same);
	one([](DomPlan &p) { p.slots = 1; }, same);
	one([](DomPlan &p) { p.flags |= RDT_DOM_VECTOR; }, same);
	one([](DomPlan &p) { p.flags = 0; }, same);
	one([](DomPlan &p) { p.windows = 1; }, same);
	one([](DomPlan &p) { p.windows = 2; }, same);
	for (unsigned page = 0; page < 7; page++)
		for (unsigned at : {0u, 2048u, 4095u})
			one(same, [=](DomWorld &w, DomPlan &p) { w.byte(p.first + page)[at] ^= 1; });
	EXPECT_EQ(seen.size(), n);
	/* TABLE frames are blank whatever was in them. */
	one(same, [](DomWorld &w, DomPlan &p) { w.byte(p.tables())[5] ^= 1; });
	EXPECT_EQ(seen.size(), n - 1);
}

/* What is hashed is what the inside will see, whatever the guest writes afterwards. */
TEST(C7, ChangesAfterAddAreNotInside)
{
	DomWorld w;
	const DomPlan p = DomPlan::nr(0);

	w.fill(p);
	const Digest want = expected(w, p);
	const s64 id = w.build(p);

	/* A device, or the VMM: nothing in the guest can. */
	std::memset(w.byte(p.first), 0xee, DomPlan::frames * page_size);
	ASSERT_EQ(w.seal_domain(id), 0);
	EXPECT_EQ(hex(measured(w, id)), hex(want));
	const u8 *text = static_cast<const u8 *>(w.own(DomWorld::view_of(id), p.text()));

	EXPECT_NE(text[0], 0xee);
}

/* --- arguments ------------------------------------------------------------------- */

TEST(C2, DescriptorsThatAreWrong)
{
	DomWorld w;
	const rdt_domain_desc good = [] {
		DomPlan p = DomPlan::nr(0);

		p.windows = 2;
		return p.desc();
	}();
	const u64 upper = 0xffff800000000000, hole = 0x800000000000;
	std::vector<std::function<void(rdt_domain_desc &)>> bad = {
		[](auto &d) { d.size--; },
		[](auto &d) { d.flags |= 16; },
		[](auto &d) { d.flags |= RDT_DOM_REWIND; },
		[](auto &d) { d.results = 1; },
		[](auto &d) { d.erased = 1; },
		[](auto &d) { d.erasure = 1; },
		[](auto &d) { d.slots = 0; },
		[](auto &d) { d.slots = RDT_DOM_MAX_SLOTS + 1; },
		[](auto &d) { d.windows = RDT_DOM_MAX_WINDOWS + 1; },
		[](auto &d) { d.reserved[0] = 1; },
		[](auto &d) { d.reserved[1] = 1; },
		[=](auto &d) { d.gate_gva = hole; },
		[=](auto &d) { d.gate_gva = upper; }, /* ring 3 */
		[=](auto &d) { d.exit_gva = hole; },
		[=](auto &d) { d.exit_gva = upper; },
		[](auto &d) { d.exit_gva = d.gate_gva ^ 0x800; },
		[=](auto &d) { d.resume_gva = hole; },
		[](auto &d) { d.stack_top[0] |= 8; },
		[](auto &d) { d.stack_top[1] = 0; },
		[](auto &d) { d.stack_top[1] = 16; },
		[=](auto &d) { d.stack_top[1] = hole + 0x1000; },
		[=](auto &d) { d.stack_top[1] = upper; },
		[](auto &d) { d.stack_top[2] = d.stack_top[1]; },
		[](auto &d) { d.window[0].gva++; },
		[](auto &d) { d.window[0].pages = 0; },
		[](auto &d) { d.window[0].pages = 5; }, /* into the next */
		[](auto &d) { d.window[1].pages = (1 << 15) + 1; },
		[](auto &d) { d.window[1].pages = 1ull << 52; },
		[](auto &d) { std::swap(d.window[0], d.window[1]); },
		[=](auto &d) { d.window[1].gva = hole - 0x1000; },
		[=](auto &d) { d.window[1].gva = upper; },
		[](auto &d) { d.window[2].pages = 1; },
		[](auto &d) { d.windows = 1; }, /* the second is still there */
	};

	for (usize i = 0; i < bad.size(); i++) {
		rdt_domain_desc d = good;
		const usize blocks = test_alloc_blocks();
		const Snapshot before = w.snapshot();

		bad[i](d);
		EXPECT_EQ(w.create(d), einval) << i;
		EXPECT_EQ(w.host.take_log().size(), 1u) << i;
		EXPECT_EQ(before.diff(w.snapshot()), "");
		if (i)
			EXPECT_EQ(test_alloc_blocks(), blocks);
		EXPECT_EQ(mock_hashes(), 0);
	}
	EXPECT_EQ(w.vm_info().domains, 0u);
	EXPECT_GT(w.create(good), 0);
	/* What does not fit a paging mode of 48 bits fits one of 57. */
	rdt_domain_desc wide = good;

	wide.flags = 0;
	wide.gate_gva = hole;
	EXPECT_EQ(w.create(wide), einval);
	w[0].va_bits = 57;
	EXPECT_GT(w.create(wide), 0);
}

TEST(C2, CreateItself)
{
	DomWorld w;

	w.host.at<rdt_domain_desc>(gpa_of(lay::desc)) = DomPlan::nr(0).desc();
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc) + 4), einval);
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc + 1) - sizeof(rdt_domain_desc) + 8), einval);
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::frames)), efault);
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc), 1), einval);
	w.host.fail_read = true;
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc)), efault);
	w.host.fail_read = false;
	w[0].cpl = 3;
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc)), eperm);
	w[0].cpl = 0;
	w[0].va_bits = 0;
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc)), eperm);
	w[0].va_bits = 48;
	const s64 a = w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc));

	EXPECT_EQ(a, 1 << 8 | 2) << "the first view, the first epoch";
	EXPECT_EQ(w.destroy(a), 0);
	const s64 b = w[0].hc(RDT_HC_DOM_CREATE, gpa_of(lay::desc));

	EXPECT_EQ(DomWorld::view_of(a), DomWorld::view_of(b));
	EXPECT_NE(a, b) << "an id is never used again";
	EXPECT_EQ(w.add(a, 200, DomPlan::user_base, 1, RDT_DOM_DATA), enoent);
}

TEST(C2, AddRefuses)
{
	DomWorld w;
	const DomPlan p = DomPlan::nr(0);
	const s64 id = w.create(p.desc());

	ASSERT_EQ(w.add(id, 200, p.base + 0x1000, 2, RDT_DOM_TEXT), 0);
	struct {
		gfn_t gfn;
		u64 gva, pages, kind;
		s64 error;
	} rows[] = {
		{210, p.base + 0x2000, 1, RDT_DOM_DATA, einval}, /* there is one */
		{210, p.base, 1, RDT_DOM_DATA, einval},	     /* below */
		{210, p.base + 0x3001, 1, RDT_DOM_DATA, einval},
		{210, p.base + 0x3000, 0, RDT_DOM_DATA, einval},
		{210, p.base + 0x3000, RDT_DOM_ADD_MAX + 1, RDT_DOM_DATA, einval},
		{210, p.base + 0x3000, 0xffffffff, RDT_DOM_DATA, einval},
		{210, p.base + 0x4000, 1, 0, einval},
		{210, p.base + 0x4000, 1, 6, einval},
		{210, p.base + 0x4000, 1, 0x10000002, einval},
		{210, p.base + 0x4000, 1, RDT_DOM_GATE, einval}, /* not where the descriptor says */
		{210, p.base + 0x4000, 1, RDT_DOM_EXIT, einval},
		{210, p.base + 0x3000, 2, RDT_DOM_EXIT, einval},
		{210, 0x800000000000, 1, RDT_DOM_DATA, einval},
		{210, 0x7ffffffff000, 2, RDT_DOM_DATA, einval},
		{210, 0xffffa00000000000, 1, RDT_DOM_DATA, einval}, /* ring 3 */
		{210, 0xfffffffffffff000, 2, RDT_DOM_DATA, einval},
		{210, p.base, 1, RDT_DOM_TABLE, einval}, /* they have no address */
		{lay::frames, p.base + 0x4000, 1, RDT_DOM_DATA, efault},
		{lay::frames - 1, p.base + 0x4000, 2, RDT_DOM_DATA, efault},
		{gfn_limit - 1, p.base + 0x4000, 2, RDT_DOM_DATA, einval},
	};

	for (usize i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const auto &r = rows[i];
		const Snapshot before = w.snapshot();

		EXPECT_EQ(w.add(id, r.gfn, r.gva, r.pages, r.kind), r.error) << i;
		EXPECT_EQ(before.diff(w.snapshot()), "") << i;
		EXPECT_EQ(w.info(2).frames, 2u);
	}
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_ADD, static_cast<u64>(id), gpa_of(210) + 8, p.base + 0x4000,
			  RDT_DOM_PAGES(1, RDT_DOM_DATA)),
		  einval);
	EXPECT_EQ(w.add(id, 210, p.base + 0x3000, 1, RDT_DOM_EXIT), 0);
	EXPECT_EQ(w.add(id, 212, p.base + 0x3000, 1, RDT_DOM_EXIT), einval) << "a second";
	/* The last page of the lower half, and behind it nothing. */
	EXPECT_EQ(w.add(id, 213, 0x7ffffffff000, 1, RDT_DOM_DATA), 0);
	EXPECT_EQ(w.add(id, 214, p.base + 0x8000, 1, RDT_DOM_DATA), einval);
	w.host.fail_pin = true;
	EXPECT_EQ(w.add(id, 220, 0, 1, RDT_DOM_TABLE), efault);
	w.host.fail_pin = false;
	EXPECT_EQ(w.host.pages(), 4u);
}

/* The highest page there is: arithmetic that wraps would take what comes after it. */
TEST(C2, AddAtTheEndOfTheAddressSpace)
{
	DomWorld w;
	DomPlan p = DomPlan::nr(0, 0);
	rdt_domain_desc d = p.desc();

	d.windows = 1;
	d.window[0] = {0xffffffffffffe000, 2};
	const s64 id = w.create(d);

	ASSERT_GT(id, 0);
	ASSERT_EQ(w.add(id, 200, 0xfffffffffffff000, 1, RDT_DOM_DATA), 0);
	EXPECT_EQ(w.add(id, 201, 0, 1, RDT_DOM_DATA), einval);
	EXPECT_EQ(w.add(id, 201, 0xfffffffffffff000, 1, RDT_DOM_DATA), einval);
	EXPECT_EQ(w.share(id, 300, 0xfffffffffffff000, 1), 0);
	EXPECT_EQ(w.share(id, 300, 0xfffffffffffff000, 1), einval) << "given";
	EXPECT_EQ(w.share(id, 300, 0xffffffffffffe000, 2), einval);
	EXPECT_EQ(w.share(id, 300, 0xffffffffffffe000, 1), 0);
	d.windows = 2;
	d.window[1] = {0x1000, 1};
	EXPECT_EQ(w.create(d), einval);
}

TEST(C5, ShareRefuses)
{
	DomWorld w;
	DomPlan p = DomPlan::nr(0);

	p.windows = 2;
	const s64 id = w.build(p);
	const u64 at = p.window_gva(0);
	struct {
		gfn_t gfn;
		u64 gva, pages;
		s64 error;
	} rows[] = {
		{300, at, 0, einval},
		{300, at + 8, 1, einval},
		{300, at - 0x1000, 1, einval},
		{300, at, 3, einval},
		{300, at + 0x1000, 2, einval},
		{300, at + 0x2000, 1, einval},
		{300, at, 1ull << 40, efault},
		{300, p.text_gva(), 1, einval},
		{300, 0xffffa00000000000, 1, einval},
		{lay::frames, at, 1, efault},
		{p.data(), at, 1, ebusy},
	};

	for (usize i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		EXPECT_EQ(w.share(id, rows[i].gfn, rows[i].gva, rows[i].pages), rows[i].error) << i;
	EXPECT_EQ(w[0].hc(RDT_HC_DOM_SHARE, static_cast<u64>(id), gpa_of(300) + 8, at, 1), einval);
	EXPECT_EQ(w.seal_domain(id), einval) << "a window is empty";
	EXPECT_EQ(w.share(id, 300, at, 1), 0);
	EXPECT_EQ(w.share(id, 301, at, 1), einval) << "given";
	EXPECT_EQ(w.share(id, 301, at, 2), einval);
	EXPECT_EQ(w.seal_domain(id), einval);
	EXPECT_EQ(w.share(id, 301, at + 0x1000, 1), 0);
	EXPECT_EQ(w.share(id, 300, p.window_gva(1), 2), 0) << "one frame at two addresses";
	EXPECT_EQ(w.seal_domain(id), 0);
	EXPECT_EQ(w.info(2).shared, 4u);
	EXPECT_EQ(w.share(id, 305, at, 1), eperm) << "sealed";
}

TEST(C5, SharedRangesAreBounded)
{
	DomWorld w;
	rdt_domain_desc d = DomPlan::nr(0).desc();

	d.windows = 1;
	d.window[0] = {0x80000000, 100};
	const s64 id = w.create(d);

	for (u64 i = 0; i < RDT_DOM_MAX_SHARED; i++)
		ASSERT_EQ(w.share(id, 300 + 2 * (i % 50), 0x80000000 + i * 0x1000, 1), 0);
	EXPECT_EQ(w.share(id, 300, 0x80000000 + 70 * 0x1000, 1), e2big);
	EXPECT_EQ(w.destroy(id), 0);
}

TEST(C7, SealRefuses)
{
	const DomPlan p = DomPlan::nr(0);
	struct Part {
		gfn_t gfn;
		u64 gva, pages, kind;
	};
	const Part parts[] = {
		{p.text(), p.text_gva(), 2, RDT_DOM_TEXT}, {p.gate(), p.base + 0x2000, 1, RDT_DOM_GATE},
		{p.exit(), p.base + 0x3000, 1, RDT_DOM_EXIT}, {p.data(), p.data_gva(), 3, RDT_DOM_DATA},
		{p.tables(), 0, 4, RDT_DOM_TABLE},
	};

	/* One part left out, or a table too few; what is missing is then given. */
	for (unsigned out = 0; out < 5; out++) {
		DomWorld w;
		const s64 id = w.create(p.desc());
		s64 want = einval;

		for (unsigned i = 0; i < 5; i++)
			if (i != out)
				ASSERT_EQ(w.add(id, parts[i].gfn, parts[i].gva, parts[i].pages, parts[i].kind), 0);
		if (out == 0)
			want = 0; /* all of its code may be in the gate's page */
		if (out == 4)
			want = enomem;
		EXPECT_EQ(w.seal_domain(id), want) << out;
		EXPECT_EQ(w.info(2).state, want ? u32{RDT_DOM_BUILDING} : u32{RDT_DOM_SEALED});
		if (out != 4)
			continue;
		for (u64 t = 0; t < 4; t++) {
			EXPECT_EQ(w.seal_domain(id), enomem);
			EXPECT_EQ(w.add(id, p.tables() + t, 0, 1, RDT_DOM_TABLE), 0);
		}
		EXPECT_EQ(w.seal_domain(id), 0) << "failed tries leave nothing behind";
	}
	/* A stack that is not the domain's own data. */
	for (u64 top : {p.gate_gva() & ~u64{0xf}, p.data_gva() + 0x4000, p.text_gva() + 0x100}) {
		DomWorld w;
		rdt_domain_desc d = p.desc();

		d.stack_top[1] = top;
		const s64 id = w.create(d);

		for (const Part &i : parts)
			ASSERT_EQ(w.add(id, i.gfn, i.gva, i.pages, i.kind), 0);
		EXPECT_EQ(w.seal_domain(id), einval);
	}
	/* A window over pages, and a stack in a window. */
	for (bool stack : {false, true}) {
		DomWorld w;
		rdt_domain_desc d = p.desc();

		d.windows = 1;
		d.window[0] = {stack ? p.base + 0x10000 : p.data_gva() + 0x1000, 1};
		if (stack)
			d.stack_top[0] = p.base + 0x11000;
		const s64 id = w.create(d);

		for (const Part &i : parts)
			ASSERT_EQ(w.add(id, i.gfn, i.gva, i.pages, i.kind), 0);
		ASSERT_EQ(w.share(id, 300, d.window[0].gva, 1), 0);
		EXPECT_EQ(w.seal_domain(id), einval);
	}
}

/* The tables say what was asked for and nothing else, and need no write by a walk. */
TEST(C2, PageTables)
{
	for (u8 bits : {u8{48}, u8{57}})
		for (u32 flags : {u32{RDT_DOM_USER}, 0u}) {
			DomWorld w;
			DomPlan p = DomPlan::nr(0, flags);

			w[0].va_bits = bits;
			p.windows = 1;
			const s64 id = w.build(p);

			ASSERT_EQ(w.share(id, 300, p.window_gva(0), 2), 0);
			if (bits == 57) {
				ASSERT_EQ(w.seal_domain(id), enomem);
				ASSERT_EQ(w.add(id, 400, 0, 1, RDT_DOM_TABLE), 0);
			}
			ASSERT_EQ(w.seal_domain(id), 0);
			/* Every leaf there is, by a walk of all entries. */
			const u8 view = DomWorld::view_of(id);
			std::map<u64, u64> leaf;
			std::set<gfn_t> tables;
			std::function<void(gfn_t, unsigned, u64)> walk = [&](gfn_t t, unsigned level, u64 va) {
				const u64 *e = static_cast<const u64 *>(w.own(view, t));

				ASSERT_TRUE(e);
				EXPECT_TRUE(tables.insert(t).second) << "a table is in one place";
				for (u64 i = 0; i < 512; i++) {
					/* To a frame that no domain has. */
					ASSERT_TRUE(e[i]);
					const u64 at = va | i << (12 + 9 * level);
					/* Of the user's in the half that has no kernel. */
					const bool user = flags & RDT_DOM_USER && !(at >> (bits - 1));

					if (e[i] >> 12 == (1ull << 24) - 1) {
						EXPECT_EQ(e[i] & 0xfff, user ? 0x67u : 0x63u) << std::hex << at;
						continue;
					}
					EXPECT_TRUE(e[i] & 1);
					EXPECT_TRUE(e[i] & 1 << 5);
					EXPECT_EQ(e[i] >> 2 & 1, flags & RDT_DOM_USER ? 1u : 0u);
					if (level)
						walk(e[i] >> 12, level - 1, at);
					else
						leaf[static_cast<u64>(static_cast<s64>(at << (64 - bits)) >>
								      (64 - bits))] = e[i];
				}
			};
			const DomPlan q = p;

			DomWorld::at_caller(w[1], q);
			w[1].va_bits = bits;
			ASSERT_EQ(DomWorld::enter_gate(w[1], q), RDT_V_RESUME);
			ASSERT_TRUE(DomWorld::in(w[1], id));
			walk(w[1].regs.cr3 >> 12, bits == 57 ? 4 : 3, 0);
			EXPECT_EQ(tables.size(), bits == 57 ? 5u : 4u);
			constexpr u64 nx = 1ull << 63, dirty = 1 << 6, wr = 2;
			const u64 fixed = 1 | 1 << 5 | dirty | (flags & RDT_DOM_USER ? 4 : 0);
			std::map<u64, u64> want;

			for (u64 i = 0; i < 4; i++)
				want[p.base + i * 0x1000] = gpa_of(p.first + i) | fixed;
			for (u64 i = 0; i < 3; i++)
				want[p.data_gva() + i * 0x1000] = gpa_of(p.data() + i) | fixed | wr | nx;
			for (u64 i = 0; i < 2; i++)
				want[p.window_gva(0) + i * 0x1000] = gpa_of(300 + i) | fixed | wr | nx;
			EXPECT_EQ(leaf, want);
			w[1].fault(gpa_of(1), RDT_ACC_R);
		}
}
