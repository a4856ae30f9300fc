// SPDX-License-Identifier: GPL-2.0
#include "vmm.h"

#include <cpuid.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tap.h"

extern const char guest_vectors[], guest_call_entry[];
extern const char __executable_start[], _end[];

int kvm_dev(void)
{
	static int fd = -1;
	unsigned int a, b, c, d;

	if (fd >= 0)
		return fd;
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		tap_bail("/dev/kvm");
	__cpuid(0, a, b, c, d);
	guest_is_intel = b == signature_INTEL_ebx;
	setvbuf(stdout, NULL, _IOLBF, 0);
	return fd;
}

static long must(long ret, const char *what)
{
	if (ret < 0)
		tap_bail("%s", what);
	return ret;
}

/* ---- memory ------------------------------------------------------------------ */

void *vm_alloc(uint64_t size, unsigned int flags)
{
	char *p = mmap(NULL, size + HUGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at;

	if (p == MAP_FAILED)
		tap_bail("guest memory");
	at = (char *)(((uintptr_t)p + HUGE_SIZE - 1) & -HUGE_SIZE);
	if (at != p)
		munmap(p, at - p);
	munmap(at + size, p + HUGE_SIZE - at);
	if (flags & VM_THP)
		must(madvise(at, size, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	if (flags & VM_SMALL)
		must(madvise(at, size, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	return at;
}

int vm_set_slot(struct vm *vm, int nr, uint64_t gpa, uint64_t size, void *host, uint32_t flags)
{
	struct kvm_userspace_memory_region r = {
		.slot = nr,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &r))
		return -errno;
	vm->slot[nr] = (struct vm_slot){ gpa, size, host, flags };
	return 0;
}

void *vm_host(struct vm *vm, uint64_t gpa)
{
	for (int i = 0; i < VM_MAX_SLOTS; i++)
		if (gpa - vm->slot[i].gpa < vm->slot[i].size)
			return vm->slot[i].host + (gpa - vm->slot[i].gpa);
	tap_bail("no memory at gpa %#lx", gpa);
}

void vm_dirty_log(struct vm *vm, int slot, uint64_t *bitmap)
{
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bitmap };

	must(ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log), "KVM_GET_DIRTY_LOG");
}

int64_t vm_stat(struct vm *vm, const char *name)
{
	struct kvm_stats_header head;
	int fd = must(ioctl(vm->fd, KVM_GET_STATS_FD, 0), "KVM_GET_STATS_FD");
	size_t step;
	int64_t value = -1;
	char buf[256];

	must(pread(fd, &head, sizeof(head), 0), "stats");
	step = sizeof(struct kvm_stats_desc) + head.name_size;
	for (uint32_t i = 0; i < head.num_desc; i++) {
		struct kvm_stats_desc *desc = (void *)buf;

		must(pread(fd, buf, step, head.desc_offset + i * step), "stats");
		if (strcmp(buf + sizeof(*desc), name))
			continue;
		must(pread(fd, &value, 8, head.data_offset + desc->offset), "stats");
		break;
	}
	close(fd);
	return value;
}

static uint64_t *table_at(struct vm *vm, uint64_t *entry)
{
	uint64_t new = vm->tables;

	if (*entry & PTE_P && !(*entry & PTE_PS))
		return vm_host(vm, *entry & 0xffffffffff000);
	if (new >= GUEST_TABLES_END)
		tap_bail("no more page tables");
	vm->tables += PAGE_SIZE;
	uint64_t *table = vm_host(vm, new);

	memset(table, 0, PAGE_SIZE);
	/* A large page becomes small ones. */
	if (*entry & PTE_PS)
		for (int i = 0; i < 512; i++)
			table[i] = (*entry & ~PTE_PS) + i * PAGE_SIZE;
	*entry = new | PTE_P | PTE_W | PTE_U;
	return table;
}

static uint64_t *pte_of(struct vm *vm, uint64_t gva)
{
	uint64_t *table = vm_host(vm, GUEST_PML4);

	for (int shift = 39; shift > 12; shift -= 9)
		table = table_at(vm, &table[gva >> shift & 511]);
	return &table[gva >> 12 & 511];
}

void vm_map(struct vm *vm, uint64_t gva, uint64_t gpa, uint64_t bytes, uint64_t flags)
{
	for (uint64_t at = 0; at < bytes; at += PAGE_SIZE)
		*pte_of(vm, gva + at) = (gpa + at) | flags | PTE_P;
}

/* The page tables are in slot 0, gpa is the offset there. */
uint64_t vm_pte(struct vm *vm, uint64_t gva)
{
	return (uint8_t *)pte_of(vm, gva) - vm->slot[0].host;
}

/* ---- the machine ------------------------------------------------------------- */

static void make_tables(struct vm *vm)
{
	uint64_t *pml4 = vm_host(vm, GUEST_PML4), *pdpt = vm_host(vm, GUEST_PDPT);
	uint64_t *pd = vm_host(vm, GUEST_PD), *gdt = vm_host(vm, GUEST_GDT);
	uint64_t *idt = vm_host(vm, GUEST_IDT);

	pml4[0] = GUEST_PDPT | PTE_P | PTE_W | PTE_U;
	pdpt[0] = GUEST_PD | PTE_P | PTE_W | PTE_U;
	for (uint64_t i = 0; i < 512; i++)
		pd[i] = i * HUGE_SIZE | PTE_PS | PTE_P | PTE_W | PTE_U;
	vm->tables = GUEST_TABLES;

	gdt[SEL_CODE0 / 8] = 0x00209b0000000000;
	gdt[SEL_DATA0 / 8] = 0x0000930000000000;
	gdt[SEL_DATA3 / 8] = 0x0000f30000000000;
	gdt[SEL_CODE3 / 8] = 0x0020fb0000000000;
	for (int i = 0; i < GUEST_MAX_VCPUS; i++) {
		uint64_t tss = GUEST_TSS + i * 128;

		gdt[SEL_TSS / 8 + 2 * i] = 103 | tss << 16 | 0x89ull << 40;
		*(uint64_t *)vm_host(vm, tss + 4) = GUEST_STACKS + (i + 1) * GUEST_STACK - 0x2000;
	}
	for (int i = 0; i < 256; i++) {
		uint64_t stub = (uint64_t)guest_vectors + i * 16;

		/* Interrupt gates; from ring 3 too: there is nobody to protect. */
		idt[2 * i] = (stub & 0xffff) | SEL_CODE0 << 16 | 0xeeull << 40 |
			     (stub & 0xffff0000) << 32;
		idt[2 * i + 1] = stub >> 32;
	}
}

static void load_image(struct vm *vm)
{
	size_t size = _end - __executable_start;

	if ((uint64_t)__executable_start != GUEST_IMAGE || (uint64_t)_end > GUEST_FREE)
		tap_bail("the program is not where a guest can have it");
	memcpy(vm_host(vm, GUEST_IMAGE), __executable_start, size);
}

static void set_cpuid(struct vcpu *v)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[128];
	} all;
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };

	all.head.nent = 128;
	must(ioctl(kvm_dev(), KVM_GET_SUPPORTED_CPUID, &all), "KVM_GET_SUPPORTED_CPUID");
	/* x87, SSE, AVX, AVX-512: what the program was made to use on this host. */
	for (uint32_t i = 0; i < all.head.nent; i++)
		if (all.entry[i].function == 0xd && all.entry[i].index == 0)
			xcrs.xcrs[0].value = all.entry[i].eax & 0xe7;
	must(ioctl(v->fd, KVM_SET_CPUID2, &all), "KVM_SET_CPUID2");
	v->xsave = xcrs.xcrs[0].value;
	if (v->xsave)
		must(ioctl(v->fd, KVM_SET_XCRS, &xcrs), "KVM_SET_XCRS");
}

