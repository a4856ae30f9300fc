// SPDX-License-Identifier: GPL-2.0
/*
 * Changing the policy. Everything here runs under the host's policy lock: an error
 * means that nothing changed. One exception, in the safe direction: protect() that
 * is the first to find the tree corrupt leaves its frames restricted.
 *
 * Order of a restriction: bits into the bitmap, which all that can still fail comes
 * after; then the rule into the tree; then zap. After the zap no vCPU has a
 * right that the bits refuse. Whoever meets a bit without a rule meanwhile waits
 * for the lock, see find_action(). A failure lifts the bits that no rule holds.
 */
#include "vm.h"

namespace redoubt {

namespace {

/* Range::flags: made by the operator; the guest can neither weaken nor remove it. */
constexpr u16 flag_operator = 1;

bool page_aligned(u64 a)
{
	return (a & (page_size - 1)) == 0;
}

} // namespace

Vm::~Vm()
{
	step_stop();
	drop_guest_policy();
}

/* No reader is left, and none can ask the tree any more: its pages go. */
void Vm::drop_guest_policy()
{
	while (NodePage *n = node_pages_) {
		node_pages_ = n->next;
		rdt_port_unpin(host_, n->pin);
		rdt_port_free(n);
	}
	if (Integrity *i = integrity_) {
		integrity_ = nullptr;
		enters_ += i->enters;
		aexits_ += i->aexits;
		rdt_port_free(i);
	}
	drop_domains();
}

s64 Vm::guest_error(Status s)
{
	switch (s) {
	case Status::Ok:
		return 0;
	case Status::None:
		return hc_enoent;
	case Status::NoMem:
	case Status::NoNodes:
		return hc_enomem;
	case Status::Overlap:
	case Status::Busy:
		return hc_ebusy;
	case Status::Refused:
		return hc_eperm;
	case Status::Corrupt:
		tree_corrupt();
		return hc_eperm;
	default:
		return hc_einval;
	}
}

/* 0, or why these bytes cannot be put under a rule. */
s64 Vm::check_ram(gpa_t gpa, u64 pages) const
{
	gfn_t first = gpa >> page_shift;

	if (ended_)
		return hc_enodev;
	if (!page_aligned(gpa) || !valid_frames(first, pages))
		return hc_einval;
	if (!rdt_port_is_ram(host_, first, pages))
		return hc_efault;
	return 0;
}

/*
 * Sets the bits. KVM's own structures are looked for behind them: whoever sets one
 * up now asks may_hold_pv() and is refused, or did so before and is found here.
 * After an error the caller takes back those that were not set before.
 */
s64 Vm::set_bits(gfn_t first, u64 count)
{
	s64 err = guest_error(restricted_.set_range(first, count));

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!err && rdt_port_holds_pv(host_, first, count))
		err = hc_ebusy;
	return err;
}

/* The first frames from `from` on that a rule holds, of whatever kind. */
Status Vm::next_rule(gfn_t from, Rule *out)
{
	const Integrity *i = integrity();
	Range r;
	Status s = tree_.next(from, &r);

	if (s == Status::Corrupt)
		return s;
	*out = {gfn_limit, 0, 0, 0};
	if (s == Status::Ok)
		*out = {r.first, r.count, r.cls, static_cast<u8>(r.action)};

	gfn_t node = tree_.next_node_page(from);

	if (node < out->first)
		*out = {node, 1, RDT_CLS_NODE, RDT_ACT_DENY};
	/* The IDT's frame has a rule in the tree, which then comes first. */
	for (unsigned k = 0; i && k < i->driver.regions(); k++) {
		const Driver::Region &d = i->driver.region(k);

		if (d.first + d.count > from && d.first < out->first)
			*out = {d.first, d.count, class_of(d.kind), RDT_ACT_DENY};
	}
	if (domains_) {
		gfn_t own = domains_->map.next(from, min_of(out->first, gfn_limit));

		if (own < out->first) {
			/* As far as they are the same domain's, one by one. */
			*out = {own, 1, RDT_CLS_DOMAIN, RDT_ACT_DENY};
			while (owner(own + out->count).view() == owner(own).view())
				out->count++;
		}
	}
	return out->first < gfn_limit ? Status::Ok : Status::None;
}

