// SPDX-License-Identifier: GPL-2.0
/* C11: a domain's image: what is loaded, what is refused, and its measurement. */
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <redoubt/redoubt.h>

namespace {

using Bytes = std::vector<unsigned char>;
constexpr uint64_t page = 4096, base = 0x20000000;

struct Note {
	uint32_t namesz = 8, descsz = 48, type = 1;
	char name[8] = "Redoubt";
	uint32_t pad = 0;
	uint32_t slots = 2, stack_pages = 2, message = 5000, heap_pages = 1, flags = 0, reserved = 0;
	uint64_t gate = base + 0x40, exit = base + page + 0x80, end = base + 5 * page;
};

/* An ELF file made by hand, to be made wrong. */
struct File {
	Elf64_Ehdr eh{};
	std::vector<Elf64_Phdr> ph;
	Note note;
	size_t cut = ~size_t{0};	/* bytes that are left of it */

	File()
	{
		memcpy(eh.e_ident, ELFMAG, SELFMAG);
		eh.e_ident[EI_CLASS] = ELFCLASS64;
		eh.e_ident[EI_DATA] = ELFDATA2LSB;
		eh.e_ident[EI_VERSION] = EV_CURRENT;
		eh.e_type = ET_EXEC;
		eh.e_machine = EM_X86_64;
		eh.e_version = EV_CURRENT;
		eh.e_ehsize = sizeof(eh);
		eh.e_phentsize = sizeof(Elf64_Phdr);
		eh.e_phoff = sizeof(eh);
		segment(0, PF_R | PF_X, page, page);		/* gate */
		segment(1, PF_R, page, page);			/* exit */
		segment(2, PF_R | PF_X, page + 100, page + 100);
		segment(4, PF_R | PF_W, 17, page);
		ph.push_back({PT_NOTE, PF_R, 3 * page, base + 2 * page, 0, sizeof(Note), sizeof(Note), 8});
	}
	void segment(uint64_t nr, uint32_t rights, uint64_t filesz, uint64_t memsz)
	{
		ph.push_back({PT_LOAD, rights, (nr + 1) * page, base + nr * page, 0, filesz, memsz, page});
	}
	Bytes bytes() const
	{
		Bytes b(7 * page);
		Elf64_Ehdr h = eh;

		for (size_t i = 0; i < b.size(); i++)
			b[i] = static_cast<unsigned char>(i * 7 + i / page);
		h.e_phnum = static_cast<uint16_t>(ph.size());
		memcpy(b.data() + 3 * page, &note, sizeof(note));
		memcpy(b.data(), &h, sizeof(h));
		memcpy(b.data() + sizeof(h), ph.data(), ph.size() * sizeof(ph[0]));
		b.resize(std::min(b.size(), cut));
		return b;
	}
};

/* Owns what the library gave. */
class Image {
public:
	explicit Image(const Bytes &b) : error_(rdt_image_parse(b.data(), b.size(), &image_)) {}
	explicit Image(const std::string &path) : error_(rdt_image_load(path.c_str(), &image_)) {}
	Image(const Image &) = delete;
	~Image()
	{
		if (!error_)
			rdt_image_free(image_);
	}
	int error() const { return error_; }
	rdt_image *operator->() const { return image_; }
	rdt_image *get() const { return image_; }
	const rdt_image_segment &segment(unsigned i) const
	{
		return reinterpret_cast<const rdt_image_segment *>(image_->segment)[i];
	}

private:
	rdt_image *image_ = nullptr;
	int error_;
};

std::string hex(const unsigned char *p)
{
	std::string s;
	char two[3];

	for (int i = 0; i < 32; i++) {
		snprintf(two, sizeof(two), "%02x", p[i]);
		s += two;
	}
	return s;
}

std::string measured(const Image &im)
{
	unsigned char m[32];

	EXPECT_EQ(rdt_image_measure(im.get(), m), 0) << rdt_error();
	return hex(m);
}

/* Documentation/domains.md put together by hand; the file is taken apart by hand, too. */
std::string expected(const File &f)
{
	Bytes all, file = f.bytes();
	auto put = [&](const void *p, size_t n) {
		const auto *b = static_cast<const unsigned char *>(p);
		all.insert(all.end(), b, b + n);
	};
	auto u32 = [&](uint32_t v) { put(&v, 4); };
	auto u64 = [&](uint64_t v) { put(&v, 8); };
	auto pages = [&](uint64_t gva, uint64_t kind, uint64_t offset, uint64_t len, uint64_t count) {
		for (uint64_t i = 0; i < count; i++) {
			u64(gva + i * page);
			u64(kind);
			for (uint64_t k = i * page; k < (i + 1) * page; k++)
				all.push_back(k < len ? file[offset + k] : 0);
		}
	};

	put("redoubt-domain-1", 16);
	u32(0);
	u32(2);
	u32(1);
	u32(0);
	u64(base + 0x40);
	u64(base + page + 0x80);
	/* a page of heap, a hole, 2 pages of stack, 2 of each message; and so on */
	u64(base + 9 * page);
	u64(base + 16 * page);
	u64(base + 20 * page);
	u64(4);
	pages(base, 3, page, page, 1);
	pages(base + page, 4, 2 * page, page, 1);
	pages(base + 2 * page, 1, 3 * page, page + 100, 2);
	pages(base + 4 * page, 2, 5 * page, 17, 1);
	pages(base + 5 * page, 2, 0, 0, 1);
	pages(base + 7 * page, 2, 0, 0, 6);
	pages(base + 14 * page, 2, 0, 0, 6);
	put("sealed", 6);

	unsigned char m[32];

	SHA256(all.data(), all.size(), m);
	return hex(m);
}

} // namespace

