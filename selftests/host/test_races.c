// SPDX-License-Identifier: GPL-2.0
/*
 * The operator's calls from several threads while VMs are made, attached, used,
 * detached and destroyed under them. Every call must end in success or in an
 * errno that fits; nothing may be left. Run it with slub_debug=FZPU too.
 *
 *   test_races [SECONDS]
 */
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(32ul << 20)
#define NODES	GUEST_FREE
#define TARGET	(GUEST_FREE + 0x100000)
#define PAGES	4096
#define VMS	2
#define CALLERS	3

static volatile bool stop;
static uint64_t unexpected;
static uint64_t calls[16], good[16];

enum { ATTACH, OPEN, LIST, INFO, REGIONS, PROTECT, SEEN, DETACH, MAP, POLL, NR };
static const char *const names[NR] = { "attach", "open", "list", "info", "regions", "protect",
				       "seen", "detach", "mmap", "poll" };

/* Note a call; other than these errors nothing is in order. */
static long note(int what, long ret, int e1, int e2, int e3)
{
	int e = errno;

	__atomic_fetch_add(&calls[what], 1, __ATOMIC_RELAXED);
	if (ret >= 0) {
		__atomic_fetch_add(&good[what], 1, __ATOMIC_RELAXED);
	} else if (e != e1 && e != e2 && e != e3) {
		if (!__atomic_fetch_add(&unexpected, 1, __ATOMIC_RELAXED))
			tap_diag("%s: %s", names[what], strerror(e));
	}
	return ret;
}

/* The VMs' descriptors, closed and made anew by their makers. */
static int vm_fd[VMS];

static void *maker(void *arg)
{
	long nr = (long)arg;

	while (!stop) {
		struct vm *vm = vm_create(RAM, 1, 0);
		struct vcpu *v = &vm->vcpu[0];

		__atomic_store_n(&vm_fd[nr], vm->fd, __ATOMIC_RELEASE);
		for (int i = 0; i < 20 && !stop; i++) {
			vcpu_call(v, g_node_add, NODES + i % 8 * PAGE_SIZE, 1);
			vcpu_call(v, g_hc, RDT_HC_PROTECT, TARGET + i * PAGE_SIZE, 2,
				  RDT_ATTR(RDT_ACT_DENY, 0));
			for (int k = 0; k < 10; k++)
				vcpu_call(v, g_store, TARGET + k * PAGE_SIZE, k);
			if (!vcpu_done(v)) {
				vcpu_explain(v);
				__atomic_fetch_add(&unexpected, 1, __ATOMIC_RELAXED);
			}
		}
		/* It ends while the operator changes rules of much that is mapped. */
		vcpu_call(v, g_read_all, TARGET, PAGES);
		__atomic_store_n(&vm_fd[nr], -1, __ATOMIC_RELEASE);
		vm_destroy(vm);
	}
	return NULL;
}

static void use(int fd, unsigned int *seed)
{
	struct rdt_region entry[8];
	struct rdt_regions l = { .nr = 8, .entries = (uintptr_t)entry };
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct rdt_vm_info info;
	uint64_t seq = 0;
	void *map;

	note(INFO, ioctl(fd, RDT_VM_INFO, &info), 0, 0, 0);
	note(REGIONS, ioctl(fd, RDT_VM_REGIONS, &l), ENODEV, 0, 0);
	for (int i = 0; i < 8; i++) {
		/* Now and then so much that the zap gives up KVM's lock on the way. */
		struct rdt_protect p = { .gpa = TARGET + rand_r(seed) % 64 * PAGE_SIZE,
					 .pages = rand_r(seed) % 2 ? 1 : PAGES,
					 .action = rand_r(seed) % 3 };

		/* No node page yet; no such range; the VM is gone, and its memory with it. */
		note(PROTECT, ioctl(fd, RDT_VM_PROTECT, &p), ENODEV, p.action ? ENOMEM : ENOENT,
		     EFAULT);
	}
	seq = info.events;
	note(SEEN, ioctl(fd, RDT_VM_SEEN, &seq), 0, 0, 0);
	note(POLL, poll(&poll_fd, 1, rand_r(seed) % 3), 0, 0, 0);
	map = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	note(MAP, map == MAP_FAILED ? -1 : 0, 0, 0, 0);
	if (map != MAP_FAILED)
		munmap(map, PAGE_SIZE);
	if (rand_r(seed) % 16 == 0)
		note(DETACH, ioctl(fd, RDT_VM_DETACH, 0), ENODEV, 0, 0);
}

static void *caller(void *arg)
{
	unsigned int seed = (long)arg + 1;

	while (!stop) {
		struct rdt_list_entry entry[4];
		struct rdt_list l = { .nr = 4, .entries = (uintptr_t)entry };
		struct rdt_attach a = { .vm_fd = vm_fd[rand_r(&seed) % VMS] };
		struct rdt_open o = { 0 };
		int keep = -1;

		/* The descriptor may be another file by now, or none. */
		if (!note(ATTACH, ioctl(rdt_dev(), RDT_ATTACH, &a), EBADF, EEXIST, 0)) {
			use(a.fd, &seed);
			keep = a.fd;
		}
		if (!note(LIST, ioctl(rdt_dev(), RDT_LIST, &l), 0, 0, 0) && l.nr) {
			o.vm_id = entry[rand_r(&seed) % l.nr].vm_id;
			if (!note(OPEN, ioctl(rdt_dev(), RDT_OPEN, &o), ENOENT, 0, 0)) {
				use(o.fd, &seed);
				close(o.fd);
			}
		}
		if (keep >= 0)
			close(keep);
	}
	return NULL;
}

static int number(const char *path)
{
	FILE *f = fopen(path, "r");
	int n = -1;

	if (f) {
		if (fscanf(f, "%d", &n) != 1)
			n = -1;
		fclose(f);
	}
	return n;
}

int main(int argc, char **argv)
{
	unsigned int seconds = argc > 1 ? atoi(argv[1]) : 10;
	int refs = number("/sys/module/redoubt/refcnt");
	struct rdt_info info;
	pthread_t thread[VMS + CALLERS];

	kvm_dev();
	rdt_dev();
	for (long i = 0; i < VMS; i++)
		vm_fd[i] = -1;
	for (long i = 0; i < VMS + CALLERS; i++)
		if (pthread_create(&thread[i], NULL, i < VMS ? maker : caller, (void *)i))
			tap_bail("pthread_create");
	sleep(seconds);
	stop = true;
	for (int i = 0; i < VMS + CALLERS; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < NR; i++) {
		tap_diag("%s: %lu calls, %lu succeeded", names[i], calls[i], good[i]);
		ok(good[i], "races: %s succeeded at times", names[i]);
	}
	is(unexpected, 0, "races: no call failed in a way that does not fit");
	/* An ended VM's last reference may be dropped a moment later. */
	for (int i = 0; i < 100 && number("/sys/module/redoubt/refcnt") != refs + 1; i++)
		usleep(20000);
	is(ioctl(rdt_dev(), RDT_INFO, &info), 0, "races: info");
	is(info.vms, 0, "races: no VM is left");
	is(number("/sys/module/redoubt/refcnt"), refs + 1, "races: the module's references are back");
	return tap_end();
}
