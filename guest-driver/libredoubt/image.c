// SPDX-License-Identifier: GPL-2.0
/*
 * A domain's image from an ELF file. The file may be anybody's: every number of it is
 * checked before it is used, and all is read before anything is looked at.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define MAX_FILE (RDT_IMAGE_MAX_PAGES * RDT_PAGE)
#define MAX_LOADS 32

/* As <redoubt/domain.h> has it, in numbers. */
struct note {
	uint32_t slots, stack_pages, message, heap_pages, flags, reserved;
	uint64_t gate, exit, end;
};

/* An image with what it points to, all in one. */
struct full_image {
	struct rdt_image image;
	struct rdt_image_segment segment[MAX_LOADS + 1 + RDT_DOM_MAX_SLOTS];
	unsigned char content[];
};

static uint64_t pages_of(uint64_t bytes)
{
	return (bytes + RDT_PAGE - 1) / RDT_PAGE;
}

int rdt_read_file(const char *path, void **data, size_t *bytes)
{
	struct stat st;
	size_t room, n = 0;
	char *at = NULL;
	int err = 0, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return rdt_fail(-errno, "%s: %s", path, rdt_strerror(-errno));
	if (fstat(fd, &st))
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = -ENOEXEC;
	else if (st.st_size > (off_t)MAX_FILE)
		err = -E2BIG;
	if (err) {
		rdt_fail(err, "%s: %s", path, err == -ENOEXEC ? "not a regular file" : rdt_strerror(err));
		goto out;
	}
	room = st.st_size;
	at = malloc(room + 1);
	if (!at) {
		err = rdt_fail(-ENOMEM, "%s: no memory", path);
		goto out;
	}
	while (n < room) {
		ssize_t got = read(fd, at + n, room - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			err = rdt_fail(-errno, "%s: %s", path, rdt_strerror(-errno));
			goto out;
		}
		if (!got)
			break;
		n += got;
	}
	*data = at;
	*bytes = n;
	at = NULL;
out:
	free(at);
	close(fd);
	return err;
}

/* ---- what the file must have ---------------------------------------------------------- */

static Elf *elf_of(const void *file, size_t bytes, GElf_Ehdr *ehdr)
{
	Elf *elf;

	elf_version(EV_CURRENT);
	/* libelf does not write to it: nothing is ever updated here. */
	elf = elf_memory((char *)file, bytes);
	if (!elf || elf_kind(elf) != ELF_K_ELF || gelf_getclass(elf) != ELFCLASS64 || !gelf_getehdr(elf, ehdr) ||
	    ehdr->e_ident[EI_DATA] != ELFDATA2LSB || ehdr->e_machine != EM_X86_64) {
		rdt_fail(0, "not an ELF file for x86-64");
		elf_end(elf);
		return NULL;
	}
	return elf;
}

static int find_note(const unsigned char *file, size_t bytes, const GElf_Phdr *ph, struct note *note)
{
	struct {
		uint32_t namesz, descsz, type;
		char name[8];
		uint32_t pad;
		struct note note;
	} n;

	_Static_assert(sizeof(n) == 24 + 48, "the layout of struct rdt_domain_elf_note");
	if (ph->p_filesz < sizeof(n) || ph->p_offset > bytes || bytes - ph->p_offset < sizeof(n))
		return 0;
	memcpy(&n, file + ph->p_offset, sizeof(n));
	if (n.namesz != 8 || n.descsz != sizeof(n.note) || n.type != 1 || memcmp(n.name, "Redoubt", 8))
		return 0;
	*note = n.note;
	return 1;
}

static const char *bad_note(const struct note *n)
{
	if (n->slots < 1 || n->slots > RDT_DOM_MAX_SLOTS)
		return "RDT_DOMAIN: slots must be 1..16";
	if (n->stack_pages < 1 || n->stack_pages > 64)
		return "RDT_DOMAIN: stack pages must be 1..64";
	if (n->message < 1 || n->message > 65536)
		return "RDT_DOMAIN: the message must be 1..65536 bytes";
	if (n->heap_pages > 4096)
		return "RDT_DOMAIN: heap pages must be 0..4096";
	if (n->flags & ~(RDT_DOM_USER | RDT_DOM_VECTOR) || n->reserved)
		return "RDT_DOMAIN: unknown flags";
	if (n->end % RDT_PAGE || n->end >> 46 || n->gate >> 46 || n->exit >> 46)
		return "an address of the note is out of range";
	return NULL;
}

