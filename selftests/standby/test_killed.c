// SPDX-License-Identifier: GPL-2.0
/*
 * F1: a VMM is killed. Its VM's memory is still there, page by page, and its vCPUs' registers come out: one was running,
 * one had halted. Nothing is left behind when the registration ends.
 *
 *   test_killed [KILLS]		besides the first, at moments of their own
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "image.h"
#include "known.h"
#include "tap.h"
#include "vmm.h"
#include "vmm_child.h"

#define DATA_BYTES	(8ul << 20)

static int ctl;
static uint16_t family;
static uint32_t events;
static struct gnl_msg msg;
static char reply_buf[GNL_MAX];
static struct nlmsghdr *const reply = (void *)reply_buf;

/* ---- items of VCPU's answer -------------------------------------------------------- */

/* Its data; NULL: it is not there, or is an error (*@err). */
static const void *item(const char *name, size_t *bytes, int *err)
{
	const struct nlattr *a = NULL, *in[RDT_SB_I_MAX + 1];

	*err = 0;
	while ((a = gnl_next(reply, RDT_SB_A_ITEM, a))) {
		gnl_parse(gnl_data(a), gnl_len(a), RDT_SB_I_MAX, in);
		if (!in[RDT_SB_I_NAME] || strcmp(gnl_data(in[RDT_SB_I_NAME]), name))
			continue;
		*err = gnl_num(in[RDT_SB_I_ERROR]);
		if (!in[RDT_SB_I_DATA])
			return NULL;
		*bytes = gnl_len(in[RDT_SB_I_DATA]);
		return gnl_data(in[RDT_SB_I_DATA]);
	}
	return NULL;
}

static const void *must_item(const char *name, size_t at_least)
{
	size_t bytes = 0;
	int err;
	const void *data = item(name, &bytes, &err);

	if (data && bytes >= at_least)
		return data;
	ok(false, "F1 %s is in the answer: %zu bytes, at least %zu, error %d", name, bytes, at_least, err);
	return NULL;
}

static int ask(uint32_t vm, int index, const uint32_t *msrs, uint32_t nr)
{
	gnl_begin(&msg, family, RDT_SB_CMD_VCPU);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	if (index >= 0)
		gnl_u32(&msg, RDT_SB_A_INDEX, index);
	if (nr)
		gnl_put(&msg, RDT_SB_A_MSRS, msrs, nr * 4);
	return gnl_call(ctl, &msg, reply);
}

/* All that KVM says a VMM must save, and one that there is not, in the middle. */
static uint32_t msr_list(uint32_t *out)
{
	static struct {
		struct kvm_msr_list head;
		uint32_t index[1024];
	} list = { .head.nmsrs = 1024 };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	uint32_t nr = 0;

	if (kvm < 0 || ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &list))
		tap_bail("KVM_GET_MSR_INDEX_LIST");
	close(kvm);
	for (uint32_t i = 0; i < list.head.nmsrs && nr < RDT_SB_MAX_MSRS - 1; i++) {
		if (i == list.head.nmsrs / 2)
			out[nr++] = 0x12345;
		out[nr++] = list.index[i];
	}
	return nr;
}

static bool msr_is(const struct kvm_msr_entry *e, size_t nr, uint32_t index, uint64_t value)
{
	for (size_t i = 0; i < nr; i++)
		if (e[i].index == index)
			return e[i].data == value;
	return false;
}

static void check_regs(int n, const struct child *c, bool quiet)
{
	const struct kvm_regs *r = must_item("REGS", sizeof(*r));
	bool good;

	if (!r)
		return;
	good = r->rax == KNOWN_RAX && r->rbx == KNOWN_RBX && r->rcx == KNOWN_RCX && r->rdx == KNOWN_RDX &&
	       r->rsi == KNOWN_RSI && r->rbp == KNOWN_RBP && r->rdi == c->box->flags[n] &&
	       r->r8 == KNOWN_R(8) && r->r9 == KNOWN_R(9) && r->r10 == KNOWN_R(10) && r->r11 == KNOWN_R(11) &&
	       r->r12 == KNOWN_R(12) && r->r13 == KNOWN_R(13) && r->r14 == KNOWN_R(14) && r->r15 == KNOWN_R(15);
	if (n == 0)
		good = good && r->rip >= (uintptr_t)known_spin && r->rip < (uintptr_t)known_spin_end;
	else
		good = good && r->rip == (uintptr_t)known_halted;
	if (!quiet || !good)
		ok(good, "F1 vCPU %d: all general registers, RIP where it %s (%#llx)", n, n ? "halted" : "spins", r->rip);
}

