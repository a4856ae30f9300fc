// SPDX-License-Identifier: GPL-2.0
/*
 * A10: each instruction that writes memory, on protected pages.
 *
 * Each case runs on a plain buffer and on one whose inner pages are protected, from
 * the same start. Under LOG both must end alike: memory, registers, flags. Adding,
 * exchanging and shifting instructions would show a write that happened twice.
 * Under DENY the instruction must fault and memory be as before.
 */
#include <linux/mm.h>
#include <linux/random.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/cpufeature.h>
#include <asm/fpu/api.h>
#include "redoubt_driver.h"
#include "tests.h"

/* Plain, protected, protected, plain. */
#define PAGES		4
#define SIZE		(PAGES * PAGE_SIZE)
#define P1		PAGE_SIZE	/* first protected byte */
#define P2		(2 * PAGE_SIZE)
#define P3		(3 * PAGE_SIZE)	/* first plain byte behind */

struct regs {
	u64 ax, bx, cx, dx, si, di, flags;
	int err;
};

/*
 * Runs one instruction with @r's registers, RDI an address. Extra code around it sets up
 * what it needs; RSP is kept in R8. A fault ends it with r->err.
 */
#define FIXUP	_ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %[err])
#define INSN(name, before, insn, after)	INSN_(name, before, insn, after, FIXUP)
#define INSN_(name, before, insn, after, fixup)						\
static void do_##name(struct regs *r)							\
{											\
	u64 ax = r->ax, bx = r->bx, cx = r->cx, dx = r->dx, si = r->si, di = r->di, fl;	\
	int err = 0;									\
											\
	asm volatile("stc\n" before "\n1: " insn "\n2: " after "\n"			\
		     "pushfq; popq %[fl]\n"						\
		     fixup								\
		     : "+a" (ax), "+b" (bx), "+c" (cx), "+d" (dx), "+S" (si), "+D" (di), \
		       [fl] "=r" (fl), [err] "+r" (err)					\
		     : : "r8", "memory", "cc");						\
	*r = (struct regs){ ax, bx, cx, dx, si, di, fl, err };				\
}

