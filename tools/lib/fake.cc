// SPDX-License-Identifier: GPL-2.0

#include "fake.h"

#include <cerrno>
#include <cstring>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace redoubt::client {

namespace {

int fail(int code)
{
	errno = code;
	return -1;
}

template <typename T>
bool all_zero(const T &field)
{
	const auto *bytes = reinterpret_cast<const unsigned char *>(&field);

	for (size_t i = 0; i < sizeof(T); i++)
		if (bytes[i])
			return false;
	return true;
}

} // namespace

FakeRing::FakeRing(uint32_t records)
	: fd_(memfd_create("fake-redoubt-vm", MFD_CLOEXEC)), size_(4096 + size_t{records} * sizeof(rdt_event))
{
	void *at = MAP_FAILED;

	if (fd_ && ftruncate(fd_.get(), static_cast<off_t>(size_)) == 0)
		at = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
	if (at == MAP_FAILED)
		throw Error("fake ring", errno);
	ring_ = static_cast<rdt_ring *>(at);
	ring_->magic = RDT_RING_MAGIC;
	ring_->version = RDT_UAPI_VERSION;
	ring_->record_size = sizeof(rdt_event);
	ring_->records = records;
	ring_->data_offset = 4096;
}

FakeRing::~FakeRing()
{
	munmap(ring_, size_);
}

rdt_event *FakeRing::record(uint64_t seq) const
{
	auto *first = reinterpret_cast<rdt_event *>(reinterpret_cast<unsigned char *>(ring_) + 4096);

	return first + (seq - 1) % ring_->records;
}

uint64_t FakeRing::push(rdt_event event)
{
	constexpr size_t words = sizeof(event) / sizeof(__u64);
	__u64 from[words];
	auto *to = reinterpret_cast<__u64 *>(record(ring_->head + 1));

	event.seq = ring_->head + 1;
	memcpy(from, &event, sizeof(event));
	// Nobody may take a half-written record for the old or the new one.
	__atomic_store_n(to, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (size_t i = 1; i < words; i++)
		__atomic_store_n(to + i, from[i], __ATOMIC_RELAXED);
	__atomic_store_n(to, event.seq, __ATOMIC_RELEASE);
	__atomic_fetch_add(&ring_->count[event.type % RDT_EV_NR], 1, __ATOMIC_RELAXED);
	__atomic_store_n(&ring_->head, event.seq, __ATOMIC_RELEASE);
	return event.seq;
}

uint32_t FakeModule::add_vm(int32_t pid, uint32_t records)
{
	std::lock_guard guard(lock_);
	auto vm = std::make_unique<FakeVm>(records);
	struct stat st;

	vm->pid = pid;
	if (fstat(vm->ring.fd(), &st))
		throw Error("fake VM", errno);
	inode_[st.st_ino] = ++last_id_;
	vms_[last_id_] = std::move(vm);
	return last_id_;
}

FakeDomain &FakeModule::add_domain(uint32_t id, uint32_t view, uint8_t measured, uint32_t flags)
{
	std::lock_guard guard(lock_);
	FakeDomain &domain = vm(id).domains[view];

	domain.info.id = 0x100 + view;
	domain.info.view = view;
	domain.info.state = measured ? RDT_DOM_SEALED : RDT_DOM_BUILDING;
	domain.info.flags = flags;
	domain.info.slots = 2;
	domain.info.frames = 11;
	domain.info.gate_gva = 0xffffffffc0002010;
	memset(domain.info.measurement, measured, sizeof(domain.info.measurement));
	if (measured) {
		rdt_event event{};

		event.type = RDT_EV_DOMAIN;
		event.code = RDT_DOM_EV_SEALED;
		event.domain = view;
		raise(id, event);
	}
	return domain;
}

void FakeModule::raise(uint32_t id, rdt_event event)
{
	std::lock_guard guard(lock_);

	event.vm_id = id;
	vm(id).ring.push(event);
}

void FakeModule::end(uint32_t id, unsigned type)
{
	std::lock_guard guard(lock_);
	rdt_event event{};

	vm(id).listed = false;
	vm(id).flags |= RDT_VM_DEAD;
	event.type = static_cast<__u16>(type);
	event.flags = RDT_EVF_HOST;
	raise(id, event);
}

int FakeModule::open(const char *path, int)
{
	if (strcmp(path, "/dev/redoubt"))
		return fail(ENOENT);
	if (open_error)
		return fail(open_error);
	return ::open("/dev/null", O_RDWR | O_CLOEXEC);
}

int FakeModule::access(const char *path, int)
{
	return in_sysfs && !strncmp(path, "/sys/module/redoubt", 19) ? 0 : fail(ENOENT);
}

uint32_t FakeModule::vm_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		throw Error("fake module: not an open descriptor", errno);
	const auto it = inode_.find(st.st_ino);
	return it == inode_.end() || S_ISCHR(st.st_mode) ? 0 : it->second;
}

