// SPDX-License-Identifier: GPL-2.0
//
// One VM on this host: the machine of src/core/standby decides, this carries out.
//
// The actions of a step are done in their order, each to its end, and no event is
// handed in between: stopping a VM or letting it go on takes QEMU's answer, so both
// actions and events wait in queues.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <standby/machine.h>

#include "bounded.h"
#include "check.h"
#include "config.h"
#include "death.h"
#include "genl.h"
#include "hang.h"
#include "journal.h"
#include "loop.h"
#include "memory.h"
#include "peer.h"
#include "primary.h"
#include "saved.h"
#include "standby.h"
#include "vmm.h"

namespace redoubt::agent {

class Keeper {
public:
	using Answer = std::function<void(const std::string &error)>;

	Keeper(Loop &loop, const Config &config, const VmConfig &vm, const StateDirectory &directory, uint64_t boot, Peer &peer, Budget &budget);
	~Keeper();
	Keeper(const Keeper &) = delete;

	void start();
	const VmConfig &vm() const { return vm_; }
	sb::Uuid wire_uuid() const;

	// Of the link
	void link_up(uint64_t boot);
	void link_down();
	void message(const sb::Header &h, const sb::Body &body);
	// Why the peer could not take the VM now; empty: it could.
	std::string peer_unready() const;
	// There is something to send, and room for it.
	bool sending() const { return sender_ && sender_->busy(); }
	// False: the next one's turn is not before this has gone on.
	bool pump() { return sender_->pump(); }
	// Likewise in the background: who is frozen has the link before.
	bool copying() const { return sender_ && sender_->copying(); }
	// Bounded mode: what it may have of the host's budget; none: it is not copied now.
	std::optional<sb::Share> bounded_share() const;
	void set_limit(const sb::Share &share);
	uint64_t bounded_hash_ms() const;

	// For Power, ready.cc
	bool active() const { return begun_ && machine_.state() == sb::State::Active && vmm_.state() != VmmState::gone; }
	// Stopped, and may yet go on here.
	bool may_resume() const { return machine_.state() == sb::State::Frozen || machine_.state() == sb::State::Sealed; }
	// Bytes that a hand-over would have to send: post-fail, all memory that is not a hole.
	uint64_t need() const;
	// Bytes of pages sent since the agent's start
	uint64_t sent_bytes() const;
	// ms that the last attempt took beside its pages; 0: it did not come to its end, or was asked for before.
	uint64_t fixed_ms();

	// Commands. @answer: once, empty if it was done.
	void go(bool force, Answer answer);
	void abort(Answer answer);
	void fenced(uint64_t boot, Answer answer);
	void promote(uint64_t boot, Answer answer);
	void check(Checked answer);
	Json status() const;

private:
	// The machine
	void begin_later();
	void begin();
	void restart();
	void hand_in(sb::Event event);
	void next_event();
	void next_action();
	void act(const sb::Action &a);
	void settle();
	void tick();
	uint64_t now() const;
	sb::Vm what_is_there() const;
	std::string unknown_vmm() const;
	// The journal has a VM that is being sent, or was.
	bool held_record() const;
	void read_state();
	void note_state();
	void forget_state();
	// Somebody has let the VM run, which this host may not.
	void receive_by_this_one();
	bool ask_for_all();
	void drop_sender();
	void let_run();
	void prepared(const sb::Event &event);
	bool takes_image() const;
	// Why the image cannot be stored, or loaded; empty: it can.
	std::string unfit() const;
	void begin_anew();

	void trigger(bool force, unsigned tries, const Answer &answer);
	// READY, ready.cc
	sb::Unready unready();
	void tell_ready();
	void hear_ready(const sb::Header &h, const sb::Body &body);
	void mind_peer();
	bool fit_for_end();

	// Actions
	void write_journal(const sb::Action &a);
	void send(const sb::Action &a);
	void vm_stop();
	void vm_cont();
	void vm_load();
	void vm_boot();
	void boot_fresh();
	void stream(uint64_t epoch);
	void resend();
	// All is under way: Ev::Sent, when the standby has it. Before, this attempt can be taken
	// back without asking anybody.
	void confirm();
	void send_lacks(uint64_t epoch);
	void report(sb::Report r);
	// An attempt that cannot go on: the VM goes on here, if it may.
	void give_up(const std::string &why);

