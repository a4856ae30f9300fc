/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the guest's two test modules share: a directory in /proc with a file for each
 * group of tests. Reading the file runs the group and yields TAP. Included once
 * by a module's main.c.
 */
#ifndef _REDOUBT_TAP_PROC_H
#define _REDOUBT_TAP_PROC_H

#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/static_call.h>
#include "tap.h"

static unsigned long no_lookup(const char *name)
{
	return 0;
}
DEFINE_STATIC_CALL(test_lookup, no_lookup);

/* A static call since IBT kernels have no ENDBR at kallsyms_lookup_name(). */
unsigned long symbol(const char *name)
{
	return static_call(test_lookup)(name);
}

static DEFINE_MUTEX(one_at_a_time);
static int tap_line;
static const char *tap_shows;	/* the requirement of the group that runs */

void report(struct seq_file *m, bool ok, const char *fmt, ...)
{
	va_list args;

	seq_printf(m, "%s %d - %s ", ok ? "ok" : "not ok", ++tap_line, tap_shows);
	va_start(args, fmt);
	seq_vprintf(m, fmt, args);
	va_end(args);
	seq_putc(m, '\n');
	/* For a guest that dies on the way: insmod with dyndbg=+p. */
	pr_debug("%d done\n", tap_line);
}

struct tap_group {
	const char *shows;	/* numbers of requirements, which names of results begin with */
	const char *name;
	void (*run)(struct seq_file *m);
	const char *(*skip)(void);	/* why it cannot run, or NULL; may be absent */
};

static int tap_show(struct seq_file *m, void *v)
{
	const struct tap_group *g = m->private;

	mutex_lock(&one_at_a_time);
	tap_line = 0;
	tap_shows = g->shows;
	if (g->skip && g->skip())
		report(m, true, "# SKIP %s", g->skip());
	else
		g->run(m);
	seq_printf(m, "1..%d\n", tap_line);
	mutex_unlock(&one_at_a_time);
	return 0;
}

/* Room for all lines at once: for more, seq_file would run the group again. */
static int tap_open(struct inode *inode, struct file *file)
{
	return single_open_size(file, tap_show, pde_data(inode), 8 * PAGE_SIZE);
}

static const struct proc_ops tap_ops = {
	.proc_open = tap_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

static int tap_init(const char *name, const struct tap_group *groups, unsigned int nr)
{
	struct kprobe kp = {
		.symbol_name = "kallsyms_lookup_name",
		.flags = KPROBE_FLAG_DISABLED,
	};
	struct proc_dir_entry *dir;
	int err = register_kprobe(&kp);

	if (err)
		return err;
	static_call_update(test_lookup, (void *)kp.addr);
	unregister_kprobe(&kp);

	dir = proc_mkdir(name, NULL);
	if (!dir)
		return -ENOMEM;
	while (nr--)
		if (!proc_create_data(groups[nr].name, 0400, dir, &tap_ops, (void *)&groups[nr])) {
			proc_remove(dir);
			return -ENOMEM;
		}
	return 0;
}

#endif
