// SPDX-License-Identifier: GPL-2.0
/*
 * Secrets in code (lines D): a value that the operator installs, used by code that nobody can read,
 * and what is left of it when events strike at each instruction.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "driver.h"
#include "rdt.h"
#include "secret.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE
#define DESC	(GUEST_FREE + 0x10000)
#define DENY	(GUEST_FREE + 0x20000)
#define PLAIN	(GUEST_FREE + 0x30000)
#define SECRETS	(GUEST_FREE + 0x400000)		/* SEC_SIZE each */
#define SEC_SIZE 0x10000ul
#define UNMAPPED 0x7e8000000000ul		/* mapped by nobody */
#define ALIAS	0x7e9000000000ul		/* where a secret is mapped, too */
#define MMIO	(RAM + 0x1000000)		/* mapped, but no RAM */
#define gp	13
#define ERASURE	0xe5a5ec0de
#define R_RAX	(1u << 0)
#define R_RCX	(1u << 1)
#define R_R8	(1u << 8)
#define R_R9	(1u << 9)
#define R_R10	(1u << 10)
#define ERASED	(R_RAX | R_RCX | R_R8 | R_R9)
#define RESULTS	(R_RAX | R_R10)
#define ENOKEY_	126

static struct vm *vm;
static struct vcpu *v, *v1;
static struct rdt *r;
/* Made when the guest's copy of this program is: it has no other. */
static uint64_t *k;

/* ---- in the guest ---------------------------------------------------------------------- */

/* What the handlers saw. */
static struct sec_seen {
	u64 count, vector;
	u64 wrong;		/* how often anything was not as it must be.. */
	u64 reg, value;		/* ..and the last of it; 16: RIP, 17: RFLAGS, 18: vectors */
	u64 gate;		/* in: where the secret's gate is */
	u64 rewind;		/* in: its mode */
	u64 op, a, b;		/* in: the call's arguments */
	u64 drop;		/* in: the call is not to go on */
	u64 period;		/* in: of the timer */
	u64 outside;		/* timer interrupts that did not strike inside */
} sec_seen;

#define TIMER_VECTOR	0x40
#define X2APIC_EOI	0x80b
#define X2APIC_COUNT	0x838

static u64 timer_seed = 1;

static void timer(struct sec_seen *s)
{
	guest_wrmsr(X2APIC_EOI, 0);
	timer_seed = timer_seed * 6364136223846793005 + 1442695040888963407;
	if (s->period)
		guest_wrmsr(X2APIC_COUNT, s->period / 2 + (timer_seed >> 33) % s->period);
}

/* The register's value in a frame of a call that is to begin again. */
static u64 as_called(const struct sec_seen *s, unsigned int n)
{
	return ERASED >> n & 1 ? ERASURE : n == 2 ? s->b : n == 6 ? s->a : n == 7 ? s->op :
	       n == 11 ? (u64)sec_back : SEC_CALLER + n;
}

static u64 on_event(struct trap_frame *f)
{
	const u64 reg[16] = { f->rax, f->rcx, f->rdx, f->rbx, 0, f->rbp, f->rsi, f->rdi, f->r8,
			      f->r9, f->r10, f->r11, f->r12, f->r13, f->r14, f->r15 };
	struct sec_seen *s = &sec_seen;
	const u64 stub = s->rewind ? s->gate : (u64)drv_resume;
	u64 xmm;

	if (f->rip != stub && f->vector == TIMER_VECTOR) {
		s->outside++;
		timer(s);
		return 1;
	}
	if (this_cpu()->recover)
		return 0;
	/* Once is enough, and of a call that begins again too often. */
	asm volatile("movq %0, %%dr7" : : "r"(0x400ul));
	s->count++;
	s->vector = f->vector;
	if (f->rip != stub)
		s->wrong++, s->reg = 16, s->value = f->rip;
	/* Fixed, or the caller's; IF as it was inside; RF, which the CPU sets when it delivers a fault. */
	if ((f->rflags & ~0x10200ul) != (s->rewind ? SEC_FLAGS & ~0x200ul : 2))
		s->wrong++, s->reg = 17, s->value = f->rflags;
	for (unsigned int n = 0; n < 16; n++) {
		if (n == 4 || (n == 7 && !s->rewind))
			continue;	/* RDI: the token */
		if (reg[n] != (s->rewind ? as_called(s, n) : 0))
			s->wrong++, s->reg = n, s->value = reg[n];
	}
	asm volatile("movq %%xmm7, %0" : "=r"(xmm));
	if (xmm != SEC_PATTERN)
		s->wrong++, s->reg = 18, s->value = xmm;
	if (f->vector == TIMER_VECTOR)
		timer(s);
	/* The handler of another event was refused: behind its frame is the call's stack. */
	if (f->rip != stub && f->vector == gp)
		f->rsp = ((u64 *)f->rsp)[3];
	if (s->drop)
		f->rip = s->rewind ? (u64)sec_give_up : (u64)sec_drop;
	return 1;
}

