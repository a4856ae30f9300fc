// SPDX-License-Identifier: GPL-2.0

#include "agent.h"

#include <cerrno>
#include <chrono>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace redoubt::client {

AgentClient::AgentClient(const std::string &path) : path_(path), socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))
{
	sockaddr_un address{};

	if (!socket_)
		throw Error("socket", errno);
	address.sun_family = AF_UNIX;
	if (path.size() >= sizeof(address.sun_path))
		throw Error(path + ": longer than a socket's path may be");
	memcpy(address.sun_path, path.c_str(), path.size());
	if (connect(socket_.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)))
		throw Error("redoubtd does not answer at " + path, errno);
}

std::string AgentClient::ask(const std::string &line, int timeout_ms)
{
	using Clock = std::chrono::steady_clock;
	const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
	const std::string request = line + "\n";
	std::string answer;

	if (send(socket_.get(), request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
		throw Error("redoubtd at " + path_, errno);
	while (answer.find('\n') == std::string::npos) {
		const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
		pollfd poll_for{socket_.get(), POLLIN, 0};
		char buffer[4096];

		if (left <= 0 || ::poll(&poll_for, 1, static_cast<int>(left)) <= 0)
			throw Error("redoubtd at " + path_ + " does not answer in time");
		const ssize_t got = read(socket_.get(), buffer, sizeof(buffer));
		if (got <= 0)
			throw Error("redoubtd at " + path_ + " has ended", got ? errno : 0);
		answer.append(buffer, static_cast<size_t>(got));
	}
	return answer.substr(0, answer.find('\n'));
}

} // namespace redoubt::client
