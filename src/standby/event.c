// SPDX-License-Identifier: GPL-2.0
/* What the module tells to whom it may concern: two multicast groups, one row of numbers. */
#include "standby.h"

/* Protects event_seq; held over the sending, so that numbers arrive in their order. Taken last, no other lock under it. */
static DEFINE_MUTEX(event_lock);
static u64 event_seq;

/* An event for which there is no memory leaves a gap in the numbers: that is what they are for. */
static int tell(unsigned int group, int (*fill)(struct sk_buff *skb, const void *arg), const void *arg)
{
	struct sk_buff *skb = nlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *hdr;
	int err = 0;

	mutex_lock(&event_lock);
	event_seq++;
	hdr = skb ? genlmsg_put(skb, 0, 0, &rdt_sb_family, 0, RDT_SB_CMD_EVENT) : NULL;
	if (!hdr || nla_put_u64_64bit(skb, RDT_SB_A_EVENT_SEQ, event_seq, RDT_SB_A_PAD) || fill(skb, arg)) {
		nlmsg_free(skb);
		err = -ENOMEM;
	} else {
		genlmsg_end(skb, hdr);
		/* -ESRCH: nobody listens */
		genlmsg_multicast(&rdt_sb_family, skb, 0, group, GFP_KERNEL);
	}
	mutex_unlock(&event_lock);
	return err;
}

static int fill_event(struct sk_buff *skb, const void *arg)
{
	const struct rdt_sb_event *e = arg;

	return nla_put_u8(skb, RDT_SB_A_EVENT, e->event) || (e->vm && nla_put_u32(skb, RDT_SB_A_VM, e->vm)) ||
	       (e->stream && nla_put_u32(skb, RDT_SB_A_STREAM, *e->stream)) ||
	       (e->reason && nla_put_u8(skb, RDT_SB_A_REASON, e->reason));
}

int rdt_sb_event(const struct rdt_sb_event *event)
{
	return tell(RDT_SB_GROUP_NR_EVENTS, fill_event, event);
}

static int fill_power(struct sk_buff *skb, const void *arg)
{
	struct nlattr *const *a = arg;

	return nla_put_u8(skb, RDT_SB_A_POWER, nla_get_u8(a[RDT_SB_A_POWER])) ||
	       (a[RDT_SB_A_RUNTIME] && nla_put_u32(skb, RDT_SB_A_RUNTIME, nla_get_u32(a[RDT_SB_A_RUNTIME]))) ||
	       (a[RDT_SB_A_BUDGET] &&
		nla_put_u64_64bit(skb, RDT_SB_A_BUDGET, nla_get_u64(a[RDT_SB_A_BUDGET]), RDT_SB_A_PAD));
}

int rdt_sb_power(struct nlattr *const *attrs)
{
	return tell(RDT_SB_GROUP_NR_POWER, fill_power, attrs);
}