static void set_sregs(struct vcpu *v)
{
	struct kvm_segment code = { .limit = ~0u, .selector = SEL_CODE0, .type = 11, .present = 1,
				    .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0u, .selector = SEL_DATA0, .type = 3, .present = 1,
				    .s = 1, .db = 1, .g = 1 };
	struct kvm_segment tss = { .base = GUEST_TSS + v->id * 128, .limit = 103,
				   .selector = SEL_TSS + 16 * v->id, .type = 11, .present = 1 };
	struct kvm_sregs s;

	vcpu_sregs(v, &s);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.gs.base = (uint64_t)&guest_cpus[v->id];
	s.tr = tss;
	s.ldt = (struct kvm_segment){ .unusable = 1 };
	s.gdt.base = GUEST_GDT;
	s.gdt.limit = PAGE_SIZE - 1;
	s.idt.base = GUEST_IDT;
	s.idt.limit = PAGE_SIZE - 1;
	s.cr0 = 0x80050033;	/* PG AM WP NE ET MP PE */
	s.cr3 = GUEST_PML4;
	s.cr4 = 0x620;		/* OSXMMEXCPT OSFXSR PAE */
	if (v->xsave)		/* Linux turns XSAVE off on Bochs */
		s.cr4 |= 0x40000;
	s.efer = 0xd00;		/* NXE LMA LME */
	must(ioctl(v->fd, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
}

static void vcpu_create(struct vm *vm, int id)
{
	struct vcpu *v = &vm->vcpu[id];
	struct guest_cpu *cpu = vm_var(vm, guest_cpus[id]);
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };

	v->vm = vm;
	v->id = id;
	v->fd = must(ioctl(vm->fd, KVM_CREATE_VCPU, id), "KVM_CREATE_VCPU");
	v->run_size = must(ioctl(kvm_dev(), KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED)
		tap_bail("mmap of a vCPU");
	set_cpuid(v);
	set_sregs(v);
	must(ioctl(v->fd, KVM_SET_MP_STATE, &mp), "KVM_SET_MP_STATE");
	*cpu = (struct guest_cpu){ .self = &guest_cpus[id], .id = id, .vector = -1 };
}

struct vm *vm_create(uint64_t size, int vcpus, unsigned int flags)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	vm->fd = must(ioctl(kvm_dev(), KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	must(fcntl(vm->fd, F_SETFD, FD_CLOEXEC), "FD_CLOEXEC");
	must(ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	if (flags & VM_IRQCHIP)
		must(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	vm->map = vm_alloc(size, flags);
	vm->map_size = size;
	must(vm_set_slot(vm, 0, 0, size, vm->map, 0), "RAM");
	make_tables(vm);
	load_image(vm);
	for (vm->vcpus = 0; vm->vcpus < vcpus; vm->vcpus++)
		vcpu_create(vm, vm->vcpus);
	return vm;
}

void vm_destroy(struct vm *vm)
{
	for (int i = 0; i < vm->vcpus; i++) {
		munmap(vm->vcpu[i].run, vm->vcpu[i].run_size);
		close(vm->vcpu[i].fd);
	}
	close(vm->fd);
	munmap(vm->map, vm->map_size);
	free(vm);
}

/* ---- running ----------------------------------------------------------------- */

void vcpu_regs(struct vcpu *v, struct kvm_regs *regs)
{
	must(ioctl(v->fd, KVM_GET_REGS, regs), "KVM_GET_REGS");
}

void vcpu_sregs(struct vcpu *v, struct kvm_sregs *sregs)
{
	must(ioctl(v->fd, KVM_GET_SREGS, sregs), "KVM_GET_SREGS");
}

void vcpu_run(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	v->stop = 0;
	v->error = 0;
	v->exit = KVM_EXIT_UNKNOWN;
	if (ioctl(v->fd, KVM_RUN, 0)) {
		v->error = errno;
		return;
	}
	v->exit = run->exit_reason;
	if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_STOP &&
	    run->io.direction == KVM_EXIT_IO_OUT) {
		struct kvm_regs regs;

		v->stop = *((uint8_t *)run + run->io.data_offset);
		vcpu_regs(v, &regs);
		v->value = regs.rdi;
	}
}

uint64_t vcpu_resume(struct vcpu *v)
{
	do
		vcpu_run(v);
	while (v->error == EAGAIN || v->error == EINTR);
	return v->stop == STOP_DONE || v->stop == STOP_SYNC ? v->value : 0;
}

void vcpu_prepare4(struct vcpu *v, void *fn, const uint64_t arg[4])
{
	struct kvm_regs regs = {
		.rip = (uint64_t)guest_call_entry,
		.rsp = GUEST_STACKS + (v->id + 1) * GUEST_STACK,
		.rflags = 2,
		.rax = (uint64_t)fn,
		.rdi = arg[0],
		.rsi = arg[1],
		.rdx = arg[2],
		.rcx = arg[3],
	};

	must(ioctl(v->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

uint64_t vcpu_call4(struct vcpu *v, void *fn, const uint64_t arg[4])
{
	vcpu_prepare4(v, fn, arg);
	return vcpu_resume(v);
}

int64_t vcpu_hc(struct vcpu *v, uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t *arg = (*vm_var(v->vm, guest_hc_args))[v->id];

	arg[0] = nr, arg[1] = a, arg[2] = b, arg[3] = c, arg[4] = d;
	return vcpu_call(v, g_hc_args);
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;

	return (void *)vcpu_call4(v, v->call.fn, v->call.arg);
}

void vcpu_start4(struct vcpu *v, void *fn, const uint64_t arg[4])
{
	v->call.fn = fn;
	memcpy(v->call.arg, arg, sizeof(v->call.arg));
	if (pthread_create(&v->thread, NULL, vcpu_thread, v))
		tap_bail("pthread_create");
}

uint64_t vcpu_join(struct vcpu *v)
{
	void *value;

	pthread_join(v->thread, &value);
	return (uint64_t)value;
}

bool vcpu_done(const struct vcpu *v)
{
	return v->stop == STOP_DONE;
}

void vcpu_explain(struct vcpu *v)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	vcpu_regs(v, &r);
	vcpu_sregs(v, &s);
	tap_diag("vCPU %d: exit %u stop %u error %d rip %#llx rsp %#llx rflags %#llx cr3 %#llx",
		 v->id, v->exit, v->stop, v->error, r.rip, r.rsp, r.rflags, s.cr3);
	if (v->stop == STOP_TRAP) {
		struct trap_frame *f = vm_host(v->vm, v->value);

		tap_diag("trap %ld error %#lx cr2 %#llx rip %#lx rsp %#lx rflags %#lx", f->vector, f->error, s.cr2,
			 f->rip, f->rsp, f->rflags);
	}
	if (v->exit == KVM_EXIT_INTERNAL_ERROR) {
		tap_diag("internal error %u", v->run->internal.suberror);
		for (unsigned int i = 0; i < v->run->internal.ndata && i < 16; i++)
			tap_diag("data %#llx", v->run->internal.data[i]);
	}
	if (v->exit == KVM_EXIT_FAIL_ENTRY)
		tap_diag("entry failure %#llx", v->run->fail_entry.hardware_entry_failure_reason);
	if (v->exit == KVM_EXIT_SYSTEM_EVENT)
		tap_diag("system event %u", v->run->system_event.type);
	if (v->exit == KVM_EXIT_MMIO)
		tap_diag("MMIO %s at %#llx", v->run->mmio.is_write ? "write" : "read",
			 v->run->mmio.phys_addr);
}

bool vcpu_must_end(struct vcpu *v, const char *what)
{
	if (vcpu_done(v))
		return true;
	ok(false, "%s: the guest goes on", what);
	vcpu_explain(v);
	return false;
}
