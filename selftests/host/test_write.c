// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of a write to a monitored page: by action, by instruction, by who
 * makes it (KVM's own writes: test_kvmwrite.c). Each instruction is tried on a plain page too, and must do the same
 * there as on a page under LOG.
 */
#include <string.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE			/* 4 pages */
#define DENY	(GUEST_FREE + 0x100000)
#define LOG	(GUEST_FREE + 0x200000)		/* 2 pages, plain ones around */
#define PLAIN	(GUEST_FREE + 0x300000)		/* as LOG, nothing is monitored */
#define FREEZE	(GUEST_FREE + 0x400000)
#define TABLE	(GUEST_FREE + 0x600000)		/* gpa of what TABLE_GVA shows */
#define TABLE_GVA 0x20000000ul

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;

#define gp 13

static uint64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	return vcpu_call(v, g_hc, nr, a, b, c);
}

static int64_t protect(uint64_t gpa, uint64_t pages, int action, int cls)
{
	return hc(RDT_HC_PROTECT, gpa, pages, RDT_ATTR(action, cls));
}

static uint64_t events(uint32_t type)
{
	return rdt_count(r, type);
}

/* ---- DENY -------------------------------------------------------------------- */

static void test_node_pages(void)
{
	is(vcpu_call(v, g_node_add, NODES, 4), 4, "A1 four node pages");
	is(rdt_info(r).node_pages, 4, "A1 the host counts them");
	is(rdt_info(r).frames, 4, "A2 each is restricted");
	is(protect(DENY, 3, RDT_ACT_DENY, RDT_CLS_SYSCALL), 0, "A1 protect");
	is(rdt_info(r).frames, 7, "A1 the host counts the frames");

	for (int i = 0; i < 4; i++) {
		uint64_t gpa = NODES + i * PAGE_SIZE + 8 * i;
		uint64_t before = vm_u64(vm, gpa);
		struct rdt_event ev;

		rdt_drain(r);
		is(vcpu_call(v, g_store, gpa, ~before), gp, "A2 a write to node page %d is denied", i);
		is(vm_u64(vm, gpa), before, "A2 and changes nothing");
		ok(rdt_next(r, &ev) && ev.type == RDT_EV_TREE_WRITE && ev.gpa == gpa &&
		   ev.cls == RDT_CLS_NODE && ev.action == RDT_ACT_DENY,
		   "A2 and is reported");
		ok(!rdt_next(r, &ev), "A2 once");
		is(vcpu_call(v, g_load, gpa), before, "A2 the guest can read it");
	}
}

static u64 u_store(u64 gva)
{
	return guest_try("movq $0x3333, (%0)", "r"(gva));
}

static u64 g_user_store(u64 gva)
{
	return guest_user_call(u_store, gva);
}

/* Eight bytes, the first four on the page before. */
static u64 g_store_across(u64 gva)
{
	return guest_try("movq %1, -4(%0)", "r"(gva), "r"(0x4444444444444444));
}

static u64 g_denied(u64 gva, u64 n)
{
	u64 bad = 0;

	for (u64 i = 0; i < n; i++) {
		bad += guest_try_store(gva + 8 * i, ~i) != gp;
		bad += this_cpu()->error != 0;
	}
	return bad;
}

static u64 g_rip_of_fault(void)
{
	return this_cpu()->rip;
}

