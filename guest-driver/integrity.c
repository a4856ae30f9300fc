// SPDX-License-Identifier: GPL-2.0
/*
 * Integrity mode: building the inside's address space, registering it with the
 * host, and calling into it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/siphash.h>
#include <linux/string.h>
#include <asm/desc.h>
#include <asm/fpu/api.h>
#include "driver.h"

static_assert(RDT_HC_ENTER == RDT_ASM_HC_ENTER);
static_assert(RDT_HC_LEAVE == RDT_ASM_HC_LEAVE);
static_assert(RDT_HC_RESUME == RDT_ASM_HC_RESUME);
static_assert(RDT_RESUME_DROP == RDT_ASM_RESUME_DROP);
static_assert(sizeof(struct rdt_driver_desc) <= PAGE_SIZE);
static_assert(RDT_STACK_VA >> RDT_STACK_SHIFT == RDT_STACK_TAG);

/*
 * Addresses that exist in the inside's tables only. Stacks are 8 KiB with as
 * much unmapped below each; the test page follows the last one.
 */
#define STACK_VA	((unsigned long)RDT_STACK_VA)
#define STACK_SIZE	(2 * PAGE_SIZE)
#define STACK_STRIDE	(2 * STACK_SIZE)
#define TEST_VA		(STACK_VA + RDT_DRV_MAX_SLOTS * STACK_STRIDE + PAGE_SIZE)

/* Tables: the top two levels once, and three below for each of four corners, twice. */
#define TABLE_PAGES	24

bool rdt_sealed;
unsigned int rdt_slots;
const char *rdt_door_name = "none";
void *rdt_test_page;

static bool door_hc;
static struct rdt_space rdt_space;

static int add_region(struct rdt_driver_desc *d, phys_addr_t gpa, unsigned long pages, u32 kind)
{
	struct rdt_drv_region *last = d->regions ? &d->region[d->regions - 1] : NULL;

	if (last && last->kind == kind && last->gpa + last->pages * PAGE_SIZE == gpa) {
		last->pages += pages;
		return 0;
	}
	if (d->regions == RDT_DRV_MAX_REGIONS)
		return -E2BIG;
	d->region[d->regions++] = (struct rdt_drv_region){
		.gpa = gpa, .pages = pages, .kind = kind };
	return 0;
}

/* Maps [start, end) of this module at the same addresses, and declares its frames. */
static int add_section(struct rdt_driver_desc *d, const char *start, const char *end, u32 kind,
		       unsigned int map)
{
	const char *va;
	int err;

	/* Were a page shared with other code or data, protecting it would break that. */
	if (!PAGE_ALIGNED(start) || !PAGE_ALIGNED(end) || start >= end) {
		pr_err("a section of the inside is not made of whole pages: %px-%px\n", start, end);
		return -ENOEXEC;
	}
	for (va = start; va < end; va += PAGE_SIZE) {
		err = rdt_space_map(&rdt_space, (unsigned long)va, rdt_phys(va), map);
		err = err ?: add_region(d, rdt_phys(va), 1, kind);
		if (err)
			return err;
	}
	return 0;
}

static int add_stacks(struct rdt_driver_desc *d, unsigned int slots)
{
	unsigned int i, off;

	for (i = 0; i < slots; i++) {
		unsigned long top = STACK_VA + (i + 1) * STACK_STRIDE;

		for (off = STACK_SIZE; off; off -= PAGE_SIZE) {
			struct page *page = rdt_space_page(&rdt_space);
			int err;

			if (!page)
				return -ENOMEM;
			err = rdt_space_map(&rdt_space, top - off, page_to_phys(page), RDT_MAP_W);
			if (err)
				return err;
		}
		d->stack_top[i] = top;
	}
	d->slots = slots;
	return 0;
}

static int describe(struct rdt_driver_desc *d, unsigned int slots)
{
	const char *data = (const char *)&rdt_inside_data;
	struct desc_ptr idt;
	unsigned int i;
	int err;

	/* rdt_protect_module() leaves out the two as one. */
	if (&rdt_gate_end[0] != &rdt_call_start[0]) {
		pr_err("the doors' pages are not neighbours\n");
		return -ENOEXEC;
	}
	err = rdt_space_init(&rdt_space, TABLE_PAGES + slots * STACK_SIZE / PAGE_SIZE);
	if (err)
		return err;
	err = add_section(d, rdt_text_start, rdt_exit, RDT_DRV_TEXT, RDT_MAP_X);
	err = err ?: add_section(d, rdt_exit, rdt_exit_end, RDT_DRV_EXIT, RDT_MAP_X);
	err = err ?: add_section(d, rdt_gate, rdt_gate_end, RDT_DRV_GATE, RDT_MAP_X);
	err = err ?: add_section(d, rdt_call_start, rdt_call_end, RDT_DRV_TEXT, RDT_MAP_X);
	err = err ?: add_section(d, data, data + sizeof(rdt_inside_data), RDT_DRV_DATA, RDT_MAP_W);
	err = err ?: add_stacks(d, slots);
	if (err)
		return err;

	/*
	 * Event delivery inside reads the gate through these tables. The translation
	 * is there; the nested view makes the frame unreadable, and that is the exit.
	 */
	store_idt(&idt);
	d->idt_gva = idt.address;
	d->idt_gpa = rdt_phys((void *)idt.address);
	err = rdt_space_map(&rdt_space, d->idt_gva, d->idt_gpa, 0);
	if (!err && rdt_test_page)
		err = rdt_space_map(&rdt_space, TEST_VA, virt_to_phys(rdt_test_page), RDT_MAP_W);
	/* Last, for the mappings above may have been the first to use a frame. */
	for (i = 0; !err && i < rdt_space.chunks; i++)
		err = add_region(d, page_to_phys(rdt_space.chunk[i].page), 1ul << rdt_space.chunk[i].order,
				 RDT_DRV_DATA);
	if (err)
		return err;

	d->size = sizeof(*d);
	d->cr3 = rdt_space.cr3;	/* PCID 0, which Linux gives to no address space */
	d->gate_gva = (unsigned long)rdt_gate;
	d->exit_gva = (unsigned long)rdt_exit;
	d->call_gva = (unsigned long)rdt_call_behind;
	d->call_gpa = rdt_phys(rdt_call_behind);
	d->resume_gva = (unsigned long)rdt_resume;
	return 0;
}

