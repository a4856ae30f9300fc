/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest that can tell whether it lost anything: a boot disk of its own, no kernel.
 *
 * Step k (1, 2, ...): the dwords that step k - 1 wrote, in 64 pages drawn from k - 1, must be there; so must the sector
 * that it wrote. Then the same is written for k, and k goes out by the debug port as eight hexadecimal digits and a
 * newline. What is wrong goes out as a line that begins with '!', and the guest halts. So two outputs laid end to end
 * are one run of numbers, or memory, disk or a register has been lost, or a step was done twice.
 */
	.code16
	.globl start
	.equ LOW, 0x100000		/* of the memory that is written: above what the BIOS uses */
	.equ PAGES, 0x1000		/* 16 MB */
	.equ SECTOR, 2048
	.equ BUFFER, 0x6000

start:	ljmp $0, $1f
1:	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7000, %sp
	movb %dl, drive
	call msix
	/* Nothing was done yet: as if step 0 had been. */
	xorl %ebp, %ebp
	call fill
	call write_pages
	call write_sector

next:	call check_pages
	call check_sector
	incl %ebp
	call write_pages
	call fill
	call write_sector
	movl %ebp, %eax
	movw $8, %cx
2:	roll $4, %eax
	pushl %eax
	andb $15, %al
	cmpb $10, %al
	sbbb $0x69, %al
	das
	outb %al, $0xe9
	popl %eax
	loop 2b
	movb $10, %al
	outb %al, $0xe9
	jmp next

/*
 * MSI-X on, with no vector in use: the BIOS' drivers poll. Of a killed VMM's devices only those can be carried that do not
 * interrupt by a line.
 */
msix:	movl $0x80000000, %ebx
6:	call config
	cmpw $0x1af4, %ax
	jne 9f
	movb $0x34, %bl
	call config
7:	movb %al, %bl
	testb %bl, %bl
	jz 9f
	call config
	cmpb $0x11, %al
	movb %ah, %al
	jne 7b
	orl $0x80000000, %eax
	movb $0x11, %al
	outl %eax, %dx
9:	xorb %bl, %bl
	addl $0x800, %ebx
	cmpl $0x80010000, %ebx
	jb 6b
	ret
/* %eax = what is at %ebx; %dx is its port */
config:	movw $0xcf8, %dx
	movl %ebx, %eax
	outl %eax, %dx
	movw $0xcfc, %dx
	inl %dx, %eax
	ret

/* Flat %fs in real mode; the BIOS' calls take it away. */
flat:	cli
	lgdtl gdt_register
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	movw $8, %bx
	movw %bx, %fs
	andb $0xfe, %al
	movl %eax, %cr0
	xorw %bx, %bx
	movw %bx, %fs
	sti
	ret

/* %edi = the next page's address; %esi is the generator. */
draw:	imull $1664525, %esi, %esi
	addl $1013904223, %esi
	movl %esi, %edi
	shrl $8, %edi
	andl $(PAGES - 1), %edi
	shll $12, %edi
	addl $LOW, %edi
	ret

write_pages:
	call flat
	movl %ebp, %esi
	movw $64, %cx
3:	call draw
	movl %ebp, %fs:(%edi)
	movl %ebp, %fs:0xffc(%edi)
	loop 3b
	ret

check_pages:
	call flat
	movl %ebp, %esi
	movw $64, %cx
4:	call draw
	cmpl %ebp, %fs:(%edi)
	jne lost_memory
	cmpl %ebp, %fs:0xffc(%edi)
	jne lost_memory
	loop 4b
	ret

fill:	movw $BUFFER, %di
	movw $128, %cx
	movl %ebp, %eax
	rep stosl
	ret

write_sector:
	movb $0x43, %ah
	jmp disk
check_sector:
	/* Not what is in the buffer already */
	pushl %ebp
	notl %ebp
	call fill
	popl %ebp
	movb $0x42, %ah
	call disk
	movw $BUFFER, %di
	movw $128, %cx
	movl %ebp, %eax
	repe scasl
	jne lost_disk
	ret

disk:	movl %ebp, %ebx
	andl $1023, %ebx
	addl $SECTOR, %ebx
	movl %ebx, packet_lba
	xorb %al, %al
	movw $packet, %si
	movb drive, %dl
	pushl %ebp
	int $0x13
	popl %ebp
	jc lost_disk
	ret

lost_memory:
	movb $'m', %bl
	jmp halt
lost_disk:
	movb $'d', %bl
halt:	movb $10, %al
	outb %al, $0xe9
	movb $'!', %al
	outb %al, $0xe9
	movb %bl, %al
	outb %al, $0xe9
	movb $10, %al
	outb %al, $0xe9
5:	cli
	hlt
	jmp 5b

drive:	.byte 0
	.balign 4
packet:	.byte 16, 0
	.word 1, BUFFER, 0
packet_lba:
	.quad 0
gdt:	.quad 0
	.quad 0x00cf92000000ffff
gdt_register:
	.word 15
	.long gdt
	.org 510
	.word 0xaa55
