// SPDX-License-Identifier: GPL-2.0
/*
 * redoubt_vmcs: in a crash kernel on Intel, reads VMCSs that the old kernel has left (F1). A VMCS has no documented layout: VMREAD of a CPU
 * that has loaded it is the only way. KVM has cleared it on its way down (crash_nmi_callback(), native_machine_crash_shutdown()),
 * so all of it is in memory, and any CPU that knows its revision may load it.
 *
 * For a crash kernel only: nobody else uses VMX there, and what is read was nobody's any more before this kernel began.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/crash_dump.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/asm.h>
#include <asm/cpufeature.h>
#include <asm/msr.h>
#include <asm/tlbflush.h>

#include <linux/redoubt_crash.h>

#define REVISION	GENMASK(30, 0)		/* of IA32_VMX_BASIC, and of a region's first word */

static u32 revision;
static void *own;				/* VMXON's region; under @lock */
/* One reader at a time: @own. Outermost; nothing else is taken under it. */
static DEFINE_MUTEX(lock);

/*
 * Each of these is true if it failed: by the flags (CF or ZF), or by a fault, which leaves @bad as it was.
 */
#define VMX_FAILS(what, operand...)										\
({														\
	bool bad = true;											\
														\
	asm volatile("1: " what "\n\tsetna %0\n2:\n\t" _ASM_EXTABLE(1b, 2b) : "+qm" (bad) : operand : "cc", "memory");	\
	bad;													\
})

static bool vmxon_fails(u64 address)
{
	return VMX_FAILS("vmxon %1", "m" (address));
}

static bool vmxoff_fails(void)
{
	return VMX_FAILS("vmxoff");
}

static bool vmptrld_fails(u64 address)
{
	return VMX_FAILS("vmptrld %1", "m" (address));
}

static bool vmclear_fails(u64 address)
{
	return VMX_FAILS("vmclear %1", "m" (address));
}

static bool vmread_fails(unsigned long encoding, unsigned long *value)
{
	unsigned long got = 0;
	bool bad = true;

	asm volatile("1: vmread %2, %1\n\tsetna %0\n2:\n\t" _ASM_EXTABLE(1b, 2b) : "+qm" (bad), "+r" (got) : "r" (encoding) : "cc", "memory");
	*value = got;
	return bad;
}

/* Interrupts off, VMX on. */
static int read_loaded(u64 address, struct rdt_vmcs_field *fields, u32 nr)
{
	u32 i;

	if (vmptrld_fails(address))
		return -EBADMSG;
	for (i = 0; i < nr; i++) {
		unsigned long value;

		fields[i].error = vmread_fails(fields[i].encoding, &value) ? -ENODATA : 0;
		fields[i].value = value;
	}
	return vmclear_fails(address) ? -EIO : 0;
}

/*
 * VMX is on for these instructions only, with interrupts off, so all on one CPU: a current VMCS is a CPU's own, and VMX blocks INIT, by
 * which this kernel may be reset.
 */
static int read_vmcs(u64 address, struct rdt_vmcs_field *fields, u32 nr)
{
	unsigned long flags;
	int ret;

	lockdep_assert_held(&lock);
	local_irq_save(flags);
	if (cr4_read_shadow() & X86_CR4_VMXE) {
		ret = -EBUSY;
		goto out;
	}
	memset(own, 0, PAGE_SIZE);
	*(u32 *)own = revision;
	cr4_set_bits_irqsoff(X86_CR4_VMXE);
	if (vmxon_fails(virt_to_phys(own))) {
		ret = -EIO;
	} else {
		ret = read_loaded(address, fields, nr);
		if (vmxoff_fails())
			ret = -EIO;
	}
	cr4_clear_bits_irqsoff(X86_CR4_VMXE);
out:
	local_irq_restore(flags);
	return ret;
}

/* The old kernel's memory is none of ours. Whether it is memory at all /proc/vmcore says, and its reader asks there first. */
static int check_region(u64 address)
{
	u32 *word, its;

	if (!PAGE_ALIGNED(address) || address >> boot_cpu_data.x86_phys_bits)
		return -EINVAL;
	if (region_intersects(address, PAGE_SIZE, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT)
		return -EPERM;
	word = memremap(address, PAGE_SIZE, MEMREMAP_WB);
	if (!word)
		return -ENXIO;
	its = READ_ONCE(*word);
	memunmap(word);
	/* Bit 31: a shadow VMCS, which KVM has for nested guests */
	return its == revision ? 0 : -EBADMSG;
}

static long do_read(struct rdt_vmcs_read __user *user)
{
	struct rdt_vmcs_field *fields;
	struct rdt_vmcs_read arg;
	size_t bytes;
	long ret;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	if (arg.reserved)
		return -EINVAL;
	if (!arg.nr || arg.nr > RDT_VMCS_MAX_FIELDS)
		return -E2BIG;
	bytes = arg.nr * sizeof(*fields);
	fields = memdup_user(u64_to_user_ptr(arg.fields), bytes);
	if (IS_ERR(fields))
		return PTR_ERR(fields);
	ret = check_region(arg.address);
	if (!ret) {
		mutex_lock(&lock);
		ret = read_vmcs(arg.address, fields, arg.nr);
		mutex_unlock(&lock);
	}
	if (ret)
		pr_notice_ratelimited("VMCS at %#llx: error %ld\n", arg.address, ret);
	else if (copy_to_user(u64_to_user_ptr(arg.fields), fields, bytes))
		ret = -EFAULT;
	kfree(fields);
	return ret;
}

static long vmcs_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return cmd == RDT_VMCS_READ ? do_read((void __user *)arg) : -ENOTTY;
}

static const struct file_operations fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= vmcs_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "redoubt-vmcs",
	.fops	= &fops,
	.mode	= 0600,
};

static int __init vmcs_init(void)
{
	const u64 wanted = FEAT_CTL_LOCKED | FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX;
	u64 basic, control;
	int err;

	if (!is_kdump_kernel()) {
		pr_err("this is no crash kernel\n");
		return -EPERM;
	}
	if (boot_cpu_data.x86_vendor != X86_VENDOR_INTEL || !boot_cpu_has(X86_FEATURE_VMX) ||
	    rdmsrl_safe(MSR_IA32_FEAT_CTL, &control) || (control & wanted) != wanted || rdmsrl_safe(MSR_IA32_VMX_BASIC, &basic)) {
		pr_err("this CPU has no VMX, or its firmware has it off\n");
		return -ENODEV;
	}
	revision = basic & REVISION;
	own = (void *)get_zeroed_page(GFP_KERNEL);
	if (!own)
		return -ENOMEM;
	err = misc_register(&misc);
	if (err)
		free_page((unsigned long)own);
	return err;
}

static void __exit vmcs_exit(void)
{
	misc_deregister(&misc);
	free_page((unsigned long)own);
}

module_init(vmcs_init);
module_exit(vmcs_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("In a crash kernel: reads the VMCSs of the kernel that has panicked");
