// SPDX-License-Identifier: GPL-2.0
/*
 * Looks for an Ed25519 key in what a VMM gives away.
 *
 *   leak-seek SEED CANARY TARGET    TARGET: a file, "-" (stdin), or pid:PID, all of whose memory is read
 *   leak-seek values SEED           what is looked for, to stdout: to plant it
 *
 * SEED and CANARY are files of 32 bytes. Looked for, in either byte order, at every offset, are all eight
 * bytes in a row of:
 *
 *   seed       itself
 *   expanded   its SHA-512, which is scalar and prefix of each signature, and the clamped scalar
 *   nonce      of leak-sign's message, before and behind the reduction: with a signature it gives the scalar
 *   canary     which the guest has: who does not find it has not looked
 *
 * Prints how many there were of each, and the MiB that were read. The exit status says whether it could look.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/evp.h>

#include "leak.h"
#include "procmem.h"

#define CHUNK	(1 << 20)
#define PIECE	8

/* The order of the group, RFC 8032, 5.1 */
#define ORDER	"1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed"

enum kind { SEED, EXPANDED, NONCE, CANARY, KINDS };
static const char *const name[KINDS] = { "seed", "expanded", "nonce", "canary" };

struct values {
	uint8_t seed[32];
	uint8_t expanded[64];
	uint8_t scalar[32];
	uint8_t nonce[64];
	uint8_t reduced[32];
};

static struct needle {
	uint8_t byte[PIECE];
	enum kind kind;
	struct needle *next;
} needle[1024], *bucket[1 << 16];	/* by their first two bytes */
static unsigned int needles;

static unsigned long found[KINDS];
static uint64_t seen;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static void load(uint8_t *to, const char *path)
{
	FILE *f = fopen(path, "rb");

	if (!f || fread(to, 1, 32, f) != 32 || fgetc(f) != EOF)
		die(path);
	fclose(f);
}

/* ---- what is looked for ------------------------------------------------------------------ */

static void sha512(uint8_t *out, const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();

	if (!c || EVP_DigestInit_ex(c, EVP_sha512(), NULL) != 1 || EVP_DigestUpdate(c, a, a_bytes) != 1 ||
	    EVP_DigestUpdate(c, b, b_bytes) != 1 || EVP_DigestFinal_ex(c, out, NULL) != 1)
		die("OpenSSL");
	EVP_MD_CTX_free(c);
}

static void derive(struct values *v)
{
	static uint8_t message[LEAK_MESSAGE];
	BIGNUM *order = NULL, *n;
	BN_CTX *ctx = BN_CTX_new();

	sha512(v->expanded, v->seed, sizeof(v->seed), NULL, 0);
	memcpy(v->scalar, v->expanded, sizeof(v->scalar));
	v->scalar[0] &= 0xf8;
	v->scalar[31] = (v->scalar[31] & 0x7f) | 0x40;
	leak_message(message);
	sha512(v->nonce, v->expanded + 32, 32, message, sizeof(message));
	n = BN_lebin2bn(v->nonce, sizeof(v->nonce), NULL);
	if (!ctx || !n || !BN_hex2bn(&order, ORDER) || !BN_mod(n, n, order, ctx) ||
	    BN_bn2lebinpad(n, v->reduced, sizeof(v->reduced)) < 0)
		die("OpenSSL");
}

static uint16_t first_two(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static void add(const uint8_t *at, enum kind kind)
{
	struct needle *n, **b = &bucket[first_two(at)];

	/* The clamped scalar is most of the plain one. */
	for (n = *b; n; n = n->next)
		if (!memcmp(n->byte, at, PIECE))
			return;
	if (needles == sizeof(needle) / sizeof(needle[0]))
		die("too many pieces");
	n = &needle[needles++];
	memcpy(n->byte, at, PIECE);
	n->kind = kind;
	n->next = *b;
	*b = n;
}

static void add_all(const uint8_t *value, size_t bytes, enum kind kind)
{
	uint8_t back[64];
	size_t i;

	for (i = 0; i < bytes; i++)
		back[i] = value[bytes - 1 - i];
	for (i = 0; i + PIECE <= bytes; i++) {
		/* The end of what was reduced, and zeros, would be found anywhere. */
		if (kind == NONCE && bytes == 32 && i + PIECE > 31)
			break;
		add(value + i, kind);
		add(back + bytes - PIECE - i, kind);
	}
}

/* ---- looking ------------------------------------------------------------------------------ */

static bool look(const uint8_t *at, size_t len)
{
	for (size_t i = 0; i + PIECE <= len; i++) {
		if (i % PROCMEM_PAGE == 0 && is_nothing(at + i, len - i)) {
			i += PROCMEM_PAGE - PIECE;
			continue;
		}
		for (const struct needle *n = bucket[first_two(at + i)]; n; n = n->next)
			if (!memcmp(at + i, n->byte, PIECE))
				found[n->kind]++;
	}
	return false;		/* never enough */
}

static void look_at_stream(int fd)
{
	static uint8_t buf[PIECE - 1 + CHUNK];
	size_t kept = 0;
	ssize_t got;

	while ((got = read(fd, buf + kept, CHUNK)) > 0) {
		size_t have = kept + (size_t)got;

		seen += (uint64_t)got;
		look(buf, have);
		/* For what lies across. No piece is found twice: it takes one byte more. */
		kept = have < PIECE - 1 ? have : PIECE - 1;
		memmove(buf, buf + have - kept, kept);
	}
	if (got < 0)
		die("read");
}

int main(int argc, char **argv)
{
	static struct values v;
	uint8_t canary[32];

	if (argc == 3 && !strcmp(argv[1], "values")) {
		load(v.seed, argv[2]);
		derive(&v);
		return fwrite(&v, sizeof(v), 1, stdout) == 1 && !fflush(stdout) ? 0 : 2;
	}
	if (argc != 4)
		return 2;
	load(v.seed, argv[1]);
	load(canary, argv[2]);
	derive(&v);
	add_all(v.seed, sizeof(v.seed), SEED);
	add_all(v.expanded, sizeof(v.expanded), EXPANDED);
	add_all(v.scalar, sizeof(v.scalar), EXPANDED);
	add_all(v.nonce, sizeof(v.nonce), NONCE);
	add_all(v.reduced, sizeof(v.reduced), NONCE);
	add_all(canary, sizeof(canary), CANARY);

	if (!strncmp(argv[3], "pid:", 4)) {
		seen = read_process(argv[3] + 4, PIECE - 1, look);
	} else {
		int fd = strcmp(argv[3], "-") ? open(argv[3], O_RDONLY) : 0;

		if (fd < 0)
			die(argv[3]);
		look_at_stream(fd);
	}
	for (int k = 0; k < KINDS; k++)
		printf("%s %lu ", name[k], found[k]);
	printf("mib %" PRIu64 "\n", seen >> 20);
	return seen ? 0 : 2;
}
