// SPDX-License-Identifier: GPL-2.0

#include "memory.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace redoubt::agent {

RamFile::RamFile(const std::string &path) : path_(path), fd_(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW))
{
	struct stat st;
	struct statfs fs;

	if (!fd_)
		throw Error("open " + path, errno);
	if (fstat(fd_.get(), &st) || fstatfs(fd_.get(), &fs))
		throw Error(path, errno);
	if (fs.f_type == HUGETLBFS_MAGIC)
		throw Error(path + " is on hugetlbfs, which is not supported");
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size % static_cast<off_t>(page_bytes))
		throw Error(path + " is no file of whole pages");
	frames_ = static_cast<uint64_t>(st.st_size) / page_bytes;
}

uint64_t RamFile::inode() const
{
	struct stat st;

	return fstat(fd_.get(), &st) ? 0 : st.st_ino;
}

std::string RamFile::changed() const
{
	struct stat now, ours;

	if (stat(path_.c_str(), &now) || fstat(fd_.get(), &ours))
		return path_ + ": " + strerror(errno);
	if (now.st_dev != ours.st_dev || now.st_ino != ours.st_ino || now.st_size != ours.st_size ||
	    static_cast<uint64_t>(ours.st_size) != frames_ * page_bytes)
		return path_ + " is another file now";
	return "";
}

void RamFile::check(uint64_t first, uint64_t count) const
{
	if (first > frames_ || count > frames_ - first)
		throw Error(path_ + ": frames behind its end");
}

void RamFile::read(uint64_t first, uint64_t count, uint8_t *to) const
{
	check(first, count);
	for (uint64_t done = 0; done < count * page_bytes;) {
		const ssize_t got = pread(fd_.get(), to + done, count * page_bytes - done, static_cast<off_t>(first * page_bytes + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			throw Error("read " + path_, got ? errno : EIO);
		done += static_cast<uint64_t>(got);
	}
}

void RamFile::write(uint64_t first, uint64_t count, const uint8_t *from)
{
	check(first, count);
	for (uint64_t done = 0; done < count * page_bytes;) {
		const ssize_t put = pwrite(fd_.get(), from + done, count * page_bytes - done, static_cast<off_t>(first * page_bytes + done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			throw Error("write " + path_, put ? errno : EIO);
		done += static_cast<uint64_t>(put);
	}
}

void RamFile::zero(uint64_t first, uint64_t count)
{
	static const uint8_t zeroes[page_bytes] = {};

	check(first, count);
	// A hole is zero, and costs nothing.
	if (!keep_ && !fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(first * page_bytes),
		       static_cast<off_t>(count * page_bytes)))
		return;
	if (!keep_ && errno != EOPNOTSUPP && errno != ENOSYS)
		throw Error("punch a hole into " + path_, errno);
	for (uint64_t i = 0; i < count; i++)
		write(first + i, 1, zeroes);
}

uint64_t RamFile::next_data(uint64_t from) const
{
	if (from >= frames_)
		return frames_;
	const off_t at = lseek(fd_.get(), static_cast<off_t>(from * page_bytes), SEEK_DATA);
	if (at < 0)
		return errno == ENXIO ? frames_ : from;
	return static_cast<uint64_t>(at) / page_bytes;
}

uint64_t locked_bytes(pid_t pid)
{
	std::ifstream status("/proc/" + std::to_string(pid) + "/status");

	for (std::string line; std::getline(status, line);) {
		if (line.starts_with("VmLck:"))
			return strtoull(line.c_str() + 6, nullptr, 10) * 1024;
	}
	return 0;
}

bool is_zero(const uint8_t *page)
{
	// The first bytes tell most pages apart; the rest is a comparison with itself, shifted.
	uint64_t head[2];

	memcpy(head, page, sizeof(head));
	return !head[0] && !head[1] && !memcmp(page, page + sizeof(head), page_bytes - sizeof(head));
}

Hasher::Hasher() : md_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), ctx_(EVP_MD_CTX_new())
{
	if (!md_ || !ctx_)
		throw Error("OpenSSL has no SHA-256");
}

Hasher::~Hasher()
{
	EVP_MD_CTX_free(ctx_);
	EVP_MD_free(md_);
}

bool Hasher::hash(void *self, const sb::Piece *pieces, unsigned n, uint8_t out[sb::digest_bytes])
{
	auto *hasher = static_cast<Hasher *>(self);

	if (EVP_DigestInit_ex2(hasher->ctx_, hasher->md_, nullptr) != 1)
		return false;
	for (unsigned i = 0; i < n; i++) {
		if (EVP_DigestUpdate(hasher->ctx_, pieces[i].p, pieces[i].n) != 1)
			return false;
	}
	return EVP_DigestFinal_ex(hasher->ctx_, out, nullptr) == 1;
}

} // namespace redoubt::agent
