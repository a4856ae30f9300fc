// SPDX-License-Identifier: GPL-2.0
/*
 * domain-user: /dev/redoubt-domain, from processes of the guest. TAP. The driver is loaded; but for
 * "noquota" the host's operator allows domains.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "domain_user.h"

static bool fails(int ret, int err)
{
	bool right = ret < 0 && errno == err;

	if (!right)
		printf("# returned %d, %s, not %s\n", ret, strerror(errno), strerror(err));
	return right;
}

/* ---- one domain ------------------------------------------------------------------- */

static void test_create(int fd)
{
	struct rdt_domain_about about;
	struct image im;
	struct stat st;
	uint8_t m[32], in[32];

	ok(!stat(CONTROL, &st) && (st.st_mode & 0777) == 0600, "C6 the device is root's");
	ok(fails(call(fd, DOM_ECHO, "x", 1, NULL, 0, NULL), ENXIO), "C1 no domain yet");
	ok(!create(fd, &im, 4, 0), "C1 created");
	ok(fails(create(fd, &(struct image){}, 4, 0), EEXIST), "C1 one domain a file");
	measure(&im, m);
	ok(!memcmp(m, im.image.measurement, 32), "C7 the measurement is what OpenSSL computes from the image");
	ok(!call(fd, DOM_MEASURE, NULL, 0, in, 32, &(int64_t){ 0 }) && !memcmp(m, in, 32), "C7 the inside gets the same");
	ok(!ioctl(fd, RDT_DOMAIN_INFO, &about) && !memcmp(m, about.measurement, 32) && about.id == im.image.id &&
	   about.state == RDT_DOMAIN_IS_SEALED && about.slots == 4 && about.part == 4096 && !about.name[0] &&
	   about.pages > im.pages && about.pages < im.pages + 16, "C7 and who asks the device");
}

static void test_calls(int fd)
{
	char text[] = "HAL and some more", out[64] = "";
	uint64_t w[2] = { 5 }, sum;
	int64_t r = 0;

	ok(!call(fd, DOM_ECHO, text, 3, out, sizeof(out), &r) && r == 3 && !strcmp(out, "IBM"), "C6 a call: \"%s\"", out);
	ok(!call(fd, DOM_ECHO, NULL, 0, NULL, 0, &r) && r == 0, "C6 a call of nothing");
	for (sum = 0; w[0] < 105; w[0]++) {
		call(fd, DOM_COUNT, w, 8, out, 8, &r);
		sum += w[0];
	}
	ok(r == 8 && *(uint64_t *)out == sum, "C2 its data is kept from call to call");
	w[0] = 1000;
	ok(!call(fd, DOM_SPIN, w, 8, out, 8, &r) && *(uint64_t *)out == dom_spin(1000), "C6 it computes");
	w[0] = -1234;
	ok(!call(fd, DOM_VALUE, w, 8, out, 8, &r) && r == -1234, "C6 what it refuses with");
	w[0] = 0xffff888000000000;
	ok(!call(fd, DOM_LOAD, w, 8, out, 8, &r) && r == -EPERM, "C5 it reaches for the kernel: the call ends");
	ok(!call(fd, 99, NULL, 0, out, 8, &r) && r == -EINVAL, "C6 what it does not know");
	call(fd, DOM_FILL, NULL, 0, malloc(4096), 4096, &r);
	w[0] = DOM_WINDOW + 2048;
	ok(r == 4096 && !call(fd, DOM_LOAD, w, 8, out, 8, &r) && !*(uint64_t *)out, "C6 nothing of a call is there for the next");
}

