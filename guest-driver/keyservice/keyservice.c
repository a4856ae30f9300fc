// SPDX-License-Identifier: GPL-2.0
/*
 * The key service's inside. Ed25519 is libsodium's, built for here from Debian's source
 * package; what is here is who may do what with which key.
 *
 * Whoever signs takes no lock: a caller can be killed at any time, also while it is in
 * here, and must not stop the others. A key's sequence number is odd while the key changes.
 */
#include <redoubt/domain.h>

#include "ed25519.h"
#include "keyservice.h"

#define MESSAGE (sizeof(struct rdt_key_request) + RDT_KEY_MESSAGE)

RDT_DOMAIN(8, 4, MESSAGE, 0);
RDT_PLACEHOLDER(seed, RDT_KEY_SEED);

struct key {
	uint32_t sequence;
	uint32_t flags;
	uint8_t secret[ED25519_SECRET];		/* seed, public key */
};

static struct key keys[RDT_KEYS];
static uint32_t closed;				/* no new keys */
static struct rdt_lock changing;

/* ---- reading -------------------------------------------------------------------------- */

/* A copy of a key as it was at one moment. */
static int get(uint32_t nr, struct key *copy)
{
	const struct key *k = &keys[nr];

	for (int tries = 1000; tries; tries--) {
		uint32_t sequence = __atomic_load_n(&k->sequence, __ATOMIC_ACQUIRE);

		if (sequence & 1) {
			__builtin_ia32_pause();
			continue;
		}
		memcpy(copy, k, sizeof(*copy));
		__asm__ volatile("" : : : "memory");
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (__atomic_load_n(&k->sequence, __ATOMIC_RELAXED) == sequence)
			return copy->flags & RDT_KEY_IS_THERE ? 0 : -RDT_ENOENT;
	}
	return -RDT_EAGAIN;
}

/* ---- changing --------------------------------------------------------------------------- */

