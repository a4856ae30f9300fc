// SPDX-License-Identifier: GPL-2.0
/* The core's C face: include/redoubt/port.h. Nothing is decided here. */
#include "insn.h"
#include "vm.h"

using namespace redoubt;

struct rdt_core_vm {
	rdt_core_vm(void *host, const MonitorTree::TagKey &key) : vm(host, key)
	{
	}
	Vm vm;
};

struct rdt_core_vcpu {
	Vcpu vcpu;
};

rdt_core_vm *rdt_core_vm_create(void *host) noexcept
{
	MonitorTree::TagKey key;
	void *mem = rdt_port_alloc(sizeof(rdt_core_vm));

	if (!mem)
		return nullptr;
	for (u64 &w : key.word)
		w = rdt_port_random();
	return new (mem) rdt_core_vm(host, key);
}

void rdt_core_vm_destroy(rdt_core_vm *vm) noexcept
{
	vm->~rdt_core_vm();
	rdt_port_free(vm);
}

rdt_core_vcpu *rdt_core_vcpu_create(rdt_core_vm *, void *hv) noexcept
{
	void *mem = rdt_port_alloc(sizeof(rdt_core_vcpu));

	return mem ? new (mem) rdt_core_vcpu{{.hv = hv}} : nullptr;
}

void rdt_core_vcpu_destroy(rdt_core_vcpu *vcpu) noexcept
{
	rdt_port_free(vcpu);
}

rdt_u8 rdt_core_vcpu_view(const rdt_core_vcpu *vcpu) noexcept
{
	return vcpu->vcpu.view;
}

rdt_u8 rdt_core_access(const rdt_core_vm *vm, rdt_u8 view, rdt_u64 gfn) noexcept
{
	return vm->vm.access(view, gfn);
}

int rdt_core_max_level(const rdt_core_vm *vm, rdt_u8 view, rdt_u64 gfn, int level) noexcept
{
	return vm->vm.max_level(view, gfn, level);
}

int rdt_core_walk_may_set(rdt_core_vm *vm, rdt_u64 gfn) noexcept
{
	return vm->vm.walk_may_set(gfn);
}

void *rdt_core_private(const rdt_core_vm *vm, rdt_u8 view, rdt_u64 gfn) noexcept
{
	return vm->vm.private_page(view, gfn);
}

rdt_door rdt_core_at_door(const rdt_core_vm *vm, rdt_core_vcpu *vcpu, rdt_u64 gfn) noexcept
{
	return vm->vm.at_door(vcpu->vcpu, gfn);
}

rdt_verdict rdt_core_door(rdt_core_vm *vm, rdt_core_vcpu *vcpu, rdt_door door, rdt_cpu *cpu) noexcept
{
	return vm->vm.door(vcpu->vcpu, door, *cpu);
}

rdt_verdict rdt_core_fault(rdt_core_vm *vm, rdt_core_vcpu *vcpu, const rdt_fault *f,
			   rdt_cpu *cpu) noexcept
{
	return vm->vm.fault(vcpu ? &vcpu->vcpu : nullptr, *f, *cpu);
}

rdt_verdict rdt_core_kvm_write(rdt_core_vm *vm, const rdt_fault *f, const rdt_cpu *cpu) noexcept
{
	return vm->vm.kvm_write(*f, cpu);
}

rdt_u32 rdt_core_policy_seq(const rdt_core_vm *vm) noexcept
{
	return vm->vm.policy_seq();
}

int rdt_core_decode_store(const rdt_u8 *insn, rdt_u32 n, const rdt_cpu *cpu, rdt_store *out) noexcept
{
	return decode_store(insn, n, *cpu, *out);
}

void rdt_core_stored(rdt_core_vm *vm, rdt_core_vcpu *vcpu, const rdt_fault *f,
		     const rdt_cpu *cpu) noexcept
{
	vm->vm.stored(vcpu->vcpu, *f, *cpu);
}

int rdt_core_step_begin(rdt_core_vm *vm, rdt_core_vcpu *vcpu, const rdt_fault *f,
			const rdt_cpu *cpu) noexcept
{
	return vm->vm.step_begin(vcpu->vcpu, *f, *cpu);
}

int rdt_core_step_grant(rdt_core_vm *vm, const rdt_fault *f) noexcept
{
	return vm->vm.step_grant(*f);
}

rdt_u8 rdt_core_step_end(rdt_core_vm *vm, rdt_core_vcpu *vcpu, int done, int event) noexcept
{
	return vm->vm.step_end(vcpu->vcpu, done, event);
}

