// SPDX-License-Identifier: GPL-2.0
/*
 * F1: the host's kernel panics. In the crash kernel all memory of a registered VM is found, page by page as it was, and its
 * vCPUs' registers: of one that ran, one that had halted, one whose VMM had not brought an I/O to its end.
 *
 *   test_panic DIR run|io CMD	in the host: starts a VM, writes down in DIR what it has, runs CMD, which loads a crash kernel, and
 *				panics. run: vCPU 0 spins; io: it has left for an I/O
 *   test_panic DIR stopped PID QMP CMD	likewise, of the VM of that QEMU, which is stopped: all that KVM's GETs say
 *   test_panic DIR check IMAGE	in the crash kernel: compares with what redoubt-crash image wrote to IMAGE
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <linux/redoubt_crash.h>
#include <linux/redoubt_standby.h>

#include "known.h"
#include "panic.h"
#include "tap.h"
#include "vmm.h"
#include "vmm_child.h"

#define DATA_BYTES	(8ul << 20)
#define NOTE_BYTES	10000
#define LIVE_BYTES	(2 * 4096)

static const char *image;

/* ---- before ----------------------------------------------------------------------- */

static void note_of(uint8_t *note)
{
	for (size_t i = 0; i < NOTE_BYTES; i++)
		note[i] = i * 7 + i / 251;
}

/* What the agent goes on writing to; shared, as it must be. */
static uint8_t *live;
static uint32_t live_bytes;

static int crash_set(int reg, uint64_t ranges, uint32_t nr, const void *note, uint32_t bytes)
{
	struct rdt_sb_crash c = { .ranges = ranges, .nr_ranges = nr, .note = (uintptr_t)note, .note_bytes = bytes,
				  .live = (uintptr_t)live, .live_bytes = live_bytes };

	return ioctl(reg, RDT_SB_CRASH, &c) ? errno : 0;
}

/* What the ioctl refuses; the record is whole all the same, which the crash kernel shows. */
static bool refusals(int reg)
{
	struct rdt_crash_range bad[] = { { 0, 0, 0 }, { 0, 1, 1 }, { 0, 1, 1ull << 60 }, { 0, 1ull << 50, 0 } };
	int dev = open("/dev/redoubt-standby", O_RDWR | O_CLOEXEC);
	bool good = crash_set(dev, 0, 0, NULL, 0) == ENXIO;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		good = good && crash_set(reg, (uintptr_t)&bad[i], 1, NULL, 0) == EINVAL;
	good = good && crash_set(reg, 8, 1, NULL, 0) == EFAULT && crash_set(reg, 0, 0, (void *)8, 4096) == EFAULT;
	good = good && crash_set(reg, 0, 513, NULL, 0) == EINVAL && crash_set(reg, 0, 0, NULL, 16 << 20 | 1) == EINVAL;
	close(dev);
	/* No whole pages, more than may be, and none of ours */
	live_bytes = 4095;
	good = good && crash_set(reg, 0, 0, NULL, 0) == EINVAL;
	live_bytes = (1 << 20) + 4096;
	good = good && crash_set(reg, 0, 0, NULL, 0) == EINVAL;
	live_bytes = 4096;
	live++;
	good = good && crash_set(reg, 0, 0, NULL, 0) == EINVAL;
	live = (void *)0x8000;		/* nothing is there */
	good = good && crash_set(reg, 0, 0, NULL, 0) == EFAULT;
	return good;
}

static void before(bool io, const char *cmd)
{
	static uint8_t note[NOTE_BYTES];
	struct rdt_crash_range ranges[CHILD_SLOTS];
	struct child c;
	int reg;

	child_start(&c, DATA_BYTES, 21);
	child_tell(&c, CHILD_LOCK);
	reg = child_register(&c, -1, NULL);
	if (reg < 0)
		tap_bail("registration: %s", strerror(errno));
	note_of(note);
	live = mmap(NULL, LIVE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (live == MAP_FAILED)
		tap_bail("mmap");
	for (int k = 0; k < CHILD_SLOTS; k++) {
		ranges[k].first = c.box->slot[k].gfn;
		ranges[k].count = c.box->slot[k].frames;
		ranges[k].hva = c.box->slot[k].hva;
	}
	/* More than once: the old one is freed. */
	for (int i = 0; i < 3; i++) {
		live_bytes = i == 1 ? 0 : LIVE_BYTES;
		if (crash_set(reg, (uintptr_t)ranges, i == 1 ? 0 : CHILD_SLOTS, note, NOTE_BYTES - (i < 2)))
			tap_bail("RDT_SB_CRASH");
	}
	/* Behind it: it is found as it is at the panic. */
	memset(live, 0x5b, LIVE_BYTES);
	put_file("refused", refusals(reg) ? "1" : "0", 1);
	io ? child_leave(&c) : child_run(&c);
	for (int k = 0; k < CHILD_SLOTS; k++)
		put_hashes(c.pid, c.box->slot[k].gfn, c.box->slot[k].frames, c.box->slot[k].hva);
	put_file("flags", c.box->flags, sizeof(c.box->flags));
	put_file("what", io ? "io" : "run", io ? 2 : 3);
	panic_now(cmd);
}

/* ---- after ------------------------------------------------------------------------ */

static const char *at_image(const char *name)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/%s", image, name);
	return path;
}

