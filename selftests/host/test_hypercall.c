// SPDX-License-Identifier: GPL-2.0
/*
 * The hypercalls against everything a guest can get wrong: each argument out of
 * range, the wrong state, the wrong ring, two vCPUs at once. Each refusal has its
 * error and changes nothing.
 */
#include <string.h>
#include <sys/ioctl.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(32ul << 20)
#define NODES	GUEST_FREE
#define TARGET	(GUEST_FREE + 0x100000)
#define HUGE	(1ull << 40)	/* no memory there */
#define ENOSYS_KVM 1000

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;

static int64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	int64_t ret = vcpu_call(v, g_hc, nr, a, b, c);

	if (!vcpu_done(v))
		vcpu_explain(v);
	return ret;
}

static u64 g_hc4(u64 nr, u64 n)
{
	return guest_hc(nr, 0, 0, 0, n);
}

/* Of an unattached VM. */
static void test_unattached(void)
{
	struct rdt_policy p = { 0 };

	ioctl(rdt_dev(), RDT_SET_POLICY, &p);
	is(hc(RDT_HC_VERSION, 0, 0, 0), RDT_ABI_VERSION, "hypercall version, unattached");
	is(hc(RDT_HC_STATUS, 0, 0, 0), guest_is_intel ? RDT_ST_EPT : 0, "hypercall status, unattached");
	is(hc(RDT_HC_ATTACH, 0, 0, 0), -EPERM, "hypercall attach against the policy");
	for (uint64_t nr = RDT_HC_NODE_ADD; nr <= RDT_HC_RESUME; nr++)
		ok(hc(nr, TARGET, 0, 0) < 0, "hypercall %#lx, unattached, is refused", nr);
	is(hc(RDT_HC_BASE - 1, 0, 0, 0), -ENOSYS_KVM, "hypercall below our numbers is KVM's");
	is(hc(RDT_HC_LAST + 1, 0, 0, 0), -ENOSYS_KVM, "hypercall above our numbers is KVM's");
	is(hc((uint64_t)RDT_HC_VERSION | 1ull << 32, 0, 0, 0), -ENOSYS_KVM,
	   "hypercall numbers are 64 bits wide");
}

static void test_self_attach(void)
{
	struct rdt_policy p = { .flags = RDT_POLICY_SELF_ATTACH };
	struct rdt_list_entry entry;
	struct rdt_list l = { .nr = 1, .entries = (uintptr_t)&entry };
	struct rdt_open o = { 0 };
	struct rdt_event ev;

	ioctl(rdt_dev(), RDT_SET_POLICY, &p);
	is(hc(RDT_HC_STATUS, 0, 0, 0), RDT_ST_SELF_ATTACH | (guest_is_intel ? RDT_ST_EPT : 0),
	   "hypercall status tells the policy");
	is(hc(RDT_HC_ATTACH, 1, 0, 0), -EINVAL, "hypercall attach with a flag");
	is(hc(RDT_HC_ATTACH, 0, 1, 0), -EINVAL, "hypercall attach with a second argument");
	is(hc(RDT_HC_ATTACH, 0, 0, 0), 0, "hypercall attach");
	is(hc(RDT_HC_ATTACH, 0, 0, 0), -EEXIST, "hypercall attach twice");
	is(ioctl(rdt_dev(), RDT_LIST, &l), 0, "hypercall attach shows in the list");
	o.vm_id = entry.vm_id;
	is(ioctl(rdt_dev(), RDT_OPEN, &o), 0, "hypercall attached VM can be opened");
	r = rdt_wrap(o.fd, o.vm_id);
	r->next = 1;
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_ATTACH && ev.code == 1, "hypercall attach is an event");
	p.flags = 0;
	ioctl(rdt_dev(), RDT_SET_POLICY, &p);
	is(hc(RDT_HC_STATUS, 0, 0, 0), RDT_ST_ATTACHED | (guest_is_intel ? RDT_ST_EPT : 0),
	   "hypercall status, attached");
}

struct bad {
	uint64_t nr, a, b, c;
	int error;
	const char *what;
};

