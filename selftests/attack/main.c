// SPDX-License-Identifier: GPL-2.0
/*
 * redoubt_attack: what a rootkit would try once it runs in the guest's kernel.
 *
 *   cat /proc/redoubt_attack/<mode>
 *
 * makes each try of that mode and prints a line a try: what was written how, and
 * whether the value in memory is another one now. What did change is put back, so
 * the guest lives on whoever wins. Reading needs root.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/static_call.h>
#include "attack.h"

static unsigned long no_lookup(const char *name)
{
	return 0;
}
DEFINE_STATIC_CALL(attack_lookup, no_lookup);

unsigned long symbol(const char *name)
{
	return static_call(attack_lookup)(name);
}

static DEFINE_MUTEX(one_at_a_time);
static int line;

void report(struct seq_file *m, bool unharmed, const char *fmt, ...)
{
	va_list args;

	seq_printf(m, "%s %d - ", unharmed ? "ok" : "not ok", ++line);
	va_start(args, fmt);
	seq_vprintf(m, fmt, args);
	va_end(args);
	seq_putc(m, '\n');
}

static const struct mode {
	const char *name;
	void (*run)(struct seq_file *m);
} modes[] = {
	{ "syscall", attack_syscall },
	{ "text", attack_text },
	{ "idt", attack_idt },
	{ "driver-data", attack_driver_data },
	{ "driver-text", attack_driver_text },
	{ "driver-pt", attack_driver_pt },
	{ "stack", attack_stack },
	{ "node", attack_node },
	{ "gate", attack_gate },
	{ "gate-mid", attack_gate_mid },
	{ "pgtable-alias", attack_pgtable_alias },
};

static int show(struct seq_file *m, void *v)
{
	const struct mode *mode = m->private;

	mutex_lock(&one_at_a_time);
	line = 0;
	mode->run(m);
	seq_printf(m, "1..%d\n", line);
	mutex_unlock(&one_at_a_time);
	return 0;
}

/* Room for all lines at once: seq_file would run the attack again for more. */
static int open(struct inode *inode, struct file *file)
{
	return single_open_size(file, show, pde_data(inode), 4 * PAGE_SIZE);
}

static const struct proc_ops ops = {
	.proc_open = open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

static int __init attack_init(void)
{
	struct kprobe kp = {
		.symbol_name = "kallsyms_lookup_name",
		.flags = KPROBE_FLAG_DISABLED,
	};
	struct proc_dir_entry *dir;
	unsigned int i;
	int err;

	err = register_kprobe(&kp);
	if (err)
		return err;
	static_call_update(attack_lookup, (void *)kp.addr);
	unregister_kprobe(&kp);

	err = guard_init();
	if (err)
		return err;
	dir = proc_mkdir("redoubt_attack", NULL);
	for (i = 0; dir && i < ARRAY_SIZE(modes); i++)
		if (!proc_create_data(modes[i].name, 0400, dir, &ops, (void *)&modes[i])) {
			proc_remove(dir);
			dir = NULL;
		}
	if (!dir) {
		guard_exit();
		return -ENOMEM;
	}
	return 0;
}

static void __exit attack_exit(void)
{
	remove_proc_subtree("redoubt_attack", NULL);
	guard_exit();
}

module_init(attack_init);
module_exit(attack_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Redoubt: attacks on a guest's kernel, for tests");
