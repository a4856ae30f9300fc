// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/redoubt against everything a caller can get wrong: each field out of
 * range, each descriptor of the wrong kind or state. Every refusal has its errno
 * and changes nothing.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM		(32ul << 20)
#define TARGET		GUEST_FREE		/* the page that is protected */
#define NODES		(GUEST_FREE + 0x10000)

static int dev;

/* A mapped page that can be read and not written, and one that is not there. */
static void *read_only(const void *init, size_t len)
{
	char *p = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	memcpy(p, init, len);
	mprotect(p, PAGE_SIZE, PROT_READ);
	munmap(p + PAGE_SIZE, PAGE_SIZE);
	return p;
}

static void *const nowhere = (void *)0x10;

static uint32_t attached(void)
{
	struct rdt_info info;

	if (ioctl(dev, RDT_INFO, &info))
		tap_bail("RDT_INFO");
	return info.vms;
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

/* Run in a child; its verdict by exit status. */
static int in_child(int (*fn)(void *), void *arg)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(fn(arg));
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- /dev/redoubt ------------------------------------------------------------- */

static int as_nobody(void *arg)
{
	struct rdt_policy p = { 0 };
	uint32_t before = 0;

	if (ioctl(dev, RDT_GET_POLICY, &p))
		return 1;
	before = p.flags;
	if (setgid(65534) || setuid(65534))
		return 2;
	if (open("/dev/redoubt", O_RDWR) != -1 || errno != EACCES)
		return 3;
	/* With a descriptor from someone who may: all but the policy. */
	p.flags ^= RDT_POLICY_SELF_ATTACH;
	if (ioctl(dev, RDT_SET_POLICY, &p) != -1 || errno != EPERM)
		return 4;
	if (ioctl(dev, RDT_GET_POLICY, &p) || p.flags != before)
		return 5;
	return 0;
}

static void test_device(void)
{
	struct rdt_info info;
	struct stat st;
	unsigned int bad = 0;

	memset(&info, 0xff, sizeof(info));
	is(ioctl(dev, RDT_INFO, &info), 0, "uapi info");
	is(info.version, RDT_UAPI_VERSION, "uapi info version");
	is(info.arch, guest_is_intel ? RDT_ARCH_EPT : RDT_ARCH_NPT, "uapi info arch");
	is(info.vms, 0, "uapi info: no VM is attached");
	ok(info.views >= 2, "uapi info: two views");
	ok(!info.reserved[0] && !info.reserved[1] && !info.reserved[2], "uapi info reserved is zero");
	ok(memchr(info.kernel, 0, sizeof(info.kernel)), "uapi info kernel ends");
	fails(ioctl(dev, RDT_INFO, nowhere), EFAULT, "uapi info bad pointer");

	is(stat("/dev/redoubt", &st), 0, "uapi device node");
	is(st.st_mode & 07777, 0660, "uapi device mode 0660");
	is(in_child(as_nobody, NULL), 0, "uapi nobody may not open, nor set the policy");

	/* No number but the defined ones, no other size or direction. */
	for (unsigned int nr = 0; nr < 256; nr++) {
		if (nr <= 5)
			continue;
		for (unsigned int dir = 0; dir < 4; dir++)
			if (ioctl(dev, _IOC(dir, RDT_IOC, nr, 24), nowhere) != -1 || errno != ENOTTY)
				bad++;
	}
	is(bad, 0, "uapi unknown ioctls of the device are ENOTTY");
	fails(ioctl(dev, _IOR(RDT_IOC, 0x00, uint64_t), nowhere), ENOTTY, "uapi info of a wrong size");
	fails(ioctl(dev, _IOW(RDT_IOC, 0x01, struct rdt_attach), nowhere), ENOTTY,
	      "uapi attach of a wrong direction");
	fails(ioctl(dev, RDT_VM_INFO, nowhere), ENOTTY, "uapi a VM's ioctl on the device");
	fails(read(dev, &info, sizeof(info)), EINVAL, "uapi read of the device");
	fails(write(dev, &info, sizeof(info)), EINVAL, "uapi write of the device");
	ok(mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, dev, 0) == MAP_FAILED, "uapi mmap of the device");
}

