// SPDX-License-Identifier: GPL-2.0

#include "print.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>

#include "../lib/names.h"

namespace redoubt::ctl {

using namespace client;

namespace {

[[gnu::format(printf, 1, 2)]] std::string format(const char *fmt, ...)
{
	char line[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	return line;
}

// What was written is up to eight bytes: as many digits as there are bytes.
std::string value_hex(const rdt_event &event, uint64_t value)
{
	const unsigned bytes = (event.flags & RDT_EVF_SIZE) && event.size && event.size < 8 ? event.size : 8;

	return format("0x%0*" PRIx64, static_cast<int>(bytes * 2), value);
}

std::string join(const std::vector<std::string> &words)
{
	std::string out;

	for (const std::string &word : words)
		out += (out.empty() ? "" : " ") + word;
	return out;
}

// Flags that say something about the event itself, not which fields are known.
constexpr unsigned telling_flags = ~(RDT_EVF_GVA | RDT_EVF_OLD | RDT_EVF_NEW | RDT_EVF_SIZE);

// Events that report a place in guest memory. Of a type this program does not
// know, it shows all there is.
bool has_place(const rdt_event &event)
{
	switch (event.type) {
	case RDT_EV_GATE:
	case RDT_EV_ATTACH:
	case RDT_EV_DETACH:
	case RDT_EV_VM_DEAD:
	case RDT_EV_SEALED:
	case RDT_EV_TREE_CORRUPT:
	case RDT_EV_DOMAIN:
		return event.gpa || event.range_gpa;
	default:
		return true;
	}
}

// The code's name, where the type gives it a meaning.
std::string code_name(const rdt_event &event)
{
	if (event.type == RDT_EV_GATE)
		return gate_codes.name(event.code);
	if (event.type == RDT_EV_DOMAIN)
		return domain_codes.name(event.code);
	if (event.type == RDT_EV_DOMAIN_ACCESS)
		return access_codes.name(event.code);
	if (event.type == RDT_EV_ATTACH)
		return event.code == 1 ? "by_guest" : "by_operator";
	return event.code ? "code_" + std::to_string(event.code) : "";
}

} // namespace

std::string hex(uint64_t value)
{
	return format("0x%" PRIx64, value);
}

const char *on_off(bool on)
{
	return on ? "on" : "off";
}

std::string plural(uint64_t count, const char *thing)
{
	return format("%" PRIu64 " %s%s", count, thing, count == 1 ? "" : "s");
}

std::string event_line(const rdt_event &event)
{
	std::string line = format("%5" PRIu64 ".%06" PRIu64 "s vm %u #%" PRIu64 " ", uint64_t{event.time_ns} / 1000000000,
				  uint64_t{event.time_ns} / 1000 % 1000000, event.vm_id, uint64_t{event.seq});

	line += event_types.name(event.type);
	if (event.action)
		line += " " + actions.name(event.action);
	if (const std::string code = code_name(event); !code.empty())
		line += " " + code;
	if (event.domain)
		line += " domain of view " + std::to_string(event.domain);
	if (has_place(event)) {
		line += " gpa " + hex(event.gpa);
		if (event.flags & RDT_EVF_GVA)
			line += " gva " + hex(event.gva);
		if (event.flags & RDT_EVF_SIZE)
			line += " " + plural(event.size, "byte");
		if (event.flags & RDT_EVF_OLD)
			line += " old " + value_hex(event, event.old_val);
		if (event.flags & RDT_EVF_NEW)
			line += " new " + value_hex(event, event.new_val);
		if (event.range_pages)
			line += " in " + classes.name(event.cls) + " " + hex(event.range_gpa) + "+" +
				plural(event.range_pages, "page");
	} else if (event.range_pages) {
		line += " " + plural(event.range_pages, "page");
	}
	if (!(event.flags & RDT_EVF_HOST) && (event.rip || event.cr3))
		line += format(" by vcpu %u cpl %u view %u rip 0x%" PRIx64 " cr3 0x%" PRIx64, event.vcpu, event.cpl,
			       event.view, uint64_t{event.rip}, uint64_t{event.cr3});
	if (const std::string flags = join(event_flags.bits(event.flags & telling_flags)); !flags.empty())
		line += " [" + flags + "]";
	return line;
}

Json event_json(const rdt_event &event)
{
	Json json{
		{"kind", "event"},
		{"vm_id", event.vm_id},
		{"seq", event.seq},
		{"time_ns", event.time_ns},
		{"type", event_types.name(event.type)},
		{"action", actions.name(event.action)},
		{"class", classes.name(event.cls)},
		{"code", event.code},
		{"gpa", hex(event.gpa)},
		{"range_gpa", hex(event.range_gpa)},
		{"range_pages", event.range_pages},
	};

	if (const std::string code = code_name(event); !code.empty())
		json["code_name"] = code;
	// A field that is not known is absent.
	if (event.domain)
		json["domain"] = event.domain;
	if (event.flags & RDT_EVF_GVA)
		json["gva"] = hex(event.gva);
	if (event.flags & RDT_EVF_SIZE)
		json["size"] = event.size;
	if (event.flags & RDT_EVF_OLD)
		json["old"] = value_hex(event, event.old_val);
	if (event.flags & RDT_EVF_NEW)
		json["new"] = value_hex(event, event.new_val);
	if (!(event.flags & RDT_EVF_HOST)) {
		json["vcpu"] = event.vcpu;
		json["cpl"] = event.cpl;
		json["view"] = event.view;
		json["rip"] = hex(event.rip);
		json["cr3"] = hex(event.cr3);
	}
	json["flags"] = event_flags.bits(event.flags & telling_flags);
	return json;
}

std::string region_line(const rdt_region &region)
{
	// The last byte, so that a range up to the very top does not wrap.
	const uint64_t last = region.gpa + region.pages * 4096 - 1;

	return format("0x%012" PRIx64 "-0x%012" PRIx64 " %8s  %-8s %s", uint64_t{region.gpa}, last,
		      plural(region.pages, "page").c_str(), classes.name(region.cls).c_str(),
		      actions.name(region.action).c_str());
}

Json region_json(const rdt_region &region)
{
	return {
		{"gpa", hex(region.gpa)},
		{"pages", region.pages},
		{"class", classes.name(region.cls)},
		{"action", actions.name(region.action)},
	};
}

std::string vm_lines(const rdt_vm_info &info, const EventRing &ring)
{
	std::string text = format("vm %u  vmm pid %d  %s", info.vm_id, info.vmm_pid, plural(info.vcpus, "vcpu").c_str());
	const std::string flags = join(vm_flags.bits(info.flags));

	if (!flags.empty())
		text += "  [" + flags + "]";
	text += format("\n  restricted  %s in %s, %" PRIu64 " of them the driver's, %" PRIu64 " for the tree",
		       plural(info.frames, "frame").c_str(), plural(info.ranges, "range").c_str(),
		       uint64_t{info.driver_frames}, uint64_t{info.node_pages});
	text += format("\n  integrity   %s, %s, %" PRIu64 " of %s busy", plural(info.enters, "enter").c_str(),
		       plural(info.aexits, "asynchronous exit").c_str(), uint64_t{info.slots_busy},
		       plural(info.slots, "slot").c_str());
	if (info.domains)
		text += format("\n  domains     %u with %s", info.domains,
			       plural(info.domain_frames, "frame").c_str());
	text += format("\n  work        %s, %s, host memory %" PRIu64 " KiB", plural(info.faults, "fault").c_str(),
		       plural(info.steps, "stepped write").c_str(), (uint64_t{info.host_bytes} + 1023) / 1024);
	text += "\n  events      " + std::to_string(info.events);
	for (unsigned type = 0; type < RDT_EV_NR; type++)
		if (const uint64_t count = ring.count(type))
			text += ", " + event_types.name(type) + " " + std::to_string(count);
	return text;
}

Json vm_json(const rdt_vm_info &info, const EventRing &ring)
{
	Json by_type = Json::object();

	for (unsigned type = 0; type < RDT_EV_NR; type++)
		if (const uint64_t count = ring.count(type))
			by_type[event_types.name(type)] = count;
	return {
		{"vm_id", info.vm_id},
		{"vmm_pid", info.vmm_pid},
		{"flags", vm_flags.bits(info.flags)},
		{"vcpus", info.vcpus},
		{"frames", info.frames},
		{"ranges", info.ranges},
		{"node_pages", info.node_pages},
		{"driver_frames", info.driver_frames},
		{"slots", info.slots},
		{"slots_busy", info.slots_busy},
		{"enters", info.enters},
		{"aexits", info.aexits},
		{"domains", info.domains},
		{"domain_frames", info.domain_frames},
		{"faults", info.faults},
		{"steps", info.steps},
		{"events", info.events},
		{"host_bytes", info.host_bytes},
		{"events_by_type", by_type},
	};
}

std::string hex_bytes(std::span<const uint8_t> bytes)
{
	std::string text;

	for (const uint8_t byte : bytes)
		text += format("%02x", byte);
	return text;
}

std::string domain_line(const rdt_domain_info &info)
{
	std::string line = format("%-8s %-8s view %-2u  %s, %" PRIu64 " shared  slots %u of %u busy  %s, %s, %s",
				  hex(info.id).c_str(), domain_states.name(info.state).c_str(), info.view,
				  plural(info.frames, "frame").c_str(), uint64_t{info.shared}, info.slots_busy, info.slots,
				  plural(info.enters, "enter").c_str(), plural(info.aexits, "asynchronous exit").c_str(),
				  plural(info.installs, "install").c_str());

	if (const std::string flags = join(domain_flags.bits(info.flags)); !flags.empty())
		line += "  [" + flags + "]";
	if (info.state != RDT_DOM_BUILDING)
		line += "  " + hex_bytes(info.measurement);
	return line;
}

Json domain_json(const rdt_domain_info &info)
{
	Json json{
		{"id", hex(info.id)},
		{"state", domain_states.name(info.state)},
		{"flags", domain_flags.bits(info.flags)},
		{"view", info.view},
		{"frames", info.frames},
		{"shared", info.shared},
		{"slots", info.slots},
		{"slots_busy", info.slots_busy},
		{"enters", info.enters},
		{"aexits", info.aexits},
		{"installs", info.installs},
		{"gate_gva", hex(info.gate_gva)},
	};

	// There is none before the seal.
	if (info.state != RDT_DOM_BUILDING)
		json["measurement"] = hex_bytes(info.measurement);
	return json;
}

std::string quota_text(const rdt_domain_quota &quota)
{
	return plural(quota.domains, "domain") + ", " + plural(quota.frames_each, "frame") + " in each, " +
	       std::to_string(quota.frames) + " in all, export " + on_off(quota.flags & RDT_DOM_Q_EXPORT);
}

Json quota_json(const rdt_domain_quota &quota)
{
	return {
		{"domains", quota.domains},
		{"frames", quota.frames_each},
		{"total", quota.frames},
		{"export", (quota.flags & RDT_DOM_Q_EXPORT) != 0},
	};
}

Json policy_json(uint32_t flags)
{
	return {{"self_attach", (flags & RDT_POLICY_SELF_ATTACH) != 0}};
}

std::string policy_text(uint32_t flags)
{
	return std::string("self-attach ") + on_off(flags & RDT_POLICY_SELF_ATTACH);
}

} // namespace redoubt::ctl
