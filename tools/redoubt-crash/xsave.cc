// SPDX-License-Identifier: GPL-2.0
#include <cstring>
#include <stdexcept>

#include <cpuid.h>

#include "vcpu.h"

namespace redoubt::crash {
namespace {

constexpr size_t legacy_bytes = 512, header_bytes = 64, first_extended = legacy_bytes + header_bytes;
constexpr uint64_t x87 = 1, sse = 2, ymm = 4, pkru_bit = 1 << 9, compacted = 1ull << 63;

struct Part {
	uint32_t bytes, offset;
	bool aligned;
};

// Where the standard format has a part; its size is the same in both. This CPU's: the crash kernel is on it, too.
Part part_of(unsigned int i)
{
	unsigned int a, b, c, d;

	__cpuid_count(0xd, i, a, b, c, d);
	return {a, b, (c & 2) != 0};
}

uint64_t get(const std::vector<uint8_t> &v, size_t at)
{
	uint64_t x;

	memcpy(&x, &v[at], sizeof(x));
	return x;
}

} // namespace

std::vector<uint8_t> uabi_xsave(const std::vector<uint8_t> &area, uint64_t features, uint32_t pkru, size_t bytes)
{
	static constexpr uint16_t initial_fcw = 0x37f;
	static constexpr uint32_t initial_mxcsr = 0x1f80;
	std::vector<uint8_t> out(bytes);

	// FXSAVE's, where the kernel does without XSAVE: it has no features then, and FXSAVE has these.
	const bool legacy = area.size() == legacy_bytes;
	if ((!legacy && area.size() < first_extended) || bytes < first_extended)
		throw std::runtime_error("an XSAVE area that is too small");
	const uint64_t have = legacy ? x87 | sse : get(area, 512), layout = legacy ? 0 : get(area, 520), told = legacy ? have : have & features;
	if (layout & compacted && have & ~layout)
		throw std::runtime_error("an XSAVE area that contradicts itself");

	// x87: control words, stack; SSE: MXCSR and its mask (with AVX, too), registers
	memcpy(&out[0], &initial_fcw, sizeof(initial_fcw));
	memcpy(&out[24], &initial_mxcsr, sizeof(initial_mxcsr));
	if (told & x87) {
		memcpy(&out[0], &area[0], 24);
		memcpy(&out[32], &area[32], 128);
	}
	if (told & (sse | ymm))
		memcpy(&out[24], &area[24], 8);
	if (told & sse)
		memcpy(&out[160], &area[160], 256);

	size_t packed = first_extended;
	for (unsigned int i = 2; i < 63; i++) {
		if (!((layout & compacted ? layout : told) >> i & 1))
			continue;
		const Part p = part_of(i);
		if (p.aligned)
			packed = (packed + 63) & ~size_t{63};
		const size_t from = layout & compacted ? packed : p.offset;
		packed += p.bytes;
		if (!(told >> i & 1) || 1ull << i == pkru_bit)
			continue;
		if (from + p.bytes > area.size() || !p.offset || p.offset + p.bytes > out.size())
			throw std::runtime_error("an XSAVE area that is too small");
		memcpy(&out[p.offset], &area[from], p.bytes);
	}
	// The guest's is kept apart: the host's own is in the register when the kernel runs.
	uint64_t header = told;
	if (features & pkru_bit && !legacy) {
		const Part p = part_of(9);
		if (!p.offset || p.offset + sizeof(pkru) > out.size())
			throw std::runtime_error("no place for PKRU");
		memcpy(&out[p.offset], &pkru, sizeof(pkru));
		header = pkru ? header | pkru_bit : header & ~pkru_bit;
	}
	memcpy(&out[512], &header, sizeof(header));
	return out;
}

uint32_t saved_pkru(const std::vector<uint8_t> &area)
{
	const Part p = part_of(9);
	uint32_t value = 0;

	if (area.size() < first_extended || get(area, 520) & compacted)
		throw std::runtime_error("an XSAVE area that contradicts itself");
	if (!(get(area, 512) & pkru_bit))
		return 0;
	if (!p.offset || p.offset + sizeof(value) > area.size())
		throw std::runtime_error("an XSAVE area that is too small");
	memcpy(&value, &area[p.offset], sizeof(value));
	return value;
}

} // namespace redoubt::crash
