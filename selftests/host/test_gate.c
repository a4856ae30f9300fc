// SPDX-License-Identifier: GPL-2.0
/*
 * Integrity mode: who may write what from where, the doors and everything that
 * is not one, events that strike inside, and threads that move between vCPUs.
 */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "driver.h"
#include "rdt.h"
#include "tap.h"
#include "vmm.h"

#define RAM	(64ul << 20)
#define NODES	(DRV_OUTSIDE + 0x4000)
#define DESC	(GUEST_FREE + 0x10000)
#define PROT	(DRV_OUTSIDE + 0x1000)	/* a monitored page that the inside can see */
#define LOGGED	(DRV_OUTSIDE + 0x2000)
#define CODE	(DRV_OUTSIDE + 0x3000)	/* ordinary code that the inside can see */
#define FROZEN	(DRV_OUTSIDE + 0x5000)
#define SECOND_IDT (GUEST_FREE + 0x20000)
#define INSIDE	1			/* the view's number in events */
#define gp	13

static struct vm *vm;
static struct vcpu *v, *v1;
static struct rdt *r;
static struct drv_seen *seen;

static int64_t hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	return vcpu_call(v, g_hc, nr, a, b, c);
}

static int64_t call(uint64_t op, uint64_t a, uint64_t b)
{
	int64_t ret = vcpu_call(v, g_drv_call, op, a, b, 0);

	vcpu_must_end(v, "a call of the inside");
	return ret;
}

static bool event(uint32_t type, struct rdt_event *ev)
{
	bool found = rdt_find(r, type, ev);

	if (!found)
		tap_diag("no event of type %u", type);
	return found;
}

static bool gate_event(uint8_t code)
{
	struct rdt_event ev;

	return event(RDT_EV_GATE, &ev) && ev.code == code;
}

static bool quiet(void)
{
	struct rdt_event ev;

	if (!rdt_next(r, &ev))
		return true;
	rdt_print(&ev);
	return false;
}

/* There was this one event and no other. */
static bool only(uint32_t type, uint8_t action, uint8_t cls, uint64_t gpa, uint8_t view,
		 struct rdt_event *ev)
{
	bool any = rdt_next(r, ev), right;

	right = any && ev->type == type && ev->action == action && ev->cls == cls &&
		ev->gpa == gpa && ev->view == view;
	if (!any)
		tap_diag("no event");
	else if (!right)
		rdt_print(ev);
	return right & quiet();
}

/* ---- registration ----------------------------------------------------------------- */

static struct rdt_driver_desc *desc;	/* the guest's */

static void refused(const char *what)
{
	is(hc(RDT_HC_DRIVER, DESC, 0, 0), -EINVAL, "B6 driver refused: %s", what);
	drv_describe(desc);
}

static void test_register(void)
{
	struct rdt_vm_info info = rdt_info(r);
	struct rdt_event ev;

	drv_describe(desc);
#define BAD(change) do { desc->change; refused(#change); } while (0)
	BAD(size = 0);
	BAD(size--);
	BAD(flags = 1);
	BAD(reserved[0] = 1);
	BAD(reserved[4] = 1ull << 63);
	BAD(slots = 0);
	BAD(slots = RDT_DRV_MAX_SLOTS + 1);
	BAD(regions = 0);
	BAD(regions = RDT_DRV_MAX_REGIONS + 1);
	BAD(regions = ~0u);
	BAD(cr3 |= 8);
	BAD(cr3 = PROT);
	BAD(cr3 = 1ull << 52);
	BAD(idt_gva += 8);
	BAD(idt_gpa += 8);
	BAD(idt_gpa = 1ull << 52);
	BAD(idt_gpa = DRV_DATA);
	BAD(gate_gva = 1ull << 62);
	BAD(exit_gva = 1ull << 62);
	BAD(call_gva = 1ull << 62);
	BAD(resume_gva = 1ull << 62);
	BAD(call_gpa += 1);
	BAD(call_gpa = (uint64_t)drv_gate + 3);
	BAD(call_gpa = 0);
	BAD(stack_top[0] = 1ull << 62);
	BAD(stack_top[DRV_SLOTS - 1] += 8);
	BAD(region[0].gpa += 1);
	BAD(region[0].pages = 0);
	BAD(region[0].pages = ~0u);
	BAD(region[0].kind = 0);
	BAD(region[0].kind = 5);
	BAD(region[1].gpa = desc->region[0].gpa);
	BAD(region[2].gpa = -PAGE_SIZE);
#undef BAD
	/* RAM, but not free: a monitored page. */
	desc->region[5].gpa = PROT;
	is(hc(RDT_HC_DRIVER, DESC, 0, 0), -EBUSY, "B6 driver refused: a page that is monitored");
	drv_describe(desc);
	desc->region[5].gpa = RAM - PAGE_SIZE;
	is(hc(RDT_HC_DRIVER, DESC, 0, 0), -EFAULT, "B6 driver refused: no RAM");
	drv_describe(desc);
	is(rdt_info(r).frames, info.frames, "B6 refused drivers restrict nothing");
	is(vcpu_call(v, g_store, DRV_STACKS, 0), -1, "B6 and their frames are writable");

	rdt_drain(r);
	is(hc(RDT_HC_DRIVER, DESC, 0, 0), 0, "B6 the driver is registered");
	ok(event(RDT_EV_SEALED, &ev), "B6 which is an event");
	is(hc(RDT_HC_DRIVER, DESC, 0, 0), -EEXIST, "B6 a second one is refused");
	ok(hc(RDT_HC_STATUS, 0, 0, 0) & RDT_ST_SEALED, "B6 the status says so");
	info = rdt_info(r);
	ok(info.flags & RDT_VM_SEALED, "B6 the operator sees it");
	is(info.slots, DRV_SLOTS, "B6 slots");
	/* The descriptor was copied: changing it later changes nothing. */
	memset(desc, 0xff, sizeof(*desc));
}

/* ---- B1-B5: the decision table ------------------------------------------------------ */

