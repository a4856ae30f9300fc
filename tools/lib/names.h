// SPDX-License-Identifier: GPL-2.0
//
// Names for the numbers of the uAPI: one table each, shared by human output,
// JSON and the command line. They are the header's own names in lower case.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace redoubt::client {

struct Name {
	unsigned value;
	const char *name;
};

class Names {
public:
	constexpr Names(const char *what, std::span<const Name> table) : what_(what), table_(table) {}

	// A number without a name (a newer module) becomes "<what>_<number>".
	std::string name(unsigned value) const;

	// Takes a name (also with '-' for '_' and in upper case) or a number that has a name.
	std::optional<unsigned> value(std::string_view text) const;

	// For bit masks: the names of all bits set.
	std::vector<std::string> bits(unsigned mask) const;

	// "a, b, c", for messages.
	std::string list() const;

	const char *what() const { return what_; }

private:
	const char *what_;
	std::span<const Name> table_;
};

extern const Names archs;		// RDT_ARCH_*
extern const Names event_types;		// RDT_EV_*
extern const Names event_flags;		// RDT_EVF_*, bits
extern const Names gate_codes;		// RDT_GATE_*
extern const Names domain_codes;	// RDT_DOM_EV_*
extern const Names access_codes;	// of RDT_EV_DOMAIN_ACCESS
extern const Names domain_states;	// RDT_DOM_BUILDING...
extern const Names domain_flags;	// RDT_DOM_USER..., bits
extern const Names actions;		// RDT_ACT_*
extern const Names classes;		// RDT_CLS_*
extern const Names vm_flags;		// RDT_VM_*, bits

} // namespace redoubt::client
