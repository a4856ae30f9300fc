// SPDX-License-Identifier: GPL-2.0
/*
 * The life of protection domains: Documentation/domains.md. Everything here runs under
 * the host's policy lock; an error means that nothing changed.
 *
 * A frame becomes a domain's in this order: all that can fail; bit, then owner; zap:
 * from here on nobody in the guest has it; then its content moves. It is given
 * back in the reverse one.
 */
#include "vm.h"

namespace redoubt {

namespace {

using Run = Domain::Run;

} // namespace

/* Building and ending is for the root domain: from elsewhere it is an alert. */
bool Vm::only_root(const rdt_cpu &cpu)
{
	if (cpu.view == view_root)
		return true;
	report_domain(RDT_DOM_EV_CALLER, nullptr, &cpu);
	return false;
}

Domain *Vm::domain_by_id(u64 id) const
{
	const u8 view = static_cast<u8>(id);
	Domain *d = domains_ && is_domain(view) ? domains_->at[view] : nullptr;

	return d && d->state() != Domain::State::Gone && d->id() == id ? d : nullptr;
}

/* The object of a view, made when the view is first used. */
Domain *Vm::domain_slot(u8 view)
{
	Domain *&d = domains_->at[view];

	if (!d)
		if (void *mem = rdt_port_alloc(sizeof(Domain)))
			store_release(d, new (mem) Domain);
	return d;
}

/* From this one on; no domain's view: there is none. */
u8 Vm::free_view(unsigned view) const
{
	while (is_domain(static_cast<u8>(view)) && domains_ && !domains_->is_free(static_cast<u8>(view)))
		view++;
	return static_cast<u8>(view);
}

s64 Vm::domain_create(gpa_t gpa, const rdt_cpu &cpu)
{
	if (gpa & 7 || (gpa & (page_size - 1)) + sizeof(rdt_domain_desc) > page_size)
		return hc_einval;
	if (!only_root(cpu))
		return hc_eperm;

	PolicyLock lock(host_);

	if (ended_ || closing_)
		return hc_enodev;

	const u8 view = free_view(view_domain);
	u8 work_view = 0;

	if (!is_domain(view))
		return hc_enospc;
	if ((domains_ ? domains_->count : 0) >= quota_.domains)
		return hc_edquot;
	if (!domains_) {
		if (void *mem = rdt_port_alloc(sizeof(Domains)))
			store_release(domains_, new (mem) Domains); /* pairs with domains() */
		else
			return hc_enomem;
	}

	Domain *d = domain_slot(view);
	auto *desc = static_cast<rdt_domain_desc *>(rdt_port_alloc(sizeof(rdt_domain_desc)));
	void *sha = rdt_port_sha256_begin();
	s64 result = hc_enomem;

	if (d && desc && sha) {
		if (rdt_port_read(host_, gpa, desc, sizeof(*desc))) {
			result = hc_efault;
		} else if (desc->flags & RDT_DOM_SECRET && !is_domain(work_view = free_view(view + 1))) {
			result = hc_enospc;
		} else if (const char *wrong = d->create(*desc, view, work_view, cpu.va_bits,
							 domains_->epochs + 1, sha)) {
			rdt_port_log(host_, wrong, gpa, 0);
			result = hc_einval;
		} else {
			domains_->epochs++;
			domains_->count++;
			if (work_view)
				store_release(domains_->first_of[work_view], view); /* pairs with home() */
			sha = nullptr;
			result = static_cast<s64>(d->id());
		}
	}
	if (desc)
		rdt_port_free(desc);
	if (sha)
		rdt_port_sha256_end(sha, nullptr);
	return result;
}

/* 0, or why nothing can be added to this domain. Policy lock. */
s64 Vm::may_build(u64 id, const rdt_cpu &cpu, Domain **out)
{
	if (ended_)
		return hc_enodev;

	Domain *d = *out = domain_by_id(id);

	if (!d)
		return hc_enoent;
	if (d->state() == Domain::State::Building)
		return 0;
	/* A sealed region is not the root domain's to change (C7). */
	report_domain(RDT_DOM_EV_CALLER, d, &cpu);
	return hc_eperm;
}

/* Private pages, the VMM's pages pinned, tables for their owner. */
Run *Vm::take_pages(const Domain &d, gfn_t first, u64 gva, u32 count, u32 kind, s64 *err)
{
	auto *r = static_cast<Run *>(rdt_port_alloc(sizeof(Run) + count * sizeof(Run::Page)));

	*err = hc_enomem;
	if (!r)
		return nullptr;
	r->first = first;
	r->gva = gva;
	r->kind = kind;
	for (r->count = 0; r->count < count; r->count++) {
		Run::Page &p = r->page[r->count];

		p.own = rdt_port_page_alloc(host_);
		if (!p.own)
			break;

		void *vmm = rdt_port_pin(host_, first + r->count, &p.pin);

		if (!vmm) {
			*err = hc_efault;
			rdt_port_page_free(host_, p.own);
			break;
		}
	}
	if (r->count == count && domains_->map.reserve(first, count) == Status::Ok)
		*err = set_bits(first, count);
	if (!*err) {
		for (u32 i = 0; i < count; i++)
			domains_->map.set(first + i, Owner(r->page[i].own, d.gate.view,
							   static_cast<u8>(kind)));
		return r;
	}
	(void)restricted_.clear_range(first, count);
	drop_run(r);
	return nullptr;
}

/* The frames are nobody's any more, or never were anybody's. */
void Vm::drop_run(Run *r)
{
	for (u32 i = 0; i < r->count; i++) {
		rdt_port_page_free(host_, r->page[i].own);
		rdt_port_unpin(host_, r->page[i].pin);
	}
	rdt_port_free(r);
}

s64 Vm::domain_add(u64 id, gpa_t gpa, u64 gva, u64 what, const rdt_cpu &cpu)
{
	const u64 pages = what & 0xffffffff, kind = what >> 32;
	const gfn_t first = gpa >> page_shift;

	if (!only_root(cpu))
		return hc_eperm;

	PolicyLock lock(host_);
	Domain *d;
	s64 err = may_build(id, cpu, &d);

	if (!err && (pages < 1 || pages > RDT_DOM_ADD_MAX || !d->fits(gva, pages, kind)))
		err = hc_einval;
	if (!err)
		err = absent_gfn - first < pages ? s64{hc_efault} : check_ram(gpa, pages);
	if (!err && restricted_.any(first, pages))
		err = hc_ebusy;
	if (!err && (d->frames + pages > quota_.frames_each || domains_->frames + pages > quota_.frames))
		err = hc_edquot;
	if (err)
		return err;

	const u32 count = static_cast<u32>(pages);
	Run *r = take_pages(*d, first, gva, count, static_cast<u32>(kind), &err);

	if (!r)
		return err;
	zap(first, pages);
	for (u32 i = 0; i < count; i++) {
		void *vmm = rdt_port_pinned(host_, r->page[i].pin);

		if (kind != RDT_DOM_TABLE)
			__builtin_memcpy(r->page[i].own, vmm, page_size);
		scrub(vmm, page_size);
	}
	domains_->frames += pages;
	d->add(r);
	return 0;
}

s64 Vm::domain_share(u64 id, gpa_t gpa, u64 gva, u64 pages, const rdt_cpu &cpu)
{
	const gfn_t first = gpa >> page_shift;

	if (!only_root(cpu))
		return hc_eperm;

	PolicyLock lock(host_);
	Domain *d;
	s64 err = may_build(id, cpu, &d);

	if (!err)
		err = absent_gfn - first < pages ? s64{hc_efault} : check_ram(gpa, pages);
	if (!err && restricted_.any(first, pages))
		err = hc_ebusy;
	if (err)
		return err;
	switch (d->share(first, gva, pages)) {
	case Status::Ok:
		return 0;
	case Status::NoMem:
		return hc_e2big;
	default:
		return hc_einval;
	}
}

s64 Vm::domain_seal(u64 id, const rdt_cpu &cpu)
{
	if (!only_root(cpu))
		return hc_eperm;

	PolicyLock lock(host_);
	Domain *d;
	s64 err = may_build(id, cpu, &d);

	if (err)
		return err;
	for (u32 i = 0; i < d->gate.slots; i++)
		if (!d->make_room(d->slots[i], host_))
			return hc_enomem;
	err = guest_error(d->build(domains_->map));
	if (err)
		return err;
	d->measured();
	d->open();
	/* Without its value a secret is nothing to call; install() opens it. */
	if (d->gate.secret)
		(void)d->slots.close(false);
	d->set_state(Domain::State::Sealed);
	report_domain(RDT_DOM_EV_SEALED, d, &cpu);
	return 0;
}

/* Nobody is inside and nobody can get in. ended: no vCPU comes at all any more. */
void Vm::bury(Domain &d, bool ended)
{
	/*
	 * No vCPU keeps a way to what the domain saw: the root that KVM has for the
	 * view is its successor's, the shared frames in it included.
	 */
	for (Run *r = d.runs; r && !ended; r = r->next)
		zap(r->first, r->count);
	for (u32 i = 0; i < d.nshared() && !ended; i++)
		zap(d.shared(i).first, d.shared(i).count);
	/* A secret saw everything. */
	if (d.gate.secret && !ended)
		zap(0, gfn_limit);
	if (d.gate.work_view)
		store_release(domains_->first_of[d.gate.work_view], u8{0});

	while (Run *r = d.runs) {
		d.runs = r->next;
		for (u32 i = 0; i < r->count; i++)
			scrub(r->page[i].own, page_size);
		for (u32 i = 0; i < r->count; i++)
			domains_->map.set(r->first + i, Owner());
		(void)restricted_.clear_range(r->first, r->count);
		domains_->frames -= r->count;
		drop_run(r);
	}
	d.bury(host_);
	domains_->count--;
}

s64 Vm::domain_destroy(u64 id, const rdt_cpu *cpu)
{
	if (cpu && !only_root(*cpu))
		return hc_eperm;

	PolicyLock lock(host_);

	if (ended_)
		return hc_enodev;

	Domain *d = domain_by_id(id);

	if (!d)
		return hc_enoent;

	const bool sealed = d->state() != Domain::State::Building;

	if (sealed) {
		d->set_state(Domain::State::Dying);
		if (d->slots.close(true))
			return hc_eagain;
	}
	report_domain(RDT_DOM_EV_GONE, d, cpu);
	bury(*d, false);
	return 0;
}

void Vm::drop_domains()
{
	if (!domains_)
		return;
	for (Domain *&d : domains_->at) {
		if (!d)
			continue;
		if (d->state() != Domain::State::Gone)
			bury(*d, true);
		rdt_port_free(d);
		d = nullptr;
	}

	Domains *ds = domains_;

	domains_ = nullptr;
	ds->~Domains();
	rdt_port_free(ds);
}

/* Of the domain that asks, or, asked by the guest's kernel, of any. */
s64 Vm::domain_measure(const Vcpu &v, rdt_cpu &cpu, u64 id)
{
	const bool inside = v.inside && v.inside->gate.domain;

	if (cpu.view != view_root && !(inside && id == 0)) {
		report_domain(RDT_DOM_EV_CALLER, nullptr, &cpu);
		return hc_eperm;
	}

	PolicyLock lock(host_);

	if (ended_)
		return hc_enodev;

	const Domain *d = inside ? static_cast<const Domain *>(v.inside) : domain_by_id(id);

	if (!d)
		return hc_enoent;
	if (d->state() == Domain::State::Building)
		return hc_eperm;

	u64 word[4];

	__builtin_memcpy(word, d->measurement, sizeof(word));
	cpu.gpr[3] = word[0]; /* RBX, RCX, RDX, RSI */
	cpu.gpr[1] = word[1];
	cpu.gpr[2] = word[2];
	cpu.gpr[6] = word[3];
	return 0;
}

s64 Vm::domain_install(u64 id, const void *value, u32 len, const rdt_fixup *fixups, u32 nr)
{
	const u8 *from = static_cast<const u8 *>(value);

	PolicyLock lock(host_);

	if (ended_)
		return hc_enodev;
	if (len < 1 || len > page_size || nr < 1 || nr > RDT_MAX_FIXUPS)
		return hc_einval;
	for (u32 i = 0; i < nr; i++)
		if (fixups[i].len < 1 || fixups[i].len > len || fixups[i].from > len - fixups[i].len)
			return hc_einval;

	Domain *d = domain_by_id(id);

	if (!d || d->state() != Domain::State::Sealed)
		return hc_enoent;

	/* Twice: all of it is looked at before any of it is written. */
	for (int write = 0; write < 2; write++) {
		/* Who is inside, or is to go on there, must not have a part of each value. */
		if (write && d->slots.close(false)) {
			d->slots.reopen(d->epoch);
			return hc_eagain;
		}
		for (u32 i = 0; i < nr; i++) {
			const rdt_fixup &f = fixups[i];
			const u64 gva = (d->gate.gate_gva & ~(page_size - 1)) + static_cast<u64>(f.offset);

			for (u32 done = 0; done < f.len; done++) {
				u8 *at = d->installable(gva + done);

				if (!at)
					return hc_efault;
				if (write)
					*at = from[f.from + done];
			}
		}
	}
	write_once(d->installs, d->installs + 1);
	d->slots.reopen(d->epoch);
	report_domain(RDT_DOM_EV_INSTALLED, d, nullptr);
	return 0;
}

/* Who is inside keeps all of it where it is: no lock. */
u32 Vm::read_inside(const Vcpu &v, u64 gva, void *to, u32 n) const
{
	u32 done = 0;

	if (!v.inside || !v.inside->gate.domain)
		return 0;
	while (done < n) {
		const u64 at = (gva + done) & (page_size - 1);
		const u32 part = min_of(n - done, static_cast<u32>(page_size - at));
		gfn_t gfn;

		/* What a secret executes is what its caller's tables say, right or wrong. */
		if (v.inside->gate.secret)
			gfn = rdt_port_gva_to_gpa(v.hv, gva + done) >> page_shift;
		else if (!static_cast<Domain *>(v.inside)->walk(domains()->map, gva + done, &gfn))
			break;

		const Owner o = domains()->map.find(gfn);

		if (o.view() != v.inside->gate.view || o.kind() == RDT_DOM_TABLE)
			break;
		__builtin_memcpy(static_cast<u8 *>(to) + done, static_cast<const u8 *>(o.page()) + at, part);
		done += part;
	}
	return done;
}

s64 Vm::domain_set_quota(const rdt_domain_quota &q)
{
	PolicyLock lock(host_);

	if (ended_)
		return hc_enodev;
	if (q.domains > RDT_DOM_MAX || q.flags & ~RDT_DOM_Q_EXPORT)
		return hc_einval;
	quota_ = q;
	return 0;
}

void Vm::domain_quota(rdt_domain_quota &q)
{
	PolicyLock lock(host_);

	q = quota_;
}

s64 Vm::domain_info(u32 view, rdt_domain_info &out)
{
	PolicyLock lock(host_);

	if (ended_)
		return hc_enodev;
	for (view = max_of<u32>(view, view_domain); domains_ && view < view_domain + RDT_DOM_MAX; view++) {
		const Domain *d = domains_->at[view];

		if (!d || d->state() == Domain::State::Gone)
			continue;
		out = {};
		out.id = d->id();
		out.state = static_cast<u32>(d->state());
		out.flags = d->flags;
		out.view = view;
		out.slots = d->gate.slots;
		out.slots_busy = d->slots.busy();
		out.installs = d->installs;
		out.gate_gva = d->gate.gate_gva;
		out.frames = d->frames;
		for (u32 i = 0; i < d->nshared(); i++)
			out.shared += d->shared(i).count;
		out.enters = read_once(d->enters);
		out.aexits = read_once(d->aexits);
		__builtin_memcpy(out.measurement, d->measurement, sizeof(out.measurement));
		return 0;
	}
	return hc_enoent;
}

} // namespace redoubt
