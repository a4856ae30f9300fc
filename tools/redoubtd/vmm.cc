// SPDX-License-Identifier: GPL-2.0

#include "vmm.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"

namespace redoubt::agent {

namespace {

constexpr milliseconds look_again{500}, poll_again{20}, quit_patience{3'000}, refresh_patience{1'000};
// An outgoing migration that was cancelled ends in less.
constexpr unsigned cancel_polls = 250;
// What QEMU's devices need is some hundred KB; this is the wire's limit, too.
constexpr size_t state_limit = 256u << 20;

// Of an answer whose form QEMU may have changed: never an exception.
std::string text_of(const Json &value, const char *key)
{
	const auto found = value.is_object() ? value.find(key) : value.end();

	return value.is_object() && found != value.end() && found->is_string() ? found->get<std::string>() : "";
}

// Does "migrate-incoming" know the argument? Names of types are numbers in QEMU's answer.
bool knows_argument(const Json &schema, const std::string &command, const std::string &argument)
{
	const auto named = [&schema](const std::string &name) {
		return std::find_if(schema.begin(), schema.end(), [&name](const Json &entry) { return text_of(entry, "name") == name; });
	};

	if (!schema.is_array())
		return false;
	const auto entry = named(command);
	const auto type = entry != schema.end() ? named(text_of(*entry, "arg-type")) : schema.end();
	const auto members = type != schema.end() && type->is_object() ? type->find("members") : Json::const_iterator();
	if (type == schema.end() || !type->is_object() || members == type->end() || !members->is_array())
		return false;
	return std::any_of(members->begin(), members->end(), [&argument](const Json &m) { return text_of(m, "name") == argument; });
}

VmmState from_status(const std::string &status, bool running)
{
	if (running)
		return VmmState::running;
	return status == "inmigrate" ? VmmState::waiting : status == "prelaunch" ? VmmState::fresh : VmmState::stopped;
}

} // namespace

const char *vmm_state_name(VmmState state)
{
	constexpr const char *names[] = {"gone", "waiting", "spoiled", "prelaunch", "stopped", "running"};

	return names[static_cast<size_t>(state)];
}

// A device state on its way, through a socket that QEMU has the other end of.
struct Vmm::Transfer {
	uint64_t id;			// an answer may be late, and for the one before
	Fd socket;
	bool incoming = false;
	bool accepted = false;		// QEMU has taken the command
	bool moved = false;		// all bytes are through
	std::vector<uint8_t> *out = nullptr;
	std::span<const uint8_t> in;
	Done done;
	Loop::Timer limit = 0, poll = 0;
};

Vmm::Vmm(Loop &loop, std::string name, std::string qmp_path, Handlers handlers)
	: loop_(loop), name_(std::move(name)), path_(std::move(qmp_path)), handlers_(std::move(handlers)),
	  qmp_(loop_, path_,
	       {[this] { on_ready(); }, [this](const std::string &event, const Json &data) { on_event(event, data); },
		[this](const std::string &why) { on_closed(why); }})
{
}

Vmm::~Vmm()
{
	loop_.cancel(retry_);
	loop_.cancel(asks_);
	if (transfer_) {
		loop_.cancel(transfer_->limit);
		loop_.cancel(transfer_->poll);
		loop_.forget(transfer_->socket.get());
	}
	if (pidfd_)
		loop_.forget(pidfd_.get());
}

void Vmm::log(const std::string &text) const
{
	say(name_, text);
}

void Vmm::start()
{
	look();
}

void Vmm::look()
{
	std::string why;

	retry_ = 0;
	try {
		absent_ = false;
		qmp_.connect();
		Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, qmp_.pid(), 0)));
		if (!pidfd)
			throw Error("process " + std::to_string(qmp_.pid()), errno);
		if (pidfd_)
			loop_.forget(pidfd_.get());
		pidfd_ = std::move(pidfd);
		pid_ = qmp_.pid();
		ended_itself_ = false;
		// Readable when it has ended: exact, and at once.
		loop_.watch(pidfd_.get(), EPOLLIN, [this](uint32_t) { on_dead(); });
	} catch (const Error &error) {
		why = error.what();
		absent_ = error.code() == ENOENT || error.code() == ECONNREFUSED;
		qmp_.close(why);
		if (why != said_)
			log("waits for QEMU: " + why);
		said_ = why;
		if (!retry_)
			retry_ = loop_.after(look_again, [this] { look(); });
	}
}

