// SPDX-License-Identifier: GPL-2.0
/*
 * The leak hunt (D6): code in a domain has a secret in all its registers, flags and on its
 * stack while events strike; then all that handlers of the guest have seen, the guest's memory and all
 * that KVM tells the VMM is searched for it. A run of the same code outside shows that
 * the search finds it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cell.h"
#include "driver.h"
#include "leak.h"
#include "search.h"
#include "tap.h"

#define RAM	(24ul << 20)
#define DOM	(GUEST_FREE + 0x400000)
#define PLAIN	(GUEST_FREE + 0x600000)		/* the same code, outside */
#define SMM	0x38000				/* where its handler is */
#define DB_VECTOR 1

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;
static struct leak_guest *g;
static uint8_t *secret;			/* not in the program's image, which guests get */
static uint64_t gate, kick_ns;
static uint32_t level = LEAK_SSE;

static const struct cell_image image = LEAK_IMAGE(1, .slots = 2, .flags = RDT_DOM_VECTOR);

/* ---- where it may be, and when -------------------------------------------------------- */

enum when { BY_HANDLER, AT_END, KICKED, STEPPED, TIMES };
static const char *const times[] = { "a handler's stop", "the end of a call", "a signal", "a single step" };
enum where { MEMORY, REGS, SREGS, FPU, XSAVE, XCRS, DEBUGREGS, EVENTS, MSRS, LAPIC, NESTED, RUN, STREAM, PLACES };
static const char *const places[] = { "guest memory", "KVM_GET_REGS", "KVM_GET_SREGS", "KVM_GET_FPU",
				      "KVM_GET_XSAVE", "KVM_GET_XCRS", "KVM_GET_DEBUGREGS",
				      "KVM_GET_VCPU_EVENTS", "KVM_GET_MSRS", "KVM_GET_LAPIC",
				      "KVM_GET_NESTED_STATE", "kvm_run", "pages by the dirty log" };
static uint64_t hits[PLACES][TIMES], looks[PLACES][TIMES], struck[TIMES];

static void look(enum where where, enum when when, const void *in, size_t bytes)
{
	size_t at = 0, n = search(in, bytes, &at);

	looks[where][when]++;
	if (n && !hits[where][when])
		tap_diag("%s at %s: %zu pieces, the first at %#zx", places[where], times[when], n, at);
	hits[where][when] += n;
}

static struct kvm_msr_list *msr_list(void)
{
	static struct kvm_msr_list *list;

	if (!list) {
		list = calloc(1, sizeof(*list) + 4096);
		list->nmsrs = 1024;
		if (ioctl(kvm_dev(), KVM_GET_MSR_INDEX_LIST, list))
			tap_bail("KVM_GET_MSR_INDEX_LIST");
	}
	return list;
}

static void look_at_msrs(struct vcpu *c, enum when when)
{
	static struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[1024];
	} m;
	const struct kvm_msr_list *list = msr_list();
	unsigned int n = list->nmsrs, from = 0;

	/* It stops at one that this vCPU has not. */
	while (from < n) {
		int got;

		m.head.nmsrs = n - from;
		for (unsigned int i = from; i < n; i++)
			m.entry[i - from] = (struct kvm_msr_entry){ .index = list->indices[i] };
		got = ioctl(c->fd, KVM_GET_MSRS, &m);
		if (got < 0)
			tap_bail("KVM_GET_MSRS");
		look(MSRS, when, m.entry, got * sizeof(m.entry[0]));
		from += got + 1;
	}
}

/* All that KVM tells of a vCPU. */
static void look_at_vcpu(struct vcpu *c, enum when when)
{
	static const struct {
		enum where where;
		unsigned long request;
		size_t size;
	} ways[] = {
		{ REGS, KVM_GET_REGS, sizeof(struct kvm_regs) },
		{ SREGS, KVM_GET_SREGS, sizeof(struct kvm_sregs) },
		{ FPU, KVM_GET_FPU, sizeof(struct kvm_fpu) },
		{ XSAVE, KVM_GET_XSAVE, sizeof(struct kvm_xsave) },
		{ XCRS, KVM_GET_XCRS, sizeof(struct kvm_xcrs) },
		{ DEBUGREGS, KVM_GET_DEBUGREGS, sizeof(struct kvm_debugregs) },
		{ EVENTS, KVM_GET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events) },
		{ LAPIC, KVM_GET_LAPIC, sizeof(struct kvm_lapic_state) },
		{ NESTED, KVM_GET_NESTED_STATE, 8192 },
	};
	static union {
		struct kvm_nested_state nested;
		uint8_t bytes[8192];
	} buf;

	for (unsigned int i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		memset(&buf, 0, ways[i].size);
		if (ways[i].where == NESTED)
			buf.nested.size = sizeof(buf);
		/* Without nesting, or XSAVE. */
		if (!ioctl(c->fd, ways[i].request, &buf))
			look(ways[i].where, when, &buf, ways[i].size);
	}
	look(RUN, when, c->run, c->run_size);
	/* Many, and slow. */
	if (!(looks[REGS][when] % 4))
		look_at_msrs(c, when);
}

