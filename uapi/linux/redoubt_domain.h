/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Redoubt: /dev/redoubt-domain, protection domains for processes of a guest.
 *
 * One open file has one domain at most, and the domain ends with the file: by its last
 * close(), or the death of its last owner (descriptors are inherited by fork() and passed
 * by SCM_RIGHTS; mappings of the file count, too). RDT_DOMAIN_PUBLISH lets other processes call it.
 *
 * All sizes are fixed; unknown flags and reserved fields that are not zero are -EINVAL.
 * -ENODEV, from any call: the host does not watch this VM (any more), or the domain has been
 * destroyed, by the host's operator or by RDT_DOMAIN_UNPUBLISH. -ENXIO: the file has no domain.
 */
#ifndef _UAPI_LINUX_REDOUBT_DOMAIN_H
#define _UAPI_LINUX_REDOUBT_DOMAIN_H

#include <linux/ioctl.h>
#include <linux/redoubt_guest.h>
#include <linux/types.h>

#define RDT_DOMAIN_IOC		'R'

/* ---- /dev/redoubt-domain ------------------------------------------------ */

#define RDT_IMAGE_MAX_SEGMENTS	256
#define RDT_IMAGE_MAX_PAGES	65536	/* of all segments and windows; the driver may allow fewer */

/**
 * struct rdt_image_segment - neighbouring pages of one kind.
 * @gva: page aligned. @pages: 1 and more; 1 for GATE and EXIT.
 * @kind: RDT_DOM_TEXT, DATA, GATE or EXIT.
 * @data: pointer to the first @len bytes; the rest is zero. @len: 0..@pages * 4096.
 */
struct rdt_image_segment {
	__u64 gva;
	__u32 pages;
	__u32 kind;
	__u64 data;
	__u64 len;
};

/**
 * struct rdt_image - what a domain is made of.
 *
 * @flags: RDT_DOM_USER, RDT_DOM_VECTOR.
 * @slots: threads that can be inside at once, 1..RDT_DOM_MAX_SLOTS.
 * @gate_gva: entry point, on the GATE page.
 * @exit_gva: on the EXIT page: a jump to it leaves, RAX is the result.
 * @resume_gva: with RDT_DOM_USER the address, in the calling process, of its resume stub (see struct
 *	rdt_domain_desc): threads that were interrupted inside stand there, with the token in
 *	RDI. Else 0: the driver has its own.
 * @segments: 1..RDT_IMAGE_MAX_SEGMENTS. @segment: pointer to as many struct
 *	rdt_image_segment, ascending in gva, not overlapping.
 * @windows: 0..RDT_DOM_MAX_WINDOWS.
 * @stack_top: one for each slot, 16-byte aligned, the page below it of kind DATA; 0 for the rest.
 * @window: the driver allocates these pages, zeroed, and shares them; ascending, not
 *	overlapping, 0 for the rest. Of a ring 0 domain, window 0 is for RDT_DOMAIN_CALL and has
 *	@slots pages at least.
 * @id: out, as the host's operator sees it.
 * @measurement: out, SHA-256 (Documentation/domains.md).
 */
struct rdt_image {
	__u32 flags;
	__u32 slots;
	__u64 gate_gva;
	__u64 exit_gva;
	__u64 resume_gva;
	__u32 segments;
	__u32 windows;
	__u64 segment;
	__u64 reserved[2];
	__u64 stack_top[RDT_DOM_MAX_SLOTS];
	struct rdt_domain_window window[RDT_DOM_MAX_WINDOWS];
	__u64 id;
	__u8 measurement[32];
};

/**
 * RDT_DOMAIN_CREATE - make, fill and seal this file's domain.
 * A domain of ring 0 is code for the kernel's own ring: it needs CAP_SYS_MODULE, and is -EPERM
 * where the kernel is locked down for modules (integrity). -EEXIST the file has one;
 * -EINVAL the image; -EFAULT; -E2BIG more pages than the driver allows in a domain; -ENOSPC than in
 * all (module parameters), or the VM has RDT_DOM_MAX domains; -EDQUOT the host's operator allows
 * no more; -EOPNOTSUPP RDT_DOM_USER, and this host has none of those; -ENOMEM; -EINTR a fatal
 * signal.
 */
#define RDT_DOMAIN_CREATE	_IOWR(RDT_DOMAIN_IOC, 0x80, struct rdt_image)

