// SPDX-License-Identifier: GPL-2.0
//
// The memory of the kernel that has panicked: physical, and by its page tables.
//
// Nothing in it is to be trusted: every read may fail, every walk ends after as many steps as there are levels.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace redoubt::crash {

constexpr uint64_t page_bytes = 4096;

class Physical {
public:
	virtual ~Physical() = default;
	// All of it, or false.
	virtual bool read(uint64_t address, void *to, size_t bytes) = 0;
	// These fields of the VMCS there, by their encodings; one that this CPU lacks is left out. Throws std::runtime_error.
	virtual std::map<uint32_t, uint64_t> vmcs(uint64_t address, const std::vector<uint32_t> &fields) = 0;
};

// /proc/vmcore, or a file like it: ELF64, a segment each for what was RAM.
class Vmcore : public Physical {
public:
	explicit Vmcore(const std::string &path);	// throws std::runtime_error
	~Vmcore() override;
	Vmcore(const Vmcore &) = delete;
	Vmcore &operator=(const Vmcore &) = delete;

	bool read(uint64_t address, void *to, size_t bytes) override;
	// By /dev/redoubt-vmcs
	std::map<uint32_t, uint64_t> vmcs(uint64_t address, const std::vector<uint32_t> &fields) override;

	// CPUs that have said that they stopped: a note each.
	unsigned int stopped_cpus() const { return stopped_cpus_; }

private:
	struct Segment {
		uint64_t address, bytes, offset;
	};
	void count_notes(uint64_t offset, uint64_t bytes);

	int fd_ = -1;
	std::vector<Segment> segments_;
	unsigned int stopped_cpus_ = 0;
};

// One top page table: a process' addresses below, the kernel's above.
class Space {
public:
	Space(Physical &memory, uint64_t top, unsigned int levels) : memory_(memory), top_(top), levels_(levels) {}

	// Where an address is; nothing: no memory there (or none any more: swapped out, under way).
	std::optional<uint64_t> physical(uint64_t address);
	// All of it, or false.
	bool read(uint64_t address, void *to, size_t bytes);

private:
	struct Table {
		uint64_t address = ~0ull;
		std::array<uint64_t, 512> entries;
	};
	const Table *table(unsigned int level, uint64_t address);

	Physical &memory_;
	uint64_t top_;
	unsigned int levels_;
	std::array<Table, 5> last_;	// a level each: the next page is mostly in the same ones
};

} // namespace redoubt::crash
