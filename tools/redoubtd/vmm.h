// SPDX-License-Identifier: GPL-2.0
//
// An unmodified QEMU, seen by its monitor and its process: what it does with the
// VM, and the device state in and out with the memory left in place.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "qmp.h"

namespace redoubt::agent {

enum class VmmState {
	gone,		// no process, or none that could be asked yet
	waiting,	// -incoming defer: for a device state
	spoiled,	// -incoming, and it has failed to load one: it takes no other
	fresh,		// -S: it has never run
	stopped,
	running,
};
const char *vmm_state_name(VmmState state);

class Vmm {
public:
	using Done = std::function<void(const std::string &error)>;	// empty: done
	struct Handlers {
		std::function<void()> changed;		// state() is another, or the VM was let run
		std::function<void()> died;		// the process is gone; state() is gone
	};

	Vmm(Loop &loop, std::string name, std::string qmp_path, Handlers handlers);
	~Vmm();
	Vmm(const Vmm &) = delete;

	// Goes on looking for QEMU until it is there, and again when it has gone.
	void start();

	VmmState state() const { return state_; }
	// QEMU's own word for it: "paused", "postmigrate", ...
	const std::string &status() const { return status_; }
	// Nobody listens at the monitor's socket. False also if that cannot be told.
	bool absent() const { return absent_ && !pidfd_; }
	// Why this QEMU, which waits, cannot be given a device state; empty: it can.
	const std::string &refuses() const { return refuses_; }
	pid_t pid() const { return pidfd_ ? pid_ : 0; }
	int pidfd() const { return pidfd_.get(); }
	// Asked for something, and has not answered in time.
	bool stuck() const { return stuck_; }
	// The guest or somebody at the monitor has ended it: nothing of it is to go on.
	bool ended_itself() const { return ended_itself_; }
	const std::string &uuid() const { return uuid_; }
	Qmp &qmp() { return qmp_; }

	// All of these answer from the loop, once. One at a time, the caller sees to that.
	//
	// The VM does not run, nothing is in flight to its disks. If the process dies on
	// the way: no error.
	void stop(Done done);
	void resume(Done done);
	// Everything but the memory into @out, whose room the caller has reserved. The VM is stopped.
	void save(std::vector<uint8_t> &out, Done done, milliseconds limit);
	// From @in, which stays until @done. The VM is loaded then and does not run.
	void load(std::span<const uint8_t> in, Done done, milliseconds limit);
	// Ends the process: asks, then kills.
	void quit(Done done);
	void kill();
	// @then: behind what QEMU has told until now. False: there is a process, and it cannot be asked.
	bool refresh(std::function<void()> then);

private:
	struct Transfer;

	void look();
	void on_ready();
	void on_event(const std::string &event, const Json &data);
	void on_closed(const std::string &why);
	void on_dead();
	void ask_status(std::function<void()> then = {}, milliseconds limit = Qmp::patience);
	void ask_first();
	void ask_incoming(std::function<void()> then, milliseconds limit);
	void no_answer(const QmpReply &reply);
	void ask_schema(std::function<void()> then);
	void end_outgoing(std::function<void(const std::string &error)> then, unsigned tries);
	void set_state(VmmState state);
	void log(const std::string &text) const;

	void begin_transfer(const char *command, Json arguments, bool incoming, milliseconds limit);
	void on_transfer(uint32_t events);
	void poll_transfer();
	void end_transfer(const std::string &error);

	Loop &loop_;
	std::string name_, path_;
	Handlers handlers_;
	Qmp qmp_;
	Fd pidfd_;
	pid_t pid_ = 0;
	VmmState state_ = VmmState::gone;
	std::string uuid_, said_, status_, refuses_;
	Loop::Timer retry_ = 0, asks_ = 0;
	bool stuck_ = false, absent_ = false, ended_itself_ = false;
	std::unique_ptr<Transfer> transfer_;
	uint64_t next_transfer_ = 1;
	std::vector<Done> quitting_;
	std::shared_ptr<bool> life_ = std::make_shared<bool>(true);
	std::weak_ptr<bool> alive_ = life_;	// for timers that nobody cancels
};

} // namespace redoubt::agent
