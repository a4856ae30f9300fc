// SPDX-License-Identifier: GPL-2.0
/*
 * The state of a vCPU, and what the VM has besides: KVM's GET ioctls, called by ask.c's thread.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/file.h>
#include <linux/kvm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>

#define ARG_BYTES	RDT_SB_ARG_BYTES

static void __user *at(const struct rdt_sb_ask *a, unsigned long offset)
{
	return (void __user *)(a->arg + offset);
}

/* ---- items ---------------------------------------------------------------------- */

static int put_error(struct rdt_sb_ask *a, const char *name, long err)
{
	struct nlattr *nest;

	/* Not an answer of KVM's: we have been told to give up. */
	if (err == -EINTR || err == -ERESTARTSYS)
		return -EINTR;
	nest = nla_nest_start(a->skb, RDT_SB_A_ITEM);
	if (!nest || nla_put_string(a->skb, RDT_SB_I_NAME, name) || nla_put_s32(a->skb, RDT_SB_I_ERROR, -err))
		return -EMSGSIZE;
	nla_nest_end(a->skb, nest);
	return 0;
}

/* From user memory (@from) or, that being NULL, from @data. */
static int put_data(struct rdt_sb_ask *a, const char *name, const void __user *from, const void *data, u32 bytes)
{
	struct nlattr *nest, *attr;

	nest = nla_nest_start(a->skb, RDT_SB_A_ITEM);
	if (!nest || nla_put_string(a->skb, RDT_SB_I_NAME, name))
		return -EMSGSIZE;
	attr = nla_reserve(a->skb, RDT_SB_I_DATA, bytes);
	if (!attr)
		return -EMSGSIZE;
	if (!from)
		memcpy(nla_data(attr), data, bytes);
	else if (copy_from_user(nla_data(attr), from, bytes))
		return -EFAULT;
	nla_nest_end(a->skb, nest);
	return 0;
}

/* An ioctl that fills a structure of its own size. */
static int get_plain(struct rdt_sb_ask *a, struct file *file, const char *name, unsigned int ioctl)
{
	const long ret = rdt_sb_kvm_call(a, file, ioctl, a->arg);

	return ret < 0 ? put_error(a, name, ret) : put_data(a, name, at(a, 0), NULL, _IOC_SIZE(ioctl));
}

/*
 * KVM tells the size of the area by what the *caller* may have (KVM_CAP_XSAVE2), and a kernel thread may have no AMX: the
 * guest's own size is what KVM_GET_XSAVE2 writes. It grows by KVM_SET_CPUID2.
 */
static int get_xsave(struct rdt_sb_ask *a)
{
	const struct kvm_vcpu *vcpu = a->vcpu->private_data;
	const u32 bytes = READ_ONCE(vcpu->arch.guest_fpu.uabi_size);
	const long ret = bytes > ARG_BYTES ? -E2BIG : rdt_sb_kvm_call(a, a->vcpu, KVM_GET_XSAVE2, a->arg);

	if (ret < 0)
		return put_error(a, "XSAVE", ret);
	if (READ_ONCE(vcpu->arch.guest_fpu.uabi_size) != bytes)
		return -EBUSY;
	return put_data(a, "XSAVE", at(a, 0), NULL, bytes);
}

/*
 * Where guests may have MPX, KVM loads the guest's FPU registers to answer this. A kernel thread's are not saved when it
 * is scheduled out: the guest's would be lost. So there it is read where KVM reads it; an INIT that nobody has taken
 * yet shows in VCPU_EVENTS. A start-up IPI behind an INIT does not: -EAGAIN, for it would be lost.
 */
