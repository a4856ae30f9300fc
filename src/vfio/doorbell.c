// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's doorbells without the VMM: KVM hands the vCPU's write to us. redoubt.ko knows how; without it,
 * and whenever there is a doubt about where the registers are, they come by the VMM (bar.c).
 */
#include "device.h"

#include <linux/module.h>

static void ring(struct rdt_kvm_bell *bell, gpa_t gpa, u32 value, bool emulated)
{
	struct rdt_device *d = container_of(bell, struct rdt_device, bell.bell);

	rdt_lock(d);
	rdt_model_write(d->model, gpa - d->bell.bar, sizeof(value), value);
	d->bell.rings++;
	d->bell.emulated += emulated;
	rdt_unlock(d);
}

/* In the vCPU's thread, in kvm->srcu. Not 0: the VMM gets it. */
static int emulated(struct kvm_vcpu *vcpu, struct kvm_io_device *dev, gpa_t gpa, int len, const void *val)
{
	u32 value;

	if (len != sizeof(value))
		return -EOPNOTSUPP;
	memcpy(&value, val, sizeof(value));
	ring(container_of(dev, struct rdt_kvm_bell, dev), gpa, value, true);
	return 0;
}

static const struct kvm_io_device_ops ops = { .write = emulated };

/* Likewise; redoubt.ko has read the instruction. */
static int decoded(struct rdt_kvm_bell *bell, gpa_t gpa, u32 value)
{
	ring(bell, gpa, value, false);
	return 0;
}

/* BAR 0 in vfio's copy of the configuration space */
static __le32 *bar_register(struct rdt_device *d)
{
	return (__le32 *)(d->core.vconfig + PCI_BASE_ADDRESS_0);
}

static bool is_wide(struct rdt_device *d)
{
	return (le32_to_cpu(*bar_register(d)) & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64;
}

u64 rdt_doorbell_bar(struct rdt_device *d)
{
	const __le32 *bar = bar_register(d);
	const u8 all = is_wide(d) ? 0xff : 0x0f;

	lockdep_assert_held(&d->lock);
	if ((d->bell.written & all) != all)
		return 0;
	return (le32_to_cpu(bar[0]) & PCI_BASE_ADDRESS_MEM_MASK) | (is_wide(d) ? (u64)le32_to_cpu(bar[1]) << 32 : 0);
}

/* QEMU does not tell VFIO where a guest that comes in has its BARs; the source does. */
void rdt_doorbell_set_bar(struct rdt_device *d, u64 gpa)
{
	__le32 *bar = bar_register(d);

	lockdep_assert_held(&d->lock);
	if (!gpa)
		return;
	gpa &= ~(d->bar_bytes - 1);
	bar[0] = cpu_to_le32((le32_to_cpu(bar[0]) & ~PCI_BASE_ADDRESS_MEM_MASK) | (u32)gpa);
	if (is_wide(d))
		bar[1] = cpu_to_le32(gpa >> 32);
	d->bell.written = 0xff;
}

/*
 * The VMM has written some of the configuration space. Before it has written all of BAR 0, what VFIO has there is
 * where the host has it: something else of the guest's might be there.
 */
void rdt_doorbell_config(struct rdt_device *d, u64 off, size_t count)
{
	u64 i;

	rdt_lock(d);
	for (i = max_t(u64, off, PCI_BASE_ADDRESS_0); i < min_t(u64, off + count, PCI_BASE_ADDRESS_2); i++)
		d->bell.written |= BIT(i - PCI_BASE_ADDRESS_0);
	rdt_unlock(d);
	rdt_doorbell_update(d);
}

static u64 bar_in_use(struct rdt_device *d)
{
	u64 bar;

	rdt_lock(d);
	bar = le16_to_cpu(*(__le16 *)(d->core.vconfig + PCI_COMMAND)) & PCI_COMMAND_MEMORY ? rdt_doorbell_bar(d) : 0;
	rdt_unlock(d);
	return bar;
}

void rdt_doorbell_update(struct rdt_device *d)
{
	struct rdt_doorbell *b = &d->bell;
	rdt_u64 off = 0;
	u64 bar;
	u32 len;

	if (!b->kvm)
		return;
	mutex_lock(&b->lock);
	bar = bar_in_use(d);
	if (bar == b->bar)
		goto out;
	if (b->bar)
		b->kvm_ops->del(b->kvm, &b->bell);
	b->bar = 0;
	len = rdt_model_doorbells(d->model, &off);
	if (bar && bar + off + len > bar) {
		b->bell.dev.ops = &ops;
		b->bell.ring = decoded;
		b->bar = bar;	/* before the first ring */
		if (b->kvm_ops->add(b->kvm, bar + off, len, &b->bell))
			b->bar = 0;
	}
out:
	mutex_unlock(&b->lock);
}

/* The model is there; no vCPU has the device yet. */
void rdt_doorbell_open(struct rdt_device *d)
{
	struct rdt_doorbell *b = &d->bell;
	struct kvm *kvm = d->core.vdev.kvm;

	b->bar = b->rings = b->emulated = b->written = 0;
	b->kvm_ops = kvm ? symbol_get(rdt_kvm_services) : NULL;
	if (!b->kvm_ops)
		return;
	if (b->kvm_ops->get(kvm)) {
		b->kvm = kvm;
		rdt_show_open(d);
		return;
	}
	symbol_put(rdt_kvm_services);
	b->kvm_ops = NULL;
}

/* Not under the device's lock: it waits for vCPUs that want it. */
void rdt_doorbell_close(struct rdt_device *d)
{
	struct rdt_doorbell *b = &d->bell;

	if (!b->kvm)
		return;
	if (b->bar)
		b->kvm_ops->del(b->kvm, &b->bell);
	b->bar = 0;
	rdt_show_close(d);
	b->kvm_ops->put(b->kvm);
	b->kvm = NULL;
	b->kvm_ops = NULL;
	symbol_put(rdt_kvm_services);
}

/*
 * Is the VM one that Redoubt protects? What protects it does not travel. redoubt.ko may have been loaded after the device was
 * opened; the VM lives as long as its VMM has the device, and asks us.
 */
bool rdt_monitored(struct rdt_device *d)
{
	struct kvm *kvm = d->core.vdev.kvm;
	const struct rdt_kvm_services *s = kvm ? symbol_get(rdt_kvm_services) : NULL;
	bool yes;

	if (!s)
		return false;
	yes = s->monitored(kvm);
	symbol_put(rdt_kvm_services);
	return yes;
}
