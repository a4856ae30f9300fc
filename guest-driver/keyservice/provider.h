/* SPDX-License-Identifier: GPL-2.0 */
/*
 * OpenSSL 3 provider "redoubt": Ed25519 keys of the key service. A key's URI is
 * redoubt:[DEVICE/]NUMBER. Private keys are used, never seen; public ones are exported.
 */
#ifndef REDOUBT_PROVIDER_H
#define REDOUBT_PROVIDER_H

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>

#include "client.h"

struct provider {
	const OSSL_CORE_HANDLE *core;
	OSSL_FUNC_core_new_error_fn *new_error;
	OSSL_FUNC_core_vset_error_fn *vset_error;
	OSSL_LIB_CTX *libctx;	/* a child of the application's: for verifying */
};

/* A key in the service, or (device -1) somebody's public key. */
struct redoubt_key {
	struct provider *provider;
	int references;
	int device;
	uint32_t nr;
	int has_public;
	uint8_t public_key[RDT_KEY_PUBLIC];
};

#define REASON_URI		1
#define REASON_DEVICE		2
#define REASON_SERVICE		3
#define REASON_TOO_LONG		4
#define REASON_NOT_SUPPORTED	5

/* Puts an error on OpenSSL's stack. */
void provider_error(const struct provider *p, uint32_t reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

struct redoubt_key *redoubt_key_new(struct provider *p);
struct redoubt_key *redoubt_key_open(struct provider *p, const char *device, uint32_t nr);
int redoubt_key_up_ref(struct redoubt_key *key);
void redoubt_key_free(struct redoubt_key *key);

extern const OSSL_DISPATCH redoubt_keymgmt[], redoubt_signature[], redoubt_store[];

#define FN(function, name) { OSSL_FUNC_##function, (void (*)(void))(name) }
#define FN_END { 0, NULL }

#endif
