// SPDX-License-Identifier: GPL-2.0

#include "dirty.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace redoubt::agent {

namespace {

// A request is answered at once: so many take some milliseconds, all dirty.
constexpr uint32_t scan_frames = 8192;

const nlattr *find(const void *message, uint16_t type)
{
	const auto *head = static_cast<const nlmsghdr *>(message);
	const auto *attr = static_cast<const nlattr *>(mnl_nlmsg_get_payload_offset(head, sizeof(genlmsghdr)));
	const auto *end = static_cast<const char *>(mnl_nlmsg_get_payload_tail(head));

	for (; mnl_attr_ok(attr, static_cast<int>(end - reinterpret_cast<const char *>(attr))); attr = mnl_attr_next(attr)) {
		if (mnl_attr_get_type(attr) == type)
			return attr;
	}
	return nullptr;
}

template <typename T> T value(const void *message, uint16_t type, const char *what)
{
	const nlattr *attr = find(message, type);
	T out;

	if (!attr || mnl_attr_get_payload_len(attr) != sizeof(out))
		throw Error(std::string("the module's answer has no ") + what);
	memcpy(&out, mnl_attr_get_payload(attr), sizeof(out));
	return out;
}

// NUMA balancing takes pages away from their mapping for a while, and what was written is not seen then.
void check_numa()
{
	std::ifstream balancing("/proc/sys/kernel/numa_balancing"), nodes("/sys/devices/system/node/online");
	std::string on, online;

	if (balancing >> on && on != "0" && nodes >> online && online != "0")
		throw Error("kernel.numa_balancing is on: bounded mode cannot see all writes; set it to 0");
}

// Writeback and khugepaged take away what the module looks at: whether a page can be written.
void check_file_system(const RamFile &ram)
{
	struct statfs fs;
	struct stat st;

	if (fstatfs(ram.fd(), &fs) || fstat(ram.fd(), &st))
		throw Error("the RAM file", errno);
	if (fs.f_type != TMPFS_MAGIC)
		throw Error("bounded mode wants a RAM file on a tmpfs");
	const std::string device = std::to_string(major(st.st_dev)) + ":" + std::to_string(minor(st.st_dev));
	std::ifstream mounts("/proc/self/mountinfo"), shmem("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	for (std::string line; std::getline(mounts, line);) {
		std::istringstream in(line);
		std::string id, parent, dev;

		in >> id >> parent >> dev;
		const size_t huge = line.find("huge=");
		if (dev == device && huge != std::string::npos && line.compare(huge, 10, "huge=never") != 0)
			throw Error("the RAM file's tmpfs has huge pages: bounded mode cannot see all writes; mount it huge=never");
	}
	if (std::string line; std::getline(shmem, line) && line.find("[force]") != std::string::npos)
		throw Error("transparent_hugepage/shmem_enabled is force: bounded mode cannot see all writes");
}

} // namespace

void FrameSet::clear()
{
	std::fill(words_.begin(), words_.end(), 0);
	count_ = 0;
}

void FrameSet::add(const FrameSet &other)
{
	count_ = 0;
	for (size_t i = 0; i < words_.size(); i++)
		count_ += static_cast<uint64_t>(std::popcount(words_[i] |= other.words_[i]));
}

void FrameSet::remove(const FrameSet &other)
{
	count_ = 0;
	for (size_t i = 0; i < words_.size(); i++)
		count_ += static_cast<uint64_t>(std::popcount(words_[i] &= ~other.words_[i]));
}

uint64_t FrameSet::next(uint64_t from) const
{
	for (uint64_t word = from / 64; word < words_.size(); word++) {
		const uint64_t bits = words_[word] & (word == from / 64 ? ~uint64_t{0} << from % 64 : ~uint64_t{0});

		if (bits)
			return word * 64 + static_cast<uint64_t>(std::countr_zero(bits));
	}
	return frames_;
}

