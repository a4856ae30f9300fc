/* SPDX-License-Identifier: GPL-2.0 */
/* See dom_image.h. RCX: operation, RDX: input and output, RSI: length, RDI: room. */
#include "dom_image.h"

#define HC_MEASURE	0x52440015
#define CONSTANT	0x5eed0000

	.section .rodata.dom_image, "a", @progbits
	.balign	4096
	.globl	dom_image, dom_image_end, dom_image_intel
dom_image:
	.fill	DOM_GATE_AT, 1, 0xcc
	endbr64
	jmp	inside
	.balign	4096, 0xcc

exit_page:
	.fill	4096, 1, 0xcc
	.set	out, exit_page + DOM_EXIT_AT

inside:
	cmpq	$DOM_OPS, %rcx
	jae	bad
	leaq	table(%rip), %r8
	movslq	(%r8, %rcx, 4), %rcx
	addq	%r8, %rcx
	pushq	%rcx
	ret			/* no indirect jump: there may be IBT */
bad:	movq	$-22, %rax
	jmp	out

	.balign	4
table:	.long	echo - table, count - table, spin - table, meet - table, measure - table
	.long	load - table, fault - table, fault_cli - table, too_long - table, value - table
	.long	forever - table, fill - table, vectors - table

echo:	movq	%rsi, %rax
	movq	%rsi, %rcx
1:	jrcxz	out_near
	incb	-1(%rdx, %rcx)
	decq	%rcx
	jmp	1b
count:	movq	(%rdx), %rcx
	movq	%rcx, %rax
	lock xaddq %rax, counter(%rip)
	addq	%rcx, %rax
give:	movq	%rax, (%rdx)
	movl	$8, %eax
out_near:
	jmp	out

	.macro	others insn
	.set	i, 0
	.irp	r, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12
	.set	i, i + 1
	\insn	$(CONSTANT + i), %\r
	.endr
	.endm

spin:	movq	(%rdx), %rcx
	movabsq	$6364136223846793005, %r13
	movabsq	$1442695040888963407, %r14
	movl	$1, %eax
	movq	%rsp, %r15
	others	movq
1:	pushq	%rax
	popq	%rax
	imulq	%r13, %rax
	addq	%r14, %rax
	decq	%rcx
	jnz	1b
	.set	i, 0
	.irp	r, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12
	.set	i, i + 1
	cmpq	$(CONSTANT + i), %\r
	jne	wrong
	.endr
	cmpq	%rsp, %r15
	je	give
wrong:	movq	$-71, %rax
	jmp	out

meet:	movq	(%rdx), %rcx
	movq	8(%rdx), %rsi
	lock incq arrived(%rip)
1:	cmpq	%rcx, arrived(%rip)
	jae	2f
	pause
	decq	%rsi
	jnz	1b
	movq	$-110, %rax
	jmp	out
2:	xorl	%eax, %eax
	jmp	out

measure:
	movq	%rdx, %r12
	movl	$HC_MEASURE, %eax
	xorl	%ebx, %ebx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	cmpb	$0, dom_image_intel(%rip)
	je	1f
	vmcall
	jmp	2f
1:	vmmcall
2:	testq	%rax, %rax
	jnz	out_near
	movq	%rbx, (%r12)
	movq	%rcx, 8(%r12)
	movq	%rdx, 16(%r12)
	movq	%rsi, 24(%r12)
	movl	$32, %eax
	jmp	out

load:	movq	(%rdx), %rax
	movq	(%rax), %rax
	jmp	give
fault_cli:
	cli
	ud2
fault:	movq	(%rdx), %rcx
	jrcxz	2f
	decq	%rcx
	jrcxz	1f
	decq	%rcx
	jrcxz	3f
	decq	%rcx
	jrcxz	4f
	int3
	ud2
1:	xorl	%edx, %edx
	divl	%edx
2:	ud2
3:	movabsq	$0x8000000000000000, %rax
	movq	(%rax), %rax
4:	movq	%rax, inside(%rip)	/* its own code */
	ud2
too_long:
	leaq	1(%rdi), %rax
	jmp	out
value:	movq	(%rdx), %rax
	jmp	out
forever:
	incq	counter(%rip)
	jmp	forever
fill:	movq	%rdi, %rcx
	movq	%rdi, %rsi
	movq	%rdx, %rdi
	movb	$0xaa, %al
	rep stosb
	movq	%rsi, %rax
	jmp	out

	/* Nothing of the caller's in them; what is put there stays. */
vectors:
	movq	(%rdx), %rcx
	.irp	n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	por	%xmm\n, %xmm0
	.endr
	movhlps	%xmm0, %xmm1
	por	%xmm1, %xmm0
	movq	%xmm0, %rax
	testq	%rax, %rax
	jnz	wrong
	movabsq	$0x123456789abcdef, %rax
	movq	%rax, %xmm0
	.irp	n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movdqa	%xmm0, %xmm\n
	.endr
1:	decq	%rcx
	jnz	1b
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movq	%xmm\n, %rcx
	cmpq	%rax, %rcx
	jne	wrong
	.endr
	xorl	%eax, %eax
	jmp	out
	.balign	4096, 0xcc

	/* DATA */
counter:	.quad	0
arrived:	.quad	0
dom_image_intel: .byte	0	/* the host's vendor: who makes the image writes it */
	.balign	4096
dom_image_end:

	.section .note.GNU-stack,"",@progbits
