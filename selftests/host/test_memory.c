// SPDX-License-Identifier: GPL-2.0
/*
 * Protection while the memory behind it changes: memslots that go, come and move,
 * huge pages, dirty logging, pages that the host takes back or merges, and very
 * many ranges.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	GUEST_FREE
#define AREA	(16ul << 20)		/* where tests in slot 0 work */
#define SLOT	(256ul << 20)		/* gpa of slot 1 */
#define SLOT_SIZE (8ul << 20)
#define HIGH	(4ul << 30)		/* gpa of slot 2 */
#define gp	13

static struct vm *vm;
static struct vcpu *v;
static struct rdt *r;

static int64_t protect(uint64_t gpa, uint64_t pages, int action)
{
	return vcpu_call(v, g_hc, RDT_HC_PROTECT, gpa, pages, RDT_ATTR(action, 1));
}

static void start(unsigned int flags)
{
	vm = vm_create(RAM, 1, flags);
	v = &vm->vcpu[0];
	r = rdt_attach(vm->fd);
	if (vcpu_call(v, g_node_add, NODES, 4) != 4)
		tap_bail("node pages");
}

static void end(void)
{
	rdt_close(r);
	vm_destroy(vm);
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return good;
}

static long read_number(const char *path)
{
	FILE *f = fopen(path, "r");
	long n = -1;

	if (f) {
		if (fscanf(f, "%ld", &n) != 1)
			n = -1;
		fclose(f);
	}
	return n;
}

/* Store to one word of each page: how many of them faulted. */
static u64 g_store_pages(u64 gva, u64 pages, u64 value)
{
	u64 faults = 0;

	for (u64 i = 0; i < pages; i++)
		faults += guest_try_store(gva + i * PAGE_SIZE, value + i) != -1;
	return faults;
}

static u64 g_load_pages(u64 gva, u64 pages)
{
	u64 sum = 0;

	for (u64 i = 0; i < pages; i++)
		sum += guest_load(gva + i * PAGE_SIZE);
	return sum;
}

/* ---- memslots ------------------------------------------------------------------ */

static void expect_changed(uint64_t gpa, const char *what)
{
	struct rdt_event ev;

	ok(rdt_find(r, RDT_EV_MAPPING_CHANGED, &ev) && ev.gpa == gpa,
	   "A7 %s: MAPPING_CHANGED names the frame", what);
}

static void test_memslots(void)
{
	uint64_t target = SLOT + 5 * PAGE_SIZE;
	struct rdt_event ev;
	void *mem, *other;

	start(0);
	mem = vm_alloc(SLOT_SIZE, 0);
	other = vm_alloc(SLOT_SIZE, 0);
	rdt_drain(r);
	is(vm_set_slot(vm, 1, SLOT, SLOT_SIZE, mem, 0), 0, "A7 a slot");
	ok(!rdt_next(r, &ev), "A7 a slot without protected frames is no event");
	is(protect(target, 2, RDT_ACT_DENY), 0, "A7 protect in it");
	is(vcpu_call(v, g_store_pages, SLOT, 16, 1), 2, "A7 exactly these are denied");

	rdt_drain(r);
	is(vm_set_slot(vm, 1, SLOT, 0, NULL, 0), 0, "A7 delete the slot");
	expect_changed(target, "delete");
	is(vm_set_slot(vm, 1, SLOT, SLOT_SIZE, mem, 0), 0, "A7 make it again");
	expect_changed(target, "create");
	is(vcpu_call(v, g_store_pages, SLOT, 16, 2), 2, "A7 it is protected as before");
	is(vm_u64(vm, target), 0, "A7 and unchanged");

	is(vm_set_slot(vm, 1, SLOT, 0, NULL, 0), 0, "A7 delete it again");
	is(vm_set_slot(vm, 1, SLOT, SLOT_SIZE, other, 0), 0, "A7 other memory in its place");
	is(vcpu_call(v, g_store_pages, SLOT, 16, 3), 2, "A7 the same frames are protected");

	rdt_drain(r);
	is(vm_set_slot(vm, 1, SLOT + SLOT_SIZE, SLOT_SIZE, other, 0), 0, "A7 move the slot away");
	expect_changed(target, "move");
	is(vcpu_call(v, g_store_pages, SLOT + SLOT_SIZE, 16, 4), 0, "A7 where it is now all is free");
	rdt_drain(r);
	is(vm_set_slot(vm, 1, SLOT, SLOT_SIZE, other, 0), 0, "A7 move the slot back");
	expect_changed(target, "move back");
	is(vcpu_call(v, g_store_pages, SLOT, 16, 5), 2, "A7 and the frames are protected");

	rdt_drain(r);
	is(vm_set_slot(vm, 1, SLOT, SLOT_SIZE, other, KVM_MEM_LOG_DIRTY_PAGES), 0, "A7 dirty logging on");
	is(vm_set_slot(vm, 1, SLOT, SLOT_SIZE, other, 0), 0, "A7 dirty logging off");
	ok(!rdt_find(r, RDT_EV_MAPPING_CHANGED, &ev), "A7 which changes no mapping");
	is(vcpu_call(v, g_store_pages, SLOT, 16, 6), 2, "A7 and no right");

	/* All of guest RAM goes and comes, the node pages with it. */
	rdt_drain(r);
	is(vm_set_slot(vm, 0, 0, 0, NULL, 0), 0, "A7 delete slot 0");
	expect_changed(NODES, "delete slot 0");
	is(vm_set_slot(vm, 0, 0, RAM, vm->map, 0), 0, "A7 make slot 0 again");
	is(vcpu_call(v, g_store, NODES, 1), gp, "A7 node pages are protected as before");
	is(protect(AREA, 1, RDT_ACT_DENY), 0, "A7 the tree still works");
	is(vcpu_call(v, g_store, AREA, 1), gp, "A7 for new ranges");
	is(vcpu_call(v, g_store_pages, SLOT, 16, 7), 2, "A7 and for old ones");
	end();
	munmap(mem, SLOT_SIZE);
	munmap(other, SLOT_SIZE);
}

