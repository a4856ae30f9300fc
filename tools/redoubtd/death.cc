// SPDX-License-Identifier: GPL-2.0
//
// While QEMU lives: refreshes, and looks at the rings.

#include "death.h"

#include <algorithm>
#include <cerrno>

#include <sys/mman.h>

#include "death_state.h"
#include "log.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;

namespace {

// How often QEMU is asked which rings there are
constexpr milliseconds look_every{1'000};
// Between looks at the rings: by how much they move.
constexpr milliseconds sample_least{1}, sample_most{50};
constexpr char not_taken[] = "its device state has not been taken yet";

// Devices whose requests can be found again in their rings. Others are refused by name.
struct Kind {
	const char *name;
	bool in_order;		// completes as it takes
	size_t max_queues;	// that are set up
};
constexpr Kind kinds[] = {
	{"virtio-blk", false, 1024}, {"virtio-net", true, 1024}, {"virtio-console", true, 64}, {"virtio-serial", true, 64}, {"virtio-rng", true, 1},
};

const Kind *kind_of(const std::string &section)
{
	const size_t slash = section.find('/');
	const std::string name = slash == std::string::npos ? section : section.substr(slash + 1);
	const auto found = std::find_if(std::begin(kinds), std::end(kinds), [&name](const Kind &k) { return name == k.name; });

	return found == std::end(kinds) ? nullptr : found;
}

} // namespace

// Of the RAM file, writable: a device that died leaves a ring to be put right.
struct DeathWatch::Map {
	Map(void *where, size_t size) : at(where), bytes(size) {}
	~Map() { munmap(at, bytes); }
	Map(const Map &) = delete;

