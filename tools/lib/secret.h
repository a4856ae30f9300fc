// SPDX-License-Identifier: GPL-2.0
//
// A value that only the module is to have besides the file that it comes from: in
// memory that is locked, not dumped, and overwritten at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "sys.h"

namespace redoubt::client {

class Secret {
public:
	// Room for @size bytes, all zero. Throws Error if it cannot be locked.
	explicit Secret(size_t size);
	Secret(Secret &&other) noexcept;
	Secret &operator=(Secret &&) = delete;
	~Secret();

	uint8_t *data() { return data_; }
	const uint8_t *data() const { return data_; }
	size_t size() const { return size_; }

private:
	friend Secret read_secret(const std::string &, size_t, bool);

	uint8_t *data_;
	size_t room_;		// what is mapped
	size_t size_;
};

// All of a file, 1..@most bytes. @from: a path, "fd:N" for an open descriptor, "-" for standard
// input. A file that others than its owner may read, or that is neither ours nor root's, is
// refused, as ssh does with keys, unless @any_mode.
Secret read_secret(const std::string &from, size_t most, bool any_mode);

} // namespace redoubt::client
