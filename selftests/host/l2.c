// SPDX-License-Identifier: GPL-2.0
/* L1's side of nested virtualization, on both vendors. */
#include "l2.h"

#include <string.h>
#include <sys/ioctl.h>

struct l2_conf l2_conf;
struct l2_exit l2_exit;

extern const char l2_entry[];

/* L2 gets these, and at its exit they are what it left. The rest it shares with L1. */
struct l2_regs {
	u64 rbx, rdi, rsi;
};
s64 l2_svm_run(u64 vmcb, struct l2_regs *regs);
u64 l2_vmx_run(bool resume, struct l2_regs *regs);

asm(
"	.text\n"
"l2_entry:\n"
"	movq	$0, %gs:8\n"		/* guest_cpu::recover is L1's */
"	call	*%rbx\n"
"	movq	%rax, %rdi\n"
"1:	hlt\n"
"	jmp	1b\n"

"l2_svm_run:\n"
"	pushq	%rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
"	pushq	%rsi\n"
"	movq	%rdi, %rax\n"
"	leaq	1f(%rip), %r11\n"
"	movq	%r11, %gs:8\n"
"	movq	$-1, %gs:32\n"		/* guest_cpu::vector */
"	movq	(%rsi), %rbx\n"
"	movq	8(%rsi), %rdi\n"
"	movq	16(%rsi), %rsi\n"
"	vmrun\n"
"	stgi\n"
"	movq	$0, %gs:8\n"
"	xorl	%eax, %eax\n"
"	jmp	2f\n"
"1:	movq	%gs:32, %rax\n"
"2:	popq	%rcx\n"
"	movq	%rbx, (%rcx)\n"
"	movq	%rdi, 8(%rcx)\n"
"	movq	%rsi, 16(%rcx)\n"
"	popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx\n"
"	ret\n"

"l2_vmx_run:\n"
"	pushq	%rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
"	pushq	%rsi\n"
"	movl	$0x6c14, %eax\n"	/* HOST_RSP */
"	vmwrite	%rsp, %rax\n"
"	movl	$0x6c16, %eax\n"	/* HOST_RIP */
"	leaq	1f(%rip), %rdx\n"
"	vmwrite	%rdx, %rax\n"
"	movl	%edi, %eax\n"
"	movq	(%rsi), %rbx\n"
"	movq	8(%rsi), %rdi\n"
"	movq	16(%rsi), %rsi\n"
"	testl	%eax, %eax\n"
"	jnz	3f\n"
"	vmlaunch\n"
"	jmp	4f\n"
"3:	vmresume\n"
"4:	movl	$1, %eax\n"
"	jmp	2f\n"
"1:	xorl	%eax, %eax\n"
"2:	popq	%rcx\n"
"	movq	%rbx, (%rcx)\n"
"	movq	%rdi, 8(%rcx)\n"
"	movq	%rsi, 16(%rcx)\n"
"	popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx\n"
"	ret\n");

_Static_assert(offsetof(struct guest_cpu, vector) == 32, "l2_svm_run");

static struct l2_regs regs;

#define SAVE_CR(n)	({ u64 _v; asm volatile("movq %%cr" #n ", %0" : "=r"(_v)); _v; })

/* ---- SVM ------------------------------------------------------------------------------ */

#define MSR_EFER	0xc0000080
#define MSR_HSAVE	0xc0010117
#define EFER_SVME	(1 << 12)

/* Offsets in a VMCB, as AMD's manual has them. */
#define V32(off)	(*(volatile u32 *)(l2_conf.vmcb + (off)))
#define V64(off)	(*(volatile u64 *)(l2_conf.vmcb + (off)))
#define VC_WORD3	0x00c	/* intercepts */
#define VC_WORD4	0x010
#define VC_ASID		0x058
#define VC_EXIT		0x070
#define VC_INFO1	0x078
#define VC_INFO2	0x080
#define VC_NESTED	0x090
#define VC_NCR3		0x0b0
#define VS_ES		0x400
#define VS_CS		0x410
#define VS_SS		0x420
#define VS_DS		0x430
#define VS_GDTR		0x460
#define VS_IDTR		0x480
#define VS_EFER		0x4d0
#define VS_CR4		0x548
#define VS_CR3		0x550
#define VS_CR0		0x558
#define VS_DR7		0x560
#define VS_DR6		0x568
#define VS_RFLAGS	0x570
#define VS_RIP		0x578
#define VS_RSP		0x5d8
#define VS_PAT		0x668