static void test_policy(void)
{
	struct rdt_policy p, old;
	unsigned int bad = 0;

	is(ioctl(dev, RDT_GET_POLICY, &old), 0, "uapi policy");
	for (unsigned int bit = 1; bit < 32; bit++) {
		p = (struct rdt_policy){ .flags = 1u << bit };
		bad += ioctl(dev, RDT_SET_POLICY, &p) != -1 || errno != EINVAL;
	}
	is(bad, 0, "uapi policy unknown flags are EINVAL, each");
	for (unsigned int i = 0; i < 3; i++) {
		p = (struct rdt_policy){ .flags = RDT_POLICY_SELF_ATTACH };
		p.reserved[i] = 1;
		fails(ioctl(dev, RDT_SET_POLICY, &p), EINVAL, "uapi policy reserved[%u]", i);
	}
	fails(ioctl(dev, RDT_SET_POLICY, nowhere), EFAULT, "uapi set policy bad pointer");
	fails(ioctl(dev, RDT_GET_POLICY, nowhere), EFAULT, "uapi get policy bad pointer");
	is(ioctl(dev, RDT_GET_POLICY, &p), 0, "uapi policy again");
	is(p.flags, old.flags, "uapi policy is as before the refusals");

	p = (struct rdt_policy){ .flags = old.flags ^ RDT_POLICY_SELF_ATTACH };
	is(ioctl(dev, RDT_SET_POLICY, &p), 0, "uapi set policy");
	is((ioctl(dev, RDT_GET_POLICY, &p), p.flags), old.flags ^ RDT_POLICY_SELF_ATTACH,
	   "uapi policy is set");
	is(ioctl(dev, RDT_SET_POLICY, &old), 0, "uapi set policy back");
}

static void test_attach_refused(struct vm *vm)
{
	struct rdt_attach a;
	struct rlimit full, old;
	int pipes[2], closed, path;
	unsigned int bad = 0;

	for (unsigned int bit = 0; bit < 32; bit++) {
		a = (struct rdt_attach){ .vm_fd = vm->fd, .flags = 1u << bit };
		bad += ioctl(dev, RDT_ATTACH, &a) != -1 || errno != EINVAL;
	}
	is(bad, 0, "uapi attach unknown flags are EINVAL, each");
	for (unsigned int i = 0; i < 2; i++) {
		a = (struct rdt_attach){ .vm_fd = vm->fd };
		a.reserved[i] = 1ull << 63;
		fails(ioctl(dev, RDT_ATTACH, &a), EINVAL, "uapi attach reserved[%u]", i);
	}
	if (pipe(pipes))
		tap_bail("pipe");
	closed = dup(vm->fd);
	close(closed);
	path = open("/dev/kvm", O_PATH);
	const struct {
		int fd;
		const char *what;
	} wrong[] = {
		{ -1, "-1" }, { 0x7fffffff, "a huge number" }, { (int)0x80000000, "the least int" },
		{ closed, "closed" }, { kvm_dev(), "/dev/kvm" }, { vm->vcpu[0].fd, "a vCPU" },
		{ pipes[0], "a pipe" }, { dev, "/dev/redoubt" }, { path, "O_PATH" },
	};
	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		a = (struct rdt_attach){ .vm_fd = wrong[i].fd };
		fails(ioctl(dev, RDT_ATTACH, &a), EBADF, "uapi attach of %s", wrong[i].what);
	}
	close(pipes[0]);
	close(pipes[1]);
	close(path);
	fails(ioctl(dev, RDT_ATTACH, nowhere), EFAULT, "uapi attach bad pointer");

	/* The answer cannot be written: nothing may be left attached. */
	a = (struct rdt_attach){ .vm_fd = vm->fd };
	fails(ioctl(dev, RDT_ATTACH, read_only(&a, sizeof(a))), EFAULT,
	      "uapi attach whose answer cannot be written");
	is(attached(), 0, "uapi attach is undone then");

	/* No descriptor is free. */
	getrlimit(RLIMIT_NOFILE, &old);
	full = old;
	full.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &full);
	fails(ioctl(dev, RDT_ATTACH, &a), EMFILE, "uapi attach without a free descriptor");
	setrlimit(RLIMIT_NOFILE, &old);
	is(attached(), 0, "uapi attach is undone then too");
}

