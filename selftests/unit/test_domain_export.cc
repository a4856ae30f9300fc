// SPDX-License-Identifier: GPL-2.0
/* C5: a domain's content on its way to another VM. */
#include "domain_world.h"

using namespace redoubt;

namespace {

constexpr s64 eacces = -13, exdev = -18, ebadmsg = -74;
constexpr u32 movable = RDT_DOM_EXPORTABLE;
/* Of a DomPlan: TEXT, GATE, EXIT, DATA. */
constexpr u64 moved = 7;
constexpr u64 whole = 64 + moved * (16 + page_size) + 16;

using Blob = std::vector<u8>;
using Key = std::array<u8, 32>;

Key key_of(u8 seed)
{
	Key k;

	for (unsigned i = 0; i < k.size(); i++)
		k[i] = static_cast<u8>(seed + i * 7);
	return k;
}
const Key right = key_of(1);

/* A VM whose operator lets content leave. */
class MoveWorld : public DomWorld {
public:
	explicit MoveWorld(u32 quota_flags = RDT_DOM_Q_EXPORT) : DomWorld(3)
	{
		quota(quota_flags);
	}
	~MoveWorld()
	{
		mock_cipher_error = 0;
	}
	void quota(u32 flags)
	{
		const rdt_domain_quota q = {RDT_DOM_MAX, flags, 1000, 10000};

		EXPECT_EQ(rdt_core_domain_set_quota(vm, &q), 0);
	}
	s64 bytes(s64 id)
	{
		return rdt_core_domain_blob_bytes(vm, static_cast<u64>(id));
	}
	s64 export_to(s64 id, Blob &blob, const Key &key = right)
	{
		return rdt_core_domain_export(vm, static_cast<u64>(id), key.data(), blob.data(), blob.size());
	}
	Blob exported(s64 id, const Key &key = right)
	{
		Blob blob(whole);

		EXPECT_EQ(export_to(id, blob, key), 0);
		expect_event(RDT_EV_DOMAIN, RDT_DOM_EV_EXPORTED);
		return blob;
	}
	/* By value: the core uses it up. */
	s64 import(s64 id, Blob blob, const Key &key = right)
	{
		const s64 err = rdt_core_domain_import(vm, static_cast<u64>(id), key.data(), blob.data(), blob.size());

		EXPECT_FALSE(holds(blob)) << "the core left content in the host's buffer";
		return err;
	}
	/* All private pages of a plan's, one after the other. */
	Blob content(s64 id, const DomPlan &p)
	{
		Blob all;

		for (unsigned i = 0; i < moved; i++) {
			const auto *page = static_cast<const u8 *>(own(view_of(id), p.first + i));

			all.insert(all.end(), page, page + page_size);
		}
		return all;
	}
	void install(s64 id, u64 gva, const std::string &value)
	{
		const u32 len = static_cast<u32>(value.size());
		const u64 gate = info(view_of(id)).gate_gva & ~(page_size - 1);
		const rdt_fixup all = {static_cast<s64>(gva - gate), 0, len};

		EXPECT_EQ(rdt_core_domain_install(vm, static_cast<u64>(id), value.data(), len, &all, 1), 0);
		quiet();
	}
	/* Is any eight bytes of what fill() made in there? They are a sequence modulo 255. */
	static bool holds(const Blob &b)
	{
		for (usize i = 0; i + 8 <= b.size(); i++) {
			unsigned n = 1;

			while (n < 8 && b[i + n] && b[i] && (b[i + n] + 255 - b[i + n - 1]) % 255 == 11)
				n++;
			if (n == 8)
				return true;
		}
		return false;
	}
};

DomPlan plan(unsigned n = 0, u32 flags = movable)
{
	return DomPlan::nr(n, flags);
}

} // namespace

