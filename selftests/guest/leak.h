/* SPDX-License-Identifier: GPL-2.0 */
/* What leak-sign signs in the guest and leak-seek knows on the host. */
#ifndef REDOUBT_LEAK_H
#define REDOUBT_LEAK_H

#include <stddef.h>

/* As long as the key service takes, so that most events strike inside. */
#define LEAK_MESSAGE	16384

static inline void leak_message(unsigned char *out)
{
	for (size_t i = 0; i < LEAK_MESSAGE; i++)
		out[i] = (unsigned char)(i % 251);
}

#endif
