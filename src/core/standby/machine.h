// SPDX-License-Identifier: GPL-2.0
/*
 * Never two: the state machine of one VM on one host, Documentation/standby.md section 5.
 *
 * Both sides are one machine: a standby that runs the VM *is* the primary of the next epoch, and the old primary
 * becomes its standby. A function of (state, event, time): it does no I/O, it asks for it. The agent carries out the
 * actions of a step in their order, each to its end before the next, and hands in no other event between them:
 *  - Act::Journal: written (write(2) has returned) before anything behind it; with sync, on the disk. It fails: nothing
 *    behind it is done, and Event::JournalFailed is the next event;
 *  - Act::Send may be lost: everything is said again (LinkUp, Tick) until it is answered;
 *  - VmStop fails because the VMM is dead: go on, and tell with VmDied or VmLost afterwards.
 * The agent may die between any two actions: start() goes on from the journal.
 *
 * An epoch is one attempt to move the VM, drawn by who runs it; it only grows. Active(e) attempts e; who runs the VM
 * next, on either side, is Active(e + 1).
 *
 * Messages name the boot of the sender and of the receiver (boot_number()). One that is from another boot than the
 * last LinkUp named, or to another than ours, or without a LinkUp, is dropped: it may be years old. LinkUp events must come in the order in
 * which connections were made: when there is a new one, the old one is closed and what it still holds is dropped.
 *
 * Trivially copyable, no pointers. One thread.
 */
#pragma once

#include "journal.h"

