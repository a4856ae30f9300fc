// SPDX-License-Identifier: GPL-2.0

#include "sys.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace redoubt::client {

Error::Error(const std::string &what, int code)
	: std::runtime_error(code ? what + ": " + strerror(code) : what), code_(code)
{
}

Fd::~Fd()
{
	if (fd_ >= 0)
		::close(fd_);
}

int Sys::open(const char *path, int flags)
{
	return ::open(path, flags | O_CLOEXEC);
}

int Sys::access(const char *path, int mode)
{
	return ::access(path, mode);
}

int Sys::ioctl(int fd, unsigned long request, void *arg)
{
	int ret;

	do {
		ret = ::ioctl(fd, request, arg);
	} while (ret < 0 && errno == EINTR);
	return ret;
}

int Sys::poll(pollfd *fds, nfds_t count, int timeout_ms)
{
	return ::poll(fds, count, timeout_ms);
}

void *Sys::map(int fd, size_t size)
{
	return ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
}

} // namespace redoubt::client
