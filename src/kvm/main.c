// SPDX-License-Identifier: GPL-2.0
/* Loading and unloading. */
#include "redoubt.h"

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>

#include <asm/cpufeature.h>
#include <asm/hypervisor.h>

#include "step.h"

/*
 * Held open while we are loaded: it pins KVM's vendor module, into which
 * hooks and static calls point.
 */
static struct file *kvm_dev;

static int __init redoubt_init(void)
{
	int r;

	/* On Hyper-V, KVM keeps its VMCS where VMREAD does not reach. */
	if (boot_cpu_has(X86_FEATURE_HYPERVISOR) && x86_hyper_type == X86_HYPER_MS_HYPERV) {
		pr_err("nested under Hyper-V is not supported\n");
		return -EOPNOTSUPP;
	}
	rdt_is_vmx = boot_cpu_has(X86_FEATURE_VMX);
	if (!rdt_is_vmx && !boot_cpu_has(X86_FEATURE_SVM)) {
		pr_err("no hardware virtualization\n");
		return -ENODEV;
	}
	if (!rdt_step_possible()) {
		pr_err("VMX has no virtual NMIs\n");
		return -EOPNOTSUPP;
	}
	kvm_dev = filp_open("/dev/kvm", O_RDWR | O_CLOEXEC, 0);
	if (IS_ERR(kvm_dev)) {
		pr_err("/dev/kvm cannot be opened (%ld): is %s loaded?\n", PTR_ERR(kvm_dev),
		       rdt_is_vmx ? "kvm_intel" : "kvm_amd");
		return -ENODEV;
	}
	r = rdt_hooks_install();
	if (r)
		goto put;
	r = rdt_selftest();
	if (r)
		goto hooks;
	r = rdt_dev_init();
	if (r)
		goto hooks;
	pr_info("loaded for %s, %s\n", RDT_KERNEL_RELEASE, rdt_is_vmx ? "EPT" : "NPT");
	return 0;
hooks:
	rdt_hooks_remove();
put:
	fput(kvm_dev);
	return r;
}

static void __exit redoubt_exit(void)
{
	/* An attached VM pins the module: none is left. */
	rdt_dev_exit();
	rdt_hooks_remove();
	WARN(rdt_port_held(), "%ld allocations or pins were never given back\n", rdt_port_held());
	fput(kvm_dev);
}

module_init(redoubt_init);
module_exit(redoubt_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Redoubt: guest protection on an unpatched KVM");
MODULE_AUTHOR("The Redoubt developers");