static void test_decisions(void)
{
	uint64_t own = DRV_DATA + 0x100, before;
	struct rdt_event ev;

	rdt_drain(r);
	is(call(IN_ECHO, 40, 2), 42, "B1 in and out by the fault door");
	is(vcpu_call(v, g_drv_call, IN_ECHO, 40, 2, 1), 42, "B1 in and out by the hypercall door");
	is(call(IN_LEAVE_HC, 40, 2), 42, "B1 out by hypercall");
	is(call(IN_CR3, 0, 0), DRV_TABLES, "B12 inside, CR3 is the driver's");
	is(call(IN_STACK, 0, 0), DRV_STACKS + PAGE_SIZE, "B10 the stack is the slot's");
	ok(quiet(), "B1 none of it is an event");

	is(call(IN_STORE, own, 0x1111), 0, "B3 driver, integrity, own data");
	is(vm_u64(vm, own), 0x1111, "B3 is written");
	is(call(IN_LOAD, own, 0), 0x1111, "B3 and read");
	is(call(IN_STORE, DRV_OUTSIDE, 0x2222), 0, "B3 driver, integrity, a free page");
	is(vm_u64(vm, DRV_OUTSIDE), 0x2222, "B3 is written");
	ok(quiet(), "B3 neither is an event");

	is(vcpu_call(v, g_store, LOGGED, 0x4444), -1, "B3 other code, normal, a page under LOG");
	ok(only(RDT_EV_WRITE, RDT_ACT_LOG, RDT_CLS_OTHER, LOGGED, 0, &ev), "B3 is logged");
	is(vm_u64(vm, LOGGED), 0x4444, "B3 and written");

	/* Inside no rule lets a write happen, and none stops the vCPU. */
	const struct {
		uint64_t at;
		const char *what;
		uint16_t type;
		uint8_t cls;
	} others[] = {
		{ PROT, "a page under DENY", RDT_EV_WRITE, RDT_CLS_OTHER },
		{ LOGGED, "a page under LOG", RDT_EV_WRITE, RDT_CLS_OTHER },
		{ FROZEN, "a page under FREEZE", RDT_EV_WRITE, RDT_CLS_RODATA },
		{ NODES, "a node page", RDT_EV_TREE_WRITE, RDT_CLS_NODE },
		{ (uint64_t)drv_text, "its own text", RDT_EV_DRIVER_WRITE, RDT_CLS_DRV_TEXT },
		{ (uint64_t)drv_gate, "its own gate", RDT_EV_DRIVER_WRITE, RDT_CLS_DRV_GATE },
		{ (uint64_t)drv_exit, "its own exit", RDT_EV_DRIVER_WRITE, RDT_CLS_DRV_EXIT },
	};
	for (unsigned int i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct drv_after *after = vm_var(vm, drv_after[0]);

		before = vm_u64(vm, others[i].at);
		rdt_drain(r);
		memset(after, 0xff, sizeof(*after));
		is(call(IN_STORE, others[i].at, ~before), -EPERM, "B3 driver, integrity, %s: the call fails",
		   others[i].what);
		is(vm_u64(vm, others[i].at), before, "B2 %s: it is not written", others[i].what);
		if (ok(only(others[i].type, RDT_ACT_DENY, others[i].cls, others[i].at, INSIDE, &ev),
		       "B3 %s: it is denied and reported, once", others[i].what))
			ok(ev.rip == (uint64_t)drv_store && ev.cr3 == DRV_TABLES && ev.cpl == 0 &&
			   ev.vcpu == 0 && ev.flags & RDT_EVF_OLD && ev.old_val == before,
			   "B3 %s: by whom, and what was there", others[i].what);
		ok(after->rbx == 0xb8 && after->r14 == 0xe1 && !after->rsp_moved && !after->scrubbed,
		   "B3 %s: the caller has its registers, nothing else", others[i].what);
		is(rdt_info(r).slots_busy, 0, "B3 %s: the slot is free again", others[i].what);
	}
	is(call(IN_LOAD, PROT, 0), vm_u64(vm, PROT), "B2 inside a monitored page can be read");
	rdt_drain(r);

	is(vcpu_call(v, g_store, PROT, 1), gp, "B3 other code, normal, a monitored page");
	ok(event(RDT_EV_WRITE, &ev) && ev.view == 0, "B3 is reported");
	const struct {
		uint64_t at;
		const char *what;
		uint8_t cls;
	} parts[] = {
		{ own, "data", RDT_CLS_DRV_DATA },
		{ DRV_STACKS + 2 * PAGE_SIZE - 8, "stack", RDT_CLS_DRV_DATA },
		{ DRV_TABLES, "page tables", RDT_CLS_DRV_DATA },
		{ drv_pte(DRV_DATA), "page tables' entry", RDT_CLS_DRV_DATA },
		{ (uint64_t)drv_text, "text", RDT_CLS_DRV_TEXT },
		{ (uint64_t)drv_gate, "gate", RDT_CLS_DRV_GATE },
		{ (uint64_t)drv_exit, "exit", RDT_CLS_DRV_EXIT },
	};
	for (unsigned int i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		before = vm_u64(vm, parts[i].at);
		is(vcpu_call(v, g_store, parts[i].at, ~before), gp, "B3 other code, normal, the driver's %s",
		   parts[i].what);
		is(vm_u64(vm, parts[i].at), before, "B3 is not written");
		ok(event(RDT_EV_DRIVER_WRITE, &ev) && ev.gpa == parts[i].at && ev.cls == parts[i].cls,
		   "B3 and is reported");
	}
	is(hc(RDT_HC_PROTECT, DRV_DATA, 1, RDT_ATTR(RDT_ACT_LOG, 0)), -EPERM, "B3 nor weakened");
	is(rdt_protect(r, DRV_DATA, 1, RDT_ACT_NONE, 0), -EPERM, "B3 nor by the operator");
	is(vcpu_call(v, g_store, GUEST_IDT, 0), gp, "B6 the IDT cannot be written");
}

/* Its own store instruction, jumped to from outside: driver, normal, own data. */
static u64 g_text_store(u64 gva)
{
	this_cpu()->vector = -1;
	asm volatile("movq %%rsp, %%rbx\n\t"
		     "leaq 1f(%%rip), %%r11\n\t"
		     "movq %%r11, %%gs:8\n\t"
		     "pushq %%r11\n\t"
		     "movq %0, %%rsi\n\t"
		     "movl $1, %%edx\n\t"
		     "jmp drv_store\n"
		     "1:\tmovq %%rbx, %%rsp\n\t"
		     "movq $0, %%gs:8"
		     : : "r"(gva) : "rax", "rbx", "rdx", "rsi", "r11", "memory", "cc");
	return this_cpu()->vector;
}

static void test_own_code_outside(void)
{
	uint64_t before = vm_u64(vm, DRV_DATA);
	struct rdt_event ev;

	rdt_drain(r);
	is(vcpu_call(v, g_text_store, DRV_OUTSIDE), -1, "B3 driver's code, normal, a free page");
	is(vcpu_call(v, g_text_store, DRV_DATA), gp, "B3 driver's code, normal, own data");
	is(vm_u64(vm, DRV_DATA), before, "B3 is not written");
	ok(event(RDT_EV_DRIVER_WRITE, &ev) && ev.rip == (uint64_t)drv_store, "B3 and is reported");
}

