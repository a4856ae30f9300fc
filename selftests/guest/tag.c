// SPDX-License-Identifier: GPL-2.0
/* redoubt_tag: a secret in rewind mode (D3), for the test in rewind.c. */
#include <linux/module.h>
#include "redoubt_driver.h"
#include "redoubt_secret.h"
#include "tag.h"

RDT_SECRET_DECLARE(rdt_tag);

static RDT_SECRET_MODULE(rdt_tag, .flags = RDT_DOM_REWIND, .slots = 4, .results = RDT_REG_RAX,
			 .erased = RDT_REG_RAX | RDT_REG_RCX | RDT_REG_RDX, .erasure = TAG_ERASURE);

static int __init tag_init(void)
{
	return redoubt_secret_register(&rdt_tag_secret);
}

static void __exit tag_exit(void)
{
	redoubt_secret_unregister(&rdt_tag_secret);
}

module_init(tag_init);
module_exit(tag_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Redoubt: a secret in rewind mode, for tests");
