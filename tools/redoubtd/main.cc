// SPDX-License-Identifier: GPL-2.0
//
//	redoubtd [--config FILE]
//	redoubtd make-key KEY CERTIFICATE NAME
//	redoubtd fingerprint CERTIFICATE

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>

#include <CLI/CLI.hpp>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "log.h"

namespace redoubt::agent {

namespace {

// systemd's protocol: a datagram to the socket that it names.
void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	sockaddr_un address{};

	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
		return;
	address.sun_family = AF_UNIX;
	memcpy(address.sun_path, path, strlen(path));
	const socklen_t size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + strlen(path));
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	const Fd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	if (fd)
		sendto(fd.get(), text, strlen(text), MSG_NOSIGNAL, reinterpret_cast<sockaddr *>(&address), size);
}

class Watchdog {
public:
	explicit Watchdog(Loop &loop) : loop_(loop)
	{
		const char *usec = getenv("WATCHDOG_USEC");

		every_ = milliseconds(usec ? strtoull(usec, nullptr, 10) / 1000 / 3 : 0);
		if (every_.count())
			beat();
	}

private:
	void beat()
	{
		notify("WATCHDOG=1");
		(void)loop_.after(every_, [this] { beat(); });
	}

	Loop &loop_;
	milliseconds every_{0};
};

int serve(const std::string &config_path, const std::string &boot_path)
{
	const Config config = read_config(config_path);
	sigset_t stop;
	Loop loop;

	signal(SIGPIPE, SIG_IGN);
	// What is needed when the host is short of memory is there then. Who may lock only some
	// of it must not try: what is allocated later would fail.
	rlimit limit{};
	if (geteuid() && (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur != RLIM_INFINITY))
		say("memory is not locked: LimitMEMLOCK=infinity");
	else if (mlockall(MCL_CURRENT | MCL_FUTURE))
		say(std::string("memory is not locked: ") + strerror(errno));
	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, nullptr);
	const Fd signals(signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK));
	if (!signals)
		throw Error("signalfd", errno);
	loop.watch(signals.get(), EPOLLIN, [&loop](uint32_t) { loop.stop(); });

	Agent agent(loop, config, read_boot(boot_path));
	agent.start();
	const Watchdog watchdog(loop);
	notify("READY=1");
	say("ready: " + config.me + ", " + std::to_string(config.vms.size()) + " VMs, peer " + config.peer.name);
	loop.run();
	notify("STOPPING=1");
	return 0;
}

int run(int argc, char **argv)
{
	CLI::App app("redoubtd: the agent of the standby, Documentation/redoubtd.md", "redoubtd");
	std::string config = "/etc/redoubt/standby.json", boot = "/proc/sys/kernel/random/boot_id", key, certificate, name;

	app.add_option("--config", config, "its configuration, " + config);
	app.add_option("--boot-id", boot, "tests: a file to read this boot's number from");
	app.require_subcommand(0, 1);
	CLI::App *make = app.add_subcommand("make-key", "make a key and its certificate, both in files that must not exist");
	make->add_option("KEY", key)->required();
	make->add_option("CERTIFICATE", certificate)->required();
	make->add_option("NAME", name, "the host, for people")->required();
	CLI::App *show = app.add_subcommand("fingerprint", "of a certificate, to be compared by people");
	show->add_option("CERTIFICATE", certificate)->required();
	try {
		app.parse(argc, argv);
	} catch (const CLI::ParseError &error) {
		return app.exit(error) ? 2 : 0;
	}
	if (make->parsed())
		make_key(key, certificate, name);
	if (make->parsed() || show->parsed()) {
		std::cout << fingerprint(certificate) << std::endl;
		return 0;
	}
	return serve(config, boot);
}

} // namespace

} // namespace redoubt::agent

int main(int argc, char **argv)
{
	try {
		return redoubt::agent::run(argc, argv);
	} catch (const std::exception &error) {
		fprintf(stderr, "redoubtd: %s\n", error.what());
		return 1;
	}
}
