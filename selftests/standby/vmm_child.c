// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include "vmm_child.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/redoubt_standby.h>
#include <linux/userfaultfd.h>

#include "known.h"
#include "tap.h"
#include "vmm.h"

bool child_frame_is_zero(uint64_t i)
{
	return i % 4 == 0;
}

static void fill(uint64_t *page, uint64_t i, uint32_t seed)
{
	uint64_t x = (i + 1) * 0x9e3779b97f4a7c15 + seed;

	switch (i % 4) {
	case 1:
		memset(page, 0x5a, PAGE_SIZE);
		break;
	case 2:
		for (unsigned int k = 0; k < PAGE_SIZE / 8; k++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			page[k] = x;
		}
		break;
	case 3:
		((uint8_t *)page)[PAGE_SIZE - 1] = 1 + i % 255;
		break;
	}
}

static void second_vm(struct child_box *box)
{
	box->vm2_fd = ioctl(kvm_dev(), KVM_CREATE_VM, 0);
	box->vcpu2_fd = ioctl(box->vm2_fd, KVM_CREATE_VCPU, 0);
	if (box->vm2_fd < 0 || box->vcpu2_fd < 0)
		tap_bail("a second VM");
}

static void sparse_slot(struct child_box *box, struct vm *vm)
{
	const uint64_t bytes = SPARSE_PAGES * PAGE_SIZE;
	int fd = memfd_create("sparse", MFD_CLOEXEC);
	uint8_t page[PAGE_SIZE];
	void *at;

	if (fd < 0 || ftruncate(fd, bytes))
		tap_bail("memfd");
	for (uint64_t i = 0; i < SPARSE_PAGES; i++) {
		memset(page, 1 + i % 255, PAGE_SIZE);
		if (sparse_has(i) && pwrite(fd, page, PAGE_SIZE, i * PAGE_SIZE) != PAGE_SIZE)
			tap_bail("memfd");
	}
	at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED || vm_set_slot(vm, 2, SPARSE_GPA, bytes, at, 0))
		tap_bail("the slot with holes");
	box->sparse.fd = fd;
	box->sparse.hva = (uintptr_t)at;
}

static void awaited_slot(struct child_box *box, struct vm *vm)
{
	const uint64_t bytes = AWAITED_PAGES * PAGE_SIZE;
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range.len = bytes, .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	reg.range.start = (uintptr_t)at;
	if (fd < 0 || at == MAP_FAILED || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg) ||
	    vm_set_slot(vm, 3, AWAITED_GPA, bytes, at, 0))
		tap_bail("userfaultfd");
	box->awaited.fd = fd;
	box->awaited.hva = (uintptr_t)at;
}

static void map_fuse(struct child_box *box)
{
	int fd = open(FUSE_FILE, O_RDONLY | O_CLOEXEC);
	void *at = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	struct stat st;

	/* The kernel has asked for its size then. */
	if (fd < 0 || at == MAP_FAILED || fstat(fd, &st) || st.st_size != PAGE_SIZE)
		tap_bail(FUSE_FILE);
	close(fd);
	box->fuse.hva = (uintptr_t)at;
}

static void *count(void *arg)
{
	struct vcpu *v = arg;

	vcpu_prepare(v, g_count);
	for (;;)
		vcpu_run(v);
	return NULL;
}

/* Guest: leave for an I/O. */
static void g_leave(uint64_t value)
{
	guest_sync(value);
}

/* The VMM: does what it is told, a letter each, until there is nobody any more. */
static _Noreturn void vmm(struct child_box *box, int from, int to, uint64_t bytes, uint32_t seed)
{
	struct vm *vm = vm_create(RAM_BYTES, CHILD_VCPUS, VM_IRQCHIP);
	uint8_t *data = vm_alloc(bytes, VM_SMALL);
	char cmd, done = 'k';
	pthread_t thread;

	for (uint64_t i = 0; i < bytes / PAGE_SIZE; i++)
		fill((uint64_t *)(data + i * PAGE_SIZE), i, seed);
	if (vm_set_slot(vm, 1, DATA_GPA, bytes, data, 0))
		tap_bail("DATA's slot");
	box->vm_fd = vm->fd;
	box->stats_fd = ioctl(vm->vcpu[0].fd, KVM_GET_STATS_FD, 0);
	for (int i = 0; i < CHILD_VCPUS; i++) {
		box->vcpu_fd[i] = vm->vcpu[i].fd;
		box->flags[i] = GUEST_FREE + i * PAGE_SIZE;
	}
	for (int i = 0; i < CHILD_SLOTS; i++) {
		box->slot[i].gfn = vm->slot[i].gpa / PAGE_SIZE;
		box->slot[i].frames = vm->slot[i].size / PAGE_SIZE;
		box->slot[i].hva = (uintptr_t)vm->slot[i].host;
	}
	do {
		if (write(to, &done, 1) != 1 || read(from, &cmd, 1) != 1)
			break;
		switch (cmd) {
		case 'r':
			vcpu_start(&vm->vcpu[0], g_known_spin, box->flags[0]);
			vcpu_start(&vm->vcpu[1], g_known_halt, box->flags[1]);
			for (int i = 0; i < CHILD_VCPUS; i++)
				while (!*(volatile uint32_t *)vm_host(vm, box->flags[i]))
					usleep(1000);
			usleep(300000);		/* the HLT behind the flag */
			break;
		case 'o':
			vcpu_call(&vm->vcpu[0], g_leave, 0);
			break;
		case 'd':
			vm_set_slot(vm, 1, DATA_GPA, 0, data, 0);
			break;
		case 'a':
			vm_set_slot(vm, 1, DATA_GPA, bytes, data, 0);
			break;
		case CHILD_SECOND_VM:
			second_vm(box);
			break;
		case CHILD_MORE_VCPU:
			if (ioctl(box->vm2_fd, KVM_CREATE_VCPU, 1) < 0)
				tap_bail("a vCPU more");
			break;
		case CHILD_SPARSE:
			sparse_slot(box, vm);
			break;
		case CHILD_AWAITED:
			awaited_slot(box, vm);
			break;
		case CHILD_LOCK:
			if (mlockall(MCL_CURRENT))
				tap_bail("mlockall");
			break;
		case CHILD_FUSE:
			map_fuse(box);
			break;
		case CHILD_TAKE:
			vm_set_slot(vm, 3, AWAITED_GPA, 0, (void *)box->awaited.hva, 0);
			break;
		case CHILD_COUNT:
			if (pthread_create(&thread, NULL, count, &vm->vcpu[0]))
				tap_bail("a vCPU's thread");
			break;
		}
	} while (1);
	_exit(0);
}

