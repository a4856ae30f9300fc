// SPDX-License-Identifier: GPL-2.0
#include "search.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"

#define MAX_SECRET	64
#define MAX_PIECES	(4 * MAX_SECRET + 7 * MAX_SECRET)
#define BUCKETS		65536u

/* Pieces by their first two bytes. */
static struct piece {
	uint8_t byte[SEARCH_PIECE];
	struct piece *next;
} *piece, *bucket[BUCKETS];
static unsigned int pieces;	/* not in the program's image: guests get it */

static uint16_t key(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}

static void add(const uint8_t *p)
{
	struct piece *n = &piece[pieces];

	if (pieces++ == MAX_PIECES)
		tap_bail("too many pieces");
	memcpy(n->byte, p, SEARCH_PIECE);
	n->next = bucket[key(p)];
	bucket[key(p)] = n;
}

static void add_windows(const uint8_t *p, size_t bytes)
{
	for (size_t i = 0; i + SEARCH_PIECE <= bytes; i++)
		add(p + i);
}

void search_for(const void *secret, size_t bytes)
{
	const uint8_t *s = secret;
	uint8_t turned[16], back[MAX_SECRET];

	if (bytes > MAX_SECRET || bytes % 8)
		tap_bail("not such a secret");
	free(piece);
	piece = calloc(MAX_PIECES, sizeof(*piece));
	if (!piece)
		tap_bail("pieces");
	pieces = 0;
	memset(bucket, 0, sizeof(bucket));
	add_windows(s, bytes);
	for (size_t i = 0; i < bytes; i++)
		back[i] = s[bytes - 1 - i];
	add_windows(back, bytes);
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t word, shifted;

		memcpy(&word, s + i, 8);
		/* Each 8 bytes as a ring: what it is while a rotation works on it. */
		memcpy(turned, s + i, 8);
		memcpy(turned + 8, s + i, 8);
		for (int k = 8 - SEARCH_PIECE + 1; k < 8; k++)
			add(turned + k);
		for (int k = 1; k < 8; k++) {
			shifted = word >> k;
			add((uint8_t *)&shifted);
		}
	}
}

size_t search(const void *in, size_t bytes, size_t *where)
{
	const uint8_t *p = in;
	size_t hits = 0;

	for (size_t page = 0; page < bytes; page += 4096) {
		size_t end = page + 4096 < bytes ? page + 4096 : bytes;
		size_t at = page;

		/* Most of a guest's memory. */
		for (; at + 8 <= end && !(*(const uint64_t *)(p + at)); at += 8)
			;
		/* A piece may have begun before. */
		at = at - page >= SEARCH_PIECE ? at - SEARCH_PIECE : page;
		for (; at < end && at + SEARCH_PIECE <= bytes; at++)
			for (const struct piece *n = bucket[key(p + at)]; n; n = n->next)
				if (!memcmp(n->byte, p + at, SEARCH_PIECE)) {
					if (!hits++ && where)
						*where = at;
					break;
				}
	}
	return hits;
}
