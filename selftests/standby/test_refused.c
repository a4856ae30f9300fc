// SPDX-License-Identifier: GPL-2.0
/* F8, F1, F7: what must be refused, with which errno; and that it leaves nothing behind. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include "gnl.h"
#include "layout.h"
#include "tap.h"
#include "vmm_child.h"

#define DATA_BYTES	(4ul << 20)

static int ctl;
static uint16_t family;
static struct gnl_msg msg;
static struct child child, other;
static uint32_t vm;

static int dev(void)
{
	int fd = open("/dev/redoubt-standby", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		tap_bail("/dev/redoubt-standby");
	return fd;
}

/* ---- registration --------------------------------------------------------------------- */

static struct rdt_sb_register reg_of(struct child *c)
{
	return (struct rdt_sb_register) {
		.vm_fd = c->vm_fd, .nr_vcpus = CHILD_VCPUS, .vcpu_fds = (uintptr_t)c->vcpu_fd, .uuid = "redoubt standby",
	};
}

static void test_register(void)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC), fd = dev();
	struct rdt_sb_register r;
	int fds[CHILD_VCPUS];

#define WITH(field, value) (r = reg_of(&child), r.field = (value), ioctl(fd, RDT_SB_REGISTER, &r))
	fails(WITH(vm_fd, null), EBADF, "F1 a VM that is /dev/null");
	fails(WITH(vm_fd, -1), EBADF, "F1 a VM that is not open");
	fails(WITH(vm_fd, child.vcpu_fd[0]), EBADF, "F1 a VM that is a vCPU");
	fails(WITH(nr_vcpus, 0), EINVAL, "F1 no vCPUs");
	fails(WITH(nr_vcpus, 1), EINVAL, "F1 not all vCPUs");
	fails(WITH(nr_vcpus, RDT_SB_MAX_VCPUS + 1), EINVAL, "F1 too many vCPUs");
	fails(WITH(nr_vcpus, ~0u), EINVAL, "F1 far too many");
	fails(WITH(vcpu_fds, 8), EFAULT, "F1 vCPUs' descriptors where there is no memory");
	fails(WITH(flags, 1), EINVAL, "F1 a flag that there is not");
	fails(WITH(reserved, 1), EINVAL, "F1 reserved is not 0");
	r = reg_of(&child);
	memset(r.uuid, 0, sizeof(r.uuid));
	fails(ioctl(fd, RDT_SB_REGISTER, &r), EINVAL, "F1 no UUID");
	fails(ioctl(fd, RDT_SB_REGISTER, (void *)8), EFAULT, "F1 no request");
	fails(ioctl(fd, RDT_SB_REGISTER + 1, &r), ENOTTY, "F1 another request");
#define VCPUS(a, b) (r = reg_of(&child), r.vcpu_fds = (uintptr_t)fds, fds[0] = (a), fds[1] = (b), ioctl(fd, RDT_SB_REGISTER, &r))
	fails(VCPUS(child.vcpu_fd[0], child.vcpu_fd[0]), EINVAL, "F1 a vCPU twice");
	fails(VCPUS(child.vcpu_fd[0], other.vcpu_fd[1]), EBADF, "F1 another VM's vCPU");
	fails(VCPUS(child.vcpu_fd[0], child.vm_fd), EBADF, "F1 the VM as a vCPU");
	fails(VCPUS(null, child.vcpu_fd[1]), EBADF, "F1 /dev/null as a vCPU");
	fails(VCPUS(child.vcpu_fd[0], -1), EBADF, "F1 a vCPU that is not open");
	/* Its private data is the vCPU itself. */
	ok(child.stats_fd >= 0, "F1 a vCPU's statistics");
	fails(VCPUS(child.stats_fd, child.vcpu_fd[1]), EBADF, "F1 are not taken for the vCPU");
	close(fd);
	close(null);
}

static void test_twice(int reg)
{
	const int fd = dev();
	struct rdt_sb_register r = reg_of(&child);

	fails(ioctl(fd, RDT_SB_REGISTER, &r), EBUSY, "F1 a VM that is registered");
	r = reg_of(&other);
	fails(ioctl(reg, RDT_SB_REGISTER, &r), EBUSY, "F1 a descriptor that has a VM");
	close(fd);
}

