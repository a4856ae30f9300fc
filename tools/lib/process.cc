// SPDX-License-Identifier: GPL-2.0

#include "process.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <map>
#include <memory>
#include <vector>

#include <dirent.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "parse.h"

namespace redoubt::client {

namespace {

std::string link_target(const std::string &path)
{
	char target[PATH_MAX];
	const ssize_t length = readlink(path.c_str(), target, sizeof(target));

	return length < 0 ? "" : std::string(target, static_cast<size_t>(length));
}

std::vector<int> find_vms(pid_t pid, const std::string &link)
{
	const std::string path = "/proc/" + std::to_string(pid) + "/fd";
	std::unique_ptr<DIR, int (*)(DIR *)> dir(opendir(path.c_str()), closedir);
	std::vector<int> found;

	if (!dir)
		throw Error("open " + path, errno);
	while (const dirent *entry = readdir(dir.get())) {
		const auto number = parse_number(entry->d_name);

		if (number && link_target(path + "/" + entry->d_name) == link)
			found.push_back(static_cast<int>(*number));
	}
	std::sort(found.begin(), found.end());
	return found;
}

// Descriptors made by dup() are one VM. Where kcmp is missing or not allowed
// they stay several, and the user is asked.
void drop_duplicates(pid_t pid, std::vector<int> &fds)
{
	for (size_t i = 0; i < fds.size(); i++)
		std::erase_if(fds, [&](int fd) {
			return fd > fds[i] && syscall(SYS_kcmp, pid, pid, KCMP_FILE, fds[i], fd) == 0;
		});
}

} // namespace

ProcessVm take_vm(Sys &sys, pid_t pid, std::optional<int> number)
{
	const std::string process = "process " + std::to_string(pid);
	// First of all: what is read of /proc from here on is this process, or
	// pidfd_getfd fails.
	const Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));

	if (!pidfd) {
		if (errno == ESRCH)
			throw Error("there is no " + process, errno);
		if (errno == EINVAL)
			throw Error(process + ": not a process's id (a thread's?)", errno);
		throw Error(process, errno);
	}

	if (!number) {
		std::vector<int> found = find_vms(pid, sys.vm_link());

		drop_duplicates(pid, found);
		if (found.empty())
			throw Error(process + " has no KVM VM (no descriptor '" + sys.vm_link() + "')");
		if (found.size() > 1) {
			std::string all;
			for (int fd : found)
				all += (all.empty() ? "" : ", ") + std::to_string(fd);
			throw Error(process + " has several KVM VMs, choose one with --vm-fd: " + all);
		}
		number = found[0];
	}

	const std::string what = "descriptor " + std::to_string(*number) + " of " + process;
	Fd fd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), *number, 0)));
	if (!fd) {
		if (errno == EPERM)
			throw Error(what + ": no ptrace rights over the process", errno);
		throw Error(what, errno);
	}
	// Not the link seen before: the process may have reused the number.
	if (link_target("/proc/self/fd/" + std::to_string(fd.get())) != sys.vm_link())
		throw Error(what + " is not a KVM VM");
	return {std::move(fd), *number};
}

std::vector<Fd> take_vcpus(pid_t pid)
{
	const std::string link = "anon_inode:kvm-vcpu:", path = "/proc/" + std::to_string(pid) + "/fd";
	const Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
	std::unique_ptr<DIR, int (*)(DIR *)> dir(opendir(path.c_str()), closedir);
	std::map<uint64_t, Fd> found;		// by the vCPU's number: duplicates are one
	std::vector<Fd> out;

	if (!pidfd || !dir)
		throw Error("process " + std::to_string(pid), errno);
	while (const dirent *entry = readdir(dir.get())) {
		const auto number = parse_number(entry->d_name);
		const std::string target = number ? link_target(path + "/" + entry->d_name) : "";
		const auto vcpu = target.starts_with(link) ? parse_number(target.substr(link.size())) : std::nullopt;

		if (!vcpu)
			continue;
		Fd fd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), static_cast<int>(*number), 0)));
		if (!fd)
			throw Error("descriptor " + std::string(entry->d_name) + " of process " + std::to_string(pid), errno);
		if (link_target("/proc/self/fd/" + std::to_string(fd.get())) == target)
			found[*vcpu] = std::move(fd);
	}
	for (auto &[number, fd] : found)
		out.push_back(std::move(fd));
	return out;
}

} // namespace redoubt::client