/* ---- huge pages ---------------------------------------------------------------- */

#define HUGES	8	/* large pages looked at, from AREA on */

static void check_huge(const char *what)
{
	uint64_t target = AREA + 2 * HUGE_SIZE + 100 * PAGE_SIZE;
	uint64_t edge = AREA + 5 * HUGE_SIZE - PAGE_SIZE;
	int64_t before, after;

	is(vcpu_call(v, g_store_pages, AREA, HUGES * 512, 1), 0, "A8 %s: all is writable", what);
	before = vm_stat(vm, "pages_2m");
	if (before < HUGES) {
		tap_skip("A8 %s: the host gives no huge pages (%ld)", what, before);
		return;
	}
	is(protect(target, 1, RDT_ACT_DENY), 0, "A8 %s: protect one page", what);
	is(vcpu_call(v, g_store_pages, AREA, HUGES * 512, 2), 1, "A8 %s: one page is denied", what);
	after = vm_stat(vm, "pages_2m");
	is(after, before - 1, "A8 %s: one huge page is split, no other", what);
	/* Both sides of a border. */
	is(protect(edge, 2, RDT_ACT_DENY), 0, "A8 %s: protect across a border", what);
	is(vcpu_call(v, g_store_pages, AREA, HUGES * 512, 3), 3, "A8 %s: three pages are denied", what);
	is(vm_stat(vm, "pages_2m"), before - 3, "A8 %s: three huge pages are split", what);
	is(vm_u64(vm, target), 1 + 2 * 512 + 100, "A8 %s: the page is unchanged", what);
	is(vm_u64(vm, edge - PAGE_SIZE), 3 + 5 * 512 - 2, "A8 %s: its neighbour is not", what);

	/* Dirty logging splits all the rest, and may not give a right back. */
	vm_set_slot(vm, 0, 0, RAM, vm->map, KVM_MEM_LOG_DIRTY_PAGES);
	is(vcpu_call(v, g_store_pages, AREA, HUGES * 512, 4), 3, "A8 %s: three after the split too", what);
	vm_set_slot(vm, 0, 0, RAM, vm->map, 0);
	is(vcpu_call(v, g_store_pages, AREA, HUGES * 512, 5), 3, "A8 %s: and when it is undone", what);
	is(vm_u64(vm, target), 1 + 2 * 512 + 100, "A8 %s: the page is still unchanged", what);

	/* A huge page all of which is protected stays one, for reading. */
	is(rdt_protect(r, AREA, HUGES * 512, RDT_ACT_NONE, 0), 0, "A8 %s: unprotect all", what);
	is(vcpu_call(v, g_store_pages, AREA, HUGES * 512, 6), 0, "A8 %s: all is writable again", what);
}

