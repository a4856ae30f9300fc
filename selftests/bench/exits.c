// SPDX-License-Identifier: GPL-2.0
/*
 * What a crossing costs, counted by the guest's TSC, which in the lab counts
 * instructions (QEMU -icount shift=0; Bochs always): one VM, one run, everything
 * against the same empty hypercall. Prints one JSON object.
 */
#include <stdio.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/ioctl.h>

#include "../host/tap.h"
#include "bench.h"

enum { RAM = 32 << 20 };

/* Frames of the test, in guest-physical = linear addresses. */
enum {
	F_LOG = GUEST_FREE, F_DENY = F_LOG + 0x1000, F_TRACK = F_DENY + 0x1000,
	F_DESC = F_TRACK + 0x1000, F_GATE = F_DESC + 0x1000, F_EXIT = F_GATE + 0x1000,
	F_CALL = F_EXIT + 0x1000, F_STACK = F_CALL + 0x1000, F_PT = F_STACK + 0x1000,
	F_NODE = F_PT + 0x4000, F_RO = 0x40000000,
};

unsigned int runs = 200;
u32 cost[MAX_RUNS];

static u64 g_nothing(u64 n)
{
	MEASURE(n, asm volatile("" : : : "memory"));
	return 0;
}

static u64 g_null(u64 n)
{
	MEASURE(n, guest_hc(0x7fff, 0, 0, 0, 0));
	return 0;
}

static u64 g_store_loop(u64 n, u64 gva)
{
	MEASURE(n, guest_store(gva, i));
	return 0;
}

static u64 g_denied_loop(u64 n, u64 gva)
{
	u64 bad = 0;

	MEASURE(n, bad += guest_try_store(gva, i) != 13);
	return bad;
}

static u64 g_protect(u64 nr, u64 gpa, u64 pages, u64 attr)
{
	return guest_hc(nr, gpa, pages, attr, 0);
}

