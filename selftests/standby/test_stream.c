// SPDX-License-Identifier: GPL-2.0
/*
 * F7: a living VM's memory over netlink. Right, without holes; losses found and repaired; a receiver that stands still or
 * dies; what it costs against TCP.
 *
 *   test_stream [MIB]		of memory besides the VM's 16; 24
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "image.h"
#include "layout.h"
#include "tap.h"
#include "vmm_child.h"

#define DROP		"/sys/module/redoubt_standby/parameters/drop"

static int ctl;
static uint16_t family;
static uint32_t events;
static struct child child;
static uint32_t vm;
static struct gnl_msg msg;
static char reply_buf[GNL_MAX];
static struct nlmsghdr *const reply = (void *)reply_buf;
static uint8_t *ref[CHILD_SLOTS];	/* memory as it is */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int stream_start(uint32_t number, int fd, uint32_t flags)
{
	gnl_begin(&msg, family, RDT_SB_CMD_STREAM);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, number);
	gnl_u32(&msg, RDT_SB_A_DATA_FD, fd);
	if (flags)
		gnl_u32(&msg, RDT_SB_A_FLAGS, flags);
	return gnl_call(ctl, &msg, NULL);
}

static int stream_cmd(uint8_t cmd, uint32_t number, const struct rdt_sb_range *ranges, uint32_t nr)
{
	gnl_begin(&msg, family, cmd);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, number);
	if (nr)
		gnl_put(&msg, RDT_SB_A_RANGES, ranges, nr * sizeof(*ranges));
	return gnl_call(ctl, &msg, NULL);
}

static bool stream_info(uint32_t number, struct rdt_sb_stream_info *info)
{
	const struct nlattr *a = NULL;

	gnl_begin(&msg, family, RDT_SB_CMD_GET);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	if (gnl_call(ctl, &msg, reply))
		return false;
	while ((a = gnl_next(reply, RDT_SB_A_STREAM_INFO, a))) {
		memcpy(info, gnl_data(a), sizeof(*info));
		if (info->stream == number)
			return true;
	}
	return false;
}

static void areas_of_slots(struct image *im)
{
	for (int i = 0; i < CHILD_SLOTS; i++)
		image_area(im, i, child.box->slot[i].gfn, child.box->slot[i].frames);
}

static uint64_t total_frames(void)
{
	return child.box->slot[0].frames + child.box->slot[1].frames;
}

static uint64_t nonzero_frames(void)
{
	static const uint8_t zero[PAGE_SIZE];
	uint64_t n = 0;

	for (int k = 0; k < CHILD_SLOTS; k++)
		for (uint64_t i = 0; i < child.box->slot[k].frames; i++)
			n += !!memcmp(ref[k] + i * PAGE_SIZE, zero, PAGE_SIZE);
	return n;
}

static void test_all(void)
{
	const uint64_t total = total_frames(), nonzero = nonzero_frames();
	struct image im;
	int fd = gnl_socket(NULL);

	gnl_bufsize(fd, 4 << 20);
	image_init(&im, RDT_SB_SPACE_GFN, vm, 1);
	areas_of_slots(&im);
	is(stream_start(1, fd, 0), 0, "F7 a stream of all slots begins");
	ok(image_receive(&im, fd, 20000) && !im.bad, "F7 it comes to its end");
	is(im.holes, 0, "F7 sequence numbers have no holes");
	is(im.count, total, "F7 the end tells of all %lu frames", (unsigned long)total);
	is(im.data, nonzero, "F6 the %lu frames that are not zero came as data", (unsigned long)nonzero);
	is(im.zero, total - nonzero, "F6 the others as bits");
	is(im.lost, 0, "F7 none is lost");
	is(image_differs(&im, 0, ref[0]), 0, "F7 RAM is equal, page by page");
	is(image_differs(&im, 1, ref[1]), 0, "F7 zero, same and random pages are equal");
	tap_diag("%lu messages for %lu frames", (unsigned long)im.messages, (unsigned long)total);

	/* Those frames once more, in the same stream. */
	struct rdt_sb_range r[] = { { child.box->slot[1].gfn + 5, 7 }, { 0, 1 } };
	const uint64_t seq = im.next_seq;

	im.data = im.zero = 0;
	is(stream_cmd(RDT_SB_CMD_AGAIN, 1, r, 2), 0, "F7 some frames are asked for again");
	ok(image_receive(&im, fd, 20000) && !im.bad && im.data + im.zero == 8 && im.next_seq == seq + 3,
	   "F7 they come, two messages and an end, in the numbers of the stream");
	is(stream_cmd(RDT_SB_CMD_CANCEL, 1, NULL, 0), 0, "F7 the stream is cancelled");
	is(stream_cmd(RDT_SB_CMD_CANCEL, 1, NULL, 0), ENOENT, "F7 and is there no more");
	image_free(&im);
	close(fd);
}

