// SPDX-License-Identifier: GPL-2.0
/*
 * A domain's memory from outside (C5), by other ways than a vCPU's plain access: the VMM's
 * mapping and memory slots while somebody is inside, KVM's emulator and structures, page
 * walks, nested guests.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cell.h"
#include "driver.h"
#include "l2.h"
#include "leak.h"
#include "tap.h"

#define RAM	(32ul << 20)
#define AREA	0x4000000ul		/* a slot of its own for the domain.. */
#define AREA_SIZE (2ul << 20)
#define ALIAS	0x5000000ul		/* ..and another one with the same memory */
#define MAPPED	0x40000000ul		/* linear */
#define WORD	0x5ec2e7c0deul
#define GP	13
#define COUNTER	0x800			/* in its data */

static struct vm *vm;
static struct vcpu *v, *v1;
static struct rdt *r;
static struct cell dom;
static uint8_t *area;

static const struct cell_image image = LEAK_IMAGE(1, .slots = 2);

static int64_t call(uint64_t op, uint64_t a, uint64_t b)
{
	int64_t ret = vcpu_call(v, g_leak_call, op, a, b, cell_gate(&dom));

	vcpu_must_end(v, "a call");
	return ret;
}

static bool intact(void)
{
	return call(LEAK_LOAD, CELL_GVA + LEAK_DATA, 0) == (int64_t)WORD;
}

static bool seen(uint32_t type)
{
	struct rdt_event ev;
	bool found = rdt_find(r, type, &ev);

	rdt_drain(r);
	return found;
}

/* ---- what the VMM does to its memory ----------------------------------------------------- */

static void by_discard(void)
{
	madvise(area, AREA_SIZE, MADV_DONTNEED);
}

static void by_write(void)
{
	memset(area, 0x77, AREA_SIZE);
}

static void by_pageout(void)
{
	madvise(area, AREA_SIZE, MADV_PAGEOUT);
}

static void by_ksm(void)
{
	madvise(area, AREA_SIZE, MADV_MERGEABLE);
	usleep(20000);
	madvise(area, AREA_SIZE, MADV_UNMERGEABLE);
}

static void by_map(void)
{
	if (mmap(area, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != area)
		tap_bail("mmap");
	memset(area, 0x66, AREA_SIZE);
}

static void by_protection(void)
{
	mprotect(area, AREA_SIZE, PROT_READ);
	mprotect(area, AREA_SIZE, PROT_READ | PROT_WRITE);
}

static void by_fork(void)
{
	pid_t child = fork();

	if (!child) {
		memset(area, 0x55, AREA_SIZE);
		_exit(0);
	}
	memset(area, 0x44, PAGE_SIZE);
	waitpid(child, NULL, 0);
}

static void by_dirty_log(void)
{
	static uint64_t bitmap[AREA_SIZE / PAGE_SIZE / 64];

	vm_set_slot(vm, 1, AREA, AREA_SIZE, area, KVM_MEM_LOG_DIRTY_PAGES);
	vm_dirty_log(vm, 1, bitmap);
	vm_dirty_log(vm, 1, bitmap);
	vm_set_slot(vm, 1, AREA, AREA_SIZE, area, 0);
}

static bool has_word(void)
{
	const uint64_t word = WORD;

	return memmem(area, AREA_SIZE, &word, 5);
}

static void test_vmm(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} ways[] = {
		{ "MADV_DONTNEED", by_discard }, { "a write", by_write }, { "MADV_PAGEOUT", by_pageout },
		{ "KSM", by_ksm }, { "another mapping", by_map }, { "mprotect", by_protection },
		{ "fork", by_fork }, { "the dirty log", by_dirty_log },
	};
	const uint64_t rounds = 30000;

	for (unsigned int i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		int64_t before = call(LEAK_LOAD, CELL_GVA + LEAK_DATA + COUNTER, 0), ret;

		vcpu_start(v1, g_leak_call, LEAK_COUNT, rounds, COUNTER, cell_gate(&dom));
		for (int k = 0; k < 5; k++)
			ways[i].fn();
		ret = vcpu_join(v1);
		vcpu_must_end(v1, ways[i].name);
		is(ret, rounds, "C5 %s while somebody is inside: the result", ways[i].name);
		is(call(LEAK_LOAD, CELL_GVA + LEAK_DATA + COUNTER, 0) - before, rounds,
		   "C5 %s: the memory of the inside", ways[i].name);
		ok(intact(), "C5 %s: its data is as it was", ways[i].name);
		ok(!has_word(), "C5 %s: the VMM has none of it", ways[i].name);
	}
	rdt_drain(r);
}

/* ---- memory slots ---------------------------------------------------------------------------- */