int rdt_core_may_hold_pv(rdt_core_vm *vm, rdt_u64 gpa, rdt_u64 len) noexcept
{
	return vm->vm.may_hold_pv(gpa, len);
}

void rdt_core_mapping_changed(rdt_core_vm *vm, rdt_u64 gfn, rdt_u64 count) noexcept
{
	vm->vm.mapping_changed(gfn, count);
}

/*
 * Ring 3 may leave and ask for itself where it is, and go back where it was, if that is a
 * domain of ring 3. Everything else is for the kernel.
 */
static bool ring3_may_call(Vm &vm, const Vcpu &v, u32 nr, const rdt_u64 arg[4])
{
	if (nr == RDT_HC_LEAVE || nr == RDT_HC_DOM_MEASURE)
		return v.inside && v.inside->gate.cpl == 3;
	if (nr == RDT_HC_RESUME) {
		const Inside *in = vm.inside_of(arg[0]);

		return in && in->gate.cpl == 3;
	}
	return false;
}

/* An inside that KVM's emulator cannot read is taken behind the instruction here. */
static void skip(rdt_cpu &cpu, s64 result)
{
	cpu.gpr[0] = static_cast<rdt_u64>(result);
	cpu.rip += 3; /* vmcall, vmmcall */
	cpu.dirty |= RDT_CPU_RIP;
}

rdt_hc_end rdt_core_hypercall(rdt_core_vm *core, rdt_core_vcpu *vcpu, rdt_u32 nr,
			      const rdt_u64 arg[4], rdt_cpu *cpu, rdt_s64 *result) noexcept
{
	Vm &vm = core->vm;
	Vcpu &v = vcpu->vcpu;
	s64 r = hc_enosys;

	/* Arguments that a call does not have must be zero. */
	static constexpr u8 args[] = {
		0, 0, 1, 1, 3, 2, 1, 1, /* ..DRIVER */
		4, 1, 2,		/* ENTER (all are the driver's), LEAVE, RESUME */
		4, 4, 4, 4, 4, 1, 4, 4, /* none; DOM_CREATE, ADD, SHARE */
		1, 4, 1, 1,		/* SEAL, ENTER (the domain's), MEASURE, DESTROY */
	};
	static_assert(sizeof(args) == RDT_HC_DOM_DESTROY - RDT_HC_BASE + 1);
	u32 call = nr - RDT_HC_BASE;
	const bool in_domain = v.inside && v.inside->gate.domain;

	/* For the kernel only; at the gates the attempt is an alert, too. */
	if (!cpu->va_bits || (cpu->cpl && !ring3_may_call(vm, v, nr, arg))) {
		if ((nr >= RDT_HC_ENTER && nr <= RDT_HC_RESUME) || nr == RDT_HC_DOM_ENTER)
			vm.report_gate(*cpu, cpu->cpl ? RDT_GATE_BAD_CPL : RDT_GATE_BAD_STATE);
		r = hc_eperm;
		nr = 0; /* nothing is called */
	}
	if (nr && call < sizeof(args))
		for (unsigned i = args[call]; i < 4; i++)
			if (arg[i]) {
				r = hc_einval;
				nr = 0;
				break;
			}

	switch (nr) {
	case 0:
		break;
	case RDT_HC_DOM_CREATE:
		r = vm.domain_create(arg[0], *cpu);
		break;
	case RDT_HC_DOM_ADD:
		r = vm.domain_add(arg[0], arg[1], arg[2], arg[3], *cpu);
		break;
	case RDT_HC_DOM_SHARE:
		r = vm.domain_share(arg[0], arg[1], arg[2], arg[3], *cpu);
		break;
	case RDT_HC_DOM_SEAL:
		r = vm.domain_seal(arg[0], *cpu);
		break;
	case RDT_HC_DOM_ENTER:
		r = vm.domain_enter(v, *cpu, arg[0]);
		break;
	case RDT_HC_DOM_MEASURE:
		r = vm.domain_measure(v, *cpu, arg[0]);
		break;
	case RDT_HC_DOM_DESTROY:
		r = vm.domain_destroy(arg[0], cpu);
		break;
	case RDT_HC_NODE_ADD:
		r = vm.node_add(arg[0]);
		break;
	case RDT_HC_PROTECT:
		r = vm.protect(arg[0], arg[1], arg[2], cpu);
		break;
	case RDT_HC_UNPROTECT:
		r = vm.unprotect(arg[0], arg[1], cpu);
		break;
	case RDT_HC_QUERY:
		r = vm.query(arg[0]);
		break;
	case RDT_HC_DRIVER:
		r = vm.seal(arg[0], *cpu);
		break;
	case RDT_HC_ENTER:
		r = vm.hypercall_enter(v, *cpu);
		break;
	case RDT_HC_LEAVE:
		r = vm.leave(v, *cpu, arg[0]);
		break;
	case RDT_HC_RESUME:
		r = vm.resume(v, *cpu, arg[0], arg[1]);
		break;
	}
	*result = r;
	if (in_domain && !(cpu->dirty & RDT_CPU_RIP))
		skip(*cpu, r);
	return cpu->dirty & RDT_CPU_RIP ? RDT_HC_END_SWITCHED : RDT_HC_END_RESULT;
}

