/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _REDOUBT_TAG_H
#define _REDOUBT_TAG_H

#define TAG_ERASURE	0xe7a5edc0de0ff5e7

#endif
