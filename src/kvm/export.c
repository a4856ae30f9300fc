// SPDX-License-Identifier: GPL-2.0
/* Domains on their way to another VM: the cipher, and the operator's calls. */
#include "redoubt.h"

#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <crypto/aead.h>

#define KEY_BYTES	32

/* ---- the cipher ---------------------------------------------------------------------- */

/* A blob is in vmalloc()'s memory: an entry for each page. */
static int map_blob(struct sg_table *table, void *blob, u64 bytes)
{
	struct scatterlist *sg;
	unsigned int i;
	int r;

	r = sg_alloc_table(table, DIV_ROUND_UP(bytes, PAGE_SIZE), GFP_KERNEL);
	if (r)
		return r;
	for_each_sgtable_sg(table, sg, i) {
		unsigned int len = min_t(u64, bytes, PAGE_SIZE);

		sg_set_page(sg, vmalloc_to_page(blob), len, 0);
		blob += len;
		bytes -= len;
	}
	return 0;
}

static int crypt(bool seal, const rdt_u8 *key, const rdt_u8 *nonce, void *blob, u64 aad, u64 len)
{
	DECLARE_CRYPTO_WAIT(wait);
	u8 iv[12];
	struct aead_request *req = NULL;
	struct crypto_aead *tfm;
	struct sg_table table;
	int r;

	tfm = crypto_alloc_aead("gcm(aes)", 0, 0);
	if (IS_ERR(tfm))
		return PTR_ERR(tfm) == -ENOENT ? -ENOPKG : PTR_ERR(tfm);
	r = map_blob(&table, blob, aad + len + RDT_DOM_BLOB_TAG);
	if (r)
		goto free_tfm;
	r = crypto_aead_setkey(tfm, key, KEY_BYTES);
	if (!r)
		r = crypto_aead_setauthsize(tfm, RDT_DOM_BLOB_TAG);
	if (r)
		goto free_table;
	r = -ENOMEM;
	req = aead_request_alloc(tfm, GFP_KERNEL);
	if (!req)
		goto free_table;
	memcpy(iv, nonce, sizeof(iv));
	aead_request_set_callback(req, CRYPTO_TFM_REQ_MAY_SLEEP | CRYPTO_TFM_REQ_MAY_BACKLOG,
				  crypto_req_done, &wait);
	aead_request_set_ad(req, aad);
	aead_request_set_crypt(req, table.sgl, table.sgl, seal ? len : len + RDT_DOM_BLOB_TAG, iv);
	r = crypto_wait_req(seal ? crypto_aead_encrypt(req) : crypto_aead_decrypt(req), &wait);
	aead_request_free(req);
free_table:
	sg_free_table(&table);
free_tfm:
	crypto_free_aead(tfm);
	return r;
}

int rdt_port_seal(const rdt_u8 key[32], const rdt_u8 nonce[12], void *blob, rdt_u64 aad, rdt_u64 len)
{
	return crypt(true, key, nonce, blob, aad, len);
}

int rdt_port_unseal(const rdt_u8 key[32], const rdt_u8 nonce[12], void *blob, rdt_u64 aad, rdt_u64 len)
{
	return crypt(false, key, nonce, blob, aad, len);
}

/* ---- the operator ---------------------------------------------------------------------- */

static long export(struct rdt_vm *vm, struct rdt_domain_export *x, const u8 *key, void *blob, u64 bytes)
{
	long ret = rdt_core_domain_export(vm->core, x->id, key, blob, bytes);

	if (ret)
		return ret;
	return copy_to_user(u64_to_user_ptr(x->blob), blob, bytes) ? -EFAULT : 0;
}

static long import(struct rdt_vm *vm, struct rdt_domain_export *x, const u8 *key, void *blob, u64 bytes)
{
	if (copy_from_user(blob, u64_to_user_ptr(x->blob), bytes))
		return -EFAULT;
	return rdt_core_domain_import(vm->core, x->id, key, blob, bytes);
}

long rdt_domain_move(struct rdt_vm *vm, unsigned int cmd, void __user *arg)
{
	struct rdt_domain_export x;
	u8 key[KEY_BYTES];
	void *blob;
	long ret;
	s64 need;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(&x, arg, sizeof(x)))
		return -EFAULT;
	if (x.reserved[0] || x.reserved[1])
		return rdt_refuse("RDT_VM_DOM_EXPORT or _IMPORT", "reserved is not zero");
	need = rdt_core_domain_blob_bytes(vm->core, x.id);
	if (need < 0)
		return need;
	if (need > RDT_DOM_BLOB_MAX)
		return -E2BIG;
	if (cmd == RDT_VM_DOM_EXPORT) {
		ret = x.bytes < need ? -ENOSPC : 0;
		x.bytes = need;
		if (copy_to_user(arg, &x, sizeof(x)))
			return -EFAULT;
		if (ret)
			return ret;
	} else if (x.bytes < sizeof(struct rdt_domain_blob) || x.bytes > need) {
		return rdt_refuse("RDT_VM_DOM_IMPORT", "no blob of this domain has that size");
	}

	ret = -EFAULT;
	if (copy_from_user(key, u64_to_user_ptr(x.key), sizeof(key)))
		goto out;
	ret = -ENOMEM;
	blob = __vmalloc(x.bytes, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!blob)
		goto out;
	if (cmd == RDT_VM_DOM_EXPORT)
		ret = export(vm, &x, key, blob, x.bytes);
	else
		ret = import(vm, &x, key, blob, x.bytes);
	vfree(blob);
out:
	memzero_explicit(key, sizeof(key));
	return ret;
}
