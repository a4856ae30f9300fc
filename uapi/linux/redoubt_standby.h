/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * redoubt_standby: what a VM has in memory, kept and read when its VMM or its host's mains are gone.
 *
 * A VM is registered at /dev/redoubt-standby: the descriptor *is* the registration, and holds the VM, its vCPUs and
 * its VMM's memory, so that they stay when the VMM is killed. Everything else is the generic netlink family
 * "redoubt_standby", version 1: in the initial network namespace only, CAP_NET_ADMIN in the initial user namespace,
 * and, where guest state comes out or a guest is slowed (STREAM, VCPU, SCAN, LIMIT), CAP_SYS_PTRACE there too. Attributes are validated strictly;
 * integers are in host order. A frame is 4096 bytes. The module has no policy: it reads, sends and tells. Whoever may open
 * an nlmon device and a packet socket (CAP_NET_ADMIN and CAP_NET_RAW in the initial network namespace) sees all netlink
 * messages of the host, pages of a stream, too.
 */
#ifndef _UAPI_LINUX_REDOUBT_STANDBY_H
#define _UAPI_LINUX_REDOUBT_STANDBY_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* ---- /dev/redoubt-standby -------------------------------------------- */

#define RDT_SB_MAX_VCPUS	1024

/**
 * struct rdt_sb_register - hold a VM, once a descriptor.
 * @vm_fd: in, KVM's descriptor of the VM, of any process (pidfd_getfd()). @nr_vcpus: in, 1 to RDT_SB_MAX_VCPUS: all that
 * the VM has. @vcpu_fds: in, user pointer to __s32[@nr_vcpus], the vCPUs' descriptors in any order. @uuid: in, how the
 * agent knows the VM, not all zero. @flags, @reserved: 0.
 * @id: out, the VM's number in the family, never reused while the module is loaded.
 * @slots: out, memory slots of address space 0 now.
 *
 * The caller's own descriptors may be closed afterwards. Closing the last copy of this descriptor ends the registration:
 * streams are stopped, then memory, vCPUs and VM let go: by the last thread, if one waits for a page that does not come. The
 * module stays loaded for that long. The memory of a VMM that ended stays charged until then.
 * Caller: CAP_SYS_PTRACE in the initial user namespace (what is held can be read by the family).
 * Errors: -EPERM; -EINVAL a field, or not all vCPUs; -EFAULT; -EBADF not a VM, or not a vCPU of it; -EBUSY this
 * descriptor has a VM, or the VM is registered, or KVM did not answer; -ESRCH the VMM's memory is gone already; -EOPNOTSUPP
 * memory or vCPU state that KVM does not show (encrypted); -EIO KVM answers this VM nothing any more; -ENOSPC no numbers
 * are left; -ENOMEM. The log has a line for each but -EFAULT and -ENOMEM.
 */
struct rdt_sb_register {
	__s32 vm_fd;
	__u32 nr_vcpus;
	__u64 vcpu_fds;
	__u8 uuid[16];
	__u32 flags;
	__u32 id;
	__u32 slots;
	__u32 reserved;
};
#define RDT_SB_REGISTER		_IOWR('R', 0x60, struct rdt_sb_register)

/**
 * struct rdt_sb_crash - what a crash kernel shall find of this descriptor's VM (F1), in the place of what it would have found.
 * @ranges: in, user pointer to struct rdt_crash_range[@nr_ranges] (linux/redoubt_crash.h), RDT_CRASH_MAX_RANGES at most: where
 * the VMM has the image's frames. @nr_ranges 0: the VM's slots as they are now, by gfn; so it is from the registration on.
 * @note: in, user pointer to @note_bytes bytes, RDT_CRASH_MAX_NOTE at most, that are kept for the crash kernel as they are
 * now; 0: none. @live: in, user address of @live_bytes bytes, whole pages, RDT_CRASH_MAX_LIVE at most, which the caller goes on writing
 * to: they are pinned, and the crash kernel is told where they are, until the next call or the end of the registration, whatever
 * becomes of the caller; memory that is mapped shared, so that a fork() does not take the caller to another copy. 0: none. @flags: 0.
 *
 * A panic at any moment finds all of the old, or all of the new. Caller: who has the descriptor.
 * Errors: -ENXIO no VM is registered; -EINVAL; -EFAULT; -ENOSPC RDT_CRASH_MAX_VMS were registered before; -ENOMEM. After an
 * error the old is found.
 */