static void look_at_memory(enum when when)
{
	look(MEMORY, when, vm->map, vm->map_size);
}

/* What a migration sends: each page that the log has, as it is then. */
static void look_at_stream(enum when when)
{
	static uint64_t bitmap[RAM / PAGE_SIZE / 64];
	static uint8_t page[4096];

	vm_dirty_log(vm, 0, bitmap);
	for (uint64_t i = 0; i < RAM / PAGE_SIZE; i++)
		if (bitmap[i / 64] >> i % 64 & 1) {
			memcpy(page, (uint8_t *)vm->map + i * PAGE_SIZE, PAGE_SIZE);
			look(STREAM, when, page, PAGE_SIZE);
		}
}

/* ---- the vCPU and what strikes it -------------------------------------------------------- */

static uint64_t any(uint64_t below)
{
	uint64_t x;

	if (getrandom(&x, sizeof(x), 0) != sizeof(x))
		tap_bail("getrandom");
	return x % below;
}

static timer_t timer;

static void on_signal(int nr)
{
}

static void make_timer(void)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };

	ev._sigev_un._tid = syscall(SYS_gettid);
	if (sigaction(SIGUSR1, &sa, NULL) || timer_create(CLOCK_MONOTONIC, &ev, &timer))
		tap_bail("a timer");
}

static void arm(uint64_t ns)
{
	struct itimerspec t = { .it_value.tv_nsec = ns ? ns / 2 + any(ns) : 0 };

	timer_settime(timer, 0, &t, NULL);
}

/* Inside, or taken out for us. */
static bool was_inside(void)
{
	struct kvm_sregs s;
	struct kvm_regs regs;

	vcpu_sregs(v, &s);
	vcpu_regs(v, &regs);
	return s.cr3 != GUEST_PML4 || regs.rip == (uint64_t)drv_resume;
}

static unsigned long after_kick;	/* ioctl without an argument */
static struct kvm_guest_debug debug_by_vmm;

static int64_t leak_call(uint64_t op, uint64_t a, uint64_t what)
{
	struct kvm_sregs s;

	vcpu_prepare(v, g_leak_call, op, a, what, gate);
	if (debug_by_vmm.control)
		ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug_by_vmm);
	for (;;) {
		v->run->kvm_valid_regs = KVM_SYNC_X86_VALID_FIELDS;
		if (kick_ns)
			arm(kick_ns);
		vcpu_run(v);
		if (v->error == EINTR) {
			struck[KICKED] += was_inside();
			look_at_vcpu(v, KICKED);
			if (after_kick && struck[KICKED] % 2)
				ioctl(v->fd, after_kick);
		} else if (v->exit == KVM_EXIT_DEBUG) {
			vcpu_sregs(v, &s);
			struck[STEPPED] += s.cr3 != GUEST_PML4;
			look_at_vcpu(v, STEPPED);
			ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug_by_vmm);
		} else if (v->stop == STOP_SYNC) {
			look_at_vcpu(v, BY_HANDLER);
			look_at_memory(BY_HANDLER);
		} else if (vcpu_done(v)) {
			arm(0);
			look_at_vcpu(v, AT_END);
			return v->value;
		} else if (v->error != EAGAIN) {
			vcpu_explain(v);
			tap_bail("the guest has come to an end");
		}
	}
}

/*
 * Another thread's: through the interrupt controller. NMIs and SMIs together end an
 * ordinary guest, too, in the emulated AMD host.
 */
static const uint32_t nmis[] = { LEAK_MSI, 0x400 }, smis[] = { LEAK_MSI, 0x200 };
static bool striking;

static void *striker(void *arg)
{
	const uint32_t *data = arg;

	while (__atomic_load_n(&striking, __ATOMIC_ACQUIRE)) {
		struct kvm_msi msi = { .address_lo = 0xfee00000, .data = data[any(2)] };
		uint64_t streak = __atomic_load_n(&g->streak, __ATOMIC_RELAXED);

		ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
		usleep(any(200ul << (streak < 64 ? streak / 8 : 8)));
	}
	return NULL;
}

