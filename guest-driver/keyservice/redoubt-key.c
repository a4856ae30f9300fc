// SPDX-License-Identifier: GPL-2.0
/* The command for the key service. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include "agent.h"
#include "client.h"

static const char help[] =
	"redoubt-key [--device NAME] COMMAND [KEY]        KEY: 0..15, 0 if there is none\n"
	"  generate KEY     a new key, made inside; its public key, PEM\n"
	"  import KEY       from a seed on standard input, 32 bytes\n"
	"  install KEY      from what the host's operator has put at placeholder \"seed\"\n"
	"  public KEY       the public key, PEM\n"
	"  sign KEY         standard input (16 KiB at most): the signature, 64 bytes\n"
	"  erase KEY\n"
	"  lock KEY         it cannot be erased any more; lock all: and no new ones are made\n"
	"  list\n"
	"  agent SOCKET     an SSH agent: ssh signs with these keys (SSH_AUTH_SOCK=SOCKET)\n"
	"  attest KEY       asks the domain for its measurement, signed with the key, and checks it\n";

static int fail(const char *what, long err)
{
	fprintf(stderr, "redoubt-key: %s: %s\n", what, err == -EPERM ? "it is locked, or must not be signed" :
		err == -ENOENT ? "there is no such key" : err == -EEXIST ? "there is such a key" : rdt_strerror(err));
	return 1;
}

static int print_public(const uint8_t *key)
{
	EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key, RDT_KEY_PUBLIC);
	int fine = pkey && PEM_write_PUBKEY(stdout, pkey);

	EVP_PKEY_free(pkey);
	return fine ? 0 : 1;
}

static int list(int fd)
{
	struct rdt_key_state s[RDT_KEYS];
	long got = rdt_key_call(fd, RDT_KEY_LIST, 0, 0, NULL, 0, s, sizeof(s));

	if (got < 0)
		return fail("list", got);
	for (int i = 0; i < RDT_KEYS; i++)
		if (s[i].flags & RDT_KEY_IS_THERE)
			printf("%d%s%s\n", i, s[i].flags & RDT_KEY_IS_IMPORTED ? " imported" :
			       s[i].flags & RDT_KEY_IS_INSTALLED ? " installed" : " generated",
			       s[i].flags & RDT_KEY_IS_LOCKED ? " locked" : "");
	return 0;
}

/* Only for which instruction calls the host; a lie makes the call fail. */
static int is_intel(void)
{
	unsigned int eax = 0, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return ebx == 0x756e6547;	/* "Genu" */
}

static int attest(int fd, uint32_t key)
{
	struct {
		char tag[sizeof(RDT_KEY_ATTEST_TAG)];
		uint8_t measurement[32];
		uint32_t flags;
		uint8_t mine[32];
	} __attribute__((packed)) say = { .tag = RDT_KEY_ATTEST_TAG };
	struct rdt_key_attestation a;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY *pkey;
	long got;
	int fine;

	if (!ctx || getrandom(say.mine, sizeof(say.mine), 0) != sizeof(say.mine))
		return fail("attest", -ENOMEM);
	got = rdt_key_call(fd, RDT_KEY_ATTEST, key, is_intel(), say.mine, sizeof(say.mine), &a, sizeof(a));
	if (got != sizeof(a))
		return fail("attest", got < 0 ? got : -EBADMSG);
	memcpy(say.measurement, a.measurement, sizeof(say.measurement));
	say.flags = a.flags;
	pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, a.public_key, RDT_KEY_PUBLIC);
	fine = pkey && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
	       EVP_DigestVerify(ctx, a.signature, sizeof(a.signature), (void *)&say, sizeof(say)) == 1;
	EVP_PKEY_free(pkey);
	EVP_MD_CTX_free(ctx);
	if (!fine)
		return fail("attest: the signature is wrong", -EBADMSG);
	printf("measurement ");
	for (int i = 0; i < 32; i++)
		printf("%02x", a.measurement[i]);
	putchar('\n');
	return print_public(a.public_key);
}

static int with_input(int fd, const char *command, uint32_t key)
{
	static uint8_t in[RDT_KEY_MESSAGE + 1];
	uint8_t out[RDT_KEY_SIGNATURE];
	size_t bytes = fread(in, 1, sizeof(in), stdin);
	int import = !strcmp(command, "import");
	long got;

	if (ferror(stdin))
		return fail("standard input", -EIO);
	if (import ? bytes != RDT_KEY_SEED : bytes > RDT_KEY_MESSAGE)
		return fail(command, -EMSGSIZE);
	got = rdt_key_call(fd, import ? RDT_KEY_IMPORT : RDT_KEY_SIGN, key, 0, in, bytes, out, sizeof(out));
	explicit_bzero(in, sizeof(in));
	if (got < 0)
		return fail(command, got);
	if (import)
		return print_public(out);
	return fwrite(out, 1, (size_t)got, stdout) == (size_t)got && !fflush(stdout) ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint32_t op;
		int prints;
	} plain[] = {
		{ "generate", RDT_KEY_GENERATE, 1 }, { "install", RDT_KEY_INSTALL, 1 },
		{ "public", RDT_KEY_PUBLIC_KEY, 1 }, { "erase", RDT_KEY_ERASE, 0 }, { "lock", RDT_KEY_LOCK, 0 },
	};
	const char *device = RDT_KEY_DEVICE, *command;
	uint8_t out[RDT_KEY_PUBLIC];
	int all = 0, is_agent, fd;
	uint32_t key = 0;

	if (argc > 2 && !strcmp(argv[1], "--device")) {
		device = argv[2];
		argv += 2;
		argc -= 2;
	}
	is_agent = argc == 3 && !strcmp(argv[1], "agent");
	if (argc == 3 && !is_agent) {
		char *end;

		key = (uint32_t)strtoul(argv[2], &end, 10);
		all = !strcmp(argv[1], "lock") && !strcmp(argv[2], "all");
		if (!all && (*end || end == argv[2] || key >= RDT_KEYS))
			argc = 0;
		if (all)
			key = 0;
	}
	if (argc < 2 || argc > 3)
		return fputs(help, stderr), 2;
	command = argv[1];
	fd = rdt_domain_open(device);
	if (fd < 0) {
		fprintf(stderr, "redoubt-key: %s\n", rdt_error());
		return 1;
	}
	if (is_agent)
		return agent(fd, argv[2]), perror("redoubt-key: agent"), 1;
	if (!strcmp(command, "list"))
		return list(fd);
	if (!strcmp(command, "attest"))
		return attest(fd, key);
	if (!strcmp(command, "import") || !strcmp(command, "sign"))
		return with_input(fd, command, key);
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		if (!strcmp(command, plain[i].name)) {
			long got = rdt_key_call(fd, plain[i].op, key, (uint32_t)all, NULL, 0, out, sizeof(out));

			if (got < 0)
				return fail(command, got);
			return plain[i].prints ? print_public(out) : 0;
		}
	return fputs(help, stderr), 2;
}
