// SPDX-License-Identifier: GPL-2.0
/*
 * A9: writes that no nested page table sees, because KVM makes them: what its
 * emulator carries out, what it copies into guest memory when a guest asks for it, and
 * the structures that it keeps there.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE			/* 4 pages */
#define DENY	(GUEST_FREE + 0x100000)
#define LOG	(GUEST_FREE + 0x110000)
#define FREEZE	(GUEST_FREE + 0x120000)
#define PV	(GUEST_FREE + 0x200000)
#define HOLE	(256ul << 20)			/* gpa of slot 1 */
#define OFFSET	0x340
#define gp	13

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;

static int64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	return vcpu_call(v, g_hc, nr, a, b, c);
}

static int64_t protect(uint64_t gpa, uint64_t pages, int action)
{
	return hc(RDT_HC_PROTECT, gpa, pages, RDT_ATTR(action, RDT_CLS_OTHER));
}

/* All events since the last time; up to @max of them are kept. */
static unsigned int raised(struct rdt_event *ev, unsigned int max)
{
	struct rdt_event next;
	unsigned int n = 0;

	for (; rdt_next(r, &next); n++)
		if (n < max)
			ev[n] = next;
	return n;
}

/* There was this one event and no other. */
static bool only(uint32_t type, uint8_t action, uint64_t gpa, struct rdt_event *ev)
{
	unsigned int n = raised(ev, 1);

	if (n == 1 && ev->type == type && ev->action == action && ev->gpa == gpa)
		return true;
	tap_diag("%u events, the first:", n);
	if (n)
		rdt_print(ev);
	return false;
}

/* ---- the emulator ------------------------------------------------------------------ */

static u64 g_insb(u64 gva, u64 count)
{
	return guest_try("cld; rep insb", "D"(gva), "c"(count), "d"(0x71));
}

/* Answer every IN with this byte. */
static void feed(uint8_t byte)
{
	while (v->exit == KVM_EXIT_IO && v->run->io.direction == KVM_EXIT_IO_IN) {
		memset((uint8_t *)v->run + v->run->io.data_offset, byte,
		       v->run->io.size * v->run->io.count);
		vcpu_resume(v);
	}
}

static void test_ins(void)
{
	struct rdt_event ev;

	memset(vm_host(vm, DENY), 0, PAGE_SIZE);
	memset(vm_host(vm, LOG), 0, PAGE_SIZE);
	for (int logged = 0; logged < 2; logged++) {
		const char *name = logged ? "A9 rep insb into LOG" : "A9 rep insb into DENY";
		uint64_t at = (logged ? LOG : DENY) + 0x20;

		rdt_drain(r);
		vcpu_call(v, g_insb, at, 3);
		feed(0x7e);
		vcpu_must_end(v, name);
		is(vm_u64(vm, at), logged ? 0x7e7e7e : 0, "%s: what is there", name);
		/* KVM writes all that it has got at once. */
		if (ok(only(RDT_EV_WRITE, logged ? RDT_ACT_LOG : RDT_ACT_DENY, at, &ev),
		       "%s: reported, once", name))
			ok(ev.flags & RDT_EVF_EMULATED && ev.flags & RDT_EVF_NEW && ev.size == 3 &&
			   ev.new_val == 0x7e7e7e, "%s: with the values", name);
	}
}

/*
 * Instructions that begin on a hole: KVM emulates them and asks the VMM for what
 * is there. While the VMM has the exit, memory comes back; it is the emulator that writes
 * it then. The locked ones with its compare-and-exchange, the others plainly.
 */
#define OLD	0x1122334455667788ul
#define NEW	0x99aabbccddeeff00ul

struct op_seen {
	u64 at;		/* the instruction */
	u64 rax, rdx;	/* behind it */
};
static struct op_seen op_seen;

#define OP(name, a_, d_, insn)						\
	static u64 op_##name(u64 gva)					\
	{								\
		u64 a = (a_), d = (d_), at;				\
									\
		this_cpu()->vector = -1;				\
		asm volatile("leaq 99f(%%rip), %%r11\n\t"		\
			     "movq %%r11, %%gs:8\n\t"			\
			     "leaq 98f(%%rip), %[at]\n\t"		\
			     "98:\t" insn "\n"				\
			     "99:\tmovq $0, %%gs:8"			\
			     : "+a"(a), "+d"(d), [at] "=&r"(at)		\
			     : "D"(gva), "b"(NEW & 0xffffffff), "c"(NEW >> 32) \
			     : "r11", "memory", "cc");			\
		op_seen = (struct op_seen){ at, a, d };			\
		return this_cpu()->vector;				\
	}