/**
 * rdt_seal() - register the driver: integrity mode exists from here on.
 * @slots: how many threads may be inside at a time
 * @door: "auto", "fault" or "hypercall"
 * @test_action: RDT_ACT_* of a test page to map into the inside, 0 for none
 *
 * On success this module's memory is protected for good: it must not be unloaded.
 */
int rdt_seal(unsigned int slots, const char *door, unsigned int test_action)
{
	struct rdt_driver_desc *d;
	siphash_key_t key;
	int tries = 0;
	long ret;

	if (!strcmp(door, "hypercall"))
		door_hc = true;
	else if (strcmp(door, "auto") && strcmp(door, "fault"))
		return -EINVAL;

	d = (void *)get_zeroed_page(GFP_KERNEL);
	if (!d)
		return -ENOMEM;
	if (test_action) {
		rdt_test_page = (void *)get_zeroed_page(GFP_KERNEL);
		if (!rdt_test_page) {
			free_page((unsigned long)d);
			return -ENOMEM;
		}
		rdt_inside_data.test = TEST_VA;
	}

	rdt_inside_data.vmmcall = boot_cpu_has(X86_FEATURE_VMMCALL);
	rdt_inside_data.leave_hc = door_hc;
	get_random_bytes(&key, sizeof(key));
	rdt_inside_data.key[0] = key.key[0];
	rdt_inside_data.key[1] = key.key[1];
	/* Of the empty table; the inside has its own SipHash and keeps it up to date. */
	rdt_inside_data.digest = siphash(rdt_inside_data.policy, 0, &key);

	ret = describe(d, clamp(slots, 1u, (unsigned int)RDT_DRV_MAX_SLOTS));
	for (; !ret; tries++) {
		ret = rdt_hypercall(RDT_HC_DRIVER, virt_to_phys(d), 0, 0);
		/* The driver's frames are ranges too and take nodes of the tree. */
		if (ret != -ENOMEM || tries == 2)
			break;
		ret = rdt_donate(1);
	}
	if (ret) {
		rdt_space_free(&rdt_space);
		free_page((unsigned long)rdt_test_page);
		rdt_test_page = NULL;
		rdt_inside_data.test = 0;
	} else {
		/* The fault door costs less on both vendors: no check of RIP by a walk. */
		rdt_door_name = door_hc ? "hypercall" : "fault";
		rdt_slots = d->slots;
		rdt_sealed = true;
	}
	free_page((unsigned long)d);
	return ret;
}

/**
 * redoubt_call() - run one operation in integrity mode.
 * @op: enum rdt_op
 * @a: first argument
 * @b: second argument
 * @c: third argument
 *
 * May be called in any context and with interrupts on or off; the operation may be
 * interrupted, preempted and go on on another CPU. An exception that the inside
 * itself raises ends it with -EFAULT, an access to what is not its own with -EPERM.
 *
 * Return: the operation's result; -EAGAIN when all slots are taken or the policy
 * table is in use by another thread; -EPERM when the host refused entry (it has
 * raised an alert then); -ENODEV without integrity mode, also when the operator
 * has stopped watching this VM.
 */
long redoubt_call(unsigned long op, unsigned long a, unsigned long b, unsigned long c)
{
	long ret;

	if (!rdt_sealed)
		return -ENODEV;
	/*
	 * On the ordinary way the callee-saved registers come back, but not when a
	 * resume fails: so the compiler is told that all are lost.
	 */
	if (door_hc)
		asm volatile("call rdt_enter_hc"
			     : "=a" (ret), "+D" (op), "+S" (a), "+d" (b), "+c" (c),
			       ASM_CALL_CONSTRAINT
			     : : "rbx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
			       "r15", "memory", "cc");
	else
		asm volatile("call rdt_enter_fault"
			     : "=a" (ret), "+D" (op), "+S" (a), "+d" (b), "+c" (c),
			       ASM_CALL_CONSTRAINT
			     : : "rbx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
			       "r15", "memory", "cc");
	return ret;
}
EXPORT_SYMBOL_GPL(redoubt_call);

/**
 * redoubt_call_wait() - redoubt_call() that waits for a slot and for the policy table.
 * @op: enum rdt_op
 * @a: first argument
 * @b: second argument
 * @c: third argument
 *
 * May sleep. -EINTR when a fatal signal arrives first.
 */
long redoubt_call_wait(unsigned long op, unsigned long a, unsigned long b, unsigned long c)
{
	long ret;

	might_sleep();
	for (;;) {
		ret = redoubt_call(op, a, b, c);
		if (ret != -EAGAIN)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		usleep_range(50, 200);
	}
}
EXPORT_SYMBOL_GPL(redoubt_call_wait);
