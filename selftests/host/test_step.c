// SPDX-License-Identifier: GPL-2.0
/*
 * LOG where it is hardest: instructions with a trap, a fault, a shadow, a debug
 * register or an interrupt in them, and many vCPUs at once. Each scenario is run
 * on plain memory first. On logged memory everything must be the same: results,
 * memory, each exception with its address and flags.
 */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE
/* Frames of a set, and where the guest sees them: two pages to write, a hole, one it
 * may only read, two of code. */
#define SET_PAGES	8
#define PLAIN_GPA	(GUEST_FREE + 0x100000)
#define LOG_GPA		(GUEST_FREE + 0x200000)
#define PLAIN	0x20000000ul
#define LOG	0x20100000ul
#define P_HOLE	(2 * PAGE_SIZE)
#define P_RO	(3 * PAGE_SIZE)
#define P_CODE	(4 * PAGE_SIZE)
#define DENY	(LOG_GPA + SET_PAGES * PAGE_SIZE)	/* behind the logged set */
#define COUNTERS (GUEST_FREE + 0x300000)		/* one to one, 2 pages under LOG */
#define gp	13

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;

/* ---- in the guest ----------------------------------------------------------------- */

struct trap {
	u64 vector, error, rip, rflags, rsp, cr2, dr6;
};

#define MAX_TRAPS 64
static struct {
	u64 n;
	struct trap trap[MAX_TRAPS];
} traps;

static u64 irqs, irqs_with_tf;

static u64 read_dr6(void)
{
	u64 v;

	asm volatile("movq %%dr6, %0" : "=r"(v));
	asm volatile("movq %0, %%dr6" : : "r"(0xffff0ff0ul));
	return v;
}

static u64 on_trap(struct trap_frame *f)
{
	struct trap *t = &traps.trap[traps.n];

	if (f->vector == 0x40) {
		irqs++;
		irqs_with_tf += f->rflags >> 8 & 1;
		guest_wrmsr(0x80b, 0);
		return 1;
	}
	if (traps.n < MAX_TRAPS) {
		t->vector = f->vector;
		t->error = f->error;
		t->rip = f->rip;
		t->rflags = f->rflags;
		t->rsp = f->rsp;
		t->cr2 = f->vector == 14 ? this_cpu()->cr2 : 0;
		t->dr6 = f->vector == 1 ? read_dr6() : 0;
		/* DR1 is for breakpoints on instructions: let this one go on. */
		if (t->dr6 & 2)
			f->rflags |= 0x10000;
		traps.n++;
	}
	return f->vector == 1 || f->vector == 3 || f->vector == 0x90;
}

static u64 g_begin(void)
{
	traps.n = 0;
	this_cpu()->on_trap = on_trap;
	read_dr6();
	return 0;
}

#define SCENARIO(name, insns)							\
	static u64 s_##name(u64 at)						\
	{									\
		u64 out = 0, stack;						\
										\
		asm volatile("movq %%rsp, %%r15\n\t"				\
			     "leaq 99f(%%rip), %%r11\n\tmovq %%r11, %%gs:8\n\t"	\
			     "movl $0x1234567, %%eax; movl $3, %%ecx; movl $5, %%edx; cld\n\t" \
			     insns "\n"						\
			     "99:\tmovq %%r15, %%rsp\n\tmovq $0, %%gs:8\n\t"	\
			     "xorl %%esi, %%esi; movq %%rsi, %%dr7; cld"	\
			     : "+b"(out), "+D"(at), "=a"(stack) : 			\
			     : "rcx", "rdx", "rsi", "r8", "r9", "r11", "r12", "r13", "r14", "r15", "memory", "cc"); \
		return out + stack;						\
	}

#define TF_ON	"pushfq; orl $0x100, (%%rsp); popfq\n\t"
#define TF_OFF	"pushfq; andl $~0x100, (%%rsp); popfq\n\t"
/* Stack on the page, from here down. What handlers leave there is not compared. */
#define STACK	"leaq 0xf00(%%rdi), %%rsp\n\t"
#define STACK_LOW 0x800
#define STACK_TOP 0xf00

