// SPDX-License-Identifier: GPL-2.0
/*
 * The tree lies in the guest's memory. A4: nothing in it leads to the host's; A6: a
 * VMM, or a device, that rewrites it behind the module's back costs the tree, not
 * protection.
 */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "driver.h"
#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE			/* PAGES pages */
#define PAGES	2
#define MORE	(GUEST_FREE + 0x10000)		/* a page to donate later */
#define DESC	(GUEST_FREE + 0x20000)
#define AREA	(32ul << 20)			/* every fourth page under a rule */
#define RANGES	60
#define STRIDE	(4 * PAGE_SIZE)
#define TARGET	(AREA + 19 * STRIDE)		/* one of them, under DENY */
#define gp	13

/* What the uapi says of a node: the guest may read it. */
struct node {
	uint64_t first, count;
	uint32_t left, right;
	uint16_t flags;
	uint8_t cls, action, red, zero[3];
};
#define PAGE_NODES	(PAGE_SIZE / sizeof(struct node))
#define INDEX_PAGE	7			/* in an index: the page's number << 7, the slot */

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;

static int64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	return vcpu_call(v, g_hc, nr, a, b, c);
}

static int action_of(unsigned int range)
{
	return 1 + range % 3;
}

static u64 g_protect_all(void)
{
	u64 bad = 0;

	for (u64 i = 0; i < RANGES; i++)
		bad += guest_hc(RDT_HC_PROTECT, AREA + i * STRIDE, 1,
				RDT_ATTR(1 + i % 3, 1), 0) != 0;
	return bad;
}

/* How many of the protected pages a store faults at, and of the others. */
static u64 g_denied(void)
{
	u64 n = 0;

	for (u64 i = 0; i < RANGES; i++)
		n += guest_try_store(AREA + i * STRIDE + 8, i + 1) == gp;
	return n;
}

static u64 g_free_denied(void)
{
	u64 n = 0;

	for (u64 i = 0; i < RANGES; i++)
		for (u64 k = 1; k < 4; k++)
			n += guest_try_store(AREA + i * STRIDE + k * PAGE_SIZE, i + 1) != -1;
	return n;
}

static u64 g_query_wrong(u64 want)
{
	u64 bad = 0;

	for (u64 i = 0; i < RANGES; i++) {
		bad += guest_hc(RDT_HC_QUERY, AREA + i * STRIDE, 0, 0, 0) != (s64)want;
		bad += guest_hc(RDT_HC_QUERY, AREA + i * STRIDE + PAGE_SIZE, 0, 0, 0) != 0;
	}
	return bad;
}

static void start(void)
{
	vm = vm_create(RAM, 2, 0);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	is(vcpu_call(v, g_node_add, NODES, PAGES), PAGES, "A6 node pages");
	is(vcpu_call(v, g_protect_all), 0, "A6 ranges of each action");
}

static void end(void)
{
	rdt_close(r);
	vm_destroy(vm);
}

static struct node *find_node(uint64_t gpa)
{
	struct node *n = vm_host(vm, NODES);

	for (unsigned int i = 0; i < PAGES * PAGE_NODES; i++)
		if (i % PAGE_NODES && n[i].first == gpa / PAGE_SIZE && n[i].count == 1)
			return &n[i];
	tap_bail("no node for %#lx", gpa);
}

/* ---- A4 ------------------------------------------------------------------------------ */

static void test_no_pointers(void)
{
	const uint8_t *nodes;
	uint64_t pointers = 0, outside = 0, found = 0;

	start();
	nodes = vm_host(vm, NODES);
	for (unsigned int i = 0; i < RANGES; i++)
		found += find_node(AREA + i * STRIDE)->action == action_of(i);
	is(found, RANGES, "A4 the tree is in the node pages");
	for (uint64_t at = 0; at + 8 <= PAGES * PAGE_SIZE; at++) {
		uint64_t word;

		memcpy(&word, nodes + at, 8);
		if (word >> 48 == 0xffff) {
			tap_diag("%#lx at %#lx", word, at);
			pointers++;
		}
	}
	is(pointers, 0, "A4 no address of the host's kernel is in them");
	/* The guest has written nothing from here on, and the module nothing but nodes. */
	for (uint64_t at = GUEST_FREE; at < RAM; at += 8)
		if (at - NODES >= PAGES * PAGE_SIZE && vm_u64(vm, at)) {
			if (!outside++)
				tap_diag("%#lx at %#lx", vm_u64(vm, at), at);
		}
	is(outside, 0, "A4 nothing of the tree is anywhere else in guest memory");
	end();
}