/* ---- registers, scrubbing, leaving -------------------------------------------------- */

static void test_registers(void)
{
	struct drv_after *a = vm_var(vm, drv_after[0]);

	for (int door = 0; door < 2; door++) {
		memset(a, 0, sizeof(*a));
		vcpu_call(v, g_drv_call, IN_COMPUTE, 10, 0, door);
		ok(a->rbx == 0xb8 && a->rbp == 0xb9 && a->r12 == 0xc1 && a->r13 == 0xd1 && a->r14 == 0xe1,
		   "B9 leave, door %d: the caller's registers are back", door);
		is(a->rsp_moved, 0, "B9 leave, door %d: and its stack", door);
		is(a->scrubbed, 0, "B9 leave, door %d: all others are zero", door);
		is(a->rflags & ~0x8d5ul, 2, "B9 leave, door %d: and its flags", door);
	}
	rdt_drain(r);
	is(call(IN_JUMP, CODE, 0), -EPERM, "B4 inside, a jump to ordinary code: the call fails");
	struct rdt_event ev;
	ok(event(RDT_EV_EXEC, &ev) && ev.gpa == CODE && ev.view == INSIDE, "B4 and is reported");
	is(call(IN_EXEC_DATA, 0, 0), -EPERM, "B4 inside, a jump to its own data: the call fails");
	ok(event(RDT_EV_EXEC, &ev) && ev.gpa == DRV_DATA, "B4 and is reported");
	is(call(IN_LEAVE_WRONG, 0, 0), -EPERM, "B4 inside, a jump past the exit: the call fails");
	ok(event(RDT_EV_EXEC, &ev), "B4 and is reported");
	is(rdt_info(r).slots_busy, 0, "B4 no slot is lost");
	is(call(IN_ECHO, 1, 2), 3, "B4 and it can be entered");
}

static int64_t inside_hc(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t args[] = { a, b, c };

	for (int i = 0; i < 3; i++)
		call(IN_STORE, DRV_ARGS + 8 * i, args[i]);
	return call(IN_HYPERCALL, nr, 0);
}

static void test_inside_hypercalls(void)
{
	const uint64_t attr = RDT_ATTR(RDT_ACT_DENY, 3);

	rdt_drain(r);
	is(inside_hc(RDT_HC_PROTECT, GUEST_FREE + 0x300000, 1, attr), 0, "A5 protect from inside");
	is(inside_hc(RDT_HC_PROTECT, GUEST_FREE + 0x300000, 1, RDT_ATTR(RDT_ACT_LOG, 3)), 0,
	   "A5 weaken from inside");
	is(vcpu_call(v, g_store, GUEST_FREE + 0x300000, 1), -1, "A5 it is logged now");
	is(inside_hc(RDT_HC_UNPROTECT, GUEST_FREE + 0x300000, 1, 0), 0, "A5 unprotect from inside");
	is(hc(RDT_HC_QUERY, GUEST_FREE + 0x300000, 0, 0), 0, "A5 it is free");
	is(inside_hc(RDT_HC_UNPROTECT, GUEST_FREE + 0x300000, 1, 0), -ENOENT, "A5 unprotect twice");
	rdt_drain(r);
	is(inside_hc(RDT_HC_UNPROTECT, DRV_DATA, 1, 0), -EPERM, "A5 not the driver's own");
	is(inside_hc(RDT_HC_UNPROTECT, NODES, 1, 0), -EPERM, "A5 not a node page");
	is(inside_hc(RDT_HC_UNPROTECT, GUEST_IDT, 1, 0), -EPERM, "A5 not the IDT");
	is(inside_hc(RDT_HC_DRIVER, DESC, 0, 0), -EEXIST, "B6 no second driver from inside");
	rdt_drain(r);
	is(inside_hc(RDT_HC_ENTER, 0, 0, 0), -EPERM, "B6 enter from inside");
	ok(gate_event(RDT_GATE_BAD_RIP) || gate_event(RDT_GATE_INSIDE), "B6 is an alert");
	is(inside_hc(RDT_HC_RESUME, 1, 0, 0), -EPERM, "B6 resume from inside");
	ok(gate_event(RDT_GATE_INSIDE), "B6 is an alert");
	is(call(IN_ECHO, 1, 2), 3, "B6 the inside is well");
}

/* ---- B6: everything that is not the door ---------------------------------------------- */

#define ENTERED	3
#define FAULTED(vector) (0x1000 + (vector))

/* Jump to a place with all that an entry needs: ENTERED, an error, or FAULTED(). */
static u64 g_enter_at(u64 target)
{
	u64 ret = RDT_HC_ENTER;

	this_cpu()->vector = -1;
	asm volatile("leaq 1f(%%rip), %%r11\n\t"
		     "movq %%r11, %%gs:8\n\t"
		     "movq %%rsp, %%r12\n\t"
		     "xorl %%edi, %%edi; movl $1, %%esi; movl $2, %%edx; xorl %%ecx, %%ecx\n\t"
		     "jmp *%1\n"
		     "1:\tmovq %%r12, %%rsp\n\t"
		     "movq $0, %%gs:8"
		     : "+a"(ret) : "r"(target)
		     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "memory", "cc");
	return this_cpu()->vector == -1 ? ret : (u64)FAULTED(this_cpu()->vector);
}

static u64 g_user_enter_at(u64 target)
{
	return guest_user_call(g_enter_at, target);
}

static u64 g_flush(void)
{
	guest_flush_tlb();
	return 0;
}

static void remap(uint64_t gva, uint64_t gpa)
{
	vm_map(vm, gva, gpa, PAGE_SIZE, PTE_W | PTE_U);
	vcpu_call(v, g_flush);
}

static int64_t enter_at(uint64_t target)
{
	int64_t ret = vcpu_call(v, g_enter_at, target);

	vcpu_must_end(v, "a jump");
	return ret;
}

static u64 g_other_idt(u64 door)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) old, new = { 4095, SECOND_IDT };
	u64 ret;

	asm volatile("sidt %0" : "=m"(old));
	asm volatile("lidt %0" : : "m"(new));
	ret = drv_call(IN_ECHO, 1, 2, 0, door);
	asm volatile("lidt %0" : : "m"(old));
	return ret;
}

static u64 g_bad_r11(void)
{
	this_cpu()->vector = -1;
	asm volatile("leaq 1f(%%rip), %%r11\n\t"
		     "movq %%r11, %%gs:8\n\t"
		     "movabsq $0x8000000000000000, %%r11\n\t"
		     "jmp *%0\n"
		     "1:\tmovq $0, %%gs:8" : : "r"((u64)drv_gate) : "r11", "memory", "cc");
	return FAULTED(this_cpu()->vector);
}

