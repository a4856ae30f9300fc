/* SPDX-License-Identifier: GPL-2.0 */
#include "layout.h"
#include "leak.h"

/* On the stack */
#define SCRATCH	0
#define ROUNDS	64
#define WHAT	72
#define RETURN	80
#define FRAME	96

	.section .leak_text, "ax", @progbits
	.balign	4096
	.globl	leak_code
leak_code:
	.set	secret, leak_code + LEAK_DATA
	.set	level, leak_code + LEAK_LEVEL
	.set	done, leak_code + LEAK_DONE

	/* GATE */
	.fill	LEAK_GATE_AT, 1, 0xcc
	jmp	inside
	.balign	4096, 0xcc

	/* EXIT. A domain's is never executed: this is for the run outside. */
	.fill	LEAK_EXIT_AT - 4096, 1, 0xcc
out:	jmp	*%r11
	.balign	4096, 0xcc

	/* TEXT */
inside:
	cmpl	$LEAK_OPS, %edi
	jae	bad
	leaq	table(%rip), %r8
	movslq	(%r8, %rdi, 4), %rdi
	addq	%r8, %rdi
	jmp	*%rdi
bad:	movq	$-22, %rax
	jmp	out

	.balign	4
table:	.long	work - table, load - table, store - table, rdmsr - table, rddr - table
	.long	segments - table, stop - table, count - table, hypercall - table
	.long	jump - table

load:	movq	(%rsi), %rax
	jmp	out
jump:	jmp	*%rsi
hypercall:
	testl	%edx, %edx
	movq	(%rsi), %rax
	movq	8(%rsi), %rbx
	movq	16(%rsi), %rcx
	movq	24(%rsi), %rdx
	movq	32(%rsi), %rsi
	jz	1f
	vmcall
	jmp	out
1:	vmmcall
	jmp	out
store:	movq	%rdx, (%rsi)
	xorl	%eax, %eax
	jmp	out
rdmsr:	movl	%esi, %ecx
	rdmsr
	shlq	$32, %rdx
	orq	%rdx, %rax
	jmp	out
rddr:	movq	%dr0, %rax
	.irp	n, 1, 2, 3
	movq	%dr\n, %rdx
	orq	%rdx, %rax
	.endr
	movq	%dr7, %rdx
	shlq	$48, %rdx
	orq	%rdx, %rax
	jmp	out
	.globl	leak_gadget		/* what an attacker would like to get to */
leak_gadget:
segments:
	xorl	%eax, %eax
	.irp	seg, ds, es, fs, gs, ss
	movl	%\seg, %edx
	shlq	$12, %rax
	orq	%rdx, %rax
	.endr
	jmp	out
stop:	movq	%rdx, %r8
	movq	%rsi, %rdi
	movl	$PORT_STOP, %edx
	movb	$STOP_SYNC, %al
	outb	%al, %dx
	leaq	(%rsi, %r8), %rax
	jmp	out
count:	leaq	secret(%rip), %rcx
	addq	%rdx, %rcx
	xorl	%eax, %eax
	sti
1:	incq	(%rcx)
	incq	%rax
	decq	%rsi
	jnz	1b
	cli
	jmp	out

	.macro	pieces insn
	\insn	0, %rbx
	\insn	1, %rcx
	\insn	2, %rdx
	\insn	3, %rsi
	\insn	4, %rdi
	\insn	5, %rbp
	\insn	6, %r8
	\insn	7, %r9
	\insn	0, %r10
	\insn	1, %r11
	\insn	2, %r12
	\insn	3, %r13
	\insn	4, %r14
	\insn	5, %r15
	.endm
	.macro	take n, reg
	movq	secret + 8 * \n(%rip), \reg
	.endm
	.macro	turn n, reg
	rorq	$8, \reg
	.endm
	.macro	check n, reg
	xorq	secret + 8 * \n(%rip), \reg
	orq	\reg, %rax
	.endm

	.macro	each insn, args:vararg
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	\insn	\n
	.endr
	.endm
	.macro	take_xmm n
	movdqu	secret + 16 * (\n % 4)(%rip), %xmm\n
	.endm
	.macro	take_ymm n
	vmovdqu	secret + 32 * (\n % 2)(%rip), %ymm\n
	.endm
	.macro	take_zmm n
	vmovdqu64 secret(%rip), %zmm\n
	.endm
	/* What of the secret 8 bytes at SCRATCH + 8 i should be: piece (first + i) % 8; into RAX. */
	.macro	same i, first
	movq	SCRATCH + 8 * \i(%rsp), %rcx
	xorq	secret + 8 * ((\first + \i) % 8)(%rip), %rcx
	orq	%rcx, %rax
	.endm
	.macro	check_xmm n
	movdqu	%xmm\n, SCRATCH(%rsp)
	same	0, (2 * \n)
	same	1, (2 * \n)
	.endm
	.macro	check_ymm n
	vmovdqu	%ymm\n, SCRATCH(%rsp)
	.irp	i, 0, 1, 2, 3
	same	\i, (4 * \n)
	.endr
	.endm
	.macro	check_zmm n
	vmovdqu64 %zmm\n, SCRATCH(%rsp)
	.irp	i, 0, 1, 2, 3, 4, 5, 6, 7
	same	\i, 0
	.endr
	.endm
	.macro	high insn
	.irp	n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	\insn	\n
	.endr
	.endm

