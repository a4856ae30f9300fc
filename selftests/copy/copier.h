/* SPDX-License-Identifier: GPL-2.0 */
/* /dev/redoubt-copier: copies of one VM's pages, for tests of src/kvm/copy.c where there is no device. */
#ifndef COPIER_H
#define COPIER_H

#include <linux/ioctl.h>
#include <linux/types.h>

struct copier_show {
	__u64 gfn;
	__u64 page;	/* where the VMM has it: as it is now it is copied */
};

#define COPIER_VM	_IO('C', 0)	/* argument: the VM's descriptor; once */
#define COPIER_SHOW	_IOW('C', 1, struct copier_show)
#define COPIER_HIDE	_IO('C', 2)	/* argument: a gfn that is shown */

#endif
