// SPDX-License-Identifier: GPL-2.0

#include "client.h"

#include <cerrno>
#include <cstdio>
#include <limits>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "parse.h"

namespace redoubt::client {

namespace {

// What an errno means for a request, where that says more than its own text.
struct Reason {
	unsigned long request;
	int code;
	const char *text;
};

constexpr Reason reasons[] = {
	{RDT_ATTACH, EBADF, "not a KVM VM's descriptor"},
	{RDT_ATTACH, EEXIST, "attached already"},
	{RDT_ATTACH, EOPNOTSUPP, "the VM does not use KVM's TDP MMU, or is encrypted"},
	{RDT_OPEN, ENOENT, "no such VM is attached"},
	{RDT_SET_POLICY, EPERM, "needs CAP_SYS_ADMIN"},
	{RDT_VM_REGIONS, EUCLEAN, "the tree of monitored pages is corrupt"},
	{RDT_VM_PROTECT, EPERM, "the driver's frames and node pages cannot be changed"},
	{RDT_VM_PROTECT, EINVAL, "the range, action or class is not valid"},
	{RDT_VM_PROTECT, EFAULT, "a frame of the range is not RAM of the guest"},
	{RDT_VM_PROTECT, ENOMEM, "no free tree node, the guest must donate a page"},
	{RDT_VM_PROTECT, EBUSY, "a frame holds a structure that KVM itself writes"},
	{RDT_VM_PROTECT, ENOENT, "no frame of the range is protected"},
	{RDT_VM_PROTECT, EUCLEAN, "the tree of monitored pages is corrupt"},
	{RDT_VM_DETACH, EBUSY, "the guest is in integrity mode, or has domains"},
	{RDT_VM_DOM_QUOTA, EPERM, "needs CAP_SYS_ADMIN"},
	{RDT_VM_DOM_DESTROY, ENOENT, "there is no such domain"},
	{RDT_VM_DOM_DESTROY, EAGAIN, "a thread is inside; nobody new gets in"},
	{RDT_VM_DOM_INSTALL, EPERM, "needs CAP_SYS_ADMIN"},
	{RDT_VM_DOM_INSTALL, ENOENT, "no such domain is sealed"},
	{RDT_VM_DOM_INSTALL, EFAULT, "a place is on no page of the domain that takes values"},
	{RDT_VM_DOM_INSTALL, EAGAIN, "a thread is inside, or was interrupted there"},
	{RDT_VM_DOM_EXPORT, EPERM, "needs CAP_SYS_ADMIN"},
	{RDT_VM_DOM_EXPORT, EACCES, "the VM's quota does not allow it (quota --export on), or the domain was not made for it"},
	{RDT_VM_DOM_EXPORT, ENOENT, "no such domain is sealed"},
	{RDT_VM_DOM_EXPORT, EBUSY, "a thread is inside, or was interrupted there"},
	{RDT_VM_DOM_EXPORT, ENOPKG, "the host's kernel has no gcm(aes)"},
	{RDT_VM_DOM_IMPORT, EPERM, "needs CAP_SYS_ADMIN"},
	{RDT_VM_DOM_IMPORT, EACCES, "the domain was not made for it"},
	{RDT_VM_DOM_IMPORT, ENOENT, "no such domain is sealed"},
	{RDT_VM_DOM_IMPORT, EBUSY, "a thread is or has been inside"},
	{RDT_VM_DOM_IMPORT, ENOPKG, "the host's kernel has no gcm(aes)"},
	{RDT_VM_DOM_IMPORT, EBADMSG, "another key, or the blob was changed"},
	{RDT_VM_DOM_IMPORT, EXDEV, "the blob is another domain's"},
	{RDT_VM_DOM_IMPORT, EINVAL, "no blob of a domain, or not whole"},
};

[[noreturn]] void fail(unsigned long request, std::string what)
{
	const int code = errno;

	for (const Reason &reason : reasons)
		if (reason.request == request && reason.code == code)
			throw Error(what + ": " + reason.text, code);
	// Every request on a VM's descriptor; those on the device never give it.
	if (code == ENODEV)
		throw Error(what + ": the VM is gone or was detached", code);
	throw Error(what, code);
}

std::string vm_name(uint32_t id)
{
	return "vm " + std::to_string(id);
}

std::string domain_name(uint64_t id)
{
	char text[32];

	snprintf(text, sizeof(text), "domain 0x%llx", static_cast<unsigned long long>(id));
	return text;
}

uint64_t address(const void *p)
{
	return reinterpret_cast<uintptr_t>(p);
}

} // namespace

Device::Device(Sys &sys) : sys_(&sys), fd_(sys.open(path, O_RDWR))
{
	if (!fd_) {
		const int code = errno;

		if (code != ENOENT && code != ENODEV && code != ENXIO)
			throw Error(std::string("open ") + path, code);
		if (sys.access("/sys/module/redoubt/initstate", F_OK) == 0)
			throw Error(std::string("the module is loaded but cannot be reached by ") + path, code);
		throw NoModule("the redoubt module is not loaded (no " + std::string(path) + ")");
	}
	call(RDT_INFO, &info_, "info");
	if (info_.version != RDT_UAPI_VERSION)
		throw Error("the module has interface version " + std::to_string(info_.version) +
			    ", this program has " + std::to_string(RDT_UAPI_VERSION));
	info_.kernel[sizeof(info_.kernel) - 1] = 0;
}

void Device::call(unsigned long request, void *arg, const char *what) const
{
	if (sys_->ioctl(fd_.get(), request, arg) < 0)
		fail(request, what);
}

std::vector<rdt_list_entry> Device::list() const
{
	std::vector<rdt_list_entry> all;
	rdt_list_entry room[64];
	rdt_list request{};

	do {
		request.nr = std::size(room);
		request.entries = reinterpret_cast<uintptr_t>(room);
		call(RDT_LIST, &request, "list of VMs");
		if (!request.nr)
			break;
		if (request.nr > std::size(room) || room[request.nr - 1].vm_id <= request.after)
			throw Error("list of VMs: the module's answer makes no sense");
		all.insert(all.end(), room, room + request.nr);
		request.after = room[request.nr - 1].vm_id;
	} while (request.nr == std::size(room));
	return all;
}

Vm Device::attach(int kvm_vm_fd) const
{
	rdt_attach request{};

	request.vm_fd = kvm_vm_fd;
	request.fd = -1;
	call(RDT_ATTACH, &request, "attach");
	return Vm(*sys_, Fd(request.fd), request.vm_id);
}

Vm Device::open(uint32_t vm_id) const
{
	rdt_open request{};

	request.vm_id = vm_id;
	request.fd = -1;
	call(RDT_OPEN, &request, vm_name(vm_id).c_str());
	return Vm(*sys_, Fd(request.fd), vm_id);
}

Vm Device::find(const std::string &name) const
{
	const bool by_pid = name.starts_with("pid:");
	const auto number = parse_number(by_pid ? std::string_view(name).substr(4) : name);

	if (!number || *number == 0 || *number > uint64_t(by_pid ? INT32_MAX : UINT32_MAX))
		throw Error("'" + name + "' is neither a VM's number nor pid:PID");
	if (!by_pid)
		return open(static_cast<uint32_t>(*number));

	uint32_t found = 0;
	std::string all;
	for (const rdt_list_entry &entry : list()) {
		if (entry.vmm_pid != static_cast<int32_t>(*number))
			continue;
		found = entry.vm_id;
		all += (all.empty() ? "" : ", ") + std::to_string(entry.vm_id);
	}
	if (!found)
		throw Error("no VM of process " + std::to_string(*number) + " is attached");
	if (all != std::to_string(found))
		throw Error("process " + std::to_string(*number) + " has several VMs, give one by number: " + all);
	return open(found);
}

uint32_t Device::policy() const
{
	rdt_policy request{};

	call(RDT_GET_POLICY, &request, "policy");
	return request.flags;
}

void Device::set_policy(uint32_t flags) const
{
	rdt_policy request{};

	request.flags = flags;
	call(RDT_SET_POLICY, &request, "set policy");
}

void Vm::call(unsigned long request, void *arg, const char *what) const
{
	if (sys_->ioctl(fd_.get(), request, arg) < 0)
		fail(request, vm_name(id_) + ": " + what);
}

rdt_vm_info Vm::info() const
{
	rdt_vm_info info{};

	call(RDT_VM_INFO, &info, "info");
	return info;
}

std::vector<rdt_region> Vm::regions(uint64_t start) const
{
	std::vector<rdt_region> all;
	std::vector<rdt_region> room(1024);
	rdt_regions request{};

	request.start = start;
	for (;;) {
		const uint64_t from = request.start;

		request.nr = static_cast<uint32_t>(room.size());
		request.entries = reinterpret_cast<uintptr_t>(room.data());
		call(RDT_VM_REGIONS, &request, "regions");
		if (request.nr > room.size())
			throw Error(vm_name(id_) + ": regions: the module's answer makes no sense");
		all.insert(all.end(), room.begin(), room.begin() + request.nr);
		if (request.nr < room.size())
			return all;
		if (request.start <= from)
			throw Error(vm_name(id_) + ": regions: the list does not go on");
	}
}

void Vm::protect(uint64_t gpa, uint64_t pages, unsigned action, unsigned cls) const
{
	rdt_protect request{};

	request.gpa = gpa;
	request.pages = pages;
	request.action = static_cast<__u8>(action);
	request.cls = static_cast<__u8>(cls);
	call(RDT_VM_PROTECT, &request, "protect");
}

void Vm::detach(bool force) const
{
	// The flags are the argument itself.
	call(RDT_VM_DETACH, force ? reinterpret_cast<void *>(RDT_DETACH_FORCE) : nullptr, "detach");
}

// False, and nothing thrown, when it fails with this one errno.
bool Vm::call_unless(int code, unsigned long request, void *arg, const std::string &what) const
{
	if (sys_->ioctl(fd_.get(), request, arg) >= 0)
		return true;
	if (errno == code)
		return false;
	fail(request, vm_name(id_) + ": " + what);
}

std::vector<rdt_domain_info> Vm::domains() const
{
	std::vector<rdt_domain_info> all;

	for (uint32_t view = 0;;) {
		rdt_domain_info info{};

		info.view = view;
		if (!call_unless(ENOENT, RDT_VM_DOMAIN, &info, "domains"))
			return all;
		if (info.view < view)
			throw Error(vm_name(id_) + ": domains: the list does not go on");
		view = info.view + 1;
		all.push_back(info);
	}
}

rdt_domain_info Vm::domain(uint64_t id) const
{
	for (const rdt_domain_info &info : domains())
		if (info.id == id)
			return info;
	throw Error(vm_name(id_) + ": there is no " + domain_name(id), ENOENT);
}

rdt_domain_quota Vm::quota() const
{
	rdt_domain_quota quota{};

	call(RDT_VM_DOM_GET_QUOTA, &quota, "quota");
	return quota;
}

void Vm::set_quota(const rdt_domain_quota &quota) const
{
	rdt_domain_quota request = quota;

	call(RDT_VM_DOM_QUOTA, &request, "set quota");
}

bool Vm::destroy(uint64_t id) const
{
	__u64 arg = id;

	return call_unless(EAGAIN, RDT_VM_DOM_DESTROY, &arg, domain_name(id));
}

bool Vm::install(uint64_t id, const Secret &value, const std::vector<rdt_fixup> &fixups) const
{
	rdt_install request{};

	request.id = id;
	request.value = address(value.data());
	request.len = static_cast<__u32>(value.size());
	request.fixups = address(fixups.data());
	request.nr = static_cast<__u32>(fixups.size());
	return call_unless(EAGAIN, RDT_VM_DOM_INSTALL, &request, domain_name(id) + ": install");
}

std::vector<uint8_t> Vm::export_domain(uint64_t id, const Secret &key) const
{
	const std::string what = domain_name(id) + ": export";
	std::vector<uint8_t> blob;
	rdt_domain_export request{};

	request.id = id;
	request.key = address(key.data());
	// How much it is, the first call tells; a sealed domain does not grow.
	while (!call_unless(ENOSPC, RDT_VM_DOM_EXPORT, &request, what)) {
		if (request.bytes <= blob.size() || request.bytes > RDT_DOM_BLOB_MAX)
			throw Error(vm_name(id_) + ": " + what + ": the module's answer makes no sense");
		blob.resize(request.bytes);
		request.blob = address(blob.data());
	}
	if (request.bytes > blob.size())
		throw Error(vm_name(id_) + ": " + what + ": the module's answer makes no sense");
	blob.resize(request.bytes);
	return blob;
}

void Vm::import_domain(uint64_t id, const Secret &key, const std::vector<uint8_t> &blob) const
{
	rdt_domain_export request{};

	request.id = id;
	request.key = address(key.data());
	request.blob = address(blob.data());
	request.bytes = blob.size();
	call(RDT_VM_DOM_IMPORT, &request, (domain_name(id) + ": import").c_str());
}

void Vm::seen(uint64_t seq) const
{
	__u64 arg = seq;

	call(RDT_VM_SEEN, &arg, "seen");
}

EventRing Vm::events() const
{
	const auto map = [this](size_t size) {
		void *at = sys_->map(fd_.get(), size);

		if (at == MAP_FAILED)
			throw Error(vm_name(id_) + ": mmap of the event ring", errno);
		return std::shared_ptr<const void>(at, [size](void *mapping) { munmap(mapping, size); });
	};
	// The first page says how large the whole is.
	const size_t size = EventRing::mapping_size(map(4096).get());

	return EventRing(map(size), size);
}

} // namespace redoubt::client
