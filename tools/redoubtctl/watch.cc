// SPDX-License-Identifier: GPL-2.0
//
// Live events of one VM or of all, merged by time.

#include "commands.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <list>
#include <set>
#include <vector>

#include "../lib/names.h"
#include "print.h"
#include "stop.h"

namespace redoubt::ctl {

using namespace client;

namespace {

struct Watched {
	Watched(Vm &&opened, EventRing &&mapped) : vm(std::move(opened)), ring(std::move(mapped)) {}

	Vm vm;
	EventRing ring;
	uint64_t shown = 0;
	const char *end = nullptr;	// why there will be no more events
	int dead_rounds = 0;		// how often its descriptor said so before its last event
};

struct Item {
	Watched *from;
	rdt_event event;
	uint64_t gap;	// events lost before it
	uint64_t order;	// its time, but never before that of the VM's event before
};

class Watch {
public:
	Watch(Context &ctx, const WatchOptions &options) : ctx_(ctx), options_(options), device_(ctx.sys)
	{
		if (options.timeout_s)
			deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
						std::chrono::duration<double>(*options.timeout_s));
		if (options.vm.empty()) {
			adopt(true);
		} else {
			add(device_.find(options.vm), options.since);
		}
	}

	int run();

private:
	using Clock = std::chrono::steady_clock;

	void add(Vm &&vm, std::optional<uint64_t> since);
	void adopt(bool first);
	void update_end(Watched &watched);
	void drain(Watched &watched, std::vector<Item> &items);
	void show(const Item &item);
	void wait();
	void close(Watched &watched, const char *why);
	int finish(const char *why);
	bool enough() const { return options_.count && shown_ >= *options_.count; }
	bool late() const { return deadline_ && Clock::now() >= *deadline_; }

	Context &ctx_;
	const WatchOptions &options_;
	Device device_;
	std::list<Watched> vms_;
	std::set<uint32_t> known_;
	std::optional<Clock::time_point> deadline_;
	uint64_t shown_ = 0;
};

void Watch::add(Vm &&vm, std::optional<uint64_t> since)
{
	EventRing ring = vm.events();

	ring.seek(since ? *since : ring.head());
	known_.insert(vm.id());
	vms_.emplace_back(std::move(vm), std::move(ring));
}

// VMs attached after we began are shown from their first event on.
void Watch::adopt(bool first)
{
	for (const rdt_list_entry &entry : device_.list()) {
		if (known_.contains(entry.vm_id))
			continue;
		try {
			add(device_.open(entry.vm_id), first ? options_.since : 0);
		} catch (const Error &error) {
			if (error.code() != ENOENT && error.code() != ENODEV)
				throw;
		}
	}
}

// The last event says why a VM ended. Its counter is looked at, so that it is
// noticed also by who began behind it. The descriptor says so a little earlier.
void Watch::update_end(Watched &watched)
{
	if (watched.ring.count(RDT_EV_VM_DEAD))
		watched.end = "vm_dead";
	else if (watched.ring.count(RDT_EV_DETACH))
		watched.end = "detach";
	else if (!(watched.vm.info().flags & RDT_VM_DEAD))
		return;
	else if (++watched.dead_rounds > 1000 / look_round_ms)
		watched.end = "gone";
}

void Watch::drain(Watched &watched, std::vector<Item> &items)
{
	// At most one ring full at a time: with a guest that raises events
	// faster than we print them, printing must get its turn.
	uint64_t last = 0, order = 0;
	rdt_event event;

	for (uint32_t i = 0; i < watched.ring.records() && watched.ring.next(event); i++) {
		order = std::max<uint64_t>(order, event.time_ns);
		items.push_back({&watched, event, watched.ring.gap(), order});
		last = event.seq;
	}
	if (last)
		watched.vm.seen(last);
}

void Watch::show(const Item &item)
{
	const rdt_event &event = item.event;

	if (item.gap) {
		if (ctx_.json)
			ctx_.out << Json{
				{"kind", "lost"},
				{"vm_id", item.from->vm.id()},
				{"lost", item.gap},
				{"first_seq", event.seq - item.gap},
				{"last_seq", event.seq - 1},
			} << std::endl;
		else
			ctx_.out << "vm " << item.from->vm.id() << ": lost " << plural(item.gap, "event") << " (#"
				 << event.seq - item.gap << "-#" << event.seq - 1 << ")" << std::endl;
	}
	if (options_.type && *options_.type != event.type)
		return;
	if (ctx_.json)
		ctx_.out << event_json(event) << std::endl;
	else
		ctx_.out << event_line(event) << std::endl;
	item.from->shown++;
	shown_++;
}

void Watch::close(Watched &watched, const char *why)
{
	if (ctx_.json)
		ctx_.out << Json{
			{"kind", "end"},
			{"vm_id", watched.vm.id()},
			{"reason", why},
			{"events", watched.shown},
			{"lost", watched.ring.lost()},
		} << std::endl;
	else
		ctx_.out << "vm " << watched.vm.id() << ": end (" << why << "), " << plural(watched.shown, "event")
			 << " shown, " << watched.ring.lost() << " lost" << std::endl;
}

// Who asked for a number of events and did not get it is told by the status.
int Watch::finish(const char *why)
{
	for (Watched &watched : vms_)
		close(watched, watched.end ? watched.end : why);
	if (options_.count && !enough())
		throw Error("watch: " + std::string(why) + " after " + std::to_string(shown_) + " of " +
			    plural(*options_.count, "event"));
	return exit_ok;
}

void Watch::wait()
{
	int ms = look_round_ms;
	std::vector<pollfd> fds;

	// One that is dead would wake us again and again with POLLHUP.
	for (const Watched &watched : vms_)
		if (!watched.dead_rounds)
			fds.push_back({watched.vm.fd(), POLLIN, 0});
	if (deadline_) {
		const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - Clock::now()).count();

		ms = static_cast<int>(std::clamp<long long>(left, 0, ms));
	}
	if (ctx_.sys.poll(fds.data(), fds.size(), ms) < 0 && errno != EINTR)
		throw Error("poll", errno);
}

int Watch::run()
{
	std::vector<Item> items;

	for (;;) {
		// The end before the events: what was raised before a VM ended
		// must not be left behind.
		const bool stop = StopSignals::requested(), timeout = late();

		if (options_.vm.empty())
			adopt(false);
		items.clear();
		for (Watched &watched : vms_) {
			update_end(watched);
			drain(watched, items);
		}
		std::stable_sort(items.begin(), items.end(),
				 [](const Item &a, const Item &b) { return a.order < b.order; });
		for (const Item &item : items) {
			show(item);
			if (enough())
				return finish("count");
		}
		if (stop)
			return finish("signal");
		if (timeout)
			return finish("timeout");
		if (!items.empty())
			continue;
		for (auto it = vms_.begin(); it != vms_.end();) {
			if (!it->end) {
				++it;
				continue;
			}
			if (!options_.vm.empty())
				return finish(it->end);
			close(*it, it->end);
			it = vms_.erase(it);
		}
		wait();
	}
}

} // namespace

int watch(Context &ctx, const WatchOptions &options)
{
	StopSignals signals;

	return Watch(ctx, options).run();
}

} // namespace redoubt::ctl