/* Clears the bits that no rule holds. A corrupt tree cannot tell: all stay. */
void Vm::lift(gfn_t first, u64 count)
{
	gfn_t at = first, end = first + count;
	Rule r;

	while (at < end) {
		Status s = next_rule(at, &r);

		if (s == Status::Corrupt)
			return;

		gfn_t stop = s == Status::Ok ? min_of(r.first, end) : end;

		if (stop > at)
			(void)restricted_.clear_range(at, stop - at);
		at = s == Status::Ok ? r.first + r.count : end;
	}
}

s64 Vm::node_add(gpa_t gpa)
{
	PolicyLock lock(host_);
	gfn_t gfn = gpa >> page_shift;
	s64 err = check_ram(gpa, 1);

	if (err)
		return err;
	if (restricted_.test(gfn))
		return hc_ebusy;
	if (tree_.node_pages() >= RDT_MAX_NODE_PAGES)
		return hc_e2big;

	auto *n = static_cast<NodePage *>(rdt_port_alloc(sizeof(NodePage)));

	if (!n)
		return hc_enomem;

	void *va = rdt_port_pin(host_, gfn, &n->pin);

	err = va ? set_bits(gfn, 1) : s64{hc_efault};
	if (!err) {
		/* The guest loses the right to write before the page means anything. */
		zap(gfn, 1);
		err = guest_error(tree_.add_node_page(va, gfn));
	}
	if (err) {
		(void)restricted_.clear_range(gfn, 1);
		if (va)
			rdt_port_unpin(host_, n->pin);
		rdt_port_free(n);
		return err;
	}
	n->gfn = gfn;
	n->next = node_pages_;
	node_pages_ = n;
	return static_cast<s64>(tree_.node_pages());
}

namespace {

struct Caller_rights {
	bool is_operator;
	bool inside;
};

} // namespace

/*
 * May a rule give way? To the operator always; to the guest never if it is the
 * operator's; from outside integrity mode only to a stronger one (A5).
 */
bool Vm::may_only_add(const Range &existing, const Range *wanted, void *ctx)
{
	const auto &who = *static_cast<const Caller_rights *>(ctx);

	if (who.is_operator)
		return true;
	if (wanted && existing.same_rule(*wanted))
		return true;
	if (existing.flags & flag_operator)
		return false;
	if (who.inside)
		return true;
	return wanted && wanted->action > existing.action;
}

s64 Vm::protect(gpa_t gpa, u64 pages, u64 attr, const rdt_cpu *cpu)
{
	u64 action = RDT_ATTR_ACTION(attr), cls = RDT_ATTR_CLASS(attr);

	if (attr >> 16 || action < RDT_ACT_LOG || action > RDT_ACT_FREEZE || cls > RDT_CLS_GUEST_MAX)
		return hc_einval;

	PolicyLock lock(host_);
	s64 err = check_ram(gpa, pages);

	if (err)
		return err;

	gfn_t first = gpa >> page_shift;
	bool builtin = tree_.next_node_page(first) < first + pages || has_domain_frames(first, pages);

	if (const Integrity *i = integrity())
		for (unsigned n = 0; n < i->driver.regions() && !builtin; n++) {
			const Driver::Region &r = i->driver.region(n);

			builtin = r.kind != FrameKind::Idt && r.first < first + pages &&
				  first < r.first + r.count;
		}

	Range r = {first, pages, static_cast<u8>(cls), static_cast<Action>(action),
		   cpu ? u16{0} : flag_operator};
	Caller_rights who = {!cpu, cpu && cpu->view == view_integrity};
	Status s = builtin	      ? Status::Refused
		   : tree_.poisoned() ? Status::Corrupt
				      : Status::Ok;

	if (s == Status::Ok) {
		err = set_bits(first, pages);
		if (!err)
			s = tree_.protect(r, may_only_add, &who);
		if (!err && s == Status::Ok)
			zap(first, pages);
		else
			lift(first, pages);
	}
	if (s == Status::Refused && cpu)
		report_refused(RDT_EV_PROTECT_REFUSED, cpu, gpa, pages);
	return err ? err : guest_error(s);
}

