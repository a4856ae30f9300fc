/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest whose work can be counted from outside: a boot disk of its own, no kernel. It fills `pages` pages with numbers that
 * neither repeat nor compress, then does rounds without an end: a word into the next page drawn of them, `spin` turns of a
 * loop, and one more in the count at COUNT, which is where the host looks in the VM's memory.
 */
	.code16
	.globl start
	.equ LOW, 0x1000000		/* 16 MiB: behind what the BIOS uses */
	.equ COUNT, 0x6000		/* u64; 0 until memory is filled */

start:	ljmp $0, $1f
1:	xorw %ax, %ax
	movw %ax, %ds
	cli
	/* Port 0x92: A20 */
	inb $0x92, %al
	orb $2, %al
	andb $0xfe, %al
	outb %al, $0x92
	lgdtl gdt_register
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $8, $flat
	.code32
flat:	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $0x7000, %esp
	movl $0, COUNT
	movl $0, COUNT + 4
	/* xorshift: its low bits are as good as its high ones */
	movl $0x12345678, %eax
	movl $LOW, %edi
	movl pages, %ecx
	shll $10, %ecx
2:	call draw
	stosl
	decl %ecx
	jnz 2b

next:	call draw
	pushl %eax
	xorl %edx, %edx
	divl pages
	shll $12, %edx
	popl %eax
	movl %eax, LOW(%edx)
	movl spin, %ecx
	jecxz 4f
3:	decl %ecx
	jnz 3b
4:	addl $1, COUNT
	adcl $0, COUNT + 4
	jmp next

draw:	movl %eax, %edx
	shll $13, %edx
	xorl %edx, %eax
	movl %eax, %edx
	shrl $17, %edx
	xorl %edx, %eax
	movl %eax, %edx
	shll $5, %edx
	xorl %edx, %eax
	ret

	.balign 8
gdt:	.quad 0
	.quad 0x00cf9a000000ffff
	.quad 0x00cf92000000ffff
gdt_register:
	.word 23
	.long gdt
	/* Set by who writes the disk (selftests/bench/standby) */
	.org 496
pages:	.long 1
spin:	.long 0
	.org 510
	.word 0xaa55
