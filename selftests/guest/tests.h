/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _REDOUBT_TESTS_H
#define _REDOUBT_TESTS_H

#include <linux/redoubt_guest.h>
#include "tap.h"

long hypercall(unsigned long nr, unsigned long a, unsigned long b, unsigned long c);

/* Protects @pages of vmalloc memory, removable; reports and returns an error. */
int guard_pages(struct seq_file *m, const void *start, unsigned int pages, unsigned int action);
void unguard_pages(struct seq_file *m, const void *start, unsigned int pages);

void test_log(struct seq_file *m);
void test_deny(struct seq_file *m);
void test_pagetable(struct seq_file *m);
void test_policy(struct seq_file *m);
void test_many(struct seq_file *m);
void test_badinput(struct seq_file *m);
void test_calls(struct seq_file *m);
void test_threads(struct seq_file *m);
void test_storm(struct seq_file *m);
void test_migrate(struct seq_file *m);
void test_hotplug(struct seq_file *m);
void test_nmi(struct seq_file *m);
void test_watch(struct seq_file *m);
void test_foreign(struct seq_file *m);
void test_freeze(struct seq_file *m);
void test_balloon(struct seq_file *m);
void test_domain(struct seq_file *m);
void test_secret_storm(struct seq_file *m);
void test_secret_nmi(struct seq_file *m);
void test_secret_watch(struct seq_file *m);
void test_secret_rewind(struct seq_file *m);

/* Why these cannot run, or NULL */
const char *no_frozen_page(void);
const char *no_balloon(void);
const char *no_secret(void);
const char *no_rewind(void);

#endif
