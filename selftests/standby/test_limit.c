// SPDX-License-Identifier: GPL-2.0
/*
 * F5: vCPUs that dirty memory faster than they may (LIMIT). Writers are counted, slowed to a rate, held, and let go: by another
 * LIMIT, by a VMM that kicks them, by SIGKILL, by the end of the registration. This process is the VMM, but for what is killed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gnl.h"
#include "layout.h"
#include "tap.h"
#include "vmm.h"

#define DATA_GPA	0x10000000ul
#define PAGES		4096ul
#define VCPUS		2
#define STOP(i)		(GUEST_FREE + (i) * PAGE_SIZE)		/* a vCPU's word: end */
#define COUNT(i)	(STOP(i) + 8)				/* pages that it has written */

static int ctl, dev, refs;
static uint16_t family;
static struct gnl_msg msg;
static struct vm *vm;
static uint32_t id;
static uint8_t *data;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* Guest: one page after the other, each once. */
static void g_writer(uint64_t from, uint64_t to, uint64_t word)
{
	volatile uint64_t *stop = (void *)word, *count = (void *)(word + 8);

	for (uint64_t i = from; i < to && !*stop; i++) {
		*(volatile uint64_t *)(DATA_GPA + i * PAGE_SIZE) = i;
		*count = *count + 1;
	}
}

static uint64_t g_reader(uint64_t nr)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr; i++)
		sum += *(volatile uint64_t *)(DATA_GPA + i * PAGE_SIZE);
	return sum;
}

/* ---- requests ----------------------------------------------------------------- */

static struct rdt_sb_limit_info info;
static uint64_t faults;

static int limit(const struct rdt_sb_limit *l)
{
	static char buf[GNL_MAX];
	struct nlmsghdr *reply = (void *)buf;
	struct gnl_attrs a;
	int err;

	gnl_begin(&msg, family, RDT_SB_CMD_LIMIT);
	gnl_u32(&msg, RDT_SB_A_VM, id);
	if (l)
		gnl_put(&msg, RDT_SB_A_LIMIT, l, sizeof(*l));
	err = gnl_call(ctl, &msg, reply);
	if (err)
		return err;
	gnl_attrs(reply, &a);
	faults = gnl_num(a.a[RDT_SB_A_FAULTS]);
	if (!a.a[RDT_SB_A_LIMIT_INFO] || gnl_len(a.a[RDT_SB_A_LIMIT_INFO]) != sizeof(info))
		tap_bail("LIMIT's answer");
	memcpy(&info, gnl_data(a.a[RDT_SB_A_LIMIT_INFO]), sizeof(info));
	return 0;
}

static const struct rdt_sb_limit all = { ~0ull, ~0ull, ~0ull, 0 };
/* @free more at once, the next until @stop more at @rate; what it was is known by FAULTS */
static int slow(uint64_t free, uint64_t stop, uint64_t end, uint64_t rate)
{
	return limit(&(struct rdt_sb_limit){ faults + free, faults + stop, faults + end, rate });
}

static void rescan(void)
{
	for (uint64_t at = 0; at < PAGES; at += 1024) {
		gnl_begin(&msg, family, RDT_SB_CMD_SCAN);
		gnl_u32(&msg, RDT_SB_A_VM, id);
		gnl_u64(&msg, RDT_SB_A_FIRST, (uintptr_t)data / PAGE_SIZE + at);
		gnl_u32(&msg, RDT_SB_A_FRAMES, 1024);
		if (gnl_call(ctl, &msg, NULL))
			tap_bail("SCAN");
	}
}

static int do_register(struct vm *of, uint32_t *out)
{
	int fds[VCPUS];
	struct rdt_sb_register reg = { .vm_fd = of->fd, .nr_vcpus = VCPUS, .vcpu_fds = (uintptr_t)fds, .uuid = "redoubt standby" };
	int fd = open("/dev/redoubt-standby", O_RDWR | O_CLOEXEC);

	for (int i = 0; i < VCPUS; i++)
		fds[i] = of->vcpu[i].fd;
	if (fd < 0 || ioctl(fd, RDT_SB_REGISTER, &reg))
		tap_bail("register");
	*out = reg.id;
	return fd;
}

