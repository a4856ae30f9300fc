/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way in and out of a domain. Whoever jumps to __rdt_gate's offset of its page is
 * inside when the next instruction is fetched, with RCX = op, RDX = address in the window, RSI =
 * bytes there, RDI = room (uapi/linux/redoubt_domain.h, RDT_DOMAIN_CALL), RSP = the slot's stack,
 * which ends where the slot's messages begin; all other registers are zero.
 */
	.section .rdt.gate, "ax", @progbits
	.balign	4096, 0xcc
	.fill	0x40, 1, 0xcc
	.globl	__rdt_gate
__rdt_gate:
	jmp	start
	.balign	4096, 0xcc

	/* A jump to it leaves; nothing here is ever executed. */
	.section .rdt.exit, "a", @progbits
	.balign	4096, 0xcc
	.fill	0x80, 1, 0xcc
	.globl	__rdt_exit
__rdt_exit:
	.balign	4096, 0xcc

	.text
start:
	movq	%rsp, %r8
	call	__rdt_enter
	jmp	__rdt_exit

	.globl	rdt_leave
rdt_leave:
	movq	%rdi, %rax
	jmp	__rdt_exit

	/* (u64 out[4], int intel): RDT_HC_DOM_MEASURE of oneself */
	.globl	__rdt_hc_measure
__rdt_hc_measure:
	pushq	%rbx
	movl	%esi, %r8d
	movl	$0x52440015, %eax
	xorl	%ebx, %ebx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	testl	%r8d, %r8d
	jz	1f
	vmcall
	jmp	2f
1:	vmmcall
2:	movq	%rbx, (%rdi)
	movq	%rcx, 8(%rdi)
	movq	%rdx, 16(%rdi)
	movq	%rsi, 24(%rdi)
	popq	%rbx
	ret

	/* (u64 *out): 1, and 64 random bits; 0: there were none for ten times */
	.globl	__rdt_rdrand
__rdt_rdrand:
	movl	$10, %ecx
1:	rdrand	%rax
	jc	2f
	pause
	decl	%ecx
	jnz	1b
	xorl	%eax, %eax
	ret
2:	movq	%rax, (%rdi)
	movl	$1, %eax
	ret

	/* (to, from, bytes), (at, byte, bytes) */
	.globl	memcpy
memcpy:
	movq	%rdi, %rax
	movq	%rdx, %rcx
	shrq	$3, %rcx
	rep movsq
	movl	%edx, %ecx
	andl	$7, %ecx
	rep movsb
	ret

	.globl	memset
memset:
	movq	%rdi, %r8
	movzbl	%sil, %eax
	movabsq	$0x0101010101010101, %rcx
	imulq	%rcx, %rax
	movq	%rdx, %rcx
	shrq	$3, %rcx
	rep stosq
	movl	%edx, %ecx
	andl	$7, %ecx
	rep stosb
	movq	%r8, %rax
	ret

	.section .note.GNU-stack,"",@progbits