static void change(struct key *k, uint32_t flags, const uint8_t *secret)
{
	__atomic_store_n(&k->sequence, k->sequence | 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	k->flags = flags;
	if (secret)
		memcpy(k->secret, secret, sizeof(k->secret));
	else
		rdt_wipe(k->secret, sizeof(k->secret));
	__atomic_store_n(&k->sequence, k->sequence + 1, __ATOMIC_RELEASE);
}

/* Somebody was killed while changing a key: half of one is none. Locks stand. */
static int begin_change(void)
{
	int dead = rdt_lock(&changing);

	for (int i = 0; dead == 1 && i < RDT_KEYS; i++)
		if (keys[i].sequence & 1)
			change(&keys[i], 0, NULL);
	return dead < 0 ? dead : 0;
}

static int may_add(const struct key *k)
{
	if (closed)
		return -RDT_EPERM;
	return k->flags & RDT_KEY_IS_THERE ? -RDT_EEXIST : 0;
}

static long add(uint32_t nr, uint32_t flags, const uint8_t seed[RDT_KEY_SEED], uint8_t *public_key)
{
	uint8_t secret[ED25519_SECRET];
	int err;

	/* Before the lock: it takes long. */
	ed25519_from_seed(public_key, secret, seed);
	err = begin_change();
	if (!err) {
		err = may_add(&keys[nr]);
		if (!err)
			change(&keys[nr], RDT_KEY_IS_THERE | flags, secret);
		rdt_unlock(&changing);
	}
	rdt_wipe(secret, sizeof(secret));
	if (err)
		rdt_wipe(public_key, RDT_KEY_PUBLIC);
	return err ? err : RDT_KEY_PUBLIC;
}

static long generate(uint32_t nr, uint8_t *public_key)
{
	uint8_t seed[RDT_KEY_SEED];
	long ret = rdt_random(seed, sizeof(seed));

	if (!ret)
		ret = add(nr, 0, seed, public_key);
	rdt_wipe(seed, sizeof(seed));
	return ret;
}

static long install(uint32_t nr, uint8_t *public_key)
{
	uint8_t seed[RDT_KEY_SEED];
	unsigned int any = 0;
	long ret = -RDT_ENOENT;

	for (int i = 0; i < RDT_KEY_SEED; i++)
		any |= seed[i] = rdt_placeholder_seed[i];
	if (any)
		ret = add(nr, RDT_KEY_IS_INSTALLED, seed, public_key);
	if (ret >= 0)
		for (int i = 0; i < RDT_KEY_SEED; i++)
			rdt_placeholder_seed[i] = 0;
	rdt_wipe(seed, sizeof(seed));
	return ret;
}

static long erase(uint32_t nr)
{
	struct key *k = &keys[nr];
	int err = begin_change();

	if (err)
		return err;
	if (!(k->flags & RDT_KEY_IS_THERE))
		err = -RDT_ENOENT;
	else if (k->flags & RDT_KEY_IS_LOCKED)
		err = -RDT_EPERM;
	else
		change(k, 0, NULL);
	rdt_unlock(&changing);
	return err;
}

static long lock(uint32_t nr, uint32_t all)
{
	int err = begin_change();

	if (err)
		return err;
	if (!all && !(keys[nr].flags & RDT_KEY_IS_THERE))
		err = -RDT_ENOENT;
	for (uint32_t i = 0; !err && i < RDT_KEYS; i++)
		if ((all || i == nr) && keys[i].flags & RDT_KEY_IS_THERE)
			keys[i].flags |= RDT_KEY_IS_LOCKED;
	if (all && !err)
		closed = 1;
	rdt_unlock(&changing);
	return err;
}

/* ---- using ------------------------------------------------------------------------------ */

static long sign(uint32_t nr, const uint8_t *message, size_t bytes, uint8_t *signature)
{
	struct key k;
	long ret;

	/* Or anybody could have the key say that it is in any domain. */
	if (bytes >= sizeof(RDT_KEY_ATTEST_TAG) && !memcmp(message, RDT_KEY_ATTEST_TAG, sizeof(RDT_KEY_ATTEST_TAG)))
		return -RDT_EPERM;
	ret = get(nr, &k);
	if (!ret) {
		ed25519_sign(signature, message, bytes, k.secret);
		ret = RDT_KEY_SIGNATURE;
	}
	rdt_wipe(&k, sizeof(k));
	return ret;
}

static long attest(uint32_t nr, int intel, const uint8_t *theirs, struct rdt_key_attestation *a)
{
	struct {
		char tag[sizeof(RDT_KEY_ATTEST_TAG)];
		uint8_t measurement[32];
		uint32_t flags;
		uint8_t theirs[32];
	} __attribute__((packed)) say = { .tag = RDT_KEY_ATTEST_TAG };
	struct key k;
	long ret = get(nr, &k);

	if (!ret)
		ret = rdt_measure(say.measurement, intel);
	if (!ret) {
		memcpy(a->measurement, say.measurement, sizeof(a->measurement));
		memcpy(a->public_key, k.secret + RDT_KEY_SEED, RDT_KEY_PUBLIC);
		a->flags = say.flags = k.flags;
		memcpy(say.theirs, theirs, sizeof(say.theirs));
		ed25519_sign(a->signature, (const uint8_t *)&say, sizeof(say), k.secret);
		ret = sizeof(*a);
	}
	rdt_wipe(&k, sizeof(k));
	return ret;
}

static long public_key(uint32_t nr, uint8_t *out)
{
	struct key k;
	long ret = get(nr, &k);

	if (!ret) {
		memcpy(out, k.secret + RDT_KEY_SEED, RDT_KEY_PUBLIC);
		ret = RDT_KEY_PUBLIC;
	}
	rdt_wipe(&k, sizeof(k));
	return ret;
}

static long list(struct rdt_key_state *states)
{
	for (int i = 0; i < RDT_KEYS; i++)
		states[i].flags = __atomic_load_n(&keys[i].flags, __ATOMIC_RELAXED);
	return RDT_KEYS * sizeof(*states);
}

/* What an operation takes behind the request, and what room it needs. */
static const struct {
	size_t least, most, room;
} shape[] = {
	[RDT_KEY_GENERATE] = { 0, 0, RDT_KEY_PUBLIC },
	[RDT_KEY_IMPORT] = { RDT_KEY_SEED, RDT_KEY_SEED, RDT_KEY_PUBLIC },
	[RDT_KEY_INSTALL] = { 0, 0, RDT_KEY_PUBLIC },
	[RDT_KEY_PUBLIC_KEY] = { 0, 0, RDT_KEY_PUBLIC },
	[RDT_KEY_SIGN] = { 0, RDT_KEY_MESSAGE, RDT_KEY_SIGNATURE },
	[RDT_KEY_ERASE] = { 0, 0, 0 },
	[RDT_KEY_LOCK] = { 0, 0, 0 },
	[RDT_KEY_LIST] = { 0, 0, RDT_KEYS * sizeof(struct rdt_key_state) },
	[RDT_KEY_ATTEST] = { 32, 32, sizeof(struct rdt_key_attestation) },
};

long rdt_main(uint64_t op, const void *in, size_t in_len, void *out, size_t room)
{
	const struct rdt_key_request *r = in;
	const uint8_t *rest = (const uint8_t *)in + sizeof(*r);
	size_t bytes = in_len - sizeof(*r);

	if (op < RDT_KEY_GENERATE || op > RDT_KEY_ATTEST)
		return -RDT_ENOSYS;
	if (in_len < sizeof(*r) || bytes < shape[op].least || bytes > shape[op].most || room < shape[op].room ||
	    r->key >= RDT_KEYS || r->argument > (op == RDT_KEY_LOCK || op == RDT_KEY_ATTEST))
		return -RDT_EINVAL;

	switch (op) {
	case RDT_KEY_GENERATE:
		return generate(r->key, out);
	case RDT_KEY_IMPORT:
		return add(r->key, RDT_KEY_IS_IMPORTED, rest, out);
	case RDT_KEY_INSTALL:
		return install(r->key, out);
	case RDT_KEY_PUBLIC_KEY:
		return public_key(r->key, out);
	case RDT_KEY_SIGN:
		return sign(r->key, rest, bytes, out);
	case RDT_KEY_ERASE:
		return erase(r->key);
	case RDT_KEY_LOCK:
		return lock(r->key, r->argument);
	case RDT_KEY_LIST:
		return list(out);
	default:
		return attest(r->key, (int)r->argument, rest, out);
	}
}