OP(lock_incb, 0, 0, "lock incb (%%rdi)")
OP(lock_incw, 0, 0, "lock incw (%%rdi)")
OP(lock_incl, 0, 0, "lock incl (%%rdi)")
OP(lock_incq, 0, 0, "lock incq (%%rdi)")
OP(lock_btsl, 0, 0, "lock btsl $0, (%%rdi)")
OP(xchgb, 0, NEW, "xchgb %%dl, (%%rdi)")
OP(xchgq, 0, NEW, "xchgq %%rdx, (%%rdi)")
OP(lock_xaddq, 0, NEW, "lock xaddq %%rdx, (%%rdi)")
OP(lock_cmpxchgl, OLD, NEW, "lock cmpxchgl %%edx, (%%rdi)")
OP(lock_cmpxchgq, OLD, NEW, "lock cmpxchgq %%rdx, (%%rdi)")
OP(lock_cmpxchgq_no, ~OLD, NEW, "lock cmpxchgq %%rdx, (%%rdi)")
OP(lock_cmpxchg8b, OLD & 0xffffffff, OLD >> 32, "lock cmpxchg8b (%%rdi)")
OP(incl, 0, 0, "incl (%%rdi)")
OP(addq, 0, NEW, "addq %%rdx, (%%rdi)")
OP(xorb, 0, 0, "xorb $0x10, (%%rdi)")

static const struct op {
	const char *name;
	u64 (*fn)(u64);
	unsigned int bytes;
	uint64_t value;		/* what it writes */
	bool locked;
} ops[] = {
	{ "lock incb", op_lock_incb, 1, 0x89, true },
	{ "lock incw", op_lock_incw, 2, 0x7789, true },
	{ "lock incl", op_lock_incl, 4, 0x55667789, true },
	{ "lock incq", op_lock_incq, 8, OLD + 1, true },
	{ "lock btsl", op_lock_btsl, 4, 0x55667789, true },
	{ "xchgb", op_xchgb, 1, NEW & 0xff, true },
	{ "xchgq", op_xchgq, 8, NEW, true },
	{ "lock xaddq", op_lock_xaddq, 8, OLD + NEW, true },
	{ "lock cmpxchgl", op_lock_cmpxchgl, 4, NEW & 0xffffffff, true },
	{ "lock cmpxchgq", op_lock_cmpxchgq, 8, NEW, true },
	{ "lock cmpxchgq, not equal", op_lock_cmpxchgq_no, 8, OLD, true },
	{ "lock cmpxchg8b", op_lock_cmpxchg8b, 8, NEW, true },
	{ "incl", op_incl, 4, 0x55667789, false },
	{ "addq", op_addq, 8, OLD + NEW, false },
	{ "xorb", op_xorb, 1, 0x98, false },
};

/* Pages of slot 1. */
enum { HOLE_FREE, HOLE_LOG, HOLE_DENY, HOLE_FREEZE, HOLE_PAGES };

