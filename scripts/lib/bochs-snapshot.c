// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into Bochs for the one run that makes a snapshot of a booted host:
 * on SIGUSR1 it calls Bochs' own "save state" and ends the emulator. Bochs
 * offers that only as a button of its graphical front ends.
 *
 * wgetch() is called where those front ends handle their buttons, between two
 * instructions and outside every device's timer; that is the place to save.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile sig_atomic_t wanted;

static void on_signal(int sig)
{
	(void)sig;
	wanted = 1;
}

__attribute__((constructor)) static void init(void)
{
	signal(SIGUSR1, on_signal);
}

static void save(void)
{
	void **sim = dlsym(RTLD_DEFAULT, "SIM");
	bool (*save_state)(void *, const char *) =
		dlsym(RTLD_DEFAULT, "_ZN13bx_real_sim_c10save_stateEPKc");

	if (!sim || !save_state) {
		fprintf(stderr, "bochs-snapshot: this Bochs has no save_state\n");
		_exit(2);
	}
	_exit(save_state(*sim, getenv("BOCHS_SNAPSHOT")) ? 0 : 3);
}

int wgetch(void *window)
{
	static int (*real)(void *);

	if (!real)
		real = dlsym(dlopen("libncurses.so.6", RTLD_LAZY), "wgetch");
	if (wanted)
		save();
	return real(window);
}
