/* SPDX-License-Identifier: GPL-2.0 */
/* The core uses the structs of our uapi headers, never an ioctl number. */
#ifndef RDT_CORE_UAPI_IOCTL_H
#define RDT_CORE_UAPI_IOCTL_H
#define _IO(type, nr)
#define _IOR(type, nr, size)
#define _IOW(type, nr, size)
#define _IOWR(type, nr, size)
#endif
