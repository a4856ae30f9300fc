// SPDX-License-Identifier: GPL-2.0
#include <stdlib.h>
#include <string.h>

#include <openssl/core_object.h>

#include "provider.h"

struct store {
	struct redoubt_key *key;
	int done;
};

/* redoubt:[DEVICE/]NUMBER */
static void *open_store(void *provider, const char *uri)
{
	struct provider *p = provider;
	char device[RDT_PUBLISH_NAME] = RDT_KEY_DEVICE, *end;
	const char *number, *slash;
	struct store *s;
	unsigned long nr;

	number = strncmp(uri, "redoubt:", 8) ? "" : uri + 8;
	slash = strchr(number, '/');
	if (slash && slash > number && (size_t)(slash - number) < sizeof(device)) {
		memcpy(device, number, (size_t)(slash - number));
		device[slash - number] = 0;
		number = slash + 1;
	}
	nr = strtoul(number, &end, 10);
	if (*number < '0' || *number > '9' || *end || nr >= RDT_KEYS) {
		provider_error(p, REASON_URI, "%s", uri);
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (s)
		s->key = redoubt_key_open(p, device, (uint32_t)nr);
	if (!s || !s->key) {
		free(s);
		return NULL;
	}
	return s;
}

static int load(void *store, OSSL_CALLBACK *object, void *argument, OSSL_PASSPHRASE_CALLBACK *pass, void *pass_argument)
{
	struct store *s = store;
	int type = OSSL_OBJECT_PKEY;
	OSSL_PARAM params[] = {
		OSSL_PARAM_int(OSSL_OBJECT_PARAM_TYPE, &type),
		OSSL_PARAM_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE, "ED25519", 7),
		OSSL_PARAM_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &s->key, sizeof(s->key)),
		OSSL_PARAM_END,
	};

	(void)pass;
	(void)pass_argument;
	if (s->done)
		return 0;
	s->done = 1;
	return object(params, argument);
}

static int eof(void *store)
{
	return ((struct store *)store)->done;
}

static int close_store(void *store)
{
	struct store *s = store;

	redoubt_key_free(s->key);
	free(s);
	return 1;
}

/* What is expected, and by which properties: there is only one thing here. */
static const OSSL_PARAM *settable(void *provider)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_int(OSSL_STORE_PARAM_EXPECT, NULL),
		OSSL_PARAM_utf8_string(OSSL_STORE_PARAM_PROPERTIES, NULL, 0), OSSL_PARAM_END,
	};

	(void)provider;
	return params;
}

static int set_params(void *store, const OSSL_PARAM params[])
{
	(void)store;
	(void)params;
	return 1;
}

const OSSL_DISPATCH redoubt_store[] = {
	FN(STORE_OPEN, open_store), FN(STORE_LOAD, load), FN(STORE_EOF, eof), FN(STORE_CLOSE, close_store),
	FN(STORE_SETTABLE_CTX_PARAMS, settable), FN(STORE_SET_CTX_PARAMS, set_params), FN_END,
};
