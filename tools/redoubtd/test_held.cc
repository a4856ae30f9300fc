// SPDX-License-Identifier: GPL-2.0
//
// F2: in the middle of which access a QEMU may be killed.

#include "held.h"

#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <unistd.h>

#include "testing.h"

namespace redoubt::agent {

namespace {

// A vCPU's descriptor, as far as pending_access() looks: what KVM has told of its last exit.
std::string pending(const kvm_run &run)
{
	Fd fd(memfd_create("vcpu", 0));

	EXPECT_EQ(write(fd.get(), &run, sizeof(run)), static_cast<ssize_t>(sizeof(run)));
	EXPECT_EQ(ftruncate(fd.get(), 4096), 0);
	return pending_access(fd);
}

std::string port(uint16_t number, uint8_t direction, uint32_t count = 1)
{
	kvm_run run{};

	run.exit_reason = KVM_EXIT_IO;
	run.io.port = number;
	run.io.direction = direction;
	run.io.size = 1;
	run.io.count = count;
	return pending(run);
}

TEST(Held, F2AccessesThatMayBeMadeAgain)
{
	for (const uint16_t number : {0xcf8, 0xcfc, 0xcff, 0x70, 0x71, 0x80, 0x92, 0x600, 0x608, 0xe9, 0x402}) {
		EXPECT_EQ(port(number, KVM_EXIT_IO_OUT), "") << number;
		EXPECT_EQ(port(number, KVM_EXIT_IO_IN), "") << number;
	}
	kvm_run read{};
	read.exit_reason = KVM_EXIT_MMIO;
	read.mmio.phys_addr = 0xfe000000;
	EXPECT_EQ(pending(read), "");
}

TEST(Held, F2OthersAreRefusedByName)
{
	// The keyboard controller, a UART, the interrupt controllers, ports beside those that may, a string of them
	for (const uint16_t number : {0x60, 0x64, 0x3f8, 0x20, 0xa1, 0x91, 0x93, 0xcf7, 0xd00, 0x680})
		EXPECT_NE(port(number, KVM_EXIT_IO_OUT).find("killed in the middle of an access to port"), std::string::npos) << number;
	EXPECT_NE(port(0xcfc, KVM_EXIT_IO_IN, 2), "");
	kvm_run run{};
	run.exit_reason = KVM_EXIT_MMIO;
	run.mmio.phys_addr = 0xfe003000;
	run.mmio.is_write = 1;
	EXPECT_EQ(pending(run), "killed in the middle of a write to a device's memory at 0xfe003000: it may be lost");
	run.exit_reason = KVM_EXIT_HYPERCALL;
	EXPECT_EQ(pending(run), "killed in the middle of an exit of kind 3");
	EXPECT_NE(pending_access(Fd()), "");
}

} // namespace

} // namespace redoubt::agent
