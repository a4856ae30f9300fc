// SPDX-License-Identifier: GPL-2.0
//
// The interrupt controllers, the timer and the clock of a VM under KVM, into a device state.

#include "kvmstate.h"

#include <cstring>

#include <linux/kvm.h>

namespace redoubt::agent {

namespace {

uint32_t apic_register(const kvm_lapic_state &l, unsigned index)
{
	uint32_t value;

	memcpy(&value, l.regs + index * 16, sizeof(value));
	return value;
}

void put_pic(QSection &pic, const kvm_pic_state &p)
{
	const std::pair<const char *, uint8_t> fields[] = {
		{"last_irr", p.last_irr}, {"irr", p.irr}, {"imr", p.imr}, {"isr", p.isr}, {"priority_add", p.priority_add}, {"irq_base", p.irq_base},
		{"read_reg_select", p.read_reg_select}, {"poll", p.poll}, {"special_mask", p.special_mask}, {"init_state", p.init_state},
		{"auto_eoi", p.auto_eoi}, {"rotate_on_auto_eoi", p.rotate_on_auto_eoi}, {"special_fully_nested_mode", p.special_fully_nested_mode},
		{"init4", p.init4}, {"elcr", p.elcr},
	};

	for (const auto &[name, value] : fields)
		pic.set(name, value);
}

void put_pit(QSection &pit, const kvm_pit_state2 &p)
{
	pit.set("channels[0].irq_disabled", p.flags & KVM_PIT_FLAGS_HPET_LEGACY);
	for (size_t i = 0; i < 3; i++) {
		const kvm_pit_channel_state &c = p.channels[i];
		const std::string channel = element("channels", i) + ".";
		const std::pair<const char *, uint64_t> fields[] = {
			{"count", c.count}, {"latched_count", c.latched_count}, {"count_latched", c.count_latched}, {"status_latched", c.status_latched},
			{"status", c.status}, {"read_state", c.read_state}, {"write_state", c.write_state}, {"write_latch", c.write_latch},
			{"rw_mode", c.rw_mode}, {"mode", c.mode}, {"bcd", c.bcd}, {"gate", c.gate},
		};

		for (const auto &[name, value] : fields)
			pit.set(channel + name, value);
	}
}

// A message's destination is of 8 bits, also for APICs in x2APIC mode, whose logical name is cluster and bit of their number.
bool is_for(const QSection &apic, uint32_t dest, bool logical)
{
	const bool x2apic = apic.get("apicbase") >> 10 & 1;
	const uint64_t id = x2apic ? apic.instance : apic.get("id"), log = apic.get("log_dest");

	if (dest == 0xff)
		return true;
	if (!logical)
		return id == dest;
	if (x2apic)
		return id < 16 && dest >> id & 1;
	return apic.get("dest_mode") == 0xf ? log & dest : log >> 4 == dest >> 4 && (log & dest & 0xf);
}

} // namespace

void put_apic(QSection &apic, const kvm_lapic_state &l, bool x2apic)
{
	if (!x2apic)
		apic.set("id", apic_register(l, 2) >> 24);
	apic.set("tpr", apic_register(l, 8) & 0xff);
	apic.set("arb_id", apic_register(l, 9) & 0xff);
	apic.set("log_dest", apic_register(l, 0xd) >> 24);
	apic.set("dest_mode", apic_register(l, 0xe) >> 28);
	apic.set("spurious_vec", apic_register(l, 0xf));
	for (unsigned i = 0; i < 8; i++) {
		apic.set(element("isr", i), apic_register(l, 0x10 + i));
		apic.set(element("tmr", i), apic_register(l, 0x18 + i));
		apic.set(element("irr", i), apic_register(l, 0x20 + i));
	}
	apic.set("esr", apic_register(l, 0x28));
	apic.set("icr#0", apic_register(l, 0x30));
	apic.set("icr#1", apic_register(l, 0x31));
	for (unsigned i = 0; i < 6; i++)
		apic.set(element("lvt", i), apic_register(l, 0x32 + i));
	apic.set("initial_count", apic_register(l, 0x38));
	const uint32_t divide = apic_register(l, 0x3e), v = (divide & 3) | (divide >> 1 & 4);
	apic.set("divide_conf", divide);
	apic.set("count_shift", (v + 1) & 7);
}

void put_machine(QStream &stream, const KvmItems &items)
{
	put_pic(stream.get("i8259", 0), items.get<kvm_irqchip>("IRQCHIP0").chip.pic);
	put_pic(stream.get("i8259", 1), items.get<kvm_irqchip>("IRQCHIP1").chip.pic);
	const auto ioapic = items.get<kvm_irqchip>("IRQCHIP2").chip.ioapic;
	QSection &to = stream.get("ioapic");
	to.set("id", ioapic.id & 0xff);
	to.set("ioregsel", ioapic.ioregsel & 0xff);
	to.set("irr", ioapic.irr);
	for (size_t i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		to.set(element("ioredtbl", i), ioapic.redirtbl[i].bits);
	// -machine pit=off has none.
	if (QSection *pit = stream.find("i8254"))
		put_pit(*pit, items.get<kvm_pit_state2>("PIT2"));
	if (QSection *clock = stream.find("kvmclock"))
		clock->set("clock", items.get<kvm_clock_data>("CLOCK").clock);
}

void put_message(QStream &stream, uint64_t address, uint32_t data)
{
	const uint32_t vector = data & 0xff, mode = data >> 8 & 7, dest = address >> 12 & 0xff;
	const bool logical = address >> 2 & 1;
	bool taken = false;

	// Bits 5 to 11 are the destination's upper half where there are more than 255 APICs.
	if (address >> 20 != 0xfee || address >> 5 & 0x7f || vector < 16)
		throw Error("a device's interrupt message is of a kind that is not known here");
	// Fixed, lowest priority
	if (mode > 1)
		throw Error("a device's interrupt message is neither fixed nor for the lowest priority");
	for (QSection *apic : stream.all("apic")) {
		if (!is_for(*apic, dest, logical) || (mode == 1 && taken))
			continue;
		taken = true;
		// Switched off by the guest (a CPU that is offline): it takes nothing.
		if (!(apic->get("apicbase") >> 11 & 1) || !(apic->get("spurious_vec") >> 8 & 1))
			continue;
		const std::string irr = element("irr", vector / 32), tmr = element("tmr", vector / 32);
		apic->set(irr, apic->get(irr) | 1u << vector % 32);
		apic->set(tmr, apic->get(tmr) & ~(1u << vector % 32));
	}
	if (!taken)
		throw Error("a device's interrupt message is for no vCPU");
}

void put_time(QStream &stream, uint64_t ns)
{
	QSection &timer = stream.get("timer");

	timer.set("cpu_clock_offset", timer.get("cpu_clock_offset") + ns);
}

} // namespace redoubt::agent
