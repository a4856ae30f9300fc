/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The doors of integrity mode: what runs just before and just after a crossing.
 *
 *   rdt_enter_fault   ordinary text: jumps to the gate page, whose fetch faults
 *   rdt_gate          the gate page: first instruction inside (fault door)
 *   rdt_enter_hc      asks by hypercall; goes on inside (hypercall door)
 *   rdt_enter         the inside's first instruction, common to both
 *   rdt_exit          the exit page: a jump here leaves, it never executes
 *   rdt_back          where the caller goes on: RIP = the R11 it came with
 *   rdt_resume        where a thread stands whose inside part was interrupted
 *
 * To the unwinder each of those in normal mode is a function that has just been
 * called: RSP points to the return address into redoubt_call() from before the
 * crossing until after it, so an interrupt at any of them finds a sane stack.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include "inside.h"

#define HYPERCALL	ALTERNATIVE "vmcall", "vmmcall", X86_FEATURE_VMMCALL

	.text
/* RDI, RSI, RDX, RCX: operation and arguments. Changes every register but RSP. */
SYM_FUNC_START(rdt_enter_fault)
	leaq	rdt_back(%rip), %r11
	jmp	rdt_gate
SYM_FUNC_END(rdt_enter_fault)

SYM_FUNC_START(rdt_back)
	RET
SYM_FUNC_END(rdt_back)

	.section .text..redoubt.gate, "ax", @progbits
	.balign	4096
SYM_FUNC_START_NOALIGN(rdt_gate)
	/* Did the jump here enter? Not if the host has stopped watching this VM. */
	movq	%rsp, %rax
	shrq	$RDT_STACK_SHIFT, %rax
	cmpl	$RDT_STACK_TAG, %eax
	je	rdt_enter
	movq	$-19, %rax		/* -ENODEV */
	RET
SYM_FUNC_END(rdt_gate)
	.org	4096, 0xcc
SYM_INNER_LABEL(rdt_gate_end, SYM_L_GLOBAL)

	.section .text..redoubt.call, "ax", @progbits
	.balign	4096
SYM_INNER_LABEL(rdt_call_start, SYM_L_GLOBAL)
SYM_FUNC_START_NOALIGN(rdt_enter_hc)
	leaq	rdt_back(%rip), %r11
	movl	$RDT_ASM_HC_ENTER, %eax
	HYPERCALL
SYM_INNER_LABEL(rdt_call_behind, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	/*
	 * Inside, RAX is what the caller put there; a refusal comes back here too,
	 * in normal mode and with an error. RSP tells them apart from nothing, so
	 * RAX must: the call number is not an error.
	 */
	testq	%rax, %rax
	js	rdt_back
	jmp	rdt_enter
SYM_FUNC_END(rdt_enter_hc)

	/*
	 * Room for the length of a software interrupt inside, which the CPU
	 * adds to RIP on delivery: the stub is entered from up to 15 bytes below.
	 */
	.fill	16, 1, 0x90
/* RDI = token. All other registers were scrubbed by the host. */
SYM_FUNC_START_NOALIGN(rdt_resume)
	movl	$RDT_ASM_HC_RESUME, %eax
	movq	%rdi, %rbx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	HYPERCALL
	/* Reached with an error only: what was inside is lost (a restored snapshot). */
	RET
	/*
	 * An exception raised by the inside itself reaches the kernel's handler with
	 * RIP = the stub, and would be an oops: it becomes -EFAULT. The slot goes
	 * back to the host.
	 */
.Lresume_fault:
	movl	$RDT_ASM_HC_RESUME, %eax
	movq	%rdi, %rbx
	movl	$RDT_ASM_RESUME_DROP, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	HYPERCALL
	movq	$-14, %rax
	RET
SYM_FUNC_END(rdt_resume)
	_ASM_EXTABLE(rdt_resume, .Lresume_fault)
	.org	4096, 0xcc
SYM_INNER_LABEL(rdt_call_end, SYM_L_GLOBAL)

/*
 * The rest is in force under the inside's page tables only and not executable
 * under the kernel's.
 */
	.section .redoubt.text, "a", @progbits
	.balign	4096
SYM_INNER_LABEL(rdt_text_start, SYM_L_GLOBAL)
SYM_INNER_LABEL(rdt_enter, SYM_L_GLOBAL)
	cld
	call	rdt_inside_main
	cmpl	$0, rdt_inside_data + RDT_INSIDE_LEAVE_HC(%rip)
	je	rdt_exit
	movq	%rax, %rbx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	movl	$RDT_ASM_HC_LEAVE, %eax
	cmpl	$0, rdt_inside_data + RDT_INSIDE_VMMCALL(%rip)
	jne	1f
	vmcall
	ud2
1:	vmmcall
	ud2
