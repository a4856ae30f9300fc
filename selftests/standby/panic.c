// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include "panic.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tap.h"
#include "vmm.h"

const char *panic_dir;

const char *in_dir(const char *name)
{
	static char path[200];

	snprintf(path, sizeof(path), "%s/%s", panic_dir, name);
	return path;
}

void put_file(const char *name, const void *data, size_t bytes)
{
	int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes || close(fd))
		tap_bail("%s", name);
}

void *get_file(const char *path, size_t *bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *data;

	if (fd < 0)
		return NULL;
	data = fstat(fd, &st) ? NULL : calloc(1, st.st_size + 1);
	if (!data || read(fd, data, st.st_size) != st.st_size)
		tap_bail("%s", path);
	close(fd);
	*bytes = st.st_size;
	return data;
}

static uint64_t page_hash(const uint64_t *words)
{
	uint64_t h = 0xcbf29ce484222325;

	for (size_t i = 0; i < PAGE_SIZE / sizeof(*words); i++)
		h = (h ^ words[i]) * 0x100000001b3;
	return h;
}

void put_hashes(pid_t pid, uint64_t gfn, uint64_t frames, uint64_t hva)
{
	uint64_t *hashes = malloc(frames * 8), page[PAGE_SIZE / 8];
	char name[40];

	for (uint64_t i = 0; i < frames; i++) {
		struct iovec here = { page, PAGE_SIZE }, there = { (void *)(hva + i * PAGE_SIZE), PAGE_SIZE };

		if (process_vm_readv(pid, &here, 1, &there, 1, 0) != PAGE_SIZE)
			tap_bail("process_vm_readv at %#llx", (unsigned long long)(hva + i * PAGE_SIZE));
		hashes[i] = page_hash(page);
	}
	snprintf(name, sizeof(name), "hashes-%llu", (unsigned long long)gfn);
	put_file(name, hashes, frames * 8);
	free(hashes);
}

_Noreturn void panic_now(const char *cmd)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

	/* A vCPU may spin, and loading takes minutes under Bochs. */
	setpriority(PRIO_PROCESS, 0, -19);
	if (fd < 0 || system(cmd))
		tap_bail("%s", cmd);
	setpriority(PRIO_PROCESS, 0, 0);
	sleep(1);		/* what was said until now gets out */
	if (write(fd, "c", 1) != 1)
		tap_bail("sysrq-trigger");
	tap_bail("no panic");
}

/* Frames from @gfn on. The image's file has holes where pages are zero, and may end early. */
static void check_range(int fd, uint64_t gfn)
{
	uint64_t page[PAGE_SIZE / 8], differ = 0, zero = 0, first = 0;
	size_t bytes = 0;
	uint64_t *want;
	char name[40];

	snprintf(name, sizeof(name), "hashes-%llu", (unsigned long long)gfn);
	want = get_file(in_dir(name), &bytes);
	for (uint64_t i = 0; i < bytes / 8; i++) {
		memset(page, 0, sizeof(page));
		if (pread(fd, page, PAGE_SIZE, (gfn + i) * PAGE_SIZE) < 0)
			tap_bail("the image");
		if (page_hash(page) != want[i] && !differ++)
			first = gfn + i;
		zero += !memcmp(page, page + 1, PAGE_SIZE - 8) && !page[0];
	}
	if (!ok(bytes && !differ, "F1 memory from frame %#llx on: %zu pages as they were, %llu of them zero", (unsigned long long)gfn,
		bytes / 8, (unsigned long long)zero))
		tap_diag("%llu differ, the first is %#llx", (unsigned long long)differ, (unsigned long long)first);
	free(want);
}

void check_memory(const char *image)
{
	DIR *d = opendir(panic_dir);
	struct dirent *e;
	char path[300];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/lost", image);
	if (!ok(!stat(path, &st) && !st.st_size, "F1 no frame is lost"))
		return;
	snprintf(path, sizeof(path), "%s/memory", image);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (d && (e = readdir(d)))
		if (!strncmp(e->d_name, "hashes-", 7))
			check_range(fd, strtoull(e->d_name + 7, NULL, 10));
	closedir(d);
	close(fd);
}
