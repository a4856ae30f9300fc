// SPDX-License-Identifier: GPL-2.0
#include "cell.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include "tap.h"

int64_t cell_hc(struct vcpu *v, uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	int64_t ret = vcpu_hc(v, nr, a, b, c, d);

	return vcpu_done(v) ? ret : (int64_t)CELL_NONE;
}

void cell_describe(const struct cell *d, struct rdt_domain_desc *desc)
{
	const struct cell_image *im = d->image;

	*desc = (struct rdt_domain_desc){
		.size = sizeof(*desc),
		.flags = im->flags,
		.gate_gva = CELL_GVA + im->gate_at,
		.exit_gva = CELL_GVA + im->exit_at,
		.resume_gva = im->resume,
		.slots = im->slots,
		.windows = !!d->shared,
	};
	if (d->shared)
		desc->window[0] = (struct rdt_domain_window){ CELL_WINDOW, 1 };
	for (unsigned int i = 0; i < im->slots; i++)
		desc->stack_top[i] = CELL_GVA + cell_stacks(d) + (i + 1) * PAGE_SIZE;
}

void cell_place(struct cell *d, struct vm *vm, const struct cell_image *im, uint64_t gpa)
{
	d->vm = vm;
	d->image = im;
	d->gpa = gpa;
	memcpy(vm_host(vm, gpa), im->code, im->code_pages * PAGE_SIZE);
	memset(vm_host(vm, gpa + cell_data(d)), 0, (im->data_pages + im->slots) * PAGE_SIZE);
}

static int64_t add(struct vcpu *v, const struct cell *d, uint64_t offset, uint64_t pages, uint64_t kind)
{
	return cell_hc(v, RDT_HC_DOM_ADD, d->id, d->gpa + offset, kind == RDT_DOM_TABLE ? 0 : CELL_GVA + offset,
		      RDT_DOM_PAGES(pages, kind));
}

int64_t cell_build(struct vcpu *v, struct cell *d)
{
	const struct cell_image *im = d->image;
	const uint64_t desc = CELL_DESC + v->id * PAGE_SIZE;
	const uint64_t gate = im->gate_at & -PAGE_SIZE, exit = im->exit_at & -PAGE_SIZE;
	int64_t ret = 0;

	cell_describe(d, vm_host(d->vm, desc));
	d->id = cell_hc(v, RDT_HC_DOM_CREATE, desc, 0, 0, 0);
	d->failed = "CREATE";
	if (d->id <= 0)
		return d->id;
	d->failed = "ADD";
	for (uint64_t at = 0; at < cell_data(d) && !ret; at += PAGE_SIZE)
		ret = add(v, d, at, 1, at == gate ? RDT_DOM_GATE : at == exit ? RDT_DOM_EXIT : RDT_DOM_TEXT);
	if (!ret)
		ret = add(v, d, cell_data(d), im->data_pages + im->slots, RDT_DOM_DATA);
	if (!ret)
		ret = add(v, d, cell_pages(d) * PAGE_SIZE, CELL_TABLES, RDT_DOM_TABLE);
	if (ret || !d->shared)
		return ret;
	d->failed = "SHARE";
	return cell_hc(v, RDT_HC_DOM_SHARE, d->id, d->shared, CELL_WINDOW, 1);
}

int64_t cell_seal(struct vcpu *v, struct cell *d)
{
	d->failed = "SEAL";
	return cell_hc(v, RDT_HC_DOM_SEAL, d->id, 0, 0, 0);
}

void cell_make(struct vcpu *v, struct cell *d, const struct cell_image *im, uint64_t gpa)
{
	int64_t ret;

	cell_place(d, v->vm, im, gpa);
	ret = cell_build(v, d);
	if (!ret)
		ret = cell_seal(v, d);
	if (ret) {
		vcpu_explain(v);
		tap_bail("a domain: %s gives %ld", d->failed, ret);
	}
}

int64_t cell_destroy(struct vcpu *v, const struct cell *d)
{
	int64_t ret = -EAGAIN;

	for (int i = 0; i < 1000 && ret == -EAGAIN; i++) {
		ret = cell_hc(v, RDT_HC_DOM_DESTROY, d->id, 0, 0, 0);
		if (ret == -EAGAIN)
			usleep(1000);
	}
	return ret;
}

int cell_install(struct rdt *r, const struct cell *d, uint64_t offset, const void *value, uint32_t len)
{
	const struct rdt_fixup fixup = {
		.offset = (int64_t)(offset - (d->image->gate_at & -PAGE_SIZE)),
		.len = len,
	};
	struct rdt_install in = {
		.id = d->id,
		.value = (uintptr_t)value,
		.fixups = (uintptr_t)&fixup,
		.len = len,
		.nr = 1,
	};

	return ioctl(r->fd, RDT_VM_DOM_INSTALL, &in) ? -errno : 0;
}

void cell_allow(struct vcpu *v, struct rdt *r)
{
	struct rdt_domain_quota quota = { .domains = RDT_DOM_MAX, .frames_each = 128, .frames = 1024 };

	if (vcpu_call(v, g_node_add, CELL_NODES, 1) != 1)
		tap_bail("no node page");
	if (ioctl(r->fd, RDT_VM_DOM_QUOTA, &quota))
		tap_bail("no quota");
}