static void test_deny(void)
{
	uint64_t seq = events(RDT_EV_WRITE), count = vcpu_call(v, g_gp_count);
	uint8_t *page = vm_host(vm, DENY);
	struct kvm_regs regs;
	struct rdt_event ev;

	memset(page, 0xa5, PAGE_SIZE);
	is(vcpu_call(v, g_denied, DENY, 100), 0, "A3 100 denied writes are 100 #GP(0)");
	is(vcpu_call(v, g_gp_count), count + 100, "A3 and no other #GP");
	is(events(RDT_EV_WRITE), seq + 100, "A3 and 100 events");
	int changed = 0;
	for (unsigned int i = 0; i < PAGE_SIZE; i++)
		changed += page[i] != 0xa5;
	is(changed, 0, "A3 nothing changed");

	rdt_drain(r);
	is(vcpu_call(v, g_store, DENY + 0x1ff8, 1), gp, "A3 the last bytes of the second page");
	vcpu_regs(v, &regs);
	ok(rdt_next(r, &ev), "A11 an event");
	is(ev.type, RDT_EV_WRITE, "A11 what: a write");
	is(ev.action, RDT_ACT_DENY, "A11 what: denied");
	is(ev.cls, RDT_CLS_SYSCALL, "A11 which: the class");
	is(ev.range_gpa, DENY, "A11 which: the range");
	is(ev.range_pages, 3, "A11 which: its length");
	is(ev.gpa, DENY + 0x1ff8, "A11 where: gpa");
	ok(!(ev.flags & RDT_EVF_GVA) || ev.gva == DENY + 0x1ff8, "A11 where: gva if known");
	is(ev.rip, vcpu_call(v, g_rip_of_fault), "A11 who: RIP");
	is(ev.cr3, GUEST_PML4, "A11 who: CR3");
	is(ev.cpl, 0, "A11 who: CPL");
	is(ev.vcpu, 0, "A11 who: vCPU");
	is(ev.vm_id, r->id, "A11 who: VM");
	is(ev.view, 0, "A11 who: view");
	ok(ev.flags & RDT_EVF_OLD && ev.old_val == 0, "A11 what: the old value");
	ok(!(ev.flags & (RDT_EVF_EMULATED | RDT_EVF_HOST | RDT_EVF_EVENT)), "A11 what: by itself");
	ok(ev.time_ns > 0, "A11 when");

	rdt_drain(r);
	is(vcpu_call(v, g_user_store, DENY), gp, "A3 from ring 3");
	ok(rdt_next(r, &ev) && ev.cpl == 3, "A11 CPL 3 is told");
	ok(ev.flags & RDT_EVF_OLD && ev.old_val == 0xa5a5a5a5a5a5a5a5, "A11 the old value");

	/* One instruction, two pages: all or nothing. */
	uint64_t before = vm_u64(vm, DENY - 8);

	is(vcpu_call(v, g_store_across, DENY), gp, "A3 a store across the border into it");
	is(vm_u64(vm, DENY - 8), before, "A3 writes nothing before the border either");
	is(vm_u64(vm, DENY), 0xa5a5a5a5a5a5a5a5, "A3 nor behind it");

	rdt_drain(r);
	is(vcpu_call(v, g_load, DENY + 8), 0xa5a5a5a5a5a5a5a5, "A3 reading is free");
	page[0x800] = 0xb8;			/* mov $7, %eax; ret */
	memcpy(page + 0x801, (uint8_t[]){ 7, 0, 0, 0, 0xc3 }, 5);
	is(vcpu_call(v, (void *)(DENY + 0x800)), 7, "A3 so is executing");
	ok(!rdt_next(r, &ev), "A3 and neither is an event");
	is(vcpu_call(v, g_store, DENY - PAGE_SIZE, 1), -1, "A3 the page before is free");
	is(vcpu_call(v, g_store, DENY + 3 * PAGE_SIZE, 1), -1, "A3 the page behind is free");
	ok(!rdt_next(r, &ev), "A3 and no event");
}

/* Another linear address of the same frame. */
static void test_alias(void)
{
	vm_map(vm, 0x30000000, DENY, PAGE_SIZE, PTE_W);
	is(vcpu_call(v, g_store, 0x30000010, 1), gp, "A3 an alias of the page is denied too");
}

static void test_freeze(void)
{
	struct kvm_regs before, regs;
	struct rdt_event ev;

	is(protect(FREEZE, 1, RDT_ACT_FREEZE, 5), 0, "A3 protect with FREEZE");
	rdt_drain(r);
	vcpu_call(v, g_store, FREEZE, 9);
	is(v->exit, KVM_EXIT_SYSTEM_EVENT, "A3 FREEZE stops the vCPU");
	is(v->run->system_event.type, KVM_SYSTEM_EVENT_CRASH, "A3 and tells the VMM");
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_WRITE && ev.action == RDT_ACT_FREEZE &&
	   ev.gpa == FREEZE && ev.cls == 5, "A3 and the operator");
	vcpu_regs(v, &before);
	is(before.rip, ev.rip, "A3 RIP is at the write");
	is(vm_u64(vm, FREEZE), 0, "A3 nothing is written");
	vcpu_resume(v);
	vcpu_regs(v, &regs);
	ok(v->exit == KVM_EXIT_SYSTEM_EVENT && regs.rip == before.rip, "A3 a vCPU that is let go freezes again");
	is(vm_u64(vm, FREEZE), 0, "A3 and still nothing is written");
}

/* ---- LOG --------------------------------------------------------------------- */

