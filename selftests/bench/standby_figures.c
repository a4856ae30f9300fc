// SPDX-License-Identifier: GPL-2.0
/*
 * standby_figures rate RAM SECONDS [PID...]   what the guest (work.S) does in that time: {"rounds": N, "ns": N}. The processor
 *                                             time of the PIDs, which would be on another host, is not in "ns"
 * standby_figures handover RAM RAM2 CMD...    from when CMD is started, which hands the VM over, until it goes on in RAM2: ns
 * standby_figures copy tcp|memory RAM         all pages of it that are not zero, once: by a TCP connection on loopback from one
 *                                             process to another, or by memcpy: {"bytes": N, "ns": N}
 * standby_figures sink PORT                   takes connections and what comes by them, until it is killed
 */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define COUNT 0x6000

struct ram {
	volatile uint8_t *at;
	size_t bytes;
};

static struct ram ram_map(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	struct ram ram;

	if (fd < 0 || fstat(fd, &st) || st.st_size < COUNT + PAGE)
		err(2, "%s", path);
	ram.bytes = (size_t)st.st_size;
	ram.at = mmap(NULL, ram.bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (ram.at == MAP_FAILED)
		err(2, "%s", path);
	close(fd);
	return ram;
}

static uint64_t count(struct ram ram)
{
	return *(volatile uint64_t *)(ram.at + COUNT);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* All threads' that there are; who ends meanwhile takes his time with him. */
static uint64_t spent(int n, char **pids)
{
	uint64_t sum = 0, ns;
	char pattern[64];
	glob_t g;

	for (int i = 0; i < n; i++) {
		snprintf(pattern, sizeof(pattern), "/proc/%s/task/*/schedstat", pids[i]);
		if (glob(pattern, 0, NULL, &g))
			errx(2, "there is no process %s", pids[i]);
		for (size_t k = 0; k < g.gl_pathc; k++) {
			FILE *f = fopen(g.gl_pathv[k], "r");

			if (f && fscanf(f, "%" SCNu64, &ns) == 1)
				sum += ns;
			if (f)
				fclose(f);
		}
		globfree(&g);
	}
	return sum;
}

static int rate(int argc, char **argv)
{
	struct ram ram = ram_map(argv[0]);
	uint64_t others = spent(argc - 2, argv + 2), from = count(ram), begin = now();
	struct timespec t = { .tv_sec = atoi(argv[1]) };
	uint64_t to, ns;

	nanosleep(&t, NULL);
	to = count(ram);
	ns = now() - begin - (spent(argc - 2, argv + 2) - others);
	printf("{\"rounds\": %" PRIu64 ", \"ns\": %" PRIu64 "}\n", to - from, ns);
	return to == from;
}

static int handover(char **argv)
{
	struct ram here = ram_map(argv[0]), there = ram_map(argv[1]);
	const struct timespec nap = { .tv_nsec = 1000000 };
	uint64_t begin = now();
	int status;

	if (!fork()) {
		dup2(2, 1);
		execvp(argv[2], argv + 2);
		err(2, "%s", argv[2]);
	}
	/* What came with the image is not more than what it is of. */
	while (count(there) <= count(here)) {
		if (now() - begin > 600ull * 1000000000)
			errx(1, "it does not go on");
		nanosleep(&nap, NULL);
	}
	printf("{\"ns\": %" PRIu64 "}\n", now() - begin);
	return wait(&status) < 0 || status;
}

static int zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

static void all_of(int fd, void *at, size_t bytes, int out)
{
	ssize_t n;

	for (size_t done = 0; done < bytes; done += (size_t)n) {
		n = out ? write(fd, (char *)at + done, bytes - done) : read(fd, (char *)at + done, bytes - done);
		if (n <= 0)
			err(2, "the connection");
	}
}

static int copy(const char *how, const char *path)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct ram ram = ram_map(path);
	uint8_t *from = mmap(NULL, ram.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint8_t *dest = mmap(NULL, ram.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	socklen_t len = sizeof(to);
	size_t bytes = 0;
	uint64_t begin;
	int listener, fd;

	if (from == MAP_FAILED || dest == MAP_FAILED)
		err(2, "memory");
	for (size_t at = 0; at < ram.bytes; at += PAGE)
		if (!zero((const uint8_t *)ram.at + at)) {
			memcpy(from + bytes, (const uint8_t *)ram.at + at, PAGE);
			bytes += PAGE;
		}
	if (!strcmp(how, "memory")) {
		begin = now();
		memcpy(dest, from, bytes);
	} else {
		listener = socket(AF_INET, SOCK_STREAM, 0);
		if (bind(listener, (void *)&to, sizeof(to)) || listen(listener, 1) || getsockname(listener, (void *)&to, &len))
			err(2, "socket");
		begin = now();
		if (!fork()) {
			fd = socket(AF_INET, SOCK_STREAM, 0);
			if (connect(fd, (void *)&to, len))
				err(2, "connect");
			all_of(fd, from, bytes, 1);
			_exit(0);
		}
		fd = accept(listener, NULL, NULL);
		all_of(fd, dest, bytes, 0);
	}
	printf("{\"bytes\": %zu, \"ns\": %" PRIu64 "}\n", bytes, now() - begin);
	return memcmp(from, dest, bytes) != 0;
}

static int sink(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd, yes = 1;
	static char buffer[1 << 20];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listener, (void *)&at, sizeof(at)) || listen(listener, 4))
		err(2, "port %d", port);
	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		while (read(fd, buffer, sizeof(buffer)) > 0)
			;
		close(fd);
	}
	err(2, "accept");
}

int main(int argc, char **argv)
{
	if (argc >= 4 && !strcmp(argv[1], "rate"))
		return rate(argc - 2, argv + 2);
	if (argc >= 5 && !strcmp(argv[1], "handover"))
		return handover(argv + 2);
	if (argc == 4 && !strcmp(argv[1], "copy"))
		return copy(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "sink"))
		return sink(atoi(argv[2]));
	errx(2, "see the source");
}
