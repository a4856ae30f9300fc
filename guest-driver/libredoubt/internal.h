/* SPDX-License-Identifier: GPL-2.0 */
#ifndef REDOUBT_INTERNAL_H
#define REDOUBT_INTERNAL_H

#include <redoubt/redoubt.h>

#define RDT_PAGE 4096ul

/* Keeps the sentence for rdt_error(); returns @error. */
long rdt_fail(long error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The whole of a file, to be freed. */
int rdt_read_file(const char *path, void **data, size_t *bytes);

#endif
