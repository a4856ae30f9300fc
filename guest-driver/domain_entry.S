/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Into a protection domain of ring 0 and back.
 *
 *   rdt_domain_enter    asks the host; inside when that is granted
 *   rdt_domain_back     where the caller goes on: RIP = the R11 it came with
 *   rdt_domain_resume   where a thread stands whose part inside was interrupted
 *
 * To the unwinder each is a function that has just been called, as in gate.S. On the way out the
 * host has scrubbed R11; who never was inside, or did not come out by itself, has something
 * else there (RDT_OUT_*, or an address): so a result is never taken for a refusal.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include "domain.h"

#define HYPERCALL	ALTERNATIVE "vmcall", "vmmcall", X86_FEATURE_VMMCALL

	.text
/* RBX: id. RCX, RDX, RSI, RDI: arguments. Changes every register but RSP. */
SYM_FUNC_START(rdt_domain_enter)
	leaq	rdt_domain_back(%rip), %r11
	movl	$RDT_ASM_HC_DOM_ENTER, %eax
	HYPERCALL
	RET
SYM_FUNC_END(rdt_domain_enter)

SYM_FUNC_START(rdt_domain_back)
	RET
SYM_FUNC_END(rdt_domain_back)

	/*
	 * Room for the length of a software interrupt inside: see rdt_resume. Linux's #BP handler, too,
	 * may go back one byte, when it knows of no breakpoint. So they are single, and next to the stub.
	 */
	.balign	16
	.fill	16, 1, 0x90
/*
 * RDI: token. All other registers were scrubbed by the host. Above the return address the caller
 * has left a pointer to its struct rdt_crossing.
 */
SYM_FUNC_START_NOALIGN(rdt_domain_resume)
	pushq	%rdi
	movq	16(%rsp), %rdi
	call	rdt_domain_may_go_on
	popq	%rdi
	testl	%eax, %eax
	jz	.Lgive_up
	movl	$RDT_ASM_HC_RESUME, %eax
	movq	%rdi, %rbx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	HYPERCALL
	/* Reached with an error only: the domain is being destroyed. */
	movl	$RDT_OUT_LOST, %r11d
	sti
	RET
.Lgive_up:
	movl	$RDT_OUT_KILLED, %r11d
	jmp	.Ldrop
	/* An exception of the inside, which is an oops at the stub to the kernel's handler. */
SYM_INNER_LABEL(rdt_domain_fault, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	movl	$RDT_OUT_FAULT, %r11d
.Ldrop:
	movl	$RDT_ASM_HC_RESUME, %eax
	movq	%rdi, %rbx
	movl	$RDT_ASM_RESUME_DROP, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	HYPERCALL
	/* The inside may have had interrupts off; its caller had them on. */
	sti
	RET
SYM_FUNC_END(rdt_domain_resume)
	_ASM_EXTABLE(rdt_domain_resume, rdt_domain_fault)
