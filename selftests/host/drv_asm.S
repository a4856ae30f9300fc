/* SPDX-License-Identifier: GPL-2.0 */
#include "driver.h"
#include "layout.h"

#define HC_ENTER	0x52440008
#define HC_LEAVE	0x52440009
#define HC_RESUME	0x5244000a

/* ---- ordinary code ------------------------------------------------------------ */

	.text
/* u64 drv_call(op, a, b, c, door): every register but the arguments has a mark. */
	.globl drv_call
drv_call:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movl	$0xb8, %ebx
	movl	$0xb9, %ebp
	movl	$0xc1, %r12d
	movl	$0xd1, %r13d
	movl	$0xe1, %r14d
	movq	%rsp, %r15
	leaq	drv_back(%rip), %r11
	cmpq	$1, %r8
	je	drv_door
	ja	2f
	leaq	drv_gate(%rip), %r8
2:	movq	%r8, %rax
	jmp	*%rax
	.globl	drv_back
drv_back:	/* Note what came with it. */
	pushq	%rax
	pushfq
	popq	%rax
	orq	%rdx, %rcx
	orq	%rsi, %rcx
	orq	%rdi, %rcx
	orq	%r8, %rcx
	orq	%r9, %rcx
	orq	%r10, %rcx
	orq	%r11, %rcx
	movq	%gs:CPU_ID, %rdx
	imulq	$DRV_AFTER_SIZE, %rdx, %rdx
	leaq	drv_after(%rip), %rsi
	addq	%rdx, %rsi
	movq	%rbx, (%rsi)
	movq	%rbp, 8(%rsi)
	movq	%r12, 16(%rsi)
	movq	%r13, 24(%rsi)
	movq	%r14, 32(%rsi)
	leaq	8(%rsp), %rdx
	subq	%r15, %rdx
	movq	%rdx, 40(%rsi)
	movq	%rcx, 48(%rsi)
	movq	%rax, 56(%rsi)
	popq	%rax
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

/* Where a handler sends a thread that nobody can help: it ends, the call fails. */
	.globl	drv_drop
drv_drop:
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
	jnz	3f
	movq	$-14, %rax	/* -EFAULT */
3:	popq	%r15		/* nothing of the caller is in registers now */
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

/* ---- TEXT ---------------------------------------------------------------------- */

	.section .drv_text, "ax", @progbits
	.balign	4096
	.globl	drv_text
drv_text:
/* The hypercall door, one for each vendor. */
drv_door:
	movl	$HC_ENTER, %eax
	cmpb	$0, guest_is_intel(%rip)
	je	1f
	vmcall
	.globl	drv_behind_vmcall
drv_behind_vmcall:
	jmp	2f
1:	vmmcall
	.globl	drv_behind_vmmcall
drv_behind_vmmcall:
2:	testq	%rax, %rax	/* refused: still outside, the error in RAX */
	jns	inside
	jmp	*%r11

	.fill	16, 1, 0x90
	.globl	drv_resume
drv_resume:
	movl	$HC_RESUME, %eax
	movq	%rdi, %rbx
	cmpb	$0, guest_is_intel(%rip)
	je	1f
	vmcall
	ud2
1:	vmmcall
	ud2

/* The inside. RDI, RSI, RDX, RCX, RBX as in driver.h. The stack is the slot's. */
inside:
	cld
	call	dispatch
	jmp	drv_exit

dispatch:
	leaq	table(%rip), %rax
	cmpl	$13, %edi
	ja	bad
	movslq	(%rax, %rdi, 4), %rdi
	addq	%rdi, %rax
	jmp	*%rax
bad:	movq	$-22, %rax
	ret

	.balign 4
table:	.long	echo - table, store - table, load - table, jump - table, hypercall - table
	.long	compute - table, stop - table, event - table, cr3 - table, leave_hc - table
	.long	leave_wrong - table, stack - table, exec_data - table, stop_store - table

echo:	leaq	(%rsi, %rdx), %rax
	ret
	.globl	drv_store
drv_store:
store:	movq	%rdx, (%rsi)
	xorl	%eax, %eax
	ret
load:	movq	(%rsi), %rax
	ret
jump:	jmp	*%rsi
cr3:	movq	%cr3, %rax
	ret
stack:	leaq	8(%rsp), %rax
	ret
exec_data:
	movl	$DRV_DATA, %eax
	jmp	*%rax
leave_wrong:
	leaq	drv_exit + 8(%rip), %rax
	jmp	*%rax

