// SPDX-License-Identifier: GPL-2.0
//
// /dev/redoubt and the descriptors of attached VMs: the ioctls as methods. What
// fails throws Error with one line that says what was wanted and why not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>

#include "ring.h"
#include "secret.h"
#include "sys.h"

namespace redoubt::client {

// An attached VM. Closing it does not detach it.
class Vm {
public:
	Vm(Sys &sys, Fd fd, uint32_t id) : sys_(&sys), fd_(std::move(fd)), id_(id) {}

	uint32_t id() const { return id_; }
	int fd() const { return fd_.get(); }

	rdt_vm_info info() const;
	std::vector<rdt_region> regions(uint64_t start = 0) const;
	void protect(uint64_t gpa, uint64_t pages, unsigned action, unsigned cls) const;
	void detach(bool force) const;

	// Protection domains, by view.
	std::vector<rdt_domain_info> domains() const;
	rdt_domain_info domain(uint64_t id) const;
	rdt_domain_quota quota() const;
	void set_quota(const rdt_domain_quota &quota) const;
	// False: a thread is inside; ask again.
	bool destroy(uint64_t id) const;
	bool install(uint64_t id, const Secret &value, const std::vector<rdt_fixup> &fixups) const;
	// @key: 32 bytes. What is between is a struct rdt_domain_blob.
	std::vector<uint8_t> export_domain(uint64_t id, const Secret &key) const;
	void import_domain(uint64_t id, const Secret &key, const std::vector<uint8_t> &blob) const;

	EventRing events() const;
	// What poll() on fd() compares the newest event with.
	void seen(uint64_t seq) const;

private:
	void call(unsigned long request, void *arg, const char *what) const;
	bool call_unless(int code, unsigned long request, void *arg, const std::string &what) const;

	Sys *sys_;
	Fd fd_;
	uint32_t id_;
};

class Device {
public:
	static constexpr const char *path = "/dev/redoubt";

	// Throws NoModule if the module is not loaded, Error if it speaks another version.
	explicit Device(Sys &sys);

	const rdt_info &info() const { return info_; }
	std::vector<rdt_list_entry> list() const;

	Vm attach(int kvm_vm_fd) const;
	Vm open(uint32_t vm_id) const;
	// @name: a vm_id or "pid:PID".
	Vm find(const std::string &name) const;

	uint32_t policy() const;
	void set_policy(uint32_t flags) const;

private:
	void call(unsigned long request, void *arg, const char *what) const;

	Sys *sys_;
	Fd fd_;
	rdt_info info_{};
};

} // namespace redoubt::client
