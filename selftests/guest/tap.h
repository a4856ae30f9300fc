/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _REDOUBT_TAP_H
#define _REDOUBT_TAP_H

#include <linux/seq_file.h>
#include <linux/types.h>

/* Prints "ok N - ..." or "not ok N - ...". */
void report(struct seq_file *m, bool ok, const char *fmt, ...) __printf(3, 4);

/* Address of any kernel symbol, "module:name" for one of a module; 0: none. */
unsigned long symbol(const char *name);

#endif