static u64 g_watch(void)
{
	this_cpu()->on_trap = on_event;
	/* The x2APIC, so that an NMI can be sent. */
	guest_wrmsr(0x1b, guest_rdmsr(0x1b) | 0xc00);
	return 0;
}

/* A call, with a breakpoint at an instruction of the inside. */
static u64 g_call_break(u64 at, u64 a, u64 b, u64 gate)
{
	u64 ret;

	asm volatile("movq %0, %%dr0; movq %1, %%dr7" : : "r"(at), "r"(0x402ul));
	ret = sec_call(SEC_MAC, a, b, gate);
	asm volatile("movq %0, %%dr7" : : "r"(0x400ul));
	return ret;
}

static u64 g_flush(void)
{
	guest_flush_tlb();
	return 0;
}

static u64 g_try_load(u64 gva)
{
	return guest_try("cmpq $0, (%0)", "r"(gva));
}

static u64 g_try_lock(u64 gva)
{
	return guest_try("lock incq (%0)", "r"(gva));
}

static u64 g_try_call(u64 gva)
{
	return guest_try("jmp *%0", "r"(gva));
}

/* ---- one secret ------------------------------------------------------------------------ */

struct sec {
	uint64_t gpa;	/* GATE, EXIT, TEXT; the guest has it there, too */
	int64_t id;
	uint32_t flags;
};

static int64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	return vcpu_hc(v, nr, a, b, c, d);
}

static bool quiet(void)
{
	return rdt_quiet(r);
}

/* One alert, for this frame. */
static bool alert(uint32_t type, uint64_t gpa)
{
	struct rdt_event ev;
	bool right = rdt_next(r, &ev) && ev.type == type && (!gpa || ev.gpa >> 12 == gpa >> 12);

	if (!right)
		rdt_print(&ev);
	return right & quiet();
}

static uint64_t gate(const struct sec *s)
{
	return s->gpa + SEC_GATE_AT;
}

static uint64_t mac(uint64_t a)
{
	uint64_t x = (a ^ k[0]) * k[1];

	x = (x << 23 | x >> 41) + k[0];
	x *= k[1];
	return x ^ x >> 32;
}

/* Handlers are to expect this call. */
static struct sec_seen *expect(const struct sec *s, uint64_t op, uint64_t a, uint64_t b)
{
	struct sec_seen *seen = vm_var(vm, sec_seen);

	memset(seen, 0, sizeof(*seen));
	seen->gate = gate(s);
	seen->rewind = !!(s->flags & RDT_DOM_REWIND);
	seen->op = op;
	seen->a = a;
	seen->b = b;
	return seen;
}

static int64_t call(const struct sec *s, uint64_t op, uint64_t a, uint64_t b)
{
	int64_t ret;

	expect(s, op, a, b);
	ret = vcpu_call(v, sec_call, op, a, b, gate(s));
	vcpu_must_end(v, "a call");
	return ret;
}

static void saw(const struct sec_seen *seen, uint64_t count, const char *what)
{
	ok(count ? seen->count == count : seen->count > 0, "%s: the handler ran (%lu)", what, seen->count);
	if (!ok(!seen->wrong, "D3 D6 %s: and saw nothing of the inside", what))
		tap_diag("%lu times, last: register %lu, %#lx", seen->wrong, seen->reg, seen->value);
}