/* ---- A6 ------------------------------------------------------------------------------ */

static void zeros(void)
{
	memset(vm_host(vm, NODES), 0, PAGES * PAGE_SIZE);
}

static void ones(void)
{
	memset(vm_host(vm, NODES), 0xff, PAGES * PAGE_SIZE);
}

static uint64_t seed = 88172645463325252;

static void noise(void)
{
	uint64_t *word = vm_host(vm, NODES);

	for (uint64_t i = 0; i < PAGES * PAGE_SIZE / 8; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		__atomic_store_n(&word[i], seed, __ATOMIC_RELAXED);
	}
}

static void self_pointers(void)
{
	struct node *n = vm_host(vm, NODES);

	for (uint32_t i = 0; i < PAGES * PAGE_NODES; i++)
		n[i].left = n[i].right = i / PAGE_NODES << INDEX_PAGE | i % PAGE_NODES;
}

static void far_pointers(void)
{
	struct node *n = vm_host(vm, NODES);

	for (uint32_t i = 0; i < PAGES * PAGE_NODES; i++)
		n[i].left = n[i].right = ~0u - i;
}

static void bit_of_first(void)
{
	find_node(TARGET)->first ^= 1ull << 40;
}

static void bit_of_count(void)
{
	find_node(TARGET)->count ^= 2;
}

static void bit_of_padding(void)
{
	find_node(TARGET)->zero[2] ^= 0x80;
}

/* Well-formed lies. */
static void weaker(void)
{
	find_node(TARGET)->action = RDT_ACT_LOG;
}

static void moved_away(void)
{
	find_node(TARGET)->first += 1;
}

static void another_node(void)
{
	*find_node(TARGET) = *find_node(TARGET + STRIDE);
}

/* As it was before the rule was made stronger. */
static void old_pages(void)
{
	static uint8_t copy[PAGES * PAGE_SIZE];

	if (rdt_protect(r, TARGET, 1, RDT_ACT_LOG, 1))
		tap_bail("RDT_VM_PROTECT");
	memcpy(copy, vm_host(vm, NODES), sizeof(copy));
	if (rdt_protect(r, TARGET, 1, RDT_ACT_DENY, 1))
		tap_bail("RDT_VM_PROTECT");
	memcpy(vm_host(vm, NODES), copy, sizeof(copy));
}

static const struct way {
	const char *name;
	void (*scribble)(void);
} ways[] = {
	{ "zeros", zeros }, { "ones", ones }, { "noise", noise },
	{ "nodes that point at themselves", self_pointers },
	{ "nodes that point far away", far_pointers },
	{ "one bit of a key", bit_of_first }, { "one bit of a length", bit_of_count },
	{ "one bit of padding", bit_of_padding }, { "a weaker action", weaker },
	{ "a range that moved", moved_away }, { "a copy of another node", another_node },
	{ "pages as they were", old_pages },
};

