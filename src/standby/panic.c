// SPDX-License-Identifier: GPL-2.0
/*
 * What a crash kernel finds of the registered VMs: uapi/linux/redoubt_crash.h. All memory is there before it is needed;
 * at the crash itself only CPU registers are written down, by a tracer of crash_save_cpu(), which each CPU calls on its way
 * down: with the guest's FPU registers still in the CPU, if it was running one.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/crc32.h>
#include <linux/ftrace.h>
#include <linux/hash.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/pgtable.h>
#include <linux/preempt.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/debugreg.h>
#include <asm/fpu/xcr.h>
#include <asm/msr.h>

#include <generated/utsrelease.h>
#include <linux/redoubt_crash.h>

static_assert(sizeof(struct rdt_crash_root) <= RDT_CRASH_ROOT_BYTES && RDT_CRASH_ROOT_BYTES == PAGE_SIZE);
static_assert(offsetof(struct rdt_crash_root, vms) == RDT_CRASH_ROOT_HEAD);
static_assert(sizeof(struct rdt_crash_vm) == 96 && sizeof(struct rdt_crash_cpu) == 128);
static_assert(RDT_CRASH_PREEMPT == PREEMPT_MASK && RDT_CRASH_SOFTIRQ == SOFTIRQ_MASK && RDT_CRASH_HARDIRQ == HARDIRQ_MASK);
static_assert(sizeof(UTS_RELEASE) <= sizeof_field(struct rdt_crash_root, release));

static struct rdt_crash_root *root;
static struct rdt_crash_cpu **areas;		/* by CPU; not freed while the tracer is registered */
static u64 *area_addresses;
static struct rdt_crash_work *works;		/* not freed while its tracer is registered */
static bool traced, work_traced;

/* Which of root->vms are taken. Innermost. */
static DEFINE_SPINLOCK(slots_lock);
static DECLARE_BITMAP(slots, RDT_CRASH_MAX_VMS);

static int get_root(char *buffer, const struct kernel_param *kp)
{
	return scnprintf(buffer, PAGE_SIZE, "%#llx\n", root ? (u64)virt_to_phys(root) : 0);
}

static const struct kernel_param_ops root_ops = { .get = get_root };
module_param_cb(crash_root, &root_ops, NULL, 0400);
MODULE_PARM_DESC(crash_root, "Physical address of what a crash kernel must know");

static u32 crc(const void *data, size_t bytes)
{
	return ~crc32_le(~0u, data, bytes);
}

/* ---- records ---------------------------------------------------------------------- */

struct rdt_sb_note {
	u32 bytes, crc, nr;
	struct page *pages[];
};

static void free_note(struct rdt_sb_note *note)
{
	u32 i;

	if (!note)
		return;
	for (i = 0; i < note->nr && note->pages[i]; i++)
		__free_page(note->pages[i]);
	kvfree(note);
}

static struct rdt_sb_note *copy_note(u64 from, u32 bytes)
{
	const u32 nr = DIV_ROUND_UP(bytes, PAGE_SIZE);
	struct rdt_sb_note *note = kvzalloc(struct_size(note, pages, nr), GFP_KERNEL_ACCOUNT);
	u32 i, sum = ~0u;

	if (!note)
		return ERR_PTR(-ENOMEM);
	note->nr = nr;
	note->bytes = bytes;
	for (i = 0; i < nr; i++) {
		const u32 part = min_t(u32, PAGE_SIZE, bytes - i * PAGE_SIZE);
		int err = 0;

		note->pages[i] = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!note->pages[i])
			err = -ENOMEM;
		else if (copy_from_user(page_address(note->pages[i]), u64_to_user_ptr(from + i * PAGE_SIZE), part))
			err = -EFAULT;
		if (err) {
			free_note(note);
			return ERR_PTR(err);
		}
		sum = crc32_le(sum, page_address(note->pages[i]), part);
	}
	note->crc = ~sum;
	return note;
}

/* The agent's memory: pinned, so that it is where the record says until the record is another. */
struct rdt_sb_live {
	u32 nr;
	struct page *pages[];
};

static void free_live(struct rdt_sb_live *live)
{
	if (!live)
		return;
	unpin_user_pages(live->pages, live->nr);
	kvfree(live);
}