/*
 * Each form writes at RDI, with RAX..RDX set. The page starts out as a pattern.
 * Its results in registers and flags count too.
 */
#define FORM(name, insns)						\
	static u64 form_##name(u64 at)					\
	{								\
		u64 out, a = 0x1122334455667788, b = 0x99aabbccddeeff00, c = 5, d = 0x0f1e2d3c4b5a6978; \
									\
		asm volatile("pxor %%xmm1, %%xmm1\n\tmovq %[x], %%xmm0\n\tmovlhps %%xmm0, %%xmm0\n\t" \
			     "cld; cmp $1, %%edi\n\t" insns "\n\t"	\
			     "pushfq\n\tpopq %[out]\n\txorq %%rax, %[out]\n\taddq %%rdx, %[out]\n\t" \
			     "addq %%rcx, %[out]"			\
			     : [out] "=&r"(out), "+a"(a), "+b"(b), "+c"(c), "+d"(d), "+D"(at) \
			     : [x] "r"(0x0123456789abcdef) : "memory", "cc", "rsi", "xmm0", "xmm1"); \
		return out;						\
	}

/* For those that leave the other flags undefined. */
#define CARRY "; setc %%al; testb %%al, %%al"

FORM(movb, "movb %%al, (%%rdi)")
FORM(movw, "movw %%ax, (%%rdi)")
FORM(movl, "movl %%eax, (%%rdi)")
FORM(movq, "movq %%rax, (%%rdi)")
FORM(movb_imm, "movb $0x5a, (%%rdi)")
FORM(movq_imm, "movq $-3, (%%rdi)")
FORM(movnti, "movnti %%rax, (%%rdi)")
FORM(bswap, "bswap %%rax; movq %%rax, (%%rdi)")
FORM(addl, "addl %%eax, (%%rdi)")
FORM(sbbq, "stc; sbbq %%rax, (%%rdi)")
FORM(orb, "orb $0x81, (%%rdi)")
FORM(incq, "incq (%%rdi)")
FORM(notl, "notl (%%rdi)")
FORM(shlq, "shlq $3, (%%rdi)" CARRY)
FORM(rcrl, "stc; rcrl $1, (%%rdi)")
FORM(shld, "shldq %%cl, %%rax, (%%rdi)" CARRY)
FORM(lock_incl, "lock incl (%%rdi)")
FORM(lock_addq, "lock addq %%rax, (%%rdi)")
FORM(lock_btsl, "lock btsl $7, (%%rdi)" CARRY)
FORM(btcq, "btcq %%rcx, (%%rdi)" CARRY)
FORM(setc, "stc; setc (%%rdi)")
FORM(xchgq, "xchgq %%rax, (%%rdi)")
FORM(xchgb, "xchgb %%al, (%%rdi)")
FORM(xaddl, "lock xaddl %%eax, (%%rdi)")
FORM(cmpxchg_no, "lock cmpxchgq %%rdx, (%%rdi)")
FORM(cmpxchg_yes, "movq (%%rdi), %%rax; lock cmpxchgq %%rdx, (%%rdi)")
FORM(cmpxchg8b, "movl (%%rdi), %%eax; movl 4(%%rdi), %%edx; lock cmpxchg8b (%%rdi)")
FORM(cmpxchg16b, "movq (%%rdi), %%rax; movq 8(%%rdi), %%rdx; lock cmpxchg16b (%%rdi)")
FORM(cmpxchg16b_no, "lock cmpxchg16b (%%rdi)")
FORM(movups, "movups %%xmm0, (%%rdi)")
FORM(movaps, "movaps %%xmm0, (%%rdi)")
FORM(movlps, "movlps %%xmm0, (%%rdi)")
FORM(movd, "movd %%xmm0, (%%rdi)")
FORM(movntdq, "movntdq %%xmm0, (%%rdi)")
FORM(movntps, "movntps %%xmm0, (%%rdi)")
FORM(maskmovdqu, "maskmovdqu %%xmm0, %%xmm0")
FORM(fistp, "fninit; fldpi; fistpll (%%rdi)")
FORM(fstpt, "fninit; fldpi; fstpt (%%rdi)")
FORM(fnstcw, "fninit; fnstcw (%%rdi)")
FORM(stmxcsr, "stmxcsr (%%rdi)")
FORM(fxsave, "fninit; fxsave64 (%%rdi)")
FORM(sgdt, "sgdt (%%rdi)")
FORM(sidt, "sidt (%%rdi)")
FORM(str, "str %%eax; movw %%ax, (%%rdi)")
FORM(smsw, "smsw (%%rdi)")
FORM(mov_sreg, "movw %%ss, (%%rdi)")
FORM(push, "movq %%rsp, %%rsi; leaq 8(%%rdi), %%rsp; pushq %%rax; movq %%rsi, %%rsp")
FORM(pushfq, "movq %%rsp, %%rsi; leaq 8(%%rdi), %%rsp; pushfq; movq %%rsi, %%rsp")
FORM(push_mem, "movq %%rsp, %%rsi; leaq 8(%%rdi), %%rsp; pushq 64(%%rdi); movq %%rsi, %%rsp")
FORM(pop_mem, "pushq %%rax; popq (%%rdi)")
FORM(call, "movq %%rsp, %%rsi; leaq 8(%%rdi), %%rsp; callq 1f; 1: movq %%rsi, %%rsp")
FORM(stosq, "stosq")
FORM(rep_stosb, "movl $40, %%ecx; rep stosb")
FORM(rep_stosq, "movl $17, %%ecx; rep stosq")
FORM(std_stosb, "movl $8, %%ecx; std; addq $7, %%rdi; rep stosb; cld")
FORM(movsq, "leaq 256(%%rdi), %%rsi; movsq; xorl %%esi, %%esi")
FORM(rep_movsb, "leaq 256(%%rdi), %%rsi; movl $100, %%ecx; rep movsb; xorl %%esi, %%esi")
FORM(enter, "movq %%rbp, %%rsi; movq %%rsp, %%rbp; leaq 8(%%rdi), %%rsp; pushq $77; movq %%rbp, %%rsp; movq %%rsi, %%rbp")

