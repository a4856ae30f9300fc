/* SPDX-License-Identifier: GPL-2.0 */
/* A call of the key service, for its command and its provider. */
#ifndef REDOUBT_KEY_CLIENT_H
#define REDOUBT_KEY_CLIENT_H

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include <redoubt/redoubt.h>

#include "keyservice.h"

/* As rdt_domain_call(). Busy is asked again, for a second. */
static inline long rdt_key_call(int fd, uint64_t op, uint32_t key, uint32_t argument, const void *rest, size_t bytes,
				void *out, size_t room)
{
	const struct timespec ms = { 0, 1000000 };
	struct {
		struct rdt_key_request r;
		uint8_t rest[RDT_KEY_MESSAGE];
	} in;
	long got;

	if (bytes > sizeof(in.rest))
		return -EMSGSIZE;
	in.r = (struct rdt_key_request){ key, argument };
	if (bytes)
		memcpy(in.rest, rest, bytes);
	for (int tries = 1000;; tries--) {
		got = rdt_domain_call(fd, op, &in, sizeof(in.r) + bytes, out, room);
		if (got != -EAGAIN || !tries)
			break;
		nanosleep(&ms, NULL);
	}
	explicit_bzero(in.rest, bytes);
	return got;
}

#endif
