// SPDX-License-Identifier: GPL-2.0
#include "cpio.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include <sys/stat.h>

namespace redoubt::crash {

// What the kernel opens for the first program
Cpio::Cpio()
{
	entry("dev", S_IFDIR | 0755, "");
	there_.insert("dev");
	entry("dev/console", S_IFCHR | 0600, "", 5, 1);
}

void Cpio::entry(const std::string &path, uint32_t mode, const std::string &content, uint32_t major, uint32_t minor)
{
	char head[111];

	snprintf(head, sizeof(head), "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", ++inode_, mode, 0u, 0u, 1u, 0u, content.size(), 0u, 0u,
		 major, minor, path.size() + 1, 0u);
	out_.append(head, sizeof(head) - 1);
	out_.append(path.c_str(), path.size() + 1);
	out_.resize((out_.size() + 3) / 4 * 4);
	out_ += content;
	out_.resize((out_.size() + 3) / 4 * 4);
}

void Cpio::directories(const std::string &path)
{
	for (size_t at = path.find('/'); at != std::string::npos; at = path.find('/', at + 1))
		if (there_.insert(path.substr(0, at)).second)
			entry(path.substr(0, at), S_IFDIR | 0755, "");
}

void Cpio::file(const std::string &path, const std::string &content)
{
	const std::string plain = path.substr(path.find_first_not_of('/'));

	directories(plain);
	entry(plain, S_IFREG | 0700, content);
}

void Cpio::copy(const std::string &path, const std::string &from)
{
	std::ifstream in(from, std::ios::binary);
	std::ostringstream content;

	if (!in)
		throw std::runtime_error(from + ": " + strerror(errno));
	content << in.rdbuf();
	file(path, content.str());
}

const std::string &Cpio::end()
{
	entry("TRAILER!!!", 0, "");
	return out_;
}

} // namespace redoubt::crash
