// SPDX-License-Identifier: GPL-2.0
/*
 * The monitored-page tree: which action a write to a frame calls for.
 *
 * A red-black tree of disjoint ranges of frames. Its nodes live in node pages,
 * frames that the guest donated and can read; they link by 32-bit index, so the
 * guest may map the pages wherever it likes. Host memory holds the root, the list
 * of node pages, which slots are taken, and a 32-bit keyed tag of every node.
 *
 * Node pages are not trusted. Nested-page permissions keep the guest from writing
 * them, but a VMM or a device may rewrite them at any time, also during a walk:
 *  - a node is copied first and only the copy is looked at;
 *  - an index is range-checked, a key must lie in the interval that the descent has
 *    left, every loop is bounded by a constant or by the number of nodes;
 *  - no answer is given that does not rest on nodes whose tag is right: Ok on that
 *    of the range found (ranges are disjoint, so it is the only right one), None
 *    on that of every node on the way. Writers check each node they touch.
 * So a rewritten page costs the tree, never a wrong answer: the first mismatch
 * poisons it, and from then on everything answers Corrupt. The caller fails closed.
 *
 * Concurrency: one writer at a time (the caller's policy mutex). Readers (find,
 * next, is_node_page) take no lock. A sequence counter tells them of a writer;
 * they retry a few times and then answer Busy: take the mutex and ask again.
 * A reader never mistakes a writer's work for corruption.
 */
#pragma once

#include "frame_bitmap.h"

namespace redoubt {

enum class Action : u8 {
	Log = 1,    /* the write happens and is recorded */
	Deny = 2,   /* the writer gets a fault, nothing changes */
	Freeze = 3, /* the vCPU stops and the VMM is told */
};

struct Range {
	gfn_t first;
	u64 count;
	u8 cls; /* the caller's own: the tree only compares it */
	Action action;
	u16 flags; /* likewise */

	[[nodiscard]] constexpr gfn_t last() const
	{
		return first + count - 1;
	}
	[[nodiscard]] constexpr bool same_rule(const Range &r) const
	{
		return cls == r.cls && action == r.action && flags == r.flags;
	}
};

/* As it lies in a node page; part of the ABI towards the guest, read-only there. */
struct TreeNode {
	u64 first;
	u64 count;
	u32 left; /* index: page number << 7 | slot; 0 = none */
	u32 right;
	u16 flags;
	u8 cls;
	u8 action;
	u8 red;
	u8 zero[3];
};
static_assert(sizeof(TreeNode) == 32);

/* Slot 0 of every node page, for the guest's information only. */
struct TreePageHeader {
	u32 magic;
	u16 version;
	u16 slots; /* slots in a page, this one included */
	u32 page;  /* page number, as in the indices */
	u32 zero;
	u64 gfn;
	u64 zero2;
};
static_assert(sizeof(TreePageHeader) == sizeof(TreeNode));

class MonitorTree : Pinned {
public:
	static constexpr u32 page_magic = 0x54544452; /* "RDTT" */
	static constexpr u16 page_version = 1;
	static constexpr unsigned slots_per_page = page_size / sizeof(TreeNode);
	static constexpr unsigned nodes_per_page = slots_per_page - 1;
	static constexpr unsigned max_pages = 4096;
	static constexpr u64 max_nodes = u64{max_pages} * nodes_per_page;
	/* A red-black tree of n nodes is at most 2 * log2(n + 1) deep. */
	static constexpr unsigned max_depth = 2 * 19;
	static_assert(max_nodes < 1u << 19);

	/* Secret and random, per tree. A forged node passes once in 2^32. */
	struct TagKey {
		u64 word[9];
	};

	/*
	 * May `existing` be overwritten by `wanted`, or (wanted == nullptr) removed?
	 * Called before anything changes. It must not call into the tree.
	 */
	using MayChange = bool (*)(const Range &existing, const Range *wanted, void *ctx);

