// SPDX-License-Identifier: GPL-2.0
/*
 * The stores that make up nearly all writes to a logged frame: mov of a register or
 * an immediate to memory, in 64-bit mode. Everything else is stepped.
 */
#pragma once

#include <redoubt/port.h>
#include <redoubt/types.h>

namespace redoubt {

/*
 * @insn: @n bytes at RIP, as many as could be read. False: not such a store, or not all
 * of it is there. The bytes and the registers are the guest's: what comes out is what
 * the CPU would store, wherever that is; the caller compares it with where it faulted.
 */
bool decode_store(const u8 *insn, unsigned n, const rdt_cpu &cpu, rdt_store &out);

} // namespace redoubt
