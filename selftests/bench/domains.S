/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The benchmark's domain. It runs at the addresses where the linker has put it, from copies
 * in other frames: so inside and outside can run the same code.
 */
#include "domains.h"

#define HC_LEAVE	0x52440009
#define HC_RESUME	0x5244000a

	/* All of xmm1-15 or ymm1-15 like the first. */
	.macro	spread insn, reg
	.irp	n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	\insn	%\reg\()0, %\reg\()\n
	.endr
	.endm

	/* A pattern for all vector registers, as ESI says; RAX is lost. */
	.macro	vectors pattern
	cmpl	$B_SSE, %esi
	jb	12f
	movabsq	$\pattern, %rax
	movq	%rax, %xmm0
	punpcklqdq %xmm0, %xmm0
	cmpl	$B_AVX, %esi
	jb	11f
	vinsertf128 $1, %xmm0, %ymm0, %ymm0
	spread	vmovaps, ymm
	jmp	12f
11:	spread	movaps, xmm
12:
	.endm

	/* The last one has it still, as EBX says; else to 13f. RCX, RDX and the first are lost. */
	.macro	check pattern
	cmpl	$B_SSE, %ebx
	jb	12f
	movabsq	$\pattern, %rcx
	movq	%xmm15, %rdx
	cmpq	%rcx, %rdx
	jne	13f
	cmpl	$B_AVX, %ebx
	jb	12f
	vextractf128 $1, %ymm15, %xmm0
	movq	%xmm0, %rdx
	cmpq	%rcx, %rdx
	jne	13f
12:
	.endm

/* ---- inside ------------------------------------------------------------------- */

	.section bench_doors, "ax", @progbits
	.balign	4096
	.globl	bench_gate, bench_exit
bench_gate:
	jmp	*%rdi
	.balign	4096, 0xcc
bench_exit:
	.fill	4096, 1, 0xcc

	.section bench_text, "ax", @progbits
	.balign	4096
	.globl	bench_leave, bench_leave_hc
bench_leave:
	movl	$HC_LEAVE, %eax
	movl	$0x1234, %ebx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
bench_leave_hc:		/* the host puts the vendor's there */
	vmmcall

/* An exception that comes once: the handler makes the divisor 1. What it cost, or -1. */
	.globl	bench_event
bench_event:
	movl	%esi, %ebx
	vectors	B_SECRET
	lfence
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	movq	%rax, %r8
	xorl	%edx, %edx
	movl	$100, %eax
	divl	B_SHARED
	lfence
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	subq	%r8, %rax
	check	B_SECRET
	jmp	bench_exit
13:	movq	$-1, %rax
	jmp	bench_exit

	.globl	bench_sign_inside
bench_sign_inside:
	movq	%rsi, %rdi
	call	bench_sign
	jmp	bench_exit

	.section bench_data, "aw", @progbits
	.balign	4096
	.globl	bench_stack_top
	.fill	16384, 1, 0
bench_stack_top:

/* ---- outside ------------------------------------------------------------------- */

	.text
	.globl	bench_call, bench_divide, bench_resume, bench_resume_hc
/* u64 bench_call(op, vectors, gate) */
bench_call:
	pushq	%rbx
	movl	%esi, %ebx
	vectors	B_PATTERN
	leaq	1f(%rip), %r11
	jmp	*%rdx
1:	check	B_PATTERN
	popq	%rbx
	ret
13:	movq	$-1, %rax
	popq	%rbx
	ret

/* The handler of bench_event's exception. */
bench_divide:
	movl	$1, B_SHARED
	iretq

	.fill	16, 1, 0x90
bench_resume:
	movl	$HC_RESUME, %eax
	movq	%rdi, %rbx
bench_resume_hc:
	vmmcall
	ud2

	.section .note.GNU-stack,"",@progbits