INSN(mov8, "", "movb %%al, (%%rdi)", "")
INSN(mov16, "", "movw %%ax, (%%rdi)", "")
INSN(mov32, "", "movl %%eax, (%%rdi)", "")
INSN(mov64, "", "movq %%rax, (%%rdi)", "")
INSN(movimm, "", "movl $0x12345678, 4(%%rdi)", "")
INSN(movah, "", "movb %%ah, 1(%%rdi)", "")
INSN(movnti, "", "movnti %%rax, (%%rdi)", "")
INSN(movbe, "", "movbe %%rax, (%%rdi)", "")
INSN(setc, "", "setc (%%rdi)", "")
INSN(add, "", "addq %%rax, (%%rdi)", "")
INSN(adc, "", "adcl %%eax, (%%rdi)", "")
INSN(sbb, "", "sbbw %%ax, (%%rdi)", "")
INSN(lock_sub, "", "lock; subq %%rax, (%%rdi)", "")
INSN(lock_inc, "", "lock; incl (%%rdi)", "")
INSN(dec, "", "decb (%%rdi)", "")
INSN(neg, "", "negq (%%rdi)", "")
INSN(lock_not, "", "lock; notq (%%rdi)", "")
INSN(xorimm, "", "xorb $0x5a, (%%rdi)", "")
INSN(lock_or, "", "lock; orq %%rax, (%%rdi)", "")
INSN(rol, "", "rolq $1, (%%rdi)", "")
INSN(shrcl, "movb $3, %%cl", "shrl %%cl, (%%rdi)", "")
INSN(shld, "", "shldq $4, %%rax, (%%rdi)", "")
INSN(bts, "", "btsq $5, (%%rdi)", "")
INSN(lock_btr, "", "lock; btrl $3, (%%rdi)", "")
INSN(btc, "andl $63, %%edx", "btcq %%rdx, (%%rdi)", "")
INSN(xchg8, "", "xchgb %%al, (%%rdi)", "")
INSN(xchg64, "", "xchgq %%rax, (%%rdi)", "")
INSN(xadd, "", "lock; xaddq %%rax, (%%rdi)", "")
INSN(cmpxchg_hit, "movq (%%rdi), %%rax; stc", "lock; cmpxchgq %%rdx, (%%rdi)", "")
INSN(cmpxchg_miss, "movq (%%rdi), %%rax; notq %%rax; stc", "lock; cmpxchgq %%rdx, (%%rdi)", "")
INSN(cmpxchg8b, "movl (%%rdi), %%eax; movl 4(%%rdi), %%edx", "lock; cmpxchg8b (%%rdi)", "")
INSN(cmpxchg16b_hit, "movq (%%rdi), %%rax; movq 8(%%rdi), %%rdx", "lock; cmpxchg16b (%%rdi)", "")
INSN(cmpxchg16b_miss, "", "lock; cmpxchg16b (%%rdi)", "")
INSN(stosq, "", "stosq", "")
INSN(movsb, "", "movsb", "")
INSN(rep_movsb, "", "rep; movsb", "")
INSN(rep_movsq, "", "rep; movsq", "")
INSN(rep_movsq_down, "std", "rep; movsq", "cld")
INSN(rep_stosb, "", "rep; stosb", "")
INSN(rep_stosq, "", "rep; stosq", "")
INSN(sgdt, "", "sgdt (%%rdi)", "movw $0, (%%rdi); movq $0, 2(%%rdi)")
INSN(str, "", "str (%%rdi)", "")
INSN(smsw, "", "smsw (%%rdi)", "")
INSN(stmxcsr, "", "stmxcsr (%%rdi)", "")
INSN(fnstcw, "", "fnstcw (%%rdi)", "")
INSN(fxsave, "", "fxsaveq (%%rdi)", "")
INSN(movaps, "movq %%rax, %%xmm1; punpcklqdq %%xmm1, %%xmm1", "movaps %%xmm1, (%%rdi)", "")
INSN(movups, "movq %%rax, %%xmm2; punpcklqdq %%xmm2, %%xmm2", "movups %%xmm2, (%%rdi)", "")
INSN(movdqu, "movq %%rdx, %%xmm9; punpcklqdq %%xmm9, %%xmm9", "movdqu %%xmm9, (%%rdi)", "")
INSN(movntdq, "movq %%rax, %%xmm3; punpcklqdq %%xmm3, %%xmm3", "movntdq %%xmm3, (%%rdi)", "")
INSN(movhps, "movq %%rax, %%xmm4; punpcklqdq %%xmm4, %%xmm4", "movhps %%xmm4, (%%rdi)", "")
INSN(movss, "movq %%rax, %%xmm5", "movss %%xmm5, (%%rdi)", "")
INSN(pextrq, "movq %%rax, %%xmm6", "pextrq $0, %%xmm6, (%%rdi)", "")
INSN(maskmovdqu, "movq %%rax, %%xmm0; punpcklqdq %%xmm0, %%xmm0; movq %%rdx, %%xmm7; "
     "punpcklqdq %%xmm7, %%xmm7", "maskmovdqu %%xmm7, %%xmm0", "")
INSN(vmovdqu, "vmovq %%rax, %%xmm8; vinsertf128 $1, %%xmm8, %%ymm8, %%ymm8",
     "vmovups %%ymm8, (%%rdi)", "vzeroupper")
INSN(vmaskmovps, "vmovq %%rax, %%xmm8; vmovq %%rdx, %%xmm10; vinsertf128 $1, %%xmm10, %%ymm10, %%ymm10",
     "vmaskmovps %%ymm8, %%ymm10, (%%rdi)", "vzeroupper")

/* With the stack on the protected page; interrupts are off, and a fault would be fatal. */
#define ON_STACK	"xchgq %%rsp, %%rdi"
INSN_(push, ON_STACK, "pushq %%rax", "addq $8, %%rsp; xchgq %%rsp, %%rdi", "")
INSN_(pushf, ON_STACK, "pushfq", "addq $8, %%rsp; xchgq %%rsp, %%rdi", "")
INSN_(popmem, "", "pushq %%rax; popq (%%rdi)", "", "")

#define F_FPU	(1u << 0)	/* vector registers */
#define F_AVX	(1u << 1)
#define F_MOVBE	(1u << 2)
#define F_CX16	(1u << 3)
#define F_STACK	(1u << 4)	/* not under DENY */
#define F_READS	(1u << 5)	/* under LOG alike, but writes nothing that shows */
#define F_SSE41	(1u << 6)

#define FL_ARITH	0x8c5	/* CF PF ZF SF OF; AF is undefined after many */
#define FL_NONE		0

