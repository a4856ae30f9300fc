// SPDX-License-Identifier: GPL-2.0
#include "nvme_user.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

volatile uint8_t *bar;
uint8_t *memory;
uint64_t gpa[PAGES];
struct queue admin, io;
unsigned int tests, bad, rung;

void report(bool good, const char *what, ...)
{
	va_list ap;

	va_start(ap, what);
	printf("%sok %u - %s ", good ? "" : "not ", ++tests, requirement);
	vprintf(what, ap);
	printf("\n");
	va_end(ap);
	bad += !good;
}

static void put(const char *dir, const char *file, const char *text)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "# cannot write %s\n", path);
	close(fd);
}

void find_controller(void)
{
	DIR *all = opendir("/sys/bus/pci/devices");
	char dir[300], cls[16];
	struct dirent *e;
	uint16_t command;
	int fd;

	while ((e = readdir(all))) {
		snprintf(dir, sizeof(dir), "/sys/bus/pci/devices/%s/class", e->d_name);
		fd = open(dir, O_RDONLY);
		if (fd < 0 || read(fd, cls, sizeof(cls)) < 8 || memcmp(cls, "0x010802", 8))
			continue;
		*strrchr(dir, '/') = 0;
		put(dir, "driver/unbind", e->d_name);
		put(dir, "enable", "1");
		strcat(dir, "/config");
		fd = open(dir, O_RDWR);
		if (pread(fd, &command, 2, 4) != 2)
			break;
		command |= 6;
		if (pwrite(fd, &command, 2, 4) != 2)
			break;
		strcpy(strrchr(dir, '/'), "/resource0");
		fd = open(dir, O_RDWR);
		bar = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_32BIT, fd, 0);
		if (bar != MAP_FAILED)
			return;
	}
	printf("Bail out! no controller\n");
	exit(1);
}

void find_memory(void)
{
	int i, fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry;

	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);
	for (i = 0; i < PAGES; i++) {
		if (pread(fd, &entry, 8, (uintptr_t)(memory + i * PAGE) / PAGE * 8) != 8 || !(entry & ((1ull << 54) - 1))) {
			printf("Bail out! no addresses\n");
			exit(1);
		}
		gpa[i] = (entry & ((1ull << 54) - 1)) * PAGE;
	}
}

static uint32_t reg(uint32_t off)
{
	return *(volatile uint32_t *)(bar + off);
}

void set(uint32_t off, uint32_t v)
{
	rung += off >= 0x1000;
	*(volatile uint32_t *)(bar + off) = v;
}

static void set64(uint32_t off, uint64_t v)
{
	set(off, v);
	set(off + 4, v >> 32);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

bool wait_csts(uint32_t mask, uint32_t value)
{
	const double until = now() + 20;

	while ((reg(0x1c) & mask) != value) {
		if (now() > until)
			return false;
		usleep(1000);
	}
	return true;
}

static void make_queue(struct queue *q, uint16_t id, int page)
{
	memset(memory + page * PAGE, 0, 2 * PAGE);
	*q = (struct queue){ .id = id, .phase = 1, .sq = (void *)(memory + page * PAGE), .sq_gpa = gpa[page],
			     .cq = (void *)(memory + (page + 1) * PAGE), .cq_gpa = gpa[page + 1] };
}

bool enable_at(uint64_t asq, uint64_t acq, uint32_t cc)
{
	set(0x14, 0);
	wait_csts(1, 0);
	set(0x24, (DEPTH - 1) << 16 | (DEPTH - 1));
	set64(0x28, asq);
	set64(0x30, acq);
	set(0x14, cc);
	return wait_csts(3, 1);
}

static bool start(void)
{
	make_queue(&admin, 0, 0);
	return enable_at(admin.sq_gpa, admin.cq_gpa, 0x460001);
}

void ring(struct queue *q)
{
	__sync_synchronize();
	set(0x1000 + 8 * q->id, q->tail);
}

void submit(struct queue *q, struct sqe e)
{
	static uint16_t cid;

	e.cid = ++cid;
	q->sq[q->tail] = e;
	q->tail = (q->tail + 1) % DEPTH;
}

/* The status field; -1: none came. */
int completion(struct queue *q, double seconds)
{
	const double until = now() + seconds;
	uint16_t status;

	while (((status = q->cq[q->head].status) & 1) != q->phase) {
		if (now() > until)
			return -1;
	}
	q->head = (q->head + 1) % DEPTH;
	if (!q->head)
		q->phase ^= 1;
	set(0x1004 + 8 * q->id, q->head);
	return status >> 1 & 0x7ff;
}

int command(struct queue *q, struct sqe e)
{
	submit(q, e);
	ring(q);
	return completion(q, 20);
}

int identify(uint64_t prp1, uint64_t prp2)
{
	return command(&admin, (struct sqe){ .opcode = 6, .cdw10 = 1, .prp1 = prp1, .prp2 = prp2 });
}

bool works(void)
{
	memset(memory + 8 * PAGE, 0, PAGE);
	return identify(gpa[8], 0) == 0 && *(uint16_t *)(memory + 8 * PAGE);
}

bool make_io(void)
{
	make_queue(&io, 1, 2);
	return command(&admin, (struct sqe){ .opcode = 9, .cdw10 = 7, .cdw11 = 0 }) == 0 &&
	       command(&admin, (struct sqe){ .opcode = 5, .prp1 = io.cq_gpa, .cdw10 = 1 | (DEPTH - 1) << 16, .cdw11 = 3 | 1 << 16 }) == 0 &&
	       command(&admin, (struct sqe){ .opcode = 1, .prp1 = io.sq_gpa, .cdw10 = 1 | (DEPTH - 1) << 16, .cdw11 = 1 | 1 << 16 }) == 0;
}

struct sqe rw(uint8_t opcode, uint64_t prp1, uint64_t prp2, unsigned int blocks)
{
	return (struct sqe){ .opcode = opcode, .nsid = 1, .prp1 = prp1, .prp2 = prp2, .cdw12 = blocks - 1 };
}

bool restart(void)
{
	return start() && make_io() && works();
}
