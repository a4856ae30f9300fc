// SPDX-License-Identifier: GPL-2.0
/*
 * Protection domains (lines C): a domain's memory for everybody else, the way in and out
 * of it, events that strike inside, several at once, and their end.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "domain.h"
#include "driver.h"
#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE
#define DESC	(GUEST_FREE + 0x10000)
#define DENY	(GUEST_FREE + 0x20000)
#define SHARED	(GUEST_FREE + 0x30000)		/* two pages */
#define DOMS	(GUEST_FREE + 0x400000)		/* DOM_SIZE each */
#define DOM_SIZE 0x40000ul
#define GVA	0x7e8000000000ul		/* in its own address space */
#define WINDOW	(GVA + 0x1000000)
#define gp	13

/* Pages of a domain, in both address spaces: code, data, stacks; then its tables. */
#define DATA	(DOM_CODE_PAGES * PAGE_SIZE)
#define STACKS	(DATA + 2 * PAGE_SIZE)
#define SLOTS	2
#define PAGES	(DOM_CODE_PAGES + 2 + SLOTS)
#define TABLES	0x20000ul
#define TABLE_PAGES 8

extern char dom_intel;

static struct vm *vm;
static struct vcpu *v, *v1;
static struct rdt *r;
static struct drv_seen *seen;

/* In the guest: one more argument than vcpu_call() passes. */
static u64 hc_args[5];

static u64 g_hc_args(void)
{
	return guest_hc(hc_args[0], hc_args[1], hc_args[2], hc_args[3], hc_args[4]);
}

static int64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t *arg = *vm_var(vm, hc_args);

	arg[0] = nr, arg[1] = a, arg[2] = b, arg[3] = c, arg[4] = d;
	return vcpu_call(v, g_hc_args);
}

static bool quiet(void)
{
	struct rdt_event ev;
	bool none = true;

	for (; rdt_next(r, &ev); none = false)
		rdt_print(&ev);
	return none;
}

/* ---- one domain ---------------------------------------------------------------------- */

struct dom {
	uint64_t gpa;	/* of its first frame */
	int64_t id;
};

static uint64_t gate(const struct dom *d)
{
	return d->gpa + DOM_GATE_AT;
}

static int64_t dom_call(const struct dom *d, uint64_t op, uint64_t a, uint64_t b)
{
	int64_t ret = vcpu_call(v, g_drv_call, op, a, b, gate(d));

	vcpu_must_end(v, "a call into a domain");
	return ret;
}

static uint32_t dom_flags;

static void describe(struct rdt_domain_desc *desc)
{
	*desc = (struct rdt_domain_desc){
		.size = sizeof(*desc),
		.flags = dom_flags,
		.gate_gva = GVA + DOM_GATE_AT,
		.exit_gva = GVA + PAGE_SIZE + DOM_EXIT_AT,
		.resume_gva = (uint64_t)drv_resume,
		.slots = SLOTS,
		.windows = 1,
		.window = { { WINDOW, 1 } },
	};
	for (int i = 0; i < SLOTS; i++)
		desc->stack_top[i] = GVA + STACKS + (i + 1) * PAGE_SIZE;
}

static int64_t add(const struct dom *d, uint64_t offset, uint64_t pages, uint64_t kind)
{
	return hc(RDT_HC_DOM_ADD, d->id, d->gpa + offset, kind == RDT_DOM_TABLE ? 0 : GVA + offset,
		  RDT_DOM_PAGES(pages, kind));
}

