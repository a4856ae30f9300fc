// SPDX-License-Identifier: GPL-2.0
/*
 * The family "redoubt_standby". Requests are handled side by side (parallel_ops), each under its VM's lock. Generic netlink
 * holds a lock of its own over each, for reading: one that waits holds up no other request, but the registration of a
 * family, and all that come behind that. So no request waits for longer than a few RDT_SB_GRACE. A refusal says why in the
 * extended answer and in the log.
 * Requests about streams are in request.c, SCAN in scan.c, LIMIT in limit.c, what is told unasked in event.c.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "standby.h"

#include <linux/capability.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <net/net_namespace.h>

int rdt_sb_refuse(const struct genl_info *info, int err, const char *why)
{
	if (info->extack)
		info->extack->_msg = why;
	pr_notice_ratelimited("request %u of port %u: %s\n", info->genlhdr->cmd, info->snd_portid, why);
	return err;
}

/* The VM that a request names, locked, or an error. */
struct rdt_sb_vm *rdt_sb_vm_of(const struct genl_info *info)
{
	const struct nlattr *a = info->attrs[RDT_SB_A_VM];
	struct rdt_sb_vm *vm;

	if (!a)
		return ERR_PTR(rdt_sb_refuse(info, -EINVAL, "no VM given"));
	vm = rdt_sb_vm_get(nla_get_u32(a));
	return vm ?: ERR_PTR(rdt_sb_refuse(info, -ENOENT, "no such VM"));
}

/* Guest state goes to whom could have it by ptrace, too; and who slows a guest could do that. */
int rdt_sb_may_read(struct sk_buff *skb, const struct genl_info *info)
{
	return netlink_capable(skb, CAP_SYS_PTRACE) ? 0 : rdt_sb_refuse(info, -EPERM, "not without CAP_SYS_PTRACE");
}

/* ---- GET -------------------------------------------------------------------- */

static int put_stream(struct sk_buff *skb, struct rdt_sb_stream *s)
{
	struct rdt_sb_stream_info info = {
		.stream = s->number,
		.seq = READ_ONCE(s->seq),
		.sent = READ_ONCE(s->sent),
		.portid = s->portid,
		.dropped = READ_ONCE(s->dropped),
	};

	spin_lock(&s->lock);
	info.state = s->state;
	info.left = s->left;
	spin_unlock(&s->lock);
	return nla_put(skb, RDT_SB_A_STREAM_INFO, sizeof(info), &info);
}

static int put_vm(struct sk_buff *skb, struct rdt_sb_vm *vm, u64 frames)
{
	struct rdt_sb_stream *s;

	lockdep_assert_held(&vm->lock);
	if (nla_put_u32(skb, RDT_SB_A_VM, vm->id) || nla_put(skb, RDT_SB_A_UUID, sizeof(vm->uuid), vm->uuid) ||
	    nla_put_u32(skb, RDT_SB_A_VCPUS, vm->nr_vcpus) ||
	    nla_put_u32(skb, RDT_SB_A_ONLINE, atomic_read(&vm->kvm->online_vcpus)) ||
	    nla_put_u8(skb, RDT_SB_A_ORPHAN, rdt_sb_vm_orphan(vm)) ||
	    nla_put_u64_64bit(skb, RDT_SB_A_BYTES, frames << PAGE_SHIFT, RDT_SB_A_PAD))
		return -EMSGSIZE;
	if (vm->limiter && rdt_sb_put_limit(skb, vm))
		return -EMSGSIZE;
	list_for_each_entry(s, &vm->streams, entry) {
		if (put_stream(skb, s))
			return -EMSGSIZE;
	}
	return 0;
}

static int do_get(struct sk_buff *req, struct genl_info *info)
{
	struct rdt_sb_vm *vm = rdt_sb_vm_of(info);
	struct rdt_sb_slot *slots;
	struct sk_buff *skb = NULL;
	int err = -ENOMEM;
	u64 frames;
	void *hdr;
	u32 i, nr;

	if (IS_ERR(vm))
		return PTR_ERR(vm);
	slots = kvcalloc(RDT_SB_MAX_SLOTS, sizeof(*slots), GFP_KERNEL);
	if (!slots)
		goto out;
	nr = min_t(u32, rdt_sb_vm_slots(vm, slots, RDT_SB_MAX_SLOTS, &frames), RDT_SB_MAX_SLOTS);
	skb = nlmsg_new(1024 + nr * nla_total_size(sizeof(*slots)), GFP_KERNEL);
	if (!skb)
		goto out;
	err = -EMSGSIZE;
	hdr = genlmsg_put_reply(skb, info, &rdt_sb_family, 0, RDT_SB_CMD_GET);
	if (!hdr || put_vm(skb, vm, frames))
		goto out;
	for (i = 0; i < nr; i++) {
		/* Where a process has its memory is told to who may look there. */
		if (!netlink_capable(req, CAP_SYS_PTRACE))
			slots[i].hva = 0;
		if (nla_put(skb, RDT_SB_A_SLOT, sizeof(*slots), &slots[i]))
			goto out;
	}
	genlmsg_end(skb, hdr);
	err = genlmsg_reply(skb, info);
	skb = NULL;
out:
	nlmsg_free(skb);
	kvfree(slots);
	rdt_sb_vm_put(vm);
	return err;
}