static void test_not_the_door(void)
{
	const uint64_t behind = (uint64_t)(guest_is_intel ? drv_behind_vmcall : drv_behind_vmmcall);
	const uint64_t call_door = behind - 3, gate = (uint64_t)drv_gate;
	const uint64_t page = call_door & -PAGE_SIZE, offset = call_door - page;
	const uint64_t alias = 0x28000000, copy = GUEST_FREE + 0x40000;
	uint64_t enters;

	is(enter_at(call_door), ENTERED, "B6 the hypercall door");
	is(enter_at(gate), ENTERED, "B6 the fault door");
	enters = rdt_info(r).enters;

	rdt_drain(r);
	is(hc(RDT_HC_ENTER, 0, 0, 0), -EPERM, "B6 enter by hypercall from elsewhere");
	ok(gate_event(RDT_GATE_BAD_RIP), "B6 is an alert");
	is(hc(RDT_HC_LEAVE, 0, 0, 0), -EPERM, "B6 leave from outside");
	ok(gate_event(RDT_GATE_NOT_INSIDE), "B6 is an alert");
	is(enter_at(gate + 5), FAULTED(gp), "B6 a jump behind the gate's start");
	ok(gate_event(RDT_GATE_BAD_RIP), "B6 is an alert");

	memcpy(vm_host(vm, copy), vm_host(vm, page), PAGE_SIZE);
	remap(alias, copy);
	is(enter_at(alias + offset), -EPERM, "B6 a copy of the hypercall door");
	ok(gate_event(RDT_GATE_BAD_RIP), "B6 is an alert");
	remap(page, copy);
	is(enter_at(call_door), -EPERM, "B6 the hypercall door's address, a copy behind it");
	ok(gate_event(RDT_GATE_BAD_RIP), "B6 is an alert");
	remap(page, page);
	memcpy(vm_host(vm, copy), vm_host(vm, gate), PAGE_SIZE);
	remap(gate, copy);
	is(enter_at(gate), FAULTED(6), "B6 the gate's address, a copy behind it: runs outside, into the exit's UD2");
	remap(gate, gate);
	is(rdt_info(r).enters, enters, "B6 none of them got in");
	ok(!rdt_find(r, RDT_EV_GATE, &(struct rdt_event){ 0 }), "B6 no other alert");

	/* The true frames, seen elsewhere: the physical address is what counts. */
	remap(alias, page);
	is(enter_at(alias + offset), ENTERED, "B6 an alias of the hypercall door is the door");
	remap(alias, gate);
	is(enter_at(alias), ENTERED, "B6 an alias of the gate is the gate");
	is(enter_at(alias + 5), FAULTED(gp), "B6 but not elsewhere on it");
	ok(gate_event(RDT_GATE_BAD_RIP), "B6 is an alert");

	is((int64_t)vcpu_call(v, g_user_enter_at, gate), -EPERM, "B6 the gate from ring 3");
	ok(gate_event(RDT_GATE_BAD_CPL), "B6 is an alert");
	is((int64_t)vcpu_call(v, g_user_enter_at, call_door), -EPERM, "B6 the hypercall door from ring 3");
	ok(gate_event(RDT_GATE_BAD_CPL), "B6 is an alert");
	for (int door = 0; door < 2; door++) {
		is((int64_t)vcpu_call(v, g_other_idt, door), -EPERM, "B6 with another IDT, door %d", door);
		ok(gate_event(RDT_GATE_BAD_IDT), "B6 is an alert");
	}
	is(vcpu_call(v, g_bad_r11), FAULTED(gp), "B6 with a return address that is none");
	ok(gate_event(RDT_GATE_BAD_STATE), "B6 is an alert");
	is(rdt_info(r).slots_busy, 0, "B6 no slot is lost");
	is(call(IN_ECHO, 1, 2), ENTERED, "B6 and the door still opens");
}

/* ---- B7, B8, B10, B12: two vCPUs ------------------------------------------------------- */

static u64 g_stale(u64 gva, u64 n)
{
	u64 bad = 0;

	for (u64 i = 0; i < n; i++) {
		bad += drv_call(IN_STORE, gva, i, 0, i & 1) != 0;
		bad += guest_try_store(gva, ~i) != gp;
		bad += guest_load(gva) != i;
	}
	return bad;
}

static void test_two_vcpus(void)
{
	uint64_t own = DRV_DATA + 0x200, before;
	struct rdt_event ev;

	rdt_drain(r);
	vcpu_call(v1, g_drv_call, IN_STOP_STORE, own, 0x7777, 0);
	is(v1->stop, STOP_SYNC, "B7 vCPU 1 is inside");
	is(rdt_info(r).slots_busy, 1, "B7 in a slot");
	is(vcpu_call(v, g_store, own, 1), gp, "B7 meanwhile vCPU 0's write is denied");
	ok(event(RDT_EV_DRIVER_WRITE, &ev) && ev.vcpu == 0 && ev.view == 0, "B7 and reported");
	before = 0;
	for (int i = 0; i < DRV_SLOTS; i++)
		before += vcpu_call(v, g_store, DRV_STACKS + (i + 1) * PAGE_SIZE - 8, 1) != gp;
	is(before, 0, "B10 vCPU 0 cannot write a stack that is in use");
	is(call(IN_ECHO, 1, 2), 3, "B7 vCPU 0 can enter, too");

	/* The kernel's tables send the address elsewhere. */
	*(uint64_t *)vm_host(vm, DRV_OUTSIDE + 0x200) = 0;
	remap(DRV_DATA, DRV_OUTSIDE);
	is(vcpu_resume(v1), 0x7777, "B12 inside, the address means what it did");
	vcpu_must_end(v1, "vCPU 1 leaves");
	is(vm_u64(vm, own), 0x7777, "B12 the driver's frame is written");
	is(vm_u64(vm, DRV_OUTSIDE + 0x200), 0, "B12 the other is not");
	is(call(IN_LOAD, own, 0), 0x7777, "B12 nor for a new call");
	remap(DRV_DATA, DRV_DATA);
	is(rdt_info(r).slots_busy, 0, "B7 all have left");

	is(vcpu_call(v, g_stale, own, 500), 0, "B8 500 times in, out, denied at once");
	vcpu_must_end(v, "in and out");
}

/* ---- B9: events inside ----------------------------------------------------------------- */

