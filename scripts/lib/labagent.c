// SPDX-License-Identifier: GPL-2.0
/*
 * labagent: runs commands in the emulated host and in the guest for whoever
 * sits at the other end of a byte channel.
 *
 *   labagent serve port:NAME      one command over a virtio-serial port
 *   labagent serve tty:/dev/ttyS1 one command over a serial line (Bochs)
 *   labagent park tty:/dev/ttyS1  says 'P' and waits for 'C'
 *   labagent serve vsock:PORT     any number of commands, one a connection
 *   labagent serve tcp:PORT       likewise; for a VM that may be on another host tomorrow
 *   labagent exec  vsock:CID:PORT|tcp:ADDRESS:PORT [-w S] [-p PID] [-t S] -- CMD [ARG...]
 *       -w  keep trying to connect for S seconds, as long as process PID lives
 *       -t  give up after S seconds in all, with status 124
 *
 * Frames: type, zero, length (16 bits, little endian), data. Server to client:
 *   'R' ready   'O' stdout   'E' stderr   'Q' exit status (1 byte)
 * Client to server:
 *   'X' run: 1 byte of flags, then the arguments, each ended by a NUL; several
 *       frames when long, 'G' starts it
 *   'I' input (a terminal's)   'W' window size (rows, columns: 16 bits each)
 *   'N' nothing: an interrupt for each of the host's CPUs (Documentation/lab.md)
 *   'C' closing: the client has read 'Q', the server may go
 *
 * stdout and stderr stay apart and 8-bit clean; the arguments are handed to
 * execvp() as they are, no shell in between.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

enum { FLAG_PTY = 1, FLAG_MERGE = 2 };
enum { FRAME_MAX = 4096, ARGS_MAX = 128 * 1024 };

static void die(const char *what)
{
	fprintf(stderr, "labagent: %s: %s\n", what, strerror(errno));
	exit(125);
}

static int write_all(int fd, const void *data, size_t n)
{
	const char *p = data;

	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return -1;
		p += w;
		n -= w;
	}
	return 0;
}

static int read_all(int fd, void *data, size_t n)
{
	char *p = data;

	while (n) {
		ssize_t r = read(fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return -1;
		p += r;
		n -= r;
	}
	return 0;
}

static int send_frame(int fd, char type, const void *data, size_t n)
{
	char buf[4 + FRAME_MAX] = { type, 0, n & 0xff, n >> 8 };

	memcpy(buf + 4, data, n);
	return write_all(fd, buf, 4 + n);
}

/* Returns the type, or -1 at the end of the channel. */
static int recv_frame(int fd, unsigned char *data, size_t *n)
{
	unsigned char head[4];

	if (read_all(fd, head, 4))
		return -1;
	*n = head[2] | head[3] << 8;
	if (*n > FRAME_MAX || read_all(fd, data, *n))
		return -1;
	return head[0];
}

/* ------------------------------------------------------------- server */

struct job {
	pid_t pid;
	int out, err, in;	/* -1 when closed; a terminal has in == out */
	int status;
};

static void start_child(struct job *job, int flags, char **argv)
{
	int out[2], err[2], null;

	job->in = job->err = -1;
	if (flags & FLAG_PTY) {
		job->out = job->in = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (job->out < 0 || grantpt(job->out) || unlockpt(job->out))
			die("pty");
	} else {
		if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
			die("pipe");
		job->out = out[0];
		job->err = err[0];
	}
	job->pid = fork();
	if (job->pid < 0)
		die("fork");
	if (job->pid == 0) {
		setsid();
		if (flags & FLAG_PTY) {
			int tty = open(ptsname(job->out), O_RDWR);

			ioctl(tty, TIOCSCTTY, 0);
			dup2(tty, 0), dup2(tty, 1), dup2(tty, 2);
		} else {
			null = open("/dev/null", O_RDONLY);
			dup2(null, 0);
			dup2(out[1], 1);
			dup2(flags & FLAG_MERGE ? out[1] : err[1], 2);
		}
		signal(SIGPIPE, SIG_DFL);
		execvp(argv[0], argv);
		fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
		_exit(errno == ENOENT ? 127 : 126);
	}
	if (!(flags & FLAG_PTY)) {
		close(out[1]);
		close(err[1]);
	}
}