static void test_arguments(void)
{
	const uint64_t deny = RDT_ATTR(RDT_ACT_DENY, 0);
	const struct bad bad[] = {
		{ RDT_HC_STATUS, 1, 0, 0, EINVAL, "status: argument" },
		{ RDT_HC_VERSION, 0, 1, 0, EINVAL, "version: argument" },
		{ RDT_HC_NODE_ADD, TARGET + 1, 0, 0, EINVAL, "node_add: unaligned" },
		{ RDT_HC_NODE_ADD, TARGET + 2048, 0, 0, EINVAL, "node_add: unaligned" },
		{ RDT_HC_NODE_ADD, -PAGE_SIZE, 0, 0, EINVAL, "node_add: the last page" },
		{ RDT_HC_NODE_ADD, 1ull << 52, 0, 0, EINVAL, "node_add: beyond 52 bits" },
		{ RDT_HC_NODE_ADD, RAM, 0, 0, EFAULT, "node_add: no RAM" },
		{ RDT_HC_NODE_ADD, HUGE, 0, 0, EFAULT, "node_add: no RAM at all" },
		{ RDT_HC_NODE_ADD, TARGET, 1, 0, EINVAL, "node_add: second argument" },
		{ RDT_HC_NODE_ADD, TARGET, 0, 1, EINVAL, "node_add: third argument" },
		{ RDT_HC_PROTECT, TARGET + 8, 1, deny, EINVAL, "protect: unaligned" },
		{ RDT_HC_PROTECT, TARGET, 0, deny, EINVAL, "protect: nothing" },
		{ RDT_HC_PROTECT, TARGET, ~0ull, deny, EINVAL, "protect: too much" },
		{ RDT_HC_PROTECT, TARGET, 1ull << 52, deny, EINVAL, "protect: too much, wrapping" },
		{ RDT_HC_PROTECT, TARGET, 1ull << 63, deny, EINVAL, "protect: too much, wrapping" },
		{ RDT_HC_PROTECT, -PAGE_SIZE, 2, deny, EINVAL, "protect: wrapping" },
		{ RDT_HC_PROTECT, RAM - PAGE_SIZE, 2, deny, EFAULT, "protect: half RAM" },
		{ RDT_HC_PROTECT, HUGE, 1, deny, EFAULT, "protect: no RAM" },
		{ RDT_HC_PROTECT, TARGET, 1, 0, EINVAL, "protect: no action" },
		{ RDT_HC_PROTECT, TARGET, 1, RDT_ATTR(4, 0), EINVAL, "protect: unknown action" },
		{ RDT_HC_PROTECT, TARGET, 1, RDT_ATTR(255, 0), EINVAL, "protect: unknown action" },
		{ RDT_HC_PROTECT, TARGET, 1, RDT_ATTR(2, 0x80), EINVAL, "protect: Redoubt's class" },
		{ RDT_HC_PROTECT, TARGET, 1, RDT_ATTR(2, 0x84), EINVAL, "protect: Redoubt's class" },
		{ RDT_HC_PROTECT, TARGET, 1, deny | 1ull << 16, EINVAL, "protect: reserved bit" },
		{ RDT_HC_PROTECT, TARGET, 1, deny | 1ull << 63, EINVAL, "protect: reserved bit" },
		{ RDT_HC_UNPROTECT, TARGET, 1, 0, EPERM, "unprotect: from outside" },
		{ RDT_HC_UNPROTECT, TARGET, 1, 1, EINVAL, "unprotect: third argument" },
		{ RDT_HC_QUERY, 1ull << 52, 0, 0, EINVAL, "query: beyond 52 bits" },
		{ RDT_HC_QUERY, ~0ull, 0, 0, EINVAL, "query: beyond 52 bits" },
		{ RDT_HC_QUERY, TARGET, 1, 0, EINVAL, "query: second argument" },
		{ RDT_HC_DRIVER, TARGET + 1, 0, 0, EINVAL, "driver: unaligned" },
		{ RDT_HC_DRIVER, TARGET + PAGE_SIZE - 8, 0, 0, EINVAL, "driver: crosses a page" },
		{ RDT_HC_DRIVER, HUGE, 0, 0, EFAULT, "driver: no RAM" },
		{ RDT_HC_DRIVER, TARGET, 0, 0, EINVAL, "driver: zeros" },
		{ RDT_HC_DRIVER, TARGET, 0, 1, EINVAL, "driver: third argument" },
		{ RDT_HC_ENTER, 0, 0, 0, EPERM, "enter: no driver" },
		{ RDT_HC_LEAVE, 0, 0, 0, EPERM, "leave: not inside" },
		{ RDT_HC_LEAVE, 0, 1, 0, EINVAL, "leave: second argument" },
		{ RDT_HC_RESUME, 1, 0, 0, EPERM, "resume: no driver" },
	};
	struct rdt_vm_info before = rdt_info(r), after;

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		is(hc(bad[i].nr, bad[i].a, bad[i].b, bad[i].c), -bad[i].error, "hypercall %s",
		   bad[i].what);
	for (uint64_t nr = RDT_HC_BASE; nr <= RDT_HC_RESUME; nr++)
		if (nr != RDT_HC_ENTER)
			ok((int64_t)vcpu_call(v, g_hc4, nr, 1) < 0, "hypercall %#lx: fourth argument", nr);
	for (uint64_t nr = RDT_HC_RESUME + 1; nr <= RDT_HC_LAST; nr++)
		if ((nr < RDT_HC_DOM_CREATE || nr > RDT_HC_DOM_DESTROY) && hc(nr, 0, 0, 0) != -ENOSYS_KVM)
			ok(false, "hypercall %#lx is not ours", nr);
	is(hc(RDT_HC_PROTECT, TARGET, 1, deny), -ENOMEM, "hypercall protect without a node page");
	after = rdt_info(r);
	is(after.frames, before.frames, "hypercall refusals restrict nothing");
	is(after.ranges, before.ranges, "hypercall refusals leave the tree alone");
	is(after.node_pages, before.node_pages, "hypercall refusals take no page");
	is(vcpu_call(v, g_store, TARGET, 0x55), -1, "hypercall refusals leave the page writable");
}