SCENARIO(tf_store, TF_ON "movq %%rax, (%%rdi); incl 8(%%rdi); nop\n\t" TF_OFF)
SCENARIO(tf_rep, TF_ON "rep stosb; nop\n\t" TF_OFF)
SCENARIO(tf_across, TF_ON "movq %%rax, 4092(%%rdi); nop\n\t" TF_OFF)
SCENARIO(tf_xchg, TF_ON "xchgq %%rax, (%%rdi); lock xaddq %%rdx, 16(%%rdi)\n\t" TF_OFF)
SCENARIO(tf_sse, TF_ON "pxor %%xmm0, %%xmm0; movups %%xmm0, (%%rdi)\n\t" TF_OFF)
SCENARIO(tf_push, "movq %%rdi, %%r8\n\t" STACK "pushq %%rax\n\tpushfq; orl $0x100, (%%rsp); popfq\n\tpushq %%rcx; popq %%rdx\n\tpushfq\n\tpopq %%r9; andl $~0x100, %%r9d; pushq %%r9; popfq\n\t")
SCENARIO(pushf, STACK "stc; pushfq; popq %%rbx; pushfw; popw %%bx")
SCENARIO(popf_mem, STACK "pushq $0x8d7; popfq; pushfq; popq %%rbx; andl $0xcd5, %%ebx")
SCENARIO(int3, STACK "int3; nop")
SCENARIO(intn, STACK "int $0x90; nop")
SCENARIO(icebp, STACK ".byte 0xf1; nop")
SCENARIO(ud2, STACK "ud2")
SCENARIO(div, STACK "xorl %%ecx, %%ecx; divl %%ecx")
SCENARIO(pf_on_stack, STACK "movq 0x2000(%%rdi), %%rax")
SCENARIO(iret, STACK "movl %%ss, %%ecx; pushq %%rcx; leaq 8(%%rsp), %%rcx; pushq %%rcx; pushfq; movl %%cs, %%ecx; pushq %%rcx; leaq 1f(%%rip), %%rcx; pushq %%rcx; iretq; 1: movl $7, %%ebx")
SCENARIO(call_ret, STACK "call 1f; movl $9, %%ebx; jmp 2f; 1: ret; 2:")
SCENARIO(lret, STACK "movl %%cs, %%ecx; pushq %%rcx; leaq 1f(%%rip), %%rcx; pushq %%rcx; lretq; 1: movl $8, %%ebx")
SCENARIO(store_hole, "movq %%rax, 0x1ffc(%%rdi)")
SCENARIO(store_ro, "movq %%rax, 0x3000(%%rdi)")
SCENARIO(rep_to_hole, "addq $0x1ff0, %%rdi; movl $64, %%ecx; rep stosb; movq %%rcx, %%rbx")
SCENARIO(rep_catch, "leaq 0x1ff0(%%rdi), %%rdi; movl $64, %%ecx; rep stosb")
SCENARIO(movaps_odd, "movaps %%xmm0, 8(%%rdi)")
SCENARIO(movs_overlap, "leaq 64(%%rdi), %%rsi; leaq 65(%%rdi), %%rdi; movl $300, %%ecx; rep movsb")
SCENARIO(rep_zero, "xorl %%ecx, %%ecx; rep stosq; movl $1, %%ebx")
SCENARIO(mov_ss, "movl %%ss, %%ecx; movl %%ecx, %%ss; movq %%rax, (%%rdi); movl $1, %%ebx")
SCENARIO(mov_ss_tf, "pushfq; orl $0x100, (%%rsp); movl %%ss, %%ecx; popfq; movl %%ecx, %%ss; movq %%rax, (%%rdi); nop\n\t" TF_OFF)
SCENARIO(sti, "sti; movq %%rax, (%%rdi); movq %%rdx, 8(%%rdi); cli")
SCENARIO(dr_write, "leaq 0x40(%%rdi), %%rcx; movq %%rcx, %%dr0; movl $0xd0001, %%ecx; movq %%rcx, %%dr7; movl %%eax, 0x40(%%rdi); nop; movl %%eax, 0x48(%%rdi); incl 0x40(%%rdi)")
SCENARIO(dr_exec, "leaq 1f(%%rip), %%rcx; movq %%rcx, %%dr1; movl $4, %%ecx; movq %%rcx, %%dr7; movq %%rax, (%%rdi); xorl %%ecx, %%ecx; 1: movq %%rax, 8(%%rdi); xorl %%ecx, %%ecx; movq %%rcx, %%dr7")
SCENARIO(lidt_sgdt, "sgdt (%%rdi); sidt 16(%%rdi); smsw 32(%%rdi)")
SCENARIO(cr3_reload, "movq %%cr3, %%rcx; movq %%rcx, %%cr3; movq %%rax, (%%rdi); movq %%rcx, %%cr3; movq %%rax, 4096(%%rdi)")
SCENARIO(cpuid_between, "movq %%rax, (%%rdi); movq %%rbx, %%r8; xorl %%eax, %%eax; cpuid; movq %%r8, %%rbx; movq %%rdx, 8(%%rdi)")
SCENARIO(enter_leave, "movq %%rbp, %%r8\n\t" STACK "enter $32, $0; movq %%rax, -8(%%rbp); leave; movq %%r8, %%rbp")
SCENARIO(xsave, "xorl %%edx, %%edx; movl $3, %%eax; xsave64 (%%rdi)")

