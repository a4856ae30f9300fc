// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/redoubt/NAME without a virtual machine, for programs that run with this in LD_PRELOAD:
 * OUTSIDE_IMAGE is the domain's image, OUTSIDE_STATE a file with its data, shared by all.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "outside.h"

static struct rdt_image *image;
static int device = -1;
static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;

static int start(void)
{
	const char *path = getenv("OUTSIDE_IMAGE"), *state = getenv("OUTSIDE_STATE");
	int fd, err = 0;

	pthread_mutex_lock(&once);
	if (!image) {
		fd = state ? open(state, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
		err = path ? rdt_image_load(path, &image) : -ENOENT;
		if (!err)
			err = outside_map(image, fd);
		if (!err)
			device = memfd_create("redoubt", MFD_CLOEXEC);
	}
	pthread_mutex_unlock(&once);
	if (err)
		errno = -err;
	return err ? -1 : fcntl(device, F_DUPFD_CLOEXEC, 0);
}

int open(const char *path, int flags, ...)
{
	static int (*real)(const char *, int, ...);
	mode_t mode = 0;
	va_list args;

	va_start(args, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(args, mode_t);
	va_end(args);
	if (!strncmp(path, "/dev/redoubt/", 13))
		return start();
	if (!real)
		real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	return real(path, flags, mode);
}

/* A slot of all processes': a byte range of the state that one locks at a time. */
static unsigned int take(int fd, struct flock *l)
{
	for (unsigned int slot = 0;; slot = (slot + 1) % image->slots) {
		*l = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1 };
		if (!fcntl(fd, F_OFD_SETLK, l))
			return slot;
		usleep(100);
	}
}

static int is_device(int fd)
{
	struct stat a, b;

	return image && !fstat(fd, &a) && !fstat(device, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*real)(int, unsigned long, ...);
	struct rdt_call *c;
	struct flock l;
	va_list args;
	void *arg;
	int lock;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request != RDT_DOMAIN_CALL || !is_device(fd)) {
		if (!real)
			real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
		return real(fd, request, arg);
	}
	c = arg;
	lock = open(getenv("OUTSIDE_STATE"), O_RDWR | O_CLOEXEC);
	c->result = outside_call(image, take(lock, &l), c->op, (void *)(uintptr_t)c->in, c->in_len,
				 (void *)(uintptr_t)c->out, c->out_len);
	close(lock);
	return 0;
}
