// SPDX-License-Identifier: GPL-2.0
//
// redoubt-crash: the host's kernel panics, its VMs do not. "load" puts a crash kernel where a panic finds it; the others are
// for that kernel's initramfs, and read what the old kernel has left.

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kexec.h"
#include "layout.h"
#include "rescue.h"
#include "root.h"
#include "sys.h"
#include "vcpu.h"

using namespace redoubt::crash;

namespace {

constexpr const char *root_parameter = "/sys/module/redoubt_standby/parameters/crash_root";
constexpr const char *line_parameter = "redoubt.root=", *ours_path = "/run/redoubt/crash.root";

std::string slurp(const std::string &path)
{
	std::ifstream in(path, std::ios::binary);
	std::ostringstream out;

	if (!in)
		throw std::runtime_error(path + ": " + strerror(errno));
	out << in.rdbuf();
	return out.str();
}

void write_file(const std::string &path, const void *data, size_t bytes)
{
	std::ofstream out(path, std::ios::binary);

	out.write(static_cast<const char *>(data), static_cast<std::streamsize>(bytes));
	out.close();
	if (!out)
		throw std::runtime_error(path + ": cannot be written");
}

struct Options {
	CrashKernel crash;
	std::string agent_config, vmcore = "/proc/vmcore", layout = "/etc/redoubt/crash.layout", out, root;
};

// Where this kernel speaks to its operator
std::string consoles()
{
	std::istringstream line(slurp("/proc/cmdline"));
	std::string word, out;

	while (line >> word)
		if (word.rfind("console=", 0) == 0)
			out += word + " ";
	return out;
}

void do_load(Options &o)
{
	std::string root = slurp(root_parameter);

	utsname u;
	redoubt::client::Fd ours;

	root.erase(root.find_last_not_of('\n') + 1);
	uname(&u);
	if (o.crash.kernel.empty())
		o.crash.kernel = std::string("/boot/vmlinuz-") + u.release;
	if (!o.agent_config.empty()) {
		const std::string archive = make_initramfs(o.agent_config, u.release);
		ours = redoubt::client::Fd(memfd_create("crash", MFD_CLOEXEC));
		const std::string path = "/proc/self/fd/" + std::to_string(ours.get());
		write_file(path, archive.data(), archive.size());
		o.crash.initramfs.insert(o.crash.initramfs.begin(), path);
		o.crash.line = consoles() + "panic=-1 nr_cpus=1 reset_devices " + o.crash.line;
	}
	if (o.crash.initramfs.empty())
		throw std::runtime_error("--agent-config or --initramfs: what is the crash kernel to do?");
	o.crash.line += " " + (line_parameter + root);
	load(o.crash);
	// For "redoubtctl standby check"; one that does something else is none for it.
	unlink(ours_path);
	if (o.agent_config.empty())
		return;
	mkdir("/run/redoubt", 0755);
	write_file(ours_path, root.data(), root.size());
}

// An image as files: "memory", a frame at its place, zero pages being holes; "lost", the numbers of the frames that are not there.
class Image {
public:
	explicit Image(const std::string &dir)
		: memory_(open((dir + "/memory").c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)), lost_(dir + "/lost", std::ios::binary)
	{
		if (!memory_ || !lost_)
			throw std::runtime_error(dir + ": " + strerror(errno));
	}
	// How many are lost
	uint64_t range(Physical &memory, Space &space, const rdt_crash_range &r)
	{
		static constexpr char zero[page_bytes] = {};
		char page[page_bytes];
		uint64_t gone = 0;

		for (uint64_t i = 0; i < r.count; i++) {
			const auto at = space.physical(r.hva + i * page_bytes);
			const uint64_t frame = r.first + i;
			if (!at || !memory.read(*at, page, sizeof(page))) {
				lost_.write(reinterpret_cast<const char *>(&frame), sizeof(frame));
				gone++;
			} else if (memcmp(page, zero, sizeof(page)) != 0 &&
				   pwrite(memory_.get(), page, sizeof(page), static_cast<off_t>(frame * page_bytes)) != sizeof(page)) {
				throw std::runtime_error(std::string("the image's memory: ") + strerror(errno));
			}
		}
		return gone;
	}
	void end()
	{
		lost_.close();
		if (!lost_)
			throw std::runtime_error("the image cannot be written");
	}

private:
	redoubt::client::Fd memory_;
	std::ofstream lost_;
};

// 1: something of it is lost
int image_of(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, const std::string &base)
{
	const std::string dir = base + "/" + vm.name();
	Space space(memory, vm.pgd, vm.levels);
	int lost = 0;

	if (mkdir(dir.c_str(), 0700))
		throw std::runtime_error(dir + ": " + strerror(errno));
	write_file(dir + "/note", vm.note.data(), vm.note.size());
	write_file(dir + "/live", vm.live.data(), vm.live.size());
	Image image(dir);
	for (const rdt_crash_range &r : vm.ranges) {
		const uint64_t gone = image.range(memory, space, r);
		std::cout << vm.name() << ": frames " << r.first << " to " << r.first + r.count - 1 << ": " << gone << " lost\n";
		lost |= gone != 0;
	}
	image.end();
	try {
		for (const Item &item : read_devices(layout, memory, root, vm))
			write_file(dir + "/" + item.name, item.data.data(), item.data.size());
	} catch (const std::runtime_error &e) {
		std::cout << vm.name() << ": devices lost: " << e.what() << '\n';
		lost = 1;
	}
	for (unsigned int i = 0; i < vm.vcpus.size(); i++) {
		try {
			const Vcpu vcpu = read_vcpu(layout, memory, root, vm, i);
			const std::string at = dir + "/vcpu" + std::to_string(i);
			mkdir(at.c_str(), 0700);
			for (const Item &item : vcpu.items)
				write_file(at + "/" + item.name, item.data.data(), item.data.size());
			std::cout << vm.name() << ": vCPU " << i << ": " << vcpu.where << '\n';
		} catch (const std::runtime_error &e) {
			std::cout << vm.name() << ": vCPU " << i << " lost: " << e.what() << '\n';
			lost = 1;
		}
	}
	return lost;
}

int do_image(const Options &o)
{
	Vmcore memory(o.vmcore);
	const Root root = read_root(memory, o.root.empty() ? root_address() : std::stoull(o.root, nullptr, 16));
	const Layout layout = Layout::parse(slurp(o.layout));
	int lost = 0;

	if (root.release != layout.release())
		throw std::runtime_error("the layout is of " + layout.release() + ", the kernel that panicked was " + root.release);
	std::cout << root.vms.size() << " VMs, " << root.cpus.size() << " CPUs"
		  << (root.all_stopped() ? "" : ", NOT ALL STOPPED") << ", " << memory.stopped_cpus() << " notes\n";
	for (const std::string &why : root.refused) {
		std::cout << why << '\n';
		lost = 1;
	}
	for (const Vm &vm : root.vms) {
		try {
			lost |= image_of(layout, memory, root, vm, o.out);
		} catch (const std::runtime_error &e) {
			std::cout << vm.name() << " lost: " << e.what() << '\n';	// the others are not
			lost = 1;
		}
	}
	return lost;
}

} // namespace