static void try_op(const struct op *op, int page, void *mem)
{
	static const char *const rule[] = { "no rule", "LOG", "DENY", "FREEZE" };
	const uint64_t at = HOLE + page * PAGE_SIZE + OFFSET, mask = ~0ull >> (64 - 8 * op->bytes);
	const bool refused = page >= HOLE_DENY;
	struct op_seen *seen = vm_var(vm, op_seen);
	uint64_t *word = mem + (at - HOLE), vector;
	struct rdt_event ev;
	char name[80];

	snprintf(name, sizeof(name), "A9 emulated %s under %s", op->name, rule[page]);
	memset(mem, 0, HOLE_PAGES * PAGE_SIZE);
	*word = OLD;
	vm_set_slot(vm, 1, HOLE, 0, NULL, 0);
	/* From a read KVM knows that this is no memory, and does not ask Redoubt again. */
	vcpu_call(v, g_load, at);
	if (v->exit != KVM_EXIT_MMIO)
		tap_bail("the hole is not one");
	vcpu_resume(v);
	vcpu_call(v, op->fn, at);
	if (!ok(v->exit == KVM_EXIT_MMIO && !v->run->mmio.is_write &&
		v->run->mmio.phys_addr == at && v->run->mmio.len == op->bytes,
		"%s: KVM emulates it", name)) {
		vcpu_explain(v);
		vm_set_slot(vm, 1, HOLE, HOLE_PAGES * PAGE_SIZE, mem, 0);
		return;
	}
	memcpy(v->run->mmio.data, word, op->bytes);
	vm_set_slot(vm, 1, HOLE, HOLE_PAGES * PAGE_SIZE, mem, 0);
	rdt_drain(r);
	vector = vcpu_resume(v);
	if (!vcpu_must_end(v, name))
		return;
	/* A plain store of the emulator that is refused is left out; a locked one faults. */
	is(vector, refused && op->locked ? gp : -1, "%s: the vector", name);
	if (refused && op->locked)
		is(vm_var(vm, guest_cpus[0])->rip, seen->at, "%s: RIP is at the instruction", name);
	if (refused)
		is(*word, OLD, "%s: nothing is written", name);
	else
		is(*word, (OLD & ~mask) | op->value, "%s: it is written", name);
	if (page == HOLE_FREE) {
		is(raised(&ev, 1), 0, "%s: no event", name);
		return;
	}
	if (ok(only(RDT_EV_WRITE, page == HOLE_LOG ? RDT_ACT_LOG : RDT_ACT_DENY, at, &ev),
	       "%s: reported, once", name))
		if (!ok(ev.flags & RDT_EVF_EMULATED && ev.flags & RDT_EVF_SIZE && ev.size == op->bytes &&
		   ev.flags & RDT_EVF_NEW && ev.new_val == op->value && ev.flags & RDT_EVF_OLD &&
		   ev.old_val == (OLD & mask) && ev.rip == seen->at && ev.vcpu == 0,
		   "%s: what, where and who", name))
			rdt_print(&ev);
}

