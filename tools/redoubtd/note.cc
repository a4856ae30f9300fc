// SPDX-License-Identifier: GPL-2.0

#include "note.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <type_traits>

#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

namespace redoubt::agent {

using nlohmann::json;

namespace {

constexpr uint64_t form = 1;
constexpr uint64_t live_magic = 0x6576696c54445221;	// "!RDTlive"
constexpr size_t line = 64, page = 4096;

struct LiveHead {
	uint64_t magic, number;
	uint64_t queues, watch_bytes;	// an agent of another build has others
	uint64_t turn;			// which of the two is whole: turn & 1; 0: neither yet
};
struct LiveBank {
	uint64_t turn;
	uint64_t sum;			// CRC-32C of turn and watches
};
static_assert(std::is_trivially_copyable_v<sb::RingWatch> && sizeof(LiveHead) <= line && sizeof(LiveBank) <= line);

size_t bank_bytes(size_t queues)
{
	return line + (queues * sizeof(sb::RingWatch) + line - 1) / line * line;
}

uint64_t bank_sum(uint64_t turn, const uint8_t *watches, size_t queues)
{
	return sb::crc32c(sb::crc32c(0, &turn, sizeof(turn)), watches, queues * sizeof(sb::RingWatch));
}

json binary(std::span<const uint8_t> bytes)
{
	return json::binary({bytes.begin(), bytes.end()});
}

std::vector<uint8_t> bytes_of(const json &j)
{
	const auto &b = j.get_binary();

	return {b.begin(), b.end()};
}

} // namespace

std::vector<uint8_t> write_note(const Note &note)
{
	const sb::Record &r = note.record;
	json j{{"form", form}, {"vm", note.vm}, {"frames", note.frames}, {"whole", note.whole}, {"state", binary(note.state)}, {"taken", note.taken},
	       {"live", note.live}, {"disks", note.disks}, {"cpuid", json::array()}, {"queues", json::array()}};

	j["record"] = {{"kind", static_cast<unsigned>(r.kind)}, {"flags", r.flags}, {"epoch", r.epoch}, {"boot", r.boot}, {"peer", r.peer},
		       {"digest", binary(r.digest.byte)}};
	for (const auto &cpuid : note.cpuid)
		j["cpuid"].push_back(binary(cpuid));
	for (const Note::Queue &q : note.queues)
		j["queues"].push_back({{"section", q.section}, {"index", q.index}, {"num", q.num}, {"avail", q.avail}, {"used", q.used},
				       {"watched", q.watched}});
	return json::to_cbor(j);
}

Note read_note(std::span<const uint8_t> bytes)
{
	Note note;

	try {
		const json j = json::from_cbor(bytes.begin(), bytes.end());
		if (j.at("form").get<uint64_t>() != form)
			throw Error("the agent's note is of another version");
		const json &r = j.at("record");
		const auto kind = r.at("kind").get<uint64_t>();
		const std::vector<uint8_t> digest = bytes_of(r.at("digest"));
		if (kind < static_cast<uint64_t>(sb::Kind::Run) || kind > static_cast<uint64_t>(sb::Kind::Discarded) || digest.size() != sb::digest_bytes)
			throw Error("the agent's note has a record that is none");
		note.record = {.kind = static_cast<sb::Kind>(kind), .flags = r.at("flags").get<uint8_t>(), .epoch = r.at("epoch"), .boot = r.at("boot"),
			       .peer = r.at("peer"), .digest = {}};
		memcpy(note.record.digest.byte, digest.data(), digest.size());
		note.vm = j.at("vm");
		note.frames = j.at("frames");
		note.whole = j.at("whole");
		note.state = bytes_of(j.at("state"));
		note.taken = j.at("taken");
		note.live = j.at("live");
		note.disks = j.at("disks").get<std::vector<std::string>>();
		for (const json &cpuid : j.at("cpuid"))
			note.cpuid.push_back(bytes_of(cpuid));
		for (const json &q : j.at("queues"))
			note.queues.push_back({.section = q.at("section"), .index = q.at("index"), .num = q.at("num"), .avail = q.at("avail"),
					       .used = q.at("used"), .watched = q.at("watched")});
	} catch (const json::exception &e) {
		throw Error(std::string("the agent's note is none: ") + e.what());
	}
	for (const Note::Queue &q : note.queues) {
		const uint64_t image = note.frames * page;

		if (!q.num || q.num > sb::max_ring || q.num & (q.num - 1) || note.frames > uint64_t{1} << 40 || q.avail > image ||
		    sb::Ring::avail_bytes(q.num) > image - q.avail || q.used > image || sb::Ring::used_bytes(q.num) > image - q.used)
			throw Error("the agent's note has a ring that is none");
	}
	return note;
}

LiveArea::LiveArea(uint64_t number, size_t queues)
	: at_(MAP_FAILED), bytes_((line + 2 * bank_bytes(queues) + page - 1) / page * page), queues_(queues)
{
	// Shared: a fork() leaves it where it is.
	at_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (at_ == MAP_FAILED)
		throw Error("memory for what a crash kernel finds", errno);
	*static_cast<LiveHead *>(at_) = {.magic = live_magic, .number = number, .queues = queues, .watch_bytes = sizeof(sb::RingWatch), .turn = 0};
}

LiveArea::~LiveArea()
{
	munmap(at_, bytes_);
}

uint64_t LiveArea::number() const
{
	return static_cast<const LiveHead *>(at_)->number;
}

void LiveArea::publish(const std::vector<const sb::RingWatch *> &watches)
{
	auto *const head = static_cast<LiveHead *>(at_);
	const uint64_t turn = head->turn + 1;
	uint8_t *const bank = static_cast<uint8_t *>(at_) + line + (turn & 1) * bank_bytes(queues_), *to = bank + line;

	for (size_t i = 0; i < std::min(queues_, watches.size()); i++)
		memcpy(to + i * sizeof(sb::RingWatch), watches[i], sizeof(sb::RingWatch));
	*reinterpret_cast<LiveBank *>(bank) = {.turn = turn, .sum = bank_sum(turn, to, queues_)};
	// The reader is another kernel, behind the stop of this CPU: only the stores' order counts.
	__atomic_store_n(&head->turn, turn, __ATOMIC_RELEASE);
}

std::vector<sb::RingWatch> read_live(std::span<const uint8_t> bytes, uint64_t number, size_t queues)
{
	std::vector<sb::RingWatch> out(queues);
	LiveHead head;
	LiveBank bank;

	if (bytes.size() < line + 2 * bank_bytes(queues))
		throw Error("which requests were under way is not known: the live area is too short");
	memcpy(&head, bytes.data(), sizeof(head));
	if (head.magic != live_magic || head.number != number || head.queues != queues || head.watch_bytes != sizeof(sb::RingWatch))
		throw Error("which requests were under way is not known: the live area is another");
	const uint8_t *const from = bytes.data() + line + (head.turn & 1) * bank_bytes(queues);
	memcpy(&bank, from, sizeof(bank));
	if (!head.turn || bank.turn != head.turn || bank.sum != bank_sum(bank.turn, from + line, queues))
		throw Error("which requests were under way is not known: the live area was overwritten");
	for (size_t i = 0; i < queues; i++)
		memcpy(static_cast<void *>(&out[i]), from + line + i * sizeof(sb::RingWatch), sizeof(sb::RingWatch));
	return out;
}

// ---- disks -------------------------------------------------------------------------

namespace fs = std::filesystem;

namespace {

std::string driver_of(const fs::path &device)
{
	std::error_code none;

	return fs::read_symlink(device / "driver", none).filename();
}

// Of an NVMe namespace: its controller; with multipath, all controllers of its subsystem, for each of them may have had a part of it. Empty: none.
std::vector<fs::path> controllers_of(const fs::path &device)
{
	std::vector<fs::path> out;
	std::error_code none;

	if (fs::exists(device / "transport", none))
		return {device};
	if (!device.filename().string().starts_with("nvme-subsys"))
		return {};
	for (const auto &entry : fs::directory_iterator(device, none))
		if (entry.is_symlink() && fs::exists(entry.path() / "transport", none))
			out.push_back(fs::canonical(entry.path()));
	std::sort(out.begin(), out.end());
	return out;
}

} // namespace

std::vector<std::string> devices_behind(const fs::path &block, const std::string &path)
{
	std::error_code error;
	const fs::path device = fs::canonical(fs::exists(block / "partition") ? block.parent_path() / "device" : block / "device", error);
	std::vector<std::string> out;

	// A device on others (dm, md, loop, drbd), or a network's (iSCSI, rbd)
	if (error)
		throw Error(path + ": is no disk of its own: what was on its way through it is not known to have ended");
	if (driver_of(device) == "virtio_blk" && driver_of(device.parent_path()) == "virtio-pci")
		return {device.parent_path().filename()};
	for (const fs::path &controller : controllers_of(device)) {
		std::string transport = "?";

		std::ifstream(controller / "transport") >> transport;
		const fs::path pci = fs::canonical(controller / "device", error);
		if (error || transport != "pcie" || driver_of(pci) != "nvme")
			throw Error(path + ": NVMe over " + transport + ": a target may still have what this host has sent");
		out.push_back(pci.filename());
	}
	if (out.empty())
		throw Error(path + ": that the reset of a disk of the kind " + (driver_of(device).empty() ? "'" + device.string() + "'" : driver_of(device)) +
			    " ends its writes has not been shown");
	return out;
}

std::vector<std::string> disk_devices(const std::string &path, const std::string &sys)
{
	struct stat st;

	if (stat(path.c_str(), &st))
		throw Error(path, errno);
	if (!S_ISBLK(st.st_mode))
		throw Error(path + ": is no block device: what this host still had to write there may be lost, or come late");
	std::error_code error;
	const fs::path block = fs::canonical(sys + "/dev/block/" + std::to_string(major(st.st_rdev)) + ":" + std::to_string(minor(st.st_rdev)), error);
	if (error)
		throw Error(path + ": is not in sysfs");
	return devices_behind(block, path);
}

} // namespace redoubt::agent
