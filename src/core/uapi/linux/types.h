/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The few names that our uapi headers take from <linux/types.h>, for the core's
 * build inside the kernel, where no header but our own is in sight. The
 * user-space build of the core takes the system's.
 */
#ifndef RDT_CORE_UAPI_TYPES_H
#define RDT_CORE_UAPI_TYPES_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef int __s32;

#endif
