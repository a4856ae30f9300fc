// SPDX-License-Identifier: GPL-2.0
/*
 * Which pages of a VM's memory were written since the last look, by vCPUs or by the VMM: those that the VMM's page tables
 * have writable. Each is made read-only by folio_mkclean(), which the mmu notifier tells KVM, so that the next write, of
 * whomever, is a fault that makes it writable again. That is one step a page, under its page table's lock and behind a TLB
 * flush: there is no moment at which a write is lost, and nothing has to stand still.
 *
 * A mapping of a file must not make a page writable that is only read. It does not where soft-dirty tracking is on, which is
 * a flag of the mapping, VM_SOFTDIRTY cleared: the agent's to see to (/proc/PID/clear_refs). Without, more is told than was written,
 * never less.
 *
 * The walk is a thread's in the VMM's address space: what finds pages without a lock looks at the current one.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/backing-dev.h>
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#define SCAN_TIME	(HZ / 2)	/* less than RDT_SB_GRACE */
#define SCAN_PAGES	64		/* held at once */

void rdt_sb_scan_free(struct rdt_sb_scan *scan)
{
	if (scan)
		kvfree(scan->dirty);
	kfree(scan);
}

/*
 * Page @i of the scan is writable. A large folio is made read-only as one, and told as one. If it is not all in what is
 * looked at it is left as it is, and told again the next time.
 */
static int clean(struct rdt_sb_scan *scan, u32 i, struct page *page)
{
	struct folio *folio = page_folio(page);
	const long nr = folio_nr_pages(folio), first = (long)i - folio_page_idx(folio, page);
	const bool whole = first >= 0 && first + nr <= scan->frames;
	struct address_space *mapping;

	if (folio_lock_killable(folio))
		return -EINTR;
	/* Writeback makes pages read-only, too, and tells nobody. */
	mapping = folio_test_anon(folio) ? NULL : folio->mapping;
	if (mapping && mapping_can_writeback(mapping)) {
		folio_unlock(folio);
		return -EOPNOTSUPP;
	}
	if (whole) {
		bitmap_set(scan->dirty, first, nr);
		scan->told = max_t(u32, scan->told, first + nr);
		/* The page table had it dirty; now the page must, or reclaim takes it for what its file, or swap, has. */
		if (folio_mkclean(folio))
			folio_mark_dirty(folio);
	} else {
		__set_bit(i, scan->dirty);
	}
	folio_unlock(folio);
	return 0;
}

static int walk(struct rdt_sb_ask *a)
{
	struct rdt_sb_scan *scan = a->scan;
	const unsigned long deadline = jiffies + SCAN_TIME;
	struct page *page[SCAN_PAGES];
	int err = 0, got, k;
	u32 i = 0;

	while (i < scan->frames && !err) {
		if (i && time_after(jiffies, deadline))
			break;
		got = get_user_pages_fast_only((scan->first + i) << PAGE_SHIFT, min_t(u32, SCAN_PAGES, scan->frames - i),
					       FOLL_WRITE, page);
		for (k = 0; k < got; k++) {
			/* Nobody waits for what is told by one that took too long. */
			if (!err && signal_pending(current))
				err = -EINTR;
			/* Of a large folio it is told already. */
			if (!err && !test_bit(i + k, scan->dirty))
				err = clean(scan, i + k, page[k]);
			put_page(page[k]);
		}
		/* The one behind those is not writable. */
		i += max(got, 0) + (got < SCAN_PAGES);
		if (signal_pending(current))
			err = -EINTR;
		cond_resched();
	}
	/* A large folio is read-only up to its end, so all of it is told. What is known of others behind the end is told anew. */
	scan->frames = min(max(i, scan->told), scan->frames);
	return err;
}

