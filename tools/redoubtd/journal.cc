// SPDX-License-Identifier: GPL-2.0

#include "journal.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../lib/parse.h"

namespace redoubt::agent {

StateDirectory::StateDirectory(const std::string &path) : path_(path)
{
	std::error_code error;

	std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
	if (mkdir(path.c_str(), 0700) && errno != EEXIST)
		throw Error("mkdir " + path, errno);
	lock_ = Fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (!lock_)
		throw Error("open " + path, errno);
	if (flock(lock_.get(), LOCK_EX | LOCK_NB))
		throw Error(path + " is another redoubtd's", errno == EWOULDBLOCK ? 0 : errno);
	// That the directory itself stays.
	const Fd parent(open(std::filesystem::path(path).parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (!parent || fsync(parent.get()))
		throw Error("fsync of the directory above " + path, errno);
}

JournalFile::JournalFile(const StateDirectory &directory, const std::string &vm) : path_(directory.path() + "/" + vm + ".journal")
{
	std::vector<uint8_t> bytes(sb::Journal::file_bytes);
	const Fd dir(open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));

	fd_ = Fd(open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
	if (!fd_)
		throw Error("open " + path_, errno);
	const ssize_t got = pread(fd_.get(), bytes.data(), bytes.size(), 0);
	if (got < 0)
		throw Error("read " + path_, errno);
	switch (journal_.load(bytes.data(), static_cast<size_t>(got))) {
	case Status::Ok:
		known_ = true;
		break;
	case Status::None:
		break;
	default:
		throw Error(path_ + " holds no whole record: nothing is known about this VM. See Documentation/redoubtd.md, \"A journal that cannot be read\"");
	}
	// What was read may be in the page cache only, from a write that failed: what counts is on the disk.
	if (got > 0 && pwrite(fd_.get(), bytes.data(), static_cast<size_t>(got), 0) != got)
		throw Error("write " + path_, errno);
	// Its blocks are there before they are needed, and its name, too.
	if (posix_fallocate(fd_.get(), 0, static_cast<off_t>(bytes.size())) || fsync(fd_.get()) || !dir || fsync(dir.get()))
		throw Error("prepare " + path_, errno);
}

void JournalFile::write(const sb::Record &record, bool sync)
{
	uint8_t bytes[sb::Journal::record_bytes];
	const uint64_t at = journal_.next(record, bytes);
	const ssize_t put = pwrite(fd_.get(), bytes, sizeof(bytes), static_cast<off_t>(at));

	if (put != static_cast<ssize_t>(sizeof(bytes)))
		throw Error("write " + path_, put < 0 ? errno : EIO);
	if (sync && fdatasync(fd_.get()))
		throw Error("fdatasync " + path_, errno);
	known_ = true;
}

uint64_t read_boot(const std::string &path)
{
	std::ifstream in(path);
	std::string text, digits;
	uint8_t id[16] = {};

	std::getline(in, text);
	for (const char c : text) {
		if (c != '-')
			digits += c;
	}
	if (digits.size() != 32 || digits.find_first_not_of("0123456789abcdef") != std::string::npos)
		throw Error(path + " is no boot id");
	for (size_t i = 0; i < 16; i++)
		id[i] = static_cast<uint8_t>(client::parse_number("0x" + digits.substr(2 * i, 2)).value());
	return sb::boot_number(id);
}

} // namespace redoubt::agent