	void *at;
	size_t bytes;
};

DeathWatch::DeathWatch(Loop &loop, const Config &config, const VmConfig &vm, Vmm &vmm, std::function<bool()> may_run, std::function<void()> changed)
	: loop_(loop), config_(config), vm_(vm), vmm_(vmm), may_run_(std::move(may_run)), changed_(std::move(changed))
{
	why_ = not_taken;
}

DeathWatch::~DeathWatch()
{
	loop_.cancel(sampler_);
}

void DeathWatch::say_once(const std::string &text)
{
	if (said_ != text)
		say(vm_.name, text);
	said_ = text;
}

void DeathWatch::tick(const Hold &hold, const RamFile &ram)
{
	const auto now = Loop::Clock::now();

	if (!config_.refresh.count())
		return;
	hold_ = &hold;
	ram_ = &ram;
	if (busy_ || looking_ || now - looked_ < look_every)
		return;
	looked_ = now;
	look();
}

void DeathWatch::end()
{
	loop_.cancel(sampler_);
	armed_ = false;
	wanted_ = true;
	why_ = not_taken;
	queues_.clear();
	messages_.clear();
	maps_.clear();
	state_.clear();
	seen_.clear();
	hold_ = nullptr;
	ram_ = nullptr;
}

// ---- a refresh ---------------------------------------------------------------------

void DeathWatch::refresh()
{
	busy_ = true;
	pid_ = vmm_.pid();
	wanted_ = false;
	tried_ = Loop::Clock::now();
	check_vm(vmm_.qmp(), vmm_.pid(), vm_, [this, print = seen_](const std::string &error, const std::vector<Obstacle> &all) {
		if (!error.empty())
			return refresh_end(error);
		if (!all.empty())
			return refresh_end(all.front().what + ": " + all.front().why);
		if (print.find(" vhost") != std::string::npos)
			return refresh_end("vhost: the rings are the kernel's, not tried yet");
		if (!hold_ || vmm_.state() != VmmState::running || !idle_.empty())
			return refresh_end("something else is done with the VM");
		find_disks([this, print] {
			if (!hold_ || vmm_.state() != VmmState::running)
				return refresh_end("something else is done with the VM");
			refresh_stopped(print);
		});
	});
}

// Stopped first: QEMU writes into the stream whether the VM is to run on, and it must not by itself.
void DeathWatch::refresh_stopped(const std::string &print)
{
	stopped_ = Loop::Clock::now();
	vmm_.stop([this, print](const std::string &error) {
		if (!error.empty() || vmm_.state() == VmmState::gone)
			return refresh_resume(error.empty() ? "QEMU has ended" : error);
		vmm_.save(next_, [this, print](const std::string &save_error) {
			if (!save_error.empty() || vmm_.state() == VmmState::gone)
				return refresh_resume(save_error.empty() ? "QEMU has ended" : save_error);
			try {
				print_ = print;
				refresh_saved();
				refresh_resume("");
			} catch (const Error &e) {
				refresh_resume(e.what());
			}
		}, config_.prepare_limit);
	});
}

// It stands, and what it has taken from its rings it has given back.
void DeathWatch::refresh_saved()
{
	armed_ = false;
	loop_.cancel(sampler_);
	sampler_ = 0;
	queues_.clear();
	messages_.clear();
	maps_.clear();
	if (!ram_ || !hold_)
		throw Error("something else is done with the VM");
	if (msrs_.empty())
		msrs_ = kvm_msrs();
	slots_ = Held(hold_->id()).slots();
	mappings_ = find_mappings(vmm_.pid(), *ram_);
	state_.swap(next_);
	next_.clear();
	taken_ = std::make_unique<Taken>(QStream(state_), ask_kvm(*hold_, msrs_));
	find_queues(taken_->stream);
	begin_live();
	armed_ = true;
	refreshed_ = Loop::Clock::now();
}

void DeathWatch::find_queues(QStream &stream)
{
	for (QSection &section : stream.sections()) {
		if (section.has("virtio"))
			add_queues(section.name, VirtioBlob(section.raw("virtio"), section.name));
	}
}

void DeathWatch::add_queues(const std::string &section, const VirtioBlob &blob)
{
	const Kind *kind = kind_of(section);
	size_t set_up = 0;

	if (!kind)
		throw Error(section + ": requests of a dead VMM are not rebuilt for this kind of device");
	if (!blob.driver_ok())
		return;
	if (blob.packed())
		throw Error(section + ": has packed rings: packed=off");
	if (!blob.msix_enabled())
		throw Error(section + ": interrupts by a line, not by MSI-X, are not carried");
	messages_.push_back({section, blob.msix_address(), {blob.msix_table().begin(), blob.msix_table().end()}});
	for (unsigned i = 0; i < blob.queues().size(); i++) {
		const VirtioBlob::Queue &q = blob.queues()[i];

		if (!q.desc)
			continue;
		if (++set_up > kind->max_queues)
			throw Error(section + ": more queues than have been tried");
		if (q.num & (q.num - 1) || q.num > sb::max_ring)
			throw Error(section + ": a ring of " + std::to_string(q.num) + " entries");
		Queue queue{.section = section, .index = i, .ring = {}, .watch = nullptr};
		queue.ring = {.avail = map_guest(q.avail, sb::Ring::avail_bytes(q.num)), .used = map_guest(q.used, sb::Ring::used_bytes(q.num)), .num = q.num};
		queue.avail = place_of(q.avail, sb::Ring::avail_bytes(q.num));
		queue.used = place_of(q.used, sb::Ring::used_bytes(q.num));
		if (queue.ring.used_idx() != q.last_avail)
			throw Error(section + ": holds back a request of queue " + std::to_string(i));
		if (!kind->in_order) {
			queue.watch = std::make_unique<sb::RingWatch>();
			if (!queue.watch->begin(queue.ring, q.last_avail))
				throw Error(section + ": the ring of queue " + std::to_string(i) + " is no ring");
		}
		queues_.push_back(std::move(queue));
	}
}

// Guest-physical to bytes of the RAM file. A ring is contiguous for the guest; here it must be, too.
uint64_t DeathWatch::place_of(uint64_t address, uint64_t bytes) const
{
	const uint64_t gfn = address / page_bytes, last = (address + bytes - 1) / page_bytes;

	for (const rdt_sb_slot &slot : slots_) {
		if (gfn < slot.gfn || last - slot.gfn >= slot.frames || last < gfn)
			continue;
		const uint64_t hva = slot.hva / page_bytes + gfn - slot.gfn;
		for (const Mapping &m : mappings_) {
			if (hva >= m.hva && hva + (last - gfn) - m.hva < m.frames)
				return (m.page + hva - m.hva) * page_bytes + address % page_bytes;
		}
	}
	throw Error("a ring is not in the VM's memory");
}

uint8_t *DeathWatch::map_guest(uint64_t address, uint64_t bytes)
{
	const uint64_t place = place_of(address, bytes), in = place % page_bytes;
	void *const at = mmap(nullptr, in + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ram_->fd(), static_cast<off_t>(place - in));

	if (at == MAP_FAILED)
		throw Error("map a ring", errno);
	maps_.push_back(std::make_unique<Map>(at, in + bytes));
	return static_cast<uint8_t *>(at) + in;
}

// It goes on, whatever became of the state.
void DeathWatch::refresh_resume(const std::string &error)
{
	// With an error the stop may still come; cont is behind it in QEMU's queue.
	if (vmm_.state() == VmmState::gone || vmm_.pid() != pid_ || (vmm_.state() == VmmState::running && error.empty()) || !may_run_())
		return refresh_end(error);
	vmm_.resume([this, error](const std::string &resume_error) {
		pause_ = std::chrono::duration_cast<milliseconds>(Loop::Clock::now() - stopped_);
		if (resume_error.empty() || vmm_.state() == VmmState::gone)
			return refresh_end(error);
		say_once("the VM does not go on yet behind a refresh: " + resume_error);
		(void)loop_.after(milliseconds(200), [this, error, alive = std::weak_ptr<bool>(life_)] {
			if (alive.lock())
				refresh_resume(error);
		});
	});
}

void DeathWatch::refresh_end(const std::string &error)
{
	busy_ = false;
	if (error.empty() && taken_ && vmm_.state() != VmmState::gone) {
		try {
			rehearse();
		} catch (const Error &e) {
			taken_.reset();
			return refresh_end(e.what());
		}
	}
	taken_.reset();
	if (vmm_.state() == VmmState::gone || !vmm_.qmp().is_ready()) {
		// It is dead, or about to be found so. What there was before this refresh is good: since then it stood.
	} else if (error.empty()) {
		refreshed_ = Loop::Clock::now();
		refreshes_++;
		why_.clear();
		say_once("if QEMU is killed the VM can go on");
		sample_every_ = milliseconds(5);
		live_ = std::move(next_live_);
		sample();
		changed_();
	} else {
		armed_ = false;
		why_ = error;
		say_once("if QEMU is killed the VM is lost: " + error);
		changed_();
	}
	const auto idle = std::move(idle_);
	idle_.clear();
	for (const auto &call : idle)
		call();
}

// ---- the rings ---------------------------------------------------------------------

// Often enough that no ring goes round between two looks: less than an eighth, or more often.
void DeathWatch::sample()
{
	bool fast = false, slow = true, any = false;

	sampler_ = 0;
	if (!armed_)
		return;
	for (Queue &q : queues_) {
		if (!q.watch)
			continue;
		any = true;
		const sb::Looked looked = q.watch->look(q.ring);
		fast |= q.watch->came() > q.ring.num / 8;
		slow &= q.watch->came() <= q.ring.num / 64;
		lost_ += looked == sb::Looked::Lost;
		if (looked == sb::Looked::Garbage)
			wanted_ = true;		// other rings, or a driver that does what it must not
		// A disk that is never idle: standing still for a moment makes it.
		if (!q.watch->known())
			wanted_ = true;
	}
	if (live_)
		publish(*live_);
	sample_every_ = fast ? std::max(sample_least, sample_every_ / 2) : slow ? std::min(sample_most, sample_every_ * 2) : sample_every_;
	if (any)
		sampler_ = loop_.after(sample_every_, [this] { sample(); });
}

std::string DeathWatch::obstacle() const
{
	if (!config_.refresh.count())
		return "refresh-minutes is 0";
	if (!armed_)
		return why_.empty() ? not_taken : why_;
	for (const Queue &q : queues_) {
		if (q.watch && !q.watch->known())
			return q.section + ": more requests came than its ring remembers, just now";
	}
	return "";
}

Json DeathWatch::status() const
{
	const std::string why = obstacle();
	Json out{{"ready", why.empty()}, {"refreshes", refreshes_}, {"lost_looks", lost_}, {"sample_ms", sample_every_.count()}};

	if (!why.empty())
		out["why_not"] = why;
	if (refreshes_) {
		out["stood_ms"] = pause_.count();
		out["differs"] = differs_;
		out["age_seconds"] = std::chrono::duration_cast<std::chrono::seconds>(Loop::Clock::now() - refreshed_).count();
	}
	return out;
}

} // namespace redoubt::agent
