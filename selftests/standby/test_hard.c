// SPDX-License-Identifier: GPL-2.0
/*
 * F7, F8, F1: what a receiver or a VMM can do to the module: a socket that takes nothing, a port that is another's, memory
 * that does not come, holes, a vCPU that does not stand still. The host lives, nobody waits for long, nothing is wrong.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/fuse.h>
#include <linux/kvm.h>

#include "image.h"
#include "layout.h"
#include "tap.h"
#include "vmm_child.h"

#define DATA_BYTES	(4ul << 20)
#define MSR_KERNEL_GS	0xc0000102

static int ctl;
static uint16_t family;
static struct gnl_msg msg;
static char reply_buf[GNL_MAX];
static struct nlmsghdr *const reply = (void *)reply_buf;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Without @r: a stream of nothing. */
static int stream_start(uint32_t vm, uint32_t number, int fd, uint8_t space, const struct rdt_sb_range *r)
{
	gnl_begin(&msg, family, RDT_SB_CMD_STREAM);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, number);
	gnl_u32(&msg, RDT_SB_A_DATA_FD, fd);
	gnl_u8(&msg, RDT_SB_A_SPACE, space);
	gnl_put(&msg, RDT_SB_A_RANGES, r ? (const void *)r : "", r ? sizeof(*r) : 0);
	return gnl_call(ctl, &msg, NULL);
}

static int cancel(uint32_t vm, uint32_t number)
{
	gnl_begin(&msg, family, RDT_SB_CMD_CANCEL);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, number);
	return gnl_call(ctl, &msg, NULL);
}

static int get(uint32_t vm, struct gnl_attrs *at)
{
	int err;

	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	err = gnl_call(ctl, &msg, reply);
	if (!err)
		gnl_attrs(reply, at);
	return err;
}

static int state_of(uint32_t vm, uint32_t number)
{
	const struct nlattr *a = NULL;
	struct rdt_sb_stream_info info;
	struct gnl_attrs at;

	if (get(vm, &at))
		return -1;
	while ((a = gnl_next(reply, RDT_SB_A_STREAM_INFO, a))) {
		memcpy(&info, gnl_data(a), sizeof(info));
		if (info.stream == number)
			return info.state;
	}
	return -1;
}

/* ---- sockets ----------------------------------------------------------------------- */

/* It takes nothing of ours, and there is nothing to be read first: the stream is at its end as soon as it begins. */
static void test_connected(uint32_t vm)
{
	int lost = 0, good = 0, fd[RDT_SB_MAX_STREAMS], other[RDT_SB_MAX_STREAMS];
	const int rounds = 10;

	for (int i = 0; i < rounds; i++) {
		for (int k = 0; k < RDT_SB_MAX_STREAMS; k++) {
			struct sockaddr_nl to = { .nl_family = AF_NETLINK };

			fd[k] = gnl_socket(NULL);
			other[k] = gnl_socket(&to.nl_pid);
			if (connect(fd[k], (void *)&to, sizeof(to)))
				tap_bail("connect");
			good += !stream_start(vm, k, fd[k], RDT_SB_SPACE_GFN, NULL);
		}
		usleep(250000);		/* longer than the receiver is not looked for */
		for (int k = 0; k < RDT_SB_MAX_STREAMS; k++) {
			lost += state_of(vm, k) == RDT_SB_STREAM_LOST;
			good += !cancel(vm, k);
			close(fd[k]);
			close(other[k]);
		}
	}
	is(good, 2 * rounds * RDT_SB_MAX_STREAMS, "F7 streams to sockets that are connected elsewhere begin, and can be cancelled");
	is(lost, rounds * RDT_SB_MAX_STREAMS, "F7 and are lost at once");
}

static void test_port(uint32_t vm)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
	socklen_t size = sizeof(addr);
	int owner = gnl_socket(&addr.nl_pid), thief = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
	const uint32_t port = addr.nl_pid;

	fails(bind(thief, (void *)&addr, sizeof(addr)), EADDRINUSE, "F8 a port that another socket has");
	addr.nl_pid = 0;
	ok(!getsockname(thief, (void *)&addr, &size), "F8 is what the socket says it has: %u, %u", addr.nl_pid, port);
	is(stream_start(vm, 1, thief, RDT_SB_SPACE_GFN, NULL), EBADF, "F8 it gets no guest memory there");
	is(stream_start(vm, 1, owner, RDT_SB_SPACE_GFN, NULL), 0, "F8 the port's owner does");
	is(stream_start(vm, 2, dup(owner), RDT_SB_SPACE_GFN, NULL), EBUSY, "F7 one stream a socket");
	is(cancel(vm, 1), 0, "F7 it is cancelled");
	is(stream_start(vm, 2, owner, RDT_SB_SPACE_GFN, NULL), 0, "F7 and the socket is free for another");
	is(cancel(vm, 2), 0, "F7 that is cancelled, too");
	close(owner);
	close(thief);
}

