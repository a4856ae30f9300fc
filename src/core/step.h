// SPDX-License-Identifier: GPL-2.0
/*
 * One instruction of one vCPU at a time, in a view of its own, where the frames
 * it was found to need are writable: Documentation/step.md.
 *
 * Here are the frames. Each is copied when the step begins and compared when it
 * ends, which tells what was written, whatever the instruction was.
 *
 * Concurrency: everything but granted() and revoke() belongs to the vCPU that the
 * host made the step's owner. granted() runs on any vCPU, revoke() under the
 * policy lock beside both.
 */
#pragma once

#include <redoubt/port.h>
#include <redoubt/types.h>

namespace redoubt {

/* A range as reports see it, the built-in ones included. */
struct Rule {
	gfn_t first;
	u64 count;
	u8 cls;
	u8 action; /* RDT_ACT_* */
};

class StepFrames : Pinned {
public:
	/*
	 * An instruction needs two frames of data and, for each page it touches, four
	 * levels of tables: code and data across a border, its stack, and for an event
	 * the IDT, the GDT and the TSS.
	 */
	static constexpr unsigned max = 40;
	/* Tables that stay writable in the view from one step to the next. */
	static constexpr unsigned keep = 16;

	struct Frame {
		gfn_t granted = none; /* writable in the view; none when revoked */
		gfn_t gfn = none;     /* none: free */
		bool held = false;    /* copied and mapped: part of this step */
		bool data = false;    /* a write other than a page walk's faulted in this step */
		bool logged = false;  /* or in an earlier one */
		const u64 *now = nullptr;
		void *cookie = nullptr;
		u64 *before = nullptr;
		rdt_fault fault = {}; /* the first, when data */
		Rule rule = {};
	};

	[[nodiscard]] bool granted(gfn_t gfn) const
	{
		for (const Frame &f : frame_)
			if (read_once(f.granted) == gfn)
				return true;
		return false;
	}
	/* The caller zaps: from then on no vCPU has the right. */
	void revoke(gfn_t first, u64 count)
	{
		for (Frame &f : frame_)
			if (read_once(f.granted) - first < count)
				write_once(f.granted, none);
	}

	Frame *find(gfn_t gfn)
	{
		for (Frame &f : frame_)
			if (f.gfn == gfn)
				return &f;
		return nullptr;
	}
	Frame *free()
	{
		return find(none);
	}

	Frame *begin()
	{
		return frame_;
	}
	Frame *end()
	{
		return frame_ + max;
	}

	[[nodiscard]] u64 host_bytes() const
	{
		u64 n = 0;

		for (const Frame &f : frame_)
			n += f.before ? page_size : 0;
		return n;
	}

	static constexpr gfn_t none = ~0ull;

private:
	Frame frame_[max];
};

} // namespace redoubt
