// SPDX-License-Identifier: GPL-2.0
//
// QEMU's monitor, as a client on the loop: commands with a time limit, events,
// and who is at the other end. A QEMU that does not answer holds nobody up.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "loop.h"

namespace redoubt::agent {

using Json = nlohmann::json;

struct QmpReply {
	bool ok = false;
	Json value;			// "return"
	std::string error;		// one line, if not ok
};

class Qmp {
public:
	using Done = std::function<void(const QmpReply &)>;
	struct Handlers {
		std::function<void()> ready;		// capabilities are negotiated
		std::function<void(const std::string &event, const Json &data)> event;
		std::function<void(const std::string &why)> closed;
	};
	static inline milliseconds patience{10'000};	// tests have less
	// A reply to query-* of a large VM; nothing of ours is larger.
	static constexpr size_t line_limit = 16 * 1024 * 1024;

	Qmp(Loop &loop, std::string path, Handlers handlers);
	~Qmp();
	Qmp(const Qmp &) = delete;

	// Throws if nobody listens. A server that has another client already lets us wait,
	// and is given up after @patience.
	void connect();
	void close(const std::string &why);
	// What has come and was not read yet.
	void drain();
	bool is_ready() const { return ready_; }
	// The process behind the socket; 0 before connect().
	pid_t pid() const { return pid_; }

	// @done is called once, from the loop, also when the connection ends. @fd goes along (SCM_RIGHTS).
	void command(const std::string &name, Json arguments, Done done, milliseconds limit = patience, int fd = -1);

private:
	struct Pending {
		uint64_t id;
		std::string name;
		Done done;
		Loop::Timer timer;
	};

	void on_readable();
	void on_line(const std::string &line);
	void write(const std::string &text, int fd);
	void finish(uint64_t id, const QmpReply &reply);

	Loop &loop_;
	std::string path_;
	Handlers handlers_;
	Fd socket_;
	std::string in_;
	std::deque<Pending> pending_;
	uint64_t next_id_ = 1;
	Loop::Timer greeting_ = 0;
	pid_t pid_ = 0;
	bool ready_ = false;
	std::shared_ptr<bool> gone_ = std::make_shared<bool>(false);
};

} // namespace redoubt::agent
