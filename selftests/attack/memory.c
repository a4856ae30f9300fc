// SPDX-License-Identifier: GPL-2.0
/* Attacks that write to memory. */
#include <linux/mm.h>
#include <asm/desc.h>
#include <asm/io.h>
#include <asm/unistd.h>
#include "attack.h"

static const struct way {
	const char *name;
	int (*store)(u64 *at, u64 val);
} ways[] = {
	{ "CR0.WP cleared", store_wp_clear },
	{ "page table entry made writable", store_pte },
	{ "writable alias", store_alias },
};

/* Writes once in one way, looks, and puts back what changed. */
static void try(struct seq_file *m, const char *what, const struct way *way, u64 *at, u64 val)
{
	u64 before = READ_ONCE(*at), after;
	int err = way->store(at, val);

	after = READ_ONCE(*at);
	if (err && err != -EFAULT)
		return report(m, false, "%s, %s: could not be tried: %d", what, way->name, err);
	if (after == before) {
		report(m, true, "%s, %s: %s, unchanged", what, way->name,
		       err ? "the store faulted" : "the store did nothing");
		return;
	}
	report(m, false, "%s, %s: CHANGED from %016llx to %016llx", what, way->name, before, after);
	way->store(at, before);
}

static void try_all(struct seq_file *m, const char *what, u64 *at, u64 val)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ways); i++)
		try(m, what, &ways[i], at, val);
}

/* A frame that is writable as the direct map has it: no trick needed. */
static const struct way plain = { "direct map", store_plain };

static u64 *direct(const void *va)
{
	return page_address(page_of(va)) + offset_in_page(va);
}

static bool missing(struct seq_file *m, const char *name, unsigned long addr)
{
	if (!addr)
		report(m, true, "%s # SKIP this kernel has none", name);
	return !addr;
}

void attack_syscall(struct seq_file *m)
{
	u64 *table = (u64 *)symbol("sys_call_table");

	if (!missing(m, "system call table", (unsigned long)table))
		try_all(m, "system call table, entry of kill()", &table[__NR_kill],
			symbol("attack_syscall"));
}

/*
 * "xor %eax, %eax; ret" over a function's first bytes: the check it made says yes
 * from now on. One that nothing calls in the meantime.
 */
void attack_text(struct seq_file *m)
{
	u64 *fn = (u64 *)symbol("__x64_sys_reboot");

	if (!missing(m, "kernel text", (unsigned long)fn))
		try_all(m, "first bytes of __x64_sys_reboot", fn,
			(READ_ONCE(*fn) & ~0xffffffull) | 0xc3c031);
}

void attack_idt(struct seq_file *m)
{
	struct desc_ptr idt;
	u64 *gate;

	store_idt(&idt);
	gate = (u64 *)idt.address + 2 * 0x81;	/* a vector that no device has at once */
	try_all(m, "IDT, gate 0x81", gate, READ_ONCE(*gate) ^ 0xffff);
	try(m, "IDT, gate 0x81", &plain, direct(gate), READ_ONCE(*gate) ^ 0xffff);
}

void attack_driver_data(struct seq_file *m)
{
	u64 *data = (u64 *)symbol("redoubt_guest:rdt_inside_data");

	if (missing(m, "driver's data", (unsigned long)data))
		return;
	try_all(m, "driver's data", data, ~READ_ONCE(*data));
	try(m, "driver's data", &plain, direct(data), ~READ_ONCE(*data));
	/* The policy table, where a range could be called removable. */
	try(m, "driver's policy table", &plain, direct((void *)data + 4096), ~0ull);
}

void attack_driver_text(struct seq_file *m)
{
	static const char *const part[] = {
		"redoubt_guest:rdt_inside_main", "redoubt_guest:rdt_gate",
		"redoubt_guest:rdt_resume", "redoubt_guest:rdt_exit",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(part); i++) {
		u64 *at = (u64 *)(symbol(part[i]) & ~7ul);

		if (!missing(m, part[i], (unsigned long)at))
			try_all(m, part[i], at, 0x9090909090909090ull);
	}
}

/* The inside's page tables, found through the driver's own variable. */
static u64 *inside_pml4(struct seq_file *m)
{
	u64 *space = (u64 *)symbol("redoubt_guest:rdt_space");

	if (missing(m, "driver's page tables", (unsigned long)space))
		return NULL;
	return phys_to_virt(*space);
}

static u64 *next_level(u64 entry)
{
	return phys_to_virt(entry & 0x000ffffffffff000ull);
}

void attack_driver_pt(struct seq_file *m)
{
	u64 *pml4 = inside_pml4(m), *table;
	int level;

	if (!pml4)
		return;
	/* An entry that is in use, made to point elsewhere, and a new one. */
	try(m, "driver's PML4, last entry", &plain, &pml4[511], READ_ONCE(pml4[511]) ^ 0x1000);
	try(m, "driver's PML4, entry 1", &plain, &pml4[1], 0x63);
	for (table = pml4, level = 0; level < 3; level++) {
		int i;

		for (i = 511; i && !table[i]; i--)
			;
		table = next_level(table[i]);
		try(m, "driver's table of a lower level", &plain, &table[i],
		    READ_ONCE(table[i]) ^ 0x2);
	}
}

/* The lowest part that the driver's tables map is its stacks: find one and write to it. */
void attack_stack(struct seq_file *m)
{
	u64 *table = inside_pml4(m);
	int level;

	for (level = 0; table && level < 4; level++) {
		int i;

		for (i = 0; i < 512 && !table[i]; i++)
			;
		if (i == 512)
			return report(m, false, "driver's stack: not found");
		table = next_level(table[i]);
	}
	if (table)
		try(m, "driver's private stack", &plain, &table[510], 0x4141414141414141ull);
}

void attack_node(struct seq_file *m)
{
	struct list_head *nodes = (struct list_head *)symbol("redoubt_guest:rdt_nodes");
	struct page *page;
	int n = 0;

	if (missing(m, "tree node page", (unsigned long)nodes))
		return;
	list_for_each_entry(page, nodes, lru) {
		u64 *at = page_address(page);

		try(m, "tree node page, first word", &plain, at, ~READ_ONCE(*at));
		try(m, "tree node page, last word", &plain, at + 511, ~READ_ONCE(at[511]));
		if (++n == 4)
			break;
	}
	if (!n)
		report(m, true, "tree node page # SKIP none was donated");
}