work:	subq	$FRAME, %rsp
	movq	%rsi, ROUNDS(%rsp)
	movq	%rdx, WHAT(%rsp)
	movq	%r11, RETURN(%rsp)
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7	/* x87 */
	movq	secret + 8 * \n(%rip), %mm\n
	.endr
	each	take_xmm
	cmpl	$LEAK_AVX, level(%rip)
	jb	1f
	each	take_ymm
	je	1f
	each	take_zmm
	high	take_zmm
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	kmovq	secret + 8 * \n(%rip), %k\n
	.endr
1:	pieces	take
	sti
	testq	$LEAK_TF, WHAT(%rsp)
	jz	2f
	pushfq
	orl	$0x100, (%rsp)
	popfq

	/* Through the stack, and the flags are the secret's. */
2:	pieces	turn
	.irp	reg, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9
	pushq	%\reg
	.endr
	.irp	reg, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx
	popq	%\reg
	.endr
	movq	%rbx, %rax
	sahf
	movq	%r12, SCRATCH(%rsp)
	movq	%rbx, %rax
	incq	done(%rip)
	testq	$LEAK_CR4, WHAT(%rsp)
	jz	9f
	movq	%cr4, %rax
	xorq	$1 << 20, %rax
	movq	%rax, %cr4
	movq	%rbx, %rax
9:
	subq	$1, ROUNDS(%rsp)
	movq	%rcx, %rax
	jnz	2b

	testq	$LEAK_TF, WHAT(%rsp)
	jz	3f
	pushfq
	andl	$~0x100, (%rsp)
	popfq
3:	testb	$LEAK_PF, WHAT(%rsp)
	jz	4f
	movq	%rbx, work(%rip)
4:	testb	$LEAK_UD, WHAT(%rsp)
	jz	4f
	ud2
4:	testb	$LEAK_DE, WHAT(%rsp)
	jz	4f
	/* The quotient of a 128-bit dividend of the secret by 0. */
	movq	$0, SCRATCH(%rsp)
	divq	SCRATCH(%rsp)
4:	testb	$LEAK_INT3, WHAT(%rsp)
	jz	4f
	int3
4:	testb	$LEAK_INT, WHAT(%rsp)
	jz	4f
	int	$0x90
4:	testb	$LEAK_OUT, WHAT(%rsp)
	jz	4f
	/* DX and AL are the port's; the rest is not. */
	movw	$PORT_STOP, %dx
	movb	$STOP_SYNC, %al
	outb	%al, %dx
	take	2, %rdx
4:	testb	$LEAK_CPUID, WHAT(%rsp)
	jz	4f
	xorl	%eax, %eax
	xorl	%ecx, %ecx
	cpuid
	take	0, %rbx
	take	1, %rcx
	take	2, %rdx

4:	cli
	xorl	%eax, %eax
	pieces	check
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	movq	%mm\n, SCRATCH(%rsp)
	same	0, \n
	.endr
	cmpl	$LEAK_AVX, level(%rip)
	jb	7f
	je	8f
	each	check_zmm
	high	check_zmm
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	kmovq	%k\n, SCRATCH(%rsp)
	same	0, \n
	.endr
	jmp	5f
7:	each	check_xmm
	jmp	5f
8:	each	check_ymm
5:	negq	%rax
	sbbq	%rax, %rax
	negq	%rax			/* 0 or 1 */
	/* Leave with everything full. */
	movq	RETURN(%rsp), %r8
	addq	$FRAME, %rsp
	testq	%r8, %r8
	jnz	6f
	pieces	take
	jmp	out
	/* Outside: the caller's own are to be as they were; here drv_call() has saved them. */
6:	emms
	movq	%r8, %r11
	jmp	out
	.org	leak_code + LEAK_DATA, 0xcc

	.section .note.GNU-stack,"",@progbits
