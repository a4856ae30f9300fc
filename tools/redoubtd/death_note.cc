// SPDX-License-Identifier: GPL-2.0
//
// What is kept for QEMU's death, for a crash kernel: the host panics, and with QEMU the agent is gone.

#include "death_state.h"

#include <algorithm>

namespace redoubt::agent {

namespace {

// Never twice in an agent's life
uint64_t next_number()
{
	static uint64_t number = 0;

	return ++number;
}

uint64_t ns_of(Loop::Clock::time_point t)
{
	return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count());
}

} // namespace

// The VM stands: what the rings were then is the first that is to be found.
void DeathWatch::begin_live()
{
	size_t watched = 0;

	for (const Queue &q : queues_)
		watched += q.watch != nullptr;
	cpuid_.clear();
	for (const KvmItems &items : taken_->answers.vcpus)
		cpuid_.push_back(items.bytes("CPUID2"));
	// The one before stays as it is, for the note that names it.
	next_live_ = std::make_unique<LiveArea>(next_number(), watched);
	publish(*next_live_);
}

void DeathWatch::publish(LiveArea &live)
{
	std::vector<const standby::RingWatch *> watches;

	for (const Queue &q : queues_) {
		if (q.watch)
			watches.push_back(q.watch.get());
	}
	live.publish(watches);
}

// The state, with the interrupts where the guest has them now
QStream DeathWatch::with_messages() const
{
	QStream stream(state_);

	for (QSection &section : stream.sections()) {
		if (!section.has("virtio"))
			continue;
		VirtioBlob blob(section.raw("virtio"), section.name);

		for (const Messages &m : messages_) {
			if (m.section == section.name)
				blob.set_msix_table(m.table);
		}
	}
	return stream;
}

bool DeathWatch::describe(Note &note) const
{
	if (!armed_ || !live_)
		return false;
	note.whole = false;
	note.state = with_messages().bytes();
	note.taken = ns_of(refreshed_);
	note.cpuid = cpuid_;
	note.live = live_->number();
	note.disks = disks_;
	for (const Queue &q : queues_)
		note.queues.push_back({.section = q.section, .index = q.index, .num = q.ring.num, .avail = q.avail, .used = q.used,
				       .watched = q.watch != nullptr});
	return true;
}

// What the VM writes to: QEMU's nodes that are no format of another's bytes.
void DeathWatch::find_disks(std::function<void()> then)
{
	vmm_.qmp().command("query-named-block-nodes", {{"flat", true}}, [this, then](const QmpReply &reply) {
		disks_.clear();
		disks_unknown_.clear();
		try {
			if (!reply.ok || !reply.value.is_array())
				throw Error("QEMU does not tell of its disks: " + reply.error);
			for (const Json &node : reply.value) {
				const std::string kind = node.value("drv", ""), file = node.value("file", "");

				if (node.value("ro", false) || kind == "raw" || kind == "qcow2")
					continue;
				if (kind != "host_device" && kind != "file")
					throw Error(file + ": what is on its way through '" + kind + "' is not known to have ended");
				for (const std::string &device : disk_devices(file))
					if (std::find(disks_.begin(), disks_.end(), device) == disks_.end())
						disks_.push_back(device);
			}
		} catch (const std::exception &error) {
			disks_unknown_ = error.what();
		}
		then();
	});
}

} // namespace redoubt::agent
