// SPDX-License-Identifier: GPL-2.0
//
// kexec_file_load(2); no library has it, and Debian's kexec wants one of Xen's.
#include "kexec.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include <fcntl.h>
#include <linux/kexec.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys.h"

namespace redoubt::crash {
namespace {

using client::Fd;

[[noreturn]] void fail(const std::string &what)
{
	throw std::runtime_error(what + ": " + strerror(errno));
}

Fd open_file(const std::string &path)
{
	Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));

	if (!fd)
		fail(path);
	return fd;
}

void append(int to, const std::string &path)
{
	const Fd from = open_file(path);
	static const char zero[512] = {};
	char buffer[65536];
	size_t all = 0;

	for (;;) {
		const ssize_t got = read(from.get(), buffer, sizeof(buffer));
		if (got < 0)
			fail(path);
		if (got == 0)
			break;
		if (write(to, buffer, static_cast<size_t>(got)) != got)
			fail("memory for the initramfs");
		all += static_cast<size_t>(got);
	}
	// The next archive begins at a multiple of four.
	if (const size_t rest = all % sizeof(zero); rest && write(to, zero, sizeof(zero) - rest) < 0)
		fail("memory for the initramfs");
}

} // namespace

void load(const CrashKernel &what)
{
	const Fd kernel = open_file(what.kernel), initramfs(memfd_create("initramfs", MFD_CLOEXEC));

	if (!initramfs)
		fail("memfd_create");
	for (const std::string &path : what.initramfs)
		append(initramfs.get(), path);
	if (syscall(SYS_kexec_file_load, kernel.get(), initramfs.get(), what.line.size() + 1, what.line.c_str(),
		    static_cast<unsigned long>(KEXEC_FILE_ON_CRASH)))
		fail(errno == EADDRNOTAVAIL ? "no memory is reserved (crashkernel= on this kernel's command line)" : "kexec_file_load");
}

void unload()
{
	if (syscall(SYS_kexec_file_load, -1, -1, 0ul, nullptr,
		    static_cast<unsigned long>(KEXEC_FILE_UNLOAD | KEXEC_FILE_ON_CRASH)))
		fail("kexec_file_load");
}

} // namespace redoubt::crash
