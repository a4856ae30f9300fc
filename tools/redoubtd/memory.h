// SPDX-License-Identifier: GPL-2.0
//
// The VM's memory as a file (memory-backend-file,share=on), in frames of 4096 bytes;
// and SHA-256 for the image's digest.
//
// By pread and pwrite, not by a mapping: reading a hole gives zeroes without making
// pages of them on a host that is short of everything, and an error is an errno, no
// SIGBUS. It is the same page cache that QEMU has mapped.
#pragma once

#include <cstdint>
#include <string>

#include <openssl/evp.h>
#include <sys/types.h>

#include <standby/image.h>

#include "../lib/sys.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;
using client::Error;
using client::Fd;

inline constexpr uint64_t page_bytes = 4096;

class RamFile {
public:
	// Throws; also if it is no whole number of pages, empty, or on hugetlbfs.
	explicit RamFile(const std::string &path);

	uint64_t frames() const { return frames_; }
	int fd() const { return fd_.get(); }
	uint64_t inode() const;
	// Is this still the file at the path, of the same size? Empty: yes.
	std::string changed() const;

	// All of these throw. Frames beyond the end are an error.
	void read(uint64_t first, uint64_t count, uint8_t *to) const;
	void write(uint64_t first, uint64_t count, const uint8_t *from);
	void zero(uint64_t first, uint64_t count);
	// zero() leaves no holes from here on: the VMM has its memory locked, and a page is to stay where its page tables say.
	void keep_pages(bool keep) { keep_ = keep; }
	// The first frame at @from or later that may be other than zero; frames(): none.
	uint64_t next_data(uint64_t from) const;

private:
	void check(uint64_t first, uint64_t count) const;

	std::string path_;
	Fd fd_;
	uint64_t frames_ = 0;
	bool keep_ = false;
};

// What a process has locked, in bytes
uint64_t locked_bytes(pid_t pid);

bool is_zero(const uint8_t *page);

// For sb::Image: owns what it hashes with.
class Hasher {
public:
	Hasher();
	~Hasher();
	Hasher(const Hasher &) = delete;

	sb::Sha256 interface() { return {hash, this}; }

private:
	static bool hash(void *self, const sb::Piece *pieces, unsigned n, uint8_t out[sb::digest_bytes]);

	EVP_MD *md_;
	EVP_MD_CTX *ctx_;
};

} // namespace redoubt::agent