/* The number, and where its three arguments are: in the driver's data. */
hypercall:
	movq	%rsi, %rax
	movq	DRV_DATA + 0xfd0, %rbx
	movq	DRV_DATA + 0xfd8, %rcx
	movq	DRV_DATA + 0xfe0, %rdx
	xorl	%esi, %esi
	jmp	1f
leave_hc:
	leaq	(%rsi, %rdx), %rbx
	movl	$HC_LEAVE, %eax
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
1:	cmpb	$0, DRV_DATA + 0xff0	/* the vendor */
	je	2f
	vmcall
	ret
2:	vmmcall
	ret

stop:	movq	%rdx, %r8
	movq	%rsi, %rdi
	movl	$PORT_STOP, %edx
	movb	$STOP_SYNC, %al
	outb	%al, %dx
	leaq	(%rsi, %r8), %rax
	ret

/* Stop, then store, and see what is there. */
stop_store:
	movq	%rdx, %r8
	movq	%rsi, %rdi
	movl	$PORT_STOP, %edx
	movb	$STOP_SYNC, %al
	outb	%al, %dx
	movq	%r8, (%rsi)
	movq	(%rsi), %rax
	ret

/*
 * All general registers but RSP, all flags that arithmetic sets and 16 vector
 * registers, round by round; the result depends on each.
 */
	.globl	drv_compute
drv_compute:
compute:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushq	%rsi
	movl	$1, %eax
	movl	$2, %ebx
	movl	$3, %ecx
	movl	$4, %edx
	movl	$5, %esi
	movl	$6, %edi
	movl	$7, %ebp
	movl	$8, %r8d
	movl	$9, %r9d
	movl	$10, %r10d
	movl	$11, %r11d
	movl	$12, %r12d
	movl	$13, %r13d
	movl	$14, %r14d
	movl	$15, %r15d
	clc
3:	adcq	%r15, %rax
	rclq	$5, %rax
	adcq	%rax, %rbx
	adcq	%rbx, %rcx
	adcq	%rcx, %rdx
	rclq	$7, %rdx
	adcq	%rdx, %rsi
	adcq	%rsi, %rdi
	adcq	%rdi, %rbp
	adcq	%rbp, %r8
	rclq	$11, %r8
	adcq	%r8, %r9
	adcq	%r9, %r10
	adcq	%r10, %r11
	adcq	%r11, %r12
	adcq	%r12, %r13
	adcq	%r13, %r14
	adcq	%r14, %r15
	pushfq
	subq	$1, 8(%rsp)
	jz	4f
	popfq
	jmp	3b
4:	popfq
	movq	%r15, %rax
	popq	%rsi
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

event:
	movq	%rdx, %r8
	movl	$0x5eed, %r9d
	movl	$0x1ea5, %ecx
	cmpl	$1, %esi
	jb	e_div
	je	e_ud2
	cmpl	$3, %esi
	jb	e_int3
	je	e_int
	cmpl	$5, %esi
	jb	e_pf
	je	e_step
	movq	$-22, %rax
	ret
e_div:	xorl	%edx, %edx
	movl	$100, %eax
	divl	%r10d		/* the handler lets it go on behind */
	jmp	e_done
e_ud2:	ud2
	jmp	e_done
e_int3:	int3
	jmp	e_done
e_int:	int	$0x90
	jmp	e_done
e_pf:	movq	(%r8), %rax
	addq	%rax, %rcx
	jmp	e_done
e_step:	pushfq
	orl	$0x100, (%rsp)
	popfq
	.rept	8
	incq	%rcx
	.endr
	pushfq
	andl	$~0x100, (%rsp)
	popfq
	subq	$8, %rcx
e_done:	movl	%r9d, %eax
	addq	%r9, %rax
	addq	%rcx, %rax
	ret

	.balign	4096, 0xcc
	.globl	drv_text_end
drv_text_end:

/* ---- GATE and EXIT -------------------------------------------------------------- */

	.section .drv_gate, "ax", @progbits
	.balign	4096
	.globl	drv_gate
drv_gate:
	jmp	inside
	.balign	4096, 0xcc
	.globl	drv_gate_end
drv_gate_end:

	.section .drv_exit, "ax", @progbits
	.balign	4096
	.globl	drv_exit
drv_exit:
	ud2
	.balign	4096, 0xcc
	.globl	drv_exit_end
drv_exit_end:

	.section .note.GNU-stack,"",@progbits