static struct rdt_sb_live *pin_live(u64 from, u32 bytes)
{
	const u32 nr = bytes >> PAGE_SHIFT;
	struct rdt_sb_live *live = kvzalloc(struct_size(live, pages, nr), GFP_KERNEL_ACCOUNT);
	int got;

	if (!live)
		return ERR_PTR(-ENOMEM);
	got = pin_user_pages_fast(from, nr, FOLL_WRITE | FOLL_LONGTERM, live->pages);
	live->nr = got < 0 ? 0 : got;
	if (live->nr == nr)
		return live;
	free_live(live);
	return ERR_PTR(got < 0 ? got : -EFAULT);
}

/*
 * A record of its own, whole, that nothing names yet. It is read after a panic, so its memory is all contiguous: @bytes are
 * some 60 KiB at most.
 */
static struct rdt_crash_vm *make_record(const struct rdt_sb_vm *vm, const struct rdt_crash_range *ranges, u32 nr,
					const struct rdt_sb_note *note, const struct rdt_sb_live *live)
{
	const u32 nr_pages = note ? note->nr : 0, nr_live = live ? live->nr : 0;
	const size_t bytes = sizeof(struct rdt_crash_vm) + vm->nr_vcpus * sizeof(u64) + nr * sizeof(*ranges) +
			     (nr_pages + nr_live) * sizeof(u64);
	struct rdt_crash_vm *rec = kzalloc(bytes, GFP_KERNEL);
	u64 *at;
	u32 i;

	if (!rec)
		return NULL;
	*rec = (struct rdt_crash_vm){
		.magic = RDT_CRASH_VM_MAGIC,
		.version = RDT_CRASH_VERSION,
		.self = virt_to_phys(rec),
		.bytes = bytes,
		.change = vm->crash.change,
		.pgd = virt_to_phys(vm->mm->mm->pgd),
		.kvm = (uintptr_t)vm->kvm,
		.nr_vcpus = vm->nr_vcpus,
		.nr_ranges = nr,
		.note_bytes = note ? note->bytes : 0,
		.note_crc = note ? note->crc : 0,
		.live_bytes = nr_live << PAGE_SHIFT,
	};
	memcpy(rec->uuid, vm->uuid, sizeof(rec->uuid));
	at = (u64 *)(rec + 1);
	for (i = 0; i < vm->nr_vcpus; i++)
		*at++ = (uintptr_t)vm->vcpus[i]->private_data;
	memcpy(at, ranges, nr * sizeof(*ranges));
	at += nr * sizeof(*ranges) / sizeof(u64);
	for (i = 0; i < nr_pages; i++)
		*at++ = page_to_phys(note->pages[i]);
	for (i = 0; i < nr_live; i++)
		*at++ = page_to_phys(live->pages[i]);
	rec->crc = crc(rec, bytes);
	return rec;
}

/* The root names @rec from here on, or nothing; what it named before is freed. vm->lock is held, or nobody else has the VM. */
static void publish(struct rdt_sb_vm *vm, struct rdt_crash_vm *rec, struct rdt_sb_note *note, struct rdt_sb_live *live)
{
	struct rdt_crash_vm *const old = vm->crash.record;
	struct rdt_sb_note *const old_note = vm->crash.note;
	struct rdt_sb_live *const old_live = vm->crash.live;

	/*
	 * The record is written before the word that names it; the word before anything that frees the old one writes there.
	 * The reader is another kernel, behind a stop of all CPUs: there is no barrier of its to pair with.
	 */
	smp_mb();
	WRITE_ONCE(root->vms[vm->crash.slot], rec ? virt_to_phys(rec) : 0);
	smp_mb();
	vm->crash.record = rec;
	vm->crash.note = note;
	vm->crash.live = live;
	vm->crash.change++;
	kfree(old);
	free_note(old_note);
	free_live(old_live);
}

static int take_slot(struct rdt_sb_vm *vm)
{
	unsigned long slot;

	spin_lock(&slots_lock);
	slot = find_first_zero_bit(slots, RDT_CRASH_MAX_VMS);
	if (slot < RDT_CRASH_MAX_VMS)
		__set_bit(slot, slots);
	spin_unlock(&slots_lock);
	if (slot >= RDT_CRASH_MAX_VMS)
		return -ENOSPC;
	vm->crash.slot = slot;
	return 0;
}

