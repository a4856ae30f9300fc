// SPDX-License-Identifier: GPL-2.0
/*
 * Ways into a domain other than its gate (C6), and what the guest's kernel can prepare
 * before it goes in by the gate: descriptor tables, modes, debug registers, MSRs.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cell.h"
#include "driver.h"
#include "leak.h"
#include "tap.h"

#define RAM	(24ul << 20)
#define SHARED	(GUEST_FREE + 0x30000)
#define DOM	(GUEST_FREE + 0x400000)
#define GDT_AT	0xf00			/* in the page with the IDT, where vectors 0xf0.. are */

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;
static struct cell dom;

static const struct cell_image image = LEAK_IMAGE(2, .slots = 2, .flags = RDT_DOM_VECTOR);

static int64_t call(uint64_t op, uint64_t a, uint64_t b)
{
	int64_t ret = vcpu_call(v, g_leak_call, op, a, b, cell_gate(&dom));

	vcpu_must_end(v, "a call");
	return ret;
}

/* ---- descriptor tables where the inside has memory -------------------------------------- */

struct table {
	u16 limit;
	u64 base;
} __attribute__((packed));

/* Nothing may happen while they are in force: no handler could be found. */
static u64 g_idt_call(u64 base, u64 what, u64 gate, u64 limit)
{
	struct table old_idt, old_gdt, idt = { limit, base }, gdt = { 0x7f, base + GDT_AT };
	u64 ret;

	asm volatile("sidt %0; sgdt %1" : "=m"(old_idt), "=m"(old_gdt));
	asm volatile("lgdt %0; lidt %1" : : "m"(gdt), "m"(idt));
	ret = drv_call(LEAK_WORK, 8, what, 0, gate);
	asm volatile("lidt %0; lgdt %1" : : "m"(old_idt), "m"(old_gdt));
	return ret;
}

static void make_tables(uint64_t *page, uint64_t handler)
{
	memset(page, 0, PAGE_SIZE);
	for (int i = 0; i < GDT_AT / 16; i++) {
		page[2 * i] = (handler & 0xffff) | SEL_CODE0 << 16 | 0x8eull << 40 | (handler & 0xffff0000) << 32;
		page[2 * i + 1] = handler >> 32;
	}
	page[GDT_AT / 8 + SEL_CODE0 / 8] = 0x00209b0000000000;
	page[GDT_AT / 8 + SEL_DATA0 / 8] = 0x0000930000000000;
}

static void test_idt(void)
{
	const uint64_t handler = CELL_GVA + (leak_gadget - leak_code);
	static const struct {
		const char *name;
		uint64_t what, base;
	} ways[] = {
		{ "int n, tables in the window", LEAK_INT, CELL_WINDOW },
		{ "#UD, tables in the window", LEAK_UD, CELL_WINDOW },
		{ "int n, tables from before the window on", LEAK_INT, CELL_WINDOW - 0x800 },
		{ "int n, tables in its data", LEAK_INT, CELL_GVA + LEAK_DATA + PAGE_SIZE },
	};

	make_tables(vm_host(vm, SHARED), handler);
	for (unsigned int i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		struct rdt_event ev;
		int64_t ret;

		rdt_drain(r);
		ret = vcpu_call(v, g_idt_call, ways[i].base, ways[i].what, cell_gate(&dom), 0x17ff);
		vcpu_must_end(v, ways[i].name);
		is(ret, -EPERM, "C6 %s: nobody gets in", ways[i].name);
		ok(rdt_find(r, RDT_EV_GATE, &ev) && ev.code == RDT_GATE_BAD_IDT, "C6 %s: an alert", ways[i].name);
	}
	is(call(LEAK_WORK, 8, 0), 0, "C6 with the kernel's own tables it works");
}

/* ---- every byte of its code -------------------------------------------------------------- */

static u64 g_jump(u64 from, u64 to, u64 step, u64 but)
{
	u64 in = 0;

	for (u64 at = from; at < to; at += step)
		in += at != but && guest_try("jmp *%0", "r"(at)) != 13;
	return in;
}

static void test_bytes(uint64_t step)
{
	const uint64_t code = 2 * PAGE_SIZE;	/* GATE and EXIT: each byte */
	uint64_t gate = rdt_count(r, RDT_EV_GATE), frames = rdt_count(r, RDT_EV_DOMAIN_ACCESS);

	is(vcpu_call(v, g_jump, DOM, DOM + code, 1, cell_gate(&dom)), 0, "C6 a jump to each byte of gate and exit page");
	vcpu_must_end(v, "jumps");
	is(rdt_count(r, RDT_EV_GATE) - gate, PAGE_SIZE - 1, "C6 the gate page: an alert each");
	is(rdt_count(r, RDT_EV_DOMAIN_ACCESS) - frames, PAGE_SIZE, "C6 the exit page: an alert each");
	is(vcpu_call(v, g_jump, DOM + code, DOM + cell_pages(&dom) * PAGE_SIZE, step, 0), 0,
	   "C6 a jump to code, data and stacks, each %lu bytes", step);
	vcpu_must_end(v, "jumps");
	is(rdt_info(r).slots_busy, 0, "C6 no slot is taken");
	rdt_drain(r);
}

/* ---- what is said to stay as it is: domains.md --------------------------------------------- */

static void test_same(void)
{
	static const uint32_t msrs[] = { 0xc0000100, 0xc0000102, 0xc0000082, 0xc0000081 };

	for (unsigned int i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
		const uint64_t old = vcpu_call(v, g_rdmsr, msrs[i]), value = 0x123000 + i;

		vcpu_call(v, g_wrmsr, msrs[i], value);
		is(call(LEAK_RDMSR, msrs[i], 0), value, "C6 MSR %#x is the caller's inside", msrs[i]);
		is(vcpu_call(v, g_rdmsr, msrs[i]), value, "C6 MSR %#x is as it was", msrs[i]);
		vcpu_call(v, g_wrmsr, msrs[i], old);
	}
	vcpu_call(v, g_leak_watch, 0x1000, 0x400);
	is(call(LEAK_RDDR, 0, 0), 0x1000 | 0x400ull << 48, "C6 debug registers are the caller's inside");
	vcpu_call(v, g_leak_watch, 0, 0x400);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	vm = vm_create(RAM, 2, VM_IRQCHIP);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	cell_allow(v, r);
	dom.shared = SHARED;
	cell_place(&dom, vm, &image, DOM);
	make_tables(vm_host(vm, DOM + LEAK_DATA + PAGE_SIZE), CELL_GVA + (leak_gadget - leak_code));
	*(uint32_t *)vm_host(vm, DOM + LEAK_LEVEL) = LEAK_SSE;
	is(cell_build(v, &dom), 0, "C1 a domain");
	is(cell_seal(v, &dom), 0, "C7 is sealed");
	vm_var(vm, leak_guest)->xsave = v->xsave;
	vcpu_call(v, g_leak_setup, 0);
	test_idt();
	test_bytes(argc > 1 ? 1 : 13);
	test_same();
	is(cell_destroy(v, &dom), 0, "C8 the domain goes");
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
