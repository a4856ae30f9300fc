// SPDX-License-Identifier: GPL-2.0

#include "secret.h"

#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "parse.h"

namespace redoubt::client {

namespace {

constexpr size_t page = 4096;

// Ours to close, or one that was handed to us.
struct Source {
	Fd own;
	int fd;
	std::string name;
};

Source open_source(const std::string &from)
{
	if (from == "-")
		return {Fd(), STDIN_FILENO, "standard input"};
	if (from.starts_with("fd:")) {
		const auto number = parse_number(std::string_view(from).substr(3));

		if (!number || *number > INT_MAX || fcntl(static_cast<int>(*number), F_GETFD) < 0)
			throw Error(from + " is not an open descriptor");
		return {Fd(), static_cast<int>(*number), from};
	}
	Fd own(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
	if (!own)
		throw Error("open " + from, errno);
	const int fd = own.get();
	return {std::move(own), fd, from};
}

// Of what is open, not of the name: nobody can put another file there meanwhile.
void check_mode(const Source &source)
{
	struct stat st;

	if (fstat(source.fd, &st))
		throw Error(source.name, errno);
	if (!S_ISREG(st.st_mode))
		return;
	if (st.st_mode & (S_IRWXG | S_IRWXO)) {
		char mode[8];

		snprintf(mode, sizeof(mode), "%04o", static_cast<unsigned>(st.st_mode & 07777));
		throw Error(source.name + ": others than its owner have rights to it (mode " + mode +
			    "), so it may be no secret: chmod go= first, or --any-mode");
	}
	if (st.st_uid != 0 && st.st_uid != geteuid())
		throw Error(source.name + " belongs to user " + std::to_string(st.st_uid) +
			    ", neither to root nor to us: --any-mode to take it all the same");
}

} // namespace

Secret::Secret(size_t size) : data_(nullptr), room_((size + page - 1) / page * page), size_(size)
{
	void *at = mmap(nullptr, room_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		throw Error("memory for a secret", errno);
	if (mlock(at, room_) || madvise(at, room_, MADV_DONTDUMP)) {
		const int code = errno;

		munmap(at, room_);
		throw Error("memory for a secret cannot be locked (ulimit -l)", code);
	}
	data_ = static_cast<uint8_t *>(at);
}

Secret::Secret(Secret &&other) noexcept
	: data_(std::exchange(other.data_, nullptr)), room_(other.room_), size_(other.size_)
{
}

Secret::~Secret()
{
	if (!data_)
		return;
	explicit_bzero(data_, room_);
	munmap(data_, room_);
}

Secret read_secret(const std::string &from, size_t most, bool any_mode)
{
	const Source source = open_source(from);
	// One byte more, to see that there is none.
	Secret secret(most + 1);
	size_t have = 0;

	if (!any_mode)
		check_mode(source);
	while (have < secret.size()) {
		const ssize_t n = ::read(source.fd, secret.data() + have, secret.size() - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			throw Error("read " + source.name, errno);
		if (!n)
			break;
		have += static_cast<size_t>(n);
	}
	if (!have)
		throw Error(source.name + " is empty");
	if (have > most)
		throw Error(source.name + " has more than " + std::to_string(most) + " bytes");
	secret.size_ = have;
	return secret;
}

} // namespace redoubt::client
