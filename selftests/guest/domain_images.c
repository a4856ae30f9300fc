// SPDX-License-Identifier: GPL-2.0
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "domain_user.h"

#define CODE	(DOM_CODE_PAGES * 4096ul)

/* ---- TAP ------------------------------------------------------------------------ */

static int lines, wrong;

void ok(bool right, const char *fmt, ...)
{
	va_list args;

	printf("%s %d - ", right ? "ok" : "not ok", ++lines);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	wrong += !right;
}

int tap_end(void)
{
	printf("1..%d\n", lines);
	return wrong != 0;
}

int control(void)
{
	int fd = open(CONTROL, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		printf("Bail out! " CONTROL ": %s\n", strerror(errno));
		exit(1);
	}
	return fd;
}

bool wait_ok(void)
{
	int status;

	return wait(&status) > 0 && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* ---- right ----------------------------------------------------------------------- */

static bool intel(void)
{
	unsigned int a, b, c, d;

	__cpuid(0, a, b, c, d);
	return b == 0x756e6547;		/* "Genu" */
}

/* GATE, EXIT, TEXT, then data and a stack of a page for each slot. */
void describe_at(struct image *im, unsigned int slots, unsigned int flags, uint64_t base)
{
	static const uint32_t kind[] = { RDT_DOM_GATE, RDT_DOM_EXIT, RDT_DOM_TEXT, RDT_DOM_DATA };
	unsigned int i;

	*im = (struct image){ .pages = DOM_CODE_PAGES + DOM_DATA_PAGES + slots };
	memcpy(im->bytes, dom_image, sizeof(im->bytes));
	im->bytes[dom_image_intel - dom_image] = intel();
	for (i = 0; i < 4; i++)
		im->segment[i] = (struct rdt_image_segment){
			.gva = base + i * 4096, .pages = 1, .kind = kind[i],
			.data = (uintptr_t)im->bytes + i * 4096, .len = 4096,
		};
	im->segment[3].pages += slots;
	im->image = (struct rdt_image){
		.flags = flags, .slots = slots, .gate_gva = base + DOM_GATE_AT,
		.exit_gva = base + 4096 + DOM_EXIT_AT, .segments = 4, .segment = (uintptr_t)im->segment,
		.windows = 1, .window = { { base + DOM_WINDOW_AT, slots } },
	};
	for (i = 0; i < slots; i++)
		im->image.stack_top[i] = base + (DOM_CODE_PAGES + DOM_DATA_PAGES + i + 1) * 4096;
}

void describe(struct image *im, unsigned int slots, unsigned int flags)
{
	describe_at(im, slots, flags, flags & RDT_DOM_USER ? DOM_BASE_USER : DOM_BASE);
}

int create(int fd, struct image *im, unsigned int slots, unsigned int flags)
{
	describe(im, slots, flags);
	return ioctl(fd, RDT_DOMAIN_CREATE, &im->image);
}

int create_big(int fd, struct image *im, unsigned int slots, unsigned int more)
{
	describe(im, slots, 0);
	im->segment[3].pages += more;
	return ioctl(fd, RDT_DOMAIN_CREATE, &im->image);
}

int call(int fd, uint64_t op, const void *in, uint32_t in_len, void *out, uint32_t out_len, int64_t *result)
{
	struct rdt_call c = {
		.op = op, .in = (uintptr_t)in, .in_len = in_len, .out = (uintptr_t)out, .out_len = out_len,
	};
	int ret = ioctl(fd, RDT_DOMAIN_CALL, &c);

	if (!ret && result)
		*result = c.result;
	return ret;
}

static void put(EVP_MD_CTX *md, const void *data, size_t n)
{
	EVP_DigestUpdate(md, data, n);
}

static void put64(EVP_MD_CTX *md, uint64_t v)
{
	put(md, &v, 8);
}

/* Documentation/domains.md, Measurement. */
void measure(const struct image *im, uint8_t sha[32])
{
	const struct rdt_image *i = &im->image;
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint32_t head[4] = { i->flags, i->slots, i->windows };
	unsigned int n, page;

	EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	put(md, "redoubt-domain-1", 16);
	put(md, head, sizeof(head));
	put64(md, i->gate_gva);
	put64(md, i->exit_gva);
	for (n = 0; n < i->slots; n++)
		put64(md, i->stack_top[n]);
	for (n = 0; n < i->windows; n++) {
		put64(md, i->window[n].gva);
		put64(md, i->window[n].pages);
	}
	for (n = 0; n < i->segments; n++)
		for (page = 0; page < im->segment[n].pages; page++) {
			const struct rdt_image_segment *s = &im->segment[n];
			unsigned char bytes[4096] = {};

			if (page * 4096ul < s->len)
				memcpy(bytes, (void *)(uintptr_t)(s->data + page * 4096ul),
				       s->len - page * 4096ul < 4096 ? s->len - page * 4096ul : 4096);
			put64(md, s->gva + page * 4096ul);
			put64(md, s->kind);
			put(md, bytes, 4096);
		}
	put(md, "sealed", 6);
	EVP_DigestFinal_ex(md, sha, NULL);
	EVP_MD_CTX_free(md);
}

/* ---- wrong ------------------------------------------------------------------------- */

#define SPOIL(name, statement) static void name(struct image *im) { statement; }
SPOIL(flags, im->image.flags = 4)
SPOIL(reserved, im->image.reserved[1] = 1)
SPOIL(no_slots, im->image.slots = 0)
SPOIL(slots_17, im->image.slots = 17)
SPOIL(resume, im->image.resume_gva = 0x1000)
SPOIL(no_segments, im->image.segments = 0)
SPOIL(segments_257, im->image.segments = 257)
SPOIL(segments_wild, im->image.segments = ~0u)
SPOIL(no_array, im->image.segment = 0)
SPOIL(array_kernel, im->image.segment = 0xffff888000000000)
SPOIL(unaligned, im->segment[2].gva += 8)
SPOIL(no_pages, im->segment[2].pages = 0)
SPOIL(pages_wild, im->segment[3].pages = ~0u)
SPOIL(pages_many, im->segment[3].pages = 4096)
SPOIL(wraps, im->segment[3].gva = -4096ull; im->segment[3].pages = 2)
SPOIL(kind_0, im->segment[2].kind = 0)
SPOIL(kind_table, im->segment[2].kind = RDT_DOM_TABLE)
SPOIL(two_gates, im->segment[2].kind = RDT_DOM_GATE)
SPOIL(two_exits, im->segment[2].kind = RDT_DOM_EXIT)
SPOIL(no_gate, im->segment[0].kind = RDT_DOM_TEXT)
SPOIL(no_exit, im->segment[1].kind = RDT_DOM_TEXT)
SPOIL(gate_elsewhere, im->image.gate_gva += 8192)
SPOIL(gate_not_canonical, im->image.gate_gva &= ~(1ull << 60))
SPOIL(exit_elsewhere, im->image.exit_gva += 4096)
SPOIL(order, im->segment[2].gva = DOM_BASE)
SPOIL(overlap, im->segment[3].gva = DOM_BASE + 8192)
SPOIL(not_canonical, im->segment[3].gva &= ~(1ull << 60))
SPOIL(data_long, im->segment[2].len = 4097)
SPOIL(data_kernel, im->segment[2].data = 0xffff888000000000)
SPOIL(data_nowhere, im->segment[2].data = 16)
SPOIL(stack_unaligned, im->image.stack_top[1] += 8)
SPOIL(stack_0, im->image.stack_top[1] = 0)
SPOIL(stack_third, im->image.stack_top[2] = im->image.stack_top[1])
SPOIL(stack_text, im->image.stack_top[1] = DOM_BASE + CODE)
SPOIL(stack_nowhere, im->image.stack_top[1] = 0x10000)
SPOIL(windows_9, im->image.windows = 9)
SPOIL(window_unaligned, im->image.window[0].gva++)
SPOIL(window_small, im->image.window[0].pages = 1)
SPOIL(window_none, im->image.window[0].pages = 0)
SPOIL(window_wild, im->image.window[0].pages = 1ull << 52)
SPOIL(window_many, im->image.window[0].pages = 5000)
SPOIL(window_spare, im->image.window[1].pages = 1)
SPOIL(window_order, im->image.windows = 2; im->image.window[1].gva = DOM_WINDOW; im->image.window[1].pages = 1)
SPOIL(window_on_page, im->image.window[0].gva = DOM_BASE)
#undef SPOIL

const struct bad_image bad_images[] = {
	{ "unknown flags", EINVAL, flags }, { "a reserved field", EINVAL, reserved },
	{ "no slots", EINVAL, no_slots }, { "17 slots", EINVAL, slots_17 },
	{ "a resume stub for ring 0", EINVAL, resume },
	{ "no segments", EINVAL, no_segments }, { "257 segments", EINVAL, segments_257 },
	{ "4 billion segments", EINVAL, segments_wild }, { "no segments' array", EFAULT, no_array },
	{ "the array in the kernel", EFAULT, array_kernel }, { "a segment unaligned", EINVAL, unaligned },
	{ "a segment without pages", EINVAL, no_pages }, { "a segment of 4 billion pages", EINVAL, pages_wild },
	{ "a segment beyond the driver's bound", E2BIG, pages_many }, { "a segment that wraps", EINVAL, wraps },
	{ "a segment of no kind", EINVAL, kind_0 }, { "page tables of its own", EINVAL, kind_table },
	{ "two gates", EINVAL, two_gates }, { "two exits", EINVAL, two_exits },
	{ "no gate", EINVAL, no_gate }, { "no exit", EINVAL, no_exit },
	{ "the gate on another page", EINVAL, gate_elsewhere },
	{ "a gate that is not canonical", EINVAL, gate_not_canonical },
	{ "the exit on another page", EINVAL, exit_elsewhere },
	{ "descending segments", EINVAL, order }, { "segments that overlap", EINVAL, overlap },
	{ "a segment that is not canonical", EINVAL, not_canonical },
	{ "more data than pages", EINVAL, data_long }, { "the kernel's memory as data", EFAULT, data_kernel },
	{ "data from nowhere", EFAULT, data_nowhere },
	{ "a stack unaligned", EINVAL, stack_unaligned }, { "no stack", EINVAL, stack_0 },
	{ "a stack for no slot", EINVAL, stack_third }, { "a stack in the text", EINVAL, stack_text },
	{ "a stack nowhere", EINVAL, stack_nowhere },
	{ "9 windows", EINVAL, windows_9 }, { "a window unaligned", EINVAL, window_unaligned },
	{ "a window too small for the slots", EINVAL, window_small }, { "an empty window", EINVAL, window_none },
	{ "a window as large as the world", EINVAL, window_wild },
	{ "a window beyond the driver's bound", E2BIG, window_many },
	{ "a window more than it says", EINVAL, window_spare }, { "windows that overlap", EINVAL, window_order },
	{ "a window on a page", EINVAL, window_on_page },
	{}
};
