// SPDX-License-Identifier: GPL-2.0
//
// A device state as QEMU writes it (migrate, x-ignore-shared): its sections, and in them
// the fields of VMState, by name. Where a field lies is told by the stream itself, in the
// JSON at its end ("vmdesc"); nothing is looked for by its looks.
//
// Numbers in a stream are big endian.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "../lib/sys.h"

namespace redoubt::agent {

using client::Error;

// The name of an array's element
inline std::string element(const char *field, size_t i)
{
	return std::string(field) + "#" + std::to_string(i);
}

// One section: a device, or a part of the machine.
class QSection {
public:
	struct Place {
		size_t at, size;	// in bytes()
	};

	std::string name;
	uint32_t instance = 0;

	std::span<const uint8_t> bytes() const { return bytes_; }
	std::span<uint8_t> bytes() { return bytes_; }

	// Fields by their names: "env.eip"; "env.segs#2.base" is in the third element of an array;
	// "cpu/tsc_khz/env.tsc_khz" is in a subsection. Throws if there is none.
	bool has(const std::string &field) const { return fields_.contains(field); }
	Place place(const std::string &field) const;
	std::span<uint8_t> raw(const std::string &field);
	// Of 1, 2, 4 or 8 bytes.
	uint64_t get(const std::string &field) const;
	// Throws also if the value does not fit.
	void set(const std::string &field, uint64_t value);

	// Names of fields that @other has with another value, or that this one does not have: "cpu#1 env.eip".
	std::vector<std::string> differences(const QSection &other) const;

	// A subsection that is not there yet, with one field. QEMU takes subsections in any order.
	void add(const std::string &subsection, uint32_t version, const std::string &field, std::span<const uint8_t> value);

private:
	friend class QStream;
	// That which the JSON says of it. @room: bytes that there are from the section's begin to the stream's end.
	void read_fields(const void *json, const std::string &prefix, size_t &at, size_t room, unsigned depth);
	void read_subsections(const void *json, const std::string &prefix, std::span<const uint8_t> stream, size_t &at, unsigned depth);

	std::vector<uint8_t> bytes_;
	std::map<std::string, Place> fields_;
};

class QStream {
public:
	// Throws: it is cut, or has something in it that is not known here.
	explicit QStream(std::span<const uint8_t> stream);

	// nullptr: none.
	QSection *find(const std::string &name, uint32_t instance = 0);
	QSection &get(const std::string &name, uint32_t instance = 0);	// throws
	std::vector<QSection *> all(const std::string &name);	// by instance
	std::vector<QSection> &sections() { return sections_; }
	// Those of all sections. @other has the same ones.
	std::vector<std::string> differences(const QStream &other) const;
	// With what was changed. The JSON is as it was: QEMU reads over it.
	std::vector<uint8_t> bytes() const;

private:
	std::vector<uint8_t> head_;	// until the first full section: configuration, ram
	std::vector<QSection> sections_;
	std::vector<std::vector<uint8_t>> starts_;	// a section's own head
	std::vector<uint8_t> tail_;	// EOF and the JSON
};

} // namespace redoubt::agent