/* VEX; run only where the guest has AVX. */
FORM(vmovups, "vpxor %%xmm1, %%xmm1, %%xmm1; vmovups %%ymm1, (%%rdi); vzeroupper")
FORM(vmovdqa, "vmovd %%eax, %%xmm0; vpinsrd $1, %%edx, %%xmm0, %%xmm0; vmovdqa %%ymm0, (%%rdi); vzeroupper")

struct form {
	const char *name;
	u64 (*fn)(u64);
	bool avx;
	bool many;	/* more than one store */
	bool aligned;	/* not across a border */
	bool lock;
};

#define F(form, ...) { .name = #form, .fn = form_##form, ##__VA_ARGS__ }
static const struct form forms[] = {
	F(movb), F(movw), F(movl), F(movq), F(movb_imm), F(movq_imm), F(movnti), F(bswap),
	F(addl), F(sbbq), F(orb), F(incq), F(notl), F(shlq), F(rcrl), F(shld),
	/* Locked across a border: #AC on many a host. */
	F(lock_incl, .aligned = true), F(lock_addq, .aligned = true), F(lock_btsl, .aligned = true),
	F(btcq), F(setc), F(xchgq, .aligned = true), F(xchgb), F(xaddl, .aligned = true),
	F(cmpxchg_no, .aligned = true), F(cmpxchg_yes, .aligned = true), F(cmpxchg8b, .aligned = true),
	F(cmpxchg16b, .aligned = true), F(cmpxchg16b_no, .aligned = true),
	F(movups), F(movaps, .aligned = true), F(movlps), F(movd),
	F(movntdq, .aligned = true), F(movntps, .aligned = true), F(maskmovdqu, .many = true),
	F(fistp), F(fstpt, .many = true), F(fnstcw), F(stmxcsr),
	F(fxsave, .many = true, .aligned = true),
	F(sgdt, .many = true), F(sidt, .many = true), F(str), F(smsw), F(mov_sreg),
	F(push), F(pushfq), F(push_mem), F(pop_mem), F(call), F(enter),
	F(stosq), F(rep_stosb, .many = true), F(rep_stosq, .many = true),
	F(std_stosb, .many = true), F(movsq), F(rep_movsb, .many = true),
	F(vmovups, .avx = true), F(vmovdqa, .avx = true, .aligned = true),
};

static bool has_avx(void)
{
	return __builtin_cpu_supports("avx2");
}

static void pattern(uint64_t gpa)
{
	uint8_t *p = vm_host(vm, gpa);

	for (unsigned int i = 0; i < 4 * PAGE_SIZE; i++)
		p[i] = i * 7 + 3;
}

