// SPDX-License-Identifier: GPL-2.0
/*
 * Domains: a call, an event that strikes inside, and a signature, against the same
 * outside.
 */
#include <string.h>
#include <sys/ioctl.h>

#include "../host/tap.h"
#include "bench.h"
#include "domains.h"

enum {
	SIGNATURES = 200,
	/* 250 Hz at a billion instructions a second. */
	TICK = 4000000,
	TIMER_VECTOR = 0x40,
	X2APIC_EOI = 0x80b, X2APIC_SVR = 0x80f, X2APIC_LVT = 0x832, X2APIC_COUNT = 0x838,
	X2APIC_DIVIDE = 0x83e,
	LVT_PERIODIC = 0x20000, LVT_MASKED = 0x10000,
};

extern u8 bench_gate[], bench_exit[], bench_leave[], bench_leave_hc[], bench_event[];
extern u8 bench_sign_inside[], bench_stack_top[];
extern u8 __start_bench_text[], __stop_bench_text[], __start_bench_data[], __stop_bench_data[];
extern u8 bench_divide[], bench_resume[], bench_resume_hc[];
u64 bench_call(u64 op, u64 vectors, u64 gate);
/* sign.c */
void bench_key(void);
u64 bench_sign(u64 what);

/* ---- a domain --------------------------------------------------------------------- */

static s64 hc(struct vm *vm, const char *what, u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	s64 ret = vcpu_hc(&vm->vcpu[0], nr, a, b, c, d);

	must(vm, ret, what);
	return ret;
}

/* The pages of the program from @from to @to, as the domain's; room for them ends at @end. */
static void add(struct vm *vm, s64 id, u64 gpa, u64 end, const u8 *from, const u8 *to, u64 kind)
{
	u64 pages = (to - from + PAGE_SIZE - 1) / PAGE_SIZE;

	if ((u64)from % PAGE_SIZE || gpa + pages * PAGE_SIZE > end)
		tap_bail("the domain's %lu pages at %p do not fit", pages, from);
	/* The guest's copy: its memory may have been written. */
	memcpy(vm_host(vm, gpa), vm_host(vm, (u64)from), pages * PAGE_SIZE);
	hc(vm, "DOM_ADD", RDT_HC_DOM_ADD, id, gpa, (u64)from, RDT_DOM_PAGES(pages, kind));
}

static s64 make_domain(struct vm *vm, u64 gpa, u32 flags)
{
	static const u8 insn[2][3] = { { 0x0f, 0x01, 0xd9 }, { 0x0f, 0x01, 0xc1 } };
	struct rdt_domain_desc *desc = vm_host(vm, B_DESC);
	s64 id;

	memcpy(vm_host(vm, (u64)bench_leave_hc), insn[guest_is_intel], 3);
	memcpy(vm_host(vm, (u64)bench_resume_hc), insn[guest_is_intel], 3);
	vcpu_call(&vm->vcpu[0], bench_key);
	*desc = (struct rdt_domain_desc){
		.size = sizeof(*desc),
		.flags = flags,
		.gate_gva = (u64)bench_gate,
		.exit_gva = (u64)bench_exit,
		.resume_gva = (u64)bench_resume,
		.slots = 1,
		.windows = 1,
		.stack_top = { (u64)bench_stack_top },
		.window = { { B_SHARED, 1 } },
	};
	id = hc(vm, "DOM_CREATE", RDT_HC_DOM_CREATE, B_DESC, 0, 0, 0);
	/* Ascending, as the linker has them. */
	add(vm, id, gpa, gpa + PAGE_SIZE, bench_gate, bench_exit, RDT_DOM_GATE);
	add(vm, id, gpa + PAGE_SIZE, gpa + B_TEXT, bench_exit, bench_exit + PAGE_SIZE, RDT_DOM_EXIT);
	add(vm, id, gpa + B_TEXT, gpa + B_DATA, __start_bench_text, __stop_bench_text, RDT_DOM_TEXT);
	add(vm, id, gpa + B_DATA, gpa + B_TABLES, __start_bench_data, __stop_bench_data, RDT_DOM_DATA);
	hc(vm, "DOM_ADD", RDT_HC_DOM_ADD, id, gpa + B_TABLES, 0,
	   RDT_DOM_PAGES(B_TABLE_PAGES, RDT_DOM_TABLE));
	hc(vm, "DOM_SHARE", RDT_HC_DOM_SHARE, id, B_SHARED, B_SHARED, 1);
	hc(vm, "DOM_SEAL", RDT_HC_DOM_SEAL, id, 0, 0, 0);
	return id;
}

