// SPDX-License-Identifier: GPL-2.0
#include <stdarg.h>
#include <stdlib.h>

#include <openssl/provider.h>

#include "provider.h"

static const OSSL_ITEM reasons[] = {
	{ REASON_URI, "not a key's URI: redoubt:[DEVICE/]NUMBER" },
	{ REASON_DEVICE, "the key service cannot be reached" },
	{ REASON_SERVICE, "the key service refuses" },
	{ REASON_TOO_LONG, "the message is too long for the key service" },
	{ REASON_NOT_SUPPORTED, "not with a key of the key service" },
	{ 0, NULL },
};

void provider_error(const struct provider *p, uint32_t reason, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	p->new_error(p->core);
	p->vset_error(p->core, reason, format, args);
	va_end(args);
}

static const OSSL_PARAM *gettable(void *ctx)
{
	static const OSSL_PARAM params[] = {
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_NAME, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_VERSION, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_BUILDINFO, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_STATUS, OSSL_PARAM_INTEGER, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)ctx;
	return params;
}

static int get_params(void *ctx, OSSL_PARAM params[])
{
	OSSL_PARAM *p;

	(void)ctx;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_NAME);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, "Redoubt key service"))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_VERSION);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, "1"))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_BUILDINFO);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, OPENSSL_VERSION_TEXT))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS);
	return !p || OSSL_PARAM_set_int(p, 1);
}

static const OSSL_ALGORITHM *query(void *ctx, int operation, int *no_cache)
{
	static const char properties[] = "provider=redoubt";
	static const OSSL_ALGORITHM keymgmt[] = {
		{ "ED25519:1.3.101.112", properties, redoubt_keymgmt, "Ed25519 in a protection domain" }, { 0 },
	};
	static const OSSL_ALGORITHM signature[] = {
		{ "ED25519:1.3.101.112", properties, redoubt_signature, "Ed25519 in a protection domain" }, { 0 },
	};
	static const OSSL_ALGORITHM store[] = {
		{ "redoubt", properties, redoubt_store, "redoubt:[DEVICE/]NUMBER" }, { 0 },
	};

	(void)ctx;
	*no_cache = 0;
	switch (operation) {
	case OSSL_OP_KEYMGMT:
		return keymgmt;
	case OSSL_OP_SIGNATURE:
		return signature;
	case OSSL_OP_STORE:
		return store;
	default:
		return NULL;
	}
}

static const OSSL_ITEM *reason_strings(void *ctx)
{
	(void)ctx;
	return reasons;
}

static void teardown(void *ctx)
{
	struct provider *p = ctx;

	OSSL_LIB_CTX_free(p->libctx);
	free(p);
}

__attribute__((visibility("default")))
int OSSL_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **ctx)
{
	static const OSSL_DISPATCH dispatch[] = {
		FN(PROVIDER_GETTABLE_PARAMS, gettable), FN(PROVIDER_GET_PARAMS, get_params),
		FN(PROVIDER_QUERY_OPERATION, query), FN(PROVIDER_GET_REASON_STRINGS, reason_strings),
		FN(PROVIDER_TEARDOWN, teardown), FN_END,
	};
	struct provider *p = calloc(1, sizeof(*p));

	if (!p)
		return 0;
	p->core = handle;
	for (const OSSL_DISPATCH *d = in; d->function_id; d++)
		if (d->function_id == OSSL_FUNC_CORE_NEW_ERROR)
			p->new_error = OSSL_FUNC_core_new_error(d);
		else if (d->function_id == OSSL_FUNC_CORE_VSET_ERROR)
			p->vset_error = OSSL_FUNC_core_vset_error(d);
	if (p->new_error && p->vset_error)
		p->libctx = OSSL_LIB_CTX_new_child(handle, in);
	if (!p->libctx) {
		free(p);
		return 0;
	}
	*out = dispatch;
	*ctx = p;
	return 1;
}