static void test_emulated(void)
{
	void *mem = vm_alloc(HUGE_SIZE, VM_SMALL);

	vm_set_slot(vm, 1, HOLE, HOLE_PAGES * PAGE_SIZE, mem, 0);
	is(protect(HOLE + HOLE_LOG * PAGE_SIZE, 1, RDT_ACT_LOG), 0, "A9 a hole's page under LOG");
	is(protect(HOLE + HOLE_DENY * PAGE_SIZE, 1, RDT_ACT_DENY), 0, "A9 a hole's page under DENY");
	is(protect(HOLE + HOLE_FREEZE * PAGE_SIZE, 1, RDT_ACT_FREEZE), 0, "A9 a hole's page under FREEZE");
	for (unsigned int i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		for (int page = 0; page < HOLE_PAGES; page++)
			try_op(&ops[i], page, mem);
	vm_set_slot(vm, 1, HOLE, 0, NULL, 0);
}

/* ---- the emulator's page walks ------------------------------------------------------- */

#define FORGED	(PV + 0x80000)		/* looks like a page table */
#define FORGED_GVA 0x38000000ul		/* what it maps, when the page directory names it */
#define FREE	(PV + 0x81000)

/*
 * KVM's emulator walks the guest's page tables itself, and sets accessed and dirty
 * through the VMM's mapping. A protected frame must be no page table for it.
 */
static void test_emulated_walk(void)
{
	uint64_t *pd = vm_host(vm, GUEST_PD), *forged = vm_host(vm, FORGED), old;

	for (int accessed = 0; accessed < 2; accessed++) {
		old = FREE | PTE_P | PTE_W | PTE_U | (accessed ? PTE_A : 0);
		forged[accessed] = old;
		pd[FORGED_GVA / HUGE_SIZE] = FORGED | PTE_P | PTE_W | PTE_U | PTE_A;
		is(protect(FORGED, 1, RDT_ACT_DENY), 0, "A9 a forged page table under DENY");
		vcpu_call(v, g_insb, FORGED_GVA + accessed * PAGE_SIZE + 0x20, 3);
		feed(0x7e);
		vcpu_must_end(v, "A9 rep insb through a forged page table");
		is(forged[accessed], old, "A9 KVM's page walk sets no %s in it",
		   accessed ? "dirty bit" : "accessed bit");
	}
	pd[FORGED_GVA / HUGE_SIZE] = FORGED_GVA | PTE_PS | PTE_P | PTE_W | PTE_U;
}

/* ---- copies that the guest asks for: the wall clock ---------------------------------- */

#define MSR_WALL_CLOCK		0x11
#define MSR_WALL_CLOCK_NEW	0x4b564d00

struct wall_clock {
	uint32_t version, sec, nsec;
};

static void test_wall_clock(void)
{
	static const uint32_t msrs[] = { MSR_WALL_CLOCK, MSR_WALL_CLOCK_NEW };
	struct wall_clock *wc;
	struct rdt_event ev[4];
	unsigned int n;

	for (int i = 0; i < 2; i++) {
		const uint32_t msr = msrs[i];
		const uint64_t refused[] = { DENY + 0x80, FREEZE + 0x80, NODES + 0x80 };

		for (unsigned int k = 0; k < 3; k++) {
			uint8_t before[64];

			memcpy(before, vm_host(vm, refused[k]), 64);
			rdt_drain(r);
			vcpu_call(v, g_wrmsr, msr, refused[k]);
			vcpu_must_end(v, "A9 wall clock");
			ok(!memcmp(before, vm_host(vm, refused[k]), 64),
			   "A9 wall clock %#x, frame %u: nothing is written", msr, k);
			if (ok(only(RDT_EV_KVM_WRITE, RDT_ACT_DENY, refused[k], ev),
			       "A9 wall clock %#x, frame %u: KVM_WRITE and nothing else", msr, k))
				ok(ev->flags & RDT_EVF_HOST && ev->size == 4 &&
				   ev->cls == (k == 2 ? RDT_CLS_NODE : RDT_CLS_OTHER),
				   "A9 wall clock %#x, frame %u: what", msr, k);
		}

		/* Twelve bytes, of which eight lie in the protected frame. */
		wc = vm_host(vm, DENY - 4);
		memset(wc, 0, sizeof(*wc));
		rdt_drain(r);
		vcpu_call(v, g_wrmsr, msr, DENY - 4);
		ok(wc->version > 0, "A9 wall clock %#x across the border: KVM writes in front of it", msr);
		ok(!wc->sec && !wc->nsec, "A9 wall clock %#x across the border: and not behind", msr);
		ok(only(RDT_EV_KVM_WRITE, RDT_ACT_DENY, DENY, ev) && ev->size == 8,
		   "A9 wall clock %#x across the border: KVM_WRITE and nothing else", msr);

		/* Version, time, version: three writes. */
		wc = vm_host(vm, LOG + 0x80);
		memset(wc, 0, sizeof(*wc));
		rdt_drain(r);
		vcpu_call(v, g_wrmsr, msr, LOG + 0x80);
		ok(wc->version == 4 || wc->version == 3 || wc->version == 2,
		   "A9 wall clock %#x under LOG: it is written (%u)", msr, wc->version);
		ok(wc->sec > 0, "A9 wall clock %#x under LOG: the time", msr);
		n = raised(ev, 4);
		ok(n == 3 && ev[0].type == RDT_EV_KVM_WRITE && ev[1].type == RDT_EV_KVM_WRITE &&
		   ev[2].type == RDT_EV_KVM_WRITE && ev[0].action == RDT_ACT_LOG &&
		   ev[0].size == 4 && ev[1].size == 12 && ev[2].size == 4,
		   "A9 wall clock %#x under LOG: three times KVM_WRITE (%u)", msr, n);

		rdt_drain(r);
		vcpu_call(v, g_wrmsr, msr, PV);
		is(raised(ev, 4), 0, "A9 wall clock %#x in a free frame: no event", msr);
	}
}

/* ---- structures that KVM keeps --------------------------------------------------------- */

#define MSR_SYSTEM_TIME		0x12
#define MSR_SYSTEM_TIME_NEW	0x4b564d01
#define MSR_ASYNC_PF		0x4b564d02
#define MSR_STEAL_TIME		0x4b564d03
#define MSR_PV_EOI		0x4b564d04
#define MSR_ASYNC_PF_INT	0x4b564d06
#define APF_VECTOR		0xf3

static const struct pv {
	uint32_t msr;
	const char *name;
	uint64_t flags;
	int refused;		/* the vector of a WRMSR that KVM refuses */
	bool again;		/* KVM tries again now and then */
	bool cached;		/* KVM keeps the place when it is switched off */
} pvs[] = {
	{ MSR_SYSTEM_TIME, "old kvmclock", 1, -1, false, false },
	{ MSR_SYSTEM_TIME_NEW, "kvmclock", 1, -1, false, false },
	{ MSR_STEAL_TIME, "steal time", 1, -1, true, true },
	/* Enabled, by interrupt, for ring 0 too. */
	{ MSR_ASYNC_PF, "async #PF", 0xb, gp, false, true },
	{ MSR_PV_EOI, "PV EOI", 1, gp, false, true },
};

static void pv_off(uint32_t msr)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } off = {
		.head.nmsrs = 1, .entry.index = msr
	};

	if (ioctl(v->fd, KVM_SET_MSRS, &off) != 1)
		tap_bail("KVM_SET_MSRS of %#x", msr);
}

