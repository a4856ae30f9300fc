// SPDX-License-Identifier: GPL-2.0
//
// An archive that a kernel unpacks into its first root (Documentation/driver-api/early-userspace/buffer-format.rst of Linux): "newc".
#pragma once

#include <cstdint>
#include <set>
#include <string>

namespace redoubt::crash {

class Cpio {
public:
	Cpio();
	// All of these make the directories above, and throw. A file's rights: 0700, nobody else is there.
	void file(const std::string &path, const std::string &content);
	// A file of this host's, or of another path
	void copy(const std::string &path, const std::string &from);
	// With its end; only once.
	const std::string &end();

private:
	void entry(const std::string &path, uint32_t mode, const std::string &content, uint32_t major = 0, uint32_t minor = 0);
	void directories(const std::string &path);

	std::string out_;
	std::set<std::string> there_;
	uint32_t inode_ = 0;
};

} // namespace redoubt::crash