static u64 g_call_if(u64 op, u64 a, u64 b, u64 how)
{
	u64 ret;

	if (how & 2)
		asm volatile("sti");
	ret = drv_call(op, a, b, 0, how & 1);
	asm volatile("cli");
	return ret;
}

static bool clean(const char *what)
{
	bool good = !seen->leaked && !seen->wrong_rip && !seen->wrong_flags;

	if (!good)
		tap_diag("%s: leaked %#lx, wrong flags %#lx", what, seen->leaked,
			 seen->wrong_flags);
	return good;
}

static void test_events(void)
{
	const struct {
		int ev;
		const char *what;
		uint64_t count, vector, error;
		int64_t result;
	} events[] = {
		{ EV_INT3, "int3", 1, 3, 0, 0x5eed * 2 + 0x1ea5 },
		{ EV_INT, "int 0x90", 1, 0x90, 0, 0x5eed * 2 + 0x1ea5 },
		{ EV_PF, "#PF that the handler mends", 1, 14, 0, 0x5eed * 2 + 0x1ea5 + 0x123 },
		{ EV_STEP, "TF", 11, 1, 0, 0x5eed * 2 + 0x1ea5 },
		{ EV_DIV, "#DE that nobody mends", 1, 0, 0, -EFAULT },
		{ EV_UD2, "#UD that nobody mends", 1, 6, 0, -EFAULT },
	};

	vcpu_call(v, g_watch_events);
	vcpu_call(v1, g_watch_events);
	*(uint64_t *)vm_host(vm, DRV_UNMAPPED) = 0x123;
	rdt_drain(r);
	for (int how = 0; how < 4; how++)
		for (unsigned int i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
			char name[100];
			uint64_t aexits = rdt_info(r).aexits;

			snprintf(name, sizeof(name), "B9 %s inside, IF %d, door %d", events[i].what,
				 how >> 1, how & 1);
			call(IN_STORE, drv_pte(DRV_UNMAPPED), 0);
			memset(seen, 0, sizeof(*seen));
			is(vcpu_call(v, g_call_if, IN_EVENT, events[i].ev, DRV_UNMAPPED, how),
			   events[i].result, "%s: the result", name);
			if (!vcpu_must_end(v, name))
				continue;
			is(seen->count, events[i].count, "%s: the handler ran", name);
			is(seen->vector, events[i].vector, "%s: the vector", name);
			is(seen->error, events[i].error, "%s: the error code", name);
			ok(clean(name), "%s: the handler saw nothing of the inside", name);
			is(rdt_info(r).aexits - aexits, events[i].count, "%s: is counted", name);
			if (events[i].vector == 14)
				is(seen->cr2, DRV_UNMAPPED, "%s: CR2", name);
		}
	is(rdt_info(r).slots_busy, 0, "B9 no slot is lost");
	ok(quiet(), "B9 none of it is an alert");
}

static void test_nmi(void)
{
	memset(seen, 0, sizeof(*seen));
	for (int i = 1; i <= 3; i++) {
		vcpu_call(v, g_drv_call, IN_STOP, 20, 22, 0);
		is(v->stop, STOP_SYNC, "B9 NMI %d: inside", i);
		if (ioctl(v->fd, KVM_NMI))
			tap_bail("KVM_NMI");
		is(vcpu_resume(v), 42, "B9 NMI %d: the result", i);
		vcpu_must_end(v, "NMI");
		is(seen->count, i, "B9 NMI %d: the handler ran once", i);
		is(seen->vector, 2, "B9 NMI %d: the vector", i);
	}
	ok(clean("NMI"), "B9 NMI: the handler saw nothing of the inside");
}

static void on_alarm(int sig)
{
}

/*
 * What goes by no IDT: SMM puts the registers into memory of the guest's, INIT starts the
 * vCPU anew in the middle of the view. Both have to wait until it is outside.
 */
#define SMM_CODE	0x38000			/* where SMBASE is after a reset */
#define SMM_SAVED	0x3fe00			/* 512 bytes, as AMD64 has them */
#define SMM_RAX		(0x3fff8)
#define SMM_R15		(0x3ff80)
#define SMM_RIP		(0x3ff78)
#define SECRET		0x5ec2e7

static void test_smi(void)
{
	/* SMM has memory slots of its own. */
	struct kvm_userspace_memory_region smram = {
		.slot = 1 << 16, .memory_size = RAM, .userspace_addr = (uintptr_t)vm_host(vm, 0),
	};
	bool leaked = false;

	if (ioctl(kvm_dev(), KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) <= 0) {
		tap_skip("B9 SMI: this host has no SMM for guests");
		return;
	}
	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &smram))
		tap_bail("memory in SMM");
	rdt_drain(r);
	memcpy(vm_host(vm, SMM_CODE), (uint8_t[]){ 0x0f, 0xaa }, 2);	/* rsm */
	memset(vm_host(vm, SMM_SAVED), 0xcc, 512);
	vcpu_call(v, g_drv_call, IN_STOP, SECRET, 1, 0);
	is(v->stop, STOP_SYNC, "B9 SMI: inside");
	if (ioctl(v->fd, KVM_SMI))
		tap_bail("KVM_SMI");
	is(vcpu_resume(v), SECRET + 1, "B9 SMI: the result");
	vcpu_must_end(v, "SMI");
	is(vm_u64(vm, SMM_RIP), (uint64_t)drv_back, "B9 SMI: it came when the vCPU was outside");
	is(vm_u64(vm, SMM_RAX), SECRET + 1, "B9 SMI: with the result");
	for (uint64_t at = SMM_R15; at < SMM_RAX; at += 8)
		leaked |= vm_u64(vm, at) == SECRET;
	ok(!leaked, "B9 SMI: and no register of the inside");
	is(rdt_info(r).slots_busy, 0, "B9 SMI: no slot is lost");
	ok(quiet(), "B9 SMI: no alert");
}