struct rdt_sb_crash {
	__u64 ranges;
	__u64 note;
	__u64 live;
	__u32 nr_ranges;
	__u32 note_bytes;
	__u32 live_bytes;
	__u32 flags;
};
#define RDT_SB_CRASH		_IOW('R', 0x61, struct rdt_sb_crash)

/* ---- the family ------------------------------------------------------- */

#define RDT_SB_GENL_NAME	"redoubt_standby"
#define RDT_SB_GENL_VERSION	1
#define RDT_SB_GROUP_EVENTS	"events"
#define RDT_SB_GROUP_POWER	"power"

/**
 * enum rdt_sb_cmd - requests, with their attributes, and what the module sends.
 *
 * @RDT_SB_CMD_GET: [VM]. Answer: VM, UUID, VCPUS, ONLINE, ORPHAN, BYTES, SLOT (one each, at most RDT_SB_MAX_SLOTS),
 * [FAULTS, LIMIT_INFO], STREAM_INFO (one each). -ENOENT. Dump, without attributes: a message a VM, without SLOT.
 * @RDT_SB_CMD_STREAM: VM, STREAM (a number the caller chooses, unique in the VM), DATA_FD, [SPACE, RANGES, FLAGS]. Begins
 * a stream: the memory is sent to the socket as PAGES messages, then STREAM_END. Without RANGES: all slots, in GFN space.
 * An empty RANGES opens a stream that sends only what AGAIN asks for. The stream stays, idle, for AGAIN until CANCEL or
 * the end of the registration. -ENOENT, -EEXIST, -EBADF no such socket, -EBUSY a stream, of whatever VM, has this socket, -EINVAL,
 * -EOPNOTSUPP the VM is encrypted, -ENOSPC RDT_SB_MAX_STREAMS.
 * @RDT_SB_CMD_AGAIN: VM, STREAM, [RANGES]. These frames as they are now, behind whatever the stream has still to send,
 * then STREAM_END again. Without RANGES only STREAM_END. -ENOENT; -ENOSPC too many ranges wait (RDT_SB_MAX_QUEUED): ask
 * again; -EPIPE the stream is lost.
 * @RDT_SB_CMD_CANCEL: VM, STREAM. When it is answered the stream is no more, and sends nothing. Who must wait for a page longer
 * than a second is answered then: the stream's thread ends, and lets its socket and the VM's memory go, when the page comes.
 * -ENOENT.
 * @RDT_SB_CMD_VCPU: VM, [INDEX, MSRS]. Answer: VM, [INDEX], ITEM (one each): what KVM's GET ioctls give of that vCPU, or
 * without INDEX of the VM. -ENOENT; -EBUSY a vCPU (without INDEX any) is or was running meanwhile, or KVM did not answer in a
 * second (stop the VM first); -ESTALE the VM has got more vCPUs since it was registered.
 * @RDT_SB_CMD_SCAN: VM, FIRST, FRAMES (1 to RDT_SB_MAX_SCAN), of the VMM's addresses (HVA space). Answer: VM, FIRST, FRAMES, DIRTY,
 * FAULTS: which of these frames were written since the scan before, by a vCPU or by the VMM. What is told is write-protected before
 * the answer: who copies it *behind* the answer has it as it is, or it is dirty again. FRAMES may be fewer than asked for (some time
 * is over): ask for the rest. Behind an error, or without the answer, all frames that were asked about are dirty.
 * Before the first scan: write 4 to the VMM's /proc/PID/clear_refs, and take all frames as dirty. Without, a frame that is read for
 * the first time is told once as written. Memory that is no shared file's is told as long as it is writable.
 * Not found is what is written by no page table of the VMM's: DMA that was under way at the scan before; nested guests' control
 * structures; and what a host has swapped out, NUMA balancing has made inaccessible, or khugepaged has collapsed, between write and
 * scan: the memory's tmpfs must be mounted huge=never. A page that the host moves at that moment is told by the next scan.
 * -ENOENT, -EINVAL; -EBUSY it took too long, or one that did has not ended yet; -EOPNOTSUPP a file of a disk's file system, where
 * writeback makes pages read-only, too.
 * @RDT_SB_CMD_LIMIT: VM, [LIMIT]. Write faults of the VM's vCPUs are counted, and slowed as LIMIT says; without it, not any more,
 * and not counted. Answer: VM, FAULTS, LIMIT_INFO. Ends with the registration. -ENOENT; -EINVAL; -ESTALE vCPUs were added.
 * @RDT_SB_CMD_TRIGGER: REASON, [VM]. Tells group "events".
 * @RDT_SB_CMD_POWER: POWER, [RUNTIME, BUDGET]. Tells group "power".
 * @RDT_SB_CMD_PAGES: to the data socket: VM, STREAM, SEQ, SPACE, FIRST, FRAMES, [ZERO, LOST], DATA.
 * @RDT_SB_CMD_STREAM_END: to the data socket: VM, STREAM, SEQ, COUNT. All that was asked for by then has been sent.
 * @RDT_SB_CMD_EVENT: to group "events": EVENT, EVENT_SEQ, [VM, STREAM, REASON].
 * To group "power": POWER, EVENT_SEQ, [RUNTIME, BUDGET].
 *
 * There is no event for a VMM's death: who could copy its descriptors has its pidfd, and a pidfd's poll() is exact. GET's
 * ORPHAN tells whether a process still has the memory.
 */