static void test_open_list(uint32_t id)
{
	struct rdt_list_entry entry[4];
	struct rdt_list l;
	struct rdt_open o;
	unsigned int bad = 0;

	for (unsigned int bit = 0; bit < 32; bit++) {
		o = (struct rdt_open){ .vm_id = id, .flags = 1u << bit };
		bad += ioctl(dev, RDT_OPEN, &o) != -1 || errno != EINVAL;
		o = (struct rdt_open){ .vm_id = id, .reserved = 1u << bit };
		bad += ioctl(dev, RDT_OPEN, &o) != -1 || errno != EINVAL;
	}
	is(bad, 0, "uapi open flags and reserved are EINVAL, each");
	const uint32_t none[] = { 0, id - 1, id + 1, ~0u };
	for (unsigned int i = 0; i < 4; i++) {
		o = (struct rdt_open){ .vm_id = none[i] };
		fails(ioctl(dev, RDT_OPEN, &o), ENOENT, "uapi open of VM %u", none[i]);
	}
	fails(ioctl(dev, RDT_OPEN, nowhere), EFAULT, "uapi open bad pointer");
	o = (struct rdt_open){ .vm_id = id };
	fails(ioctl(dev, RDT_OPEN, read_only(&o, sizeof(o))), EFAULT,
	      "uapi open whose answer cannot be written");

	const uint32_t sizes[] = { 0, 4097, ~0u };
	for (unsigned int i = 0; i < 3; i++) {
		l = (struct rdt_list){ .nr = sizes[i], .entries = (uintptr_t)entry };
		fails(ioctl(dev, RDT_LIST, &l), EINVAL, "uapi list of %u", sizes[i]);
	}
	l = (struct rdt_list){ .nr = 4, .entries = (uintptr_t)nowhere };
	fails(ioctl(dev, RDT_LIST, &l), EFAULT, "uapi list to a bad pointer");
	fails(ioctl(dev, RDT_LIST, nowhere), EFAULT, "uapi list bad pointer");
	l = (struct rdt_list){ .nr = 4, .entries = (uintptr_t)entry };
	is(ioctl(dev, RDT_LIST, &l), 0, "uapi list");
	is(l.nr, 1, "uapi list has the one VM");
	is(entry[0].vm_id, id, "uapi list names it");
	is(entry[0].vmm_pid, getpid(), "uapi list names its VMM");
	l = (struct rdt_list){ .after = id, .nr = 4, .entries = (uintptr_t)entry };
	ok(!ioctl(dev, RDT_LIST, &l) && l.nr == 0, "uapi list behind it is empty");
	l = (struct rdt_list){ .after = ~0u, .nr = 4096, .entries = (uintptr_t)nowhere };
	ok(!ioctl(dev, RDT_LIST, &l) && l.nr == 0, "uapi list behind all touches nothing");
}

/* In a pid namespace of its own, where our pid has no number. */
static int list_in_namespace(void *arg)
{
	struct rdt_list_entry entry[4];
	struct rdt_list l = { .nr = 4, .entries = (uintptr_t)entry };

	if (ioctl(dev, RDT_LIST, &l) || l.nr != 1)
		return 1;
	return entry[0].vmm_pid == 0 ? 0 : 2;
}

static int new_namespace(void *arg)
{
	return unshare(CLONE_NEWPID) ? 3 : in_child(list_in_namespace, arg);
}

/* ---- a VM's descriptor ---------------------------------------------------------- */