/* ---- requests ---------------------------------------------------------------------------- */

static int call_vm(uint8_t cmd, uint32_t id)
{
	gnl_begin(&msg, family, cmd);
	gnl_u32(&msg, RDT_SB_A_VM, id);
	return gnl_call(ctl, &msg, NULL);
}

static void stream_begin(uint32_t number, int fd)
{
	gnl_begin(&msg, family, RDT_SB_CMD_STREAM);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, number);
	gnl_u32(&msg, RDT_SB_A_DATA_FD, fd);
}

static int stream_range(int fd, uint64_t first, uint64_t count, int space)
{
	const struct rdt_sb_range r = { first, count };

	stream_begin(1, fd);
	if (space >= 0)
		gnl_u8(&msg, RDT_SB_A_SPACE, space);
	gnl_put(&msg, RDT_SB_A_RANGES, &r, sizeof(r));
	return gnl_call(ctl, &msg, NULL);
}

static void test_requests(void)
{
	int fd = gnl_socket(NULL), null = open("/dev/null", O_RDWR), route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	int unbound = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC), unix_fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	int err;

	is(call_vm(RDT_SB_CMD_GET, vm), 0, "F7 GET");
	is(call_vm(RDT_SB_CMD_GET, vm + 1), ENOENT, "F7 GET of a VM that there is not");
	is(call_vm(RDT_SB_CMD_GET, 0), ENOENT, "F7 GET of VM 0");
	is(call_vm(RDT_SB_CMD_GET, ~0u), ENOENT, "F7 GET of the last VM");
	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F7 GET without a VM");
	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	is(gnl_dump(ctl, &msg, NULL, NULL), 0, "F7 a dump");
	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	is(gnl_dump(ctl, &msg, NULL, NULL), EINVAL, "F7 a dump with attributes");
	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u64(&msg, RDT_SB_A_VM, vm);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F7 a number of another length");
	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, 1);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F7 an attribute that is not the request's");
	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_MAX + 7, 1);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F7 an attribute that there is not");
	is(call_vm(RDT_SB_CMD_PAGES, vm), EOPNOTSUPP, "F7 what only the module sends");
	is(call_vm(RDT_SB_CMD_MAX + 1, vm), EOPNOTSUPP, "F7 a request that there is not");

	stream_begin(1, null);
	is(gnl_call(ctl, &msg, NULL), EBADF, "F7 a data socket that is /dev/null");
	stream_begin(1, route);
	is(gnl_call(ctl, &msg, NULL), EBADF, "F7 that is of another protocol");
	stream_begin(1, unix_fd);
	is(gnl_call(ctl, &msg, NULL), EBADF, "F7 of another family");
	stream_begin(1, unbound);
	is(gnl_call(ctl, &msg, NULL), EBADF, "F7 that has no port");
	stream_begin(1, 1000);
	is(gnl_call(ctl, &msg, NULL), EBADF, "F7 that is not open");
	stream_begin(1, -1);
	ok((err = gnl_call(ctl, &msg, NULL)) == ERANGE || err == EINVAL, "F7 that is no descriptor (%d)", err);
	is(stream_range(fd, 0, 0, -1), EINVAL, "F7 an empty range");
	is(stream_range(fd, 1ull << 40, 1, -1), EINVAL, "F7 a range behind the last frame");
	is(stream_range(fd, ~0ull, 1, -1), EINVAL, "F7 at the end of numbers");
	is(stream_range(fd, 2, ~0ull, -1), EINVAL, "F7 one whose end wraps");
	is(stream_range(fd, 1ull << 35, 1, RDT_SB_SPACE_HVA), EINVAL, "F7 an address that is the kernel's");
	ok((err = stream_range(fd, 0, 1, 2)) == ERANGE || err == EINVAL, "F7 a space that there is not (%d)", err);
	stream_begin(1, fd);
	gnl_put(&msg, RDT_SB_A_RANGES, "123456789", 9);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F7 half a range");
	stream_begin(1, fd);
	gnl_u32(&msg, RDT_SB_A_FLAGS, 2);
	ok((err = gnl_call(ctl, &msg, NULL)) == ERANGE || err == EINVAL, "F7 a flag that there is not (%d)", err);
	stream_begin(1, fd);
	gnl_u8(&msg, RDT_SB_A_SPACE, RDT_SB_SPACE_HVA);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F7 all of the VMM's addresses");
	is(call_vm(RDT_SB_CMD_AGAIN, vm), EINVAL, "F7 AGAIN of no stream");
	is(call_vm(RDT_SB_CMD_CANCEL, vm), EINVAL, "F7 CANCEL of no stream");

	/* A stream of all that can be asked for at once; nothing is there to read it. */
	is(stream_range(fd, 0, 1ull << 40, -1), 0, "F7 a huge range is a stream like any other");
	is(stream_range(fd, 0, 1, -1), EEXIST, "F7 a number that is taken");
	for (err = 0; !err; ) {
		static struct rdt_sb_range many[RDT_SB_MAX_RANGES];

		for (int i = 0; i < RDT_SB_MAX_RANGES; i++)
			many[i] = (struct rdt_sb_range){ i, 1 };
		gnl_begin(&msg, family, RDT_SB_CMD_AGAIN);
		gnl_u32(&msg, RDT_SB_A_VM, vm);
		gnl_u32(&msg, RDT_SB_A_STREAM, 1);
		gnl_put(&msg, RDT_SB_A_RANGES, many, sizeof(many));
		err = gnl_call(ctl, &msg, NULL);
	}
	is(err, ENOSPC, "F7 more ranges than may wait");
	int more[RDT_SB_MAX_STREAMS + 1];

	stream_begin(2, fd);
	gnl_put(&msg, RDT_SB_A_RANGES, "", 0);
	is(gnl_call(ctl, &msg, NULL), EBUSY, "F7 a data socket that another stream has");
	for (int i = 2; i <= RDT_SB_MAX_STREAMS; i++) {
		more[i] = gnl_socket(NULL);
		stream_begin(i, more[i]);
		gnl_put(&msg, RDT_SB_A_RANGES, "", 0);
		if (gnl_call(ctl, &msg, NULL))
			ok(false, "F7 stream %d", i);
	}
	stream_begin(RDT_SB_MAX_STREAMS + 1, fd);
	is(gnl_call(ctl, &msg, NULL), ENOSPC, "F7 more streams than a VM may have");
	for (int i = 1; i <= RDT_SB_MAX_STREAMS; i++) {
		gnl_begin(&msg, family, RDT_SB_CMD_CANCEL);
		gnl_u32(&msg, RDT_SB_A_VM, vm);
		gnl_u32(&msg, RDT_SB_A_STREAM, i);
		if (gnl_call(ctl, &msg, NULL))
			ok(false, "F7 stream %d is cancelled", i);
		if (i > 1)
			close(more[i]);
	}

	gnl_begin(&msg, family, RDT_SB_CMD_VCPU);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_INDEX, CHILD_VCPUS);
	is(gnl_call(ctl, &msg, NULL), ENOENT, "F1 a vCPU that there is not");
	gnl_begin(&msg, family, RDT_SB_CMD_VCPU);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_INDEX, 0);
	gnl_put(&msg, RDT_SB_A_MSRS, "12345", 5);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F1 half an MSR");
	gnl_begin(&msg, family, RDT_SB_CMD_VCPU);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_MSRS, 0x10);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F1 MSRs of the VM");

	gnl_begin(&msg, family, RDT_SB_CMD_TRIGGER);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F1 a trigger without a reason");
	gnl_begin(&msg, family, RDT_SB_CMD_TRIGGER);
	gnl_u8(&msg, RDT_SB_A_REASON, 200);
	ok((err = gnl_call(ctl, &msg, NULL)) == ERANGE || err == EINVAL, "F1 with another one (%d)", err);
	gnl_begin(&msg, family, RDT_SB_CMD_POWER);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F9 power without a state");
	close(fd);
	close(null);
	close(route);
	close(unbound);
	close(unix_fd);
}

