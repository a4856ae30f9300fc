// SPDX-License-Identifier: GPL-2.0
/*
 * Writes that are logged by stepping the instruction (A10): several vCPUs at a
 * time, onto a stack while an event is delivered, with single-stepping and
 * debuggers in the way, and with the guest's own page tables as the monitored
 * frames. What each instruction does is in test_write.c.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE			/* 4 pages */
#define LOG	(GUEST_FREE + 0x200000)		/* 2 pages */
#define PLAIN	(GUEST_FREE + 0x300000)
#define MANY	(GUEST_FREE + 0x400000)		/* MANY_PAGES pages, seen at MANY_GVA */
#define MANY_PAGES 64
#define MANY_GVA 0x40000000ul

#define DB	1
#define NMI	2
#define BP	3
#define UD	6
#define GP	13
#define PF	14

#define TF	0x100ull
#define ROUNDS	300

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;

static uint64_t events(void)
{
	return rdt_count(r, RDT_EV_WRITE);
}

static int protect(uint64_t gpa, uint64_t pages, int action, int cls)
{
	return rdt_protect(r, gpa, pages, action, cls);
}

/* ---- several vCPUs -------------------------------------------------------------- */

/* On both pages, in turn; locked and, in a word of its own, not. */
static u64 g_count(u64 n, u64 own)
{
	for (u64 i = 0; i < n; i++) {
		u64 page = LOG + (i & 1) * PAGE_SIZE;

		asm volatile("lock incq (%0)\n\tincq (%1)"
			     : : "r"(page + 0x100), "r"(page + own) : "memory", "cc");
	}
	return n;
}

static void check_counts(int vcpus, uint64_t before, uint64_t rounds, bool counted, const char *name)
{
	uint64_t sum = vm_u64(vm, LOG + 0x100) + vm_u64(vm, LOG + PAGE_SIZE + 0x100);
	uint64_t bad = 0;

	is(sum, vcpus * rounds, "A10 %s: the sum of locked increments", name);
	for (int i = 0; i < vcpus; i++)
		bad += vm_u64(vm, LOG + 0x200 + 8 * i) + vm_u64(vm, LOG + PAGE_SIZE + 0x200 + 8 * i) !=
		       rounds;
	is(bad, 0, "A10 %s: everybody's own count", name);
	if (counted)
		is(events() - before, 2 * vcpus * rounds, "A10 %s: an event each", name);
}

static void clear_counts(void)
{
	memset(vm_host(vm, LOG), 0, 2 * PAGE_SIZE);
}

static void run_counts(int vcpus, uint64_t rounds, const char *name)
{
	for (int i = 0; i < vcpus; i++)
		vcpu_start(&vm->vcpu[i], g_count, rounds, 0x200 + 8 * i);
	for (int i = 0; i < vcpus; i++) {
		vcpu_join(&vm->vcpu[i]);
		vcpu_must_end(&vm->vcpu[i], name);
	}
}

static void test_smp(void)
{
	uint64_t before = events();
	uint64_t steps = rdt_info(r).steps;

	clear_counts();
	run_counts(4, ROUNDS, "4 vCPUs");
	check_counts(4, before, ROUNDS, true, "4 vCPUs");
	ok(rdt_info(r).steps >= steps + 2 * 4 * ROUNDS, "A10 4 vCPUs: each was stepped");
}

/* ---- a vCPU that is kicked, preempted, reconfigured in the middle -------------------- */

static atomic_bool stop;

static void on_signal(int sig)
{
}

static void *kick(void *arg)
{
	while (!stop) {
		for (int i = 0; i < 4; i++)
			if (vm->vcpu[i].thread)
				pthread_kill(vm->vcpu[i].thread, SIGUSR1);
		/* Bochs would do nothing else. */
		usleep(guest_is_intel ? 5000 : 300);
	}
	return NULL;
}

