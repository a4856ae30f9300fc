// SPDX-License-Identifier: GPL-2.0
//
// One vCPU in the old memory. What KVM keeps alike on AMD and Intel is read here (vcpu.cc); what the CPU keeps for it, in VMCB or
// VMCS, and when that is newer than KVM's own, by svm.cc and vmx.cc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <linux/kvm.h>

#include "object.h"
#include "vcpu.h"

namespace redoubt::crash {

constexpr uint8_t handling_irq = 1, handling_nmi = 2;		// KVM_HANDLING_IRQ, KVM_HANDLING_NMI
constexpr uint32_t debugregs_wont_exit = 2;			// KVM_DEBUGREG_WONT_EXIT
constexpr uint64_t flag_tf = 1 << 8, flag_rf = 1 << 16;

// An event that was being delivered when the guest was left
struct Vectoring {
	enum : unsigned int { interrupt = 0, nmi = 2, exception = 3, software = 4 };
	bool valid, has_error;
	unsigned int type, vector;
	uint32_t error;
};

class Reader {
public:
	// @type: of KVM's structure, whose first member "vcpu" is
	Reader(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index, const char *type);
	virtual ~Reader() = default;
	Reader(const Reader &) = delete;
	Reader &operator=(const Reader &) = delete;

	Vcpu all();

protected:
	// Each of the following throws what is lost of it.
	// Nested, or in system management mode, or of a kind that is not read
	virtual void check_kind() const = 0;
	// Did the panic's NMI take it out of the guest?
	virtual bool left_by_nmi() const = 0;
	// Is what is read the last guest's exit, as far as one can tell?
	virtual void check_whole() const {}
	// Out of the guest by an interrupt that is being handled, and KVM is through with the exit
	virtual bool left_by_interrupt() const { return false; }
	// KVM has not looked at the exit yet: what was being delivered, and what the guest may write without an exit, is the CPU's.
	virtual bool unseen() const = 0;

	virtual uint64_t reg(size_t index) const { return arch_reg(index); }
	virtual uint64_t cpu_rflags() const = 0;
	virtual void segments(kvm_sregs &s) const = 0;
	virtual uint64_t cr0() const = 0;
	virtual uint64_t cr3() const = 0;
	virtual uint64_t cr4() const = 0;
	virtual Vectoring vectoring() const = 0;
	virtual uint8_t interrupt_shadow() const = 0;
	virtual bool nmi_masked() const = 0;
	virtual uint64_t live_dr6(const Cpu &cpu) const = 0;
	virtual uint64_t live_dr7() const = 0;
	virtual uint8_t tpr(const Bytes &page) const { return page.at<uint8_t>(0x80); }
	// What has been posted, and KVM has not put there yet
	virtual void merge_posted(std::vector<uint8_t> &) const {}
	// @cpu: where its FPU registers are; none: in memory. @features: that it may have
	virtual uint32_t pkru(const Cpu *, uint64_t) const { return static_cast<uint32_t>(arch("pkru")); }
	virtual void own_msrs(std::vector<kvm_msr_entry> &msrs) const = 0;

	uint64_t arch(const std::string &field) const { return vcpu_.num("vcpu.arch." + field); }
	uint64_t arch_reg(size_t index) const { return vcpu_.num("vcpu.arch.regs", index, 8); }
	// The CPU that its task was on; nobody: it was on none.
	const Cpu *task_cpu() const;
	// The CPU whose FPU registers were this vCPU's when it stopped; nobody: they are in memory.
	const Cpu *its_cpu() const;
	bool in_guest() const { return in_guest_; }

	const Layout &layout_;
	const Root &root_;
	const Vm &vm_;
	const unsigned int index_;
	// Reading by page tables remembers the last of them, and no more than that.
	mutable Space space_;
	const Object vcpu_;
	const Object kvm_;

private:
	void put(const char *name, const void *data, size_t bytes);
	template <typename T> void put(const char *name, const T &data) { put(name, &data, sizeof(data)); }
	std::string place() const;
	bool in_run() const;
	bool has_worked() const;
	void end_pv_eoi(std::vector<uint8_t> &page);
	void fpu_is_known() const;
	uint32_t timer_count(const Object &apic, uint32_t initial) const;

	void regs();
	void sregs();
	void events();
	void debugregs();
	void mp_state();
	void lapic();
	void xsave();
	void msrs();

	bool in_guest_ = false;		// the panic's NMI took it out of the guest
	bool unseen_ = false;
	Vcpu out_;
};

std::unique_ptr<Reader> svm_reader(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index);
std::unique_ptr<Reader> vmx_reader(const Layout &layout, Physical &memory, const Root &root, const Vm &vm, unsigned int index);

} // namespace redoubt::crash
