/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The key service: Ed25519 keys (RFC 8032) that live in a protection domain, behind
 * /dev/redoubt/key. This is what its callers and it agree on.
 *
 * Input begins with struct rdt_key_request. Results as of rdt_domain_call(): the answer's length
 * or a negative errno; -EAGAIN: busy, try again.
 */
#ifndef REDOUBT_KEYSERVICE_H
#define REDOUBT_KEYSERVICE_H

#include <stdint.h>

#define RDT_KEY_DEVICE		"key"
#define RDT_KEYS		16	/* numbers 0..15 */
#define RDT_KEY_SEED		32
#define RDT_KEY_PUBLIC		32
#define RDT_KEY_SIGNATURE	64
#define RDT_KEY_MESSAGE		16384	/* longest message to be signed */

/**
 * struct rdt_key_request - @key: which; @argument: per operation, else 0.
 */
struct rdt_key_request {
	uint32_t key;
	uint32_t argument;
};

/*
 * Changing operations, GENERATE, IMPORT, INSTALL and ERASE: -EPERM for a key that is locked.
 * GENERATE, IMPORT and INSTALL: -EEXIST there is such a key. Their answer is the public key.
 */
#define RDT_KEY_GENERATE	1	/* a new key, random bytes from the CPU. -EIO: it has none */
#define RDT_KEY_IMPORT		2	/* behind the request: the seed (RFC 8032's private key) */
#define RDT_KEY_INSTALL		3	/* the seed that the host's operator has put at placeholder
					 * "seed"; that is wiped. -ENOENT: nothing there (yet) */
#define RDT_KEY_PUBLIC_KEY	4	/* -> public key. -ENOENT: no such key */
#define RDT_KEY_SIGN		5	/* behind the request: the message -> signature. -EPERM: it begins
					 * as an attestation does */
#define RDT_KEY_ERASE		6	/* the key is overwritten. -ENOENT */
#define RDT_KEY_LOCK		7	/* for good: it can be used, not erased. @argument 1: all keys, and no new ones */
#define RDT_KEY_LIST		8	/* -> a struct rdt_key_state for each number */
#define RDT_KEY_ATTEST		9	/* @argument: 1 on an Intel host, 0 AMD; behind the request: 32 bytes,
					 * the asker's. -> struct rdt_key_attestation */

#define RDT_KEY_IS_THERE	1u
#define RDT_KEY_IS_LOCKED	2u
#define RDT_KEY_IS_IMPORTED	4u	/* somebody outside has known it */
#define RDT_KEY_IS_INSTALLED	8u	/* the host's operator knows it */

struct rdt_key_state {
	uint32_t flags;
};

/**
 * struct rdt_key_attestation - who the key belongs to, signed with it.
 * @measurement: of the domain as the host reads it, asked from inside.
 * @signature: of RDT_KEY_ATTEST_TAG, @measurement, @flags and the asker's 32 bytes.
 * It shows that the key is in a domain of that measurement only to who knows the public key from
 * a place he trusts, such as the operator's RDT_VM_DOMAIN and an answer that came with it.
 */
#define RDT_KEY_ATTEST_TAG	"redoubt-key-attestation-1"	/* with its zero: 26 bytes */
struct rdt_key_attestation {
	uint8_t measurement[32];
	uint8_t public_key[RDT_KEY_PUBLIC];
	uint32_t flags;
	uint32_t reserved;
	uint8_t signature[RDT_KEY_SIGNATURE];
};

#endif
