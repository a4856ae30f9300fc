// SPDX-License-Identifier: GPL-2.0
//
// The agent's socket: a line of JSON in, a line of JSON out, in their order.
// {"command": NAME, ...} -> {"ok": true, ...} or {"ok": false, "error": TEXT}.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "loop.h"

namespace redoubt::agent {

using Json = nlohmann::json;

class ControlSocket {
public:
	using Reply = std::function<void(Json)>;
	// To be answered once, at once or later.
	using Command = std::function<void(const Json &request, Reply)>;
	static constexpr size_t max_clients = 32, max_line = 64 * 1024;

	// Takes the place of a socket that nobody listens to any more. Throws.
	ControlSocket(Loop &loop, std::string path, Command command);
	~ControlSocket();
	ControlSocket(const ControlSocket &) = delete;

private:
	struct Client {
		Fd socket;
		std::string in, out;
		bool busy = false;	// a command is being carried out
	};

	void on_accept();
	void on_ready(int fd);
	void next_line(int fd);
	void answer(int fd, const std::shared_ptr<Client> &client, const Json &reply);
	void flush(int fd);
	void drop(int fd);

	Loop &loop_;
	std::string path_;
	Command command_;
	Fd listener_;
	std::map<int, std::shared_ptr<Client>> clients_;
};

} // namespace redoubt::agent