/* Up to the seal; what is in its data is @word. */
static void build(struct dom *d, int nr, uint64_t word)
{
	d->gpa = DOMS + nr * DOM_SIZE;
	memcpy(vm_host(vm, d->gpa), dom_code, DOM_CODE_PAGES * PAGE_SIZE);
	*(uint8_t *)vm_host(vm, d->gpa + (&dom_intel - dom_code)) = guest_is_intel;
	memset(vm_host(vm, d->gpa + DATA), 0, 4 * PAGE_SIZE);
	*(uint64_t *)vm_host(vm, d->gpa + DATA) = word;
	describe(vm_host(vm, DESC));
	d->id = hc(RDT_HC_DOM_CREATE, DESC, 0, 0, 0);
	ok(d->id > 0, "C1 domain %d is made (%#lx)", nr, d->id);
	is(add(d, 0, 1, RDT_DOM_GATE), 0, "C2 its gate");
	is(add(d, PAGE_SIZE, 1, RDT_DOM_EXIT), 0, "C2 its exit");
	is(add(d, 2 * PAGE_SIZE, 1, RDT_DOM_TEXT), 0, "C2 its code");
	is(add(d, DATA, 2 + SLOTS, RDT_DOM_DATA), 0, "C2 its data and stacks");
	is(add(d, TABLES, TABLE_PAGES, RDT_DOM_TABLE), 0, "C2 frames for its tables");
	is(hc(RDT_HC_DOM_SHARE, d->id, SHARED + nr % 2 * PAGE_SIZE, WINDOW, 1), 0, "C5 a shared page");
}

static void seal(struct dom *d)
{
	is(hc(RDT_HC_DOM_SEAL, d->id, 0, 0, 0), 0, "C7 sealed");
	rdt_drain(r);
}

/* ---- whose memory it is -------------------------------------------------------------- */

static bool zeros(uint64_t gpa, uint64_t bytes)
{
	const uint64_t *p = vm_host(vm, gpa);

	for (uint64_t i = 0; i < bytes / 8; i++)
		if (p[i])
			return false;
	return true;
}

static u64 g_try_load(u64 gva)
{
	return guest_try("cmpq $0, (%0)", "r"(gva));
}

static u64 g_try_call(u64 gva)
{
	return guest_try("jmp *%0", "r"(gva));
}

static u64 g_try_lock(u64 gva)
{
	return guest_try("lock incq (%0)", "r"(gva));
}

/* One alert, for this frame. */
static bool alert(uint32_t type, uint64_t gpa)
{
	struct rdt_event ev;
	bool right = rdt_next(r, &ev) && ev.type == type && ev.gpa >> 12 == gpa >> 12;

	if (!right)
		rdt_print(&ev);
	return right & quiet();
}

