// SPDX-License-Identifier: GPL-2.0
/*
 * The stores that a guest may ring a doorbell with. Redoubt reads the plain ones itself, KVM emulates the others:
 * what the device is told, and where the program goes on, must be the same. TAP, and a last line with how
 * many of each kind there were: who looks on at the host compares.
 *
 *   nvme_rings forms	each kind of store
 *   nvme_rings cost	what one costs, in cycles
 */
#define _GNU_SOURCE
#include "nvme_user.h"

#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BELL	0x1000	/* the admin submission queue's */
#define TF	"$0x100"

const char *requirement = "E6";
static unsigned int emulated, decoded;

/* A store of @v to @to; what it is not to change, it checks. */
typedef bool store_fn(volatile void *to, uint32_t v);

/* ---- plain stores: read here ------------------------------------------------------------- */

static bool mov(volatile void *to, uint32_t v)
{
	asm volatile("mov %1, (%0)" : : "r"(to), "r"(v) : "memory");
	return true;
}

static bool mov_r15_sib(volatile void *to, uint32_t v)
{
	asm volatile("mov %1, %%r15d; mov %0, %%r13; mov $-16, %%r12; mov %%r15d, 0x12345640(%%r13, %%r12, 4)"
		     : : "r"((volatile char *)to - 0x12345600), "r"(v) : "r12", "r13", "r15", "memory");
	return true;
}

static bool mov_rip(volatile void *to, uint32_t v);

static bool mov_gs(volatile void *to, uint32_t v)
{
	unsigned long old;

	syscall(SYS_arch_prctl, 0x1004, &old);
	syscall(SYS_arch_prctl, 0x1001, (unsigned long)to - 64);
	asm volatile("movl %0, %%gs:64" : : "r"(v) : "memory");
	return syscall(SYS_arch_prctl, 0x1001, old) == 0;
}

/* Flags and registers stay what they are, and the next instruction is the next one. */
static bool mov_and_all_stays(volatile void *to, uint32_t v)
{
	unsigned long before, after, a = 0x1111111111111111, d = (unsigned long)v | 0xabcd00000000;
	unsigned int behind = 0;

	asm volatile("lea -128(%%rsp), %%rsp; cmp %%eax, %%eax; stc; pushf; pop %0; pushf; pop %1; cmp %%eax, %%eax; stc\n\t"
		     "movl %%edx, (%5); incb %b2; pushf; pop %1; lea 128(%%rsp), %%rsp"
		     : "=&r"(before), "=&r"(after), "+&r"(behind), "+a"(a), "+d"(d) : "r"(to) : "memory", "cc");
	/* INC leaves the carry only. */
	return (before & after & 1) && behind == 1 && a == 0x1111111111111111 && d == ((unsigned long)v | 0xabcd00000000);
}

/* ---- others: KVM's ------------------------------------------------------------------------ */

static bool stos(volatile void *to, uint32_t v)
{
	volatile void *end = to;

	asm volatile("stosl" : "+D"(end) : "a"(v) : "memory");
	return end == to + 4;
}

static bool rep_stos(volatile void *to, uint32_t v)
{
	volatile void *end = to;
	unsigned long n = 1;

	asm volatile("rep stosl" : "+D"(end), "+c"(n) : "a"(v) : "memory");
	return end == to + 4 && !n;
}

static bool movs(volatile void *to, uint32_t v)
{
	volatile void *end = to;
	uint32_t from[2] = { v, ~v }, *next = from;

	asm volatile("movsl" : "+D"(end), "+S"(next) : : "memory");
	return end == to + 4 && next == from + 1;
}

static bool movnti(volatile void *to, uint32_t v)
{
	asm volatile("movnti %1, (%0)" : : "r"(to), "r"(v) : "memory");
	return true;
}

/* A doorbell reads as 0. */
static bool lock_or(volatile void *to, uint32_t v)
{
	asm volatile("lock orl %1, (%0)" : : "r"(to), "r"(v) : "memory", "cc");
	return true;
}

static bool xchg(volatile void *to, uint32_t v)
{
	asm volatile("xchgl %0, (%1)" : "+r"(v) : "r"(to) : "memory");
	return v == 0;
}

static bool addr32(volatile void *to, uint32_t v);

static unsigned long traps[8];
static volatile unsigned int trapped;

static void on_trap(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	if (trapped < 8)
		traps[trapped] = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
	trapped++;
}

