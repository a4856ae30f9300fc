/* SPDX-License-Identifier: GPL-2.0 */
/* So that aes_secret.S can be a part of a program. */
#define RET	ret
