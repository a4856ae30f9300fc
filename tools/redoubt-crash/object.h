// SPDX-License-Identifier: GPL-2.0
//
// KVM's structures in the old memory, by the layout of that kernel.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "layout.h"
#include "memory.h"

namespace redoubt::crash {

[[noreturn]] inline void lost(const std::string &why)
{
	throw std::runtime_error(why);
}

class Bytes {
public:
	Bytes(Space &space, uint64_t address, size_t bytes, const char *what) : bytes_(bytes)
	{
		if (!space.read(address, bytes_.data(), bytes_.size()))
			lost(std::string(what) + " is not in memory");
	}
	template <typename T> T at(size_t offset) const
	{
		T out;

		if (offset + sizeof(T) > bytes_.size())
			lost("a field behind the end of its structure");
		memcpy(&out, &bytes_[offset], sizeof(T));
		return out;
	}
	const std::vector<uint8_t> &all() const { return bytes_; }
	// @bytes from @offset on, to *@to
	void copy(size_t offset, void *to, size_t bytes) const
	{
		if (offset > bytes_.size() || bytes > bytes_.size() - offset)
			lost("a field behind the end of its structure");
		memcpy(to, &bytes_[offset], bytes);
	}

private:
	std::vector<uint8_t> bytes_;
};

// A structure of KVM's
class Object {
public:
	// @bytes: as many of it; 0: all
	Object(const Layout &layout, Space &space, uint64_t address, const std::string &type, size_t bytes = 0)
		: layout_(layout), type_(type), bytes_(space, address, bytes ? bytes : layout.at(type).bytes, type.c_str())
	{
	}
	bool has(const std::string &field) const { return layout_.has(type_ + "." + field); }
	// As wide as it is there
	uint64_t num(const std::string &field, size_t index = 0, size_t of = 0) const
	{
		const Field f = layout_.at(type_ + "." + field);
		const size_t bytes = of ? of : f.bytes;

		if ((index + 1) * bytes > f.bytes)
			lost(field + ": no such element");
		const uint64_t all = whole(field, f.offset + index * bytes, bytes);
		return f.bits ? all >> f.bit & ((uint64_t{1} << f.bits) - 1) : all;
	}
	// A member of the field's @index-th element, which is a @type
	uint64_t element(const std::string &field, size_t index, const std::string &type, const std::string &member) const
	{
		const Field f = layout_.at(type_ + "." + field), m = layout_.at(type + "." + member);
		const size_t bytes = layout_.at(type).bytes;

		if ((index + 1) * bytes > f.bytes || m.offset + m.bytes > bytes)
			lost(field + ": no such element");
		return whole(field, f.offset + index * bytes + m.offset, m.bytes);
	}
	// The field's @index-th element of @of bytes: as many of them as *@to has
	template <typename T> void copy(const std::string &field, size_t index, size_t of, T &to) const
	{
		const Field f = layout_.at(type_ + "." + field);

		if ((index + 1) * of > f.bytes || sizeof(to) > of)
			lost(field + ": no such element");
		bytes_.copy(f.offset + index * of, &to, sizeof(to));
	}

private:
	uint64_t whole(const std::string &field, size_t at, size_t bytes) const
	{
		switch (bytes) {
		case 1:
			return bytes_.at<uint8_t>(at);
		case 2:
			return bytes_.at<uint16_t>(at);
		case 4:
			return bytes_.at<uint32_t>(at);
		case 8:
			return bytes_.at<uint64_t>(at);
		}
		lost(field + ": no number");
	}

	const Layout &layout_;
	const std::string type_;
	const Bytes bytes_;
};

} // namespace redoubt::crash
