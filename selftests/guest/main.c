// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
MODULE_LICENSE("GPL"); MODULE_DESCRIPTION("Redoubt: tests in the guest");