TEST(C11, AnImageIsLoaded)
{
	Image im{File().bytes()};

	ASSERT_EQ(im.error(), 0) << rdt_error();
	EXPECT_EQ(im->slots, 2u);
	EXPECT_EQ(im->gate_gva, base + 0x40);
	EXPECT_EQ(im->exit_gva, base + page + 0x80);
	ASSERT_EQ(im->segments, 7u);
	const uint32_t kinds[] = {RDT_DOM_GATE, RDT_DOM_EXIT, RDT_DOM_TEXT, RDT_DOM_DATA, RDT_DOM_DATA, RDT_DOM_DATA, RDT_DOM_DATA};
	for (unsigned i = 0; i < 7; i++)
		EXPECT_EQ(im.segment(i).kind, kinds[i]) << i;
	EXPECT_EQ(im.segment(2).pages, 2u);
	EXPECT_EQ(im.segment(2).len, page + 100);
	EXPECT_EQ(im.segment(3).len, 17u);
	EXPECT_EQ(im->windows, 1u);
	EXPECT_EQ(im->window[0].pages, 4u);
	EXPECT_EQ(im->stack_top[0] % 16, 0u);
	EXPECT_EQ(im->stack_top[2], 0u);
}

TEST(C11, MeasurementIsTheIndependentlyComputedOne)
{
	EXPECT_EQ(measured(Image{File().bytes()}), expected(File{}));
}

/* By another program, Python's hashlib, from the text of domains.md. */
TEST(C11, MeasurementIsAKnownNumber)
{
	EXPECT_EQ(measured(Image{File().bytes()}), "0a28912dcdec74d39cce63ec5d1e6ed74f486f98699488d9da537d831d3f5ef6");
}

