// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "outside.h"

#define PAGE 4096ul

extern const char outside_back[];

static const struct rdt_image_segment *segments(const struct rdt_image *im)
{
	return (void *)(uintptr_t)im->segment;
}

/* @prot with @bytes of @data in it; from @state at *@offset if that is a file. */
static int place(uint64_t gva, uint64_t pages, const void *data, uint64_t bytes, int prot, int state, off_t *offset,
		 int fresh)
{
	int flags = MAP_FIXED_NOREPLACE | (state < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	void *at = mmap((void *)gva, pages * PAGE, PROT_READ | PROT_WRITE, flags, state, state < 0 ? 0 : *offset);

	if (at == MAP_FAILED)
		return -errno;
	if (fresh && bytes)
		memcpy(at, data, bytes);
	if (state >= 0)
		*offset += (off_t)(pages * PAGE);
	return mprotect(at, pages * PAGE, prot) ? -errno : 0;
}

/* Instead of a fault that leads out: movabs $outside_back, %r11; jmp *%r11 */
static void make_exit(uint64_t exit_gva)
{
	unsigned char code[13] = { 0x49, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0xff, 0xe3 };
	const void *back = outside_back;
	void *page = (void *)(exit_gva & -PAGE);

	memcpy(code + 2, &back, sizeof(back));
	mprotect(page, PAGE, PROT_READ | PROT_WRITE);
	memcpy((void *)exit_gva, code, sizeof(code));
	mprotect(page, PAGE, PROT_READ | PROT_EXEC);
}

int outside_map(const struct rdt_image *im, int state)
{
	const struct rdt_image_segment *s = segments(im);
	off_t size = 0, at = 0;
	struct stat st;
	int err = 0, fresh = 1;

	for (unsigned int i = 0; i < im->segments; i++)
		size += s[i].kind == RDT_DOM_DATA ? (off_t)(s[i].pages * PAGE) : 0;
	size += (off_t)(im->window[0].pages * PAGE);
	if (state >= 0) {
		if (flock(state, LOCK_EX) || fstat(state, &st))
			return -errno;
		fresh = st.st_size != size;
		if (fresh && ftruncate(state, size))
			return -errno;
	}
	for (unsigned int i = 0; !err && i < im->segments; i++) {
		int data = s[i].kind == RDT_DOM_DATA;

		err = place(s[i].gva, s[i].pages, (void *)(uintptr_t)s[i].data, s[i].len,
			    data ? PROT_READ | PROT_WRITE : s[i].kind == RDT_DOM_EXIT ? PROT_READ : PROT_READ | PROT_EXEC,
			    data ? state : -1, &at, data ? fresh : 1);
	}
	if (!err)
		err = place(im->window[0].gva, im->window[0].pages, NULL, 0, PROT_READ | PROT_WRITE, state, &at, 0);
	if (!err)
		make_exit(im->exit_gva);
	if (state >= 0)
		flock(state, LOCK_UN);
	return err;
}

void outside_unmap(const struct rdt_image *im)
{
	const struct rdt_image_segment *s = segments(im);

	for (unsigned int i = 0; i < im->segments; i++)
		munmap((void *)s[i].gva, s[i].pages * PAGE);
	munmap((void *)im->window[0].gva, im->window[0].pages * PAGE);
}

long outside_call(const struct rdt_image *im, unsigned int slot, uint64_t op, const void *in, size_t in_len, void *out,
		  size_t room)
{
	size_t part = im->window[0].pages / im->slots * PAGE;
	uint64_t at = im->window[0].gva + slot * part;
	long ret;

	if (in_len > part)
		return -EMSGSIZE;
	if (room > part)
		room = part;
	if (in_len)
		memcpy((void *)at, in, in_len);
	ret = outside_enter(room, in_len, at, op, im->gate_gva, im->stack_top[slot]);
	if (ret > (long)room || ret < -4095)
		return -EBADMSG;
	if (ret > 0)
		memcpy(out, (void *)at, (size_t)ret);
	return ret;
}