/* The page loses and gets back its rule: only the sum is known. */
static void *reprotect(void *arg)
{
	while (!stop) {
		protect(LOG, 2, RDT_ACT_NONE, 0);
		usleep(200);
		protect(LOG, 2, RDT_ACT_LOG, RDT_CLS_OTHER);
		usleep(1000);
	}
	return NULL;
}

/* The memory itself comes and goes, and with it the roots. */
static void *replace(void *arg)
{
	while (!stop) {
		vm_set_slot(vm, 1, 0x80000000, PAGE_SIZE * 16, arg, 0);
		usleep(500);
		vm_set_slot(vm, 1, 0x80000000, 0, arg, 0);
		usleep(500);
	}
	return NULL;
}

static void *dirty(void *arg)
{
	static uint64_t bitmap[RAM / PAGE_SIZE / 64];

	vm_set_slot(vm, 0, 0, RAM, vm->map, KVM_MEM_LOG_DIRTY_PAGES);
	while (!stop) {
		vm_dirty_log(vm, 0, bitmap);
		usleep(1000);
	}
	vm_set_slot(vm, 0, 0, RAM, vm->map, 0);
	return NULL;
}

static void test_disturbed(const char *name, void *(*fn)(void *), void *arg, bool counted)
{
	uint64_t before = events();
	pthread_t thread;

	clear_counts();
	stop = false;
	for (int i = 0; i < 4; i++)
		vcpu_start(&vm->vcpu[i], g_count, ROUNDS, 0x200 + 8 * i);
	pthread_create(&thread, NULL, fn, arg);
	for (int i = 0; i < 4; i++) {
		vcpu_join(&vm->vcpu[i]);
		vcpu_must_end(&vm->vcpu[i], name);
		vm->vcpu[i].thread = 0;
	}
	stop = true;
	pthread_join(thread, NULL);
	check_counts(4, before, ROUNDS, counted, name);
}

static void test_dirty(void)
{
	static uint64_t bitmap[RAM / PAGE_SIZE / 64];
	unsigned int page = LOG / PAGE_SIZE, bad = 0;

	vm_set_slot(vm, 0, 0, RAM, vm->map, KVM_MEM_LOG_DIRTY_PAGES);
	vm_dirty_log(vm, 0, bitmap);
	for (int i = 0; i < 5; i++) {
		vcpu_call(v, g_load, LOG + 8);
		vm_dirty_log(vm, 0, bitmap);
		bad += bitmap[page / 64] >> page % 64 & 1;
		vcpu_call(v, g_store, LOG + 8, i);
		vm_dirty_log(vm, 0, bitmap);
		bad += !(bitmap[page / 64] >> page % 64 & 1);
	}
	is(bad, 0, "A10 dirty log: a logged page is dirty when it was written, and only then");
	vm_set_slot(vm, 0, 0, RAM, vm->map, 0);
}

/* ---- events onto a logged stack --------------------------------------------------- */

static u64 traps, trap_rflags, trap_cr2;

static u64 skip_insn(struct trap_frame *f)
{
	traps++;
	trap_rflags |= f->rflags;
	trap_cr2 = this_cpu()->cr2;
	if (f->vector == UD)
		f->rip += 2;
	if (f->vector == PF)
		f->rip += 7;		/* movb $1, (%rax) with a displacement */
	if (f->vector == GP)
		f->rip += 2;
	return 1;
}

/* Let these happen with the stack at @top; the stack pointer must come back. */
#define WITH_STACK(name, insns)						\
	static u64 g_on_stack_##name(u64 top)				\
	{								\
		u64 bad;						\
									\
		traps = trap_rflags = 0;				\
		this_cpu()->on_trap = skip_insn;			\
		asm volatile("movq %%rsp, %%r12\n\t"			\
			     "movq %1, %%rsp\n\t"			\
			     insns "\n\t"				\
			     "subq %1, %%rsp\n\t"			\
			     "movq %%rsp, %0\n\t"			\
			     "movq %%r12, %%rsp"			\
			     : "=&r"(bad) : "r"(top) : "r12", "rax", "memory", "cc"); \
		this_cpu()->on_trap = NULL;				\
		return bad ? ~0ull : traps;				\
	}