static size_t nr_msrs;		/* of the vCPU that is looked at */

static const void *item(int vcpu, const char *name, size_t at_least)
{
	size_t bytes = 0;
	char at[100];
	void *data;

	snprintf(at, sizeof(at), UUID_TEXT "/vcpu%d/%s", vcpu, name);
	data = get_file(at_image(at), &bytes);
	if (!strcmp(name, "MSRS"))
		nr_msrs = bytes / sizeof(struct kvm_msr_entry);
	if (data && bytes >= at_least)
		return data;
	ok(false, "F1 vCPU %d: %s is there: %zu bytes, at least %zu", vcpu, name, bytes, at_least);
	return NULL;
}

static bool msr_is(const struct kvm_msr_entry *e, uint32_t index, uint64_t value)
{
	for (size_t i = 0; i < nr_msrs; i++)
		if (e[i].index == index)
			return e[i].data == value;
	return false;
}

static void check_vcpu(int n)
{
	const struct kvm_debugregs *dr = item(n, "DEBUGREGS", sizeof(*dr));
	const struct kvm_mp_state *mp = item(n, "MP_STATE", sizeof(*mp));
	const struct kvm_vcpu_events *ev = item(n, "VCPU_EVENTS", sizeof(*ev));
	const struct kvm_sregs *s = item(n, "SREGS", sizeof(*s));
	const struct kvm_regs *r = item(n, "REGS", sizeof(*r));
	const struct kvm_xcrs *xcrs = item(n, "XCRS", sizeof(*xcrs));
	const struct kvm_msr_entry *msrs = item(n, "MSRS", 30 * sizeof(*msrs));
	const uint8_t *xsave = item(n, "XSAVE", 4096), *lapic = item(n, "LAPIC", 1024);
	const uint64_t *flags;
	size_t bytes;

	flags = get_file(in_dir("flags"), &bytes);
	if (!dr || !mp || !ev || !s || !r || !xcrs || !msrs || !xsave || !lapic || !flags)
		return;
	ok(r->rax == KNOWN_RAX && r->rbx == KNOWN_RBX && r->rcx == KNOWN_RCX && r->rdx == KNOWN_RDX && r->rsi == KNOWN_RSI &&
	   r->rbp == KNOWN_RBP && r->rdi == flags[n] && r->r8 == KNOWN_R(8) && r->r9 == KNOWN_R(9) && r->r10 == KNOWN_R(10) &&
	   r->r11 == KNOWN_R(11) && r->r12 == KNOWN_R(12) && r->r13 == KNOWN_R(13) && r->r14 == KNOWN_R(14) && r->r15 == KNOWN_R(15),
	   "F1 vCPU %d: all general registers", n);
	if (n)
		is(r->rip, (uintptr_t)known_halted, "F1 vCPU %d: RIP where it halted", n);
	else
		ok(r->rip >= (uintptr_t)known_spin && r->rip < (uintptr_t)known_spin_end, "F1 vCPU %d: RIP where it spins (%#llx)", n, r->rip);
	ok(s->cr3 == GUEST_PML4 && (s->cr0 & 0x80000001) == 0x80000001 && s->efer & 0x400 && s->cs.selector == SEL_CODE0 && s->cs.l &&
	   s->gdt.base == GUEST_GDT && s->idt.base == GUEST_IDT && s->tr.selector == SEL_TSS + 16 * n,
	   "F1 vCPU %d: control and segment registers", n);
	ok(!memcmp(xsave + 160, known_xmm, sizeof(known_xmm)), "F1 vCPU %d: XMM registers", n);
	ok(xsave[32 + 9] == 0x3f && xsave[32 + 8] == 0xff && xsave[32 + 7] == 0x80, "F1 vCPU %d: 1.0 on the x87 stack", n);
	is(dr->db[0], KNOWN_DR0, "F1 vCPU %d: DR0", n);
	is(mp->mp_state, n ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE, "F1 vCPU %d: %s", n, n ? "it has halted" : "it ran");
	ok(msr_is(msrs, 0xc0000102, KNOWN_KGS) && msr_is(msrs, 0xc0000081, KNOWN_STAR), "F1 vCPU %d: MSRs", n);
	ok(!ev->exception.injected && !ev->interrupt.injected && !ev->nmi.injected, "F1 vCPU %d: no event under way", n);
	is(lapic[0x23], n, "F1 vCPU %d: its APIC's number", n);
}