static void make_vm(void)
{
	struct kvm_userspace_memory_region smm = { .slot = 1 << 16, .memory_size = RAM };
	struct kvm_xcrs x;

	vm = vm_create(RAM, 2, VM_IRQCHIP);
	v = &vm->vcpu[0];
	g = vm_var(vm, leak_guest);
	g->xsave = v->xsave;
	if (v->xsave && !ioctl(v->fd, KVM_GET_XCRS, &x))
		level = (x.xcrs[0].value & 0xe6) == 0xe6 ? LEAK_AVX512 : x.xcrs[0].value & 4 ? LEAK_AVX : LEAK_SSE;
	/* SMM has memory slots of its own. */
	smm.userspace_addr = (uintptr_t)vm->map;
	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &smm))
		tap_bail("memory in SMM");
	memcpy(vm_host(vm, SMM), "\x0f\xaa", 2);	/* rsm */
	memset(hits, 0, sizeof(hits));
	memset(looks, 0, sizeof(looks));
	memset(struck, 0, sizeof(struck));
}

/* ---- outside: the hunt finds it ------------------------------------------------------------ */

static void control(uint64_t n)
{
	struct leak_log *log;
	int64_t wrong = 0;

	make_vm();
	memcpy(vm_host(vm, PLAIN), leak_code, LEAK_CODE_PAGES * PAGE_SIZE);
	memcpy(vm_host(vm, PLAIN + LEAK_DATA), secret, LEAK_SECRET);
	*(uint32_t *)vm_host(vm, PLAIN + LEAK_LEVEL) = level;
	gate = PLAIN + LEAK_GATE_AT;
	vcpu_call(v, g_leak_setup, 60000);
	kick_ns = 200000;
	for (int i = 0; i < 200 && (g->outside < n || !hits[REGS][KICKED]) && !wrong; i++)
		wrong = leak_call(LEAK_WORK, 4000, 0);
	is(wrong, 0, "D6 outside: the work is done");
	log = vm_host(vm, LEAK_LOG);
	ok(search(&log->f, LEAK_LOGS * sizeof(*log), NULL), "D6 outside: a handler's notes have the secret (%lu events)",
	   g->outside);
	ok(search(log->vectors, sizeof(log->vectors), NULL), "D6 outside: and its vector registers");
	ok(search(vm_host(vm, GUEST_STACKS), GUEST_STACK, NULL), "D6 outside: and its stack");
	ok(hits[REGS][KICKED], "D6 outside: KVM_GET_REGS has it");
	ok(hits[RUN][KICKED], "D6 outside: kvm_run has it");
	ok(hits[FPU][KICKED], "D6 outside: KVM_GET_FPU has it");
	ok(!v->xsave || hits[XSAVE][KICKED], "D6 outside: KVM_GET_XSAVE has it");
	kick_ns = 0;
	vm_destroy(vm);
}

/* ---- inside ----------------------------------------------------------------------------------- */

static struct cell dom;

static void enter(void)
{
	struct rdt_event ev;

	make_vm();
	r = rdt_attach(vm->fd);
	cell_allow(v, r);
	cell_place(&dom, vm, &image, DOM);
	*(uint32_t *)vm_host(vm, DOM + LEAK_LEVEL) = level;
	is(cell_build(v, &dom), 0, "D6 a domain");
	is(cell_seal(v, &dom), 0, "D6 is sealed");
	is(cell_install(r, &dom, LEAK_DATA, secret, LEAK_SECRET), 0, "D6 has a secret that the guest has never had");
	gate = cell_gate(&dom);
	while (rdt_next(r, &ev))
		;
	g->stop_every = LEAK_LOGS / 2;
	tap_diag("vector registers: level %u; %s", level, v->xsave ? "XSAVE" : "FXSAVE");
}

