/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What redoubt_standby leaves in memory for a crash kernel: where the registered VMs are (F1).
 *
 * The root is one frame. Its physical address is the module's parameter "crash_root" (root only); who loads a crash kernel
 * hands it on. From there everything is reached by physical addresses, and by virtual ones through the page tables of the
 * VMM, whose upper half is the kernel's. There is no lock and no half-written state: a record is written whole, in memory of
 * its own, before the root's word names it, and is freed behind a grace only when the word names another one, or none. What
 * the checksums are for is memory that the failing kernel has overwritten. A reader trusts nothing: not magic, not counts.
 *
 * Integers are in host order, addresses are bytes, reserved fields are 0. CRCs are CRC-32 as zlib's crc32(), over the
 * structure with the field itself being 0.
 */
#ifndef _UAPI_LINUX_REDOUBT_CRASH_H
#define _UAPI_LINUX_REDOUBT_CRASH_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define RDT_CRASH_ROOT_MAGIC	0x746f6f7254445221ull	/* "!RDTroot" */
#define RDT_CRASH_VM_MAGIC	0x20206d7654445221ull	/* "!RDTvm  " */
#define RDT_CRASH_CPU_MAGIC	0x2075706354445221ull	/* "!RDTcpu " */
#define RDT_CRASH_VERSION	3

#define RDT_CRASH_ROOT_BYTES	4096
#define RDT_CRASH_MAX_VMS	256
#define RDT_CRASH_MAX_CPUS	8192
#define RDT_CRASH_MAX_RANGES	512
#define RDT_CRASH_MAX_NOTE	(16u << 20)
#define RDT_CRASH_MAX_LIVE	(1u << 20)

/**
 * struct rdt_crash_root - the root.
 * @crc: over the first RDT_CRASH_ROOT_HEAD bytes, which do not change after the module's start.
 * @self: its own physical address. @levels: of the page tables, 4 or 5. @cpus: physical address of u64[@nr_cpus]: those of
 * a struct rdt_crash_cpu each, 0 where there is none; by CPU number. @cpu_bytes: of each. @release: uname -r.
 * @works: physical address of struct rdt_crash_work[RDT_CRASH_WORKS]. @vms: physical addresses of struct rdt_crash_vm, or 0.
 */
struct rdt_crash_root {
	__u64 magic;
	__u32 version;
	__u32 crc;
	__u64 self;
	__u32 levels;
	__u32 nr_cpus;
	__u64 cpus;
	__u64 cpu_bytes;
	char release[72];
	__u64 works;
	__u64 vms[RDT_CRASH_MAX_VMS];
};
#define RDT_CRASH_ROOT_HEAD	128

/**
 * struct rdt_crash_work - a vCPU's thread was between two exits, asked by the kernel to do something else first (its turn is over).
 * @vcpu: struct kvm_vcpu's address. @check: @vcpu x RDT_CRASH_WORK_FACTOR, exclusive-or kvm_vcpu.stat.exits of that moment: while that has not
 * grown no exit has begun since. Anywhere in the table; another vCPU may have taken the place.
 */
struct rdt_crash_work {
	__u64 vcpu;
	__u64 check;
};
#define RDT_CRASH_WORKS		1024
#define RDT_CRASH_WORK_FACTOR	0x61c8864680b583ebull

/**
 * struct rdt_crash_range - @count frames of an image from @first on; the VMM has them at @hva.
 */
struct rdt_crash_range {
	__u64 first;
	__u64 count;
	__u64 hva;
};

/**
 * struct rdt_crash_vm - a registered VM; behind it u64 vcpus[@nr_vcpus] (struct kvm_vcpu's addresses), struct
 * rdt_crash_range[@nr_ranges], u64[@note_bytes / 4096, rounded up] (physical addresses of the note's frames), u64[@live_bytes / 4096]
 * (those of the live area's).
 * @crc: over @bytes, all of that. @self: its own physical address. @uuid: as registered. @change: counts the records of
 * this VM. @pgd: physical address of the VMM's top page table. @kvm: struct kvm's address. @note_bytes, @note_crc: what
 * the agent wants to find again; 0: nothing. @live_bytes: memory of the agent's, which it goes on writing to: no checksum is of it here.
 */
