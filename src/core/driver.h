// SPDX-License-Identifier: GPL-2.0
/*
 * The integrity driver as it was registered: its frames, by kind, and the few
 * addresses at which execution may cross. Host memory, written once before it
 * is published, so that readers need no lock and no guest page is trusted with
 * the question of who may execute.
 */
#pragma once

#include "inside.h"

#include <linux/redoubt_guest.h>
#include <redoubt/port.h>
#include <redoubt/types.h>

namespace redoubt {

enum class FrameKind : u8 {
	None = 0,
	Text = RDT_DRV_TEXT,
	Data = RDT_DRV_DATA,
	Gate = RDT_DRV_GATE,
	Exit = RDT_DRV_EXIT,
	Idt, /* not the driver's: unreadable inside */
};

/* The class that reports give to a frame of the driver. */
constexpr u8 class_of(FrameKind k)
{
	switch (k) {
	case FrameKind::Text:
		return RDT_CLS_DRV_TEXT;
	case FrameKind::Gate:
		return RDT_CLS_DRV_GATE;
	case FrameKind::Exit:
		return RDT_CLS_DRV_EXIT;
	case FrameKind::Data:
		return RDT_CLS_DRV_DATA;
	default:
		return RDT_CLS_OTHER;
	}
}

class Driver : public Gate, Pinned {
public:
	/*
	 * Checks and takes over a descriptor (a private copy, not guest memory).
	 * va_bits: of the paging mode that its page tables are made for.
	 * nullptr when right, else what is wrong with it, for the log.
	 */
	const char *init(const rdt_driver_desc &d, u8 va_bits);

	[[nodiscard]] FrameKind kind(gfn_t gfn) const;

	struct Region {
		gfn_t first;
		u32 count;
		FrameKind kind;
	};
	[[nodiscard]] unsigned regions() const
	{
		return regions_;
	}
	[[nodiscard]] const Region &region(unsigned i) const
	{
		return region_[i];
	}
	/* The IDT's is not one. */
	[[nodiscard]] u64 frames() const
	{
		return frames_;
	}

	gfn_t idt_gfn = 0;

private:
	/* The last region that starts at or below gfn; -1: none. */
	[[nodiscard]] int below(gfn_t gfn) const;

	unsigned regions_ = 0;
	u64 frames_ = 0;
	Region region_[RDT_DRV_MAX_REGIONS + 1] = {}; /* sorted, with the IDT */
};

} // namespace redoubt
