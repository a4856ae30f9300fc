/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Redoubt: /dev/redoubt, the host operator's interface.
 *
 * All sizes are fixed; unknown flags are -EINVAL; reserved fields must be zero
 * (-EINVAL). Addresses are guest-physical bytes unless a name says gfn.
 * Access: root and group kvm (mode 0660).
 */
#ifndef _UAPI_LINUX_REDOUBT_H
#define _UAPI_LINUX_REDOUBT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define RDT_UAPI_VERSION	1
#define RDT_IOC			'R'

/* ---- /dev/redoubt ---------------------------------------------------- */

#define RDT_ARCH_NPT		1
#define RDT_ARCH_EPT		2

/**
 * struct rdt_info - the module.
 * @version: RDT_UAPI_VERSION; @arch: RDT_ARCH_*; @vms: attached VMs.
 * @flags: RDT_POLICY_* in force for the host. @views: views a VM can have.
 */
struct rdt_info {
	__u32 version;
	__u32 arch;
	__u32 flags;
	__u32 vms;
	__u32 views;
	__u32 reserved[3];
	char kernel[64];	/* the release the module was built for and runs on */
};
#define RDT_INFO		_IOR(RDT_IOC, 0x00, struct rdt_info)

/**
 * struct rdt_attach - watch a VM.
 * @vm_fd: in, a KVM VM file descriptor. @flags: RDT_ATTACH_*.
 * @fd: out, descriptor of the VM. @vm_id: out, its number (never reused).
 * Errors: -EBADF not a VM; -EEXIST attached already (use RDT_OPEN);
 * -EOPNOTSUPP the VM does not use the TDP MMU or is encrypted; -ENOMEM.
 * The VM stays attached when @fd is closed, until RDT_VM_DETACH or its end.
 */
struct rdt_attach {
	__s32 vm_fd;
	__u32 flags;
	__s32 fd;
	__u32 vm_id;
	__u64 reserved[2];
};
#define RDT_ATTACH		_IOWR(RDT_IOC, 0x01, struct rdt_attach)

/** struct rdt_open - open an attached VM by its number. -ENOENT: none such. */
struct rdt_open {
	__u32 vm_id;
	__u32 flags;		/* 0 */
	__s32 fd;		/* out */
	__u32 reserved;
};
#define RDT_OPEN		_IOWR(RDT_IOC, 0x02, struct rdt_open)

/**
 * struct rdt_list - attached VMs by number, ascending.
 * @after: list numbers greater than this. @nr: in, room; out, entries written.
 */
struct rdt_list_entry {
	__u32 vm_id;
	__s32 vmm_pid;		/* thread group that created the VM, in the caller's pid namespace; 0 unknown */
};
struct rdt_list {
	__u32 after;
	__u32 nr;		/* 1..4096 */
	__u64 entries;		/* user pointer to struct rdt_list_entry[nr] */
};
#define RDT_LIST		_IOWR(RDT_IOC, 0x03, struct rdt_list)

/**
 * struct rdt_policy - the host's policy for all VMs. Setting needs CAP_SYS_ADMIN.
 */
#define RDT_POLICY_SELF_ATTACH	(1u << 0)	/* a guest may attach itself by hypercall */
struct rdt_policy {
	__u32 flags;
	__u32 reserved[3];
};
#define RDT_GET_POLICY		_IOR(RDT_IOC, 0x04, struct rdt_policy)
#define RDT_SET_POLICY		_IOW(RDT_IOC, 0x05, struct rdt_policy)

/* ---- the VM's descriptor ---------------------------------------------
 * Once the VM has ended or was detached, poll() reports POLLHUP; RDT_VM_INFO
 * (with RDT_VM_DEAD), RDT_VM_SEEN and the event ring go on, so that the last
 * events can be read; everything else is -ENODEV.
 */