WITH_STACK(ud, "ud2")
WITH_STACK(int3, "int3")
WITH_STACK(intn, "int $0x42")
WITH_STACK(pf, "movl $0x78000000, %%eax; movb $1, 0x11223344(%%rax)")
WITH_STACK(gp, "movl $1, %%eax; shlq $63, %%rax; shrq $1, %%rax; .byte 0xff, 0x10")
WITH_STACK(all, "ud2; int3; int $0x42; ud2")

static void test_events(void)
{
	static const struct {
		const char *name;
		u64 (*fn)(u64 top);
		u64 traps;
		int vector;
	} kinds[] = {
		{ "#UD", g_on_stack_ud, 1, UD },
		{ "int3", g_on_stack_int3, 1, BP },
		{ "int n", g_on_stack_intn, 1, 0x42 },
		{ "#PF", g_on_stack_pf, 1, PF },
		{ "#GP", g_on_stack_gp, 1, GP },
		{ "four", g_on_stack_all, 4, UD },
	};

	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const uint64_t top = LOG + PAGE_SIZE + 0x40, size = 5 * 8;
		uint64_t events_plain, before, delivered = 0;
		struct rdt_event ev;

		memset(vm_host(vm, PLAIN), 0, 2 * PAGE_SIZE);
		memset(vm_host(vm, LOG), 0, 2 * PAGE_SIZE);
		is(vcpu_call(v, kinds[i].fn, PLAIN + PAGE_SIZE + 0x40), kinds[i].traps,
		   "A10 %s with a plain stack", kinds[i].name);
		rdt_drain(r);
		before = events();
		is(vcpu_call(v, kinds[i].fn, top), kinds[i].traps, "A10 %s with a logged stack",
		   kinds[i].name);
		if (!vcpu_must_end(v, kinds[i].name))
			continue;
		while (rdt_next(r, &ev))
			delivered += ev.type == RDT_EV_WRITE && ev.flags & RDT_EVF_EVENT;
		/* The frame lies across the border: an event for each page, or one. */
		ok(delivered >= kinds[i].traps && delivered <= 2 * kinds[i].traps,
		   "A10 %s: the delivery is reported as one (%ld)", kinds[i].name, delivered);
		events_plain = events() - before - delivered;
		ok(events_plain >= 17 * kinds[i].traps, "A10 %s: and so are the handler's pushes (%ld)",
		   kinds[i].name, events_plain);
		is(*vm_var(vm, trap_rflags) & TF, 0, "A10 %s: no TF in the frame", kinds[i].name);
		if (kinds[i].vector == PF)
			is(*vm_var(vm, trap_cr2), 0x89223344, "A10 %s: CR2", kinds[i].name);

		/* The same frame, but for the stack pointer in it. */
		uint64_t *a = vm_host(vm, top - size), *b = vm_host(vm, PLAIN + PAGE_SIZE + 0x40 - size);

		ok(a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[4] == b[4] && a[3] == top &&
		   b[3] == PLAIN + PAGE_SIZE + 0x40, "A10 %s: the frame is right", kinds[i].name);
	}
}

static u64 g_wait_nmi(u64 top)
{
	u64 bad;

	traps = trap_rflags = 0;
	this_cpu()->on_trap = skip_insn;
	asm volatile("movq %%rsp, %%r12; movq %1, %%rsp\n\t"
		     "1: outb %%al, $0x80; cmpq $0, %2; je 1b\n\t"
		     "subq %1, %%rsp; movq %%rsp, %0; movq %%r12, %%rsp"
		     : "=&r"(bad) : "r"(top), "m"(traps) : "r12", "memory", "cc");
	this_cpu()->on_trap = NULL;
	return bad ? ~0ull : traps;
}