static void expect_corrupt(const char *name)
{
	struct rdt_regions l = { .nr = 16 };
	struct rdt_region list[16];
	struct rdt_event ev;
	uint64_t count;

	is(vcpu_call(v, g_denied), RANGES, "A6 %s: all protected pages are denied", name);
	is(rdt_count(r, RDT_EV_TREE_CORRUPT), 1, "A6 %s: TREE_CORRUPT, once", name);
	for (unsigned int i = 0; i < RANGES; i++)
		if (vm_u64(vm, AREA + i * STRIDE + 8)) {
			ok(false, "A6 %s: page %u is unchanged", name, i);
			break;
		}
	is(vcpu_call(v, g_free_denied), 0, "A6 %s: all others are free", name);
	ok(hc(RDT_HC_STATUS, 0, 0, 0) & RDT_ST_TREE_CORRUPT, "A6 %s: the status says so", name);
	ok(rdt_info(r).flags & RDT_VM_TREE_CORRUPT, "A6 %s: the operator sees it", name);
	is(rdt_info(r).frames, RANGES + PAGES, "A6 %s: and as many frames as before", name);

	rdt_drain(r);
	is(hc(RDT_HC_PROTECT, MORE, 1, RDT_ATTR(RDT_ACT_DENY, 0)), -EPERM, "A6 %s: PROTECT", name);
	is(hc(RDT_HC_PROTECT, TARGET, 1, RDT_ATTR(RDT_ACT_LOG, 0)), -EPERM, "A6 %s: PROTECT, weaker", name);
	is(hc(RDT_HC_NODE_ADD, MORE, 0, 0), -EPERM, "A6 %s: NODE_ADD", name);
	is(hc(RDT_HC_DRIVER, DESC, 0, 0), -EPERM, "A6 %s: DRIVER", name);
	ok(!rdt_next(r, &ev), "A6 %s: none of these is an alert", name);
	is(hc(RDT_HC_UNPROTECT, TARGET, 1, 0), -EPERM, "A6 %s: UNPROTECT", name);
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_UNPROTECT && ev.gpa == TARGET,
	   "A6 %s: which is an alert", name);
	is(vcpu_call(v, g_query_wrong, RDT_ATTR(RDT_ACT_DENY, RDT_CLS_OTHER)), 0,
	   "A6 %s: QUERY says DENY of each", name);
	is(vcpu_call(v, g_store, MORE, 1), -1, "A6 %s: what was not protected is writable", name);

	l.entries = (uintptr_t)list;
	fails(ioctl(r->fd, RDT_VM_REGIONS, &l), EUCLEAN, "A6 %s: RDT_VM_REGIONS", name);
	is(rdt_protect(r, MORE, 1, RDT_ACT_DENY, 0), -EPERM, "A6 %s: RDT_VM_PROTECT", name);
	is(rdt_protect(r, TARGET, 1, RDT_ACT_NONE, 0), -EPERM, "A6 %s: RDT_VM_PROTECT that removes", name);

	/* The write is an alert of its own each time, and node pages are what they were. */
	rdt_drain(r);
	count = vm_u64(vm, TARGET);
	is(vcpu_call(v, g_store, TARGET, ~count), gp, "A6 %s: denied for good", name);
	is(vm_u64(vm, TARGET), count, "A6 %s: and not written", name);
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_WRITE && ev.action == RDT_ACT_DENY && ev.gpa == TARGET,
	   "A6 %s: and reported", name);
	is(vcpu_call(v, g_store, NODES + PAGE_SIZE, 1), gp, "A6 %s: a node page is denied", name);
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_TREE_WRITE && ev.gpa == NODES + PAGE_SIZE,
	   "A6 %s: as TREE_WRITE", name);
	ok(!rdt_next(r, &ev), "A6 %s: nothing else is reported", name);
	is(rdt_count(r, RDT_EV_TREE_CORRUPT), 1, "A6 %s: TREE_CORRUPT was said once", name);
}

/* The way out: detach, attach, and all is as on the first day. */
static void expect_repair(const char *name)
{
	is(ioctl(r->fd, RDT_VM_DETACH, 0), 0, "A6 %s: detach", name);
	is(vcpu_call(v, g_store, TARGET, 7), -1, "A6 %s: then it is writable", name);
	is(vcpu_call(v, g_store, NODES, 7), -1, "A6 %s: a node page too", name);
	rdt_close(r);
	r = rdt_attach(vm->fd);
	ok(!(rdt_info(r).flags & RDT_VM_TREE_CORRUPT), "A6 %s: attached anew", name);
	is(vcpu_call(v, g_node_add, NODES, PAGES), PAGES, "A6 %s: the same node pages", name);
	is(hc(RDT_HC_PROTECT, TARGET, 1, RDT_ATTR(RDT_ACT_DENY, 5)), 0, "A6 %s: protect", name);
	is(vcpu_call(v, g_store, TARGET, 8), gp, "A6 %s: and it is denied", name);
	is(hc(RDT_HC_QUERY, TARGET, 0, 0), RDT_ATTR(RDT_ACT_DENY, 5), "A6 %s: by this rule", name);
}

static void test_scribble(void)
{
	for (unsigned int i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		const struct way *w = &ways[i];

		start();
		is(rdt_count(r, RDT_EV_TREE_CORRUPT), 0, "A6 %s: not yet", w->name);
		w->scribble();
		/* The first to look at the node finds out, whatever the rule was. */
		is(vcpu_call(v, g_store, TARGET, 1), gp, "A6 %s: the first write is denied", w->name);
		is(vm_u64(vm, TARGET), 0, "A6 %s: and does nothing", w->name);
		expect_corrupt(w->name);
		expect_repair(w->name);
		end();
	}
}

