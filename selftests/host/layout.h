/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guest-physical layout of a test VM. The guest sees it at the same linear
 * addresses: it runs the test program's own image, copied to where it was linked.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#define PAGE_SIZE	4096ul
#define HUGE_SIZE	(512 * PAGE_SIZE)

#define GUEST_PML4	0x1000
#define GUEST_PDPT	0x2000
#define GUEST_PD	0x3000		/* 1 GiB in large pages, one to one */
#define GUEST_GDT	0x4000
#define GUEST_IDT	0x5000
#define GUEST_TSS	0x6000		/* 128 bytes a vCPU */
#define GUEST_TABLES	0x10000		/* more page tables, until.. */
#define GUEST_TABLES_END 0x80000
#define GUEST_STACKS	0x80000		/* GUEST_STACK bytes a vCPU */
#define GUEST_STACK	0x4000
#define GUEST_IMAGE	0x400000	/* where the linker puts programs */
#define GUEST_FREE	0x800000	/* the tests' own, from here on */
#define GUEST_MAX_VCPUS	8

#define SEL_CODE0	0x08
#define SEL_DATA0	0x10
#define SEL_DATA3	0x1b		/* in the order that SYSRET wants */
#define SEL_CODE3	0x23
#define SEL_TSS		0x28		/* 16 bytes a vCPU */

#define PORT_STOP	0xf1		/* value in RDI; AL says why */
#define STOP_DONE	1		/* the function has returned it */
#define STOP_TRAP	2		/* an exception nobody waited for */
#define STOP_SYNC	3		/* the host is to look, then go on */

/* struct guest_cpu, for the assembler */
#define CPU_SELF	0
#define CPU_RECOVER	8
#define CPU_USER_RSP	16
#define CPU_ID		24

#endif