static int get_mp_state(struct rdt_sb_ask *a)
{
	struct kvm_vcpu *vcpu = a->vcpu->private_data;
	struct kvm_mp_state state = {};

	if (!boot_cpu_has(X86_FEATURE_MPX))
		return get_plain(a, a->vcpu, "MP_STATE", KVM_GET_MP_STATE);
	if (mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	state.mp_state = vcpu->arch.mp_state;
	if ((state.mp_state == KVM_MP_STATE_HALTED || state.mp_state == KVM_MP_STATE_AP_RESET_HOLD) &&
	    vcpu->arch.pv.pv_unhalted)
		state.mp_state = KVM_MP_STATE_RUNNABLE;
	mutex_unlock(&vcpu->mutex);
	if (state.mp_state == KVM_MP_STATE_INIT_RECEIVED)
		return put_error(a, "MP_STATE", -EAGAIN);
	return put_data(a, "MP_STATE", NULL, &state, sizeof(state));
}

/*
 * Has the vCPU left for an I/O that KVM will complete when it is run next? Then its registers are those before the
 * instruction's end, and nobody who has only them can tell whether the device has seen it.
 */
static int get_pending(struct rdt_sb_ask *a)
{
	struct kvm_vcpu *vcpu = a->vcpu->private_data;
	u32 pending;

	if (mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	pending = vcpu->arch.complete_userspace_io || vcpu->mmio_needed;
	mutex_unlock(&vcpu->mutex);
	return put_data(a, "PENDING_IO", NULL, &pending, sizeof(pending));
}

/* KVM stops at the first that it cannot read: that one is left out. */
static int get_msrs(struct rdt_sb_ask *a)
{
	struct kvm_msrs __user *arg = at(a, 0);
	struct nlattr *nest, *attr;
	u32 i = 0, got = 0;

	nest = nla_nest_start(a->skb, RDT_SB_A_ITEM);
	if (!nest || nla_put_string(a->skb, RDT_SB_I_NAME, "MSRS"))
		return -EMSGSIZE;
	attr = nla_reserve(a->skb, RDT_SB_I_DATA, a->nr_msrs * sizeof(struct kvm_msr_entry));
	if (!attr)
		return -EMSGSIZE;
	while (i < a->nr_msrs) {
		struct kvm_msrs head = { .nmsrs = a->nr_msrs - i };
		struct kvm_msr_entry *to = (struct kvm_msr_entry *)nla_data(attr) + got;
		long ret;
		u32 k;

		for (k = 0; k < head.nmsrs; k++)
			to[k] = (struct kvm_msr_entry){ .index = a->msrs[i + k] };
		if (copy_to_user(arg, &head, sizeof(head)) ||
		    copy_to_user(at(a, sizeof(head)), to, head.nmsrs * sizeof(*to)))
			return -EFAULT;
		ret = rdt_sb_kvm_call(a, a->vcpu, KVM_GET_MSRS, a->arg);
		if (ret < 0) {
			nla_nest_cancel(a->skb, nest);
			return put_error(a, "MSRS", ret);
		}
		/* A VMM that lives can write there, too. */
		if (ret > head.nmsrs || copy_from_user(to, at(a, sizeof(head)), ret * sizeof(*to)))
			return -EFAULT;
		got += ret;
		i += ret + 1;
	}
	/* Those left out are cut off the end. */
	skb_trim(a->skb, a->skb->len - (a->nr_msrs - got) * sizeof(struct kvm_msr_entry));
	attr->nla_len = NLA_HDRLEN + got * sizeof(struct kvm_msr_entry);
	nla_nest_end(a->skb, nest);
	return 0;
}

static int get_tsc_khz(struct rdt_sb_ask *a)
{
	const long ret = rdt_sb_kvm_call(a, a->vcpu, KVM_GET_TSC_KHZ, 0);
	const u32 khz = ret;

	return ret < 0 ? put_error(a, "TSC_KHZ", ret) : put_data(a, "TSC_KHZ", NULL, &khz, sizeof(khz));
}

static int get_tsc_offset(struct rdt_sb_ask *a)
{
	const struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = a->arg + sizeof(attr),
	};
	long ret;

	if (copy_to_user(at(a, 0), &attr, sizeof(attr)))
		return -EFAULT;
	ret = rdt_sb_kvm_call(a, a->vcpu, KVM_GET_DEVICE_ATTR, a->arg);
	return ret < 0 ? put_error(a, "TSC_OFFSET", ret) : put_data(a, "TSC_OFFSET", at(a, sizeof(attr)), NULL, sizeof(u64));
}

static int get_cpuid(struct rdt_sb_ask *a)
{
	struct kvm_cpuid2 head = { .nent = KVM_MAX_CPUID_ENTRIES };
	long ret;

	static_assert(sizeof(head) + KVM_MAX_CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2) <= ARG_BYTES);
	if (copy_to_user(at(a, 0), &head, sizeof(head)))
		return -EFAULT;
	ret = rdt_sb_kvm_call(a, a->vcpu, KVM_GET_CPUID2, a->arg);
	if (ret < 0)
		return put_error(a, "CPUID2", ret);
	if (copy_from_user(&head, at(a, 0), sizeof(head)) || head.nent > KVM_MAX_CPUID_ENTRIES)
		return -EFAULT;
	return put_data(a, "CPUID2", at(a, sizeof(head)), NULL, head.nent * sizeof(struct kvm_cpuid_entry2));
}

