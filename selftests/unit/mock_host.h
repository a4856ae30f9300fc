// SPDX-License-Identifier: GPL-2.0
/*
 * The core's host in user space: guest RAM, memslots, KVM's own structures, the policy
 * lock with its rules, and a record of what the core asked for. A broken rule of
 * port.h (a lock taken twice, a call without it, a pin given back twice) aborts.
 */
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <linux/redoubt.h>
#include <redoubt/port.h>
#include <redoubt/types.h>

namespace redoubt {

class MockHost : Pinned {
public:
	explicit MockHost(u64 frames);
	~MockHost();

	/* --- what the test arranges; not while other threads are in the core --- */

	struct Memslot {
		gfn_t first;
		u64 count;
	};
	std::vector<Memslot> memslots; /* at first all of RAM */
	struct Pv {
		gpa_t gpa;
		u64 len;
	};
	std::vector<Pv> pv; /* structures that KVM keeps */
	bool fail_pin = false;
	bool fail_hold = false;
	bool fail_read = false;
	bool fail_vector = false;
	/* Called in the middle of a policy change, the lock held. */
	std::function<void()> on_zap, on_holds_pv;

	u8 *page(gfn_t gfn)
	{
		return ram_ + (gfn << page_shift);
	}
	template <class T> T &at(gpa_t gpa)
	{
		return *reinterpret_cast<T *>(ram_ + gpa);
	}
	[[nodiscard]] u64 frames() const
	{
		return frames_;
	}
	/* From here on a touch of guest memory is a crash. */
	void unmap_ram();

	/* --- what the core did --- */

	struct Zap {
		gfn_t first;
		u64 count;
	};
	std::vector<Zap> take_zaps();
	std::vector<rdt_event> take_events();
	std::vector<std::string> take_log();
	[[nodiscard]] u64 pins() const
	{
		return pins_.size();
	}
	/* Private pages, hashes and rooms for vector state that the core has. */
	[[nodiscard]] u64 pages() const
	{
		return pages_.size();
	}
	[[nodiscard]] bool is_private(const void *page) const
	{
		return pages_.count(page) != 0;
	}
	struct Room {
		u64 caller = 0, inside = 0; /* all of a vector state that matters here */
	};
	[[nodiscard]] u64 rooms() const
	{
		return rooms_;
	}
	/*
	 * Nested page tables: what a vCPU that touched a frame in a view has from then on,
	 * until a zap. A private page that somebody still has must not be given back.
	 */
	std::map<std::pair<u8, gfn_t>, const void *> spt;
	[[nodiscard]] u64 holds() const
	{
		return holds_;
	}
	[[nodiscard]] bool locked_by_me() const
	{
		return owner_.load() == std::this_thread::get_id();
	}
	/* Was the policy lock ever taken since the last call? */
	bool take_locked()
	{
		return was_locked_.exchange(false);
	}

	/* --- the port; see port.h --- */

	void lock();
	void unlock();
	bool is_ram(gfn_t gfn, u64 count);
	bool holds_pv(gfn_t gfn, u64 count);
	void zap(gfn_t gfn, u64 count);
	void *pin(gfn_t gfn, void **pin);
	void *pinned(void *pin);
	void unpin(void *pin);
	void *page_alloc();
	void page_free(void *page);
	void *vector_alloc();
	void vector_free(void *room);
	void *hold(gfn_t gfn, void **cookie);
	void release(void *cookie);
	bool read(gpa_t gpa, void *to, u32 len);
	void event(const rdt_event &ev);
	void log(const char *what);

private:
	void need_lock(const char *who) const;
	[[nodiscard]] bool visible(gfn_t gfn, u64 count) const;

	u64 frames_;
	u8 *ram_;
	std::mutex policy_;
	std::atomic<std::thread::id> owner_{};
	std::atomic<bool> was_locked_{false};
	std::map<void *, gfn_t> pins_;
	std::set<const void *> pages_;
	u64 rooms_ = 0;
	std::atomic<u64> holds_{0};
	std::mutex record_; /* the rest */
	std::vector<Zap> zaps_;
	std::vector<rdt_event> events_;
	std::vector<std::string> log_;
	u64 seq_ = 0;
};

/* The cookie of a vCPU: its page tables, page by page. */
struct MockHv {
	std::map<u64, gpa_t> pages;
	u64 vector = 0; /* live vector state */
	u64 segments = 0; /* and segments */

	void map(u64 gva, gpa_t gpa)
	{
		pages[gva >> page_shift] = gpa & ~(page_size - 1);
	}
};

/* Are there pages that can be executed and not read? At first: yes. */
extern bool mock_execute_only;
/* What the cipher answers instead of doing its work; 0: it does. */
extern int mock_cipher_error;

/* Hashes begun and not ended. */
long mock_hashes();

/* The next numbers that rdt_port_random() gives; after them, pseudo-random ones. */
void mock_random(std::vector<u64> next);

} // namespace redoubt
