// SPDX-License-Identifier: GPL-2.0
#include "tap.h"

unsigned int tap_count, tap_failed;

bool tap_ok(bool ok, const char *name, ...)
{
	va_list args;

	tap_count++;
	tap_failed += !ok;
	printf("%sok %u - ", ok ? "" : "not ", tap_count);
	va_start(args, name);
	vprintf(name, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	return ok;
}

void tap_skip(const char *fmt, ...)
{
	va_list args;

	printf("ok %u # SKIP ", ++tap_count);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void tap_diag(const char *fmt, ...)
{
	va_list args;

	printf("# ");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void tap_bail(const char *fmt, ...)
{
	int code = errno;
	va_list args;

	printf("Bail out! ");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf(" (errno: %s)\n", strerror(code));
	fflush(stdout);
	exit(99);
}

int tap_end(void)
{
	printf("1..%u\n", tap_count);
	if (tap_failed)
		tap_diag("%u of %u failed", tap_failed, tap_count);
	return tap_failed ? 1 : 0;
}
