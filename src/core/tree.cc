// SPDX-License-Identifier: GPL-2.0
#include "tree.h"

#ifdef RDT_UNIT_TEST
/* Called between the loads of a node: tests count steps and rewrite pages here. */
extern "C" void rdt_test_node_load(void);
#else
static inline void rdt_test_node_load(void)
{
}
#endif

namespace redoubt {

namespace {

/* Readers run in a fault: a few microseconds, then the mutex is the better wait. */
constexpr unsigned max_tries = 256;

} // namespace

bool MonitorTree::valid(const Range &r)
{
	return valid_frames(r.first, r.count) && r.action >= Action::Log &&
	       r.action <= Action::Freeze;
}

/* Also true only of a range that does not wrap: high is below gfn_limit. */
inline bool MonitorTree::within(const TreeNode &n, const Bounds &b)
{
	return n.first >= b.low && n.first <= b.high && n.count - 1 <= b.high - n.first;
}

/* --- node pages --- */

inline bool MonitorTree::copy(Index i, TreeNode *out) const
{
	const Words *from = slot(i);
	Words w;

	if (!from)
		return false;
#pragma GCC unroll 4
	for (unsigned k = 0; k < 4; k++) {
		rdt_test_node_load();
		w.w[k] = read_once(from->w[k]);
	}
	*out = __builtin_bit_cast(TreeNode, w);
	return true;
}

inline bool MonitorTree::copy_checked(Index i, TreeNode *out) const
{
	return copy(i, out) && tag_of(__builtin_bit_cast(Words, *out)) == read_once(*tag(i)) &&
	       out->red <= 1 && valid(range_of(*out));
}

/* --- readers --- */

inline bool MonitorTree::holds(Index i, gfn_t gfn, Range *out) const
{
	TreeNode n;

	if (!copy_checked(i, &n) || gfn - n.first >= n.count)
		return false;
	*out = range_of(n);
	return true;
}

inline MonitorTree::Index *MonitorTree::memo(gfn_t gfn) const
{
	const gfn_t block = gfn >> memo_shift;
	Index *hints = load_acquire(large_);

	if (hints)
		return hints + block % memo_large;
	hints = load_acquire(small_);
	return hints ? hints + block % memo_small : nullptr;
}

/*
 * The walk for speed. It checks no tag on the way and may end anywhere if pages
 * were rewritten: only Ok counts, which rests on the tag of the range found.
 */
inline Status MonitorTree::find_fast(gfn_t gfn, Range *out) const
{
	Index *hint = memo(gfn);

	if (hint && holds(read_once(*hint), gfn, out))
		return Status::Ok;

	Index at = read_once(root_);

	for (unsigned depth = 0; at != 0 && depth < max_depth; depth++) {
		const Words *w = slot(at);

		if (!w)
			break;
		rdt_test_node_load();

		const gfn_t first = read_once(w->w[0]);
		const u64 count = read_once(w->w[1]), links = read_once(w->w[2]);

		if (gfn - first < count) {
			if (!holds(at, gfn, out))
				break;
			if (hint)
				write_once(*hint, at);
			return Status::Ok;
		}
		at = static_cast<Index>(gfn < first ? links : links >> 32);
	}
	return Status::None;
}

/* The walk that is sure: every node's tag is checked. */
Status MonitorTree::find_sure(gfn_t gfn, Range *out) const
{
	const Status status = seek(gfn, out);

	return status == Status::Ok && out->first > gfn ? Status::None : status;
}

Status MonitorTree::seek(gfn_t from, Range *out) const
{
	Index at = read_once(root_);
	Status best = Status::None;
	Bounds b;
	TreeNode n;

	for (unsigned depth = 0; at != 0; depth++) {
		if (depth == max_depth || !copy_checked(at, &n) || !within(n, b))
			return Status::Corrupt;
		if (from < n.first) {
			*out = range_of(n);
			best = Status::Ok;
			b.high = n.first - 1;
			at = n.left;
		} else if (from - n.first < n.count) {
			*out = range_of(n);
			return Status::Ok;
		} else {
			b.low = n.first + n.count;
			at = n.right;
		}
	}
	return best;
}

/* What `walk` says, provided that no writer was at work meanwhile. */
template <class Walk> inline Status MonitorTree::read(Walk walk)
{
	for (unsigned i = 0; i < max_tries; i++) {
		if (poisoned())
			return Status::Corrupt;

		const u32 seq = load_acquire(seq_); /* pairs with end() */
		if (seq & 1) {
			cpu_relax();
			continue;
		}
		const Status status = walk();

		/* Pairs with begin(): loads of what a writer stored show its odd count. */
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (read_once(seq_) != seq)
			continue;
		if (status == Status::Corrupt)
			poison();
		return status;
	}
	return Status::Busy;
}

void MonitorTree::poison()
{
	store_release(poisoned_, true);
}

Status MonitorTree::find(gfn_t gfn, Range *out)
{
	if (gfn >= gfn_limit)
		return Status::None;
	return read([&] {
		const Status fast = find_fast(gfn, out);

		return fast == Status::Ok ? fast : find_sure(gfn, out);
	});
}

Status MonitorTree::next(gfn_t from, Range *out)
{
	if (from >= gfn_limit)
		return Status::None;
	return read([&] { return seek(from, out); });
}

/* --- writers: single nodes --- */

void MonitorTree::begin()
{
	failed_ = false;
	write_once(seq_, seq_ + 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

Status MonitorTree::end()
{
	if (failed_)
		poison();
	store_release(seq_, seq_ + 1);
	return failed_ ? Status::Corrupt : Status::Ok;
}

/*
 * After a failure get() gives a black leaf, put() does nothing, and end() reports:
 * the algorithms run to their end on nothing instead of testing at every step.
 */
TreeNode MonitorTree::get(Index i)
{
	TreeNode n = {};

	if (failed_ || !copy_checked(i, &n)) {
		failed_ = true;
		n = {};
	}
	return n;
}

void MonitorTree::put(Index i, const TreeNode &n)
{
	put_raw(i, __builtin_bit_cast(Words, n));
}

void MonitorTree::put_raw(Index i, const Words &w)
{
	Words *to = const_cast<Words *>(slot(i));

	if (failed_ || !to) {
		failed_ = true;
		return;
	}
	for (unsigned k = 0; k < 4; k++)
		write_once(to->w[k], w.w[k]);
	write_once(*tag(i), tag_of(w));
}

void MonitorTree::set_red(Index i, bool red)
{
	TreeNode n = get(i);

	n.red = red;
	put(i, n);
}

MonitorTree::Index MonitorTree::alloc_node()
{
	for (u32 page = page_hint_; page < page_end_; page++) {
		Chunk *chunk = chunk_[page / chunk_pages];
		u64 *used = chunk->used[page % chunk_pages];

		page_hint_ = page;
		if (!chunk->base[page % chunk_pages])
			continue;
		for (unsigned k = 0; k < slots_per_page / 64; k++) {
			if (used[k] == ~0ull)
				continue;
			const u32 bit = static_cast<u32>(__builtin_ctzll(~used[k]));

			used[k] |= 1ull << bit;
			write_once(free_, free_ - 1);
			return page << slot_bits | (k * 64 + bit);
		}
	}
	failed_ = true; /* the callers have made sure that there is one */
	return 0;
}

void MonitorTree::free_node(Index i)
{
	const u32 page = i >> slot_bits, in_page = i % slots_per_page;

	put_raw(i, {});
	if (failed_)
		return;
	chunk_[page / chunk_pages]->used[page % chunk_pages][in_page / 64] &=
		~(1ull << (in_page % 64));
	write_once(free_, free_ + 1);
	page_hint_ = min_of(page_hint_, page);
}

/* Makes the link in `parent` (0: the root) that names `from` name `to`. */
void MonitorTree::relink(Index parent, Index from, Index to)
{
	if (parent == 0) {
		write_once(root_, to);
		return;
	}
	TreeNode n = get(parent);

	(n.left == from ? n.left : n.right) = to;
	put(parent, n);
}

/* `top` goes down to the left (or right), its other child takes its place. */
void MonitorTree::rotate(Index parent, Index top, bool left)
{
	TreeNode t = get(top);
	const Index up = left ? t.right : t.left;
	TreeNode u = get(up);

	(left ? t.right : t.left) = left ? u.left : u.right;
	(left ? u.left : u.right) = top;
	put(top, t);
	put(up, u);
	relink(parent, top, up);
}

/* Fills path_ with the way to the node that starts at `first`. */
bool MonitorTree::locate(gfn_t first)
{
	Bounds b;

	depth_ = 0;
	for (Index at = root_; at != 0;) {
		const TreeNode n = get(at);

		if (failed_ || depth_ == max_depth || !within(n, b)) {
			failed_ = true;
			return false;
		}
		path_[depth_++] = at;
		if (n.first == first)
			return true;
		if (first < n.first) {
			b.high = n.first - 1;
			at = n.left;
		} else {
			b.low = n.first + n.count;
			at = n.right;
		}
	}
	return false;
}

/* --- writers: the red-black tree --- */

/* The new frames must lie between the neighbours of `from`. */
void MonitorTree::resize(const Range &from, gfn_t first, u64 count)
{
	if (!locate(from.first)) {
		failed_ = true;
		return;
	}
	TreeNode n = get(path_[depth_ - 1]);

	n.first = first;
	n.count = count;
	put(path_[depth_ - 1], n);
	write_once(frames_, frames_ - from.count + count);
}

void MonitorTree::link(const Range &r)
{
	if (locate(r.first))
		failed_ = true;
	const Index fresh = failed_ ? 0 : alloc_node();

	if (failed_)
		return;
	put(fresh, {r.first, r.count, 0, 0, r.flags, r.cls, static_cast<u8>(r.action), 1, {}});
	if (depth_ == 0) {
		write_once(root_, fresh);
	} else {
		TreeNode n = get(path_[depth_ - 1]);

		(r.first < n.first ? n.left : n.right) = fresh;
		put(path_[depth_ - 1], n);
	}
	path_[depth_++] = fresh;
	write_once(count_, count_ + 1);
	write_once(frames_, frames_ + r.count);
	fix_insert();
}

/* path_ ends in a red node, which may have a red parent. */
void MonitorTree::fix_insert()
{
	u32 d = depth_ - 1;

	while (d >= 2) {
		const Index parent = path_[d - 1], grand = path_[d - 2];
		const TreeNode p = get(parent), g = get(grand);

		if (!p.red)
			break;
		const bool left = g.left == parent;
		const Index uncle = left ? g.right : g.left;

		if (uncle != 0 && get(uncle).red) {
			set_red(parent, false);
			set_red(uncle, false);
			set_red(grand, true);
			d -= 2;
			continue;
		}
		if ((left ? p.right : p.left) == path_[d]) {
			rotate(grand, parent, left);
			path_[d - 1] = path_[d];
		}
		rotate(d >= 3 ? path_[d - 3] : 0, grand, !left);
		set_red(path_[d - 1], false);
		set_red(grand, true);
		break;
	}
	if (get(root_).red)
		set_red(root_, false);
}

void MonitorTree::unlink(gfn_t first)
{
	if (!locate(first)) {
		failed_ = true;
		return;
	}
	Index gone = path_[depth_ - 1];
	TreeNode g = get(gone);

	write_once(frames_, frames_ - g.count);
	if (g.left != 0 && g.right != 0) {
		/* The successor has no left child: move its range here, drop its node. */
		const Index keep = gone;
		TreeNode k = g;

		for (Index at = g.right; at != 0 && !failed_; at = g.left) {
			if (depth_ == max_depth) {
				failed_ = true;
				return;
			}
			gone = path_[depth_++] = at;
			g = get(at);
		}
		k.first = g.first;
		k.count = g.count;
		k.flags = g.flags;
		k.cls = g.cls;
		k.action = g.action;
		put(keep, k);
	}

	const Index child = g.left != 0 ? g.left : g.right;
	const Index parent = depth_ >= 2 ? path_[depth_ - 2] : 0;
	const bool left = parent != 0 && get(parent).left == gone;

	relink(parent, gone, child);
	free_node(gone);
	write_once(count_, count_ - 1);
	depth_--;
	if (g.red)
		return;
	if (child != 0)
		set_red(child, false); /* an only child is red */
	else
		fix_erase(left);
}

/* Below the last of path_, the left (or right) side lacks one black node. */
void MonitorTree::fix_erase(bool left)
{
	u32 d = depth_; /* path_[0..d-1] */

	while (d > 0 && !failed_) {
		const Index parent = path_[d - 1];
		TreeNode p = get(parent);
		Index sibling = left ? p.right : p.left;
		TreeNode s = get(sibling);

		if (s.red) {
			set_red(sibling, false);
			set_red(parent, true);
			rotate(d >= 2 ? path_[d - 2] : 0, parent, left);
			/* parent went one down; it is red now, so this ends here */
			path_[d - 1] = sibling;
			path_[d++] = parent;
			p = get(parent);
			sibling = left ? p.right : p.left;
			s = get(sibling);
		}

		const Index near = left ? s.left : s.right, far = left ? s.right : s.left;
		const bool near_red = near != 0 && get(near).red;
		const bool far_red = far != 0 && get(far).red;

		if (!near_red && !far_red) {
			set_red(sibling, true);
			if (p.red) {
				set_red(parent, false);
				return;
			}
			d--;
			left = d > 0 && get(path_[d - 1]).left == parent;
			continue;
		}
		if (!far_red) {
			rotate(parent, sibling, !left); /* the old one stays black */
			sibling = near;
		} else {
			set_red(far, false);
		}
		set_red(sibling, p.red);
		set_red(parent, false);
		rotate(d >= 2 ? path_[d - 2] : 0, parent, left);
		return;
	}
}

/* --- writers: ranges --- */

Status MonitorTree::writer_seek(gfn_t from, Range *out)
{
	if (from >= gfn_limit)
		return Status::None;

	const Status status = seek(from, out);

	if (status == Status::Corrupt)
		failed_ = true;
	return status;
}

/* Is gfn in a range with the rule of r? Then that range is *out. */
bool MonitorTree::same_rule_at(gfn_t gfn, const Range &r, Range *out)
{
	return writer_seek(gfn, out) == Status::Ok && out->first <= gfn && out->same_rule(r);
}

/* r overlaps nothing, and there is a node for it should it need one. */
void MonitorTree::add(const Range &r)
{
	Range low, high;
	const bool join_low = r.first != 0 && same_rule_at(r.first - 1, r, &low);
	const bool join_high = same_rule_at(r.last() + 1, r, &high);

	if (failed_)
		return;
	if (join_low && join_high) {
		unlink(high.first);
		resize(low, low.first, low.count + r.count + high.count);
	} else if (join_low) {
		resize(low, low.first, low.count + r.count);
	} else if (join_high) {
		resize(high, r.first, r.count + high.count);
	} else {
		link(r);
	}
}

/* Takes [first, last] out. If one range sticks out at both ends there is a node. */
void MonitorTree::cut(gfn_t first, gfn_t last)
{
	Range r;

	for (u32 left = count_; left > 0 && !failed_; left--) {
		if (writer_seek(first, &r) != Status::Ok || r.first > last)
			return;

		const gfn_t end = r.last();

		if (r.first < first) {
			resize(r, r.first, first - r.first);
			if (end > last)
				link({last + 1, end - last, r.cls, r.action, r.flags});
		} else if (end > last) {
			resize(r, last + 1, end - last);
		} else {
			unlink(r.first);
		}
		if (end >= last)
			return;
	}
}

/* What an operation on [first, last] would meet. */
struct MonitorTree::Survey {
	u32 met = 0;	    /* ranges that overlap */
	u32 covered = 0;    /* of them, those that would go altogether */
	bool split = false; /* the one range sticks out at both ends */
	bool done = false;  /* it covers all, under the wanted rule */
};

Status MonitorTree::survey(gfn_t first, gfn_t last, const Range *wanted, MayChange may, void *ctx,
			   Survey *out)
{
	Range r;

	for (gfn_t at = first; at <= last && out->met < count_;) {
		const Status status = writer_seek(at, &r);

		if (status == Status::Corrupt)
			return status;
		if (status != Status::Ok || r.first > last)
			break;
		if (may && !may(r, wanted, ctx))
			return Status::Refused;
		out->met++;
		out->covered += r.first >= first && r.last() <= last;
		out->split = r.first < first && r.last() > last;
		out->done = wanted && r.first <= first && r.last() >= last && r.same_rule(*wanted);
		at = r.last() + 1;
	}
	return Status::Ok;
}

Status MonitorTree::insert(const Range &r)
{
	if (!valid(r))
		return Status::Inval;
	if (poisoned())
		return Status::Corrupt;

	Survey s;
	Range ignored;

	failed_ = false;
	(void)survey(r.first, r.last(), nullptr, nullptr, nullptr, &s);
	const bool join = (r.first != 0 && same_rule_at(r.first - 1, r, &ignored)) ||
			  same_rule_at(r.last() + 1, r, &ignored);

	if (failed_)
		return corrupt();
	if (s.met != 0)
		return Status::Overlap;
	if (!join && free_ == 0)
		return Status::NoNodes;
	begin();
	add(r);
	return end();
}

Status MonitorTree::protect(const Range &r, MayChange may, void *ctx)
{
	if (!valid(r))
		return Status::Inval;
	if (poisoned())
		return Status::Corrupt;

	Survey s;
	Range ignored;

	failed_ = false;
	const Status status = survey(r.first, r.last(), &r, may, ctx, &s);
	const bool join = (r.first != 0 && same_rule_at(r.first - 1, r, &ignored)) ||
			  same_rule_at(r.last() + 1, r, &ignored);

	if (failed_)
		return corrupt();
	if (status != Status::Ok || s.done)
		return status;
	if (u64{free_} + s.covered < u64{s.split} + u64{!join})
		return Status::NoNodes;
	begin();
	cut(r.first, r.last());
	add(r);
	return end();
}

Status MonitorTree::remove(gfn_t first, u64 count, MayChange may, void *ctx)
{
	if (!valid_frames(first, count))
		return Status::Inval;
	if (poisoned())
		return Status::Corrupt;

	Survey s;

	failed_ = false;
	const Status status = survey(first, first + count - 1, nullptr, may, ctx, &s);

	if (failed_)
		return corrupt();
	if (status != Status::Ok)
		return status;
	if (s.met == 0)
		return Status::None;
	if (s.split && free_ == 0)
		return Status::NoNodes;
	begin();
	cut(first, first + count - 1);
	return end();
}

/* --- node pages come and go --- */

/* Lookups work without, so a lack of memory is no error. */
void MonitorTree::grow_memo()
{
	Index *&hints = page_end_ < memo_from ? small_ : large_;
	const usize bytes = sizeof(Index) * (page_end_ < memo_from ? memo_small : memo_large);

	if (hints)
		return;
	Index *fresh = static_cast<Index *>(rdt_port_alloc(bytes));

	if (!fresh)
		return;
	write_once(bytes_, bytes_ + bytes);
	store_release(hints, fresh); /* pairs with memo() */
}

Status MonitorTree::add_node_page(void *host_va, gfn_t gfn)
{
	if (!host_va || reinterpret_cast<usize>(host_va) % alignof(Words) != 0 || gfn >= gfn_limit)
		return Status::Inval;
	if (poisoned())
		return Status::Corrupt;
	if (is_node_page(gfn))
		return Status::Overlap;

	u32 page = 0;

	while (page < page_end_ && chunk_[page / chunk_pages]->base[page % chunk_pages])
		page++;
	if (page == max_pages)
		return Status::Refused;

	Chunk *&chunk = chunk_[page / chunk_pages];

	if (!chunk) {
		Chunk *fresh = static_cast<Chunk *>(rdt_port_alloc(sizeof(Chunk)));

		if (!fresh)
			return Status::NoMem;
		write_once(bytes_, bytes_ + sizeof(Chunk));
		store_release(chunk, fresh); /* pairs with slot() */
	}

	Tags *&tags = chunk->tags[page % chunk_pages];

	if (!tags) {
		Tags *fresh = static_cast<Tags *>(rdt_port_alloc(sizeof(Tags)));

		if (!fresh)
			return Status::NoMem;
		write_once(bytes_, bytes_ + sizeof(Tags));
		tags = fresh;
	}
	if (node_frames_.set_range(gfn, 1) != Status::Ok)
		return Status::NoMem;

	Words *base = static_cast<Words *>(host_va);
	const TreePageHeader header = {page_magic, page_version, slots_per_page, page, 0, gfn, 0};
	const Words head = __builtin_bit_cast(Words, header);

	for (unsigned i = 0; i < slots_per_page; i++)
		for (unsigned k = 0; k < 4; k++)
			write_once(base[i].w[k], i == 0 ? head.w[k] : 0);

	chunk->gfn[page % chunk_pages] = gfn;
	chunk->used[page % chunk_pages][0] = 1;
	for (unsigned k = 1; k < slots_per_page / 64; k++)
		chunk->used[page % chunk_pages][k] = 0;
	write_once(free_, free_ + nodes_per_page);
	page_end_ = max_of(page_end_, page + 1);
	page_hint_ = min_of(page_hint_, page);
	store_release(chunk->base[page % chunk_pages], base); /* pairs with slot() */
	grow_memo();
	return Status::Ok;
}

void MonitorTree::move_node(Index from)
{
	const TreeNode n = get(from);

	if (failed_ || !locate(n.first) || path_[depth_ - 1] != from) {
		failed_ = true;
		return;
	}
	const Index to = alloc_node();

	put(to, n);
	relink(depth_ >= 2 ? path_[depth_ - 2] : 0, from, to);
}

Status MonitorTree::remove_node_page(gfn_t gfn)
{
	if (poisoned())
		return Status::Corrupt;
	if (!is_node_page(gfn))
		return Status::None;

	u32 page = 0;

	while (chunk_[page / chunk_pages]->gfn[page % chunk_pages] != gfn ||
	       !chunk_[page / chunk_pages]->base[page % chunk_pages])
		page++;

	Chunk *chunk = chunk_[page / chunk_pages];
	u64 *used = chunk->used[page % chunk_pages];
	u64 live[slots_per_page / 64];
	u32 nodes = 0;

	for (unsigned k = 0; k < slots_per_page / 64; k++) {
		live[k] = k == 0 ? used[k] & ~1ull : used[k];
		nodes += popcount(live[k]);
	}
	const u32 elsewhere = free_ - (nodes_per_page - nodes);

	if (nodes > elsewhere)
		return Status::NoNodes;

	begin();
	for (unsigned k = 0; k < slots_per_page / 64; k++)
		used[k] = ~0ull; /* nothing is allocated here any more */
	write_once(free_, elsewhere);
	for (u32 i = 1; i < slots_per_page; i++) {
		if (live[i / 64] >> (i % 64) & 1)
			move_node(page << slot_bits | i);
		put_raw(page << slot_bits | i, {});
	}
	if (!failed_) {
		store_release(chunk->base[page % chunk_pages], static_cast<Words *>(nullptr));
		(void)node_frames_.clear_range(gfn, 1);
	}
	return end();
}

MonitorTree::~MonitorTree()
{
	rdt_port_free(small_);
	rdt_port_free(large_);
	for (Chunk *chunk : chunk_) {
		if (!chunk)
			continue;
		for (Tags *tags : chunk->tags)
			rdt_port_free(tags);
		rdt_port_free(chunk);
	}
}

/* --- the whole tree --- */

Status MonitorTree::corrupt()
{
	poison();
	return Status::Corrupt;
}

/*
 * In order, with the way from the root in path_. Each round of the outer loop
 * ends the descent at one empty link and then visits one node.
 */
Status MonitorTree::verify()
{
	if (poisoned())
		return Status::Corrupt;

	u8 blacks[max_depth]; /* black nodes down to and with path_[i] */
	u8 black = 0, leaf_black = 0;
	bool above_red = true; /* the root is black */
	u32 seen = 0, depth = 0;
	u64 frames = 0;
	Range before = {};
	Index at = root_;

	failed_ = false;
	for (bool first_leaf = true;; first_leaf = false) {
		while (at != 0) {
			const TreeNode n = get(at);

			if (failed_ || depth == max_depth || (n.red && above_red))
				return corrupt();
			black = static_cast<u8>(black + !n.red);
			path_[depth] = at;
			blacks[depth++] = black;
			above_red = n.red;
			at = n.left;
		}
		if (first_leaf)
			leaf_black = black;
		if (black != leaf_black)
			return corrupt();
		if (depth == 0)
			break;

		const TreeNode n = get(path_[--depth]);
		const Range r = range_of(n);

		if (failed_ || ++seen > count_)
			return corrupt();
		if (seen > 1 && (r.first <= before.last() ||
				 (r.first == before.last() + 1 && r.same_rule(before))))
			return corrupt();
		frames += r.count;
		before = r;
		black = blacks[depth];
		above_red = n.red;
		at = n.right;
	}

	u64 used = 0, slots = 0;

	for (u32 page = 0; page < page_end_; page++) {
		const Chunk *chunk = chunk_[page / chunk_pages];

		if (!chunk->base[page % chunk_pages])
			continue;
		slots += slots_per_page;
		for (const u64 bits : chunk->used[page % chunk_pages])
			used += popcount(bits);
	}
	if (seen != count_ || frames != frames_ || slots - used != free_ ||
	    used != seen + node_pages())
		return corrupt();
	return Status::Ok;
}

} // namespace redoubt
