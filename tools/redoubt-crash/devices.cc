// SPDX-License-Identifier: GPL-2.0
//
// What KVM has of a VM besides its vCPUs. All of it changes under a lock that the panic may have left half-way; each is a
// register file of bytes, words or timestamps, where half of a change is what a device shows between two accesses.
#include <linux/kvm.h>

#include "object.h"
#include "vcpu.h"

namespace redoubt::crash {
namespace {

template <typename T> Item item(const char *name, const T &data)
{
	const auto *at = reinterpret_cast<const uint8_t *>(&data);

	return {name, {at, at + sizeof(data)}};
}

} // namespace

std::vector<Item> read_devices(const Layout &layout, Physical &memory, const Root &root, const Vm &vm)
{
	Space space(memory, vm.pgd, vm.levels);
	const Object kvm(layout, space, vm.kvm, "kvm");
	std::vector<Item> out;

	if (!root.all_stopped())
		lost("a CPU has not stopped, or has left nothing: it may run on");
	if (!kvm.num("arch.vpic") || !kvm.num("arch.vioapic"))
		lost("its interrupt controllers are in its VMM");

	const Object pic(layout, space, kvm.num("arch.vpic"), "kvm_pic");
	for (uint32_t i = 0; i < 2; i++) {
		kvm_irqchip chip{};
		chip.chip_id = i;
		pic.copy("pics", i, layout.at("kvm_kpic_state").bytes, chip.chip.pic);
		out.push_back(item(i ? "IRQCHIP1" : "IRQCHIP0", chip));
	}

	const Bytes ioapic(space, kvm.num("arch.vioapic"), layout.at("kvm_ioapic").bytes, "the IOAPIC");
	kvm_irqchip chip{};
	chip.chip_id = KVM_IRQCHIP_IOAPIC;
	ioapic.copy(0, &chip.chip.ioapic, sizeof(chip.chip.ioapic));
	chip.chip.ioapic.irr &= ~ioapic.at<uint32_t>(layout.at("kvm_ioapic.irr_delivered").offset);
	out.push_back(item("IRQCHIP2", chip));

	if (kvm.num("arch.vpit")) {
		const Object pit(layout, space, kvm.num("arch.vpit"), "kvm_pit");
		kvm_pit_state2 state{};
		pit.copy("pit_state.channels", 0, sizeof(state.channels), state.channels);
		state.flags = static_cast<uint32_t>(pit.num("pit_state.flags"));
		out.push_back(item("PIT2", state));
	}

	kvm_clock_data clock{};
	clock.clock = root.cpus.begin()->second.head.clock + kvm.num("arch.kvmclock_offset");
	out.push_back(item("CLOCK", clock));
	return out;
}

} // namespace redoubt::crash
