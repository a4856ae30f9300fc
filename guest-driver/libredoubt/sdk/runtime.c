// SPDX-License-Identifier: GPL-2.0
/* What every domain is linked with: the copy in and out of the window, and a little of a libc. */
#include <redoubt/domain.h>

#define PAGE 4096ul

int __rdt_rdrand(uint64_t *out);
long __rdt_hc_measure(uint64_t out[4], int intel);
long __rdt_enter(uint64_t room, uint64_t in_len, uint64_t window, uint64_t op, uint8_t *messages);

static uint64_t pages(uint64_t bytes)
{
	return (bytes + PAGE - 1) / PAGE;
}

/*
 * The layout behind the image's end; libredoubt's image.c has the same from the
 * same numbers. (By way of a register: to the compiler these are objects of size 0.)
 */
static uint64_t image_end(void)
{
	uint64_t end = (uint64_t)__rdt_image.note.end;

	__asm__("" : "+r"(end));
	return end;
}

static uint64_t slots_at(const struct rdt_domain_note *n)
{
	return image_end() + n->heap_pages * PAGE;
}

static uint64_t slot_size(const struct rdt_domain_note *n)
{
	return (1 + n->stack_pages + 2 * pages(n->message)) * PAGE;
}

static int in_window(const struct rdt_domain_note *n, uint64_t at, uint64_t bytes)
{
	uint64_t first = slots_at(n) + n->slots * slot_size(n);
	uint64_t size = n->slots * pages(n->message) * PAGE;

	return at >= first && at - first <= size && bytes <= size - (at - first);
}

unsigned int rdt_slot(void)
{
	const struct rdt_domain_note *n = &__rdt_image.note;

	return ((uint64_t)__builtin_frame_address(0) - slots_at(n)) / slot_size(n);
}

/*
 * A slot's number and how often somebody entered by it name a thread. Who holds a lock
 * and is killed does not come back; the next to enter by its slot is somebody else.
 */
static uint32_t entries[16];

int rdt_lock(struct rdt_lock *l)
{
	uint32_t slot = rdt_slot(), me = (entries[slot] << 8) | (slot + 1);

	for (long tries = 1L << 22; tries; tries--) {
		/* before his entries: what is read of them is not older than his hold */
		uint32_t holder = __atomic_load_n(&l->holder, __ATOMIC_ACQUIRE);

		if (holder) {
			uint32_t at = (holder & 0xff) - 1, now = __atomic_load_n(&entries[at], __ATOMIC_RELAXED);

			if (now << 8 == (holder & ~0xffu)) {
				__builtin_ia32_pause();
				continue;
			}
		}
		if (__atomic_compare_exchange_n(&l->holder, &holder, me, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return holder ? 1 : 0;
	}
	return -RDT_EAGAIN;
}

void rdt_unlock(struct rdt_lock *l)
{
	__atomic_store_n(&l->holder, 0, __ATOMIC_RELEASE);
}

/* From the start file. What is in the window is read once and written once. */
long __rdt_enter(uint64_t room, uint64_t in_len, uint64_t window, uint64_t op, uint8_t *messages)
{
	const struct rdt_domain_note *n = &__rdt_image.note;
	uint8_t *in = messages, *out = messages + pages(n->message) * PAGE;
	long ret;

	entries[rdt_slot()]++;
	if (in_len > n->message)
		return -RDT_EMSGSIZE;
	if (room > n->message)
		room = n->message;
	if (!in_window(n, window, in_len > room ? in_len : room))
		return -RDT_EFAULT;
	memcpy(in, (const void *)window, in_len);
	memset(out, 0, room);
	ret = rdt_main(op, in, in_len, out, room);
	if (ret > (long)room)
		ret = -RDT_EIO;		/* a bug of the author's is not to become a leak */
	if (ret > 0)
		memcpy((void *)window, out, ret);
	rdt_wipe(in, in_len);
	return ret;
}

void *memmove(void *to, const void *from, size_t bytes)
{
	uint8_t *t = to;
	const uint8_t *f = from;

	if (t - f >= 0 && (size_t)(t - f) < bytes) {
		while (bytes--) {
			t[bytes] = f[bytes];
			__asm__("" : : : "memory");	/* not to become a call of itself */
		}
		return to;
	}
	return memcpy(to, from, bytes);
}

int memcmp(const void *a, const void *b, size_t bytes)
{
	const uint8_t *p = a, *q = b;

	for (size_t i = 0; i < bytes; i++)
		if (p[i] != q[i])
			return p[i] - q[i];
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	for (; s[n]; n++)
		__asm__("" : : : "memory");
	return n;
}

void rdt_wipe(void *at, size_t bytes)
{
	memset(at, 0, bytes);
	__asm__ volatile("" : : "r"(at) : "memory");
}

int rdt_equal(const void *a, const void *b, size_t bytes)
{
	const volatile uint8_t *p = a, *q = b;
	unsigned int differ = 0;

	for (size_t i = 0; i < bytes; i++)
		differ |= p[i] ^ q[i];
	return !differ;
}

/*
 * A broken RDRAND (it has happened, after a suspend) says it is fine and gives the same word
 * for ever. Two equal words in a row are chance once in 2^64.
 */
int rdt_random(void *out, size_t bytes)
{
	uint8_t *at = out;
	uint64_t word = 0, last;
	size_t left = bytes;

	if (!__rdt_rdrand(&last))
		goto none;
	while (left) {
		size_t n = left < sizeof(word) ? left : sizeof(word);

		if (!__rdt_rdrand(&word) || word == last || !word || !~word)
			goto none;
		last = word;
		memcpy(at, &word, n);
		at += n;
		left -= n;
	}
	rdt_wipe(&word, sizeof(word));
	rdt_wipe(&last, sizeof(last));
	return 0;
none:
	rdt_wipe(out, bytes);
	return -RDT_EIO;
}

void *rdt_alloc(size_t bytes)
{
	static uint64_t used;
	const struct rdt_domain_note *n = &__rdt_image.note;
	uint64_t size = (bytes + 15) & ~15ul, at = __atomic_load_n(&used, __ATOMIC_RELAXED);

	do {
		if (size < bytes || size > n->heap_pages * PAGE - at)
			return NULL;
	} while (!__atomic_compare_exchange_n(&used, &at, at + size, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return (void *)(image_end() + at);
}

int rdt_measure(uint8_t out[32], int intel)
{
	uint64_t words[4];

	if (__rdt_hc_measure(words, intel))
		return -RDT_EIO;
	memcpy(out, words, sizeof(words));
	return 0;
}
