// SPDX-License-Identifier: GPL-2.0
//
// redoubt_standby.ko: a registration, the family's requests, and its stream of pages.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <linux/redoubt_crash.h>
#include <linux/redoubt_standby.h>

#include "config.h"
#include "loop.h"
#include "primary.h"

namespace redoubt::agent {

// A VM that the module holds: its memory and its vCPUs stay when the VMM is killed.
// It ends with the object.
class Hold {
public:
	// Throws: no module, no KVM VM in the process, no rights.
	Hold(pid_t pid, const Uuid &uuid);

	uint32_t id() const { return id_; }
	unsigned vcpus() const { return vcpus_; }
	// In the order of their INDEX
	const std::vector<Fd> &vcpu_fds() const { return vcpu_fds_; }
	// What a crash kernel shall find (RDT_SB_CRASH): an image's frames by where the VMM has them, a note, and memory that we go on
	// writing to. Without: nothing but the VM. Throws; then what was there is found.
	void leave(std::span<const rdt_crash_range> ranges = {}, std::span<const uint8_t> note = {}, const void *live = nullptr, size_t live_bytes = 0);
	// Is the device there at all?
	static bool available();

private:
	Fd device_;
	uint32_t id_ = 0;
	unsigned vcpus_ = 0;
	std::vector<Fd> vcpu_fds_;
};

// One request at a time, answered before it returns: the module answers at once.
class Genl {
public:
	// Throws if there is no such family.
	Genl();

	struct Attribute {
		uint16_t type;
		const void *data;
		size_t size;
	};
	// Throws with the module's errno. @reply: sees each message (nlmsghdr) of the answer.
	void request(uint8_t command, std::initializer_list<Attribute> attributes, const std::function<void(const void *)> &reply = {});
	uint16_t family() const { return family_; }

private:
	uint32_t send(uint16_t type, uint8_t command, uint8_t version, std::initializer_list<Attribute> attributes);
	// Until the acknowledgement of @seq; @reply sees what comes before it.
	void receive(uint32_t seq, const std::function<void(const void *)> &reply);

	Fd socket_;
	uint32_t seq_ = 0;
	uint16_t family_ = 0;
};

// Where the process has mapped the file: page p of the file lies at frame hva.
struct Mapping {
	uint64_t hva, frames, page;
};
// By /proc/PID/maps; throws if not all of the file is mapped.
std::vector<Mapping> find_mappings(pid_t pid, const RamFile &ram);

class NetlinkSource : public PageSource {
public:
	// @ready: there is something to produce() again. Throws.
	NetlinkSource(Loop &loop, const RamFile &ram, pid_t pid, uint32_t vm, std::function<void()> ready);
	~NetlinkSource() override;

	void want(std::span<const sb::Run> runs) override;
	void cancel() override;
	bool produce(const Take &take) override;
	bool finished() const override { return finished_; }
	uint64_t lost() const override { return lost_; }

private:
	void open_data_socket();
	void ask(uint8_t command, const std::vector<sb::Run> &runs);
	void on_pages(const void *attributes, const Take &take);
	void on_end();
	void on_quiet();
	std::optional<uint64_t> page_of(uint64_t hva) const;

	Loop &loop_;
	std::function<void()> ready_;
	uint32_t vm_;
	uint64_t frames_;
	std::vector<Mapping> mappings_;
	Genl genl_;
	Fd data_;
	std::vector<uint8_t> buffer_;
	std::vector<bool> wanted_;	// pages that have not come yet
	uint64_t missing_ = 0, seq_ = 0, lost_ = 0;
	uint32_t stream_ = 0;
	unsigned rounds_ = 0;
	bool open_ = false, finished_ = true;
	Loop::Timer quiet_ = 0;
	std::string lost_stream_;
};

} // namespace redoubt::agent
