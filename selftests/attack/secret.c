// SPDX-License-Identifier: GPL-2.0
/*
 * Attacks on a secret in code, redoubt_aes's. Whatever is tried, nothing of its pages is to be
 * seen, and it is to work as before.
 */
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/static_call.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/io.h>
#include "attack.h"
#include "redoubt_aes.h"

static struct {
	char *gate, *text, *exit;
	unsigned long code;	/* bytes on the gate page; TEXT's code begins at that offset */
	unsigned long call;	/* the way in */
} aes;

static u8 plain[RDT_AES_BATCH_XMM], first[RDT_AES_BATCH_XMM];
static bool have_first;

static long no_cipher(unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	return -ENOENT;
}
DEFINE_STATIC_CALL(attack_cipher, no_cipher);

static size_t no_poke(void *addr, const void *opcode, size_t len)
{
	return 0;
}
DEFINE_STATIC_CALL(attack_poke, no_poke);

const char *no_secret(void)
{
	return symbol("redoubt_aes:rdt_aes_gate") ? NULL : "redoubt_aes is not loaded";
}

static long cipher(void *dst, const void *src)
{
	return static_call(attack_cipher)((unsigned long)dst, (unsigned long)src, 1, 0);
}

/* To be said after each attack, and before the first. */
static void works(struct seq_file *m, const char *when)
{
	u8 out[RDT_AES_BATCH_XMM] = {};
	long ret = cipher(out, plain);

	if (!have_first) {
		memcpy(first, out, sizeof(first));
		have_first = true;
	}
	report(m, !ret && !memcmp(out, first, sizeof(out)) && memcmp(out, plain, sizeof(out)),
	       "%s the cipher works: %ld", when, ret);
}

static bool find(struct seq_file *m)
{
	unsigned long offset;

	aes.gate = (char *)symbol("redoubt_aes:rdt_aes_gate");
	aes.text = (char *)symbol("redoubt_aes:rdt_aes_text");
	aes.exit = (char *)symbol("redoubt_aes:rdt_aes_exit");
	if (!aes.gate || !aes.text || !aes.exit) {
		report(m, false, "the secret's pages are not found");
		return false;
	}
	/* Code of the two pages is at different offsets, TEXT's behind the gate's. */
	offset = offset_in_page(aes.text);
	aes.code = offset;
	aes.text -= offset;
	aes.call = symbol("redoubt_aes:rdt_aes_call");
	static_call_update(attack_cipher, (void *)aes.call);
	guard_resume_stub = symbol("redoubt_guest:rdt_resume");
	works(m, "before it all");
	return true;
}

/* ---- reading -------------------------------------------------------------------- */

static int load(const void *at, u64 *val)
{
	int err = 0;

	asm volatile("1: movq %[at], %[val]\n"
		     "2:\n"
		     _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %[err])
		     : [err] "+r" (err), [val] "=r" (*val) : [at] "m" (*(const u64 *)at));
	return err;
}

/* Words all over a page: none may be read. */
static void unreadable(struct seq_file *m, const char *what, const char *way, const void *page)
{
	unsigned int i, got = 0;
	u64 val;

	for (i = 0; page && i < PAGE_SIZE; i += 40)
		got += !load(page + i, &val);
	report(m, page && !got, "%s, read by %s: %s", what, way,
	       !page ? "could not be tried" : got ? "READ" : "#GP at each word");
}

static void read_page(struct seq_file *m, const char *what, char *at)
{
	struct page *page = page_of(at);
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	unreadable(m, what, "the module's mapping", at);
	unreadable(m, what, "the direct map", page_address(page));
	unreadable(m, what, "an alias", alias);
	vunmap(alias);
}

void attack_secret_read(struct seq_file *m)
{
	if (!find(m))
		return;
	read_page(m, "gate page", aes.gate);
	read_page(m, "text page", aes.text);
	read_page(m, "exit page", aes.exit);
	works(m, "after that");
}

/* The kernel's own way to look at what may not be there. It warns of #GP, once: so not with the others. */
static void look(struct seq_file *m, const char *what, char *at)
{
	u64 word = 0;
	long err = copy_from_kernel_nofault(&word, at, sizeof(word));

	report(m, err == -EFAULT, "%s, read by copy_from_kernel_nofault(): %ld", what, err);
	/* For who reads /proc/kcore in user space */
	pr_info("secret: %s is at %lx\n", what, (unsigned long)page_address(page_of(at)));
}

