// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once: four vCPUs that write, are denied, are logged, go into
 * integrity mode and are interrupted, while the VMM takes memory away, logs dirty
 * pages, deletes slots, and the operator changes protection. Then the same with
 * the VMM killed at a random moment.
 *
 *   test_stress [SECONDS [KILLS]]
 */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"
#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define VCPUS	4
#define RAM	(64ul << 20)
#define NODES	GUEST_FREE
#define DESC	(GUEST_FREE + 0x10000)
#define DENIED	(GUEST_FREE + 0x100000)	/* 64 pages */
#define LOGGED	(GUEST_FREE + 0x200000)	/* a page a vCPU, and one for all */
#define FLIP	(GUEST_FREE + 0x300000)	/* the operator protects it now and then */
#define OWN	(32ul << 20)		/* 1 MiB a vCPU, checked */
#define SCRATCH	(40ul << 20)		/* 4 MiB, taken away now and then */
#define SLOT	(256ul << 20)		/* 2 MiB, deleted now and then */
#define SLOT_DENIED (SLOT + 0x5000)
#define WORD	0xdeadc0de12345678ul
#define gp	13

/* ---- in the guest ----------------------------------------------------------------- */

static volatile u64 stop;
static struct result {
	u64 loops, denied, logged, shared, inside, flips_denied, flips_done;
	u64 bad_denied, bad_own, bad_inside, bad_stale, last_bad;
} results[VCPUS];

static u64 next_random(u64 *seed)
{
	*seed = *seed * 6364136223846793005 + 1442695040888963407;
	return *seed >> 33;
}

static u64 g_work(u64 expected, u64 rounds, u64 irqs)
{
	u64 id = this_cpu()->id, seed = id + 1, own = OWN + (id << 20), n;
	struct result *r = &results[id];

	if (irqs)
		g_timer_on(2000000);
	while (!stop) {
		u64 what = next_random(&seed) % 16, at = next_random(&seed);

		if (irqs)
			asm volatile("sti");
		r->loops++;
		switch (what) {
		case 0 ... 3:
			at = DENIED + at % 64 * PAGE_SIZE + (at >> 8) % 512 * 8;
			asm volatile("cli");
			r->bad_denied += guest_try_store(at, ~WORD) != gp;
			r->bad_denied += guest_load(at) != WORD;
			r->denied++;
			break;
		case 4 ... 5:
			asm volatile("lock incq (%0)" : : "r"(LOGGED + id * PAGE_SIZE) : "memory", "cc");
			asm volatile("lock incq (%0)" : : "r"(LOGGED + VCPUS * PAGE_SIZE) : "memory", "cc");
			r->logged++;
			break;
		case 6 ... 8:
			at = own + at % 256 * PAGE_SIZE;
			n = guest_load(at);
			r->bad_own += n && n != at * 3 + id;
			guest_store(at, at * 3 + id);
			break;
		case 9 ... 10:
			guest_store(SCRATCH + at % 1024 * PAGE_SIZE, at);
			guest_load(SCRATCH + (at >> 10) % 1024 * PAGE_SIZE);
			break;
		case 11:
			guest_store(SLOT + (at % 512 | 8) * PAGE_SIZE + 0x10, at);
			asm volatile("cli");
			guest_try_store(SLOT_DENIED + at % 512 * 8, ~WORD);
			break;
		case 12:
			asm volatile("cli");
			if (guest_try_store(FLIP + id * 8, at) == gp)
				r->flips_denied++;
			else
				r->flips_done++;
			break;
		case 13:
			n = drv_call(IN_COMPUTE, rounds, 0, 0, at & 1);
			if (n != expected) {
				r->bad_inside++;
				r->last_bad = n;
			}
			r->inside++;
			break;
		case 14:
			asm volatile("cli");
			at = DRV_DATA + 0x100 + id * 8;
			r->bad_stale += drv_call(IN_STORE, at, seed, 0, 0) != 0;
			r->bad_stale += guest_try_store(at, ~seed) != gp;
			r->bad_stale += guest_load(at) != seed;
			break;
		case 15:
			guest_hc(RDT_HC_QUERY, DENIED, 0, 0, 0);
			break;
		}
		asm volatile("cli");
	}
	if (irqs)
		g_timer_off();
	return 0;
}

/* ---- at the host --------------------------------------------------------------------- */

struct world {
	struct vm *vm;
	struct rdt *r;
	void *slot_mem;
	uint64_t expected, rounds;
};

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;

	for (;;) {
		vcpu_run(v);
		if (v->error == EINTR || v->error == EAGAIN)
			continue;
		/* The slot is gone just now. */
		if (v->exit == KVM_EXIT_MMIO) {
			memset(v->run->mmio.data, 0, 8);
			continue;
		}
		return NULL;
	}
}

