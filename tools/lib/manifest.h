// SPDX-License-Identifier: GPL-2.0
//
// What a build says of code that the operator is to put secrets into:
// Documentation/redoubtctl.md, "Manifest".
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <linux/redoubt.h>

#include "secret.h"

namespace redoubt::client {

using Measurement = std::array<uint8_t, 32>;

struct Manifest {
	struct Piece {
		std::string name;
		rdt_fixup fixup;	// from: in the value of that name
	};

	std::string name;		// of the code; empty: it has none
	Measurement measurement;
	std::vector<Piece> pieces;
	std::map<std::string, uint32_t> values;	// name -> length
};

// Throws Error that says what is wrong, with @where in front.
Manifest parse_manifest(std::string_view text, const std::string &where);
Manifest read_manifest(const std::string &path);

// All values of a manifest one behind the other, as one call takes them.
struct Package {
	Secret value;
	std::vector<rdt_fixup> fixups;
};
// @values: by name. Those that the manifest does not name are not looked at. Throws Error
// when one is missing or has another length.
Package pack(const Manifest &manifest, const std::map<std::string, Secret> &values);

} // namespace redoubt::client
