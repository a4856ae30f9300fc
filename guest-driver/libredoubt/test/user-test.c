// SPDX-License-Identifier: GPL-2.0
/*
 * user-test IMAGE [SECONDS]: a domain of ring 3 in a guest, by the process that has it: calls, threads
 * under timers, and what must not work. TAP.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <redoubt/redoubt.h>

static struct rdt_user_domain *d;
static int count, bad;
static atomic_ulong alarms;

__attribute__((format(printf, 2, 3))) static void ok(int fine, const char *name, ...)
{
	va_list args;

	printf("%sok %d - C11 ", fine ? "" : "not ", ++count);
	va_start(args, name);
	vprintf(name, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	bad |= !fine;
}

static long call(uint64_t op, const char *in, void *out, size_t room)
{
	return rdt_user_domain_call(d, op, in, strlen(in), out, room);
}

/* What operation 11 computes. */
static uint64_t mixed(uint64_t rounds)
{
	uint64_t a = 1, b = 2, c = 3, e = 4;

	while (rounds--) {
		a = a * 3 + b;
		b = (b << 7 | b >> 57) ^ c;
		c += e;
		e = e * 5 + a;
	}
	return a ^ b ^ c ^ e;
}

static void on_alarm(int sig)
{
	(void)sig;
	atomic_fetch_add(&alarms, 1);
}

/* More threads than slots; each sees that its numbers are its own, and its TLS as well. */
static atomic_int stop, wrong, rounds_done;
static __thread uint64_t mine;

static void *work(void *nr)
{
	mine = (uint64_t)(uintptr_t)nr;
	for (uint64_t i = 0; !atomic_load(&stop); i++) {
		uint64_t rounds = 20000 + mine * 1000 + i, got = 0;
		long ret;

		if (rdt_user_domain_call(d, 11, &rounds, 8, &got, 8) != 8 || got != mixed(rounds) ||
		    mine != (uint64_t)(uintptr_t)nr)
			atomic_fetch_add(&wrong, 1);
		do	/* whoever has the lock may not be running */
			ret = rdt_user_domain_call(d, 6, NULL, 0, NULL, 0);
		while (ret == -EAGAIN);
		if (ret)
			atomic_fetch_add(&wrong, 1);
		atomic_fetch_add(&rounds_done, 1);
	}
	return NULL;
}

static void threads(unsigned int seconds)
{
	const struct itimerval often = { { 0, 2000 }, { 0, 2000 } }, never = { 0 };
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	pthread_t t[6];
	time_t end = time(NULL) + seconds;

	sigaction(SIGALRM, &sa, NULL);
	for (uintptr_t i = 0; i < 6; i++)
		pthread_create(&t[i], NULL, work, (void *)i);
	setitimer(ITIMER_REAL, &often, NULL);
	while (time(NULL) < end || atomic_load(&rounds_done) < 50)
		usleep(10000);
	setitimer(ITIMER_REAL, &never, NULL);
	atomic_store(&stop, 1);
	for (int i = 0; i < 6; i++)
		pthread_join(t[i], NULL);
	ok(!wrong && alarms, "six threads in four slots, %d rounds under %lu signals", rounds_done, alarms);
}

/* In a child that has a domain of its own: the signal that ends it. */
static int dies_of(const char *path, uint64_t op)
{
	struct rdt_image *im;
	int status;

	if (!fork()) {
		if (rdt_image_load(path, &im) || rdt_user_domain_create(im, &d))
			_exit(100);
		_exit(call(op, "", NULL, 0) == -EPERM ? 101 : 102);
	}
	wait(&status);
	return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	uint8_t measurement[RDT_MEASUREMENT];
	struct rdt_image *im;
	char out[100] = "";
	uint64_t words[5];

	if (argc < 2 || rdt_image_load(argv[1], &im) || rdt_user_domain_create(im, &d)) {
		printf("Bail out! %s\n", rdt_error());
		return 2;
	}
	ok(!rdt_image_measure(im, measurement) && !memcmp(measurement, im->measurement, sizeof(measurement)),
	   "a domain of ring 3 is loaded, measured as its file says");
	ok(call(0, "stressed", out, sizeof(out)) == 17 && !strcmp(out, "dessertshellodata"), "it is called: %s", out);
	ok(call(99, "", NULL, 0) == -ENOSYS && call(5, "", NULL, 0) == -EEXIST, "its errors come back");
	ok(call(1, "abc", words, sizeof(words)) == 40 && words[4] < 4 && words[0] == im->stack_top[words[4]] && words[2] == 3,
	   "it works on a private copy");
	ok(call(2, "", out, sizeof(out)) == 0 && call(3, "", out, sizeof(out)) == -EIO, "its output begins as zeros");
	ok(call(4, "", words, 16) == 16 && words[0] != words[1], "it has random numbers");
	ok(call(7, "", NULL, 0) == 0 && call(10, "", NULL, 0) == 0, "its heap and its runtime");
	threads(argc > 2 ? (unsigned int)atoi(argv[2]) : 3);
	ok(dies_of(argv[1], 12) == SIGILL, "an exception inside is a signal");
	ok(dies_of(argv[1], 13) == -101, "a touch of what is not its own ends the call");
	ok(call(0, "x", out, sizeof(out)) == 10, "this one is as it was");
	rdt_user_domain_close(d);
	rdt_image_free(im);
	printf("1..%d\n", count);
	return bad;
}
