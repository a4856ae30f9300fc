// SPDX-License-Identifier: GPL-2.0

#include "peer.h"

#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "log.h"

namespace redoubt::agent {

namespace {

constexpr milliseconds beat_every{1'000}, hello_limit{10'000}, redial_after{300};
constexpr size_t max_fresh = 16;	// connections that have not greeted yet

// The kernel's form of an address that was checked when the configuration was read.
socklen_t make_address(const std::string &text, uint16_t port, sockaddr_storage &out)
{
	auto *v4 = reinterpret_cast<sockaddr_in *>(&out);
	auto *v6 = reinterpret_cast<sockaddr_in6 *>(&out);

	out = {};
	if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr);
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	return sizeof(*v6);
}

std::string address_text(const sockaddr_storage &address)
{
	char text[INET6_ADDRSTRLEN] = "?";

	if (address.ss_family == AF_INET)
		inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in &>(address).sin_addr, text, sizeof(text));
	else if (address.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6 &>(address).sin6_addr, text, sizeof(text));
	return text;
}

// A listener for both families has IPv4's addresses in IPv6's form.
bool from_peer(const sockaddr_storage &address, const std::string &peer)
{
	sockaddr_storage want;

	make_address(peer, 0, want);
	const auto &v4 = reinterpret_cast<const sockaddr_in &>(want).sin_addr;
	const auto &from6 = reinterpret_cast<const sockaddr_in6 &>(address).sin6_addr;
	if (want.ss_family == AF_INET6)
		return address.ss_family == AF_INET6 && !memcmp(&from6, &reinterpret_cast<const sockaddr_in6 &>(want).sin6_addr, sizeof(from6));
	if (address.ss_family == AF_INET)
		return !memcmp(&reinterpret_cast<const sockaddr_in &>(address).sin_addr, &v4, sizeof(v4));
	return address.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&from6) && !memcmp(from6.s6_addr + 12, &v4, sizeof(v4));
}

void set_option(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)))
		throw Error("setsockopt", errno);
}

void tune(int fd)
{
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	// What is sent and not acknowledged for so long is lost, whatever TCP would hope for.
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(Peer::silence.count()));
}

} // namespace

Peer::Peer(Loop &loop, const Config &config, uint64_t boot, Handlers handlers)
	: loop_(loop), config_(config), identity_(config.key, config.certificate, config.peer.certificate), boot_(boot),
	  handlers_(std::move(handlers))
{
}

Peer::~Peer()
{
	for (const auto *fd : {&listener_, &calling_}) {
		if (*fd)
			loop_.forget(fd->get());
	}
	loop_.cancel(beat_);
	loop_.cancel(redial_);
	for (const ConnPtr &conn : fresh_) {
		loop_.cancel(conn->limit);
		conn->link.reset();
	}
	for (const ConnPtr &conn : {control_, pages_}) {
		if (conn)
			conn->link.reset();
	}
}

void Peer::start()
{
	if (config_.caller())
		call(Channel::control);
	else
		listen();
	beaten_ = Loop::Clock::now();
	beat();
}

void Peer::listen()
{
	sockaddr_storage address;
	const socklen_t size = make_address(config_.listen_address, config_.listen_port, address);
	const std::string name = config_.listen_address + " port " + std::to_string(config_.listen_port);

	listener_ = Fd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (!listener_)
		throw Error("socket", errno);
	set_option(listener_.get(), SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(listener_.get(), reinterpret_cast<sockaddr *>(&address), size) || ::listen(listener_.get(), 16))
		throw Error("listen at " + name, errno);
	loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { on_accept(); });
}

