// SPDX-License-Identifier: GPL-2.0
//
// redoubt-crash: the host's kernel panics, its VMs do not. "load" puts a crash kernel where a panic finds it; the others are
// for that kernel's initramfs, and read what the old kernel has left.

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kexec.h"
#include "layout.h"
#include "root.h"
#include "sys.h"
#include "vcpu.h"

using namespace redoubt::crash;

namespace {

constexpr const char *root_parameter = "/sys/module/redoubt_standby/parameters/crash_root";
constexpr const char *line_parameter = "redoubt.root=";

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

// On the crash kernel's command line
uint64_t root_address()
{
	std::istringstream line(slurp("/proc/cmdline"));
	std::string word;

	while (line >> word)
		if (word.rfind(line_parameter, 0) == 0)
			return std::stoull(word.substr(strlen(line_parameter)), nullptr, 16);
	throw std::runtime_error(std::string("no ") + line_parameter + " on the command line");
}

struct Options {
	CrashKernel crash;
	std::string vmcore = "/proc/vmcore", layout = "/etc/redoubt/crash.layout", out, root;
};

void do_load(Options &o)
{
	std::string root = slurp(root_parameter);

	root.erase(root.find_last_not_of('\n') + 1);
	o.crash.line += " " + (line_parameter + root);
	load(o.crash);
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
	CLI::App app("The VMs of a host whose kernel panics", "redoubt-crash");
	Options o;

	app.require_subcommand(1);
	auto *const loads = app.add_subcommand("load", "Load a crash kernel; redoubt_standby is loaded");
	loads->add_option("--kernel", o.crash.kernel, "the image, of this very kernel")->required();
	loads->add_option("--initramfs", o.crash.initramfs, "archives, laid over one another")->required();
	loads->add_option("--append", o.crash.line, "its command line");
	auto *const unloads = app.add_subcommand("unload", "Take it away");
	auto *const layout = app.add_subcommand("layout", "Where this kernel's KVM has its fields, for the crash kernel");
	auto *const image = app.add_subcommand("image", "In the crash kernel: what the VMs were");
	image->add_option("--vmcore", o.vmcore, "the old kernel's memory");
	image->add_option("--layout", o.layout, "the file that \"layout\" printed");
	image->add_option("--root", o.root, "the root's address, not that of the command line");
	image->add_option("--out", o.out, "a directory")->required();
	CLI11_PARSE(app, argc, argv);
	try {
		if (*loads)
			do_load(o);
		else if (*unloads)
			unload();
		else if (*layout)
			std::cout << Layout::of_running_kernel().text();
		else if (*image)
			return do_image(o);
		return 0;
	} catch (const std::exception &e) {
		std::cerr << "redoubt-crash: " << e.what() << '\n';
		return 2;
	}
}