/* Rewritten while vCPUs walk it. */
static volatile bool stop;
static u64 go_on;

static void *scribbler(void *unused)
{
	while (!stop)
		noise();
	return NULL;
}

static u64 g_store_all_day(void)
{
	u64 through = 0;

	while (*(volatile u64 *)&go_on)
		through += RANGES - g_denied();
	return through;
}

static void test_scribble_race(void)
{
	pthread_t thread;

	start();
	/* LOG and FREEZE would go their own ways until the tree is found out. */
	for (unsigned int i = 0; i < RANGES; i++)
		if (rdt_protect(r, AREA + i * STRIDE, 1, RDT_ACT_DENY, 3))
			tap_bail("RDT_VM_PROTECT");
	*vm_var(vm, go_on) = 1;
	vcpu_start(&vm->vcpu[0], g_store_all_day);
	vcpu_start(&vm->vcpu[1], g_store_all_day);
	usleep(100000);
	stop = false;
	if (pthread_create(&thread, NULL, scribbler, NULL))
		tap_bail("pthread_create");
	usleep(1000000);
	*(volatile u64 *)vm_var(vm, go_on) = 0;
	is(vcpu_join(&vm->vcpu[0]), 0, "A6 while vCPUs write: none gets through");
	is(vcpu_join(&vm->vcpu[1]), 0, "A6 while vCPUs write: on neither vCPU");
	stop = true;
	pthread_join(thread, NULL);
	expect_corrupt("while vCPUs write");
	expect_repair("while vCPUs write");
	end();
}

/* Integrity mode does not ask the tree. */
static void test_driver(void)
{
	struct rdt_event ev;

	vm = vm_create(RAM, 1, 0);
	v = &vm->vcpu[0];
	drv_make(vm);
	r = rdt_attach(vm->fd);
	is(vcpu_call(v, g_node_add, NODES, PAGES), PAGES, "A6 driver: node pages");
	is(vcpu_call(v, g_protect_all), 0, "A6 driver: ranges");
	drv_describe(vm_host(vm, DESC));
	is(hc(RDT_HC_DRIVER, DESC, 0, 0), 0, "A6 driver: registered");
	noise();
	rdt_drain(r);
	is(vcpu_call(v, g_store, TARGET, 1), gp, "A6 driver: a protected page is denied");
	ok(rdt_find(r, RDT_EV_TREE_CORRUPT, &ev), "A6 driver: the tree is corrupt");
	rdt_drain(r);
	is(vcpu_call(v, g_store, DRV_DATA + 0x100, 1), gp, "A6 driver: its data is denied");
	ok(rdt_next(r, &ev) && ev.type == RDT_EV_DRIVER_WRITE && ev.cls == RDT_CLS_DRV_DATA,
	   "A6 driver: by its own rule");
	is(vcpu_call(v, g_store, GUEST_IDT, 1), gp, "A6 driver: the IDT is denied");
	is(vcpu_call(v, g_drv_call, IN_ECHO, 40, 2, 0), 42, "A6 driver: the door opens");
	is(vcpu_call(v, g_drv_call, IN_STORE, DRV_DATA + 0x100, 0x77, 0), 0, "A6 driver: it writes its data");
	is(vm_u64(vm, DRV_DATA + 0x100), 0x77, "A6 driver: which is written");
	is(vcpu_call(v, g_drv_call, IN_STORE, DRV_ARGS, TARGET, 0) |
	   vcpu_call(v, g_drv_call, IN_STORE, DRV_ARGS + 8, 1, 0) |
	   vcpu_call(v, g_drv_call, IN_STORE, DRV_ARGS + 16, 0, 0), 0, "A6 driver: arguments");
	is(vcpu_call(v, g_drv_call, IN_HYPERCALL, RDT_HC_UNPROTECT, 0, 0), -EPERM,
	   "A6 driver: not even it unprotects");
	is(vcpu_call(v, g_store, TARGET, 1), gp, "A6 driver: all stays denied");
	is(rdt_info(r).slots_busy, 0, "A6 driver: no slot is lost");
	is(ioctl(r->fd, RDT_VM_DETACH, 0), 0, "A6 driver: detach");
	is(vcpu_call(v, g_store, DRV_DATA, 1), -1, "A6 driver: then all is free");
	end();
}

int main(void)
{
	test_no_pointers();
	test_scribble();
	test_scribble_race();
	test_driver();
	return tap_end();
}