/* ---- writers -------------------------------------------------------------------- */

static uint64_t written(int i)
{
	return *(volatile uint64_t *)vm_host(vm, COUNT(i));
}

static void go(int i, uint64_t from, uint64_t to)
{
	*(volatile uint64_t *)vm_host(vm, STOP(i)) = 0;
	*(volatile uint64_t *)vm_host(vm, COUNT(i)) = 0;
	vcpu_start(&vm->vcpu[i], g_writer, from, to, STOP(i));
}

static bool until(bool (*what)(void), unsigned int seconds)
{
	for (const uint64_t end = now_ms() + seconds * 1000ull; now_ms() < end; usleep(5000))
		if (what())
			return true;
	return what();
}
static unsigned int want_asleep;
static bool asleep(void)
{
	static char buf[GNL_MAX];
	struct gnl_attrs a;

	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, id);
	if (gnl_call(ctl, &msg, (void *)buf))
		tap_bail("GET");
	gnl_attrs((void *)buf, &a);
	if (!a.a[RDT_SB_A_LIMIT_INFO])
		return false;
	memcpy(&info, gnl_data(a.a[RDT_SB_A_LIMIT_INFO]), sizeof(info));
	faults = gnl_num(a.a[RDT_SB_A_FAULTS]);
	return info.asleep == want_asleep;
}
static uint64_t were_written;
static bool write_on(void)
{
	return written(0) + written(1) > were_written;
}
static bool asleep_are(unsigned int n)
{
	want_asleep = n;
	return until(asleep, 30);
}

/* ---- tests ------------------------------------------------------------------------ */

static void test_refused(void)
{
	is(limit(&(struct rdt_sb_limit){ 10, 5, 20, 1 }), EINVAL, "F5 stop before free is refused");
	is(limit(&(struct rdt_sb_limit){ 10, 30, 20, 1 }), EINVAL, "F5 stop behind end");
	is(limit(&(struct rdt_sb_limit){ 10, 20, 30, 0 }), EINVAL, "F5 no rate");
	is(limit(&(struct rdt_sb_limit){ 10, 20, 30, (1 << 28) + 1 }), EINVAL, "F5 too high a rate");
	is(limit(&(struct rdt_sb_limit){ 0, 20, (1ull << 35) + 1, 1 }), EINVAL, "F5 too long a slope");
	is(limit(&(struct rdt_sb_limit){ ~0ull, 20, ~0ull, 1 }), EINVAL, "F5 no limit and a stop");
	id++;
	is(limit(&all), ENOENT, "F5 no such VM");
	id--;
	gnl_begin(&msg, family, RDT_SB_CMD_LIMIT);
	gnl_u32(&msg, RDT_SB_A_VM, id);
	gnl_put(&msg, RDT_SB_A_LIMIT, &all, 16);
	ok(gnl_call(ctl, &msg, NULL) == ERANGE || gnl_call(ctl, &msg, NULL) == EINVAL, "F5 half a limit");
}

static void test_counted(void)
{
	uint64_t before;

	is(limit(&all), 0, "F5 only counted");
	rescan();
	limit(&all);
	before = faults;
	vcpu_call(&vm->vcpu[0], g_reader, PAGES);
	limit(&all);
	/* The guest's own stack is in other pages, which nobody has made read-only. */
	ok(faults - before <= 8, "F5 reading %lu pages is no write", PAGES);
	before = faults;
	go(0, 0, PAGES);
	vcpu_join(&vm->vcpu[0]);
	limit(&all);
	ok(faults - before >= PAGES && faults - before <= PAGES + 8, "F5 writing %lu: %lu faults", PAGES, faults - before);
	before = faults;
	go(0, 0, PAGES);
	vcpu_join(&vm->vcpu[0]);
	limit(&all);
	ok(faults - before <= 8, "F5 writing them again: none");
	is(info.sleeps, 0, "F5 nobody was slowed");
}