TEST(C5_Export, ThereAndBack)
{
	const DomPlan p = plan();
	MoveWorld from, to;
	const s64 a = from.make(p), b = to.make(p);

	from.install(a, p.data_gva() + 0x1ff0, "sixteen and more bytes of a secret");
	const Blob is = from.content(a, p), was = to.content(b, p);

	ASSERT_NE(is, was);
	EXPECT_TRUE(MoveWorld::holds(is));
	EXPECT_EQ(from.bytes(a), static_cast<s64>(whole));
	const Blob blob = from.exported(a);

	EXPECT_FALSE(MoveWorld::holds(blob));
	EXPECT_EQ(from.content(a, p), is) << "it stays where it was";
	EXPECT_EQ(to.import(b, blob), 0);
	to.expect_event(RDT_EV_DOMAIN, RDT_DOM_EV_IMPORTED);
	EXPECT_EQ(to.content(b, p), is);
	EXPECT_EQ(to.info(DomWorld::view_of(b)).installs, 1u) << "values and all";
	/* And it is entered as ever. */
	EXPECT_EQ(DomWorld::enter_gate(to[1], p), RDT_V_RESUME);
	EXPECT_TRUE(DomWorld::in(to[1], b));
	EXPECT_EQ(DomWorld::leave_gate(to[1], p, 1), RDT_V_RESUME);
	to.end();
	from.end();
}

/* At another place in guest-physical memory, its pages in other runs. */
TEST(C5_Export, ToOtherFrames)
{
	const DomPlan p = plan(), q = plan(3);
	MoveWorld from, to;
	const s64 a = from.make(p);

	/* What is measured is what is in the frames: the same as p's. */
	to.fill(p);
	std::memcpy(to.byte(q.first), to.byte(p.first), DomPlan::frames * page_size);
	const s64 b = to.create(q.desc());

	for (unsigned i = 0; i < 2; i++)
		EXPECT_EQ(to.add(b, q.text() + i, q.text_gva() + i * page_size, 1, RDT_DOM_TEXT), 0);
	EXPECT_EQ(to.add(b, q.tables(), 0, 2, RDT_DOM_TABLE), 0);
	EXPECT_EQ(to.add(b, q.gate(), q.base + 0x2000, 1, RDT_DOM_GATE), 0);
	EXPECT_EQ(to.add(b, q.exit(), q.base + 0x3000, 1, RDT_DOM_EXIT), 0);
	EXPECT_EQ(to.add(b, q.data(), q.data_gva(), 1, RDT_DOM_DATA), 0);
	EXPECT_EQ(to.add(b, q.data() + 1, q.data_gva() + page_size, 2, RDT_DOM_DATA), 0);
	EXPECT_EQ(to.add(b, q.tables() + 2, 0, 2, RDT_DOM_TABLE), 0);
	EXPECT_EQ(to.seal_domain(b), 0);
	to.quiet();
	from.install(a, p.data_gva() + 0x2ffc, "last");
	EXPECT_EQ(to.import(b, from.exported(a)), 0);
	to.quiet();
	EXPECT_EQ(to.content(b, q), from.content(a, p));
}

/* Both sides have to want it; C7: the domain's wish is measured. */
TEST(C5_Export, OnlyWithLeave)
{
	MoveWorld w(0);
	const DomPlan p = plan(), fixed = plan(1, 0);
	const s64 id = w.make(p), other = w.make(fixed);
	Blob blob(whole);

	EXPECT_NE(std::memcmp(w.info(2).measurement, w.info(3).measurement, 32), 0);
	EXPECT_EQ(w.export_to(id, blob), eacces) << "not the operator's policy";
	w.quota(RDT_DOM_Q_EXPORT);
	EXPECT_EQ(w.export_to(other, blob), eacces) << "not the domain's";
	EXPECT_EQ(w.bytes(other), eacces);
	EXPECT_EQ(w.import(other, w.exported(id)), eacces);
	EXPECT_EQ(w.export_to(id ^ 0x100, blob), enoent);
	EXPECT_EQ(w.import(id ^ 0x100, blob), enoent);
	const s64 building = w.build(plan(2));

	EXPECT_EQ(w.export_to(building, blob), enoent);
	EXPECT_EQ(w.import(building, blob), enoent);
	EXPECT_EQ(blob, Blob(whole)) << "refused: nothing is in the buffer";
	rdt_core_end(w.vm);
	EXPECT_EQ(w.export_to(id, blob), enodev);
	EXPECT_EQ(w.import(id, blob), enodev);
	EXPECT_EQ(w.bytes(id), enodev);
}

