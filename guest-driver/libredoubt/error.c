// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

static __thread char said[256] = "no error";

long rdt_fail(long error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(said, sizeof(said), format, args);
	va_end(args);
	return error;
}

const char *rdt_error(void)
{
	return said;
}

const char *rdt_strerror(long error)
{
	switch (-error) {
	case 0:
		return "no error";
	case ENODEV:
		return "the host does not watch this VM, or the domain is gone";
	case ENXIO:
		return "nothing is loaded";
	case EDQUOT:
		return "the host's operator allows this guest no more";
	case ENOTRECOVERABLE:
		return "the domain raised an exception";
	case EBADMSG:
		return "the domain returned what it must not";
	case EMSGSIZE:
		return "the message is too long for the domain";
	case EOPNOTSUPP:
		return "this host cannot do that";
	case EAGAIN:
		return "busy, try again";
	default:
		/* Not strerror(): that is not for threads. */
		return strerrordesc_np(-error) ? strerrordesc_np(-error) : "unknown error";
	}
}
