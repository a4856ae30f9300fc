// SPDX-License-Identifier: GPL-2.0
/* The test guest's integrity driver: registration, and the handlers outside. */
#include "driver.h"

_Static_assert(sizeof(struct drv_after) == DRV_AFTER_SIZE, "drv_asm.S");
_Static_assert(offsetof(struct guest_cpu, id) == CPU_ID, "drv_asm.S");

struct drv_after drv_after[GUEST_MAX_VCPUS];
struct drv_seen drv_seen[GUEST_MAX_VCPUS];

/* ---- at the host ----------------------------------------------------------------- */

static void region(struct rdt_driver_desc *d, uint64_t gpa, uint64_t bytes, uint32_t kind)
{
	d->region[d->regions++] = (struct rdt_drv_region){ gpa, bytes / PAGE_SIZE, kind };
}

void drv_describe(struct rdt_driver_desc *d)
{
	*d = (struct rdt_driver_desc){
		.size = sizeof(*d),
		.cr3 = DRV_TABLES,
		.idt_gva = GUEST_IDT,
		.idt_gpa = GUEST_IDT,
		.gate_gva = (uint64_t)drv_gate,
		.exit_gva = (uint64_t)drv_exit,
		.call_gva = (uint64_t)(guest_is_intel ? drv_behind_vmcall : drv_behind_vmmcall),
		.resume_gva = (uint64_t)drv_resume,
		.slots = DRV_SLOTS,
	};
	d->call_gpa = d->call_gva;
	for (int i = 0; i < DRV_SLOTS; i++)
		d->stack_top[i] = DRV_STACKS + (i + 1) * PAGE_SIZE;
	region(d, (uint64_t)drv_text, drv_text_end - drv_text, RDT_DRV_TEXT);
	region(d, (uint64_t)drv_gate, drv_gate_end - drv_gate, RDT_DRV_GATE);
	region(d, (uint64_t)drv_exit, drv_exit_end - drv_exit, RDT_DRV_EXIT);
	region(d, DRV_TABLES, DRV_TABLES_PAGES * PAGE_SIZE, RDT_DRV_DATA);
	region(d, DRV_STACKS, DRV_SLOTS * PAGE_SIZE, RDT_DRV_DATA);
	region(d, DRV_DATA, 2 * PAGE_SIZE, RDT_DRV_DATA);
}

/* PML4, PDPT, PD, then page tables for the first, third and ninth 2 MiB. */
#define PT(n)	(DRV_TABLES + (3 + (n)) * PAGE_SIZE)

uint64_t drv_pte(uint64_t gva)
{
	uint64_t pt = gva < GUEST_IMAGE ? PT(0) : gva < DRV_TABLES ? PT(1) : PT(2);

	return pt + (gva / PAGE_SIZE % 512) * 8;
}

static void show(struct vm *vm, uint64_t gva, uint64_t bytes)
{
	for (uint64_t at = gva; at < gva + bytes; at += PAGE_SIZE)
		*(uint64_t *)vm_host(vm, drv_pte(at)) = at | PTE_P | PTE_W;
}

void drv_make(struct vm *vm)
{
	uint64_t *pml4 = vm_host(vm, DRV_TABLES), *pdpt = pml4 + 512, *pd = pdpt + 512;

	pml4[0] = (DRV_TABLES + PAGE_SIZE) | PTE_P | PTE_W;
	pdpt[0] = (DRV_TABLES + 2 * PAGE_SIZE) | PTE_P | PTE_W;
	pd[0] = PT(0) | PTE_P | PTE_W;
	pd[GUEST_IMAGE / HUGE_SIZE] = PT(1) | PTE_P | PTE_W;
	pd[DRV_TABLES / HUGE_SIZE] = PT(2) | PTE_P | PTE_W;
	show(vm, GUEST_IDT, PAGE_SIZE);
	show(vm, (uint64_t)drv_text, drv_text_end - drv_text);
	show(vm, (uint64_t)drv_gate, drv_gate_end - drv_gate);
	show(vm, (uint64_t)drv_exit, drv_exit_end - drv_exit);
	show(vm, DRV_TABLES, DRV_TABLES_PAGES * PAGE_SIZE);
	show(vm, DRV_STACKS, DRV_SLOTS * PAGE_SIZE);
	show(vm, DRV_DATA, 2 * PAGE_SIZE);
	show(vm, DRV_OUTSIDE, 6 * PAGE_SIZE);
	*(uint64_t *)vm_host(vm, DRV_VENDOR) = guest_is_intel;
}

