// SPDX-License-Identifier: GPL-2.0

#include "genl.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "../lib/parse.h"
#include "../lib/process.h"

namespace redoubt::agent {

namespace {

constexpr const char *device_path = "/dev/redoubt-standby";
constexpr milliseconds quiet_limit{1'000};
constexpr int data_buffer = 4 << 20, answer_ms = 5'000;
// What is lost again and again is lost for another reason than a full buffer.
constexpr unsigned max_rounds = 100;

Fd open_netlink(int flags)
{
	Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_GENERIC));
	sockaddr_nl address{};

	address.nl_family = AF_NETLINK;
	if (!fd || bind(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)))
		throw Error("generic netlink", errno);
	return fd;
}

// Attributes by type; those beyond the table are of a newer module.
template <size_t N> void parse(const nlmsghdr *message, const nlattr *(&table)[N])
{
	const auto *attr = static_cast<const nlattr *>(mnl_nlmsg_get_payload_offset(message, sizeof(genlmsghdr)));
	const auto *end = static_cast<const char *>(mnl_nlmsg_get_payload_tail(message));

	std::fill(std::begin(table), std::end(table), nullptr);
	for (; mnl_attr_ok(attr, static_cast<int>(end - reinterpret_cast<const char *>(attr))); attr = mnl_attr_next(attr)) {
		if (mnl_attr_get_type(attr) < N && !table[mnl_attr_get_type(attr)])
			table[mnl_attr_get_type(attr)] = attr;
	}
}

template <typename T> T number(const nlattr *attr, const char *what)
{
	T value;

	if (!attr || mnl_attr_get_payload_len(attr) != sizeof(T))
		throw Error(std::string("the module's message has no ") + what);
	memcpy(&value, mnl_attr_get_payload(attr), sizeof(T));
	return value;
}

bool bit(const nlattr *bitmap, uint32_t i)
{
	if (!bitmap)
		return false;
	const auto *bytes = static_cast<const uint8_t *>(mnl_attr_get_payload(bitmap));
	return i / 8 < mnl_attr_get_payload_len(bitmap) && (bytes[i / 8] >> i % 8 & 1);
}

} // namespace

bool Hold::available()
{
	struct stat st;

	return !stat(device_path, &st);
}

Hold::Hold(pid_t pid, const Uuid &uuid)
{
	client::Sys sys;

	device_ = Fd(open(device_path, O_RDWR | O_CLOEXEC));
	if (!device_)
		throw Error(std::string("open ") + device_path + (errno == ENOENT ? " (redoubt_standby.ko is not loaded)" : ""), errno);
	const client::ProcessVm vm = client::take_vm(sys, pid, std::nullopt);
	vcpu_fds_ = client::take_vcpus(pid);
	std::vector<int32_t> numbers;
	for (const Fd &fd : vcpu_fds_)
		numbers.push_back(fd.get());
	rdt_sb_register request{};
	request.vm_fd = vm.fd.get();
	request.nr_vcpus = static_cast<uint32_t>(numbers.size());
	request.vcpu_fds = reinterpret_cast<uint64_t>(numbers.data());
	memcpy(request.uuid, uuid.data(), sizeof(request.uuid));
	if (ioctl(device_.get(), RDT_SB_REGISTER, &request))
		throw Error("register process " + std::to_string(pid) + " with redoubt_standby", errno);
	id_ = request.id;
	vcpus_ = request.nr_vcpus;
}

void Hold::leave(std::span<const rdt_crash_range> ranges, std::span<const uint8_t> note, const void *live, size_t live_bytes)
{
	rdt_sb_crash request{};

	request.ranges = reinterpret_cast<uint64_t>(ranges.data());
	request.nr_ranges = static_cast<uint32_t>(ranges.size());
	request.note = reinterpret_cast<uint64_t>(note.data());
	request.note_bytes = static_cast<uint32_t>(note.size());
	request.live = reinterpret_cast<uint64_t>(live);
	request.live_bytes = static_cast<uint32_t>(live_bytes);
	if (ioctl(device_.get(), RDT_SB_CRASH, &request))
		throw Error("what a crash kernel would need cannot be left", errno);
}

