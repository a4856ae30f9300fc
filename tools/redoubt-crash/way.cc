// SPDX-License-Identifier: GPL-2.0
#include "way.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys.h"

namespace redoubt::crash {
namespace {

namespace fs = std::filesystem;
using client::Fd;

constexpr const char *net = "/sys/class/net";
constexpr int wait_seconds = 60, compressed = 4;	// MODULE_INIT_COMPRESSED_FILE

[[noreturn]] void fail(const std::string &what, int error = 0)
{
	throw std::runtime_error(error ? what + ": " + strerror(error) : what);
}

Fd any_socket()
{
	Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	if (!fd)
		fail("socket", errno);
	return fd;
}

sockaddr_in in_address(const std::string &text)
{
	sockaddr_in a{};

	a.sin_family = AF_INET;
	if (inet_pton(AF_INET, text.c_str(), &a.sin_addr) != 1)
		fail(text + ": only IPv4 addresses can be set in a crash kernel");
	return a;
}

std::string text_of(in_addr a)
{
	char text[INET_ADDRSTRLEN];

	return inet_ntop(AF_INET, &a, text, sizeof(text));
}

// The address that packets to the peer have
in_addr our_address(const std::string &peer)
{
	const Fd fd = any_socket();
	sockaddr_in to = in_address(peer), us{};
	socklen_t size = sizeof(us);

	to.sin_port = htons(9);
	if (connect(fd.get(), reinterpret_cast<sockaddr *>(&to), sizeof(to)) || getsockname(fd.get(), reinterpret_cast<sockaddr *>(&us), &size))
		fail("no way to " + peer, errno);
	return us.sin_addr;
}

// The card that is behind an interface, or a bridge's or bond's
std::string card_of(const std::string &name)
{
	std::vector<std::string> cards;
	std::string slave;

	if (fs::exists(fs::path(net) / name / "device"))
		return name;
	std::ifstream slaves(fs::path(net) / name / "bonding/active_slave");
	if (slaves >> slave)
		return card_of(slave);
	std::error_code none;
	for (const auto &port : fs::directory_iterator(fs::path(net) / name / "brif", none))
		if (fs::exists(fs::path(net) / port.path().filename() / "device"))
			cards.push_back(port.path().filename());
	if (cards.size() != 1)
		fail(name + ": is no network card, and no bridge or bond of which one is known to lead to the standby");
	return cards.front();
}

std::string mac_of(const std::string &name)
{
	alignas(ethtool_perm_addr) uint8_t room[sizeof(ethtool_perm_addr) + 32] = {};
	auto *const perm = reinterpret_cast<ethtool_perm_addr *>(room);
	const Fd fd = any_socket();
	ifreq request{};
	std::string now;

	perm->cmd = ETHTOOL_GPERMADDR;
	perm->size = 32;
	strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
	request.ifr_data = reinterpret_cast<char *>(room);
	const uint8_t *const m = room + sizeof(ethtool_perm_addr);
	if (!ioctl(fd.get(), SIOCETHTOOL, &request) && perm->size == 6 && std::any_of(m, m + 6, [](uint8_t b) { return b != 0; })) {
		char text[18];
		snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
		return text;
	}
	std::ifstream(fs::path(net) / name / "address") >> now;
	return now;
}

// Of the device and all that it is behind
std::vector<std::string> drivers_of(const std::string &card)
{
	std::vector<std::string> out;

	for (fs::path at = fs::canonical(fs::path(net) / card / "device"); at.has_relative_path() && at != "/sys"; at = at.parent_path())
		if (std::error_code none; fs::exists(at / "driver/module", none))
			out.push_back(fs::canonical(at / "driver/module").filename());
	return out;
}

std::string plain(std::string name)
{
	name.erase(name.find(".ko") == std::string::npos ? name.size() : name.find(".ko"));
	std::replace(name.begin(), name.end(), '-', '_');
	return name;
}

// With what they need, in order
std::vector<std::string> files_of(const std::vector<std::string> &names, const std::string &release)
{
	const std::string base = "/lib/modules/" + release + "/";
	std::ifstream in(base + "modules.dep");
	std::map<std::string, std::vector<std::string>> needed;
	std::vector<std::string> out;

	for (std::string line; std::getline(in, line);) {
		const size_t colon = line.find(':');
		if (colon == std::string::npos)
			continue;
		std::istringstream rest(line.substr(colon + 1));
		std::vector<std::string> files{line.substr(0, colon)};
		for (std::string file; rest >> file;)
			files.push_back(file);
		needed[plain(fs::path(files[0]).filename())] = files;
	}
	for (const std::string &name : names) {
		const auto it = needed.find(plain(name));
		if (it == needed.end())
			continue;	// built in
		for (auto file = it->second.rbegin(); file != it->second.rend(); ++file) {
			const std::string path = file->front() == '/' ? *file : base + *file;
			if (std::find(out.begin(), out.end(), path) == out.end())
				out.push_back(path);
		}
	}
	return out;
}

void set(int fd, unsigned long what, const std::string &name, const sockaddr_in &a)
{
	ifreq request{};

	strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
	memcpy(&request.ifr_addr, &a, sizeof(a));
	if (ioctl(fd, what, &request))
		fail(name + ": its address", errno);
}

std::string find_card(const std::string &mac)
{
	for (int i = 0; i < wait_seconds * 10; i++) {
		for (const auto &card : fs::directory_iterator(net)) {
			std::string its;
			if (std::ifstream(card.path() / "address") >> its && its == mac && fs::exists(card.path() / "device"))
				return card.path().filename();
		}
		usleep(100'000);
	}
	fail("no network card with the address " + mac);
}

} // namespace

Way find_way(const std::string &peer, const std::string &release)
{
	Way way;
	ifaddrs *all = nullptr;
	std::string interface;
	const in_addr us = our_address(peer);
	uint32_t mask = 0;

	if (getifaddrs(&all))
		fail("getifaddrs", errno);
	for (const ifaddrs *a = all; a; a = a->ifa_next) {
		if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || reinterpret_cast<sockaddr_in *>(a->ifa_addr)->sin_addr.s_addr != us.s_addr)
			continue;
		interface = a->ifa_name;
		mask = reinterpret_cast<sockaddr_in *>(a->ifa_netmask)->sin_addr.s_addr;
	}
	freeifaddrs(all);
	if (interface.empty() || interface == "lo")
		fail("the way to " + peer + " is not by a network card");
	way.address = text_of(us);
	way.prefix = static_cast<unsigned int>(__builtin_popcount(mask));
	if ((in_address(peer).sin_addr.s_addr ^ us.s_addr) & mask) {
		std::ifstream routes("/proc/net/route");
		std::string line, name;
		uint32_t best = 0;
		for (std::getline(routes, line); std::getline(routes, line);) {
			uint32_t to, gateway, flags, skip, its;
			std::istringstream words(line);
			words >> name >> std::hex >> to >> gateway >> flags >> std::dec >> skip >> skip >> skip >> std::hex >> its;
			if (words && name == interface && gateway && (in_address(peer).sin_addr.s_addr & its) == to && (way.gateway.empty() || ntohl(its) > best)) {
				best = ntohl(its);
				way.gateway = text_of({gateway});
			}
		}
		if (way.gateway.empty())
			fail("the way to " + peer + " has no gateway that is known");
	}
	const std::string card = card_of(interface);
	way.mac = mac_of(card);
	std::vector<std::string> names = drivers_of(card);
	// What resets the disks, where they are of that kind
	for (const auto &[driver, module] : {std::pair("virtio-pci", "virtio_pci"), std::pair("nvme", "nvme")})
		if (fs::exists(fs::path("/sys/bus/pci/drivers") / driver))
			names.push_back(module);
	way.modules = files_of(names, release);
	// What a vCPU was is in its VMCS there, which a module must read.
	if (fs::exists("/sys/module/kvm_intel")) {
		const std::vector<std::string> vmcs = files_of({"redoubt_vmcs"}, release);
		if (vmcs.empty())
			fail("redoubt_vmcs.ko is not installed: no vCPU could be read");
		way.modules.insert(way.modules.end(), vmcs.begin(), vmcs.end());
	}
	return way;
}

void open_way(const Way &way)
{
	for (const std::string &path : way.modules) {
		const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
		if (!fd || (syscall(SYS_finit_module, fd.get(), "", path.ends_with(".ko") ? 0 : compressed) && errno != EEXIST))
			fail(path, errno);
	}
	const std::string card = find_card(way.mac);
	const Fd fd = any_socket();
	sockaddr_in mask = in_address("0.0.0.0");
	ifreq request{};

	mask.sin_addr.s_addr = way.prefix ? htonl(~0u << (32 - way.prefix)) : 0;
	set(fd.get(), SIOCSIFADDR, card, in_address(way.address));
	set(fd.get(), SIOCSIFNETMASK, card, mask);
	strncpy(request.ifr_name, card.c_str(), IFNAMSIZ - 1);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd.get(), SIOCSIFFLAGS, &request))
		fail(card + ": up", errno);
	if (way.gateway.empty())
		return;
	rtentry route{};
	const sockaddr_in any = in_address("0.0.0.0"), gateway = in_address(way.gateway);
	memcpy(&route.rt_dst, &any, sizeof(any));
	memcpy(&route.rt_genmask, &any, sizeof(any));
	memcpy(&route.rt_gateway, &gateway, sizeof(gateway));
	route.rt_flags = RTF_UP | RTF_GATEWAY;
	if (ioctl(fd.get(), SIOCADDRT, &route))
		fail("the route by " + way.gateway, errno);
}

void to_json(nlohmann::json &j, const Way &w)
{
	j = {{"mac", w.mac}, {"address", w.address}, {"gateway", w.gateway}, {"prefix", w.prefix}, {"modules", w.modules}};
}

void from_json(const nlohmann::json &j, Way &w)
{
	w.mac = j.at("mac");
	w.address = j.at("address");
	w.gateway = j.at("gateway");
	w.prefix = j.at("prefix");
	w.modules = j.at("modules").get<std::vector<std::string>>();
	if (w.prefix > 32)
		throw std::runtime_error("a way that is none");
}

} // namespace redoubt::crash