static void test_mmap(int fd)
{
	const struct rdt_ring *head = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	size_t size;
	void *p;
	int mem;
	char byte = 1;

	if (!ok(head != MAP_FAILED, "uapi ring: the header alone"))
		return;
	is(head->magic, RDT_RING_MAGIC, "uapi ring magic");
	is(head->version, RDT_UAPI_VERSION, "uapi ring version");
	is(head->record_size, sizeof(struct rdt_event), "uapi ring record size");
	is(head->records, RDT_RING_RECORDS, "uapi ring records");
	ok(!(head->records & (head->records - 1)), "uapi ring records are a power of two");
	size = head->data_offset + (size_t)head->records * head->record_size;

	const size_t wrong[] = { 2 * PAGE_SIZE, size - PAGE_SIZE, size + PAGE_SIZE, 2 * size };
	for (unsigned int i = 0; i < 4; i++) {
		errno = 0;
		ok(mmap(NULL, wrong[i], PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EINVAL,
		   "uapi ring mmap of %zu bytes is EINVAL", wrong[i]);
	}
	errno = 0;
	ok(mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, PAGE_SIZE) == MAP_FAILED && errno == EINVAL,
	   "uapi ring mmap at an offset is EINVAL");
	errno = 0;
	ok(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM,
	   "uapi ring mmap to write is EPERM");
	errno = 0;
	ok(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EPERM,
	   "uapi ring private mmap to write is EPERM");
	errno = 0;
	ok(mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM,
	   "uapi ring mmap to execute is EPERM");

	p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	ok(p != MAP_FAILED, "uapi ring mmap of all");
	fails(mprotect(p, size, PROT_READ | PROT_WRITE), EACCES, "uapi ring mprotect to write");
	fails(mprotect(p, size, PROT_READ | PROT_EXEC), EACCES, "uapi ring mprotect to execute");
	ok(mremap(p, size, size + PAGE_SIZE, MREMAP_MAYMOVE) == MAP_FAILED, "uapi ring mremap to grow");
	mem = open("/proc/self/mem", O_RDWR);
	ok(mem >= 0 && pwrite(mem, &byte, 1, (uintptr_t)p) == -1, "uapi ring write by /proc/self/mem");
	close(mem);
	munmap(p, size);
	munmap((void *)head, PAGE_SIZE);
}

