// SPDX-License-Identifier: GPL-2.0
/* The command for protection domains in a guest. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

static const char help[] =
	"redoubt-domain load FILE [--publish NAME] [--mode 0660] [--keep]\n"
	"    load a domain. With --keep it stays as /dev/redoubt/NAME until it is\n"
	"    unpublished or the guest ends; else it ends with this command\n"
	"redoubt-domain measure FILE\n"
	"    the SHA-256 that the host will find\n"
	"redoubt-domain info NAME|FILE\n"
	"    a published domain, or an image\n"
	"redoubt-domain call NAME OP [HEX] [--room BYTES] [--raw]\n"
	"    call it; the input in hexadecimal digits, - for standard input\n"
	"redoubt-domain manifest FILE\n"
	"    JSON for the host's operator: measurement, and where values are installed\n"
	"redoubt-domain unpublish NAME\n"
	"    destroy a published domain\n";

static int usage(void)
{
	fputs(help, stderr);
	return 2;
}

static int complain(void)
{
	fprintf(stderr, "redoubt-domain: %s\n", rdt_error());
	return 1;
}

static void print_hex(const uint8_t *p, size_t n)
{
	for (; n; n--)
		printf("%02x", *p++);
	putchar('\n');
}

/* All of the number, or -1. */
static long long number(const char *s, int base, long long most)
{
	char *end;
	long long n;

	errno = 0;
	n = strtoll(s, &end, base);
	return errno || end == s || *end || n < 0 || n > most ? -1 : n;
}

/* ---- load ------------------------------------------------------------------------------- */

static int wait_for_signal(const sigset_t *set)
{
	int sig;

	fflush(stdout);
	return sigwait(set, &sig) ? 1 : 0;
}

static int load(int argc, char **argv)
{
	static const struct option options[] = {
		{ "publish", required_argument, NULL, 'p' }, { "mode", required_argument, NULL, 'm' },
		{ "keep", no_argument, NULL, 'k' }, { 0 },
	};
	const char *name = NULL;
	struct rdt_image *image;
	long long mode = 0660;
	int keep = 0, fd, c;
	sigset_t set;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'p')
			name = optarg;
		else if (c == 'm')
			mode = number(optarg, 8, 0666);
		else if (c == 'k')
			keep = 1;
		else
			return usage();
	}
	if (argc - optind != 1 || mode < 0 || (keep && !name))
		return usage();
	/* Before there is anything that a signal would leave half done. */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);

	if (rdt_image_load(argv[optind], &image))
		return complain();
	fd = rdt_domain_create(image);
	if (fd < 0)
		return complain();
	printf("id %#llx\nmeasurement ", (unsigned long long)image->id);
	print_hex(image->measurement, sizeof(image->measurement));
	rdt_image_free(image);
	if (name && rdt_domain_publish(fd, name, mode, keep ? RDT_PUBLISH_STAY : 0))
		return complain();
	return keep ? 0 : wait_for_signal(&set);
}

/* ---- measure, info, manifest -------------------------------------------------------------- */

static int measure(int argc, char **argv)
{
	uint8_t sha[RDT_MEASUREMENT];
	struct rdt_image *image;
	int err;

	if (argc != 2)
		return usage();
	if (rdt_image_load(argv[1], &image))
		return complain();
	err = rdt_image_measure(image, sha);
	rdt_image_free(image);
	if (err)
		return complain();
	print_hex(sha, sizeof(sha));
	return 0;
}

static int info_image(const char *path)
{
	static const char *const kinds[] = { "?", "text", "data", "gate", "exit" };
	const struct rdt_image_segment *s;
	uint8_t sha[RDT_MEASUREMENT];
	struct rdt_image *im;

	if (rdt_image_load(path, &im))
		return complain();
	if (rdt_image_measure(im, sha))
		return complain();
	printf("gate %#llx\nexit %#llx\nslots %u\nring %u\nvector %s\n", (unsigned long long)im->gate_gva,
	       (unsigned long long)im->exit_gva, im->slots, im->flags & RDT_DOM_USER ? 3 : 0, im->flags & RDT_DOM_VECTOR ? "yes" : "no");
	s = (void *)(uintptr_t)im->segment;
	for (unsigned int i = 0; i < im->segments; i++, s++)
		printf("%s %#llx pages %u\n", kinds[s->kind], (unsigned long long)s->gva, s->pages);
	for (unsigned int i = 0; i < im->windows; i++)
		printf("window %#llx pages %llu\n", (unsigned long long)im->window[i].gva,
		       (unsigned long long)im->window[i].pages);
	printf("measurement ");
	print_hex(sha, sizeof(sha));
	rdt_image_free(im);
	return 0;
}