static const struct insn_case {
	const char *name;
	void (*run)(struct regs *r);
	unsigned int flags, fl;
	unsigned int at;	/* offset of the address */
	u64 cx;
} cases[] = {
	{ "mov r8", do_mov8, 0, FL_ARITH, P1 + 3 },
	{ "mov r16", do_mov16, 0, FL_ARITH, P1 + 16 },
	{ "mov r32", do_mov32, 0, FL_ARITH, P1 + 32 },
	{ "mov r64", do_mov64, 0, FL_ARITH, P1 },
	{ "mov r64, unaligned", do_mov64, 0, FL_ARITH, P1 + 61 },
	{ "mov r64, last of the page", do_mov64, 0, FL_ARITH, P1 + 4088 },
	{ "mov r64 over the border of two protected pages", do_mov64, 0, FL_ARITH, P2 - 3 },
	{ "mov r64 from plain into protected", do_mov64, 0, FL_ARITH, P1 - 5 },
	{ "mov r64 from protected into plain", do_mov64, 0, FL_ARITH, P3 - 1 },
	{ "mov imm32", do_movimm, 0, FL_ARITH, P1 + 100 },
	{ "mov ah", do_movah, 0, FL_ARITH, P2 + 7 },
	{ "movnti", do_movnti, 0, FL_ARITH, P1 + 128 },
	{ "movbe", do_movbe, F_MOVBE, FL_ARITH, P1 + 72 },
	{ "setc", do_setc, 0, FL_ARITH, P1 + 9 },
	{ "add", do_add, 0, FL_ARITH, P1 + 8 },
	{ "add over a border", do_add, 0, FL_ARITH, P2 - 4 },
	{ "adc", do_adc, 0, FL_ARITH, P1 + 12 },
	{ "sbb", do_sbb, 0, FL_ARITH, P1 + 14 },
	{ "lock sub", do_lock_sub, 0, FL_ARITH, P1 + 24 },
	{ "lock inc", do_lock_inc, 0, FL_ARITH, P1 + 40 },
	{ "dec", do_dec, 0, FL_ARITH, P1 + 41 },
	{ "neg", do_neg, 0, FL_ARITH, P1 + 48 },
	{ "lock not", do_lock_not, 0, FL_ARITH, P1 + 56 },
	{ "xor imm8", do_xorimm, 0, FL_ARITH, P1 + 57 },
	{ "lock or", do_lock_or, 0, FL_ARITH, P1 + 64 },
	{ "rol 1", do_rol, 0, FL_ARITH, P1 + 72 },
	{ "shr cl", do_shrcl, 0, 0xc4, P1 + 80 },
	{ "shld", do_shld, 0, 0xc4, P1 + 88 },
	{ "bts imm", do_bts, 0, 1, P1 + 96 },
	{ "lock btr imm", do_lock_btr, 0, 1, P1 + 104 },
	{ "btc reg", do_btc, 0, 1, P1 + 112 },
	{ "xchg r8", do_xchg8, 0, FL_ARITH, P1 + 121 },
	{ "xchg r64", do_xchg64, 0, FL_ARITH, P1 + 128 },
	{ "xchg r64, unaligned", do_xchg64, 0, FL_ARITH, P1 + 131 },
	{ "xchg r64 over a border", do_xchg64, 0, FL_ARITH, P2 - 2 },
	{ "lock xadd", do_xadd, 0, FL_ARITH, P1 + 136 },
	{ "lock xadd, unaligned", do_xadd, 0, FL_ARITH, P1 + 139 },
	{ "lock xadd over a border", do_xadd, 0, FL_ARITH, P2 - 3 },
	{ "lock inc from plain into protected", do_lock_inc, 0, FL_ARITH, P1 - 1 },
	{ "lock cmpxchg, equal", do_cmpxchg_hit, 0, FL_ARITH, P1 + 144 },
	{ "lock cmpxchg, not equal", do_cmpxchg_miss, 0, FL_ARITH, P1 + 152 },
	{ "lock cmpxchg8b, equal", do_cmpxchg8b, 0, 0x40, P1 + 160 },
	{ "lock cmpxchg16b, equal", do_cmpxchg16b_hit, F_CX16, 0x40, P1 + 176 },
	{ "lock cmpxchg16b, not equal", do_cmpxchg16b_miss, F_CX16, 0x40, P1 + 192 },
	{ "stosq", do_stosq, 0, FL_ARITH, P1 + 200 },
	{ "movsb", do_movsb, 0, FL_ARITH, P1 + 201 },
	{ "rep movsb from plain through both into plain", do_rep_movsb, 0, FL_ARITH, P1 - 100, 8500 },
	{ "rep movsb over the border", do_rep_movsb, 0, FL_ARITH, P2 - 700, 1111 },
	{ "rep movsq over the border, unaligned", do_rep_movsq, 0, FL_ARITH, P2 - 83, 20 },
	{ "rep movsq downwards over the border", do_rep_movsq_down, 0, FL_ARITH, P2 + 80, 20 },
	{ "rep stosb", do_rep_stosb, 0, FL_ARITH, P1 + 17, 700 },
	{ "rep stosq over the border", do_rep_stosq, 0, FL_ARITH, P2 - 56, 17 },
	{ "rep stosb, 0 times", do_rep_stosb, F_READS, FL_ARITH, P1, 0 },
	{ "sgdt", do_sgdt, F_READS, FL_ARITH, P1 + 240 },
	{ "str", do_str, F_READS, FL_ARITH, P1 + 250 },
	{ "smsw", do_smsw, F_READS, FL_ARITH, P1 + 254 },
	{ "stmxcsr", do_stmxcsr, F_FPU, FL_ARITH, P1 + 256 },
	{ "fnstcw", do_fnstcw, F_FPU, FL_ARITH, P1 + 260 },
	{ "fxsave", do_fxsave, F_FPU, FL_ARITH, P1 + 1024 },
	{ "movaps", do_movaps, F_FPU, FL_ARITH, P1 + 272 },
	{ "movups, unaligned", do_movups, F_FPU, FL_ARITH, P1 + 291 },
	{ "movdqu over the border", do_movdqu, F_FPU, FL_ARITH, P2 - 9 },
	{ "movdqu from plain into protected", do_movdqu, F_FPU, FL_ARITH, P1 - 1 },
	{ "movdqu from protected into plain", do_movdqu, F_FPU, FL_ARITH, P3 - 15 },
	{ "movntdq", do_movntdq, F_FPU, FL_ARITH, P1 + 304 },
	{ "movhps", do_movhps, F_FPU, FL_ARITH, P1 + 320 },
	{ "movss", do_movss, F_FPU, FL_ARITH, P1 + 328 },
	{ "pextrq", do_pextrq, F_FPU | F_SSE41, FL_ARITH, P1 + 336 },
	{ "maskmovdqu", do_maskmovdqu, F_FPU, FL_ARITH, P1 + 344 },
	{ "vmovups ymm", do_vmovdqu, F_FPU | F_AVX, FL_ARITH, P1 + 384 },
	{ "vmovups ymm over the border", do_vmovdqu, F_FPU | F_AVX, FL_ARITH, P2 - 7 },
	{ "vmaskmovps ymm", do_vmaskmovps, F_FPU | F_AVX, FL_ARITH, P1 + 416 },
	{ "push", do_push, F_STACK, FL_NONE, P1 + 512 },
	{ "push over the border", do_push, F_STACK, FL_NONE, P2 + 4 },
	{ "pushf", do_pushf, F_STACK, FL_NONE, P1 + 520 },
	{ "pop to memory", do_popmem, F_STACK, FL_ARITH, P1 + 528 },
};

