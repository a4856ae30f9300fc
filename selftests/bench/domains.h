/* SPDX-License-Identifier: GPL-2.0 */
/* Where the benchmark's domains are, and what they do: domains.S */
#ifndef DOMAINS_H
#define DOMAINS_H

#define B_DOM		0x900000	/* frames of a domain, the gate's first; then another's */
#define B_DOM_SIZE	0x40000
#define B_TEXT		0x2000
#define B_DATA		0x10000
#define B_TABLES	0x30000
#define B_TABLE_PAGES	12
#define B_SHARED	0xa00000	/* at the same address inside */
#define B_DESC		0xa01000

#define B_SECRET	0x5ec2e75ec2e7	/* in the vector registers of the inside */
#define B_PATTERN	0x0ca11e50	/* in the caller's */

/* Vector registers that an event finds in use. */
#define B_NONE		0
#define B_SSE		1
#define B_AVX		2

#endif
