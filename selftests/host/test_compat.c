// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/redoubt as a 32-bit program meets it: each request through int $0x80, the
 * kernel's compat entry, which needs no 32-bit libc.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "uapi_layout.h"
#include "vmm.h"

#define RAM		(32ul << 20)
#define TARGET		GUEST_FREE
#define NODES		(GUEST_FREE + 0x10000)

#define SYS32_GETPID	20
#define SYS32_IOCTL	54

/* Where a 32-bit program has its data. */
static void *low;

static long call32(unsigned long nr, unsigned long a, unsigned long b, unsigned long c)
{
	long ret;

	asm volatile("int $0x80"
		     : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c)
		     : "r8", "r9", "r10", "r11", "memory");
	return (int)ret;
}

/* The structure goes and comes back through the low page; 0 or -errno. */
static long ioctl32(int fd, unsigned long request, void *arg)
{
	long ret;

	memcpy(low, arg, _IOC_SIZE(request));
	ret = call32(SYS32_IOCTL, fd, request, (unsigned long)low);
	memcpy(arg, low, _IOC_SIZE(request));
	return ret;
}

static void test_device(int dev)
{
	struct rdt_info info, plain;
	struct rdt_policy p, old;

	is(ioctl32(dev, RDT_INFO, &info), 0, "uapi compat info");
	is(ioctl(dev, RDT_INFO, &plain), 0, "uapi info");
	ok(!memcmp(&info, &plain, sizeof(info)), "uapi compat info is the same");
	is(ioctl32(dev, RDT_GET_POLICY, &old), 0, "uapi compat get policy");
	p = old;
	p.flags ^= RDT_POLICY_SELF_ATTACH;
	is(ioctl32(dev, RDT_SET_POLICY, &p), 0, "uapi compat set policy");
	is((ioctl(dev, RDT_GET_POLICY, &p), p.flags), old.flags ^ RDT_POLICY_SELF_ATTACH,
	   "uapi compat the policy is set");
	is(ioctl32(dev, RDT_SET_POLICY, &old), 0, "uapi compat set policy back");

	is(ioctl32(dev, _IO(RDT_IOC, 0x77), &p), -ENOTTY, "uapi compat unknown request");
	is(ioctl32(dev, RDT_VM_INFO, (char [sizeof(struct rdt_vm_info)]){ 0 }), -ENOTTY,
	   "uapi compat a VM's request on the device");
	is(call32(SYS32_IOCTL, dev, RDT_INFO, 0x10), -EFAULT, "uapi compat bad pointer");
	/* A pointer has 32 bits: what does not fit is cut off, not followed. */
	is(call32(SYS32_IOCTL, dev, RDT_INFO, (unsigned long)low | 1ul << 40), 0,
	   "uapi compat bits beyond 32 of a pointer do not count");
	p = (struct rdt_policy){ .flags = 2 };
	is(ioctl32(dev, RDT_SET_POLICY, &p), -EINVAL, "uapi compat unknown flags");
}

static void test_vm(int dev)
{
	struct vm *vm = vm_create(RAM, 1, 0);
	struct vcpu *v = &vm->vcpu[0];
	struct rdt_list_entry *entry = low + 2048;
	struct rdt_region *region = low + 2048;
	struct rdt_attach a = { .vm_fd = vm->fd };
	struct rdt_list list = { .nr = 4, .entries = (uintptr_t)entry };
	struct rdt_regions regions = { .nr = 4, .entries = (uintptr_t)region };
	struct rdt_protect p = { .gpa = TARGET, .pages = 2, .action = RDT_ACT_DENY, .cls = 5 };
	struct rdt_vm_info info, plain;
	struct rdt_open o = { 0 };
	struct rdt_event ev;
	struct rdt *r;
	uint64_t seq;
	bool found = false;

	is(ioctl32(dev, RDT_ATTACH, &(struct rdt_attach){ .vm_fd = vm->fd, .flags = 1 }), -EINVAL,
	   "uapi compat attach with a flag");
	is(ioctl32(dev, RDT_ATTACH, &a), 0, "uapi compat attach");
	is(ioctl32(dev, RDT_ATTACH, &(struct rdt_attach){ .vm_fd = vm->fd }), -EEXIST,
	   "uapi compat attach twice");
	is(ioctl32(dev, RDT_LIST, &list), 0, "uapi compat list");
	ok(list.nr == 1 && entry->vm_id == a.vm_id && entry->vmm_pid == getpid(),
	   "uapi compat the list names VM and VMM");
	o.vm_id = a.vm_id;
	is(ioctl32(dev, RDT_OPEN, &o), 0, "uapi compat open");
	r = rdt_wrap(a.fd, a.vm_id);

	vcpu_call(v, g_node_add, NODES, 1);
	is(ioctl32(o.fd, RDT_VM_PROTECT, &p), 0, "uapi compat protect");
	is(ioctl32(o.fd, RDT_VM_PROTECT, &(struct rdt_protect){ .gpa = 1, .pages = 1, .action = 2 }), -EINVAL,
	   "uapi compat protect, unaligned");
	is(vcpu_call(v, g_store, TARGET + PAGE_SIZE, 7), 13, "A3 compat what it protects is denied");
	is(vm_u64(vm, TARGET + PAGE_SIZE), 0, "A3 compat and unchanged");
	ok(rdt_find(r, RDT_EV_WRITE, &ev) && ev.gpa == TARGET + PAGE_SIZE && ev.cls == 5,
	   "A11 compat and an event");

	is(ioctl32(o.fd, RDT_VM_REGIONS, &regions), 0, "uapi compat regions");
	for (unsigned int i = 0; i < regions.nr && i < 4; i++)
		found |= region[i].gpa == TARGET && region[i].pages == 2 && region[i].cls == 5;
	ok(found, "uapi compat regions has the range");
	is(ioctl32(o.fd, RDT_VM_INFO, &info), 0, "uapi compat vm info");
	is(ioctl(o.fd, RDT_VM_INFO, &plain), 0, "uapi vm info");
	ok(!memcmp(&info, &plain, sizeof(info)), "uapi compat vm info is the same");
	seq = info.events + 1;
	is(ioctl32(o.fd, RDT_VM_SEEN, &seq), -EINVAL, "uapi compat seen, what is to come");
	seq = info.events;
	is(ioctl32(o.fd, RDT_VM_SEEN, &seq), 0, "uapi compat seen");
	is(poll(&(struct pollfd){ .fd = o.fd, .events = POLLIN }, 1, 0), 0,
	   "uapi compat nothing is left to see");

	is(call32(SYS32_IOCTL, o.fd, RDT_VM_DETACH, 2), -EINVAL, "uapi compat detach with an unknown flag");
	is(call32(SYS32_IOCTL, o.fd, RDT_VM_DETACH, 0), 0, "uapi compat detach");
	is(vcpu_call(v, g_store, TARGET, 0x77), -1, "uapi compat after that the guest writes");
	is(ioctl32(o.fd, RDT_VM_PROTECT, &p), -ENODEV, "uapi compat protect after that");
	close(o.fd);
	rdt_close(r);
	vm_destroy(vm);
}

int main(void)
{
	int dev;

	kvm_dev();
	dev = rdt_dev();
	low = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (low == MAP_FAILED)
		tap_bail("mmap below 4 GiB");
	if (call32(SYS32_GETPID, 0, 0, 0) != getpid()) {
		tap_skip("this kernel runs no 32-bit programs");
		return tap_end();
	}
	test_device(dev);
	test_vm(dev);
	return tap_end();
}
