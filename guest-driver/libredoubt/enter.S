/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way into a ring 3 domain and back, for the calling process: user.c.
 *
 * long rdt_user_enter(room, in_len, part, op, gate): a jump to the gate page is a call of
 * the domain, R11 its return address; all arguments lie where the domain wants them.
 */
	.text
	.globl	rdt_user_enter
	.hidden	rdt_user_enter
	.type	rdt_user_enter, @function
rdt_user_enter:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	leaq	back(%rip), %r11
	jmp	*%r8
back:
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret
	.size	rdt_user_enter, . - rdt_user_enter

	/*
	 * A thread that was interrupted inside stands here, as far as the kernel is concerned:
	 * with its stack as it was at the jump, the token in RDI and all else zero. 16 NOPs
	 * come first: the event may have been an instruction, which the CPU steps over.
	 * Should the host not take it back, the call is over with that error.
	 */
	.macro	resume name, insn
	.fill	16, 1, 0x90
	.globl	\name
	.hidden	\name
	.type	\name, @function
\name:
	movl	$0x5244000a, %eax	/* RDT_HC_RESUME */
	movq	%rdi, %rbx
	xorl	%ecx, %ecx
	\insn
	jmp	back
	.size	\name, . - \name
	.endm
	resume	rdt_user_resume_intel, vmcall
	resume	rdt_user_resume_amd, vmmcall

	.section .note.GNU-stack,"",@progbits
