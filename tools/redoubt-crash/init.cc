// SPDX-License-Identifier: GPL-2.0
//
// The crash kernel's first program, and the initramfs that has it. Nothing else is in there: no shell, no library.
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../redoubtd/config.h"
#include "../redoubtd/log.h"
#include "cpio.h"
#include "layout.h"
#include "rescue.h"
#include "way.h"

namespace redoubt::crash {
namespace {

constexpr const char *way_path = "/etc/redoubt/crash.way";
constexpr unsigned hard_limit = 1800;		// s, until something moves; then rescue() sets it

void boot_again(int)
{
	reboot(RB_AUTOBOOT);
}

void mount_at(const char *what, const char *where)
{
	mkdir(where, 0755);
	if (mount(what, where, what, 0, nullptr) && errno != EBUSY)
		throw std::runtime_error(std::string(where) + ": " + strerror(errno));
}

} // namespace

void init()
{
	struct sigaction action{};
	int status = 1;

	// Whatever becomes of this: the host comes back.
	action.sa_handler = boot_again;
	sigaction(SIGALRM, &action, nullptr);
	alarm(hard_limit);
	signal(SIGPIPE, SIG_IGN);
	try {
		mount_at("proc", "/proc");
		mount_at("sysfs", "/sys");
		mount_at("devtmpfs", "/dev");
		RescueOptions options;
		options.way = way_path;
		status = rescue(options);
	} catch (const std::exception &e) {
		agent::say(std::string("nothing is handed over: ") + e.what());
	}
	agent::say(status ? "not all VMs were handed over: the host boots again" : "all VMs were handed over: the host boots again");
	sleep(1);		// what was said gets out
	boot_again(0);
	for (;;)
		pause();
}

std::string make_initramfs(const std::string &config_path, const std::string &release)
{
	const agent::Config config = agent::read_config(config_path);
	const Way way = find_way(config.peer.address, release);
	Cpio out;

	out.copy("init", "/proc/self/exe");
	out.file("etc/redoubt/crash.layout", Layout::of_running_kernel().text());
	out.file(way_path, nlohmann::json(way).dump());
	out.copy("etc/redoubt/standby.json", config_path);
	for (const std::string &path : {config.key, config.certificate, config.peer.certificate})
		out.copy(path, path);
	for (const std::string &path : way.modules)
		out.copy(path, path);
	return out.end();
}

} // namespace redoubt::crash