void rdt_core_end(rdt_core_vm *vm) noexcept
{
	vm->vm.end();
}

rdt_u32 rdt_core_status(const rdt_core_vm *vm) noexcept
{
	return vm->vm.status();
}

int rdt_core_protect(rdt_core_vm *vm, rdt_u64 gpa, rdt_u64 pages, rdt_u8 action,
		     rdt_u8 cls) noexcept
{
	return static_cast<int>(action == RDT_ACT_NONE
					? vm->vm.unprotect(gpa, pages, nullptr)
					: vm->vm.protect(gpa, pages, RDT_ATTR(action, cls), nullptr));
}

int rdt_core_detach(rdt_core_vm *vm, rdt_u32 flags) noexcept
{
	return static_cast<int>(vm->vm.detach(flags & RDT_DETACH_FORCE));
}

int rdt_core_domain_set_quota(rdt_core_vm *vm, const rdt_domain_quota *q) noexcept
{
	return static_cast<int>(vm->vm.domain_set_quota(*q));
}

void rdt_core_domain_quota(rdt_core_vm *vm, rdt_domain_quota *q) noexcept
{
	vm->vm.domain_quota(*q);
}

int rdt_core_domain_info(rdt_core_vm *vm, rdt_u32 view, rdt_domain_info *info) noexcept
{
	return static_cast<int>(vm->vm.domain_info(view, *info));
}

int rdt_core_domain_destroy(rdt_core_vm *vm, rdt_u64 id) noexcept
{
	return static_cast<int>(vm->vm.domain_destroy(id, nullptr));
}

int rdt_core_domain_install(rdt_core_vm *vm, rdt_u64 id, const void *value, rdt_u32 len,
			    const rdt_fixup *fixups, rdt_u32 nr) noexcept
{
	return static_cast<int>(vm->vm.domain_install(id, value, len, fixups, nr));
}

rdt_s64 rdt_core_domain_blob_bytes(rdt_core_vm *vm, rdt_u64 id) noexcept
{
	return vm->vm.domain_blob_bytes(id);
}

int rdt_core_domain_export(rdt_core_vm *vm, rdt_u64 id, const rdt_u8 *key, void *blob,
			   rdt_u64 bytes) noexcept
{
	return static_cast<int>(vm->vm.domain_export(id, key, static_cast<u8 *>(blob), bytes));
}

int rdt_core_domain_import(rdt_core_vm *vm, rdt_u64 id, const rdt_u8 *key, void *blob,
			   rdt_u64 bytes) noexcept
{
	return static_cast<int>(vm->vm.domain_import(id, key, static_cast<u8 *>(blob), bytes));
}

int rdt_core_evict(rdt_core_vm *vm, rdt_core_vcpu *vcpu, rdt_cpu *cpu) noexcept
{
	return vm->vm.evict(vcpu->vcpu, *cpu);
}

int rdt_core_put(rdt_core_vm *vm, rdt_core_vcpu *vcpu, rdt_u8 soft_len, int io, rdt_cpu *cpu) noexcept
{
	return vm->vm.put(vcpu->vcpu, *cpu, soft_len, io);
}

rdt_u32 rdt_core_read_inside(const rdt_core_vm *vm, const rdt_core_vcpu *vcpu, rdt_u64 gva, void *to,
			     rdt_u32 n) noexcept
{
	return vm->vm.read_inside(vcpu->vcpu, gva, to, n);
}

int rdt_core_aexit(rdt_core_vm *vm, rdt_core_vcpu *vcpu, rdt_cpu *cpu, rdt_u8 soft_len) noexcept
{
	return vm->vm.aexit(vcpu->vcpu, *cpu, soft_len);
}

void rdt_core_info(rdt_core_vm *vm, rdt_vm_info *info) noexcept
{
	vm->vm.info(*info);
}

int rdt_core_regions(rdt_core_vm *vm, rdt_u64 gpa, rdt_region *out, rdt_u32 room,
		     rdt_u64 *next) noexcept
{
	return static_cast<int>(vm->vm.regions(gpa, out, room, next));
}
