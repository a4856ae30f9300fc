// SPDX-License-Identifier: GPL-2.0
/*
 * Before the module promises anything: run a tiny VM, see that every hook fires
 * and that a guest still computes what it should.
 *
 * The VM is made through /dev/kvm in the context of whoever loads the module,
 * like a VMM makes one: KVM wants a process with an address space. The
 * descriptors leave the process's table at once; only the files are kept.
 *
 * One hook may stay silent, the one at huge pages that are split: see fault.c.
 */
#include "redoubt.h"

#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <asm/kvm_para.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>

#include "hook.h"

/* Guest-physical layout; the guest's linear addresses are the same. */
#define ST_STEAL	0x0000		/* structures that KVM writes */
#define ST_CLOCK	0x0100
#define ST_PML4		0x1000
#define ST_PDPT		0x2000
#define ST_PD		0x3000
#define ST_CODE		0x4000
#define ST_LOW_SIZE	0x5000
#define ST_HOLE		0x200000	/* becomes memory once the guest has read it */
#define ST_PASSING	0x201000	/* a slot that comes and goes, and KVM's roots with it */
#define ST_DATA		0x400000	/* a huge page if the host gives one */
#define ST_DATA_SIZE	0x200000UL
#define ST_STORED_AT	ST_DATA
#define ST_INPUT_AT	(ST_DATA + 0x1008)

#define ST_PORT		0x5d
#define ST_STORED	0x52		/* in the code below too */
#define ST_INPUT	0x44
#define ST_HOLE_READ	0x53

/*
 * Registers come set. What is for which hook: the nop is single-stepped, for the
 * vendor's exception handlers; the store faults a page in; ins is written to
 * memory by the emulator; so is the locked increment, by its cmpxchg.
 */
asm(	".pushsection .rodata\n"
	"rdt_st_code:\n"
	"	nop\n"
	"	movb $0x52, (%r9)\n"
	"	insb\n"
	"	lock incb (%r10)\n"
	"	xorl %edx, %edx\n"
	"	testl %r8d, %r8d\n"
	"	jz 1f\n"
	"	vmcall\n"
	"	hlt\n"
	"1:	vmmcall\n"
	"	hlt\n"
	"rdt_st_code_end:\n"
	".popsection\n");
extern const u8 rdt_st_code[], rdt_st_code_end[];

/* The exits that must come, in this order. */
static const u32 rdt_st_exits[] = {
	KVM_EXIT_DEBUG,		/* behind the nop */
	KVM_EXIT_IO,		/* ins wants a byte */
	KVM_EXIT_MMIO,		/* lock inc reads the hole */
	KVM_EXIT_HLT,
};

struct rdt_st {
	struct file *kvm, *vm, *vcpu;
	unsigned long aux;		/* arguments, the hole's page, the low slot */
	unsigned long data;		/* ST_DATA_SIZE twice: one of them is aligned */
	unsigned long run;
	unsigned long run_size;
	const char *step;		/* for the log when it fails */
};

#define ST_AUX_ARGS	0x0000
#define ST_AUX_HOLE	0x1000
#define ST_AUX_LOW	0x2000
#define ST_AUX_SIZE	(ST_AUX_LOW + ST_LOW_SIZE)

static unsigned long rdt_st_data(const struct rdt_st *st)
{
	return ALIGN(st->data, ST_DATA_SIZE);
}

static struct kvm_run __user *rdt_st_run(const struct rdt_st *st)
{
	return (struct kvm_run __user *)st->run;
}

static int rdt_st_write(unsigned long to, const void *from, size_t len)
{
	return copy_to_user((void __user *)to, from, len) ? -EFAULT : 0;
}

/* An ioctl takes its argument from user memory and puts its answer there. */
static long rdt_st_ioctl(struct rdt_st *st, struct file *file, unsigned int cmd,
			 void *arg, size_t len)
{
	void __user *user = (void __user *)(st->aux + ST_AUX_ARGS);
	long ret;

	if (copy_to_user(user, arg, len))
		return -EFAULT;
	ret = vfs_ioctl(file, cmd, (unsigned long)user);
	if (ret >= 0 && (_IOC_DIR(cmd) & _IOC_READ) && copy_from_user(arg, user, len))
		return -EFAULT;
	return ret;
}

