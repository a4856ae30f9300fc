// SPDX-License-Identifier: GPL-2.0
/* The machine's names and reports, in words. */
#include "machine.h"
#include "wire.h"

namespace redoubt::standby {

const char *state_name(State s)
{
	switch (s) {
	case State::Void: return "void";
	case State::Claiming: return "claiming";
	case State::Empty: return "empty";
	case State::Receiving: return "receiving";
	case State::Verifying: return "verifying";
	case State::Complete: return "complete";
	case State::Starting: return "starting";
	case State::Active: return "active";
	case State::Frozen: return "frozen";
	case State::Sealed: return "sealed";
	case State::Aborting: return "aborting";
	case State::Released: return "released";
	case State::Stuck: return "stuck";
	}
	return "?";
}

const char *msg_name(Msg m)
{
	static constexpr const char *name[] = {"none", "hello", "ping", "begin", "pages", "same", "state", "end",
					       "lacks", "prepared", "commit", "running", "discard", "discarded",
					       "empty", "ask", "gone", "claim", "yield", "ready"};
	const auto n = static_cast<unsigned>(m);

	return n < sizeof(name) / sizeof(name[0]) ? name[n] : "?";
}

const char *unready_text(Unready u)
{
	switch (u) {
	case Unready::No: return "a QEMU waits for the VM there";
	case Unready::NotBegun: return "its agent does not know yet what is there";
	case Unready::Stuck: return "its agent is stuck; its own status says why";
	case Unready::NoVmm: return "no QEMU waits for the VM there";
	case Unready::NotWaiting: return "its QEMU does not wait for an image (-incoming defer)";
	case Unready::Refuses: return "its QEMU cannot take such an image; its own status says why";
	case Unready::Memory: return "its RAM file is not there, or not its QEMU's memory; its own status says why";
	}
	return "?";
}

const char *report_text(Report r)
{
	switch (r) {
	case Report::None: return "nothing";
	case Report::Go: return "the VM is stopped and is being sent to the standby";
	case Report::Resumed: return "the attempt has ended, the VM runs here again";
	case Report::HandedOver: return "the peer runs the VM; this host is its standby now";
	case Report::TookOver: return "this host runs the VM, from the peer's image";
	case Report::ColdStart: return "this host runs the VM, started from its disk";
	case Report::Crashed:
		return "this host may run the VM, but it is not there; to start it from its disk: promote";
	case Report::Lost:
		return "the VM's memory is gone and no standby has an image; the cluster may start it from its disk";
	case Report::HostRebooted:
		return "this host went down with the VM; a complete standby goes on, or the cluster starts it from its disk";
	case Report::CannotResume:
		return "the VM cannot go on here (its VMM is dead, or it was released once); it waits for the standby";
	case Report::AlreadyReleased: return "the standby may run the VM already; it cannot go on here";
	case Report::WaitsForPeer:
		return "the VM is stopped and the standby does not answer; the link, or fencing the standby, resolves it";
	case Report::WaitsForPrimary:
		return "the image is complete and the primary does not answer; the link, or fencing the primary, resolves it";
	case Report::Incomplete: return "the image is incomplete and is not started; the primary must send again";
	case Report::ImageLost: return "the image that was complete is lost; the primary sends it again if it can";
	case Report::DigestDiffers: return "what arrived is not what was sent; it is sent again";
	case Report::LoadFailed:
		return "the VMM does not load the image; nobody else may run it; mend the VMM, then promote";
	case Report::NotFenced:
		return "refused: nothing proves that the peer does not run the VM; fence it, or bring up the link";
	case Report::StaleProof:
		return "refused: what was fenced is not the peer's present boot; fence it again";
	case Report::BothVoid: return "neither side has the VM; the cluster may start it from its disk";
	case Report::JournalBad: return "the journal cannot be read or written; mend the disk and start the agent again";
	case Report::TwoRun: return "the peer says that it runs the VM, too; it is stopped here; look at both hosts";
	case Report::NoVm: return "there is no VM here to send";
	}
	return "?";
}

} // namespace redoubt::standby