Genl::Genl() : socket_(open_netlink(0))
{
	const timeval limit{answer_ms / 1000, 0};
	const char name[] = RDT_SB_GENL_NAME;

	if (setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)))
		throw Error("generic netlink", errno);
	const uint32_t seq = send(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, {{CTRL_ATTR_FAMILY_NAME, name, sizeof(name)}});
	try {
		receive(seq, [this](const void *message) {
			const nlattr *table[CTRL_ATTR_MAX + 1];

			parse(static_cast<const nlmsghdr *>(message), table);
			family_ = number<uint16_t>(table[CTRL_ATTR_FAMILY_ID], "family");
		});
	} catch (const Error &error) {
		throw Error("generic netlink family " + std::string(name) + (error.code() == ENOENT ? " (redoubt_standby.ko is not loaded)" : ""),
			    error.code());
	}
}

uint32_t Genl::send(uint16_t type, uint8_t command, uint8_t version, std::initializer_list<Attribute> attributes)
{
	size_t size = MNL_NLMSG_HDRLEN + sizeof(genlmsghdr);
	for (const Attribute &a : attributes)
		size += MNL_ATTR_HDRLEN + MNL_ALIGN(a.size);
	std::vector<uint8_t> bytes(size);
	nlmsghdr *message = mnl_nlmsg_put_header(bytes.data());
	auto *head = static_cast<genlmsghdr *>(mnl_nlmsg_put_extra_header(message, sizeof(genlmsghdr)));

	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	message->nlmsg_seq = ++seq_;
	head->cmd = command;
	head->version = version;
	for (const Attribute &a : attributes)
		mnl_attr_put(message, a.type, a.size, a.data);
	if (::send(socket_.get(), bytes.data(), message->nlmsg_len, 0) < 0)
		throw Error("generic netlink", errno);
	return seq_;
}