/* ---- memory ------------------------------------------------------------------------ */

static void test_sparse(uint32_t vm, struct child *c)
{
	int fd = gnl_socket(NULL), file;
	uint64_t wrong = 0;
	struct image im;
	struct stat st;
	blkcnt_t blocks;

	child_tell(c, CHILD_SPARSE);
	file = child_copy_fd(c, c->box->sparse.fd);
	if (fstat(file, &st))
		tap_bail("fstat");
	blocks = st.st_blocks;
	gnl_bufsize(fd, 4 << 20);
	for (int space = 0; space < 2; space++) {
		const struct rdt_sb_range r = {
			(space == RDT_SB_SPACE_GFN ? SPARSE_GPA : c->box->sparse.hva) / PAGE_SIZE, SPARSE_PAGES
		};

		image_init(&im, space, vm, 1);
		image_area(&im, 0, r.first, r.count);
		ok(!stream_start(vm, 1, fd, space, &r) && image_receive(&im, fd, 20000) && !im.bad && !im.lost,
		   "F7 a file with holes, by the %s", space ? "VMM's addresses" : "guest's");
		for (uint64_t i = 0; i < SPARSE_PAGES; i++) {
			const uint8_t byte = sparse_has(i) ? 1 + i % 255 : 0;

			for (uint64_t k = 0; k < PAGE_SIZE && im.area[0].bytes; k += 511)
				wrong += im.area[0].bytes[i * PAGE_SIZE + k] != byte;
		}
		is(wrong, 0, "F7 every page is what it is");
		is(im.data, SPARSE_PAGES / 8, "F6 the holes are zero pages");
		cancel(vm, 1);
		image_free(&im);
	}
	if (fstat(file, &st))
		tap_bail("fstat");
	is(st.st_blocks, blocks, "F7 they are holes still");
	close(file);
	close(fd);
}

/* Nobody answers its userfaultfd: we have it, so that it outlives the VMM. */
static void test_awaited(uint32_t vm, struct child *c)
{
	const struct rdt_sb_range r = { AWAITED_GPA / PAGE_SIZE, AWAITED_PAGES };
	int fd = gnl_socket(NULL), uffd;
	struct timespec wait = { 2, 0 };
	double t;

	child_tell(c, CHILD_AWAITED);
	uffd = child_copy_fd(c, c->box->awaited.fd);
	is(stream_start(vm, 1, fd, RDT_SB_SPACE_GFN, &r), 0, "F7 memory that does not come is asked for");
	nanosleep(&wait, NULL);
	is(state_of(vm, 1), RDT_SB_STREAM_RUNS, "F7 it is waited for");
	t = now();
	is(cancel(vm, 1), 0, "F7 cancelled while it is");
	ok(now() - t < 5, "F7 in %.1f s", now() - t);
	is(stream_start(vm, 1, fd, RDT_SB_SPACE_GFN, &r), 0, "F7 once more");
	nanosleep(&wait, NULL);
	/* KVM waits for whoever is reading its slots. */
	t = now();
	child_tell(c, CHILD_TAKE);
	ok(now() - t < 5, "F7 the VMM can take the slot away meanwhile, in %.1f s", now() - t);
	t = now();
	child_kill(c);
	ok(now() - t < 5, "F1 the VMM can be killed meanwhile, in %.1f s", now() - t);
	close(fd);
	close(uffd);
}

/*
 * A FUSE file system of one file, which is its root, whose pages come when @go says so: who waits for one cannot be killed.
 * It says to @asked when it was asked.
 */
