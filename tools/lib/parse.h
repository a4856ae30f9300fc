// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace redoubt::client {

// Decimal, or hexadecimal behind 0x. The whole text must be the number: no sign,
// no octal (a leading zero is no trap), no overflow.
inline std::optional<uint64_t> parse_number(std::string_view text)
{
	int base = 10;

	if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
		text.remove_prefix(2);
		base = 16;
	}
	uint64_t value;
	const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
	if (error != std::errc() || end != text.data() + text.size())
		return std::nullopt;
	return value;
}

} // namespace redoubt::client