/* On its own page: stores into the immediate of the next instruction but one. */
static const u8 self_code[] = {
	0xc7, 0x05, 0x07, 0x00, 0x00, 0x00, 0x44, 0x33, 0x22, 0x11, /* movl $0x11223344, 7(%rip) */
	0x0f, 0xa2,		/* cpuid: serialize */
	0x90, 0x90, 0x90, 0x90,
	0xb8, 0, 0, 0, 0,	/* movl $0, %eax: patched */
	0xc3,
};

static u64 s_self_code(u64 at)
{
	u64 (*fn)(void) = (void *)(at + P_CODE);
	u64 ret;

	asm volatile("call *%1" : "=a"(ret) : "r"(fn), "0"(0), "c"(0) : "rbx", "rdx", "memory", "cc");
	return ret;
}

struct scenario {
	const char *name;
	u64 (*fn)(u64);
};

#define S(name) { #name, s_##name }
static const struct scenario scenarios[] = {
	S(tf_store), S(tf_rep), S(tf_across), S(tf_xchg), S(tf_sse), S(tf_push), S(pushf),
	S(popf_mem), S(int3), S(intn), S(icebp), S(ud2), S(div), S(pf_on_stack), S(iret),
	S(call_ret), S(lret), S(store_hole), S(store_ro), S(rep_to_hole), S(rep_catch),
	S(movaps_odd), S(movs_overlap), S(rep_zero), S(mov_ss), S(mov_ss_tf), S(sti), S(dr_write),
	S(dr_exec), S(lidt_sgdt), S(cr3_reload), S(cpuid_between), S(enter_leave), S(xsave),
	S(self_code),
};

/* ---- at the host --------------------------------------------------------------------- */

static void pattern(uint64_t gpa)
{
	uint8_t *p = vm_host(vm, gpa);

	for (unsigned int i = 0; i < SET_PAGES * PAGE_SIZE; i++)
		p[i] = i * 11 + 1;
	memcpy(p + P_CODE, self_code, sizeof(self_code));
}

static void see_set(uint64_t gva, uint64_t gpa)
{
	vm_map(vm, gva, gpa, SET_PAGES * PAGE_SIZE, PTE_W);
	*(uint64_t *)vm_host(vm, vm_pte(vm, gva + P_HOLE)) = 0;
	*(uint64_t *)vm_host(vm, vm_pte(vm, gva + P_RO)) &= ~PTE_W;
}

/* An address in a set as if it were in the other. */
static uint64_t same(uint64_t a)
{
	return a - LOG < SET_PAGES * PAGE_SIZE ? a - LOG + PLAIN : a;
}

static uint64_t rflags_of_interest(const struct trap *t)
{
	/* RF is the CPU's own choice in some traps. */
	return t->rflags & ~0x10000ull;
}

