// SPDX-License-Identifier: GPL-2.0
/* Domains of ring 3: a process maps the gate and the windows, and goes in by itself. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "domain_user.h"

/* dom_user.S */
int64_t dom_user_call(const void *gate, uint64_t op, uint64_t at, uint64_t len, uint64_t room);
int64_t dom_user_drop(uint64_t token);
extern char dom_user_resume[], dom_user_return[], dom_user_intel;
extern uint64_t dom_user_crossed;

struct user_domain {
	int fd;
	unsigned int slots;
	struct image im;
	char *gate, *window;
};

static void *map(int fd, size_t bytes, int prot, int flags, uint64_t at)
{
	return mmap(NULL, bytes, prot, flags, fd, at);
}

static bool make(struct user_domain *d, unsigned int slots, unsigned int more)
{
	d->fd = control();
	d->slots = slots;
	describe(&d->im, slots, RDT_DOM_USER);
	dom_user_intel = d->im.bytes[dom_image_intel - dom_image];
	d->im.segment[3].pages += more;
	d->im.image.resume_gva = (uintptr_t)dom_user_resume;
	if (ioctl(d->fd, RDT_DOMAIN_CREATE, &d->im.image))
		return false;
	d->gate = map(d->fd, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, RDT_DOMAIN_MAP_GATE);
	d->window = map(d->fd, slots * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, RDT_DOMAIN_MAP_WINDOW(0));
	return d->gate != MAP_FAILED && d->window != MAP_FAILED;
}

static void unmake(struct user_domain *d)
{
	munmap(d->gate, 4096);
	munmap(d->window, d->slots * 4096);
	close(d->fd);
}

/* By the convention of the driver's calls; which part is the caller's is the caller's to know. */
static int64_t in(struct user_domain *d, unsigned int part, uint64_t op, uint64_t a, uint64_t b)
{
	uint64_t *at = (void *)(d->window + part * 4096);

	at[0] = a;
	at[1] = b;
	return dom_user_call(d->gate + DOM_GATE_AT, op, DOM_WINDOW_USER + part * 4096, 16, 4096);
}

static uint64_t got(struct user_domain *d, unsigned int part)
{
	return *(uint64_t *)(d->window + part * 4096);
}

/* ---- an exception of the inside is a signal of the process -------------------------------- */

static int signals[NSIG], drops;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *c = context;

	(void)info;
	signals[sig]++;
	if (c->uc_mcontext.gregs[REG_RIP] != (greg_t)dom_user_resume)
		_exit(100);
	drops += dom_user_drop(c->uc_mcontext.gregs[REG_RDI]) == 0;
	c->uc_mcontext.gregs[REG_RIP] = (greg_t)dom_user_return;
	c->uc_mcontext.gregs[REG_RAX] = -EFAULT;
}

static void test_faults(struct user_domain *d)
{
	struct sigaction act = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO }, was[3];
	int i, ends = 0;

	sigaction(SIGILL, &act, &was[0]);
	sigaction(SIGSEGV, &act, &was[1]);
	for (i = 0; i < 20; i++)
		ends += in(d, 0, DOM_FAULT, 0, 0) == -EFAULT;
	ok(ends == 20 && signals[SIGILL] == 20 && drops == 20, "C10 ring 3: exceptions inside are signals: %d, %d, %d",
	   ends, signals[SIGILL], drops);
	for (i = 0; i < 20; i++)
		ends += in(d, 0, DOM_FAULT_CLI, 0, 0) == -EFAULT;
	ok(ends == 40 && signals[SIGSEGV] == 20, "C6 ring 3: what is for ring 0 is not done: %d", signals[SIGSEGV]);
	ends = in(d, 0, DOM_LOAD, 0x10000, 0) < 0;
	ends += in(d, 0, DOM_LOAD, 0xffff888000000000, 0) < 0;
	ok(ends == 2, "C5 ring 3: it reaches neither its process nor the kernel");
	ok(in(d, 0, DOM_LOAD, (uintptr_t)&ends, 0) == -EPERM, "C5 ring 3: nor what its process has mapped; the call ends");
	ok(in(d, 0, DOM_VALUE, 77, 0) == 77, "C10 ring 3: and goes on");
	sigaction(SIGILL, &was[0], NULL);
	sigaction(SIGSEGV, &was[1], NULL);
}