void Peer::on_accept()
{
	sockaddr_storage address{};
	socklen_t size = sizeof(address);
	Fd fd(accept4(listener_.get(), reinterpret_cast<sockaddr *>(&address), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));

	if (!fd)
		return;		// gone again, or no descriptor left: it will try again
	// Nobody else is given a handshake, or memory.
	if (!from_peer(address, config_.peer.address)) {
		refused_++;
		if (told_.size() < 16 && told_.insert(address_text(address)).second)
			say("a connection from " + address_text(address) + " is refused: it is not " + config_.peer.address);
		return;
	}
	// Who takes long to say who he is makes room: strangers must not keep the peer out.
	if (fresh_.size() >= max_fresh)
		on_closed(ConnPtr(fresh_.front()), "too many that have not said who they are");
	try {
		tune(fd.get());
		Owned<SSL> ssl = identity_.accept(fd.get());
		adopt(std::move(fd), std::move(ssl), address_text(address));
	} catch (const Error &error) {
		say(error.what());
	}
}

void Peer::call(Channel channel)
{
	sockaddr_storage address;
	const socklen_t size = make_address(config_.peer.address, config_.peer.port, address);

	try {
		calling_ = Fd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
		if (!calling_)
			throw Error("socket", errno);
		tune(calling_.get());
		if (connect(calling_.get(), reinterpret_cast<sockaddr *>(&address), size) && errno != EINPROGRESS)
			throw Error("connect", errno);
		loop_.watch(calling_.get(), EPOLLOUT, [this, channel](uint32_t) {
			loop_.forget(calling_.get());
			on_called(std::move(calling_), channel);
		});
	} catch (const Error &error) {
		call_failed(error.what());
	}
}

// Half a link is none. Nothing of this call may be left, or the next would never be made.
void Peer::call_failed(const std::string &why)
{
	calling_ = Fd();
	if (control_)
		drop_link(why);
	else
		call_later(why);
}

void Peer::on_called(Fd fd, Channel channel)
{
	int error = 0;
	socklen_t size = sizeof(error);

	try {
		if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) || error)
			throw Error("connect", error ? error : errno);
		Owned<SSL> ssl = identity_.call(fd.get(), channel);
		adopt(std::move(fd), std::move(ssl), config_.peer.address);
	} catch (const Error &failed) {
		call_failed(failed.what());
	}
}

void Peer::call_later(const std::string &why)
{
	why_down_ = why;
	if (!config_.caller() || redial_)
		return;
	redial_ = loop_.after(redial_after, [this] {
		redial_ = 0;
		if (!calling_ && !control_ && fresh_.empty())
			call(Channel::control);
	});
}

void Peer::adopt(Fd fd, Owned<SSL> ssl, const std::string &from)
{
	const auto conn = std::make_shared<Conn>();

	conn->from = from;
	conn->limit = loop_.after(hello_limit, [this, conn] {
		conn->limit = 0;
		on_closed(conn, "no greeting in time");
	});
	// A connection holds itself by these until it is discarded.
	conn->link = std::make_unique<TlsLink>(loop_, std::move(fd), std::move(ssl), TlsLink::Handlers{
		[this, conn](Channel channel) { on_open(conn, channel); },
		[this, conn](std::span<const uint8_t> bytes) { on_data(conn, bytes); },
		[this, conn] {
			if (conn == pages_ && up_)
				handlers_.room();
		},
		[this, conn](const std::string &why) { on_closed(conn, why); },
	});
	fresh_.push_back(conn);
}

void Peer::on_open(const ConnPtr &conn, Channel channel)
{
	uint8_t body[64];

	conn->channel = channel;
	const uint32_t size = sb::put_hello(body, config_.me.c_str());
	write(*conn, {.msg = sb::Msg::Hello, .body = 0, .vm = {}, .epoch = 0, .from = boot_, .to = 0, .seq = 0}, {body, size}, {});
}

void Peer::write(Conn &conn, sb::Header h, std::span<const uint8_t> head, std::span<const uint8_t> data)
{
	uint8_t bytes[sb::header_bytes];

	h.body = static_cast<uint32_t>(head.size() + data.size());
	h.seq = ++conn.sent;
	sb::put_header(bytes, h);
	conn.link->send(bytes);
	conn.link->send(head);
	if (!data.empty())
		conn.link->send(data);
}