s64 Vm::unprotect(gpa_t gpa, u64 pages, const rdt_cpu *cpu)
{
	gfn_t first = gpa >> page_shift;

	if (cpu && cpu->view != view_integrity) {
		report_refused(RDT_EV_UNPROTECT, cpu, gpa, pages);
		return hc_eperm;
	}
	if (!page_aligned(gpa) || !valid_frames(first, pages))
		return hc_einval;

	PolicyLock lock(host_);

	if (ended_)
		return hc_enodev;

	Caller_rights who = {!cpu, cpu != nullptr};
	const Integrity *i = integrity();
	bool builtin = tree_.next_node_page(first) < first + pages || has_domain_frames(first, pages);

	/* The IDT included: without it integrity mode has no way out. */
	for (unsigned n = 0; i && n < i->driver.regions() && !builtin; n++) {
		const Driver::Region &r = i->driver.region(n);

		builtin = r.first < first + pages && first < r.first + r.count;
	}

	Status s = builtin ? Status::Refused : tree_.remove(first, pages, may_only_add, &who);

	if (s == Status::Ok)
		lift(first, pages);
	else if (s == Status::Refused && cpu)
		report_refused(RDT_EV_PROTECT_REFUSED, cpu, gpa, pages);
	/* Rights that are given need no zap: the next write faults and finds them. */
	return guest_error(s);
}

s64 Vm::query(gpa_t gpa)
{
	gfn_t gfn = gpa >> page_shift;
	Rule rule;

	if (gfn >= gfn_limit)
		return hc_einval;

	u8 action = find_action(gfn, &rule);

	return action == RDT_ACT_NONE ? 0 : static_cast<s64>(RDT_ATTR(action, rule.cls));
}

s64 Vm::seal(gpa_t desc, const rdt_cpu &cpu)
{
	if (desc & 7 || (desc & (page_size - 1)) + sizeof(rdt_driver_desc) > page_size)
		return hc_einval;

	PolicyLock lock(host_);

	if (ended_)
		return hc_enodev;
	if (integrity())
		return hc_eexist;
	if (tree_.poisoned())
		return guest_error(Status::Corrupt);

	/* Too large for a kernel stack. */
	struct Work {
		rdt_driver_desc desc;
	};
	auto *copy = static_cast<Work *>(rdt_port_alloc(sizeof(Work)));
	void *mem = rdt_port_alloc(sizeof(Integrity));
	Integrity *i = mem ? new (mem) Integrity : nullptr;
	s64 err = 0;

	if (!copy || !i)
		err = hc_enomem;
	else if (rdt_port_read(host_, desc, &copy->desc, sizeof(copy->desc)))
		err = hc_efault;
	else if (const char *wrong = i->driver.init(copy->desc, cpu.va_bits)) {
		rdt_port_log(host_, wrong, desc, 0);
		err = hc_einval;
	}
	for (unsigned n = 0; !err && n < i->driver.regions(); n++) {
		const Driver::Region &r = i->driver.region(n);

		err = check_ram(r.first << page_shift, r.count);
		if (!err && (r.kind == FrameKind::Idt ? has_domain_frames(r.first, r.count)
						      : restricted_.any(r.first, r.count)))
			err = hc_ebusy;
		if (err)
			rdt_port_log(host_, "driver region is not free RAM",
				     r.first << page_shift, r.count);
	}

	/* All but the IDT's frame were free, see above. */
	bool idt_was_set = !err && restricted_.test(i->driver.idt_gfn);
	unsigned set = 0;

	for (; !err && set < i->driver.regions(); set++)
		err = set_bits(i->driver.region(set).first, i->driver.region(set).count);
	if (!err) {
		/* Whoever may write the IDT decides where events go. */
		Range rule = {i->driver.idt_gfn, 1, RDT_CLS_IDT, Action::Deny, 0};
		Caller_rights who = {false, false};
		Range old;

		if (tree_.find(rule.first, &old) != Status::Ok || old.action < Action::Deny)
			err = guest_error(tree_.protect(rule, may_only_add, &who));
	}
	if (err) {
		for (unsigned n = 0; n < set; n++) {
			const Driver::Region &r = i->driver.region(n);

			if (r.kind != FrameKind::Idt || !idt_was_set)
				(void)restricted_.clear_range(r.first, r.count);
		}
		if (i)
			rdt_port_free(i);
	} else {
		i->gate = i->driver;
		i->open();
		store_release(integrity_, i); /* pairs with integrity() */
		for (unsigned n = 0; n < i->driver.regions(); n++)
			zap(i->driver.region(n).first, i->driver.region(n).count);

		rdt_event ev = event_for(RDT_EV_SEALED, &cpu);

		ev.range_pages = i->driver.frames();
		raise(ev);
	}
	if (copy)
		rdt_port_free(copy);
	return err;
}

