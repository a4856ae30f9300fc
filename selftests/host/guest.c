// SPDX-License-Identifier: GPL-2.0
/* Guest code that every test needs. */
#include "guest.h"

_Static_assert(offsetof(struct guest_cpu, self) == CPU_SELF, "trap.S");
_Static_assert(offsetof(struct guest_cpu, recover) == CPU_RECOVER, "guest_try");
_Static_assert(offsetof(struct guest_cpu, user_rsp) == CPU_USER_RSP, "trap.S");

struct guest_cpu guest_cpus[GUEST_MAX_VCPUS];
bool guest_is_intel;

#define IF	(1ul << 9)
#define RF	(1ul << 16)

extern const char guest_user_return[], guest_vectors[];

__attribute__((used))
void guest_trap(struct trap_frame *f)
{
	struct guest_cpu *cpu = this_cpu();

	/*
	 * QEMU delivers an interrupt that VMRUN injects a second time, as if it were a
	 * fault, when it leaves its CPU loop right behind the VMRUN: Documentation/lab.md.
	 */
	if (!guest_is_intel && f->vector >= 32 && f->rflags & RF &&
	    f->rip == (u64)guest_vectors + f->vector * 16)
		return;
	cpu->vector = f->vector;
	cpu->error = f->error;
	cpu->rip = f->rip;
	cpu->count[f->vector]++;
	asm volatile("movq %%cr2, %0" : "=r"(cpu->cr2));

	if (f->vector == 0x81) {	/* back from ring 3 */
		f->rip = (u64)guest_user_return;
		f->cs = SEL_CODE0;
		f->ss = SEL_DATA0;
		f->rflags &= ~IF;
		return;
	}
	if (cpu->on_trap && cpu->on_trap(f))
		return;
	if (cpu->recover) {
		f->rip = cpu->recover;
		cpu->recover = 0;
		return;
	}
	asm volatile("outb %%al, %%dx" : : "a"(STOP_TRAP), "d"(PORT_STOP), "D"(f));
	for (;;)
		asm volatile("hlt");
}

u64 g_hc(u64 nr, u64 a, u64 b, u64 c)
{
	return guest_hc(nr, a, b, c, 0);
}

u64 guest_hc_args[GUEST_MAX_VCPUS][5];

u64 g_hc_args(void)
{
	u64 *a = guest_hc_args[this_cpu()->id];

	return guest_hc(a[0], a[1], a[2], a[3], a[4]);
}

u64 g_load(u64 gva)
{
	return guest_load(gva);
}

u64 g_store(u64 gva, u64 value)
{
	return guest_try_store(gva, value);
}

u64 g_read_all(u64 gva, u64 pages)
{
	for (u64 i = 0; i < pages; i++)
		(void)*(volatile u64 *)(gva + i * PAGE_SIZE);
	return pages;
}

u64 g_node_add(u64 gpa, u64 count)
{
	s64 ret = 0;

	for (u64 i = 0; i < count && ret >= 0; i++)
		ret = guest_hc(RDT_HC_NODE_ADD, gpa + i * PAGE_SIZE, 0, 0, 0);
	return ret;
}

u64 g_gp_count(void)
{
	return this_cpu()->count[13];
}

u64 g_rdmsr(u64 msr)
{
	return guest_rdmsr(msr);
}

u64 g_wrmsr(u64 msr, u64 value)
{
	return guest_try("wrmsr", "c"((u32)msr), "a"((u32)value), "d"((u32)(value >> 32)));
}