static void test_vm_fd_arguments(struct vm *vm, int fd)
{
	struct rdt_region entry[4];
	struct rdt_vm_info before, after;
	struct rdt_regions l;
	uint64_t seq;
	unsigned int bad = 0;

	fails(ioctl(fd, RDT_VM_INFO, nowhere), EFAULT, "uapi vm info bad pointer");
	is(ioctl(fd, RDT_VM_INFO, &before), 0, "uapi vm info");
	ok(!before.reserved[0] && !before.reserved[1], "uapi vm info reserved is zero");
	is(before.vmm_pid, getpid(), "uapi vm info names the VMM");
	is(before.flags, 0, "uapi vm info flags");
	is(before.frames, 0, "uapi vm info: nothing is restricted");
	ok(before.host_bytes <= (1 << 20) + RAM / PAGE_SIZE / 8,
	   "uapi vm info: host memory is 1 MiB and a bit a frame at most (%llu)", before.host_bytes);

	for (unsigned int nr = 0; nr < 256; nr++)
		if (nr < 0x20 || nr > 0x24)
			bad += ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, RDT_IOC, nr, 24), nowhere) != -1 ||
			       errno != ENOTTY;
	is(bad, 0, "uapi unknown ioctls of a VM are ENOTTY");
	fails(ioctl(fd, RDT_INFO, nowhere), ENOTTY, "uapi the device's ioctl on a VM");
	fails(read(fd, &bad, sizeof(bad)), EINVAL, "uapi read of a VM");
	fails(write(fd, &bad, sizeof(bad)), EINVAL, "uapi write of a VM");

	const uint32_t sizes[] = { 0, 4097, ~0u };
	for (unsigned int i = 0; i < 3; i++) {
		l = (struct rdt_regions){ .nr = sizes[i], .entries = (uintptr_t)entry };
		fails(ioctl(fd, RDT_VM_REGIONS, &l), EINVAL, "uapi regions of %u", sizes[i]);
	}
	l = (struct rdt_regions){ .nr = 4, .reserved = 1, .entries = (uintptr_t)entry };
	fails(ioctl(fd, RDT_VM_REGIONS, &l), EINVAL, "uapi regions reserved");
	fails(ioctl(fd, RDT_VM_REGIONS, nowhere), EFAULT, "uapi regions bad pointer");
	const uint64_t starts[] = { 0, 1, 1ull << 52, ~0ull };
	for (unsigned int i = 0; i < 4; i++) {
		l = (struct rdt_regions){ .start = starts[i], .nr = 4, .entries = (uintptr_t)entry };
		ok(!ioctl(fd, RDT_VM_REGIONS, &l) && l.nr == 0, "uapi regions from %#lx: none", starts[i]);
	}

	const struct rdt_protect wrong[] = {
		{ .gpa = TARGET, .pages = 1, .action = 1, .flags = 1 },
		{ .gpa = TARGET, .pages = 1, .action = 1, .flags = 0x8000 },
		{ .gpa = TARGET, .pages = 1, .action = 1, .reserved = 1 },
		{ .gpa = TARGET, .pages = 1, .action = 4 },
		{ .gpa = TARGET, .pages = 1, .action = 255 },
		{ .gpa = TARGET, .pages = 1, .action = 1, .cls = RDT_CLS_NODE },
		{ .gpa = TARGET, .pages = 1, .action = 1, .cls = 255 },
		{ .gpa = TARGET, .pages = 0, .action = 1 },
		{ .gpa = TARGET + 1, .pages = 1, .action = 1 },
		{ .gpa = TARGET + 2048, .pages = 1, .action = 0 },
		{ .gpa = TARGET, .pages = ~0ull, .action = 1 },
		{ .gpa = TARGET, .pages = 1ull << 52, .action = 1 },
		{ .gpa = TARGET, .pages = (1ull << 52) - TARGET / PAGE_SIZE + 1, .action = 1 },
		{ .gpa = -PAGE_SIZE, .pages = 1, .action = 1 },
		{ .gpa = -PAGE_SIZE, .pages = 2, .action = 1 },
		{ .gpa = 1ull << 63, .pages = 1, .action = 0 },
	};
	for (unsigned int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		fails(ioctl(fd, RDT_VM_PROTECT, &wrong[i]), EINVAL, "uapi protect, wrong field %u", i);
	const struct rdt_protect no_ram[] = {
		{ .gpa = RAM, .pages = 1, .action = 2 },
		{ .gpa = RAM - PAGE_SIZE, .pages = 2, .action = 2 },
		{ .gpa = 1ull << 40, .pages = 1, .action = 2 },
	};
	for (unsigned int i = 0; i < 3; i++)
		fails(ioctl(fd, RDT_VM_PROTECT, &no_ram[i]), EFAULT, "uapi protect, no RAM %u", i);
	fails(ioctl(fd, RDT_VM_PROTECT, nowhere), EFAULT, "uapi protect bad pointer");
	struct rdt_protect p = { .gpa = TARGET, .pages = 1, .action = RDT_ACT_DENY };

	fails(ioctl(fd, RDT_VM_PROTECT, &p), ENOMEM, "uapi protect without a node page");
	p.action = RDT_ACT_NONE;
	fails(ioctl(fd, RDT_VM_PROTECT, &p), ENOENT, "uapi unprotect of what is not protected");

	fails(ioctl(fd, RDT_VM_SEEN, nowhere), EFAULT, "uapi seen bad pointer");
	seq = before.events + 1;
	fails(ioctl(fd, RDT_VM_SEEN, &seq), EINVAL, "uapi seen of an event to come");
	seq = ~0ull;
	fails(ioctl(fd, RDT_VM_SEEN, &seq), EINVAL, "uapi seen of the last event ever");
	fails(ioctl(fd, RDT_VM_DETACH, 2), EINVAL, "uapi detach with an unknown flag");

	is(ioctl(fd, RDT_VM_INFO, &after), 0, "uapi vm info again");
	/* But that memory for the bitmap may have come, which is then kept. */
	ok(after.host_bytes <= before.host_bytes + 4 * PAGE_SIZE,
	   "uapi refusals keep no more than the bitmap (%llu, %llu)", before.host_bytes,
	   after.host_bytes);
	after.host_bytes = before.host_bytes;
	ok(!memcmp(&before, &after, sizeof(before)), "uapi refusals changed nothing");
}