void Vmm::on_ready()
{
	said_.clear();
	const auto failed = [this](const QmpReply &reply) {
		if (reply.ok)
			return false;
		qmp_.close(reply.error);
		return true;
	};
	qmp_.command("query-uuid", {}, [this, failed](const QmpReply &reply) {
		if (!failed(reply))
			uuid_ = text_of(reply.value, "UUID");
	});
	// "events": MIGRATION events; the memory stays where it is.
	const Json capabilities = {{{"capability", "x-ignore-shared"}, {"state", true}}, {{"capability", "events"}, {"state", true}}};
	qmp_.command("migrate-set-capabilities", {{"capabilities", capabilities}}, [this, failed](const QmpReply &reply) {
		if (failed(reply))
			return;
		ask_schema([this] { ask_first(); });
	});
}

// exit-on-error is there since QEMU 9.1. Without it every device state would be refused, and
// that must not be found out when the primary has let go. The answer is long: of a slow QEMU it must not be taken for one.
void Vmm::ask_schema(std::function<void()> then)
{
	qmp_.command("query-qmp-schema", {}, [this, then](const QmpReply &reply) {
		if (!reply.ok)
			return qmp_.close(reply.error);
		refuses_ = knows_argument(reply.value, "migrate-incoming", "exit-on-error") ?
				   "" : "this QEMU does not know migrate-incoming's exit-on-error (it is older than 9.1)";
		then();
	}, 6 * Qmp::patience);
}

// Nobody asks again what was never known: the connection is begun anew.
void Vmm::ask_first()
{
	ask_status([this] {
		if (stuck_ && state_ == VmmState::gone && qmp_.is_ready())
			qmp_.close("QEMU has not said what it does");
	});
}

bool Vmm::refresh(std::function<void()> then)
{
	if (pidfd_ && !qmp_.is_ready())
		return false;
	if (pidfd_)
		// A QEMU that hangs lets nothing run either.
		ask_status(std::move(then), refresh_patience);
	else
		loop_.soon(std::move(then));
	return true;
}

void Vmm::ask_status(std::function<void()> then, milliseconds limit)
{
	qmp_.command("query-status", {}, [this, then, limit](const QmpReply &reply) {
		if (reply.ok && reply.value.is_object()) {
			const auto running = reply.value.find("running");

			stuck_ = false;
			status_ = text_of(reply.value, "status");
			if (status_ == "inmigrate" && !transfer_)
				return ask_incoming(then, limit);
			set_state(from_status(status_, running != reply.value.end() && *running == Json(true)));
		} else {
			no_answer(reply);
		}
		if (then)
			then();
	}, limit);
}

void Vmm::no_answer(const QmpReply &reply)
{
	if (!qmp_.is_ready())
		return;
	stuck_ = true;
	log(reply.error);
}

// An agent may have died while it gave QEMU a state. Its end of the stream is closed then, and QEMU soon through with it,
// one way or the other: only then it is known what it is.
void Vmm::ask_incoming(std::function<void()> then, milliseconds limit)
{
	qmp_.command("query-migrate", {}, [this, then = std::move(then)](const QmpReply &reply) {
		const std::string status = text_of(reply.value, "status");

		if (!reply.ok) {
			no_answer(reply);
		} else if (!transfer_) {
			if (status.empty() || status == "none") {
				set_state(VmmState::waiting);
			} else if (status == "failed" || status == "cancelled") {
				set_state(VmmState::spoiled);
			} else if (!asks_) {
				asks_ = loop_.after(poll_again, [this] {
					asks_ = 0;
					if (qmp_.is_ready())
						ask_first();
				});
			}
		}
		if (then)
			then();
	}, limit);
}

void Vmm::set_state(VmmState state)
{
	if (state == state_)
		return;
	state_ = state;
	if (handlers_.changed)
		handlers_.changed();
}

void Vmm::on_event(const std::string &event, const Json &)
{
	if (event == "STOP" && state_ == VmmState::running) {
		status_ = "paused";
		set_state(VmmState::stopped);
	} else if (event == "RESUME") {
		status_ = "running";
		ended_itself_ = false;
		if (state_ != VmmState::running)
			set_state(VmmState::running);
		else if (handlers_.changed)
			handlers_.changed();
	} else if (event == "MIGRATION" && transfer_) {
		poll_transfer();
	} else if (event == "SHUTDOWN") {
		ended_itself_ = true;
		log("the guest or somebody at the monitor ends QEMU");
	}
}