/* The file behind a descriptor that @cmd makes; the descriptor itself goes. */
static struct file *rdt_st_file(struct file *from, unsigned int cmd)
{
	long fd = vfs_ioctl(from, cmd, 0);
	struct file *file;

	if (fd < 0)
		return ERR_PTR(fd);
	file = fget(fd);
	close_fd(fd);
	return file ?: ERR_PTR(-EBADF);
}

static unsigned long rdt_st_map(struct file *file, unsigned long size, unsigned long flags)
{
	return vm_mmap(file, 0, size, PROT_READ | PROT_WRITE, flags, 0);
}

static int rdt_st_slot(struct rdt_st *st, u32 slot, u32 flags, u64 gpa, u64 size,
		       unsigned long at)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = at,
	};

	return rdt_st_ioctl(st, st->vm, KVM_SET_USER_MEMORY_REGION, &region, sizeof(region));
}

static int rdt_st_create(struct rdt_st *st)
{
	struct file *file;
	unsigned long at;
	long ret;

	st->step = "memory";
	at = rdt_st_map(NULL, ST_AUX_SIZE, MAP_PRIVATE | MAP_ANONYMOUS);
	if (IS_ERR_VALUE(at))
		return at;
	st->aux = at;
	at = rdt_st_map(NULL, 2 * ST_DATA_SIZE, MAP_PRIVATE | MAP_ANONYMOUS);
	if (IS_ERR_VALUE(at))
		return at;
	st->data = at;

	st->step = "/dev/kvm";
	file = filp_open("/dev/kvm", O_RDWR, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	st->kvm = file;

	st->step = "KVM_CREATE_VM";
	file = rdt_st_file(st->kvm, KVM_CREATE_VM);
	if (IS_ERR(file))
		return PTR_ERR(file);
	st->vm = file;

	st->step = "KVM_CREATE_VCPU";
	file = rdt_st_file(st->vm, KVM_CREATE_VCPU);
	if (IS_ERR(file))
		return PTR_ERR(file);
	st->vcpu = file;

	st->step = "mmap of the vCPU";
	ret = vfs_ioctl(st->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (ret < 0)
		return ret;
	st->run_size = ret;
	at = rdt_st_map(st->vcpu, st->run_size, MAP_SHARED);
	if (IS_ERR_VALUE(at))
		return at;
	st->run = at;
	return 0;
}

/* Page tables and code, in slots. One table of each level, 2 MiB pages. */
static int rdt_st_load(struct rdt_st *st)
{
	const u64 table = 0x7, page = 0x87;	/* present, writable, user; large */
	const u64 pml4 = ST_PDPT | table, pdpt = ST_PD | table;
	const u64 pd[] = { 0 | page, ST_HOLE | page, ST_DATA | page };
	const u8 hole = ST_HOLE_READ;
	unsigned long low = st->aux + ST_AUX_LOW;
	int ret;

	st->step = "guest memory";
	ret = rdt_st_write(low + ST_PML4, &pml4, sizeof(pml4)) ?:
	      rdt_st_write(low + ST_PDPT, &pdpt, sizeof(pdpt)) ?:
	      rdt_st_write(low + ST_PD, pd, sizeof(pd)) ?:
	      rdt_st_write(low + ST_CODE, rdt_st_code, rdt_st_code_end - rdt_st_code) ?:
	      rdt_st_write(st->aux + ST_AUX_HOLE, &hole, sizeof(hole));
	if (ret)
		return ret;

	st->step = "KVM_SET_USER_MEMORY_REGION";
	return rdt_st_slot(st, 0, 0, 0, ST_LOW_SIZE, low) ?:
	       rdt_st_slot(st, 1, 0, ST_DATA, ST_DATA_SIZE, rdt_st_data(st));
}

/* 64-bit mode: the one that needs no unrestricted guest on old Intel CPUs. */
static int rdt_st_registers(struct rdt_st *st)
{
	const struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1,
	};
	const struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1,
	};
	const struct kvm_segment tss = {
		.limit = 0x67, .selector = 24, .type = 11, .present = 1,
	};
	struct kvm_regs regs = {
		.rax = RDT_HC_VERSION,
		.rdx = ST_PORT,
		.rdi = ST_INPUT_AT,
		.r8 = rdt_is_vmx,
		.r9 = ST_STORED_AT,
		.r10 = ST_HOLE,
		.rip = ST_CODE,
		.rflags = X86_EFLAGS_FIXED,
	};
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[2];
	} msrs = {
		.head.nmsrs = ARRAY_SIZE(msrs.entry),
		.entry[0] = { .index = MSR_KVM_STEAL_TIME, .data = ST_STEAL | KVM_MSR_ENABLED },
		.entry[1] = { .index = MSR_KVM_SYSTEM_TIME_NEW, .data = ST_CLOCK | KVM_MSR_ENABLED },
	};
	struct kvm_sregs sregs;
	long ret;

	st->step = "KVM_SET_SREGS";
	ret = rdt_st_ioctl(st, st->vcpu, KVM_GET_SREGS, &sregs, sizeof(sregs));
	if (ret)
		return ret;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = tss;
	sregs.ldt = (struct kvm_segment) { .unusable = 1 };
	sregs.cr0 = X86_CR0_PE | X86_CR0_NE | X86_CR0_ET | X86_CR0_WP | X86_CR0_PG;
	sregs.cr3 = ST_PML4;
	sregs.cr4 = X86_CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;
	ret = rdt_st_ioctl(st, st->vcpu, KVM_SET_SREGS, &sregs, sizeof(sregs));
	if (ret)
		return ret;

	st->step = "KVM_SET_REGS";
	ret = rdt_st_ioctl(st, st->vcpu, KVM_SET_REGS, &regs, sizeof(regs));
	if (ret)
		return ret;

	st->step = "KVM_SET_MSRS";	/* says how many it has set */
	ret = rdt_st_ioctl(st, st->vcpu, KVM_SET_MSRS, &msrs, sizeof(msrs));
	return ret < 0 ? ret : ret == ARRAY_SIZE(msrs.entry) ? 0 : -EINVAL;
}

