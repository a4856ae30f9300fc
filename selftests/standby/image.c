// SPDX-License-Identifier: GPL-2.0
#include "image.h"

#include <sys/mman.h>

#include "layout.h"
#include "tap.h"

static void *zeroes(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		tap_bail("memory for an image");
	return p;
}

void image_init(struct image *im, uint8_t space, uint32_t vm, uint32_t stream)
{
	*im = (struct image){ .space = space, .vm = vm, .stream = stream, .next_seq = 1 };
}

void image_area(struct image *im, int nr, uint64_t first, uint64_t frames)
{
	im->area[nr] = (struct area){ first, frames, zeroes(frames * PAGE_SIZE), zeroes(frames) };
}

void image_free(struct image *im)
{
	for (int i = 0; i < 2; i++) {
		if (!im->area[i].frames)
			continue;
		munmap(im->area[i].bytes, im->area[i].frames * PAGE_SIZE);
		munmap(im->area[i].have, im->area[i].frames);
	}
}

static bool wrong(struct image *im, const char *what, uint64_t value)
{
	if (!im->bad)
		tap_diag("message %lu: %s (%lu)", (unsigned long)im->next_seq, what, (unsigned long)value);
	im->bad = true;
	return false;
}

static bool bit(const struct nlattr *a, uint32_t n)
{
	return a && ((const uint8_t *)gnl_data(a))[n / 8] >> n % 8 & 1;
}

static struct area *area_of(struct image *im, uint64_t frame)
{
	for (int i = 0; i < 2; i++)
		if (frame - im->area[i].first < im->area[i].frames)
			return &im->area[i];
	return NULL;
}

static bool take_pages(struct image *im, struct gnl_attrs *at)
{
	const uint64_t first = gnl_num(at->a[RDT_SB_A_FIRST]);
	const uint32_t frames = gnl_num(at->a[RDT_SB_A_FRAMES]);
	const struct nlattr *zero = at->a[RDT_SB_A_ZERO], *lost = at->a[RDT_SB_A_LOST], *data = at->a[RDT_SB_A_DATA];
	const uint8_t *page, *end;

	if (!data || !frames || frames > RDT_SB_MAX_FRAMES || gnl_num(at->a[RDT_SB_A_SPACE]) != im->space)
		return wrong(im, "pages without what they need", frames);
	if ((zero && gnl_len(zero) != (frames + 7) / 8) || (lost && gnl_len(lost) != (frames + 7) / 8))
		return wrong(im, "a bitmap of another size", frames);
	page = gnl_data(data);
	end = page + gnl_len(data);
	if (gnl_len(data) > RDT_SB_MAX_PAGES * PAGE_SIZE)
		return wrong(im, "too many pages", gnl_len(data));
	for (uint32_t n = 0; n < frames; n++) {
		struct area *area = area_of(im, first + n);
		uint64_t i;

		if (!area)
			return wrong(im, "a frame nobody asked for", first + n);
		i = first + n - area->first;
		if (bit(zero, n) && bit(lost, n))
			return wrong(im, "a frame that is zero and lost", first + n);
		if (bit(lost, n)) {
			area->have[i] = HAVE_LOST;
			im->lost++;
		} else if (bit(zero, n)) {
			memset(area->bytes + i * PAGE_SIZE, 0, PAGE_SIZE);
			area->have[i] = HAVE_ZERO;
			im->zero++;
		} else {
			if (page + PAGE_SIZE > end)
				return wrong(im, "fewer pages than frames", first + n);
			memcpy(area->bytes + i * PAGE_SIZE, page, PAGE_SIZE);
			area->have[i] = HAVE_DATA;
			im->data++;
			page += PAGE_SIZE;
		}
	}
	return page == end || wrong(im, "more pages than frames", end - page);
}

bool image_receive(struct image *im, int fd, int ms)
{
	static char buf[GNL_MAX];
	const struct nlmsghdr *nlh = (void *)buf;
	struct gnl_attrs at;
	uint64_t seq;

	im->ended = false;
	for (;;) {
		int n = gnl_recv(fd, buf, sizeof(buf), ms);

		if (!n)
			return false;
		if (n < 0)
			return wrong(im, "recv", errno);
		gnl_attrs(nlh, &at);
		seq = gnl_num(at.a[RDT_SB_A_SEQ]);
		if (seq < im->next_seq)
			return wrong(im, "a number that was there before", seq);
		im->holes += seq - im->next_seq;
		im->next_seq = seq + 1;
		im->messages++;
		if (gnl_num(at.a[RDT_SB_A_VM]) != im->vm || gnl_num(at.a[RDT_SB_A_STREAM]) != im->stream)
			return wrong(im, "of another stream", gnl_num(at.a[RDT_SB_A_STREAM]));
		if (gnl_cmd(nlh) == RDT_SB_CMD_STREAM_END) {
			im->count = gnl_num(at.a[RDT_SB_A_COUNT]);
			im->ended = true;
			return true;
		}
		if (gnl_cmd(nlh) != RDT_SB_CMD_PAGES)
			return wrong(im, "not of a stream", gnl_cmd(nlh));
		if (!take_pages(im, &at))
			return false;
	}
}

uint32_t image_missing(const struct image *im, struct rdt_sb_range *ranges, uint32_t max)
{
	uint32_t nr = 0;

	for (int k = 0; k < 2; k++) {
		const struct area *a = &im->area[k];

		for (uint64_t i = 0; i < a->frames; i++) {
			if (a->have[i])
				continue;
			if (nr && ranges[nr - 1].first + ranges[nr - 1].count == a->first + i)
				ranges[nr - 1].count++;
			else if (nr < max)
				ranges[nr++] = (struct rdt_sb_range){ a->first + i, 1 };
		}
	}
	return nr;
}

uint64_t image_differs(const struct image *im, int area, const void *with)
{
	const struct area *a = &im->area[area];
	uint64_t n = 0;

	for (uint64_t i = 0; i < a->frames; i++)
		n += (a->have[i] != HAVE_DATA && a->have[i] != HAVE_ZERO) ||
		     memcmp(a->bytes + i * PAGE_SIZE, (const char *)with + i * PAGE_SIZE, PAGE_SIZE);
	return n;
}