int FakeModule::open_vm(uint32_t id)
{
	// A descriptor of its own, not a dup: RDT_VM_SEEN is kept per descriptor.
	const std::string path = "/proc/self/fd/" + std::to_string(vm(id).ring.fd());
	const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);

	seen_[fd] = 0;
	return fd;
}

int FakeModule::ioctl(int fd, unsigned long request, void *arg)
{
	std::lock_guard guard(lock_);
	const uint32_t id = vm_of(fd);

	return id ? vm_ioctl(fd, id, request, arg) : device_ioctl(request, arg);
}

int FakeModule::device_ioctl(unsigned long request, void *arg)
{
	switch (request) {
	case RDT_INFO: {
		rdt_info info{};

		info.version = version;
		info.arch = RDT_ARCH_NPT;
		info.flags = policy;
		info.views = 2;
		strcpy(info.kernel, "6.1.0-test");
		for (const auto &[id, vm] : vms_)
			info.vms += vm->listed;
		*static_cast<rdt_info *>(arg) = info;
		return 0;
	}
	case RDT_ATTACH: {
		auto *attach = static_cast<rdt_attach *>(arg);

		if (attach->flags || !all_zero(attach->reserved))
			return fail(EINVAL);
		if (fcntl(attach->vm_fd, F_GETFD) < 0)
			return fail(EBADF);
		for (const auto &[id, vm] : vms_)
			if (vm->pid == getpid() && vm->listed)
				return fail(EEXIST);
		attach->vm_id = add_vm(getpid());
		attach->fd = open_vm(attach->vm_id);
		return 0;
	}
	case RDT_OPEN: {
		auto *open = static_cast<rdt_open *>(arg);

		if (open->flags || open->reserved)
			return fail(EINVAL);
		if (!vms_.contains(open->vm_id) || !vm(open->vm_id).listed)
			return fail(ENOENT);
		open->fd = open_vm(open->vm_id);
		return 0;
	}
	case RDT_LIST: {
		auto *list = static_cast<rdt_list *>(arg);
		auto *entries = reinterpret_cast<rdt_list_entry *>(list->entries);
		uint32_t written = 0;

		if (!list->nr || list->nr > 4096)
			return fail(EINVAL);
		for (const auto &[id, vm] : vms_)
			if (id > list->after && vm->listed && written < list->nr)
				entries[written++] = {id, vm->pid};
		list->nr = written;
		return 0;
	}
	case RDT_GET_POLICY:
		*static_cast<rdt_policy *>(arg) = {policy, {}};
		return 0;
	case RDT_SET_POLICY: {
		const auto *set = static_cast<rdt_policy *>(arg);

		if (!may_set_policy)
			return fail(EPERM);
		if (set->flags & ~RDT_POLICY_SELF_ATTACH || !all_zero(set->reserved))
			return fail(EINVAL);
		policy = set->flags;
		return 0;
	}
	}
	return fail(ENOTTY);
}

