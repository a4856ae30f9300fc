// SPDX-License-Identifier: GPL-2.0
/*
 * redoubt_aes: AES-256 in XTS mode with keys that this kernel never has. They are operands of
 * instructions in a secret (aes_secret.S), put there by the host's operator:
 *
 *   guest# modprobe redoubt_aes
 *   host#  redoubtctl secret install VM --manifest rdt_aes.json aes_key1=FILE aes_key2=FILE
 *   guest# dmsetup create NAME --table '0 SECTORS crypt capi:xts(redoubt-aes)-plain64 HANDLE 0 DEV 0'
 *
 * HANDLE stands where a key would be, and is none: the first eight bytes of a block of zeros
 * encrypted with either key, key 1's first, or 16 bytes of zeros: any key will do. A volume is not
 * opened with somebody else's keys then. Documentation/secrets.md has it all.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/module.h>
#include <asm/cpufeature.h>
#include <asm/fpu/api.h>
#include <crypto/internal/simd.h>
#include <crypto/internal/skcipher.h>
#include "redoubt_aes.h"
#include "redoubt_driver.h"
#include "redoubt_secret.h"

#define BLOCK		16
#define CHECK		8	/* bytes of a key's check value */
#define HANDLE		(2 * CHECK)

RDT_SECRET_DECLARE(rdt_aes);

/* As many slots as there may be: they are measured, so they cannot be this VM's number of CPUs. */
static RDT_SECRET_MODULE(rdt_aes, .flags = RDT_DOM_VECTOR, .slots = RDT_DOM_MAX_SLOTS,
			 .results = RDT_REG_RAX);

static unsigned int ymm;	/* RDT_AES_YMM, if there are such registers */

/*
 * @batches times 128 bytes, or 256. In kernel_fpu_begin(), as the inside has its own vector registers,
 * but this thread must not be preempted while it holds a slot: there may be more CPUs than slots.
 */
static int cipher(void *dst, const void *src, unsigned long batches, unsigned long flags)
{
	unsigned int tries = 0;
	long ret;

	do {
		ret = rdt_aes_call((unsigned long)dst, (unsigned long)src, batches, flags);
		if (ret != -EAGAIN)
			break;
		udelay(1);
	} while (++tries < 1000);
	return ret < -MAX_ERRNO ? -EIO : ret;
}

static int one_block(u8 *block, unsigned long flags)
{
	u8 buf[RDT_AES_BATCH_XMM] = {};
	int err;

	memcpy(buf, block, BLOCK);
	kernel_fpu_begin();
	err = cipher(buf, buf, 1, flags);
	kernel_fpu_end();
	memcpy(block, buf, BLOCK);
	return err;
}

/* ---- XTS ---------------------------------------------------------------------- */

struct tweak {
	__le64 lo, hi;
};

static void next(struct tweak *t)
{
	u64 lo = le64_to_cpu(t->lo), hi = le64_to_cpu(t->hi);

	t->lo = cpu_to_le64(lo << 1 ^ (hi >> 63 ? 0x87 : 0));
	t->hi = cpu_to_le64(hi << 1 | lo >> 63);
}

/* @dst = @src with the tweaks from @t on; the one behind the last is returned. */
static struct tweak mask(u8 *dst, const u8 *src, unsigned int len, struct tweak t)
{
	for (; len; len -= BLOCK, dst += BLOCK, src += BLOCK) {
		crypto_xor_cpy(dst, src, (const u8 *)&t, BLOCK);
		next(&t);
	}
	return t;
}

/* Whole blocks, at most a page. */
static int xts(u8 *dst, const u8 *src, unsigned int len, struct tweak *t, unsigned long flags)
{
	const unsigned int batch = ymm ? RDT_AES_BATCH_YMM : RDT_AES_BATCH_XMM;
	unsigned int whole = len / batch * batch, rest = len - whole;
	struct tweak start = *t, behind;
	u8 buf[RDT_AES_BATCH_YMM] = {};
	int err = 0;

	behind = mask(dst, src, whole, start);
	*t = mask(buf, src + whole, rest, behind);
	kernel_fpu_begin();
	if (whole)
		err = cipher(dst, dst, whole / batch, flags | ymm);
	if (rest && !err)
		err = cipher(buf, buf, 1, flags | ymm);
	kernel_fpu_end();
	if (!err) {
		mask(dst, dst, whole, start);
		mask(dst + whole, buf, rest, behind);
	}
	return err;
}

