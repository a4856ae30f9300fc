/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest that dirties memory as fast as it can, and sees whether it lost any: a boot disk of its own, no kernel.
 *
 * Pass k (1, 2, ...): in each page of 40 MB the dword that pass k - 1 left there, and one that tells the page; then k. A dot for
 * each 256 pages goes out by the debug port. What is wrong goes out as '!', and the guest halts.
 */
	.code16
	.globl start
	.equ LOW, 0x100000
	.equ PAGES, 0x2800

start:	cli				/* the BIOS' handlers would take flat %fs away */
	ljmp $0, $1f
1:	xorw %ax, %ax
	movw %ax, %ds
	lgdtl gdt_register
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	movw $8, %bx
	movw %bx, %fs
	andb $0xfe, %al
	movl %eax, %cr0
	ljmp $0, $2f

	/* As if there had been a pass 0 */
2:	movl $LOW, %edi
	movl $PAGES, %ecx
3:	movl $0, %fs:(%edi)
	movl %edi, %fs:0xffc(%edi)
	addl $0x1000, %edi
	decl %ecx
	jnz 3b
	xorl %ebp, %ebp

pass:	movl $LOW, %edi
	movl $PAGES, %ecx
4:	cmpl %ebp, %fs:(%edi)
	jne lost
	cmpl %edi, %fs:0xffc(%edi)
	jne lost
	incl %fs:(%edi)
	addl $0x1000, %edi
	decl %ecx
	testb $0xff, %cl
	jnz 5f
	movb $'.', %al
	outb %al, $0xe9
5:	testl %ecx, %ecx
	jnz 4b
	incl %ebp
	jmp pass

lost:	movb $'!', %al
	outb %al, $0xe9
6:	hlt
	jmp 6b

gdt:	.quad 0
	.quad 0x00cf92000000ffff
gdt_register:
	.word 15
	.long gdt
	.org 510
	.word 0xaa55