#define RDT_VM_SEALED		(1u << 0)	/* integrity driver registered */
#define RDT_VM_TREE_CORRUPT	(1u << 1)
#define RDT_VM_DEAD		(1u << 2)	/* the VM is gone or detached */

/** struct rdt_vm_info - one VM; counters since attach. */
struct rdt_vm_info {
	__u32 vm_id;
	__s32 vmm_pid;
	__u32 flags;		/* RDT_VM_* */
	__u32 vcpus;		/* vCPUs seen */
	__u64 frames;		/* restricted frames, node pages and driver included */
	__u64 ranges;		/* ranges in the tree */
	__u64 node_pages;
	__u64 driver_frames;
	__u64 slots;		/* slots the driver has */
	__u64 slots_busy;
	__u64 enters;		/* integrity mode entered */
	__u64 aexits;		/* asynchronous exits */
	__u64 faults;		/* nested page faults Redoubt answered */
	__u64 steps;		/* single-stepped writes (LOG) */
	__u64 events;		/* events raised = last seq */
	__u64 host_bytes;	/* host memory Redoubt holds for the VM */
	__u32 domains;		/* protection domains that exist */
	__u32 reserved0;
	__u64 domain_frames;	/* private pages they have */
	__u64 reserved[2];
};
#define RDT_VM_INFO		_IOR(RDT_IOC, 0x20, struct rdt_vm_info)

/** struct rdt_region - one range of the tree, or of the driver or node pages. */
struct rdt_region {
	__u64 gpa;
	__u64 pages;
	__u8 action;		/* RDT_ACT_* of redoubt_guest.h */
	__u8 cls;		/* RDT_CLS_* of redoubt_guest.h */
	__u16 flags;
	__u32 reserved;
};
/**
 * struct rdt_regions - list ranges in address order.
 * @start: first gpa of interest; out: where to go on. @nr: in, room (1..4096);
 * out, written; fewer than room = the end. -EUCLEAN: tree is corrupt.
 */
struct rdt_regions {
	__u64 start;
	__u32 nr;
	__u32 reserved;
	__u64 entries;
};
#define RDT_VM_REGIONS		_IOWR(RDT_IOC, 0x21, struct rdt_regions)

/**
 * struct rdt_protect - the operator's own protection of guest frames.
 * Same checks as RDT_HC_PROTECT; action RDT_ACT_NONE removes. The driver's
 * frames and node pages cannot be changed (-EPERM).
 */
struct rdt_protect {
	__u64 gpa;
	__u64 pages;
	__u8 action;
	__u8 cls;
	__u16 flags;		/* 0 */
	__u32 reserved;
};
#define RDT_VM_PROTECT		_IOW(RDT_IOC, 0x22, struct rdt_protect)

/**
 * RDT_VM_DETACH - (flags) stop watching: every restriction is lifted. The guest must
 * be outside integrity mode (-EBUSY); with RDT_DETACH_FORCE threads of it that were
 * interrupted inside and have not come back do not count: they are dropped, also if another
 * is running inside (-EBUSY, try again). -EINVAL unknown flags.
 */
#define RDT_DETACH_FORCE	(1u << 0)
#define RDT_VM_DETACH		_IO(RDT_IOC, 0x23)

/**
 * RDT_VM_SEEN - (u64 seq) the reader has seen events up to @seq; poll() reports
 * POLLIN while the newest is greater. Kept per descriptor. -EINVAL: there is no
 * such event yet.
 */
#define RDT_VM_SEEN		_IOW(RDT_IOC, 0x24, __u64)

/**
 * struct rdt_domain_quota - what a VM's guest may have of protection domains.
 * @domains: 0..29; 0, as it is at first: none. @frames_each, @frames: private pages of one,
 * of all. What exists stays. Setting needs CAP_SYS_ADMIN. -EINVAL: more domains than there are.
 * @flags: RDT_DOM_Q_*, 0 at first.
 */