int main(int argc, char **argv)
{
	if (getpid() == 1)
		init();
	CLI::App app("The VMs of a host whose kernel panics", "redoubt-crash");
	Options o;

	app.require_subcommand(1);
	auto *const loads = app.add_subcommand("load", "Load a crash kernel; redoubt_standby is loaded");
	loads->add_option("--agent-config", o.agent_config, "redoubtd's: the crash kernel hands the VMs over to its peer, and boots again");
	loads->add_option("--kernel", o.crash.kernel, "the image, of this very kernel; /boot/vmlinuz-RELEASE");
	loads->add_option("--initramfs", o.crash.initramfs, "archives, laid over one another; with --agent-config, over that, a card's firmware");
	loads->add_option("--append", o.crash.line, "its command line, or with --agent-config what is put to it");
	auto *const unloads = app.add_subcommand("unload", "Take it away");
	auto *const layout = app.add_subcommand("layout", "Where this kernel's KVM has its fields, for the crash kernel");
	auto *const send = app.add_subcommand("send", "In the crash kernel: hand the VMs over; as its first program redoubt-crash does that by itself");
	RescueOptions rescued;
	std::string send_root;
	unsigned int patience = 600;
	send->add_option("--vmcore", rescued.vmcore, "the old kernel's memory");
	send->add_option("--layout", rescued.layout, "the file that \"layout\" printed");
	send->add_option("--root", send_root, "the root's address, not that of the command line");
	send->add_option("--config", rescued.config, "redoubtd's");
	send->add_option("--patience", patience, "seconds without any progress");
	auto *const image = app.add_subcommand("image", "In the crash kernel: what the VMs were");
	image->add_option("--vmcore", o.vmcore, "the old kernel's memory");
	image->add_option("--layout", o.layout, "the file that \"layout\" printed");
	image->add_option("--root", o.root, "the root's address, not that of the command line");
	image->add_option("--out", o.out, "a directory")->required();
	CLI11_PARSE(app, argc, argv);
	try {
		if (*loads)
			do_load(o);
		else if (*unloads) {
			unload();
			unlink(ours_path);
		}
		else if (*layout)
			std::cout << Layout::of_running_kernel().text();
		else if (*image)
			return do_image(o);
		else if (*send) {
			signal(SIGPIPE, SIG_IGN);
			rescued.root = send_root.empty() ? 0 : std::stoull(send_root, nullptr, 16);
			rescued.patience = std::chrono::seconds(patience);
			return rescue(rescued);
		}
		return 0;
	} catch (const std::exception &e) {
		std::cerr << "redoubt-crash: " << e.what() << '\n';
		return 2;
	}
}
