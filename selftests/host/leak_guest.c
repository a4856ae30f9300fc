// SPDX-License-Identifier: GPL-2.0
/* The leak hunt's part in the guest: handlers that write down all they see. */
#include "driver.h"
#include "leak.h"

#define X2APIC_EOI	0x80b
#define X2APIC_SVR	0x80f
#define X2APIC_ICR	0x830
#define X2APIC_LVT	0x832
#define X2APIC_COUNT	0x838
#define X2APIC_DIVIDE	0x83e
/* Fixed, IF; and RF, which the CPU sets when it delivers a fault. */
#define STUB_FLAGS	0x10202ul

struct leak_guest leak_guest;

static u64 seed = 1;

static u64 random(u64 below)
{
	seed = seed * 6364136223846793005 + 1442695040888963407;
	return (seed >> 33) % below;
}

/* Where handlers take all the time nothing else would ever run. */
static u64 patient(u64 period)
{
	u64 shift = *(volatile u64 *)&leak_guest.streak / 8;

	return period << (shift < 12 ? shift : 12);
}

static void rearm(void)
{
	u64 period = patient(leak_guest.period);

	if (period)
		guest_wrmsr(X2APIC_COUNT, period / 2 + random(period));
}

static void write_down(struct trap_frame *f, u64 nr)
{
	static const u32 msr[] = {
		0xc0000100, 0xc0000101, 0xc0000102,		/* FS, GS, kernel GS */
		0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,	/* STAR, LSTAR, CSTAR, FMASK */
		0x174, 0x175, 0x176,				/* SYSENTER */
	};
	struct leak_log *log = (struct leak_log *)LEAK_LOG + nr % LEAK_LOGS;

	/* First what a handler of ours could spoil. */
	if (leak_guest.xsave)
		asm volatile("xsave64 %0" : "+m"(log->vectors) : "a"(~0u), "d"(~0u));
	else
		asm volatile("fxsave64 %0" : "+m"(log->vectors));
	log->f = *f;
	log->cr2 = this_cpu()->cr2;
	log->cr3 = guest_cr3();
	asm volatile("movq %%dr0, %0" : "=r"(log->dr[0]));
	asm volatile("movq %%dr1, %0" : "=r"(log->dr[1]));
	asm volatile("movq %%dr2, %0" : "=r"(log->dr[2]));
	asm volatile("movq %%dr3, %0" : "=r"(log->dr[3]));
	asm volatile("movq %%dr6, %0" : "=r"(log->dr[4]));
	asm volatile("movq %%dr7, %0" : "=r"(log->dr[5]));
	for (unsigned int i = 0; i < sizeof(msr) / sizeof(msr[0]); i++)
		log->msr[i] = guest_rdmsr(msr[i]);
}

static u64 on_event(struct trap_frame *f)
{
	struct leak_guest *g = &leak_guest;
	bool inside = f->rip == (u64)drv_resume;
	u64 nr;

	if (inside) {
		nr = __atomic_fetch_add(&g->events, 1, __ATOMIC_RELAXED);
		g->streak++;
		__atomic_fetch_add(&g->by_vector[f->vector], 1, __ATOMIC_RELAXED);
		if (f->rflags & ~STUB_FLAGS)
			g->stray++;
	} else {
		nr = __atomic_fetch_add(&g->outside, 1, __ATOMIC_RELAXED);
	}
	/* The linear addresses of a domain are nobody's outside. */
	if (f->rip >> 40)
		g->stray++;
	write_down(f, nr);
	switch (f->vector) {
	case LEAK_TIMER:
	case LEAK_MSI:
	case LEAK_IPI:
		guest_wrmsr(X2APIC_EOI, 0);
		if (f->vector == LEAK_TIMER)
			rearm();
		break;
	case 0:
	case 6:
	case 14:
		if (!inside)
			return 0;
		f->rip = (u64)drv_drop;
		break;
	case 3:
	case 0x90:
		/* One that comes again and again would do so for ever. */
		if (inside && ++g->soft > 2)
			f->rip = (u64)drv_drop;
		break;
	case 1:
	case 2:
		break;
	default:
		return 0;
	}
	if (inside && g->stop_every && nr % g->stop_every == g->stop_every - 1)
		guest_sync(f->vector);
	return 1;
}

u64 g_leak_setup(u64 timer_period)
{
	this_cpu()->on_trap = on_event;
	guest_wrmsr(0x1b, guest_rdmsr(0x1b) | 0xc00);
	guest_wrmsr(X2APIC_SVR, 0x1ff);
	return g_leak_timer(timer_period);
}

u64 g_leak_timer(u64 period)
{
	leak_guest.period = period;
	guest_wrmsr(X2APIC_DIVIDE, 0xb);
	guest_wrmsr(X2APIC_LVT, (period ? 0 : 0x10000) | LEAK_TIMER);
	guest_wrmsr(X2APIC_COUNT, 0);
	rearm();
	if (!period)
		asm volatile("sti; nop; nop; cli");
	return 0;
}

u64 g_leak_call(u64 op, u64 a, u64 b, u64 gate)
{
	leak_guest.streak = 0;
	return drv_call(op, a, b, 0, gate);
}

/* To another vCPU, until it is told to stop; how many. */
u64 g_leak_ipis(u64 apic_id, u64 vector, u64 pause)
{
	u64 n;

	for (n = 0; !*(volatile u64 *)&leak_guest.quiet; n++) {
		guest_wrmsr(X2APIC_ICR, vector | apic_id << 32);
		for (u64 i = patient(pause / 2 + random(pause)); i; i--)
			asm volatile("pause");
	}
	return n;
}

u64 g_leak_watch(u64 gva, u64 dr7)
{
	asm volatile("movq %0, %%dr0" : : "r"(gva));
	asm volatile("movq %0, %%dr7" : : "r"(dr7));
	return 0;
}