static int64_t create(struct sec *s)
{
	struct rdt_domain_desc *d = vm_host(vm, DESC);

	*d = (struct rdt_domain_desc){
		.size = sizeof(*d),
		.flags = RDT_DOM_SECRET | s->flags,
		.gate_gva = gate(s),
		.exit_gva = s->gpa + PAGE_SIZE + SEC_EXIT_AT,
		.resume_gva = s->flags & RDT_DOM_REWIND ? 0 : (uint64_t)drv_resume,
		.slots = 2,
		.results = RESULTS,
		.erased = s->flags & RDT_DOM_REWIND ? ERASED : 0,
		.erasure = s->flags & RDT_DOM_REWIND ? ERASURE : 0,
	};
	return hc(RDT_HC_DOM_CREATE, DESC, 0, 0, 0);
}

static void make(struct sec *s, int nr, uint32_t flags)
{
	static const uint32_t kind[SEC_PAGES] = { RDT_DOM_GATE, RDT_DOM_EXIT, RDT_DOM_TEXT };

	s->gpa = SECRETS + nr * SEC_SIZE;
	s->flags = flags;
	memcpy(vm_host(vm, s->gpa), sec_code, SEC_PAGES * PAGE_SIZE);
	if (guest_is_intel)
		*(uint8_t *)vm_host(vm, s->gpa + (sec_intel - sec_code)) = 0xc1;
	s->id = create(s);
	ok(s->id > 0, "D1 secret %d is made (%#lx)", nr, s->id);
	for (int i = 0; i < SEC_PAGES; i++)
		is(hc(RDT_HC_DOM_ADD, s->id, s->gpa + i * PAGE_SIZE, s->gpa + i * PAGE_SIZE,
		      RDT_DOM_PAGES(1, kind[i])), 0, "D1 page %d of it", i);
	is(hc(RDT_HC_DOM_SEAL, s->id, 0, 0, 0), 0, "D1 sealed");
	rdt_drain(r);
}

static struct rdt_domain_info info(const struct sec *s)
{
	struct rdt_domain_info i = { .view = s->id & 0xff };

	if (ioctl(r->fd, RDT_VM_DOMAIN, &i) || (int64_t)i.id != s->id)
		tap_bail("no such secret");
	return i;
}

static int install(const struct sec *s)
{
	const struct rdt_fixup fixup[] = {
		{ sec_place1 - sec_code, 0, 8 }, { sec_place2 - sec_code, 8, 8 }, { sec_place3 - sec_code, 0, 8 },
	};
	struct rdt_install in = {
		.id = s->id, .value = (uint64_t)k, .fixups = (uint64_t)fixup, .len = 16, .nr = 3,
	};

	return ioctl(r->fd, RDT_VM_DOM_INSTALL, &in);
}

/* ---- whose it is ------------------------------------------------------------------------- */

static bool zeros(uint64_t gpa, uint64_t bytes)
{
	const uint64_t *p = vm_host(vm, gpa);

	for (uint64_t i = 0; i < bytes / 8; i++)
		if (p[i])
			return false;
	return true;
}

/* Everything that the VMM has of the guest, byte by byte. */
static unsigned int found(void)
{
	const uint8_t *p = vm_host(vm, 0);
	unsigned int n = 0;

	for (uint64_t at = 0; at + 8 <= RAM; at++)
		if (*(const uint32_t *)(p + at) == (uint32_t)k[0] || *(const uint32_t *)(p + at) == (uint32_t)k[1])
			n += !memcmp(p + at, &k[0], 8) || !memcmp(p + at, &k[1], 8);
	return n;
}

static void test_outside(const struct sec *s, const char *when)
{
	static const struct {
		const char *name;
		void *fn;
	} ways[] = {
		{ "a read", g_try_load }, { "a write", g_store }, { "a locked write", g_try_lock },
		{ "a jump", g_try_call },
	};

	ok(zeros(s->gpa, SEC_PAGES * PAGE_SIZE), "D1 %s: the VMM sees zeros", when);
	for (unsigned int i = 0; i < 4; i++)
		for (uint64_t page = 0; page < SEC_PAGES; page++) {
			const uint64_t at = s->gpa + page * PAGE_SIZE;

			is(vcpu_call(v, ways[i].fn, at + 8), gp, "D1 D7 %s: %s, page %lu", when, ways[i].name, page);
			vcpu_must_end(v, ways[i].name);
			ok(page || i < 3 ? alert(RDT_EV_DOMAIN_ACCESS, at) : alert(RDT_EV_GATE, 0),
			   "D1 D7 %s: %s, page %lu: an alert", when, ways[i].name, page);
		}
}

