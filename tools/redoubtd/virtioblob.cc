// SPDX-License-Identifier: GPL-2.0
//
// The order is that of hw/virtio/virtio.c, virtio_save(), and hw/virtio/virtio-pci.c. All but PCI's own bytes is big
// endian: PCI's configuration space and the MSI-X table are as the guest sees them.

#include "virtioblob.h"

#include <algorithm>
#include <cstring>
#include <sstream>

#include "../lib/parse.h"

namespace redoubt::agent {

namespace {

constexpr size_t max_queues = 1024, msix_entry = 16;
constexpr uint8_t subsection_mark = 5, cap_msix = 0x11;
constexpr uint16_t no_vector = 0xffff;

struct Cut {};

class Reader {
public:
	explicit Reader(std::span<const uint8_t> in) : in_(in) {}
	size_t at() const { return at_; }
	bool done() const { return at_ == in_.size(); }
	std::span<const uint8_t> take(size_t n)
	{
		if (n > in_.size() - at_)
			throw Cut();
		at_ += n;
		return in_.subspan(at_ - n, n);
	}
	uint64_t number(size_t n)
	{
		uint64_t value = 0;

		for (const uint8_t byte : take(n))
			value = value << 8 | byte;
		return value;
	}
	std::string name()
	{
		const auto text = take(number(1));

		return {text.begin(), text.end()};
	}

private:
	std::span<const uint8_t> in_;
	size_t at_ = 0;
};

// Where virtio_save()'s own subsections begin: behind what the device itself has to say, whose length nobody tells.
size_t find_subsections(std::span<const uint8_t> blob, size_t from)
{
	static const std::string first[] = {"virtio/device_endian", "virtio/64bit_features", "virtio/virtqueues"};

	for (size_t at = from; at + 2 < blob.size(); at++) {
		for (const std::string &name : first) {
			if (blob[at] == subsection_mark && blob[at + 1] == name.size() && at + 2 + name.size() <= blob.size() &&
			    !memcmp(&blob[at + 2], name.data(), name.size()))
				return at;
		}
	}
	throw Cut();
}

} // namespace

VirtioBlob::VirtioBlob(std::span<uint8_t> blob, std::string device) : blob_(blob), device_(std::move(device))
{
	// PCI Express devices have more configuration space; the blob does not say which this is. The other one does not come out even.
	if (!read(4096) && !read(256))
		throw Error("the device state of " + device_ + " is not what virtio-pci writes");
}

uint32_t VirtioBlob::little(size_t at, size_t bytes) const
{
	uint32_t value = 0;

	while (bytes--)
		value = value << 8 | blob_[at + bytes];
	return value;
}

bool VirtioBlob::read(size_t config_size)
try {
	Reader in(blob_);

	queues_.clear();
	msix_cap_ = table_at_ = pending_at_ = 0;
	vectors_ = 0;
	if (in.number(4) != 2)		// PCIDevice's version
		return false;
	config_at_ = in.at();
	const auto config = in.take(config_size);
	if (little(config_at_, 2) != 0x1af4)
		return false;
	for (int i = 0; i < 4; i++) {
		if (in.number(4) > 1)
			return false;	// a level of INTA to INTD
	}
	// The list of capabilities; it may go round.
	for (unsigned cap = config[0x34] & ~3u, n = 0; cap && n < 48; cap = config[cap + 1] & ~3u, n++) {
		if (cap < 0x40)
			return false;
		if (config[cap] == cap_msix)
			msix_cap_ = cap;
	}
	if (msix_cap_) {
		vectors_ = (little(config_at_ + msix_cap_ + 2, 2) & 0x7ff) + 1;
		table_at_ = in.at();
		(void)in.take(vectors_ * msix_entry);
		pending_at_ = in.at();
		(void)in.take((vectors_ + 7) / 8);
		(void)in.number(2);	// the configuration change's vector
	}
	status_ = static_cast<uint8_t>(in.number(1));
	(void)in.number(1 + 2);		// ISR, the queue selected
	features_ = in.number(4);
	(void)in.take(in.number(4));	// the device's configuration
	const uint64_t n = in.number(4);
	if (n > max_queues)
		return false;
	for (uint64_t i = 0; i < n; i++) {
		Queue q{};

		q.num = static_cast<uint32_t>(in.number(4));
		q.desc = in.number(8);
		q.last_avail_at = in.at();
		q.last_avail = static_cast<uint16_t>(in.number(2));
		q.vector = msix_cap_ ? static_cast<uint16_t>(in.number(2)) : no_vector;
		if (!q.num || q.num > max_queues)
			return false;
		queues_.push_back(q);
	}
	// Behind what the device itself has written
	const size_t begin = find_subsections(blob_, in.at());
	(void)in.take(begin - in.at());
	while (!in.done()) {
		if (in.number(1) != subsection_mark)
			return false;
		const std::string name = in.name();
		(void)in.number(4);
		if (name == "virtio/device_endian" || name == "virtio/broken" || name == "virtio/started" || name == "virtio/disabled") {
			if (in.number(1) && name == "virtio/broken")
				return false;
		} else if (name == "virtio/64bit_features") {
			features_ = in.number(8);
		} else if (name == "virtio/virtqueues") {
			for (size_t i = 0; i < max_queues; i++) {
				const uint64_t avail = in.number(8), used = in.number(8);

				if (i < queues_.size()) {
					queues_[i].avail = avail;
					queues_[i].used = used;
				}
			}
		} else if (name == "virtio/ringsize") {
			(void)in.take(4 * max_queues);
		} else if (name == "virtio/extra_state") {
			// virtio-pci's: a structure of its own, with a subsection
			if (in.number(1) != subsection_mark || in.name() != "virtio_pci/modern_state" || in.number(4) != 1)
				return false;
			(void)in.take(4 + 4 + 8);	// feature selectors and features
			(void)in.take(max_queues * (2 + 2 + 3 * 8));
		} else {
			return false;
		}
	}
	// The legacy interface: the rings lie one behind the other.
	for (Queue &q : queues_) {
		if (q.desc && !q.avail) {
			q.avail = q.desc + 16 * uint64_t{q.num};
			q.used = (q.avail + 4 + 2 * uint64_t{q.num} + 2 + 4095) & ~4095ull;
		}
		if (!q.desc)
			q.avail = q.used = 0;
	}
	return true;
} catch (const Cut &) {
	return false;
}

bool VirtioBlob::msix_enabled() const
{
	return msix_cap_ && (little(config_at_ + msix_cap_ + 2, 2) >> 15);
}

uint64_t VirtioBlob::msix_address() const
{
	constexpr size_t command = 0x04, first_bar = 0x10;
	const uint32_t where = msix_cap_ ? little(config_at_ + msix_cap_ + 4, 4) : 7, bar = where & 7;

	if (bar > 5 || !(little(config_at_ + command, 2) >> 1 & 1))
		throw Error(device_ + ": its interrupt messages are nowhere in the guest's memory");
	const size_t at = config_at_ + first_bar + 4 * size_t{bar};
	uint64_t base = little(at, 4);
	const uint64_t kind = base & 7;
	if ((kind & 1) || (kind == 4 && bar == 5))
		throw Error(device_ + ": its interrupt messages are in no memory BAR");
	if (kind == 4)
		base |= uint64_t{little(at + 4, 4)} << 32;
	return (base & ~0xfull) + (where & ~7u);
}

void VirtioBlob::set_msix_table(std::span<const uint8_t> table)
{
	if (table.size() != msix_table().size())
		throw Error(device_ + ": has another number of interrupt messages");
	std::ranges::copy(table, blob_.begin() + static_cast<ptrdiff_t>(table_at_));
}

void VirtioBlob::set_last_avail(unsigned queue, uint16_t index)
{
	const size_t at = queues_.at(queue).last_avail_at;

	blob_[at] = static_cast<uint8_t>(index >> 8);
	blob_[at + 1] = static_cast<uint8_t>(index);
	queues_[queue].last_avail = index;
}

std::optional<VirtioBlob::Message> VirtioBlob::interrupt(unsigned queue)
{
	const uint16_t vector = queues_.at(queue).vector;

	if (!msix_enabled() || vector >= vectors_)
		return std::nullopt;
	const size_t entry = table_at_ + vector * msix_entry;
	const bool masked = (little(entry + 12, 4) & 1) || (little(config_at_ + msix_cap_ + 2, 2) >> 14 & 1);
	if (masked) {
		blob_[pending_at_ + vector / 8] |= static_cast<uint8_t>(1 << vector % 8);
		return std::nullopt;
	}
	return Message{little(entry, 4) | uint64_t{little(entry + 4, 4)} << 32, little(entry + 8, 4)};
}

std::vector<uint8_t> words_of(const std::string &text)
{
	std::vector<uint8_t> out;
	std::istringstream lines(text);

	for (std::string line; std::getline(lines, line);) {
		std::istringstream words(line.substr(std::min(line.size(), line.find(':') + 1)));

		for (std::string word; words >> word;) {
			const auto value = client::parse_number(word);

			if (!value || *value >> 32)
				return out;
			for (int shift = 0; shift < 32; shift += 8)
				out.push_back(static_cast<uint8_t>(*value >> shift));
		}
	}
	return out;
}

} // namespace redoubt::agent
