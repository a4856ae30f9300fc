/* SPDX-License-Identifier: GPL-2.0 */
/*
 * libredoubt: loads, measures and calls protection domains, for processes of a guest.
 * For code inside a domain there is <redoubt/domain.h>.
 *
 * All functions but the last two return a negative errno when they fail, and rdt_error()
 * then has a sentence. They keep no state and may be called by any number of threads.
 */
#ifndef REDOUBT_REDOUBT_H
#define REDOUBT_REDOUBT_H

#include <stddef.h>
#include <stdint.h>
#include <linux/redoubt_domain.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RDT_API __attribute__((visibility("default")))

#define RDT_MEASUREMENT 32

/**
 * rdt_image_load - read a domain's image, as sdk/domain.mk links it.
 * @image: out; whole pages, the runtime's zeroed ones included. Give it to rdt_image_free().
 * The file is not trusted: -ENOEXEC it is no such image, -E2BIG more than RDT_IMAGE_MAX_PAGES;
 * else what open() and read() say.
 */
RDT_API int rdt_image_load(const char *path, struct rdt_image **image);

/** rdt_image_parse - the same of a file in memory. */
RDT_API int rdt_image_parse(const void *file, size_t bytes, struct rdt_image **image);

RDT_API void rdt_image_free(struct rdt_image *image);

/**
 * rdt_image_measure - the SHA-256 that the host will find when the image is loaded
 * (Documentation/domains.md, "Measurement"). -EINVAL: not to be loaded as it is.
 */
RDT_API int rdt_image_measure(const struct rdt_image *image, uint8_t measurement[RDT_MEASUREMENT]);

/**
 * rdt_image_placeholders - each RDT_PLACEHOLDER() of an image: for the host's operator.
 * @each: called with its name, linear address and size, until it returns something
 * else than 0, which is then returned.
 */
typedef int rdt_placeholder_fn(void *context, const char *name, uint64_t gva, uint64_t bytes);
RDT_API int rdt_image_placeholders(const char *path, rdt_placeholder_fn *each, void *context);

/**
 * rdt_domain_create - load an image into a domain of its own, which ends with the last
 * close of the descriptor. Returns that, close-on-exec; image->id and image->measurement are set.
 * -ENOENT: no /dev/redoubt-domain. Else RDT_DOMAIN_CREATE's errors.
 */
RDT_API int rdt_domain_create(struct rdt_image *image);

/**
 * rdt_domain_open - a domain that somebody has published.
 * @name: below /dev/redoubt, or a path.
 */
RDT_API int rdt_domain_open(const char *name);

RDT_API void rdt_domain_close(int fd);

/**
 * rdt_domain_call - call a domain, from any thread; waits while all its slots are taken.
 * @room: bytes at @out. @in and @out may be the same, and NULL when there are none of them.
 * Returns the bytes of the answer, or a negative errno: the domain's own, or RDT_DOMAIN_CALL's.
 */
RDT_API long rdt_domain_call(int fd, uint64_t op, const void *in, size_t in_len, void *out, size_t room);

/** rdt_domain_publish - as /dev/redoubt/@name; @flags: RDT_PUBLISH_*. */
RDT_API int rdt_domain_publish(int fd, const char *name, unsigned int mode, unsigned int flags);
RDT_API int rdt_domain_unpublish(int fd);
RDT_API int rdt_domain_about(int fd, struct rdt_domain_about *about);

/*
 * Domains of ring 3 (RDT_USER_DOMAIN): one process's own, which calls them without
 * its kernel, and they end with it. Not for a child of fork().
 */
struct rdt_user_domain;

/** rdt_user_domain_create - as rdt_domain_create(). -EINVAL: an image for ring 0. */
RDT_API int rdt_user_domain_create(struct rdt_image *image, struct rdt_user_domain **domain);

/** rdt_user_domain_close - nobody may be inside. */
RDT_API void rdt_user_domain_close(struct rdt_user_domain *domain);

/**
 * rdt_user_domain_call - as rdt_domain_call(). An exception inside is this thread's: a signal.
 * Not to be left by longjmp() from a signal's handler: the slot would be lost.
 */
RDT_API long rdt_user_domain_call(struct rdt_user_domain *domain, uint64_t op, const void *in, size_t in_len, void *out,
				  size_t room);

/** rdt_strerror - what a negative errno of these functions means here. */
RDT_API const char *rdt_strerror(long error);

/** rdt_error - why the last function that failed in this thread did; never NULL. */
RDT_API const char *rdt_error(void);

#ifdef __cplusplus
}
#endif
#endif
