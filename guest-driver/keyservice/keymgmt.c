// SPDX-License-Identifier: GPL-2.0
#include <stdlib.h>
#include <string.h>

#include "provider.h"

struct redoubt_key *redoubt_key_new(struct provider *p)
{
	struct redoubt_key *key = calloc(1, sizeof(*key));

	if (key) {
		key->provider = p;
		key->references = 1;
		key->device = -1;
	}
	return key;
}

struct redoubt_key *redoubt_key_open(struct provider *p, const char *device, uint32_t nr)
{
	struct redoubt_key *key = redoubt_key_new(p);
	long got;

	if (!key)
		return NULL;
	key->nr = nr;
	key->device = rdt_domain_open(device);
	if (key->device < 0) {
		provider_error(p, REASON_DEVICE, "%s", rdt_error());
		redoubt_key_free(key);
		return NULL;
	}
	got = rdt_key_call(key->device, RDT_KEY_PUBLIC_KEY, nr, 0, NULL, 0, key->public_key, RDT_KEY_PUBLIC);
	if (got != RDT_KEY_PUBLIC) {
		provider_error(p, REASON_SERVICE, "key %u: %s", nr, got == -ENOENT ? "there is none" : rdt_strerror(got));
		redoubt_key_free(key);
		return NULL;
	}
	key->has_public = 1;
	return key;
}

int redoubt_key_up_ref(struct redoubt_key *key)
{
	__atomic_fetch_add(&key->references, 1, __ATOMIC_RELAXED);
	return 1;
}

void redoubt_key_free(struct redoubt_key *key)
{
	if (!key || __atomic_sub_fetch(&key->references, 1, __ATOMIC_ACQ_REL))
		return;
	if (key->device >= 0)
		rdt_domain_close(key->device);
	free(key);
}

/* ---- what OpenSSL asks of a key ---------------------------------------------------------- */

static void *new_key(void *provider)
{
	return redoubt_key_new(provider);
}

static void free_key(void *key)
{
	redoubt_key_free(key);
}

/* The store's reference is a pointer to the key, whose reference count goes along. */
static void *load(const void *reference, size_t size)
{
	struct redoubt_key *key;

	if (size != sizeof(key))
		return NULL;
	memcpy(&key, reference, sizeof(key));
	redoubt_key_up_ref(key);
	return key;
}

static int has(const void *data, int selection)
{
	const struct redoubt_key *key = data;

	if (!key || ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) && !key->has_public))
		return 0;
	return !(selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) || key->device >= 0;
}

/* A private key is what its public key says: nobody compares the rest. */
static int match(const void *one, const void *other, int selection)
{
	const struct redoubt_key *a = one, *b = other;

	if (!(selection & OSSL_KEYMGMT_SELECT_KEYPAIR))
		return 1;
	return a->has_public && b->has_public && !memcmp(a->public_key, b->public_key, RDT_KEY_PUBLIC);
}

static int get_params(void *data, OSSL_PARAM params[])
{
	const struct redoubt_key *key = data;
	OSSL_PARAM *p;

	if ((p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_BITS)) && !OSSL_PARAM_set_int(p, 256))
		return 0;
	if ((p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_SECURITY_BITS)) && !OSSL_PARAM_set_int(p, 128))
		return 0;
	if ((p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_MAX_SIZE)) && !OSSL_PARAM_set_int(p, RDT_KEY_SIGNATURE))
		return 0;
	/* Ed25519 does its own hashing: there must be no digest. */
	if ((p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_MANDATORY_DIGEST)) && !OSSL_PARAM_set_utf8_string(p, ""))
		return 0;
	if (!key->has_public)
		return 1;
	if ((p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_PUB_KEY)) &&
	    !OSSL_PARAM_set_octet_string(p, key->public_key, RDT_KEY_PUBLIC))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY);
	return !p || OSSL_PARAM_set_octet_string(p, key->public_key, RDT_KEY_PUBLIC);
}

static const OSSL_PARAM *gettable_params(void *provider)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL), OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0), OSSL_PARAM_END,
	};

	(void)provider;
	return params;
}

/* ---- public keys come and go ---------------------------------------------------------------- */

static const OSSL_PARAM *types(int selection)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0), OSSL_PARAM_END,
	};

	return selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY ? params : NULL;
}

/*
 * Who asks for the private key too gets nothing, not the half of it: then OpenSSL comes to
 * this provider for the operation itself.
 */
static int export_key(void *data, int selection, OSSL_CALLBACK *callback, void *argument)
{
	struct redoubt_key *key = data;
	OSSL_PARAM params[] = {
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, key->public_key, RDT_KEY_PUBLIC), OSSL_PARAM_END,
	};

	if (!key->has_public || ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) && key->device >= 0))
		return 0;
	return callback(params, argument);
}

static int import_key(void *data, int selection, const OSSL_PARAM params[])
{
	struct redoubt_key *key = data;
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_PUB_KEY);
	void *at = key->public_key;
	size_t bytes;

	if (!(selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) || key->device >= 0 || !p ||
	    OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_PRIV_KEY) ||
	    !OSSL_PARAM_get_octet_string(p, &at, RDT_KEY_PUBLIC, &bytes) || bytes != RDT_KEY_PUBLIC)
		return 0;
	key->has_public = 1;
	return 1;
}

static void *dup_key(const void *data, int selection)
{
	const struct redoubt_key *from = data;
	struct redoubt_key *key;

	if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) && from->device >= 0) {
		/* Nothing of it ever changes. */
		redoubt_key_up_ref((struct redoubt_key *)from);
		return (void *)from;
	}
	key = redoubt_key_new(from->provider);
	if (key && from->has_public && (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY)) {
		memcpy(key->public_key, from->public_key, RDT_KEY_PUBLIC);
		key->has_public = 1;
	}
	return key;
}

static const char *operation_name(int operation)
{
	return operation == OSSL_OP_SIGNATURE ? "ED25519" : NULL;
}

const OSSL_DISPATCH redoubt_keymgmt[] = {
	FN(KEYMGMT_NEW, new_key), FN(KEYMGMT_FREE, free_key), FN(KEYMGMT_LOAD, load), FN(KEYMGMT_HAS, has),
	FN(KEYMGMT_MATCH, match), FN(KEYMGMT_GET_PARAMS, get_params), FN(KEYMGMT_GETTABLE_PARAMS, gettable_params),
	FN(KEYMGMT_EXPORT, export_key), FN(KEYMGMT_EXPORT_TYPES, types), FN(KEYMGMT_IMPORT, import_key),
	FN(KEYMGMT_IMPORT_TYPES, types), FN(KEYMGMT_DUP, dup_key),
	FN(KEYMGMT_QUERY_OPERATION_NAME, operation_name), FN_END,
};
