// SPDX-License-Identifier: GPL-2.0
//
// For tests: a model of the module in this process. It answers the ioctls by
// the rules of redoubt.h, as strictly as the header says (reserved fields,
// flags, limits), and its event rings are real shared memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>

#include "sys.h"

namespace redoubt::client {

// A ring in a memfd and its writer, the module's half of the protocol.
class FakeRing {
public:
	explicit FakeRing(uint32_t records);
	~FakeRing();
	FakeRing(const FakeRing &) = delete;

	int fd() const { return fd_.get(); }
	size_t size() const { return size_; }
	rdt_ring *header() const { return ring_; }
	rdt_event *record(uint64_t seq) const;
	uint64_t head() const { return __atomic_load_n(&ring_->head, __ATOMIC_ACQUIRE); }

	// Fills in seq and gives it back.
	uint64_t push(rdt_event event);

private:
	Fd fd_;
	size_t size_;
	rdt_ring *ring_;
};

// What a domain has is a sparse memory by offset from the gate page.
struct FakeDomain {
	rdt_domain_info info{};
	std::map<int64_t, uint8_t> memory;
	int64_t first = 0, end = 0x3000;	// where values may go
	int busy = 0;				// so many tries find a thread inside
};

struct FakeVm {
	explicit FakeVm(uint32_t records) : ring(records) {}

	FakeRing ring;
	int32_t pid = 0;
	uint32_t flags = 0;
	bool listed = true;	// neither dead nor detached
	bool inside = false;	// the guest is in integrity mode
	std::map<uint64_t, rdt_region> regions;
	rdt_domain_quota quota{};
	std::map<uint32_t, FakeDomain> domains;	// by view
};

class FakeModule : public Sys {
public:
	// open("/dev/redoubt") fails with this errno; 0: the module is loaded.
	int open_error = 0;
	bool in_sysfs = true;
	uint32_t version = RDT_UAPI_VERSION;
	uint32_t policy = 0;
	bool may_set_policy = true;		// and what else is for CAP_SYS_ADMIN only
	std::string link = "anon_inode:kvm-vm";
	std::string sysfs_root = "/nowhere";	// a test that wants a sysfs makes one of files
	std::function<void()> on_poll;	// what happens while a reader waits

	uint32_t add_vm(int32_t pid, uint32_t records = RDT_RING_RECORDS);
	FakeVm &vm(uint32_t id) { return *vms_.at(id); }
	// A sealed domain, its measurement 32 times one byte. 0: it is being built.
	FakeDomain &add_domain(uint32_t id, uint32_t view, uint8_t measured, uint32_t flags = 0);
	void raise(uint32_t id, rdt_event event);
	// The two ways a VM ends. The descriptor says so first, then the last event does.
	void kill(uint32_t id) { end(id, RDT_EV_VM_DEAD); }
	void detach(uint32_t id) { end(id, RDT_EV_DETACH); }
	void end(uint32_t id, unsigned type);

	int open(const char *path, int flags) override;
	int access(const char *path, int mode) override;
	int ioctl(int fd, unsigned long request, void *arg) override;
	int poll(pollfd *fds, nfds_t count, int timeout_ms) override;
	void *map(int fd, size_t size) override;
	std::string vm_link() const override { return link; }
	std::string sysfs() const override { return sysfs_root; }

private:
	int device_ioctl(unsigned long request, void *arg);
	int vm_ioctl(int fd, uint32_t id, unsigned long request, void *arg);
	int domain_ioctl(FakeVm &vm, unsigned long request, void *arg);
	int move_domain(FakeVm &vm, bool out, rdt_domain_export &move);
	int open_vm(uint32_t id);
	uint32_t vm_of(int fd);

	std::recursive_mutex lock_;
	std::map<uint32_t, std::unique_ptr<FakeVm>> vms_;
	std::map<uint64_t, uint32_t> inode_;	// of a ring's memfd -> VM
	std::map<int, uint64_t> seen_;
	uint32_t last_id_ = 0;
};

} // namespace redoubt::client