static _Noreturn void fuse_server(int dev, int asked, int go)
{
	static union {
		struct fuse_in_header head;
		char bytes[256 << 10];
	} in;
	static struct {
		struct fuse_out_header head;
		union {
			struct fuse_init_out init;
			struct fuse_attr_out attr;
			struct fuse_open_out open;
			char page[PAGE_SIZE];
		};
	} out;
	char c = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(dev, &in, sizeof(in)) > 0) {
		size_t bytes = 0;

		memset(&out, 0, sizeof(out));
		switch (in.head.opcode) {
		case FUSE_INIT:
			out.init = (struct fuse_init_out){ .major = 7, .minor = 31, .max_write = PAGE_SIZE };
			bytes = sizeof(out.init);
			break;
		case FUSE_GETATTR:
			out.attr = (struct fuse_attr_out){ .attr_valid = 1000, .attr = {
				.ino = 1, .size = PAGE_SIZE, .blocks = 8, .mode = S_IFREG | 0444, .nlink = 1 } };
			bytes = sizeof(out.attr);
			break;
		case FUSE_OPEN:
			bytes = sizeof(out.open);
			break;
		case FUSE_READ:
			if (write(asked, &c, 1) != 1 || read(go, &c, 1) != 1)
				_exit(1);
			bytes = PAGE_SIZE;
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			continue;
		case FUSE_RELEASE:
			break;
		default:
			out.head.error = -ENOSYS;
		}
		out.head.unique = in.head.unique;
		out.head.len = sizeof(out.head) + bytes;
		if (write(dev, &out, out.head.len) < 0 && errno != ENOENT)
			_exit(2);
	}
	_exit(0);
}

static bool soon(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 20000) == 1;
}

/* A stream's thread that no signal moves. */
static void test_unkillable(void)
{
	const int data = gnl_socket(NULL), dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	static char buf[GNL_MAX];
	struct rdt_sb_range r = { .count = 1 };
	int asked[2], go[2], reg, tries = 0;
	char options[80], c = 0;
	struct child child;
	uint32_t vm;
	pid_t pid;
	double t;

	close(open(FUSE_FILE, O_CREAT | O_WRONLY, 0444));
	snprintf(options, sizeof(options), "fd=%d,rootmode=100444,user_id=0,group_id=0", dev);
	if (dev < 0) {
		tap_skip("F7 a page that no signal ends the wait for: no FUSE here");
		return;
	}
	if (mount("test", FUSE_FILE, "fuse", MS_NOSUID | MS_NODEV, options) || pipe(asked) || pipe(go))
		tap_bail("FUSE");
	fflush(stdout);
	pid = fork();
	if (!pid)
		fuse_server(dev, asked[1], go[0]);
	close(dev);
	child_start(&child, DATA_BYTES, 4);
	reg = child_register(&child, -1, &vm);
	child_tell(&child, CHILD_FUSE);
	r.first = child.box->fuse.hva / PAGE_SIZE;
	is(stream_start(vm, 1, data, RDT_SB_SPACE_HVA, &r), 0, "F7 a page of a file system that does not answer is asked for");
	ok(soon(asked[0]), "F7 and waited for");
	t = now();
	is(cancel(vm, 1), 0, "F7 no signal ends that wait: cancelled even so");
	ok(now() - t < 5, "F7 in %.1f s", now() - t);
	is(state_of(vm, 1), -1, "F7 the stream is no more");
	is(stream_start(vm, 1, data, RDT_SB_SPACE_HVA, &r), EBUSY, "F7 its socket is held as long as its thread is there");
	t = now();
	close(reg);
	ok(now() - t < 5, "F1 the registration ends, in %.1f s", now() - t);
	ok(system("rmmod redoubt_standby 2>/dev/null"), "F1 the module waits for the thread");
	if (write(go[1], &c, 1) != 1)
		tap_bail("the file system");
	while (tries < 100 && system("rmmod redoubt_standby 2>/dev/null") && ++tries)
		usleep(100000);
	ok(tries < 100, "F1 the page comes: the module unloads");
	is(gnl_recv(data, buf, sizeof(buf), 300), 0, "F7 nothing was sent of it");
	child_end(&child);
	umount2(FUSE_FILE, MNT_DETACH);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(data);
}

/* ---- vCPUs -------------------------------------------------------------------------- */

static const void *item(const char *name)
{
	const struct nlattr *a = NULL, *in[RDT_SB_I_MAX + 1];

	while ((a = gnl_next(reply, RDT_SB_A_ITEM, a))) {
		gnl_parse(gnl_data(a), gnl_len(a), RDT_SB_I_MAX, in);
		if (in[RDT_SB_I_NAME] && in[RDT_SB_I_DATA] && !strcmp(gnl_data(in[RDT_SB_I_NAME]), name))
			return gnl_data(in[RDT_SB_I_DATA]);
	}
	return NULL;
}