static bool can(const struct insn_case *c)
{
	return (!(c->flags & F_AVX) || boot_cpu_has(X86_FEATURE_AVX)) &&
	       (!(c->flags & F_MOVBE) || boot_cpu_has(X86_FEATURE_MOVBE)) &&
	       (!(c->flags & F_CX16) || boot_cpu_has(X86_FEATURE_CX16)) &&
	       (!(c->flags & F_SSE41) || boot_cpu_has(X86_FEATURE_XMM4_1));
}

/* Runs a case on @buf; registers that hold addresses come back relative to it. */
static struct regs run(const struct insn_case *c, u8 *buf, const u8 *src, u64 seed)
{
	struct regs r = {
		.ax = seed * 0x9e3779b97f4a7c15ull, .bx = seed ^ 0x0123456789abcdefull,
		.cx = c->cx, .dx = ~seed * 0xc2b2ae3d27d4eb4full,
		.si = (u64)src + 512, .di = (u64)buf + c->at,
	};
	unsigned long irq = 0;

	if (c->flags & F_FPU)
		kernel_fpu_begin();
	if (c->flags & F_STACK)
		local_irq_save(irq);
	c->run(&r);
	if (c->flags & F_STACK)
		local_irq_restore(irq);
	if (c->flags & F_FPU)
		kernel_fpu_end();
	r.di -= (u64)buf;
	r.si -= (u64)src;
	r.flags &= c->fl;
	return r;
}