	constexpr explicit MonitorTree(const TagKey &key) : key_(key)
	{
	}
	~MonitorTree();

	/* --- readers: no lock --- */

	/* The range that holds gfn. Ok, None, Corrupt, Busy. */
	Status find(gfn_t gfn, Range *out);
	/* The first range that ends at `from` or later. Ok, None, Corrupt, Busy. */
	Status next(gfn_t from, Range *out);

	[[nodiscard]] bool is_node_page(gfn_t gfn) const
	{
		return node_frames_.test(gfn);
	}
	/* The first node page in [from, gfn_limit), or gfn_limit. */
	[[nodiscard]] gfn_t next_node_page(gfn_t from) const
	{
		return node_frames_.next_set(from);
	}
	[[nodiscard]] bool poisoned() const
	{
		return load_acquire(poisoned_);
	}

	/* Ranges, frames in them, node pages, unused nodes, bytes of host memory. */
	[[nodiscard]] u64 ranges() const
	{
		return read_once(count_);
	}
	[[nodiscard]] u64 frames() const
	{
		return read_once(frames_);
	}
	[[nodiscard]] u64 node_pages() const
	{
		return node_frames_.weight();
	}
	[[nodiscard]] u64 free_nodes() const
	{
		return read_once(free_);
	}
	[[nodiscard]] u64 host_bytes() const
	{
		return sizeof(*this) + read_once(bytes_) + node_frames_.host_bytes();
	}

	/* --- writers: under the caller's mutex; all or nothing --- */

	/*
	 * host_va: a page of guest memory, mapped until it is removed or the tree is
	 * destroyed. What it held is overwritten.
	 * Inval, Overlap (is one already), Refused (max_pages), NoMem, Corrupt.
	 */
	Status add_node_page(void *host_va, gfn_t gfn);
	/*
	 * Moves the nodes elsewhere. The caller may unmap the page only after all
	 * readers that were under way have left. None, NoNodes (no room), Corrupt.
	 */
	Status remove_node_page(gfn_t gfn);

	/* Adds a range, joined with neighbours of the same rule.
	 * Inval, Overlap, NoNodes, Corrupt. */
	Status insert(const Range &r);
	/* Makes `r` the rule for its frames, whatever was there before.
	 * Inval, Refused (by may), NoNodes, Corrupt. */
	Status protect(const Range &r, MayChange may = nullptr, void *ctx = nullptr);
	/* Takes the frames out; ranges that stick out are cut, which may need one
	 * node. Inval, None, Refused (by may), NoNodes, Corrupt. */
	Status remove(gfn_t first, u64 count, MayChange may = nullptr, void *ctx = nullptr);

	/* Checks every node and every invariant. Ok, Corrupt. */
	Status verify();

private:
	friend struct TreeTester; /* white-box tests */

	using Index = u32;
	static constexpr unsigned slot_bits = 7;
	static_assert(slots_per_page == 1u << slot_bits);
	static constexpr unsigned chunk_pages = 64;
	static constexpr unsigned chunks = max_pages / chunk_pages;

	struct Words { /* a node, in the units that it is loaded and stored in */
		u64 w[sizeof(TreeNode) / sizeof(u64)];
	};
	struct Tags {
		u32 tag[slots_per_page];
	};
	/* Host memory for chunk_pages node pages. */
	struct Chunk {
		Words *base[chunk_pages]; /* nullptr: no such page */
		Tags *tags[chunk_pages];  /* kept for reuse when the page goes */
		gfn_t gfn[chunk_pages];
		u64 used[chunk_pages][slots_per_page / 64]; /* slot 0 counts as used */
	};
	/*
	 * Which node answered last for a block of frames. A hint, written by readers:
	 * the node it names is checked like any other. Small for a few ranges, large
	 * (tried first) from memo_from pages on; both stay, readers may be using them.
	 */
	static constexpr unsigned memo_shift = 5, memo_from = 16;
	static constexpr usize memo_small = 1u << 10, memo_large = 1u << 16;