static void test_init(void)
{
	struct vcpu *ap = &vm->vcpu[2];
	struct kvm_msi init = { .address_lo = 0xfee00000 | ap->id << 12, .data = 0x4500 };
	struct itimerval every = { { 0, 20000 }, { 0, 20000 } }, off = {};
	struct kvm_mp_state mp = {};
	struct kvm_lapic_state lapic;

	/* Has KVM look which LAPICs there are. */
	if (ioctl(ap->fd, KVM_GET_LAPIC, &lapic) || ioctl(ap->fd, KVM_SET_LAPIC, &lapic))
		tap_bail("KVM_SET_LAPIC");
	vcpu_call(ap, g_drv_call, IN_STOP_STORE, DRV_DATA + 0x800, SECRET, 0);
	is(ap->stop, STOP_SYNC, "B9 INIT: inside");
	vcpu_call(v, g_drv_call, IN_STORE, DRV_DATA + 0x800, 0, 0);
	is(ioctl(vm->fd, KVM_SIGNAL_MSI, &init), 1, "B9 INIT: sent");
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	/* It waits for a start-up IPI in KVM_RUN. */
	for (int i = 0; i < 50 && mp.mp_state != KVM_MP_STATE_INIT_RECEIVED; i++) {
		vcpu_run(ap);
		if (ap->error != EINTR)
			break;
		ioctl(ap->fd, KVM_GET_MP_STATE, &mp);
	}
	setitimer(ITIMER_REAL, &off, NULL);
	is(mp.mp_state, KVM_MP_STATE_INIT_RECEIVED, "B9 INIT: taken");
	is(call(IN_LOAD, DRV_DATA + 0x800, 0), SECRET, "B9 INIT: when the inside was done");
	is(rdt_info(r).slots_busy, 0, "B9 INIT: no slot is lost");
	ok(quiet(), "B9 INIT: no alert");
}

/* Take over at the stub on another vCPU, as a scheduler would. */
static int64_t take_over(struct vcpu *to, uint64_t frame)
{
	struct trap_frame *f = vm_host(vm, frame);
	struct kvm_regs regs = {
		.rip = f->rip, .rsp = f->rsp, .rflags = f->rflags, .rdi = f->rdi,
	};

	ioctl(to->fd, KVM_SET_REGS, &regs);
	return vcpu_resume(to);
}

static void test_migrate(void)
{
	const int64_t result = 0x5eed * 2 + 0x1ea5;
	int good = 0, clean_ = 0;

	for (int i = 0; i < 20; i++) {
		struct vcpu *from = i & 1 ? v1 : v, *to = i & 1 ? v : v1;
		struct drv_seen *s = vm_var(vm, drv_seen[from->id]);
		uint64_t frame;
		int64_t got;

		memset(s, 0, sizeof(*s));
		s->park = 1;
		frame = vcpu_call(from, g_drv_call, IN_EVENT, EV_INT, 0, i >> 1 & 1);
		s->park = 0;
		if (from->stop != STOP_SYNC)
			vcpu_explain(from);
		/* The first vCPU does other things meanwhile. */
		good += vcpu_call(from, g_drv_call, IN_ECHO, 1, 1, 0) == 2;
		got = take_over(to, frame);
		good += got == result;
		if (!vcpu_must_end(to, "taken over") || got != result)
			tap_diag("round %d: %#lx", i, got);
		clean_ += !s->leaked;
	}
	is(good, 40, "B9 a thread goes on on another vCPU, 20 times");
	is(clean_, 20, "B9 and leaks nothing");
	is(rdt_info(r).slots_busy, 0, "B9 no slot is lost");
}

static void test_tokens(void)
{
	uint64_t frame[DRV_SLOTS], token[DRV_SLOTS];
	struct drv_seen *s = vm_var(vm, drv_seen[0]);

	rdt_drain(r);
	for (int i = 0; i < DRV_SLOTS; i++) {
		s->park = 1;
		frame[i] = vcpu_call(v, g_drv_call, IN_EVENT, EV_INT, 0, 0);
		token[i] = ((struct trap_frame *)vm_host(vm, frame[i]))->rdi;
		is(rdt_info(r).slots_busy, i + 1, "B9 %d threads wait", i + 1);
	}
	s->park = 0;
	is(call(IN_ECHO, 1, 2), -EAGAIN, "B9 no slot is free");
	ok(gate_event(RDT_GATE_NO_SLOT), "B9 is an alert");
	is(ioctl(r->fd, RDT_VM_DETACH, 0) ? -errno : 0, -EBUSY, "B9 no detach meanwhile");
	is(rdt_info(r).flags & RDT_VM_DEAD, 0, "B9 it is not detached");

	rdt_drain(r);
	const uint64_t wrong[] = { 0, ~0ull, token[0] ^ 1, token[0] ^ 1ull << 63, token[0] + 1, token[1] + 4 };
	for (unsigned int i = 0; i < 6; i++) {
		is(hc(RDT_HC_RESUME, wrong[i], 0, 0), -EINVAL, "B9 a forged token, %u", i);
		ok(gate_event(RDT_GATE_BAD_TOKEN), "B9 is an alert");
	}
	is(hc(RDT_HC_RESUME, token[0], 2, 0), -EINVAL, "B9 resume with an unknown flag");
	is(hc(RDT_HC_RESUME, token[0], 0, 1), -EINVAL, "B9 resume with a third argument");
	is(rdt_info(r).slots_busy, DRV_SLOTS, "B9 all still wait");

	if (!is(hc(RDT_HC_RESUME, token[0], RDT_RESUME_DROP, 0), 0, "B9 drop one"))
		for (int i = 0; i < DRV_SLOTS; i++)
			tap_diag("frame %#lx vector %ld rip %#lx token %#lx", frame[i],
				 ((struct trap_frame *)vm_host(vm, frame[i]))->vector,
				 ((struct trap_frame *)vm_host(vm, frame[i]))->rip, token[i]);
	is(rdt_info(r).slots_busy, DRV_SLOTS - 1, "B9 its slot is free");
	rdt_drain(r);
	is(hc(RDT_HC_RESUME, token[0], RDT_RESUME_DROP, 0), -EINVAL, "B9 drop it twice");
	ok(gate_event(RDT_GATE_BAD_TOKEN), "B9 is an alert");
	is(hc(RDT_HC_RESUME, token[0], 0, 0), -EINVAL, "B9 or resume it");
	is(call(IN_ECHO, 1, 2), 3, "B9 there is room again");
	is(hc(RDT_HC_RESUME, token[0], 0, 0), -EINVAL, "B9 and the old token is no good for a new thread");

	/* The stack under the last one is its own still: it can be finished. */
	is(take_over(v1, frame[DRV_SLOTS - 1]), 0x5eed * 2 + 0x1ea5, "B9 the last goes on");
	is(hc(RDT_HC_RESUME, token[DRV_SLOTS - 1], 0, 0), -EINVAL, "B9 once");
	for (int i = 1; i < DRV_SLOTS - 1; i++)
		is(hc(RDT_HC_RESUME, token[i], RDT_RESUME_DROP, 0), 0, "B9 drop the others");
	is(rdt_info(r).slots_busy, 0, "B9 all slots are free");
}

/* ---- B10: a stack whose thread waits outside -------------------------------------------- */

