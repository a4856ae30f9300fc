// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that makes guests. L1, attached and with a sealed driver, is the attacker: it
 * has L2 store, jump and call for it, and names protected frames as the structures that
 * KVM keeps for L2. B6: no door opens to L2; A3, B3: what it stores; A9: what KVM writes.
 */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "driver.h"
#include "l2.h"
#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE			/* 2 pages */
#define DENY	(GUEST_FREE + 0x100000)
#define LOG	(GUEST_FREE + 0x110000)
#define FREE	(GUEST_FREE + 0x120000)		/* each test has its own.. */
#define FORGED	(GUEST_FREE + 0x130000)
#define DESC	(GUEST_FREE + 0x140000)
#define STRUCTS	(GUEST_FREE + 0x150000)		/* ..structures of nested guests */
#define MARK	(DRV_DATA + 0x180)		/* the driver's, 0 */
#define FORGED_GVA 0x38000000ul
#define OFFSET	0x340
#define SECONDS	30				/* nothing takes as long, but a livelock */
#define MSR_TSC	0x10
#define gp	13

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;
static struct l2_conf *conf;
static struct l2_exit *last;
static bool stuck;			/* this VM's vCPU: say so once */
static volatile sig_atomic_t late;
static int seconds = SECONDS;

/* ---- running, for so long and no longer ------------------------------------------------ */

static void on_alarm(int sig)
{
	late = 1;
}

static bool run(struct vcpu *c)
{
	/* Again and again: one may come when KVM_RUN is not entered yet. */
	const struct itimerval on = { { 1, 0 }, { seconds, 0 } }, off = { };

	late = 0;
	setitimer(ITIMER_REAL, &on, NULL);
	do
		vcpu_run(c);
	while ((c->error == EINTR || c->error == EAGAIN) && !late);
	setitimer(ITIMER_REAL, &off, NULL);
	return !late;
}

static uint64_t call4(struct vcpu *c, void *fn, const uint64_t arg[4])
{
	if (stuck)
		return -1000ul;
	vcpu_prepare4(c, fn, arg);
	if (!run(c)) {
		stuck = true;
		ok(false, "A10 the guest comes to an end in %u s", SECONDS);
		vcpu_explain(c);
		return -1000ul;
	}
	if (c->stop != STOP_DONE)
		vcpu_explain(c);
	return c->stop == STOP_DONE ? c->value : -1001ul;
}

#define call(c, fn, ...) call4(c, (void *)(fn), VCPU_ARGS(__VA_ARGS__))

/* In L2, which must end by itself. */
static int64_t l2(void *fn, uint64_t a, uint64_t b)
{
	int64_t ret = call(v, g_l2, (uint64_t)fn, a, b);

	if (!last->entered && last->code == L2_HLT)
		return ret;
	if (!stuck)
		tap_diag("L2: entered %ld code %#lx info %#lx %#lx rip %#lx", last->entered,
			 last->code, last->info1, last->info2, last->rip);
	return -1002;
}

static int64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	return call(v, g_hc, nr, a, b, c);
}

static int64_t protect(uint64_t gpa, uint64_t pages, int action)
{
	return hc(RDT_HC_PROTECT, gpa, pages, RDT_ATTR(action, RDT_CLS_OTHER));
}

/* ---- in the guest ----------------------------------------------------------------------- */

static u64 g_xadd(u64 gva, u64 value)
{
	return guest_try("lock xaddq %1, (%0)", "r"(gva), "r"(value));
}

static u64 g_cr8(u64 value)
{
	asm volatile("movq %0, %%cr8" : : "r"(value));
	return 0;
}

static u64 g_try_load(u64 gva)
{
	return guest_try("movq (%0), %%r11", "r"(gva));
}

/* In what KVM shadows it is KVM that carries it out. */
static u64 g_xchg(u64 gva, u64 value)
{
	asm volatile("xchgq %0, (%1)" : "+r"(value) : "r"(gva) : "memory");
	return value;
}

static u64 go_on;

/* Enter L2 again and again: it stands at its HLT. How often that was refused. */
static u64 g_l2_always(u64 fn, u64 a)
{
	u64 refused = 0;

	g_l2_make(fn, a, 0);
	while (*(volatile u64 *)&go_on) {
		g_l2_enter();
		refused += !!l2_exit.entered;
	}
	return refused;
}

/* L2 enters a guest of its own: an exit each time, and L1 has it try again. */
static u64 g_l2_nests(u64 times)
{
	u64 other = 0;

	g_l2_make((u64)g_l2_enter, 0, 0);
	while (times--) {
		g_l2_enter();
		/* VMRUN; the first of VMX's is a VMWRITE. */
		other += l2_exit.entered || l2_exit.code != (guest_is_intel ? 25 : 0x80);
	}
	return other;
}