/* A call through a door and back. Everything that the uAPI does not preserve is clobbered. */
static inline u64 through(u64 door)
{
	u64 rax = door;

	asm volatile("leaq 1f(%%rip), %%r11\n\t"
		     "jmp *%%rax\n"
		     "1:"
		     : "+a"(rax) : : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
	return rax;
}

static u64 g_fault_door(u64 n)
{
	u64 bad = 0;

	MEASURE(n, bad += through(F_GATE) != F_GATE);
	return bad;
}

/* RAX is the call's number on the way in, the result on the way out. */
static u64 g_hypercall_door(u64 n)
{
	u64 bad = 0;

	MEASURE(n, bad += through(F_CALL) != 0x1234);
	return bad;
}

static int by_size(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return x < y ? -1 : x > y;
}

static double base;

static double median(struct vm *vm, unsigned int n)
{
	u32 *c = vm_host(vm, (u64)cost);

	qsort(c, n, sizeof(*c), by_size);
	return c[n / 2] - base;
}

double measure(struct vm *vm, u64 (*fn)(u64, u64), u64 arg, const char *name)
{
	u64 bad = vcpu_call(&vm->vcpu[0], fn, runs, arg, 0, 0);

	if (!vcpu_done(&vm->vcpu[0]) || bad) {
		vcpu_explain(&vm->vcpu[0]);
		tap_bail("%s: %lu of %u went wrong", name, bad, runs);
	}
	return median(vm, runs);
}

void put(const char *name, double value)
{
	static bool more;

	printf("%s\"%s\": %.0f", more ? ", " : "", name, value);
	more = true;
}

/* The smallest integrity driver: gate and exit, or hypercalls, and nothing inside. */
static void make_driver(struct vm *vm)
{
	struct rdt_driver_desc *d = vm_host(vm, F_DESC);
	u64 *pml4 = vm_host(vm, F_PT), *pdpt = pml4 + 512, *pd = pdpt + 512, *pt = pd + 512;
	u8 *gate = vm_host(vm, F_GATE), *call = vm_host(vm, F_CALL);
	static const u8 hc[2][3] = { { 0x0f, 0x01, 0xd9 }, { 0x0f, 0x01, 0xc1 } };
	const u8 *insn = hc[guest_is_intel];
	static const u64 mapped[] = { F_GATE, F_EXIT, F_CALL, F_STACK, GUEST_IDT };

	/* gate: jmp exit */
	gate[0] = 0xe9;
	*(int32_t *)(gate + 1) = F_EXIT - (F_GATE + 5);
	/* call: mov $ENTER, %eax; zero the arguments that do not count; hypercall */
	call[0] = 0xb8;
	*(u32 *)(call + 1) = RDT_HC_ENTER;
	memcpy(call + 5, insn, 3);
	/* inside: mov $LEAVE, %eax; mov $0x1234, %ebx; xor ecx, edx, esi; hypercall */
	call[8] = 0xb8;
	*(u32 *)(call + 9) = RDT_HC_LEAVE;
	call[13] = 0xbb;
	*(u32 *)(call + 14) = 0x1234;
	memcpy(call + 18, "\x31\xc9\x31\xd2\x31\xf6", 6);
	memcpy(call + 24, insn, 3);

	memset(pml4, 0, 4 * PAGE_SIZE);
	pml4[0] = (F_PT + 0x1000) | PTE_P | PTE_W;
	pdpt[0] = (F_PT + 0x2000) | PTE_P | PTE_W;
	pd[F_GATE >> 21] = (F_PT + 0x3000) | PTE_P | PTE_W;
	for (unsigned int i = 0; i < 4; i++)
		pt[mapped[i] >> 12 & 511] = mapped[i] | PTE_P | (mapped[i] == F_STACK ? PTE_W : 0);
	/* The IDT lies in the first 2 MiB. */
	pd[0] = 0 | PTE_P | PTE_PS;

	memset(d, 0, sizeof(*d));
	d->size = sizeof(*d);
	d->cr3 = F_PT;
	d->idt_gva = d->idt_gpa = GUEST_IDT;
	d->gate_gva = F_GATE;
	d->exit_gva = F_EXIT;
	d->call_gva = d->call_gpa = F_CALL + 8;
	d->resume_gva = F_CALL + 0x100;
	d->slots = 1;
	d->stack_top[0] = F_STACK + 0x1000;
	d->regions = 5;
	d->region[0] = (struct rdt_drv_region){ F_GATE, 1, RDT_DRV_GATE };
	d->region[1] = (struct rdt_drv_region){ F_EXIT, 1, RDT_DRV_EXIT };
	d->region[2] = (struct rdt_drv_region){ F_CALL, 1, RDT_DRV_TEXT };
	d->region[3] = (struct rdt_drv_region){ F_STACK, 1, RDT_DRV_DATA };
	d->region[4] = (struct rdt_drv_region){ F_PT, 4, RDT_DRV_DATA };
}

/* KVM alone: a store into a read-only slot goes to the VMM and comes back. */
static double mmio(struct vm *vm)
{
	struct vcpu *v = &vm->vcpu[0];

	vcpu_call(v, g_store_loop, runs, F_RO, 0, 0);
	while (v->exit == KVM_EXIT_MMIO)
		vcpu_resume(v);
	if (!vcpu_done(v)) {
		vcpu_explain(v);
		tap_bail("read-only slot");
	}
	return median(vm, runs);
}

static double page_track(struct vm *vm)
{
	struct {
		int32_t fd;
		u32 zero;
		u64 gfn;
	} arg = { vm->fd, 0, F_TRACK >> 12 };
	int fd = open("/dev/rdt_bench_track", O_RDWR);
	unsigned long seen = 0;
	double c;

	if (fd < 0 || write(fd, &arg, sizeof(arg)) != sizeof(arg))
		tap_bail("rdt_bench_track");
	c = measure(vm, g_store_loop, F_TRACK, "page-track");
	if (read(fd, &seen, sizeof(seen)) != sizeof(seen) || seen < runs)
		tap_bail("page-track saw %lu writes of %u", seen, runs);
	close(fd);
	return c;
}

void must(struct vm *vm, s64 result, const char *what)
{
	if (result < 0) {
		vcpu_explain(&vm->vcpu[0]);
		tap_bail("%s: %ld", what, result);
	}
}

int main(int argc, char **argv)
{
	struct vm *vm;
	struct vcpu *v;
	struct rdt *r = NULL;
	struct rdt_event ev;
	bool module = access("/dev/redoubt", F_OK) == 0;
	unsigned int n;

	if (argc > 1)
		runs = atoi(argv[1]);
	if (runs < 10 || runs > MAX_RUNS)
		tap_bail("runs: 10..%d", MAX_RUNS);
	kvm_dev();
	vm = vm_create(RAM, 1, 0);
	v = &vm->vcpu[0];
	if (vm_set_slot(vm, 1, F_RO, PAGE_SIZE, vm_alloc(HUGE_SIZE, 0), KVM_MEM_READONLY))
		tap_bail("read-only slot");
	vm_map(vm, F_RO, F_RO, PAGE_SIZE, PTE_W);
	/* 4 KiB pages for the frames of the test. */
	vm_map(vm, F_LOG, F_LOG, 0x40000, PTE_W);

	vcpu_call(v, g_nothing, runs, 0, 0, 0);
	base = 0;
	base = median(vm, runs);

	printf("{");
	put("base", base);
	put("null", measure(vm, (void *)g_null, 0, "empty hypercall"));
	put("mmio", mmio(vm));
	put("page_track", page_track(vm));
	if (module) {
		r = rdt_attach(vm->fd);
		put("null_attached", measure(vm, (void *)g_null, 0, "empty hypercall"));
		put("page_track_attached", page_track(vm));
		must(vm, vcpu_call(v, g_node_add, F_NODE, 2, 0, 0), "NODE_ADD");
		must(vm, vcpu_call(v, g_protect, RDT_HC_PROTECT, F_LOG, 1,
				   RDT_ATTR(RDT_ACT_LOG, 0)), "PROTECT");
		must(vm, vcpu_call(v, g_protect, RDT_HC_PROTECT, F_DENY, 1,
				   RDT_ATTR(RDT_ACT_DENY, 0)), "PROTECT");
		rdt_drain(r);
		put("logged_write", measure(vm, g_store_loop, F_LOG, "logged write"));
		for (n = 0; rdt_find(r, RDT_EV_WRITE, &ev); n++)
			;
		if (n + r->lost < runs + WARM)
			tap_bail("%u of %u logged writes were reported", n, runs + WARM);
		rdt_drain(r);
		put("denied_write", measure(vm, g_denied_loop, F_DENY, "denied write"));
		for (n = 0; rdt_find(r, RDT_EV_WRITE, &ev); n++)
			;
		if (n + r->lost < runs + WARM)
			tap_bail("%u of %u denied writes were reported", n, runs + WARM);
		make_driver(vm);
		must(vm, vcpu_call(v, g_protect, RDT_HC_DRIVER, F_DESC, 0, 0), "DRIVER");
		put("fault_door", measure(vm, (void *)g_fault_door, 0, "fault door"));
		put("hypercall_door", measure(vm, (void *)g_hypercall_door, 0, "hypercall door"));
		put("null_sealed", measure(vm, (void *)g_null, 0, "empty hypercall"));
		bench_domains(vm, r);
		bench_signing();
	}
	printf("}\n");
	vm_destroy(vm);
	return 0;
}
