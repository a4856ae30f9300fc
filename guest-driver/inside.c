// SPDX-License-Identifier: GPL-2.0
/*
 * What runs in integrity mode. See inside.h: nothing of the kernel may be called or
 * touched from here, and nobody outside is trusted: arguments come from
 * whoever jumped to the gate.
 *
 * The policy table is the driver's own word on what is protected and what may
 * ever be lifted. The host holds the protection itself; it lifts a range only when
 * asked from here, and here it is asked only for ranges that were declared
 * removable when they were added.
 */
#include <linux/stddef.h>
#include <linux/build_bug.h>
#include "inside.h"
#include "selftest.h"

#define EPERM_		1
#define ENOENT_		2
#define ENXIO_		6
#define EAGAIN_		11
#define EEXIST_		17
#define EINVAL_		22
#define ENOSPC_		28
#define EUCLEAN_	117

#define PAGE		4096ull
#define MAX_GPA		(1ull << 52)

struct rdt_inside rdt_inside_data __section(".redoubt.data") = { .nr = 0 };

static_assert(offsetof(struct rdt_inside, vmmcall) == RDT_INSIDE_VMMCALL);
static_assert(offsetof(struct rdt_inside, leave_hc) == RDT_INSIDE_LEAVE_HC);
static_assert(sizeof(struct rdt_inside) % PAGE == 0);

static struct rdt_inside *const in = &rdt_inside_data;

static long hypercall(__u64 nr, __u64 a, __u64 b, __u64 c)
{
	long ret;

	if (in->vmmcall)
		asm volatile("vmmcall" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(0ul)
			     : "memory");
	else
		asm volatile("vmcall" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(0ul)
			     : "memory");
	return ret;
}

static __u64 add_atomic(__u64 *p, __u64 v)
{
	__u64 old = v;

	asm volatile("lock; xaddq %0, %1" : "+r"(old), "+m"(*p) : : "memory", "cc");
	return old + v;
}

static int try_lock(void)
{
	__u32 v = 1;

	asm volatile("xchgl %0, %1" : "+r"(v), "+m"(in->busy) : : "memory");
	return !v;
}

static void unlock(void)
{
	asm volatile("movl $0, %0" : "=m"(in->busy) : : "memory");
}

static __u64 rotl(__u64 x, int n)
{
	return x << n | x >> (64 - n);
}

#define SIPROUND do {							\
	v0 += v1; v1 = rotl(v1, 13); v1 ^= v0; v0 = rotl(v0, 32);	\
	v2 += v3; v3 = rotl(v3, 16); v3 ^= v2;				\
	v0 += v3; v3 = rotl(v3, 21); v3 ^= v0;				\
	v2 += v1; v1 = rotl(v1, 17); v1 ^= v2; v2 = rotl(v2, 32);	\
} while (0)