static void check_vcpu(int n, uint32_t vm, const struct child *c)
{
	static uint32_t msrs[RDT_SB_MAX_MSRS];
	const uint32_t nr = msr_list(msrs);
	const struct kvm_debugregs *dr;
	const struct kvm_mp_state *mp;
	const struct kvm_sregs *s;
	const uint8_t *xsave;
	const void *e;
	size_t bytes = 0;
	int err;

	if (!is(ask(vm, n, msrs, nr), 0, "F1 vCPU %d: its state can be had", n))
		return;
	check_regs(n, c, false);
	s = must_item("SREGS", sizeof(*s));
	if (s)
		ok(s->cr3 == GUEST_PML4 && (s->cr0 & 0x80000001) == 0x80000001 && s->efer & 0x400 && s->cs.selector == SEL_CODE0 &&
		   s->gdt.base == GUEST_GDT && s->idt.base == GUEST_IDT && s->tr.selector == SEL_TSS + 16 * n,
		   "F1 vCPU %d: control and segment registers", n);
	xsave = must_item("XSAVE", 4096);
	if (xsave)
		ok(!memcmp(xsave + 160, known_xmm, sizeof(known_xmm)) && xsave[32 + 9] == 0x3f && xsave[32 + 8] == 0xff &&
		   xsave[32 + 7] == 0x80, "F1 vCPU %d: XMM registers, and 1.0 on the x87 stack", n);
	dr = must_item("DEBUGREGS", sizeof(*dr));
	if (dr)
		is(dr->db[0], KNOWN_DR0, "F1 vCPU %d: DR0", n);
	mp = must_item("MP_STATE", sizeof(*mp));
	if (mp)
		is(mp->mp_state, n ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE, "F1 vCPU %d: %s", n, n ? "it has halted" : "it ran");
	e = item("MSRS", &bytes, &err);
	ok(e && bytes / sizeof(struct kvm_msr_entry) > nr / 2 && bytes / sizeof(struct kvm_msr_entry) < nr &&
	   msr_is(e, bytes / sizeof(struct kvm_msr_entry), 0xc0000102, KNOWN_KGS) &&
	   msr_is(e, bytes / sizeof(struct kvm_msr_entry), 0xc0000081, KNOWN_STAR) &&
	   !msr_is(e, bytes / sizeof(struct kvm_msr_entry), 0x12345, 0),
	   "F1 vCPU %d: %zu of %u MSRs, those that are known; one that there is not is left out", n,
	   bytes / sizeof(struct kvm_msr_entry), nr);
	ok(must_item("LAPIC", 1024) && must_item("VCPU_EVENTS", sizeof(struct kvm_vcpu_events)) && must_item("SREGS2", 1) &&
	   must_item("TSC_KHZ", 4) && must_item("TSC_OFFSET", 8) && must_item("CPUID2", sizeof(struct kvm_cpuid_entry2)),
	   "F1 vCPU %d: LAPIC, events, SREGS2, TSC and CPUID", n);
	e = must_item("PENDING_IO", 4);
	if (e)
		is(*(const uint32_t *)e, 0, "F1 vCPU %d: no I/O under way", n);
	ok(item("NESTED_STATE", &bytes, &err) || err, "F1 vCPU %d: nested state, or that there is none", n);
}

/* ---- what is left behind -------------------------------------------------------------- */

