// SPDX-License-Identifier: GPL-2.0
//
// Where fields of KVM's structures are, in the very kernel that is running: from its BTF, looked up when the crash kernel is
// loaded. A field that is not there is an error then, not after the panic.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace redoubt::crash {

// @bits: of a bitfield, from @bit of the @bytes on; 0: none.
struct Field {
	uint32_t offset, bytes, bit = 0, bits = 0;
};

class Layout {
public:
	// Of the running kernel, KVM's modules loaded; throws std::runtime_error.
	static Layout of_running_kernel();
	// The names that are needed, of kvm_amd or kvm_intel; not "@SYMBOL"s
	static std::vector<std::string> needed(bool intel = false);
	// As text() wrote it; throws std::runtime_error.
	static Layout parse(const std::string &text);
	std::string text() const;

	const std::string &release() const { return release_; }
	// "kvm_vcpu.arch.regs", or "kvm_vcpu" for the whole; throws std::runtime_error.
	Field at(const std::string &name) const;
	bool has(const std::string &name) const { return fields_.count(name) != 0; }
	// Where a variable of KVM's was; throws std::runtime_error.
	uint64_t symbol(const std::string &name) const;
	bool is_intel() const { return has("vcpu_vmx"); }

private:
	std::string release_;
	std::map<std::string, Field> fields_;
	std::map<std::string, uint64_t> symbols_;
};

} // namespace redoubt::crash
