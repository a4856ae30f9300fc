// SPDX-License-Identifier: GPL-2.0
/*
 * A stream's messages. PAGES: a run of frames, of which those that are not zero follow in one attribute. A page is copied
 * straight to its place in the message; a zero page is found there and overwritten by the next.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/netlink.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <net/net_namespace.h>
#include <net/sock.h>

/* For tests: what a receiver would see of a loss. */
static unsigned int drop;
module_param(drop, uint, 0644);
MODULE_PARM_DESC(drop, "keep back every Nth message of a stream (tests only; 0: none)");

#define BITMAP_BYTES	(RDT_SB_MAX_FRAMES / 8)
/* Everything but DATA's pages. */
#define ROOM		(GENL_HDRLEN + 4 * nla_total_size(4) + 3 * nla_total_size_64bit(8) + nla_total_size(1) + \
			 2 * nla_total_size(BITMAP_BYTES) + NLA_HDRLEN)

static_assert(NLA_HDRLEN + RDT_SB_MAX_PAGES * PAGE_SIZE <= U16_MAX);

enum frame { FRAME_DATA, FRAME_ZERO, FRAME_LOST };

/* Poisoned memory is lost, not fatal. */
static enum frame copy_frame(const struct rdt_sb_stream *s, void *to, struct page *page)
{
	const bool keep = s->flags & RDT_SB_F_KEEP_ZERO;
	unsigned long left;
	void *from;

	if (!keep && is_zero_pfn(page_to_pfn(page)))
		return FRAME_ZERO;
	from = kmap_local_page(page);
	left = copy_mc_to_kernel(to, from, PAGE_SIZE);
	kunmap_local(from);
	if (left)
		return FRAME_LOST;
	return keep || memchr_inv(to, 0, PAGE_SIZE) ? FRAME_DATA : FRAME_ZERO;
}

/* What a message tells of its frames, as it is gathered. */
struct frames {
	u32 nr;
	u32 pages;			/* of data */
	bool any_zero, any_lost;
	u8 zero[BITMAP_BYTES];
	u8 lost[BITMAP_BYTES];
};

static void put_frame(struct sk_buff *skb, struct frames *f, enum frame what)
{
	switch (what) {
	case FRAME_DATA:
		skb_put(skb, PAGE_SIZE);
		f->pages++;
		break;
	case FRAME_ZERO:
		f->zero[f->nr / 8] |= 1 << f->nr % 8;
		f->any_zero = true;
		break;
	case FRAME_LOST:
		f->lost[f->nr / 8] |= 1 << f->nr % 8;
		f->any_lost = true;
		break;
	}
	f->nr++;
}

/* Some frames more, at least one. -EINTR: the stream is over. */
static int put_some(struct rdt_sb_stream *s, struct sk_buff *skb, struct frames *f, u64 first, u32 most, u32 room)
{
	const bool keep = s->flags & RDT_SB_F_KEEP_ZERO;
	struct page *pages[RDT_SB_MAX_PAGES];
	const struct rdt_sb_most at_most = { min(most, room), keep ? min(most, room) : most };
	u32 zero = 0, i;
	const long got = rdt_sb_read(s, first, &at_most, pages, &zero);

	if (got == -EINTR)
		return -EINTR;
	if (got < 0)
		put_frame(skb, f, FRAME_LOST);
	for (i = 0; i < zero; i++) {
		if (keep)
			memset(skb_tail_pointer(skb), 0, PAGE_SIZE);
		put_frame(skb, f, keep ? FRAME_DATA : FRAME_ZERO);
	}
	for (i = 0; (long)i < got; i++) {
		put_frame(skb, f, copy_frame(s, skb_tail_pointer(skb), pages[i]));
		put_page(pages[i]);
	}
	return 0;
}

/* A message with room for as many pages as memory allows; how many. */
static struct sk_buff *alloc_message(u64 frames, u32 *pages)
{
	static const u8 rooms[] = { RDT_SB_MAX_PAGES, 7, 3, 1 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rooms); i++) {
		const bool last = rooms[i] == 1;
		struct sk_buff *skb;

		if (!last && frames <= rooms[i + 1])
			continue;	/* it needs no more */
		skb = nlmsg_new(ROOM + rooms[i] * PAGE_SIZE, last ? GFP_KERNEL : GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
		if (skb) {
			*pages = rooms[i];
			return skb;
		}
	}
	return NULL;
}