static int fill(struct sk_buff *skb, u32 vm, u64 faults, const struct rdt_sb_scan *scan)
{
	struct nlattr *dirty;

	if (nla_put_u32(skb, RDT_SB_A_VM, vm) || nla_put_u64_64bit(skb, RDT_SB_A_FIRST, scan->first, RDT_SB_A_PAD) ||
	    nla_put_u32(skb, RDT_SB_A_FRAMES, scan->frames) ||
	    nla_put_u64_64bit(skb, RDT_SB_A_FAULTS, faults, RDT_SB_A_PAD))
		return -EMSGSIZE;
	dirty = nla_reserve(skb, RDT_SB_A_DIRTY, DIV_ROUND_UP(scan->frames, 8));
	if (!dirty)
		return -EMSGSIZE;
	/* x86 has the bits of a long in the order that the answer wants. */
	memcpy(nla_data(dirty), scan->dirty, DIV_ROUND_UP(scan->frames, 8));
	return 0;
}

/* The scan that a request asks for, or an error. */
static struct rdt_sb_scan *scan_of(const struct genl_info *info)
{
	const struct nlattr *first = info->attrs[RDT_SB_A_FIRST], *frames = info->attrs[RDT_SB_A_FRAMES];
	struct rdt_sb_scan *scan;

	if (!first || !frames)
		return ERR_PTR(rdt_sb_refuse(info, -EINVAL, "scan: of no frames"));
	scan = kzalloc(sizeof(*scan), GFP_KERNEL);
	if (!scan)
		return ERR_PTR(-ENOMEM);
	scan->first = nla_get_u64(first);
	scan->frames = nla_get_u32(frames);
	if (!scan->frames || scan->frames > RDT_SB_MAX_SCAN || scan->first > (TASK_SIZE_MAX >> PAGE_SHIFT) - scan->frames) {
		kfree(scan);
		return ERR_PTR(rdt_sb_refuse(info, -EINVAL, "scan: too many frames, or beyond the end"));
	}
	scan->dirty = kvcalloc(BITS_TO_LONGS(scan->frames), sizeof(long), GFP_KERNEL);
	if (!scan->dirty) {
		kfree(scan);
		return ERR_PTR(-ENOMEM);
	}
	return scan;
}

void rdt_sb_scan_late_end(struct rdt_sb_vm *vm)
{
	lockdep_assert_held(&vm->lock);
	if (vm->late)
		rdt_sb_ask_put(vm->late);
	vm->late = NULL;
}

int rdt_sb_do_scan(struct sk_buff *req, struct genl_info *info)
{
	struct rdt_sb_scan *scan;
	struct sk_buff *skb = NULL;
	struct rdt_sb_ask *a = NULL;
	struct rdt_sb_vm *vm;
	bool ended = true;
	u64 faults;
	void *hdr;
	int err = rdt_sb_may_read(req, info);

	if (err)
		return err;
	scan = scan_of(info);
	if (IS_ERR(scan))
		return PTR_ERR(scan);
	vm = rdt_sb_vm_of(info);
	if (IS_ERR(vm)) {
		rdt_sb_scan_free(scan);
		return PTR_ERR(vm);
	}
	err = -ENOMEM;
	/* One that took too long may still make a page read-only, which nobody would be told. */
	if (vm->late && !completion_done(&vm->late->done))
		err = rdt_sb_refuse(info, -EBUSY, "scan: the one before has not ended");
	else
		a = rdt_sb_ask_new(vm, NULL, walk);
	if (!a) {
		rdt_sb_scan_free(scan);
		goto out;
	}
	rdt_sb_scan_late_end(vm);
	a->bare = true;
	a->scan = scan;
	/* Before there is anything to lose */
	skb = nlmsg_new(256 + DIV_ROUND_UP(scan->frames, 8), GFP_KERNEL);
	if (!skb)
		goto out;
	faults = rdt_sb_faults(vm);
	err = rdt_sb_ask(a, &ended);
	if (err == -EBUSY)
		rdt_sb_refuse(info, err, "scan: it took too long");
	if (err)
		goto out;
	err = -EMSGSIZE;
	hdr = genlmsg_put_reply(skb, info, &rdt_sb_family, 0, RDT_SB_CMD_SCAN);
	if (!hdr || fill(skb, vm->id, faults, scan))
		goto out;
	genlmsg_end(skb, hdr);
	err = genlmsg_reply(skb, info);
	skb = NULL;
out:
	nlmsg_free(skb);
	if (a && !ended)
		vm->late = a;
	else if (a)
		rdt_sb_ask_put(a);
	rdt_sb_vm_put(vm);
	return err;
}
