// SPDX-License-Identifier: GPL-2.0
//
// Finding and taking a VM's descriptor out of another process. An eventfd takes
// the place of the VM, so that this needs no KVM.

#include <csignal>

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake.h"
#include "process.h"

namespace redoubt::client {

namespace {

// A process of its own with so many "VMs", the first one open twice.
class Vmm {
public:
	explicit Vmm(int vms)
	{
		int ready[2];

		if (pipe(ready))
			abort();
		pid_ = fork();
		if (!pid_) {
			for (int i = 0; i < vms; i++) {
				const int fd = eventfd(100 + static_cast<unsigned>(i), 0);
				if (!i)
					dup2(fd, 77);
				dup2(fd, 50 + i);
				::close(fd);
			}
			if (write(ready[1], "", 1) == 1)
				pause();
			_exit(0);
		}
		char byte;
		if (read(ready[0], &byte, 1) != 1)
			abort();
		::close(ready[0]);
		::close(ready[1]);
	}
	~Vmm() { end(); }

	pid_t pid() const { return pid_; }
	void end()
	{
		if (pid_ <= 0)
			return;
		::kill(pid_, SIGKILL);
		waitpid(pid_, nullptr, 0);
		pid_ = 0;
	}

private:
	pid_t pid_;
};

class Process : public testing::Test {
protected:
	Process() { sys.link = "anon_inode:[eventfd]"; }

	uint64_t value(const Fd &fd)
	{
		uint64_t count = 0;

		EXPECT_EQ(read(fd.get(), &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
		return count;
	}
	std::string refusal(pid_t pid, std::optional<int> number)
	{
		try {
			take_vm(sys, pid, number);
		} catch (const Error &error) {
			return error.what();
		}
		return "";
	}

	FakeModule sys;
};

TEST_F(Process, TakesTheOnlyVmThoughItIsOpenTwice)
{
	const Vmm vmm(1);
	const ProcessVm taken = take_vm(sys, vmm.pid(), std::nullopt);

	EXPECT_EQ(taken.number, 50);
	EXPECT_EQ(value(taken.fd), 100u);
}

TEST_F(Process, AsksWhichOfSeveral)
{
	const Vmm vmm(3);

	const std::string text = refusal(vmm.pid(), std::nullopt);
	EXPECT_NE(text.find("several KVM VMs, choose one with --vm-fd: 50, 51, 52"), std::string::npos) << text;
	EXPECT_EQ(value(take_vm(sys, vmm.pid(), 51).fd), 101u);
}

TEST_F(Process, RefusesWhatIsNoVm)
{
	const Vmm vmm(1), none(0);

	EXPECT_NE(refusal(none.pid(), std::nullopt).find("has no KVM VM"), std::string::npos);
	EXPECT_NE(refusal(vmm.pid(), 1).find("is not a KVM VM"), std::string::npos);
	EXPECT_NE(refusal(vmm.pid(), 999).find("Bad file descriptor"), std::string::npos);
}

TEST_F(Process, RefusesAProcessThatIsGone)
{
	Vmm vmm(1);
	const pid_t pid = vmm.pid();

	vmm.end();
	EXPECT_NE(refusal(pid, std::nullopt).find("there is no process"), std::string::npos);
}

} // namespace

} // namespace redoubt::client
