// SPDX-License-Identifier: GPL-2.0
/*
 * Protection domains (lines C): a domain's memory for everybody else, the way in and out
 * of it, events that strike inside, several at once, and their end.
 */
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

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

static struct vm *vm;
static struct vcpu *v, *v1;
static struct rdt *r;
static struct drv_seen *seen;

static int64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	return vcpu_hc(v, nr, a, b, c, d);
}

static bool quiet(void)
{
	return rdt_quiet(r);
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

static uint64_t shared_of(const struct dom *d)
{
	return SHARED + (d->gpa - DOMS) / DOM_SIZE % 2 * PAGE_SIZE;
}

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
	*(uint8_t *)vm_host(vm, d->gpa + (&dom_user - dom_code)) = !!(dom_flags & RDT_DOM_USER);
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
	is(hc(RDT_HC_DOM_SHARE, d->id, shared_of(d), WINDOW, 1), 0, "C5 a shared page");
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

/* ---- what the VMM sees of a vCPU -------------------------------------------------------- */

static bool comes(const volatile uint64_t *word, uint64_t value)
{
	for (int i = 0; i < 20000 && *word != value; i++)
		usleep(1000);
	return *word == value;
}

/* On a thread of its own, until end_inside(): its result is 42. */
static void start_inside(struct vcpu *who, const struct dom *d)
{
	uint64_t *word = vm_host(vm, shared_of(d));

	*word = 0;
	vcpu_start(who, g_drv_call, DOM_WAIT, WINDOW, 42, gate(d));
	ok(comes(word, 1), "vCPU %d is inside", who->id);
}

static int64_t end_inside(struct vcpu *who)
{
	int64_t ret;

	for (int i = 0; i < 2; i++)
		*(uint64_t *)vm_host(vm, SHARED + i * PAGE_SIZE) = 2;
	ret = vcpu_join(who);
	vcpu_must_end(who, "from inside");
	return ret;
}

static void on_alarm(int nr)
{
}

static bool has_secret(const struct kvm_regs *regs)
{
	const uint64_t *r64 = (const uint64_t *)regs;
	bool has = false;

	for (unsigned int i = 0; i < sizeof(*regs) / 8; i++)
		has |= r64[i] - DOM_SECRET < 1ul << 32;
	return has;
}

static void test_vmm_looks(const struct dom *d)
{
	struct itimerval off = {}, soon = {};
	unsigned int found = 0, inside = 0, n;
	struct rdt_event ev;
	struct kvm_regs regs;

	/* The door is taken in the guest; what stops the vCPU is a signal to this thread. */
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	for (n = 0; n < 30; n++) {
		vcpu_prepare(v, g_drv_call, DOM_SPIN, 3000000, 0, gate(d));
		v->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
		soon.it_value.tv_usec = 2000 + n * 300;
		setitimer(ITIMER_REAL, &soon, NULL);
		vcpu_run(v);
		setitimer(ITIMER_REAL, &off, NULL);
		vcpu_regs(v, &regs);
		found += has_secret(&regs) || has_secret(&v->run->s.regs.regs);
		inside += regs.rip == (uint64_t)drv_resume;
		v->run->kvm_valid_regs = 0;
		/* It may have come before the vCPU ran. */
		if ((vcpu_done(v) ? v->value : vcpu_resume(v)) != 3000000)
			break;
	}
	is(n, 30, "C5 a signal to who is inside: the result is right");
	vcpu_must_end(v, "signals");
	is(found, 0, "C5 KVM_GET_REGS shows nothing of the inside");
	ok(inside > 5, "C5 but the resume stub (%u of %u)", inside, n);
	is(rdt_info(r).slots_busy, 0, "C5 no slot is lost");
	ok(quiet(), "C5 none of it is an alert");
	/* What the VMM is to finish: it does not go on. */
	vcpu_call(v, g_drv_call, DOM_IO, 20, 22, gate(d));
	vcpu_regs(v, &regs);
	is(v->exit, KVM_EXIT_IO, "C5 OUT inside");
	is(regs.rip, (uint64_t)drv_back, "C5 OUT inside: ends the call");
	is(vcpu_resume(v), -EPERM, "C5 OUT inside: with an error");
	vcpu_must_end(v, "OUT inside");
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_GATE && ev.code == RDT_GATE_IO && quiet(), "C5 OUT inside: an alert");
}