/* Every place of its pages that is not the gate. */
static void test_entries(const struct sec *s)
{
	unsigned int in = 0, n = 0;

	for (uint64_t at = 0; at < SEC_PAGES * PAGE_SIZE; at += at < 0x400 ? 1 : 61) {
		if (at == SEC_GATE_AT)
			continue;
		n++;
		in += vcpu_call(v, g_try_call, s->gpa + at) != gp;
		if (!vcpu_done(v)) {
			vcpu_explain(v);
			tap_bail("an entry elsewhere");
		}
	}
	is(in, 0, "D2 nobody gets in elsewhere (%u places)", n);
	is(rdt_count(r, RDT_EV_GATE) + rdt_count(r, RDT_EV_DOMAIN_ACCESS) >= n, 1, "D2 each is an alert");
	is(info(s).slots_busy, 0, "D2 no slot is taken");
	rdt_drain(r);
	is(hc(RDT_HC_DOM_ENTER, s->id, 0, 0, 0), -EPERM, "D2 nor by hypercall");
	ok(alert(RDT_EV_GATE, 0), "D2 nor by hypercall: an alert");
}

/* ---- what it does ------------------------------------------------------------------------ */

static void test_calls(const struct sec *s)
{
	const uint64_t *after = *vm_var(vm, sec_after);
	uint64_t sum = 0;
	bool right;

	for (uint64_t a = 1; a < 1ull << 60; a *= 1001) {
		is(call(s, SEC_MAC, a, PLAIN), mac(a), "D1 the value is used");
		is(vm_u64(vm, PLAIN), mac(a), "D1 and the result written");
	}
	right = after[3] == SEC_CALLER + 3 && after[5] == SEC_CALLER + 5 && after[16] == SEC_FLAGS;
	for (unsigned int n = 12; n < 16; n++)
		right &= after[n] == SEC_CALLER + n;
	ok(right, "D6 the caller's registers are as they were");
	is(after[1] | after[2] | after[6] | after[7] | after[8] | after[9] | after[11], 0, "D6 the others are zero");
	is(call(s, SEC_RESULTS, 1, 2), SEC_MARK, "D6 a result");
	right = true;
	for (unsigned int n = 0; n < 16; n++)
		right &= n == 4 || (after[n] == SEC_MARK + n) == (RESULTS >> n & 1);
	ok(right, "D6 in the registers that are named");
	for (unsigned int n = 0; n < 16; n++)
		sum += n == 2 ? 20 : n == 6 ? 10 : n == 7 ? SEC_REGS : n == 4 || n == 11 ? 0 : SEC_CALLER + n;
	is(call(s, SEC_REGS, 10, 20), sum, "D6 the caller's registers get in");
	is(call(s, SEC_LEAVE_HC, 77, 0), 77, "D6 out by hypercall");
	is(call(s, SEC_STORE, PLAIN + 8, 4711), 0, "D6 it writes its caller's memory");
	is(call(s, SEC_LOAD, PLAIN + 8, 0), 4711, "D6 and reads it");
	ok(quiet(), "D1 nothing of that is an alert");
}

static void refused(const struct sec *s, uint64_t op, uint64_t a, const char *what)
{
	const uint64_t *after = *vm_var(vm, sec_after);
	uint64_t other = 0;

	is(call(s, op, a, 1), -EPERM, "D7 from inside: %s", what);
	ok(!quiet(), "D7 from inside: %s: an alert", what);
	for (unsigned int n = 6; n < 12; n++)
		other |= after[n];
	is(other | after[1] | after[2], 0, "D6 from inside: %s: no results", what);
}

