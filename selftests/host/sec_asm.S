/* SPDX-License-Identifier: GPL-2.0 */
#include "layout.h"
#include "secret.h"

#define HC_LEAVE	0x52440009
#define HC_RESUME	0x5244000a

	/* An instruction that test_secret.c wants to interrupt. */
	.macro	s insn:vararg
7777:	\insn
	.pushsection .sec_steps, "a", @progbits
	.quad	7777b
	.popsection
	.endm

	.macro	op nr, where
s	cmpl	$\nr, %edi
s	je	\where
	.endm

	.section .sec_steps, "a", @progbits
	.balign	8
	.globl	sec_steps
sec_steps:

	.section .sec_text, "ax", @progbits
	.balign	4096
	.globl	sec_code
sec_code:
	/* GATE: everything but the entry is a trap. */
	.fill	SEC_GATE_AT, 1, 0xcc
	op	SEC_REGS, regs
	op	SEC_VECTORS, vectors
s	movabsq	$SEC_PLACE1, %rbx
	.globl	sec_place1
	.set	sec_place1, . - 8
s	movabsq	$SEC_PLACE2, %rbp
	.globl	sec_place2
	.set	sec_place2, . - 8
	.irp	n, %rax, %rcx, %r8, %r9, %r10, %r12
s	movq	%rbx, \n
	.endr
	.irp	n, %r13, %r14, %r15
s	movq	%rbp, \n
	.endr
	op	SEC_SPIN, spin
	op	SEC_LOAD, load
	op	SEC_STORE, store
	op	SEC_LOAD_GATE, load_gate
	op	SEC_WAIT, wait
	op	SEC_UD2, do_ud2
	op	SEC_INT3, do_int3
	op	SEC_INT, do_int
	op	SEC_JUMP, jump
	op	SEC_RESULTS, results
	op	SEC_GP, do_gp
	op	SEC_LEAVE_HC, leave_hc
	op	SEC_LEAVE_WRONG, exit_page + 8
	/* SEC_MAC */
s	movq	%rsi, %rax
s	xorq	%rbx, %rax
s	imulq	%rbp, %rax
s	rolq	$23, %rax
s	addq	%r12, %rax
s	imulq	%r13, %rax
s	movq	%rax, %r10
s	shrq	$32, %r10
s	xorq	%r10, %rax
s	jmp	mac_out

do_ud2:	ud2
do_int3:
	int3
	jmp	zero_out
do_int:	int	$0x90
	jmp	zero_out
jump:	jmp	*%rsi
do_gp:	movabsq	$0x8000000000000000, %rdx
	jmp	*%rdx
load_gate:
	movq	(%rsi), %rax
	jmp	out
zero_out:
	xorl	%eax, %eax
	jmp	out
regs:	addq	%rbx, %rax
	.irp	n, %rcx, %rdx, %rsi, %rdi, %rbp, %r8, %r9, %r10, %r12, %r13, %r14, %r15
	addq	\n, %rax
	.endr
	jmp	out
results:
	.irp	n, 8, 9, 10, 11, 12, 13, 14, 15
	movl	$SEC_MARK + \n, %r\n\()d
	.endr
	movl	$SEC_MARK, %eax
	movl	$SEC_MARK + 1, %ecx
	movl	$SEC_MARK + 2, %edx
	movl	$SEC_MARK + 3, %ebx
	movl	$SEC_MARK + 5, %ebp
	movl	$SEC_MARK + 6, %esi
	movl	$SEC_MARK + 7, %edi
	jmp	out

	/* Whatever an interrupt did is in RAX afterwards. */
spin:	sti
1:	decq	%rsi
	jnz	1b
	cli
	xorl	%eax, %eax
	.irp	n, %rcx, %r8, %r9, %r10, %r12
	xorq	%rbx, \n
	orq	\n, %rax
	.endr
	.irp	n, %r13, %r14, %r15
	xorq	%rbp, \n
	orq	\n, %rax
	.endr
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
	movabsq	$SEC_PLACE1, %rbx
	.globl	sec_place3
	.set	sec_place3, . - 8
	movq	%rbx, %xmm0
	all_xmm	movdqa, 0
	sti
