/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The inside that the tests of domains use (dom_image.S), and where its pages go. Its operations, by
 * the convention of RDT_DOMAIN_CALL; "word n" is the n'th 8 bytes of the input.
 */
#ifndef DOM_IMAGE_H
#define DOM_IMAGE_H

#define DOM_ECHO	0	/* each byte of the input plus one */
#define DOM_COUNT	1	/* adds word 0 to a counter; its new value */
#define DOM_SPIN	2	/* word 0 rounds over all general registers: what dom_spin() says */
#define DOM_MEET	3	/* waits until word 0 calls in all were made, at most word 1 rounds: 0, -ETIMEDOUT */
#define DOM_MEASURE	4	/* 32 bytes */
#define DOM_LOAD	5	/* what is at address word 0 */
#define DOM_FAULT	6	/* by word 0: 0 #UD, 1 #DE, 2 #GP, 3 #PF, 4 #BP */
#define DOM_FAULT_CLI	7	/* likewise, with interrupts off */
#define DOM_TOO_LONG	8	/* returns more than there is room for */
#define DOM_VALUE	9	/* returns word 0 */
#define DOM_FOREVER	10
#define DOM_FILL	11	/* 0xaa, as much as there is room */
#define DOM_VECTORS	12	/* word 0 rounds with vector registers in use: 0, or -EPROTO */
#define DOM_OPS		13

#define DOM_GATE_AT	0x40
#define DOM_EXIT_AT	0x18

/*
 * The code is position independent. Ring 0: in the kernel's half, where Linux has nothing (with 4
 * levels of page tables and with 5). An exception there is found in the stub's exception table; #PF at
 * an address of a process's is an oops before Linux looks there.
 */
#define DOM_BASE	0xfffffc0000000000
#define DOM_BASE_USER	0x00007e8000000000
#define DOM_WINDOW_AT	0x1000000
#define DOM_WINDOW	(DOM_BASE + DOM_WINDOW_AT)
#define DOM_WINDOW_USER	(DOM_BASE_USER + DOM_WINDOW_AT)
#define DOM_CODE_PAGES	3	/* GATE, EXIT, TEXT */
#define DOM_DATA_PAGES	1

#ifndef __ASSEMBLER__
/* Pages from the start of dom_image: code, data. */
extern const char dom_image[], dom_image_end[], dom_image_intel[];

static inline unsigned long long dom_spin(unsigned long long rounds)
{
	unsigned long long x = 1;

	while (rounds--)
		x = x * 6364136223846793005ull + 1442695040888963407ull;
	return x;
}
#endif
#endif
