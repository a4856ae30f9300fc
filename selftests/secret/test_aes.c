// SPDX-License-Identifier: GPL-2.0
/*
 * The cipher of redoubt_aes.ko as a program: its secret is copied to a place of its own, filled
 * as the host would do it, by the table of fixups, and compared with OpenSSL's AES.
 *
 *   test_aes PAGES FIXUPS    the two sections of aes_secret.o
 */
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "redoubt_aes.h"
#include "redoubt_secret.h"

#define PAGE		4096
#define BLOCK		16

static int n, bad;

static void result(bool ok, const char *name)
{
	printf("%s %d - D8 %s\n", ok ? "ok" : "not ok", ++n, name);
	bad += !ok;
}

static unsigned char *load(const char *path, size_t *len)
{
	unsigned char *data = malloc(1 << 16);
	FILE *f = fopen(path, "rb");

	if (!f || !data)
		exit(2);
	*len = fread(data, 1, 1 << 16, f);
	fclose(f);
	return data;
}

struct keys {
	unsigned char key1[32], key2[32];
};

/* What redoubtctl secret install does. */
static bool install(unsigned char *code, size_t len, const struct rdt_secret_fixup *f, size_t nr,
		    const struct keys *k)
{
	for (; nr--; f++) {
		const unsigned char *value = !strcmp(f->value, "aes_key1") ? k->key1 :
					     !strcmp(f->value, "aes_key2") ? k->key2 : NULL;

		if (!value || strcmp(f->name, "rdt_aes") || f->from + f->length > 32 || f->offset < 0 ||
		    (size_t)f->offset + f->length > PAGE || len < PAGE)
			return false;
		memcpy(code + f->offset, value + f->from, f->length);
	}
	return true;
}

/* The way in; false if a register that held keys is not zero at the end. */
static bool call(const void *gate, void *dst, const void *src, unsigned long batches,
		 unsigned long flags)
{
	unsigned long rest[4][2];
	long ret;

	memset(rest, 0xff, sizeof(rest));
	asm volatile("leaq 1f(%%rip), %%r11\n"
		     "jmp *%%rax\n"
		     "1:\n"
		     "movdqu %%xmm8, %[r0]\n"
		     "movdqu %%xmm9, %[r1]\n"
		     "movdqu %%xmm10, %[r2]\n"
		     "movdqu %%xmm11, %[r3]\n"
		     : "=a" (ret), "+D" (dst), "+S" (src), "+d" (batches), "+c" (flags),
		       [r0] "=m" (rest[0]), [r1] "=m" (rest[1]), [r2] "=m" (rest[2]), [r3] "=m" (rest[3])
		     : "a" (gate)
		     : "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
		       "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "memory", "cc");
	return !ret && !memcmp(rest, (unsigned long[8]){ 0 }, sizeof(rest));
}

static void openssl(const unsigned char *key, bool decrypt, unsigned char *out, const unsigned char *in,
		    int len)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int l;

	if (!c || !EVP_CipherInit_ex(c, EVP_aes_256_ecb(), NULL, key, NULL, !decrypt) ||
	    !EVP_CIPHER_CTX_set_padding(c, 0) || !EVP_CipherUpdate(c, out, &l, in, len) || l != len)
		exit(2);
	EVP_CIPHER_CTX_free(c);
}

/* Several batches, and what is around them */
static bool same(const void *gate, const struct keys *k, unsigned int flags, bool in_place)
{
	const unsigned char *key = flags & RDT_AES_KEY2 ? k->key2 : k->key1;
	int batch = flags & RDT_AES_YMM ? RDT_AES_BATCH_YMM : RDT_AES_BATCH_XMM, len = 3 * batch;
	unsigned char src[4 * 256], dst[4 * 256], want[4 * 256], *to = in_place ? src : dst;

	RAND_bytes(src, sizeof(src));
	memset(dst, 0x11, sizeof(dst));
	memcpy(want, to, sizeof(want));
	openssl(key, flags & RDT_AES_DECRYPT, want + 16, src + 16, len);
	return call(gate, to + 16, src + 16, 3, flags) && !memcmp(to, want, sizeof(want));
}

int main(int argc, char **argv)
{
	/* FIPS 197, appendix C.3 */
	static const unsigned char plain[BLOCK] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
		0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
	static const unsigned char cipher[BLOCK] = { 0x8e, 0xa2, 0xb7, 0xca, 0x51, 0x67, 0x45, 0xbf,
		0xea, 0xfc, 0x49, 0x90, 0x4b, 0x49, 0x60, 0x89 };
	static const char *const names[] = { "encrypts, key 1", "decrypts, key 1", "encrypts, key 2",
		"decrypts, key 2", "encrypts by AVX, key 1", "decrypts by AVX, key 1",
		"encrypts by AVX, key 2", "decrypts by AVX, key 2" };
	unsigned char *pages, *fixups, *code, buf[RDT_AES_BATCH_XMM] = { 0 };
	size_t len, flen, nr, i;
	struct keys k;
	unsigned long was;
	unsigned int flags, round;

	if (argc != 3)
		return 2;
	pages = load(argv[1], &len);
	fixups = load(argv[2], &flen);
	nr = flen / sizeof(struct rdt_secret_fixup);
	result(len == 3 * PAGE && flen % sizeof(struct rdt_secret_fixup) == 0 && nr == 8,
	       "three pages, eight placeholders");

	/* Somewhere else than it was linked */
	code = mmap(NULL, len, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED)
		return 2;
	memcpy(code, pages, len);
	for (i = 0; i < nr; i++) {
		const struct rdt_secret_fixup *f = (void *)fixups;
		const unsigned long placeholder = RDT_SECRET_PLACEHOLDER;

		if (f[i].length != 8 || memcmp(code + f[i].offset, &placeholder, 8))
			break;
	}
	result(i == nr, "each fixup is where a placeholder is");
	memcpy(code + 2 * PAGE, "\x41\xff\xe3", 3);	/* jmp *%r11 instead of the host */

	for (i = 0; i < 32; i++)
		k.key1[i] = i;
	memset(k.key2, 0x55, sizeof(k.key2));
	result(install(code, len, (void *)fixups, nr, &k), "the keys are put where the fixups say");
	memcpy(buf + 7 * BLOCK, plain, BLOCK);
	result(call(code, buf, buf, 1, 0) && !memcmp(buf + 7 * BLOCK, cipher, BLOCK),
	       "FIPS 197, C.3, encrypted");
	result(call(code, buf, buf, 1, RDT_AES_DECRYPT) && !memcmp(buf + 7 * BLOCK, plain, BLOCK),
	       "FIPS 197, C.3, decrypted");
	memcpy(&was, buf, sizeof(was));
	result(call(code, buf, buf, 0, 0) && !memcmp(&was, buf, sizeof(was)), "no block at all");

	for (flags = 0; flags < 8; flags++) {
		bool ok = true;

		for (round = 0; ok && round < 200; round++) {
			RAND_bytes((unsigned char *)&k, sizeof(k));
			ok = install(code, len, (void *)fixups, nr, &k) &&
			     same(code, &k, flags, round & 1);
		}
		result(ok, names[flags]);
	}
	printf("1..%d\n", n);
	return bad != 0;
}