1:	decq	%rsi
	jnz	1b
	cli
	all_xmm	por, 1
	movq	%xmm0, %rax
	xorq	%rbx, %rax
	orq	%r9, %rax
	jmp	out

leave_hc:
	movq	%rsi, %rbx
	movl	$HC_LEAVE, %eax
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	.byte	0x0f, 0x01
	.globl	sec_intel		/* the host puts VMCALL's last byte there */
sec_intel:
	.byte	0xd9
	ud2
	.balign	4096, 0xcc

	/* EXIT: nothing here is executed. */
exit_page:
	.fill	4096, 1, 0xcc
	.set	out, exit_page + SEC_EXIT_AT

	/* TEXT */
mac_out:
s	movq	%rax, (%rdx)
s	xorl	%r10d, %r10d
s	jmp	out
wait:	movq	$1, (%rsi)
1:	pause
	cmpq	$2, (%rsi)
	jne	1b
	movq	%rdx, %rax
	jmp	out
load:	movq	(%rsi), %rax
	jmp	out
store:	movq	%rdx, (%rsi)
	xorl	%eax, %eax
	jmp	out
	.balign	4096, 0xcc

	.section .sec_steps, "a", @progbits
	.globl	sec_steps_end
sec_steps_end:

	/* u64 sec_call(op, a, b, gate): each register has its mark. Frame: as drv_call()'s. */
	.text
	.globl	sec_call
sec_call:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushq	%rcx
	movl	$SEC_PATTERN, %eax
	movq	%rax, %xmm0
	all_xmm	movdqa, 0
	movl	$SEC_CALLER, %eax
	movl	$SEC_CALLER + 1, %ecx
	movl	$SEC_CALLER + 3, %ebx
	movl	$SEC_CALLER + 5, %ebp
	.irp	n, 8, 9, 10, 12, 13, 14, 15
	movl	$SEC_CALLER + \n, %r\n\()d
	.endr
	leaq	sec_back(%rip), %r11
	cmpl	%eax, %eax
	stc				/* RFLAGS are SEC_FLAGS */
	jmp	*(%rsp)
	.globl	sec_back
sec_back:
	movq	%rax, sec_after
	pushfq
	popq	sec_after + 128
	movq	%rcx, sec_after + 8
	movq	%rdx, sec_after + 16
	movq	%rbx, sec_after + 24
	movq	%rsp, sec_after + 32
	movq	%rbp, sec_after + 40
	movq	%rsi, sec_after + 48
	movq	%rdi, sec_after + 56
	.irp	n, 8, 9, 10, 11, 12, 13, 14, 15
	movq	%r\n, sec_after + 8 * \n
	.endr
	movl	$SEC_PATTERN, %edx
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movq	%xmm\n, %rcx
	cmpq	%rdx, %rcx
	jne	1f
	.endr
	jmp	9f
1:	btsq	$62, %rax		/* a vector register that is not the caller's */
	jmp	9f
/* Where a handler sends a thread that is not to go on: its slot is free again, the call fails. */
	.globl	sec_drop
sec_drop:
	movl	$HC_RESUME, %eax
	movq	%rdi, %rbx
	movl	$1, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	cmpb	$0, guest_is_intel(%rip)
	je	1f
	vmcall
	jmp	2f
1:	vmmcall
2:	testq	%rax, %rax
	jnz	9f
	/* The same of a call that is forgotten already. */
	.globl	sec_give_up
sec_give_up:
	movq	$-14, %rax
9:	popq	%rcx
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

	.bss
	.balign	8
	.globl	sec_after
sec_after:
	.fill	SEC_AFTER, 8, 0

	.section .note.GNU-stack,"",@progbits