int FakeModule::vm_ioctl(int fd, uint32_t id, unsigned long request, void *arg)
{
	FakeVm &vm = this->vm(id);

	if (!vm.listed && request != RDT_VM_INFO && request != RDT_VM_SEEN)
		return fail(ENODEV);
	switch (request) {
	case RDT_VM_INFO: {
		rdt_vm_info info{};

		info.vm_id = id;
		info.vmm_pid = vm.pid;
		info.flags = vm.flags;
		info.vcpus = 2;
		info.events = vm.ring.head();
		info.ranges = vm.regions.size();
		for (const auto &[gpa, region] : vm.regions)
			info.frames += region.pages;
		info.domains = static_cast<__u32>(vm.domains.size());
		for (const auto &[view, domain] : vm.domains)
			info.domain_frames += domain.info.frames;
		*static_cast<rdt_vm_info *>(arg) = info;
		return 0;
	}
	case RDT_VM_REGIONS: {
		auto *regions = static_cast<rdt_regions *>(arg);
		auto *entries = reinterpret_cast<rdt_region *>(regions->entries);
		uint32_t written = 0;

		if (!regions->nr || regions->nr > 4096 || regions->reserved)
			return fail(EINVAL);
		if (vm.flags & RDT_VM_TREE_CORRUPT)
			return fail(EUCLEAN);
		for (const auto &[gpa, region] : vm.regions) {
			if (gpa < regions->start || written == regions->nr)
				continue;
			entries[written++] = region;
		}
		if (written)
			regions->start = entries[written - 1].gpa + entries[written - 1].pages * 4096;
		regions->nr = written;
		return 0;
	}
	case RDT_VM_PROTECT: {
		const auto *protect = static_cast<rdt_protect *>(arg);

		if (protect->flags || protect->reserved || protect->gpa % 4096 || !protect->pages ||
		    protect->action > RDT_ACT_FREEZE || protect->cls > RDT_CLS_GUEST_MAX)
			return fail(EINVAL);
		if (protect->gpa >= 1ull << 32)
			return fail(EFAULT);
		const auto it = vm.regions.find(protect->gpa);
		if (it != vm.regions.end() && it->second.cls > RDT_CLS_GUEST_MAX)
			return fail(EPERM);
		if (protect->action == RDT_ACT_NONE)
			return vm.regions.erase(protect->gpa) ? 0 : fail(ENOENT);
		vm.regions[protect->gpa] = {protect->gpa, protect->pages, protect->action, protect->cls, 0, 0};
		return 0;
	}
	case RDT_VM_DOMAIN:
	case RDT_VM_DOM_GET_QUOTA:
	case RDT_VM_DOM_QUOTA:
	case RDT_VM_DOM_DESTROY:
	case RDT_VM_DOM_INSTALL:
	case RDT_VM_DOM_EXPORT:
	case RDT_VM_DOM_IMPORT:
		return domain_ioctl(vm, request, arg);
	case RDT_VM_DETACH:
		if (reinterpret_cast<uintptr_t>(arg) & ~uintptr_t{RDT_DETACH_FORCE})
			return fail(EINVAL);
		if (vm.inside && !arg)
			return fail(EBUSY);
		detach(id);
		return 0;
	case RDT_VM_SEEN:
		if (*static_cast<__u64 *>(arg) > vm.ring.head())
			return fail(EINVAL);
		seen_[fd] = *static_cast<__u64 *>(arg);
		return 0;
	}
	return fail(ENOTTY);
}

int FakeModule::domain_ioctl(FakeVm &vm, unsigned long request, void *arg)
{
	const auto find = [&](uint64_t id) {
		const auto it = vm.domains.find(id & 0xff);

		return it != vm.domains.end() && it->second.info.id == id ? &it->second : nullptr;
	};

	switch (request) {
	case RDT_VM_DOMAIN: {
		auto *info = static_cast<rdt_domain_info *>(arg);
		const auto it = vm.domains.lower_bound(info->view);

		if (it == vm.domains.end())
			return fail(ENOENT);
		*info = it->second.info;
		if (info->state == RDT_DOM_BUILDING)
			memset(info->measurement, 0, sizeof(info->measurement));
		return 0;
	}
	case RDT_VM_DOM_GET_QUOTA:
		*static_cast<rdt_domain_quota *>(arg) = vm.quota;
		return 0;
	case RDT_VM_DOM_QUOTA: {
		const auto *quota = static_cast<rdt_domain_quota *>(arg);

		if (!may_set_policy)
			return fail(EPERM);
		if (quota->domains > RDT_DOM_MAX || quota->flags & ~RDT_DOM_Q_EXPORT)
			return fail(EINVAL);
		vm.quota = *quota;
		return 0;
	}
	case RDT_VM_DOM_DESTROY: {
		FakeDomain *domain = find(*static_cast<__u64 *>(arg));

		if (!domain)
			return fail(ENOENT);
		domain->info.state = RDT_DOM_DYING;
		if (domain->busy-- > 0)
			return fail(EAGAIN);
		vm.domains.erase(domain->info.view);
		return 0;
	}
	case RDT_VM_DOM_INSTALL: {
		const auto *install = static_cast<rdt_install *>(arg);
		const auto *fixups = reinterpret_cast<const rdt_fixup *>(install->fixups);
		const auto *value = reinterpret_cast<const uint8_t *>(install->value);
		FakeDomain *domain = find(install->id);

		if (!may_set_policy)
			return fail(EPERM);
		if (!install->len || install->len > 4096 || !install->nr || install->nr > RDT_MAX_FIXUPS || install->reserved)
			return fail(EINVAL);
		for (uint32_t i = 0; i < install->nr; i++)
			if (!fixups[i].len || fixups[i].len > install->len || fixups[i].from > install->len - fixups[i].len)
				return fail(EINVAL);
		if (!domain || domain->info.state != RDT_DOM_SEALED)
			return fail(ENOENT);
		for (uint32_t i = 0; i < install->nr; i++)
			if (fixups[i].offset < domain->first || fixups[i].offset + fixups[i].len > domain->end)
				return fail(EFAULT);
		if (domain->busy-- > 0)
			return fail(EAGAIN);
		for (uint32_t i = 0; i < install->nr; i++)
			for (uint32_t k = 0; k < fixups[i].len; k++)
				domain->memory[fixups[i].offset + k] = value[fixups[i].from + k];
		domain->info.installs++;
		return 0;
	}
	case RDT_VM_DOM_EXPORT:
		return move_domain(vm, true, *static_cast<rdt_domain_export *>(arg));
	default:
		return move_domain(vm, false, *static_cast<rdt_domain_export *>(arg));
	}
}