static int ranges_of_slots(const struct rdt_sb_vm *vm, struct rdt_crash_range *ranges)
{
	struct rdt_sb_slot *s = kvcalloc(RDT_CRASH_MAX_RANGES, sizeof(*s), GFP_KERNEL);
	u32 i, nr;
	u64 frames;

	if (!s)
		return -ENOMEM;
	nr = rdt_sb_vm_slots(vm, s, RDT_CRASH_MAX_RANGES, &frames);
	if (nr > RDT_CRASH_MAX_RANGES)
		nr = 0;		/* not some of them */
	for (i = 0; i < nr; i++)
		ranges[i] = (struct rdt_crash_range){ .first = s[i].gfn, .count = s[i].frames, .hva = s[i].hva };
	kvfree(s);
	return nr;
}

int rdt_sb_crash_add(struct rdt_sb_vm *vm)
{
	struct rdt_crash_range *ranges;
	struct rdt_crash_vm *rec = NULL;
	int nr;

	if (take_slot(vm)) {
		pr_notice_ratelimited("too many VMs for a crash kernel: a panic would lose this one\n");
		return 0;
	}
	ranges = kvcalloc(RDT_CRASH_MAX_RANGES, sizeof(*ranges), GFP_KERNEL);
	nr = ranges ? ranges_of_slots(vm, ranges) : -ENOMEM;
	if (nr >= 0)
		rec = make_record(vm, ranges, nr, NULL, NULL);
	if (rec)
		publish(vm, rec, NULL, NULL);
	kvfree(ranges);
	return rec ? 0 : -ENOMEM;
}

void rdt_sb_crash_remove(struct rdt_sb_vm *vm)
{
	if (vm->crash.slot < 0)
		return;
	publish(vm, NULL, NULL, NULL);
	spin_lock(&slots_lock);
	__clear_bit(vm->crash.slot, slots);
	spin_unlock(&slots_lock);
	vm->crash.slot = -1;
}

static int get_ranges(const struct rdt_sb_crash *arg, struct rdt_crash_range *ranges)
{
	u32 i;

	if (copy_from_user(ranges, u64_to_user_ptr(arg->ranges), arg->nr_ranges * sizeof(*ranges)))
		return -EFAULT;
	for (i = 0; i < arg->nr_ranges; i++) {
		const struct rdt_crash_range *r = &ranges[i];

		if (!r->count || r->count > 1ull << 35 || r->first > 1ull << 40 || !PAGE_ALIGNED(r->hva) ||
		    r->hva >= TASK_SIZE_MAX || r->count > (TASK_SIZE_MAX - r->hva) >> PAGE_SHIFT)
			return -EINVAL;
	}
	return arg->nr_ranges;
}

static int refuse(int err, const char *why)
{
	pr_notice_ratelimited("%s[%d]: crash: %s\n", current->comm, task_tgid_nr(current), why);
	return err;
}

/* vm->lock held. @nr 0: the VM's slots. Takes @note and @live, if it succeeds. */
static int replace(struct rdt_sb_vm *vm, struct rdt_crash_range *ranges, int nr, struct rdt_sb_note *note, struct rdt_sb_live *live)
{
	struct rdt_crash_vm *rec;

	lockdep_assert_held(&vm->lock);
	if (vm->crash.slot < 0)
		return refuse(-ENOSPC, "no place was left when the VM was registered");
	if (!nr)
		nr = ranges_of_slots(vm, ranges);
	if (nr < 0)
		return nr;
	rec = make_record(vm, ranges, nr, note, live);
	if (!rec)
		return -ENOMEM;
	publish(vm, rec, note, live);
	return 0;
}

