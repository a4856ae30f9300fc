// SPDX-License-Identifier: GPL-2.0
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "provider.h"

struct context {
	struct provider *provider;
	struct redoubt_key *key;
};

static void *new_context(void *provider, const char *properties)
{
	struct context *c = calloc(1, sizeof(*c));

	(void)properties;
	if (c)
		c->provider = provider;
	return c;
}

static void free_context(void *ctx)
{
	struct context *c = ctx;

	if (c)
		redoubt_key_free(c->key);
	free(c);
}

static void *dup_context(void *ctx)
{
	const struct context *from = ctx;
	struct context *c = new_context(from->provider, NULL);

	if (c && from->key) {
		redoubt_key_up_ref(from->key);
		c->key = from->key;
	}
	return c;
}

static int init(struct context *c, const char *digest, struct redoubt_key *key, int sign)
{
	if (digest && *digest) {
		provider_error(c->provider, REASON_NOT_SUPPORTED, "Ed25519 signs the message itself, not its %s", digest);
		return 0;
	}
	if (key) {
		redoubt_key_up_ref(key);
		redoubt_key_free(c->key);
		c->key = key;
	}
	return c->key && (sign ? c->key->device >= 0 : c->key->has_public);
}

static int sign_init(void *ctx, const char *digest, void *key, const OSSL_PARAM params[])
{
	(void)params;
	return init(ctx, digest, key, 1);
}

static int verify_init(void *ctx, const char *digest, void *key, const OSSL_PARAM params[])
{
	(void)params;
	return init(ctx, digest, key, 0);
}

static int sign(void *ctx, unsigned char *signature, size_t *bytes, size_t room, const unsigned char *message, size_t length)
{
	struct context *c = ctx;
	const struct redoubt_key *key = c->key;
	long got;

	if (!key || key->device < 0)
		return 0;
	*bytes = RDT_KEY_SIGNATURE;
	if (!signature)
		return 1;
	if (room < RDT_KEY_SIGNATURE)
		return 0;
	if (length > RDT_KEY_MESSAGE) {
		provider_error(c->provider, REASON_TOO_LONG, "%zu bytes, at most %d", length, RDT_KEY_MESSAGE);
		return 0;
	}
	got = rdt_key_call(key->device, RDT_KEY_SIGN, key->nr, 0, message, length, signature, RDT_KEY_SIGNATURE);
	if (got == RDT_KEY_SIGNATURE)
		return 1;
	provider_error(c->provider, REASON_SERVICE, "key %u: %s", key->nr, rdt_strerror(got < 0 ? got : -EBADMSG));
	return 0;
}

/* Needs no secret: OpenSSL's own does it. */
static int verify(void *ctx, const unsigned char *signature, size_t bytes, const unsigned char *message, size_t length)
{
	struct context *c = ctx;
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key_ex(c->provider->libctx, "ED25519", "provider=default",
						       c->key->public_key, RDT_KEY_PUBLIC);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	int fine = key && md &&
		   EVP_DigestVerifyInit_ex(md, NULL, NULL, c->provider->libctx, "provider=default", key, NULL) == 1 &&
		   EVP_DigestVerify(md, signature, bytes, message, length) == 1;

	EVP_MD_CTX_free(md);
	EVP_PKEY_free(key);
	return fine;
}

static int get_params(void *ctx, OSSL_PARAM params[])
{
	/* AlgorithmIdentifier of RFC 8410: SEQUENCE { OID 1.3.101.112 } */
	static const unsigned char id[] = { 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70 };
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_ALGORITHM_ID);

	(void)ctx;
	return !p || OSSL_PARAM_set_octet_string(p, id, sizeof(id));
}

static const OSSL_PARAM *gettable_params(void *ctx, void *provider)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, NULL, 0), OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provider;
	return params;
}

const OSSL_DISPATCH redoubt_signature[] = {
	FN(SIGNATURE_NEWCTX, new_context), FN(SIGNATURE_FREECTX, free_context), FN(SIGNATURE_DUPCTX, dup_context),
	FN(SIGNATURE_DIGEST_SIGN_INIT, sign_init), FN(SIGNATURE_DIGEST_SIGN, sign),
	FN(SIGNATURE_DIGEST_VERIFY_INIT, verify_init), FN(SIGNATURE_DIGEST_VERIFY, verify),
	FN(SIGNATURE_GET_CTX_PARAMS, get_params), FN(SIGNATURE_GETTABLE_CTX_PARAMS, gettable_params), FN_END,
};
