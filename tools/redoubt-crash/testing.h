// SPDX-License-Identifier: GPL-2.0
//
// A physical memory for tests: frames that are there, all others are not.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

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
	template <typename T> void put(uint64_t address, const T &what) { write(address, &what, sizeof(what)); }

	std::map<uint64_t, Frame> frames;
	unsigned int reads = 0;
};

} // namespace redoubt::crash
