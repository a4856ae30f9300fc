// SPDX-License-Identifier: GPL-2.0

#include "saved.h"

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <iterator>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace redoubt::agent {

namespace {

constexpr size_t head_bytes = 192;
constexpr const char *form = "redoubt-saved 2 %d %" PRIu64 " %" PRIx64 " %" PRIu64 " %" PRIu64 " %zu";

void put_all(const Fd &fd, const std::string &path, const void *bytes, size_t size)
{
	for (size_t done = 0; done < size;) {
		const ssize_t put = write(fd.get(), static_cast<const uint8_t *>(bytes) + done, size - done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			throw Error("write " + path, put ? errno : EIO);
		done += static_cast<size_t>(put);
	}
}

} // namespace

uint64_t start_time(pid_t pid)
{
	std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
	const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
	const size_t name_end = text.rfind(')');
	uint64_t out = 0;
	char state = 'Z';

	// The 22nd field; the name, the second, may hold anything. Z: only its parent has not asked yet.
	if (pid <= 0 || name_end == std::string::npos ||
	    sscanf(text.c_str() + name_end + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64, &state, &out) != 2 || state == 'Z' || state == 'X')
		return 0;
	return out;
}

void write_private(const std::string &path, const std::string &head, const std::vector<uint8_t> &bytes)
{
	const std::string temporary = path + ".new";

	// The directory may be everybody's: not into a file that somebody else has put there.
	unlink(temporary.c_str());
	const Fd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
	if (!fd)
		throw Error("create " + temporary, errno);
	put_all(fd, temporary, head.data(), head.size());
	put_all(fd, temporary, bytes.data(), bytes.size());
	if (rename(temporary.c_str(), path.c_str()))
		throw Error("rename " + temporary, errno);
}

void write_saved(const std::string &path, const Saved &saved)
{
	char text[head_bytes];

	snprintf(text, sizeof(text), form, saved.pid, saved.started, saved.boot, saved.frames, saved.inode, saved.state.size());
	std::string head = text;
	head.resize(head_bytes, '\n');
	write_private(path, head, saved.state);
}

Saved read_saved(const std::string &path, uint64_t boot)
{
	Saved out;
	struct stat st;
	char head[head_bytes + 1] = {};
	size_t size;
	const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));

	if (!fd || fstat(fd.get(), &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) ||
	    read(fd.get(), head, head_bytes) != static_cast<ssize_t>(head_bytes) ||
	    sscanf(head, "redoubt-saved 2 %d %" SCNu64 " %" SCNx64 " %" SCNu64 " %" SCNu64 " %zu", &out.pid, &out.started, &out.boot, &out.frames,
		   &out.inode, &size) != 6 ||
	    out.boot != boot || static_cast<uint64_t>(st.st_size) != head_bytes + size)
		return {};
	out.state.resize(size);
	for (size_t done = 0; done < size;) {
		const ssize_t got = read(fd.get(), out.state.data() + done, size - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return {};
		done += static_cast<size_t>(got);
	}
	return out;
}

} // namespace redoubt::agent
