// SPDX-License-Identifier: GPL-2.0
//
// One VM of a host that has panicked, on its way to the standby. The machine of src/core/standby decides, as it does in redoubtd: this is an
// agent that was started again, in the same boot, with a VM whose VMM is dead and whose memory is kept.
//
// There is no VMM here, so there is nothing that could let the VM run; and no journal, for its promises are about this memory, which
// ends with us: what the host's own journal says counts again when it has booted.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <standby/machine.h>

#include "../redoubtd/config.h"
#include "../redoubtd/peer.h"
#include "salvage.h"

namespace redoubt::crash {

class Carrier {
public:
	// All of these stay as long as this.
	Carrier(const agent::Config &config, agent::Peer &peer, Salvage &vm, const uint8_t (&uuid)[16]);
	Carrier(const Carrier &) = delete;

	// Nothing more is to be done: the peer runs it, or failed() says why it does not.
	bool done() const { return done_; }
	const std::string &failed() const { return failed_; }
	const std::string &name() const { return vm_.note().vm; }
	const char *state() const { return sb::state_name(machine_.state()); }
	const sb::Uuid &uuid() const { return uuid_; }
	const agent::Progress &progress() const { return sender_.progress(); }

	void link_up(uint64_t boot);
	void link_down();
	void message(const sb::Header &h, const sb::Body &body);
	void tick();
	bool sending() const { return sender_.busy(); }
	// False: the next one's turn is not before this has gone on.
	bool pump() { return sender_.pump(); }

private:
	void step(const sb::Event &event);
	void act(const sb::Action &a);
	void send(const sb::Action &a);
	void stream(uint64_t epoch);
	void confirm();
	void resend();
	void hear_ready(const sb::Header &h, const sb::Body &body);
	void fail(const std::string &why);
	void say(const std::string &line) const;

	agent::Peer &peer_;
	Salvage &vm_;
	sb::Uuid uuid_;
	const uint64_t boot_;
	SalvageSource source_;
	agent::Sender sender_;
	sb::Machine machine_;
	std::optional<uint64_t> link_;
	bool ready_ = false, deferred_ = false, done_ = false, stepping_ = false;
	std::string failed_, unready_;
	std::deque<sb::Event> events_;		// that came in the middle of a step
	std::optional<sb::Digest> unconfirmed_;
	uint64_t stream_epoch_ = 0;
	std::vector<sb::Run> lacks_;
	uint32_t lacks_flags_ = 0;
	unsigned resends_ = 0;
};

} // namespace redoubt::crash
