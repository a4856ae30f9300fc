/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Redoubt: what a protection domain is written with. For the code inside; the outside
 * includes <redoubt/redoubt.h>.
 *
 * A domain is one program, linked by sdk/domain.mk, that has rdt_main() and one RDT_DOMAIN().
 * There is no libc, no system call, no thread-local storage and no global constructor.
 * Everything outside is hostile: the guest's kernel calls when it likes, with what
 * it likes, interrupts, and reads all that rdt_main() leaves in @out. It cannot read or change
 * anything else.
 */
#ifndef REDOUBT_DOMAIN_H
#define REDOUBT_DOMAIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Errors that rdt_main() may give back, Linux's numbers. */
#define RDT_EPERM	1
#define RDT_ENOENT	2
#define RDT_EIO		5
#define RDT_EAGAIN	11
#define RDT_ENOMEM	12
#define RDT_EFAULT	14
#define RDT_EBUSY	16
#define RDT_EEXIST	17
#define RDT_EINVAL	22
#define RDT_ENOSPC	28
#define RDT_ENOSYS	38
#define RDT_EMSGSIZE	90

/**
 * rdt_main - what the domain does; the author's.
 * @op: the caller's number for what it wants.
 * @in: private copy of what the caller gave: nobody can change it under your hands.
 * @in_len: bytes of it, at most RDT_DOMAIN's message.
 * @out: private, all zero; its first bytes are copied to the caller.
 * @room: bytes that the caller takes, at most RDT_DOMAIN's message.
 *
 * As many threads may be in here at once as there are slots; see rdt_lock().
 * Returns the number of bytes of @out that are the answer, 0..@room, or -RDT_E*: then
 * none is copied. @in is overwritten afterwards. The stack is not, nobody sees it.
 */
long rdt_main(uint64_t op, const void *in, size_t in_len, void *out, size_t room);

/**
 * struct rdt_domain_note - what a domain's image says of itself. Read by libredoubt, in
 * the image and therefore measured.
 * @slots: threads inside at once, 1..16.
 * @stack_pages: of each slot, 1..64; below each is a hole, so that an overflow ends the call.
 * @message: bytes in and out that a call may have at most, 1..65536.
 * @heap_pages: for rdt_alloc(), 0..4096.
 * @flags: RDT_DOMAIN_*.
 *
 * The rest is the start file's. Behind the image's end come, all zero: the heap; for
 * each slot a hole, its stack and its two messages; the window of shared pages.
 */
struct rdt_domain_note {
	uint32_t slots;
	uint32_t stack_pages;
	uint32_t message;
	uint32_t heap_pages;
	uint32_t flags;
	uint32_t reserved;
	const void *gate, *exit, *end;
};
#define RDT_DOMAIN_USER		1u	/* of ring 3 */
#define RDT_DOMAIN_VECTOR	2u	/* vector registers are used: built with RDT_VECTOR=1 */

#define RDT_NOTE_NAME	"Redoubt"
#define RDT_NOTE_TYPE	1

struct rdt_domain_elf_note {
	uint32_t namesz, descsz, type;
	char name[8];
	uint32_t pad;		/* descriptor's alignment, in an ELF note of 8 */
	struct rdt_domain_note note;
};

extern const char __rdt_gate[], __rdt_exit[], __rdt_end[];
extern const struct rdt_domain_elf_note __rdt_image;

#ifdef __SSE2__
#define RDT_DOMAIN_BUILT RDT_DOMAIN_VECTOR
#else
#define RDT_DOMAIN_BUILT 0
#endif

/** RDT_DOMAIN, RDT_USER_DOMAIN - one of them, once in a domain, at file scope: for ring 0, 3. */
#define RDT_DOMAIN(slots, stack_pages, message, heap_pages)				\
	RDT_DOMAIN_NOTE(slots, stack_pages, message, heap_pages, RDT_DOMAIN_BUILT)
#define RDT_USER_DOMAIN(slots, stack_pages, message, heap_pages)			\
	RDT_DOMAIN_NOTE(slots, stack_pages, message, heap_pages, RDT_DOMAIN_BUILT | RDT_DOMAIN_USER)

#define RDT_DOMAIN_NOTE(slots, stack_pages, message, heap_pages, flags)			\
	extern const struct rdt_domain_elf_note __rdt_image;				\
	__attribute__((section(".note.redoubt"), used, aligned(8)))			\
	const struct rdt_domain_elf_note __rdt_image = {				\
		8, sizeof(struct rdt_domain_note), RDT_NOTE_TYPE, RDT_NOTE_NAME, 0,	\
		{ slots, stack_pages, message, heap_pages, flags, 0,			\
		  __rdt_gate, __rdt_exit, __rdt_end } }

/* ---- the runtime ---------------------------------------------------------------- */

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *at, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
size_t strlen(const char *s);

/** rdt_wipe - zeroes what is not used any more; the compiler does not leave it out. */
void rdt_wipe(void *at, size_t bytes);

/** rdt_equal - 1 if the same, in a time that does not depend on what it is. */
int rdt_equal(const void *a, const void *b, size_t bytes);

/**
 * rdt_random - random bytes from the CPU (RDRAND).
 * Returns 0, or -RDT_EIO: the CPU has none to give, or gives what is not random; @out is
 * zero then. A CPU without RDRAND ends the call.
 */
int rdt_random(void *out, size_t bytes) __attribute__((warn_unused_result));

/** rdt_alloc - zeroed memory of the heap, 16-byte aligned, for good; NULL: there is no more. */
void *rdt_alloc(size_t bytes);

/**
 * rdt_measure - the SHA-256 that the host has measured of this domain.
 * @intel: which instruction calls the host. The caller has to say, as CPUID is not to
 *	be had inside; if it lies the call ends.
 * Returns 0 or -RDT_EIO. Ring 0 only.
 */
int rdt_measure(uint8_t out[32], int intel) __attribute__((warn_unused_result));

/** rdt_leave - ends the call at once, from however deep, with a result as rdt_main()'s error. */
__attribute__((noreturn)) void rdt_leave(long error);

/* rdt_slot - which slot this thread is in, 0.. */
unsigned int rdt_slot(void);

/*
 * A lock for what the slots share; zero is open. Its holder may be interrupted for as long as
 * the guest's kernel likes, and may be killed.
 */
struct rdt_lock {
	uint32_t holder;
};

/**
 * rdt_lock - nobody waits for ever.
 * Returns 0: it is yours. 1: likewise, but a holder was killed in the middle of what it did:
 * repair. -RDT_EAGAIN: not to be had for about as long as a time slice; the caller may try once more.
 */
int rdt_lock(struct rdt_lock *l) __attribute__((warn_unused_result));
void rdt_unlock(struct rdt_lock *l);

/**
 * RDT_PLACEHOLDER - an array that the host's operator fills when the domain is sealed (redoubtctl secret
 * install, with the manifest of redoubt-domain manifest FILE). Zero until then; not in
 * the measurement. He can do it while nobody is inside: between calls, and volatile therefore.
 */
#define RDT_PLACEHOLDER(name, bytes)							\
	__attribute__((section(".rdt.placeholder"), used, aligned(64)))			\
	volatile uint8_t rdt_placeholder_##name[bytes] = { 0 }

#ifdef __cplusplus
}
#endif
#endif