static void svm_segment(u32 at, u64 selector, u64 attrib, u64 limit, u64 base)
{
	V64(at) = selector | attrib << 16 | limit << 32;
	V64(at + 8) = base;
}

static void svm_make(void)
{
	guest_zero((void *)l2_conf.vmcb, PAGE_SIZE);
	V32(VC_WORD3) = 1u << 24 | 1u << 31;	/* HLT, SHUTDOWN */
	V32(VC_WORD4) = 1 | l2_conf.calls << 1;	/* VMRUN: must be */
	V32(VC_ASID) = 1;
	if (l2_conf.npt) {
		V64(VC_NESTED) = 1;
		V64(VC_NCR3) = l2_conf.npt;
	}
	svm_segment(VS_CS, SEL_CODE0, 0x29b, ~0u, 0);
	svm_segment(VS_SS, SEL_DATA0, 0xc93, ~0u, 0);
	svm_segment(VS_DS, SEL_DATA0, 0xc93, ~0u, 0);
	svm_segment(VS_ES, SEL_DATA0, 0xc93, ~0u, 0);
	svm_segment(VS_GDTR, 0, 0, PAGE_SIZE - 1, GUEST_GDT);
	svm_segment(VS_IDTR, 0, 0, PAGE_SIZE - 1, GUEST_IDT);
	V64(VS_EFER) = guest_rdmsr(MSR_EFER);
	V64(VS_CR0) = SAVE_CR(0);
	V64(VS_CR3) = l2_conf.cr3;
	V64(VS_CR4) = SAVE_CR(4);
	V64(VS_DR6) = 0xffff0ff0;
	V64(VS_DR7) = 0x400;
	V64(VS_RFLAGS) = 2;
	V64(VS_RIP) = (u64)l2_entry;
	V64(VS_RSP) = L2_STACK;
	V64(VS_PAT) = 0x0007040600070406;
}

static void svm_enter(void)
{
	l2_exit.entered = l2_svm_run(l2_conf.vmcb, &regs);
	if (l2_exit.entered)
		return;
	l2_exit.code = V64(VC_EXIT);
	l2_exit.info1 = V64(VC_INFO1);
	l2_exit.info2 = V64(VC_INFO2);
	l2_exit.rip = V64(VS_RIP);
}

u64 g_vmload(u64 gpa)
{
	return guest_try("vmload", "a"(gpa));
}

u64 g_vmsave(u64 gpa)
{
	return guest_try("vmsave", "a"(gpa));
}

/* ---- VMX ------------------------------------------------------------------------------ */

#define MSR_FEATURE_CONTROL	0x3a
#define MSR_VMX_BASIC		0x480
#define MSR_VMX_PIN		0x481
#define MSR_VMX_EXIT		0x483
#define MSR_VMX_ENTRY		0x484
#define CR4_VMXE		0x2000

#define PROC_HLT		(1u << 7)
#define PROC2_EPT		(1u << 1)

static bool launched;

#define VMX_OP(insn, ...)							\
	({									\
		u8 _cf, _zf;							\
		asm volatile(insn "\n\tsetc %0\n\tsetz %1"			\
			     : "=q"(_cf), "=q"(_zf) : __VA_ARGS__ : "memory", "cc"); \
		(u64)(_cf ? 1 : _zf ? 2 : 0);					\
	})

u64 g_vmptrld(u64 gpa)
{
	return VMX_OP("vmptrld %2", "m"(gpa));
}

u64 g_vmclear(u64 gpa)
{
	return VMX_OP("vmclear %2", "m"(gpa));
}

static void vmwrite(u64 field, u64 value)
{
	asm volatile("vmwrite %0, %1" : : "r"(value), "r"(field) : "cc");
}

static u64 vmread(u64 field)
{
	u64 value = 0;

	asm volatile("vmread %1, %0" : "+r"(value) : "r"(field) : "cc");
	return value;
}

u64 g_vmread_to(u64 gva)
{
	return guest_try("vmread %0, (%1)", "r"(0x681eul), "r"(gva));
}