enum rdt_sb_cmd {
	RDT_SB_CMD_UNSPEC,
	RDT_SB_CMD_GET,
	RDT_SB_CMD_STREAM,
	RDT_SB_CMD_AGAIN,
	RDT_SB_CMD_CANCEL,
	RDT_SB_CMD_VCPU,
	RDT_SB_CMD_TRIGGER,
	RDT_SB_CMD_POWER,
	RDT_SB_CMD_PAGES,
	RDT_SB_CMD_STREAM_END,
	RDT_SB_CMD_EVENT,
	RDT_SB_CMD_SCAN,
	RDT_SB_CMD_LIMIT,
	__RDT_SB_CMD_END,
};
#define RDT_SB_CMD_MAX		(__RDT_SB_CMD_END - 1)

/**
 * enum rdt_sb_attr - attributes of all messages.
 * @RDT_SB_A_VM: u32, rdt_sb_register.id.
 * @RDT_SB_A_UUID: 16 bytes.
 * @RDT_SB_A_VCPUS: u32, vCPUs held; INDEX is below it. @RDT_SB_A_ONLINE: u32, vCPUs that the VM has; if that is more,
 * some came later, and the registration is not whole: end it, and register all.
 * @RDT_SB_A_ORPHAN: u8, 1: no process has the memory any more, the VMM is dead. 0 may be late by a moment.
 * @RDT_SB_A_BYTES: u64, of all slots of address space 0.
 * @RDT_SB_A_SLOT: struct rdt_sb_slot.
 * @RDT_SB_A_STREAM: u32.
 * @RDT_SB_A_DATA_FD: s32, in STREAM: the *caller's* descriptor of a generic netlink socket of the initial network
 * namespace, bound to a port, of no other stream. The module holds the socket for the stream's life, so that nobody else can come to own
 * its port and get guest memory; when it is the only one left that does, the receiver is gone and the stream LOST.
 * Another socket than the one that sends requests: answers would wait behind pages.
 * @RDT_SB_A_SPACE: u8, RDT_SB_SPACE_*; what frame numbers count.
 * @RDT_SB_A_RANGES: array of struct rdt_sb_range, at most RDT_SB_MAX_RANGES.
 * @RDT_SB_A_FLAGS: u32, RDT_SB_F_*.
 * @RDT_SB_A_SEQ: u64, of the stream's messages, from 1, without holes over PAGES and STREAM_END.
 * @RDT_SB_A_FIRST: u64, the first frame.
 * @RDT_SB_A_FRAMES: u32, how many, at most RDT_SB_MAX_FRAMES: zero, lost and data.
 * @RDT_SB_A_ZERO: bitmap of FRAMES bits, in bytes, least significant bit first: those that are all zero. Absent: none.
 * Holes of a shared tmpfs file are zero, and stay holes; those of other files are filled by being read.
 * @RDT_SB_A_LOST: likewise: those that could not be read (no slot, no memory there, poisoned memory,
 * device memory). An image with one is not whole.
 * @RDT_SB_A_DATA: the others, 4096 bytes each, in order; at most RDT_SB_MAX_PAGES.
 * @RDT_SB_A_COUNT: u64, frames sent in this stream so far: data, zero and lost.
 * @RDT_SB_A_INDEX: u32, of vcpu_fds.
 * @RDT_SB_A_MSRS: array of u32, at most RDT_SB_MAX_MSRS: the MSRs to read (KVM_GET_MSR_INDEX_LIST).
 * @RDT_SB_A_ITEM: nest of RDT_SB_I_*.
 * @RDT_SB_A_REASON: u8, RDT_SB_REASON_*.
 * @RDT_SB_A_EVENT: u8, RDT_SB_EVENT_*.
 * @RDT_SB_A_EVENT_SEQ: u64, of all events of both groups. A gap, or ENOBUFS, means: GET all. Events only say "look".
 * @RDT_SB_A_POWER: u8, RDT_SB_POWER_*. @RDT_SB_A_RUNTIME: u32, seconds left. @RDT_SB_A_BUDGET: u64, bytes that may be dirty.
 * @RDT_SB_A_STREAM_INFO: struct rdt_sb_stream_info.
 * @RDT_SB_A_DIRTY: bitmap of FRAMES bits, as ZERO: those that may have been written.
 * @RDT_SB_A_FAULTS: u64, write faults of the VM's vCPUs, counted since the first LIMIT; in SCAN's answer as it was before the scan.
 * A vCPU's first write to a frame that a scan has told is one; not each one is a first write. 0: not counted.
 * @RDT_SB_A_LIMIT: struct rdt_sb_limit. @RDT_SB_A_LIMIT_INFO: struct rdt_sb_limit_info.
 */