/* ---- events --------------------------------------------------------------------------------- */

static void test_events(uint32_t events, uint32_t power)
{
	static char buf[GNL_MAX];
	struct gnl_attrs at = {};
	int ev = gnl_socket(NULL), pw = gnl_socket(NULL);
	uint64_t seq;

	gnl_join(ev, events);
	gnl_join(pw, power);
	gnl_begin(&msg, family, RDT_SB_CMD_TRIGGER);
	gnl_u8(&msg, RDT_SB_A_REASON, RDT_SB_REASON_OPERATOR);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	is(gnl_call(ctl, &msg, NULL), 0, "F1 a trigger");
	ok(gnl_recv(ev, buf, sizeof(buf), 5000) > 0 && (gnl_attrs((void *)buf, &at), true) &&
	   gnl_num(at.a[RDT_SB_A_EVENT]) == RDT_SB_EVENT_TRIGGER && gnl_num(at.a[RDT_SB_A_VM]) == vm &&
	   gnl_num(at.a[RDT_SB_A_REASON]) == RDT_SB_REASON_OPERATOR, "F1 comes to who listens");
	seq = gnl_num(at.a[RDT_SB_A_EVENT_SEQ]);
	gnl_begin(&msg, family, RDT_SB_CMD_POWER);
	gnl_u8(&msg, RDT_SB_A_POWER, RDT_SB_POWER_BATTERY);
	gnl_u32(&msg, RDT_SB_A_RUNTIME, 300);
	gnl_u64(&msg, RDT_SB_A_BUDGET, 1ull << 33);
	is(gnl_call(ctl, &msg, NULL), 0, "F9 power");
	ok(gnl_recv(pw, buf, sizeof(buf), 5000) > 0 && (gnl_attrs((void *)buf, &at), true) &&
	   gnl_num(at.a[RDT_SB_A_POWER]) == RDT_SB_POWER_BATTERY && gnl_num(at.a[RDT_SB_A_RUNTIME]) == 300 &&
	   gnl_num(at.a[RDT_SB_A_BUDGET]) == 1ull << 33, "F9 comes to who listens");
	is(gnl_num(at.a[RDT_SB_A_EVENT_SEQ]), seq + 1, "F7 events are numbered");
	is(gnl_recv(ev, buf, sizeof(buf), 200), 0, "F7 each group has its own");
	close(ev);
	close(pw);
}