static void interrupts(uint64_t n, const uint32_t *strikes)
{
	struct vcpu *v1 = &vm->vcpu[1];
	uint64_t until = g->events + n;
	int64_t wrong = 0;
	pthread_t thread;

	vcpu_call(v1, g_leak_setup, 0);
	g->quiet = 0;
	vcpu_start(v1, g_leak_ipis, 0, LEAK_IPI, 3000);
	striking = true;
	pthread_create(&thread, NULL, striker, (void *)strikes);
	vcpu_call(v, g_leak_setup, 60000);
	for (int i = 1; g->events < until && i <= 20000 && !wrong; i++) {
		wrong = leak_call(LEAK_WORK, 2000, 0);
		/* A CPU whose timer's interrupt the emulator has lost (lab.md) sets it anew when it idles. */
		if (i % 1000 == 0 && g->events == until - n)
			usleep(10000);
	}
	__atomic_store_n(&striking, false, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	vcpu_call(v, g_leak_timer, 0);
	g->quiet = 1;
	vcpu_join(v1);
	look_at_vcpu(v1, AT_END);
	is(wrong, 0, "D6 events strike, the inside's results are right");
	ok(g->events >= until, "D6 %lu interrupts have struck inside", g->events);
}

static void all_kinds(void)
{
	tap_diag("inside: %lu timer interrupts, %lu MSIs, %lu IPIs, %lu NMIs; outside: %lu", g->by_vector[LEAK_TIMER],
		 g->by_vector[LEAK_MSI], g->by_vector[LEAK_IPI], g->by_vector[2], g->outside);
	ok(g->by_vector[LEAK_TIMER] && g->by_vector[LEAK_MSI] && g->by_vector[LEAK_IPI] && g->by_vector[2],
	   "D6 timer, MSI, IPI and NMI");
	/* Its state would be below the handler. */
	ok(vm_u64(vm, SMM + 0x7ef8) || vm_u64(vm, SMM + 0x7f00), "D6 an SMI has left a state in memory");
}

static void exceptions(uint64_t n)
{
	static const struct {
		uint64_t what, vector;
		int64_t result;
		const char *name;
	} kinds[] = {
		{ LEAK_PF, 14, -EFAULT, "#PF" }, { LEAK_UD, 6, -EFAULT, "#UD" }, { LEAK_DE, 0, -EFAULT, "#DE" },
		{ LEAK_INT3, 3, 0, "int3" }, { LEAK_INT, 0x90, 0, "int n" },
	};
	int64_t ret;

	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		uint64_t before = g->by_vector[kinds[i].vector];
		unsigned int wrong = 0;

		for (uint64_t k = 0; k < n; k++, g->soft = 0)
			wrong += leak_call(LEAK_WORK, 8, kinds[i].what) != kinds[i].result;
		is(wrong, 0, "D6 %s with the secret in all registers: the result", kinds[i].name);
		is(g->by_vector[kinds[i].vector] - before, n, "D6 %s: the handler ran", kinds[i].name);
		look_at_memory(AT_END);
	}
	/* Where the CPU does not tell its length KVM cannot skip it: the call ends. */
	ret = leak_call(LEAK_WORK, 8, LEAK_CPUID);
	ok(ret == 0 || ret == -EPERM, "D6 CPUID with the secret in all registers (%ld)", ret);
	look_at_memory(AT_END);
}

static void debug(uint64_t n)
{
	uint64_t before = g->by_vector[DB_VECTOR], steps;
	int64_t wrong = 0;

	for (int i = 0; g->by_vector[DB_VECTOR] - before < n && i < 1000 && !wrong; i++)
		wrong = leak_call(LEAK_WORK, 8, LEAK_TF);
	steps = g->by_vector[DB_VECTOR] - before;
	is(wrong, 0, "D6 the inside under TF: the results");
	ok(steps >= n, "D6 the inside under TF: %lu #DB", steps);
	look_at_memory(AT_END);

	/* Writes of 8 bytes to its counter. */
	before = g->by_vector[DB_VECTOR];
	vcpu_call(v, g_leak_watch, CELL_GVA + LEAK_DONE, 0x90401);
	is(leak_call(LEAK_WORK, 64, 0), 0, "D6 a breakpoint of the kernel's on data inside: the result");
	vcpu_call(v, g_leak_watch, 0, 0x400);
	ok(g->by_vector[DB_VECTOR] - before >= 32, "D6 a breakpoint of the kernel's: %lu #DB",
	   g->by_vector[DB_VECTOR] - before);
	look_at_memory(AT_END);
}