static void run_scenario(const struct scenario *s)
{
	__typeof__(traps) want, *got = vm_var(vm, traps);
	uint64_t result, plain, differ = 0;
	int dr6_differs = 0;

	/* Twice: Bochs has a #DB too many when an access under TF has a nested fault. */
	for (int i = 0; i < 2; i++) {
		pattern(PLAIN_GPA);
		vcpu_call(v, g_begin);
		plain = vcpu_call(v, s->fn, PLAIN);
	}
	pattern(LOG_GPA);
	if (!vcpu_done(v)) {
		vcpu_explain(v);
		tap_bail("%s does not even run unmonitored", s->name);
	}
	memcpy(&want, got, sizeof(want));
	vcpu_call(v, g_begin);
	result = vcpu_call(v, s->fn, LOG);
	if (!vcpu_must_end(v, s->name))
		return;
	is(result, plain, "A10 step %s: the result", s->name);
	ok(!memcmp(vm_host(vm, PLAIN_GPA), vm_host(vm, LOG_GPA), STACK_LOW) &&
	   !memcmp(vm_host(vm, PLAIN_GPA + STACK_TOP), vm_host(vm, LOG_GPA + STACK_TOP),
		   SET_PAGES * PAGE_SIZE - STACK_TOP), "A10 step %s: memory", s->name);
	is(got->n, want.n, "A10 step %s: exceptions", s->name);
	for (unsigned int i = 0; i < want.n && i < got->n; i++) {
		const struct trap *a = &want.trap[i], *b = &got->trap[i];
		bool bad = a->vector != b->vector || a->error != b->error || a->rip != same(b->rip) ||
			   rflags_of_interest(a) != rflags_of_interest(b) || a->rsp != same(b->rsp) ||
			   a->cr2 != same(b->cr2);

		if (bad || a->dr6 != b->dr6)
			tap_diag("%u: plain vector %ld error %#lx rip %#lx flags %#lx rsp %#lx cr2 %#lx dr6 %#lx, "
				 "logged %ld %#lx %#lx %#lx %#lx %#lx %#lx", i, a->vector, a->error, a->rip,
				 a->rflags, a->rsp, a->cr2, a->dr6, b->vector, b->error, b->rip, b->rflags,
				 b->rsp, b->cr2, b->dr6);
		differ += bad;
		dr6_differs += a->dr6 != b->dr6;
	}
	is(differ, 0, "A10 step %s: each exception", s->name);
	is(dr6_differs, 0, "A10 step %s: DR6", s->name);
}

/* One instruction, a logged page and a denied one: nothing of it happens. */
static u64 g_log_and_deny(u64 gva)
{
	return guest_try("movq %1, -4(%0)", "r"(gva), "r"(0x5555555555555555));
}

static void test_log_and_deny(void)
{
	uint64_t before = vm_u64(vm, DENY - 8), writes;
	struct rdt_event ev;
	bool denied = false;

	vm_map(vm, 0x20200000, DENY - PAGE_SIZE, 2 * PAGE_SIZE, PTE_W);
	rdt_drain(r);
	writes = rdt_count(r, RDT_EV_WRITE);
	is(vcpu_call(v, g_log_and_deny, 0x20200000 + PAGE_SIZE), gp, "A10 across from LOG into DENY: #GP");
	is(vm_u64(vm, DENY - 8), before, "A10 the logged part is not written either");
	is(vm_u64(vm, DENY), 0, "A10 nor the denied one");
	ok(rdt_count(r, RDT_EV_WRITE) > writes, "A10 it is reported");
	while (rdt_next(r, &ev))
		denied |= ev.action == RDT_ACT_DENY && ev.gpa == DENY;
	ok(denied, "A10 as denied");
}

/* ---- interrupts, signals, the debugger --------------------------------------------------- */

static u64 g_count(u64 gva, u64 n, u64 irq)
{
	if (irq)
		asm volatile("sti");
	for (u64 i = 0; i < n; i++)
		asm volatile("lock incq (%0)" : : "r"(gva) : "memory", "cc");
	asm volatile("cli");
	return guest_load(gva);
}

