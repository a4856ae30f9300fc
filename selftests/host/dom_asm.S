/* SPDX-License-Identifier: GPL-2.0 */
#include "domain.h"
#include "layout.h"

#define HC_LEAVE	0x52440009
#define HC_MEASURE	0x52440015

	.section .dom_text, "ax", @progbits
	.balign	4096
	.globl	dom_code
dom_code:
	/* GATE: everything but the entry is a trap. */
	.fill	DOM_GATE_AT, 1, 0xcc
	jmp	inside
	.balign	4096, 0xcc

	/* EXIT: nothing here is executed. */
exit_page:
	.fill	4096, 1, 0xcc
	.set	out, exit_page + DOM_EXIT_AT

	/* TEXT */
inside:
	cmpl	$DOM_OPS, %edi
	jae	bad
	leaq	table(%rip), %r8
	movslq	(%r8, %rdi, 4), %rdi
	addq	%r8, %rdi
	xorl	%r8d, %r8d
	jmp	*%rdi
bad:	movq	$-22, %rax
	jmp	out

	.balign	4
table:	.long	add - table, store - table, load - table, jump - table, regs - table
	.long	spin - table, stop - table, event - table, measure - table, stack - table
	.long	cr3 - table, leave - table, vectors - table, wait - table, int3_ - table
	.long	int_ - table, syscall_ - table, sysenter_ - table, segments - table

add:	leaq	(%rsi, %rdx), %rax
	jmp	out
store:	movq	%rdx, (%rsi)
	xorl	%eax, %eax
	jmp	out
load:	movq	(%rsi), %rax
	jmp	out
jump:	jmp	*%rsi
regs:	orq	%rbx, %rax
	orq	%rbp, %rax
	orq	%r8, %rax
	orq	%r9, %rax
	orq	%r10, %rax
	orq	%r11, %rax
	orq	%r12, %rax
	orq	%r13, %rax
	orq	%r14, %rax
	orq	%r15, %rax
	jmp	out
event:	ud2
stack:	movq	%rsp, %rax
	jmp	out
cr3:	movq	%cr3, %rax
	jmp	out
stop:	movq	%rdx, %r8
	movl	$PORT_STOP, %edx
	movb	$STOP_SYNC, %al
	outb	%al, %dx
	leaq	(%rsi, %r8), %rax
	jmp	out

wait:	movq	$1, (%rsi)
1:	pause
	cmpq	$2, (%rsi)
	jne	1b
	movq	%rdx, %rax
	jmp	out
int3_:	int3
	leaq	(%rsi, %rdx), %rax
	jmp	out
int_:	int	$0x90
	leaq	(%rsi, %rdx), %rax
	jmp	out
syscall_:
	movabsq	$DOM_SECRET, %rbx
	syscall
	jmp	bad
sysenter_:
	movabsq	$DOM_SECRET, %rbx
	sysenter
	jmp	bad
segments:
	rdfsbase %rax
	rdgsbase %rbx
	wrfsbase %rsi
	wrgsbase %rsi
	orq	%rbx, %rax
	jmp	out

	/* What ring 3 cannot do, and need not. */
	.macro	irqs insn
	cmpb	$0, user(%rip)
	jne	77f
	\insn
77:
	.endm

	/* Each round goes by the stack: an interrupt finds the secret everywhere. */
spin:	irqs	sti
	movq	%rsi, %rax
	movabsq	$DOM_SECRET, %rbx
	movq	%rbx, %rcx
	movq	%rbx, %rdx
	movq	%rbx, %rsi
	movq	%rbx, %rdi
	movq	%rbx, %rbp
	movq	%rbx, %r8
	movq	%rbx, %r9
	movq	%rbx, %r10
	movq	%rbx, %r11
	movq	%rbx, %r12
	movq	%rbx, %r13
	movq	%rbx, %r14
	movq	%rbx, %r15
1:	pushq	%r15
	popq	%r14
	addq	$1, %rbx
	decq	%rax
	jnz	1b
	irqs	cli
	orq	%rdx, %rcx
	orq	%rsi, %rcx
	orq	%rdi, %rcx
	orq	%rbp, %rcx
	orq	%r8, %rcx
	orq	%r9, %rcx
	orq	%r10, %rcx
	orq	%r11, %rcx
	orq	%r12, %rcx
	orq	%r13, %rcx
	orq	%r14, %rcx
	subq	%r15, %rcx		/* 0 */
	movq	%rbx, %rax
	subq	%r15, %rax		/* rounds */
	addq	%rcx, %rax
	jmp	out

	.macro	all_xmm insn, from
	.irp	n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.if	\from
	\insn	%xmm\n, %xmm0
	.else
	\insn	%xmm0, %xmm\n
	.endif
	.endr
	.endm

vectors:
	all_xmm	por, 1
	movq	%xmm0, %r9
	movhlps	%xmm0, %xmm0
	movq	%xmm0, %r10
	orq	%r10, %r9
	movabsq	$DOM_SECRET, %rbx
	movq	%rbx, %xmm0
	all_xmm	movdqa, 0
	irqs	sti
1:	decq	%rsi
	jnz	1b
	irqs	cli
	all_xmm	por, 1
	movq	%xmm0, %rax
	subq	%rbx, %rax
	orq	%r9, %rax
	jmp	out

leave:	leaq	(%rsi, %rdx), %rbx
	movl	$HC_LEAVE, %eax
	jmp	1f
measure:
	movl	$HC_MEASURE, %eax
	xorl	%ebx, %ebx
1:	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	cmpb	$0, intel(%rip)
	je	2f
	vmcall
	jmp	3f
2:	vmmcall
3:	movq	%rbx, %rax
	jmp	out

	.globl	dom_intel, dom_user	/* the host writes them before it makes a domain */
dom_intel:
intel:	.byte	0
dom_user:
user:	.byte	0
	.balign	4096, 0xcc

	.text
	.globl	dom_vector_call
dom_vector_call:
	movl	$DOM_PATTERN, %eax
	movq	%rax, %xmm0
	all_xmm	movdqa, 0
	call	drv_call
	movq	%rax, %r8
	movl	$DOM_PATTERN, %eax
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movq	%xmm\n, %rdx
	cmpq	%rax, %rdx
	jne	1f
	.endr
	movq	%r8, %rax
	ret
1:	movq	%r8, %rax
	btsq	$62, %rax
	ret

	.section .note.GNU-stack,"",@progbits