static int info(int argc, char **argv)
{
	struct rdt_domain_about about;
	struct stat st;
	int fd;

	if (argc != 2)
		return usage();
	if (!stat(argv[1], &st) && S_ISREG(st.st_mode))
		return info_image(argv[1]);
	fd = rdt_domain_open(argv[1]);
	if (fd < 0 || rdt_domain_about(fd, &about))
		return complain();
	printf("name %.*s\nid %#llx\nstate %s\nslots %u\nvector %s\nmessage %u\npages %llu\nmeasurement ",
	       (int)sizeof(about.name), about.name, (unsigned long long)about.id,
	       about.state == RDT_DOMAIN_IS_SEALED ? "sealed" : "being destroyed", about.slots,
	       about.flags & RDT_DOM_VECTOR ? "yes" : "no", about.part, (unsigned long long)about.pages);
	print_hex(about.measurement, sizeof(about.measurement));
	rdt_domain_close(fd);
	return 0;
}

struct listed {
	uint64_t base;		/* the gate's page: offsets count from there */
	unsigned int count;
};

static int print_placeholder(void *context, const char *name, uint64_t gva, uint64_t bytes)
{
	struct listed *l = context;

	printf("%s\n    { \"name\": \"%s\", \"offset\": %lld, \"length\": %llu }", l->count++ ? "," : "", name,
	       (long long)(gva - l->base), (unsigned long long)bytes);
	return 0;
}

/* Documentation/redoubtctl.md, "Manifest" */
static int manifest(int argc, char **argv)
{
	uint8_t sha[RDT_MEASUREMENT];
	struct listed l = { 0 };
	struct rdt_image *im;
	int err;

	if (argc != 2)
		return usage();
	if (rdt_image_load(argv[1], &im) || rdt_image_measure(im, sha))
		return complain();
	printf("{\n  \"redoubt_manifest\": 1,\n  \"measurement\": \"");
	for (int i = 0; i < RDT_MEASUREMENT; i++)
		printf("%02x", sha[i]);
	printf("\",\n  \"placeholders\": [");
	l.base = im->gate_gva & -RDT_PAGE;
	rdt_image_free(im);
	err = rdt_image_placeholders(argv[1], print_placeholder, &l);
	printf("\n  ]\n}\n");
	if (!err && !l.count) {
		fprintf(stderr, "redoubt-domain: %s has no placeholder\n", argv[1]);
		err = 1;
	}
	return err < 0 ? complain() : err;
}

/* ---- call ----------------------------------------------------------------------------------- */

static long from_hex(const char *s, uint8_t *out, size_t room)
{
	size_t n = strlen(s);

	if (n % 2 || n / 2 > room || strspn(s, "0123456789abcdefABCDEF") != n)
		return -1;
	for (size_t i = 0; i < n; i += 2)
		out[i / 2] = (uint8_t)number((char[]){ s[i], s[i + 1], 0 }, 16, 255);
	return (long)(n / 2);
}

static int call(int argc, char **argv)
{
	static const struct option options[] = {
		{ "room", required_argument, NULL, 'r' }, { "raw", no_argument, NULL, 'w' }, { 0 },
	};
	static uint8_t in[65537], out[65536];
	long long room = sizeof(out), op;
	long got = 0;
	int raw = 0, fd, c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'r')
			room = number(optarg, 0, sizeof(out));
		else if (c == 'w')
			raw = 1;
		else
			return usage();
	}
	argc -= optind;
	argv += optind;
	if (argc < 2 || argc > 3 || room < 0)
		return usage();
	op = number(argv[1], 0, INT64_MAX);
	if (argc == 3 && !strcmp(argv[2], "-"))
		got = (long)fread(in, 1, sizeof(in), stdin);
	else if (argc == 3)
		got = from_hex(argv[2], in, sizeof(in) - 1);
	if (op < 0 || got < 0)
		return usage();
	fd = rdt_domain_open(argv[0]);
	if (fd < 0)
		return complain();
	got = rdt_domain_call(fd, (uint64_t)op, in, (size_t)got, out, (size_t)room);
	rdt_domain_close(fd);
	if (got < 0)
		return complain();
	if (raw)
		return fwrite(out, 1, (size_t)got, stdout) == (size_t)got && !fflush(stdout) ? 0 : 1;
	print_hex(out, (size_t)got);
	return 0;
}

static int unpublish(int argc, char **argv)
{
	int fd;

	if (argc != 2)
		return usage();
	fd = rdt_domain_open(argv[1]);
	if (fd < 0 || rdt_domain_unpublish(fd))
		return complain();
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{ "load", load }, { "measure", measure }, { "info", info }, { "call", call },
		{ "manifest", manifest }, { "unpublish", unpublish },
	};

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")))
		return fputs(help, stdout) == EOF;
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	return usage();
}