static int polled(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) < 0 ? -1 : p.revents;
}

static void *poll_thread(void *arg)
{
	return (void *)(long)polled(*(int *)arg, 10000);
}

static uint64_t see_all(int fd)
{
	struct rdt_vm_info info;

	if (ioctl(fd, RDT_VM_INFO, &info) || ioctl(fd, RDT_VM_SEEN, &info.events))
		tap_bail("RDT_VM_SEEN");
	return info.events;
}

static void test_events(struct vm *vm, int fd, int fd2, uint32_t id)
{
	struct vcpu *v = &vm->vcpu[0];
	struct rdt *a = rdt_wrap(fd, id), *b = rdt_wrap(fd2, id);
	struct rdt_event ea, eb;
	pthread_t thread;
	uint64_t count, seq;
	void *ret;
	int same = 0, n = 3 * RDT_RING_RECORDS / 2;

	is(vcpu_call(v, g_node_add, NODES, 2), 2, "uapi node pages");
	is(vcpu_call(v, g_hc, RDT_HC_PROTECT, TARGET, 1, RDT_ATTR(RDT_ACT_DENY, RDT_CLS_OTHER)), 0,
	   "uapi protect by the guest");
	see_all(fd);
	see_all(fd2);
	is(polled(fd, 0), 0, "uapi poll: nothing new");
	is(vcpu_call(v, g_store, TARGET, 1), 13, "A3 denied write");
	is(polled(fd, 0), POLLIN, "uapi poll: an event");
	is(polled(fd2, 0), POLLIN, "uapi poll: on the other descriptor too");
	seq = see_all(fd);
	is(polled(fd, 0), 0, "uapi poll: seen");
	is(polled(fd2, 0), POLLIN, "uapi poll: seen is the descriptor's own");
	seq--;
	ioctl(fd, RDT_VM_SEEN, &seq);
	is(polled(fd, 0), POLLIN, "uapi poll: seen goes back too");
	see_all(fd);

	pthread_create(&thread, NULL, poll_thread, &fd);
	usleep(300000);
	vcpu_call(v, g_store, TARGET, 2);
	pthread_join(thread, &ret);
	is((long)ret, POLLIN, "uapi poll: a sleeper is woken");

	while (rdt_next(a, &ea))
		same += rdt_next(b, &eb) && !memcmp(&ea, &eb, sizeof(ea));
	is(same, 2, "A11 two readers see the same events");
	ok(!rdt_next(b, &eb), "A11 and no more");

	/* More than the ring holds, unread: the numbers tell the loss. */
	count = rdt_count(a, RDT_EV_WRITE);
	for (int i = 0; i < n; i++)
		vcpu_call(v, g_store, TARGET, 3);
	is(rdt_count(a, RDT_EV_WRITE), count + n, "A11 the count misses none");
	for (same = 0; rdt_next(a, &ea);)
		same++;
	is(same, RDT_RING_RECORDS, "A11 a slow reader gets what the ring holds");
	is(a->lost, n - RDT_RING_RECORDS, "A11 and knows what it lost");
	is(vm_u64(vm, TARGET), 0, "A3 nothing was written");

	munmap((void *)a->ring, a->size);
	munmap((void *)b->ring, b->size);
	free(a);
	free(b);
}