/* As a caller of the driver would, to have it store. */
static u64 g_jump(u64 target, u64 rax)
{
	return guest_try("leaq 99f(%%rip), %%r11\n\tjmp *%%rcx",
			 "c"(target), "a"(rax), "D"(IN_STORE), "S"(MARK), "d"(0x6666));
}

/* ---- the stage --------------------------------------------------------------------------- */

enum { T_DENY, T_LOG, T_NODE, T_DATA, T_TEXT, T_IDT, T_GATE, T_NR };

static struct target {
	const char *name;
	uint64_t frame;
	uint16_t event;
} targets[T_NR] = {
	[T_DENY] = { "a frame under DENY", DENY, RDT_EV_WRITE },
	[T_LOG] = { "a frame under LOG", LOG, RDT_EV_WRITE },
	[T_NODE] = { "a node page", NODES + PAGE_SIZE, RDT_EV_TREE_WRITE },
	[T_DATA] = { "the driver's data", DRV_DATA, RDT_EV_DRIVER_WRITE },
	[T_TEXT] = { "the driver's text", 0, RDT_EV_DRIVER_WRITE },
	[T_IDT] = { "the IDT", GUEST_IDT, RDT_EV_WRITE },
	[T_GATE] = { "the gate", 0, RDT_EV_DRIVER_WRITE },
};

/* How L2 gets at L1's memory. */
enum mode { SHARED, OWN_CR3, NESTED, NESTED_ALIAS, MODES };
static const char *const mode_name[] = {
	"L1's page tables", "CR3 of its own", "nested paging", "nested paging, an alias",
};

static uint64_t address(enum mode mode, int target)
{
	return mode == NESTED_ALIAS ? L2_ALIAS + target * PAGE_SIZE : targets[target].frame;
}

static void set_mode(enum mode mode)
{
	/* EPT: four levels, write-back, with accessed and dirty bits. */
	conf->npt = mode < NESTED ? 0 : guest_is_intel ? L2_NPT | 1 << 6 | 3 << 3 | 6 : L2_NPT;
	conf->cr3 = mode == OWN_CR3 ? L2_CR3 : GUEST_PML4;
}

static void start(unsigned int flags)
{
	uint64_t frame[T_NR];

	vm = vm_create(RAM, 2, flags);
	v = &vm->vcpu[0];
	stuck = false;
	conf = vm_var(vm, l2_conf);
	last = vm_var(vm, l2_exit);
	*conf = (struct l2_conf){ .vmcb = L2_VMCB, .hsave = L2_HSAVE, .cr3 = GUEST_PML4 };
	for (int i = 0; i < T_NR; i++)
		frame[i] = targets[i].frame;
	l2_npt_make(vm, frame, T_NR);
	memcpy(vm_host(vm, L2_CR3), vm_host(vm, GUEST_PML4), PAGE_SIZE);
	r = rdt_attach(vm->fd);
	drv_make(vm);
	is(call(v, g_node_add, NODES, 2), 2, "A1 node pages");
	is(protect(DENY, 1, RDT_ACT_DENY), 0, "A3 a frame under DENY");
	is(protect(LOG, 1, RDT_ACT_LOG), 0, "A10 a frame under LOG");
	drv_describe(vm_host(vm, DESC));
	is(hc(RDT_HC_DRIVER, DESC, 0, 0), 0, "B6 a driver");
	is(call(v, g_l2_on), 0, "A9 L1 turns virtualization on");
}

static void end(void)
{
	rdt_close(r);
	vm_destroy(vm);
}

/* All events since the last time; the first is kept. */
static unsigned int raised(struct rdt_event *ev)
{
	struct rdt_event next;
	unsigned int n = 0;

	for (; rdt_next(r, &next); n++)
		if (!n)
			*ev = next;
	return n;
}

static bool only(uint32_t type, uint8_t action, uint64_t gpa, struct rdt_event *ev)
{
	unsigned int n = raised(ev);

	if (n == 1 && ev->type == type && ev->action == action && ev->gpa == gpa)
		return true;
	tap_diag("%u events, the first:", n);
	if (n)
		rdt_print(ev);
	return false;
}

/* ---- B6: the doors ----------------------------------------------------------------------- */