static void test_states(void)
{
	const uint64_t deny = RDT_ATTR(RDT_ACT_DENY, RDT_CLS_GUEST_MAX);

	is(hc(RDT_HC_NODE_ADD, NODES, 0, 0), 1, "hypercall node_add");
	is(hc(RDT_HC_NODE_ADD, NODES, 0, 0), -EBUSY, "hypercall node_add twice");
	is(hc(RDT_HC_PROTECT, NODES, 1, deny), -EPERM, "hypercall protect of a node page");
	is(hc(RDT_HC_QUERY, NODES, 0, 0), RDT_ATTR(RDT_ACT_DENY, RDT_CLS_NODE),
	   "hypercall query of a node page");
	is(hc(RDT_HC_PROTECT, TARGET, 2, deny), 0, "hypercall protect");
	is(hc(RDT_HC_NODE_ADD, TARGET, 0, 0), -EBUSY, "hypercall node_add of a protected page");
	is(hc(RDT_HC_QUERY, TARGET, 0, 0), deny, "hypercall query");
	is(hc(RDT_HC_QUERY, TARGET + 2 * PAGE_SIZE - 1, 0, 0), deny, "hypercall query of the last byte");
	is(hc(RDT_HC_QUERY, TARGET + 2 * PAGE_SIZE, 0, 0), 0, "hypercall query behind it");
}

/* Everything from ring 3: refused, whatever it is. */
static u64 u_all(u64 arg)
{
	u64 granted = 0;

	for (u64 nr = RDT_HC_BASE; nr <= RDT_HC_LAST; nr++)
		granted += guest_hc(nr, arg, 1, RDT_ATTR(RDT_ACT_LOG, 0), 0) >= 0;
	return granted;
}

static u64 g_user(u64 arg)
{
	return guest_user_call(u_all, arg);
}

static void test_ring3(void)
{
	struct rdt_vm_info before = rdt_info(r), after;

	is(vcpu_call(v, g_user, TARGET + 0x10000), 0, "hypercalls from ring 3 are all refused");
	if (!vcpu_done(v))
		vcpu_explain(v);
	after = rdt_info(r);
	ok(after.frames == before.frames && after.node_pages == before.node_pages &&
	   after.ranges == before.ranges, "hypercalls from ring 3 change nothing");
}

/* Two vCPUs add and strengthen the same pages; each page ends as one of them said. */
static u64 g_race(u64 gpa, u64 pages, u64 attr, u64 rounds)
{
	u64 bad = 0;

	for (u64 i = 0; i < rounds; i++) {
		u64 at = gpa + (i * 7 % pages) * PAGE_SIZE;
		s64 ret = guest_hc(RDT_HC_PROTECT, at, 1, attr, 0);

		/* The other's, of the same strength, may be there. */
		bad += ret && ret != -EPERM;
		bad += guest_hc(RDT_HC_QUERY, at, 0, 0, 0) == 0;
		bad += guest_try_store(at, i) != 13;
	}
	return bad;
}

static void test_race(void)
{
	uint64_t at = TARGET + 0x100000;
	int done = 0;

	vcpu_call(v, g_node_add, NODES + PAGE_SIZE, 8);
	for (int i = 0; i < 2; i++)
		vcpu_start(&vm->vcpu[i], g_race, at, 64, RDT_ATTR(RDT_ACT_DENY, 1 + i), 512);
	for (int i = 0; i < 2; i++) {
		is(vcpu_join(&vm->vcpu[i]), 0, "hypercalls of two vCPUs at once, vCPU %d", i);
		if (!vcpu_done(&vm->vcpu[i]))
			vcpu_explain(&vm->vcpu[i]);
	}
	for (int i = 0; i < 64; i++) {
		int64_t attr = hc(RDT_HC_QUERY, at + i * PAGE_SIZE, 0, 0);

		done += attr == (int64_t)RDT_ATTR(RDT_ACT_DENY, 1) || attr == (int64_t)RDT_ATTR(RDT_ACT_DENY, 2);
	}
	is(done, 64, "hypercalls of two vCPUs: every page is as one of them said");
}

/* Detach while a vCPU does nothing but hypercalls. */
static u64 g_until_refused(u64 nr, u64 a)
{
	u64 n = 0;

	while (guest_hc(nr, a, 0, 0, 0) >= 0)
		n++;
	return n;
}

static void test_detach_under_load(void)
{
	vcpu_start(v, g_until_refused, RDT_HC_QUERY, TARGET);
	is(ioctl(r->fd, RDT_VM_DETACH, 0), 0, "hypercall: detach while a vCPU calls");
	vcpu_join(v);
	ok(vcpu_done(v), "hypercall: the vCPU is refused and goes on");
	is(vcpu_call(v, g_store, TARGET, 1), -1, "hypercall: and may write again");
}

int main(void)
{
	vm = vm_create(RAM, 2, 0);
	v = &vm->vcpu[0];
	test_unattached();
	test_self_attach();
	test_arguments();
	test_states();
	test_ring3();
	test_race();
	test_detach_under_load();
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
