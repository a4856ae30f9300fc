// SPDX-License-Identifier: GPL-2.0
/*
 * Protection domains by the driver's kernel API, and what the rest of this kernel can do to one's
 * frames.
 */
#include <linux/err.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/processor.h>
#include "domain.h"
#include "dom_image.h"
#include "tests.h"

#define PAGES	(DOM_CODE_PAGES + DOM_DATA_PAGES)
#define SLOTS	2

struct made {
	struct rdt_image image;
	struct rdt_image_segment segment[4];
};

/* As domain_images.c does it for processes. */
static struct redoubt_domain *make(struct made *m, void *bytes)
{
	static const u32 kind[] = { RDT_DOM_GATE, RDT_DOM_EXIT, RDT_DOM_TEXT, RDT_DOM_DATA };
	unsigned int i;

	memcpy(bytes, dom_image, PAGES * PAGE_SIZE);
	*(u8 *)(bytes + (dom_image_intel - dom_image)) = boot_cpu_data.x86_vendor == X86_VENDOR_INTEL;
	*m = (struct made){ .image = {
		.slots = SLOTS, .gate_gva = DOM_BASE + DOM_GATE_AT,
		.exit_gva = DOM_BASE + PAGE_SIZE + DOM_EXIT_AT, .segments = 4,
		.segment = (uintptr_t)m->segment, .windows = 1, .window = { { DOM_WINDOW, SLOTS } },
	} };
	for (i = 0; i < 4; i++)
		m->segment[i] = (struct rdt_image_segment){
			.gva = DOM_BASE + i * PAGE_SIZE, .pages = 1 + (i == 3) * SLOTS, .kind = kind[i],
			.data = (uintptr_t)bytes + i * PAGE_SIZE, .len = PAGE_SIZE };
	for (i = 0; i < SLOTS; i++)
		m->image.stack_top[i] = DOM_BASE + (PAGES + i + 1) * PAGE_SIZE;
	return redoubt_domain_create(&m->image);
}

static void calls(struct seq_file *m, struct redoubt_domain *d, const struct made *made)
{
	char text[] = "HAL", out[8] = "";
	struct rdt_call call = { .op = DOM_ECHO, .in = (uintptr_t)text, .in_len = 3,
				 .out = (uintptr_t)out, .out_len = 8 };
	u64 arg[4] = { DOM_VALUE, DOM_WINDOW };
	u8 sum[32];
	s64 r = 1;
	int err;

	err = redoubt_domain_call(d, &call);
	report(m, !err && call.result == 3 && !strcmp(out, "IBM"), "a call from the kernel: %d", err);
	err = redoubt_domain_enter(d, arg, &r);
	report(m, !err && r == 0, "in with registers only: %d, %lld", err, r);
	arg[0] = DOM_FAULT_CLI;
	err = redoubt_domain_enter(d, arg, &r);
	report(m, err == -ENOTRECOVERABLE && !irqs_disabled(),
	       "an exception inside with interrupts off, which are on again: %d", err);
	err = redoubt_domain_measure(d, sum);
	report(m, !err && !memcmp(sum, made->image.measurement, 32), "its measurement: %d", err);
}

/* Not copy_from_kernel_nofault(): it fails, too, but WARNs of a #GP. */
static bool load_faults(const u64 *at)
{
	bool faults = true;

	asm volatile("1:	cmpq	$0, (%[at])\n"
		     "	movb	$0, %[f]\n"
		     "2:\n"
		     _ASM_EXTABLE(1b, 2b)
		     : [f] "+qm" (faults) : [at] "r" (at) : "memory", "cc");
	return faults;
}

static bool store_faults(u64 *at)
{
	bool faults = true;

	asm volatile("1:	movq	%[v], (%[at])\n"
		     "	movb	$0, %[f]\n"
		     "2:\n"
		     _ASM_EXTABLE(1b, 2b)
		     : [f] "+qm" (faults) : [at] "r" (at), [v] "r" (0x666ul) : "memory");
	return faults;
}

/* By the direct map and by another mapping; and a look at window 0, which is anybody's. */
static void frames(struct seq_file *m, struct redoubt_domain *d)
{
	unsigned int i, direct = 0, other = 0, write = 0;

	for (i = 0; i < d->pages; i++) {
		struct page *page = d->frames.page[i];
		u64 *va = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

		direct += load_faults(page_address(page));
		other += va && load_faults(va + 511);
		write += store_faults(page_address(page) + 64);
		vunmap(va);
	}
	report(m, i && direct == i, "the kernel cannot read its %u frames: %u", i, direct);
	report(m, other == i, "nor by another mapping: %u", other);
	report(m, write == i, "nor write them: %u", write);
	report(m, !load_faults(page_address(d->window[0].page[0])), "its window is shared");
}

static void test(struct seq_file *m, struct made *made, void *bytes)
{
	struct redoubt_domain *d = make(made, bytes);

	if (PTR_ERR(d) == -EDQUOT) {
		report(m, true, "# SKIP the host's operator allows no domains");
		return;
	}
	report(m, !IS_ERR(d), "a domain by the kernel's API: %d", PTR_ERR_OR_ZERO(d));
	if (!IS_ERR(d)) {
		calls(m, d, made);
		frames(m, d);
		calls(m, d, made);
		redoubt_domain_destroy(d);
	}
	made->image.flags = RDT_DOM_USER;
	d = redoubt_domain_create(&made->image);
	report(m, PTR_ERR(d) == -EOPNOTSUPP, "one of ring 3 is not the kernel's: %d", PTR_ERR_OR_ZERO(d));
}

void test_domain(struct seq_file *m)
{
	void *bytes = vmalloc(PAGES * PAGE_SIZE);
	struct made *made = kmalloc(sizeof(*made), GFP_KERNEL);

	if (bytes && made)
		test(m, made, bytes);
	else
		report(m, false, "no memory");
	kfree(made);
	vfree(bytes);
}