static u64 g_timer(u64 period)
{
	guest_wrmsr(0x1b, guest_rdmsr(0x1b) | 0xc00);
	guest_wrmsr(0x80f, 0x1ff);
	guest_wrmsr(0x83e, 0xb);
	guest_wrmsr(0x832, period ? 0x20040 : 0x10040);	/* periodic */
	guest_wrmsr(0x838, period);
	irqs = irqs_with_tf = 0;
	return 0;
}

static u64 g_irqs(void)
{
	return irqs;
}

static u64 g_irqs_with_tf(void)
{
	return irqs_with_tf;
}

static void on_alarm(int sig)
{
}

static void every_ms(long ms)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	struct itimerval t = { { 0, ms * 1000 }, { 0, ms * 1000 } };

	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
}

static void test_interrupted(void)
{
	uint64_t *counter = vm_host(vm, COUNTERS), n = 3000, writes, stops = 0;
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };

	vcpu_call(v, g_begin);
	vcpu_call(v, g_timer, 200000);
	*counter = 0;
	writes = rdt_count(r, RDT_EV_WRITE);
	is(vcpu_call(v, g_count, COUNTERS, n, 1), n, "A10 step under timer interrupts: each write once");
	vcpu_must_end(v, "timer");
	is(rdt_count(r, RDT_EV_WRITE) - writes, n, "A10 step under timer interrupts: each reported once");
	ok(vcpu_call(v, g_irqs) > 20, "A10 step: there were interrupts (%lu)", vcpu_call(v, g_irqs));
	is(vcpu_call(v, g_irqs_with_tf), 0, "A10 step: no handler saw a TF that is not the guest's");
	vcpu_call(v, g_timer, 0);

	*counter = 0;
	writes = rdt_count(r, RDT_EV_WRITE);
	vcpu_prepare(v, g_count, COUNTERS, n, 0);
	every_ms(1);
	for (;;) {
		struct kvm_regs regs;
		struct kvm_sregs sregs;

		vcpu_run(v);
		if (v->error != EINTR)
			break;
		stops++;
		vcpu_regs(v, &regs);
		vcpu_sregs(v, &sregs);
		if (regs.rflags & 0x100)
			ok(false, "A10 step: the VMM sees a TF that is not the guest's");
		ioctl(v->fd, KVM_SET_SREGS, &sregs);
		ioctl(v->fd, KVM_SET_REGS, &regs);
	}
	every_ms(0);
	vcpu_must_end(v, "signals");
	is(v->value, n, "A10 step under pauses by the VMM: each write once");
	is(rdt_count(r, RDT_EV_WRITE) - writes, n, "A10 step under pauses: each reported once");
	ok(stops > 3, "A10 step: there were pauses (%lu)", stops);

	/* The VMM's debugger steps through logged writes. */
	*counter = 0;
	writes = rdt_count(r, RDT_EV_WRITE);
	vcpu_prepare(v, g_count, COUNTERS, 20, 0);
	ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug);
	uint64_t last = 0, moved = 0, steps = 0;
	do {
		vcpu_run(v);
		moved += v->exit == KVM_EXIT_DEBUG && v->run->debug.arch.pc != last;
		last = v->run->debug.arch.pc;
		steps++;
	} while (v->exit == KVM_EXIT_DEBUG && steps < 10000);
	debug.control = 0;
	ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug);
	vcpu_must_end(v, "debugger");
	is(v->value, 20, "A10 step under the VMM's debugger: each write once");
	is(rdt_count(r, RDT_EV_WRITE) - writes, 20, "A10 step under the debugger: each reported once");
	ok(moved >= 40 && steps == moved + 1, "A10 step: the debugger stops at each instruction (%lu, %lu)",
	   moved, steps);
}

/* ---- many at once ---------------------------------------------------------------------- */

#define ROUNDS 2000

/* What the function returned; ~0 when it did not come to that. */
static uint64_t join(int i)
{
	uint64_t value = vcpu_join(&vm->vcpu[i]);

	if (vcpu_done(&vm->vcpu[i]))
		return value;
	vcpu_explain(&vm->vcpu[i]);
	return ~0ull;
}