u64 g_l2_has(u64 msr, u64 control)
{
	return guest_rdmsr(msr) >> 32 & control;
}

/* What must be one, and of @want what may be. */
static u64 controls(u32 msr, u32 want)
{
	u64 cap = guest_rdmsr(msr);

	return (want | (u32)cap) & cap >> 32;
}

static void vmx_segment(u32 n, u64 selector, u64 rights, u64 limit, u64 base)
{
	vmwrite(0x800 + 2 * n, selector);
	vmwrite(0x4800 + 2 * n, limit);
	vmwrite(0x4814 + 2 * n, rights);
	vmwrite(0x6806 + 2 * n, base);
}

static void vmx_make(void)
{
	u64 gs = (u64)this_cpu(), tss = GUEST_TSS + this_cpu()->id * 128;
	u64 tr = SEL_TSS + 16 * this_cpu()->id;
	u32 proc2 = (l2_conf.npt ? PROC2_EPT : 0) | (l2_conf.apic_access ? PROC2_APIC_ACCESS : 0) |
		    (l2_conf.link ? PROC2_SHADOW_VMCS : 0);

	g_vmclear(l2_conf.vmcb);
	*(volatile u32 *)l2_conf.vmcb = guest_rdmsr(MSR_VMX_BASIC);
	g_vmptrld(l2_conf.vmcb);
	launched = false;

	vmwrite(0x4000, controls(MSR_VMX_PIN, 0));
	vmwrite(0x4002, controls(MSR_VMX_PROC, PROC_HLT | PROC_SECONDARY |
				 (l2_conf.vapic ? PROC_TPR_SHADOW : 0) |
				 (l2_conf.msr_bitmap ? PROC_MSR_BITMAP : 0)));
	vmwrite(0x401e, controls(MSR_VMX_PROC2, proc2));
	vmwrite(0x400c, controls(MSR_VMX_EXIT, 1 << 9));	/* L1 is 64-bit */
	vmwrite(0x4012, controls(MSR_VMX_ENTRY, 1 << 9));	/* so is L2 */
	vmwrite(0x4004, 0);		/* exceptions are L2's */
	vmwrite(0x400e, l2_conf.msr_store ? 1 : 0);
	vmwrite(0x2006, l2_conf.msr_store);
	vmwrite(0x4010, 0);		/* nor are MSRs loaded */
	vmwrite(0x4014, 0);
	vmwrite(0x4016, 0);
	vmwrite(0x201a, l2_conf.npt);
	vmwrite(0x2012, l2_conf.vapic);
	vmwrite(0x401c, 0);		/* TPR threshold */
	vmwrite(0x2014, l2_conf.apic_access);
	vmwrite(0x2004, l2_conf.msr_bitmap);
	vmwrite(0x2026, 0);		/* VMREAD bitmap: any page will do */
	vmwrite(0x2028, 0);
	vmwrite(0x2800, l2_conf.link ? l2_conf.link : ~0ull);
	vmwrite(0x6000, 0);		/* CR0, CR4: no bit is L1's */
	vmwrite(0x6002, 0);

	for (int n = 0; n < 6; n++)
		vmx_segment(n, n == 1 ? SEL_CODE0 : SEL_DATA0, n == 1 ? 0xa09b : 0xc093, ~0u,
			    n == 5 ? gs : 0);
	vmx_segment(6, 0, 0x10000, 0, 0);
	vmx_segment(7, tr, 0x8b, 103, tss);
	vmwrite(0x4810, PAGE_SIZE - 1);
	vmwrite(0x4812, PAGE_SIZE - 1);
	vmwrite(0x6816, GUEST_GDT);
	vmwrite(0x6818, GUEST_IDT);
	vmwrite(0x4824, 0);
	vmwrite(0x4826, 0);
	vmwrite(0x6822, 0);
	vmwrite(0x6800, SAVE_CR(0));
	vmwrite(0x6802, l2_conf.cr3);
	vmwrite(0x6804, SAVE_CR(4));
	vmwrite(0x681a, 0x400);
	vmwrite(0x681c, L2_STACK);
	vmwrite(0x681e, (u64)l2_entry);
	vmwrite(0x6820, 2);

	for (int n = 0; n < 6; n++)
		vmwrite(0xc00 + 2 * n, n == 1 ? SEL_CODE0 : SEL_DATA0);
	vmwrite(0xc0c, tr);
	vmwrite(0x6c00, SAVE_CR(0));
	vmwrite(0x6c02, guest_cr3());
	vmwrite(0x6c04, SAVE_CR(4));
	vmwrite(0x6c06, 0);
	vmwrite(0x6c08, gs);
	vmwrite(0x6c0a, tss);
	vmwrite(0x6c0c, GUEST_GDT);
	vmwrite(0x6c0e, GUEST_IDT);
}