TEST(C11, MeasurementSeesEachByteAndNumber)
{
	const std::string was = measured(Image{File().bytes()});
	File f;

	for (size_t at : {page, 2 * page + 5, 3 * page + 200, 4 * page + 99, 5 * page + 16}) {
		Bytes b = f.bytes();
		b[at] ^= 1;
		EXPECT_NE(measured(Image{b}), was) << at;
	}
	/* What is in the file and not in memory does not count. */
	for (size_t at : {4 * page + 100, 5 * page + 17, 6 * page}) {
		Bytes b = f.bytes();
		b[at] ^= 1;
		EXPECT_EQ(measured(Image{b}), was) << at;
	}
	for (auto change : std::vector<std::function<void(Note &)>>{
		     [](Note &n) { n.slots++; }, [](Note &n) { n.stack_pages++; }, [](Note &n) { n.message += page; },
		     [](Note &n) { n.heap_pages++; }, [](Note &n) { n.flags = RDT_DOM_VECTOR; },
		     [](Note &n) { n.flags = RDT_DOM_USER; },
		     [](Note &n) { n.gate++; }, [](Note &n) { n.exit++; }, [](Note &n) { n.end += page; }}) {
		File g;
		change(g.note);
		EXPECT_NE(measured(Image{g.bytes()}), was);
	}
}

TEST(C11, MeasureRefusesWhatTheHostWould)
{
	Image im{File().bytes()};
	unsigned char m[32];

	for (auto change : std::vector<std::function<void(rdt_image &, rdt_image_segment *)>>{
		     [](rdt_image &i, rdt_image_segment *) { i.slots = 0; },
		     [](rdt_image &i, rdt_image_segment *) { i.slots = 17; },
		     [](rdt_image &i, rdt_image_segment *) { i.windows = 9; },
		     [](rdt_image &i, rdt_image_segment *) { i.segments = 0; },
		     [](rdt_image &i, rdt_image_segment *) { i.segments = 257; },
		     [](rdt_image &, rdt_image_segment *s) { s[1].gva = s[0].gva; },
		     [](rdt_image &, rdt_image_segment *s) { s[1].gva++; },
		     [](rdt_image &, rdt_image_segment *s) { s[6].pages = ~0u; },
		     [](rdt_image &, rdt_image_segment *s) { s[0].pages = 0; },
		     [](rdt_image &, rdt_image_segment *s) { s[3].len = page + 1; },
		     [](rdt_image &, rdt_image_segment *s) { s[3].data = 0; }}) {
		rdt_image copy = *im.get();
		std::vector<rdt_image_segment> s(&im.segment(0), &im.segment(0) + im->segments);

		copy.segment = reinterpret_cast<uint64_t>(s.data());
		EXPECT_EQ(rdt_image_measure(&copy, m), 0);
		change(copy, s.data());
		EXPECT_EQ(rdt_image_measure(&copy, m), -EINVAL);
	}
}