void attack_secret_nofault(struct seq_file *m)
{
	struct kprobe kp = { .pre_handler = NULL };
	struct ftrace_ops ops = {};
	int err;

	if (!find(m))
		return;
	look(m, "gate page", aes.gate);
	look(m, "text page", aes.text);
	look(m, "exit page", aes.exit);
	/* At a symbol's start: elsewhere the kernel itself reads the code up to there, and dies of it. */
	kp.addr = (kprobe_opcode_t *)aes.gate;
	err = register_kprobe(&kp);
	report(m, err < 0, "kprobe on the gate: %d", err);
	memset(&kp, 0, sizeof(kp));
	kp.addr = (kprobe_opcode_t *)aes.text + aes.code;
	err = register_kprobe(&kp);
	report(m, err < 0, "kprobe on the text: %d", err);
	err = ftrace_set_filter_ip(&ops, (unsigned long)aes.gate, 0, 0);
	report(m, err < 0, "ftrace on the gate: %d", err);

	works(m, "after that");
}

/* ---- writing --------------------------------------------------------------------- */

static void write_page(struct seq_file *m, const char *what, char *at)
{
	static const struct {
		const char *name;
		int (*store)(u64 *at, u64 val);
	} ways[] = {
		{ "CR0.WP cleared", store_wp_clear },
		{ "page table entry made writable", store_pte },
		{ "writable alias", store_alias },
	};
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		err = ways[i].store((u64 *)(at + 0x18), 0x9090909090909090ull);
		report(m, err == -EFAULT, "%s, written with %s: %d", what, ways[i].name, err);
	}
	err = store_plain(page_address(page_of(at)) + 0x18, 0x9090909090909090ull);
	report(m, err == -EFAULT, "%s, written by the direct map: %d", what, err);
}

void attack_secret_write(struct seq_file *m)
{
	if (!find(m))
		return;
	write_page(m, "gate page", aes.gate);
	write_page(m, "text page", aes.text);
	write_page(m, "exit page", aes.exit);
	works(m, "after that");

	/* What the kernel patches itself with; its memcpy() and memcmp() meet #GP, and are let off. */
	if (symbol("text_poke") && symbol("text_mutex")) {
		struct mutex *lock = (struct mutex *)symbol("text_mutex");
		unsigned int faults;

		static_call_update(attack_poke, (void *)symbol("text_poke"));
		mutex_lock(lock);
		leaf_guard(true);
		static_call(attack_poke)(aes.gate + 0x18, "\x90\x90\x90\x90", 4);
		faults = leaf_guard(false);
		mutex_unlock(lock);
		report(m, faults == 2, "text_poke() on the gate: #GP %u times, writing and looking", faults);
	}
	works(m, "after that");
}

/* ---- jumping ---------------------------------------------------------------------- */

/* To each byte of code, and here and there between, from @first on. */
static void jump_page(struct seq_file *m, const char *what, char *page, unsigned long first,
		      unsigned long from, unsigned long len)
{
	unsigned int tried = 0, came_back = 0;
	unsigned long i;

	for (i = first; i < PAGE_SIZE; i++) {
		if ((i < from || i >= from + len) && i % 64 > 1)
			continue;
		tried++;
		came_back += call_guarded((unsigned long)page + i, 0, 0, 0) != -EFAULT;
	}
	report(m, tried && !came_back, "jumps into the %s: %u tried, %u not refused", what, tried, came_back);
}

void attack_secret_jump(struct seq_file *m)
{
	if (!find(m))
		return;
	jump_page(m, "gate page, past the gate", aes.gate, 1, 1, aes.code);
	jump_page(m, "text page", aes.text, 0, aes.code, 0x180);
	jump_page(m, "exit page", aes.exit, 0, 0, 16);
	works(m, "after that");
}

/* ---- page tables ----------------------------------------------------------------- */

/* The frame of @with behind @va, interrupts off, as long as the cipher is called with @dst and @src. */
static long with_remapped(char *va, char *with, void *dst, const void *src)
{
	unsigned long flags;
	unsigned int level;
	pte_t *pte = lookup_address((unsigned long)va, &level), old;
	long ret;

	if (!pte || level != PG_LEVEL_4K)
		return -ENOENT;
	local_irq_save(flags);
	old = *pte;
	ret = store_plain((u64 *)pte, (pte_val(old) & ~PHYSICAL_PAGE_MASK) | page_to_phys(page_of(with)));
	if (!ret) {
		asm volatile("invlpg (%0)" : : "r" (va) : "memory");
		ret = call_guarded4(aes.call, (u64)dst, (u64)src, 1, 0);
		store_plain((u64 *)pte, pte_val(old));
		asm volatile("invlpg (%0)" : : "r" (va) : "memory");
	}
	local_irq_restore(flags);
	return ret;
}

/* Is there anything at @dst but what was there? */
static void swapped(struct seq_file *m, const char *what, char *va, char *with)
{
	u8 out[RDT_AES_BATCH_XMM] = {};
	long ret = with_remapped(va, with, out, plain);

	report(m, ret < 0 && !memchr_inv(out, 0, sizeof(out)), "%s: %ld, %s", what, ret,
	       memchr_inv(out, 0, sizeof(out)) ? "SOMETHING CAME OUT" : "nothing came out");
}