static void allow_domains(struct rdt *r)
{
	struct rdt_domain_quota quota = { .domains = 3, .frames_each = 64, .frames = 192 };

	if (ioctl(r->fd, RDT_VM_DOM_QUOTA, &quota))
		tap_bail("RDT_VM_DOM_QUOTA");
}

/* ---- calls and events ---------------------------------------------------------------- */

/* Everything that the uAPI does not preserve is clobbered. */
static inline u64 through(u64 door, const u8 *op)
{
	u64 rax = door, rdi = (u64)op;

	asm volatile("leaq 1f(%%rip), %%r11\n\t"
		     "jmp *%%rax\n"
		     "1:"
		     : "+a"(rax), "+D"(rdi)
		     : : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
	return rax;
}

static u64 g_call(u64 n, u64 gate)
{
	u64 bad = 0;

	/* Straight out again; RAX is no argument. */
	MEASURE(n, bad += through(gate, bench_exit) != 0);
	return bad;
}

/* In and out by hypercall; refused, it goes on in the same place. */
static u64 g_call_hc(u64 n, u64 id)
{
	u64 bad = 0, rax, rbx, rdi;

	MEASURE(n, rax = RDT_HC_DOM_ENTER; rbx = id; rdi = (u64)bench_leave;
		if (guest_is_intel)
			asm volatile("leaq 1f(%%rip), %%r11\n\tvmcall\n1:"
				     : "+a"(rax), "+b"(rbx), "+D"(rdi)
				     : : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
		else
			asm volatile("leaq 1f(%%rip), %%r11\n\tvmmcall\n1:"
				     : "+a"(rax), "+b"(rbx), "+D"(rdi)
				     : : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
		bad += rax != 0x1234);
	return bad;
}

/* The cost is what the inside says. */
static u64 events(u64 n, u64 gate, u64 vectors)
{
	u64 bad = 0, c;

	for (u64 i = 0; i < WARM + n; i++) {
		guest_store(B_SHARED, 0);
		c = bench_call((u64)bench_event, vectors, gate);
		bad += c >> 32 != 0 || guest_load(B_SHARED) != 1;
		if (i >= WARM)
			cost[i - WARM] = c;
	}
	return bad;
}

static u64 g_events(u64 n, u64 gate)
{
	return events(n, gate, B_NONE);
}

static u64 g_events_sse(u64 n, u64 gate)
{
	return events(n, gate, B_SSE);
}

static u64 g_events_avx(u64 n, u64 gate)
{
	u32 lo = 0, hi = 0;

	/* The host's user space has turned it on. */
	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return events(n, gate, lo & 4 ? B_AVX : B_SSE);
}

/* The same in ring 3; the arguments go by memory. */
static struct { u64 (*fn)(u64, u64), n, gate; } in_user;

static u64 u_run(u64 unused)
{
	return in_user.fn(in_user.n, in_user.gate);
}

static u64 user(u64 (*fn)(u64, u64), u64 n, u64 gate)
{
	in_user.fn = fn;
	in_user.n = n;
	in_user.gate = gate;
	return guest_user_call(u_run, 0);
}

static u64 g_user_call(u64 n, u64 gate)
{
	return user(g_call, n, gate);
}

static u64 g_user_events(u64 n, u64 gate)
{
	return user(g_events_sse, n, gate);
}

static void set_handler(struct vm *vm, unsigned int vector, const void *handler)
{
	u64 *gate = vm_host(vm, GUEST_IDT + vector * 16), at = (u64)handler;

	gate[0] = (at & 0xffff) | (u64)SEL_CODE0 << 16 | 0x8e00ull << 32 | (at & 0xffff0000) << 32;
	gate[1] = at >> 32;
}

void bench_domains(struct vm *vm, struct rdt *r)
{
	const u64 plain = B_DOM, vector = plain + B_DOM_SIZE, user = vector + B_DOM_SIZE;
	u64 old[2];
	s64 id;

	allow_domains(r);
	id = make_domain(vm, plain, 0);
	make_domain(vm, vector, RDT_DOM_VECTOR);
	make_domain(vm, user, RDT_DOM_VECTOR | RDT_DOM_USER);
	put("dom_fault_door", measure(vm, g_call, plain, "a domain's fault door"));
	put("dom_hypercall_door", measure(vm, g_call_hc, id, "a domain's hypercall door"));
	put("dom_vector_door", measure(vm, g_call, vector, "fault door, with vector registers"));
	put("dom_user_door", measure(vm, g_user_call, user, "fault door, ring 3"));
	memcpy(old, vm_host(vm, GUEST_IDT), sizeof(old));
	set_handler(vm, 0, bench_divide);
	put("aexit", measure(vm, g_events, plain, "an event inside"));
	put("aexit_vector", measure(vm, vm->vcpu[0].xsave ? g_events_avx : g_events_sse, vector,
				    "an event inside, vector registers in use"));
	put("aexit_user", measure(vm, g_user_events, user, "an event inside, ring 3"));
	memcpy(vm_host(vm, GUEST_IDT), old, sizeof(old));
}

/* ---- signing --------------------------------------------------------------------------- */

static u64 ticks, ticks_inside;

__attribute__((target("general-regs-only"))) static u64 on_tick(struct trap_frame *f)
{
	if (f->vector != TIMER_VECTOR)
		return 0;
	ticks++;
	ticks_inside += f->rip == (u64)bench_resume;
	guest_wrmsr(X2APIC_EOI, 0);
	return 1;
}

/* The instructions of all signatures; @gate: 0 outside. B_SSE is what is signed as well. */
static u64 g_sign(u64 gate, u64 period)
{
	u64 sum = 0, good = bench_sign(B_SSE), bad = 0;

	this_cpu()->on_trap = on_tick;
	ticks = ticks_inside = 0;
	guest_wrmsr(0x1b, guest_rdmsr(0x1b) | 0xc00);
	guest_wrmsr(X2APIC_SVR, 0x1ff);
	guest_wrmsr(X2APIC_DIVIDE, 0xb);
	guest_wrmsr(X2APIC_LVT, LVT_PERIODIC | TIMER_VECTOR);
	guest_wrmsr(X2APIC_COUNT, period);
	asm volatile("sti");
	for (u64 i = 0; i < WARM + SIGNATURES; i++) {
		u64 t = tsc();

		bad += (gate ? bench_call((u64)bench_sign_inside, B_SSE, gate) : bench_sign(B_SSE)) != good;
		t = tsc() - t;
		if (i >= WARM)
			sum += t;
	}
	asm volatile("cli");
	guest_wrmsr(X2APIC_LVT, LVT_MASKED | TIMER_VECTOR);
	return bad ? 0 : sum;
}

static double sign(struct vm *vm, u64 gate)
{
	/* The APIC's timer runs at 1 GHz. On Intel's lab an instruction takes 20 ns. */
	u64 sum = vcpu_call(&vm->vcpu[0], g_sign, gate, guest_is_intel ? TICK * 20ul : TICK);
	u64 struck = *vm_var(vm, ticks), inside = *vm_var(vm, ticks_inside);

	if (!vcpu_done(&vm->vcpu[0])) {
		vcpu_explain(&vm->vcpu[0]);
		tap_bail("signing");
	}
	/* As many ticks as there should be, and most of them found it at work. */
	if (!sum || struck + 2 < sum / TICK || struck > sum / TICK * 2 + 2 ||
	    (gate ? inside * 2 < struck : inside != 0))
		tap_bail("signing: %lu instructions, %lu ticks, %lu inside", sum, struck, inside);
	return (double)sum / SIGNATURES;
}

void bench_signing(void)
{
	struct vm *vm = vm_create(32 << 20, 1, VM_IRQCHIP);
	struct rdt *r = rdt_attach(vm->fd);

	allow_domains(r);
	make_domain(vm, B_DOM, RDT_DOM_VECTOR);
	put("sign_outside", sign(vm, 0));
	put("sign_inside", sign(vm, B_DOM));
	rdt_close(r);
	vm_destroy(vm);
}