static void forward(int chan, int *fd, char type)
{
	char buf[FRAME_MAX];
	ssize_t n = read(*fd, buf, sizeof(buf));

	if (n > 0) {
		send_frame(chan, type, buf, n);
	} else if (n == 0 || errno != EINTR) {	/* EIO: a terminal hung up */
		close(*fd);
		*fd = -1;
	}
}

/* Who moves to another CPU sends it an interrupt. */
static void visit_cpus(void)
{
	long n = sysconf(_SC_NPROCESSORS_CONF);
	cpu_set_t before, one;

	if (sched_getaffinity(0, sizeof(before), &before))
		return;
	for (long i = 0; i < n && i < CPU_SETSIZE; i++) {
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		sched_setaffinity(0, sizeof(one), &one);
	}
	sched_setaffinity(0, sizeof(before), &before);
}

static void from_client(int chan, struct job *job)
{
	unsigned char buf[FRAME_MAX];
	size_t n;
	int type = recv_frame(chan, buf, &n);

	if (type < 0) {		/* nobody to tell: the command goes too */
		kill(-job->pid, SIGKILL);
		exit(125);
	}
	if (type == 'N')
		visit_cpus();
	if (type == 'I' && job->in >= 0)
		write_all(job->in, buf, n);
	if (type == 'W' && job->in >= 0 && n == 4) {
		struct winsize ws = { .ws_row = buf[0] | buf[1] << 8,
				      .ws_col = buf[2] | buf[3] << 8 };

		ioctl(job->in, TIOCSWINSZ, &ws);
	}
}

static volatile sig_atomic_t child_gone;

static void on_child(int sig)
{
	(void)sig;
	child_gone = 1;
}

/*
 * Ends when the command has ended and its pipes are drained; it does not wait
 * for background children that keep the pipes open.
 */
