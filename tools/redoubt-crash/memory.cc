// SPDX-License-Identifier: GPL-2.0
#include "memory.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include <elf.h>
#include <fcntl.h>
#include <linux/redoubt_crash.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sys.h"

namespace redoubt::crash {
namespace {

constexpr uint64_t present = 1ull << 0, big = 1ull << 7, prot_none = 1ull << 8;
constexpr uint64_t frame_bits = 0x000ffffffffff000;
constexpr uint64_t max_note_bytes = 64 << 20;
constexpr unsigned int max_segments = 65536;

bool read_at(int fd, void *to, size_t bytes, uint64_t offset)
{
	auto *at = static_cast<char *>(to);

	while (bytes) {
		const ssize_t got = pread(fd, at, bytes, static_cast<off_t>(offset));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		at += got;
		offset += static_cast<uint64_t>(got);
		bytes -= static_cast<size_t>(got);
	}
	return true;
}

// A page that its process may not touch at the moment (NUMA balancing) is there all the same: present is clear, and the
// frame's bits are inverted then.
std::optional<uint64_t> frame_of(uint64_t entry)
{
	if (entry & present)
		return entry & frame_bits;
	if (entry & prot_none)
		return ~entry & frame_bits;
	return {};
}

} // namespace

Vmcore::Vmcore(const std::string &path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC))
{
	Elf64_Ehdr head;

	if (fd_ < 0)
		throw std::runtime_error(path + ": " + strerror(errno));
	if (!read_at(fd_, &head, sizeof(head), 0) || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
	    head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != EM_X86_64 || head.e_phentsize != sizeof(Elf64_Phdr) ||
	    head.e_phnum > max_segments) {
		close(fd_);
		throw std::runtime_error(path + ": not a kernel's memory");
	}
	for (unsigned int i = 0; i < head.e_phnum; i++) {
		Elf64_Phdr p;

		if (!read_at(fd_, &p, sizeof(p), head.e_phoff + i * sizeof(p))) {
			close(fd_);
			throw std::runtime_error(path + ": cut off");
		}
		if (p.p_type == PT_NOTE)
			count_notes(p.p_offset, p.p_filesz);
		if (p.p_type == PT_LOAD && p.p_paddr + p.p_filesz >= p.p_paddr)
			segments_.push_back({p.p_paddr, p.p_filesz, p.p_offset});
	}
}

Vmcore::~Vmcore()
{
	close(fd_);
}

void Vmcore::count_notes(uint64_t offset, uint64_t bytes)
{
	std::vector<char> notes(std::min(bytes, max_note_bytes));
	size_t at = 0;

	if (!read_at(fd_, notes.data(), notes.size(), offset))
		return;
	while (notes.size() - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		memcpy(&n, &notes[at], sizeof(n));
		const uint64_t size = sizeof(n) + ((n.n_namesz + 3ull) & ~3ull) + ((n.n_descsz + 3ull) & ~3ull);
		stopped_cpus_ += n.n_type == NT_PRSTATUS && n.n_namesz == 5 && n.n_descsz;
		if (size > notes.size() - at)
			break;
		at += size;
	}
}

bool Vmcore::read(uint64_t address, void *to, size_t bytes)
{
	auto *at = static_cast<char *>(to);

	while (bytes) {
		const auto s = std::find_if(segments_.begin(), segments_.end(),
					    [&](const Segment &x) { return address >= x.address && address - x.address < x.bytes; });
		if (s == segments_.end())
			return false;
		const size_t part = std::min<uint64_t>(bytes, s->bytes - (address - s->address));
		if (!read_at(fd_, at, part, s->offset + (address - s->address)))
			return false;
		at += part;
		address += part;
		bytes -= part;
	}
	return true;
}

std::map<uint32_t, uint64_t> Vmcore::vmcs(uint64_t address, const std::vector<uint32_t> &fields)
{
	const client::Fd fd(open("/dev/redoubt-vmcs", O_RDWR | O_CLOEXEC));
	std::vector<rdt_vmcs_field> all;
	std::map<uint32_t, uint64_t> out;
	uint32_t revision;

	if (!fd)
		throw std::runtime_error(std::string("its VMCS cannot be read: /dev/redoubt-vmcs: ") + strerror(errno));
	// The module cannot know what was memory.
	if (!read(address, &revision, sizeof(revision)))
		throw std::runtime_error("its VMCS is not in memory");
	for (const uint32_t encoding : fields)
		all.push_back({encoding, 0, 0});
	const rdt_vmcs_read what{address, static_cast<uint32_t>(all.size()), 0, reinterpret_cast<uintptr_t>(all.data())};
	if (ioctl(fd.get(), RDT_VMCS_READ, &what))
		throw std::runtime_error(std::string("its VMCS cannot be read: ") + strerror(errno));
	for (const rdt_vmcs_field &f : all)
		if (!f.error)
			out[f.encoding] = f.value;
	return out;
}

const Space::Table *Space::table(unsigned int level, uint64_t address)
{
	Table &t = last_[level];

	if (t.address != address) {
		t.address = ~0ull;
		if (!memory_.read(address, t.entries.data(), sizeof(t.entries)))
			return nullptr;
		t.address = address;
	}
	return &t;
}

std::optional<uint64_t> Space::physical(uint64_t address)
{
	const unsigned int bits = 12 + 9 * levels_;
	uint64_t at = top_ & frame_bits;

	// Canonical: all bits above are the topmost one
	if (const auto top = static_cast<int64_t>(address) >> (bits - 1); top != 0 && top != -1)
		return {};
	for (unsigned int level = levels_; level-- > 0;) {
		const unsigned int shift = 12 + 9 * level;
		const Table *t = table(level, at);
		if (!t)
			return {};
		const uint64_t entry = t->entries[(address >> shift) & 511];
		const bool leaf = level == 0 || (entry & big && (level == 1 || level == 2));
		const auto frame = frame_of(entry);
		// Only a leaf may be a page that is not to be touched.
		if (!frame || (!leaf && !(entry & present)) || (!leaf && entry & big))
			return {};
		if (leaf) {
			const uint64_t mask = (1ull << shift) - 1;
			return (*frame & ~mask) | (address & mask);
		}
		at = *frame;
	}
	return {};
}

bool Space::read(uint64_t address, void *to, size_t bytes)
{
	auto *at = static_cast<char *>(to);

	while (bytes) {
		const size_t part = std::min<uint64_t>(bytes, page_bytes - address % page_bytes);
		const auto where = physical(address);
		if (!where || !memory_.read(*where, at, part))
			return false;
		at += part;
		address += part;
		bytes -= part;
	}
	return true;
}

} // namespace redoubt::crash