static void test_reaches_out(const struct sec *s, const struct sec *other)
{
	uint64_t got;

	refused(s, SEC_LOAD, s->gpa, "to read its gate");
	refused(s, SEC_STORE, s->gpa, "to write its gate");
	refused(s, SEC_STORE, s->gpa + 2 * PAGE_SIZE, "to write its code");
	refused(s, SEC_LOAD, s->gpa + PAGE_SIZE, "to read its exit page");
	refused(s, SEC_LOAD, other->gpa + 2 * PAGE_SIZE, "to read another's code");
	refused(s, SEC_LOAD, other->gpa, "to read another's gate");
	refused(s, SEC_STORE, DENY, "to write what is protected");
	refused(s, SEC_JUMP, PLAIN, "to execute what is not its own");
	refused(s, SEC_JUMP, (uint64_t)sec_back, "to return with its registers");
	refused(s, SEC_JUMP, gate(other), "to call another");
	refused(s, SEC_LOAD, MMIO, "to read a device");
	refused(s, SEC_STORE, MMIO, "to write a device");
	refused(s, SEC_LEAVE_WRONG, 0, "to leave elsewhere");
	/* EPT: nobody reads it. NPT: it can read its TEXT, in which there is no value. */
	if (guest_is_intel) {
		refused(s, SEC_LOAD, s->gpa + 2 * PAGE_SIZE, "to read its code");
		refused(s, SEC_LOAD_GATE, s->gpa + (sec_place1 - sec_code), "to read its value");
	} else {
		got = call(s, SEC_LOAD, s->gpa + 2 * PAGE_SIZE, 0);
		is(got, *(uint64_t *)(sec_code + 2 * PAGE_SIZE), "D7 it can read its code");
	}
	is(call(s, SEC_MAC, 1, PLAIN), mac(1), "D7 its slots are free");
	rdt_drain(r);
}

/* The caller's page tables are his: they decide where a secret is, and not what it executes. */
static void test_mappings(const struct sec *s, const struct sec *other)
{
	struct sec_seen *seen;
	uint64_t *pte, right;

	for (uint64_t at = 0; at < SEC_PAGES * PAGE_SIZE; at += PAGE_SIZE)
		vm_map(vm, ALIAS + at, s->gpa + at, PAGE_SIZE, PTE_W);
	expect(s, SEC_MAC, 5, PLAIN);
	is(vcpu_call(v, sec_call, SEC_MAC, 5, PLAIN, ALIAS + SEC_GATE_AT), mac(5), "D2 mapped elsewhere it works there");
	ok(quiet(), "D2 which is no alert");
	pte = vm_host(vm, vm_pte(vm, ALIAS + 2 * PAGE_SIZE));
	right = *pte;
	/* On GATE there is a trap at that place, so that nothing is to be had by it. */
	*pte = s->gpa | (right & 0xfff);
	vcpu_call(v, g_flush);
	seen = expect(s, SEC_MAC, 6, PLAIN);
	seen->drop = 1;
	is(vcpu_call(v, sec_call, SEC_MAC, 6, PLAIN, ALIAS + SEC_GATE_AT), -EFAULT, "D2 where its code was is its gate");
	is(seen->vector, 3, "D2 where its code was is its gate: a trap");
	saw(seen, 1, "D2 where its code was is its gate");
	for (int i = 0; i < 3; i++) {
		static const char *const what[] = { "another's code", "ordinary code", "its code" };
		const uint64_t there[] = { other->gpa + 2 * PAGE_SIZE, PLAIN, s->gpa + 2 * PAGE_SIZE };

		*pte = there[i] | (right & 0xfff);
		vcpu_call(v, g_flush);
		is(vcpu_call(v, sec_call, SEC_MAC, 6, PLAIN, ALIAS + SEC_GATE_AT), i < 2 ? (uint64_t)-EPERM : mac(6),
		   "D2 where its code was is %s", what[i]);
		vcpu_must_end(v, "page tables that change");
		ok(i < 2 ? alert(RDT_EV_EXEC, there[i]) : quiet(), "D2 where its code was is %s: an alert", what[i]);
	}
}

/* ---- somebody inside, on a thread of its own -------------------------------------------------- */

static bool comes(const volatile uint64_t *word, uint64_t value)
{
	for (int i = 0; i < 20000 && *word != value; i++)
		usleep(1000);
	return *word == value;
}

static void start_inside(struct vcpu *who, const struct sec *s, uint64_t result)
{
	uint64_t *word = vm_host(vm, PLAIN + PAGE_SIZE);

	*word = 0;
	expect(s, SEC_WAIT, PLAIN + PAGE_SIZE, result);
	vcpu_start(who, sec_call, SEC_WAIT, PLAIN + PAGE_SIZE, result, gate(s));
	ok(comes(word, 1), "vCPU %d is inside", who->id);
}

static int64_t end_inside(struct vcpu *who)
{
	int64_t ret;

	*(uint64_t *)vm_host(vm, PLAIN + PAGE_SIZE) = 2;
	ret = vcpu_join(who);
	vcpu_must_end(who, "from inside");
	return ret;
}

