// SPDX-License-Identifier: GPL-2.0
/*
 * Domains made, called, interrupted, forged and destroyed by several vCPUs, the operator
 * and the VMM at once: no result that does not fit, and nothing is left. Then the same with
 * a VMM that is killed in the middle of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cell.h"
#include "driver.h"
#include "leak.h"
#include "tap.h"

#define RAM	(32ul << 20)
#define VCPUS	3
#define AREA(n)	(GUEST_FREE + 0x400000 + (n) * 0x100000ul)
#define SLOT	0x4000000ul		/* comes and goes */
#define COUNTER	0x800

static struct vm *vm;
static struct rdt *r;
static volatile bool stop;
static struct cell cell[VCPUS], stays;
static int64_t id[VCPUS];		/* as the others know them */
static unsigned long unexpected, calls, ended, made, destroyed, forged, traps;
static pthread_t thread[VCPUS];

static const struct cell_image image = LEAK_IMAGE(1, .slots = 2, .flags = RDT_DOM_VECTOR);

/* By hypercall: behind a gate page there may be anything by now. */
static u64 g_enter(u64 dom, u64 op, u64 a, u64 b)
{
	u64 ret;

	asm volatile("leaq 2f(%%rip), %%r11\n\t"
		     "testb %b[intel], %b[intel]\n\t"
		     "jz 1f\n\t"
		     "vmcall\n\t"
		     "jmp 2f\n"
		     "1: vmmcall\n"
		     "2:"
		     : "=a"(ret), "+b"(dom), "+D"(op), "+S"(a), "+d"(b)
		     : "0"((u64)RDT_HC_DOM_ENTER), [intel] "r"((u64)guest_is_intel)
		     : "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
	return ret;
}

static u64 g_forge(u64 token)
{
	return guest_hc(RDT_HC_RESUME, token, 0, 0, 0);
}

static void count(unsigned long *n)
{
	__atomic_fetch_add(n, 1, __ATOMIC_RELAXED);
}

static bool fits(int64_t ret, int64_t a, int64_t b, int64_t c, int64_t d)
{
	if (ret == a || ret == b || ret == c || ret == d)
		return true;
	if (!__atomic_fetch_add(&unexpected, 1, __ATOMIC_RELAXED))
		tap_diag("result %ld, wanted %ld, %ld, %ld or %ld", ret, a, b, c, d);
	return false;
}

/* Somebody's domain, or a number that is none's. */
static void call_one(struct vcpu *v, int64_t which, unsigned int *seed)
{
	const int64_t rounds = 200 + rand_r(seed) % 3000;
	int64_t ret = vcpu_call(v, g_enter, which, LEAK_COUNT, rounds, COUNTER);

	/* Interrupted in it when it went: the stub has nothing to go back to. */
	if (v->stop == STOP_TRAP) {
		count(&traps);
		return;
	}
	if (!vcpu_done(v)) {
		vcpu_explain(v);
		count(&unexpected);
		stop = true;
		return;
	}
	count(ret == rounds ? &calls : &ended);
	fits(ret, rounds, -ENOENT, -EAGAIN, -EPERM);
}

static void *worker(void *arg)
{
	const long n = (long)arg;
	struct vcpu *v = &vm->vcpu[n];
	struct cell *own = &cell[n];
	unsigned int seed = n + 1;

	vcpu_call(v, g_leak_setup, n ? 0 : 60000);
	while (!stop) {
		int64_t ret;

		cell_place(own, vm, &image, AREA(n));
		/* The quota may be nothing just now, or the operator has destroyed it. */
		ret = cell_build(v, own);
		if (own->id > 0 && !ret)
			ret = cell_seal(v, own);
		if (own->id <= 0) {
			fits(own->id, -EDQUOT, -EDQUOT, -EDQUOT, -EDQUOT);
			continue;
		}
		__atomic_store_n(&id[n], own->id, __ATOMIC_RELEASE);
		if (!ret)
			count(&made);
		else
			fits(ret, -ENOENT, -EPERM, -EDQUOT, -EAGAIN);
		for (int i = rand_r(&seed) % 12; i >= 0 && !stop; i--) {
			const int64_t other = __atomic_load_n(&id[rand_r(&seed) % VCPUS], __ATOMIC_ACQUIRE);

			switch (rand_r(&seed) % 8) {
			case 0:
				ret = cell_hc(v, RDT_HC_DOM_DESTROY, other, 0, 0, 0);
				fits(ret, 0, -ENOENT, -EAGAIN, -EAGAIN);
				destroyed += !ret;
				break;
			case 1:
				ret = vcpu_call(v, g_forge, (uint64_t)rand_r(&seed) << 32 | rand_r(&seed) << 8 |
							    (2 + rand_r(&seed) % 4));
				fits(ret, -EPERM, -EINVAL, -ENOENT, -EPERM);
				count(&forged);
				break;
			case 2:
				call_one(v, other + 256 * (1 + rand_r(&seed) % 3), &seed);
				break;
			default:
				call_one(v, other, &seed);
			}
		}
		for (int i = 0; i < 5000 && (ret = cell_hc(v, RDT_HC_DOM_DESTROY, own->id, 0, 0, 0)) == -EAGAIN; i++)
			usleep(200);
		fits(ret, 0, -ENOENT, 0, 0);
		if (ret && ret != -ENOENT)
			break;
	}
	return NULL;
}

static void on_signal(int nr)
{
}

/* The operator, the VMM and its signals. */
static void disturb(long ms)
{
	struct timespec from, now;
	struct rdt_domain_quota quota = { .domains = RDT_DOM_MAX, .frames_each = 128, .frames = 1024 };
	uint8_t *area = vm_alloc(2ul << 20, 0);
	unsigned int seed = 7;

	clock_gettime(CLOCK_MONOTONIC, &from);
	for (unsigned int i = 0; !stop; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((now.tv_sec - from.tv_sec) * 1000 + (now.tv_nsec - from.tv_nsec) / 1000000 > ms)
			break;
		uint64_t which = __atomic_load_n(&id[rand_r(&seed) % VCPUS], __ATOMIC_ACQUIRE);

		switch (rand_r(&seed) % 6) {
		case 0:
			if (ioctl(r->fd, RDT_VM_DOM_DESTROY, &which) && errno != ENOENT && errno != EAGAIN)
				count(&unexpected);
			break;
		case 1:
			quota.domains = rand_r(&seed) % 4 ? RDT_DOM_MAX : 0;
			ioctl(r->fd, RDT_VM_DOM_QUOTA, &quota);
			break;
		case 2:
			vm_set_slot(vm, 1, SLOT, i % 2 ? 2ul << 20 : 0, area, 0);
			break;
		case 3:
			if (!ioctl(r->fd, RDT_VM_DETACH, 0))
				tap_bail("detached with a domain");
			break;
		default:
			pthread_kill(thread[rand_r(&seed) % VCPUS], SIGUSR1);
		}
		usleep(1000);
	}
	quota.domains = RDT_DOM_MAX;
	ioctl(r->fd, RDT_VM_DOM_QUOTA, &quota);
}

static void start(void)
{
	vm = vm_create(RAM, VCPUS, VM_IRQCHIP);
	r = rdt_attach(vm->fd);
	cell_allow(&vm->vcpu[0], r);
	vm_var(vm, leak_guest)->xsave = vm->vcpu[0].xsave;
	/* One that stays: the VM cannot be detached. */
	cell_make(&vm->vcpu[0], &stays, &image, AREA(VCPUS));
	for (long i = 0; i < VCPUS; i++)
		if (pthread_create(&thread[i], NULL, worker, (void *)i))
			tap_bail("pthread_create");
}

static uint32_t vms(void)
{
	struct rdt_info info;

	if (ioctl(rdt_dev(), RDT_INFO, &info))
		tap_bail("RDT_INFO");
	return info.vms;
}

static void killed(unsigned int times)
{
	unsigned int bad = 0;

	for (unsigned int i = 0; i < times; i++) {
		pid_t child = fork();
		int status;

		if (!child) {
			start();
			disturb(100000);
			_exit(1);
		}
		usleep(300000 + i * 70000);
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		bad += !WIFSIGNALED(status);
	}
	is(bad, 0, "races: %u VMMs were killed with domains in use", times);
	for (int i = 0; i < 200 && vms(); i++)
		usleep(20000);
	is(vms(), 0, "races: no VM is left of them");
}

int main(int argc, char **argv)
{
	const unsigned int seconds = argc > 1 ? atoi(argv[1]) : 5;
	struct sigaction sa = { .sa_handler = on_signal };

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGUSR1, &sa, NULL);
	kvm_dev();
	rdt_dev();
	killed(seconds > 10 ? 20 : 4);
	start();
	disturb(seconds * 1000l);
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < VCPUS; i++)
		pthread_join(thread[i], NULL);
	tap_diag("%lu domains made, %lu calls done, %lu refused or ended, %lu destroyed by others, %lu forged, %lu traps",
		 made, calls, ended, destroyed, forged, traps);
	ok(made && calls && ended && forged, "races: all of it happened");
	is(unexpected, 0, "races: no result that does not fit");
	for (int i = 0; i < VCPUS; i++) {
		uint64_t which = id[i];
		int left = 0;

		while (ioctl(r->fd, RDT_VM_DOM_DESTROY, &which) && errno == EAGAIN && left++ < 1000)
			usleep(1000);
	}
	is(rdt_info(r).domains, 1, "races: one is left");
	is(cell_destroy(&vm->vcpu[0], &stays), 0, "races: which goes, too");
	is(rdt_info(r).domains, 0, "races: no domain is left");
	is(rdt_info(r).domain_frames, 0, "races: and no frame of one");
	rdt_close(r);
	vm_destroy(vm);
	for (int i = 0; i < 100 && vms(); i++)
		usleep(20000);
	is(vms(), 0, "races: no VM is left");
	return tap_end();
}