s64 Vm::detach(bool force)
{
	PolicyLock lock(host_);
	Integrity *i = load_acquire(integrity_);

	if (ended_)
		return hc_enodev;
	/* Their memory would be gone. */
	if (domains_ && domains_->count)
		return hc_ebusy;
	write_once(closing_, true);
	/* An exited thread is not ours to end, unless we are told to. */
	if (i && i->slots.close(force)) {
		i->slots.reopen();
		write_once(closing_, false);
		return hc_ebusy;
	}
	/* Nobody is inside any more: what its root still grants must not await the next. */
	for (unsigned n = 0; i && n < i->driver.regions(); n++)
		zap(i->driver.region(n).first, i->driver.region(n).count);
	return 0;
}

void Vm::end()
{
	PolicyLock lock(host_);

	ended_ = true;
	step_stop();
	drop_guest_policy();
}

u32 Vm::status() const
{
	return (integrity() ? RDT_ST_SEALED : 0) | (tree_.poisoned() ? RDT_ST_TREE_CORRUPT : 0);
}

void Vm::info(rdt_vm_info &out)
{
	PolicyLock lock(host_);
	const Integrity *i = integrity();

	out.frames = restricted_.weight();
	out.ranges = tree_.ranges();
	out.node_pages = tree_.node_pages();
	/* tree_ counts itself. */
	out.host_bytes += sizeof(*this) - sizeof(tree_) + restricted_.host_bytes() + tree_.host_bytes() +
			  step_.host_bytes() + tree_.node_pages() * sizeof(NodePage);
	if (i) {
		out.host_bytes += sizeof(*i);
		out.flags |= RDT_VM_SEALED;
		out.driver_frames = i->driver.frames();
		out.slots = i->slots.size();
		out.slots_busy = i->slots.busy();
	}
	if (domains_) {
		out.domains = domains_->count;
		out.domain_frames = domains_->frames;
		out.host_bytes += sizeof(*domains_) + domains_->map.host_bytes() +
				  domains_->frames * (page_size + sizeof(Domain::Run::Page));
		for (const Domain *d : domains_->at)
			out.host_bytes += d ? sizeof(*d) : 0;
	}
	if (tree_.poisoned())
		out.flags |= RDT_VM_TREE_CORRUPT;
	out.enters = enters_ + (i ? read_once(i->enters) : 0);
	out.aexits = aexits_ + (i ? read_once(i->aexits) : 0);
	out.steps = read_once(steps_);
}

/* Tree ranges, node pages and driver regions in one ascending list. */
s64 Vm::regions(gpa_t from, rdt_region *out, u32 room, gpa_t *next)
{
	PolicyLock lock(host_);

	if (ended_)
		return hc_enodev;

	gfn_t at = from >> page_shift;
	u32 n = 0;

	while (n < room && at < gfn_limit) {
		Rule best;
		Status s = next_rule(at, &best);

		if (s == Status::Corrupt) {
			tree_corrupt();
			return hc_euclean;
		}
		if (s != Status::Ok) {
			at = gfn_limit;
			break;
		}
		out[n] = {};
		out[n].gpa = best.first << page_shift;
		out[n].pages = best.count;
		out[n].action = best.action;
		out[n].cls = best.cls;
		n++;
		at = best.first + best.count;
	}
	*next = at << page_shift;
	return n;
}

} // namespace redoubt
