/* SPDX-License-Identifier: GPL-2.0 */
/* Test Anything Protocol. The name of a test starts with its requirement. */
#ifndef TAP_H
#define TAP_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern unsigned int tap_count, tap_failed;

__attribute__((format(printf, 2, 3)))
bool tap_ok(bool ok, const char *name, ...);
__attribute__((format(printf, 1, 2)))
void tap_diag(const char *fmt, ...);
__attribute__((format(printf, 1, 2), noreturn))
void tap_bail(const char *fmt, ...);
__attribute__((format(printf, 1, 2)))
void tap_skip(const char *fmt, ...);
/* Prints the plan; what main() returns. */
int tap_end(void);

#define ok(cond, ...)							\
	({								\
		bool _ok = !!(cond);					\
		if (!tap_ok(_ok, __VA_ARGS__))				\
			tap_diag("%s:%d: %s", __FILE__, __LINE__, #cond); \
		_ok;							\
	})

#define is(got, want, ...)						\
	({								\
		long long _g = (long long)(got), _w = (long long)(want); \
		if (!tap_ok(_g == _w, __VA_ARGS__))			\
			tap_diag("%s:%d: %s is %lld (%#llx), not %lld (%#llx)", __FILE__, \
				 __LINE__, #got, _g, (unsigned long long)_g, _w, \
				 (unsigned long long)_w);		\
		_g == _w;						\
	})

/* A call that must fail with this errno. */
#define fails(call, code, ...)						\
	({								\
		errno = 0;						\
		long _r = (call);					\
		int _e = errno;						\
		if (!tap_ok(_r == -1 && _e == (code), __VA_ARGS__))	\
			tap_diag("%s:%d: %s gave %ld (%s), not %s", __FILE__, __LINE__, #call, \
				 _r, _e ? strerror(_e) : "no error", strerror(code)); \
		_r == -1 && _e == (code);				\
	})

#endif