int rdt_sb_crash_set(struct rdt_sb_vm *vm, const struct rdt_sb_crash *arg)
{
	struct rdt_sb_note *note = NULL;
	struct rdt_sb_live *live = NULL;
	struct rdt_crash_range *ranges;
	int ret;

	if (arg->flags || arg->nr_ranges > RDT_CRASH_MAX_RANGES || arg->note_bytes > RDT_CRASH_MAX_NOTE)
		return refuse(-EINVAL, "flags, nr_ranges or note_bytes");
	if (arg->live_bytes > RDT_CRASH_MAX_LIVE || !PAGE_ALIGNED(arg->live_bytes) || !PAGE_ALIGNED(arg->live))
		return refuse(-EINVAL, "live or live_bytes: not whole pages, or too many");
	ranges = kvcalloc(RDT_CRASH_MAX_RANGES, sizeof(*ranges), GFP_KERNEL);
	if (!ranges)
		return -ENOMEM;
	ret = get_ranges(arg, ranges);
	if (ret == -EINVAL)
		refuse(ret, "a range that is no range of a VMM's memory");
	if (ret < 0)
		goto out;
	if (arg->note_bytes) {
		note = copy_note(arg->note, arg->note_bytes);
		if (IS_ERR(note)) {
			ret = PTR_ERR(note);
			goto out;
		}
	}
	if (arg->live_bytes) {
		live = pin_live(arg->live, arg->live_bytes);
		if (IS_ERR(live)) {
			free_note(note);
			ret = PTR_ERR(live);
			goto out;
		}
	}
	mutex_lock(&vm->lock);
	ret = replace(vm, ranges, ret, note, live);
	mutex_unlock(&vm->lock);
	if (ret) {
		free_note(note);
		free_live(live);
	}
out:
	kvfree(ranges);
	return ret;
}

/* ---- at the crash ------------------------------------------------------------------- */

static u64 xcr0(void)
{
	return boot_cpu_has(X86_FEATURE_OSXSAVE) ? xgetbv(XCR_XFEATURE_ENABLED_MASK) : 0;
}

/* On each CPU, interrupts off, mostly in an NMI: no lock, no memory, no printing. */
static void notrace at_crash(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *regs)
{
	const unsigned int cpu = raw_smp_processor_id();
	struct rdt_crash_cpu *area = cpu < root->nr_cpus ? areas[cpu] : NULL;

	if (!area || area->magic)
		return;
	area->cpu = cpu;
	area->tsc = rdtsc_ordered();
	area->monotonic = ktime_get_mono_fast_ns();
	/* As KVM's get_kvmclock_base_ns(); these clocks may be asked in an NMI. */
	area->clock = ktime_get_raw_fast_ns() + ktime_get_boot_fast_ns() - area->monotonic;
	area->online = num_online_cpus();
	area->context = preempt_count() & (PREEMPT_MASK | SOFTIRQ_MASK | HARDIRQ_MASK);
	area->flags = test_thread_flag(TIF_NEED_FPU_LOAD) ? RDT_CRASH_FPU_IN_MEMORY : 0;
	area->fpstate = (uintptr_t)READ_ONCE(current->thread.fpu.fpstate);
	area->xcr0 = xcr0();
	if (area->xcr0)
		asm volatile("xsave64 (%0)" : : "r" (area + 1), "a" (-1), "d" (-1) : "memory");
	else
		asm volatile("fxsave64 (%0)" : : "r" (area + 1) : "memory");
	get_debugreg(area->dr[0], 0);
	get_debugreg(area->dr[1], 1);
	get_debugreg(area->dr[2], 2);
	get_debugreg(area->dr[3], 3);
	get_debugreg(area->dr6, 6);
	/* On Intel a guest that has just been left has these in the CPU, and KVM has not come to take them yet. */
	area->kernel_gs_base = __rdmsr(MSR_KERNEL_GS_BASE);
	/* The reader is another kernel: see publish(). */
	smp_wmb();
	WRITE_ONCE(area->magic, RDT_CRASH_CPU_MAGIC);
}

/* Not to be turned off by kernel.ftrace_enabled; where that is off already we hear of it. */
static struct ftrace_ops crash_ops = { .func = at_crash, .flags = FTRACE_OPS_FL_PERMANENT };

/*
 * xfer_to_guest_mode_handle_work(), which KVM calls between two exits when the thread's turn is over: what KVM did for the exit is
 * done. No lock: two vCPUs in one place lose one of them, and a pair of two halves is none.
 */