static void pump(int chan, struct job *job)
{
	sigset_t block, before;
	struct timespec none = { 0, 0 };

	sigemptyset(&block);
	sigaddset(&block, SIGCHLD);
	sigprocmask(SIG_BLOCK, &block, &before);
	for (;;) {
		struct pollfd p[3] = {
			{ .fd = chan, .events = POLLIN },
			{ .fd = job->out, .events = POLLIN },
			{ .fd = job->err, .events = POLLIN },
		};
		int n;

		if (child_gone && job->pid > 0 &&
		    waitpid(job->pid, &job->status, WNOHANG) == job->pid)
			job->pid = 0;
		n = ppoll(p, 3, job->pid ? NULL : &none, &before);
		if (n < 0 && errno != EINTR)
			die("poll");
		if (n <= 0) {
			if (!job->pid)
				break;
			continue;
		}
		if (p[1].revents)
			forward(chan, &job->out, 'O');
		if (p[2].revents)
			forward(chan, &job->err, 'E');
		if (p[0].revents & (POLLIN | POLLHUP | POLLERR))
			from_client(chan, job);
		if (!job->pid && !p[1].revents && !p[2].revents)
			break;
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static void session(int chan)
{
	static char args[ARGS_MAX];
	static char *argv[ARGS_MAX / 2];
	unsigned char buf[FRAME_MAX], status;
	size_t n, len = 0, argc = 0;
	struct job job = { 0 };
	int type, flags = 0;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, on_child);
	send_frame(chan, 'R', "", 0);
	while ((type = recv_frame(chan, buf, &n)) != 'G') {
		if (type != 'X' || n < 1 || len + n > sizeof(args))
			exit(125);
		flags = buf[0];
		memcpy(args + len, buf + 1, n - 1);
		len += n - 1;
	}
	for (size_t i = 0; i < len; i += strlen(args + i) + 1)
		argv[argc++] = args + i;
	if (!argc)
		exit(125);
	start_child(&job, flags, argv);
	pump(chan, &job);
	status = WIFSIGNALED(job.status) ? 128 + WTERMSIG(job.status)
					 : WEXITSTATUS(job.status);
	send_frame(chan, 'Q', &status, 1);
	while ((type = recv_frame(chan, buf, &n)) >= 0 && type != 'C')
		;
}

static int open_port(const char *name)
{
	char path[300], line[128];
	struct dirent *d;

	for (int tries = 0; tries < 500; tries++) {
		DIR *dir = opendir("/sys/class/virtio-ports");

		while (dir && (d = readdir(dir))) {
			FILE *f;

			snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", d->d_name);
			f = fopen(path, "r");
			if (!f)
				continue;
			line[0] = 0;
			if (fgets(line, sizeof(line), f))
				line[strcspn(line, "\n")] = 0;
			fclose(f);
			if (!strcmp(line, name)) {
				snprintf(path, sizeof(path), "/dev/%s", d->d_name);
				closedir(dir);
				return open(path, O_RDWR | O_CLOEXEC);
			}
		}
		if (dir)
			closedir(dir);
		usleep(10000);
	}
	errno = ENODEV;
	return -1;
}

static int open_tty(const char *path)
{
	struct termios t;
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &t))
		return -1;
	cfmakeraw(&t);
	cfsetspeed(&t, B115200);
	t.c_cflag |= CLOCAL | CREAD;
	t.c_cflag &= ~CRTSCTS;
	return tcsetattr(fd, TCSANOW, &t) ? -1 : fd;
}

/* vsock's or TCP's */
union address {
	struct sockaddr any;
	struct sockaddr_vm vsock;
	struct sockaddr_in tcp;
};

static int open_socket(const union address *addr)
{
	int on = 1, fd = socket(addr->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && addr->any.sa_family == AF_INET &&
	    (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	     setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))))
		die("tcp");
	return fd;
}

/* PROTOCOL:[ADDRESS:]PORT, the address where it is to be connected to */
static int parse_address(const char *text, int local, union address *addr)
{
	unsigned int cid = VMADDR_CID_ANY, port;
	char ip[16] = "0.0.0.0";

	memset(addr, 0, sizeof(*addr));
	if (local ? sscanf(text, "vsock:%u", &port) == 1 : sscanf(text, "vsock:%u:%u", &cid, &port) == 2) {
		addr->vsock.svm_family = AF_VSOCK;
		addr->vsock.svm_cid = cid;
		addr->vsock.svm_port = port;
		return 0;
	}
	if (local ? sscanf(text, "tcp:%u", &port) == 1 : sscanf(text, "tcp:%15[0-9.]:%u", ip, &port) == 2) {
		addr->tcp.sin_family = AF_INET;
		addr->tcp.sin_port = htons(port);
		return inet_pton(AF_INET, ip, &addr->tcp.sin_addr) == 1 ? 0 : -1;
	}
	return -1;
}

static void serve(const char *what, const union address *addr)
{
	int fd = open_socket(addr);

	if (fd < 0 || bind(fd, &addr->any, sizeof(*addr)) || listen(fd, 16))
		die(what);
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

		if (c < 0)
			continue;
		if (fork() == 0) {
			close(fd);
			session(c);
			_exit(0);
		}
		close(c);
	}
}

/* ------------------------------------------------------------- client */

/* A process that has ended counts as gone also before its parent reaps it. */
static int alive(int pid)
{
	char path[40], stat[256] = "", *p;
	FILE *f;

	if (!pid)
		return 1;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	p = fgets(stat, sizeof(stat), f) ? strrchr(stat, ')') : NULL;
	fclose(f);
	return p && p[1] && p[2] != 'Z';
}

