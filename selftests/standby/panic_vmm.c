// SPDX-License-Identifier: GPL-2.0
/* A QEMU's VM that is stopped: what KVM's GETs say of it before the panic is what is to be found behind it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <linux/redoubt_standby.h>

#include "gnl.h"
#include "panic.h"
#include "tap.h"

#define MAX_VCPUS	8

static void qmp_stop(const char *path)
{
	static const char words[] = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"stop\"}\n";
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char said[4096];
	size_t n = 0;
	ssize_t got;

	strncpy(to.sun_path, path, sizeof(to.sun_path) - 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) || write(fd, words, sizeof(words) - 1) < 0)
		tap_bail("%s", path);
	do {
		got = read(fd, said + n, sizeof(said) - 1 - n);
		if (got <= 0)
			tap_bail("QMP: no word of a stop");
		n += got;
		said[n] = 0;
	} while (!strstr(said, "\"STOP\""));
	/* It stays open: QEMU is as it is. */
}

/* The VM's descriptor and its vCPUs', of another process */
static unsigned int take_vm(pid_t pid, int *vm, int *vcpus)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	unsigned int n = 0;
	char path[64], what[64];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	*vm = -1;
	while (d && (e = readdir(d))) {
		ssize_t len = readlinkat(dirfd(d), e->d_name, what, sizeof(what) - 1);
		bool is_vm, is_vcpu;

		if (len <= 0)
			continue;
		what[len] = 0;
		is_vm = !strcmp(what, "anon_inode:kvm-vm");
		is_vcpu = !strncmp(what, "anon_inode:kvm-vcpu:", 20);
		if (!is_vm && (!is_vcpu || n == MAX_VCPUS))
			continue;
		*(is_vm ? vm : &vcpus[n++]) = syscall(SYS_pidfd_getfd, pidfd, atoi(e->d_name), 0);
	}
	if (*vm < 0 || !n)
		tap_bail("process %d has no VM", pid);
	return n;
}

/* The items of a vCPU (@index below 0: of the VM) as files in @name */
static void put_items(int ctl, uint16_t family, uint32_t vm, int index, const char *name)
{
	static const uint32_t msrs[] = {
		0x3b, 0x48, 0x174, 0x175, 0x176, 0x17a, 0x17b, 0x1a0, 0x1d9, 0x277, 0x6e0, 0xda0, 0xc0000081, 0xc0000082, 0xc0000083,
		0xc0000084, 0xc0000102, 0xc0000103, 0xc001011f, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05,
		0x4b564d06,
	};
	static char buf[GNL_MAX];
	static struct gnl_msg msg;
	struct nlmsghdr *const reply = (void *)buf;
	const struct nlattr *a = NULL, *in[RDT_SB_I_MAX + 1];
	char path[64];
	int err;

	for (int tries = 0; tries < 100; tries++) {
		gnl_begin(&msg, family, RDT_SB_CMD_VCPU);
		gnl_u32(&msg, RDT_SB_A_VM, vm);
		if (index >= 0) {
			gnl_u32(&msg, RDT_SB_A_INDEX, index);
			gnl_put(&msg, RDT_SB_A_MSRS, msrs, sizeof(msrs));
		}
		err = gnl_call(ctl, &msg, reply);
		if (err != EBUSY)
			break;
		usleep(50000);
	}
	if (err)
		tap_bail("VCPU: error %d", err);
	mkdir(in_dir(name), 0700);
	while ((a = gnl_next(reply, RDT_SB_A_ITEM, a))) {
		gnl_parse(gnl_data(a), gnl_len(a), RDT_SB_I_MAX, in);
		if (!in[RDT_SB_I_NAME] || !in[RDT_SB_I_DATA])
			continue;
		snprintf(path, sizeof(path), "%s/%.20s", name, (const char *)gnl_data(in[RDT_SB_I_NAME]));
		put_file(path, gnl_data(in[RDT_SB_I_DATA]), gnl_len(in[RDT_SB_I_DATA]));
	}
}

_Noreturn void before_stopped(pid_t qemu, const char *qmp, const char *cmd)
{
	static char buf[GNL_MAX];
	static struct gnl_msg msg;
	struct nlmsghdr *const reply = (void *)buf;
	struct rdt_sb_register reg = { .uuid = UUID_BYTES };
	int vcpus[MAX_VCPUS], dev = open("/dev/redoubt-standby", O_RDWR | O_CLOEXEC), ctl = gnl_socket(NULL);
	const uint16_t family = gnl_family(ctl, NULL, NULL);
	struct rdt_sb_crash crash = {};
	const struct nlattr *a = NULL;

	reg.nr_vcpus = take_vm(qemu, &reg.vm_fd, vcpus);
	reg.vcpu_fds = (uintptr_t)vcpus;
	if (ioctl(dev, RDT_SB_REGISTER, &reg))
		tap_bail("registration: %s", strerror(errno));
	qmp_stop(qmp);
	/* The slots as they are now: the firmware is through with them. */
	if (ioctl(dev, RDT_SB_CRASH, &crash))
		tap_bail("RDT_SB_CRASH: %s", strerror(errno));
	for (unsigned int i = 0; i < reg.nr_vcpus; i++) {
		char name[16];

		snprintf(name, sizeof(name), "vcpu%u", i);
		put_items(ctl, family, reg.id, i, name);
	}
	put_items(ctl, family, reg.id, -1, "vm");
	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, reg.id);
	if (gnl_call(ctl, &msg, reply))
		tap_bail("GET");
	while ((a = gnl_next(reply, RDT_SB_A_SLOT, a))) {
		const struct rdt_sb_slot *s = gnl_data(a);

		put_hashes(qemu, s->gfn, s->frames, s->hva);
	}
	put_file("what", "stopped", 7);
	panic_now(cmd);
}