/* The same on both; what it left in memory, registers and flags is compared. */
static void try_form(const struct form *f, uint64_t offset)
{
	uint64_t count, want, got;
	char name[80];
	struct rdt_event ev;

	pattern(PLAIN);
	pattern(LOG - PAGE_SIZE);
	want = vcpu_call(v, f->fn, PLAIN + PAGE_SIZE + offset);
	snprintf(name, sizeof(name), "A10 LOG %s at %#lx", f->name, offset);
	if (!vcpu_done(v)) {
		tap_bail("%s does not even run unmonitored", name);
	}
	rdt_drain(r);
	count = events(RDT_EV_WRITE);
	got = vcpu_call(v, f->fn, LOG + offset);
	if (!vcpu_must_end(v, name))
		return;
	is(got, want, "%s: registers and flags", name);
	ok(!memcmp(vm_host(vm, LOG - PAGE_SIZE), vm_host(vm, PLAIN), 4 * PAGE_SIZE),
	   "%s: memory", name);
	count = events(RDT_EV_WRITE) - count;
	if (f->many || offset == PAGE_SIZE - 2)
		ok(count >= 1, "%s: reported", name);
	else
		is(count, 1, "%s: reported once", name);
	if (rdt_next(r, &ev))
		ok(ev.action == RDT_ACT_LOG && ev.gpa >= LOG && ev.gpa < LOG + 2 * PAGE_SIZE &&
		   !(ev.flags & RDT_EVF_EMULATED) && ev.vcpu == 0 &&
		   (!(ev.flags & RDT_EVF_NEW) ||
		    !memcmp(&ev.new_val, vm_host(vm, ev.gpa),
			    f->many ? 1 : ev.flags & RDT_EVF_SIZE && ev.size < 8 ? ev.size : 1)),
		   "%s: the event", name);
}

static void test_log(void)
{
	is(protect(LOG, 2, RDT_ACT_LOG, RDT_CLS_OTHER), 0, "A10 protect with LOG");
	for (unsigned int i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (forms[i].avx && !has_avx()) {
			tap_skip("A10 LOG %s: no AVX", forms[i].name);
			continue;
		}
		try_form(&forms[i], 0x40);
		if (!forms[i].aligned && !forms[i].avx) {
			/* Both pages are monitored; and from the last one to a free one. */
			try_form(&forms[i], PAGE_SIZE - 2);
			try_form(&forms[i], 2 * PAGE_SIZE - 1);
		}
	}
}

static u64 g_count_up(u64 gva, u64 n)
{
	for (u64 i = 0; i < n; i++)
		asm volatile("lock incq (%0)" : : "r"(gva) : "memory", "cc");
	return guest_load(gva);
}

static void test_log_exactly_once(void)
{
	uint64_t count = events(RDT_EV_WRITE);

	memset(vm_host(vm, LOG), 0, PAGE_SIZE);
	is(vcpu_call(v, g_count_up, LOG + 0x100, 1000), 1000, "A10 LOG 1000 increments are 1000");
	is(events(RDT_EV_WRITE), count + 1000, "A10 LOG and 1000 events");
}

/* ---- page tables as monitored frames ------------------------------------------ */

static u64 g_touch(u64 gva, u64 pte)
{
	u64 sum;

	*(volatile u64 *)pte &= ~(PTE_A | PTE_D);
	guest_flush_tlb();
	sum = guest_load(gva);
	guest_store(gva, sum + 1);
	return guest_load(gva);
}

/* As above, but the bits were cleared by the host: the guest may not write there. */
static u64 g_touch_only(u64 gva)
{
	guest_flush_tlb();
	guest_store(gva, guest_load(gva) + 1);
	return guest_load(gva);
}

static void test_page_tables(void)
{
	uint64_t pte, count;

	vm_map(vm, TABLE_GVA, TABLE, PAGE_SIZE, PTE_W);
	pte = vm_pte(vm, TABLE_GVA);
	vcpu_call(v, g_touch_only, TABLE_GVA);
	for (int action = RDT_ACT_LOG; action <= RDT_ACT_DENY; action++) {
		const char *name = action == RDT_ACT_LOG ? "LOG" : "DENY";

		*(uint64_t *)vm_host(vm, TABLE) = 10;
		is(protect(pte & -PAGE_SIZE, 1, action, RDT_CLS_PGTABLE), 0,
		   "A10 a page table under %s", name);
		count = events(RDT_EV_WRITE);
		if (action == RDT_ACT_LOG) {
			is(vcpu_call(v, g_touch, TABLE_GVA, pte), 11, "A10 %s: the guest uses it", name);
			is(events(RDT_EV_WRITE), count + 1, "A10 %s: its write is an event", name);
		} else {
			*(uint64_t *)vm_host(vm, pte) &= ~(PTE_A | PTE_D);
			is(vcpu_call(v, g_touch_only, TABLE_GVA), 11, "A10 %s: the guest uses it", name);
			is(events(RDT_EV_WRITE), count, "A10 %s: a page walk is no event", name);
			is(vcpu_call(v, g_store, pte, 0), gp, "A10 %s: a write is denied", name);
		}
		vcpu_must_end(v, name);
		ok((vm_u64(vm, pte) & (PTE_A | PTE_D)) == (PTE_A | PTE_D),
		   "A10 %s: accessed and dirty are set", name);
	}
}