static void vmx_enter(void)
{
	if (l2_vmx_run(launched, &regs)) {
		l2_exit.entered = vmread(0x4400);
		if (!l2_exit.entered)
			l2_exit.entered = -1;
		return;
	}
	l2_exit.entered = 0;
	launched = true;
	l2_exit.code = vmread(0x4402);
	l2_exit.info1 = vmread(0x6400);
	l2_exit.info2 = vmread(0x2400);
	l2_exit.rip = vmread(0x681e);
}

/* ---- both ------------------------------------------------------------------------------ */

u64 g_l2_on(void)
{
	u64 cr4, at = L2_VMXON;

	if (!guest_is_intel) {
		guest_wrmsr(MSR_EFER, guest_rdmsr(MSR_EFER) | EFER_SVME);
		guest_wrmsr(MSR_HSAVE, l2_conf.hsave);
		return 0;
	}
	if (!(guest_rdmsr(MSR_FEATURE_CONTROL) & 1))
		guest_wrmsr(MSR_FEATURE_CONTROL, 5);
	cr4 = SAVE_CR(4) | CR4_VMXE;
	asm volatile("movq %0, %%cr4" : : "r"(cr4));
	*(volatile u32 *)at = guest_rdmsr(MSR_VMX_BASIC);
	return VMX_OP("vmxon %2", "m"(at));
}

u64 g_l2_make(u64 fn, u64 a, u64 b)
{
	regs = (struct l2_regs){ fn, a, b };
	if (guest_is_intel)
		vmx_make();
	else
		svm_make();
	return 0;
}

u64 g_l2_enter(void)
{
	l2_exit = (struct l2_exit){ .entered = -2 };
	if (guest_is_intel)
		vmx_enter();
	else
		svm_enter();
	l2_exit.result = regs.rdi;
	return l2_exit.result;
}

u64 g_l2(u64 fn, u64 a, u64 b)
{
	g_l2_make(fn, a, b);
	return g_l2_enter();
}

/* ---- at the host ------------------------------------------------------------------------ */

void l2_npt_make(struct vm *vm, const uint64_t *frame, int n)
{
	uint64_t *pml4 = vm_host(vm, L2_NPT), *pdpt = pml4 + 512, *pd = pml4 + 1024, *pt = pml4 + 1536;
	/* Everything allowed; EPT: write-back. */
	const uint64_t rights = guest_is_intel ? 7 : PTE_P | PTE_W | PTE_U;
	const uint64_t leaf = guest_is_intel ? rights | 6 << 3 : rights;

	memset(pml4, 0, 4 * PAGE_SIZE);
	pml4[0] = (L2_NPT + PAGE_SIZE) | rights;
	pdpt[0] = (L2_NPT + 2 * PAGE_SIZE) | rights;
	for (uint64_t i = 0; i < 512; i++)
		pd[i] = i * HUGE_SIZE | leaf | PTE_PS;
	pd[L2_ALIAS / HUGE_SIZE] = (L2_NPT + 3 * PAGE_SIZE) | rights;
	for (int i = 0; i < n; i++)
		pt[i] = frame[i] | leaf;
}

bool l2_possible(void)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[128];
	} all;

	all.head.nent = 128;
	if (ioctl(kvm_dev(), KVM_GET_SUPPORTED_CPUID, &all))
		return false;
	for (uint32_t i = 0; i < all.head.nent; i++)
		if (all.entry[i].function == (guest_is_intel ? 1 : 0x80000001))
			return all.entry[i].ecx & (guest_is_intel ? 1 << 5 : 1 << 2);
	return false;
}
