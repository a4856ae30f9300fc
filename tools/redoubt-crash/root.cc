// SPDX-License-Identifier: GPL-2.0
#include "root.h"

#include <cstdio>
#include <cstring>
#include <stdexcept>

#include <zlib.h>

namespace redoubt::crash {
namespace {

constexpr uint64_t max_record = 256 << 10;
constexpr uint64_t max_cpu = 64 << 10;

struct Refused : std::runtime_error {
	using runtime_error::runtime_error;
};

uint32_t sum(const void *data, size_t bytes)
{
	return static_cast<uint32_t>(crc32_z(0, static_cast<const Bytef *>(data), bytes));
}

// The structure @data of @bytes, whose @crc is in it
bool sum_is(std::vector<uint8_t> data, size_t at, uint32_t crc)
{
	memset(&data[at], 0, sizeof(crc));
	return sum(data.data(), data.size()) == crc;
}

template <typename T> const uint8_t *take(std::vector<T> &to, size_t count, const uint8_t *from)
{
	to.resize(count);
	memcpy(to.data(), from, count * sizeof(T));
	return from + count * sizeof(T);
}

std::vector<uint8_t> read_note(Physical &memory, const rdt_crash_vm &head, const uint8_t *pages)
{
	std::vector<uint8_t> note(head.note_bytes);

	for (size_t at = 0; at < note.size(); at += page_bytes) {
		uint64_t address;
		memcpy(&address, pages + at / page_bytes * sizeof(address), sizeof(address));
		if (address % page_bytes || !memory.read(address, &note[at], std::min<size_t>(page_bytes, note.size() - at)))
			throw Refused("its note is not there");
	}
	if (sum(note.data(), note.size()) != head.note_crc)
		throw Refused("its note was overwritten");
	return note;
}

std::vector<uint8_t> read_live(Physical &memory, const rdt_crash_vm &head, const uint8_t *pages)
{
	std::vector<uint8_t> live(head.live_bytes);

	for (size_t at = 0; at < live.size(); at += page_bytes) {
		uint64_t address;
		memcpy(&address, pages + at / page_bytes * sizeof(address), sizeof(address));
		if (address % page_bytes || !memory.read(address, &live[at], page_bytes))
			throw Refused("its live area is not there");
	}
	return live;
}

Vm read_vm(Physical &memory, uint64_t address, unsigned int levels)
{
	rdt_crash_vm head;

	if (address % sizeof(uint64_t) || !memory.read(address, &head, sizeof(head)) || head.magic != RDT_CRASH_VM_MAGIC)
		throw Refused("no record there");
	if (head.version != RDT_CRASH_VERSION)
		throw Refused("a record of version " + std::to_string(head.version));
	const uint64_t pages = (head.note_bytes + page_bytes - 1) / page_bytes;
	const uint64_t bytes = sizeof(head) + (uint64_t{head.nr_vcpus} + pages + head.live_bytes / page_bytes) * sizeof(uint64_t) +
			       uint64_t{head.nr_ranges} * sizeof(rdt_crash_range);
	if (head.self != address || head.bytes != bytes || bytes > max_record || head.note_bytes > RDT_CRASH_MAX_NOTE ||
	    head.live_bytes > RDT_CRASH_MAX_LIVE || head.live_bytes % page_bytes ||
	    head.nr_ranges > RDT_CRASH_MAX_RANGES || head.pgd % page_bytes)
		throw Refused("a record that contradicts itself");

	std::vector<uint8_t> all(bytes);
	if (!memory.read(address, all.data(), all.size()) || !sum_is(all, offsetof(rdt_crash_vm, crc), head.crc))
		throw Refused("a record that was overwritten");

	Vm vm{};
	memcpy(vm.uuid, head.uuid, sizeof(vm.uuid));
	vm.pgd = head.pgd;
	vm.kvm = head.kvm;
	vm.levels = levels;
	const uint8_t *at = take(vm.vcpus, head.nr_vcpus, all.data() + sizeof(head));
	at = take(vm.ranges, head.nr_ranges, at);
	for (const rdt_crash_range &r : vm.ranges)
		if (!r.count || r.count > 1ull << 35 || r.first > 1ull << 40 || r.hva % page_bytes || r.hva >> 56 ||
		    (r.hva + r.count * page_bytes) >> 56)
			throw Refused("a range that is none");
	vm.note = read_note(memory, head, at);
	vm.live = read_live(memory, head, at + pages * sizeof(uint64_t));
	return vm;
}

void read_cpus(Physical &memory, const rdt_crash_root &head, Root &root)
{
	if (head.nr_cpus > RDT_CRASH_MAX_CPUS || head.cpu_bytes < sizeof(rdt_crash_cpu) + 512 || head.cpu_bytes > max_cpu)
		throw std::runtime_error("the root contradicts itself");
	for (unsigned int i = 0; i < head.nr_cpus; i++) {
		uint64_t address;
		Cpu cpu;
		if (!memory.read(head.cpus + i * sizeof(address), &address, sizeof(address)) || !address)
			continue;
		if (!memory.read(address, &cpu.head, sizeof(cpu.head)) || cpu.head.magic != RDT_CRASH_CPU_MAGIC ||
		    cpu.head.cpu != i)
			continue;
		cpu.xsave.resize(head.cpu_bytes - sizeof(cpu.head));
		if (memory.read(address + sizeof(cpu.head), cpu.xsave.data(), cpu.xsave.size()))
			root.cpus.emplace(i, std::move(cpu));
	}
}

} // namespace

std::string Vm::name() const
{
	std::string out;

	for (size_t i = 0; i < sizeof(uuid); i++) {
		char hex[4];
		snprintf(hex, sizeof(hex), "%02x", uuid[i]);
		out += (i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "") + std::string(hex);
	}
	return out;
}

bool Root::all_stopped() const
{
	if (cpus.empty())
		return false;
	for (const auto &[number, cpu] : cpus)
		if (cpu.head.online != cpus.size())
			return false;
	return true;
}

Root read_root(Physical &memory, uint64_t address)
{
	std::vector<uint8_t> first(RDT_CRASH_ROOT_HEAD);
	rdt_crash_root head;
	Root root;

	if (address % page_bytes || !memory.read(address, &head, sizeof(head)) || head.magic != RDT_CRASH_ROOT_MAGIC)
		throw std::runtime_error("there is no root: redoubt_standby was not loaded, or anew since");
	if (head.version != RDT_CRASH_VERSION)
		throw std::runtime_error("a root of version " + std::to_string(head.version));
	memcpy(first.data(), &head, first.size());
	if (head.self != address || !sum_is(first, offsetof(rdt_crash_root, crc), head.crc))
		throw std::runtime_error("the root was overwritten");
	if (head.levels != 4 && head.levels != 5)
		throw std::runtime_error("the root contradicts itself");
	root.release.assign(head.release, strnlen(head.release, sizeof(head.release)));
	read_cpus(memory, head, root);
	root.works.resize(RDT_CRASH_WORKS);
	if (!memory.read(head.works, root.works.data(), root.works.size() * sizeof(rdt_crash_work)))
		root.works.clear();
	for (unsigned int i = 0; i < RDT_CRASH_MAX_VMS; i++) {
		if (!head.vms[i])
			continue;
		try {
			root.vms.push_back(read_vm(memory, head.vms[i], head.levels));
		} catch (const Refused &e) {
			root.refused.push_back("VM in place " + std::to_string(i) + ": " + e.what());
		}
	}
	return root;
}

} // namespace redoubt::crash
