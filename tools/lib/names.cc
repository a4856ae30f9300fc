// SPDX-License-Identifier: GPL-2.0

#include "names.h"

#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>

#include "parse.h"

namespace redoubt::client {

namespace {

constexpr Name arch_table[] = {
	{RDT_ARCH_NPT, "npt"},
	{RDT_ARCH_EPT, "ept"},
};

constexpr Name event_type_table[] = {
	{RDT_EV_WRITE, "write"},
	{RDT_EV_TREE_WRITE, "tree_write"},
	{RDT_EV_DRIVER_WRITE, "driver_write"},
	{RDT_EV_GATE, "gate"},
	{RDT_EV_UNPROTECT, "unprotect"},
	{RDT_EV_PROTECT_REFUSED, "protect_refused"},
	{RDT_EV_TREE_CORRUPT, "tree_corrupt"},
	{RDT_EV_MAPPING_CHANGED, "mapping_changed"},
	{RDT_EV_KVM_WRITE, "kvm_write"},
	{RDT_EV_PV_STRUCT, "pv_struct"},
	{RDT_EV_EXEC, "exec"},
	{RDT_EV_ATTACH, "attach"},
	{RDT_EV_DETACH, "detach"},
	{RDT_EV_SEALED, "sealed"},
	{RDT_EV_VM_DEAD, "vm_dead"},
	{RDT_EV_DOMAIN, "domain"},
	{RDT_EV_DOMAIN_ACCESS, "domain_access"},
};

constexpr Name event_flag_table[] = {
	{RDT_EVF_GVA, "gva"},
	{RDT_EVF_OLD, "old"},
	{RDT_EVF_NEW, "new"},
	{RDT_EVF_SIZE, "size"},
	{RDT_EVF_EMULATED, "emulated"},
	{RDT_EVF_EVENT, "event"},
	{RDT_EVF_HOST, "host"},
};

constexpr Name gate_code_table[] = {
	{RDT_GATE_BAD_RIP, "bad_rip"},
	{RDT_GATE_BAD_CPL, "bad_cpl"},
	{RDT_GATE_NO_SLOT, "no_slot"},
	{RDT_GATE_BAD_TOKEN, "bad_token"},
	{RDT_GATE_NOT_INSIDE, "not_inside"},
	{RDT_GATE_INSIDE, "inside"},
	{RDT_GATE_BAD_IDT, "bad_idt"},
	{RDT_GATE_BAD_STATE, "bad_state"},
	{RDT_GATE_IO, "io"},
};

constexpr Name domain_code_table[] = {
	{RDT_DOM_EV_SEALED, "sealed"},
	{RDT_DOM_EV_GONE, "gone"},
	{RDT_DOM_EV_CALLER, "caller"},
	{RDT_DOM_EV_INSTALLED, "installed"},
	{RDT_DOM_EV_EXPORTED, "exported"},
	{RDT_DOM_EV_IMPORTED, "imported"},
};

constexpr Name access_code_table[] = {
	{1, "read"},
	{2, "write"},
	{4, "fetch"},
};

constexpr Name domain_state_table[] = {
	{RDT_DOM_BUILDING, "building"},
	{RDT_DOM_SEALED, "sealed"},
	{RDT_DOM_DYING, "dying"},
};

constexpr Name domain_flag_table[] = {
	{RDT_DOM_USER, "user"},
	{RDT_DOM_VECTOR, "vector"},
	{RDT_DOM_SECRET, "secret"},
	{RDT_DOM_REWIND, "rewind"},
	{RDT_DOM_EXPORTABLE, "exportable"},
};

constexpr Name action_table[] = {
	{RDT_ACT_NONE, "none"},
	{RDT_ACT_LOG, "log"},
	{RDT_ACT_DENY, "deny"},
	{RDT_ACT_FREEZE, "freeze"},
};

constexpr Name class_table[] = {
	{RDT_CLS_OTHER, "other"},
	{RDT_CLS_TEXT, "text"},
	{RDT_CLS_RODATA, "rodata"},
	{RDT_CLS_IDT, "idt"},
	{RDT_CLS_SYSCALL, "syscall"},
	{RDT_CLS_PGTABLE, "pgtable"},
	{RDT_CLS_MODULE, "module"},
	{RDT_CLS_NODE, "node"},
	{RDT_CLS_DRV_TEXT, "drv_text"},
	{RDT_CLS_DRV_DATA, "drv_data"},
	{RDT_CLS_DRV_GATE, "drv_gate"},
	{RDT_CLS_DRV_EXIT, "drv_exit"},
	{RDT_CLS_DOMAIN, "domain"},
};

constexpr Name vm_flag_table[] = {
	{RDT_VM_SEALED, "sealed"},
	{RDT_VM_TREE_CORRUPT, "tree_corrupt"},
	{RDT_VM_DEAD, "dead"},
};

char fold(char c)
{
	if (c == '-')
		return '_';
	return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool same(std::string_view text, std::string_view name)
{
	if (text.size() != name.size())
		return false;
	for (size_t i = 0; i < text.size(); i++)
		if (fold(text[i]) != name[i])
			return false;
	return true;
}

} // namespace

constinit const Names archs{"arch", arch_table};
constinit const Names event_types{"event", event_type_table};
constinit const Names event_flags{"flag", event_flag_table};
constinit const Names gate_codes{"code", gate_code_table};
constinit const Names domain_codes{"code", domain_code_table};
constinit const Names access_codes{"code", access_code_table};
constinit const Names domain_states{"state", domain_state_table};
constinit const Names domain_flags{"flag", domain_flag_table};
constinit const Names actions{"action", action_table};
constinit const Names classes{"class", class_table};
constinit const Names vm_flags{"flag", vm_flag_table};

std::string Names::name(unsigned value) const
{
	for (const Name &entry : table_)
		if (entry.value == value)
			return entry.name;
	return std::string(what_) + "_" + std::to_string(value);
}

std::optional<unsigned> Names::value(std::string_view text) const
{
	const auto number = parse_number(text);

	for (const Name &entry : table_)
		if (same(text, entry.name) || (number && *number == entry.value))
			return entry.value;
	return std::nullopt;
}

std::vector<std::string> Names::bits(unsigned mask) const
{
	std::vector<std::string> out;

	for (unsigned bit = 0; bit < 32; bit++)
		if (mask & (1u << bit))
			out.push_back(name(1u << bit));
	return out;
}

std::string Names::list() const
{
	std::string out;

	for (const Name &entry : table_)
		out += (out.empty() ? "" : ", ") + std::string(entry.name);
	return out;
}

} // namespace redoubt::client