/* The VMM's addresses: what no slot maps can be read only so. */
static void test_hva(void)
{
	const struct rdt_sb_range r = { child.box->slot[1].hva / PAGE_SIZE, child.box->slot[1].frames };
	struct image im;
	int fd = gnl_socket(NULL);

	gnl_bufsize(fd, 4 << 20);
	child_slot(&child, false);
	image_init(&im, RDT_SB_SPACE_GFN, vm, 2);
	image_area(&im, 0, child.box->slot[1].gfn, 64);
	gnl_begin(&msg, family, RDT_SB_CMD_STREAM);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, 2);
	gnl_u32(&msg, RDT_SB_A_DATA_FD, fd);
	gnl_put(&msg, RDT_SB_A_RANGES, &(struct rdt_sb_range){ child.box->slot[1].gfn, 64 }, sizeof(r));
	is(gnl_call(ctl, &msg, NULL), 0, "F7 frames of a slot that has gone are asked for");
	ok(image_receive(&im, fd, 20000) && !im.bad && im.lost == 64, "F7 each is told to be lost, none is made up");
	image_free(&im);
	stream_cmd(RDT_SB_CMD_CANCEL, 2, NULL, 0);

	image_init(&im, RDT_SB_SPACE_HVA, vm, 3);
	image_area(&im, 0, r.first, r.count);
	gnl_begin(&msg, family, RDT_SB_CMD_STREAM);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, 3);
	gnl_u32(&msg, RDT_SB_A_DATA_FD, fd);
	gnl_u8(&msg, RDT_SB_A_SPACE, RDT_SB_SPACE_HVA);
	gnl_put(&msg, RDT_SB_A_RANGES, &r, sizeof(r));
	is(gnl_call(ctl, &msg, NULL), 0, "F7 the same memory by the VMM's addresses");
	ok(image_receive(&im, fd, 20000) && !im.bad && !image_differs(&im, 0, ref[1]), "F7 is there, and equal");
	image_free(&im);
	child_slot(&child, true);
	stream_cmd(RDT_SB_CMD_CANCEL, 3, NULL, 0);
	close(fd);
}

static void set_drop(const char *n)
{
	int fd = open(DROP, O_WRONLY);

	if (fd < 0 || write(fd, n, strlen(n)) < 0)
		tap_bail(DROP);
	close(fd);
}