static void test_nmi(void)
{
	uint64_t n = vm_var(vm, guest_cpus[0])->count[NMI];

	for (int i = 0; i < 3; i++) {
		vcpu_call(v, g_wait_nmi, LOG + PAGE_SIZE + 0x40);
		if (v->exit != KVM_EXIT_IO || v->run->io.port != 0x80)
			tap_bail("the guest does not wait");
		ioctl(v->fd, KVM_NMI, 0);
		for (int k = 0; k < 10 && !vcpu_done(v) && v->exit == KVM_EXIT_IO; k++)
			vcpu_resume(v);
		is(v->value, 1, "A10 an NMI with a logged stack: once");
		vcpu_must_end(v, "NMI");
	}
	is(vm_var(vm, guest_cpus[0])->count[NMI], n + 3, "A10 and the next NMI comes too");
}

/*
 * While a handler of an NMI is stepped, and its IRET (which, with a descriptor not
 * accessed in a logged GDT, writes too), the next one has to wait.
 */
#define SEL_SPARE	0x400
#define PORT_NMI	0x80

static u64 nmi_depth, nmi_nested, nmi_handled;

static u64 logging_nmi(struct trap_frame *f)
{
	volatile u64 *gdt = (volatile u64 *)(LOG + PAGE_SIZE);

	if (f->vector != NMI)
		return 0;
	nmi_nested += nmi_depth++ > 0;
	for (int i = 0; i < 4; i++) {
		asm volatile("incq (%0)" : : "r"(LOG + 0x300) : "memory", "cc");
		/* The host sends another here. */
		if (!nmi_handled && i == 1)
			asm volatile("outb %%al, %0" : : "i"(PORT_NMI) : "memory");
	}
	nmi_nested += nmi_depth > 1;
	nmi_depth--;
	nmi_handled++;
	gdt[SEL_SPARE / 8] = gdt[SEL_CODE0 / 8] & ~(1ull << 40);
	f->cs = SEL_SPARE;
	return 1;
}

static u64 g_nested_nmi(u64 gdt)
{
	volatile struct __attribute__((packed)) { u16 limit; u64 base; } old, new = { PAGE_SIZE - 1, gdt };

	nmi_depth = nmi_nested = nmi_handled = 0;
	asm volatile("sgdt %0; lgdt %1" : "=m"(old) : "m"(new));
	this_cpu()->on_trap = logging_nmi;
	while (nmi_handled < 2)
		asm volatile("outb %%al, %0" : : "i"(PORT_NMI) : "memory");
	this_cpu()->on_trap = NULL;
	asm volatile("pushq %1; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1: lgdt %0"
		     : : "m"(old), "i"(SEL_CODE0) : "rax", "memory");
	return nmi_nested;
}

static void test_nmi_in_nmi(void)
{
	uint64_t n = vm_var(vm, guest_cpus[0])->count[NMI], before = vm_u64(vm, LOG + 0x300);

	memcpy(vm_host(vm, LOG + PAGE_SIZE), vm_host(vm, GUEST_GDT), SEL_SPARE);
	vcpu_call(v, g_nested_nmi, LOG + PAGE_SIZE);
	/* From the loop, and from the handler of that. */
	for (int k = 0; k < 20 && !vcpu_done(v) && v->exit == KVM_EXIT_IO; k++) {
		if (k < 2)
			ioctl(v->fd, KVM_NMI, 0);
		vcpu_resume(v);
	}
	is(v->value, 0, "A10 an NMI waits for the end of a handler that is stepped");
	is(vm_var(vm, guest_cpus[0])->count[NMI], n + 2, "A10 and comes then");
	is(vm_u64(vm, LOG + 0x300), before + 8, "A10 both handlers' stores were done, once");
	vcpu_must_end(v, "NMI in an NMI");
}

/* ---- steps in steps ----------------------------------------------------------------- */

static u64 db_bits;

static u64 on_db(struct trap_frame *f)
{
	u64 dr6;

	traps++;
	asm volatile("movq %%dr6, %0" : "=r"(dr6));
	db_bits |= dr6;
	asm volatile("movq %0, %%dr6" : : "r"(0xffff0ff0ull));
	return 1;
}