static void test_huge(void)
{
	start(VM_THP);
	check_huge("THP");
	end();
}

static void test_hugetlb(void)
{
	void *mem;

	write_file("/proc/sys/vm/nr_hugepages", "40");
	mem = mmap(NULL, RAM, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (mem == MAP_FAILED) {
		tap_skip("A8 hugetlb: the host has no huge pages");
		return;
	}
	start(0);
	memcpy(mem, vm->map, RAM);
	vm_set_slot(vm, 0, 0, 0, NULL, 0);
	/* The pinned node pages lie in the old memory: this VM starts anew. */
	rdt_close(r);
	vm_set_slot(vm, 0, 0, RAM, mem, 0);
	munmap(vm->map, RAM);
	vm->map = mem;
	r = NULL;
	{
		struct rdt_list_entry entry;
		struct rdt_list l = { .nr = 1, .entries = (uintptr_t)&entry };
		struct rdt_open o = { 0 };

		ioctl(rdt_dev(), RDT_LIST, &l);
		o.vm_id = entry.vm_id;
		ioctl(rdt_dev(), RDT_OPEN, &o);
		is(ioctl(o.fd, RDT_VM_DETACH, 0), 0, "A8 hugetlb: detach");
		close(o.fd);
	}
	r = rdt_attach(vm->fd);
	is(vcpu_call(v, g_node_add, NODES, 4), 4, "A8 hugetlb: node pages in huge pages");
	check_huge("hugetlb");
	end();
	write_file("/proc/sys/vm/nr_hugepages", "0");
}

/* ---- dirty logging -------------------------------------------------------------- */

static uint64_t log_words[RAM / PAGE_SIZE / 64];

static bool dirty(uint64_t gpa)
{
	return log_words[gpa / PAGE_SIZE / 64] >> (gpa / PAGE_SIZE % 64) & 1;
}

static void test_dirty_log(void)
{
	start(0);
	is(protect(AREA, 1, RDT_ACT_DENY), 0, "A9 dirty log: a page under DENY");
	is(protect(AREA + PAGE_SIZE, 1, RDT_ACT_LOG), 0, "A9 dirty log: a page under LOG");
	vcpu_call(v, g_store_pages, AREA, 4, 1);
	vm_set_slot(vm, 0, 0, RAM, vm->map, KVM_MEM_LOG_DIRTY_PAGES);
	for (int round = 0; round < 3; round++) {
		vm_dirty_log(vm, 0, log_words);
		is(vcpu_call(v, g_store_pages, AREA, 3, 100 * round), 1, "A9 dirty log: write, round %d",
		   round);
		memset(log_words, 0, sizeof(log_words));
		vm_dirty_log(vm, 0, log_words);
		ok(!dirty(AREA), "A9 dirty log: a denied write makes nothing dirty");
		ok(dirty(AREA + PAGE_SIZE), "A9 dirty log: a logged write does");
		ok(dirty(AREA + 2 * PAGE_SIZE), "A9 dirty log: a free write does");
		ok(!dirty(AREA + 3 * PAGE_SIZE), "A9 dirty log: no write does not");
	}
	is(vm_u64(vm, AREA), 0, "A9 dirty log: the denied page is unchanged");
	is(vm_u64(vm, AREA + PAGE_SIZE), 201, "A9 dirty log: the logged page is not");
	vm_set_slot(vm, 0, 0, RAM, vm->map, 0);
	is(vcpu_call(v, g_store_pages, AREA, 3, 5), 1, "A9 dirty log off: protected as before");
	end();
}

/* ---- what the host does to the pages ---------------------------------------------- */

static void test_dontneed(void)
{
	start(VM_THP);
	memset(vm_host(vm, AREA), 0x11, HUGE_SIZE);
	is(protect(AREA + 7 * PAGE_SIZE, 1, RDT_ACT_DENY), 0, "A7 DONTNEED: protect");
	is(vcpu_call(v, g_store_pages, AREA, 16, 1), 1, "A7 DONTNEED: before");
	for (int i = 0; i < 3; i++) {
		if (madvise(vm_host(vm, AREA), HUGE_SIZE >> (4 * i), MADV_DONTNEED))
			tap_bail("MADV_DONTNEED");
		is(vcpu_call(v, g_load, AREA + 7 * PAGE_SIZE), 0, "A7 DONTNEED: the guest reads zeros");
		is(vcpu_call(v, g_store_pages, AREA, 16, 1), 1, "A7 DONTNEED: the frame is still denied");
		is(vm_u64(vm, AREA + 7 * PAGE_SIZE), 0, "A7 DONTNEED: and unchanged");
		is(vm_u64(vm, AREA + 8 * PAGE_SIZE), 9, "A7 DONTNEED: its neighbour is written");
	}
	/* The host moves the memory to another place of its address space's pages. */
	is(mprotect(vm_host(vm, AREA), HUGE_SIZE, PROT_READ), 0, "A7 mprotect to read only");
	is(mprotect(vm_host(vm, AREA), HUGE_SIZE, PROT_READ | PROT_WRITE), 0, "A7 mprotect back");
	is(vcpu_call(v, g_store_pages, AREA, 16, 2), 1, "A7 mprotect: the frame is still denied");
	/* A node page cannot be taken away: the tree keeps working on the true one. */
	madvise(vm_host(vm, NODES), 4 * PAGE_SIZE, MADV_DONTNEED);
	is(protect(AREA + 20 * PAGE_SIZE, 1, RDT_ACT_DENY), 0, "A6 node pages taken away: the tree works on");
	is(vcpu_call(v, g_store, AREA + 20 * PAGE_SIZE, 1), gp, "A6 and denies");
	is(vcpu_call(v, g_store, AREA + 7 * PAGE_SIZE, 1), gp, "A6 the old range too");
	is(vcpu_call(v, g_store, NODES, 1), gp, "A6 the frames of the node pages too");
	end();
}

static void test_ksm(void)
{
	uint64_t pages = 64;
	int tries;

	if (!write_file("/sys/kernel/mm/ksm/run", "1")) {
		tap_skip("A8 KSM: not in this kernel");
		return;
	}
	write_file("/sys/kernel/mm/ksm/sleep_millisecs", "0");
	write_file("/sys/kernel/mm/ksm/pages_to_scan", "20000");
	start(VM_SMALL);
	memset(vm_host(vm, AREA), 0x77, pages * PAGE_SIZE);
	is(protect(AREA + 3 * PAGE_SIZE, 2, RDT_ACT_DENY), 0, "A8 KSM: protect");
	is(protect(AREA + 5 * PAGE_SIZE, 1, RDT_ACT_LOG), 0, "A8 KSM: and log");
	vcpu_call(v, g_load_pages, AREA, pages);
	madvise(vm_host(vm, AREA), pages * PAGE_SIZE, MADV_MERGEABLE);
	for (tries = 0; tries < 300 && read_number("/sys/kernel/mm/ksm/pages_sharing") < 50; tries++)
		usleep(50000);
	ok(tries < 300, "A8 KSM: the pages are merged (%ld)",
	   read_number("/sys/kernel/mm/ksm/pages_sharing"));
	is(vcpu_call(v, g_store_pages, AREA, pages, 1), 2, "A8 KSM: the protected are denied, the others part");
	is(vm_u64(vm, AREA + 3 * PAGE_SIZE), 0x7777777777777777, "A8 KSM: denied is unchanged");
	is(vm_u64(vm, AREA + 5 * PAGE_SIZE), 6, "A8 KSM: logged is written");
	is(vm_u64(vm, AREA + 9 * PAGE_SIZE), 10, "A8 KSM: free is written");
	is(*(uint64_t *)vm_host(vm, AREA + 9 * PAGE_SIZE + 8), 0x7777777777777777, "A8 KSM: the rest is as it was");
	write_file("/sys/kernel/mm/ksm/run", "2");
	end();
}

/* ---- very many ranges ------------------------------------------------------------- */

#define RANGES		10000
#define RANGE_PAGES	100
#define STRIDE		(101 * PAGE_SIZE)

static u64 g_protect_many(u64 gpa, u64 ranges)
{
	u64 bad = 0;

	for (u64 i = 0; i < ranges; i++)
		bad += guest_hc(RDT_HC_PROTECT, gpa + i * STRIDE, RANGE_PAGES,
				RDT_ATTR(RDT_ACT_DENY, i & 0x7f), 0) != 0;
	return bad;
}

static u64 g_query_many(u64 gpa, u64 ranges)
{
	u64 bad = 0;

	for (u64 i = 0; i < ranges; i++) {
		u64 n = i * 7919 % ranges;

		bad += guest_hc(RDT_HC_QUERY, gpa + n * STRIDE + (i % RANGE_PAGES) * PAGE_SIZE, 0, 0, 0) !=
		       (s64)RDT_ATTR(RDT_ACT_DENY, n & 0x7f);
		bad += guest_hc(RDT_HC_QUERY, gpa + n * STRIDE + RANGE_PAGES * PAGE_SIZE, 0, 0, 0) != 0;
	}
	return bad;
}

static void test_many(void)
{
	uint64_t size = RANGES * STRIDE + HUGE_SIZE;
	struct rdt_region *list = calloc(4096, sizeof(*list));
	struct rdt_regions l = { .nr = 4096, .entries = (uintptr_t)list };
	struct rdt_vm_info info;
	uint64_t seen = 0, wrong = 0;
	void *mem;

	start(0);
	mem = vm_alloc(size, VM_SMALL);
	is(vm_set_slot(vm, 1, HIGH, size, mem, 0), 0, "A7 4 GiB more");
	is(vcpu_call(v, g_node_add, NODES + 4 * PAGE_SIZE, 300), 304, "A7 304 node pages");
	is(vcpu_call(v, g_protect_many, HIGH, RANGES), 0, "A7 10,000 ranges");
	info = rdt_info(r);
	is(info.frames, 1000000 + 304, "A7 1,000,000 frames");
	is(info.ranges, RANGES, "A7 10,000 ranges are counted");
	ok(info.host_bytes <= (1 << 20) + (HIGH + size) / PAGE_SIZE / 8,
	   "A7 host memory is at most 1 MiB and a bit a frame (%llu)", info.host_bytes);
	is(vcpu_call(v, g_query_many, HIGH, RANGES), 0, "A7 each is found, each gap too");

	for (l.start = HIGH;; l.nr = 4096) {
		if (ioctl(r->fd, RDT_VM_REGIONS, &l))
			tap_bail("RDT_VM_REGIONS");
		for (unsigned int i = 0; i < l.nr; i++, seen++)
			wrong += list[i].gpa != HIGH + seen * STRIDE || list[i].pages != RANGE_PAGES ||
				 list[i].action != RDT_ACT_DENY || list[i].cls != (seen & 0x7f);
		if (l.nr < 4096)
			break;
	}
	is(seen, RANGES, "A7 the operator's list has them all");
	is(wrong, 0, "A7 in order");

	vm_map(vm, 0x20000000, HIGH + 4711 * STRIDE, STRIDE, PTE_W);
	is(vcpu_call(v, g_store_pages, 0x20000000, 101, 1), RANGE_PAGES, "A3 one of them denies, its gap does not");
	/* Split one and take a part of many away. */
	is(rdt_protect(r, HIGH + 4711 * STRIDE + 10 * PAGE_SIZE, 5, RDT_ACT_NONE, 0), 0, "A7 split a range");
	is(rdt_info(r).ranges, RANGES + 1, "A7 which makes two of it");
	is(vcpu_call(v, g_store_pages, 0x20000000, 101, 1), RANGE_PAGES - 5, "A7 and five pages free");
	is(rdt_protect(r, HIGH, RANGES / 2 * 101, RDT_ACT_NONE, 0), 0, "A7 remove half of all at once");
	info = rdt_info(r);
	is(info.ranges, RANGES / 2, "A7 half is left");
	is(info.frames, 500000 + 304, "A7 of the frames too");
	is(vcpu_call(v, g_store_pages, 0x20000000, 101, 1), 0, "A7 what was removed is free");
	end();
	munmap(mem, size);
	free(list);
}

int main(void)
{
	test_memslots();
	test_huge();
	test_hugetlb();
	test_dirty_log();
	test_dontneed();
	test_ksm();
	test_many();
	return tap_end();
}