static void test_exclusive(const struct dom *d, const char *when)
{
	static const struct {
		const char *name;
		void *fn;
	} ways[] = {
		{ "a read", g_try_load }, { "a write", g_store }, { "a locked write", g_try_lock },
		{ "a call", g_try_call },
	};

	ok(zeros(d->gpa, PAGES * PAGE_SIZE), "C5 %s: the VMM sees zeros", when);
	for (unsigned int i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		for (uint64_t at = 0; at < PAGES * PAGE_SIZE; at += PAGE_SIZE) {
			/* 8 is no entry of the gate's. */
			is((int64_t)vcpu_call4(v, ways[i].fn, (uint64_t[4]){ d->gpa + at + 8 }), gp,
			   "C5 %s: %s, page %lu", when, ways[i].name, at / PAGE_SIZE);
			vcpu_must_end(v, ways[i].name);
			ok(alert(at || i < 3 ? RDT_EV_DOMAIN_ACCESS : RDT_EV_GATE, at || i < 3 ? d->gpa + at : 0),
			   "C5 %s: %s, page %lu: an alert", when, ways[i].name, at / PAGE_SIZE);
		}
	ok(zeros(d->gpa, PAGES * PAGE_SIZE), "C5 %s: nothing was written", when);
	is(hc(RDT_HC_PROTECT, d->gpa, 1, RDT_ATTR(RDT_ACT_LOG, 0), 0), -EPERM, "C5 %s: no rule for it", when);
	rdt_drain(r);
}

/* What the VMM writes there is not what the domain has. */
static void test_vmm_writes(const struct dom *d)
{
	memset(vm_host(vm, d->gpa + DATA), 0x77, PAGE_SIZE);
	is(dom_call(d, DOM_LOAD, GVA + DATA, 0), 0x1234, "C5 what the VMM writes does not get in");
	memset(vm_host(vm, d->gpa + DATA), 0, PAGE_SIZE);
}

/* ---- in and out ------------------------------------------------------------------------ */

static void test_calls(const struct dom *d)
{
	struct drv_after *after = vm_var(vm, drv_after[0]);
	struct rdt_domain_info info = {};
	int64_t at;

	is(dom_call(d, DOM_ADD, 40, 2), 42, "C4 in and out");
	ok(after->rbx == 0xb8 && after->rbp == 0xb9 && after->r12 == 0xc1 && after->r13 == 0xd1 &&
	   after->r14 == 0xe1 && !after->rsp_moved, "C6 the caller's registers are as they were");
	is(after->scrubbed, 0, "C6 the others are zero");
	is(dom_call(d, DOM_REGS, 0, 0), 0, "C6 nothing but arguments gets in");
	is(dom_call(d, DOM_LEAVE_HC, 40, 3), 43, "C4 out by hypercall");
	is(dom_call(d, 99, 0, 0), -EINVAL, "C6 what it does not know");
	is(dom_call(d, DOM_LOAD, GVA + DATA, 0), 0x1234, "C2 its data is inside");
	is(dom_call(d, DOM_STORE, GVA + DATA + 8, 0x5678), 0, "C2 it writes");
	is(dom_call(d, DOM_LOAD, GVA + DATA + 8, 0), 0x5678, "C2 and has it the next time");
	ok(zeros(d->gpa + DATA, PAGE_SIZE), "C5 and nobody else");
	at = dom_call(d, DOM_RSP, 0, 0);
	ok(at > (int64_t)(GVA + STACKS) && at <= (int64_t)(GVA + STACKS + SLOTS * PAGE_SIZE),
	   "C6 the stack is its own");
	at = dom_call(d, DOM_CR3, 0, 0) & ~0xffful;
	ok(at >= (int64_t)(d->gpa + TABLES) && at < (int64_t)(d->gpa + TABLES + TABLE_PAGES * PAGE_SIZE),
	   "C3 CR3 is its own");
	is(dom_call(d, DOM_SPIN, 1000, 0), 1000, "C6 it computes");
	is(ioctl(r->fd, RDT_VM_DOMAIN, &info), 0, "C7 the operator sees it");
	ok((int64_t)info.id == d->id && info.state == RDT_DOM_SEALED && info.frames == PAGES + TABLE_PAGES,
	   "C7 with its pages");
	is(dom_call(d, DOM_MEASURE, 0, 0), *(int64_t *)info.measurement, "C7 both get the same measurement");
	ok(*(uint64_t *)info.measurement, "C7 which is one");
	is(rdt_info(r).domains, 1, "C1 one domain");
	ok(quiet(), "C4 nothing of that is an alert");
}

/* Every place of the gate's page that is not the entry, and of the code. */
static void test_entries(const struct dom *d)
{
	unsigned int in = 0, n = 0;

	for (uint64_t at = 0; at < DOM_CODE_PAGES * PAGE_SIZE; at += at < PAGE_SIZE && at % 64 < 63 ? 1 : 61) {
		if (at == DOM_GATE_AT)
			continue;
		n++;
		in += vcpu_call(v, g_try_call, d->gpa + at) != gp;
		if (!vcpu_done(v)) {
			vcpu_explain(v);
			tap_bail("an entry elsewhere");
		}
	}
	is(in, 0, "C6 nobody gets in elsewhere (%u places)", n);
	is(rdt_info(r).slots_busy, 0, "C6 no slot is taken");
	rdt_drain(r);
}

/* The inside reaches for what is not its own: the call ends, nothing happens. */
static void test_reaches_out(const struct dom *d, const struct dom *other)
{
	static const uint64_t ops[] = { DOM_LOAD, DOM_STORE, DOM_JUMP };
	const uint64_t there[] = { GUEST_FREE + 0x50000, DENY, other->gpa + DATA, GVA + 0x100000,
				   GUEST_IDT, 0xffff800000000000ul };

	memset(vm_host(vm, GUEST_FREE + 0x50000), 0, PAGE_SIZE);
	for (unsigned int i = 0; i < 3; i++)
		for (unsigned int k = 0; k < sizeof(there) / sizeof(there[0]); k++) {
			is(dom_call(d, ops[i], there[k], 1), -EPERM, "C5 from inside: %u at %#lx", i, there[k]);
			ok(!quiet(), "C5 from inside: %u at %#lx: an alert", i, there[k]);
			rdt_drain(r);
		}
	is(vm_u64(vm, GUEST_FREE + 0x50000), 0, "C5 from inside: nothing was written");
	is(dom_call(d, DOM_ADD, 1, 1), 2, "C5 and its slots are free");
}

static void test_shared(const struct dom *d)
{
	*(uint64_t *)vm_host(vm, SHARED) = 0xfeed;
	is(dom_call(d, DOM_LOAD, WINDOW, 0), 0xfeed, "C5 the shared page, from outside");
	is(dom_call(d, DOM_STORE, WINDOW + 8, 0xbeef), 0, "C5 and from inside");
	is(vm_u64(vm, SHARED + 8), 0xbeef, "C5 is there");
}

/* ---- events inside --------------------------------------------------------------------- */

static void test_events(const struct dom *d)
{
	uint64_t calls;
	int wrong = 0;

	vcpu_call(v, g_watch_events);
	memset(seen, 0, sizeof(*seen));
	is(dom_call(d, DOM_EVENT, 0, 0), -EFAULT, "C10 an exception inside: the handler gives up");
	is(seen->vector, 6, "C10 its vector");
	is(seen->leaked | seen->wrong_rip | seen->wrong_flags, 0, "C10 and nothing of the inside");
	for (int i = 1; i <= 3; i++) {
		vcpu_call(v, g_drv_call, DOM_STOP, 20, 22, gate(d));
		is(v->stop, STOP_SYNC, "C10 NMI %d: inside", i);
		ioctl(v->fd, KVM_NMI);
		is(vcpu_resume(v), 42, "C10 NMI %d: the result", i);
		vcpu_must_end(v, "NMI");
		is(seen->vector, 2, "C10 NMI %d: the handler ran", i);
	}
	memset(seen, 0, sizeof(*seen));
	vcpu_call(v, g_timer_on, 40000);
	for (calls = 0; seen->count < 100 && calls < 3000 && !wrong; calls++)
		wrong += dom_call(d, DOM_SPIN, 2000, 0) != 2000;
	vcpu_call(v, g_timer_off);
	ok(seen->count >= 100, "C10 interrupts inside (%lu, in %lu calls)", seen->count, calls);
	is(wrong, 0, "C10 every result is right");
	is(seen->leaked | seen->wrong_rip | seen->wrong_flags, 0, "C10 the handler saw nothing of the inside");
	ok(quiet(), "C10 none of it is an alert");
}

static u64 g_vector_call(u64 op, u64 a, u64 b, u64 door)
{
	return dom_vector_call(op, a, b, 0, door);
}

static void test_vectors(const struct dom *d)
{
	uint64_t calls;
	int64_t wrong = 0;

	is(vcpu_call(v, g_vector_call, DOM_VECTORS, 10, 0, gate(d)), 0, "C6 vector registers: nothing gets in or out");
	vcpu_must_end(v, "vector registers");
	memset(seen, 0, sizeof(*seen));
	vcpu_call(v, g_timer_on, 40000);
	for (calls = 0; seen->count < 50 && calls < 3000 && !wrong; calls++) {
		wrong = vcpu_call(v, g_vector_call, DOM_VECTORS, 20000, 0, gate(d));
		wrong |= !vcpu_must_end(v, "vector registers");
	}
	vcpu_call(v, g_timer_off);
	ok(seen->count >= 50, "C10 interrupts while they are in use (%lu, in %lu calls)", seen->count, calls);
	is(wrong, 0, "C6 the inside and the caller have their own");
	is(seen->xmm, DOM_PATTERN, "C6 the handler sees the caller's");
	ok(quiet(), "C6 none of it is an alert");
}

/* ---- several, and their end --------------------------------------------------------------- */

static void test_three(struct dom *d)
{
	int64_t ret;

	/* The second vCPU is inside the second one while the first goes into the others. */
	vcpu_call(v1, g_drv_call, DOM_STOP, 1, 2, gate(&d[1]));
	is(v1->stop, STOP_SYNC, "C1 one inside the second");
	is(dom_call(&d[0], DOM_ADD, 3, 4), 7, "C1 one inside the first");
	is(dom_call(&d[2], DOM_LOAD, GVA + DATA, 0), 0x300, "C1 and the third");
	is(hc(RDT_HC_DOM_DESTROY, d[1].id, 0, 0, 0), -EAGAIN, "C8 the second is not to go now");
	is(hc(RDT_HC_DOM_ENTER, d[1].id, 0, 0, 0), -ENOENT, "C8 but nobody gets in any more");
	ret = vcpu_resume(v1);
	vcpu_must_end(v1, "put out of its domain");
	is(ret, -ENOENT, "C8 who was inside is put out");
	is(hc(RDT_HC_DOM_DESTROY, d[1].id, 0, 0, 0), 0, "C8 now it goes");
	is(hc(RDT_HC_DOM_DESTROY, d[1].id, 0, 0, 0), -ENOENT, "C8 once");
	ok(zeros(d[1].gpa, PAGES * PAGE_SIZE), "C8 its pages are zero");
	is(vcpu_call(v, g_store, d[1].gpa, 1), -1, "C8 and the guest's again");
	is(dom_call(&d[0], DOM_ADD, 3, 5), 8, "C8 the first is as it was");
	is(dom_call(&d[2], DOM_LOAD, GVA + DATA, 0), 0x300, "C8 and the third");
	rdt_drain(r);
}

static void test_all(void)
{
	int64_t id[RDT_DOM_MAX];
	unsigned int n = 0;

	describe(vm_host(vm, DESC));
	while (n < RDT_DOM_MAX && (id[n] = hc(RDT_HC_DOM_CREATE, DESC, 0, 0, 0)) > 0)
		n++;
	is(n, RDT_DOM_MAX - rdt_info(r).domains + n, "C1 as many as there are views (%u more)", n);
	is(hc(RDT_HC_DOM_CREATE, DESC, 0, 0, 0), -ENOSPC, "C1 one more is refused");
	while (n)
		if (hc(RDT_HC_DOM_DESTROY, id[--n], 0, 0, 0))
			tap_diag("not destroyed: %#lx", id[n]);
	rdt_drain(r);
}

int main(void)
{
	struct rdt_domain_quota quota = { .domains = RDT_DOM_MAX, .frames_each = 64, .frames = 256 };
	struct dom d[3];

	setvbuf(stdout, NULL, _IOLBF, 0);
	vm = vm_create(RAM, 2, VM_IRQCHIP);
	v = &vm->vcpu[0];
	v1 = &vm->vcpu[1];
	seen = vm_var(vm, drv_seen[0]);
	r = rdt_attach(vm->fd);
	is(vcpu_call(v, g_node_add, NODES, 1), 1, "A1 a node page");
	is(hc(RDT_HC_PROTECT, DENY, 1, RDT_ATTR(RDT_ACT_DENY, 0), 0), 0, "A1 a protected page");
	describe(vm_host(vm, DESC));
	is(hc(RDT_HC_DOM_CREATE, DESC, 0, 0, 0), -EDQUOT, "C9 without the operator's leave there are none");
	is(ioctl(r->fd, RDT_VM_DOM_QUOTA, &quota), 0, "C9 the operator's leave");

	build(&d[0], 0, 0x1234);
	test_exclusive(&d[0], "being built");
	is(hc(RDT_HC_DOM_ENTER, d[0].id, 0, 0, 0), -ENOENT, "C6 nobody enters what is not sealed");
	seal(&d[0]);
	test_exclusive(&d[0], "sealed");
	is(add(&d[0], TABLES + TABLE_PAGES * PAGE_SIZE, 1, RDT_DOM_TABLE), -EPERM, "C7 and stays as it is");
	rdt_drain(r);
	test_calls(&d[0]);
	test_vmm_writes(&d[0]);
	test_entries(&d[0]);
	test_shared(&d[0]);
	test_events(&d[0]);
	dom_flags = RDT_DOM_VECTOR;
	build(&d[1], 1, 0x200);
	seal(&d[1]);
	test_vectors(&d[1]);
	dom_flags = 0;
	build(&d[2], 2, 0x300);
	seal(&d[2]);
	test_reaches_out(&d[0], &d[1]);
	test_three(d);
	test_all();
	fails(ioctl(r->fd, RDT_VM_DETACH, 0), EBUSY, "C8 a VM with domains stays attached");
	is(ioctl(r->fd, RDT_VM_DOM_DESTROY, &d[0].id), 0, "C8 the operator destroys, too");
	ok(zeros(d[0].gpa, PAGES * PAGE_SIZE), "C8 its pages are zero");
	/* The third ends with the VM. */
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