enum rdt_sb_attr {
	RDT_SB_A_UNSPEC,
	RDT_SB_A_PAD,
	RDT_SB_A_VM,
	RDT_SB_A_UUID,
	RDT_SB_A_VCPUS,
	RDT_SB_A_ORPHAN,
	RDT_SB_A_BYTES,
	RDT_SB_A_SLOT,
	RDT_SB_A_STREAM,
	RDT_SB_A_DATA_FD,
	RDT_SB_A_SPACE,
	RDT_SB_A_RANGES,
	RDT_SB_A_FLAGS,
	RDT_SB_A_SEQ,
	RDT_SB_A_FIRST,
	RDT_SB_A_FRAMES,
	RDT_SB_A_ZERO,
	RDT_SB_A_LOST,
	RDT_SB_A_DATA,
	RDT_SB_A_COUNT,
	RDT_SB_A_INDEX,
	RDT_SB_A_MSRS,
	RDT_SB_A_ITEM,
	RDT_SB_A_REASON,
	RDT_SB_A_EVENT,
	RDT_SB_A_EVENT_SEQ,
	RDT_SB_A_POWER,
	RDT_SB_A_RUNTIME,
	RDT_SB_A_BUDGET,
	RDT_SB_A_STREAM_INFO,
	RDT_SB_A_ONLINE,
	RDT_SB_A_DIRTY,
	RDT_SB_A_FAULTS,
	RDT_SB_A_LIMIT,
	RDT_SB_A_LIMIT_INFO,
	__RDT_SB_A_END,
};
#define RDT_SB_A_MAX		(__RDT_SB_A_END - 1)

#define RDT_SB_MAX_PAGES	15	/* of data in a message: nla_len has 16 bits */
#define RDT_SB_MAX_FRAMES	4096	/* that a message tells of */
#define RDT_SB_MAX_RANGES	3840	/* in a request */
#define RDT_SB_MAX_QUEUED	65536	/* ranges that wait in a stream */
#define RDT_SB_MAX_STREAMS	8	/* of a VM */
#define RDT_SB_MAX_SCAN		131072	/* frames that a SCAN looks at */
#define RDT_SB_MAX_SLOTS	512	/* that GET tells of; BYTES counts all */
#define RDT_SB_MAX_MSRS		255	/* KVM takes no more at once */

/*
 * What a frame number counts. GFN: the guest's frames, where slots of address space 0 map them. HVA: frames of the VMM's
 * own address space (address >> 12): guest memory that is mapped nowhere at the moment (behind the VGA window, SMRAM) is
 * reached only so. Who moves a whole RAM file asks for the addresses at which the VMM has mapped it.
 */
#define RDT_SB_SPACE_GFN	0
#define RDT_SB_SPACE_HVA	1

/**
 * struct rdt_sb_range - @count frames from @first on, at least one.
 * @first + @count is at most 1 << 40 in GFN space and 1 << 35 in HVA space (-EINVAL): no address lies beyond.
 */
struct rdt_sb_range {
	__u64 first;
	__u64 count;
};

/* RDT_SB_A_FLAGS */
#define RDT_SB_F_KEEP_ZERO	(1 << 0)	/* send zero pages as data */
#define RDT_SB_F_ALL		RDT_SB_F_KEEP_ZERO

/**
 * struct rdt_sb_slot - a memory slot of address space 0.
 * @gfn: first; @frames: how many; @hva: where the VMM has it, bytes, 0 without CAP_SYS_PTRACE; @id: KVM's; @flags: KVM_MEM_*.
 */