TEST(C5_Export, QuotaFlags)
{
	MoveWorld w;

	for (u32 bit = 1; bit; bit <<= 1) {
		const rdt_domain_quota q = {1, bit, 1, 1};

		EXPECT_EQ(rdt_core_domain_set_quota(w.vm, &q), bit == RDT_DOM_Q_EXPORT ? 0 : einval);
	}
}

/* A thread inside, running or interrupted: neither way. Nor, for import, one that was. */
TEST(C5_Export, NotWithThreads)
{
	MoveWorld w;
	const DomPlan p = plan();
	const s64 id = w.make(p);
	const Blob good = w.exported(id);
	Blob blob(whole);

	ASSERT_EQ(DomWorld::enter_gate(w[1], p), RDT_V_RESUME);
	EXPECT_EQ(w.export_to(id, blob), ebusy);
	EXPECT_EQ(w.import(id, good), ebusy);
	const u64 token = DomWorld::strike_domain(w[1]);

	EXPECT_EQ(w.export_to(id, blob), ebusy);
	EXPECT_EQ(w.import(id, good), ebusy);
	EXPECT_EQ(blob, Blob(whole));
	/* Refusals took nobody's slot: both are to be had, and the thread comes back. */
	ASSERT_EQ(DomWorld::enter_gate(w[2], p), RDT_V_RESUME);
	EXPECT_EQ(DomWorld::leave_gate(w[2], p, 2), RDT_V_RESUME);
	EXPECT_TRUE(w[1].call(RDT_HC_RESUME, token).switched);
	EXPECT_TRUE(DomWorld::in(w[1], id));
	EXPECT_EQ(DomWorld::leave_gate(w[1], p, 1), RDT_V_RESUME);
	EXPECT_EQ(w.info(2).slots_busy, 0u);
	EXPECT_EQ(w.import(id, good), ebusy) << "somebody was inside";
	w.host.take_events();
	w.exported(id);
}

/* Who comes while content is copied finds no slot, and may come again. */
TEST(C5_Export, NobodyGetsInMeanwhile)
{
	static MoveWorld *w;
	static int tries, in;
	static const DomPlan p = plan();
	MoveWorld world;
	const s64 id = world.make(p);
	Blob blob(whole);

	w = &world;
	tries = in = 0;
	/* The first look at a closed slot is that of who opens them again: all are closed. */
	test_on_slot_step([](const unsigned long *word) {
		if (*word != 2 || tries++)
			return;
		std::thread([] {
			DomWorld::enter_gate((*w)[1], p);
			in = (*w)[1].view();
		}).join();
	});
	EXPECT_EQ(world.export_to(id, blob), 0);
	test_on_slot_step(nullptr);
	EXPECT_GT(tries, 0);
	EXPECT_EQ(in, 0);
	EXPECT_EQ(static_cast<s64>(world[1].regs.gpr[rax]), eagain);
	world.host.take_events();
	EXPECT_EQ(world.info(2).slots_busy, 0u);
	for (unsigned n = 1; n < 3; n++) {
		ASSERT_EQ(DomWorld::enter_gate(world[n], p), RDT_V_RESUME) << "later they do";
		EXPECT_TRUE(DomWorld::in(world[n], id));
	}
	for (unsigned n = 1; n < 3; n++)
		EXPECT_EQ(DomWorld::leave_gate(world[n], p, 1), RDT_V_RESUME);
}

/* Every byte of a blob is under the tag, or says what the blob is. */
TEST(C5_Export, AFlippedBit)
{
	MoveWorld w;
	const DomPlan p = plan();
	const s64 id = w.make(p);
	const Blob good = w.exported(id), was = w.content(id, p);

	for (usize at = 0; at < whole; at += at < 300 || at > whole - 40 ? 1 : 997) {
		Blob bad = good;

		bad[at] ^= static_cast<u8>(1 << at % 8);
		const s64 want = at < 8 ? einval	 /* magic */
				: at < 16 ? einval	 /* pages */
				: at < 48 ? exdev	 /* measurement */
					  : ebadmsg;

		EXPECT_EQ(w.import(id, bad), want) << "byte " << at;
	}
	EXPECT_EQ(w.content(id, p), was);
	w.quiet();
	EXPECT_EQ(w.import(id, good), 0);
}

