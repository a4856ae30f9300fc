// SPDX-License-Identifier: GPL-2.0

#include "qstream.h"

#include <algorithm>
#include <cstring>

#include <nlohmann/json.hpp>

namespace redoubt::agent {

namespace {

using Json = nlohmann::json;

constexpr uint32_t magic = 0x5145564d, stream_version = 3;
constexpr uint8_t eof_mark = 0, start_mark = 1, part_mark = 2, end_mark = 3, full_mark = 4, subsection_mark = 5, json_mark = 6,
		  configuration_mark = 7, command_mark = 8, footer_mark = 0x7e;
// Flags of QEMU's migration/ram.c, in the low bits of a page's offset
constexpr uint64_t ram_zero = 0x02, ram_sizes = 0x04, ram_page = 0x08, ram_eos = 0x10, ram_continue = 0x20, ram_flags = 0xfff;
// QEMU 10 says when memory is done with and devices begin.
constexpr uint64_t switchover_start = 11;
constexpr size_t page = 4096, max_fields = 1u << 20;
constexpr unsigned max_depth = 16;

// Never beyond the end.
class Reader {
public:
	explicit Reader(std::span<const uint8_t> in) : in_(in) {}

	size_t at() const { return at_; }
	size_t left() const { return in_.size() - at_; }
	std::span<const uint8_t> take(size_t n, const char *what)
	{
		if (n > left())
			throw Error(std::string("the device state is cut: ") + what);
		at_ += n;
		return in_.subspan(at_ - n, n);
	}
	uint64_t number(size_t n, const char *what)
	{
		uint64_t value = 0;

		for (const uint8_t byte : take(n, what))
			value = value << 8 | byte;
		return value;
	}
	std::string name(const char *what)
	{
		const auto text = take(number(1, what), what);

		return {text.begin(), text.end()};
	}
	std::span<const uint8_t> from(size_t begin) const { return in_.subspan(begin, at_ - begin); }
	std::span<const uint8_t> rest() const { return in_.subspan(at_); }
	uint8_t peek(const char *what)
	{
		const uint8_t byte = take(1, what)[0];

		at_--;
		return byte;
	}

private:
	std::span<const uint8_t> in_;
	size_t at_ = 0;
};

size_t size_of(const Json &field)
{
	const auto found = field.find("size");

	if (found == field.end() || !found->is_number_unsigned() || found->get<uint64_t>() > 1u << 30)
		throw Error("the device state's description has a field without a size");
	return found->get<size_t>();
}

std::string text_of(const Json &json, const char *key)
{
	const auto found = json.is_object() ? json.find(key) : json.end();

	return json.is_object() && found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

const Json *array_of(const Json &json, const char *key)
{
	const auto found = json.is_object() ? json.find(key) : json.end();

	return json.is_object() && found != json.end() && found->is_array() ? &*found : nullptr;
}

uint64_t count_of(const Json &field, const char *key, uint64_t otherwise)
{
	const auto found = field.find(key);

	return found != field.end() && found->is_number_unsigned() ? found->get<uint64_t>() : otherwise;
}

// RAM blocks that are not left where they are: ROMs. Their pages are in the stream.
void skip_ram(Reader &in)
{
	for (;;) {
		const uint64_t head = in.number(8, "RAM"), flags = head & ram_flags;

		if (flags == ram_eos)
			return;
		if (flags == ram_sizes) {
			for (uint64_t left = head & ~ram_flags; left;) {
				(void)in.name("RAM");
				const uint64_t size = in.number(8, "RAM");
				// Its address, with x-ignore-shared
				(void)in.number(8, "RAM");
				if (!size || size > left)
					throw Error("the device state's RAM blocks have no sizes that fit");
				left -= size;
			}
		} else if ((flags & ~ram_continue) == ram_zero || (flags & ~ram_continue) == ram_page) {
			if (!(flags & ram_continue))
				(void)in.name("RAM");
			(void)in.take(flags & ram_page ? page : 1, "RAM");
		} else {
			throw Error("the device state's RAM has pages of a kind that is not known here");
		}
	}
}

void skip_configuration(Reader &in)
{
	(void)in.take(in.number(4, "configuration"), "configuration");
	while (in.peek("configuration") == subsection_mark) {
		(void)in.take(1, "configuration");
		const std::string name = in.name("configuration");
		(void)in.number(4, "configuration");
		if (name != "configuration/capabilities")
			throw Error("the device state has a configuration that is not known here: " + name);
		for (uint64_t n = in.number(4, "capabilities"); n; n--)
			(void)in.name("capabilities");
	}
}

void skip_footer(Reader &in, uint64_t id, const std::string &name)
{
	if (in.number(1, "footer") != footer_mark || in.number(4, "footer") != id)
		throw Error("the device state's section " + name + " is not as long as its description says");
}

// Its length is at no fixed place, but it is the last, and says how long it is.
Json read_description(std::span<const uint8_t> stream)
{
	for (size_t at = stream.size() < 6 ? 0 : stream.size() - 6; at; at--) {
		if (stream[at] != json_mark)
			continue;
		Reader in(stream.subspan(at + 1));
		const uint64_t size = in.number(4, "description");
		if (size != in.left())
			continue;
		const auto text = in.rest();
		Json json = Json::parse(text.begin(), text.end(), nullptr, false);
		if (json.is_object())
			return json;
	}
	throw Error("the device state has no description of itself");
}

} // namespace

QSection::Place QSection::place(const std::string &field) const
{
	const auto found = fields_.find(field);

	if (found == fields_.end())
		throw Error("the device state's section " + name + " has no " + field);
	return found->second;
}

std::span<uint8_t> QSection::raw(const std::string &field)
{
	const Place p = place(field);

	return std::span(bytes_).subspan(p.at, p.size);
}

uint64_t QSection::get(const std::string &field) const
{
	const Place p = place(field);
	uint64_t value = 0;

	if (p.size > 8)
		throw Error(name + ", " + field + ": is no number");
	for (size_t i = 0; i < p.size; i++)
		value = value << 8 | bytes_[p.at + i];
	return value;
}

void QSection::set(const std::string &field, uint64_t value)
{
	const Place p = place(field);

	if (p.size > 8 || (p.size < 8 && value >> 8 * p.size))
		throw Error(name + ", " + field + ": is no number of so many bits");
	for (size_t i = p.size; i--; value >>= 8)
		bytes_[p.at + i] = static_cast<uint8_t>(value);
}

void QSection::add(const std::string &subsection, uint32_t version, const std::string &field, std::span<const uint8_t> value)
{
	if (subsection.size() > 255 || has(subsection + "/" + field))
		throw Error(name + ": " + subsection + " cannot be added");
	bytes_.push_back(subsection_mark);
	bytes_.push_back(static_cast<uint8_t>(subsection.size()));
	bytes_.insert(bytes_.end(), subsection.begin(), subsection.end());
	for (int shift = 24; shift >= 0; shift -= 8)
		bytes_.push_back(static_cast<uint8_t>(version >> shift));
	fields_[subsection + "/" + field] = {bytes_.size(), value.size()};
	bytes_.insert(bytes_.end(), value.begin(), value.end());
}

std::vector<std::string> QSection::differences(const QSection &other) const
{
	std::vector<std::string> out;

	for (auto at = other.fields_.begin(); at != other.fields_.end(); ++at) {
		const auto &[field, p] = *at;
		const auto next = std::next(at), ours = fields_.find(field);

		// A structure's members come behind it.
		if (next != other.fields_.end() && next->first.starts_with(field + "."))
			continue;
		if (ours == fields_.end() || ours->second.size != p.size || memcmp(&bytes_[ours->second.at], &other.bytes_[p.at], p.size))
			out.push_back(name + (instance ? "#" + std::to_string(instance) : "") + " " + field);
	}
	return out;
}

void QSection::read_fields(const void *json, const std::string &prefix, size_t &at, size_t room, unsigned depth)
{
	const Json &fields = *static_cast<const Json *>(json);

	if (depth > max_depth)
		throw Error("the device state's description is too deep");
	for (const Json &field : fields) {
		const std::string own = text_of(field, "name");
		const size_t size = size_of(field);
		const uint64_t n = count_of(field, "array_len", 1);
		const bool array = field.contains("array_len");
		const auto inside = field.find("struct");

		if (n > max_fields || fields_.size() > max_fields || size > room || (size && n > (room - at) / size))
			throw Error("the device state is cut: " + name + ", " + own);
		for (uint64_t i = 0; i < n; i++) {
			const std::string key = prefix + own + (array ? "#" + std::to_string(i) :
				field.contains("index") ? "#" + std::to_string(count_of(field, "index", 0)) : "");
			// An element that is not there may be said before one that is: the first counts.
			if (size)
				fields_.try_emplace(key, Place{at, size});
			const Json *members = inside != field.end() ? array_of(*inside, "fields") : nullptr;
			size_t member_at = at;
			if (members)
				read_fields(members, key + ".", member_at, room, depth + 1);
			if (member_at > at + size)
				throw Error("the device state's description contradicts itself: " + name + ", " + key);
			at += size;
		}
	}
}

void QSection::read_subsections(const void *json, const std::string &prefix, std::span<const uint8_t> stream, size_t &at, unsigned depth)
{
	if (depth > max_depth)
		throw Error("the device state's description is too deep");
	for (const Json &sub : *static_cast<const Json *>(json)) {
		const std::string own = text_of(sub, "vmsd_name");
		const Json *fields = array_of(sub, "fields"), *subs = array_of(sub, "subsections");
		Reader in(stream.subspan(std::min(at, stream.size())));

		if (in.number(1, "subsection") != subsection_mark || in.name("subsection") != own)
			throw Error("the device state's section " + name + " has no " + own + " where it should be");
		(void)in.number(4, "subsection");
		at += in.at();
		if (fields)
			read_fields(fields, prefix + own + "/", at, stream.size(), depth + 1);
		if (subs)
			read_subsections(subs, prefix + own + "/", stream, at, depth + 1);
	}
}

QStream::QStream(std::span<const uint8_t> stream)
{
	const Json description = read_description(stream);
	const Json *devices = array_of(description, "devices");
	Reader in(stream);
	size_t device = 0;

	if (!devices)
		throw Error("the device state's description has no devices");
	if (in.number(4, "head") != magic || in.number(4, "head") != stream_version)
		throw Error("this is no device state of QEMU's");
	for (;;) {
		const size_t begin = in.at();
		const uint8_t mark = in.peek("section");

		if (mark == eof_mark)
			break;
		(void)in.take(1, "section");
		if (mark == configuration_mark) {
			skip_configuration(in);
		} else if (mark == command_mark) {
			const uint64_t command = in.number(2, "command");

			if (command != switchover_start)
				throw Error("the device state has a command that is not known here: " + std::to_string(command));
			(void)in.take(in.number(2, "command"), "command");
		} else if (mark == start_mark || mark == part_mark || mark == end_mark) {
			const uint64_t id = in.number(4, "section");

			if (mark == start_mark) {
				if (const std::string name = in.name("section"); name != "ram")
					throw Error("the device state has a section that is not known here: " + name);
				(void)in.take(8, "section");
			}
			skip_ram(in);
			skip_footer(in, id, "ram");
		} else if (mark == full_mark) {
			QSection section;
			const uint64_t id = in.number(4, "section");

			section.name = in.name("section");
			section.instance = static_cast<uint32_t>(in.number(4, "section"));
			(void)in.number(4, "section");
			const Json *said = device < devices->size() ? &(*devices)[device++] : nullptr;
			if (!said || text_of(*said, "name") != section.name || count_of(*said, "instance_id", ~0u) != section.instance)
				throw Error("the device state's description has no " + section.name + " where it should be");
			const auto head = in.from(begin);
			const Json *fields = array_of(*said, "fields"), *subs = array_of(*said, "subsections");
			size_t size = 0;
			if (fields)
				section.read_fields(fields, "", size, in.left(), 0);
			if (subs)
				section.read_subsections(subs, "", in.rest(), size, 0);
			const auto bytes = in.take(size, section.name.c_str());
			section.bytes_.assign(bytes.begin(), bytes.end());
			skip_footer(in, id, section.name);
			starts_.emplace_back(head.begin(), head.end());
			sections_.push_back(std::move(section));
			continue;
		} else {
			throw Error("the device state has a section of a kind that is not known here: " + std::to_string(mark));
		}
		if (!sections_.empty())
			throw Error("the device state has memory behind its devices");
		const auto bytes = in.from(begin);
		head_.insert(head_.end(), bytes.begin(), bytes.end());
	}
	const auto rest = in.rest();
	tail_.assign(rest.begin(), rest.end());
	head_.insert(head_.begin(), stream.begin(), stream.begin() + 8);
}

QSection *QStream::find(const std::string &name, uint32_t instance)
{
	for (QSection &s : sections_) {
		if (s.name == name && s.instance == instance)
			return &s;
	}
	return nullptr;
}

QSection &QStream::get(const std::string &name, uint32_t instance)
{
	QSection *const found = find(name, instance);

	if (!found)
		throw Error("the device state has no section " + name);
	return *found;
}

std::vector<QSection *> QStream::all(const std::string &name)
{
	std::vector<QSection *> out;

	for (QSection &s : sections_) {
		if (s.name == name)
			out.push_back(&s);
	}
	std::ranges::sort(out, {}, &QSection::instance);
	return out;
}

std::vector<std::string> QStream::differences(const QStream &other) const
{
	std::vector<std::string> out;

	for (size_t i = 0; i < sections_.size(); i++) {
		const auto names = sections_[i].differences(other.sections_.at(i));

		out.insert(out.end(), names.begin(), names.end());
	}
	return out;
}

std::vector<uint8_t> QStream::bytes() const
{
	std::vector<uint8_t> out = head_;

	for (size_t i = 0; i < sections_.size(); i++) {
		out.insert(out.end(), starts_[i].begin(), starts_[i].end());
		out.insert(out.end(), sections_[i].bytes_.begin(), sections_[i].bytes_.end());
		// 0x7e and the number that the section's head has
		out.push_back(footer_mark);
		out.insert(out.end(), starts_[i].begin() + 1, starts_[i].begin() + 5);
	}
	out.insert(out.end(), tail_.begin(), tail_.end());
	return out;
}

} // namespace redoubt::agent
