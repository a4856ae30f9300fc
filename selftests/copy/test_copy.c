// SPDX-License-Identifier: GPL-2.0
/*
 * E1: copies that a VM's vCPUs see in place of its memory, while a device has that: by the nested page table, on
 * both vendors. redoubt_copier.ko is the device.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "copier.h"
#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define AREA	(16ul << 20)		/* aligned to 2 MiB */
#define SLOT	(256ul << 20)
#define SLOT_SIZE (4ul << 20)

static struct vm *vm;
static struct vcpu *v;
static int copier;

static u64 g_read(u64 gva)
{
	return guest_load(gva);
}

static void g_write(u64 gva, u64 value)
{
	guest_store(gva, value);
}

static void start(unsigned int flags, int vcpus)
{
	vm = vm_create(RAM, vcpus, flags);
	v = &vm->vcpu[0];
	copier = open("/dev/redoubt-copier", O_RDWR | O_CLOEXEC);
	if (copier < 0 || ioctl(copier, COPIER_VM, vm->fd))
		tap_bail("redoubt_copier");
}

static void end(void)
{
	close(copier);
	vm_destroy(vm);
}

static int show(u64 gpa)
{
	struct copier_show s = { .gfn = gpa / PAGE_SIZE, .page = (uint64_t)vm_host(vm, gpa) };

	return ioctl(copier, COPIER_SHOW, &s) ? -errno : 0;
}

static int hide(u64 gpa)
{
	return ioctl(copier, COPIER_HIDE, gpa / PAGE_SIZE) ? -errno : 0;
}

static volatile u64 *host(u64 gpa)
{
	return vm_host(vm, gpa);
}

static void test_one(unsigned int flags, const char *what)
{
	const u64 at = AREA + 5 * PAGE_SIZE;

	start(flags, 1);
	/* The whole area is mapped, by a huge page if there is one. */
	for (u64 gpa = AREA; gpa < AREA + (2 << 20); gpa += PAGE_SIZE)
		*host(gpa) = gpa;
	vcpu_call(v, g_write, AREA, AREA);
	*host(at) = 1;
	is(vcpu_call(v, g_read, at), 1, "E1 %s: the guest reads its memory", what);
	is(show(at), 0, "E1 %s: a copy", what);
	*host(at) = 2;
	is(vcpu_call(v, g_read, at), 1, "E1 %s: what is written to the memory the vCPU does not see", what);
	vcpu_call(v, g_write, at, 3);
	is(vcpu_call(v, g_read, at), 3, "E1 %s: what it writes it sees", what);
	is(*host(at), 2, "E1 %s: and nobody else", what);
	*host(at + PAGE_SIZE) = 4;
	is(vcpu_call(v, g_read, at + PAGE_SIZE), 4, "E1 %s: the next page is what it was", what);
	vcpu_call(v, g_write, at - PAGE_SIZE, 5);
	is(*host(at - PAGE_SIZE), 5, "E1 %s: and the one before", what);
	is(show(at), -EBUSY, "E1 %s: there is one copy of a page", what);
	is(hide(at), 0, "E1 %s: no copy any more", what);
	is(vcpu_call(v, g_read, at), 2, "E1 %s: the guest reads its memory again", what);
	vcpu_call(v, g_write, at, 6);
	is(*host(at), 6, "E1 %s: and writes to it", what);
	end();
}