static u64 g_many(u64 gva, u64 n, u64 deny)
{
	u64 bad = 0;

	for (u64 i = 0; i < n; i++) {
		asm volatile("lock incq (%0)" : : "r"(gva) : "memory", "cc");
		bad += i % 16 == 0 && guest_try_store(deny, i) != gp;
	}
	return bad;
}

static void test_one_word(void)
{
	uint64_t *counter = vm_host(vm, COUNTERS), writes;
	uint64_t denied = vm->vcpus * (ROUNDS / 16);

	memset(counter, 0, PAGE_SIZE);
	writes = rdt_count(r, RDT_EV_WRITE);
	for (int i = 0; i < vm->vcpus; i++)
		vcpu_start(&vm->vcpu[i], g_many, COUNTERS, ROUNDS, DENY);
	for (int i = 0; i < vm->vcpus; i++)
		is(join(i), 0, "A10 step, %d vCPUs on one word: vCPU %d is denied each time", vm->vcpus, i);
	is(counter[0], vm->vcpus * ROUNDS, "A10 step, many vCPUs on one word: each write once");
	is(rdt_count(r, RDT_EV_WRITE) - writes, vm->vcpus * ROUNDS + denied,
	   "A10 step, many vCPUs: each reported once");
	is(vm_u64(vm, DENY), 0, "A10 step, many vCPUs: the denied page is unchanged");

}

/* Each on a page of its own, while the operator takes LOG away and gives it back. */
static void test_comes_and_goes(void)
{
	memset(vm_host(vm, COUNTERS), 0, 2 * PAGE_SIZE);
	for (int i = 0; i < vm->vcpus; i++)
		vcpu_start(&vm->vcpu[i], g_many, COUNTERS + (i & 1) * PAGE_SIZE + i * 64, ROUNDS, DENY);
	for (int i = 0; i < 100; i++) {
		rdt_protect(r, COUNTERS, 2, RDT_ACT_NONE, 0);
		rdt_protect(r, COUNTERS, 2, RDT_ACT_LOG, 0);
	}
	for (int i = 0; i < vm->vcpus; i++) {
		is(join(i), 0, "A10 step while LOG comes and goes: vCPU %d", i);
		is(vm_u64(vm, COUNTERS + (i & 1) * PAGE_SIZE + i * 64), ROUNDS,
		   "A10 step while LOG comes and goes: each write once, vCPU %d", i);
	}

}

static void test_detach(void)
{
	memset(vm_host(vm, COUNTERS), 0, PAGE_SIZE);
	for (int i = 0; i < vm->vcpus; i++)
		vcpu_start(&vm->vcpu[i], g_count, COUNTERS + i * 64, ROUNDS, 0);
	usleep(50000);
	is(ioctl(r->fd, RDT_VM_DETACH, 0), 0, "A10 step: detach in the middle");
	for (int i = 0; i < vm->vcpus; i++)
		is(join(i), ROUNDS, "A10 step: each write once all the same, vCPU %d", i);
}

/* test_step [N]: only the part with many vCPUs, N times. */
int main(int argc, char **argv)
{
	int many = argc > 1 ? atoi(argv[1]) : 0;
	int64_t ret = 0;

	vm = vm_create(RAM, 4, VM_IRQCHIP);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	see_set(PLAIN, PLAIN_GPA);
	see_set(LOG, LOG_GPA);
	ret |= vcpu_call(v, g_node_add, NODES, 2) != 2;
	ret |= vcpu_call(v, g_hc, RDT_HC_PROTECT, LOG_GPA, SET_PAGES, RDT_ATTR(RDT_ACT_LOG, 0));
	ret |= vcpu_call(v, g_hc, RDT_HC_PROTECT, DENY, 1, RDT_ATTR(RDT_ACT_DENY, 0));
	/* The operator's, so that he can take it away. */
	ret |= rdt_protect(r, COUNTERS, 2, RDT_ACT_LOG, 0);
	is(ret, 0, "A10 step: set up");
	for (unsigned int i = 0; !many && i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
		run_scenario(&scenarios[i]);
	if (!many) {
		test_log_and_deny();
		test_interrupted();
	}
	do {
		test_one_word();
		test_comes_and_goes();
	} while (--many > 0);
	test_detach();
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
