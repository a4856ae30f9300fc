// SPDX-License-Identifier: GPL-2.0
#include "support.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <malloc.h>

#include <redoubt/port.h>

namespace {

std::atomic<long> limit{-1};
std::atomic<std::size_t> blocks, bytes;

thread_local void (*hook)(void *);
thread_local void *hook_ctx;
thread_local void (*slot_hook)(const unsigned long *);

/* Takes one from the limit; false: it is used up. */
bool may_alloc()
{
	if (limit == 0)
		return false;
	if (limit > 0)
		limit--;
	return true;
}

} // namespace

void test_alloc_limit(long n)
{
	limit = n;
}

std::size_t test_alloc_blocks()
{
	return blocks;
}

std::size_t test_alloc_bytes()
{
	return bytes;
}

void test_on_node_load(void (*fn)(void *), void *ctx)
{
	hook = fn;
	hook_ctx = ctx;
}

extern "C" void rdt_test_node_load(void);
extern "C" void rdt_test_node_load(void)
{
	if (hook)
		hook(hook_ctx);
}

extern "C" void *rdt_port_alloc(unsigned long size)
{
	if (!may_alloc())
		return nullptr;

	void *p = std::calloc(1, size);

	if (p) {
		blocks++;
		bytes += malloc_usable_size(p);
	}
	return p;
}

extern "C" void rdt_port_free(void *p)
{
	if (!p)
		return;
	blocks--;
	bytes -= malloc_usable_size(p);
	std::free(p);
}

void *test_page_alloc()
{
	void *p = may_alloc() ? std::aligned_alloc(4096, 4096) : nullptr;

	if (p) {
		std::memset(p, 0, 4096);
		blocks++;
	}
	return p;
}

void test_page_free(void *p)
{
	blocks--;
	std::free(p);
}

void test_on_slot_step(void (*fn)(const unsigned long *))
{
	slot_hook = fn;
}

extern "C" void rdt_test_slot_step(const unsigned long *word);
extern "C" void rdt_test_slot_step(const unsigned long *word)
{
	if (slot_hook)
		slot_hook(word);
}