#define WALKED_GVA 0x38000000ul		/* the page directory names the stack for these 2 MiB */
#define WALKED	0x100			/* in the stack: what looks like an entry */
#define FREE	(GUEST_FREE + 0x50000)	/* what it maps */
#define ALIAS	0x2a000000ul		/* the stack once more */
#define MSR_WALL_CLOCK_NEW 0x4b564d00

#define SMASH(name, insns)						\
	static u64 smash_##name(u64 gva)				\
	{								\
		return guest_try(insns, "D"(gva), "r"(~0ul));		\
	}
SMASH(store, "movq %1, (%0)")
SMASH(byte, "movb $0x41, 7(%0)")
SMASH(xchg, "movq %1, %%r11; xchgq %%r11, (%0)")
SMASH(xadd, "xorl %%r11d, %%r11d; lock xaddq %%r11, (%0)")
SMASH(inc, "lock incq (%0)")
SMASH(or, "orq $0, (%0)")
SMASH(movnti, "movnti %1, (%0)")
SMASH(bts, "lock btsq $40, (%0)")
SMASH(sgdt, "sgdt -8(%0)")
SMASH(read, "cmpq $0, (%0)")
SMASH(write, "movl $1, 64(%0)")

static u64 smash_cmpxchg(u64 gva)
{
	u64 is = guest_load(gva);

	return guest_try("lock cmpxchgq %2, (%0)", "D"(gva), "a"(is), "r"(~is));
}

static u64 smash_user(u64 gva)
{
	return guest_user_call(smash_store, gva);
}

static u64 smash_insb(u64 gva)
{
	return guest_try("cld; insb", "D"(gva), "d"(0x71));
}

static u64 smash_wall_clock(u64 gpa)
{
	return g_wrmsr(MSR_WALL_CLOCK_NEW, gpa);
}

/* Through the tables that name the stack: the CPU would set accessed, or dirty, there. */
static u64 smash_walk(u64 gva)
{
	guest_flush_tlb();
	return smash_read(gva);
}

static u64 smash_walk_write(u64 gva)
{
	guest_flush_tlb();
	return smash_write(gva);
}

static void test_stack(void)
{
	const uint64_t stack = DRV_STACKS, top = DRV_STACKS + PAGE_SIZE - 8;
	const struct {
		const char *what;
		u64 (*fn)(u64);
		uint64_t at, gpa;	/* gpa: as reported */
		int64_t vector;
		uint16_t type;
	} smash[] = {
		{ "a store", smash_store, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "a byte", smash_byte, top, top + 7, gp, RDT_EV_DRIVER_WRITE },
		{ "xchg", smash_xchg, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "lock xadd", smash_xadd, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "lock inc", smash_inc, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "lock cmpxchg", smash_cmpxchg, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "or of nothing", smash_or, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "movnti", smash_movnti, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "lock bts", smash_bts, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "sgdt", smash_sgdt, top, top - 8, gp, RDT_EV_DRIVER_WRITE },
		{ "a store from ring 3", smash_user, top, top, gp, RDT_EV_DRIVER_WRITE },
		{ "a store through an alias", smash_store, ALIAS + 0xff8, top, gp, RDT_EV_DRIVER_WRITE },
		/* KVM leaves out what its emulator would store. */
		{ "insb, by KVM's emulator", smash_insb, top, top, -1, RDT_EV_DRIVER_WRITE },
		{ "the wall clock, by KVM", smash_wall_clock, top, top, -1, RDT_EV_KVM_WRITE },
		{ "a page walk, accessed", smash_walk, WALKED_GVA + WALKED / 8 * PAGE_SIZE,
		  stack + WALKED, gp, RDT_EV_DRIVER_WRITE },
		{ "a page walk, dirty", smash_walk_write, WALKED_GVA + (WALKED / 8 + 1) * PAGE_SIZE,
		  stack + WALKED + 8, gp, RDT_EV_DRIVER_WRITE },
	};
	static uint8_t before[PAGE_SIZE], outside[GUEST_STACK];
	uint64_t *pd = vm_host(vm, GUEST_PD), frame, token;
	struct drv_seen *s = vm_var(vm, drv_seen[0]);
	struct rdt_event ev;

	/* In a part of the stack that no call reaches; the inside writes it itself. */
	is(call(IN_STORE, stack + WALKED, FREE | PTE_P | PTE_W | PTE_U), 0, "B10 an entry, not accessed");
	is(call(IN_STORE, stack + WALKED + 8, FREE | PTE_P | PTE_W | PTE_U | PTE_A), 0,
	   "B10 an entry, not dirty");
	pd[WALKED_GVA / HUGE_SIZE] = stack | PTE_P | PTE_W | PTE_U | PTE_A;
	vm_map(vm, ALIAS, stack, PAGE_SIZE, PTE_W | PTE_U);

	memset(s, 0, sizeof(*s));
	s->park = 1;
	frame = vcpu_call(v, g_drv_call, IN_EVENT, EV_INT, 0, 0);
	s->park = 0;
	if (!is(v->stop, STOP_SYNC, "B10 a thread waits outside"))
		return;
	token = ((struct trap_frame *)vm_host(vm, frame))->rdi;
	is(token & (RDT_DRV_MAX_SLOTS - 1), 0, "B10 in the first slot");
	is(rdt_info(r).slots_busy, 1, "B10 which is taken");
	memcpy(before, vm_host(vm, stack), PAGE_SIZE);
	memcpy(outside, vm_host(vm, GUEST_STACKS), GUEST_STACK);
	ok(*(uint64_t *)(before + PAGE_SIZE - 8) - (uint64_t)drv_text <
		(uint64_t)(drv_text_end - drv_text),
	   "B10 a return address is on its stack");

	for (unsigned int i = 0; i < sizeof(smash) / sizeof(smash[0]); i++)
		for (int n = 0; n < 2; n++) {
			struct vcpu *who = n ? v : v1;
			char name[80];
			int64_t vector;

			snprintf(name, sizeof(name), "B10 vCPU %d, the waiting stack, %s", who->id,
				 smash[i].what);
			rdt_drain(r);
			vector = vcpu_call(who, smash[i].fn, smash[i].at);
			if (who->exit == KVM_EXIT_IO && who->run->io.direction == KVM_EXIT_IO_IN) {
				memset((uint8_t *)who->run + who->run->io.data_offset, 0x41, 1);
				vector = vcpu_resume(who);
			}
			vcpu_must_end(who, name);
			is(vector, smash[i].vector, "%s: the vector", name);
			ok(!memcmp(before, vm_host(vm, stack), PAGE_SIZE), "%s: it is unchanged", name);
			if (ok(only(smash[i].type, RDT_ACT_DENY, RDT_CLS_DRV_DATA, smash[i].gpa, 0, &ev),
			       "%s: reported, once", name) && smash[i].type != RDT_EV_KVM_WRITE)
				is(ev.vcpu, who->id, "%s: whose it was", name);
		}
	pd[WALKED_GVA / HUGE_SIZE] = WALKED_GVA | PTE_PS | PTE_P | PTE_W | PTE_U;

	/* vCPU 0 has used its stack meanwhile, which is the thread's outside, too. */
	memcpy(vm_host(vm, GUEST_STACKS), outside, GUEST_STACK);
	is(rdt_info(r).slots_busy, 1, "B10 the thread still waits");
	is(take_over(v1, frame), 0x5eed * 2 + 0x1ea5, "B10 and finishes rightly");
	vcpu_must_end(v1, "the thread");
	is(rdt_info(r).slots_busy, 0, "B10 its slot is free");
	is(hc(RDT_HC_RESUME, token, 0, 0), -EINVAL, "B10 and its token used up");
	is(call(IN_ECHO, 1, 2), 3, "B10 the slot is good for another");
}