// A cipher of this model's own: what is exported is only to come back, or not. The blob has
// the first page of the memory.
int FakeModule::move_domain(FakeVm &vm, bool out, rdt_domain_export &move)
{
	constexpr size_t bytes = sizeof(rdt_domain_blob) + 4096 + RDT_DOM_BLOB_TAG;
	const auto it = vm.domains.find(move.id & 0xff);
	auto *head = reinterpret_cast<rdt_domain_blob *>(move.blob);
	uint8_t *text = reinterpret_cast<uint8_t *>(head + 1), *tag = text + 4096;
	const auto *key = reinterpret_cast<const uint8_t *>(move.key);
	uint8_t sum[RDT_DOM_BLOB_TAG] = {};

	if (!may_set_policy)
		return fail(EPERM);
	if (!all_zero(move.reserved))
		return fail(EINVAL);
	if (it == vm.domains.end() || it->second.info.id != move.id || it->second.info.state != RDT_DOM_SEALED)
		return fail(ENOENT);
	FakeDomain &domain = it->second;
	if (!(domain.info.flags & RDT_DOM_EXPORTABLE) || (out && !(vm.quota.flags & RDT_DOM_Q_EXPORT)))
		return fail(EACCES);
	if (out) {
		const bool room = move.bytes >= bytes;

		move.bytes = bytes;
		if (!room)
			return fail(ENOSPC);
		memset(head, 0, sizeof(*head));
		memcpy(head->magic, RDT_DOM_BLOB_MAGIC, sizeof(head->magic));
		memcpy(head->measurement, domain.info.measurement, sizeof(head->measurement));
		head->pages = 1;
		for (int i = 0; i < 4096; i++)
			text[i] = domain.memory[i] ^ key[i % 32] ^ 0x5a;
	} else if (move.bytes != bytes || memcmp(head->magic, RDT_DOM_BLOB_MAGIC, sizeof(head->magic))) {
		return fail(EINVAL);
	} else if (memcmp(head->measurement, domain.info.measurement, sizeof(head->measurement))) {
		return fail(EXDEV);
	}
	if (domain.busy-- > 0 || (!out && domain.info.enters))
		return fail(EBUSY);
	for (int i = 0; i < 4096; i++)
		sum[i % sizeof(sum)] = static_cast<uint8_t>(sum[i % sizeof(sum)] * 3 + text[i] + key[i % 32]);
	if (out)
		memcpy(tag, sum, sizeof(sum));
	else if (memcmp(tag, sum, sizeof(sum)))
		return fail(EBADMSG);
	for (int i = 0; !out && i < 4096; i++)
		domain.memory[i] = text[i] ^ key[i % 32] ^ 0x5a;
	return 0;
}

void *FakeModule::map(int fd, size_t size)
{
	if (size != 4096 && size != vm(vm_of(fd)).ring.size()) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	return Sys::map(fd, size);
}

int FakeModule::poll(pollfd *fds, nfds_t count, int timeout_ms)
{
	if (on_poll) {
		on_poll();
		timeout_ms = 0;
	}
	for (int waited = 0;; waited++) {
		int ready = 0;

		{
			std::lock_guard guard(lock_);
			for (nfds_t i = 0; i < count; i++) {
				const FakeVm &vm = this->vm(vm_of(fds[i].fd));
				const bool fresh = vm.ring.head() > seen_[fds[i].fd];

				fds[i].revents = static_cast<short>((fresh ? POLLIN : 0) | (vm.listed ? 0 : POLLHUP));
				ready += fds[i].revents != 0;
			}
		}
		if (ready || waited >= timeout_ms)
			return ready;
		std::this_thread::sleep_for(std::chrono::milliseconds(1));
	}
}

} // namespace redoubt::client