/* The APIC's way: it does not wait for KVM_RUN to return. */
static void send_nmi(struct vcpu *who)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000u | who->id << 12, .data = 0x400 };

	if (ioctl(vm->fd, KVM_SIGNAL_MSI, &msi) < 0)
		tap_bail("KVM_SIGNAL_MSI");
}

static void test_nmis(const struct sec *s, const char *mode)
{
	volatile uint64_t *word = vm_host(vm, PLAIN + PAGE_SIZE);
	struct sec_seen *seen;

	for (int i = 0; i < 5; i++) {
		start_inside(v1, s, 42);
		seen = vm_var(vm, sec_seen);
		*word = 0;
		send_nmi(v1);
		ok(comes(&seen->count, 1), "D3 %s: an NMI inside", mode);
		if (seen->rewind)
			ok(comes(word, 1), "D4 %s: it is done again", mode);
		is(end_inside(v1), 42, "D5 %s: the result", mode);
		is(seen->vector, 2, "D3 %s: its vector", mode);
		saw(seen, 1, mode);
	}
}

/* ---- events ---------------------------------------------------------------------------------- */

static void one_event(const struct sec *s, uint64_t op, unsigned int vector, const char *what)
{
	struct sec_seen *seen = expect(s, op, op == SEC_LOAD ? UNMAPPED : 1, PLAIN);
	int64_t ret;

	seen->drop = 1;
	ret = vcpu_call(v, sec_call, op, seen->a, PLAIN, gate(s));
	vcpu_must_end(v, what);
	is(ret, -EFAULT, "%s inside: the handler gives up", what);
	is(seen->vector, vector, "%s inside: its vector", what);
	saw(seen, 1, what);
	is(info(s).slots_busy, 0, "%s inside: the slot is free", what);
}

static void test_events(const struct sec *s)
{
	one_event(s, SEC_UD2, 6, "#UD");
	one_event(s, SEC_LOAD, 14, "#PF");
	one_event(s, SEC_INT3, 3, "INT3");
	one_event(s, SEC_INT, 0x90, "INT");
	one_event(s, SEC_GP, gp, "#GP");
	ok(quiet(), "D3 none of it is an alert");
}

/* A breakpoint, which the guest's kernel may set where it likes, at each instruction in turn. */
static void test_each_instruction(const struct sec *s, const char *mode)
{
	const unsigned int n = sec_steps_end - sec_steps;
	unsigned int hits = 0, wrong = 0, results = 0;

	/* The first is the gate: there it strikes before the call is one. */
	for (unsigned int i = 1; i < n; i++) {
		struct sec_seen *seen = expect(s, SEC_MAC, i, PLAIN);
		uint64_t at = s->gpa + sec_steps[i] - (uint64_t)sec_code;

		results += vcpu_call(v, g_call_break, at, i, PLAIN, gate(s)) == mac(i);
		if (!vcpu_must_end(v, "a breakpoint inside"))
			break;
		hits += seen->count;
		if (seen->count != 1)
			tap_diag("instruction %u: %lu events", i, seen->count);
		if (seen->wrong)
			tap_diag("instruction %u: register %lu is %#lx", i, seen->reg, seen->value);
		wrong += !!seen->wrong;
	}
	is(hits, n - 1, "D3 %s: #DB at each of %u instructions", mode, n - 1);
	is(wrong, 0, "D3 D6 %s: no handler saw anything of it", mode);
	is(results, n - 1, "D4 D5 %s: each result is right", mode);
	ok(quiet(), "D3 %s: none of it is an alert", mode);
}