static void test_torn(uint32_t vm, struct child *c)
{
	const uint32_t msr = MSR_KERNEL_GS;
	int torn = 0, busy = 0, whole = 0, other = 0;

	child_tell(c, CHILD_COUNT);
	for (int i = 0; i < 60; i++) {
		const struct kvm_msr_entry *e;
		const struct kvm_regs *regs;
		int err;

		gnl_begin(&msg, family, RDT_SB_CMD_VCPU);
		gnl_u32(&msg, RDT_SB_A_VM, vm);
		gnl_u32(&msg, RDT_SB_A_INDEX, 0);
		gnl_put(&msg, RDT_SB_A_MSRS, &msr, sizeof(msr));
		err = gnl_call(ctl, &msg, reply);
		regs = err ? NULL : item("REGS");
		e = err ? NULL : item("MSRS");
		busy += err == EBUSY;
		other += err ? err != EBUSY : !regs || !e;
		if (regs && e) {
			torn += regs->rbx != e->data;
			whole += regs->rbx == e->data;
		}
		usleep(10000);
	}
	is(torn, 0, "F1 a vCPU that runs: no state of two moments");
	ok(busy && !other, "F1 it is told to be busy %d times, and gives a whole state %d times", busy, whole);
}

/* ---- a VMM of two VMs ------------------------------------------------------------------ */

static void test_two_vms(void)
{
	struct child c;
	struct gnl_attrs at;
	struct rdt_sb_register r = { .nr_vcpus = 1, .uuid = "another" };
	int first, second = open("/dev/redoubt-standby", O_RDWR | O_CLOEXEC), vm2, vcpu2;
	uint32_t vm;

	child_start(&c, DATA_BYTES, 3);
	child_tell(&c, CHILD_SECOND_VM);
	r.vm_fd = vm2 = child_copy_fd(&c, c.box->vm2_fd);
	vcpu2 = child_copy_fd(&c, c.box->vcpu2_fd);
	r.vcpu_fds = (uintptr_t)&vcpu2;
	first = child_register(&c, -1, &vm);
	ok(first >= 0 && !ioctl(second, RDT_SB_REGISTER, &r), "F1 two VMs of one process are registered");
	ok(!get(vm, &at) && !gnl_num(at.a[RDT_SB_A_ORPHAN]), "F1 it lives");
	ok(!get(r.id, &at) && gnl_num(at.a[RDT_SB_A_ONLINE]) == 1 && gnl_num(at.a[RDT_SB_A_VCPUS]) == 1, "F1 one has one vCPU");
	child_tell(&c, CHILD_MORE_VCPU);
	ok(!get(r.id, &at) && gnl_num(at.a[RDT_SB_A_ONLINE]) == 2 && gnl_num(at.a[RDT_SB_A_VCPUS]) == 1,
	   "F1 and gets another: GET tells");
	gnl_begin(&msg, family, RDT_SB_CMD_VCPU);
	gnl_u32(&msg, RDT_SB_A_VM, r.id);
	gnl_u32(&msg, RDT_SB_A_INDEX, 0);
	is(gnl_call(ctl, &msg, NULL), ESTALE, "F1 half a VM's registers are refused");
	child_kill(&c);
	ok(!get(vm, &at) && gnl_num(at.a[RDT_SB_A_ORPHAN]) == 1, "F1 killed: no process has the memory of the first");
	ok(!get(r.id, &at) && gnl_num(at.a[RDT_SB_A_ORPHAN]) == 1, "F1 nor of the second");
	close(first);
	ok(!get(r.id, &at) && gnl_num(at.a[RDT_SB_A_ORPHAN]) == 1, "F1 nor when the first has been let go");
	close(second);
	close(vm2);
	close(vcpu2);
	child_end(&c);
}

int main(void)
{
	struct child c;
	uint32_t vm;
	double t;
	int reg;

	if (system("modprobe redoubt_standby"))
		tap_bail("redoubt_standby does not load");
	ctl = gnl_socket(NULL);
	family = gnl_family(ctl, NULL, NULL);
	child_start(&c, DATA_BYTES, 1);
	reg = child_register(&c, -1, &vm);
	if (!ok(reg >= 0, "F1 a VM is registered"))
		return tap_end();
	test_port(vm);
	test_sparse(vm, &c);
	test_torn(vm, &c);
	test_two_vms();
	test_connected(vm);
	test_awaited(vm, &c);
	t = now();
	close(reg);
	ok(now() - t < 5, "F1 the registration ends, in %.1f s", now() - t);
	child_end(&c);
	test_unkillable();
	is(system("rmmod redoubt_standby 2>/dev/null; grep -c redoubt_standby /proc/modules >/dev/null") != 0, 1,
	   "F1 the module is unloaded");
	return tap_end();
}