static void still_outside(const char *what, uint64_t enters)
{
	struct rdt_vm_info info = rdt_info(r);

	is(vm_u64(vm, MARK), 0, "B6 %s: the driver's memory is unchanged", what);
	is(info.enters, enters, "B6 %s: nobody has entered", what);
	is(info.slots_busy, 0, "B6 %s: no slot is taken", what);
	is(call(v, g_store, MARK, 1), gp, "B6 %s: L1 is in the root view", what);
	is(call(v, g_drv_call, IN_ECHO, 40, 2, 0), 42, "B6 %s: the door is open to L1", what);
}

static void test_doors(void)
{
	const uint64_t door = (uint64_t)(guest_is_intel ? drv_behind_vmcall : drv_behind_vmmcall) - 3;
	struct rdt_event ev;
	char what[80];

	for (enum mode mode = 0; mode < MODES; mode++) {
		uint64_t enters = rdt_info(r).enters;

		set_mode(mode);
		is(l2(g_load, FREE, 0), 0, "B6 L2 runs with %s", mode_name[mode]);
		rdt_drain(r);
		snprintf(what, sizeof(what), "L2 at the gate with %s", mode_name[mode]);
		is(l2(g_jump, address(mode, T_GATE), 0), gp, "B6 %s: #GP", what);
		if (raised(&ev) != 1 || !ok(ev.type == RDT_EV_GATE || ev.type == RDT_EV_EXEC,
					    "B6 %s: is an alert", what))
			rdt_print(&ev);
		still_outside(what, enters);

		enters = rdt_info(r).enters;
		snprintf(what, sizeof(what), "L2's hypercall at the door with %s", mode_name[mode]);
		conf->calls = true;
		call(v, g_l2, (uint64_t)g_jump, door, RDT_HC_ENTER);
		is(last->code, L2_VMCALL, "B6 %s: is L1's to answer", what);
		still_outside(what, enters);
		conf->calls = false;
	}
}

/*
 * SVM, and L1 does not ask for it: #UD. KVM of 6.1 would rather mend the instruction, and
 * tries that until the VMM has enough.
 */
static void test_unwanted_call(void)
{
	uint64_t enters = rdt_info(r).enters;

	set_mode(SHARED);
	vcpu_prepare(v, g_l2, (uint64_t)g_jump, (uint64_t)drv_behind_vmmcall - 3, RDT_HC_ENTER);
	seconds = 2;
	if (run(v))
		is(v->value, 6, "B6 L2's hypercall at the door that nobody wants: #UD");
	seconds = SECONDS;
	is(rdt_info(r).enters, enters, "B6 L2's hypercall at the door that nobody wants: is no way in");
	is(vm_u64(vm, MARK), 0, "B6 the driver's memory is unchanged");
}

/* ---- A3, B3: L2's stores ------------------------------------------------------------------ */

static void try_store(enum mode mode, int target, bool locked)
{
	const struct target *t = &targets[target];
	const uint64_t at = t->frame + OFFSET, before = vm_u64(vm, at), value = 0x1111222233334444;
	const bool nested = mode >= NESTED, logged = target == T_LOG;
	struct rdt_event ev;
	int64_t vector;
	char what[120];

	snprintf(what, sizeof(what), "L2 with %s %s %s", mode_name[mode],
		 locked ? "adds, locked, to" : "stores to", t->name);
	rdt_drain(r);
	vector = l2(locked ? g_xadd : g_store, address(mode, target) + OFFSET, value);
	/* With nested paging KVM emulates: a plain store is left out. */
	is(vector, logged || (nested && !locked) ? -1 : gp, "A3 %s: the vector", what);
	if (logged)
		is(vm_u64(vm, at), locked ? before + value : value, "A10 %s: it happens, once", what);
	else
		is(vm_u64(vm, at), before, "A3 %s: nothing is written", what);
	ok(only(t->event, logged ? RDT_ACT_LOG : RDT_ACT_DENY, at, &ev), "A3 %s: one event", what);
}

static void test_stores(void)
{
	for (enum mode mode = 0; mode < MODES; mode++) {
		set_mode(mode);
		for (int t = 0; t < T_NR; t++) {
			try_store(mode, t, false);
			try_store(mode, t, true);
		}
	}
}

/* A right that L2 has is gone when the frame is protected. */
static void test_late_rule(void)
{
	struct rdt_event ev;

	for (enum mode mode = 0; mode < NESTED_ALIAS; mode++) {
		const uint64_t at = FREE + mode * PAGE_SIZE;

		set_mode(mode);
		is(l2(g_store, at, 7), -1, "A3 L2 with %s stores to a free frame", mode_name[mode]);
		is(vm_u64(vm, at), 7, "A3 L2 with %s: it is written", mode_name[mode]);
		is(protect(at, 1, RDT_ACT_DENY), 0, "A3 which is then protected");
		rdt_drain(r);
		l2(g_store, at, 8);
		is(vm_u64(vm, at), 7, "A3 L2 with %s does not write any more", mode_name[mode]);
		ok(only(RDT_EV_WRITE, RDT_ACT_DENY, at, &ev), "A3 L2 with %s: one event", mode_name[mode]);
	}
}