/* cb->args[0]: the first number that was not told yet. */
static int dump_get(struct sk_buff *skb, struct netlink_callback *cb)
{
	u32 id = cb->args[0];
	struct rdt_sb_vm *vm;

	if (nlmsg_attrlen(cb->nlh, GENL_HDRLEN))
		return -EINVAL;
	while ((vm = rdt_sb_vm_next(id))) {
		void *hdr = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq, &rdt_sb_family,
					NLM_F_MULTI, RDT_SB_CMD_GET);
		u64 frames;
		int err;

		rdt_sb_vm_slots(vm, NULL, 0, &frames);
		err = hdr ? put_vm(skb, vm, frames) : -EMSGSIZE;
		id = vm->id;
		rdt_sb_vm_put(vm);
		if (err) {
			if (hdr)
				genlmsg_cancel(skb, hdr);
			break;
		}
		genlmsg_end(skb, hdr);
		id++;
		if (!id)
			break;
	}
	cb->args[0] = id;
	return skb->len;
}

/* ---- VCPU ----------------------------------------------------------------------- */

/* Some 20 KB; at most (AMX, all CPUID leaves, a nested guest) 40. */
#define STATE_BYTES	(60 * 1024)

static int do_vcpu(struct sk_buff *req, struct genl_info *info)
{
	const struct nlattr *index = info->attrs[RDT_SB_A_INDEX], *msrs = info->attrs[RDT_SB_A_MSRS];
	struct file *vcpu = NULL;
	struct sk_buff *skb = NULL;
	struct rdt_sb_vm *vm;
	void *hdr;
	int err = rdt_sb_may_read(req, info);

	if (err)
		return err;
	if (msrs && (!index || nla_len(msrs) % sizeof(u32)))
		return rdt_sb_refuse(info, -EINVAL, "vcpu: MSRs of no vCPU, or not whole ones");
	vm = rdt_sb_vm_of(info);
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	if (rdt_sb_vm_has_grown(vm)) {
		err = rdt_sb_refuse(info, -ESTALE, "vcpu: the VM has got more vCPUs since it was registered");
		goto out;
	}
	if (index) {
		if (nla_get_u32(index) >= vm->nr_vcpus) {
			err = rdt_sb_refuse(info, -ENOENT, "vcpu: no such vCPU");
			goto out;
		}
		vcpu = vm->vcpus[nla_get_u32(index)];
	}
	err = -ENOMEM;
	skb = nlmsg_new(STATE_BYTES, GFP_KERNEL);
	if (!skb)
		goto out;
	err = -EMSGSIZE;
	hdr = genlmsg_put_reply(skb, info, &rdt_sb_family, 0, RDT_SB_CMD_VCPU);
	if (!hdr || nla_put_u32(skb, RDT_SB_A_VM, vm->id) ||
	    (index && nla_put_u32(skb, RDT_SB_A_INDEX, nla_get_u32(index))))
		goto out;
	err = rdt_sb_state(vm, vcpu, msrs ? nla_data(msrs) : NULL, msrs ? nla_len(msrs) / sizeof(u32) : 0, &skb);
	if (err == -EBUSY)
		rdt_sb_refuse(info, err, "vcpu: it runs, or its VMM is at it");
	if (err)
		goto out;
	genlmsg_end(skb, hdr);
	err = genlmsg_reply(skb, info);
	skb = NULL;
out:
	nlmsg_free(skb);
	rdt_sb_vm_put(vm);
	return err;
}

/* ---- TRIGGER, POWER ---------------------------------------------------------------- */

static int do_trigger(struct sk_buff *req, struct genl_info *info)
{
	struct rdt_sb_vm *vm;
	u32 id = 0;
	u8 reason;

	if (!info->attrs[RDT_SB_A_REASON])
		return rdt_sb_refuse(info, -EINVAL, "trigger: no reason given");
	reason = nla_get_u8(info->attrs[RDT_SB_A_REASON]);
	if (info->attrs[RDT_SB_A_VM]) {
		vm = rdt_sb_vm_of(info);
		if (IS_ERR(vm))
			return PTR_ERR(vm);
		id = vm->id;
		rdt_sb_vm_put(vm);
	}
	return rdt_sb_event(&(struct rdt_sb_event){ .event = RDT_SB_EVENT_TRIGGER, .vm = id, .reason = reason });
}

