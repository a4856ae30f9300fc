// SPDX-License-Identifier: GPL-2.0
/*
 * C5: a domain's content leaves its VM encrypted, and only with leave. What a VMM or an operator
 * without the key makes of a blob, and what comes of one that was meddled with.
 */
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dom.h"
#include "driver.h"
#include "tap.h"

#define RAM	(64ul << 20)
#define BLOB	(sizeof(struct rdt_domain_blob) + \
		 DOM_PAGES * (sizeof(struct rdt_domain_blob_page) + PAGE_SIZE) + RDT_DOM_BLOB_TAG)
#define WORDS	24				/* written inside, all over the data */

static const uint8_t key[32] = "a key of the operator's, 32 byte";

struct side {
	struct vm *vm;
	struct vcpu *v;
	struct rdt *r;
};

static void set_quota(struct side *s, uint32_t flags)
{
	struct rdt_domain_quota quota = {
		.domains = 8, .flags = flags, .frames_each = 64, .frames = 256,
	};

	is(ioctl(s->r->fd, RDT_VM_DOM_QUOTA, &quota), 0, "C9 quota with flags %#x", flags);
}

static void side_open(struct side *s)
{
	s->vm = vm_create(RAM, 1, 0);
	s->v = &s->vm->vcpu[0];
	s->r = rdt_attach(s->vm->fd);
}

static void side_close(struct side *s)
{
	rdt_close(s->r);
	vm_destroy(s->vm);
}

/* ---- what is written inside, to be found again ------------------------------------------ */

static uint64_t word_at(int i)
{
	return DOM_GVA + DOM_DATA + 16 + (i * 499ul * 8) % (2 * PAGE_SIZE - 64);
}

/* No two bytes alike in a row, and not those of another. */
static uint64_t word(int i)
{
	return 0x9e3779b97f4a7c15ul * (i + 1) | 1;
}

/* ---- the calls ------------------------------------------------------------------------------ */

static int move(struct side *s, const struct dom *d, unsigned long cmd, const uint8_t *k, uint8_t *blob, uint64_t *bytes)
{
	struct rdt_domain_export x = {
		.id = d->id, .key = (uint64_t)k, .blob = (uint64_t)blob, .bytes = *bytes,
	};
	int ret = ioctl(s->r->fd, cmd, &x);

	*bytes = x.bytes;
	return ret;
}

static int export(struct side *s, const struct dom *d, uint8_t *blob)
{
	uint64_t bytes = BLOB;

	return move(s, d, RDT_VM_DOM_EXPORT, key, blob, &bytes);
}

static int import(struct side *s, const struct dom *d, const uint8_t *k, const uint8_t *blob, uint64_t bytes)
{
	return move(s, d, RDT_VM_DOM_IMPORT, k, (uint8_t *)blob, &bytes);
}

static bool event(struct side *s, unsigned int code)
{
	struct rdt_event ev;
	bool right = rdt_next(s->r, &ev) && ev.type == RDT_EV_DOMAIN && ev.code == code && ev.domain;

	if (!right)
		rdt_print(&ev);
	return right && !rdt_next(s->r, &ev);
}

/* ---- what is in a blob ------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
	return memcmp(a, b, 8);
}

/* Eight bytes of the content, from any place, at any place of the blob. */
static uint64_t pieces_in(const uint8_t *blob, const uint8_t *content, uint64_t bytes)
{
	const uint64_t n = bytes - 7;
	uint64_t *piece = malloc(n * 8), zero = 0, found = 0;

	for (uint64_t i = 0; i < n; i++)
		memcpy(&piece[i], content + i, 8);
	qsort(piece, n, 8, by_value);
	for (uint64_t i = 0; i + 8 <= BLOB; i++)
		found += memcmp(blob + i, &zero, 8) && bsearch(blob + i, piece, n, 8, by_value);
	free(piece);
	return found;
}