static void test_drop(unsigned int nth)
{
	static struct rdt_sb_range ranges[RDT_SB_MAX_RANGES];
	struct rdt_sb_stream_info info = {};
	unsigned int rounds = 0;
	struct image im;
	char n[12];
	int fd = gnl_socket(NULL);

	gnl_bufsize(fd, 4 << 20);
	image_init(&im, RDT_SB_SPACE_GFN, vm, 4);
	areas_of_slots(&im);
	snprintf(n, sizeof(n), "%u", nth);
	set_drop(n);
	is(stream_start(4, fd, 0), 0, "F7 a stream that loses every %uth message", nth);
	for (; rounds < 60; rounds++) {
		const bool ended = image_receive(&im, fd, 1500);
		const uint32_t nr = image_missing(&im, ranges, RDT_SB_MAX_RANGES);

		if (im.bad || (ended && !nr && im.next_seq))
			break;
		/* An end can be lost, too: GET says whether there is more to come. */
		if (!ended && (!stream_info(4, &info) || info.state != RDT_SB_STREAM_IDLE))
			continue;
		if (stream_cmd(RDT_SB_CMD_AGAIN, 4, ranges, nr))
			break;
	}
	stream_info(4, &info);
	set_drop("0");
	ok(im.holes && info.dropped, "F7 the receiver sees holes in the numbers (%lu)", (unsigned long)im.holes);
	ok(info.dropped >= im.holes && info.seq + 1 >= im.next_seq && info.dropped - im.holes <= info.seq + 1 - im.next_seq,
	   "F7 as many as there were losses (%u)", info.dropped);
	ok(!im.bad && !image_differs(&im, 0, ref[0]) && !image_differs(&im, 1, ref[1]),
	   "F7 asked for again, in %u rounds, all is there and equal", rounds);
	stream_cmd(RDT_SB_CMD_CANCEL, 4, NULL, 0);
	image_free(&im);
	close(fd);
}

