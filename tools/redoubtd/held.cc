// SPDX-License-Identifier: GPL-2.0

#include "held.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

namespace redoubt::agent {

namespace {

// Ports that may be read or written once more: PCI's configuration (the address is in a register of its own, and said before
// each access), the RTC, POST codes, the A20 gate, Q35's PM block (timer, status, enable).
struct Ports {
	uint16_t first, last;
};
constexpr Ports again[] = {{0xcf8, 0xcff}, {0x70, 0x71}, {0x80, 0x80}, {0x92, 0x92}, {0x600, 0x67f},
			     // Consoles of debuggers and of SeaBIOS: a character may come twice
			     {0xe9, 0xe9}, {0x402, 0x402}};

std::string hex(uint64_t value)
{
	char text[20];

	snprintf(text, sizeof(text), "%#llx", static_cast<unsigned long long>(value));
	return text;
}

template <typename F> void each(const nlattr *first, const char *end, const F &what)
{
	for (const nlattr *a = first; mnl_attr_ok(a, static_cast<int>(end - reinterpret_cast<const char *>(a))); a = mnl_attr_next(a))
		what(a);
}

void add_item(const nlattr *nest, KvmItems &out)
{
	const auto *begin = static_cast<const nlattr *>(mnl_attr_get_payload(nest));
	std::string name;
	const nlattr *data = nullptr, *error = nullptr;

	each(begin, reinterpret_cast<const char *>(begin) + mnl_attr_get_payload_len(nest), [&](const nlattr *a) {
		if (mnl_attr_get_type(a) == RDT_SB_I_NAME && mnl_attr_get_payload_len(a))
			name.assign(mnl_attr_get_str(a), strnlen(mnl_attr_get_str(a), mnl_attr_get_payload_len(a)));
		else if (mnl_attr_get_type(a) == RDT_SB_I_DATA)
			data = a;
		else if (mnl_attr_get_type(a) == RDT_SB_I_ERROR && mnl_attr_get_payload_len(a) == 4)
			error = a;
	});
	if (data) {
		const auto *bytes = static_cast<const uint8_t *>(mnl_attr_get_payload(data));

		out.data[name].assign(bytes, bytes + mnl_attr_get_payload_len(data));
	} else if (error) {
		memcpy(&out.errors[name], mnl_attr_get_payload(error), 4);
	}
}

template <typename F> void each_attribute(const void *message, const F &what)
{
	const auto *m = static_cast<const nlmsghdr *>(message);

	each(static_cast<const nlattr *>(mnl_nlmsg_get_payload_offset(m, sizeof(genlmsghdr))),
	     static_cast<const char *>(mnl_nlmsg_get_payload_tail(m)), what);
}

} // namespace

std::vector<uint32_t> kvm_msrs()
{
	const Fd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
	std::vector<uint32_t> buffer(1 + 4096);

	buffer[0] = 4096;
	if (!kvm || ioctl(kvm.get(), KVM_GET_MSR_INDEX_LIST, buffer.data()))
		throw Error("/dev/kvm: its MSRs", errno);
	const uint32_t n = std::min<uint32_t>(buffer[0], 4096);
	std::vector<uint32_t> out(buffer.begin() + 1, buffer.begin() + 1 + n);
	// Those that QEMU does not carry are in the way of those that it does: CPU features, counters beyond the first.
	std::erase_if(out, [](uint32_t m) { return (m >= 0x480 && m <= 0x4ff) || (m >= 0xc1 && m <= 0xd8) || (m >= 0x186 && m <= 0x197) ||
						   (m >= 0xc0010200 && m <= 0xc001020b) || (m >= 0x309 && m <= 0x318); });
	if (out.size() > RDT_SB_MAX_MSRS)
		throw Error("this host's KVM has " + std::to_string(out.size()) + " MSRs, and " + std::to_string(RDT_SB_MAX_MSRS) + " can be read at once");
	return out;
}

KvmItems Held::ask(std::initializer_list<Genl::Attribute> attributes)
{
	KvmItems out;

	genl_.request(RDT_SB_CMD_VCPU, attributes, [&out](const void *message) {
		each_attribute(message, [&out](const nlattr *a) {
			if (mnl_attr_get_type(a) == RDT_SB_A_ITEM)
				add_item(a, out);
		});
	});
	return out;
}

KvmItems Held::vcpu(uint32_t index, const std::vector<uint32_t> &msrs)
{
	return ask({{RDT_SB_A_VM, &vm_, sizeof(vm_)}, {RDT_SB_A_INDEX, &index, sizeof(index)},
		    {RDT_SB_A_MSRS, msrs.data(), msrs.size() * sizeof(msrs[0])}});
}

KvmItems Held::machine()
{
	return ask({{RDT_SB_A_VM, &vm_, sizeof(vm_)}});
}

std::vector<rdt_sb_slot> Held::slots()
{
	std::vector<rdt_sb_slot> out;

	genl_.request(RDT_SB_CMD_GET, {{RDT_SB_A_VM, &vm_, sizeof(vm_)}}, [&out](const void *message) {
		each_attribute(message, [&out](const nlattr *a) {
			rdt_sb_slot slot;

			if (mnl_attr_get_type(a) != RDT_SB_A_SLOT || mnl_attr_get_payload_len(a) < sizeof(slot))
				return;
			memcpy(&slot, mnl_attr_get_payload(a), sizeof(slot));
			out.push_back(slot);
		});
	});
	return out;
}

std::string pending_access(const Fd &vcpu)
{
	const size_t size = 4096;
	void *const map = mmap(nullptr, size, PROT_READ, MAP_SHARED, vcpu.get(), 0);

	if (map == MAP_FAILED)
		return "the vCPU's last exit cannot be read: " + std::string(strerror(errno));
	const auto *run = static_cast<const kvm_run *>(map);
	std::string why;
	if (run->exit_reason == KVM_EXIT_IO) {
		const uint16_t port = run->io.port;

		if (run->io.count != 1 || std::none_of(std::begin(again), std::end(again), [port](Ports p) { return port >= p.first && port <= p.last; }))
			why = "killed in the middle of an access to port " + hex(port) + ": what it did there is not known";
	} else if (run->exit_reason == KVM_EXIT_MMIO) {
		if (run->mmio.is_write)
			why = "killed in the middle of a write to a device's memory at " + hex(run->mmio.phys_addr) + ": it may be lost";
	} else {
		why = "killed in the middle of an exit of kind " + std::to_string(run->exit_reason);
	}
	munmap(map, size);
	return why;
}

} // namespace redoubt::agent
