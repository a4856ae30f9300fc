/* SPDX-License-Identifier: GPL-2.0 */
/* The rounds of RDT_OP_SELFTEST; part of the inside. See selftest.h. */
#include <linux/linkage.h>
#include "selftest.h"

.macro mix reg:req next:req
	adcq	\next, \reg
	bswapq	\reg
.endm

/* paddq of the next vector register, by number */
.macro add_next i:req next:req
	paddq	%xmm\next, %xmm\i
.endm

.macro round
	mix	%rax, %rbx
	mix	%rbx, %rdx
	mix	%rdx, %rsi
	mix	%rsi, %rdi
	mix	%rdi, %rbp
	mix	%rbp, %r8
	mix	%r8, %r9
	mix	%r9, %r10
	mix	%r10, %r11
	mix	%r11, %r12
	mix	%r12, %r13
	mix	%r13, %r14
	mix	%r14, %r15
	mix	%r15, %rax
.endm

	.section .redoubt.text, "a", @progbits
/* (struct rdt_selftest *st, u64 rounds, u64 use_sse); rounds is not 0 */
SYM_INNER_LABEL(rdt_selftest_rounds, SYM_L_GLOBAL)
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushq	%rdi
	movq	%rsi, %rcx
	pushq	%rdx

	testq	%rdx, %rdx
	jz	1f
	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	movdqu	(RDT_SELFTEST_X + 16 * \i)(%rdi), %xmm\i
	.endr
1:
	movq	0(%rdi), %rax
	movq	8(%rdi), %rbx
	movq	16(%rdi), %rdx
	movq	24(%rdi), %rsi
	movq	40(%rdi), %rbp
	movq	48(%rdi), %r8
	movq	56(%rdi), %r9
	movq	64(%rdi), %r10
	movq	72(%rdi), %r11
	movq	80(%rdi), %r12
	movq	88(%rdi), %r13
	movq	96(%rdi), %r14
	movq	104(%rdi), %r15
	movq	32(%rdi), %rdi
	/* From here the carry lives from round to round: dec, bswap, jcc leave it. */
	cmpb	$0, (%rsp)
	clc
	jz	3f
2:
	round
	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14
	.set next, \i + 1
	.altmacro
	add_next \i, %next
	.noaltmacro
	.endr
	paddq	%xmm0, %xmm15
	decq	%rcx
	jnz	2b
	jmp	4f
3:	round
	decq	%rcx
	jnz	3b
4:
	/* Flags and RAX out of the way of the two pointers on the stack. */
	xchgq	8(%rsp), %rdi
	movq	%rax, 0(%rdi)
	setc	%al
	movzbl	%al, %eax
	movq	%rax, RDT_SELFTEST_CARRY(%rdi)
	movq	%rbx, 8(%rdi)
	movq	%rdx, 16(%rdi)
	movq	%rsi, 24(%rdi)
	movq	%rbp, 40(%rdi)
	movq	%r8, 48(%rdi)
	movq	%r9, 56(%rdi)
	movq	%r10, 64(%rdi)
	movq	%r11, 72(%rdi)
	movq	%r12, 80(%rdi)
	movq	%r13, 88(%rdi)
	movq	%r14, 96(%rdi)
	movq	%r15, 104(%rdi)
	popq	%rdx
	popq	32(%rdi)
	testq	%rdx, %rdx
	jz	5f
	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	movdqu	%xmm\i, (RDT_SELFTEST_X + 16 * \i)(%rdi)
	.endr
5:
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret
