// SPDX-License-Identifier: GPL-2.0
/*
 * redoubt_attack: what a rootkit would try once it runs in the guest's kernel.
 *
 *   cat /proc/redoubt_attack/<mode>
 *
 * makes each try of that mode and prints a line a try: what was written how, and
 * whether the value in memory is another one now ("not ok": it is). What did
 * change is put back, so the guest lives on whoever wins. Reading needs root.
 */
#include "../guest/tap_proc.h"
#include "attack.h"

static const struct tap_group modes[] = {
	{ "A3", "syscall", attack_syscall },
	{ "A3", "text", attack_text },
	{ "A3", "idt", attack_idt },
	{ "B3", "driver-data", attack_driver_data, no_inside },
	{ "B5", "driver-text", attack_driver_text, no_inside },
	{ "B12", "driver-pt", attack_driver_pt, no_inside },
	{ "B10", "stack", attack_stack, no_inside },
	{ "A2", "node", attack_node },
	{ "B6", "gate", attack_gate, no_inside },
	{ "B6", "gate-mid", attack_gate_mid, no_inside },
	{ "B6", "pgtable-alias", attack_pgtable_alias, no_inside },
	{ "C5", "scan", attack_scan, no_key },
	{ "D7", "secret-read", attack_secret_read, no_secret },
	{ "D7", "secret-nofault", attack_secret_nofault, no_secret },
	{ "D1", "secret-write", attack_secret_write, no_secret },
	{ "D2", "secret-jump", attack_secret_jump, no_secret },
	{ "D2", "secret-pgtable", attack_secret_pgtable, no_secret },
	{ "D6", "secret-step", attack_secret_step, no_secret },
};

static int __init attack_init(void)
{
	int err = guard_init();

	if (err)
		return err;
	err = tap_init("redoubt_attack", modes, ARRAY_SIZE(modes));
	if (err)
		guard_exit();
	return err;
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