#define RDT_PUBLISH_STAY	(1u << 0)	/* outlives the file; needs CAP_SYS_ADMIN */
#define RDT_PUBLISH_NAME	32

/**
 * struct rdt_publish - other processes may call the domain: /dev/redoubt/NAME.
 * @name: 1..31 of a-z A-Z 0-9 _ -, zero-terminated. @mode: of the device, 0..0666.
 * @flags: RDT_PUBLISH_*.
 * -EEXIST the name is taken, or this domain has one; -EOPNOTSUPP a domain of ring 3.
 */
struct rdt_publish {
	char name[RDT_PUBLISH_NAME];
	__u32 mode;
	__u32 flags;
	__u64 reserved;
};
#define RDT_DOMAIN_PUBLISH	_IOW(RDT_DOMAIN_IOC, 0x81, struct rdt_publish)

/*
 * mmap() offsets, of a domain of ring 3 only, MAP_SHARED, from the area's start on. The gate: one
 * page, PROT_READ | PROT_EXEC (it cannot be read, though); a call of its offset gate_gva % 4096
 * enters, with R11 the return address and RCX, RDX, RSI, RDI as arguments; RAX is the
 * result, RCX, RDX, RSI, RDI, R8-R11 are zero then. It is not inherited by fork().
 * Windows: read and write.
 */
#define RDT_DOMAIN_MAP_GATE	0ull
#define RDT_DOMAIN_MAP_WINDOW(i)	((__u64)((i) + 1) << 28)

/* ---- /dev/redoubt-domain and /dev/redoubt/NAME --------------------------- */

/**
 * struct rdt_call - one call of a ring 0 domain.
 *
 * Window 0 has one equal part of whole pages for each slot, the first begins at the window. The
 * driver copies @in to the start of a part that nobody else uses, and enters with RCX = @op,
 * RDX = address of the part inside, RSI = @in_len, RDI = room for the output. The
 * inside puts its output at the start of the same part and leaves with its length, or with a negative
 * errno (>= -4095). The part can be written by anybody in the guest's kernel: the inside copies
 * before it checks.
 *
 * @in_len: not more than a part has (struct rdt_domain_about.part). @out_len: room at @out; the inside is told the
 * lesser of that and its part.
 * @result: out, length of the output, or what the inside refused with; set when the ioctl itself returns
 *	0. -EPERM also when it reached for what is not its own (the host raises an alert), -ENOENT also when
 *	the host's operator destroyed the domain meanwhile.
 *
 * Waits, killably, while all slots are taken. Errors of the ioctl: -EMSGSIZE @in_len; -EFAULT a pointer;
 * -ENOTRECOVERABLE the inside raised an exception; -EBADMSG it returned what it must not; -EINTR a fatal
 * signal, also while the call was inside: then it ends where it was; -EOPNOTSUPP a domain of ring 3.
 */
struct rdt_call {
	__u64 op;
	__u64 in;
	__u64 out;
	__u32 in_len;
	__u32 out_len;
	__s64 result;
	__u64 reserved;
};
#define RDT_DOMAIN_CALL		_IOWR(RDT_DOMAIN_IOC, 0x82, struct rdt_call)

/**
 * struct rdt_domain_about - the domain, as the host says.
 * @state: 1 sealed, 2 being destroyed. @part: bytes of window 0 for one call.
 * @pages: frames it has, page tables included. @name: as published, or empty.
 */
struct rdt_domain_about {
	__u64 id;
	__u32 state;
	__u32 flags;
	__u32 slots;
	__u32 part;
	__u64 pages;
	__u64 reserved[3];
	__u8 measurement[32];
	char name[RDT_PUBLISH_NAME];
};
#define RDT_DOMAIN_IS_SEALED	1
#define RDT_DOMAIN_IS_DYING	2
#define RDT_DOMAIN_INFO		_IOR(RDT_DOMAIN_IOC, 0x83, struct rdt_domain_about)

/**
 * RDT_DOMAIN_UNPUBLISH - take the device away again.
 * On /dev/redoubt-domain, by the owner: the domain stays the file's. On /dev/redoubt/NAME, with
 * CAP_SYS_ADMIN: the domain is destroyed, whoever made it. -ENOENT it is not published; -EPERM.
 */
#define RDT_DOMAIN_UNPUBLISH	_IO(RDT_DOMAIN_IOC, 0x84)

#endif /* _UAPI_LINUX_REDOUBT_DOMAIN_H */