static void test_detach(struct vm *vm, int fd, int fd2, uint32_t id)
{
	struct rdt *r = rdt_wrap(fd2, id);
	struct rdt_protect p = { .gpa = TARGET, .pages = 1, .action = RDT_ACT_DENY };
	struct rdt_region entry[4];
	struct rdt_regions l = { .nr = 4, .entries = (uintptr_t)entry };
	struct rdt_open o = { .vm_id = id };
	struct rdt_vm_info info;
	struct rdt_event ev;
	int fd3;

	is(ioctl(fd, RDT_VM_DETACH, 0), 0, "uapi detach");
	is(attached(), 0, "uapi detach: it is gone");
	fails(ioctl(fd, RDT_VM_DETACH, 0), ENODEV, "uapi detach twice");
	fails(ioctl(fd2, RDT_VM_DETACH, 0), ENODEV, "uapi detach by another descriptor");
	fails(ioctl(fd2, RDT_VM_PROTECT, &p), ENODEV, "uapi protect after detach");
	fails(ioctl(fd2, RDT_VM_REGIONS, &l), ENODEV, "uapi regions after detach");
	fails(ioctl(dev, RDT_OPEN, &o), ENOENT, "uapi open after detach");
	is(ioctl(fd2, RDT_VM_INFO, &info), 0, "uapi info after detach");
	ok(info.flags & RDT_VM_DEAD, "uapi info says dead");
	ok(rdt_find(r, RDT_EV_DETACH, &ev), "uapi detach is an event");
	is(polled(fd2, 0), POLLIN | POLLHUP, "uapi poll hangs up");
	see_all(fd2);
	is(polled(fd2, 0), POLLHUP, "uapi poll hangs up, all seen");
	is(vcpu_call(&vm->vcpu[0], g_store, TARGET, 0x77), -1, "uapi after detach the guest writes");
	is(vm_u64(vm, TARGET), 0x77, "uapi and it is written");

	close(fd);
	rdt_close(r);
	fd3 = rdt_attach_fd(vm->fd);
	ok(fd3 >= 0, "uapi attach again");
	is(ioctl(fd3, RDT_VM_INFO, &info), 0, "uapi info of the new one");
	ok(info.vm_id > id, "uapi numbers are not used again");
	is(info.frames, 0, "uapi nothing of the old is left");
	is(ioctl(fd3, RDT_VM_DETACH, 0), 0, "uapi detach the new one");
	close(fd3);
}

static void test_vm_ends(void)
{
	struct vm *vm = vm_create(RAM, 1, 0);
	struct rdt *r = rdt_attach(vm->fd);
	struct rdt_open o = { .vm_id = r->id };
	struct rdt_vm_info info;
	struct rdt_event ev;
	pthread_t thread;
	void *ret;

	is(ioctl(dev, RDT_OPEN, &o), 0, "uapi open");
	ok(fcntl(o.fd, F_GETFD) & FD_CLOEXEC, "uapi descriptors close on exec");
	see_all(o.fd);
	pthread_create(&thread, NULL, poll_thread, &o.fd);
	usleep(300000);
	vm_destroy(vm);
	pthread_join(thread, &ret);
	is((long)ret, POLLIN | POLLHUP, "uapi the VM's end wakes and hangs up");
	is(attached(), 0, "uapi an ended VM is not attached");
	ok(rdt_find(r, RDT_EV_VM_DEAD, &ev), "uapi the VM's end is an event");
	ok(!ioctl(o.fd, RDT_VM_INFO, &info) && info.flags & RDT_VM_DEAD, "uapi info of an ended VM");
	fails(ioctl(o.fd, RDT_VM_DETACH, 0), ENODEV, "uapi detach of an ended VM");
	close(o.fd);
	/* The mapping outlives the descriptors. */
	close(r->fd);
	ok(rdt_count(r, RDT_EV_VM_DEAD) == 1, "uapi the ring stays while it is mapped");
	munmap((void *)r->ring, r->size);
	free(r);
}

/* Makes a VM, hands its descriptor over, dies. */
static int make_and_die(void *arg)
{
	char byte = 0, room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room,
			      .msg_controllen = sizeof(room) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	struct vm *vm = vm_create(RAM, 1, 0);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &vm->fd, sizeof(int));
	return sendmsg(*(int *)arg, &msg, 0) == 1 ? 0 : 1;
}

