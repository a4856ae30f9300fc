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

/* Executable or not for this CPU, through the mapping that is there. */
bool make_nx(unsigned long va, bool nx);

/* Calls @target(op, a, b, c): -EFAULT when it, or what it jumped to, raised an exception. */
long call_guarded4(unsigned long target, u64 op, u64 a, u64 b, u64 c);
static inline long call_guarded(unsigned long target, u64 op, u64 a, u64 b)
{
	return call_guarded4(target, op, a, b, 0);
}
extern unsigned long guard_resume_stub;	/* where threads stand that were inside; 0: not known */
unsigned int leaf_guard(bool on);
void step_guard(bool (*fn)(struct pt_regs *regs));
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

/* Without a secret in code there is none to attack. */
const char *no_secret(void);
void attack_secret_read(struct seq_file *m);
void attack_secret_nofault(struct seq_file *m);
void attack_secret_write(struct seq_file *m);
void attack_secret_jump(struct seq_file *m);
void attack_secret_pgtable(struct seq_file *m);
void attack_secret_step(struct seq_file *m);

#endif
