// SPDX-License-Identifier: GPL-2.0
/*
 * E10: root in the guest drives its NVMe controller itself, and not as the specification has it: addresses that
 * are the host's, queues and doorbells that are not there, commands that change after the doorbell. TAP.
 *
 *   nvme_attack direct|mediated	which of the two the I/O queues are
 *
 * The kernel's driver is unbound and does not come back.
 */
#include "nvme_user.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* The private window is the top of the IOMMU's space; of 2^47 at most. */
#define WINDOW	((1ull << 47) - (64ull << 20))

const char *requirement = "E10";

/* ---- the attacks --------------------------------------------------------------------------- */

static void admin_addresses(void)
{
	static const uint64_t where[] = { WINDOW, WINDOW + PAGE, (1ull << 47) - PAGE, 1ull << 46, (1ull << 47), ~0ull << 12 };
	unsigned int i, refused = 0;

	for (i = 0; i < 6; i++)
		refused += identify(where[i], 0) > 0;
	refused += identify(gpa[8] + 2048, WINDOW) > 0;
	report(refused == 7, "Identify to addresses of the host's and to nowhere: %u of 7 refused", refused);
	report(works(), "it works");
}

static void admin_commands(void)
{
	static const uint8_t ops[] = { 0x03, 0x0d, 0x10, 0x11, 0x14, 0x15, 0x18, 0x19, 0x1a, 0x1c, 0x1d, 0x1e, 0x80, 0x81, 0x82, 0x84,
				       0x86, 0xc0, 0xc1, 0xff };
	unsigned int i, refused = 0;

	for (i = 0; i < sizeof(ops); i++)
		refused += command(&admin, (struct sqe){ .opcode = ops[i], .nsid = 1, .prp1 = gpa[8], .cdw10 = 0x200 }) == 1;
	report(refused == sizeof(ops), "firmware, format, security, the vendor's: %u of %zu refused", refused, sizeof(ops));
	/* Host memory for the device: of the host's */
	i = command(&admin, (struct sqe){ .opcode = 9, .cdw10 = 0x0d, .cdw11 = 1, .cdw12 = 1, .prp1 = gpa[8] });
	report(i != 0, "a host memory buffer: %#x", i);
	report(works(), "it works");
}

static void queues(void)
{
	const struct sqe cqs[] = {
		{ .opcode = 5, .prp1 = WINDOW, .cdw10 = 2 | 31 << 16, .cdw11 = 1 },
		{ .opcode = 5, .prp1 = gpa[8] + 16, .cdw10 = 2 | 31 << 16, .cdw11 = 1 },
		{ .opcode = 5, .prp1 = gpa[8], .cdw10 = 0 | 31 << 16, .cdw11 = 1 },
		{ .opcode = 5, .prp1 = gpa[8], .cdw10 = 1 | 31 << 16, .cdw11 = 1 },
		{ .opcode = 5, .prp1 = gpa[8], .cdw10 = 65535 | 31 << 16, .cdw11 = 1 },
		{ .opcode = 5, .prp1 = gpa[8], .cdw10 = 2, .cdw11 = 1 },
		{ .opcode = 5, .prp1 = gpa[8], .cdw10 = 2 | 31 << 16, .cdw11 = 1 | 4095u << 16 },
		{ .opcode = 5, .prp1 = gpa[8], .cdw10 = 2 | 31 << 16, .cdw11 = 0 },
		{ .opcode = 1, .prp1 = WINDOW, .cdw10 = 2 | 31 << 16, .cdw11 = 1 | 1 << 16 },
		{ .opcode = 1, .prp1 = gpa[8], .cdw10 = 2 | 31 << 16, .cdw11 = 1 | 60u << 16 },
		{ .opcode = 1, .prp1 = gpa[8], .cdw10 = 1 | 31 << 16, .cdw11 = 1 | 1 << 16 },
		{ .opcode = 0, .cdw10 = 0 },
		{ .opcode = 0, .cdw10 = 9 },
		{ .opcode = 4, .cdw10 = 0 },
		{ .opcode = 4, .cdw10 = 1 },	/* in use */
		{ .opcode = 0x7c, .prp1 = WINDOW, .prp2 = gpa[8] },
		{ .opcode = 0x7c, .prp1 = gpa[8], .prp2 = gpa[9] + 4 },
	};
	const unsigned int n = sizeof(cqs) / sizeof(*cqs);
	unsigned int i, refused = 0;

	for (i = 0; i < n; i++) {
		const int status = command(&admin, cqs[i]);

		if (status > 0)
			refused++;
		else
			printf("# queue %u: %d\n", i, status);
	}
	report(refused == n, "queues and doorbell buffers where none may be: %u of %u refused", refused, n);
	report(works(), "it works");
}

