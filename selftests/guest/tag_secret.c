// SPDX-License-Identifier: GPL-2.0
/* A secret in C: a number made of a key and an argument, in as many rounds as the caller likes. */
#include "redoubt_secret.h"

RDT_SECRET_DEFINE(rdt_tag)
{
	__u64 k = rdt_secret_u64(rdt_tag, tag_key, 0), l = rdt_secret_u64(rdt_tag, tag_key, 8);
	__u64 m = rdt_secret_u64(rdt_tag, tag_key, 16), n = rdt_secret_u64(rdt_tag, tag_key, 24);

	do {
		a = (a ^ k) * 0x9e3779b97f4a7c15;
		a = (a << 23 | a >> 41) + l;
		a = (a ^ m) * 0xc2b2ae3d27d4eb4f + n;
	} while (--b);
	/* Not a negative errno. */
	rdt_secret_leave(rdt_tag, a >> 1);
}
