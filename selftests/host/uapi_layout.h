/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the uAPI's structures look like to a program, whatever its word size. The
 * Makefile compiles this for 32 bit, too: there the compiler aligns __u64 to 4.
 */
#ifndef UAPI_LAYOUT_H
#define UAPI_LAYOUT_H

#include <linux/redoubt.h>
#include <linux/redoubt_standby.h>

#define SIZE(type, size) _Static_assert(sizeof(struct type) == (size), #type)
#define AT(type, field, offset) \
	_Static_assert(__builtin_offsetof(struct type, field) == (offset), #type "." #field)

SIZE(rdt_info, 96);
SIZE(rdt_attach, 32);
AT(rdt_attach, reserved, 16);
SIZE(rdt_open, 16);
SIZE(rdt_list_entry, 8);
SIZE(rdt_list, 16);
AT(rdt_list, entries, 8);
SIZE(rdt_policy, 16);
SIZE(rdt_vm_info, 144);
AT(rdt_vm_info, frames, 16);
AT(rdt_vm_info, host_bytes, 104);
SIZE(rdt_region, 24);
SIZE(rdt_regions, 24);
AT(rdt_regions, entries, 16);
SIZE(rdt_protect, 24);
SIZE(rdt_domain_quota, 24);
SIZE(rdt_domain_info, 128);
AT(rdt_domain_info, frames, 32);
AT(rdt_domain_info, gate_gva, 64);
AT(rdt_domain_info, measurement, 96);
SIZE(rdt_fixup, 16);
SIZE(rdt_install, 40);
AT(rdt_install, fixups, 16);
AT(rdt_install, reserved, 32);
SIZE(rdt_domain_export, 48);
AT(rdt_domain_export, reserved, 32);
SIZE(rdt_domain_blob, 64);
AT(rdt_domain_blob, nonce, 48);
SIZE(rdt_domain_blob_page, 16);
SIZE(rdt_event, 128);
AT(rdt_event, gpa, 32);
AT(rdt_event, flags, 96);
SIZE(rdt_ring, 288);
AT(rdt_ring, data_offset, 16);
AT(rdt_ring, count, 32);

SIZE(rdt_sb_register, 48);
AT(rdt_sb_register, vcpu_fds, 8);
AT(rdt_sb_register, uuid, 16);
AT(rdt_sb_register, id, 36);
SIZE(rdt_sb_range, 16);
SIZE(rdt_sb_slot, 32);
AT(rdt_sb_slot, id, 24);
SIZE(rdt_sb_stream_info, 40);
AT(rdt_sb_stream_info, portid, 32);

#endif
