// SPDX-License-Identifier: GPL-2.0
//
// How things look: for people one line each, for programs JSON. Addresses and
// memory contents are hexadecimal strings in JSON too, since many readers of
// JSON keep numbers in a double.
#pragma once

#include <span>
#include <string>

#include <linux/redoubt.h>
#include <nlohmann/json.hpp>

#include "../lib/client.h"

namespace redoubt::ctl {

using Json = nlohmann::ordered_json;

std::string hex(uint64_t value);
const char *on_off(bool on);
// "1 page", "2 pages"
std::string plural(uint64_t count, const char *thing);

std::string event_line(const rdt_event &event);
Json event_json(const rdt_event &event);

std::string region_line(const rdt_region &region);
Json region_json(const rdt_region &region);

std::string vm_lines(const rdt_vm_info &info, const client::EventRing &ring);
Json vm_json(const rdt_vm_info &info, const client::EventRing &ring);

std::string hex_bytes(std::span<const uint8_t> bytes);
std::string domain_line(const rdt_domain_info &info);
Json domain_json(const rdt_domain_info &info);

std::string quota_text(const rdt_domain_quota &quota);
Json quota_json(const rdt_domain_quota &quota);

Json policy_json(uint32_t flags);
std::string policy_text(uint32_t flags);

} // namespace redoubt::ctl