struct buffers {
	u8 *plain, *guarded, *start, *src;
};

static void free_buffers(struct buffers *b)
{
	vfree(b->plain);
	vfree(b->guarded);
	vfree(b->start);
	vfree(b->src);
}

static bool make_buffers(struct seq_file *m, struct buffers *b)
{
	b->plain = vmalloc(SIZE);
	b->guarded = vmalloc(SIZE);
	b->start = vmalloc(SIZE);
	b->src = vmalloc(SIZE);
	if (b->plain && b->guarded && b->start && b->src) {
		get_random_bytes(b->start, SIZE);
		get_random_bytes(b->src, SIZE);
		memcpy(b->guarded, b->start, SIZE);
		return true;
	}
	report(m, false, "no memory");
	free_buffers(b);
	return false;
}

/* The first byte from @i on that differs; SIZE: none. */
static unsigned int difference(const u8 *a, const u8 *b, unsigned int i)
{
	for (; i < SIZE && a[i] == b[i]; i++)
		;
	return i;
}

void test_log(struct seq_file *m)
{
	unsigned int i, round, at, bad;
	struct buffers b;

	if (!make_buffers(m, &b))
		return;
	/* Each page apart: their frames need not be neighbours. */
	if (guard_pages(m, b.guarded + P1, 2, RDT_ACT_LOG)) {
		free_buffers(&b);
		return;
	}
	memcpy(b.plain, b.guarded, SIZE);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct insn_case *c = &cases[i];
		struct regs want = {}, got = {};

		if (!can(c)) {
			report(m, true, "LOG: %s # SKIP this CPU has none", c->name);
			continue;
		}
		pr_debug("LOG: %s\n", c->name);
		/* The content goes on from case to case, so a late write shows later. */
		for (bad = round = 0; round < 5 && !bad; round++) {
			want = run(c, b.plain, b.src, i * 16 + round + 1);
			got = run(c, b.guarded, b.src, i * 16 + round + 1);
			at = difference(b.plain, b.guarded, 0);
			bad = at < SIZE || memcmp(&want, &got, sizeof(got));
		}
		if (!bad) {
			report(m, true, "LOG: %s", c->name);
			continue;
		}
		report(m, false, "LOG: %s: differs at %#x (%#x is written), ax %llx/%llx cx %llx/%llx dx %llx/%llx si %llx/%llx di %llx/%llx flags %llx/%llx err %d",
		       c->name, at, c->at, want.ax, got.ax, want.cx, got.cx, want.dx, got.dx,
		       want.si, got.si, want.di, got.di, want.flags, got.flags, got.err);
		if (at < SIZE) {
			memcpy(b.plain, b.start, SIZE);
			memcpy(b.guarded, b.start, SIZE);
		}
	}
	unguard_pages(m, b.guarded + P1, 2);
	free_buffers(&b);
}

void test_deny(struct seq_file *m)
{
	struct buffers b;
	unsigned int i;

	if (!make_buffers(m, &b))
		return;
	if (guard_pages(m, b.guarded + P1, 2, RDT_ACT_DENY)) {
		free_buffers(&b);
		return;
	}
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct insn_case *c = &cases[i];
		unsigned int at;
		struct regs r;

		if (!can(c) || c->flags & (F_STACK | F_READS))
			continue;
		pr_debug("DENY: %s\n", c->name);
		/* A repeated instruction may write what precedes the protected page. */
		r = run(c, b.guarded, b.src, i + 1);
		at = difference(b.guarded, b.start, c->cx ? P1 : 0);
		report(m, r.err == -EFAULT && (at >= SIZE || at >= P3),
		       "DENY: %s: err %d, protected bytes %s", c->name, r.err,
		       at >= P3 ? "unchanged" : "CHANGED");
		memcpy(b.guarded, b.start, P1);
		memcpy(b.guarded + P3, b.start + P3, PAGE_SIZE);
	}
	unguard_pages(m, b.guarded + P1, 2);
	free_buffers(&b);
}
