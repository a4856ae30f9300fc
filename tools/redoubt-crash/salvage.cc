// SPDX-License-Identifier: GPL-2.0
#include "salvage.h"

#include <algorithm>
#include <cstring>

#include "../redoubtd/ringstate.h"
#include "vcpu.h"

namespace redoubt::crash {
namespace {

[[noreturn]] void fail(const std::string &why)
{
	throw agent::Error(why);
}

} // namespace

Salvage::Salvage(const Layout &layout, Physical &memory, const Root &root, const Vm &vm)
	: memory_(memory), vm_(vm), space_(memory, vm.pgd, vm.levels)
{
	if (vm.note.empty())
		fail("its agent has left nothing to go on from");
	note_ = agent::read_note(vm.note);
	for (const rdt_crash_range &r : vm.ranges)
		ranges_[r.first] = r;
	// Given away, all but a word: what it was is not asked for any more.
	if (note_.record.kind != sb::Kind::Released)
		all_there();
	make_state(layout, root);
}

void Salvage::frame(uint64_t number, uint8_t *to)
{
	if (const auto it = changed_.find(number); it != changed_.end()) {
		memcpy(to, it->second.data(), page_bytes);
		return;
	}
	auto it = ranges_.upper_bound(number);
	if (it == ranges_.begin() || number - (--it)->first >= it->second.count)
		fail("frame " + std::to_string(number) + " is in no range");
	const auto at = space_.physical(it->second.hva + (number - it->first) * page_bytes);
	if (!at || !memory_.read(*at, to, page_bytes))
		fail("frame " + std::to_string(number) + " is not in memory: was it locked (-overcommit mem-lock=on)?");
}

// Before anybody is asked to take it
void Salvage::all_there()
{
	uint8_t word[8];
	uint64_t next = 0;

	for (const auto &[first, r] : ranges_) {
		if (first != next)
			fail("the ranges of its memory have a hole");
		next = first + r.count;
		for (uint64_t i = 0; i < r.count; i++) {
			const auto at = space_.physical(r.hva + i * page_bytes);
			if (!at || !memory_.read(*at, word, sizeof(word)))
				fail("frame " + std::to_string(first + i) + " is not in memory: was it locked (-overcommit mem-lock=on)?");
		}
	}
	if (next != note_.frames || !next)
		fail("the ranges of its memory are not all of it");
}

std::vector<uint8_t> Salvage::bytes(uint64_t from, uint64_t size)
{
	std::vector<uint8_t> out;
	Page page;

	for (uint64_t n = from / page_bytes; n <= (from + size - 1) / page_bytes; n++) {
		frame(n, page.data());
		out.insert(out.end(), page.begin(), page.end());
	}
	out.erase(out.begin(), out.begin() + static_cast<ptrdiff_t>(from % page_bytes));
	out.resize(size);
	return out;
}

void Salvage::change(uint64_t from, const std::vector<uint8_t> &what)
{
	for (size_t i = 0; i < what.size();) {
		const uint64_t n = (from + i) / page_bytes, in = (from + i) % page_bytes;
		const size_t part = std::min<uint64_t>(what.size() - i, page_bytes - in);

		if (!changed_.contains(n)) {
			Page page;
			frame(n, page.data());
			changed_[n] = page;
		}
		memcpy(&changed_[n][in], &what[i], part);
		i += part;
	}
}

// Bytes into the image
uint64_t Salvage::place_of(uint64_t hva) const
{
	for (const auto &[first, r] : ranges_)
		if (hva >= r.hva && hva - r.hva < r.count * page_bytes)
			return first * page_bytes + (hva - r.hva);
	fail("KVM writes to the VM's memory outside of the image");
}

// As behind a killed QEMU, with the old memory in the place of what KVM answers
void Salvage::make_state(const Layout &layout, const Root &root)
{
	if (note_.whole) {
		// Somebody may have let it run since, at a monitor, and the agent had not seen it yet.
		for (uint32_t i = 0; i < vm_.vcpus.size() && note_.record.kind != sb::Kind::Released; i++)
			if (read_vcpu(layout, memory_, root, vm_, i).where != "user")
				fail("it is not where its device state says: somebody has let it run");
		state_ = note_.state;
		where_ = "stopped by QEMU";
		return;
	}
	agent::QStream stream(note_.state);

	if (note_.cpuid.size() != vm_.vcpus.size() || vm_.vcpus.empty())
		fail("the note is of another number of vCPUs");
	for (uint32_t i = 0; i < vm_.vcpus.size(); i++) {
		agent::KvmItems items;
		Vcpu vcpu;
		try {
			vcpu = read_vcpu(layout, memory_, root, vm_, i);
		} catch (const std::runtime_error &e) {
			fail("vCPU " + std::to_string(i) + ": " + e.what());
		}
		for (Item &item : vcpu.items)
			items.data[item.name] = std::move(item.data);
		items.data["CPUID2"] = note_.cpuid[i];
		for (const auto &[hva, byte] : vcpu.writes)
			change(place_of(hva), {byte});
		agent::put_vcpu(stream, i, items);
		where_ += (i ? ", " : "") + vcpu.where;
	}
	agent::KvmItems machine;
	for (Item &item : read_devices(layout, memory_, root, vm_))
		machine.data[item.name] = std::move(item.data);
	agent::put_machine(stream, machine);
	const uint64_t stopped = root.cpus.begin()->second.head.monotonic;
	agent::put_time(stream, stopped > note_.taken ? stopped - note_.taken : 0);
	put_rings(stream);
	state_ = stream.bytes();
}

void Salvage::put_rings(agent::QStream &stream)
{
	const auto watched = static_cast<size_t>(
		std::count_if(note_.queues.begin(), note_.queues.end(), [](const agent::Note::Queue &q) { return q.watched; }));
	std::vector<sb::RingWatch> watches = agent::read_live(vm_.live, note_.live, watched);
	size_t next = 0;

	for (const agent::Note::Queue &q : note_.queues) {
		sb::RingWatch *const watch = q.watched ? &watches[next++] : nullptr;
		agent::QSection *section = nullptr;
		for (agent::QSection &s : stream.sections())
			if (s.name == q.section && s.has("virtio"))
				section = &s;
		if (!section)
			fail(q.section + ": the device state has no such device");
		agent::VirtioBlob blob(section->raw("virtio"), section->name);
		std::vector<uint8_t> avail = bytes(q.avail, sb::Ring::avail_bytes(q.num)), used = bytes(q.used, sb::Ring::used_bytes(q.num));
		const std::vector<uint8_t> as_it_was = avail;

		agent::put_ring(stream, blob, q.index, {.avail = avail.data(), .used = used.data(), .num = q.num}, watch);
		if (avail != as_it_was)
			change(q.avail, avail);
	}
}

bool SalvageSource::produce(const Take &take)
{
	if (runs_.empty())
		return false;
	sb::Run &run = runs_.front();
	const auto count = static_cast<uint32_t>(std::min<uint64_t>(run.count, sb::max_frames));
	const uint64_t first = run.first;
	uint64_t zero = 0;
	uint8_t *to = buffer_.data();

	for (uint32_t i = 0; i < count; i++) {
		vm_.frame(first + i, to);
		if (agent::is_zero(to))
			zero |= 1ull << i;
		else
			to += page_bytes;
	}
	run.first += count;
	run.count -= count;
	if (!run.count)
		runs_.pop_front();
	take(first, count, zero, buffer_.data());
	return true;
}

} // namespace redoubt::crash