/* ---- in the guest ------------------------------------------------------------------ */

#define TIMER_VECTOR	0x40
#define X2APIC_EOI	0x80b
#define X2APIC_SVR	0x80f
#define X2APIC_LVT	0x832
#define X2APIC_COUNT	0x838
#define X2APIC_DIVIDE	0x83e
#define TF		0x100

static u64 timer_period, timer_seed = 1;

static void rearm(void)
{
	/* A short one now and then; the mean leaves the inside time to go on. */
	timer_seed = timer_seed * 6364136223846793005 + 1442695040888963407;
	if (timer_period)
		guest_wrmsr(X2APIC_COUNT, timer_period / 2 + (timer_seed >> 33) % timer_period);
}

static u64 on_event(struct trap_frame *f)
{
	struct guest_cpu *cpu = this_cpu();
	struct drv_seen *s = &drv_seen[cpu->id];
	bool timer = f->vector == TIMER_VECTOR;

	if (f->rip != (u64)drv_resume) {
		/* Outside, where only the timer may strike. */
		if (timer) {
			guest_wrmsr(X2APIC_EOI, 0);
			rearm();
		}
		return timer;
	}
	u64 xmm;

	asm volatile("movq %%xmm3, %0" : "=r"(xmm));
	s->xmm |= xmm;
	s->count++;
	s->vector = f->vector;
	s->error = f->error;
	s->cs = f->cs;
	s->ss = f->ss;
	s->fs_base = guest_rdmsr(0xc0000100);
	s->cr2 = cpu->cr2;
	s->token = f->rdi;
	s->wrong_rip += f->rip != (u64)drv_resume;
	s->leaked |= f->rax | f->rbx | f->rcx | f->rdx | f->rsi | f->rbp | f->r8 | f->r9 |
		     f->r10 | f->r11 | f->r12 | f->r13 | f->r14 | f->r15;
	/* Fixed, IF; and RF, which the CPU sets when it delivers a fault. */
	s->wrong_flags |= f->rflags & ~0x10202ul;

	if (timer) {
		guest_wrmsr(X2APIC_EOI, 0);
		rearm();
	}
	if (f->vector == 0 || f->vector == 6 || f->vector == 13)
		f->rip = (u64)drv_drop;
	if (f->vector == 14) {
		/* Its page tables are its own: it has to map the page itself. */
		struct drv_after keep = drv_after[cpu->id];

		drv_call(IN_STORE, drv_pte(DRV_UNMAPPED), DRV_UNMAPPED | PTE_P | PTE_W, 0, 0);
		drv_after[cpu->id] = keep;
	}
	if (s->park) {
		/* To the host, with the frame; the thread may go on anywhere. */
		guest_sync((u64)f);
	}
	return 1;
}

u64 g_watch_events(void)
{
	this_cpu()->on_trap = on_event;
	return 0;
}

u64 g_drv_call(u64 op, u64 a, u64 b, u64 door)
{
	return drv_call(op, a, b, 0, door);
}

u64 g_timer_on(u64 period)
{
	timer_period = period;
	guest_wrmsr(0x1b, guest_rdmsr(0x1b) | 0xc00);
	guest_wrmsr(X2APIC_SVR, 0x1ff);
	guest_wrmsr(X2APIC_DIVIDE, 0xb);
	guest_wrmsr(X2APIC_LVT, TIMER_VECTOR);
	rearm();
	return 0;
}

u64 g_timer_off(void)
{
	timer_period = 0;
	guest_wrmsr(X2APIC_LVT, 0x10000 | TIMER_VECTOR);
	guest_wrmsr(X2APIC_COUNT, 0);
	asm volatile("sti; nop; nop; cli");
	return 0;
}