static void set_up(struct world *w)
{
	struct vm *vm = w->vm = vm_create(RAM, VCPUS, VM_IRQCHIP | VM_THP);
	struct vcpu *v = &vm->vcpu[0];
	int64_t ret = 0;

	w->r = rdt_attach(vm->fd);
	w->slot_mem = vm_alloc(HUGE_SIZE, VM_THP);
	vm_set_slot(vm, 1, SLOT, HUGE_SIZE, w->slot_mem, 0);
	for (unsigned int i = 0; i < 64 * 512; i++)
		((uint64_t *)vm_host(vm, DENIED))[i] = WORD;
	for (unsigned int i = 0; i < 512; i++)
		((uint64_t *)vm_host(vm, SLOT_DENIED))[i] = WORD;
	drv_make(vm);
	drv_describe(vm_host(vm, DESC));
	ret |= vcpu_call(v, g_node_add, NODES, 4) != 4;
	ret |= vcpu_call(v, g_hc, RDT_HC_PROTECT, DENIED, 64, RDT_ATTR(RDT_ACT_DENY, 0));
	ret |= vcpu_call(v, g_hc, RDT_HC_PROTECT, LOGGED, VCPUS + 1, RDT_ATTR(RDT_ACT_LOG, 0));
	ret |= vcpu_call(v, g_hc, RDT_HC_PROTECT, SLOT_DENIED, 1, RDT_ATTR(RDT_ACT_DENY, 0));
	ret |= vcpu_call(v, g_hc, RDT_HC_DRIVER, DESC, 0, 0);
	if (ret)
		tap_bail("set up");
	w->rounds = 200;
	w->expected = vcpu_call(v, drv_compute, 0, w->rounds);
	for (int i = 0; i < VCPUS; i++) {
		vcpu_call(&vm->vcpu[i], g_watch_events);
		vcpu_prepare(&vm->vcpu[i], g_work, w->expected, w->rounds, 1);
		if (pthread_create(&vm->vcpu[i].thread, NULL, vcpu_thread, &vm->vcpu[i]))
			tap_bail("pthread_create");
	}
}

static struct {
	uint64_t dontneed, dirty, slots, flips;
} churned;

static void churn(struct world *w, unsigned int *seed)
{
	static uint64_t bitmap[RAM / PAGE_SIZE / 64];
	struct vm *vm = w->vm;
	uint32_t flags = vm->slot[0].flags;

	switch (rand_r(seed) % 4) {
	case 0:
		madvise(vm_host(vm, SCRATCH + (rand_r(seed) % 4 << 20)), 1 << 20, MADV_DONTNEED);
		churned.dontneed++;
		break;
	case 1:
		if (flags)
			vm_dirty_log(vm, 0, bitmap);
		vm_set_slot(vm, 0, 0, RAM, vm->map, flags ^ KVM_MEM_LOG_DIRTY_PAGES);
		churned.dirty++;
		break;
	case 2:
		vm_set_slot(vm, 1, SLOT, 0, NULL, 0);
		vm_set_slot(vm, 1, SLOT, HUGE_SIZE, w->slot_mem, 0);
		churned.slots++;
		break;
	case 3:
		rdt_protect(w->r, FLIP, 1, churned.flips & 1 ? RDT_ACT_NONE : RDT_ACT_DENY, 0);
		churned.flips++;
		break;
	}
	usleep(rand_r(seed) % 4000);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint64_t changed(struct vm *vm, uint64_t gpa, unsigned int words)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < words; i++)
		n += ((uint64_t *)vm_host(vm, gpa))[i] != WORD;
	return n;
}

