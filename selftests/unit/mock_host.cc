// SPDX-License-Identifier: GPL-2.0
#include "mock_host.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include <openssl/evp.h>
#include <sys/mman.h>

#include "support.h"

namespace redoubt {

namespace {

[[noreturn]] void broken(const char *who, const char *what)
{
	std::fprintf(stderr, "mock host: %s: %s\n", who, what);
	std::abort();
}

std::mutex random_lock;
std::mt19937_64 random_source{1};
std::vector<u64> random_next;

} // namespace

void mock_random(std::vector<u64> next)
{
	std::lock_guard<std::mutex> guard(random_lock);

	random_next.assign(next.rbegin(), next.rend());
}

MockHost::MockHost(u64 frames) : frames_(frames)
{
	void *p = mmap(nullptr, frames << page_shift, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		broken("RAM", "no memory");
	ram_ = static_cast<u8 *>(p);
	memslots = {{0, frames}};
}

MockHost::~MockHost()
{
	if (owner_.load() != std::thread::id())
		broken("end", "the policy lock is held");
	if (!pins_.empty())
		broken("end", "guest pages are pinned");
	if (!pages_.empty() || rooms_)
		broken("end", "private pages are left");
	munmap(ram_, frames_ << page_shift);
}

void MockHost::unmap_ram()
{
	mprotect(ram_, frames_ << page_shift, PROT_NONE);
}

std::vector<MockHost::Zap> MockHost::take_zaps()
{
	std::lock_guard<std::mutex> guard(record_);

	return std::exchange(zaps_, {});
}

std::vector<rdt_event> MockHost::take_events()
{
	std::lock_guard<std::mutex> guard(record_);

	return std::exchange(events_, {});
}

std::vector<std::string> MockHost::take_log()
{
	std::lock_guard<std::mutex> guard(record_);

	return std::exchange(log_, {});
}

void MockHost::lock()
{
	if (locked_by_me())
		broken("lock", "taken twice");
	policy_.lock();
	owner_ = std::this_thread::get_id();
	was_locked_ = true;
}

void MockHost::unlock()
{
	need_lock("unlock");
	owner_ = std::thread::id();
	policy_.unlock();
}

void MockHost::need_lock(const char *who) const
{
	if (!locked_by_me())
		broken(who, "without the policy lock");
}

bool MockHost::visible(gfn_t gfn, u64 count) const
{
	while (count != 0) {
		u64 step = 0;

		for (const Memslot &s : memslots)
			if (gfn >= s.first && gfn - s.first < s.count)
				step = s.first + s.count - gfn;
		if (step == 0)
			return false;
		step = min_of(step, count);
		gfn += step;
		count -= step;
	}
	return true;
}

bool MockHost::is_ram(gfn_t gfn, u64 count)
{
	need_lock("is_ram");
	if (!valid_frames(gfn, count))
		broken("is_ram", "frames out of range");
	return visible(gfn, count);
}

bool MockHost::holds_pv(gfn_t gfn, u64 count)
{
	need_lock("holds_pv");
	if (on_holds_pv)
		on_holds_pv();
	for (const Pv &p : pv)
		if (p.gpa >> page_shift < gfn + count && (p.gpa + p.len - 1) >> page_shift >= gfn)
			return true;
	return false;
}

void MockHost::zap(gfn_t gfn, u64 count)
{
	need_lock("zap");
	if (!valid_frames(gfn, count))
		broken("zap", "frames out of range");
	if (on_zap)
		on_zap();

	std::lock_guard<std::mutex> guard(record_);

	std::erase_if(spt, [&](const auto &e) { return e.first.second - gfn < count; });
	zaps_.push_back({gfn, count});
}

void *MockHost::pin(gfn_t gfn, void **pin)
{
	need_lock("pin");
	if (fail_pin || gfn >= frames_ || !visible(gfn, 1))
		return nullptr;
	*pin = std::malloc(1);
	pins_[*pin] = gfn;
	return page(gfn);
}

void MockHost::unpin(void *pin)
{
	if (pins_.erase(pin) != 1)
		broken("unpin", "not pinned");
	std::free(pin);
}

void *MockHost::pinned(void *pin)
{
	auto it = pins_.find(pin);

	if (it == pins_.end())
		broken("pinned", "not pinned");
	return page(it->second);
}

void *MockHost::page_alloc()
{
	need_lock("page_alloc");

	void *p = test_page_alloc();

	if (p)
		pages_.insert(p);
	return p;
}

void MockHost::page_free(void *p)
{
	if (pages_.erase(p) != 1)
		broken("page_free", "not a page");
	for (const auto &[where, page] : spt)
		if (page == p)
			broken("page_free", "a vCPU can still reach the page");
	for (u64 i = 0; i < page_size; i++)
		if (static_cast<u8 *>(p)[i])
			broken("page_free", "the page is not overwritten");
	test_page_free(p);
}

void *MockHost::vector_alloc()
{
	need_lock("vector_alloc");
	if (fail_vector)
		return nullptr;
	rooms_++;
	return new Room;
}

void MockHost::vector_free(void *room)
{
	rooms_--;
	delete static_cast<Room *>(room);
}

bool MockHost::read(gpa_t gpa, void *to, u32 len)
{
	if (fail_read || len == 0 || gpa >> 52)
		return false;

	gfn_t first = gpa >> page_shift, last = (gpa + len - 1) >> page_shift;

	/* Memslots above have numbers only, no memory. */
	if (last >= frames_ || !visible(first, last - first + 1))
		return false;
	std::memcpy(to, ram_ + gpa, len);
	return true;
}

void MockHost::event(const rdt_event &ev)
{
	std::lock_guard<std::mutex> guard(record_);

	if (ev.seq || ev.time_ns || ev.vm_id)
		broken("event", "the core filled in what is the host's");
	for (u32 r : ev.reserved)
		if (r)
			broken("event", "reserved fields");
	events_.push_back(ev);
	events_.back().seq = ++seq_;
}

void *MockHost::hold(gfn_t gfn, void **cookie)
{
	if (fail_hold || gfn >= frames_ || !visible(gfn, 1))
		return nullptr;
	holds_++;
	return *cookie = page(gfn);
}

void MockHost::release(void *)
{
	if (holds_-- == 0)
		std::abort();
}

void MockHost::log(const char *what)
{
	std::lock_guard<std::mutex> guard(record_);

	log_.emplace_back(what);
}

} // namespace redoubt

using redoubt::MockHost;
using redoubt::MockHv;

static MockHost &of(void *host)
{
	return *static_cast<MockHost *>(host);
}

void rdt_port_lock(void *host)
{
	of(host).lock();
}

void rdt_port_unlock(void *host)
{
	of(host).unlock();
}

int rdt_port_is_ram(void *host, rdt_u64 gfn, rdt_u64 count)
{
	return of(host).is_ram(gfn, count);
}

int rdt_port_holds_pv(void *host, rdt_u64 gfn, rdt_u64 count)
{
	return of(host).holds_pv(gfn, count);
}

void rdt_port_zap(void *host, rdt_u64 gfn, rdt_u64 count)
{
	of(host).zap(gfn, count);
}

void *rdt_port_pin(void *host, rdt_u64 gfn, void **pin)
{
	return of(host).pin(gfn, pin);
}

void *rdt_port_pinned(void *host, void *pin)
{
	return of(host).pinned(pin);
}

void *rdt_port_page_alloc(void *host)
{
	return of(host).page_alloc();
}

void rdt_port_page_free(void *host, void *page)
{
	of(host).page_free(page);
}

bool redoubt::mock_execute_only = true;

int rdt_port_execute_only(void)
{
	return redoubt::mock_execute_only;
}

void *rdt_port_vector_alloc(void *host)
{
	return of(host).vector_alloc();
}

void rdt_port_vector_free(void *host, void *room)
{
	of(host).vector_free(room);
}

static void swap(redoubt::u64 &live, MockHost::Room &r, rdt_vector op)
{
	const redoubt::u64 initial = 0;

	switch (op) {
	case RDT_VEC_ENTER:
		r.caller = live;
		live = initial;
		break;
	case RDT_VEC_LEAVE:
		live = r.caller;
		break;
	case RDT_VEC_AEX:
		r.inside = live;
		live = r.caller;
		break;
	case RDT_VEC_RESUME:
		r.caller = live;
		live = r.inside;
		break;
	}
}

void rdt_port_vector(void *hv, void *room, rdt_vector op)
{
	swap(static_cast<MockHv *>(hv)->vector, *static_cast<MockHost::Room *>(room), op);
}

void *rdt_port_segments_alloc(void *host)
{
	return of(host).vector_alloc();
}

void rdt_port_segments_free(void *host, void *room)
{
	of(host).vector_free(room);
}

void rdt_port_segments(void *hv, void *room, rdt_vector op)
{
	swap(static_cast<MockHv *>(hv)->segments, *static_cast<MockHost::Room *>(room), op);
}

static std::atomic<long> hashes;

long redoubt::mock_hashes()
{
	return hashes;
}

void *rdt_port_sha256_begin()
{
	/* Fails when memory does. */
	void *probe = rdt_port_alloc(1);

	if (!probe)
		return nullptr;
	rdt_port_free(probe);

	EVP_MD_CTX *sha = EVP_MD_CTX_new();

	EVP_DigestInit_ex(sha, EVP_sha256(), nullptr);
	hashes++;
	return sha;
}

void rdt_port_sha256_update(void *sha, const void *data, unsigned long len)
{
	EVP_DigestUpdate(static_cast<EVP_MD_CTX *>(sha), data, len);
}

void rdt_port_sha256_end(void *sha, rdt_u8 out[32])
{
	auto *ctx = static_cast<EVP_MD_CTX *>(sha);

	if (out)
		EVP_DigestFinal_ex(ctx, out, nullptr);
	EVP_MD_CTX_free(ctx);
	hashes--;
}

int redoubt::mock_cipher_error;

/* AES-256-GCM; an error leaves the text in the clear, as the worst of ciphers might. */
static int gcm(bool seal, const rdt_u8 *key, const rdt_u8 *nonce, void *blob, rdt_u64 aad, rdt_u64 len)
{
	auto *at = static_cast<unsigned char *>(blob), *text = at + aad, *tag = text + len;
	const int bytes = static_cast<int>(len);
	EVP_CIPHER_CTX *ctx;
	int out, right;

	if (redoubt::mock_cipher_error)
		return redoubt::mock_cipher_error;
	ctx = EVP_CIPHER_CTX_new();
	EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), nullptr, key, nonce, seal);
	EVP_CipherUpdate(ctx, nullptr, &out, at, static_cast<int>(aad));
	EVP_CipherUpdate(ctx, text, &out, text, bytes);
	if (!seal)
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, RDT_DOM_BLOB_TAG, tag);
	right = EVP_CipherFinal_ex(ctx, tag, &out);
	if (seal)
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, RDT_DOM_BLOB_TAG, tag);
	EVP_CIPHER_CTX_free(ctx);
	return right == 1 ? 0 : -EBADMSG;
}

