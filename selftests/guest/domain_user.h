/* SPDX-License-Identifier: GPL-2.0 */
/* Images for the tests of /dev/redoubt-domain, right and wrong, and what they are measured as. */
#ifndef DOMAIN_USER_H
#define DOMAIN_USER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include <linux/redoubt.h>
#include <linux/redoubt_domain.h>

#include "dom_image.h"

#define CONTROL	"/dev/redoubt-domain"

/* An image, and all that it points to. */
struct image {
	struct rdt_image image;
	struct rdt_image_segment segment[8];
	unsigned int pages;
	unsigned char bytes[(DOM_CODE_PAGES + DOM_DATA_PAGES) * 4096];
};

struct bad_image {
	const char *name;
	int err;
	void (*spoil)(struct image *im);
};
extern const struct bad_image bad_images[];

void describe_at(struct image *im, unsigned int slots, unsigned int flags, uint64_t base);
void describe(struct image *im, unsigned int slots, unsigned int flags);
void measure(const struct image *im, uint8_t sha[32]);
int create(int fd, struct image *im, unsigned int slots, unsigned int flags);
/* With @more pages of data. */
int create_big(int fd, struct image *im, unsigned int slots, unsigned int more);
int call(int fd, uint64_t op, const void *in, uint32_t in_len, void *out, uint32_t out_len, int64_t *result);

/* Opens CONTROL, or ends the test. */
int control(void);
bool wait_ok(void);

/* domain_ring3.c. Makes a domain and runs in it until it is killed; says how far it has come. */
void ring3_victim(int *stage);
void test_ring3(void);
void test_ring3_past(void);

__attribute__((format(printf, 2, 3)))
void ok(bool right, const char *fmt, ...);
int tap_end(void);

#endif
