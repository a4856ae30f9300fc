// SPDX-License-Identifier: GPL-2.0
/*
 * key-bench IMAGE [RUNS]: what a signature costs by the TSC, which counts instructions in the
 * lab (QEMU -icount, Bochs): in the domain behind /dev/redoubt/key, and by the same code
 * in this process. Key 15 must be free. A line of JSON for each length of message.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../client.h"
#include "outside.h"

#define MAX_RUNS 1000

static struct rdt_image *image;
static uint8_t request[sizeof(struct rdt_key_request) + RDT_KEY_MESSAGE];

static uint64_t tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The median, as the guest has timers. */
static uint64_t cost(int fd, uint64_t op, size_t bytes, unsigned int runs, uint8_t *out)
{
	static uint64_t took[MAX_RUNS];

	for (unsigned int i = 0; i < runs; i++) {
		uint64_t t = tsc();
		long got = fd < 0 ? outside_call(image, 0, op, request, bytes, out, RDT_KEY_SIGNATURE) :
				    rdt_domain_call(fd, op, request, bytes, out, RDT_KEY_SIGNATURE);

		took[i] = tsc() - t;
		if (got < 0 && op == RDT_KEY_SIGN) {
			fprintf(stderr, "key-bench: %s\n", rdt_strerror(got));
			exit(1);
		}
	}
	qsort(took, runs, sizeof(took[0]), compare);
	return took[runs / 2];
}

int main(int argc, char **argv)
{
	static const size_t lengths[] = { 64, 256, 1024, 4096, RDT_KEY_MESSAGE };
	const uint8_t seed[RDT_KEY_SEED] = { 1, 2, 3 };
	uint8_t inside[RDT_KEY_SIGNATURE], outside[RDT_KEY_SIGNATURE], public_key[RDT_KEY_PUBLIC];
	unsigned int runs = argc > 2 ? (unsigned int)atoi(argv[2]) : 51;
	int fd = rdt_domain_open(RDT_KEY_DEVICE);

	if (argc < 2 || runs < 1 || runs > MAX_RUNS || fd < 0 || rdt_image_load(argv[1], &image) || outside_map(image, -1)) {
		fprintf(stderr, "key-bench: %s\n", rdt_error());
		return 2;
	}
	((struct rdt_key_request *)request)->key = 15;
	memcpy(request + sizeof(struct rdt_key_request), seed, sizeof(seed));
	if (rdt_domain_call(fd, RDT_KEY_IMPORT, request, sizeof(struct rdt_key_request) + sizeof(seed), public_key,
			    sizeof(public_key)) != RDT_KEY_PUBLIC ||
	    outside_call(image, 0, RDT_KEY_IMPORT, request, sizeof(struct rdt_key_request) + sizeof(seed), public_key,
			 sizeof(public_key)) != RDT_KEY_PUBLIC)
		return 2;
	/* What is refused at once costs the way there and back. */
	printf("{\"nothing_outside\": %llu, \"nothing_inside\": %llu}\n",
	       (unsigned long long)cost(-1, 0, 8, runs, outside), (unsigned long long)cost(fd, 0, 8, runs, inside));
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		size_t bytes = sizeof(struct rdt_key_request) + lengths[i];
		uint64_t there = cost(-1, RDT_KEY_SIGN, bytes, runs, outside);
		uint64_t here = cost(fd, RDT_KEY_SIGN, bytes, runs, inside);

		if (memcmp(inside, outside, sizeof(inside)))
			return 1;
		printf("{\"message\": %zu, \"outside\": %llu, \"inside\": %llu, \"ratio\": %.4f}\n", lengths[i],
		       (unsigned long long)there, (unsigned long long)here, (double)there / (double)here);
	}
	memset(request, 0, sizeof(request));
	((struct rdt_key_request *)request)->key = 15;
	return rdt_domain_call(fd, RDT_KEY_ERASE, request, sizeof(struct rdt_key_request), NULL, 0) ? 1 : 0;
}