#define RDT_DOM_Q_EXPORT	(1u << 0)	/* RDT_VM_DOM_EXPORT is allowed */
struct rdt_domain_quota {
	__u32 domains;
	__u32 flags;
	__u64 frames_each;
	__u64 frames;
};
#define RDT_VM_DOM_QUOTA	_IOW(RDT_IOC, 0x25, struct rdt_domain_quota)
#define RDT_VM_DOM_GET_QUOTA	_IOR(RDT_IOC, 0x26, struct rdt_domain_quota)

#define RDT_DOM_BUILDING	1
#define RDT_DOM_SEALED		2
#define RDT_DOM_DYING		3
/**
 * struct rdt_domain_info - one protection domain.
 * @id: as RDT_HC_DOM_CREATE gave it.
 */
struct rdt_domain_info {
	__u64 id;
	__u32 state;		/* RDT_DOM_BUILDING... */
	__u32 flags;		/* RDT_DOM_* of redoubt_guest.h */
	__u32 view;
	__u32 slots;
	__u32 slots_busy;
	__u32 installs;		/* values installed since it was sealed */
	__u64 frames;		/* private pages */
	__u64 shared;		/* frames shared with it */
	__u64 enters;
	__u64 aexits;
	__u64 gate_gva;		/* as it was described: what fixups count from is its page */
	__u64 reserved[3];
	__u8 measurement[32];	/* zero while building */
};
/**
 * RDT_VM_DOMAIN - @view: in, the first view to look at (0: from the start); out: the domain in the first
 * view from there on that has one. -ENOENT: no more.
 */
#define RDT_VM_DOMAIN		_IOWR(RDT_IOC, 0x27, struct rdt_domain_info)
/** RDT_VM_DOM_DESTROY - (u64 id), as RDT_HC_DOM_DESTROY; -EAGAIN, -ENOENT. */
#define RDT_VM_DOM_DESTROY	_IOW(RDT_IOC, 0x28, __u64)
/**
 * struct rdt_fixup - where a part of a value goes.
 * @offset: bytes from the start of the domain's gate page, may be negative.
 * @from: first byte of the value. @len: bytes of it, 1..4096.
 */
struct rdt_fixup {
	__s64 offset;
	__u32 from;
	__u32 len;
};
#define RDT_MAX_FIXUPS		512
/**
 * struct rdt_install - put a value into a sealed domain or secret, where nobody else sees it (D1).
 * @value: pointer to @len bytes, 1..4096. @fixups: pointer to struct rdt_fixup[@nr], 1..RDT_MAX_FIXUPS.
 * All of it or nothing, while no thread is inside and none is interrupted in it: -EAGAIN, ask again.
 * A domain takes values on TEXT and DATA pages, a secret on its GATE page. A value does
 * not count in the measurement. Needs CAP_SYS_ADMIN.
 * -EINVAL a fixup is not within the value; -ENOENT no such domain is
 * sealed; -EFAULT not such a page.
 */
struct rdt_install {
	__u64 id;
	__u64 value;
	__u64 fixups;
	__u32 len;
	__u32 nr;
	__u64 reserved;
};
#define RDT_VM_DOM_INSTALL	_IOW(RDT_IOC, 0x29, struct rdt_install)

/**
 * struct rdt_domain_export - a sealed domain's content on its way to another VM, encrypted.
 * @key: pointer to the 32 bytes of an AES-256 key, the operator's. @blob: pointer to @bytes
 * of room for EXPORT, or of a blob for IMPORT. @bytes: EXPORT sets it to what the blob has.
 */
struct rdt_domain_export {
	__u64 id;
	__u64 key;
	__u64 blob;
	__u64 bytes;
	__u64 reserved[2];
};
/**
 * struct rdt_domain_blob - how a blob begins. Then follow, encrypted, @pages of struct
 * rdt_domain_blob_page in the order of the measurement and, in that order, as many pages; then the
 * tag, 16 bytes, of AES-256-GCM, which covers this header, too. Frames of kind TABLE are not in it:
 * they are made anew where the domain is built.
 */
