// SPDX-License-Identifier: GPL-2.0
/* /dev/redoubt-domain and /dev/redoubt/NAME. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "internal.h"

#define DEVICE "/dev/redoubt-domain"

static int fail(const char *what)
{
	int err = -errno;

	return rdt_fail(err, "%s: %s", what, rdt_strerror(err));
}

int rdt_domain_create(struct rdt_image *image)
{
	int err, fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return fail(DEVICE);
	if (!ioctl(fd, RDT_DOMAIN_CREATE, image))
		return fd;
	err = fail("loading the domain");
	close(fd);
	return err;
}

int rdt_domain_open(const char *name)
{
	char path[256];
	int fd;

	if (snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/dev/redoubt/", name) >= (int)sizeof(path))
		return rdt_fail(-ENAMETOOLONG, "the name is too long");
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? fail(path) : fd;
}

void rdt_domain_close(int fd)
{
	close(fd);
}

long rdt_domain_call(int fd, uint64_t op, const void *in, size_t in_len, void *out, size_t room)
{
	struct rdt_call call = {
		.op = op,
		.in = (uintptr_t)in,
		.out = (uintptr_t)out,
		.in_len = in_len,
		.out_len = room > UINT32_MAX ? UINT32_MAX : room,
	};

	if (in_len > UINT32_MAX)
		return rdt_fail(-EMSGSIZE, "calling the domain: %s", rdt_strerror(-EMSGSIZE));
	if (ioctl(fd, RDT_DOMAIN_CALL, &call))
		return fail("calling the domain");
	if (call.result < 0)
		rdt_fail(0, "the domain says: %s", rdt_strerror(call.result));
	return call.result;
}

int rdt_domain_publish(int fd, const char *name, unsigned int mode, unsigned int flags)
{
	struct rdt_publish p = { .mode = mode, .flags = flags };

	if (strlen(name) >= sizeof(p.name))
		return rdt_fail(-EINVAL, "the name is too long");
	strcpy(p.name, name);
	return ioctl(fd, RDT_DOMAIN_PUBLISH, &p) ? fail("publishing the domain") : 0;
}

int rdt_domain_unpublish(int fd)
{
	return ioctl(fd, RDT_DOMAIN_UNPUBLISH) ? fail("unpublishing the domain") : 0;
}

int rdt_domain_about(int fd, struct rdt_domain_about *about)
{
	memset(about, 0, sizeof(*about));
	return ioctl(fd, RDT_DOMAIN_INFO, about) ? fail("asking about the domain") : 0;
}
