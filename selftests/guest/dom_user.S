/* SPDX-License-Identifier: GPL-2.0 */
/* A process's way into a domain of ring 3, and its resume stub. */

#define HC_RESUME	0x5244000a

	.text
/*
 * int64_t dom_user_call(gate, op, at, len, room). In dom_user_crossed, what came back in
 * registers that are no result, or'ed.
 */
	.globl	dom_user_call
dom_user_call:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rdi, %rax
	movq	%rcx, %r9
	movq	%rsi, %rcx
	movq	%r9, %rsi
	movq	%r8, %rdi
	movl	$0x1234, %ebx
	leaq	1f(%rip), %r11
	jmp	*%rax
1:	orq	%rdx, %rcx
	orq	%rsi, %rcx
	orq	%rdi, %rcx
	orq	%r8, %rcx
	orq	%r9, %rcx
	orq	%r10, %rcx
	orq	%r11, %rcx
	xorq	$0x1234, %rbx
	orq	%rbx, %rcx
	orq	%rcx, dom_user_crossed(%rip)
	/* Also from the stub and the handler of a signal: nothing but RSP is of use there. */
	.globl	dom_user_return
dom_user_return:
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

	.fill	16, 1, 0x90
	.globl	dom_user_resume
dom_user_resume:
	/* RSP is what the thread will have when it is back outside: nothing is pushed here. */
	movl	$HC_RESUME, %eax
	movq	%rdi, %rbx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	cmpb	$0, dom_user_intel(%rip)
	je	1f
	vmcall
	jmp	dom_user_return
1:	vmmcall
	jmp	dom_user_return

/* int64_t dom_user_drop(token) */
	.globl	dom_user_drop
dom_user_drop:
	pushq	%rbx
	movl	$HC_RESUME, %eax
	movq	%rdi, %rbx
	movl	$1, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	cmpb	$0, dom_user_intel(%rip)
	je	1f
	vmcall
	jmp	2f
1:	vmmcall
2:	popq	%rbx
	ret

	.bss
	.globl	dom_user_crossed, dom_user_intel
	.balign	8
dom_user_crossed:	.quad	0
dom_user_intel:		.byte	0

	.section .note.GNU-stack,"",@progbits
