/* SPDX-License-Identifier: GPL-2.0 */
/* The guest's way in and its exceptions. */
#include "layout.h"

	.text

/* vcpu_call(): function in RAX, its arguments in place; RDI is what the host reads. */
	.globl guest_call_entry
guest_call_entry:
	call	*%rax
	movq	%rax, %rdi
	movb	$STOP_DONE, %al
	movl	$PORT_STOP, %edx
	outb	%al, %dx
1:	hlt
	jmp	1b

	.globl guest_vectors
	.balign 16
guest_vectors:
	.set	vec, 0
	.rept	256
	.balign	16
	.ifeq	vec == 8 || (vec >= 10 && vec <= 14) || vec == 17 || vec == 21 || vec == 29 || vec == 30
	pushq	$0	/* the others have an error code */
	.endif
	pushq	$vec
	jmp	trap
	.set	vec, vec + 1
	.endr

trap:
	pushq	%rax
	pushq	%rbx
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%rbp
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	cld
	movq	%rsp, %rdi
	movq	%rsp, %rbp
	andq	$-16, %rsp
	call	guest_trap
	movq	%rbp, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rbp
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rbx
	popq	%rax
	addq	$16, %rsp
	iretq

/* u64 guest_user_call(u64 (*fn)(u64), u64 arg), interrupts on; int 0x81 brings it back. */
	.globl guest_user_call
guest_user_call:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, %gs:CPU_USER_RSP
	movq	%rdi, %rax
	movq	%rsi, %rdi
	leaq	-2048(%rsp), %rdx
	andq	$-16, %rdx
	pushq	$SEL_DATA3
	pushq	%rdx
	pushq	$0x202
	pushq	$SEL_CODE3
	leaq	1f(%rip), %rdx
	pushq	%rdx
	iretq
1:	call	*%rax
	int	$0x81

	.globl guest_user_return
guest_user_return:
	movq	%gs:CPU_USER_RSP, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

	.section .note.GNU-stack,"",@progbits
