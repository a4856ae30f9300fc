// SPDX-License-Identifier: GPL-2.0
/*
 * Two hosts, their agents, journals and VMs, a channel and a cluster that fences: all that may happen to two machines
 * (src/core/standby), as steps that a search can take in any order. A World is one state, small and plain.
 *
 * What stands for what:
 *  - the VM's memory is a generation: each time it begins to run anywhere, a new one. What may run next is the last;
 *  - an image is two parts, each with the content it was copied from: generation, and whether the VM stood still;
 *  - the channel is a set: what is in it may arrive any number of times, in any order, or never. When it is full, any
 *    one is lost for a new one, or the new one;
 *  - the agent or the host may die behind each action of a step. A record that was not synced may be on the disk or
 *    not after the host's death;
 *  - a proof of fencing is delivered late, often or never, but dies with the host that it is for.
 */
#pragma once

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include <redoubt/types.h>

#include "standby/machine.h"

namespace standby_world {

using namespace redoubt;
using namespace redoubt::standby;

constexpr unsigned max_room = 8;

struct Message {
	u8 msg, src, epoch, from, to, digest;
	bool operator==(const Message &) const = default;
};

struct Rec {
	u8 kind, flags, epoch, boot, peer, digest;
	bool operator==(const Rec &) const = default;
};

/* The machine's memory, in bytes: times are always 0. */
struct Mem {
	u8 state, vm, flags, how, epoch, high, floor, claim, peer, dead, digest;
};

struct Host {
	Mem m;
	u8 on, up;	/* host; agent */
	u8 boot;
	u8 vm, gen;	/* what there really is, and its memory's generation */
	u8 part[2];	/* image: 2 * generation + stood still; 0: nothing */
	u8 image_epoch;
	u8 committed;	/* generation whose COMMIT went out */
	u8 streaming, copied; /* epochs */
	u8 loading, loaded, verifying;
	u8 hello;	/* a boot of the peer that is over, but whose HELLO may still lie here */
	u8 proof;	/* the peer's boot that the cluster has killed, told to this boot of this host */
	u8 unsynced;
	Rec disk[3];	/* [0] is on it, those behind it may be */
};

struct World {
	Host h[2];
	u8 gen;
	u8 crashes, fences, faults; /* what is left of each */
	u8 nr;
	Message ch[max_room];
};
static_assert(std::is_trivially_copyable_v<World> && alignof(World) == 1);

enum class Do : u8 {
	Deliver,    /* arg: which */
	LinkUp, Tick, Trigger, Abort, Copy, Sent, Loaded, LoadFailed, Verified, Fenced, Promote, PromoteProof,
	Ran,	/* somebody lets a VM run that was stopped */
	VmDied, VmLost, /* faults of the VMM */
	Part,	    /* arg: part; bit 1: content from before the stop */
	VmmLoaded,  /* the VMM has finished a load */
	Damage,	    /* the image's memory is gone while the agent is down */
	AgentDies, HostDies, Start,
	Fence,	    /* of host */
	Nr,
};

struct Choice {
	Do what;
	u8 host, arg;
	u8 dies;   /* 0: no; else behind the first dies - 1 actions ... */
	u8 host_dies; /* ... the agent, or the host with 1 + so many of the unsynced records kept */
	u8 evict;
};

/* What to search: budgets and which events there are. */
struct Bounds {
	u8 crashes, fences, faults, room, epochs;
	bool bounded;	/* mode: copies while the VM runs */
	bool cluster;	/* promotes */
	bool monitor = false; /* somebody says cont; one of the faults */
};

inline u64 boot_of(unsigned host, u8 boot)
{
	return host * 64 + boot;
}

inline Digest digest_of(u8 content)
{
	Digest d{};

	d.byte[0] = content;
	return d;
}

inline Mem pack(const Machine::Memory &m)
{
	return {u8(m.state), u8(m.vm), u8(m.link | m.barred << 1 | m.abort << 2 | m.copying << 3 | m.gone << 4 | m.failed << 5 |
			m.ran << 6), m.how,
		u8(m.epoch), u8(m.high), u8(m.floor), u8(m.claim), u8(m.peer), u8(m.dead), m.digest.byte[0]};
}

inline Machine::Memory unpack(const Mem &p)
{
	Machine::Memory m;

	m.state = State(p.state);
	m.vm = Vm(p.vm);
	m.link = p.flags & 1;
	m.barred = p.flags & 2;
	m.abort = p.flags & 4;
	m.copying = p.flags & 8;
	m.gone = p.flags & 16;
	m.failed = p.flags & 32;
	m.ran = p.flags & 64;
	m.how = p.how;
	m.epoch = p.epoch;
	m.high = p.high;
	m.floor = p.floor;
	m.claim = p.claim;
	m.peer = p.peer;
	m.dead = p.dead;
	m.digest = digest_of(p.digest);
	return m;
}

class Runner {
public:
	explicit Runner(const Bounds &b) : b_(b)
	{
	}

	/* The first state: host 0 runs the VM, host 1 is new. */
	World first()
	{
		World w{};

		w.gen = 1;
		w.crashes = b_.crashes;
		w.fences = b_.fences;
		w.faults = b_.faults;
		for (u8 i = 0; i < 2; i++) {
			w.h[i].on = w.h[i].up = w.h[i].boot = 1;
			if (i == 0) {
				w.h[i].vm = u8(Vm::Running);
				w.h[i].gen = 1;
			}
			Machine machine = machine_of(w, i);
			machine.start(nullptr, Vm(w.h[i].vm), i == 0, 0, acts_);
			w.h[i].m = pack(machine.memory());
			carry_out(w, i, {});
		}
		return w;
	}

	/* Nullptr, or the invariant that this step breaks. False in *able: it cannot happen in this state. */
	const char *step(World &w, const Choice &c, bool *able);
	/* All that can happen. Death within a step is up to the caller: actions() of the last step. */
	void choices(const World &w, std::vector<Choice> &out) const;
	[[nodiscard]] unsigned actions() const
	{
		return n_acts_;
	}
	/* Did the last step send something into a full channel? */
	[[nodiscard]] bool overflowed() const
	{
		return overflow_;
	}
	/* Of the last step. */
	[[nodiscard]] bool reported() const
	{
		return reported_;
	}
	static std::string text(const World &w);
	static std::string text(const World &w, const Choice &c);

private:
	static Machine machine_of(const World &w, unsigned i)
	{
		/* Everything is said again, and reported again, at each tick. */
		static constexpr Machine::Config config = {.repeat_ms = 0, .report_ms = 0, .link_ms = 0};

		return Machine(config, boot_of(i, w.h[i].boot), unpack(w.h[i].m));
	}
	bool event(World &w, const Choice &c, Event &ev);
	const char *carry_out(World &w, unsigned i, const Choice &c);
	const char *vm_runs(World &w, unsigned i);
	void write(Host &h, const Action &a);
	void put(World &w, const Message &m, u8 evict);
	bool let_run(World &w, const Choice &c);
	static void agent_dies(Host &h);
	static void host_dies(World &w, unsigned i, unsigned keep);
	void begin_again(World &w, unsigned i);

	Bounds b_;
	Actions acts_;
	unsigned n_acts_ = 0;
	bool overflow_ = false, reported_ = false;
};

} // namespace standby_world
