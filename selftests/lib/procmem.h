/* SPDX-License-Identifier: GPL-2.0 */
/* For programs that look for something in all memory of a process. */
#ifndef PROCMEM_H
#define PROCMEM_H

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCMEM_PAGE	4096
#define PROCMEM_CHUNK	(1 << 20)

/*
 * Each readable mapping of @pid goes to @look in chunks, the last @again bytes of one once more in the next, for what
 * lies across; until @look says that it has seen enough. Returns the bytes read; ends the program with
 * status 2 if it may not look.
 */
static uint64_t read_process(const char *pid, size_t again, bool (*look)(const uint8_t *at, size_t len))
{
	static uint8_t buf[PROCMEM_CHUNK];
	char path[64], line[512];
	bool enough = false;
	uint64_t seen = 0;
	FILE *maps;
	int mem;

	snprintf(path, sizeof(path), "/proc/%s/maps", pid);
	maps = fopen(path, "r");
	snprintf(path, sizeof(path), "/proc/%s/mem", pid);
	mem = open(path, O_RDONLY);
	if (!maps || mem < 0) {
		perror(path);
		exit(2);
	}
	while (!enough && fgets(line, sizeof(line), maps)) {
		uint64_t from, to, step;
		char r;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %c", &from, &to, &r) != 3 || r != 'r' ||
		    strstr(line, "[vvar]") || strstr(line, "[vsyscall]"))
			continue;
		for (; !enough && from < to; from += step) {
			ssize_t got = pread(mem, buf, to - from < sizeof(buf) ? to - from : sizeof(buf), (off_t)from);

			if (got <= 0) {
				/* Behind the end of a file that is mapped, or a page that went away */
				step = to - from < PROCMEM_PAGE ? to - from : PROCMEM_PAGE;
				continue;
			}
			seen += (uint64_t)got;
			enough = look(buf, (size_t)got);
			step = (uint64_t)got;
			if (from + step < to && step >= PROCMEM_PAGE)
				step -= again;
		}
	}
	close(mem);
	fclose(maps);
	return seen;
}

/* Is there a page of zeros at @at, with @len bytes to come? Most of a guest's memory is nothing. */
static bool is_nothing(const uint8_t *at, size_t len)
{
	static const uint8_t nothing[PROCMEM_PAGE];

	return len >= sizeof(nothing) && !memcmp(at, nothing, sizeof(nothing));
}

#endif