/* ---- ring 3 ----------------------------------------------------------------------------- */

struct user_call {
	u64 op, a, b, gate, cs;
};
static struct user_call user_calls[GUEST_MAX_VCPUS];

static u64 u_call(u64 arg)
{
	struct user_call *c = (void *)arg;
	u64 ret = drv_call(c->op, c->a, c->b, 0, c->gate);

	asm volatile("movl %%cs, %%ecx; movq %%rcx, %0" : "=m"(c->cs) : : "rcx");
	return ret;
}

static u64 g_user_call(u64 op, u64 a, u64 b, u64 gate_at)
{
	struct user_call *c = &user_calls[this_cpu()->id];

	*c = (struct user_call){ op, a, b, gate_at, 0 };
	return guest_user_call(u_call, (u64)c);
}

/* Where SYSCALL and SYSENTER go, in the guest; FS.base, which is the caller's. */
static u64 g_kernel_entries(u64 fs_base, u64 fsgsbase)
{
	guest_wrmsr(0xc0000080, guest_rdmsr(0xc0000080) | 1);
	guest_wrmsr(0xc0000081, (u64)SEL_CODE0 << 32 | (u64)(SEL_DATA3 - 8) << 48);
	guest_wrmsr(0xc0000082, (u64)drv_resume);
	guest_wrmsr(0xc0000084, 0x700);
	guest_wrmsr(0x174, SEL_CODE0);
	guest_wrmsr(0x175, GUEST_FREE);
	guest_wrmsr(0x176, (u64)drv_resume);
	guest_wrmsr(0xc0000100, fs_base);
	if (fsgsbase)
		asm volatile("movq %%cr4, %%rax; btsq $16, %%rax; movq %%rax, %%cr4" : : : "rax");
	return 0;
}

static int64_t user_call(const struct dom *d, uint64_t op, uint64_t a, uint64_t b)
{
	int64_t ret = vcpu_call(v, g_user_call, op, a, b, gate(d));

	vcpu_must_end(v, "a call of ring 3");
	return ret;
}

static void test_user(const struct dom *d, const struct dom *kernels)
{
	struct user_call *c = vm_var(vm, user_calls[v->id]);
	unsigned int a, b, fsgsbase, e;
	struct rdt_event ev;
	uint64_t calls;
	int wrong = 0;

	__cpuid_count(7, 0, a, fsgsbase, b, e);
	fsgsbase &= 1;
	vcpu_call(v, g_kernel_entries, 0xf5ba5e000, fsgsbase);
	is(user_call(d, DOM_ADD, 40, 2), 42, "C6 ring 3: in and out");
	is(c->cs, SEL_CODE3, "C6 ring 3: and still there");
	is(user_call(d, DOM_REGS, 0, 0), 0, "C6 ring 3: nothing but arguments gets in");
	is(user_call(d, DOM_LEAVE_HC, 40, 3), 43, "C6 ring 3: out by hypercall");
	ok(user_call(d, DOM_MEASURE, 0, 0) != 0, "C7 ring 3: the inside measures itself");
	is(user_call(d, DOM_LOAD, GVA + DATA, 0), 0x400, "C2 ring 3: its data");
	ok(quiet(), "C6 ring 3: none of it is an alert");
	/* Each ring has its own doors. */
	is(dom_call(d, DOM_ADD, 1, 1), -EPERM, "C6 ring 0 into a domain of ring 3");
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_GATE && ev.code == RDT_GATE_BAD_CPL, "C6 an alert");
	is(user_call(kernels, DOM_ADD, 1, 1), -EPERM, "C6 ring 3 into a domain of ring 0");
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_GATE && ev.code == RDT_GATE_BAD_CPL, "C6 an alert");
	is(user_call(d, DOM_CR3, 0, 0), -EFAULT, "C6 ring 3: what is for ring 0 is an exception");
	/* Ring 0 without a touch of memory: what comes next is refused, and ring 3 gets the error. */
	for (int i = 0; i < 1 + guest_is_intel; i++) {
		rdt_drain(r);
		is(user_call(d, i ? DOM_SYSENTER : DOM_SYSCALL, 0, 0), -EPERM, "C6 %s inside", i ? "SYSENTER" : "SYSCALL");
		is(c->cs, SEL_CODE3, "C6 it ends in ring 3");
		ok(!quiet(), "C6 an alert");
	}
	if (fsgsbase) {
		is(user_call(d, DOM_SEGMENTS, 0x5ec2e7, 0), 0, "C6 the caller's FS and GS do not get in");
		is(vcpu_call(v, g_rdmsr, 0xc0000100), 0xf5ba5e000, "C6 nor the inside's out");
	}
	/* Events. */
	memset(seen, 0, sizeof(*seen));
	is(user_call(d, DOM_EVENT, 0, 0), -EFAULT, "C10 ring 3: an exception inside");
	is(seen->vector, 6, "C10 ring 3: its vector");
	ok(seen->cs == SEL_CODE3 && seen->ss == SEL_DATA3 && seen->fs_base == 0xf5ba5e000,
	   "C10 ring 3: it is the caller's segments that the handler sees");
	/* In ring 3 they strike at the stub, too: leave time for it. */
	vcpu_call(v, g_timer_on, 300000);
	for (calls = 0; seen->count < 30 && calls < 3000 && !wrong; calls++)
		wrong += user_call(d, DOM_SPIN, 20000, 0) != 20000;
	vcpu_call(v, g_timer_off);
	ok(seen->count >= 30, "C10 ring 3: interrupts inside (%lu, in %lu calls)", seen->count, calls);
	is(wrong, 0, "C10 ring 3: every result is right");
	is(seen->leaked | seen->wrong_rip | seen->wrong_flags, 0, "C10 ring 3: the handler saw nothing of the inside");
	ok(quiet(), "C10 ring 3: none of it is an alert");
}

