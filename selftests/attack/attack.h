/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _REDOUBT_ATTACK_H
#define _REDOUBT_ATTACK_H

#include "../guest/tap.h"

/*
 * Ways to write to memory that the guest's page tables make read-only.
 * 0, or -EFAULT when the store itself was stopped.
 */
int store_plain(u64 *at, u64 val);
int store_wp_clear(u64 *at, u64 val);	/* CR0.WP off, through the mapping as it is */
int store_pte(u64 *at, u64 val);	/* the mapping made writable */
int store_alias(u64 *at, u64 val);	/* a second, writable mapping of the frame */

/* Without integrity mode there is no inside to attack: why to skip, or NULL. */
const char *no_inside(void);

struct page *page_of(const void *va);

/* Calls @target(op, a, b): -EFAULT when it, or what it jumped to, raised an exception. */
long call_guarded(unsigned long target, u64 op, u64 a, u64 b);
int guard_init(void);
void guard_exit(void);

void attack_syscall(struct seq_file *m);
void attack_text(struct seq_file *m);
void attack_idt(struct seq_file *m);
void attack_driver_data(struct seq_file *m);
void attack_driver_text(struct seq_file *m);
void attack_driver_pt(struct seq_file *m);
void attack_stack(struct seq_file *m);
void attack_node(struct seq_file *m);
void attack_gate(struct seq_file *m);
void attack_gate_mid(struct seq_file *m);
void attack_pgtable_alias(struct seq_file *m);
const char *no_key(void);
void attack_scan(struct seq_file *m);

#endif