/* Source or destination is a page of the secret, by another name. */
static void lend(struct seq_file *m, const char *what, char *page)
{
	struct page *frame = page_of(page);
	u8 *direct = page_address(frame), out[RDT_AES_BATCH_XMM] = {};
	u64 val;
	long ret;

	ret = call_guarded4(aes.call, (u64)out, (u64)direct, 1, 0);
	/* Where a page that can be executed can be read, TEXT can read TEXT: nothing there is secret. */
	if (page != aes.text)
		report(m, ret < 0 && !memchr_inv(out, 0, sizeof(out)), "encrypting its %s: %ld, %s", what, ret,
		       memchr_inv(out, 0, sizeof(out)) ? "SOMETHING CAME OUT" : "nothing came out");
	ret = call_guarded4(aes.call, (u64)direct, (u64)plain, 1, 0);
	report(m, ret < 0 && load(direct, &val), "encrypting to its %s: %ld", what, ret);
}

void attack_secret_pgtable(struct seq_file *m)
{
	struct page *own = alloc_page(GFP_KERNEL), *frame;
	u8 out[RDT_AES_BATCH_XMM] = {};
	char *alias;
	long ret;

	if (!own || !find(m))
		return report(m, false, "no memory, or no secret");
	/* mov $1, %eax; jmp *%r11: with the keys in its registers, if it gets there. */
	memset(page_address(own), 0x90, PAGE_SIZE);
	memcpy(page_address(own) + PAGE_SIZE - 8, "\xb8\x01\x00\x00\x00\x41\xff\xe3", 8);
	swapped(m, "the attacker's code in TEXT's place", aes.text, page_address(own));
	/* That runs where it always could, and has nothing. */
	ret = with_remapped(aes.gate, page_address(own), out, plain);
	report(m, ret == 1 && !memchr_inv(out, 0, sizeof(out)),
	       "the attacker's code in the gate's place: %ld, all by itself", ret);
	__free_page(own);
	swapped(m, "TEXT in the gate's place", aes.gate, aes.text);
	swapped(m, "the gate in TEXT's place", aes.text, aes.gate);
	swapped(m, "EXIT in the gate's place", aes.gate, aes.exit);
	swapped(m, "EXIT in TEXT's place", aes.text, aes.exit);
	/* By then the result is in memory. */
	ret = with_remapped(aes.exit, aes.text, out, plain);
	report(m, ret < 0, "TEXT in EXIT's place: %ld", ret);
	works(m, "after that");

	/* The gate's frame at another address leads to the gate, and to nothing else. */
	frame = page_of(aes.gate);
	alias = vmap(&frame, 1, VM_MAP, PAGE_KERNEL);
	if (!alias || !make_nx((unsigned long)alias, false))
		return report(m, false, "no executable alias");
	jump_page(m, "gate page by an alias, past the gate", alias, 1, 1, aes.code);
	ret = call_guarded4((unsigned long)alias, (u64)out, (u64)plain, 1, 0);
	report(m, ret < 0, "the gate by an alias that has no TEXT behind it: %ld", ret);
	vunmap(alias);

	lend(m, "gate page", aes.gate);
	lend(m, "text page", aes.text);
	lend(m, "exit page", aes.exit);
	works(m, "after that");
}

/* ---- single steps ------------------------------------------------------------------ */

static struct {
	unsigned int steps, inside, leaks;
} step;

/* #DB after each instruction: is it one of the secret's, or does a register of it show? */
static bool on_step(struct pt_regs *r)
{
	unsigned long at = r->ip - (unsigned long)aes.gate;

	step.steps++;
	/* At the gate's first byte it has not been executed. */
	step.inside += at && at < aes.exit + PAGE_SIZE - aes.gate;
	if (r->ip == guard_resume_stub)
		step.leaks += !!(r->ax | r->bx | r->cx | r->dx | r->si | r->bp | r->r8 | r->r9 | r->r10 |
				 r->r11 | r->r12 | r->r13 | r->r14 | r->r15);
	return true;
}

void attack_secret_step(struct seq_file *m)
{
	u8 out[RDT_AES_BATCH_XMM] = {};
	long ret;

	if (!find(m))
		return;
	memset(&step, 0, sizeof(step));
	step_guard(on_step);
	asm volatile("pushfq; orq %0, (%%rsp); popfq" : : "i" (X86_EFLAGS_TF) : "cc", "memory");
	ret = call_guarded4(aes.call, (u64)out, (u64)plain, 1, 0);
	asm volatile("pushfq; andq %0, (%%rsp); popfq" : : "i" (~X86_EFLAGS_TF) : "cc", "memory");
	step_guard(NULL);
	report(m, step.steps > 10 && !step.inside && !step.leaks,
	       "single-stepped: %u steps, %u of them inside, %u leaks", step.steps, step.inside, step.leaks);
	report(m, !ret && !memcmp(out, first, sizeof(out)), "the cipher works under it: %ld", ret);
	works(m, "after that");
}