/* TF of the guest's own: a #DB after each of 4 instructions, and after popf none. */
static u64 g_own_tf(u64 gva)
{
	traps = db_bits = 0;
	this_cpu()->on_trap = on_db;
	asm volatile("pushfq; orq $0x100, (%%rsp); popfq\n\t"
		     "movq $1, (%0)\n\t"
		     "movq $2, 8(%0)\n\t"
		     "pushfq\n\t"
		     "andq $~0x100, (%%rsp)\n\t"
		     "popfq\n\t"
		     "movq $3, 16(%0)"
		     : : "r"(gva) : "memory", "cc");
	this_cpu()->on_trap = NULL;
	return traps;
}

static u64 g_watch(u64 gva, u64 n)
{
	traps = db_bits = 0;
	this_cpu()->on_trap = on_db;
	asm volatile("movq %0, %%dr0; movq %1, %%dr7" : : "r"(gva), "r"(0xd0402ull));
	for (u64 i = 0; i < n; i++)
		asm volatile("incq (%0); incq 8(%0)" : : "r"(gva) : "memory", "cc");
	asm volatile("movq %0, %%dr7" : : "r"(0x400ull));
	this_cpu()->on_trap = NULL;
	return traps;
}

static void test_guest_debugs(void)
{
	uint64_t want, before;

	want = vcpu_call(v, g_own_tf, PLAIN);
	before = events();
	is(vcpu_call(v, g_own_tf, LOG), want, "A10 the guest's own single-stepping: a #DB each");
	vcpu_must_end(v, "TF");
	is(events() - before, 3, "A10 and an event each");
	is(*vm_var(vm, db_bits) & 0x400f, 0x4000, "A10 and DR6.BS says why");

	memset(vm_host(vm, LOG), 0, 16);
	before = events();
	is(vcpu_call(v, g_watch, LOG, 5), 5, "A10 the guest's own watchpoint strikes each time");
	vcpu_must_end(v, "DR0");
	is(events() - before, 10, "A10 and an event each");
	is(*vm_var(vm, db_bits) & 0x400f, 1, "A10 and DR6 says which");
}

static u64 g_two_stores(u64 gva)
{
	guest_sync(1);
	asm volatile("movq $1, (%0); nop; movups %%xmm0, 16(%0)" : : "r"(gva) : "memory");
	return 7;
}

static void test_vmm_debugs(void)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	uint64_t before, rip = 0, same = 0, n = 0;
	struct kvm_regs regs;

	before = events();
	vcpu_call(v, g_two_stores, LOG);
	ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug);
	vcpu_resume(v);
	while (v->exit == KVM_EXIT_DEBUG && n < 50) {
		vcpu_regs(v, &regs);
		same += regs.rip == rip;
		rip = regs.rip;
		n++;
		vcpu_resume(v);
	}
	memset(&debug, 0, sizeof(debug));
	ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug);
	while (!vcpu_done(v) && n++ < 60)
		vcpu_resume(v);
	ok(n >= 6 && n < 50, "A10 the VMM's single-stepping goes on (%ld)", n);
	is(same, 0, "A10 one instruction at a time");
	is(v->value, 7, "A10 to the end");
	vcpu_must_end(v, "KVM_SET_GUEST_DEBUG");
	is(events() - before, 2, "A10 and an event each");
}

/* ---- page tables ---------------------------------------------------------------------- */

static u64 g_touch_all(u64 rounds)
{
	u64 sum = 0;

	for (u64 k = 0; k < rounds; k++) {
		guest_flush_tlb();
		for (u64 i = 0; i < MANY_PAGES; i++) {
			u64 at = MANY_GVA + i * PAGE_SIZE;

			guest_store(at, guest_load(at) + 1);
			sum++;
		}
	}
	return sum;
}

static u64 u_inc(u64 gva)
{
	guest_store(gva, guest_load(gva) + 1);
	return 0;
}