/* By the VMM: a step at a time, and a breakpoint of its own on the inside's counter. */
static void vmm_debugs(uint64_t n)
{
	const struct kvm_guest_debug off = {};
	int64_t wrong = 0;

	debug_by_vmm = (struct kvm_guest_debug){ .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	kick_ns = 100000;
	for (int i = 0; looks[REGS][STEPPED] < n && i < 1000 && !wrong; i++) {
		wrong = leak_call(LEAK_WORK, 800, 0);
	}
	kick_ns = 0;
	is(wrong, 0, "D6 the VMM steps the vCPU: the results");
	ok(looks[REGS][STEPPED] >= n, "D6 the VMM steps: %lu times", looks[REGS][STEPPED]);
	is(struck[STEPPED], 0, "D6 the VMM steps: it never sees the inside");

	debug_by_vmm = (struct kvm_guest_debug){ .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
						 .arch.debugreg = { [0] = CELL_GVA + LEAK_DONE, [7] = 0x90401 } };
	n = looks[REGS][STEPPED];
	is(leak_call(LEAK_WORK, 64, 0), 0, "D6 a breakpoint of the VMM's inside: the result");
	ok(looks[REGS][STEPPED] > n, "D6 a breakpoint of the VMM's: %lu times", looks[REGS][STEPPED] - n);
	is(struck[STEPPED], 0, "D6 a breakpoint of the VMM's: it never sees the inside");
	debug_by_vmm.control = 0;
	ioctl(v->fd, KVM_SET_GUEST_DEBUG, &off);
	look_at_memory(STEPPED);
}

static void kicks(uint64_t n, unsigned long request, const char *name)
{
	uint64_t before = struck[KICKED];
	int64_t wrong = 0;

	after_kick = request;
	kick_ns = 100000;
	for (int i = 0; struck[KICKED] - before < n && i < 20000 && !wrong; i++)
		wrong = leak_call(LEAK_WORK, 2000, 0);
	kick_ns = after_kick = 0;
	is(wrong, 0, "D6 %s: the results", name);
	ok(struck[KICKED] - before >= n, "D6 %s: %lu inside", name, struck[KICKED] - before);
	look_at_memory(KICKED);
}

/* What the VMM would have to finish: the call ends instead. */
static void io(uint64_t n)
{
	int64_t wrong = 0;

	rdt_drain(r);
	for (uint64_t i = 0; i < n; i++)
		wrong |= leak_call(LEAK_WORK, 8, LEAK_OUT) != -EPERM;
	is(wrong, 0, "D6 I/O with the secret in all registers: the call ends");
	wrong = 0;
	ok(rdt_count(r, RDT_EV_GATE) >= n, "D6 I/O: alerts");
	look_at_memory(AT_END);
	/* Where KVM makes the vCPU's paging anew. */
	kick_ns = 30000;
	for (uint64_t i = 0; i < n; i++)
		wrong |= leak_call(LEAK_WORK, 256, LEAK_CR4);
	kick_ns = 0;
	ok(wrong == 0 || wrong == -EPERM, "D6 a mode of paging that the inside changes: the results");
	look_at_memory(AT_END);
}

static void migration(uint64_t n)
{
	int64_t wrong = 0;

	vm_set_slot(vm, 0, 0, RAM, vm->map, KVM_MEM_LOG_DIRTY_PAGES);
	vcpu_call(v, g_leak_timer, 60000);
	kick_ns = 300000;
	for (uint64_t i = 0; i < n; i++) {
		wrong |= leak_call(LEAK_WORK, 2000, 0);
		look_at_stream(AT_END);
	}
	kick_ns = 0;
	vcpu_call(v, g_leak_timer, 0);
	is(wrong, 0, "D6 while memory is logged: the results");
	ok(looks[STREAM][AT_END], "D6 while memory is logged: %lu pages sent", looks[STREAM][AT_END]);
	vm_set_slot(vm, 0, 0, RAM, vm->map, 0);
}

static void verdict(void)
{
	for (int where = 0; where < PLACES; where++)
		for (int when = 0; when < TIMES; when++)
			if (looks[where][when])
				is(hits[where][when], 0, "D6 nothing of it in %s at %s (%lu times)", places[where],
				   times[when], looks[where][when]);
	is(g->stray, 0, "D6 no handler saw an address or flags of the inside");
}

int main(int argc, char **argv)
{
	uint64_t n;

	setvbuf(stdout, NULL, _IOLBF, 0);
	kvm_dev();
	n = argc > 1 ? strtoul(argv[1], NULL, 0) : guest_is_intel ? 100 : 500;
	make_timer();
	secret = malloc(LEAK_SECRET);
	if (!secret || getrandom(secret, LEAK_SECRET, 0) != LEAK_SECRET)
		tap_bail("getrandom");
	search_for(secret, LEAK_SECRET);
	control(n / 10);
	enter();
	interrupts(n / 4, nmis);
	interrupts(n / 4, smis);
	all_kinds();
	exceptions(n / 50);
	debug(n / 4);
	vmm_debugs(n / 2);
	kicks(n / 10, 0, "signals");
	kicks(n / 20, KVM_NMI, "KVM_NMI after a signal");
	kicks(n / 20, KVM_SMI, "KVM_SMI after a signal");
	io(n / 50);
	migration(n / 50);
	verdict();
	is(cell_destroy(v, &dom), 0, "D6 the domain goes");
	look_at_memory(AT_END);
	is(hits[MEMORY][AT_END], 0, "D6 and leaves nothing");
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