/* ---- changing protection ------------------------------------------------------- */

static void test_weaken(void)
{
	struct rdt_event ev;

	rdt_drain(r);
	is((int64_t)hc(RDT_HC_UNPROTECT, DENY, 1, 0), -EPERM, "A5 unprotect from outside is refused");
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_UNPROTECT && ev.gpa == DENY, "A5 and an alert");
	is(protect(DENY, 1, RDT_ACT_LOG, 0), -EPERM, "A5 a weaker action is refused");
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_PROTECT_REFUSED, "A5 and an alert");
	is(vcpu_call(v, g_store, DENY, 1), gp, "A5 it is still denied");
	is(protect(DENY - PAGE_SIZE, 5, RDT_ACT_LOG, 0), -EPERM, "A5 nor as a part of a larger range");
	is(vcpu_call(v, g_store, DENY - PAGE_SIZE, 1), -1, "A5 of which nothing is protected then");
	is(protect(NODES, 1, RDT_ACT_LOG, 0), -EPERM, "A5 nor a node page");
	is(vcpu_call(v, g_store, NODES, 1), gp, "A5 which is still denied");
	is(hc(RDT_HC_QUERY, DENY, 0, 0), RDT_ATTR(RDT_ACT_DENY, RDT_CLS_SYSCALL), "A5 query says so");
	is(protect(DENY, 3, RDT_ACT_DENY, RDT_CLS_SYSCALL), 0, "A5 the same again is fine");
	is(protect(DENY + PAGE_SIZE, 1, RDT_ACT_FREEZE, RDT_CLS_SYSCALL), 0, "A5 a stronger action is fine");
	vcpu_call(v, g_store, DENY + PAGE_SIZE, 1);
	is(v->exit, KVM_EXIT_SYSTEM_EVENT, "A5 and acts");
	is(vcpu_call(v, g_store, DENY, 1), gp, "A5 the part in front is as before");
	is(vcpu_call(v, g_store, DENY + 2 * PAGE_SIZE, 1), gp, "A5 the part behind too");
}

static void test_operator(void)
{
	uint64_t at = PLAIN;

	is(rdt_protect(r, at, 4, RDT_ACT_DENY, 7), 0, "A3 the operator protects");
	is(vcpu_call(v, g_store, at + PAGE_SIZE, 1), gp, "A3 and it is denied");
	is(rdt_protect(r, at + PAGE_SIZE, 1, RDT_ACT_LOG, 7), 0, "A3 the operator may weaken");
	is(vcpu_call(v, g_store, at + PAGE_SIZE, 0x99), -1, "A3 and it is logged");
	is(vm_u64(vm, at + PAGE_SIZE), 0x99, "A3 and written");
	is(protect(at, 1, RDT_ACT_FREEZE, 7), -EPERM, "A5 a guest does not change the operator's");
	is(rdt_protect(r, at, 4, RDT_ACT_NONE, 0), 0, "A3 the operator unprotects");
	is(vcpu_call(v, g_store, at, 5), -1, "A3 and it is free");
	is(rdt_protect(r, at, 4, RDT_ACT_NONE, 0), -ENOENT, "A3 unprotect twice");
	is(rdt_protect(r, NODES, 1, RDT_ACT_NONE, 0), -EPERM, "A2 not a node page");
	is(vcpu_call(v, g_store, NODES, 1), gp, "A2 which is still denied");
}

int main(void)
{
	vm = vm_create(RAM, 1, 0);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	test_node_pages();
	test_deny();
	test_alias();
	test_freeze();
	test_log();
	test_log_exactly_once();
	test_page_tables();
	test_weaken();
	test_operator();
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