static int do_power(struct sk_buff *req, struct genl_info *info)
{
	if (!info->attrs[RDT_SB_A_POWER])
		return rdt_sb_refuse(info, -EINVAL, "power: no state given");
	return rdt_sb_power(info->attrs);
}

/* ---- the family ------------------------------------------------------------------------- */

/* A request's attributes are those that its policy names: all others are refused. */
static const struct nla_policy get_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_VM] = { .type = NLA_U32 },
};
static const struct nla_policy stream_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_VM] = { .type = NLA_U32 },
	[RDT_SB_A_STREAM] = { .type = NLA_U32 },
	[RDT_SB_A_DATA_FD] = NLA_POLICY_MIN(NLA_S32, 0),
	[RDT_SB_A_SPACE] = NLA_POLICY_MAX(NLA_U8, RDT_SB_SPACE_HVA),
	[RDT_SB_A_RANGES] = { .type = NLA_BINARY, .len = RDT_SB_MAX_RANGES * sizeof(struct rdt_sb_range) },
	[RDT_SB_A_FLAGS] = NLA_POLICY_MASK(NLA_U32, RDT_SB_F_ALL),
};
static const struct nla_policy again_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_VM] = { .type = NLA_U32 },
	[RDT_SB_A_STREAM] = { .type = NLA_U32 },
	[RDT_SB_A_RANGES] = { .type = NLA_BINARY, .len = RDT_SB_MAX_RANGES * sizeof(struct rdt_sb_range) },
};
static const struct nla_policy cancel_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_VM] = { .type = NLA_U32 },
	[RDT_SB_A_STREAM] = { .type = NLA_U32 },
};
static const struct nla_policy vcpu_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_VM] = { .type = NLA_U32 },
	[RDT_SB_A_INDEX] = { .type = NLA_U32 },
	[RDT_SB_A_MSRS] = { .type = NLA_BINARY, .len = RDT_SB_MAX_MSRS * sizeof(u32) },
};
static const struct nla_policy scan_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_VM] = { .type = NLA_U32 },
	[RDT_SB_A_FIRST] = { .type = NLA_U64 },
	[RDT_SB_A_FRAMES] = { .type = NLA_U32 },
};
static const struct nla_policy limit_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_VM] = { .type = NLA_U32 },
	[RDT_SB_A_LIMIT] = NLA_POLICY_EXACT_LEN(sizeof(struct rdt_sb_limit)),
};
static const struct nla_policy trigger_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_VM] = { .type = NLA_U32 },
	[RDT_SB_A_REASON] = NLA_POLICY_RANGE(NLA_U8, RDT_SB_REASON_OPERATOR, RDT_SB_REASON_WATCHDOG),
};
static const struct nla_policy power_policy[RDT_SB_A_MAX + 1] = {
	[RDT_SB_A_POWER] = NLA_POLICY_RANGE(NLA_U8, RDT_SB_POWER_ONLINE, RDT_SB_POWER_LOW),
	[RDT_SB_A_RUNTIME] = { .type = NLA_U32 },
	[RDT_SB_A_BUDGET] = { .type = NLA_U64 },
};

#define OP(c, f, p, ...) {	\
	.cmd = RDT_SB_CMD_##c, .flags = GENL_ADMIN_PERM, .doit = f, \
	.policy = p##_policy, .maxattr = RDT_SB_A_MAX, ##__VA_ARGS__ }

static const struct genl_ops ops[] = {
	OP(GET, do_get, get, .dumpit = dump_get),
	OP(STREAM, rdt_sb_do_stream, stream),
	OP(AGAIN, rdt_sb_do_again, again),
	OP(CANCEL, rdt_sb_do_cancel, cancel),
	OP(VCPU, do_vcpu, vcpu),
	OP(SCAN, rdt_sb_do_scan, scan),
	OP(LIMIT, rdt_sb_do_limit, limit),
	OP(TRIGGER, do_trigger, trigger),
	OP(POWER, do_power, power),
};

static const struct genl_multicast_group groups[] = {
	[RDT_SB_GROUP_NR_EVENTS] = { .name = RDT_SB_GROUP_EVENTS, .flags = GENL_MCAST_CAP_NET_ADMIN },
	[RDT_SB_GROUP_NR_POWER] = { .name = RDT_SB_GROUP_POWER, .flags = GENL_MCAST_CAP_NET_ADMIN },
};

struct genl_family rdt_sb_family __ro_after_init = {
	.name		= RDT_SB_GENL_NAME,
	.version	= RDT_SB_GENL_VERSION,
	.maxattr	= RDT_SB_A_MAX,
	.netnsok	= false,
	.parallel_ops	= true,
	.ops		= ops,
	.n_ops		= ARRAY_SIZE(ops),
	.resv_start_op	= RDT_SB_CMD_UNSPEC + 1,
	.mcgrps		= groups,
	.n_mcgrps	= ARRAY_SIZE(groups),
	.module		= THIS_MODULE,
};
