// SPDX-License-Identifier: GPL-2.0
/* Between the key service and libsodium: what libsodium wants of the world around it. */
#include <redoubt/domain.h>

#include <crypto_sign_ed25519.h>
#include <randombytes.h>
#include <utils.h>

#include "ed25519.h"

void ed25519_from_seed(uint8_t public_key[32], uint8_t secret[ED25519_SECRET], const uint8_t seed[32])
{
	crypto_sign_ed25519_seed_keypair(public_key, secret, seed);
}

void ed25519_sign(uint8_t signature[64], const uint8_t *message, size_t bytes, const uint8_t secret[ED25519_SECRET])
{
	crypto_sign_ed25519_detached(signature, NULL, message, bytes, secret);
}

/* ---- libsodium's surroundings ------------------------------------------------------------ */

void sodium_memzero(void *const at, const size_t bytes)
{
	rdt_wipe(at, bytes);
}

/* Linked, not called: keys come from ed25519_from_seed(). */
void randombytes_buf(void *const buf, const size_t bytes)
{
	if (rdt_random(buf, bytes))
		rdt_leave(-RDT_EIO);
}

__attribute__((noreturn)) void abort(void);
void abort(void)
{
	rdt_leave(-RDT_EIO);
}