static void on_alarm(int sig)
{
	static const char text[] = "labagent: timeout\n";

	(void)sig;
	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(124);
	_exit(124);
}

static int connect_to(const union address *addr, int wait, int pid)
{
	time_t end = time(NULL) + wait;

	do {
		int fd = open_socket(addr);

		if (fd < 0)
			return -1;
		if (!connect(fd, &addr->any, sizeof(*addr)))
			return fd;
		close(fd);
		usleep(100000);
	} while (time(NULL) < end && alive(pid));
	return -1;
}

static int client(int fd, int argc, char **argv)
{
	unsigned char buf[FRAME_MAX];
	size_t n;
	int type;

	while ((type = recv_frame(fd, buf, &n)) >= 0) {
		switch (type) {
		case 'R':
			for (int i = 0; i < argc; i++) {
				size_t len = strlen(argv[i]) + 1, off = 0;

				while (off < len) {
					size_t part = len - off < FRAME_MAX - 1 ?
						      len - off : FRAME_MAX - 1;

					buf[0] = 0;
					memcpy(buf + 1, argv[i] + off, part);
					send_frame(fd, 'X', buf, part + 1);
					off += part;
				}
			}
			send_frame(fd, 'G', "", 0);
			break;
		case 'O':
			write_all(1, buf, n);
			break;
		case 'E':
			write_all(2, buf, n);
			break;
		case 'Q':
			send_frame(fd, 'C', "", 0);
			return buf[0];
		}
	}
	fprintf(stderr, "labagent: the connection was lost before the command ended\n");
	return 125;
}

static int usage(void)
{
	fprintf(stderr, "usage: labagent serve port:NAME|tty:PATH|vsock:PORT|tcp:PORT\n"
			"       labagent exec vsock:CID:PORT|tcp:ADDRESS:PORT [-w S] [-p PID] [-t S] -- CMD [ARG...]\n");
	return 125;
}

int main(int argc, char **argv)
{
	union address addr;
	int fd = -1, wait = 0, limit = 0, pid = 0, i = 3;

	if (argc < 3)
		return usage();
	if (!strcmp(argv[1], "park") && !strncmp(argv[2], "tty:", 4)) {
		unsigned char buf[FRAME_MAX];
		size_t n;

		fd = open_tty(argv[2] + 4);
		if (fd < 0)
			die(argv[2]);
		send_frame(fd, 'P', "", 0);
		return recv_frame(fd, buf, &n) == 'C' ? 0 : 125;
	}
	if (!strcmp(argv[1], "serve")) {
		if (!strncmp(argv[2], "port:", 5))
			fd = open_port(argv[2] + 5);
		else if (!strncmp(argv[2], "tty:", 4))
			fd = open_tty(argv[2] + 4);
		else if (!parse_address(argv[2], 1, &addr))
			serve(argv[2], &addr);
		else
			return usage();
		if (fd < 0)
			die(argv[2]);
		session(fd);
		return 0;
	}
	if (strcmp(argv[1], "exec") || parse_address(argv[2], 0, &addr))
		return usage();
	for (; i + 1 < argc && argv[i][0] == '-' && argv[i][1] != '-'; i += 2) {
		if (argv[i][1] == 'w')
			wait = atoi(argv[i + 1]);
		else if (argv[i][1] == 'p')
			pid = atoi(argv[i + 1]);
		else if (argv[i][1] == 't')
			limit = atoi(argv[i + 1]);
		else
			return usage();
	}
	if (i < argc && !strcmp(argv[i], "--"))
		i++;
	if (i >= argc)
		return usage();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, on_alarm);
	alarm(limit);
	fd = connect_to(&addr, wait, pid);
	if (fd < 0) {
		fprintf(stderr, "labagent: no answer from the guest: %s\n", strerror(errno));
		return 125;
	}
	return client(fd, argc - i, argv + i);
}