static u64 g_from_ring3(u64 gva)
{
	guest_user_call(u_inc, gva);
	return guest_load(gva);
}

extern const char step_syscall[], step_sysret_user[];
asm(".text\n"
    "step_sysret_user: movq $0x5a5a, %rax; syscall; int $0x81\n"
    "step_syscall: incq %rax; sysretq\n");

/* To ring 3 and back through SYSCALL and SYSRET. */
static u64 g_syscall(u64 unused)
{
	u64 rax;

	guest_wrmsr(0xc0000080, guest_rdmsr(0xc0000080) | 1);
	guest_wrmsr(0xc0000081, (u64)SEL_CODE0 << 32 | (u64)(SEL_DATA3 - 8) << 48);
	guest_wrmsr(0xc0000082, (u64)step_syscall);
	guest_wrmsr(0xc0000084, 0x700);
	guest_user_call((void *)step_sysret_user, 0);
	asm volatile("" : "=a"(rax));
	return this_cpu()->count[0x81];
}

static u64 g_pte(u64 pte, u64 value)
{
	return guest_try("movq %1, (%0)", "r"(pte), "r"(value));
}

/* Something that KVM handles itself in between. */
static u64 g_cpuid_loop(u64 n)
{
	u32 a, b, c, d;

	for (u64 i = 0; i < n; i++)
		asm volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0), "c"(0));
	return n;
}

static void test_page_tables(void)
{
	uint64_t pte, table, n, before, ring3;

	vm_map(vm, MANY_GVA, MANY, MANY_PAGES * PAGE_SIZE, PTE_W | PTE_U);
	pte = vm_pte(vm, MANY_GVA);
	table = pte & -PAGE_SIZE;
	for (int action = RDT_ACT_LOG; action <= RDT_ACT_DENY; action++) {
		const char *name = action == RDT_ACT_LOG ? "LOG" : "DENY";
		uint64_t bad = 0;

		memset(vm_host(vm, MANY), 0, MANY_PAGES * PAGE_SIZE);
		for (int i = 0; i < MANY_PAGES; i++)
			*(uint64_t *)vm_host(vm, pte + 8 * i) &= ~(PTE_A | PTE_D);
		is(protect(GUEST_PML4, 3, action, RDT_CLS_PGTABLE), 0, "A10 PML4, PDPT, PD under %s", name);
		is(protect(table, 1, action, RDT_CLS_PGTABLE), 0, "A10 a page table under %s", name);
		before = events();
		is(vcpu_call(v, g_touch_all, 3), 3 * MANY_PAGES, "A10 %s: the guest walks them", name);
		vcpu_must_end(v, "walk");
		for (int i = 0; i < MANY_PAGES; i++) {
			bad += vm_u64(vm, MANY + i * PAGE_SIZE) != 3;
			bad += (vm_u64(vm, pte + 8 * i) & (PTE_A | PTE_D)) != (PTE_A | PTE_D);
		}
		is(bad, 0, "A10 %s: each store is there, each entry is accessed and dirty", name);
		ring3 = vm_u64(vm, MANY);
		is(vcpu_call(v, g_from_ring3, MANY_GVA), ring3 + 1, "A10 %s: from ring 3 too", name);
		vcpu_must_end(v, "ring 3");
		n = vm_var(vm, guest_cpus[0])->count[0x81];
		is(vcpu_call(v, g_syscall, 0), n + 1, "A10 %s: SYSCALL and SYSRET", name);
		vcpu_must_end(v, "SYSCALL");
		is(vcpu_call(v, g_on_stack_all, PLAIN + 0x800), 4, "A10 %s: events are delivered", name);
		vcpu_must_end(v, "events");
		is(vcpu_call(v, g_cpuid_loop, 5), 5, "A10 %s: intercepted instructions", name);
		vcpu_must_end(v, "CPUID");
		is(events(), before, "A10 %s: none of this is an event", name);

		struct rdt_event ev;
		uint64_t old = vm_u64(vm, pte);

		rdt_drain(r);
		is(vcpu_call(v, g_pte, pte, old ^ PTE_W), action == RDT_ACT_LOG ? -1 : GP,
		   "A10 %s: a write to an entry", name);
		vcpu_must_end(v, "entry");
		is(vm_u64(vm, pte), action == RDT_ACT_LOG ? old ^ PTE_W : old,
		   "A10 %s: the entry is as it should be", name);
		ok(rdt_find(r, RDT_EV_WRITE, &ev) && ev.gpa == pte && ev.action == action &&
		   ev.cls == RDT_CLS_PGTABLE, "A10 %s: it is reported", name);
		ok((ev.flags & RDT_EVF_OLD) && ev.old_val == old, "A10 %s: with the old value", name);
		if (action == RDT_ACT_LOG)
			ok((ev.flags & RDT_EVF_NEW) && ev.new_val == (old ^ PTE_W),
			   "A10 %s: and the new one", name);
		is(events(), before + 1, "A10 %s: once", name);
		/* Under DENY nothing would change: the CPU, which walks, may write there. */
		if (action == RDT_ACT_LOG)
			is(vcpu_call(v, g_pte, pte, old), -1, "A10 %s: and back", name);
		/* Clearing accessed is not what a walk does. */
		before = events();
		is(vcpu_call(v, g_pte, pte, old & ~PTE_A), action == RDT_ACT_LOG ? -1 : GP,
		   "A10 %s: clearing accessed", name);
		ok(events() == before + 1, "A10 %s: is a write", name);
		vcpu_call(v, g_pte, pte, old);
	}
	is(protect(GUEST_PML4, 3, RDT_ACT_NONE, 0), 0, "A10 page tables set free");
	is(protect(table, 1, RDT_ACT_NONE, 0), 0, "A10 page tables set free");
}