struct rdt_sb_slot {
	__u64 gfn;
	__u64 frames;
	__u64 hva;
	__u32 id;
	__u32 flags;
};

/**
 * struct rdt_sb_limit - how fast a VM's vCPUs may dirty memory (F5). All counted by FAULTS, which only grows, so that a request
 * that is late is not one for more.
 * @free: up to here as fast as they like. @stop: from here on no vCPU that writes to a clean page goes on, until another LIMIT.
 * @end: between @free and @stop they get @rate * (@end - FAULTS) / (@end - @free) faults a second, together. Where the rate would be 0;
 * @free <= @stop <= @end <= @free + (1 << 35), or all ~0: only counted. @rate: 1 to 1 << 28.
 *
 * A vCPU that is too fast sleeps before it goes on in the guest, in KVM_RUN, where any signal that is not blocked there ends the
 * sleep and KVM_RUN: a VMM's kick, SIGKILL. Each kick lets it through one more page. What the VMM itself writes is not slowed.
 */
struct rdt_sb_limit {
	__u64 free;
	__u64 stop;
	__u64 end;
	__u64 rate;
};

/**
 * struct rdt_sb_limit_info - what LIMIT has done so far.
 * @sleeps: how often a vCPU was put to sleep; @slept_ns: for how long, all together; @asleep: vCPUs that are now. @reserved: 0.
 */
struct rdt_sb_limit_info {
	__u64 sleeps;
	__u64 slept_ns;
	__u32 asleep;
	__u32 reserved;
};

/* Of a stream */
#define RDT_SB_STREAM_RUNS	0
#define RDT_SB_STREAM_IDLE	1	/* all was sent, STREAM_END too */
#define RDT_SB_STREAM_LOST	2	/* the receiver has gone, or there is no memory; CANCEL is all that is left */

/**
 * struct rdt_sb_stream_info - a stream.
 * @stream: its number; @state: RDT_SB_STREAM_*; @seq: of the last message; @sent: frames so far, as COUNT;
 * @left: frames still to be sent; @portid: of the data socket; @dropped: messages that the test knob kept back.
 */
struct rdt_sb_stream_info {
	__u32 stream;
	__u32 state;
	__u64 seq;
	__u64 sent;
	__u64 left;
	__u32 portid;
	__u32 dropped;
};

/**
 * enum rdt_sb_item - in RDT_SB_A_ITEM.
 * @RDT_SB_I_NAME: string, KVM's name of the ioctl without KVM_GET_: "REGS", "SREGS", "SREGS2", "XSAVE", "XCRS", "LAPIC",
 * "MP_STATE", "VCPU_EVENTS", "DEBUGREGS", "MSRS", "TSC_KHZ", "TSC_OFFSET", "CPUID2", "NESTED_STATE", and "PENDING_IO"; of the VM
 * "IRQCHIP0" to "IRQCHIP2", "PIT2", "CLOCK".
 * @RDT_SB_I_DATA: what KVM wrote, KVM's own structure. MSRS: struct kvm_msr_entry each, of those that KVM could read;
 * CPUID2: struct kvm_cpuid_entry2 each; TSC_KHZ: u32; TSC_OFFSET: u64. PENDING_IO: u32, 1: the vCPU had left for an I/O
 * (PIO, MMIO) that is not complete: its registers are those before the end of that instruction.
 * @RDT_SB_I_ERROR: s32, errno, in the place of DATA: KVM has no such state of this VM, or did not give it.
 */
enum rdt_sb_item {
	RDT_SB_I_UNSPEC,
	RDT_SB_I_NAME,
	RDT_SB_I_DATA,
	RDT_SB_I_ERROR,
	__RDT_SB_I_END,
};
#define RDT_SB_I_MAX		(__RDT_SB_I_END - 1)

/* RDT_SB_A_REASON */
#define RDT_SB_REASON_OPERATOR	1
#define RDT_SB_REASON_POWER	2
#define RDT_SB_REASON_VMM	3
#define RDT_SB_REASON_WATCHDOG	4

/* RDT_SB_A_EVENT */
#define RDT_SB_EVENT_REGISTERED	1	/* VM */
#define RDT_SB_EVENT_RELEASED	2	/* VM */
#define RDT_SB_EVENT_TRIGGER	3	/* REASON, [VM] */
#define RDT_SB_EVENT_STREAM_LOST 4	/* VM, STREAM */

/* RDT_SB_A_POWER, as NUT says it */
#define RDT_SB_POWER_ONLINE	1
#define RDT_SB_POWER_BATTERY	2
#define RDT_SB_POWER_LOW	3

#endif