static int rdt_st_single_step(struct rdt_st *st, bool on)
{
	struct kvm_guest_debug debug = {
		.control = on ? KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP : 0,
	};

	return rdt_st_ioctl(st, st->vcpu, KVM_SET_GUEST_DEBUG, &debug, sizeof(debug));
}

/* What user space has to do before the guest can go on. */
static int rdt_st_answer(struct rdt_st *st, u32 reason)
{
	struct kvm_run __user *run = rdt_st_run(st);
	typeof_member(struct kvm_run, mmio) mmio;
	typeof_member(struct kvm_run, io) io;

	switch (reason) {
	case KVM_EXIT_DEBUG:
		return rdt_st_single_step(st, false);
	case KVM_EXIT_IO:
		if (copy_from_user(&io, &run->io, sizeof(io)))
			return -EFAULT;
		if (io.direction != KVM_EXIT_IO_IN || io.port != ST_PORT ||
		    io.size != 1 || io.count != 1 ||
		    io.data_offset >= st->run_size)
			return -EIO;
		return rdt_st_slot(st, 3, 0, ST_PASSING, PAGE_SIZE, st->aux + ST_AUX_HOLE) ?:
		       rdt_st_slot(st, 3, 0, ST_PASSING, 0, st->aux + ST_AUX_HOLE) ?:
		       put_user((u8)ST_INPUT, (u8 __user *)run + io.data_offset);
	case KVM_EXIT_MMIO:
		if (copy_from_user(&mmio, &run->mmio, sizeof(mmio)))
			return -EFAULT;
		if (mmio.is_write || mmio.phys_addr != ST_HOLE || mmio.len != 1)
			return -EIO;
		/*
		 * Between the emulator's read and its write the hole becomes
		 * memory: so the write is a true compare-and-exchange.
		 */
		return rdt_st_slot(st, 2, 0, ST_HOLE, PAGE_SIZE, st->aux + ST_AUX_HOLE) ?:
		       put_user((u8)ST_HOLE_READ, &run->mmio.data[0]);
	}
	return 0;
}

