// SPDX-License-Identifier: GPL-2.0
/*
 * What the test of redoubt_aes needs on the host, without the module and without Redoubt:
 *
 *   aeskeys handle KEY1 KEY2            for setkey: the first bytes of encrypted zeros
 *   aeskeys read KEY1 KEY2              a volume of dm-crypt's xts-plain64, stdin to stdout
 *   aeskeys hunt PID KEY1 KEY2          are the keys, or round keys, in its memory?
 *
 * KEY1, KEY2 are files of 32 bytes. hunt looks for each eight bytes of them at every address,
 * and prints how many there were in the first MiB that had any, 0: none. The exit status says whether
 * it could look.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "procmem.h"

#define SECTOR	512

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static void load(unsigned char *key, const char *path)
{
	FILE *f = fopen(path, "rb");

	if (!f || fread(key, 1, 32, f) != 32 || fgetc(f) != EOF)
		die(path);
	fclose(f);
}

static void aes(const EVP_CIPHER *kind, const unsigned char *key, const unsigned char *iv, bool encrypt,
		unsigned char *out, const unsigned char *in, int len)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n;

	if (!c || !EVP_CipherInit_ex(c, kind, NULL, key, iv, encrypt) ||
	    !EVP_CIPHER_CTX_set_padding(c, 0) || !EVP_CipherUpdate(c, out, &n, in, len) || n != len)
		die("OpenSSL");
	EVP_CIPHER_CTX_free(c);
}

static int handle(const unsigned char keys[2][32])
{
	unsigned char zero[16] = { 0 }, out[16];
	int k, i;

	for (k = 0; k < 2; k++) {
		aes(EVP_aes_256_ecb(), keys[k], NULL, true, out, zero, sizeof(zero));
		for (i = 0; i < 8; i++)
			printf("%02x", out[i]);
	}
	putchar('\n');
	return 0;
}

static int read_volume(const unsigned char keys[2][32])
{
	unsigned char in[SECTOR], out[SECTOR], iv[16] = { 0 };
	uint64_t sector;

	for (sector = 0; fread(in, 1, SECTOR, stdin) == SECTOR; sector++) {
		memcpy(iv, &sector, sizeof(sector));
		aes(EVP_aes_256_xts(), keys[0], iv, false, out, in, SECTOR);
		if (fwrite(out, 1, SECTOR, stdout) != SECTOR)
			die("stdout");
	}
	return 0;
}

/* ---- the hunt ------------------------------------------------------------------ */

static unsigned char sbox[256];

/* The S-box by what it is: the inverse in GF(2^8), and an affine map. */
static void make_sbox(void)
{
	unsigned char p = 1, q = 1, x;

	do {
		p = p ^ p << 1 ^ (p & 0x80 ? 0x1b : 0);
		q ^= q << 1;
		q ^= q << 2;
		q ^= q << 4;
		q ^= q & 0x80 ? 0x09 : 0;
		x = q ^ (q << 1 | q >> 7) ^ (q << 2 | q >> 6) ^ (q << 3 | q >> 5) ^ (q << 4 | q >> 4);
		sbox[p] = x ^ 0x63;
	} while (p != 1);
	sbox[0] = 0x63;
}

static void expand(unsigned char *w, const unsigned char *key)
{
	unsigned char t[4], rcon = 1;
	int i, j;

	memcpy(w, key, 32);
	for (i = 8; i < 60; i++) {
		memcpy(t, w + 4 * (i - 1), 4);
		if (i % 8 == 0) {
			unsigned char first = t[0];

			for (j = 0; j < 3; j++)
				t[j] = sbox[t[j + 1]];
			t[0] ^= rcon;
			t[3] = sbox[first];
			rcon <<= 1;
		} else if (i % 8 == 4) {
			for (j = 0; j < 4; j++)
				t[j] = sbox[t[j]];
		}
		for (j = 0; j < 4; j++)
			w[4 * i + j] = w[4 * (i - 8) + j] ^ t[j];
	}
}

#define NEEDLES		(2 * 30)	/* halves of round keys */
static unsigned char needle[NEEDLES][8];
static bool begins[1 << 16];
static unsigned long found;

static bool look(const uint8_t *at, size_t len)
{
	uint16_t two;
	size_t i;
	int n;

	for (i = 0; i + 8 <= len; i++) {
		if (i % PROCMEM_PAGE == 0 && is_nothing(at + i, len - i)) {
			i += PROCMEM_PAGE - 8;
			continue;
		}
		memcpy(&two, at + i, 2);
		if (!begins[two])
			continue;
		for (n = 0; n < NEEDLES; n++)
			found += !memcmp(at + i, needle[n], 8);
	}
	return found;
}

static int hunt(const char *pid, const unsigned char keys[2][32])
{
	static unsigned char w[2][240];
	uint64_t seen;
	int n;

	make_sbox();
	for (n = 0; n < 2; n++)
		expand(w[n], keys[n]);
	for (n = 0; n < NEEDLES; n++) {
		uint16_t two;

		memcpy(needle[n], w[n / 30] + n % 30 * 8, 8);
		memcpy(&two, needle[n], 2);
		begins[two] = true;
	}
	seen = read_process(pid, 7, look);
	fprintf(stderr, "%" PRIu64 " MiB were looked at\n", seen >> 20);
	printf("%lu\n", found);
	return seen ? 0 : 2;
}

int main(int argc, char **argv)
{
	bool hunting = argc == 5 && !strcmp(argv[1], "hunt");
	unsigned char keys[2][32];

	if (argc != 4 && !hunting)
		return 2;
	load(keys[0], argv[argc - 2]);
	load(keys[1], argv[argc - 1]);
	/* OpenSSL has XTS with one key of 64 bytes. */
	if (hunting)
		return hunt(argv[2], keys);
	if (!strcmp(argv[1], "handle"))
		return handle(keys);
	return strcmp(argv[1], "read") ? 2 : read_volume(keys);
}