/* Accessed and dirty bits, in what L2 has for a page table and L1 for a nested one. */
static void test_walks(void)
{
	uint64_t *pd = vm_host(vm, GUEST_PD), *forged = vm_host(vm, FORGED);
	uint8_t before[4 * PAGE_SIZE];
	const uint64_t old = (FREE + 0x8000) | PTE_P | PTE_W | PTE_U;

	pd[FORGED_GVA / HUGE_SIZE] = FORGED | PTE_P | PTE_W | PTE_U | PTE_A;
	for (int i = 0; i < MODES; i++)
		forged[i] = old;
	is(protect(FORGED, 1, RDT_ACT_DENY), 0, "A9 a forged page table under DENY");
	for (enum mode mode = 0; mode < NESTED_ALIAS; mode++) {
		/* For them KVM has EPT's own bits off, and Bochs then writes without a look. */
		if (guest_is_intel && mode < NESTED) {
			tap_skip("A9 page walks of L2 with %s: Bochs", mode_name[mode]);
			continue;
		}
		set_mode(mode);
		l2(g_try_load, FORGED_GVA + mode * PAGE_SIZE, 0);
		is(forged[mode], old, "A9 L2 with %s: its page walk sets no bit in it", mode_name[mode]);
	}

	/* KVM has walked them; these are forgotten with a new root. */
	set_mode(NESTED);
	memcpy(vm_host(vm, L2_NPT + 0x4000), vm_host(vm, L2_NPT), 4 * PAGE_SIZE);
	for (int level = 0; level < 3; level++) {
		uint64_t *entry = vm_host(vm, L2_NPT + 0x4000 + level * PAGE_SIZE);

		for (int i = 0; i < 512; i++)
			if (entry[i])
				entry[i] = (entry[i] & ~(guest_is_intel ? 0x300ul : PTE_A | PTE_D)) +
					   (level < 2 || i == L2_ALIAS / HUGE_SIZE ? 0x4000 : 0);
	}
	memcpy(before, vm_host(vm, L2_NPT + 0x4000), sizeof(before));
	is(protect(L2_NPT + 0x4000, 4, RDT_ACT_DENY), 0, "A9 nested page tables under DENY");
	conf->npt += 0x4000;
	is(l2(g_store, FREE + 0x9000, 5), -1, "A9 L2 runs by them");
	is(l2(g_store, L2_ALIAS + T_LOG * PAGE_SIZE, 5), -1, "A9 L2 runs by the last of them");
	ok(!memcmp(before, vm_host(vm, L2_NPT + 0x4000), sizeof(before)), "A9 and they are unchanged");
}

/* KVM sees what a locked instruction does to a page table that it shadows. */
static void test_shadowed(void)
{
	const uint64_t gva = L2_ALIAS + HUGE_SIZE, pt = L2_NPT + 0x10000;
	const uint64_t entry = L2_NPT + 2 * PAGE_SIZE + gva / HUGE_SIZE * 8;
	uint64_t *pd = vm_host(vm, L2_NPT + 2 * PAGE_SIZE), *leaf = vm_host(vm, L2_NPT + 3 * PAGE_SIZE);
	const uint64_t rights = pd[L2_ALIAS / HUGE_SIZE] & 0xfff, bits = leaf[0] & 0xfff;

	for (int i = 0; i < 3; i++) {
		*(uint64_t *)vm_host(vm, FREE + 0x10000 + i * PAGE_SIZE) = 100 + i;
		*(uint64_t *)vm_host(vm, pt + i * PAGE_SIZE) = (FREE + 0x10000 + i * PAGE_SIZE) | bits;
	}
	pd[gva / HUGE_SIZE] = pt | rights;
	set_mode(NESTED);
	is(l2(g_load, gva, 0), 100, "A9 L2 by a nested page table");
	for (int i = 1; i < 3; i++) {
		is(call(v, g_xchg, entry, (pt + i * PAGE_SIZE) | rights) & ~0xffful, pt + (i - 1) * PAGE_SIZE,
		   "A9 L1 exchanges it for another");
		is(l2(g_load, gva, 0), 100 + i, "A9 L2 by that other one");
	}

	/* Under LOG as well: both Redoubt and KVM look after it. */
	is(protect(entry & -PAGE_SIZE, 1, RDT_ACT_LOG), 0, "A10 a nested page table under LOG");
	for (int i = 0; i < 4; i++) {
		const uint64_t value = (pt + i % 3 * PAGE_SIZE) | rights;
		struct rdt_event ev;

		rdt_drain(r);
		if (i & 1)
			call(v, g_xchg, entry, value);
		else
			call(v, g_store, entry, value);
		is(vm_u64(vm, entry) & ~0x360ul, value & ~0x360ul, "A10 L1 %s it", i & 1 ? "exchanges" : "stores to");
		ok(only(RDT_EV_WRITE, RDT_ACT_LOG, entry, &ev), "A10 which is one event");
		is(l2(g_load, gva, 0), 100 + i % 3, "A10 L2 by what it is now");
	}
}