static void doorbells(void)
{
	unsigned int i;

	for (i = 0; i < 600; i++)
		set(0x1000 + (i * 4) % 0xff0, i * 2654435761u);
	for (i = 0; i < 16; i++) {
		*(volatile uint8_t *)(bar + 0x1008 + i) = 0xff;
		*(volatile uint16_t *)(bar + 0x1008 + 2 * i) = 0xffff;
		*(volatile uint64_t *)(bar + 0x1010 + 8 * i) = ~0ull;
		*(volatile uint8_t *)(bar + i * 4) = 0xff;
		(void)*(volatile uint8_t *)(bar + 0x1000 + i);
	}
	report(restart(), "doorbells that are not there, with values that are not: after a reset it works");
}

static void io_addresses(bool direct)
{
	uint64_t *list = (uint64_t *)(memory + 10 * PAGE);
	unsigned int i, refused = 0;

	/* From the disk into the host's private memory; the admin queue's ring is there. */
	for (i = 0; i < 64; i++) {
		const int status = command(&io, rw(2, WINDOW + i * PAGE, 0, 8));

		refused += status > 0;
	}
	if (direct)
		report(works(), "%u of 64 reads to private memory fail, and the admin queue is whole", refused);
	else
		report(refused == 64 && works(), "%u of 64 reads to private memory are refused", refused);
	for (i = 0; i < 512; i++)
		list[i] = direct ? 1ull << 46 : WINDOW + i * PAGE;
	i = command(&io, rw(2, gpa[8], gpa[10], 64));
	/* What a device does that gets no answer from its bus is its own business: QEMU's tries for ever. */
	if (direct)
		report(restart(), "a list of addresses that are nowhere, %#x, and after a reset it works", i);
	else
		report(i == 2, "a list of such addresses: %#x", i);
	for (i = 0; i < 512; i++)
		list[i] = gpa[10];
	i = command(&io, rw(2, gpa[8] + 4, gpa[10] + PAGE - 8, 2048));
	report(i != -1u, "a list whose last entry is itself: %#x", i);
	report(restart(), "it works");
}

static volatile bool stop;
static void *flip(void *arg)
{
	(void)arg;
	while (!stop) {
		int i;

		for (i = 0; i < DEPTH; i++) {
			io.sq[i].prp1 = WINDOW;
			io.sq[i].opcode = 0x80 + i;
			io.sq[i].prp1 = gpa[8];
			io.sq[i].opcode = 2;
		}
	}
	return NULL;
}

static void changes(void)
{
	unsigned int i, good = 0, refused = 0, none = 0;
	pthread_t thread;

	pthread_create(&thread, NULL, flip, NULL);
	for (i = 0; i < 500; i++) {
		const int status = command(&io, rw(2, gpa[8], 0, 8));

		if (status < 0)
			none++;
		else if (status)
			refused++;
		else
			good++;
	}
	stop = true;
	pthread_join(thread, NULL);
	report(!none, "commands that change after the doorbell: %u done, %u refused, %u without an answer", good, refused, none);
	report(restart(), "it works");
}

static void controller(void)
{
	static const uint32_t ccs[] = { 0x460001 | 7 << 4, 0x460001 | 3 << 7, 0x460001 | 1 << 11, 1, 0xffffffff };
	unsigned int i;

	for (i = 0; i < 5; i++)
		enable_at(admin.sq_gpa, admin.cq_gpa, ccs[i]);
	report(restart(), "enabled in ways that it cannot be: after a reset it works");
	i = enable_at(WINDOW, gpa[9], 0x460001);
	report(!i, "the admin queue in private memory: it does not start");
	if (enable_at(gpa[9], 1ull << 46, 0x460001))
		set(0x1000, 1);
	report(wait_csts(2, 2), "completions to where no memory is: the controller has failed");
	report(restart(), "after a reset it works");
	for (i = 0; i < 10; i++) {
		int k;

		for (k = 0; k < 20; k++)
			submit(&io, rw(2, gpa[8], 0, 8));
		ring(&io);
		set(0x14, i % 2 ? 0 : 0x460001 | 1 << 14);
		if (!restart())
			break;
	}
	report(i == 10, "reset and shut down with commands under way, %u times", i);
}

int main(int argc, char **argv)
{
	const bool direct = argc > 1 && !strcmp(argv[1], "direct");

	setvbuf(stdout, NULL, _IOLBF, 0);
	find_memory();
	find_controller();
	report(restart(), "the controller works, with queues of ours");
	admin_addresses();
	admin_commands();
	queues();
	doorbells();
	io_addresses(direct);
	changes();
	controller();
	printf("1..%u\n", tests);
	return bad != 0;
}