namespace redoubt::standby {

enum class State : u8 {
	Void,	   /* what ran here is gone; the cluster decides */
	Claiming,  /* Void or Empty, and told to run the VM from its disk: asks the peer to yield */
	Empty,	   /* standby: nothing here */
	Receiving, /* standby: part of an image */
	Verifying, /* standby: Complete before the agent restarted; is it still? */
	Complete,  /* standby: a whole image, PREPARED is promised */
	Starting,  /* may run the VM, and loads the image */
	Active,	   /* runs the VM (or ran it, and it crashed) */
	Frozen,	   /* primary: stopped, pages go out */
	Sealed,	   /* primary: END is out */
	Aborting,  /* primary: DISCARD is out */
	Released,  /* primary: COMMIT is out, never to run this VM's memory again */
	Stuck,	   /* the journal cannot be written, or two run: does nothing any more */
};

/* What there is of the VM on this host. */
enum class Vm : u8 {
	None,	 /* nothing */
	Waiting, /* a VMM that waits for an image (-incoming defer) */
	Stopped, /* a VMM, alive, with a VM that is loaded and does not run */
	Running,
	Kept,	 /* the VMM is dead; the module has the memory and the vCPUs' state */
};

/* Messages between machines. Numbers are on the wire (wire.h): only ever add. */
enum class Msg : u8 {
	None = 0,
	Hello = 1, /* wire only: becomes Event::LinkUp */
	Ping = 2,  /* wire only */
	Begin = 3,
	Pages = 4, /* wire only, stored while receives(epoch) */
	Same = 5,  /* wire only, likewise */
	State = 6, /* wire only, likewise */
	End = 7,
	Lacks = 8,
	Prepared = 9,
	Commit = 10,
	Running = 11,
	Discard = 12,
	Discarded = 13,
	Empty = 14,
	Ask = 15,
	Gone = 16,
	Claim = 17, /* may I run it from its disk? */
	Yield = 18, /* yes: I have nothing, and will not */
	Ready = 19, /* wire only: does a VMM wait for the image? Told, never promised: the machine does not hear it */
};

/* Why a report: what the operator reads, and what would resolve it, is report_text(). */
enum class Report : u8 {
	None,
	Go,		/* the VM is stopped and being sent */
	Resumed,	/* an attempt ended, the VM runs here again */
	HandedOver,	/* the peer runs the VM */
	TookOver,	/* this host runs the VM, from the peer's image */
	ColdStart,	/* this host runs the VM, from its disk */
	Crashed,	/* the VM that this host may run is not there */
	Lost,		/* the VM's memory is gone before an image of it was whole */
	HostRebooted,	/* this host went down while it ran or held the VM */
	CannotResume,	/* abort, but the VMM is dead, or the image was released once */
	AlreadyReleased, /* abort, but the standby may run it already */
	WaitsForPeer,	/* Frozen, Sealed, Aborting, Released: no answer for report_ms */
	WaitsForPrimary, /* Complete, no word from the primary: fencing would resolve it */
	Incomplete,	/* an image that can no longer become whole */
	ImageLost,	/* the image that was promised is not there any more (reboot, or failed to verify) */
	DigestDiffers,	/* all has arrived, but it is not what was sent: sent anew */
	LoadFailed,	/* the VMM refuses the image; nobody else may run it */
	NotFenced,	/* told to run the VM, but nothing proves that the peer does not */
	StaleProof,	/* fenced, but that was another boot of the peer */
	BothVoid,	/* neither side has anything; the cluster may start it from its disk */
	JournalBad,	/* the journal cannot be written or read */
	TwoRun,		/* the peer says that it runs the VM, too */
	NoVm,		/* a trigger, but there is no VM to send */
};

enum class Ev : u8 {
	Tick,	       /* time went on; a few times a second */
	LinkUp,	       /* a connection, HELLO seen. @from: the peer's boot */
	LinkDown,
	Message,       /* @msg and its fields */
	Trigger,       /* go: operator, power, watchdog */
	Abort,	       /* power is back, or the operator's wish */
	Copy,	       /* bounded mode: begin to copy while the VM runs */
	Sent,	       /* all was sent that Stream or Resend asked for. @epoch: of it; @digest: over all, taken behind VmStop */
	VmDied,	       /* the VMM is dead, memory is kept */
	VmLost,	       /* and memory is not kept; or the VM ended by itself */
	VmUp,	       /* a VM runs here that was not there before (its unit started it) */
	VmRan,	       /* somebody has let a VM run that must not: a monitor's cont. It may run still */
	Loaded,	       /* Act::VmLoad, VmBoot: done */
	LoadFailed,
	Verified,      /* Act::Verify: @digest of what is there, @whole */
	Fenced,	       /* the cluster or the operator proves: the peer's boot @from is dead */
	Promote,       /* the cluster or the operator: run the VM. @from: the peer's boot that is proven dead, or 0 */
	JournalFailed, /* Act::Journal could not be carried out */
};

/**
 * struct Event - what happened. Fields that an event does not use are 0.
 * @msg: Message: which; wire.h turns bytes into it.
 * @from, @to: Message: boots of sender and receiver. LinkUp, Fenced, Promote: @from as said there.
 * @epoch: Message: its epoch. @digest: Message End, Prepared: the sender's. Sent, Verified: ours.
 * @whole, @mine: Message End: what Image says once END's counts were given to it: all is there; and its digest. The
 *	machine compares.
 */
struct Event {
	Ev ev = Ev::Tick;
	Msg msg = Msg::None;
	bool whole = false;
	u64 from = 0;
	u64 to = 0;
	u64 epoch = 0;
	Digest digest = {};
	Digest mine = {};
};

enum class Act : u8 {
	Journal,  /* write rec; sync: on the disk before the next action */
	Send,	  /* msg, epoch, digest; the agent adds what else the message holds */
	Stream,	  /* send all frames and the device state of the epoch, then Ev::Sent. One under way for this epoch goes on,
		   * on the new connection: what was lost comes back as LACKS */
	Copy,	  /* bounded mode: send frames in the background while the VM runs, until Stream or until it is not Active any
		   * more. Never Ev::Sent: a digest of a VM that runs would pass for one of its last state */
	Resend,	  /* the frames of the LACKS just given, then Ev::Sent */
	VmStop,	  /* returns when the VM does not run, and its disk has nothing in flight */
	VmCont,	  /* it is stopped here */
	VmLoad,	  /* load the image, do not run it: Ev::Loaded or LoadFailed */
	VmBoot,	  /* start the VM from its disk; idempotent */
	VmDrop,	  /* give up the VM's memory: the peer runs it */
	ImageNew, /* an image of epoch begins: nothing has arrived. What lies there may serve for Same */
	ImageDrop, /* nobody will run what is there */
	Verify,	  /* hash the image anew: Ev::Verified */
	SendLacks, /* Msg::Lacks with what Image lacks; all if nothing is lacking (the digest differs) */
	Report,	  /* tell operator and cluster: report_text() */
};

struct Action {
	Act act;
	Msg msg;
	Report report;
	bool sync;
	u64 epoch;
	u64 from; /* Send: the header's boots */
	u64 to;
	Digest digest;
	Record rec;
};

/* The actions of one step, in their order. */
class Actions {
public:
	static constexpr unsigned room = 10;

