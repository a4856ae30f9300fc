/* SPDX-License-Identifier: GPL-2.0 */
/* What a receiver of a stream has: frames of a range, and what it knows of the messages. */
#ifndef IMAGE_H
#define IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "gnl.h"

enum { HAVE_NOT, HAVE_DATA, HAVE_ZERO, HAVE_LOST };

struct image {
	struct area {
		uint64_t first, frames;
		uint8_t *bytes;		/* of those that came as data or zero */
		uint8_t *have;		/* HAVE_* a frame */
	} area[2];
	uint8_t space;
	uint32_t vm, stream;

	uint64_t next_seq;	/* expected */
	uint64_t holes;		/* numbers that never came */
	uint64_t messages, data, zero, lost;	/* frames by kind, as often as they came */
	uint64_t count;		/* of the last end */
	bool ended;		/* an end has come since image_again() */
	bool bad;		/* a message that must not be; it was said why */
};

void image_init(struct image *im, uint8_t space, uint32_t vm, uint32_t stream);
void image_area(struct image *im, int nr, uint64_t first, uint64_t frames);
void image_free(struct image *im);
/* Until an end comes, or nothing for @ms milliseconds: then false. */
bool image_receive(struct image *im, int fd, int ms);
/* Ranges of what is missing; how many. */
uint32_t image_missing(const struct image *im, struct rdt_sb_range *ranges, uint32_t max);
/* Frames that differ from @with, or are not there. */
uint64_t image_differs(const struct image *im, int area, const void *with);

#endif
