// SPDX-License-Identifier: GPL-2.0

#include "manifest.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include <nlohmann/json.hpp>

#include "parse.h"

namespace redoubt::client {

namespace {

using Json = nlohmann::json;

constexpr uint32_t max_value = 4096;
constexpr size_t max_text = 1 << 20, max_name = 64;

class Reader {
public:
	explicit Reader(const std::string &where) : where_(where) {}

	[[noreturn]] void fail(const std::string &what) const { throw Error(where_ + ": " + what); }

	// An object with these fields, all but the last @optional of which must be there.
	void fields(const Json &json, const std::string &what, std::initializer_list<const char *> names,
		    size_t optional) const
	{
		if (!json.is_object())
			fail(what + " is not an object");
		for (const auto &[key, value] : json.items())
			if (std::find_if(names.begin(), names.end(),
					 [&](const char *n) { return key == n; }) == names.end())
				fail(what + " has the field '" + key + "', which means nothing");
		size_t n = 0;
		for (const char *name : names)
			if (n++ < names.size() - optional && !json.contains(name))
				fail(what + " has no '" + name + "'");
	}

	std::string text(const Json &json, const std::string &what) const
	{
		if (!json.is_string())
			fail(what + " is not a string");
		return json.get<std::string>();
	}

	int64_t integer(const Json &json, const std::string &what, int64_t least, int64_t most) const
	{
		uint64_t size = 0;
		bool negative = false;

		if (json.is_number_unsigned()) {
			size = json.get<uint64_t>();
		} else if (json.is_number_integer()) {
			negative = true;
			size = 0 - static_cast<uint64_t>(json.get<int64_t>());
		} else if (json.is_string()) {
			std::string_view digits = json.get_ref<const std::string &>();

			negative = digits.starts_with('-');
			if (negative)
				digits.remove_prefix(1);
			const auto value = parse_number(digits);
			if (!value)
				fail(what + " is not a number");
			size = *value;
		} else {
			fail(what + " is not an integer");
		}
		if (size <= uint64_t{INT64_MAX}) {
			const int64_t value = negative ? -static_cast<int64_t>(size) : static_cast<int64_t>(size);

			if (value >= least && value <= most)
				return value;
		}
		fail(what + " is not in " + std::to_string(least) + ".." + std::to_string(most));
	}

private:
	const std::string &where_;
};

bool is_name(const std::string &text)
{
	const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };

	return !text.empty() && text.size() <= max_name && letter(text[0]) &&
	       std::all_of(text.begin(), text.end(), [&](char c) {
		       return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.';
	       });
}

Measurement parse_measurement(const Reader &reader, const std::string &hex)
{
	Measurement out;
	const auto digit = [](char c) {
		return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
			: c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
	};

	if (hex.size() != 2 * out.size() ||
	    std::any_of(hex.begin(), hex.end(), [&](char c) { return digit(c) < 0; }))
		reader.fail("measurement is not 64 hexadecimal digits");
	for (size_t i = 0; i < out.size(); i++)
		out[i] = static_cast<uint8_t>(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
	return out;
}

// A parser that takes no field twice: nlohmann's would keep the last one.
Json parse_strictly(std::string_view text, const Reader &reader)
{
	std::vector<std::set<std::string>> open;
	const auto once = [&](int, Json::parse_event_t event, Json &parsed) {
		if (event == Json::parse_event_t::object_start)
			open.emplace_back();
		else if (event == Json::parse_event_t::object_end)
			open.pop_back();
		else if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second)
			reader.fail("the field '" + parsed.get<std::string>() + "' is there twice");
		return true;
	};

	try {
		return Json::parse(text, once);
	} catch (const Json::exception &error) {
		reader.fail(std::string("not JSON: ") + error.what());
	}
}

// Each byte of each value goes somewhere, and none to where another goes.
void check_pieces(const Manifest &manifest, const Reader &reader)
{
	std::map<std::string, std::vector<bool>> used;
	std::vector<std::pair<int64_t, int64_t>> places;

	for (const auto &[name, length] : manifest.values)
		used[name].resize(length);
	for (const auto &[name, fixup] : manifest.pieces) {
		for (uint32_t i = 0; i < fixup.len; i++)
			used[name][fixup.from + i] = true;
		places.emplace_back(fixup.offset, fixup.offset + fixup.len);
	}
	for (const auto &[name, bytes] : used)
		if (const auto it = std::find(bytes.begin(), bytes.end(), false); it != bytes.end())
			reader.fail("byte " + std::to_string(it - bytes.begin()) + " of '" + name + "' goes nowhere");
	std::sort(places.begin(), places.end());
	for (size_t i = 1; i < places.size(); i++)
		if (places[i].first < places[i - 1].second)
			reader.fail("two placeholders overlap at offset " + std::to_string(places[i].first));
}

} // namespace