/* ---- B9: interrupts and pauses at random points ------------------------------------------ */

/* A pause by the VMM: state out and in again, as QEMU does. */
static uint64_t pauses;

static uint64_t run_with_pauses(struct vcpu *who)
{
	for (;;) {
		struct kvm_regs regs;
		struct kvm_sregs sregs;

		vcpu_run(who);
		if (who->error != EINTR)
			return who->value;
		pauses++;
		vcpu_regs(who, &regs);
		vcpu_sregs(who, &sregs);
		if (ioctl(who->fd, KVM_SET_SREGS, &sregs) || ioctl(who->fd, KVM_SET_REGS, &regs))
			tap_bail("state of a vCPU");
	}
}

static void test_random(uint64_t want_events)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	struct itimerval every = { { 0, 3000 }, { 0, 3000 } }, off = { { 0, 0 }, { 0, 0 } };
	uint64_t rounds = 20000, expected, wrong = 0, calls = 0;

	sigaction(SIGALRM, &sa, NULL);
	expected = vcpu_call(v, drv_compute, 0, rounds);
	ok(expected != 0 && expected != (uint64_t)vcpu_call(v, drv_compute, 0, rounds + 1),
	   "B9 the computation depends on its length");
	memset(seen, 0, sizeof(*seen));
	vcpu_call(v, g_timer_on, 600000);
	while (seen->count < want_events && calls < 2000) {
		wrong += vcpu_call(v, g_call_if, IN_COMPUTE, rounds, 0, 2 | (calls & 1)) != expected;
		calls++;
		if (!vcpu_done(v)) {
			vcpu_explain(v);
			break;
		}
	}
	vcpu_call(v, g_timer_off);
	tap_diag("%lu interrupts inside in %lu calls", seen->count, calls);
	ok(seen->count >= want_events, "B9 random interrupts: enough of them (%lu)", seen->count);
	is(wrong, 0, "B9 random interrupts: every result is right");
	ok(clean("timer"), "B9 random interrupts: the handler saw nothing of the inside");

	setitimer(ITIMER_REAL, &every, NULL);
	pauses = 0;
	for (calls = 0; pauses < want_events / 10 && calls < 2000; calls++) {
		vcpu_prepare(v, g_drv_call, IN_COMPUTE, rounds, 0, 0);
		wrong += run_with_pauses(v) != expected;
	}
	setitimer(ITIMER_REAL, &off, NULL);
	ok(pauses >= want_events / 10, "B9 the VMM pauses: enough of them (%lu)", pauses);
	is(wrong, 0, "B9 the VMM pauses: every result is right");
	is(rdt_info(r).slots_busy, 0, "B9 no slot is lost");
}

/* ---- the end --------------------------------------------------------------------------- */

static void test_detach(void)
{
	struct trap_frame *f;
	uint64_t frame;

	/* A thread that is interrupted inside and does not come back. */
	seen->park = 1;
	frame = vcpu_call(v, g_drv_call, IN_EVENT, EV_INT, 0, 0);
	seen->park = 0;
	f = vm_host(vm, frame);
	fails(ioctl(r->fd, RDT_VM_DETACH, 0), EBUSY, "B1 a thread inside keeps the VM attached");
	is(ioctl(r->fd, RDT_VM_DETACH, RDT_DETACH_FORCE), 0, "B1 detach by force");
	ok(hc(RDT_HC_RESUME, f->rdi, 0, 0) < 0, "B1 the thread does not come back");
	is(vcpu_call(v, g_store, DRV_DATA, 1), -1, "B1 the driver's data is ordinary memory again");
	ok(hc(RDT_HC_ENTER, 0, 0, 0) < 0, "B1 nobody enters any more");
	is(vcpu_call(v, g_store, PROT, 1), -1, "B1 nor is anything monitored");
}

int main(int argc, char **argv)
{
	vm = vm_create(RAM, 3, VM_IRQCHIP);
	v = &vm->vcpu[0];
	v1 = &vm->vcpu[1];
	seen = vm_var(vm, drv_seen[0]);
	desc = vm_host(vm, DESC);
	drv_make(vm);
	memcpy(vm_host(vm, SECOND_IDT), vm_host(vm, GUEST_IDT), PAGE_SIZE);
	memcpy(vm_host(vm, CODE), (uint8_t[]){ 0xb8, 7, 0, 0, 0, 0xc3 }, 6);
	memset(vm_host(vm, DRV_DATA), 0xc3, 64);
	r = rdt_attach(vm->fd);
	is(vcpu_call(v, g_node_add, NODES, 1), 1, "A1 a node page");
	is(hc(RDT_HC_PROTECT, PROT, 1, RDT_ATTR(RDT_ACT_DENY, 0)), 0, "A1 protect");
	is(hc(RDT_HC_PROTECT, LOGGED, 1, RDT_ATTR(RDT_ACT_LOG, 0)), 0, "A1 protect");
	is(hc(RDT_HC_PROTECT, FROZEN, 1, RDT_ATTR(RDT_ACT_FREEZE, RDT_CLS_RODATA)), 0, "A1 protect");

	test_register();
	test_decisions();
	test_own_code_outside();
	test_registers();
	test_inside_hypercalls();
	test_not_the_door();
	test_two_vcpus();
	test_events();
	test_nmi();
	test_smi();
	test_init();
	test_migrate();
	test_tokens();
	test_stack();
	test_random(argc > 1 ? strtoul(argv[1], NULL, 0) : 300);
	test_detach();
	rdt_close(r);
	vm_destroy(vm);
	return tap_end();
}
