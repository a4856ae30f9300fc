// SPDX-License-Identifier: GPL-2.0
/*
 * What a view other than root is to execution: where it is entered and left, and the
 * threads in it. Integrity mode and each domain have one; gate.cc is for both.
 */
#pragma once

#include "slots.h"

#include <redoubt/port.h>
#include <redoubt/types.h>

namespace redoubt {

struct Gate {
	u8 view = RDT_VIEW_INTEGRITY;
	u8 cpl = 0;	     /* of the caller, and of the inside */
	u8 va_bits = 0;	     /* of the paging mode that its page tables are made for */
	bool domain = false; /* nothing but arguments gets in */
	bool secret = false; /* a domain in its caller's address space */
	bool rewind = false; /* its interrupted calls are forgotten */
	u8 text = 0;	     /* RDT_ACC_* to a secret's code */
	u8 work_view = 0;    /* of a secret: where its TEXT is, and its GATE is not */
	u16 results = 0, erased = 0; /* by general register */
	u64 erasure = 0;
	u64 cr3 = 0;
	u64 idt_gva = 0;
	/*
	 * A domain's linear addresses, windows included, and what lies between. An IDT there would
	 * be one that the CPU can read in its view: an event would go on anywhere inside.
	 */
	u64 own_first = ~0ull, own_last = 0;
	u64 gate_gva = 0;
	u64 exit_gva = 0;
	u64 call_gva = 0;
	u64 call_gpa = 0;
	u64 resume_gva = 0;
	/* The one frame of each kind; none: no frame has this number. */
	gfn_t gate_gfn = ~0ull;
	gfn_t exit_gfn = ~0ull;
	u32 slots = 0;
	u64 stack_top[RDT_DRV_MAX_SLOTS] = {};
};

/* May a vCPU go in with its IDT there? The largest is 64 KiB. */
constexpr bool idt_fits(const Gate &gate, u64 base)
{
	const u64 last = base + 0xffff;

	return base == gate.idt_gva ||
	       (gate.domain &&
		(gate.secret || (last > base && (base > gate.own_last || last < gate.own_first))));
}

struct Inside : Pinned {
	Gate gate;
	/*
	 * Counts the domains that this was. Who reads it first and claims a slot with
	 * it knows that all read in between belongs together. Integrity mode: always 0.
	 */
	u64 epoch = 0;
	/* Relaxed. */
	u64 enters = 0, aexits = 0;
	Slots slots;

	/* All is in place: from here on it can be entered. */
	void open()
	{
		for (u32 i = 0; i < gate.slots; i++)
			slots[i].stack_top = gate.stack_top[i];
		slots.init(gate.slots, gate.view, epoch);
	}
};

/* An address that a VM entry accepts as RIP in this paging mode. */
constexpr bool canonical(u64 va, u8 va_bits)
{
	return va_bits && static_cast<u64>(static_cast<s64>(va << (64 - va_bits)) >>
					   (64 - va_bits)) == va;
}

/* Zeros that the compiler cannot leave out. */
inline void scrub(void *p, usize bytes)
{
	asm volatile("rep stosb" : "+D"(p), "+c"(bytes) : "a"(0) : "memory");
}

} // namespace redoubt