/* SipHash-2-4 of the policy table. The length is a multiple of eight. */
static __u64 table_digest(void)
{
	const __u64 *m = (const __u64 *)in->policy;
	__u64 v0 = 0x736f6d6570736575ull ^ in->key[0];
	__u64 v1 = 0x646f72616e646f6dull ^ in->key[1];
	__u64 v2 = 0x6c7967656e657261ull ^ in->key[0];
	__u64 v3 = 0x7465646279746573ull ^ in->key[1];
	__u64 len = in->nr * sizeof(in->policy[0]);
	__u64 i, w;

	for (i = 0; i <= len / 8; i++) {
		w = i < len / 8 ? m[i] : len << 56;
		v3 ^= w;
		SIPROUND;
		SIPROUND;
		v0 ^= w;
	}
	v2 ^= 0xff;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

/* Is the table what the last change from here made it? */
static int table_sound(void)
{
	return in->nr <= RDT_POLICY_MAX && table_digest() == in->digest;
}

static int range_ok(__u64 gpa, __u64 pages)
{
	return !(gpa & (PAGE - 1)) && pages && gpa < MAX_GPA &&
	       pages <= (MAX_GPA - gpa) / PAGE && pages <= ~0u;
}

static struct rdt_policy *overlap(__u64 gpa, __u64 pages)
{
	struct rdt_policy *p;

	for (p = in->policy; p < in->policy + in->nr; p++)
		if (p->pages && gpa < p->gpa + p->pages * PAGE && p->gpa < gpa + pages * PAGE)
			return p;
	return NULL;
}

static long op_protect(__u64 gpa, __u64 b, __u64 attr)
{
	__u64 pages = (__u32)b, flags = b >> 32;
	struct rdt_policy *p;
	long ret;

	if (!range_ok(gpa, pages) || flags & ~(__u64)RDT_F_REMOVABLE || attr >> 16 ||
	    RDT_ATTR_ACTION(attr) == RDT_ACT_NONE || RDT_ATTR_CLASS(attr) > RDT_CLS_GUEST_MAX)
		return -EINVAL_;
	if (overlap(gpa, pages))
		return -EEXIST_;
	for (p = in->policy; p < in->policy + in->nr && p->pages; p++)
		;
	if (p == in->policy + RDT_POLICY_MAX)
		return -ENOSPC_;
	ret = hypercall(RDT_HC_PROTECT, gpa, pages, attr);
	if (ret)
		return ret;
	p->gpa = gpa;
	p->pages = pages;
	p->action = RDT_ATTR_ACTION(attr);
	p->cls = RDT_ATTR_CLASS(attr);
	p->flags = flags;
	if (p == in->policy + in->nr)
		in->nr++;
	return 0;
}

static long op_unprotect(__u64 gpa, __u64 pages)
{
	struct rdt_policy *p;
	long ret;

	if (!range_ok(gpa, pages))
		return -EINVAL_;
	p = overlap(gpa, pages);
	if (!p)
		return -ENOENT_;
	/* Whole ranges only, and only those that were meant to be lifted one day. */
	if (p->gpa != gpa || p->pages != pages || !(p->flags & RDT_F_REMOVABLE)) {
		add_atomic(&in->refused, 1);
		return -EPERM_;
	}
	ret = hypercall(RDT_HC_UNPROTECT, gpa, pages, 0);
	if (ret)
		return ret;
	p->gpa = 0;
	p->pages = 0;
	p->action = 0;
	p->cls = 0;
	p->flags = 0;
	return 0;
}

/* The operations that use the policy table, one at a time. */
static long table_op(__u64 op, __u64 a, __u64 b, __u64 c)
{
	struct rdt_policy *p;
	long ret;

	if (!try_lock())
		return -EAGAIN_;
	if (!table_sound()) {
		ret = -EUCLEAN_;
	} else if (op == RDT_OP_PROTECT) {
		ret = op_protect(a, b, c);
		in->digest = table_digest();
	} else if (op == RDT_OP_UNPROTECT) {
		ret = op_unprotect(a, b);
		in->digest = table_digest();
	} else if (op == RDT_OP_LOOKUP) {
		p = range_ok(a & ~(PAGE - 1), 1) ? overlap(a & ~(PAGE - 1), 1) : NULL;
		ret = p ? RDT_ATTR(p->action, p->cls) : 0;
	} else {
		ret = 0;
	}
	unlock();
	return ret;
}

static long op_selftest(__u64 seed, __u64 rounds, __u64 use_sse)
{
	struct rdt_selftest st;

	rdt_selftest_init(&st, seed);
	if (rounds)
		rdt_selftest_rounds(&st, rounds, use_sse != 0);
	return rdt_selftest_sum(&st);
}

/*
 * The test page is a protected page that is not the driver's: the one foreign page
 * its tables may map, so that a write from in here can be shown to be caught.
 */
static long op_test(__u64 op, __u64 offset, __u64 value)
{
	volatile __u64 *p;

	if (!in->test)
		return -ENXIO_;
	if (offset > PAGE - sizeof(*p) || offset % sizeof(*p))
		return -EINVAL_;
	p = (volatile __u64 *)(in->test + offset);
	if (op == RDT_OP_READ_TEST)
		return *p;
	*p = value;
	return 0;
}

/* An exception in here must end the call, and nothing else. */
static long op_fault(__u64 vector)
{
	if (!in->test)
		return -ENXIO_;
	if (vector == 0)
		asm volatile("xorl %%ecx, %%ecx; divl %%ecx" : : : "rax", "rcx", "rdx", "cc");
	else if (vector == 6)
		asm volatile("ud2");
	else if (vector == 14)
		return *(volatile __u64 *)(in->test + PAGE);
	return -EINVAL_;
}

/* Called by rdt_enter in gate.S. */
long rdt_inside_main(__u64 op, __u64 a, __u64 b, __u64 c);

long rdt_inside_main(__u64 op, __u64 a, __u64 b, __u64 c)
{
	/* Every argument is an index or an address of the caller's choice. */
	if (op >= RDT_OP_NR)
		return -EINVAL_;
	add_atomic(&in->calls[op], 1);
	switch (op) {
	case RDT_OP_NOP:
		return 0;
	case RDT_OP_COUNTER_INC:
		return a < RDT_USER_COUNTERS ? (long)add_atomic(&in->counter[a], 1) : -EINVAL_;
	case RDT_OP_SELFTEST:
		return op_selftest(a, b, c);
	case RDT_OP_WRITE_TEST:
	case RDT_OP_READ_TEST:
		return op_test(op, a, b);
	case RDT_OP_FAULT_TEST:
		return op_fault(a);
	default:
		return table_op(op, a, b, c);
	}
}