TEST(C11, BrokenFilesAreRefusedAndSayWhy)
{
	const struct {
		const char *why;
		std::function<void(File &)> change;
	} broken[] = {
		{"not an ELF file", [](File &f) { f.eh.e_ident[0] = 0; }},
		{"not an ELF file", [](File &f) { f.eh.e_ident[EI_CLASS] = ELFCLASS32; }},
		{"not an ELF file", [](File &f) { f.eh.e_ident[EI_DATA] = ELFDATA2MSB; }},
		{"not an ELF file", [](File &f) { f.eh.e_machine = EM_AARCH64; }},
		{"not an ELF file", [](File &f) { f.cut = 0; }},
		{"not an ELF file", [](File &f) { f.cut = 63; }},
		{"fixed address", [](File &f) { f.eh.e_type = ET_DYN; }},
		{"fixed address", [](File &f) { f.eh.e_type = ET_REL; }},
		{"unreadable", [](File &f) { f.eh.e_phoff = ~0ull - 100; }},
		{"it is no domain", [](File &f) { f.cut = 100; }},
		{"dynamically linked", [](File &f) { f.ph.push_back({PT_INTERP, 4, 0, 0, 0, 8, 8, 1}); }},
		{"dynamically linked", [](File &f) { f.ph.push_back({PT_DYNAMIC, 4, 0, 0, 0, 8, 8, 1}); }},
		{"thread-local", [](File &f) { f.ph.push_back({PT_TLS, 4, 0, 0, 0, 8, 8, 1}); }},
		{"it is no domain", [](File &f) { f.ph.pop_back(); }},
		{"it is no domain", [](File &f) { f.ph.push_back(f.ph.back()); }},
		{"it is no domain", [](File &f) { f.ph.back().p_offset = ~0ull; }},
		{"it is no domain", [](File &f) { f.ph.back().p_offset = 7 * page - 8; }},
		{"it is no domain", [](File &f) { f.ph.back().p_filesz = 71; }},
		{"it is no domain", [](File &f) { f.note.name[0] = 'r'; }},
		{"it is no domain", [](File &f) { f.note.descsz = 47; }},
		{"it is no domain", [](File &f) { f.note.type = 2; }},
		{"slots", [](File &f) { f.note.slots = 0; }},
		{"slots", [](File &f) { f.note.slots = 17; }},
		{"stack", [](File &f) { f.note.stack_pages = 0; }},
		{"stack", [](File &f) { f.note.stack_pages = 65; }},
		{"message", [](File &f) { f.note.message = 0; }},
		{"message", [](File &f) { f.note.message = 65537; }},
		{"heap", [](File &f) { f.note.heap_pages = 4097; }},
		{"flags", [](File &f) { f.note.flags = RDT_DOM_SECRET; }},
		{"flags", [](File &f) { f.note.flags = 1u << 31; }},
		{"flags", [](File &f) { f.note.reserved = 1; }},
		{"range", [](File &f) { f.note.end = ~0ull << 12; }},
		{"range", [](File &f) { f.note.end++; }},
		{"range", [](File &f) { f.note.gate |= 1ull << 63; }},
		{"range", [](File &f) { f.note.exit |= 1ull << 47; }},
		{"no gate", [](File &f) { f.note.gate += 100 * page; }},
		{"no gate", [](File &f) { f.note.exit = f.note.gate; }},
		{"end is not", [](File &f) { f.note.end = base + 4 * page; }},
		{"begin on a page", [](File &f) { f.ph[2].p_vaddr++; }},
		{"empty", [](File &f) { f.ph[2].p_memsz = f.ph[2].p_filesz = 0; }},
		{"out of order", [](File &f) { std::swap(f.ph[2], f.ph[3]); }},
		{"overlap", [](File &f) { f.ph[2].p_memsz = 3 * page; }},
		{"too large", [](File &f) { f.ph[3].p_memsz = 1ull << 40; }},
		{"too large", [](File &f) { f.ph[3].p_memsz = ~0ull; }},
		{"too high", [](File &f) { f.ph[3].p_vaddr = 1ull << 47; }},
		{"not in the file", [](File &f) { f.ph[2].p_filesz = page + 101; }},
		{"not in the file", [](File &f) { f.ph[2].p_offset = ~0ull; }},
		{"not in the file", [](File &f) { f.ph[2].p_offset = 7 * page - 1; }},
		{"not in the file", [](File &f) { f.ph[2].p_filesz = f.ph[2].p_memsz = ~0ull; }},
		{"not in the file", [](File &f) { f.cut = 4 * page; }},
		{"writable and executable", [](File &f) { f.ph[2].p_flags = PF_R | PF_W | PF_X; }},
		{"not readable", [](File &f) { f.ph[2].p_flags = PF_X; }},
		{"a page each", [](File &f) { f.ph[0].p_memsz = page + 1; f.ph[1].p_vaddr += page; f.note.exit += page;
			f.ph[2].p_vaddr += page; f.ph[3].p_vaddr += page; f.note.end += page; }},
		{"other rights", [](File &f) { f.ph[0].p_flags = PF_R; }},
		{"other rights", [](File &f) { f.ph[1].p_flags = PF_R | PF_W; }},
		{"other rights", [](File &f) { f.ph[1].p_flags = PF_R | PF_X; }},
		{"too many segments", [](File &f) { f.ph.resize(5 + 32, f.ph[3]); }},
	};

	for (const auto &b : broken) {
		File f;
		b.change(f);
		Image im{f.bytes()};
		EXPECT_EQ(im.error(), -ENOEXEC) << b.why;
		EXPECT_NE(std::string(rdt_error()).find(b.why), std::string::npos) << b.why << ": " << rdt_error();
	}
}

