// SPDX-License-Identifier: GPL-2.0
/*
 * leak-sign KEY FILE: in a guest, signs the same message with a key of /dev/redoubt/key until that fails.
 * The first signature is verified by OpenSSL; all others have to be the same. FILE holds how many there were; at
 * the end a second line says why it is the end.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "client.h"
#include "leak.h"

static int verify(int fd, uint32_t key, const uint8_t *signature, const uint8_t *message)
{
	uint8_t raw[RDT_KEY_PUBLIC];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY *pkey;

	if (rdt_key_call(fd, RDT_KEY_PUBLIC_KEY, key, 0, NULL, 0, raw, sizeof(raw)) != sizeof(raw))
		return 0;
	pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw, sizeof(raw));
	return ctx && pkey && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
	       EVP_DigestVerify(ctx, signature, RDT_KEY_SIGNATURE, message, LEAK_MESSAGE) == 1;
}

int main(int argc, char **argv)
{
	static uint8_t message[LEAK_MESSAGE], first[RDT_KEY_SIGNATURE], signature[RDT_KEY_SIGNATURE];
	/* A vCPU is not to take all of a CPU that the test has, too. */
	const struct timespec pause = { 0, 20000000 };
	unsigned long count = 0;
	const char *why = NULL;
	uint32_t key;
	int fd, out;

	if (argc != 3)
		return 2;
	key = (uint32_t)strtoul(argv[1], NULL, 10);
	out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	fd = rdt_domain_open(RDT_KEY_DEVICE);
	if (out < 0 || fd < 0) {
		fprintf(stderr, "leak-sign: %s\n", rdt_error());
		return 2;
	}
	leak_message(message);
	for (; !why; nanosleep(&pause, NULL)) {
		long got = rdt_key_call(fd, RDT_KEY_SIGN, key, 0, message, sizeof(message), signature, sizeof(signature));

		if (got != sizeof(signature)) {
			why = rdt_strerror(got);
		} else if (!count) {
			memcpy(first, signature, sizeof(first));
			if (!verify(fd, key, first, message))
				why = "OpenSSL does not verify the signature";
		} else if (memcmp(first, signature, sizeof(first))) {
			why = "another signature than the first";
		}
		if (!why)
			count++;
		if (!why || !count) {
			char line[32];
			int n = snprintf(line, sizeof(line), "%lu\n", count);

			if (pwrite(out, line, (size_t)n, 0) != n)
				why = "its file cannot be written";
		}
	}
	lseek(out, 0, SEEK_END);
	dprintf(out, "%s\n", why);
	return 1;
}
