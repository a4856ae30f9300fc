// SPDX-License-Identifier: GPL-2.0
//
// The other host. Two connections, open long before they are needed: control and
// pages. Together they are one link: it is up when both have said HELLO from the same
// boot, and the end of one is the end of both.
//
// One of the two agents calls (Config::caller()), the other one listens, so there is
// never a second link to choose from; a new connection takes the old one's place only
// after its handshake, so a stranger cannot push anybody out.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <standby/wire.h>

#include "config.h"
#include "tls.h"

namespace redoubt::agent {

namespace sb = redoubt::standby;

class Peer {
public:
	struct Handlers {
		std::function<void(uint64_t boot)> up;
		std::function<void(const std::string &why)> down;
		std::function<void(const sb::Header &, const sb::Body &)> message;
		std::function<void()> room;	// the pages connection has room for more, or go_on() wants it
	};

	Peer(Loop &loop, const Config &config, uint64_t boot, Handlers handlers);
	~Peer();
	Peer(const Peer &) = delete;

	static inline milliseconds silence{10'000};	// a peer that says nothing for longer is none; tests have less

	void start();
	bool up() const { return up_; }
	// @h.body and @h.seq are filled in. Lost if the link is not up.
	void send(Channel channel, sb::Header h, std::span<const uint8_t> head, std::span<const uint8_t> data = {});
	// @then: when all that was sent on the pages connection until now has been taken in by
	// the peer. Never, if the link ends before.
	void barrier(std::function<void()> then);
	// What the link carries, measured with so many bytes that mean nothing: goodput, bytes a second. Never, if the link ends before.
	void probe(uint64_t bytes, std::function<void(uint64_t bytes_per_second)> then);
	bool has_room() const { return up_ && pages_->link->room(); }
	// room() once more, behind what else is waiting: all of a turn was used, and there is more.
	void go_on();
	// Nothing waits: the link is faster than what fills it.
	bool idle() const { return up_ && pages_->link->queued() == 0; }
	uint64_t bytes_sent() const;
	std::string state_text() const;
	// Strangers and broken handshakes since the start
	uint64_t refused() const { return refused_; }

private:
	struct Conn {
		std::unique_ptr<TlsLink> link;
		std::string from;		// address, for the log
		std::optional<Channel> channel;	// once the handshake is done
		bool greeted = false;		// the peer's HELLO is there
		uint64_t boot = 0, sent = 0, received = 0;
		std::vector<uint8_t> in;
		Loop::Timer limit = 0;		// for the handshake and HELLO
	};
	using ConnPtr = std::shared_ptr<Conn>;

	void listen();
	void on_accept();
	void call(Channel channel);
	void on_called(Fd fd, Channel channel);
	void call_later(const std::string &why);
	void call_failed(const std::string &why);
	void adopt(Fd fd, Owned<SSL> ssl, const std::string &from);
	void on_open(const ConnPtr &conn, Channel channel);
	void on_data(const ConnPtr &conn, std::span<const uint8_t> bytes);
	void on_message(const ConnPtr &conn, const sb::Header &h, const uint8_t *body);
	void on_hello(const ConnPtr &conn, const sb::Header &h, const sb::Body &body);
	void on_closed(const ConnPtr &conn, const std::string &why);
	void write(Conn &conn, sb::Header h, std::span<const uint8_t> head, std::span<const uint8_t> data);
	// Closes both connections of the link.
	void drop_link(const std::string &why);
	void discard(ConnPtr &conn);
	void ping(Conn &conn, uint64_t cookie, bool answer);
	void beat();

	Loop &loop_;
	const Config &config_;
	Identity identity_;
	uint64_t boot_;
	Handlers handlers_;
	Fd listener_, calling_;
	std::deque<ConnPtr> fresh_;	// not greeted yet, the oldest first
	ConnPtr control_, pages_;
	bool up_ = false;
	Loop::Timer beat_ = 0, redial_ = 0;
	Loop::Clock::time_point heard_, beaten_;
	bool goes_on_ = false;
	std::shared_ptr<bool> life_ = std::make_shared<bool>(true);
	std::weak_ptr<bool> alive_ = life_;	// for what nobody cancels
	uint64_t cookie_ = 0, refused_ = 0;
	std::map<uint64_t, std::function<void()>> barriers_;	// by the cookie of their PING
	std::string why_down_ = "not connected yet";
	std::set<std::string> told_;	// reasons, since the link was up: each is said once

};

} // namespace redoubt::agent