void Peer::send(Channel channel, sb::Header h, std::span<const uint8_t> head, std::span<const uint8_t> data)
{
	if (up_)
		write(channel == Channel::control ? *control_ : *pages_, h, head, data);
}

void Peer::on_data(const ConnPtr &conn, std::span<const uint8_t> bytes)
{
	conn->in.insert(conn->in.end(), bytes.begin(), bytes.end());
	size_t at = 0;
	while (conn->link && conn->in.size() - at >= sb::header_bytes) {
		sb::Header h;
		const Status status = sb::get_header(conn->in.data() + at, &h);

		if (status != Status::Ok || h.seq != conn->received + 1) {
			on_closed(conn, status == Status::Refused ? "the peer speaks another version" : "what came is no message");
			return;
		}
		if (conn->in.size() - at - sb::header_bytes < h.body)
			break;
		conn->received++;
		on_message(conn, h, conn->in.data() + at + sb::header_bytes);
		at += sb::header_bytes + h.body;
	}
	if (conn->link && at)
		conn->in.erase(conn->in.begin(), conn->in.begin() + static_cast<ptrdiff_t>(at));
}

void Peer::on_message(const ConnPtr &conn, const sb::Header &h, const uint8_t *bytes)
{
	sb::Body body;

	if (sb::get_body(h, bytes, &body) != Status::Ok) {
		on_closed(conn, std::string("a message of a wrong form: ") + sb::msg_name(h.msg));
		return;
	}
	if (conn == control_)
		heard_ = Loop::Clock::now();
	if (!conn->greeted || h.msg == sb::Msg::Hello) {
		if (conn->greeted || h.msg != sb::Msg::Hello)
			on_closed(conn, "a greeting was missing, or one too many");
		else
			on_hello(conn, h, body);
		return;
	}
	if (h.msg == sb::Msg::Ping) {
		if (!body.answer && conn->link->queued() > TlsLink::high_water && conn == control_) {
			on_closed(conn, "the peer asks and does not take the answers");
		} else if (!body.answer) {
			ping(*conn, body.cookie, true);
		} else if (auto found = barriers_.extract(body.cookie); conn == pages_ && !found.empty()) {
			found.mapped()();
		}
		return;
	}
	// Of a connection that is none of the link's any more nothing counts.
	if (up_ && (conn == control_ || conn == pages_))
		handlers_.message(h, body);
}

void Peer::on_hello(const ConnPtr &conn, const sb::Header &h, const sb::Body &body)
{
	if (body.name != config_.peer.name) {
		on_closed(conn, "the peer is '" + std::string(body.name) + "', not '" + config_.peer.name + "'");
		return;
	}
	loop_.cancel(conn->limit);
	conn->greeted = true;
	conn->boot = h.from;
	// Not on a frozen VM's way, and not for strangers
	conn->in.reserve(sb::header_bytes + sb::max_body);
	conn->link->reserve();
	std::erase(fresh_, conn);
	if (*conn->channel == Channel::control) {
		drop_link("the peer has connected anew");
		control_ = conn;
		heard_ = Loop::Clock::now();
		// Control without pages is of no use, to neither side.
		conn->limit = loop_.after(hello_limit, [this, conn] {
			conn->limit = 0;
			if (conn == control_ && !pages_)
				drop_link("no second connection in time");
		});
		if (config_.caller())
			call(Channel::pages);
		return;
	}
	if (!control_ || control_->boot != conn->boot || pages_) {
		// Left over from a link that is no more.
		auto late = conn;
		drop_link("two connections that do not belong together");
		discard(late);
		return;
	}
	pages_ = conn;
	up_ = true;
	told_.clear();
	say("link to " + config_.peer.name + " (" + conn->from + ") is up");
	handlers_.up(conn->boot);
}

