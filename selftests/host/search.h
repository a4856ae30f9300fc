/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Looks for a secret in what should not have it: for each of its pieces of 6 bytes, so that
 * 8 bytes are found at any offset and turned by any number of bytes, too; for those
 * pieces backwards; and for 8 bytes shifted by 1..7 bits.
 */
#ifndef SEARCH_H
#define SEARCH_H

#include <stddef.h>
#include <stdint.h>

#define SEARCH_PIECE	6

void search_for(const void *secret, size_t bytes);
/* Places where a piece begins; *@where: offset of the first. */
size_t search(const void *in, size_t bytes, size_t *where);

#endif