/* All vCPUs through the same monitored tables, and a logged page. */
static void test_page_tables_smp(void)
{
	uint64_t before = events();

	clear_counts();
	is(protect(GUEST_PML4, 3, RDT_ACT_DENY, RDT_CLS_PGTABLE), 0, "A10 tables under DENY, 4 vCPUs");
	run_counts(4, 10, "tables and 4 vCPUs");
	check_counts(4, before, 10, true, "tables and 4 vCPUs");
	is(protect(GUEST_PML4, 3, RDT_ACT_NONE, 0), 0, "A10 and free again");
}

/* ---- the end --------------------------------------------------------------------------- */

static void test_detach(void)
{
	clear_counts();
	for (int i = 0; i < 4; i++)
		vcpu_start(&vm->vcpu[i], g_count, 20 * ROUNDS, 0x200 + 8 * i);
	usleep(20000);
	is(ioctl(r->fd, RDT_VM_DETACH), 0, "A10 detach in the middle of it");
	for (int i = 0; i < 4; i++) {
		vcpu_join(&vm->vcpu[i]);
		vcpu_must_end(&vm->vcpu[i], "detached");
	}
	check_counts(4, 0, 20 * ROUNDS, false, "detached");
}

int main(void)
{
	void *spare = vm_alloc(PAGE_SIZE * 16, 0);

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	vm = vm_create(RAM, 4, 0);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	is(vcpu_call(v, g_node_add, NODES, 4), 4, "A10 node pages");
	is(protect(LOG, 2, RDT_ACT_LOG, RDT_CLS_OTHER), 0, "A10 two logged pages");
	test_smp();
	test_events();
	test_nmi();
	test_nmi_in_nmi();
	test_guest_debugs();
	test_vmm_debugs();
	test_dirty();
	test_page_tables();
	test_page_tables_smp();
	test_disturbed("signals", kick, NULL, true);
	test_disturbed("memslot changes", replace, spare, true);
	test_disturbed("dirty logging", dirty, NULL, true);
	test_disturbed("policy changes", reprotect, NULL, false);
	test_detach();
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