static void test_deeper(void)
{
	set_mode(SHARED);
	is(call(v, g_l2_nests, guest_is_intel ? 20 : 500), 0, "A9 L2 cannot enter a guest of its own");
	is(l2(g_load, FREE, 0), 0, "A9 L2 runs as before");
}

/* ---- A9: structures ----------------------------------------------------------------------- */

static const int homes[] = { T_DENY, T_LOG, T_NODE, T_DATA };
#define HOMES (sizeof(homes) / sizeof(homes[0]))

static uint8_t saved[PAGE_SIZE];

static void save(uint64_t gpa)
{
	memcpy(saved, vm_host(vm, gpa), PAGE_SIZE);
	rdt_drain(r);
}

static void unchanged(uint64_t gpa, uint32_t type, const char *what)
{
	struct rdt_event ev;

	ok(!memcmp(saved, vm_host(vm, gpa), PAGE_SIZE), "A9 %s: nothing is written", what);
	if (type)
		ok(raised(&ev) && ev.type == type && ev.gpa >> 12 == gpa >> 12, "A9 %s: is an alert", what);
}

static void test_vmcb(void)
{
	uint8_t *vmcb = vm_host(vm, L2_VMCB);
	char what[120];

	set_mode(SHARED);
	for (unsigned int i = 0; i < HOMES; i++) {
		const struct target *t = &targets[homes[i]];
		uint8_t old[PAGE_SIZE];

		memcpy(old, vm_host(vm, t->frame), PAGE_SIZE);
		for (int valid = 1; valid >= 0; valid--) {
			snprintf(what, sizeof(what), "%s as a VMCB%s", t->name, valid ? "" : ", a bad one");
			conf->vmcb = L2_VMCB;
			call(v, g_l2_make, (uint64_t)g_load, FREE, 0);
			if (!valid)
				memset(vmcb + 0x10, 0, 4);
			/* A VMM may write where it wants. */
			memcpy(vm_host(vm, t->frame), vmcb, PAGE_SIZE);
			if (homes[i] == T_NODE)
				memcpy(vm_host(vm, t->frame), old, PAGE_SIZE);
			save(t->frame);
			conf->vmcb = t->frame;
			call(v, g_l2_enter);
			is(last->entered, gp, "A9 %s: VMRUN is #GP", what);
			unchanged(t->frame, RDT_EV_PV_STRUCT, what);
		}
		snprintf(what, sizeof(what), "VMSAVE to %s", t->name);
		save(t->frame);
		is(call(v, g_vmsave, t->frame), gp, "A9 %s: #GP", what);
		unchanged(t->frame, RDT_EV_PV_STRUCT, what);
		memcpy(vm_host(vm, t->frame), old, PAGE_SIZE);
	}
	conf->vmcb = L2_VMCB;
	is(l2(g_load, FREE, 0), 0, "A9 VMRUN with a VMCB elsewhere");
}

/* What L2 is in the midst of cannot be protected; and can be when it is done. */
static u64 g_l2_pause(u64 value)
{
	guest_sync(value);
	return value + 1;
}

static void paused_with(uint64_t gpa, const char *what)
{
	struct vcpu *other = &vm->vcpu[1];

	vcpu_prepare(v, g_l2, (uint64_t)g_l2_pause, 41);
	if (!ok(run(v) && v->stop == STOP_SYNC && v->value == 41, "A9 L2 stands, with %s", what)) {
		vcpu_explain(v);
		return;
	}
	is((int64_t)call(other, g_hc, RDT_HC_PROTECT, gpa, 1, RDT_ATTR(RDT_ACT_DENY, 0)), -EBUSY,
	   "A9 %s in use cannot be protected", what);
	is((int64_t)call(other, g_hc, RDT_HC_NODE_ADD, gpa, 0, 0), -EBUSY,
	   "A9 %s in use cannot become a node page", what);
	is(rdt_protect(r, gpa, 1, RDT_ACT_LOG, 0), -EBUSY, "A9 nor can the operator protect %s", what);
	is((int64_t)call(other, g_hc, RDT_HC_QUERY, gpa, 0, 0), 0, "A9 and %s is not", what);
	ok(run(v) && v->stop == STOP_DONE && v->value == 42, "A9 L2 goes on, with %s", what);
	is(last->code, L2_HLT, "A9 and ends, with %s", what);
}

