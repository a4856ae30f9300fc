/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The computation behind RDT_OP_SELFTEST, which keeps every register of the CPU busy.
 * The inside does the rounds in assembly (selftest.S); whoever checks it repeats
 * them with rdt_selftest_ref(), in plain C and outside integrity mode.
 */
#ifndef _REDOUBT_SELFTEST_H
#define _REDOUBT_SELFTEST_H

#define RDT_SELFTEST_GPRS	14	/* all but RSP and the loop counter, RCX */
#define RDT_SELFTEST_XMMS	16

/* Offsets for selftest.S */
#define RDT_SELFTEST_CARRY	(8 * RDT_SELFTEST_GPRS)
#define RDT_SELFTEST_X		(RDT_SELFTEST_CARRY + 8)

#ifndef __ASSEMBLY__
struct rdt_selftest {
	__u64 r[RDT_SELFTEST_GPRS];
	__u64 carry;
	__u64 x[RDT_SELFTEST_XMMS][2];
};

void rdt_selftest_rounds(struct rdt_selftest *st, __u64 rounds, __u64 use_sse);

static inline void rdt_selftest_init(struct rdt_selftest *st, __u64 seed)
{
	int i;

	for (i = 0; i < RDT_SELFTEST_GPRS; i++)
		st->r[i] = seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	st->carry = 0;
	for (i = 0; i < RDT_SELFTEST_XMMS; i++) {
		st->x[i][0] = seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		st->x[i][1] = ~seed;
	}
}

static inline __u64 rdt_selftest_sum(const struct rdt_selftest *st)
{
	const __u64 *w = (const __u64 *)st;
	__u64 h = 0;
	unsigned int i;

	for (i = 0; i < sizeof(*st) / sizeof(*w); i++)
		h = (h ^ w[i]) * 0x100000001b3ull;
	return h >> 1;		/* never looks like an error */
}

/* One register after the other: add the next one and the carry, then swap its bytes. */
static inline void rdt_selftest_ref(struct rdt_selftest *st, __u64 rounds, __u64 use_sse)
{
	int i, next;

	for (; rounds; rounds--) {
		for (i = 0; i < RDT_SELFTEST_GPRS; i++) {
			unsigned __int128 s;

			next = (i + 1) % RDT_SELFTEST_GPRS;
			s = (unsigned __int128)st->r[i] + st->r[next] + st->carry;
			st->carry = s >> 64;
			st->r[i] = __builtin_bswap64((__u64)s);
		}
		for (i = 0; use_sse && i < RDT_SELFTEST_XMMS; i++) {
			next = (i + 1) % RDT_SELFTEST_XMMS;
			st->x[i][0] += st->x[next][0];
			st->x[i][1] += st->x[next][1];
		}
	}
}
#endif /* __ASSEMBLY__ */
#endif /* _REDOUBT_SELFTEST_H */