static void test_blob(const uint8_t *blob, const struct rdt_domain_info *info)
{
	const struct rdt_domain_blob *head = (const void *)blob;
	static uint8_t content[DOM_PAGES * PAGE_SIZE], again[BLOB];

	memcpy(content, dom_code, DOM_CODE_PAGES * PAGE_SIZE);
	content[&dom_intel - dom_code] = guest_is_intel;
	*(uint64_t *)(content + DOM_DATA) = 0x1234;
	for (int i = 0; i < WORDS; i++)
		*(uint64_t *)(content + (word_at(i) - DOM_GVA)) = word(i);
	ok(!memcmp(head->magic, RDT_DOM_BLOB_MAGIC, 8) && head->pages == DOM_PAGES, "C5 what it is, is said");
	ok(!memcmp(head->measurement, info->measurement, 32), "C5 and of which domain");
	is(pieces_in(blob, content, sizeof(content)), 0, "C5 eight bytes of the content are nowhere in it");
	/* That the search finds what is there: */
	memcpy(again, blob, BLOB);
	memcpy(again + 0x1003, content + (word_at(5) - DOM_GVA), 8);
	is(pieces_in(again, content, sizeof(content)), 1, "C5 (they would be found)");
}

/* ---- who may, and when ------------------------------------------------------------------------- */

static void test_leave(struct side *from, const struct dom *d, const struct dom *fixed, uint8_t *blob)
{
	struct rdt_domain_export x = { .id = d->id, .key = (uint64_t)key, .blob = (uint64_t)blob, .bytes = BLOB };
	static const uint8_t none[BLOB];
	uint64_t bytes = 0;
	pid_t child;
	int status;

	fails(export(from, d, blob), EACCES, "C5 without the operator's leave nothing is exported");
	set_quota(from, RDT_DOM_Q_EXPORT);
	fails(export(from, fixed, blob), EACCES, "C5 nor a domain that was not made for it");
	fails(import(from, fixed, key, blob, BLOB), EACCES, "C5 nor imported into one");
	fails(move(from, d, RDT_VM_DOM_EXPORT, key, blob, &bytes), ENOSPC, "C5 no room");
	is(bytes, BLOB, "C5 how much it takes");
	x.reserved[1] = 1;
	fails(ioctl(from->r->fd, RDT_VM_DOM_EXPORT, &x), EINVAL, "C5 reserved is not zero");
	x.reserved[1] = 0, x.key = 8;
	fails(ioctl(from->r->fd, RDT_VM_DOM_EXPORT, &x), EFAULT, "C5 no key there");
	x.key = (uint64_t)key, x.blob = 8;
	fails(ioctl(from->r->fd, RDT_VM_DOM_EXPORT, &x), EFAULT, "C5 no room there");
	fails(ioctl(from->r->fd, RDT_VM_DOM_IMPORT, &x), EFAULT, "C5 no blob there");
	x.blob = (uint64_t)blob, x.id += 0x100;
	fails(ioctl(from->r->fd, RDT_VM_DOM_EXPORT, &x), ENOENT, "C5 no such domain");
	fails(ioctl(from->r->fd, RDT_VM_DOM_IMPORT, &x), ENOENT, "C5 no such domain to import into");
	child = fork();
	if (!child) {
		if (setgid(65534) || setuid(65534))
			_exit(2);
		_exit(export(from, d, blob) != -1 || errno != EPERM || import(from, d, key, blob, BLOB) != -1 || errno != EPERM);
	}
	waitpid(child, &status, 0);
	is(status, 0, "C5 neither is for who has no CAP_SYS_ADMIN");
	ok(!memcmp(blob, none, BLOB), "C5 nothing was given by all that");
	rdt_drain(from->r);
}

static void test_busy(struct side *from, const struct dom *d, uint8_t *blob)
{
	dom_stay(d, from->v);
	fails(export(from, d, blob), EBUSY, "C5 no export while a thread is inside");
	is(dom_come(d, from->v), 42, "C5 which harms nobody");
	rdt_drain(from->r);
}

/* ---- on the other side ---------------------------------------------------------------------------- */

