// SPDX-License-Identifier: GPL-2.0
/*
 * F5, F6: which pages were written since the last look, by the guest or by its VMM (SCAN). The oracle is a copy that is
 * kept up by what SCAN tells, and compared in full. This process is the VMM.
 *
 *     test_dirty [MEGABYTES [ROUNDS]]
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "gnl.h"
#include "layout.h"
#include "tap.h"
#include "vmm.h"

#define DATA_GPA	0x10000000ul	/* inside of what the guest's page tables map */
#define MOST_MB		64

static int ctl, dev, pagemap, refs;
static uint16_t family;
static struct gnl_msg msg;
static struct vm *vm;
static uint32_t id;
static uint8_t *data, *copy;
static uint64_t pages;
static uint8_t *dirty;			/* a byte a page */

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

/* ---- the guest ----------------------------------------------------------------- */

enum { BY_NOBODY, BY_GUEST, BY_VMM, READ_GUEST, READ_VMM, BY_READ, BY_BOTH, KINDS };

static inline uint64_t mix(uint64_t x)
{
	x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 33;
}
/* What happens to a page in a round; both sides know it. */
static inline unsigned int kind(uint64_t page, uint64_t round)
{
	return mix(page * 977 + round) % KINDS;
}

static uint64_t g_round(uint64_t base, uint64_t nr, uint64_t round)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr; i++) {
		volatile uint64_t *p = (void *)(base + i * PAGE_SIZE);
		const unsigned int k = kind(i, round);

		if (k == BY_GUEST || k == BY_BOTH)
			p[mix(i) % 512] = round << 32 | i;
		else if (k == READ_GUEST)
			sum += p[0];
	}
	return sum;
}

/* For ever, here and there, until *@stop. */
static void g_write(uint64_t base, uint64_t nr, volatile uint64_t *stop)
{
	for (uint64_t n = 1; !*stop; n++)
		((volatile uint64_t *)(base + mix(n) % nr * PAGE_SIZE))[n % 512] = n;
}

static uint64_t g_sum(uint64_t base, uint64_t nr)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr; i++)
		sum += *(volatile uint64_t *)(base + i * PAGE_SIZE);
	return sum;
}

static void g_fill(uint64_t base, uint64_t nr, uint64_t value)
{
	for (uint64_t i = 0; i < nr; i++)
		*(volatile uint64_t *)(base + i * PAGE_SIZE) = value + i;
}

/* ---- the scan ------------------------------------------------------------------- */

static int scan_some(uint64_t first, uint32_t frames, struct nlmsghdr *reply)
{
	gnl_begin(&msg, family, RDT_SB_CMD_SCAN);
	gnl_u32(&msg, RDT_SB_A_VM, id);
	gnl_u64(&msg, RDT_SB_A_FIRST, first);
	gnl_u32(&msg, RDT_SB_A_FRAMES, frames);
	return gnl_call(ctl, &msg, reply);
}

/* All of DATA; how many pages are dirty. */
static uint64_t scan(void)
{
	static char buf[GNL_MAX];
	struct nlmsghdr *reply = (void *)buf;
	struct gnl_attrs a;
	uint64_t count = 0;

	for (uint64_t at = 0; at < pages;) {
		const uint64_t first = (uintptr_t)data / PAGE_SIZE + at;
		uint64_t done;

		if (scan_some(first, pages - at, reply))
			tap_bail("SCAN");
		gnl_attrs(reply, &a);
		done = gnl_num(a.a[RDT_SB_A_FRAMES]);
		if (gnl_num(a.a[RDT_SB_A_FIRST]) != first || !done || done > pages - at ||
		    gnl_len(a.a[RDT_SB_A_DIRTY]) != (done + 7) / 8)
			tap_bail("SCAN's answer");
		for (uint64_t i = 0; i < done; i++) {
			dirty[at + i] = ((const uint8_t *)gnl_data(a.a[RDT_SB_A_DIRTY]))[i / 8] >> i % 8 & 1;
			count += dirty[at + i];
		}
		at += done;
	}
	return count;
}

/* Only what the scan has told. */
static void copy_dirty(void)
{
	for (uint64_t i = 0; i < pages; i++)
		if (dirty[i])
			memcpy(copy + i * PAGE_SIZE, data + i * PAGE_SIZE, PAGE_SIZE);
}

static uint64_t differ(void)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pages; i++)
		n += !!memcmp(copy + i * PAGE_SIZE, data + i * PAGE_SIZE, PAGE_SIZE);
	return n;
}

static void clear_refs(void)
{
	if (pwrite(refs, "4", 1, 0) != 1)
		tap_bail("clear_refs");
}

/* ---- tests ------------------------------------------------------------------------ */