void Vmm::on_closed(const std::string &why)
{
	// A living process with a monitor that was closed (or is held by somebody else) is
	// asked again: the VM is what it was.
	if (pidfd_ && why != said_)
		log(why);
	said_ = why;
	if (transfer_)
		end_transfer(why);
	loop_.cancel(retry_);
	retry_ = loop_.after(look_again, [this] { look(); });
}

void Vmm::on_dead()
{
	// Whether it was told to end is what it has said last.
	qmp_.drain();
	loop_.forget(pidfd_.get());
	pidfd_ = Fd();
	state_ = VmmState::gone;
	stuck_ = false;
	status_.clear();
	log("QEMU, process " + std::to_string(pid_) + ", has ended");
	qmp_.close("QEMU has ended");
	if (transfer_)
		end_transfer("QEMU has ended");
	const auto quitting = std::move(quitting_);
	quitting_.clear();
	for (const Done &done : quitting)
		done("");
	if (handlers_.died)
		handlers_.died();
	if (!retry_)
		retry_ = loop_.after(look_again, [this] { look(); });
}

void Vmm::stop(Done done)
{
	if (!pidfd_) {
		loop_.soon([done] { done(""); });
		return;
	}
	// Its answer comes when the vCPUs stand and the disks' requests are drained.
	qmp_.command("stop", {}, [this, done](const QmpReply &reply) {
		if (!pidfd_) {
			done("");
			return;
		}
		if (!reply.ok) {
			stuck_ = true;
			done(reply.error);
			return;
		}
		ask_status([this, done] {
			done(state_ == VmmState::running ? "the VM runs on" : stuck_ && pidfd_ ? "QEMU does not answer" : "");
		});
	});
}

void Vmm::resume(Done done)
{
	if (transfer_ && !transfer_->incoming)
		end_transfer("given up: the VM goes on");
	// A migration that ends behind cont would stop the VM again.
	end_outgoing([this, done](const std::string &error) {
		if (!error.empty()) {
			done(error);
			return;
		}
		qmp_.command("cont", {}, [this, done](const QmpReply &reply) {
			if (!reply.ok) {
				done(reply.error);
				return;
			}
			ask_status([this, done] { done(state_ == VmmState::running ? "" : "the VM does not run"); });
		});
	}, cancel_polls);
}

void Vmm::end_outgoing(std::function<void(const std::string &)> then, unsigned tries)
{
	qmp_.command("query-migrate", {}, [this, then, tries](const QmpReply &reply) {
		const std::string status = text_of(reply.value, "status");

		if (!reply.ok)
			return then(reply.error);
		if (status.empty() || status == "none" || status == "completed" || status == "failed" || status == "cancelled")
			return then("");
		if (!tries)
			return then("QEMU does not end its migration: " + status);
		if (tries == cancel_polls)
			qmp_.command("migrate_cancel", {}, [](const QmpReply &) {});
		(void)loop_.after(poll_again, [this, then, tries, gone = alive_] {
			if (gone.lock())
				end_outgoing(then, tries - 1);
		});
	});
}

void Vmm::begin_transfer(const char *command, Json arguments, bool incoming, milliseconds limit)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		end_transfer(std::string("socketpair: ") + strerror(errno));
		return;
	}
	Fd theirs(pair[1]);
	transfer_->socket = Fd(pair[0]);
	transfer_->incoming = incoming;
	transfer_->limit = loop_.after(limit, [this] {
		transfer_->limit = 0;
		stuck_ = true;
		end_transfer("QEMU has not done in time");
	});
	loop_.watch(pair[0], incoming ? EPOLLOUT : EPOLLIN, [this](uint32_t events) { on_transfer(events); });
	const auto taken = [this, id = transfer_->id](const QmpReply &reply) {
		if (!reply.ok && transfer_ && transfer_->id == id)
			end_transfer(reply.error);
	};
	qmp_.command("getfd", {{"fdname", "redoubt"}}, taken, Qmp::patience, theirs.get());
	arguments["uri"] = "fd:redoubt";
	qmp_.command(command, std::move(arguments), [this, taken, id = transfer_->id](const QmpReply &reply) {
		taken(reply);
		if (transfer_ && transfer_->id == id) {
			transfer_->accepted = true;
			poll_transfer();
		}
	});
}