std::vector<sb::Run> FrameSet::take(uint64_t &from, uint64_t most)
{
	std::vector<sb::Run> out;

	while (count_ && most) {
		uint64_t at = from < frames_ ? next(from) : frames_;

		if (at == frames_)
			at = next(0);
		sb::Run run{at, 0};
		while (run.count < most && at + run.count < frames_ && has(at + run.count)) {
			remove(at + run.count);
			run.count++;
		}
		most -= run.count;
		from = at + run.count;
		out.push_back(run);
	}
	return out;
}

ModuleTracker::ModuleTracker(const RamFile &ram, pid_t pid, uint32_t vm) : pid_(pid), vm_(vm), mappings_(find_mappings(pid, ram))
{
	check_numa();
	check_file_system(ram);
}

// From then on a frame that is read is not writable by that.
void ModuleTracker::arm()
{
	const std::string path = "/proc/" + std::to_string(pid_) + "/clear_refs";
	const Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));

	if (!fd || write(fd.get(), "4", 1) != 1)
		throw Error(path, errno);
}

uint32_t ModuleTracker::scan_some(uint64_t hva, uint64_t page, uint32_t frames, FrameSet &out, uint64_t &found)
{
	uint32_t done = 0;

	genl_.request(RDT_SB_CMD_SCAN, {{RDT_SB_A_VM, &vm_, sizeof(vm_)}, {RDT_SB_A_FIRST, &hva, sizeof(hva)},
					{RDT_SB_A_FRAMES, &frames, sizeof(frames)}}, [&](const void *message) {
		const nlattr *dirty = find(message, RDT_SB_A_DIRTY);

		done = value<uint32_t>(message, RDT_SB_A_FRAMES, "number of frames");
		if (!done || done > frames || !dirty || mnl_attr_get_payload_len(dirty) != (done + 7) / 8)
			throw Error("the module's answer to SCAN is none");
		const auto *bits = static_cast<const uint8_t *>(mnl_attr_get_payload(dirty));
		for (uint32_t i = 0; i < done; i++) {
			if (bits[i / 8] >> i % 8 & 1) {
				out.add(page + i);
				found++;
			}
		}
		// Of the first of several: what is counted meanwhile is counted twice, not lost.
		faults_ = std::min(faults_, value<uint64_t>(message, RDT_SB_A_FAULTS, "number of faults"));
	});
	if (!done)
		throw Error("the module does not answer SCAN");
	return done;
}

// One request: others have their turn between two.
bool ModuleTracker::scan(FrameSet &out, uint64_t &found)
{
	if (!mapping_ && !at_)
		faults_ = UINT64_MAX;
	try {
		const Mapping &m = mappings_.at(mapping_);

		at_ += scan_some(m.hva + at_, m.page + at_, static_cast<uint32_t>(std::min<uint64_t>(m.frames - at_, scan_frames)), out, found);
		if (at_ == m.frames) {
			mapping_++;
			at_ = 0;
		}
	} catch (...) {
		rewind();
		throw;
	}
	if (mapping_ < mappings_.size())
		return false;
	rewind();
	return true;
}

Limiter::~Limiter()
{
	try {
		genl_.request(RDT_SB_CMD_LIMIT, {{RDT_SB_A_VM, &vm_, sizeof(vm_)}}, {});
	} catch (const Error &) {
		// It ends with the registration.
	}
}

Limiter::Said Limiter::limit(const sb::Ramp *ramp)
{
	const rdt_sb_limit limit = ramp ? rdt_sb_limit{.free = ramp->free, .stop = ramp->stop, .end = ramp->end, .rate = ramp->rate} :
					  rdt_sb_limit{.free = UINT64_MAX, .stop = UINT64_MAX, .end = UINT64_MAX, .rate = 0};
	Said said;

	genl_.request(RDT_SB_CMD_LIMIT, {{RDT_SB_A_VM, &vm_, sizeof(vm_)}, {RDT_SB_A_LIMIT, &limit, sizeof(limit)}}, [&](const void *message) {
		said.faults = value<uint64_t>(message, RDT_SB_A_FAULTS, "number of faults");
		said.info = value<rdt_sb_limit_info>(message, RDT_SB_A_LIMIT_INFO, "what LIMIT has done");
	});
	return said;
}

} // namespace redoubt::agent