void Genl::receive(uint32_t seq, const std::function<void(const void *)> &reply)
{
	alignas(nlmsghdr) static char buffer[64 * 1024];

	for (;;) {
		const ssize_t got = recv(socket_.get(), buffer, sizeof(buffer), 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			throw Error("no answer by generic netlink", errno);
		int left = static_cast<int>(got);
		for (auto *message = reinterpret_cast<nlmsghdr *>(buffer); mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
			if (message->nlmsg_seq != seq)
				continue;	// of a request that was given up
			if (message->nlmsg_type != NLMSG_ERROR) {
				if (reply)
					reply(message);
				continue;
			}
			const auto *error = static_cast<const nlmsgerr *>(mnl_nlmsg_get_payload(message));
			if (error->error)
				throw Error("redoubt_standby", -error->error);
			return;
		}
	}
}

void Genl::request(uint8_t command, std::initializer_list<Attribute> attributes, const std::function<void(const void *)> &reply)
{
	receive(send(family_, command, RDT_SB_GENL_VERSION, attributes), reply);
}

std::vector<Mapping> find_mappings(pid_t pid, const RamFile &ram)
{
	const std::string path = "/proc/" + std::to_string(pid) + "/maps";
	std::ifstream maps(path);
	std::vector<Mapping> out;
	struct stat st;
	uint64_t covered = 0;

	if (!maps || fstat(ram.fd(), &st))
		throw Error("open " + path, errno);
	for (std::string line; std::getline(maps, line);) {
		unsigned long long from, to, offset, inode;
		unsigned major_number, minor_number;

		if (sscanf(line.c_str(), "%llx-%llx %*s %llx %x:%x %llu", &from, &to, &offset, &major_number, &minor_number, &inode) != 6 ||
		    inode != st.st_ino || makedev(major_number, minor_number) != st.st_dev)
			continue;
		out.push_back({from / page_bytes, (to - from) / page_bytes, offset / page_bytes});
	}
	// The same page may be mapped twice; one place is enough.
	std::sort(out.begin(), out.end(), [](const Mapping &a, const Mapping &b) { return a.page < b.page; });
	for (Mapping &m : out) {
		if (m.page > covered)
			break;
		const uint64_t skip = std::min(covered - m.page, m.frames);
		m = {m.hva + skip, m.frames - skip, m.page + skip};
		covered += m.frames;
	}
	if (covered < ram.frames())
		throw Error("process " + std::to_string(pid) + " has mapped " + std::to_string(covered) + " of the RAM file's " +
			    std::to_string(ram.frames()) + " frames");
	std::erase_if(out, [](const Mapping &m) { return !m.frames; });
	return out;
}

NetlinkSource::NetlinkSource(Loop &loop, const RamFile &ram, pid_t pid, uint32_t vm, std::function<void()> ready)
	: loop_(loop), ready_(std::move(ready)), vm_(vm), frames_(ram.frames()), mappings_(find_mappings(pid, ram)), buffer_(128 * 1024),
	  wanted_(ram.frames())
{
}

NetlinkSource::~NetlinkSource()
{
	cancel();
}

void NetlinkSource::open_data_socket()
{
	data_ = open_netlink(SOCK_NONBLOCK);
	// Beyond rmem_max: a stream's messages are 60 KiB each.
	if (setsockopt(data_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &data_buffer, sizeof(data_buffer)))
		throw Error("SO_RCVBUFFORCE", errno);
	loop_.watch(data_.get(), 0, [this](uint32_t) {
		loop_.change(data_.get(), 0);
		ready_();
	});
}

void NetlinkSource::ask(uint8_t command, const std::vector<sb::Run> &runs)
{
	std::vector<rdt_sb_range> ranges;

	for (const sb::Run &run : runs) {
		for (const Mapping &m : mappings_) {
			const uint64_t from = std::max(run.first, m.page), to = std::min(run.first + run.count, m.page + m.frames);

			if (from < to)
				ranges.push_back({m.hva + from - m.page, to - from});
		}
	}
	// The rest is still missing at STREAM_END, and asked for then.
	if (ranges.size() > RDT_SB_MAX_RANGES)
		ranges.resize(RDT_SB_MAX_RANGES);
	const uint8_t space = RDT_SB_SPACE_HVA;
	const int32_t fd = data_.get();
	if (command == RDT_SB_CMD_STREAM)
		genl_.request(command, {{RDT_SB_A_VM, &vm_, sizeof(vm_)}, {RDT_SB_A_STREAM, &stream_, sizeof(stream_)},
					{RDT_SB_A_DATA_FD, &fd, sizeof(fd)}, {RDT_SB_A_SPACE, &space, sizeof(space)},
					{RDT_SB_A_RANGES, ranges.data(), ranges.size() * sizeof(ranges[0])}});
	else
		genl_.request(command, {{RDT_SB_A_VM, &vm_, sizeof(vm_)}, {RDT_SB_A_STREAM, &stream_, sizeof(stream_)},
					{RDT_SB_A_RANGES, ranges.data(), ranges.size() * sizeof(ranges[0])}});
}

void NetlinkSource::want(std::span<const sb::Run> runs)
{
	std::vector<sb::Run> all(runs.begin(), runs.end());

	for (const sb::Run &run : runs) {
		for (uint64_t page = run.first; page < run.first + run.count; page++) {
			missing_ += !wanted_[page];
			wanted_[page] = true;
		}
	}
	finished_ = false;
	rounds_ = 0;
	if (open_) {
		ask(RDT_SB_CMD_AGAIN, all);
		return;
	}
	open_data_socket();
	lost_stream_.clear();
	stream_++;
	seq_ = lost_ = 0;
	ask(RDT_SB_CMD_STREAM, all);
	open_ = true;
}

void NetlinkSource::cancel()
{
	loop_.cancel(quiet_);
	if (open_) {
		open_ = false;
		try {
			genl_.request(RDT_SB_CMD_CANCEL, {{RDT_SB_A_VM, &vm_, sizeof(vm_)}, {RDT_SB_A_STREAM, &stream_, sizeof(stream_)}});
		} catch (const Error &) {
			// It ends with the registration.
		}
	}
	// Behind CANCEL: a stream whose receiver goes away tells the log.
	if (data_) {
		loop_.forget(data_.get());
		data_ = Fd();
	}
	std::fill(wanted_.begin(), wanted_.end(), false);
	missing_ = 0;
	finished_ = true;
}

std::optional<uint64_t> NetlinkSource::page_of(uint64_t hva) const
{
	for (const Mapping &m : mappings_) {
		if (hva >= m.hva && hva - m.hva < m.frames)
			return m.page + hva - m.hva;
	}
	return std::nullopt;
}

bool NetlinkSource::produce(const Take &take)
{
	if (finished_)
		return false;
	if (!lost_stream_.empty())
		throw Error("the module's stream: " + lost_stream_);
	const ssize_t got = recv(data_.get(), buffer_.data(), buffer_.size(), 0);
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		loop_.change(data_.get(), EPOLLIN);
		if (!quiet_)
			quiet_ = loop_.after(quiet_limit, [this] { on_quiet(); });
		return false;
	}
	loop_.cancel(quiet_);
	// Something did not fit: what it was the end of the stream will show.
	if (got < 0 && errno == ENOBUFS)
		return true;
	if (got < 0)
		throw Error("the module's stream", errno);
	int left = static_cast<int>(got);
	for (auto *message = reinterpret_cast<nlmsghdr *>(buffer_.data()); mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
		if (message->nlmsg_type != genl_.family())
			continue;
		const auto *head = static_cast<const genlmsghdr *>(mnl_nlmsg_get_payload(message));
		const nlattr *table[RDT_SB_A_MAX + 1];
		parse(message, table);
		if (number<uint32_t>(table[RDT_SB_A_VM], "VM") != vm_ || number<uint32_t>(table[RDT_SB_A_STREAM], "stream") != stream_)
			continue;
		const auto seq = number<uint64_t>(table[RDT_SB_A_SEQ], "number");
		lost_ += seq - seq_ - 1;
		seq_ = seq;
		if (head->cmd == RDT_SB_CMD_PAGES)
			on_pages(table, take);
		else if (head->cmd == RDT_SB_CMD_STREAM_END)
			on_end();
	}
	return !finished_;
}