	/* What is left of the key space on the way down. */
	struct Bounds {
		gfn_t low = 0, high = gfn_limit - 1;
	};

	static Range range_of(const TreeNode &n)
	{
		return {n.first, n.count, n.cls, static_cast<Action>(n.action), n.flags};
	}
	static bool valid(const Range &r);
	static bool within(const TreeNode &n, const Bounds &b);

	/*
	 * Multilinear hash, strongly universal: for who knows neither key nor tag, any
	 * change keeps the tag with a chance of 2^-32. A tag never leaves the host.
	 */
	u32 tag_of(const Words &w) const
	{
		u64 h = key_.word[8];

#pragma GCC unroll 4
		for (usize i = 0; i < 4; i++) {
			h += key_.word[2 * i] * static_cast<u32>(w.w[i]);
			h += key_.word[2 * i + 1] * (w.w[i] >> 32);
		}
		return static_cast<u32>(h >> 32);
	}

	/* nullptr for an index that names no node of a node page. */
	const Words *slot(Index i) const
	{
		const u32 page = i >> slot_bits, in_page = i % slots_per_page;

		if (page >= max_pages || in_page == 0)
			return nullptr;
		const Chunk *chunk = load_acquire(chunk_[page / chunk_pages]);
		if (!chunk)
			return nullptr;
		const Words *base = load_acquire(chunk->base[page % chunk_pages]);
		return base ? base + in_page : nullptr;
	}

	/* Only for an index that slot() has accepted. */
	u32 *tag(Index i) const
	{
		const u32 page = i >> slot_bits;

		return &chunk_[page / chunk_pages]->tags[page % chunk_pages]->tag[i % slots_per_page];
	}

	bool copy(Index i, TreeNode *out) const;
	bool copy_checked(Index i, TreeNode *out) const;
	bool holds(Index i, gfn_t gfn, Range *out) const;
	Index *memo(gfn_t gfn) const;
	void grow_memo();
	Status find_fast(gfn_t gfn, Range *out) const;
	Status find_sure(gfn_t gfn, Range *out) const;
	Status seek(gfn_t from, Range *out) const;
	template <class Walk> Status read(Walk walk);
	void poison();

	void begin();
	Status end();
	TreeNode get(Index i);
	void put(Index i, const TreeNode &n);
	void put_raw(Index i, const Words &w);
	void set_red(Index i, bool red);
	void relink(Index parent, Index from, Index to);
	void rotate(Index parent, Index top, bool left);
	bool locate(gfn_t first);
	Index alloc_node();
	void free_node(Index i);
	void resize(const Range &from, gfn_t first, u64 count);
	void link(const Range &r);
	void unlink(gfn_t first);
	void fix_insert();
	void fix_erase(bool left);
	void add(const Range &r);
	void cut(gfn_t first, gfn_t last);
	struct Survey;
	Status survey(gfn_t first, gfn_t last, const Range *wanted, MayChange may, void *ctx,
		      Survey *out);
	Status writer_seek(gfn_t from, Range *out);
	bool same_rule_at(gfn_t gfn, const Range &r, Range *out);
	void move_node(Index from);
	Status corrupt();

	TagKey key_;
	u32 seq_ = 0; /* odd: a writer is at work */
	Index root_ = 0;
	bool poisoned_ = false;
	bool failed_ = false; /* this writer met a node that fails its checks */
	u32 count_ = 0;
	u32 free_ = 0;
	u32 page_end_ = 0;  /* page numbers in use are below */
	u32 page_hint_ = 0; /* no free slot in pages below */
	u64 frames_ = 0;
	u64 bytes_ = 0;
	/* The writer's way from the root; a deletion adds one step. */
	u32 depth_ = 0;
	Index path_[max_depth + 2] = {};
	Chunk *chunk_[chunks] = {};
	Index *small_ = nullptr, *large_ = nullptr;
	FrameBitmap node_frames_;
};

} // namespace redoubt