/* The VMM stops the vCPU at each instruction, looks, and sends an NMI. */
static void test_nmi_at_each(const struct sec *s, const char *mode)
{
	const unsigned int n = sec_steps_end - sec_steps;
	unsigned int hits = 0, wrong = 0, results = 0, stops = 0, shown = 0;
	struct kvm_regs regs;

	for (unsigned int i = 1; i < n; i++) {
		struct sec_seen *seen = expect(s, SEC_MAC, i, PLAIN);
		struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP };

		debug.arch.debugreg[0] = s->gpa + sec_steps[i] - (uint64_t)sec_code;
		debug.arch.debugreg[7] = 0x402;
		ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug);
		vcpu_call(v, sec_call, SEC_MAC, i, PLAIN, gate(s));
		stops += v->exit == KVM_EXIT_DEBUG;
		vcpu_regs(v, &regs);
		shown += regs.rip != (seen->rewind ? seen->gate : (uint64_t)drv_resume);
		for (unsigned int n = 0; n < sizeof(regs) / 8; n++)
			shown += ((uint64_t *)&regs)[n] == k[0] || ((uint64_t *)&regs)[n] == k[1];
		debug.control = 0;
		ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug);
		ioctl(v->fd, KVM_NMI);
		results += vcpu_resume(v) == mac(i);
		if (!vcpu_must_end(v, "an NMI inside"))
			break;
		hits += seen->count == 1 && seen->vector == 2;
		if (seen->wrong)
			tap_diag("instruction %u: register %lu is %#lx", i, seen->reg, seen->value);
		wrong += !!seen->wrong;
	}
	is(stops, n - 1, "D3 %s: stopped at each of %u instructions", mode, n - 1);
	is(shown, 0, "D6 %s: KVM_GET_REGS shows nothing of it", mode);
	is(hits, n - 1, "D3 %s: an NMI at each", mode);
	is(wrong, 0, "D3 D6 %s: no handler saw anything of it", mode);
	is(results, n - 1, "D4 D5 %s: each result is right", mode);
}

static void test_timer(const struct sec *s, uint64_t op, uint64_t rounds, uint64_t period, const char *mode)
{
	struct sec_seen *seen = expect(s, op, rounds, 0);
	uint64_t calls, wrong = 0;

	/* In Bochs the way out and back in takes 100 us. */
	seen->period = guest_is_intel ? 4 * period : period;
	vcpu_call(v, g_timer_on, seen->period);
	for (calls = 0; seen->count < 100 && calls < 3000 && !wrong; calls++) {
		wrong += vcpu_call(v, sec_call, op, rounds, 0, gate(s)) != 0;
		wrong += !vcpu_must_end(v, "interrupts");
	}
	seen->period = 0;
	vcpu_call(v, g_timer_off);
	ok(seen->count >= 100, "D5 %s: interrupts inside (%lu in %lu calls)", mode, seen->count, calls);
	is(wrong, 0, "D5 %s: each result is right", mode);
	saw(seen, 0, mode);
}

/*
 * A call that is interrupted all the time ends nevertheless, if it goes on where it was. The timer must
 * leave room for the way out and back in, else no guest gets on: in Bochs that is 100 us.
 */
static void test_storm(const struct sec *s)
{
	const uint64_t rounds = guest_is_intel ? 300000 : 3000000;
	struct sec_seen *seen = expect(s, SEC_SPIN, rounds, 0);

	seen->period = guest_is_intel ? 150000 : 10000;
	vcpu_call(v, g_timer_on, seen->period);
	is(vcpu_call(v, sec_call, SEC_SPIN, rounds, 0, gate(s)), 0, "D5 a storm: one call ends");
	vcpu_must_end(v, "a storm");
	seen->period = 0;
	vcpu_call(v, g_timer_off);
	ok(seen->count > 10, "D5 a storm: interrupted %lu times", seen->count);
	saw(seen, 0, "a storm");
}

/*
 * While a vCPU is inside, the IDT is made to lead into the secret's code. That must not be
 * where the event goes with the registers of the inside.
 */
static void test_idt(const struct sec *s)
{
	const uint64_t into = s->gpa + sec_steps[sec_steps_end - sec_steps - 1] - (uint64_t)sec_code;
	uint16_t *nmi = vm_host(vm, GUEST_IDT + 2 * 16), keep[8];
	struct sec_seen *seen;

	start_inside(v, s, 12);
	seen = vm_var(vm, sec_seen);
	memcpy(keep, nmi, sizeof(keep));
	nmi[0] = into;
	nmi[3] = into >> 16;
	nmi[4] = into >> 32;
	seen->drop = 1;
	send_nmi(v);
	is(vcpu_join(v), -EFAULT, "D6 an IDT that leads inside: the handler gives up");
	memcpy(nmi, keep, sizeof(keep));
	vcpu_must_end(v, "an IDT that leads inside");
	is(seen->vector, gp, "D6 an IDT that leads inside: the handler is refused");
	is(seen->wrong, 1, "D6 an IDT that leads inside: there are no registers to see");
	is(seen->reg, 16, "D6 an IDT that leads inside: it came from there (%#lx)", seen->value);
	ok(alert(RDT_EV_DOMAIN_ACCESS, into), "D6 an IDT that leads inside: an alert");
}