/* ---- threads ------------------------------------------------------------------------------- */

struct thread {
	pthread_t id;
	struct user_domain *d;
	unsigned int part, op, times;
	uint64_t a, b;
	int64_t result;
	int wrong;
	bool done;
};

static void *runs(void *arg)
{
	struct thread *t = arg;
	unsigned int i;

	for (i = 0; i < t->times; i++) {
		t->result = in(t->d, t->part, t->op, t->a, t->b);
		t->wrong += t->result < 0 || (t->op == DOM_SPIN && got(t->d, t->part) != dom_spin(t->a));
	}
	__atomic_store_n(&t->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void test_threads(struct user_domain *d)
{
	struct thread t[4];
	int i, wrong = 0;
	cpu_set_t set;

	for (i = 0; i < 4; i++) {
		t[i] = (struct thread){ .d = d, .part = i, .op = DOM_MEET, .times = 1, .a = 4, .b = 1ull << 32 };
		pthread_create(&t[i].id, NULL, runs, &t[i]);
	}
	for (i = 0; i < 4; i++) {
		pthread_join(t[i].id, NULL);
		wrong += t[i].wrong;
	}
	ok(!wrong, "C1 ring 3: four threads are inside at once");
	t[0] = (struct thread){ .d = d, .op = DOM_SPIN, .times = 5, .a = 2000000 };
	pthread_create(&t[0].id, NULL, runs, &t[0]);
	for (i = 0; !__atomic_load_n(&t[0].done, __ATOMIC_SEQ_CST); i++) {
		CPU_ZERO(&set);
		CPU_SET(i & 1, &set);
		pthread_setaffinity_np(t[0].id, sizeof(set), &set);
		usleep(2000);
	}
	pthread_join(t[0].id, NULL);
	ok(!t[0].wrong && i > 5, "C10 ring 3: moved between CPUs %d times in its work, the results are right", i);
}

/* ---- what is refused ------------------------------------------------------------------------ */

static bool no_map(int fd, size_t bytes, int prot, int flags, uint64_t at, int err)
{
	void *p = map(fd, bytes, prot, flags, at);

	return p == MAP_FAILED && errno == err;
}

static void test_maps(struct user_domain *d)
{
	int rw = PROT_READ | PROT_WRITE, fd = control();

	ok(no_map(fd, 4096, PROT_READ, MAP_SHARED, 0, ENXIO), "C6 ring 3: no domain, no gate");
	close(fd);
	fd = d->fd;
	ok(no_map(fd, 4096, rw, MAP_SHARED, 0, EACCES), "C6 ring 3: a gate to write");
	ok(mprotect(d->gate, 4096, rw) && errno == EACCES, "C6 ring 3: likewise, later");
	ok(no_map(fd, 8192, PROT_READ, MAP_SHARED, 0, EINVAL), "C6 ring 3: more than the gate");
	ok(no_map(fd, 4096, PROT_READ, MAP_PRIVATE, 0, EINVAL), "C6 ring 3: a private gate");
	ok(no_map(fd, 4096, rw, MAP_SHARED, RDT_DOMAIN_MAP_WINDOW(1), EINVAL), "C6 ring 3: a window that it has not");
	ok(no_map(fd, 4096, rw, MAP_SHARED, 4096, EINVAL), "C6 ring 3: nothing there");
	ok(no_map(fd, (d->slots + 1) * 4096, rw, MAP_SHARED, RDT_DOMAIN_MAP_WINDOW(0), EINVAL),
	   "C6 ring 3: more than the window");
	ok(no_map(fd, 4096, rw | PROT_EXEC, MAP_SHARED, RDT_DOMAIN_MAP_WINDOW(0), EACCES), "C6 ring 3: a window to execute");
	ok(call(fd, DOM_ECHO, "x", 1, NULL, 0, NULL) && errno == EOPNOTSUPP, "C6 ring 3: no call by the driver");
	ok(ioctl(fd, RDT_DOMAIN_PUBLISH, &(struct rdt_publish){ .name = "x" }) && errno == EOPNOTSUPP,
	   "C6 ring 3: is not published");
}

static bool dies(struct user_domain *d, void (*what)(struct user_domain *), int by)
{
	int status;

	if (!fork()) {
		what(d);
		_exit(0);
	}
	wait(&status);
	return WIFSIGNALED(status) && WTERMSIG(status) == by;
}

static void calls_in_child(struct user_domain *d)
{
	in(d, 0, DOM_VALUE, 1, 0);
}

/* Of its own: a child has no gate. */
static void reads_gate(struct user_domain *d)
{
	struct user_domain mine;

	(void)d;
	if (make(&mine, 1, 0))
		*(volatile char *)mine.gate;
}

static void jumps_past(struct user_domain *d)
{
	struct user_domain mine;

	(void)d;
	if (make(&mine, 1, 0))
		dom_user_call(mine.gate + DOM_GATE_AT + 4, DOM_VALUE, DOM_WINDOW_USER, 0, 0);
}

/* ---- the owner is killed ---------------------------------------------------------------------- */

void ring3_victim(int *stage)
{
	static struct user_domain d;
	struct thread t[3];
	int i;

	if (!make(&d, 4, 256))
		_exit(1);
	*stage = 1;
	for (i = 0; i < 3; i++) {
		t[i] = (struct thread){ .d = &d, .part = i, .op = i & 1 ? DOM_SPIN : DOM_FOREVER, .times = 1 << 20,
					.a = 1 << 20 };
		pthread_create(&t[i].id, NULL, runs, &t[i]);
	}
	*stage = 2;
	for (;;)
		pause();
}

void test_ring3(void)
{
	struct user_domain d;
	struct image im;
	uint8_t sum[32];

	if (!make(&d, 4, 0)) {
		if (errno == EOPNOTSUPP)
			ok(true, "C6 ring 3 # SKIP the host has no domains of ring 3");
		else
			ok(false, "C6 ring 3: a domain: %s", strerror(errno));
		return;
	}
	measure(&d.im, sum);
	ok(!memcmp(sum, d.im.image.measurement, 32), "C7 ring 3: the measurement is what OpenSSL computes");
	ok(in(&d, 1, DOM_VALUE, 42, 0) == 42 && !dom_user_crossed, "C6 ring 3: in and out, and nothing but the result: %#lx",
	   dom_user_crossed);
	in(&d, 0, DOM_COUNT, 40, 0);
	ok(in(&d, 2, DOM_COUNT, 2, 0) == 8 && got(&d, 2) == 42, "C2 ring 3: its data is kept");
	ok(in(&d, 3, DOM_MEASURE, 0, 0) == 32 && !memcmp(d.window + 3 * 4096, sum, 32), "C7 ring 3: the inside measures itself");
	test_faults(&d);
	test_threads(&d);
	test_maps(&d);
	ok(dies(&d, calls_in_child, SIGSEGV), "C6 ring 3: a child has no gate");
	ok(in(&d, 0, DOM_VALUE, 7, 0) == 7, "C6 ring 3: its owner does");
	unmake(&d);
	/* Whoever has the device may have one of ring 3. */
	d.fd = control();
	if (!fork()) {
		describe(&im, 1, RDT_DOM_USER);
		im.image.resume_gva = (uintptr_t)dom_user_resume;
		_exit(setuid(1000) || ioctl(d.fd, RDT_DOMAIN_CREATE, &im.image));
	}
	ok(wait_ok(), "C6 ring 3: for those who are not root, too");
	close(d.fd);
}

/* Apart: the guest's kernel has something to say of it. */
void test_ring3_past(void)
{
	ok(dies(NULL, reads_gate, SIGSEGV), "C5 ring 3: the gate cannot be read");
	ok(dies(NULL, jumps_past, SIGSEGV), "C6 ring 3: nobody gets in elsewhere");
}