static void test_vmcb_in_use(void)
{
	const uint64_t vmcb = STRUCTS;

	set_mode(SHARED);
	conf->vmcb = vmcb;
	paused_with(vmcb, "a VMCB");
	is(protect(vmcb, 1, RDT_ACT_DENY), 0, "A9 the VMCB of a guest that has ended can be protected");
	save(vmcb);
	call(v, g_l2_enter);
	is(last->entered, gp, "A9 and is no VMCB any more: #GP");
	unchanged(vmcb, RDT_EV_PV_STRUCT, "a VMCB that was protected");
	conf->vmcb = L2_VMCB;
	is(l2(g_load, FREE, 0), 0, "A9 VMRUN with a VMCB elsewhere");
}

/* What L2 stands on was there before the VM was attached. */
static void test_attached_late(uint64_t gpa, const char *what)
{
	struct vcpu *other = &vm->vcpu[1];

	vcpu_prepare(v, g_l2, (uint64_t)g_l2_pause, 41);
	ok(run(v) && v->stop == STOP_SYNC, "A9 L2 stands, with %s", what);
	is(ioctl(r->fd, RDT_VM_DETACH, 0), 0, "A9 detached meanwhile");
	rdt_close(r);
	r = rdt_attach(vm->fd);
	is(call(other, g_node_add, NODES, 2), 2, "A9 and attached");
	is((int64_t)call(other, g_hc, RDT_HC_PROTECT, gpa, 1, RDT_ATTR(RDT_ACT_DENY, 0)), -EBUSY,
	   "A9 %s from before cannot be protected", what);
	ok(run(v) && v->stop == STOP_DONE && v->value == 42, "A9 L2 goes on, with %s", what);
	is((int64_t)call(other, g_hc, RDT_HC_PROTECT, gpa, 1, RDT_ATTR(RDT_ACT_DENY, 0)), 0,
	   "A9 and then it can, %s", what);
}

/* One vCPU uses it without a pause, the operator protects it and lets it go. */
static void test_race(uint64_t gpa, unsigned int offset, void *fn, uint64_t a, const char *what)
{
	volatile uint64_t *word = vm_host(vm, gpa + offset), *go = vm_host(vm, (uint64_t)&go_on);
	unsigned int busy = 0, held = 0, written = 0;

	set_mode(SHARED);
	*go = 1;
	vcpu_start(v, g_l2_always, (uint64_t)fn, a);
	usleep(50000);
	/* It seldom hits the moment between two entries. */
	for (int i = 0; i < 20000 && held < 5; i++) {
		int ret = rdt_protect(r, gpa, 1, RDT_ACT_DENY, RDT_CLS_OTHER);
		uint64_t was = *word;

		if (ret) {
			busy += ret == -EBUSY;
			continue;
		}
		held++;
		*word = was ^ 0x5a;
		usleep(2000);
		written += *word != (was ^ 0x5a);
		*word = was;
		if (rdt_protect(r, gpa, 1, RDT_ACT_NONE, 0))
			tap_bail("RDT_VM_PROTECT");
		usleep(1000);
	}
	*go = 0;
	ok((int64_t)vcpu_join(v) > 0, "A9 %s, used and protected at once: L1 is refused now and then", what);
	tap_diag("%s: %u times busy, %u times protected", what, busy, held);
	ok(held, "A9 %s, used and protected at once: it can be protected", what);
	is(written, 0, "A9 %s, used and protected at once: never written when it is", what);
}

/* SVM: while L2 is in SMM, KVM keeps L1's state in the host save area. */
static bool smi_in_l2(const char *what)
{
	vcpu_prepare(v, g_l2, (uint64_t)g_l2_pause, 41);
	if (!ok(run(v) && v->stop == STOP_SYNC, "A9 L2 stands, %s", what) || ioctl(v->fd, KVM_SMI))
		return false;
	return run(v) && v->stop == STOP_DONE && v->value == 42;
}

