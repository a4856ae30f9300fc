// SPDX-License-Identifier: GPL-2.0
/* The family's requests that are about streams. */
#include "standby.h"

#include <linux/slab.h>

static struct rdt_sb_stream *stream_of(const struct genl_info *info, struct rdt_sb_vm *vm)
{
	const struct nlattr *a = info->attrs[RDT_SB_A_STREAM];
	struct rdt_sb_stream *s;

	if (!a)
		return ERR_PTR(rdt_sb_refuse(info, -EINVAL, "no stream given"));
	s = rdt_sb_stream_find(vm, nla_get_u32(a));
	return s ?: ERR_PTR(rdt_sb_refuse(info, -ENOENT, "no such stream"));
}

static int check_ranges(const struct rdt_sb_batch *batch, u8 space)
{
	const u64 limit = space == RDT_SB_SPACE_HVA ? 1ull << 35 : 1ull << 40;
	u32 i;

	for (i = 0; i < batch->nr; i++) {
		const struct rdt_sb_range *r = &batch->range[i];

		if (!r->count || r->count > limit || r->first > limit - r->count)
			return -EINVAL;
	}
	return 0;
}

/* RANGES; NULL if they are empty. */
static struct rdt_sb_batch *batch_of(const struct genl_info *info, u8 space)
{
	const struct nlattr *a = info->attrs[RDT_SB_A_RANGES];
	struct rdt_sb_batch *batch;

	if (nla_len(a) % sizeof(struct rdt_sb_range))
		return ERR_PTR(rdt_sb_refuse(info, -EINVAL, "ranges: not whole ones"));
	if (!nla_len(a))
		return NULL;
	batch = rdt_sb_batch_alloc(nla_len(a) / sizeof(struct rdt_sb_range));
	if (!batch)
		return ERR_PTR(-ENOMEM);
	memcpy(batch->range, nla_data(a), nla_len(a));
	if (check_ranges(batch, space)) {
		kvfree(batch);
		return ERR_PTR(rdt_sb_refuse(info, -EINVAL, "ranges: an empty one, or one beyond the end"));
	}
	return batch;
}

/* All slots, as they are now. */
static struct rdt_sb_batch *batch_of_slots(struct rdt_sb_vm *vm)
{
	struct rdt_sb_slot *slots;
	struct rdt_sb_batch *batch = ERR_PTR(-ENOMEM);
	u64 frames;
	u32 i, nr;

	/* Slots may come while we count: they are no part of what was asked for. */
	nr = rdt_sb_vm_slots(vm, NULL, 0, &frames);
	slots = kvcalloc(nr ?: 1, sizeof(*slots), GFP_KERNEL);
	if (!slots)
		goto out;
	nr = min(nr, rdt_sb_vm_slots(vm, slots, nr, &frames));
	batch = nr ? rdt_sb_batch_alloc(nr) : NULL;
	if (nr && !batch) {
		batch = ERR_PTR(-ENOMEM);
		goto out;
	}
	for (i = 0; i < nr; i++)
		batch->range[i] = (struct rdt_sb_range){ slots[i].gfn, slots[i].frames };
out:
	kvfree(slots);
	return batch;
}

int rdt_sb_do_stream(struct sk_buff *req, struct genl_info *info)
{
	struct rdt_sb_stream_args args = {};
	struct nlattr **a = info->attrs;
	struct rdt_sb_vm *vm;
	int err = rdt_sb_may_read(req, info);

	if (err)
		return err;
	if (!a[RDT_SB_A_STREAM] || !a[RDT_SB_A_DATA_FD])
		return rdt_sb_refuse(info, -EINVAL, "stream: its number, or the data socket, is not given");
	args.number = nla_get_u32(a[RDT_SB_A_STREAM]);
	args.data_fd = nla_get_s32(a[RDT_SB_A_DATA_FD]);
	args.flags = a[RDT_SB_A_FLAGS] ? nla_get_u32(a[RDT_SB_A_FLAGS]) : 0;
	args.space = a[RDT_SB_A_SPACE] ? nla_get_u8(a[RDT_SB_A_SPACE]) : RDT_SB_SPACE_GFN;
	if (args.space == RDT_SB_SPACE_HVA && !a[RDT_SB_A_RANGES])
		return rdt_sb_refuse(info, -EINVAL, "stream: addresses of the VMM without ranges");
	vm = rdt_sb_vm_of(info);
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	if (rdt_sb_stream_find(vm, args.number)) {
		err = rdt_sb_refuse(info, -EEXIST, "stream: there is one of this number");
		goto out;
	}
	if (vm->nr_streams >= RDT_SB_MAX_STREAMS) {
		err = rdt_sb_refuse(info, -ENOSPC, "stream: too many");
		goto out;
	}
	/* A registered VM can become one: KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM. Who cannot be asked was not, when it was registered. */
	if (rdt_sb_encrypted(vm) == -EOPNOTSUPP) {
		err = rdt_sb_refuse(info, -EOPNOTSUPP, "stream: the VM is encrypted");
		goto out;
	}
	args.first = a[RDT_SB_A_RANGES] ? batch_of(info, args.space) : batch_of_slots(vm);
	if (IS_ERR(args.first)) {
		err = PTR_ERR(args.first);
		goto out;
	}
	err = rdt_sb_stream_open(vm, &args);
	if (err == -EBADF)
		rdt_sb_refuse(info, err, "stream: the data socket is not a bound one of ours");
	else if (err == -EBUSY)
		rdt_sb_refuse(info, err, "stream: another one has this data socket");
out:
	rdt_sb_vm_put(vm);
	return err;
}

int rdt_sb_do_again(struct sk_buff *req, struct genl_info *info)
{
	struct rdt_sb_batch *batch = NULL;
	struct rdt_sb_stream *s;
	struct rdt_sb_vm *vm;
	int err = rdt_sb_may_read(req, info);

	if (err)
		return err;
	vm = rdt_sb_vm_of(info);
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	s = stream_of(info, vm);
	if (IS_ERR(s)) {
		err = PTR_ERR(s);
		goto out;
	}
	if (info->attrs[RDT_SB_A_RANGES])
		batch = batch_of(info, s->space);
	if (IS_ERR(batch)) {
		err = PTR_ERR(batch);
		goto out;
	}
	err = rdt_sb_stream_again(s, batch);
	if (err == -EPIPE)
		rdt_sb_refuse(info, err, "again: the stream is lost");
	else if (err == -ENOSPC)
		rdt_sb_refuse(info, err, "again: too many ranges wait");
out:
	rdt_sb_vm_put(vm);
	return err;
}

int rdt_sb_do_cancel(struct sk_buff *req, struct genl_info *info)
{
	struct rdt_sb_vm *vm = rdt_sb_vm_of(info);
	struct rdt_sb_stream *s;
	int err = 0;

	if (IS_ERR(vm))
		return PTR_ERR(vm);
	s = stream_of(info, vm);
	if (IS_ERR(s))
		err = PTR_ERR(s);
	else
		rdt_sb_stream_close(s);
	rdt_sb_vm_put(vm);
	return err;
}

