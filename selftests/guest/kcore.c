// SPDX-License-Identifier: GPL-2.0
/*
 * kcore ADDRESS...: a page of the kernel's, by /proc/kcore. "none": it could not be read, or is
 * nothing but zeros, which is how that file says so; else "data" and its first bytes.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void show(int fd, const Elf64_Ehdr *eh, unsigned long va)
{
	static unsigned char page[4096];
	Elf64_Phdr ph;
	ssize_t n = -1;
	int i;

	errno = ENOENT;
	memset(page, 0, sizeof(page));
	for (i = 0; i < eh->e_phnum; i++) {
		if (pread(fd, &ph, sizeof(ph), eh->e_phoff + i * sizeof(ph)) != sizeof(ph))
			break;
		if (ph.p_type == PT_LOAD && va >= ph.p_vaddr && va + sizeof(page) <= ph.p_vaddr + ph.p_memsz) {
			n = pread(fd, page, sizeof(page), ph.p_offset + va - ph.p_vaddr);
			break;
		}
	}
	for (i = 0; i < 4096 && !page[i]; i++)
		;
	if (n < 0)
		printf("%lx none: %s\n", va, strerror(errno));
	else if (i == 4096)
		printf("%lx none: zeros\n", va);
	else
		printf("%lx data: %02x%02x%02x%02x\n", va, page[0], page[1], page[2], page[3]);
}

int main(int argc, char **argv)
{
	int fd = open("/proc/kcore", O_RDONLY), i;
	Elf64_Ehdr eh;

	if (fd < 0 || read(fd, &eh, sizeof(eh)) != sizeof(eh) || memcmp(eh.e_ident, ELFMAG, SELFMAG))
		return 2;
	for (i = 1; i < argc; i++)
		show(fd, &eh, strtoul(argv[i], NULL, 16));
	return 0;
}