/* What waits at this port to be received, as the kernel counts it. -1: there is no such port. */
static long waiting_at(uint32_t portid)
{
	char line[256];
	unsigned int eth, pid, rmem;
	long found = -1;
	FILE *f = fopen("/proc/net/netlink", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*x %u %u %*x %u", &eth, &pid, &rmem) == 3 && eth == NETLINK_GENERIC && pid == portid)
			found = rmem;
	if (f)
		fclose(f);
	return found;
}

static void test_stopped(void)
{
	struct rdt_sb_stream_info one, two;
	const int limit = 1 << 20;	/* the kernel doubles it */
	struct image im;
	uint32_t portid;
	int fd = gnl_socket(&portid);
	long waits;
	double t;

	gnl_bufsize(fd, limit);
	image_init(&im, RDT_SB_SPACE_GFN, vm, 5);
	areas_of_slots(&im);
	is(stream_start(5, fd, RDT_SB_F_KEEP_ZERO), 0, "F7 a stream whose receiver does not read");
	sleep(2);
	stream_info(5, &one);
	sleep(1);
	ok(stream_info(5, &two) && one.seq && one.seq == two.seq && two.state == RDT_SB_STREAM_RUNS && two.left,
	   "F7 stands still, with %lu of %lu frames left", (unsigned long)two.left, (unsigned long)total_frames());
	waits = waiting_at(portid);
	/* One message beyond the limit may be let in. */
	ok(waits > limit / 2 && waits <= 2 * limit + (128 << 10), "F7 %ld bytes wait, the buffer holds %d", waits, 2 * limit);
	ok(image_receive(&im, fd, 20000) && !im.bad && !im.holes, "F7 it goes on when the receiver reads");
	ok(!image_differs(&im, 0, ref[0]) && !image_differs(&im, 1, ref[1]), "F7 and nothing was lost");
	is(im.data, total_frames(), "F7 zero pages are data when that is wanted");
	image_free(&im);

	is(stream_cmd(RDT_SB_CMD_AGAIN, 5, &(struct rdt_sb_range){ 0, child.box->slot[0].frames }, 1), 0,
	   "F7 it stands still again");
	sleep(1);
	t = now();
	is(stream_cmd(RDT_SB_CMD_CANCEL, 5, NULL, 0), 0, "F7 cancelled while it stands still");
	ok(now() - t < 5, "F7 that does not wait for the receiver");
	close(fd);
}

/* A receiver in a process of its own, killed while the stream waits for it. */
static void test_killed_reader(void)
{
	static char buf[GNL_MAX];
	const struct nlmsghdr *nlh = (void *)buf;
	struct rdt_sb_stream_info info = {};
	struct gnl_attrs at = {};
	uint32_t portid;
	int ev = gnl_socket(NULL), fd, n, fds[2];
	pid_t pid;
	double t;
	char c;

	gnl_join(ev, events);
	fd = gnl_socket(&portid);
	if (pipe(fds))
		tap_bail("pipe");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (write(fds[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	if (read(fds[0], &c, 1) != 1)
		tap_bail("the reader");
	is(stream_start(6, fd, 0), 0, "F7 a stream to another process");
	close(fd);
	sleep(1);
	ok(stream_info(6, &info) && info.state == RDT_SB_STREAM_RUNS && info.portid == portid,
	   "F7 waits for it, and holds its port");
	t = now();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	do
		n = gnl_recv(ev, buf, sizeof(buf), 20000);
	while (n > 0 && (gnl_attrs(nlh, &at), gnl_num(at.a[RDT_SB_A_EVENT]) != RDT_SB_EVENT_STREAM_LOST));
	ok(n > 0 && gnl_num(at.a[RDT_SB_A_VM]) == vm && gnl_num(at.a[RDT_SB_A_STREAM]) == 6 && at.a[RDT_SB_A_EVENT_SEQ],
	   "F7 the receiver is killed: an event tells it (%.1f s)", now() - t);
	ok(stream_info(6, &info) && info.state == RDT_SB_STREAM_LOST, "F7 the stream is lost");
	/* The last put of a file is done a moment later. */
	for (int i = 0; i < 50 && waiting_at(portid) >= 0; i++)
		usleep(100000);
	is(waiting_at(portid), -1, "F7 its port and what waited there are let go");
	is(stream_cmd(RDT_SB_CMD_AGAIN, 6, NULL, 0), EPIPE, "F7 nothing more can be asked of it");
	is(stream_cmd(RDT_SB_CMD_CANCEL, 6, NULL, 0), 0, "F7 but to cancel it");
	close(ev);
	close(fds[0]);
	close(fds[1]);
}

/* ---- figures ---------------------------------------------------------------------- */

static double rate_netlink(void)
{
	static char buf[GNL_MAX];
	int fd = gnl_socket(NULL), n;
	uint64_t bytes = 0;
	double t = now();

	gnl_bufsize(fd, 4 << 20);
	if (stream_start(7, fd, RDT_SB_F_KEEP_ZERO))
		return 0;
	do {
		n = gnl_recv(fd, buf, sizeof(buf), 20000);
		bytes += n > 0 ? n : 0;
	} while (n > 0 && gnl_cmd((void *)buf) == RDT_SB_CMD_PAGES);
	t = now() - t;
	stream_cmd(RDT_SB_CMD_CANCEL, 7, NULL, 0);
	close(fd);
	return n > 0 ? bytes / t / 1e6 : 0;
}

static double rate_tcp(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(addr);
	static char buf[64 << 10];
	uint64_t bytes = 0;
	int one = 1, s = socket(AF_INET, SOCK_STREAM, 0), fd;
	ssize_t n;
	pid_t pid;
	double t;

	if (s < 0 || bind(s, (void *)&addr, sizeof(addr)) || listen(s, 1) || getsockname(s, (void *)&addr, &size))
		tap_bail("TCP");
	fflush(stdout);
	t = now();
	pid = fork();
	if (!pid) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(fd, (void *)&addr, sizeof(addr)) || setsockopt(fd, IPPROTO_TCP, 1, &one, sizeof(one)))
			_exit(1);
		for (int k = 0; k < CHILD_SLOTS; k++) {
			const uint64_t all = child.box->slot[k].frames * PAGE_SIZE;

			for (uint64_t at = 0; at < all; at += n) {
				n = send(fd, ref[k] + at, all - at < 61440 ? all - at : 61440, 0);
				if (n <= 0)
					_exit(1);
			}
		}
		_exit(0);
	}
	fd = accept(s, NULL, NULL);
	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		bytes += n;
	t = now() - t;
	waitpid(pid, NULL, 0);
	close(fd);
	close(s);
	return bytes == total_frames() * PAGE_SIZE ? bytes / t / 1e6 : 0;
}

static void test_rate(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	double nl = 0, tcp = 0;

	ioctl(s, SIOCSIFFLAGS, &lo);
	close(s);
	for (int i = 0; i < 3; i++) {
		const double a = rate_netlink(), b = rate_tcp();

		nl = a > nl ? a : nl;
		tcp = b > tcp ? b : tcp;
	}
	tap_diag("best of 3, MB/s: netlink %.1f, TCP on loopback %.1f, ratio %.2f", nl, tcp, tcp ? nl / tcp : 0);
	/* A figure, on a machine that does other things besides: the bound is generous. */
	ok(nl > 0 && tcp > 0 && nl > tcp / 4, "F7 the stream has a rate that can be compared with TCP's");
}

/* The slot goes and comes while it is streamed. */
static void test_slot_moves(void)
{
	struct image im;
	int fd = gnl_socket(NULL);
	uint64_t lost = 0;
	bool good = true;

	gnl_bufsize(fd, 256 << 10);
	for (int i = 0; i < 5 && good; i++) {
		const struct rdt_sb_range r = { child.box->slot[1].gfn, child.box->slot[1].frames };

		image_init(&im, RDT_SB_SPACE_GFN, vm, 10 + i);
		areas_of_slots(&im);
		good = !stream_start(10 + i, fd, 0);
		usleep(10000 * i);
		child_slot(&child, false);
		/* Every other time to its end, however slow that is; else only what is there. */
		image_receive(&im, fd, i % 2 ? 20000 : 0);
		child_slot(&child, true);
		good = good && (im.ended || image_receive(&im, fd, 20000)) && !im.bad && !im.holes;
		lost += im.lost;
		/* It is back: what was lost can be had. */
		good = good && !stream_cmd(RDT_SB_CMD_AGAIN, 10 + i, &r, 1) && image_receive(&im, fd, 20000) &&
		       !image_differs(&im, 1, ref[1]);
		good = !stream_cmd(RDT_SB_CMD_CANCEL, 10 + i, NULL, 0) && good;
		image_free(&im);
	}
	ok(good, "F7 a slot goes and comes back under the stream, and can be streamed again");
	ok(lost, "F7 %lu frames had no slot when it was their turn", (unsigned long)lost);
	close(fd);
}

int main(int argc, char **argv)
{
	const uint64_t mib = argc > 1 ? atoi(argv[1]) : 24;
	int reg;

	if (system("modprobe redoubt_standby"))
		tap_bail("redoubt_standby does not load");
	ctl = gnl_socket(NULL);
	family = gnl_family(ctl, &events, NULL);
	ok(family && events, "F7 the family is there, and its group of events");
	child_start(&child, mib << 20, 1);
	reg = child_register(&child, -1, &vm);
	if (!ok(reg >= 0 && vm, "F7 a VM is registered"))
		return tap_end();
	ok(system("rmmod redoubt_standby 2>/dev/null"), "F7 the module stays as long as it is");
	for (int i = 0; i < CHILD_SLOTS; i++) {
		ref[i] = mmap(NULL, child.box->slot[i].frames * PAGE_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		child_read(&child, i, ref[i]);
	}
	test_all();
	test_hva();
	test_drop(7);
	test_drop(2);
	test_stopped();
	test_killed_reader();
	test_slot_moves();
	test_rate();

	/* With a stream that waits, and one that is idle. */
	int fd = gnl_socket(NULL), idle = gnl_socket(NULL);

	stream_start(8, fd, RDT_SB_F_KEEP_ZERO);
	gnl_begin(&msg, family, RDT_SB_CMD_STREAM);
	gnl_u32(&msg, RDT_SB_A_VM, vm);
	gnl_u32(&msg, RDT_SB_A_STREAM, 9);
	gnl_u32(&msg, RDT_SB_A_DATA_FD, idle);
	gnl_put(&msg, RDT_SB_A_RANGES, "", 0);
	is(gnl_call(ctl, &msg, NULL), 0, "F7 a stream that nothing is asked of yet");
	sleep(1);
	is(close(reg), 0, "F7 the registration ends with streams under way");
	is(stream_cmd(RDT_SB_CMD_CANCEL, 8, NULL, 0), ENOENT, "F7 and so do they");
	child_end(&child);
	close(fd);
	close(idle);
	is(system("rmmod redoubt_standby"), 0, "F7 the module unloads");
	return tap_end();
}
