// SPDX-License-Identifier: GPL-2.0
/*
 * An Ed25519 signature by libsodium, built like a domain's code: what bench_sign() and
 * all that it calls is in sections of its own, which domains.c copies. Linked with
 * libsodium's objects first, so that none of these names is another's.
 */
#include <stddef.h>
#include <stdint.h>

#include <crypto_sign_ed25519.h>

static unsigned char secret[crypto_sign_ed25519_SECRETKEYBYTES] = { 1 };

void bench_key(void)
{
	unsigned char public[crypto_sign_ed25519_PUBLICKEYBYTES], seed[crypto_sign_ed25519_SEEDBYTES];

	for (size_t i = 0; i < sizeof(seed); i++)
		seed[i] = i * 7 + 1;
	crypto_sign_ed25519_seed_keypair(public, secret, seed);
}

/* Half a word of the signature, never an error. */
uint64_t bench_sign(uint64_t what)
{
	unsigned char message[64], signature[crypto_sign_ed25519_BYTES];
	uint64_t ret = 0;

	for (size_t i = 0; i < sizeof(message); i++)
		message[i] = what + i;
	crypto_sign_ed25519_detached(signature, NULL, message, sizeof(message), secret);
	for (size_t i = 0; i < 4; i++)
		ret = ret << 8 | signature[i];
	return ret;
}

/* ---- what libsodium and the compiler want ----------------------------------------- */

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	void *ret = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return ret;
}

void *memmove(void *to, const void *from, size_t n)
{
	unsigned char *t = to;
	const unsigned char *f = from;

	if (t <= f || t >= f + n)
		return memcpy(to, from, n);
	while (n--)
		__asm__ volatile("movb %1, %%al; movb %%al, %0" : "=m"(t[n]) : "m"(f[n]) : "al");
	return to;
}

void *memset(void *to, int c, size_t n)
{
	void *ret = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return ret;
}

void sodium_memzero(void *const at, const size_t n)
{
	memset(at, 0, n);
}

int sodium_is_zero(const unsigned char *p, const size_t n)
{
	unsigned char any = 0;

	for (size_t i = 0; i < n; i++)
		any |= p[i];
	return !any;
}

/* Linked, not called. */
void randombytes_buf(void *const at, const size_t n)
{
	__builtin_trap();
}

void abort(void)
{
	__builtin_trap();
}