/* ---- events inside --------------------------------------------------------------------- */

static void test_events(const struct dom *d)
{
	struct kvm_msi nmi = { .address_lo = 0xfee00000 | v->id << 12, .data = 0x4400 };
	uint64_t calls;
	int wrong = 0;

	vcpu_call(v, g_watch_events);
	memset(seen, 0, sizeof(*seen));
	is(dom_call(d, DOM_EVENT, 0, 0), -EFAULT, "C10 an exception inside: the handler gives up");
	is(seen->vector, 6, "C10 its vector");
	is(seen->leaked | seen->wrong_rip | seen->wrong_flags, 0, "C10 and nothing of the inside");
	for (int i = 1; i <= 3; i++) {
		seen->vector = 0;
		start_inside(v, d);
		is(ioctl(vm->fd, KVM_SIGNAL_MSI, &nmi), 1, "C10 NMI %d: sent to one inside", i);
		ok(comes(&seen->vector, 2), "C10 NMI %d: the handler runs", i);
		is(end_inside(v), 42, "C10 NMI %d: the result", i);
	}
	/* Events that are instructions: done when the thread goes on. */
	for (int i = 0; i < 2; i++) {
		seen->vector = 0;
		is(dom_call(d, i ? DOM_INT : DOM_INT3, 20, 22), 42, "C10 int %#x: it goes on behind", i ? 0x90 : 3);
		is(seen->vector, i ? 0x90 : 3, "C10 int %#x: the handler ran", i ? 0x90 : 3);
	}
	is(seen->leaked | seen->wrong_rip | seen->wrong_flags, 0, "C10 and saw nothing of the inside");
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
	start_inside(v1, &d[1]);
	is(dom_call(&d[0], DOM_ADD, 3, 4), 7, "C1 one inside the first");
	is(dom_call(&d[2], DOM_LOAD, GVA + DATA, 0), 0x300, "C1 and the third");
	is(hc(RDT_HC_DOM_DESTROY, d[1].id, 0, 0, 0), -EAGAIN, "C8 the second is not to go now");
	is(hc(RDT_HC_DOM_ENTER, d[1].id, 0, 0, 0), -ENOENT, "C8 but nobody gets in any more");
	ret = vcpu_join(v1);
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
	test_vmm_looks(&d[0]);
	test_events(&d[0]);
	dom_flags = RDT_DOM_USER;
	build(&d[1], 1, 0x400);
	seal(&d[1]);
	test_user(&d[1], &d[0]);
	is(hc(RDT_HC_DOM_DESTROY, d[1].id, 0, 0, 0), 0, "C8 ring 3: it goes");
	rdt_drain(r);
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