/* By its own VMM: KVM's directories are named "PID-FD". Another's may come and go, and a test's before this one. */
static int vms_of(pid_t vmm)
{
	DIR *d = opendir("/sys/kernel/debug/kvm");
	struct dirent *e;
	int n = 0, pid;

	while (d && (e = readdir(d)))
		n += e->d_type == DT_DIR && sscanf(e->d_name, "%d-", &pid) == 1 && pid == vmm;
	if (d)
		closedir(d);
	return d ? n : -1;
}

static long meminfo(const char *key)
{
	char line[128];
	long kib = 0;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			kib = atol(line + strlen(key) + 1);
	if (f)
		fclose(f);
	return kib;
}

/* Of private memory, that a VMM's is: freed with its address space only. */
static bool anon_below(long kib)
{
	for (int i = 0; i < 100; i++) {
		if (meminfo("AnonPages") < kib)
			return true;
		usleep(100000);
	}
	return false;
}

static bool no_vm_left(pid_t vmm)
{
	for (int i = 0; i < 1000; i++) {
		if (!vms_of(vmm))
			return true;
		usleep(10000);
	}
	return false;
}

static int get_orphan(uint32_t vm)
{
	struct gnl_attrs at;

	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	if (gnl_call(ctl, &msg, reply))
		return -1;
	gnl_attrs(reply, &at);
	return at.a[RDT_SB_A_ORPHAN] ? (int)gnl_num(at.a[RDT_SB_A_ORPHAN]) : -1;
}

static int stream_all(uint32_t vm, int fd)
{
	gnl_begin(&msg, family, RDT_SB_CMD_STREAM);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, 1);
	gnl_u32(&msg, RDT_SB_A_DATA_FD, fd);
	return gnl_call(ctl, &msg, NULL);
}

static void *room(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		tap_bail("memory");
	return p;
}

static void read_all(struct child *c, uint8_t **ref)
{
	for (int i = 0; i < CHILD_SLOTS; i++)
		child_read(c, i, ref[i]);
}

static bool image_of(struct child *c, uint32_t vm, uint8_t **ref, const char *what)
{
	struct image im;
	bool good;
	int fd = gnl_socket(NULL), err;

	gnl_bufsize(fd, 4 << 20);
	image_init(&im, RDT_SB_SPACE_GFN, vm, 1);
	for (int i = 0; i < CHILD_SLOTS; i++)
		image_area(&im, i, c->box->slot[i].gfn, c->box->slot[i].frames);
	err = stream_all(vm, fd);
	good = !err && image_receive(&im, fd, 20000) && !im.bad && !im.holes && !im.lost &&
	       !image_differs(&im, 0, ref[0]) && !image_differs(&im, 1, ref[1]);
	if (!good)
		tap_diag("%s: error %d, %lu frames differ in RAM, %lu in DATA, %lu lost", what, err,
			 (unsigned long)image_differs(&im, 0, ref[0]), (unsigned long)image_differs(&im, 1, ref[1]),
			 (unsigned long)im.lost);
	image_free(&im);
	close(fd);
	return good;
}

/* Once, everything. */
static void test_once(uint8_t **ref)
{
	struct child c;
	uint32_t vm;
	size_t bytes;
	pid_t vmm;
	int reg, err;

	child_start(&c, DATA_BYTES, 7);
	vmm = c.pid;
	reg = child_register(&c, -1, &vm);
	ok(reg >= 0, "F1 a VM of two vCPUs is registered");
	is(get_orphan(vm), 0, "F1 its VMM lives");
	child_run(&c);
	is(ask(vm, 0, NULL, 0), EBUSY, "F1 a vCPU that runs is not waited for");
	read_all(&c, ref);
	child_kill(&c);
	is(get_orphan(vm), 1, "F1 killed: no process has the memory");
	ok(image_of(&c, vm, ref, "after the kill"), "F1 all memory is there, equal page by page to before");
	for (int i = 0; i < CHILD_VCPUS; i++)
		check_vcpu(i, vm, &c);
	is(ask(vm, -1, NULL, 0), 0, "F1 what the VM has besides");
	ok(must_item("IRQCHIP0", sizeof(struct kvm_irqchip)) && must_item("IRQCHIP1", sizeof(struct kvm_irqchip)) &&
	   must_item("IRQCHIP2", sizeof(struct kvm_irqchip)) && must_item("CLOCK", sizeof(struct kvm_clock_data)),
	   "F1 both PICs, the IOAPIC and the clock");
	ok(!item("PIT2", &bytes, &err) && err == ENXIO, "F1 KVM says that it has no PIT");
	ok(image_of(&c, vm, ref, "after the GETs") == false, "F1 a second stream of the same number is refused");
	is(vms_of(vmm), 1, "F1 the VM is held");
	child_end(&c);		/* our copies, too */
	is(vms_of(vmm), 1, "F1 by the registration alone");
	close(reg);
	ok(no_vm_left(vmm), "F1 and goes with it");
}