static void test_round(uint64_t round, int zero)
{
	struct vcpu *v = &vm->vcpu[0];
	uint64_t written = 0, found = 0, wrong = 0, told;
	volatile uint8_t sum = 0;

	vcpu_call(v, g_round, DATA_GPA, pages, round);
	for (uint64_t i = 0; i < pages; i++) {
		uint8_t *p = data + i * PAGE_SIZE;

		switch (kind(i, round)) {
		case BY_VMM:
		case BY_BOTH:
			p[mix(i) % PAGE_SIZE] ^= 1;
			break;
		case READ_VMM:
			sum += *p;
			break;
		case BY_READ:
			/* The kernel writes, as a disk's driver does for the VMM. */
			if (pread(zero, p + 64, 64, 0) != 64)
				tap_bail("read");
			break;
		}
	}
	told = scan();
	for (uint64_t i = 0; i < pages; i++) {
		const unsigned int k = kind(i, round);
		const bool is = k == BY_GUEST || k == BY_VMM || k == BY_READ || k == BY_BOTH;

		written += is;
		found += is && dirty[i];
		wrong += !is && dirty[i];
	}
	copy_dirty();
	is(found, written, "F5 round %lu: all %lu pages that guest or VMM have written are found", round, written);
	is(wrong, 0, "F5 round %lu: and no other one of %lu, read or not", round, pages);
	is(told, found + wrong, "F5 round %lu: they are counted right", round);
	is(differ(), 0, "F6 round %lu: the copy of what was found is the memory", round);
	is(scan(), 0, "F5 round %lu: nothing more since", round);
}

/* Guest and VMM write while the scan goes on: nothing is lost between a look and a copy. */
static void test_while_running(uint64_t rounds)
{
	struct vcpu *v = &vm->vcpu[0];
	const uint64_t stop = GUEST_FREE;
	uint64_t n, found = 0;

	*(volatile uint64_t *)vm_host(vm, stop) = 0;
	vcpu_start(v, g_write, DATA_GPA, pages, stop);
	for (n = 0; n < rounds; n++) {
		found += scan();
		copy_dirty();
		for (uint64_t i = 0; i < 64; i++)
			data[mix(n * 64 + i) % pages * PAGE_SIZE + 8] += 1;
	}
	*(volatile uint64_t *)vm_host(vm, stop) = 1;
	vcpu_join(v);
	found += scan();
	copy_dirty();
	ok(found > rounds, "F5 a guest that goes on writing: %lu pages in %lu scans", found, rounds);
	is(differ(), 0, "F6 and the copy of what was found is the memory");
}

static void test_refused(void)
{
	const uint64_t first = (uintptr_t)data / PAGE_SIZE;

	is(scan_some(first, 0, NULL), EINVAL, "F5 a scan of nothing is refused");
	is(scan_some(first, RDT_SB_MAX_SCAN + 1, NULL), EINVAL, "F5 of too much");
	is(scan_some(1ull << 52, 1, NULL), EINVAL, "F5 of what is no address of a process");
	is(scan_some(0, 1, NULL), 0, "F5 where nothing is mapped nothing is dirty");
	id++;
	is(scan_some(first, 1, NULL), ENOENT, "F5 of no VM");
	id--;
	gnl_begin(&msg, family, RDT_SB_CMD_SCAN);
	gnl_u32(&msg, RDT_SB_A_VM, id);
	is(gnl_call(ctl, &msg, NULL), EINVAL, "F5 without saying of what");
}

/* ---- figures: the same by what the kernel has --------------------------------------- */

static uint64_t soft_dirty(void)
{
	static uint64_t entry[MOST_MB * 256];
	uint64_t n = 0;

	if (pread(pagemap, entry, pages * 8, (uintptr_t)data / PAGE_SIZE * 8) != (ssize_t)(pages * 8))
		tap_bail("pagemap");
	for (uint64_t i = 0; i < pages; i++)
		n += entry[i] >> 55 & 1;
	clear_refs();
	return n;
}

#ifndef PAGEMAP_SCAN
struct page_region {
	uint64_t start, end, categories;
};
struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN		_IOWR('f', 16, struct pm_scan_arg)
#define PM_SCAN_WP_MATCHING	1
#define PAGE_IS_WRITTEN		2
#endif

static uint64_t pagemap_scan(void)
{
	static struct page_region vec[MOST_MB * 256];
	struct pm_scan_arg arg = {
		.size = sizeof(arg), .flags = PM_SCAN_WP_MATCHING, .start = (uintptr_t)data, .end = (uintptr_t)data + pages * PAGE_SIZE,
		.vec = (uintptr_t)vec, .vec_len = MOST_MB * 256, .category_mask = PAGE_IS_WRITTEN, .return_mask = PAGE_IS_WRITTEN,
	};
	uint64_t n = 0;
	int got = ioctl(pagemap, PAGEMAP_SCAN, &arg);

	if (got < 0)
		tap_bail("PAGEMAP_SCAN");
	for (int i = 0; i < got; i++)
		n += (vec[i].end - vec[i].start) / PAGE_SIZE;
	return n;
}

