// SPDX-License-Identifier: GPL-2.0

#include "ups.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <upsclient.h>

namespace redoubt::agent {

namespace {

constexpr int every_ms = 1000;
constexpr int connect_seconds = 2;
// The agent's memory is locked: not the usual 8 MB.
constexpr size_t stack_bytes = 256 << 10;

void copy(char *to, size_t size, const std::string &text)
{
	snprintf(to, size, "%s", text.c_str());
}

// In @unit; a number that is none, or beyond reason, is not known.
uint32_t number(const std::string &text, double unit)
{
	char *end;
	const double value = strtod(text.c_str(), &end);

	if (end == text.c_str() || *end || !std::isfinite(value) || value < 0 || value > 10'000'000)
		return UpsReading::unknown;
	return static_cast<uint32_t>(value * unit);
}

} // namespace

Ups::Ups(Loop &loop, const std::string &name, std::function<void(const UpsReading &)> heard) : loop_(loop), heard_(std::move(heard))
{
	char *ups = nullptr, *host = nullptr;
	int ends[2];
	pthread_attr_t attributes;

	const bool wrong = upscli_splitname(name.c_str(), &ups, &host, &port_) != 0;
	name_ = ups ? ups : "";
	host_ = host ? host : "";
	free(ups);
	free(host);
	if (wrong || name_.empty() || host_.empty())
		throw Error("power.ups must be UPS[@HOST[:PORT]], not '" + name + "'");
	static_assert(sizeof(UpsReading) <= 512);	// POSIX' PIPE_BUF: whole or not at all
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		throw Error("pipe2", errno);
	readings_ = Fd(ends[0]);
	tell_ = Fd(ends[1]);
	wake_ = Fd(eventfd(0, EFD_CLOEXEC));
	if (!wake_)
		throw Error("eventfd", errno);
	upsd_ = calloc(1, sizeof(UPSCONN_t));
	if (!upsd_)
		throw Error("calloc", errno);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, stack_bytes);
	const int error = pthread_create(&thread_, &attributes, thread, this);
	pthread_attr_destroy(&attributes);
	if (error) {
		free(upsd_);
		throw Error("pthread_create", error);
	}
	loop_.watch(readings_.get(), EPOLLIN, [this](uint32_t) {
		UpsReading reading;

		while (::read(readings_.get(), &reading, sizeof(reading)) == sizeof(reading))
			heard_(reading);
	});
}

Ups::~Ups()
{
	const uint64_t one = 1;

	loop_.forget(readings_.get());
	stop_ = true;
	(void)!write(wake_.get(), &one, sizeof(one));
	{
		const std::lock_guard guard(lock_);

		if (socket_ >= 0)
			shutdown(socket_, SHUT_RDWR);
	}
	pthread_join(thread_, nullptr);
	free(upsd_);
}

void *Ups::thread(void *self)
{
	static_cast<Ups *>(self)->run();
	return nullptr;
}

void Ups::run()
{
	while (!stop_) {
		const UpsReading reading = read();
		pollfd wake{.fd = wake_.get(), .events = POLLIN, .revents = 0};

		// Full: the agent has stood still, and finds newer ones than this soon enough.
		(void)!write(tell_.get(), &reading, sizeof(reading));
		poll(&wake, 1, every_ms);
	}
	drop();
}

bool Ups::connect(UpsReading &out)
{
	auto *upsd = static_cast<UPSCONN_t *>(upsd_);
	timeval limit{.tv_sec = connect_seconds, .tv_usec = 0};

	if (socket_ >= 0)
		return true;
	if (upscli_tryconnect(upsd, host_.c_str(), port_, 0, &limit) < 0) {
		copy(out.error, sizeof(out.error), upscli_strerror(upsd));
		upscli_disconnect(upsd);
		return false;
	}
	const std::lock_guard guard(lock_);
	socket_ = upscli_fd(upsd);
	return true;
}

void Ups::drop()
{
	const std::lock_guard guard(lock_);

	if (socket_ >= 0)
		upscli_disconnect(static_cast<UPSCONN_t *>(upsd_));
	socket_ = -1;
}

bool Ups::get(const char *variable, std::string &value)
{
	auto *upsd = static_cast<UPSCONN_t *>(upsd_);
	const char *query[] = {"VAR", name_.c_str(), variable};
	size_t words = 0;
	char **answer = nullptr;

	if (upscli_get(upsd, 3, query, &words, &answer) < 0) {
		if (upscli_upserror(upsd) == UPSCLI_ERR_VARNOTSUPP)
			return false;
		throw Error(upscli_strerror(upsd));
	}
	if (words < 4)
		throw Error("an answer without a value");
	value = answer[3];
	return true;
}

UpsReading Ups::read()
{
	UpsReading out;
	std::string value;

	if (!connect(out))
		return out;
	try {
		if (!get("ups.status", value))
			throw Error("it has no ups.status");
		copy(out.status, sizeof(out.status), value);
		if (get("battery.charge", value))
			out.charge = number(value, 100);
		if (get("battery.charge.low", value))
			out.charge_low = number(value, 100);
		if (get("battery.runtime", value))
			out.runtime_s = number(value, 1);
		out.answered = true;
	} catch (const Error &error) {
		copy(out.error, sizeof(out.error), error.what());
		// "Data stale" is upsd's word, and it stays there; what is behind another error is not worth finding out.
		if (upscli_upserror(static_cast<UPSCONN_t *>(upsd_)) != UPSCLI_ERR_DATASTALE)
			drop();
	}
	return out;
}

} // namespace redoubt::agent