struct rdt_domain_blob {
	__u8 magic[8];		/* RDT_DOM_BLOB_MAGIC */
	__u64 pages;
	__u8 measurement[32];
	__u8 nonce[12];		/* random, anew for each */
	__u32 installs;		/* as in struct rdt_domain_info: it has them where it goes, too */
};
struct rdt_domain_blob_page {
	__u64 offset;		/* from the gate page, modulo 2^64 */
	__u64 kind;		/* RDT_DOM_TEXT... of redoubt_guest.h */
};
#define RDT_DOM_BLOB_MAGIC	"RDTDOMB1"
#define RDT_DOM_BLOB_TAG	16
#define RDT_DOM_BLOB_MAX	(1ull << 30)
/**
 * RDT_VM_DOM_EXPORT - the content of a sealed domain, encrypted and authenticated: nobody sees it
 * without the key. Needs CAP_SYS_ADMIN. -EACCES: the VM's quota has no RDT_DOM_Q_EXPORT, or the
 * domain was not made with RDT_DOM_EXPORTABLE; -ENOENT no such domain is sealed; -EBUSY a
 * thread is inside, or was interrupted there; -ENOSPC there is less room than @bytes says now; -E2BIG it
 * would be more than RDT_DOM_BLOB_MAX; -ENOPKG the host's kernel has no gcm(aes); -ENOMEM. While it is
 * copied nobody gets in (RDT_HC_DOM_ENTER: -EAGAIN).
 */
#define RDT_VM_DOM_EXPORT	_IOWR(RDT_IOC, 0x2c, struct rdt_domain_export)
/**
 * RDT_VM_DOM_IMPORT - gives a domain in which no thread has ever been the content that one of equal
 * measurement had. Needs CAP_SYS_ADMIN. -EBADMSG: another key, or the blob was changed; -EXDEV:
 * another domain's; -EINVAL it is no blob, or not whole; -EBUSY a thread is or was inside; -EACCES not
 * made with RDT_DOM_EXPORTABLE; -ENOENT, -ENOPKG, -ENOMEM. After an error the domain is as it was.
 */
#define RDT_VM_DOM_IMPORT	_IOW(RDT_IOC, 0x2d, struct rdt_domain_export)

/* ---- events ----------------------------------------------------------- */

#define RDT_EV_WRITE		1	/* a write to a restricted frame; @action was taken */
#define RDT_EV_TREE_WRITE	2	/* a write to a node page (denied) */
#define RDT_EV_DRIVER_WRITE	3	/* a write to the driver's frames (denied) */
#define RDT_EV_GATE		4	/* a refused enter/leave/resume; @code = RDT_GATE_* */
#define RDT_EV_UNPROTECT	5	/* unprotect from outside integrity mode (refused) */
#define RDT_EV_PROTECT_REFUSED	6	/* a request to weaken protection (refused) */
#define RDT_EV_TREE_CORRUPT	7	/* the tree failed a check; all actions are now DENY */
#define RDT_EV_MAPPING_CHANGED	8	/* a memslot under protected frames was moved, deleted or made */
#define RDT_EV_KVM_WRITE	9	/* KVM itself was made to write a protected frame; see @action */
#define RDT_EV_PV_STRUCT	10	/* the guest asked KVM to keep a structure in a protected frame (refused) */
#define RDT_EV_EXEC		11	/* a fetch outside the entitled code inside a view */
#define RDT_EV_ATTACH		12	/* the VM was attached; @code 1 = by itself */
#define RDT_EV_DETACH		13
#define RDT_EV_SEALED		14	/* an integrity driver was registered */
#define RDT_EV_VM_DEAD		15	/* the VM ended */
#define RDT_EV_DOMAIN		16	/* a domain's life, or a refused call; @code = RDT_DOM_EV_* */
#define RDT_EV_DOMAIN_ACCESS	17	/* a domain's frame touched from outside (denied); @code = 1 read, 2 write, 4 fetch */
#define RDT_EV_NR		32	/* counters in the ring header */