static void test_slots(void)
{
	uint8_t *other = vm_alloc(AREA_SIZE, 0);
	const uint64_t data = AREA + LEAK_DATA;
	int64_t ret;

	is(vm_set_slot(vm, 2, ALIAS, AREA_SIZE, area, 0), 0, "C5 a second slot with the same memory");
	by_map();
	vm_map(vm, MAPPED, ALIAS, AREA_SIZE, PTE_W);
	is(vcpu_call(v, g_load, MAPPED + LEAK_DATA), 0x6666666666666666, "C5 by the second slot: the VMM's, nothing else");
	is(vcpu_call(v, g_store, MAPPED + LEAK_DATA, 1), -1, "C5 by the second slot: a write");
	ok(intact(), "C5 by the second slot: does not get in");
	is((int64_t)vcpu_call(v, g_store, data, 1), GP, "C5 by the first: refused");

	is(vm_set_slot(vm, 1, AREA, 0, NULL, 0), 0, "C5 the slot is gone");
	ok(seen(RDT_EV_MAPPING_CHANGED), "C5 the slot is gone: an alert");
	ret = vcpu_call(v, g_leak_call, LEAK_STORE, CELL_GVA + LEAK_DATA, WORD + 1, cell_gate(&dom));
	ok(vcpu_done(v) && v->exit != KVM_EXIT_MMIO, "C5 without it: the VMM is not asked");
	is(ret, -EPERM, "C5 without it: the call ends");
	ok(seen(RDT_EV_DOMAIN_ACCESS), "C5 without it: an alert");

	memset(other, 0x33, AREA_SIZE);
	is(vm_set_slot(vm, 1, AREA, AREA_SIZE, other, 0), 0, "C5 a slot with other memory");
	ok(intact(), "C5 other memory: the domain has its own");
	is((int64_t)vcpu_call(v, g_store, data, 1), GP, "C5 other memory: absent outside as before");
	vm_set_slot(vm, 1, AREA, 0, NULL, 0);
	is(vm_set_slot(vm, 1, AREA, AREA_SIZE, other, KVM_MEM_READONLY), 0, "C5 a slot that is only to be read");
	/* The walk of its tables may write, too: then nothing works. */
	ret = call(LEAK_LOAD, CELL_GVA + LEAK_DATA, 0);
	ok(ret == (int64_t)WORD || ret == -EPERM, "C5 only to be read: it reads, or the call ends");
	is(call(LEAK_STORE, CELL_GVA + LEAK_DATA + 8, WORD), -EPERM, "C5 only to be read: a write ends the call");
	vm_set_slot(vm, 1, AREA, 0, NULL, 0);
	is(vm_set_slot(vm, 1, 0x6000000, AREA_SIZE, other, 0), 0, "C5 the slot elsewhere");
	is(call(LEAK_LOAD, CELL_GVA + LEAK_DATA, 0), -EPERM, "C5 elsewhere: the call ends");
	vm_set_slot(vm, 1, 0x6000000, 0, NULL, 0);
	is(vm_set_slot(vm, 1, AREA, AREA_SIZE, area, 0), 0, "C5 the slot again as it was");
	ok(intact(), "C5 as it was");
	/* Comes and goes while somebody is inside: done, or ended; never wrong. */
	for (int i = 0; i < 10; i++) {
		vcpu_start(v1, g_leak_call, LEAK_COUNT, 20000, COUNTER, cell_gate(&dom));
		usleep(500);
		vm_set_slot(vm, 1, AREA, 0, NULL, 0);
		vm_set_slot(vm, 1, AREA, AREA_SIZE, area, 0);
		ret = vcpu_join(v1);
		if (!vcpu_done(v1) || (ret != 20000 && ret != -EPERM))
			break;
	}
	ok(ret == 20000 || ret == -EPERM, "C5 a slot that comes and goes (%ld)", ret);
	vcpu_must_end(v1, "a slot that comes and goes");
	ok(intact(), "C5 a slot that comes and goes: its data");
	vm_set_slot(vm, 2, ALIAS, 0, NULL, 0);
	munmap(other, AREA_SIZE);
	rdt_drain(r);
}

/* ---- KVM on behalf of a vCPU ------------------------------------------------------------------ */

static u64 g_outs(u64 gva, u64 port)
{
	return guest_try("rep outsb", "S"(gva), "c"(8ul), "d"(port));
}

static u64 g_ins(u64 gva, u64 port)
{
	return guest_try("rep insb", "D"(gva), "c"(8ul), "d"(port));
}

static void string_input(uint64_t gva)
{
	vcpu_prepare(v, g_ins, gva, 0xf8);
	vcpu_run(v);
	while (v->exit == KVM_EXIT_IO && v->run->io.port == 0xf8) {
		memset((uint8_t *)v->run + v->run->io.data_offset, 0x5a, v->run->io.count);
		vcpu_run(v);
	}
	vcpu_must_end(v, "string input");
}