static const char *bad_load(const GElf_Phdr *ph, size_t bytes, uint64_t above)
{
	if (ph->p_vaddr % RDT_PAGE || !ph->p_memsz)
		return "a segment does not begin on a page, or is empty";
	if (ph->p_vaddr < above)
		return "segments overlap, or are out of order";
	if (ph->p_vaddr >> 46 || ph->p_memsz > MAX_FILE)
		return "a segment is too large, or too high";
	if (ph->p_filesz > ph->p_memsz || ph->p_offset > bytes || ph->p_filesz > bytes - ph->p_offset)
		return "a segment is not in the file";
	if ((ph->p_flags & (PF_W | PF_X)) == (PF_W | PF_X) || !(ph->p_flags & PF_R))
		return "a segment is writable and executable, or not readable";
	return NULL;
}

static uint32_t kind_of(const GElf_Phdr *ph, const struct note *n)
{
	if (ph->p_vaddr == (n->gate & -RDT_PAGE))
		return RDT_DOM_GATE;
	if (ph->p_vaddr == (n->exit & -RDT_PAGE))
		return RDT_DOM_EXIT;
	return ph->p_flags & PF_W ? RDT_DOM_DATA : RDT_DOM_TEXT;
}

/* ---- the image ------------------------------------------------------------------------- */

static void add(struct rdt_image *im, uint32_t kind, uint64_t gva, uint64_t pages, const void *data, uint64_t len)
{
	struct rdt_image_segment *s = (struct rdt_image_segment *)(uintptr_t)im->segment + im->segments++;

	*s = (struct rdt_image_segment){ gva, pages, kind, (uintptr_t)data, len };
}

/* The zeroed rest: heap, stacks and messages, the window. sdk/runtime.c has the same layout. */
static void add_rest(struct rdt_image *im, const struct note *n)
{
	uint64_t message = pages_of(n->message), at = n->end;

	if (n->heap_pages)
		add(im, RDT_DOM_DATA, at, n->heap_pages, NULL, 0);
	at += n->heap_pages * RDT_PAGE;
	for (unsigned int i = 0; i < n->slots; i++) {
		at += RDT_PAGE;
		add(im, RDT_DOM_DATA, at, n->stack_pages + 2 * message, NULL, 0);
		im->stack_top[i] = at + n->stack_pages * RDT_PAGE;
		at += (n->stack_pages + 2 * message) * RDT_PAGE;
	}
	im->windows = 1;
	im->window[0] = (struct rdt_domain_window){ at, n->slots * message };
}

static const char *build(struct full_image *full, const unsigned char *file, size_t bytes, const GElf_Phdr *ph,
			 size_t count, const struct note *n)
{
	struct rdt_image *im = &full->image;
	unsigned int gates = 0, exits = 0;
	uint64_t above = 0, used = 0;

	im->flags = n->flags;
	im->slots = n->slots;
	im->gate_gva = n->gate;
	im->exit_gva = n->exit;
	im->segment = (uintptr_t)full->segment;
	for (; count--; ph++) {
		const char *bad = bad_load(ph, bytes, above);
		uint32_t kind = kind_of(ph, n);
		uint64_t pages = pages_of(ph->p_memsz);

		if (bad)
			return bad;
		if (kind == RDT_DOM_GATE || kind == RDT_DOM_EXIT) {
			if (pages != 1)
				return "gate and exit must be a page each";
			if (kind == RDT_DOM_GATE ? ph->p_flags != (PF_R | PF_X) : ph->p_flags != PF_R)
				return "gate or exit has other rights than it must";
		}
		gates += kind == RDT_DOM_GATE;
		exits += kind == RDT_DOM_EXIT;
		memcpy(full->content + used, file + ph->p_offset, ph->p_filesz);
		add(im, kind, ph->p_vaddr, pages, full->content + used, ph->p_filesz);
		used += ph->p_filesz;
		above = ph->p_vaddr + pages * RDT_PAGE;
	}
	if (gates != 1 || exits != 1)
		return "no gate or no exit";
	if (n->end < above)
		return "the end is not the end";
	add_rest(im, n);
	return NULL;
}

static int too_many_pages(const struct rdt_image *im)
{
	const struct rdt_image_segment *s = (void *)(uintptr_t)im->segment;
	uint64_t pages = im->window[0].pages;

	for (unsigned int i = 0; i < im->segments; i++)
		pages += s[i].pages;
	return pages > RDT_IMAGE_MAX_PAGES;
}

