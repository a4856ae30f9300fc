/* SPDX-License-Identifier: GPL-2.0 */
/* What test_panic.c's VMs, a raw one and a QEMU's, have in common. */
#ifndef PANIC_H
#define PANIC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define UUID_TEXT	"7265646f-7562-7420-7374-616e64627900"
#define UUID_BYTES	"redoubt standby"

extern const char *panic_dir;		/* what is known from before, in the crash kernel's initramfs, too */

const char *in_dir(const char *name);	/* good until the next call */
void put_file(const char *name, const void *data, size_t bytes);	/* into panic_dir */
/* NULL: it is not there; else with a byte more, 0. */
void *get_file(const char *path, size_t *bytes);

/* Writes down what is at @hva of a process: frames from @gfn on. */
void put_hashes(pid_t pid, uint64_t gfn, uint64_t frames, uint64_t hva);
/* Runs @cmd, and panics. */
_Noreturn void panic_now(const char *cmd);
/* Registers the VM of a QEMU, stops it, writes down its memory and all that KVM's GETs say; panics. */
_Noreturn void before_stopped(pid_t qemu, const char *qmp, const char *cmd);

/* Results: the image's memory as it was written down; all vCPUs' items. */
void check_memory(const char *image);
void check_items(const char *image);

#endif
