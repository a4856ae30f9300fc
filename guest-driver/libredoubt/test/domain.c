// SPDX-License-Identifier: GPL-2.0
/* A domain for the tests: what an author can rely on, and what he can do wrong. */
#include <redoubt/domain.h>

#ifdef USER
RDT_USER_DOMAIN(4, 2, 5000, 3);
#else
RDT_DOMAIN(4, 2, 5000, 3);
#endif
RDT_PLACEHOLDER(word, 8);

static uint64_t counter, half;
static struct rdt_lock lock;
static const char greeting[] = "hello";
static char initialised[] = "data";

/* @in and @out are 8-byte aligned: whole pages. */
static long entry(const uint8_t *in, size_t in_len, uint64_t *out)
{
	uint64_t rsp;

	__asm__("movq %%rsp, %0" : "=r"(rsp));
	out[0] = (uint64_t)in;
	out[1] = (uint64_t)out;
	out[2] = in_len;
	out[3] = rsp;
	out[4] = rdt_slot();
	return 40;
}

/* Two words that belong together; op 8 is killed between them. */
static long both(int die)
{
	int got = rdt_lock(&lock);

	if (got < 0)
		return got;
	if (got == 1)
		half = counter;		/* repair */
	counter++;
	if (die)
		rdt_leave(-RDT_EFAULT);	/* still holding it, as a thread that is killed does */
	half++;
	if (counter != half)		/* looked at under the lock: after it they are the next holder's */
		got = -RDT_EIO;
	rdt_unlock(&lock);
	return got;
}

long rdt_main(uint64_t op, const void *in, size_t in_len, void *out, size_t room)
{
	uint8_t *o = out;
	size_t sum = 0;

	switch (op) {
	case 0:		/* the other way round, and a greeting of rodata and data */
		if (room < in_len + 9)
			return -RDT_EMSGSIZE;
		for (size_t i = 0; i < in_len; i++)
			o[i] = ((const uint8_t *)in)[in_len - 1 - i];
		memcpy(o + in_len, greeting, 5);
		memcpy(o + in_len + 5, initialised, 4);
		return (long)in_len + 9;
	case 1:
		return entry(in, in_len, out);
	case 2:		/* is what is given zero? */
		for (size_t i = 0; i < room; i++)
			sum += o[i];
		memset(out, 0xee, room);
		return sum ? -RDT_EIO : 0;
	case 3:		/* more than there is room for */
		return (long)room + 1;
	case 4:
		return rdt_random(out, room) ? -RDT_EIO : (long)room;
	case 5:
		rdt_leave(-RDT_EEXIST);
	case 6:
		return both(0);
	case 7: {	/* the heap: all of it, and no more */
		char *a = rdt_alloc(3 * 4096 - 16), *b = rdt_alloc(1), *c = rdt_alloc(1), *d = rdt_alloc(~0ul);

		if (!a || !b || c || d || b != a + 3 * 4096 - 16)
			return -RDT_EIO;
		memset(a, 1, 3 * 4096 - 16);
		return 0;
	}
	case 8:
		return both(1);
	case 9:		/* what the operator has installed */
		for (int i = 0; i < 8; i++)
			o[i] = rdt_placeholder_word[i];
		return 8;
	case 10: {	/* a libc's odds and ends */
		char s[] = "abcdefgh", z[9];

		memmove(s + 2, s, 6);
		if (memcmp(s, "ababcdef", 9))
			return -1;
		memmove(s, s + 2, 6);
		if (memcmp(s, "abcdefef", 9) || strlen(s) != 8 || memcmp("a", "b", 1) >= 0 || memcmp("b", "a", 1) <= 0)
			return -2;
		memset(z, 0xa5, sizeof(z));
		for (int i = 0; i < 9; i++)
			if ((uint8_t)z[i] != 0xa5)
				return -3;
		if (!rdt_equal(s, "abcdefef", 9) || rdt_equal(s, "abcdefeg", 9))
			return -4;
		rdt_wipe(z, sizeof(z));
		return z[0] || z[8] ? -5 : 0;
	}
	case 11: {	/* a while, with a register for each number */
		uint64_t rounds = in_len == 8 ? *(const uint64_t *)in : 0, a = 1, b = 2, c = 3, d = 4;

		while (rounds--) {
			a = a * 3 + b;
			b = (b << 7 | b >> 57) ^ c;
			c += d;
			d = d * 5 + a;
		}
		*(uint64_t *)out = a ^ b ^ c ^ d;
		return 8;
	}
	case 12:	/* an exception */
		__asm__ volatile("ud2");
		return 0;
	case 13:	/* what is not its own */
		return *(volatile uint8_t *)0x1000;
	default:
		return -RDT_ENOSYS;
	}
}
