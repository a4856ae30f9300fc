// SPDX-License-Identifier: GPL-2.0
/*
 * Redoubt guest driver: asks the host to guard this kernel's text, read-only data,
 * interrupt and system call tables, and itself.
 *
 * Order matters. Node pages come first, since the host needs them for anything
 * else; then integrity mode, so that every protected range is written down by
 * the inside; then the ranges. Nothing can be taken back once given: from the
 * first donated page on the module cannot be unloaded.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/kvm_para.h>
#include <linux/module.h>
#include <linux/suspend.h>
#include "driver.h"

static bool self_attach = true;
module_param(self_attach, bool, 0444);
MODULE_PARM_DESC(self_attach, "ask the host to watch this VM if it does not yet (default 1)");

static bool integrity = true;
module_param(integrity, bool, 0444);
MODULE_PARM_DESC(integrity, "set up integrity mode; 0: protect only (default 1)");

static bool protect_kernel = true;
module_param(protect_kernel, bool, 0444);
MODULE_PARM_DESC(protect_kernel, "protect text, rodata, IDT and system call table (default 1)");

static unsigned int node_pages = 4;
module_param(node_pages, uint, 0444);
MODULE_PARM_DESC(node_pages, "frames to donate for the host's tree at load; more follow when needed (default 4)");

static unsigned int slots;
module_param(slots, uint, 0444);
MODULE_PARM_DESC(slots, "threads that can be in integrity mode at a time, 1-64 (default 4 + one per CPU)");

static char *text_action = "log";
module_param(text_action, charp, 0444);
MODULE_PARM_DESC(text_action, "writes to kernel text: log, or deny (breaks static keys, ftrace, kprobes) (default log)");

static char *door = "auto";
module_param(door, charp, 0444);
MODULE_PARM_DESC(door, "way into integrity mode: auto, fault or hypercall (default auto: fault)");

static unsigned int test_page;
module_param(test_page, uint, 0444);
MODULE_PARM_DESC(test_page, "for tests: map a foreign page inside, protected with action 1 log, 2 deny, 3 freeze (default 0: none)");

/*
 * A hibernation image would be written back over frames that cannot be written. To
 * fail before it is made is better than in the middle of a resume.
 */
static int pm_event(struct notifier_block *nb, unsigned long event, void *data)
{
	if (event != PM_HIBERNATION_PREPARE && event != PM_RESTORE_PREPARE)
		return NOTIFY_DONE;
	pr_warn("hibernation refused: its image could not be restored over protected memory\n");
	return notifier_from_errno(-EBUSY);
}
static struct notifier_block pm_nb = { .notifier_call = pm_event };

static int find_host(void)
{
	long ret;

	if (!kvm_para_available()) {
		pr_err("no Redoubt on this host: not a KVM guest\n");
		return -ENODEV;
	}
	ret = rdt_hypercall(RDT_HC_VERSION, 0, 0, 0);
	if (ret < 0 || ret == RDT_HC_VERSION) {
		pr_err("no Redoubt on this host\n");
		return -ENODEV;
	}
	if (ret != RDT_ABI_VERSION) {
		pr_err("the host speaks ABI version %ld, this driver %d\n", ret, RDT_ABI_VERSION);
		return -ENODEV;
	}
	return 0;
}

static int attach(void)
{
	long st = rdt_hypercall(RDT_HC_STATUS, 0, 0, 0);
	long ret;

	if (st < 0)
		return st;
	if (st & RDT_ST_SEALED) {
		pr_err("an integrity driver is registered already; reboot to replace it\n");
		return -EEXIST;
	}
	if (st & RDT_ST_ATTACHED)
		return 0;
	if (!self_attach) {
		pr_err("the host does not watch this VM (self_attach=0; on the host: redoubtctl attach)\n");
		return -ENODEV;
	}
	ret = rdt_hypercall(RDT_HC_ATTACH, 0, 0, 0);
	if (ret == -EPERM)
		pr_err("the host does not watch this VM, nor lets it ask (on the host: redoubtctl attach)\n");
	else if (ret && ret != -EEXIST)
		pr_err("the host cannot watch this VM: %ld\n", ret);
	return ret == -EEXIST ? 0 : ret;
}

static int __init redoubt_init(void)
{
	unsigned int action = RDT_ACT_LOG;
	int err;

	if (!strcmp(text_action, "deny")) {
		action = RDT_ACT_DENY;
	} else if (strcmp(text_action, "log")) {
		pr_err("text_action must be log or deny\n");
		return -EINVAL;
	}
	if (strcmp(door, "auto") && strcmp(door, "fault") && strcmp(door, "hypercall")) {
		pr_err("door must be auto, fault or hypercall\n");
		return -EINVAL;
	}
	if (test_page > RDT_ACT_FREEZE || slots > RDT_DRV_MAX_SLOTS ||
	    node_pages > RDT_MAX_NODE_PAGES) {
		pr_err("a parameter is out of range\n");
		return -EINVAL;
	}

	err = find_host();
	err = err ?: rdt_kallsyms_init();
	err = err ?: attach();
	if (err)
		return err;
	err = rdt_status_init();
	if (err)
		return err;
	err = register_pm_notifier(&pm_nb);
	if (err)
		goto out_status;

	err = rdt_donate(node_pages);
	if (err) {
		pr_err("cannot donate node pages: %d\n", err);
		goto out_pm;
	}
	if (integrity) {
		err = rdt_seal(slots ?: 4 + num_possible_cpus(), door, test_page);
		if (err) {
			pr_err("the host refused the integrity driver: %d (its log says why)\n", err);
			goto out_pm;
		}
	}

	/*
	 * From here on this module's memory may be protected, and freeing it would
	 * fault: whatever fails below is reported and the rest stays in force.
	 */
	__module_get(THIS_MODULE);
	if (rdt_test_page)
		err = redoubt_protect(virt_to_phys(rdt_test_page), 1,
				      RDT_ATTR(test_page, RDT_CLS_OTHER), 0);
	if (protect_kernel) {
		err = rdt_protect_kernel(action) ?: err;
		err = rdt_protect_module(action) ?: err;
	}
	/* Who cannot have domains may have the rest. */
	if (rdt_domain_dev_init())
		pr_err("there is no /dev/redoubt-domain\n");
	if (err)
		pr_err("NOT everything is protected: %d\n", err);
	else
		pr_info("on guard: %u ranges, integrity mode %s, door %s, %u slots, %u node pages\n",
			rdt_inside_data.nr, rdt_sealed ? "on" : "off", rdt_door_name, rdt_slots,
			rdt_node_pages);
	return 0;

out_pm:
	unregister_pm_notifier(&pm_nb);
out_status:
	rdt_status_exit();
	return err;
}

/* Reached only if nothing was ever given to the host: see __module_get() above. */
static void __exit redoubt_exit(void)
{
	unregister_pm_notifier(&pm_nb);
	rdt_status_exit();
}

module_init(redoubt_init);
module_exit(redoubt_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Redoubt guest driver: the guest kernel under its host's guard");
