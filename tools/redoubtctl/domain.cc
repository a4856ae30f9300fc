// SPDX-License-Identifier: GPL-2.0
//
// Protection domains: what there is, how much there may be, and what only the
// operator can do with one.

#include "commands.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include "print.h"
#include "stop.h"

namespace redoubt::ctl {

using namespace client;

namespace {

constexpr size_t max_value = 4096, key_bytes = 32;

std::string vm_text(const Vm &vm)
{
	return "vm " + std::to_string(vm.id()) + ": ";
}

void tell(Context &ctx, const Vm &vm, const rdt_domain_info &info, const char *what, const std::string &text)
{
	if (ctx.json)
		ctx.out << Json{{"vm_id", vm.id()}, {"domain", hex(info.id)}, {what, true}} << std::endl;
	else
		ctx.out << vm_text(vm) << "domain " << hex(info.id) << " " << text << std::endl;
}

Secret read_key(const std::string &from, bool any_mode)
{
	Secret key = read_secret(from, key_bytes, any_mode);

	if (key.size() != key_bytes)
		throw Error(from + ": a key has " + std::to_string(key_bytes) + " bytes, this has " +
			    std::to_string(key.size()));
	return key;
}

std::vector<uint8_t> read_blob(const std::string &from)
{
	const int fd = from.empty() ? STDIN_FILENO : ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
	const Fd own(from.empty() ? -1 : fd);
	const std::string name = from.empty() ? "standard input" : from;
	std::vector<uint8_t> blob;
	uint8_t part[65536];

	if (fd < 0)
		throw Error("open " + from, errno);
	for (;;) {
		const ssize_t n = ::read(fd, part, sizeof(part));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			throw Error("read " + name, errno);
		if (!n)
			return blob;
		blob.insert(blob.end(), part, part + n);
		if (blob.size() > RDT_DOM_BLOB_MAX)
			throw Error(name + ": too long for a blob");
	}
}

// Nobody else's to read, though it tells nothing; and not over what is there.
void write_blob(const std::string &to, const std::vector<uint8_t> &blob)
{
	const Fd fd(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	size_t done = 0;

	if (!fd)
		throw Error("create " + to, errno);
	while (done < blob.size()) {
		const ssize_t n = ::write(fd.get(), blob.data() + done, blob.size() - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || fsync(fd.get())) {
			const int code = errno;

			unlink(to.c_str());
			throw Error("write " + to, code);
		}
		done += static_cast<size_t>(n);
	}
}

} // namespace

bool insist(const std::function<bool()> &ask, double wait_s)
{
	const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(wait_s);
	StopSignals signals;

	while (!ask()) {
		if (StopSignals::requested() || std::chrono::steady_clock::now() >= until)
			return false;
		std::this_thread::sleep_for(std::chrono::milliseconds(20));
	}
	return true;
}

rdt_domain_info find_domain(const Vm &vm, std::span<const uint8_t> measurement, std::optional<uint64_t> id)
{
	std::vector<rdt_domain_info> found;
	std::string all;

	for (const rdt_domain_info &info : vm.domains()) {
		const bool same = info.state == RDT_DOM_SEALED &&
				  std::equal(measurement.begin(), measurement.end(), info.measurement);

		if (id && info.id == *id && !same)
			throw Error(vm_text(vm) + "domain " + hex(*id) +
				    (info.state == RDT_DOM_SEALED ? " was measured as " + hex_bytes(info.measurement) + ", not " +
									    hex_bytes(measurement)
								  : " is not sealed"));
		if (!same || (id && info.id != *id))
			continue;
		found.push_back(info);
		all += (all.empty() ? "" : ", ") + hex(info.id);
	}
	if (found.empty() && id)
		throw Error(vm_text(vm) + "there is no domain " + hex(*id));
	if (found.empty())
		throw Error(vm_text(vm) + "no sealed domain was measured as " + hex_bytes(measurement));
	if (found.size() > 1)
		throw Error(vm_text(vm) + "several domains were measured so, choose one with --id: " + all);
	return found[0];
}

void change_quota(const Vm &vm, const QuotaOptions &options)
{
	rdt_domain_quota quota = vm.quota();

	if (options.domains)
		quota.domains = *options.domains;
	if (options.frames)
		quota.frames_each = *options.frames;
	if (options.total)
		quota.frames = *options.total;
	else if ((options.domains || options.frames) &&
		 __builtin_mul_overflow(uint64_t{quota.domains}, uint64_t{quota.frames_each}, &quota.frames))
		quota.frames = UINT64_MAX;
	if (options.may_export)
		quota.flags = *options.may_export ? quota.flags | RDT_DOM_Q_EXPORT : quota.flags & ~RDT_DOM_Q_EXPORT;
	vm.set_quota(quota);
}

int domains(Context &ctx, const std::string &name)
{
	const Vm vm = Device(ctx.sys).find(name);
	const std::vector<rdt_domain_info> all = vm.domains();
	uint64_t frames = 0;

	if (ctx.json) {
		Json list = Json::array();

		for (const rdt_domain_info &info : all)
			list.push_back(domain_json(info));
		ctx.out << Json{{"vm_id", vm.id()}, {"domains", list}} << std::endl;
		return exit_ok;
	}
	for (const rdt_domain_info &info : all) {
		ctx.out << domain_line(info) << "\n";
		frames += info.frames;
	}
	ctx.out << vm_text(vm) << plural(all.size(), "domain") << ", " << plural(frames, "frame") << std::endl;
	return exit_ok;
}

int quota(Context &ctx, const std::string &name, const QuotaOptions &options)
{
	const Vm vm = Device(ctx.sys).find(name);

	if (options.any())
		change_quota(vm, options);
	const rdt_domain_quota now = vm.quota();
	if (ctx.json) {
		Json json{{"vm_id", vm.id()}};

		json.update(quota_json(now));
		ctx.out << json << std::endl;
	} else {
		ctx.out << vm_text(vm) << quota_text(now) << std::endl;
	}
	return exit_ok;
}

int destroy(Context &ctx, const std::string &name, uint64_t id, double wait_s)
{
	const Vm vm = Device(ctx.sys).find(name);
	const rdt_domain_info info = vm.domain(id);

	if (!insist([&] { return vm.destroy(id); }, wait_s))
		throw Error(vm_text(vm) + "domain " + hex(id) +
			    ": a thread is inside; nobody new gets in, so ask again (--wait SECONDS)", EAGAIN);
	tell(ctx, vm, info, "destroyed", "destroyed: " + plural(info.frames, "frame") + " overwritten");
	return exit_ok;
}

int install(Context &ctx, const std::string &name, uint64_t id, uint64_t address, const std::string &from,
	    bool any_mode, double wait_s)
{
	const Secret value = read_secret(from, max_value, any_mode);
	const Vm vm = Device(ctx.sys).find(name);
	const rdt_domain_info info = vm.domain(id);
	const rdt_fixup whole{static_cast<__s64>(address - (info.gate_gva & ~0xfffull)), 0,
			      static_cast<__u32>(value.size())};

	if (!insist([&] { return vm.install(id, value, {whole}); }, wait_s))
		throw Error(vm_text(vm) + "domain " + hex(id) +
			    ": a thread is inside, or was interrupted there; ask again (--wait SECONDS)", EAGAIN);
	tell(ctx, vm, info, "installed", "has " + plural(value.size(), "byte") + " at " + hex(address));
	return exit_ok;
}

int export_domain(Context &ctx, const std::string &name, uint64_t id, const std::string &key_from, bool any_mode,
		  const std::string &to)
{
	const Secret key = read_key(key_from, any_mode);
	const Vm vm = Device(ctx.sys).find(name);
	const rdt_domain_info info = vm.domain(id);
	const std::vector<uint8_t> blob = vm.export_domain(id, key);

	if (to.empty()) {
		ctx.out.write(reinterpret_cast<const char *>(blob.data()), static_cast<std::streamsize>(blob.size()));
		return exit_ok;
	}
	write_blob(to, blob);
	tell(ctx, vm, info, "exported", "exported to " + to + ": " + plural(blob.size(), "byte"));
	return exit_ok;
}

int import_domain(Context &ctx, const std::string &name, std::optional<uint64_t> id, const std::string &key_from,
		  bool any_mode, const std::string &from)
{
	const Secret key = read_key(key_from, any_mode);
	const std::vector<uint8_t> blob = read_blob(from);
	const Vm vm = Device(ctx.sys).find(name);
	rdt_domain_blob head;

	if (blob.size() < sizeof(head))
		throw Error("no blob of a domain, or not whole");
	memcpy(&head, blob.data(), sizeof(head));
	if (memcmp(head.magic, RDT_DOM_BLOB_MAGIC, sizeof(head.magic)))
		throw Error("no blob of a domain");
	// Only to find the domain: the module believes the header no more than the rest.
	const rdt_domain_info info = find_domain(vm, head.measurement, id);
	vm.import_domain(info.id, key, blob);
	tell(ctx, vm, info, "imported", "has what was exported: " + plural(head.pages, "page"));
	return exit_ok;
}

} // namespace redoubt::ctl