void NetlinkSource::on_pages(const void *attributes, const Take &take)
{
	const auto *table = static_cast<const nlattr *const *>(attributes);
	const auto first = number<uint64_t>(table[RDT_SB_A_FIRST], "first frame");
	const auto count = number<uint32_t>(table[RDT_SB_A_FRAMES], "number of frames");
	const nlattr *data = table[RDT_SB_A_DATA], *zero = table[RDT_SB_A_ZERO];
	const uint8_t *pages = data ? static_cast<const uint8_t *>(mnl_attr_get_payload(data)) : nullptr;
	uint64_t pages_left = data ? mnl_attr_get_payload_len(data) / page_bytes : 0;

	if (!count || count > RDT_SB_MAX_FRAMES)
		throw Error("the module's message is of a form that is not known");
	// In runs of what is wanted and lies together in the file, too
	for (uint32_t i = 0; i < count;) {
		const auto page = page_of(first + i);
		const uint8_t *run = pages;
		uint64_t zeroes = 0;
		uint32_t n = 0;

		if (bit(table[RDT_SB_A_LOST], i))
			throw Error("the VMM's memory has no page at " + std::to_string(first + i) + ": the image cannot be whole");
		for (; i + n < count && n < sb::max_frames && !bit(table[RDT_SB_A_LOST], i + n); n++) {
			const auto there = page_of(first + i + n);

			if (!page || there != *page + n || !wanted_[*there])
				break;
			if (bit(zero, i + n)) {
				zeroes |= 1ull << n;
			} else if (!pages_left) {
				throw Error("the module's message is too short");
			} else {
				pages_left--;
				pages += page_bytes;
			}
			wanted_[*there] = false;
			missing_--;
		}
		if (n) {
			take(*page, n, zeroes, run);
			i += n;
		} else {
			// One that nobody waits for
			if (!bit(zero, i) && pages_left) {
				pages_left--;
				pages += page_bytes;
			}
			i++;
		}
	}
}

// Nothing comes, and the end has not come: it was lost, or the thread has not had a turn.
void NetlinkSource::on_quiet()
{
	quiet_ = 0;
	try {
		genl_.request(RDT_SB_CMD_AGAIN, {{RDT_SB_A_VM, &vm_, sizeof(vm_)}, {RDT_SB_A_STREAM, &stream_, sizeof(stream_)}});
		quiet_ = loop_.after(quiet_limit, [this] { on_quiet(); });
	} catch (const Error &error) {
		lost_stream_ = error.what();
		ready_();
	}
}

void NetlinkSource::on_end()
{
	std::vector<sb::Run> missing;

	if (!missing_) {
		finished_ = true;
		return;
	}
	if (++rounds_ > max_rounds)
		throw Error("the module's stream loses pages again and again");
	for (uint64_t page = 0; page < frames_ && missing.size() < RDT_SB_MAX_RANGES; page++) {
		if (!wanted_[page])
			continue;
		if (!missing.empty() && missing.back().first + missing.back().count == page)
			missing.back().count++;
		else
			missing.push_back({page, 1});
	}
	ask(RDT_SB_CMD_AGAIN, missing);
}

} // namespace redoubt::agent