static void test_refusals(int fd)
{
	static char big[8192];
	uint64_t w[2] = {};
	int64_t r = 77;
	int i, faults = 0;

	ok(fails(call(fd, DOM_TOO_LONG, w, 8, big, 16, &r), EBADMSG) && r == 77, "C6 more output than there is room for");
	w[0] = 1ull << 62;
	ok(fails(call(fd, DOM_VALUE, w, 8, big, 16, &r), EBADMSG), "C6 a length that is none");
	w[0] = -5000;
	ok(fails(call(fd, DOM_VALUE, w, 8, big, 16, &r), EBADMSG), "C6 an error that is none");
	ok(fails(call(fd, DOM_ECHO, big, 4097, big, 16, &r), EMSGSIZE), "C6 more input than a part");
	ok(fails(call(fd, DOM_ECHO, (void *)16, 8, big, 16, &r), EFAULT), "C6 input from nowhere");
	ok(fails(call(fd, DOM_ECHO, big, 8, (void *)16, 16, &r), EFAULT), "C6 output to nowhere");
	ok(fails(ioctl(fd, RDT_DOMAIN_CALL, NULL), EFAULT), "C6 no call at all");
	ok(fails(ioctl(fd, RDT_DOMAIN_CALL, &(struct rdt_call){ .reserved = 1 }), EINVAL), "C6 a reserved field");
	ok(fails(ioctl(fd, RDT_ATTACH), ENOTTY), "C6 an ioctl of another device");
	ok(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EOPNOTSUPP, "C6 nothing of ring 0 is mapped");
	/* More often than there are slots: each must come back. */
	for (i = 0; i < 40; i++) {
		w[0] = i % 5;
		faults += call(fd, i % 8 ? DOM_FAULT : DOM_FAULT_CLI, w, 8, NULL, 0, &r) && errno == ENOTRECOVERABLE;
	}
	ok(faults == 40, "C10 exceptions of the inside, of five kinds: %d of 40 end the call", faults);
	ok(!call(fd, DOM_ECHO, "AB", 2, big, 2, &r) && r == 2, "C10 and it goes on");
}

