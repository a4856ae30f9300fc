// SPDX-License-Identifier: GPL-2.0
#include "standby_world.h"

#include <algorithm>
#include <cstdio>

#include "standby/machine_inside.h"

namespace standby_world {

void Runner::agent_dies(Host &h)
{
	h.up = h.hello = h.streaming = h.loading = h.loaded = h.verifying = 0;
	h.m = {};
}

/* @keep: of the records that were not synced, the last one that is on the disk. */
void Runner::host_dies(World &w, unsigned i, unsigned keep)
{
	Host &h = w.h[i];

	agent_dies(h);
	h.disk[0] = h.disk[keep];
	for (unsigned k = 1; k < 3; k++)
		h.disk[k] = {};
	h.unsynced = 0;
	h.on = 0;
	if (w.h[1 - i].up)
		w.h[1 - i].hello = u8(boot_of(i, h.boot));
	h.vm = u8(Vm::None);
	h.gen = h.committed = h.part[0] = h.part[1] = h.image_epoch = h.copied = h.proof = 0;
	h.boot++;
	/* What names the dead boot as its receiver will never be taken. (Unless that is what is tried.) */
	if (off(Guard::ToBoot))
		return;
	u8 n = 0;
	for (unsigned k = 0; k < w.nr; k++)
		if (w.ch[k].src == i)
			w.ch[n++] = w.ch[k];
	for (unsigned k = n; k < w.nr; k++)
		w.ch[k] = {};
	w.nr = n;
}

void Runner::write(Host &h, const Action &a)
{
	const Rec r = {u8(a.rec.kind), a.rec.flags, u8(a.rec.epoch), u8(a.rec.boot), u8(a.rec.peer), a.rec.digest.byte[0]};

	if (a.sync) {
		h.disk[0] = r;
		h.disk[1] = h.disk[2] = {};
		h.unsynced = 0;
		return;
	}
	/* More than two: the oldest of them has reached the disk. */
	if (h.unsynced == 2) {
		h.disk[0] = h.disk[1];
		h.disk[1] = h.disk[2];
		h.unsynced--;
	}
	h.disk[++h.unsynced] = r;
}

void Runner::put(World &w, const Message &m, u8 evict)
{
	for (unsigned k = 0; k < w.nr; k++)
		if (w.ch[k] == m)
			return;
	if (w.nr == b_.room) {
		overflow_ = true;
		if (evict == 0)
			return;
		for (unsigned k = evict - 1; k + 1 < w.nr; k++)
			w.ch[k] = w.ch[k + 1];
		w.nr--;
	}
	/* Sorted: it is a set. */
	unsigned k = w.nr++;
	for (; k != 0 && std::memcmp(&m, &w.ch[k - 1], sizeof(m)) < 0; k--)
		w.ch[k] = w.ch[k - 1];
	w.ch[k] = m;
}

/* The VM begins to run on host i, from what is in memory there. */
const char *Runner::vm_runs(World &w, unsigned i)
{
	Host &h = w.h[i];
	const char *bad = nullptr;

	if (h.gen != w.gen)
		bad = "N2: an older state of the VM runs";
	else if (h.committed == h.gen)
		bad = "N4: the primary runs what it has released";
	h.vm = u8(Vm::Running);
	h.gen = ++w.gen;
	if (w.h[1 - i].vm == u8(Vm::Running))
		bad = "N1: two run";
	return bad;
}

const char *Runner::carry_out(World &w, unsigned i, const Choice &c)
{
	Host &h = w.h[i];
	const char *bad = nullptr;
	unsigned n = 0;

	n_acts_ = 0;
	reported_ = false;
	overflow_ = false;
	for ([[maybe_unused]] const Action &a : acts_)
		n_acts_++;
	if (n_acts_ >= Actions::room)
		return "more actions than there is room for";
	for (const Action &a : acts_) {
		if (c.dies != 0 && n++ == c.dies - 1u)
			break;
		switch (a.act) {
		case Act::Journal:
			write(h, a);
			if (a.rec.kind == Kind::Released)
				h.committed = h.gen;
			break;
		case Act::Send:
			put(w, {u8(a.msg), u8(i), u8(a.epoch), u8(a.from), u8(a.to), a.digest.byte[0]}, c.evict);
			break;
		case Act::SendLacks:
			put(w, {u8(Msg::Lacks), u8(i), u8(a.epoch), u8(boot_of(i, h.boot)), h.m.peer, 0}, c.evict);
			break;
		case Act::Stream:
		case Act::Resend:
			h.streaming = u8(a.epoch);
			if (h.vm == u8(Vm::Running))
				bad = "a stream for END of a VM that runs";
			break;
		case Act::Copy:
			h.streaming = h.copied = u8(a.epoch);
			break;
		case Act::VmStop:
			if (h.vm == u8(Vm::Running))
				h.vm = u8(Vm::Stopped);
			break;
		case Act::VmCont:
			if (h.vm != u8(Vm::Stopped))
				bad = "cont of a VM that is not stopped";
			else if (const char *b = vm_runs(w, i))
				bad = b;
			break;
		case Act::VmLoad:
			if (h.part[0] == 0 || h.part[0] != h.part[1] || h.part[0] % 2 == 0 || a.epoch != h.image_epoch)
				bad = "N3: an image is loaded that is not whole";
			h.loading = 1;
			break;
		case Act::VmBoot:
			h.loaded = 1;
			if (h.vm == u8(Vm::Running))
				break;
			/* The disk is the last state by definition; all memory is older from here on. */
			h.gen = w.gen;
			h.committed = 0;
			if (const char *b = vm_runs(w, i))
				bad = b;
			break;
		case Act::VmDrop:
			if (h.vm == u8(Vm::Running))
				bad = "a VM that runs is dropped";
			h.vm = u8(Vm::None);
			h.gen = h.committed = 0;
			break;
		case Act::ImageNew:
			h.part[0] = h.part[1] = 0;
			h.image_epoch = u8(a.epoch);
			break;
		case Act::ImageDrop:
			if (h.part[0] == h.part[1] && h.part[0] == 2 * w.gen + 1 && w.h[1 - i].committed == w.gen)
				bad = "N7: a released image is thrown away";
			/* Nobody wipes it. */
			break;
		case Act::Verify:
			h.verifying = 1;
			break;
		case Act::Report:
			reported_ = true;
			if (a.report == Report::TwoRun)
				bad = "the machine itself sees two";
			break;
		}
		if (bad != nullptr)
			return bad;
	}
	if (c.dies != 0) {
		if (c.host_dies != 0)
			host_dies(w, i, min_of<unsigned>(c.host_dies - 1u, h.unsynced));
		else
			agent_dies(h);
	}
	return nullptr;
}

/*
 * Has a VM run of which the journal does not know? Nobody can help it if its host dies now: such deaths are left out.
 */
static bool ran_unseen(const Host &h)
{
	const Kind k = Kind(h.disk[h.unsynced].kind);

	return h.vm == u8(Vm::Running) && (k == Kind::Sealed || k == Kind::Aborting);
}

/* A cont at the monitor: of a VM that was stopped to be sent. */
bool Runner::let_run(World &w, const Choice &c)
{
	Host &h = w.h[c.host];
	const Kind k = Kind(h.disk[h.unsynced].kind);

	if (!b_.monitor || w.faults == 0 || h.vm != u8(Vm::Stopped) || w.h[1 - c.host].vm == u8(Vm::Running) ||
	    (k != Kind::Frozen && k != Kind::Sealed && k != Kind::Aborting) || (c.host_dies != 0 && c.dies == 1))
		return false;
	w.faults--;
	h.vm = u8(Vm::Running);
	h.gen = ++w.gen;
	return true;
}

/* The event of a choice, if it can happen; what the world does by itself before the machine hears of it. */
bool Runner::event(World &w, const Choice &c, Event &ev)
{
	Host &h = w.h[c.host], &o = w.h[1 - c.host];
	const State s = State(h.m.state);

	switch (c.what) {
	case Do::Deliver: {
		const Message &m = w.ch[c.arg];

		if (m.src == c.host)
			return false;
		ev = {.ev = Ev::Message, .msg = Msg(m.msg), .whole = false, .from = m.from, .to = m.to, .epoch = m.epoch,
		      .digest = digest_of(m.digest), .mine = {}};
		if (ev.msg == Msg::End) {
			ev.whole = h.part[0] != 0 && h.part[1] != 0;
			if (ev.whole)
				ev.mine = digest_of(h.part[0] == h.part[1] ? h.part[0] : 255);
		}
		return true;
	}
	case Do::LinkUp:
		/* Its HELLO may be the last that it did. */
		ev = {.ev = Ev::LinkUp, .from = o.up ? boot_of(1 - c.host, o.boot) : h.hello};
		if (o.up)
			h.hello = 0;
		return ev.from != 0;
	case Do::Tick:
		ev = {.ev = Ev::Tick};
		return h.m.flags & 1;
	case Do::Trigger:
		ev = {.ev = Ev::Trigger};
		return s == State::Active || (h.m.flags & 4);
	case Do::Abort:
		ev = {.ev = Ev::Abort};
		return s == State::Frozen || s == State::Sealed || s == State::Aborting || s == State::Released;
	case Do::Copy:
		ev = {.ev = Ev::Copy};
		return b_.bounded && s == State::Active && h.vm == u8(Vm::Running);
	case Do::Sent:
		/* Of this epoch; or, late, of the one before. */
		ev = {.ev = Ev::Sent, .epoch = h.streaming, .digest = digest_of(u8(2 * h.gen + 1))};
		return h.streaming != 0 && (h.vm == u8(Vm::Stopped) || h.vm == u8(Vm::Kept)) &&
		       (s == State::Frozen || s == State::Sealed);
	case Do::Loaded:
		ev = {.ev = Ev::Loaded};
		if (!h.loaded)
			return false;
		h.loaded = 0;
		return true;
	case Do::LoadFailed:
		ev = {.ev = Ev::LoadFailed};
		if (!h.loading || w.faults == 0)
			return false;
		w.faults--;
		h.loading = 0;
		return true;
	case Do::Verified: {
		const bool whole = h.part[0] != 0 && h.part[0] == h.part[1];

		ev = {.ev = Ev::Verified, .whole = whole, .digest = digest_of(whole ? h.part[0] : 0)};
		if (!h.verifying)
			return false;
		h.verifying = 0;
		return true;
	}
	case Do::Fenced:
		ev = {.ev = Ev::Fenced, .from = h.proof};
		return h.proof != 0;
	case Do::Promote:
		ev = {.ev = Ev::Promote};
		return b_.cluster;
	case Do::PromoteProof:
		ev = {.ev = Ev::Promote, .from = h.proof};
		return b_.cluster && h.proof != 0;
	case Do::Ran:
		ev = {.ev = Ev::VmRan};
		return let_run(w, c);
	case Do::VmDied:
	case Do::VmLost:
		if (b_.monitor || w.faults == 0 || h.vm == u8(Vm::None) || (c.what == Do::VmDied && h.vm == u8(Vm::Kept)))
			return false;
		w.faults--;
		/* A VMM that has loaded and not run yet has no state of its own. */
		if (s == State::Starting && h.m.how == rec_image)
			ev = {.ev = Ev::VmLost};
		else
			ev = {.ev = c.what == Do::VmDied ? Ev::VmDied : Ev::VmLost};
		h.loading = h.loaded = 0;
		h.vm = u8(ev.ev == Ev::VmDied ? Vm::Kept : Vm::None);
		if (ev.ev == Ev::VmLost)
			h.gen = h.committed = 0;
		return true;
	default:
		return false;
	}
}

void Runner::begin_again(World &w, unsigned i)
{
	Host &h = w.h[i];
	const Rec &r = h.disk[h.unsynced];
	Journal out, in;
	u8 file[Journal::file_bytes] = {};
	u8 rec[Journal::record_bytes];

	/* Through the journal's own bytes. */
	if (r.kind != 0) {
		const u64 at = out.next({.kind = Kind(r.kind), .flags = r.flags, .epoch = r.epoch, .boot = r.boot, .peer = r.peer,
					 .digest = digest_of(r.digest)}, rec);
		std::memcpy(file + at, rec, sizeof(rec));
	}
	const bool found = in.load(file, sizeof(file)) == Status::Ok;
	Machine machine(Machine::Config{.repeat_ms = 0, .report_ms = 0, .link_ms = 0}, boot_of(i, h.boot));

	h.on = h.up = 1;
	/* Only the very first agent of host 0 has seen a VM without a journal. */
	machine.start(found ? &in.last() : nullptr, Vm(h.vm), false, 0, acts_);
	h.m = pack(machine.memory());
}

const char *Runner::step(World &w, const Choice &c, bool *able)
{
	Host &h = w.h[c.host], &o = w.h[1 - c.host];

	*able = true;
	acts_.clear();
	n_acts_ = 0;
	overflow_ = reported_ = false;
	switch (c.what) {
	case Do::AgentDies:
		if ((*able = h.up && w.crashes)) {
			w.crashes--;
			agent_dies(h);
		}
		return nullptr;
	case Do::HostDies:
		if ((*able = h.on && w.crashes && c.arg <= h.unsynced && !ran_unseen(h))) {
			w.crashes--;
			host_dies(w, c.host, c.arg);
		}
		return nullptr;
	case Do::Fence:
		/* Of this host; the other is told, if it is there to be told. */
		if ((*able = w.fences && o.up && c.arg <= h.unsynced)) {
			w.fences--;
			o.proof = u8(boot_of(c.host, u8(h.boot - !h.on)));
			if (h.on)
				host_dies(w, c.host, c.arg);
		}
		return nullptr;
	case Do::Start:
		if (!(*able = !h.up && !(ran_unseen(h) && c.host_dies != 0 && c.dies == 1)))
			return nullptr;
		begin_again(w, c.host);
		return carry_out(w, c.host, c);
	case Do::Damage:
		if ((*able = h.on && !h.up && w.faults && h.image_epoch)) {
			w.faults--;
			h.part[1] = 0;
		}
		return nullptr;
	case Do::VmmLoaded:
		if (!(*able = h.on && h.loading))
			return nullptr;
		h.loading = 0;
		h.loaded = 1;
		h.vm = u8(Vm::Stopped);
		h.gen = h.part[0] / 2;
		return nullptr;
	case Do::Part: {
		const bool old = c.arg & 2;
		u8 content = u8(2 * h.gen + (h.vm != u8(Vm::Running)));

		*able = h.up && h.streaming && h.vm != u8(Vm::None) && o.up && h.streaming == h.m.epoch &&
			(!old || h.copied == h.streaming) &&
			Machine({}, boot_of(1 - c.host, o.boot), unpack(o.m))
				.receives(h.streaming, boot_of(c.host, h.boot), h.m.peer);
		if (old)
			content = u8(2 * h.gen);
		if (*able)
			o.part[c.arg & 1] = content;
		return nullptr;
	}
	case Do::Ran:
		if (h.up)
			break;
		*able = let_run(w, c);
		return nullptr;
	default:
		break;
	}
	Event ev = {};
	if (!(*able = h.up && event(w, c, ev)))
		return nullptr;
	/* Dying costs. */
	if (c.dies != 0) {
		if (!(*able = w.crashes != 0))
			return nullptr;
		w.crashes--;
	}
	Machine machine = machine_of(w, c.host);
	machine.step(ev, 0, acts_);
	h.m = pack(machine.memory());
	return carry_out(w, c.host, c);
}

void Runner::choices(const World &w, std::vector<Choice> &out) const
{
	out.clear();
	for (u8 i = 0; i < 2; i++) {
		const Host &h = w.h[i];
		const auto add = [&](Do what, u8 arg = 0) {
			out.push_back({what, i, arg, 0, 0, 0});
		};

		if (!h.up) {
			add(Do::Start);
			add(Do::Damage);
			add(Do::Ran);
		} else {
			for (u8 k = 0; k < w.nr; k++)
				if (w.ch[k].src != i)
					add(Do::Deliver, k);
			for (u8 d = u8(Do::LinkUp); d <= u8(Do::VmLost); d++)
				add(Do(d));
			for (u8 p = 0; p < 4; p++)
				add(Do::Part, p);
			add(Do::AgentDies);
		}
		add(Do::VmmLoaded);
		for (u8 k = 0; k <= h.unsynced; k++) {
			add(Do::HostDies, k);
			add(Do::Fence, k);
		}
	}
}

std::string Runner::text(const World &w)
{
	static constexpr const char *vms[] = {"-", "waiting", "stopped", "RUNS", "kept"};
	char line[160];
	std::string s;

	for (unsigned i = 0; i < 2; i++) {
		const Host &h = w.h[i];
		std::snprintf(line, sizeof(line), "  %c%u: %s e%u h%u vm=%s gen=%u image=e%u(%u,%u) disk=%u:e%u%s peer=%u;",
			      'a' + i, h.boot, !h.on ? "OFF" : !h.up ? "agent down" : state_name(State(h.m.state)),
			      h.m.epoch, h.m.high, vms[h.vm], h.gen, h.image_epoch, h.part[0], h.part[1],
			      h.disk[h.unsynced].kind, h.disk[h.unsynced].epoch, h.unsynced ? "?" : "", h.m.peer);
		s += line;
	}
	for (unsigned k = 0; k < w.nr; k++) {
		std::snprintf(line, sizeof(line), " %c>%s(%u,%u>%u)", 'a' + w.ch[k].src, msg_name(Msg(w.ch[k].msg)),
			      w.ch[k].epoch, w.ch[k].from, w.ch[k].to);
		s += line;
	}
	return s;
}

std::string Runner::text(const World &w, const Choice &c)
{
	static constexpr const char *names[] = {"gets", "link up", "tick", "trigger", "abort", "copy", "sent", "loaded",
						"load failed", "verified", "fenced", "promote", "promote with proof",
						"is let run", "VMM dies", "VM lost", "page", "VMM has loaded", "image damaged",
						"agent dies", "host dies", "agent starts", "is fenced"};
	std::string s = std::string(1, char('a' + c.host)) + " " + names[unsigned(c.what)];

	if (c.what == Do::Deliver)
		s += std::string(" ") + msg_name(Msg(w.ch[c.arg].msg)) + "(" + std::to_string(w.ch[c.arg].epoch) + ")";
	if (c.dies != 0)
		s += std::string(c.host_dies ? ", host" : ", agent") + " dies behind " + std::to_string(c.dies - 1) + " actions";
	return s;
}

} // namespace standby_world