static void test_orphan(void)
{
	char byte, room[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room,
			      .msg_controllen = sizeof(room) };
	struct rdt_vm_info info;
	int pair[2], vm_fd, fd;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		tap_bail("socketpair");
	is(in_child(make_and_die, &pair[0]), 0, "uapi a VM whose maker has died");
	if (recvmsg(pair[1], &msg, 0) != 1 || !CMSG_FIRSTHDR(&msg))
		tap_bail("no descriptor came");
	memcpy(&vm_fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	fd = rdt_attach_fd(vm_fd);
	ok(fd >= 0, "uapi it can be attached");
	is(ioctl(fd, RDT_VM_INFO, &info), 0, "uapi its info");
	is(info.vmm_pid, 0, "uapi its VMM is unknown");
	close(vm_fd);
	ok(!ioctl(fd, RDT_VM_INFO, &info) && info.flags & RDT_VM_DEAD, "uapi it ends with its descriptor");
	close(fd);
	close(pair[0]);
	close(pair[1]);
	is(attached(), 0, "uapi nothing is left of it");
}

/* SIGKILL while its vCPU runs; and a descriptor of ours that outlives it. */
static int run_until_killed(void *arg)
{
	struct vm *vm = vm_create(RAM, 1, 0);
	int fd = rdt_attach_fd(vm->fd);

	if (fd < 0)
		return 1;
	vcpu_call(&vm->vcpu[0], g_node_add, NODES, 1);
	vcpu_call(&vm->vcpu[0], g_hc, RDT_HC_PROTECT, TARGET, 1, RDT_ATTR(RDT_ACT_DENY, 0));
	for (;;)
		vcpu_call(&vm->vcpu[0], g_store, TARGET, 1);
}

static void test_kill(void)
{
	struct rdt_list_entry entry[2];
	struct rdt_list l = { .nr = 2, .entries = (uintptr_t)entry };
	struct rdt_open o = { 0 };
	struct rdt_vm_info info = { 0 };
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(run_until_killed(NULL));
	for (int i = 0; i < 1000; i++) {
		l.nr = 2;
		if (!ioctl(dev, RDT_LIST, &l) && l.nr == 1)
			break;
		usleep(10000);
	}
	ok(l.nr == 1 && entry[0].vmm_pid == pid, "uapi the list shows another process's VM");
	o.vm_id = entry[0].vm_id;
	is(ioctl(dev, RDT_OPEN, &o), 0, "uapi it can be opened from here");
	for (int i = 0; i < 1000 && info.events < 10; i++) {
		usleep(10000);
		ioctl(o.fd, RDT_VM_INFO, &info);
	}
	ok(info.events >= 10, "uapi its events are seen from here");
	is(info.frames, 2, "uapi its frames are seen from here");
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	ok(WIFSIGNALED(status), "uapi killed");
	is(attached(), 0, "uapi a killed VMM leaves no VM");
	is(polled(o.fd, 5000) & POLLHUP, POLLHUP, "uapi and its descriptor hangs up");
	close(o.fd);
}

int main(void)
{
	int refs, fd, fd2;
	struct rdt_attach a;
	struct rdt_open o;
	struct vm *vm;

	kvm_dev();
	refs = refcount();
	dev = rdt_dev();
	test_device();
	test_policy();

	vm = vm_create(RAM, 1, 0);
	test_attach_refused(vm);
	a = (struct rdt_attach){ .vm_fd = vm->fd };
	is(ioctl(dev, RDT_ATTACH, &a), 0, "uapi attach");
	ok(a.fd >= 0 && a.vm_id, "uapi attach answers");
	fd = a.fd;
	ok(fcntl(fd, F_GETFD) & FD_CLOEXEC, "uapi the descriptor closes on exec");
	is(attached(), 1, "uapi one VM is attached");
	a.fd = -1;
	fails(ioctl(dev, RDT_ATTACH, &a), EEXIST, "uapi attach twice");
	is(a.fd, -1, "uapi a refused attach answers nothing");
	test_open_list(a.vm_id);
	is(in_child(new_namespace, NULL), 0, "uapi pids are the caller's namespace's");
	o = (struct rdt_open){ .vm_id = a.vm_id };
	is(ioctl(dev, RDT_OPEN, &o), 0, "uapi open");
	fd2 = o.fd;
	test_mmap(fd);
	test_vm_fd_arguments(vm, fd);
	test_events(vm, fd, fd2, a.vm_id);
	test_detach(vm, fd, fd2, a.vm_id);
	vm_destroy(vm);

	test_vm_ends();
	test_orphan();
	test_kill();

	close(dev);
	is(refcount(), refs, "uapi the module's references are back");
	return tap_end();
}