Manifest parse_manifest(std::string_view text, const std::string &where)
{
	const Reader reader(where);
	const Json json = parse_strictly(text, reader);
	Manifest manifest;
	uint32_t total = 0;

	if (json.is_object() && json.contains("redoubt_manifest"))
		if (const int64_t version = reader.integer(json["redoubt_manifest"], "redoubt_manifest", 0, INT64_MAX);
		    version != 1)
			reader.fail("format " + std::to_string(version) + ", this program knows 1");
	reader.fields(json, "the manifest", {"redoubt_manifest", "measurement", "placeholders", "name"}, 1);
	if (json.contains("name"))
		manifest.name = reader.text(json["name"], "name");
	if (manifest.name.size() > max_name ||
	    std::any_of(manifest.name.begin(), manifest.name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
		reader.fail("name has more than 64 characters, or some that cannot be shown");
	manifest.measurement = parse_measurement(reader, reader.text(json["measurement"], "measurement"));

	const Json &pieces = json["placeholders"];
	if (!pieces.is_array() || pieces.empty() || pieces.size() > RDT_MAX_FIXUPS)
		reader.fail("placeholders is not a list of 1 to " + std::to_string(RDT_MAX_FIXUPS));
	for (size_t i = 0; i < pieces.size(); i++) {
		const std::string what = "placeholder " + std::to_string(i + 1);
		Manifest::Piece piece{};

		reader.fields(pieces[i], what, {"name", "offset", "length", "from"}, 1);
		piece.name = reader.text(pieces[i]["name"], what + ": name");
		if (!is_name(piece.name))
			reader.fail(what + ": '" + piece.name + "' is not a name");
		// So far from the ends that a length cannot lead over them.
		piece.fixup.offset = reader.integer(pieces[i]["offset"], what + ": offset", INT64_MIN / 2, INT64_MAX / 2);
		piece.fixup.len = static_cast<uint32_t>(reader.integer(pieces[i]["length"], what + ": length", 1, max_value));
		if (pieces[i].contains("from"))
			piece.fixup.from = static_cast<uint32_t>(reader.integer(pieces[i]["from"], what + ": from", 0,
										max_value - piece.fixup.len));
		uint32_t &length = manifest.values[piece.name];
		length = std::max(length, piece.fixup.from + piece.fixup.len);
		manifest.pieces.push_back(piece);
	}
	for (const auto &[name, length] : manifest.values)
		total += length;
	if (total > max_value)
		reader.fail("the values have " + std::to_string(total) + " bytes, more than " + std::to_string(max_value));
	check_pieces(manifest, reader);
	return manifest;
}

Manifest read_manifest(const std::string &path)
{
	std::ifstream in(path, std::ios::binary);
	std::string text;

	if (!in)
		throw Error("open " + path, errno);
	text.resize(max_text + 1);
	in.read(text.data(), static_cast<std::streamsize>(text.size()));
	if (in.bad())
		throw Error("read " + path, errno);
	text.resize(static_cast<size_t>(in.gcount()));
	if (text.size() > max_text)
		throw Error(path + ": too long for a manifest");
	return parse_manifest(text, path);
}

Package pack(const Manifest &manifest, const std::map<std::string, Secret> &values)
{
	std::map<std::string, uint32_t> at;
	uint32_t total = 0;

	for (const auto &[name, length] : manifest.values) {
		const auto it = values.find(name);

		if (it == values.end())
			throw Error("the manifest wants a value for '" + name + "' (" + name + "=FILE)");
		if (it->second.size() != length)
			throw Error("'" + name + "' has " + std::to_string(it->second.size()) + " bytes, the manifest wants " +
				    std::to_string(length));
		at[name] = total;
		total += length;
	}
	Package package{Secret(total), {}};
	for (const auto &[name, offset] : at)
		memcpy(package.value.data() + offset, values.at(name).data(), values.at(name).size());
	for (const auto &[name, fixup] : manifest.pieces) {
		package.fixups.push_back(fixup);
		package.fixups.back().from += at[name];
	}
	return package;
}

} // namespace redoubt::client