int rdt_image_parse(const void *file, size_t bytes, struct rdt_image **image)
{
	GElf_Phdr load[MAX_LOADS], ph;
	size_t headers, loads = 0, content = 0;
	struct full_image *full = NULL;
	struct note note = { 0 };
	int noted = 0, err = 0;
	const char *bad = NULL;
	GElf_Ehdr ehdr;
	Elf *elf = elf_of(file, bytes, &ehdr);

	if (!elf)
		return -ENOEXEC;
	if (ehdr.e_type != ET_EXEC)
		bad = "not linked for a fixed address";
	else if (elf_getphdrnum(elf, &headers) || headers > 64)
		bad = "its program headers are unreadable";
	for (size_t i = 0; !bad && i < headers; i++) {
		if (!gelf_getphdr(elf, i, &ph))
			bad = "its program headers are unreadable";
		else if (ph.p_type == PT_INTERP || ph.p_type == PT_DYNAMIC || ph.p_type == PT_TLS)
			bad = "it is dynamically linked, or has thread-local storage";
		else if (ph.p_type == PT_NOTE)
			noted += find_note(file, bytes, &ph, &note);
		else if (ph.p_type == PT_LOAD && loads == MAX_LOADS)
			bad = "too many segments";
		else if (ph.p_type == PT_LOAD && (ph.p_filesz > bytes || (content += ph.p_filesz) > MAX_FILE))
			bad = "a segment is not in the file";
		else if (ph.p_type == PT_LOAD)
			load[loads++] = ph;
	}
	if (!bad && noted != 1)
		bad = "it is no domain: it has not one RDT_DOMAIN()";
	if (!bad)
		bad = bad_note(&note);
	elf_end(elf);
	if (bad)
		return rdt_fail(-ENOEXEC, "%s", bad);

	full = calloc(1, sizeof(*full) + content);
	if (!full)
		return rdt_fail(-ENOMEM, "no memory");
	bad = build(full, file, bytes, load, loads, &note);
	if (bad)
		err = rdt_fail(-ENOEXEC, "%s", bad);
	else if (too_many_pages(&full->image))
		err = rdt_fail(-E2BIG, "the image has more than %d pages", RDT_IMAGE_MAX_PAGES);
	if (err) {
		free(full);
		return err;
	}
	*image = &full->image;
	return 0;
}

int rdt_image_load(const char *path, struct rdt_image **image)
{
	char why[160];
	size_t bytes;
	void *file;
	int err = rdt_read_file(path, &file, &bytes);

	if (err)
		return err;
	err = rdt_image_parse(file, bytes, image);
	free(file);
	if (err) {
		strncpy(why, rdt_error(), sizeof(why) - 1);
		why[sizeof(why) - 1] = 0;
		rdt_fail(err, "%s: %s", path, why);
	}
	return err;
}

void rdt_image_free(struct rdt_image *image)
{
	free(image);	/* is the beginning of its full_image */
}

/* ---- symbols ---------------------------------------------------------------------------- */

/* For a name that goes into the operator's files: what a compiler makes, and nothing else. */
static int is_name(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");

	return n && n <= 64 && !s[n] && !(*s >= '0' && *s <= '9');
}

static int each_symbol(Elf *elf, rdt_placeholder_fn *each, void *context)
{
	static const char prefix[] = "rdt_placeholder_";
	Elf_Scn *scn = NULL;
	GElf_Shdr sh;
	GElf_Sym sym;
	int ret = 0;

	while ((scn = elf_nextscn(elf, scn))) {
		Elf_Data *data;

		if (!gelf_getshdr(scn, &sh) || sh.sh_type != SHT_SYMTAB || !sh.sh_entsize)
			continue;
		data = elf_getdata(scn, NULL);
		for (size_t i = 0; data && !ret && i < sh.sh_size / sh.sh_entsize && gelf_getsym(data, i, &sym); i++) {
			const char *name = elf_strptr(elf, sh.sh_link, sym.st_name);

			if (name && !strncmp(name, prefix, sizeof(prefix) - 1) && is_name(name + sizeof(prefix) - 1) &&
			    sym.st_size >= 1 && sym.st_size <= RDT_PAGE)
				ret = each(context, name + sizeof(prefix) - 1, sym.st_value, sym.st_size);
		}
	}
	return ret;
}

int rdt_image_placeholders(const char *path, rdt_placeholder_fn *each, void *context)
{
	GElf_Ehdr ehdr;
	size_t size;
	void *file;
	Elf *elf;
	int ret = rdt_read_file(path, &file, &size);

	if (ret)
		return ret;
	elf = elf_of(file, size, &ehdr);
	ret = elf ? each_symbol(elf, each, context) : -ENOEXEC;
	elf_end(elf);
	free(file);
	return ret;
}
