// SPDX-License-Identifier: GPL-2.0
//
// A physical memory for tests: frames that are there, all others are not.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

#include "memory.h"

namespace redoubt::crash {

class Frames : public Physical {
public:
	using Frame = std::array<uint8_t, page_bytes>;

	bool read(uint64_t address, void *to, size_t bytes) override
	{
		auto *at = static_cast<uint8_t *>(to);

		reads++;
		while (bytes) {
			const auto it = frames.find(address / page_bytes);
			if (it == frames.end())
				return false;
			const size_t part = std::min<uint64_t>(bytes, page_bytes - address % page_bytes);
			memcpy(at, &it->second[address % page_bytes], part);
			at += part;
			address += part;
			bytes -= part;
		}
		return true;
	}
	void write(uint64_t address, const void *from, size_t bytes)
	{
		const auto *at = static_cast<const uint8_t *>(from);

		for (size_t i = 0; i < bytes; i++)
			frames.try_emplace((address + i) / page_bytes, Frame{}).first->second[(address + i) % page_bytes] = at[i];
	}
	std::map<uint32_t, uint64_t> vmcs(uint64_t address, const std::vector<uint32_t> &fields) override
	{
		std::map<uint32_t, uint64_t> out;

		if (!vmcss.count(address))
			throw std::runtime_error("no VMCS there");
		for (const uint32_t f : fields)
			if (const auto it = vmcss[address].find(f); it != vmcss[address].end())
				out.insert(*it);
		return out;
	}
	template <typename T> void put(uint64_t address, const T &what) { write(address, &what, sizeof(what)); }

	std::map<uint64_t, Frame> frames;
	std::map<uint64_t, std::map<uint32_t, uint64_t>> vmcss;		// by address; a field that is not there the CPU does not have
	unsigned int reads = 0;
};

} // namespace redoubt::crash
