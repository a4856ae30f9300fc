// SPDX-License-Identifier: GPL-2.0

#include "bounded.h"

#include <algorithm>

namespace redoubt::agent {

namespace {

constexpr milliseconds tick_every{50}, ask_again{2'000}, scan_at_most{100};
constexpr uint64_t batch_frames = 1024;		// 4 MB
constexpr size_t max_batches = 4, max_others = 8;
// Less says nothing about the link.
constexpr uint64_t rate_bytes = 64 * 1024;

uint64_t us_since(Loop::Clock::time_point then)
{
	return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(Loop::Clock::now() - then).count());
}

} // namespace

Bounded::Bounded(Loop &loop, Sender &sender, uint64_t frames, std::unique_ptr<DirtyTracker> tracker, std::unique_ptr<Limiter> limiter,
		 Budget &budget, Handlers handlers)
	: loop_(loop), sender_(sender), frames_(frames), tracker_(std::move(tracker)), limiter_(std::move(limiter)), budget_(budget),
	  handlers_(std::move(handlers)), todo_(frames), look_(frames), found_(frames)
{
}

Bounded::~Bounded()
{
	loop_.cancel(tick_);
}

void Bounded::failed(const std::string &why)
{
	if (why != trouble_)
		handlers_.log(why);
	trouble_ = why;
}

void Bounded::begin(uint64_t epoch)
{
	ready_ = false;
	asked_ = Loop::Clock::now();
	if (epoch != epoch_ || sender_.live_epoch() != epoch) {
		epoch_ = epoch;
		sender_.live(epoch);
		pending_ = 0;
		batches_.clear();
		others_.clear();
		look_.clear();
		found_.clear();
		todo_.fill();
		scanning_ = synced_ = false;
		first_ = true;
		try {
			if (limiter_)
				counted_ = limiter_->limit(nullptr).faults;
			tracker_->arm();
			// What it tells is in todo_: all is.
			tracker_->rewind();
			for (uint64_t found = 0; !tracker_->scan(todo_, found);)
				;
			base_ = tracker_->faults();
		} catch (const Error &error) {
			failed(error.what());
		}
		last_scan_ = Loop::Clock::now();
	}
	loop_.cancel(tick_);
	tick_ = loop_.after(tick_every, [this] { tick(); });
}

void Bounded::lacks(std::span<const sb::Run> runs, bool more)
{
	sb::Run rest{0, more ? frames_ : 0};

	ready_ = true;
	for (const sb::Run &run : runs) {
		if (run.first >= frames_ || run.count > frames_ - run.first)
			return failed("the standby lacks frames that the VM does not have");
		sender_.forget({&run, 1});
		todo_.add(run);
		rest.first = run.first + run.count;
	}
	rest.count -= more ? rest.first : 0;
	sender_.forget({&rest, 1});
	todo_.add(rest);
	trouble_.clear();
	next();
}

void Bounded::link_down()
{
	for (const sb::Run &run : sender_.lost())
		todo_.add(run);
	if (sender_.copying()) {
		// What of the batch has not been read is not known.
		sender_.cancel();
		todo_.fill();
	}
	pending_ = 0;
	batches_.clear();
	ready_ = synced_ = false;
	brake();
}

void Bounded::end()
{
	if (!active())
		return;
	loop_.cancel(tick_);
	epoch_ = 0;
	scanning_ = ready_ = synced_ = false;
	brake();
}

// The host's budget is divided anew when a VM comes, or the battery says something else. What is dirty by then is no
// writer's fault; the ramp holds them all until it is less.
void Bounded::set_limit(uint64_t bytes)
{
	if (bytes < limit_ && synced_ && dirty() + unseen() > bytes)
		lowered_ = true;
	limit_ = bytes;
}

// ---- rounds ---------------------------------------------------------------------

void Bounded::tick()
{
	tick_ = loop_.after(tick_every, [this] { tick(); });
	if (!ready_ && Loop::Clock::now() - asked_ > ask_again) {
		asked_ = Loop::Clock::now();
		handlers_.begin();
	}
	// A link that is slower than the writers is no reason to look later: only what is found is slowed right.
	const milliseconds since = std::chrono::duration_cast<milliseconds>(Loop::Clock::now() - last_scan_);
	const bool early = limit_ && limiter_ && unseen() > limit_ / 8 && since >= scan_at_most;
	if (ready_ && !scanning_ && (since >= interval_ || early) && (!first_ || !todo_.count()))
		scan();
	brake();
	next();
}

void Bounded::scan()
{
	last_scan_ = Loop::Clock::now();
	scanning_ = true;
	finding_ = 0;
	// Looked at once more: what was DMA's target at the scan before was written behind it.
	look_.add(found_);
	found_.clear();
	scan_on();
}

// A part of it; the rest when others had their turn.
void Bounded::scan_on()
{
	const uint64_t before = base_;

	if (!scanning_)
		return;
	try {
		if (!tracker_->scan(found_, finding_)) {
			loop_.soon([this, gone = std::weak_ptr<bool>(life_)] {
				if (gone.lock())
					scan_on();
			});
			return;
		}
		base_ = tracker_->faults();
	} catch (const Error &error) {
		todo_.fill();
		failed(std::string("the VM's writes are not known, all is copied anew: ") + error.what());
	}
	scanned(base_ - before);
	next();
}

void Bounded::scanned(uint64_t faults)
{
	scanning_ = false;
	found_last_ = finding_;
	todo_.add(found_);
	look_.remove(found_);
	scan_us_ = us_since(last_scan_);
	scan_most_us_ = std::max(scan_most_us_, scan_us_);
	scans_++;
	others_.push_back(found_last_ > faults ? found_last_ - faults : 0);
	if (others_.size() > max_others)
		others_.pop_front();
	if (first_)
		handlers_.log("all of the VM's memory is at the standby; " + std::to_string(todo_.count()) + " frames were written since");
	first_ = false;
	if (!limiter_ || !limit_) {
		interval_ = unbounded_interval;
		return;
	}
	if (synced_) {
		lowered_ &= dirty() > limit_;
		most_ = std::max(most_, dirty());
		over_ += !lowered_ && dirty() > limit_;
	}
	if (!synced_ && dirty() < limit_ / 2) {
		synced_ = true;
		handlers_.log("what the standby lacks is bounded: " + std::to_string(dirty()) + " of " + std::to_string(limit_) + " bytes");
	}
	interval_ = milliseconds(sb::next_interval_ms(static_cast<uint64_t>(interval_.count()), dirty(), limit_));
}

// What was written first, then what is only looked at.
void Bounded::next()
{
	if (!active() || !ready_ || sender_.copying() || sender_.busy() || batches_.size() >= max_batches)
		return;
	looking_ = !todo_.count();
	const std::vector<sb::Run> runs = looking_ ? look_.take(look_at_, batch_frames) : todo_.take(at_, batch_frames);
	if (runs.empty())
		return;
	batch_ = 0;
	for (const sb::Run &run : runs)
		batch_ += run.count;
	if (looking_)
		batch_ = 0;
	pending_ += batch_;
	batch_raw_ = sender_.copied().raw;
	batch_same_ = sender_.copied().data + sender_.copied().zero;
	batch_began_ = Loop::Clock::now();
	sender_.copy(runs);
}

void Bounded::copy_failed(const std::string &why)
{
	pending_ = 0;
	batches_.clear();
	todo_.fill();
	failed(why);
}

void Bounded::copied()
{
	if (looking_)
		missed_ += sender_.copied().data + sender_.copied().zero - batch_same_;
	if (!active())
		return;
	const uint64_t mark = sender_.mark();

	batches_.push_back({mark, batch_, sender_.copied().raw - batch_raw_, batch_began_});
	handlers_.barrier([this, mark, gone = std::weak_ptr<bool>(life_)] {
		if (gone.lock())
			confirmed(mark);
	});
	// Others have their turn.
	loop_.soon([this, gone = std::weak_ptr<bool>(life_)] {
		if (gone.lock())
			next();
	});
}

void Bounded::confirmed(uint64_t mark)
{
	sender_.confirmed(mark);
	while (!batches_.empty() && batches_.front().mark <= mark) {
		const Batch &batch = batches_.front();

		pending_ -= std::min(pending_, batch.frames);
		if (batch.raw >= rate_bytes)
			budget_.goodput(batch.raw, us_since(std::max(batch.began, last_confirmed_)));
		last_confirmed_ = Loop::Clock::now();
		batches_.pop_front();
	}
	next();
}

// ---- the brake --------------------------------------------------------------------

// What the VMM may have written since the last scan
uint64_t Bounded::others_share() const
{
	return others_.empty() ? 0 : *std::max_element(others_.begin(), others_.end()) * 2 * page_bytes;
}

std::optional<uint64_t> Bounded::missing() const
{
	if (!active() || !ready_ || first_ || !limiter_)
		return std::nullopt;
	return dirty() + others_share() + unseen();
}

void Bounded::brake()
{
	if (!limiter_)
		return;
	const uint64_t dirty_at_base = dirty() + others_share(), clean = budget_.rate();
	sb::Ramp ramp{};
	const sb::Ramp *set = nullptr;

	// Without a standby, or in the first pass, nothing can be held: the VM is more than its copy.
	if (active() && ready_ && !first_ && limit_) {
		ramp = synced_ ? sb::ramp(base_, dirty_at_base, limit_, clean) : sb::ramp_flat(base_, clean);
		set = &ramp;
	}
	try {
		const Limiter::Said said = limiter_->limit(set);

		counted_ = said.faults;
		slowed_ = said.info;
	} catch (const Error &error) {
		failed(std::string("writers are not slowed: ") + error.what());
		synced_ = false;
		// The old limit is still in force, and nobody else would take it away.
		if (!active() && !tick_)
			tick_ = loop_.after(tick_every, [this] {
				tick_ = 0;
				brake();
			});
	}
}

Json Bounded::status() const
{
	const Progress &p = sender_.copied();
	Json out{{"state", !active() ? "off" : !ready_ ? "waits for the standby" : first_ ? "first pass" : !synced_ ? "not bounded" :
			   lowered_ ? "above a lowered limit" : "bounded"},
		 {"dirty", dirty()}, {"limit", limit_}, {"most", most_}, {"over", over_}, {"scans", scans_}, {"scan_us", scan_us_},
		 {"scan_most_us", scan_most_us_}, {"found", found_last_}, {"interval_ms", interval_.count()}, {"rate", budget_.rate()},
		 {"sent", p.data + p.zero}, {"sent_bytes", p.raw}, {"same", p.same}, {"second_look", missed_}, {"faults", counted_},
		 {"sleeps", slowed_.sleeps}, {"slept_ms", slowed_.slept_ns / 1000000}, {"asleep", slowed_.asleep}};

	if (!trouble_.empty())
		out["trouble"] = trouble_;
	return out;
}

} // namespace redoubt::agent
