// SPDX-License-Identifier: GPL-2.0

#include "qmp.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace redoubt::agent {

Qmp::Qmp(Loop &loop, std::string path, Handlers handlers)
	: loop_(loop), path_(std::move(path)), handlers_(std::move(handlers))
{
}

Qmp::~Qmp()
{
	*gone_ = true;
	if (socket_)
		loop_.forget(socket_.get());
	loop_.cancel(greeting_);
	for (Pending &p : pending_)
		loop_.cancel(p.timer);
}

void Qmp::connect()
{
	sockaddr_un address{};
	ucred peer;
	socklen_t size = sizeof(peer);

	address.sun_family = AF_UNIX;
	if (path_.size() >= sizeof(address.sun_path))
		throw Error(path_ + ": longer than a socket's path may be");
	memcpy(address.sun_path, path_.c_str(), path_.size());
	Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (!fd)
		throw Error("socket", errno);
	if (::connect(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)))
		throw Error(path_, errno);
	if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size))
		throw Error(path_ + ": SO_PEERCRED", errno);
	pid_ = peer.pid;
	socket_ = std::move(fd);
	in_.clear();
	loop_.watch(socket_.get(), EPOLLIN, [this](uint32_t) { on_readable(); });
	greeting_ = loop_.after(patience, [this] {
		greeting_ = 0;
		close("no greeting: has QEMU another client on " + path_ + "?");
	});
}

void Qmp::close(const std::string &why)
{
	if (!socket_)
		return;
	const auto gone = gone_;
	auto pending = std::move(pending_);

	loop_.forget(socket_.get());
	socket_ = Fd();
	loop_.cancel(greeting_);
	ready_ = false;
	pending_.clear();
	for (Pending &p : pending)
		loop_.cancel(p.timer);
	for (Pending &p : pending) {
		p.done({false, {}, p.name + ": " + why});
		if (*gone)
			return;
	}
	if (handlers_.closed)
		handlers_.closed(why);
}

void Qmp::write(const std::string &text, int fd)
{
	iovec part{const_cast<char *>(text.data()), text.size()};
	alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
	msghdr message{};

	message.msg_iov = &part;
	message.msg_iovlen = 1;
	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		cmsghdr *head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(head), &fd, sizeof(fd));
	}
	// A few hundred bytes into a socket whose reader is asked one thing at a time: if
	// they do not fit, QEMU has not read for long.
	const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent != static_cast<ssize_t>(text.size())) {
		const std::string why = sent < 0 ? strerror(errno) : "QEMU does not read its monitor";

		loop_.soon([this, why, gone = gone_] {
			if (!*gone)
				close(why);
		});
	}
}

void Qmp::command(const std::string &name, Json arguments, Done done, milliseconds limit, int fd)
{
	if (!socket_) {
		loop_.soon([done = std::move(done), name] { done({false, {}, name + ": no connection to QEMU"}); });
		return;
	}
	const uint64_t id = next_id_++;
	Json line{{"execute", name}, {"id", id}};

	if (!arguments.is_null())
		line["arguments"] = std::move(arguments);
	const Loop::Timer timer = loop_.after(limit, [this, id, name] {
		finish(id, {false, {}, name + ": no answer from QEMU in time"});
	});
	pending_.push_back({id, name, std::move(done), timer});
	write(line.dump() + "\n", fd);
}

void Qmp::finish(uint64_t id, const QmpReply &reply)
{
	const auto found = std::find_if(pending_.begin(), pending_.end(), [id](const Pending &p) { return p.id == id; });

	if (found == pending_.end())
		return;		// too late: its caller has been told
	Pending p = std::move(*found);
	pending_.erase(found);
	loop_.cancel(p.timer);
	try {
		p.done(reply);
	} catch (const Json::exception &error) {
		// What QEMU says is not ours to trust: of another form than we know it is no answer.
		p.done({false, {}, p.name + ": an answer of an unknown form: " + error.what()});
	}
}

void Qmp::drain()
{
	for (pollfd p{socket_.get(), POLLIN, 0}; socket_ && poll(&p, 1, 0) > 0;)
		on_readable();
}

void Qmp::on_readable()
{
	char buffer[64 * 1024];
	const ssize_t got = read(socket_.get(), buffer, sizeof(buffer));
	const auto gone = gone_;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		close(got ? strerror(errno) : "QEMU has closed its monitor");
		return;
	}
	in_.append(buffer, static_cast<size_t>(got));
	for (size_t end; (end = in_.find('\n')) != std::string::npos;) {
		const std::string line = in_.substr(0, end);

		in_.erase(0, end + 1);
		on_line(line);
		if (*gone || !socket_)
			return;
	}
	if (in_.size() > line_limit)
		close("QEMU's answer does not end");
}

void Qmp::on_line(const std::string &line)
{
	const Json message = Json::parse(line, nullptr, false);

	if (!message.is_object()) {
		close("what answers on " + path_ + " does not speak QMP");
		return;
	}
	if (message.contains("QMP") && !ready_) {
		command("qmp_capabilities", {}, [this](const QmpReply &reply) {
			loop_.cancel(greeting_);
			if (!reply.ok) {
				close(reply.error);
				return;
			}
			ready_ = true;
			if (handlers_.ready)
				handlers_.ready();
		});
		return;
	}
	if (const auto event = message.find("event"); event != message.end() && event->is_string()) {
		if (handlers_.event)
			handlers_.event(event->get<std::string>(), message.value("data", Json::object()));
		return;
	}
	const auto id = message.find("id");
	if (id == message.end() || !id->is_number_unsigned())
		return;
	const auto found = std::find_if(pending_.begin(), pending_.end(), [&](const Pending &p) { return p.id == *id; });
	QmpReply reply;
	if (const auto value = message.find("return"); value != message.end()) {
		reply.ok = true;
		reply.value = *value;
	} else {
		const Json error = message.value("error", Json::object());
		std::string text = error.is_object() && error.contains("desc") && error["desc"].is_string() ? error["desc"].get<std::string>() :
												      "refused";
		std::replace(text.begin(), text.end(), '\n', ' ');
		reply.error = (found == pending_.end() ? std::string() : found->name + ": ") + text;
	}
	finish(*id, reply);
}

} // namespace redoubt::agent
