// SPDX-License-Identifier: GPL-2.0
/* Domains of ring 3: of one process, called without its kernel. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

struct rdt_user_domain {
	int fd;
	unsigned int slots;
	size_t part;		/* bytes of the window for each slot */
	uint64_t window;	/* inside */
	unsigned char *parts;	/* the same here */
	unsigned char *gate_page;
	uint64_t gate;
	sem_t free;
	atomic_uint used;	/* slots' bits */
};

long rdt_user_enter(uint64_t room, uint64_t in_len, uint64_t part, uint64_t op, uint64_t gate);
extern const char rdt_user_resume_intel[], rdt_user_resume_amd[];

/* AMD's and Hygon's have VMMCALL. */
static uint64_t resume_stub(void)
{
	unsigned int max, b = 0, c, d;

	__get_cpuid(0, &max, &b, &c, &d);
	return (uintptr_t)(b == signature_AMD_ebx || b == 0x6f677948 ? rdt_user_resume_amd : rdt_user_resume_intel);
}

static int fail(struct rdt_user_domain *d, const char *what)
{
	int err = -errno;

	rdt_user_domain_close(d);
	return rdt_fail(err, "%s: %s", what, rdt_strerror(err));
}

int rdt_user_domain_create(struct rdt_image *image, struct rdt_user_domain **domain)
{
	struct rdt_user_domain *d;
	size_t bytes = image->window[0].pages * RDT_PAGE;

	if (!(image->flags & RDT_DOM_USER) || image->windows != 1 || !image->slots || image->window[0].pages < image->slots)
		return rdt_fail(-EINVAL, "not a domain of ring 3: RDT_USER_DOMAIN()");
	d = calloc(1, sizeof(*d));
	if (!d)
		return rdt_fail(-ENOMEM, "no memory");
	d->slots = image->slots;
	d->part = image->window[0].pages / d->slots * RDT_PAGE;
	d->window = image->window[0].gva;
	d->parts = d->gate_page = MAP_FAILED;
	sem_init(&d->free, 0, d->slots);
	d->fd = open("/dev/redoubt-domain", O_RDWR | O_CLOEXEC);
	if (d->fd < 0)
		return fail(d, "/dev/redoubt-domain");
	image->resume_gva = resume_stub();
	if (ioctl(d->fd, RDT_DOMAIN_CREATE, image))
		return fail(d, "loading the domain");
	d->gate_page = mmap(NULL, RDT_PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, d->fd, RDT_DOMAIN_MAP_GATE);
	if (d->gate_page == MAP_FAILED)
		return fail(d, "mapping the gate");
	d->gate = (uintptr_t)d->gate_page + image->gate_gva % RDT_PAGE;
	d->parts = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, RDT_DOMAIN_MAP_WINDOW(0));
	if (d->parts == MAP_FAILED)
		return fail(d, "mapping the window");
	*domain = d;
	return 0;
}

void rdt_user_domain_close(struct rdt_user_domain *d)
{
	if (!d)
		return;
	if (d->gate_page != MAP_FAILED)
		munmap(d->gate_page, RDT_PAGE);
	if (d->parts != MAP_FAILED)
		munmap(d->parts, d->part * d->slots);
	if (d->fd >= 0)
		close(d->fd);
	sem_destroy(&d->free);
	free(d);
}

/* There is one: the semaphore counts them. */
static unsigned int take(struct rdt_user_domain *d)
{
	unsigned int used = atomic_load(&d->used), slot;

	do
		slot = (unsigned int)__builtin_ctz(~used);
	while (!atomic_compare_exchange_weak(&d->used, &used, used | 1u << slot));
	return slot;
}

long rdt_user_domain_call(struct rdt_user_domain *d, uint64_t op, const void *in, size_t in_len, void *out, size_t room)
{
	unsigned int slot;
	unsigned char *part;
	long ret;

	if (in_len > d->part)
		return rdt_fail(-EMSGSIZE, "calling the domain: %s", rdt_strerror(-EMSGSIZE));
	if (room > d->part)
		room = d->part;
	while (sem_wait(&d->free))
		;	/* EINTR */
	slot = take(d);
	part = d->parts + slot * d->part;
	if (in_len)
		memcpy(part, in, in_len);
	ret = rdt_user_enter(room, in_len, d->window + slot * d->part, op, d->gate);
	if (ret > (long)room || ret < -4095)
		ret = -EBADMSG;
	if (ret > 0)
		memcpy(out, part, (size_t)ret);
	atomic_fetch_and(&d->used, ~(1u << slot));
	sem_post(&d->free);
	if (ret < 0)
		rdt_fail(0, "the domain says: %s", rdt_strerror(ret));
	return ret;
}