/* Step by step: a trap behind the store, and one behind each instruction up to the end of TF. */
static bool single_step(volatile void *to, uint32_t v)
{
	struct sigaction act = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	unsigned long behind;

	trapped = 0;
	sigaction(SIGTRAP, &act, NULL);
	asm volatile("lea -128(%%rsp), %%rsp; lea 1f(%%rip), %0; pushf; orl " TF ", (%%rsp); popf\n\t"
		     "movl %2, (%1)\n"
		     "1:\tnop; pushf; andl $~0x100, (%%rsp); popf; nop; lea 128(%%rsp), %%rsp"
		     : "=&r"(behind) : "r"(to), "r"(v) : "memory", "cc");
	if (trapped != 5 || traps[0] != behind || traps[1] != behind + 1) {
		printf("# %u traps, at %#lx %#lx; behind the store is %#lx\n", trapped, traps[0], traps[1], behind);
		return false;
	}
	return true;
}

/* A debug register is in use, though not for this. */
static bool breakpoint(volatile void *to, uint32_t v)
{
	static volatile uint64_t watched;
	struct perf_event_attr attr = { .type = PERF_TYPE_BREAKPOINT, .size = sizeof(attr), .bp_type = HW_BREAKPOINT_W,
					.bp_addr = (unsigned long)&watched, .bp_len = HW_BREAKPOINT_LEN_8 };
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	uint64_t hits = 0;

	watched = 1;
	asm volatile("mov %1, (%0)" : : "r"(to), "r"(v) : "memory");
	watched = 2;
	if (fd < 0 || read(fd, &hits, sizeof(hits)) != sizeof(hits))
		perror("# a breakpoint");
	close(fd);
	return hits == 2;
}

/* ---- code of our own making ------------------------------------------------------------------ */

static uint8_t *code;	/* two pages */

static bool run(const void *at, volatile void *to, uint32_t v)
{
	/* RDI, EAX and ECX have what the store needs, or is not to take. */
	asm volatile("call *%3" : : "D"(to), "a"(v), "c"(~v), "r"(at) : "memory", "cc");
	return true;
}

/* The instruction goes on in the next page. */
static bool across(volatile void *to, uint32_t v)
{
	static const uint8_t insn[] = { 0x89, 0x87, 0x40, 0, 0, 0, 0xc3 };	/* mov %eax, 0x40(%rdi); ret */

	memcpy(code + PAGE - 3, insn, sizeof(insn));
	return run(code + PAGE - 3, (volatile char *)to - 0x40, v);
}

static bool mov_immediate(volatile void *to, uint32_t v)
{
	memcpy(code, (uint8_t[]){ 0xc7, 0x07 }, 2);	/* movl $v, (%rdi); ret */
	memcpy(code + 2, &v, 4);
	code[6] = 0xc3;
	return run(code, to, ~v);
}

static bool mov_rip(volatile void *to, uint32_t v)
{
	/* mov %eax, bell(%rip); ret: within 2 GiB, as the registers were mapped for it */
	const int32_t off = (intptr_t)to - (intptr_t)(code + 6);

	if (code + 6 + off != (volatile uint8_t *)to)
		return false;
	memcpy(code, (uint8_t[]){ 0x89, 0x05 }, 2);
	memcpy(code + 2, &off, 4);
	code[6] = 0xc3;
	return run(code, to, v);
}

static bool addr32(volatile void *to, uint32_t v)
{
	memcpy(code, (uint8_t[]){ 0x67, 0x89, 0x07, 0xc3 }, 4);	/* mov %eax, (%edi); ret */
	return (uintptr_t)to >> 32 == 0 && run(code, to, v);
}

static bool compat(volatile void *to, uint32_t v)
{
	/* By a far call, and back: mov %eax, %ss:(%edi), for DS is null; lret */
	const struct { uint32_t offset; uint16_t selector; } __attribute__((packed)) there = { (uintptr_t)code, 0x23 };

	memcpy(code, (uint8_t[]){ 0x36, 0x89, 0x07, 0xcb }, 4);
	if ((uintptr_t)to >> 32 || (uintptr_t)code >> 32)
		return false;
	asm volatile("lea -128(%%rsp), %%rsp; mov %%rsp, %%r12; mov %3, %%rsp; lcall *(%2); mov %%r12, %%rsp; lea 128(%%rsp), %%rsp"
		     : : "D"(to), "a"(v), "r"(&there), "r"(code + PAGE + 2048) : "r12", "memory", "cc");
	return true;
}

/* The same address with another page, of another instruction: what was read before says nothing. */
static bool remapped(volatile void *to, uint32_t v)
{
	code[0] = 0x89, code[1] = 0x0f, code[2] = 0xc3;	/* mov %ecx, (%rdi); ret */
	run(code, to, ~(v - 1));	/* ECX has v - 1: nothing new */
	decoded++;
	if (mmap(code, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE, -1, 0) != code)
		return false;
	code[0] = 0x89, code[1] = 0x07, code[2] = 0xc3;	/* mov %eax, (%rdi); ret */
	return run(code, to, v);
}

static bool rewritten(volatile void *to, uint32_t v)
{
	code[0] = 0x89, code[1] = 0x0f, code[2] = 0xc3;
	run(code, to, ~(v - 1));
	decoded++;
	code[1] = 0x07;
	return run(code, to, v);
}