/* Where a vCPU is that was told to go no further, and may go on. */
static void test_held(void)
{
	const uint64_t stop = 512;
	uint64_t at;

	rescan();
	slow(0, stop, 2 * stop, 1 << 28);
	go(0, 0, PAGES / 2);
	go(1, PAGES / 2, PAGES);
	ok(asleep_are(2), "F5 two vCPUs that write are held at the stop line");
	at = written(0) + written(1);
	ok(at + 8 >= stop && at <= stop + VCPUS, "F5 they have written %lu pages of %lu", at, stop);
	usleep(1500000);
	is(written(0) + written(1), at, "F5 and no more since");
	were_written = at + stop / 2;
	is(slow(stop, 2 * stop, 4 * stop, 1 << 28), 0, "F5 they may write more");
	ok(until(write_on, 30), "F5 and do");
	ok(asleep_are(2), "F5 and are held again");
	at = written(0) + written(1);
	ok(at > 2 * stop && at <= 3 * stop + 4 * VCPUS, "F5 behind %lu pages", at);
	is(limit(NULL), 0, "F5 no limit any more");
	vcpu_join(&vm->vcpu[0]);
	vcpu_join(&vm->vcpu[1]);
	is(written(0) + written(1), PAGES, "F5 and they go on to their end");
}

static void on_kick(int sig)
{
	(void)sig;
}

static volatile int kicked;
static uint64_t kick_ms;
static void *run_once(void *arg)
{
	struct vcpu *v = arg;

	vcpu_prepare(v, g_writer, 0, PAGES, STOP(0));
	vcpu_run(v);
	kick_ms = now_ms();
	kicked = 1;
	return NULL;
}

/* What a VMM does to stop its VM: it must have its thread back, now. */
static void test_kicked(void)
{
	struct vcpu *v = &vm->vcpu[0];
	pthread_t thread;
	uint64_t ms, at;

	rescan();
	limit(&all);
	slow(0, 64, 128, 1 << 28);
	*(volatile uint64_t *)vm_host(vm, STOP(0)) = 0;
	*(volatile uint64_t *)vm_host(vm, COUNT(0)) = 0;
	kicked = 0;
	if (pthread_create(&thread, NULL, run_once, v))
		tap_bail("a thread");
	ok(asleep_are(1), "F5 a vCPU is held");
	is(kicked, 0, "F5 it is in KVM_RUN");
	ms = now_ms();
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	ms = kick_ms - ms;
	is(v->error, EINTR, "F5 a VMM that kicks it gets its thread back");
	ok(ms < 500, "F5 at once (%lu ms)", ms);
	at = written(0);
	/* With a kick that is pending it does not go into the guest at all. */
	v->run->immediate_exit = 1;
	for (int i = 0; i < 100; i++)
		vcpu_run(v);
	v->run->immediate_exit = 0;
	is(written(0), at, "F5 a VMM that looks after it does not let it write");
	is(limit(NULL), 0, "F5 the limit goes");
	do
		vcpu_run(v);
	while (v->error == EINTR);
	is(written(0), PAGES, "F5 and it goes on where it was");
}

/* Pages a second */
static double rate_of(uint64_t rate, uint64_t nr)
{
	uint64_t ms;

	rescan();
	limit(&all);
	/* So far is the end that the slope is flat. */
	slow(0, 1ull << 34, 1ull << 34, rate);
	ms = now_ms();
	go(0, 0, nr);
	vcpu_join(&vm->vcpu[0]);
	ms = now_ms() - ms;
	limit(&all);
	return nr * 1000.0 / (ms ?: 1);
}