static void wait_done(struct child *c)
{
	char done;

	if (read(c->from, &done, 1) != 1)
		tap_bail("the VMM has died");
}

void child_tell_only(struct child *c, char what)
{
	if (write(c->to, &what, 1) != 1)
		tap_bail("the VMM is not there");
}

void child_tell(struct child *c, char what)
{
	child_tell_only(c, what);
	wait_done(c);
}

int child_copy_fd(struct child *c, int fd)
{
	int got = syscall(SYS_pidfd_getfd, c->pidfd, fd, 0);

	if (got < 0)
		tap_bail("pidfd_getfd of %d", fd);
	return got;
}

void child_start(struct child *c, uint64_t data_bytes, uint32_t seed)
{
	int to[2], from[2];

	c->box = mmap(NULL, sizeof(*c->box), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->box == MAP_FAILED || pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		tap_bail("a VMM's pipes");
	fflush(stdout);
	c->pid = fork();
	if (c->pid < 0)
		tap_bail("fork");
	if (!c->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		vmm(c->box, to[0], from[1], data_bytes, seed);
	}
	close(to[0]);
	close(from[1]);
	c->to = to[1];
	c->from = from[0];
	wait_done(c);
	c->pidfd = syscall(SYS_pidfd_open, c->pid, 0);
	if (c->pidfd < 0)
		tap_bail("pidfd_open");
	c->vm_fd = child_copy_fd(c, c->box->vm_fd);
	c->stats_fd = child_copy_fd(c, c->box->stats_fd);
	for (int i = 0; i < CHILD_VCPUS; i++)
		c->vcpu_fd[i] = child_copy_fd(c, c->box->vcpu_fd[i]);
}

void child_run(struct child *c)
{
	child_tell(c, 'r');
}

void child_leave(struct child *c)
{
	child_tell(c, 'o');
}

void child_slot(struct child *c, bool there)
{
	child_tell(c, there ? 'a' : 'd');
}

void child_read(struct child *c, int slot, void *to)
{
	const uint64_t bytes = c->box->slot[slot].frames * PAGE_SIZE;
	struct iovec here = { to, bytes }, there = { (void *)c->box->slot[slot].hva, bytes };

	if (process_vm_readv(c->pid, &here, 1, &there, 1, 0) != (ssize_t)bytes)
		tap_bail("process_vm_readv");
}

void child_kill(struct child *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	kill(c->pid, SIGKILL);
	if (poll(&p, 1, 60000) != 1 || waitpid(c->pid, NULL, 0) != c->pid)
		tap_bail("the VMM does not die");
	c->pid = 0;
}

void child_end(struct child *c)
{
	if (c->pid)
		child_kill(c);
	close(c->pidfd);
	close(c->to);
	close(c->from);
	close(c->vm_fd);
	close(c->stats_fd);
	for (int i = 0; i < CHILD_VCPUS; i++)
		close(c->vcpu_fd[i]);
	munmap(c->box, sizeof(*c->box));
}

int child_register(struct child *c, int fd, uint32_t *id)
{
	struct rdt_sb_register reg = {
		.vm_fd = c->vm_fd,
		.nr_vcpus = CHILD_VCPUS,
		.vcpu_fds = (uintptr_t)c->vcpu_fd,
		.uuid = "redoubt standby",
	};
	int dev = fd < 0 ? open("/dev/redoubt-standby", O_RDWR | O_CLOEXEC) : fd;
	int err;

	if (dev < 0)
		return -1;
	if (ioctl(dev, RDT_SB_REGISTER, &reg)) {
		err = errno;
		if (fd < 0)
			close(dev);
		errno = err;
		return -1;
	}
	if (id)
		*id = reg.id;
	return dev;
}
