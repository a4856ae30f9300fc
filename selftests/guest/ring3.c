// SPDX-License-Identifier: GPL-2.0
/*
 * Every hypercall of Redoubt from user space: none may be honoured. One line a
 * number; what a host answers is an error, or the CPU raises #UD.
 */
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <linux/redoubt_guest.h>

static sigjmp_buf back;

static void caught(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

static int amd(void)
{
	unsigned int a, b, c, d;

	__cpuid(0, a, b, c, d);
	return b == signature_AMD_ebx || b == 0x6f677948;	/* AuthenticAMD, HygonGenuine */
}

/* Arguments that would do for any of them. 1: the CPU refused the instruction. */
static int call(unsigned int nr, long *ret)
{
	long r = nr;

	if (sigsetjmp(back, 1))
		return 1;
	if (amd())
		asm volatile("vmmcall" : "+a"(r) : "b"(0x1000l), "c"(1l), "d"(0x102l), "S"(0l) : "memory");
	else
		asm volatile("vmcall" : "+a"(r) : "b"(0x1000l), "c"(1l), "d"(0x102l), "S"(0l) : "memory");
	*ret = r;
	return 0;
}

int main(void)
{
	unsigned int nr, line = 0, bad = 0;

	signal(SIGILL, caught);
	signal(SIGSEGV, caught);
	for (nr = RDT_HC_BASE; nr <= RDT_HC_BASE + 11; nr++) {
		long ret = 0;
		int died = call(nr, &ret);

		if (!died && ret >= 0)
			bad++;
		printf("%s %u - B6 hypercall %#x from ring 3: %s%ld\n", died || ret < 0 ? "ok" : "not ok",
		       ++line, nr, died ? "exception " : "", ret);
	}
	printf("1..%u\n", line);
	return bad != 0;
}