void Peer::on_closed(const ConnPtr &conn, const std::string &why)
{
	if (!conn->link)
		return;
	if (conn == control_ || conn == pages_) {
		drop_link(why);
		return;
	}
	if (std::erase(fresh_, conn)) {
		// A stranger, or a peer whose certificate is another than ours says.
		refused_++;
		if (!config_.caller())
			say("a connection from " + conn->from + " is refused: " + why);
		else if (told_.size() < 16 && told_.insert(why).second)
			say("the call to " + config_.peer.name + " (" + conn->from + ") fails: " + why);
	}
	auto dead = conn;
	discard(dead);
	// A caller without one half of the link begins anew.
	if (config_.caller()) {
		if (control_)
			drop_link(why);
		call_later(why);
	}
}

void Peer::discard(ConnPtr &conn)
{
	if (!conn)
		return;
	loop_.cancel(conn->limit);
	// Not here: this may be one of its own handlers.
	if (conn->link) {
		auto link = std::shared_ptr<TlsLink>(std::move(conn->link));

		link->abandon();
		loop_.soon([link] {});
	}
	conn.reset();
}

void Peer::drop_link(const std::string &why)
{
	const bool was_up = up_;

	if (!control_ && !pages_)
		return;
	up_ = false;
	why_down_ = why;
	barriers_.clear();
	discard(control_);
	discard(pages_);
	if (calling_) {
		loop_.forget(calling_.get());
		calling_ = Fd();
	}
	if (was_up) {
		say("link to " + config_.peer.name + " is down: " + why);
		handlers_.down(why);
	}
	call_later(why);
}

void Peer::beat()
{
	const Loop::Clock::time_point now = Loop::Clock::now(), due = beaten_ + beat_every;

	beat_ = loop_.after(beat_every, [this] { beat(); });
	// In the time in which this loop was held up it has listened to nobody: what has come is looked at first.
	if (now > due)
		heard_ += now - due;
	beaten_ = now;
	if (!control_)
		return;
	if (now - heard_ > silence) {
		drop_link("no sign of life for " + std::to_string(silence.count() / 1000) + " s");
		return;
	}
	ping(*control_, ++cookie_, false);
}

void Peer::ping(Conn &conn, uint64_t cookie, bool answer)
{
	uint8_t head[16];
	const uint32_t size = sb::put_ping(head, cookie, answer);

	write(conn, {.msg = sb::Msg::Ping, .body = 0, .vm = {}, .epoch = 0, .from = boot_, .to = conn.boot, .seq = 0}, {head, size}, {});
}

// What is taken in is answered in its order, and PING is no exception.
void Peer::barrier(std::function<void()> then)
{
	if (!up_)
		return;
	barriers_[++cookie_] = std::move(then);
	ping(*pages_, cookie_, false);
}

void Peer::probe(uint64_t bytes, std::function<void(uint64_t)> then)
{
	static const std::vector<uint8_t> padding(sb::max_chunk);
	const auto began = Loop::Clock::now();

	if (!up_)
		return;
	for (uint64_t sent = 0; sent < bytes; sent += padding.size()) {
		uint8_t head[16];
		const uint32_t size = sb::put_ping(head, ++cookie_, false);

		write(*pages_, {.msg = sb::Msg::Ping, .body = 0, .vm = {}, .epoch = 0, .from = boot_, .to = pages_->boot, .seq = 0}, {head, size}, padding);
	}
	barrier([bytes, began, then = std::move(then)] {
		const auto us = std::chrono::duration_cast<std::chrono::microseconds>(Loop::Clock::now() - began).count();

		then(bytes * 1'000'000 / std::max<uint64_t>(1, static_cast<uint64_t>(us)));
	});
}

void Peer::go_on()
{
	if (goes_on_)
		return;
	goes_on_ = true;
	loop_.soon([this, gone = alive_] {
		if (!gone.lock())
			return;
		goes_on_ = false;
		if (up_)
			handlers_.room();
	});
}

uint64_t Peer::bytes_sent() const
{
	return (control_ && control_->link ? control_->link->bytes_sent() : 0) + (pages_ && pages_->link ? pages_->link->bytes_sent() : 0);
}

std::string Peer::state_text() const
{
	return up_ ? "up" : "down: " + why_down_;
}

} // namespace redoubt::agent