static void test_slots(void)
{
	static uint64_t dirty[SLOT_SIZE / PAGE_SIZE / 64];
	void *mem = vm_alloc(SLOT_SIZE, 0);

	start(0, 1);
	is(vm_set_slot(vm, 1, SLOT, SLOT_SIZE, mem, KVM_MEM_LOG_DIRTY_PAGES), 0, "E3 a slot with a dirty log");
	vcpu_call(v, g_write, SLOT, 1);
	is(show(SLOT), 0, "E3 a copy of a page of it");
	vm_dirty_log(vm, 1, dirty);
	vcpu_call(v, g_write, SLOT, 2);
	vm_dirty_log(vm, 1, dirty);
	ok(dirty[0] & 1, "E3 a store to the copy is in the log");
	is(*host(SLOT), 1, "E3 and not in the memory");
	is(vm_set_slot(vm, 1, SLOT, 0, NULL, 0), 0, "E1 the slot goes");
	is(hide(SLOT), 0, "E1 then the copy");
	is(vm_set_slot(vm, 1, SLOT, SLOT_SIZE, mem, 0), 0, "E1 the slot comes again");
	is(vcpu_call(v, g_read, SLOT), 1, "E1 with its memory");
	is(show(SLOT + PAGE_SIZE), 0, "E1 a copy");
	madvise(mem, SLOT_SIZE, MADV_DONTNEED);
	is(vcpu_call(v, g_read, SLOT + PAGE_SIZE), 0, "E1 which stays when the VMM's page goes");
	vcpu_call(v, g_write, SLOT + PAGE_SIZE, 7);
	is(*host(SLOT + PAGE_SIZE), 0, "E1 and is still a copy");
	end();
	munmap(mem, SLOT_SIZE);
}

static void test_attached(void)
{
	struct rdt *r;

	start(0, 1);
	r = rdt_attach(vm->fd);
	is(show(AREA), -EBUSY, "E1 a VM that Redoubt protects has views instead");
	rdt_close(r);
	end();
}

/* The VM goes before its copies do. */
static void test_lifetime(void)
{
	start(0, 1);
	for (u64 i = 0; i < 64; i++)
		if (show(AREA + i * PAGE_SIZE))
			tap_bail("show");
	vcpu_call(v, g_write, AREA, 1);
	vm_destroy(vm);
	is(hide(AREA), 0, "E1 of a VM whose VMM has closed it");
	close(copier);
	ok(true, "E1 and the rest when the device goes");
}

/* Reads a value and then how high it may be, for so many rounds: how often it was higher. */
static u64 limit;
static u64 g_watch(u64 gva, u64 at_limit, u64 last)
{
	u64 seen, max, bad = 0;
	u32 leaf;

	do {
		/* A guest that never exits keeps a host of one CPU from its interrupts, in Bochs. */
		leaf = 0;
		asm volatile("cpuid" : "+a"(leaf) : : "ebx", "ecx", "edx");
		for (int i = 0; i < 50; i++) {
			seen = guest_load(gva);
			max = guest_load(at_limit);
			bad += seen > max;
			guest_store(gva + 8, max);
		}
	} while (max < last);
	return bad;
}

static void test_storm(unsigned int flags, u64 rounds, const char *what)
{
	const u64 at = AREA + 7 * PAGE_SIZE;
	volatile u64 *max;

	start(flags, 2);
	max = vm_var(vm, limit);
	*host(at) = *max = 0;
	for (int i = 0; i < 2; i++)
		vcpu_start(&vm->vcpu[i], g_watch, at, (uint64_t)&limit, rounds);
	for (u64 n = 1; n <= rounds; n++) {
		if (show(at))
			tap_bail("show");
		*host(at) = n;		/* the device writes */
		if (n % 16 == 0)
			usleep(1000);
		*max = n;		/* from here on it may be seen; x86 keeps both orders */
		if (hide(at))
			tap_bail("hide");
	}
	for (int i = 0; i < 2; i++)
		is(vcpu_join(&vm->vcpu[i]), 0, "E4 %s: vCPU %d has seen nothing before its time", what, i);
	end();
}

int main(int argc, char **argv)
{
	const u64 rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 300;

	test_one(VM_SMALL, "small pages");
	test_one(VM_THP, "huge pages");
	test_slots();
	test_attached();
	test_lifetime();
	test_storm(VM_SMALL, rounds, "small pages");
	test_storm(VM_THP, rounds, "huge pages");
	return tap_end();
}