/* ---- after ------------------------------------------------------------------------ */

static void cut(uint8_t *data, size_t bytes, size_t from, size_t to)
{
	if (data && to <= bytes)
		memset(data + from, 0, to - from);
}

static void differences(const char *what, const uint8_t *want, const uint8_t *got, size_t bytes)
{
	int told = 0;

	for (size_t i = 0; i + 3 < bytes && told < 12; i += 4) {
		uint32_t w, g;

		memcpy(&w, want + i, 4);
		memcpy(&g, got + i, 4);
		if (w != g && told++ < 12)
			tap_diag("%s at %#zx: %#x, KVM said %#x", what, i, g, w);
	}
}

/* @place: where both have it, @at: where the image has it */
static void check_item(const char *at, const char *place, const char *name)
{
	size_t want_bytes = 0, got_bytes = 0;
	uint8_t *want, *got;
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", place, name);
	want = get_file(in_dir(path), &want_bytes);
	snprintf(path, sizeof(path), "%s/%s", at, name);
	got = get_file(path, &got_bytes);
	/* What the kernel's own software says there; and the timer's current count, of a clock that has stood still. */
	for (int i = 0; i < 2; i++) {
		uint8_t *const data = i ? got : want;
		const size_t bytes = i ? got_bytes : want_bytes;

		if (!strcmp(name, "XSAVE"))
			cut(data, bytes, 464, 512);
		if (!strcmp(name, "LAPIC"))
			cut(data, bytes, 0x390, 0x394);
	}
	if (!ok(want && got && want_bytes == got_bytes && !memcmp(want, got, got_bytes),
		"F1 %s: %s is what KVM_GET_%.7s gave (%zu bytes)", place, name, name, want_bytes) && want && got)
		differences(name, want, got, want_bytes < got_bytes ? want_bytes : got_bytes);
	free(want);
	free(got);
}

static void check_msrs(const char *image, unsigned int vcpu)
{
	const struct kvm_msr_entry *want, *got;
	size_t want_bytes = 0, got_bytes = 0, same = 0, i, k;
	char path[300];

	snprintf(path, sizeof(path), "vcpu%u/MSRS", vcpu);
	want = get_file(in_dir(path), &want_bytes);
	snprintf(path, sizeof(path), "%s/vcpu%u/MSRS", image, vcpu);
	got = get_file(path, &got_bytes);
	for (i = 0; i < want_bytes / sizeof(*want); i++) {
		for (k = 0; k < got_bytes / sizeof(*got) && got[k].index != want[i].index; k++)
			;
		if (k < got_bytes / sizeof(*got) && got[k].data == want[i].data)
			same++;
		else
			tap_diag("MSR %#x: %#llx, KVM said %#llx", want[i].index,
				 k < got_bytes / sizeof(*got) ? (unsigned long long)got[k].data : 0ull, (unsigned long long)want[i].data);
	}
	ok(want_bytes > 15 * sizeof(*want) && same == want_bytes / sizeof(*want), "F1 vCPU %u: %zu MSRs are what KVM_GET_MSRS gave", vcpu, same);
}

/* It goes on while the VM is stopped, until the host is. */
static void check_clock(const char *image)
{
	const struct kvm_clock_data *want, *got;
	size_t want_bytes = 0, got_bytes = 0;
	char path[300];

	want = get_file(in_dir("vm/CLOCK"), &want_bytes);
	snprintf(path, sizeof(path), "%s/CLOCK", image);
	got = get_file(path, &got_bytes);
	if (!ok(want && got && got->clock >= want->clock && got->clock - want->clock < 60000000000ull,
		"F1 vm: its clock, as far as it went until the host stopped") && want && got)
		tap_diag("%llu ns, KVM said %llu before", (unsigned long long)got->clock, (unsigned long long)want->clock);
}

void check_items(const char *image)
{
	static const char *const devices[] = { "IRQCHIP0", "IRQCHIP1", "IRQCHIP2", "PIT2" };
	static const char *const names[] = {
		"REGS", "SREGS", "XSAVE", "XCRS", "LAPIC", "MP_STATE", "VCPU_EVENTS", "DEBUGREGS", "TSC_KHZ", "TSC_OFFSET",
	};
	char dir[16], at[300];
	unsigned int n = 0;

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
		check_item(image, "vm", devices[i]);
	check_clock(image);
	for (; snprintf(dir, sizeof(dir), "vcpu%u", n), !access(in_dir(dir), F_OK); n++) {
		snprintf(at, sizeof(at), "%s/%s", image, dir);
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			check_item(at, dir, names[i]);
		check_msrs(image, n);
	}
	ok(n > 0, "F1 %u vCPUs", n);
}