static int crypt(struct skcipher_request *req, unsigned long flags)
{
	struct skcipher_walk walk;
	struct tweak t;
	int err;

	/* Ciphertext stealing is for those that have sectors of odd sizes. */
	if (req->cryptlen % BLOCK)
		return -EINVAL;
	memcpy(&t, req->iv, BLOCK);
	err = one_block((u8 *)&t, RDT_AES_KEY2);
	if (err)
		return err;
	err = skcipher_walk_virt(&walk, req, false);
	while (!err && walk.nbytes) {
		unsigned int len = round_down(walk.nbytes, BLOCK);

		err = xts(walk.dst.virt.addr, walk.src.virt.addr, len, &t, flags);
		err = skcipher_walk_done(&walk, err ?: walk.nbytes - len);
	}
	return err;
}

static int encrypt(struct skcipher_request *req)
{
	return crypt(req, 0);
}

static int decrypt(struct skcipher_request *req)
{
	return crypt(req, RDT_AES_DECRYPT);
}

/* -ENOKEY: none is installed; -EKEYREJECTED: not those that the handle is of. */
static int set_handle(struct crypto_skcipher *tfm, const u8 *handle, unsigned int len)
{
	u8 zero[HANDLE] = {}, block[2][BLOCK] = {};
	int err;

	if (len != HANDLE)
		return -EINVAL;
	err = one_block(block[0], 0);
	err = err ?: one_block(block[1], RDT_AES_KEY2);
	if (err || !memcmp(handle, zero, HANDLE))
		return err;
	return memcmp(handle, block[0], CHECK) || memcmp(handle + CHECK, block[1], CHECK) ?
		-EKEYREJECTED : 0;
}

static struct skcipher_alg algs[] = { {
	.base = {
		.cra_name = "__xts(redoubt-aes)",
		.cra_driver_name = "__xts-redoubt-aes",
		.cra_priority = 400,
		.cra_flags = CRYPTO_ALG_INTERNAL,
		.cra_blocksize = BLOCK,
		.cra_module = THIS_MODULE,
	},
	.min_keysize = HANDLE,
	.max_keysize = HANDLE,
	.ivsize = BLOCK,
	.setkey = set_handle,
	.encrypt = encrypt,
	.decrypt = decrypt,
} };

/* For those that ask where vector registers are out of reach. */
static struct simd_skcipher_alg *simd[ARRAY_SIZE(algs)];

static int __init aes_init(void)
{
	int err;

	if (!boot_cpu_has(X86_FEATURE_AES) || !boot_cpu_has(X86_FEATURE_XMM4_1)) {
		pr_err("this CPU has no AES instructions\n");
		return -ENODEV;
	}
	if (boot_cpu_has(X86_FEATURE_AVX) &&
	    cpu_has_xfeatures(XFEATURE_MASK_SSE | XFEATURE_MASK_YMM, NULL))
		ymm = RDT_AES_YMM;
	err = redoubt_secret_register(&rdt_aes_secret);
	if (err)
		return err;
	err = simd_register_skciphers_compat(algs, ARRAY_SIZE(algs), simd);
	if (err)
		redoubt_secret_unregister(&rdt_aes_secret);
	return err;
}

static void __exit aes_exit(void)
{
	simd_unregister_skciphers(algs, ARRAY_SIZE(algs), simd);
	redoubt_secret_unregister(&rdt_aes_secret);
}

module_init(aes_init);
module_exit(aes_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("AES-XTS with keys in code that this kernel cannot read");
MODULE_ALIAS_CRYPTO("xts(redoubt-aes)");