/* ---- who may ---------------------------------------------------------------------------------- */

static void drop_cap(int cap)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &head, data))
		_exit(100);
	data[cap / 32].effective &= ~(1u << cap % 32);
	data[cap / 32].permitted &= ~(1u << cap % 32);
	if (syscall(SYS_capset, &head, data))
		_exit(100);
}

static int get_vm(void)
{
	ctl = gnl_socket(NULL);
	return call_vm(RDT_SB_CMD_GET, vm);
}

static int begin_stream(void)
{
	ctl = gnl_socket(NULL);
	return stream_range(gnl_socket(NULL), 0, 1, -1);
}

static int get_vcpu(void)
{
	ctl = gnl_socket(NULL);
	return call_vm(RDT_SB_CMD_VCPU, vm);
}

static int register_by(int fd)
{
	struct rdt_sb_register r = reg_of(&other);

	return ioctl(fd, RDT_SB_REGISTER, &r) ? errno : 0;
}

/* What @how gives in a process that has become @who. */
static int as(void (*who)(void), int (*how)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		who();
		_exit(how());
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static uint32_t events_group, power_group;

static int join(uint32_t group)
{
	return setsockopt(gnl_socket(NULL), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) ? errno : 0;
}

static int join_events(void) { return join(events_group); }
static int join_power(void) { return join(power_group); }

/* How many slots tell where the VMM has them. */
static int see_addresses(void)
{
	static char buf[GNL_MAX];
	struct nlmsghdr *reply = (void *)buf;
	const struct nlattr *a = NULL;
	int n = 0;

	ctl = gnl_socket(NULL);
	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	if (gnl_call(ctl, &msg, reply))
		return 100;
	while ((a = gnl_next(reply, RDT_SB_A_SLOT, a)))
		n += ((const struct rdt_sb_slot *)gnl_data(a))->hva != 0;
	return n;
}

static int spare;
static void root(void) { }
static void nobody(void) { if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)) _exit(100); }
static void no_ptrace(void) { drop_cap(CAP_SYS_PTRACE); }
static void no_net_admin(void) { drop_cap(CAP_NET_ADMIN); }
static void new_user(void) { nobody(); if (unshare(CLONE_NEWUSER)) _exit(101); }
static void new_net(void) { if (unshare(CLONE_NEWNET)) _exit(100); }
static int open_dev(void) { return open("/dev/redoubt-standby", O_RDWR) < 0 ? errno : 0; }
static int register_spare(void) { return register_by(spare); }
static int find_family(void) { return gnl_family(gnl_socket(NULL), NULL, NULL) ? 0 : ENOENT; }

