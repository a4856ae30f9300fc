/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A domain's image run where nothing protects it: mapped at its addresses in this
 * process and called through its gate. For tests without a virtual machine, and the baseline
 * for what a call of the domain costs.
 */
#ifndef OUTSIDE_H
#define OUTSIDE_H

#include <redoubt/redoubt.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Maps it; the image must stay. @state: -1, or a file that holds the domain's data:
 * who maps the same shares it. 0, or a negative errno.
 */
int outside_map(const struct rdt_image *image, int state);
void outside_unmap(const struct rdt_image *image);

/* As the driver does it; the slot is the caller's to choose. */
long outside_call(const struct rdt_image *image, unsigned int slot, uint64_t op, const void *in, size_t in_len,
		  void *out, size_t room);

/* Whatever registers say, for what no driver would do. */
long outside_enter(uint64_t room, uint64_t in_len, uint64_t part, uint64_t op, uint64_t gate, uint64_t stack);

#ifdef __cplusplus
}
#endif
#endif
