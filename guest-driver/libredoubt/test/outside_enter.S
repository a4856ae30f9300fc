/* SPDX-License-Identifier: GPL-2.0 */
/* outside_enter(room, in_len, part, op, gate, stack): registers as the host sets them. */
	.text
	.globl	outside_enter
outside_enter:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	caller@gottpoff(%rip), %rax
	movq	%rsp, %fs:(%rax)
	movq	%r9, %rsp
	pushq	%r8
	xorl	%eax, %eax
	xorl	%ebx, %ebx
	xorl	%ebp, %ebp
	xorl	%r8d, %r8d
	xorl	%r9d, %r9d
	xorl	%r10d, %r10d
	xorl	%r11d, %r11d
	xorl	%r12d, %r12d
	xorl	%r13d, %r13d
	xorl	%r14d, %r14d
	xorl	%r15d, %r15d
	ret

	/* The exit page jumps here. */
	.globl	outside_back
outside_back:
	movq	caller@gottpoff(%rip), %r11
	movq	%fs:(%r11), %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

	.section .tbss, "awT", @nobits
	.balign	8
caller:	.skip	8
	.section .note.GNU-stack,"",@progbits