#define WP_UNPOPULATED_ASYNC	(1 << 13 | 1 << 15)
/* Asynchronous write protection of DATA; false: the kernel has none. */
static bool write_protect(int *uffd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = WP_UNPOPULATED_ASYNC };
	struct uffdio_register reg = { .range = { (uintptr_t)data, pages * PAGE_SIZE }, .mode = UFFDIO_REGISTER_MODE_WP };

	*uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	return *uffd >= 0 && !ioctl(*uffd, UFFDIO_API, &api) && !ioctl(*uffd, UFFDIO_REGISTER, &reg);
}

static uint64_t median(uint64_t *v, int n)
{
	for (int i = 1; i < n; i++)
		for (int k = i; k && v[k - 1] > v[k]; k--) {
			uint64_t t = v[k];

			v[k] = v[k - 1];
			v[k - 1] = t;
		}
	return v[n / 2];
}

#define TRIES	5
static void figure(const char *name, uint64_t (*look)(void))
{
	static const unsigned int parts[] = { 0, 16, 1 };	/* none, one in 16, all */
	struct vcpu *v = &vm->vcpu[0];

	look();
	for (unsigned int k = 0; k < 3; k++) {
		uint64_t us[TRIES], write[TRIES], again[TRIES], n = 0;
		const uint64_t nr = parts[k] ? pages / parts[k] : 0;

		for (int i = 0; i < TRIES; i++) {
			uint64_t t = now_us();

			vcpu_call(v, g_fill, DATA_GPA, nr, i);
			write[i] = now_us() - t;
			t = now_us();
			vcpu_call(v, g_fill, DATA_GPA, nr, i + 1);
			again[i] = now_us() - t;
			t = now_us();
			n = look();
			us[i] = now_us() - t;
		}
		tap_diag("%s: %lu of %lu pages dirty: %lu us; the guest's first write to each %lu us, its second %lu us", name, n, pages,
			 median(us, TRIES), median(write, TRIES), median(again, TRIES));
	}
}

static void figures(void)
{
	int uffd;

	figure("SCAN", scan);
	figure("soft-dirty, nothing stopped", soft_dirty);
	if (write_protect(&uffd))
		figure("PAGEMAP_SCAN", pagemap_scan);
	close(uffd);
	/* Behind another tracker's: all is dirty */
	clear_refs();
	scan();
	memcpy(copy, data, pages * PAGE_SIZE);
}

int main(int argc, char **argv)
{
	const uint64_t mb = argc > 1 ? strtoul(argv[1], NULL, 0) : 8, rounds = argc > 2 ? strtoul(argv[2], NULL, 0) : 20;
	struct rdt_sb_register reg = { .nr_vcpus = 1, .uuid = "redoubt standby" };
	const int zero = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int memory, fd;

	if (!mb || mb > MOST_MB)
		tap_bail("1 to %d MB", MOST_MB);
	if (system("modprobe redoubt_standby"))
		tap_bail("redoubt_standby does not load");
	pages = (mb << 20) / PAGE_SIZE;
	vm = vm_create(16 << 20, 1, VM_IRQCHIP);
	memory = memfd_create("ram", MFD_CLOEXEC);
	if (memory < 0 || ftruncate(memory, pages * PAGE_SIZE))
		tap_bail("memfd");
	data = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	copy = calloc(pages, PAGE_SIZE);
	dirty = calloc(pages, 1);
	if (data == MAP_FAILED || !copy || !dirty || vm_set_slot(vm, 1, DATA_GPA, pages * PAGE_SIZE, data, 0))
		tap_bail("DATA");
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	dev = open("/dev/redoubt-standby", O_RDWR | O_CLOEXEC);
	ctl = gnl_socket(NULL);
	family = gnl_family(ctl, NULL, NULL);
	reg.vm_fd = vm->fd;
	fd = vm->vcpu[0].fd;
	reg.vcpu_fds = (uintptr_t)&fd;
	if (pagemap < 0 || refs < 0 || dev < 0 || !family || ioctl(dev, RDT_SB_REGISTER, &reg))
		tap_bail("the VM is not registered");
	id = reg.id;

	/* As the agent begins: all is dirty, whatever the scan says. */
	clear_refs();
	scan();
	memcpy(copy, data, pages * PAGE_SIZE);
	/* Half of it is holes that are read first. */
	vcpu_call(&vm->vcpu[0], g_sum, DATA_GPA, pages / 2);
	is(scan(), 0, "F5 reading what was never there makes nothing dirty");
	for (uint64_t round = 1; round <= 3; round++)
		test_round(round, zero);
	test_while_running(rounds);
	test_refused();
	figures();
	test_round(4, zero);
	close(dev);
	is(scan_some((uintptr_t)data / PAGE_SIZE, 1, NULL), ENOENT, "F5 the registration's end is the tracking's");
	close(ctl);
	is(system("rmmod redoubt_standby"), 0, "F1 the module unloads");
	return tap_end();
}