static bool said(const char *text, const char *what)
{
	return text && strstr(text, what);
}

static int vmcs_error(int dev, uint64_t address, uint32_t nr, uint32_t reserved)
{
	struct rdt_vmcs_field field = { .encoding = 0x6800 };
	struct rdt_vmcs_read r = { .address = address, .nr = nr, .reserved = reserved, .fields = (uintptr_t)&field };

	return ioctl(dev, RDT_VMCS_READ, &r) ? errno : 0;
}

/* The first of a kernel's own memory above 1 MB, in this kernel; and what the old one left, which is no VMCS. */
static void check_vmcs_refusals(void)
{
	int dev = open("/dev/redoubt-vmcs", O_RDWR | O_CLOEXEC);
	unsigned long long own = 0, first, root = 0;
	char line[4096];
	const char *at;
	FILE *f;

	if (dev < 0)
		return;		/* AMD */
	f = fopen("/proc/iomem", "r");
	while (f && !own && fgets(line, sizeof(line), f))
		if (sscanf(line, "%llx-%*x : System RAM", &first) == 1 && strstr(line, "System RAM") && first >= 1 << 20)
			own = first;
	if (f)
		fclose(f);
	f = fopen("/proc/cmdline", "r");
	if (f && fgets(line, sizeof(line), f) && (at = strstr(line, "redoubt.root=")))
		root = strtoull(at + 13, NULL, 16);
	if (f)
		fclose(f);
	own = (own + 4095) & ~4095ull;
	is(vmcs_error(dev, own, 1, 0), EPERM, "F3 a VMCS in the crash kernel's own memory (%#llx)", own);
	is(vmcs_error(dev, root, 1, 0), EBADMSG, "F3 what is no VMCS (%#llx)", root);
	ok(vmcs_error(dev, root + 8, 1, 0) == EINVAL && vmcs_error(dev, 1ull << 60, 1, 0) == EINVAL && vmcs_error(dev, root, 1, 1) == EINVAL &&
	   vmcs_error(dev, root, 0, 0) == E2BIG && vmcs_error(dev, root, RDT_VMCS_MAX_FIELDS + 1, 0) == E2BIG && ioctl(dev, 0) < 0 && errno == ENOTTY,
	   "F3 no page, no field, too many, and no such call");
	close(dev);
}

static void after(void)
{
	static uint8_t note[NOTE_BYTES];
	size_t bytes = 0;
	const char *what = get_file(in_dir("what"), &bytes), *log = get_file(at_image("log"), &bytes);
	const char *refused = get_file(in_dir("refused"), &bytes);
	const uint8_t *got;

	check_vmcs_refusals();
	check_memory(at_image(UUID_TEXT));
	if (what && !strcmp(what, "stopped")) {
		check_items(at_image(UUID_TEXT));
		goto out;
	}
	ok(refused && *refused == '1', "F1 what is no range, and no note, was refused");
	note_of(note);
	got = get_file(at_image(UUID_TEXT "/note"), &bytes);
	ok(got && bytes == NOTE_BYTES && !memcmp(got, note, bytes), "F1 the note, the last one of three");
	got = get_file(at_image(UUID_TEXT "/live"), &bytes);
	ok(got && bytes == LIVE_BYTES && got[0] == 0x5b && !memcmp(got, got + 1, bytes - 1), "F1 the live area, as it was at the panic");
	if (what && !strcmp(what, "io")) {
		ok(said(log, "vCPU 0 lost: an I/O of it was not complete"), "F3 a vCPU in the middle of an I/O is told to be lost");
	} else {
		check_vcpu(0);
		check_vcpu(1);
	}
out:
	if (log)
		tap_diag("%s", log);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		tap_bail("DIR run|io CMD; DIR stopped PID QMP CMD; DIR check IMAGE");
	panic_dir = argv[1];
	image = argv[3];
	if (!strcmp(argv[2], "stopped") && argc == 6)
		before_stopped(atoi(argv[3]), argv[4], argv[5]);
	else if (strcmp(argv[2], "check"))
		before(!strcmp(argv[2], "io"), argv[3]);
	after();
	return tap_end();
}