TEST(C11, MorePagesThanTheDriverTakes)
{
	File f;

	f.ph[3].p_memsz = 65536 * page;
	f.note.end = base + 4 * page + 65536 * page;
	EXPECT_EQ(Image{f.bytes()}.error(), -E2BIG);
}

/* Whatever the bytes are: refused, or something the driver can be given. */
TEST(C11, RandomDamage)
{
	std::mt19937 random{1};
	const Bytes whole = File().bytes();
	unsigned loaded = 0, refused = 0;

	for (int round = 0; round < 20000; round++) {
		Bytes b = whole;

		if (round % 8 == 0)
			b.resize(random() % b.size());
		for (unsigned hits = 1 + random() % 4; hits && !b.empty(); hits--) {
			/* where it matters, mostly */
			size_t at = random() % 2 ? random() % 344 : 3 * page + random() % 72;
			if (at < b.size())
				b[at] = static_cast<unsigned char>(random() % 3 ? 1u << random() % 8 : random());
		}
		Image im{b};
		unsigned char m[32];

		if (im.error()) {
			refused++;
			continue;
		}
		loaded++;
		ASSERT_EQ(rdt_image_measure(im.get(), m), 0);
		ASSERT_LE(im->segments, unsigned{RDT_IMAGE_MAX_SEGMENTS});
		for (unsigned i = 0; i < im->slots; i++)
			ASSERT_TRUE(im->stack_top[i] && im->stack_top[i] % 16 == 0);
	}
	EXPECT_GT(loaded, 100u);
	EXPECT_GT(refused, 1000u);
}

TEST(C11, FilesThatAreNone)
{
	EXPECT_EQ(Image{std::string("/nonexistent")}.error(), -ENOENT);
	EXPECT_EQ(Image{std::string("/")}.error(), -ENOEXEC);
	EXPECT_EQ(Image{std::string("/dev/zero")}.error(), -ENOEXEC);
	EXPECT_EQ(Image{std::string("/bin/sh")}.error(), -ENOEXEC);
	EXPECT_STRNE(rdt_error(), "");

	char path[] = "/tmp/redoubt-test-XXXXXX";
	int fd = mkstemp(path);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(Image{std::string(path)}.error(), -ENOEXEC) << "empty";
	ASSERT_EQ(ftruncate(fd, 1ll << 40), 0);
	EXPECT_EQ(Image{std::string(path)}.error(), -E2BIG);
	close(fd);
	unlink(path);
}

TEST(C11, WithoutADevice)
{
	Image im{File().bytes()};

	if (access("/dev/redoubt-domain", F_OK) == 0)
		GTEST_SKIP() << "there is one";
	EXPECT_EQ(rdt_domain_create(im.get()), -ENOENT);
	EXPECT_EQ(rdt_domain_open("nothing"), -ENOENT);
	rdt_user_domain *user = nullptr;
	EXPECT_EQ(rdt_user_domain_create(im.get(), &user), -EINVAL) << "for ring 0";
	im->flags = RDT_DOM_USER;
	EXPECT_EQ(rdt_user_domain_create(im.get(), &user), -ENOENT);
	rdt_user_domain_close(nullptr);
	EXPECT_EQ(rdt_domain_open(std::string(300, 'x').c_str()), -ENAMETOOLONG);
	EXPECT_EQ(rdt_domain_call(-1, 0, nullptr, 0, nullptr, 0), -EBADF);
	EXPECT_EQ(rdt_domain_publish(-1, "12345678901234567890123456789012", 0, 0), -EINVAL);
	EXPECT_STRNE(rdt_strerror(-ENOTRECOVERABLE), rdt_strerror(-EBADMSG));
	EXPECT_STREQ(rdt_strerror(-123456), "unknown error");
}