static void test_pv(void)
{
	static uint8_t before[PAGE_SIZE];

	is(vcpu_call(v, g_wrmsr, MSR_ASYNC_PF_INT, APF_VECTOR), -1, "A9 the vector of async #PF");
	for (unsigned int i = 0; i < sizeof(pvs) / sizeof(pvs[0]); i++) {
		const struct pv *p = &pvs[i];
		const uint64_t page = PV + i * 4 * PAGE_SIZE, next = page + PAGE_SIZE;
		unsigned int n = 0, wrong = 0;
		struct rdt_event ev;

		/* The structure first. */
		memset(vm_host(vm, page), 0, 2 * PAGE_SIZE);
		is(vcpu_call(v, g_wrmsr, p->msr, (page + 0x40) | p->flags), -1, "A9 %s", p->name);
		vcpu_call(v, g_gp_count);
		is(protect(page, 1, RDT_ACT_DENY), -EBUSY, "A9 a page with %s cannot be protected", p->name);
		is(protect(page - PAGE_SIZE, 3, RDT_ACT_LOG), -EBUSY, "A9 nor as a part of others, with %s",
		   p->name);
		is(hc(RDT_HC_NODE_ADD, page, 0, 0), -EBUSY, "A9 nor become a node page, with %s", p->name);
		is(rdt_protect(r, page, 1, RDT_ACT_DENY, 0), -EBUSY, "A9 nor by the operator, with %s", p->name);
		is(hc(RDT_HC_QUERY, page, 0, 0), 0, "A9 and is not, with %s", p->name);
		pv_off(p->msr);
		if (p->cached) {
			/* It may be switched on again there, and KVM would ask nobody. */
			is(protect(page, 1, RDT_ACT_DENY), -EBUSY, "A9 nor when %s is switched off", p->name);
			vcpu_call(v, g_wrmsr, p->msr, (page + 2 * PAGE_SIZE) | p->flags);
			vcpu_call(v, g_gp_count);
			pv_off(p->msr);
		}
		is(protect(page, 1, RDT_ACT_DENY), 0, "A9 without %s it can", p->name);
		memcpy(before, vm_host(vm, page), PAGE_SIZE);
		rdt_drain(r);
		is(vcpu_call(v, g_wrmsr, p->msr, (page + 0x40) | p->flags), p->refused,
		   "A9 %s back where it was: the vector", p->name);
		for (int k = 0; k < 3; k++)
			vcpu_call(v, g_gp_count);
		ok(!memcmp(before, vm_host(vm, page), PAGE_SIZE), "A9 %s is not back where it was", p->name);
		ok(rdt_next(r, &ev) && ev.type == RDT_EV_PV_STRUCT && ev.gpa == page + 0x40,
		   "A9 %s back where it was is reported", p->name);
		pv_off(p->msr);

		/* Protection first. */
		memset(vm_host(vm, next), 0xe5, PAGE_SIZE);
		memcpy(before, vm_host(vm, next), PAGE_SIZE);
		is(protect(next, 1, RDT_ACT_LOG), 0, "A9 the next page under LOG");
		rdt_drain(r);
		is(vcpu_call(v, g_wrmsr, p->msr, (next + 0x40) | p->flags), p->refused,
		   "A9 %s into it: the vector", p->name);
		/* Exits to here and back: KVM updates its structures then. */
		for (int k = 0; k < 3; k++)
			vcpu_call(v, g_gp_count);
		ok(!memcmp(before, vm_host(vm, next), PAGE_SIZE), "A9 KVM does not put %s into it", p->name);
		for (; rdt_next(r, &ev); n++) {
			bool right = ev.type == RDT_EV_PV_STRUCT && ev.gpa == next + 0x40 &&
				     ev.action == RDT_ACT_DENY;

			wrong += !right;
			if (!right)
				rdt_print(&ev);
		}
		if (p->again)
			ok(n >= 1, "A9 %s there is reported (%u)", p->name, n);
		else
			is(n, 1, "A9 %s there is reported, once", p->name);
		is(wrong, 0, "A9 %s there is reported as PV_STRUCT and nothing else", p->name);
		pv_off(p->msr);
	}
}