/* A data socket of a namespace of its own, the request from ours. */
static int foreign_socket(void)
{
	int mine = gnl_socket(NULL), fd;

	if (unshare(CLONE_NEWNET))
		return 100;
	fd = gnl_socket(NULL);
	ctl = mine;
	return stream_range(fd, 0, 1, -1);
}

/* It must be there for who may. */
static int scan_one(void)
{
	ctl = gnl_socket(NULL);
	gnl_begin(&msg, family, RDT_SB_CMD_SCAN);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u64(&msg, RDT_SB_A_FIRST, child.box->slot[0].hva / PAGE_SIZE);
	gnl_u32(&msg, RDT_SB_A_FRAMES, 1);
	return gnl_call(ctl, &msg, NULL);
}
static int limit_it(void)
{
	ctl = gnl_socket(NULL);
	gnl_begin(&msg, family, RDT_SB_CMD_LIMIT);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	return gnl_call(ctl, &msg, NULL);
}

static void test_who(void)
{
	int err;

	spare = dev();
	is(as(root, get_vm), 0, "F8 root may ask");
	is(as(nobody, open_dev), EACCES, "F8 nobody else opens the device");
	is(as(nobody, register_spare), EPERM, "F8 nor registers with a descriptor that was left to him");
	is(as(no_ptrace, register_spare), EPERM, "F8 registering wants CAP_SYS_PTRACE");
	is(as(nobody, get_vm), EPERM, "F8 nobody else may ask");
	is(as(no_net_admin, get_vm), EPERM, "F8 asking wants CAP_NET_ADMIN");
	is(as(no_ptrace, get_vm), 0, "F8 and that is enough for GET");
	is(as(root, see_addresses), CHILD_SLOTS, "F8 root is told where the VMM has its memory");
	is(as(no_ptrace, see_addresses), 0, "F8 who may not look there is not");
	is(as(root, join_events) + as(root, join_power), 0, "F8 root may listen");
	is(as(nobody, join_events), EPERM, "F8 nobody else hears events");
	is(as(nobody, join_power), EPERM, "F8 nor of the mains");
	is(as(no_ptrace, begin_stream), EPERM, "F8 guest memory wants CAP_SYS_PTRACE, too");
	is(as(no_ptrace, get_vcpu), EPERM, "F8 and so do registers");
	is(as(root, scan_one) + as(root, limit_it), 0, "F8 root may see what is written, and slow it");
	is(as(no_ptrace, scan_one), EPERM, "F8 that wants CAP_SYS_PTRACE");
	is(as(no_ptrace, limit_it), EPERM, "F8 and that does, too");
	err = as(new_user, get_vm);
	if (err == 101)
		tap_skip("F8 user namespaces are not allowed here");
	else
		is(err, EPERM, "F8 root of a user namespace may not ask");
	is(as(new_net, find_family), ENOENT, "F8 in another network namespace there is no such family");
	is(as(root, foreign_socket), EBADF, "F8 nor are pages sent there");
	close(spare);
}

int main(void)
{
	uint32_t events, power;
	int reg;

	if (system("modprobe redoubt_standby"))
		tap_bail("redoubt_standby does not load");
	ctl = gnl_socket(NULL);
	family = gnl_family(ctl, &events, &power);
	events_group = events;
	power_group = power;
	child_start(&child, DATA_BYTES, 1);
	child_start(&other, DATA_BYTES, 2);
	test_register();
	reg = child_register(&child, -1, &vm);
	if (!ok(reg >= 0, "F1 behind all that the VM can be registered"))
		return tap_end();
	test_twice(reg);
	test_requests();
	test_events(events, power);
	test_who();
	close(reg);
	/* A VMM that has gone before it is registered. */
	child_kill(&child);
	reg = dev();
	is(child_register(&child, reg, NULL) ? errno : 0, ESRCH, "F1 a VM whose memory has gone");
	close(reg);
	child_end(&child);
	child_end(&other);
	is(system("rmmod redoubt_standby"), 0, "F1 the module unloads");
	return tap_end();
}
