// SPDX-License-Identifier: GPL-2.0
/*
 * Protection domains: Documentation/domains.md. A Domain is one view's: what it is
 * made of and what it was measured as. Its life is driven by Vm (domain.cc), which
 * knows the frames' rules; how it is crossed is gate.cc.
 *
 * Concurrency: writers hold the policy lock. Readers without it read `epoch` and
 * state() first and rely on nothing before they have claimed a slot with that epoch;
 * who is inside may rely on all of it. An object is never freed before its VM, so a reader
 * that is late reads something old, not something gone.
 */
#pragma once

#include "frame_map.h"
#include "inside.h"

#include <linux/redoubt.h>
#include <linux/redoubt_guest.h>

namespace redoubt {

inline constexpr u8 view_domain = RDT_VIEW_DOMAIN;

constexpr bool is_domain(u8 view)
{
	return view >= view_domain && view < view_domain + RDT_DOM_MAX;
}
static_assert(view_domain + RDT_DOM_MAX == RDT_VIEW_STEP);

/*
 * Never a domain's, nor shared with one: where everything in its address space leads that
 * is not its own. A fault in the delivery of an event has to be a nested one; an IDT that
 * the tables had nothing for would be #PF, #DF and the end of the VM. Below what the narrowest
 * CPU can address.
 */
inline constexpr gfn_t absent_gfn = (1ull << 36 >> page_shift) - 1;

class Domain : public Inside {
public:
	enum class State : u32 {
		Gone,
		Building = RDT_DOM_BUILDING,
		Sealed = RDT_DOM_SEALED,
		Dying = RDT_DOM_DYING,
	};

	[[nodiscard]] State state() const
	{
		return load_acquire(state_);
	}
	void set_state(State s)
	{
		store_release(state_, s);
	}
	[[nodiscard]] u64 id() const
	{
		return epoch << 8 | gate.view;
	}

	/*
	 * Checks and takes over a descriptor (a private copy, not guest memory): Gone ->
	 * Building. nullptr when right, else what is wrong with it, for the log.
	 * sha: what the pages go into, ours from now on.
	 */
	const char *create(const rdt_domain_desc &d, u8 view, u8 work_view, u8 va_bits, u64 new_epoch,
			   void *sha);

	/* The pages of one DOM_ADD: neighbours in both address spaces. */
	struct Run {
		Run *next;
		gfn_t first;
		u64 gva; /* TABLE: 0 */
		u32 count;
		u32 kind;
		struct Page {
			void *own; /* the private page */
			void *pin; /* of the VMM's */
		} page[];
	};
	/* Could these pages come next? */
	[[nodiscard]] bool fits(u64 gva, u64 pages, u64 kind) const;
	/* They fit; their content is what it will be. */
	void add(Run *r);

	/* The address of a page of the domain's own; false: it is none. For who is inside, too. */
	bool address(gfn_t gfn, u64 *gva) const;

	struct Shared {
		gfn_t first;
		u64 count;
		u64 gva;
	};
	/* Ok, Inval: not in one window, or given. NoMem: too many ranges. */
	Status share(gfn_t first, u64 gva, u64 pages);
	/* Somebody's who is in the view may ask without the lock. */
	[[nodiscard]] bool shares(gfn_t gfn) const
	{
		const u32 n = load_acquire(nshared_);

		for (u32 i = 0; i < n; i++)
			if (gfn - shared_[i].first < shared_[i].count)
				return true;
		return false;
	}

	/*
	 * Page tables from the pages (domain_tables.cc). Inval: not complete, or two things at one
	 * address; NoNodes: TABLE frames are used up. After an error the tables are blank.
	 */
	Status build(const FrameMap &map);
	/* A byte of the domain's own that the operator may set; nullptr: there is none. */
	[[nodiscard]] u8 *installable(u64 gva) const;
	/* The frame at an address of the domain's; false: none. */
	bool walk(const FrameMap &map, u64 gva, gfn_t *gfn) const;
	/* Building -> Sealed is the caller's. */
	void measured();

	/* For what the host swaps on a crossing. From a try before this there may be some. */
	[[nodiscard]] bool make_room(Slot &s, void *host) const;
	/* Gives up what is not pages. Nobody is inside, nobody can get in. */
	void bury(void *host);

	Run *runs = nullptr; /* newest first */
	u64 frames = 0;
	u32 flags = 0;
	u32 installs = 0; /* since the seal; relaxed */
	u8 measurement[32] = {};

	[[nodiscard]] u32 nshared() const
	{
		return nshared_;
	}
	[[nodiscard]] const Shared &shared(u32 i) const
	{
		return shared_[i];
	}

private:
	bool in_domain(u64 gva, u64 pages) const;
	void owns(u64 first, u64 last);
	void hash(const void *data, usize bytes);
	u64 measured_from() const;
	Run *run_at(u64 gva) const;
	bool map_page(const FrameMap &map, u64 gva, gfn_t gfn, u64 bits, Status *why);
	u64 *take_table(u64 *gpa);
	void blank_tables();
	void fill_tables(const FrameMap &map);
	static void fill_half(const FrameMap &map, u64 *t, unsigned level, unsigned entries);

	State state_ = State::Gone;
	u32 nshared_ = 0;
	u32 nwindows_ = 0;
	u64 next_gva_ = 0; /* nothing is added below */
	void *sha_ = nullptr;
	/* build(): where the next TABLE frame is */
	Run *table_run_ = nullptr;
	u32 table_at_ = 0;
	rdt_domain_window window_[RDT_DOM_MAX_WINDOWS] = {};
	Shared shared_[RDT_DOM_MAX_SHARED] = {};
};

/* All that exists once a guest has created a domain. */
struct Domains : Pinned {
	/* A leaf for each 2 MiB in which a domain ever had a frame. */
	static constexpr u64 map_bytes = 32u << 20;

	FrameMap map{map_bytes};
	/* By view; published once, see Domain. */
	Domain *at[view_domain + RDT_DOM_MAX] = {};
	/* A view that is the second one of a secret: that one's first; else 0. */
	u8 first_of[view_domain + RDT_DOM_MAX] = {};
	u64 epochs = 0; /* used so far */
	u64 frames = 0;
	u32 count = 0;

	/* The view that a domain is known by. */
	[[nodiscard]] u8 home(u8 view) const
	{
		const u8 first = is_domain(view) ? load_acquire(first_of[view]) : u8{0};

		return first ? first : view;
	}
	[[nodiscard]] bool is_free(u8 view) const
	{
		return !first_of[view] && (!at[view] || at[view]->state() == Domain::State::Gone);
	}
};

} // namespace redoubt