int rdt_port_seal(const rdt_u8 *key, const rdt_u8 *nonce, void *blob, rdt_u64 aad, rdt_u64 len)
{
	return gcm(true, key, nonce, blob, aad, len);
}

int rdt_port_unseal(const rdt_u8 *key, const rdt_u8 *nonce, void *blob, rdt_u64 aad, rdt_u64 len)
{
	return gcm(false, key, nonce, blob, aad, len);
}

void rdt_port_unpin(void *host, void *pin)
{
	of(host).unpin(pin);
}

void *rdt_port_hold(void *host, rdt_u64 gfn, void **cookie)
{
	return of(host).hold(gfn, cookie);
}

void rdt_port_release(void *host, void *cookie)
{
	of(host).release(cookie);
}

int rdt_port_read(void *host, rdt_u64 gpa, void *to, rdt_u32 len)
{
	return of(host).read(gpa, to, len) ? 0 : -1;
}

int rdt_port_peek(void *host, rdt_u64 gpa, void *to, rdt_u32 len)
{
	return rdt_port_read(host, gpa, to, len);
}

rdt_u64 rdt_port_gva_to_gpa(void *hv, rdt_u64 gva)
{
	const auto &pages = static_cast<MockHv *>(hv)->pages;
	auto it = pages.find(gva >> redoubt::page_shift);

	return it == pages.end() ? ~0ul : it->second | (gva & (redoubt::page_size - 1));
}

rdt_u64 rdt_port_random()
{
	std::lock_guard<std::mutex> guard(redoubt::random_lock);

	if (redoubt::random_next.empty())
		return redoubt::random_source();

	rdt_u64 r = redoubt::random_next.back();

	redoubt::random_next.pop_back();
	return r;
}

void rdt_port_event(void *host, rdt_event *ev)
{
	of(host).event(*ev);
}

void rdt_port_log(void *host, const char *what, rdt_u64, rdt_u64)
{
	of(host).log(what);
}