void Vmm::save(std::vector<uint8_t> &out, Done done, milliseconds limit)
{
	out.clear();
	transfer_ = std::make_unique<Transfer>();
	transfer_->id = next_transfer_++;
	transfer_->out = &out;
	transfer_->done = std::move(done);
	begin_transfer("migrate", Json::object(), false, limit);
}

void Vmm::load(std::span<const uint8_t> in, Done done, milliseconds limit)
{
	transfer_ = std::make_unique<Transfer>();
	transfer_->id = next_transfer_++;
	transfer_->in = in;
	transfer_->done = std::move(done);
	// If it refuses the state it is to stay: its memory is the image.
	begin_transfer("migrate-incoming", {{"exit-on-error", false}}, true, limit);
}

void Vmm::on_transfer(uint32_t)
{
	Transfer &t = *transfer_;

	if (t.incoming) {
		const ssize_t sent = send(t.socket.get(), t.in.data(), t.in.size(), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (sent < 0) {
			end_transfer(std::string("QEMU does not take its state: ") + strerror(errno));
			return;
		}
		t.in = t.in.subspan(static_cast<size_t>(sent));
		if (!t.in.empty())
			return;
		shutdown(t.socket.get(), SHUT_WR);
	} else {
		uint8_t buffer[64 * 1024];
		const ssize_t got = recv(t.socket.get(), buffer, sizeof(buffer), MSG_DONTWAIT);

		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got > 0 && t.out->size() + static_cast<size_t>(got) > state_limit) {
			end_transfer("QEMU's device state is larger than " + std::to_string(state_limit) +
				     " bytes: is there memory that is not in the RAM file?");
			return;
		}
		if (got > 0) {
			t.out->insert(t.out->end(), buffer, buffer + got);
			return;
		}
	}
	t.moved = true;
	loop_.forget(t.socket.get());
	if (!t.incoming)
		t.socket = Fd();
	poll_transfer();
}

// An end of the stream proves nothing: QEMU says whether it was whole.
void Vmm::poll_transfer()
{
	if (!transfer_ || !transfer_->accepted || transfer_->poll)
		return;
	transfer_->poll = loop_.after(milliseconds(0), [this] {
		qmp_.command("query-migrate", {}, [this, id = transfer_->id](const QmpReply &reply) {
			if (!transfer_ || transfer_->id != id)
				return;
			transfer_->poll = 0;
			const std::string status = text_of(reply.value, "status");

			if (!reply.ok || status == "failed" || status == "cancelled") {
				end_transfer(!reply.ok ? reply.error : "QEMU: migration " + status + " " + text_of(reply.value, "error-desc"));
			} else if (status == "completed" && transfer_->moved) {
				end_transfer("");
			} else {
				// Events come, too; this is for one that was missed.
				transfer_->poll = loop_.after(poll_again, [this] {
					transfer_->poll = 0;
					poll_transfer();
				});
			}
		});
	});
}

void Vmm::end_transfer(const std::string &error)
{
	const std::unique_ptr<Transfer> t = std::move(transfer_);

	loop_.cancel(t->limit);
	loop_.cancel(t->poll);
	if (t->socket)
		loop_.forget(t->socket.get());
	// Behind a stream that was given up QEMU must not go on writing.
	if (!error.empty() && !t->incoming && qmp_.is_ready())
		qmp_.command("migrate_cancel", {}, [](const QmpReply &) {});
	if (!pidfd_ || !qmp_.is_ready()) {
		t->done(error);
		return;
	}
	ask_status([done = t->done, error] { done(error); });
}

void Vmm::quit(Done done)
{
	if (!pidfd_) {
		loop_.soon([done] { done(""); });
		return;
	}
	quitting_.push_back(std::move(done));
	qmp_.command("quit", {}, [](const QmpReply &) {});
	const pid_t pid = pid_;
	(void)loop_.after(quit_patience, [this, pid] {
		if (pidfd_ && pid == pid_ && !quitting_.empty()) {
			log("QEMU does not end: killed");
			kill();
		}
	});
}

void Vmm::kill()
{
	if (pidfd_)
		syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

} // namespace redoubt::agent
