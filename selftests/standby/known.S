/* SPDX-License-Identifier: GPL-2.0 */
/* Guest code: registers whose values the host knows. RDI, the flag's address, stays too. */
#include "known.h"

.macro known
	mov	$0xc0000102, %ecx
	mov	$(KNOWN_KGS & 0xffffffff), %eax
	mov	$(KNOWN_KGS >> 32), %edx
	wrmsr
	mov	$0xc0000081, %ecx
	mov	$(KNOWN_STAR & 0xffffffff), %eax
	mov	$(KNOWN_STAR >> 32), %edx
	wrmsr
	mov	$KNOWN_DR0, %eax
	mov	%rax, %dr0
.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movdqu	known_xmm + 16 * \n, %xmm\n
.endr
	fninit
	fld1
	movabs	$KNOWN_RAX, %rax
	movabs	$KNOWN_RBX, %rbx
	movabs	$KNOWN_RCX, %rcx
	movabs	$KNOWN_RDX, %rdx
	movabs	$KNOWN_RSI, %rsi
	movabs	$KNOWN_RBP, %rbp
.irp n, 8, 9, 10, 11, 12, 13, 14, 15
	movabs	$(KNOWN_R(\n)), %r\n
.endr
	movl	$1, (%rdi)
.endm

	.text
	.globl g_known_spin, known_spin, known_spin_end
g_known_spin:
	known
known_spin:
	pause
	jmp	known_spin
known_spin_end:

	.globl g_known_halt, known_halt, known_halted
g_known_halt:
	known
known_halt:
	hlt
known_halted:
	jmp	known_halt

	/* At each exit of its OUT RBX is what MSR_KERNEL_GS_BASE is. */
	.globl g_count
g_count:
	mov	$0xc0000102, %ecx
	xor	%ebx, %ebx
1:	inc	%rbx
	mov	%ebx, %eax
	mov	%rbx, %rdx
	shr	$32, %rdx
	wrmsr
	out	%al, $COUNT_PORT
	jmp	1b

	.section .rodata
	.globl known_xmm
	.balign 16
known_xmm:
.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.quad	0x1111111111111111 * \n + 0x0807060504030201
	.quad	0xfeedfacecafe0000 + \n
.endr

	.section .note.GNU-stack, "", @progbits
