// SPDX-License-Identifier: GPL-2.0
/* The port's memory in user space, with failures to order, and the tree's test hook. */
#pragma once

#include <cstddef>

/* rdt_port_alloc() gives this many more blocks, then fails; negative: never fails. */
void test_alloc_limit(long blocks);
/* Blocks and bytes handed out and not freed. */
std::size_t test_alloc_blocks();
std::size_t test_alloc_bytes();

/* Called in front of every load of a word of a node. nullptr: nothing. */
void test_on_node_load(void (*hook)(void *), void *ctx);

/* Zeroed pages under the same limit. */
void *test_page_alloc();
void test_page_free(void *page);

/* Called in front of every access to a slot's word, this thread's. nullptr: nothing. */
void test_on_slot_step(void (*hook)(const unsigned long *word));