static void test_emulator(void)
{
	const uint64_t data = AREA + LEAK_DATA;
	const uint8_t zero[8] = {};

	memset(area, 0, AREA_SIZE);
	vcpu_prepare(v, g_outs, data, 0xf8);
	vcpu_run(v);
	while (v->exit == KVM_EXIT_IO && v->run->io.port == 0xf8) {
		if (memcmp((uint8_t *)v->run + v->run->io.data_offset, zero, v->run->io.count))
			break;
		vcpu_run(v);
	}
	ok(vcpu_done(v), "C5 string output from there: zeros, or nothing");
	string_input(data);
	ok(seen(RDT_EV_DOMAIN_ACCESS), "C5 string input to there: an alert");
	ok(!memcmp(area + LEAK_DATA, zero, 8), "C5 string input to there: not a byte");
	ok(intact(), "C5 string I/O: its data");
}

static void test_pv(void)
{
	static const struct {
		const char *name;
		uint32_t msr, on;
	} kinds[] = { { "kvmclock", 0x4b564d01, 1 }, { "async PF", 0x4b564d02, 9 },
		      { "steal time", 0x4b564d03, 1 }, { "PV EOI", 0x4b564d04, 1 } };

	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		rdt_drain(r);
		memset(area, 0, AREA_SIZE);
		vcpu_call(v, g_wrmsr, kinds[i].msr, (AREA + LEAK_DATA) | kinds[i].on);
		vcpu_must_end(v, kinds[i].name);
		for (int k = 0; k < 3; k++)
			vcpu_call(v, g_gp_count);
		ok(seen(RDT_EV_PV_STRUCT), "C5 %s in there: an alert", kinds[i].name);
		ok(!vm_u64(vm, AREA + LEAK_DATA) && !vm_u64(vm, AREA + LEAK_DATA + 8), "C5 %s: nothing is written",
		   kinds[i].name);
		vcpu_call(v, g_wrmsr, kinds[i].msr, 0);
	}
	ok(intact(), "C5 KVM's structures: its data");
}

/* A page table that lies in there. */
static void test_walk(void)
{
	uint64_t *pdpt = vm_host(vm, GUEST_PDPT);
	const uint64_t at = MAPPED + (1ul << 30);

	for (int k = 0; k < 2; k++) {
		/* As a page directory; as one that the emulator walks. */
		pdpt[at >> 30 & 511] = (AREA + LEAK_DATA) | PTE_P | PTE_W | PTE_U;
		rdt_drain(r);
		if (!k) {
			is((int64_t)vcpu_call(v, g_store, at, 1), GP, "C5 a page walk through it: refused");
			ok(seen(RDT_EV_DOMAIN_ACCESS), "C5 a page walk through it: an alert");
		} else {
			string_input(at);
		}
		ok(!vm_u64(vm, AREA + LEAK_DATA), "C5 a page walk sets no bits");
		pdpt[at >> 30 & 511] = 0;
		vcpu_call(v, guest_cr3);
	}
	vcpu_call(v, g_read_all, GUEST_FREE, 1);
	ok(intact(), "C5 page walks: its data");
	rdt_drain(r);
}

static void test_nested(void)
{
	if (guest_is_intel || !l2_possible()) {
		tap_skip("C5 a VMCB in there: AMD");
		return;
	}
	is(vcpu_call(v, g_l2_on), 0, "C5 nesting");
	rdt_drain(r);
	memset(area, 0, AREA_SIZE);
	is((int64_t)vcpu_call(v, g_vmsave, AREA + LEAK_DATA), GP, "C5 VMSAVE to there: refused");
	ok(seen(RDT_EV_PV_STRUCT), "C5 VMSAVE to there: an alert");
	is((int64_t)vcpu_call(v, g_vmload, AREA + LEAK_DATA), GP, "C5 VMLOAD from there: refused");
	ok(!memcmp(area + LEAK_DATA, (uint8_t[512]){}, 512), "C5 VMSAVE: nothing is written");
	ok(intact(), "C5 VMSAVE: its data");
}

int main(void)
{
	const uint64_t word = WORD;

	setvbuf(stdout, NULL, _IOLBF, 0);
	vm = vm_create(RAM, 2, VM_IRQCHIP | VM_SMALL);
	v = &vm->vcpu[0];
	v1 = &vm->vcpu[1];
	area = vm_alloc(AREA_SIZE, VM_SMALL);
	if (vm_set_slot(vm, 1, AREA, AREA_SIZE, area, 0))
		tap_bail("a slot");
	r = rdt_attach(vm->fd);
	cell_allow(v, r);
	cell_make(v, &dom, &image, AREA);
	is(cell_install(r, &dom, LEAK_DATA, &word, 8), 0, "C5 a word that only the domain has");
	vm_var(vm, leak_guest)->xsave = v->xsave;
	vcpu_call(v, g_leak_setup, 0);
	vcpu_call(v1, g_leak_setup, 0);
	ok(intact(), "C5 it has it");
	test_vmm();
	test_slots();
	test_emulator();
	test_pv();
	test_walk();
	test_nested();
	is(cell_destroy(v, &dom), 0, "C8 it goes");
	ok(!has_word(), "C8 and leaves nothing");
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