/* A VMM that is killed while it serves an I/O. */
static void test_pending(void)
{
	struct child c;
	const void *e;
	uint32_t vm;
	pid_t vmm;
	int reg;

	child_start(&c, DATA_BYTES, 9);
	vmm = c.pid;
	reg = child_register(&c, -1, &vm);
	child_leave(&c);
	is(ask(vm, 0, NULL, 0), 0, "F1 a living VMM's vCPU that is stopped can be asked");
	child_kill(&c);
	is(ask(vm, 0, NULL, 0), 0, "F1 and when it is killed");
	e = must_item("PENDING_IO", 4);
	if (e)
		is(*(const uint32_t *)e, 1, "F1 an I/O that nobody completed is told");
	is(ask(vm, 1, NULL, 0), 0, "F1 the other vCPU");
	e = must_item("PENDING_IO", 4);
	if (e)
		is(*(const uint32_t *)e, 0, "F1 has none");
	child_end(&c);
	close(reg);
	ok(no_vm_left(vmm), "F1 it goes with its registration, too");
}

/* Streams of this VM that were told to be lost. */
static int lost_events(int ev, uint32_t vm)
{
	static char buf[GNL_MAX];
	struct gnl_attrs at;
	int n = 0;

	while (gnl_recv(ev, buf, sizeof(buf), 0) > 0) {
		gnl_attrs((void *)buf, &at);
		n += gnl_num(at.a[RDT_SB_A_EVENT]) == RDT_SB_EVENT_STREAM_LOST && gnl_num(at.a[RDT_SB_A_VM]) == vm;
	}
	return n;
}

/* Killed at moments of their own, a stream under way; every other time the registration ends under the stream, too. */
static void test_often(int kills, uint8_t **ref)
{
	const long anon = meminfo("AnonPages");
	int good = 0, lost = 0, left = 0, ev = gnl_socket(NULL), k;

	srand48(kills);
	gnl_join(ev, events);
	for (k = 0; k < kills; k++) {
		struct child c;
		struct image im;
		uint32_t vm;
		int fd = gnl_socket(NULL), reg;
		pid_t vmm;
		bool fine;

		gnl_bufsize(fd, 256 << 10);
		child_start(&c, DATA_BYTES, 100 + k);
		vmm = c.pid;
		reg = child_register(&c, -1, &vm);
		child_run(&c);
		read_all(&c, ref);
		image_init(&im, RDT_SB_SPACE_GFN, vm, 1);
		for (int i = 0; i < CHILD_SLOTS; i++)
			image_area(&im, i, c.box->slot[i].gfn, c.box->slot[i].frames);
		fine = reg >= 0 && !stream_all(vm, fd);
		/* Some of it, by the VMM alive; then the kill. */
		image_receive(&im, fd, 0);
		usleep(lrand48() % 20000);
		child_kill(&c);
		if (k % 2) {
			close(reg);
			reg = -1;
			lost += lost_events(ev, vm);
		} else {
			fine = fine && (im.ended || image_receive(&im, fd, 20000)) && !im.bad && !im.holes && !im.lost &&
			       !image_differs(&im, 0, ref[0]) && !image_differs(&im, 1, ref[1]);
			fine = fine && !ask(vm, 0, NULL, 0);
			check_regs(0, &c, true);
			fine = fine && !ask(vm, 1, NULL, 0);
			check_regs(1, &c, true);
		}
		good += fine;
		image_free(&im);
		child_end(&c);
		close(fd);
		if (reg >= 0)
			close(reg);
		left += !no_vm_left(vmm);
	}
	is(good, kills, "F1 %d kills with a stream under way: memory and registers each time, or a clean end", kills);
	is(lost, 0, "F7 no stream was told to be lost that was closed");
	close(ev);
	is(left, 0, "F1 no VM is left behind");
	/* A VMM's memory alone is RAM_BYTES + DATA_BYTES, three quarters of it touched. */
	ok(anon_below(anon + 8192), "F1 nor its memory: %ld KiB before, %ld after", anon, meminfo("AnonPages"));
}