static void test_slowed(void)
{
	const double free = rate_of(1 << 28, PAGES), a = rate_of(500, 500), b = rate_of(100, 100);
	const uint64_t r = 500;		/* what a copy would clean */

	/* The controller's curve at 50, 90 and 97 %; at 98 it is held, which test_held() has. */
	tap_diag("a copy of %lu pages a second; the writer at 50 %%: %.0f, at 90 %%: %.0f, at 97 %%: %.0f", r, rate_of(5 * r, 5 * r),
		 rate_of(r, r), rate_of(r * 3 / 10, r * 3 / 10));
	tap_diag("pages a second: unlimited %.0f, limited to 500: %.0f, to 100: %.0f", free, a, b);
	ok(free > 600, "F5 a writer without a limit");
	/* A busy machine makes it slower, nothing makes it faster. */
	ok(a > 25 && a <= 560, "F5 with one of 500 pages a second");
	ok(b > 10 && b <= 112, "F5 of 100");
	ok(info.sleeps && info.slept_ns, "F5 it has slept: %llu times, %llu ms", info.sleeps, info.slept_ns / 1000000);
}

static void test_end(void)
{
	rescan();
	limit(&all);
	slow(0, 32, 64, 1 << 28);
	go(0, 0, PAGES);
	ok(asleep_are(1), "F5 a vCPU is held");
	close(dev);
	vcpu_join(&vm->vcpu[0]);
	is(written(0), PAGES, "F5 the registration's end lets it go");
	dev = do_register(vm, &id);
}

/* A VMM that is killed while its vCPUs are held. */
static void test_killed(void)
{
	int pipes[2], status, fd;
	uint32_t ours = id;
	uint64_t ms;
	pid_t pid;
	char c;

	if (pipe(pipes))
		tap_bail("pipe");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		vm = vm_create(16 << 20, VCPUS, VM_IRQCHIP);
		data = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (vm_set_slot(vm, 1, DATA_GPA, PAGES * PAGE_SIZE, data, 0))
			_exit(1);
		fd = do_register(vm, &id);
		if (limit(&all) || slow(0, 16, 32, 1 << 28))
			_exit(1);
		go(0, 0, PAGES / 2);
		go(1, PAGES / 2, PAGES);
		if (!asleep_are(2) || write(pipes[1], "k", 1) != 1)
			_exit(1);
		pause();
		close(fd);
	}
	close(pipes[1]);
	ok(read(pipes[0], &c, 1) == 1, "F5 another VMM's vCPUs are held");
	ms = now_ms();
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	ok(WIFSIGNALED(status) && now_ms() - ms < 10000, "F5 it can be killed (%lu ms)", now_ms() - ms);
	close(pipes[0]);
	id = ours;
}

int main(void)
{
	struct sigaction kick = { .sa_handler = on_kick };
	int memory;

	if (system("modprobe redoubt_standby"))
		tap_bail("redoubt_standby does not load");
	sigaction(SIGUSR1, &kick, NULL);
	vm = vm_create(16 << 20, VCPUS, VM_IRQCHIP);
	memory = memfd_create("ram", MFD_CLOEXEC);
	if (memory < 0 || ftruncate(memory, PAGES * PAGE_SIZE))
		tap_bail("memfd");
	data = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	if (data == MAP_FAILED || refs < 0 || vm_set_slot(vm, 1, DATA_GPA, PAGES * PAGE_SIZE, data, 0))
		tap_bail("DATA");
	ctl = gnl_socket(NULL);
	family = gnl_family(ctl, NULL, NULL);
	if (!family || write(refs, "4", 1) != 1)
		tap_bail("the module, or clear_refs");
	dev = do_register(vm, &id);
	test_refused();
	test_counted();
	test_held();
	test_kicked();
	test_slowed();
	test_end();
	test_killed();
	close(dev);
	close(ctl);
	/* Behind vCPUs' threads that were in it */
	is(system("rmmod redoubt_standby"), 0, "F1 the module unloads");
	return tap_end();
}