/* ---- the tests ------------------------------------------------------------------------------ */

static void form(const char *what, store_fn *store, bool emul)
{
	bool same, done;

	memset(memory + 8 * PAGE, 0, PAGE);
	submit(&admin, (struct sqe){ .opcode = 6, .cdw10 = 1, .prp1 = gpa[8] });
	__sync_synchronize();
	same = store(bar + BELL, admin.tail);
	*(emul ? &emulated : &decoded) += 1;
	done = completion(&admin, 20) == 0 && *(uint16_t *)(memory + 8 * PAGE);
	report(same && done, "%s%s%s", what, same ? "" : ": it did not go on as it should", done ? "" : ": the device was not told");
}

/* Another width is no doorbell; nor is what begins before, or at no multiple of four. */
static void not_doorbells(void)
{
	submit(&admin, (struct sqe){ .opcode = 6, .cdw10 = 1, .prp1 = gpa[8] });
	__sync_synchronize();
	*(volatile uint16_t *)(bar + BELL) = admin.tail;
	*(volatile uint8_t *)(bar + BELL) = admin.tail;
	*(volatile uint64_t *)(bar + BELL) = admin.tail;
	*(volatile uint32_t *)(bar + BELL - 2) = (uint32_t)admin.tail << 16;
	*(volatile uint32_t *)(bar + BELL + 0x206) = ~0u;	/* behind the last */
	*(volatile uint32_t *)(bar + BELL + 2) = admin.tail;
	decoded++;
	report(completion(&admin, 0.5) == -1, "stores of other widths, or to between doorbells, tell the device nothing");
	ring(&admin);
	report(completion(&admin, 20) == 0, "the right one does");
}

static void forms(void)
{
	unsigned int i;

	form("mov of a register", mov, false);
	form("likewise, with base, index and displacement", mov_r15_sib, false);
	form("mov of an immediate", mov_immediate, false);
	form("mov of a register, relative to RIP", mov_rip, false);
	form("likewise, in GS", mov_gs, false);
	form("likewise: registers and flags stay, the next instruction is the next", mov_and_all_stays, false);
	form("stos", stos, true);
	form("rep stos", rep_stos, true);
	form("movs", movs, true);
	form("movnti", movnti, true);
	form("lock or", lock_or, true);
	form("xchg", xchg, true);
	form("mov with an address of 32 bits", addr32, true);
	form("mov in a 32-bit program", compat, true);
	form("mov that begins in one page and ends in the next", across, true);
	form("mov under TF: a trap behind each instruction", single_step, true);
	form("mov with a debug register in use, which counts both of its own", breakpoint, true);
	form("mov where another was, in another page", remapped, false);
	form("mov where another was, in this page", rewritten, false);
	not_doorbells();
	/* Round the queue, a few times. */
	for (i = 0; i < 200 && works(); i++)
		;
	report(i == 200, "and 200 more times as the compiler has it");
	printf("# rings: %u emulated, %u not\n", emulated, decoded + rung);
}

static uint64_t cycles(void)
{
	unsigned int lo, hi;

	asm volatile("mfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static int compare(const void *a, const void *b)
{
	return *(const uint64_t *)a < *(const uint64_t *)b ? -1 : *(const uint64_t *)a > *(const uint64_t *)b;
}

/* Of a store that tells the device nothing new, so the way there and back; and of a read's two. Medians. */
static void cost(void)
{
	enum { N = 500 };
	static uint64_t idle[N], sq[N], cq[N];
	unsigned int i, good = 0;
	uint64_t t;

	for (i = 0; i < N; i++) {
		t = cycles();
		mov(bar + BELL + 4, admin.head);
		idle[i] = cycles() - t;
	}
	for (i = 0; i < N; i++) {
		submit(&io, rw(2, gpa[8], 0, 8));
		t = cycles();
		mov(bar + BELL + 8 * io.id, io.tail);
		sq[i] = cycles() - t;
		good += completion(&io, 20) == 0;
		t = cycles();
		mov(bar + BELL + 4 + 8 * io.id, io.head);
		cq[i] = cycles() - t;
	}
	qsort(idle, N, sizeof(*idle), compare);
	qsort(sq, N, sizeof(*sq), compare);
	qsort(cq, N, sizeof(*cq), compare);
	report(good == N, "%u of %u reads are done", good, N);
	printf("# cycles of a doorbell: %lu, of a read's submission %lu, of what is known %lu\n", idle[N / 2], sq[N / 2], cq[N / 2]);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	find_memory();
	find_controller();
	code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_32BIT, -1, 0);
	report(code != MAP_FAILED && restart(), "the controller works, with queues of ours");
	if (argc > 1 && !strcmp(argv[1], "cost"))
		cost();
	else
		forms();
	printf("1..%u\n", tests);
	return bad != 0;
}
