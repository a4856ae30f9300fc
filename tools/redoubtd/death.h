// SPDX-License-Identifier: GPL-2.0
//
// A VM whose QEMU is killed is to go on. What QEMU alone knows is taken while it lives: its
// device state, now and then (a "refresh": stop, migrate, cont), and where the virtio rings are. The
// rest is there when it is dead: KVM's state by redoubt_standby.ko, memory in its file, the rings in it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <standby/rings.h>

#include "check.h"
#include "config.h"
#include "genl.h"
#include "loop.h"
#include "memory.h"
#include "note.h"
#include "vmm.h"

namespace redoubt::agent {

class QStream;
class VirtioBlob;

class DeathWatch {
public:
	// @may_run: the VM, which a refresh has stopped, may be let run again. @changed: describe() says something else.
	DeathWatch(Loop &loop, const Config &config, const VmConfig &vm, Vmm &vmm, std::function<bool()> may_run, std::function<void()> changed);
	~DeathWatch();
	DeathWatch(const DeathWatch &) = delete;

	// A few times a second, while the VM runs here and nothing is done with it. @hold stays until end().
	void tick(const Hold &hold, const RamFile &ram);
	// It must not be told to run again by us from here on: it is stopped, sent, or not ours to run.
	void end();
	// A refresh has QEMU: it stands for a moment, and goes on. Then @idle is called.
	bool busy() const { return busy_; }
	void when_idle(std::function<void()> idle) { idle_.push_back(std::move(idle)); }

	// Behind QEMU's end: the whole device state, with the rings in @ram put right. Throws why it cannot be.
	std::vector<uint8_t> make_state(const Hold &hold);
	// What would be in the way if it were killed now; empty: nothing.
	std::string obstacle() const;

	// The same for a crash kernel, should the host panic (death_note.cc): what there is now, into @note; false: the VM could not go on.
	bool describe(Note &note) const;
	const LiveArea *live() const { return live_.get(); }
	const std::vector<Mapping> &mappings() const { return mappings_; }
	// Why the VM's disks cannot be told to be at rest behind a panic; empty: they can.
	const std::string &disks_unknown() const { return disks_unknown_; }
	Json status() const;

private:
	struct Queue {
		std::string section;
		unsigned index;
		standby::Ring ring{};
		std::unique_ptr<standby::RingWatch> watch;	// of a device that may complete out of order
		uint64_t avail = 0, used = 0;	// bytes into the RAM file
	};
	// Of a device: interrupts that the guest moves to another CPU of its own change it, without a refresh.
	struct Messages {
		std::string section;
		uint64_t address;	// guest-physical
		std::vector<uint8_t> table;
	};
	struct Map;
	// What a refresh has taken while the VM stood, to be looked at when it goes on
	struct Taken;

	void look();
	void look_at_virtio();
	void look_at_virtio(Json devices, size_t at, std::shared_ptr<std::string> print);
	void on_print(const std::string &print);
	void look_at_messages(size_t at);
	void refresh();
	void refresh_stopped(const std::string &print);
	void refresh_saved();
	void refresh_resume(const std::string &error);
	void refresh_end(const std::string &error);
	void find_queues(QStream &stream);
	void rehearse();
	void add_queues(const std::string &section, const VirtioBlob &blob);
	uint64_t place_of(uint64_t address, uint64_t bytes) const;
	uint8_t *map_guest(uint64_t address, uint64_t bytes);
	void sample();
	void find_disks(std::function<void()> then);
	void begin_live();
	QStream with_messages() const;
	void publish(LiveArea &live);
	void say_once(const std::string &text);

	Loop &loop_;
	const Config &config_;
	const VmConfig &vm_;
	Vmm &vmm_;
	std::function<bool()> may_run_;
	std::function<void()> changed_;
	Loop::Timer sampler_ = 0;
	std::shared_ptr<bool> life_ = std::make_shared<bool>(true);

	const RamFile *ram_ = nullptr;
	const Hold *hold_ = nullptr;
	std::vector<uint32_t> msrs_;
	std::vector<rdt_sb_slot> slots_;
	std::vector<Mapping> mappings_;
	std::vector<std::unique_ptr<Map>> maps_;
	std::vector<Queue> queues_;
	std::vector<Messages> messages_;
	std::unique_ptr<LiveArea> live_, next_live_;
	std::vector<std::vector<uint8_t>> cpuid_;
	std::vector<std::string> disks_;
	std::string disks_unknown_;

	pid_t pid_ = 0;			// of the QEMU that is being refreshed
	bool busy_ = false, looking_ = false, wanted_ = true, armed_ = false;
	std::vector<std::function<void()>> idle_;
	std::string seen_, print_, tried_print_;	// which rings there are: seen last; of the state; of the last try
	std::vector<uint8_t> state_, next_;
	std::unique_ptr<Taken> taken_;
	std::string why_, said_;
	Loop::Clock::time_point looked_, refreshed_, tried_, stopped_;
	milliseconds pause_{0}, sample_every_{5}, wait_{10'000};
	unsigned refreshes_ = 0, lost_ = 0;
	std::vector<std::string> differs_;	// what QEMU and KVM say differently of a VM that stands
};

} // namespace redoubt::agent
