// SPDX-License-Identifier: GPL-2.0
#include "dom.h"

#include <unistd.h>

#include "driver.h"
#include "tap.h"

#define DESC	GUEST_FREE
#define DOMS	(GUEST_FREE + 0x400000)
#define DOM_SIZE 0x40000ul
#define SHARED	(GUEST_FREE + 0x30000)		/* a page each */

int64_t dom_hc(struct vm *vm, uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	return vcpu_hc(&vm->vcpu[0], nr, a, b, c, d);
}

static int add(const struct dom *d, uint64_t at, uint64_t pages, uint64_t kind)
{
	return dom_hc(d->vm, RDT_HC_DOM_ADD, d->id, d->gpa + at, kind == RDT_DOM_TABLE ? 0 : DOM_GVA + at,
		      RDT_DOM_PAGES(pages, kind)) != 0;
}

struct dom dom_make(struct vm *vm, int nr, uint32_t flags, uint64_t word)
{
	struct dom d = { .vm = vm, .gpa = DOMS + nr * DOM_SIZE, .shared = SHARED + nr * PAGE_SIZE };
	struct rdt_domain_desc *desc = vm_host(vm, DESC);
	int64_t id;

	memcpy(vm_host(vm, d.gpa), dom_code, DOM_CODE_PAGES * PAGE_SIZE);
	*(uint8_t *)vm_host(vm, d.gpa + (&dom_intel - dom_code)) = guest_is_intel;
	memset(vm_host(vm, d.gpa + DOM_DATA), 0, DOM_DATA_PAGES * PAGE_SIZE);
	*(uint64_t *)vm_host(vm, d.gpa + DOM_DATA) = word;
	*desc = (struct rdt_domain_desc){
		.size = sizeof(*desc),
		.flags = flags,
		.gate_gva = DOM_GVA + DOM_GATE_AT,
		.exit_gva = DOM_GVA + PAGE_SIZE + DOM_EXIT_AT,
		.resume_gva = (uint64_t)drv_resume,
		.slots = 1,
		.windows = 1,
		.window = { { DOM_WINDOW, 1 } },
		.stack_top = { DOM_GVA + DOM_DATA + DOM_DATA_PAGES * PAGE_SIZE },
	};
	id = dom_hc(vm, RDT_HC_DOM_CREATE, DESC, 0, 0, 0);
	if (id <= 0)
		tap_bail("domain %d: %ld", nr, (long)id);
	d.id = id;
	if (add(&d, 0, 1, RDT_DOM_GATE) | add(&d, PAGE_SIZE, 1, RDT_DOM_EXIT) |
	    add(&d, 2 * PAGE_SIZE, 1, RDT_DOM_TEXT) | add(&d, DOM_DATA, DOM_DATA_PAGES, RDT_DOM_DATA) |
	    add(&d, DOM_TABLES, DOM_TABLE_PAGES, RDT_DOM_TABLE) |
	    (dom_hc(vm, RDT_HC_DOM_SHARE, d.id, d.shared, DOM_WINDOW, 1) != 0) |
	    (dom_hc(vm, RDT_HC_DOM_SEAL, d.id, 0, 0, 0) != 0))
		tap_bail("domain %d is not made", nr);
	return d;
}

int64_t dom_call(const struct dom *d, uint64_t op, uint64_t a, uint64_t b)
{
	struct vcpu *v = &d->vm->vcpu[0];
	int64_t ret = vcpu_call(v, g_drv_call, op, a, b, d->gpa + DOM_GATE_AT);

	vcpu_must_end(v, "a call into a domain");
	return ret;
}

void dom_stay(const struct dom *d, struct vcpu *who)
{
	volatile uint64_t *word = vm_host(d->vm, d->shared);

	*word = 0;
	vcpu_start(who, g_drv_call, DOM_WAIT, DOM_WINDOW, 42, d->gpa + DOM_GATE_AT);
	for (int i = 0; i < 20000 && *word != 1; i++)
		usleep(1000);
	ok(*word == 1, "a thread is inside");
}

int64_t dom_come(const struct dom *d, struct vcpu *who)
{
	int64_t ret;

	*(volatile uint64_t *)vm_host(d->vm, d->shared) = 2;
	ret = vcpu_join(who);
	vcpu_must_end(who, "from inside");
	return ret;
}