static void test_hsave(void)
{
	const uint64_t hsave = STRUCTS + 5 * PAGE_SIZE;
	struct kvm_userspace_memory_region smram = {
		.slot = 1 << 16, .memory_size = RAM, .userspace_addr = (uintptr_t)vm_host(vm, 0),
	};

	set_mode(SHARED);
	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &smram))
		tap_bail("memory in SMM");
	memcpy(vm_host(vm, 0x38000), "\x0f\xaa", 2);	/* RSM, where SMM begins */
	conf->hsave = hsave;
	is(call(v, g_l2_on), 0, "A9 a host save area");
	save(hsave);
	ok(smi_in_l2("with a host save area"), "A9 an SMI in L2");
	ok(memcmp(saved, vm_host(vm, hsave), PAGE_SIZE), "A9 KVM uses the host save area");
	is(protect(hsave, 1, RDT_ACT_DENY), 0, "A9 which is then protected");
	save(hsave);
	/* Nothing good comes of that for L1. */
	seconds = 2;
	ok(!smi_in_l2("with a protected host save area"), "A9 and does not serve for an SMI any more");
	seconds = SECONDS;
	unchanged(hsave, RDT_EV_PV_STRUCT, "a protected host save area");
}

/* ---- VMX's ---------------------------------------------------------------------------------- */

static uint32_t revision;

static void test_vmcs(void)
{
	char what[120];

	set_mode(SHARED);
	is(l2(g_load, FREE, 0), 0, "A9 a VMCS");
	revision = *(uint32_t *)vm_host(vm, L2_VMCB);
	for (unsigned int i = 0; i < HOMES; i++) {
		const struct target *t = &targets[homes[i]];

		/* A VMM may write where it wants. */
		if (homes[i] != T_NODE)
			*(uint32_t *)vm_host(vm, t->frame) = revision;
		save(t->frame);
		snprintf(what, sizeof(what), "%s as a VMCS", t->name);
		ok(call(v, g_vmptrld, t->frame), "A9 %s: VMPTRLD fails", what);
		unchanged(t->frame, RDT_EV_PV_STRUCT, what);
		if (homes[i] == T_LOG)
			continue;
		save(t->frame);
		snprintf(what, sizeof(what), "VMCLEAR of %s", t->name);
		call(v, g_vmclear, t->frame);
		unchanged(t->frame, RDT_EV_KVM_WRITE, what);
		save(t->frame);
		snprintf(what, sizeof(what), "VMREAD to %s", t->name);
		/* KVM gives up on it, if it is not the CPU that does it. */
		vcpu_prepare(v, g_vmread_to, t->frame + OFFSET);
		run(v);
		unchanged(t->frame, 0, what);
	}
	/* KVM has a copy of the current one, and writes it back at its end. */
	conf->vmcb = STRUCTS;
	is(l2(g_load, FREE, 0), 0, "A9 another VMCS");
	is(protect(STRUCTS, 1, RDT_ACT_DENY), 0, "A9 which is then protected");
	save(STRUCTS);
	call(v, g_vmclear, STRUCTS);
	unchanged(STRUCTS, RDT_EV_KVM_WRITE, "a VMCS that was protected");
	conf->vmcb = L2_VMCB;
	is(l2(g_load, FREE, 0), 0, "A9 VMLAUNCH with a VMCS elsewhere");
}

static void test_virtual_apic(void)
{
	const uint64_t page = STRUCTS + PAGE_SIZE;

	if (!call(v, g_l2_has, MSR_VMX_PROC, PROC_TPR_SHADOW)) {
		tap_skip("A9 the virtual-APIC page: no TPR shadow for L1");
		return;
	}
	set_mode(SHARED);
	conf->vapic = page;
	is(l2(g_cr8, 5, 0), 0, "A9 L2 writes its TPR");
	is(*(uint8_t *)vm_host(vm, page + 0x80), 0x50, "A9 to the virtual-APIC page");
	paused_with(page, "a virtual-APIC page");
	is(protect(page, 1, RDT_ACT_DENY), 0, "A9 the virtual-APIC page can be protected when L2 is done");
	save(page);
	call(v, g_l2, (uint64_t)g_cr8, 7);
	ok(last->entered, "A9 and then it is none: VMLAUNCH fails");
	unchanged(page, RDT_EV_PV_STRUCT, "a protected virtual-APIC page");
	conf->vapic = 0;
	is(l2(g_load, FREE, 0), 0, "A9 VMLAUNCH without one");
}