	// Bounded mode (keeper_bounded.cc)
	void want_copy();
	void make_bounded();
	void copy(uint64_t epoch);
	void send_begin();
	bool live_lacks(const sb::Header &h, const sb::Body &body);
	void answer_live();

	// QEMU
	void vmm_changed();
	void vmm_died();
	// Behind the death of QEMU (keeper_death.cc): is there all that the VM needs to go on? Then it is kept_.
	bool keep_dead();
	bool open_kept();
	void drop_kept();
	// The VM runs here, and nothing is done with it.
	bool undisturbed() const;
	void watch_death();
	void watch_hang();
	// For a crash kernel, should the host panic (keeper_panic.cc): what there is of the VM now
	void leave_note();
	std::optional<Note> make_note();
	void panic_obstacles(std::vector<Obstacle> &out) const;
	Json panic_status() const;
	bool open_memory();
	void hold();
	void make_sender();
	void new_sender();
	bool make_receiver();
	void stage(const char *name);

	Loop &loop_;
	const Config &config_;
	const VmConfig &vm_;
	uint64_t boot_;
	Peer &peer_;
	Budget &budget_;
	JournalFile journal_;
	sb::Machine machine_;
	Vmm vmm_;
	DeathWatch watch_;
	HangWatch hang_;
	std::string hang_said_;

	bool begun_ = false, acting_ = false, stepping_ = false;
	bool booting_ = false, boot_asked_ = false;
	// The image's QEMU is another than the one it was put together for: it is looked at anew.
	bool anew_ = false, verifying_ = false;
	pid_t image_pid_ = 0;
	std::optional<uint64_t> link_;		// the peer's boot
	std::optional<sb::Event> early_;	// RUNNING, which is said once a link: it came before we had begun
	std::deque<sb::Action> actions_;
	std::deque<sb::Event> events_;
	Loop::Timer tick_ = 0, begin_ = 0, retry_ = 0;

	std::unique_ptr<RamFile> ram_;
	std::unique_ptr<Hold> hold_;
	pid_t held_ = 0;			// the VMM that was tried to be held
	std::vector<Mapping> mappings_;		// of that VMM, as last left for a crash kernel
	std::string note_trouble_;		// why nothing is left; empty: it is
	std::unique_ptr<PageSource> source_;
	std::unique_ptr<Sender> sender_;
	std::unique_ptr<Bounded> bounded_;	// of sender_: goes before it
	std::unique_ptr<Receiver> receiver_;
	bool live_begun_ = false;		// a BEGIN of a live image is to be answered
	uint64_t live_epoch_ = 0;		// of the last such BEGIN
	std::optional<std::pair<sb::Header, sb::Body>> late_end_;	// waits until the image was looked at
	bool unheld_ = false;			// no limit that could be held
	// The device state of a VM that has not run since, or none
	std::vector<uint8_t> state_;
	bool state_saved_ = false, saving_ = false;
	bool stale_ = false;			// the VM has run since saving_ began
	bool kept_ = false;			// QEMU is dead, and state_ with the memory is the VM
	Saved saved_;				// whose it is; of an agent before this one, too
	uint64_t stream_epoch_ = 0;
	std::optional<sb::Digest> unconfirmed_;
	// Of the LACKS that the machine is at, and of the one that waits
	std::vector<sb::Run> lacks_runs_, lacks_next_;
	uint32_t lacks_flags_ = 0;
	unsigned resends_ = 0, attempts_ = 0;
	bool forced_ = false;			// this attempt: without asking whether the peer is ready
	struct Ready {
		sb::Unready why;
		uint64_t frames;
	};
	std::optional<Ready> peer_ready_;	// of this link
	std::optional<std::pair<sb::Unready, uint64_t>> told_ready_;	// to this link
	Loop::Clock::time_point told_at_, unready_since_;
	bool deferred_ = false;			// frozen, and nothing is sent until the peer is ready
	std::optional<Loop::Clock::time_point> stop_since_;

	// For people
	sb::Report last_report_ = sb::Report::None;
	Loop::Clock::time_point reported_;
	std::string trouble_, trouble_said_;
	Progress sent_;				// of a sender that is no more
	bool fixed_told_ = true;		// fixed_ms() of this attempt
	Loop::Clock::time_point began_;
	std::vector<std::pair<std::string, uint64_t>> stages_;	// of the attempt, us since its begin
};

} // namespace redoubt::agent
