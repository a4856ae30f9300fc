// SPDX-License-Identifier: GPL-2.0
/*
 * A domain's content on its way to another VM: Documentation/domains.md, "Export". What may
 * leave, when, and what a blob is; the cipher is the host's.
 *
 * Who is inside would be left behind half-way: the slots are closed while content is
 * copied, and what is in one (an interrupted thread's registers) never travels.
 */
#include "vm.h"

namespace redoubt {

namespace {

using Run = Domain::Run;
using Entry = rdt_domain_blob_page;

constexpr char magic[] = RDT_DOM_BLOB_MAGIC;

static_assert(sizeof(rdt_domain_blob) == 64 && sizeof(rdt_domain_blob::magic) == sizeof(magic) - 1);

bool travels(const Run &r)
{
	return r.kind != RDT_DOM_TABLE;
}

u64 pages_of(const Domain &d)
{
	u64 n = 0;

	for (const Run *r = d.runs; r; r = r->next)
		n += travels(*r) ? r->count : 0;
	return n;
}

constexpr u64 inner_bytes(u64 pages)
{
	return pages * (sizeof(Entry) + page_size);
}

u64 blob_bytes(const Domain &d)
{
	return sizeof(rdt_domain_blob) + inner_bytes(pages_of(d)) + RDT_DOM_BLOB_TAG;
}

/* Each page that travels, the last one first, as runs are kept; f(number, entry, page) -> go on? */
template <class F> bool each_page(const Domain &d, F f)
{
	const u64 gate = d.gate.gate_gva & ~(page_size - 1);
	u64 n = pages_of(d);

	for (const Run *r = d.runs; r; r = r->next)
		for (u32 i = travels(*r) ? r->count : 0; i--;)
			if (!f(--n, Entry{r->gva + (u64{i} << page_shift) - gate, r->kind},
			       r->page[i].own))
				return false;
	return true;
}

bool same(const void *a, const void *b, usize bytes)
{
	const u8 *x = static_cast<const u8 *>(a), *y = static_cast<const u8 *>(b);

	for (usize i = 0; i < bytes; i++)
		if (x[i] != y[i])
			return false;
	return true;
}

/* Nobody is inside, and nobody gets in. false: somebody is, and all is as it was. */
class ClosedSlots : Pinned {
public:
	explicit ClosedSlots(Domain &d) : d_(d), closed_(d.slots.close(false) == 0)
	{
	}
	~ClosedSlots()
	{
		d_.slots.reopen(d_.epoch);
	}
	explicit operator bool() const
	{
		return closed_;
	}

private:
	Domain &d_;
	bool closed_;
};

} // namespace

/* 0, or why this domain's content does not travel. Policy lock. */
s64 Vm::may_move(u64 id, Domain **out) const
{
	if (ended_)
		return hc_enodev;

	Domain *d = *out = domain_by_id(id);

	if (!d || d->state() != Domain::State::Sealed)
		return hc_enoent;
	return d->flags & RDT_DOM_EXPORTABLE ? 0 : s64{hc_eacces};
}

s64 Vm::domain_blob_bytes(u64 id)
{
	PolicyLock lock(host_);
	Domain *d;
	const s64 err = may_move(id, &d);

	return err ? err : static_cast<s64>(blob_bytes(*d));
}

s64 Vm::domain_export(u64 id, const u8 *key, u8 *blob, u64 bytes)
{
	PolicyLock lock(host_);
	Domain *d;
	s64 err = may_move(id, &d);

	if (!err && !(quota_.flags & RDT_DOM_Q_EXPORT))
		err = hc_eacces;
	if (!err && bytes != blob_bytes(*d))
		err = hc_einval;
	if (err)
		return err;

	auto *head = reinterpret_cast<rdt_domain_blob *>(blob);
	const u64 pages = pages_of(*d), random[2] = {rdt_port_random(), rdt_port_random()};
	u8 *map = blob + sizeof(*head), *content = map + pages * sizeof(Entry);

	{
		ClosedSlots closed(*d);

		if (!closed)
			return hc_ebusy;
		each_page(*d, [&](u64 n, const Entry &e, const void *page) {
			__builtin_memcpy(map + n * sizeof(e), &e, sizeof(e));
			__builtin_memcpy(content + n * page_size, page, page_size);
			return true;
		});
	}
	*head = {};
	__builtin_memcpy(head->magic, magic, sizeof(head->magic));
	head->pages = pages;
	head->installs = read_once(d->installs);
	__builtin_memcpy(head->measurement, d->measurement, sizeof(head->measurement));
	__builtin_memcpy(head->nonce, random, sizeof(head->nonce));
	err = rdt_port_seal(key, head->nonce, blob, sizeof(*head), inner_bytes(pages));
	if (err)
		scrub(blob, bytes);
	else
		report_domain(RDT_DOM_EV_EXPORTED, d, nullptr);
	return err;
}

/* Everything is checked, the tag first of all, before anything is written. */
s64 Vm::domain_import(u64 id, const u8 *key, u8 *blob, u64 bytes)
{
	PolicyLock lock(host_);
	Domain *d;
	s64 err = may_move(id, &d);

	if (err)
		return err;

	const auto *head = reinterpret_cast<const rdt_domain_blob *>(blob);
	const u64 pages = pages_of(*d);

	if (bytes < sizeof(*head) || !same(head->magic, magic, sizeof(head->magic)))
		return hc_einval;
	if (!same(head->measurement, d->measurement, sizeof(head->measurement)))
		return hc_exdev;
	if (bytes != blob_bytes(*d) || head->pages != pages)
		return hc_einval;

	u8 *map = blob + sizeof(*head), *content = map + pages * sizeof(Entry);

	err = rdt_port_unseal(key, head->nonce, blob, sizeof(*head), inner_bytes(pages));
	if (!err && !each_page(*d, [&](u64 n, const Entry &e, const void *) {
		    return same(map + n * sizeof(e), &e, sizeof(e));
	    }))
		err = hc_exdev;
	if (!err) {
		ClosedSlots closed(*d);

		/* Who has been inside has counted before he gave his slot back. */
		if (!closed || read_once(d->enters)) {
			err = hc_ebusy;
		} else {
			each_page(*d, [&](u64 n, const Entry &, void *page) {
				__builtin_memcpy(page, content + n * page_size, page_size);
				return true;
			});
			write_once(d->installs, head->installs);
		}
	}
	scrub(map, inner_bytes(pages));
	if (!err)
		report_domain(RDT_DOM_EV_IMPORTED, d, nullptr);
	return err;
}

} // namespace redoubt