static void test_bad(struct side *to, const struct dom *d, const uint8_t *good, const uint8_t *other)
{
	static const uint64_t at[] = {
		sizeof(struct rdt_domain_blob), sizeof(struct rdt_domain_blob) + 9, 4096, BLOB / 2,
		BLOB - RDT_DOM_BLOB_TAG - 1, BLOB - RDT_DOM_BLOB_TAG, BLOB - 1, 48, 59,
	};
	uint8_t wrong[32], *bad = malloc(BLOB);

	for (unsigned int i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		memcpy(bad, good, BLOB);
		bad[at[i]] ^= 1 << i % 8;
		fails(import(to, d, key, bad, BLOB), EBADMSG, "C5 a flipped bit at %lu", at[i]);
	}
	for (unsigned int i = 0; i < 32; i += 31) {
		memcpy(wrong, key, 32);
		wrong[i] ^= 0x80;
		fails(import(to, d, wrong, good, BLOB), EBADMSG, "C5 another key (byte %u)", i);
	}
	memcpy(bad, good, BLOB);
	bad[20] ^= 1;
	fails(import(to, d, key, bad, BLOB), EXDEV, "C5 another measurement");
	fails(import(to, d, key, other, BLOB), EXDEV, "C5 another domain's, whole and genuine");
	bad[20] ^= 1, bad[0] = 'X';
	fails(import(to, d, key, bad, BLOB), EINVAL, "C5 not a blob");
	bad[0] = good[0], bad[8] = DOM_PAGES - 1;
	fails(import(to, d, key, bad, BLOB), EINVAL, "C5 it says it has fewer pages");
	for (uint64_t n = 0; n < BLOB; n += n < 64 ? 63 : BLOB / 2 - 40)
		fails(import(to, d, key, good, n), EINVAL, "C5 cut off after %lu bytes", n);
	fails(import(to, d, key, good, BLOB - 1), EINVAL, "C5 cut off before its last byte");
	fails(import(to, d, key, good, BLOB + 1), EINVAL, "C5 too long");
	free(bad);
}

int main(void)
{
	static uint8_t blob[BLOB], other_blob[BLOB], back[BLOB];
	struct side from, to;
	struct rdt_domain_info info = {};
	struct dom a, fixed, other, b, spoiled;
	int wrong = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	side_open(&from);
	set_quota(&from, 0);
	a = dom_make(from.vm, 0, RDT_DOM_EXPORTABLE, 0x1234);
	fixed = dom_make(from.vm, 1, 0, 0x1234);
	other = dom_make(from.vm, 2, RDT_DOM_EXPORTABLE, 0x1235);
	rdt_drain(from.r);
	for (int i = 0; i < WORDS; i++)
		wrong += dom_call(&a, DOM_STORE, word_at(i), word(i)) != 0;
	is(wrong, 0, "C5 a domain computes something that nobody else knows");
	test_leave(&from, &a, &fixed, blob);
	test_busy(&from, &a, blob);
	is(export(&from, &a, blob), 0, "C5 exported");
	ok(event(&from, RDT_DOM_EV_EXPORTED), "C5 which is an event");
	is(ioctl(from.r->fd, RDT_VM_DOMAIN, &info), 0, "C7 the measurement");
	test_blob(blob, &info);
	is(dom_call(&a, DOM_LOAD, word_at(3), 0), word(3), "C5 the domain is as it was");
	fails(import(&from, &a, key, blob, BLOB), EBUSY, "C5 nothing is imported where a thread has been");
	is(export(&from, &other, other_blob), 0, "C5 another one is exported, too");
	rdt_drain(from.r);

	side_open(&to);
	set_quota(&to, 0);
	b = dom_make(to.vm, 3, RDT_DOM_EXPORTABLE, 0x1234);
	spoiled = dom_make(to.vm, 1, RDT_DOM_EXPORTABLE, 0x1234);
	test_bad(&to, &b, blob, other_blob);
	test_bad(&to, &spoiled, blob, other_blob);
	rdt_drain(to.r);
	is(import(&to, &b, key, blob, BLOB), 0, "C5 imported into another VM, at another place");
	ok(event(&to, RDT_DOM_EV_IMPORTED), "C5 which is an event");
	for (int i = 0; i < WORDS; i++)
		wrong += dom_call(&b, DOM_LOAD, word_at(i), 0) != (int64_t)word(i);
	is(wrong, 0, "C5 the domain there goes on with what this one had");
	is(dom_call(&b, DOM_ADD, 40, 2), 42, "C5 and computes");
	for (int i = 0; i < WORDS; i++)
		wrong += dom_call(&spoiled, DOM_LOAD, word_at(i), 0) != 0;
	is(wrong, 0, "C5 what was refused has changed nothing");
	is(dom_call(&spoiled, DOM_LOAD, DOM_GVA + DOM_DATA, 0), 0x1234, "C5 and the rest is as it was made");
	set_quota(&to, RDT_DOM_Q_EXPORT);
	is(export(&to, &b, back), 0, "C5 and exported from there");
	ok(memcmp(back + 48, blob + 48, 12) && memcmp(back + 64, blob + 64, 32), "C5 with another nonce");

	side_close(&to);
	side_close(&from);
	return tap_end();
}
