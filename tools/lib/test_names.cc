// SPDX-License-Identifier: GPL-2.0

#include <algorithm>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>
#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>

#include "names.h"
#include "parse.h"

namespace redoubt::client {

namespace {

TEST(Names, NameAndValue)
{
	EXPECT_EQ(event_types.name(RDT_EV_DRIVER_WRITE), "driver_write");
	EXPECT_EQ(event_types.name(31), "event_31");
	EXPECT_EQ(classes.name(0x7f), "class_127");
	EXPECT_EQ(event_types.value("driver_write"), RDT_EV_DRIVER_WRITE);
	EXPECT_EQ(event_types.value("Driver-Write"), RDT_EV_DRIVER_WRITE);
	EXPECT_EQ(event_types.value("3"), RDT_EV_DRIVER_WRITE);
	EXPECT_EQ(event_types.value("31"), std::nullopt);
	EXPECT_EQ(event_types.value("driver"), std::nullopt);
	EXPECT_EQ(event_types.value(""), std::nullopt);
	EXPECT_EQ(vm_flags.bits(RDT_VM_SEALED | RDT_VM_DEAD | 1u << 9),
		  (std::vector<std::string>{"sealed", "dead", "flag_512"}));
}

// Each number that the uAPI headers give a name has that name here. A constant
// added to a header and forgotten in names.cc fails.
void same_as_header(const char *header, const std::string &prefix, const Names &names,
		    const std::vector<std::string> &besides)
{
	std::ifstream in(std::string(UAPI_DIR "/linux/") + header);
	unsigned found = 0;

	ASSERT_TRUE(in);
	for (std::string line; std::getline(in, line);) {
		std::istringstream words(line);
		std::string define, name, number;

		words >> define >> name >> number;
		if (define != "#define" || !name.starts_with(prefix))
			continue;
		name.erase(0, prefix.size());
		if (std::find(besides.begin(), besides.end(), name) != besides.end())
			continue;
		unsigned value;
		if (number == "(1u") {
			std::string shift;

			words >> shift >> value;
			ASSERT_EQ(shift, "<<") << line;
			value = 1u << value;
		} else {
			const auto parsed = parse_number(number);

			ASSERT_TRUE(parsed) << line;
			value = static_cast<unsigned>(*parsed);
		}
		for (char &c : name)
			c = static_cast<char>(tolower(c));
		EXPECT_EQ(names.name(value), name) << header;
		found++;
	}
	EXPECT_GT(found, 1u) << prefix;
}

TEST(Names, CompleteByTheHeaders)
{
	same_as_header("redoubt.h", "RDT_ARCH_", archs, {});
	same_as_header("redoubt.h", "RDT_EV_", event_types, {"NR"});
	same_as_header("redoubt.h", "RDT_EVF_", event_flags, {});
	same_as_header("redoubt.h", "RDT_GATE_", gate_codes, {});
	same_as_header("redoubt.h", "RDT_VM_", vm_flags,
		       {"INFO", "REGIONS", "PROTECT", "DETACH", "SEEN", "DOM_QUOTA", "DOM_GET_QUOTA", "DOMAIN",
			"DOM_DESTROY", "DOM_INSTALL", "DOM_EXPORT", "DOM_IMPORT"});
	same_as_header("redoubt.h", "RDT_DOM_EV_", domain_codes, {});
	same_as_header("redoubt_guest.h", "RDT_ACT_", actions, {});
	same_as_header("redoubt_guest.h", "RDT_CLS_", classes, {"GUEST_MAX"});
}

// Of a prefix that other things have, too.
TEST(Names, OfDomains)
{
	EXPECT_EQ(domain_states.name(RDT_DOM_DYING), "dying");
	EXPECT_EQ(domain_flags.bits(RDT_DOM_USER | RDT_DOM_VECTOR | RDT_DOM_SECRET | RDT_DOM_REWIND | RDT_DOM_EXPORTABLE),
		  (std::vector<std::string>{"user", "vector", "secret", "rewind", "exportable"}));
	EXPECT_EQ(access_codes.name(4), "fetch");
}

TEST(Parse, Numbers)
{
	EXPECT_EQ(parse_number("0"), 0u);
	EXPECT_EQ(parse_number("4096"), 4096u);
	EXPECT_EQ(parse_number("010"), 10u);
	EXPECT_EQ(parse_number("0x1F000"), 0x1f000u);
	EXPECT_EQ(parse_number("0xffffffffffffffff"), UINT64_MAX);
	for (const char *bad : {"", "0x", "-1", "+1", " 1", "1 ", "1k", "0x1g", "18446744073709551616", "0x-1"})
		EXPECT_EQ(parse_number(bad), std::nullopt) << bad;
}

} // namespace

} // namespace redoubt::client
