// SPDX-License-Identifier: GPL-2.0
/* The measurement as the host takes it, Documentation/domains.md. x86-64 is little endian, as it wants. */
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "internal.h"

static int valid(const struct rdt_image *im)
{
	const struct rdt_image_segment *s = (void *)(uintptr_t)im->segment;
	uint64_t above = 0, pages = 0;

	if (im->slots < 1 || im->slots > RDT_DOM_MAX_SLOTS || im->windows > RDT_DOM_MAX_WINDOWS ||
	    im->segments < 1 || im->segments > RDT_IMAGE_MAX_SEGMENTS)
		return 0;
	for (unsigned int i = 0; i < im->segments; i++, s++) {
		if (s->gva % RDT_PAGE || s->gva < above || !s->pages || s->pages > RDT_IMAGE_MAX_PAGES ||
		    s->len > s->pages * RDT_PAGE || (s->len && !s->data))
			return 0;
		pages += s->pages;
		above = s->gva + s->pages * RDT_PAGE;
		if (above < s->gva || pages > RDT_IMAGE_MAX_PAGES)
			return 0;
	}
	return 1;
}

static int page(EVP_MD_CTX *sha, const struct rdt_image_segment *s, uint32_t nr)
{
	const uint64_t head[2] = { s->gva + nr * RDT_PAGE, s->kind };
	const unsigned char *data = (void *)(uintptr_t)s->data;
	unsigned char bytes[RDT_PAGE] = { 0 };
	uint64_t at = nr * RDT_PAGE;

	if (at < s->len)
		memcpy(bytes, data + at, s->len - at < RDT_PAGE ? s->len - at : RDT_PAGE);
	return EVP_DigestUpdate(sha, head, sizeof(head)) && EVP_DigestUpdate(sha, bytes, sizeof(bytes));
}

static int all(EVP_MD_CTX *sha, const struct rdt_image *im, uint8_t *out)
{
	const struct rdt_image_segment *s = (void *)(uintptr_t)im->segment;
	const uint32_t counts[4] = { im->flags, im->slots, im->windows, 0 };
	const uint64_t doors[2] = { im->gate_gva, im->exit_gva };
	int fine = EVP_DigestInit_ex(sha, EVP_sha256(), NULL) && EVP_DigestUpdate(sha, "redoubt-domain-1", 16) &&
		   EVP_DigestUpdate(sha, counts, sizeof(counts)) && EVP_DigestUpdate(sha, doors, sizeof(doors)) &&
		   EVP_DigestUpdate(sha, im->stack_top, im->slots * sizeof(im->stack_top[0])) &&
		   EVP_DigestUpdate(sha, im->window, im->windows * sizeof(im->window[0]));

	for (unsigned int i = 0; i < im->segments; i++, s++)
		for (uint32_t nr = 0; fine && nr < s->pages; nr++)
			fine = page(sha, s, nr);
	return fine && EVP_DigestUpdate(sha, "sealed", 6) && EVP_DigestFinal_ex(sha, out, NULL);
}

int rdt_image_measure(const struct rdt_image *image, uint8_t measurement[RDT_MEASUREMENT])
{
	EVP_MD_CTX *sha;
	int fine;

	if (!valid(image))
		return rdt_fail(-EINVAL, "no valid image");
	sha = EVP_MD_CTX_new();
	fine = sha && all(sha, image, measurement);
	EVP_MD_CTX_free(sha);
	return fine ? 0 : rdt_fail(-ENOMEM, "OpenSSL has no memory");
}