/* ---- asynchronous #PF at work ------------------------------------------------------------ */

/* Memory of slot 1 that comes late: a reader of userfaultfd fills it in. */
static int late_fd = -1;
static uint64_t late_next;

static void late_memory(void *mem)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)mem, HUGE_SIZE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	late_fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (late_fd < 0 || ioctl(late_fd, UFFDIO_API, &api) || ioctl(late_fd, UFFDIO_REGISTER, &reg))
		tap_bail("userfaultfd");
}

static void *fill_in(void *unused)
{
	struct pollfd pfd = { .fd = late_fd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&pfd, 1, 10000) != 1 || read(late_fd, &msg, sizeof(msg)) != sizeof(msg))
		return NULL;
	usleep(200000);

	struct uffdio_zeropage zero = {
		.range = { msg.arg.pagefault.address & -PAGE_SIZE, PAGE_SIZE }
	};

	ioctl(late_fd, UFFDIO_ZEROPAGE, &zero);
	return NULL;
}

static u64 take_interrupt(struct trap_frame *f)
{
	return f->vector == APF_VECTOR;
}

static u64 g_touch_late(u64 gva)
{
	this_cpu()->on_trap = take_interrupt;
	return guest_try("sti; nop; cmpb $0, (%0)", "r"(gva));
}

static u64 g_cli(void)
{
	asm volatile("cli");
	return 0;
}

/* The guest reads a page that comes late: the vector of the fault, -1 if it waited. */
static int64_t late_read(void)
{
	pthread_t thread;
	int64_t vector;

	if (pthread_create(&thread, NULL, fill_in, NULL))
		tap_bail("pthread_create");
	vector = vcpu_call(v, g_touch_late, HOLE + late_next);
	late_next += PAGE_SIZE;
	pthread_join(thread, NULL);
	vcpu_call(v, g_cli);
	vcpu_must_end(v, "A9 a page that comes late");
	return vector;
}

/*
 * After a refused move KVM either goes on where it was, and that frame still cannot be
 * protected, or nowhere.
 */
