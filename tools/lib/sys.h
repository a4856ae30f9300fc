// SPDX-License-Identifier: GPL-2.0
//
// The system calls behind the client, in one class, so that tests can put a
// model of the module in their place. The base class is the real thing.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

#include <poll.h>

namespace redoubt::client {

// what() is one line that ends with the errno's text, if there is an errno.
class Error : public std::runtime_error {
public:
	explicit Error(const std::string &what, int code = 0);
	int code() const { return code_; }

private:
	int code_;
};

// The module is not loaded.
class NoModule : public Error {
public:
	using Error::Error;
};

class Fd {
public:
	Fd() = default;
	explicit Fd(int fd) : fd_(fd) {}
	Fd(Fd &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
	Fd &operator=(Fd &&other) noexcept
	{
		std::swap(fd_, other.fd_);
		return *this;
	}
	~Fd();

	int get() const { return fd_; }
	explicit operator bool() const { return fd_ >= 0; }

private:
	int fd_ = -1;
};

class Sys {
public:
	virtual ~Sys() = default;

	// As the calls of the same name: -1 and errno.
	virtual int open(const char *path, int flags);
	virtual int access(const char *path, int mode);
	virtual int ioctl(int fd, unsigned long request, void *arg);
	virtual int poll(pollfd *fds, nfds_t count, int timeout_ms);
	// Read-only and shared; MAP_FAILED and errno.
	virtual void *map(int fd, size_t size);
	// What /proc/PID/fd/N of a KVM VM points to.
	virtual std::string vm_link() const { return "anon_inode:kvm-vm"; }
	virtual std::string sysfs() const { return "/sys"; }
};

} // namespace redoubt::client
