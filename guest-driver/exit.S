/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The exit page: last page of .redoubt.text, so that the section ends with a page.
 * A jump here leaves integrity mode; nested tables give no execute right to it
 * there, so the instruction never runs.
 */
#include <linux/linkage.h>

	.section .redoubt.text, "a", @progbits
	.balign	4096
SYM_INNER_LABEL(rdt_exit, SYM_L_GLOBAL)
	ud2
	.org	. + 4094, 0xcc
SYM_INNER_LABEL(rdt_exit_end, SYM_L_GLOBAL)
