/* SPDX-License-Identifier: GPL-2.0 */
/* Ed25519 as the key service uses it: ed25519.c, over libsodium. */
#ifndef REDOUBT_ED25519_H
#define REDOUBT_ED25519_H

#include <stddef.h>
#include <stdint.h>

#define ED25519_SECRET 64	/* libsodium's: seed, public key */

void ed25519_from_seed(uint8_t public_key[32], uint8_t secret[ED25519_SECRET], const uint8_t seed[32]);
void ed25519_sign(uint8_t signature[64], const uint8_t *message, size_t bytes, const uint8_t secret[ED25519_SECRET]);

#endif
