// SPDX-License-Identifier: GPL-2.0

#include "control.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace redoubt::agent {

ControlSocket::ControlSocket(Loop &loop, std::string path, Command command)
	: loop_(loop), path_(std::move(path)), command_(std::move(command))
{
	sockaddr_un address{};
	std::error_code error;

	address.sun_family = AF_UNIX;
	if (path_.size() >= sizeof(address.sun_path))
		throw Error(path_ + ": longer than a socket's path may be");
	memcpy(address.sun_path, path_.c_str(), path_.size());
	std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);
	const auto *name = reinterpret_cast<const sockaddr *>(&address);
	listener_ = Fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (!listener_)
		throw Error("socket", errno);
	// The state directory's lock is ours, so nobody of ours listens here.
	unlink(path_.c_str());
	const mode_t mask = umask(0177);
	const int bound = bind(listener_.get(), name, sizeof(address));
	const int code = errno;
	umask(mask);
	if (bound)
		throw Error("bind " + path_, code);
	if (listen(listener_.get(), 16))
		throw Error("listen at " + path_, errno);
	loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { on_accept(); });
}

ControlSocket::~ControlSocket()
{
	loop_.forget(listener_.get());
	for (const auto &[fd, client] : clients_)
		loop_.forget(fd);
	unlink(path_.c_str());
}

void ControlSocket::on_accept()
{
	Fd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));

	if (!fd || clients_.size() >= max_clients)
		return;
	const int number = fd.get();
	const auto client = std::make_shared<Client>();
	client->socket = std::move(fd);
	clients_[number] = client;
	loop_.watch(number, EPOLLIN, [this, number](uint32_t) { on_ready(number); });
}

void ControlSocket::drop(int fd)
{
	loop_.forget(fd);
	clients_.erase(fd);
}

void ControlSocket::on_ready(int fd)
{
	const auto client = clients_.at(fd);
	char buffer[4096];

	flush(fd);
	if (!clients_.contains(fd))
		return;
	const ssize_t got = read(fd, buffer, sizeof(buffer));
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		drop(fd);
		return;
	}
	client->in.append(buffer, static_cast<size_t>(got));
	if (client->in.size() > max_line) {
		drop(fd);
		return;
	}
	next_line(fd);
}

void ControlSocket::next_line(int fd)
{
	const auto client = clients_.at(fd);
	const size_t end = client->in.find('\n');

	if (client->busy || end == std::string::npos)
		return;
	const Json request = Json::parse(client->in.substr(0, end), nullptr, false);
	client->in.erase(0, end + 1);
	client->busy = true;
	const auto reply = [this, fd, client](const Json &value) { answer(fd, client, value); };
	if (!request.is_object() || !request.contains("command") || !request["command"].is_string())
		reply({{"ok", false}, {"error", "no command: a line must be an object with \"command\""}});
	else
		command_(request, reply);
}

void ControlSocket::answer(int fd, const std::shared_ptr<Client> &client, const Json &reply)
{
	const auto found = clients_.find(fd);

	if (found == clients_.end() || found->second != client)
		return;		// gone, before its answer
	client->busy = false;
	client->out += reply.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
	flush(fd);
	// Not from here: a long row of lines would be as deep a recursion.
	loop_.soon([this, fd, client] {
		const auto still = clients_.find(fd);

		if (still != clients_.end() && still->second == client)
			next_line(fd);
	});
}

void ControlSocket::flush(int fd)
{
	Client &client = *clients_.at(fd);

	while (!client.out.empty()) {
		const ssize_t sent = send(fd, client.out.data(), client.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (sent <= 0) {
			drop(fd);
			return;
		}
		client.out.erase(0, static_cast<size_t>(sent));
	}
	loop_.change(fd, EPOLLIN | (client.out.empty() ? 0u : EPOLLOUT));
}

} // namespace redoubt::agent