/* The calling process's vector registers are its own, also when it is interrupted inside. */
static void test_vectors(void)
{
	uint64_t w[1] = { 300000 }, out[16][2], wrong = 0;
	static const uint64_t mine[2] = { 0x1111222233334444, 0x5555666677778888 };
	struct rdt_call c = { .op = DOM_VECTORS, .in = (uintptr_t)w, .in_len = 8 };
	int fd = control(), ret, i, round;
	struct image im;

	ok(!create(fd, &im, 2, RDT_DOM_VECTOR), "C6 a domain with vector registers");
	for (round = 0; round < 5; round++) {
		asm volatile("movdqu %[m], %%xmm0\n\t"
			     "movdqa %%xmm0, %%xmm1\n\tmovdqa %%xmm0, %%xmm7\n\tmovdqa %%xmm0, %%xmm15\n\t"
			     "syscall\n\t"
			     "movdqu %%xmm0, %[a]\n\tmovdqu %%xmm1, %[b]\n\tmovdqu %%xmm7, %[c]\n\tmovdqu %%xmm15, %[d]"
			     : "=a" (ret), [a] "=m" (out[0]), [b] "=m" (out[1]), [c] "=m" (out[2]), [d] "=m" (out[3])
			     : "a" (SYS_ioctl), "D" (fd), "S" (RDT_DOMAIN_CALL), "d" (&c), [m] "m" (mine)
			     : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm7", "xmm15");
		wrong += ret || c.result;
		for (i = 0; i < 4; i++)
			wrong += !!memcmp(out[i], mine, 16);
	}
	ok(!wrong, "C6 its registers and the caller's are two (%d, %lld)", ret, c.result);
	close(fd);
}

/* ---- bad images --------------------------------------------------------------------- */

static void test_bad(void)
{
	const struct bad_image *b;
	struct image im;
	int fd = control(), n = 0;

	for (b = bad_images; b->name; b++) {
		describe(&im, 2, 0);
		b->spoil(&im);
		ok(fails(ioctl(fd, RDT_DOMAIN_CREATE, &im.image), b->err), "C7 refused: %s", b->name);
		n++;
	}
	ok(fails(ioctl(fd, RDT_DOMAIN_CREATE, (void *)16), EFAULT), "C7 refused: no image");
	ok(!create(fd, &im, 2, 0), "C7 after %d bad ones a good one is made", n);
	close(fd);
	fd = control();
	if (!fork())
		_exit(setuid(1000) || !fails(create(fd, &im, 2, 0), EPERM));
	ok(wait_ok(), "C6 code for ring 0 is not everybody's to bring, whoever opened the device");
	close(fd);
}

/* ---- published ----------------------------------------------------------------------- */

static int publish(int fd, const char *name, unsigned int mode, unsigned int flags)
{
	struct rdt_publish p = { .mode = mode, .flags = flags };

	memcpy(p.name, name, strnlen(name, sizeof(p.name)));
	return ioctl(fd, RDT_DOMAIN_PUBLISH, &p);
}

static bool guest_of(const char *path)
{
	struct rdt_domain_about about;
	char out[8] = "";
	int64_t r = 0;
	int fd;

	if (setuid(1000))
		return false;
	fd = open(path, O_RDWR);
	return fd >= 0 && !call(fd, DOM_ECHO, "HAL", 3, out, 3, &r) && r == 3 && !strcmp(out, "IBM") &&
	       !ioctl(fd, RDT_DOMAIN_INFO, &about) && !strcmp(about.name, "key_1-A") &&
	       fails(ioctl(fd, RDT_DOMAIN_UNPUBLISH), EPERM) &&
	       fails(ioctl(fd, RDT_DOMAIN_CREATE, &(struct rdt_image){}), ENOTTY) &&
	       fails(publish(fd, "x", 0666, 0), ENOTTY);
}

static void test_publish(void)
{
	static const char *const bad[] = { "", "a/b", "..", "a b", "0123456789012345678901234567890123456789", "\xe4" };
	int fd = control(), other = control(), user;
	const char *path = "/dev/redoubt/key_1-A";
	struct image im;
	unsigned int i;
	struct stat st;
	int64_t r;

	ok(fails(publish(fd, "x", 0666, 0), ENXIO), "C6 nothing to publish");
	ok(!create(fd, &im, 2, 0) && !create(other, &im, 2, 0), "C6 two domains");
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(fails(publish(fd, bad[i], 0666, 0), EINVAL), "C6 no name: %s", bad[i][0] == '\xe4' ? "not ASCII" : bad[i]);
	ok(fails(publish(fd, "x", 0777, 0), EINVAL) && fails(publish(fd, "x", 0666, 8), EINVAL), "C6 no mode, no flag");
	ok(fails(ioctl(fd, RDT_DOMAIN_UNPUBLISH), ENOENT), "C6 not published");
	ok(!publish(fd, "key_1-A", 0666, 0) && !stat(path, &st) && (st.st_mode & 0777) == 0666, "C6 published");
	ok(fails(publish(fd, "another", 0666, 0), EEXIST) && fails(publish(other, "key_1-A", 0666, 0), EEXIST),
	   "C6 one name a domain, one domain a name");
	if (!fork())
		_exit(!guest_of(path));
	ok(wait_ok(), "C6 another user calls it, and can do no more");
	user = open(path, O_RDWR);
	ok(!ioctl(fd, RDT_DOMAIN_UNPUBLISH) && stat(path, &st) && !call(user, DOM_ECHO, "x", 1, &(char){ 0 }, 1, &r),
	   "C6 the owner takes it away; who has it open keeps it");
	ok(!publish(fd, "key_1-A", 0600, 0) && !stat(path, &st) && (st.st_mode & 0777) == 0600, "C6 and puts it there again");
	close(fd);
	ok(stat(path, &st), "C8 it goes with its owner's file");
	ok(fails(call(user, DOM_ECHO, "x", 1, &(char){ 0 }, 1, &r), ENODEV) &&
	   fails(ioctl(user, RDT_DOMAIN_INFO, &(struct rdt_domain_about){}), ENODEV), "C8 who has it open has nothing any more");
	close(user);
	if (!fork()) {
		fd = control();
		_exit(create(fd, &im, 2, 0) || publish(fd, "key_1-A", 0644, RDT_PUBLISH_STAY));
	}
	ok(wait_ok() && !stat(path, &st), "C8 one that stays when its owner is gone");
	user = open(path, O_RDWR);
	ok(!call(user, DOM_ECHO, "x", 1, &(char){ 0 }, 1, &r) && r == 1, "C8 and can be called");
	ok(!ioctl(user, RDT_DOMAIN_UNPUBLISH) && stat(path, &st) &&
	   fails(call(user, DOM_ECHO, "x", 1, &(char){ 0 }, 1, &r), ENODEV), "C8 until the administrator ends it");
	ok(fails(ioctl(user, RDT_DOMAIN_UNPUBLISH), ENOENT), "C8 once");
	if (!fork()) {
		fd = control();
		if (create(fd, &im, 2, 0) || syscall(SYS_setresuid, 1000, 1000, 1000))
			_exit(2);
		_exit(!fails(publish(fd, "mine", 0644, RDT_PUBLISH_STAY), EPERM));
	}
	ok(wait_ok(), "C8 to stay is for the administrator");
	close(user);
	close(other);
}

/* ---- threads ---------------------------------------------------------------------------- */

struct thread {
	pthread_t id;
	int fd, cpu, tid;
	unsigned int op;
	uint64_t in[2];
	int calls, errors, last_errno;
	int64_t result;
	uint64_t out;
	bool done;
};

static void *runs(void *arg)
{
	struct thread *t = arg;
	int i;

	t->tid = gettid();
	for (i = 0; i < t->calls; i++) {
		int ret = call(t->fd, t->op, t->in, 16, &t->out, 8, &t->result);

		t->last_errno = ret ? errno : 0;
		t->errors += ret || t->result < 0;
	}
	__atomic_store_n(&t->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static int run_all(struct thread *t, int n)
{
	int i, errors = 0;

	for (i = 0; i < n; i++)
		pthread_create(&t[i].id, NULL, runs, &t[i]);
	for (i = 0; i < n; i++) {
		pthread_join(t[i].id, NULL);
		errors += t[i].errors;
	}
	return errors;
}

static void test_threads(void)
{
	int fd = control(), one = control(), i;
	struct thread t[4];
	struct image im;
	uint64_t sum;
	int64_t r;

	ok(!create(fd, &im, 4, 0) && !create(one, &im, 1, 0), "C1 two domains, of 4 slots and of 1");
	for (i = 0; i < 4; i++)
		t[i] = (struct thread){ .fd = fd, .op = DOM_MEET, .in = { 4, 1ull << 32 }, .calls = 1 };
	ok(!run_all(t, 4), "C1 four threads are inside at once: %ld %ld %ld %ld", t[0].result, t[1].result, t[2].result,
	   t[3].result);
	for (i = 0; i < 4; i++)
		t[i] = (struct thread){ .fd = one, .op = DOM_COUNT, .in = { 1 }, .calls = 200 };
	i = run_all(t, 4);
	ok(!i && !call(one, DOM_COUNT, &(uint64_t){ 0 }, 8, &sum, 8, &r) && sum == 800,
	   "C1 who finds no slot waits: 800 calls by four threads, %d failed", i);
	close(fd);
	close(one);
}

/* Three domains at once, a thread in each, and in each what is its own. */
static void test_three(void)
{
	struct thread t[3];
	struct image im;
	uint64_t sum[3];
	int64_t r;
	int i;

	for (i = 0; i < 3; i++) {
		t[i] = (struct thread){ .fd = control(), .op = DOM_COUNT, .in = { 100 << i }, .calls = 100 };
		ok(!create(t[i].fd, &im, 2, 0), "C1 domain %d", i);
	}
	ok(!run_all(t, 3), "C1 three domains at once");
	for (i = 0; i < 3; i++) {
		call(t[i].fd, DOM_COUNT, &(uint64_t){ 0 }, 8, &sum[i], 8, &r);
		close(t[i].fd);
	}
	ok(sum[0] == 10000 && sum[1] == 20000 && sum[2] == 40000, "C5 each has its own data");
}

/* Its owner goes while others' threads are inside for good: each call must end. */
static void test_brought_out(void)
{
	struct thread t[3];
	struct image im;
	int round, i, out = 0;

	for (round = 0; round < 5; round++) {
		int fd = control();

		if (create(fd, &im, 3, 0) || publish(fd, "leaves", 0600, 0))
			break;
		for (i = 0; i < 3; i++) {
			t[i] = (struct thread){ .fd = open("/dev/redoubt/leaves", O_RDWR), .op = DOM_FOREVER, .calls = 1 };
			pthread_create(&t[i].id, NULL, runs, &t[i]);
		}
		usleep(10000 * round);
		close(fd);
		for (i = 0; i < 3; i++) {
			pthread_join(t[i].id, NULL);
			out += t[i].last_errno == ENODEV;
			close(t[i].fd);
		}
	}
	ok(out == 15, "C8 threads inside are brought out when a domain ends: %d of 15", out);
}

static int cpu_of(int tid)
{
	char path[64], line[512] = "", *at;
	int fd, n, cpu = -1;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY);
	n = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);
	close(fd);
	at = n > 0 ? strrchr(line, ')') : NULL;
	for (n = 0; at && n < 37; n++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at) : cpu;
}

static void test_interrupts(void)
{
	struct thread t = { .fd = control(), .op = DOM_SPIN, .in = { 3000000 }, .calls = 5 };
	int moves = 0, last = -1, cpu, i, calls;
	bool wrong = false;
	struct image im;
	cpu_set_t set;

	ok(!create(t.fd, &im, 1, 0), "C10 a domain for long work");
	/* Where processors take turns it may be moved seldom: as often as it takes. */
	for (calls = 0; moves <= 10 && calls < 100 && !wrong; calls += 5) {
		t.done = false;
		t.tid = 0;
		pthread_create(&t.id, NULL, runs, &t);
		for (i = 0; !__atomic_load_n(&t.done, __ATOMIC_SEQ_CST); i++) {
			usleep(2000);
			if (!t.tid)
				continue;
			CPU_ZERO(&set);
			CPU_SET(i & 1, &set);
			sched_setaffinity(t.tid, sizeof(set), &set);
			cpu = cpu_of(t.tid);
			moves += last >= 0 && cpu >= 0 && cpu != last;
			last = cpu;
		}
		pthread_join(t.id, NULL);
		wrong = t.errors || t.out != dom_spin(3000000);
	}
	ok(!wrong, "C10 interrupted in the middle of its work, the result is right");
	ok(moves > 10, "C10 and it was moved between CPUs, %d times in %d calls", moves, calls);
	close(t.fd);
}

/* ---- the owner is killed ------------------------------------------------------------------ */

/* How far a victim has come: 1 its domain is there, 2 its threads run. */
static int *stage;

static void victim(void)
{
	static const unsigned int op[] = { DOM_FOREVER, DOM_SPIN, DOM_FOREVER };
	struct thread t[3];
	struct image im;
	int fd = control(), i;

	if (create_big(fd, &im, 4, 256))
		_exit(1);
	*stage = 1;
	for (i = 0; i < 3; i++) {
		t[i] = (struct thread){ .fd = fd, .op = op[i], .in = { 1ull << 20 }, .calls = 1 << 20 };
		pthread_create(&t[i].id, NULL, runs, &t[i]);
	}
	*stage = 2;
	for (;;)
		pause();
}

static long free_kb(void)
{
	char line[128];
	FILE *f = fopen("/proc/meminfo", "r");
	long kb = -1;

	while (f && kb < 0 && fgets(line, sizeof(line), f))
		sscanf(line, "MemFree: %ld", &kb);
	fclose(f);
	return kb;
}

static void test_kill(int times, bool ring3)
{
	int i, status, killed = 0, by_itself = 0, seen[3] = {};
	long before = 0, after;

	stage = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	srand(getpid());
	for (i = 0; i < times + 3; i++) {
		pid_t pid;

		*stage = 0;
		pid = fork();

		/* Per-CPU lists and caches are filled by the first ones. */
		if (i == 3)
			before = free_kb();
		if (!pid && ring3)
			ring3_victim(stage);
		if (!pid)
			victim();
		/* On a slow machine all of it takes longer. */
		usleep(rand() % 60000);
		while (i % 3 > *(volatile int *)stage)
			usleep(rand() % 10000);
		seen[*(volatile int *)stage]++;
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		by_itself += WIFEXITED(status);
	}
	ok(killed == times + 3 && !by_itself, "C8 %d owners killed", killed);
	ok(seen[1] + seen[2] >= times / 2 && seen[2], "C8 %d before there was a domain, %d then, %d with threads inside",
	   seen[0], seen[1], seen[2]);
	/* What is not over yet is in the hands of a worker. */
	for (i = 0; i < 100 && free_kb() < before - 8000; i++)
		usleep(50000);
	after = free_kb();
	/* Each had more than 1 MiB. */
	ok(after > before - 8000, "C8 and the guest has its memory: %ld kB free before, %ld after", before, after);
}

/* The driver's last net: Linux calls it an oops, and goes on. */
static void test_low(void)
{
	int fd = control(), ends = 0, i;
	struct image im;
	int64_t r = 0;

	describe_at(&im, 2, 0, DOM_BASE_USER);
	ok(!ioctl(fd, RDT_DOMAIN_CREATE, &im.image), "C10 a domain of ring 0 at an address of processes");
	for (i = 0; i < 5; i++)
		ends += call(fd, DOM_FAULT, &(uint64_t){ 3 }, 8, NULL, 0, &r) && errno == ENOTRECOVERABLE;
	ok(ends == 5, "C10 it writes to its own code: %d of 5 calls end", ends);
	ok(!call(fd, DOM_ECHO, "A", 1, &(char){ 0 }, 1, &r) && r == 1, "C10 and it goes on");
	close(fd);
}

static int bound(const char *parameter, int value)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/redoubt_guest/parameters/%s", parameter);
	f = fopen(path, "w");
	if (!f)
		return -1;
	fprintf(f, "%d\n", value);
	return fclose(f);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct image im;
	int fd;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "noquota")) {
		fd = control();
		ok(fails(create(fd, &im, 2, 0), EDQUOT), "C9 the operator allows none");
	} else if (!strcmp(what, "toomany")) {
		fd = control();
		ok(!create(fd, &im, 2, 0), "C9 the operator allows one");
		ok(fails(create(control(), &im, 2, 0), EDQUOT), "C9 and not two");
		ok(fails(create_big(control(), &im, 2, 5000), E2BIG), "C9 the driver has a bound for one, too");
		close(fd);
		ok(!bound("domain_pages_total", 100) && fails(create_big(control(), &im, 2, 100), ENOSPC) &&
		   !create(control(), &im, 2, 0), "C9 and for all");
		ok(!bound("domain_pages_total", 16384), "C9 which root can change");
	} else if (!strcmp(what, "stay")) {
		fd = control();
		ok(!create(fd, &im, 2, 0) && !publish(fd, "stays", 0600, RDT_PUBLISH_STAY), "C8 a domain that stays");
	} else if (!strcmp(what, "gone")) {
		fd = open("/dev/redoubt/stays", O_RDWR);
		ok(fails(call(fd, DOM_ECHO, "x", 1, &(char){ 0 }, 1, &(int64_t){ 0 }), ENODEV), "C8 destroyed by the operator");
		ok(!ioctl(fd, RDT_DOMAIN_UNPUBLISH), "C8 the administrator clears it away");
	} else if (!strcmp(what, "kill")) {
		test_kill(argc > 2 ? atoi(argv[2]) : 50, false);
	} else if (!strcmp(what, "kill-ring3")) {
		test_kill(argc > 2 ? atoi(argv[2]) : 50, true);
	} else if (!strcmp(what, "ring3")) {
		test_ring3();
	} else if (!strcmp(what, "low")) {
		test_low();
	} else if (!strcmp(what, "ring3-past")) {
		test_ring3_past();
	} else {
		fd = control();
		test_create(fd);
		test_calls(fd);
		test_refusals(fd);
		close(fd);
		test_vectors();
		test_bad();
		test_publish();
		test_threads();
		test_three();
		test_brought_out();
		test_interrupts();
	}
	return tap_end();
}