/* What both messages begin with. It has its sequence number now, whether it will be sent or not. */
static void *begin(struct rdt_sb_stream *s, struct sk_buff *skb, u8 cmd)
{
	void *hdr = genlmsg_put(skb, 0, 0, &rdt_sb_family, 0, cmd);

	WRITE_ONCE(s->seq, s->seq + 1);
	if (!hdr || nla_put_u32(skb, RDT_SB_A_VM, s->vm_id) || nla_put_u32(skb, RDT_SB_A_STREAM, s->number) ||
	    nla_put_u64_64bit(skb, RDT_SB_A_SEQ, s->seq, RDT_SB_A_PAD))
		return NULL;
	return hdr;
}

/* Sleeps while the receiver's buffer is full. Takes the skb. */
static int send(struct rdt_sb_stream *s, struct sk_buff *skb)
{
	const unsigned int nth = READ_ONCE(drop);
	u64 seq = s->seq;
	int ret;

	/* Over: nothing more is sent, even if there is room. */
	if (signal_pending(current)) {
		kfree_skb(skb);
		return -EINTR;
	}
	if (nth && !do_div(seq, nth)) {
		WRITE_ONCE(s->dropped, s->dropped + 1);
		kfree_skb(skb);
		return 0;
	}
	ret = netlink_unicast(init_net.genl_sock, skb, s->portid, 0);
	return ret < 0 ? ret : 0;
}

int rdt_sb_send_pages(struct rdt_sb_stream *s, struct rdt_sb_range *range)
{
	const u32 most = min_t(u64, range->count, RDT_SB_MAX_FRAMES);
	struct frames f = {};
	struct sk_buff *skb;
	struct nlattr *data;
	u32 bytes, room;
	void *hdr;

	skb = alloc_message(range->count, &room);
	if (!skb)
		return -ENOMEM;
	hdr = begin(s, skb, RDT_SB_CMD_PAGES);
	/* DATA in front of what is known only behind it; its length is set then. */
	if (!hdr || nla_put_u8(skb, RDT_SB_A_SPACE, s->space) ||
	    nla_put_u64_64bit(skb, RDT_SB_A_FIRST, range->first, RDT_SB_A_PAD))
		goto no_room;
	data = nla_reserve(skb, RDT_SB_A_DATA, 0);
	if (!data || skb_tailroom(skb) < room * PAGE_SIZE)
		goto no_room;
	while (f.nr < most && f.pages < room) {
		if (put_some(s, skb, &f, range->first + f.nr, most - f.nr, room - f.pages)) {
			kfree_skb(skb);
			return -EINTR;
		}
		cond_resched();
	}
	data->nla_len = NLA_HDRLEN + f.pages * PAGE_SIZE;
	bytes = DIV_ROUND_UP(f.nr, 8);
	if (nla_put_u32(skb, RDT_SB_A_FRAMES, f.nr) || (f.any_zero && nla_put(skb, RDT_SB_A_ZERO, bytes, f.zero)) ||
	    (f.any_lost && nla_put(skb, RDT_SB_A_LOST, bytes, f.lost)))
		goto no_room;
	genlmsg_end(skb, hdr);
	range->first += f.nr;
	range->count -= f.nr;
	WRITE_ONCE(s->sent, s->sent + f.nr);
	return send(s, skb);
no_room:
	WARN_ON_ONCE(1);	/* ROOM is wrong */
	kfree_skb(skb);
	return -EMSGSIZE;
}

int rdt_sb_send_end(struct rdt_sb_stream *s)
{
	struct sk_buff *skb = nlmsg_new(ROOM, GFP_KERNEL);
	void *hdr;

	if (!skb)
		return -ENOMEM;
	hdr = begin(s, skb, RDT_SB_CMD_STREAM_END);
	if (!hdr || nla_put_u64_64bit(skb, RDT_SB_A_COUNT, s->sent, RDT_SB_A_PAD)) {
		WARN_ON_ONCE(1);
		kfree_skb(skb);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return send(s, skb);
}