struct rdt_crash_vm {
	__u64 magic;
	__u32 version;
	__u32 crc;
	__u64 self;
	__u64 bytes;
	__u8 uuid[16];
	__u64 change;
	__u64 pgd;
	__u64 kvm;
	__u32 nr_vcpus;
	__u32 nr_ranges;
	__u32 note_bytes;
	__u32 note_crc;
	__u32 live_bytes;
	__u32 reserved;
};

/* rdt_crash_cpu.flags */
#define RDT_CRASH_FPU_IN_MEMORY	(1 << 0)	/* the task's FPU registers were saved before: the XSAVE area is not its own */

/**
 * struct rdt_crash_cpu - what a CPU had in its registers when it was stopped: written on the way into the crash kernel; behind it
 * the XSAVE area.
 * @magic: 0 until the rest is written. @cpu: its number. @fpstate: address of the struct fpstate that its FPU registers
 * belong to. @online: how many CPUs were online: one that has left nothing here did not stop. @xcr0: XCR0, of which the XSAVE area has all, in the standard format; 0: FXSAVE's. @dr: debug registers 0 to 3. @tsc: RDTSC.
 * @monotonic: CLOCK_MONOTONIC, ns. @clock: the time base of KVM's clocks: since the boot, by the raw clock, ns.
 * @context: preempt_count() without NMIs and what the tracer itself adds or not (one preempt_disable()): was it in a switch, under fpregs_lock() or
 * in kernel_fpu_begin(), where neither the CPU nor memory may have the task's FPU registers?
 * @dr6: debug register 6. @kernel_gs_base: MSR 0xc0000102. On Intel both are the guest's while KVM has its state loaded.
 */
struct rdt_crash_cpu {
	__u64 magic;
	__u32 cpu;
	__u32 flags;
	__u64 fpstate;
	__u64 xcr0;
	__u64 dr[4];
	__u64 online;
	__u64 tsc;
	__u64 monotonic;
	__u64 clock;
	__u64 context;
	__u64 dr6;
	__u64 kernel_gs_base;
	__u64 reserved;
};

/* rdt_crash_cpu.context */
#define RDT_CRASH_PREEMPT	0x000000ff
#define RDT_CRASH_SOFTIRQ	0x0000ff00
#define RDT_CRASH_HARDIRQ	0x000f0000

/* ---- /dev/redoubt-vmcs: redoubt_vmcs.ko, in a crash kernel on Intel; root only ---- */

/**
 * struct rdt_vmcs_field - a field of a VMCS (F1).
 * @encoding: as VMREAD takes it (Intel SDM, volume 3, appendix B). @error: 0, or -ENODATA: this CPU has no such field. @value: 0 then.
 */
struct rdt_vmcs_field {
	__u32 encoding;
	__s32 error;
	__u64 value;
};
#define RDT_VMCS_MAX_FIELDS	128

/**
 * struct rdt_vmcs_read - fields of a VMCS in the memory of the kernel that has panicked (F1).
 * @address: its physical address; of memory, which the caller must know by /proc/vmcore. @nr: 1 to RDT_VMCS_MAX_FIELDS. @reserved: 0.
 * @fields: address of struct rdt_vmcs_field[@nr]; encodings in, the others out.
 *
 * The VMCS must have been cleared by whoever had it, as Linux does when it panics: nobody can tell from the region. It is cleared again when
 * it has been read, so it can be read more than once. May sleep.
 *
 * Returns 0, or -EINVAL: @reserved, or @address is no page's, or behind the end of physical memory; -EPERM: this kernel's own memory; -ENXIO: it
 * cannot be mapped; -EBADMSG: no VMCS of this CPU's revision, or the CPU does not load it; -E2BIG: @nr; -EFAULT: @fields; -ENOMEM; -EBUSY: VMX is
 * on already; -EIO: the CPU refuses VMXON, VMCLEAR or VMXOFF.
 */
struct rdt_vmcs_read {
	__u64 address;
	__u32 nr;
	__u32 reserved;
	__u64 fields;
};
#define RDT_VMCS_READ		_IOW('R', 0x70, struct rdt_vmcs_read)

#endif