static void test_shadow_vmcs(void)
{
	const uint64_t page = STRUCTS + 2 * PAGE_SIZE;
	uint32_t *shadow = vm_host(vm, page);

	if (!call(v, g_l2_has, MSR_VMX_PROC2, PROC2_SHADOW_VMCS)) {
		tap_skip("A9 a shadow VMCS: no VMCS shadowing for L1");
		return;
	}
	set_mode(SHARED);
	*shadow = revision | 1u << 31;
	conf->link = page;
	paused_with(page, "a shadow VMCS");
	is(protect(page, 1, RDT_ACT_DENY), -EBUSY, "A9 nor when L2 is done: KVM remembers it");
	/* It remembers one. */
	conf->link = page + PAGE_SIZE;
	*(uint32_t *)vm_host(vm, page + PAGE_SIZE) = *shadow;
	is(l2(g_load, FREE, 0), 0, "A9 another shadow VMCS");
	is(protect(page, 1, RDT_ACT_DENY), 0, "A9 then the first can be protected");
	conf->link = page;
	save(page);
	call(v, g_l2, (uint64_t)g_load, FREE);
	ok(last->entered || last->code != L2_HLT, "A9 and is none any more: no entry");
	unchanged(page, RDT_EV_PV_STRUCT, "a shadow VMCS that was protected");
	conf->link = 0;
}

/* What KVM does not write but maps all the same. */
static void test_vmx_maps(void)
{
	set_mode(SHARED);
	save(DENY);
	conf->msr_bitmap = DENY;
	is(l2(g_load, FREE, 0), 0, "A9 L2 runs with an MSR bitmap under DENY");
	unchanged(DENY, RDT_EV_PV_STRUCT, "an MSR bitmap under DENY");
	conf->msr_bitmap = 0;
	if (!call(v, g_l2_has, MSR_VMX_PROC2, PROC2_APIC_ACCESS)) {
		tap_skip("A9 the APIC-access page: none for L1");
		return;
	}
	save(DENY);
	conf->apic_access = DENY;
	vcpu_prepare(v, g_l2, (uint64_t)g_load, FREE);
	ok(run(v) && v->exit == KVM_EXIT_INTERNAL_ERROR, "A9 an APIC-access page under DENY: KVM gives up");
	unchanged(DENY, RDT_EV_PV_STRUCT, "an APIC-access page under DENY");
	conf->apic_access = 0;
	is(l2(g_load, FREE, 0), 0, "A9 L2 runs without");
}

/* The last: a VM exit that cannot store its MSRs is a shutdown. */
static void test_msr_store(void)
{
	const uint64_t page = STRUCTS + 4 * PAGE_SIZE;

	set_mode(SHARED);
	*(uint32_t *)vm_host(vm, page) = MSR_TSC;
	conf->msr_store = page;
	is(l2(g_load, FREE, 0), 0, "A9 an MSR to store at L2's exit");
	ok(vm_u64(vm, page + 8), "A9 is stored");
	is(protect(page, 1, RDT_ACT_DENY), 0, "A9 the MSR-store area under DENY");
	save(page);
	vcpu_prepare(v, g_l2, (uint64_t)g_load, FREE);
	ok(run(v) && v->exit == KVM_EXIT_SHUTDOWN, "A9 L1 is shut down");
	unchanged(page, RDT_EV_KVM_WRITE, "an MSR-store area under DENY");
}

int main(void)
{
	struct sigaction alarmed = { .sa_handler = on_alarm };

	kvm_dev();
	if (!l2_possible()) {
		tap_skip("the host's KVM does not nest (kvm_%s.nested)", guest_is_intel ? "intel" : "amd");
		return tap_end();
	}
	sigaction(SIGALRM, &alarmed, NULL);
	targets[T_TEXT].frame = (uint64_t)drv_text;
	targets[T_GATE].frame = (uint64_t)drv_gate;
	start(0);
	test_stores();
	test_late_rule();
	end();
	start(0);
	test_shadowed();
	test_deeper();
	test_walks();
	end();
	if (!guest_is_intel) {
		start(0);
		test_vmcb();
		test_vmcb_in_use();
		/* Its exit code. */
		conf->vmcb = STRUCTS + 6 * PAGE_SIZE;
		test_race(conf->vmcb, 0x70, g_load, FREE, "a VMCB");
		conf->vmcb = L2_VMCB;
		test_hsave();
		end();
		start(0);
		set_mode(SHARED);
		conf->vmcb = STRUCTS;
		test_attached_late(STRUCTS, "a VMCB");
		end();
	} else {
		/* Without a LAPIC in the kernel every CR8 write is KVM's. */
		start(VM_IRQCHIP);
		test_vmcs();
		test_virtual_apic();
		test_shadow_vmcs();
		test_vmx_maps();
		test_msr_store();
		end();
		start(VM_IRQCHIP);
		set_mode(SHARED);
		conf->vapic = STRUCTS;
		test_attached_late(STRUCTS, "a virtual-APIC page");
		end();
	}
	start(0);
	test_doors();
	if (!guest_is_intel)
		test_unwanted_call();
	end();
	return tap_end();
}
