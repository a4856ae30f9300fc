// SPDX-License-Identifier: GPL-2.0
/*
 * All of the guest's memory, page by page, for a key: what root can do with any process's. Which key,
 * is in the module parameter "sought": hexadecimal, each bit inverted, lest it be found here.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/uaccess.h>

#include "attack.h"

#define KEY	32

static char sought[2 * KEY + 1];
module_param_string(sought, sought, sizeof(sought), 0600);

static u8 page[PAGE_SIZE], inverted[KEY];

struct found {
	unsigned long pages, whole, pieces, refused, written;
};

const char *no_key(void)
{
	return *sought ? NULL : "there is no key to look for";
}

static u64 word_at(const u8 *p)
{
	u64 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Whole, and in pieces of eight bytes, at any address. */
static void look(struct found *f)
{
	int i, k, at;
	u64 word;

	for (i = 0; i + 8 <= PAGE_SIZE; i++) {
		word = ~word_at(page + i);
		for (k = 0; k < KEY; k += 8)
			if (unlikely(word == word_at(inverted + k)))
				f->pieces++;
		if (likely(word != word_at(inverted)) || i + KEY > PAGE_SIZE)
			continue;
		for (at = 0; at < KEY && (u8)~page[i + at] == inverted[at]; at++)
			;
		f->whole += at == KEY;
	}
}

void attack_scan(struct seq_file *m)
{
	const struct pglist_data *node = NODE_DATA(0);
	unsigned long pfn = node->node_start_pfn, end = pfn + node->node_spanned_pages;
	struct page *own = vmalloc_to_page(page);
	struct found f = {};
	void *va;

	if (strlen(sought) != 2 * KEY || hex2bin(inverted, sought, KEY)) {
		report(m, false, "parameter sought: %d digits", 2 * KEY);
		return;
	}
	for (; pfn < end; pfn++) {
		if (!(pfn % 1024))
			cond_resched();
		if (!pfn_valid(pfn) || PageReserved(pfn_to_page(pfn)) || pfn_to_page(pfn) == own)
			continue;
		f.pages++;
		va = page_address(pfn_to_page(pfn));
		if (!copy_from_kernel_nofault(page, va, PAGE_SIZE)) {
			look(&f);
			continue;
		}
		f.refused++;
		f.written += !store_plain(va, 0x6b6361747461);
	}
	memset(page, 0, sizeof(page));
	/* "not ok": the attacker has what he wants. */
	report(m, !f.whole && !f.pieces, "%lu pages of memory: the key %lu times, %lu pieces of it", f.pages,
	       f.whole, f.pieces);
	report(m, !f.written, "%lu pages cannot be read; %lu of them could be written", f.refused, f.written);
}