static void test_install(const struct sec *s)
{
	struct rdt_domain_info before = info(s), then;

	is(call(s, SEC_MAC, 1, PLAIN), -ENOKEY_, "D1 without its value it is not called");
	ok(quiet(), "D1 which is no alert");
	is(install(s), 0, "D1 the operator installs one");
	then = info(s);
	is(then.installs, 1, "D1 once");
	is(then.gate_gva, gate(s), "D1 the operator knows where the gate is");
	ok(!memcmp(before.measurement, then.measurement, 32), "D1 the measurement is as it was");
	ok(zeros(s->gpa, SEC_PAGES * PAGE_SIZE), "D1 the VMM sees nothing of it");
	rdt_drain(r);
	/* Not while somebody is inside. */
	start_inside(v1, s, 42);
	fails(install(s), EAGAIN, "D1 he must not get another one");
	is(end_inside(v1), 42, "D1 he is out");
	is(install(s), 0, "D1 now it can be");
	rdt_drain(r);
}

static void test_end(const struct sec *s)
{
	is(hc(RDT_HC_DOM_DESTROY, s->id, 0, 0, 0), 0, "D1 it goes");
	ok(zeros(s->gpa, SEC_PAGES * PAGE_SIZE), "D1 nothing is left of it");
	is(vcpu_call(v, g_store, s->gpa, 1), -1, "D1 and the frames are the guest's again");
	rdt_drain(r);
}

int main(void)
{
	struct rdt_domain_quota quota = { .domains = RDT_DOM_MAX, .frames_each = 64, .frames = 256 };
	struct sec s[3];

	setvbuf(stdout, NULL, _IOLBF, 0);
	vm = vm_create(RAM, 2, VM_IRQCHIP);
	v = &vm->vcpu[0];
	v1 = &vm->vcpu[1];
	k = malloc(16);
	if (!k || getrandom(k, 16, 0) != 16)
		tap_bail("no secret");
	k[1] |= 1;
	r = rdt_attach(vm->fd);
	vm_map(vm, MMIO, MMIO, PAGE_SIZE, PTE_W);
	is(vcpu_call(v, g_node_add, NODES, 1), 1, "A1 a node page");
	is(hc(RDT_HC_PROTECT, DENY, 1, RDT_ATTR(RDT_ACT_DENY, 0), 0), 0, "A1 a protected page");
	is(ioctl(r->fd, RDT_VM_DOM_QUOTA, &quota), 0, "C9 the operator's leave");
	vcpu_call(v, g_watch);
	vcpu_call(v1, g_watch);

	make(&s[0], 0, RDT_DOM_VECTOR);
	make(&s[1], 1, RDT_DOM_VECTOR | RDT_DOM_REWIND);
	make(&s[2], 2, RDT_DOM_VECTOR);
	ok(!memcmp(info(&s[0]).measurement, info(&s[2]).measurement, 32) &&
	   memcmp(info(&s[0]).measurement, info(&s[1]).measurement, 32),
	   "D1 one code is measured as one, wherever it is");
	test_install(&s[0]);
	is(install(&s[1]), 0, "D1 the other one's value");
	rdt_drain(r);
	test_outside(&s[0], "installed");
	test_entries(&s[0]);
	test_calls(&s[0]);
	test_calls(&s[1]);
	test_reaches_out(&s[0], &s[2]);
	test_mappings(&s[0], &s[2]);
	test_events(&s[0]);
	test_events(&s[1]);
	test_each_instruction(&s[0], "resumed");
	test_each_instruction(&s[1], "rewound");
	test_nmi_at_each(&s[0], "resumed");
	test_nmi_at_each(&s[1], "rewound");
	test_nmis(&s[0], "resumed");
	test_nmis(&s[1], "rewound");
	test_timer(&s[0], SEC_SPIN, 2000, 40000, "resumed");
	test_timer(&s[1], SEC_SPIN, 1000, 80000, "rewound");
	test_timer(&s[0], SEC_VECTORS, 20000, 40000, "vector registers");
	test_storm(&s[0]);
	test_idt(&s[0]);
	test_outside(&s[0], "used");
	is(found(), 0, "D6 the secret is nowhere in the guest's memory");
	test_end(&s[0]);
	test_end(&s[1]);
	is(found(), 0, "D6 nor when it is gone");
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
