// SPDX-License-Identifier: GPL-2.0
/*
 * Traces one function, or, with ipmodify=1, claims it as a livepatch would: then
 * ftrace lets nobody else replace it. The function itself goes on as it was.
 */
#include <linux/ftrace.h>
#include <linux/module.h>

static char *function = "kvm_emulate_hypercall";
module_param(function, charp, 0444);
static bool ipmodify;
module_param(ipmodify, bool, 0444);

static unsigned long calls;
module_param(calls, ulong, 0444);

static void notrace called(unsigned long ip, unsigned long parent, struct ftrace_ops *op,
			   struct ftrace_regs *regs)
{
	WRITE_ONCE(calls, calls + 1);
}

static struct ftrace_ops ops = { .func = called };

static int __init owner_init(void)
{
	int err;

	if (ipmodify)
		ops.flags |= FTRACE_OPS_FL_IPMODIFY;
	err = ftrace_set_filter(&ops, function, strlen(function), 1);
	if (err)
		return err;
	err = register_ftrace_function(&ops);
	if (err)
		ftrace_free_filter(&ops);
	return err;
}

static void __exit owner_exit(void)
{
	unregister_ftrace_function(&ops);
	ftrace_free_filter(&ops);
}

module_init(owner_init);
module_exit(owner_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Redoubt: another owner of a function of KVM, for tests");