static int rdt_st_execute(struct rdt_st *st)
{
	u32 reason;
	long ret;
	int i;

	st->step = "KVM_SET_GUEST_DEBUG";
	ret = rdt_st_single_step(st, true);
	if (ret)
		return ret;

	for (i = 0; i < ARRAY_SIZE(rdt_st_exits); i++) {
		st->step = "KVM_RUN";
		ret = vfs_ioctl(st->vcpu, KVM_RUN, 0);
		if (ret)
			return ret;
		if (get_user(reason, &rdt_st_run(st)->exit_reason))
			return -EFAULT;
		if (reason != rdt_st_exits[i]) {
			pr_err("self-test: the guest ended with exit %u where %u was expected\n",
			       reason, rdt_st_exits[i]);
			return -EIO;
		}
		st->step = "answer to the guest";
		ret = rdt_st_answer(st, reason);
		if (ret)
			return ret;
	}
	return 0;
}

static bool rdt_st_holds(unsigned long at, u8 expected)
{
	u8 value;

	return !get_user(value, (u8 __user *)at) && value == expected;
}

/* With our hooks in place KVM must still do what it always did. */
static int rdt_st_check(struct rdt_st *st)
{
	unsigned long data = rdt_st_data(st);
	struct kvm_regs regs;
	long ret;

	st->step = "KVM_GET_REGS";
	ret = rdt_st_ioctl(st, st->vcpu, KVM_GET_REGS, &regs, sizeof(regs));
	if (ret)
		return ret;
	st->step = "hypercall's answer";
	if (regs.rax != RDT_ABI_VERSION)
		return -EIO;
	st->step = "guest's stores";
	if (!rdt_st_holds(data + ST_STORED_AT - ST_DATA, ST_STORED) ||
	    !rdt_st_holds(data + ST_INPUT_AT - ST_DATA, ST_INPUT) ||
	    !rdt_st_holds(st->aux + ST_AUX_HOLE, ST_HOLE_READ + 1))
		return -EIO;

	/* Splits the huge page, if the host had one for us. */
	st->step = "dirty logging";
	return rdt_st_slot(st, 1, KVM_MEM_LOG_DIRTY_PAGES, ST_DATA, ST_DATA_SIZE, data);
}

struct rdt_st_put {
	struct work_struct work;
	struct file *file;
};

static void rdt_st_put_work(struct work_struct *work)
{
	__fput_sync(container_of(work, struct rdt_st_put, work)->file);
}

/* Here fput() acts only when insmod returns to user space: too late to see the VM end. */
static void rdt_st_put(struct file *file)
{
	struct rdt_st_put put = { .file = file };

	if (!file)
		return;
	INIT_WORK_ONSTACK(&put.work, rdt_st_put_work);
	schedule_work(&put.work);
	flush_work(&put.work);
	destroy_work_on_stack(&put.work);
}

static void rdt_st_destroy(struct rdt_st *st)
{
	if (st->run)
		vm_munmap(st->run, st->run_size);
	rdt_st_put(st->vcpu);
	rdt_st_put(st->vm);
	rdt_st_put(st->kvm);
	if (st->data)
		vm_munmap(st->data, 2 * ST_DATA_SIZE);
	if (st->aux)
		vm_munmap(st->aux, ST_AUX_SIZE);
}

int rdt_selftest(void)
{
	struct rdt_st st = {};
	const char *silent;
	int ret;

	if (!current->mm) {
		pr_err("self-test: load the module from a process, it has to run a VM\n");
		return -EINVAL;
	}

	ret = rdt_st_create(&st) ?:
	      rdt_st_load(&st) ?:
	      rdt_st_registers(&st) ?:
	      rdt_st_execute(&st) ?:
	      rdt_st_check(&st);
	rdt_st_destroy(&st);
	if (ret) {
		pr_err("self-test: %s: error %d\n", st.step, ret);
		return ret;
	}

	silent = rdt_hooks_silent();
	if (silent) {
		pr_err("hook %s did not fire in the self-test\n", silent);
		return -ENODEV;
	}
	return 0;
}