static void stress(unsigned int seconds)
{
	struct world w;
	struct result sum = { 0 }, *res;
	struct rdt_event ev;
	unsigned int seed = 1;
	uint64_t end, seen = 0, out_of_order = 0, last = 0, total = 0, leaked = 0, logged = 0;

	set_up(&w);
	end = now_ms() + seconds * 1000;
	while (now_ms() < end) {
		churn(&w, &seed);
		while (rdt_next(w.r, &ev)) {
			out_of_order += ev.seq <= last;
			last = ev.seq;
			seen++;
		}
	}
	*vm_var(w.vm, stop) = 1;
	for (int i = 0; i < VCPUS; i++) {
		struct vcpu *v = &w.vm->vcpu[i];

		pthread_join(v->thread, NULL);
		if (!ok(vcpu_done(v), "B9 stress: vCPU %d comes to its end", i))
			vcpu_explain(v);
	}
	res = *vm_var(w.vm, results);
	for (int i = 0; i < VCPUS; i++) {
		for (unsigned int k = 0; k < sizeof(sum) / 8; k++)
			((uint64_t *)&sum)[k] += ((uint64_t *)&res[i])[k];
		logged += vm_u64(w.vm, LOGGED + i * PAGE_SIZE) != res[i].logged;
		leaked |= vm_var(w.vm, drv_seen[i])->leaked;
	}
	while (rdt_next(w.r, &ev))
		seen++;
	for (int i = 0; i < RDT_EV_NR; i++)
		total += rdt_count(w.r, i);

	tap_diag("%lu loops: %lu denied, %lu logged, %lu inside, flips %lu denied %lu done",
		 sum.loops, sum.denied, sum.logged, sum.inside, sum.flips_denied, sum.flips_done);
	tap_diag("%lu DONTNEED, %lu dirty log, %lu slot deletions, %lu flips; %lu events seen, %lu lost",
		 churned.dontneed, churned.dirty, churned.slots, churned.flips, seen, w.r->lost);
	ok(sum.denied > 100 && sum.logged > 50 && sum.inside > 20 && sum.flips_done && sum.flips_denied,
	   "A3 stress: enough of everything was done");
	is(sum.bad_denied, 0, "A3 stress: every denied write was");
	is(changed(w.vm, DENIED, 64 * 512), 0, "A3 stress: no denied page has changed");
	is(changed(w.vm, SLOT_DENIED, 512), 0, "A7 stress: nor the one in the slot that came and went");
	is(sum.bad_own, 0, "A8 stress: every free page had what was last written");
	is(logged, 0, "A10 stress: every logged write happened once");
	is(vm_u64(w.vm, LOGGED + VCPUS * PAGE_SIZE), sum.logged, "A10 stress: on the shared word too");
	if (!is(sum.bad_inside, 0, "B9 stress: every result from inside was right"))
		tap_diag("it was %#lx", sum.last_bad);
	is(sum.bad_stale, 0, "B8 stress: no right to write outlived the inside");
	is(leaked, 0, "B9 stress: no handler saw anything of the inside");
	is(rdt_info(w.r).slots_busy, 0, "B9 stress: no slot is lost");
	is(rdt_head(w.r), total, "A11 stress: the counts by type add up");
	is(out_of_order, 0, "A11 stress: events come in order");
	ok(rdt_count(w.r, RDT_EV_WRITE) >= sum.denied + 2 * sum.logged,
	   "A11 stress: every write was reported (%lu)", rdt_count(w.r, RDT_EV_WRITE));
	ok(!(rdt_info(w.r).flags & RDT_VM_TREE_CORRUPT), "A6 stress: the tree is well");
	rdt_close(w.r);
	vm_destroy(w.vm);
	munmap(w.slot_mem, HUGE_SIZE);
}

static int refcount(void)
{
	FILE *f = fopen("/sys/module/redoubt/refcnt", "r");
	int n = -1;

	if (f) {
		if (fscanf(f, "%d", &n) != 1)
			n = -1;
		fclose(f);
	}
	return n;
}

static uint32_t attached(void)
{
	struct rdt_info info;

	if (ioctl(rdt_dev(), RDT_INFO, &info))
		tap_bail("RDT_INFO");
	return info.vms;
}

static void kills(unsigned int n)
{
	unsigned int seed = 2, left = 0, not_killed = 0;

	for (unsigned int i = 0; i < n; i++) {
		pid_t pid = fork();
		int status;

		if (!pid) {
			struct world w;
			unsigned int s = i;

			set_up(&w);
			for (;;)
				churn(&w, &s);
		}
		usleep(200000 + rand_r(&seed) % 1500000);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		not_killed += !WIFSIGNALED(status);
		/* Its last descriptor may be closed a moment later. */
		for (int wait = 0; wait < 100 && attached(); wait++)
			usleep(20000);
		left += attached();
	}
	is(not_killed, 0, "B9 kill: %u VMMs were running when they were killed", n);
	is(left, 0, "B9 kill: none left a VM");
}

int main(int argc, char **argv)
{
	unsigned int seconds = argc > 1 ? atoi(argv[1]) : 20;
	int refs = refcount();

	rdt_dev();
	kvm_dev();
	stress(seconds);
	kills(argc > 2 ? atoi(argv[2]) : 8);
	/* One for the descriptor of /dev/redoubt that is still open. */
	is(refcount(), refs + 1, "B9 the module's references are back");
	return tap_end();
}