static void notrace at_work(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *regs)
{
	const struct kvm_vcpu *vcpu = kvm_get_running_vcpu();
	struct rdt_crash_work *work;

	if (!vcpu)
		return;
	work = &works[hash_ptr(vcpu, ilog2(RDT_CRASH_WORKS))];
	WRITE_ONCE(work->vcpu, (uintptr_t)vcpu);
	WRITE_ONCE(work->check, (uintptr_t)vcpu * RDT_CRASH_WORK_FACTOR ^ vcpu->stat.exits);
}

static struct ftrace_ops work_ops = { .func = at_work, .flags = FTRACE_OPS_FL_PERMANENT };

static int trace(struct ftrace_ops *ops, const char *function)
{
	char name[40];
	int err;

	strscpy(name, function, sizeof(name));
	err = ftrace_set_filter(ops, name, strlen(name), 1);
	return err ? err : register_ftrace_function(ops);
}

static size_t area_bytes(void)
{
	u32 eax, ebx = 512, ecx, edx;

	if (boot_cpu_has(X86_FEATURE_OSXSAVE))
		cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx);
	return sizeof(struct rdt_crash_cpu) + ebx;
}

static void free_areas(void)
{
	unsigned int i;

	for (i = 0; areas && i < nr_cpu_ids; i++)
		kfree(areas[i]);
	kfree(areas);
	kfree(area_addresses);
}

/* XSAVE wants 64 bytes' alignment; kmalloc() of a power of two gives as much. */
static int alloc_areas(size_t bytes)
{
	unsigned int cpu;

	areas = kcalloc(nr_cpu_ids, sizeof(*areas), GFP_KERNEL);
	area_addresses = kcalloc(nr_cpu_ids, sizeof(*area_addresses), GFP_KERNEL);
	if (!areas || !area_addresses)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		areas[cpu] = kzalloc_node(roundup_pow_of_two(bytes), GFP_KERNEL, cpu_to_node(cpu));
		if (!areas[cpu])
			return -ENOMEM;
		area_addresses[cpu] = virt_to_phys(areas[cpu]);
	}
	return 0;
}

int rdt_sb_crash_init(void)
{
	const size_t bytes = area_bytes();
	int err = alloc_areas(bytes);

	root = (void *)get_zeroed_page(GFP_KERNEL);
	works = kcalloc(RDT_CRASH_WORKS, sizeof(*works), GFP_KERNEL);
	if (err || !root || !works) {
		rdt_sb_crash_exit();
		return -ENOMEM;
	}
	root->magic = RDT_CRASH_ROOT_MAGIC;
	root->version = RDT_CRASH_VERSION;
	root->self = virt_to_phys(root);
	root->levels = pgtable_l5_enabled() ? 5 : 4;
	root->nr_cpus = nr_cpu_ids;
	root->cpus = virt_to_phys(area_addresses);
	root->cpu_bytes = bytes;
	root->works = virt_to_phys(works);
	strscpy(root->release, UTS_RELEASE, sizeof(root->release));
	root->crc = crc(root, RDT_CRASH_ROOT_HEAD);

	err = trace(&crash_ops, "crash_save_cpu");
	traced = !err;
	/* Without it a vCPU that runs at the panic has lost its FPU registers; the crash kernel finds no area, and says so. */
	if (err)
		pr_notice("crash_save_cpu() cannot be traced (%d): no FPU registers of a vCPU that runs at a panic\n", err);
	err = trace(&work_ops, "xfer_to_guest_mode_handle_work");
	work_traced = !err;
	if (err)
		pr_notice("xfer_to_guest_mode_handle_work() cannot be traced (%d): more vCPUs are lost at a panic\n", err);
	return 0;
}

void rdt_sb_crash_exit(void)
{
	if (traced)
		unregister_ftrace_function(&crash_ops);
	if (work_traced)
		unregister_ftrace_function(&work_ops);
	ftrace_free_filter(&crash_ops);
	ftrace_free_filter(&work_ops);
	if (root) {
		/* A crash kernel that was told this address finds nothing here. */
		memzero_explicit(root, PAGE_SIZE);
		free_page((unsigned long)root);
	}
	root = NULL;
	kfree(works);
	free_areas();
}