static void write_file(const char *path, const char *what)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, what, strlen(what)) < 0)
		tap_bail("%s", path);
	close(fd);
}

/*
 * Killed by the OOM killer, which takes what private memory a process has, even if somebody holds it: ours is. What is
 * not there any more must be told to be lost; read as zeroes it would be a VM with holes.
 */
static void test_oom(uint8_t **ref)
{
	uint64_t wrong = 0;
	struct child c;
	struct image im;
	char path[64], level[64] = "";
	uint32_t vm;
	int fd = gnl_socket(NULL), printk = open("/proc/sys/kernel/printk", O_RDWR | O_CLOEXEC), reg;

	child_start(&c, DATA_BYTES, 8);
	reg = child_register(&c, -1, &vm);
	child_run(&c);
	read_all(&c, ref);
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", c.pid);
	write_file(path, "1000");
	/* It prints a stack, of which the lab would think that something is broken. */
	if (read(printk, level, sizeof(level) - 1) <= 0 || pwrite(printk, "1", 1, 0) != 1)
		tap_bail("the console's level");
	write_file("/proc/sysrq-trigger", "f");
	sleep(1);
	child_kill(&c);		/* it is dying */
	sleep(4);		/* the reaper gives it two seconds to do it itself */
	if (pwrite(printk, level, strlen(level), 0) < 0)
		tap_bail("the console's level");
	close(printk);

	gnl_bufsize(fd, 4 << 20);
	image_init(&im, RDT_SB_SPACE_GFN, vm, 1);
	for (int i = 0; i < CHILD_SLOTS; i++)
		image_area(&im, i, c.box->slot[i].gfn, c.box->slot[i].frames);
	ok(!stream_all(vm, fd) && image_receive(&im, fd, 20000) && !im.bad && !im.holes, "F1 killed for want of memory: streamed");
	for (int k = 0; k < CHILD_SLOTS; k++)
		for (uint64_t i = 0; i < im.area[k].frames; i++)
			wrong += im.area[k].have[i] != HAVE_LOST &&
				 memcmp(im.area[k].bytes + i * PAGE_SIZE, ref[k] + i * PAGE_SIZE, PAGE_SIZE);
	ok(im.lost, "F1 its private memory is taken: %lu frames are told to be lost", (unsigned long)im.lost);
	is(wrong, 0, "F3 none is told to be what it was not");
	is(ask(vm, 0, NULL, 0), 0, "F1 registers can be had even so");
	check_regs(0, &c, false);
	image_free(&im);
	child_end(&c);
	close(fd);
	close(reg);
}

int main(int argc, char **argv)
{
	uint8_t *ref[CHILD_SLOTS] = { room(RAM_BYTES), room(DATA_BYTES) };

	if (system("modprobe redoubt_standby"))
		tap_bail("redoubt_standby does not load");
	ctl = gnl_socket(NULL);
	family = gnl_family(ctl, &events, NULL);
	test_once(ref);
	test_oom(ref);
	test_pending();
	test_often(argc > 1 ? atoi(argv[1]) : 4, ref);
	is(system("rmmod redoubt_standby"), 0, "F1 the module unloads");
	return tap_end();
}