/* RDT_EV_GATE codes */
#define RDT_GATE_BAD_RIP	1
#define RDT_GATE_BAD_CPL	2
#define RDT_GATE_NO_SLOT	3
#define RDT_GATE_BAD_TOKEN	4
#define RDT_GATE_NOT_INSIDE	5
#define RDT_GATE_INSIDE		6	/* enter from inside */
#define RDT_GATE_BAD_IDT	7
#define RDT_GATE_BAD_STATE	8	/* paging mode, interrupt shadow, TF... */
#define RDT_GATE_IO		9	/* a domain did I/O that the VMM was to finish; the call has ended */

/* RDT_EV_DOMAIN codes */
#define RDT_DOM_EV_SEALED	1
#define RDT_DOM_EV_GONE		2
#define RDT_DOM_EV_CALLER	3	/* a call that is not the caller's to make */
#define RDT_DOM_EV_INSTALLED	4
#define RDT_DOM_EV_EXPORTED	8
#define RDT_DOM_EV_IMPORTED	9

/* flags */
#define RDT_EVF_GVA		(1u << 0)	/* @gva is known */
#define RDT_EVF_OLD		(1u << 1)	/* @old_val is known */
#define RDT_EVF_NEW		(1u << 2)	/* @new_val is known */
#define RDT_EVF_SIZE		(1u << 3)	/* @size is known */
#define RDT_EVF_EMULATED	(1u << 4)	/* KVM's emulator wrote for the guest */
#define RDT_EVF_EVENT		(1u << 5)	/* the write was part of event delivery */
#define RDT_EVF_HOST		(1u << 6)	/* not a vCPU's instruction: @rip, @cr3 are unset */

/**
 * struct rdt_event - one event, 128 bytes.
 * @seq: 1, 2, 3...; a reader that finds a gap has lost that many.
 * @old_val, @new_val: up to eight bytes at @gpa, little endian.
 */
struct rdt_event {
	__u64 seq;
	__u64 time_ns;		/* CLOCK_MONOTONIC of the host */
	__u32 vm_id;
	__u32 vcpu;
	__u16 type;		/* RDT_EV_* */
	__u8 action;		/* RDT_ACT_* that was carried out */
	__u8 cls;		/* RDT_CLS_* of the range */
	__u8 cpl;
	__u8 view;
	__u8 size;		/* bytes */
	__u8 code;
	__u64 gpa;
	__u64 gva;
	__u64 rip;
	__u64 cr3;
	__u64 range_gpa;
	__u64 range_pages;
	__u64 old_val;
	__u64 new_val;
	__u32 flags;		/* RDT_EVF_* */
	__u32 domain;		/* view of the domain that the event is about; 0: none */
	__u32 reserved[6];
};

/**
 * struct rdt_ring - the first page of mmap(fd, offset 0), read-only (-EPERM);
 * records follow at @data_offset. Either this page is mapped or all, which is
 * @data_offset + @records * 128; -EINVAL otherwise.
 * @head: seq of the newest complete event. Record of seq s is at index
 * (s - 1) % @records. The writer never waits: it overwrites the oldest. To
 * read s: load rec.seq (acquire), stop unless it is s, copy, fence, load rec.seq
 * again: if it is not s any more the event was overwritten: lost, and the
 * numbers say how many. @count: events by type since attach.
 */
struct rdt_ring {
	__u32 magic;
	__u32 version;
	__u32 record_size;
	__u32 records;		/* a power of two */
	__u64 data_offset;
	__u64 head;
	__u64 count[RDT_EV_NR];
};
#define RDT_RING_MAGIC		0x52445452u
#define RDT_RING_RECORDS	4096

#endif /* _UAPI_LINUX_REDOUBT_H */