	[[nodiscard]] const Action *begin() const
	{
		return at_;
	}
	[[nodiscard]] const Action *end() const
	{
		return at_ + n_;
	}
	void clear()
	{
		n_ = 0;
	}
	Action &add(Act act)
	{
		Action &a = at_[n_ < room ? n_++ : room - 1];

		a = {};
		a.act = act;
		return a;
	}

private:
	Action at_[room];
	unsigned n_ = 0;
};

class Machine {
public:
	/**
	 * struct Config
	 * @repeat_ms: what was not answered is said again. @report_ms: a state that waits is reported again.
	 * @link_ms: Frozen and no link for so long: the VM goes on here, if it can. 0: never.
	 */
	struct Config {
		u64 repeat_ms = 1000;
		u64 report_ms = 60000;
		u64 link_ms = 30000;
	};

	/* What a machine remembers; a plain value, for tests to hash. */
	struct Memory {
		State state = State::Stuck;
		Vm vm = Vm::None;
		bool link = false;
		bool barred = false; /* COMMIT of this memory went out once */
		bool abort = false;  /* resuming is wished for */
		bool copying = false; /* Active: bounded mode, BEGIN is out */
		bool gone = false;   /* Void, Claiming: what ran here is gone: answers GONE(epoch) */
		bool failed = false; /* Starting: it did not; promote tries again */
		bool ran = false;    /* Aborting: the VM has run since the image was made, rec_ran */
		u8 how = 0;	     /* Starting: rec_image or rec_cold */
		u64 epoch = 0;
		u64 high = 0;	     /* the highest epoch in the journal */
		u64 floor = 0;	     /* the highest that the peer has named as used up */
		u64 claim = 0;	     /* Claiming: the epoch asked for */
		u64 peer = 0;
		u64 dead = 0;	     /* the peer's boot whose proof of fencing was acted upon: not to be heard again */
		Digest digest = {};
		u64 said_ms = 0;     /* when something was sent that wants an answer */
		u64 told_ms = 0;     /* when the state was last reported */
		u64 down_ms = 0;     /* since when there is no link */
	};
	/* @boot: this host's, boot_number(). */
	Machine(const Config &config, u64 boot) : config_(config), boot_(boot)
	{
	}
	/* As another machine that was left with this memory: for tests. */
	Machine(const Config &config, u64 boot, const Memory &memory) : config_(config), boot_(boot), m_(memory)
	{
	}

	/**
	 * start() - the agent begins, or begins again.
	 * @last: Journal::last(), or nullptr: there is no journal (Status::None, never Corrupt: then do not start).
	 * @vm: what there is. @primary: with no journal, whether this host runs the VM by its configuration; it must.
	 * @now: ms, monotonic in a boot.
	 */
	void start(const Record *last, Vm vm, bool primary, u64 now, Actions &out);

	/* One event. @out is cleared first. */
	void step(const Event &ev, u64 now, Actions &out);

	[[nodiscard]] State state() const
	{
		return m_.state;
	}
	/* The attempt: of Active to Released and of Receiving to Complete their own; of Void and Empty the last. */
	[[nodiscard]] u64 epoch() const
	{
		return m_.epoch;
	}
	[[nodiscard]] Vm vm() const
	{
		return m_.vm;
	}
	/* The peer's boot as the last LinkUp, or the journal, has it. 0: not known. */
	[[nodiscard]] u64 peer_boot() const
	{
		return m_.peer;
	}
	[[nodiscard]] bool link() const
	{
		return m_.link;
	}
	/* PAGES, SAME and STATE of this header may be stored. Anything else is dropped. */
	[[nodiscard]] bool receives(u64 epoch, u64 from, u64 to) const
	{
		return m_.state == State::Receiving && m_.link && epoch == m_.epoch && from == m_.peer && to == boot_;
	}
	/* This host may run the VM, and nobody else. What an OCF agent's monitor asks. */
	[[nodiscard]] bool runs() const
	{
		return m_.state == State::Active || m_.state == State::Starting;
	}
	/* The digest of the attempt, in Sealed to Released and Complete. */
	[[nodiscard]] const Digest &digest() const
	{
		return m_.digest;
	}

	[[nodiscard]] const Memory &memory() const
	{
		return m_;
	}

private:
	Config config_;
	u64 boot_;
	Memory m_;
};

/* A line for operator and cluster: what it is, and what would resolve it. */
const char *report_text(Report r);
/* "active", "frozen", ... */
const char *state_name(State s);
const char *msg_name(Msg m);

} // namespace redoubt::standby