TEST(C5_Export, AnotherKeyOrLength)
{
	MoveWorld w;
	const DomPlan p = plan();
	const s64 id = w.make(p);
	const Blob good = w.exported(id), was = w.content(id, p);

	for (unsigned bit = 0; bit < 256; bit++) {
		Key wrong = right;

		wrong[bit / 8] ^= static_cast<u8>(1 << bit % 8);
		EXPECT_EQ(w.import(id, good, wrong), ebadmsg);
	}
	for (usize n : {usize{0}, usize{1}, usize{63}, usize{64}, usize{80}, usize{whole / 2}, usize{whole - 16}, usize{whole - 1}}) {
		Blob cut(good.begin(), good.begin() + static_cast<long>(n));

		EXPECT_EQ(w.import(id, cut), einval) << n;
	}
	Blob longer = good;

	longer.push_back(0);
	EXPECT_EQ(w.import(id, longer), einval);
	EXPECT_EQ(w.content(id, p), was);
	w.quiet();

	Blob room(whole - 1);

	EXPECT_EQ(w.export_to(id, room), einval);
	EXPECT_EQ(room, Blob(whole - 1));
	w.quiet();
}

/* One that was made otherwise: other content, other addresses, other slots, other flags. */
TEST(C5_Export, AnotherDomain)
{
	MoveWorld w, o;
	const DomPlan p = plan();
	DomPlan higher = plan(1), more = plan(2), vector = plan(3, movable | RDT_DOM_VECTOR), other = plan(4);
	const s64 id = w.make(p);
	const Blob was = w.content(id, p);

	/* The same domain's is taken. */
	EXPECT_EQ(w.import(id, w.exported(id)), 0);
	w.quiet();
	higher.base += 0x200000;
	more.slots = 3;
	for (const DomPlan &q : {higher, more, vector})
		EXPECT_EQ(w.import(id, o.exported(o.make(q))), exdev) << q.first;

	o.fill(other);
	o.byte(other.data())[7]++;
	const s64 changed = o.create(other.desc());

	EXPECT_EQ(o.add(changed, other.text(), other.text_gva(), 2, RDT_DOM_TEXT), 0);
	EXPECT_EQ(o.add(changed, other.gate(), other.base + 0x2000, 1, RDT_DOM_GATE), 0);
	EXPECT_EQ(o.add(changed, other.exit(), other.base + 0x3000, 1, RDT_DOM_EXIT), 0);
	EXPECT_EQ(o.add(changed, other.data(), other.data_gva(), 3, RDT_DOM_DATA), 0);
	EXPECT_EQ(o.add(changed, other.tables(), 0, 4, RDT_DOM_TABLE), 0);
	EXPECT_EQ(o.seal_domain(changed), 0);
	o.quiet();
	EXPECT_EQ(w.import(id, o.exported(changed)), exdev);
	EXPECT_EQ(w.content(id, p), was);
	w.quiet();
}

/* Nonces and so the whole: never the same twice. */
TEST(C5_Export, NoTwoAlike)
{
	MoveWorld w;
	const s64 id = w.make(plan());
	const Blob a = w.exported(id), b = w.exported(id);
	unsigned alike = 0;

	EXPECT_NE(std::memcmp(&a[48], &b[48], 12), 0);
	for (usize at = 64; at + 8 <= whole; at += 8)
		alike += !std::memcmp(&a[at], &b[at], 8);
	EXPECT_EQ(alike, 0u);
	EXPECT_FALSE(MoveWorld::holds(a) || MoveWorld::holds(b));
}

/* A cipher that fails leaves no plain text behind, and changes nothing. */
TEST(C5_Export, TheCipherFails)
{
	MoveWorld w;
	const DomPlan p = plan();
	const s64 id = w.make(p);
	const Blob good = w.exported(id), was = w.content(id, p);
	Blob blob(whole, 0x11);

	mock_cipher_error = -12;
	EXPECT_EQ(w.export_to(id, blob), enomem);
	EXPECT_EQ(blob, Blob(whole));
	EXPECT_EQ(w.import(id, good), enomem);
	mock_cipher_error = 0;
	EXPECT_EQ(w.content(id, p), was);
	w.quiet();
	EXPECT_EQ(w.import(id, good), 0);
}