static void test_pv_move(void)
{
	void *mem = vm_alloc(HUGE_SIZE, VM_SMALL);

	vm_set_slot(vm, 1, HOLE, HUGE_SIZE, mem, 0);
	late_memory(mem);
	for (unsigned int i = 0; i < sizeof(pvs) / sizeof(pvs[0]); i++) {
		const struct pv *p = &pvs[i];
		const uint64_t page = PV + 0x40000 + i * 4 * PAGE_SIZE;
		int64_t ret;

		is(protect(page + PAGE_SIZE, 1, RDT_ACT_DENY), 0, "A9 a page to move %s to", p->name);
		is(vcpu_call(v, g_wrmsr, p->msr, page | p->flags), -1, "A9 %s", p->name);
		vcpu_call(v, g_gp_count);
		if (p->msr == MSR_ASYNC_PF) {
			is(late_read(), 14, "A9 async #PF strikes");
			is(vm_u64(vm, page) & 0xffffffff, 1, "A9 async #PF: KVM says so there");
			memset(vm_host(vm, page), 0, PAGE_SIZE);
		}
		is(vcpu_call(v, g_wrmsr, p->msr, (page + PAGE_SIZE) | p->flags), p->refused,
		   "A9 %s is not moved into a protected page", p->name);
		vcpu_call(v, g_gp_count);
		memset(vm_host(vm, page), 0, PAGE_SIZE);
		ret = protect(page, 1, RDT_ACT_DENY);
		is(ret, p->cached ? 0 : -EBUSY, "A9 the page that %s was to leave", p->name);
		if (ret)
			memset(vm_host(vm, page), 0, PAGE_SIZE);
		if (p->msr == MSR_ASYNC_PF)
			late_read();
		for (int k = 0; k < 3; k++)
			vcpu_call(v, g_gp_count);
		ok(ret || !(vm_u64(vm, page) | vm_u64(vm, page + 8)),
		   "A9 %s: no protected page is written", p->name);
		is(vm_u64(vm, page + PAGE_SIZE), 0, "A9 %s: nor the one to move it to", p->name);
		pv_off(p->msr);
	}
	close(late_fd);
	vm_set_slot(vm, 1, HOLE, 0, NULL, 0);
}

/*
 * KVM's copy waits for the VMM's page; meanwhile another vCPU protects it. What was allowed
 * when the copy began is not when it is made.
 */
static void *feed_late(void *unused)
{
	feed(0x7e);
	return NULL;
}

static void test_rule_overtakes(int action)
{
	const bool denies = action != RDT_ACT_LOG;
	const char *name = denies ? "A9 a write that DENY overtakes" : "A9 a write that LOG overtakes";
	struct vcpu *other = &vm->vcpu[1];
	void *mem = vm_alloc(HUGE_SIZE, VM_SMALL);
	const uint64_t offset = (denies ? 5 : 9) * PAGE_SIZE, page = HOLE + offset;
	struct uffdio_zeropage zero = { .range = { (uintptr_t)mem + offset, PAGE_SIZE } };
	struct pollfd pfd = { .events = POLLIN };
	struct rdt_event ev;
	pthread_t thread;

	vm_set_slot(vm, 1, HOLE, HUGE_SIZE, mem, 0);
	late_memory(mem);
	pfd.fd = late_fd;
	rdt_drain(r);
	vcpu_call(v, g_insb, page + 0x20, 3);
	if (pthread_create(&thread, NULL, feed_late, NULL))
		tap_bail("pthread_create");
	is(poll(&pfd, 1, 10000), 1, "%s: the copy waits", name);
	is(vcpu_call(other, g_hc, RDT_HC_PROTECT, page, 1, RDT_ATTR(action, RDT_CLS_OTHER)), 0,
	   "%s: protected meanwhile", name);
	is(ioctl(late_fd, UFFDIO_ZEROPAGE, &zero), 0, "%s: the page comes", name);
	pthread_join(thread, NULL);
	vcpu_must_end(v, name);
	is(*(uint64_t *)((char *)mem + offset + 0x20), denies ? 0 : 0x7e7e7e, "%s: what is there",
	   name);
	ok(only(RDT_EV_WRITE, action, page + 0x20, &ev), "%s: reported", name);
	close(late_fd);
	vm_set_slot(vm, 1, HOLE, 0, NULL, 0);
	munmap(mem, HUGE_SIZE);
}

int main(void)
{
	/* The LAPIC in the kernel: async #PF and PV EOI need it. */
	vm = vm_create(RAM, 2, VM_IRQCHIP);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	is(vcpu_call(v, g_node_add, NODES, 4), 4, "A1 node pages");
	is(protect(DENY, 1, RDT_ACT_DENY), 0, "A9 a page under DENY");
	is(protect(LOG, 1, RDT_ACT_LOG), 0, "A9 a page under LOG");
	is(protect(FREEZE, 1, RDT_ACT_FREEZE), 0, "A9 a page under FREEZE");
	test_ins();
	test_emulated();
	test_emulated_walk();
	test_wall_clock();
	test_pv();
	test_pv_move();
	test_rule_overtakes(RDT_ACT_DENY);
	test_rule_overtakes(RDT_ACT_LOG);
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
