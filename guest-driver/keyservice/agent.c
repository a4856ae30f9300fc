// SPDX-License-Identifier: GPL-2.0
/*
 * An SSH agent (draft-miller-ssh-agent) whose keys are the key service's. It lists and
 * signs, a process for each client; what else an agent can be asked to do it cannot.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "client.h"

enum { FAILURE = 5, REQUEST_IDENTITIES = 11, IDENTITIES_ANSWER = 12, SIGN_REQUEST = 13, SIGN_RESPONSE = 14 };

#define TYPE "ssh-ed25519"
#define BLOB (4 + sizeof(TYPE) - 1 + 4 + RDT_KEY_PUBLIC)
#define MAX_MESSAGE (RDT_KEY_MESSAGE + 256)

/* ---- numbers and strings of the protocol --------------------------------------------------- */

struct writer {
	uint8_t data[4096];
	size_t length;		/* all that is ever written fits */
};

static void put(struct writer *w, const void *data, size_t bytes)
{
	memcpy(w->data + w->length, data, bytes);
	w->length += bytes;
}

static void put_u32(struct writer *w, uint32_t v)
{
	const uint8_t b[4] = { v >> 24, v >> 16, v >> 8, v };

	put(w, b, sizeof(b));
}

static void put_string(struct writer *w, const void *data, size_t bytes)
{
	put_u32(w, bytes);
	put(w, data, bytes);
}

struct reader {
	const uint8_t *at;
	size_t left;
};

static int get_u32(struct reader *r, uint32_t *v)
{
	if (r->left < 4)
		return 0;
	*v = (uint32_t)r->at[0] << 24 | r->at[1] << 16 | r->at[2] << 8 | r->at[3];
	r->at += 4;
	r->left -= 4;
	return 1;
}

static int get_string(struct reader *r, const uint8_t **data, uint32_t *bytes)
{
	if (!get_u32(r, bytes) || r->left < *bytes)
		return 0;
	*data = r->at;
	r->at += *bytes;
	r->left -= *bytes;
	return 1;
}

/* ---- what it does --------------------------------------------------------------------------- */

/* The public key as SSH has it. */
static int blob_of(int fd, uint32_t key, struct writer *blob)
{
	uint8_t public_key[RDT_KEY_PUBLIC];

	blob->length = 0;
	if (rdt_key_call(fd, RDT_KEY_PUBLIC_KEY, key, 0, NULL, 0, public_key, sizeof(public_key)) != sizeof(public_key))
		return 0;
	put_string(blob, TYPE, sizeof(TYPE) - 1);
	put_string(blob, public_key, sizeof(public_key));
	return 1;
}

static void identities(int fd, struct writer *answer)
{
	struct writer keys = { .length = 0 }, blob;
	uint32_t count = 0;
	char comment[32];

	for (uint32_t key = 0; key < RDT_KEYS; key++)
		if (blob_of(fd, key, &blob)) {
			put_string(&keys, blob.data, blob.length);
			put_string(&keys, comment, (size_t)snprintf(comment, sizeof(comment), "redoubt:%u", key));
			count++;
		}
	put(answer, (uint8_t[]){ IDENTITIES_ANSWER }, 1);
	put_u32(answer, count);
	put(answer, keys.data, keys.length);
}

static int sign(int fd, struct reader *r, struct writer *answer)
{
	uint8_t signature[RDT_KEY_SIGNATURE];
	struct writer blob, s = { .length = 0 };
	const uint8_t *wanted, *data;
	uint32_t wanted_len, bytes, flags, key;

	if (!get_string(r, &wanted, &wanted_len) || !get_string(r, &data, &bytes) || !get_u32(r, &flags))
		return 0;
	for (key = 0; key < RDT_KEYS; key++)
		if (blob_of(fd, key, &blob) && wanted_len == blob.length && !memcmp(wanted, blob.data, wanted_len))
			break;
	if (key == RDT_KEYS ||
	    rdt_key_call(fd, RDT_KEY_SIGN, key, 0, data, bytes, signature, sizeof(signature)) != sizeof(signature))
		return 0;
	put_string(&s, TYPE, sizeof(TYPE) - 1);
	put_string(&s, signature, sizeof(signature));
	put(answer, (uint8_t[]){ SIGN_RESPONSE }, 1);
	put_string(answer, s.data, s.length);
	return 1;
}

/* ---- clients --------------------------------------------------------------------------------- */

static int all(int fd, void *data, size_t bytes, int out)
{
	for (char *at = data; bytes;) {
		ssize_t n = out ? send(fd, at, bytes, MSG_NOSIGNAL) : read(fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0;
		at += n;
		bytes -= (size_t)n;
	}
	return 1;
}

static void serve(int client, int fd)
{
	static uint8_t message[MAX_MESSAGE];
	uint8_t head[4];
	uint32_t length;

	while (all(client, head, sizeof(head), 0)) {
		struct reader r = { head, sizeof(head) };
		struct writer answer = { .length = 0 }, frame = { .length = 0 };

		get_u32(&r, &length);
		if (length < 1 || length > sizeof(message) || !all(client, message, length, 0))
			return;
		r = (struct reader){ message + 1, length - 1 };
		if (message[0] == REQUEST_IDENTITIES)
			identities(fd, &answer);
		else if (message[0] != SIGN_REQUEST || !sign(fd, &r, &answer))
			put(&answer, (uint8_t[]){ FAILURE }, 1);
		put_u32(&frame, (uint32_t)answer.length);
		if (!all(client, frame.data, frame.length, 1) || !all(client, answer.data, answer.length, 1))
			return;
	}
}

_Static_assert(RDT_KEYS * (4 + BLOB + 4 + 32) + 8 < sizeof(((struct writer *)0)->data), "all keys fit");

int agent(int fd, const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(at.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(at.sun_path, path);
	umask(0177);
	if (s < 0 || bind(s, (struct sockaddr *)&at, sizeof(at)) || listen(s, 16))
		return -1;
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int client = accept(s, NULL, NULL);

		if (client < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (client < 0)
			return -1;
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(s);
			serve(client, fd);
			_exit(0);
		}
		close(client);
	}
}
