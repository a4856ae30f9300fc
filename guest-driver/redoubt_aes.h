/* SPDX-License-Identifier: GPL-2.0 */
/* redoubt_aes.ko: what its C and its assembly share. */
#ifndef _REDOUBT_AES_H
#define _REDOUBT_AES_H

/* Flags of the cipher in code */
#define RDT_AES_DECRYPT		1
#define RDT_AES_KEY2		2	/* aes_key2, else aes_key1 */
#define RDT_AES_YMM		4	/* AVX is there: 16 blocks at a time, else 8 */

#define RDT_AES_BATCH_XMM	128	/* bytes at a time */
#define RDT_AES_BATCH_YMM	256

#endif