static int get_nested(struct rdt_sb_ask *a)
{
	struct kvm_nested_state head = { .size = ARG_BYTES };
	long ret;

	if (copy_to_user(at(a, 0), &head, sizeof(head)))
		return -EFAULT;
	ret = rdt_sb_kvm_call(a, a->vcpu, KVM_GET_NESTED_STATE, a->arg);
	if (ret < 0)
		return put_error(a, "NESTED_STATE", ret);
	if (copy_from_user(&head, at(a, 0), sizeof(head)) || head.size < sizeof(head) || head.size > ARG_BYTES)
		return -EFAULT;
	return put_data(a, "NESTED_STATE", at(a, 0), NULL, head.size);
}

static int get_irqchip(struct rdt_sb_ask *a, u32 chip)
{
	static const char *const names[] = { "IRQCHIP0", "IRQCHIP1", "IRQCHIP2" };
	long ret;

	if (put_user(chip, (u32 __user *)at(a, offsetof(struct kvm_irqchip, chip_id))))
		return -EFAULT;
	ret = rdt_sb_kvm_call(a, a->file, KVM_GET_IRQCHIP, a->arg);
	return ret < 0 ? put_error(a, names[chip], ret) :
			 put_data(a, names[chip], at(a, 0), NULL, sizeof(struct kvm_irqchip));
}

/* ---- all of them ---------------------------------------------------------------- */

static int get_vcpu(struct rdt_sb_ask *a)
{
	static const struct {
		const char *name;
		unsigned int ioctl;
	} plain[] = {
		{ "REGS", KVM_GET_REGS }, { "SREGS2", KVM_GET_SREGS2 }, { "SREGS", KVM_GET_SREGS },
		{ "XCRS", KVM_GET_XCRS }, { "LAPIC", KVM_GET_LAPIC }, { "VCPU_EVENTS", KVM_GET_VCPU_EVENTS },
		{ "DEBUGREGS", KVM_GET_DEBUGREGS },
	};
	unsigned int i;
	/* First: what it answers to pending INITs and SIPIs is then in the others. */
	int err = get_mp_state(a);

	for (i = 0; i < ARRAY_SIZE(plain) && !err; i++)
		err = get_plain(a, a->vcpu, plain[i].name, plain[i].ioctl);
	if (!err)
		err = get_pending(a);
	if (!err)
		err = get_xsave(a);
	if (!err && a->nr_msrs)
		err = get_msrs(a);
	if (!err)
		err = get_tsc_khz(a);
	if (!err)
		err = get_tsc_offset(a);
	if (!err)
		err = get_cpuid(a);
	return err ?: get_nested(a);
}

static int get_vm(struct rdt_sb_ask *a)
{
	int err = 0;
	u32 chip;

	for (chip = 0; chip < 3 && !err; chip++)
		err = get_irqchip(a, chip);
	if (!err)
		err = get_plain(a, a->file, "PIT2", KVM_GET_PIT2);
	return err ?: get_plain(a, a->file, "CLOCK", KVM_GET_CLOCK);
}

static int get_state(struct rdt_sb_ask *a)
{
	return a->vcpu ? get_vcpu(a) : get_vm(a);
}

int rdt_sb_state(struct rdt_sb_vm *vm, struct file *vcpu, const u32 *msrs, u32 nr_msrs, struct sk_buff **skb)
{
	struct rdt_sb_ask *a;
	int err = -ENOMEM;
	bool ended;

	lockdep_assert_held(&vm->lock);
	a = rdt_sb_ask_new(vm, vcpu, get_state);
	if (!a)
		return -ENOMEM;
	a->still = true;
	a->skb = *skb;
	*skb = NULL;
	a->nr_msrs = nr_msrs;
	a->msrs = kmemdup(msrs, nr_msrs * sizeof(*msrs), GFP_KERNEL);
	if (a->msrs || !nr_msrs)
		err = rdt_sb_ask(a, &ended);
	if (!err) {
		*skb = a->skb;
		a->skb = NULL;
	}
	rdt_sb_ask_put(a);
	return err;
}
